package control

import (
	"context"
	"errors"

	"github.com/openvstorage/ovgate/gateway/model"
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
		var creds Credentials
		var err error
		if opt.Target != "" {
			rec, err = c.publishShared(ctx, d, rec, opt)
		} else {
			rec, creds, err = c.publishOwn(ctx, d, rec, opt)
		}
		if err != nil {
			return err
		}
		conn = c.connection(rec, creds)
		return nil
	})
	return conn, err
}

// connection describes how a vDisk is reached.
func (c *Controller) connection(rec model.VDisk, creds Credentials) Connection {
	conn := Connection{VDisk: rec, Credentials: creds}
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
// own target are dropped, and those on a shared one are told that it is gone.
func (c *Controller) Unpublish(ctx context.Context, name string, force bool) error {
	return c.withDisk(ctx, name, func(ctx context.Context, d *vdisk, rec model.VDisk) error {
		if !rec.Published() {
			return nil
		}
		iqn, lun, _ := c.Placed(rec)
		if d.exported {
			if err := c.withdraw(ctx, d, rec, force); err != nil {
				return err
			}
		}
		err := c.forgetMaps(ctx, rec)
		if err == nil {
			_, err = c.model.UpdateVDisk(ctx, rec.ID, func(v *model.VDisk) error { v.Target, v.Shared = nil, nil; return nil })
		}
		if err != nil {
			// Still published by the record: back into the front end.
			return errors.Join(err, c.show(ctx, d, rec))
		}
		c.log.Info("vDisk unpublished", "vdisk", rec.Name, "iqn", iqn, "lun", lun)
		return nil
	})
}
