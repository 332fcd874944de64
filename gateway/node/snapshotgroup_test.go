package node

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestGroupOfNodes: a group snapshot of vDisks of two nodes is made by either of them, or of
// none; people do not call what the nodes call of each other.
func TestGroupOfNodes(t *testing.T) {
	t.Parallel()
	e := newEast(t)
	one, two := e.first, e.join("beta")
	one.until("both", one.hears("alpha alive up", "beta alive up"))
	two.until("both", two.hears("alpha alive up", "beta alive up"))
	for r, name := range map[*running]string{one: "a", two: "b"} {
		r.pool("of-"+name, filepath.Join(r.dir, "backend", name))
		r.disk(name, "of-"+name, 1<<30)
	}
	for _, r := range []*running{one, two} {
		r.until("both are known", func() bool {
			for _, name := range []string{"a", "b"} {
				if status, _, v := r.answer("GET", "/vdisks/"+name, "", nil); status != 200 || v["state"] != "running" {
					return false
				}
			}
			return true
		})
	}

	snapshots := func(name string) (out []map[string]any) {
		t.Helper()
		_, _, l := one.answer("GET", "/vdisks/"+name+"/snapshots", "", nil)
		for _, s := range l["items"].([]any) {
			out = append(out, s.(map[string]any))
		}
		return out
	}
	group := func(r *running, want int, name string) map[string]any {
		t.Helper()
		ask := map[string]any{"name": name, "vdisks": []string{"b", "a"}, "sticky": true, "labels": map[string]any{"k": "v"}}
		status, by, out := r.answer("POST", "/snapshotGroups", "", ask)
		for try := 0; status == 503 && want != 503 && try < 20; try++ { // late, on a busy machine
			status, by, out = r.answer("POST", "/snapshotGroups", "", ask)
		}
		if status != want || by != "" {
			t.Fatalf("group %s: %d by %q, want %d: %v", name, status, by, want, out)
		}
		return out
	}
	for i, r := range []*running{one, two} {
		name := []string{"first", "second"}[i]
		made := group(r, 201, name)
		members := made["members"].([]any)
		if len(members) != 2 || members[0].(map[string]any)["vdisk"] != "b" || members[1].(map[string]any)["vdisk"] != "a" {
			t.Errorf("members %v", members)
		}
		for k, disk := range []string{"b", "a"} {
			told := members[k].(map[string]any)["snapshot"].(map[string]any)
			all := snapshots(disk)
			if len(all) != i+1 {
				t.Fatalf("%s has %d snapshots", disk, len(all))
			}
			for _, s := range []map[string]any{told, all[i]} {
				if s["id"] != made["id"] || s["name"] != name || s["group"] != 2.0 || s["sticky"] != true || s["size"] != 1024.0*1024*1024 || s["labels"].(map[string]any)["k"] != "v" {
					t.Errorf("%s: %v", disk, s)
				}
			}
		}
	}
	// A name that is taken on one of them.
	one.call("POST", "/vdisks/a/snapshots", map[string]any{"name": "taken"}, 201)
	for _, r := range []*running{one, two} {
		if e := group(r, 409, "taken"); e["code"] != "exists" {
			t.Errorf("%v", e)
		}
	}
	if a, b := snapshots("a"), snapshots("b"); len(a) != 3 || len(b) != 2 {
		t.Errorf("%d and %d snapshots after a name that was taken", len(a), len(b))
	}
	for _, path := range []string{"/rest", "/go", ""} {
		method, body := "POST", any(map[string]any{"vdisks": []string{"x"}, "size": 1, "name": "n"})
		if path == "" {
			method, body = "DELETE", nil
		}
		if status, _, e := one.answer(method, "/snapshotGroups/50000000-0000-4000-8000-000000000001"+path, "", body); status != 403 {
			t.Errorf("%s by a person: %d %v", path, status, e)
		}
	}
	// Without its node there is none.
	if err := two.stop(); err != nil {
		t.Fatal(err)
	}
	out := group(one, 503, "third")
	if m, _ := out["message"].(string); !strings.Contains(m, "beta") {
		t.Errorf("with a node that is down: %v", out)
	}
	if a := snapshots("a"); len(a) != 3 {
		t.Errorf("%d snapshots after a group that was not made", len(a))
	}
}
