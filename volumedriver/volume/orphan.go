package volume

import (
	"context"
	"errors"
	"time"

	"github.com/openvstorage/ovgate/volumedriver/dtl"
)

const (
	// orphansEvery is how often the copies that are here are looked at.
	orphansEvery = time.Minute
	// orphanAge is how long a copy that the registry does not name is kept while its opening
	// may go on with it: a copy is not named before it has caught up, which an absent
	// backend keeps from happening. Its owner makes another one if it still wanted it.
	orphanAge = 10 * time.Minute
	// orphanGone is how long the copy of a vDisk is kept that the registry does not know:
	// it may be deleted, or the registry older than the vDisk, restored from a backup.
	orphanGone = 24 * time.Hour
	// orphanWait bounds the question for one, for which the vDisk may wait.
	orphanWait = 2 * time.Second
)

// watchOrphans collects copies whose end did not get here, until the host ends.
func (d *nodeDTL) watchOrphans() {
	t := d.h.o.Clock.NewTimer(orphansEvery)
	defer t.Stop()
	for {
		select {
		case <-d.ctx.Done():
			return
		case <-t.C():
		}
		d.collect(d.ctx)
		t.Reset(orphansEvery)
	}
}

// collect looks at all copies once. Where the registry does not answer they stay.
func (d *nodeDTL) collect(ctx context.Context) {
	log := d.h.o.Log
	for _, c := range d.server.Copies() {
		if c.Adopted {
			continue // settle ends it
		}
		orphan, err := d.orphan(ctx, c)
		if err == nil && orphan { // looked at again with the copy at rest
			ctx, cancel := context.WithTimeout(ctx, orphanWait)
			orphan, err = d.server.Collect(ctx, c.VDisk, d.orphan)
			cancel()
		}
		if err != nil {
			if ctx.Err() == nil {
				log.Warn("copies of other nodes' journals are kept that may not be needed", "vdisk", ID(c.VDisk).String(), "node", c.Node, "err", err)
			}
			return // so it goes for the others
		}
		if orphan {
			log.Info("copy of a journal given up that the registry does not name", "vdisk", ID(c.VDisk).String(), "node", c.Node, "epoch", c.Epoch)
		}
	}
}

// orphan reports whether nobody needs a copy, by what the registry says: it names no other
// place for it that could become this one.
func (d *nodeDTL) orphan(ctx context.Context, c dtl.Copy) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, orphanWait)
	defer cancel()
	rec, err := d.h.o.Registry.Load(ctx, c.VDisk)
	switch {
	case errors.Is(err, ErrNotFound):
		return c.Unused >= orphanGone, nil
	case err != nil:
		return false, err
	case rec.State == FlagDeleting:
		return true, nil
	case rec.DTL.State == DTLOK && rec.DTL.Peer == d.h.o.Node && rec.DTL.Generation == c.Generation:
		return false, nil
	case rec.Epoch > c.Epoch: // a newer opening has all of it, or goes without by somebody's word
		return true, nil
	case rec.Epoch < c.Epoch: // the registry is older than the copy
		return false, nil
	}
	return c.Unused >= orphanAge, nil
}
