package volume

import (
	"context"
	"errors"
	mrand "math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/sco"
)

// TestStreams: what is loaded ahead, for sequences alone, mixed and out of order, and
// for reads that are none.
func TestStreams(t *testing.T) {
	const size, n = 1 << 30, 64 << 10
	var r readahead
	loaded := map[int64]bool{}
	read := func(off int64) (bytes int64) {
		from, to := r.note(off, n, size, aheadMax)
		for o := from; o < to; o += n {
			if loaded[o] {
				t.Fatalf("%d is loaded twice", o)
			}
			loaded[o] = true
		}
		return max(0, to-from)
	}
	for i := range int64(2) {
		if read(i*n) != 0 {
			t.Fatal("two reads are no sequence")
		}
	}
	for i := int64(2); i < 1000; i++ {
		read(i * n)
		if i > 2 && !loaded[i*n] {
			t.Fatalf("read %d was not loaded ahead", i)
		}
	}
	if ahead := int64(len(loaded))*n - 998*n; ahead > aheadMax+n {
		t.Errorf("%d bytes are loaded ahead", ahead)
	}
	// Several at once, each with neighbours out of order.
	r, loaded = readahead{}, map[int64]bool{}
	for i := int64(0); i < 400; i++ {
		for k := range int64(aheadStreams) {
			read(size/16*(k+1) + (i^1)*n)
			if i > 8 && !loaded[size/16*(k+1)+(i^1)*n] {
				t.Fatalf("stream %d, read %d was not loaded ahead", k, i)
			}
		}
	}
	// Random reads load nothing.
	r, loaded = readahead{}, map[int64]bool{}
	rnd := mrand.New(mrand.NewPCG(1, 2))
	for range 10000 {
		read(rnd.Int64N(size/n) * n)
	}
	if len(loaded) > 100 {
		t.Errorf("%d blocks were loaded ahead of random reads", len(loaded))
	}
	// Nothing beyond the end.
	r = readahead{}
	for i := int64(size/n) - 5; i < size/n; i++ {
		if from, to := r.note(i*n, n, size, aheadMax); to > size || from > to {
			t.Errorf("loads [%d, %d) of %d", from, to, int64(size))
		}
	}
}

// holdReads holds the range reads of a heldStore until n of them wait.
func holdReads(gate *sync.RWMutex, now *atomic.Int64, n int64) {
	gate.Lock()
	go func() {
		for deadline := time.Now().Add(hangLimit); now.Load() < n && time.Now().Before(deadline); {
			time.Sleep(100 * time.Microsecond)
		}
		gate.Unlock()
	}()
}

// heldStore holds range reads until it is told to let them go.
type heldStore struct {
	backend.Store
	reads, now, most *atomic.Int64
	gate             *sync.RWMutex
}

func (s heldStore) ReadAt(ctx context.Context, name string, p []byte, off int64) error {
	s.reads.Add(1)
	n := s.now.Add(1)
	defer s.now.Add(-1)
	for m := s.most.Load(); n > m && !s.most.CompareAndSwap(m, n); m = s.most.Load() {
	}
	s.gate.RLock()
	defer s.gate.RUnlock()
	return s.Store.ReadAt(ctx, name, p, off)
}

func (s heldStore) Features() backend.Features { return backend.Features{ConditionalPut: true} }

// TestReadApart: a read of what many groups have in pieces gets them side by side, each
// with one request, and what it finds damaged is told for the first of its places.
func TestReadApart(t *testing.T) {
	const clusters, perSCO = 256, 32
	for _, cheap := range []bool{false, true} {
		w := newWorld(95)
		var reads, now, most atomic.Int64
		var gate sync.RWMutex
		w.wrapStore = func(s backend.Store) (backend.Store, error) {
			if cheap {
				return s, nil
			}
			return heldStore{s, &reads, &now, &most, &gate}, nil
		}
		n := w.mustStart(t)
		id := testID(1)
		n.create(id, clusters*4096)
		v := n.open(id)
		order := mrand.New(mrand.NewPCG(95, 1)).Perm(clusters)
		for k, i := range order {
			mustWrite(t, v, int64(i)*4096, uint32(i+1))
			if k%perSCO == perSCO-1 {
				mustCommit(t, v)
			}
		}
		n.kill()
		n = w.mustStart(t) // nothing is cached
		v = n.open(id)
		if !cheap {
			reads.Store(0)
			holdReads(&gate, &now, maxFetches)
		}
		b := make([]byte, clusters*4096)
		if err := v.ReadAt(context.Background(), b, 0); err != nil {
			t.Fatal(err)
		}
		for i := range clusters {
			if got, err := sectorVersion(b[i*4096:], uint64(i)*8); err != nil || got != uint32(i+1) {
				t.Fatalf("cluster %d is version %d, %v", i, got, err)
			}
		}
		if got := reads.Load(); !cheap && (most.Load() != maxFetches || got > clusters/16) {
			t.Errorf("%d requests, %d at a time, want %d of %d", got, most.Load(), clusters/16, maxFetches)
		}
		n.kill()
		// Of the damaged clusters, in every second SCO, the one that the disk has first is told.
		names := n.stored(id, scoDir)
		slices.Sort(names)
		if len(names) != clusters/perSCO {
			t.Fatalf("%d SCOs", len(names))
		}
		first := clusters
		for k := 0; k < len(names); k += 2 {
			has := slices.Sorted(slices.Values(order[k*perSCO : (k+1)*perSCO])) // an SCO is in the order of the disk
			first = min(first, has[20])
			n.flip(names[k], 16*(4096+sco.SumBytes)+4*4096+9)
		}
		n = w.mustStart(t)
		v = n.open(id)
		var medium *MediumError
		if err := v.ReadAt(context.Background(), b, 0); !errors.As(err, &medium) || medium.Offset != int64(first)*4096 {
			t.Errorf("%v, want a medium error of cluster %d", err, first)
		}
		n.kill()
	}
}

// TestReadAhead: one sequential reader with one read at a time has several groups on
// their way from the backend, each is fetched once, and what is read is right; a close
// in the middle waits for them.
func TestReadAhead(t *testing.T) {
	const clusters = 4096
	w := newWorld(93)
	w.opts.CacheBytes = 64 << 20
	var reads, now, most atomic.Int64
	var gate sync.RWMutex
	w.wrapStore = func(s backend.Store) (backend.Store, error) { return heldStore{s, &reads, &now, &most, &gate}, nil }
	n := w.mustStart(t)
	defer n.close()
	n.create(testID(1), clusters*4096)
	v := n.open(testID(1))
	for i := int64(0); i < clusters; i++ {
		mustWrite(t, v, i*4096, uint32(i+1))
	}
	mustCommit(t, v)
	buf := make([]byte, 16*4096)
	read := func(i int64) {
		t.Helper()
		if err := v.ReadAt(context.Background(), buf, i*int64(len(buf))); err != nil {
			t.Fatal(err)
		}
		for k := range int64(16) {
			if got, err := sectorVersion(buf[k*4096:], uint64(i*16+k)*8); err != nil || got != uint32(i*16+k+1) {
				t.Fatalf("cluster %d is version %d, %v", i*16+k, got, err)
			}
		}
	}
	// With the backend held, the third read of the sequence starts what comes after it.
	for i := range int64(2) {
		read(i)
	}
	holdReads(&gate, &now, 4)
	for i := int64(2); i < clusters/16; i++ {
		read(i)
	}
	if most.Load() < 4 {
		t.Errorf("at most %d reads of the backend at a time", most.Load())
	}
	// 16 clusters a group, and one more where an SCO ends within one.
	if got := reads.Load(); got > clusters/16+int64(v.Stats().SCOs)*2+2 {
		t.Errorf("%d reads of the backend for %d groups", got, clusters/16)
	}
	if err := v.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}
