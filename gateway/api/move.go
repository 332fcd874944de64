package api

import (
	"context"

	"github.com/openvstorage/ovgate/gateway/auth"
	"github.com/openvstorage/ovgate/gateway/model"
)

// move is nil for a vDisk that is not being moved.
func (d diskView) move(v model.VDisk) *MoveProgress {
	p, ok := d.s.opt.Control.Moving(v)
	if !ok {
		return nil
	}
	to := d.pools[p.To]
	if !d.seen.vpool(p.To) {
		to = ""
	}
	return &MoveProgress{VPool: to, Copied: p.Copied, Total: p.Total, Failed: p.Failed}
}

// MoveVDisk starts a move.
func (s *Server) MoveVDisk(ctx context.Context, r MoveVDiskRequestObject) (MoveVDiskResponseObject, error) {
	to, err := s.poolFor(ctx, r.Body.VPool, "vpool", auth.RoleWrite)
	if err != nil {
		return nil, err
	}
	v, err := s.opt.Control.MoveVDisk(ctx, r.VDisk, to)
	if err != nil {
		return nil, err
	}
	return MoveVDisk202JSONResponse(s.diskView(ctx).row(v)), nil
}

// CancelMoveVDisk stops one.
func (s *Server) CancelMoveVDisk(ctx context.Context, r CancelMoveVDiskRequestObject) (CancelMoveVDiskResponseObject, error) {
	if _, err := s.opt.Control.CancelMove(ctx, r.VDisk); err != nil {
		return nil, err
	}
	return CancelMoveVDisk204Response{}, nil
}
