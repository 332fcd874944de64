package iscsi

// reportOpcodes is REPORT SUPPORTED OPERATION CODES (SPC-4 clause 6.35), from
// the table that dispatches.
func reportOpcodes(t *task) {
	rctd := t.cdb[2]&0x80 != 0
	x := t.c.srv.commands
	op, sa := t.cdb[3], int(be.Uint16(t.cdb[4:]))
	switch t.cdb[2] & 0x07 {
	case 0:
		t.reply(x.all(t.lu, rctd))
	case 1: // a command without service actions
		if x.hasActions(op) {
			t.fail(senseInvalidField.at(2))
			return
		}
		t.reply(oneOpcode(x.find(t.lu, op, noSA), rctd))
	case 2:
		if len(x.index[op]) > 0 && !x.hasActions(op) {
			t.fail(senseInvalidField.at(2))
			return
		}
		t.reply(oneOpcode(x.find(t.lu, op, sa), rctd))
	case 3: // either
		if !x.hasActions(op) {
			if sa != 0 {
				t.reply(oneOpcode(nil, rctd))
				return
			}
			sa = noSA
		}
		t.reply(oneOpcode(x.find(t.lu, op, sa), rctd))
	default:
		t.fail(senseInvalidField.at(2))
	}
}

// timeoutsDescriptor: no time-outs are stated.
var timeoutsDescriptor = []byte{0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

func (x *commandTable) all(l *lun, rctd bool) []byte {
	b := make([]byte, 4)
	for i := range x.set {
		c := &x.set[i]
		if !c.on(l) {
			continue
		}
		d := make([]byte, 8)
		d[0] = c.op
		if c.sa != noSA {
			be.PutUint16(d[2:], uint16(c.sa))
			d[5] |= 0x01 // SERVACTV
		}
		be.PutUint16(d[6:], uint16(cdbLength(c.op)))
		if rctd {
			d[5] |= 0x02 // CTDP
			d = append(d, timeoutsDescriptor...)
		}
		b = append(b, d...)
	}
	be.PutUint32(b, uint32(len(b)-4))
	return b
}

func oneOpcode(c *command, rctd bool) []byte {
	if c == nil {
		return []byte{0, 0x01, 0, 0} // not supported
	}
	n := cdbLength(c.op)
	b := make([]byte, 4+n)
	b[1] = 0x03 // supported, as the standard says
	be.PutUint16(b[2:], uint16(n))
	b[4] = c.op
	copy(b[5:], c.usage)
	if c.sa != noSA {
		b[5] = b[5]&0xe0 | byte(c.sa)
	}
	if rctd {
		b[1] |= 0x80
		b = append(b, timeoutsDescriptor...)
	}
	return b
}

// reportTMF is REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-4 clause 6.36).
func reportTMF(t *task) {
	b := []byte{
		0x80 | 0x40 | 0x10 | 0x08 | 0x02, // ABORT TASK, ABORT TASK SET, CLEAR TASK SET, LUN RESET, TARGET RESET
		0, 0, 0,
	}
	if t.cdb[2]&0x80 != 0 { // REPD
		b = append(b, make([]byte, 12)...)
		b[3] = 12
	}
	t.reply(b)
}
