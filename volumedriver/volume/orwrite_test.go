package volume

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
)

// TestOrWrite: ORs of any alignment change their range alone, and last a restart.
func TestOrWrite(t *testing.T) {
	w := newWorld(1)
	n := w.mustStart(t)
	defer n.kill()
	ctx := context.Background()
	const size = 24 << 12
	n.create(testID(1), size)
	v := n.open(testID(1))
	want := bytes.Repeat([]byte{0x0f}, size)
	if err := v.WriteAt(ctx, want[:size/2], 0); err != nil { // the other half holds nothing
		t.Fatal(err)
	}
	clear(want[size/2:])
	for i, r := range []struct{ off, n int64 }{
		{0, 512}, {512, 512}, {4096, 4096}, {4096 + 512, 8192}, {8192 - 512, 1024}, {3 * 4096, 10 * 4096},
		{size/2 - 512, 1024}, {size/2 + 4096, 4096}, {size - 512, 512}, {0, size},
	} {
		p := bytes.Repeat([]byte{1 << (i % 8)}, int(r.n))
		if err := v.do(ctx, ReqOrWrite, p, r.off, r.n); err != nil {
			t.Fatalf("%+v: %v", r, err)
		}
		for k := r.off; k < r.off+r.n; k++ {
			want[k] |= 1 << (i % 8)
		}
		got := make([]byte, size)
		if err := v.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%+v: %v, content is wrong", r, err)
		}
	}
	if err := v.Close(ctx); err != nil {
		t.Fatal(err)
	}
	v = n.open(testID(1))
	got := make([]byte, size)
	if err := v.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("after a restart: %v, or the content is wrong", err)
	}
	if err := v.do(ctx, ReqOrWrite, make([]byte, 1024), size-512, 1024); !errors.Is(err, ErrInvalid) {
		t.Errorf("beyond the end: %v", err)
	}
}

// TestOrWriteAtomic: ORs of one sector at the same time, mixed with compare-and-write
// of its neighbour in the same cluster, lose nothing.
func TestOrWriteAtomic(t *testing.T) {
	w := newWorld(2)
	n := w.mustStart(t)
	defer n.kill()
	ctx := context.Background()
	n.create(testID(1), 1<<20)
	v := n.open(testID(1))
	const writers = 64
	var wg sync.WaitGroup
	errs := make(chan error, 2*writers)
	for i := range writers {
		wg.Add(2)
		go func() {
			defer wg.Done()
			p := make([]byte, 512)
			p[i] = 0xff
			errs <- v.do(ctx, ReqOrWrite, p, 512, 512)
		}()
		go func() {
			defer wg.Done()
			old := bytes.Repeat([]byte{byte(i)}, 512) // of the previous one, perhaps
			err := v.do(ctx, ReqCompareAndWrite, append(old, bytes.Repeat([]byte{byte(i + 1)}, 512)...), 1024, 512)
			if err != nil && !errors.Is(err, ErrMiscompare) {
				errs <- err
			}
		}()
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	got := make([]byte, 512)
	if err := v.ReadAt(ctx, got, 512); err != nil {
		t.Fatal(err)
	}
	if want := append(bytes.Repeat([]byte{0xff}, writers), make([]byte, 512-writers)...); !bytes.Equal(got, want) {
		t.Errorf("bits are lost: % x", got[:writers])
	}
}
