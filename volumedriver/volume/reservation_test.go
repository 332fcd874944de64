package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/backend"
)

func (n *node) wantHeld(v *Volume, want string) {
	n.t.Helper()
	if got := v.Reservation(); string(got) != want {
		n.t.Fatalf("reservation state %q, want %q", got, want)
	}
}

func mustReserve(t testing.TB, v *Volume, state string) {
	t.Helper()
	if err := v.Reserve(context.Background(), []byte(state)); err != nil {
		t.Fatal(err)
	}
}

// TestReservationSurvives: the state comes back from wherever its record or head
// is: journal, local head, registry and backend, or the backend alone.
func TestReservationSurvives(t *testing.T) {
	ctx := context.Background()
	for _, cluster := range []int{MinClusterSize, MaxClusterSize} {
		t.Run(fmt.Sprint(cluster), func(t *testing.T) {
			w := newWorld(3)
			w.settings.ClusterSize = cluster
			w.opts.ChunkBytes = 1 << 20
			id := testID(1)
			n := w.mustStart(t)
			n.create(id, 4<<20)
			v := n.open(id)
			n.wantHeld(v, "")
			again := func(close bool) {
				t.Helper()
				if close {
					n.close()
				} else {
					n.kill()
				}
				n = w.mustStart(t)
				v = n.open(id)
			}

			mustReserve(t, v, "a")
			again(false) // from the journal
			n.wantHeld(v, "a")
			n.kill()
			n = w.mustStart(t)
			v = n.open(id) // the head of that opening has it not yet, or has it
			n.wantHeld(v, "a")

			if err := v.Commit(ctx); err != nil {
				t.Fatal(err)
			}
			if v.up.committed.Load() != v.lastSeq.Load() || v.uncommitted.Load() != 0 {
				t.Fatal("the journal was not released")
			}
			again(false) // from the head
			n.wantHeld(v, "a")

			mustReserve(t, v, strings.Repeat("b", MaxReservation))
			mustReserve(t, v, "c")
			if err := v.WriteAt(ctx, make([]byte, cluster), 0); err != nil {
				t.Fatal(err)
			}
			again(true) // clean close, nothing in the journal
			n.wantHeld(v, "c")

			mustReserve(t, v, "d") // a clean head, the backend alone
			n.close()
			w.fs, w.reg = blockfs.NewMem(), newMemRegistry()
			n = w.mustStart(t)
			found, err := n.pool.Recover(ctx)
			if err != nil || len(found) != 1 || !found[0].Clean {
				t.Fatalf("%+v, %v", found, err)
			}
			v = n.open(id)
			n.wantHeld(v, "d")

			mustReserve(t, v, "") // nothing is a state like any other
			n.wantHeld(v, "")
			again(false)
			n.wantHeld(v, "")
			again(true)
			n.wantHeld(v, "")
			if h := v.up.head; h.Reservation != nil {
				t.Fatalf("head holds %q", h.Reservation)
			}
			n.close()
		})
	}
}

// TestReservationOrder: a state that is replaced while its batch is uploading is
// not in the head of that batch's seqs in place of the right one, and never comes
// back (V7).
func TestReservationOrder(t *testing.T) {
	ctx := context.Background()
	w := newWorld(4)
	var gate *gatedStore
	w.wrapStore = func(s backend.Store) (backend.Store, error) {
		gate = &gatedStore{Store: s, open: make(chan struct{}), put: make(chan string, 100)}
		return gate, nil
	}
	id := testID(2)
	n := w.mustStart(t)
	n.create(id, 4<<20)
	v := n.open(id)
	mustReserve(t, v, "old")
	gate.shut()
	done := make(chan error, 1)
	go func() { done <- v.Commit(ctx) }()
	for name := range gate.put {
		if strings.Contains(name, scoDir) {
			break
		}
	}
	mustReserve(t, v, "new") // in the batch after the one that is uploading
	close(gate.open)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := string(v.up.head.Reservation); got != "old" || v.up.head.LastSeq != 1 {
		t.Fatalf("head up to seq %d holds %q", v.up.head.LastSeq, got)
	}
	n.wantHeld(v, "new")
	n.kill()
	n = w.mustStart(t)
	v = n.open(id)
	n.wantHeld(v, "new")
	n.close()
}

// gatedStore holds PUTs back once it is shut, and tells of them.
type gatedStore struct {
	backend.Store
	open   chan struct{}
	closed atomic.Bool
	put    chan string
}

func (g *gatedStore) shut() { g.closed.Store(true) }

func (g *gatedStore) Put(ctx context.Context, name string, b []byte) error {
	if g.closed.Load() {
		select {
		case g.put <- name:
		default:
		}
		select {
		case <-g.open:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return g.Store.Put(ctx, name, b)
}

// TestReservationRefused: what cannot be stored changes nothing.
func TestReservationRefused(t *testing.T) {
	ctx := context.Background()
	w := newWorld(5)
	id := testID(3)
	n := w.mustStart(t)
	n.create(id, 1<<20)
	v := n.open(id)
	mustReserve(t, v, "kept")
	for name, r := range map[string]*Request{
		"too long": {Kind: ReqReserve, Data: make([]byte, MaxReservation+1)},
		"offset":   {Kind: ReqReserve, Offset: 4096},
		"length":   {Kind: ReqReserve, Length: 4096},
		"unknown":  {Kind: ReqReserve + 1},
	} {
		ch := make(chan struct{}, 1)
		r.Done = syncDone{ch}
		v.Submit(r)
		<-ch
		if !errors.Is(r.Err, ErrInvalid) {
			t.Errorf("%s: %v", name, r.Err)
		}
	}
	n.wantHeld(v, "kept")
	n.close()
	if err := v.Reserve(ctx, []byte("late")); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if got := v.Reservation(); !bytes.Equal(got, []byte("kept")) {
		t.Errorf("%q", got)
	}
}

// TestReservationStalled: without room in the journal the change fails, and the old
// state stays, here and after a restart.
func TestReservationStalled(t *testing.T) {
	ctx := context.Background()
	w := newWorld(6)
	w.settings.StallTimeout = time.Second
	w.opts.JournalBytes, w.opts.ChunkBytes = 2<<20, 1<<20
	var gate *gatedStore
	w.wrapStore = func(s backend.Store) (backend.Store, error) {
		gate = &gatedStore{Store: s, open: make(chan struct{}), put: make(chan string, 100)}
		return gate, nil
	}
	id := testID(4)
	n := w.mustStart(t)
	n.create(id, 4<<20)
	v := n.open(id)
	mustReserve(t, v, "kept")
	gate.shut()
	var err error
	for i := int64(0); err == nil && i < 100; i++ {
		err = v.WriteAt(ctx, make([]byte, 64<<10), 0)
	}
	if !errors.Is(err, ErrStalled) {
		t.Fatal(err)
	}
	err = v.Reserve(ctx, make([]byte, MaxReservation))
	if !errors.Is(err, ErrStalled) {
		t.Fatal(err)
	}
	n.wantHeld(v, "kept")
	n.kill()
	gate = nil
	n = w.mustStart(t)
	v = n.open(id)
	n.wantHeld(v, "kept")
	close(gate.open)
	n.close()
}

// TestReservationAndHistory: the state is the vDisk's of now: a snapshot does not
// keep one, a rollback does not bring one back, a clone starts without.
func TestReservationAndHistory(t *testing.T) {
	ctx := context.Background()
	w := newWorld(7)
	id, clone := testID(5), testID(6)
	n := w.mustStart(t)
	n.create(id, 4<<20)
	v := n.open(id)
	mustReserve(t, v, "then")
	if _, err := v.Snapshot(ctx, SnapshotSpec{Name: "s"}); err != nil {
		t.Fatal(err)
	}
	mustReserve(t, v, "now")
	n.clone(clone, id, Point{Snapshot: "s"}, 0)
	n.wantHeld(n.open(clone), "")
	if err := v.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if err := n.pool.Volume(clone).Close(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := n.pool.Rollback(ctx, id, Point{Snapshot: "s"}); err != nil {
		t.Fatal(err)
	}
	n.wantHeld(n.open(id), "now")
	n.close()
}
