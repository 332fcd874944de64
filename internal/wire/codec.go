package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

// ErrMeta: meta is not what its type says, wrapped with the place.
var ErrMeta = errors.New("wire: malformed message")

// Encoder appends the parts of a message to B. The zero value is ready; B may be
// set to a slice of length 0 to reuse its memory.
//
//	Uint8, Uint32, Uint64   fixed, big endian
//	Uvarint, Varint         7 bits per byte, least significant first, shortest form; Varint is zigzag
//	Bytes, String           Uvarint length, then the bytes
//	Bool                    one byte, 0 or 1
type Encoder struct{ B []byte }

// Uint8 appends one byte.
func (e *Encoder) Uint8(v uint8) { e.B = append(e.B, v) }

// Bool appends 1 for true, 0 for false.
func (e *Encoder) Bool(v bool) {
	if v {
		e.Uint8(1)
	} else {
		e.Uint8(0)
	}
}

// Uint32 appends four bytes.
func (e *Encoder) Uint32(v uint32) { e.B = binary.BigEndian.AppendUint32(e.B, v) }

// Uint64 appends eight bytes.
func (e *Encoder) Uint64(v uint64) { e.B = binary.BigEndian.AppendUint64(e.B, v) }

// Uvarint appends 1 to 10 bytes.
func (e *Encoder) Uvarint(v uint64) { e.B = binary.AppendUvarint(e.B, v) }

// Varint appends 1 to 10 bytes.
func (e *Encoder) Varint(v int64) { e.B = binary.AppendVarint(e.B, v) }

// Bytes appends p and its length.
func (e *Encoder) Bytes(p []byte) {
	e.Uvarint(uint64(len(p)))
	e.B = append(e.B, p...)
}

// String appends s and its length.
func (e *Encoder) String(s string) {
	e.Uvarint(uint64(len(s)))
	e.B = append(e.B, s...)
}

// Decoder reads what Encoder wrote. Its first error is kept: later calls return
// zero values, and Done or Err tells. It never allocates for data that is not
// there, except for the texts of errors.
type Decoder struct {
	b   []byte
	n   int // length at the start, for places in errors
	err error
}

// NewDecoder reads from b, which results of Bytes refer to.
func NewDecoder(b []byte) Decoder { return Decoder{b: b, n: len(b)} }

// Err returns the first error, which matches ErrMeta.
func (d *Decoder) Err() error { return d.err }

// Left returns how many bytes were not read.
func (d *Decoder) Left() int { return len(d.b) }

// Done returns the first error, or one when bytes are left over.
func (d *Decoder) Done() error {
	if d.err == nil && len(d.b) > 0 {
		d.Fail("%d bytes too many", len(d.b))
	}
	return d.err
}

// Fail records that what was read makes no sense; the first one counts.
func (d *Decoder) Fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: byte %d: %s", ErrMeta, d.n-len(d.b), fmt.Sprintf(format, args...))
	}
	d.b = nil
}

// take returns the next n bytes.
func (d *Decoder) take(n int) []byte {
	if n > len(d.b) {
		d.Fail("%d bytes expected, %d left", n, len(d.b))
		return nil
	}
	p := d.b[:n:n]
	d.b = d.b[n:]
	return p
}

// Uint8 reads one byte.
func (d *Decoder) Uint8() uint8 {
	if p := d.take(1); len(p) == 1 {
		return p[0]
	}
	return 0
}

// Bool reads a byte that is 0 or 1.
func (d *Decoder) Bool() bool {
	v := d.Uint8()
	if v > 1 {
		d.Fail("%d is not a boolean", v)
	}
	return v == 1
}

// Uint32 reads four bytes.
func (d *Decoder) Uint32() uint32 {
	if p := d.take(4); len(p) == 4 {
		return binary.BigEndian.Uint32(p)
	}
	return 0
}

// Uint64 reads eight bytes.
func (d *Decoder) Uint64() uint64 {
	if p := d.take(8); len(p) == 8 {
		return binary.BigEndian.Uint64(p)
	}
	return 0
}

// Uvarint reads a number in its shortest form.
func (d *Decoder) Uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || n != max(1, (bits.Len64(v)+6)/7) {
		d.Fail("not a number")
		return 0
	}
	d.b = d.b[n:]
	return v
}

// Varint reads a signed number.
func (d *Decoder) Varint() int64 {
	u := d.Uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

// Uint reads a Uvarint that is at most limit.
func (d *Decoder) Uint(limit int) int {
	v := d.Uvarint()
	if v > uint64(max(limit, 0)) {
		d.Fail("%d, at most %d", v, limit)
		return 0
	}
	return int(v)
}

// Count reads a number of elements of at least each bytes (1 or more) that follow:
// no more than limit, and no more than what is left can hold, so that the caller
// may allocate for them.
func (d *Decoder) Count(limit, each int) int {
	n := d.Uint(limit)
	if n > len(d.b)/max(each, 1) {
		d.Fail("%d elements of %d bytes or more in %d bytes", n, each, len(d.b))
		return 0
	}
	return n
}

// Bytes reads up to limit bytes; the result is part of the decoder's input.
func (d *Decoder) Bytes(limit int) []byte { return d.take(d.Uint(limit)) }

// String reads up to limit bytes.
func (d *Decoder) String(limit int) string { return string(d.Bytes(limit)) }
