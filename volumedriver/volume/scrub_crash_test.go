package volume

import (
	"context"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"slices"
	"testing"

	"github.com/openvstorage/ovgate/internal/blockfs"
)

// scrubScript is a workload with snapshots, their deletion, rollbacks to them, and
// scrubs on the way.
func scrubScript(steps int) (size int64, out []step) {
	r := mrand.New(mrand.NewPCG(44, 9))
	size = 512 << 10
	o := newOracle(size)
	for i := range steps {
		s := randomStep(r, size, MinClusterSize, 32<<10, uint32(i+1))
		live := o.past.snapshots()
		switch k := i % 20; {
		case k%5 == 3 && k < 14:
			s = step{special: "snapshot", name: fmt.Sprint("s", i)}
		case k == 5 || k == 10:
			s = step{special: "commit"}
		case k == 11 && len(live) > 0:
			s = step{special: "drop", name: live[r.IntN(len(live))]}
		case k == 12 || k == 16:
			s = step{special: "scrub"}
		case k == 15 && i%60 == 55 && len(live) > 0:
			s = step{special: "rollback", name: live[r.IntN(len(live))]}
		case k == 18:
			s = step{special: []string{"restart", "kill"}[i/20%2]}
		}
		o.done(s)
		out = append(out, s)
	}
	return size, out
}

// scrubRecovered scrubs and sweeps a vDisk that was found after a crash: map and log
// agree, the content stays, and in the end nothing is left that no head reaches.
func scrubRecovered(n *node, v *Volume, want []uint32) (*Volume, error) {
	ctx := context.Background()
	check := func(v *Volume) error {
		if err := v.Commit(ctx); err != nil {
			return err
		}
		if err := sameMap(v); err != nil {
			return err
		}
		have, err := readVersions(v)
		if err == nil && !slices.Equal(have, want) {
			err = errWrong{fmt.Errorf("a scrub or sweep changed the content: %s", diffVersions(have, want))}
		}
		return err
	}
	if err := check(v); err != nil {
		return v, err
	}
	if _, err := v.Scrub(ctx, ScrubOptions{}); err != nil {
		return v, err
	}
	if err := check(v); err != nil {
		return v, err
	}
	if res, err := v.Scrub(ctx, ScrubOptions{}); err != nil || res.Units != 0 {
		return v, fmt.Errorf("a scrub after a scrub: %w %+v", err, res)
	}
	if err := v.Close(ctx); err != nil {
		return v, err
	}
	if _, err := n.pool.Sweep(ctx, false); err != nil {
		return v, err
	}
	if res, err := n.pool.Sweep(ctx, true); err != nil || res.Garbage != 0 {
		return v, fmt.Errorf("after a sweep: %w %+v", err, res)
	}
	v, err := n.pool.Open(ctx, v.id)
	if err != nil {
		return v, err
	}
	return v, check(v)
}

// TestCrashScrub crashes at every point of a workload with scrubs: content and
// snapshots are those before the step or after it, and what the crash left behind is
// found by the sweep.
func TestCrashScrub(t *testing.T) {
	size, steps := scrubScript(120)
	(&crashRun{past: []map[string]pastPoint{}, scrubs: true, stride: stride(61, 499)}).test(t, size, steps)
}

// TestErrorScrub fails every operation of such a workload in turn.
func TestErrorScrub(t *testing.T) {
	size, steps := scrubScript(60)
	testErrors(t, size, steps, stride(41, 397)) // some 0.15 s each
}

// scrub scrubs a vDisk of the model; without history that takes the moments.
func (m *model) scrub(v *Volume) {
	m.note("scrub %x", v.id[0])
	_, err := v.Scrub(context.Background(), ScrubOptions{Rate: m.r.Int64N(2) << 30})
	m.must(err)
	m.must(sameMap(v))
	if v == m.v && m.w.settings.History == 0 {
		for name := range m.moments {
			delete(m.moments, name)
			delete(m.o.past.points, name)
		}
	}
	_, err = m.n.pool.Sweep(context.Background(), m.r.IntN(2) == 0)
	m.must(err)
}

// TestScrubLateHead: the head of a scrub that was cut off arrives after the next open
// went on without it, and a clone was made of what it does not keep. It is void.
func TestScrubLateHead(t *testing.T) {
	ctx := context.Background()
	w := newWorld(12)
	n := w.mustStart(t)
	id, clone := testID(1), testID(2)
	n.create(id, 1<<20)
	v := n.open(id)
	write := func(ver uint32) {
		t.Helper()
		if err := v.WriteAt(ctx, versions(0, 64<<10, func(int64) uint32 { return ver }), 0); err != nil {
			t.Fatal(err)
		}
		if err := v.Commit(ctx); err != nil {
			t.Fatal(err)
		}
	}
	write(1)
	moment := n.host.o.Clock.Now()
	write(2)
	write(3)
	// The world stands still when the mark is in the registry.
	var cut world
	w.reg.setHook(func() {
		rec, err := w.reg.Load(ctx, id)
		if err == nil && rec.State == FlagScrub && cut.reg == nil {
			cut = *w
			cut.reg = w.reg.clone()
			cut.fs, cut.be = w.fs.Crash(blockfs.CrashConfig{}), w.be.Crash(blockfs.CrashConfig{})
		}
	})
	res := mustScrub(t, v, ScrubOptions{})
	if cut.reg == nil || res.Condemned == 0 {
		t.Fatalf("no mark was seen: %+v", res)
	}
	rec, err := cut.reg.Load(ctx, id)
	if err != nil || rec.Format != 3 {
		t.Fatalf("%+v %v", rec, err)
	}
	before := rec.Head
	// The head that the scrub committed, and what it needs, as they would arrive.
	late := headName(id, HeadRef{Epoch: before.Epoch, Nonce: before.Nonce, Number: before.Number + 1})
	var head []byte
	for _, r := range []uint64{1, 2} { // superseded by now
		name := headName(id, HeadRef{Epoch: before.Epoch, Nonce: before.Nonce, Number: before.Number + r})
		if b, err := n.store.Get(ctx, name, maxHeadBytes); err == nil {
			head = b
		}
	}
	if head == nil {
		t.Fatal("no head is left")
	}
	h, _, err := decodeHead(head)
	if err != nil {
		t.Fatal(err)
	}
	h.Number = before.Number + 1
	if head, _, err = h.encode(); err != nil {
		t.Fatal(err)
	}
	past, err := n.store.Get(ctx, pastName(id, *h.Past), maxPastBytes)
	if err != nil {
		t.Fatal(err)
	}
	pastAt := pastName(id, *h.Past)
	n.kill()

	n = cut.mustStart(t)
	if err := n.pool.Clone(ctx, CloneSpec{ID: clone, Name: "c", Source: id, From: Point{At: moment}}); !errors.Is(err, ErrInUse) {
		t.Fatalf("a clone beside the mark: %v", err)
	}
	if _, err := n.pool.Sweep(ctx, false); !errors.Is(err, ErrInUse) {
		t.Fatalf("a sweep beside the mark: %v", err)
	}
	// The open decides and is cut off before it commits a head of its own.
	o := &opening{p: n.pool, id: id}
	if err := o.learn(ctx); err != nil {
		t.Fatal(err)
	}
	if err := o.take(ctx, FlagNone); err != nil {
		t.Fatal(err)
	}
	o.abandon()
	if err := n.pool.Clone(ctx, CloneSpec{ID: clone, Name: "c", Source: id, From: Point{At: moment}}); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{late: head, pastAt: past} {
		if err := n.store.Put(ctx, name, b); err != nil {
			t.Fatal(err)
		}
	}
	n.kill()
	n = cut.mustStart(t)
	v = n.open(id)
	if st := v.committedState.Load(); st.head.Scrubbed != 0 {
		t.Fatal("the late head counts")
	}
	have, err := readVersions(v)
	if err != nil || have[0] != 3 || have[127] != 3 {
		t.Fatalf("%v %v", have[:8], err)
	}
	if have, err = readVersions(n.open(clone)); err != nil || have[0] != 1 {
		t.Fatalf("%v %v", have[:8], err)
	}
	n.close()
	if n, err = cut.start(t); err != nil {
		t.Fatal(err)
	}
	if _, err := n.pool.Sweep(ctx, false); err != nil {
		t.Fatal(err)
	}
	n.sweepClean()
	n.close()
}
