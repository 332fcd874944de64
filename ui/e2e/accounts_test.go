package e2e

import (
	"net/http"
	"strings"

	"github.com/chromedp/chromedp"
)

// membership goes on from a reader: an administrator makes a group with a role on one vPool, and takes the reader's own role
// away. Its pages have that vPool alone then, and say per object what is missing.
func membership(p *page, n *testNode) {
	n.call(http.MethodPost, "/vdisks", map[string]any{"name": "other", "vpool": "silver", "size": 1 << 30}, nil)
	p.do("an administrator", signedIn(n, admin), chromedp.Navigate(n.url+"/users?tab=groups"), visible(`//h2[.="No groups yet"]`))
	p.settle("no groups", "light", 1440, false)
	p.do("a group", click(`//main//button[.="Create group"]`), fill(`dialog input[name=name]`, "builders"), fill(`dialog input[name=description]`, "who build"),
		click(`//dialog//button[.="Add a role on one"]`), choose(`dialog select[aria-label="Role of grant 1"]`, "write"))
	bothOver(p, "create group", "120-group")
	p.do("is made", click(`//dialog//button[.="Create"]`), absent(`dialog`), visible(`//td[.="write on vPool gold"]`))
	p.do("a member", click(`//button[@aria-label="Members of builders"]`), choose(`dialog select[name=user]`, viewer), click(`//dialog//button[.="Add"]`), visible(`//dialog//li[contains(.,"`+viewer+`")]`))
	bothOver(p, "members", "121-members")
	p.do("closed", click(`//dialog//button[.="Cancel"]`), absent(`dialog`))
	both(p, "groups", "122-groups")
	p.do("no role of its own", to("/users"), choose(`select[aria-label="Role of `+viewer+`"]`, "none"), visible(`//td[.="write on vPool gold"]`))
	p.do("where it comes from", click(`//button[@aria-label="Rights of `+viewer+`"]`), visible(`//dialog//dt[.="By group builders"]`))
	bothOver(p, "rights", "123-rights")
	p.do("closed", click(`//dialog//button[.="Cancel"]`), absent(`dialog`))
	p.do("clients", to("/tokens?tab=clients"), visible(`//h2[.="No OAuth2 clients yet"]`), click(`//main//button[.="Create client"]`), fill(`dialog input[name=name]`, "ci"))
	bothOver(p, "create client", "124-client")
	p.provokes("/clients")
	var gold struct{ ID string }
	n.call(http.MethodGet, "/vpools/gold", nil, &gold)
	p.do("of nobody is refused at its field", fill(`dialog input[name=user]`, "nobody"), click(`//dialog//button[.="Create"]`), visible(`dialog input[name=user][aria-invalid=true]`))
	p.do("a client of a member, for a week", fill(`dialog input[name=user]`, viewer), choose(`dialog select[name=expires]`, "7"), choose(`dialog select[name=scope]`, "vpool:"+gold.ID), click(`//dialog//button[.="Create"]`), visible(`[data-copy="client secret"]`), click(`//dialog//button[.="Done"]`),
		visible(`//tr[td[.="ci"]][td[.="`+viewer+`"]][td[contains(.,"in 6 d") or contains(.,"in 7 d")]]`))
	both(p, "clients", "125-clients")

	p.do("the member", signedIn(n, viewer), chromedp.Navigate(n.url+"/"), visible(`nav.side`), absent(`//nav//a[@href="/nodes"]`), absent(`//nav//a[@href="/events"]`))
	p.settle("overview of a member", "light", 1440, false)
	p.do("one vPool", to("/vpools"), visible(`//tbody//a[.="gold"]`), absent(`//tbody//a[.="silver"]`))
	p.do("its vDisks", to("/vdisks"), visible(`//tbody//a[.="db-01"]`), absent(`//tbody//a[.="other"]`), visible(`//main//button[.="Create vDisk"][not(@aria-disabled)]`))
	p.settle("vDisks of a member", "light", 1440, false)
	p.do("a vDisk", to("/vdisks/db-01"), visible(`//main//button[.="Snapshot"][not(@aria-disabled)]`))
	p.settle("vDisk of a member", "light", 1440, false)
	p.do("what is missing there", to("/vpools/gold"), visible(`//main//button[.="Edit"][@aria-disabled="true"][@title="Needs role manage on vpool gold; you have write there"]`))
	p.settle("vPool of a member", "light", 1440, false)
	p.do("made there", to("/vdisks/new"), fill(`dialog input[name=name]`, "ours"), fill(`dialog input[name=size]`, "1"), click(`//dialog//button[.="Create"]`), visible(`//tbody//a[.="ours"]|//h1[.="ours"]`))
	p.do("its tokens", to("/tokens/new"), fill(`dialog input[name=name]`, "mine"), until(`document.querySelector("dialog select[name=scope]")?.selectedOptions[0]?.text === "vPool gold"`), click(`//dialog//button[.="Create"]`), visible(`[data-copy=token]`))
	p.do("closed", click(`//dialog//button[.="Done"]`), visible(`//td[.="read on vPool gold"]`))
	if text := p.text(`main`); strings.Contains(text, "silver") {
		p.t.Errorf("a member is shown another vPool: %s", text)
	}
	p.noConsoleErrors()
}
