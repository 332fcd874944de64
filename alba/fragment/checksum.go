package fragment

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// Checksum is a kind of checksum over an object or a fragment. The numbers are
// persisted and fixed for ever.
type Checksum uint8

// Checksums. Only CRC32C is written.
const (
	NoChecksum Checksum = 0
	CRC32C     Checksum = 1 // 4 bytes, little endian
	SHA1       Checksum = 2 // 20 bytes
)

var checksumNames = [...]string{"none", "crc-32c", "sha-1"}

// String is the name as presets have it: none, crc-32c, sha-1.
func (c Checksum) String() string {
	if int(c) < len(checksumNames) {
		return checksumNames[c]
	}
	return fmt.Sprintf("checksum(%d)", uint8(c))
}

// ParseChecksum is the inverse of String. ErrInvalid.
func ParseChecksum(name string) (Checksum, error) {
	for i, n := range checksumNames {
		if n == name {
			return Checksum(i), nil
		}
	}
	return 0, fmt.Errorf("%w: checksum %q is none of %v", ErrInvalid, name, checksumNames)
}

// Verify tells whether sum is the checksum of p. NoChecksum accepts everything
// with an empty sum.
func (c Checksum) Verify(p, sum []byte) bool {
	switch c {
	case NoChecksum:
		return len(sum) == 0
	case CRC32C:
		return len(sum) == 4 && binary.LittleEndian.Uint32(sum) == crcOf(p)
	case SHA1:
		got := sha1.Sum(p)
		return bytes.Equal(sum, got[:])
	}
	return false
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// crcOf is osd.CRC.
func crcOf(p []byte) uint32 { return crc32.Checksum(p, castagnoli) }

// A crc32c is a polynomial over GF(2) modulo P; in a uint32 the highest bit is
// the coefficient of x^0. The crc of AB is that of A times x^(8 len B), plus
// that of B (initial and final complements cancel). Multiplying by x^(8 len B) is
// the linear map that others keep as a 32x32 matrix per power of two; as
// polynomials, one word does for each.

// xpow8 returns x^(8n) modulo P.
func xpow8(n int64) uint32 {
	r, sq := uint32(1)<<31, uint32(1)<<(31-8) // x^0, x^8
	for ; n > 0; n >>= 1 {
		if n&1 == 1 {
			r = mulmod(r, sq)
		}
		sq = mulmod(sq, sq)
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
