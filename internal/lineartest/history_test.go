package lineartest

import (
	"strings"
	"sync"
	"testing"
	"time"
)

// TestCheck: histories as clients make them, and what is wrong with them; empty: nothing.
func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		make func(h *History)
		want string
	}{
		"nothing": {func(*History) {}, ""},
		"one after the other": {func(h *History) {
			h.Read(1).Saw(0)
			h.Write(1, 5).Done()
			h.Read(1).Saw(5)
			h.Read(2).Saw(0)
		}, ""},
		"a lost write": {func(h *History) {
			h.Write(1, 5).Done()
			h.Read(1).Saw(0)
		}, "block 1: no order"},
		"a stale read after a newer one": {func(h *History) {
			h.Write(1, 5).Done()
			w := h.Write(1, 6)
			h.Read(1).Saw(6)
			h.Read(1).Saw(5)
			w.Done()
		}, "block 1: no order"},
		"reads on both sides of a write that is not answered yet": {func(h *History) {
			h.Write(1, 5).Done()
			w := h.Write(1, 6)
			h.Read(1).Saw(5)
			h.Read(1).Saw(6)
			w.Done()
		}, ""},
		"without an answer it happens late": {func(h *History) {
			h.Write(1, 5).Done()
			h.Write(1, 6)
			h.Read(1).Saw(5)
			h.Write(1, 7).Done()
			h.Read(1).Saw(7)
			h.Read(1).Saw(6)
			h.Read(1).Saw(6)
		}, ""},
		"without an answer it happens once": {func(h *History) {
			h.Write(1, 6)
			h.Read(1).Saw(6)
			h.Write(1, 7).Done()
			h.Read(1).Saw(7)
			h.Read(1).Saw(6)
		}, "block 1: no order"},
		"without an answer it never happens": {func(h *History) {
			h.Write(1, 6)
			h.Write(1, 7).Done()
			h.Read(1).Saw(7)
		}, ""},
		"over, and it happened": {func(h *History) {
			h.Write(1, 6).Over()
			h.Read(1).Saw(6)
		}, ""},
		"over, and it did not": {func(h *History) {
			h.Write(1, 6).Over()
			h.Read(1).Saw(0)
		}, ""},
		"over, and it happens late": {func(h *History) {
			h.Write(1, 6).Over()
			h.Write(1, 7).Done()
			h.Read(1).Saw(6)
		}, "block 1: no order"},
		"over, and it shows late": {func(h *History) {
			h.Write(1, 6).Over()
			h.Read(1).Saw(0)
			h.Read(1).Saw(6)
		}, "block 1: no order"},
		"refused": {func(h *History) {
			h.Write(1, 6).Never()
			h.Read(1).Saw(0)
		}, ""},
		"refused, and it happened": {func(h *History) {
			h.Write(1, 6).Never()
			h.Read(1).Saw(6)
		}, "block 1: value 6 was read, and was never written"},
		"nobody wrote it": {func(h *History) { h.Read(3).Saw(9) }, "block 3: value 9 was read, and nobody wrote it"},
		"read before it was written": {func(h *History) {
			h.Read(3).Saw(9)
			h.Write(3, 9).Done()
		}, "block 3: value 9 was read before"},
		"a value twice": {func(h *History) {
			h.Write(1, 6).Done()
			h.Write(1, 6).Done()
		}, "value 6 is written twice"},
		"a read without an answer": {func(h *History) { h.Read(1) }, ""},
	} {
		var h History
		c.make(&h)
		err := h.Check(0)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// TestCheckMany: many clients on a block that is right, most of them without an answer, do not
// make the search long.
func TestCheckMany(t *testing.T) {
	var h History
	var mu sync.Mutex
	held := map[uint64]uint64{}
	var wg sync.WaitGroup
	for c := range uint64(8) {
		wg.Go(func() {
			for i := range uint64(200) {
				b, v := i%3, i*8+c+1
				w := h.Write(b, v)
				mu.Lock()
				if v%5 != 0 { // else it is lost
					held[b] = v
				}
				mu.Unlock()
				switch {
				case v%5 == 0 || v%2 == 0:
				default:
					w.Done()
				}
				r := h.Read(b)
				mu.Lock()
				v = held[b]
				mu.Unlock()
				r.Saw(v)
			}
		})
	}
	wg.Wait()
	if h.Len() != 3200 {
		t.Errorf("%d operations", h.Len())
	}
	if err := h.Check(20 * time.Second); err != nil {
		t.Error(err)
	}
}

// TestCheckNames: an error names what does not fit.
func TestCheckNames(t *testing.T) {
	var h History
	for v := range uint64(20) {
		h.Write(4, v+1).Done()
	}
	h.Read(4).Saw(3)
	err := h.Check(0)
	if want := "block 4: no order of its 21 operations explains what was read: "; err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "read 3 [41, 42]") {
		t.Errorf("%v", err)
	}
}
