package volume

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/cache"
)

// TestCachePolicy: what was written is read without the backend if it is kept on write,
// what was read if it is kept on read, and a vDisk has no more than its quota, also after
// it was opened again.
func TestCachePolicy(t *testing.T) {
	const size, quota = 24 << 20, 10 << 20
	ctx := context.Background()
	w := newWorld(94)
	var reads atomic.Int64
	w.wrapStore = func(s backend.Store) (backend.Store, error) { return countedStore{s, &reads}, nil }
	w.opts.CacheBytes, w.opts.WriteMemoryBytes = 256<<20, 1 // nothing is left in the journal's memory
	n := w.mustStart(t)
	defer n.close()
	id := testID(1)
	n.create(id, size)
	v := n.open(id)
	ver := uint32(0)
	fill := func() {
		t.Helper()
		ver++
		const step = 64 << 10
		for off := int64(0); off < size; off += step {
			if err := v.WriteAt(ctx, versions(off, step, func(int64) uint32 { return ver }), off); err != nil {
				t.Fatal(err)
			}
		}
		mustCommit(t, v)
	}
	step := int64(MinClusterSize)
	if testing.Short() {
		step *= 4 // of every cluster is what takes the time
	}
	pass := func() int64 {
		t.Helper()
		before := reads.Load()
		for off := int64(0); off < size; off += step {
			wantVersion(t, v, off, ver)
		}
		return reads.Load() - before
	}

	v.SetCache(CachePolicy{Mode: cache.OnWrite})
	fill()
	if r := pass(); r != 0 {
		t.Fatalf("%d reads of what was kept on write", r)
	}
	v.SetCache(CachePolicy{Mode: cache.OnRead})
	fill()
	first := pass()
	if again := pass(); first == 0 || again != 0 {
		t.Fatalf("%d reads, then %d", first, again)
	}
	// The quota, and none: every pass reads most of it again.
	for _, p := range []CachePolicy{{cache.OnRead, quota}, {cache.OnWrite, quota}, {Mode: cache.None}} {
		v.SetCache(p)
		fill()
		for range 2 {
			if r := pass(); r < first/3 {
				t.Fatalf("%+v: %d reads of %d", p, r, first)
			}
			if b := v.Stats().CacheBytes; b > quota {
				t.Fatalf("%+v: %d bytes are kept", p, b)
			}
		}
	}
	if err := v.Close(ctx); err != nil {
		t.Fatal(err)
	}
	before := v.Stats().CacheBytes
	v = n.open(id)
	if b := v.Stats().CacheBytes; b == 0 || b != before {
		t.Fatalf("%d bytes after it was opened again, %d before", b, before)
	}
}
