package volume

import (
	"bytes"
	"context"
	"testing"

	"github.com/openvstorage/ovgate/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// TestWriteReadRestart: data survive in the journal, on the backend, and both.
func TestWriteReadRestart(t *testing.T) {
	ctx := context.Background()
	w := newWorld(1)
	n := w.mustStart(t)
	id := testID(1)
	n.create(id, 64<<20)
	v := n.open(id)
	buf, got := make([]byte, 8192), make([]byte, 8192)
	fillBlock(buf, 5, 1)
	check := func(v *Volume, off int64) {
		t.Helper()
		if err := v.ReadAt(ctx, got, off); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, buf) {
			t.Fatalf("wrong content at %d", off)
		}
	}
	for _, off := range []int64{0, 4096, 1 << 20, 64<<20 - 8192, 12288 + 512} {
		if err := v.WriteAt(ctx, buf, off); err != nil {
			t.Fatal(err)
		}
		check(v, off)
	}
	if err := v.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if s := v.Stats(); s.CommittedSeq != s.LastSeq || s.LastSeq != 5 {
		t.Fatalf("stats %+v", s)
	}
	check(v, 1<<20)
	if err := v.WriteAt(ctx, buf, 2<<20); err != nil {
		t.Fatal(err)
	}
	n.kill()
	n = w.mustStart(t)
	v = n.open(id)
	for _, off := range []int64{1 << 20, 64<<20 - 8192, 12288 + 512, 2 << 20} {
		check(v, off)
	}
	if err := v.Unmap(ctx, 1<<20, 4096); err != nil {
		t.Fatal(err)
	}
	if err := v.ReadAt(ctx, got[:4096], 1<<20); err != nil || !bytes.Equal(got[:4096], make([]byte, 4096)) {
		t.Fatalf("unmapped range reads %v %x", err, got[:16])
	}
	n.close()
	n = w.mustStart(t)
	v = n.open(id)
	check(v, 2<<20)
	n.close()
}
