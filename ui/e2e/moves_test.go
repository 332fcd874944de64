package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestMoves says where the journal of a vDisk is copied, takes the vDisk to another vPool, and stops a move that cannot go on.
func TestMoves(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	dirs := map[string]string{"gold": filepath.Join(t.TempDir(), "gold"), "silver": filepath.Join(t.TempDir(), "silver"), "bronze": filepath.Join(t.TempDir(), "bronze")}
	for name, dir := range dirs {
		n.call(http.MethodPost, "/vpools", map[string]any{"name": name, "backend": map[string]any{"kind": "local", "path": dir}}, nil)
	}
	n.call(http.MethodPost, "/vdisks", map[string]any{"name": "db", "vpool": "gold", "size": 1 << 30}, nil)
	p := openPage(t)
	p.do("signed in", signedIn(n, admin), chromedp.Navigate(n.url+"/vdisks/db"), visible(`//h1[.="db"]`), visible(`//dd//a[.="gold"]`))

	p.do("journal copy", fromMenu("Journal copy"), visible(`dialog select[name=peer]`), until(`document.querySelector("dialog select[name=mode]").value === "inherit"`))
	bothOver(p, "journal copy", "95-journal-copy")
	p.do("off", choose(`dialog select[name=mode]`, "off"), click(`//dialog//button[.="Save"]`), absent(`dialog`), visible(`//dt[.="Journal mirrored"]/following-sibling::dd[1][contains(.,"off")]`),
		fromMenu("Journal copy"), until(`document.querySelector("dialog select[name=mode]")?.value === "off"`), click(`//dialog//button[.="Cancel"]`), absent(`dialog`))

	p.do("a vPool has to be chosen", fromMenu("Change vPool"), visible(`dialog select[name=vpool]`), click(`//dialog//button[.="Move"]`), visible(`dialog select[name=vpool][aria-invalid=true]`))
	bothOver(p, "change vPool", "96-change-vpool")
	p.do("it moves", choose(`dialog select[name=vpool]`, "silver"), click(`//dialog//button[.="Move"]`), absent(`dialog`), visible(`//dd//a[.="silver"]`))

	away := dirs["bronze"] + ".away"
	if err := os.Rename(dirs["bronze"], away); err != nil {
		t.Fatal(err)
	}
	p.do("one that cannot go on", fromMenu("Change vPool"), choose(`dialog select[name=vpool]`, "bronze"), click(`//dialog//button[.="Move"]`), absent(`dialog`),
		visible(`//dt[.="Moves to"]/following-sibling::dd[1][contains(.,"bronze")]`))
	p.audit("a move")
	p.shot("97-move")
	p.do("stop it", click(`//button[@aria-label="Stop the move of db"]`), visible(`//dialog//li[contains(.,"stays in vPool silver")]`))
	p.audit("stop a move")
	p.do("it stays", click(`//dialog//button[.="Stop the move"]`), absent(`dialog`), absent(`//dt[.="Moves to"]`), visible(`//dd//a[.="silver"]`))
	if err := os.RemoveAll(dirs["bronze"]); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(away, dirs["bronze"]); err != nil {
		t.Fatal(err)
	}
	care(p, n)
	p.noConsoleErrors()
}

// care has the key of a vPool kept, and its garbage looked for, deleted, and not deleted when something is there that nobody can explain.
func care(p *page, n *testNode) {
	dir := filepath.Join(p.t.TempDir(), "sealed")
	n.call(http.MethodPost, "/vpools", map[string]any{"name": "sealed", "encrypt": true, "backend": map[string]any{"kind": "local", "path": dir}}, nil)
	p.do("a key", to("/vpools/sealed"), click(`//button[.="Keep the key"]`), click(`//dialog//button[.="Show the key"]`), visible(`[data-copy=vpoolKey]`))
	bothOver(p, "key of a vPool", "97-key")
	p.do("what is garbage", click(`//dialog//button[.="Done"]`), absent(`dialog`), visible(`//p[.="This node made none since it started."]`), click(`//button[.="Look for garbage"]`), visible(`//dd[.="nothing: it only looked"]`))
	both(p, "garbage of a vPool", "98-garbage")
	p.do("a sweep", click(`//main//button[.="Sweep"][not(@aria-disabled)]`), visible(`//dialog//li[contains(.,"Hosts notice nothing")]`))
	p.audit("sweep")
	p.do("it deletes nothing", click(`//dialog//button[.="Sweep"]`), absent(`dialog`), visible(`//dd[.="0 objects"]`))
	if err := os.WriteFile(filepath.Join(dir, "objects", "stray"), []byte("stray"), 0o600); err != nil {
		p.t.Fatal(err)
	}
	p.do("what nobody can explain ends it", click(`//button[.="Look for garbage"][not(@aria-disabled)]`), visible(`//main//*[contains(@class,"notice")][contains(.,"stray")]`))
	p.audit("sweep that failed")
	p.shot("98-garbage-failed")
}
