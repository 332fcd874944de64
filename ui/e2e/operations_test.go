package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/openvstorage/ovgate/gateway/oidc/oidctest"
)

// TestOperations goes through what goes on by itself and what others did: alerts of a vPool whose backend is away,
// schedules and their runs, events as they come, and the audit log; then once more as somebody who may only read.
func TestOperations(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	dir := filepath.Join(t.TempDir(), "backend")
	n.call(http.MethodPost, "/vpools", map[string]any{"name": "gold", "backend": map[string]any{"kind": "local", "path": dir}}, nil)
	n.call(http.MethodPost, "/vdisks", map[string]any{"name": "db-01", "vpool": "gold", "size": 1 << 30}, nil)
	p := openPage(t)
	p.do("signed in", signedIn(n, admin), chromedp.Navigate(n.url+"/"), visible(`nav.side`))
	schedules(p, n)
	channels(p)
	rules(p)
	alerts(p, n, dir)
	tasks(p, n)
	topology(p, n)
	events(p, n)
	auditLog(p, n)
	documents(p)
	p.mayAskLate(http.StatusUnauthorized, "/api/v1/") // of the page that is signed out of
	provider(p, n)
	readers(p, n)
	p.noConsoleErrors()
}

func dark(p *page) {
	p.do("dark", click(`button[popovertarget=user-menu]`), visible(`#user-menu`), click(`//div[@id="user-menu"]//label[.="Dark"]`),
		until(`document.documentElement.dataset.theme === "dark"`), chromedp.KeyEvent("\x1b"))
}

func light(p *page) {
	p.do("light", click(`button[popovertarget=user-menu]`), visible(`#user-menu`), click(`//div[@id="user-menu"]//label[.="Light"]`),
		until(`document.documentElement.dataset.theme === "light"`), chromedp.KeyEvent("\x1b"))
}

// both looks at a page in both themes, and leaves it light.
func both(p *page, state, shot string) {
	p.audit(state)
	p.shot(shot)
	dark(p)
	p.contrast(state + ", dark")
	light(p)
}

// bothOver is both for a page with a dialog over it, which keeps the user menu out of reach. The dark theme is for the full
// matrix: a dialog has the colours of pages.
func bothOver(p *page, state, shot string) {
	p.audit(state)
	p.shot(shot)
	if !fullMatrix() {
		return
	}
	theme := func(name string) chromedp.Action[chromedp.Void] {
		return chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`document.documentElement.dataset.theme = %q`, name))
	}
	p.do("dark", theme("dark"))
	p.contrast(state + ", dark")
	p.do("light", theme("light"))
}

func schedules(p *page, n *testNode) {
	p.do("schedules of the cluster", click(`//nav//a[@href="/schedules"]`), visible(`//td[starts-with(.,"Snapshot")]`), visible(`//h2[.="All of them have the cluster's"]`))
	both(p, "schedules", "70-schedules")
	p.do("of a vDisk", fill(`input[aria-label="Schedule of a vDisk"]`, "db-01\r"), visible(`//h2[.="vDisk db-01"]`), visible(`//p[starts-with(.,"Nothing ran yet")]`),
		until(`location.search === "?vdisk=db-01"`))
	p.provokes("/api/v1/schedule/snapshot?vdisk=db-01")
	p.do("a bad time is refused at its field", click(`//button[@aria-label="Change snapshot"]`), fill(`dialog input[name=cron]`, "sometimes"),
		click(`//dialog//button[.="Save"]`), visible(`dialog input[name=cron][aria-invalid=true]`))
	p.audit("schedule with an error")
	p.shot("71-schedule-refused")
	p.do("a preset is taken", choose(`dialog select[name=preset]`, "*/15 * * * *"), click(`//dialog//button[.="Save"]`), absent(`dialog`),
		visible(`//code[.="*/15 * * * *"]`), visible(`//tr[td[starts-with(.,"Snapshot")]]/td[.="vDisk"]`))
	p.do("it runs", click(`//button[@aria-label="Run now: snapshot"]`), visible(`//table//td[.="a person"]`))
	both(p, "schedule of a vDisk", "72-schedule-vdisk")
	p.do("the list has it", to("/schedules"), visible(`//td//a[.="vDisk db-01"]`))
	p.do("inherited again", click(`//td//a[.="vDisk db-01"]`), click(`//button[@aria-label="Reset snapshot"][not(@aria-disabled)]`),
		visible(`//button[@aria-label="Reset snapshot"][@aria-disabled="true"]`), absent(`//code[.="*/15 * * * *"]`))
}

// tasks has an import that a client left cancelled.
func tasks(p *page, n *testNode) {
	n.call(http.MethodPost, "/imports", map[string]any{"name": "half", "vpool": "gold", "size": 1 << 30}, nil)
	p.do("a task runs", click(`//nav//a[@href="/tasks"]`), visible(`//tr[td[contains(.,"vdisk half")]][contains(.,"Running")]`), visible(`header button[aria-label="1 task runs"]`))
	both(p, "tasks", "79-tasks")
	drawers(p)
	p.do("filtered away", choose(`select[aria-label="State"]`, "failed"), visible(`//h2[.="No task matches"]`), choose(`select[aria-label="State"]`, "queued,running,waiting"))
	p.do("cancel asks first", click(`//button[@aria-label="Cancel: filled by a client, vdisk half"]`), visible(`//dialog//*[contains(.,"The vDisk that is being filled is deleted.")]`))
	p.audit("cancel a task")
	p.do("it is cancelled", click(`//dialog//button[.="Cancel the task"]`), absent(`dialog`), visible(`//h2[.="No task matches"]`), absent(`header button[aria-label="1 task runs"]`),
		choose(`select[aria-label="State"]`, ""), visible(`//tr[td[contains(.,"vdisk half")]][contains(.,"Cancelled")]`))
	p.do("forgotten", click(`//button[.="Forget ended tasks"][not(@aria-disabled)]`), absent(`//td[contains(.,"vdisk half")]`))
}

// drawers opens what stands beside every page: tasks and events at the foot, and health.
func drawers(p *page) {
	pill, opened := `header button[aria-label="1 task runs"]`, `.dock-panel`
	p.do("the strip tells of it", visible(`//button[contains(@class,"strip")][contains(.,"vdisk half")][@aria-expanded="false"]`))
	p.do("tasks from the top bar", click(pill), visible(opened+` td`), focused("Tasks"), visible(pill+`[aria-expanded=true]`))
	bothOver(p, "drawer of tasks", "79-drawer-tasks")
	p.do("events by the keyboard", press(kb.ArrowRight), focused("Events"), visible(`//*[@class="dock-panel"]//*[@aria-label="Newest events"]//td`))
	p.audit("drawer of events")
	p.do("it stays from page to page", click(`//nav//a[@href="/vpools"]`), visible(`//h1[.="vPools"]`), visible(`//*[@class="dock-panel"]//*[@aria-label="Newest events"]//td`))
	p.phone("drawer of events", "79-drawer-events")
	p.do("Escape closes it, and the focus is back", chromedp.Evaluate[chromedp.Void](`document.querySelector(".dock-panel [role=tab][aria-selected=true]").focus()`), press(kb.Escape), absent(opened), focused("1 task runs"))
	p.do("from the strip, and a task is cancelled there", click(`button.strip`), visible(opened), click(`//*[@class="dock-panel"]//button[@aria-label="Cancel: filled by a client, vdisk half"]`), visible(`//dialog//h2[.="Cancel a task of vdisk half"]`))
	p.do("Escape closes what lies above alone", press(kb.Escape), absent(`dialog`), visible(opened), press(kb.Escape), absent(opened), until(`document.activeElement.matches("button.strip")`))
	health := `header button[aria-haspopup=dialog]`
	p.do("health", click(health), visible(`dialog.drawer .verdict`), until(`document.querySelector("dialog.drawer").contains(document.activeElement)`))
	bothOver(p, "drawer of health", "79-drawer-health")
	p.phone("drawer of health", "79-drawer-health")
	p.do("Escape closes it, and the focus is back there", press(kb.Escape), absent(`dialog`), until(`document.activeElement.matches("header button[aria-haspopup=dialog]")`))
	p.do("a click beside it closes it", click(health), visible(`dialog.drawer .verdict`), chromedp.MouseClickXY(200, 400), absent(`dialog`))
	p.do("a way from it closes it", click(health), click(`//dialog//a[.="Alerts"]`), visible(`//h1[.="Alerts"]`), absent(`dialog`), click(`//nav//a[@href="/tasks"]`), visible(`//h1[.="Tasks"]`))
}

// many makes the page believe in 300 vPools and 200 devices on 20 machines, one of which does not work.
const many = `{
	const real = window.fetch;
	const answer = async (path, make) => {
		const res = await real(path), body = await res.json();
		return new Response(JSON.stringify({...body, items: make(body.items)}), {status: 200, headers: {"Content-Type": "application/json"}});
	};
	window.fetch = (path, ...rest) => {
		const at = String(path.url ?? path);
		if (at.includes("/vpools?")) {
			return answer(at, (l) => Array.from({length: 300}, (_, i) => ({...l[0], id: "p" + i, name: "pool-" + i, vdisks: 40, backend: {kind: "alba", path: "", preset: "", store: ""}})));
		}
		if (at.includes("/osds?")) {
			return answer(at, () => Array.from({length: 200}, (_, i) => ({number: i + 1, node: "machine-" + (i % 20), state: "in-use", working: i !== 7, full: false})));
		}
		return real(path, ...rest);
	};
}`

// focusWhenShown goes back to the map and notes what has the focus when it is there: what takes it later takes it from
// whoever was quicker.
const focusWhenShown = `{
	new MutationObserver((_, self) => {
		if (document.querySelector("g[aria-pressed=true]")) {
			window.focusWas = document.activeElement.id;
			self.disconnect();
		}
	}).observe(document.body, {subtree: true, childList: true});
	document.querySelector("nav.side a").focus();
	history.back();
}`

// topology looks at what stands on what, by keyboard and as a table, and at much of it.
func topology(p *page, n *testNode) {
	box := func(label string) string {
		return fmt.Sprintf(`//*[name()="g"][@role="button"][*[name()="title"][starts-with(.,%q)]]`, label)
	}
	p.do("topology", click(`//nav//a[@href="/topology"]`), visible(box("Nodes: ")), visible(box("vPools: gold, 1 vDisk")), visible(box("Backends: ")))
	both(p, "topology", "79-topology")
	p.do("a box is chosen by key", until(`!document.querySelector("#user-menu:popover-open")`),
		chromedp.Evaluate[chromedp.Void](`[...document.querySelectorAll("g[role=button]")].find((g) => g.textContent.startsWith("vPools: gold")).focus()`), chromedp.KeyEvent("\r"),
		visible(`g[aria-pressed=true]`), visible(`//*[@role="group"][@aria-label="Needed by"]/button`), visible(`//*[@role="group"][@aria-label="It needs"]/button`),
		until(`location.search.startsWith("?at=vpool")`))
	both(p, "topology of a vPool", "79-topology-chosen")
	p.do("its page", click(`//a[.="Open its page"]`), visible(`//h1[.="gold"]`))
	p.do("back, and the keyboard is there with the page", chromedp.Evaluate[chromedp.Void](focusWhenShown), visible(`g[aria-pressed=true]`),
		until(`window.focusWas === "main"`), visible(box("Portals: ")), visible(box("Nodes: ")), visible(box("Backends: "))) // it is drawn as the answers come
	p.do("the table by keys", chromedp.Evaluate[chromedp.Void](`document.querySelector('[role=treegrid] tbody tr[tabindex="0"]').focus()`), press(kb.ArrowLeft),
		until(`document.querySelector('[role=treegrid] tbody tr').getAttribute("aria-expanded") === "false"`))
	p.do("phone", chromedp.EmulateViewport(390, 844), visible(`[role=treegrid]`), until(`document.querySelector(".topology-map").offsetParent === null`))
	p.audit("topology, phone")
	p.shot("79-topology-phone")
	p.do("much of it", chromedp.EmulateViewport(1440, 900), chromedp.Navigate(n.url+"/"), visible(`nav.side`), chromedp.Evaluate[chromedp.Void](many),
		click(`//nav//a[@href="/topology"]`), visible(box("vPools: 289 more")), visible(box("Devices: machine-7, 10 devices, 1 of 10 do not work")),
		until(`document.querySelectorAll("g[role=button]").length <= 5 * 12`))
	p.shot("79-topology-many")
	p.do("and the real ones again", chromedp.Navigate(n.url+"/"), visible(`nav.side`))
}

// documents opens the documentation, follows links within and between documents, and finds words.
func documents(p *page) {
	p.do("documents", click(`//nav//a[@href="/docs"]`), visible(`//h1[.="Operations"]`), visible(`//article//h2[@id="sizing"]`))
	p.do("a link to a part of another document", click(`//article//a[@href="/docs/troubleshooting"]`), visible(`//h1[.="Troubleshooting"]`),
		click(`//article//a[@href="/docs/architecture#formats"]`), visible(`//h1[.="Architecture"]`),
		until(`document.getElementById("formats").getBoundingClientRect().top < innerHeight`), until(`scrollY > 0 || document.querySelector("main").scrollTop > 0`))
	p.do("words are found", fill(`input[aria-label="Find in this document"]`, "WRAPPED DATA"), visible(`//*[@role="status"]/span[.="1 of 1"]`), visible(`mark.at`),
		fill(`input[aria-label="Find in this document"]`, "no such words"), visible(`//*[@role="status"]/span[.="Not found"]`))
	both(p, "document, nothing found", "78-document")
	p.do("the API", click(`//main//nav//a[@href="/docs/api"]`), visible(`//h1[.="API"]`), fill(`input[aria-label="Find operations"]`, "create vdisk"), visible(`//*[@role="status"][contains(.," of ")]`),
		click(`//summary[contains(.,"/vdisks")][contains(.,"POST")][contains(.,"Create a vDisk")]`), visible(`//details[@open]//h3[.="Body"]`), visible(`//details[@open]//*[@class="chip"][.="role write"]`),
		visible(`//details[@open]//dt[contains(.,"size")][contains(.,"required")]`), visible(`//details[@open]//pre[contains(.,'"vpool"')]`))
	both(p, "the API", "78-api")
	p.do("its address shows the same", chromedp.Reload(), visible(`//details[@open]//h3[.="Body"]`),
		fill(`input[aria-label="Find operations"]`, "cannot be found"), visible(`//*[@role="status"][contains(.,"0 operations of")]`))
}

// channels adds a webhook that is there and one that is not.
func channels(p *page) {
	heard := make(chan string, 8)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		said, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		heard <- string(said)
	}))
	p.t.Cleanup(hook.Close)
	p.do("alerts without a channel", click(`//nav//a[@href="/alerts"]`), visible(`//h2[.="Nothing is wrong"]`), visible(`//p[starts-with(.,"Nobody would be told")]`))
	p.audit("no alerts")
	p.shot("73-no-alerts")
	p.do("add a channel", click(`//main//button[.="Add channel"]`), choose(`dialog select[name=kind]`, "email"), visible(`dialog input[name=host]`))
	p.audit("mail channel")
	p.shot("74-mail")
	p.provokes("/api/v1/alerts/channels")
	p.do("what is no address is refused at its field", choose(`dialog select[name=kind]`, "webhook"), fill(`dialog input[name=name]`, "chat"),
		fill(`dialog input[name=url]`, "chat"), click(`//dialog//button[.="Add"]`), visible(`dialog input[name=url][aria-invalid=true]`))
	p.audit("channel with an error")
	p.do("it is added", fill(`dialog input[name=url]`, hook.URL+"/secret-path"), click(`//dialog//button[.="Add"]`), absent(`dialog`),
		visible(`//td[.="chat"]`), until(`location.search === "?tab=channels"`))
	both(p, "channels", "75-channels")
	if strings.Contains(p.text(`main`), "secret-path") {
		p.t.Error("the page shows the address of a webhook, which is a secret")
	}
	p.do("a test message arrives", click(`//button[@aria-label="Test chat"]`), visible(`//*[@class="toast"][contains(.,"delivered to chat")]`))
	select {
	case said := <-heard:
		if !strings.Contains(strings.ToLower(said), "test") {
			p.t.Errorf("the webhook heard %q, want a word on a test", said)
		}
	case <-time.After(stepLimit):
		p.t.Error("the webhook heard nothing")
	}
	hook.Close()
	p.provokes("/test")
	p.do("what is not delivered stays to be read", click(`//button[@aria-label="Test chat"]`), visible(`//*[@class="toast"][@role="alert"]`))
	p.audit("test refused")
	p.shot("76-test-refused")
	p.do("delete it", click(`//*[@class="toast"][@role="alert"]//button[@aria-label="Close message"]`), click(`//button[@aria-label="Delete channel chat"]`),
		click(`//dialog//button[.="Delete"]`), visible(`//h2[.="No channels yet"]`))
}

func rules(p *page) {
	p.do("rules", click(`//button[@role="tab"][.="Rules"]`), visible(`//td[.="certificate"]`))
	both(p, "rules", "77-rules")
	p.do("what is no number is not sent", click(`//main//button[.="New rule"]`), fill(`dialog input[name=name]`, "cache"), fill(`dialog textarea[name=codes]`, "read_cache"),
		fill(`dialog input[name=after]`, "soon"), click(`//dialog//button[.="Create"]`), visible(`dialog input[name=after][aria-invalid=true]`))
	p.audit("rule with an error")
	p.do("a rule", fill(`dialog input[name=after]`, "120"), click(`//dialog//button[.="Create"]`), absent(`dialog`), visible(`//tr[td[contains(.,"cache")]]/td[.="2 h"]`))
	p.do("turned off", click(`//button[@aria-label="Change rule cache"]`), click(`dialog input[name=on]`), click(`//dialog//button[.="Save"]`), absent(`dialog`),
		visible(`//tr[td[contains(.,"cache")]]//span[contains(.,"Off")]`))
	p.do("deleted", click(`//button[@aria-label="Delete rule cache"]`), click(`//dialog//button[.="Delete"]`), absent(`dialog`),
		absent(`//button[@aria-label="Delete rule cache"]`))
}

// alerts takes the backend of the vPool away and brings it back.
func alerts(p *page, n *testNode, dir string) {
	n.stop()
	if err := os.Rename(dir, dir+".away"); err != nil {
		p.t.Fatal(err)
	}
	n.restart()
	p.do("an alert", chromedp.Navigate(n.url+"/alerts"), visible(`//td//code[.="vpool_offline"]`), visible(`//td//a[.="vpool gold"]`))
	p.nodeWasAway()
	both(p, "alerts", "78-alerts")
	p.provokes("/api/v1/alerts/silences")
	p.do("a silence needs a reason", click(`//button[@aria-label="Silence vpool_offline of vpool gold"]`), visible(`dialog input[name=why]`),
		click(`//dialog//button[.="Silence"]`), visible(`dialog input[name=why][aria-invalid=true]`))
	p.audit("silence with an error")
	p.shot("79-silence")
	p.do("it is silent", fill(`dialog input[name=why]`, "the disk is being replaced"), click(`//dialog//button[.="Silence"]`), absent(`dialog`),
		click(`//button[@role="tab"][.="Silences"]`), visible(`//td[.="the disk is being replaced"]`))
	both(p, "silences", "80-silences")
	p.do("no more", click(`//main//button[.="End"]`), visible(`//h2[.="No silences"]`))
	p.provokes("/api/v1/alerts/thresholds/slow-db")
	p.do("a threshold needs a number", click(`//button[@role="tab"][.="Thresholds"]`), visible(`//td/code[.="vdisk.journal_used"]`), click(`//main//button[.="New threshold"]`),
		fill(`dialog input[name=name]`, "slow-db"), choose(`dialog select[name=metric]`, "vdisk.write_latency_p99"), click(`//dialog//button[.="Create"]`), visible(`dialog input[name=value][aria-invalid=true]`))
	p.audit("threshold with an error")
	p.do("of the wrong kind", fill(`dialog input[name=value]`, "20"), fill(`dialog input[name=clear]`, "10"), fill(`dialog input[name=object]`, "vpool gold"), click(`//dialog//button[.="Create"]`),
		visible(`dialog input[name=object][aria-invalid=true]`))
	p.do("a threshold", fill(`dialog input[name=object]`, "vdisk db*"), click(`//dialog//button[.="Create"]`), absent(`dialog`), visible(`//td[.="above 20 ms"]`))
	both(p, "thresholds", "80-thresholds")
	p.do("deleted", click(`//button[@aria-label="Delete threshold slow-db"]`), click(`//dialog//button[.="Delete"]`), absent(`//td[.="above 20 ms"]`))
	n.stop()
	if err := os.RemoveAll(dir); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Rename(dir+".away", dir); err != nil {
		p.t.Fatal(err)
	}
	n.restart()
	p.do("over", chromedp.Navigate(n.url+"/alerts"), visible(`//h2[.="Nothing is wrong"]`))
	p.nodeWasAway()
}

// events watches the page while the API changes something.
func events(p *page, n *testNode) {
	p.do("nothing happened", to("/events"), visible(`//h1[.="Events"]`), visible(follows("Live")))
	n.call(http.MethodPost, "/vdisks", map[string]any{"name": "db-02", "vpool": "gold", "size": 1 << 30}, nil)
	p.do("a vDisk is made", visible(`//tr[td[contains(.,"vdisk db-02")]]//td[contains(.,"Made, 1073741824 bytes")]`))
	n.call(http.MethodPatch, "/vdisks/db-02", map[string]any{"size": 2 << 30}, nil)
	p.do("and grows", visible(`//tr[td[contains(.,"vdisk db-02")]]//td[contains(.,"Grown to 2147483648 bytes")]`))
	n.call(http.MethodDelete, "/vdisks/db-02", nil, nil)
	p.do("and goes", visible(`//tr[td[contains(.,"vdisk db-02")]]//td[contains(.,"In the trash")]`))
	both(p, "events", "81-events")
	p.do("filter", choose(`select[aria-label=Kind]`, "datastore"), visible(`//h2[.="No event matches"]`), until(`location.search === "?kind=datastore"`))
	p.audit("no event matches")
	p.do("clear it", click(`//button[.="Clear the filter"]`), fill(`input[type=search]`, "in the trash"), visible(`//td[contains(.,"In the trash")]`),
		absent(`//td[contains(.,"Made,")]`), until(`document.querySelector("a[download]").search === "?q=in+the+trash"`))
}

func auditLog(p *page, n *testNode) {
	p.do("audit log", click(`//nav//a[@href="/audit"]`), visible(`//td[.="CreateSilence"]`), visible(`//td//span[contains(.,"Refused: invalid")]`))
	both(p, "audit log", "82-audit")
	p.do("one operation", fill(`input[aria-label="Filter by operation"]`, "UpdateVDisk"), absent(`//td[.="CreateSilence"]`), visible(`//td[.="UpdateVDisk"]`),
		until(`location.search === "?operation=UpdateVDisk"`))
	p.do("before and after", click(`//button[starts-with(@aria-label,"Details of UpdateVDisk")]`), visible(`//dialog//td[.="1073741824"]`), visible(`//dialog//td[.="2147483648"]`))
	p.audit("an entry of the audit log")
	p.shot("83-entry")
	p.do("of an hour and nobody", click(`//dialog//button[.="Done"]`), absent(`dialog`), choose(`select[aria-label=Time]`, "1"), visible(`//td[.="UpdateVDisk"]`),
		fill(`input[aria-label="Filter by user"]`, "nobody"), visible(`//h2[.="No entry matches"]`))
	p.do("clear it", click(`//button[.="Clear the filter"]`), visible(`//td[.="CreateSilence"]`))
	p.do("phone", chromedp.EmulateViewport(390, 844), until(`document.documentElement.scrollWidth <= 390`))
	p.audit("audit log, phone")
	p.shot("84-audit-phone")
	for _, path := range []string{"alerts", "schedules", "events"} {
		p.do(path+" on a phone", to("/"+path), visible(`//h1`), until(`document.documentElement.scrollWidth <= 390`))
		p.audit(path + ", phone")
	}
	p.do("wide again", chromedp.EmulateViewport(1440, 900))
}

// readers sees the same pages as somebody who may only read.
// provider signs in through an OpenID Connect provider and out again, and once with nobody it knows a role for.
func provider(p *page, n *testNode) {
	idp, err := oidctest.New()
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(idp.Close)
	idp.Register(n.url + "/login/oidc")
	idp.Put("anna", oidctest.User{Subject: "1", Claims: map[string]any{"preferred_username": "anna", "groups": []string{"staff"}}})
	idp.Put("bert", oidctest.User{Subject: "2", Claims: map[string]any{"preferred_username": "bert", "groups": []string{"guests"}}})
	n.call(http.MethodPut, "/oidc", map[string]any{
		"name": "House", "issuer": idp.Issuer(), "clientId": oidctest.ClientID, "secret": oidctest.Secret, "ca": idp.CA(), "addresses": []string{n.url},
		"roles": []map[string]string{{"group": "staff", "role": "write"}},
	}, nil)
	p.do("settings", click(`//nav//a[@href="/settings"]`), click(`//button[.="Test now"]`), visible(`//li[contains(.,"keys: 1 for signatures")]`))
	p.audit("settings")
	p.shot("79-settings")
	p.provokes("/api/v1/oidc")
	p.do("a bad issuer is refused at its field", click(`//button[.="Change provider"]`), fill(`dialog input[name=issuer]`, "http://house"),
		click(`//dialog//button[.="Save"]`), visible(`dialog input[name=issuer][aria-invalid=true]`))
	p.audit("provider with an error")
	p.do("given up", click(`//dialog//button[.="Cancel"]`), absent(`dialog`), click(`button[popovertarget=user-menu]`), click(`//button[.="Sign out"]`))
	p.provokes("/api/v1/session/oidc/answer")
	p.do("without a role nobody gets in", click(`//button[.="Sign in with House"]`), click(`#as-bert`),
		visible(`//*[@role="alert"][contains(.,"None of your groups at House may enter")]`), until(`location.pathname + location.search === "/login"`))
	p.audit("sign-in refused")
	p.shot("79-sign-in-refused")
	p.do("with one it is where it was", click(`//button[.="Sign in with House"]`), click(`#as-anna`), visible(`//button[@aria-label="User menu of anna"]`),
		until(`location.pathname === "/"`))
	p.do("out here and there", click(`button[popovertarget=user-menu]`), absent(`//button[.="Change password"]`), click(`//button[.="Sign out"]`),
		click(`#back`), visible(`//h1[.="Sign in"]`))
	p.do("a password works beside it", fill(`input[name=user]`, "admin"), fill(`input[name=password]`, password), click(`//button[.="Sign in"]`), visible(`nav.side`))
}

func readers(p *page, n *testNode) {
	n.call(http.MethodPost, "/users", map[string]any{"name": viewer, "password": password, "role": "read"}, nil)
	p.do("a viewer signs in", click(`button[popovertarget=user-menu]`), click(`//button[.="Sign out"]`), visible(`//h1[.="Sign in"]`),
		fill(`input[name=user]`, viewer), fill(`input[name=password]`, password), click(`//button[.="Sign in"]`), visible(`nav.side`))
	p.do("sees schedules", to("/schedules?vdisk=db-01"), visible(`//button[@aria-label="Run now: snapshot"][@aria-disabled="true"][contains(@title,"Needs role write")]`))
	p.do("and of the cluster", to("/schedules"), visible(`//button[@aria-label="Change scrub"][@aria-disabled="true"][contains(@title,"Needs role manage")]`))
	p.do("and rules", to("/alerts?tab=rules"), visible(`//main//button[.="New rule"][@aria-disabled="true"][contains(@title,"Needs role manage")]`))
	p.do("and silences", click(`//button[@role="tab"][.="Silences"]`), visible(`//main//button[.="New silence"][@aria-disabled="true"][contains(@title,"Needs role write")]`))
	p.audit("silences as a viewer")
	p.do("and no audit log", absent(`//nav//a[@href="/audit"]`), chromedp.Navigate(n.url+"/audit"), visible(`//*[contains(@class,"notice")][contains(.,"Needs role manage")]`))
}
