package preset

import (
	"fmt"
	"slices"
)

// Automatic returns the policies for the devices of each group, a node or a domain: the
// widest code that they can hold, and narrower ones to fall back on. It is what the
// default preset follows as the cluster grows.
//
//	groups >= 3   none holds more than m fragments, so one may be lost
//	groups  = 2   (2,2,3,2): one may be lost
//	one group     as many parities as the devices allow: devices may be lost
//
// A list always ends with copies, so that writes go on while two devices live;
// a single device gets (1,0,1,1), which Redundant refuses.
func Automatic(perGroup []int) []Policy {
	var groups, devices int
	for _, d := range perGroup {
		if d > 0 {
			groups++
			devices += d
		}
	}
	var out []Policy
	add := func(all ...Policy) {
		for _, p := range all {
			if p.Places(perGroup) == p.N() && !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	switch {
	case devices <= 1:
		return []Policy{{1, 0, 1, 1}}
	case groups >= 3:
		add(Policy{8, 4, 10, 1}, Policy{8, 4, 10, 2}, Policy{8, 4, 10, 4}, Policy{4, 2, 5, 1}, Policy{4, 2, 5, 2}, Policy{2, 2, 3, 2}, Policy{1, 2, 2, 1})
	case groups == 2:
		add(Policy{2, 2, 3, 2}, Policy{1, 1, 2, 1})
	default:
		add(Policy{8, 4, 10, 12}, Policy{4, 2, 5, 6}, Policy{3, 2, 4, 5}, Policy{2, 2, 3, 4}, Policy{2, 1, 3, 3})
	}
	// Of several codes of one shape the first, with the smallest x, is enough.
	out = narrowest(out)
	last := Policy{1, 1, 2, 2}
	if !slices.Contains(out, Policy{1, 1, 2, 1}) || groups == 2 {
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
// groups that may be lost at the same time.
type Safety struct {
	Devices int // any so many devices
	Groups  int // any so many nodes, or domains
}

// Complete returns the safety of chunks whose fragments are all there (P3) in
// groups with so many devices each: fragments are spread evenly, x at most.
func (p Policy) Complete(perGroup []int) Safety {
	return Safety{Devices: p.M, Groups: GroupsLost(spread(p.N(), p.X, perGroup), p.M)}
}

// spread distributes n fragments over groups, evenly as far as devices and x
// allow, and returns the number in each.
func spread(n, x int, perGroup []int) []int {
	in := make([]int, len(perGroup))
	for range n {
		best := -1
		for i, d := range perGroup {
			if in[i] < min(d, x) && (best < 0 || in[i] < in[best]) {
				best = i
			}
		}
		if best < 0 {
			break
		}
		in[best]++
	}
	return in
}

// GroupsLost returns how many groups, whichever they are, may be lost while at most
// "spare" fragments are lost with them; in holds how many are in each. Groups without
// any do not count.
func GroupsLost(in []int, spare int) int {
	sorted := slices.Clone(in)
	slices.SortFunc(sorted, func(a, b int) int { return b - a })
	n := 0
	for _, f := range sorted {
		if f == 0 || f > spare {
			break
		}
		spare -= f
		n++
	}
	return n
}

// Explain says in a sentence what chunks of a policy survive on the devices of each
// group, what they survive right after an acknowledgement, and what they cost.
func (p Preset) Explain(q Policy, perGroup []int) string {
	s := q.Complete(perGroup)
	text := "any " + plural(s.Devices, "disk")
	switch {
	case s.Devices == 0:
		text = "no disk"
	case s.Groups > 0:
		text += " or " + plural(s.Groups, p.Spread.String())
	}
	at := plural(q.C-q.K, "disk")
	if q.C == q.K {
		at = "no disk"
	}
	return fmt.Sprintf("survives the loss of %s (%s from the moment of the acknowledgement); %.2f bytes stored per byte", text, at, float64(q.N())/float64(q.K))
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
