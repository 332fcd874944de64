package linelog

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/clock"
)

// note is a record of these tests.
type note struct {
	Seq  uint64 `json:"seq"`
	Text string `json:"text"`
}

func (n note) Number() uint64 { return n.Seq }

func (n note) Numbered(seq uint64) note {
	n.Seq = seq
	return n
}

func options(fs blockfs.FS, clk clock.Clock) Options {
	return Options{FS: fs, Clock: clk, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Name: "note", What: "notes", MaxBytes: 4096, MaxAge: 24 * time.Hour, FileBytes: 1024}
}

// read returns the texts of a log, the newest first, by so many a look.
func read(t *testing.T, o Options, each int) []string {
	t.Helper()
	var out []string
	for before := uint64(0); ; {
		n := 0
		var last uint64
		next, err := Backward(t.Context(), o, before, func(r note) bool {
			if n == each {
				return false
			}
			n, last = n+1, r.Seq
			out = append(out, r.Text)
			return true
		})
		switch {
		case err != nil:
			t.Fatal(err)
		case n == each:
			before = last
		case next != 0:
			before = next
		default:
			return out
		}
	}
}

// TestBackward: what is written is read once, the newest first, by pages of any size, and goes
// on after a restart.
func TestBackward(t *testing.T) {
	mem := blockfs.NewMem()
	clk := clock.NewManual(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	o := options(mem, clk)
	o.MaxBytes = 1 << 20
	var want []string
	for range 3 {
		w := NewWriter[note](o)
		newest, err := w.Open()
		if err != nil {
			t.Fatal(err)
		}
		if len(want) > 0 && newest[len(newest)-1].Text != want[0] {
			t.Errorf("the newest file ends with %v, want %s", newest, want[0])
		}
		var batch []note
		for i := range 50 {
			batch = append(batch, note{Text: fmt.Sprintf("note %d of %d", i, len(want))})
			want = slices.Insert(want, 0, batch[i].Text)
		}
		if n, err := w.Write(batch, nil); n != 50 || err != nil {
			t.Fatalf("%d written, %v", n, err)
		}
		if got := batch[49].Seq; got != uint64(len(want)) {
			t.Errorf("the last of %d has number %d", len(want), got)
		}
		w.Close()
	}
	for _, each := range []int{1, 7, 1000} {
		if got := read(t, o, each); !slices.Equal(got, want) {
			t.Errorf("by %d: %d are read, want %d: %v", each, len(got), len(want), got)
		}
	}
}

// TestFull: a write that fails half-way says what is written, and what is tried again comes once.
func TestFull(t *testing.T) {
	syncs := 0
	fs := blockfs.Inject(blockfs.NewMem(), func(op blockfs.OpInfo) error {
		if op.Kind != blockfs.OpSync {
			return nil
		}
		if syncs++; syncs == 4 || syncs == 5 { // of the second file's lines, and of their removal
			return syscall.ENOSPC
		}
		return nil
	})
	o := options(fs, clock.NewManual(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)))
	w := NewWriter[note](o)
	defer w.Close()
	if _, err := w.Open(); err != nil {
		t.Fatal(err)
	}
	batch := make([]note, 40)
	for i := range batch {
		batch[i].Text = fmt.Sprint("note ", i, strings.Repeat(".", 30))
	}
	n, err := w.Write(batch, nil)
	if err == nil || n == 0 || n == len(batch) {
		t.Fatalf("%d written, %v", n, err)
	}
	if m, err := w.Write(batch[n:], nil); m != len(batch)-n || err != nil {
		t.Fatalf("%d of %d written, %v", m, len(batch)-n, err)
	}
	if got := read(t, o, 100); len(got) != len(batch) || got[0] != batch[39].Text {
		t.Errorf("%d are read of %d: %v", len(got), len(batch), got)
	}
}

// TestAges: files go by size, and by age one an hour.
func TestAges(t *testing.T) {
	mem := blockfs.NewMem()
	clk := clock.NewManual(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	mem.SetClock(clk)
	o := options(mem, clk)
	w := NewWriter[note](o)
	defer w.Close()
	if _, err := w.Open(); err != nil {
		t.Fatal(err)
	}
	add := func() {
		t.Helper()
		if _, err := w.Write([]note{{Text: strings.Repeat("x", 200)}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	for range 100 {
		add()
	}
	all, err := o.files()
	if err != nil {
		t.Fatal(err)
	}
	var size int64
	for _, f := range all {
		size += f.size
	}
	if len(all) < 2 || size > o.MaxBytes {
		t.Errorf("%d files of %d bytes", len(all), size)
	}
	clk.Advance(o.MaxAge)
	for want := len(all) - 1; want >= 1; want-- {
		clk.Advance(expireEvery)
		if _, err := w.Write(nil, nil); err != nil {
			t.Fatal(err)
		}
		if all, _ = o.files(); len(all) != want {
			t.Errorf("%d files, want %d", len(all), want)
		}
	}
}

func FuzzScan(f *testing.F) {
	line, err := line(note{7, "vdisk demo"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("x\n"), []byte("torn"))
	f.Add([]byte(""), []byte("\n"))
	f.Fuzz(func(t *testing.T, before, after []byte) {
		if len(before) > 0 && before[len(before)-1] != '\n' {
			before = append(before, '\n')
		}
		b := slices.Concat(before, line, after)
		records, good, _ := scan[note](b)
		if good < int64(len(before)+len(line)) || good > int64(len(b)) {
			t.Errorf("cut at %d of %d", good, len(b))
		}
		if !slices.ContainsFunc(records, func(r note) bool { return r.Seq >= 7 }) {
			t.Error("a good line is lost")
		}
	})
}
