package control

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/gateway/task"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// copying is a flatten or a move that runs.
type copying struct {
	cancel        context.CancelFunc
	done          chan struct{} // closed at its end
	copied, total atomic.Int64
	task          *task.Entry
	quit          atomic.Bool // somebody gave it up; else it goes on later, or elsewhere
}

// end stops it and waits for its end; nil is none.
func (f *copying) end() {
	if f != nil {
		f.cancel()
		<-f.done
	}
}

// giveUp is end for one that does not go on later.
func (f *copying) giveUp() {
	if f != nil {
		f.quit.Store(true)
		f.end()
	}
}

// look brings a task up to date.
func (f *copying) look(t *task.Task) {
	t.Done, t.Total = f.copied.Load(), f.total.Load()
	t.Bytes = t.Done
}

// endCut ends the task of a copy that was stopped.
func (f *copying) endCut() {
	if f.quit.Load() {
		f.task.End(task.Cancelled, "", "")
		return
	}
	f.task.Drop()
}

// CopyProgress is how far a flatten or move is, in bytes; Total 0: not known yet.
type CopyProgress struct{ Copied, Total int64 }

func (f *copying) progress() CopyProgress {
	if f == nil {
		return CopyProgress{}
	}
	return CopyProgress{f.copied.Load(), f.total.Load()}
}

// Flatten makes a clone independent of its parent, in the background; what the vDisk
// shows tells how far it is. It goes on after a restart, and yields to initiators. A
// vDisk that is no clone is left as it is.
func (c *Controller) Flatten(ctx context.Context, name string) (model.VDisk, error) {
	var out model.VDisk
	err := c.withDisk(ctx, name, func(ctx context.Context, d *vdisk, rec model.VDisk) error {
		out = rec
		if _, e := c.running(d, rec); e != nil {
			return e
		}
		if rec.Parent == nil || rec.Flatten {
			return nil
		}
		clones := c.model.VDisks(func(v model.VDisk) bool {
			return v.Parent != nil && v.Parent.VDisk == rec.ID && v.State != model.StateDeleting
		})
		if len(clones) > 0 {
			return &Error{Code: CodeInUse, Object: vdiskObject(rec.Name), Message: fmt.Sprintf("it has clones, which read through its parent: %s and %d more", clones[0].Name, len(clones)-1), Hint: "flatten or delete its clones first"}
		}
		var err error
		if out, err = c.model.UpdateVDisk(ctx, rec.ID, func(v *model.VDisk) error { v.Flatten = true; return nil }); err == nil {
			c.startFlatten(d, out)
		}
		return err
	})
	return out, err
}

// CancelFlatten stops a flatten. What was copied stays, and the next one goes on there.
func (c *Controller) CancelFlatten(ctx context.Context, name string) (model.VDisk, error) {
	var out model.VDisk
	err := c.withDisk(ctx, name, func(ctx context.Context, d *vdisk, rec model.VDisk) error {
		c.mu.Lock()
		f := d.flat
		c.mu.Unlock()
		f.giveUp()
		var err error
		out, err = c.model.UpdateVDisk(ctx, rec.ID, func(v *model.VDisk) error { v.Flatten = false; return nil })
		return err
	})
	return out, err
}

// Flattening tells how far the flatten of a vDisk is; false: none was asked for.
func (c *Controller) Flattening(v model.VDisk) (CopyProgress, bool) {
	if !v.Flatten {
		return CopyProgress{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := c.disks[v.ID]; d != nil {
		return d.flat.progress(), true
	}
	return CopyProgress{}, true
}

// startFlatten starts the flatten of an open vDisk, unless it runs; d.lock is held.
func (c *Controller) startFlatten(d *vdisk, rec model.VDisk) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d.flat != nil || d.vol == nil || c.stopping {
		return
	}
	ctx, cancel := context.WithCancel(c.ctx)
	f := &copying{cancel: cancel, done: make(chan struct{})}
	f.task = c.opt.Tasks.Begin(task.Task{Kind: task.Flatten, Object: vdiskObject(rec.Name), VPools: []string{rec.VPool}, What: "copy what it reads through its parent", Unit: "bytes"}, f.look, func(ctx context.Context) error {
		_, err := c.CancelFlatten(ctx, rec.ID)
		return err
	})
	d.flat = f
	c.wg.Add(1)
	go func(vol Volume) {
		defer c.wg.Done()
		defer cancel()
		c.flatten(ctx, f, vol, rec)
		c.mu.Lock()
		d.flat = nil
		c.mu.Unlock()
		close(f.done)
		c.opt.Changed("vdisk", rec.ID)
	}(d.vol)
}

// stopFlatten stops the flatten and waits for its end; d.lock is held.
func (c *Controller) stopFlatten(d *vdisk) {
	c.mu.Lock()
	f := d.flat
	c.mu.Unlock()
	f.end()
}

// flatten tries until it is done, given up or stopped.
func (c *Controller) flatten(ctx context.Context, f *copying, vol Volume, rec model.VDisk) {
	for wait := retryMin; ; wait = min(2*wait, retryMax) {
		err := vol.Flatten(ctx, func(done, total int64) {
			f.copied.Store(done)
			f.total.Store(total)
		})
		switch {
		case err == nil:
			c.log.Info("vDisk flattened", "vdisk", rec.Name, "id", rec.ID)
			c.tell(event.VDiskFlattened, vdiskObject(rec.Name))
			c.endFlatten(rec, true)
			f.task.End(task.Done, "", "")
			return
		case ctx.Err() != nil, errors.Is(err, volume.ErrClosed):
			f.endCut()
			return // the next open goes on, if it is still wanted
		case errors.Is(err, volume.ErrInUse):
			c.log.Warn("flatten given up", "vdisk", rec.Name, "id", rec.ID, "err", err)
			c.endFlatten(rec, false)
			endTask(f.task, task.Failed, vdiskObject(rec.Name), err)
			return
		}
		c.log.Warn("flatten is tried again", "vdisk", rec.Name, "id", rec.ID, "after", wait, "err", err)
		holdTask(f.task, vdiskObject(rec.Name), err)
		if !c.pause(ctx, wait) {
			f.endCut()
			return
		}
		goOn(f.task)
	}
}

// pause waits; false if ctx ended first.
func (c *Controller) pause(ctx context.Context, d time.Duration) bool {
	return clock.Sleep(ctx, c.clock, d) == nil
}

// endFlatten notes the end. Should the node not live to do so, the next start asks the
// engine again, which has nothing left to do.
func (c *Controller) endFlatten(rec model.VDisk, done bool) {
	_, err := c.model.UpdateVDisk(context.WithoutCancel(c.ctx), rec.ID, func(v *model.VDisk) error {
		v.Flatten = false
		if done {
			v.Parent = nil
		}
		return nil
	})
	if err != nil && !errors.Is(err, model.ErrNotFound) {
		c.log.Error("the end of a flatten cannot be noted", "vdisk", rec.Name, "err", err)
	}
}
