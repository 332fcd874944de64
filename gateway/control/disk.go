package control

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// disk shows an open vDisk to the iSCSI front end. It keeps the obligations of
// iscsi.Disk because volume.Volume does; it adds no waiting and no allocation, but while
// the vDisk moves from one vPool to another (hold).
type disk struct {
	now  atomic.Pointer[served]
	reqs sync.Pool // *request

	holding atomic.Bool
	mu      sync.Mutex
	held    []*iscsi.Op // in the order they came
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

func newDisk(v Volume, space *poolSpace) *disk {
	d := &disk{}
	d.now.Store(&served{v, space})
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
	if d.holding.Load() && d.keep(op) {
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

// keep makes an operation wait; false: there is no need to any more.
func (d *disk) keep(op *iscsi.Op) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.holding.Load() {
		return false
	}
	d.held = append(d.held, op)
	return true
}

// resume passes what waits, and what comes, to vol; nil: it is answered busy.
func (d *disk) resume(vol Volume, space *poolSpace) {
	d.mu.Lock()
	if vol != nil {
		d.now.Store(&served{vol, space})
	}
	held := d.held
	d.held = nil
	d.holding.Store(false)
	d.mu.Unlock()
	for _, op := range held {
		if vol == nil {
			op.Err = iscsi.ErrBusy
			op.Done.Complete(op)
			continue
		}
		d.Submit(op)
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
