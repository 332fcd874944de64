package blockmap

import "slices"

// Point is the newest data of a cluster, in the journal.
type Point struct {
	Batch uint32 // of the volume's uploads; entries leave the overlay with it
	Chunk uint32 // journal chunk id
	Off   uint32 // in the chunk, in units of 4 KiB
	Sum   uint32 // clustersum
}

// span is a trimmed range [start, end) of clusters.
type span struct {
	start, end uint64
	batch      uint32
}

// Overlay holds what is newer than the committed head. Not safe for concurrent use.
type Overlay struct {
	points map[uint64]Point
	spans  []span // sorted, disjoint
}

// NewOverlay returns an empty overlay.
func NewOverlay() *Overlay { return &Overlay{points: map[uint64]Point{}} }

// Write records data at cluster c.
func (o *Overlay) Write(c uint64, p Point) { o.points[c] = p }

// Trim records that n clusters from c hold no data as of batch.
func (o *Overlay) Trim(c, n uint64, batch uint32) {
	o.dropPoints(c, n)
	end := c + n
	lo, _ := slices.BinarySearchFunc(o.spans, c, func(s span, c uint64) int {
		if s.end < c {
			return -1
		}
		return 1
	})
	hi := lo
	add := span{c, end, batch}
	var left, right []span
	for ; hi < len(o.spans) && o.spans[hi].start <= end; hi++ {
		s := o.spans[hi]
		if s.batch == batch { // adjacent or overlapping of the same batch: one span
			add.start, add.end = min(add.start, s.start), max(add.end, s.end)
			continue
		}
		if s.start < c {
			left = append(left, span{s.start, min(s.end, c), s.batch})
		}
		if s.end > end {
			right = append(right, span{max(s.start, end), s.end, s.batch})
		}
	}
	o.spans = slices.Replace(o.spans, lo, hi, slices.Concat(left, []span{add}, right)...)
}

// dropPoints forgets data in a range, by whichever way is shorter (M2).
func (o *Overlay) dropPoints(c, n uint64) {
	if n <= uint64(len(o.points)) {
		for i := range n {
			delete(o.points, c+i)
		}
		return
	}
	for k := range o.points {
		if k >= c && k-c < n {
			delete(o.points, k)
		}
	}
}

// Find returns what the overlay knows of cluster c: a point, or trimmed, or
// neither.
func (o *Overlay) Find(c uint64) (p Point, point, trimmed bool) {
	if p, point = o.points[c]; point {
		return p, true, false
	}
	if len(o.spans) == 0 {
		return p, false, false
	}
	i, _ := slices.BinarySearchFunc(o.spans, c, func(s span, c uint64) int {
		if s.end <= c {
			return -1
		}
		return 1
	})
	return p, false, i < len(o.spans) && o.spans[i].start <= c
}

// DropPoint forgets the data of cluster c if it is of batch (M3).
func (o *Overlay) DropPoint(c uint64, batch uint32) {
	if p, ok := o.points[c]; ok && p.Batch == batch {
		delete(o.points, c)
	}
}

// DropSpans forgets the trims of batch (M3).
func (o *Overlay) DropSpans(batch uint32) {
	o.spans = slices.DeleteFunc(o.spans, func(s span) bool { return s.batch == batch })
}

// Len returns the number of points and trimmed ranges.
func (o *Overlay) Len() (points, spans int) { return len(o.points), len(o.spans) }

// Each calls fn for every point, in no particular order.
func (o *Overlay) Each(fn func(c uint64, p Point)) {
	for c, p := range o.points {
		fn(c, p)
	}
}

// EachSpan calls fn for every trimmed range, in order.
func (o *Overlay) EachSpan(fn func(start, n uint64, batch uint32)) {
	for _, s := range o.spans {
		fn(s.start, s.end-s.start, s.batch)
	}
}
