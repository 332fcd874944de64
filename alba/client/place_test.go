package client

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/openvstorage/ovgate/alba/manager"
	"github.com/openvstorage/ovgate/alba/preset"
	"github.com/openvstorage/ovgate/internal/testseed"
)

// randomDevices are on nodes in racks; of some nodes nobody knows the rack.
func randomDevices(r *rand.Rand) []*device {
	var all []*device
	racks := 1 + r.IntN(6)
	for node := range 1 + r.IntN(12) {
		domain := fmt.Sprint("rack", r.IntN(racks))
		if r.IntN(6) == 0 {
			domain = ""
		}
		for range 1 + r.IntN(4) {
			all = append(all, &device{rec: manager.OSD{Number: uint32(len(all) + 1), Node: fmt.Sprint("node", node), Domain: domain, State: manager.InUse}})
		}
	}
	return all
}

// For each policy and any devices no more than x fragments are in a group, nodes or
// domains, at first and when others take the place of devices that fail; there are as many
// as the preset says that there is room for; and when a chunk is complete, exactly so many
// groups may be lost as the preset says, which is found by trying all sets of them.
func TestPlaceModel(t *testing.T) {
	r := rand.New(rand.NewPCG(testseed.Of(t), 1))
	complete, crowded := 0, 0
	for range 1500 {
		devices := randomDevices(r)
		q := []preset.Policy{{K: 1, M: 2, C: 2, X: 1}, {K: 2, M: 1, C: 3, X: 1}, {K: 4, M: 2, C: 5, X: 2}, {K: 5, M: 4, C: 8, X: 3}, {K: 8, M: 4, C: 10, X: 4}}[r.IntN(5)]
		for _, by := range []preset.Spread{preset.ByNode, preset.ByDomain} {
			p := preset.Preset{Name: "p", Policies: []preset.Policy{q}, Spread: by}
			var all []candidate
			var recs []manager.OSD
			for _, d := range devices {
				all, recs = append(all, d.candidate(p, r.Int64N(1<<40))), append(recs, d.rec)
			}
			groups := perGroup(all)
			if sum(groups) != sum(manager.PerGroup(recs, p)) || len(groups) != len(manager.PerGroup(recs, p)) {
				t.Fatalf("client and manager count %v and %v", groups, manager.PerGroup(recs, p))
			}
			n := q.Places(groups)
			if _, chosen, err := p.Choose(groups); (err == nil) != (n >= q.C) || err == nil && chosen != n {
				t.Fatalf("%v by %v in %v: %d places, chosen %d, %v", q, by, groups, n, chosen, err)
			}
			got := place(all, q.N(), q.X, newTally(), r.Float64)
			if len(got) != n {
				t.Fatalf("%v by %v in %v: placed %d, there is room for %d", q, by, groups, len(got), n)
			}
			in := checkGroups(t, q, got)
			if n == q.N() {
				complete++
				most := mostLost(in, q.M)
				if says := q.Complete(groups).Groups; most != says {
					t.Fatalf("%v by %v, %v in %v: any %d groups may be lost, the preset says %d", q, by, in, groups, most, says)
				}
			}
			// Devices fail, one after the other; others take their places where there are any.
			spares, on := remove(all, got), newTally()
			for _, c := range got {
				on.add(c, 1)
			}
			for len(got) > 0 && len(spares) > 0 {
				at := r.IntN(len(got))
				on.add(got[at], -1)
				next := place(spares, 1, q.X, on, r.Float64)
				if len(next) == 0 {
					crowded++
					break
				}
				on.add(next[0], 1)
				got[at], spares = next[0], remove(spares, next)
				checkGroups(t, q, got)
			}
		}
	}
	if complete == 0 || crowded == 0 {
		t.Errorf("%d chunks were complete, %d times there was no place: both should happen", complete, crowded)
	}
}

func sum(all []int) (n int) {
	for _, v := range all {
		n += v
	}
	return n
}

// checkGroups counts fragments by group: x at most, no device twice.
func checkGroups(t *testing.T, q preset.Policy, placed []candidate) []int {
	t.Helper()
	in, seen := map[string]int{}, map[uint32]bool{}
	for _, c := range placed {
		if in[c.group]++; in[c.group] > q.X || seen[c.number] {
			t.Fatalf("%v: placed on %+v", q, placed)
		}
		seen[c.number] = true
	}
	out := make([]int, 0, len(in))
	for _, n := range in {
		out = append(out, n)
	}
	return out
}

// mostLost returns the largest n such that no set of n groups holds more than m fragments.
func mostLost(in []int, m int) int {
	worst := make([]int, len(in)+1) // most fragments of any set of that size
	for set := range 1 << len(in) {
		lost, size := 0, 0
		for i, n := range in {
			if set>>i&1 == 1 {
				lost, size = lost+n, size+1
			}
		}
		worst[size] = max(worst[size], lost)
	}
	n := 0
	for n+1 < len(worst) && worst[n+1] <= m {
		n++
	}
	return n
}

// In a domain the nodes are used evenly.
func TestPlaceNodesOfDomain(t *testing.T) {
	r := rand.New(rand.NewPCG(testseed.Of(t), 1))
	p := preset.Preset{Spread: preset.ByDomain}
	var all []candidate
	for i := range uint32(24) { // 3 domains of 4 nodes of 2 devices
		d := device{rec: manager.OSD{Number: i + 1, Node: fmt.Sprint("n", i/2), Domain: fmt.Sprint("d", i/8)}}
		all = append(all, d.candidate(p, 1<<30))
	}
	for range 200 {
		nodes := map[string]bool{}
		for _, c := range place(all, 12, 4, newTally(), r.Float64) {
			nodes[c.node] = true
		}
		if len(nodes) != 12 {
			t.Fatalf("12 fragments are on %d nodes of 12", len(nodes))
		}
	}
}
