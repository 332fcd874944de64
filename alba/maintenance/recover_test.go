package maintenance_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/alba/albatest"
	"github.com/openvstorage/ovgate/alba/client"
	"github.com/openvstorage/ovgate/alba/layout"
	"github.com/openvstorage/ovgate/alba/maintenance"
	"github.com/openvstorage/ovgate/alba/manager"
	"github.com/openvstorage/ovgate/alba/nsm"
	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/alba/preset"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/kv"
)

// history gives a namespace a past: objects of many sizes, some overwritten, some
// deleted and collected, some repaired elsewhere, in several epochs.
func history(w *world, n int) {
	w.t.Helper()
	sizes := []int{0, 1, 4096, 70000, 300000, 1 << 20}
	for i := range n {
		w.put(fmt.Sprintf("o%d", i), sizes[i%len(sizes)])
		if i%4 == 0 {
			w.put(fmt.Sprintf("o%d", i/2), sizes[(i+1)%len(sizes)]) // over an older one
		}
		if i == n/3 || i == 2*n/3 {
			w.collect()
			w.put("epoch", 5000)
		}
	}
	for i := 0; i < n; i += 7 {
		name := fmt.Sprintf("o%d", i)
		must(w.t, w.Client.Delete(w.t.Context(), "ns", name))
		delete(w.objects, name)
	}
	// A device goes for good, and its fragments are made anew elsewhere.
	gone := w.Numbers("")[2]
	w.OSD(gone).SetDown(true)
	must(w.t, w.a.Probe(w.t.Context()))
	must(w.t, w.Client.Refresh(w.t.Context()))
	must(w.t, w.a.Survey(w.t.Context()))
	must(w.t, w.a.Garbage(w.t.Context()))
	w.OSD(gone).SetDown(false)
	must(w.t, w.a.Probe(w.t.Context()))
	must(w.t, w.a.Reconcile(w.t.Context()))
	must(w.t, w.Client.Refresh(w.t.Context()))
	w.settle("before the loss", policyOf(w).M)
}

func policyOf(w *world) preset.Policy {
	w.t.Helper()
	p, err := w.Manager.Preset(w.t.Context(), "")
	must(w.t, err)
	return p.Policies[0]
}

// recovered requires that all objects are there, and nothing that is not.
func (w *world) recovered(when string) {
	w.t.Helper()
	w.check(when)
	list, err := w.Client.List(w.t.Context(), "ns", "", "", 10000)
	must(w.t, err)
	for _, info := range list {
		if _, ok := w.objects[info.Name]; !ok {
			w.t.Fatalf("%s: %s came back", when, info.Name)
		}
	}
	if len(list) != len(w.objects) {
		w.t.Fatalf("%s: %d objects of %d", when, len(list), len(w.objects))
	}
}

// All NSM records are lost, and devices are away as far as the policy allows:
// everything is read as before, safety is restored, nothing is left over.
func TestRecoverNamespace(t *testing.T) {
	for _, pol := range policies {
		t.Run(pol.String(), func(t *testing.T) {
			per := pol.X + 1
			w := newWorld(t, albatest.Options{Nodes: []int{per, per, per, per}, Preset: preset.Preset{Policies: []preset.Policy{pol}}})
			ctx := t.Context()
			history(w, 30)
			w.collect()
			w.exact("before the loss")
			before, err := w.Manager.Namespace(ctx, "ns")
			must(t, err)
			w.LoseNSM()
			if _, err := w.Client.Get(ctx, "ns", "epoch", 1<<20); !errors.Is(err, client.ErrUnavailable) || errors.Is(err, manager.ErrNotFound) {
				t.Fatalf("read of what is lost: %v", err)
			}
			lost := w.Numbers("")[:pol.M]
			for _, n := range lost {
				w.OSD(n).SetDown(true)
			}
			if _, err := w.a.RecoverNamespace(ctx, "ns", maintenance.RecoverOptions{}); !errors.Is(err, manager.ErrUnsafe) {
				t.Fatalf("devices are away: %v", err)
			}
			r, err := w.a.RecoverNamespace(ctx, "ns", maintenance.RecoverOptions{Force: true, Tags: 100})
			must(t, err)
			if int(r.Restored) != len(w.objects) || r.Unrecoverable != 0 || len(r.Away) != len(lost) || r.Passes < 3 || r.Damaged != 0 {
				t.Fatalf("%d objects: %+v", len(w.objects), r)
			}
			w.recovered("recovered")
			w.put("new", 100000)
			w.settle("recovered", pol.M)
			w.check("repaired")
			for _, n := range lost {
				w.OSD(n).SetDown(false)
			}
			must(t, w.a.Probe(ctx))
			must(t, w.a.Reconcile(ctx))
			must(t, w.Client.Refresh(ctx))
			w.settle("devices back", pol.M)
			w.collect()
			w.exact("devices back")
			w.recovered("at last")
			after, err := w.Manager.Namespace(ctx, "ns")
			must(t, err)
			if after != before {
				t.Fatalf("the manager has %+v, had %+v", after, before)
			}
		})
	}
}

var plain = preset.Policy{K: 4, M: 2, C: 5, X: 2}

func small(t *testing.T) *world {
	t.Helper()
	return newWorld(t, albatest.Options{Nodes: []int{3, 3, 3}, Preset: preset.Preset{Policies: []preset.Policy{plain}}})
}

// While the records are lost, and until they are back, nothing that maintenance, the
// manager or clients do makes it worse.
func TestLostIsLeftAlone(t *testing.T) {
	w := small(t)
	ctx := t.Context()
	for i := range 10 {
		w.put(fmt.Sprintf("o%d", i), 50000)
	}
	w.settle("before", 2)
	_, err := w.Manager.Decommission(ctx, 1)
	must(t, err)
	keys := func() (n int) {
		for _, number := range w.Numbers("") {
			n += w.OSD(number).Len()
		}
		return n
	}
	was := keys()
	w.LoseNSM()
	other := w.NewClient() // one that does not know the namespace yet
	for range 3 {
		if _, err := w.Manager.CreateNamespace(ctx, "ns", ""); !errors.Is(err, manager.ErrLost) {
			t.Fatalf("made anew: %v", err)
		}
		if err := w.Manager.RemoveNamespace(ctx, "ns", true); !errors.Is(err, manager.ErrLost) {
			t.Fatalf("removed as empty: %v", err)
		}
		for _, c := range []*client.Client{w.Client, other} {
			_, statErr := c.Stat(ctx, "ns", "o1")
			_, listErr := c.List(ctx, "ns", "", "", 10)
			for what, err := range map[string]error{"put": c.Put(ctx, "ns", "o1", nil), "delete": c.Delete(ctx, "ns", "o1"), "stat": statErr, "list": listErr} {
				if !errors.Is(err, client.ErrUnavailable) || errors.Is(err, client.ErrNoNamespace) || errors.Is(err, client.ErrNotExist) {
					t.Fatalf("%s: %v", what, err)
				}
			}
		}
		must(t, w.a.Probe(ctx))
		must(t, w.a.Reconcile(ctx))
		must(t, w.a.Work(ctx))
		must(t, w.a.Survey(ctx))
		must(t, w.a.Garbage(ctx))
		must(t, w.a.Collect(ctx))
		must(t, w.a.Removals(ctx))
		must(t, w.a.Sweep(ctx))
		must(t, w.a.Rebalance(ctx))
	}
	if s := w.a.Safety(); s.Unknown != 1 {
		t.Fatalf("%+v", s)
	}
	if _, _, err := w.a.Lost(ctx, []uint32{2}, 10); !errors.Is(err, manager.ErrLost) {
		t.Fatalf("what a purge loses: %v", err)
	}
	if !slices.Contains(w.Numbers(""), 1) || keys() < was {
		t.Fatalf("%d keys on devices %v, were %d", keys(), w.Numbers(""), was)
	}
	all, err := w.a.RecoverAll(ctx, maintenance.RecoverOptions{})
	must(t, err)
	if len(all) != 1 || all[0].Restored != 10 {
		t.Fatalf("%+v", all)
	}
	w.recovered("recovered")
	w.settle("recovered", 2)
	if slices.Contains(w.Numbers(""), 1) {
		t.Fatal("device 1 has not left")
	}
	w.collect()
	w.exact("recovered")
	if _, err := w.a.RecoverNamespace(ctx, "ns", maintenance.RecoverOptions{}); !errors.Is(err, manager.ErrState) {
		t.Fatalf("nothing is lost: %v", err)
	}
	if all, err := w.a.RecoverAll(ctx, maintenance.RecoverOptions{}); err != nil || len(all) != 0 {
		t.Fatalf("%+v, %v", all, err)
	}
	w.check("at last")
}

// A store that loses its records while collection goes through a device must not
// have it conclude that nothing is named.
func TestLossDuringCollection(t *testing.T) {
	w := small(t)
	ctx := t.Context()
	for i := range 10 {
		w.put(fmt.Sprintf("o%d", i), 50000)
	}
	must(t, w.a.Collect(ctx)) // opens an epoch
	wipe := func() {          // the records go, the store stays
		recs, _, err := w.KV.Range(ctx, "nsm/", "", 0)
		must(t, err)
		for _, r := range recs {
			_, err := w.KV.Txn(ctx, nil, []kv.Op{kv.Delete(string(r.Key))}, nil)
			must(t, err)
		}
	}
	for _, n := range w.Numbers("") {
		w.OSD(n).SetHook(func(op string, key []byte) error {
			if op == "list" && len(key) > 0 && key[0] == 'g' {
				wipe()
			}
			return nil
		})
	}
	for range 3 {
		_ = w.a.Collect(ctx)
	}
	for _, n := range w.Numbers("") {
		w.OSD(n).SetHook(nil)
	}
	if _, err := w.NSM.Namespace(ctx, 1); !errors.Is(err, nsm.ErrNoNamespace) {
		t.Fatal("the records were not lost")
	}
	_, err := w.a.RecoverNamespace(ctx, "ns", maintenance.RecoverOptions{})
	must(t, err)
	w.recovered("recovered")
}

// A recovery that ends anywhere is run again, by the same agent or another, and
// meanwhile nothing is collected.
func TestRecoverInterrupted(t *testing.T) {
	w := small(t)
	ctx := t.Context()
	for i := range 25 {
		w.put(fmt.Sprintf("o%d", i), []int{100, 40000, 300000}[i%3])
	}
	w.settle("before", 2)
	w.LoseNSM()
	flaky := albatest.NewFlaky(w.newStore(t))
	w.SetNSM(flaky)
	for n := 0; ; n++ {
		if n > 200 {
			t.Fatal("it never ends")
		}
		flaky.Once(n, []albatest.Fault{albatest.Before, albatest.Lost}[n%2])
		a := w.a
		if n%3 == 0 {
			a = maintenance.New(maintenance.Options{Client: w.Client, Clock: clock.Real{}, Grace: time.Nanosecond, Rate: 1 << 40})
		}
		_, err := a.RecoverNamespace(ctx, "ns", maintenance.RecoverOptions{Tags: 60})
		if err == nil {
			break
		}
		if !errors.Is(err, albatest.ErrFault) {
			t.Fatal(err)
		}
		flaky.SetFault(nil)
		must(t, w.a.Collect(ctx))
		if _, err := w.Client.Stat(ctx, "ns", "never"); !errors.Is(err, client.ErrUnavailable) && !errors.Is(err, client.ErrNotExist) {
			t.Fatalf("stat: %v", err)
		}
	}
	flaky.SetFault(nil)
	w.recovered("recovered")
	w.settle("recovered", 2)
	w.collect()
	w.exact("recovered")
}

func (w *world) newStore(t *testing.T) kv.Store {
	t.Helper()
	s, err := kv.OpenBolt(t.TempDir()+"/nsm.db", kv.BoltOptions{NoSync: true})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// The manager is interrupted between its record and the host's.
func TestRecoverInterruptedManager(t *testing.T) {
	for _, state := range []nsm.State{nsm.Active, nsm.Recovering} {
		w := small(t)
		ctx := t.Context()
		w.put("a", 50000)
		n, err := w.Manager.Namespace(ctx, "ns")
		must(t, err)
		w.LoseNSM()
		if state == nsm.Recovering {
			_, err = w.Manager.Reclaim(ctx, n.ID, "ns", n.Preset)
		} else {
			var p preset.Preset
			p, err = w.Manager.Preset(ctx, n.Preset)
			must(t, err)
			_, err = w.NSM.BeginRecovery(ctx, n.ID, "ns", p)
		}
		must(t, err)
		if _, err := w.Manager.CreateNamespace(ctx, "ns", ""); !errors.Is(err, nsm.ErrRecovering) && !errors.Is(err, manager.ErrLost) {
			t.Fatalf("%s: create: %v", state, err)
		}
		if err := w.Manager.RemoveNamespace(ctx, "ns", true); err == nil {
			t.Fatalf("%s: removed as empty", state)
		}
		must(t, w.a.Collect(ctx))
		must(t, w.a.Survey(ctx))
		_, err = w.a.RecoverAll(ctx, maintenance.RecoverOptions{})
		must(t, err)
		w.recovered(string(state))
		// The last step again: the host is active, the manager does not know.
		_, err = w.Manager.Reclaim(ctx, n.ID, "ns", n.Preset)
		must(t, err)
		_, err = w.a.RecoverNamespace(ctx, "ns", maintenance.RecoverOptions{})
		must(t, err)
		if now, err := w.Manager.Namespace(ctx, "ns"); err != nil || now.State != nsm.Active {
			t.Fatalf("%+v, %v", now, err)
		}
		w.recovered("again")
	}
}

// Everything is lost but the devices: the manager is set up anew around them.
func TestRecoverWithoutManager(t *testing.T) {
	w := small(t)
	ctx := t.Context()
	for i := range 5 {
		_, err := w.Manager.CreateNamespace(ctx, fmt.Sprintf("more%d", i), "")
		must(t, err)
		must(t, w.Client.Put(ctx, fmt.Sprintf("more%d", i), "x", content(uint64(i), 30000)))
	}
	for i := range 10 {
		w.put(fmt.Sprintf("o%d", i), 50000)
	}
	w.settle2("before", 2)
	w.LoseNSM()
	w.LoseManager()
	w.a = maintenance.New(maintenance.Options{Client: w.Client, Clock: clock.Real{}, AutoRepair: time.Nanosecond, Grace: time.Nanosecond, Rate: 1 << 40})
	found, err := w.a.FindNamespaces(ctx)
	must(t, err)
	if len(found) != 6 || found[0].ID != 1 || found[0].Name != "ns" || found[0].Preset != "default" || len(found[0].Devices) != 9 || found[0].Known {
		t.Fatalf("%+v", found)
	}
	// A namespace made before they are recovered has none of their numbers.
	n, err := w.Manager.CreateNamespace(ctx, "fresh", "")
	must(t, err)
	if n.ID != 7 {
		t.Fatalf("number %d", n.ID)
	}
	must(t, w.Client.Put(ctx, "fresh", "x", content(9, 1000)))
	// Nor are those swept, before or between.
	sweep := func() {
		if err := w.a.Sweep(ctx); err != nil && !strings.Contains(err.Error(), "never made") {
			t.Fatal(err)
		}
	}
	sweep()
	_, err = w.a.RecoverNamespace(ctx, "more3", maintenance.RecoverOptions{})
	must(t, err)
	sweep()
	all, err := w.a.RecoverAll(ctx, maintenance.RecoverOptions{})
	must(t, err)
	if len(all) != 5 {
		t.Fatalf("%+v", all)
	}
	must(t, w.a.Sweep(ctx))
	w.recovered("recovered")
	for i := range 5 {
		got, err := w.Client.Get(ctx, fmt.Sprintf("more%d", i), "x", 1<<20)
		if err != nil || !slices.Equal(got, content(uint64(i), 30000)) {
			t.Fatalf("more%d: %v", i, err)
		}
		must(t, w.Manager.RemoveNamespace(ctx, fmt.Sprintf("more%d", i), false))
	}
	must(t, w.a.Removals(ctx))
	for id := range uint64(7) {
		if given, err := w.Manager.Given(ctx, id+1); err != nil || !given {
			t.Fatalf("number %d: %v, %v", id+1, given, err)
		}
	}
	if n, err = w.Manager.CreateNamespace(ctx, "last", ""); err != nil || n.ID != 8 {
		t.Fatalf("%+v, %v", n, err)
	}
	w.collect()
	w.exact("at last")
}

// settle2 is settle where other namespaces have objects, too.
func (w *world) settle2(when string, tolerates int) {
	w.t.Helper()
	must(w.t, w.a.Work(w.t.Context()))
	must(w.t, w.a.Survey(w.t.Context()))
	must(w.t, w.a.Garbage(w.t.Context()))
	if least, ok := w.a.Safety().Least(); !ok || least != tolerates {
		w.t.Fatalf("%s: %+v", when, w.a.Safety())
	}
}

// Only the manager is lost: what the host has is taken as it is.
func TestReclaimFromHost(t *testing.T) {
	w := small(t)
	ctx := t.Context()
	w.put("a", 50000)
	must(t, w.Client.Put(ctx, "ns", "b", nil))
	must(t, w.Client.Delete(ctx, "ns", "b"))
	w.LoseManager()
	w.a = maintenance.New(maintenance.Options{Client: w.Client, Clock: clock.Real{}, Grace: time.Nanosecond, Rate: 1 << 40})
	_, err := w.a.RecoverAll(ctx, maintenance.RecoverOptions{})
	must(t, err)
	w.recovered("reclaimed") // and b does not come back
}

// What cannot be recovered is told by name, an older object takes the place of one
// of which too little is left, and the newest complete one wins.
func TestRecoverNotAll(t *testing.T) {
	w := small(t)
	ctx := t.Context()
	// Nothing is collected, so that older objects are still there.
	manifests := map[string][]*layout.Manifest{}
	for _, name := range []string{"kept", "older", "lost"} {
		for i := range 2 {
			if name == "lost" && i == 0 {
				continue
			}
			nextMilli(t)
			data := content(uint64(len(manifests)*10+i), 300000)
			must(t, w.Client.Put(ctx, "ns", name, data))
			m, err := w.Client.Manifest(ctx, "ns", name)
			must(t, err)
			manifests[name] = append(manifests[name], m)
			if name == "kept" || name == "older" && i == 0 {
				w.objects[name] = data
			}
		}
	}
	drop := func(m *layout.Manifest, chunk, n int) {
		for i := range n {
			f := m.Fragments[chunk][i]
			if !w.OSD(f.OSD).Drop(m.Place(1, chunk, i).FragmentKey()) {
				t.Fatal("not there")
			}
		}
	}
	drop(manifests["kept"][1], 1, 2)  // just enough is left
	drop(manifests["older"][1], 1, 3) // and here not
	drop(manifests["lost"][0], 0, 3)
	// A tag that was damaged is one fragment fewer.
	f := manifests["kept"][1].Fragments[0][5]
	w.OSD(f.OSD).Corrupt(manifests["kept"][1].Place(1, 0, 5).TagKey(f.Epoch), 30)
	w.LoseNSM()
	r, err := w.a.RecoverNamespace(ctx, "ns", maintenance.RecoverOptions{})
	must(t, err)
	names := []string{}
	for _, l := range r.Lost {
		names = append(names, fmt.Sprintf("%s %v", l.Name, l.Older))
	}
	slices.Sort(names)
	if r.Found != 5 || r.Restored != 2 || r.Incomplete != 1 || r.Unrecoverable != 2 || r.Damaged != 1 || !slices.Equal(names, []string{"lost false", "older true"}) {
		t.Fatalf("%+v", r)
	}
	w.recovered("recovered")
	w.settle("recovered", 2)
	w.collect()
	// The damaged tag stays, with its fragment; it does not keep others from being
	// collected.
	w.exact("recovered", f.OSD)
	left := 0
	for _, key := range w.OSD(f.OSD).Keys() {
		if p, err := layout.ParseFragmentKey([]byte(key)); err == nil && p.Object == manifests["lost"][0].Object {
			left++
		}
	}
	if left > 0 {
		t.Fatalf("%d fragments of the lost object are left", left)
	}
}

// A deleted object whose fragments were not collected yet comes back, which is
// said in the documentation; a collected one does not.
func TestRecoverDeleted(t *testing.T) {
	w := small(t)
	ctx := t.Context()
	w.put("stays", 1000)
	for _, name := range []string{"collected", "not yet"} {
		must(t, w.Client.Put(ctx, "ns", name, content(1, 5000)))
		must(t, w.Client.Delete(ctx, "ns", name))
		if name == "collected" {
			must(t, w.a.Garbage(ctx))
		}
	}
	w.LoseNSM()
	_, err := w.a.RecoverNamespace(ctx, "ns", maintenance.RecoverOptions{})
	must(t, err)
	w.objects["not yet"] = content(1, 5000)
	w.recovered("recovered")
}

// Leftovers of repairs are in the way: other versions, on devices that hold another
// fragment of the chunk. What is chosen can be read, and as much as there is.
func TestRecoverLeftovers(t *testing.T) {
	rounds := 40
	if testing.Short() {
		rounds = 12
	}
	r := rand.New(rand.NewPCG(7, 7))
	for range rounds {
		w := small(t)
		ctx := t.Context()
		w.put("a", 300000)
		// Fragments move about, and nothing that they leave is deleted.
		for range 1 + r.IntN(6) {
			m, err := w.Client.Manifest(ctx, "ns", "a")
			must(t, err)
			away := m.Fragments[0][r.IntN(6)].OSD
			_, err = w.Client.Repair(ctx, "ns", "a", client.RepairOptions{Away: []uint32{away}})
			must(t, err)
		}
		// And then some are lost, but for k of each chunk, of whatever version.
		m, err := w.Client.Manifest(ctx, "ns", "a")
		must(t, err)
		for i, chunk := range m.Fragments {
			for range 2 {
				j := r.IntN(len(chunk))
				w.OSD(chunk[j].OSD).Drop(m.Place(1, i, j).FragmentKey())
			}
		}
		w.LoseNSM()
		got, err := w.a.RecoverNamespace(ctx, "ns", maintenance.RecoverOptions{Tags: 1})
		must(t, err)
		if got.Restored != 1 || got.Unrecoverable != 0 {
			t.Fatalf("%+v", got)
		}
		w.recovered("recovered")
		w.settle("recovered", 2)
		w.collect()
		w.exact("recovered")
	}
}

// Every tag is read once whatever the passes, and the epochs after recovery are
// above all that were.
func TestRecoverEpochs(t *testing.T) {
	w := small(t)
	ctx := t.Context()
	for i := range 12 {
		w.put(fmt.Sprintf("o%d", i), 1000)
		_, err := w.NSM.OpenEpoch(ctx, 1)
		must(t, err)
		if i%5 == 0 {
			must(t, w.NSM.CloseEpochs(ctx, 1, uint64(i)))
		}
	}
	was, err := w.NSM.Namespace(ctx, 1)
	must(t, err)
	w.put("last", 1000)
	want := maps.Clone(w.objects)
	for _, tags := range []int{1, 7, 50, 0} {
		w.LoseNSM()
		r, err := w.a.RecoverNamespace(ctx, "ns", maintenance.RecoverOptions{Tags: tags})
		must(t, err)
		if int(r.Found) != len(want) || int(r.Restored) != len(want) || r.Incomplete != 0 {
			t.Fatalf("%d tags at once: %+v", tags, r)
		}
		now, err := w.NSM.Namespace(ctx, 1)
		must(t, err)
		if now.EpochMin != now.EpochMax || now.EpochMin <= was.EpochMax || now.State != nsm.Active {
			t.Fatalf("%+v after %+v", now, was)
		}
		w.recovered("recovered")
	}
}

// A device that fails in the middle ends the recovery, and a later one goes on.
func TestRecoverDeviceFails(t *testing.T) {
	w := small(t)
	ctx := t.Context()
	for i := range 10 {
		w.put(fmt.Sprintf("o%d", i), 50000)
	}
	w.LoseNSM()
	n := 0
	for _, number := range w.Numbers("") {
		w.OSD(number).SetHook(func(op string, key []byte) error {
			if op == "list" && len(key) > 0 && key[0] == 'f' {
				if n++; n == 5 {
					return osd.ErrFailed
				}
			}
			return nil
		})
	}
	if _, err := w.a.RecoverNamespace(ctx, "ns", maintenance.RecoverOptions{}); !errors.Is(err, osd.ErrFailed) {
		t.Fatal(err)
	}
	if _, err := w.Client.List(ctx, "ns", "", "", 10); !errors.Is(err, client.ErrUnavailable) {
		t.Fatalf("list: %v", err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := w.a.RecoverNamespace(ended, "ns", maintenance.RecoverOptions{}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	_, err := w.a.RecoverNamespace(ctx, "ns", maintenance.RecoverOptions{})
	must(t, err)
	w.recovered("recovered")
}

// Fragments whose garbage was lost with the records are collected, also where
// collection has gone through their epochs before the loss.
func TestRecoverCollectsLeftovers(t *testing.T) {
	w := small(t)
	ctx := t.Context()
	for i := range 4 {
		w.put(fmt.Sprintf("o%d", i), 50000)
	}
	for range 3 {
		must(t, w.a.Collect(ctx))
	}
	nextMilli(t)
	for i := range 4 {
		w.put(fmt.Sprintf("o%d", i), 60000) // over objects of a closed epoch
	}
	w.LoseNSM()
	r, err := w.a.RecoverNamespace(ctx, "ns", maintenance.RecoverOptions{})
	must(t, err)
	if r.Found != 8 || r.Restored != 4 || r.Leftovers != 4 {
		t.Fatalf("%+v", r)
	}
	w.recovered("recovered")
	w.collect()
	w.exact("recovered")
}

// Removals whose caller died between manager and host are resumed by rounds alone.
func TestRemovalResumed(t *testing.T) {
	w := small(t)
	ctx := t.Context()
	w.put("a", 50000)
	for _, name := range []string{"host first", "empty", "full"} {
		name = strings.ReplaceAll(name, " ", "-")
		n, err := w.Manager.CreateNamespace(ctx, name, "")
		must(t, err)
		if name != "empty" {
			must(t, w.Client.Put(ctx, name, "x", content(1, 50000)))
		}
		state := nsm.Closing
		if name == "host-first" {
			state = nsm.Removing
		}
		_, err = w.NSM.Update(ctx, n.ID, func(n *nsm.Namespace) bool { n.State = state; return true })
		must(t, err)
	}
	must(t, w.a.Collect(ctx))
	must(t, w.a.Removals(ctx))
	all, err := w.Manager.Namespaces(ctx)
	must(t, err)
	var left []string
	for _, n := range all {
		left = append(left, n.Name)
	}
	if !slices.Equal(left, []string{"full", "ns"}) {
		t.Fatalf("left: %q", left)
	}
	if _, err := w.Client.Get(ctx, "full", "x", 1<<20); err != nil {
		t.Fatal(err)
	}
	w.collect()
	w.exact("at last")
}

// nextMilli waits until the clock shows another millisecond, in which objects of one
// name differ.
func nextMilli(t *testing.T) {
	t.Helper()
	now := time.Now().UnixMilli()
	until(t, func() bool { return time.Now().UnixMilli() > now })
}
