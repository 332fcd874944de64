package remote

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/internal/blockfs"
)

// TestBuffers: buffers are aligned, large enough and little larger.
func TestBuffers(t *testing.T) {
	var p pool
	check := func(n int) {
		i, size := class(n)
		if size < n || i >= classes || n > blockfs.Alignment*4 && size > n+n/4+blockfs.Alignment {
			t.Fatalf("%d bytes: class %d of %d", n, i, size)
		}
		if j, again := class(size); j != i || again != size {
			t.Fatalf("%d bytes: class %d of %d, which is of class %d of %d", n, i, size, j, again)
		}
		if n > 1<<20 {
			return
		}
		b := p.get(n)
		if len(b.b) != size || !blockfs.Aligned(b.b) || b.class != i {
			t.Fatalf("buffer for %d bytes: %d, class %d", n, len(b.b), b.class)
		}
		p.put(b)
	}
	for _, n := range []int{0, 1, 4096, 4097, 8192, 8193, 1 << 20, osd.MaxValueBytes, osd.MaxApplyBytes, osd.MaxApplyBytes + osd.MaxApplyBytes/4} {
		check(n)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		check(r.IntN(osd.MaxApplyBytes))
	}
}

// TestBudget: in order, and what is given up is not lost.
func TestBudget(t *testing.T) {
	b := &budget{total: 10}
	ctx := t.Context()
	if err := b.take(ctx, 11); !errors.Is(err, osd.ErrInvalid) {
		t.Fatal(err)
	}
	if err := b.take(ctx, 6); err != nil {
		t.Fatal(err)
	}
	first, second := make(chan error, 1), make(chan error, 1)
	given, cancel := context.WithCancel(ctx)
	go func() { first <- b.take(given, 8) }()
	waiting := func(n int) {
		for {
			b.mu.Lock()
			got := b.waiting.Len()
			b.mu.Unlock()
			if got == n {
				return
			}
			runtime.Gosched()
		}
	}
	waiting(1)
	go func() { second <- b.take(ctx, 4) }() // would fit, but is behind
	waiting(2)
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := <-second; err != nil {
		t.Fatal(err)
	}
	b.give(6)
	b.give(4)
	if b.inUse() != 0 {
		t.Fatalf("%d in use", b.inUse())
	}
}
