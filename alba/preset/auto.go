package preset

import (
	"fmt"
	"slices"
)

// Automatic returns the policies for the devices of each node: the widest code
// that they can hold, and narrower ones to fall back on. It is what the default
// preset follows as the cluster grows.
//
//	nodes >= 3   no node holds more than m fragments, so a node may be lost
//	nodes  = 2   (2,2,3,2): a node may be lost
//	one node     as many parities as the devices allow: devices may be lost
//
// A list always ends with copies, so that writes go on while two devices live;
// a single device gets (1,0,1,1), which Redundant refuses.
func Automatic(perNode []int) []Policy {
	var nodes, devices int
	for _, d := range perNode {
		if d > 0 {
			nodes++
			devices += d
		}
	}
	var out []Policy
	add := func(all ...Policy) {
		for _, p := range all {
			if p.Places(perNode) == p.N() && !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	switch {
	case devices <= 1:
		return []Policy{{1, 0, 1, 1}}
	case nodes >= 3:
		add(Policy{8, 4, 10, 1}, Policy{8, 4, 10, 2}, Policy{8, 4, 10, 4}, Policy{4, 2, 5, 1}, Policy{4, 2, 5, 2}, Policy{2, 2, 3, 2}, Policy{1, 2, 2, 1})
	case nodes == 2:
		add(Policy{2, 2, 3, 2}, Policy{1, 1, 2, 1})
	default:
		add(Policy{8, 4, 10, 12}, Policy{4, 2, 5, 6}, Policy{3, 2, 4, 5}, Policy{2, 2, 3, 4}, Policy{2, 1, 3, 3})
	}
	// Of several codes of one shape the first, with the smallest x, is enough.
	out = narrowest(out)
	last := Policy{1, 1, 2, 2}
	if !slices.Contains(out, Policy{1, 1, 2, 1}) || nodes == 2 {
		out = append(out, last)
	}
	return out
}

// narrowest keeps the first policy of each (k,m).
func narrowest(all []Policy) []Policy {
	var out []Policy
	for _, p := range all {
		if !slices.ContainsFunc(out, func(q Policy) bool { return q.K == p.K && q.M == p.M }) {
			out = append(out, p)
		}
	}
	return out
}

// Safety is what a chunk stored by a policy survives, counted in devices and
// nodes that may be lost at the same time.
type Safety struct {
	Devices int // any so many devices
	Nodes   int // any so many nodes
}

// Complete returns the safety of chunks whose fragments are all there (P3) on
// nodes with so many devices each: fragments are spread evenly, x at most.
func (p Policy) Complete(perNode []int) Safety {
	return Safety{Devices: p.M, Nodes: nodesLost(spread(p.N(), p.X, perNode), p.M)}
}

// spread distributes n fragments over nodes, evenly as far as devices and x
// allow, and returns the number on each, largest first.
func spread(n, x int, perNode []int) []int {
	on := make([]int, len(perNode))
	for range n {
		best := -1
		for i, d := range perNode {
			if on[i] < min(d, x) && (best < 0 || on[i] < on[best]) {
				best = i
			}
		}
		if best < 0 {
			break
		}
		on[best]++
	}
	slices.SortFunc(on, func(a, b int) int { return b - a })
	return on
}

// nodesLost returns how many of the nodes, the fullest first, may go while at
// most "spare" fragments go with them.
func nodesLost(on []int, spare int) int {
	n := 0
	for _, f := range on {
		if f == 0 || f > spare {
			break
		}
		spare -= f
		n++
	}
	return n
}

// Explain says in a sentence what the policy survives on these nodes, what
// survives right after an acknowledgement, and what it costs.
func (p Policy) Explain(perNode []int) string {
	s := p.Complete(perNode)
	text := "any " + plural(s.Devices, "disk")
	switch {
	case s.Devices == 0:
		text = "no disk"
	case s.Nodes > 0:
		text += " or " + plural(s.Nodes, "node")
	}
	at := plural(p.C-p.K, "disk")
	if p.C == p.K {
		at = "no disk"
	}
	return fmt.Sprintf("survives the loss of %s (%s from the moment of the acknowledgement); %.2f bytes stored per byte", text, at, float64(p.N())/float64(p.K))
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
