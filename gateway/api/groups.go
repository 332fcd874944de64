package api

import (
	"context"

	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
)

func lunMaps(in *[]LUNMap) *[]model.LUNMap {
	if in == nil {
		return nil
	}
	out := []model.LUNMap{}
	for _, m := range *in {
		out = append(out, model.LUNMap{LUN: number(m.LUN), Number: number(m.Number), ReadOnly: m.ReadOnly})
	}
	return &out
}

func (s *Server) groupResult(r control.GroupResult) GroupResult {
	g := groupOf(r.Group)
	if info, ok := s.opt.Control.TargetInfo(r.Target.IQN); ok {
		for _, i := range info.Groups {
			if i.Name == g.Name {
				g.Sessions = i.Sessions
			}
		}
	}
	return GroupResult{
		Target: r.Target.IQN, Group: g, ChapSecret: r.Drawn.Secret, MutualSecret: r.Drawn.MutualSecret, Notes: append([]string{}, r.Notes...),
	}
}

// CreateTargetGroup adds a group to a target.
func (s *Server) CreateTargetGroup(ctx context.Context, r CreateTargetGroupRequestObject) (CreateTargetGroupResponseObject, error) {
	b := r.Body
	out, err := s.opt.Control.CreateGroup(ctx, r.IQN, b.Name, control.GroupChange{
		Any: b.Any, Initiators: b.Initiators, ReadOnly: b.ReadOnly, LUNs: lunMaps(b.LUNs), CHAP: b.Chap, User: b.ChapUser, Secret: b.ChapSecret,
		Mutual: b.Mutual, MutualUser: b.MutualUser, MutualSecret: b.MutualSecret,
	})
	if err != nil {
		return nil, err
	}
	return CreateTargetGroup201JSONResponse(s.groupResult(out)), nil
}

// UpdateTargetGroup changes a group of a target.
func (s *Server) UpdateTargetGroup(ctx context.Context, r UpdateTargetGroupRequestObject) (UpdateTargetGroupResponseObject, error) {
	b := r.Body
	out, err := s.opt.Control.UpdateGroup(ctx, r.IQN, r.Group, control.GroupChange{
		Any: b.Any, Initiators: b.Initiators, Add: value(b.AddInitiators), Remove: value(b.RemoveInitiators), ReadOnly: b.ReadOnly,
		Masked: b.Masked, LUNs: lunMaps(b.LUNs), CHAP: b.Chap, User: b.ChapUser, Secret: b.ChapSecret,
		Mutual: b.Mutual, MutualUser: b.MutualUser, MutualSecret: b.MutualSecret, Rotate: value(b.RotateSecret),
	})
	if err != nil {
		return nil, err
	}
	return UpdateTargetGroup200JSONResponse(s.groupResult(out)), nil
}

// DeleteTargetGroup takes a group off a target.
func (s *Server) DeleteTargetGroup(ctx context.Context, r DeleteTargetGroupRequestObject) (DeleteTargetGroupResponseObject, error) {
	if err := s.opt.Control.DeleteGroup(ctx, r.IQN, r.Group, value(r.Params.Force)); err != nil {
		return nil, err
	}
	return DeleteTargetGroup204Response{}, nil
}
