package audit

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/gateway/observe/linelog"
	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func open(t *testing.T, fs blockfs.FS, clk clock.Clock) *Log {
	t.Helper()
	l := Open(Options{FS: fs, Clock: clk})
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// all returns every entry that is wanted, the newest first, by pages of the limit.
func all(t *testing.T, l *Log, q Query) []Entry {
	t.Helper()
	if q.Limit == 0 {
		q.Limit = 1000
	}
	var out []Entry
	for range 10_000 {
		page, next, err := l.List(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) > q.Limit {
			t.Fatalf("%d entries on a page of %d", len(page), q.Limit)
		}
		out = append(out, page...)
		if next == 0 {
			return out
		}
		q.Before = next
	}
	t.Fatal("pages without an end")
	return nil
}

func objects(entries []Entry) []string {
	var out []string
	for _, e := range entries {
		out = append(out, fmt.Sprintf("%s=%d", e.Object, e.Status))
	}
	return out
}

func TestList(t *testing.T) {
	l := open(t, blockfs.NewMem(), nil)
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 10 {
		e := Entry{Time: at.Add(time.Duration(i) * time.Hour), Operation: "UpdateVDisk", Object: fmt.Sprintf("vdisk D%d", i), User: []string{"anna", "bert"}[i%2]}
		op := l.Begin(e)
		e.Status = 200 + i
		op.End(e)
	}
	for _, c := range []struct {
		q    Query
		want string
	}{
		{Query{User: "anna"}, "8 6 4 2 0"},
		{Query{User: "ann"}, ""},
		{Query{Object: "d3"}, "3"},
		{Query{Operation: "UpdateVDisk", Since: at.Add(7 * time.Hour)}, "9 8 7"},
		{Query{Operation: "Update"}, ""},
		{Query{Until: at.Add(2 * time.Hour)}, "1 0"},
		{Query{User: "bert", Since: at.Add(2 * time.Hour), Until: at.Add(6 * time.Hour)}, "5 3"},
	} {
		for limit := 1; limit < 4; limit++ {
			c.q.Limit = limit
			var got []string
			for _, e := range all(t, l, c.q) {
				got = append(got, fmt.Sprint(e.Status-200))
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("%+v: %v, want %s", c.q, got, c.want)
			}
		}
	}
	newest := all(t, l, Query{})[0].Seq
	if got := all(t, l, Query{After: newest}); len(got) != 0 {
		t.Errorf("after the newest: %v", objects(got))
	}
	l.Append(Entry{Object: "new"})
	if got := all(t, l, Query{After: newest}); len(got) != 1 || got[0].Object != "new" {
		t.Errorf("after the newest of before: %v", objects(got))
	}
}

// TestCrash: at any moment at which power fails, what was ended is there once, what was
// begun is there as unknown, and nothing else is; also after a second crash.
func TestCrash(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		mem := blockfs.NewMem()
		want := map[string]int{} // object -> status that has to be there; -1: either
		for round := range 3 {
			l := Open(Options{FS: mem})
			cutAt := int64(r.IntN(60))
			var cut atomic.Pointer[blockfs.Mem]
			was := mem.Ops()
			source := mem
			mem.SetHook(func(n int64, _ blockfs.OpInfo) {
				if n-was == cutAt && cut.Load() == nil {
					cut.Store(source.Crash(blockfs.CrashConfig{Unsynced: []blockfs.Unsynced{blockfs.KeepAll, blockfs.DropAll, blockfs.Tear, blockfs.Reorder}[seed%4], Rand: rand.New(rand.NewPCG(seed, uint64(round)))}))
				}
			})
			for i := range 12 {
				name := fmt.Sprintf("%d-%d-%d", seed, round, i)
				if cut.Load() != nil {
					break
				}
				op := l.Begin(Entry{Object: name})
				begun := cut.Load() == nil
				if begun {
					want[name] = 0
				} else {
					want[name] = -1
				}
				if r.IntN(4) == 0 && begun {
					continue // never ends
				}
				op.End(Entry{Object: name, Status: 200})
				switch {
				case begun && cut.Load() == nil:
					want[name] = 200
				case begun:
					want[name] = -2 // unknown or ended
				}
			}
			_ = l.Close()
			mem.SetHook(nil)
			if c := cut.Load(); c != nil {
				mem = c
			}
		}
		l := Open(Options{FS: mem})
		l.Append(Entry{Object: "last", Status: 1})
		got := map[string][]int{}
		last := ^uint64(0)
		for _, e := range all(t, l, Query{Limit: 7}) {
			if e.Seq >= last {
				t.Fatalf("seed %d: %d after %d", seed, e.Seq, last)
			}
			last = e.Seq
			got[e.Object] = append(got[e.Object], e.Status)
		}
		if s := l.Status(); s.Err != nil || s.Pending != 0 || s.Lost != 0 {
			t.Fatalf("seed %d: %+v", seed, s)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		for name, status := range want {
			switch g := got[name]; {
			case status == -1 && len(g) <= 1:
			case status == -2 && len(g) == 1:
			case status >= 0 && slices.Equal(g, []int{status}):
			default:
				t.Errorf("seed %d: %s is there as %v, want %d", seed, name, g, status)
			}
		}
		if len(got["last"]) != 1 {
			t.Errorf("seed %d: the last entry is there as %v", seed, got["last"])
		}
	}
}

// TestFull: a full disk holds nobody up, what waits is written when there is room, and what
// found none is counted.
func TestFull(t *testing.T) {
	clk := clock.NewManual(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	var full atomic.Bool
	fs := blockfs.Inject(blockfs.NewMem(), func(op blockfs.OpInfo) error {
		if full.Load() && op.Kind == blockfs.OpWrite {
			return syscall.ENOSPC
		}
		return nil
	})
	l := open(t, fs, clk)
	l.Append(Entry{Object: "before"})
	full.Store(true)
	for i := range maxPending + 10 {
		l.Append(Entry{Object: fmt.Sprintf("full %d", i)})
	}
	if s := l.Status(); !errors.Is(s.Err, syscall.ENOSPC) || s.Pending != maxPending || s.Lost != 10 {
		t.Fatalf("%+v", s)
	}
	full.Store(false)
	for l.Status().Err != nil {
		clk.Advance(retryEvery)
	}
	l.Append(Entry{Object: "after"})
	got := all(t, l, Query{Limit: 100})
	if len(got) != maxPending+3 {
		t.Fatalf("%d entries", len(got))
	}
	if got[0].Object != "after" || got[1].Operation != "AuditLost" || got[1].Count != 10 || got[len(got)-1].Object != "before" {
		t.Errorf("%+v %+v %+v", got[0], got[1], got[len(got)-1])
	}
	if s := l.Status(); s.Err != nil || s.Pending != 0 || s.Lost != 0 {
		t.Errorf("%+v", s)
	}
}

// TestHangs: a disk that does not answer holds a change up once, for waitMost.
func TestHangs(t *testing.T) {
	clk := clock.NewManual(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	stuck, hangs := make(chan struct{}), make(chan struct{}, 1)
	var hang atomic.Bool
	fs := blockfs.Inject(blockfs.NewMem(), func(op blockfs.OpInfo) error {
		if op.Kind == blockfs.OpSync && hang.CompareAndSwap(true, false) {
			hangs <- struct{}{}
			<-stuck
		}
		return nil
	})
	l := open(t, fs, clk)
	l.Append(Entry{Object: "before"})
	hang.Store(true)
	done := make(chan struct{})
	go func() { l.Append(Entry{Object: "first"}); close(done) }()
	<-hangs
	for waits := true; waits; {
		select {
		case <-done:
			waits = false
		default:
			clk.Advance(waitMost)
		}
	}
	l.Append(Entry{Object: "second"}) // at once, or the test hangs
	if s := l.Status(); s.Err == nil || s.Pending == 0 {
		t.Errorf("%+v", s)
	}
	close(stuck)
	for l.Status().Pending > 0 {
		clk.Advance(retryEvery)
	}
	if got := strings.Join(objects(all(t, l, Query{})), " "); got != "second=0 first=0 before=0" {
		t.Error(got)
	}
}

// TestFailedWrites: whatever fails at whichever step, each entry is there once in the end.
func TestFailedWrites(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 2))
		clk := clock.NewManual(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
		var works atomic.Bool
		fs := blockfs.Inject(blockfs.NewMem(), func(blockfs.OpInfo) error {
			if !works.Load() && r.IntN(3) == 0 { // the writer alone asks
				return syscall.EIO
			}
			return nil
		})
		l := open(t, fs, clk)
		const n = 30
		for i := range n {
			l.Append(Entry{Object: fmt.Sprint(i)})
			if s := l.Status(); s.Err != nil && i%5 == 0 {
				clk.Advance(retryEvery)
			}
		}
		works.Store(true)
		for l.Status().Pending > 0 || l.Status().Err != nil {
			clk.Advance(retryEvery)
		}
		var got []string
		for _, e := range all(t, l, Query{Limit: 7}) {
			got = append(got, e.Object)
		}
		var want []string
		for i := range n {
			want = append(want, fmt.Sprint(n-1-i))
		}
		if !slices.Equal(got, want) {
			t.Errorf("seed %d: %v", seed, got)
		}
	}
}

// TestBounds: files go by size, and by age one an hour; what goes on is begun again in each.
func TestBounds(t *testing.T) {
	clk := clock.NewManual(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	mem := blockfs.NewMem()
	mem.SetClock(clk)
	l := Open(Options{FS: mem, Clock: clk, MaxBytes: 3 * linelog.DefaultFileBytes, MaxAge: 10 * 24 * time.Hour})
	op := l.Begin(Entry{Object: "long"})
	big := Entry{Object: "big"}
	for i := range maxChanges {
		big.Changes = append(big.Changes, Change{Field: fmt.Sprint(i), After: strings.Repeat("x", 256)})
	}
	for range 6 * linelog.DefaultFileBytes / (maxChanges * 256) {
		l.Append(big)
	}
	total := func() (n int, size int64) {
		fs, err := mem.List(".")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range fs {
			size += f.Size
		}
		return len(fs), size
	}
	left, size := total()
	if left < 2 || size > 3*linelog.DefaultFileBytes {
		t.Fatalf("%d files of %d bytes", left, size)
	}
	clk.Advance(365 * 24 * time.Hour)
	l.Append(Entry{Object: "later"})
	if n, _ := total(); n != left {
		t.Errorf("%d files are left after a jump of the clock", n) // one went, one is new
	}
	for want := left - 1; want >= 1; want-- {
		clk.Advance(time.Hour)
		l.Append(Entry{Object: "later"})
		if n, _ := total(); n != want {
			t.Errorf("%d files, want %d", n, want)
		}
	}
	again := mem.Crash(blockfs.CrashConfig{})
	op.End(Entry{Object: "long", Status: 200})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := objects(all(t, open(t, mem, nil), Query{})); got[0] != "long=200" {
		t.Error(got)
	}
	l2 := open(t, again, nil)
	l2.Append(Entry{Object: "now"})
	if got := objects(all(t, l2, Query{})); got[1] != "long=0" {
		t.Errorf("a crash: %v", got)
	}
}
