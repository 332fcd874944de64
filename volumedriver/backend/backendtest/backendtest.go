// Package backendtest is the conformance suite of backend.Store: every
// implementation runs it in its own tests against the real thing.
//
//	func TestStore(t *testing.T) {
//		backendtest.Run(t, backendtest.Options{New: newStore})
//	}
//
// It checks the obligations S1-S8 as far as they show from outside: atomicity
// with readers at work, conditional puts under contention, the edges of ranges,
// paging, names, cancelled contexts and error classes. It does not check
// durability, which needs a power cut; the implementations' own tests do.
package backendtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/volumedriver/backend"
)

// defaultLarge is the default SCO size.
const defaultLarge = 16 << 20

// cancelPatience bounds how long a call may go on after its context ended. It is
// a watchdog against calls that ignore it, not a measurement.
const cancelPatience = time.Minute

// Options describe the store under test.
type Options struct {
	// New returns an empty store. The suite closes it; whatever else must be
	// torn down is up to t.Cleanup.
	New func(t *testing.T) backend.Store
	// LargeBytes is the size of the large object, 16 MiB if 0.
	LargeBytes int
	// ListLag is how long List may take to show a change on a store without
	// Features.ConsistentList.
	ListLag time.Duration
	// Slow repeats less, for a store where each request takes 10 ms and more.
	Slow bool
}

// Run runs the suite.
func Run(t *testing.T, o Options) {
	if o.LargeBytes == 0 {
		o.LargeBytes = defaultLarge
	}
	for _, c := range []struct {
		name string
		run  func(t *testing.T, s suite)
	}{
		{"RoundTrip", roundTrip},
		{"SameBytesTwice", sameBytesTwice},
		{"Absent", absent},
		{"DeleteIdempotent", deleteIdempotent},
		{"Names", names},
		{"NamesNest", namesNest},
		{"Ranges", ranges},
		{"GetLimit", getLimit},
		{"Large", large},
		{"Buffers", buffers},
		{"PutIfAbsent", putIfAbsent},
		{"PutIfAbsentRace", putIfAbsentRace},
		{"NoPartialObject", noPartialObject},
		{"ReadWhileDeleting", readWhileDeleting},
		{"Siblings", siblings},
		{"List", list},
		{"ListWhileChanging", listWhileChanging},
		{"Cancelled", cancelled},
		{"CancelInFlight", cancelInFlight},
		{"Usage", usage},
		{"Closed", closed},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := o.New(t)
			t.Cleanup(func() {
				if err := store.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
			c.run(t, suite{Store: store, o: o})
		})
	}
}

// suite is what a check works on.
type suite struct {
	backend.Store
	o Options
}

// Data returns n bytes that depend on the seed and the position, so that a mixed
// or shifted object shows.
func Data(seed uint64, n int) []byte {
	data := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, uint64(n)))
	for i := 0; i+8 <= n; i += 8 {
		v := r.Uint64()
		for j := range 8 {
			data[i+j] = byte(v >> (8 * j))
		}
	}
	for i := n - n%8; i < n; i++ {
		data[i] = byte(r.Uint32())
	}
	return data
}

func must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func mustBe(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: error %v, want %v", what, err, want)
	}
}

// mustHold checks an object through Get, ReadAt and Stat (S4).
func (s suite) mustHold(t *testing.T, name string, want []byte) {
	t.Helper()
	got, err := s.Get(t.Context(), name, int64(len(want)))
	must(t, "get "+name, err)
	if !bytes.Equal(got, want) {
		t.Fatalf("get %s: %d bytes, not the %d put", name, len(got), len(want))
	}
	p := make([]byte, len(want))
	must(t, "read "+name, s.ReadAt(t.Context(), name, p, 0))
	if !bytes.Equal(p, want) {
		t.Fatalf("read %s: wrong bytes", name)
	}
	info, err := s.Stat(t.Context(), name)
	must(t, "stat "+name, err)
	if info.Name != name || info.Size != int64(len(want)) {
		t.Fatalf("stat %s: %+v, want size %d", name, info, len(want))
	}
}

// mustLack checks that an object is absent.
func (s suite) mustLack(t *testing.T, name string) {
	t.Helper()
	_, err := s.Get(t.Context(), name, 1<<20)
	mustBe(t, "get "+name, err, backend.ErrNotExist)
	mustBe(t, "read "+name, s.ReadAt(t.Context(), name, make([]byte, 1), 0), backend.ErrNotExist)
	_, err = s.Stat(t.Context(), name)
	mustBe(t, "stat "+name, err, backend.ErrNotExist)
}

func roundTrip(t *testing.T, s suite) {
	for i, n := range []int{0, 1, 511, 4096, 65537, 1<<20 + 1} {
		name := fmt.Sprintf("v1/o%d", i)
		data := Data(uint64(i), n)
		must(t, "put", s.Put(t.Context(), name, data))
		s.mustHold(t, name, data)
	}
}

// S2
func sameBytesTwice(t *testing.T, s suite) {
	data := Data(1, 100000)
	for range 2 {
		must(t, "put", s.Put(t.Context(), "v/same", data))
		s.mustHold(t, "v/same", data)
	}
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		wg.Go(func() { errs[i] = s.Put(t.Context(), "v/same", data) })
	}
	wg.Wait()
	must(t, "concurrent put", errors.Join(errs...))
	s.mustHold(t, "v/same", data)
}

func absent(t *testing.T, s suite) {
	s.mustLack(t, "nothing")
	s.mustLack(t, "no/thing/here")
	must(t, "put", s.Put(t.Context(), "v/one", []byte("1")))
	s.mustLack(t, "v")
	s.mustLack(t, "v/on")
	s.mustLack(t, "v/one/more")
}

// S5
func deleteIdempotent(t *testing.T, s suite) {
	must(t, "delete absent", s.Delete(t.Context(), "v/never"))
	data := Data(1, 5000)
	must(t, "put", s.Put(t.Context(), "v/a", data))
	must(t, "put", s.Put(t.Context(), "v/b", data))
	s.mustHold(t, "v/a", data)
	for range 2 {
		must(t, "delete", s.Delete(t.Context(), "v/a"))
		s.mustLack(t, "v/a")
	}
	s.mustHold(t, "v/b", data)
	must(t, "put again", s.Put(t.Context(), "v/a", data))
	s.mustHold(t, "v/a", data)
}

func names(t *testing.T, s suite) {
	seg := strings.Repeat("x", backend.MaxSegmentBytes)
	for i, name := range []string{
		"a", "...", "..x/.y", "a.b-c_d/0", seg, seg + "/" + seg + "/" + seg[:110], strings.Repeat("d/", 100) + "deep",
	} {
		data := Data(uint64(i), 10)
		must(t, "put", s.Put(t.Context(), name, data))
		s.mustHold(t, name, data)
	}
	for _, name := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "../x", "a/../b", "A", "a b", "a~", "a%2f", "a\x00", "a\n", "ä",
		seg + "x", strings.Repeat("d/", 256) + "x",
	} {
		_, gerr := s.Get(t.Context(), name, 10)
		_, serr := s.Stat(t.Context(), name)
		for op, err := range map[string]error{
			"put":           s.Put(t.Context(), name, nil),
			"put if absent": s.PutIfAbsent(t.Context(), name, nil),
			"get":           gerr,
			"read":          s.ReadAt(t.Context(), name, make([]byte, 1), 0),
			"stat":          serr,
			"delete":        s.Delete(t.Context(), name),
		} {
			if errors.Is(err, backend.ErrUnsupported) && op == "put if absent" {
				continue
			}
			mustBe(t, fmt.Sprintf("%s %.20q", op, name), err, backend.ErrInvalidName)
		}
	}
}

// An object's name can be the beginning of another's.
func namesNest(t *testing.T, s suite) {
	all := []string{"v/a/b/c", "v/a", "v/a/b", "v/a.x", "v", "v/a-/b"}
	for i, name := range all {
		must(t, "put", s.Put(t.Context(), name, Data(uint64(i), 50)))
	}
	for i, name := range all {
		s.mustHold(t, name, Data(uint64(i), 50))
	}
	s.checkList(t, "", slices.Sorted(slices.Values(all)))
	for i, name := range all {
		must(t, "delete", s.Delete(t.Context(), name))
		for j, other := range all[i+1:] {
			s.mustHold(t, other, Data(uint64(i+1+j), 50))
		}
	}
	s.checkList(t, "", nil)
}

func ranges(t *testing.T, s suite) {
	const n = 200001
	data := Data(1, n)
	must(t, "put", s.Put(t.Context(), "v/o", data))
	for _, r := range []struct{ off, n int }{
		{0, 0}, {0, 1}, {0, n}, {1, n - 1}, {n - 1, 1}, {n, 0}, {65535, 2}, {4096, 65536}, {100000, 100001},
	} {
		p := make([]byte, r.n)
		must(t, fmt.Sprint("read ", r), s.ReadAt(t.Context(), "v/o", p, int64(r.off)))
		if !bytes.Equal(p, data[r.off:r.off+r.n]) {
			t.Fatalf("read %v: wrong bytes", r)
		}
	}
	for _, r := range []struct {
		off int64
		n   int
	}{{0, n + 1}, {n - 1, 2}, {n, 1}, {n + 1, 1}, {1 << 40, 4096}, {-1, 1}, {1<<63 - 1, 10}} {
		mustBe(t, fmt.Sprint("read ", r), s.ReadAt(t.Context(), "v/o", make([]byte, r.n), r.off), backend.ErrRange)
	}
	must(t, "put empty", s.Put(t.Context(), "v/empty", nil))
	mustBe(t, "read empty", s.ReadAt(t.Context(), "v/empty", make([]byte, 1), 0), backend.ErrRange)
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 3))
			for range 20 {
				off := r.IntN(n)
				p := make([]byte, r.IntN(min(5000, n-off))+1)
				errs[i] = errors.Join(errs[i], s.ReadAt(t.Context(), "v/o", p, int64(off)))
				if !bytes.Equal(p, data[off:off+len(p)]) {
					errs[i] = fmt.Errorf("wrong bytes at %d", off)
				}
			}
		})
	}
	wg.Wait()
	must(t, "concurrent reads", errors.Join(errs...))
}

func getLimit(t *testing.T, s suite) {
	data := Data(1, 1000)
	must(t, "put", s.Put(t.Context(), "v/o", data))
	for _, limit := range []int64{1000, 1001, 1 << 50} {
		got, err := s.Get(t.Context(), "v/o", limit)
		must(t, "get", err)
		if !bytes.Equal(got, data) {
			t.Fatal("wrong bytes")
		}
	}
	for _, limit := range []int64{999, 0} {
		_, err := s.Get(t.Context(), "v/o", limit)
		mustBe(t, fmt.Sprint("get with limit ", limit), err, backend.ErrCorrupt)
	}
}

func large(t *testing.T, s suite) {
	data := Data(9, s.o.LargeBytes)
	must(t, "put", s.Put(t.Context(), "v/large", data))
	s.mustHold(t, "v/large", data)
	p := make([]byte, 4096)
	must(t, "read", s.ReadAt(t.Context(), "v/large", p, int64(len(data)-len(p))))
	if !bytes.Equal(p, data[len(data)-len(p):]) {
		t.Fatal("wrong bytes at the end")
	}
}

// S7: the store keeps no hold on a buffer.
func buffers(t *testing.T, s suite) {
	data := Data(1, 70000)
	buf := bytes.Clone(data)
	must(t, "put", s.Put(t.Context(), "v/o", buf))
	clear(buf)
	s.mustHold(t, "v/o", data)
	got, err := s.Get(t.Context(), "v/o", 1<<20)
	must(t, "get", err)
	clear(got)
	s.mustHold(t, "v/o", data)
}

// conditional tells whether the store does PutIfAbsent, and checks that it says
// so when not.
func (s suite) conditional(t *testing.T) bool {
	t.Helper()
	if s.Features().ConditionalPut {
		return true
	}
	mustBe(t, "put if absent", s.PutIfAbsent(t.Context(), "v/o", nil), backend.ErrUnsupported)
	s.mustLack(t, "v/o")
	return false
}

// S3
func putIfAbsent(t *testing.T, s suite) {
	if !s.conditional(t) {
		return
	}
	first, second := Data(1, 5000), Data(2, 300)
	must(t, "first", s.PutIfAbsent(t.Context(), "v/o", first))
	mustBe(t, "second", s.PutIfAbsent(t.Context(), "v/o", second), backend.ErrExists)
	mustBe(t, "same bytes", s.PutIfAbsent(t.Context(), "v/o", first), backend.ErrExists)
	s.mustHold(t, "v/o", first)
	must(t, "put", s.Put(t.Context(), "v/p", first))
	mustBe(t, "after put", s.PutIfAbsent(t.Context(), "v/p", second), backend.ErrExists)
	s.mustHold(t, "v/p", first)
	must(t, "delete", s.Delete(t.Context(), "v/o"))
	must(t, "after delete", s.PutIfAbsent(t.Context(), "v/o", second))
	s.mustHold(t, "v/o", second)
}

// S3: of concurrent calls one wins, and its bytes are what is there.
func putIfAbsentRace(t *testing.T, s suite) {
	if !s.conditional(t) {
		return
	}
	const callers, rounds = 8, 10
	for round := range rounds {
		name := fmt.Sprintf("race/%d", round)
		errs := make([]error, callers)
		start := make(chan struct{})
		var wg sync.WaitGroup
		for i := range callers {
			wg.Go(func() {
				<-start
				errs[i] = s.PutIfAbsent(t.Context(), name, Data(uint64(i), 20000+i))
			})
		}
		close(start)
		wg.Wait()
		winner := -1
		for i, err := range errs {
			switch {
			case err == nil && winner >= 0:
				t.Fatalf("%s: callers %d and %d both won", name, winner, i)
			case err == nil:
				winner = i
			default:
				mustBe(t, name, err, backend.ErrExists)
			}
		}
		if winner < 0 {
			t.Fatalf("%s: nobody won", name)
		}
		s.mustHold(t, name, Data(uint64(winner), 20000+winner))
	}
}

// S1: a reader sees nothing or everything, and from then on everything.
func noPartialObject(t *testing.T, s suite) {
	const objects, size = 6, 1 << 20
	want := Data(1, size)
	for i := range objects {
		name := fmt.Sprintf("atomic/%d", i)
		done := make(chan error, 1)
		var stop atomic.Bool
		go func() {
			seen := false
			for last := false; !last; {
				last = stop.Load()
				got, err := s.Get(t.Context(), name, size)
				switch {
				case errors.Is(err, backend.ErrNotExist) && !seen:
				case err != nil:
					done <- err
					return
				case !bytes.Equal(got, want):
					done <- fmt.Errorf("%d bytes of %d seen", len(got), size)
					return
				default:
					seen = true
				}
			}
			if !seen {
				done <- errors.New("not there after Put")
				return
			}
			done <- nil
		}()
		err := s.Put(t.Context(), name, want)
		if err == nil {
			err = s.Put(t.Context(), name, want)
		}
		stop.Store(true)
		must(t, "reader of "+name, <-done)
		must(t, "put", err)
	}
}

// A reader of an object that is deleted gets its bytes or ErrNotExist, also when
// the name comes back.
func readWhileDeleting(t *testing.T, s suite) {
	want := Data(1, 50000)
	var stop atomic.Bool
	var wg sync.WaitGroup
	errs := make([]error, 3)
	for i := range errs {
		wg.Go(func() {
			p := make([]byte, 1000)
			for n := 0; !stop.Load(); n++ {
				off := n * 997 % (len(want) - len(p))
				err := s.ReadAt(t.Context(), "v/o", p, int64(off))
				if errors.Is(err, backend.ErrNotExist) {
					continue
				}
				if err == nil && !bytes.Equal(p, want[off:off+len(p)]) {
					err = fmt.Errorf("wrong bytes at %d", off)
				}
				if err != nil {
					errs[i] = err
					return
				}
			}
		})
	}
	var err error
	for range 15 {
		err = errors.Join(err, s.Put(t.Context(), "v/o", want), s.Delete(t.Context(), "v/o"))
	}
	stop.Store(true)
	wg.Wait()
	must(t, "put and delete", err)
	must(t, "readers", errors.Join(errs...))
	s.mustLack(t, "v/o")
}

// Objects that come and go do not disturb those that share a part of their name,
// whatever a store makes and removes for that part.
func siblings(t *testing.T, s suite) {
	const workers = 6
	rounds := 25
	if s.o.Slow {
		rounds = 5
	}
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			name := fmt.Sprintf("shared/part/%d", w)
			data := Data(uint64(w), 100)
			for range rounds {
				err := s.Put(t.Context(), name, data)
				if err == nil {
					err = s.ReadAt(t.Context(), name, make([]byte, 100), 0)
				}
				if err == nil {
					err = s.Delete(t.Context(), name)
				}
				if err != nil {
					errs[w] = err
					return
				}
			}
		})
	}
	wg.Wait()
	must(t, "workers", errors.Join(errs...))
	s.checkList(t, "", nil)
}

// page walks a List in pages.
func (s suite) page(t *testing.T, prefix string, limit int) []string {
	t.Helper()
	var got []string
	after := ""
	for {
		infos, err := s.List(t.Context(), prefix, after, limit)
		must(t, "list", err)
		if len(infos) > limit {
			t.Fatalf("list: %d objects, limit %d", len(infos), limit)
		}
		for _, info := range infos {
			got = append(got, info.Name)
		}
		if len(infos) < limit {
			return got
		}
		after = infos[len(infos)-1].Name
	}
}

// checkList compares List with want, waiting as long as the store may lag.
func (s suite) checkList(t *testing.T, prefix string, want []string) {
	t.Helper()
	deadline := time.Now()
	if !s.Features().ConsistentList {
		deadline = deadline.Add(s.o.ListLag)
	}
	for {
		got := s.page(t, prefix, backend.MaxListLimit)
		if slices.Equal(got, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("list %q: %d names %.200q, want %d %.200q", prefix, len(got), got, len(want), want)
		}
		select {
		case <-time.After(listPoll):
		case <-t.Context().Done():
		}
	}
}

// listPoll is the pause between two looks at a list that may lag.
const listPoll = 20 * time.Millisecond

func list(t *testing.T, s suite) {
	s.checkList(t, "", nil)
	sizes := map[string]int{}
	for i, name := range []string{
		"a", "a-", "a-b", "a.b", "a/1", "a/2", "a/2/x", "a/20", "a/3", "a0", "ab/c", "ab/c/d/e", "b/1", "b/1-", "b/1/x", "b/10", "z",
	} {
		sizes[name] = i * 10
		must(t, "put", s.Put(t.Context(), name, Data(1, i*10)))
	}
	all := make([]string, 0, len(sizes))
	for name := range sizes {
		all = append(all, name)
	}
	slices.Sort(all)
	s.checkList(t, "", all)
	infos, err := s.List(t.Context(), "", "", 0)
	must(t, "list", err)
	for _, info := range infos {
		if info.Size != int64(sizes[info.Name]) {
			t.Errorf("%s: size %d, want %d", info.Name, info.Size, sizes[info.Name])
		}
	}
	for _, prefix := range []string{"", "a", "a/", "a/2", "a/2/", "a-", "ab", "ab/c/d/", "b/1", "b/1/", "c", "z", "zz", "a/2/x", "/", "A", "../"} {
		var want []string
		for _, name := range all {
			if strings.HasPrefix(name, prefix) {
				want = append(want, name)
			}
		}
		limits := []int{1, 2, 3, 100}
		if s.o.Slow {
			limits = []int{3, 100}
		}
		for _, limit := range limits {
			if got := s.page(t, prefix, limit); !slices.Equal(got, want) {
				t.Errorf("prefix %q in pages of %d: %q, want %q", prefix, limit, got, want)
			}
		}
		// after need not be an object's name.
		for _, after := range []string{"a", "a/", "a/15", "a/2/", "ab/c/d", "a~", "b", "b/1/", "zzz", "0"} {
			i, found := slices.BinarySearch(want, after)
			if found {
				i++
			}
			infos, err := s.List(t.Context(), prefix, after, 100)
			must(t, "list", err)
			var got []string
			for _, info := range infos {
				got = append(got, info.Name)
			}
			if !slices.Equal(got, want[i:]) {
				t.Errorf("prefix %q after %q: %q, want %q", prefix, after, got, want[i:])
			}
		}
	}
}

// What is there during a whole walk is listed exactly once, whatever else
// changes.
func listWhileChanging(t *testing.T, s suite) {
	fixed := 60
	if s.o.Slow {
		fixed = 20
	}
	var want []string
	for i := range fixed {
		name := fmt.Sprintf("walk/%03d", i*2)
		want = append(want, name)
		must(t, "put", s.Put(t.Context(), name, []byte("x")))
	}
	s.checkList(t, "walk/", want)
	var stop atomic.Bool
	done := make(chan error, 1)
	go func() {
		var err error
		for i := 0; !stop.Load() && err == nil; i++ {
			name := fmt.Sprintf("walk/%03d", i%fixed*2+1)
			err = s.Put(t.Context(), name, []byte("y"))
			if err == nil && i%3 > 0 {
				err = s.Delete(t.Context(), name)
			}
		}
		done <- err
	}()
	for range 5 {
		got := s.page(t, "walk/", 7)
		if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
			t.Errorf("not sorted or not unique: %q", got)
		}
		kept := slices.DeleteFunc(got, func(name string) bool { return !slices.Contains(want, name) })
		if !slices.Equal(kept, want) {
			t.Errorf("listed %d of %d fixed objects", len(kept), len(want))
		}
	}
	stop.Store(true)
	must(t, "changes", <-done)
}

// S6: nothing happens with a context that has ended.
func cancelled(t *testing.T, s suite) {
	must(t, "put", s.Put(t.Context(), "v/there", []byte("x")))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, gerr := s.Get(ctx, "v/there", 10)
	_, serr := s.Stat(ctx, "v/there")
	_, lerr := s.List(ctx, "", "", 10)
	for op, err := range map[string]error{
		"put":    s.Put(ctx, "v/o", []byte("x")),
		"get":    gerr,
		"read":   s.ReadAt(ctx, "v/there", make([]byte, 1), 0),
		"stat":   serr,
		"list":   lerr,
		"delete": s.Delete(ctx, "v/there"),
	} {
		mustBe(t, op, err, context.Canceled)
	}
	if s.Features().ConditionalPut {
		mustBe(t, "put if absent", s.PutIfAbsent(ctx, "v/o", []byte("x")), context.Canceled)
	}
	s.mustLack(t, "v/o")
	s.mustHold(t, "v/there", []byte("x"))
}

// S6, S1: calls come back after their context ended, and what they leave is
// whole.
func cancelInFlight(t *testing.T, s suite) {
	want := Data(3, s.o.LargeBytes)
	const calls = 4
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range calls {
			ctx, cancel := context.WithCancel(t.Context())
			back := make(chan error, 1)
			go func() { back <- s.Put(ctx, fmt.Sprintf("v/o%d", i), want) }()
			if i > 0 { // the first at once, the others once the store is at work
				_, err := s.Stat(t.Context(), "v/nothing")
				if !errors.Is(err, backend.ErrNotExist) {
					t.Errorf("stat: %v", err)
				}
			}
			cancel()
			if err := <-back; err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("put: %v", err)
			}
		}
	}()
	select {
	case <-done:
	case <-time.After(cancelPatience):
		t.Fatal("a call ignores the end of its context")
	}
	for i := range calls {
		got, err := s.Get(t.Context(), fmt.Sprintf("v/o%d", i), int64(len(want)))
		if errors.Is(err, backend.ErrNotExist) {
			continue
		}
		must(t, "get", err)
		if !bytes.Equal(got, want) {
			t.Fatal("a cancelled Put left a part of an object")
		}
	}
}

func usage(t *testing.T, s suite) {
	u, err := s.Usage(t.Context())
	must(t, "usage", err)
	if u.Total < 0 || u.Free < 0 || u.Total > 0 && u.Free > u.Total {
		t.Fatalf("usage %+v", u)
	}
}

// A closed store refuses everything instead of misbehaving; closing again is no
// error.
func closed(t *testing.T, s suite) {
	must(t, "put", s.Put(t.Context(), "v/o", []byte("x")))
	must(t, "read", s.ReadAt(t.Context(), "v/o", make([]byte, 1), 0))
	must(t, "close", s.Close())
	if err := s.Put(t.Context(), "v/p", []byte("x")); err == nil {
		t.Error("put on a closed store succeeded")
	}
	if err := s.ReadAt(t.Context(), "v/o", make([]byte, 1), 0); err == nil {
		t.Error("read on a closed store succeeded")
	}
	if err := s.Delete(t.Context(), "v/o"); err == nil {
		t.Error("delete on a closed store succeeded")
	}
	if _, err := s.List(t.Context(), "", "", 0); err == nil {
		t.Error("list on a closed store succeeded")
	}
}
