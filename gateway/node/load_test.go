package node

import (
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/volumedriver/journal"
)

// TestLoad: shares of what the machine tells, in steps, and nothing where it tells none.
func TestLoad(t *testing.T) {
	busy, total, err := cpuTimes(strings.NewReader("cpu  100 10 40 800 30 5 5 10 0 0\ncpu0 1 2 3\n"))
	if err != nil || busy != 170 || total != 1000 {
		t.Errorf("busy %d of %d, %v", busy, total, err)
	}
	for _, bad := range []string{"", "cpu 1 2", "intr 1 2 3 4 5 6 7 8", "cpu a b c d e f g h"} {
		if _, _, err := cpuTimes(strings.NewReader(bad)); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
	for in, want := range map[string]int{
		"MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 390 kB\n": 60,
		"MemTotal: 1000 kB\nMemAvailable: 2000 kB\n":               0,
		"MemAvailable: 2000 kB\n":                                  0,
		"MemTotal: x kB\n":                                         0,
	} {
		if got := memoryShare(strings.NewReader(in)); got != want {
			t.Errorf("%q: %d %%, want %d", in, got, want)
		}
	}
	if got := journalShare(journal.Usage{Bytes: 80, MaxBytes: 100, ChunkBytes: 10, Free: 3}); got != 50 {
		t.Errorf("journal %d %%", got)
	}
	if got := journalShare(journal.Usage{ChunkBytes: 10, Free: 3}); got != 0 {
		t.Errorf("no journal: %d %%", got)
	}
	for _, c := range []struct {
		part, whole uint64
		want        int
	}{{0, 0, 0}, {1, 100, 0}, {3, 100, 5}, {97, 100, 95}, {98, 100, 100}, {500, 100, 100}} {
		if got := share(c.part, c.whole); got != c.want {
			t.Errorf("%d of %d: %d %%, want %d", c.part, c.whole, got, c.want)
		}
	}
}
