package control

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/openvstorage/ovgate/gateway/model"
)

// TestBalance: nodes that take vDisks differ by one at most afterwards, unless what they have
// cannot move; no vDisk moves twice, none to or from a node that takes none, and no more move
// than that needs.
func TestBalance(t *testing.T) {
	for seed := range uint64(500) {
		rng := rand.New(rand.NewPCG(seed, 1))
		takes := map[string]bool{}
		var nodes []string
		for i := range 1 + rng.IntN(5) {
			n := fmt.Sprintf("n%d", i)
			nodes, takes[n] = append(nodes, n), rng.IntN(5) > 0
		}
		var all []model.VDisk
		fixed := map[string]bool{}
		load := map[string]int{}
		for i := range rng.IntN(40) {
			v := model.VDisk{ID: fmt.Sprintf("%03d", i), Node: nodes[min(rng.IntN(len(nodes)), rng.IntN(len(nodes)))], State: model.StatePresent}
			switch rng.IntN(8) {
			case 0:
				v.State = model.StateTrashed
			case 1:
				fixed[v.ID] = true
			case 2:
				v.Handover = &model.Handover{To: nodes[rng.IntN(len(nodes))]}
			case 3:
				v.Handover = &model.Handover{To: nodes[rng.IntN(len(nodes))], Failed: "it is down"}
			}
			all = append(all, v)
			switch {
			case v.State == model.StateTrashed:
			case v.Handover != nil && v.Handover.Failed == "":
				load[v.Handover.To]++
			default:
				load[v.Node]++
			}
		}
		movable := func(v model.VDisk) bool {
			return v.State == model.StatePresent && v.Handover == nil && !fixed[v.ID]
		}
		plan := balance(all, takes, movable)
		left := map[string]int{}
		for _, v := range all {
			if movable(v) {
				left[v.Node]++
			}
		}
		moved := map[string]bool{}
		for _, h := range plan {
			if moved[h.VDisk.ID] || !movable(h.VDisk) || h.From != h.VDisk.Node || h.From == h.To || !takes[h.From] || !takes[h.To] {
				t.Fatalf("seed %d: %+v", seed, h)
			}
			moved[h.VDisk.ID] = true
			if load[h.From]-load[h.To] < 2 {
				t.Fatalf("seed %d: %s has %d, %s has %d, and one moves", seed, h.From, load[h.From], h.To, load[h.To])
			}
			load[h.From]--
			load[h.To]++
			left[h.From]--
		}
		for _, a := range nodes {
			for _, b := range nodes {
				if takes[a] && takes[b] && left[a] > 0 && load[a]-load[b] > 1 {
					t.Fatalf("seed %d: %s has %d, %s has %d", seed, a, load[a], b, load[b])
				}
			}
		}
	}
}
