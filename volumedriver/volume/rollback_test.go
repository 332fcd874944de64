package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/volumedriver/backend"
)

// TestHistory: moments are SCO ends with their times; any time between the first and
// now can be asked for, and what a rollback cut off is among them.
func TestHistory(t *testing.T) {
	ctx := context.Background()
	w := watched(t, 23)
	id := testID(1)
	n := w.mustStart(t)
	n.create(id, 1<<20)
	v := n.open(id)
	var at []time.Time
	for i := range 30 {
		mustWrite(t, v, 0, uint32(i+1))
		if i == 9 {
			mustSnapshot(t, v, "ten")
		}
		mustCommit(t, v)
		at = append(at, time.Now())
	}
	h, err := n.pool.History(ctx, id, HistoryQuery{})
	if err != nil || len(h.Moments) != 31 || h.More || h.Moments[0].Seq != 0 || h.Moments[10].Snapshot != "ten" {
		t.Fatalf("%v: %+v", err, h)
	}
	for i, m := range h.Moments[1:] {
		if m.Time.After(at[i]) || i > 0 && !m.Time.After(at[i-1]) || m.Seq <= h.Moments[i].Seq {
			t.Fatalf("moment %d: %+v, committed by %s", i, m, at[i])
		}
	}
	part, err := n.pool.History(ctx, id, HistoryQuery{From: at[4], To: at[20], Limit: 5})
	if err != nil || !part.More || !slices.Equal(part.Moments, h.Moments[6:11]) {
		t.Fatalf("%v: %+v", err, part)
	}
	n.close()
	n = w.mustStart(t)
	mustRollback(t, n, id, Point{Snapshot: "ten"})
	v = n.open(id)
	wantVersion(t, v, 0, 10)
	mustWrite(t, v, 0, 100)
	n.close()
	n = w.mustStart(t)
	all, err := n.pool.History(ctx, id, HistoryQuery{})
	if err != nil || len(all.Moments) != 32 || !slices.Equal(all.Moments[:31], h.Moments) {
		t.Fatalf("%v: %d moments: %+v", err, len(all.Moments), all)
	}
	// Each moment, and any time up to the next, is what it was.
	for _, i := range []int{25, 3, 29, 9, 15} {
		mustRollback(t, n, id, Point{At: at[i]})
		v = n.open(id)
		wantVersion(t, v, 0, uint32(i+1))
		n.close()
		n = w.mustStart(t)
	}
	w.settings.History = time.Hour
	n.close()
	n = w.mustStart(t)
	for _, c := range []struct {
		pt   Point
		want error
		text string
	}{
		{Point{At: time.Now().Add(-2 * time.Hour)}, ErrNoPoint, "outside its history"},
		{Point{At: time.Now().Add(time.Hour)}, ErrNoPoint, "outside its history"},
		{Point{Snapshot: "eleven"}, ErrNoPoint, `"eleven"`},
		{Point{Snapshot: "ten", At: time.Now()}, ErrInvalid, "not both"},
	} {
		before := n.records(id)
		if _, err := n.pool.Rollback(ctx, id, c.pt); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), id.String()) {
			t.Errorf("%+v: %v", c.pt, err)
		}
		if n.records(id) != before {
			t.Errorf("%+v: refused, but the record changed", c.pt)
		}
	}
	for _, q := range []HistoryQuery{{Limit: -1}, {Limit: MaxMoments + 1}} {
		if _, err := n.pool.History(ctx, id, q); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", q, err)
		}
	}
	n.close()
}

func (n *node) records(id ID) string {
	n.w.reg.mu.Lock()
	defer n.w.reg.mu.Unlock()
	return n.w.reg.recs[id]
}

// TestSnapshotRefused: names and limits, each refusal with object and remedy.
func TestSnapshotRefused(t *testing.T) {
	ctx := context.Background()
	w := newWorld(24)
	id := testID(1)
	n := w.mustStart(t)
	n.create(id, 1<<20)
	v := n.open(id)
	first := mustSnapshot(t, v, "taken")
	seq := v.Stats().LastSeq
	for _, c := range []struct {
		s    SnapshotSpec
		want error
		text string
	}{
		{SnapshotSpec{Name: "taken"}, ErrExists, "another name"},
		{SnapshotSpec{ID: first.ID, Name: "other"}, ErrExists, "another name"},
		{SnapshotSpec{}, ErrInvalid, "1 to 255"},
		{SnapshotSpec{Name: strings.Repeat("x", 256)}, ErrInvalid, "1 to 255"},
		{SnapshotSpec{Name: "a\nb"}, ErrInvalid, "control"},
		{SnapshotSpec{Name: "a\xff"}, ErrInvalid, "UTF-8"},
		{SnapshotSpec{Name: "a", Labels: map[string]string{"k": strings.Repeat("x", MaxSnapshotLabels)}}, ErrInvalid, "4096"},
		{SnapshotSpec{Name: "a", Labels: map[string]string{"k": "\xff"}}, ErrInvalid, "UTF-8"},
	} {
		if _, err := v.Snapshot(ctx, c.s); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), id.String()) {
			t.Errorf("%+v: %v", c.s, err)
		}
	}
	// The largest that is allowed, in the form that takes most room.
	worst := SnapshotSpec{Name: strings.Repeat("<", 255), Labels: map[string]string{}}
	for i := range 64 {
		worst.Labels[fmt.Sprintf("%c%03d", '<', i)] = strings.Repeat("&", 59)
	}
	if _, err := v.Snapshot(ctx, worst); err != nil && !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	if got := v.Stats().LastSeq; got > seq+1 {
		t.Errorf("refusals took seqs: %d, was %d", got, seq)
	}
	n.close()
	if _, err := v.Snapshot(ctx, SnapshotSpec{Name: "late"}); !errors.Is(err, ErrClosed) {
		t.Errorf("after close: %v", err)
	}
	if _, err := n.pool.Rollback(ctx, testID(9), Point{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("rollback of nothing: %v", err)
	}
}

// TestRollbackSticky: a sticky snapshot is not lost by the way.
func TestRollbackSticky(t *testing.T) {
	ctx := context.Background()
	w := newWorld(25)
	id := testID(1)
	n := w.mustStart(t)
	n.create(id, 1<<20)
	v := n.open(id)
	mustSnapshot(t, v, "old")
	mustWrite(t, v, 0, 1)
	if _, err := v.Snapshot(ctx, SnapshotSpec{Name: "keep", Sticky: true}); err != nil {
		t.Fatal(err)
	}
	n.close()
	n = w.mustStart(t)
	if _, err := n.pool.Rollback(ctx, id, Point{Snapshot: "old"}); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "keep") {
		t.Fatalf("%v", err)
	}
	v = n.open(id)
	wantVersion(t, v, 0, 1)
	n.close()
}

// lateStore loses the answers of the puts of a head: the object appears when the test
// says so.
type lateStore struct {
	backend.Store
	armed atomic.Bool
	lost  atomic.Value // name of that head
	late  atomic.Pointer[func() error]
}

func (s *lateStore) Put(ctx context.Context, name string, data []byte) error {
	if strings.Contains(name, headDir) && s.armed.Swap(false) {
		put := func() error { return s.Store.Put(context.Background(), name, data) }
		s.late.Store(&put)
		s.lost.Store(name)
	}
	if name == s.lost.Load() {
		return errors.New("no answer")
	}
	return s.Store.Put(ctx, name, data)
}

// TestRollbackLate: the head of a rollback that failed turns up on the backend
// later. Before the next open it counts, whole; after that it is void, also when no
// other head was committed before a crash.
func TestRollbackLate(t *testing.T) {
	for _, when := range []string{"before the open", "while open", "while open, away", "after a second try"} {
		t.Run(when, func(t *testing.T) {
			ctx := context.Background()
			w := newWorld(26)
			w.opts.Clock = fastClock{time.Now(), 100}
			late, away := &lateStore{}, &atomic.Bool{}
			w.wrapStore = func(s backend.Store) (backend.Store, error) { late.Store = s; return awayStore{late, away}, nil }
			id := testID(1)
			n := w.mustStart(t)
			n.create(id, 1<<20)
			v := n.open(id)
			mustWrite(t, v, 0, 1)
			mustSnapshot(t, v, "one")
			mustWrite(t, v, 0, 2)
			mustSnapshot(t, v, "two")
			n.close()
			n = w.mustStart(t)
			late.armed.Store(true)
			if _, err := n.pool.Rollback(ctx, id, Point{Snapshot: "one"}); !errors.Is(err, ErrBackend) || !strings.Contains(err.Error(), "outcome unknown") {
				t.Fatalf("%v", err)
			}
			if rec, err := w.reg.Load(ctx, id); err != nil || rec.State != FlagPending {
				t.Fatalf("%v: %+v", err, rec)
			}
			appear := func() {
				if err := (*late.late.Load())(); err != nil {
					t.Fatal(err)
				}
			}
			want := uint32(2)
			switch when {
			case "before the open":
				appear()
				want = 1
				v = n.open(id)
			case "while open":
				v = n.open(id)
				appear()
			case "after a second try":
				late.armed.Store(true)
				if _, err := n.pool.Rollback(ctx, id, Point{Snapshot: "one"}); !errors.Is(err, ErrBackend) {
					t.Fatalf("%v", err)
				}
				v = n.open(id)
				appear()
			default: // nothing but the registry and the journal know of this opening
				away.Store(true)
				v = n.open(id)
				mustWrite(t, v, 4096, 7)
				n.kill()
				away.Store(false)
				appear()
				n = w.mustStart(t)
				v = n.open(id)
				wantVersion(t, v, 4096, 7)
			}
			wantVersion(t, v, 0, want)
			mustWrite(t, v, 8192, 3)
			n.kill()
			n = w.mustStart(t)
			v = n.open(id)
			wantVersion(t, v, 0, want)
			wantVersion(t, v, 8192, 3)
			if l := names(v); l != map[uint32]string{1: "one", 2: "one two"}[want] {
				t.Fatalf("snapshots %q", l)
			}
			mustCommit(t, v)
			if rec, err := w.reg.Load(ctx, id); err != nil || len(rec.Void) > 0 || rec.Format != 1 {
				t.Fatalf("%v: %+v", err, rec)
			}
			n.close()
		})
	}
}

// TestManySnapshots: making the 1000th costs what the first did, and the heads do
// not grow with their number.
func TestManySnapshots(t *testing.T) {
	w := newWorld(27)
	id := testID(1)
	n := w.mustStart(t)
	n.create(id, 1<<20)
	v := n.open(id)
	var took []time.Duration
	for i := range 1000 {
		start := time.Now()
		mustSnapshot(t, v, fmt.Sprint("s", i))
		took = append(took, time.Since(start))
		if i%100 == 50 {
			mustWrite(t, v, int64(i)*512&^4095, uint32(i))
		}
	}
	mustCommit(t, v)
	slices.Sort(took)
	t.Logf("create: median %s, p99 %s", took[500], took[990])
	if took[990] > 100*time.Millisecond {
		t.Errorf("p99 of making a snapshot is %s, want below 100 ms", took[990])
	}
	st := v.committedState.Load()
	obj, _, err := st.head.encode()
	if err != nil || len(obj) > 4096 || st.head.Past.Pins != 1000 {
		t.Fatalf("%v: a head of %d bytes, %d pins", err, len(obj), st.head.Past.Pins)
	}
	n.close()
	n = w.mustStart(t)
	v = n.open(id)
	if l := v.Snapshots(); len(l) != 1000 || l[999].Name != "s999" || !l[999].InBackend {
		t.Fatalf("%d snapshots", len(l))
	}
	n.close()
	n = w.mustStart(t)
	if r := mustRollback(t, n, id, Point{Snapshot: "s499"}); len(r.Deleted) != 500 {
		t.Fatalf("%d deleted", len(r.Deleted))
	}
	n.close()
}
