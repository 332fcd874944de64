package iscsi

import "fmt"

// Vital product data pages.
const (
	vpdSupported   = 0x00
	vpdSerial      = 0x80
	vpdIdentifiers = 0x83
	vpdExtended    = 0x86
	vpdThirdParty  = 0x8f
	vpdLimits      = 0xb0
	vpdCharacter   = 0xb1
	vpdProvision   = 0xb2
)

// vpdPages are the supported pages in ascending order.
var vpdPages = []byte{vpdSupported, vpdSerial, vpdIdentifiers, vpdExtended, vpdThirdParty, vpdLimits, vpdCharacter, vpdProvision}

// serviceKnows tells which pages the SCSI service can produce.
func serviceKnows(page byte) bool {
	return page != vpdExtended && page != vpdThirdParty && page != vpdCharacter
}

// inquiry passes through the SCSI service, which yields the standard data and a
// part of the pages; what it gets wrong or lacks is filled in here.
func inquiry(t *task) {
	evpd, page := t.cdb[1]&0x01 != 0, t.cdb[2]
	if t.cdb[1]&0x02 != 0 { // CMDDT is obsolete
		t.fail(senseInvalidField.at(1))
		return
	}
	if !evpd && page != 0 || evpd && (t.lu == nil || !supportedPage(page)) {
		t.fail(senseInvalidField.at(2))
		return
	}
	asked := page
	if evpd && !serviceKnows(page) {
		asked = vpdSupported
	}
	b, st, sn, err := t.c.sess.target.scsi.inquiry(t.unit(), t.capacity(), evpd, asked)
	switch {
	case err != nil:
		t.serviceFault(err)
	case st != statusGood:
		t.fail(sn)
	case evpd:
		t.reply(vpdPage(t, page, b[0]))
	default:
		t.reply(t.standardInquiry(b))
	}
}

func supportedPage(p byte) bool {
	for _, x := range vpdPages {
		if x == p {
			return true
		}
	}
	return false
}

// standardLen is the length of our standard INQUIRY data: up to and including
// the version descriptors and their reserved bytes.
const standardLen = 96

// standardInquiry corrects the service's standard data (SPC-4 clause 6.6.2).
func (t *task) standardInquiry(got []byte) []byte {
	b := make([]byte, standardLen)
	copy(b, got[:36])
	b[2] = 0x06 // SPC-4
	b[3] = 0x12 // HISUP, response data format 2
	b[4] = standardLen - 5
	b[5] = 0x10 | 0x08 // TPGS 01b: implicit access states; 3PC
	b[6] = 0
	b[7] = 0x02 // CMDQUE
	if t.lu == nil {
		b[0], b[5] = 0x7f, 0 // no logical unit here
		copy(b[8:], fmt.Sprintf("%-8s%-16s%-4s", "OVGATE", "", "1"))
		return b
	}
	copy(b[8:], fmt.Sprintf("%-8s%-16s%-4s", t.lu.Vendor, t.lu.Product, t.lu.Revision))
	for i, v := range versionDescriptors {
		be.PutUint16(b[58+2*i:], v)
	}
	return b
}

// vpdPage builds a page; peripheral is the first byte that the service reported.
func vpdPage(t *task, page, peripheral byte) []byte {
	b := []byte{peripheral, page, 0, 0}
	switch page {
	case vpdSupported:
		b = append(b, vpdPages...)
	case vpdSerial:
		b = append(b, t.lu.Serial...)
	case vpdIdentifiers:
		b = t.identifiers(b)
	case vpdExtended:
		b = append(b, make([]byte, 60)...)
		b[5] = 0x07 // HEADSUP, ORDSUP, SIMPSUP
	case vpdThirdParty:
		b = append(b, thirdPartyCopy()...)
	case vpdLimits:
		b = append(b, t.lu.blockLimits()...)
	case vpdCharacter:
		b = append(b, make([]byte, 60)...)
		be.PutUint16(b[4:], 1) // non-rotating medium
	case vpdProvision:
		// LBPU, LBPWS, LBPWS10, LBPRZ; thin
		b = append(b, t.lu.thresholdExponent(), 0x80|0x40|0x20|0x04, 0x02, 0)
	}
	be.PutUint16(b[2:], uint16(len(b)-4))
	return b
}

// blockLimits is page B0h from byte 4 on (SBC-4 clause 6.6.4).
func (l *lun) blockLimits() []byte {
	b := make([]byte, 60)
	cluster := uint32(l.Disk.Geometry().ClusterSize >> l.shift)
	b[1] = maxCompareBlocks
	be.PutUint16(b[2:], uint16(min(cluster, 0xffff)))
	be.PutUint32(b[4:], maxTransfer>>l.shift)
	be.PutUint32(b[8:], optimalTransfer>>l.shift)
	be.PutUint32(b[16:], uint32(l.unmapLimit()))
	be.PutUint32(b[20:], maxUnmapParams)
	be.PutUint32(b[24:], cluster)
	be.PutUint32(b[28:], 0x80000000) // UGAVALID, alignment 0
	be.PutUint64(b[32:], maxWriteSameBytes>>l.shift)
	// Any alignment and granularity are atomic; with a boundary, nothing is.
	be.PutUint32(b[40:], uint32(l.atomicBlocks()))
	return b
}

// identifiers appends the designators of page 83h: what the logical unit is,
// then through which port and device it was asked.
func (t *task) identifiers(b []byte) []byte {
	const binary, ascii, utf8 = 1, 2, 3
	const unit, port, device = 0x00, 0x10, 0x20
	add := func(codeSet, association, kind byte, v []byte) {
		if association != unit {
			codeSet |= 0x50 // protocol identifier iSCSI
			association |= 0x80
		}
		b = append(b, codeSet, association|kind, 0, byte(len(v)))
		b = append(b, v...)
	}
	ss := t.c.sess
	add(binary, unit, 3, t.lu.NAA[:])
	add(ascii, unit, 1, []byte(fmt.Sprintf("%-8s%s", t.lu.Vendor, t.lu.Serial)))
	add(binary, port, 4, []byte{0, 0, byte(ss.group >> 8), byte(ss.group)}) // relative target port
	add(binary, port, 5, []byte{0, 0, byte(ss.group >> 8), byte(ss.group)})
	add(utf8, port, 8, padName(fmt.Sprintf("%s,t,0x%04x", ss.target.name, ss.group)))
	add(utf8, device, 8, padName(ss.target.name))
	return b
}

// padName ends a SCSI name string with NULs up to a multiple of four.
func padName(s string) []byte {
	n := len(s) + 1
	b := make([]byte, n+pad(n))
	copy(b, s)
	return b
}
