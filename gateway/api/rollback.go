package api

import (
	"context"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

func momentOf(m volume.Moment) Moment {
	return Moment{PointAt: m.Time.UTC(), Seq: seq(m.Seq), Snapshot: m.Snapshot}
}

func (s *Server) historyPolicy(v model.VDisk) HistoryPolicy {
	keep, inherited := s.opt.Control.HistoryKept(v)
	return HistoryPolicy{KeepMs: keep.Milliseconds(), Inherited: inherited}
}

// SetVDiskHistory says how far back the moments of a vDisk are kept.
func (s *Server) SetVDiskHistory(ctx context.Context, r SetVDiskHistoryRequestObject) (SetVDiskHistoryResponseObject, error) {
	v, err := s.opt.Control.SetHistory(ctx, r.VDisk, millis(r.Body.KeepMs))
	if err != nil {
		return nil, err
	}
	return SetVDiskHistory200JSONResponse(s.diskView(ctx).row(v)), nil
}

// GetVDiskHistory lists recoverable moments.
func (s *Server) GetVDiskHistory(ctx context.Context, r GetVDiskHistoryRequestObject) (GetVDiskHistoryResponseObject, error) {
	if err := s.askOwner(ctx, r.VDisk); err != nil {
		return nil, err
	}
	h, err := s.opt.Control.History(ctx, r.VDisk, volume.HistoryQuery{From: value(r.Params.From), To: value(r.Params.To)})
	if err != nil {
		return nil, err
	}
	out := GetVDiskHistory200JSONResponse{Since: h.From.UTC(), UntilAt: h.To.UTC(), Moments: []Moment{}, More: h.More}
	for _, m := range h.Moments {
		out.Moments = append(out.Moments, momentOf(m))
	}
	return out, nil
}

// RollbackVDisk takes a vDisk back.
func (s *Server) RollbackVDisk(ctx context.Context, r RollbackVDiskRequestObject) (RollbackVDiskResponseObject, error) {
	v, done, err := s.opt.Control.Rollback(ctx, r.VDisk, pointOf(r.Body.Snapshot, r.Body.PointAt), value(r.Body.Force))
	if err != nil {
		return nil, err
	}
	out := RollbackVDisk200JSONResponse{VDisk: v.Name, To: momentOf(done.To), UndoAt: done.Undo.UTC(), Deleted: []string{}}
	for _, d := range done.Deleted {
		out.Deleted = append(out.Deleted, d.Name)
	}
	return out, nil
}
