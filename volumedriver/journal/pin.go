package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// MaxPin bounds what a pin extent says, in bytes: name and labels of a snapshot.
const MaxPin = 16 << 10

// PinLBA is where pin extents say they are: behind the end of the largest disk and
// apart from reservations, so that their checksums verify as nothing else.
const PinLBA = 1 << 41

// ErrBadPin: the data of a pin extent do not hold what a pin says.
var ErrBadPin = errors.New("not a valid pin")

// EncodePin returns the data of a pin extent, in the form of EncodeReservation.
func EncodePin(b []byte, cluster int) ([]byte, error) {
	if len(b) > MaxPin {
		return nil, fmt.Errorf("pin of %d bytes, at most %d", len(b), MaxPin)
	}
	return encodeBlob(b, cluster), nil
}

// DecodePin returns what the data of a pin extent say, as a copy.
func DecodePin(data []byte) ([]byte, error) { return decodeBlob(data, MaxPin, ErrBadPin) }

// maxPinClusters is the longest pin extent, in clusters.
func maxPinClusters(cluster uint32) uint64 {
	return (blobPrefix + MaxPin + uint64(cluster) - 1) / uint64(cluster)
}

// blobPrefix is the length field of a blob, in bytes.
const blobPrefix = 4

// encodeBlob returns whole clusters that hold b: its length, b, zeros.
func encodeBlob(b []byte, cluster int) []byte {
	out := make([]byte, (blobPrefix+len(b)+cluster-1)/cluster*cluster)
	binary.LittleEndian.PutUint32(out, uint32(len(b)))
	copy(out[blobPrefix:], b)
	return out
}

// decodeBlob returns what encodeBlob was given, of at most most bytes, as a copy;
// nil when it is empty.
func decodeBlob(data []byte, most int, bad error) ([]byte, error) {
	if len(data) < blobPrefix {
		return nil, bad
	}
	n := binary.LittleEndian.Uint32(data)
	if n > uint32(most) || int(n) > len(data)-blobPrefix {
		return nil, fmt.Errorf("%w: %d bytes in %d", bad, n, len(data))
	}
	if n == 0 {
		return nil, nil
	}
	return append([]byte(nil), data[blobPrefix:blobPrefix+int(n)]...), nil
}
