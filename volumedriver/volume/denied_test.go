package volume

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/openvstorage/ovgate/volumedriver/backend"
)

// keeping is a store that may deny deletes.
type keeping struct {
	backend.Store
	deny    *atomic.Bool
	refused *atomic.Int64
}

func (s keeping) Delete(ctx context.Context, name string) error {
	if s.deny.Load() {
		s.refused.Add(1)
		return fmt.Errorf("object %s: %w", name, backend.ErrDenied)
	}
	return s.Store.Delete(ctx, name)
}

// Where nothing can be deleted, commits go on with one try each, and a head does not
// grow without end; what is condemned goes when the right is back.
func TestDeletesDenied(t *testing.T) {
	if testing.Short() {
		t.Skip("a thousand commits, one after the other, which beside each other are in TestModel")
	}
	const commits = maxStale + 50
	w := newWorld(91)
	s := keeping{deny: new(atomic.Bool), refused: new(atomic.Int64)}
	w.wrapStore = func(below backend.Store) (backend.Store, error) {
		s.Store = below
		return s, nil
	}
	n := w.mustStart(t)
	id := testID(1)
	n.create(id, 1<<20)
	v := n.open(id)
	heads := func() int {
		l, err := n.pool.heads(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return len(l)
	}
	commit := func(ver uint32) {
		t.Helper()
		mustWrite(t, v, int64(ver%16)*4096, ver)
		if err := v.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	commit(1)
	s.deny.Store(true)
	for i := range uint32(commits) {
		commit(2 + i)
	}
	if got := s.refused.Load(); got > commits+10 {
		t.Errorf("%d deletes were tried for %d commits", got, commits)
	}
	if got := len(v.committedState.Load().head.Condemned); got > maxStale+10 {
		t.Errorf("the head condemns %d objects", got)
	}
	if got := heads(); got < commits {
		t.Errorf("%d heads are left of %d", got, commits)
	}
	s.deny.Store(false)
	commit(1)
	commit(2)
	if got := heads(); got > commits-maxStale+100 {
		t.Errorf("%d heads are left although they may be deleted", got)
	}
	// The others are found by the next opening.
	if err := v.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	v = n.open(id)
	commit(3)
	commit(4)
	if got := heads(); got > 3 {
		t.Errorf("%d heads are left in the end", got)
	}
	n.close()
}
