package volume

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
)

// numbered returns an id for many vDisks.
func numbered(n int) ID {
	id := testID(0xee)
	binary.BigEndian.PutUint32(id[1:], uint32(n))
	return id
}

// TestManyClones: a thousand clones of a template, each made in the time of the
// first, each with a map of its own that costs next to nothing.
func TestManyClones(t *testing.T) {
	ctx := context.Background()
	w := newWorld(61)
	a := testID(1)
	n := w.mustStart(t)
	n.create(a, 64<<20)
	v := n.open(a)
	for c := int64(0); c < 64<<20; c += 512 << 10 {
		mustWrite(t, v, c, uint32(c>>12)+1)
	}
	if err := v.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if err := n.pool.SetTemplate(ctx, a, true); err != nil {
		t.Fatal(err)
	}
	count := 1000
	if testing.Short() {
		count = 200
	}
	// What a clone asks of the disk and of the store does not grow with their number.
	var asked atomic.Int64
	note := func(int64, blockfs.OpInfo) { asked.Add(1) }
	w.fs.SetHook(note)
	w.be.SetHook(note)
	var took []int64
	for i := range count {
		before := asked.Load()
		n.clone(numbered(i), a, Point{}, 0)
		took = append(took, asked.Load()-before)
	}
	w.fs.SetHook(nil)
	w.be.SetHook(nil)
	const part = 100
	first, last := slices.Max(took[:part]), slices.Max(took[count-part:])
	t.Logf("operations of a clone: at most %d of the first %d, %d of the last", first, part, last)
	if first == 0 || last > first {
		t.Errorf("a clone takes %d operations, the first took %d", last, first)
	}
	n.wantClones(a, count)
	var open []*Volume
	for i := range 20 {
		v := n.open(numbered(i * count / 20))
		wantVersion(t, v, 16<<20, 16<<20>>12+1)
		mustWrite(t, v, 0, uint32(i)+5000)
		open = append(open, v)
	}
	for i, v := range open {
		mustCommit(t, v)
		wantVersion(t, v, 0, uint32(i)+5000)
		if s := v.Stats(); s.MapMemoryBytes > 32<<10 || v.parent != open[0].parent {
			t.Fatalf("clone %d: a map of %d bytes", i, s.MapMemoryBytes)
		}
	}
	n.close()
}

// TestDepth: a chain of the most vDisks there can be reads right at its end, and is
// not made longer.
func TestDepth(t *testing.T) {
	if testing.Short() {
		t.Skip("one vDisk is made after the other; TestCrashFamily and TestFlattenUnderLoad have chains in use")
	}
	ctx := context.Background()
	w := newWorld(62)
	n := w.mustStart(t)
	n.create(numbered(0), 2<<20)
	for i := range MaxDepth {
		v := n.open(numbered(i))
		mustWrite(t, v, int64(i)*4096, uint32(i)+1)
		mustWrite(t, v, 300*4096, uint32(i)+1)
		if err := v.Close(ctx); err != nil {
			t.Fatal(err)
		}
		n.clone(numbered(i+1), numbered(i), Point{}, 0)
	}
	if err := n.pool.Clone(ctx, CloneSpec{ID: numbered(999), Source: numbered(MaxDepth)}); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "flatten") {
		t.Fatalf("a chain above the limit: %v", err)
	}
	n.close()
	n = w.mustStart(t)
	v := n.open(numbered(MaxDepth))
	if len(v.chain) != MaxDepth+1 {
		t.Fatalf("a chain of %d", len(v.chain))
	}
	for i := range MaxDepth {
		wantVersion(t, v, int64(i)*4096, uint32(i)+1)
	}
	wantVersion(t, v, 300*4096, MaxDepth)
	if err := v.Flatten(ctx, nil); err != nil {
		t.Fatal(err)
	}
	wantVersion(t, v, 254*4096, 255)
	n.clone(numbered(999), numbered(MaxDepth), Point{}, 0) // its chain is short now
	n.close()
}

// TestTimeTravel: each write carries a global counter. Clones of random moments,
// made while the writes go on, are the image after exactly n writes for some n, and
// not older than a commit interval.
func TestTimeTravel(t *testing.T) {
	// On the time of the bubble, of which a busy machine takes none.
	synctest.Test(t, timeTravel)
	// syncPool holds requests whose channels are of the bubble, which nobody may use outside;
	// what nobody took in between the second collection drops.
	runtime.GC()
	runtime.GC()
}

func timeTravel(t *testing.T) {
	ctx := context.Background()
	w := newWorld(63)
	w.opts.MapMemoryBytes, w.opts.checkpointTLogs = 0, 0 // it is about time
	w.settings.CommitInterval = 100 * time.Millisecond
	a := testID(1)
	n := w.mustStart(t)
	const clusters = 256
	n.create(a, clusters*4096)
	v := n.open(a)
	var mu sync.Mutex
	var at []time.Time // when write n was acknowledged
	var where []int64  // which cluster it wrote
	stop := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		r := mrand.New(mrand.NewPCG(63, 1))
		for ver := uint32(1); ; ver++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			c := r.Int64N(clusters)
			if err := write(t, v, c*4096, ver); err != nil {
				done <- err
				return
			}
			mu.Lock()
			at, where = append(at, time.Now()), append(where, c)
			mu.Unlock()
			time.Sleep(200 * time.Microsecond) // a rate, so that many commits see few writes each
		}
	}()
	r := mrand.New(mrand.NewPCG(63, 2))
	started := time.Now()
	for i := range 20 {
		time.Sleep(50 * time.Millisecond)
		moment := started.Add(time.Duration(r.Int64N(int64(time.Since(started)))))
		id := numbered(i)
		n.clone(id, a, Point{At: moment}, 0)
		c := n.open(id)
		have, err := readVersions(c)
		if err != nil {
			t.Fatal(err)
		}
		last := slices.Max(have) // the image after this many writes
		mu.Lock()
		acked, clock := slices.Clone(where), slices.Clone(at)
		mu.Unlock()
		want := make([]uint32, len(have))
		for k := range last {
			for s := range int64(8) {
				want[acked[k]*8+s] = k + 1
			}
		}
		if !slices.Equal(have, want) {
			t.Fatalf("clone %d is not the image after %d writes: %s", i, last, diffVersions(have, want))
		}
		// The write after it was acknowledged later than a commit interval before the moment.
		if int(last) < len(clock) && moment.Sub(clock[last]) > w.settings.CommitInterval+time.Millisecond {
			t.Fatalf("clone %d of %s is as of %s, before write %d", i, moment, clock[last], last+1)
		}
		if last > 0 && clock[last-1].After(moment) {
			t.Fatalf("clone %d of %s has write %d of %s", i, moment, last, clock[last-1])
		}
		if err := c.Close(ctx); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Logf("%d writes, 20 moments", len(at))
	n.close()
}

// TestFlattenUnderLoad: writes, unmaps and reads beside a flatten lose nothing, and
// the parent is deleted as soon as it ends.
func TestFlattenUnderLoad(t *testing.T) {
	ctx := context.Background()
	w := newWorld(64)
	a, b := testID(1), testID(2)
	n := w.mustStart(t)
	const size = 24 << 20
	n.create(a, size)
	v := n.open(a)
	o := newOracle(size)
	for off := int64(0); off < size; off += 64 << 10 {
		s := step{kind: ReqWrite, off: off, n: 64 << 10, ver: uint32(off>>16) + 1}
		if err := o.run(v, s); err != nil {
			t.Fatal(err)
		}
	}
	n.clone(b, a, Point{}, 0)
	if err := v.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if err := n.pool.Delete(ctx, a); err != nil {
		t.Fatal(err)
	}
	v = n.open(b)
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		r := mrand.New(mrand.NewPCG(64, 1))
		for ver := uint32(1000); ; ver++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			s := randomStep(r, size, 4096, 64<<10, ver)
			if s.kind == ReqReserve {
				continue
			}
			if err := o.run(v, s); err != nil {
				done <- err
				return
			}
		}
	}()
	if err := v.Flatten(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if n.objects(a) != 0 {
		t.Errorf("%d objects of the parent are left", n.objects(a))
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := o.checkAll(v, false); err != nil {
		t.Fatal(err)
	}
	n.kill()
	n = w.mustStart(t)
	if err := o.checkAll(n.open(b), false); err != nil {
		t.Fatal(err)
	}
	n.close()
}

// BenchmarkChain reads 4 KiB at random through chains of clones; without one it is a
// plain vDisk. The data are in the cache: what differs is the way to them.
func BenchmarkChain(b *testing.B) {
	for _, depth := range []int{0, 50} {
		b.Run(fmt.Sprint(depth), func(b *testing.B) {
			ctx := context.Background()
			w := newWorld(65)
			w.opts.CacheBytes = 64 << 20
			n := w.mustStart(b)
			const size = 16 << 20
			n.create(numbered(0), size)
			for i := 0; ; i++ {
				v := n.open(numbered(i))
				if i == 0 {
					for off := int64(0); off < size; off += 64 << 10 {
						if err := v.WriteAt(ctx, versions(off, 64<<10, func(int64) uint32 { return 1 }), off); err != nil {
							b.Fatal(err)
						}
					}
				}
				mustWrite(b, v, int64(i)*4096, 2)
				mustCommit(b, v)
				if i == depth {
					break
				}
				if err := v.Close(ctx); err != nil {
					b.Fatal(err)
				}
				n.clone(numbered(i+1), numbered(i), Point{}, 0)
			}
			v := n.pool.Volume(numbered(depth))
			p := make([]byte, 1<<20)
			for off := int64(0); off < size; off += int64(len(p)) {
				if err := v.ReadAt(ctx, p, off); err != nil {
					b.Fatal(err)
				}
			}
			r := mrand.New(mrand.NewPCG(65, 1))
			b.SetBytes(4096)
			for b.Loop() {
				if err := v.ReadAt(ctx, p[:4096], r.Int64N(size/4096)*4096); err != nil {
					b.Fatal(err)
				}
			}
			n.close()
		})
	}
}
