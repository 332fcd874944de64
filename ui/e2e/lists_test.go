package e2e

import (
	"context"
	"encoding/csv"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// TestLists goes through what lists and the pages behind them offer beside their rows: the menu of actions, a look at a row, the columns of a
// table, the list as a file, and those of it that do most.
func TestLists(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	n.call(http.MethodPost, "/vpools", map[string]any{"name": "gold", "backend": map[string]any{"kind": "local", "path": filepath.Join(t.TempDir(), "backend")}}, nil)
	for i := range 3 {
		n.call(http.MethodPost, "/vdisks", map[string]any{"name": fmt.Sprintf("web-%02d", i+1), "vpool": "gold", "size": 1 << 30}, nil)
	}
	n.call(http.MethodPost, "/vdisks/web-01/publish", map[string]any{"open": true}, nil)
	p := openPage(t)
	p.do("signed in", signedIn(n, admin), chromedp.Navigate(n.url+"/vdisks/web-01"), visible(`nav.side`))
	menu(p)
	peek(p, n)
	view(p, n)
	others(p, n)
	busiest(p, n)
	p.noConsoleErrors()
}

// focused is a condition: the focus is on something with this name.
func focused(name string) chromedp.Action[chromedp.Void] {
	return until(fmt.Sprintf(`(document.activeElement.getAttribute("aria-label") ?? document.activeElement.textContent) === %q`, name))
}

// phone looks at a state in the dark on a phone, and goes back to a desktop in the light.
func (p *page) phone(state, shot string) {
	p.t.Helper()
	p.do(state+" on a phone", chromedp.EmulateViewport(390, 844), chromedp.Evaluate[chromedp.Void](`document.documentElement.dataset.theme = "dark"`),
		until(`document.documentElement.scrollWidth <= 390`))
	if fullMatrix() {
		p.audit(state + ", phone, dark")
		p.shot(shot + "-phone")
	}
	p.do("wide again", chromedp.EmulateViewport(1440, 900), chromedp.Evaluate[chromedp.Void](`document.documentElement.dataset.theme = "light"`))
}

// menu goes through the actions of a vDisk by keyboard and mouse.
func menu(p *page) {
	more := `//button[@aria-label="More actions"]`
	item := func(name string) string { return fmt.Sprintf(`//*[@role="menuitem"][.=%q]`, name) }
	p.do("few buttons", visible(`//main//button[.="Connect"]`), until(`document.querySelectorAll(".page-head > .row > .btn").length === 5`))
	p.do("the menu opens by key, at its first item", chromedp.Evaluate[chromedp.Void](`document.querySelector("button[aria-haspopup=menu]").focus()`), press(kb.ArrowDown), focused("Rename"),
		visible(`button[aria-haspopup=menu][aria-expanded=true]`))
	bothOver(p, "menu of a vDisk", "100-menu")
	p.phone("menu of a vDisk", "100-menu")
	p.do("arrows go round, letters lead to items", press(kb.ArrowUp), focused("Delete"), press(kb.ArrowDown), focused("Rename"), press(kb.End), focused("Delete"),
		press(kb.Home), focused("Rename"), chromedp.KeyEvent("c"), focused("Change node"), chromedp.KeyEvent("c"), focused("Change vPool"), chromedp.KeyEvent("c"), focused("Commit now"))
	p.do("a disabled one says why and does nothing", press(kb.End), visible(item("Delete")+`[@aria-disabled="true"]/following-sibling::span[contains(.,"Unpublish it first")]`), press(kb.Enter), focused("Delete"))
	p.do("Escape closes it, and the focus is back", press(kb.Escape), absent(`[role=menu]`), focused("More actions"), visible(`button[aria-haspopup=menu][aria-expanded=false]`))
	p.do("an action by key; its dialog gives the focus back", press(kb.ArrowDown), focused("Rename"), chromedp.KeyEvent("l"), focused("Labels"), press(kb.Enter),
		visible(`//dialog//h2[.="Labels of web-01"]`), absent(`[role=menu]`), press(kb.Escape), absent(`dialog`), focused("More actions"))
	p.do("Tab goes on", press(kb.Enter), focused("Rename"), press(kb.Tab), absent(`[role=menu]`), until(`document.activeElement !== document.body`))
	p.do("a click elsewhere closes it", click(more), visible(item("Export")), click(`//h1[.="web-01"]`), absent(`[role=menu]`))
	p.do("how to connect", click(`//main//button[.="Connect"]`), visible(`//dialog//h2[.="Connect to web-01"]`), visible(`[data-copy=iscsiadm]`), press(kb.Escape), absent(`dialog`))
	p.do("a snapshot", click(`//main//button[.="Snapshot"]`), fill(`dialog input[name=name]`, "first"), click(`//dialog//button[.="Create"]`), absent(`dialog`))
	p.do("unpublished", fromMenu("Unpublish"), click(`//dialog//button[.="Unpublish"]`), absent(`dialog`), visible(`//main//button[.="Publish"]`))
	p.do("now it could be deleted", click(more), visible(item("Delete")+`[not(@aria-disabled)]`), absent(item("Unpublish")), press(kb.Escape), absent(`[role=menu]`))
}

// peek looks at rows beside their list, by keyboard, by mouse, by address and on a phone.
func peek(p *page, n *testNode) {
	row := func(name string) chromedp.Action[chromedp.Void] {
		return until(fmt.Sprintf(`document.activeElement.closest("tr")?.querySelector("td a").textContent === %q`, name))
	}
	title := func(name string) string { return fmt.Sprintf(`//dialog[contains(@class,"peek")]//h2[.=%q]`, name) }
	p.do("space looks at the row", to("/vdisks"), visible(`//td//a[.="web-03"]`), chromedp.KeyEvent("jj"), row("web-02"), chromedp.KeyEvent(" "), visible(title("web-02")),
		visible(`dialog.peek .facts`), visible(`dialog.peek .spark`), until(`document.activeElement.matches("dialog.peek")`), until(`new URLSearchParams(location.search).has("peek")`))
	both(p, "a look at a vDisk", "101-peek")
	p.do("j and k go on", click(title("web-02")), chromedp.KeyEvent("j"), visible(title("web-03")), chromedp.KeyEvent("jkk"), visible(title("web-01")), visible(`//tr[contains(@class,"chosen")]//a[.="web-01"]`))
	p.do("Escape closes it, and the row has the focus", press(kb.Escape), absent(`dialog.peek`), row("web-01"), until(`location.search === ""`))
	p.do("by mouse; the back button closes it", click(`//button[@aria-label="Look at web-03"]`), visible(title("web-03")), chromedp.Evaluate[chromedp.Void](`history.back()`), absent(`dialog.peek`),
		until(`location.pathname + location.search === "/vdisks"`), row("web-03"))
	p.do("a filter beside it", click(`//button[@aria-label="Look at web-03"]`), visible(title("web-03")), fill(`main input[type=search]`, "web-01"), absent(`//td//a[.="web-02"]`), visible(title("web-03")))
	p.do("by its address", chromedp.Reload(), visible(title("web-03")), visible(`//td//a[.="web-01"]`), click(`dialog.peek button[aria-label=Close]`), absent(`dialog.peek`))
	p.do("on a phone it covers the page", chromedp.EmulateViewport(390, 844), to("/vdisks"), click(`//button[@aria-label="Look at web-01"]`), visible(title("web-01")), visible(`dialog.peek .facts`),
		until(`document.querySelector("dialog.peek:modal").offsetWidth === 390`))
	p.phone("a look at a vDisk", "101-peek")
	p.do("and stands beside the list on a desktop", until(`!document.querySelector("dialog.peek:modal")`), click(`//dialog//button[@aria-label="Next row"]`), visible(title("web-02")))
	p.do("its page", click(`//dialog//a[.="Open"]`), visible(`//h1[.="web-02"]`), absent(`dialog`))
	n.call(http.MethodPost, "/vpools", map[string]any{"name": "silver", "backend": map[string]any{"kind": "alba"}}, nil)
	p.do("a vPool", to("/vpools"), click(`//button[@aria-label="Look at gold"]`), visible(title("gold")), visible(`dialog.peek .spark`))
	p.audit("a look at a vPool")
	p.shot("102-peek-vpool")
	p.do("a device", to("/disks"), click(`//button[@aria-label="Look at device 2"]`), visible(title("Device 2")), visible(`dialog.peek .facts`))
	p.audit("a look at a device")
	p.shot("103-peek-device")
	p.do("closed", press(kb.Escape), absent(`dialog.peek`))
}

// view chooses columns and the density of a table, which the address and the browser keep, and saves the list as a file.
func view(p *page, n *testNode) {
	n.call(http.MethodPatch, "/vdisks/web-02", map[string]any{"labels": map[string]string{"=1+1": `a, "b"`}}, nil)
	head := func(name string) string {
		return fmt.Sprintf(`//th[normalize-space(translate(.,"↑↓",""))=%q]`, name)
	}
	open := `button[aria-label="View of the table"]`
	p.do("the view of a table", to("/vdisks"), visible(head("Stored")), click(open), visible(`[role=dialog] input[name=column-stored]`))
	bothOver(p, "view of a table", "104-view")
	p.do("a column goes, another one comes", click(`input[name=column-stored]`), absent(head("Stored")), click(`input[name=column-journal]`), visible(head("Journal")),
		until(`new URLSearchParams(location.search).get("cols")?.includes("journal")`))
	p.do("compact", click(`//label[.="Compact"]`), visible(`table.compact`), press(kb.Escape), absent(`[role=dialog]`), focused("View of the table"))
	p.phone("a compact table", "105-compact")
	p.do("both are remembered", to("/iscsi"), visible(`//h1[.="iSCSI"]`), chromedp.Navigate(n.url+"/vdisks"), visible(head("Journal")), absent(head("Stored")), visible(`table.compact`))
	p.do("an address says otherwise", to("/vdisks?cols=name,size"), absent(head("Journal")), visible(head("Size")), until(`document.querySelectorAll("th").length === 4`))
	p.do("the usual ones again", click(open), click(`//button[.="The usual columns"]`), visible(head("Stored")), absent(head("Journal")), until(`location.search === ""`),
		click(`//label[.="Comfortable"]`), absent(`table.compact`), press(kb.Escape), absent(`[role=dialog]`))
	dir := p.t.TempDir()
	p.do("the list as a file", fill(`main input[type=search]`, "web-0"), until(`location.search === "?q=web-0"`), saveTo(dir), click(`//button[.="CSV"]`), arrives(dir, "vdisks.csv"),
		visible(`//*[@class="toast"][contains(.,"vdisks.csv has 3 vDisks")]`))
	f, err := os.Open(filepath.Join(dir, "vdisks.csv"))
	if err != nil {
		p.t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil || len(rows) != 4 {
		p.t.Fatalf("vdisks.csv: %v, rows %q, want a head and 3", err, rows)
	}
	at := func(title string) int { return slices.Index(rows[0], title) }
	if at("Size (bytes)") < 0 || at("Labels") < 0 || at("Id") >= 0 {
		p.t.Fatalf("vdisks.csv has the columns %q, want those that are shown", rows[0])
	}
	row := rows[2]
	if row[at("Name")] != "web-02" || row[at("Size (bytes)")] != "1073741824" || row[at("Labels")] != `'=1+1=a, "b"` {
		p.t.Errorf("the row of web-02 is %s", strings.Join(row, " | "))
	}
	p.do("the filter is taken away", to("/vdisks"), until(`document.querySelector("main input[type=search]").value === ""`))
}

// others goes through what lists of other things than vDisks offer: a look at a row, columns, and a file.
func others(p *page, n *testNode) {
	n.call(http.MethodPost, "/vdisks", map[string]any{"name": "system", "vpool": "gold", "size": 1 << 30}, nil)
	n.call(http.MethodPut, "/vdisks/system/template", nil, nil)
	n.call(http.MethodPost, "/vdisks/web-03/publish", map[string]any{"open": true}, nil)
	look := func(what, path, row, title string) {
		p.do("a look at "+what, to(path), click(fmt.Sprintf(`//button[starts-with(@aria-label,"Look at %s")]`, row)), visible(fmt.Sprintf(`//dialog[contains(@class,"peek")]//h2[.=%q]`, title)), visible(`dialog.peek .facts`))
		p.audit("a look at " + what)
		p.shot("109-peek-" + strings.ReplaceAll(what, " ", "-"))
		p.do("closed", press(kb.Escape), absent(`dialog.peek`))
	}
	node, _ := os.Hostname()
	look("a template", "/templates", "system", "system")
	look("a node", "/nodes", node, node)
	look("a target", "/iscsi", "iqn.", "Target of web-03")
	look("a snapshot", "/vdisks/web-01?tab=snapshots", "first", "first")
	p.do("two tables of a page have columns of their own", to("/iscsi"), click(`//section[.//h2[.="Sessions"]]//button[@aria-label="View of the table"]`), click(`input[name=column-portal]`), until(`new URLSearchParams(location.search).has("cols-sessions")`), press(kb.Escape), absent(`[role=dialog]`),
		click(`//section[.//h2[.="Targets"]]//button[@aria-label="View of the table"]`), click(`input[name=column-access]`), until(`new URLSearchParams(location.search).get("cols") === "iqn,luns,sessions,created"`), absent(`//th[.="Access"]`),
		click(`//button[.="The usual columns"]`), visible(`//th[.="Access"]`), press(kb.Escape), absent(`[role=dialog]`))
	dir := p.t.TempDir()
	p.do("where files go", saveTo(dir))
	for _, list := range []struct{ name, path, holds string }{
		{"templates", "/templates", "system,gold,1073741824,"}, {"targets", "/iscsi", ",0: web-03,any,0,"}, {"nodes", "/nodes", node + ",up,"}, {"users", "/users", "admin,manage,manage,,password,"},
		{"devices", "/disks", "1,"}, {"events", "/events", ",node " + node + ","}, {"audit", "/audit", ",PublishVDisk,vdisk web-03,Done,"}, {"snapshots", "/vdisks/web-01?tab=snapshots", "first,"},
		{"rules", "/alerts?tab=rules", ",on"}, {"presets", "/alba", "default,"},
	} {
		p.do(list.name+" as a file", to(list.path), click(`//button[@aria-label="The list as a CSV file"]`), arrives(dir, list.name+".csv"))
		b, err := os.ReadFile(filepath.Join(dir, list.name+".csv"))
		if err != nil || !strings.Contains(string(b), list.holds) {
			p.t.Errorf("%s.csv: %v, want %q in %q", list.name, err, list.holds, b)
		}
	}
	n.call(http.MethodDelete, "/vdisks/system?purge=true", nil, nil)
}

// soonFull makes the page believe in backends that fill: a real one takes six hours to be known.
const soonFull = `{
	const real = window.fetch;
	const day = 86400e3, gib = 2 ** 30;
	window.fetch = async (path, ...rest) => {
		const res = await real(path, ...rest);
		if (!String(path.url ?? path).endsWith("/status")) { return res; }
		const body = await res.json();
		body.filling = [
			{object: "vpool gold", what: "The backend of vPool gold", total: 1000 * gib, free: 100 * gib, known: true, to80Ms: 0, to100Ms: 3.5 * day},
			{object: "object store", what: "The object store", total: 4000 * gib, free: 2100 * gib, known: true, to80Ms: 12 * day, to100Ms: 30 * day},
			{object: "", what: "The data directory's disk", total: 500 * gib, free: 400 * gib, known: true, to80Ms: null, to100Ms: null},
		];
		return new Response(JSON.stringify(body), {status: res.status, headers: {"Content-Type": "application/json"}});
	};
}`

// busiest looks at the overview while a real initiator writes to a vDisk.
func busiest(p *page, n *testNode) {
	p.do("nothing is busy, and there is no trend yet", to("/"), visible(`//p[.="No vDisk reads or writes now."]`), visible(`//section[.//h2[.="Until full"]]//*[starts-with(.,"No trend yet")]`))
	both(p, "overview, idle", "106-idle")
	var c struct{ Commands struct{ Libiscsi string } }
	n.call(http.MethodPost, "/vdisks/web-02/publish", map[string]any{"open": true}, &c)
	if qemuIO, ok := initiator(p); ok {
		if said, err := exec.CommandContext(p.ctx, qemuIO, "-f", "raw", "-c", "write -P 0xa5 1M 64k", c.Commands.Libiscsi).CombinedOutput(); err != nil {
			p.t.Fatalf("qemu-io: %v: %s", err, said)
		}
		n.call(http.MethodPost, "/vdisks/web-02/commit", map[string]any{}, nil) // what is read comes from the backend then, once
	}
	ended, ok := writeOn(p, c.Commands.Libiscsi)
	defer ended()
	if ok {
		p.do("what it reads is in the cache", visible(`//*[@role="img"][starts-with(@aria-label,"Cache hits, last two minutes: Reads ")][contains(@aria-label," %")]//canvas`))
		p.do("the one that is written to", visible(`//li[@class="busiest"]//a[.="web-02"]`), absent(`//li[@class="busiest"]//a[.="web-01"]`))
		p.do("the slowest", click(`//button[.="Latency"]`), until(`location.search === "?top=latency"`), visible(`button[aria-pressed=true]`), visible(`//li[@class="busiest"]//a[.="web-02"]`))
		both(p, "overview, busy", "107-busy")
	}
	ended()
	p.do("places that fill", chromedp.Evaluate[chromedp.Void](soonFull), visible(`//li[contains(.,"Backend of gold")]//*[.="Full in 3 d"]`), visible(`//*[.="80 % in 12 d, full in 30 d"]`),
		visible(`//*[.="Not within a year"]`), chromedp.Evaluate[chromedp.Void](`[...document.querySelectorAll("h2")].find((h) => h.textContent === "Until full").scrollIntoView({block: "center"})`))
	both(p, "overview, filling", "108-filling")
	p.do("vDisks by the copy of their journal", click(`//section[.//h2[.="Copies of journals"]]//a[.="3 off"]`), until(`location.pathname + location.search === "/vdisks?dtl=off"`), visible(`//td//a[.="web-03"]`),
		choose(`select[aria-label="Journal copy"]`, "ok"), visible(`//h2[.="No vDisk matches"]`), to("/"), visible(`//h2[.="Until full"]`))
	p.phone("overview, filling", "108-filling")
}

// writeOn has a real initiator write, and read elsewhere, until it is ended; ok is false where there is none.
func writeOn(p *page, url string) (ended func(), ok bool) {
	qemuIO, ok := initiator(p)
	if !ok {
		return func() {}, false
	}
	args := []string{"-f", "raw", "-t", "none"}
	for range 1000 {
		args = append(args, "-c", "write -P 0x5a 0 64k", "-c", "read 1M 64k")
	}
	ctx, stop := context.WithCancel(p.ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if said, err := exec.CommandContext(ctx, qemuIO, append(args, url)...).CombinedOutput(); err != nil && ctx.Err() == nil {
				p.t.Errorf("qemu-io: %v: %.500s", err, said)
				return
			}
		}
	}()
	return func() { // once more does nothing
		stop()
		<-done
	}, true
}
