package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

const (
	// defaultLUN is the number of the one logical unit of a vDisk's target.
	defaultLUN = 0
	// maxInitiators bounds a target's ACL: the front end scans it at login.
	maxInitiators = 256
)

// PublishOptions say how a vDisk is published.
type PublishOptions struct {
	Open       *bool    // admit any initiator name; nil: as it is, at first false
	Initiators []string // added to the ACL; who is not on it is admitted only by Open
	Rotate     bool     // draw a new CHAP secret
}

// Connection is how initiators reach a published vDisk.
type Connection struct {
	VDisk      model.VDisk
	LUN        int
	Portals    []iscsi.Portal
	CHAPSecret string
	Commands   Commands
}

// Publish publishes a vDisk, or changes how it is published; a repetition
// answers the same.
func (c *Controller) Publish(ctx context.Context, name string, opt PublishOptions) (Connection, error) {
	var conn Connection
	err := c.withDisk(ctx, name, func(ctx context.Context, d *vdisk, rec model.VDisk) error {
		if _, e := c.running(d, rec); e != nil && (rec.Target == nil || fenced(d.vol)) {
			return e
		}
		target, secret, err := c.planTarget(rec, opt)
		if err != nil {
			return err
		}
		iqn, err := c.pickIQN(rec)
		if err != nil {
			return err
		}
		was := rec
		rec, err = c.model.UpdateVDisk(ctx, rec.ID, func(v *model.VDisk) error {
			v.IQN, v.Target = iqn, target
			return nil
		})
		if err != nil {
			return err
		}
		if err := c.show(d, rec); err != nil {
			_, uerr := c.model.UpdateVDisk(context.WithoutCancel(ctx), rec.ID, func(v *model.VDisk) error {
				v.Target = was.Target
				return nil
			})
			return errors.Join(err, uerr)
		}
		if was.Target == nil {
			c.log.Info("vDisk published", "vdisk", rec.Name, "iqn", rec.IQN, "open", target.Open)
		}
		conn = Connection{VDisk: rec, LUN: defaultLUN, Portals: c.opt.Portals, CHAPSecret: secret}
		conn.Commands = makeCommands(rec.IQN, defaultLUN, c.opt.Portals, target.CHAPUser, secret)
		return nil
	})
	return conn, err
}

// planTarget works out the publication that is asked for, and its plain secret.
func (c *Controller) planTarget(rec model.VDisk, opt PublishOptions) (*model.Target, string, error) {
	t := model.Target{Created: c.clock.Now().UTC()}
	if rec.Target != nil {
		t = *rec.Target
	}
	if opt.Open != nil {
		t.Open = *opt.Open
	}
	for _, n := range opt.Initiators {
		if err := addInitiator(&t, rec, n); err != nil {
			return nil, "", err
		}
	}
	if t.CHAPSecret != nil && !opt.Rotate {
		secret, err := c.opt.Sealer.Open(rec.ID, t.CHAPSecret)
		return &t, secret, err
	}
	secret, err := newSecret(c.opt.Rand)
	if err != nil {
		return nil, "", err
	}
	if t.CHAPUser == "" {
		t.CHAPUser = iqnPart(rec.Name)
	}
	t.CHAPSecret, err = c.opt.Sealer.Seal(rec.ID, secret)
	return &t, secret, err
}

func addInitiator(t *model.Target, rec model.VDisk, name string) *Error {
	if err := iscsi.CheckName(name); err != nil {
		return invalid("initiators", vdiskObject(rec.Name), "use a name such as iqn.2026-01.com.example:host1", "%q is not an iSCSI name", clip(name))
	}
	name = iscsi.NormalizeName(name)
	if slices.Contains(t.Initiators, name) {
		return nil
	}
	if len(t.Initiators) >= maxInitiators {
		return invalid("initiators", vdiskObject(rec.Name), "remove names that are not used", "the ACL has %d names, which is the most", len(t.Initiators))
	}
	t.Initiators = append(t.Initiators, name)
	return nil
}

// Alphabets of CHAP secrets. 16 characters is what Windows takes at most, 12
// what it takes at least. Letters and digits need no quoting in any shell or
// URL. The first is no hexadecimal digit, because "user%secret" in a libiscsi
// URL would otherwise look like a percent escape; ambiguous signs are left out.
const (
	secretLength = 16
	secretFirst  = "ghjkmnpqrstuvwxyzGHJKLMNPQRSTUVWXYZ"
	secretRest   = "23456789abcdefghjkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ"
)

// newSecret draws a CHAP secret of more than 90 bits.
func newSecret(random io.Reader) (string, error) {
	out := make([]byte, 0, secretLength)
	var b [1]byte
	for len(out) < secretLength {
		set := secretRest
		if len(out) == 0 {
			set = secretFirst
		}
		if _, err := io.ReadFull(random, b[:]); err != nil {
			return "", fmt.Errorf("draw a CHAP secret: %w", err)
		}
		// Values above the last whole multiple of the set would favour its
		// first characters.
		if n := len(set); int(b[0]) < 256/n*n {
			out = append(out, set[int(b[0])%n])
		}
	}
	return string(out), nil
}

// pickIQN returns the vDisk's name on iSCSI: the one it has (C4), else a free one.
func (c *Controller) pickIQN(rec model.VDisk) (string, error) {
	if rec.IQN != "" {
		return rec.IQN, nil
	}
	pool, ok := c.model.VPool(rec.VPool)
	if !ok {
		return "", noVPool(rec.VPool, "")
	}
	for _, suffix := range []string{"", rec.ID[:8], rec.ID} {
		iqn := makeIQN(pool.Name, rec.Name, suffix)
		if _, taken := c.model.VDiskByIQN(iqn); !taken && iscsi.CheckName(iqn) == nil {
			return iqn, nil
		}
	}
	return "", &Error{Code: CodeExists, Object: vdiskObject(rec.Name), Message: "no iSCSI name is free for it", Hint: "rename the vDisk"}
}

// spec is the front end's view of a published vDisk.
func (c *Controller) spec(d *vdisk, rec model.VDisk) (iscsi.TargetSpec, error) {
	id, err := volume.ParseID(rec.ID)
	if err != nil {
		return iscsi.TargetSpec{}, err
	}
	t := rec.Target
	s := iscsi.TargetSpec{
		Name: rec.IQN, Alias: rec.Name, Portals: c.opt.Portals,
		LUNs: []iscsi.LUNSpec{{Number: defaultLUN, Disk: d.disk, Serial: strings.ReplaceAll(rec.ID, "-", ""), NAA: makeNAA(id)}},
	}
	secret, err := c.opt.Sealer.Open(rec.ID, t.CHAPSecret)
	if err != nil {
		return s, &Error{Code: CodeInternal, Object: vdiskObject(rec.Name), Message: err.Error(), Hint: "bring back seal.key, or publish again with a new secret", Err: err}
	}
	s.Groups = []iscsi.Group{{
		Name: "default", Any: t.Open, Initiators: t.Initiators, Auth: &iscsi.Auth{User: t.CHAPUser, Secret: secret},
	}}
	return s, nil
}

// show makes the front end agree with a published record; d.lock is held. A
// vDisk that is not open has no target yet (C6): its opening adds it. A fenced one
// has none (C8).
func (c *Controller) show(d *vdisk, rec model.VDisk) error {
	if d.vol == nil || fenced(d.vol) {
		return nil
	}
	if !d.exported {
		return c.export(d, rec)
	}
	s, err := c.spec(d, rec)
	if err != nil {
		return err
	}
	return c.opt.Frontend.UpdateTarget(s)
}

// export adds the target of an open vDisk; d.lock is held.
func (c *Controller) export(d *vdisk, rec model.VDisk) error {
	s, err := c.spec(d, rec)
	if err != nil {
		return err
	}
	if err := c.opt.Frontend.AddTarget(s); err != nil {
		return err
	}
	c.mu.Lock()
	d.exported = true
	c.mu.Unlock()
	return nil
}

// Unpublish withdraws a vDisk; one that is not published is no error. With
// sessions on it, it is refused unless force drops them.
func (c *Controller) Unpublish(ctx context.Context, name string, force bool) error {
	return c.withDisk(ctx, name, func(ctx context.Context, d *vdisk, rec model.VDisk) error {
		if rec.Target == nil {
			return nil
		}
		if d.exported {
			if err := c.withdraw(d, rec, force); err != nil {
				return err
			}
		}
		_, err := c.model.UpdateVDisk(ctx, rec.ID, func(v *model.VDisk) error { v.Target = nil; return nil })
		if err != nil {
			// Still published by the record: back into the front end.
			return errors.Join(err, c.show(d, rec))
		}
		c.log.Info("vDisk unpublished", "vdisk", rec.Name, "iqn", rec.IQN)
		return nil
	})
}

// withdraw takes a target out of the front end; d.lock is held.
func (c *Controller) withdraw(d *vdisk, rec model.VDisk, force bool) error {
	err := c.opt.Frontend.RemoveTarget(rec.IQN, force)
	var busy *iscsi.TargetBusyError
	if errors.As(err, &busy) {
		names := make([]string, 0, len(busy.Sessions))
		for _, s := range busy.Sessions {
			names = append(names, s.Initiator)
		}
		slices.Sort(names)
		names = slices.Compact(names)
		return &Error{Code: CodeInUse, Object: vdiskObject(rec.Name), Message: "initiators are signed in: " + clip(strings.Join(names, ", ")), Hint: "sign them out first, or use force", Err: err}
	}
	if err != nil && !errors.Is(err, iscsi.ErrNoTarget) {
		return err
	}
	c.mu.Lock()
	d.exported = false
	c.mu.Unlock()
	return nil
}

// FindTarget returns the vDisk that is published under an IQN.
func (c *Controller) FindTarget(iqn string) (model.VDisk, error) {
	v, ok := c.model.VDiskByIQN(iscsi.NormalizeName(iqn))
	if !ok || v.Target == nil {
		return v, &Error{Code: CodeNotFound, Object: "target " + clip(iqn), Message: "there is no such target", Hint: "ovgate target list shows the targets"}
	}
	return v, nil
}

// AddInitiator puts an initiator on a target's ACL; there already is no error.
func (c *Controller) AddInitiator(ctx context.Context, iqn, initiator string) (model.VDisk, error) {
	return c.changeACL(ctx, iqn, func(t *model.Target, rec model.VDisk) error {
		if e := addInitiator(t, rec, initiator); e != nil {
			e.Field = "initiator"
			return e
		}
		return nil
	})
}

// RemoveInitiator takes an initiator off a target's ACL, and its sessions go
// unless the target is open; absent is no error.
func (c *Controller) RemoveInitiator(ctx context.Context, iqn, initiator string) (model.VDisk, error) {
	return c.changeACL(ctx, iqn, func(t *model.Target, rec model.VDisk) error {
		name := iscsi.NormalizeName(initiator)
		t.Initiators = slices.DeleteFunc(t.Initiators, func(n string) bool { return n == name })
		return nil
	})
}

func (c *Controller) changeACL(ctx context.Context, iqn string, fn func(*model.Target, model.VDisk) error) (model.VDisk, error) {
	v, err := c.FindTarget(iqn)
	if err != nil {
		return v, err
	}
	err = c.withDisk(ctx, v.ID, func(ctx context.Context, d *vdisk, rec model.VDisk) error {
		if rec.Target == nil {
			_, err := c.FindTarget(iqn)
			return err
		}
		was := rec.Target
		out, err := c.model.UpdateVDisk(ctx, rec.ID, func(r *model.VDisk) error { return fn(r.Target, *r) })
		if err != nil {
			return err
		}
		v = out
		if err := c.show(d, out); err != nil {
			_, uerr := c.model.UpdateVDisk(context.WithoutCancel(ctx), rec.ID, func(r *model.VDisk) error { r.Target = was; return nil })
			return errors.Join(err, uerr)
		}
		return nil
	})
	return v, err
}

// Sessions returns the iSCSI sessions, oldest first.
func (c *Controller) Sessions() []iscsi.SessionInfo { return c.opt.Frontend.Sessions() }

// DropSession ends an iSCSI session; an absent one is no error.
func (c *Controller) DropSession(id string) error {
	if err := c.opt.Frontend.DropSession(id); err != nil && !errors.Is(err, iscsi.ErrNoSession) {
		return err
	}
	return nil
}

// Portals returns the portals as initiators should use them.
func (c *Controller) Portals() []iscsi.Portal { return slices.Clone(c.opt.Portals) }
