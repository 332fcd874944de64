package volume

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func mustSnapshot(t testing.TB, v *Volume, name string) Snapshot {
	t.Helper()
	s, err := v.Snapshot(context.Background(), SnapshotSpec{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// names returns the snapshots of an open vDisk by name.
func names(v *Volume) string {
	var out []string
	for _, s := range v.Snapshots() {
		out = append(out, s.Name)
	}
	return strings.Join(out, " ")
}

func mustRollback(t testing.TB, n *node, id ID, pt Point) Rolled {
	t.Helper()
	r, err := n.pool.Rollback(context.Background(), id, pt)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestSnapshotLife: a snapshot exists when the call returns, in the journal, and
// later on the backend; deleting one lasts as well.
func TestSnapshotLife(t *testing.T) {
	ctx := context.Background()
	w := watched(t, 21)
	id := testID(1)
	n := w.mustStart(t)
	n.create(id, 1<<20)
	v := n.open(id)
	mustWrite(t, v, 0, 1)
	labels := map[string]string{"a": "<&>", "ü": ""}
	want, err := v.Snapshot(ctx, SnapshotSpec{Name: "one", Labels: labels, Consistent: true, Sticky: true, Automatic: true})
	if err != nil {
		t.Fatal(err)
	}
	if want.InBackend || want.Seq != 2 || want.Size != 1<<20 || want.Name != "one" || want.ID == (ID{}) || !want.Sticky || !want.Consistent || !want.Automatic {
		t.Fatalf("%+v", want)
	}
	again, err := v.Snapshot(ctx, SnapshotSpec{ID: want.ID, Name: "one"})
	if err != nil || again.Seq != want.Seq {
		t.Fatalf("asked again: %+v, %v", again, err)
	}
	mustWrite(t, v, 0, 2)
	mustSnapshot(t, v, "two")
	mustSnapshot(t, v, "three")
	if err := v.DeleteSnapshot(ctx, "two", false); err != nil {
		t.Fatal(err)
	}
	n.kill() // nothing of this is on the backend
	n = w.mustStart(t)
	v = n.open(id)
	check := func(committed bool) {
		t.Helper()
		l := v.Snapshots()
		if len(l) != 2 || l[0].Name != "one" || l[1].Name != "three" || committed && !l[0].InBackend || !l[0].Time.Equal(want.Time) {
			t.Fatalf("%+v", l)
		}
		if got := l[0]; fmt.Sprint(got.Labels) != fmt.Sprint(labels) || got.ID != want.ID || got.Seq != want.Seq || got.Size != want.Size || !got.Sticky || !got.Consistent || !got.Automatic {
			t.Fatalf("%+v, want %+v", got, want)
		}
	}
	check(false)
	mustCommit(t, v)
	check(true)
	mustWrite(t, v, 4096, 3)
	mustCommit(t, v)
	n.kill()
	n = w.mustStart(t)
	v = n.open(id)
	check(true)
	if err := v.DeleteSnapshot(ctx, "one", false); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "one") {
		t.Fatalf("a sticky snapshot: %v", err)
	}
	if err := v.DeleteSnapshot(ctx, want.ID.String(), true); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing to delete
		if err := v.DeleteSnapshot(ctx, "three", false); err != nil {
			t.Fatal(err)
		}
	}
	n.close()
	n = w.mustStart(t)
	v = n.open(id)
	if l := v.Snapshots(); len(l) != 0 {
		t.Fatalf("%+v", l)
	}
	if st := v.committedState.Load(); st.head.Past != nil {
		t.Fatal("a vDisk without snapshots has a past object")
	}
	mustCommit(t, v)
	l, err := n.store.List(ctx, vdiskPrefix(id)+pastDir, "", 10)
	if err != nil || len(l) != 0 {
		t.Fatalf("past objects left: %v %v", l, err)
	}
	n.close()
}

// TestRollback: to a snapshot, to a moment, back again, over restarts and writes.
func TestRollback(t *testing.T) {
	ctx := context.Background()
	w := watched(t, 22)
	id := testID(1)
	n := w.mustStart(t)
	n.create(id, 1<<20)
	v := n.open(id)
	mustWrite(t, v, 0, 1)
	mustSnapshot(t, v, "one")
	mustWrite(t, v, 0, 2)
	mustWrite(t, v, 8192, 2)
	mustSnapshot(t, v, "two")
	mustWrite(t, v, 0, 3)
	mustCommit(t, v)
	after3 := time.Now()
	mustWrite(t, v, 4096, 4)
	mustSnapshot(t, v, "three")
	last := v.Stats().LastSeq
	if _, err := n.pool.Rollback(ctx, id, Point{Snapshot: "one"}); !errors.Is(err, ErrInUse) {
		t.Fatalf("while open: %v", err)
	}
	n.kill() // not closed in order: the rollback brings it to rest first
	n = w.mustStart(t)
	r := mustRollback(t, n, id, Point{Snapshot: "two"})
	if r.To.Snapshot != "two" || len(r.Deleted) != 1 || r.Deleted[0].Name != "three" {
		t.Fatalf("%+v", r)
	}
	v = n.open(id)
	if names(v) != "one two" {
		t.Fatalf("snapshots %q", names(v))
	}
	wantVersion(t, v, 0, 2)
	wantVersion(t, v, 8192, 2)
	wantVersion(t, v, 4096, 0)
	mustWrite(t, v, 4096, 5)
	if v.Stats().LastSeq <= last {
		t.Fatalf("seq %d after the rollback, %d before", v.Stats().LastSeq, last)
	}
	mustSnapshot(t, v, "four")
	mustCommit(t, v)
	n.kill()
	n = w.mustStart(t)
	v = n.open(id)
	wantVersion(t, v, 4096, 5)
	wantVersion(t, v, 0, 2)
	n.close()
	// To a moment of before the first rollback: what that left behind is back.
	n = w.mustStart(t)
	r = mustRollback(t, n, id, Point{At: after3})
	if len(r.Deleted) != 1 || r.Deleted[0].Name != "four" {
		t.Fatalf("%+v", r)
	}
	v = n.open(id)
	wantVersion(t, v, 0, 3)
	wantVersion(t, v, 4096, 0)
	wantVersion(t, v, 8192, 2)
	if names(v) != "one two" {
		t.Fatalf("snapshots %q", names(v))
	}
	mustWrite(t, v, 12288, 6)
	n.close()
	n = w.mustStart(t)
	mustRollback(t, n, id, Point{Snapshot: "one"})
	mustRollback(t, n, id, Point{}) // to now: nothing changes
	v = n.open(id)
	wantVersion(t, v, 0, 1)
	wantVersion(t, v, 12288, 0)
	n.close()
	n = w.mustStart(t)
	mustRollback(t, n, id, Point{At: n.created(id)})
	v = n.open(id)
	if names(v) != "" {
		t.Fatalf("snapshots %q", names(v))
	}
	wantVersion(t, v, 0, 0)
	mustWrite(t, v, 0, 9)
	n.kill()
	n = w.mustStart(t)
	v = n.open(id)
	wantVersion(t, v, 0, 9)
	wantVersion(t, v, 8192, 0)
	n.close()
}

func (n *node) created(id ID) time.Time {
	n.t.Helper()
	h, err := n.pool.History(context.Background(), id, HistoryQuery{})
	if err != nil {
		n.t.Fatal(err)
	}
	return h.From
}

// TestSnapshotsClosed: listed and deleted without an open vDisk.
func TestSnapshotsClosed(t *testing.T) {
	ctx := context.Background()
	w := newWorld(67)
	id := testID(1)
	n := w.mustStart(t)
	n.create(id, 1<<20)
	v := n.open(id)
	mustSnapshot(t, v, "one")
	mustWrite(t, v, 0, 1)
	mustSnapshot(t, v, "two")
	if err := n.pool.DeleteSnapshot(ctx, id, "one", false); err != nil || names(v) != "two" {
		t.Fatalf("open: %v, %q", err, names(v))
	}
	if err := v.Close(ctx); err != nil {
		t.Fatal(err)
	}
	l, err := n.pool.Snapshots(ctx, id)
	if err != nil || len(l) != 1 || l[0].Name != "two" || !l[0].InBackend {
		t.Fatalf("%v: %+v", err, l)
	}
	if err := n.pool.DeleteSnapshot(ctx, id, "two", false); err != nil || n.pool.Volume(id) != nil {
		t.Fatalf("closed: %v", err)
	}
	if l, err = n.pool.Snapshots(ctx, id); err != nil || len(l) != 0 {
		t.Fatalf("%v: %+v", err, l)
	}
	wantVersion(t, n.open(id), 0, 1)
	if _, err := n.pool.Snapshots(ctx, testID(9)); !errors.Is(err, ErrNotFound) {
		t.Fatalf("%v", err)
	}
	n.close()
}
