package manager_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/alba/albatest"
	"github.com/openvstorage/ovgate/alba/layout"
	"github.com/openvstorage/ovgate/alba/manager"
	"github.com/openvstorage/ovgate/alba/nsm"
	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/alba/osd/osdtest"
	"github.com/openvstorage/ovgate/alba/preset"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/kv"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is a manager with hosts, each on a store of its own that may fail.
type world struct {
	*manager.Manager
	t     testing.TB
	store *albatest.Flaky
	hosts map[string]*albatest.Flaky
}

func bolt(t testing.TB) *albatest.Flaky {
	t.Helper()
	s, err := kv.OpenBolt(filepath.Join(t.TempDir(), "kv.db"), kv.BoltOptions{NoSync: true})
	must(t, err)
	f := albatest.NewFlaky(s)
	t.Cleanup(func() {
		f.Settle()
		must(t, s.Close())
	})
	return f
}

// open returns the manager on a store that has one or none.
func (w *world) open(cluster string) (*manager.Manager, error) {
	return manager.Open(w.t.Context(), manager.Options{Store: w.store, Clock: clock.Real{}, Rand: rand.Reader, Cluster: cluster, Host: func(name string) (*nsm.Host, error) {
		if s, ok := w.hosts[name]; ok {
			return nsm.New(s), nil
		}
		return nil, fmt.Errorf("no host %s", name)
	}})
}

var policies = []preset.Policy{{K: 2, M: 1, C: 3, X: 1}}

func newWorld(t testing.TB, hosts ...string) *world {
	t.Helper()
	w := &world{t: t, store: bolt(t), hosts: map[string]*albatest.Flaky{}}
	for _, h := range append(hosts, "host") {
		w.hosts[h] = bolt(t)
	}
	var err error
	w.Manager, err = w.open("")
	must(t, err)
	must(t, w.AddHost(t.Context(), "host", 0))
	_, err = w.CreatePreset(t.Context(), preset.Preset{Name: "default", Policies: policies})
	must(t, err)
	return w
}

func (w *world) nsm(name string) *nsm.Host { return nsm.New(w.hosts[name]) }

func uuid(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) }

func (w *world) claim(dev osd.OSD) (manager.OSD, error) {
	return w.Claim(w.t.Context(), dev, manager.OSD{Kind: "mem", Node: "n1"})
}

// soon fails a test that hangs: something retries without end.
func soon(t testing.TB, fn func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); fn() }()
	select {
	case <-done:
	case <-time.After(2 * time.Minute):
		t.Fatal("it does not end")
	}
}

func TestOpen(t *testing.T) {
	w := newWorld(t)
	again, err := w.open("")
	must(t, err)
	if again.Cluster() != w.Cluster() || len(w.Cluster()) != 36 {
		t.Fatalf("clusters %q and %q", again.Cluster(), w.Cluster())
	}
	if _, err := w.open(w.Cluster()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.open(uuid(1)); !errors.Is(err, manager.ErrInvalid) {
		t.Fatalf("another cluster: %v", err)
	}
	w.store = bolt(t)
	if anew, err := w.open(uuid(1)); err != nil || anew.Cluster() != uuid(1) {
		t.Fatalf("%v", err)
	}
}

func TestClaim(t *testing.T) {
	w := newWorld(t)
	dev := osdtest.NewMem(uuid(1))
	o, err := w.claim(dev)
	must(t, err)
	if o.Number != 1 || o.State != manager.InUse || o.UUID != uuid(1) || o.Node != "n1" {
		t.Fatalf("%+v", o)
	}
	if _, err := w.claim(dev); !errors.Is(err, manager.ErrExists) {
		t.Fatalf("twice: %v", err)
	}
	foreign := newWorld(t)
	if _, err := foreign.claim(dev); !errors.Is(err, manager.ErrForeign) {
		t.Fatalf("by another cluster: %v", err)
	}
	if all, err := foreign.OSDs(t.Context()); err != nil || len(all) != 0 {
		t.Fatalf("%+v, %v", all, err)
	}
	// A number is not used again, and what still carries one that left is refused
	// without taking another.
	_, err = w.Purge(t.Context(), 1, 5, false)
	if !errors.Is(err, manager.ErrUnsafe) {
		t.Fatalf("unsafe purge: %v", err)
	}
	_, err = w.Purge(t.Context(), 1, 5, true)
	must(t, err)
	must(t, w.Leave(t.Context(), 1))
	for range 3 {
		if _, err := w.claim(dev); !errors.Is(err, manager.ErrInvalid) {
			t.Fatalf("one that left: %v", err)
		}
	}
	dev.Wipe()
	if o, err = w.claim(dev); err != nil || o.Number != 2 {
		t.Fatalf("%+v, %v", o, err)
	}
}

// lossy is a device whose nth call meets a fault: the answer is lost, or it does not happen.
type lossy struct {
	osd.OSD
	n      int
	before bool
}

var errLossy = errors.New("no answer")

func (l *lossy) Apply(ctx context.Context, asserts []osd.Assert, updates []osd.Update, prio osd.Priority) error {
	l.n--
	if l.n == -1 && l.before {
		return errLossy
	}
	err := l.OSD.Apply(ctx, asserts, updates, prio)
	if l.n == -1 && err == nil {
		return errLossy
	}
	return err
}

// A claim that is interrupted anywhere is completed by claiming again: one number,
// one record.
func TestClaimInterrupted(t *testing.T) {
	for n := range 4 {
		for _, fault := range []albatest.Fault{albatest.Before, albatest.Lost, albatest.Late, albatest.TwiceLast} {
			for _, at := range []string{"manager", "device", "device before"} {
				w := newWorld(t)
				dev := osdtest.NewMem(uuid(1))
				var d osd.OSD = dev
				if at == "manager" {
					w.store.Once(n, fault)
				} else {
					d = &lossy{OSD: dev, n: n, before: at != "device"}
				}
				var o manager.OSD
				var err error
				for range 3 {
					if o, err = w.claim(d); err == nil || errors.Is(err, manager.ErrExists) {
						break
					}
					w.store.SetFault(nil)
					w.store.Settle()
				}
				if err != nil && !errors.Is(err, manager.ErrExists) {
					t.Fatalf("%d %d %s: %v", n, fault, at, err)
				}
				o, err = w.OSD(t.Context(), 1)
				if err != nil || o.State != manager.InUse {
					t.Fatalf("%d %d %s: %+v, %v", n, fault, at, o, err)
				}
				all, err := w.OSDs(t.Context())
				must(t, err)
				if len(all) != 1 {
					t.Fatalf("%d %d %s: %+v", n, fault, at, all)
				}
				seen, err := w.SeenAll(t.Context())
				must(t, err)
				if seen[1].Good.IsZero() {
					t.Fatalf("%d %d %s: seen %+v", n, fault, at, seen)
				}
			}
		}
	}
}

// Many claim one device at once, among others: one number for each, and it ends.
func TestClaimRace(t *testing.T) {
	w := newWorld(t)
	soon(t, func() {
		var wg sync.WaitGroup
		for i := range 6 {
			dev := osdtest.NewMem(uuid(i))
			for range 5 {
				wg.Go(func() {
					if o, err := w.claim(dev); err != nil && !errors.Is(err, manager.ErrExists) || err == nil && o.State != manager.InUse {
						t.Errorf("device %d: %+v, %v", i, o, err)
					}
				})
			}
		}
		wg.Wait()
	})
	all, err := w.OSDs(t.Context())
	must(t, err)
	uuids := map[string]bool{}
	for _, o := range all {
		uuids[o.UUID] = true
	}
	if len(all) != 6 || len(uuids) != 6 || all[5].Number != 6 {
		t.Fatalf("%+v", all)
	}
}

// Two clusters claim one device at once: one of them gets it.
func TestClaimRaceOfClusters(t *testing.T) {
	for range 10 {
		dev := osdtest.NewMem(uuid(1))
		var wg sync.WaitGroup
		errs := make([]error, 2)
		for i := range errs {
			w := newWorld(t)
			wg.Go(func() { _, errs[i] = w.claim(dev) })
		}
		wg.Wait()
		if (errs[0] == nil) == (errs[1] == nil) || !errors.Is(errors.Join(errs...), manager.ErrForeign) {
			t.Fatalf("%v", errs)
		}
	}
}

// A slow claim does not undo what became of the device meanwhile.
func TestSlowClaim(t *testing.T) {
	w := newWorld(t)
	dev := osdtest.NewMem(uuid(1))
	slow := &midway{OSD: dev}
	slow.then = func() {
		_, err := w.claim(dev)
		must(t, err)
		_, err = w.SetSeen(t.Context(), 1, func(s *manager.Seen) { s.Reconcile = "because" })
		must(t, err)
		_, err = w.Decommission(t.Context(), 1)
		must(t, err)
	}
	if _, err := w.claim(slow); !errors.Is(err, manager.ErrState) {
		t.Fatalf("%v", err)
	}
	o, err := w.OSD(t.Context(), 1)
	must(t, err)
	seen, err := w.SeenAll(t.Context())
	must(t, err)
	if o.State != manager.Decommissioning || seen[1].Reconcile != "because" {
		t.Fatalf("%+v %+v", o, seen[1])
	}
}

// midway calls then before its first Apply.
type midway struct {
	osd.OSD
	then func()
}

func (m *midway) Apply(ctx context.Context, asserts []osd.Assert, updates []osd.Update, prio osd.Priority) error {
	if then := m.then; then != nil {
		m.then = nil
		then()
	}
	return m.OSD.Apply(ctx, asserts, updates, prio)
}

// A claim that never ends can be given up.
func TestClaimGivenUp(t *testing.T) {
	w := newWorld(t)
	dev := osdtest.NewMem(uuid(1))
	if _, err := w.claim(&lossy{OSD: dev, before: true}); !errors.Is(err, errLossy) {
		t.Fatal(err)
	}
	_, err := w.Purge(t.Context(), 1, 0, false)
	must(t, err)
	must(t, w.Leave(t.Context(), 1))
	if o, err := w.claim(dev); err != nil || o.Number != 2 {
		t.Fatalf("%+v, %v", o, err)
	}
}

// Those who change devices at the same time: in the end every host knows all that
// take no fragments (G3), also where the last step was interrupted.
func TestCloseDevices(t *testing.T) {
	w := newWorld(t, "second")
	ctx := t.Context()
	must(t, w.AddHost(ctx, "second", 0))
	const devices = 16
	for i := range devices {
		_, err := w.claim(osdtest.NewMem(uuid(i)))
		must(t, err)
	}
	var wg sync.WaitGroup
	for i := range uint32(devices) {
		wg.Go(func() {
			switch i % 3 {
			case 0:
				_, err := w.Decommission(ctx, i+1)
				must(t, err)
			case 1:
				must(t, w.Rebuild(ctx, i+1))
			case 2:
				must(t, w.Rebuild(ctx, i+1))
				must(t, w.Restored(ctx, i+1))
			}
		})
	}
	wg.Wait()
	check := func(when string) {
		t.Helper()
		var want []uint32
		all, err := w.OSDs(ctx)
		must(t, err)
		for _, o := range all {
			if !o.Takes() {
				want = append(want, o.Number)
			}
		}
		for name := range w.hosts {
			d, err := w.nsm(name).Devices(ctx)
			must(t, err)
			if !slices.Equal(d.Closed, want) {
				t.Fatalf("%s: host %s knows %v, want %v", when, name, d.Closed, want)
			}
		}
	}
	check("race")
	w.hosts["second"].Once(0, albatest.Before)
	if err := w.Rebuild(ctx, 3); !errors.Is(err, albatest.ErrFault) {
		t.Fatal(err)
	}
	w.hosts["second"].SetFault(nil)
	must(t, w.CloseDevices(ctx))
	check("interrupted")
	w.hosts["third"] = bolt(t)
	must(t, w.AddHost(ctx, "third", 0))
	check("a new host")
}

func TestPresets(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	other := preset.Preset{Name: "other", Policies: policies, FragmentBytes: 1 << 20}
	p, err := w.CreatePreset(ctx, other)
	must(t, err)
	if p.Default || p.PieceBytes != preset.DefaultPieceBytes {
		t.Fatalf("a second default, or without a size of pieces: %+v", p)
	}
	if again, err := w.CreatePreset(ctx, other); err != nil || again.Name != "other" {
		t.Fatalf("again: %v", err)
	}
	other.FragmentBytes *= 2
	for name, tt := range map[string]struct {
		do   func() error
		want error
	}{
		"other settings": {func() error { _, err := w.CreatePreset(ctx, other); return err }, manager.ErrExists},
		"no policy":      {func() error { _, err := w.CreatePreset(ctx, preset.Preset{Name: "x"}); return err }, preset.ErrInvalid},
		"bad policy": {func() error {
			_, err := w.UpdatePreset(ctx, "other", func(p *preset.Preset) { p.Policies = []preset.Policy{{K: 2, M: 1, C: 4, X: 1}} })
			return err
		}, preset.ErrInvalid},
		"update of none":  {func() error { _, err := w.UpdatePreset(ctx, "x", func(*preset.Preset) {}); return err }, manager.ErrNotFound},
		"default of none": {func() error { return w.SetDefaultPreset(ctx, "x") }, manager.ErrNotFound},
		"delete default":  {func() error { return w.DeletePreset(ctx, "default") }, manager.ErrInUse},
		"delete none":     {func() error { return w.DeletePreset(ctx, "x") }, nil},
		"namespace":       {func() error { _, err := w.CreateNamespace(ctx, "n", "x"); return err }, manager.ErrNotFound},
	} {
		if err := tt.do(); !errors.Is(err, tt.want) || tt.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	n, err := w.CreateNamespace(ctx, "ns", "other")
	must(t, err)
	if err := w.DeletePreset(ctx, "other"); !errors.Is(err, manager.ErrInUse) {
		t.Fatalf("delete of one in use: %v", err)
	}
	// What never changes does not, the rest reaches the namespace.
	p, err = w.UpdatePreset(ctx, "other", func(p *preset.Preset) {
		p.Name, p.KeyID, p.Default, p.FragmentBytes, p.PieceBytes, p.OSDs = "renamed", "00", true, 1<<19, 4<<10, []uint32{1}
		p.Compression.Compression = 3
	})
	must(t, err)
	rec, err := w.nsm("host").Namespace(ctx, n.ID)
	must(t, err)
	if p.Name != "other" || p.KeyID != "" || p.Default || p.Compression.Compression != 0 || rec.Preset.FragmentBytes != 1<<19 || rec.Preset.PieceBytes != 4<<10 || !slices.Equal(rec.Preset.OSDs, []uint32{1}) {
		t.Fatalf("%+v, host has %+v", p, rec.Preset)
	}
	must(t, w.SetDefaultPreset(ctx, "other"))
	must(t, w.SetDefaultPreset(ctx, "other"))
	if p, err = w.Preset(ctx, ""); err != nil || p.Name != "other" {
		t.Fatalf("%+v, %v", p, err)
	}
	// With no preset asked for, the one that a namespace has is right.
	if _, err := w.CreateNamespace(ctx, "second", ""); err != nil {
		t.Fatal(err)
	}
	must(t, w.SetDefaultPreset(ctx, "default"))
	if again, err := w.CreateNamespace(ctx, "second", ""); err != nil || again.Preset != "other" {
		t.Fatalf("%+v, %v", again, err)
	}
	if _, err := w.CreateNamespace(ctx, "second", "default"); !errors.Is(err, manager.ErrExists) {
		t.Fatalf("%v", err)
	}
}

// Of presets that are made, changed and made the default at once, one is the
// default, and no change is undone.
func TestPresetRaces(t *testing.T) {
	for range 10 {
		w := &world{t: t, store: bolt(t)}
		var err error
		w.Manager, err = w.open("")
		must(t, err)
		ctx := t.Context()
		soon(t, func() {
			var wg sync.WaitGroup
			for i := range 4 {
				wg.Go(func() {
					name := fmt.Sprintf("p%d", i)
					_, err := w.CreatePreset(ctx, preset.Preset{Name: name, Policies: policies})
					must(t, err)
					wg.Go(func() { must(t, w.SetDefaultPreset(ctx, name)) })
					for n := range 5 {
						_, err := w.UpdatePreset(ctx, name, func(p *preset.Preset) { p.OSDs = append(p.OSDs, uint32(n)) })
						must(t, err)
					}
				})
			}
			wg.Wait()
		})
		list, err := w.Presets(ctx)
		must(t, err)
		defaults := 0
		for _, p := range list {
			if p.Default {
				defaults++
			}
			if len(p.OSDs) != 5 {
				t.Errorf("%s: changes are lost: %v", p.Name, p.OSDs)
			}
		}
		if len(list) != 4 || defaults != 1 {
			t.Fatalf("%d defaults in %+v", defaults, list)
		}
	}
}

// A preset is not deleted under a namespace that is made at the same time (G5).
func TestPresetDeletedWhileUsed(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	for i := range 40 {
		name := fmt.Sprintf("p%d", i)
		_, err := w.CreatePreset(ctx, preset.Preset{Name: name, Policies: policies})
		must(t, err)
		var wg sync.WaitGroup
		var created, deleted error
		wg.Go(func() { _, created = w.CreateNamespace(ctx, name, name) })
		wg.Go(func() { deleted = w.DeletePreset(ctx, name) })
		wg.Wait()
		switch {
		case created == nil && errors.Is(deleted, manager.ErrInUse):
		case errors.Is(created, manager.ErrNotFound) && deleted == nil:
		default:
			t.Fatalf("created: %v, deleted: %v", created, deleted)
		}
	}
}

// The deletion read that nobody uses the preset, then a namespace was made.
func TestPresetDeletedLate(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	_, err := w.CreatePreset(ctx, preset.Preset{Name: "p", Policies: policies})
	must(t, err)
	first := true
	w.store.SetFault(func(then []kv.Op) albatest.Fault {
		if first && len(then) == 1 && then[0].Kind == kv.OpDelete {
			first = false
			w.between(func(m *manager.Manager) {
				_, err := m.CreateNamespace(ctx, "ns", "p")
				must(t, err)
			})
		}
		return albatest.None
	})
	if err := w.DeletePreset(ctx, "p"); !errors.Is(err, manager.ErrInUse) {
		t.Fatalf("%v", err)
	}
}

// between runs something on the stores without their faults.
func (w *world) between(fn func(m *manager.Manager)) {
	calm := &world{t: w.t, store: albatest.NewFlaky(w.store.Store), hosts: w.hosts}
	m, err := calm.open("")
	must(w.t, err)
	fn(m)
}

// Automatic presets follow the devices, keep the policies that objects have, and
// are not written again when nothing changes.
func TestFollow(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	_, err := w.CreatePreset(ctx, preset.Preset{Name: "auto", Policies: policies, Automatic: true})
	must(t, err)
	must(t, w.Follow(ctx)) // no devices
	n := 0
	for node := range 3 {
		for range 4 {
			n++
			_, err := w.Claim(ctx, osdtest.NewMem(uuid(n)), manager.OSD{Kind: "mem", Node: fmt.Sprint("n", node)})
			must(t, err)
			must(t, w.Follow(ctx))
		}
	}
	p, err := w.Preset(ctx, "auto")
	must(t, err)
	osds, err := w.OSDs(ctx)
	must(t, err)
	want := preset.Automatic(manager.PerGroup(osds, preset.Preset{}))
	if !slices.Equal(p.Policies[:len(want)], want) || !slices.Contains(p.Policies, policies[0]) {
		t.Fatalf("%v, want %v and %v", p.Policies, want, policies)
	}
	writes := 0
	w.store.SetFault(func([]kv.Op) albatest.Fault { writes++; return albatest.None })
	for range 3 {
		must(t, w.Follow(ctx))
	}
	if writes != 0 {
		t.Fatalf("%d writes for nothing", writes)
	}
}

// Namespaces spread over hosts by their capacity, and are refused beyond it.
func TestHosts(t *testing.T) {
	w := newWorld(t, "a", "b")
	ctx := t.Context()
	must(t, w.AddHost(ctx, "host", 2))
	must(t, w.AddHost(ctx, "a", 4))
	must(t, w.AddHost(ctx, "b", 6))
	var wg sync.WaitGroup
	errs := make([]error, 16)
	soon(t, func() {
		for i := range errs {
			wg.Go(func() { _, errs[i] = w.CreateNamespace(ctx, fmt.Sprintf("n%d", i), "") })
		}
		wg.Wait()
	})
	refused := 0
	for _, err := range errs {
		if errors.Is(err, manager.ErrInvalid) {
			refused++
		} else {
			must(t, err)
		}
	}
	hosts, err := w.Hosts(ctx)
	must(t, err)
	for _, h := range hosts {
		if h.Namespaces != h.Capacity {
			t.Errorf("%+v", h)
		}
	}
	if refused != 4 {
		t.Fatalf("%d refused", refused)
	}
	all, err := w.Namespaces(ctx)
	must(t, err)
	ids := map[uint64]bool{}
	for _, n := range all {
		ids[n.ID] = true
		if rec, err := w.nsm(n.Host).Namespace(ctx, n.ID); err != nil || rec.Name != n.Name || rec.State != nsm.Active {
			t.Errorf("%+v: host has %+v, %v", n, rec, err)
		}
	}
	if len(ids) != 12 {
		t.Fatalf("numbers %v", ids)
	}
	must(t, w.RemoveNamespace(ctx, all[0].Name, true))
	w.maintain()
	if _, err := w.CreateNamespace(ctx, "again", ""); err != nil {
		t.Fatalf("with room: %v", err)
	}
}

// maintain does what maintenance does for namespaces.
func (w *world) maintain() {
	w.t.Helper()
	ctx := w.t.Context()
	all, err := w.Namespaces(ctx)
	must(w.t, err)
	for _, n := range all {
		if n.State == nsm.Active {
			n, err = w.Settle(ctx, n)
			must(w.t, err)
		}
		if n.State != nsm.Removing {
			continue
		}
		h := w.nsm(n.Host)
		if err := h.BeginRemoval(ctx, n.ID, false); err != nil && !errors.Is(err, nsm.ErrNoNamespace) {
			w.t.Fatal(err)
		}
		must(w.t, h.Clear(ctx, n.ID))
		must(w.t, w.FinishRemoval(ctx, n))
	}
}

// tidy requires that manager and hosts agree, and counts are right.
func (w *world) tidy(when string) {
	w.t.Helper()
	ctx := w.t.Context()
	all, err := w.Namespaces(ctx)
	must(w.t, err)
	count := map[string]int{}
	for _, n := range all {
		count[n.Host]++
		rec, err := w.nsm(n.Host).Namespace(ctx, n.ID)
		if n.State == nsm.Active && (err != nil || rec.State != nsm.Active) {
			w.t.Fatalf("%s: %+v, host has %+v, %v", when, n, rec, err)
		}
	}
	hosts, err := w.Hosts(ctx)
	must(w.t, err)
	for _, h := range hosts {
		if h.Namespaces != count[h.Name] {
			w.t.Fatalf("%s: host %s counts %d of %d", when, h.Name, h.Namespaces, count[h.Name])
		}
		recs, _, err := w.hosts[h.Name].Range(ctx, "nsm/n/", "", 0)
		must(w.t, err)
		if len(recs) > count[h.Name] {
			w.t.Fatalf("%s: host %s has %d records for %d namespaces", when, h.Name, len(recs), count[h.Name])
		}
	}
}

// Creation and removal that are interrupted anywhere are resumed: by doing it again,
// or by maintenance alone.
func TestNamespaceInterrupted(t *testing.T) {
	for n := range 6 {
		for _, fault := range []albatest.Fault{albatest.Before, albatest.Lost, albatest.Late, albatest.TwiceLast} {
			for _, at := range []string{"manager", "host"} {
				for _, op := range []string{"create", "remove", "remove empty", "remove full"} {
					when := fmt.Sprintf("%s, transaction %d of the %s, fault %d", op, n, at, fault)
					w := newWorld(t)
					ctx := t.Context()
					if op != "create" {
						ns, err := w.CreateNamespace(ctx, "ns", "")
						must(t, err)
						if op == "remove full" {
							must(t, w.nsm("host").Apply(ctx, ns.ID, 1, nil, []nsm.Change{{Put: object()}}))
						}
					}
					store := w.store
					if at == "host" {
						store = w.hosts["host"]
					}
					store.Once(n, fault)
					do := func() error {
						if op == "create" {
							_, err := w.CreateNamespace(ctx, "ns", "")
							return err
						}
						return w.RemoveNamespace(ctx, "ns", op != "remove")
					}
					err := do()
					store.SetFault(nil)
					store.Settle()
					full := op == "remove full"
					if err != nil && !errors.Is(err, albatest.ErrFault) && !(full && errors.Is(err, manager.ErrInUse)) {
						t.Fatalf("%s: %v", when, err)
					}
					w.maintain() // alone, it leaves the two in agreement
					w.tidy(when)
					err = do()
					if full != errors.Is(err, manager.ErrInUse) || !full && err != nil {
						t.Fatalf("%s: again: %v", when, err)
					}
					w.maintain()
					w.tidy(when)
					now, err := w.Namespace(ctx, "ns")
					if gone := op == "remove" || op == "remove empty"; gone != errors.Is(err, manager.ErrNotFound) {
						t.Fatalf("%s: %+v, %v", when, now, err)
					}
				}
			}
		}
	}
}

func object() *layout.Manifest {
	m := &layout.Manifest{Header: layout.Header{Name: "o", Object: layout.Object{1}, Size: 1, Policy: policies[0], ChunkBytes: 1}}
	m.Fragments = [][]layout.Fragment{make([]layout.Fragment, 3)}
	for i := range m.Fragments[0] {
		m.Fragments[0][i] = layout.Fragment{OSD: uint32(i + 1), Epoch: 1, Index: index}
	}
	return m
}

// The host began to remove it, and whoever asked for that died: it is not said to
// be there, and goes.
func TestHostRemovesFirst(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	n, err := w.CreateNamespace(ctx, "ns", "")
	must(t, err)
	must(t, w.nsm("host").BeginRemoval(ctx, n.ID, false))
	if _, err := w.CreateNamespace(ctx, "ns", ""); !errors.Is(err, manager.ErrState) {
		t.Fatalf("%v", err)
	}
	w.maintain()
	if again, err := w.CreateNamespace(ctx, "ns", ""); err != nil || again.ID == n.ID {
		t.Fatalf("%+v, %v", again, err)
	}
}

// A namespace is removed, to the end, before its host was told to make it: the host
// does not keep what nobody knows.
func TestRemovedBeforeMade(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	first := true
	w.hosts["host"].SetFault(func([]kv.Op) albatest.Fault {
		if first {
			first = false
			calm := &world{t: t, store: w.store, hosts: map[string]*albatest.Flaky{"host": albatest.NewFlaky(w.hosts["host"].Store)}}
			var err error
			calm.Manager, err = calm.open("")
			must(t, err)
			must(t, calm.RemoveNamespace(ctx, "ns", false))
			calm.maintain()
		}
		return albatest.None
	})
	n, err := w.CreateNamespace(ctx, "ns", "")
	must(t, err)
	if n.ID != 2 {
		t.Fatalf("%+v", n)
	}
	w.tidy("made again")
}

// Everybody creates, removes and fills the same few namespaces, while maintenance
// ends those that go. It ends; nothing is half there; numbers are never used twice.
func TestNamespaceStorm(t *testing.T) {
	rounds := 40
	if testing.Short() {
		rounds = 15
	}
	w := newWorld(t)
	ctx := t.Context()
	allowed := func(err error, what ...error) {
		if err != nil && !slices.ContainsFunc(what, func(e error) bool { return errors.Is(err, e) }) {
			t.Errorf("%v", err)
		}
	}
	var mu sync.Mutex
	names := map[uint64]string{}
	soon(t, func() {
		var wg sync.WaitGroup
		for g := range 6 {
			wg.Go(func() {
				for i := range rounds {
					name := fmt.Sprintf("n%d", (i+g)%3)
					if g < 4 {
						n, err := w.CreateNamespace(ctx, name, "")
						allowed(err, manager.ErrState)
						if err != nil {
							continue
						}
						mu.Lock()
						if was, ok := names[n.ID]; ok && was != name {
							t.Errorf("number %d for %s and %s", n.ID, was, name)
						}
						names[n.ID] = name
						mu.Unlock()
						err = w.nsm("host").Apply(ctx, n.ID, 1, nil, []nsm.Change{{Put: object()}})
						allowed(err, nsm.ErrRemoving, nsm.ErrNoNamespace, nsm.ErrChanged)
						continue
					}
					allowed(w.RemoveNamespace(ctx, name, i%2 == 0), manager.ErrInUse)
					if g == 5 {
						w.maintain()
					}
				}
			})
		}
		wg.Wait()
	})
	w.maintain()
	w.tidy("at last")
	for i := range 3 {
		name := fmt.Sprintf("n%d", i)
		must(t, w.RemoveNamespace(ctx, name, false))
	}
	w.maintain()
	w.tidy("removed")
	if recs, _, err := w.hosts["host"].Range(ctx, "nsm/", "", 0); err != nil || len(recs) > 1 {
		t.Fatalf("%d records left, %v", len(recs), err)
	}
}

// A host that lost its records has lost them: nothing is made anew in their place
// (G6), and a namespace that was never completed is.
func TestLostOnHost(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	n, err := w.CreateNamespace(ctx, "ns", "")
	must(t, err)
	w.hosts["host"].Once(0, albatest.Before)
	if _, err := w.CreateNamespace(ctx, "half", ""); !errors.Is(err, albatest.ErrFault) {
		t.Fatal(err)
	}
	w.hosts["host"] = bolt(t)
	if _, err := w.CreateNamespace(ctx, "ns", ""); !errors.Is(err, manager.ErrLost) {
		t.Fatalf("%v", err)
	}
	if err := w.RemoveNamespace(ctx, "ns", true); !errors.Is(err, manager.ErrLost) {
		t.Fatalf("%v", err)
	}
	if _, err := w.nsm("host").Namespace(ctx, n.ID); !errors.Is(err, nsm.ErrNoNamespace) {
		t.Fatalf("%v", err)
	}
	if half, err := w.CreateNamespace(ctx, "half", ""); err != nil || half.ID != 2 {
		t.Fatalf("%+v, %v", half, err)
	}
	must(t, w.RemoveNamespace(ctx, "ns", false)) // whatever is in it
	w.maintain()
	w.tidy("removed")
}

// Numbers that devices know are not given out again, and those between are not ours.
func TestReserve(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	given := func(want ...uint64) {
		t.Helper()
		var got []uint64
		for id := range uint64(30) {
			ok, err := w.Given(ctx, id)
			must(t, err)
			if ok {
				got = append(got, id)
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("given %v, want %v", got, want)
		}
	}
	given()
	_, err := w.CreateNamespace(ctx, "a", "")
	must(t, err)
	given(1)
	n, err := w.Reclaim(ctx, 5, "b", "default")
	must(t, err)
	if n.State != nsm.Recovering || n.Host != "host" {
		t.Fatalf("%+v", n)
	}
	given(1, 5)
	must(t, w.Reserve(ctx, 3))
	must(t, w.Reserve(ctx, 10))
	_, err = w.CreateNamespace(ctx, "c", "")
	must(t, err)
	given(1, 5, 11)
	for _, id := range []uint64{3, 2, 4, 8} {
		_, err = w.Reclaim(ctx, id, fmt.Sprint("r", id), "default")
		must(t, err)
	}
	given(1, 2, 3, 4, 5, 8, 11)
	for what, tt := range map[string]struct {
		id         uint64
		name, pre  string
		want       error
		prepareRem string
	}{
		"again":            {id: 5, name: "b", pre: "default"},
		"another number":   {id: 6, name: "b", pre: "default", want: manager.ErrInvalid},
		"another's number": {id: 5, name: "x", pre: "default", want: manager.ErrInvalid},
		"no preset":        {id: 6, name: "x", pre: "x", want: manager.ErrNotFound},
		"number 0":         {id: 0, name: "x", pre: "default", want: manager.ErrInvalid},
		"bad name":         {id: 6, name: "/", pre: "default", want: manager.ErrInvalid},
		"being removed":    {id: 11, name: "c", pre: "default", want: manager.ErrState, prepareRem: "c"},
	} {
		if tt.prepareRem != "" {
			must(t, w.RemoveNamespace(ctx, tt.prepareRem, false))
		}
		if _, err := w.Reclaim(ctx, tt.id, tt.name, tt.pre); !errors.Is(err, tt.want) || tt.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", what, err, tt.want)
		}
	}
	// A manager that is set up anew takes the numbers of devices and namespaces from
	// a device of the cluster.
	dev := osdtest.NewMem(uuid(1))
	for range 3 {
		_, err := w.claim(osdtest.NewMem(uuid(2)))
		if err == nil {
			continue
		}
	}
	o, err := w.claim(dev)
	must(t, err)
	must(t, dev.Apply(ctx, nil, []osd.Update{osd.Set(layout.NamespaceKey(42), []byte("x"))}, osd.High))
	cluster := w.Cluster()
	w.store = bolt(t)
	w.Manager, err = w.open(cluster)
	must(t, err)
	must(t, w.AddHost(ctx, "host", 0))
	_, err = w.CreatePreset(ctx, preset.Preset{Name: "default", Policies: policies})
	must(t, err)
	again, err := w.claim(dev)
	must(t, err)
	if again.Number != o.Number || o.Number == 1 {
		t.Fatalf("device %d was %d", again.Number, o.Number)
	}
	if fresh, err := w.claim(osdtest.NewMem(uuid(3))); err != nil || fresh.Number != o.Number+1 {
		t.Fatalf("%+v, %v", fresh, err)
	}
	if n, err := w.CreateNamespace(ctx, "d", ""); err != nil || n.ID != 43 {
		t.Fatalf("%+v, %v", n, err)
	}
	given()
}
