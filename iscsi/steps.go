package iscsi

// A command made of many Ops (VERIFY, UNMAP, WRITE SAME, PRE-FETCH, EXTENDED COPY)
// is run by a step function: it asks for one Op and returns true, or ends the task
// and returns false. Whether the Disk completes an Op inside Submit or later, the
// next step runs in a loop, never inside the previous one: a range of any length
// takes no stack. Who goes on is settled by one compare-and-swap (I2):
//
//	stepSubmitted --Submit returns first--> stepWaiting    Complete goes on
//	              \-Complete comes first--> stepCompleted  the submitter goes on

const (
	stepSubmitted = iota + 1
	stepWaiting
	stepCompleted
)

// inlineSteps is how many steps run on a goroutine that is not the task's own: the
// connection's reader, which must get at an ABORT TASK, or one of the Disk's.
const inlineSteps = 4

// workBytes is how much a command made of many Ops moves at a time: what one
// journal append carries.
const workBytes = 1 << 20

// steps runs a command to its end.
func (t *task) steps(step func(*task) bool) {
	t.stepper = step
	t.runSteps(inlineSteps)
}

// runSteps goes on until an Op must be waited for, or the task has ended; then it
// touches the task no more. After limit steps it continues on a goroutine of its own.
func (t *task) runSteps(limit int) {
	for n := 0; ; n++ {
		if n == limit {
			go t.runSteps(-1)
			return
		}
		if !t.stepper(t) {
			return
		}
		if t.c.stopped(t) {
			t.fail(senseAborted)
			return
		}
		t.stepState.Store(stepSubmitted)
		t.launch(t.over)
		if t.stepState.CompareAndSwap(stepSubmitted, stepWaiting) {
			return
		}
		if t.op.Err != nil {
			t.failOp(t.op.Err)
			return
		}
	}
}

// ask prepares the Op of a step; the task's own unit executes it.
func (t *task) ask(kind OpKind, off, length int64, data []byte) bool {
	return t.askOf(t.lu, kind, off, length, data)
}

func (t *task) askOf(l *lun, kind OpKind, off, length int64, data []byte) bool {
	t.over = t.nx
	if l != t.lu {
		t.over = t.copy.visit(t.c.sess, l)
	}
	t.op = Op{Kind: kind, Offset: off, Length: length, Data: data, BadOffset: off, Done: t}
	return true
}

// Withdrawn implements Withdrawer: an Op whose task ended, or is too old, is not wanted.
func (t *task) Withdrawn() bool { return t.c.stopped(t) }

// stepDone takes a completed Op of a step.
func (t *task) stepDone(op *Op) {
	switch {
	case t.stepState.CompareAndSwap(stepSubmitted, stepCompleted):
	case op.Err != nil:
		t.failOp(op.Err)
	default:
		t.runSteps(inlineSteps)
	}
}

// workBuffer gives a command made of many Ops the buffer it works with; false:
// the session holds too much already, and the task has ended.
func (t *task) workBuffer(n uint64) bool {
	n = min(n, workBytes)
	if !t.c.hold(t, int64(n)) {
		t.status = statusTaskSetFull
		t.finish()
		return false
	}
	t.allocateRef(int(n))
	return true
}

// last ends a task from a step.
func (t *task) last(xfer uint64) bool {
	t.good(xfer)
	return false
}

// lastFail ends a task with CHECK CONDITION from a step.
func (t *task) lastFail(s sense) bool {
	t.fail(s)
	return false
}
