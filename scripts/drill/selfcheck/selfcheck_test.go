package selfcheck

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
)

// memDisk is a disk in memory that fails after a number of writes.
type memDisk struct {
	mu    sync.Mutex
	data  []byte
	left  int // writes until it fails; negative: never
	apply bool
}

var errGone = errors.New("gone")

func (d *memDisk) ReadAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return copy(p, d.data[off:]), nil
}

func (d *memDisk) WriteAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.left == 0 {
		if d.apply { // taken effect, not answered
			copy(d.data[off:], p)
		}
		return 0, errGone
	}
	d.left--
	return copy(d.data[off:], p), nil
}

const blocks = 512

// loaded returns a disk that failed in the middle of a load.
func loaded(t *testing.T, apply bool) (*Load, *memDisk) {
	t.Helper()
	d := &memDisk{data: make([]byte, blocks*BlockSize), left: 400, apply: apply}
	l := New(blocks, 7)
	if err := l.Run(context.Background(), d, 8, 1); err != nil {
		t.Fatal(err)
	}
	if c := l.Counts(); c.Writes != 400 || c.Unknown == 0 || c.Reads == 0 {
		t.Fatalf("load did %+v", c)
	}
	d.left = -1
	return l, d
}

func TestHonestDisk(t *testing.T) {
	for _, apply := range []bool{true, false} {
		l, d := loaded(t, apply)
		if err := l.Verify(d); err != nil {
			t.Errorf("unanswered writes applied %v: %v", apply, err)
		}
	}
}

// acknowledged returns a block that was acknowledged at least twice.
func (l *Load) acknowledged(t *testing.T) int {
	t.Helper()
	for _, i := range rand.Perm(blocks) {
		if l.blocks[i].acked > 1 {
			return i
		}
	}
	t.Fatal("no block was written twice")
	return 0
}

func TestLossShows(t *testing.T) {
	for _, tc := range []struct {
		name, want string
		harm       func(l *Load, d *memDisk, i int)
	}{
		{"lost", "holds version 0", func(_ *Load, d *memDisk, i int) { clear(d.block(i)) }},
		{"older", "holds version", func(l *Load, d *memDisk, i int) { l.fill(d.block(i), uint64(i), l.blocks[i].acked-1) }},
		{"never submitted", "holds version", func(l *Load, d *memDisk, i int) { l.fill(d.block(i), uint64(i), l.blocks[i].submitted+1) }},
		{"torn", "torn", func(_ *Load, d *memDisk, i int) { clear(d.block(i)[512:1024]) }},
		{"flipped", "torn", func(_ *Load, d *memDisk, i int) { d.block(i)[99] ^= 1 }},
		{"misplaced", "foreign", func(_ *Load, d *memDisk, i int) { copy(d.block((i+1)%blocks), d.block(i)) }},
		{"other disk", "foreign", func(l *Load, d *memDisk, i int) { New(blocks, 8).fill(d.block(i), uint64(i), l.blocks[i].acked) }},
	} {
		l, d := loaded(t, false)
		tc.harm(l, d, l.acknowledged(t))
		if err := l.Verify(d); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: verify says %v, want %q", tc.name, err, tc.want)
		}
	}
}

// TestLateWrite: a write that a check did not find must stay away.
func TestLateWrite(t *testing.T) {
	l, d := loaded(t, false)
	if err := l.Verify(d); err != nil {
		t.Fatal(err)
	}
	for i, b := range l.blocks {
		if b.submitted > b.acked {
			l.fill(d.block(i), uint64(i), b.submitted)
			if err := l.Verify(d); err == nil || !strings.Contains(err.Error(), "not there at the last check") {
				t.Fatalf("verify says %v", err)
			}
			return
		}
	}
	t.Fatal("no write was left without an answer")
}

// TestProbe: a read on another path must not be older than what was acknowledged before it.
func TestProbe(t *testing.T) {
	l, d := loaded(t, false)
	i := l.acknowledged(t)
	if answered, err := l.Probe(d, 0, blocks); !answered || err != nil {
		t.Fatalf("answered %v: %v", answered, err)
	}
	old := append([]byte(nil), d.block(i)...)
	l.fill(old, uint64(i), l.blocks[i].acked-1)
	copy(d.block(i), old)
	if answered, err := l.Probe(d, i, 1); !answered || err == nil || !strings.Contains(err.Error(), "probe") {
		t.Errorf("a stale read: answered %v, %v", answered, err)
	}
	if answered, err := l.Probe(silent{}, i, 1); answered || err != nil {
		t.Errorf("a path that answers nothing: answered %v, %v", answered, err)
	}
}

// silent answers nothing.
type silent struct{}

func (silent) ReadAt([]byte, int64) (int, error)  { return 0, errGone }
func (silent) WriteAt([]byte, int64) (int, error) { return 0, errGone }

func TestForget(t *testing.T) {
	d := &memDisk{data: make([]byte, blocks*BlockSize), left: 200}
	l := New(blocks, 7)
	if err := l.Run(t.Context(), d, 4, 1); err != nil {
		t.Fatal(err)
	}
	mark, kept := l.Mark(), append([]byte(nil), d.data...)
	d.left = 200
	if err := l.Run(t.Context(), d, 4, 2); err != nil {
		t.Fatal(err)
	}
	d.data = kept // the tail is lost
	d.left = -1
	if err := l.Verify(d); err == nil {
		t.Fatal("a lost tail does not show")
	}
	l.Forget(mark)
	if err := l.Verify(d); err != nil {
		t.Errorf("after Forget: %v", err)
	}
}

func (d *memDisk) block(i int) []byte { return d.data[i*BlockSize : (i+1)*BlockSize] }
