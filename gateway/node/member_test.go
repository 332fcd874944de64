package node

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/internal/kv"
)

// addNode stores the record of another node in a stopped node's registry.
func addNode(t *testing.T, dir string, n model.Node) {
	t.Helper()
	db, err := kv.OpenBolt(filepath.Join(dir, kvFile), kv.BoltOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s, err := model.Open(t.Context(), db, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.CreateNode(t.Context(), n); err != nil {
		t.Fatal(err)
	}
}

// TestMembers: a node lists itself with what it serves, a node without its lease as down, and
// keeps when it joined through restarts.
func TestMembers(t *testing.T) {
	dir := t.TempDir()
	r := start(t, Options{Data: dir, Version: "v1.2.3"})
	r.pool("gold", filepath.Join(dir, "backend", "gold"))
	r.disk("one", "gold", 1<<30)
	id, name := r.node()
	m := r.call("GET", "/nodes/"+name, nil, 200)
	for k, want := range map[string]any{"id": id, "name": name, "state": "up", "self": true, "version": "v1.2.3", "url": r.url, "vdisks": 1.0} {
		if m[k] != want {
			t.Errorf("%s is %v, want %v", k, m[k], want)
		}
	}
	if p := m["portals"].([]any); len(p) != 1 || !strings.HasPrefix(p[0].(string), "127.0.0.1:") {
		t.Errorf("portals: %v", p)
	}
	if e := r.call("GET", "/nodes/nobody", nil, 404); e["object"] != "node nobody" || e["hint"] == "" {
		t.Errorf("unknown node: %v", e)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	other := model.Node{ID: "5ac34e14-69af-41c1-8c0c-805371638a41", Name: "other", Version: "v1.2.2", API: "https://192.0.2.1:8443"}
	addNode(t, dir, other)
	r = start(t, Options{Data: dir})
	again := r.call("GET", "/nodes/"+id, nil, 200)
	if again["joinedAt"] != m["joinedAt"] || again["startedAt"] == m["startedAt"] || again["url"] != r.url {
		t.Errorf("before: %v\nafter a restart: %v", m, again)
	}
	page := r.call("GET", "/nodes?limit=1", nil, 200)
	if len(page["items"].([]any)) != 1 || page["next"] == nil {
		t.Errorf("a page of one: %v", page)
	}
	found := r.call("GET", "/nodes?q=OTH", nil, 200)["items"].([]any)
	if len(found) != 1 || found[0].(map[string]any)["state"] != "down" || found[0].(map[string]any)["self"] != false {
		t.Errorf("the other node: %v", found)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(t.TempDir(), "ovgate.yaml")
	write(t, conf, "node_name: other\n")
	err := Run(t.Context(), Options{Data: dir, Config: conf, API: "127.0.0.1:0", ISCSI: []string{"127.0.0.1:0"}, Stdout: &buffer{}, Stderr: &buffer{}})
	if err == nil || !strings.Contains(err.Error(), `"other"`) || !strings.Contains(err.Error(), "node_name") {
		t.Errorf("a second node with one name: %v", err)
	}
}
