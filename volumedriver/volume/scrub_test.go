package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/blockmap"
)

// backendBytes sums up the objects of a vDisk below a directory, "" for all.
func (n *node) backendBytes(id ID, dir string) (objects int, size int64) {
	n.t.Helper()
	for after := ""; ; {
		page, err := n.store.List(context.Background(), vdiskPrefix(id)+dir, after, 1000)
		if err != nil {
			n.t.Fatal(err)
		}
		for _, o := range page {
			after, size = o.Name, size+o.Size
		}
		if objects += len(page); len(page) < 1000 {
			return objects, size
		}
	}
}

// sameMap compares the map of an open vDisk with the one that its log gives, and
// checks that it names no SCO that is gone. Nothing is in flight.
func sameMap(v *Volume) error {
	ctx := context.Background()
	st := v.committedState.Load()
	m := blockmap.New(uint64(st.head.Size) / uint64(v.cluster))
	if v.parent != nil {
		m = v.parent.m.Clone(m.Clusters())
	}
	l := mapLoader{log: v.p.logReader(v.id, st.head.Epochs), src: &source{id: v.id}, level: v.level(), m: m}
	if err := l.apply(ctx, st.log()); err != nil {
		return err
	}
	if err := l.complete(st.head); err != nil {
		return err
	}
	for c := uint64(0); c < m.Clusters(); c++ {
		if a, b := m.Get(c), v.base.Get(c); a != b {
			return errWrong{fmt.Errorf("cluster %d: the log says %v, the map %v", c, a, b)}
		}
	}
	return nil
}

func mustScrub(t testing.TB, v *Volume, o ScrubOptions) ScrubResult {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	res, err := v.Scrub(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := sameMap(v); err != nil {
		t.Fatal(err)
	}
	return res
}

// fillRandom overwrites the whole disk once, in random order, in writes of 1 to 16
// clusters.
func fillRandom(t testing.TB, v *Volume, r *mrand.Rand, want []uint64, ver uint64) {
	t.Helper()
	cs := v.cluster
	order := r.Perm(len(want) / 8)
	for _, i := range order {
		p := make([]byte, 8*cs)
		for k := range 8 {
			want[8*i+k] = ver
			fillBlock(p[k*cs:(k+1)*cs], uint64(8*i+k), ver)
		}
		if err := v.WriteAt(context.Background(), p, int64(8*i*cs)); err != nil {
			t.Fatal(err)
		}
	}
}

func checkVersions(v *Volume, want []uint64) error {
	buf, exp := make([]byte, v.cluster), make([]byte, v.cluster)
	for c, ver := range want {
		if err := v.ReadAt(context.Background(), buf, int64(c*v.cluster)); err != nil {
			return err
		}
		clear(exp)
		if ver != 0 {
			fillBlock(exp, uint64(c), ver)
		}
		if !bytes.Equal(buf, exp) {
			return errWrong{fmt.Errorf("cluster %d is not version %d", c, ver)}
		}
	}
	return nil
}

// TestScrubSpace overwrites a disk ten times over, with snapshots on the way, deletes
// those, and scrubs: little more than what is live is left, and the image is the same
// in this opening, in the next, and without any local state.
func TestScrubSpace(t *testing.T) {
	ctx := context.Background()
	w := newWorld(1)
	n := w.mustStart(t)
	id := testID(1)
	clusters := 4096 // 16 MiB
	n.create(id, int64(clusters*MinClusterSize))
	v := n.open(id)
	r := mrand.New(mrand.NewPCG(1, 2))
	want := make([]uint64, clusters)
	for round := range 10 {
		fillRandom(t, v, r, want, uint64(round+1))
		if round%3 == 0 {
			if _, err := v.Snapshot(ctx, SnapshotSpec{Name: fmt.Sprint(round)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	// A quarter is discarded: it must be given back, and read as zeros.
	if err := v.Unmap(ctx, 0, int64(clusters/4*MinClusterSize)); err != nil {
		t.Fatal(err)
	}
	clear(want[:clusters/4])
	kept := mustScrub(t, v, ScrubOptions{})
	_, before := n.backendBytes(id, "")
	for round := 0; round < 10; round += 3 {
		if err := v.DeleteSnapshot(ctx, fmt.Sprint(round), false); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	dry := mustScrub(t, v, ScrubOptions{DryRun: true})
	if _, size := n.backendBytes(id, scoDir); size != v.Stats().StoredBytes || dry.Units != 0 || dry.Condemned == 0 || len(dry.Doomed) != dry.Condemned {
		t.Fatalf("a dry run changed something, or found nothing: %+v", dry)
	}
	res := mustScrub(t, v, ScrubOptions{})
	live := int64(clusters * 3 / 4 * MinClusterSize)
	objects, after := n.backendBytes(id, "")
	t.Logf("with snapshots %+v", kept)
	t.Logf("without %+v", res)
	t.Logf("%d bytes before, %d after in %d objects, live %d: %.3f", before, after, objects, live, float64(after)/float64(live))
	if float64(after) > 1.15*float64(live) {
		t.Errorf("%d bytes are left of %d that are live", after, live)
	}
	if res.Deleted != res.Condemned || res.Deleted < dry.Condemned || res.Live != live || res.StoredAfter != v.Stats().StoredBytes {
		t.Errorf("%+v", res)
	}
	if _, size := n.backendBytes(id, scoDir); size != v.Stats().StoredBytes {
		t.Errorf("stored %d, the backend has %d", v.Stats().StoredBytes, size)
	}
	if again := mustScrub(t, v, ScrubOptions{}); again.Written != 0 || again.Condemned != 0 {
		t.Errorf("a second scrub had something to do: %+v", again)
	}
	for _, lost := range []bool{false, false, true} {
		if err := checkVersions(v, want); err != nil {
			t.Fatal(err)
		}
		n.close()
		if lost {
			w.fs = blockfs.NewMem()
		}
		n = w.mustStart(t)
		v = n.open(id)
		if err := sameMap(v); err != nil {
			t.Fatal(err)
		}
	}
	if err := checkVersions(v, want); err != nil {
		t.Fatal(err)
	}
	n.sweepClean()
	n.close()
}

// sweepClean asserts that nothing is on the backend that no head reaches.
func (n *node) sweepClean() {
	n.t.Helper()
	res, err := n.pool.Sweep(context.Background(), true)
	if err != nil || res.Garbage != 0 || len(res.Quarantined) != 0 {
		n.t.Errorf("%v %+v", err, res)
	}
}

var _ = errors.Is
var _ = strings.Contains
var _ backend.Store
