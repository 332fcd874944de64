package e2e

import (
	"fmt"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// TestMany finds things by the keyboard alone, and does something with several vDisks at once, of which some are
// refused.
func TestMany(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	n.call(http.MethodPost, "/vpools", map[string]any{"name": "gold", "backend": map[string]any{"kind": "local", "path": filepath.Join(t.TempDir(), "backend")}}, nil)
	n.call(http.MethodPost, "/vpools", map[string]any{"name": "silver", "backend": map[string]any{"kind": "local", "path": filepath.Join(t.TempDir(), "silver")}}, nil)
	for i := range 4 {
		n.call(http.MethodPost, "/vdisks", map[string]any{"name": fmt.Sprintf("web-%02d", i+1), "vpool": "gold", "size": 1 << 30}, nil)
	}
	p := openPage(t)
	p.do("signed in", signedIn(n, admin), chromedp.Navigate(n.url+"/"), visible(`nav.side`))
	palette(p)
	keys(p)
	bulk(p)
	roles(p, n)
	p.noConsoleErrors()
}

// roles changes a role, which is shown at once, and as it was when the node refuses it.
func roles(p *page, n *testNode) {
	n.call(http.MethodPost, "/users", map[string]any{"name": viewer, "password": password, "role": "read"}, nil)
	role := func(is string) string {
		return fmt.Sprintf(`document.querySelector("select[aria-label='Role of viewer']")?.value === %q`, is)
	}
	p.do("a role is shown before the node has agreed", to("/users"), visible(`select[aria-label="Role of viewer"]`), chromedp.Evaluate[chromedp.Void](`{
		const real = window.fetch;
		window.fetch = async (path, ...rest) => {
			const request = path instanceof Request ? path : new Request(path, ...rest);
			if (request.method !== "PATCH") { return real(path, ...rest); }
			await new Promise((done) => { window.refuse = done; });
			window.fetch = real;
			return new Response(JSON.stringify({code: "unavailable", message: "The registry does not answer"}), {status: 503, headers: {"Content-Type": "application/json"}});
		};
	}`), choose(`select[aria-label="Role of viewer"]`, "write"), visible(`//tr[contains(@class,"pending")][@aria-busy="true"]//td[contains(.,"viewer")]`), until(role("write")))
	p.audit("a row that is being changed")
	p.shot("91-pending")
	p.do("and as it was when it is refused", chromedp.Evaluate[chromedp.Void](`window.refuse()`), visible(`//*[@class="toast"][contains(.,"The registry does not answer")]`), absent(`tr.pending`), until(role("read")))
}

// press is one key or chord, as a keyboard sends it to whatever has the focus.
func press(key string, modifiers ...chromedp.Modifier) chromedp.Action[chromedp.Void] {
	return chromedp.KeyEvent(key, chromedp.KeyModifiers(modifiers...))
}

func palette(p *page) {
	open := press("k", chromedp.ModifierCtrl)
	p.do("the palette opens by the keyboard", visible(follows("Live")), open, visible(`dialog input[role=combobox]`), until(`document.activeElement.getAttribute("role") === "combobox"`))
	both := func(state, shot string) {
		p.audit(state)
		p.shot(shot)
	}
	both("palette", "85-palette")
	p.do("a vDisk by a part of its name", chromedp.KeyEvent("eb-03"), visible(`//dialog//*[@role="option"][@aria-selected="true"][contains(.,"web-03")]`))
	both("palette with a vDisk", "86-palette-found")
	p.do("is opened", press(kb.Enter), visible(`//h1[.="web-03"]`), absent(`dialog`))
	p.do("a page", open, visible(`dialog input[role=combobox]`), chromedp.KeyEvent("sched"), visible(`//dialog//*[@role="option"][@aria-selected="true"][contains(.,"Schedules")]`),
		press(kb.Enter), visible(`//h1[.="Schedules"]`), absent(`dialog`))
	p.do("nothing", open, visible(`dialog input[role=combobox]`), chromedp.KeyEvent("no such thing"), visible(`//dialog//p[.="Nothing has that in its name."]`))
	p.audit("palette with nothing")
	p.do("Escape closes it", press(kb.Escape), absent(`dialog`))
	p.do("an action by the arrows", open, visible(`dialog input[role=combobox]`), chromedp.KeyEvent("theme"), press(kb.ArrowDown),
		visible(`//dialog//*[@role="option"][@aria-selected="true"][.="Use the dark theme"]`), press(kb.Enter), until(`document.documentElement.dataset.theme === "dark"`),
		absent(`dialog`))
	p.do("in the dark", open, visible(`dialog input[role=combobox]`))
	both("palette, dark", "87-palette-dark")
	p.do("closed", press(kb.Escape), absent(`dialog`))
	light(p)
}

// keys goes about by single keys, which are off while somebody types, and may be turned off.
func keys(p *page) {
	p.do("g v leads to the vDisks", chromedp.KeyEvent("gv"), visible(`//td//a[.="web-04"]`))
	p.do("j and k go through the rows, x chooses", chromedp.KeyEvent("jjk"), until(`document.activeElement.closest("tr")?.querySelector("a").textContent === "web-01"`), chromedp.KeyEvent("x"), visible(`//button[.="Delete 1"]`), chromedp.KeyEvent("x"), absent(`//button[.="Delete 1"]`))
	p.do("slash filters, and letters are letters there", chromedp.KeyEvent("/"), until(`document.activeElement.type === "search"`), fill(`main input[type=search]`, "gc?"), until(`location.search === "?q=gc%3F"`), visible(`//h2[.="No vDisk matches"]`),
		click(`//button[.="Clear the filter"]`), visible(`//td//a[.="web-04"]`))
	// Timers of a page end in the order of their time: once this one has, that of the letter before the click has, too.
	p.do("a letter is not sent after the filter was cleared", fill(`main input[type=search]`, "none"), until(`location.search === "?q=none"`), visible(`//h2[.="No vDisk matches"]`), chromedp.Evaluate[chromedp.Void](`new Promise((done) => {
		const box = document.querySelector("main input[type=search]");
		box.value = "nonesuch";
		box.dispatchEvent(new Event("input", {bubbles: true}));
		[...document.querySelectorAll("main .empty button")].find((b) => b.textContent === "Clear the filter").click();
		setTimeout(done, 600);
	})`, chromedp.EvalAwaitPromise), until(`location.search === ""`), visible(`//td//a[.="web-04"]`), until(`document.querySelector("main input[type=search]").value === ""`),
		chromedp.Evaluate[chromedp.Void](`document.activeElement.blur()`))
	p.do("a node that takes long to answer is named, and its rows stay", chromedp.Evaluate[chromedp.Void](`{
		const real = window.fetch;
		window.fetch = async (path, ...rest) => {
			if (String(path.url ?? path).includes("/vdisks?")) { await new Promise((done) => { window.answer = done; }); }
			return real(path, ...rest);
		};
	}`), chromedp.KeyEvent("r"), visible(`//*[@class="slow"][contains(.,"is not answering, showing data from")]`), visible(`//td//a[.="web-04"]`))
	p.audit("a slow node")
	p.shot("87-slow")
	p.do("until it answers", chromedp.Evaluate[chromedp.Void](`window.answer()`), absent(`.slow`), chromedp.Reload(), visible(`//td//a[.="web-04"]`))
	p.do("icons alone in the navigation", click(`button.collapse`), until(`document.querySelector("nav.side").offsetWidth === 48`), visible(`nav.side a[title="vPools"]`))
	p.audit("icons alone")
	p.shot("87-narrow")
	p.do("names again", click(`button.collapse`), until(`document.querySelector("nav.side").offsetWidth > 200`), chromedp.Evaluate[chromedp.Void](`document.activeElement.blur()`))
	p.do("the list of keys", chromedp.KeyEvent("?"), visible(`//dialog//h2[.="Keyboard"]`))
	bothOver(p, "keyboard", "87-keyboard")
	p.do("turned off", click(`dialog input[name=keys]`), click(`//dialog//button[.="Done"]`), absent(`dialog`), chromedp.KeyEvent("gt?"), until(`location.pathname === "/vdisks"`), absent(`dialog`))
	p.do("and on", click(`button[popovertarget=user-menu]`), click(`//div[@id="user-menu"]//button[.="Keyboard"]`), click(`dialog input[name=keys]`), click(`//dialog//button[.="Done"]`), absent(`dialog`),
		chromedp.KeyEvent("c"), visible(`//dialog//h2[.="Create vDisk"]`), press(kb.Escape), absent(`dialog`))
}

// chosenMenu does an action with the rows that are chosen.
func chosenMenu(action string) chromedp.Action[chromedp.Void] {
	return chromedp.Steps(click(`//button[@aria-label="More for those chosen"]`), click(fmt.Sprintf(`//*[@role="menuitem"][.=%q]`, action)))
}

func bulk(p *page) {
	p.do("all vDisks are chosen", click(`//nav//a[@href="/vdisks"]`), click(`input[aria-label="Choose all rows shown"]`), visible(`//button[.="Delete 4"]`))
	p.audit("vDisks chosen")
	p.shot("88-chosen")
	for range 4 {
		p.provokes("/qos")
	}
	p.do("a limit that is an outage is refused for each", chosenMenu("Limits"), fill(`dialog input[name=iops]`, "1"), click(`//dialog//button[.="Set limits"]`),
		visible(`//dialog//p[.="0 of 4 done."]`), visible(`//dialog//li[contains(.,"web-04")]//span[contains(.,"Refused")]`))
	p.audit("bulk refused")
	p.shot("89-bulk-refused")
	p.do("those stay chosen", click(`//dialog//button[.="Close, and keep those chosen"]`), absent(`dialog`), visible(`//button[.="Delete 4"]`))
	p.do("a limit for all", chosenMenu("Limits"), fill(`dialog input[name=iops]`, "500"), click(`//dialog//button[.="Set limits"]`),
		visible(`//dialog//p[.="4 of 4 done."]`), click(`//dialog//button[.="Done"]`), absent(`dialog`), absent(`//button[starts-with(.,"Delete ")]`))
	p.do("labels for two", click(`input[aria-label="Choose web-01"]`), click(`input[aria-label="Choose web-02"]`), chosenMenu("Labels"), visible(`//dialog//button[.="Set labels"][@aria-disabled="true"]`),
		fill(`dialog textarea[name=labels]`, "env=test"))
	bothOver(p, "labels of several", "88-labels")
	set := chromedp.Steps(click(`//dialog//button[.="Set labels"]`), visible(`//dialog//p[.="2 of 2 done."]`), click(`//dialog//button[.="Done"]`), absent(`dialog`), visible(`//tr[td[.="web-02"]]//*[.="env=test"]`))
	p.do("are set, and undone", set, click(`//*[@class="toast"][contains(.,"Labels of 2 vDisks set")]//button[.="Undo"]`), visible(`//*[@class="toast"][contains(.,"The labels are as they were")]`), absent(`//*[.="env=test"]`))
	p.do("and set again", click(`input[aria-label="Choose web-01"]`), click(`input[aria-label="Choose web-02"]`), chosenMenu("Labels"), fill(`dialog textarea[name=labels]`, "env=test"), set, absent(`//tr[td[.="web-03"]]//*[.="env=test"]`))
	p.do("and one goes", click(`input[aria-label="Choose web-01"]`), chosenMenu("Labels"), fill(`dialog input[name=gone]`, "env none"), click(`//dialog//button[.="Set labels"]`),
		visible(`//dialog//p[.="1 of 1 done."]`), click(`//dialog//button[.="Done"]`), absent(`dialog`), absent(`//tr[td[.="web-01"]]//*[.="env=test"]`), visible(`//tr[td[.="web-02"]]//*[.="env=test"]`))
	p.do("all are scrubbed", click(`input[aria-label="Choose all rows shown"]`), chosenMenu("Scrub"), visible(`//dialog//p[contains(.,"Hosts go on.")]`), click(`//dialog//button[.="Scrub"]`),
		visible(`//dialog//p[.="4 of 4 begun."]`), visible(`//dialog//a[@href="/tasks"]`), click(`//dialog//button[.="Done"]`), absent(`dialog`))
	p.do("no journal is copied", click(`input[aria-label="Choose web-01"]`), chosenMenu("Journal copy"), choose(`dialog select[name=mode]`, "off"), click(`//dialog//button[.="Save"]`),
		visible(`//dialog//p[.="1 of 1 done."]`), click(`//dialog//button[.="Done"]`), absent(`dialog`))
	p.do("there is no other node", click(`input[aria-label="Choose web-01"]`), chosenMenu("Change node"), visible(`//dialog//*[.="There is no other node that is up."]`), visible(`//dialog//button[.="Hand over"][@aria-disabled="true"]`),
		click(`//dialog//button[.="Cancel"]`), absent(`dialog`))
	p.do("to another vPool", chosenMenu("Change vPool"), visible(`//dialog//button[.="Move"][@aria-disabled="true"]`), choose(`dialog select[name=vpool]`, "silver"))
	bothOver(p, "another vPool for several", "88-vpool")
	p.do("it goes there", click(`//dialog//button[.="Move"]`), visible(`//dialog//p[.="1 of 1 begun."]`), click(`//dialog//button[.="Done"]`), absent(`dialog`), visible(`//tr[td[.="web-01"]]//a[.="silver"]`))
	p.do("two are published", click(`input[aria-label="Choose web-01"]`), click(`input[aria-label="Choose web-02"]`), click(`//main//button[.="Publish"]`))
	p.audit("publish several")
	p.do("at once", click(`//dialog//button[.="Publish"]`), visible(`//dialog//p[.="2 of 2 done."]`), click(`//dialog//button[.="Done"]`), absent(`dialog`),
		visible(`//tr[td[.="web-02"]]//span[contains(.,"iSCSI LUN")]`))
	p.provokes("")
	p.provokes("")
	p.do("deleting asks for the number", click(`input[aria-label="Choose all rows shown"]`), click(`//button[.="Delete 4"]`),
		visible(`//dialog//button[.="Delete"][@aria-disabled="true"]`), fill(`dialog input[name=confirm]`, "delete 4"))
	p.audit("delete several")
	p.do("two are refused, two go", click(`//dialog//button[.="Delete"]`), visible(`//dialog//p[.="2 of 4 done."]`),
		visible(`//dialog//li[contains(.,"web-01")][contains(.,"It is published as")]`), visible(`//dialog//li[contains(.,"web-03")]//span[contains(.,"Done")]`))
	p.shot("90-bulk-delete")
	p.do("those stay chosen", click(`//dialog//button[.="Close, and keep those chosen"]`), absent(`dialog`), visible(`//button[.="Delete 2"]`),
		absent(`//td//a[.="web-03"]`))
	p.do("unpublished", chosenMenu("Unpublish"), visible(`//dialog//p[.="No host is signed in to them."]`), click(`//dialog//button[.="Unpublish"]`),
		visible(`//dialog//p[.="2 of 2 done."]`), click(`//dialog//button[.="Done"]`), absent(`dialog`))
	p.do("and deleted", click(`input[aria-label="Choose all rows shown"]`), click(`//button[.="Delete 2"]`), fill(`dialog input[name=confirm]`, "delete 2"),
		click(`//dialog//button[.="Delete"]`), visible(`//dialog//p[.="2 of 2 done."]`), click(`//dialog//button[.="Done"]`), visible(`//h2[.="No vDisks yet"]`))
	p.do("the trash has them", click(`//main//button[.="Trash"]`), visible(`//td[.="web-04"]`), visible(`//td[.="web-01"]`))
}
