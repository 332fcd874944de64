package iscsi

import (
	"sync/atomic"
	"time"
)

// nexus is one session's use of one logical unit (the I_T_L nexus): what it did
// there. It is made with the session's first command for the unit, and lives
// until the session ends or the unit is removed.
type nexus struct {
	ss *session
	lu *lun

	begun    atomic.Uint64 // commands that arrived; the reader's
	ended    atomic.Uint64 // answered or dropped
	maxDepth atomic.Int64  // the reader's
	delayed  atomic.Uint64
	full     atomic.Uint64
	aborted  atomic.Uint64

	read, write, other ioCounters // the sender's

	// Its Ops at the unit's gate.
	inside atomic.Int64  // weight of those in the Disk
	queued atomic.Int32  // how many wait
	epoch  atomic.Uint32 // second in which it was last counted as a sharer
	queue  queue
}

// begin counts a command in.
func (n *nexus) begin() {
	depth := int64(n.begun.Add(1) - n.ended.Load())
	if depth > n.maxDepth.Load() {
		n.maxDepth.Store(depth)
	}
}

// end counts an answered command out, d after its arrival.
func (n *nexus) end(t *task, sent int, d time.Duration) {
	failed := t.status != statusGood
	switch {
	case t.cmd == nil:
		n.other.count(0, failed, d)
	case t.cmd.flags&bulk != 0:
		n.read.count(sent, failed, d)
	case t.cmd.flags&writes != 0:
		n.write.count(int(t.want), failed, d)
	default:
		n.other.count(sent, failed, d)
	}
	if t.status == statusTaskSetFull {
		n.full.Add(1)
	}
	n.ended.Add(1)
}

// drop counts a command out that is never answered.
func (n *nexus) drop() {
	n.aborted.Add(1)
	n.ended.Add(1)
}

func (n *nexus) stats() LUNStats {
	ended := n.ended.Load() // before begun: a depth is never negative
	return LUNStats{
		Number: n.lu.Number, Read: n.read.load(), Write: n.write.load(), Other: n.other.load(),
		Depth: int(n.begun.Load() - ended), MaxDepth: int(n.maxDepth.Load()),
		Waiting: int(n.queued.Load()), Delayed: n.delayed.Load(), Full: n.full.Load(), Aborted: n.aborted.Load(),
	}
}

// nexus returns the session's nexus with a logical unit. Only the reader calls it.
func (ss *session) nexus(l *lun) *nexus {
	if n := ss.recent.Load(); n != nil && n.lu == l {
		return n
	}
	ss.nexusMu.Lock()
	defer ss.nexusMu.Unlock()
	n := ss.nexuses[l]
	if n == nil {
		n = &nexus{ss: ss, lu: l}
		if !l.join(n) { // removed meanwhile: for this command only
			return n
		}
		if ss.nexuses == nil {
			ss.nexuses = map[*lun]*nexus{}
		}
		ss.nexuses[l] = n
	}
	ss.recent.Store(n)
	return n
}

// leave drops the nexuses of a session that has ended.
func (ss *session) leave() {
	ss.nexusMu.Lock()
	list := ss.nexuses
	ss.nexuses = nil
	ss.recent.Store(nil)
	ss.nexusMu.Unlock()
	for l, n := range list {
		l.part(n)
	}
}

// forget drops the nexus with a unit that was removed.
func (ss *session) forget(n *nexus) {
	ss.nexusMu.Lock()
	delete(ss.nexuses, n.lu)
	ss.recent.CompareAndSwap(n, nil)
	ss.nexusMu.Unlock()
}

// join adds a nexus to the unit; false means that the unit was removed.
func (l *lun) join(n *nexus) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.removed {
		return false
	}
	if l.nexuses == nil {
		l.nexuses = map[*nexus]struct{}{}
	}
	l.nexuses[n] = struct{}{}
	return true
}

// part keeps the totals of a nexus that is over.
func (l *lun) part(n *nexus) {
	s := n.stats()
	s.Aborted += uint64(s.Depth) // the connection took them with it
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.nexuses[n]; ok {
		delete(l.nexuses, n)
		l.past.add(&s)
	}
}

// stats are the totals over all sessions, past ones included.
func (l *lun) stats() LUNStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.past
	out.Number, out.Depth, out.Waiting = l.Number, 0, 0
	for n := range l.nexuses {
		s := n.stats()
		out.add(&s)
	}
	return out
}

// remove ends a unit that is no longer published: nothing waits for a rate any
// more, and sessions do not hold on to it.
func (l *lun) remove(now time.Time) {
	l.gate.limit(QoS{}, now)
	l.mu.Lock()
	l.removed = true
	list := l.nexuses
	l.nexuses = nil
	l.mu.Unlock()
	for n := range list {
		n.ss.forget(n)
	}
}
