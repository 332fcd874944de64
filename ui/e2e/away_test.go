package e2e

import (
	"testing"

	"github.com/chromedp/chromedp"
)

// TestNodeAway stops the node under an open console: the page keeps what it had, says how old that is, and
// goes on by itself when the node is back.
func TestNodeAway(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	p := openPage(t)
	p.do("set-up", chromedp.EmulateViewport(1440, 900), chromedp.Navigate(n.url+"/setup"),
		fill(`input[name=token]`, n.setupToken), fill(`input[name=password]`, password),
		fill(`input[name=repeat]`, password), click(`//button[.="Create administrator"]`),
		visible(`.checklist`), visible(follows("Live")), visible(`.uplot`))
	p.noConsoleErrors()

	n.stop()
	p.do("the page says so", visible(follows("Reconnecting")))
	p.do("old data stays, with its age", visible(`//div[@role="alert"][contains(.,"Showing what the node said")]`),
		visible(`.stale [data-testid=iops]`))
	p.audit("node away")
	p.shot("15-away")

	n.restart()
	p.do("the page goes on", visible(follows("Live")), chromedp.WaitNotPresent(`.stale`),
		visible(`[data-testid=iops]`))
	p.nodeWasAway()
	p.noConsoleErrors()
}

// follows selects the top bar's word on whether the page follows the node.
func follows(word string) string {
	return `//header//span[@role="status"][contains(.,"` + word + `")]`
}
