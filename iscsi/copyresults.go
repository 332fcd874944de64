package iscsi

// RECEIVE COPY RESULTS in its three forms, and VPD page 8Fh, which says the same as
// the operating parameters.

// copyStatus is RECEIVE COPY STATUS(LID1) (SPC-4 clause 6.19).
func copyStatus(t *task) {
	r, ok := t.c.sess.copies.get(t.cdb[2])
	if !ok {
		t.fail(senseInvalidField.at(2))
		return
	}
	b := make([]byte, 12)
	be.PutUint32(b, 8)
	switch {
	case r.running:
		b[4] = 0x00
	case r.status == statusGood:
		b[4] = 0x01
	default:
		b[4] = 0x02
	}
	be.PutUint16(b[5:], uint16(r.segments))
	b[7] = 0x01 // TRANSFER COUNT is in KiB
	be.PutUint32(b[8:], uint32(min(r.bytes>>10, 0xffffffff)))
	t.reply(b)
}

// copyFailure is RECEIVE COPY FAILURE DETAILS(LID1) (SPC-4 clause 6.17).
func copyFailure(t *task) {
	r, ok := t.c.sess.copies.get(t.cdb[2])
	if !ok || r.running {
		t.fail(senseInvalidField.at(2))
		return
	}
	if r.status == statusGood {
		t.reply(make([]byte, 4)) // no details
		return
	}
	b := make([]byte, 60)
	b[56] = r.status
	if r.status == statusCheckCondition {
		b = r.sense.encode(b, t.descriptorSense())
	}
	be.PutUint16(b[58:], uint16(len(b)-60))
	be.PutUint32(b, uint32(len(b)-4))
	t.reply(b)
}

// copyGranularity is the logarithm of the unit that segments are copied in.
const copyGranularity = minBlockShift

// copyParameters is RECEIVE COPY OPERATING PARAMETERS (SPC-4 clause 6.18). No inline
// and no held data are supported, and streams are not.
func copyParameters(t *task) {
	b := make([]byte, 44, 46)
	b[4] = 0x01 // SNLID: list identifiers may be left out
	be.PutUint16(b[8:], maxCSCDs)
	be.PutUint16(b[10:], maxSegments)
	be.PutUint32(b[12:], maxCopyList)
	be.PutUint32(b[16:], maxSegmentBytes)
	be.PutUint16(b[34:], maxCopies)
	b[36] = maxCopies
	b[37] = copyGranularity
	b[43] = 2
	b = append(b, segmentType, cscdType)
	be.PutUint32(b, uint32(len(b)-4))
	t.reply(b)
}

// thirdPartyCopy is page 8Fh from byte 4 on (SPC-4 clause 7.8.17).
func thirdPartyCopy() []byte {
	var b []byte
	add := func(kind uint16, body ...byte) {
		for len(body)%4 != 0 {
			body = append(body, 0)
		}
		b = be.AppendUint16(b, kind)
		b = be.AppendUint16(b, uint16(len(body)))
		b = append(b, body...)
	}
	add(0x0001, 8, // supported commands
		opThirdPartyOut, 1, saExtendedCopy,
		opThirdPartyIn, 3, saCopyStatus, saCopyParameters, saCopyFailure)
	parameters := make([]byte, 28)
	be.PutUint16(parameters[4:], maxCSCDs)
	be.PutUint16(parameters[6:], maxSegments)
	be.PutUint32(parameters[8:], maxCopyList)
	add(0x0004, parameters...)
	add(0x0008, 2, segmentType, cscdType) // supported descriptors
	general := make([]byte, 32)
	be.PutUint32(general[0:], maxCopies)
	be.PutUint32(general[4:], maxCopies)
	be.PutUint32(general[8:], maxSegmentBytes)
	general[12] = copyGranularity
	add(0x8001, general...)
	return b
}
