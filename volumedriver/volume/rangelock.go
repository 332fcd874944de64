package volume

import "sync"

// rangeLock serialises changes of overlapping cluster ranges, so that what a
// partial-cluster write or a compare read stays true until its own record is in
// the map (ARCHITECTURE section 3, write path).
//
// Changes in flight per vDisk are few (bounded by the initiators' windows), so
// a scan beats an index. Grants are in order of arrival among those that overlap.
type rangeLock struct {
	mu      sync.Mutex
	held    []*Request
	waiting []*Request
}

func overlaps(a, b *Request) bool { return a.st.first < b.st.end && b.st.first < a.st.end }

// acquire takes the range of r now and returns true, or queues r for release to grant.
func (l *rangeLock) acquire(r *Request) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.blocked(r, l.waiting) {
		l.waiting = append(l.waiting, r)
		return false
	}
	l.hold(r)
	return true
}

// blocked reports whether r overlaps what is held or one of the earlier waiters.
func (l *rangeLock) blocked(r *Request, earlier []*Request) bool {
	for _, h := range l.held {
		if overlaps(h, r) {
			return true
		}
	}
	for _, w := range earlier {
		if overlaps(w, r) {
			return true
		}
	}
	return false
}

func (l *rangeLock) hold(r *Request) {
	r.st.slot = len(l.held)
	l.held = append(l.held, r)
}

// release gives the range of r back and returns the requests that got theirs.
func (l *rangeLock) release(r *Request) (granted []*Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := len(l.held) - 1
	l.held[r.st.slot] = l.held[last]
	l.held[r.st.slot].st.slot = r.st.slot
	l.held[last] = nil
	l.held = l.held[:last]
	if len(l.waiting) == 0 {
		return nil
	}
	keep := l.waiting[:0]
	for _, w := range l.waiting {
		if l.blocked(w, keep) {
			keep = append(keep, w)
			continue
		}
		l.hold(w)
		granted = append(granted, w)
	}
	clear(l.waiting[len(keep):])
	l.waiting = keep
	return granted
}

// replace has another request hold the range of r.
func (l *rangeLock) replace(r, by *Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	by.st = r.st
	l.held[r.st.slot] = by
}

// refuse returns the requests that wait, which do so no more.
func (l *rangeLock) refuse() []*Request {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.waiting
	l.waiting = nil
	return w
}
