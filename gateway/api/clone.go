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
	if up, ok := d.s.opt.Model.VDisk(p.ID); ok && up.State != model.StateDeleting {
		p.Name = up.Name
	}
	if at := v.Parent.At; !at.IsZero() {
		p.PointAt = &at
	}
	return &p
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
	return CloneVDisk201JSONResponse(s.diskView().row(v)), nil
}
