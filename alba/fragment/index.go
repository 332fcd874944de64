package fragment

import (
	"encoding/binary"
	"fmt"

	"github.com/openvstorage/ovgate/alba/osd"
)

// Index describes the stored bytes of a fragment: where each piece lies, what
// kind it is and its checksum. Pack and DecodeIndex make one. It is immutable,
// and safe for concurrent use.
type Index struct {
	plain     int // bytes of the shard
	comp      Compression
	size      PieceSize
	encrypted bool
	crcs      []uint32 // of the stored pieces
	payloads  []uint32 // bytes of the payloads; nil when all are raw
}

const (
	indexVersion   = 1
	flagComp       = 0x0f
	flagEncrypted  = 0x10
	flagPayloads   = 0x20
	flagSizeShift  = 6
	payloadRaw     = 0
	payloadZeros   = 1
	crcBytes       = 4
	indexHeadBytes = 2
)

// MaxIndexBytes bounds the encoding of an index: head, plain, and per piece a
// payload of 3 bytes and a crc.
const MaxIndexBytes = indexHeadBytes + 4 + maxPieces*(3+crcBytes)

// PlainBytes returns the size of the shard.
func (x Index) PlainBytes() int { return x.plain }

// Pieces returns the number of pieces.
func (x Index) Pieces() int { return len(x.crcs) }

// PieceSize returns the size of the pieces; the last one may be shorter.
func (x Index) PieceSize() PieceSize { return x.size }

// Compression returns what the pieces were compressed with.
func (x Index) Compression() Compression { return x.comp }

// Encrypted tells whether unpacking needs a key.
func (x Index) Encrypted() bool { return x.encrypted }

// AsIs tells whether the stored bytes are those of the shard, so that once verified
// they can be used without Unpack.
func (x Index) AsIs() bool { return !x.encrypted && x.payloads == nil }

// StoredBytes returns the size of the stored bytes.
func (x Index) StoredBytes() int64 {
	_, n := x.Range(0, x.Pieces())
	return n
}

// Cover returns the pieces that hold n bytes of the shard from off. It panics
// when they are not all within the shard, n = 0 included.
func (x Index) Cover(off, n int) (first, count int) {
	if off < 0 || n <= 0 || n > x.plain-off {
		panic(fmt.Sprintf("fragment: %d bytes from %d in a shard of %d", n, off, x.plain))
	}
	return x.size.Cover(off, n)
}

// Range returns where the pieces [first, first+count) lie in the stored bytes.
// n is 0 when they are all zeros: nothing has to be read. It panics when the
// fragment has no such pieces, as slicing does.
func (x Index) Range(first, count int) (off, n int64) {
	x.mustHave(first, count)
	return x.sum(0, first), x.sum(first, count)
}

// sum returns the stored bytes of the pieces [first, first+count).
func (x Index) sum(first, count int) int64 {
	_, n := x.PlainRange(first, count)
	if x.payloads != nil {
		n = 0
		for _, p := range x.payloads[first : first+count] {
			n += int(p)
		}
	}
	if x.encrypted {
		n += count * tagBytes
	}
	return int64(n)
}

// PlainRange returns where the pieces [first, first+count) lie in the shard. It
// panics when the fragment has no such pieces.
func (x Index) PlainRange(first, count int) (off, n int) {
	x.mustHave(first, count)
	off = min(first*x.size.Bytes(), x.plain)
	return off, min((first+count)*x.size.Bytes(), x.plain) - off
}

func (x Index) mustHave(first, count int) {
	if !x.has(first, count) {
		panic(fmt.Sprintf("fragment: pieces %d+%d of %d", first, count, x.Pieces()))
	}
}

func (x Index) has(first, count int) bool {
	return first >= 0 && count >= 0 && first <= x.Pieces() && count <= x.Pieces()-first
}

// CRC returns the crc32c of all stored bytes, as osd.Update wants it, from those of the pieces.
func (x Index) CRC() uint32 { return x.RangeCRC(0, len(x.crcs)) }

// RangeCRC is CRC for the pieces [first, first+count). It panics when the fragment
// has no such pieces.
func (x Index) RangeCRC(first, count int) uint32 {
	x.mustHave(first, count)
	var all osd.JoinedCRC
	for i, c := range x.crcs[first : first+count] {
		all.Add(c, int64(x.storedLen(first+i)))
	}
	return all.Sum()
}

// Verify compares the stored bytes of the pieces [first, first+count) with
// their checksums, without a key. CorruptError, with id; ErrInvalid: there are no such pieces.
func (x Index) Verify(id ID, first, count int, stored []byte) error {
	if err := x.checkStored(id, first, count, stored); err != nil {
		return err
	}
	for i := first; i < first+count; i++ {
		n := x.storedLen(i)
		if err := x.verifyPiece(id, i, stored[:n]); err != nil {
			return err
		}
		stored = stored[n:]
	}
	return nil
}

func (x Index) checkStored(id ID, first, count int, stored []byte) error {
	if !x.has(first, count) || count == 0 {
		return fmt.Errorf("%w: pieces %d+%d of %d of %v", ErrInvalid, first, count, x.Pieces(), id)
	}
	if _, n := x.Range(first, count); n != int64(len(stored)) {
		return &CorruptError{ID: id, Piece: -1, Why: fmt.Sprintf("%d stored bytes for pieces %d+%d, the index says %d", len(stored), first, count, n)}
	}
	return nil
}

func (x Index) verifyPiece(id ID, i int, stored []byte) error {
	if got := crcOf(stored); got != x.crcs[i] {
		return &CorruptError{ID: id, Piece: i, Why: fmt.Sprintf("crc32c is %08x, the index says %08x", got, x.crcs[i])}
	}
	return nil
}

// pieceLen returns the bytes of piece i in the shard.
func (x Index) pieceLen(i int) int { return min(x.size.Bytes(), x.plain-i*x.size.Bytes()) }

// payloadLen returns the bytes of the payload of piece i.
func (x Index) payloadLen(i int) int {
	if x.payloads == nil {
		return x.pieceLen(i)
	}
	return int(x.payloads[i])
}

// storedLen returns the bytes of piece i in the stored bytes.
func (x Index) storedLen(i int) int {
	if x.encrypted {
		return x.payloadLen(i) + tagBytes
	}
	return x.payloadLen(i)
}

// form is what else than the shard and the key decides about the stored bytes.
func (x Index) form() byte { return byte(x.comp) | byte(x.size)<<flagSizeShift }

// AppendBinary appends the encoding to b. See the package comment. It never fails.
func (x Index) AppendBinary(b []byte) ([]byte, error) {
	flags := x.form()
	if x.encrypted {
		flags |= flagEncrypted
	}
	if x.payloads != nil {
		flags |= flagPayloads
	}
	b = append(b, indexVersion, flags)
	b = binary.AppendUvarint(b, uint64(x.plain))
	for i, n := range x.payloads {
		switch int(n) {
		case x.pieceLen(i):
			b = append(b, payloadRaw)
		case 0:
			b = append(b, payloadZeros)
		default:
			b = binary.AppendUvarint(b, uint64(n)+payloadZeros)
		}
	}
	for _, c := range x.crcs {
		b = binary.LittleEndian.AppendUint32(b, c)
	}
	return b, nil
}

// DecodeIndex decodes the index that b begins with, and returns what follows
// it. It keeps nothing of b. ErrIndex.
func DecodeIndex(b []byte) (x Index, rest []byte, err error) {
	if len(b) < indexHeadBytes || b[0] != indexVersion {
		return Index{}, nil, fmt.Errorf("%w: head is not known", ErrIndex)
	}
	flags := b[1]
	x.comp, x.encrypted, x.size = Compression(flags&flagComp), flags&flagEncrypted != 0, PieceSize(flags>>flagSizeShift)
	if !x.size.valid() {
		return Index{}, nil, fmt.Errorf("%w: flags %02x: %w: it may be from a newer version", ErrIndex, flags, errPieceSize)
	}
	if !x.comp.valid() || x.comp == None && flags&flagPayloads != 0 {
		return Index{}, nil, fmt.Errorf("%w: flags %02x", ErrIndex, flags)
	}
	plain, b, ok := uvarint(b[indexHeadBytes:])
	if !ok || plain == 0 || plain > MaxShardBytes {
		return Index{}, nil, fmt.Errorf("%w: size of the shard", ErrIndex)
	}
	x.plain = int(plain)
	n := x.size.Pieces(x.plain)
	if len(b) < n*crcBytes { // before anything is allocated for n pieces
		return Index{}, nil, fmt.Errorf("%w: cut short", ErrIndex)
	}
	if flags&flagPayloads != 0 {
		if x.payloads, b, err = decodePayloads(b, x, n); err != nil {
			return Index{}, nil, err
		}
	}
	if len(b) < n*crcBytes {
		return Index{}, nil, fmt.Errorf("%w: cut short", ErrIndex)
	}
	x.crcs = make([]uint32, n)
	for i := range x.crcs {
		x.crcs[i] = binary.LittleEndian.Uint32(b[i*crcBytes:])
		if x.storedLen(i) == 0 && x.crcs[i] != 0 {
			return Index{}, nil, fmt.Errorf("%w: piece %d is empty and has a crc", ErrIndex, i)
		}
	}
	return x, b[n*crcBytes:], nil
}

// decodePayloads refuses what Pack does not write, so that an index has one encoding.
func decodePayloads(b []byte, x Index, n int) (payloads []uint32, rest []byte, err error) {
	payloads = make([]uint32, n)
	raw := true
	for i := range payloads {
		v, r, ok := uvarint(b)
		piece := x.pieceLen(i)
		switch {
		case !ok || v > payloadZeros && v-payloadZeros > uint64(maxCompressed(piece)):
			return nil, nil, fmt.Errorf("%w: payload of piece %d", ErrIndex, i)
		case v == payloadRaw:
			payloads[i] = uint32(piece)
		default:
			payloads[i] = uint32(v - payloadZeros)
			raw = false
		}
		b = r
	}
	if raw {
		return nil, nil, fmt.Errorf("%w: payloads given and all raw", ErrIndex)
	}
	return payloads, b, nil
}

// uvarint decodes a uvarint of up to 4 bytes in its shortest form.
func uvarint(b []byte) (v uint64, rest []byte, ok bool) {
	v, n := binary.Uvarint(b[:min(len(b), 4)])
	if n <= 0 || n > 1 && b[n-1] == 0 {
		return 0, nil, false
	}
	return v, b[n:], true
}
