package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/internal/kv/etcd/etcdtest"
)

// refused starts a node that is expected not to come up.
func refused(t *testing.T, dir, conf string) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ready := func(string) { cancel() } // it is not refused: the node ends without an error
	return Run(ctx, Options{Data: dir, Config: conf, API: "127.0.0.1:0", ISCSI: []string{"127.0.0.1:0"}, Stdout: &buffer{}, Stderr: &buffer{}, Ready: ready})
}

// etcdConfig names a cluster and a prefix.
func etcdConfig(t *testing.T, m *etcdtest.Member, prefix string) string {
	t.Helper()
	f := filepath.Join(t.TempDir(), "ovgate.yaml")
	write(t, f, fmt.Sprintf("registry:\n  etcd: [%q]\n  prefix: %s\n", m.Endpoint(), prefix))
	return f
}

// errCut ends a move.
var errCut = errors.New("cut off")

// cutAt runs a node that ends when a step of the move comes for the given time: nothing is
// written after that, as if it was killed there.
func cutAt(t *testing.T, dir, conf, step string, count int) {
	t.Helper()
	o := Options{Data: dir, Config: conf, API: "127.0.0.1:0", ISCSI: []string{"127.0.0.1:0"}, Stdout: &buffer{}, Stderr: &buffer{}}
	o.steps = func(name string) error {
		if name == step {
			count--
		}
		if count == 0 {
			return errCut
		}
		return nil
	}
	if err := Run(t.Context(), o); !errors.Is(err, errCut) {
		t.Fatalf("not cut at %s: %v", step, err)
	}
}

// TestRegistryMoves: the registry of a node with a vDisk moves to etcd, cut off at each step
// and begun again; in the end all is there, and the node is the same one.
func TestRegistryMoves(t *testing.T) {
	if testing.Short() {
		t.Skip("members of etcd take a minute with the race detector; TestOwnRegistry has them, too")
	}
	t.Parallel()
	m := etcdtest.Serve(t)
	for i, step := range []string{"marked", "copying", "copied", "placed", "unmarked", ""} {
		t.Run(step, func(t *testing.T) {
			dir := t.TempDir()
			r := start(t, Options{Data: dir})
			r.pool("gold", filepath.Join(dir, "backend", "gold"))
			disk := r.disk("one", "gold", 1<<30)
			conn := r.call("POST", "/vdisks/one/publish", nil, 200)
			id, _ := r.node()
			if err := r.stop(); err != nil {
				t.Fatal(err)
			}
			conf := etcdConfig(t, m, fmt.Sprintf("test/%d/", i))
			if step != "" {
				cutAt(t, dir, conf, step, 1)
			}
			if step == "copying" { // again, and with a change of the old registry in between
				cutAt(t, dir, conf, step, 3)
				r = start(t, Options{Data: dir})
				r.disk("two", "gold", 1<<30)
				r.call("DELETE", "/vdisks/two?purge=true", nil, 204)
				if err := r.stop(); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				r = start(t, Options{Data: dir, Config: conf})
				if again, _ := r.node(); again != id {
					t.Errorf("node %s became %s", id, again)
				}
				if d := r.call("GET", "/vdisks/"+disk, nil, 200); d["state"] != "running" || d["name"] != "one" {
					t.Errorf("the vDisk is %v", d)
				}
				if again := r.call("POST", "/vdisks/one/publish", nil, 200); again["chapSecret"] != conn["chapSecret"] || again["iqn"] != conn["iqn"] {
					t.Errorf("published as %v, was %v", again, conn)
				}
				if n := len(r.call("GET", "/vdisks", nil, 200)["items"].([]any)); n != 1 {
					t.Errorf("%d vDisks", n)
				}
				if err := r.stop(); err != nil {
					t.Fatal(err)
				}
				if _, err := os.Stat(filepath.Join(dir, kvFile)); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("kv.db is there: %v", err)
				}
			}
			if err := refused(t, dir, ""); err == nil || !strings.Contains(err.Error(), "with registry") {
				t.Errorf("without the configuration: %v", err)
			}
			if err := refused(t, dir, etcdConfig(t, m, "elsewhere/")); err == nil || !strings.Contains(err.Error(), "set prefix back") {
				t.Errorf("with another prefix: %v", err)
			}
			if err := refused(t, t.TempDir(), conf); err == nil || !strings.Contains(err.Error(), "seal.key is missing") {
				t.Errorf("a second node: %v", err)
			}
		})
	}
}

// TestRegistryNew: a node begins with its registry in etcd.
func TestRegistryNew(t *testing.T) {
	m := etcdtest.Serve(t)
	dir, conf := t.TempDir(), etcdConfig(t, m, "new/")
	r := start(t, Options{Data: dir, Config: conf})
	id, _ := r.node()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, kvFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("kv.db is there: %v", err)
	}
	r = start(t, Options{Data: dir, Config: conf})
	if again, _ := r.node(); again != id {
		t.Errorf("node %s became %s", id, again)
	}
}

// TestRegistryRefused: configurations that cannot be meant.
func TestRegistryRefused(t *testing.T) {
	open := filepath.Join(t.TempDir(), "password")
	write(t, open, "secret")
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"{prefix: a/}":                                                                "no etcd",
		"{etcd: [\"10.0.0.7:2379\"]}":                                                 "https://HOST:PORT",
		"{etcd: [\"http://10.0.0.7:2379\"]}":                                          "without TLS",
		"{etcd: [\"https://10.0.0.7\"]}":                                              "https://HOST:PORT",
		"{etcd: [\"https://u:p@10.0.0.7:1\"]}":                                        "https://HOST:PORT",
		"{etcd: [\"https://10.0.0.7:1\"], prefix: a}":                                 "slash",
		"{etcd: [\"https://10.0.0.7:1\"], key: /a}":                                   "together",
		"{etcd: [\"https://10.0.0.7:1\"], user: a}":                                   "together",
		"{etcd: [\"https://10.0.0.7:1\"], ca: /nowhere}":                              "/nowhere",
		"{etcd: [\"https://10.0.0.7:1\"], user: a, password_file: " + open + "}":      "chmod 600",
		"{etcd: [\"https://10.0.0.7:1\"], user: a, password_file: /nowhere}":          "/nowhere",
		"{etcd: [\"https://10.0.0.7:1\"], certificate: /nowhere, key: /nowhere}":      "/nowhere",
		"{etcd: [" + strings.Repeat("\"https://10.0.0.7:1\",", maxEndpoints+1) + "]}": "at most",
		"{etcd: [\"https://10.0.0.7:1\"], prefix: " + strings.Repeat("a", 200) + "/}": "at most",
	} {
		conf := filepath.Join(t.TempDir(), "ovgate.yaml")
		write(t, conf, "registry: "+text+"\n")
		if err := refused(t, t.TempDir(), conf); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "u:p@") && !strings.Contains(text, "u:p@") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestRegistryAway: with the registry away a node shows what it knows; it goes on by itself
// when the registry is back, and stops in time when it is not.
func TestRegistryAway(t *testing.T) {
	t.Parallel()
	m := etcdtest.Serve(t)
	dir, conf := t.TempDir(), etcdConfig(t, m, "away/")
	b, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	const stop = 5 * time.Second
	write(t, conf, fmt.Sprintf("%sstop_timeout: %s\n", b, stop))
	r := start(t, Options{Data: dir, Config: conf, askRegistry: 100 * time.Millisecond})
	r.pool("gold", filepath.Join(dir, "backend", "gold"))
	disk := r.disk("one", "gold", 1<<30)
	told := func() bool { return strings.Contains(r.causes(), "registry_member") }
	if told() {
		t.Error("health of a registry that works")
	}
	m.Stop()
	r.until("health tells of the registry", told)
	if n := len(r.call("GET", "/vdisks", nil, 200)["items"].([]any)); n != 1 {
		t.Errorf("%d vDisks", n)
	}
	r.until("the vDisk waits", func() bool { return r.diskState(disk) == "suspended" })
	if e := r.call("POST", "/vdisks/one/commit", nil, 503); e["code"] != "not_running" || !strings.Contains(e["message"].(string), "suspended") {
		t.Errorf("an operation while it waits: %v", e)
	}
	nodes := r.call("GET", "/nodes", nil, 200)["items"].([]any)
	if len(nodes) != 1 || nodes[0].(map[string]any)["state"] != "unknown" {
		t.Errorf("nodes: %v", nodes)
	}
	m.Start(t)
	r.until("the node has its lease again", func() bool {
		return r.call("GET", "/nodes", nil, 200)["items"].([]any)[0].(map[string]any)["state"] == "up"
	})
	r.until("health tells that it is back", func() bool { return !told() })
	r.tells(event.RegistryAway, event.RegistryBack)
	r.disk("two", "gold", 1<<30)
	r.until("the vDisk goes on", func() bool { return r.diskState(disk) == "running" })
	m.Stop()
	began := time.Now()
	r.late = true
	err = r.stop()
	if took := time.Since(began); took > stop+leaseStop+20*time.Second || err == nil || !strings.Contains(err.Error(), "journal") {
		t.Errorf("it took %v to stop: %v", took, err)
	}
}

// TestStopsInTime: a node whose registry is away stops in time also with more vDisks and vPools
// than it closes at a time, to the last of which it does not come before its time is over.
func TestStopsInTime(t *testing.T) {
	t.Parallel()
	m := etcdtest.Serve(t)
	conf := etcdConfig(t, m, "many/")
	b, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	write(t, conf, fmt.Sprintf("%sstop_timeout: %s\n", b, minStop))
	dir := t.TempDir()
	r := start(t, Options{Data: dir, Config: conf})
	for i := range 8 {
		name := fmt.Sprint("p", i)
		r.pool(name, filepath.Join(dir, "backend", name))
		for k := range 4 {
			r.disk(fmt.Sprint(name, "-", k), name, 1<<30)
		}
	}
	m.Stop()
	r.late = true
	ended := make(chan error, 1)
	go func() { ended <- r.stop() }()
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), "journal") {
			t.Errorf("it stopped with: %v", err)
		}
	case <-time.After(patience):
		m.Start(t) // so that it does now
		t.Fatal("it does not stop")
	}
}
