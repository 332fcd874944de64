package api

import (
	"context"
	"time"

	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// parent is nil for a vDisk that is no clone.
func (d diskView) parent(v model.VDisk) *Parent {
	if v.Parent == nil {
		return nil
	}
	p := Parent{ID: v.Parent.VDisk, Snapshot: v.Parent.Snapshot}
	if up, ok := d.s.opt.Model.VDisk(p.ID); ok && d.seen.vpool(up.VPool) && up.State != model.StateDeleting && up.State != model.StateTrashed {
		p.Name = up.Name
	}
	if at := v.Parent.At; !at.IsZero() {
		p.PointAt = &at
	}
	return &p
}

// flatten is nil for a vDisk that is not being flattened.
func (d diskView) flatten(v model.VDisk) *FlattenProgress {
	p, ok := d.s.opt.Control.Flattening(v)
	if !ok {
		return nil
	}
	return &FlattenProgress{Copied: p.Copied, Total: p.Total}
}

// pointOf reads a point of a vDisk; with neither it is now.
func pointOf(snapshot *string, at *time.Time) volume.Point {
	return volume.Point{Snapshot: value(snapshot), At: value(at)}
}

// CloneVDisk makes a clone.
func (s *Server) CloneVDisk(ctx context.Context, r CloneVDiskRequestObject) (CloneVDiskResponseObject, error) {
	in := control.Clone{Name: r.Body.Name, From: pointOf(r.Body.Snapshot, r.Body.PointAt), Size: r.Body.Size}
	if r.Body.Labels != nil {
		in.Labels = *r.Body.Labels
	}
	v, err := s.opt.Control.CloneVDisk(ctx, r.VDisk, in)
	if err != nil {
		return nil, err
	}
	return CloneVDisk201JSONResponse(s.diskView(ctx).row(v)), nil
}

// FreezeVDisk makes a vDisk a template.
func (s *Server) FreezeVDisk(ctx context.Context, r FreezeVDiskRequestObject) (FreezeVDiskResponseObject, error) {
	v, err := s.opt.Control.SetTemplate(ctx, r.VDisk, true)
	if err != nil {
		return nil, err
	}
	return FreezeVDisk200JSONResponse(s.diskView(ctx).row(v)), nil
}

// ThawVDisk makes a template a vDisk again.
func (s *Server) ThawVDisk(ctx context.Context, r ThawVDiskRequestObject) (ThawVDiskResponseObject, error) {
	if _, err := s.opt.Control.SetTemplate(ctx, r.VDisk, false); err != nil {
		return nil, err
	}
	return ThawVDisk204Response{}, nil
}

// FlattenVDisk starts a flatten.
func (s *Server) FlattenVDisk(ctx context.Context, r FlattenVDiskRequestObject) (FlattenVDiskResponseObject, error) {
	v, err := s.opt.Control.Flatten(ctx, r.VDisk)
	if err != nil {
		return nil, err
	}
	return FlattenVDisk202JSONResponse(s.diskView(ctx).row(v)), nil
}

// CancelFlattenVDisk stops one.
func (s *Server) CancelFlattenVDisk(ctx context.Context, r CancelFlattenVDiskRequestObject) (CancelFlattenVDiskResponseObject, error) {
	if _, err := s.opt.Control.CancelFlatten(ctx, r.VDisk); err != nil {
		return nil, err
	}
	return CancelFlattenVDisk204Response{}, nil
}
