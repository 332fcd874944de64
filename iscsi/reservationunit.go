package iscsi

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// reservations are the reservations of one logical unit: the persistent ones, and
// RESERVE(6/10). They belong to the Disk: a change of the unit's number or of its
// identity keeps them.
//
// The invariants are R1 to R7 of the package comment. The commands that change
// something (PERSISTENT RESERVE OUT, RESERVE, RELEASE) form a queue; each goes
// through these steps, none of which waits in the reader of a connection:
//
//	queue -> decide -> publish old+new -> drain -> OpReserve -> publish new -> answer
//	                   (commands need     (who loses  (durable)   (unit attentions,
//	                    both to allow)     access)                  abort, if asked)
type reservations struct {
	disk    Disk
	durable bool // disk is a Reserver

	// view is what commands are judged by; nil: all are allowed.
	view atomic.Pointer[reservationView]

	mu      sync.Mutex
	cur     *registry // decided and durable
	next    *registry // being made durable, or nil
	legacy  *session  // holds the unit by RESERVE(6/10)
	queue   []*task   // changes not begun
	busy    bool      // a change has begun and is not over
	turning bool      // turn is running
	steps   map[*foreignStep]struct{}
}

// reservationView is a moment of a unit's reservations.
type reservationView struct {
	cur, next *registry
	legacy    *session
}

// newReservations reads the state that the Disk keeps: this is the logical unit's
// power on (R6).
func newReservations(d Disk, clustered bool) (*reservations, error) {
	r := &reservations{disk: d, cur: &registry{index: map[itNexus]int{}}}
	s, ok := d.(Reserver)
	if !ok {
		return r, nil
	}
	r.durable = true
	stored, err := decodeRegistry(s.Reservation())
	if err != nil {
		return nil, fmt.Errorf("%w; it is not served, because its hosts may be fenced off", err)
	}
	if stored.aptpl || clustered {
		r.cur = stored
	}
	r.publish()
	return r, nil
}

// keptReservations returns the reservations for a logical unit that is new in a
// target or has changed: those of the unit it was, when it has the same Disk, even
// under another number that is given up; else what the Disk keeps.
func keptReservations(old map[uint16]*lun, specs []LUNSpec, ls LUNSpec) (*reservations, error) {
	if l := old[ls.Number]; l != nil && l.Disk == ls.Disk {
		return l.res, nil
	}
	for n, l := range old {
		if l.Disk == ls.Disk && !slices.ContainsFunc(specs, func(s LUNSpec) bool { return s.Number == n && s.Disk == l.Disk }) {
			return l.res, nil
		}
	}
	return newReservations(ls.Disk, ls.Clustered)
}

// publish makes the present state what commands are judged by; mu is held.
func (r *reservations) publish() {
	if r.legacy == nil && r.cur.kind == 0 && (r.next == nil || r.next.kind == 0) {
		r.view.Store(nil)
		return
	}
	r.view.Store(&reservationView{r.cur, r.next, r.legacy})
}

// state returns what is decided and durable.
func (r *reservations) state() *registry {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cur
}

// judge returns the status with which a nexus's command is refused; GOOD: it is
// not. While a change is being made durable a command must be allowed before and
// after it: what only the change forbids is BUSY, since the change may still fail.
func (v *reservationView) judge(ss *session, access int) byte {
	if v.legacy != nil && (access&accessKeys != 0 || v.legacy != ss && access&noReservation == 0) {
		return statusReservationConflict
	}
	if access&(accessRead|accessWrite) == 0 {
		return statusGood
	}
	n := ss.itNexus()
	if v.cur.refuses(n, access) {
		return statusReservationConflict
	}
	if v.next != nil && v.next.refuses(n, access) {
		return statusBusy
	}
	return statusGood
}

// changeReservation runs a command that may change reservations, after those that
// came before it.
func changeReservation(t *task) {
	r := t.lu.res
	r.mu.Lock()
	r.queue = append(r.queue, t)
	r.mu.Unlock()
	r.turn()
}

// turn begins queued changes until one has to wait for something. A change that
// ends inside begin does not call deeper: whoever is turning goes on.
func (r *reservations) turn() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.turning {
		return
	}
	r.turning = true
	for !r.busy && len(r.queue) > 0 {
		t := r.queue[0]
		r.queue[0] = nil
		r.queue = r.queue[1:]
		r.busy = true
		r.mu.Unlock()
		r.begin(t)
		r.mu.Lock()
	}
	r.turning = false
}

// leave ends a change.
func (r *reservations) leave() {
	r.mu.Lock()
	r.busy = false
	r.mu.Unlock()
	r.turn()
}

// begin decides a change. The checks that were made when the command arrived may
// have been overtaken.
func (r *reservations) begin(t *task) {
	if t.c.stopped(t) {
		t.fail(senseAborted)
		r.leave()
		return
	}
	if !t.checkReservation() {
		t.finish()
		r.leave()
		return
	}
	switch t.cmd.op {
	case opPersistentOut:
		r.beginPersistent(t)
	case opReserve6, opReserve10:
		r.beginReserve(t)
	default:
		r.beginRelease(t)
	}
}

// compatible tells whether RESERVE or RELEASE is answered GOOD and does nothing
// (SPC-4 clause 5.12.3, CRH); conflicts tells whether it conflicts, as it does with
// any other registration. mu is held.
func (r *reservations) compatible(n itNexus) (ok, conflicts bool) {
	if len(r.cur.list) == 0 {
		return false, false
	}
	registered := r.cur.find(n) != 0 && (registrantsOnly(r.cur.kind) || allRegistrants(r.cur.kind))
	ok = r.cur.holds(n) || registered
	return ok, !ok
}

// beginReserve is RESERVE(6/10): commands of others that are still under way are
// waited for.
func (r *reservations) beginReserve(t *task) {
	ss := t.c.sess
	r.mu.Lock()
	ok, conflicts := r.compatible(ss.itNexus())
	if !ok && !conflicts {
		r.legacy = ss // judge let nobody else's through
		r.publish()
	}
	r.mu.Unlock()
	if conflicts {
		r.conflict(t)
		return
	}
	r.drain(t, func() {
		t.good(0)
		r.leave()
	})
}

// beginRelease is RELEASE(6/10): of what others hold it does nothing, which SPC-2
// calls GOOD.
func (r *reservations) beginRelease(t *task) {
	r.mu.Lock()
	_, conflicts := r.compatible(t.c.sess.itNexus())
	if !conflicts && r.legacy == t.c.sess {
		r.legacy = nil
		r.publish()
	}
	r.mu.Unlock()
	if conflicts {
		r.conflict(t)
		return
	}
	t.good(0)
	r.leave()
}

func (r *reservations) conflict(t *task) {
	t.status = statusReservationConflict
	t.finish()
	r.leave()
}

// forget releases what a session reserved by RESERVE(6/10); nil is any session.
func (r *reservations) forget(ss *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.legacy != nil && (ss == nil || r.legacy == ss) {
		r.legacy = nil
		r.publish()
	}
}

// reservationChange is a PERSISTENT RESERVE OUT command that changes something.
type reservationChange struct {
	r  *reservations
	t  *task
	q  prOut
	to prResult
	op Op
}

func (r *reservations) beginPersistent(t *task) {
	q, bad := parsePROut(&t.cdb, t.data)
	if bad != (sense{}) {
		t.fail(bad)
		r.leave()
		return
	}
	c := &reservationChange{r: r, t: t, q: q}
	c.to = r.state().decide(t.c.sess.itNexus(), &c.q, prPlace{
		ports: t.c.sess.target.ports(t.c.sess.group), durable: r.durable,
		known: func(name string) [][6]byte { return t.c.srv.initiatorPorts(t.c.sess.target, name) },
	})
	switch {
	case c.to.status == statusCheckCondition:
		t.fail(c.to.sense)
	case c.to.status != statusGood:
		t.status = c.to.status
		t.finish()
	case c.to.next == nil:
		t.good(t.cdbLen)
	default:
		r.mu.Lock()
		r.next = c.to.next
		r.publish()
		r.mu.Unlock()
		r.drain(t, c.store)
		return
	}
	r.leave()
}

// drain calls then when no command is under way any more that the published state
// does not allow (R2, R3). Changes of reservations themselves are not waited for:
// they are queued behind this one.
func (r *reservations) drain(t *task, then func()) {
	w := &tmfWait{answer: then}
	w.left.Store(1)
	if v := r.view.Load(); v != nil {
		for _, ss := range t.c.srv.users(t.c.sess.target) {
			ss.conn.await(w, func(k *task) bool {
				// One that is being refused may have no command; it does nothing.
				return k.lu != nil && k.lu.res == r && k.cmd != nil && k.cmd.flags&changesReservation == 0 &&
					v.judge(ss, k.reservationAccess()) != statusGood
			})
		}
		r.awaitSteps(w, v)
	}
	w.done()
}

// foreignStep is an Op that an EXTENDED COPY, which runs as a command of another
// unit, has under way on this one, as a nexus that sees it.
type foreignStep struct {
	r       *reservations
	ss      *session
	access  int
	waiters []*tmfWait // under r.mu
}

// judge returns the status with which reservations refuse such an access now.
func (r *reservations) judge(ss *session, access int) byte {
	if v := r.view.Load(); v != nil {
		return v.judge(ss, access)
	}
	return statusGood
}

// enter begins a step, unless the reservations refuse it.
func (r *reservations) enter(ss *session, access int) (*foreignStep, byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if st := r.judge(ss, access); st != statusGood {
		return nil, st
	}
	s := &foreignStep{r: r, ss: ss, access: access}
	if r.steps == nil {
		r.steps = map[*foreignStep]struct{}{}
	}
	r.steps[s] = struct{}{}
	return s, statusGood
}

// leave ends a step; nil is none.
func (s *foreignStep) leave() {
	if s == nil {
		return
	}
	s.r.mu.Lock()
	delete(s.r.steps, s)
	waiters := s.waiters
	s.r.mu.Unlock()
	for _, w := range waiters {
		w.done()
	}
}

// awaitSteps has w wait for the steps that v does not allow.
func (r *reservations) awaitSteps(w *tmfWait, v *reservationView) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for s := range r.steps {
		if v.judge(s.ss, s.access) != statusGood {
			w.left.Add(1)
			s.waiters = append(s.waiters, w)
		}
	}
}

// await has w wait for the running tasks that match.
func (c *conn) await(w *tmfWait, match func(*task) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.tasks {
		if t.running && match(t) {
			w.left.Add(1)
			t.waiters = append(t.waiters, w)
		}
	}
}

// store makes the change durable (R1).
func (c *reservationChange) store() {
	switch {
	case c.t.c.stopped(c.t): // I3, I4
		c.Complete(&Op{Err: ErrAborted})
	case !c.r.durable:
		c.Complete(&c.op)
	default:
		c.op = Op{Kind: OpReserve, Data: c.to.next.encode(), Done: c}
		c.r.disk.Submit(&c.op)
	}
}

// Complete implements Completer: the change takes effect, or did not happen (R4).
func (c *reservationChange) Complete(op *Op) {
	r, t := c.r, c.t
	r.mu.Lock()
	if op.Err == nil {
		r.cur = r.next
	}
	r.next = nil
	r.publish()
	r.mu.Unlock()
	if op.Err != nil {
		c.fail(op.Err)
		r.leave()
		return
	}
	users := t.c.srv.users(t.c.sess.target)
	for _, n := range c.to.tell {
		for _, ss := range users {
			if ss.itNexus() == n.itNexus {
				ss.attentionOf(r, n.ua)
			}
		}
	}
	w := &tmfWait{answer: func() {
		t.good(t.cdbLen)
		r.leave()
	}}
	w.left.Store(1)
	if c.q.action == prPreemptAbort {
		c.abort(w, users)
	}
	r.expel(c.to.lost)
	w.done()
}

// fail ends a command whose change did not happen. An error of the Disk that says
// nothing of its own is ours: no block of the medium is meant (I1).
func (c *reservationChange) fail(err error) {
	for _, known := range []error{ErrBusy, ErrGone, ErrReadOnly, ErrNoSpace, ErrAborted} {
		if errors.Is(err, known) {
			c.t.failOp(err)
			return
		}
	}
	c.t.fail(senseInternal)
}

// abort aborts what preempted nexuses have under way; w waits for it.
func (c *reservationChange) abort(w *tmfWait, users []*session) {
	for _, n := range c.to.lost {
		for _, ss := range users {
			if ss.itNexus() != n {
				continue
			}
			if ss.conn.abort(w, func(k *task) bool { return k.lu != nil && k.lu.res == c.r }) > 0 {
				ss.attentionOf(c.r, uaCleared)
			}
		}
	}
}

// expel refuses the queued changes of preempted nexuses: they were sent before the
// preemption, and must not take effect after it (R3).
func (r *reservations) expel(lost []itNexus) {
	if len(lost) == 0 {
		return
	}
	gone := make(map[itNexus]bool, len(lost))
	for _, n := range lost {
		gone[n] = true
	}
	r.mu.Lock()
	var out []*task
	keep := r.queue[:0]
	for _, t := range r.queue {
		if gone[t.c.sess.itNexus()] {
			out = append(out, t)
		} else {
			keep = append(keep, t)
		}
	}
	clear(r.queue[len(keep):])
	r.queue = keep
	r.mu.Unlock()
	for _, t := range out {
		t.status = statusReservationConflict
		t.finish()
	}
}

// attentionOf raises a unit attention condition of the unit.
func (ss *session) attentionOf(r *reservations, ua sense) {
	for l := range ss.view.Load().inside {
		if l.res == r {
			ss.attention(l, ua)
		}
	}
}

// initiatorPorts returns the ISIDs of an initiator's sessions on a target.
func (s *Server) initiatorPorts(t *target, initiator string) [][6]byte {
	var out [][6]byte
	seen := map[[6]byte]bool{}
	for _, ss := range s.users(t) {
		if ss.initiator == initiator && !seen[ss.isid] {
			seen[ss.isid] = true
			out = append(out, ss.isid)
		}
	}
	return out
}

// ports returns the relative port identifiers of the target: its portal groups, and
// the one that is in use.
func (t *target) ports(used uint16) []uint16 {
	out := []uint16{used}
	for _, p := range t.spec.Load().Portals {
		if !slices.Contains(out, p.Group) {
			out = append(out, p.Group)
		}
	}
	return out
}

// ReservationInfo describes the persistent reservations of a logical unit.
type ReservationInfo struct {
	Type          string // of the reservation, in words; "" if there is none
	Holder        string // "NAME,i,0xISID,t,0xTAG", or "all registrants", or ""
	Registrations int
	Persistent    bool   // survives a power loss (APTPL)
	Generation    uint32 // PRgeneration
}

// info describes the persistent reservations; nil if nobody is registered.
func (r *reservations) info() *ReservationInfo {
	s := r.state()
	if len(s.list) == 0 {
		return nil
	}
	i := &ReservationInfo{Type: reservationNames[s.kind], Registrations: len(s.list), Persistent: s.aptpl, Generation: s.generation}
	switch {
	case allRegistrants(s.kind):
		i.Holder = "all registrants"
	case s.kind != 0:
		i.Holder = fmt.Sprintf("%s%s%x,t,0x%04x", s.holder.initiator, isidMark, s.holder.isid, s.holder.port)
	}
	return i
}

// reservedBy returns the initiator that holds the unit by RESERVE(6/10), or "".
func (r *reservations) reservedBy() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.legacy == nil {
		return ""
	}
	return r.legacy.initiator
}
