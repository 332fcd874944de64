package fragment

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"fmt"

	"github.com/openvstorage/ovgate/alba/osd"
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

// crcOf is osd.CRC.
func crcOf(p []byte) uint32 { return osd.CRC(p) }
