package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/openvstorage/ovgate/gateway/auth"
	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// snapshotGroupID reads the id of a group snapshot.
func snapshotGroupID(ref string) (volume.ID, error) {
	id, err := volume.ParseID(ref)
	if err != nil {
		return id, refuse(http.StatusNotFound, "not_found", "snapshot group "+clip(ref), "", "there is no such group: its id is a UUID")
	}
	return id, nil
}

// RestSnapshotGroup brings vDisks to rest for a group snapshot that another node leads.
func (s *Server) RestSnapshotGroup(ctx context.Context, r RestSnapshotGroupRequestObject) (RestSnapshotGroupResponseObject, error) {
	id, err := snapshotGroupID(r.Group)
	if err != nil {
		return nil, err
	}
	in := control.GroupPart{VDisks: r.Body.Vdisks, Size: r.Body.Size, Snapshot: volume.SnapshotSpec{ID: id, Name: r.Body.Name,
		Consistent: value(r.Body.Consistent), Sticky: value(r.Body.Sticky), Automatic: value(r.Body.Automatic)}}
	if r.Body.Labels != nil {
		in.Snapshot.Labels = *r.Body.Labels
	}
	if err := s.opt.Control.RestGroup(ctx, in); err != nil {
		return nil, err
	}
	return RestSnapshotGroup204Response{}, nil
}

// GoSnapshotGroup makes the snapshots of vDisks at rest.
func (s *Server) GoSnapshotGroup(ctx context.Context, r GoSnapshotGroupRequestObject) (GoSnapshotGroupResponseObject, error) {
	id, err := snapshotGroupID(r.Group)
	if err != nil {
		return nil, err
	}
	made, err := s.opt.Control.GoGroup(ctx, id)
	if err != nil {
		return nil, err
	}
	return GoSnapshotGroup200JSONResponse(snapshotGroupOf(made)), nil
}

// UndoSnapshotGroup gives up or deletes a part of a group snapshot.
func (s *Server) UndoSnapshotGroup(ctx context.Context, r UndoSnapshotGroupRequestObject) (UndoSnapshotGroupResponseObject, error) {
	id, err := snapshotGroupID(r.Group)
	if err != nil {
		return nil, err
	}
	if err := s.opt.Control.UndoGroup(ctx, id); err != nil {
		return nil, err
	}
	return UndoSnapshotGroup204Response{}, nil
}

// Parts takes group snapshots to other nodes through their API, in the name of who asks.
type Parts struct{ Peers Peers }

var _ control.Parts = Parts{}

// Rest implements control.Parts.
func (p Parts) Rest(ctx context.Context, node string, in control.GroupPart) error {
	body := SnapshotPartInput{Vdisks: in.VDisks, Size: in.Size, Name: in.Snapshot.Name,
		Consistent: &in.Snapshot.Consistent, Sticky: &in.Snapshot.Sticky, Automatic: &in.Snapshot.Automatic}
	if len(in.Snapshot.Labels) > 0 {
		body.Labels = new(Labels(in.Snapshot.Labels))
	}
	return p.call(ctx, http.MethodPost, node, in.Snapshot.ID.String()+"/rest", body, nil)
}

// Go implements control.Parts.
func (p Parts) Go(ctx context.Context, node string, id volume.ID) ([]control.GroupMember, error) {
	var made SnapshotGroup
	if err := p.call(ctx, http.MethodPost, node, id.String()+"/go", nil, &made); err != nil {
		return nil, err
	}
	var out []control.GroupMember
	for _, m := range made.Members {
		v := m.Snapshot
		out = append(out, control.GroupMember{VDisk: model.VDisk{ID: m.VDiskID, Name: m.VDisk, Node: node}, Snapshot: volume.Snapshot{ID: id, Name: v.Name, Labels: v.Labels,
			Consistent: v.Consistent, Sticky: v.Sticky, Automatic: v.Automatic, Time: v.Created, Seq: uint64(v.Seq), Size: v.Size, Group: v.Group, InBackend: v.InBackend}})
	}
	return out, nil
}

// Undo implements control.Parts.
func (p Parts) Undo(ctx context.Context, node string, id volume.ID) error {
	return p.call(ctx, http.MethodDelete, node, id.String(), nil, nil)
}

// call asks a node something of a group snapshot.
func (p Parts) call(ctx context.Context, method, node, path string, in, out any) error {
	who := callerOf(ctx).Principal
	if !who.Role.Allows(auth.RoleWrite) { // a job of this node
		who = auth.Principal{Name: "group snapshots", Rights: auth.Rights{Role: auth.RoleWrite}}
	}
	status, b, err := askNode(ctx, p.Peers, method, node, "/snapshotGroups/"+path, in, who)
	switch {
	case err != nil:
		return err
	case status >= http.StatusMultipleChoices:
		return toldBy(status, b)
	case out != nil:
		return json.Unmarshal(b, out)
	}
	return nil
}

// toldBy is the error that another node answered with.
func toldBy(status int, body []byte) error {
	var e Error
	if json.Unmarshal(body, &e) != nil || e.Message == "" {
		return fmt.Errorf("it answers %d", status)
	}
	return &control.Error{Code: control.Code(e.Code), Message: e.Message, Field: value(e.Field), Object: value(e.Object), Hint: value(e.Hint), Soon: status == http.StatusServiceUnavailable}
}
