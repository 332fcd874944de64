package asd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/alba/osd/osdtest"
	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

const testID = "00112233-4455-6677-8899-aabbccddeeff"

// testOptions make a device that takes little memory: thousands are opened.
func testOptions() Options {
	return Options{
		Create: true, ID: testID, Rand: rand.NewChaCha8([32]byte{1}),
		CacheBytes: 256 << 10, MemTableBytes: 256 << 10, Version: "test",
	}
}

func mustOpen(t testing.TB, fsys blockfs.FS) *Store {
	t.Helper()
	s, err := Open(fsys, testOptions())
	must(t, err)
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustBe(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: error %v, want %v", what, err, want)
	}
}

func (s *Store) set(t testing.TB, key string, value []byte) {
	t.Helper()
	must(t, s.Apply(t.Context(), nil, []osd.Update{osd.Set([]byte(key), value)}, osd.High))
}

func (s *Store) delete(t testing.TB, key string) {
	t.Helper()
	must(t, s.Apply(t.Context(), nil, []osd.Update{osd.Delete([]byte(key))}, osd.High))
}

func (s *Store) read(t testing.TB, key string) ([]byte, error) {
	t.Helper()
	v, err := s.Get(t.Context(), [][]byte{[]byte(key)}, osd.MaxValueBytes, osd.High)
	if err != nil {
		return nil, err
	}
	return v[0].Data, nil
}

func (s *Store) mustHold(t testing.TB, key string, want []byte) {
	t.Helper()
	got, err := s.read(t, key)
	must(t, err)
	if (got == nil) != (want == nil) || !bytes.Equal(got, want) {
		t.Fatalf("%s: %d bytes that are not the %d expected", key, len(got), len(want))
	}
}

// checkSpace compares the free space with the index: every extent of a value has
// its 'x' entry and no other has one, and what is free is the rest of the
// containers (A2).
func checkSpace(t testing.TB, s *Store) {
	t.Helper()
	want := map[extent]bool{}
	scan(t, s, spaceValues, func(k, v []byte) {
		e, err := decodeEntry(v)
		must(t, err)
		if known, ok := s.entries.Get(string(k[1:])); ok && (known.extent != e.extent || known.kind != e.kind || !bytes.Equal(known.blocks, e.blocks)) {
			t.Fatalf("%q: remembered is %v, the index has %v", k[1:], known.extent, e.extent) // A8
		}
		if e.kind == kindExtent {
			want[e.extent] = true
		}
	})
	used, frees := int64(0), map[uint32]*freeRuns{}
	scan(t, s, spaceExtents, func(k, v []byte) {
		e, err := decodeExtent(k, v)
		must(t, err)
		if !want[e] {
			t.Fatalf("%v belongs to no value", e)
		}
		delete(want, e)
		used += e.bytes()
		if frees[e.file] == nil {
			f := allFree()
			frees[e.file] = &f
		}
		if !frees[e.file].claim(e.page, e.pages) {
			t.Fatalf("%v overlaps another", e)
		}
	})
	if len(want) > 0 {
		t.Fatalf("without an x entry: %v", want)
	}
	s.blobs.mu.Lock()
	defer s.blobs.mu.Unlock()
	if s.blobs.used != used {
		t.Fatalf("%d bytes in use, the extents have %d", s.blobs.used, used)
	}
	for file, c := range s.blobs.files {
		f := allFree()
		if frees[file] != nil {
			f = *frees[file]
		} else if file != firstContainer {
			t.Fatalf("container %d is empty and still there", file)
		}
		if fmt.Sprint(f.runs) != fmt.Sprint(c.free.runs) || f.max != c.free.max || f.free != c.free.free {
			t.Fatalf("container %d: free %+v, the index says %+v", file, c.free, f)
		}
	}
}

// scan walks one space of the index.
func scan(t testing.TB, s *Store, space byte, fn func(k, v []byte)) {
	t.Helper()
	it, err := s.db.NewIter(nil)
	must(t, err)
	for it.SeekGE([]byte{space}); it.Valid() && it.Key()[0] == space; it.Next() {
		v, err := it.ValueAndErr()
		must(t, err)
		fn(it.Key(), v)
	}
	must(t, it.Error())
	must(t, it.Close())
}

// corrupt flips a bit of a value's extent on the disk.
func corrupt(t *testing.T, s *Store, key []byte, off int64) {
	t.Helper()
	e, found, err := s.replaced(key)
	if err != nil || !found || e.kind != kindExtent {
		t.Fatalf("no extent of %q: %v", key, err)
	}
	f, err := s.fs.Open(containerPath(e.extent.file), blockfs.Write)
	must(t, err)
	b := make([]byte, 1)
	_, err = f.ReadAt(b, e.extent.offset()+off)
	must(t, err)
	b[0] ^= 4
	_, err = f.WriteAt(b, e.extent.offset()+off)
	must(t, err)
	must(t, f.Sync())
	must(t, f.Close())
}

func conformance(t *testing.T, fsys func(t *testing.T) blockfs.FS) {
	osdtest.Run(t, osdtest.Options{
		New: func(t *testing.T) osd.OSD {
			s := mustOpen(t, fsys(t))
			t.Cleanup(func() {
				if !s.closed {
					checkSpace(t, s)
				}
			})
			return s
		},
		SetFull: func(_ *testing.T, d osd.OSD, full bool) { d.(*Store).SetFault(Fault{Full: full}) },
		Corrupt: func(t *testing.T, d osd.OSD, key []byte, off int64) { corrupt(t, d.(*Store), key, off) },
	})
}

func TestConformanceMem(t *testing.T) {
	conformance(t, func(*testing.T) blockfs.FS { return blockfs.NewMem() })
}

func TestConformanceOS(t *testing.T) {
	conformance(t, func(t *testing.T) blockfs.FS {
		fsys, err := blockfs.OS(t.TempDir())
		must(t, err)
		return fsys
	})
}

func TestReopen(t *testing.T) {
	m := blockfs.NewMem()
	var last osd.Info
	for round := range 4 {
		s := mustOpen(t, m)
		checkSpace(t, s)
		i, err := s.Info(t.Context())
		must(t, err)
		if i.ID != testID || i.Applies != last.Applies {
			t.Fatalf("round %d: %+v, before the close %+v", round, i, last)
		}
		for k := range round {
			s.mustHold(t, fmt.Sprint("k", k), osdtest.Data(uint64(k), k*40000))
		}
		s.set(t, fmt.Sprint("k", round), osdtest.Data(uint64(round), round*40000))
		s.set(t, "gone", osdtest.Data(1, 50000))
		s.delete(t, "gone")
		checkSpace(t, s)
		last, err = s.Info(t.Context())
		must(t, err)
		must(t, s.Close())
	}
}

func TestLargestValue(t *testing.T) {
	if testing.Short() {
		t.Skip("65 MiB")
	}
	s := mustOpen(t, blockfs.NewMem())
	data := osdtest.Data(1, osd.MaxValueBytes)
	for i := range 4 { // three fit a container
		s.set(t, fmt.Sprint("k", i), data)
	}
	if len(s.blobs.files) != 2 {
		t.Fatalf("%d containers", len(s.blobs.files))
	}
	s.mustHold(t, "k3", data)
	s.delete(t, "k3")
	checkSpace(t, s)
	if len(s.blobs.files) != 1 {
		t.Fatal("an empty container stays")
	}
	must(t, s.Close())
}

// TestRemembered: an entry that was read is not read again from the index, and never outlives
// what it says (A8), beside a writer whose space is used again at once too.
func TestRemembered(t *testing.T) {
	s := mustOpen(t, blockfs.NewMem())
	const size = 2 * osd.Block
	value := func(version byte) []byte { return bytes.Repeat([]byte{version}, size) }
	read := func(p []byte) error { return s.Read(t.Context(), []byte("k"), osd.Block, p, osd.High) }
	p := make([]byte, 4096)

	s.set(t, "k", value(1))
	for range 2 {
		must(t, read(p))
	}
	if _, ok := s.entries.Get("k"); !ok || !bytes.Equal(p, value(1)[:len(p)]) {
		t.Fatal("not remembered, or wrong")
	}
	mustBe(t, "beyond the end", read(make([]byte, osd.Block+1)), osd.ErrRange)
	s.set(t, "k", value(2))
	if must(t, read(p)); p[0] != 2 {
		t.Fatalf("version %d after 2 was set", p[0])
	}
	s.set(t, "k", []byte("small")) // inline
	mustBe(t, "beyond the end of the small one", read(p), osd.ErrRange)
	s.set(t, "k", value(3))
	must(t, read(p))
	s.delete(t, "k")
	mustBe(t, "deleted", read(p), osd.ErrNotExist)

	var wrote atomic.Uint32 // the last that was acknowledged
	s.set(t, "k", value(0))
	var wg sync.WaitGroup
	wg.Go(func() {
		for v := range byte(200) {
			if err := s.Apply(context.Background(), nil, []osd.Update{osd.Set([]byte("k"), value(v))}, osd.High); err != nil {
				t.Error(err)
				break
			}
			wrote.Store(uint32(v))
		}
		wrote.Store(255)
	})
	for range 3 {
		wg.Go(func() {
			p, last := make([]byte, osd.Block), byte(0)
			for {
				least := wrote.Load()
				if least == 255 {
					return
				}
				if err := s.Read(context.Background(), []byte("k"), osd.Block, p, osd.High); err != nil {
					t.Error(err)
					return
				}
				if p[0] < byte(least) || p[0] < last || !bytes.Equal(p, value(p[0])[:len(p)]) {
					t.Errorf("read version %d after %d, and %d was set", p[0], last, least)
					return
				}
				last = p[0]
			}
		})
	}
	wg.Wait()
	checkSpace(t, s)
	must(t, s.Close())
}

// The file system gets back what no extent needs.
func TestSpaceGivenBack(t *testing.T) {
	m := blockfs.NewMem()
	s := mustOpen(t, m)
	data := osdtest.Data(1, 1<<20)
	for i := range 300 {
		s.set(t, fmt.Sprint("k", i), data)
	}
	size := func() (sizes []int64) {
		infos, err := m.List(blobDir)
		must(t, err)
		for _, e := range infos {
			sizes = append(sizes, e.Size)
		}
		return sizes
	}
	if got := size(); len(got) != 2 || got[0] != containerBytes || got[1] != 48<<20 {
		t.Fatalf("containers of %d", got)
	}
	for i := 10; i < 300; i++ {
		if i != 50 {
			s.delete(t, fmt.Sprint("k", i))
		}
	}
	if got := size(); len(got) != 1 {
		t.Fatalf("containers of %d", got)
	}
	must(t, s.Close())
	s = mustOpen(t, m)
	if got := size(); len(got) != 1 || got[0] != 51<<20 {
		t.Fatalf("containers of %d", got)
	}
	checkSpace(t, s)
	s.mustHold(t, "k50", data)
	must(t, s.Close())
}

// D5 with a real bound: sets are refused, deletes go on, then sets again.
func TestFull(t *testing.T) {
	for name, c := range map[string]struct {
		disk, capacity int64
		size           int
	}{
		"capacity":       {1 << 40, 40 << 20, 1 << 20},
		"file system":    {32 << 20, 0, 1 << 20},
		"shared":         {48 << 20, 1 << 40, 1 << 20},
		"inline":         {1 << 40, 10 << 20, 10000},
		"inline on disk": {32 << 20, 0, 10000},
	} {
		if testing.Short() && name != "file system" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			m := blockfs.NewMem()
			m.SetCapacity(c.disk)
			opts := testOptions()
			opts.Capacity = c.capacity
			s, err := Open(m, opts)
			must(t, err)
			last := -1
			for round := range 3 {
				n := 0
				for ; err == nil; n++ {
					err = s.Apply(t.Context(), nil, []osd.Update{osd.Set(fmt.Appendf(nil, "k%04d", n), osdtest.Data(uint64(n), c.size))}, osd.High)
				}
				mustBe(t, "set", err, osd.ErrFull)
				n--
				if n < 5 || last >= 0 && c.size > inlineMax && n < last-2 {
					t.Fatalf("round %d: full after %d, before %d", round, n, last)
				}
				last = n
				for tries := 0; ; tries++ {
					i, err := s.Info(t.Context())
					if err != nil || i.Used > i.Limit+4<<20 {
						t.Fatalf("info %+v, %v", i, err)
					}
					if i.Free <= int64(c.size)*2 {
						break
					}
					// The index gave space back meanwhile: then it can be had.
					err = s.Apply(t.Context(), nil, []osd.Update{osd.Set([]byte("again"), osdtest.Data(0, c.size))}, osd.High)
					if err == nil {
						s.delete(t, "again")
						break
					}
					if mustBe(t, "set", err, osd.ErrFull); tries == 100 {
						t.Fatalf("full with %d bytes free", i.Free)
					}
				}
				for i := range n {
					s.mustHold(t, fmt.Sprintf("k%04d", i), osdtest.Data(uint64(i), c.size))
					s.delete(t, fmt.Sprintf("k%04d", i))
				}
				must(t, s.db.Flush())
				must(t, s.db.Compact(t.Context(), []byte{0}, []byte{255}, false))
				for { // it removes files in the background
					i, err := s.Info(t.Context())
					must(t, err)
					if i.Free > 5*int64(c.size) {
						break
					}
					time.Sleep(time.Millisecond)
				}
				checkSpace(t, s)
				err = nil
			}
			must(t, s.Close())
		})
	}
}

// A disk that gets full under a write refuses it, and nothing is changed.
func TestNoSpace(t *testing.T) {
	m := blockfs.NewMem()
	full := false
	s := mustOpen(t, blockfs.Inject(m, func(op blockfs.OpInfo) error {
		if full && op.Kind == blockfs.OpWrite && strings.HasPrefix(op.Path, blobDir) && op.Off > 0 {
			return blockfs.Partial(8192, syscall.ENOSPC)
		}
		return nil
	}))
	data := osdtest.Data(1, 3<<20)
	s.set(t, "a", data)
	full = true
	err := s.Apply(t.Context(), nil, []osd.Update{osd.Set([]byte("a"), data[1:]), osd.Set([]byte("b"), data)}, osd.High)
	mustBe(t, "apply", err, osd.ErrFull)
	full = false
	checkSpace(t, s)
	s.mustHold(t, "a", data)
	s.mustHold(t, "b", nil)
	s.set(t, "b", data)
	must(t, s.Close())
}

func TestFaults(t *testing.T) {
	manual := clock.NewManual(time.Unix(0, 0))
	opts := testOptions()
	opts.Clock = manual
	m := blockfs.NewMem()
	s, err := Open(m, opts)
	must(t, err)
	s.set(t, "k", []byte("v"))

	s.SetFault(Fault{Delay: time.Second})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { _, err := s.Info(ctx); done <- err }()
	for manual.Waiting() == 0 {
		select {
		case err := <-done:
			t.Fatalf("not delayed: %v", err)
		default:
		}
	}
	cancel()
	mustBe(t, "delayed", <-done, context.Canceled)
	go func() { _, err := s.Info(t.Context()); done <- err }()
	for manual.Waiting() == 0 {
		runtime.Gosched()
	}
	manual.Advance(time.Second)
	must(t, <-done)

	s.SetFault(Fault{FailWrites: true})
	mustBe(t, "apply", s.Apply(t.Context(), nil, []osd.Update{osd.Set([]byte("k"), []byte("w"))}, osd.High), osd.ErrFailed)
	s.SetFault(Fault{})
	_, err = s.read(t, "k")
	mustBe(t, "get after the failure", err, osd.ErrFailed)
	must(t, s.Close())
	_, err = s.read(t, "k")
	mustBe(t, "get after close", err, osd.ErrClosed)
	s = mustOpen(t, m)
	s.mustHold(t, "k", []byte("v"))
	must(t, s.Close())
}

// Operations of low priority wait for those of high priority, but not for ever.
func TestGate(t *testing.T) {
	manual := clock.NewManual(time.Unix(0, 0))
	g := newGate(manual)
	low := func() chan func() {
		c := make(chan func(), 1)
		go func() {
			leave, err := g.enter(t.Context(), osd.Low)
			if err == nil {
				c <- leave
			}
		}()
		return c
	}
	first := <-low() // nobody else is there
	endHigh, err := g.enter(t.Context(), osd.High)
	must(t, err)
	waits := low()
	for manual.Waiting() == 0 {
		runtime.Gosched()
	}
	select {
	case <-waits:
		t.Fatal("did not wait for high priority")
	default:
	}
	endHigh()
	second := <-waits

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = g.enter(ctx, osd.Low) // both places are taken
	mustBe(t, "third", err, context.Canceled)
	second()
	first()

	endHigh, err = g.enter(t.Context(), osd.High)
	must(t, err)
	waits = low()
	for manual.Waiting() == 0 {
		runtime.Gosched()
	}
	manual.Advance(lowPatience)
	(<-waits)() // its patience ended
	endHigh()
}

// A3: space is not given away under a reader.
func TestReaders(t *testing.T) {
	r := newReaders()
	a, b := []extent{{1, 0, 4}}, []extent{{1, 8, 4}}
	if got := r.retire(a); len(got) != 1 {
		t.Fatalf("without readers: %v", got)
	}
	first := r.enter()
	if got := r.retire(a); got != nil {
		t.Fatalf("under a reader: %v", got)
	}
	second := r.enter()
	if got := r.retire(b); got != nil {
		t.Fatalf("under two readers: %v", got)
	}
	third := r.enter()
	if got := r.leave(second); got != nil {
		t.Fatalf("the first still reads: %v", got)
	}
	if got := r.leave(first); len(got) != 2 {
		t.Fatalf("both were due: %v", got)
	}
	if got := r.leave(third); got != nil || len(r.active) != 1 {
		t.Fatalf("at the end: %v, %v", got, r.active)
	}
}

// Close waits for what is under way.
func TestCloseWaits(t *testing.T) {
	s := mustOpen(t, blockfs.NewMem())
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := 0; ; n++ {
				key := fmt.Appendf(nil, "k%d", i)
				err := s.Apply(context.Background(), nil, []osd.Update{osd.Set(key, osdtest.Data(uint64(i), 20000))}, osd.Priority(i%2))
				if err == nil {
					err = s.Read(context.Background(), key, 0, make([]byte, 20000), osd.High)
				}
				if err != nil {
					if !errors.Is(err, osd.ErrClosed) {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	for s.durable.Load() < 20 {
		runtime.Gosched()
	}
	must(t, s.Close())
	wg.Wait()
}

// A6: pebble's own work meets an error, or pebble gives up.
func TestIndexFails(t *testing.T) {
	for name, breakIt := range map[string]func(s *Store, bad *atomic.Bool){
		"compaction": func(s *Store, bad *atomic.Bool) {
			end, err := s.begin(t.Context(), osd.High) // nothing is closed under the call
			must(t, err)
			defer end()
			bad.Store(true)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- s.db.Compact(ctx, []byte{0}, []byte{255}, false) }()
			for s.failed() == nil {
				runtime.Gosched()
			}
			cancel() // it may wait for its turn, which does not come
			<-done
		},
		"fatal": func(s *Store, _ *atomic.Bool) { indexLog{s.opts.Log, s.fail}.Fatalf("so it is: %d", 1) },
	} {
		t.Run(name, func(t *testing.T) {
			m := blockfs.NewMem()
			var bad atomic.Bool
			s := mustOpen(t, blockfs.Inject(m, func(op blockfs.OpInfo) error {
				if bad.Load() && op.Kind == blockfs.OpRead && strings.HasSuffix(op.Path, ".sst") {
					return syscall.EIO
				}
				return nil
			}))
			for i := range 3 {
				s.set(t, "k", osdtest.Data(uint64(i), 9000))
				must(t, s.db.Flush())
			}
			breakIt(s, &bad)
			mustBe(t, "apply", s.Apply(t.Context(), nil, []osd.Update{osd.Delete([]byte("k"))}, osd.High), osd.ErrFailed)
			ops := m.Ops()
			must(t, s.Close())
			if m.Ops() != ops {
				t.Error("something was written after the failure")
			}
			bad.Store(false)
			s = mustOpen(t, m)
			s.mustHold(t, "k", osdtest.Data(2, 9000))
			must(t, s.Close())
		})
	}
}

// A device whose index cannot be compacted any more takes no sets, and can be emptied.
func TestDamagedIndex(t *testing.T) {
	s := mustOpen(t, blockfs.NewMem())
	s.set(t, "k", osdtest.Data(1, 40000))
	s.backgroundError(fmt.Errorf("compaction: %w", pebble.ErrCorruption))
	mustBe(t, "set", s.Apply(t.Context(), nil, []osd.Update{osd.Set([]byte("k"), nil)}, osd.High), osd.ErrFull)
	i, err := s.Info(t.Context())
	if err != nil || !i.Full {
		t.Fatalf("%+v, %v", i, err)
	}
	s.mustHold(t, "k", osdtest.Data(1, 40000))
	s.delete(t, "k")
	checkSpace(t, s)
	must(t, s.Close())
}

// TestSums: checksums that came with a value are compared with its own, and kept.
func TestSums(t *testing.T) {
	s := mustOpen(t, blockfs.NewMem())
	defer func() { must(t, s.Close()) }()
	value := osdtest.Data(1, osd.Block+1000)
	u := osd.Update{Key: []byte("k"), Value: value, CRC: osd.CRC(value), Sums: []uint32{osd.CRC(value[:osd.Block]), osd.CRC(value[osd.Block:])}}
	must(t, s.Apply(t.Context(), nil, []osd.Update{u}, osd.High))
	p := make([]byte, len(value))
	must(t, s.Read(t.Context(), u.Key, 0, p, osd.High))
	if !bytes.Equal(p, value) {
		t.Error("the value is another")
	}
	for _, c := range []struct {
		sums []uint32
		want error
	}{
		{[]uint32{u.Sums[1], u.Sums[0]}, osd.ErrChecksum},
		{u.Sums[:1], osd.ErrInvalid},
		{[]uint32{}, osd.ErrInvalid},
	} {
		u.Sums = c.sums
		if err := s.Apply(t.Context(), nil, []osd.Update{u}, osd.High); !errors.Is(err, c.want) {
			t.Errorf("sums %x: %v, should be %v", c.sums, err, c.want)
		}
	}
}
