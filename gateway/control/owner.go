package control

import (
	"context"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// Nodes of a cluster share the records. Each serves the vDisks whose record names it, and
// works on no others. A vPool that several nodes reach is attached on each of them, so that
// one that does not reach it says so before it has to serve.

// mine tells whether this node serves a vDisk.
func (c *Controller) mine(v model.VDisk) bool { return v.Node == c.opt.Node }

// reaches tells whether this node reaches the objects of a vPool.
func (c *Controller) reaches(p model.VPool) bool { return p.Node == "" || p.Node == c.opt.Node }

// NodeName is what people call a node.
func (c *Controller) NodeName(id string) string {
	if n, ok := c.model.Node(id); ok {
		return n.Name
	}
	return id
}

// askNode tells where a node is asked.
func (c *Controller) askNode(id string) string {
	n, ok := c.model.Node(id)
	if !ok {
		return "ask that node"
	}
	return "ask that node: ovgate --url " + n.API
}

// served refuses work on a vDisk that another node serves.
func (c *Controller) served(v model.VDisk) *Error {
	if c.mine(v) {
		return nil
	}
	return &Error{Code: CodeElsewhere, Node: v.Node, Object: vdiskObject(v.Name), Message: "node " + c.NodeName(v.Node) + " serves it", Hint: c.askNode(v.Node)}
}

// Served returns an error that names the node if another one serves a vDisk.
func (c *Controller) Served(v model.VDisk) error {
	if e := c.served(v); e != nil {
		return e
	}
	return nil
}

// reached refuses work on a vPool that only another node reaches.
func (c *Controller) reached(p model.VPool, field string) *Error {
	if c.reaches(p) {
		return nil
	}
	return &Error{Code: CodeElsewhere, Node: p.Node, Field: field, Object: vpoolObject(p.Name), Message: "only node " + c.NodeName(p.Node) + " reaches its objects",
		Hint: c.askNode(p.Node) + ", or use a vPool on Alba, Swift or S3"}
}

// placed refuses a new vDisk that is to be on another node.
func (c *Controller) placed(ctx context.Context, in NewDisk) *Error {
	if in.Node == "" {
		return nil
	}
	to, ok := c.model.FindNode(in.Node)
	if !ok {
		return noNode(in.Node, "node")
	}
	if e := c.takes(ctx, to); e != nil || to.ID == c.opt.Node {
		return e
	}
	return &Error{Code: CodeElsewhere, Node: to.ID, Field: "node", Object: vdiskObject(clip(in.Name)), Message: "it is to be on node " + to.Name, Hint: c.askNode(to.ID)}
}

// Reached tells whether this node reaches the objects of a vPool.
func (c *Controller) Reached(p model.VPool) bool { return c.reaches(p) }

// giveUp takes out of service what another node serves; d.lock is held. What cannot be
// committed any more stays in the journal.
func (c *Controller) giveUp(ctx context.Context, d *vdisk, rec model.VDisk) error {
	if d.disk != nil {
		d.disk.revoke() // what waits would keep its sessions
	}
	if d.exported {
		if err := c.takeOut(ctx, d, rec); err != nil {
			return err
		}
	}
	if d.vol == nil {
		return nil
	}
	c.log.Warn("vDisk is another node's; it is closed here", "vdisk", rec.Name, "id", rec.ID, "node", c.NodeName(rec.Node))
	if err := c.endVerify(ctx, rec.ID); err != nil {
		return err
	}
	if err := c.closeVolume(ctx, d); err != nil {
		c.log.Warn("vDisk of another node did not close orderly", "vdisk", rec.Name, "id", rec.ID, "err", err)
	}
	c.mu.Lock()
	d.state = "" // should it come back, it is opening
	c.mu.Unlock()
	return nil
}

// takeOut takes an exported vDisk out of the front end, and the sessions on its own target
// with it; where every node shows it, a stand-in takes its place. d.lock is held.
func (c *Controller) takeOut(ctx context.Context, d *vdisk, rec model.VDisk) error {
	now, ok := c.model.VDisk(rec.ID)
	if ok && c.opt.Paths && now.Target != nil && now.State == model.StatePresent {
		c.setExported(d, false)
		return c.putOwn(d, now)
	}
	if rec.Shared != nil {
		return c.hideShared(ctx, d, rec)
	}
	return c.withdraw(d, rec, true)
}

// Follow hears of a record that another node stored, or this one: kind and key of
// model.Change. It does not block.
func (c *Controller) Follow(ch model.Change) {
	switch ch.Kind {
	case "vpool":
		c.schedule(ref{"vpool", ch.Key}, 0)
	case "vdisk":
		rec, ok := c.model.VDisk(ch.Key)
		open := c.volume(ch.Key) != nil
		c.followPath(ch.Key, rec, ok)
		if !ok {
			if open {
				c.log.Error("the record of an open vDisk is gone", "id", ch.Key)
			}
			return
		}
		if c.mine(rec) != open || rec.Handover != nil && c.mine(rec) {
			c.schedule(ref{"vdisk", ch.Key}, 0)
		}
		c.opt.Changed("vdisk", ch.Key)
	case "node":
		c.followPortals()
		c.schedule(ref{"node", ch.Key}, 0)
	case "target":
		c.schedule(ref{"target", ch.Key}, 0)
	case "backend":
		c.schedule(ref{"backend", ch.Key}, 0)
	case "cloud", "center", "datastore":
		c.opt.Changed(ch.Kind, ch.Key)
	}
}

// fresh reads the vDisks anew, and follows what changed.
func (c *Controller) fresh(ctx context.Context) error {
	changed, err := c.model.FreshVDisks(ctx)
	for _, id := range changed {
		c.Follow(model.Change{Kind: "vdisk", Key: id})
	}
	return err
}

// elsewhereState is what a vDisk is that another node serves.
func (c *Controller) elsewhereState(v model.VDisk) DiskStatus {
	if c.isGone(v.Node) {
		return c.waitingState(v)
	}
	return DiskStatus{State: StateElsewhere}
}

// StateElsewhere: another node serves it.
const StateElsewhere volume.State = "elsewhere"
