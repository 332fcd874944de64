package control

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// purgeWait bounds how long an attach finishes old deletions: the vPool's vDisks
// wait for it. What is left is finished at the next attach.
const purgeWait = 30 * time.Second

// purge finishes the deletion of vDisks that were deleted before their clones.
func (c *Controller) purge(ctx context.Context, ep Pool, rec model.VPool) {
	ctx, cancel := context.WithTimeout(ctx, purgeWait)
	defer cancel()
	if err := ep.Purge(ctx); err != nil {
		c.log.Warn("space of deleted vDisks is given back later", "vpool", rec.Name, "err", err)
	}
}

// Clone is what a clone is made from.
type Clone struct {
	Name   string
	From   volume.Point // snapshot, moment, or now
	Size   *int64       // bytes; nil: the source's at that point
	Labels map[string]string
}

// CloneVDisk makes a vDisk that starts from a point of another one, in the same
// vPool, and opens it. Nothing is copied.
func (c *Controller) CloneVDisk(ctx context.Context, source string, in Clone) (model.VDisk, error) {
	var out model.VDisk
	err := c.withDisk(ctx, source, func(ctx context.Context, d *vdisk, src model.VDisk) error {
		rec, err := c.checkClone(ctx, d, src, in)
		if err == nil {
			out, err = c.makeDisk(ctx, rec)
		}
		return pointError(src, in.From, err)
	})
	return out, err
}

// checkClone refuses what cannot become a clone and returns its record without id.
func (c *Controller) checkClone(ctx context.Context, d *vdisk, src model.VDisk, in Clone) (model.VDisk, error) {
	if e := checkPoint(src, in.From); e != nil {
		return src, e
	}
	if src.Move != nil {
		return src, &Error{Code: CodeInUse, Object: vdiskObject(src.Name), Message: "it is being moved to another vPool", Hint: "clone it when it is there, or stop the move: ovgate vdisk move " + src.Name + " --cancel"}
	}
	if d.vol != nil {
		if _, e := c.running(d, src); e != nil {
			return src, e // what it holds now, another opening knows
		}
	}
	least := src.Size
	if in.From.Snapshot != "" {
		snap, err := c.findSnapshot(ctx, src, in.From.Snapshot)
		if err != nil {
			return src, err
		}
		least = snap.Size
	}
	size := least
	if in.Size != nil {
		size = *in.Size
	}
	rec, e := c.checkNewDisk(NewDisk{Name: in.Name, VPool: src.VPool, Size: size, ClusterSize: int64(src.ClusterSize), Labels: in.Labels})
	if e != nil {
		return rec, e
	}
	if size < least {
		return rec, invalid("size", vdiskObject(rec.Name), "leave the size out, or use a larger one", "a size of %d bytes is below the %d bytes of %s there", size, least, src.Name)
	}
	rec.Parent = &model.Parent{VDisk: src.ID, Snapshot: in.From.Snapshot, At: in.From.At}
	return rec, nil
}

// checkPoint refuses a point that says two things.
func checkPoint(rec model.VDisk, p volume.Point) *Error {
	if p.Snapshot != "" && !p.At.IsZero() {
		return invalid("pointAt", vdiskObject(rec.Name), "give one of them", "a snapshot and a time are two points")
	}
	return nil
}

// findSnapshot returns a snapshot by name or id.
func (c *Controller) findSnapshot(ctx context.Context, rec model.VDisk, name string) (volume.Snapshot, error) {
	all, err := c.Snapshots(ctx, rec.ID)
	if err != nil {
		return volume.Snapshot{}, err
	}
	i := slices.IndexFunc(all, func(s volume.Snapshot) bool { return s.Name == name || s.ID.String() == name })
	if i < 0 {
		return volume.Snapshot{}, noSnapshot(rec, name)
	}
	return all[i], nil
}

func noSnapshot(rec model.VDisk, name string) *Error {
	return &Error{Code: CodeNotFound, Field: "snapshot", Object: vdiskObject(rec.Name), Message: "it has no snapshot " + clip(name), Hint: "ovgate snapshot list " + rec.Name + " shows them"}
}

// pointError names the field of a point that is not there.
func pointError(rec model.VDisk, p volume.Point, err error) error {
	switch {
	case !errors.Is(err, volume.ErrNoPoint):
		return err
	case p.Snapshot != "":
		return noSnapshot(rec, p.Snapshot)
	}
	return &Error{Code: CodeNotFound, Field: "pointAt", Object: vdiskObject(rec.Name), Message: p.At.UTC().Format(time.RFC3339Nano) + " is outside its history", Hint: "ovgate vdisk history " + rec.Name + " shows how far it goes", Err: err}
}

// createClone has the engine make the clone that rec says; a second time does no
// harm.
func (c *Controller) createClone(ctx context.Context, ep Pool, id volume.ID, rec *model.VDisk) error {
	source, err := volume.ParseID(rec.Parent.VDisk)
	if err != nil {
		return err
	}
	return ep.Clone(ctx, volume.CloneSpec{
		ID: id, Name: rec.Name, Labels: rec.Labels, Size: rec.Size, Source: source,
		From: volume.Point{Snapshot: rec.Parent.Snapshot, At: rec.Parent.At},
	})
}

// lostSource tells whether a clone whose creation was cut off can no more be made.
func lostSource(rec model.VDisk, err error) bool {
	return rec.Parent != nil && (errors.Is(err, volume.ErrNotFound) || errors.Is(err, volume.ErrNoPoint) || errors.Is(err, volume.ErrInvalid))
}
