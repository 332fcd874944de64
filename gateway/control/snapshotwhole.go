package control

import (
	"context"
	"errors"
	"slices"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// decided makes a group snapshot with its record around it (G1, G2).
func (c *Controller) decided(ctx context.Context, recs []model.VDisk, in volume.SnapshotSpec, do func() ([]GroupMember, error)) ([]GroupMember, error) {
	if len(recs) == 1 {
		return do()
	}
	c.leading(in.ID, true)
	defer c.leading(in.ID, false) // what is not decided then, lookForGroups undoes
	g := model.SnapshotGroup{ID: in.ID.String(), Name: in.Name, Node: c.opt.Node, State: model.GroupMaking, Began: c.clock.Now().UTC()}
	for _, rec := range recs {
		g.VDisks = append(g.VDisks, rec.ID)
	}
	if err := c.model.AddSnapshotGroup(ctx, g); err != nil {
		return nil, err
	}
	made, err := do()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), decideTime)
	defer cancel()
	if err == nil {
		err = c.decide(ctx, g.ID, model.GroupMade)
	}
	if err != nil {
		if err := c.decide(ctx, g.ID, model.GroupUndoing); err != nil {
			c.log.Warn("a group snapshot was not made, which the registry could not be told yet", "snapshot", in.Name, "id", g.ID, "err", err)
		}
		return nil, err
	}
	if p := c.partOf(in.ID); p != nil {
		p.whole.Store(true)
	}
	if err := c.model.RemoveSnapshotGroup(ctx, g.ID); err != nil {
		c.log.Info("the record of a group snapshot that was made goes later", "id", g.ID, "err", err)
	}
	return made, nil
}

// leading notes whether this node leads a group.
func (c *Controller) leading(id volume.ID, leads bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if leads {
		c.leads[id] = true
	} else {
		delete(c.leads, id)
	}
}

// decide stores what becomes of a group that is being made. An error says that it was decided
// otherwise, or that it is not known.
func (c *Controller) decide(ctx context.Context, id string, to model.GroupState) error {
	err := c.model.UpdateSnapshotGroup(ctx, id, func(g *model.SnapshotGroup) error {
		if g.State != model.GroupMaking && g.State != to {
			return errGivenUp
		}
		g.State = to
		return nil
	})
	if err == nil || errors.Is(err, errGivenUp) {
		return err
	}
	// It may have been stored all the same.
	if g, rerr := c.model.FreshSnapshotGroup(ctx, id); rerr == nil && g.State == to {
		return nil
	}
	return err
}

// stillMaking says why no snapshot of a group may be made any more (G1).
func (c *Controller) stillMaking(ctx context.Context, id volume.ID) error {
	g, err := c.model.FreshSnapshotGroup(ctx, id.String())
	switch {
	case errors.Is(err, model.ErrNotFound), err == nil && g.State != model.GroupMaking:
		return errGivenUp
	}
	return err
}

// undecided tells whether a group may be unfinished, as far as memory knows.
func (c *Controller) undecided(id volume.ID) bool {
	if g, ok := c.model.SnapshotGroup(id.String()); ok {
		return g.State != model.GroupMade
	}
	p := c.partOf(id)
	return p != nil && !p.whole.Load()
}

// isWhole tells whether a snapshot may be shown (G3): not while the registry cannot be asked
// about one that may be of an unfinished group.
func (c *Controller) isWhole(ctx context.Context, s volume.Snapshot) bool {
	if s.Group < 2 || !c.undecided(s.ID) {
		return true
	}
	g, err := c.model.FreshSnapshotGroup(ctx, s.ID.String())
	if errors.Is(err, model.ErrNotFound) || err == nil && g.State == model.GroupMade {
		if p := c.partOf(s.ID); p != nil {
			p.whole.Store(true)
		}
		return true
	}
	return false
}

// whole returns the snapshots that may be shown.
func (c *Controller) whole(ctx context.Context, all []volume.Snapshot) []volume.Snapshot {
	return slices.DeleteFunc(all, func(s volume.Snapshot) bool { return !c.isWhole(ctx, s) })
}

// unfinished tells whether a snapshot of a vDisk, by name or id, is of an unfinished group.
func (c *Controller) unfinished(ctx context.Context, vdisk, snapshot string) (bool, error) {
	rec, err := c.FindVDisk(vdisk)
	if err != nil {
		return false, err
	}
	ep, id, err := c.engineDisk(rec)
	if err != nil {
		return false, nil // who works on it says so
	}
	all, err := ep.Snapshots(ctx, id)
	if err != nil {
		return false, nil
	}
	i := slices.IndexFunc(all, func(s volume.Snapshot) bool { return s.Name == snapshot || s.ID.String() == snapshot })
	return i >= 0 && !c.isWhole(ctx, all[i]), nil
}

// nameGoes refuses a name that a snapshot of an unfinished group has.
func nameGoes(object, name string, err error) *Error {
	return &Error{Code: CodeInUse, Field: "name", Object: object, Message: "a group snapshot " + clip(name) + " that was not finished is being removed", Hint: "try again", Soon: true, Err: err}
}

// lookForGroups gives up groups whose leader ended, and deletes what this node's vDisks have of
// groups that are undone (G2, G4).
func (c *Controller) lookForGroups() {
	for _, g := range c.model.SnapshotGroups() {
		ctx, cancel := context.WithTimeout(c.ctx, decideTime)
		err := c.finish(ctx, g)
		cancel()
		if err != nil && c.ctx.Err() == nil {
			c.log.Info("a group snapshot is not undone yet", "snapshot", g.Name, "id", g.ID, "err", err)
		}
	}
}

// finish does what is left to do for a group here.
func (c *Controller) finish(ctx context.Context, g model.SnapshotGroup) error {
	id, err := volume.ParseID(g.ID)
	if err != nil {
		return err
	}
	if g.State != model.GroupUndoing {
		if !c.leaderless(g, id) {
			return nil
		}
		if g.State == model.GroupMade {
			return c.model.RemoveSnapshotGroup(ctx, g.ID)
		}
		if err := c.decide(ctx, g.ID, model.GroupUndoing); err != nil {
			if errors.Is(err, errGivenUp) || errors.Is(err, model.ErrNotFound) { // its leader was faster
				return nil
			}
			return err
		}
		c.log.Warn("a group snapshot whose node ended is undone", "snapshot", g.Name, "id", g.ID, "node", c.NodeName(g.Node))
	}
	if c.partOf(id) != nil {
		if err := c.UndoGroup(ctx, id); err != nil {
			return err
		}
	}
	var errs []error
	gone := map[string]bool{}
	for _, v := range g.VDisks {
		rec, ok := c.model.VDisk(v)
		var err error
		switch {
		case ok && c.mine(rec):
			err = c.dropMember(ctx, v, id)
		case ok:
			continue
		default: // memory may not know it yet
			if _, err = c.model.StoredVDisk(ctx, v); err == nil {
				continue
			}
			if errors.Is(err, model.ErrNotFound) {
				err = nil
			}
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		gone[v] = true
	}
	if len(gone) > 0 {
		err := c.model.UpdateSnapshotGroup(ctx, g.ID, func(g *model.SnapshotGroup) error {
			g.VDisks = slices.DeleteFunc(g.VDisks, func(v string) bool { return gone[v] })
			return nil
		})
		if !errors.Is(err, model.ErrNotFound) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// leaderless tells whether nobody is at a group any more who decided what becomes of it.
func (c *Controller) leaderless(g model.SnapshotGroup, id volume.ID) bool {
	if g.Node == c.opt.Node {
		c.mu.Lock()
		defer c.mu.Unlock()
		return !c.leads[id]
	}
	living := c.opt.LastLiving()
	return living != nil && !living[g.Node]
}

// dropMember deletes a vDisk's snapshot of a group for good: of one that is to run, only while it
// does, because the journal may have what the backend has not.
func (c *Controller) dropMember(ctx context.Context, name string, id volume.ID) error {
	err := c.withDisk(ctx, name, func(ctx context.Context, d *vdisk, rec model.VDisk) error {
		if !rec.Template {
			if _, e := c.running(d, rec); e != nil {
				return e
			}
		}
		ep, vol, err := c.engineDisk(rec)
		if err != nil {
			return err
		}
		all, err := ep.Snapshots(ctx, vol)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(all, func(s volume.Snapshot) bool { return s.ID == id && s.Group > 0 })
		if i < 0 {
			return nil
		}
		if err := ep.DeleteSnapshot(ctx, vol, id.String(), true); err != nil {
			return err
		}
		c.log.Info("snapshot of a group that was not finished deleted", "vdisk", rec.Name, "id", rec.ID, "snapshot", all[i].Name)
		c.tell(event.SnapshotDeleted, vdiskObject(rec.Name), "snapshot", all[i].Name)
		return nil
	})
	var e *Error
	if errors.As(err, &e) && e.Code == CodeNotFound {
		return nil // with its vDisk
	}
	return err
}
