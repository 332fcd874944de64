package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/openvstorage/ovgate/gateway/cluster"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/iscsi"
)

// leaseStop bounds how long the end of the lease is waited for: it ends by itself.
const leaseStop = 5 * time.Second

// openLease takes the node's lease, which it has until everything that serves is closed.
func (n *node) openLease(ctx context.Context) error {
	var err error
	if n.lease, err = cluster.OpenLease(ctx, cluster.LeaseOptions{Store: n.kv, Node: n.self.ID, TTL: n.cfg.Cluster.Lease, Log: n.log}); err != nil {
		return err
	}
	n.onClose(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), leaseStop)
		defer cancel()
		if err := n.lease.Close(ctx); err != nil {
			n.log.Warn("the node's lease is not given back; it ends by itself", "err", err)
		}
		return nil
	})
	return notRestoring(ctx, n.kv) // one that did not see the lease began before it
}

// runsTwice returns an error when another process takes the node's lease.
func (n *node) runsTwice(ctx context.Context) error {
	for {
		moved := n.lease.Moved()
		if n.lease.Twice() {
			return fmt.Errorf("node %s: %w: stop the other one, or give this one a data directory of its own", n.self.Name, cluster.ErrTwice)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-moved:
		}
	}
}

// register stores what others are to know of this node.
func (n *node) register(ctx context.Context, portals []iscsi.Portal) error {
	now := model.Node{ID: n.self.ID, Name: n.self.Name, Version: Version(n.opt.Version).Version, API: n.reachURL(), Gossip: n.member.address(), Joined: n.started.UTC(), Started: n.started.UTC()}
	now.DTL, now.Devices, now.Domain, now.Slot = n.dtl.address, n.devices.address, n.cfg.Domain, n.slot
	for _, p := range portals {
		now.Portals, now.Groups = append(now.Portals, p.Address), append(now.Groups, p.Group)
	}
	var err error
	if _, known := n.model.Node(n.self.ID); known {
		_, err = n.model.UpdateNode(ctx, n.self.ID, func(r *model.Node) error {
			r.Name, r.Version, r.API, r.Portals, r.Started, r.Gossip, r.Leaving = now.Name, now.Version, now.API, now.Portals, now.Started, now.Gossip, false
			r.DTL, r.Devices, r.Domain, r.Slot, r.Groups = now.DTL, now.Devices, now.Domain, now.Slot, now.Groups
			return nil
		})
	} else {
		_, err = n.model.CreateNode(ctx, now)
	}
	if _, taken := n.model.FindNode(n.self.Name); errors.Is(err, model.ErrExists) && !taken {
		return fmt.Errorf("another node of the cluster started at the same moment: start this one again: %w", err)
	}
	if errors.Is(err, model.ErrExists) {
		return fmt.Errorf("the cluster has another node with the name %q: choose another one with node_name in the configuration", n.self.Name)
	}
	return err
}

// findSlot returns the slot that this node has, or will have. One that joined takes it at once:
// others may start at the same moment.
func (n *node) findSlot(ctx context.Context) (int, error) {
	for slot := n.model.FreeSlot(0); slot > 0; slot = n.model.FreeSlot(slot) {
		r, known := n.model.Node(n.self.ID)
		if r.Slot > 0 {
			return r.Slot, nil
		}
		if !known {
			return slot, nil
		}
		r, err := n.model.UpdateNode(ctx, n.self.ID, func(r *model.Node) error {
			if r.Slot == 0 {
				r.Slot = slot
			}
			return nil
		})
		if err == nil {
			return r.Slot, nil
		}
		if !errors.Is(err, model.ErrConflict) && !errors.Is(err, model.ErrExists) {
			return 0, err
		}
	}
	return 0, fmt.Errorf("the cluster has %d nodes, which is the most: remove one that is not used with ovgate node remove", model.MaxSlot)
}

// livingWait bounds how long a list waits for the registry.
const livingWait = 2 * time.Second

// living returns the nodes that have their lease.
func (n *node) living(ctx context.Context) (map[string]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, livingWait)
	defer cancel()
	return cluster.Living(ctx, n.kv)
}
