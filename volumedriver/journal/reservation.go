package journal

import (
	"errors"
	"fmt"
)

// MaxReservation bounds a reservation state, in bytes: some hundred registrations
// of initiators with the longest names, and still one small record.
const MaxReservation = 64 << 10

// ReservationLBA is where reservation extents say they are: behind the end of the
// largest disk, so that their checksums never verify as data of it.
const ReservationLBA = 1 << 40

// reservationPrefix is the length field before the state, in bytes.
const reservationPrefix = blobPrefix

// ErrBadReservation: the data of a reservation extent do not hold a state.
var ErrBadReservation = errors.New("not a valid reservation state")

// EncodeReservation returns the data of a reservation extent: the state behind
// its length, filled up with zeros to whole clusters.
//
//	0 length u32 | 4 state | zeros
func EncodeReservation(state []byte, cluster int) ([]byte, error) {
	if len(state) > MaxReservation {
		return nil, fmt.Errorf("reservation state of %d bytes, at most %d", len(state), MaxReservation)
	}
	return encodeBlob(state, cluster), nil
}

// DecodeReservation returns the state in the data of a reservation extent, as a
// copy; nil when it is empty.
func DecodeReservation(data []byte) ([]byte, error) {
	return decodeBlob(data, MaxReservation, ErrBadReservation)
}

// maxReservationClusters is the longest reservation extent, in clusters.
func maxReservationClusters(cluster uint32) uint64 {
	return (reservationPrefix + MaxReservation + uint64(cluster) - 1) / uint64(cluster)
}
