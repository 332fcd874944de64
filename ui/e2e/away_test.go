package e2e

import (
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/openvstorage/ovgate/gateway/node"
)

// TestNodeAway stops the node under an open console: the page keeps what it had, says how old that is, and
// goes on by itself when the node is back.
func TestNodeAway(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	p := openPage(t)
	p.do("signed in", signedIn(n, admin), chromedp.Navigate(n.url+"/"), visible(`.checklist`), visible(follows("Live")), visible(`.uplot`), visible(`//h2[.="Recent events"]`))
	p.noConsoleErrors()

	n.stop()
	p.do("the page says so", visible(follows("Reconnecting")))
	p.do("old data stays, with its age", visible(`//div[@role="alert"][contains(.,"Showing what the node said")]`),
		visible(`.stale [data-testid=iops]`))
	p.audit("node away")
	p.shot("15-away")

	n.restart()
	p.do("the page goes on", visible(follows("Live")), absent(`.stale`),
		visible(`[data-testid=iops]`))
	p.nodeWasAway()
	p.noConsoleErrors()
	restored(p, n)
}

// restored loses the metadata of the node, restores them, and has a vDisk accepted whose state cannot be read.
func restored(p *page, n *testNode) {
	t := p.t
	dir := filepath.Join(t.TempDir(), "gold")
	n.call(http.MethodPost, "/vpools", map[string]any{"name": "gold", "backend": map[string]any{"kind": "local", "path": dir}}, nil)
	n.call(http.MethodPost, "/vdisks", map[string]any{"name": "db", "vpool": "gold", "size": 1 << 30}, nil)
	backup := filepath.Join(t.TempDir(), "copy.gz")
	if err := os.WriteFile(backup, n.ask(http.MethodGet, "/metadata/backup", nil), 0o600); err != nil {
		t.Fatal(err)
	}
	n.stop()
	if err := os.Remove(filepath.Join(n.dir, "kv.db")); err != nil {
		t.Fatal(err)
	}
	if _, err := node.RestoreMetadata(t.Context(), node.RestoreOptions{File: backup, Data: n.dir, Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	heads, err := filepath.Glob(filepath.Join(dir, "objects", "v~", "*", "head~", "*"))
	if err != nil || len(heads) == 0 {
		t.Fatalf("heads: %v %v", heads, err)
	}
	lost := filepath.Join(dir, "objects", "v~", "09000000-0000-4000-8000-000000000000~", "head~", filepath.Base(heads[0]))
	if err := os.MkdirAll(filepath.Dir(lost), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(lost, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.restart()
	p.nodeWasAway()
	p.do("sign in again", chromedp.Navigate(n.url+"/login"), fill(`input[name=user]`, admin), fill(`input[name=password]`, password), click(`//button[.="Sign in"]`), visible(`nav.side`))
	p.mu.Lock()
	p.messages = nil // the session that was lost with the metadata was refused
	p.mu.Unlock()
	p.do("health leads to the vPool", click(`//main//ul[@class="causes"]//a[.="Open gold"]`), visible(`//h2[.="Restored metadata of gold"]`))
	p.do("a vDisk is unclear", visible(`//tr[td[.="Unclear"]]//code[starts-with(.,"09000000-")]`))
	both(p, "restored metadata", "16-restored")
	p.do("what is given up is said", click(`//button[.="Do without 1 unclear vDisk"]`), visible(`//dialog//*[contains(.,"Given up: what 09000000-")]`), fill(`dialog input[name=confirm]`, "gold"))
	p.audit("accept an unclear vDisk")
	p.do("deletes are on", click(`//dialog//button[.="Do without them"]`), absent(`dialog`), visible(`//*[contains(@class,"state")][contains(.,"Deletes are on")]`), visible(`//td[.="Accepted"]`))
	p.do("in the settings, too", click(`//nav//a[@href="/settings"]`), visible(`//h2[.="Restored metadata of gold"]`))
	p.noConsoleErrors()
}

// follows selects the top bar's word on whether the page follows the node.
func follows(word string) string {
	return `//header//span[@role="status"][contains(.,"` + word + `")]`
}
