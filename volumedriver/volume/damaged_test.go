package volume

import (
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

// damagedReads is a store whose next reads find damage.
type damagedReads struct {
	backend.Store
	left *atomic.Int64
}

func (s damagedReads) ReadAt(ctx context.Context, name string, p []byte, off int64) error {
	if s.left.Add(-1) >= 0 {
		return fmt.Errorf("%w: %s", backend.ErrCorrupt, name)
	}
	return s.Store.ReadAt(ctx, name, p, off)
}

// TestDamageReadAgain: what an encrypted store finds damaged may have been damaged on the
// way, so it is read again; what stays damaged is a medium error.
func TestDamageReadAgain(t *testing.T) {
	var left atomic.Int64
	w := newWorld(92)
	w.opts.CacheBytes, w.opts.Clock = 1, fastClock{time.Now(), 100}
	w.wrapStore = func(s backend.Store) (backend.Store, error) { return damagedReads{s, &left}, nil }
	n := w.mustStart(t)
	defer n.kill()
	n.create(testID(1), 1<<20)
	v := n.open(testID(1))
	for i := range int64(8) {
		mustWrite(t, v, i*4096, uint32(i+1))
	}
	if err := v.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	v = n.open(testID(1))
	left.Store(maxReads - 1)
	wantVersion(t, v, 4096, 2)
	left.Store(maxReads - 1)
	n.wantWhole(testID(1))
	if n := left.Load(); n > 0 {
		t.Fatalf("the store was not read: %d damaged reads are left", n)
	}
	left.Store(1 << 20)
	if err := v.ReadAt(t.Context(), make([]byte, 4096), 2*4096); !errors.Is(err, ErrMedium) {
		t.Fatalf("a read of what stays damaged: %v", err)
	}
	if out := n.verify(testID(1)); out.BadClusters == 0 {
		t.Fatalf("a verification of what stays damaged: %+v", out)
	}
	left.Store(0)
}

// TestDeletedHeadLate: a put of a head arrives when everything of its vDisk was deleted. A
// recovery from the backend alone takes that for the vDisk, which cannot be read then; it
// is deleted like any other, and a sweep, which it held up, finds nothing more.
func TestDeletedHeadLate(t *testing.T) {
	ctx := context.Background()
	w := newWorld(93)
	n := w.mustStart(t)
	n.create(testID(1), 1<<20)
	v := n.open(testID(1))
	mustWrite(t, v, 0, 1)
	if err := v.Close(ctx); err != nil {
		t.Fatal(err)
	}
	late := n.headObjects(t, testID(1))
	if err := n.pool.Delete(ctx, testID(1)); err != nil {
		t.Fatal(err)
	}
	for name, b := range late {
		n.replace(t, name, b)
	}
	n.kill()
	w.fs, w.reg = blockfs.NewMem(), newMemRegistry()
	n = w.mustStart(t)
	defer n.kill()
	if got, err := n.pool.Recover(ctx); err != nil || len(got) != 1 {
		t.Fatalf("recovered %+v, %v", got, err)
	}
	if out, err := n.pool.Sweep(ctx, false); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), testID(1).String()) {
		t.Fatalf("sweep: %+v, %v", out, err)
	}
	if err := n.pool.Delete(ctx, testID(1)); err != nil {
		t.Fatal(err)
	}
	if out, err := n.pool.Sweep(ctx, false); err != nil || out.Objects+len(out.Quarantined) > 0 {
		t.Fatalf("sweep: %+v, %v", out, err)
	}
}

// busyPuts is a store whose next puts of heads are refused, for now.
type busyPuts struct {
	backend.Store
	left *atomic.Int64
}

func (s busyPuts) Put(ctx context.Context, name string, data []byte) error {
	if strings.Contains(name, headDir) && s.left.Add(-1) >= 0 {
		return errors.New("busy")
	}
	return s.Store.Put(ctx, name, data)
}

// TestCreateBusy: a store that is busy for a moment does not fail the creation of a vDisk;
// one that stays so is said to be away.
func TestCreateBusy(t *testing.T) {
	var left atomic.Int64
	w := newWorld(94)
	w.opts.Clock = fastClock{time.Now(), 100}
	w.wrapStore = func(s backend.Store) (backend.Store, error) { return busyPuts{s, &left}, nil }
	n := w.mustStart(t)
	defer n.kill()
	left.Store(maxReads - 1)
	n.create(testID(1), 1<<20)
	n.open(testID(1))
	left.Store(maxReads)
	if err := n.pool.Create(t.Context(), Spec{ID: testID(2), Name: "two", Size: 1 << 20}); !errors.Is(err, ErrBackend) || !strings.Contains(err.Error(), "busy") {
		t.Fatalf("%v", err)
	}
}
