package iscsi

import (
	"errors"
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
	arrived   time.Time
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

	op     Op
	next   func(*task) // what Complete goes on with
	lba    uint64
	blocks uint64
	step   uint64 // progress of commands made of several Ops

	status byte
	sense  sense
	in     []byte // data-in to send
	xfer   uint64 // bytes the command transfers, for the residual

	set     *taskSet   // mu; nil while the set holds SIMPLE tasks only
	stretch *stretch   // mu
	dormant bool       // mu; has its data and waits for older tasks
	running bool       // mu
	aborted bool       // mu
	waiters []*tmfWait // mu: task management that waits for this task
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
	s.tasks.Put(t)
}

// submit sends one Op to the Disk; next goes on when it succeeded, and the task
// fails when it did not. A task that must stop submits nothing (I3, I4).
func (t *task) submit(kind OpKind, off, length int64, data []byte, fua bool, next func(*task)) {
	if t.c.stopped(t) {
		t.fail(senseAborted)
		return
	}
	t.op = Op{Kind: kind, FUA: fua, Offset: off, Length: length, Data: data, Done: t}
	t.next = next
	t.lu.Disk.Submit(&t.op)
}

// Complete implements Completer.
func (t *task) Complete(op *Op) {
	if op.Err != nil {
		t.failOp(op.Err)
		return
	}
	t.next(t)
}

// failOp turns an error of the Disk into a status (I1).
func (t *task) failOp(err error) {
	switch {
	case errors.Is(err, ErrBusy):
		t.status = statusBusy
		t.finish()
	case errors.Is(err, ErrMiscompare):
		t.sense = senseMiscompare
		t.sense.setInfo(uint64(t.op.MiscompareAt))
		t.check()
	case errors.Is(err, ErrReadOnly):
		t.fail(senseWriteProtected)
	case errors.Is(err, ErrGone):
		t.fail(senseNotReady)
		t.c.dropSoon()
	case errors.Is(err, ErrNoSpace):
		t.fail(senseNoSpace)
	case errors.Is(err, ErrAborted):
		t.fail(senseAborted)
	default:
		s := senseReadError
		if t.op.Kind != OpRead {
			s = senseWriteError
		}
		if t.lba <= 0xffffffff {
			s.setInfo(t.lba)
		}
		t.fail(s)
	}
}

// fail ends the task with CHECK CONDITION.
func (t *task) fail(s sense) {
	t.sense = s
	t.check()
}

func (t *task) check() {
	t.status = statusCheckCondition
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
	if t.status != statusGood {
		t.in = nil
		if t.cmd != nil && t.cmd.dir == dirOut {
			t.xfer = t.cdbLen // what was transferred before the failure does not count as residual
		}
	}
	t.c.answer(t)
}
