package maintenance_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openvstorage/ovgate/alba/albatest"
	"github.com/openvstorage/ovgate/alba/client"
	"github.com/openvstorage/ovgate/alba/layout"
	"github.com/openvstorage/ovgate/alba/maintenance"
	"github.com/openvstorage/ovgate/alba/manager"
	"github.com/openvstorage/ovgate/alba/nsm"
	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/alba/osd/osdtest"
	"github.com/openvstorage/ovgate/alba/preset"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/testseed"
)

// The simulated machines: time is that of a synctest bubble, in which disks take
// diskTime for every call, and computing takes none.
const (
	diskTime   = 4 * time.Millisecond
	slowTimes  = 10
	autoRepair = time.Minute
	// patience bounds how long repair may take, on the simulated clock.
	patience = 2 * time.Hour
	// names of objects, per writer.
	simNames   = 14
	simHot     = 4 // of them, written again and again
	simWriters = 4
	simReaders = 3
)

// value is what the seq-th write of a name stores; absent: it deletes. Every content
// says which it is.
func value(name string, seq uint32) (data []byte, absent bool) {
	r := rand.New(rand.NewPCG(uint64(osd.CRC([]byte(name))), uint64(seq)))
	if seq == 0 || seq > 1 && r.IntN(8) == 0 {
		return nil, true
	}
	size := stamp + r.IntN(60<<10)
	switch r.IntN(10) {
	case 0:
		size = stamp + r.IntN(len(noise)/2)
	case 1, 2, 3:
		size = stamp + r.IntN(len(noise)/6)
	}
	at := r.IntN(len(noise) - size)
	data = bytes.Clone(noise[at : at+size])
	for i := 0; i+stamp <= size; i += 4096 {
		binary.LittleEndian.PutUint32(data[i:], seq)
		binary.LittleEndian.PutUint32(data[i+4:], osd.CRC([]byte(name)))
	}
	return data, false
}

// noise is what contents are cut from, stamp what tells whose they are, in bytes.
var noise = content(1, 2<<20)

const stamp = 8

// writes is how far those of a name are: those up to acked were acknowledged,
// those after begun have not begun.
type writes struct{ acked, begun uint32 }

// nodesSim is an Alba on simulated machines under load.
type nodesSim struct {
	*albatest.Cluster
	t      *testing.T
	pol    preset.Policy
	per    int // devices of a machine
	cap    int64
	a      *maintenance.Agent
	reader *client.Client // another gateway
	rng    *rand.Rand
	stop   chan struct{}
	load   sync.WaitGroup
	ended  func()   // ends the load
	nodes  []string // machines now
	made   int      // machines ever
	counts map[string]int
	old    map[uint32]*osdtest.Mem // older copies of devices

	working sync.WaitGroup // calls of devices
	mu      sync.Mutex
	names   map[string]*writes
	slow    map[uint32]bool
	phase   string
	took    map[string][]time.Duration // reads by phase
	events  []string
}

// TestNodes has machines come and go, disks get slow, full, damaged, set back, lost,
// swapped and replaced, while others write and read, for every policy. Never is what
// is read wrong or not to be had, and all is repaired without being asked.
// OVGATE_NODES_ROUNDS is how often each event comes.
func TestNodes(t *testing.T) {
	rounds, seed := 1, testseed.Of(t)
	if s := os.Getenv("OVGATE_NODES_ROUNDS"); s != "" {
		var err error
		rounds, err = strconv.Atoi(s)
		must(t, err)
	}
	for i, pol := range []preset.Policy{{K: 1, M: 2, C: 2, X: 1}, {K: 2, M: 1, C: 3, X: 1}, {K: 4, M: 2, C: 5, X: 2}, {K: 5, M: 4, C: 8, X: 3}, {K: 8, M: 4, C: 10, X: 4}} {
		t.Run(pol.String(), func(t *testing.T) {
			if testing.Short() && pol.K != 4 {
				t.Skip("one policy, which falls back to another, with -short")
			}
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				newNodesSim(t, pol, []int{4, 3, 5, 6, 3}[i], rand.New(rand.NewPCG(seed, uint64(i)))).run(rounds)
			})
		})
	}
}

func newNodesSim(t *testing.T, pol preset.Policy, nodes int, rng *rand.Rand) *nodesSim {
	policies := []preset.Policy{pol}
	if pol.K > 1 {
		policies = append(policies, preset.Policy{K: 1, M: 2, C: 2, X: 1})
	}
	s := &nodesSim{
		t: t, pol: pol, per: pol.X + 1, rng: rng, stop: make(chan struct{}), counts: map[string]int{}, old: map[uint32]*osdtest.Mem{},
		names: map[string]*writes{}, slow: map[uint32]bool{}, took: map[string][]time.Duration{}, phase: "whole",
	}
	t.Cleanup(func() { // after all others: devices go on with what nobody waits for
		synctest.Wait()
		s.working.Wait()
	})
	s.Cluster = albatest.New(t, albatest.Options{
		Preset: preset.Preset{Policies: policies}, Client: client.Options{Refresh: 5 * time.Second}, Log: simLog(t),
	})
	// Some 110 KiB on average, which a node less can take three times, and thrice that.
	s.cap = int64(simNames*simWriters*110<<10) * 3 * 3 / int64((nodes-1)*s.per)
	for range nodes {
		s.addNode()
	}
	must(t, s.Client.Refresh(t.Context()))
	s.reader = s.NewClient()
	s.a = maintenance.New(maintenance.Options{
		Client: s.Client, Clock: clock.Real{}, Log: simLog(t), Probe: 5 * time.Second, AutoRepair: autoRepair, Grace: 2 * time.Minute,
		Survey: 30 * time.Second, Verify: 5 * time.Minute, Rate: 1 << 40,
		Event: func(e maintenance.Event) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.events = append(s.events, e.Message)
		},
	})
	s.Namespace("ns")
	return s
}

func simLog(t *testing.T) *slog.Logger {
	if !testing.Verbose() || os.Getenv("OVGATE_NODES_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

func (s *nodesSim) addNode() string {
	node := albatest.Node(s.made)
	s.made++
	s.nodes = append(s.nodes, node)
	for range s.per {
		s.addDisk(node)
	}
	return node
}

func (s *nodesSim) addDisk(node string) uint32 {
	n := s.AddOSD(node)
	s.OSD(n).SetCapacity(s.cap)
	s.equip(n)
	return n
}

// equip has the device that is now in the place of this number take its time.
func (s *nodesSim) equip(number uint32) {
	s.OSD(number).SetHook(func(op string, _ []byte) error {
		s.working.Add(1)
		defer s.working.Done()
		s.mu.Lock()
		slow := s.slow[number]
		s.mu.Unlock()
		switch {
		case op == "applied":
		case slow:
			time.Sleep(slowTimes * diskTime)
		default:
			time.Sleep(diskTime)
		}
		return nil
	})
}

func (s *nodesSim) setSlow(numbers []uint32, slow bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range numbers {
		s.slow[n] = slow
	}
}

func (s *nodesSim) setDown(numbers []uint32, down bool) {
	for _, n := range numbers {
		s.OSD(n).SetDown(down)
	}
}

func (s *nodesSim) count(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[what]++
}

// told returns what maintenance had to tell.
func (s *nodesSim) told() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events)
}

func (s *nodesSim) setPhase(p string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.phase = p
}

// begin starts the load and the maintenance, until the test ends.
func (s *nodesSim) begin() {
	s.a.Start()
	s.ended = sync.OnceFunc(func() {
		close(s.stop)
		s.load.Wait()
	})
	s.t.Cleanup(func() {
		s.ended()
		s.a.Stop()
	})
	for w := range simWriters {
		for i := range simNames {
			s.names[fmt.Sprintf("%d/%d", w, i)] = &writes{}
		}
	}
	for w := range simWriters {
		r := rand.New(rand.NewPCG(s.rng.Uint64(), uint64(w)))
		s.load.Go(func() { s.write(w, r) })
	}
	for range simReaders {
		r := rand.New(rand.NewPCG(s.rng.Uint64(), 0))
		s.load.Go(func() { s.read(r) })
	}
}

// pause waits up to a time; false when the load ends.
func (s *nodesSim) pause(r *rand.Rand, most time.Duration) bool {
	timer := time.NewTimer(time.Duration(r.Int64N(int64(most))))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.stop:
		return false
	}
}

func (s *nodesSim) write(w int, r *rand.Rand) {
	for i := 0; s.pause(r, 8*time.Second); i++ {
		// Most are written once: what they lack nobody but maintenance brings back.
		name := fmt.Sprintf("%d/%d", w, i)
		if i >= simNames {
			name = fmt.Sprintf("%d/%d", w, r.IntN(simHot))
		}
		s.mu.Lock()
		h := s.names[name]
		h.begun++
		seq := h.begun
		s.mu.Unlock()
		data, absent := value(name, seq)
		var err error
		if absent {
			err = s.Client.Delete(s.t.Context(), "ns", name)
		} else {
			err = s.Client.Put(s.t.Context(), "ns", name, data)
		}
		s.mu.Lock()
		if err == nil {
			h.acked = seq
			s.counts["writes"]++
		} else {
			s.t.Errorf("write %d of %s during %s: %v", seq, name, s.phase, err)
		}
		s.mu.Unlock()
	}
}

func (s *nodesSim) read(r *rand.Rand) {
	for s.pause(r, 4*time.Second) {
		name := fmt.Sprintf("%d/%d", r.IntN(simWriters), r.IntN(simNames))
		if err := s.check(name); err != nil {
			s.mu.Lock()
			s.t.Errorf("during %s: %v", s.phase, err)
			s.mu.Unlock()
		}
	}
}

// check reads an object: what is read is the last that was acknowledged before, or
// one of those that were begun since.
func (s *nodesSim) check(name string) error {
	s.mu.Lock()
	least, phase := s.names[name].acked, s.phase
	s.mu.Unlock()
	start := time.Now()
	got, err := s.reader.Get(s.t.Context(), "ns", name, 1<<30)
	took := time.Since(start)
	s.mu.Lock()
	defer s.mu.Unlock()
	most := s.names[name].begun
	s.counts["reads"]++
	if errors.Is(err, nsm.ErrNotExist) {
		for seq := least; seq <= most; seq++ {
			if _, absent := value(name, seq); absent {
				return nil
			}
		}
		return fmt.Errorf("%s is gone, writes %d to %d stored it", name, least, most)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if phase == s.phase {
		s.took[phase] = append(s.took[phase], took)
	}
	if len(got) < stamp {
		return fmt.Errorf("%s has %d bytes", name, len(got))
	}
	seq := binary.LittleEndian.Uint32(got)
	if want, absent := value(name, seq); seq < least || seq > most || absent || !bytes.Equal(got, want) {
		return fmt.Errorf("%s reads as write %d, expected one of %d to %d, right: %v", name, seq, least, most, bytes.Equal(got, want))
	}
	return nil
}

// fragments is what is really on the devices: objects by how many more devices the
// poorest of their chunks may lose, with some devices gone; and how many fragments
// or tags that manifests name are not there as they should be.
type fragments struct {
	tolerates map[int]int64
	missing   int
	placed    string // what is wrong with the places of an object
}

func (s *nodesSim) brute(without ...uint32) fragments {
	s.t.Helper()
	ctx := context.WithoutCancel(s.t.Context())
	nodeOf := map[uint32]string{}
	have := map[uint32]map[string]osd.Entry{}
	out := fragments{tolerates: map[int]int64{}}
	for _, o := range s.osds() {
		nodeOf[o.Number] = o.Node
		dev := s.OSD(o.Number).Snapshot()
		have[o.Number] = map[string]osd.Entry{}
		all, err := dev.List(ctx, nil, nil, 0, osd.Low)
		for err == nil && len(all) > 0 {
			for _, e := range all {
				have[o.Number][string(e.Key)] = e
			}
			all, err = dev.List(ctx, nil, all[len(all)-1].Key, 0, osd.Low)
		}
		must(s.t, err)
		for after := []byte(nil); ; {
			v, err := dev.Validate(ctx, nil, after, 0, 1<<40)
			must(s.t, err)
			for _, key := range v.Bad {
				delete(have[o.Number], string(key))
				if key[0] == 'n' {
					out.missing++
				}
			}
			if after = v.Next; after == nil {
				break
			}
		}
	}
	for m := range s.manifests {
		least := m.Policy.M
		for i, chunk := range m.Fragments {
			left := -m.Policy.K
			on, used := map[string]int{}, map[uint32]bool{}
			for j, f := range chunk {
				if f.OSD == 0 {
					out.missing++
					continue
				}
				p := m.Place(1, i, j)
				e, ok := have[f.OSD][string(p.FragmentKey())]
				ok = ok && e.Size == f.Index.StoredBytes() && e.CRC == f.Index.CRC()
				if _, tagged := have[f.OSD][string(p.TagKey(f.Epoch))]; !ok || !tagged {
					out.missing++
				}
				if ok && !slices.Contains(without, f.OSD) {
					left++
				}
				if on[nodeOf[f.OSD]]++; on[nodeOf[f.OSD]] > m.Policy.X || used[f.OSD] {
					out.placed = fmt.Sprintf("object %s %v chunk %d: %d fragments on %s", m.Name, m.Policy, i, on[nodeOf[f.OSD]], nodeOf[f.OSD])
				}
				used[f.OSD] = true
			}
			least = min(least, left)
		}
		out.tolerates[max(least, -1)]++
	}
	return out
}

func (s *nodesSim) osds() []manager.OSD {
	s.t.Helper()
	all, err := s.Manager.OSDs(s.t.Context())
	must(s.t, err)
	return all
}

// manifests goes through all objects.
func (s *nodesSim) manifests(yield func(m *layout.Manifest) bool) {
	after := ""
	for {
		page, more, err := s.NSM.List(s.t.Context(), 1, "", after, 0)
		must(s.t, err)
		for _, m := range page {
			after = m.Name
			if !yield(m) {
				return
			}
		}
		if !more {
			return
		}
	}
}

// unwell says what is not as it should be; empty: all is repaired.
func (s *nodesSim) unwell(since time.Time) string {
	seen, err := s.Manager.SeenAll(s.t.Context())
	must(s.t, err)
	for _, o := range s.osds() {
		if n := seen[o.Number]; !o.Takes() || n.Error != "" || n.Reconcile != "" || n.Suspect || n.Full {
			return fmt.Sprintf("device %+v: %+v", o, n)
		}
	}
	for _, c := range []*client.Client{s.Client, s.reader} {
		for _, v := range c.OSDs() {
			if v.Error != "" || v.Full {
				return fmt.Sprintf("%+v", v)
			}
		}
	}
	f := s.a.Safety()
	least, ok := f.Least()
	if !f.At.After(since) || f.Repair > 0 || f.Worse > 0 || ok && least < s.pol.M || len(f.Policies) > 1 {
		return fmt.Sprintf("safety %+v", f)
	}
	if b := s.brute(); b.missing > 0 || b.placed != "" {
		return fmt.Sprintf("%d fragments missing, %s", b.missing, b.placed)
	}
	return ""
}

// until waits on the simulated clock.
func (s *nodesSim) until(what string, problem func() string) {
	s.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Second) {
		p := problem()
		if p == "" {
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("%s: not well after %v: %s; events %q", what, patience, p, s.told())
		}
	}
}

// whole waits until everything is repaired. A survey that began before does not count.
func (s *nodesSim) whole(what string) {
	s.t.Helper()
	time.Sleep(time.Second)
	since := time.Now()
	s.until(what, func() string { return s.unwell(since) })
	s.t.Logf("%s: whole again after %v", what, time.Since(since))
}

func (s *nodesSim) randomNode() (string, []uint32) {
	node := s.nodes[s.rng.IntN(len(s.nodes))]
	return node, s.Numbers(node)
}

// randomDisks returns up to n devices.
func (s *nodesSim) randomDisks(n int) []uint32 {
	all := s.Numbers("")
	s.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:min(n, len(all))]
}

func (s *nodesSim) between(least, most time.Duration) {
	time.Sleep(least + time.Duration(s.rng.Int64N(int64(most-least))))
}

// kinds of events, each of which takes no more than a policy allows, and is over when
// it returns.
func (s *nodesSim) kinds() map[string]func() {
	return map[string]func(){
		"node rebooted":      func() { s.nodeDown(1, 5*time.Second, autoRepair/2) },
		"node dead":          func() { s.nodeDown(1, 3*autoRepair, 5*autoRepair) },
		"node flapping":      func() { s.nodeDown(6, time.Second, 10*time.Second) },
		"node added":         s.nodeAdded,
		"node decommission":  s.nodeLeaves,
		"disks slow":         s.disksSlow,
		"disks full":         s.disksFull,
		"fragments damaged":  func() { s.damage('f', false) },
		"index damaged":      func() { s.damage('f', true); s.damage('g', false) },
		"namespace damaged":  func() { s.damage('n', false) },
		"older copy":         s.olderCopy,
		"disk lost and back": s.diskBack,
		"disks swapped":      s.swapped,
		"disk replaced":      s.replaced,
	}
}

// nodeDown kills a machine and brings it back, some times; perhaps another one is slow
// meanwhile.
func (s *nodesSim) nodeDown(times int, least, most time.Duration) {
	node, disks := s.randomNode()
	other, slow := s.randomNode()
	if other != node {
		s.setSlow(slow, true)
		defer s.setSlow(slow, false)
	}
	for range times {
		s.setDown(disks, true)
		s.between(least, most)
		s.setDown(disks, false)
		s.between(time.Second, 10*time.Second)
	}
}

// nodeAdded adds a machine, which gets its share.
func (s *nodesSim) nodeAdded() {
	node := s.addNode()
	s.until("rebalance", func() string {
		seen, err := s.Manager.SeenAll(s.t.Context())
		must(s.t, err)
		var all, here float64
		osds := s.osds()
		for _, o := range osds {
			all += float64(seen[o.Number].Used) / float64(len(osds))
			if o.Node == node {
				here += float64(seen[o.Number].Used) / float64(s.per)
			}
		}
		if here < all/2 {
			return fmt.Sprintf("disks of the new node hold %.0f bytes on average, all %.0f", here, all)
		}
		return ""
	})
}

// nodeLeaves empties a machine, where there are more than the policy needs.
func (s *nodesSim) nodeLeaves() {
	if len(s.nodes) == 3 || (len(s.nodes)-1)*s.pol.X < s.pol.N() {
		s.nodeAdded()
	}
	node, disks := s.randomNode()
	s.nodes = slices.DeleteFunc(s.nodes, func(n string) bool { return n == node })
	for _, n := range disks {
		_, err := s.Manager.Decommission(s.t.Context(), n)
		must(s.t, err)
		delete(s.old, n)
	}
	must(s.t, s.Manager.Follow(s.t.Context()))
	s.until("decommission", func() string {
		if left := s.Numbers(node); len(left) > 0 {
			return fmt.Sprintf("devices %v are still there", left)
		}
		return ""
	})
}

// disksSlow has the disks of a machine take ten times as long, and measures reads.
func (s *nodesSim) disksSlow() {
	_, disks := s.randomNode()
	s.setPhase("usual")
	time.Sleep(3 * time.Minute)
	s.setSlow(disks, true)
	s.setPhase("slow")
	time.Sleep(3 * time.Minute)
	s.setPhase("whole")
	s.setSlow(disks, false)
}

func (s *nodesSim) disksFull() {
	_, disks := s.randomNode()
	for _, n := range disks {
		s.OSD(n).SetFull(true)
	}
	s.between(time.Minute, 3*time.Minute)
	for _, n := range disks {
		s.OSD(n).SetFull(false)
	}
}

// damage flips bits in a third of the values with a prefix, or loses them, on as many
// devices as the policy may lose.
func (s *nodesSim) damage(prefix byte, lose bool) {
	for _, n := range s.randomDisks(s.pol.M) {
		dev := s.OSD(n)
		for _, key := range dev.Keys() {
			switch {
			case key[0] != prefix || prefix != 'n' && s.rng.IntN(3) > 0:
			case lose && dev.Drop([]byte(key)), !lose && dev.Corrupt([]byte(key), int64(s.rng.IntN(40))):
				s.count("damaged values")
			}
		}
	}
}

// olderCopy puts the copy of a disk in its place that was made some time ago.
func (s *nodesSim) olderCopy() {
	n := s.randomDisks(1)[0]
	if s.old[n] == nil {
		s.old[n] = s.OSD(n).Snapshot()
		s.between(time.Minute, 5*time.Minute)
	}
	s.Replace(n, s.old[n])
	s.equip(n)
	delete(s.old, n)
}

func (s *nodesSim) diskBack() {
	n := s.randomDisks(1)
	s.setDown(n, true)
	s.between(3*autoRepair, 6*autoRepair)
	s.setDown(n, false)
}

// swapped swaps two disks of a machine, and back.
func (s *nodesSim) swapped() {
	_, disks := s.randomNode()
	a, b := s.OSD(disks[0]), s.OSD(disks[1])
	swap := func(x, y *osdtest.Mem) { s.Replace(disks[0], x); s.Replace(disks[1], y) }
	swap(b, a)
	s.between(5*time.Second, 4*autoRepair)
	swap(a, b)
}

// replaced has a disk come back empty: it is given up, and another one claimed.
func (s *nodesSim) replaced() {
	n := s.randomDisks(1)[0]
	rec, err := s.Manager.OSD(s.t.Context(), n)
	must(s.t, err)
	s.OSD(n).Wipe()
	delete(s.old, n)
	s.between(2*autoRepair, 4*autoRepair)
	lost, _, err := s.a.Lost(s.t.Context(), []uint32{n}, 0)
	must(s.t, err)
	_, err = s.Manager.Purge(s.t.Context(), n, lost, false)
	must(s.t, err)
	must(s.t, s.Manager.Follow(s.t.Context()))
	s.addDisk(rec.Node)
	s.until("purge", func() string {
		if slices.Contains(s.Numbers(""), n) {
			return "it is still there"
		}
		return ""
	})
}

func (s *nodesSim) run(rounds int) {
	t := s.t
	s.begin()
	time.Sleep(2 * time.Minute)
	s.whole("at first")
	kinds := s.kinds()
	for range rounds {
		order := slices.Sorted(maps.Keys(kinds))
		s.rng.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for _, kind := range order {
			clear(s.old)
			for _, n := range s.randomDisks(2) {
				s.old[n] = s.OSD(n).Snapshot()
			}
			s.setPhase(kind)
			kinds[kind]()
			s.count(kind)
			s.whole(kind)
			s.setPhase("whole")
			if t.Failed() {
				break
			}
		}
	}
	s.ended()
	s.whole("at last")
	s.until("nothing is left over", s.leftover)
	s.safety()
	for name := range s.names {
		if err := s.check(name); err != nil {
			t.Errorf("at last: %v", err)
		}
	}
	s.speed()
	st := s.reader.Stats()
	t.Logf("%d nodes, %d objects, %d events of maintenance, %v; %d hedged, %d avoided, %d degraded; %d incomplete, %d fallback", len(s.nodes), s.a.Safety().Objects, len(s.told()), s.counts,
		st.Hedged.Load(), st.Avoided.Load(), st.Degraded.Load(), s.Client.Stats().Incomplete.Load(), s.Client.Stats().Fallback.Load())
}

// leftover tells what devices hold that no manifest names, and whether what they say
// they use is what the manifests sum up to.
func (s *nodesSim) leftover() string {
	var stored, used, names int64
	want := map[uint32]map[string]bool{}
	for m := range s.manifests {
		stored += m.Stored()
		for i, chunk := range m.Fragments {
			for j, f := range chunk {
				if want[f.OSD] == nil {
					want[f.OSD] = map[string]bool{}
				}
				p := m.Place(1, i, j)
				want[f.OSD][string(p.FragmentKey())] = true
				want[f.OSD][string(p.TagKey(f.Epoch))] = true
			}
		}
	}
	for _, n := range s.Numbers("") {
		snap := s.OSD(n).Snapshot()
		for _, key := range snap.Keys() {
			switch {
			case (key[0] == 'f' || key[0] == 'g') && !want[n][key]:
				return fmt.Sprintf("device %d holds %x", n, key)
			case key[0] != 'f':
				snap.Drop([]byte(key))
			default:
				names += int64(len(key))
			}
		}
		info, err := snap.Info(context.WithoutCancel(s.t.Context()))
		must(s.t, err)
		used += info.Used
	}
	if used -= names; used != stored {
		return fmt.Sprintf("%d bytes of fragments on the devices, %d in the manifests", used, stored)
	}
	return ""
}

// safety compares what the survey counts and a purge would lose with what is on the
// devices: with a machine away, and with random devices gone.
func (s *nodesSim) safety() {
	t, ctx := s.t, s.t.Context()
	if got, want := s.a.Safety().Tolerates, s.brute().tolerates; !maps.Equal(got, want) {
		t.Errorf("safety %v, on the devices %v", got, want)
	}
	for range 10 {
		gone := s.randomDisks(1 + s.rng.IntN(s.pol.M+3))
		lost, _, err := s.a.Lost(ctx, gone, 0)
		must(t, err)
		if want := s.brute(gone...).tolerates[-1]; int64(lost) != want {
			t.Errorf("without %v %d objects are said to be lost, %d are", gone, lost, want)
		}
		s.count("losses computed")
	}
	_, disks := s.randomNode()
	s.setDown(disks, true)
	s.until("safety with a machine away", func() string {
		// Until it is given up: with what it had made anew elsewhere all would be whole.
		got, want := s.a.Safety().Tolerates, s.brute(disks...).tolerates
		if !maps.Equal(got, want) || len(want) == 1 && want[s.pol.M] > 0 {
			return fmt.Sprintf("safety %v, on the devices %v", got, want)
		}
		return ""
	})
	s.setDown(disks, false)
	s.whole("machine back")
}

// speed requires that slow disks cost reads little, on the simulated clock: they are
// overtaken, and passed by once they are known.
func (s *nodesSim) speed() {
	usual, slow := mean(s.took["usual"]), mean(s.took["slow"])
	s.t.Logf("reads took %v, with the disks of a node %d times slower %v", usual, slowTimes, slow)
	if len(s.took["usual"]) == 0 || len(s.took["slow"]) == 0 || slow > 3*usual {
		s.t.Errorf("%d reads took %v, %d with slow disks %v", len(s.took["usual"]), usual, len(s.took["slow"]), slow)
	}
}

func mean(all []time.Duration) time.Duration {
	var sum time.Duration
	for _, d := range all {
		sum += d
	}
	return sum / time.Duration(max(1, len(all)))
}
