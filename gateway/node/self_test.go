package node

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/internal/kv"
)

// node is the id and name that the node's API tells.
func (r *running) node() (id, name string) {
	n := r.call("GET", "/status", nil, 200)["node"].(map[string]any)
	return n["id"].(string), n["name"].(string)
}

// older makes of a stopped node's directory what version 7 of the records was: the id is in
// the registry and nowhere else.
func older(t *testing.T, dir, id string) {
	t.Helper()
	db, err := kv.OpenBolt(filepath.Join(dir, kvFile), kv.BoltOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	e, err := db.Get(t.Context(), "model/cluster")
	if err != nil {
		t.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(e.Value, &c); err != nil {
		t.Fatal(err)
	}
	if _, has := c["node"]; has {
		t.Fatalf("the cluster's record has the node's id: %s", e.Value)
	}
	golden := fmt.Appendf(nil, `{"format":7,"id":%q,"node":%q,"created":"2026-11-20T10:00:00Z"}`, c["id"], id)
	if _, err := db.Txn(t.Context(), nil, []kv.Op{kv.Put("model/cluster", golden)}, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, selfFile)); err != nil {
		t.Fatal(err)
	}
}

// TestSelf: id and name stay through restarts, the name until it is configured, and the id
// of an older version's directory is taken with all that it owns.
func TestSelf(t *testing.T) {
	dir := t.TempDir()
	conf := filepath.Join(t.TempDir(), "ovgate.yaml")
	write(t, conf, "node_name: alpha\n")
	r := start(t, Options{Data: dir, Config: conf})
	id, name := r.node()
	if !uuid.MatchString(id) || name != "alpha" {
		t.Fatalf("id %q, name %q", id, name)
	}
	r.pool("gold", filepath.Join(dir, "backend", "gold"))
	disk := r.disk("one", "gold", 1<<30)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = start(t, Options{Data: dir})
	if again, name := r.node(); again != id || name != "alpha" {
		t.Errorf("after a restart: %q, %q", again, name)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	older(t, dir, id)
	write(t, conf, "node_name: beta\n")
	r = start(t, Options{Data: dir, Config: conf})
	if again, name := r.node(); again != id || name != "beta" {
		t.Errorf("from an older version: %q, %q, want id %q", again, name, id)
	}
	if d := r.call("GET", "/vdisks/"+disk, nil, 200); d["state"] != "running" {
		t.Errorf("vDisk of an older version: %v", d)
	}
	if got := r.read(selfFile); got != fmt.Sprintf(`{"format":1,"id":%q,"name":"beta"}`, id) {
		t.Errorf("node.json is %s", got)
	}
}

// TestSelfRefused: a node that does not know who it is does not start as another one, and
// changes nothing.
func TestSelfRefused(t *testing.T) {
	dir := t.TempDir()
	r := start(t, Options{Data: dir})
	id, _ := r.node()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	whole := r.read(selfFile)
	for name, c := range map[string]struct{ file, want string }{
		"missing":     {"", "missing: bring it back"},
		"empty":       {"\n", "damaged: bring it back"},
		"no id":       {`{"format":1,"name":"a"}`, "damaged"},
		"an id of /":  {`{"format":1,"id":"/","name":"a"}`, "damaged"},
		"a name of /": {fmt.Sprintf(`{"format":1,"id":%q,"name":"a/b"}`, id), "damaged"},
		"newer":       {fmt.Sprintf(`{"format":2,"id":%q,"name":"a"}`, id), "upgrade ovgate"},
	} {
		if c.file == "" {
			if err := os.Remove(filepath.Join(dir, selfFile)); err != nil {
				t.Fatal(err)
			}
		} else {
			write(t, filepath.Join(dir, selfFile), c.file)
		}
		err := Run(t.Context(), Options{Data: dir, API: "127.0.0.1:0", ISCSI: []string{"127.0.0.1:0"}, Stdout: &buffer{}, Stderr: &buffer{}})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), selfFile) {
			t.Errorf("%s: %v", name, err)
		}
		b, err := os.ReadFile(filepath.Join(dir, selfFile))
		if err != nil && c.file != "" || string(b) != c.file {
			t.Errorf("%s: node.json became %q, %v", name, b, err)
		}
	}
	write(t, filepath.Join(dir, selfFile), whole)
	r = start(t, Options{Data: dir})
	if again, _ := r.node(); again != id {
		t.Errorf("id %q, want %q", again, id)
	}
}
