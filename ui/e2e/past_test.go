package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestPast goes back in time with real data: an initiator writes A, the browser makes a snapshot, the initiator
// writes B, the browser rolls back, and the initiator reads A.
func TestPast(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	p := openPage(t)
	p.do("open", chromedp.EmulateViewport(1440, 900), chromedp.Navigate(n.url+"/"))
	setUp(p, n)
	createVPool(p, filepath.Join(t.TempDir(), "backend"))
	url := createVDisk(p, n)
	snapshots(p, url)
	timeTravel(p, n, url)
	groupSnapshot(p)
	templates(p)
	maintenance(p, n)
	p.noConsoleErrors()
}

// io has a real initiator sign in, do something, and sign out; ok is false where there is none.
func (p *page) io(url string, commands ...string) (ok bool) {
	p.t.Helper()
	qemuIO, err := exec.LookPath("qemu-io")
	if err != nil {
		if os.Getenv("CI") != "" || os.Getenv("E2E") == "required" {
			p.t.Fatal("no qemu-io in PATH: run scripts/setup.sh, or apt-get install qemu-utils qemu-block-extra")
		}
		p.t.Log("no qemu-io in PATH: data is not looked at")
		return false
	}
	args := []string{"-f", "raw"}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	said, err := exec.CommandContext(p.ctx, qemuIO, append(args, url)...).CombinedOutput()
	if err != nil || strings.Contains(string(said), "verification failed") {
		p.t.Fatalf("qemu-io %v: %v\n%s", commands, err, said)
	}
	return true
}

func snapshots(p *page, url string) {
	p.io(url, "write -P 0xaa 0 64k")
	p.do("no snapshots yet", click(`//tbody//a[.="db-01"]`), click(`//button[@role="tab"][.="Snapshots"]`), visible(`//h2[.="No snapshots yet"]`),
		until(`location.search === "?tab=snapshots"`))
	p.audit("no snapshots")
	p.shot("30-no-snapshots")
	p.provokes("/snapshots")
	p.do("a bad name is refused at its field", click(`//button[.="Create snapshot"]`), click(`//dialog//button[.="Create"]`),
		visible(`dialog input[name=name][aria-invalid=true]`))
	p.audit("new snapshot with an error")
	p.do("a snapshot", fill(`dialog input[name=name]`, "before"), click(`//dialog//button[.="Create"]`), absent(`dialog`),
		visible(`//td[contains(.,"before")]`))
	for _, name := range []string{"later-1", "later-2"} {
		p.do("snapshot "+name, click(`//button[.="Create snapshot"]`), fill(`dialog input[name=name]`, name), click(`//dialog//button[.="Create"]`),
			absent(`dialog`), visible(`//td[contains(.,"`+name+`")]`))
	}
	p.do("a sticky one", click(`//button[.="Create snapshot"]`), fill(`dialog input[name=name]`, "kept"), click(`dialog input[name=sticky]`),
		click(`//dialog//button[.="Create"]`), absent(`dialog`), visible(`//span[.="sticky"]`))
	p.audit("snapshots")
	p.shot("31-snapshots")

	p.do("a deletion is undone", click(`//button[@aria-label="Delete later-2"]`), visible(`//td[contains(.,"Being deleted")]`),
		click(`//*[@class="toast"]//button[.="Undo"]`), visible(`//button[@aria-label="Delete later-2"]`))
	p.do("and done", click(`//button[@aria-label="Delete later-2"]`), click(`//*[@class="toast"][contains(.,"will be deleted")]//button[@aria-label="Close message"]`),
		absent(`//td[contains(.,"later-2")]`))
	p.do("several at once", click(`//button[.="Create snapshot"]`), fill(`dialog input[name=name]`, "later-3"), click(`//dialog//button[.="Create"]`),
		absent(`dialog`), click(`input[aria-label="Choose later-1"]`), click(`input[aria-label="Choose later-3"]`), visible(`//button[.="Delete 2"]`))
	p.audit("snapshots chosen")
	p.do("a rollback past a sticky one is not offered", click(`//button[@aria-label="Roll back to before"]`),
		visible(`//dialog//li[contains(.,"Sticky, and so in the way: kept")]`), visible(`//dialog//button[.="Roll back"][@aria-disabled="true"]`))
	p.do("never mind", click(`//dialog//button[.="Cancel"]`), absent(`dialog`))
	p.do("a sticky one asks for its name", click(`//button[@aria-label="Delete kept"]`), fill(`dialog input[name=confirm]`, "kept"),
		click(`//dialog//button[.="Delete"]`), absent(`dialog`), absent(`//td[contains(.,"kept")]`))

	p.io(url, "write -P 0xbb 0 64k")
	stay, ok := signIn(p, url)
	if ok {
		p.do("open sessions are in the way", visible(`//h1[.="db-01"]`), click(`//button[@aria-label="Roll back to before"]`),
			visible(`//dialog//b[.="1 session of hosts is open"]`), fill(`dialog input[name=confirm]`, "db-01"),
			visible(`//dialog//button[.="Drop 1 session and roll back"][@aria-disabled="true"]`))
		p.audit("rollback with a session")
		p.shot("32-rollback-session")
		stay()
		p.do("gone", visible(`//dialog//button[.="Roll back"]`), click(`//dialog//button[.="Cancel"]`), absent(`dialog`))
		p.io(url, "write -P 0xbb 0 64k")
	}
	p.do("roll back", click(`//button[@aria-label="Roll back to before"]`), visible(`//dialog//li[contains(.,"2 newer snapshots will be deleted")]`),
		fill(`dialog input[name=confirm]`, "db-01"))
	p.audit("rollback")
	p.shot("33-rollback")
	p.do("it is done", click(`//dialog//button[.="Roll back"]`), absent(`dialog`), visible(`//button[.="Undo the rollback"]`),
		absent(`//td[contains(.,"later-1")]`))
	p.shot("34-rolled-back")
	p.audit("rolled back")
	p.io(url, "read -P 0xaa 0 64k")
	p.do("undo", click(`//button[.="Undo the rollback"]`), fill(`dialog input[name=confirm]`, "db-01"), click(`//dialog//button[.="Roll back"]`),
		absent(`dialog`), absent(`//button[.="Undo the rollback"]`))
	p.io(url, "read -P 0xbb 0 64k")

	p.provokes("/clone")
	p.do("clone of a snapshot", click(`//button[@aria-label="Clone before"]`), visible(`dialog select[name=snapshot]`),
		fill(`dialog input[name=name]`, "no spaces"), click(`//dialog//button[.="Clone"]`), visible(`dialog input[name=name][aria-invalid=true]`))
	p.audit("clone with an error")
	p.shot("35-clone")
	p.do("made", fill(`dialog input[name=name]`, "db-copy"), click(`//dialog//button[.="Clone"]`), visible(`//h1[.="db-copy"]`), absent(`dialog`))
}

// timeTravel picks a moment on the line, goes back to it, and looks at the data.
func timeTravel(p *page, n *testNode, url string) {
	p.io(url, "write -P 0xcc 0 64k")
	p.do("the moment is committed", chromedp.Navigate(n.url+"/vdisks/db-01?tab=snapshots"), fromMenu("Commit now"),
		visible(`//*[@class="toast"][contains(.,"The backend holds everything")]`))
	p.io(url, "write -P 0xdd 0 64k")
	p.do("and one later", fromMenu("Commit now"), until(`document.querySelectorAll(".toast").length > 1`),
		chromedp.Navigate(n.url+"/vdisks/db-01?tab=snapshots"), visible(`.timeline input`),
		visible(`//dd[.="nothing was written"]`))
	p.audit("time travel")
	p.do("an earlier moment", click(`//button[.="Earlier"]`), visible(`//dd[contains(.,"of writes")]`))
	p.shot("36-time-travel")
	// What comes late moves the button below it.
	p.do("goes back", click(`//button[.="Roll back to it"]`), visible(`//dialog[contains(.,"No snapshot is newer") and contains(.,"It has clones") and contains(.,"It keeps no history")]`),
		fill(`dialog input[name=confirm]`, "db-01"), click(`dialog input[name=keep]`),
		click(`//dialog//button[.="Roll back"]`), absent(`dialog`), visible(`//button[.="Undo the rollback"]`))
	p.io(url, "read -P 0xcc 0 64k")
	p.do("a moment is cloned", click(`//button[.="Clone this moment"]`), visible(`dialog input[name=moment]`),
		fill(`dialog input[name=name]`, "db-then"), click(`//dialog//button[.="Clone"]`), visible(`//h1[.="db-then"]`), absent(`dialog`))
}

func groupSnapshot(p *page) {
	p.do("two vDisks are chosen", click(`//nav//a[@href="/vdisks"]`), click(`input[aria-label="Choose db-01"]`), click(`input[aria-label="Choose db-then"]`),
		click(`//button[.="Snapshot 2 vDisks"]`), fill(`dialog input[name=name]`, "together"))
	p.audit("snapshot of a group")
	p.shot("37-group")
	p.do("at one moment", click(`//dialog//button[.="Create"]`), absent(`dialog`), absent(`//button[.="Snapshot 2 vDisks"]`),
		click(`//tbody//a[.="db-then"]`), click(`//button[@role="tab"][.="Snapshots"]`), visible(`//span[.="group of 2"]`))
}

func templates(p *page) {
	p.do("lineage", click(`//button[@role="tab"][.="Lineage"]`), visible(`//dd//a[.="db-01"]`), visible(`//h2[.="No clones"]`))
	p.audit("lineage of a clone")
	p.shot("38-lineage")
	p.do("a clone is flattened", click(`//button[.="Flatten"]`), visible(`//p[contains(.,"It is no clone")]`))
	p.do("a template", click(`//button[.="Make it a template"]`), click(`//dialog//button[.="Make it a template"]`), absent(`dialog`),
		visible(`//button[.="Make it a vDisk again"]`))
	p.do("templates", click(`//nav//a[@href="/templates"]`), visible(`//tbody//a[.="db-then"]`))
	p.audit("templates")
	p.do("several from it", click(`//button[.="Create vDisks"]`), fill(`dialog input[name=copies]`, "3"), fill(`dialog input[name=pattern]`, "web"),
		visible(`dialog input[name=pattern][aria-invalid=true]`))
	p.audit("vDisks from a template with an error")
	p.do("are made", fill(`dialog input[name=pattern]`, "web-##"), visible(`//dialog//span[contains(.,"web-01 to web-03")]`))
	p.shot("39-template")
	p.do("at once", click(`//dialog//button[.="Create 3 vDisks"]`), absent(`dialog`), visible(`//tbody//a[.="web-03"]`))
	p.audit("lineage of a template")
	p.shot("40-lineage-template")
}

func maintenance(p *page, n *testNode) {
	p.provokes("/scrub") // there was none
	p.do("maintenance", to("/vdisks/db-01?tab=maintenance"), visible(`//p[contains(.,"There was none")]`))
	p.do("a scrub", click(`//button[.="Scrub now"]`), visible(`//dt[.="Stored after"]`), visible(`//section[contains(.,"Scrub")]//span[contains(@class,"tone-ok")]`))
	p.do("a verification", click(`//button[.="Verify now"]`), visible(`//dt[.="Checked"]`), visible(`//button[.="Verify now"]`))
	p.audit("maintenance")
	p.shot("41-maintenance")
}
