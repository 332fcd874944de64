package volume

import (
	"context"
	"fmt"
	mrand "math/rand/v2"
	"sync"
	"testing"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/local"
)

// TestForsake: a node gives up the journal of a vDisk that another node took over when a head
// of that one is committed, not before; its space comes back. With the power cut at any change
// in that, it is done at the next try, and nothing of the journal is in what the node serves
// when the vDisk is its own again.
func TestForsake(t *testing.T) {
	ctx := context.Background()
	be := blockfs.NewMem()
	on := func(be *blockfs.Mem) func() backend.Store {
		store, err := local.Open(be, local.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return func() backend.Store { return claimHook{store, func() {}} }
	}
	id := testID(ownersDisk)
	w, w2 := newWorld(71), newWorld(72)
	w.node, w.openStore = "a", on(be)
	w2.node, w2.reg, w2.openStore, w2.settings.AcceptLostTail = "b", w.reg, w.openStore, true

	// A megabyte, in several chunks, of which one half is committed.
	const size = 1 << 20
	n := w.mustStart(t)
	n.create(id, size)
	v := n.open(id)
	for off := int64(0); off < size; off += 4096 {
		mustWrite(t, v, off, 1)
		if off == size/2 {
			mustCommit(t, v)
		}
	}
	n.kill()
	n = w.mustStart(t)
	before := n.host.Usage().Journal
	if before.Held < 2 {
		t.Fatalf("the journal is in %d chunks", before.Held)
	}
	if done, err := n.pool.Forsake(ctx, id); done || err != nil {
		t.Fatalf("its own vDisk is given up: %v, %v", done, err)
	}

	n2 := w2.mustStart(t)
	v2 := n2.open(id)
	rec, err := w.reg.Load(ctx, id)
	if err != nil || rec.Owner != "b" {
		t.Fatalf("the vDisk is of %q: %v", rec.Owner, err)
	}
	old := rec
	old.Head.Epoch = rec.Epoch - 1 // as it is until the head of the new opening is committed
	if err := w.reg.Apply(ctx, Change{Old: &rec, New: &old}); err != nil {
		t.Fatal(err)
	}
	if done, err := n.pool.Forsake(ctx, id); done || err != nil || n.host.Usage().Journal != before {
		t.Fatalf("given up before the new owner committed: %v, %v, %+v", done, err, n.host.Usage().Journal)
	}
	if err := w.reg.Apply(ctx, Change{Old: &old, New: &rec}); err != nil {
		t.Fatal(err)
	}
	for off := int64(0); off < size; off += 8192 {
		mustWrite(t, v2, off, 2)
	}
	n2.close()

	// Every crash in the middle of it.
	var mu sync.Mutex
	points := 0
	w.fs.SetHook(func(_ int64, op blockfs.OpInfo) {
		mu.Lock()
		defer mu.Unlock()
		points++
		for _, kind := range tearings {
			c := *w
			c.reg, c.seed, c.openStore = w.reg.clone(), seedsFrom(uint64(points)*8+uint64(kind)), on(be.Crash(blockfs.CrashConfig{}))
			c.fs = w.fs.Crash(blockfs.CrashConfig{Unsynced: kind, Rand: mrand.New(mrand.NewPCG(uint64(points), uint64(kind)))})
			if err := forsaken(t, &c, id, points%2 == 0); err != nil {
				t.Errorf("cut at %v %s, %v: %v", op.Kind, op.Path, kind, err)
			}
		}
	})
	done, err := n.pool.Forsake(ctx, id)
	w.fs.SetHook(nil)
	if !done || err != nil {
		t.Fatalf("not given up: %v, %v", done, err)
	}
	if points < before.Held {
		t.Errorf("%d changes for %d chunks", points, before.Held)
	}
	if u := n.host.Usage().Journal; u.Held != 0 || u.Free != before.Free+before.Held || u.Bytes != before.Bytes {
		t.Errorf("the journals have %+v, had %+v", u, before)
	}
	if names, err := w.fs.ListNames(stateDir(id)); err == nil && len(names) > 0 {
		t.Errorf("%v is left of it", names)
	}
	n.kill()
	if err := forsaken(t, w, id, false); err != nil {
		t.Error(err)
	}
}

// forsaken starts a node on what a cut left. It gives the journal up, or opens the vDisk at
// once, and serves what the other node closed.
func forsaken(t *testing.T, w *world, id ID, first bool) error {
	n, err := w.start(t)
	if err != nil {
		return err
	}
	defer n.kill()
	if first {
		if done, err := n.pool.Forsake(context.Background(), id); !done || err != nil {
			return fmt.Errorf("given up: %v, %w", done, err)
		}
		if u := n.host.Usage().Journal; u.Held != 0 {
			return fmt.Errorf("the journals have %+v", u)
		}
	}
	v, err := n.pool.Open(context.Background(), id)
	if err != nil {
		return err
	}
	have, err := readVersions(v)
	if err != nil {
		return err
	}
	for i, ver := range have {
		// The first owner's writes up to its commit, and the new one's.
		at := int64(i) * lbaBytes
		want := []uint32{1}
		switch {
		case at%8192 < 4096:
			want = []uint32{2}
		case at >= (1<<20)/2+4096:
			want = []uint32{0, 1}
		}
		if ver != want[0] && ver != want[len(want)-1] {
			return fmt.Errorf("offset %d has version %d, want one of %v", at, ver, want)
		}
	}
	return nil
}
