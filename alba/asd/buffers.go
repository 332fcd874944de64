package asd

import (
	"context"

	"github.com/openvstorage/ovgate/internal/blockfs"
)

const (
	// pieceBytes is what one transfer moves at most: enough for a disk's
	// sequential speed, little enough that the look at ctx between two is soon.
	// It is whole blocks, so that pieces are verified one by one.
	pieceBytes = 1 << 20
	// smallBytes is the size of the buffers for small values.
	smallBytes = 64 << 10
	// largeBuffers and smallBuffers bound the memory of a device for transfers,
	// 7 MiB, and with it how many are under way.
	largeBuffers = 6
	smallBuffers = 16
)

// pool holds a bounded number of aligned buffers, each made when it is first
// needed.
type pool struct {
	size  int
	slots chan []byte
}

func newPool(size, n int) *pool {
	p := &pool{size: size, slots: make(chan []byte, n)}
	for range n {
		p.slots <- nil
	}
	return p
}

// get waits for a buffer, which must be put back.
func (p *pool) get(ctx context.Context) ([]byte, error) {
	select {
	case b := <-p.slots:
		if b == nil {
			b = blockfs.AlignedBuffer(p.size)
		}
		return b, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pool) put(b []byte) { p.slots <- b }

// pools are the buffers of a device.
type pools struct{ small, large *pool }

func newPools() pools {
	return pools{newPool(smallBytes, smallBuffers), newPool(pieceBytes, largeBuffers)}
}

// of returns the pool for n bytes.
func (p pools) of(n int) *pool {
	if n <= smallBytes {
		return p.small
	}
	return p.large
}
