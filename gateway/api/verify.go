package api

import (
	"context"
	"time"

	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
)

func verificationOf(v control.Verify) Verification {
	r := v.Result
	out := Verification{
		VDisk: v.VDisk.Name, State: VerificationState(v.State), StartedAt: when(v.Started), EndedAt: when(r.Ended), Seq: seq(r.Seq), Bytes: r.Bytes, Total: r.Total,
		Clusters: seq(r.Clusters), BadClusters: seq(r.BadClusters), BadObjects: r.BadObjects, Damage: []Damage{},
	}
	if v.State == control.VerifyFailed {
		out.Error = r.Cut
	}
	for _, d := range r.Damage {
		one := Damage{Object: d.Object, Why: d.Why, Current: d.Current, Snapshots: append([]string{}, d.Snapshots...), Ranges: []Extent{}}
		for _, x := range d.Ranges {
			one.Ranges = append(one.Ranges, Extent{Offset: x.Offset, Length: x.Length})
		}
		out.Damage = append(out.Damage, one)
	}
	return out
}

// when is nil for a time that has not come.
func when(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// verified is nil for a vDisk that was never verified.
func (d diskView) verified(v model.VDisk) *Verified {
	r, ok := d.s.opt.Model.Verification(v.ID)
	if !ok {
		return nil
	}
	return &Verified{EndedAt: r.Ended.UTC(), Complete: r.Cut == "", BadObjects: r.BadObjects}
}

// VerifyVDisk begins a verification.
func (s *Server) VerifyVDisk(ctx context.Context, r VerifyVDiskRequestObject) (VerifyVDiskResponseObject, error) {
	var rate int64
	if r.Body != nil {
		rate = value(r.Body.BytesPerSecond)
	}
	v, err := s.opt.Control.StartVerify(ctx, r.VDisk, rate)
	if err != nil {
		return nil, err
	}
	return VerifyVDisk202JSONResponse(verificationOf(v)), nil
}

// GetVDiskVerification tells how far it is, or what came of the newest.
func (s *Server) GetVDiskVerification(ctx context.Context, r GetVDiskVerificationRequestObject) (GetVDiskVerificationResponseObject, error) {
	if err := s.askOwner(ctx, r.VDisk); err != nil {
		return nil, err
	}
	v, err := s.opt.Control.Verification(r.VDisk)
	if err != nil {
		return nil, err
	}
	return GetVDiskVerification200JSONResponse(verificationOf(v)), nil
}

// CancelVDiskVerification ends it.
func (s *Server) CancelVDiskVerification(ctx context.Context, r CancelVDiskVerificationRequestObject) (CancelVDiskVerificationResponseObject, error) {
	if err := s.opt.Control.CancelVerify(ctx, r.VDisk); err != nil {
		return nil, err
	}
	return CancelVDiskVerification204Response{}, nil
}
