package node

import (
	"fmt"
	"testing"
)

// TestRebalance: any node is asked to spread the vDisks, and those that have them hand them
// over; initiators go on.
func TestRebalance(t *testing.T) {
	t.Parallel() // it waits more than it works
	c := newMembers(t, 3)
	var ids []string
	for i := range 6 {
		ids = append(ids, c.nodes[0].disk(fmt.Sprintf("d%d", i), "gold", 1<<30))
	}
	var checks []*checker
	var stops []func()
	for _, id := range ids[:2] {
		k := &checker{t: t, c: c, vdisk: id}
		checks, stops = append(checks, k), append(stops, k.start())
		k.more()
	}
	rebalance := func(n *running, dry bool) map[string]int {
		t.Helper()
		to := map[string]int{}
		for _, it := range n.call("POST", "/cluster/rebalance", map[string]any{"dryRun": dry}, 200)["items"].([]any) {
			h := it.(map[string]any)
			if h["from"] != "n1" {
				t.Errorf("planned: %v", h)
			}
			to[h["to"].(string)]++
		}
		return to
	}
	has := func(i int) (n int) {
		for _, id := range ids {
			if c.nodes[i].diskState(id) == "running" {
				n++
			}
		}
		return n
	}
	for i, n := range c.nodes {
		n.until("known here", func() bool { return len(n.call("GET", "/vdisks", nil, 200)["items"].([]any)) == len(ids) })
		if p := rebalance(n, true); len(p) != 2 || p["n2"] != 2 || p["n3"] != 2 {
			t.Errorf("plan of node %d: %v", i+1, p)
		}
	}
	if has(0) != 6 {
		t.Error("a plan moved something")
	}
	if p := rebalance(c.nodes[2], false); len(p) != 2 || p["n2"] != 2 || p["n3"] != 2 {
		t.Errorf("handed over: %v", p)
	}
	for i, n := range c.nodes {
		n.until("two vDisks on each node", func() bool { return has(i) == 2 })
	}
	for _, k := range checks {
		k.more()
	}
	for _, n := range c.nodes {
		n.until("nothing is left to move", func() bool { return len(rebalance(n, true)) == 0 })
	}
	for i, k := range checks {
		stops[i]()
		k.whole()
		k.s.Close()
	}
}
