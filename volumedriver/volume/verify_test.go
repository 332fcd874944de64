package volume

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/backend"
)

func (n *node) verify(id ID) Verification {
	n.t.Helper()
	out, err := n.pool.Verify(context.Background(), id, VerifyOptions{})
	if err != nil {
		n.t.Fatal(err)
	}
	return out
}

// stored returns the names of a vDisk's objects of a kind.
func (n *node) stored(id ID, dir string) []string {
	n.t.Helper()
	l, err := n.store.List(context.Background(), vdiskPrefix(id)+dir, "", 10000)
	if err != nil {
		n.t.Fatal(err)
	}
	var out []string
	for _, o := range l {
		out = append(out, o.Name)
	}
	return out
}

// flip changes a bit of an object; at below 0 counts from the end.
func (n *node) flip(name string, at int) {
	n.t.Helper()
	b, err := n.store.Get(context.Background(), name, 1<<30)
	if err != nil {
		n.t.Fatal(err)
	}
	if at < 0 {
		at += len(b)
	}
	b[at%len(b)] ^= 1
	if err := n.store.Put(context.Background(), name, b); err != nil {
		n.t.Fatal(err)
	}
}

const verifyClusters = 24

// history makes a vDisk with snapshots, overwrites, discards and a rollback.
func (n *node) history(id ID, r *rand.Rand) *Volume {
	n.t.Helper()
	ctx := context.Background()
	n.create(id, verifyClusters*4096)
	v := n.open(id)
	ver := uint32(1)
	some := func() {
		for range 4 {
			c := r.Int64N(verifyClusters)
			if r.IntN(5) == 0 {
				if err := v.Unmap(ctx, c*4096, min(3, verifyClusters-c)*4096); err != nil {
					n.t.Fatal(err)
				}
				continue
			}
			mustWrite(n.t, v, c*4096, ver)
			ver++
		}
		mustCommit(n.t, v)
	}
	for i := range 6 {
		some()
		mustSnapshot(n.t, v, fmt.Sprintf("s%d", i))
		some()
	}
	if err := v.Close(ctx); err != nil {
		n.t.Fatal(err)
	}
	mustRollback(n.t, n, id, Point{Snapshot: "s3"})
	v = n.open(id)
	for i := range 3 {
		some()
		mustSnapshot(n.t, v, fmt.Sprintf("t%d", i))
	}
	some()
	return v
}

// TestVerifyWhole: what is whole is found to be, of a vDisk with a past and of a clone
// of a clone; everything is read and nothing is changed.
func TestVerifyWhole(t *testing.T) {
	w := watched(t, 71)
	a, b, c := testID(1), testID(2), testID(3)
	n := w.mustStart(t)
	defer n.kill()
	n.history(a, rand.New(rand.NewPCG(1, 1)))
	n.clone(b, a, Point{Snapshot: "t1"}, 0)
	vb := n.open(b)
	mustWrite(t, vb, 4096, 9)
	mustCommit(t, vb)
	n.clone(c, b, Point{}, 0)
	before := n.stored(a, "")
	for _, id := range []ID{a, b, c} {
		rec := n.record(id)
		calls := 0
		out, err := n.pool.Verify(context.Background(), id, VerifyOptions{Progress: func(p Verification) {
			if calls++; p.Done > p.Total {
				t.Errorf("%d of %d bytes are done", p.Done, p.Total)
			}
		}})
		if err != nil || len(out.Damage) != 0 || out.BadObjects != 0 || out.Done != out.Total || out.Done == 0 || out.Clusters == 0 || calls == 0 {
			t.Fatalf("vdisk %d: %+v, %v", id[0], out, err)
		}
		if got := n.record(id); !reflect.DeepEqual(got, rec) {
			t.Errorf("the record changed: %+v, was %+v", got, rec)
		}
	}
	scos, heads := len(n.stored(a, scoDir)), 2 // head and past
	if got, want := n.verify(a).Objects, int64(scos+len(n.stored(a, tlogDir))+heads); got != want {
		t.Errorf("%d objects read, there are %d", got, want)
	}
	if after := n.stored(a, ""); !slices.Equal(before, after) {
		t.Errorf("objects changed: %v, were %v", after, before)
	}
}

// hit reads a disk and reports whether a cluster of it is damaged.
func hit(t *testing.T, v *Volume) bool {
	t.Helper()
	for c := range v.Size() / 4096 {
		err := v.ReadAt(context.Background(), make([]byte, 4096), c*4096)
		if errors.Is(err, ErrMedium) {
			return true
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return false
}

// TestVerifyHits: for a bit flipped in each SCO of a vDisk with a past, and for an SCO
// that is gone, what a verification says is hit is what reads find to be.
func TestVerifyHits(t *testing.T) {
	seeds := uint64(4)
	if testing.Short() {
		seeds = 1
	}
	current, history, snapshots := 0, 0, 0
	for seed := range seeds {
		r := rand.New(rand.NewPCG(seed, 7))
		w := newWorld(seed)
		id := testID(1)
		n := w.mustStart(t)
		n.history(id, r)
		n.clone(testID(2), id, Point{Snapshot: "s2"}, 0)
		n.close()
		for i, name := range n.stored(id, scoDir) {
			bw := &world{fs: w.fs.Crash(blockfs.CrashConfig{}), be: w.be.Crash(blockfs.CrashConfig{}), reg: w.reg.clone(), settings: w.settings, opts: w.opts, seed: seedsFrom(seed + 1000)}
			m := bw.mustStart(t)
			m.flip(name, r.IntN(4096))
			if i%5 == 0 {
				if err := m.store.Delete(context.Background(), name); err != nil {
					t.Fatal(err)
				}
			}
			out := m.verify(id)
			if m.isEmpty(name, out) {
				m.kill()
				continue
			}
			if len(out.Damage) != 1 || out.Damage[0].Object != name || out.BadClusters == 0 || len(out.Damage[0].Ranges) == 0 {
				t.Fatalf("seed %d, %s: %+v", seed, name, out)
			}
			d := out.Damage[0]
			v := m.open(id)
			if got := hit(t, v); got != d.Current {
				t.Errorf("seed %d, %s: reads find damage %v, said is %v", seed, name, got, d.Current)
			}
			for k, s := range v.Snapshots() {
				clone := testID(byte(10 + k))
				m.clone(clone, id, Point{Snapshot: s.Name}, 0)
				if got, said := hit(t, m.open(clone)), slices.Contains(d.Snapshots, s.Name); got != said {
					t.Errorf("seed %d, %s, snapshot %s: reads find damage %v, said is %v", seed, name, s.Name, got, said)
				}
			}
			if got, said := hit(t, m.open(testID(2))), m.verify(testID(2)); got != (len(said.Damage) == 1 && said.Damage[0].Current) {
				t.Errorf("seed %d, %s: reads of the clone find damage %v, said is %+v", seed, name, got, said.Damage)
			}
			switch {
			case d.Current:
				current++
			case len(d.Snapshots) > 0:
				snapshots++
			default:
				history++
			}
			m.kill()
		}
	}
	t.Logf("%d hit the disk, %d only snapshots, %d only history", current, snapshots, history)
	if !testing.Short() && (current == 0 || history == 0 || snapshots == 0) {
		t.Errorf("not all kinds were met")
	}
}

// isEmpty reports whether an SCO has trims only, and the bit was thus flipped in its
// footer: no data are hit.
func (n *node) isEmpty(name string, out Verification) bool {
	return len(out.Damage) == 1 && out.Damage[0].Object == name && out.BadClusters == 0 && len(out.Damage[0].Ranges) == 0 && out.Damage[0].Why != ""
}

// TestVerifyObjects: damage of every other kind of object is found, and one that names
// what it hits does not hide the others.
func TestVerifyObjects(t *testing.T) {
	w := newWorld(72)
	id := testID(1)
	n := w.mustStart(t)
	defer n.kill()
	n.history(id, rand.New(rand.NewPCG(3, 3)))
	var want []string
	for _, dir := range []string{headDir, pastDir, tlogDir, scoDir} {
		names := n.stored(id, dir)
		name := names[len(names)-1]
		n.flip(name, -3)
		if dir == scoDir {
			n.flip(name, -3)   // it was whole
			n.flip(name, -100) // in the footer
		}
		want = append(want, name)
		out := n.verify(id)
		var got []string
		for _, d := range out.Damage {
			got = append(got, d.Object)
			if d.Why == "" {
				t.Errorf("%s: why?", d.Object)
			}
		}
		slices.Sort(got)
		if all := slices.Sorted(slices.Values(want)); !slices.Equal(got, all) || out.BadObjects != int64(len(want)) {
			t.Fatalf("found %v, damaged are %v", got, all)
		}
	}
}

// TestVerifyProgress: what was told on the way stays as it was told.
func TestVerifyProgress(t *testing.T) {
	w := newWorld(77)
	id := testID(1)
	n := w.mustStart(t)
	defer n.kill()
	n.history(id, rand.New(rand.NewPCG(7, 7)))
	names := n.stored(id, scoDir)
	n.flip(names[len(names)-1], 4096)
	var told, was []Damage
	out, err := n.pool.Verify(context.Background(), id, VerifyOptions{Progress: func(p Verification) {
		told, was = p.Damage, slices.Clone(p.Damage)
	}})
	if err != nil || len(out.Damage) != 1 || !out.Damage[0].Current {
		t.Fatalf("%+v, %v", out, err)
	}
	if len(told) != 1 || !reflect.DeepEqual(told, was) {
		t.Errorf("told %+v, which was %+v", told, was)
	}
}

// TestVerifyBackend: a backend that does not answer is no damage; one that answers late
// is waited for; a verification ends with its context and with its vDisk.
func TestVerifyBackend(t *testing.T) {
	w := newWorld(73)
	id := testID(1)
	var fail atomic.Int64
	w.wrapStore = func(s backend.Store) (backend.Store, error) { return &lateReads{Store: s, fail: &fail}, nil }
	n := w.mustStart(t)
	defer n.kill()
	v := n.history(id, rand.New(rand.NewPCG(4, 4)))
	fail.Store(3)
	if out := n.verify(id); len(out.Damage) != 0 || fail.Load() > 0 {
		t.Errorf("after errors that pass: %+v", out)
	}
	ctx, cancel := context.WithCancel(context.Background())
	out, err := n.pool.Verify(ctx, id, VerifyOptions{Progress: func(p Verification) {
		if p.Done > 0 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) || out.Done == 0 || out.Done >= out.Total {
		t.Errorf("cancelled: %+v, %v", out, err)
	}
	if err := v.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := n.pool.Delete(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := n.pool.Verify(context.Background(), id, VerifyOptions{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("of a vDisk that is deleted: %v", err)
	}
}

// lateReads fails a few reads before it lets them through.
type lateReads struct {
	backend.Store
	fail *atomic.Int64
}

func (s *lateReads) ReadAt(ctx context.Context, name string, p []byte, off int64) error {
	if strings.Contains(name, scoDir) && s.fail.Add(-1) >= 0 {
		return errAway
	}
	return s.Store.ReadAt(ctx, name, p, off)
}

// TestVerifyGone: an SCO that is deleted because nothing needs it any more, while the
// verification goes on, is no damage.
func TestVerifyGone(t *testing.T) {
	w := newWorld(74)
	a, b := testID(1), testID(2)
	n := w.mustStart(t)
	defer n.kill()
	n.history(a, rand.New(rand.NewPCG(5, 5)))
	n.clone(b, a, Point{Snapshot: "t0"}, 0)
	v := n.open(b)
	once := false
	out, err := n.pool.Verify(context.Background(), b, VerifyOptions{Progress: func(p Verification) {
		if once || p.Done == 0 {
			return
		}
		once = true
		if err := v.Flatten(context.Background(), nil); err != nil {
			t.Error(err)
		}
		if err := n.pool.Volume(a).Close(context.Background()); err != nil {
			t.Error(err)
		}
		if err := n.pool.Delete(context.Background(), a); err != nil {
			t.Error(err)
		}
	}})
	if err != nil || !once || out.BadObjects != 0 || len(out.Damage) != 0 {
		t.Errorf("%+v, %v", out, err)
	}
}

// TestVerifyRate: the rate is kept, on the host's clock.
func TestVerifyRate(t *testing.T) {
	w := newWorld(75)
	id := testID(1)
	n := w.mustStart(t)
	defer n.kill()
	n.create(id, 1<<20)
	v := n.open(id)
	for c := range int64(60) {
		mustWrite(t, v, c*4096, uint32(c+1))
	}
	mustCommit(t, v)
	start := time.Now()
	out, err := n.pool.Verify(context.Background(), id, VerifyOptions{BytesPerSecond: 1 << 20})
	if took := time.Since(start); err != nil || took < time.Duration(out.Done)*time.Second>>20*8/10 {
		t.Errorf("%d bytes in %s, %v", out.Done, took, err)
	}
}

// slowReads takes a while for each read of an SCO, in which another vDisk is read too.
type slowReads struct {
	backend.Store
	beside func()
	reads  atomic.Int64
}

const slowRead = 4 * time.Millisecond

func (s *slowReads) ReadAt(ctx context.Context, name string, p []byte, off int64) error {
	if s.beside == nil || !strings.Contains(name, scoDir) {
		return s.Store.ReadAt(ctx, name, p, off)
	}
	s.reads.Add(1)
	s.beside()
	time.Sleep(slowRead) // that is how slow it is
	return s.Store.ReadAt(ctx, name, p, off)
}

// TestVerifyYields: while other vDisks of the vPool are used, they get two thirds of the
// time, however many SCOs are read side by side.
func TestVerifyYields(t *testing.T) {
	w := newWorld(76)
	a, b := testID(1), testID(2)
	s := &slowReads{}
	w.wrapStore = func(in backend.Store) (backend.Store, error) { s.Store = in; return s, nil }
	n := w.mustStart(t)
	defer n.kill()
	n.history(a, rand.New(rand.NewPCG(6, 6)))
	n.create(b, 1<<20)
	other := n.open(b)
	mustWrite(t, other, 0, 1)
	s.beside = func() { wantVersion(t, other, 0, 1) }
	start := time.Now()
	if out := n.verify(a); out.Done != out.Total || out.Done == 0 {
		t.Fatalf("%+v", out)
	}
	took, reads := time.Since(start), s.reads.Load()
	if least := time.Duration(reads) * flattenYield * slowRead; reads < 2*verifyAtOnce || took < least {
		t.Errorf("%d reads of %s each took %s, want %s at least", reads, slowRead, took, least)
	}
}

// TestVerifyRequests: a small SCO is verified by one request, a large one by those for
// its data and one more; several are on their way at a time, and what is damaged among
// them is told in the order of the log.
func TestVerifyRequests(t *testing.T) {
	w := newWorld(94)
	var reads, now, most atomic.Int64
	var gate sync.RWMutex
	w.wrapStore = func(s backend.Store) (backend.Store, error) { return heldStore{s, &reads, &now, &most, &gate}, nil }
	n := w.mustStart(t)
	defer n.kill()
	id := testID(1)
	n.create(id, 16<<20)
	v := n.open(id)
	const small, large = 12, 2
	for i := range int64(small) {
		mustWrite(t, v, i*4096, uint32(i+1))
		mustCommit(t, v)
	}
	for i := range int64(large) {
		off := int64(4<<20) * (i + 1)
		for end := off + 5<<19; off < end; off += 1 << 16 {
			if err := v.WriteAt(context.Background(), versions(off, 1<<16, func(int64) uint32 { return 7 }), off); err != nil {
				t.Fatal(err)
			}
		}
		mustCommit(t, v)
	}
	list, err := n.store.List(context.Background(), vdiskPrefix(id)+scoDir, "", 10000)
	if err != nil {
		t.Fatal(err)
	}
	requests, big := int64(0), 0
	for _, o := range list {
		requests++
		if o.Size > verifyWindow { // first what is behind the data, then these, which are whole writes
			requests += (o.Size&^(1<<16-1) + 1<<20 - 1) >> 20
			big++
		}
	}
	if len(list) < small+large || big == 0 {
		t.Fatalf("%d SCOs, %d of them large", len(list), big)
	}
	reads.Store(0)
	most.Store(0)
	holdReads(&gate, &now, verifyAtOnce)
	if out := n.verify(id); out.BadObjects != 0 || out.Done != out.Total || out.Clusters != small+large*(5<<19)/4096 {
		t.Fatalf("%+v", out)
	}
	if got := most.Load(); got != verifyAtOnce {
		t.Errorf("%d requests at a time, want %d", got, verifyAtOnce)
	}
	if got := reads.Load(); got != requests {
		t.Errorf("%d requests for %d SCOs, want %d", got, len(list), requests)
	}
	names := n.stored(id, scoDir)
	slices.Sort(names)
	for _, k := range []int{3, 7} {
		n.flip(names[k], 100)
	}
	out := n.verify(id)
	if out.BadObjects != 2 || len(out.Damage) != 2 || out.Damage[0].Object != names[3] || out.Damage[1].Object != names[7] || out.BadClusters != 2 || out.Done != out.Total {
		t.Errorf("%+v", out)
	}
}

// TestVerifyScrubbed: an SCO that a scrub left where it is, and of which its TLog has a
// part alone, is whole; a flipped bit in any is found.
func TestVerifyScrubbed(t *testing.T) {
	w := newWorld(77)
	id := testID(1)
	n := w.mustStart(t)
	defer n.kill()
	n.create(id, 1<<20)
	v := n.open(id)
	for ver, blocks := range []int64{5, 25} { // the second leaves nothing of the first
		// One record: several may become several SCOs, which scrub puts together.
		if err := v.WriteAt(context.Background(), versions(0, blocks*4096, func(int64) uint32 { return uint32(ver + 1) }), 0); err != nil {
			t.Fatal(err)
		}
		mustCommit(t, v)
	}
	mustScrub(t, v, ScrubOptions{})
	left := 0
	st, _, err := n.pool.stateOf(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	log := n.pool.logReader(id, st.head.Epochs)
	for _, run := range st.log() {
		for k := run.First; k < run.End; k++ {
			entries, err := log.counted(context.Background(), run, k)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				if k >= movedNumbers && e.Footer.Number < movedNumbers {
					left++
				}
			}
		}
	}
	if out := n.verify(id); left == 0 || len(out.Damage) > 0 {
		t.Fatalf("%d SCOs left in place, %+v", left, out)
	}
	for _, name := range n.stored(id, scoDir) {
		n.flip(name, 100)
		if out := n.verify(id); len(out.Damage) != 1 || out.Damage[0].Object != name {
			t.Errorf("%s: %+v", name, out)
		}
		n.flip(name, 100)
	}
}
