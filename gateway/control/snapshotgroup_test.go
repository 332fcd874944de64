package control

import (
	"context"
	"testing"

	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// wholePart brings a part to rest, and has it go on; again, when a busy machine took longer
// for that than the vDisks wait.
func (b *bench) wholePart(p GroupPart, at func()) ([]GroupMember, error) {
	for try := 0; ; try++ {
		if err := b.RestGroup(b.t.Context(), p); err != nil {
			return nil, err
		}
		at()
		made, err := b.GoGroup(b.t.Context(), p.Snapshot.ID)
		if e, ok := err.(*Error); !ok || e.Code != CodeTimeout || try == 20 {
			return made, err
		}
		if err := b.UndoGroup(b.t.Context(), p.Snapshot.ID); err != nil {
			return nil, err
		}
	}
}

// TestGroupPart: vDisks are at rest for a group that another node leads until it goes on, gives
// up, or is not heard of; what was made is undone.
func TestGroupPart(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, t.TempDir(), &place{})
	b.gold(t.TempDir())
	one, two := b.disk("one"), b.disk("two")
	ids := []string{two.ID, one.ID}
	part := func(n byte, name string) GroupPart {
		return GroupPart{Snapshot: volume.SnapshotSpec{ID: volume.ID{15: n}, Name: name}, VDisks: ids, Size: 3}
	}
	has := func(want ...string) {
		t.Helper()
		for _, v := range []string{"one", "two"} {
			all, err := b.Snapshots(ctx, v)
			if err != nil || len(all) != len(want) {
				t.Fatalf("%s: %d snapshots, want %d: %v", v, len(all), len(want), err)
			}
			for i, s := range all {
				if s.Name != want[i] || s.Group != 3 {
					t.Errorf("%s: %+v", v, s)
				}
			}
		}
	}
	write := func() {
		t.Helper()
		for _, id := range ids {
			if err := b.volume(id).WriteAt(ctx, filled(1), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Writes wait while they are at rest.
	p := part(1, "made")
	made, err := b.wholePart(p, func() {
		wantCode(t, b.RestGroup(ctx, p), CodeExists)
	})
	if err != nil || len(made) != 2 {
		t.Fatalf("%+v, %v", made, err)
	}
	write()
	has("made")
	// Repeated, it answers the same.
	if again, err := b.GoGroup(ctx, p.Snapshot.ID); err != nil || len(again) != 2 || again[0].Snapshot.Seq != made[0].Snapshot.Seq {
		t.Errorf("%+v, %v", again, err)
	}
	for range 2 {
		if err := b.UndoGroup(ctx, p.Snapshot.ID); err != nil {
			t.Fatal(err)
		}
		has()
	}
	wantCode(t, second(b.GoGroup(ctx, p.Snapshot.ID)), CodeNotFound)
	// Given up while they are at rest.
	p = part(2, "undone")
	if err := b.RestGroup(ctx, p); err != nil {
		t.Fatal(err)
	}
	if err := b.UndoGroup(ctx, p.Snapshot.ID); err != nil {
		t.Fatal(err)
	}
	write()
	has()
	// The leader is not heard of any more.
	p = part(3, "late")
	if err := b.RestGroup(ctx, p); err != nil {
		t.Fatal(err)
	}
	write() // after two seconds
	wantCode(t, second(b.GoGroup(ctx, p.Snapshot.ID)), CodeTimeout)
	has()
	// The leader goes away while they come to rest.
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if err := b.RestGroup(gone, part(4, "gone")); err == nil {
		if err := b.UndoGroup(ctx, volume.ID{15: 4}); err != nil { // they were faster
			t.Fatal(err)
		}
	}
	write()
	has()
	// Refused.
	wantCode(t, b.RestGroup(ctx, GroupPart{Snapshot: p.Snapshot, VDisks: []string{"nobody"}, Size: 1}), CodeNotFound)
	bad := part(5, "")
	wantCode(t, b.RestGroup(ctx, bad), CodeInvalid)
	has()
	// What is over is forgotten when there is too much of it, and what is not is not.
	b.mu.Lock()
	for i := range maxParts {
		over := &groupPart{began: b.clk.Now(), done: make(chan struct{})}
		if i == 7 {
			close(over.done)
		}
		b.parts[volume.ID{0: 1, 1: byte(i), 2: byte(i >> 8)}] = over
	}
	delete(b.parts, p.Snapshot.ID)
	b.mu.Unlock()
	for i, want := range []Code{"", CodeInUse} {
		err := b.addPart(volume.ID{15: byte(6 + i)}, &groupPart{began: b.clk.Now(), done: make(chan struct{})})
		if want != "" {
			wantCode(t, err, want)
		} else if err != nil {
			t.Fatal(err)
		} else {
			b.wg.Done()
		}
	}
}
