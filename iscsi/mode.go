package iscsi

import "bytes"

// modePage returns the current values of a mode page, or nil.
func (t *task) modePage(code byte) []byte {
	switch code {
	case 0x01: // read-write error recovery: automatic reallocation of both kinds
		return []byte{0x01, 0x0a, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	case 0x08: // caching
		b := make([]byte, 20)
		b[0], b[1] = 0x08, 18
		if t.lu.Disk.Geometry().WriteCache {
			b[2] = 0x04 // WCE
		}
		return b
	case 0x0a: // control: a task set per nexus, reordering of SIMPLE tasks, QERR 00b, fixed format sense, no time limit
		return []byte{0x0a, 0x0a, 0x20, 0x10, 0, 0, 0, 0, 0xff, 0xff, 0, 0}
	case 0x1c: // informational exceptions: none are reported
		return []byte{0x1c, 0x0a, 0x08, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	}
	return nil
}

var modePages = []byte{0x01, 0x08, 0x0a, 0x1c}

const allModePages = 0x3f

// Page control field.
const (
	pcCurrent    = 0
	pcChangeable = 1
	pcSaved      = 3
)

// modeBody returns the pages that a MODE SENSE asks for.
func (t *task) modeBody() ([]byte, bool) {
	pc, code, sub := t.cdb[2]>>6, t.cdb[2]&0x3f, t.cdb[3]
	if pc == pcSaved {
		return nil, t.refuse(senseNoSaving)
	}
	if sub != 0 && sub != 0xff {
		return nil, t.refuse(senseInvalidField)
	}
	var out []byte
	for _, c := range modePages {
		if code != c && code != allModePages {
			continue
		}
		p := t.modePage(c)
		if pc == pcChangeable {
			clear(p[2:]) // nothing can be changed
		}
		out = append(out, p...)
	}
	if out == nil {
		return nil, t.refuse(senseInvalidField)
	}
	return out, true
}

// deviceSpecific: WP when read-only, DPOFUA always.
func (t *task) deviceSpecific() byte {
	if t.readOnly() {
		return 0x90
	}
	return 0x10
}

// blockDescriptor is the short or long mode block descriptor (SBC-3 clause 6.4.2).
func (t *task) blockDescriptor(long bool) []byte {
	blocks := uint64(t.capacity()) >> blockShift
	if long {
		b := make([]byte, 16)
		be.PutUint64(b, blocks)
		be.PutUint32(b[12:], blockSize)
		return b
	}
	b := make([]byte, 8)
	be.PutUint32(b, uint32(min(blocks, 0xffffffff)))
	be.PutUint32(b[4:], blockSize)
	return b
}

func modeSense6(t *task) {
	body, ok := t.modeBody()
	if !ok {
		t.finish()
		return
	}
	b := []byte{0, 0, t.deviceSpecific(), 0}
	if t.cdb[1]&0x08 == 0 { // DBD
		d := t.blockDescriptor(false)
		b[3] = byte(len(d))
		b = append(b, d...)
	}
	b = append(b, body...)
	b[0] = byte(len(b) - 1)
	t.reply(b)
}

func modeSense10(t *task) {
	body, ok := t.modeBody()
	if !ok {
		t.finish()
		return
	}
	b := make([]byte, 8, 128)
	b[3] = t.deviceSpecific()
	if t.cdb[1]&0x08 == 0 {
		long := t.cdb[1]&0x10 != 0 // LLBAA
		d := t.blockDescriptor(long)
		if long {
			b[4] = 0x01
		}
		be.PutUint16(b[6:], uint16(len(d)))
		b = append(b, d...)
	}
	b = append(b, body...)
	be.PutUint16(b, uint16(len(b)-2))
	t.reply(b)
}

func modeSelect6(t *task)  { t.modeSelect(4) }
func modeSelect10(t *task) { t.modeSelect(8) }

// modeSelect accepts what changes nothing, and refuses the rest: no value of any
// page can be changed.
func (t *task) modeSelect(header int) {
	if t.cdbLen == 0 {
		t.good(0)
		return
	}
	if t.cdb[1]&0x10 == 0 || t.cdb[1]&0x01 != 0 { // PF must be set; SP: saving is not supported
		t.fail(senseInvalidField)
		return
	}
	if uint64(t.want) < t.cdbLen || len(t.data) < header {
		t.fail(senseListLength)
		return
	}
	b := t.data
	descriptors := int(b[3])
	if header == 8 {
		descriptors = int(be.Uint16(b[6:]))
	}
	if descriptors > len(b)-header {
		t.fail(senseListLength)
		return
	}
	if d := b[header : header+descriptors]; len(d) > 0 && !t.sameDescriptor(d) {
		t.fail(senseInvalidParameter)
		return
	}
	for b = b[header+descriptors:]; len(b) > 0; {
		if len(b) < 2 || 2+int(b[1]) > len(b) {
			t.fail(senseListLength)
			return
		}
		n := 2 + int(b[1])
		now := t.modePage(b[0] & 0x3f)
		if b[0]&0x40 != 0 || now == nil || len(now) != n || !bytes.Equal(now[1:], b[1:n]) {
			t.fail(senseInvalidParameter)
			return
		}
		b = b[n:]
	}
	t.good(t.cdbLen)
}

// sameDescriptor accepts a block descriptor that keeps the block length and
// either names no capacity or the present one.
func (t *task) sameDescriptor(d []byte) bool {
	now := t.blockDescriptor(len(d) == 16)
	if len(d) != len(now) {
		return false
	}
	n := len(d) - 4
	return bytes.Equal(d[n:], now[n:]) && (allZero(d[:n]) || bytes.Equal(d[:n], now[:n]))
}
