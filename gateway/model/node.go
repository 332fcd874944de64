package model

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/openvstorage/ovgate/internal/kv"
)

// Node is a machine that runs ovgate, as it was when it started last. It stays when the node
// is down.
type Node struct {
	Format  int    `json:"format"`
	ID      string `json:"id"` // UUID
	Name    string `json:"name"`
	Version string `json:"version"`
	API     string `json:"api"` // URL
	// Portals are the iSCSI portals as initiators reach them, HOST:PORT.
	Portals []string `json:"portals,omitempty"`
	// Slot numbers the node in the cluster, from 1; 0: it has not started since there are
	// slots. The portal groups of slot s are PortGroups(s).
	Slot int `json:"slot,omitempty"`
	// Groups are the portal groups of Portals, one each.
	Groups []uint16 `json:"groups,omitempty"`
	// Gossip is where others reach its gossip, HOST:PORT; empty: it runs none.
	Gossip string `json:"gossip,omitempty"`
	// Leaving: it is about to leave the cluster, and gets nothing new to serve.
	Leaving bool `json:"leaving,omitempty"`
	// DTL is where other nodes reach its DTL listener, HOST:PORT; "": it has none.
	DTL string `json:"dtl,omitempty"`
	// Devices is where other nodes reach its devices of the Alba, HOST:PORT; "": it serves
	// none.
	Devices string `json:"devices,omitempty"`
	// Domain is what fails with it, such as its rack; copies go to another one if they can.
	Domain string `json:"domain,omitempty"`
	// Draining: it hands over what it serves, and takes nothing.
	Draining bool      `json:"draining,omitempty"`
	Joined   time.Time `json:"joined"`  // its first start
	Started  time.Time `json:"started"` // its last start

	Rev int64 `json:"-"`
}

func (n Node) key() string { return n.ID }
func (n Node) unique() []string {
	if n.Slot == 0 {
		return []string{"node/" + n.Name}
	}
	return []string{"node/" + n.Name, "nodeslot/" + strconv.Itoa(n.Slot)}
}
func (n Node) format() int { return n.Format }
func (n Node) rev() int64  { return n.Rev }
func (n Node) clone(rev int64) Node {
	n.Rev = rev
	n.Portals, n.Groups = slices.Clone(n.Portals), slices.Clone(n.Groups)
	return n
}

const (
	// slotGroups is how many portal groups a node may have: more than its portals.
	slotGroups = 64
	// MaxSlot is the last slot: tags have 16 bits.
	MaxSlot = 0xffff/slotGroups - 1
)

// PortGroups returns the first and the last portal group tag of a slot. The node in slot 1
// has the tags that a node by itself has.
func PortGroups(slot int) (first, last uint16) {
	return uint16((slot-1)*slotGroups + 1), uint16(slot * slotGroups)
}

// FreeSlot returns the lowest slot above last that no node has, as far as is known here: who
// takes it may find that another one did (ErrExists, ErrConflict). 0: there is none.
func (s *Store) FreeSlot(last int) int {
	used := map[int]bool{}
	for _, n := range s.nodes.all(nil) {
		used[n.Slot] = true
	}
	for slot := last + 1; slot <= MaxSlot; slot++ {
		if !used[slot] {
			return slot
		}
	}
	return 0
}

// CreateNode stores a new node; ErrExists if its name is taken.
func (s *Store) CreateNode(ctx context.Context, n Node) (Node, error) {
	n.Format = Format
	return s.nodes.insert(ctx, n, nil)
}

// AdmitNode stores a new node together with ops, if all conditions hold; ErrConflict if one
// does not, ErrExists if its name or id is taken.
func (s *Store) AdmitNode(ctx context.Context, n Node, conditions []kv.Compare, ops ...kv.Op) (Node, error) {
	n.Format = Format
	return s.nodes.insert(ctx, n, conditions, ops...)
}

// StoredNode reads a node from the registry, past memory; ErrNotFound: there is none.
func (s *Store) StoredNode(ctx context.Context, id string) (Node, error) {
	return s.nodes.stored(ctx, id)
}

// Node returns a node by id.
func (s *Store) Node(id string) (Node, bool) { return s.nodes.get(id) }

// FindNode returns a node by id or name.
func (s *Store) FindNode(ref string) (Node, bool) {
	if n, ok := s.nodes.get(ref); ok {
		return n, true
	}
	return s.nodes.lookup("node/" + ref)
}

// Nodes returns the nodes in no particular order.
func (s *Store) Nodes() []Node { return s.nodes.all(nil) }

// UpdateNode changes a node through fn; an error of fn is returned and nothing changes.
// ErrExists: its name is another one's.
func (s *Store) UpdateNode(ctx context.Context, id string, fn func(*Node) error) (Node, error) {
	return s.nodes.update(ctx, id, func(n *Node) error {
		n.Format = Format
		return fn(n)
	})
}

// RemoveNode takes a node out of the records, in steps that can be repeated: check looks at
// what the registry holds (nodes, and the vDisks that name it), then the node is marked, so
// that it gets nothing new, check looks again, and it is deleted. An error of check takes the
// mark away. Absent is no error.
func (s *Store) RemoveNode(ctx context.Context, id string, check func(nodes []Node, owned []VDisk) error) error {
	if _, ok := s.nodes.get(id); !ok {
		return nil
	}
	look := func() error {
		nodes, err := s.nodes.read(ctx, nil)
		if err != nil {
			return err
		}
		owned, err := s.vdisks.read(ctx, func(v VDisk) bool { return v.Node == id || v.Node == "" })
		if err != nil {
			return err
		}
		return check(nodes, owned)
	}
	if err := look(); err != nil {
		return err
	}
	if err := s.MarkLeaving(ctx, id, true); err != nil {
		return err
	}
	if err := look(); err != nil {
		return errors.Join(err, s.MarkLeaving(ctx, id, false))
	}
	return s.nodes.remove(ctx, id, nil)
}

// MarkLeaving says that a node is about to leave, so that it gets nothing new, or that it stays.
func (s *Store) MarkLeaving(ctx context.Context, id string, leaving bool) error {
	_, err := s.UpdateNode(ctx, id, func(n *Node) error { n.Leaving = leaving; return nil })
	return err
}
