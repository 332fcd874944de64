package blockfs

import "math/rand/v2"

// span is a range of bytes [off, end).
type span struct{ off, end int64 }

// segment is a run of written bytes. data is immutable.
type segment struct {
	off  int64
	data []byte
}

func (s segment) end() int64 { return s.off + int64(len(s.data)) }

// without returns the parts of s outside a range.
func (s segment) without(r span) []segment {
	if r.end <= s.off || s.end() <= r.off {
		return []segment{s}
	}
	var parts []segment
	if s.off < r.off {
		parts = append(parts, segment{s.off, s.data[:r.off-s.off]})
	}
	if r.end < s.end() {
		parts = append(parts, segment{r.end, s.data[r.end-s.off:]})
	}
	return parts
}

// changeKind tells what a change does to a content.
type changeKind int

const (
	changeWrite changeKind = iota + 1
	changeTruncate
	changeAllocate
)

// change is one modification of a file that is not durable yet.
type change struct {
	id   int64
	kind changeKind
	segs []segment // changeWrite
	from int64     // changeAllocate: the size before
	size int64     // changeTruncate, changeAllocate: the new size
	// keep are ranges that a later DSync write made durable; a truncation that
	// takes effect after it leaves them alone (B1).
	keep []span
}

// apply carries the whole change out.
func (ch *change) apply(c *content) {
	switch ch.kind {
	case changeWrite:
		for _, s := range ch.segs {
			c.write(s.off, s.data)
		}
	case changeAllocate:
		c.allocate(ch.from, ch.size)
	case changeTruncate:
		saved := make([]segment, 0, len(ch.keep))
		for _, k := range ch.keep {
			buf := make([]byte, k.end-k.off)
			saved = append(saved, segment{k.off, buf[:c.readAt(buf, k.off)]})
		}
		c.truncate(ch.size)
		for _, s := range saved {
			c.write(s.off, s.data)
		}
	}
}

// tear carries a random part of the change out: some sectors of a write, some
// of the growth of an allocation, all or nothing of a truncation.
func (ch *change) tear(c *content, r *rand.Rand) {
	switch ch.kind {
	case changeWrite:
		for _, s := range ch.segs {
			tearSegment(c, s, r)
		}
	case changeAllocate:
		if n := ch.size - ch.from; n > 0 {
			c.allocate(ch.from, ch.from+r.Int64N(n/SectorSize+1)*SectorSize)
		}
	case changeTruncate:
		if r.IntN(2) == 0 {
			ch.apply(c)
		}
	}
}

// tearSegment writes a random subset of the sectors. File systems may also
// record the new size before the bytes, so the rest can show up as zeros.
func tearSegment(c *content, s segment, r *rand.Rand) {
	if r.IntN(2) == 0 {
		c.grow(s.end())
	}
	// Fully random bits would hardly ever leave long runs, so a part of the torn
	// writes is lost whole, or on one side of a cut.
	cut, head := int64(-1), true
	switch r.IntN(4) {
	case 0:
		cut = s.off
	case 1:
		cut, head = s.off+r.Int64N(int64(len(s.data))+1), r.IntN(2) == 0
	}
	run := s.off // start of the sectors kept since the last lost one
	for off := s.off; off < s.end(); {
		end := min(s.end(), off-off%SectorSize+SectorSize)
		keep := r.IntN(2) == 0
		if cut >= 0 {
			keep = (off < cut) == head
		}
		if !keep {
			c.write(run, s.data[run-s.off:off-s.off])
			run = end
		}
		off = end
	}
	c.write(run, s.data[run-s.off:])
}
