package control

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/iscsi"
)

// PublishOptions say how a vDisk is published: as LUN 0 of its own target, whose
// group default the first options are about, or in a shared target.
type PublishOptions struct {
	Open       *bool    // admit any initiator name; nil: as it is, at first false
	Initiators []string // added to the group; who is in none is admitted only by Open
	Rotate     bool     // draw new CHAP secrets
	Mutual     bool     // the target proves itself too

	Target string  // name or iSCSI name of a shared target; empty: its own
	LUN    *uint16 // number in it; nil: the lowest that is free

	BlockSize int // 512 or 4096; 0: as it is, at first 512
}

// Connection is how initiators reach a published vDisk.
type Connection struct {
	VDisk       model.VDisk
	Target      Target
	LUN         uint16
	Portals     []iscsi.Portal
	Credentials Credentials // of the group default of its own target
	Commands    Commands
}

// Publish publishes a vDisk, or changes how it is published; a repetition
// answers the same.
func (c *Controller) Publish(ctx context.Context, name string, opt PublishOptions) (Connection, error) {
	var conn Connection
	err := c.withDisk(ctx, name, func(ctx context.Context, d *vdisk, rec model.VDisk) error {
		if _, e := c.running(d, rec); e != nil && (!rec.Published() || fenced(d.vol)) {
			return e
		}
		if opt.Target == "" && rec.Shared != nil {
			iqn, _, ok := c.Placed(rec)
			if !ok {
				return noTarget(rec.Shared.Target)
			}
			opt.Target = iqn // a repetition
		}
		rec, err := c.setBlockSize(ctx, rec, opt.BlockSize)
		if err != nil {
			return err
		}
		var creds Credentials
		if opt.Target != "" {
			rec, err = c.publishShared(ctx, d, rec, opt)
		} else {
			rec, creds, err = c.publishOwn(ctx, d, rec, opt)
		}
		if err != nil {
			return err
		}
		conn = c.connection(rec, creds)
		c.opt.Changed("target", conn.Target.IQN)
		return nil
	})
	return conn, err
}

// defaultBlock is the logical block size of a vDisk that was given none, in bytes.
const defaultBlock = 512

// BlockSize is the logical block size that initiators see of a vDisk, in bytes.
func BlockSize(v model.VDisk) int {
	if v.BlockSize == 0 {
		return defaultBlock
	}
	return v.BlockSize
}

// setBlockSize records the block size that is asked for. It does not change under
// hosts: they would misread the disk.
func (c *Controller) setBlockSize(ctx context.Context, rec model.VDisk, size int) (model.VDisk, error) {
	have := BlockSize(rec)
	switch {
	case size == 0 || size == have:
		return rec, nil
	case size != defaultBlock && size != 4096:
		return rec, invalid("blockSize", vdiskObject(rec.Name), "use 512 or 4096", "a block size of %d bytes is not possible", size)
	case rec.Published():
		return rec, &Error{Code: CodeInUse, Field: "blockSize", Object: vdiskObject(rec.Name), Message: fmt.Sprintf("it is published with blocks of %d bytes", have), Hint: "unpublish it first; what hosts wrote is not readable with another block size"}
	}
	return c.model.UpdateVDisk(ctx, rec.ID, func(v *model.VDisk) error { v.BlockSize = size; return nil })
}

// givenSecret stands in commands for a secret that somebody gave.
const givenSecret = "SECRET"

// connection describes how a vDisk is reached. Secrets that somebody gave are not
// in it.
func (c *Controller) connection(rec model.VDisk, creds Credentials) Connection {
	conn := Connection{VDisk: rec, Credentials: creds}
	if rec.Target != nil {
		if g := rec.Target.Group(model.DefaultGroup); g != nil && g.GivenCHAP {
			conn.Credentials.Secret, creds.Secret = "", givenSecret
		}
		if g := rec.Target.Group(model.DefaultGroup); g != nil && g.GivenMutual {
			conn.Credentials.MutualSecret, creds.MutualSecret = "", givenSecret
		}
	}
	if rec.Shared != nil {
		t, _ := c.model.Target(rec.Shared.Target)
		conn.Target, conn.LUN = c.sharedTarget(t), rec.Shared.LUN
	} else {
		conn.Target, conn.LUN = ownTarget(rec), ownLUN
	}
	conn.Portals = c.TargetPortals(conn.Target)
	conn.Commands = makeCommands(conn.Target.IQN, int(conn.LUN), conn.Portals, creds)
	return conn
}

func (c *Controller) publishOwn(ctx context.Context, d *vdisk, rec model.VDisk, opt PublishOptions) (model.VDisk, Credentials, error) {
	if opt.LUN != nil && *opt.LUN != ownLUN {
		return rec, Credentials{}, invalid("lun", vdiskObject(rec.Name), "name a shared target to choose the number in it", "it is LUN %d of its own target", ownLUN)
	}
	iqn, err := c.pickIQN(rec)
	if err != nil {
		return rec, Credentials{}, err
	}
	target, creds, err := c.planOwn(rec, iqn, opt)
	if err != nil {
		return rec, creds, err
	}
	was := rec
	rec, err = c.model.UpdateVDisk(ctx, rec.ID, func(v *model.VDisk) error {
		v.IQN, v.Target = iqn, target
		return nil
	})
	if err != nil {
		return rec, creds, err
	}
	if err := c.show(ctx, d, rec); err != nil {
		_, uerr := c.model.UpdateVDisk(context.WithoutCancel(ctx), rec.ID, func(v *model.VDisk) error {
			v.Target = was.Target
			return nil
		})
		return rec, creds, errors.Join(err, uerr)
	}
	if was.Target == nil {
		c.log.Info("vDisk published", "vdisk", rec.Name, "iqn", rec.IQN, "open", target.Group(model.DefaultGroup).Any)
		c.tell(event.VDiskPublished, vdiskObject(rec.Name), "target", rec.IQN, "lun", "0")
	}
	return rec, creds, nil
}

// planOwn works out the publication that is asked for, and the credentials of
// its group default.
func (c *Controller) planOwn(rec model.VDisk, iqn string, opt PublishOptions) (*model.Target, Credentials, error) {
	a := rec.Target.Clone()
	if a == nil {
		a = &model.Target{Created: c.clock.Now().UTC()}
	}
	t := Target{ID: rec.ID, Name: rec.Name, IQN: iqn, LUNs: []TargetLUN{{ownLUN, rec}}}
	g, change := a.Group(model.DefaultGroup), GroupChange{Any: opt.Open, Add: opt.Initiators, Rotate: opt.Rotate}
	if g == nil {
		a.Groups = append(a.Groups, model.Group{Name: model.DefaultGroup})
		g = a.Group(model.DefaultGroup)
		change.CHAP = new(true)
	}
	if opt.Mutual {
		change.Mutual = new(true)
	}
	if opt.Rotate || opt.Mutual {
		change.CHAP = new(true)
	}
	if _, err := c.changeGroup(t, a, g, change); err != nil {
		return nil, Credentials{}, err
	}
	creds, err := c.openCredentials(t, *g)
	return a, creds, err
}

// Unpublish withdraws a vDisk; one that is not published is no error. While
// initiators see it, it is refused unless force is set: then the sessions on its
// own target are dropped, and those on a shared one are told that it is gone. Below a
// datastore it is refused.
func (c *Controller) Unpublish(ctx context.Context, name string, force bool) error {
	return c.withDisk(ctx, name, func(ctx context.Context, d *vdisk, rec model.VDisk) error {
		if !rec.Published() {
			return nil
		}
		if err := c.underDatastore(rec); err != nil {
			return err
		}
		iqn, lun, _ := c.Placed(rec)
		unpublish := c.unpublishOwn
		if rec.Shared != nil {
			unpublish = c.unpublishShared
		}
		if err := unpublish(ctx, d, rec, force); err != nil {
			return err
		}
		c.log.Info("vDisk unpublished", "vdisk", rec.Name, "iqn", iqn, "lun", lun)
		c.tell(event.VDiskUnpublished, vdiskObject(rec.Name), "target", iqn, "lun", strconv.Itoa(int(lun)))
		c.opt.Changed("target", iqn)
		return nil
	})
}

// unpublishOwn takes a vDisk's own target away; d.lock is held.
func (c *Controller) unpublishOwn(ctx context.Context, d *vdisk, rec model.VDisk, force bool) error {
	if d.exported || d.shown != "" {
		if err := c.withdraw(d, rec, force); err != nil {
			return err
		}
	}
	if _, err := c.model.UpdateVDisk(ctx, rec.ID, func(v *model.VDisk) error { v.Target = nil; return nil }); err != nil {
		// Still published by the record: back into the front end.
		return errors.Join(err, c.show(ctx, d, rec))
	}
	return nil
}
