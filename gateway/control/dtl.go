package control

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"slices"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// DTLModes are the modes of a vPool's DTL; the empty one of a vDisk is that of its vPool.
var DTLModes = []model.DTLMode{model.DTLOff, model.DTLAsync, model.DTLSync}

const dtlModeHint = "use off, async or sync"

// AutoPeer stands for the best node, where a peer is named.
const AutoPeer = "auto"

func validDTL(m model.DTLMode) bool { return slices.Contains(DTLModes, m) }

// dtlMode is the mode of a vDisk that has its own, else "".
func dtlMode(rec model.VDisk) volume.DTLMode {
	if rec.DTL == nil {
		return ""
	}
	return volume.DTLMode(rec.DTL.Mode)
}

// diskSettings are the engine's settings of a vDisk.
func diskSettings(pool model.VPool, rec model.VDisk) volume.Settings {
	s := engineSettings(pool.Settings)
	if m := dtlMode(rec); m != "" {
		s.DTL = m
	}
	return s
}

// dtlOf is volume.PoolConfig.DTLOf.
func (c *Controller) dtlOf(id volume.ID) volume.DTLMode {
	rec, _ := c.model.VDisk(id.String())
	return dtlMode(rec)
}

// DTLPatch changes where and how a vDisk's journal is mirrored; nil leaves it as it is.
type DTLPatch struct {
	Mode *model.DTLMode // "": that of its vPool
	Peer *string        // id or name of a node; AutoPeer or "": the best one
}

// SetDTL changes where and how the journal of a vDisk is mirrored, from now on. I/O goes on
// meanwhile.
func (c *Controller) SetDTL(ctx context.Context, name string, in DTLPatch) (model.VDisk, error) {
	var out model.VDisk
	err := c.withDisk(ctx, name, func(ctx context.Context, d *vdisk, rec model.VDisk) error {
		p := model.DTLPolicy{}
		if rec.DTL != nil {
			p = *rec.DTL
		}
		if in.Mode != nil {
			if p.Mode = *in.Mode; p.Mode != "" && !validDTL(p.Mode) {
				return invalid("mode", vdiskObject(rec.Name), dtlModeHint+", or inherit for its vPool's", "a DTL mode %q is not known", clip(string(p.Mode)))
			}
		}
		if in.Peer != nil {
			var e *Error
			if p.Peer, e = c.dtlPeer(rec, *in.Peer); e != nil {
				return e
			}
		}
		var err error
		out, err = c.model.UpdateVDisk(ctx, rec.ID, func(v *model.VDisk) error {
			if v.DTL = &p; p == (model.DTLPolicy{}) {
				v.DTL = nil
			}
			return nil
		})
		if err != nil {
			return err
		}
		if pool, ok := c.model.VPool(out.VPool); ok && d.vol != nil {
			if err := d.vol.SetSettings(diskSettings(pool, out)); err != nil {
				return err
			}
		}
		c.log.Info("DTL of a vDisk set", "vdisk", rec.Name, "mode", cmp.Or(string(p.Mode), "inherit"), "peer", cmp.Or(p.Peer, AutoPeer))
		return nil
	})
	return out, err
}

// dtlPeer returns the id of a node that can have the copy of a vDisk; "" for the best one.
func (c *Controller) dtlPeer(rec model.VDisk, ref string) (string, *Error) {
	if ref == "" || ref == AutoPeer {
		return "", nil
	}
	object, owner := vdiskObject(rec.Name), cmp.Or(rec.Node, c.opt.Node)
	n, ok := c.model.FindNode(ref)
	switch {
	case !ok:
		return "", &Error{Code: CodeNotFound, Field: "peer", Object: object, Message: fmt.Sprintf("there is no node %q", clip(ref)), Hint: "ovgate node list shows the nodes of the cluster; " + AutoPeer + " takes the best one"}
	case n.ID == owner:
		return "", invalid("peer", object, "name another node, or "+AutoPeer, "node %s serves it, and cannot have the copy of its own journal", n.Name)
	case n.DTL == "":
		return "", invalid("peer", object, "set dtl in the configuration of that node and restart it, or name another node", "node %s takes no copies of journals: it has no DTL listener", n.Name)
	}
	return n.ID, nil
}

// DTLPeers returns the nodes that may have the copy of a vDisk's journal, the best first:
// the one that it names; else those that live, in another domain first, then those that have
// fewest copies of this node's journals. It does not wait for anything.
func (c *Controller) DTLPeers(id volume.ID) []string {
	rec, _ := c.model.VDisk(id.String())
	if rec.DTL != nil && rec.DTL.Peer != "" {
		return []string{rec.DTL.Peer}
	}
	self, _ := c.model.Node(c.opt.Node)
	living := c.opt.LastLiving()
	copies := c.dtlCopies()
	type candidate struct {
		id     string
		near   bool
		copies int
		order  uint32 // so that vDisks that are opened at one moment do not all take one node
	}
	var all []candidate
	for _, n := range c.model.Nodes() {
		if n.ID == c.opt.Node || n.DTL == "" || !living[n.ID] {
			continue
		}
		h := fnv.New32a()
		_, _ = h.Write(append([]byte(n.ID), id[:]...))
		all = append(all, candidate{n.ID, n.Domain == self.Domain, copies[n.ID], h.Sum32()})
	}
	slices.SortFunc(all, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(rank(a.near), rank(b.near)), cmp.Compare(a.copies, b.copies), cmp.Compare(a.order, b.order))
	})
	out := make([]string, 0, len(all))
	for _, n := range all {
		out = append(out, n.id)
	}
	return out
}

func rank(b bool) int {
	if b {
		return 1
	}
	return 0
}

// dtlCopies counts the copies of this node's journals by the node that has them.
func (c *Controller) dtlCopies() map[string]int {
	n := map[string]int{}
	for _, o := range c.openDisks() {
		if p := o.vol.Condition().DTL.Peer; p != "" {
			n[p]++
		}
	}
	return n
}

// Mirrorable tells whether there is another node that takes copies of journals.
func (c *Controller) Mirrorable() bool {
	return slices.ContainsFunc(c.model.Nodes(), func(n model.Node) bool { return n.ID != c.opt.Node && n.DTL != "" })
}

// DTLStatus is how the journal of a vDisk is mirrored.
type DTLStatus struct {
	Mode      model.DTLMode
	Inherited bool   // Mode is that of its vPool
	Peer      string // name of the node that it asks for; AutoPeer
	Node      string // name of the node that has the copy, or is getting it; "": none
	Stats     volume.DTLStats
}

// DTLStatus returns it of a vDisk whose running side is known.
func (c *Controller) DTLStatus(v model.VDisk, s DiskStatus) DTLStatus {
	out := DTLStatus{Mode: model.DTLMode(dtlMode(v)), Peer: AutoPeer, Stats: s.Stats.DTL}
	if out.Mode == "" {
		pool, _ := c.model.VPool(v.VPool)
		out.Mode, out.Inherited = pool.Settings.DTLMode(), true
	}
	if v.DTL != nil && v.DTL.Peer != "" {
		out.Peer = c.NodeName(v.DTL.Peer)
	}
	if out.Stats.State == "" {
		out.Stats.State = volume.DTLOff
	}
	if out.Stats.Peer != "" {
		out.Node = c.NodeName(out.Stats.Peer)
	}
	return out
}
