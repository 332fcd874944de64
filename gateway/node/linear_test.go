package node

import (
	"context"
	"testing"

	"github.com/openvstorage/ovgate/gateway/clustertest"
	"github.com/openvstorage/ovgate/iscsi/initiator"
)

// servedBy returns which node serves a vDisk, and another one.
func (c *members) servedBy(vdisk string) (owner, other int) {
	c.t.Helper()
	owner = -1
	c.all()[0].until(vdisk+" served", func() bool {
		for i, n := range c.nodes {
			if n != nil && n.diskState(vdisk) == "running" {
				owner = i
			}
		}
		return owner >= 0
	})
	return owner, (owner + 1) % len(c.nodes)
}

// TestClusterLinear: clients read and write the same blocks while the vDisk is moved, its node
// is cut off from the registry, stops and comes back, and another one takes the vDisk over
// with its copy of the journal. What they hear is linearizable.
func TestClusterLinear(t *testing.T) {
	t.Parallel() // it waits more than it works
	c := newMirrored(t, 2)
	id := c.nodes[0].disk("a", "gold", 1<<30)
	const blocks = 8
	for round := range clustertest.Rounds(t) {
		k := &clustertest.Clients{Count: 4, Blocks: blocks, First: uint64(round) * blocks, Seed: uint64(round),
			Dial: func(ctx context.Context) (*initiator.Session, error) { return c.dial(ctx, id) }}
		k.Start(t.Context())
		more := func() {
			t.Helper()
			from := k.Answered()
			c.all()[0].until("clients served", func() bool { return k.Answered() >= from+100 })
		}
		faults := []func(owner, other int){
			func(owner, other int) {
				c.nodes[owner].call("POST", "/vdisks/a/handover", map[string]any{"node": c.name(other)}, 202)
				c.nodes[other].until("moved", func() bool { return c.nodes[other].diskState(id) == "running" })
			},
			func(owner, other int) {
				c.wires[owner].Cut()
				c.nodes[other].until("taken over", func() bool { return c.nodes[other].diskState(id) == "running" })
				more()
				c.wires[owner].Heal()
				c.nodes[owner].until("gone here", func() bool { return c.nodes[owner].diskState(id) == "elsewhere" })
			},
			func(owner, other int) {
				n := c.nodes[owner]
				c.set(owner, nil)
				if err := n.stop(); err != nil {
					t.Fatal(err)
				}
				c.nodes[other].until("taken over", func() bool { return c.nodes[other].diskState(id) == "running" })
				more()
				c.start(owner)
			},
		}
		if testing.Short() {
			faults = faults[:1] // the others wait for a lease to end
		}
		for _, fault := range faults {
			owner, other := c.servedBy(id)
			c.nodes[owner].untilDTL("a", "ok")
			more()
			fault(owner, other)
			more()
		}
		if err := k.Stop(t.Context()); err != nil {
			t.Fatalf("round %d, %v: %v", round, k, err)
		}
		t.Logf("round %d: %v", round, k)
	}
}
