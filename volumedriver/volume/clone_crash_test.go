package volume

import (
	"context"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
)

// expect is what a vDisk of a family may be at a moment.
type expect struct {
	there, gone bool // allowed
	contents    [][]uint32
}

// familyStep is a step of the life of a parent and its clones. While it runs, what
// was before it and what is after it are both allowed.
type familyStep struct {
	name string
	run  func(f *familyRun) error
	then func(f *familyRun) // what the step makes of the expectations
}

// familyRun is one life of a family of vDisks.
type familyRun struct {
	t testing.TB
	w *world
	n *node

	// limit is how long one operation may take; with crashes checked on the way, long.
	limit time.Duration

	mu    sync.Mutex
	disks map[ID]expect

	stride, points, checks int64
	busy                   bool
	fail                   error
}

const familyClusters = 2100

var famA, famB, famC, famD = testID(0xa), testID(0xb), testID(0xc), testID(0xd)

// set says that a vDisk is there with a content.
func (f *familyRun) set(id ID, content []uint32) {
	f.disks[id] = expect{there: true, contents: [][]uint32{content}}
}

func (f *familyRun) gone(id ID) { f.disks[id] = expect{gone: true} }

// content returns what a vDisk holds now.
func (f *familyRun) content(id ID) []uint32 { return slices.Clone(f.disks[id].contents[0]) }

// union allows what either of two expectations allows.
func union(a, b map[ID]expect) map[ID]expect {
	out := map[ID]expect{}
	for _, id := range []ID{famA, famB, famC, famD} {
		x, y := a[id], b[id]
		out[id] = expect{x.there || y.there, x.gone || y.gone, append(slices.Clone(x.contents), y.contents...)}
	}
	return out
}

func (f *familyRun) volume(id ID) (*Volume, error) {
	if v := f.n.pool.Volume(id); v != nil {
		return v, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), f.limit)
	defer cancel()
	return f.n.pool.Open(ctx, id)
}

func (f *familyRun) closed(id ID) error {
	if v := f.n.pool.Volume(id); v != nil {
		ctx, cancel := context.WithTimeout(context.Background(), f.limit)
		defer cancel()
		return v.Close(ctx)
	}
	return nil
}

// stepWrite writes n clusters.
func stepWrite(id ID, cluster, n int64, ver uint32) familyStep {
	return familyStep{fmt.Sprintf("write %x", id[0]), func(f *familyRun) error {
		v, err := f.volume(id)
		if err != nil {
			return err
		}
		return v.WriteAt(context.Background(), versions(cluster*4096, n*4096, func(int64) uint32 { return ver }), cluster*4096)
	}, func(f *familyRun) {
		c := f.content(id)
		for i := cluster * 8; i < (cluster+n)*8; i++ {
			c[i] = ver
		}
		f.set(id, c)
	}}
}

func stepClone(id, source ID, from Point, content func(f *familyRun) []uint32) familyStep {
	return familyStep{fmt.Sprintf("clone %x of %x", id[0], source[0]), func(f *familyRun) error {
		ctx, cancel := context.WithTimeout(context.Background(), f.limit)
		defer cancel()
		if from == (Point{}) {
			if _, err := f.volume(source); err != nil {
				return err
			}
		}
		return f.n.pool.Clone(ctx, CloneSpec{ID: id, Name: "clone", Source: source, From: from})
	}, func(f *familyRun) { f.set(id, content(f)) }}
}

func stepDelete(id ID, also ...ID) familyStep {
	return familyStep{fmt.Sprintf("delete %x", id[0]), func(f *familyRun) error {
		if err := f.closed(id); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), f.limit)
		defer cancel()
		if err := f.n.pool.Delete(ctx, id); err != nil {
			return err
		}
		return f.n.pool.Purge(ctx)
	}, func(f *familyRun) {
		f.gone(id)
		for _, id := range also {
			f.gone(id)
		}
	}}
}

func stepFlatten(id ID) familyStep {
	return familyStep{fmt.Sprintf("flatten %x", id[0]), func(f *familyRun) error {
		v, err := f.volume(id)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), f.limit)
		defer cancel()
		return v.Flatten(ctx, nil)
	}, func(*familyRun) {}}
}

func stepScrub(id ID) familyStep {
	return familyStep{fmt.Sprintf("scrub %x", id[0]), func(f *familyRun) error {
		if _, err := f.volume(id); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), f.limit)
		defer cancel()
		_, err := f.n.pool.Scrub(ctx, id, ScrubOptions{})
		return err
	}, func(*familyRun) {}}
}

func stepOf(name string, run func(f *familyRun) error) familyStep {
	return familyStep{name, run, func(*familyRun) {}}
}

// familyScript makes, clones, deletes and flattens vDisks, with restarts between.
func familyScript() []familyStep {
	restart := stepOf("kill", func(f *familyRun) error {
		f.n.kill()
		n, err := f.w.start(f.t)
		if err == nil {
			f.n = n
		}
		return err
	})
	var snapshot []uint32
	return []familyStep{
		{"create", func(f *familyRun) error {
			ctx, cancel := context.WithTimeout(context.Background(), f.limit)
			defer cancel()
			return f.n.pool.Create(ctx, Spec{ID: famA, Name: "a", Size: familyClusters * 4096})
		}, func(f *familyRun) { f.set(famA, make([]uint32, familyClusters*8)) }},
		stepWrite(famA, 0, 20, 1), stepWrite(famA, 1000, 3, 2),
		stepOf("snapshot", func(f *familyRun) error {
			v, err := f.volume(famA)
			if err == nil {
				_, err = v.Snapshot(context.Background(), SnapshotSpec{ID: testID(77), Name: "s"})
				snapshot = f.content(famA)
			}
			return err
		}),
		stepWrite(famA, 5, 2, 3),
		stepClone(famB, famA, Point{Snapshot: "s"}, func(*familyRun) []uint32 { return slices.Clone(snapshot) }),
		stepWrite(famA, 0, 8, 12), stepScrub(famA), // below what B starts from nothing changes
		stepWrite(famB, 6, 1, 4), restart, stepWrite(famB, 2099, 1, 5), stepScrub(famB),
		stepClone(famC, famB, Point{}, func(f *familyRun) []uint32 { return f.content(famB) }),
		stepWrite(famC, 7, 1, 6), stepWrite(famB, 7, 1, 7),
		stepDelete(famA), restart,
		stepWrite(famB, 8, 1, 8),
		stepClone(famD, famC, Point{}, func(f *familyRun) []uint32 { return f.content(famC) }),
		stepFlatten(famD), stepWrite(famD, 9, 1, 9), stepScrub(famD), restart,
		stepDelete(famB),
		stepFlatten(famC), restart, // the tombstones go
		stepWrite(famC, 10, 1, 10), stepDelete(famC), stepWrite(famD, 11, 1, 11), stepDelete(famD),
	}
}

// check opens a crashed world: what is allowed, and nothing else, is there; the
// counts of clones are right; a purge takes nothing that is needed; what a recovery
// from the backend finds is the same family.
func (f *familyRun) check(w *world, want map[ID]expect, recover bool) error {
	ctx := context.Background()
	if recover {
		w.reg, w.fs = newMemRegistry(), blockfs.NewMem()
	}
	n, err := w.start(f.t)
	if err != nil {
		return err
	}
	defer n.kill()
	if recover {
		if _, err := n.pool.Recover(ctx); err != nil {
			return err
		}
	}
	for range 2 {
		if err := countsRight(w); err != nil {
			return err
		}
		for id, x := range want {
			if err := f.checkDisk(n, id, x, recover); err != nil {
				return fmt.Errorf("vdisk %x: %w", id[0], err)
			}
		}
		if err := n.pool.Purge(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (f *familyRun) checkDisk(n *node, id ID, x expect, recovered bool) error {
	ctx := context.Background()
	v := n.pool.Volume(id)
	if v == nil {
		var err error
		v, err = n.pool.Open(ctx, id)
		if recovered && errors.Is(err, ErrLostTail) {
			return nil // there, and honest about it
		}
		if errors.Is(err, ErrNotFound) && x.gone || errors.Is(err, ErrNotFound) && recovered {
			return nil // a creation or clone of which the backend knows nothing yet
		}
		if err != nil {
			return err
		}
	}
	if !x.there {
		return errors.New("it is there")
	}
	have, err := readVersions(v)
	if err != nil {
		return err
	}
	for _, c := range x.contents {
		if sameVersions(have, c) {
			return nil
		}
	}
	if recovered { // a prefix of the log that is further back
		return nil
	}
	return fmt.Errorf("%d clusters hold none of %d allowed contents: %s", len(have)/8, len(x.contents), diffVersions(have, x.contents[0]))
}

// countsRight compares each record's count with the records that name it.
func countsRight(w *world) error {
	count := map[ID]int{}
	var recs []Record
	if err := w.reg.List(context.Background(), testPool, func(r Record) error {
		recs = append(recs, r)
		if r.Parent != nil {
			count[r.Parent.VDisk]++
		}
		return nil
	}); err != nil {
		return err
	}
	for _, r := range recs {
		if r.Clones != count[r.ID] {
			return fmt.Errorf("vdisk %x counts %d clones, has %d", r.ID[0], r.Clones, count[r.ID])
		}
		delete(count, r.ID)
	}
	for id := range count {
		return fmt.Errorf("vdisk %x is a parent and has no record", id[0])
	}
	return nil
}

// hook crashes copies of the world in the middle of a change.
func (f *familyRun) hook() {
	f.mu.Lock()
	f.points++
	if f.stride == 0 || f.points%f.stride != 0 || f.busy || f.fail != nil {
		f.mu.Unlock()
		return
	}
	f.busy = true
	n, before := f.points, f.disks
	f.mu.Unlock()
	for _, kind := range tearings {
		w := *f.w
		w.reg = f.w.reg.clone()
		cfg := blockfs.CrashConfig{Unsynced: kind, Rand: mrand.New(mrand.NewPCG(uint64(n), uint64(kind)))}
		w.fs, w.be = f.w.fs.Crash(cfg), f.w.be.Crash(cfg)
		w.seed = seedsFrom(uint64(n)*8 + uint64(kind) + 1<<40)
		f.mu.Lock()
		want := union(before, f.disks)
		f.mu.Unlock()
		err := f.check(&w, want, kind == blockfs.DropAll && n%3 == 0)
		f.mu.Lock()
		f.checks++
		if err != nil && f.fail == nil {
			f.fail = fmt.Errorf("crash point %d, tearing %d: %w", n, kind, err)
		}
		f.mu.Unlock()
	}
	f.mu.Lock()
	f.busy = false
	f.mu.Unlock()
}

// begin allows what a step makes beside what was; end, what it made alone.
func (f *familyRun) begin(s familyStep) (end func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.disks
	after := &familyRun{disks: union(before, nil)}
	for id, x := range before {
		after.disks[id] = x
	}
	s.then(after)
	f.disks = union(before, after.disks)
	return func() {
		f.mu.Lock()
		f.disks = after.disks
		f.mu.Unlock()
	}
}

func newFamily(t testing.TB, w *world) *familyRun {
	f := &familyRun{t: t, w: w, limit: 10 * time.Second, disks: map[ID]expect{}}
	for _, id := range []ID{famA, famB, famC, famD} {
		f.gone(id)
	}
	return f
}

// TestCrashFamily crashes at every point of the life of a parent and its clones.
func TestCrashFamily(t *testing.T) {
	w := newBusyWorld(58)
	f := newFamily(t, w)
	f.n, f.limit = w.mustStart(t), 10*time.Minute
	f.stride = stride(5, 67)
	w.fs.SetHook(func(int64, blockfs.OpInfo) { f.hook() })
	w.be.SetHook(func(int64, blockfs.OpInfo) { f.hook() })
	w.reg.setHook(f.hook)
	for i, s := range familyScript() {
		end := f.begin(s)
		if err := s.run(f); err != nil {
			t.Fatalf("step %d %s: %v", i, s.name, err)
		}
		end()
		f.mu.Lock()
		fail := f.fail
		f.mu.Unlock()
		if fail != nil {
			t.Fatalf("step %d %s: %v", i, s.name, fail)
		}
	}
	f.n.close()
	if f.fail != nil {
		t.Fatal(f.fail)
	}
	f.stride = 0
	for _, id := range []ID{famA, famB, famC, famD} {
		if _, err := w.reg.Load(context.Background(), id); !errors.Is(err, ErrNotFound) || f.n.objects(id) != 0 {
			t.Errorf("vdisk %x is there at the end: %v, %d objects", id[0], err, f.n.objects(id))
		}
	}
	t.Logf("%d crash points, %d recoveries checked, all hold", f.points, f.checks)
}

// TestErrorFamily fails every operation of that life in turn: each step is asked
// for again until it is done, and the family is right at the end.
func TestErrorFamily(t *testing.T) {
	first := errorFamily(t, faultPlan{})
	files, be := first.files.Load(), first.be.Load()
	stride := stride(5, 29)
	runs := 0
	for _, where := range []string{"files", "backend"} {
		total := map[string]int64{"files": files, "backend": be}[where]
		for n := int64(1); n <= total; n += stride {
			plan := faultPlan{where: where, n: n, last: n, err: syscall.EIO, part: n%3 == 0}
			if n%4 == 1 {
				plan.last = n + 5
			}
			errorFamily(t, plan)
			runs++
		}
	}
	t.Logf("%d runs: file operations 1-%d, backend operations 1-%d", runs, files, be)
}

func errorFamily(t *testing.T, plan faultPlan) *faults {
	t.Helper()
	w := newBusyWorld(uint64(plan.n))
	w.opts.WriteMemoryBytes, w.opts.CacheBytes = 1, 1
	w.opts.Clock = fastClock{time.Now(), 1000}
	fault := newFaults(w, plan)
	f := newFamily(t, w)
	f.n = w.mustStart(t)
	fault.set(true)
	for i, s := range familyScript() {
		end := f.begin(s)
		var err error
		for try := 0; try == 0 || err != nil && try < 20; try++ {
			if try > 0 { // a vDisk that failed is opened anew
				f.n.kill()
				next, serr := w.start(t)
				for ; serr != nil && try < 20; try++ {
					next, serr = w.start(t)
				}
				if f.n = next; serr != nil {
					t.Fatalf("%s: does not start: %v", plan, serr)
				}
			}
			err = s.run(f)
		}
		if err != nil {
			t.Fatalf("%s: step %d %s: %v", plan, i, s.name, err)
		}
		end()
		if err := countsRight(w); err != nil {
			t.Fatalf("%s: step %d %s: %v", plan, i, s.name, err)
		}
	}
	fault.set(false)
	if err := f.n.pool.Purge(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, id := range []ID{famA, famB, famC, famD} {
		if _, err := w.reg.Load(context.Background(), id); !errors.Is(err, ErrNotFound) {
			t.Fatalf("%s: vdisk %x is there at the end: %v", plan, id[0], err)
		}
	}
	f.n.kill()
	return fault
}
