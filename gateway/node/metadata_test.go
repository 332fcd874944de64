package node

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/gateway/cluster"
	"github.com/openvstorage/ovgate/internal/kv"
	"github.com/openvstorage/ovgate/internal/kv/dump"
	"github.com/openvstorage/ovgate/internal/kv/etcd/etcdtest"
	"github.com/openvstorage/ovgate/iscsi/initiator"
	"github.com/openvstorage/ovgate/volumedriver/backend/backendtest"
)

// backup writes a backup of the metadata to a file.
func (r *running) backup() string {
	r.t.Helper()
	status, b := r.try("GET", "/metadata/backup", nil)
	if status != 200 {
		r.t.Fatalf("backup: %d: %s", status, b)
	}
	f := filepath.Join(r.t.TempDir(), "metadata.gz")
	write(r.t, f, string(b))
	return f
}

// restored returns what a node says of the only vPool that was restored.
func (r *running) restored() map[string]any {
	r.t.Helper()
	all := r.call("GET", "/metadata", nil, 200)["vpools"].([]any)
	if len(all) != 1 {
		r.t.Fatalf("%d vPools were restored: %v", len(all), all)
	}
	return all[0].(map[string]any)
}

func namesOf(list any) (out []string) {
	for _, v := range list.([]any) {
		out = append(out, v.(map[string]any)["name"].(string))
	}
	slices.Sort(out)
	return out
}

// objects lists the files below a directory.
func objects(t *testing.T, dir string) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			out[path] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestMetadataRestored: a node loses its registry and goes on with an older one, in kv.db and
// in etcd: no write is missing, no object of a vDisk that the backup does not have is deleted,
// and health tells that deletes are off until all was compared.
func TestMetadataRestored(t *testing.T) {
	if testing.Short() {
		t.Skip("step by step: nothing for the race detector")
	}
	t.Parallel()
	t.Run("kv.db", func(t *testing.T) {
		t.Parallel()
		metadataRestored(t, "", nil)
	})
	t.Run("etcd", func(t *testing.T) {
		t.Parallel()
		m := etcdtest.Serve(t)
		metadataRestored(t, etcdConfig(t, m, "node/"), m)
	})
}

func metadataRestored(t *testing.T, conf string, m *etcdtest.Member) {
	ctx := t.Context()
	dir, far := t.TempDir(), t.TempDir()
	type obj = map[string]any
	// Leases of a shared registry go by a clock that is not moved: there the test waits.
	var moved *shift
	if m == nil {
		moved = &shift{}
	}
	s := start(t, Options{Data: dir, Config: conf})
	s.pool("gold", far)
	s.call("PATCH", "/vpools/gold", obj{"settings": obj{"trashMs": 0}}, 200)
	blocks := func(on *initiator.Session, from, n, seed uint64) {
		t.Helper()
		for i := from; i < from+n; i++ {
			if err := on.WriteAt(ctx, 0, backendtest.Data(seed+i, 65536), i*128); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := func(on *initiator.Session, from, n, seed uint64) {
		t.Helper()
		got := make([]byte, 65536)
		for i := from; i < from+n; i++ {
			if err := on.ReadAt(ctx, 0, got, i*128); err != nil || !bytes.Equal(got, backendtest.Data(seed+i, 65536)) {
				t.Fatalf("block %d is not what was written last: %v", i, err)
			}
		}
	}
	for _, name := range []string{"one", "gone", "quiet"} {
		s.disk(name, "gold", 1<<30)
	}
	one, quiet := s.login("one"), s.login("quiet")
	blocks(one, 0, 20, 1000)
	blocks(quiet, 0, 5, 2000)
	s.call("POST", "/vdisks/one/snapshots", obj{"name": "old"}, 201)
	s.call("POST", "/vdisks/one/commit", nil, 200)
	file := s.backup()

	blocks(one, 10, 20, 3000)
	s.call("POST", "/vdisks/one/snapshots", obj{"name": "new"}, 201)
	s.call("DELETE", "/vdisks/one/snapshots/old", nil, 204)
	s.call("DELETE", "/vdisks/gone", nil, 204)
	s.disk("made", "gold", 1<<30)
	made := s.login("made")
	blocks(made, 0, 5, 4000)
	blocks(one, 15, 2, 5000)
	one.Close()
	quiet.Close()
	made.Close()
	o := RestoreOptions{File: file, Data: dir, Config: conf}
	if _, err := RestoreMetadata(ctx, o); err == nil || !strings.Contains(err.Error(), "is in use by") {
		t.Fatalf("restored below a node: %v", err)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}

	if m == nil {
		if err := os.Remove(filepath.Join(dir, kvFile)); err != nil {
			t.Fatal(err)
		}
	} else if err := kv.Wipe(ctx, m.Open(t, "node/"), "", nil); err != nil {
		t.Fatal(err)
	}
	r, err := RestoreMetadata(ctx, o)
	if err != nil || r.VPools != 1 || r.Records == 0 || r.Kept != "" {
		t.Fatalf("%+v %v", r, err)
	}
	// Something is in the way of the comparison.
	strange := filepath.Join(far, "objects", "somebody.else")
	write(t, strange, "x")
	before := objects(t, filepath.Join(far, "objects"))
	s = start(t, Options{Data: dir, Config: conf, shift: moved})
	told := func() string {
		for _, c := range s.call("GET", "/status", nil, 200)["health"].(obj)["causes"].([]any) {
			if c := c.(obj); c["code"] == "metadata_restored" {
				return fmt.Sprint(c["object"], ": ", c["text"], ": ", c["hint"])
			}
		}
		return ""
	}
	s.until("told that deletes are off", func() bool {
		text := told()
		return strings.HasPrefix(text, "vpool gold: ") && strings.Contains(text, "deletes nothing") && strings.Contains(text, "somebody.else") && strings.Contains(text, "ovgate metadata status")
	})
	if d := s.restored(); d["deletesOff"] != true || !strings.Contains(d["reason"].(string), "somebody.else") || d["comparedAt"] != nil {
		t.Errorf("%v", d)
	}
	one, quiet = s.login("one"), s.login("quiet")
	want(one, 0, 10, 1000)
	want(one, 10, 5, 3000)
	want(one, 15, 2, 5000)
	want(one, 17, 13, 3000)
	want(quiet, 0, 5, 2000)
	if l := s.call("GET", "/vdisks/one/snapshots", nil, 200)["items"]; !slices.Equal(namesOf(l), []string{"new"}) {
		t.Errorf("snapshots %v", namesOf(l))
	}
	blocks(one, 30, 5, 6000)
	for _, job := range []string{"/vdisks/one/scrub", "/vpools/gold/sweep"} {
		s.call("POST", job, nil, 202)
		var j obj
		s.until("ended", func() bool { j = s.call("GET", job, nil, 200); return j["state"] != "running" })
		if j["state"] != "failed" || !strings.Contains(j["failure"].(string), "deletes are off") {
			t.Errorf("%s: %v", job, j)
		}
	}
	failed := fault{code: "job_failed", object: "vdisk one", says: "deletes are off", remedy: "ovgate schedule run scrub --vdisk one"}
	look := s.watched()
	if moved != nil {
		look.shift = moved
	}
	if c := look.cause(failed); c != nil {
		t.Errorf("told before: %v", c)
	}
	s.call("POST", "/schedule/scrub/run?vdisk=one", nil, 202)
	look.told(failed)
	quiet.Close()
	s.until("quiet is signed out", func() bool {
		status, _, _ := s.answer("POST", "/vdisks/quiet/unpublish", "", nil)
		return status == 204
	})
	s.call("DELETE", "/vdisks/quiet", nil, 204) // decided, and done later
	s.call("POST", "/vdisks/one/commit", nil, 200)
	now := objects(t, filepath.Join(far, "objects"))
	for name := range before {
		if !now[name] {
			t.Errorf("%s was deleted", name)
		}
	}

	if err := os.Remove(strange); err != nil {
		t.Fatal(err)
	}
	s.until("compared", func() bool {
		if moved != nil {
			moved.passed.Add(int64(2 * time.Minute))
		}
		return s.restored()["deletesOff"] == false
	})
	d := s.restored()
	if !slices.Equal(namesOf(d["missing"]), []string{"gone"}) || !slices.Equal(namesOf(d["orphans"]), []string{"made"}) || len(d["unclear"].([]any)) > 0 || d["comparedAt"] == nil {
		t.Errorf("%v", d)
	}
	s.until("told no more", func() bool { return told() == "" })
	s.call("POST", "/schedule/scrub/run?vdisk=one", nil, 202)
	look.gone(failed)
	s.until("deleted", func() bool {
		status, _ := s.try("GET", "/vdisks/quiet", nil)
		return status == 404
	})
	s.call("POST", "/vpools/gold/sweep", nil, 202)
	s.until("swept", func() bool { return s.call("GET", "/vpools/gold/sweep", nil, 200)["state"] == "done" })
	if got := s.call("GET", "/vpools/gold/sweep", nil, 200)["quarantined"].([]any); len(got) != 1 {
		t.Errorf("quarantined %v", got)
	}
	s.call("POST", "/vpools/recover", obj{"name": "gold", "backend": obj{"kind": "local", "path": far}}, 200)
	want(s.login("made"), 0, 5, 4000)
	want(one, 30, 5, 6000)
}

// restoreAt restores and ends at a step, as if it was killed there.
func restoreAt(t *testing.T, o RestoreOptions, step string, count int) {
	t.Helper()
	o.steps = func(name string) error {
		if name == step {
			count--
		}
		if count == 0 {
			return errCut
		}
		return nil
	}
	if _, err := RestoreMetadata(t.Context(), o); !errors.Is(err, errCut) {
		t.Fatalf("not cut at %s: %v", step, err)
	}
}

// TestRestoreCutOff: a restore that is cut off leaves what was there, or what no node starts
// with, and can be run again.
func TestRestoreCutOff(t *testing.T) {
	m := etcdtest.Serve(t)
	for i, step := range []string{"copying", "filled", "kept", "etcd marked", "etcd wiped", "etcd copying", "etcd filled"} {
		t.Run(step, func(t *testing.T) {
			dir, conf := t.TempDir(), ""
			step, shared := strings.CutPrefix(step, "etcd ")
			if shared {
				conf = etcdConfig(t, m, fmt.Sprintf("cut/%d/", i))
			}
			r := start(t, Options{Data: dir, Config: conf})
			id, name := r.node()
			r.pool("gold", filepath.Join(dir, "backend", "gold"))
			r.disk("one", "gold", 1<<30)
			file := r.backup()
			r.disk("two", "gold", 1<<30)
			if err := r.stop(); err != nil {
				t.Fatal(err)
			}
			o := RestoreOptions{File: file, Data: dir, Config: conf, Replace: name}
			restoreAt(t, o, step, 1)
			if shared {
				if err := refused(t, dir, conf); err == nil || !strings.Contains(err.Error(), "did not end: run it again") {
					t.Fatalf("it started: %v", err)
				}
				o.Replace = "" // what is there is nobody's
			} else {
				r = start(t, Options{Data: dir})
				if n := len(r.call("GET", "/vdisks", nil, 200)["items"].([]any)); n != 2 {
					t.Errorf("%d vDisks, want what was there", n)
				}
				if all := r.call("GET", "/metadata", nil, 200)["vpools"].([]any); len(all) != 0 {
					t.Errorf("restored: %v", all)
				}
				if err := r.stop(); err != nil {
					t.Fatal(err)
				}
			}
			got, err := RestoreMetadata(t.Context(), o)
			if err != nil || !shared && got.Kept == "" {
				t.Fatalf("%+v %v", got, err)
			}
			if shared && step != "marked" { // kept by the one before
				if _, err := os.Stat(filepath.Join(dir, oldMetadata)); err != nil {
					t.Error(err)
				}
			}
			r = start(t, Options{Data: dir, Config: conf})
			if again, _ := r.node(); again != id {
				t.Errorf("node %s became %s", id, again)
			}
			r.until("compared", func() bool { return r.restored()["deletesOff"] == false })
			if l := r.restored()["orphans"]; !slices.Equal(namesOf(l), []string{"two"}) {
				t.Errorf("orphans %v", l)
			}
			if st := r.diskState("one"); st != "running" {
				t.Errorf("the vDisk is %s", st)
			}
		})
	}
}

// TestRestoreRefused: what a restore refuses changes nothing, and says what to do.
func TestRestoreRefused(t *testing.T) {
	m := etcdtest.Serve(t)
	dir, conf := t.TempDir(), etcdConfig(t, m, "refused/")
	r := start(t, Options{Data: dir})
	_, name := r.node()
	file := r.backup()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	other := start(t, Options{Data: t.TempDir()})
	foreign := other.backup()
	if err := other.stop(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(t.TempDir(), "bad.gz")
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 4
	write(t, bad, string(flipped))
	cut := filepath.Join(t.TempDir(), "cut.gz")
	write(t, cut, string(good[:len(good)-30]))
	was, err := os.ReadFile(filepath.Join(dir, kvFile))
	if err != nil {
		t.Fatal(err)
	}
	before := filepath.Join(t.TempDir(), kvFile)
	write(t, before, string(was))
	for what, tc := range map[string]struct {
		o    RestoreOptions
		want string
	}{
		"records":         {RestoreOptions{File: file}, "name it with --replace"},
		"another name":    {RestoreOptions{File: file, Replace: "x" + name}, "nothing was changed"},
		"another cluster": {RestoreOptions{File: foreign, Replace: name, NoSeal: true}, "which the backup does not know"},
		"another key":     {RestoreOptions{File: foreign, Replace: name}, "seal.key is another one"},
		"flipped":         {RestoreOptions{File: bad, Replace: name}, "damaged"},
		"cut off":         {RestoreOptions{File: cut, Replace: name}, "damaged"},
		"no file":         {RestoreOptions{File: cut + "x", Replace: name}, "no such file"},
		"to move":         {RestoreOptions{File: file, Replace: name, Config: conf}, "its registry is in kv.db"},
	} {
		tc.o.Data = dir
		if _, err := RestoreMetadata(t.Context(), tc.o); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", what, err, tc.want)
		}
	}
	var stores [2]*kv.Bolt
	for i, name := range []string{before, filepath.Join(dir, kvFile)} {
		if stores[i], err = kv.OpenBolt(name, kv.BoltOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	err = errors.Join(kv.Same(t.Context(), stores[0], stores[1], "", nil), stores[0].Close(), stores[1].Close())
	if err != nil {
		t.Errorf("kv.db changed: %v", err)
	}
	if _, err := ReadMetadata(bytes.NewReader(flipped)); !errors.Is(err, dump.ErrDamaged) {
		t.Errorf("%v", err)
	}

	// In etcd: a node that runs elsewhere.
	data := t.TempDir()
	r = start(t, Options{Data: data, Config: conf})
	_, name = r.node()
	file = r.backup()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	s := m.Open(t, "refused/")
	manifest := manifests + "x"
	if _, err := s.Txn(t.Context(), nil, []kv.Op{kv.Put(manifest, []byte("newer than any backup")), kv.Put("cluster/later", nil)}, nil); err != nil {
		t.Fatal(err)
	}
	lease, err := cluster.OpenLease(t.Context(), cluster.LeaseOptions{Store: s, Node: "n2", TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	o := RestoreOptions{File: file, Data: data, Config: conf, Replace: name}
	if _, err := RestoreMetadata(t.Context(), o); err == nil || !strings.Contains(err.Error(), "node n2 runs") {
		t.Errorf("with a node that runs: %v", err)
	}
	if err := notRestoring(t.Context(), s); err != nil {
		t.Errorf("the refused restore left its mark: %v", err)
	}
	if err := lease.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := RestoreMetadata(t.Context(), o); err != nil {
		t.Error(err)
	}
	left, err := s.GetAll(t.Context(), []string{manifest, "cluster/later", sealKey})
	if err != nil || left[0] == nil || left[1] != nil || left[2] == nil {
		t.Errorf("after a restore there are %v: %v", left, err)
	}
	if isMetadata(kv.KV{Key: []byte(manifest)}) || !isMetadata(kv.KV{Key: []byte(sealKey)}) || isMetadata(kv.KV{Key: []byte(sealKey), Lease: 1}) {
		t.Error("a backup has manifests or what a lease holds, or lacks the rest")
	}
}

// wantSealed looks for secrets in a backup.
func wantSealed(t *testing.T, file string, secrets ...string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	in, err := dump.NewReader(f)
	for err == nil {
		var rec dump.Record
		if rec, err = in.Next(); err != nil {
			break
		}
		for _, s := range secrets {
			if s = strings.TrimSpace(s); s == "" || bytes.Contains(rec.Value, []byte(s)) {
				t.Errorf("record %s has a secret", rec.Key)
			}
		}
	}
	if !errors.Is(err, io.EOF) || in.Records == 0 {
		t.Errorf("%d records, then %v", in.Records, err)
	}
}

// TestRestoreElsewhere: a data directory that is new, but for seal.key, becomes that of the
// node; a registry that cannot be read is replaced when its cluster is named.
func TestRestoreElsewhere(t *testing.T) {
	dir := t.TempDir()
	r := start(t, Options{Data: dir})
	id, name := r.node()
	r.pool("gold", filepath.Join(t.TempDir(), "gold"))
	r.disk("one", "gold", 1<<30)
	conn := r.call("POST", "/vdisks/one/publish", nil, 200)
	file := r.backup()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	wantSealed(t, file, conn["chapSecret"].(string), r.read("admin.token"), r.read(sealFile))
	write(t, filepath.Join(dir, kvFile), strings.Repeat("not a database", 1000))
	o := RestoreOptions{File: file, Data: dir}
	if _, err := RestoreMetadata(t.Context(), o); err == nil || !strings.Contains(err.Error(), "--replace "+name) {
		t.Errorf("%v", err)
	}
	fresh := t.TempDir()
	write(t, filepath.Join(fresh, sealFile), r.read(sealFile))
	for _, o := range []RestoreOptions{{File: file, Data: dir, Replace: name}, {File: file, Data: fresh}} {
		if _, err := RestoreMetadata(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		r = start(t, Options{Data: o.Data})
		if again, _ := r.node(); again != id {
			t.Errorf("node %s became %s", id, again)
		}
		r.until("running", func() bool { return r.diskState("one") == "running" || r.diskState("one") == "lost_tail" })
		if again := r.call("POST", "/vdisks/one/publish", nil, 200); again["chapSecret"] != conn["chapSecret"] {
			t.Errorf("published as %v, was %v", again, conn)
		}
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
	}
}
