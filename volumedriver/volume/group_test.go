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
