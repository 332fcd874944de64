package volume

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/volumedriver/backend"
)

// TestSweep: what crashes left behind goes; what is needed, and what nobody knows,
// stays.
func TestSweep(t *testing.T) {
	ctx := context.Background()
	w := newWorld(11)
	n := w.mustStart(t)
	id, clone, stone := testID(1), testID(2), testID(3)
	n.create(id, 1<<20)
	n.create(stone, 1<<20)
	v := n.open(id)
	sv := n.open(stone)
	for _, d := range []*Volume{v, sv} {
		if err := d.WriteAt(ctx, versions(0, 64<<10, func(int64) uint32 { return 1 }), 0); err != nil {
			t.Fatal(err)
		}
		if err := d.Commit(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.pool.Clone(ctx, CloneSpec{ID: clone, Name: "c", Source: stone}); err != nil {
		t.Fatal(err)
	}
	if err := sv.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if err := n.pool.Delete(ctx, stone); err != nil { // a tombstone now
		t.Fatal(err)
	}
	before := v.this
	put := func(name string) {
		t.Helper()
		if err := n.store.Put(ctx, name, []byte("left behind")); err != nil {
			t.Fatal(err)
		}
	}
	there := func(name string) bool {
		_, err := n.store.Stat(ctx, name)
		if err != nil && !errors.Is(err, backend.ErrNotExist) {
			t.Fatal(err)
		}
		return err == nil
	}
	old := []string{scoName(id, before, movedNumbers+7), tlogName(id, before, 99), scoName(id, Opening{Epoch: 1, Nonce: 5}, 1)}
	for _, name := range old {
		put(name)
	}
	tomb := scoName(stone, Opening{Epoch: 1, Nonce: 7}, 5)
	put(tomb)
	if res, err := n.pool.Sweep(ctx, true); err != nil || res.Garbage != 1 || res.Doomed[0].Name != old[2] {
		t.Fatalf("of the opening that is in use only what is older may go: %+v %v", res, err)
	}
	if err := v.Close(ctx); err != nil {
		t.Fatal(err)
	}
	v = n.open(id)
	mine := scoName(id, v.this, movedNumbers+8)
	put(mine)
	unknown := "v/" + testID(9).String() + "/sco/00000001-00000001-00000001"
	put(unknown)
	res, err := n.pool.Sweep(ctx, true)
	if err != nil || res.Garbage != 3 || res.Deleted != 0 || len(res.Quarantined) != 1 || res.Quarantined[0] != testID(9).String() || res.VDisks != 3 {
		t.Fatalf("%+v %v", res, err)
	}
	if strange, err := n.pool.Strangers(ctx); err != nil || !slices.Equal(strange, []ID{testID(9)}) {
		t.Errorf("strangers %v, %v", strange, err)
	}
	for _, d := range res.Doomed {
		if d.Reason == "" || d.Bytes == 0 || !strings.Contains(d.Name, id.String()) {
			t.Errorf("%+v", d)
		}
	}
	// Whatever it cannot explain ends it before it deletes.
	for _, c := range []struct {
		name string
		is   error
	}{
		{"v/" + id.String() + "/sco/1", ErrCorrupt},
		{"v/" + id.String() + "/new/00000001-00000001-00000001", ErrCorrupt},
		{"v/" + id.String() + "/claim/x", ErrCorrupt},
		{"v/" + id.String() + "/head/00000001-1-00000001", ErrCorrupt},
		{"v/not-a-vdisk/x", ErrForeignRoot},
		{"somebody.else", ErrForeignRoot},
		{headName(id, HeadRef{Epoch: v.this.Epoch + 5, Number: 9, Nonce: 1}), ErrInUse},
	} {
		put(c.name)
		res, err := n.pool.Sweep(ctx, false)
		if !errors.Is(err, c.is) && !(c.is == ErrInUse && errors.Is(err, ErrInUse)) || !strings.Contains(err.Error(), c.name) && c.is != ErrInUse || res.Deleted != 0 {
			t.Errorf("%s: %+v %v", c.name, res, err)
		}
		if err := n.store.Delete(ctx, c.name); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range append(old, tomb, mine, unknown) {
		if !there(name) {
			t.Errorf("%s is gone", name)
		}
	}
	if res, err = n.pool.Sweep(ctx, false); err != nil || res.Deleted != 3 {
		t.Fatalf("%+v %v", res, err)
	}
	for _, name := range old {
		if there(name) {
			t.Errorf("%s is there", name)
		}
	}
	for _, name := range []string{tomb, mine, unknown} {
		if !there(name) {
			t.Errorf("%s is gone", name)
		}
	}
	have, err := readVersions(n.open(clone))
	if err != nil || have[0] != 1 || have[127] != 1 || have[128] != 0 {
		t.Errorf("the clone of the tombstone: %v", err)
	}
	// A log that cannot be read ends it too.
	st := v.committedState.Load()
	name := tlogName(id, epochTable(st.head.Epochs).ofTLog(1), 1)
	if err := n.store.Delete(ctx, name); err != nil {
		t.Fatal(err)
	}
	removeLocal := localTLog(id, 1)
	_ = n.host.o.FS.Remove(removeLocal)
	put(old[0])
	if _, err := n.pool.Sweep(ctx, false); !errors.Is(err, ErrCorrupt) || !there(old[0]) {
		t.Errorf("%v", err)
	}
	n.kill()
}
