package volume

import (
	"sync"

	"github.com/openvstorage/ovgate/volumedriver/blockmap"
)

const (
	// aheadStreams is how many sequential readers of a vDisk are told apart.
	aheadStreams = 8
	// aheadAfter is the read of a sequence from which data ahead of it is loaded.
	aheadAfter = 3
	// The window ahead of a reader doubles from aheadMin to aheadMax while it goes on:
	// at 100 ms for an object read, 8 MiB are enough for 80 MB/s of one reader. It is at
	// most this part of the cache, or readers would push out what others will need.
	aheadMin   = 256 << 10
	aheadMax   = 8 << 20
	aheadShare = 32
	// aheadSlack is how far from the expected offset a read may be and still belong to
	// a sequence: initiators with several reads in flight send them out of order.
	aheadSlack = 1 << 20
)

// readahead finds sequential readers. Safe for concurrent use.
type readahead struct {
	mu      sync.Mutex
	tick    uint64
	streams [aheadStreams]stream
}

// stream is one sequential reader, or a read that may become one.
type stream struct {
	next   int64 // offset of the read that would go on, bytes
	loaded int64 // data below are there or being loaded
	window int64
	reads  int    // in sequence
	tick   uint64 // of the last one
}

// note tells of a read of [off, off+n) on a disk of size bytes, and returns what to
// load now with a window of most bytes: [from, to), empty if nothing.
func (r *readahead) note(off, n, size, most int64) (from, to int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tick++
	s := r.find(off, n)
	s.tick = r.tick
	s.reads++
	s.next = max(s.next, off+n)
	if s.reads < aheadAfter {
		return 0, 0
	}
	s.loaded = max(s.loaded, s.next)
	if s.loaded-s.next > s.window/2 {
		return 0, 0
	}
	s.window = min(max(2*s.window, aheadMin), most)
	from, to = s.loaded, min(s.next+s.window, size)
	if from >= to {
		return 0, 0
	}
	s.loaded = to
	return from, to
}

// find returns the stream that a read goes on, or one for a new sequence.
func (r *readahead) find(off, n int64) *stream {
	oldest := &r.streams[0]
	for i := range r.streams {
		s := &r.streams[i]
		slack := int64(aheadSlack)
		if s.reads < aheadAfter { // not sure yet
			slack = min(slack, 4*n)
		}
		if s.reads > 0 && off >= s.next-slack && off <= s.next+slack {
			return s
		}
		if s.tick < oldest.tick {
			oldest = s
		}
	}
	*oldest = stream{next: off}
	return oldest
}

// readAhead loads what a sequential reader will ask for next; the caller's request is
// in flight.
func (v *Volume) readAhead(off, n int64) {
	from, to := v.ahead.note(off, n, v.Size(), min(aheadMax, v.host.o.CacheBytes/aheadShare))
	if from >= to {
		return
	}
	v.inflight.Add(1)
	go func() {
		defer v.inflight.Done()
		cs := int64(v.cluster)
		first, end := uint64(from/cs), uint64((to+cs-1)/cs)
		var w blockmap.Want
		pieces, ok := v.resolve(nil, first, end, &w)
		if !ok && w.Load(v.ctx) == nil {
			pieces, ok = v.resolve(pieces, first, end, &w)
		}
		if !ok {
			return // the reads themselves find out why
		}
		defer unpin(pieces)
		v.prefetch(v.ctx, pieces)
	}()
}
