package fragment

import (
	"errors"
	"fmt"
	"sync"

	"github.com/klauspost/reedsolomon"

	"github.com/openvstorage/ovgate/alba/osd"
)

const (
	// MaxData bounds k.
	MaxData = 32
	// MaxParity bounds m.
	MaxParity = 16
	// shardAlign is the multiple of shard sizes: the width of the widest vector
	// instructions, so that no shard ends in a slow tail.
	shardAlign = 64
)

// Code is a systematic Reed-Solomon code over GF(2^8) (polynomial 0x11d, the
// Vandermonde matrix made systematic): any k of k+m shards give all. With k = 1
// all shards are copies. Safe for concurrent use; it uses the caller's goroutine.
type Code struct {
	k, m    int
	rs      reedsolomon.Encoder // nil when nothing is to be computed: k = 1 or m = 0
	stripes sync.Pool           // *Stripe
}

// codes holds the codes made so far. Building a matrix is slow and a Code
// caches inverted ones; there are at most MaxData*(MaxParity+1).
var codes sync.Map // [2]int -> *Code

// NewCode returns the code with k data (1 to MaxData) and m parity (0 to
// MaxParity) shards, the same for the same numbers. ErrInvalid.
func NewCode(k, m int) (*Code, error) {
	if k < 1 || k > MaxData || m < 0 || m > MaxParity {
		return nil, fmt.Errorf("%w: code %d+%d: k is 1 to %d, m 0 to %d", ErrInvalid, k, m, MaxData, MaxParity)
	}
	if c, ok := codes.Load([2]int{k, m}); ok {
		return c.(*Code), nil
	}
	c := &Code{k: k, m: m}
	if k > 1 && m > 0 {
		var err error
		// Chunks are coded side by side; splitting one over goroutines would
		// only add their start to each.
		if c.rs, err = reedsolomon.New(k, m, reedsolomon.WithMaxGoroutines(1)); err != nil {
			return nil, fmt.Errorf("fragment: code %d+%d: %w", k, m, err)
		}
	}
	got, _ := codes.LoadOrStore([2]int{k, m}, c)
	return got.(*Code), nil
}

// String is "k+m".
func (c *Code) String() string { return fmt.Sprintf("%d+%d", c.k, c.m) }

// Data returns k.
func (c *Code) Data() int { return c.k }

// Total returns k+m.
func (c *Code) Total() int { return c.k + c.m }

// Distinct returns how many shards have to be packed: 1 when all are copies,
// otherwise k+m.
func (c *Code) Distinct() int {
	if c.k == 1 {
		return 1
	}
	return c.k + c.m
}

// ShardBytes returns the size of the shards of a chunk of n bytes: ceil(n/k),
// rounded up to a multiple of 64. Data shard i has the chunk's bytes from
// i*ShardBytes. 0 when n is not positive.
func (c *Code) ShardBytes(n int) int {
	if n <= 0 {
		return 0
	}
	per := (n-1)/c.k + 1
	return (per-1)/shardAlign*shardAlign + shardAlign
}

// Stripe is a chunk as its k+m shards.
type Stripe struct {
	// Shards are equally long. Data shards that lie in the chunk as a whole are
	// parts of it; the others belong to the stripe, until Release. Do not change them.
	Shards [][]byte
	code   *Code
	chunk  int // its bytes
	size   PieceSize
	buf    []byte
	// sums are the crc32c of the pieces of each distinct shard.
	sums   [][]uint32
	column [][]byte // the memory of encode
}

// CRC returns the crc32c of the chunk.
func (s *Stripe) CRC() uint32 {
	var crc uint32
	size := len(s.Shards[0])
	for _, sums := range s.sums[:s.code.k] {
		crc = osd.ConcatCRC(crc, rawIndex(size, s.size, sums).CRC(), int64(size))
	}
	return osd.CutZerosCRC(crc, int64(s.code.k*size-s.chunk))
}

// Pack is Pack of shard i in the stripe's pieces, whose checksums are known where it is
// stored as it is.
func (s *Stripe) Pack(dst []byte, id ID, i int, comp Compression, key *Key) (stored []byte, idx Index, err error) {
	if comp == None && key == nil {
		return s.Shards[i], rawIndex(len(s.Shards[i]), s.size, s.sums[min(i, len(s.sums)-1)]), nil
	}
	return Pack(dst, id, s.Shards[i], comp, s.size, key)
}

// encode computes parity and checksums, 64 KiB of each shard at a time: what the
// one reads and writes the other finds in the cache.
func (s *Stripe) encode() error {
	c, size := s.code, len(s.Shards[0])
	n, distinct := s.size.Pieces(size), c.Distinct()
	sums := make([]uint32, n*distinct) // indexes keep them
	s.sums = s.sums[:0]
	for i := range distinct {
		s.sums = append(s.sums, sums[i*n:(i+1)*n:(i+1)*n])
	}
	for from := 0; from < size; from += PieceBytes {
		to := min(from+PieceBytes, size)
		s.column = s.column[:0]
		for _, shard := range s.Shards {
			s.column = append(s.column, shard[from:to])
		}
		if c.rs != nil {
			if err := c.rs.Encode(s.column); err != nil {
				return fmt.Errorf("fragment: code %v: %w", c, err)
			}
		}
		for j := range distinct {
			for at := from; at < to; at += s.size.Bytes() {
				s.sums[j][at/s.size.Bytes()] = crcOf(s.Shards[j][at:min(at+s.size.Bytes(), to)])
			}
		}
	}
	return nil
}

// Release gives the stripe's buffers to later calls of Split. Nothing made of
// the shards without copying (Pack of raw pieces) may be used after it. A stripe
// that is not released is left to the garbage collector.
func (s *Stripe) Release() {
	c := s.code
	if c == nil {
		return
	}
	clear(s.Shards) // the chunk is not ours to keep alive
	clear(s.column)
	clear(s.sums)
	s.Shards, s.code = s.Shards[:0], nil
	c.stripes.Put(s)
}

// Split cuts chunk into shards and computes the parity and the checksums of the
// pieces of both. The chunk must not change while the stripe is used. ErrInvalid: it
// is empty, or its shards would be larger than MaxShardBytes.
func (c *Code) Split(chunk []byte, pieces PieceSize) (*Stripe, error) {
	if !pieces.valid() {
		return nil, fmt.Errorf("%w: %v", ErrInvalid, pieces)
	}
	if len(chunk) == 0 || len(chunk) > c.k*MaxShardBytes {
		return nil, fmt.Errorf("%w: chunk of %d bytes, 1 to %d are allowed for code %v", ErrInvalid, len(chunk), c.k*MaxShardBytes, c)
	}
	size := c.ShardBytes(len(chunk))
	whole := min(len(chunk)/size, c.k)
	s, _ := c.stripes.Get().(*Stripe)
	if s == nil {
		s = &Stripe{Shards: make([][]byte, 0, c.k+c.m)}
	}
	s.code, s.chunk, s.size = c, len(chunk), pieces
	own := c.Distinct() - whole
	if cap(s.buf) < own*size {
		s.buf = make([]byte, own*size)
	}
	buf := s.buf[:own*size]
	for i := range whole {
		s.Shards = append(s.Shards, chunk[i*size:(i+1)*size:(i+1)*size])
	}
	for i := whole; i < c.Distinct(); i++ {
		var shard []byte
		shard, buf = buf[:size:size], buf[size:]
		if i < c.k {
			n := copy(shard, chunk[min(i*size, len(chunk)):])
			clear(shard[n:])
		}
		s.Shards = append(s.Shards, shard)
	}
	for len(s.Shards) < c.k+c.m {
		s.Shards = append(s.Shards, s.Shards[0])
	}
	if err := s.encode(); err != nil {
		return nil, err
	}
	return s, nil
}

// Join copies the data shards into chunk, which has the size of the chunk that
// was split. ErrInvalid: a data shard is missing or of another size.
func (c *Code) Join(chunk []byte, shards [][]byte) error {
	size := c.ShardBytes(len(chunk))
	if len(shards) < c.k {
		return fmt.Errorf("%w: %d shards, %d needed", ErrInvalid, len(shards), c.k)
	}
	for i := 0; i*size < len(chunk); i++ {
		if len(shards[i]) != size {
			return fmt.Errorf("%w: shard %d has %d bytes, not %d", ErrInvalid, i, len(shards[i]), size)
		}
		copy(chunk[i*size:], shards[i])
	}
	return nil
}

// Reconstruct fills in the missing shards that are wanted. shards has k+m
// entries, the missing ones with length 0, the others equally long: whole
// shards, or the same range of each (F6). A missing entry is filled in place when
// its capacity allows, and allocated otherwise. want has k+m entries; nil means
// all. ErrTooFew, ErrInvalid.
func (c *Code) Reconstruct(shards [][]byte, want []bool) error {
	size, err := c.check(shards, true)
	if err != nil {
		return err
	}
	if want != nil && len(want) != c.k+c.m {
		return fmt.Errorf("%w: %d shards wanted or not, %d expected", ErrInvalid, len(want), c.k+c.m)
	}
	present, missing := 0, 0
	var first []byte
	for i, s := range shards {
		switch {
		case len(s) > 0:
			if present++; first == nil {
				first = s
			}
		case want == nil || want[i]:
			missing++
		}
	}
	switch {
	case missing == 0:
		return nil
	case present < c.k:
		return fmt.Errorf("%w: %d are there, code %v needs %d", ErrTooFew, present, c, c.k)
	case c.k == 1:
		for i, s := range shards {
			if len(s) == 0 && (want == nil || want[i]) {
				shards[i] = append(s, first[:size]...)
			}
		}
		return nil
	}
	if want == nil {
		err = c.rs.Reconstruct(shards)
	} else {
		err = c.rs.ReconstructSome(shards, want)
	}
	if errors.Is(err, reedsolomon.ErrTooFewShards) {
		return fmt.Errorf("%w: code %v", ErrTooFew, c)
	}
	return err
}

// Verify tells whether the parity shards fit the data shards; all k+m are there
// and equally long. ErrInvalid.
func (c *Code) Verify(shards [][]byte) (bool, error) {
	if _, err := c.check(shards, false); err != nil {
		return false, err
	}
	if c.k == 1 {
		for _, s := range shards[1:] {
			if string(s) != string(shards[0]) {
				return false, nil
			}
		}
		return true, nil
	}
	if c.rs == nil {
		return true, nil
	}
	return c.rs.Verify(shards)
}

// check returns the size of the shards that are there.
func (c *Code) check(shards [][]byte, holes bool) (size int, err error) {
	if len(shards) != c.k+c.m {
		return 0, fmt.Errorf("%w: %d shards, code %v has %d", ErrInvalid, len(shards), c, c.k+c.m)
	}
	for i, s := range shards {
		if len(s) == 0 && holes {
			continue
		}
		if size == 0 {
			size = len(s)
		}
		if len(s) != size || size == 0 {
			return 0, fmt.Errorf("%w: shard %d has %d bytes, not %d", ErrInvalid, i, len(s), size)
		}
	}
	return size, nil
}
