package maintenance_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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
	"github.com/openvstorage/ovgate/internal/testseed"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is a cluster with objects whose content is known, and an agent whose
// rounds the test runs. Nothing has to be waited for: what is silent is given up
// with the next probe, and no upload is older than its grace.
type world struct {
	*albatest.Cluster
	t       *testing.T
	a       *maintenance.Agent
	objects map[string][]byte
	mu      sync.Mutex
	events  []string
}

func newWorld(t *testing.T, o albatest.Options) *world {
	t.Helper()
	w := &world{Cluster: albatest.New(t, o), t: t, objects: map[string][]byte{}}
	w.a = maintenance.New(maintenance.Options{
		Client: w.Client, Clock: clock.Real{}, Log: o.Log, AutoRepair: time.Nanosecond, Grace: time.Nanosecond, Rate: 1 << 40,
		Event: func(e maintenance.Event) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.events = append(w.events, e.Code+": "+e.Message)
		},
	})
	w.Namespace("ns")
	return w
}

func content(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 1}).Read(b)
	return b
}

func (w *world) put(name string, n int) {
	w.t.Helper()
	data := content(uint64(len(w.objects)), n)
	must(w.t, w.Client.Put(w.t.Context(), "ns", name, data))
	w.objects[name] = data
}

// check reads everything.
func (w *world) check(when string) {
	w.t.Helper()
	for name, want := range w.objects {
		got, err := w.Client.Get(w.t.Context(), "ns", name, 1<<30)
		if err != nil {
			w.t.Fatalf("%s: %v", when, err)
		}
		if !bytes.Equal(got, want) {
			w.t.Fatalf("%s: %s is wrong", when, name)
		}
	}
}

// tells checks that events of these codes were told.
func (w *world) tells(codes ...string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range codes {
		if !slices.ContainsFunc(w.events, func(e string) bool { return strings.HasPrefix(e, c+": ") }) {
			w.t.Errorf("no event %s: %q", c, w.events)
		}
	}
}

// settle runs rounds until the survey finds nothing to do, and requires safety.
func (w *world) settle(when string, tolerates int) maintenance.Safety {
	w.t.Helper()
	ctx := w.t.Context()
	for range 6 {
		must(w.t, w.a.Probe(ctx))
		must(w.t, w.a.Reconcile(ctx))
		must(w.t, w.Client.Refresh(ctx))
		must(w.t, w.a.Work(ctx))
		must(w.t, w.a.Survey(ctx))
		must(w.t, w.a.Garbage(ctx))
		s := w.a.Safety()
		least, ok := s.Least()
		if ok && least == tolerates && (s.Repair == 0 || least < 0) && s.Worse == 0 {
			if int(s.Objects) != len(w.objects) {
				w.t.Fatalf("%s: %d objects surveyed, %d there", when, s.Objects, len(w.objects))
			}
			return s
		}
	}
	w.t.Fatalf("%s: safety %+v, events %q", when, w.a.Safety(), w.events)
	panic("unreachable")
}

// exact requires that after a collection the devices hold the fragments that
// manifests name, and nothing else. Before it there may be more: a fragment that
// came later than the slack allowed.
func (w *world) exact(when string, except ...uint32) {
	w.t.Helper()
	w.collect()
	want := map[uint32]map[string]bool{}
	var stored int64
	spaces, err := w.Manager.Namespaces(w.t.Context())
	must(w.t, err)
	for _, n := range spaces {
		after := ""
		for {
			page, more, err := w.NSM.List(w.t.Context(), n.ID, "", after, 0)
			must(w.t, err)
			for _, m := range page {
				after = m.Name
				stored += m.Stored()
				for i, chunk := range m.Fragments {
					for j, f := range chunk {
						if f.OSD == 0 {
							continue
						}
						if want[f.OSD] == nil {
							want[f.OSD] = map[string]bool{}
						}
						p := m.Place(n.ID, i, j)
						want[f.OSD][string(p.FragmentKey())] = true
						want[f.OSD][string(p.TagKey(f.Epoch))] = true
					}
				}
			}
			if !more {
				break
			}
		}
	}
	for _, n := range w.Numbers("") {
		if slices.Contains(except, n) {
			continue
		}
		have := 0
		for _, key := range w.OSD(n).Keys() {
			if key[0] != 'f' && key[0] != 'g' {
				continue
			}
			have++
			if !want[n][key] {
				w.t.Fatalf("%s: device %d holds %x, which no manifest names", when, n, key)
			}
		}
		if have != len(want[n]) {
			w.t.Fatalf("%s: device %d holds %d keys of %d", when, n, have, len(want[n]))
		}
	}
}

var policies = []preset.Policy{{K: 1, M: 2, C: 2, X: 1}, {K: 2, M: 1, C: 3, X: 1}, {K: 4, M: 2, C: 5, X: 2}, {K: 5, M: 4, C: 8, X: 3}, {K: 8, M: 4, C: 10, X: 4}}

// Devices that go are replaced unattended, whole nodes too where the policy says
// so; when they come back they are used again and hold no garbage.
func TestAutoRepair(t *testing.T) {
	for _, pol := range policies {
		t.Run(pol.String(), func(t *testing.T) {
			per := pol.X + 1
			w := newWorld(t, albatest.Options{Nodes: []int{per, per, per, per}, Preset: preset.Preset{Policies: []preset.Policy{pol}}})
			for i, n := range []int{0, 1, 5000, 300000, 1 << 20} {
				w.put(fmt.Sprintf("o%d", i), n)
			}
			w.settle("at first", pol.M)
			all := w.Numbers("")
			rand.New(rand.NewPCG(1, uint64(pol.K))).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			lost := all[:pol.M]
			for _, n := range lost {
				w.OSD(n).SetDown(true)
			}
			w.check("devices lost")
			w.settle("devices lost", pol.M)
			w.put("later", 70000)
			w.check("repaired")
			w.exact("repaired", lost...)
			for _, n := range lost {
				w.OSD(n).SetDown(false)
			}
			w.settle("devices back", pol.M)
			w.settle("devices back and compared", pol.M)
			w.exact("devices back")
			for _, o := range w.osds() {
				if !o.Takes() {
					t.Errorf("device %d is %+v", o.Number, o)
				}
			}
			w.check("at last")
			w.tells("osd.failed", "osd.back")
		})
	}
}

func (w *world) osds() []manager.OSD {
	w.t.Helper()
	all, err := w.Manager.OSDs(w.t.Context())
	must(w.t, err)
	return all
}

// collect runs collection through: open an epoch, close it, go through.
func (w *world) collect() {
	w.t.Helper()
	for range 3 {
		must(w.t, w.a.Collect(w.t.Context()))
	}
	must(w.t, w.a.Garbage(w.t.Context()))
}

// A decommissioned device is emptied, leaves, and can be claimed again.
func TestDecommission(t *testing.T) {
	w := newWorld(t, albatest.Options{Nodes: []int{3, 3, 3}, Preset: preset.Preset{Policies: []preset.Policy{{K: 4, M: 2, C: 5, X: 2}}}})
	for i := range 10 {
		w.put(fmt.Sprintf("o%d", i), 100000)
	}
	dev := w.OSD(1)
	before, err := w.Manager.OSD(t.Context(), 1)
	must(t, err)
	_, err = w.Manager.Decommission(t.Context(), 1)
	must(t, err)
	w.settle("decommissioned", 2)
	if slices.Contains(w.Numbers(""), 1) {
		t.Fatal("device 1 has not left")
	}
	w.tells("osd.emptied")
	if n := dev.Len(); n != 0 {
		t.Fatalf("%d keys left on it: %q", n, dev.Keys())
	}
	w.check("without it")
	o, err := w.Manager.Claim(t.Context(), dev, manager.OSD{Kind: "mem", Node: before.Node, Directory: before.Directory})
	must(t, err)
	if o.Number == 1 {
		t.Fatal("number given twice")
	}
	must(t, w.Client.Refresh(t.Context()))
	w.put("again", 1000)
	w.settle("claimed again", 2)
	w.exact("claimed again")
}

// A purge that would lose objects is refused, and done when that is accepted.
func TestPurge(t *testing.T) {
	w := newWorld(t, albatest.Options{Nodes: []int{3, 3, 3}, Preset: preset.Preset{Policies: []preset.Policy{{K: 2, M: 1, C: 3, X: 1}}}})
	for i := range 20 {
		w.put(fmt.Sprintf("o%d", i), 1000)
	}
	m, err := w.Client.Manifest(t.Context(), "ns", "o3")
	must(t, err)
	gone := []uint32{m.Fragments[0][0].OSD, m.Fragments[0][1].OSD}
	for _, n := range gone {
		w.OSD(n).SetDown(true)
	}
	lost, names, err := w.a.Lost(t.Context(), gone, 100)
	must(t, err)
	if lost == 0 || !slices.Contains(names, "ns/o3") {
		t.Fatalf("%d objects would be lost: %q", lost, names)
	}
	_, err = w.Manager.Purge(t.Context(), gone[0], lost, false)
	if !errors.Is(err, manager.ErrUnsafe) {
		t.Fatal(err)
	}
	for _, n := range gone {
		_, err = w.Manager.Purge(t.Context(), n, lost, true)
		must(t, err)
	}
	w.settle("purged", -1)
	for _, n := range names {
		delete(w.objects, n[len("ns/"):])
	}
	w.check("what is left")
	if all := w.Numbers(""); slices.Contains(all, gone[0]) || slices.Contains(all, gone[1]) {
		t.Fatalf("devices %v have not left: %v", gone, all)
	}
	for _, n := range names {
		must(t, w.Client.Delete(t.Context(), "ns", n[len("ns/"):]))
	}
	w.settle("lost ones deleted", 1)
	w.exact("lost ones deleted")
}

// Bits flip on devices: reads are right, and both reads and verification have the
// fragments made anew.
func TestDamage(t *testing.T) {
	for _, pol := range policies {
		t.Run(pol.String(), func(t *testing.T) {
			w := newWorld(t, albatest.Options{Nodes: []int{4, 4, 4}, Preset: preset.Preset{Policies: []preset.Policy{pol}}})
			for i := range 6 {
				w.put(fmt.Sprintf("o%d", i), 200000)
			}
			damage := func() (n int) {
				for i := range 6 {
					m, err := w.Client.Manifest(t.Context(), "ns", fmt.Sprintf("o%d", i))
					must(t, err)
					for c := range m.Fragments {
						for j := range pol.M {
							f := m.Fragments[c][(j+i)%pol.N()]
							key := m.Place(1, c, (j+i)%pol.N()).FragmentKey()
							if i%2 == 0 && w.OSD(f.OSD).Corrupt(key, f.Index.StoredBytes()/2) || w.OSD(f.OSD).Drop(key) {
								n++
							}
						}
					}
				}
				return n
			}
			n := damage()
			w.check("damaged")
			for _, o := range w.Numbers("") {
				must(t, w.a.VerifyOSD(t.Context(), o))
			}
			w.settle("repaired", pol.M)
			w.exact("repaired")
			w.check("repaired")
			w.tells("osd.damaged")
			t.Logf("%d fragments damaged", n)
		})
	}
}

// A read alone reports what it finds.
func TestReadReports(t *testing.T) {
	w := newWorld(t, albatest.Options{Nodes: []int{4, 4, 4}, Preset: preset.Preset{Policies: []preset.Policy{{K: 4, M: 2, C: 5, X: 2}}}})
	w.put("o", 200000)
	m, err := w.Client.Manifest(t.Context(), "ns", "o")
	must(t, err)
	w.OSD(m.Fragments[0][1].OSD).Corrupt(m.Place(1, 0, 1).FragmentKey(), 10)
	w.check("damaged")
	for {
		work, _, err := w.NSM.ListWork(t.Context(), nil, 10)
		must(t, err)
		if len(work) == 1 {
			break
		}
		w.check("damaged")
	}
	// A report that comes while the object is repaired has it looked at again.
	until(t, func() bool {
		must(t, w.a.Work(t.Context()))
		work, _, err := w.NSM.ListWork(t.Context(), nil, 10)
		must(t, err)
		return len(work) == 0
	})
	w.settle("repaired", 2)
	w.exact("repaired")
}

// A device that is an older copy of itself, one that was wiped, and two that were
// swapped: never wrong data, and everything is brought back.
func TestOldCopyWipedSwapped(t *testing.T) {
	w := newWorld(t, albatest.Options{Nodes: []int{4, 4, 4}, Preset: preset.Preset{Policies: []preset.Policy{{K: 4, M: 2, C: 5, X: 2}}}})
	for i := range 5 {
		w.put(fmt.Sprintf("old%d", i), 100000)
	}
	w.settle("at first", 2)
	old := w.OSD(1).Snapshot()
	for i := range 10 {
		w.put(fmt.Sprintf("new%d", i), 100000)
	}
	must(t, w.Client.Delete(t.Context(), "ns", "old0"))
	delete(w.objects, "old0")
	w.settle("before", 2)
	w.Replace(1, old)
	w.check("an older copy")
	w.settle("an older copy", 2)
	w.settle("an older copy, compared", 2)
	w.exact("an older copy")

	w.OSD(2).Wipe()
	w.check("wiped")
	w.settle("wiped", 2)
	w.exact("wiped", 2)

	three, five := w.OSD(3), w.OSD(5)
	w.Replace(3, five)
	w.Replace(5, three)
	w.check("swapped")
	w.settle("swapped", 2)
	w.Replace(3, three)
	w.Replace(5, five)
	w.settle("back", 2)
	w.settle("back and compared", 2)
	w.exact("swapped and back", 2)
	w.check("at last")
	w.tells("osd.incomplete")
}

// Uploads that end half-way, and deletes whose devices are away, leave nothing
// after the grace time.
func TestNothingLeft(t *testing.T) {
	w := newWorld(t, albatest.Options{Nodes: []int{3, 3, 3}, Preset: preset.Preset{Policies: []preset.Policy{{K: 4, M: 2, C: 5, X: 2}}}})
	w.put("keep", 100000)
	// Fragments without a manifest, as a client leaves them that dies.
	left := 0
	for _, n := range w.Numbers("") {
		p := layout.Place{Namespace: 1, Object: layout.Object{9, byte(n)}, Index: 1}
		h := layout.Header{Name: "keep", Object: p.Object, Size: 1, Policy: preset.Policy{K: 4, M: 2, C: 5, X: 2}, ChunkBytes: 1}
		m, err := w.Client.Manifest(t.Context(), "ns", "keep")
		must(t, err)
		tag, err := layout.EncodeRecovery(h, m.Fragments[0][0].Index)
		must(t, err)
		must(t, w.OSD(n).Apply(t.Context(), nil, []osd.Update{osd.Set(p.FragmentKey(), []byte("x")), osd.Set(p.TagKey(1), tag)}, osd.High))
		left++
	}
	w.put("away", 100000)
	m, err := w.Client.Manifest(t.Context(), "ns", "away")
	must(t, err)
	off := m.Fragments[0][0].OSD
	w.OSD(off).SetDown(true)
	must(t, w.Client.Delete(t.Context(), "ns", "away"))
	delete(w.objects, "away")
	must(t, w.a.Garbage(t.Context()))
	w.exact("while a device is away", off)
	w.OSD(off).SetDown(false)
	must(t, w.a.Probe(t.Context()))
	must(t, w.Client.Refresh(t.Context()))
	w.exact("at last")
	w.check("at last")
	if left != 9 {
		t.Fatal(left)
	}
}

// A fragment in a closed epoch cannot enter a manifest: what collection deletes is
// never named afterwards.
func TestClosedEpochRefused(t *testing.T) {
	w := newWorld(t, albatest.Options{Nodes: []int{3, 3, 3}, Preset: preset.Preset{Policies: []preset.Policy{{K: 4, M: 2, C: 5, X: 2}}}})
	w.put("o", 1000)
	m, err := w.Client.Manifest(t.Context(), "ns", "o")
	must(t, err)
	late := m.Clone()
	late.Name, late.Object = "late", layout.Object{1}
	w.collect()
	err = w.NSM.Apply(t.Context(), 1, 1, nil, []nsm.Change{{Put: late}})
	if !errors.Is(err, nsm.ErrEpoch) {
		t.Fatalf("late commit: %v", err)
	}
	w.put("p", 1000)
	w.check("after")
	w.exact("after")
}

// Removed namespaces leave nothing, also on devices that were away.
func TestRemoveNamespace(t *testing.T) {
	w := newWorld(t, albatest.Options{Nodes: []int{3, 3, 3}, Preset: preset.Preset{Policies: []preset.Policy{{K: 4, M: 2, C: 5, X: 2}}}})
	w.put("o", 100000)
	_, err := w.Manager.CreateNamespace(t.Context(), "gone", "")
	must(t, err)
	for i := range 20 {
		must(t, w.Client.Put(t.Context(), "gone", fmt.Sprintf("o%d", i), content(1, 50000)))
	}
	if err := w.Manager.RemoveNamespace(t.Context(), "gone", true); !errors.Is(err, nsm.ErrExists) {
		t.Fatalf("not empty: %v", err)
	}
	must(t, w.Client.Put(t.Context(), "gone", "still", nil))
	off := w.Numbers("")[0]
	w.OSD(off).SetDown(true)
	must(t, w.Manager.RemoveNamespace(t.Context(), "gone", false))
	if err := w.Client.Put(t.Context(), "gone", "late", nil); !errors.Is(err, manager.ErrNotFound) {
		t.Fatalf("late put: %v", err)
	}
	must(t, w.a.Removals(t.Context()))
	_, err = w.Manager.Namespace(t.Context(), "gone")
	if !errors.Is(err, manager.ErrNotFound) {
		t.Fatal(err)
	}
	w.exact("removed", off)
	w.OSD(off).SetDown(false)
	must(t, w.a.Sweep(t.Context()))
	w.exact("swept")
	n, err := w.Manager.CreateNamespace(t.Context(), "gone", "")
	must(t, err)
	if n.ID != 3 {
		t.Fatalf("namespace number %d", n.ID)
	}
	must(t, w.Client.Put(t.Context(), "gone", "again", []byte("x")))
	must(t, w.Manager.RemoveNamespace(t.Context(), "empty", true))
	w.check("at last")
}

// What was written by a smaller policy is stored anew when the better one can be
// met again.
func TestBetterPolicy(t *testing.T) {
	w := newWorld(t, albatest.Options{Nodes: []int{2, 2, 2}, Preset: preset.Preset{Policies: []preset.Policy{{K: 4, M: 2, C: 5, X: 2}, {K: 1, M: 1, C: 2, X: 1}}}})
	w.put("good", 100000)
	for _, n := range w.Numbers(albatest.Node(0)) {
		w.OSD(n).SetDown(true)
	}
	w.put("fallback", 100000)
	m, err := w.Client.Manifest(t.Context(), "ns", "fallback")
	must(t, err)
	if m.Policy.K != 1 {
		t.Fatalf("stored by %v", m.Policy)
	}
	w.check("a node is away")
	for _, n := range w.Numbers(albatest.Node(0)) {
		w.OSD(n).SetDown(false)
	}
	w.qualified()
	s := w.settle("back", 2)
	if s.Policies["(4,2,5,2)"] != 2 {
		t.Fatalf("%+v", s.Policies)
	}
	w.exact("back")
	w.check("back")
}

// qualified waits until the client, which tries failed devices by itself, uses all.
func (w *world) qualified() {
	w.t.Helper()
	until(w.t, func() bool {
		return !slices.ContainsFunc(w.Client.OSDs(), func(o client.OSDView) bool { return o.Error != "" })
	})
}

func until(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(3 * time.Minute); !ok(); {
		if time.Now().After(end) {
			t.Fatal("it does not happen")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// A probe finds a device back before the client uses it again: what was written meanwhile is
// stored anew then, not with the next survey that comes by itself.
func TestBetterOnceItWorks(t *testing.T) {
	t.Parallel()
	best, worse := preset.Policy{K: 2, M: 1, C: 3, X: 1}, preset.Policy{K: 1, M: 1, C: 2, X: 1}
	w := &world{Cluster: albatest.New(t, albatest.Options{Nodes: []int{1, 1, 1}, Preset: preset.Preset{Policies: []preset.Policy{best, worse}}}), t: t, objects: map[string][]byte{}}
	// No survey but those that something calls for; probes are sooner than the client's trials.
	w.a = maintenance.New(maintenance.Options{Client: w.Client, Clock: clock.Real{}, AutoRepair: time.Hour, Survey: time.Hour, Probe: 10 * time.Millisecond, Work: time.Hour})
	w.a.Start()
	defer w.a.Stop()
	w.Namespace("ns")
	w.OSD(1).SetDown(true)
	w.put("a", 100) // disqualifies it
	w.put("b", 100)
	w.a.Look()
	until(t, func() bool { return w.a.Safety().Policies[worse.String()] > 0 })
	w.OSD(1).SetDown(false)
	until(t, func() bool { return w.a.Safety().Policies[best.String()] == 2 })
	w.check("at the end")
}

// uneven is a world with a device that is empty, and others that are not.
func uneven(t *testing.T) (w *world, empty uint32) {
	w = newWorld(t, albatest.Options{Nodes: []int{2, 2, 2}, Preset: preset.Preset{Policies: []preset.Policy{{K: 2, M: 1, C: 3, X: 1}}}})
	for _, n := range w.Numbers("") {
		w.OSD(n).SetCapacity(20 << 20)
	}
	for i := range 60 {
		w.put(fmt.Sprintf("o%d", i), 200000)
	}
	empty = w.AddOSD(albatest.Node(2))
	w.OSD(empty).SetCapacity(20 << 20)
	must(t, w.Client.Refresh(t.Context()))
	w.settle("before", 1)
	return w, empty
}

// A new device takes its share from the others.
func TestRebalance(t *testing.T) {
	w, n := uneven(t)
	for range 3 {
		must(t, w.a.Probe(t.Context()))
		must(t, w.a.Rebalance(t.Context()))
		must(t, w.a.Garbage(t.Context()))
	}
	s := w.settle("after", 1)
	if s.OSDs[n] < 10 {
		t.Fatalf("fragments by device: %v", s.OSDs)
	}
	w.exact("after")
	w.check("after")
}

// TestRebalanceYields: it ends early when something else is to be done first, as a survey that
// is asked for: a device may have been given up. Fragments are not moved then, and are later.
func TestRebalanceYields(t *testing.T) {
	w, n := uneven(t)
	must(t, w.a.Probe(t.Context()))
	on := func(when string) int64 { return w.settle(when, 1).OSDs[n] }
	w.a.Look()
	must(t, w.a.SurveyAndRebalance(t.Context()))
	if got := on("another survey is asked for"); got != 0 {
		t.Errorf("%d fragments were moved though another survey is asked for", got)
	}
	some := int64(0)
	for most := 5; some == 0 && most < 100; most += 5 {
		looks := 0
		must(t, w.a.RebalanceWhile(t.Context(), func() bool { looks++; return looks < most }))
		some = on("it was broken off")
	}
	must(t, w.a.Rebalance(t.Context()))
	if all := on("at last"); some == 0 || all <= some {
		t.Errorf("%d fragments were moved, then %d", some, all)
	}
	for _, j := range w.a.Jobs() {
		if j.Error != "" {
			t.Errorf("job %s: %s", j.ID, j.Error)
		}
	}
	w.check("after")
}

// TestRepairSideBySide: a survey repairs some objects at a time.
func TestRepairSideBySide(t *testing.T) {
	w := newWorld(t, albatest.Options{Nodes: []int{2, 2, 2}, Preset: preset.Preset{Policies: []preset.Policy{{K: 2, M: 1, C: 3, X: 1}}}})
	for i := range 20 {
		w.put(fmt.Sprintf("o%d", i), 20000)
	}
	w.settle("before", 1)
	all := w.Numbers("")
	w.OSD(all[0]).SetDown(true)
	must(t, w.a.Probe(t.Context()))
	must(t, w.Client.Refresh(t.Context()))
	var under atomic.Int64
	both := make(chan struct{})
	for _, n := range all[1:] {
		w.OSD(n).SetHook(func(op string, _ []byte) error {
			if op != "apply" {
				return nil
			}
			if under.Add(1) == 2 {
				close(both)
			}
			select {
			case <-both:
				return nil
			case <-t.Context().Done():
				return t.Context().Err()
			case <-time.After(time.Minute):
				return errors.New("nothing else is repaired meanwhile")
			}
		})
	}
	must(t, w.a.Survey(t.Context()))
	if s := w.a.Safety(); s.Repair != 0 {
		t.Errorf("%d objects are not repaired", s.Repair)
	}
	w.check("after")
}

// Everything happens at once: writers, readers, maintenance, devices that come and
// go, lose bits or their past. Nothing that was acknowledged is ever wrong, and
// in the end everything is complete.
func TestStorm(t *testing.T) {
	rounds := 12
	if testing.Short() {
		rounds = 5
	}
	pol := preset.Policy{K: 4, M: 2, C: 5, X: 2}
	w := newWorld(t, albatest.Options{Nodes: []int{3, 3, 3}, Preset: preset.Preset{Policies: []preset.Policy{pol, {K: 1, M: 2, C: 2, X: 1}}}})
	r := rand.New(rand.NewPCG(testseed.Of(t), 1))
	ctx := t.Context()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	writes, reads := 0, 0
	// Between two faults everything is made whole again, as no policy promises more
	// than one device can lose; then nothing is written.
	var gate sync.RWMutex
	for g := range 3 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 7))
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				func() {
					gate.RLock()
					defer gate.RUnlock()
					name := fmt.Sprintf("%d/%d", g, r.IntN(30))
					mu.Lock()
					want, known := w.objects[name]
					mu.Unlock()
					switch {
					case r.IntN(3) == 0 || !known:
						data := content(r.Uint64(), r.IntN(300000))
						if err := w.Client.Put(ctx, "ns", name, data); err != nil {
							// The outcome is open: what is there now is what counts.
							data, err = w.Client.Get(ctx, "ns", name, 1<<30)
							if err != nil {
								mu.Lock()
								delete(w.objects, name)
								mu.Unlock()
								if errors.Is(err, nsm.ErrNotExist) {
									return
								}
								t.Errorf("%s after a failed put: %v", name, err)
								return
							}
							mu.Lock()
							w.objects[name] = data
							mu.Unlock()
							return
						}
						mu.Lock()
						w.objects[name] = data
						writes++
						mu.Unlock()
					default:
						got, err := w.Client.Get(ctx, "ns", name, 1<<30)
						if err != nil || !bytes.Equal(got, want) {
							t.Errorf("%s: %d bytes, %v", name, len(got), err)
							return
						}
						mu.Lock()
						reads++
						mu.Unlock()
					}
				}()
			}
		})
	}
	until(t, func() bool { // without an object there is no safety to tell
		mu.Lock()
		defer mu.Unlock()
		return writes > 0
	})
	for range rounds {
		n := w.Numbers("")[r.IntN(9)]
		dev := w.OSD(n)
		kind := r.IntN(3)
		switch kind {
		case 0:
			dev.SetDown(true)
		case 1:
			keys := dev.Keys()
			for range 5 {
				if key := keys[r.IntN(len(keys))]; key[0] == 'f' {
					dev.Corrupt([]byte(key), r.Int64N(1000))
				}
			}
		case 2:
			dev.SetFull(true)
		}
		for range 2 {
			must(t, w.a.Probe(ctx))
			must(t, w.a.Reconcile(ctx))
			must(t, w.a.Work(ctx))
			if err := w.a.Survey(ctx); err != nil {
				t.Log(err)
			}
			must(t, w.a.Garbage(ctx))
			must(t, w.a.Collect(ctx))
		}
		must(t, w.a.VerifyOSD(ctx, w.Numbers("")[(int(n))%9]))
		gate.Lock()
		dev.SetDown(false)
		dev.SetFull(false)
		if kind == 1 {
			must(t, w.a.VerifyOSD(ctx, n))
		}
		w.qualified()
		w.settle("after a fault", pol.M)
		gate.Unlock()
		if t.Failed() {
			break
		}
	}
	close(stop)
	wg.Wait()
	w.qualified()
	w.settle("at last", pol.M)
	w.exact("at last")
	w.check("at last")
	t.Logf("%d writes and %d reads in %d rounds", writes, reads, rounds)
}

// A fragment that no manifest names is collected also when its tag is damaged; one
// that is named stays.
func TestDamagedTags(t *testing.T) {
	w := newWorld(t, albatest.Options{Nodes: []int{3, 3, 3}, Preset: preset.Preset{Policies: []preset.Policy{{K: 4, M: 2, C: 5, X: 2}}}})
	w.put("keep", 100000)
	m, err := w.Client.Manifest(t.Context(), "ns", "keep")
	must(t, err)
	f := m.Fragments[0][0]
	kept := m.Place(1, 0, 0)
	left := kept
	left.Object = layout.Object{9}
	dev := w.OSD(f.OSD)
	must(t, dev.Apply(t.Context(), nil, []osd.Update{osd.Set(left.FragmentKey(), []byte("x")), osd.Set(left.TagKey(f.Epoch), []byte("no tag"))}, osd.High))
	if !dev.Corrupt(left.TagKey(f.Epoch), 1) || !dev.Corrupt(kept.TagKey(f.Epoch), 1) {
		t.Fatal("no tags")
	}
	w.exact("collected")
	w.check("collected")
	must(t, w.a.VerifyOSD(t.Context(), f.OSD))
	w.settle("repaired", 2)
	now, err := w.Client.Manifest(t.Context(), "ns", "keep")
	must(t, err)
	if now.Fragments[0][0].Version == f.Version {
		t.Fatal("the fragment still has its damaged tag")
	}
	w.exact("repaired")
}

// An object that cannot be repaired is not read in every round; when a device changed it
// is tried at once.
func TestWorkLeft(t *testing.T) {
	pol := preset.Policy{K: 2, M: 1, C: 3, X: 1}
	w := newWorld(t, albatest.Options{Nodes: []int{1, 1, 1}, Preset: preset.Preset{Policies: []preset.Policy{pol}}})
	manual := clock.NewManual(time.Now())
	a := maintenance.New(maintenance.Options{Client: w.Client, Clock: manual, AutoRepair: -1})
	w.put("o", 200000)
	m, err := w.Client.Manifest(t.Context(), "ns", "o")
	must(t, err)
	var looks atomic.Int64
	watched := w.OSD(m.Fragments[0][2].OSD)
	watched.SetHook(func(string, []byte) error {
		looks.Add(1)
		return nil
	})
	for i := range 2 {
		w.OSD(m.Fragments[0][i].OSD).SetDown(true)
	}
	ns, err := w.Manager.Namespace(t.Context(), "ns")
	must(t, err)
	must(t, w.NSM.Report(t.Context(), ns.ID, "o", "a test says so"))
	// round tells whether a round looked at the object.
	round := func() bool {
		looks.Store(0)
		must(t, a.Work(t.Context()))
		return looks.Load() > 0
	}
	var at []time.Duration // after the first one
	for begin := manual.Now(); manual.Now().Sub(begin) < 40*time.Minute; manual.Advance(maintenance.DefaultWork) {
		if round() {
			at = append(at, manual.Now().Sub(begin)/maintenance.DefaultWork)
		}
	}
	if want := []time.Duration{0, 1, 2, 4, 8, 16, 32, 64, 128, 248, 368}; !slices.Equal(at, want) {
		t.Errorf("rounds that looked: %d, want %d", at, want)
	}
	if round() {
		t.Error("it is tried before its time")
	}
	for i := range 2 {
		w.OSD(m.Fragments[0][i].OSD).SetDown(false)
	}
	until(t, func() bool {
		a.Look()
		must(t, a.Work(t.Context()))
		work, _, err := w.NSM.ListWork(t.Context(), nil, 10)
		must(t, err)
		return len(work) == 0
	})
}
