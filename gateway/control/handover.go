package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/gateway/task"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// A hand-over gives a vDisk to another node, with nothing lost and nothing to copy: the
// vDisk is on the backend, and only the tail of its journal is on this node. The decision is
// in the record. Everything acknowledged is committed while initiators go on, then operations
// wait, the vDisk is closed, and one change of the record makes it the other node's, which
// opens it. Until that change it is this node's: whatever goes wrong, it is opened here
// again, and the hand-over is tried again.
//
//	record:  node A, hand over to B ──────────────────► node B
//	A:       commit, commit, hold, close (clean head) ──┘  sessions dropped
//	B:                                                    open, publish

// handSwitch bounds how long operations wait for a hand-over, as moveSwitch does.
const handSwitch = 20 * time.Second

// handTries bounds how often a hand-over is begun: what keeps it from its end that long is
// shown, and asking again goes on.
const handTries = 10

// HandOver gives a vDisk to another node, in the background; its record tells when it is
// done. Asking again goes on with one that was given up.
func (c *Controller) HandOver(ctx context.Context, name, node string) (model.VDisk, error) {
	var out model.VDisk
	err := c.withOwned(ctx, name, func(ctx context.Context, d *vdisk, rec model.VDisk) error {
		to, ok := c.model.FindNode(node)
		if !ok {
			return noNode(node, "node")
		}
		if to.ID == rec.Node {
			out = rec // nothing to do, as after one that somebody asked for twice
			return nil
		}
		if e := c.checkHandOver(rec); e != nil {
			return e
		}
		if rec.Handover != nil && rec.Handover.To != to.ID {
			return &Error{Code: CodeInUse, Object: vdiskObject(rec.Name), Message: "it is being handed over to node " + c.NodeName(rec.Handover.To), Hint: "stop that first: ovgate vdisk move " + rec.Name + " --cancel"}
		}
		if e := c.takes(ctx, to); e != nil {
			return e
		}
		var err error
		if out, err = c.decideHandOver(ctx, rec.ID, to.ID); err == nil {
			c.startHandOver(d, out)
		}
		return err
	})
	return out, err
}

// decideHandOver stores that a vDisk goes to a node.
func (c *Controller) decideHandOver(ctx context.Context, id, to string) (model.VDisk, error) {
	out, err := c.model.UpdateVDisk(ctx, id, func(v *model.VDisk) error {
		if e := c.served(*v); e != nil {
			return e
		}
		v.Handover = &model.Handover{To: to}
		return nil
	})
	if err == nil {
		c.log.Info("vDisk is being handed over", "vdisk", out.Name, "id", id, "to", c.NodeName(to))
	}
	return out, err
}

// checkHandOver refuses what cannot be another node's.
func (c *Controller) checkHandOver(rec model.VDisk) *Error {
	object := vdiskObject(rec.Name)
	pool, _ := c.model.VPool(rec.VPool)
	switch {
	case pool.Node != "" || !pool.Backend.Shared():
		return &Error{Code: CodeInUse, Object: object, Message: "only this node reaches vPool " + pool.Name, Hint: "take it to a vPool on Alba, Swift or S3 first: ovgate vdisk move " + rec.Name + " VPOOL"}
	case rec.Move != nil || rec.Left != "":
		return &Error{Code: CodeInUse, Object: object, Message: "it is being moved to another vPool", Hint: "wait until that has ended, or stop it: ovgate vdisk move " + rec.Name + " --cancel"}
	case rec.State != model.StatePresent && rec.State != model.StateTrashed:
		return &Error{Code: CodeInUse, Object: object, Message: "it is " + string(rec.State), Hint: "wait until that has ended"}
	}
	return nil
}

// takes refuses a node that cannot take vDisks now.
func (c *Controller) takes(ctx context.Context, to model.Node) *Error {
	living, err := c.living(ctx)
	if err != nil {
		return &Error{Code: CodeBackend, Object: nodeObject(to.Name), Message: "the registry does not say whether it is up", Hint: "bring the registry back", Err: err}
	}
	switch {
	case !living[to.ID]:
		return &Error{Code: CodeInUse, Field: "node", Object: nodeObject(to.Name), Message: "it is down", Hint: "start it, or choose another node: ovgate node list"}
	case to.Leaving:
		return &Error{Code: CodeInUse, Field: "node", Object: nodeObject(to.Name), Message: "it is about to leave the cluster", Hint: "choose another node: ovgate node list"}
	case to.Draining:
		return &Error{Code: CodeInUse, Field: "node", Object: nodeObject(to.Name), Message: "it is being drained", Hint: "choose another node, or end that: ovgate node drain " + to.Name + " --cancel"}
	}
	return nil
}

func (c *Controller) living(ctx context.Context) (map[string]bool, error) {
	if c.opt.Living == nil {
		return map[string]bool{c.opt.Node: true}, nil
	}
	return c.opt.Living(ctx)
}

func nodeObject(name string) string { return "node " + name }

func noNode(ref, field string) *Error {
	return &Error{Code: CodeNotFound, Field: field, Object: nodeObject(clip(ref)), Message: "there is no such node", Hint: "ovgate node list shows the nodes of the cluster"}
}

// CancelHandOver stops a hand-over that has not ended.
func (c *Controller) CancelHandOver(ctx context.Context, name string) (model.VDisk, error) {
	var out model.VDisk
	err := c.withOwned(ctx, name, func(ctx context.Context, d *vdisk, rec model.VDisk) error {
		c.mu.Lock()
		f := d.hand
		c.mu.Unlock()
		f.giveUp()
		var err error
		out, err = c.model.UpdateVDisk(ctx, rec.ID, func(v *model.VDisk) error {
			v.Handover = nil
			return c.servedErr(*v)
		})
		return err
	})
	return out, err
}

// servedErr is served without a typed nil.
func (c *Controller) servedErr(v model.VDisk) error {
	if e := c.served(v); e != nil {
		return e
	}
	return nil
}

// withOwned is withDisk that takes vDisks in the trash, too.
func (c *Controller) withOwned(ctx context.Context, name string, fn func(context.Context, *vdisk, model.VDisk) error) error {
	if rec, ok := c.model.VDisk(name); ok && rec.State == model.StateTrashed {
		return c.withTrashed(ctx, name, fn)
	}
	return c.withDisk(ctx, name, fn)
}

// startHandOver starts the hand-over of a vDisk, unless it runs or was given up; d.lock is
// held.
func (c *Controller) startHandOver(d *vdisk, rec model.VDisk) {
	if rec.Handover == nil || rec.Handover.Failed != "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if d.hand != nil || c.stopping {
		return
	}
	ctx, cancel := context.WithCancel(c.ctx)
	f := &copying{cancel: cancel, done: make(chan struct{})}
	f.task = c.opt.Tasks.Begin(task.Task{Kind: task.HandOver, Object: vdiskObject(rec.Name), VPools: []string{rec.VPool}, What: "hand over to node " + c.NodeName(rec.Handover.To)}, nil, func(ctx context.Context) error {
		_, err := c.CancelHandOver(ctx, rec.ID)
		return err
	})
	d.hand = f
	c.wg.Add(1)
	go func() {
		defer c.wg.Done()
		defer cancel()
		c.runHandOver(ctx, f, d, rec)
		c.mu.Lock()
		d.hand = nil
		c.mu.Unlock()
		close(f.done)
		c.opt.Changed("vdisk", rec.ID)
	}()
}

// stopHandOver stops the hand-over and waits for its end; d.lock is held.
func (c *Controller) stopHandOver(d *vdisk) {
	c.mu.Lock()
	f := d.hand
	c.mu.Unlock()
	f.end()
}

// runHandOver tries until it is done, given up or stopped.
func (c *Controller) runHandOver(ctx context.Context, f *copying, d *vdisk, rec model.VDisk) {
	wait := retryMin
	for try := 1; ; try++ {
		err := c.tryHandOver(ctx, d, rec)
		if now, ok := c.model.VDisk(rec.ID); err == nil && ok && now.Node == rec.Handover.To {
			f.task.End(task.Done, "", "")
			return
		}
		if err == nil || ctx.Err() != nil {
			f.endCut()
			return
		}
		if try == handTries || isRefusal(err) {
			c.failHandOver(ctx, rec, err)
			endTask(f.task, task.Failed, vdiskObject(rec.Name), err)
			return
		}
		c.log.Warn("hand-over is tried again", "vdisk", rec.Name, "id", rec.ID, "after", wait, "err", err)
		holdTask(f.task, vdiskObject(rec.Name), err)
		if !c.pause(ctx, wait) {
			f.endCut()
			return
		}
		goOn(f.task)
		wait = min(2*wait, retryMax)
	}
}

// failHandOver notes why a hand-over was given up.
func (c *Controller) failHandOver(ctx context.Context, rec model.VDisk, why error) {
	c.log.Error("hand-over given up", "vdisk", rec.Name, "id", rec.ID, "err", why)
	c.tell(event.VDiskHandoverFailed, vdiskObject(rec.Name), "reason", why.Error())
	_, err := c.model.UpdateVDisk(context.WithoutCancel(ctx), rec.ID, func(v *model.VDisk) error {
		if v.Handover != nil && c.mine(*v) {
			v.Handover.Failed = why.Error()
		}
		return nil
	})
	if err != nil && !errors.Is(err, model.ErrNotFound) {
		c.log.Error("the end of a hand-over cannot be noted", "vdisk", rec.Name, "err", err)
	}
}

// handCommits is how often what is acknowledged is committed before operations wait: the
// second time there is only what came during the first.
const handCommits = 2

// tryHandOver commits, then makes the switch.
func (c *Controller) tryHandOver(ctx context.Context, d *vdisk, rec model.VDisk) error {
	to, ok := c.model.Node(rec.Handover.To)
	if !ok {
		return noNode(rec.Handover.To, "node")
	}
	if e := c.takes(ctx, to); e != nil {
		if e.Code == CodeBackend {
			return fmt.Errorf("%s", e.Error())
		}
		return e
	}
	for range handCommits {
		if vol := c.volume(rec.ID); vol != nil {
			if err := vol.Commit(ctx); err != nil {
				return err
			}
		}
	}
	if err := d.lock.acquire(ctx); err != nil {
		return err
	}
	defer d.lock.release()
	now, ok := c.model.VDisk(rec.ID)
	if !ok || now.Handover == nil || now.Handover.To != to.ID || !c.mine(now) {
		return nil // deleted, stopped, or another node's
	}
	if e := c.checkHandOver(now); e != nil {
		return e
	}
	return c.switchNode(ctx, d, now, to)
}

// switchNode closes a vDisk with its operations waiting, and makes it another node's; d.lock
// is held. However it ends, the vDisk is that node's, or open here again, or tried by the
// reconciler.
func (c *Controller) switchNode(ctx context.Context, d *vdisk, rec model.VDisk, to model.Node) error {
	id, err := volume.ParseID(rec.ID)
	if err != nil {
		return err
	}
	// From the first step on it is brought to an end, or back, also when the node stops.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), handSwitch)
	defer cancel()
	if err := c.endVerify(ctx, rec.ID); err != nil {
		return err
	}
	began := c.clock.Now()
	front, vol := d.disk, d.vol
	if vol != nil {
		c.stopFlatten(d)
		front.hold()
		err = vol.Close(ctx)
	}
	if err == nil {
		c.setGiven(d, to.ID)
		err = c.give(ctx, rec, id, to.ID)
	}
	if err != nil {
		c.setGiven(d, "")
		if now, ok := c.model.VDisk(rec.ID); !ok || c.mine(now) {
			if vol == nil {
				return err
			}
			ep, _, aerr := c.engineDisk(rec)
			if aerr != nil {
				return errors.Join(err, aerr)
			}
			return errors.Join(err, c.openAgain(ctx, d, rec, ep, id, front))
		}
		// The answer was lost and it is done, or another node took it over.
	}
	if vol != nil {
		c.mu.Lock()
		d.vol, d.disk, d.state = nil, nil, "" // should it come back, it is opening
		c.mu.Unlock()
		// Busy: initiators try again, where it is by then. Nothing is in flight when its
		// sessions are dropped.
		front.resume(nil, nil)
		front.refuse(volume.ErrStalled)
		if d.exported {
			if terr := c.takeOut(ctx, d, rec); terr != nil {
				c.log.Error("a vDisk that was handed over is still shown here", "vdisk", rec.Name, "id", rec.ID, "err", terr)
			}
		}
	}
	c.log.Info("vDisk handed over", "vdisk", rec.Name, "id", rec.ID, "to", to.Name, "waited", c.clock.Now().Sub(began))
	c.tell(event.VDiskHandedOver, vdiskObject(rec.Name), "node", to.Name, "waited", c.clock.Now().Sub(began).Round(time.Millisecond).String())
	c.watchGiven(d, rec, id)
	return nil
}

const (
	// givenEvery is how often a node looks whether one that it gave a vDisk to has opened it,
	// givenLook for how long: what keeps the other node that long, that one tells.
	givenEvery = 100 * time.Millisecond
	givenLook  = 2 * time.Minute
)

func (c *Controller) setGiven(d *vdisk, to string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d.given = to
}

// watchGiven ends HandingOver of a vDisk that was given away once it is open there, or not the
// other node's any more. The caller is a goroutine of c.wg.
func (c *Controller) watchGiven(d *vdisk, rec model.VDisk, id volume.ID) {
	c.mu.Lock()
	to := d.given
	c.mu.Unlock()
	if to == "" {
		return
	}
	if rec.State != model.StatePresent || rec.Template { // nobody opens it
		c.setGiven(d, "")
		return
	}
	c.wg.Go(func() {
		ctx, cancel := context.WithTimeout(c.ctx, givenLook)
		defer cancel()
		for c.pause(ctx, givenEvery) {
			now, ok := c.model.VDisk(rec.ID)
			if !ok || now.Node != to {
				break
			}
			if held, err := c.opt.Engine.Holder(ctx, id); err == nil && !held.Clean {
				break
			}
		}
		c.mu.Lock()
		if d.given == to {
			d.given = ""
		}
		c.mu.Unlock()
		c.opt.Changed("vdisk", rec.ID)
	})
}

// HandingOver tells to which node a vDisk is on its way, and why that was given up; false: to
// none, or it is open there. Who wants both asks this before DiskStatus.
func (c *Controller) HandingOver(v model.VDisk) (to, failed string, ok bool) {
	if v.Handover != nil {
		return v.Handover.To, v.Handover.Failed, true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := c.disks[v.ID]; d != nil && d.given != "" && d.given == v.Node {
		return d.given, "", true
	}
	return "", "", false
}

// give makes a closed vDisk another node's.
func (c *Controller) give(ctx context.Context, rec model.VDisk, id volume.ID, to string) error {
	held, err := c.opt.Engine.Holder(ctx, id)
	if err != nil {
		return err
	}
	if !held.Clean {
		return fmt.Errorf("vdisk %s: %w: something of it is in the journal of this node only", rec.ID, volume.ErrInUse)
	}
	_, err = c.model.GiveVDisk(ctx, rec.ID, to, nil, func(v *model.VDisk) error {
		if e := c.served(*v); e != nil { // another node took it over, as it was closed
			return e
		}
		v.Handover = nil
		return nil
	})
	return err
}

// drain hands over what this node has, when it is to be drained.
func (c *Controller) drain(ctx context.Context) error {
	self, ok := c.model.Node(c.opt.Node)
	if !ok || !self.Draining {
		return nil
	}
	living, err := c.living(ctx)
	if err != nil {
		return err
	}
	load := c.load()
	var errs []error
	for _, v := range c.model.VDisks(func(v model.VDisk) bool { return c.mine(v) && v.Handover == nil }) {
		if e := c.checkHandOver(v); e != nil {
			errs = append(errs, e)
			continue
		}
		to, ok := c.nodeFor(living, load, c.opt.Node)
		if !ok {
			return nowhereToGo(self.Name)
		}
		if _, err := c.decideHandOver(ctx, v.ID, to); err != nil {
			errs = append(errs, err)
			continue
		}
		load[to]++
		c.schedule(ref{"vdisk", v.ID}, 0)
	}
	return errors.Join(errs...)
}

func nowhereToGo(name string) *Error {
	return &Error{Code: CodeInUse, Object: nodeObject(name), Message: "no other node is up that could take its vDisks", Hint: "start or add another node: ovgate node list"}
}

// visitNode carries on with what this node is told about itself; true: visit it again.
func (c *Controller) visitNode(ctx context.Context, id string) bool {
	if id != c.opt.Node {
		return false
	}
	if err := c.drain(ctx); err != nil {
		c.log.Warn("node is not drained yet", "err", err)
		return true
	}
	return false
}

// load counts the vDisks of each node.
func (c *Controller) load() map[string]int {
	load := map[string]int{}
	c.model.VDisks(func(v model.VDisk) bool {
		if v.State != model.StateTrashed && v.State != model.StateDeleting {
			load[v.Node]++
		}
		return false
	})
	return load
}

// nodeFor returns the node that a vDisk goes to: of those that live and are not drained, the
// one with the fewest; not is left out.
func (c *Controller) nodeFor(living map[string]bool, load map[string]int, not string) (string, bool) {
	best := ""
	for _, n := range c.model.Nodes() {
		if n.ID == not || !living[n.ID] || n.Draining || n.Leaving {
			continue
		}
		if best == "" || load[n.ID] < load[best] || load[n.ID] == load[best] && n.ID < best {
			best = n.ID
		}
	}
	return best, best != ""
}

// DrainNode has a node hand over all that it serves, and takes nothing to it any more; on
// false that ends, and what it handed over stays where it is.
func (c *Controller) DrainNode(ctx context.Context, name string, on bool) (model.Node, error) {
	ctx, done, err := c.begin(ctx)
	if err != nil {
		return model.Node{}, err
	}
	defer done()
	n, ok := c.model.FindNode(name)
	if !ok {
		return n, noNode(name, "")
	}
	if on && !n.Draining {
		if err := c.checkDrain(ctx, n); err != nil {
			return n, err
		}
	}
	out, err := c.model.UpdateNode(ctx, n.ID, func(n *model.Node) error { n.Draining = on; return nil })
	if err != nil {
		return n, explain(nodeObject(n.Name), err)
	}
	if n.ID == c.opt.Node {
		c.schedule(ref{"node", n.ID}, 0)
	}
	if on != n.Draining {
		code := event.NodeUndrained
		if on {
			code = event.NodeDrained
		}
		c.tell(code, nodeObject(n.Name))
	}
	c.log.Info("node is drained", "node", n.Name, "on", on)
	return out, nil
}

// checkDrain refuses to drain a node whose vDisks have nowhere to go.
func (c *Controller) checkDrain(ctx context.Context, n model.Node) error {
	living, err := c.living(ctx)
	if err != nil {
		return &Error{Code: CodeBackend, Object: nodeObject(n.Name), Message: "the registry does not say which nodes are up", Hint: "bring the registry back", Err: err}
	}
	if !living[n.ID] {
		return &Error{Code: CodeInUse, Object: nodeObject(n.Name), Message: "it is down", Hint: "its vDisks are taken over by themselves, or with ovgate vdisk steal"}
	}
	if _, ok := c.nodeFor(living, c.load(), n.ID); !ok {
		return nowhereToGo(n.Name)
	}
	for _, v := range c.model.VDisks(func(v model.VDisk) bool { return v.Node == n.ID }) {
		if pool, _ := c.model.VPool(v.VPool); pool.Node != "" || !pool.Backend.Shared() {
			return &Error{Code: CodeInUse, Object: nodeObject(n.Name), Message: "no other node reaches vPool " + pool.Name + " of vDisk " + v.Name,
				Hint: "take it to a vPool on Alba, Swift or S3 first: ovgate vdisk move " + v.Name + " VPOOL"}
		}
	}
	return nil
}
