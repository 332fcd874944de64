package control

import (
	"errors"
	"sync"

	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// disk shows an open vDisk to the iSCSI front end. It keeps the obligations of
// iscsi.Disk because volume.Volume does; it adds no waiting and no allocation.
type disk struct {
	vol  Volume
	reqs sync.Pool // *request
}

var (
	_ iscsi.Disk        = (*disk)(nil)
	_ iscsi.Provisioner = (*disk)(nil)
	_ iscsi.Reserver    = (*disk)(nil)
)

func newDisk(v Volume) *disk {
	d := &disk{vol: v}
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
}

// Geometry implements iscsi.Disk. Acknowledged writes are durable, so there is
// no write cache to report; unmap and zero are O(pages) whatever their length. One
// command is one record, so the longest write is atomic, too.
func (d *disk) Geometry() iscsi.Geometry {
	return iscsi.Geometry{Size: d.vol.Size(), ClusterSize: d.vol.ClusterSize(), AtomicBytes: int64(d.vol.MaxIO())}
}

// Allocated implements iscsi.Provisioner.
func (d *disk) Allocated(off int64) (mapped bool, n int64) { return d.vol.Allocated(off) }

// Reservation implements iscsi.Reserver: the state is in the vDisk's log and head.
func (d *disk) Reservation() []byte { return d.vol.Reservation() }

// Submit implements iscsi.Disk.
func (d *disk) Submit(op *iscsi.Op) {
	r := d.reqs.Get().(*request)
	r.op = op
	r.Kind = kinds[op.Kind]
	r.Offset, r.Length, r.Data = op.Offset, op.Length, op.Data
	r.Err, r.MiscompareAt = nil, 0
	d.vol.Submit(&r.Request)
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
	op := r.op
	op.Err, op.MiscompareAt = diskError(r.Err), r.MiscompareAt
	if r.Err != nil {
		op.BadOffset = badOffset(r.Err, op.BadOffset)
	}
	r.op, r.Data, r.Err = nil, nil, nil
	r.disk.reqs.Put(r)
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
