package iscsi

import (
	"errors"
	"sync/atomic"
	"time"
)

// task is one SCSI command from its arrival to the last byte of its answer.
//
//	receiving -> (dormant) -> running -> answered -> released
//	     \           \           \
//	      +-----------+-----------+--> aborted (never answered, I3)
//
// The reader owns a receiving task; a dormant one belongs to its task set. A running task belongs to whoever holds its
// only Op: the submitter until Submit, Complete's caller afterwards (I2). An
// answered task belongs to the writer. Fields marked mu are under conn.mu.
type task struct {
	c         *conn
	cmd       *command
	lu        *lun
	nx        *nexus // with lu; nil when lu is
	since     time.Time
	counted   bool // out of nx
	lunNo     uint16
	lunOK     bool
	protected bool // the session's group may only read lu
	immediate bool
	attr      byte // task attribute
	read      bool // R bit
	write     bool // W bit
	itt       uint32
	edtl      uint32
	cdb       [16]byte

	longCDB    bool   // the CDB has more than 16 bytes
	readLength uint32 // expected data-in of a bidirectional command

	// Data-out: the first want bytes of what arrives land in data.
	cdbLen    uint64 // bytes the CDB asks for, either direction
	want      uint32 // min(edtl, cdbLen) for data-out
	got       uint32 // bytes arrived, in order, kept or not
	burstEnd  uint32 // end of the sequence being received
	ttt       uint32 // tag of the outstanding R2T; noTag while unsolicited
	r2tSN     uint32
	dataSN    uint32 // next Data-Out of the sequence
	buf, aux  *buffer
	data, ref []byte // slices of buf and aux
	held      int64  // bytes counted against the session

	op   Op
	next func(*task) // what Complete goes on with
	// A command made of many Ops has a stepper instead of next (steps.go).
	stepper   func(*task) bool
	stepState atomic.Int32
	over      *nexus   // of its next Op
	copy      *copyJob // EXTENDED COPY
	lba       uint64
	blocks    uint64
	step      uint64 // progress of commands made of several Ops

	// At the gate of the Op's unit (gate.go).
	at            *nexus // whose Op it is; nil while it has none
	weight        int64
	charged       bool // it was counted as a command
	queued        atomic.Pointer[gate]
	before, after *task // in the queue

	status byte
	sense  sense
	in     []byte // data-in to send
	xfer   uint64 // bytes the command transfers, for the residual

	// Of a unit that another node serves (remote.go), or for another node (served.go).
	remote  RemoteCommand
	away    ForwardPath // mu; it was handed over
	raw     []byte      // sense data as the owner encoded it
	expires time.Time   // it does not take effect after that, if not zero
	ready   bool        // nothing is wrong with it so far

	set      *taskSet    // mu; nil while the set holds SIMPLE tasks only
	stretch  *stretch    // mu
	awaiting bool        // mu; data has been asked for, or will follow unasked
	dormant  bool        // mu; has its data and waits for older tasks
	running  bool        // mu
	aborted  atomic.Bool // set under mu
	waiters  []*tmfWait  // mu: task management that waits for this task
}

func newTask() *task {
	t := &task{}
	t.op.Done = t
	return t
}

// reset prepares a pooled task for a new command.
func (t *task) reset(c *conn) {
	w := t.waiters[:0]
	clear(t.waiters[:cap(t.waiters)])
	*t = task{c: c, waiters: w}
	t.op.Done = t
}

// allocate gives the task a data buffer of n bytes. Its bytes are undefined.
func (t *task) allocate(n int) {
	if n > 0 {
		t.buf = t.c.srv.bufs.get(n)
		t.data = t.buf.b[:n]
	}
}

// allocateRef gives the task a second buffer, to compare with.
func (t *task) allocateRef(n int) {
	t.aux = t.c.srv.bufs.get(n)
	t.ref = t.aux.b[:n]
}

// release returns the task and its buffers to their pools. Nobody else may
// still refer to it.
func (t *task) release() {
	s := t.c.srv
	if t.buf != nil {
		s.bufs.put(t.buf)
	}
	if t.aux != nil {
		s.bufs.put(t.aux)
	}
	t.buf, t.aux, t.data, t.ref, t.in, t.lu, t.nx, t.op.Data = nil, nil, nil, nil, nil, nil, nil, nil
	t.over, t.copy, t.away, t.raw = nil, nil, nil, nil
	if t.remote.Done != nil || t.remote.t != nil {
		t.remote = RemoteCommand{}
	}
	s.tasks.Put(t)
}

// submit sends one Op to the Disk; next goes on when it succeeded, and the task
// fails when it did not. A task that must stop submits nothing (I3, I4).
func (t *task) submit(kind OpKind, off, length int64, data []byte, fua bool, next func(*task)) {
	if t.c.stopped(t) {
		t.fail(senseAborted)
		return
	}
	t.op = Op{Kind: kind, FUA: fua, Offset: off, Length: length, Data: data, BadOffset: off, Done: t}
	t.next = next
	t.launch(t.nx)
}

// Complete implements Completer.
func (t *task) Complete(op *Op) {
	n := t.at
	t.expires = time.Time{} // it has begun
	others := n != nil && n.left(t.weight)
	t.at = nil
	switch {
	case t.stepper != nil:
		t.stepDone(op)
	case op.Err != nil:
		t.failOp(op.Err)
	default:
		t.next(t)
	}
	if others { // t may be another command by now
		n.lu.gate.run()
	}
}

// failOp turns an error of the Disk into a status (I1).
func (t *task) failOp(err error) {
	if t.copy != nil {
		t.copyFailed(err)
		return
	}
	c := t.c // the task is the writer's once it is finished
	t.status, t.sense = opResult(&t.op, err, t.lu.shift)
	if c.served != nil && errors.Is(err, ErrGone) {
		t.sense = senseAborted // it is moving; where to, the node that asks finds out
	}
	t.finish()
	if errors.Is(err, ErrGone) {
		c.dropSoon()
	}
}

// errTaskSetFull ends a command for which the unit's gate has no room.
var errTaskSetFull = errors.New("iscsi: too many commands wait for the unit")

// opResult is the status and sense data of a failed Op. A medium or hardware error
// names the block: the one the Disk blames, or the first of the Op.
func opResult(op *Op, err error, shift uint8) (byte, sense) {
	var s sense
	switch {
	case errors.Is(err, ErrBusy):
		return statusBusy, s
	case err == errTaskSetFull:
		return statusTaskSetFull, s
	case errors.Is(err, ErrMiscompare):
		s = senseMiscompare
		s.setInfo(uint64(op.MiscompareAt))
	case errors.Is(err, ErrReadOnly):
		s = senseWriteProtected
	case errors.Is(err, ErrGone):
		s = senseNotReady
	case errors.Is(err, ErrNoSpace):
		s = senseNoSpace
	case errors.Is(err, ErrAborted):
		s = senseAborted
	default:
		s = senseInternal
		if errors.Is(err, ErrMedium) {
			s = senseWriteError
			if op.Kind == OpRead || op.Kind == OpCompareAndWrite || op.Kind == OpOrWrite {
				s = senseReadError
			}
		}
		if op.Kind != OpFlush {
			s.setInfo(uint64(op.bad()) >> shift)
		}
	}
	return statusCheckCondition, s
}

// bad is where an Op failed: BadOffset, unless the Disk left it outside the range.
func (op *Op) bad() int64 {
	n := op.Length
	switch op.Kind {
	case OpRead, OpWrite, OpOrWrite:
		n = int64(len(op.Data))
	case OpCompareAndWrite:
		n = int64(len(op.Data) / 2)
	}
	if op.BadOffset < op.Offset || op.BadOffset >= op.Offset+n {
		return op.Offset
	}
	return op.BadOffset
}

// fail ends the task with CHECK CONDITION.
func (t *task) fail(s sense) {
	t.status, t.sense = statusCheckCondition, s
	t.finish()
}

// good ends the task with GOOD; xfer bytes were meant to move.
func (t *task) good(xfer uint64) {
	t.status, t.xfer = statusGood, xfer
	t.finish()
}

// reply ends the task with parameter data, cut to the CDB's allocation length.
func (t *task) reply(b []byte) {
	n := min(uint64(len(b)), t.cdbLen)
	t.in = b[:n]
	t.good(n)
}

// finish hands the task to the writer.
func (t *task) finish() {
	if t.copy != nil {
		t.copy.end(t)
	}
	if t.status != statusGood {
		t.in = nil
		if t.cmd != nil && t.cmd.dir == dirOut {
			t.xfer = t.cdbLen // what was transferred before the failure does not count as residual
		}
	}
	t.c.answer(t)
}
