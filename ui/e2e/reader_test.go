package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/openvstorage/ovgate/integrations/vsphere/esxsim"
)

// readerPage is a page as a reader has it.
type readerPage struct {
	path string
	// open is done on the page first, such as choosing a row.
	open chromedp.Action[chromedp.Void]
	// disabled are the actions that are shown and not allowed, those of menus too, by the role that they need.
	disabled map[string][]string
	// free are the buttons that do something nevertheless, since they change nothing on the node.
	free []string
	// calls are what the actions would have the node do: method, path and body.
	calls [][3]string
}

// cloudPages are those of the cloud prod with the volume type gold.
func cloudPages() []readerPage {
	const cloud = "/openstack/clouds/prod"
	actions := []string{"Apply types", "Test", "Change", "Forget"}
	return []readerPage{
		{
			path:     "/openstack",
			disabled: map[string][]string{"manage": {"Add cloud"}, "write": {"Attach to Cinder"}},
			free:     []string{"View of the table", "The list as a CSV file"},
			calls:    [][3]string{{"POST", "/openstack/clouds", `{"name":"x","options":{"url":"https://x"},"secret":"x"}`}},
		},
		{
			path:     "/openstack/prod",
			disabled: map[string][]string{"manage": actions},
			calls:    [][3]string{{"PATCH", cloud, `{"name":"x"}`}, {"POST", cloud + "/test", ""}, {"POST", cloud + "/apply", `{}`}, {"DELETE", cloud, ""}},
		},
		{
			path:     "/openstack/prod?tab=types",
			disabled: map[string][]string{"manage": append([]string{"Declare volume type", "Change type gold", "Take back type gold"}, actions...)},
			calls:    [][3]string{{"PUT", cloud + "/types/gold", `{"vpool":"fast"}`}, {"DELETE", cloud + "/types/gold", ""}},
		},
		{path: "/openstack/prod?tab=backends", disabled: map[string][]string{"manage": actions}},
		{path: "/openstack/prod?tab=projects", disabled: map[string][]string{"manage": actions}},
		{path: "/openstack/prod?tab=access", disabled: map[string][]string{"manage": actions}},
	}
}

// readerPages are the pages with actions on vDisks, snapshots, the cluster, the object side and vSphere.
func readerPages(iqn, node, rdm string) []readerPage {
	const vdisk, center, datastore = "/vdisks/db-01", "/vsphere/center", "/vsphere/datastores/gold1"
	return []readerPage{
		{
			path: "/vdisks", open: chromedp.Steps(click(`input[aria-label="Choose db-01"]`), visible(`//main//button[.="Delete 1"]`)),
			disabled: map[string][]string{"write": {"Import image", "Create vDisk", "Snapshot 1 vDisk", "Publish", "Limits", "Labels", "Change node", "Change vPool", "Journal copy", "Scrub", "Unpublish", "Delete 1"}},
			free:     []string{"Trash", "View of the table", "The list as a CSV file"},
			calls:    [][3]string{{"POST", "/vdisks", `{"name":"x","vpool":"gold","size":1073741824}`}, {"POST", "/snapshotGroups", `{"name":"x","vdisks":["db-01"]}`}, {"POST", "/imports", `{"name":"x","vpool":"gold","size":1073741824}`}},
		},
		{
			path:     vdisk,
			disabled: map[string][]string{"write": {"Snapshot", "Clone", "Grow", "Connect", "Rename", "Labels", "Limits", "Read cache", "History", "Change node", "Change vPool", "Journal copy", "Export", "Commit now", "Unpublish", "Delete", "Show how to connect", "New CHAP secret"}},
			calls: [][3]string{
				{"PATCH", vdisk, `{"size":2147483648}`}, {"DELETE", vdisk, ""}, {"POST", vdisk + "/clone", `{"name":"x"}`}, {"PUT", vdisk + "/qos", `{"iops":500}`}, {"PUT", vdisk + "/cache", `{"mode":"none","quota":0}`},
				{"PUT", vdisk + "/history", `{}`}, {"PUT", vdisk + "/dtl", `{"mode":"off"}`}, {"POST", vdisk + "/handover", `{"node":"x"}`}, {"POST", vdisk + "/move", `{"vpool":"x"}`},
				{"POST", vdisk + "/exports", `{}`}, {"POST", vdisk + "/commit", ""}, {"POST", vdisk + "/publish", `{}`}, {"POST", vdisk + "/unpublish", `{"force":true}`},
			},
		},
		{
			path:     vdisk + "?tab=snapshots",
			open:     click(`input[aria-label="Choose before"]`),
			disabled: map[string][]string{"write": {"Create snapshot", "Roll back to before", "Clone before", "Delete before"}},
			free:     []string{"Earlier", "Later", "View of the table", "The list as a CSV file"},
			calls:    [][3]string{{"POST", vdisk + "/snapshots", `{"name":"x"}`}, {"DELETE", vdisk + "/snapshots/before", ""}, {"POST", vdisk + "/rollback", `{"snapshot":"before"}`}},
		},
		{
			path:     vdisk + "?tab=maintenance",
			disabled: map[string][]string{"write": {"Scrub now", "Only see what it would delete"}},
			calls:    [][3]string{{"POST", vdisk + "/scrub", `{}`}, {"POST", vdisk + "/verify", `{}`}},
		},
		{
			path:     "/vpools",
			disabled: map[string][]string{"manage": {"Create vPool", "Recover vPool"}},
			free:     []string{"View of the table", "The list as a CSV file"},
			calls:    [][3]string{{"POST", "/vpools", `{"name":"x","backend":{"kind":"local","path":"/x"}}`}},
		},
		{
			path:     "/vpools/gold",
			disabled: map[string][]string{"write": {"Create vDisk"}, "manage": {"Edit", "Delete"}},
			free:     []string{"Schedules"},
			calls:    [][3]string{{"PATCH", "/vpools/gold", `{"name":"x"}`}, {"DELETE", "/vpools/gold", ""}},
		},
		{
			path:     "/iscsi/" + iqn,
			disabled: map[string][]string{"write": {"Change portals of db-01"}},
			calls:    [][3]string{{"PUT", "/targets/" + iqn + "/portals", `{"all":true}`}},
		},
		{
			path:     "/nodes",
			disabled: map[string][]string{"manage": {"Make a cluster", "Spread vDisks", "Back up metadata of this cluster", "Support bundle of this node"}},
			free:     []string{"View of the table", "The list as a CSV file"},
			calls:    [][3]string{{"POST", "/cluster/rebalance", `{"dryRun":true}`}, {"GET", "/metadata/backup", ""}, {"GET", "/support-bundle", ""}},
		},
		{
			path:     "/disks/1",
			disabled: map[string][]string{"manage": {"Verify", "Light on", "Light off", "Move", "Retire", "Give up"}},
			calls:    [][3]string{{"POST", "/osds/1/verify", ""}, {"POST", "/osds/1/locate", `{"on":true}`}, {"PATCH", "/osds/1", `{"directory":"/x"}`}},
		},
		{
			path:     "/disks",
			disabled: map[string][]string{"manage": {"Claim device"}},
			free:     []string{"View of the table", "The list as a CSV file"},
			calls:    [][3]string{{"POST", "/osds", `{"directory":"/x"}`}},
		},
		{
			path:     "/openstack",
			disabled: map[string][]string{"manage": {"Add cloud"}},
			calls:    [][3]string{{"POST", "/openstack/clouds", `{"name":"x","options":{"url":"https://x"},"secret":"x"}`}},
		},
		{
			path: "/vsphere",
			disabled: map[string][]string{"manage": {
				"Add vCenter", "Import datastore", "Create datastore", "Test prod", "Change prod", "Forget prod", "Snapshot of gold1", "Attach gold1", "Expand gold1", "Rename gold1", "Remove gold1",
				"Give a raw disk", "Take " + rdm,
			}},
			free: []string{"View of the table", "The list as a CSV file", "Hosts of prod", "Plug-in at prod", "Live state of gold1"},
			calls: [][3]string{
				{"POST", center + "s", `{"name":"x","secret":"x","options":{"url":"https://x","user":"x"}}`}, {"PATCH", center + "s/prod", `{"name":"x"}`}, {"POST", center + "s/prod/test", ""},
				{"POST", center + "s/prod/prepare", `{"cluster":"x"}`}, {"PUT", center + "s/prod/plugin", `{"url":"https://x"}`}, {"DELETE", center + "s/prod/plugin", ""}, {"DELETE", center + "s/prod", ""},
				{"POST", "/vsphere/datastores", `{"name":"x","center":"prod","vpool":"gold","size":2147483648}`}, {"POST", center + "s/prod/import", `{"name":"x","vdisk":"db-02"}`},
				{"POST", datastore + "/expand", `{"size":4294967296}`}, {"POST", datastore + "/rename", `{"name":"x"}`}, {"POST", datastore + "/snapshot", `{"name":"x"}`}, {"POST", datastore + "/attach", ""}, {"DELETE", datastore, ""},
				{"POST", "/vsphere/rdms", `{"vdisk":"db-02","center":"prod","vm":"x"}`}, {"DELETE", "/vsphere/rdms/" + rdm, ""},
			},
		},
		{
			path:  "/setup",
			free:  []string{"Check again: " + node},
			calls: [][3]string{{"POST", "/nodes/" + node + "/layout", ""}, {"POST", "/cluster", `{"name":"x"}`}},
		},
		{path: "/nodes/" + node, disabled: map[string][]string{"manage": {"Drain " + node, "Let " + node + " leave"}}, free: []string{"Check again: " + node}},
		{path: "/domains"},
		{path: "/domains/-"},
	}
}

// shownActions are the buttons of a page, and the items of the menu that is open: name, and why one is disabled. Tabs, orders
// and what changes a view are none.
const shownActions = `JSON.stringify([...document.querySelectorAll("main button:not([role=tab], .sort, [aria-pressed], [aria-label$=' as table'])")].map((e) => ({
	name: e.getAttribute("aria-label") ?? e.textContent.trim(),
	off: e.getAttribute("aria-disabled") === "true",
	why: document.getElementById(e.getAttribute("aria-describedby"))?.textContent ?? "",
})))`

type action struct {
	Name string
	Off  bool
	Why  string
}

// TestReader goes through pages as somebody who may only read: every action is disabled and says which role it needs, no
// other button does more than show something, and the node refuses the calls behind them all the same.
func TestReader(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	n.call(http.MethodPost, "/vpools", map[string]any{"name": "gold", "backend": map[string]any{"kind": "local", "path": filepath.Join(t.TempDir(), "backend")}}, nil)
	n.call(http.MethodPost, "/vpools", map[string]any{"name": "silver", "backend": map[string]any{"kind": "alba"}}, nil)
	for _, name := range []string{"db-01", "db-02"} {
		n.call(http.MethodPost, "/vdisks", map[string]any{"name": name, "vpool": "gold", "size": 1 << 30}, nil)
	}
	n.call(http.MethodPost, "/vdisks/db-01/snapshots", map[string]any{"name": "before"}, nil)
	n.call(http.MethodPost, "/vdisks/db-01/scrub", map[string]any{}, nil) // before the first there is none to show
	var published struct{ IQN string }
	n.call(http.MethodPost, "/vdisks/db-01/publish", map[string]any{"open": true}, &published)
	v, err := esxsim.Start(esxsim.Options{Hosts: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	n.call(http.MethodPost, "/vsphere/centers", map[string]any{"name": "prod", "secret": v.Password(), "options": map[string]any{"url": v.URL(), "user": v.User(), "thumbprint": v.Thumbprint()}}, nil)
	n.call(http.MethodPost, "/vsphere/datastores", map[string]any{"name": "gold1", "center": "prod", "cluster": esxsim.Cluster, "vpool": "gold", "size": 2 << 30}, nil)
	made := openPage(t)
	made.do("a datastore", signedIn(n, admin), chromedp.Navigate(n.url+"/vsphere"), visible(`//tr[td[.="gold1"]]//*[contains(@class,"state")][contains(.,"Present")]`))
	vmOn(t, v, "gold1", "web")
	n.call(http.MethodPost, "/vdisks", map[string]any{"name": "quorum", "vpool": "gold", "size": 1 << 30}, nil)
	n.call(http.MethodPost, "/vsphere/rdms", map[string]any{"vdisk": "quorum", "center": "prod", "vm": "web"}, nil)
	made.do("a raw disk", visible(`//tr[td[.="web"]][td[.="quorum"]]//*[contains(@class,"state")][contains(.,"Present")]`))
	made.noConsoleErrors()
	var rdms struct{ Items []struct{ Name string } }
	n.call(http.MethodGet, "/vsphere/rdms", nil, &rdms)
	var status struct{ Node struct{ Name string } }
	n.call(http.MethodGet, "/status", nil, &status)
	openPage(t).asReader(n, readerPages(published.IQN, status.Node.Name, rdms.Items[0].Name))
	membership(openPage(t), n)
}

// asReader goes through pages as somebody who may only read.
func (p *page) asReader(n *testNode, pages []readerPage) {
	p.t.Helper()
	n.call(http.MethodPost, "/users", map[string]any{"name": viewer, "password": password, "role": "read"}, nil)
	p.do("a reader", signedIn(n, viewer), chromedp.Navigate(n.url+"/"), visible(`nav.side`))
	for _, r := range pages {
		p.do(r.path, to(r.path), visible(`//main//h1`))
		p.settle(r.path, "light", 1440, false)
		if r.open != nil {
			p.do(r.path+" opened", r.open)
			p.settle(r.path, "light", 1440, false)
		}
		p.reads(r)
		p.refuses(r)
	}
	p.noConsoleErrors()
}

// actions are those that the page shows now.
func (p *page) actions() []action {
	p.t.Helper()
	said, err := chromedp.Run(p.ctx, chromedp.Evaluate[string](shownActions))
	if err != nil {
		p.t.Fatal(err)
	}
	var out []action
	if err := json.Unmarshal([]byte(said), &out); err != nil {
		p.t.Fatal(err)
	}
	return out
}

// reads fails for each button that does more than a reader may, and for each action that is not shown with the reason.
func (p *page) reads(r readerPage) {
	p.t.Helper()
	shown := p.actions()
	if slices.ContainsFunc(shown, func(a action) bool { return strings.HasPrefix(a.Name, "More ") }) {
		p.do("the menu of "+r.path, click(`main button[aria-haspopup=menu]`), visible(`main [role=menuitem]`))
		p.audit(r.path + " as a reader")
		p.shot("109-reader" + strings.ReplaceAll(r.path, "/", "-"))
		shown = p.actions()
		p.do("closed", chromedp.KeyEvent(kb.Escape), absent(`main [role=menuitem]`))
	}
	for role, names := range r.disabled {
		want := fmt.Sprintf("Needs role %s; you have read", role)
		for _, name := range names {
			if !slices.Contains(shown, action{name, true, want}) {
				p.t.Errorf("%s: %q is not disabled with %q", r.path, name, want)
			}
		}
	}
	for _, a := range shown {
		if !a.Off && !slices.Contains(r.free, a.Name) && !strings.HasPrefix(a.Name, "Look at ") && !strings.HasPrefix(a.Name, "Copy ") && !strings.HasPrefix(a.Name, "More ") {
			p.t.Errorf("%s: a reader may press %q", r.path, a.Name)
		}
	}
}

// refuses fails for each call that the node does not refuse to the session of the page for its role.
func (p *page) refuses(r readerPage) {
	p.t.Helper()
	for _, c := range r.calls {
		p.provokes("/api/v1" + c[1])
		said, err := chromedp.Run(p.ctx, chromedp.Evaluate[string](fmt.Sprintf(`fetch("/api/v1" + %[2]q, {
			method: %[1]q,
			headers: {"Content-Type": "application/json", "X-CSRF-Token": decodeURIComponent(document.cookie.match(/ovgate_csrf=([^;]*)/)?.[1] ?? "")},
			body: %[3]q || undefined,
		}).then(async (r) => r.status + " " + (await r.json()).code)`, c[0], c[1], c[2]), chromedp.EvalAwaitPromise))
		if err != nil {
			p.t.Fatalf("%s %s: %v", c[0], c[1], err)
		}
		if said != "403 forbidden" {
			p.t.Errorf("%s %s of a reader: %s, want 403 forbidden", c[0], c[1], said)
		}
	}
}
