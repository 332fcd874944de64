package e2e

import (
	"net/http"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestHistory chooses the time that charts show: of the node, of a vPool and of a vDisk.
func TestHistory(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	n.call(http.MethodPost, "/vpools", map[string]any{"name": "gold", "backend": map[string]any{"kind": "local", "path": filepath.Join(t.TempDir(), "backend")}}, nil)
	n.call(http.MethodPost, "/vdisks", map[string]any{"name": "db", "vpool": "gold", "size": 1 << 30}, nil)
	p := openPage(t)
	p.do("signed in", signedIn(n, admin), chromedp.Navigate(n.url+"/"), visible(`nav.side`))
	chosen := func(text string) chromedp.Action[chromedp.Void] {
		return visible(`//*[@aria-label="Time that the charts show"]//button[.="` + text + `"][@aria-pressed="true"]`)
	}
	p.do("two minutes, live", visible(`.uplot`), chosen("Live"), visible(`//*[@role="img"][starts-with(@aria-label,"IOPS, last two minutes: Read ")]`))
	for _, r := range [][2]string{{"10 min", "ten minutes"}, {"1 h", "hour"}, {"24 h", "24 hours"}, {"7 d", "seven days"}, {"90 d", "90 days"}} {
		p.do("the node, "+r[0], click(`//button[.="`+r[0]+`"]`), chosen(r[0]), visible(`//*[@role="img"][starts-with(@aria-label,"IOPS, last `+r[1]+`: Read 0")]//canvas`),
			visible(`//*[@role="img"][starts-with(@aria-label,"Machine, last `+r[1]+`: Processors ")][contains(@aria-label," %, Memory ")]//canvas`))
	}
	p.audit("overview, 90 days")
	p.do("as a table", click(`button[aria-label="Machine as table"]`), visible(`//*[@aria-label="Machine as table"]//tbody//td[contains(.," %")]`))
	p.audit("history as a table")
	p.shot("91-history")
	p.do("a vDisk, by its address", chromedp.Navigate(n.url+"/vdisks/db?range=24h"), visible(`.uplot`), chosen("24 h"), visible(`//*[@role="img"][starts-with(@aria-label,"IOPS, last 24 hours: Read 0")]//canvas`))
	p.audit("vDisk, 24 h")
	p.do("live again", click(`//button[.="Live"]`), chosen("Live"), until(`location.search === ""`), visible(`//*[@role="img"][starts-with(@aria-label,"IOPS, last two minutes: Read 0")]//canvas`))
	p.do("a vPool", to("/vpools/gold"), visible(`.uplot`), click(`//button[.="10 min"]`), visible(`//*[@role="img"][starts-with(@aria-label,"Stored on the backend, last ten minutes")]//canvas`))
	p.audit("vPool, 10 min")
	p.shot("92-history-vpool")
	p.noConsoleErrors()
}
