package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/volumedriver/blockmap"
)

// backendBytes sums up the objects of a vDisk below a directory, "" for all.
func (n *node) backendBytes(id ID, dir string) (objects int, size int64) {
	n.t.Helper()
	for after := ""; ; {
		page, err := n.store.List(context.Background(), vdiskPrefix(id)+dir, after, 1000)
		if err != nil {
			n.t.Fatal(err)
		}
		for _, o := range page {
			after, size = o.Name, size+o.Size
		}
		if objects += len(page); len(page) < 1000 {
			return objects, size
		}
	}
}

// sameMap compares the map of an open vDisk with the one that its log gives, and
// checks that it names no SCO that is gone. Nothing is in flight.
func sameMap(v *Volume) error {
	ctx := context.Background()
	st := v.committedState.Load()
	m := blockmap.New(uint64(st.head.Size)/uint64(v.cluster), v.host.mapMemory)
	if v.parent != nil {
		m = v.parent.m.Clone(m.Clusters())
	}
	defer m.Release()
	pages := newPageStore(v.host, v.id, "check", v.id.String()+"-", v.this)
	defer func() {
		pages.end()
		_ = pages.tidy(func(string) bool { return false })
	}()
	l := mapLoader{log: v.p.logReader(v.id, st.head.Epochs), pages: pages, src: &source{id: v.id}, level: v.level(), m: m}
	if err := l.apply(ctx, st.log()); err != nil {
		return err
	}
	if err := l.complete(st.head); err != nil {
		return err
	}
	for c := uint64(0); c < m.Clusters(); c++ {
		a, err := locate(ctx, m, c)
		if err != nil {
			return err
		}
		v.mapMu.RLock()
		b, err := locate(ctx, v.base, c)
		v.mapMu.RUnlock()
		if err != nil {
			return err
		}
		if a != b {
			return errWrong{fmt.Errorf("cluster %d: the log says %v, the map %v", c, a, b)}
		}
	}
	return nil
}

func mustScrub(t testing.TB, v *Volume, o ScrubOptions) ScrubResult {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hangLimit)
	defer cancel()
	res, err := v.Scrub(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := sameMap(v); err != nil {
		t.Fatal(err)
	}
	return res
}

// fillRandom overwrites the whole disk once, in random order, in writes of 1 to 16
// clusters.
func fillRandom(t testing.TB, v *Volume, r *mrand.Rand, want []uint64, ver uint64) {
	t.Helper()
	cs := v.cluster
	order := r.Perm(len(want) / 8)
	for _, i := range order {
		p := make([]byte, 8*cs)
		for k := range 8 {
			want[8*i+k] = ver
			fillBlock(p[k*cs:(k+1)*cs], uint64(8*i+k), ver)
		}
		if err := v.WriteAt(context.Background(), p, int64(8*i*cs)); err != nil {
			t.Fatal(err)
		}
	}
}

func checkVersions(v *Volume, want []uint64) error {
	buf, exp := make([]byte, v.cluster), make([]byte, v.cluster)
	for c, ver := range want {
		if err := v.ReadAt(context.Background(), buf, int64(c*v.cluster)); err != nil {
			return err
		}
		clear(exp)
		if ver != 0 {
			fillBlock(exp, uint64(c), ver)
		}
		if !bytes.Equal(buf, exp) {
			return errWrong{fmt.Errorf("cluster %d is not version %d", c, ver)}
		}
	}
	return nil
}

// TestScrubSpace overwrites a disk ten times over, with snapshots on the way, deletes
// those, and scrubs: little more than what is live is left, and the image is the same
// in this opening, in the next, and without any local state.
func TestScrubSpace(t *testing.T) {
	ctx := context.Background()
	w := newWorld(1)
	n := w.mustStart(t)
	id := testID(1)
	clusters := 4096 // 16 MiB
	n.create(id, int64(clusters*MinClusterSize))
	v := n.open(id)
	r := mrand.New(mrand.NewPCG(1, 2))
	want := make([]uint64, clusters)
	for round := range 10 {
		fillRandom(t, v, r, want, uint64(round+1))
		if round%3 == 0 {
			if _, err := v.Snapshot(ctx, SnapshotSpec{Name: fmt.Sprint(round)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	// A quarter is discarded: it must be given back, and read as zeros.
	if err := v.Unmap(ctx, 0, int64(clusters/4*MinClusterSize)); err != nil {
		t.Fatal(err)
	}
	clear(want[:clusters/4])
	kept := mustScrub(t, v, ScrubOptions{})
	_, before := n.backendBytes(id, "")
	for round := 0; round < 10; round += 3 {
		if err := v.DeleteSnapshot(ctx, fmt.Sprint(round), false); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	dry := mustScrub(t, v, ScrubOptions{DryRun: true})
	if _, size := n.backendBytes(id, scoDir); size != v.Stats().StoredBytes || dry.Units != 0 || dry.Condemned == 0 || len(dry.Doomed) != dry.Condemned {
		t.Fatalf("a dry run changed something, or found nothing: %+v", dry)
	}
	res := mustScrub(t, v, ScrubOptions{})
	live := int64(clusters * 3 / 4 * MinClusterSize)
	objects, after := n.backendBytes(id, "")
	t.Logf("with snapshots %+v", kept)
	t.Logf("without %+v", res)
	t.Logf("%d bytes before, %d after in %d objects, live %d: %.3f", before, after, objects, live, float64(after)/float64(live))
	if float64(after) > 1.15*float64(live) {
		t.Errorf("%d bytes are left of %d that are live", after, live)
	}
	if res.Deleted != res.Condemned || res.Deleted < dry.Condemned || res.Live != live || res.StoredAfter != v.Stats().StoredBytes {
		t.Errorf("%+v", res)
	}
	if _, size := n.backendBytes(id, scoDir); size != v.Stats().StoredBytes {
		t.Errorf("stored %d, the backend has %d", v.Stats().StoredBytes, size)
	}
	if again := mustScrub(t, v, ScrubOptions{}); again.Written != 0 || again.Condemned != 0 {
		t.Errorf("a second scrub had something to do: %+v", again)
	}
	for _, lost := range []bool{false, false, true} {
		if err := checkVersions(v, want); err != nil {
			t.Fatal(err)
		}
		n.close()
		if lost {
			w.fs = blockfs.NewMem()
		}
		n = w.mustStart(t)
		v = n.open(id)
		if err := sameMap(v); err != nil {
			t.Fatal(err)
		}
	}
	if err := checkVersions(v, want); err != nil {
		t.Fatal(err)
	}
	n.sweepClean()
	n.close()
}

// sweepClean asserts that nothing is on the backend that no head reaches.
func (n *node) sweepClean() {
	n.t.Helper()
	res, err := n.pool.Sweep(context.Background(), true)
	if err != nil || res.Garbage != 0 || len(res.Quarantined) != 0 {
		n.t.Errorf("%v %+v", err, res)
	}
}

// TestScrubClones scrubs a parent while clones of it are open, closed and being made,
// and it is written to: every clone stays what it was.
func TestScrubClones(t *testing.T) {
	ctx := context.Background()
	w := newWorld(2)
	n := w.mustStart(t)
	parent, clusters := testID(1), 512
	n.create(parent, int64(clusters*MinClusterSize))
	v := n.open(parent)
	r := mrand.New(mrand.NewPCG(3, 4))
	want := make([]uint64, clusters)
	ver := uint64(0)
	overwrite := func() {
		ver++
		fillRandom(t, v, r, want, ver)
		if err := v.Commit(ctx); err != nil {
			t.Fatal(err)
		}
	}
	content := map[ID][]uint64{}
	clone := func(k byte, pt Point, want []uint64) {
		id := testID(k)
		content[id] = slices.Clone(want)
		if err := n.pool.Clone(ctx, CloneSpec{ID: id, Name: "clone", Source: parent, From: pt}); err != nil {
			t.Fatal(err)
		}
	}
	overwrite()
	overwrite()
	if _, err := v.Snapshot(ctx, SnapshotSpec{Name: "s"}); err != nil {
		t.Fatal(err)
	}
	atSnapshot := slices.Clone(want)
	overwrite()
	moment, atMoment := time.Now(), slices.Clone(want)
	overwrite()
	clone(2, Point{Snapshot: "s"}, atSnapshot)
	clone(3, Point{At: moment}, atMoment)
	open := n.open(testID(2))
	overwrite()
	overwrite()
	// Scrubs run until the clones below are made.
	stop, ended := make(chan struct{}), make(chan error, 1)
	scrubs, condemned := 0, 0
	go func() {
		for {
			res, err := v.Scrub(ctx, ScrubOptions{})
			condemned += res.Condemned
			// One that was stale again and again, since clones come faster than it is planned,
			// gives up.
			if scrubs++; err != nil && !errors.Is(err, ErrInUse) {
				ended <- err
				return
			}
			select {
			case <-stop:
				ended <- nil
				return
			default:
			}
		}
	}()
	for k := byte(10); k < 30; k++ {
		overwrite()
		switch k % 3 {
		case 0:
			clone(k, Point{Snapshot: "s"}, atSnapshot)
		case 1:
			clone(k, Point{At: time.Now()}, want)
		default:
			clone(k, Point{}, want)
		}
		if k%4 == 0 { // what only the oldest of the three hold is given back
			for id := range content {
				if id[0] >= 10 && id != testID(k) {
					if err := n.pool.Delete(ctx, id); err != nil {
						t.Fatal(err)
					}
					delete(content, id)
				}
			}
		}
	}
	close(stop)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if condemned == 0 {
		t.Error("no scrub found anything beside the clones")
	}
	t.Logf("%d scrubs beside 20 clones being made, %d objects condemned", scrubs, condemned)
	if err := checkVersions(open, content[testID(2)]); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		n.close()
		n = w.mustStart(t)
		v = n.open(parent)
		res := mustScrub(t, v, ScrubOptions{})
		t.Logf("%d clones: %+v", len(content), res)
		if err := checkVersions(v, want); err != nil {
			t.Fatal(err)
		}
		for id, c := range content {
			cv := n.open(id)
			if err := checkVersions(cv, c); err != nil {
				t.Fatalf("clone %x: %v", id[0], err)
			}
			if err := sameMap(cv); err != nil {
				t.Fatalf("clone %x: %v", id[0], err)
			}
		}
		n.sweepClean()
		overwrite()
	}
	// Without clones and snapshot only what is live is left.
	for id := range content {
		if err := n.pool.Volume(id).Close(ctx); err != nil {
			t.Fatal(err)
		}
		if err := n.pool.Delete(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.DeleteSnapshot(ctx, "s", false); err != nil {
		t.Fatal(err)
	}
	mustScrub(t, v, ScrubOptions{})
	if err := checkVersions(v, want); err != nil {
		t.Fatal(err)
	}
	if _, size := n.backendBytes(parent, ""); float64(size) > 1.15*float64(clusters*MinClusterSize) {
		t.Errorf("%d bytes are left of %d that are live", size, clusters*MinClusterSize)
	}
	n.close()
}

// shiftClock is the machine's clock, some time ahead.
type shiftClock struct {
	clock.Real
	ahead atomic.Int64
}

func (c *shiftClock) Now() time.Time { return c.Real.Now().Add(time.Duration(c.ahead.Load())) }

// TestScrubHistory: moments inside the window stay, also those that a rollback left
// behind; when the window has passed, they go.
func TestScrubHistory(t *testing.T) {
	ctx := context.Background()
	clk := &shiftClock{}
	w := newWorld(3)
	w.opts.Clock = clk
	w.settings.History = time.Hour
	n := w.mustStart(t)
	id, clusters := testID(1), 128
	n.create(id, int64(clusters*MinClusterSize))
	v := n.open(id)
	r := mrand.New(mrand.NewPCG(5, 6))
	want := make([]uint64, clusters)
	type moment struct {
		at   time.Time
		want []uint64
	}
	var moments []moment
	grow := func(k int) {
		for range k {
			fillRandom(t, v, r, want, uint64(len(moments)+1))
			if err := v.Commit(ctx); err != nil {
				t.Fatal(err)
			}
			moments = append(moments, moment{clk.Now(), slices.Clone(want)})
			clk.ahead.Add(int64(time.Minute))
		}
	}
	rollback := func(k int) {
		if err := v.Close(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := n.pool.Rollback(ctx, id, Point{At: moments[k].at}); err != nil {
			t.Fatal(err)
		}
		v, want = n.open(id), slices.Clone(moments[k].want)
		clk.ahead.Add(int64(time.Minute))
	}
	// check clones the moments from the k-th on; the ones before are refused.
	next := byte(2)
	check := func(k int) {
		t.Helper()
		for i, m := range moments {
			next++
			c := testID(next)
			err := n.pool.Clone(ctx, CloneSpec{ID: c, Name: "c", Source: id, From: Point{At: m.at}})
			if i < k {
				if !errors.Is(err, ErrNoPoint) {
					t.Fatalf("moment %d: %v", i, err)
				}
				continue
			}
			if err != nil {
				t.Fatalf("moment %d: %v", i, err)
			}
			cv := n.open(c)
			if err := checkVersions(cv, m.want); err != nil {
				t.Fatalf("moment %d: %v", i, err)
			}
			if err := cv.Close(ctx); err != nil {
				t.Fatal(err)
			}
			if err := n.pool.Delete(ctx, c); err != nil {
				t.Fatal(err)
			}
		}
	}
	grow(6)
	rollback(3)
	grow(4)
	rollback(8)
	grow(2)
	if res := mustScrub(t, v, ScrubOptions{}); res.Condemned != 0 {
		t.Errorf("a scrub took something of the history: %+v", res)
	}
	check(0)
	// The first eight moments leave the window, and the first rollback with them.
	clk.ahead.Add(int64(time.Hour) - int64(clk.Now().Sub(moments[8].at)))
	res := mustScrub(t, v, ScrubOptions{})
	if res.Condemned == 0 || len(v.committedState.Load().past.Before) != 1 {
		t.Errorf("nothing of the history went: %+v, %+v", res, v.committedState.Load().past.Before)
	}
	if _, err := n.pool.Sweep(ctx, false); err != nil { // claims of the openings that rolled back
		t.Fatal(err)
	}
	n.sweepClean()
	moments[8].at = moments[8].at.Add(10 * time.Second) // the window has moved on since
	check(8)
	h, err := n.pool.History(ctx, id, HistoryQuery{})
	if err != nil || len(h.Moments) > 6 {
		t.Errorf("history %+v %v", h, err)
	}
	rollback(9) // back to what the second rollback left behind
	if err := checkVersions(v, want); err != nil {
		t.Fatal(err)
	}
	clk.ahead.Add(int64(24 * time.Hour))
	mustScrub(t, v, ScrubOptions{})
	if err := checkVersions(v, want); err != nil {
		t.Fatal(err)
	}
	if st := v.committedState.Load(); len(st.past.Before) != 0 {
		t.Errorf("what rollbacks left behind is there for ever: %+v", st.past.Before)
	}
	if _, size := n.backendBytes(id, scoDir); float64(size) > 1.15*float64(clusters*MinClusterSize) {
		t.Errorf("%d bytes are left of %d that are live", size, clusters*MinClusterSize)
	}
	n.close()
}

// jumpClock is a machine's clock whose wall clock can be set.
type jumpClock struct {
	clock.Real
	jump atomic.Int64
}

func (c *jumpClock) Now() time.Time {
	if d := c.jump.Load(); d != 0 {
		return time.Now().Round(0).Add(time.Duration(d))
	}
	return time.Now()
}

// TestScrubClockJump: a wall clock that jumps takes no history (E6).
func TestScrubClockJump(t *testing.T) {
	clk := &jumpClock{}
	w := newWorld(4)
	w.opts.Clock = clk
	n := w.mustStart(t)
	if n.host.clockJumped() {
		t.Fatal("it did not jump")
	}
	clk.jump.Store(int64(48 * time.Hour))
	if now := clk.Now(); now.Sub(n.host.started) < time.Hour {
		t.Fatal("the test's clock does not jump")
	}
	n.close()
}

// TestScrubDamage: a SCO that cannot be read back verified stays where it is, the
// rest is scrubbed.
func TestScrubDamage(t *testing.T) {
	ctx := context.Background()
	w := newWorld(5)
	n := w.mustStart(t)
	id, clusters := testID(1), 4096
	n.create(id, int64(clusters*MinClusterSize))
	v := n.open(id)
	r := mrand.New(mrand.NewPCG(7, 8))
	want := make([]uint64, clusters)
	fillRandom(t, v, r, want, 1)
	for range clusters / 2 {
		c, p := r.IntN(clusters), make([]byte, v.cluster)
		want[c] = 2
		fillBlock(p, uint64(c), 2)
		if err := v.WriteAt(ctx, p, int64(c*v.cluster)); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	// The cluster that is damaged is one that a scrub would move.
	dry := mustScrub(t, v, ScrubOptions{DryRun: true})
	var number uint32
	for _, d := range dry.Doomed {
		if k, ok := parseSCOName(d.Name); ok && strings.Contains(d.Reason, "are moved") {
			number = k
		}
	}
	if number == 0 {
		t.Fatalf("nothing to move: %+v", dry)
	}
	victim, at := uint64(0), blockmap.Loc(0)
	for c := uint64(0); c < uint64(clusters); c++ {
		l, err := locate(ctx, v.base, c)
		if err != nil {
			t.Fatal(err)
		}
		if l.Number() == number {
			victim, at = c, l
		}
	}
	name := scoName(id, v.this, number)
	obj, err := n.store.Get(ctx, name, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	total, _, _ := v.own.scos.find(number)
	obj[v.layout.DataOffset(uint32(at.Offset()), total)+5] ^= 4
	if err := n.store.Delete(ctx, name); err != nil {
		t.Fatal(err)
	}
	if err := n.store.Put(ctx, name, obj); err != nil {
		t.Fatal(err)
	}
	res := mustScrub(t, v, ScrubOptions{})
	if len(res.Damaged) != 1 || res.Damaged[0] != name || res.Condemned == 0 {
		t.Fatalf("%+v", res)
	}
	bad := 0
	buf, exp := make([]byte, v.cluster), make([]byte, v.cluster)
	for c := range want {
		fillBlock(exp, uint64(c), want[c])
		err := v.ReadAt(ctx, buf, int64(c*v.cluster))
		if err != nil {
			if bad++; uint64(c) != victim || !errors.Is(err, ErrMedium) {
				t.Fatalf("cluster %d: %v", c, err)
			}
		} else if !bytes.Equal(buf, exp) {
			t.Fatalf("cluster %d holds something else", c)
		}
	}
	if bad != 1 {
		t.Errorf("%d clusters cannot be read", bad)
	}
	n.kill()
}

// TestScrubPace: a scrub keeps to its rate, pauses while others work, and goes on.
func TestScrubPace(t *testing.T) {
	ctx := context.Background()
	w := newWorld(6)
	w.opts.Clock = fastClock{time.Now(), 100}
	n := w.mustStart(t)
	n.create(testID(1), 1<<20)
	v := n.open(testID(1))
	clk := n.host.o.Clock
	took := func(p *pacer, steps int) time.Duration {
		start := clk.Now()
		for range steps {
			if err := p.wait(ctx, 1<<20); err != nil {
				t.Fatal(err)
			}
		}
		return clk.Now().Sub(start)
	}
	if d := took(&pacer{v: v, rate: 1 << 20}, 11); d < 10*time.Second || d > 60*time.Second {
		t.Errorf("10 MiB at 1 MiB/s took %s", d)
	}
	if d := took(&pacer{v: v}, 1000); d > time.Second {
		t.Errorf("without anybody else it waited %s", d)
	}
	v.active.Add(1)
	if d := took(&pacer{v: v}, 11); d < 10*minScrubPause || d > 20*maxScrubPause {
		t.Errorf("beside others it took %s", d)
	}
	v.active.Add(-1)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := (&pacer{v: v}).wait(ended, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	n.close()
}

// TestScrubRefused: what a scrub does not do, and says why.
func TestScrubRefused(t *testing.T) {
	ctx := context.Background()
	n := newWorld(7).mustStart(t)
	n.create(testID(1), 1<<20)
	v := n.open(testID(1))
	if _, err := v.Scrub(ctx, ScrubOptions{Rate: -1}); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	if res, err := v.Scrub(ctx, ScrubOptions{}); err != nil || res.Condemned != 0 || res.Written != 0 {
		t.Errorf("an empty vdisk: %+v %v", res, err)
	}
	_, end, err := v.beginWork(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Scrub(ctx, ScrubOptions{}); !errors.Is(err, ErrInUse) {
		t.Error(err)
	}
	end()
	if err := v.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Scrub(ctx, ScrubOptions{}); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if _, err := n.pool.Scrub(ctx, testID(1), ScrubOptions{}); err != nil || n.pool.Volume(testID(1)) != nil {
		t.Errorf("a closed vdisk: %v", err)
	}
	if err := n.pool.SetTemplate(ctx, testID(1), true); err != nil {
		t.Fatal(err)
	}
	if _, err := n.pool.Scrub(ctx, testID(1), ScrubOptions{}); !errors.Is(err, ErrTemplate) {
		t.Error(err)
	}
	if _, err := n.pool.Scrub(ctx, testID(9), ScrubOptions{}); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	n.close()
}
