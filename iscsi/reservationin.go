package iscsi

// Service actions of PERSISTENT RESERVE IN (SPC-4 clause 6.13.1).
const (
	prReadKeys         = 0
	prReadReservation  = 1
	prReportCapability = 2
	prReadFullStatus   = 3
)

// persistentIn is PERSISTENT RESERVE IN. It tells what is decided and durable, not
// what is being changed.
func persistentIn(t *task) {
	r := t.lu.res
	state := r.state()
	switch t.cdb[1] & 0x1f {
	case prReadKeys:
		t.reply(state.readKeys())
	case prReadReservation:
		t.reply(state.readReservation())
	case prReportCapability:
		t.reply(r.capabilities(state))
	default:
		t.reply(state.readFullStatus())
	}
}

// header begins parameter data; the length at 4 is filled in by finishPR.
func (r *registry) header() []byte {
	b := make([]byte, 8)
	be.PutUint32(b, r.generation)
	return b
}

func finishPR(b []byte) []byte {
	be.PutUint32(b[4:], uint32(len(b)-8))
	return b
}

// readKeys is READ KEYS (SPC-4 clause 6.13.2): a key for each registered nexus.
func (r *registry) readKeys() []byte {
	b := r.header()
	for i := range r.list {
		b = be.AppendUint64(b, r.list[i].key)
	}
	return finishPR(b)
}

// readReservation is READ RESERVATION (SPC-4 clause 6.13.3). A reservation of all
// registrants has no one key.
func (r *registry) readReservation() []byte {
	b := r.header()
	if r.kind != 0 {
		key := uint64(0)
		if !allRegistrants(r.kind) {
			key = r.find(r.holder)
		}
		b = be.AppendUint64(b, key)
		b = append(b, 0, 0, 0, 0, 0, r.kind, 0, 0)
	}
	return finishPR(b)
}

// capabilities is REPORT CAPABILITIES (SPC-4 clause 6.13.4).
func (r *reservations) capabilities(state *registry) []byte {
	b := make([]byte, 8)
	be.PutUint16(b, 8)
	b[2] = 0x10 | 0x08 | 0x04 // CRH, SIP_C, ATP_C
	b[3] = 0x80 | 0x30        // TMV; ALLOW COMMANDS 011b: see conflict.go
	if r.durable {
		b[2] |= 0x01 // PTPL_C
		if state.aptpl {
			b[3] |= 0x01 // PTPL_A
		}
	}
	for kind := range reservationNames { // bit 0 of byte 5 is type 8
		if kind == exclusiveAccessAR {
			b[5] |= 0x01
		} else {
			b[4] |= 1 << kind
		}
	}
	return b
}

// readFullStatus is READ FULL STATUS (SPC-4 clause 6.13.5): each registration is of
// one target port, so ALL_TG_PT is never set.
func (r *registry) readFullStatus() []byte {
	b := r.header()
	for i := range r.list {
		g := &r.list[i]
		at := len(b)
		b = append(b, make([]byte, 24)...)
		be.PutUint64(b[at:], g.key)
		if r.holds(g.itNexus) {
			b[at+12], b[at+13] = 0x01, r.kind
		}
		be.PutUint16(b[at+18:], g.port)
		b = putTransportID(b, g.itNexus)
		be.PutUint32(b[at+20:], uint32(len(b)-at-24))
	}
	return finishPR(b)
}
