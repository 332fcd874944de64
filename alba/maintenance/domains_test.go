package maintenance_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/alba/albatest"
	"github.com/openvstorage/ovgate/alba/layout"
	"github.com/openvstorage/ovgate/alba/manager"
	"github.com/openvstorage/ovgate/alba/preset"
)

// racks returns how many fragments of a chunk are in each domain.
func racks(osds []manager.OSD, chunk []layout.Fragment) map[string]int {
	in := map[string]int{}
	for _, f := range chunk {
		if i := slices.IndexFunc(osds, func(o manager.OSD) bool { return o.Number == f.OSD }); i >= 0 {
			in[osds[i].Domain]++
		}
	}
	return in
}

// spreadRight checks that all chunks have all their fragments, x in a domain, and that the
// survey says what sets of domains may be lost, which is found by trying them.
func (w *world) spreadRight(when string, pol preset.Policy) {
	w.t.Helper()
	osds, domains := w.osds(), map[int]int64{}
	for name := range w.objects {
		m, err := w.Client.Manifest(w.t.Context(), "ns", name)
		must(w.t, err)
		least := pol.N()
		for i, chunk := range m.Fragments {
			in := racks(osds, chunk)
			if all := slices.Collect(maps.Values(in)); len(all) == 0 || slices.Max(all) > pol.X {
				w.t.Fatalf("%s: chunk %d of %s is spread %v", when, i, name, in)
			}
			names := slices.Collect(maps.Keys(in))
			for set := range 1 << len(names) {
				lost, size := 0, 0
				for j, n := range names {
					if set>>j&1 == 1 {
						lost, size = lost+in[n], size+1
					}
				}
				if lost > pol.M {
					least = min(least, size-1)
				}
			}
		}
		if len(m.Fragments) == 0 {
			least = pol.M
		}
		domains[least]++
	}
	if got := w.a.Safety().Domains; !maps.Equal(got, domains) {
		w.t.Errorf("%s: objects by domains that may be lost: %v, want %v", when, got, domains)
	}
}

// moveNode says that a node is in another domain.
func (w *world) moveNode(node, domain string) {
	w.t.Helper()
	for _, o := range w.osds() {
		if o.Node == node {
			_, err := w.Manager.Update(w.t.Context(), o.Number, func(o *manager.OSD) error { o.Domain = domain; return nil })
			must(w.t, err)
		}
	}
	must(w.t, w.Client.Refresh(w.t.Context()))
}

// A preset that spreads by domain keeps x fragments in a rack through the loss of one, its
// return, and nodes that come to another; what the survey says of racks is exact. With too
// few racks nothing is stored, and it is said why.
func TestDomains(t *testing.T) {
	for _, pol := range policies {
		t.Run(pol.String(), func(t *testing.T) {
			const perRack, nodes = 2, 8
			rack := func(node string) string {
				for i := range nodes {
					if node == albatest.Node(i) {
						return fmt.Sprint("rack", i/perRack)
					}
				}
				return ""
			}
			w := newWorld(t, albatest.Options{
				Nodes: slices.Repeat([]int{pol.X}, nodes), Domain: rack,
				Preset: preset.Preset{Policies: []preset.Policy{pol}, Spread: preset.ByDomain},
			})
			for i, n := range []int{1, 5000, 300000, 1 << 20} {
				w.put(fmt.Sprintf("o%d", i), n)
			}
			w.settle("at first", pol.M)
			w.spreadRight("at first", pol)

			var lost []uint32
			for _, o := range w.osds() {
				if o.Domain == "rack1" {
					lost = append(lost, o.Number)
					w.OSD(o.Number).SetDown(true)
				}
			}
			w.check("a rack lost")
			w.settle("a rack lost", pol.M)
			w.spreadRight("a rack lost", pol)
			w.put("later", 70000)
			for _, n := range lost {
				w.OSD(n).SetDown(false)
			}
			w.settle("the rack back", pol.M)
			w.settle("the rack back and compared", pol.M)

			w.moveNode(albatest.Node(0), "rack2")
			w.put("after the move", 70000)
			w.settle("a node in another rack", pol.M)
			w.spreadRight("a node in another rack", pol)
			w.check("a node in another rack")

			for i := range nodes {
				w.moveNode(albatest.Node(i), "")
			}
			err := w.Client.Put(t.Context(), "ns", "nowhere", []byte("x"))
			if !errors.Is(err, preset.ErrNoPolicy) || !strings.Contains(err.Error(), "in 1 domain:") || !strings.Contains(err.Error(), "names no domain") {
				t.Errorf("nobody knows the racks: %v", err)
			}
			w.check("nobody knows the racks")
		})
	}
}
