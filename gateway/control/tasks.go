package control

import (
	"context"
	"errors"
	"fmt"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/task"
)

// What the Controller works on is told to a book (package task) by who does it. What records say
// is to be done, and nobody does right now, is added when somebody asks.

// endTask ends a task, with why it failed.
func endTask(e *task.Entry, s task.State, object string, err error) {
	message, hint := why(object, err)
	e.End(s, message, hint)
}

// holdTask tells that a task is tried again.
func holdTask(e *task.Entry, object string, err error) {
	message, hint := why(object, err)
	e.Set(func(t *task.Task) { t.State, t.Error, t.Hint = task.Waiting, message, hint })
}

// goOn tells that what waited runs.
func goOn(e *task.Entry) {
	e.Set(func(t *task.Task) { t.State, t.Error, t.Hint = task.Running, "", "" })
}

// why is what is told of an error, and what to do.
func why(object string, err error) (message, hint string) {
	if err == nil {
		return "", ""
	}
	var e *Error
	if err = explain(object, err); errors.As(err, &e) {
		return e.Message, e.Hint
	}
	return err.Error(), ""
}

// short is enough of an id to tell tasks of a kind apart.
func short(id string) string { return id[:min(len(id), 13)] }

// runTask is what is told of a run of a scheduled job.
func runTask(d due) task.Task {
	return task.Task{Kind: task.Schedule, Object: vdiskObject(d.vdisk.Name), VPools: []string{d.vdisk.VPool}, What: "scheduled " + string(d.name)}
}

// Tasks returns what this node works on, is to work on, and worked on lately.
func (c *Controller) Tasks() []task.Task {
	out := c.opt.Tasks.List()
	out = append(out, c.queuedRuns()...)
	for _, v := range c.model.VDisks(func(v model.VDisk) bool {
		return c.mine(v) && (v.Flatten || v.Move != nil || v.Handover != nil || v.State == model.StateDeleting)
	}) {
		out = append(out, c.waitingTasks(v)...)
	}
	return out
}

// queuedRuns are the scheduled runs that wait for others.
func (c *Controller) queuedRuns() (out []task.Task) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.scheduler.queue {
		t := runTask(d)
		t.ID, t.State, t.Started = "schedule-"+string(d.name)+"-"+short(d.vdisk.ID), task.Queued, d.slot.UTC()
		out = append(out, t)
	}
	return out
}

// waitingTasks are what the record of a vDisk asks for and nobody does right now.
func (c *Controller) waitingTasks(v model.VDisk) (out []task.Task) {
	c.mu.Lock()
	var d vdisk
	if p := c.disks[v.ID]; p != nil {
		d = vdisk{flat: p.flat, move: p.move, hand: p.hand}
	}
	c.mu.Unlock()
	add := func(k task.Kind, what string, cancels bool, also ...string) {
		out = append(out, task.Task{ID: string(k) + "-" + short(v.ID), Kind: k, Object: vdiskObject(v.Name), What: what, State: task.Waiting, Cancels: cancels, VPools: append(also, v.VPool)})
	}
	if v.State == model.StateDeleting {
		add(task.Delete, "delete what its vPool has of it", false)
		return out
	}
	if v.Flatten && d.flat == nil {
		add(task.Flatten, "copy what it reads through its parent, when it is open", true)
	}
	if v.Move != nil && v.Move.Failed == "" && d.move == nil {
		to, _ := c.model.VPool(v.Move.To)
		add(task.Move, "move to vpool "+to.Name, true, v.Move.To)
	}
	if v.Handover != nil && v.Handover.Failed == "" && d.hand == nil {
		add(task.HandOver, "hand over to node "+c.NodeName(v.Handover.To), true)
	}
	return out
}

// ClusterTasks returns what is to be done that is of no node alone: vPools that are deleted and
// nodes that are drained.
func (c *Controller) ClusterTasks() (out []task.Task) {
	for _, p := range c.model.VPools() {
		if p.State == model.StateDeleting {
			out = append(out, task.Task{ID: "delete-" + short(p.ID), Kind: task.Delete, Object: vpoolObject(p.Name), VPools: []string{p.ID}, What: "delete what its backend has of it", State: task.Waiting})
		}
	}
	for _, n := range c.model.Nodes() {
		if !n.Draining {
			continue
		}
		left := len(c.model.VDisks(func(v model.VDisk) bool {
			return v.Node == n.ID && v.State != model.StateTrashed && v.State != model.StateDeleting
		}))
		if left > 0 {
			out = append(out, task.Task{ID: drainID(n), Kind: task.Drain, Object: nodeObject(n.Name), What: fmt.Sprintf("hand over what it serves: %d vDisks are left", left), State: task.Running, Cancels: true})
		}
	}
	return out
}

func drainID(n model.Node) string { return "drain-" + short(n.ID) }

// CancelTask has a task of this node, or of no node alone, ended. It returns as soon as that is
// decided.
func (c *Controller) CancelTask(ctx context.Context, t task.Task) error {
	if t.State.Ended() {
		return NotCancelled(t)
	}
	if ok, err := c.opt.Tasks.Cancel(ctx, t.ID); ok {
		return err
	}
	if t.Kind == task.Drain {
		for _, n := range c.model.Nodes() {
			if drainID(n) == t.ID {
				_, err := c.DrainNode(ctx, n.ID, false)
				return err
			}
		}
	}
	of := c.model.VDisks(func(v model.VDisk) bool { return t.ID == string(t.Kind)+"-"+short(v.ID) })
	if len(of) == 0 {
		return NotCancelled(t)
	}
	var err error
	switch t.Kind {
	case task.Flatten:
		_, err = c.CancelFlatten(ctx, of[0].ID)
	case task.Move:
		_, err = c.CancelMove(ctx, of[0].ID)
	case task.HandOver:
		_, err = c.CancelHandOver(ctx, of[0].ID)
	default:
		return NotCancelled(t)
	}
	return err
}

// NotCancelled refuses to cancel a task.
func NotCancelled(t task.Task) *Error {
	e := &Error{Code: CodeInUse, Object: "task " + t.ID, Message: "it cannot be cancelled", Hint: "wait for its end: ovgate task wait " + t.ID}
	if t.State.Ended() {
		e.Message, e.Hint = "it has ended: "+string(t.State), "ovgate task list shows what runs"
	}
	return e
}
