package series

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/gateway/observe"
	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// begin is at the beginning of a coarse file.
var begin = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC).Unix()

func in(fsys blockfs.FS) func() (blockfs.FS, error) {
	return func() (blockfs.FS, error) { return fsys, nil }
}

// fed is a Store whose seconds and whose work the test makes.
type fed struct {
	*Store
	t   *testing.T
	now int64
}

func newFed(t *testing.T, fsys blockfs.FS, now int64) *fed {
	t.Helper()
	return &fed{newStore(Options{Dir: in(fsys), Sampler: observe.NewSampler(0)}), t, now}
}

// busy is a sample of an object that reads and writes.
func busy(id string, iops, p99 float64) Sample {
	return Sample{Named: observe.Named{ID: id, Sample: observe.Sample{JournalUsed: 7, Performance: observe.Performance{
		ReadIOPS: iops, WriteIOPS: 2 * iops, ReadBytesPerSecond: 4096 * iops, WriteBytesPerSecond: 8192 * iops, ReadP50us: 100, ReadP99us: p99, WriteP50us: 200, WriteP99us: 2 * p99,
	}}}}
}

// pass lets seconds pass in steps, the node and some objects doing something at the end of each.
func (f *fed) pass(seconds, step int64, samples ...Sample) {
	for range seconds / step {
		f.now += step
		f.Add(time.Unix(f.now, 0), append([]Sample{{Named: observe.Named{ID: observe.Node}, CPU: 50, Memory: 20}}, samples...))
		if f.now%fine.length == 0 {
			f.told(f.work())
		}
	}
}

func (f *fed) query(id string, from, to, step int64) []Point {
	f.t.Helper()
	out, err := f.Query(f.t.Context(), id, from, to, step, false)
	if err != nil {
		f.t.Fatal(err)
	}
	for i := 1; i < len(out); i++ {
		if out[i].Time <= out[i-1].Time || (out[i].Time-from)%step != 0 {
			f.t.Fatalf("the point after %d is of %d", out[i-1].Time, out[i].Time)
		}
	}
	return out
}

// sum returns the reads of all points.
func sum(points []Point, step int64) (reads float64) {
	for _, p := range points {
		reads += p.ReadIOPS * float64(step)
	}
	return reads
}

func secondsOf(n int64) time.Time { return time.Unix(n, 0) }

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-2*math.Abs(b)+1e-9 }

// TestDownsampling: rates are means, also of the time in which nothing was done, p99 is the
// largest, p50 weighs by commands, and gauges of vPool and node are there.
func TestDownsampling(t *testing.T) {
	f := newFed(t, blockfs.NewMem(), begin)
	pool := Sample{Named: observe.Named{ID: "pool", VPool: true}, Stored: 1 << 30}
	f.pass(9, 1, busy("a", 100, 1000), pool) // seconds 1 to 9
	f.pass(1, 1, busy("a", 400, 9000))       // 10, which begins the next step
	f.pass(300-10, 1)
	p := f.query("a", begin, begin+300, 10)
	if len(p) != 30 || p[0].ReadIOPS != 100 || p[0].ReadP99us != 1000 || p[0].JournalUsed != 7 || p[1].ReadIOPS != 40 || p[1].WriteP99us != 18000 || p[2].ReadIOPS != 0 {
		t.Fatalf("%d steps of 10 s: %+v", len(p), p[:min(3, len(p))])
	}
	// The first step had nine seconds.
	if p := f.query("a", begin, begin+300, 300); len(p) != 1 || !near(p[0].ReadIOPS, 1400./300) || p[0].ReadP99us != 9000 || p[0].ReadP50us != 100 || p[0].WriteP50us != 200 {
		t.Errorf("a step of 5 min: %+v", p)
	}
	if p := f.query("pool", begin, begin+300, 60); len(p) != 5 || p[0].Stored != 1<<30 || p[4].Stored != 1<<30 {
		t.Errorf("vPool: %+v", p)
	}
	if p := f.query(observe.Node, begin, begin+300, 100); len(p) != 3 || !near(p[2].CPU, 50) || !near(p[2].Memory, 20) {
		t.Errorf("node: %+v", p)
	}
	if p := f.query("never there", begin, begin+300, 300); len(p) != 1 || p[0].Active() {
		t.Errorf("one that did nothing: %+v", p)
	}
}

// TestStepFor: steps are round, and no more points than asked for.
func TestStepFor(t *testing.T) {
	for _, c := range []struct {
		length int64
		points int
		step   int64
	}{{600, 600, 1}, {601, 1000, 1}, {3600, 300, 20}, {24 * 3600, 300, 300}, {7 * 24 * 3600, 300, 3600}, {90 * 24 * 3600, 1000, 3 * 3600}, {90 * 24 * 3600, 2, 45 * 24 * 3600}} {
		to := begin + 7
		step, first := StepFor(to-c.length, to, c.points)
		if n := (to - first + step - 1) / step; n > int64(c.points) || first > to-c.length || first%step != 0 || step < c.step || step > 2*c.step {
			t.Errorf("%+v: %d points of %d s", c, n, step)
		}
	}
}

// TestSeconds: with the Sampler there are steps of a second, and before those steps of 10 s.
func TestSeconds(t *testing.T) {
	f := newFed(t, blockfs.NewMem(), begin)
	s := f.opt.Sampler
	reads := uint64(0)
	second := func(n uint64) {
		f.now++
		reads += n
		in := observe.Input{ID: "a", VPool: "p"}
		in.Stats.ReadOps, in.Stats.ReadBytes = reads, reads*512
		var out []Sample
		for _, v := range s.Observe(time.Unix(f.now, 0), []observe.Input{in}, nil, false) {
			out = append(out, Sample{Named: v})
		}
		f.Add(time.Unix(f.now, 0), out)
	}
	second(0)
	for i := range uint64(900) {
		second(i%2*10 + 1) // 1, 11, 1, 11, ...
	}
	p := f.query("a", f.now-20, f.now, 1)
	if len(p) != 20 || p[18].ReadIOPS+p[19].ReadIOPS != 12 || p[18].ReadIOPS == p[19].ReadIOPS {
		t.Errorf("seconds: %+v", p)
	}
	for _, id := range []string{"a", "p", observe.Node} {
		p = f.query(id, begin+100, f.now, 1)
		if len(p) < 795 || !near(sum(p, 1), float64(len(p)*6)) {
			t.Errorf("%s: %d seconds with %v reads", id, len(p), sum(p, 1))
		}
	}
}

// TestRetention: what is old becomes coarser, then goes, and with it what is known of objects
// that are not there any more.
func TestRetention(t *testing.T) {
	if testing.Short() {
		t.Skip("step by step: nothing for the race detector")
	}
	f := newFed(t, blockfs.NewMem(), begin)
	const day = 24 * 3600
	f.pass(2*day, 10, busy("gone", 50, 10), busy("a", 100, 1000))
	for range 100 {
		f.pass(day-600, 10)
		f.pass(600, 10, busy("a", 600, 1000))
	}
	end := f.now
	if n := len(f.begins(fine)); n > 24*12+6*12+3 {
		t.Errorf("%d fine files", n)
	}
	if n := len(f.begins(coarse)); n > 90*4+2 || n < 89*4 {
		t.Errorf("%d coarse files", n)
	}
	if first := f.begins(coarse)[0]; first < end-91*day {
		t.Errorf("one is %d days old", (end-first)/day)
	}
	step, from := StepFor(end-90*day, end, 300)
	p := f.query("a", from, end, step)
	if len(p) < 89*day/int(step) || !near(sum(p, step), 90*600*600) {
		t.Errorf("90 days: %d points with %v reads", len(p), sum(p, step))
	}
	step, from = StepFor(end-day, end, 300)
	if p := f.query("a", from, end, step); !near(sum(p, step), 600*600) {
		t.Errorf("a day: %d points with %v reads", len(p), sum(p, step))
	}
	for _, b := range f.begins(coarse) {
		c, err := f.read(coarse, b)
		if err != nil || c["gone"] != nil || c[observe.Node] == nil {
			t.Fatalf("file of %d: %v %v", b, slices.Sorted(keys(c)), err)
		}
	}
}

func keys(c content) func(func(string) bool) {
	return func(yield func(string) bool) {
		for id := range c {
			if !yield(id) {
				return
			}
		}
	}
}

// TestRestart: a new Store has what was written, in the middle of a file too, and times in which
// none ran have no points; after a crash five minutes are missing at most.
func TestRestart(t *testing.T) {
	mem := blockfs.NewMem()
	s := Open(Options{Dir: in(mem), Sampler: observe.NewSampler(0)})
	f := &fed{s, t, begin}
	add := func(seconds int64) {
		for range seconds {
			f.now++
			f.Add(time.Unix(f.now, 0), []Sample{{Named: observe.Named{ID: observe.Node}}, busy("a", 100, 5)})
			if f.now%fine.length == 0 {
				f.told(f.work())
			}
		}
	}
	add(100)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	f.Add(time.Unix(f.now, 0), nil) // does nothing
	f.Store = newStore(Options{Dir: in(mem), Sampler: observe.NewSampler(0)})
	f.now += 60
	add(1040)
	f.told(f.work())
	check := func(what string, until int64) {
		t.Helper()
		p := f.query("a", begin, until, 20)
		if len(p) < int(until-begin)/20-3 || p[0].ReadIOPS != 100 || p[4].ReadIOPS != 100 {
			t.Fatalf("%s: %d points: %+v", what, len(p), p[:min(8, len(p))])
		}
		for _, v := range p {
			if v.Time == begin+120 || v.Time == begin+140 {
				t.Errorf("%s: a point of when none ran: %+v", what, v)
			}
			if v.ReadIOPS < 90 {
				t.Errorf("%s: %+v", what, v)
			}
		}
	}
	check("after a restart", begin+1200)
	f.Store = newStore(Options{Dir: in(mem.Crash(blockfs.CrashConfig{})), Sampler: observe.NewSampler(0)})
	f.told(f.work())
	check("after a crash", begin+900)
}

// TestDamage: wherever a file is damaged, it is put aside, with nothing but its time lost, and
// a bounded number of them is kept.
func TestDamage(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	mem := blockfs.NewMem()
	f := newFed(t, mem, begin)
	f.pass(15*3600, 10, busy("a", 100, 5), busy("b", 1, 5))
	for _, tier := range []tier{fine, coarse} {
		for _, b := range f.begins(tier) {
			name := tier.name(b)
			whole, err := blockfs.ReadFile(mem, name, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			bad := slices.Clone(whole)
			if r.IntN(4) == 0 {
				bad = bad[:r.IntN(len(bad))]
			} else {
				bad[r.IntN(len(bad))] ^= byte(1 + r.IntN(255))
			}
			if err := blockfs.WriteFile(mem, name, bad); err != nil {
				t.Fatal(err)
			}
			if c, err := f.read(tier, b); c != nil || err != nil {
				t.Fatalf("%s is damaged: %v %v", name, c, err)
			}
			if f.has(tier, b) {
				t.Fatalf("%s is still used", name)
			}
		}
	}
	infos, err := mem.List(".")
	if err != nil || len(infos) != maxAside {
		t.Fatalf("%d files are left, %v", len(infos), err)
	}
	for _, i := range infos {
		if !strings.HasSuffix(i.Name, asideSuffix) {
			t.Errorf("%s is left", i.Name)
		}
	}
	// It goes on, in this one and in the next.
	f.pass(900, 10, busy("a", 100, 5))
	f.Store = newStore(Options{Dir: in(mem), Sampler: observe.NewSampler(0)})
	f.told(f.work())
	if p := f.query("a", f.now-900, f.now, 300); len(p) != 3 || f.Err() != nil || len(f.aside) != maxAside {
		t.Errorf("afterwards: %+v, %v, %v", p, f.Err(), f.aside)
	}
	// A query meets one.
	if err := blockfs.WriteFile(mem, fine.name(f.now-900), []byte("short")); err != nil {
		t.Fatal(err)
	}
	if p := f.query("a", f.now-900, f.now, 300); len(p) != 2 || f.Err() != nil {
		t.Errorf("with one damaged: %+v, %v", p, f.Err())
	}
}

// TestFullDisk: a disk that takes nothing is told, costs what does not fit in memory, and is
// written again when it takes data.
func TestFullDisk(t *testing.T) {
	for _, bad := range []error{syscall.ENOSPC, syscall.EIO} {
		var broken bool
		mem := blockfs.NewMem()
		fsys := blockfs.Inject(mem, func(op blockfs.OpInfo) error {
			if broken && op.Kind != blockfs.OpRead && op.Kind != blockfs.OpList {
				return bad
			}
			return nil
		})
		f := newFed(t, fsys, begin)
		f.pass(3600, 10, busy("a", 100, 5))
		if f.Err() != nil {
			t.Fatal(f.Err())
		}
		broken = true
		f.pass(900, 10, busy("a", 100, 5)) // three blocks wait
		if err := f.Err(); !errors.Is(err, bad) || strings.Contains(err.Error(), "lost") {
			t.Errorf("%v, nothing lost yet", err)
		}
		f.pass(1500, 10, busy("a", 100, 5))
		if err := f.Err(); !errors.Is(err, bad) || !strings.Contains(err.Error(), "5 times five minutes") {
			t.Errorf("%v, five blocks lost", err)
		}
		if len(f.waiting) != maxWaiting {
			t.Errorf("%d blocks wait", len(f.waiting))
		}
		if p := f.query("a", f.now-600, f.now, 300); len(p) != 2 || !near(p[0].ReadIOPS, 100) {
			t.Errorf("what waits: %+v", p)
		}
		broken = false
		f.pass(300, 10, busy("a", 100, 5))
		if f.Err() != nil || len(f.waiting) != 0 {
			t.Errorf("%v, %d blocks wait after the disk is well", f.Err(), len(f.waiting))
		}
		// The first hour is there, and what waited.
		if p := f.query("a", begin, f.now, 300); len(p) != 12+3+1 && len(p) != 12+3 {
			t.Errorf("%d points", len(p))
		}
	}
}

// TestHungDisk: neither samples nor the end wait for a disk that does not answer.
func TestHungDisk(t *testing.T) {
	clk := clock.NewManual(time.Unix(begin, 0))
	answer := make(chan struct{})
	fsys := blockfs.Inject(blockfs.NewMem(), func(blockfs.OpInfo) error { <-answer; return nil })
	s := Open(Options{Dir: in(fsys), Sampler: observe.NewSampler(0), Clock: clk})
	for i := range int64(2000) {
		s.Add(time.Unix(begin+i, 0), []Sample{{Named: observe.Named{ID: observe.Node}}, busy("a", 1, 1)})
	}
	if err := s.Err(); !errors.Is(err, errSlow) || !strings.Contains(err.Error(), "lost") {
		t.Errorf("%v while the disk hangs", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Close() }()
	for limit := time.Now().Add(5 * time.Minute); ; {
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
			close(answer)
			<-s.done
			return
		case <-time.After(time.Millisecond):
			clk.Advance(closeWait)
		}
		if time.Now().After(limit) {
			t.Fatal("the end waits for the disk")
		}
	}
}

// TestBounds: series in a block are bounded, but never the node and vPools; files take no more
// than they may, the oldest going first.
func TestBounds(t *testing.T) {
	mem := blockfs.NewMem()
	f := newFed(t, mem, begin)
	f.most, f.opt.Bytes = 10, 60_000
	var many []Sample
	for i := range 100 {
		many = append(many, busy(fmt.Sprint("v", i), 123, 456))
	}
	many = append(many, Sample{Named: observe.Named{ID: "pool", VPool: true}}, busy(strings.Repeat("x", idSize+1), 1, 1), busy("", 1, 1))
	f.pass(300, 10, many...)
	f.pass(3600, 10, many...)
	if n := len(f.open.series); n > 11 || f.open.series["pool"] == nil {
		t.Errorf("%d series, vPool %v", n, f.open.series["pool"])
	}
	f.pass(10*3600, 10, many...)
	var total int64
	infos, err := mem.List(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range infos {
		total += i.Size
	}
	if total > f.opt.Bytes || total < f.opt.Bytes/2 {
		t.Errorf("%d bytes on the disk of %d", total, f.opt.Bytes)
	}
	if p := f.query("v0", f.now-600, f.now, 10); len(p) < 59 || p[30].ReadIOPS != 123 {
		t.Errorf("the newest: %d points, %+v", len(p), p[len(p)/2])
	}
	if _, err := f.Query(t.Context(), "v0", f.now-5000, f.now, 1, false); err == nil {
		t.Error("5000 points")
	}
	f.opt.Bytes = 1000
	if f.pass(300, 10, many...); f.Err() == nil || !strings.Contains(f.Err().Error(), "raise that") {
		t.Errorf("less than a file: %v", f.Err())
	}
}

// TestClock: a clock that jumps ahead for an hour and back costs nothing that was there.
func TestClock(t *testing.T) {
	f := newFed(t, blockfs.NewMem(), begin)
	f.pass(8*3600, 10, busy("a", 100, 5))
	was := f.query("a", begin, begin+8*3600, 300)
	const year = 365 * 24 * 3600
	f.now += year
	f.pass(1800, 10, busy("a", 100, 5))
	f.now -= year
	f.pass(600, 10, busy("a", 100, 5))
	p := f.query("a", begin, begin+8*3600, 300)
	if len(p) != len(was) || !near(sum(p, 300), sum(was, 300)) || f.Err() != nil {
		t.Errorf("%d points with %v, before it jumped %d with %v; %v", len(p), sum(p, 300), len(was), sum(was, 300), f.Err())
	}
	// Back by some minutes: the newer figures of a time go before the older ones.
	f.now -= 700
	f.pass(1200, 10, busy("a", 200, 5))
	if p := f.query("a", f.now-900, f.now-300, 10); len(p) != 60 || !near(p[30].ReadIOPS, 200) {
		t.Errorf("set back: %d points, %+v", len(p), p[len(p)/2])
	}
	// What lies in the future goes once the clock goes on evenly.
	f.pass(2*3600, 10)
	for _, tier := range []tier{fine, coarse} {
		for _, b := range f.begins(tier) {
			if b > f.now {
				t.Errorf("%s is in the future", tier.name(b))
			}
		}
	}
}

// TestTogether: samples, queries and the work on files at the same time.
func TestTogether(t *testing.T) {
	s := Open(Options{Dir: in(blockfs.NewMem()), Sampler: observe.NewSampler(0)})
	var now atomic.Int64
	now.Store(begin)
	var wg sync.WaitGroup
	ended := make(chan struct{})
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-ended:
					return
				default:
				}
				to := now.Load()
				for _, length := range []int64{20, 600, 8 * 3600} {
					step, from := StepFor(to-length, to, 50)
					if _, err := s.Query(t.Context(), "a", from, to, step, true); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	for range 8 * 360 {
		at := now.Add(10)
		s.Add(time.Unix(at, 0), []Sample{{Named: observe.Named{ID: observe.Node}}, busy("a", 100, 5)})
	}
	close(ended)
	wg.Wait()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Err(); err != nil {
		t.Error(err)
	}
	if len(s.begins(fine)) == 0 {
		t.Error("nothing is written")
	}
}

// TestLoad: foreign files are left alone, and a directory that cannot be listed is tried again.
func TestLoad(t *testing.T) {
	mem := blockfs.NewMem()
	for _, name := range []string{"m-1", "m-0000000000000001", "c-zz", "notes.txt"} {
		if err := blockfs.WriteFile(mem, name, []byte("mine")); err != nil {
			t.Fatal(err)
		}
	}
	fail := true
	f := newFed(t, blockfs.Inject(mem, func(op blockfs.OpInfo) error {
		if fail && op.Kind == blockfs.OpList {
			return syscall.EIO
		}
		return nil
	}), begin)
	f.pass(300, 10, busy("a", 1, 1))
	if !errors.Is(f.Err(), syscall.EIO) || len(f.query("a", begin, f.now, 10)) == 0 {
		t.Errorf("not listed: %v", f.Err())
	}
	fail = false
	f.pass(8*3600, 10, busy("a", 1, 1))
	if f.Err() != nil || len(f.begins(fine)) == 0 {
		t.Errorf("%v", f.Err())
	}
	for _, name := range []string{"m-1", "m-0000000000000001", "c-zz", "notes.txt"} {
		if _, err := mem.Stat(name); errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is gone", name)
		}
	}
}

// TestFile keeps the format of files.
func TestFile(t *testing.T) {
	c := content{"node": {{at: 0, figures: figures{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}}, {at: 29, figures: figures{0.01}}}, "a": {{at: 3, figures: figures{readP99: 1e99, memory: math.NaN()}}}}
	b := c.encode(begin, fine.step)
	const want = "4f5647534552310a" + "02000000" + "0a000000" + "0081e66a00000000" + "06707f7b" +
		"61000000000000000000000000000000000000000000000000000000000000000000000000000000" + "84000000" + "14000000" + "9447183d" +
		"6e6f6465000000000000000000000000000000000000000000000000000000000000000000000000" + "98000000" + "1b000000" + "9bc6b710" +
		"03" + "0000000000" + "8080808080808010" + "000000000000" +
		"00" + "64c801030405060708090a6e78" + "1d" + "010000000000000000000000"
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("it has another format, which takes another magic: %s", got)
	}
	mem := blockfs.NewMem()
	if err := blockfs.WriteFile(mem, "x", b); err != nil {
		t.Fatal(err)
	}
	r, err := openFile(mem, "x", begin, fine.step, fine.places())
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	got, err := r.all()
	if err != nil || !slices.Equal(got["node"], c["node"]) || got["a"][0].figures != (figures{readP99: largest}) || len(got) != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	if p, err := r.points("b", true); p != nil || err != nil {
		t.Errorf("%v, %v", p, err)
	}
	if _, err := openFile(mem, "x", begin+300, fine.step, fine.places()); !errors.Is(err, errDamaged) {
		t.Errorf("under another name: %v", err)
	}
}

// FuzzPoints: whatever the bytes are, points are in order and within their file.
func FuzzPoints(f *testing.F) {
	f.Add(appendPoints(nil, []point{{at: 0, figures: figures{1, 2, 3}}, {at: 29, figures: figures{4}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		points, err := decodePoints(b, 30)
		if err != nil {
			return
		}
		for i, p := range points {
			if p.at < 0 || p.at >= 30 || i > 0 && p.at <= points[i-1].at || p.clean() != p.figures {
				t.Fatalf("%+v", points)
			}
		}
	})
}
