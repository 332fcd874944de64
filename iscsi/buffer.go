package iscsi

import (
	"math/bits"
	"sync"
)

// Buffers come in powers of two from 4 KiB, the usual request, to 4 MiB, the
// largest transfer announced in VPD B0h.
const (
	minBufferShift = 12
	maxBufferShift = 22
)

// buffer is a pooled data buffer. Its content is what the last user left.
type buffer struct {
	b     []byte
	class int
}

// bufferPool holds free buffers by size class.
type bufferPool struct {
	classes [maxBufferShift - minBufferShift + 1]sync.Pool
}

func (p *bufferPool) init() {
	for i := range p.classes {
		p.classes[i].New = func() any {
			return &buffer{b: make([]byte, 1<<(minBufferShift+i)), class: i}
		}
	}
}

// bufferSize is the size of the buffer that get returns for n bytes.
func bufferSize(n int64) int64 { return 1 << max(bits.Len64(uint64(n-1)), minBufferShift) }

// get returns a buffer of at least n bytes; 0 < n <= 4 MiB.
func (p *bufferPool) get(n int) *buffer {
	class := max(bits.Len(uint(n-1))-minBufferShift, 0)
	return p.classes[class].Get().(*buffer)
}

func (p *bufferPool) put(b *buffer) { p.classes[b.class].Put(b) }
