package iscsi

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ServedNexus is a nexus whose session is on another node, at the owner of its units:
// commands that the other node forwards are executed as of it. It is a session of the
// target like others, without a connection of its own.
type ServedNexus struct {
	c  *conn
	to NexusUser
}

// NexusUser hears of what becomes of a ServedNexus. Its methods do not block, and do
// not call back.
type NexusUser interface {
	// Answered is given an executed command, to be released once it was sent.
	Answered(*RemoteCommand)
	// Ended is told that a command will not be answered.
	Ended(tag uint32, o Outcome)
	// Gone is told that the nexus has ended, with its last command.
	Gone()
}

// ErrNotHere: this node does not serve the unit, or not for that nexus. Nothing was
// executed.
var ErrNotHere = errors.New("iscsi: the logical unit is not served here")

// OpenNexus begins a nexus of another node; again: it was open here or elsewhere
// before, and may have lost what was kept for it. An older one of the same name is
// ended first, with its last command (I4); ctx bounds the wait.
func (s *Server) OpenNexus(ctx context.Context, id NexusID, from string, again bool, to NexusUser) (*ServedNexus, error) {
	c := &conn{
		srv: s, since: s.clk.Now(), neg: defaultNegotiated(), down: make(chan struct{}), tasks: map[uint32]*task{},
		remote: from, name: id.Initiator,
	}
	c.writerWake.L, c.idleWake.L = &c.mu, &c.mu
	c.loggedIn.Store(true)
	n := &ServedNexus{c: c, to: to}
	c.served = n
	for {
		old, err := s.admitNexus(n, id, again)
		if err != nil {
			return nil, err
		}
		if old == nil {
			break
		}
		old.conn.close()
		select {
		case <-old.gone:
		case <-ctx.Done():
			return nil, fmt.Errorf("iscsi: an older session of %s has not ended: %w", id.Initiator, ctx.Err())
		}
	}
	go n.run()
	return n, nil
}

// admitNexus registers the nexus as a session; old has to end first.
func (s *Server) admitNexus(n *ServedNexus, id NexusID, again bool) (old *session, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.targets[id.Target]
	if t == nil || s.closed {
		return nil, fmt.Errorf("%w: target %s", ErrNotHere, id.Target)
	}
	ss := &session{
		conn: n.c, target: t, initiator: id.Initiator, isid: id.ISID, group: id.Group, since: n.c.since,
		neg: n.c.neg, gone: make(chan struct{}),
	}
	if old := s.sameNexus(ss); old != nil {
		return old, nil
	}
	v := t.admit(ss.initiator)
	if v == nil {
		return nil, fmt.Errorf("%w: target %s does not admit %s", ErrNotHere, id.Target, id.Initiator)
	}
	if s.served >= s.lim.Sessions {
		return nil, fmt.Errorf("%w: %d sessions of other nodes, which is the limit", ErrNotHere, s.served)
	}
	ss.view.Store(v)
	ss.noteUnits(v)
	ss.state.Store(uint32(t.state(ss.group)))
	n.c.sess = ss
	t.sessions[ss] = struct{}{}
	s.conns[n.c] = struct{}{}
	s.served++
	s.wg.Add(1)
	if again {
		ss.attentionAll(uaNexusLoss)
	}
	return nil, nil
}

// run waits for the end of the nexus.
func (n *ServedNexus) run() {
	c, s := n.c, n.c.srv
	<-c.down
	c.finishTasks()
	s.endSession(c.sess)
	s.mu.Lock()
	delete(s.conns, c)
	s.served--
	s.mu.Unlock()
	n.to.Gone()
	s.wg.Done()
}

// Close ends the nexus. What has not reached the Disk will not any more.
func (n *ServedNexus) Close() { n.c.close() }

// Take takes a command, which must not take effect after expires, with body bytes of
// data-out; room is where these go before Run, unless it is nil: then they are
// dropped. An error matches ErrNotHere.
func (n *ServedNexus) Take(in *RemoteCommand, body int, expires time.Time) (r *RemoteCommand, room []byte, err error) {
	c := n.c
	ss := c.sess
	l := ss.target.lun(in.LUN)
	if l == nil || l.remote != nil || l.Serial != in.Unit || !ss.view.Load().sees(l) || c.closed.Load() {
		return nil, nil, fmt.Errorf("%w: unit %s", ErrNotHere, in.Unit)
	}
	t := c.srv.tasks.Get().(*task)
	t.reset(c)
	t.itt, t.edtl, t.read, t.write, t.cdb = in.Tag, in.Expected, in.Read, in.Write, in.CDB
	t.lunNo, t.lunOK, t.lu, t.protected = l.Number, true, l, ss.readOnly(l)
	t.since, t.expires = in.Since, expires
	t.remote = RemoteCommand{Tag: in.Tag, t: t}
	ss.commands.Add(1)
	c.srv.stats.commands.Add(1)
	if _, ok := c.admit(t); !ok {
		c.srv.tasks.Put(t)
		return nil, nil, fmt.Errorf("%w: tag %d is in use", ErrNotHere, in.Tag)
	}
	t.ready = t.prepare()
	if t.ready && body != int(t.want) {
		t.ready = t.refuse(senseDataPhase)
	}
	if t.ready {
		room = t.data[:body]
		t.got = t.want
	}
	return &t.remote, room, nil
}

// Run executes a command that was taken.
func (r *RemoteCommand) Run() {
	t, tag := r.t, r.Tag
	n := t.c.served
	ready := t.ready
	if !t.c.begin(t, ready) {
		n.to.Ended(tag, OutcomeAborted)
		return
	}
	if !ready {
		t.finish()
		return
	}
	t.c.start(t)
}

// Drop ends a command that was taken and whose data did not come.
func (r *RemoteCommand) Drop() {
	r.t.ready = r.t.refuse(senseDataPhase)
	r.Run()
}

// Release gives back what an answered command holds.
func (r *RemoteCommand) Release() {
	t := r.t
	c := t.c
	if t.nx != nil {
		t.counted = true
		t.nx.end(t, len(r.In), c.srv.clk.Now().Sub(t.since))
	}
	c.mu.Lock()
	c.unsent--
	c.discharge(t)
	over := c.draining.Load() && c.idle()
	c.mu.Unlock()
	c.sess.readBytes.Add(uint64(len(r.In)))
	c.srv.stats.readBytes.Add(uint64(len(r.In)))
	t.release()
	if over {
		c.close()
	}
}

// answered hands a finished task to the other node; conn.mu is held.
func (n *ServedNexus) answered(t *task) {
	r := &t.remote
	r.Status, r.Transferred = t.status, t.xfer
	if t.status == statusCheckCondition {
		r.SetSense(t.sense.encode(r.sense[:0], t.descriptorSense()))
	}
	if t.status == statusGood && t.read {
		r.In = t.in[:min(uint64(len(t.in)), uint64(t.edtl))]
	}
	n.c.unsent++
	n.to.Answered(r)
}

// ended tells the other node that a task will not be answered; conn.mu is held.
func (n *ServedNexus) ended(t *task) {
	o := OutcomeOver
	if t.aborted.Load() {
		o = OutcomeAborted
	}
	n.to.Ended(t.itt, o)
}

// drain ends the nexus once it has nothing in flight.
func (n *ServedNexus) drain() {
	c := n.c
	c.mu.Lock()
	c.draining.Store(true)
	over := c.idle()
	c.mu.Unlock()
	if over {
		c.close()
	}
}

// Abort ends a command as ABORT TASK does.
func (n *ServedNexus) Abort(tag uint32) {
	w := &tmfWait{answer: func() {}}
	w.left.Store(1)
	n.c.abort(w, func(t *task) bool { return t.itt == tag })
	w.done()
}

// Reset resets a logical unit; done is called when every older command of it has
// ended. An error matches ErrNotHere.
func (n *ServedNexus) Reset(unit string, number uint16, done func()) error {
	ss := n.c.sess
	l := ss.target.lun(number)
	if l == nil || l.remote != nil || l.Serial != unit || !ss.view.Load().sees(l) {
		return fmt.Errorf("%w: unit %s", ErrNotHere, unit)
	}
	w := &tmfWait{answer: done}
	w.left.Store(1)
	n.c.srv.reset(ss, w, func(o *lun) bool { return o == l })
	n.c.srv.stats.taskMgmt.Add(1)
	w.done()
	return nil
}

// readOnly tells whether the session's group may only read l.
func (ss *session) readOnly(l *lun) bool { return ss.view.Load().inside[l] }

// late tells whether a task is too old to take effect (O4).
func (t *task) late() bool { return !t.expires.IsZero() && t.c.srv.clk.Now().After(t.expires) }
