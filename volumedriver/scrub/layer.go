package scrub

import (
	"math/bits"

	"github.com/openvstorage/ovgate/volumedriver/blockmap"
	"github.com/openvstorage/ovgate/volumedriver/sco"
)

// windowClusters is how many clusters of the disk are looked at in one pass over the
// TLogs of a segment: it bounds memory to 128 MiB of locations and 2 MiB of trims,
// and makes one pass of a disk of 64 GiB.
const windowClusters = 1 << 24

// layer is the effect of a segment on a window of the disk.
type layer struct {
	from, n uint64 // clusters
	level   uint8
	m       *blockmap.Map
	trims   []uint64 // bit set of what is trimmed and holds no data
}

func newLayer(level uint8, from, n uint64) *layer {
	return &layer{from: from, n: n, level: level, m: blockmap.New(n, nil), trims: make([]uint64, (n+63)/64)}
}

// clip returns the part of an extent that is in the window, relative to it, and how
// many of its clusters come before.
func (l *layer) clip(e sco.Extent, per uint64) (start, end, skip uint64) {
	first, last := e.LBA/per, e.LBA/per+e.Length/per
	start, end = max(first, l.from), min(last, l.from+l.n)
	if start >= end {
		return 0, 0, 0
	}
	return start - l.from, end - l.from, start - first
}

// add applies an SCO (O1: trims, then data).
func (l *layer) add(f *sco.Footer) {
	per := uint64(f.Cluster / lbaBytes)
	for _, e := range f.Extents {
		if start, end, _ := l.clip(e, per); e.Kind != sco.KindData && start < end {
			l.m.Clear(start, end-start)
			l.mark(start, end, true)
		}
	}
	for _, e := range f.Extents {
		if e.Kind != sco.KindData {
			continue
		}
		start, end, skip := l.clip(e, per)
		for c := start; c < end; c++ {
			l.m.Set(c, blockmap.MakeLoc(f.Number, l.level, uint16(uint64(e.First)+skip+c-start)))
		}
		l.mark(start, end, false)
	}
}

// mark sets or clears the bits of [start, end).
func (l *layer) mark(start, end uint64, on bool) {
	for start < end {
		w, bit := start/64, start%64
		n := min(64-bit, end-start)
		mask := (^uint64(0) >> (64 - n)) << bit
		if on {
			l.trims[w] |= mask
		} else {
			l.trims[w] &^= mask
		}
		start += n
	}
}

// eachTrim calls fn for the runs of trimmed clusters, by their place on the disk.
func (l *layer) eachTrim(fn func(start, n uint64)) {
	run := func(c uint64, on bool) uint64 { // end of the run of bits from c
		for c < l.n {
			w := l.trims[c/64]
			if on {
				w = ^w
			}
			if w >>= c % 64; w != 0 {
				return min(c+uint64(bits.TrailingZeros64(w)), l.n)
			}
			c = (c/64 + 1) * 64
		}
		return l.n
	}
	for c := run(0, false); c < l.n; {
		end := run(c, true)
		fn(l.from+c, end-c)
		c = run(end, false)
	}
}

// eachData calls fn for the clusters that hold data, in order.
func (l *layer) eachData(fn func(cluster uint64, at blockmap.Loc) error) error {
	for c := uint64(0); ; c++ {
		c, _ = l.m.NextMapped(c, nil) // nothing of this map is anywhere but in memory
		if c >= l.n {
			return nil
		}
		at, _ := l.m.Get(c, nil)
		if err := fn(l.from+c, at); err != nil {
			return err
		}
	}
}
