package api

import (
	"context"

	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
)

// dtlInherit stands for the mode of the vPool.
const dtlInherit = "inherit"

func (s *Server) dtlOf(v model.VDisk, st control.DiskStatus) VDiskDtl {
	d := s.opt.Control.DTLStatus(v, st)
	out := VDiskDtl{
		Mode: DtlMode(d.Mode), Inherited: d.Inherited, Peer: d.Peer, State: DtlState(d.Stats.State), Node: d.Node, Reason: d.Stats.Err,
		LagBytes: d.Stats.Unanswered, LagMs: d.Stats.Lag.Milliseconds(), Catchup: seq(d.Stats.Catchup), CaughtUp: seq(d.Stats.CaughtUp),
	}
	if !d.Stats.Since.IsZero() {
		since := d.Stats.Since.UTC()
		out.Since = &since
	}
	return out
}

// SetVDiskDtl says where and how the journal of a vDisk is mirrored.
func (s *Server) SetVDiskDtl(ctx context.Context, r SetVDiskDtlRequestObject) (SetVDiskDtlResponseObject, error) {
	in := control.DTLPatch{Peer: r.Body.Peer}
	if m := r.Body.Mode; m != nil {
		if in.Mode = new(model.DTLMode(*m)); *m == dtlInherit {
			*in.Mode = ""
		} else if *m == "" {
			return nil, refuseField("mode", "use inherit, off, async or sync", "the mode is empty")
		}
	}
	v, err := s.opt.Control.SetDTL(ctx, r.VDisk, in)
	if err != nil {
		return nil, err
	}
	return SetVDiskDtl200JSONResponse(s.diskView(ctx).row(v)), nil
}
