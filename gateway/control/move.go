package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/gateway/task"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// A move copies a vDisk to another vPool while initiators use it, again and again until
// little is missing. Then operations wait (disk.hold), the vDisk is closed, the rest is
// copied, the registry gets its new home, it is opened there, and operations go on: the
// sessions stay. Until the registry has it, it is where it was.

const (
	// moveRest is how much may be missing when operations begin to wait: what an object
	// store takes in a second or two.
	moveRest = 64 << 20
	// moveGentle is how many copies yield to initiators; those that follow go as fast as
	// they can, or a vDisk that is always written to would never be there.
	moveGentle = 4
	// moveSettle is how long such a copy takes at most before the switch: the last one,
	// for which operations wait, takes about as long.
	moveSettle = 2 * time.Second
	// movePasses bounds the copies that do not bring it below that: writes come faster
	// than they are copied.
	movePasses = 40
	// moveSwitch bounds how long operations wait. It is below the time after which hosts
	// give up, 30 s.
	moveSwitch = 20 * time.Second
)

// errTooBusy: see movePasses.
var errTooBusy = errors.New("it is written to faster than it is copied")

// MoveVDisk takes a vDisk to another vPool, in the background; what the vDisk shows tells
// how far it is. It goes on after a restart, and yields to initiators. Asking again for
// the same goes on with one that was given up.
func (c *Controller) MoveVDisk(ctx context.Context, name, vpool string) (model.VDisk, error) {
	var out model.VDisk
	err := c.withDisk(ctx, name, func(ctx context.Context, d *vdisk, rec model.VDisk) error {
		object := vdiskObject(rec.Name)
		to, ok := c.model.FindVPool(vpool)
		if !ok || to.State != model.StatePresent {
			return noVPool(clip(vpool), "vpool")
		}
		if to.ID == rec.VPool {
			out = rec // nothing to do, as after a move that somebody asked for twice
			return nil
		}
		if !rec.Template {
			if _, e := c.running(d, rec); e != nil {
				return e
			}
		}
		if e := c.checkMove(rec, to); e != nil {
			return e
		}
		p := c.pool(to.ID) // a delete of the vPool looks at it with this lock
		if err := p.lock.acquire(ctx); err != nil {
			return err
		}
		defer p.lock.release()
		c.stopMove(d)
		var err error
		out, err = c.model.UpdateVDisk(ctx, rec.ID, func(v *model.VDisk) error {
			if now, ok := c.model.VPool(to.ID); !ok || now.State != model.StatePresent {
				return noVPool(clip(vpool), "vpool")
			}
			if v.Left == to.ID {
				return &Error{Code: CodeInUse, Object: object, Message: "vpool " + to.Name + " has objects of it that are being deleted", Hint: "try again when they are gone; that goes on by itself"}
			}
			v.Move = &model.Move{To: to.ID}
			return nil
		})
		if errors.Is(err, model.ErrExists) {
			return &Error{Code: CodeExists, Field: "vpool", Object: object, Message: "vpool " + to.Name + " has a vDisk of this name", Hint: "rename one of them"}
		}
		if err == nil {
			c.log.Info("vDisk is being moved", "vdisk", rec.Name, "id", rec.ID, "to", to.Name)
			c.startMove(d, out)
		}
		return err
	})
	return out, err
}

// checkMove refuses what cannot move to a vPool.
func (c *Controller) checkMove(rec model.VDisk, to model.VPool) *Error {
	object := vdiskObject(rec.Name)
	clones := c.model.VDisks(func(v model.VDisk) bool {
		return v.Parent != nil && v.Parent.VDisk == rec.ID && v.State != model.StateDeleting && v.State != model.StateTrashed
	})
	trashed := c.model.VDisks(func(v model.VDisk) bool {
		return v.Parent != nil && v.Parent.VDisk == rec.ID && v.State == model.StateTrashed
	})
	switch {
	case rec.Move != nil && rec.Move.To != to.ID:
		return &Error{Code: CodeInUse, Object: object, Message: "it is being moved to another vPool", Hint: "stop that first: ovgate vdisk move " + rec.Name + " --cancel"}
	case rec.Parent != nil:
		return &Error{Code: CodeInUse, Object: object, Message: "it is a clone, and needs its parent", Hint: "ovgate vdisk flatten " + rec.Name}
	case len(clones) > 0:
		return &Error{Code: CodeInUse, Object: object, Message: fmt.Sprintf("%d clones need it, %s among them", len(clones), clones[0].Name), Hint: "flatten or delete them first"}
	case len(trashed) > 0:
		// Restored, they would read what is not in this vPool any more.
		first := slices.MinFunc(trashed, func(a, b model.VDisk) int { return c.PurgeAt(a).Compare(c.PurgeAt(b)) })
		return &Error{Code: CodeInUse, Object: object,
			Message: fmt.Sprintf("%d clones in the trash could not be restored without it, %s (%s) among them, which is kept until %s", len(trashed), first.Name, first.ID, c.PurgeAt(first).UTC().Format(time.RFC3339)),
			Hint:    "wait until they are gone, or delete them for good: ovgate trash purge " + first.ID}
	}
	if e := c.reached(to, "vpool"); e != nil {
		return e
	}
	if other, taken := c.model.VDiskByName(to.ID, rec.Name); taken && other.ID != rec.ID {
		return &Error{Code: CodeExists, Field: "vpool", Object: object, Message: "vpool " + to.Name + " has a vDisk of this name", Hint: "rename one of them"}
	}
	if _, err := c.attached(to.ID); err != nil {
		e := explain(vpoolObject(to.Name), err)
		var out *Error
		if errors.As(e, &out) {
			return out
		}
	}
	return c.checkProvisioned(to, object, rec.Size)
}

// CancelMove stops a move before the vDisk has its new home, and has what was copied
// deleted. Where no move is, there is nothing to do.
func (c *Controller) CancelMove(ctx context.Context, name string) (model.VDisk, error) {
	var out model.VDisk
	err := c.withDisk(ctx, name, func(ctx context.Context, d *vdisk, rec model.VDisk) error {
		c.mu.Lock()
		f := d.move
		c.mu.Unlock()
		f.giveUp()
		var err error
		if out, err = c.settleMove(ctx, rec); err != nil || out.Move == nil {
			return err
		}
		out, err = c.model.UpdateVDisk(ctx, rec.ID, func(v *model.VDisk) error {
			giveUpMove(v)
			return nil
		})
		if err == nil {
			c.log.Info("move stopped", "vdisk", rec.Name, "id", rec.ID)
			c.schedule(ref{"vdisk", rec.ID}, 0)
		}
		return err
	})
	return out, err
}

// giveUpMove makes a record that of a vDisk that stays; what was copied is to go.
func giveUpMove(v *model.VDisk) {
	if v.Move != nil {
		v.Left, v.Move = v.Move.To, nil
	}
}

// MoveProgress is how far a move is.
type MoveProgress struct {
	To string // UUID of the vPool
	CopyProgress
	Failed string // why it was given up; empty: it goes on
}

// Moving tells how far the move of a vDisk is; false: none was asked for, or it is at its
// new home and operations go on there. Who wants both asks this before DiskStatus.
func (c *Controller) Moving(v model.VDisk) (MoveProgress, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var running *copying
	if d := c.disks[v.ID]; d != nil {
		running = d.move
	}
	out := MoveProgress{CopyProgress: running.progress()}
	switch {
	case v.Move != nil:
		out.To, out.Failed = v.Move.To, v.Move.Failed
	case running != nil: // the registry has its new home, and it is being opened there
		out.To = v.VPool
	default:
		return MoveProgress{}, false
	}
	return out, true
}

// settleMove brings a record in step with the registry after a move whose end the node
// did not live to note.
func (c *Controller) settleMove(ctx context.Context, rec model.VDisk) (model.VDisk, error) {
	if rec.Move == nil {
		return rec, nil
	}
	id, err := volume.ParseID(rec.ID)
	if err != nil {
		return rec, err
	}
	home, err := c.opt.Engine.Home(ctx, id)
	if err != nil || home != rec.Move.To {
		return rec, err
	}
	return c.noteMoved(ctx, rec)
}

// noteMoved notes that a vDisk has its new home.
func (c *Controller) noteMoved(ctx context.Context, rec model.VDisk) (model.VDisk, error) {
	out, err := c.model.UpdateVDisk(context.WithoutCancel(ctx), rec.ID, func(v *model.VDisk) error {
		if v.Move != nil {
			v.Left, v.VPool, v.Move = v.VPool, v.Move.To, nil
		}
		return nil
	})
	if err == nil {
		to, _ := c.model.VPool(out.VPool)
		c.tell(event.VDiskMoved, vdiskObject(out.Name), "vpool", to.Name)
	}
	return out, err
}

// dropLeft deletes what a vPool has of a vDisk that is not there; d.lock is held.
func (c *Controller) dropLeft(ctx context.Context, id string) error {
	rec, ok := c.model.VDisk(id)
	if !ok || rec.Left == "" {
		return nil
	}
	if _, there := c.model.VPool(rec.Left); there {
		ep, err := c.attached(rec.Left)
		if err != nil {
			return err
		}
		vid, err := volume.ParseID(id)
		if err != nil {
			return err
		}
		if err := ep.DropMoved(ctx, vid); err != nil && !errors.Is(err, volume.ErrNotFound) {
			return err
		}
	}
	_, err := c.model.UpdateVDisk(ctx, id, func(v *model.VDisk) error { v.Left = ""; return nil })
	return err
}

// startMove starts the move of a vDisk, unless it runs or was given up; d.lock is held.
func (c *Controller) startMove(d *vdisk, rec model.VDisk) {
	if rec.Move == nil || rec.Move.Failed != "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if d.move != nil || c.stopping {
		return
	}
	ctx, cancel := context.WithCancel(c.ctx)
	f := &copying{cancel: cancel, done: make(chan struct{})}
	to, _ := c.model.VPool(rec.Move.To)
	f.task = c.opt.Tasks.Begin(task.Task{Kind: task.Move, Object: vdiskObject(rec.Name), VPools: []string{rec.VPool, to.ID}, What: "move to vpool " + to.Name, Unit: "bytes"}, f.look, func(ctx context.Context) error {
		_, err := c.CancelMove(ctx, rec.ID)
		return err
	})
	d.move = f
	c.wg.Add(1)
	go func() {
		defer c.wg.Done()
		defer cancel()
		c.runMove(ctx, f, d, rec)
		c.mu.Lock()
		d.move = nil
		c.mu.Unlock()
		close(f.done)
		c.opt.Changed("vdisk", rec.ID)
		c.schedule(ref{"vdisk", rec.ID}, 0) // what is left is deleted
	}()
}

// stopMove stops the move and waits for its end; d.lock is held.
func (c *Controller) stopMove(d *vdisk) {
	c.mu.Lock()
	f := d.move
	c.mu.Unlock()
	f.end()
}

// runMove tries until it is done, given up or stopped.
func (c *Controller) runMove(ctx context.Context, f *copying, d *vdisk, rec model.VDisk) {
	for wait := retryMin; ; wait = min(2*wait, retryMax) {
		err := c.tryMove(ctx, f, d, rec)
		now, _ := c.model.VDisk(rec.ID)
		switch {
		case err == nil && now.VPool == rec.Move.To:
			f.task.End(task.Done, "", "")
			return
		case err == nil || ctx.Err() != nil || errors.Is(err, volume.ErrClosed):
			f.endCut()
			return // closed: the next open goes on
		case endsMove(err):
			c.failMove(ctx, rec, err)
			endTask(f.task, task.Failed, vdiskObject(rec.Name), err)
			return
		}
		c.log.Warn("move is tried again", "vdisk", rec.Name, "id", rec.ID, "after", wait, "err", err)
		holdTask(f.task, vdiskObject(rec.Name), err)
		if !c.pause(ctx, wait) {
			f.endCut()
			return
		}
		goOn(f.task)
	}
}

// endsMove tells whether another try would end as this one did: not while one of the vPools
// is offline, whatever its last try met, such as an answer that the network damaged.
func endsMove(err error) bool {
	return !errors.Is(err, errOffline) &&
		(errors.Is(err, errTooBusy) || errors.Is(err, backend.ErrCorrupt) || errors.Is(err, volume.ErrCorrupt) || isRefusal(err))
}

// isRefusal tells whether an error is the control plane's own.
func isRefusal(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Code != CodeBackend && e.Code != CodeTimeout
}

// failMove notes why a move was given up.
func (c *Controller) failMove(ctx context.Context, rec model.VDisk, why error) {
	c.log.Error("move given up", "vdisk", rec.Name, "id", rec.ID, "err", why)
	c.tell(event.VDiskMoveFailed, vdiskObject(rec.Name), "reason", why.Error())
	_, err := c.model.UpdateVDisk(context.WithoutCancel(ctx), rec.ID, func(v *model.VDisk) error {
		if v.Move != nil {
			v.Move.Failed = why.Error()
		}
		return nil
	})
	if err != nil && !errors.Is(err, model.ErrNotFound) {
		c.log.Error("the end of a move cannot be noted", "vdisk", rec.Name, "err", err)
	}
}

// tryMove copies until little is missing, then makes the switch.
func (c *Controller) tryMove(ctx context.Context, f *copying, d *vdisk, rec model.VDisk) error {
	to, ok := c.model.VPool(rec.Move.To)
	if !ok {
		return noVPool(rec.Move.To, "vpool")
	}
	if e := c.checkMove(rec, to); e != nil {
		return e
	}
	from, id, err := c.engineDisk(rec)
	if err != nil {
		return err
	}
	dst, err := c.attached(rec.Move.To)
	if err != nil {
		return err
	}
	progress := func(done, total int64) {
		f.copied.Store(done)
		f.total.Store(total)
	}
	for pass := 1; ; pass++ {
		if vol := c.volume(rec.ID); vol != nil {
			if err := vol.Commit(ctx); err != nil { // what waits in the journal is part of it
				return err
			}
		}
		began := c.clock.Now()
		got, err := from.CopyTo(ctx, id, dst, pass > moveGentle, progress)
		if err != nil {
			return err
		}
		if got.Bytes <= moveRest || pass > moveGentle+1 && c.clock.Now().Sub(began) <= moveSettle {
			break
		}
		if pass == movePasses {
			return errTooBusy
		}
	}
	if err := d.lock.acquire(ctx); err != nil {
		return err
	}
	defer d.lock.release()
	now, ok := c.model.VDisk(rec.ID)
	if !ok || now.Move == nil || now.State != model.StatePresent {
		return nil // deleted, or stopped
	}
	return c.switchHome(ctx, d, now, from, dst, id)
}

// switchHome makes the other vPool the home of a vDisk, with its operations waiting;
// d.lock is held. However it ends, the vDisk is open again, or is tried by the
// reconciler.
func (c *Controller) switchHome(ctx context.Context, d *vdisk, rec model.VDisk, from, dst Pool, id volume.ID) error {
	// From the first step on it is brought to an end, or back, also when the node stops.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), moveSwitch)
	defer cancel()
	began := c.clock.Now()
	front, vol := d.disk, d.vol
	if vol != nil {
		front.hold()
		if err := vol.Close(ctx); err != nil {
			c.log.Warn("vDisk to be moved did not close orderly", "vdisk", rec.Name, "id", rec.ID, "err", err)
		}
	}
	moved := from.MoveTo(ctx, id, dst, nil)
	at := from
	if home, err := c.opt.Engine.Home(context.WithoutCancel(ctx), id); err == nil && home == rec.Move.To {
		at, moved = dst, nil
		now, err := c.noteMoved(ctx, rec)
		if err != nil {
			c.log.Error("the end of a move cannot be noted; the next start does", "vdisk", rec.Name, "err", err)
			now.VPool = rec.Move.To
		}
		rec = now
	}
	if vol == nil {
		return moved
	}
	if err := c.openAgain(ctx, d, rec, at, id, front); err != nil {
		return errors.Join(moved, err)
	}
	c.log.Info("operations go on after a move", "vdisk", rec.Name, "id", rec.ID, "waited", c.clock.Now().Sub(began), "err", moved)
	return moved
}

// openAgain opens a vDisk that was closed with its operations waiting at front, and lets
// them go on; d.lock is held. If it does not come up, they fail, and the reconciler tries.
func (c *Controller) openAgain(ctx context.Context, d *vdisk, rec model.VDisk, at Pool, id volume.ID, front *disk) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), moveSwitch)
	defer cancel()
	next, err := at.Open(ctx, id)
	space := &c.pool(rec.VPool).space
	if err == nil {
		next.SetCache(cacheOf(rec))
	}
	c.mu.Lock()
	d.vol, d.err, d.state = next, err, closedState(err)
	if err != nil {
		d.vol, d.disk = nil, nil
	}
	c.mu.Unlock()
	if err == nil {
		front.resume(next, space)
		return nil
	}
	front.resume(nil, nil)
	front.refuse(volume.ErrStalled) // nobody lets go on what waits there
	switch {                        // as after a restart at which it does not come up
	case !d.exported:
	case rec.Shared != nil:
		err = errors.Join(err, c.hideShared(ctx, d, rec))
	default:
		err = errors.Join(err, c.withdraw(d, rec, true))
	}
	c.schedule(ref{"vdisk", rec.ID}, retryMin)
	return err
}
