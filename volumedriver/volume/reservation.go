package volume

import (
	"fmt"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/journal"
)

// A vDisk's reservation state is bytes that mean something to whoever serves the
// vDisk, never to the engine (rule O5). It is a change like any other: a journal
// record in seq order with the writes (V1), replayed at open, and part of the head
// that covers its seq (V7).

// MaxReservation bounds the reservation state of a vDisk, in bytes.
const MaxReservation = journal.MaxReservation

// needReservation is what a head with a reservation state needs its reader to
// know: one that does not would forget who may write.
const needReservation = "reservation"

// Reservation returns the state that the newest completed ReqReserve stored, also
// by earlier openings; nil if there is none. The bytes are not to be changed.
func (v *Volume) Reservation() []byte {
	if p := v.reservation.Load(); p != nil {
		return *p
	}
	return nil
}

// submitReserve queues a change of the reservation state. Changes of it wait for
// each other as if they were writes of one range, which lies beyond every disk.
func (v *Volume) submitReserve(r *Request) {
	r.st.first = journal.ReservationLBA * lbaBytes / uint64(v.cluster)
	r.st.end = r.st.first + 1
	if v.locks.acquire(r) {
		v.prepare(r)
	}
}

// prepareReserve makes the extent and the state to be installed.
func (v *Volume) prepareReserve(r *Request) error {
	data, err := journal.EncodeReservation(r.Data, v.cluster)
	if err != nil {
		return fmt.Errorf("vdisk %s: %w: %w", v.id, ErrInvalid, err)
	}
	r.st.nExtents, r.st.nParts, r.st.bytes = 1, 1, len(data)
	r.st.extents[0] = journal.Extent{LBA: journal.ReservationLBA, Length: uint64(len(data)) / lbaBytes, Kind: journal.KindReservation}
	r.st.parts[0] = data
	return nil
}

// install makes what a durable record stores the state; mapMu is held. The open
// batch takes it along to the head that covers the record (V7).
func (v *Volume) install(o *batch, state []byte) {
	if len(state) == 0 {
		state = nil
	}
	o.reservation = &state
	v.reservation.Store(&state)
}

// recorded reads what a reservation or pin extent stores back from the journal: data
// starts at off in the chunk. The sums were verified when it was recovered, and
// are once more.
func (v *Volume) recorded(b *journal.Batch, e *journal.Extent, chunk uint32, off int64) ([]byte, error) {
	per := uint64(v.cluster / lbaBytes)
	buf := blockfs.AlignedBuffer(int(e.Length) * lbaBytes)
	c := v.journal.Pin(chunk)
	_, err := c.ReadAt(buf, off+int64(e.Data)*int64(v.cluster))
	c.Unpin()
	if err != nil {
		return nil, fmt.Errorf("vdisk %s: reservation or pin: %w: %w", v.id, ErrCorrupt, err)
	}
	for k := range e.Length / per {
		at := k * uint64(v.cluster)
		if v.seed.Sum(e.LBA+k*per, buf[at:at+uint64(v.cluster)]) != b.Sums[uint64(e.Data)+k] {
			return nil, fmt.Errorf("vdisk %s: reservation or pin: %w: checksum", v.id, ErrCorrupt)
		}
	}
	decode := journal.DecodeReservation
	if e.Kind == journal.KindPin {
		decode = journal.DecodePin
	}
	state, err := decode(buf)
	if err == nil && e.Kind == journal.KindPin {
		_, err = decodeMark(state)
	}
	if err != nil {
		return nil, fmt.Errorf("vdisk %s: %w: %w", v.id, ErrCorrupt, err)
	}
	return state, nil
}
