package node

import (
	"strings"
	"testing"
)

func TestDefaultMapMemory(t *testing.T) {
	for total, want := range map[int64]int64{256 << 20: 64 << 20, 16 << 30: 2 << 30, 24 << 30: 3 << 30, 1 << 40: 16 << 30} {
		if got := defaultMapMemory(total); got != want {
			t.Errorf("a machine with %d MiB: %d MiB, want %d", total>>20, got>>20, want>>20)
		}
	}
	for text, want := range map[string]int64{"MemFree: 1 kB\nMemTotal:       24731416 kB\n": 24731416 << 10, "MemTotal: x\n": 0, "MemTotal: -5 kB\n": 0, "": 0} {
		if got, err := memTotal(strings.NewReader(text)); got != want || (err == nil) != (want != 0) {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
}

// TestMapMemoryBounds: a budget outside its bounds stops the start, and the flag goes
// before the file.
func TestMapMemoryBounds(t *testing.T) {
	for _, n := range []int64{-1, 1, 16<<20 - 1, 1<<40 + 1} {
		if _, err := loadConfig(Options{MapMemory: n}); err == nil || !strings.Contains(err.Error(), "map_memory") {
			t.Errorf("%d: %v", n, err)
		}
	}
	c, err := loadConfig(Options{MapMemory: 16 << 20})
	if err != nil || (&node{cfg: c}).mapMemory() != 16<<20 {
		t.Errorf("%v: %d", err, c.MapMemory)
	}
}
