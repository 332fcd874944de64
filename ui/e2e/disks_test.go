package e2e

import (
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/openvstorage/ovgate/gateway/asdnode"
	"github.com/openvstorage/ovgate/gateway/disk/disktest"
)

// probeLimit bounds how long the node, which looks at each device every 10 s, takes to see that one is gone.
const probeLimit = time.Minute

// TestReplaceDisk makes an object store of directories, writes to it, and replaces a device that works and one
// whose directory is gone, as an administrator does after a disk failed.
func TestReplaceDisk(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	p := openPage(t)
	p.do("signed in", signedIn(n, admin), chromedp.Navigate(n.url+"/"), visible(`nav.side`))
	p.do("no devices yet", click(`//nav//a[@href="/disks"]`), visible(`//h2[.="No devices yet"]`),
		visible(`//h2[.="Disks of this node"]`))
	p.audit("no devices")
	p.shot("20-no-devices")

	p.do("a vPool makes the object store", to("/vpools/new"), visible(`dialog input[name=preset]`),
		fill(`dialog input[name=name]`, "fast"), click(`//dialog//button[.="Create"]`), visible(`//h1[.="fast"]`))
	p.do("its devices", click(`//nav//a[@href="/disks"]`), visible(`//td//a[.="Device 6"]`))
	p.audit("devices")
	p.shot("21-devices")

	place := filepath.Join(t.TempDir(), "disk7")
	p.do("claim dialog", click(`//main//button[.="Claim device"]`), visible(`dialog input[name=directory]`))
	p.audit("claim")
	p.provokes("/api/v1/osds")
	p.do("what is no path from the root is refused with the reason", fill(`dialog input[name=directory]`, "relative"),
		click(`//dialog//button[.="Claim"]`), visible(`//dialog//*[@role="alert"][contains(.,"name it from the root")]`))
	p.audit("claim refused")
	p.do("what is no size is not taken for none", fill(`dialog input[name=directory]`, place), fill(`dialog input[name=capacity]`, "much"),
		click(`//dialog//button[.="Claim"]`), visible(`dialog input[name=capacity][aria-invalid=true]`))
	p.do("claim", fill(`dialog input[name=directory]`, place), fill(`dialog input[name=capacity]`, "10"),
		click(`//dialog//button[.="Claim"]`), visible(`//h1[.="Device 7"]`), absent(`dialog`))
	p.audit("device")
	p.shot("22-device")
	p.do("verify it", click(`//main//button[.="Verify"]`),
		visible(`//*[@class="toast"][contains(.,"Device 7 is being verified")]`), visible(`//b[.="Verify device 7"]`))

	p.provokes("/api/v1/osds/7")
	p.do("a move to no path from the root is refused", fromMenu("Move"), fill(`dialog input[name=place]`, "elsewhere"),
		click(`//dialog//button[.="Save"]`), visible(`//dialog//*[@role="alert"][contains(.,"a directory from the root")]`))
	p.audit("move refused")
	p.do("replace one that works", to("/disks/2"), visible(`//h1[.="Device 2"]`),
		click(`//main//a[.="Replace"]`), visible(`//h1[.="Replace device 2"]`),
		visible(`//b[starts-with(.,"Device 2 works")]`))
	p.audit("replace")
	p.shot("23-replace")
	p.provokes("/api/v1/osds/2/replace")
	p.do("by a device in use is refused", fill(`input[name=directory]`, place), click(`//button[.="Claim it and empty device 2"]`),
		visible(`//form//*[@role="alert"][contains(.,"name another one")]`))
	p.audit("replace refused")
	for range 2 { // it leaves, and is asked for once more, or twice when a read was under way
		p.provokes("/api/v1/osds/2")
		p.provokes("/api/v1/osds/3")
	}
	p.do("by a new one", fill(`input[name=directory]`, filepath.Join(t.TempDir(), "disk8")), fill(`input[name=capacity]`, "10"),
		click(`//button[.="Claim it and empty device 2"]`), until(`location.search === "?new=8"`))
	p.do("it leaves", visible(`//b[.="Device 2 has left the object store"]`), visible(`//a[.="Device 8 is in its place"]`),
		visible(`//b[.="Replace device 2 with device 8"]`))
	p.audit("replaced")
	p.shot("24-replaced")
	p.do("the new one says what it came for", click(`//main//a[.="Device 8 is in its place"]`), visible(`//h1[.="Device 8"]`), visible(`//dd[.="device 2"]`))

	if err := os.RemoveAll(filepath.Join(n.dir, "asd", "3")); err != nil {
		t.Fatal(err)
	}
	p.within(probeLimit, "a device that is gone says so", chromedp.Navigate(n.url+"/disks/3"), visible(`//b[starts-with(.,"It does not work")]`))
	p.audit("failed device")
	p.shot("25-failed")
	p.do("giving it up asks for its number", fromMenu("Give up"), visible(`dialog input[name=confirm]`),
		visible(`//dialog//button[.="Give it up"][@aria-disabled="true"]`))
	p.audit("give up")
	p.shot("26-give-up")
	p.do("never mind", click(`//dialog//button[.="Cancel"]`), absent(`dialog`))
	p.within(probeLimit, "the overview says so, and leads to the replacement", click(`//nav//a[@href="/"]`), visible(`//main//a[.="Replace disk"]`))
	p.audit("overview with a failed device")
	p.shot("29-cause")
	p.do("replace it", click(`//main//a[.="Replace disk"]`), visible(`//h1[.="Replace device 3"]`), fill(`input[name=directory]`, filepath.Join(t.TempDir(), "disk9")), fill(`input[name=capacity]`, "10"),
		click(`//button[.="Claim it and empty device 3"]`), visible(`//b[.="Device 3 has left the object store"]`))
	layoutOfDisks(p)
	domainOfMachine(p, n)
	p.do("dark", to("/disks"), visible(`//td//a[.="Device 9"]`), absent(`//td//a[.="Device 3"]`),
		click(`button[popovertarget=user-menu]`), visible(`#user-menu`), click(`//div[@id="user-menu"]//label[.="Dark"]`),
		until(`document.documentElement.dataset.theme === "dark"`), chromedp.KeyEvent("\x1b"))
	p.audit("devices, dark")
	p.shot("27-devices-dark")
	p.do("phone", chromedp.EmulateViewport(390, 844), until(`document.documentElement.scrollWidth <= 390`))
	p.audit("devices, phone")
	p.shot("28-devices-phone")
	p.noConsoleErrors()
}

// layoutOfDisks gives a disk that came meanwhile its role: it is proposed, changed, changed back and made a device by a task
// that is found again when the page is loaded anew.
func layoutOfDisks(p *page) {
	dev := disktest.Loop(p.t, 2<<30)
	name := filepath.Base(dev)
	row := `//tr[.//span[.="` + dev + `"]]`
	p.do("a blank disk takes root", to("/setup"), visible(`//h1[.="Set up"]`), visible(row+`//span[contains(.,"Needs root")]`), visible(`[data-copy=commands]`))
	if commands := p.text(`[data-copy=commands]`); !strings.Contains(commands, "mkfs.xfs "+dev+" && mkdir -p /srv/ovgate/"+name) {
		p.t.Errorf("commands:\n%s", commands)
	}
	both(p, "layout with a blank disk", "29-layout-blank")
	p.do("another role", choose(`select[aria-label="What `+name+` is for"]`, "write,read"), visible(`[data-copy=config]`), until(`location.search.includes("roles=")`))
	if config := p.text(`[data-copy=config]`); !strings.Contains(config, `write_disks:`) || !strings.Contains(config, "/srv/ovgate/"+name+"/read") {
		p.t.Errorf("configuration:\n%s", config)
	}
	dir, err := os.MkdirTemp("/mnt", "ovgate-e2e-")
	if err != nil {
		p.t.Fatal(err)
	}
	for _, c := range [][]string{{"mkfs.ext4", "-q", dev}, {"mount", dev, dir}} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			p.t.Fatalf("%v: %v: %s", c, err, out)
		}
	}
	p.t.Cleanup(func() { // after the node has stopped, which is what was registered before
		_ = exec.Command("umount", "--lazy", dir).Run()
		_ = os.Remove(dir)
	})
	p.do("mounted, it is seen by itself; for the object store it is ready", choose(`select[aria-label="What `+name+` is for"]`, "alba"), absent(`[data-copy=commands]`), absent(`[data-copy=config]`),
		visible(row+`//span[contains(.,"Ready")]`), visible(`//main//button[.="Make 1 device"]`))
	both(p, "layout with a disk that is ready", "29-layout-ready")
	p.do("it becomes a device", click(`//main//button[.="Make 1 device"]`), visible(`//b[.="Make devices of its disks"]`), visible(row+`//span[contains(.,"In use")]`))
	p.do("and is one when the page is loaded anew", chromedp.Reload(), visible(row+`//span[contains(.,"In use")]`), absent(`//main//button[.="Make 1 device"]`))
	p.audit("layout applied")
	p.do("phone", chromedp.EmulateViewport(390, 844), until(`document.documentElement.scrollWidth <= 390`))
	p.audit("layout, phone")
	p.shot("29-layout-phone")
	p.do("back to the desk", chromedp.EmulateViewport(1440, 900))
}

// domainOfMachine moves a machine that is no node to another domain.
func domainOfMachine(p *page, n *testNode) {
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	ended := make(chan error, 1)
	dir := p.t.TempDir()
	go func() {
		err := asdnode.Run(ctx, asdnode.RunOptions{Dir: dir, Listen: "127.0.0.1:0", Capacity: 1 << 30, Stdout: w, Stderr: io.Discard})
		_ = w.CloseWithError(err)
		ended <- err
	}()
	p.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			p.t.Error(err)
		}
	})
	var said asdnode.Announcement
	text, ok := "", false
	for b := make([]byte, 4096); !ok; said, ok = asdnode.ParseAnnouncement(text) {
		got, err := r.Read(b)
		if err != nil {
			p.t.Fatalf("the ASD does not start: %v", err)
		}
		text += string(b[:got])
	}
	n.call(http.MethodPost, "/osds", map[string]any{"address": said.Address, "fingerprint": said.Fingerprint, "accessKey": readLine(p.t, said.KeyFile), "node": "storage1", "domain": "room1"}, nil)
	p.do("domains", click(`//nav//a[@href="/domains"]`), visible(`//h1[.="Domains"]`), visible(`//td//a[.="not said"]`))
	p.do("that of a machine", click(`//td//a[.="room1"]`), visible(`//h1[.="room1"]`), click(`//button[@aria-label="Change domain of storage1"]`), visible(`dialog input[name=domain]`))
	bothOver(p, "domain of a machine", "29-domain")
	p.provokes("/api/v1/osds/11")
	p.do("a bad name is refused", fill(`dialog input[name=domain]`, "a room"), click(`//dialog//button[.="Save"]`), visible(`//dialog//*[@role="alert"][contains(.,"use 1 to 63 letters")]`))
	p.mayAskLate(http.StatusNotFound, "/api/v1/domains/room1")
	p.mayAskLate(http.StatusNotFound, "/api/v1/domains/room1/vdisks")
	p.do("it is in another one", fill(`dialog input[name=domain]`, "room2"), click(`//dialog//button[.="Save"]`), absent(`dialog`), visible(`//h1[.="room2"]`), visible(`//button[@aria-label="Change domain of storage1"]`), to("/domains"), visible(`//td//a[.="room2"]`), absent(`//td//a[.="room1"]`))
}
