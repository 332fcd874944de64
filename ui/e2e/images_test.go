package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"
)

// chosen gives the page's field for a file one that is made there: its first and third MiB are marked, the second is zeros, and
// what follows is less than a sector.
func chosen(name, head string) chromedp.Action[chromedp.Void] {
	return chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`{
		const content = new Uint8Array(3 * 2 ** 20 + 100);
		content.fill(7, 0, 2 ** 20);
		content.fill(9, 2 * 2 ** 20);
		content.set(Uint8Array.from(%q, (c) => c.charCodeAt(0)));
		const list = new DataTransfer(), field = document.querySelector("dialog input[type=file]");
		list.items.add(new File([content], %q));
		field.files = list.files;
		field.dispatchEvent(new Event("change", {bubbles: true}));
	}`, head, name))
}

// TestImages makes a vDisk of an image and an image of a vDisk.
func TestImages(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	n.call(http.MethodPost, "/vpools", map[string]any{"name": "gold", "backend": map[string]any{"kind": "local", "path": filepath.Join(t.TempDir(), "gold")}}, nil)
	n.call(http.MethodPost, "/vdisks", map[string]any{"name": "large", "vpool": "gold", "size": 8 << 30}, nil)
	p := openPage(t)
	p.do("signed in", signedIn(n, admin), chromedp.Navigate(n.url+"/vdisks"), visible(`//td//a[.="large"]`))
	p.do("no file", click(`//main//button[.="Import image"]`), visible(`//dialog//option[.="gold"]/..`), fill(`dialog input[name=name]`, "disk"), click(`//dialog//button[.="Import"]`), visible(`dialog input[type=file][aria-invalid=true]`))
	bothOver(p, "import an image, refused", "99-import")
	p.do("qcow2 is not taken for raw", chosen("disk.qcow2", "QFI\xfb"), click(`//dialog//button[.="Import"]`), visible(`//dialog//*[@role="alert"][starts-with(.,"It is a qcow2 image")]`))
	p.provokes("/imports")
	p.do("a bad name is refused at its field", chosen("disk.raw", "raw"), fill(`dialog input[name=name]`, "no spaces"), click(`//dialog//button[.="Import"]`), visible(`dialog input[name=name][aria-invalid=true]`))
	p.do("one that is held on its way", chromedp.Evaluate[chromedp.Void](`{
		const real = window.fetch, go = Promise.withResolvers();
		window.release = () => { window.fetch = real; go.resolve() };
		window.fetch = (path, ...rest) => String(path).includes("/data?") ? go.promise.then(() => real(path, ...rest)) : real(path, ...rest);
	}`), fill(`dialog input[name=name]`, "disk"), click(`//dialog//button[.="Import"]`), visible(`//dialog//b[.="Sending disk.raw"]`))
	bothOver(p, "image on its way", "99-sending")
	p.do("is not left by a slip", chromedp.KeyEvent("\x1b"), visible(`//*[@class="toast"][contains(.,"Stop it first")]`), visible(`//dialog//button[.="Stop"]`))
	p.do("is stopped", click(`//dialog//button[.="Stop"]`), chromedp.Evaluate[chromedp.Void](`window.release()`), visible(`//dialog//*[@role="alert"][contains(.,"It was stopped")]`))
	p.do("and sent again", chosen("disk.raw", "raw"), click(`//dialog//button[.="Import"]`), absent(`dialog`), visible(`//h1[.="disk"]`))

	dir := t.TempDir()
	p.do("an image of it", fromMenu("Export"), visible(`//dialog//option[.="Now"]/..`))
	bothOver(p, "export an image", "99-export")
	p.do("arrives", saveTo(dir), click(`//dialog//button[.="Export"]`), arrives(dir, "disk.raw"), absent(`dialog`))
	want := make([]byte, 3<<20+64<<10) // whole clusters
	copy(want, bytes.Repeat([]byte{7}, 1<<20))
	copy(want[2<<20:], bytes.Repeat([]byte{9}, 1<<20+100))
	copy(want, "raw")
	if got, err := os.ReadFile(filepath.Join(dir, "disk.raw")); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the image has %d bytes, want %d with other content (%v)", len(got), len(want), err)
	}
	p.do("one that no browser saves", to("/vdisks/large"), fromMenu("Export"), visible(`//dialog//button[.="Export"][@aria-disabled="true"][contains(@title,"8 GiB")]`))
	p.audit("vDisk that is too large for a browser")
	p.noConsoleErrors()
}
