package volume

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/backend"
)

// onceStore fails the test when a name is put twice with different bytes (E1).
type onceStore struct {
	backend.Store
	t    testing.TB
	seen *sync.Map
}

func (s onceStore) note(name string, data []byte) {
	if name == rootName {
		return
	}
	if old, loaded := s.seen.LoadOrStore(name, string(data)); loaded && old != string(data) {
		s.t.Errorf("object %s was put with other bytes", name)
	}
}

func (s onceStore) Put(ctx context.Context, name string, data []byte) error {
	s.note(name, data)
	return s.Store.Put(ctx, name, data)
}

func (s onceStore) PutIfAbsent(ctx context.Context, name string, data []byte) error {
	err := s.Store.PutIfAbsent(ctx, name, data)
	if err == nil {
		s.note(name, data)
	}
	return err
}

// watched returns a world whose backend is watched for names used twice.
func watched(t testing.TB, seed uint64) *world {
	w := newWorld(seed)
	seen := &sync.Map{}
	w.wrapStore = func(s backend.Store) (backend.Store, error) { return onceStore{s, t, seen}, nil }
	return w
}

// copyOf returns a world with a copy of the local state and the registry, on the
// same backend: a data directory that was copied.
func (w *world) copyOf() *world {
	c := *w
	c.fs, c.reg = w.fs.Crash(blockfs.CrashConfig{Unsynced: blockfs.KeepAll}), w.reg.clone()
	c.seed = seedsFrom(w.seed.Load() + 1<<32)
	return &c
}

func write(t testing.TB, v *Volume, off int64, ver uint32) error {
	t.Helper()
	return v.WriteAt(context.Background(), versions(off, 4096, func(int64) uint32 { return ver }), off)
}

func mustWrite(t testing.TB, v *Volume, off int64, ver uint32) {
	t.Helper()
	if err := write(t, v, off, ver); err != nil {
		t.Fatal(err)
	}
}

func mustCommit(t testing.TB, v *Volume) {
	t.Helper()
	if err := v.Commit(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func wantVersion(t testing.TB, v *Volume, off int64, ver uint32) {
	t.Helper()
	p := make([]byte, 4096)
	if err := v.ReadAt(context.Background(), p, off); err != nil {
		t.Fatal(err)
	}
	if got, err := sectorVersion(p, uint64(off/lbaBytes)); err != nil || got != ver {
		t.Fatalf("offset %d reads version %d (%v), want %d", off, got, err, ver)
	}
}

// TestOldDataDirectory: a data directory rolled back to an older copy finds newer
// heads of an opening that it does not know. It serves nothing stale, overwrites
// nothing, and goes on from the backend once the loss is accepted.
func TestOldDataDirectory(t *testing.T) {
	w := watched(t, 11)
	id := testID(1)
	n := w.mustStart(t)
	n.create(id, 1<<20)
	v := n.open(id)
	mustWrite(t, v, 0, 1)
	mustCommit(t, v)
	n.kill()
	old := w.copyOf()
	n = w.mustStart(t)
	v = n.open(id)
	mustWrite(t, v, 0, 2)
	mustCommit(t, v)
	mustWrite(t, v, 4096, 3) // acknowledged, in the journal only
	n.kill()

	on := old.mustStart(t)
	if _, err := on.pool.Open(context.Background(), id); !errors.Is(err, ErrLostTail) {
		t.Fatalf("open of an older copy: %v", err)
	}
	on.kill()
	on = old.mustStart(t) // the state is remembered
	if _, err := on.pool.Open(context.Background(), id); !errors.Is(err, ErrLostTail) {
		t.Fatalf("second open of an older copy: %v", err)
	}
	if err := on.pool.AcceptLoss(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	ov := on.open(id)
	wantVersion(t, ov, 0, 2)
	wantVersion(t, ov, 4096, 0)
	mustWrite(t, ov, 8192, 4)
	mustCommit(t, ov)
	wantVersion(t, ov, 0, 2)
	on.close()
	// The newer directory now is the older one; its tail belongs to a line that
	// was given up.
	n = w.mustStart(t)
	defer n.kill()
	v, err := n.pool.Open(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	wantVersion(t, v, 8192, 4)
	wantVersion(t, v, 4096, 0)
}

// TestOldDataDirectorySameOpening: the copy was made while the vDisk was open, and
// the head moved on within that opening.
func TestOldDataDirectorySameOpening(t *testing.T) {
	w := watched(t, 12)
	id := testID(1)
	n := w.mustStart(t)
	n.create(id, 1<<20)
	v := n.open(id)
	mustWrite(t, v, 0, 1)
	old := w.copyOf()
	mustWrite(t, v, 0, 2)
	mustCommit(t, v)
	mustWrite(t, v, 4096, 3)
	n.kill()
	on := old.mustStart(t)
	defer on.kill()
	if _, err := on.pool.Open(context.Background(), id); !errors.Is(err, ErrLostTail) {
		t.Fatalf("open of an older copy: %v", err)
	}
}

// TestTwoProcesses: two engines on copies of one data directory. The second
// fences the first, or refuses to serve; never do both go on, and no object is
// overwritten.
func TestTwoProcesses(t *testing.T) {
	w := watched(t, 13)
	id := testID(1)
	n := w.mustStart(t)
	n.create(id, 1<<20)
	v := n.open(id)
	mustWrite(t, v, 0, 1)
	mustCommit(t, v)
	n.close()
	two := w.copyOf()
	n = w.mustStart(t)
	v = n.open(id)
	mustWrite(t, v, 0, 2)
	m := two.mustStart(t)
	// The first one committed a head of an opening that the second does not know,
	// and it is not clean: the second must not serve.
	if _, err := m.pool.Open(context.Background(), id); !errors.Is(err, ErrLostTail) {
		t.Fatalf("open in the second process: %v", err)
	}
	mustWrite(t, v, 4096, 3)
	mustCommit(t, v)
	// An operator insists on the second one: the first is fenced.
	if err := m.pool.AcceptLoss(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	mv, err := m.pool.Open(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	wantVersion(t, mv, 4096, 3)
	mustWrite(t, mv, 8192, 5)
	mustCommit(t, mv)
	_ = write(t, v, 8192, 4)
	if err := v.Commit(context.Background()); err == nil {
		t.Fatal("the fenced process committed")
	}
	if err := v.ReadAt(context.Background(), make([]byte, 4096), 8192); !errors.Is(err, ErrFenced) {
		t.Fatalf("read in the fenced process: %v", err)
	}
	if err := write(t, v, 0, 9); !errors.Is(err, ErrFenced) {
		t.Fatalf("write in the fenced process: %v", err)
	}
	n.kill()
	wantVersion(t, mv, 8192, 5)
	m.close()
}

// TestReusedEpoch: a claim that another opening holds is passed over, whatever the
// registry says, and a registry that lost the newest epochs does not make an
// epoch be used twice.
func TestReusedEpoch(t *testing.T) {
	w := watched(t, 14)
	id := testID(1)
	n := w.mustStart(t)
	n.create(id, 1<<20)
	v := n.open(id)
	before := w.reg.clone()
	mustWrite(t, v, 0, 1)
	first := v.Stats().Epoch
	n.close()
	n = w.mustStart(t)
	v = n.open(id)
	mustWrite(t, v, 0, 2)
	n.close() // clean: nothing is missing on the backend
	w.reg = before
	n = w.mustStart(t)
	v = n.open(id)
	if e := v.Stats().Epoch; e <= first+1 {
		t.Fatalf("epoch %d was used before (%d)", e, first)
	}
	wantVersion(t, v, 0, 2)
	s := v.Stats()
	mustWrite(t, v, 0, 3)
	if v.Stats().LastSeq <= s.LastSeq {
		t.Fatal("seq went back")
	}
	n.close()
}

// TestLostJournal: the WRITE disk was replaced. A vDisk that was not closed
// cleanly is offline until the loss is accepted; a clean one serves.
func TestLostJournal(t *testing.T) {
	for _, clean := range []bool{true, false} {
		w := watched(t, 15)
		id := testID(1)
		n := w.mustStart(t)
		n.create(id, 1<<20)
		v := n.open(id)
		mustWrite(t, v, 0, 1)
		mustCommit(t, v)
		mustWrite(t, v, 4096, 2)
		if clean {
			n.close()
		} else {
			n.kill()
		}
		w.fs = blockfs.NewMem()
		n = w.mustStart(t)
		_, err := n.pool.Open(context.Background(), id)
		if clean && err != nil || !clean && !errors.Is(err, ErrLostTail) {
			t.Fatalf("clean %v: %v", clean, err)
		}
		n.kill()
	}
}

// TestRecoverFromBackend: registry and local state are gone; everything that was
// uploaded comes back.
func TestRecoverFromBackend(t *testing.T) {
	w := watched(t, 16)
	ctx := context.Background()
	n := w.mustStart(t)
	for i := byte(1); i <= 5; i++ {
		n.create(testID(i), 1<<20)
		v := n.open(testID(i))
		mustWrite(t, v, 0, uint32(i))
		mustCommit(t, v)
		if i == 2 {
			mustWrite(t, v, 4096, 77)
		}
		if i == 3 {
			if err := v.SetLabels(ctx, "renamed", map[string]string{"a": "b"}); err != nil {
				t.Fatal(err)
			}
		}
	}
	v4 := n.pool.Volume(testID(4))
	if err := v4.Close(ctx); err != nil {
		t.Fatal(err)
	}
	v5 := n.pool.Volume(testID(5))
	if err := v5.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if err := n.pool.Delete(ctx, testID(5)); err != nil {
		t.Fatal(err)
	}
	n.kill()
	w.fs, w.reg = blockfs.NewMem(), newMemRegistry()
	n = w.mustStart(t)
	defer n.kill()
	got, err := n.pool.Recover(ctx)
	if err != nil || len(got) != 4 {
		t.Fatalf("recovered %+v, %v", got, err)
	}
	for i, r := range got {
		if r.ID != testID(byte(i+1)) || r.Size != 1<<20 || r.Clean != (i == 3) || r.Known {
			t.Fatalf("recovered %+v", r)
		}
		if want := map[int]string{2: "renamed"}[i]; want != "" && (r.Name != want || r.Labels["a"] != "b") {
			t.Fatalf("recovered %+v", r)
		}
		if _, err := n.pool.Open(ctx, r.ID); !r.Clean && !errors.Is(err, ErrLostTail) {
			t.Fatalf("vdisk %d: %v", i+1, err)
		}
		if !r.Clean {
			if err := n.pool.AcceptLoss(ctx, r.ID); err != nil {
				t.Fatal(err)
			}
			n.open(r.ID)
		}
		wantVersion(t, n.pool.Volume(r.ID), 0, uint32(i+1))
	}
	// Nobody asked for that commit, and it may have happened.
	if found, err := readVersions(n.pool.Volume(testID(2))); err != nil || found[8] != 0 && found[8] != 77 {
		t.Fatalf("what was not committed reads version %d (%v), want 0 or 77", found[8], err)
	}
	again, err := n.pool.Recover(ctx)
	if err != nil || len(again) != 4 || !again[0].Known {
		t.Fatalf("second recovery %+v, %v", again, err)
	}
}

// TestForeignRoot: a backend root of another vPool is refused.
func TestForeignRoot(t *testing.T) {
	w := newWorld(17)
	n := w.mustStart(t)
	n.close()
	for _, c := range []struct {
		cfg  PoolConfig
		want error
	}{
		{PoolConfig{ClusterID: "c1", ID: "another", Name: "x"}, ErrForeignRoot},
		{PoolConfig{ClusterID: "c2", ID: testPool, Name: "default"}, ErrForeignRoot},
		{PoolConfig{ClusterID: "c2", ID: testPool, Name: "default", Adopt: true}, nil},
	} {
		n := w.mustStartHost(t)
		c.cfg.Store = n.store
		_, err := n.host.AttachPool(context.Background(), c.cfg)
		if !errors.Is(err, c.want) {
			t.Fatalf("%+v: %v", c.cfg, err)
		}
		n.host.Close(context.Background())
	}
}

// TestDelete: objects, journal and record are gone; a cut-off delete goes on; the
// chunks do not come back to life.
func TestDelete(t *testing.T) {
	ctx := context.Background()
	w := watched(t, 18)
	id, other := testID(1), testID(2)
	n := w.mustStart(t)
	n.create(id, 1<<20)
	n.create(other, 1<<20)
	v := n.open(id)
	ov := n.open(other)
	mustWrite(t, ov, 0, 8)
	mustWrite(t, v, 0, 1)
	mustCommit(t, v)
	mustWrite(t, v, 0, 2)
	if err := n.pool.Delete(ctx, id); !errors.Is(err, ErrInvalid) {
		t.Fatalf("delete of an open vdisk: %v", err)
	}
	if err := v.Close(ctx); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := n.pool.Delete(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n.pool.Open(ctx, id); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	l, err := n.pool.cfg.Store.List(ctx, "v/", "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range l {
		if strings.Contains(o.Name, id.String()) {
			t.Errorf("left behind: %s", o.Name)
		}
	}
	wantVersion(t, ov, 0, 8)
	n.kill()
	n = w.mustStart(t)
	defer n.kill()
	if h := n.host.disks[0].pool.Usage(); h.Held != 1 {
		t.Fatalf("held chunks %+v", h)
	}
	wantVersion(t, n.open(other), 0, 8)
}

// TestCorruptJournal: damage below a promise is told from a torn tail (E3).
func TestCorruptJournal(t *testing.T) {
	for _, promised := range []bool{true, false} {
		w := watched(t, 19)
		id := testID(1)
		n := w.mustStart(t)
		n.create(id, 1<<20)
		v := n.open(id)
		for i := range uint32(10) {
			mustWrite(t, v, int64(i)*4096, i+1)
		}
		n.kill()
		// The records are 8 KiB each behind the two openers.
		at := int64(8192 + 3*8192 + 4096 + 100)
		if !promised {
			at = 8192 + 9*8192 + 4096 + 100
		}
		damage(t, w.fs, at)
		n = w.mustStart(t)
		v, err := n.pool.Open(context.Background(), id)
		if promised {
			var ce interface{ Error() string }
			if !errors.Is(err, ErrCorrupt) || !errors.Is(err, ErrLostTail) || !errors.As(err, &ce) || !strings.Contains(err.Error(), "seq 4") {
				t.Fatalf("damage below a promise: %v", err)
			}
			// With the operator's word it serves what is before that, also after a crash.
			if err := n.pool.AcceptLoss(context.Background(), id); err != nil {
				t.Fatal(err)
			}
			v = n.open(id)
			mustWrite(t, v, 9*4096, 99)
			if err := n.pool.AcceptLoss(context.Background(), id); err != nil { // of an open one: nothing changes
				t.Fatal(err)
			}
			if rec, err := n.host.o.Registry.Load(context.Background(), id); err != nil || rec.State != FlagNone {
				t.Fatalf("record of an open vDisk: %q, %v", rec.State, err)
			}
			for range 2 {
				wantVersion(t, v, 2*4096, 3)
				wantVersion(t, v, 3*4096, 0)
				wantVersion(t, v, 4*4096, 0)
				wantVersion(t, v, 9*4096, 99)
				n.kill()
				n = w.mustStart(t)
				v = n.open(id)
			}
		} else {
			if err != nil {
				t.Fatalf("torn tail: %v", err)
			}
			wantVersion(t, v, 8*4096, 9)
			wantVersion(t, v, 9*4096, 0)
		}
		n.kill()
	}
}

// damage flips a byte of the only chunk that has records.
func damage(t *testing.T, fsys *blockfs.Mem, at int64) {
	t.Helper()
	l, err := fsys.List("journal")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range l {
		if !strings.HasPrefix(e.Name, "chunk-") {
			continue
		}
		f, err := fsys.Open("journal/"+e.Name, blockfs.Write)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1)
		if _, err := f.ReadAt(b, at); err != nil {
			t.Fatal(err)
		}
		head := make([]byte, 8)
		if _, err := f.ReadAt(head, 0); err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(head, []byte("OVGJREC1")) {
			b[0] ^= 0x40
			if _, err := f.WriteAt(b, at); err != nil {
				t.Fatal(err)
			}
			if err := f.Sync(); err != nil {
				t.Fatal(err)
			}
		}
		f.Close()
	}
}
