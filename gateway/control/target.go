package control

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// ownLUN is the number of the one logical unit of a vDisk's own target.
const ownLUN = 0

// Target is a target as recorded: a vDisk's own, or a shared one with the vDisks
// that are placed in it.
type Target struct {
	ID      string // of the vDisk or of the shared target; secrets are sealed with it
	Name    string // of the vDisk or of the shared target
	IQN     string
	Shared  bool
	Access  model.Target
	LUNs    []TargetLUN // by number
	Created time.Time
	Maker   string // user who made a shared target; empty: not known
}

// TargetLUN is a vDisk under its number in a target.
type TargetLUN struct {
	Number uint16
	VDisk  model.VDisk
}

func targetObject(name string) string { return "target " + name }

// object is what messages about the target call it.
func (t Target) object() string {
	if t.Shared {
		return targetObject(t.Name)
	}
	return vdiskObject(t.Name)
}

// lun returns the vDisk that has a number.
func (t Target) lun(n uint16) (model.VDisk, bool) {
	for _, l := range t.LUNs {
		if l.Number == n {
			return l.VDisk, true
		}
	}
	return model.VDisk{}, false
}

func ownTarget(v model.VDisk) Target {
	return Target{ID: v.ID, Name: v.Name, IQN: v.IQN, Access: *v.Target.Clone(), LUNs: []TargetLUN{{ownLUN, v}}, Created: v.Target.Created}
}

func (c *Controller) sharedTarget(t model.SharedTarget) Target {
	out := Target{ID: t.ID, Name: t.Name, IQN: t.IQN, Shared: true, Access: t.Target, Created: t.Target.Created, Maker: t.Maker}
	for _, v := range c.model.VDisks(func(v model.VDisk) bool { return v.Shared != nil && v.Shared.Target == t.ID }) {
		out.LUNs = append(out.LUNs, TargetLUN{v.Shared.LUN, v})
	}
	slices.SortFunc(out.LUNs, func(a, b TargetLUN) int { return cmp.Compare(a.Number, b.Number) })
	return out
}

// Targets returns the targets in no particular order: those that vDisks are
// published under, and the shared ones.
func (c *Controller) Targets() []Target {
	var out []Target
	shared := map[string][]TargetLUN{}
	for _, v := range c.model.VDisks(model.VDisk.Published) {
		if v.Target != nil {
			out = append(out, ownTarget(v))
		} else {
			shared[v.Shared.Target] = append(shared[v.Shared.Target], TargetLUN{v.Shared.LUN, v})
		}
	}
	for _, t := range c.model.Targets() {
		luns := shared[t.ID]
		slices.SortFunc(luns, func(a, b TargetLUN) int { return cmp.Compare(a.Number, b.Number) })
		out = append(out, Target{ID: t.ID, Name: t.Name, IQN: t.IQN, Shared: true, Access: t.Target, LUNs: luns, Created: t.Target.Created, Maker: t.Maker})
	}
	return out
}

// FindTarget returns a target by its iSCSI name, or a shared one by its name.
func (c *Controller) FindTarget(ref string) (Target, error) {
	iqn := iscsi.NormalizeName(ref)
	if v, ok := c.model.VDiskByIQN(iqn); ok && v.Target != nil {
		return ownTarget(v), nil
	}
	t, ok := c.model.TargetByIQN(iqn)
	if !ok {
		t, ok = c.model.TargetByName(ref)
	}
	if !ok {
		return Target{}, noTarget(ref)
	}
	return c.sharedTarget(t), nil
}

// FindTargetAmong is FindTarget where there are no targets but those for which seen holds.
func (c *Controller) FindTargetAmong(ref string, seen func(Target) bool) (Target, error) {
	t, err := c.FindTarget(ref)
	if err == nil && !seen(t) {
		return Target{}, noTarget(ref)
	}
	return t, err
}

func noTarget(ref string) *Error {
	return &Error{Code: CodeNotFound, Object: targetObject(clip(ref)), Message: "there is no such target", Hint: "ovgate target list shows the targets"}
}

// Placed returns where a vDisk is published: iSCSI name and LUN.
func (c *Controller) Placed(v model.VDisk) (iqn string, lun uint16, ok bool) {
	if v.Target != nil {
		return v.IQN, ownLUN, true
	}
	if v.Shared != nil {
		if t, ok := c.model.Target(v.Shared.Target); ok {
			return t.IQN, v.Shared.LUN, true
		}
	}
	return "", 0, false
}

// TargetInfo returns the running side of a target; ok is false while the front
// end does not have it.
func (c *Controller) TargetInfo(iqn string) (iscsi.TargetInfo, bool) {
	i, err := c.opt.Frontend.Target(iqn)
	return i, err == nil
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
		if iqn := makeIQN(pool.Name, rec.Name, suffix); c.iqnFree(iqn) && iscsi.CheckName(iqn) == nil {
			return iqn, nil
		}
	}
	return "", &Error{Code: CodeExists, Object: vdiskObject(rec.Name), Message: "no iSCSI name is free for it", Hint: "rename the vDisk"}
}

// iqnFree tells whether no vDisk and no shared target has an iSCSI name.
func (c *Controller) iqnFree(iqn string) bool {
	_, disk := c.model.VDiskByIQN(iqn)
	_, shared := c.model.TargetByIQN(iqn)
	return !disk && !shared
}

// unit returns what initiators are shown of a vDisk in a target, nil: nothing. Its
// own target waits until it is open (C6). In a shared one a stand-in keeps the number
// of a vDisk that is not open yet, or not any more, so that the others are served and
// initiators wait for it instead of losing a disk; but not of one that another node serves
// (C8).
func (c *Controller) unit(t Target, v model.VDisk) iscsi.Disk {
	c.mu.Lock()
	d := c.disks[v.ID]
	if d != nil && d.exported && d.disk != nil { // closed, it is exported until takeOut
		defer c.mu.Unlock()
		return d.disk
	}
	c.mu.Unlock()
	if c.opt.Paths && v.State == model.StatePresent {
		return c.standIn(v)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !c.mine(v):
		return nil
	case t.Shared && (d == nil || d.vol == nil && d.state != volume.StateFenced):
		return away{v.ID, v.Size, v.ClusterSize}
	}
	return nil
}

// away stands for a vDisk that is not open: it has its size, and is busy. Reads,
// writes and reservations alike are to be tried again.
type away struct {
	vdisk   string // tells one from another: the front end compares disks
	size    int64
	cluster int
}

// Geometry implements iscsi.Disk.
func (a away) Geometry() iscsi.Geometry { return iscsi.Geometry{Size: a.size, ClusterSize: a.cluster} }

// Reservation implements iscsi.Reserver: what is kept is not known yet, and
// nothing is kept here.
func (a away) Reservation() []byte { return nil }

// Submit implements iscsi.Disk.
func (a away) Submit(op *iscsi.Op) {
	op.Err = iscsi.ErrBusy
	op.Done.Complete(op)
}

// spec is the front end's view of a target.
func (c *Controller) spec(t Target) (iscsi.TargetSpec, error) {
	s := iscsi.TargetSpec{Name: t.IQN, Alias: t.Name, Portals: c.targetPortals(t), Redirect: c.redirect(t)}
	present := map[uint16]bool{}
	for _, l := range t.LUNs {
		disk := c.unit(t, l.VDisk)
		if disk == nil {
			continue
		}
		id, err := volume.ParseID(l.VDisk.ID)
		if err != nil {
			return s, err
		}
		s.LUNs = append(s.LUNs, iscsi.LUNSpec{
			Number: l.Number, Disk: disk, Serial: strings.ReplaceAll(l.VDisk.ID, "-", ""), NAA: makeNAA(id),
			BlockSize: BlockSize(l.VDisk), QoS: qosOf(l.VDisk), Owner: c.ownerGroups(l.VDisk), Clustered: c.opt.Paths,
		})
		present[l.Number] = true
	}
	for _, g := range t.Access.Groups {
		spec, err := c.groupSpec(t, g, present)
		if err != nil {
			return s, err
		}
		s.Groups = append(s.Groups, spec)
	}
	return s, nil
}

// groupSpec is the front end's view of a group of a target with these LUNs. Of
// a group whose secrets do not open, nobody gets in until it has new ones.
func (c *Controller) groupSpec(t Target, g model.Group, present map[uint16]bool) (iscsi.Group, error) {
	out := iscsi.Group{Name: g.Name, Any: g.Any, Initiators: g.Initiators, Masked: g.Masked || g.ReadOnly}
	for _, m := range seenLUNs(g, present) {
		out.LUNs = append(out.LUNs, iscsi.LUNMap{Number: m.Number, LUN: m.LUN, ReadOnly: m.ReadOnly || g.ReadOnly})
	}
	if g.CHAPUser == "" {
		return out, nil
	}
	creds, err := c.openCredentials(t, g)
	if err != nil {
		c.log.Error("nobody gets in by this group: its CHAP secret does not open; bring back seal.key, or give it a new secret",
			"target", t.IQN, "group", g.Name, "err", err)
		if creds.Secret, err = newSecret(c.opt.Rand); err != nil {
			return out, err
		}
		creds.MutualUser, creds.MutualSecret = "", ""
	}
	out.Auth = &iscsi.Auth{User: g.CHAPUser, Secret: creds.Secret, MutualUser: creds.MutualUser, MutualSecret: creds.MutualSecret}
	return out, nil
}

// seenLUNs returns what a group maps of the LUNs that are there; nothing for a
// group that sees them all as they are.
func seenLUNs(g model.Group, present map[uint16]bool) []model.LUNMap {
	var out []model.LUNMap
	switch {
	case g.Masked:
		for _, m := range g.LUNs {
			if present[m.LUN] {
				out = append(out, m)
			}
		}
	case g.ReadOnly:
		for n := range present {
			out = append(out, model.LUNMap{LUN: n, Number: n})
		}
	}
	return out
}

func (c *Controller) setExported(d *vdisk, v bool) {
	c.mu.Lock()
	d.exported = v
	c.mu.Unlock()
}

// show makes the front end agree with a published record; d.lock is held. A
// vDisk that is not open is not shown yet (C6): its opening adds it. Nor is a
// fenced one (C8).
func (c *Controller) show(ctx context.Context, d *vdisk, rec model.VDisk) error {
	if d.vol == nil || fenced(d.vol) || !rec.Published() {
		return nil
	}
	was := d.exported
	c.setExported(d, true)
	defer func() {
		if c.opt.Paths {
			c.opt.Moved() // what waited for it goes on
		}
	}()
	var err error
	if rec.Shared != nil {
		err = c.withSharedLock(ctx, rec.Shared.Target, func(s *shared) error { return c.putShared(s, rec.Shared.Target) })
	} else {
		err = c.putOwn(d, rec)
	}
	if err != nil {
		c.setExported(d, was)
	}
	return err
}

// put gives a target to the front end, which has it already when known is set.
func (c *Controller) put(t Target, known bool) error {
	s, err := c.spec(t)
	if err != nil {
		return err
	}
	if known {
		return c.opt.Frontend.UpdateTarget(s)
	}
	return c.opt.Frontend.AddTarget(s)
}

// withdraw takes a vDisk's own target out of the front end; d.lock is held. Unless
// force is set, it is refused while initiators are signed in.
func (c *Controller) withdraw(d *vdisk, rec model.VDisk, force bool) error {
	err := c.opt.Frontend.RemoveTarget(rec.IQN, force)
	if err == nil {
		c.setShown(d, "")
	}
	var busy *iscsi.TargetBusyError
	if errors.As(err, &busy) {
		return signedIn(vdiskObject(rec.Name), busy.Sessions, err)
	}
	if err != nil && !errors.Is(err, iscsi.ErrNoTarget) {
		return err
	}
	c.setExported(d, false)
	return nil
}

// signedIn refuses because of sessions.
func signedIn(object string, sessions []iscsi.SessionInfo, err error) *Error {
	names := make([]string, 0, len(sessions))
	for _, s := range sessions {
		names = append(names, s.Initiator)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	return &Error{Code: CodeInUse, Object: object, Message: "initiators are signed in: " + clip(strings.Join(names, ", ")), Hint: "sign them out first, or use force", Err: err}
}

// changeTarget changes who gets in to a target and where: in the record, then in
// the front end; taken back when that refuses.
func (c *Controller) changeTarget(ctx context.Context, ref string, fn func(t Target, a *model.Target) error) (Target, error) {
	t, err := c.FindTarget(ref)
	if err != nil {
		return t, err
	}
	defer c.opt.Changed("target", t.IQN)
	if t.Shared {
		return c.changeShared(ctx, t.ID, fn)
	}
	err = c.withDisk(ctx, t.ID, func(ctx context.Context, d *vdisk, rec model.VDisk) error {
		if rec.Target == nil {
			return noTarget(ref)
		}
		was := rec.Target
		out, err := c.model.UpdateVDisk(ctx, rec.ID, func(r *model.VDisk) error { return fn(ownTarget(rec), r.Target) })
		if err != nil {
			return err
		}
		t = ownTarget(out)
		if err := c.show(ctx, d, out); err != nil {
			_, uerr := c.model.UpdateVDisk(context.WithoutCancel(ctx), rec.ID, func(r *model.VDisk) error { r.Target = was; return nil })
			return errors.Join(err, uerr)
		}
		return nil
	})
	return t, err
}

// Sessions returns the iSCSI sessions, oldest first.
func (c *Controller) Sessions() []iscsi.SessionInfo { return c.opt.Frontend.Sessions() }

// Session returns one iSCSI session with what it did on each LUN.
func (c *Controller) Session(id string) (iscsi.SessionInfo, error) {
	i, err := c.opt.Frontend.Session(id)
	if err != nil {
		return i, &Error{Code: CodeNotFound, Object: "session " + clip(id), Message: "there is no such session", Hint: "ovgate session list shows the sessions", Err: err}
	}
	return i, nil
}

// DropSession ends an iSCSI session; an absent one is no error.
func (c *Controller) DropSession(id string) error {
	if err := c.opt.Frontend.DropSession(id); err != nil && !errors.Is(err, iscsi.ErrNoSession) {
		return err
	}
	return nil
}
