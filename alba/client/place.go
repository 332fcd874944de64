package client

import (
	"slices"

	"github.com/openvstorage/ovgate/alba/preset"
)

// candidate is a device that could take a fragment.
type candidate struct {
	number uint32
	node   string
	free   int64 // bytes
}

// place chooses up to n of the candidates, at most x on a node: nodes as evenly
// as their devices allow, devices at random with the weight of their free space.
// taken counts what is on each node already. random returns numbers in [0,1).
// The result may be shorter than n when there is no room for more.
func place(all []candidate, n, x int, taken map[string]int, random func() float64) []candidate {
	left := slices.Clone(all)
	on := map[string]int{}
	for node, c := range taken {
		on[node] = c
	}
	var out []candidate
	for len(out) < n {
		// Nodes with the fewest fragments, and among their devices by weight.
		fewest := x
		for _, c := range left {
			fewest = min(fewest, on[c.node])
		}
		if fewest >= x {
			break
		}
		var total float64
		for _, c := range left {
			if on[c.node] == fewest {
				total += weight(c)
			}
		}
		at, pick := random()*total, -1
		for i, c := range left {
			if on[c.node] != fewest {
				continue
			}
			pick = i
			if at -= weight(c); at < 0 {
				break
			}
		}
		if pick < 0 {
			break
		}
		c := left[pick]
		out = append(out, c)
		on[c.node]++
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
			out = append(out, candidate{n, dev.rec.Node, v.free[n]})
		}
	}
	// Maps have no order; the random numbers alone decide.
	slices.SortFunc(out, func(a, b candidate) int { return int(a.number) - int(b.number) })
	return out
}

// perNode counts candidates by node.
func perNode(all []candidate) []int {
	on := map[string]int{}
	for _, c := range all {
		on[c.node]++
	}
	out := make([]int, 0, len(on))
	for _, n := range on {
		out = append(out, n)
	}
	return out
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
