package volume

import (
	"context"
	"fmt"
)

// Snapshots returns the snapshots of a vDisk, open or closed, oldest first. Of one
// that is not open here those are known that a committed head covers.
func (p *Pool) Snapshots(ctx context.Context, id ID) ([]Snapshot, error) {
	if v := p.Volume(id); v != nil {
		return v.Snapshots(), nil
	}
	st, _, err := p.stateOf(ctx, id)
	if err != nil {
		return nil, err
	}
	out := make([]Snapshot, len(st.past.Pins))
	for i := range st.past.Pins {
		out[i] = st.past.Pins[i].snapshot(st.head.LastSeq)
	}
	return out, nil
}

// DeleteSnapshot is Volume.DeleteSnapshot for a vDisk that may be closed: then it is
// opened and closed for this, which a template refuses.
func (p *Pool) DeleteSnapshot(ctx context.Context, id ID, name string, force bool) error {
	done, err := p.begin(ctx, id)
	if err != nil {
		return err
	}
	defer done()
	if v := p.Volume(id); v != nil {
		return v.DeleteSnapshot(ctx, name, force)
	}
	v, err := p.openReserved(ctx, id)
	if err != nil {
		return fmt.Errorf("snapshot %q: %w", name, err)
	}
	err = v.DeleteSnapshot(ctx, name, force)
	if cerr := v.Close(ctx); err == nil {
		err = cerr
	}
	return err
}
