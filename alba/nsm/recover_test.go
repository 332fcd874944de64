package nsm_test

import (
	"errors"
	"testing"

	"github.com/openvstorage/ovgate/alba/layout"
	"github.com/openvstorage/ovgate/alba/nsm"
)

// Recovery begins where records are lost, and nowhere else.
func TestBeginRecovery(t *testing.T) {
	for name, tt := range map[string]struct {
		before func(w *world)
		id     uint64
		want   error
		state  nsm.State
	}{
		"absent":       {id: 9, state: nsm.Recovering},
		"empty":        {id: ns, state: nsm.Recovering},
		"another name": {id: ns, want: nsm.ErrInvalid, state: nsm.Active},
		"with objects": {id: ns, want: nsm.ErrExists, state: nsm.Active, before: func(w *world) { must(t, w.apply(nsm.Change{Put: object(1, "a", 1)})) }},
		"removing":     {id: ns, want: nsm.ErrRemoving, state: nsm.Removing, before: func(w *world) { must(t, w.BeginRemoval(t.Context(), ns, false)) }},
		"with garbage": {id: ns, state: nsm.Recovering, before: func(w *world) {
			must(t, w.apply(nsm.Change{Put: object(1, "a", 1)}))
			must(t, w.apply(nsm.Change{Delete: "a"}))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if tt.before != nil {
				tt.before(w)
			}
			as := "ns"
			if name == "another name" {
				as = "other"
			}
			for range 2 { // it can be repeated
				n, err := w.BeginRecovery(t.Context(), tt.id, as, stored)
				if !errors.Is(err, tt.want) || tt.want == nil && (err != nil || n.State != nsm.Recovering) {
					t.Fatalf("%+v, %v, want %v", n, err, tt.want)
				}
			}
			if n, err := w.Namespace(t.Context(), tt.id); err != nil || n.State != tt.state {
				t.Fatalf("%+v, %v", n, err)
			}
			if tt.want == nil {
				if g, err := w.ListGarbage(t.Context(), nil, 10); err != nil || len(g) != 0 {
					t.Fatalf("garbage that may be what is left: %+v, %v", g, err)
				}
				if err := w.BeginRemoval(t.Context(), tt.id, true); !errors.Is(err, nsm.ErrRecovering) {
					t.Fatalf("removal as empty: %v", err)
				}
				must(t, w.BeginRemoval(t.Context(), tt.id, false))
			}
		})
	}
}

// Of objects of one name the newest is what stays, in whatever order they come.
func TestRestore(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	n, err := w.BeginRecovery(ctx, ns, "ns", stored)
	must(t, err)
	restore := func(m *layout.Manifest) bool {
		t.Helper()
		there, err := w.Restore(ctx, n, m)
		must(t, err)
		return there
	}
	work := func() int {
		list, _, err := w.ListWork(ctx, nil, 10)
		must(t, err)
		return len(list)
	}
	tie := object(3, "a", 1)
	tie.Object[0] = 0 // as old as the third, with a smaller id
	for i, step := range []struct {
		m     *layout.Manifest
		there bool
		work  int
	}{
		{object(2, "a", 1, 1), true, 1},
		{object(1, "a", 1), false, 1},
		{object(2, "a", 1, 1), true, 1},
		{object(2, "a", 1), true, 0}, // a device came back
		{object(2, "a", 1, 0), true, 0},
		{object(3, "a", 1, 2), true, 1},
		{tie, false, 1},
		{object(2, "a", 1), false, 1},
		{object(4, "a", 1), true, 0},
	} {
		if got := restore(step.m); got != step.there || work() != step.work {
			t.Fatalf("step %d: %v, work %d", i, got, work())
		}
	}
	if m := w.get("a"); m.Object != object(4, "a", 1).Object {
		t.Fatalf("%+v", m)
	}
	bad := object(5, "b", 1)
	bad.ChunkBytes = 0
	if _, err := w.Restore(ctx, n, bad); !errors.Is(err, nsm.ErrInvalid) {
		t.Fatalf("%v", err)
	}
	if n, err = w.EndRecovery(ctx, ns, 41); err != nil || n.State != nsm.Active || n.EpochMin != 42 || n.EpochMax != 42 {
		t.Fatalf("%+v, %v", n, err)
	}
	if n, err = w.EndRecovery(ctx, ns, 50); err != nil || n.EpochMin != 42 {
		t.Fatalf("again: %+v, %v", n, err)
	}
	if _, err := w.Restore(ctx, n, object(6, "c", 1)); !errors.Is(err, nsm.ErrInvalid) {
		t.Fatalf("restored into an active namespace: %v", err)
	}
	if err := w.apply(nsm.Change{Put: object(7, "d", 1)}); !errors.Is(err, nsm.ErrEpoch) {
		t.Fatalf("a put that began before the loss: %v", err)
	}
}
