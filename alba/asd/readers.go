package asd

import "sync"

// readers keeps A3: it tells when space that left the index may be used again.
//
//	reader    r1 ├──────────┤
//	reader            r2 ├────────────┤
//	retire          ↑ e         released ↑ when r1 is done: r2 began after the
//	                                       commit and cannot find e
//
// A reader enters before it looks into the index; extents are retired after the
// commit that takes them out. Readers are counted by the number of retirements
// before them, so that retired extents wait for earlier readers only.
type readers struct {
	mu sync.Mutex
	// active[i] counts the readers that entered between retirement first+i-1 and
	// the next; the last element is the present.
	active []int
	first  uint64
	// waiting[i] was retired at the end of the period active[i] counts.
	waiting [][]extent
}

func newReaders() *readers { return &readers{active: make([]int, 1)} }

// enter returns what to leave with.
func (r *readers) enter() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.active[len(r.active)-1]++
	return r.first + uint64(len(r.active)-1)
}

// leave returns the extents that were waiting for this reader.
func (r *readers) leave(period uint64) []extent {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.active[period-r.first]--
	return r.drain()
}

// retire returns the extents that may be used at once, possibly these.
func (r *readers) retire(extents []extent) []extent {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = append(r.waiting, extents)
	r.active = append(r.active, 0)
	return r.drain()
}

// drain ends the periods from the front that have no reader; the lock is held.
func (r *readers) drain() (free []extent) {
	for len(r.waiting) > 0 && r.active[0] == 0 {
		free = append(free, r.waiting[0]...)
		r.waiting, r.active = r.waiting[1:], r.active[1:]
		r.first++
	}
	return free
}
