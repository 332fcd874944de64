package volume

import (
	"context"
	"fmt"
	"maps"
	mrand "math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
)

// crashSteps is the length of the scripted workload.
const crashSteps = 300

// crashScript is a fixed workload of writes, partial writes, zeros, unmaps,
// compare-and-writes, reads, flushes, commits, growth and restarts.
func crashScript() (size int64, steps []step) {
	r := mrand.New(mrand.NewPCG(42, 7))
	size = 1 << 20
	cur := size
	for i := range crashSteps {
		s := randomStep(r, cur, MinClusterSize, 64<<10, uint32(i+1))
		switch {
		case i%15 == 14:
			s = step{special: "commit"}
		case i%75 == 40:
			s = step{special: "restart"}
		case i%75 == 60:
			s = step{special: "kill"}
		case i == 150:
			cur += 256 << 10
			s = step{special: "grow", n: cur}
		}
		steps = append(steps, s)
	}
	return size, steps
}

// crashRun replays the script and crashes copies of the world on the way.
type crashRun struct {
	t      *testing.T
	w      *world
	id     ID
	states [][]uint32             // expected versions before step i; the last is after all
	held   []uint32               // the same of the reservation state
	past   []map[string]pastPoint // the same of the points to go back to; nil: the script has none
	moment map[string]time.Time   // by the step that it is of
	acked  atomic.Int64
	begun  atomic.Int64
	points atomic.Int64
	checks atomic.Int64
	stride int64
	scrubs bool // recovered worlds are scrubbed and swept
	// loss, if set, takes something from a crashed world that it must do without.
	loss func(w *world, point int64)
	mu   sync.Mutex
	fail error
}

var tearings = []blockfs.Unsynced{blockfs.KeepAll, blockfs.DropAll, blockfs.Tear, blockfs.Reorder}

// hook is called in the middle of every change of files, backend and registry.
func (c *crashRun) hook() {
	n := c.points.Add(1)
	if n%c.stride != 0 || c.begun.Load() < 0 {
		return
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, kind := range tearings {
		low := c.acked.Load()
		w := *c.w
		w.reg = c.w.reg.clone()
		cfg := blockfs.CrashConfig{Unsynced: kind, Rand: mrand.New(mrand.NewPCG(uint64(n), uint64(kind)))}
		w.fs, w.be = c.w.fs.Crash(cfg), c.w.be.Crash(cfg)
		high := c.begun.Load()
		w.seed = seedsFrom(uint64(n)*8 + uint64(kind) + 1<<40)
		c.checks.Add(1)
		if c.loss != nil {
			c.loss(&w, n)
		}
		wg.Go(func() {
			if err := c.verify(&w, low, high, n%16 == 0); err != nil {
				c.mu.Lock()
				defer c.mu.Unlock()
				if c.fail == nil {
					c.fail = fmt.Errorf("crash point %d, tearing %d, step %d: %w", n, kind, low, err)
				}
			}
		})
	}
}

// verify opens a crashed world: its content must be the state after some step
// that is not before the acknowledged ones and not after the begun ones.
func (c *crashRun) verify(w *world, low, high int64, again bool) error {
	n, err := w.start(c.t)
	if err != nil {
		return err
	}
	defer n.kill()
	v, err := n.pool.Open(context.Background(), c.id)
	if err != nil {
		return err
	}
	have, err := readVersions(v)
	if err != nil {
		return err
	}
	held, err := heldVersion(v)
	if err != nil {
		return err
	}
	for k := low; ; k++ {
		if sameVersions(have, c.states[k]) && held == c.held[k] && (c.past == nil || slices.Equal(sortedNames(v), snapshotsOf(c.past[k]))) {
			break
		}
		if k == high {
			return fmt.Errorf("content is no prefix of the log between steps %d and %d: %s, reservation state %d of %v, snapshots %q",
				low, high, diffVersions(have, c.states[low]), held, c.held[low:high+1], names(v))
		}
	}
	if c.scrubs {
		if v, err = scrubRecovered(n, v, have); err != nil {
			return err
		}
	}
	if !again {
		return nil
	}
	if c.past != nil {
		return c.verifySnapshot(n, v)
	}
	// What was found stays, through a write and another crash.
	o := &oracle{cur: have, maybe: map[int64][]uint32{}, held: held}
	if err := o.run(v, step{kind: ReqWrite, off: 8192, n: 4096, ver: 1 << 30}); err != nil {
		return err
	}
	n.kill()
	if n, err = w.start(c.t); err != nil {
		return err
	}
	defer n.kill()
	if v, err = n.pool.Open(context.Background(), c.id); err != nil {
		return err
	}
	return o.checkAll(v, false)
}

func readVersions(v *Volume) ([]uint32, error) {
	buf := make([]byte, v.Size())
	if err := v.ReadAt(context.Background(), buf, 0); err != nil {
		return nil, err
	}
	out := make([]uint32, len(buf)/lbaBytes)
	for i := range out {
		var err error
		if out[i], err = sectorVersion(buf[i*lbaBytes:(i+1)*lbaBytes], uint64(i)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// sameVersions compares as far as both reach; the rest must be zeros (a growth
// may have happened or not).
func sameVersions(a, b []uint32) bool {
	n := min(len(a), len(b))
	return slices.Equal(a[:n], b[:n]) && !slices.ContainsFunc(slices.Concat(a[n:], b[n:]), func(v uint32) bool { return v != 0 })
}

func diffVersions(have, want []uint32) string {
	for i := range min(len(have), len(want)) {
		if have[i] != want[i] {
			return fmt.Sprintf("sector %d has version %d, acknowledged was %d", i, have[i], want[i])
		}
	}
	return "sizes differ"
}

// stride returns how many points a test goes on at a time: OVGATE_STRIDE sets it, for
// a run that has the time.
func stride(full, short int64) int64 {
	if n, err := strconv.ParseInt(os.Getenv("OVGATE_STRIDE"), 10, 64); err == nil && n > 0 {
		return n
	}
	if testing.Short() {
		return short
	}
	return full
}

// TestCrashEveryPoint crashes at every write and sync point of the script with
// each kind of tearing; the property of the architecture's section 3 must hold at
// every one.
func TestCrashEveryPoint(t *testing.T) {
	size, steps := crashScript()
	(&crashRun{}).test(t, size, steps)
}

// test runs a script and crashes at its points.
func (c *crashRun) test(t *testing.T, size int64, steps []step) {
	if c.stride == 0 {
		c.stride = stride(2, 47)
	}
	if c.loss != nil {
		c.stride = c.stride*3 + 7 // the same points are tried without a loss elsewhere
	}
	w := newBusyWorld(77)
	c.t, c.w, c.id, c.moment = t, w, testID(9), map[string]time.Time{}
	c.begun.Store(-1)
	o := newOracle(size)
	note := func() {
		c.states, c.held = append(c.states, slices.Clone(o.cur)), append(c.held, o.held)
		if c.past != nil {
			c.past = append(c.past, maps.Clone(o.past.points))
		}
	}
	for _, s := range steps {
		note()
		if s.special == "grow" {
			o.grow(s.n)
		}
		o.done(s)
	}
	note()
	n := w.mustStart(t)
	n.create(c.id, size)
	v := n.open(c.id)
	w.fs.SetHook(func(int64, blockfs.OpInfo) { c.hook() })
	w.be.SetHook(func(int64, blockfs.OpInfo) { c.hook() })
	w.reg.setHook(c.hook)
	o = newOracle(size)
	for i, s := range steps {
		c.begun.Store(int64(i + 1))
		if s.special == "rollback" || s.special == "moment" {
			n, v = c.runPast(n, v, o, s)
		} else {
			n, v = runStep(t, n, v, c.id, o, s)
		}
		c.acked.Store(int64(i + 1))
		if c.fail != nil {
			t.Fatal(c.fail)
		}
	}
	if err := o.checkAll(v, false); err != nil {
		t.Fatal(err)
	}
	n.close()
	if c.fail != nil {
		t.Fatal(c.fail)
	}
	t.Logf("%d steps, %d crash points, %d recoveries checked, all hold", len(steps), c.points.Load()/c.stride, c.checks.Load())
}

// runStep executes one step, which must succeed.
func runStep(t *testing.T, n *node, v *Volume, id ID, o *oracle, s step) (*node, *Volume) {
	t.Helper()
	ctx := context.Background()
	var err error
	switch s.special {
	case "commit":
		err = v.Commit(ctx)
	case "restart":
		n.close()
		n = n.w.mustStart(t)
		v = n.open(id)
	case "kill":
		n.kill()
		n = n.w.mustStart(t)
		v = n.open(id)
	case "snapshot":
		if _, err = v.Snapshot(ctx, SnapshotSpec{Name: s.name}); err == nil {
			o.done(s)
		}
	case "drop":
		if err = v.DeleteSnapshot(ctx, s.name, false); err == nil {
			o.done(s)
		}
	case "scrub":
		_, err = v.Scrub(ctx, ScrubOptions{})
	case "grow":
		if err = v.Grow(ctx, s.n); err == nil {
			o.grow(s.n)
		}
	default:
		err = o.run(v, s)
	}
	if err != nil {
		t.Fatalf("step %s: %v", s, err)
	}
	return n, v
}
