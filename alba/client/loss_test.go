package client_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/openvstorage/ovgate/alba/albatest"
	"github.com/openvstorage/ovgate/alba/preset"
)

// subsets returns all subsets of n elements with k of them, as sets of indexes.
func subsets(n, k int) (out [][]int) {
	var grow func(from int, have []int)
	grow = func(from int, have []int) {
		if len(have) == k {
			out = append(out, slices.Clone(have))
			return
		}
		for i := from; i < n; i++ {
			grow(i+1, append(have, i))
		}
	}
	grow(0, nil)
	return out
}

// Any c-k devices are lost for good at any instant of a put. Whatever the put says,
// what was acknowledged before reads right, and so does the object if the put was
// acknowledged; writes go on.
func TestLossAtAnyInstant(t *testing.T) {
	const most = 250 // cases of a policy, drawn where there are more
	total := 0
	for _, pol := range []preset.Policy{{K: 1, M: 2, C: 2, X: 1}, {K: 2, M: 1, C: 3, X: 1}, {K: 4, M: 2, C: 5, X: 2}, {K: 5, M: 4, C: 8, X: 3}, {K: 8, M: 4, C: 10, X: 4}} {
		t.Run(pol.String(), func(t *testing.T) {
			nodes := []int{pol.X + 1, pol.X + 1, pol.X + 1}
			c := albatest.New(t, albatest.Options{Nodes: nodes, Preset: preset.Preset{Policies: []preset.Policy{pol, {K: 1, M: 2, C: 2, X: 3}}}})
			c.Namespace("ns")
			all := c.Numbers("")
			before, data := content(1, 150000), content(2, 3*preset.MinFragmentBytes*pol.K/2) // two chunks
			must(t, c.Client.Put(t.Context(), "ns", "before", before))
			applies := countApplies(t, c, all, func() { must(t, c.Client.Put(t.Context(), "ns", "probe", data)) })
			type fault struct {
				set []int
				at  int64
			}
			var cases []fault
			for _, set := range subsets(len(all), pol.C-pol.K) {
				for at := range applies + 1 {
					cases = append(cases, fault{set, at})
				}
			}
			r := rand.New(rand.NewPCG(uint64(pol.K), uint64(pol.M)))
			r.Shuffle(len(cases), func(i, j int) { cases[i], cases[j] = cases[j], cases[i] })
			limit := most
			if testing.Short() {
				limit = most / 10
			}
			cases = cases[:min(len(cases), limit)]
			acked := 0
			for i, f := range cases {
				if loseAt(t, c, all, f.set, f.at, fmt.Sprint("o", i), data) {
					acked++
				}
				check(t, c.Client, "before", before)
				for _, n := range all {
					c.OSD(n).SetDown(false)
				}
				requalify(t, c)
			}
			total += len(cases)
			t.Logf("%d cases, %d acknowledged", len(cases), acked)
			if acked < len(cases)*9/10 {
				t.Errorf("%d of %d puts went on", acked, len(cases))
			}
		})
	}
	t.Logf("%d cases", total)
}

// countApplies counts the transactions that fn makes.
func countApplies(t *testing.T, c *albatest.Cluster, all []uint32, fn func()) int64 {
	t.Helper()
	var n atomic.Int64
	for _, number := range all {
		c.OSD(number).SetHook(func(op string, _ []byte) error {
			if op == "apply" {
				n.Add(1)
			}
			return nil
		})
	}
	fn()
	for _, number := range all {
		c.OSD(number).SetHook(nil)
	}
	return n.Load()
}

// loseAt puts an object while the devices of a set go down before the at-th
// transaction, reads it without them, and tells whether the put was acknowledged.
func loseAt(t *testing.T, c *albatest.Cluster, all []uint32, set []int, at int64, name string, data []byte) bool {
	t.Helper()
	var n atomic.Int64
	lose := func() {
		for _, i := range set {
			c.OSD(all[i]).SetDown(true)
		}
	}
	for _, number := range all {
		c.OSD(number).SetHook(func(op string, _ []byte) error {
			if op == "apply" && n.Add(1) == at+1 {
				lose()
			}
			return nil
		})
	}
	err := c.Client.Put(t.Context(), "ns", name, data)
	lose() // where the put made fewer transactions this time
	for _, number := range all {
		c.OSD(number).SetHook(nil)
	}
	if err != nil {
		return false
	}
	got, err := c.Client.Get(t.Context(), "ns", name, 1<<30)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%s, %v lost before transaction %d: %d bytes, %v", name, set, at, len(got), err)
	}
	return true
}

// requalify makes the client use all devices again: another client, as a failed one
// waits a second for its trial.
func requalify(t *testing.T, c *albatest.Cluster) {
	t.Helper()
	must(t, c.Client.Close())
	c.Client = c.NewClient()
}

// A device that answers no more holds neither puts nor gets up, and costs no data.
func TestStuckDevice(t *testing.T) {
	c := albatest.New(t, albatest.Options{Nodes: []int{3, 3, 3}, Preset: preset.Preset{Policies: []preset.Policy{{K: 4, M: 2, C: 5, X: 2}}}})
	c.Namespace("ns")
	data := content(3, 400000)
	must(t, c.Client.Put(t.Context(), "ns", "o", data))
	m, err := c.Client.Manifest(t.Context(), "ns", "o")
	must(t, err)
	stuck := m.Fragments[0][1].OSD
	release := make(chan struct{})
	c.OSD(stuck).SetHook(func(string, []byte) error { <-release; return nil })
	defer close(release)
	for i := range 5 {
		check(t, c.Client, "o", data)
		must(t, c.Client.Put(t.Context(), "ns", fmt.Sprint("p", i), data))
		check(t, c.Client, fmt.Sprint("p", i), data)
	}
	if c.Client.Stats().Hedged.Load() == 0 {
		t.Error("no read was hedged")
	}
}
