package node

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
)

const (
	// mapShare: the maps get an eighth of the memory by default. A fully mapped GiB takes
	// 2 MiB of pages, so a machine with 16 GiB has all pages of 1 TiB in memory; journal
	// buffers, read cache and the pages' index take less than another eighth, and the
	// rest is page cache, where pages that were dropped are found again.
	mapShare = 8
	// minDefaultMap and maxDefaultMap bound the default: what a small machine can do
	// without, and all pages of 8 TiB.
	minDefaultMap = 64 << 20
	maxDefaultMap = 16 << 30
	// unknownMemory is assumed where the machine does not tell.
	unknownMemory = 4 << 30
)

// defaultMapMemory returns the budget of a machine with that much memory, in bytes.
func defaultMapMemory(total int64) int64 {
	return min(max(total/mapShare, minDefaultMap), maxDefaultMap)
}

// mapMemory returns how many bytes of map pages are kept in memory.
func (n *node) mapMemory() int64 {
	if n.cfg.MapMemory != 0 {
		return n.cfg.MapMemory
	}
	total := int64(unknownMemory)
	if f, err := os.Open("/proc/meminfo"); err == nil {
		if t, err := memTotal(f); err == nil {
			total = t
		}
		f.Close()
	}
	return defaultMapMemory(total)
}

// memTotal reads the machine's memory, in bytes, from /proc/meminfo.
func memTotal(r io.Reader) (int64, error) {
	for s := bufio.NewScanner(r); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), "MemTotal:"); ok {
			var kib int64
			if _, err := fmt.Sscanf(rest, "%d kB", &kib); err != nil || kib <= 0 {
				return 0, fmt.Errorf("MemTotal is %q", strings.TrimSpace(rest))
			}
			return kib << 10, nil
		}
	}
	return 0, fmt.Errorf("no MemTotal")
}
