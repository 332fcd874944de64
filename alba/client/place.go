package client

import (
	"maps"
	"slices"

	"github.com/openvstorage/ovgate/alba/preset"
)

// candidate is a device that could take a fragment.
type candidate struct {
	number uint32
	node   string
	group  string // what x of the policy counts it by
	free   int64  // bytes
}

// candidate returns a device as one for fragments of a preset.
func (d *device) candidate(p preset.Preset, free int64) candidate {
	return candidate{d.rec.Number, d.rec.Node, p.Spread.Group(d.rec.Node, d.rec.Domain), free}
}

// tally counts the fragments of a chunk by group and by node.
type tally struct{ groups, nodes map[string]int }

func newTally() tally { return tally{map[string]int{}, map[string]int{}} }

// add counts n more fragments on a device.
func (t tally) add(c candidate, n int) {
	t.groups[c.group] += n
	t.nodes[c.node] += n
}

// place chooses up to n of the candidates, at most x in a group: groups as evenly as
// their devices allow, within a group its nodes, and devices at random with the weight of
// their free space. taken counts what is there already, and is not changed. random
// returns numbers in [0,1). The result may be shorter than n when there is no room for
// more.
func place(all []candidate, n, x int, taken tally, random func() float64) []candidate {
	left := slices.Clone(all)
	t := tally{maps.Clone(taken.groups), maps.Clone(taken.nodes)}
	var out []candidate
	for len(out) < n && len(left) > 0 {
		// The groups with the fewest fragments, in them the nodes with the fewest, and
		// among their devices by weight.
		in, on := t.groups[left[0].group], t.nodes[left[0].node]
		for _, c := range left {
			if g, n := t.groups[c.group], t.nodes[c.node]; g < in || g == in && n < on {
				in, on = g, n
			}
		}
		if in >= x {
			break
		}
		fits := func(c candidate) bool { return t.groups[c.group] == in && t.nodes[c.node] == on }
		var total float64
		for _, c := range left {
			if fits(c) {
				total += weight(c)
			}
		}
		at, pick := random()*total, -1
		for i, c := range left {
			if !fits(c) {
				continue
			}
			pick = i
			if at -= weight(c); at < 0 {
				break
			}
		}
		c := left[pick]
		out = append(out, c)
		t.add(c, 1)
		left = slices.Delete(left, pick, pick+1)
	}
	return out
}

// weight is never 0, so that devices of which nothing is known are used too.
func weight(c candidate) float64 { return float64(max(c.free, 1<<20)) }

// candidates returns the devices that may take fragments of a preset now, without
// those in "without".
func (c *Client) candidates(p preset.Preset, without map[uint32]bool) []candidate {
	v := c.devices.view.Load()
	var out []candidate
	for n, dev := range v.byNumber {
		if !dev.rec.Takes() || without[n] || dev.osd == nil || len(p.OSDs) > 0 && !slices.Contains(p.OSDs, n) {
			continue
		}
		dev.mu.Lock()
		usable := dev.bad == nil && !dev.full && !v.full[n]
		dev.mu.Unlock()
		if usable {
			out = append(out, dev.candidate(p, v.free[n]))
		}
	}
	// Maps have no order; the random numbers alone decide.
	slices.SortFunc(out, func(a, b candidate) int { return int(a.number) - int(b.number) })
	return out
}

// perGroup counts candidates by group.
func perGroup(all []candidate) []int {
	in := map[string]int{}
	for _, c := range all {
		in[c.group]++
	}
	return slices.Collect(maps.Values(in))
}

// full counts the devices that take no fragments only because they are full.
func (c *Client) full() int {
	v := c.devices.view.Load()
	n := 0
	for number, dev := range v.byNumber {
		dev.mu.Lock()
		if dev.bad == nil && (dev.full || v.full[number]) && dev.rec.Takes() {
			n++
		}
		dev.mu.Unlock()
	}
	return n
}
