package volume

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/cache"
)

// countedStore counts range reads, and costs the same for all of them.
type countedStore struct {
	backend.Store
	reads *atomic.Int64
}

func (s countedStore) ReadAt(ctx context.Context, name string, p []byte, off int64) error {
	s.reads.Add(1)
	return s.Store.ReadAt(ctx, name, p, off)
}

func (s countedStore) Features() backend.Features {
	f := s.Store.Features()
	f.CheapReads = false
	return f
}

// TestOneRequest: where a request has its price, a random read that is not cached costs
// one, checksums included.
func TestOneRequest(t *testing.T) {
	const clusters, perGroup = 8192, 16
	w := newWorld(93)
	var reads atomic.Int64
	w.wrapStore = func(s backend.Store) (backend.Store, error) { return countedStore{s, &reads}, nil }
	w.opts.CacheBytes = 32 << 20
	n := w.mustStart(t)
	defer n.close()
	n.create(testID(1), clusters*4096)
	v := n.open(testID(1))
	for i := int64(0); i < clusters; i++ {
		mustWrite(t, v, i*4096, uint32(i+1))
	}
	mustCommit(t, v)
	rng := rand.New(rand.NewPCG(93, 1))
	groups := rng.Perm(clusters / perGroup / 2) // every other group: neighbours may be a sequence
	reads.Store(0)
	for _, g := range groups {
		i := int64(2*g*perGroup + rng.IntN(perGroup))
		wantVersion(t, v, i*4096, uint32(i+1))
	}
	if got := reads.Load(); got > int64(len(groups)) {
		t.Errorf("%d requests for %d reads", got, len(groups))
	}
}

// TestCacheCounters: each cluster of a read counts once, as found in the cache or as had from the backend, however
// the read is in pieces; what a read fetches for its own other pieces is not found.
func TestCacheCounters(t *testing.T) {
	const clusters, atOnce = 2048, 256
	w := newWorld(95)
	w.opts.CacheBytes, w.opts.WriteMemoryBytes = 64<<20, 1 // nothing is left in the journal's memory
	n := w.mustStart(t)
	defer n.close()
	n.create(testID(1), clusters*4096)
	v := n.open(testID(1))
	for _, i := range rand.New(rand.NewPCG(95, 1)).Perm(clusters) {
		mustWrite(t, v, int64(i)*4096, uint32(i+1))
	}
	mustCommit(t, v)
	was := v.Stats()
	pass := func(what string, least, most uint64) {
		t.Helper()
		p := make([]byte, atOnce*4096)
		for off := int64(0); off < clusters*4096; off += int64(len(p)) {
			if err := v.ReadAt(context.Background(), p, off); err != nil {
				t.Fatal(err)
			}
		}
		s := v.Stats()
		hits, misses := s.CacheHits-was.CacheHits, s.CacheMisses-was.CacheMisses
		if hits+misses != clusters || misses < least || misses > most {
			t.Errorf("%s: %d clusters were found, %d were not", what, hits, misses)
		}
		was = s
	}
	pass("first", atOnce, clusters)
	pass("again", 0, atOnce) // a cluster alone in its group, the last of an SCO, is kept when it is read once more
	pass("once more", 0, 0)
}

// TestReadCacheOnDisk: what memory has no room for is read from the READ disk; one that
// is damaged or fails costs nothing but reads of the backend; one that is broken from
// the start is left out, and said.
func TestReadCacheOnDisk(t *testing.T) {
	const clusters = 4096
	w := newWorld(92)
	var reads atomic.Int64
	w.wrapStore = func(s backend.Store) (backend.Store, error) { return countedStore{s, &reads}, nil }
	w.opts.CacheBytes = 16 * 140 << 10 // two groups in each shard
	disk := blockfs.NewMem()
	var fails atomic.Bool
	failing := blockfs.Inject(disk, func(blockfs.OpInfo) error {
		if fails.Load() {
			return syscall.EIO
		}
		return nil
	})
	broken := blockfs.Inject(blockfs.NewMem(), func(blockfs.OpInfo) error { return syscall.EROFS })
	w.opts.ReadCaches = []ReadCache{{"broken", broken, 16 << 20}, {"disk", failing, 32 << 20}}
	n := w.mustStart(t)
	defer n.close()
	n.create(testID(1), clusters*4096)
	v := n.open(testID(1))
	for i := int64(0); i < clusters; i++ {
		mustWrite(t, v, i*4096, uint32(i+1))
	}
	mustCommit(t, v)
	pass := func(what string) int64 {
		t.Helper()
		before := reads.Load()
		for i := int64(0); i < clusters; i++ {
			wantVersion(t, v, i*4096, uint32(i+1))
			if i%16 != 0 {
				continue
			}
			// The disk takes what comes: wait until it has.
			for s := n.host.Usage().ReadCaches[0]; s.Queued > 0; s = n.host.Usage().ReadCaches[0] {
				time.Sleep(10 * time.Microsecond)
			}
		}
		took := reads.Load() - before
		u := n.host.Usage().ReadCaches
		t.Logf("%s: %d reads of the backend, %+v", what, took, u[0].DiskStats)
		if len(u) != 2 || u[0].Name != "disk" || u[1].Name != "broken" || u[1].Err == nil {
			t.Fatalf("usage %+v", u)
		}
		return took
	}
	first := pass("first pass")
	if first < clusters/16 {
		t.Fatalf("only %d reads", first)
	}
	if again := pass("second pass"); again > first/20 {
		t.Errorf("%d reads of the backend when all was in the cache", again)
	}
	f, err := disk.Open("groups", blockfs.Write)
	if err != nil {
		t.Fatal(err)
	}
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	for off := int64(1000); off < size; off += cache.SlotBytes {
		if _, err := f.WriteAt([]byte("damage"), off); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	if again := pass("damaged"); again < first/2 {
		t.Errorf("only %d reads of the backend with a damaged cache", again)
	}
	fails.Store(true)
	if again := pass("failing"); again < first/2 {
		t.Errorf("only %d reads of the backend with a failing cache", again)
	}
	if s := n.host.Usage().ReadCaches[0]; s.Err == nil {
		t.Errorf("the failing cache says nothing: %+v", s)
	}
	fails.Store(false)
}
