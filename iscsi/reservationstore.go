package iscsi

import (
	"errors"
	"fmt"
	"hash/crc32"
)

// The stored reservation state of a logical unit: what OpReserve hands to the
// Disk. Big-endian, as SCSI has it. A unit without registrations stores nothing.
//
//	 0 magic    "OVGPRES1"
//	 8 version  u16 = 1
//	10 flags    u16  bit 0: APTPL, the state survives a power loss
//	12 type     u8   of the reservation; 0: none
//	13 reserved u8 = 0
//	14 holder   u16  index of the registration that holds it; FFFFh: none, or all
//	16 count    u16  of registrations, 1 to 256
//	18 registrations, oldest first:
//	     key u64 | isid 6 bytes | port u16 | length u8 | initiator name, normalized
//	   crc32c   u32  of all before
//
// The PRgeneration is not stored: a power on sets it to 0 (SPC-4 clause 6.13.2).
const (
	storedMagic   = "OVGPRES1"
	storedVersion = 1
	storedHeader  = 18
	storedEntry   = 8 + 6 + 2 + 1
	storedCRC     = 4
	flagAPTPL     = 1
	noHolder      = 0xffff

	// MaxReservationBytes bounds the Data of an OpReserve.
	MaxReservationBytes = 64 << 10
)

// A full registry of the longest names is within the bound.
var _ = [MaxReservationBytes - storedHeader - maxRegistrations*(storedEntry+maxName) - storedCRC]struct{}{}

// errStoredReservation: the bytes are not a stored reservation state.
var errStoredReservation = errors.New("stored reservation state is damaged")

// encode returns the state as it is stored; nil for an empty one.
func (r *registry) encode() []byte {
	if len(r.list) == 0 {
		return nil
	}
	b := make([]byte, storedHeader, storedHeader+len(r.list)*(storedEntry+64)+storedCRC)
	copy(b, storedMagic)
	be.PutUint16(b[8:], storedVersion)
	if r.aptpl {
		be.PutUint16(b[10:], flagAPTPL)
	}
	b[12] = r.kind
	be.PutUint16(b[14:], noHolder)
	be.PutUint16(b[16:], uint16(len(r.list)))
	for i := range r.list {
		g := &r.list[i]
		if r.kind != 0 && !allRegistrants(r.kind) && g.itNexus == r.holder {
			be.PutUint16(b[14:], uint16(i))
		}
		b = be.AppendUint64(b, g.key)
		b = append(b, g.isid[:]...)
		b = be.AppendUint16(b, g.port)
		b = append(b, byte(len(g.initiator)))
		b = append(b, g.initiator...)
	}
	return be.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodeRegistry reads a stored state.
func decodeRegistry(b []byte) (*registry, error) {
	r := &registry{index: map[itNexus]int{}}
	if len(b) == 0 {
		return r, nil
	}
	bad := func(why string) (*registry, error) { return nil, fmt.Errorf("%w: %s", errStoredReservation, why) }
	if len(b) < storedHeader+storedCRC || string(b[:8]) != storedMagic {
		return bad("no header")
	}
	if v := be.Uint16(b[8:]); v > storedVersion {
		return nil, fmt.Errorf("stored reservation state has version %d, this program knows %d: upgrade ovgate", v, storedVersion)
	}
	body, crc := b[:len(b)-storedCRC], be.Uint32(b[len(b)-storedCRC:])
	if crc32.Checksum(body, castagnoli) != crc {
		return bad("checksum")
	}
	flags, holder, count := be.Uint16(b[10:]), int(be.Uint16(b[14:])), int(be.Uint16(b[16:]))
	r.aptpl, r.kind = flags&flagAPTPL != 0, b[12]
	single := r.kind != 0 && !allRegistrants(r.kind)
	if be.Uint16(b[8:]) != storedVersion || flags&^flagAPTPL != 0 || b[13] != 0 || count == 0 || count > maxRegistrations ||
		r.kind != 0 && !validReservation(r.kind) || single != (holder < count) || !single && holder != noHolder {
		return bad("fields")
	}
	p := body[storedHeader:]
	for range count {
		if len(p) < storedEntry || len(p) < storedEntry+int(p[16]) {
			return bad("length")
		}
		n := itNexus{isid: [6]byte(p[8:14]), port: be.Uint16(p[14:]), initiator: string(p[17 : 17+int(p[16])])}
		key := be.Uint64(p)
		if _, twice := r.index[n]; twice || key == 0 || CheckName(n.initiator) != nil || NormalizeName(n.initiator) != n.initiator {
			return bad("registration")
		}
		r.set(n, key)
		p = p[storedEntry+len(n.initiator):]
	}
	if len(p) != 0 {
		return bad("length")
	}
	if single {
		r.holder = r.list[holder].itNexus
	}
	return r, nil
}
