package blockmap

import (
	"sync"
	"sync/atomic"
)

const (
	// minShare is the part of the budget that clean pages keep when dirty ones take
	// all of it: without any, each lookup would read its page.
	minShare = 8
	// ringSlack is how many refs without a page the ring may hold beside as many as
	// there are with one, so that it is not swept all the time.
	ringSlack = 256
)

// Memory bounds the pages of all maps of a node. A page that a segment has (a clean
// one) counts as resident and is dropped when room is needed, by the CLOCK rule: the
// hand passes over the pages in a ring, spares those that were used since it came by
// last and drops the others. A lookup only sets a mark in the page, without a lock.
//
// Dirty pages cannot be dropped; who owns them writes them to segments when Tight
// says so. If that fails, the bound is exceeded, and Full says when to stop.
//
// Safe for concurrent use. A nil Memory bounds nothing.
type Memory struct {
	max      int64 // bytes
	resident atomic.Int64
	dirty    atomic.Int64
	loads    atomic.Uint64
	evicted  atomic.Uint64

	mu   sync.Mutex
	ring []*ref // clean pages in memory; also those that left it by another way
	hand int
}

// MemoryUsage is the state of a Memory.
type MemoryUsage struct {
	Max, Resident, Dirty int64  // bytes of pages
	Loads, Evictions     uint64 // pages
}

// NewMemory returns a budget of max bytes.
func NewMemory(max int64) *Memory { return &Memory{max: max} }

// Usage returns what is in use.
func (m *Memory) Usage() MemoryUsage {
	return MemoryUsage{m.max, m.resident.Load(), m.dirty.Load(), m.loads.Load(), m.evicted.Load()}
}

// Tight reports whether dirty pages should be written to segments: they take half
// of the room, so that the other half is left for lookups.
func (m *Memory) Tight() bool { return m != nil && 2*m.dirty.Load() > m.max }

// Full reports whether there are so many dirty pages, twice the bound, that no more
// may be made.
func (m *Memory) Full() bool { return m != nil && m.dirty.Load() > 2*m.max }

func (m *Memory) addDirty(n int64) {
	if m != nil {
		m.dirty.Add(n)
	}
}

// admit puts a clean page into memory.
func (m *Memory) admit(r *ref, p *page) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.data.CompareAndSwap(nil, p) {
		m.enter(r)
	}
}

// settle turns a dirty page, which has its segment now, into a clean one.
func (m *Memory) settle(r *ref) {
	m.addDirty(-PageBytes)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.enter(r)
}

// enter counts a page and makes room; mu is held.
func (m *Memory) enter(r *ref) {
	m.ring = append(m.ring, r)
	m.resident.Add(PageBytes)
	r.seg.Owner.resident.Add(PageBytes)
	m.trim()
}

// trim drops pages until the bound is kept; mu is held.
func (m *Memory) trim() {
	room := max(m.max-m.dirty.Load(), m.max/minShare)
	// Twice around: the first time every page may be marked.
	for steps := 2 * len(m.ring); m.resident.Load() > room && steps > 0; steps-- {
		if m.hand >= len(m.ring) {
			m.hand = 0
		}
		r := m.ring[m.hand]
		if r.data.Load() != nil && r.hot.Swap(0) != 0 {
			m.hand++
			continue
		}
		if m.drop(r) {
			m.evicted.Add(1)
		}
		last := len(m.ring) - 1
		m.ring[m.hand], m.ring[last] = m.ring[last], nil
		m.ring = m.ring[:last]
	}
	// Pages that maps took back leave an empty ref behind.
	if int64(len(m.ring)) > 2*m.resident.Load()/PageBytes+ringSlack {
		m.sweep()
	}
}

// sweep takes the refs without a page out of the ring; mu is held.
func (m *Memory) sweep() {
	kept := m.ring[:0]
	for _, r := range m.ring {
		if r.data.Load() != nil {
			kept = append(kept, r)
		}
	}
	clear(m.ring[len(kept):])
	m.ring, m.hand = kept, 0
}

// drop takes a clean page out of memory; false if it was not there.
func (m *Memory) drop(r *ref) bool { return m.take(r) != nil }

// take is drop, and returns the page.
func (m *Memory) take(r *ref) *page {
	p := r.data.Swap(nil)
	if p != nil {
		m.resident.Add(-PageBytes)
		r.seg.Owner.resident.Add(-PageBytes)
	}
	return p
}

// release takes the clean pages of a map that ends out of memory.
func (m *Memory) release(refs []*ref) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range refs {
		m.take(r)
	}
	m.sweep()
}
