package fragment

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
)

// allSizes runs f for pieces of each size, compressed or not, encrypted or not.
func allSizes(t *testing.T, f func(t *testing.T, size PieceSize, comp Compression, key *Key)) {
	for size := Piece64K; size.valid(); size++ {
		t.Run(size.String(), func(t *testing.T) {
			variants(t, func(t *testing.T, comp Compression, key *Key) {
				if comp != Bzip2 || !testing.Short() {
					f(t, size, comp, key)
				}
			})
		})
	}
}

// lumps returns n bytes in which text, zeros and noise change every few KiB, so that
// small pieces differ.
func lumps(n int, rng *rand.Rand) []byte {
	p := make([]byte, n)
	for at := 0; at < n; {
		lump := p[at:min(n, at+1+rng.IntN(12<<10))]
		switch rng.IntN(3) {
		case 0:
			text(lump, rng.Uint64())
		case 1:
			noise(lump, rng.Uint64())
		}
		at += len(lump)
	}
	return p
}

// TestReadAnyRange: whatever bytes of a shard are wanted, the pieces that cover them
// have them, and moving them takes less than a piece more at each end.
func TestReadAnyRange(t *testing.T) {
	allSizes(t, func(t *testing.T, size PieceSize, comp Compression, key *Key) {
		rng := rand.New(rand.NewPCG(uint64(size), uint64(comp)))
		for range 4 {
			shard := lumps(1+rng.IntN(3*PieceBytes), rng)
			stored, x := mustPackIn(t, size, testID, shard, comp, key)
			if x.PieceSize() != size || x.Pieces() != size.Pieces(len(shard)) {
				t.Fatalf("%d pieces of %v of %d bytes", x.Pieces(), x.PieceSize(), len(shard))
			}
			for range 20 {
				off := rng.IntN(len(shard))
				n := 1 + rng.IntN(len(shard)-off)
				if rng.IntN(2) == 0 {
					n = min(n, 1+rng.IntN(8<<10))
				}
				first, count := x.Cover(off, n)
				at, plain := x.PlainRange(first, count)
				from, length := x.Range(first, count)
				if plain >= n+2*size.Bytes() || length > int64(plain+count*tagBytes) {
					t.Fatalf("%d bytes from %d take pieces of %d, stored in %d", n, off, plain, length)
				}
				dst := make([]byte, plain)
				if err := Unpack(dst, testID, x, first, count, stored[from:from+length], key); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(dst[off-at:][:n], shard[off:off+n]) {
					t.Fatalf("%d bytes from %d differ", n, off)
				}
				if crc := x.RangeCRC(first, count); crc != crcOf(stored[from:from+length]) {
					t.Fatalf("pieces %d+%d: crc %08x", first, count, crc)
				}
			}
		}
	})
}

// TestDamagedPiece: damage in a piece is found by whoever reads it, named, and no
// concern of those that read others.
func TestDamagedPiece(t *testing.T) {
	allSizes(t, func(t *testing.T, size PieceSize, comp Compression, key *Key) {
		rng := rand.New(rand.NewPCG(uint64(size), uint64(comp)))
		shard := lumps(5*size.Bytes()+100, rng)
		stored, x := mustPackIn(t, size, testID, shard, comp, key)
		for i := range x.Pieces() {
			from, n := x.Range(i, 1)
			if n == 0 {
				continue // of zeros: there is nothing to damage
			}
			bad := bytes.Clone(stored)
			bad[from+rng.Int64N(n)] ^= 1 << rng.IntN(8)
			for j := range x.Pieces() {
				off, length := x.Range(j, 1)
				_, plain := x.PlainRange(j, 1)
				err := Unpack(make([]byte, plain), testID, x, j, 1, bad[off:off+length], key)
				var c *CorruptError
				switch {
				case i != j && err != nil:
					t.Fatalf("piece %d although %d is damaged: %v", j, i, err)
				case i == j && (!errors.As(err, &c) || c.Piece != i || !errors.Is(err, ErrCorrupt)):
					t.Fatalf("damaged piece %d: %v", i, err)
				}
			}
		}
	})
}
