package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/openvstorage/ovgate/integrations/cinder"
	"github.com/openvstorage/ovgate/integrations/vsphere/esxsim"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote/remotetest"
)

// walkLimit bounds the walk in both themes and widths.
const walkLimit = 30 * time.Minute

// routePattern finds the addresses of the console's router.
var routePattern = regexp.MustCompile(`(?m)^\s*\["(/[^"]*)",`)

// fullMatrix tells that everything is looked at in both themes and widths, which takes minutes more.
func fullMatrix() bool { return os.Getenv("E2E_WALK") == "full" }

// TestWalk opens every address that the router knows, and every tab there, of a node that has something to show on
// each: each comes up, without a message in the browser's console and without a refusal on the page, and all of it is in
// another language where there is a translation. With E2E_WALK=full
// it does so in both themes at the widths of a desktop and a phone, looks at each with axe, and keeps a picture of each.
func TestWalk(t *testing.T) {
	t.Parallel()
	full := fullMatrix()
	n := startNode(t)
	examples := seed(n, t.TempDir(), full)
	p := openPageFor(t, walkLimit)
	if !full {
		p.foreign()
	}
	p.do("signed in", signedIn(n, admin), chromedp.Navigate(n.url+"/"), visible(`nav.side`))
	paths := addresses(t, examples)
	if !full {
		p.walk(n, paths, "light", 1440, false)
		return
	}
	for _, theme := range []string{"light", "dark"} {
		for _, width := range []int{1440, 390} {
			p.walk(n, paths, theme, width, true)
		}
	}
}

// addresses are the addresses of the router, with examples in place of parameters, and one that it does not know.
func addresses(t *testing.T, examples map[string]string) []string {
	t.Helper()
	source, err := os.ReadFile(filepath.Join("..", "src", "routes.tsx"))
	if err != nil {
		t.Fatal(err)
	}
	paths := []string{"/no-such-page"}
	for _, m := range routePattern.FindAllStringSubmatch(string(source), -1) {
		path := m[1]
		if strings.Contains(path, ":") {
			var known bool
			if path, known = examples[m[1]]; !known {
				t.Errorf("the walk has no example of %s: add one to seed", m[1])
			}
			if path == "" {
				continue
			}
		}
		paths = append(paths, path)
	}
	if len(paths) < 30 {
		t.Fatalf("%d addresses found in routes.tsx: is its form another one?", len(paths))
	}
	return paths
}

// seed makes something of each kind and returns examples of the addresses that need one; an empty one is left out.
func seed(n *testNode, dir string, full bool) map[string]string {
	n.call(http.MethodPost, "/vpools", map[string]any{"name": "gold", "backend": map[string]any{"kind": "local", "path": filepath.Join(dir, "backend")}}, nil)
	n.call(http.MethodPost, "/vpools", map[string]any{"name": "silver", "backend": map[string]any{"kind": "alba"}}, nil)
	for i, vpool := range []string{"gold", "gold", "silver"} {
		n.call(http.MethodPost, "/vdisks", map[string]any{"name": fmt.Sprintf("db-%02d", i+1), "vpool": vpool, "size": 8 << 30, "labels": map[string]string{"app": "shop"}}, nil)
	}
	n.call(http.MethodPost, "/vdisks/db-01/snapshots", map[string]any{"name": "before-the-upgrade"}, nil)
	n.call(http.MethodPost, "/vdisks/db-01/scrub", map[string]any{}, nil) // before the first there is none to show
	n.call(http.MethodPut, "/vdisks/db-01/qos", map[string]any{"iops": 5000, "bytesPerSecond": 100 << 20, "burstMs": 1000}, nil)
	n.call(http.MethodPatch, "/schedule/snapshot?vdisk=db-01", map[string]any{"cron": "*/15 * * * *"}, nil)
	var published struct{ IQN string }
	n.call(http.MethodPost, "/vdisks/db-01/publish", map[string]any{"open": true}, &published)
	n.call(http.MethodPost, "/alerts/channels", map[string]any{"name": "operators", "kind": "email", "host": "mail.example.org", "port": 587, "from": "ovgate@example.org", "to": []string{"anna@example.org"}}, nil)
	n.call(http.MethodPost, "/alerts/silences", map[string]any{"object": "vdisk db-02", "untilAt": time.Now().Add(time.Hour), "why": "its host is being moved"}, nil)
	n.call(http.MethodPost, "/users", map[string]any{"name": admin, "password": password, "role": "manage"}, nil)
	n.call(http.MethodPost, "/users", map[string]any{"name": viewer, "password": password, "role": "read"}, nil)
	n.call(http.MethodPost, "/tokens", map[string]any{"name": "backup", "role": "read", "user": admin}, nil)
	s3 := remotetest.Peer(n.t, "s3")
	n.call(http.MethodPost, "/backends", map[string]any{"name": "cloud", "kind": "s3", "options": map[string]any{"url": s3["endpoint"], "container": s3["bucket"], "user": s3["access_key"]}, "secret": s3["secret_key"]}, nil)
	cloud := "" // TestOpenStack has one
	if full {
		cloud = "/openstack/prod"
		section := filepath.Join(dir, "ovgate.conf")
		text, err := cinder.Config{Section: "ovgate", URLs: []string{n.url}, TokenFile: filepath.Join(n.dir, "admin.token"), CAFile: filepath.Join(n.dir, "tls", "ca.pem")}.Text()
		if err == nil {
			err = os.WriteFile(section, []byte(text), 0o600)
		}
		if err != nil {
			n.t.Fatal(err)
		}
		peer := remotetest.Peer(n.t, "cinder", "--backend", section)
		n.call(http.MethodPost, "/openstack/clouds", map[string]any{"name": "prod", "secret": peer["admin_key"], "options": map[string]any{"url": peer["auth"], "user": peer["admin"], "project": peer["admin_project"]}}, nil)
		v, err := esxsim.Start(esxsim.Options{Hosts: 2})
		if err != nil {
			n.t.Fatal(err)
		}
		n.t.Cleanup(v.Close)
		n.call(http.MethodPost, "/vsphere/centers", map[string]any{"name": "prod", "secret": v.Password(), "options": map[string]any{"url": v.URL(), "user": v.User(), "thumbprint": v.Thumbprint()}}, nil)
	}
	var status struct{ Node struct{ Name string } }
	n.call(http.MethodGet, "/status", nil, &status)
	return map[string]string{
		"/nodes/:name":           "/nodes/" + status.Node.Name,
		"/domains/:name":         "/domains/-",
		"/vdisks/:name":          "/vdisks/db-01",
		"/vpools/:name":          "/vpools/gold",
		"/iscsi/:iqn":            "/iscsi/" + published.IQN,
		"/backends/:name":        "/backends/cloud",
		"/openstack/:name":       cloud,
		"/disks/:number":         "/disks/1",
		"/disks/:number/replace": "/disks/1/replace",
		"/docs/:name":            "/docs/health",
	}
}

// quiet waits until the page has its heading, no place holder, and nothing was asked of the node while it was drawn a few
// times: what a page asks for, it asks once it is drawn.
const quiet = `new Promise((done) => {
	if (!window.asked) {
		const real = window.fetch;
		window.asked = {open: 0, total: 0};
		window.fetch = (...args) => {
			window.asked.open++;
			window.asked.total++;
			return real(...args).finally(() => { window.asked.open--; });
		};
	}
	let drawn = 0, total = -1;
	const look = () => {
		const still = document.querySelector("main h1") && !document.querySelector(".skeleton") && document.fonts.status === "loaded" &&
			window.asked.open === 0 && window.asked.total === total;
		drawn = still ? drawn + 1 : 0;
		total = window.asked.total;
		if (drawn === 4) { done(location.pathname) } else { requestAnimationFrame(look) }
	};
	requestAnimationFrame(look);
})`

// walk goes to each address and to each tab there; deep looks with axe and keeps a picture.
func (p *page) walk(n *testNode, paths []string, theme string, width int, deep bool) {
	p.t.Helper()
	height := 900
	if width < 800 {
		height = 844
	}
	p.do(fmt.Sprintf("%s, %d px", theme, width), chromedp.EmulateViewport(int64(width), int64(height)),
		chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`localStorage.setItem("ovgate.theme", %q)`, theme)),
		chromedp.Navigate(n.url+"/"), until(fmt.Sprintf(`document.documentElement.dataset.theme === %q`, theme)))
	for _, path := range paths {
		p.do(path, to(path))
		p.settle(path, theme, width, deep)
		tabs, err := chromedp.Run(p.ctx, chromedp.Evaluate[int](`document.querySelector("dialog[open]") ? 0 : document.querySelectorAll("main .tabs [role=tab]").length`))
		if err != nil {
			p.t.Fatalf("%s: %v", path, err)
		}
		for i := 1; i < tabs; i++ {
			p.do(fmt.Sprintf("%s, tab %d", path, i+1), chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`document.querySelectorAll("main .tabs [role=tab]")[%d].click()`, i)))
			p.settle(fmt.Sprintf("%s tab %d", path, i+1), theme, width, deep)
		}
		p.noConsoleErrors()
		p.mu.Lock()
		p.messages = nil // told, and not to be told again for the next page
		p.mu.Unlock()
	}
}

// settle waits until a page is whole, and looks at it.
func (p *page) settle(state, theme string, width int, deep bool) {
	p.t.Helper()
	if _, err := chromedp.Run(p.ctx, chromedp.Evaluate[string](quiet, chromedp.EvalAwaitPromise)); err != nil {
		p.shot(failedShot)
		p.t.Fatalf("%s: %v", state, err)
	}
	said, err := chromedp.Run(p.ctx, chromedp.Evaluate[string](`[...document.querySelectorAll("main .notice.bad")].map((e) => e.innerText).join("; ") +
		(document.documentElement.scrollWidth > innerWidth ? "wider than the window" : "") +
		(document.querySelector(".side [aria-current=page]")?.getBoundingClientRect().left >= innerWidth ? "its place in the navigation is out of sight" : "")`))
	if err != nil || said != "" {
		p.t.Errorf("%s, %s, %d px: %v %s", state, theme, width, err, said)
	}
	if p.english != "" {
		p.translated(state)
	}
	if deep {
		p.audit(fmt.Sprintf("%s, %s, %d px", state, theme, width))
		p.shot(fmt.Sprintf("walk-%d-%s%s", width, theme, regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(state), "-")))
	}
}
