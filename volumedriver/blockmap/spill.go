package blockmap

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
)

// PageWriter puts pages into segments, one after the other.
type PageWriter interface {
	// WritePage stores PageBytes bytes and returns where they are from now on.
	WritePage(b []byte) (s *Segment, slot uint32, err error)
}

// Spill writes the dirty pages to segments; the pages can be dropped from then on. On
// an error those that were not written stay dirty (M7). Without the lock: lookups
// see no difference.
func (m *Map) Spill(w PageWriter) error {
	slices.Sort(m.dirty)
	m.dirty = slices.Compact(m.dirty)
	buf := make([]byte, PageBytes)
	for i, n := range m.dirty {
		r := m.node(n / nodePages).ref(n % nodePages)
		if r == nil || r.seg != nil {
			continue // dropped, or of another map
		}
		if err := m.spill(w, r, n, buf); err != nil {
			m.dirty = m.dirty[i:]
			return err
		}
		m.nDirty--
		atomic.AddInt64(&m.bytes, -PageBytes) // read by MemoryBytes
		if m.mem != nil {
			m.mem.settle(r)
		}
	}
	m.dirty = nil
	return nil
}

func (m *Map) spill(w PageWriter, r *ref, n uint64, buf []byte) error {
	encodePage(buf, r.data.Load())
	s, slot, err := w.WritePage(buf)
	if err != nil {
		return err
	}
	r.sum, r.slot, r.seg = pageSum(n, buf), slot, s
	s.live++
	return nil
}

// Rewrite moves the own pages of the segments that victim names to new segments, so
// that those are of no use any more. The lock, which guards lookups, is taken for
// moments. On an error what was moved stays moved.
func (m *Map) Rewrite(ctx context.Context, victim func(*Segment) bool, w PageWriter, lock sync.Locker) error {
	buf := make([]byte, PageBytes)
	for ni, nd := range m.root {
		if nd == nil || !m.own[ni] {
			continue
		}
		for pi, r := range nd.pages {
			if r == nil || r.seg == nil || !nd.owns(uint64(pi)) || !victim(r.seg) {
				continue
			}
			n := uint64(ni)*nodePages + uint64(pi)
			p, err := r.load(ctx, n)
			if err != nil {
				return err
			}
			moved := &ref{}
			moved.data.Store(p)
			if err := m.spill(w, moved, n, buf); err != nil {
				return err
			}
			lock.Lock()
			nd.pages[pi] = moved
			lock.Unlock()
			r.seg.live--
			mem := r.seg.Owner.Memory
			mem.drop(r)
			mem.mu.Lock()
			mem.enter(moved)
			mem.mu.Unlock()
		}
	}
	return nil
}

// Live returns how many pages of the segment the map of its owner has. Of use to the
// goroutine that changes that map.
func (s *Segment) Live() int { return s.live }

// EachSegment calls fn for the segment of every own page, again and again.
func (m *Map) EachSegment(fn func(*Segment)) {
	var last *Segment
	for ni, nd := range m.root {
		if nd == nil || !m.own[ni] {
			continue
		}
		for pi, r := range nd.pages {
			if r != nil && r.seg != nil && r.seg != last && nd.owns(uint64(pi)) {
				last = r.seg
				fn(last)
			}
		}
	}
}

// PageBytes returns page n, which is dirty or staged, as a segment holds it.
func (m *Map) PageBytes(n uint64) []byte {
	b := make([]byte, PageBytes)
	if r := m.node(n / nodePages).ref(n % nodePages); r != nil {
		encodePage(b, m.content(r))
	}
	return b
}

// Resident returns how many bytes of the owner's pages are in memory and clean.
func (o *Owner) Resident() int64 { return o.resident.Load() }
