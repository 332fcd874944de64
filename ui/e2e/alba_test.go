package e2e

import (
	"testing"

	"github.com/chromedp/chromedp"
)

// TestObjectStore looks at an object store with data, and changes its presets and its key.
func TestObjectStore(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	p := openPage(t)
	p.do("signed in", signedIn(n, admin), chromedp.Navigate(n.url+"/"), visible(`nav.side`))
	p.do("no object store yet", click(`//nav//a[@href="/alba"]`), visible(`//h2[.="No object store yet"]`))
	p.audit("no object store")
	p.shot("30-no-alba")

	p.do("a vPool makes it", click(`//main//button[.="Create vPool"]`), visible(`dialog input[name=preset]`),
		fill(`dialog input[name=name]`, "fast"), click(`//dialog//button[.="Create"]`), visible(`//h1[.="fast"]`))
	p.do("its presets and namespaces", click(`//nav//a[@href="/alba"]`), visible(`//table//td[starts-with(.,"default")]`),
		visible(`//table//td[.="fast"]`), visible(`//td[contains(.,"survives the loss of any 2 disks")]`))
	p.do("a survey counts what the vPool stored", click(`//main//button[.="Survey now"]`),
		visible(`//*[@class="toast"][contains(.,"Every object is being looked at")]`), visible(`//td[.="Look at every manifest"]`),
		visible(`//*[@data-testid="safety"][.="Everything survives the loss of any 2 more devices."]`), visible(`.chart-legend .swatch.c1`))
	p.audit("object store")
	p.shot("31-alba")

	p.provokes("/api/v1/presets")
	p.do("a policy that cannot be is refused at its field", click(`//button[.="New preset"]`), fill(`dialog input[name=name]`, "wide"),
		fill(`dialog textarea[name=policies]`, "4,2,5"), click(`//dialog//button[.="Create"]`), visible(`dialog textarea[aria-invalid=true]`))
	p.audit("preset with an error")
	p.do("what is no number of a device is not taken for none", fill(`dialog textarea[name=policies]`, "2,2,3,6 1,1,2,6"),
		fill(`dialog input[name=osds]`, "first"), click(`//dialog//button[.="Create"]`), visible(`dialog input[name=osds][aria-invalid=true]`))
	p.do("preset", fill(`dialog input[name=osds]`, "1 2 3 4"), choose(`dialog select[name=compression]`, "s2"), click(`dialog input[name=encrypt]`),
		click(`//dialog//button[.="Create"]`), absent(`dialog`), visible(`//table//div[.="1,1,2,6"]`),
		until(`location.pathname === "/alba"`))
	p.audit("presets")
	p.shot("32-presets")
	p.do("change it", click(`//button[@aria-label="Change preset wide"]`), choose(`dialog select[name=fragmentSize]`, "1048576"),
		click(`//dialog//button[.="Save"]`), absent(`dialog`), visible(`//table//td[.="1 MiB"]`))
	p.do("make it the default", click(`//button[@aria-label="Make wide the default"]`), click(`//dialog//button[.="Make it the default"]`),
		absent(`dialog`), visible(`//td[starts-with(.,"wide")]//span[.="default"]`))
	p.provokes("/api/v1/presets/default")
	p.do("one in use is not deleted, and the reason stays", click(`//button[@aria-label="Delete preset default"]`),
		click(`//dialog//button[.="Delete"]`), visible(`//dialog//*[@role="alert"][contains(.,"fast")]`))
	p.audit("delete refused")
	p.do("never mind", click(`//dialog//button[.="Cancel"]`), absent(`dialog`))
	p.do("a new key is named, not told", click(`//main//button[.="New key"]`), click(`//dialog//button[.="Draw a new key"]`),
		visible(`//dialog//dd[.="1 data key"]`))
	p.audit("new key")
	p.shot("33-key")
	p.do("recover", click(`//dialog//button[.="Done"]`), absent(`dialog`), click(`//main//button[.="Recover records"]`),
		visible(`dialog input[name=namespace]`))
	p.audit("recover")
	p.do("leave it", click(`//dialog//button[.="Cancel"]`), absent(`dialog`))
	p.do("namespaces by the start of their names", fill(`input[type=search]`, "zzz"), visible(`//p[.="The name of no namespace begins with that."]`))
	p.do("ended jobs are forgotten", absent(`//td//span[contains(.,"Running")]`), click(`//button[.="Forget ended jobs"]`), visible(`//p[.="Nothing runs, and nothing ended lately."]`))

	p.do("dark", click(`button[popovertarget=user-menu]`), visible(`#user-menu`), click(`//div[@id="user-menu"]//label[.="Dark"]`),
		until(`document.documentElement.dataset.theme === "dark"`), chromedp.KeyEvent("\x1b"))
	p.audit("object store, dark")
	p.shot("34-alba-dark")
	p.do("phone", chromedp.EmulateViewport(390, 844), until(`document.documentElement.scrollWidth <= 390`))
	p.audit("object store, phone")
	p.shot("35-alba-phone")
	p.noConsoleErrors()
}
