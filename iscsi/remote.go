package iscsi

import (
	"sync/atomic"
	"time"
)

// CommandMaxAge is how old a forwarded command may be when it takes effect (rule O4).
// It is below the time after which initiators give up on one.
const CommandMaxAge = 4 * time.Second

// RemoteDisk stands for the Disk of a logical unit that another node serves. What
// names the unit is answered here; commands go to that node as a whole, through the
// Forwarder, and come back with their status (F1). A unit keeps its RemoteDisk
// while its node changes.
type RemoteDisk struct {
	cluster int
	size    atomic.Int64
	asked   atomic.Int64 // Unix ns; 0: never
}

// NewRemoteDisk returns one of size bytes, in clusters of cluster bytes.
func NewRemoteDisk(size int64, cluster int) *RemoteDisk {
	d := &RemoteDisk{cluster: cluster}
	d.size.Store(size)
	return d
}

// SetSize follows the size of the disk, in bytes.
func (d *RemoteDisk) SetSize(size int64) { d.size.Store(size) }

// Ask notes that a command for the unit came at a time.
func (d *RemoteDisk) Ask(at time.Time) { d.asked.Store(at.UnixNano()) }

// Asked returns when the newest command that was forwarded for the unit, or waits to be,
// came; zero: there was none.
func (d *RemoteDisk) Asked() time.Time {
	if ns := d.asked.Load(); ns != 0 {
		return time.Unix(0, ns)
	}
	return time.Time{}
}

// Geometry implements Disk. What only the owner knows is not refused here.
func (d *RemoteDisk) Geometry() Geometry {
	return Geometry{Size: d.size.Load(), ClusterSize: d.cluster, AtomicBytes: maxTransfer}
}

// Submit implements Disk; commands that are executed here find it busy.
func (d *RemoteDisk) Submit(op *Op) {
	op.Err = ErrBusy
	op.Done.Complete(op)
}

// NexusID names an I_T nexus in the cluster.
type NexusID struct {
	Target    string // iSCSI name
	Initiator string // normalized
	ISID      [6]byte
	Group     uint16 // portal group tag, which is the relative target port
}

// Outcome is how a forwarded command ended.
type Outcome uint8

// Outcomes.
const (
	// OutcomeDone: executed; the results are set.
	OutcomeDone Outcome = iota + 1
	// OutcomeNot: not executed, and it will not be.
	OutcomeNot
	// OutcomeAborted: task management of this or another nexus ended it.
	OutcomeAborted
	// OutcomeOver: its nexus ended at the owner. It took effect or not, and will not any more.
	OutcomeOver
	// OutcomeUnknown: the owner does not answer. By its age, what had not begun there will
	// not begin.
	OutcomeUnknown
	// OutcomeStale: not executed, since the process was paused while the command may have
	// waited for it: how old it is nobody knows. The session has to end.
	OutcomeStale
	// OutcomeAway: not executed, and not to be tried again by this path: the node that serves
	// the unit lives, and there is no way to it from here.
	OutcomeAway
)

// RemoteCommand is a command of a logical unit that another node serves, on either
// side of the way there.
type RemoteCommand struct {
	Unit        string // serial number of the logical unit
	LUN         uint16 // its number in the target
	CDB         [16]byte
	Read, Write bool   // R and W bits
	Expected    uint32 // expected data transfer length
	Data        []byte // data-out
	Since       time.Time
	Repeatable  bool // sending it twice does no harm

	Outcome     Outcome
	Status      byte
	In          []byte // data-in, what Room gave
	Transferred uint64 // bytes that the command transfers, for the residual
	sense       [maxSenseLen]byte
	senseLen    int

	Done RemoteCompleter

	// The Forwarder's own.
	Tag             uint32
	Sent, Cancelled bool
	Path            any
	Later           time.Time

	t *task // at the owner
}

// RemoteCompleter is told of the end of a forwarded command. Neither method blocks.
type RemoteCompleter interface {
	// Room returns memory for n bytes of data-in; nil: there is none.
	Room(n int) []byte
	CompleteRemote()
	// Awake tells that the caller is about to complete the command, and will flush before it
	// waits for anything: answers are sent together then.
	Awake() AnswerFlusher
}

// AnswerFlusher sends answers that its user held back. It does not block.
type AnswerFlusher interface{ FlushAnswers() }

// Sense returns the sense data of a command that ended with CHECK CONDITION.
func (r *RemoteCommand) Sense() []byte { return r.sense[:r.senseLen] }

// SetSense sets it; false: it is too long.
func (r *RemoteCommand) SetSense(b []byte) bool {
	r.senseLen = copy(r.sense[:], b)
	return r.senseLen == len(b)
}

// Forwarder takes commands to the nodes that serve their units.
type Forwarder interface {
	// Begin returns the way for the commands of a session that began at a time.
	Begin(id NexusID, since time.Time) ForwardPath
}

// ForwardPath is what a session forwards on. Its methods do not block. Obligations:
//
//	P1  A submitted command is completed exactly once, from another goroutine's
//	    stack than Submit's or Abort's, within the owner's time, or the time after
//	    which its outcome does not change any more.
//	P2  It is executed at most once, unless it is Repeatable.
type ForwardPath interface {
	Submit(*RemoteCommand)
	// Abort ends a command as ABORT TASK does. It may come before Submit; it is not
	// called after the completion.
	Abort(*RemoteCommand)
	// Reset resets a logical unit; done is told whether the owner did so, when every
	// older command of the unit has ended.
	Reset(unit string, lun uint16, done func(ok bool))
	// End ends the nexus, whose commands have completed.
	End()
}

// forwards tells whether the task is executed by another node.
func (t *task) forwards() bool {
	if t.lu == nil || t.lu.remote == nil || t.cmd == nil {
		return false
	}
	switch t.cmd.op {
	case opInquiry:
		return t.cdb[1]&0x01 != 0 && (t.cdb[2] == vpdLimits || t.cdb[2] == vpdProvision)
	case opReportLUNs, opMaintenanceIn:
		return false
	}
	return true
}

// forward hands a task over to the node that serves its unit.
func (t *task) forward() {
	p := t.c.sess.forwardPath()
	if p == nil {
		t.status = statusBusy
		t.finish()
		return
	}
	t.remote = RemoteCommand{
		Unit: t.lu.Serial, LUN: t.lu.Number, CDB: t.cdb, Read: t.read, Write: t.write, Expected: t.edtl,
		Since: t.since, Repeatable: t.cmd.flags&bulk != 0, Done: t,
	}
	if t.cmd.dir == dirOut {
		t.remote.Data = t.data[:t.want]
	}
	c := t.c
	c.mu.Lock()
	if c.stopped(t) {
		c.mu.Unlock()
		t.fail(senseAborted)
		return
	}
	t.away = p
	c.mu.Unlock()
	t.lu.remote.Ask(t.since)
	p.Submit(&t.remote)
}

// forwardPath returns the session's way to other nodes; nil: there is none.
func (ss *session) forwardPath() ForwardPath {
	f := ss.target.srv.forward
	if f == nil {
		return nil
	}
	ss.nexusMu.Lock()
	defer ss.nexusMu.Unlock()
	if ss.path == nil {
		ss.path = f.Begin(NexusID{ss.target.name, ss.initiator, ss.isid, ss.group}, ss.since)
	}
	return ss.path
}

// endPath ends it, with the session.
func (ss *session) endPath() {
	ss.nexusMu.Lock()
	p := ss.path
	ss.path = nil
	ss.nexusMu.Unlock()
	if p != nil {
		p.End()
	}
}

// recall has the owner end a task; conn.mu is held, so that the task is not another
// one meanwhile.
func (t *task) recall() {
	if t.away != nil {
		t.away.Abort(&t.remote)
	}
}

// resetRemote has the owner of a unit reset it, and w wait for that. When the owner does
// not say that it has, the session ends instead of the answer (O4).
func (ss *session) resetRemote(l *lun, w *tmfWait) {
	p := ss.forwardPath()
	if p == nil {
		ss.conn.close()
		return
	}
	w.left.Add(1)
	p.Reset(l.Serial, l.Number, func(ok bool) {
		if !ok {
			ss.conn.close()
		}
		w.done()
	})
}

// maxParameters bounds data-in that is no data of the medium, in bytes: READ FULL
// STATUS of all registrations.
const maxParameters = 256 << 10

// Room implements RemoteCompleter.
func (t *task) Room(n int) []byte {
	if t.cmd.dir != dirIn || uint64(n) > t.cdbLen {
		return nil
	}
	if t.data == nil {
		if n > maxParameters || !t.c.hold(t, int64(n)) {
			return nil
		}
		t.allocate(n)
	}
	return t.data[:n]
}

// Awake implements RemoteCompleter.
func (t *task) Awake() AnswerFlusher {
	t.c.awake.Store(true)
	return t.c
}

// FlushAnswers implements AnswerFlusher.
func (c *conn) FlushAnswers() { c.sendInline() }

// CompleteRemote implements RemoteCompleter.
func (t *task) CompleteRemote() {
	r, c := &t.remote, t.c
	c.mu.Lock()
	t.away = nil
	if r.Outcome == OutcomeAborted {
		t.aborted.Store(true)
	}
	c.mu.Unlock()
	if r.Outcome == OutcomeDone || r.Outcome == OutcomeAway {
		c.sess.target.reached(t.lu, r.Outcome == OutcomeDone)
	}
	switch r.Outcome {
	case OutcomeAway:
		t.status, t.sense = statusCheckCondition, senseUnavailable
	case OutcomeDone:
		t.status, t.xfer, t.in, t.raw = r.Status, r.Transferred, r.In, r.Sense()
	case OutcomeAborted:
	case OutcomeOver:
		t.status, t.sense = statusCheckCondition, senseAborted
	case OutcomeStale:
		c.close()
	case OutcomeUnknown:
		if t.aborted.Load() { // its end cannot be told (I3, O4)
			c.close()
		}
		t.status, t.sense = statusCheckCondition, senseAborted
	default:
		t.status = statusBusy
	}
	t.finish()
}
