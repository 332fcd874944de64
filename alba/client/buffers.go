package client

import (
	"math/bits"
	"sync"
)

// buffers keeps what fragments are read into for later reads: a new one would be
// cleared first, and as large as a fragment that costs more than decrypting it.
// Sizes go in quarters of powers of two, so that a fifth is wasted at most.
type buffers struct {
	pools [4 * bits.UintSize]sync.Pool // of *buffer
}

// buffer is n bytes of a pool, of any content.
type buffer struct {
	b     []byte
	class int
}

// bufferClass returns the place of n > 0 bytes among the pools, and the size there.
func bufferClass(n int) (class, size int) {
	const smallest = 4 << 10
	if n <= smallest {
		return 0, smallest
	}
	k := bits.Len(uint(n - 1)) // 2^(k-1) < n <= 2^k
	base, step := 1<<(k-1), 1<<(k-3)
	q := (n - base + step - 1) / step // 1 to 4
	return 4*k + q - 4, base + q*step
}

// get returns a buffer whose b has n bytes.
func (p *buffers) get(n int) *buffer {
	if n == 0 {
		return &buffer{class: -1}
	}
	class, size := bufferClass(n)
	b, _ := p.pools[class].Get().(*buffer)
	if b == nil {
		b = &buffer{b: make([]byte, size), class: class}
	}
	b.b = b.b[:n]
	return b
}

// put gives a buffer back that nobody uses any more; nil is none.
func (p *buffers) put(b *buffer) {
	if b != nil && b.class >= 0 {
		p.pools[b.class].Put(b)
	}
}
