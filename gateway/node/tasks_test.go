package node

import (
	"bytes"
	"path/filepath"
	"testing"
)

// TestTasksOfNodes: any node tells what all of them work on, has it cancelled where it runs, and
// names a node that does not answer with the age of what it shows.
func TestTasksOfNodes(t *testing.T) {
	t.Parallel()
	e := newEast(t)
	one, two := e.first, e.join("beta")
	one.until("both", one.hears("alpha alive up", "beta alive up"))
	two.until("both", two.hears("alpha alive up", "beta alive up"))
	one.pool("near", filepath.Join(one.dir, "backend", "near"))
	begin := func(name string) {
		t.Helper()
		id := one.call("POST", "/imports", map[string]any{"name": name, "vpool": "near", "size": 1 << 20}, 201)["id"].(string)
		if status, _, b := one.raw("PUT", "/imports/"+id+"/data?offset=0", bytes.Repeat([]byte{7}, 1<<18)); status != 204 {
			t.Fatalf("written: %d: %s", status, b)
		}
	}
	tasks := func(query string) (items []map[string]any, silent []any) {
		t.Helper()
		l := two.call("GET", "/jobs?"+query, nil, 200)
		for _, j := range l["items"].([]any) {
			items = append(items, j.(map[string]any))
		}
		return items, l["silent"].([]any)
	}
	begin("i")
	var job map[string]any
	// A node that was just asked while it did not listen is left alone for some seconds.
	two.until("the import is told here", func() bool {
		items, silent := tasks("kind=import,export&node=alpha")
		if len(items) != 1 || len(silent) != 0 {
			return false
		}
		job = items[0]
		return true
	})
	if job["object"] != "vdisk i" || job["node"] != "alpha" || job["state"] != "running" || job["progress"] != 0.25 || job["bytes"] != float64(1<<18) || job["cancellable"] != true {
		t.Errorf("told: %v", job)
	}
	if items, _ := tasks("node=beta&kind=import"); len(items) != 0 {
		t.Errorf("of beta: %v", items)
	}
	path := "/jobs/" + job["id"].(string)
	if status, by, out := two.answer("POST", path+"/cancel", "", nil); status != 202 || by != "alpha" || out["state"] != "cancelled" {
		t.Errorf("cancelled: %d by %q: %v", status, by, out)
	}
	if got := two.call("GET", path, nil, 200); got["state"] != "cancelled" || got["endedAt"] == nil || got["cancellable"] != false {
		t.Errorf("afterwards: %v", got)
	}
	if status, by, out := two.answer("POST", path+"/cancel", "", nil); status != 409 || by != "alpha" || out["hint"] == nil {
		t.Errorf("cancelled twice: %d by %q: %v", status, by, out)
	}
	if status, by, out := two.answer("GET", "/jobs/import-none", "", nil); status != 404 || by != "" {
		t.Errorf("no task: %d by %q: %v", status, by, out)
	}
	one.until("the vDisk is gone", func() bool { status, _ := one.try("GET", "/vdisks/i", nil); return status == 404 })
	two.call("DELETE", "/jobs", nil, 204)
	if items, _ := tasks("kind=import"); len(items) != 0 {
		t.Errorf("forgotten: %v", items)
	}

	begin("j")
	two.until("it is told here", func() bool { items, _ := tasks("object=vdisk+j&state=running,waiting"); return len(items) == 1 })
	if err := one.stop(); err != nil {
		t.Fatal(err)
	}
	items, silent := tasks("object=vdisk+j")
	if len(silent) != 1 || len(items) != 1 {
		t.Fatalf("without alpha: %v, silent %v", items, silent)
	}
	if s := silent[0].(map[string]any); s["node"] != "alpha" || s["observedAt"] == nil || s["error"] == "" {
		t.Errorf("silent: %v", s)
	}
	if status, _, out := two.answer("POST", "/jobs/"+items[0]["id"].(string)+"/cancel", "", nil); status != 503 {
		t.Errorf("cancelled without its node: %d %v", status, out)
	}
}
