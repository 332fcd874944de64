package volume

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// groupWorld is some open vDisks of 1 MiB.
func groupWorld(t *testing.T, w *world, disks int) (*node, []*Volume) {
	t.Helper()
	n := w.mustStart(t)
	var vols []*Volume
	for i := range disks {
		n.create(testID(byte(i+1)), 1<<20)
		vols = append(vols, n.open(testID(byte(i+1))))
	}
	return n, vols
}

// TestGroupSnapshot: writers that go from disk to disk, each write sent after the one
// before it was acknowledged, are cut off at one place by a group snapshot: it has a
// write if and only if it has all before it.
func TestGroupSnapshot(t *testing.T) {
	const disks, writers, groups, blocks = 4, 3, 12, 16
	ctx := context.Background()
	w := newWorld(301)
	n, vols := groupWorld(t, w, disks)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var sent [writers]atomic.Int64
	for c := range writers {
		wg.Go(func() {
			p := make([]byte, 4096)
			for i := int64(1); ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				binary.LittleEndian.PutUint64(p, uint64(i))
				at := int64(c*blocks) + i/disks%blocks
				if err := vols[i%disks].WriteAt(ctx, p, at*4096); err != nil {
					t.Error(err)
					return
				}
				sent[c].Store(i)
			}
		})
	}
	for g := range groups {
		floor := sent[0].Load() + 50
		for sent[0].Load() < floor && !t.Failed() {
			time.Sleep(100 * time.Microsecond)
		}
		var before [writers]int64
		for c := range writers {
			before[c] = sent[c].Load()
		}
		made, err := SnapshotGroup(ctx, vols, SnapshotSpec{Name: fmt.Sprint("g", g), Sticky: g%2 == 0})
		if err != nil {
			t.Fatal(err)
		}
		for i, s := range made {
			if s.ID != made[0].ID || s.Group != disks || s.Name != fmt.Sprint("g", g) || s.Sticky != (g%2 == 0) {
				t.Fatalf("snapshot of disk %d: %+v", i, s)
			}
		}
		var newest [writers][disks]int64
		for d := range disks {
			id := testID(byte(100 + d))
			if err := n.pool.Clone(ctx, CloneSpec{ID: id, Name: id.String(), Source: vols[d].id, From: Point{Snapshot: made[d].ID.String()}}); err != nil {
				t.Fatal(err)
			}
			v := n.open(id)
			p := make([]byte, 4096)
			for c := range writers {
				for b := range int64(blocks) {
					if err := v.ReadAt(ctx, p, (int64(c*blocks)+b)*4096); err != nil {
						t.Fatal(err)
					}
					newest[c][d] = max(newest[c][d], int64(binary.LittleEndian.Uint64(p)))
				}
			}
			if err := v.Close(ctx); err != nil {
				t.Fatal(err)
			}
			if err := n.pool.Delete(ctx, id); err != nil {
				t.Fatal(err)
			}
		}
		for c := range writers {
			last := int64(0)
			for _, m := range newest[c] {
				last = max(last, m)
			}
			if last < before[c] {
				t.Errorf("group %d: writer %d had %d acknowledged before, %d are in", g, c, before[c], last)
			}
			for d, m := range newest[c] {
				want := last - (last-int64(d)+disks)%disks
				if want = max(want, 0); m != want && !(want < disks && m == 0 && d == 0) {
					t.Errorf("group %d: writer %d: write %d is in and disk %d ends with %d, not %d", g, c, last, d, m, want)
				}
			}
		}
	}
	close(stop)
	wg.Wait()
	// They are there after a restart, and are deleted one by one.
	n.kill()
	n = w.mustStart(t)
	v := n.open(testID(1))
	all := v.Snapshots()
	if len(all) != groups || all[groups-1].Group != disks {
		t.Fatalf("%+v", all)
	}
	for _, s := range all {
		if err := v.DeleteSnapshot(ctx, s.Name, true); err != nil {
			t.Fatal(err)
		}
	}
	n.close()
}

// TestGroupParts: one writer goes between vDisks of two hosts, and a group snapshot of both is
// of one moment. One that is given up, or not agreed on in time, leaves nothing.
func TestGroupParts(t *testing.T) {
	const groups, blocks = 8, 16
	ctx := context.Background()
	var nodes [2]*node
	var vols [2]*Volume
	for i := range nodes {
		n, v := groupWorld(t, newWorld(uint64(303+i)), 1)
		nodes[i], vols[i] = n, v[0]
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var sent atomic.Int64
	wg.Go(func() {
		p := make([]byte, 4096)
		for i := int64(1); ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			binary.LittleEndian.PutUint64(p, uint64(i))
			if err := vols[i%2].WriteAt(ctx, p, i/2%blocks*4096); err != nil {
				t.Error(err)
				return
			}
			sent.Store(i)
		}
	})
	// parts makes the snapshots of both, which meet as meet says.
	parts := func(s SnapshotSpec, meet func(ctx context.Context, i int) error) (made [2][]Snapshot, errs [2]error) {
		var parts sync.WaitGroup
		for i, v := range vols {
			parts.Go(func() {
				made[i], errs[i] = SnapshotPart(ctx, []*Volume{v}, s, GroupPart{Size: 2, Meet: func(ctx context.Context) error { return meet(ctx, i) }})
			})
		}
		parts.Wait()
		return made, errs
	}
	// meet makes them at one moment.
	meet := func(s SnapshotSpec) ([2][]Snapshot, [2]error) {
		var rest [2]chan struct{}
		for i := range rest {
			rest[i] = make(chan struct{})
		}
		return parts(s, func(ctx context.Context, i int) error {
			close(rest[i])
			select {
			case <-rest[1-i]:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}
	late := func(errs [2]error) bool {
		for _, err := range errs {
			if errors.Is(err, ErrGroupLate) || errors.Is(err, ErrStalled) {
				return true
			}
		}
		return false
	}
	for g := range groups {
		floor := sent.Load() + 50
		for sent.Load() < floor && !t.Failed() {
			time.Sleep(100 * time.Microsecond)
		}
		id := testID(byte(50 + g))
		made, errs := meet(SnapshotSpec{ID: id, Name: fmt.Sprint("g", g)})
		for try := 0; late(errs) && try < 20; try++ { // on a busy machine; who leads undoes what was made
			for i, v := range vols {
				if err := undoGroup(ctx, vols[i:i+1], id); err != nil {
					t.Fatal(v.id, err)
				}
			}
			made, errs = meet(SnapshotSpec{ID: id, Name: fmt.Sprint("g", g)})
		}
		if err := errors.Join(errs[:]...); err != nil {
			t.Fatal(err)
		}
		var newest [2]int64
		for i, n := range nodes {
			if s := made[i]; len(s) != 1 || s[0].ID != id || s[0].Group != 2 {
				t.Fatalf("part %d: %+v", i, s)
			}
			clone := testID(byte(100 + g))
			if err := n.pool.Clone(ctx, CloneSpec{ID: clone, Name: clone.String(), Source: vols[i].id, From: Point{Snapshot: id.String()}}); err != nil {
				t.Fatal(err)
			}
			v := n.open(clone)
			p := make([]byte, 4096)
			for b := range int64(blocks) {
				if err := v.ReadAt(ctx, p, b*4096); err != nil {
					t.Fatal(err)
				}
				newest[i] = max(newest[i], int64(binary.LittleEndian.Uint64(p)))
			}
		}
		if d := newest[0] - newest[1]; max(newest[0], newest[1]) < floor || d != 1 && d != -1 {
			t.Errorf("group %d: %d were acknowledged before, the snapshots end with %d and %d", g, floor, newest[0], newest[1])
		}
	}
	refused := errors.New("another node cannot")
	for what, meet := range map[string]func(context.Context, int) error{
		"refused": func(context.Context, int) error { return refused },
		"late":    func(ctx context.Context, _ int) error { <-ctx.Done(); return ctx.Err() },
	} {
		_, errs := parts(SnapshotSpec{ID: testID(90), Name: what}, meet)
		want := map[string]error{"refused": refused, "late": ErrGroupLate}[what]
		for i, err := range errs {
			if !errors.Is(err, want) {
				t.Errorf("%s: part %d: %v", what, i, err)
			}
		}
	}
	at := sent.Load()
	for sent.Load() < at+10 && !t.Failed() {
		time.Sleep(100 * time.Microsecond)
	}
	close(stop)
	wg.Wait()
	for i, v := range vols {
		if all := v.Snapshots(); len(all) != groups {
			t.Errorf("part %d has %d snapshots: %+v", i, len(all), all)
		}
	}
	// What is there of an earlier try is of another moment.
	if err := vols[0].submitMark(ctx, &mark{Pin: &Pin{ID: testID(91), Name: "cut", Group: &PinGroup{Size: 2}}}); err != nil {
		t.Fatal(err)
	}
	before := vols[0].Snapshots()[groups].Seq
	made, errs := parts(SnapshotSpec{ID: testID(91), Name: "cut"}, func(context.Context, int) error { return nil })
	if err := errors.Join(errs[:]...); err != nil || made[0][0].Seq <= before || len(vols[0].Snapshots()) != groups+1 {
		t.Errorf("%+v, %v", made, err)
	}
	for _, n := range nodes {
		n.close()
	}
}

// TestGroupAllOrNothing: a group that cannot be made leaves nothing behind, and holds up
// the writes of the others for a moment only.
func TestGroupAllOrNothing(t *testing.T) {
	ctx := context.Background()
	w := newWorld(302)
	away := withAway(w)
	w.opts.JournalBytes = 6 * w.opts.ChunkBytes
	n, vols := groupWorld(t, w, 3)
	for _, v := range vols {
		mustWrite(t, v, 4096, 1) // each has a chunk of the journal now
	}
	mustSnapshot(t, vols[1], "taken")
	none := func(what string) {
		t.Helper()
		for i, v := range vols {
			for _, s := range v.Snapshots() {
				if s.Name != "taken" || i != 1 {
					t.Errorf("%s: vdisk %d has %+v", what, i, s)
				}
			}
		}
	}
	for _, c := range []struct {
		what string
		vols []*Volume
		name string
		is   error
	}{
		{"name in use on one", vols, "taken", ErrExists},
		{"none", nil, "x", ErrInvalid},
		{"one twice", []*Volume{vols[0], vols[1], vols[0]}, "x", ErrInvalid},
		{"bad name", vols, "", ErrInvalid},
	} {
		if made, err := SnapshotGroup(ctx, c.vols, SnapshotSpec{Name: c.name}); !errors.Is(err, c.is) || made != nil {
			t.Errorf("%s: %+v, %v", c.what, made, err)
		}
		none(c.what)
	}
	// One whose journal is full, because the backend is away.
	away.Store(true)
	full := make(chan error, 1)
	stopped, cancel := context.WithCancel(ctx)
	go func() {
		p := make([]byte, 64<<10)
		for {
			if err := vols[2].WriteAt(stopped, p, 0); err != nil {
				full <- err
				return
			}
		}
	}()
	still := 0
	for last, deadline := uint64(0), time.Now().Add(20*time.Second); still < 100; time.Sleep(time.Millisecond) {
		if still++; !stalledBy(vols[2], errAway) || vols[2].lastSeq.Load() != last {
			still, last = 0, vols[2].lastSeq.Load()
		}
		if time.Now().After(deadline) {
			t.Fatalf("never stalled: %+v", vols[2].Stats())
		}
	}
	began := time.Now()
	if made, err := SnapshotGroup(ctx, vols, SnapshotSpec{Name: "late"}); !errors.Is(err, ErrStalled) || made != nil {
		t.Errorf("%+v, %v", made, err)
	}
	t.Logf("given up after %v", time.Since(began))
	none("stalled")
	mustWrite(t, vols[0], 0, 7)
	away.Store(false)
	cancel()
	<-full
	// One that was cut off is finished by asking again.
	id := testID(77)
	if err := vols[1].submitMark(ctx, &mark{Pin: &Pin{ID: id, Name: "cut", Group: &PinGroup{Size: 3}}}); err != nil {
		t.Fatal(err)
	}
	before := vols[1].Snapshots()[1].Seq
	for range 2 {
		made, err := SnapshotGroup(ctx, vols, SnapshotSpec{ID: id, Name: "cut"})
		if err != nil || len(made) != 3 || made[1].Seq <= before || len(vols[1].Snapshots()) != 2 {
			t.Fatalf("%+v, %v", made, err)
		}
	}
	n.close()
}
