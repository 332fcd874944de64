package control

import (
	"context"
	"slices"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// History returns the moments that a vDisk can be taken back to or cloned from.
func (c *Controller) History(ctx context.Context, name string, q volume.HistoryQuery) (volume.History, error) {
	rec, err := c.FindVDisk(name)
	if err != nil {
		return volume.History{}, err
	}
	ep, id, err := c.engineDisk(rec)
	var h volume.History
	if err == nil {
		h, err = ep.History(ctx, id, q)
	}
	if err != nil {
		return h, explain(vdiskObject(rec.Name), err)
	}
	return h, nil
}

// Rollback takes a vDisk back to a snapshot or moment. While initiators see it,
// it is refused unless force is set: then they lose it, and find it again when it
// is open.
func (c *Controller) Rollback(ctx context.Context, name string, to volume.Point, force bool) (model.VDisk, volume.Rolled, error) {
	var out model.VDisk
	var rolled volume.Rolled
	err := c.withDisk(ctx, name, func(ctx context.Context, d *vdisk, rec model.VDisk) error {
		out = rec
		if err := c.underDatastore(rec); err != nil {
			return err
		}
		if err := c.checkRollback(ctx, d, rec, to); err != nil {
			return err
		}
		ep, id, err := c.engineDisk(rec)
		if err != nil {
			return err
		}
		if d.exported {
			if err := c.withdraw(d, rec, force); err != nil {
				return err
			}
		}
		if err = c.closeVolume(ctx, d); err == nil {
			rolled, err = ep.Rollback(ctx, id, to)
		}
		if oerr := c.open(ctx, d, rec); oerr != nil {
			c.log.Warn("vDisk not open again yet", "vdisk", rec.Name, "id", rec.ID, "err", oerr)
			c.schedule(ref{"vdisk", rec.ID}, retryMin)
		}
		if err == nil {
			c.log.Info("vDisk rolled back", "vdisk", rec.Name, "id", rec.ID, "time", rolled.To.Time, "seq", rolled.To.Seq, "snapshotsDeleted", len(rolled.Deleted))
			c.tell(event.VDiskRolledBack, vdiskObject(rec.Name), "time", rolled.To.Time.UTC().Format(time.RFC3339))
		}
		return pointError(rec, to, err)
	})
	return out, rolled, err
}

// checkRollback refuses what the engine would refuse, before initiators notice;
// only a clone of a newer point is left to the engine.
func (c *Controller) checkRollback(ctx context.Context, d *vdisk, rec model.VDisk, to volume.Point) error {
	if e := checkPoint(rec, to); e != nil {
		return e
	}
	if to == (volume.Point{}) {
		return invalid("snapshot", vdiskObject(rec.Name), "give a snapshot or a time", "it is not said where to roll it back to")
	}
	if d.vol != nil || rec.Template {
		if _, e := c.running(d, rec); e != nil {
			return e
		}
	}
	newer := func(s volume.Snapshot) bool { return s.Time.After(to.At) }
	if to.Snapshot != "" {
		snap, err := c.findSnapshot(ctx, rec, to.Snapshot)
		if err != nil {
			return err
		}
		newer = func(s volume.Snapshot) bool { return s.Seq > snap.Seq }
	} else if err := c.checkMoment(ctx, rec, to); err != nil {
		return err
	}
	all, err := c.Snapshots(ctx, rec.ID)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(s volume.Snapshot) bool { return s.Sticky && newer(s) })
	if i < 0 {
		return nil
	}
	return &Error{Code: CodeInUse, Object: vdiskObject(rec.Name), Message: "snapshot " + clip(all[i].Name) + " is newer and sticky", Hint: "delete it first: ovgate snapshot delete --force"}
}

// HistoryKept is how far back scrubs keep the moments of a vDisk, 0: not at all, and
// whether its vPool says so.
func (c *Controller) HistoryKept(v model.VDisk) (kept time.Duration, inherited bool) {
	if v.History != nil {
		return *v.History, false
	}
	pool, _ := c.model.VPool(v.VPool)
	return pool.Settings.History, true
}

// historyOf is what a vDisk says about its history, for the engine, which asks at each
// scrub: a change takes effect at once. False: as its vPool says.
func (c *Controller) historyOf(id volume.ID) (time.Duration, bool) {
	v, ok := c.model.VDisk(id.String())
	if !ok || v.History == nil {
		return 0, false
	}
	return *v.History, true
}

// SetHistory says how far back scrubs keep the moments of a vDisk, 0: not at all; nil: as
// its vPool says. What a scrub took already does not come back.
func (c *Controller) SetHistory(ctx context.Context, name string, keep *time.Duration) (model.VDisk, error) {
	var out model.VDisk
	err := c.withDisk(ctx, name, func(ctx context.Context, _ *vdisk, rec model.VDisk) error {
		if keep != nil {
			if e := checkHistory("keepMs", vdiskObject(rec.Name), *keep); e != nil {
				return e
			}
		}
		var err error
		out, err = c.model.UpdateVDisk(ctx, rec.ID, func(v *model.VDisk) error {
			v.History = keep
			return nil
		})
		if err == nil {
			kept, inherited := c.HistoryKept(out)
			c.log.Info("history of a vDisk set", "vdisk", rec.Name, "id", rec.ID, "keep", kept, "inherited", inherited)
		}
		return err
	})
	return out, err
}

func checkHistory(field, object string, h time.Duration) *Error {
	if h != 0 && (h < minHistory || h > maxHistory) {
		return invalid(field, object, "use 1 minute to 366 days, or 0 for none", "a history of %s is not possible", h)
	}
	return nil
}

// checkMoment refuses a time outside a vDisk's history.
func (c *Controller) checkMoment(ctx context.Context, rec model.VDisk, to volume.Point) error {
	h, err := c.History(ctx, rec.ID, volume.HistoryQuery{Limit: 1})
	if err == nil && (to.At.Before(h.From) || to.At.After(later(h.To, c.clock.Now()))) {
		err = pointError(rec, to, volume.ErrNoPoint)
	}
	return err
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
