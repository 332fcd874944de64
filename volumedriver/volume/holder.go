package volume

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Hold tells where what a vDisk consists of is, beside the backend.
type Hold struct {
	// Owner is the node that has it open, or had when it ended; empty: it was closed in order.
	Owner string
	// Clean: all of it is on the backend. Any node opens it and lacks nothing.
	Clean bool
	// Copy is the node that has a whole copy of what is not there: it opens it and lacks
	// nothing. Empty: none.
	Copy string
	// Used is when the copy was last asked for something, if it is here; else zero. A copy
	// that was there when this node started counts as used then.
	Used time.Time
}

// Holder tells where what a vDisk consists of is, as the registry knows it.
func (h *Host) Holder(ctx context.Context, id ID) (Hold, error) {
	rec, err := h.o.Registry.Load(ctx, id)
	if err != nil {
		return Hold{}, err
	}
	out := rec.hold()
	if h.dtl != nil && out.Copy == h.o.Node {
		out.Used = h.dtl.server.Used(id)
	}
	return out, nil
}

// hold is what the record alone tells.
func (r Record) hold() Hold {
	out := Hold{Owner: r.Owner, Clean: r.Owner == "" && len(r.Opens) == 0 && r.Head.Number > 0 && r.State == FlagNone}
	if r.State == FlagNone && r.DTL.State == DTLOK && !r.DTL.Async {
		out.Copy = r.DTL.Peer
	}
	return out
}

// Holds tells of all vDisks that the registry knows what Holder tells of one, but for Used.
func (h *Host) Holds(ctx context.Context) (map[ID]Hold, error) {
	out := map[ID]Hold{}
	err := h.o.Registry.List(ctx, "", func(r Record) error {
		out[r.ID] = r.hold()
		return nil
	})
	return out, err
}

// Forsake gives up what this node has of a vDisk that another node opened since: its journal,
// when a head of the newer opening is committed, which covers it, or never will. Until then
// nothing changes, and done is false.
func (p *Pool) Forsake(ctx context.Context, id ID) (done bool, err error) {
	end, err := p.begin(ctx, id)
	if err != nil {
		return false, err
	}
	defer end()
	h := p.host
	if p.Volume(id) != nil {
		return false, fmt.Errorf("vdisk %s: %w: it is open here", id, ErrInUse)
	}
	rec, err := h.o.Registry.Load(ctx, id)
	switch {
	case errors.Is(err, ErrNotFound): // deleted
	case err != nil:
		return false, err
	case rec.Owner == h.o.Node:
		return false, nil
	case rec.Owner == "" && len(rec.Opens) == 0 && rec.State == FlagNone: // closed in order
	case h.writeDiskOf(rec.Journal) != nil, rec.Head.Epoch != rec.Epoch:
		return false, nil
	}
	if h.dtl != nil && h.dtl.server.Has(id) {
		return true, nil // a copy of what the owner writes now
	}
	for _, d := range h.disks {
		if d.pool == nil {
			return false, nil // it is looked at when it is back
		}
		if err := d.pool.Erase(id); err != nil {
			return false, fmt.Errorf("vdisk %s: WRITE disk %s: %w", id, d.name, err)
		}
	}
	h.forgetCacheUser(id)
	if err := removeTree(h.o.FS, stateDir(id)); err != nil {
		return false, fmt.Errorf("vdisk %s: %w", id, err)
	}
	return true, nil
}
