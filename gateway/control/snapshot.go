package control

import (
	"context"
	"errors"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// engineDisk returns what the engine needs to work on a vDisk that may be closed.
func (c *Controller) engineDisk(rec model.VDisk) (Pool, volume.ID, error) {
	id, err := volume.ParseID(rec.ID)
	if err != nil {
		return nil, id, err
	}
	ep, err := c.attached(rec.VPool)
	return ep, id, err
}

// CreateSnapshot makes a snapshot of a running vDisk; it is durable on return.
func (c *Controller) CreateSnapshot(ctx context.Context, name string, in volume.SnapshotSpec) (volume.Snapshot, error) {
	var out volume.Snapshot
	err := c.withDisk(ctx, name, func(ctx context.Context, d *vdisk, rec model.VDisk) error {
		object := vdiskObject(rec.Name)
		if e := checkSnapshot(object, in); e != nil {
			return e
		}
		vol, e := c.running(d, rec)
		if e != nil {
			return e
		}
		var err error
		out, err = vol.Snapshot(ctx, in)
		if errors.Is(err, volume.ErrExists) {
			if hidden, _ := c.unfinished(ctx, rec.ID, in.Name); hidden {
				return nameGoes(object, in.Name, err)
			}
			return &Error{Code: CodeExists, Field: "name", Object: object, Message: "it has a snapshot " + clip(in.Name), Hint: "choose another name, or delete that one", Err: err}
		}
		if err == nil {
			c.log.Info("snapshot made", "vdisk", rec.Name, "id", rec.ID, "snapshot", out.Name, "seq", out.Seq)
			if !in.Automatic { // there are hundreds of thousands a day
				c.tell(event.SnapshotCreated, vdiskObject(rec.Name), "snapshot", out.Name)
			}
		}
		return err
	})
	return out, err
}

func checkSnapshot(object string, in volume.SnapshotSpec) *Error {
	if err := volume.CheckSnapshot(volume.SnapshotSpec{Name: in.Name}); err != nil {
		return invalid("name", object, "use 1 to 255 bytes of UTF-8 without control characters", "%q is not a name of a snapshot", clip(in.Name))
	}
	if err := volume.CheckSnapshot(in); err != nil {
		return invalid("labels", object, "use at most 4 KiB of UTF-8 for all labels together", "these labels of snapshot %q are not possible", clip(in.Name))
	}
	return nil
}

// Snapshots returns the snapshots of a vDisk, oldest first. Of one that is not
// open those are known that are on the backend. Those of a group snapshot that is not whole yet
// are none.
func (c *Controller) Snapshots(ctx context.Context, name string) ([]volume.Snapshot, error) {
	rec, err := c.FindVDisk(name)
	if err != nil {
		return nil, err
	}
	ep, id, err := c.engineDisk(rec)
	var all []volume.Snapshot
	if err == nil {
		all, err = ep.Snapshots(ctx, id)
	}
	if err != nil {
		return nil, explain(vdiskObject(rec.Name), err)
	}
	return c.whole(ctx, all), nil
}

// DeleteSnapshot deletes a snapshot by name or id; an absent one is no error, a
// sticky one needs force.
func (c *Controller) DeleteSnapshot(ctx context.Context, name, snapshot string, force bool) error {
	if hidden, err := c.unfinished(ctx, name, snapshot); err != nil || hidden {
		return err
	}
	rec, err := c.deleteSnapshot(ctx, name, snapshot, force)
	if err == nil {
		c.tell(event.SnapshotDeleted, vdiskObject(rec.Name), "snapshot", clip(snapshot))
	}
	return err
}

// deleteSnapshot is DeleteSnapshot for those that go by themselves.
func (c *Controller) deleteSnapshot(ctx context.Context, name, snapshot string, force bool) (of model.VDisk, _ error) {
	err := c.withDisk(ctx, name, func(ctx context.Context, d *vdisk, rec model.VDisk) error {
		of = rec
		if d.vol != nil {
			if _, e := c.running(d, rec); e != nil {
				return e // another opening's
			}
		}
		ep, id, err := c.engineDisk(rec)
		if err != nil {
			return err
		}
		err = ep.DeleteSnapshot(ctx, id, snapshot, force)
		if errors.Is(err, volume.ErrInUse) {
			return &Error{Code: CodeInUse, Field: "force", Object: vdiskObject(rec.Name), Message: "snapshot " + clip(snapshot) + " is sticky", Hint: "delete it with --force if it is to go", Err: err}
		}
		if err == nil {
			c.log.Info("snapshot deleted", "vdisk", rec.Name, "id", rec.ID, "snapshot", clip(snapshot))
		}
		return err
	})
	return of, err
}
