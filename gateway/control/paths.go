package control

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/iscsi"
)

// Every node of a cluster shows the targets of all, through its own portals. The node that
// serves a vDisk is the active/optimized path; the others are active/non-optimized, and
// forward its commands. So a vDisk that changes its node stays where it is for initiators:
//
//	record says   front end of this node has
//	this node     the vDisk once it is open; until then a stand-in, whose commands wait
//	another node  a stand-in, whose commands go there
//
// A target is shown as its record says, on whatever node; only a node that has nothing to
// say of it takes it out: the vDisk was deleted or unpublished.

// standIn returns the stand-in for a vDisk, the same one as long as there is a record.
func (c *Controller) standIn(v model.VDisk) iscsi.Disk {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.standIns[v.ID]
	if d == nil {
		d = iscsi.NewRemoteDisk(v.Size, v.ClusterSize)
		c.standIns[v.ID] = d
	}
	d.SetSize(v.Size)
	return d
}

// Owner returns the node that serves the vDisk with a unit serial number; "": it is this
// one, or there is none.
func (c *Controller) Owner(serial string) string {
	if len(serial) != 32 {
		return ""
	}
	id := strings.Join([]string{serial[:8], serial[8:12], serial[12:16], serial[16:20], serial[20:]}, "-")
	v, ok := c.model.VDisk(id)
	if !ok || c.mine(v) {
		return ""
	}
	return v.Node
}

// ownerGroups are the portal groups of the node that serves a vDisk; none without paths
// through other nodes.
func (c *Controller) ownerGroups(v model.VDisk) iscsi.PortRange {
	n, ok := c.model.Node(v.Node)
	if !c.opt.Paths || !ok || n.Slot == 0 {
		return iscsi.PortRange{}
	}
	first, last := model.PortGroups(n.Slot)
	return iscsi.PortRange{First: first, Last: last}
}

// redirect says where initiators of a target sign in that is reached at the node of its vDisk
// only; nil: here. Until another node serves a vDisk whose node is lost, nothing else does.
func (c *Controller) redirect(t Target) *iscsi.Redirect {
	if !t.Access.Redirect || !c.opt.Paths || len(t.LUNs) != 1 || c.mine(t.LUNs[0].VDisk) {
		return nil
	}
	n, ok := c.model.Node(t.LUNs[0].VDisk.Node)
	if !ok || n.Slot == 0 {
		return nil
	}
	var at []string
	for _, a := range n.Portals {
		if len(t.Access.Portals) == 0 || slices.Contains(t.Access.Portals, a) {
			at = append(at, a)
		}
	}
	if len(at) == 0 {
		return nil // its commands are forwarded
	}
	return &iscsi.Redirect{Addresses: at}
}

// maxTargetPortals is what a target of the front end takes.
const maxTargetPortals = 64

// otherPortals returns the portals of the other nodes.
func (c *Controller) otherPortals() []iscsi.Portal {
	if !c.opt.Paths {
		return nil
	}
	nodes := c.model.Nodes()
	slices.SortFunc(nodes, func(a, b model.Node) int { return cmp.Compare(a.Slot, b.Slot) })
	var out []iscsi.Portal
	for _, n := range nodes {
		if n.ID == c.opt.Node || n.Slot == 0 || len(n.Groups) != len(n.Portals) {
			continue
		}
		for i, a := range n.Portals {
			out = append(out, iscsi.Portal{Address: a, Local: nowhere, Group: n.Groups[i]})
		}
	}
	return out
}

// visitPath gives the own target of a vDisk that another node serves to the front end as it
// is recorded, or takes it out; true: visit it again.
func (c *Controller) visitPath(ctx context.Context, id string) bool {
	d := c.vdisk(id)
	if err := d.lock.acquire(ctx); err != nil {
		return true
	}
	defer d.lock.release()
	rec, ok := c.model.VDisk(id)
	if ok && c.mine(rec) && d.vol != nil {
		return false // opening and closing it see to that
	}
	if err := c.showPath(d, id, rec, ok); err != nil {
		c.log.Warn("target of a vDisk of another node is not as it was changed there", "id", id, "iqn", d.shown, "err", err)
		return true
	}
	return false
}

// showPath has the front end show the own target of a vDisk that is not open here, with a
// stand-in; d.lock is held.
func (c *Controller) showPath(d *vdisk, id string, rec model.VDisk, known bool) error {
	if known && c.opt.Paths && rec.Target != nil && rec.State == model.StatePresent && (!c.mine(rec) || d.shown != "") {
		return c.putOwn(d, rec)
	}
	if d.shown == "" || known && rec.Target != nil && c.mine(rec) {
		return nil
	}
	if err := c.opt.Frontend.RemoveTarget(d.shown, true); err != nil && !errors.Is(err, iscsi.ErrNoTarget) {
		return err
	}
	c.setShown(d, "")
	if !known {
		c.mu.Lock()
		delete(c.standIns, id)
		c.mu.Unlock()
	}
	return nil
}

// putOwn gives a vDisk's own target to the front end; d.lock is held.
func (c *Controller) putOwn(d *vdisk, rec model.VDisk) error {
	if err := c.put(ownTarget(rec), d.shown == rec.IQN); err != nil {
		return err
	}
	c.setShown(d, rec.IQN)
	return nil
}

func (c *Controller) setShown(d *vdisk, iqn string) {
	c.mu.Lock()
	d.shown = iqn
	c.mu.Unlock()
}

// followPath hears of a vDisk whose record changed.
func (c *Controller) followPath(id string, rec model.VDisk, ok bool) {
	if !c.opt.Paths {
		return
	}
	c.opt.Moved()
	switch {
	case ok && rec.Shared != nil:
		c.schedule(ref{"target", rec.Shared.Target}, 0)
	case !ok || !c.mine(rec) || rec.Target != nil && rec.Target.Redirect:
		c.schedule(ref{"path", id}, 0) // with a redirect also before it is open: no login is sent back
	}
}

// followPortals has the targets shown with the portals that the nodes have now, if these
// changed.
func (c *Controller) followPortals() {
	if !c.opt.Paths {
		return
	}
	now := c.otherPortals()
	c.mu.Lock()
	same := slices.Equal(now, c.portals)
	c.portals = now
	c.mu.Unlock()
	if !same {
		c.schedulePaths()
	}
}

// schedulePaths has every target visited.
func (c *Controller) schedulePaths() {
	for _, v := range c.model.VDisks(func(v model.VDisk) bool { return v.Target != nil }) {
		if c.mine(v) {
			c.schedule(ref{"vdisk", v.ID}, 0)
		} else {
			c.schedule(ref{"path", v.ID}, 0)
		}
	}
	for _, t := range c.model.Targets() {
		c.schedule(ref{"target", t.ID}, 0)
	}
}
