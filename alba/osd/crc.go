package osd

import (
	"hash/crc32"
	"math/bits"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// CRC returns the crc32c of p.
func CRC(p []byte) uint32 { return crc32.Checksum(p, castagnoli) }

// A crc32c is a polynomial over GF(2) modulo P; in a uint32 the highest bit is
// the coefficient of x^0. The crc of AB is that of A times x^(8 len B), plus
// that of B (initial and final complements cancel). Multiplying by x^(8 len B) is
// the linear map that others keep as a 32x32 matrix per power of two; as
// polynomials, one word does for each.

// ConcatCRC returns the crc32c of AB, from that of A and that of B, which has n bytes.
func ConcatCRC(a, b uint32, n int64) uint32 { return mulmod(a, xpow8(n)) ^ b }

// JoinedCRC is the crc32c of parts one after the other, from those of the parts. The
// zero value is that of nothing.
type JoinedCRC struct {
	crc   uint32
	n     int64  // bytes of the last part
	shift uint32 // x^(8n) modulo P: most parts are equally long
}

// Add appends a part of n bytes.
func (j *JoinedCRC) Add(crc uint32, n int64) {
	if j.shift == 0 || n != j.n {
		j.n, j.shift = n, xpow8(n)
	}
	j.crc = mulmod(j.crc, j.shift) ^ crc
}

// Sum returns the crc32c of all parts.
func (j *JoinedCRC) Sum() uint32 { return j.crc }

// orderOfX is a number of factors of x modulo P that make 1.
const orderOfX = 1<<31 - 1

// CutZerosCRC returns the crc32c of A, from that of A and n zeros: the register was
// multiplied by x^8 for each of them.
func CutZerosCRC(crc uint32, n int64) uint32 { return ^mulmod(^crc, xpow8(orderOfX-n%orderOfX)) }

// powers[i] is x^(8 * 2^i) modulo P.
var powers = func() (p [63]uint32) {
	p[0] = 1 << (31 - 8)
	for i := 1; i < len(p); i++ {
		p[i] = mulmod(p[i-1], p[i-1])
	}
	return p
}()

// xpow8 returns x^(8n) modulo P.
func xpow8(n int64) uint32 {
	r := uint32(1) << 31 // x^0
	for ; n > 0; n &= n - 1 {
		r = mulmod(r, powers[bits.TrailingZeros64(uint64(n))])
	}
	return r
}

// mulmod returns a*b modulo P.
func mulmod(a, b uint32) uint32 {
	var r uint32
	for ; a != 0; a <<= 1 {
		r ^= b & -(a >> 31)
		b = b>>1 ^ crc32.Castagnoli&-(b&1) // times x
	}
	return r
}
