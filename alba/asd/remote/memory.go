package remote

import (
	"container/list"
	"context"
	"fmt"
	"math/bits"
	"sync"

	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/internal/blockfs"
)

// budget lends bytes, first come, first served (R6).
type budget struct {
	mu      sync.Mutex
	total   int64
	used    int64
	waiting list.List // of *claim
}

type claim struct {
	n     int64
	ready chan struct{}
}

// take waits for n bytes; the caller gives them back.
func (b *budget) take(ctx context.Context, n int64) error {
	b.mu.Lock()
	if n > b.total {
		b.mu.Unlock()
		return fmt.Errorf("%w: it takes %d bytes of memory, the server has %d: ask for less, or raise its memory", osd.ErrInvalid, n, b.total)
	}
	if b.waiting.Len() == 0 && b.used+n <= b.total {
		b.used += n
		b.mu.Unlock()
		return nil
	}
	c := &claim{n: n, ready: make(chan struct{})}
	e := b.waiting.PushBack(c)
	b.mu.Unlock()
	select {
	case <-c.ready:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-c.ready: // both happened
		b.used -= n
	default:
		b.waiting.Remove(e)
	}
	b.serve() // those behind may fit
	return ctx.Err()
}

func (b *budget) give(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
	b.serve()
}

// serve lends to those that wait, in order; the lock is held.
func (b *budget) serve() {
	for e := b.waiting.Front(); e != nil; e = b.waiting.Front() {
		c := e.Value.(*claim)
		if b.used+c.n > b.total {
			return
		}
		b.used += c.n
		b.waiting.Remove(e)
		close(c.ready)
	}
}

func (b *budget) inUse() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// classes is enough for osd.MaxApplyBytes with its padding (class).
const classes = 64

// pool keeps aligned buffers for the next request. Sizes go in quarters of powers
// of two, so that at most a fifth of a buffer is not asked for.
type pool struct {
	free [classes]sync.Pool // of *buffer
}

type buffer struct {
	b     []byte // all of it; its address is a multiple of 4 KiB
	class int
}

// class returns the pool's index and the size of buffers for n bytes.
func class(n int) (index, size int) {
	if n <= blockfs.Alignment {
		return 0, blockfs.Alignment
	}
	k := bits.Len(uint(n - 1)) // 2^(k-1) < n <= 2^k, k >= 13
	base := 1 << (k - 1)
	step := max(base/4, blockfs.Alignment)
	q := (n - base + step - 1) / step
	return (k-13)*4 + q, base + q*step
}

// get returns a buffer of at least n bytes, of any content.
func (p *pool) get(n int) *buffer {
	i, size := class(n)
	if b, ok := p.free[i].Get().(*buffer); ok {
		return b
	}
	return &buffer{b: blockfs.AlignedBuffer(size), class: i}
}

func (p *pool) put(b *buffer) { p.free[b.class].Put(b) }

// place returns where in a buffer values of these sizes lie (R8), appended to
// offsets, and how large the buffer must be.
func place(offsets, sizes []int) ([]int, int) {
	end := 0
	for _, n := range sizes {
		if n >= DirectBytes {
			end = (end + blockfs.Alignment - 1) &^ (blockfs.Alignment - 1)
		}
		offsets = append(offsets, end)
		end += n
	}
	return offsets, end
}
