package iscsi

import (
	"sync"
	"sync/atomic"
	"time"
)

// gate is where Ops wait before they enter a logical unit's Disk: for the unit's
// rates (QoS), and for the session's share of the Disk.
//
//	session A  o o o o o --+                    +- rates: one Op after the other
//	session B  o ----------+-- round robin -----+- share: ops and bytes inside  --> Disk
//	session C  o o --------+   of the queues    +  of a session, where several are
//
// Order within a session is kept. Nothing waits, and no lock is taken, where no
// rate is set and one session uses the unit.
//
// Invariants:
//
//	G1  An Op is in the queue of one nexus, or inside the Disk, or neither; it
//	    leaves the queue once: to the Disk, or completed with ErrAborted.
//	G2  While a queue is not empty, something will look at it again: an Op of that
//	    nexus is inside the Disk, or the pacer has a time for the unit.
//	G3  At most maxWaiting + (sessions) commands wait; the next is answered TASK SET
//	    FULL. Further Ops of a command that has begun always find room.
//	G4  gate.mu is taken under conn.mu, never the other way round; no Op is
//	    submitted or completed under it.
type gate struct {
	lu      *lun
	rated   atomic.Bool // there is a rate
	waiting atomic.Int32
	sharers atomic.Int32 // sessions that used the unit in this second or the last

	mu          sync.Mutex
	ring        []*nexus // whose queues are not empty
	at          int      // whose turn it is
	running     bool     // somebody lets Ops in
	qos         QoS
	ops, bytes  meter
	burst       time.Duration
	epoch       uint32
	now, before int32 // sessions seen in the second epoch, and in the one before
}

// What the sessions of a unit may have inside its Disk when they are several: a
// session alone has what its window and Limits.SessionBytes give it.
const (
	unitDepth = 128      // Ops: what one alone may have by default
	unitBytes = 16 << 20 // bytes: some ten milliseconds of a fast disk
)

// maxWaiting bounds the commands that wait at a unit: 32 sessions with full
// windows. A session without a waiting command may always add one.
const maxWaiting = 4096

// queue is the Ops of a nexus that wait, oldest first; gate.mu.
type queue struct {
	head, tail *task
}

func (q *queue) push(t *task) {
	t.before, t.after = q.tail, nil
	if q.tail == nil {
		q.head = t
	} else {
		q.tail.after = t
	}
	q.tail = t
}

func (q *queue) remove(t *task) {
	if t.before == nil {
		q.head = t.after
	} else {
		t.before.after = t.after
	}
	if t.after == nil {
		q.tail = t.before
	} else {
		t.after.before = t.before
	}
	t.before, t.after = nil, nil
}

// An Op's weight is one Op and its 512-byte sectors in one number, so that a
// session's share is counted by one addition.
const weightShift = 16

func weight(bytes int) int64 { return 1 + int64(bytes>>9)<<weightShift }

// share tells whether an Op may enter as far as the nexus's share goes: always
// when it has nothing inside.
func (n *nexus) share(w int64) bool {
	k := int64(n.lu.gate.sharers.Load())
	in := n.inside.Load()
	if k <= 1 || in == 0 {
		return true
	}
	ops, sectors := in&(1<<weightShift-1), (in+w)>>weightShift
	return ops < max(1, unitDepth/k) && sectors <= unitBytes>>9/k
}

// launch sends the task's Op to the unit of n, now or when its turn has come. As
// with Disk.Submit, it may be completed before launch returns.
func (t *task) launch(n *nexus) {
	g := &n.lu.gate
	if e := t.c.srv.epoch.Load(); n.epoch.Load() != e {
		n.epoch.Store(e)
		g.touch(e)
	}
	t.at, t.weight = n, weight(len(t.op.Data))
	if !g.rated.Load() && n.queued.Load() == 0 && n.share(t.weight) {
		n.inside.Add(t.weight)
		n.lu.Disk.Submit(&t.op)
		return
	}
	g.wait(t, n)
}

// touch counts a session that uses the unit in second e.
func (g *gate) touch(e uint32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.epoch != e {
		g.before = 0
		if e-g.epoch == 1 {
			g.before = g.now
		}
		g.epoch, g.now = e, 0
	}
	g.now++
	g.sharers.Store(max(g.now, g.before))
}

// wait lets an Op in if nothing is before it, or queues it.
func (g *gate) wait(t *task, n *nexus) {
	g.mu.Lock()
	if len(g.ring) == 0 && n.share(t.weight) && g.allowed(g.clock(t)) {
		g.charge(t)
		n.inside.Add(t.weight)
		g.mu.Unlock()
		n.lu.Disk.Submit(&t.op)
		return
	}
	if !t.charged && t.copy == nil && n.queue.head != nil && int(g.waiting.Load()) >= maxWaiting {
		g.mu.Unlock()
		t.at, t.op.Err = nil, errTaskSetFull
		t.Complete(&t.op)
		return
	}
	if n.queue.head == nil {
		g.ring = append(g.ring, n)
	}
	n.queue.push(t)
	n.queued.Add(1)
	n.delayed.Add(1)
	g.waiting.Add(1)
	t.queued.Store(g)
	stopped := t.c.stopped(t) && g.unlink(t) // it may have been stopped just before it was queued
	g.mu.Unlock()
	if stopped {
		t.abortOp()
		return
	}
	g.run()
}

// unlink takes an Op out of its queue; false: it is in none any more. mu is held.
func (g *gate) unlink(t *task) bool {
	if t.queued.Load() != g {
		return false
	}
	n := t.at
	t.queued.Store(nil)
	n.queue.remove(t)
	n.queued.Add(-1)
	g.waiting.Add(-1)
	if n.queue.head == nil {
		for i, o := range g.ring {
			if o == n {
				g.ring = append(g.ring[:i], g.ring[i+1:]...)
				if i < g.at {
					g.at--
				}
				break
			}
		}
	}
	return true
}

// withdraw takes a task out of the queue that it may be in; true: the caller has
// to call abortOp. conn.mu is held, so that the task is not another one meanwhile.
func (t *task) withdraw() bool {
	g := t.queued.Load()
	if g == nil {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.unlink(t)
}

// abortOp completes an Op that never reached the Disk.
func (t *task) abortOp() {
	t.at, t.op.Err = nil, ErrAborted
	t.Complete(&t.op)
}

// left counts a completed Op of nexus n out; the caller lets others in with run
// if it returns true.
func (n *nexus) left(weight int64) bool {
	n.inside.Add(-weight)
	return n.lu.gate.waiting.Load() > 0
}

// run lets in what may enter, until something must be waited for. An Op that is
// completed inside Submit makes room for the next in the same loop: one caller is
// at it, however deep it is called again.
func (g *gate) run() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.running {
		return
	}
	g.running = true
	for {
		t := g.next()
		if t == nil {
			g.running = false
			return
		}
		g.mu.Unlock()
		if t.c.stopped(t) {
			t.op.Err = ErrAborted
			t.Complete(&t.op)
		} else {
			t.at.lu.Disk.Submit(&t.op)
		}
		g.mu.Lock()
	}
}

// next takes the next Op that may enter out of its queue, or returns nil and has
// made sure that somebody comes again (G2). mu is held.
func (g *gate) next() *task {
	for range len(g.ring) {
		if g.at >= len(g.ring) {
			g.at = 0
		}
		n := g.ring[g.at]
		t := n.queue.head
		if !n.share(t.weight) {
			g.at++
			continue
		}
		if !g.allowed(g.clock(t)) {
			g.pace(t)
			return nil
		}
		g.at++
		g.unlink(t)
		g.charge(t)
		n.inside.Add(t.weight)
		return t
	}
	return nil
}
