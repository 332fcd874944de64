package e2e

import (
	"encoding/csv"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestPerformance puts two vDisks with real I/O side by side: finds them, points at a moment, compares with the day before,
// saves what is shown, and has the same again from the link that shares it.
func TestPerformance(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	n.call(http.MethodPost, "/vpools", map[string]any{"name": "gold", "backend": map[string]any{"kind": "local", "path": filepath.Join(t.TempDir(), "backend")}}, nil)
	urls := map[string]string{}
	for _, name := range []string{"db-01", "db-02", "idle"} {
		n.call(http.MethodPost, "/vdisks", map[string]any{"name": name, "vpool": "gold", "size": 1 << 30}, nil)
		var published struct{ Commands struct{ Libiscsi string } }
		n.call(http.MethodPost, "/vdisks/"+name+"/publish", map[string]any{"open": true}, &published)
		urls[name] = published.Commands.Libiscsi
	}
	p := openPage(t)
	p.do("signed in", signedIn(n, admin), chromedp.Navigate(n.url+"/"), visible(`nav.side`))
	p.do("nothing is chosen", click(`//nav//a[@href="/performance"]`), visible(`//h2[.="Nothing chosen yet"]`), visible(`//button[.="The 3 busiest vDisks"]`))
	p.audit("performance, nothing chosen")
	p.shot("95-performance-empty")
	p.do("a search", click(`//main//div[@class="page-head"]//button[.="Add object"]`), fill(`dialog input`, "db-0"), visible(`//dialog//*[@role="option"][contains(.,"db-02")]`), absent(`//dialog//*[@role="option"][contains(.,"idle")]`))
	p.audit("performance, a search")
	p.shot("96-performance-search")
	p.do("one is added", click(`//dialog//*[@role="option"][contains(.,"db-01")]`), absent(`dialog`), visible(`//ul[@aria-label="Objects shown"]//a[.="db-01"]`))
	p.do("another one", click(`//main//div[@class="page-head"]//button[.="Add object"]`), fill(`dialog input`, "db-02"), click(`//dialog//*[@role="option"][contains(.,"db-02")]`), absent(`dialog`),
		until(`/^vdisk:db-01~[0-9a-f-]{36},vdisk:db-02~[0-9a-f-]{36}$/.test(new URLSearchParams(location.search).get("objects"))`))
	for _, id := range []string{"IOPS", "Throughput", "Read p99", "Write p99"} {
		p.do("chart "+id, visible(`//*[@role="img"][starts-with(@aria-label,"`+id+`, last two minutes: db-01 ")][contains(@aria-label,", db-02 ")]//canvas`))
	}
	// A second of reads and one of writes, until the node's history has them.
	for _, name := range []string{"db-01", "db-02"} {
		if !p.io(urls[name], "write -P 1 0 1M", "write -P 2 1M 64k", "read 0 1M", "read 1M 64k") {
			t.Skip("without an initiator there is nothing to see")
		}
	}
	p.do("its commands are in the picture", click(`//button[.="10 min"]`), visible(`//*[@role="img"][starts-with(@aria-label,"Latency of reads and writes of db-01, last ten minutes: half of the commands below ")]//canvas`))
	p.do("of reads alone, of the other one", choose(`select[aria-label="Commands of the heatmap"]`, "reads"), choose(`select[aria-label="Object of the heatmap"]`, "vdisk:db-02"),
		visible(`//*[@role="img"][starts-with(@aria-label,"Latency of reads of db-02, last ten minutes: half of the commands below ")]//canvas`))
	p.do("as a table", activate(`button[aria-label="Latency heatmap as table"]`), visible(`//*[contains(@aria-label,", as table")]//tbody//td[contains(.," %")]`))
	p.audit("heatmap as a table")
	p.do("as a picture", activate(`button[aria-label="Latency heatmap as chart"]`), visible(`.heat canvas`))
	p.do("compared", click(`//button[.="Compare with a day earlier"]`), until(`new URLSearchParams(location.search).get("compare") === "day"`),
		visible(`//*[@role="img"][contains(@aria-label,"db-01, a day earlier")]//canvas`))
	// The same crosshair is in each picture.
	// Until they are drawn anew, with more lines, there is nothing to point at.
	p.do("the crosshair", until(`(() => {
		const over = document.querySelector(".u-over"), box = over?.getBoundingClientRect();
		over?.dispatchEvent(new MouseEvent("mousemove", {bubbles: true, clientX: box.left + box.width * 0.99, clientY: box.top + 20}));
		const at = [...document.querySelectorAll(".u-cursor-x")].map((e) => e.style.transform);
		return at.length === 5 && at[0].includes("px") && !at[0].includes("-10") && at.every((x) => x === at[0]);
	})()`))
	p.audit("performance, compared")
	p.shot("97-performance")
	address, err := chromedp.Run(p.ctx, chromedp.Evaluate[string](`location.pathname + location.search`))
	if err != nil {
		t.Fatal(err)
	}
	for _, width := range []int64{390, 1440} {
		for _, theme := range []string{"dark", "light"} {
			at := fmt.Sprintf("%s-%d", theme, width)
			p.do(at, chromedp.EmulateViewport(width, 900), chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`localStorage.setItem("ovgate.theme", %q)`, theme)), chromedp.Navigate(n.url+address),
				until(`document.documentElement.dataset.theme === "`+theme+`" && document.querySelectorAll(".uplot").length === 5`), until(`document.documentElement.scrollWidth <= innerWidth`))
			p.audit("performance, " + at)
			p.shot("98-performance-" + at)
			p.do("the heatmap, "+at, chromedp.Evaluate[chromedp.Void](`document.querySelector(".heat").scrollIntoView({block: "center"})`))
			p.shot("98-performance-heatmap-" + at)
		}
	}

	p.do("shared", click(`//button[.="Share"]`), visible(`dialog [data-copy=link]`))
	p.audit("performance, shared")
	link := strings.TrimSpace(p.text(`dialog [data-copy=link]`))
	u, err := url.Parse(link)
	if err != nil || u.Query().Get("until") == "" || !strings.HasPrefix(u.Query().Get("objects"), "vdisk:db-01~") || !strings.Contains(u.Query().Get("objects"), ",vdisk:db-02~") {
		t.Fatalf("the link is %q: %v", link, err)
	}
	first, again := t.TempDir(), t.TempDir()
	whole := `//*[@role="img"][starts-with(@aria-label,"IOPS, ten minutes until ")][contains(@aria-label,"db-02, a day earlier")]//canvas`
	heat := `//*[@role="img"][starts-with(@aria-label,"Latency of reads of db-02, ten minutes until ")]//canvas`
	p.do("the link", saveTo(first), chromedp.Navigate(link), visible(whole), visible(heat))
	p.do("saved", click(`//button[.="Save as CSV"][not(@aria-disabled)]`), arrives(first, "ovgate-performance-*.csv"))
	p.do("the link again", saveTo(again), chromedp.Navigate(link), visible(whole), visible(heat))
	p.do("saved again", click(`//button[.="Save as CSV"][not(@aria-disabled)]`), arrives(again, "ovgate-performance-*.csv"))
	one, two := readCSV(t, first), readCSV(t, again)
	if !slices.EqualFunc(one, two, slices.Equal) {
		t.Errorf("the link shows something else: %d rows and %d; %v and %v", len(one), len(two), one[0], two[0])
	}
	for _, title := range []string{"Time (UTC)", "vdisk db-01: IOPS (1/s)", "vdisk db-02: IOPS (1/s)", "vdisk db-01, a day earlier: Throughput (B/s)", "vdisk db-02: Read p99 (µs)"} {
		if !slices.Contains(one[0], title) {
			t.Errorf("no column %q in %q", title, one[0])
		}
	}
	if !slices.ContainsFunc(one[0], func(title string) bool {
		return strings.HasPrefix(title, "vdisk db-02: Reads of ") && strings.HasSuffix(title, "(1/s)")
	}) {
		t.Errorf("no column of the heatmap in %q", one[0])
	}
	did := map[string]float64{}
	for _, row := range one[1:] {
		if !strings.HasSuffix(row[0], "Z") {
			t.Fatalf("a time %q", row[0])
		}
		for i, title := range one[0] {
			if v, err := strconv.ParseFloat(row[i], 64); err == nil {
				did[title] += v
			}
		}
	}
	if did["vdisk db-01: IOPS (1/s)"] == 0 || did["vdisk db-02: Read throughput (B/s)"] != 0 || did["vdisk db-02: Throughput (B/s)"] < 1<<20 {
		t.Errorf("what was done: %v", did)
	}

	p.do("another time", click(`//button[.="Earlier"]`), until(`new URLSearchParams(location.search).get("until") !== null`), click(`//button[.="Now"]`), until(`new URLSearchParams(location.search).get("until") === null`))
	p.do("other metrics", click(`//*[@aria-label="Metrics shown"]//button[.="Journal"]`), visible(`//*[@role="img"][starts-with(@aria-label,"Journal, ")]//canvas`), click(`//*[@aria-label="Metrics shown"]//button[.="IOPS"]`), absent(`//figure//h2[.="IOPS"]`))
	p.do("from a vPool", to("/vpools/gold"), activate(`//a[.="Compare…"]`), visible(`//ul[@aria-label="Objects shown"]//a[.="gold"]`), visible(`//*[@role="img"][starts-with(@aria-label,"IOPS, last two minutes: gold ")]//canvas`))
	p.provokes("/vdisks/nosuch")
	p.do("one that is not there", to("/performance?objects=vdisk:db-01,vdisk:nosuch"), visible(`//*[contains(@class,"notice")][contains(.,"vDisk nosuch is not there")]`), visible(`//*[@role="img"][starts-with(@aria-label,"IOPS, ")]//canvas`))
	p.audit("performance, one is gone")
	p.shot("99-performance-gone")
	p.do("is taken away", activate(`//button[.="Take it away"]`), absent(`//*[contains(@class,"notice")]`), until(`/^vdisk:db-01(~[0-9a-f-]{36})?$/.test(new URLSearchParams(location.search).get("objects"))`))
	p.do("an address that is kept has ids", until(`/^vdisk:db-01~[0-9a-f-]{36}$/.test(new URLSearchParams(location.search).get("objects"))`))
	n.call(http.MethodPatch, "/vdisks/db-02", map[string]any{"name": "db-two"}, nil)
	p.do("a link from before a vDisk was renamed", to(u.RequestURI()), visible(`//ul[@aria-label="Objects shown"]//a[.="db-two"][@href="/vdisks/db-two"]`), visible(`//*[@role="img"][starts-with(@aria-label,"IOPS, ")][contains(@aria-label,", db-two ")]//canvas`))
	p.noConsoleErrors()
}

// activate clicks the first of what a selector finds wherever it is by then: what is still being drawn above it may move it.
func activate(selector string) chromedp.Action[chromedp.Void] {
	return settled(found(selector) + `.then((e) => { e.click(); return true })`)
}

// performanceOfNodes puts parts of several nodes side by side, of which one ends.
func performanceOfNodes(p *page, beta *testNode) {
	p.do("a part of another node", to("/performance"), click(`//main//div[@class="page-head"]//button[.="Add object"]`), fill(`dialog input`, "gold"),
		click(`//dialog//*[@role="option"][contains(.,"gold at beta")]`), absent(`dialog`), visible(`//ul[@aria-label="Objects shown"]//a[.="gold at beta"]`))
	p.do("nodes, a vPool and a backend", to("/performance?range=1h&objects=node:alpha,node:beta,vpool:gold@beta,backend:store@alpha"),
		visible(`//*[@role="img"][starts-with(@aria-label,"IOPS, last hour: alpha ")][contains(@aria-label,", beta ")][contains(@aria-label,", gold at beta ")][contains(@aria-label,", store at alpha ")][not(contains(@aria-label,"–"))]//canvas`))
	p.audit("performance of nodes")
	p.shot("99-performance-nodes")
	for _, status := range []int{409, 503} { // until it is back, it is asked for what it did again and again
		p.mayAskLate(status, "/performance")
	}
	beta.stop()
	p.do("one is down", visible(`//*[contains(@class,"notice")][contains(.,"Node beta.")][contains(.,"is known to that node alone, which does not answer")]`), visible(`//*[@role="img"][starts-with(@aria-label,"IOPS, last hour: alpha ")]//canvas`))
	p.audit("performance of a node that is down")
	p.shot("99-performance-node-down")
}

// readCSV reads the file in a folder.
func readCSV(t *testing.T, dir string) [][]string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "ovgate-performance-*.csv"))
	if err != nil || len(found) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	b, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), "\r\n") {
		t.Error("lines do not end as RFC 4180 says")
	}
	rows, err := csv.NewReader(strings.NewReader(string(b))).ReadAll()
	if err != nil || len(rows) < 2 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	return rows
}
