package e2e

import (
	"testing"

	"github.com/chromedp/chromedp"
)

// TestOpenStackRefused looks at the page before there is a cloud, and at one that does not answer.
func TestOpenStackRefused(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	p := openPage(t)
	p.do("open", chromedp.EmulateViewport(1440, 900), chromedp.Navigate(n.url+"/"))
	setUp(p, n)
	p.do("no clouds yet", click(`//nav//a[@href="/openstack"]`), visible(`//h2[.="No clouds yet"]`), visible(`[data-copy=driver]`))
	p.audit("no clouds")
	p.shot("60-no-clouds")
	p.provokes("/openstack/clouds")
	p.do("a bad address is refused at its field", click(`//main//button[.="Add cloud"]`), fill(`dialog input[name=name]`, "prod"),
		fill(`dialog input[name=url]`, "keystone"), fill(`dialog input[name=user]`, "ovgate"), fill(`dialog input[name=project]`, "admin"),
		fill(`dialog input[name=secret]`, "not the password"), click(`//dialog//button[.="Add"]`), visible(`dialog input[name=url][aria-invalid=true]`))
	p.audit("cloud with an error")
	p.shot("61-cloud-refused")
	p.noConsoleErrors()
}
