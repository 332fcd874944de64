package event

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// told keeps what a log tells.
type told struct {
	mu     sync.Mutex
	events []Event
}

func (s *told) add(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
}

func (s *told) all() []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events)
}

type bed struct {
	*Log
	t   *testing.T
	clk *clock.Manual
	told
}

func open(t *testing.T, fs blockfs.FS, o Options) *bed {
	t.Helper()
	b := &bed{t: t, clk: clock.NewManual(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))}
	o.FS, o.Clock, o.Told, o.Node = fs, b.clk, b.add, "here"
	b.Log = Open(o)
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// settle waits until everything is written.
func (b *bed) settle() {
	b.t.Helper()
	for s := b.Status(); s.Pending > 0 || s.Err != nil; s = b.Status() {
		if s.Err != nil { // the disk is tried again; else time would end what is joined
			b.clk.Advance(tickEvery)
		}
		time.Sleep(time.Millisecond)
	}
}

// texts returns what is kept, the newest first, by pages of the limit.
func (b *bed) texts(q Query) []string {
	b.t.Helper()
	if q.Limit == 0 {
		q.Limit = 1000
	}
	var out []string
	for {
		p, err := b.List(b.t.Context(), q)
		if err != nil {
			b.t.Fatal(err)
		}
		if len(p.Events) > q.Limit {
			b.t.Fatalf("%d events on a page of %d", len(p.Events), q.Limit)
		}
		for _, e := range p.Events {
			out = append(out, e.Object+": "+e.Text)
		}
		if p.Next == 0 {
			return out
		}
		q.Before = p.Next
	}
}

// TestList: filters and pages, and that a restart keeps everything.
func TestList(t *testing.T) {
	mem := blockfs.NewMem()
	b := open(t, mem, Options{})
	start := b.clk.Now()
	b.Tell(VDiskCreated, "vdisk one", "bytes", "4096")
	b.Tell(VDiskPublished, "vdisk one", "lun", "0", "target", "iqn.x")
	b.settle()
	b.clk.Advance(time.Hour)
	b.Tell(SessionRefused, "target iqn.x", "initiator", "iqn.host", "address", "10.0.0.1", "reason", "no such\ninitiator")
	b.Tell(VDiskLostTail, "vdisk two", "reason", "it is gone")
	b.settle()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = open(t, mem, Options{})
	b.clk.Advance(2 * time.Hour)
	b.Tell(VDiskDeleted, "vdisk one")
	b.Tell("no.such_code", "vdisk one")
	b.settle()
	all := []string{
		"vdisk one: Deleted",
		"vdisk two: Acknowledged writes are missing, it is offline: it is gone",
		"target iqn.x: iqn.host from 10.0.0.1 was refused: no such initiator",
		"vdisk one: Published as LUN 0 of iqn.x",
		"vdisk one: Made, 4096 bytes",
	}
	for _, c := range []struct {
		name string
		q    Query
		want []string
	}{
		{"all", Query{}, all},
		{"severity", Query{Severities: AtLeast(Warning)}, all[1:3]},
		{"error", Query{Severities: AtLeast(Error)}, all[1:2]},
		{"code", Query{Codes: []string{"vdisk.created", "vdisk.deleted"}}, []string{all[0], all[4]}},
		{"kind", Query{Codes: []string{"session"}}, all[2:3]},
		{"half a code", Query{Codes: []string{"vdisk.del"}}, nil},
		{"object", Query{Object: "vdisk one"}, []string{all[0], all[3], all[4]}},
		{"half an object", Query{Object: "vdisk o"}, nil},
		{"text", Query{Text: "OFFLINE"}, all[1:2]},
		{"text of an object", Query{Text: "two"}, all[1:2]},
		{"since", Query{Since: start.Add(time.Minute)}, all[:3]},
		{"until", Query{Until: start.Add(time.Minute)}, all[3:]},
		{"after", Query{After: 3}, all[:2]},
	} {
		for limit := 1; limit < 4; limit++ {
			c.q.Limit = limit
			if got := b.texts(c.q); !slices.Equal(got, c.want) {
				t.Errorf("%s, by %d: %q, want %q", c.name, limit, got, c.want)
			}
		}
	}
	for len(b.all()) == 0 { // it is told a moment after it is written
		time.Sleep(time.Millisecond)
	}
	if got := b.all(); len(got) != 1 || got[0].Seq != 5 || got[0].Code != VDiskDeleted {
		t.Errorf("told %+v", got)
	}
}

// TestFlood: of many events of one code on one object the first are kept one by one, the
// others as one with their number; other objects' are not touched by that (T3).
func TestFlood(t *testing.T) {
	b := open(t, blockfs.NewMem(), Options{})
	for i := range 224 {
		b.Tell(SessionRefused, "target iqn.x", "initiator", "iqn.host", "address", fmt.Sprint("10.0.0.", i), "reason", "CHAP")
		b.clk.Advance(100 * time.Millisecond)
	}
	b.Tell(SessionRefused, "target iqn.y", "initiator", "iqn.host", "address", "10.0.0.1", "reason", "CHAP")
	b.clk.Advance(joinWithin)
	for len(b.texts(Query{})) < joinAfter+2 {
		b.clk.Advance(tickEvery)
		time.Sleep(time.Millisecond)
	}
	got := b.texts(Query{})
	if len(got) != joinAfter+2 {
		t.Fatalf("%d events: %q", len(got), got)
	}
	if want := "target iqn.x: iqn.host from 10.0.0.223 was refused: CHAP (214 times in 21s)"; got[0] != want {
		t.Errorf("%q, want %q", got[0], want)
	}
	all, err := b.List(t.Context(), Query{Limit: 1})
	if err != nil || all.Events[0].Count != 214 || all.Events[0].Time.Sub(all.Events[0].Since) != 213*100*time.Millisecond {
		t.Errorf("%+v, %v", all, err)
	}
	// A new minute begins.
	b.Tell(SessionRefused, "target iqn.x", "initiator", "iqn.host", "address", "10.0.0.1", "reason", "CHAP")
	b.settle()
	if got := b.texts(Query{}); len(got) != joinAfter+3 || strings.Contains(got[0], "times") {
		t.Errorf("%q", got)
	}
}

// TestNewest: a page says which number is the newest, whatever it asks for, and what comes after it is
// listed alone.
func TestNewest(t *testing.T) {
	mem := blockfs.NewMem()
	b := open(t, mem, Options{})
	newest := func(q Query, want uint64, events int) {
		t.Helper()
		q.Limit = 10
		p, err := b.List(t.Context(), q)
		if err != nil || p.Newest != want || len(p.Events) != events || p.Next != 0 {
			t.Errorf("%+v: %+v, %v; want %d as the newest, %d events", q, p, err, want, events)
		}
	}
	newest(Query{}, 0, 0)
	b.Tell(VDiskCreated, "vdisk one", "bytes", "4096")
	b.Tell(VDiskCreated, "vdisk two", "bytes", "4096")
	b.settle()
	newest(Query{Object: "vdisk one"}, 2, 1)
	newest(Query{After: 1}, 2, 1)
	newest(Query{After: 2}, 2, 0)
	newest(Query{After: 9}, 2, 0) // of a history that is gone
	newest(Query{Before: 2}, 0, 1)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = open(t, mem, Options{}) // nothing is written yet
	newest(Query{After: 2}, 2, 0)
	b.Tell(VDiskDeleted, "vdisk one")
	b.settle()
	newest(Query{After: 2}, 3, 1)
}

// TestManyObjects: floods over more objects than are counted stay bounded.
func TestManyObjects(t *testing.T) {
	b := open(t, blockfs.NewMem(), Options{})
	const n = 2 * maxWindows
	for i := range n {
		b.Tell(VDiskCreated, fmt.Sprint("vdisk d", i), "bytes", "4096")
		if i%1000 == 0 {
			b.settle()
		}
	}
	b.clk.Advance(joinWithin)
	b.settle()
	count := func() (sum int) {
		q := Query{Limit: 1000}
		for {
			p, err := b.List(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range p.Events {
				sum += max(e.Count, 1)
				if e.Count > 0 && e.Object != "" {
					t.Errorf("%d events of several objects are said to be of %s", e.Count, e.Object)
				}
			}
			if q.Before = p.Next; p.Next == 0 {
				return sum
			}
		}
	}
	for count() < n {
		b.clk.Advance(tickEvery)
		time.Sleep(time.Millisecond)
	}
	if got := count(); got != n {
		t.Errorf("%d events are kept, want %d", got, n)
	}
	if got := len(b.texts(Query{})); got > maxWindows+joinAfter+1 {
		t.Errorf("%d lines", got)
	}
}

// TestFullDisk: while the disk takes nothing, events are told without a number and wait in
// memory; what finds no room there is counted (T2, T5).
func TestFullDisk(t *testing.T) {
	var full atomic.Bool
	b := open(t, blockfs.Inject(blockfs.NewMem(), func(op blockfs.OpInfo) error {
		if full.Load() && (op.Kind == blockfs.OpWrite || op.Kind == blockfs.OpSync) {
			return syscall.ENOSPC
		}
		return nil
	}), Options{})
	b.Tell(VDiskCreated, "vdisk before", "bytes", "4096")
	b.settle()
	full.Store(true)
	const more = 7
	for i := range maxPending + more {
		b.Tell(VDiskCreated, fmt.Sprint("vdisk d", i%500), "bytes", fmt.Sprint(i))
		b.clk.Advance(joinWithin / 100)
	}
	for b.Status().Err == nil {
		b.clk.Advance(tickEvery)
		time.Sleep(time.Millisecond)
	}
	for len(b.all()) < maxPending {
		b.clk.Advance(tickEvery)
		time.Sleep(time.Millisecond)
	}
	if s := b.Status(); s.Lost == 0 || s.Pending != maxPending {
		t.Errorf("%+v", s)
	}
	if got := b.all(); got[0].Seq != 1 || got[1].Seq != 0 {
		t.Errorf("told %+v and %+v", got[0], got[1])
	}
	full.Store(false)
	b.settle()
	got, err := b.List(t.Context(), Query{Limit: 2})
	if err != nil || got.Events[0].Code != EventsLost || !strings.HasSuffix(got.Events[0].Text, " events could not be written") {
		t.Errorf("%+v, %v", got, err)
	}
	if kept := b.texts(Query{}); len(kept) != maxPending+2 {
		t.Errorf("%d events are kept", len(kept))
	}
	if s := b.Status(); s.Lost != 0 || s.Err != nil {
		t.Errorf("%+v", s)
	}
	seen := map[string]bool{}
	for _, e := range b.all() {
		if seen[e.Object+e.Text] {
			t.Errorf("%s of %s is told twice", e.Text, e.Object)
		}
		seen[e.Object+e.Text] = true
	}
}

var field = regexp.MustCompile(`\{[a-z]+\}`)

// TestCatalogue: codes are sorted, sentences are sentences, whatever needs something to be done
// says what, and the README has the same as a table.
func TestCatalogue(t *testing.T) {
	all := Catalogue()
	if !slices.IsSortedFunc(all, func(a, b About) int { return strings.Compare(string(a.Code), string(b.Code)) }) {
		t.Error("the codes are not sorted")
	}
	table := "| code | severity | object | what | what to do |\n|---|---|---|---|---|\n"
	for _, a := range all {
		if got, ok := Find(a.Code); !ok || got != a {
			t.Errorf("%s is not found", a.Code)
		}
		if !regexp.MustCompile(`^[a-z]+\.[a-z_]+$`).MatchString(string(a.Code)) || !slices.Contains(severities, a.Severity) {
			t.Errorf("%s, %s", a.Code, a.Severity)
		}
		if a.Severity == Error && a.Remedy == "" {
			t.Errorf("%s says not what to do", a.Code)
		}
		if strings.HasSuffix(a.Text, ".") || a.Text == "" {
			t.Errorf("%s: %q", a.Code, a.Text)
		}
		if n := len(slices.Compact(slices.Sorted(slices.Values(field.FindAllString(a.Text+a.Remedy, -1))))); n > maxFields {
			t.Errorf("%s has %d fields", a.Code, n)
		}
		kind, remedy := a.Kind, a.Remedy
		if kind == "" {
			kind = "any"
		}
		table += fmt.Sprintf("| `%s` | %s | %s | %s | %s |\n", a.Code, a.Severity, kind, a.Text, remedy)
	}
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), table) {
		t.Errorf("README.md lacks this table:\n%s", table)
	}
}
