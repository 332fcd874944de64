package cache

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	mrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/clock"
)

const testGroup = 64<<10 + 64

func openDisk(t *testing.T, fsys blockfs.FS, slots int64) *Disk {
	t.Helper()
	d, err := OpenDisk(DiskOptions{FS: fsys, Name: "cache", Bytes: slots * SlotBytes, Rand: rand.Reader, Clock: clock.Real{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// offerAll offers groups as memory does and waits until each is written or refused.
func offerAll(t *testing.T, d *Disk, uses int, keys ...Key) {
	t.Helper()
	for _, k := range keys {
		offerOne(d, testUser, k, uses)
	}
}

func offerOne(d *Disk, u *User, k Key, uses int) {
	before := d.Stats()
	d.Offer(k, u, groupOf(k, testGroup), uses)
	for s := d.Stats(); s.Written == before.Written && s.Refused == before.Refused && s.Err == nil; s = d.Stats() {
		time.Sleep(10 * time.Microsecond)
	}
}

func keys(from, to uint32) []Key {
	var ks []Key
	for i := from; i < to; i++ {
		ks = append(ks, Key{Space: 1, SCO: i / 7, Group: i % 7})
	}
	return ks
}

// TestSecondLevel: what leaves memory is read from the disk, not from the backend.
func TestSecondLevel(t *testing.T) {
	fsys, err := blockfs.OS(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	d := openDisk(t, fsys, 500)
	c := New(shards*2*testGroup, d)
	loads := 0
	read := func(k Key) {
		t.Helper()
		b, err := c.Get(context.Background(), k, testUser, func() ([]byte, error) { loads++; return groupOf(k, testGroup), nil })
		if err != nil || len(b) != testGroup || !isGroupOf(b, k) {
			t.Fatalf("%+v: %d bytes, %v", k, len(b), err)
		}
	}
	all := keys(0, 400)
	for _, k := range all {
		read(k)
		for len(d.queue) > queueLength/2 {
			time.Sleep(10 * time.Microsecond)
		}
	}
	for len(d.queue) > 0 {
		time.Sleep(10 * time.Microsecond)
	}
	if loads != len(all) {
		t.Fatalf("%d loads of %d groups", loads, len(all))
	}
	loads = 0
	for _, k := range all {
		read(k)
	}
	if s := c.Disks()[0]; loads > 5 || s.Hits < 300 || s.Bytes < 300*SlotBytes || s.Err != nil {
		t.Errorf("%d loads when all had been read, %+v", loads, s)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// TestSlotsAreVerified: readers of slots that are given to others meanwhile get their
// group or none (C4).
func TestSlotsAreVerified(t *testing.T) {
	d := openDisk(t, blockfs.NewMem(), 8)
	var wg sync.WaitGroup
	var wrong, found atomic.Int64
	for i := range uint64(4) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := mrand.New(mrand.NewPCG(i, 1))
			for range 2000 {
				k := keys(0, 40)[r.IntN(40)]
				switch r.IntN(8) {
				case 0:
					d.Drop(k)
				case 1, 2, 3:
					d.Offer(k, testUser, groupOf(k, testGroup), 1+r.IntN(9))
				default:
					if b := d.Get(k); b != nil {
						found.Add(1)
						if len(b) != testGroup || !isGroupOf(b, k) {
							wrong.Add(1)
						}
					}
				}
			}
		}()
	}
	wg.Wait()
	if wrong.Load() > 0 || found.Load() == 0 {
		t.Errorf("%d wrong of %d found", wrong.Load(), found.Load())
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for k, s := range d.index {
		if !d.slots[s].held || d.slots[s].key != k {
			t.Errorf("slot %d is not %+v's: %+v", s, k, d.slots[s])
		}
	}
}

// TestDamagedSlot: a flipped bit anywhere in a slot makes the group one that is not
// there, as does what an earlier run left.
func TestDamagedSlot(t *testing.T) {
	fsys := blockfs.NewMem()
	d := openDisk(t, fsys, 4)
	k := Key{Space: 3, SCO: 4, Group: 5}
	f, err := fsys.Open("cache", blockfs.Write)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, at := range []int64{0, 9, 17, 25, 29, 33, 37, 64, 70, 64 + testGroup - 1} {
		offerAll(t, d, 1, k)
		if b := d.Get(k); !isGroupOf(b, k) {
			t.Fatalf("offered and not there: %d bytes", len(b))
		}
		d.mu.Lock()
		off := int64(d.index[k]) * SlotBytes
		d.mu.Unlock()
		b := make([]byte, 1)
		if _, err := f.ReadAt(b, off+at); err != nil {
			t.Fatal(err)
		}
		b[0] ^= 0x10
		if _, err := f.WriteAt(b, off+at); err != nil {
			t.Fatal(err)
		}
		if b := d.Get(k); b != nil {
			t.Fatalf("byte %d flipped, and read as %d bytes", at, len(b))
		}
	}
	offerAll(t, d, 1, k)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = openDisk(t, fsys, 4)
	if b := d.Get(k); b != nil {
		t.Error("a group of an earlier run is there")
	}
}

// TestScan: one pass over much more than there is room for leaves what is used often
// (C6).
func TestScan(t *testing.T) {
	d := openDisk(t, blockfs.NewMem(), 100)
	hot := keys(0, 80)
	offerAll(t, d, 2, hot...)
	for range 3 {
		for _, k := range hot {
			d.Get(k)
		}
	}
	for i, k := range keys(1000, 3000) {
		d.Get(k)
		offerAll(t, d, 0, k)
		if i%3 == 0 { // meanwhile the hot ones stay in use
			d.Get(hot[i/3%len(hot)])
		}
	}
	left := 0
	for _, k := range hot {
		if isGroupOf(d.Get(k), k) {
			left++
		}
	}
	if left < len(hot)*9/10 {
		t.Errorf("%d of %d groups in use survived a scan", left, len(hot))
	}
	// What becomes popular gets in.
	next := keys(5000, 5050)
	for range 14 {
		for _, k := range next {
			d.Get(k)
		}
	}
	offerAll(t, d, 4, next...)
	in := 0
	for _, k := range next {
		if d.Get(k) != nil {
			in++
		}
	}
	if in < len(next)*8/10 {
		t.Errorf("%d of %d popular groups got in", in, len(next))
	}
}

// TestFailingDisk: a full or failing disk rests and says why, nobody waits for it, and
// it works again by itself (C5).
func TestFailingDisk(t *testing.T) {
	for _, fails := range []error{syscall.ENOSPC, syscall.EIO} {
		synctest.Test(t, func(t *testing.T) {
			var on atomic.Bool
			fsys := blockfs.Inject(blockfs.NewMem(), func(op blockfs.OpInfo) error {
				if on.Load() && (op.Kind == blockfs.OpWrite || op.Kind == blockfs.OpRead && errors.Is(fails, syscall.EIO)) {
					return fails
				}
				return nil
			})
			d := openDisk(t, fsys, 10)
			ks := keys(0, 9)
			put := func(k Key) {
				d.Offer(k, testUser, groupOf(k, testGroup), 1)
				synctest.Wait()
			}
			put(ks[0])
			on.Store(true)
			put(ks[1])
			if s := d.Stats(); !errors.Is(s.Err, fails) || s.Written != 1 {
				t.Fatalf("%v: %+v", fails, s)
			}
			if d.Get(ks[0]) != nil || d.Get(ks[1]) != nil {
				t.Error("a resting disk is read")
			}
			time.Sleep(minRest)
			put(ks[2]) // fails again, rests twice as long
			time.Sleep(minRest)
			on.Store(false)
			put(ks[3])
			if s := d.Stats(); s.Written != 1 || s.Err == nil {
				t.Errorf("it did not rest: %+v", s)
			}
			time.Sleep(minRest)
			put(ks[4])
			if s := d.Stats(); s.Err != nil || s.Written != 2 || d.Get(ks[4]) == nil || d.Get(ks[0]) == nil {
				t.Errorf("it does not work again: %+v", s)
			}
			d.Close()
		})
	}
}

// TestSketch: counts are not too small, and fade.
func TestSketch(t *testing.T) {
	s := newSketch(1000)
	for i, k := range keys(0, 1000) {
		s.add(k, i%5)
	}
	for i, k := range keys(0, 1000) {
		if n := int(s.count(k)); n < i%5 {
			t.Fatalf("key %d was used %d times, counted %d", i, i%5, n)
		}
	}
	k := keys(0, 1)[0]
	s.add(k, 100)
	if n := s.count(k); n != sketchMax {
		t.Errorf("count %d", n)
	}
	for _, other := range keys(10, 10240) {
		s.add(other, 3)
	}
	if n := s.count(k); n > sketchMax/2 {
		t.Errorf("count %d did not fade", n)
	}
}
