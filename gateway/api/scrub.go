package api

import (
	"context"
	"time"

	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// jobOf returns what is said of every job.
func jobOf[R any](j control.Job[R]) (state JobState, ended *time.Time, failure string) {
	if !j.Ended.IsZero() {
		ended = &j.Ended
	}
	if j.Err != nil {
		failure = j.Err.Error()
	}
	return JobState(j.State), ended, failure
}

func doomedOf(list []volume.DoomedObject) []DoomedObject {
	out := []DoomedObject{}
	for _, d := range list {
		out = append(out, DoomedObject{Name: d.Name, Bytes: d.Bytes, Reason: d.Reason})
	}
	return out
}

func scrubOf(j control.Job[volume.ScrubResult]) Scrub {
	r := j.Result
	out := Scrub{VDisk: j.Object, DryRun: j.DryRun, Started: j.Started, Units: r.Units, Stored: r.Stored, StoredAfter: r.StoredAfter,
		Live: r.Live, Read: r.Read, Written: r.Written, Moved: r.Moved, Condemned: r.Condemned, CondemnedBytes: r.CondemnedBytes,
		Deleted: r.Deleted, Damaged: append([]string{}, r.Damaged...), Doomed: doomedOf(r.Doomed), More: r.More}
	out.State, out.Ended, out.Failure = jobOf(j)
	return out
}

func sweepOf(j control.Job[volume.SweepResult]) Sweep {
	r := j.Result
	out := Sweep{VPool: j.Object, DryRun: j.DryRun, Started: j.Started, VDisks: r.VDisks, Objects: r.Objects, Garbage: r.Garbage,
		GarbageBytes: r.Bytes, Deleted: r.Deleted, Quarantined: append([]string{}, r.Quarantined...), Skipped: append([]string{}, r.Skipped...),
		Doomed: doomedOf(r.Doomed), More: r.More}
	out.State, out.Ended, out.Failure = jobOf(j)
	return out
}

// ScrubVDisk starts a scrub.
func (s *Server) ScrubVDisk(ctx context.Context, r ScrubVDiskRequestObject) (ScrubVDiskResponseObject, error) {
	var in ScrubInput
	if r.Body != nil {
		in = *r.Body
	}
	j, err := s.opt.Control.StartScrub(ctx, r.VDisk, volume.ScrubOptions{DryRun: value(in.DryRun), Rate: value(in.Rate)})
	if err != nil {
		return nil, err
	}
	return ScrubVDisk202JSONResponse(scrubOf(j)), nil
}

// GetVDiskScrub shows the newest scrub of a vDisk.
func (s *Server) GetVDiskScrub(ctx context.Context, r GetVDiskScrubRequestObject) (GetVDiskScrubResponseObject, error) {
	if err := s.askOwner(ctx, r.VDisk); err != nil {
		return nil, err
	}
	j, err := s.opt.Control.Scrub(r.VDisk)
	if err != nil {
		return nil, err
	}
	return GetVDiskScrub200JSONResponse(scrubOf(j)), nil
}

// SweepVPool starts a sweep.
func (s *Server) SweepVPool(ctx context.Context, r SweepVPoolRequestObject) (SweepVPoolResponseObject, error) {
	var in SweepInput
	if r.Body != nil {
		in = *r.Body
	}
	j, err := s.opt.Control.StartSweep(ctx, r.VPool, value(in.DryRun))
	if err != nil {
		return nil, err
	}
	return SweepVPool202JSONResponse(sweepOf(j)), nil
}

// GetVPoolSweep shows the newest sweep of a vPool.
func (s *Server) GetVPoolSweep(_ context.Context, r GetVPoolSweepRequestObject) (GetVPoolSweepResponseObject, error) {
	j, err := s.opt.Control.Sweep(r.VPool)
	if err != nil {
		return nil, err
	}
	return GetVPoolSweep200JSONResponse(sweepOf(j)), nil
}
