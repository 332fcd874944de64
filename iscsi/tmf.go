package iscsi

import (
	"maps"
	"slices"
	"sync/atomic"
)

// Task management functions and responses (RFC 7143 sections 11.5.1, 11.6.1).
const (
	tmfAbortTask       = 1
	tmfAbortTaskSet    = 2
	tmfClearTaskSet    = 4
	tmfLogicalReset    = 5
	tmfTargetWarmReset = 6
	tmfTargetColdReset = 7
	tmfTaskReassign    = 8

	tmfComplete     = 0
	tmfNoTask       = 1
	tmfNoLUN        = 2
	tmfNoReassign   = 4
	tmfNotSupported = 5
)

// tmfWait counts the tasks a task management function waits for; the last one
// sends the answer (I3).
type tmfWait struct {
	left   atomic.Int32
	answer func()
}

func (w *tmfWait) done() {
	if w.left.Add(-1) == 0 {
		w.answer()
	}
}

// abort aborts the connection's tasks that match: one that waits for data or for
// older tasks, or at a gate, never runs, one inside the Disk is waited for by w. It returns how
// many matched.
func (c *conn) abort(w *tmfWait, match func(*task) bool) int {
	c.mu.Lock()
	n := 0
	var waiting []*task
	for itt, t := range c.tasks {
		if !match(t) {
			continue
		}
		n++
		t.aborted.Store(true)
		if t.running {
			w.left.Add(1)
			t.waiters = append(t.waiters, w)
			if t.withdraw() {
				waiting = append(waiting, t)
			} else {
				t.recall()
			}
			continue
		}
		delete(c.tasks, itt)
		c.discharge(t)
		if !t.immediate {
			c.maxCmdSN.Add(1)
		}
		c.leave(t)
	}
	ready := len(c.ready) > 0
	c.mu.Unlock()
	for _, t := range waiting {
		t.abortOp()
	}
	if ready {
		c.runReady()
	}
	return n
}

// taskManagement executes a Task Management Function Request PDU. Its answer
// leaves when every affected command finished or never will (rule O4).
func (c *conn) taskManagement(h *bhs, n int) error {
	fn, itt := h[1]&0x7f, h.itt()
	lunNo, lunOK := lunOf(h[8:16])
	ref := be.Uint32(h[20:])
	if err := c.readData(nil, n); err != nil {
		return err
	}
	if !c.manage(1) {
		c.reject(rejectTooMany, false)
		return nil
	}
	r := c.srv.reps.Get().(*reply)
	*r = reply{advance: true}
	r.hdr[0], r.hdr[1] = opTaskMgmtResp, finalBit
	be.PutUint32(r.hdr[16:], itt)
	w := &tmfWait{answer: func() {
		c.manage(-1)
		c.send(r)
	}}
	w.left.Store(1)
	ss := c.sess
	var lu *lun
	if lunOK {
		lu = ss.lun(lunNo)
	}
	sameLUN := func(t *task) bool { return t.lunNo == lunNo }

	switch fn {
	case tmfAbortTask:
		if c.abort(w, func(t *task) bool { return t.itt == ref && t.lunNo == lunNo }) == 0 {
			r.hdr[2] = tmfNoTask
		}
	case tmfAbortTaskSet, tmfClearTaskSet, tmfLogicalReset:
		if lu == nil {
			r.hdr[2] = tmfNoLUN
			break
		}
		if fn == tmfLogicalReset {
			c.srv.reset(ss, w, func(l *lun) bool { return l == lu })
		} else { // a task set is a nexus's own (TST 001b), so clearing it is aborting it
			c.abort(w, sameLUN)
		}
	case tmfTargetWarmReset, tmfTargetColdReset:
		c.srv.reset(ss, w, ss.view.Load().sees)
	case tmfTaskReassign:
		r.hdr[2] = tmfNoReassign
	default:
		r.hdr[2] = tmfNotSupported
	}
	if fn == tmfTargetColdReset { // every session ends, this one behind the answer
		r.last = true
		w.answer = func() {
			c.manage(-1)
			c.srv.dropTarget(ss)
			c.send(r)
		}
	}
	c.srv.stats.taskMgmt.Add(1)
	w.done()
	return nil
}

// manage counts a function in or out; false means that too many wait already.
func (c *conn) manage(n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n > 0 && c.managing >= maxImmediate {
		return false
	}
	c.managing += n
	return true
}

// users returns the sessions of a target.
func (s *Server) users(t *target) []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(t.sessions))
}

// reset resets logical units that by sees: commands are aborted, what RESERVE(6/10)
// reserved is released (persistent reservations stay, R5), mode pages put back to their defaults, and every nexus is told. Units
// that are masked from by go on (I9).
func (s *Server) reset(by *session, w *tmfWait, of func(*lun) bool) {
	users := s.users(by.target)
	for _, ss := range users {
		ss.conn.abort(w, func(k *task) bool { return k.lu != nil && of(k.lu) })
	}
	for _, l := range *by.target.luns.Load() {
		if !of(l) {
			continue
		}
		if l.remote != nil { // the owner tells every nexus
			by.resetRemote(l, w)
			continue
		}
		l.res.forget(nil)
		l.modes.reset()
		for _, ss := range users {
			ss.attention(l, uaReset)
		}
	}
}

// dropTarget closes the other sessions of the target that see a unit which by
// sees (TARGET COLD RESET).
func (s *Server) dropTarget(by *session) {
	for _, ss := range s.users(by.target) {
		if ss != by && by.view.Load().overlaps(ss.view.Load()) {
			ss.conn.expel(waitToReturn)
		}
	}
}
