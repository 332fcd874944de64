package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe/event"
)

// A vDisk in the trash is closed and keeps its id, objects, snapshots and iSCSI name;
// its name is free. The engine knows nothing of the trash: to it the vDisk is closed.

const (
	// trashEvery is how often the trash is looked through.
	trashEvery = time.Minute
	// maxClockJump is how far the wall clock may move against the monotonic one before
	// nothing is taken out of the trash any more.
	maxClockJump = time.Minute
)

func inTrash(rec model.VDisk) *Error {
	return &Error{Code: CodeNotFound, Object: vdiskObject(rec.Name), Message: "it is in the trash", Hint: "ovgate trash restore " + rec.ID}
}

// stored returns what a vDisk takes on the backend; 0 if it is not open.
func stored(d *vdisk) int64 {
	if d.vol == nil {
		return 0
	}
	return d.vol.Stats().StoredBytes
}

// hasTrash reports whether a vDisk that is deleted now is kept. One whose creation did
// not finish is not: nobody has it.
func (c *Controller) hasTrash(rec model.VDisk) bool {
	pool, ok := c.model.VPool(rec.VPool)
	return ok && pool.Settings.TrashTime() > 0 && rec.State == model.StatePresent
}

// PurgeAt returns when a vDisk in the trash is deleted for good.
func (c *Controller) PurgeAt(rec model.VDisk) time.Time {
	pool, _ := c.model.VPool(rec.VPool)
	return rec.Trashed.Add(pool.Settings.TrashTime())
}

// Trash returns the vDisks in the trash, in no particular order.
func (c *Controller) Trash() []model.VDisk {
	return c.model.VDisks(func(v model.VDisk) bool { return v.State == model.StateTrashed })
}

// FindTrashed returns a vDisk in the trash by id, by name or by "vpool/name". A name
// that several have is refused.
func (c *Controller) FindTrashed(ref string) (model.VDisk, error) {
	return c.FindTrashedAmong(ref, func(string) bool { return true })
}

// FindTrashedAmong is FindTrashed where there are no vPools but those, by id, for which seen
// holds.
func (c *Controller) FindTrashedAmong(ref string, seen func(vpool string) bool) (model.VDisk, error) {
	if v, ok := c.model.VDisk(ref); ok && v.State == model.StateTrashed && seen(v.VPool) {
		return v, nil
	}
	var found []model.VDisk
	for _, v := range c.Trash() {
		if !seen(v.VPool) {
			continue
		}
		pool, _ := c.model.VPool(v.VPool)
		if v.Name == ref || v.Name == trimPool(pool.Name, ref) {
			found = append(found, v)
		}
	}
	switch len(found) {
	case 0:
		return model.VDisk{}, &Error{Code: CodeNotFound, Object: vdiskObject(clip(ref)), Message: "it is not in the trash", Hint: "ovgate trash list"}
	case 1:
		return found[0], nil
	}
	return model.VDisk{}, invalid("vdisk", vdiskObject(clip(ref)), "use the id; ovgate trash list shows them", "the trash has %d vDisks of this name", len(found))
}

// withTrashed runs fn on a vDisk in the trash, with its lock held.
func (c *Controller) withTrashed(ctx context.Context, ref string, fn func(context.Context, *vdisk, model.VDisk) error) error {
	ctx, done, err := c.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	rec, err := c.FindTrashed(ref)
	if err != nil {
		return err
	}
	d := c.vdisk(rec.ID)
	if err := d.lock.acquire(ctx); err != nil {
		return explain(vdiskObject(rec.Name), err)
	}
	defer d.lock.release()
	if rec, err = c.FindTrashed(rec.ID); err != nil {
		return err
	}
	if e := c.served(rec); e != nil {
		return e
	}
	if err := fn(ctx, d, rec); err != nil {
		return explain(vdiskObject(rec.Name), err)
	}
	c.opt.Changed("vdisk", rec.ID)
	return nil
}

// errNotTrashed: somebody else was quicker.
var errNotTrashed = errors.New("it is not in the trash any more")

// RestoreVDisk takes a vDisk out of the trash, under its name or another one, and opens
// it.
func (c *Controller) RestoreVDisk(ctx context.Context, key string, name *string) (model.VDisk, error) {
	var out model.VDisk
	err := c.withTrashed(ctx, key, func(ctx context.Context, d *vdisk, rec model.VDisk) error {
		as := rec.Name
		if name != nil {
			if e := checkName("vdisk", *name); e != nil {
				return e
			}
			as = *name
		}
		pool, ok := c.model.VPool(rec.VPool)
		if !ok || pool.State == model.StateDeleting {
			return noVPool(clip(rec.VPool), "vpool")
		}
		taken := &Error{Code: CodeExists, Field: "name", Object: vdiskObject(as), Message: "vpool " + pool.Name + " has a vDisk of this name", Hint: "give another one with --name"}
		if _, have := c.model.VDiskByName(pool.ID, as); have {
			return taken
		}
		if e := c.checkProvisioned(pool, vdiskObject(as), rec.Size); e != nil {
			return e
		}
		was := rec.Name
		rec, err := c.model.UpdateVDisk(ctx, rec.ID, func(v *model.VDisk) error {
			if v.State != model.StateTrashed {
				return errNotTrashed
			}
			v.State, v.Trashed, v.Stored, v.Name = model.StatePresent, time.Time{}, 0, as
			return nil
		})
		if errors.Is(err, model.ErrExists) {
			return taken
		}
		if err != nil {
			return err
		}
		c.log.Info("vDisk restored from the trash", "vdisk", rec.Name, "id", rec.ID)
		c.tell(event.VDiskRestored, vdiskObject(as))
		err = c.open(ctx, d, rec)
		if err == nil && as != was && d.vol != nil {
			err = d.vol.SetLabels(ctx, as, rec.Labels)
		}
		if err != nil {
			c.log.Warn("restored vDisk not yet what it should be", "vdisk", rec.Name, "err", err)
			c.schedule(ref{"vdisk", rec.ID}, retryMin)
		}
		if now, ok := c.model.VDisk(rec.ID); ok {
			rec = now
		}
		out = rec
		return nil
	})
	return out, err
}

// PurgeVDisk deletes a vDisk in the trash for good; an absent one is no error.
func (c *Controller) PurgeVDisk(ctx context.Context, ref string) error {
	err := c.withTrashed(ctx, ref, func(ctx context.Context, d *vdisk, rec model.VDisk) error {
		wait, cancel := context.WithTimeout(ctx, deleteWait)
		defer cancel()
		return c.purgeTrashed(wait, d, rec)
	})
	var e *Error
	if errors.As(err, &e) && e.Code == CodeNotFound {
		return nil
	}
	return err
}

// purgeTrashed decides that a vDisk in the trash goes, and begins with it; d.lock is
// held.
func (c *Controller) purgeTrashed(ctx context.Context, d *vdisk, rec model.VDisk) error {
	rec, err := c.model.UpdateVDisk(ctx, rec.ID, func(v *model.VDisk) error {
		if v.State != model.StateTrashed {
			return errNotTrashed
		}
		v.State = model.StateDeleting
		return nil
	})
	if err != nil {
		return err
	}
	c.log.Info("vDisk taken out of the trash for good", "vdisk", rec.Name, "id", rec.ID)
	if err := c.resumeDelete(ctx, d, rec); err != nil {
		c.log.Warn("space of a deleted vDisk is given back later", "vdisk", rec.Name, "id", rec.ID, "err", err)
		c.schedule(ref{"vdisk", rec.ID}, retryMin)
	}
	return nil
}

// visitTrashed closes a vDisk in the trash, and deletes it when its time has come.
func (c *Controller) visitTrashed(ctx context.Context, d *vdisk, rec model.VDisk) error {
	if err := c.endVerify(ctx, rec.ID); err != nil {
		return err
	}
	if err := c.closeVolume(ctx, d); err != nil {
		c.log.Info("vDisk in the trash did not close orderly; its journal has what was acknowledged", "vdisk", rec.Name, "id", rec.ID, "err", err)
	}
	if err := c.dropLeft(ctx, rec.ID); err != nil {
		return err
	}
	if c.expired(rec) {
		return c.purgeTrashed(ctx, d, rec)
	}
	return nil
}

// expired reports whether a vDisk was long enough in the trash. With the wall clock in
// doubt none was.
func (c *Controller) expired(rec model.VDisk) bool {
	now := c.clock.Now()
	jump := now.Round(0).Sub(c.started.Round(0)) - now.Sub(c.started)
	return jump.Abs() <= maxClockJump && now.After(c.PurgeAt(rec))
}

// watchTrash has what was long enough in the trash deleted, until Stop.
func (c *Controller) watchTrash() {
	c.every(0, trashEvery, func() {
		for _, v := range c.Trash() {
			if c.mine(v) && c.expired(v) {
				c.schedule(ref{"vdisk", v.ID}, 0)
			}
		}
	})
}

// checkProvisioned refuses more bytes of vDisks than the vPool's over-subscription
// allows. A backend that does not say how large it is has no bound.
func (c *Controller) checkProvisioned(pool model.VPool, object string, more int64) *Error {
	limit, total := pool.Settings.Oversubscription, c.PoolStatus(pool.ID).Usage.Total
	if limit == 0 || total <= 0 {
		return nil
	}
	have := int64(0)
	for _, v := range c.model.VDisks(func(v model.VDisk) bool { return v.VPool == pool.ID }) {
		if v.State != model.StateDeleting && v.State != model.StateTrashed {
			have += v.Size
		}
	}
	most := float64(total) / 100 * float64(limit)
	if float64(have)+float64(more) <= most {
		return nil
	}
	return &Error{Code: CodeNoSpace, Field: "size", Object: object,
		Message: fmt.Sprintf("vpool %s would have vDisks of %d bytes; its over-subscription of %d %% allows %.0f", pool.Name, have+more, limit, most),
		Hint:    "add space, delete vDisks, or raise it: ovgate vpool set " + pool.Name + " --oversubscription PERCENT"}
}
