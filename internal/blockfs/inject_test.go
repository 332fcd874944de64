package blockfs

import (
	"errors"
	"strings"
	"testing"
)

// Every kind of operation is announced, in order and numbered, and can be made
// to fail without effect.
func TestInjectSeesEverything(t *testing.T) {
	var log []string
	var fail error
	m := NewMem()
	fsys := Inject(m, func(op OpInfo) error {
		log = append(log, op.String())
		return fail
	})
	f := mustOpen(t, fsys, "f", Write|Create)
	steps := []struct {
		want string
		do   func() error
	}{
		{"write f [3,+4)", func() error { _, err := f.WriteAt(make([]byte, 4), 3); return err }},
		{"read f [0,+7)", func() error { _, err := f.ReadAt(make([]byte, 7), 0); return err }},
		{"sync f", f.Sync},
		{"truncate f to 9", func() error { return f.Truncate(9) }},
		{"preallocate f to 99", func() error { return f.Preallocate(99) }},
		{"mkdir d", func() error { return fsys.MkdirAll("d") }},
		{"link f to d/g", func() error { return fsys.Link("f", "d/g") }},
		{"rename d/g to d/h", func() error { return fsys.Rename("d/g", "d/h") }},
		{"syncdir d", func() error { return fsys.SyncDir("d") }},
		{"list d", func() error { _, err := fsys.List("d"); return err }},
		{"list d", func() error { _, err := fsys.ListNames("d"); return err }},
		{"stat d/h", func() error { _, err := fsys.Stat("d/h"); return err }},
		{"open d/h", func() error {
			h, err := fsys.Open("d/h", Read)
			if err == nil {
				err = h.Close()
			}
			return err
		}},
		{"remove d/h", func() error { return fsys.Remove("d/h") }},
	}
	for _, s := range steps {
		before := m.Ops()
		fail = errors.New("injected")
		mustBe(t, s.want, s.do(), fail)
		if m.Ops() != before {
			t.Fatalf("%s had an effect", s.want)
		}
		fail = nil
		must(t, s.do())
		if last := log[len(log)-1]; !strings.HasSuffix(last, " "+s.want) {
			t.Fatalf("announced %q, want %q", last, s.want)
		}
	}
	if want := "1 open f"; log[0] != want || len(log) != 1+2*len(steps) {
		t.Fatalf("%d operations, first %q", len(log), log[0])
	}
	if Kind(99).String() != "kind(99)" {
		t.Fatal("unknown kind has no name")
	}
}

// A partial transfer moves its part; the file system's own error wins.
func TestInjectPartial(t *testing.T) {
	fail := errors.New("injected")
	var inject error
	fsys := Inject(NewMem(), func(op OpInfo) error { return inject })
	f := mustOpen(t, fsys, "f", Write|Create)
	mustWrite(t, f, []byte("abcdef"), 0)
	for _, c := range []struct{ ask, want int }{{-1, 0}, {0, 0}, {3, 3}, {99, 6}} {
		inject = Partial(c.ask, fail)
		got := make([]byte, 6)
		n, err := f.ReadAt(got, 0)
		if n != c.want || !errors.Is(err, fail) || string(got[:n]) != "abcdef"[:n] {
			t.Fatalf("partial %d: %d, %v, %q", c.ask, n, err, got)
		}
	}
	inject = Partial(3, fail)
	mustBe(t, "sync", f.Sync(), fail)
	if s := inject.Error(); s != "injected (after 3 bytes)" {
		t.Fatal(s)
	}
}
