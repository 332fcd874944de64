package api

import (
	"context"
	"slices"

	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/iscsi"
)

func (s *Server) portals() []Portal {
	out := []Portal{}
	for _, p := range s.opt.Control.Portals() {
		out = append(out, Portal{Address: p.Address, Group: int(p.Group)})
	}
	return out
}

func (s *Server) targetOf(v model.VDisk, sessions int) Target {
	return Target{
		IQN: v.IQN, LUNs: []TargetLUN{{LUN: 0, VDisk: v.Name, VDiskID: v.ID, Size: v.Size}}, Portals: s.portals(),
		ACL: append([]string{}, v.Target.Initiators...), Open: v.Target.Open, ChapUser: v.Target.CHAPUser,
		Sessions: sessions, Created: v.Target.Created,
	}
}

// PublishVDisk publishes a vDisk and answers how to connect.
func (s *Server) PublishVDisk(ctx context.Context, r PublishVDiskRequestObject) (PublishVDiskResponseObject, error) {
	var opt control.PublishOptions
	if b := r.Body; b != nil {
		opt.Open = b.Open
		opt.Rotate = b.RotateSecret != nil && *b.RotateSecret
		if b.Initiators != nil {
			opt.Initiators = *b.Initiators
		}
	}
	c, err := s.opt.Control.Publish(ctx, r.VDisk, opt)
	if err != nil {
		return nil, err
	}
	t := s.targetOf(c.VDisk, 0)
	return PublishVDisk200JSONResponse{
		VDisk: c.VDisk.Name, IQN: t.IQN, LUN: c.LUN, Portals: t.Portals, Open: t.Open, Initiators: t.ACL,
		ChapUser: t.ChapUser, ChapSecret: c.CHAPSecret,
		Commands: ConnectCommands{Libiscsi: c.Commands.Libiscsi, Iscsiadm: c.Commands.Iscsiadm, Esxi: c.Commands.ESXi, Windows: c.Commands.Windows},
	}, nil
}

// UnpublishVDisk withdraws a vDisk.
func (s *Server) UnpublishVDisk(ctx context.Context, r UnpublishVDiskRequestObject) (UnpublishVDiskResponseObject, error) {
	force := r.Body != nil && r.Body.Force != nil && *r.Body.Force
	if err := s.opt.Control.Unpublish(ctx, r.VDisk, force); err != nil {
		return nil, err
	}
	return UnpublishVDisk204Response{}, nil
}

// ListTargets lists targets by name.
func (s *Server) ListTargets(_ context.Context, r ListTargetsRequestObject) (ListTargetsResponseObject, error) {
	sessions := s.sessionCounts()
	var rows []Target
	for _, v := range s.opt.Model.VDisks(func(v model.VDisk) bool { return v.Target != nil && matches(r.Params.Q, v.IQN, v.Labels) }) {
		rows = append(rows, s.targetOf(v, sessions[v.IQN]))
	}
	items, next, err := page(rows, func(t Target) model.Keys { return model.Keys{Text: t.IQN} }, "iqn", false, r.Params.Cursor, r.Params.Limit)
	return ListTargets200JSONResponse{items, next}, err
}

// GetTarget shows a target.
func (s *Server) GetTarget(_ context.Context, r GetTargetRequestObject) (GetTargetResponseObject, error) {
	v, err := s.opt.Control.FindTarget(r.IQN)
	if err != nil {
		return nil, err
	}
	return GetTarget200JSONResponse(s.targetOf(v, s.sessionCounts()[v.IQN])), nil
}

// AddTargetInitiator puts an initiator on a target's ACL.
func (s *Server) AddTargetInitiator(ctx context.Context, r AddTargetInitiatorRequestObject) (AddTargetInitiatorResponseObject, error) {
	v, err := s.opt.Control.AddInitiator(ctx, r.IQN, r.Initiator)
	if err != nil {
		return nil, err
	}
	return AddTargetInitiator200JSONResponse(s.targetOf(v, s.sessionCounts()[v.IQN])), nil
}

// RemoveTargetInitiator takes an initiator off a target's ACL.
func (s *Server) RemoveTargetInitiator(ctx context.Context, r RemoveTargetInitiatorRequestObject) (RemoveTargetInitiatorResponseObject, error) {
	if _, err := s.opt.Control.RemoveInitiator(ctx, r.IQN, r.Initiator); err != nil {
		return nil, err
	}
	return RemoveTargetInitiator204Response{}, nil
}

func iscsiSessionOf(i iscsi.SessionInfo) ISCSISession {
	// A session has one connection: MaxConnections is negotiated to 1.
	return ISCSISession{ID: i.ID, Target: i.Target, Initiator: i.Initiator, Address: i.Remote, Portal: i.Local, Connections: 1, Since: i.Since.UTC()}
}

// ListISCSISessions lists sessions, oldest first.
func (s *Server) ListISCSISessions(_ context.Context, r ListISCSISessionsRequestObject) (ListISCSISessionsResponseObject, error) {
	var rows []ISCSISession
	for _, i := range s.opt.Control.Sessions() {
		if (r.Params.Target == nil || *r.Params.Target == i.Target) && (matches(r.Params.Q, i.Initiator, nil) || matches(r.Params.Q, i.Target, nil)) {
			rows = append(rows, iscsiSessionOf(i))
		}
	}
	keys := func(v ISCSISession) model.Keys { return model.Keys{Number: unix(v.Since), ID: v.ID} }
	items, next, err := page(rows, keys, "since", false, r.Params.Cursor, r.Params.Limit)
	return ListISCSISessions200JSONResponse{items, next}, err
}

// DropISCSISession ends a session.
func (s *Server) DropISCSISession(_ context.Context, r DropISCSISessionRequestObject) (DropISCSISessionResponseObject, error) {
	if err := s.opt.Control.DropSession(r.Session); err != nil {
		return nil, err
	}
	return DropISCSISession204Response{}, nil
}

// ListPortals lists the portals.
func (s *Server) ListPortals(context.Context, ListPortalsRequestObject) (ListPortalsResponseObject, error) {
	return ListPortals200JSONResponse{Items: slices.Clone(s.portals())}, nil
}
