package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

const (
	// maxShared bounds the shared targets: each has a line in every discovery.
	maxShared = 1000
	// maxLUN and maxTargetLUNs are what a target of the front end takes.
	maxLUN        = 16383
	maxTargetLUNs = 1024
)

// shared is the running side of a shared target. A vDisk's lock is taken before
// a shared target's, never after.
type shared struct {
	lock  lock
	known bool   // the front end has it
	iqn   string // with known
}

// withSharedLock runs fn with the lock of a shared target.
func (c *Controller) withSharedLock(ctx context.Context, id string, fn func(*shared) error) error {
	c.mu.Lock()
	s := c.shared[id]
	if s == nil {
		s = &shared{lock: newLock()}
		c.shared[id] = s
	}
	c.mu.Unlock()
	if err := s.lock.acquire(ctx); err != nil {
		return err
	}
	defer s.lock.release()
	return fn(s)
}

// putShared gives a shared target to the front end as it is recorded, with the
// vDisks that are exported; its lock is held.
func (c *Controller) putShared(s *shared, id string) error {
	rec, ok := c.model.Target(id)
	if !ok {
		return noTarget(id)
	}
	err := c.put(c.sharedTarget(rec), s.known)
	if err == nil {
		s.known, s.iqn = true, rec.IQN
	}
	return err
}

// visitTarget gives a shared target that another node made, changed or deleted to the front
// end, or takes it out. It returns its iSCSI name; again: visit it again.
func (c *Controller) visitTarget(ctx context.Context, id string) (iqn string, again bool) {
	err := c.withSharedLock(ctx, id, func(s *shared) error {
		rec, ok := c.model.Target(id)
		if ok {
			iqn = rec.IQN
			return c.putShared(s, id)
		}
		if iqn = s.iqn; !s.known {
			return nil
		}
		if err := c.opt.Frontend.RemoveTarget(iqn, true); err != nil && !errors.Is(err, iscsi.ErrNoTarget) {
			return err
		}
		s.known = false
		return nil
	})
	if err != nil {
		c.log.Warn("target is not as it was changed elsewhere", "id", id, "iqn", iqn, "err", err)
	}
	return iqn, err != nil
}

// startShared gives the shared targets to the front end, with stand-ins: each vDisk
// takes its place when it opens.
func (c *Controller) startShared(ctx context.Context) {
	for _, t := range c.model.Targets() {
		if err := c.withSharedLock(ctx, t.ID, func(s *shared) error { return c.putShared(s, t.ID) }); err != nil {
			c.log.Error("target not served until one of its vDisks opens", "target", t.Name, "iqn", t.IQN, "err", err)
		}
	}
}

// CreateTarget makes a shared target. It admits nobody yet. An empty iqn is made
// from the name. maker is the user who makes it; empty: this node does.
func (c *Controller) CreateTarget(ctx context.Context, name, iqn, maker string) (Target, error) {
	ctx, done, err := c.begin(ctx)
	if err != nil {
		return Target{}, err
	}
	defer done()
	rec, e := c.checkNewTarget(name, iqn)
	if e != nil {
		return Target{}, e
	}
	id, err := volume.NewID(c.opt.Rand)
	if err != nil {
		return Target{}, err
	}
	rec.ID, rec.Maker = id.String(), maker
	err = c.withSharedLock(ctx, rec.ID, func(s *shared) error {
		var err error
		if rec, err = c.model.CreateTarget(ctx, rec); err != nil {
			return err
		}
		if err = c.putShared(s, rec.ID); err != nil {
			return errors.Join(err, c.model.DeleteTarget(context.WithoutCancel(ctx), rec.ID))
		}
		return nil
	})
	if err != nil {
		return Target{}, explain(targetObject(rec.Name), err)
	}
	c.log.Info("target created", "target", rec.Name, "iqn", rec.IQN)
	c.tell(event.TargetCreated, targetObject(rec.IQN), "name", rec.Name)
	c.opt.Changed("target", rec.IQN)
	return c.sharedTarget(rec), nil
}

func (c *Controller) checkNewTarget(name, iqn string) (model.SharedTarget, *Error) {
	rec := model.SharedTarget{Name: name, IQN: iscsi.NormalizeName(iqn), Target: model.Target{Created: c.clock.Now().UTC()}}
	if e := checkName("target", name); e != nil {
		return rec, e
	}
	if _, taken := c.model.TargetByName(name); taken {
		return rec, &Error{Code: CodeExists, Field: "name", Object: targetObject(name), Message: "there is a target of this name", Hint: "choose another name"}
	}
	if n := len(c.model.Targets()); n >= maxShared {
		return rec, invalid("name", targetObject(name), "delete targets that are not used", "there are %d shared targets, which is the most", n)
	}
	if iqn == "" {
		rec.IQN = iqnPrefix + "target-" + iqnPart(name)
	}
	if err := iscsi.CheckName(rec.IQN); err != nil {
		return rec, invalid("iqn", targetObject(name), "use a name such as iqn.2026-01.com.example:cluster", "%q is not an iSCSI name", clip(iqn))
	}
	if !c.iqnFree(rec.IQN) {
		return rec, &Error{Code: CodeExists, Field: "iqn", Object: targetObject(name), Message: rec.IQN + " is the name of another target", Hint: "choose another iSCSI name"}
	}
	return rec, nil
}

// DeleteTarget deletes a shared target; an absent one is no error. It is refused
// while vDisks are placed in it, and with sessions on it unless force drops them.
func (c *Controller) DeleteTarget(ctx context.Context, ref string, force bool) error {
	ctx, done, err := c.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	t, err := c.FindTarget(ref)
	var e *Error
	if errors.As(err, &e) && e.Code == CodeNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	if !t.Shared {
		return &Error{Code: CodeInUse, Object: t.object(), Message: t.IQN + " is the target of this vDisk alone", Hint: "unpublish the vDisk"}
	}
	err = c.withSharedLock(ctx, t.ID, func(s *shared) error { return c.deleteShared(ctx, s, t.ID, force) })
	if err != nil {
		return explain(t.object(), err)
	}
	return nil
}

// deleteShared deletes a shared target whose lock is held.
func (c *Controller) deleteShared(ctx context.Context, s *shared, id string, force bool) error {
	rec, ok := c.model.Target(id)
	if !ok {
		return nil
	}
	if err := c.fresh(ctx); err != nil { // another node may have placed one
		return err
	}
	t := c.sharedTarget(rec)
	if len(t.LUNs) > 0 {
		return &Error{Code: CodeInUse, Object: t.object(), Message: fmt.Sprintf("vDisk %s is its LUN %d", t.LUNs[0].VDisk.Name, t.LUNs[0].Number), Hint: "unpublish its vDisks first"}
	}
	err := c.opt.Frontend.RemoveTarget(t.IQN, force)
	var busy *iscsi.TargetBusyError
	if errors.As(err, &busy) {
		return signedIn(t.object(), busy.Sessions, err)
	}
	if err != nil && !errors.Is(err, iscsi.ErrNoTarget) {
		return err
	}
	s.known = false
	if err := c.model.DeleteTarget(ctx, id); err != nil {
		return errors.Join(err, c.putShared(s, id))
	}
	c.mu.Lock()
	delete(c.shared, id) // who waits for its lock finds no record; the id is not used again
	c.mu.Unlock()
	c.log.Info("target deleted", "target", t.Name, "iqn", t.IQN)
	c.tell(event.TargetDeleted, targetObject(t.IQN))
	c.opt.Changed("target", t.IQN)
	return nil
}

// changeShared is changeTarget for a shared target.
func (c *Controller) changeShared(ctx context.Context, id string, fn func(Target, *model.Target) error) (Target, error) {
	ctx, done, err := c.begin(ctx)
	if err != nil {
		return Target{}, err
	}
	defer done()
	var t Target
	err = c.withSharedLock(ctx, id, func(s *shared) error {
		rec, ok := c.model.Target(id)
		if !ok {
			return noTarget(id)
		}
		t = c.sharedTarget(rec)
		was := *rec.Target.Clone()
		rec, err := c.model.UpdateTarget(ctx, id, func(r *model.SharedTarget) error { return fn(t, &r.Target) })
		if err != nil {
			return err
		}
		t = c.sharedTarget(rec)
		if err := c.putShared(s, id); err != nil {
			_, uerr := c.model.UpdateTarget(context.WithoutCancel(ctx), id, func(r *model.SharedTarget) error { r.Target = was; return nil })
			return errors.Join(err, uerr)
		}
		return nil
	})
	if err != nil {
		return t, explain(t.object(), err)
	}
	return t, nil
}

// publishShared places a vDisk in a shared target; d.lock is held.
func (c *Controller) publishShared(ctx context.Context, d *vdisk, rec model.VDisk, opt PublishOptions) (model.VDisk, error) {
	object := vdiskObject(rec.Name)
	if opt.Open != nil || len(opt.Initiators) > 0 || opt.Rotate || opt.Mutual {
		return rec, invalid("target", object, "use ovgate target group for these", "who may sign in to a shared target is said in its groups")
	}
	t, err := c.FindTarget(opt.Target)
	if err != nil {
		return rec, err
	}
	switch {
	case !t.Shared:
		return rec, invalid("target", object, "make one with ovgate target create", "%s is the target of vDisk %s alone", t.IQN, t.Name)
	case rec.Target != nil:
		return rec, &Error{Code: CodeInUse, Field: "target", Object: object, Message: "it is published as " + rec.IQN, Hint: "unpublish it first"}
	case rec.Shared != nil && (rec.Shared.Target != t.ID || opt.LUN != nil && *opt.LUN != rec.Shared.LUN):
		iqn, lun, _ := c.Placed(rec)
		return rec, &Error{Code: CodeInUse, Field: "target", Object: object, Message: fmt.Sprintf("it is LUN %d of %s", lun, iqn), Hint: "unpublish it first"}
	}
	was := rec
	err = c.withSharedLock(ctx, t.ID, func(s *shared) error {
		if rec.Shared == nil {
			if rec, err = c.placeLUN(ctx, rec, t.ID, opt.LUN); err != nil {
				return err
			}
		}
		exported := d.exported
		if d.vol != nil {
			c.setExported(d, true)
		}
		if err := c.putShared(s, t.ID); err != nil {
			c.setExported(d, exported)
			_, uerr := c.model.UpdateVDisk(context.WithoutCancel(ctx), rec.ID, func(v *model.VDisk) error { v.Shared = was.Shared; return nil })
			return errors.Join(err, uerr)
		}
		return nil
	})
	if err == nil && was.Shared == nil {
		c.log.Info("vDisk published", "vdisk", rec.Name, "iqn", t.IQN, "lun", rec.Shared.LUN)
		c.tell(event.VDiskPublished, vdiskObject(rec.Name), "target", t.IQN, "lun", strconv.Itoa(int(rec.Shared.LUN)))
	}
	return rec, err
}

// placeLUN records a vDisk's number in a shared target, whose lock is held; nil
// takes the lowest that is free.
func (c *Controller) placeLUN(ctx context.Context, rec model.VDisk, id string, want *uint16) (model.VDisk, error) {
	object := vdiskObject(rec.Name)
	st, ok := c.model.Target(id)
	if !ok {
		return rec, noTarget(id)
	}
	t := c.sharedTarget(st)
	if len(t.LUNs) >= maxTargetLUNs {
		return rec, invalid("target", object, "use another target", "target %s has %d LUNs, which is the most", t.Name, len(t.LUNs))
	}
	var n uint16
	if want != nil {
		n = *want
	} else {
		for _, l := range t.LUNs {
			if l.Number == n {
				n++
			}
		}
	}
	if n > maxLUN {
		return rec, invalid("lun", object, fmt.Sprintf("use 0 to %d", maxLUN), "%d is not the number of a LUN", n)
	}
	if other, taken := t.lun(n); taken {
		return rec, &Error{Code: CodeExists, Field: "lun", Object: object, Message: fmt.Sprintf("LUN %d of target %s is vDisk %s", n, t.Name, other.Name), Hint: "choose another number, or none for the lowest that is free"}
	}
	return c.model.UpdateVDisk(ctx, rec.ID, func(v *model.VDisk) error {
		v.Shared = &model.SharedLUN{Target: id, LUN: n, Created: c.clock.Now().UTC()}
		return nil
	})
}

// hideShared takes a fenced vDisk out of its shared target in the front end; d.lock
// is held. The sessions stay, and are told.
func (c *Controller) hideShared(ctx context.Context, d *vdisk, rec model.VDisk) error {
	return c.withSharedLock(ctx, rec.Shared.Target, func(s *shared) error {
		was := d.exported
		c.setExported(d, false)
		if err := c.putShared(s, rec.Shared.Target); err != nil {
			c.setExported(d, was)
			return err
		}
		return nil
	})
}

// unpublishShared takes a vDisk out of a shared target; d.lock is held. The sessions
// stay, and are told. It is refused while initiators see it, unless force is set.
func (c *Controller) unpublishShared(ctx context.Context, d *vdisk, rec model.VDisk, force bool) error {
	id := rec.Shared.Target
	return c.withSharedLock(ctx, id, func(s *shared) error {
		st, ok := c.model.Target(id)
		if !ok { // deleted elsewhere, in the moment in which it was placed there
			_, err := c.model.UpdateVDisk(ctx, rec.ID, func(v *model.VDisk) error { v.Shared = nil; return nil })
			c.setExported(d, false)
			return err
		}
		if shown := c.unit(c.sharedTarget(st), rec) != nil; shown && !force {
			if users := c.viewers(st, rec.Shared.LUN); len(users) > 0 {
				return signedIn(vdiskObject(rec.Name), users, nil)
			}
		}
		if err := c.forgetMaps(ctx, st, rec.Shared.LUN); err != nil {
			return err
		}
		if _, err := c.model.UpdateVDisk(ctx, rec.ID, func(v *model.VDisk) error { v.Shared = nil; return nil }); err != nil {
			return err
		}
		was := d.exported
		c.setExported(d, false)
		if err := c.putShared(s, id); err != nil {
			c.setExported(d, was)
			_, uerr := c.model.UpdateVDisk(context.WithoutCancel(ctx), rec.ID, func(v *model.VDisk) error { v.Shared = rec.Shared; return nil })
			return errors.Join(err, uerr)
		}
		return nil
	})
}

// viewers returns the sessions on a shared target that see one of its LUNs.
func (c *Controller) viewers(t model.SharedTarget, lun uint16) []iscsi.SessionInfo {
	var out []iscsi.SessionInfo
	for _, s := range c.Sessions() {
		if s.Target != t.IQN {
			continue
		}
		g := t.Target.Group(s.Group)
		if g == nil || !g.Masked || slices.ContainsFunc(g.LUNs, func(m model.LUNMap) bool { return m.LUN == lun }) {
			out = append(out, s)
		}
	}
	return out
}

// forgetMaps takes the number of a vDisk that leaves a shared target, whose lock is
// held, out of the groups, so that they do not show what gets the number next.
func (c *Controller) forgetMaps(ctx context.Context, t model.SharedTarget, lun uint16) error {
	maps := func(m model.LUNMap) bool { return m.LUN == lun }
	if !slices.ContainsFunc(t.Target.Groups, func(g model.Group) bool { return slices.ContainsFunc(g.LUNs, maps) }) {
		return nil
	}
	_, err := c.model.UpdateTarget(ctx, t.ID, func(t *model.SharedTarget) error {
		for i := range t.Target.Groups {
			g := &t.Target.Groups[i]
			g.LUNs = slices.DeleteFunc(g.LUNs, maps) // Masked stays
		}
		return nil
	})
	return err
}
