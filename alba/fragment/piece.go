package fragment

import (
	"errors"
	"fmt"
)

// PieceSize is the size of a fragment's pieces. The numbers are persisted and fixed
// for ever.
type PieceSize uint8

// Sizes of pieces. What is read in part is read in whole pieces, so small ones make
// short reads fast; each has a checksum in the manifest, so they make it long, and
// what compresses least.
const (
	Piece64K PieceSize = 0
	Piece16K PieceSize = 1
	Piece4K  PieceSize = 2
)

// smallestPiece is the PieceSize of the smallest pieces.
const smallestPiece = Piece4K

// errPieceSize is what is said of a size that there is not.
var errPieceSize = errors.New("pieces have 4 KiB, 16 KiB or 64 KiB")

// Bytes returns the size in bytes.
func (s PieceSize) Bytes() int { return PieceBytes >> (2 * s) }

// String is the size in words: 64KiB, 16KiB, 4KiB.
func (s PieceSize) String() string {
	if s.valid() {
		return fmt.Sprintf("%dKiB", s.Bytes()>>10)
	}
	return fmt.Sprintf("piece size(%d)", uint8(s))
}

// ParsePieceSize is the inverse of Bytes. ErrInvalid.
func ParsePieceSize(bytes int64) (PieceSize, error) {
	for s := Piece64K; s.valid(); s++ {
		if int64(s.Bytes()) == bytes {
			return s, nil
		}
	}
	return 0, fmt.Errorf("%w: a piece of %d bytes: %w", ErrInvalid, bytes, errPieceSize)
}

func (s PieceSize) valid() bool { return s <= smallestPiece }

// Pieces returns the number of pieces of a shard of n bytes.
func (s PieceSize) Pieces(n int) int { return (n + s.Bytes() - 1) / s.Bytes() }

// Cover returns the pieces that hold n > 0 bytes of a shard from off.
func (s PieceSize) Cover(off, n int) (first, count int) {
	first = off / s.Bytes()
	return first, (off+n-1)/s.Bytes() + 1 - first
}
