package volume

import (
	"context"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/faultproxy"
	"github.com/openvstorage/ovgate/internal/testseed"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/faulty"
	"github.com/openvstorage/ovgate/volumedriver/backend/local"
)

// fastClock runs the machine's clock at a multiple of its speed, so that
// back-offs and time-outs of seconds take milliseconds.
type fastClock struct {
	start time.Time
	speed time.Duration
}

func (f fastClock) Now() time.Time { return f.start.Add(time.Since(f.start) * f.speed) }
func (f fastClock) NewTimer(d time.Duration) clock.Timer {
	return clock.Real{}.NewTimer(d / f.speed)
}

// hangLimit is how long one operation may take before it counts as hung, far above what it
// takes on a busy machine: a test that needs it has failed.
const hangLimit = 2 * time.Minute

// faultPlan says which operation fails, and how.
type faultPlan struct {
	where string // files | backend | store | network
	n     int64  // the n-th operation from the start of the workload; of store and network, the seed
	last  int64  // ... up to this one
	err   error
	part  bool // half of a write happens
	// Of network: a store, and the proxy that it is behind.
	store backend.Store
	proxy *faultproxy.Proxy
}

// lasts tells a plan of faults that go on, and that reads and writes get over.
func (p faultPlan) lasts() bool { return p.where == "store" || p.where == "network" }

func (p faultPlan) String() string {
	if p.lasts() {
		return fmt.Sprintf("faulty %s, seed %d", p.where, p.n)
	}
	return fmt.Sprintf("%s ops %d-%d: %v (partial %v)", p.where, p.n, p.last, p.err, p.part)
}

// faulty makes an Inject function of a plan and counts operations.
func (p faultPlan) faulty(where string, on *atomic.Bool, count *atomic.Int64) func(blockfs.OpInfo) error {
	return func(op blockfs.OpInfo) error {
		if !on.Load() {
			return nil
		}
		n := count.Add(1)
		if p.where != where || n < p.n || n > p.last {
			return nil
		}
		if p.part && op.Kind == blockfs.OpWrite {
			return blockfs.Partial(int(op.Len/2), p.err)
		}
		return p.err
	}
}

// faults counts the operations of a world and lets some fail.
type faults struct {
	on        atomic.Bool
	files, be atomic.Int64

	mu     sync.Mutex
	stores []*faulty.Store // of a plan for the store, one for each start
	proxy  *faultproxy.Proxy
}

func (f *faults) set(on bool) {
	f.on.Store(on)
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.stores {
		if on {
			s.On()
		} else {
			s.Off()
		}
	}
	switch {
	case f.proxy == nil:
	case on:
		f.proxy.On()
	default:
		f.proxy.Off()
	}
}

func newFaults(w *world, plan faultPlan) *faults {
	f := &faults{proxy: plan.proxy}
	if plan.where == "network" {
		w.openStore = func() backend.Store { return storeCalls{plan.store, (&line{}).before} }
		return f
	}
	if plan.where == "store" {
		w.wrapStore = func(s backend.Store) (backend.Store, error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			next := faulty.New(s, faulty.Options{Chances: storeFaults, Clock: w.opts.Clock, Delay: 2 * time.Second, Hang: 20 * time.Second,
				Rand: mrand.New(mrand.NewPCG(uint64(plan.n), uint64(len(f.stores))))})
			if f.on.Load() {
				next.On()
			}
			f.stores = append(f.stores, next)
			return next, nil
		}
		return f
	}
	w.wrapFS = func(fs blockfs.FS) blockfs.FS { return blockfs.Inject(fs, plan.faulty("files", &f.on, &f.files)) }
	w.wrapStore = func(backend.Store) (backend.Store, error) {
		return local.Open(blockfs.Inject(w.be, plan.faulty("backend", &f.on, &f.be)), local.Options{})
	}
	return f
}

// faultRun runs the script under a plan, then restarts without faults and checks
// that nothing acknowledged is lost and nothing wrong is read. The faults count the
// operations on files and backend.
func faultRun(t *testing.T, plan faultPlan, steps []step, size int64) *faults {
	t.Helper()
	w := newBusyWorld(uint64(plan.n))
	// Reads come from the chunk files and the backend as often as from memory.
	w.opts.WriteMemoryBytes, w.opts.CacheBytes = 1, 1
	w.opts.Clock = fastClock{time.Now(), 1000}
	patience := 5 * time.Second
	if plan.where == "network" { // which takes the time of the machine
		w.opts.Clock = fastClock{time.Now(), 100}
		patience = time.Minute
	}
	if plan.lasts() { // reads and writes work nevertheless, on a busy machine too
		w.settings.StallTimeout = time.Hour
	}
	faults := newFaults(w, plan)
	id := testID(3)
	n := w.mustStart(t)
	n.create(id, size)
	v := n.open(id)
	o := newOracle(size)
	moments := map[string]time.Time{}
	faults.set(true)
	for i, s := range steps {
		var err error
		switch s.special {
		case "restart", "kill":
			n, v, err = restartFaulty(t, w, n, id, s.special == "restart")
		case "snapshot", "drop", "moment", "rollback", "scrub":
			n, v, err = pastFaulty(t, n, v, id, o, moments, s, patience)
		default:
			err = runFaulty(v, o, s, plan.lasts())
		}
		if err != nil {
			t.Fatalf("%s: step %d %s: %v", plan, i, s, err)
		}
	}
	faults.set(false)
	n.kill()
	w.wrapFS, w.wrapStore = nil, nil
	n = w.mustStart(t)
	defer n.kill()
	v, err := n.pool.Open(context.Background(), id)
	if err != nil {
		t.Fatalf("%s: open after the faults: %v", plan, err)
	}
	if have, want := sortedNames(v), o.past.snapshots(); !slices.Equal(have, want) {
		t.Fatalf("%s: snapshots %q, want %q", plan, have, want)
	}
	if err := o.checkAll(v, true); err != nil {
		t.Fatalf("%s: after restart: %v", plan, err)
	}
	if err := o.run(v, step{kind: ReqWrite, off: 0, n: 8192, ver: 1 << 30}); err != nil {
		t.Fatalf("%s: write after restart: %v", plan, err)
	}
	return faults
}

// restartFaulty closes or kills the engine and starts it again; a start that
// meets the fault may fail, and is tried again.
func restartFaulty(t *testing.T, w *world, n *node, id ID, orderly bool) (*node, *Volume, error) {
	if orderly {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		_ = n.pool.Detach(ctx) // under a fault the tail stays in the journal
		cancel()
	}
	n.kill()
	var err error
	for range 20 {
		if n, err = w.start(t); err != nil {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		var v *Volume
		v, err = n.pool.Open(ctx, id)
		cancel()
		if err == nil {
			return n, v, nil
		}
		n.kill()
		if errors.Is(err, ErrLostTail) || errors.Is(err, ErrCorrupt) && !errors.Is(err, syscall.EIO) {
			return nil, nil, err
		}
	}
	return nil, nil, fmt.Errorf("does not start: %w", err)
}

// runFaulty runs one step; wrong answers and hangs are not allowed, I/O errors only
// if the step is not one that must work.
func runFaulty(v *Volume, o *oracle, s step, works bool) error {
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if s.special == "commit" {
			done <- v.Commit(ctx)
			return
		}
		done <- o.run(v, s)
	}()
	select {
	case err := <-done:
		var wrong errWrong
		if works && s.special == "" || errors.As(err, &wrong) {
			return err
		}
		return nil
	case <-time.After(hangLimit):
		return errors.New("hung")
	}
}

// TestErrorEveryOperation fails the n-th operation of the engine on its files and
// on the backend, for every n of the crash test's workload, once and for a while,
// whole and in part.
func TestErrorEveryOperation(t *testing.T) {
	size, steps := grownScript()
	testErrors(t, size, steps, stride(2, 61))
}

// grownScript is the crash test's workload on a disk that has its last size from the
// start: a growth that fails would make the rest of the script another one.
func grownScript() (size int64, steps []step) {
	size, steps = crashScript()
	steps = slices.DeleteFunc(steps, func(s step) bool {
		if s.special == "grow" {
			size = s.n
		}
		return s.special == "grow"
	})
	return size, steps
}

// testErrors fails every operation of a workload in turn, stride at a time.
func testErrors(t *testing.T, size int64, steps []step, stride int64) {
	f := faultRun(t, faultPlan{}, steps, size)
	files, be := f.files.Load(), f.be.Load()
	if files < 500 || be < 200 {
		t.Fatalf("the workload makes only %d and %d operations", files, be)
	}
	var runs atomic.Int64
	t.Cleanup(func() {
		t.Logf("%d runs of %d steps: file operations 1-%d, backend operations 1-%d", runs.Load(), len(steps), files, be)
	})
	for part := range int64(2) {
		t.Run(fmt.Sprintf("half%d", part), func(t *testing.T) {
			t.Parallel()
			for _, where := range []string{"files", "backend"} {
				total := map[string]int64{"files": files, "backend": be}[where]
				for n := 1 + part*stride; n <= total; n += 2 * stride {
					plan := faultPlan{where: where, n: n, last: n, err: syscall.EIO, part: n%3 == 0}
					switch n / 2 % 4 {
					case 1:
						plan.last = n + 5
					case 2:
						plan.err = syscall.ENOSPC
					}
					faultRun(t, plan, steps, size)
					runs.Add(1)
				}
			}
		})
	}
}

// storeFaults are the chances of TestFaultyStore: one call in four goes wrong, or one
// in three.
var storeFaults = map[faulty.Kind]float64{faulty.Refuse: 0.05, faulty.LostAnswer: 0.08, faulty.LateEffect: 0.04, faulty.Hang: 0.01,
	faulty.Slow: 0.05, faulty.StaleList: 0.3, faulty.Truncate: 0.02, faulty.Flip: 0.02}

// TestFaultyStore runs the workloads on a store that goes wrong all the time: reads
// and writes work nevertheless, everything else when it is asked for again.
func TestFaultyStore(t *testing.T) {
	runs := int64(40)
	if testing.Short() {
		runs = 4
	}
	seed := int64(testseed.Of(t) >> 1)
	counts := map[faulty.Kind]int64{}
	add := func(f *faults) {
		for _, s := range f.stores {
			for k := range storeFaults {
				counts[k] += s.Count(k)
			}
		}
	}
	for n := range runs {
		plan := faultPlan{where: "store", n: seed + n}
		size, steps := grownScript()
		if n%2 == 1 {
			size, steps = pastScript(100)
		}
		add(faultRun(t, plan, steps, size))
		add(errorFamily(t, plan))
	}
	t.Logf("%d runs, faults %v", 2*runs, counts)
	for k, n := range counts {
		if n == 0 {
			t.Errorf("no call was %s", k)
		}
	}
}
