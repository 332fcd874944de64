package volume

import (
	"context"
	"fmt"
	mrand "math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/testseed"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/cache"
)

// modelOps is how many random operations TestModel runs; OVGATE_MODEL_OPS
// overrides it (0: until the test binary's time is up).
const modelOps = 10000

// model is one life of a vDisk under random operations and options, against the
// oracle.
type model struct {
	t     testing.TB
	r     *mrand.Rand
	w     *world
	n     *node
	v     *Volume
	id    ID
	o     *oracle
	size  int64
	cs    int64
	ver   uint32
	trace []string
	// moments are the times of the moments that the oracle knows.
	moments map[string]time.Time
	ops     int
	clones  uint32
	// line is that of the node to a store that a crash leaves alone; nil: the backend is
	// in memory, and crashes with the node.
	line *line
}

// newModel draws a disk and options. store nil: one in memory.
func newModel(t testing.TB, seed uint64, store backend.Store) *model {
	m := &model{t: t, r: mrand.New(mrand.NewPCG(seed, 99)), id: testID(5), moments: map[string]time.Time{}}
	m.cs = MinClusterSize << m.r.IntN(5)
	w := newBusyWorld(seed)
	w.settings.ClusterSize = int(m.cs)
	w.settings.SCOSize = MinSCOSize << m.r.IntN(3)
	w.settings.CommitInterval = time.Duration(100+m.r.IntN(60000)) * time.Millisecond
	w.opts.ChunkBytes = 512 << 10 << m.r.IntN(4)
	w.opts.JournalBytes = w.opts.ChunkBytes * int64(4+m.r.IntN(30))
	w.opts.WriteMemoryBytes = 1 << m.r.IntN(24)
	w.opts.CacheBytes = 1 << m.r.IntN(24)
	if m.r.IntN(2) == 0 {
		w.opts.ReadCaches = []ReadCache{{Name: "memory", FS: blockfs.NewMem(), Bytes: cache.SlotBytes * (1 + m.r.Int64N(200))}}
	}
	// A writer may have to wait for the other vDisk's commit interval, on a busy machine.
	w.settings.StallTimeout = hangLimit / 2
	if m.r.IntN(2) == 0 {
		w.settings.History = 24 * time.Hour // else a scrub takes the moments
	}
	if m.r.IntN(2) == 0 {
		w.opts.Clock = fastClock{time.Now(), 50}
		w.settings.StallTimeout = min(50*w.settings.StallTimeout, time.Hour)
	}
	if store != nil {
		w.openStore = func() backend.Store {
			m.line = &line{}
			return storeCalls{store, m.line.before}
		}
	}
	m.w, m.size = w, m.cs*(16+m.r.Int64N(512))
	m.o = newOracle(m.size)
	m.n = w.mustStart(t)
	m.n.create(m.id, m.size)
	m.v = m.n.open(m.id)
	m.trace = append(m.trace, fmt.Sprintf("cluster %d size %d options %+v settings %+v", m.cs, m.size, w.opts, w.settings))
	return m
}

func (m *model) note(format string, args ...any) {
	m.trace = append(m.trace, fmt.Sprintf("%d: ", m.ops)+fmt.Sprintf(format, args...))
	if len(m.trace) > 60 {
		m.trace = append(m.trace[:1], m.trace[len(m.trace)-40:]...)
	}
}

func (m *model) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatalf("%v\nlast steps:\n%s", err, strings.Join(m.trace, "\n"))
	}
}

// step runs one random operation, or several side by side.
func (m *model) step() {
	ctx := context.Background()
	switch x := m.r.IntN(1000); {
	case x < 8:
		m.note("crash")
		m.crash()
	case x < 14:
		m.note("kill")
		m.n.kill()
		m.reopen()
	case x < 18:
		m.note("restart")
		m.n.close()
		m.reopen()
	case x < 30:
		m.note("commit")
		m.must(m.v.Commit(ctx))
	case x < 34:
		m.size += m.cs * m.r.Int64N(64)
		m.note("grow to %d", m.size)
		m.must(m.v.Grow(ctx, m.size))
		m.o.grow(m.size)
	case x < 46:
		m.pastStep()
	case x < 50:
		m.scrub(m.v)
	case x < 100:
		m.together()
	default:
		s := m.draw()
		m.note("%s", s)
		m.must(m.o.run(m.v, s))
	}
	m.ops++
}

func (m *model) draw() step {
	m.ver++
	return randomStep(m.r, m.size, m.cs, int64(m.v.MaxIO()), m.ver)
}

// disjoint draws up to 8 changes that do not overlap, one of the reservation state
// at most.
func (m *model) disjoint() []step {
	var steps []step
	for range 2 + m.r.IntN(7) {
		s := m.draw()
		clash := !s.changes() && s.kind != ReqReserve || s.kind == ReqCompareAndWrite
		for _, p := range steps {
			clash = clash || s.kind == ReqReserve && p.kind == ReqReserve || s.off < p.off+p.n && p.off < s.off+s.n
		}
		if !clash {
			steps = append(steps, s)
		}
	}
	return steps
}

// together runs changes of disjoint ranges at the same time; neighbours in one
// cluster are likely.
func (m *model) together() {
	steps := m.disjoint()
	errs := make([]error, len(steps))
	var wg sync.WaitGroup
	for i, s := range steps {
		m.note("together %s", s)
		data := m.o.data(s)
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs[i] = m.v.do(context.Background(), s.kind, data, s.off, s.n)
		}()
	}
	wg.Wait()
	for i, s := range steps {
		m.must(errs[i])
		m.o.done(s)
	}
}

// crash cuts the power in the middle of some operation of files or backend, while
// changes are in flight. They happened as a whole, or not at all.
func (m *model) crash() {
	var after world
	var done atomic.Bool
	left := atomic.Int64{}
	left.Store(1 + m.r.Int64N(12))
	kind, seed := tearings[m.r.IntN(len(tearings))], m.r.Uint64()
	var once sync.Once
	killed := make(chan struct{})
	hook := func() {
		if left.Add(-1) > 0 {
			return
		}
		once.Do(func() {
			after = *m.w
			cfg := blockfs.CrashConfig{Unsynced: kind, Rand: mrand.New(mrand.NewPCG(seed, 1))}
			if m.line != nil {
				m.line.cut.Store(true)
				after.fs = m.w.fs.Crash(cfg)
				m.w.fs.Kill()
				after.reg = m.w.reg.clone()
			} else {
				after.reg = m.w.reg.clone()
				after.fs, after.be = m.w.fs.Crash(cfg), m.w.be.Crash(cfg)
				m.w.fs.Kill()
				m.w.be.Kill()
			}
			done.Store(true)
			go func() { // what is in flight ends with the engine, as it does with its process
				defer close(killed)
				m.n.kill()
			}()
		})
	}
	m.w.fs.SetHook(func(int64, blockfs.OpInfo) { hook() })
	m.w.be.SetHook(func(int64, blockfs.OpInfo) { hook() })
	if m.line != nil {
		m.line.hook.Store(&hook)
	}
	var cut []step
	for i := 0; !done.Load(); i++ {
		if i%3 == 2 {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			_ = m.v.Commit(ctx)
			cancel()
			continue
		}
		cut = append(cut, m.burst()...)
	}
	<-killed
	*m.w = after
	for _, s := range cut {
		m.note("cut off: %s", s)
		m.o.unknown(s)
	}
	m.reopen()
	m.must(m.checkSnapshots())
	m.must(m.o.checkAll(m.v, false))
	m.atomic(cut)
	m.must(m.o.checkAll(m.v, true))
}

// burst runs a few changes at once and returns those that failed.
func (m *model) burst() (failed []step) {
	steps := m.disjoint()
	errs := make([]error, len(steps))
	var wg sync.WaitGroup
	for i, s := range steps {
		data := m.o.data(s)
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs[i] = m.v.do(context.Background(), s.kind, data, s.off, s.n)
		}()
	}
	wg.Wait()
	for i, s := range steps {
		if errs[i] == nil {
			m.o.done(s)
		} else {
			failed = append(failed, s)
		}
	}
	return failed
}

// atomic checks that writes that were cut off are there whole or not at all.
func (m *model) atomic(cut []step) {
	for _, s := range cut {
		if s.kind != ReqWrite {
			continue
		}
		buf := make([]byte, s.n)
		m.must(m.v.ReadAt(context.Background(), buf, s.off))
		found := int64(0)
		for i := int64(0); i < s.n/lbaBytes; i++ {
			ver, err := sectorVersion(buf[i*lbaBytes:(i+1)*lbaBytes], uint64(s.off/lbaBytes+i))
			m.must(err)
			if ver == s.ver {
				found++
			}
		}
		if found != 0 && found != s.n/lbaBytes {
			m.must(fmt.Errorf("write %s is there in part: %d of %d sectors", s, found, s.n/lbaBytes))
		}
	}
}

func (m *model) reopen() {
	m.n = m.w.mustStart(m.t)
	v, err := m.n.pool.Open(context.Background(), m.id)
	m.must(err)
	m.v = v
}

// finish runs operations up to a number, and ends.
func (m *model) finish(ops int) {
	for m.ops < ops {
		m.step()
	}
	m.must(m.o.checkAll(m.v, false))
	m.n.close()
}

// TestModel runs random operations with random options against the oracle.
func TestModel(t *testing.T) {
	ops, seed, lives := modelOps, testseed.Of(t), 20
	if testing.Short() {
		ops = 1500
	}
	if s := os.Getenv("OVGATE_MODEL_OPS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		ops = n
	}
	end, ok := t.Deadline()
	total := 0
	for life := uint64(0); ops == 0 || total < ops; life++ {
		if ops == 0 && ok && time.Until(end) < time.Minute {
			break
		}
		want := max(200, ops/lives)
		if ops > 0 {
			want = min(want, ops-total)
		}
		t.Logf("seed %d", seed+life)
		m := newModel(t, seed+life, nil)
		m.finish(want)
		total += want
	}
	t.Logf("%d operations", total)
}
