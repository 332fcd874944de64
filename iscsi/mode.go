package iscsi

// modePage is one mode page: its number and its values. Its bytes start with the
// page code. changed may be nil: nothing in it can be changed.
type modePage struct {
	code, sub byte
	current   func(*lun) []byte // nil result: the unit does not have it
	changed   []byte            // mask of the changeable bits
}

// Bits of the control page that MODE SELECT changes.
const (
	controlDSense = 0x04 // byte 2
	controlSWP    = 0x08 // byte 4
)

// modePages are in the order in which they are returned (SPC-4 clause 7.5).
var modePages = []modePage{
	{0x01, 0, recoveryPage, nil},
	{0x08, 0, cachingPage, nil},
	{0x0a, 0, controlPage, []byte{2: controlDSense, 4: controlSWP}},
	{0x1c, 0, exceptionsPage, nil},
	{0x1c, 2, thresholdPage, nil},
}

// recoveryPage: automatic reallocation of both kinds.
func recoveryPage(*lun) []byte { return []byte{0x01, 0x0a, 0xc0, 11: 0} }

func cachingPage(l *lun) []byte {
	b := []byte{0x08, 18, 19: 0}
	if l.Disk.Geometry().WriteCache {
		b[2] = 0x04 // WCE
	}
	return b
}

// controlPage: a task set per nexus, reordering of SIMPLE tasks, QERR 00b, no time
// limit.
func controlPage(l *lun) []byte {
	b := []byte{0x0a, 0x0a, 0x20, 0x10, 0, 0, 0, 0, 0xff, 0xff, 0, 0}
	if l.modes.descriptorSense.Load() {
		b[2] |= controlDSense
	}
	if l.modes.softwareProtect.Load() {
		b[4] |= controlSWP
	}
	return b
}

// exceptionsPage: none are reported.
func exceptionsPage(*lun) []byte { return []byte{0x1c, 0x0a, 0x08, 11: 0} }

const (
	allModePages = 0x3f
	allSubpages  = 0xff
	subpageBit   = 0x40 // SPF: the page has a subpage code and a two-byte length
)

// Page control field.
const (
	pcCurrent    = 0
	pcChangeable = 1
	pcDefault    = 2
	pcSaved      = 3
)

// values returns a page of a unit, or nil.
func (p *modePage) values(l *lun, control byte) []byte {
	b := p.current(l)
	if b == nil || control == pcCurrent {
		return b
	}
	header := 2
	if p.sub != 0 {
		header = 4
	}
	switch control {
	case pcChangeable:
		clear(b[header:])
		copy(b[header:], p.changed[min(header, len(p.changed)):])
	case pcDefault: // what can be changed is off by default
		for i, m := range p.changed {
			b[i] &^= m
		}
	}
	return b
}

// modeBody returns the pages that a MODE SENSE asks for.
func (t *task) modeBody() ([]byte, bool) {
	pc, code, sub := t.cdb[2]>>6, t.cdb[2]&0x3f, t.cdb[3]
	if pc == pcSaved {
		return nil, t.refuse(senseNoSaving)
	}
	if code == allModePages && sub != 0 && sub != allSubpages {
		return nil, t.refuse(senseInvalidField.at(3))
	}
	var out []byte
	for i := range modePages {
		p := &modePages[i]
		if code != p.code && code != allModePages || sub != p.sub && sub != allSubpages {
			continue
		}
		out = append(out, p.values(t.lu, pc)...)
	}
	if out == nil {
		return nil, t.refuse(senseInvalidField.at(2))
	}
	return out, true
}

// deviceSpecific: WP when the unit takes no writes, DPOFUA always.
func (t *task) deviceSpecific() byte {
	if _, ok := t.lu.protection(t.protected); ok {
		return 0x90
	}
	return 0x10
}

// blockDescriptor is the short or long mode block descriptor (SBC-3 clause 6.4.2).
func (t *task) blockDescriptor(long bool) []byte {
	blocks, size := t.lu.capacity(), uint32(t.lu.block())
	if long {
		b := make([]byte, 16)
		be.PutUint64(b, blocks)
		be.PutUint32(b[12:], size)
		return b
	}
	b := make([]byte, 8)
	be.PutUint32(b, uint32(min(blocks, 0xffffffff)))
	be.PutUint32(b[4:], size)
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
	b[0] = byte(len(b) - 1) // all pages and descriptors together are far from 255
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

// modeSelect checks the whole parameter list, then changes SWP and D_SENSE of the
// control page; no other value of any page can be changed.
func (t *task) modeSelect(header int) {
	if t.cdbLen == 0 {
		t.good(0)
		return
	}
	if t.cdb[1]&0x10 == 0 || t.cdb[1]&0x01 != 0 { // PF must be set; SP: saving is not supported
		t.fail(senseInvalidField.at(1))
		return
	}
	if uint64(t.want) < t.cdbLen || len(t.data) < header {
		t.fail(senseListLength)
		return
	}
	control := controlPage(t.lu)
	if s, ok := t.modeList(header, control); !ok {
		t.fail(s)
		return
	}
	t.ref = control
	if control[4]&controlSWP != 0 && !t.lu.modes.softwareProtect.Load() {
		// What was cached is written before writing stops (SBC-3 clause 4.12).
		t.submit(OpFlush, 0, 0, nil, false, modeApply)
		return
	}
	modeApply(t)
}

// modeApply makes the control page in t.ref the current one and tells the other
// nexuses when that is a change.
func modeApply(t *task) {
	dsense, swp := t.ref[2]&controlDSense != 0, t.ref[4]&controlSWP != 0
	m := &t.lu.modes
	a, b := m.descriptorSense.Swap(dsense) != dsense, m.softwareProtect.Swap(swp) != swp
	if a || b {
		t.c.srv.tellOthers(t.c.sess, t.lu, uaModeChanged)
	}
	t.good(t.cdbLen)
}

// tellOthers establishes a unit attention for every nexus of a logical unit but one.
func (s *Server) tellOthers(but *session, l *lun, ua sense) {
	for _, ss := range s.users(but.target) {
		if ss != but {
			ss.attention(l, ua)
		}
	}
}

// modeList checks the block descriptors and pages of a MODE SELECT parameter list.
// A control page in it replaces control.
func (t *task) modeList(header int, control []byte) (sense, bool) {
	b := t.data
	descriptors := int(b[3])
	if header == 8 {
		descriptors = int(be.Uint16(b[6:]))
	}
	if descriptors > len(b)-header {
		return senseListLength, false
	}
	if d := b[header : header+descriptors]; len(d) > 0 && !t.sameDescriptor(d) {
		return senseInvalidParameter.inData(header), false
	}
	for at := header + descriptors; at < len(b); {
		p, n := findModePage(b[at:])
		if n > len(b)-at {
			return senseListLength, false
		}
		if p == nil {
			return senseInvalidParameter.inData(at), false
		}
		now := p.values(t.lu, pcCurrent)
		if len(now) != n {
			return senseInvalidParameter.inData(at + 1), false
		}
		for i := 1; i < n; i++ {
			mask := byte(0)
			if i < len(p.changed) {
				mask = p.changed[i]
			}
			if (now[i]^b[at+i])&^mask != 0 {
				return senseInvalidParameter.inData(at + i), false
			}
		}
		if p.code == control[0] && p.sub == 0 {
			copy(control, b[at:at+n])
		}
		at += n
	}
	return sense{}, true
}

// findModePage returns the page whose header b starts with, nil if there is none,
// and the length that the header gives it.
func findModePage(b []byte) (*modePage, int) {
	if len(b) < 2 {
		return nil, 2
	}
	sub, n := byte(0), 2+int(b[1])
	if b[0]&subpageBit != 0 {
		if len(b) < 4 {
			return nil, 4
		}
		sub, n = b[1], 4+int(be.Uint16(b[2:]))
	}
	for i := range modePages {
		if p := &modePages[i]; p.code == b[0]&0x3f && p.sub == sub {
			return p, n
		}
	}
	return nil, n
}

// sameDescriptor accepts a block descriptor that keeps the block length and
// either names no capacity or the present one.
func (t *task) sameDescriptor(d []byte) bool {
	now := t.blockDescriptor(len(d) == 16)
	if len(d) != len(now) {
		return false
	}
	n := len(d) - 4
	return string(d[n:]) == string(now[n:]) && (allZero(d[:n]) || string(d[:n]) == string(now[:n]))
}
