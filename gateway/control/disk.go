package control

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// disk shows an open vDisk to the iSCSI front end. It keeps the obligations of
// iscsi.Disk because volume.Volume does; it adds no waiting and no allocation, but while
// the vDisk moves from one vPool to another (hold), and while the node may not serve
// (permit.go).
type disk struct {
	now    atomic.Pointer[served]
	permit atomic.Pointer[permit]
	reqs   sync.Pool // *request

	holding atomic.Bool
	mu      sync.Mutex
	held    []waiting  // in the order they came
	done    []*request // not answered yet
	refusal error      // what everything is answered, with the permit revoked
}

// waiting is an operation that waits to be passed on.
type waiting struct {
	op *iscsi.Op
	at time.Time // since when for the permit; zero: for the end of a move
}

// served is what a disk passes its operations to.
type served struct {
	vol   Volume
	space *poolSpace // nil: not known
}

var (
	_ iscsi.Disk          = (*disk)(nil)
	_ iscsi.Provisioner   = (*disk)(nil)
	_ iscsi.SpaceReporter = (*disk)(nil)
	_ iscsi.Reserver      = (*disk)(nil)
)

func newDisk(v Volume, space *poolSpace, p *permit) *disk {
	d := &disk{}
	d.now.Store(&served{v, space})
	d.permit.Store(p)
	d.reqs.New = func() any {
		r := &request{disk: d}
		r.Done = r
		return r
	}
	return d
}

// request carries one Op through the engine.
type request struct {
	volume.Request
	op   *iscsi.Op
	disk *disk
	to   *served
	at   time.Time // since when its answer waits
}

// Geometry implements iscsi.Disk. Acknowledged writes are durable, so there is
// no write cache to report; unmap and zero are O(pages) whatever their length. One
// command is one record, so the longest write is atomic, too.
func (d *disk) Geometry() iscsi.Geometry {
	vol := d.now.Load().vol
	return iscsi.Geometry{Size: vol.Size(), ClusterSize: vol.ClusterSize(), AtomicBytes: int64(vol.MaxIO())}
}

// Allocated implements iscsi.Provisioner. Of a vDisk that is being moved everything
// counts as holding data, which is safe.
func (d *disk) Allocated(off int64) (mapped bool, n int64) {
	vol := d.now.Load().vol
	if d.holding.Load() {
		return true, vol.Size() - off
	}
	if mapped, n = vol.Allocated(off); n <= 0 || d.holding.Load() {
		return true, vol.Size() - off // it is closed by now
	}
	return mapped, n
}

// Reservation implements iscsi.Reserver: the state is in the vDisk's log and head.
func (d *disk) Reservation() []byte { return d.now.Load().vol.Reservation() }

// Submit implements iscsi.Disk.
func (d *disk) Submit(op *iscsi.Op) {
	if (d.holding.Load() || !d.permit.Load().ok()) && d.keep(op) {
		return
	}
	r := d.reqs.Get().(*request)
	r.op = op
	r.Kind = kinds[op.Kind]
	r.Offset, r.Length, r.Data = op.Offset, op.Length, op.Data
	r.Err, r.MiscompareAt = nil, 0
	r.to = d.now.Load()
	r.to.vol.Submit(&r.Request)
}

// hold has operations wait from now on. What was submitted before goes on, unless the
// volume is closed first: then it waits too.
func (d *disk) hold() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.holding.Store(true)
}

// keep makes an operation wait, or refuses it; false: there is no need to any more.
func (d *disk) keep(op *iscsi.Op) bool {
	d.mu.Lock()
	p, refusal := d.permit.Load(), d.refusal
	kept := true
	switch {
	case p == revoked:
	case p.waits():
		d.held = append(d.held, waiting{op, p.clock.Now()})
	case d.holding.Load():
		d.held = append(d.held, waiting{op: op})
	default:
		kept = false
	}
	d.mu.Unlock()
	if p == revoked {
		fail(op, diskError(refusal))
	}
	return kept
}

func fail(op *iscsi.Op, err error) {
	op.Err = err
	op.Done.Complete(op)
}

// withhold makes the answer to an operation wait; false: there is no need to any more.
func (d *disk) withhold(r *request) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.permit.Load()
	switch {
	case p == revoked:
		r.Err = d.refusal
		return false
	case !p.waits():
		return false
	}
	r.at = p.clock.Now()
	d.done = append(d.done, r)
	return true
}

// goOn answers and passes on what waited for the permit, if there is one now; else it answers
// busy what has waited for too long.
func (d *disk) goOn(now time.Time) {
	d.mu.Lock()
	p := d.permit.Load()
	if p == revoked || p == nil {
		d.mu.Unlock()
		return
	}
	ok := p.ok()
	old := func(at time.Time) bool { return ok || now.Sub(at) >= permitWait }
	var ops []*iscsi.Op
	var answers []*request
	d.held = slices.DeleteFunc(d.held, func(w waiting) bool {
		if w.at.IsZero() || !old(w.at) && !withdrawn(w.op) {
			return false
		}
		ops = append(ops, w.op)
		return true
	})
	d.done = slices.DeleteFunc(d.done, func(r *request) bool {
		if !old(r.at) {
			return false
		}
		answers = append(answers, r)
		return true
	})
	p.waiters.Add(-int64(len(ops) + len(answers)))
	d.mu.Unlock()
	for _, r := range answers {
		if !ok {
			r.Err = volume.ErrStalled
		} else if !p.ok() && d.withhold(r) {
			continue
		}
		r.answer()
	}
	for _, op := range ops {
		switch {
		case ok || withdrawn(op):
			d.pass(op)
		default:
			fail(op, iscsi.ErrBusy)
		}
	}
}

// withdrawn tells whether nobody wants an operation any more (O4).
func withdrawn(op *iscsi.Op) bool {
	w, ok := op.Done.(iscsi.Withdrawer)
	return ok && w.Withdrawn()
}

// pass submits an operation that waited, if it is still wanted.
func (d *disk) pass(op *iscsi.Op) {
	if withdrawn(op) {
		fail(op, iscsi.ErrAborted)
		return
	}
	d.Submit(op)
}

// revoke ends the service of a vDisk that another node has: whatever waits, and comes, is
// answered "gone".
func (d *disk) revoke() { d.refuse(volume.ErrFenced) }

// refuse answers everything that waits and comes with an error that is not taken back.
func (d *disk) refuse(err error) {
	d.mu.Lock()
	p := d.permit.Swap(revoked)
	d.refusal = err
	held, done := d.held, d.done
	d.held, d.done = nil, nil
	if p != nil && p != revoked {
		for _, w := range held {
			if !w.at.IsZero() {
				p.waiters.Add(-1)
			}
		}
		p.waiters.Add(-int64(len(done)))
	}
	d.mu.Unlock()
	for _, r := range done {
		r.Err = err
		r.answer()
	}
	for _, w := range held {
		fail(w.op, diskError(err))
	}
}

// resume passes what waits, and what comes, to vol; nil: it is answered busy.
func (d *disk) resume(vol Volume, space *poolSpace) {
	d.mu.Lock()
	if vol != nil {
		d.now.Store(&served{vol, space})
	}
	var held []*iscsi.Op
	d.held = slices.DeleteFunc(d.held, func(w waiting) bool {
		if w.at.IsZero() {
			held = append(held, w.op)
		}
		return w.at.IsZero()
	})
	d.holding.Store(false)
	d.mu.Unlock()
	for _, op := range held {
		if vol == nil {
			fail(op, iscsi.ErrBusy)
			continue
		}
		d.pass(op)
	}
}

var kinds = [...]volume.RequestKind{
	iscsi.OpRead:            volume.ReqRead,
	iscsi.OpWrite:           volume.ReqWrite,
	iscsi.OpZero:            volume.ReqZero,
	iscsi.OpUnmap:           volume.ReqUnmap,
	iscsi.OpFlush:           volume.ReqFlush,
	iscsi.OpCompareAndWrite: volume.ReqCompareAndWrite,
	iscsi.OpReserve:         volume.ReqReserve,
	iscsi.OpOrWrite:         volume.ReqOrWrite,
}

// Complete implements the engine's completion.
func (r *request) Complete(*volume.Request) {
	op, d := r.op, r.disk
	if errors.Is(r.Err, volume.ErrClosed) && (d.holding.Load() || d.now.Load() != r.to) {
		// Closed under it by a move, before anything of it was done.
		r.op, r.Data, r.Err, r.to = nil, nil, nil, nil
		d.reqs.Put(r)
		d.Submit(op)
		return
	}
	if !d.permit.Load().ok() && d.withhold(r) {
		return
	}
	r.answer()
}

// answer completes the operation.
func (r *request) answer() {
	op, d := r.op, r.disk
	op.Err, op.MiscompareAt = diskError(r.Err), r.MiscompareAt
	if r.Err != nil {
		op.BadOffset = badOffset(r.Err, op.BadOffset)
	}
	r.op, r.Data, r.Err, r.to = nil, nil, nil, nil
	d.reqs.Put(r)
	op.Done.Complete(op)
}

// badOffset is where a medium error is, if the engine tells.
func badOffset(err error, otherwise int64) int64 {
	var at *volume.MediumError
	if errors.As(err, &at) {
		return at.Offset
	}
	return otherwise
}

// diskError gives an engine error its SCSI meaning. Anything else (ErrFailed,
// ErrCorrupt) stays as it is: the front end reports a hardware error.
func diskError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, volume.ErrMiscompare):
		return iscsi.ErrMiscompare
	case errors.Is(err, backend.ErrFull): // trying again does not help: a VM pauses until there is space
		return iscsi.ErrNoSpace
	case errors.Is(err, volume.ErrStalled), errors.Is(err, volume.ErrBackend):
		return iscsi.ErrBusy
	case errors.Is(err, volume.ErrFenced), errors.Is(err, volume.ErrClosed), errors.Is(err, volume.ErrLostTail):
		return iscsi.ErrGone
	case errors.Is(err, volume.ErrMedium):
		return iscsi.ErrMedium
	}
	return err
}
