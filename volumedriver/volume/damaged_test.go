package volume

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/internal/blockfs"
)

// TestRecoverDamagedHeads: a recovery is honest about heads that cannot be read. A
// vDisk with an older one has lost its tail, even if that one is clean; one without is
// named as an error; the others are recovered.
func TestRecoverDamagedHeads(t *testing.T) {
	ctx := context.Background()
	w := newWorld(91)
	n := w.mustStart(t)
	for i := byte(1); i <= 3; i++ {
		n.create(testID(i), 1<<20)
		v := n.open(testID(i))
		mustWrite(t, v, 0, uint32(i))
		if err := v.Close(ctx); err != nil {
			t.Fatal(err)
		}
	}
	// The head that the next commit of vDisk 1 supersedes is still there, as after a
	// crash right before its deletion.
	old := n.headObjects(t, testID(1))
	v := n.open(testID(1))
	mustWrite(t, v, 4096, 9)
	if err := v.Close(ctx); err != nil {
		t.Fatal(err)
	}
	for _, id := range []ID{testID(1), testID(2)} {
		for name, b := range n.headObjects(t, id) {
			b[len(b)/2] ^= 4
			n.replace(t, name, b)
		}
	}
	for name, b := range old {
		n.replace(t, name, b)
	}
	n.kill()
	w.fs, w.reg = blockfs.NewMem(), newMemRegistry()
	n = w.mustStart(t)
	defer n.kill()
	got, err := n.pool.Recover(ctx)
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), testID(2).String()) || strings.Contains(err.Error(), testID(1).String()) {
		t.Fatalf("error %v", err)
	}
	if len(got) != 2 || got[0].ID != testID(1) || got[0].Clean || got[1].ID != testID(3) || !got[1].Clean {
		t.Fatalf("recovered %+v", got)
	}
	if _, err := n.pool.Open(ctx, testID(1)); !errors.Is(err, ErrLostTail) {
		t.Fatalf("open of a vDisk whose newest head is damaged: %v", err)
	}
	wantVersion(t, n.open(testID(3)), 0, 3)
}

// headObjects returns the heads of a vDisk on the backend.
func (n *node) headObjects(t *testing.T, id ID) map[string][]byte {
	t.Helper()
	ctx := context.Background()
	refs, err := n.pool.heads(ctx, id)
	if err != nil || len(refs) == 0 {
		t.Fatalf("%d heads, %v", len(refs), err)
	}
	out := map[string][]byte{}
	for _, r := range refs {
		b, err := n.store.Get(ctx, headName(id, r), maxHeadBytes)
		if err != nil {
			t.Fatal(err)
		}
		out[headName(id, r)] = b
	}
	return out
}

// replace gives an object other bytes.
func (n *node) replace(t *testing.T, name string, b []byte) {
	t.Helper()
	ctx := context.Background()
	if err := n.store.Delete(ctx, name); err != nil {
		t.Fatal(err)
	}
	if err := n.store.Put(ctx, name, b); err != nil {
		t.Fatal(err)
	}
}
