package api

import (
	"context"

	"github.com/openvstorage/ovgate/gateway/model"
)

// handover is nil for a vDisk that is not on its way to another node.
func (d diskView) handover(v model.VDisk) *Handover {
	to, failed, ok := d.s.opt.Control.HandingOver(v)
	if !ok {
		return nil
	}
	return &Handover{Node: d.s.opt.Control.NodeName(to), Failed: failed}
}

// HandOverVDisk gives a vDisk to another node.
func (s *Server) HandOverVDisk(ctx context.Context, r HandOverVDiskRequestObject) (HandOverVDiskResponseObject, error) {
	v, err := s.opt.Control.HandOver(ctx, r.VDisk, r.Body.Node)
	if err != nil {
		return nil, err
	}
	return HandOverVDisk202JSONResponse(s.diskView(ctx).row(v)), nil
}

// CancelVDiskHandover stops that.
func (s *Server) CancelVDiskHandover(ctx context.Context, r CancelVDiskHandoverRequestObject) (CancelVDiskHandoverResponseObject, error) {
	if _, err := s.opt.Control.CancelHandOver(ctx, r.VDisk); err != nil {
		return nil, err
	}
	return CancelVDiskHandover204Response{}, nil
}

// StealVDisk takes a vDisk over from a node that is down.
func (s *Server) StealVDisk(ctx context.Context, r StealVDiskRequestObject) (StealVDiskResponseObject, error) {
	v, err := s.opt.Control.StealVDisk(ctx, r.VDisk, value(r.Body.AcceptLoss))
	if err != nil {
		return nil, err
	}
	return StealVDisk200JSONResponse(s.diskView(ctx).row(v)), nil
}

// Rebalance spreads the vDisks over the nodes.
func (s *Server) Rebalance(ctx context.Context, r RebalanceRequestObject) (RebalanceResponseObject, error) {
	plan, err := s.opt.Control.Rebalance(ctx, value(r.Body.DryRun))
	if err != nil {
		return nil, err
	}
	out := Rebalance200JSONResponse{Items: []Handoff{}}
	for _, h := range plan {
		out.Items = append(out.Items, Handoff{VDisk: h.VDisk.Name, From: s.opt.Control.NodeName(h.From), To: s.opt.Control.NodeName(h.To)})
	}
	return out, nil
}

// DrainNode has a node hand over all its vDisks.
func (s *Server) DrainNode(ctx context.Context, r DrainNodeRequestObject) (DrainNodeResponseObject, error) {
	n, err := s.opt.Control.DrainNode(ctx, r.Node, true)
	if err != nil {
		return nil, err
	}
	return DrainNode202JSONResponse(s.memberOf(n, s.memberLook(ctx), s.vdisksByNode(s.sight(ctx))[n.ID])), nil
}

// EndNodeDrain lets a node have vDisks again.
func (s *Server) EndNodeDrain(ctx context.Context, r EndNodeDrainRequestObject) (EndNodeDrainResponseObject, error) {
	if _, err := s.opt.Control.DrainNode(ctx, r.Node, false); err != nil {
		return nil, err
	}
	return EndNodeDrain204Response{}, nil
}
