package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/clustersum"
)

// Kind is what an extent does to its range.
type Kind uint8

// Kinds of extents. A pin carries as data what it says about a snapshot (rule E6),
// see EncodePin. A reservation carries a reservation state as data (rule O5), see
// EncodeReservation.
const (
	KindData Kind = iota + 1
	KindZero
	KindTrim
	KindPin
	KindReservation
)

// FormatVersion is the newest record format that this code reads and writes.
const FormatVersion = formatVersion

const (
	// formatVersion is 2 for records that carry a pin or a reservation, which an older
	// program must not pass over; all others are written as version 1.
	formatVersion = 2
	plainVersion  = 1
	fixedHeader   = 128
	extentBytes   = 32
	sumBytes      = 4
	lbaBytes      = 512

	// maxRecordData bounds the data of a record: one command of 4 MiB, twice over
	// for its partial edges, rounded up; a larger figure in a header is damage.
	maxRecordData = 16 << 20
	// maxHeader bounds a header: sums of maxRecordData plus maxExtents extents.
	maxHeader  = 1 << 20
	maxExtents = 16384
)

var magic = [8]byte{'O', 'V', 'G', 'J', 'R', 'E', 'C', '1'}

// ErrBadRecord: the bytes are not a valid record (J1).
var ErrBadRecord = errors.New("not a valid journal record")

// ErrNewerFormat: a record of a format that this version does not know.
var ErrNewerFormat = errors.New("journal record of a newer format: upgrade ovgate")

// Extent is one range of a record. LBA and Length are in 512-byte units and
// aligned to clusters.
type Extent struct {
	LBA      uint64
	Length   uint64
	Kind     Kind
	SeqDelta uint32 // seq of its command, relative to the record's first
	Data     uint32 // index of its first cluster in the record's data
}

// HasData reports whether clusters of the record's data belong to the extent.
func (e *Extent) HasData() bool {
	return e.Kind == KindData || (e.Kind == KindReservation || e.Kind == KindPin) && e.Length > 0
}

// version returns the oldest format version that can say what extents say.
func version(extents []Extent) uint16 {
	for i := range extents {
		if e := &extents[i]; e.Kind != KindData && e.HasData() {
			return formatVersion
		}
	}
	return plainVersion
}

// Header is a decoded record header.
type Header struct {
	HeaderBytes uint32
	DataBytes   uint32
	Generation  uint64
	VDisk       [16]byte
	Epoch       uint32
	Seqs        uint32
	Seq         uint64
	Promise     uint64
	Time        int64
	Cluster     uint32 // bytes
	Extents     []Extent
	Sums        []uint32
}

// LastSeq returns the last seq of the record; Seq-1 for an empty one.
func (h *Header) LastSeq() uint64 { return h.Seq + uint64(h.Seqs) - 1 }

// size returns the record's length in the chunk, in bytes.
func (h *Header) size() int64 { return int64(h.HeaderBytes) + int64(h.DataBytes) }

// headerSize returns the header bytes for so many extents and sums.
func headerSize(extents, sums int) int {
	n := fixedHeader + extents*extentBytes + sums*sumBytes
	return (n + blockfs.Alignment - 1) &^ (blockfs.Alignment - 1)
}

// encodeHeader writes h into b, which is h.HeaderBytes long.
func encodeHeader(b []byte, h *Header) {
	le := binary.LittleEndian
	clear(b)
	copy(b, magic[:])
	le.PutUint16(b[8:], version(h.Extents))
	le.PutUint32(b[12:], h.HeaderBytes)
	le.PutUint32(b[16:], h.DataBytes)
	le.PutUint64(b[24:], h.Generation)
	copy(b[32:48], h.VDisk[:])
	le.PutUint32(b[48:], h.Epoch)
	le.PutUint32(b[52:], h.Seqs)
	le.PutUint64(b[56:], h.Seq)
	le.PutUint64(b[64:], h.Promise)
	le.PutUint64(b[72:], uint64(h.Time))
	le.PutUint32(b[80:], uint32(len(h.Extents)))
	le.PutUint32(b[84:], uint32(len(h.Sums)))
	le.PutUint32(b[88:], h.Cluster)
	p := b[fixedHeader:]
	for i := range h.Extents {
		e := &h.Extents[i]
		le.PutUint64(p[0:], e.LBA)
		le.PutUint64(p[8:], e.Length)
		p[16] = byte(e.Kind)
		le.PutUint32(p[20:], e.SeqDelta)
		le.PutUint32(p[24:], e.Data)
		p = p[extentBytes:]
	}
	for _, s := range h.Sums {
		le.PutUint32(p, s)
		p = p[sumBytes:]
	}
	sealHeader(b)
}

// crcOf returns the crc that an encoded header has to have.
func crcOf(b []byte) uint32 {
	tmp := bytes.Clone(b)
	binary.LittleEndian.PutUint32(tmp[20:], 0)
	return clustersum.Plain(tmp)
}

// sealHeader sets the header crc.
func sealHeader(b []byte) {
	binary.LittleEndian.PutUint32(b[20:], 0)
	binary.LittleEndian.PutUint32(b[20:], clustersum.Plain(b))
}

// regenerate gives an encoded header another chunk generation (J4).
func regenerate(b []byte, generation uint64) {
	binary.LittleEndian.PutUint64(b[24:], generation)
	sealHeader(b)
}

// peekHeader tells from the first bytes of b (at least fixedHeader) how long the
// header claims to be; ErrBadRecord if it cannot be one.
func peekHeader(b []byte) (int, error) {
	le := binary.LittleEndian
	if len(b) < fixedHeader || !bytes.Equal(b[:8], magic[:]) {
		return 0, ErrBadRecord
	}
	if v := le.Uint16(b[8:]); v > formatVersion {
		return 0, fmt.Errorf("%w (%d)", ErrNewerFormat, v)
	} else if v == 0 {
		return 0, ErrBadRecord
	}
	n := le.Uint32(b[12:])
	if n < blockfs.Alignment || n > maxHeader || n%blockfs.Alignment != 0 {
		return 0, ErrBadRecord
	}
	return int(n), nil
}

// decodeHeader reads a header from b, exactly the bytes that peekHeader named.
// It checks all that can be checked without the data.
func decodeHeader(b []byte) (*Header, error) {
	n, err := peekHeader(b)
	if err != nil {
		return nil, err
	}
	if n != len(b) {
		return nil, ErrBadRecord
	}
	le := binary.LittleEndian
	if crcOf(b) != le.Uint32(b[20:]) {
		return nil, ErrBadRecord
	}
	h := &Header{
		HeaderBytes: uint32(n),
		DataBytes:   le.Uint32(b[16:]),
		Generation:  le.Uint64(b[24:]),
		Epoch:       le.Uint32(b[48:]),
		Seqs:        le.Uint32(b[52:]),
		Seq:         le.Uint64(b[56:]),
		Promise:     le.Uint64(b[64:]),
		Time:        int64(le.Uint64(b[72:])),
		Cluster:     le.Uint32(b[88:]),
	}
	copy(h.VDisk[:], b[32:48])
	ne, ns := le.Uint32(b[80:]), le.Uint32(b[84:])
	if ne > maxExtents || ns > maxHeader/sumBytes || headerSize(int(ne), int(ns)) != n {
		return nil, ErrBadRecord
	}
	if h.Cluster < lbaBytes || h.Cluster&(h.Cluster-1) != 0 || h.DataBytes > maxRecordData ||
		uint64(ns)*uint64(h.Cluster) != uint64(h.DataBytes) || h.Seqs > ne && ne > 0 || h.Seq == 0 {
		return nil, ErrBadRecord
	}
	h.Extents, h.Sums = make([]Extent, ne), make([]uint32, ns)
	p := b[fixedHeader:]
	left := uint64(ns) // clusters that no extent has yet; each belongs to one
	for i := range h.Extents {
		e := &h.Extents[i]
		*e = Extent{LBA: le.Uint64(p), Length: le.Uint64(p[8:]), Kind: Kind(p[16]),
			SeqDelta: le.Uint32(p[20:]), Data: le.Uint32(p[24:])}
		if !h.validExtent(e, left) {
			return nil, ErrBadRecord
		}
		if e.HasData() {
			left -= e.Length / uint64(h.Cluster/lbaBytes)
		}
		p = p[extentBytes:]
	}
	for i := range h.Sums {
		h.Sums[i] = le.Uint32(p)
		p = p[sumBytes:]
	}
	if le.Uint16(b[8:]) != version(h.Extents) {
		return nil, ErrBadRecord
	}
	return h, nil
}

// validExtent checks one extent against its header; left bounds its data, in
// clusters.
func (h *Header) validExtent(e *Extent, left uint64) bool {
	per := uint64(h.Cluster / lbaBytes)
	if e.LBA%per != 0 || e.Length%per != 0 || e.LBA+e.Length < e.LBA || e.SeqDelta >= h.Seqs {
		return false
	}
	switch e.Kind {
	case KindData:
		return e.Length/per <= left && uint64(e.Data)+e.Length/per <= uint64(h.DataBytes/h.Cluster)
	case KindReservation, KindPin:
		if e.Length == 0 { // the place that version 1 kept for it
			return true
		}
		at, most := uint64(ReservationLBA), maxReservationClusters(h.Cluster)
		if e.Kind == KindPin {
			at, most = PinLBA, maxPinClusters(h.Cluster)
		}
		return e.LBA == at && e.Length/per <= min(left, most) && uint64(e.Data)+e.Length/per <= uint64(h.DataBytes/h.Cluster)
	case KindZero, KindTrim:
		return true
	}
	return false
}

// verifyData checks the sums of a record's data.
func (h *Header) verifyData(seed clustersum.Seed, data []byte) bool {
	per := uint64(h.Cluster / lbaBytes)
	for i := range h.Extents {
		e := &h.Extents[i]
		if !e.HasData() {
			continue
		}
		for k := uint64(0); k < e.Length/per; k++ {
			c := uint64(e.Data) + k
			if seed.Sum(e.LBA+k*per, data[c*uint64(h.Cluster):(c+1)*uint64(h.Cluster)]) != h.Sums[c] {
				return false
			}
		}
	}
	return true
}

// sameContent reports whether two records of the same epoch and seq say the same (J4).
func (h *Header) sameContent(o *Header) bool {
	if h.Epoch != o.Epoch || h.Seq != o.Seq || h.Seqs != o.Seqs || len(h.Extents) != len(o.Extents) || len(h.Sums) != len(o.Sums) {
		return false
	}
	for i := range h.Extents {
		if h.Extents[i] != o.Extents[i] {
			return false
		}
	}
	for i := range h.Sums {
		if h.Sums[i] != o.Sums[i] {
			return false
		}
	}
	return true
}
