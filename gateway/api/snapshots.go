package api

import (
	"context"

	"github.com/openvstorage/ovgate/gateway/auth"
	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

func snapshotOf(s volume.Snapshot) Snapshot {
	return Snapshot{
		ID: s.ID.String(), Name: s.Name, Labels: labelsOf(s.Labels), Consistent: s.Consistent, Sticky: s.Sticky, Automatic: s.Automatic, Group: s.Group,
		Size: s.Size, Seq: seq(s.Seq), InBackend: s.InBackend, Created: s.Time.UTC(),
	}
}

var snapshotOrders = map[string]func(Snapshot) model.Keys{
	"seq":  func(v Snapshot) model.Keys { return model.Keys{Number: float64(v.Seq), ID: v.ID} },
	"name": func(v Snapshot) model.Keys { return model.Keys{Text: v.Name, ID: v.ID} },
}

// ListSnapshots lists the snapshots of a vDisk.
func (s *Server) ListSnapshots(ctx context.Context, r ListSnapshotsRequestObject) (ListSnapshotsResponseObject, error) {
	sort := r.Params.Sort
	if sort == nil || *sort == "" {
		sort = new("seq")
	}
	name, desc, keys, err := order(sort, snapshotOrders)
	if err != nil {
		return nil, err
	}
	if err := s.askOwner(ctx, r.VDisk); err != nil {
		return nil, err
	}
	all, err := s.opt.Control.Snapshots(ctx, r.VDisk)
	if err != nil {
		return nil, err
	}
	var rows []Snapshot
	for _, v := range all {
		if matches(r.Params.Q, v.Name, v.Labels) {
			rows = append(rows, snapshotOf(v))
		}
	}
	items, next, err := page(rows, keys, name, desc, r.Params.Cursor, r.Params.Limit)
	return ListSnapshots200JSONResponse{items, next}, err
}

// CreateSnapshot makes a snapshot.
func (s *Server) CreateSnapshot(ctx context.Context, r CreateSnapshotRequestObject) (CreateSnapshotResponseObject, error) {
	in := volume.SnapshotSpec{Name: r.Body.Name, Consistent: value(r.Body.Consistent), Sticky: value(r.Body.Sticky)}
	if r.Body.Labels != nil {
		in.Labels = *r.Body.Labels
	}
	v, err := s.opt.Control.CreateSnapshot(ctx, r.VDisk, in)
	if err != nil {
		return nil, err
	}
	return CreateSnapshot201JSONResponse(snapshotOf(v)), nil
}

// CreateSnapshotGroup makes a snapshot of several vDisks at one moment.
func (s *Server) CreateSnapshotGroup(ctx context.Context, r CreateSnapshotGroupRequestObject) (CreateSnapshotGroupResponseObject, error) {
	in := volume.SnapshotSpec{Name: r.Body.Name, Consistent: value(r.Body.Consistent), Sticky: value(r.Body.Sticky)}
	if r.Body.Labels != nil {
		in.Labels = *r.Body.Labels
	}
	of := make([]string, len(r.Body.Vdisks))
	for i, ref := range r.Body.Vdisks {
		var err error
		if of[i], err = s.diskFor(ctx, ref, auth.RoleWrite); err != nil {
			return nil, err
		}
	}
	made, err := s.opt.Control.SnapshotGroup(ctx, of, in)
	if err != nil {
		return nil, err
	}
	return CreateSnapshotGroup201JSONResponse(snapshotGroupOf(made)), nil
}

func snapshotGroupOf(made []control.GroupMember) SnapshotGroup {
	first := made[0].Snapshot
	out := SnapshotGroup{ID: first.ID.String(), Name: first.Name, Created: first.Time.UTC(), Members: []GroupMember{}}
	for _, m := range made {
		out.Members = append(out.Members, GroupMember{VDisk: m.VDisk.Name, VDiskID: m.VDisk.ID, Snapshot: snapshotOf(m.Snapshot)})
	}
	return out
}

// DeleteSnapshot deletes a snapshot.
func (s *Server) DeleteSnapshot(ctx context.Context, r DeleteSnapshotRequestObject) (DeleteSnapshotResponseObject, error) {
	if err := s.opt.Control.DeleteSnapshot(ctx, r.VDisk, r.Snapshot, value(r.Params.Force)); err != nil {
		return nil, err
	}
	return DeleteSnapshot204Response{}, nil
}
