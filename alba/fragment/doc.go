// Package fragment turns a chunk of an object into the stored bytes of its k+m
// fragments and back. The client packs what it uploads and unpacks what it
// reads, maintenance rebuilds lost fragments with it, and a scrub verifies
// stored bytes through an Index without any key. Nothing here does I/O, keeps
// time or draws random numbers.
//
// # From a chunk to stored bytes
//
//	chunk, 1 byte .. k x 64 MiB
//	   │ Code.Split: k data shards of equal size, zeros after the end; m parity shards
//	   ▼
//	┌─────────┬─────────┬─────────┐   ┌─────────┬─────────┐
//	│ shard 0 │   ...   │shard k-1│   │ shard k │ k+m-1   │    multiples of 64 bytes
//	└─────────┴─────────┴─────────┘   └─────────┴─────────┘
//	   │ Pack, each shard for itself
//	   ▼
//	┌─────────┬─────────┬───┐
//	│ piece 0 │ piece 1 │...│           64, 16 or 4 KiB (PieceSize) each, the last is what is left
//	└─────────┴─────────┴───┘
//	   │ compress ─► encrypt ─► crc32c, each piece for itself
//	   ▼
//	┌───────────────────┬─────────┬───┐
//	│ payload 0 [tag 0] │ ...     │   │  the stored bytes: nothing but the pieces
//	└───────────────────┴─────────┴───┘
//
// A payload is one of
//
//	raw          the piece itself
//	compressed   shorter than the piece by 1/16 of it at least, otherwise it is kept raw
//	zeros        empty: the piece has nothing but zeros (only with a compression)
//
// and its length says which. A tag is the 16 bytes of AES-256-GCM, there only
// with a key. Lengths and checksums are in the Index, which goes into the
// manifest, not to the device: so a shard that is neither compressed nor
// encrypted is stored as it is, and no byte of it is copied.
//
// # Index
//
//	┌────┬───────┬───────┬ ─ ─ ─ ─ ─ ─ ┬──────────┐
//	│ 01 │ flags │ plain │ n x payload │ n x crc  │
//	└────┴───────┴───────┴ ─ ─ ─ ─ ─ ─ ┴──────────┘
//	flags     bits 0-3 Compression, bit 4 encrypted, bit 5 payloads follow,
//	          bits 6-7 PieceSize: 0 64 KiB, 1 16 KiB, 2 4 KiB
//	plain     uvarint, bytes of the shard; n = ceil(plain / size of a piece)
//	payload   uvarint: 0 raw, 1 zeros, otherwise 1 + bytes of the compressed payload
//	crc       u32 little endian, crc32c of the stored piece (payload and tag)
//
// Payloads are left out when all are raw. Every index has exactly one encoding.
//
// # Encryption
//
//	object key   HKDF-SHA256(data key, info = label | form | object)
//	form         bits 0-3 Compression, bits 6-7 PieceSize, as in flags
//	nonce        chunk u32 | index u8 | version u32 | piece u24, big endian
//	also bound   format, form, plain bytes of the shard, the whole ID
//
// # Invariants
//
//	F1  Packing the same shard under the same ID gives the same bytes, so with
//	    k = 1 one packed shard serves all copies; they all have Index 0.
//	F2  No nonce serves two different byte strings under one object key: an object id is
//	    never used again, and whoever packs other bytes for a place in an
//	    object, or the same with another version of this software, gives them a
//	    version that the place never had. Copying stored bytes keeps their version.
//	F3  An encrypted piece is accepted only at its place: object, chunk, fragment,
//	    version and piece are authenticated with it, and so are the length of
//	    the shard, the compression and the size of its pieces.
//	F4  A stored piece that does not fit its crc is never decrypted, one that does
//	    not authenticate never decompressed, and what decompression makes is as
//	    long as the piece or refused.
//	F5  What was packed once can be unpacked for ever: numbers of compressions,
//	    the matrix of a code and the layouts above never change (testdata). What
//	    encoders make of a piece may.
//	F6  A code works byte by byte: the same range of any k shards gives that range
//	    of all others, so a degraded read rebuilds one piece from k pieces.
//
// It does not choose codes (preset), name keys on devices (layout) or place
// fragments (client). Without a key nothing tells a fragment of one object from
// another's with the same bytes; the manifest's crc tells those that differ.
package fragment

import (
	"errors"
	"fmt"
)

const (
	// PieceBytes is the largest unit of compression, encryption and checksum within
	// a fragment, that of Piece64K. It equals osd.Block, so that a device reads no
	// more than it verifies for a raw piece.
	PieceBytes = 64 << 10
	// MaxShardBytes bounds a shard: the largest fragment size of a preset.
	MaxShardBytes = 64 << 20
	// maxPieces is the number of pieces of the largest shard, the smallest pieces.
	maxPieces = MaxShardBytes / (PieceBytes >> (2 * smallestPiece))
	// tagBytes is what encryption adds to a piece.
	tagBytes = 16
)

var (
	// ErrCorrupt: stored bytes are not those that were packed. CorruptError
	// names them. Rebuild the fragment from others.
	ErrCorrupt = errors.New("fragment: stored bytes are damaged")
	// ErrAuth: stored bytes fit their checksum and do not authenticate: another
	// data key, bytes of another fragment, or forged. A CorruptError of this
	// kind matches ErrCorrupt too. When all fragments of an object are like
	// this, it is the key, and a rebuild would not help.
	ErrAuth = errors.New("fragment: stored bytes do not authenticate")
	// ErrKey: a key is needed and not there, or there and not needed.
	ErrKey = errors.New("fragment: data key missing or superfluous")
	// ErrInvalid: arguments break a limit of this package.
	ErrInvalid = errors.New("fragment: invalid argument")
	// ErrTooFew: fewer than k shards are there.
	ErrTooFew = errors.New("fragment: too few shards to rebuild the others")
	// ErrIndex: bytes that are not the encoding of an Index.
	ErrIndex = errors.New("fragment: damaged index")
)

// ID says what a fragment is. It is authenticated, so reading needs the ID of packing.
type ID struct {
	// Object is the object's id, never used for a second object.
	Object [16]byte
	// Chunk is the position of the chunk in the object, from 0.
	Chunk uint32
	// Index is the shard within the chunk: 0 to k-1 data, then parity. All
	// copies of a code with k = 1 are Index 0 (Code.Distinct).
	Index uint8
	// Version grows with each packing of this place (F2).
	Version uint32
}

// String is "object/chunk/index.version".
func (id ID) String() string {
	return fmt.Sprintf("%x/%d/%d.%d", id.Object, id.Chunk, id.Index, id.Version)
}

// CorruptError names stored bytes that were refused. It matches ErrCorrupt, and
// ErrAuth when Auth is set.
type CorruptError struct {
	ID    ID
	Piece int // within the fragment, from 0; -1: the fragment as a whole
	Auth  bool
	Why   string
}

func (e *CorruptError) Error() string {
	kind := ErrCorrupt
	if e.Auth {
		kind = ErrAuth
	}
	what := fmt.Sprintf("object %x chunk %d fragment %d version %d", e.ID.Object, e.ID.Chunk, e.ID.Index, e.ID.Version)
	if e.Piece >= 0 {
		what += fmt.Sprintf(" piece %d", e.Piece)
	}
	return fmt.Sprintf("%v: %s: %s", kind, what, e.Why)
}

// Is makes errors.Is work with ErrCorrupt and ErrAuth.
func (e *CorruptError) Is(target error) bool {
	return target == ErrCorrupt || e.Auth && target == ErrAuth
}
