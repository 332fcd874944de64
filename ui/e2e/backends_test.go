package e2e

import (
	"net/http"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/openvstorage/ovgate/volumedriver/backend/remote/remotetest"
)

// TestBackends registers a real store that speaks S3, puts a vPool on it, and changes and deletes it.
func TestBackends(t *testing.T) {
	t.Parallel()
	s3 := remotetest.Peer(t, "s3")
	n := startNode(t)
	p := openPage(t)
	p.do("signed in", signedIn(n, admin), chromedp.Navigate(n.url+"/"), visible(`nav.side`))
	p.do("no backends yet", click(`//nav//a[@href="/backends"]`), visible(`//h2[.="No backends yet"]`))
	p.audit("no backends")
	p.shot("40-no-backends")

	p.do("register dialog", click(`//main//button[.="Register backend"]`), visible(`dialog input[name=container]`))
	p.audit("register backend")
	p.do("each kind has its own fields", choose(`dialog select[name=kind]`, "swift"), visible(`dialog input[name=project]`),
		click(`//dialog//summary`), visible(`dialog input[name=shards]`))
	p.audit("register Swift")
	p.shot("41-register")
	p.provokes("/api/v1/backends")
	p.do("a bad name is refused at its field", choose(`dialog select[name=kind]`, "s3"), absent(`dialog input[name=project]`),
		fill(`dialog input[name=name]`, "no spaces"), fill(`dialog input[name=url]`, s3["endpoint"]),
		fill(`dialog input[name=container]`, s3["bucket"]), fill(`dialog input[name=user]`, s3["access_key"]),
		fill(`dialog input[name=secret]`, "not the secret"), click(`//dialog//button[.="Test and register"]`),
		visible(`dialog input[name=name][aria-invalid=true]`))
	p.provokes("/api/v1/backends")
	p.within(probeLimit, "a wrong secret is refused with what the store said", fill(`dialog input[name=name]`, "cloud"),
		click(`//dialog//button[.="Test and register"]`), visible(`dialog input[name=secret][aria-invalid=true]`),
		visible(`//dialog//*[@role="alert"][contains(.,"SignatureDoesNotMatch")]`))
	p.audit("backend refused")
	p.shot("42-refused")
	p.within(probeLimit, "every operation is tried, and it is registered", fill(`dialog input[name=secret]`, s3["secret_key"]),
		click(`//dialog//button[.="Test and register"]`), visible(`//dialog//h2[.="Backend cloud is registered"]`),
		visible(`//dialog//b[.="Every operation works"]`), visible(`//dialog//td[contains(.,"Works")]`))
	p.audit("report")
	p.shot("43-report")
	p.do("backend", click(`//dialog//button[.="Done"]`), visible(`//h1[.="cloud"]`), visible(`//dd[.="kept sealed"]`),
		absent(`dialog`))
	p.audit("backend")
	p.shot("44-backend")

	p.within(probeLimit, "a vPool on it", to("/vpools/new"), visible(`//dialog//option[starts-with(.,"cloud")]/..`),
		fill(`dialog input[name=name]`, "far"), chromedp.Evaluate[chromedp.Void](`{const e = document.querySelector("dialog select[name=kind]");
			e.value = [...e.options].find((o) => o.text.startsWith("cloud")).value; e.dispatchEvent(new Event("change", {bubbles: true}))}`),
		click(`//dialog//button[.="Create"]`), visible(`//h1[.="far"]`))
	p.do("it is counted, and keeps the backend from being deleted", click(`//nav//a[@href="/backends"]`), click(`//td//a[.="cloud"]`),
		visible(`//table//td[.="put"]`), visible(`//main//a[.="far"]`),
		visible(`//main//button[.="Delete"][@aria-disabled="true"][contains(@title,"vPools are on it: far")]`))
	p.audit("backend with a vPool")
	p.shot("45-used")
	p.within(probeLimit, "test", click(`//main//button[.="Test"]`), visible(`//dialog//b[.="Every operation works"]`))
	p.do("change", click(`//dialog//button[.="Done"]`), absent(`dialog`), click(`//main//button[.="Change"]`),
		visible(`dialog input[name=secret]`), click(`//dialog//summary`))
	p.audit("change backend")
	p.do("what is no number is not sent", fill(`dialog input[name=uploadBytes]`, "much"), click(`//dialog//button[.="Test and save"]`),
		visible(`dialog input[name=uploadBytes][aria-invalid=true]`))
	p.within(probeLimit, "another name and a limit", fill(`dialog input[name=uploadBytes]`, "50"), fill(`dialog input[name=name]`, "cloud-2"),
		click(`//dialog//button[.="Test and save"]`), visible(`//dialog//h2[.="Backend cloud-2 is changed"]`),
		click(`//dialog//button[.="Done"]`), visible(`//h1[.="cloud-2"]`), visible(`//dd[.="50 MiB/s for each vPool"]`))
	p.do("dark", click(`//nav//a[@href="/backends"]`), visible(`//td//a[.="cloud-2"]`), click(`button[popovertarget=user-menu]`),
		visible(`#user-menu`), click(`//div[@id="user-menu"]//label[.="Dark"]`), until(`document.documentElement.dataset.theme === "dark"`),
		chromedp.KeyEvent("\x1b"))
	p.audit("backends, dark")
	p.shot("46-backends-dark")

	p.mayAskLate(http.StatusNotFound, "/api/v1/vpools/")
	p.do("the vPool goes", to("/vpools/far"), click(`//main//button[.="Delete"]`), fill(`dialog input[name=confirm]`, "far"),
		click(`//dialog//button[starts-with(.,"Delete")]`), visible(`//h1[.="vPools"]`))
	p.do("deleting asks for the name", chromedp.Navigate(n.url+"/backends/cloud-2"), visible(`//main//button[.="Delete"][not(@aria-disabled)]`),
		click(`//main//button[.="Delete"]`), visible(`dialog input[name=confirm]`))
	p.audit("delete backend")
	p.do("it is forgotten", fill(`dialog input[name=confirm]`, "cloud-2"), click(`//dialog//button[.="Delete backend"]`),
		visible(`//h2[.="No backends yet"]`))
	p.noConsoleErrors()
}
