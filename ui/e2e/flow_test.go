package e2e

import (
	"bytes"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"
)

const (
	admin    = "admin"
	password = "a sentence is easy to keep 7"
	viewer   = "viewer"
)

// TestFirstHour is what a new administrator does: set-up, vPool, vDisk, publish, look around, sign out.
func TestFirstHour(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	p := openPage(t)
	p.do("open a deep link", chromedp.EmulateViewport(1440, 900), chromedp.Navigate(n.url+"/vdisks"))

	setUp(p, n)
	p.do("overview of an empty node", click(`//nav//a[@href="/"]`), visible(`.checklist`), visible(`.uplot`))
	p.audit("empty overview")
	p.shot("02-empty")

	createVPool(p, filepath.Join(t.TempDir(), "backend"))
	url := createVDisk(p, n)
	vdiskPages(p)
	groups(p)
	sharedTarget(p)
	limits(p, n)
	session(p, url)
	changes(p, n)
	people(p)
	nodes(p)
	themes(p)
	signOutAndIn(p, n)
	p.noConsoleErrors()
}

func setUp(p *page, n *testNode) {
	p.do("set-up page", visible(`input[name=token]`))
	p.audit("set-up")
	p.provokes("/api/v1/setup")
	p.do("wrong token is refused at its field",
		fill(`input[name=token]`, "wrong"), fill(`input[name=user]`, admin),
		fill(`input[name=password]`, password), fill(`input[name=repeat]`, password),
		click(`//button[.="Create administrator"]`), visible(`input[name=token][aria-invalid=true]`))
	p.shot("01-set-up")
	p.do("set-up signs in",
		fill(`input[name=token]`, n.setupToken),
		click(`//button[.="Create administrator"]`), visible(`nav.side`), visible(`//h1[.="Set up"]`))
	firstRun(p)
}

// firstRun is what follows the first administrator, on a node that finds nothing to do.
func firstRun(p *page) {
	p.do("a node by itself, its checks, its disks", visible(`//h3[.="Cluster"]/following-sibling::p[contains(.,"needs nothing for that")]`),
		visible(`//summary[contains(.,"nothing wrong")]`), visible(`//h3[starts-with(.,"Disks of ")]/following-sibling::div`))
	p.do("what is well", click(`//summary[contains(.,"nothing wrong")]`), visible(`//details//b[starts-with(.,"API and console: reached from this machine alone")]`),
		visible(`//details//p[contains(.,"Set api in the configuration")]`))
	p.do("how to have more nodes", click(`//summary[.="To have more nodes"]`), visible(`[data-copy=registry]`))
	both(p, "first run", "01-first-run")
	p.do("it is there when the page is loaded anew", chromedp.Reload(), visible(`//h1[.="Set up"]`), visible(`//summary[contains(.,"nothing wrong")]`), visible(`//h3[starts-with(.,"Disks of ")]/following-sibling::div`))
	p.do("go on", click(`//main//a[.="Go on"]`), visible(`//h1[.="Overview"]`), visible(`//main//a[.="Open set-up"]`))
}

func createVPool(p *page, dir string) {
	p.do("vPool dialog", click(`//a[.="Create vPool"]`), visible(`dialog input[name=preset]`))
	p.audit("vPool dialog")
	p.do("directory instead of the object store", choose(`dialog select[name=kind]`, "local"), visible(`dialog input[name=path]`))
	p.provokes("/api/v1/vpools")
	p.do("relative path is refused at its field",
		fill(`dialog input[name=name]`, "default"), fill(`dialog input[name=path]`, "relative"),
		click(`//dialog//button[.="Create"]`), visible(`dialog input[name=path][aria-invalid=true]`))
	p.audit("vPool dialog with an error")
	p.shot("03-vpool-refused")
	p.do("vPool",
		fill(`dialog input[name=path]`, dir), click(`//dialog//button[.="Create"]`), visible(`//h1[.="default"]`),
		visible(`//dt[.="Directory"]`))
	p.audit("vPool")
	p.shot("04-vpool")
}

// libiscsiURL takes a libiscsi URL apart: user, secret, portal, target.
var libiscsiURL = regexp.MustCompile(`^iscsi://([^%/]+)%([^@/]+)@([0-9.]+:[0-9]+)/(iqn\.[^/]+)/0$`)

func createVDisk(p *page, n *testNode) (url string) {
	p.do("vDisk dialog", click(`//button[.="Create vDisk"]`), visible(`dialog input[name=name]`))
	p.audit("vDisk dialog")
	p.provokes("/api/v1/vdisks")
	p.do("bad name is refused at its field",
		fill(`dialog input[name=name]`, "no spaces"), click(`//dialog//button[.="Create"]`),
		visible(`dialog input[name=name][aria-invalid=true]`))
	p.do("vDisk is created and published",
		fill(`dialog input[name=name]`, "db-01"), fill(`dialog input[name=size]`, "8"),
		click(`//dialog//button[.="Create"]`), visible(`[data-copy=iscsiadm]`))
	p.do("waiting for an initiator", visible(`//dialog//b[.="Waiting for an initiator"]`))
	p.audit("how to connect")
	p.shot("05-connect")

	linux := p.text(`[data-copy=iscsiadm]`)
	p.do("libiscsi tab", click(`//button[.="QEMU, libiscsi"]`), visible(`[data-copy=libiscsi]`))
	url = strings.TrimSpace(p.text(`[data-copy=libiscsi]`))
	parts := libiscsiURL.FindStringSubmatch(url)
	if parts == nil {
		p.t.Fatalf("libiscsi URL is %q, want iscsi://USER%%SECRET@PORTAL/IQN/0", url)
	}
	if parts[3] != n.portal {
		p.t.Errorf("libiscsi URL names portal %s, the node listens on %s", parts[3], n.portal)
	}
	for _, want := range append(parts[1:], "--login") {
		if !strings.Contains(linux, want) {
			p.t.Errorf("iscsiadm commands lack %q:\n%s", want, linux)
		}
	}
	arrive(p, url)
	p.do("done", click(`//dialog//button[.="Done"]`), visible(`//tbody//a[.="db-01"]`))
	return url
}

func vdiskPages(p *page) {
	p.audit("vDisks")
	p.shot("07-vdisks")
	p.do("filter without a match", fill(`input[type=search]`, "zzz"), visible(`//h2[.="No vDisk matches"]`),
		until(`location.search.includes("q=zzz")`))
	p.do("clear the filter", click(`//button[.="Clear the filter"]`), visible(`//tbody//a[.="db-01"]`))
	p.do("a blank that is to be followed by more stays", fill(`input[type=search]`, "db "), until(`location.search === "?q=db"`),
		chromedp.SendKeys(chromedp.JSPath(found(`input[type=search]`)), "x"), until(`document.querySelector("input[type=search]").value === "db x" && new URLSearchParams(location.search).get("q") === "db x"`),
		click(`//button[.="Clear the filter"]`), until(`document.querySelector("input[type=search]").value === ""`), visible(`//tbody//a[.="db-01"]`))
	p.do("sort", click(`//th//button[starts-with(.,"Size")]`), until(`location.search === "?sort=size"`),
		visible(`th[aria-sort=ascending]`))
	p.do("vDisk page", click(`//tbody//a[.="db-01"]`), visible(`//h1[.="db-01"]`), visible(`.uplot`),
		visible(`//dt[.="Epoch"]`))
	p.audit("vDisk")
	p.shot("08-vdisk")
	p.do("initiator is added", fill(`input[name=initiator]`, "iqn.2026-11.test:host-a"),
		click(`//button[.="Add"]`), visible(`//code[.="iqn.2026-11.test:host-a"]`))
	p.do("iSCSI page", click(`//nav//a[@href="/iscsi"]`), visible(`//tbody//a[.="db-01"]`))
	p.audit("iSCSI")
	p.shot("09-iscsi")
	p.do("target page", click(`//tbody//a[starts-with(@href,"/iscsi/")]`), visible(`//h1[starts-with(.,"iqn.")]`),
		visible(`//code[.="iqn.2026-11.test:host-a"]`))
	p.audit("target")
	p.do("no portal would be none", click(`//button[@aria-label="Change portals of db-01"]`), click(`dialog input[name=all]`), click(`//dialog//fieldset//input`),
		click(`//dialog//button[.="Save"]`), visible(`//dialog//*[contains(@class,"notice")][contains(.,"Choose a portal")]`))
	bothOver(p, "portals of a target", "09-portals")
	p.do("one portal", click(`//dialog//fieldset//input`), click(`//dialog//button[.="Save"]`), absent(`dialog`), absent(`//dd//*[.="all of the node"]`))
	p.do("all again", click(`//button[@aria-label="Change portals of db-01"]`), click(`dialog input[name=all]`), click(`//dialog//button[.="Save"]`), absent(`dialog`), visible(`//dd//*[.="all of the node"]`))
}

// groups works on the target that is shown.
func groups(p *page) {
	p.provokes("/groups")
	p.do("a bad name of a group is refused at its field", click(`//button[.="New group"]`),
		fill(`dialog input[name=name]`, "Backup!"), fill(`dialog textarea[name=initiators]`, "iqn.2026-11.test:backup"),
		click(`dialog input[name=mutual]`), click(`//dialog//button[.="Create"]`), visible(`dialog input[name=name][aria-invalid=true]`))
	p.audit("new group with an error")
	p.do("its secrets are shown", fill(`dialog input[name=name]`, "backup"), click(`//dialog//button[.="Create"]`),
		visible(`[data-copy=chapSecret]`), visible(`[data-copy=mutualSecret]`))
	p.audit("secrets of a group")
	p.shot("15-group")
	first := p.text(`[data-copy=chapSecret]`)
	p.do("the group is there", click(`//dialog//button[.="Done"]`), absent(`dialog`),
		visible(`//table//td[.="backup"]`), visible(`//table//td[.="CHAP, mutual"]`))
	p.provokes("/groups/backup")
	p.do("an initiator of another group is refused", click(`//button[@aria-label="Change members of backup"]`),
		fill(`dialog textarea[name=initiators]`, "iqn.2026-11.test:host-a"), click(`//dialog//button[.="Save"]`),
		visible(`dialog textarea[aria-invalid=true]`))
	p.do("members", fill(`dialog textarea[name=initiators]`, "iqn.2026-11.test:backup iqn.2026-11.test:copy"),
		click(`dialog input[name=readOnly]`), click(`//dialog//button[.="Save"]`), absent(`dialog`),
		visible(`//table//td[.="read-only"]`), visible(`//table//div[.="iqn.2026-11.test:copy"]`))
	p.audit("target with groups")
	p.shot("16-groups")
	p.do("new secrets", click(`//button[@aria-label="New secret for backup"]`), click(`//dialog//button[.="Draw new secrets"]`),
		visible(`[data-copy=chapSecret]`))
	if again := p.text(`[data-copy=chapSecret]`); again == first || len(strings.TrimSpace(again)) != len(strings.TrimSpace(first)) {
		p.t.Errorf("the new secret is %q, the old one was %q", again, first)
	}
	p.do("delete the group", click(`//dialog//button[.="Done"]`), absent(`dialog`),
		click(`//button[@aria-label="Delete group backup"]`), click(`//dialog//button[.="Delete"]`),
		absent(`//table//td[.="backup"]`), absent(`dialog`))
}

func sharedTarget(p *page) {
	p.do("shared target", click(`//nav//a[@href="/iscsi"]`), click(`//button[.="New shared target"]`),
		fill(`dialog input[name=name]`, "cluster"))
	p.audit("new shared target")
	p.do("it is made", click(`//dialog//button[.="Create"]`), visible(`//h1[.="iqn.2026-11.io.ovgate:target-cluster"]`),
		absent(`dialog`), visible(`//p[contains(.,"the target has no group")]`))
	p.audit("shared target")
	p.mayAskLate(http.StatusNotFound, "/api/v1/targets/iqn.2026-11.io.ovgate%3Atarget-cluster")
	p.do("it is deleted", click(`//main//button[.="Delete"]`), fill(`dialog input[name=confirm]`, "cluster"), click(`//dialog//button[.="Delete"]`),
		visible(`//h1[.="iSCSI"]`), visible(`//tbody//a[.="db-01"]`))
}

func limits(p *page, n *testNode) {
	p.do("vDisk", to("/vdisks/db-01"), visible(`//button[@aria-label="More actions"]`))
	p.provokes("/api/v1/vdisks/db-01/qos")
	p.do("a limit that is an outage is refused at its field", fromMenu("Limits"),
		fill(`dialog input[name=iops]`, "1"), click(`//dialog//button[.="Save"]`), visible(`dialog input[name=iops][aria-invalid=true]`))
	p.audit("limits with an error")
	p.do("limits", fill(`dialog input[name=iops]`, "5000"), fill(`dialog input[name=rate]`, "100"), fill(`dialog input[name=burst]`, "5"),
		click(`//dialog//button[.="Save"]`), absent(`dialog`), visible(`//dd[.="5000 IOPS, 100 MiB/s, burst 5 s"]`))
	p.provokes("/api/v1/vdisks/db-01/cache")
	p.do("too small a share of the read cache is refused at its field", fromMenu("Read cache"),
		fill(`dialog input[name=quota]`, "1"), click(`//dialog//button[.="Save"]`), visible(`dialog input[name=quota][aria-invalid=true]`))
	p.audit("read cache with an error")
	p.do("a share of the read cache", fill(`dialog input[name=quota]`, "32"), click(`//dialog//button[.="Save"]`),
		absent(`dialog`), visible(`//dd[contains(.,"keeps what is read, at most 32 MiB")]`))
}

// session looks at what a real initiator does.
func session(p *page, url string) {
	ended, ok := signIn(p, url)
	if !ok {
		return
	}
	defer ended()
	p.do("a session in detail", click(`//nav//a[@href="/iscsi"]`), click(`//button[starts-with(@aria-label,"Details of the session of")]`),
		visible(`//dialog//dt[.="Digests"]`), visible(`//dialog//td[contains(.,"db-01")]`))
	p.audit("session")
	p.shot("17-session")
	p.do("closed", click(`dialog button[aria-label=Close]`), absent(`dialog`))
	ended()
}

func changes(p *page, n *testNode) {
	p.do("back to the vDisk", to("/vdisks/db-01"), visible(`//button[.="Connect"]`))
	p.provokes("/api/v1/vdisks/db-01")
	p.do("shrink is refused at its field", click(`//button[.="Grow"]`), fill(`dialog input[name=size]`, "4"),
		click(`//dialog//button[.="Grow"]`), visible(`dialog input[name=size][aria-invalid=true]`))
	p.do("grow", fill(`dialog input[name=size]`, "16"), click(`//dialog//button[.="Grow"]`),
		visible(`//dd[.="16 GiB"]`))
	p.do("rename", fromMenu("Rename"), fill(`dialog input[name=name]`, "db-02"),
		click(`//dialog//button[.="Rename"]`), visible(`//h1[.="db-02"]`))
	p.mayAskLate(http.StatusNotFound, "/api/v1/targets/iqn.2026-11.io.ovgate%3Adefault-db-01")
	p.do("unpublish", fromMenu("Unpublish"), click(`//dialog//button[.="Unpublish"]`),
		visible(`//button[.="Publish"]`), absent(`dialog`))
	p.do("delete asks for the name", fromMenu("Delete"), visible(`dialog input[name=confirm]`))
	p.audit("delete")
	p.shot("10-delete")
	p.do("delete", fill(`dialog input[name=confirm]`, "db-02"), click(`//dialog//button[.="Delete vDisk"]`),
		visible(`//h2[.="No vDisks yet"]`))
	p.audit("no vDisks")
	p.do("the trash has it", click(`//main//button[.="Trash"]`), visible(`//td[.="db-02"]`))
	p.audit("trash")
	p.do("restore under another name", click(`//button[@aria-label="Restore db-02"]`), fill(`dialog input[name=name]`, "db-03"),
		click(`//dialog//button[.="Restore"]`), visible(`//h2[.="Nothing in the trash"]`), absent(`dialog`))
	p.do("it is back", click(`//nav//a[@href="/vdisks"]`), click(`//td//a[.="db-03"]`), visible(`//h1[.="db-03"]`), visible(`//dd[.="16 GiB"]`))
	p.do("delete it again", fromMenu("Delete"), fill(`dialog input[name=confirm]`, "db-03"), click(`//dialog//button[.="Delete vDisk"]`),
		visible(`//h2[.="No vDisks yet"]`))
	p.do("for good", click(`//main//button[.="Trash"]`), click(`//button[@aria-label="Purge db-03"]`), fill(`dialog input[name=confirm]`, "db-03"),
		click(`//dialog//button[.="Delete for good"]`), visible(`//h2[.="Nothing in the trash"]`))
}

func people(p *page) {
	p.do("users", click(`//nav//a[@href="/users"]`), visible(`//td[.="admin (you)"]`))
	p.do("viewer", click(`//button[.="Create user"]`), fill(`dialog input[name=name]`, viewer),
		fill(`dialog input[name=password]`, password), click(`//dialog//button[.="Create"]`),
		visible(`//td[.="viewer"]`), absent(`dialog`))
	p.audit("users")
	p.do("own password keeps the session", click(`button[popovertarget=user-menu]`),
		click(`//button[.="Change password"]`), fill(`dialog input[name=current]`, password),
		fill(`dialog input[name=password]`, password+"!"), click(`//dialog//button[.="Set password"]`),
		visible(`//*[@class="toast"][contains(.,"Password changed")]`), absent(`dialog`),
		visible(`//td[.="admin (you)"]`))
	p.do("token is shown once", click(`//nav//a[@href="/tokens"]`), visible(`//h2[.="No tokens yet"]`),
		click(`//main//button[.="Create token"]`), fill(`dialog input[name=name]`, "backup"),
		click(`//dialog//button[.="Create"]`), visible(`[data-copy=token]`))
	p.audit("new token")
	p.do("tokens", click(`//dialog//button[.="Done"]`), visible(`//td[.="backup"]`))
	p.audit("tokens")
}

// nodes shows the one node there is, which has nowhere to drain to.
func nodes(p *page) {
	p.do("nodes", click(`//nav//a[@href="/nodes"]`), visible(`//h1[.="Nodes"]`), visible(`//td[contains(.,"(this one)")]`))
	p.audit("nodes")
	p.shot("18-nodes")
	p.do("spread over one node", click(`//main//button[.="Spread vDisks"]`), click(`//dialog//button[.="Show what would move"]`), visible(`//dialog//p[@role="status"][starts-with(.,"Nothing has to move")]`),
		absent(`//dialog//button[.="Show what would move"]`))
	bothOver(p, "spread vDisks", "18-spread")
	p.do("closed", click(`//dialog//button[.="Close"]`), absent(`dialog`))
	p.provokes("/drain")
	p.do("drain is refused", click(`//main//button[.="Drain"]`), click(`//dialog//button[.="Drain"]`), visible(`//dialog//*[contains(.,"No other node is up")]`))
	p.audit("drain refused")
	p.do("never mind", click(`//dialog//button[.="Cancel"]`), absent(`dialog`))
	dir := p.t.TempDir()
	p.do("backup of the metadata", saveTo(dir), click(`//main//button[.="Back up metadata"]`), arrives(dir, "ovgate-metadata-*.gz"), visible(`//main//button[.="Back up metadata"]`))
	p.do("support bundle", saveTo(dir), click(`//main//button[.="Support bundle"]`), arrives(dir, "ovgate-support-*.tar.gz"), visible(`//main//button[.="Support bundle"]`))
}

func themes(p *page) {
	p.do("overview live", click(`//nav//a[@href="/"]`), visible(`.uplot`), visible(`//p[.="Nothing runs."]`), visible(`//section[.//h2[.="Recent events"]]//li[@class="recent"]`), until(`document.fonts.status === "loaded"`))
	p.audit("overview light")
	p.shot("11-overview-light")
	p.do("user menu", click(`button[popovertarget=user-menu]`), visible(`#user-menu`))
	p.audit("user menu")
	p.do("dark", click(`//div[@id="user-menu"]//label[.="Dark"]`),
		until(`document.documentElement.dataset.theme === "dark"`), chromedp.KeyEvent("\x1b"))
	p.audit("overview dark")
	p.shot("12-overview-dark")
	p.do("phone", chromedp.EmulateViewport(390, 844),
		until(`document.documentElement.scrollWidth <= 390 && document.querySelector(".uplot").clientWidth < 390`))
	p.audit("phone, overview, dark")
	p.shot("13-phone")
	p.do("phone vDisks", click(`//nav//a[@href="/vdisks"]`), visible(`//h2[.="No vDisks yet"]`))
	p.audit("phone, vDisks, dark")
	p.do("wide again", chromedp.EmulateViewport(1440, 900))
}

func signOutAndIn(p *page, n *testNode) {
	p.do("sign out", click(`button[popovertarget=user-menu]`), click(`//button[.="Sign out"]`),
		visible(`//h1[.="Sign in"]`))
	p.audit("sign-in")
	p.provokes("/api/v1/session")
	p.do("wrong password", fill(`input[name=user]`, viewer), fill(`input[name=password]`, "not the password"),
		click(`//button[.="Sign in"]`), visible(`[role=alert]`))
	p.do("viewer signs in", fill(`input[name=password]`, password), click(`//button[.="Sign in"]`),
		visible(`//h1[.="vDisks"]`))
	p.do("what the role does not allow is disabled with the reason",
		visible(`//button[.="Create vDisk"][@aria-disabled="true"][contains(@title,"Needs role write")]`),
		absent(`//nav//a[@href="/users"]`))
	p.audit("vDisks as a viewer")
	p.shot("14-viewer")
	p.do("the object side too",
		click(`//nav//a[@href="/backends"]`), visible(`//button[.="Register backend"][@aria-disabled="true"][contains(@title,"Needs role manage")]`),
		click(`//nav//a[@href="/disks"]`), visible(`//button[.="Claim device"][@aria-disabled="true"][contains(@title,"Needs role manage")]`),
		click(`//nav//a[@href="/alba"]`), visible(`//main//button[.="Claim device"][@aria-disabled="true"]`))
	p.audit("object store as a viewer")
	p.do("theme is kept", chromedp.Navigate(n.url+"/vpools"), visible(`//tbody//a[.="default"]`),
		until(`document.documentElement.dataset.theme === "dark"`))
}

// initiator finds a real initiator; ok is false where there is none.
func initiator(p *page) (path string, ok bool) {
	qemuIO, err := exec.LookPath("qemu-io")
	if err == nil {
		return qemuIO, true
	}
	if os.Getenv("CI") != "" || os.Getenv("E2E") == "required" {
		p.t.Fatal("no qemu-io in PATH: run scripts/setup.sh, or apt-get install qemu-utils qemu-block-extra")
	}
	p.t.Log("no qemu-io in PATH: the arrival of an initiator is not tested")
	return "", false
}

// signIn has a real initiator write, read and stay; ok is false where there is none.
func signIn(p *page, url string) (ended func(), ok bool) {
	qemuIO, ok := initiator(p)
	if !ok {
		return nil, false
	}
	host := exec.CommandContext(p.ctx, qemuIO, "-f", "raw", "-c", "write -P 0x5a 0 64k", "-c", "read -P 0x5a 0 64k",
		"-c", "sleep 30000", url)
	var said bytes.Buffer
	host.Stdout, host.Stderr = &said, &said
	if err := host.Start(); err != nil {
		p.t.Fatal(err)
	}
	return sync.OnceFunc(func() {
		_ = host.Process.Kill()
		_ = host.Wait()
		p.t.Logf("qemu-io: %s", said.String())
	}), true
}

// arrive signs a real initiator in and out again and watches the panel follow.
func arrive(p *page, url string) {
	ended, ok := signIn(p, url)
	if !ok {
		return
	}
	defer ended()
	p.do("an initiator arrives", visible(`//dialog//b[starts-with(.,"Connected: 1 session")]`))
	p.audit("connected")
	p.shot("06-connected")
	ended()
	p.do("the initiator leaves", visible(`//dialog//b[.="Waiting for an initiator"]`))
}
