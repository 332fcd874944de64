package iscsi

// SAM-5 status codes.
const (
	statusGood                = 0x00
	statusCheckCondition      = 0x02
	statusBusy                = 0x08
	statusReservationConflict = 0x18
	statusTaskSetFull         = 0x28
)

// Sense keys that code names.
const (
	keyIllegalRequest = 0x05
	keyCopyAborted    = 0x0a
)

// sense is SPC-4 sense data before it is encoded.
type sense struct {
	key, asc, ascq byte
	infoValid      bool
	info           uint64
	field          fieldPointer
	cscd           cscdSense
}

// fieldPointer says which byte of the CDB or of the parameter data is wrong (SPC-4
// clause 4.5.2.4.2); the zero value says nothing.
type fieldPointer struct {
	where  byte // 0: unknown; fieldCDB, fieldData
	offset uint16
}

const (
	fieldData = 0x80 // SKSV
	fieldCDB  = 0xc0 // SKSV, C/D
)

// cscdSense is the segment at which EXTENDED COPY failed, and what its source or
// destination answered; role 0: it did not fail at a segment; status 0: nothing was
// answered.
type cscdSense struct {
	role           byte // cscdSource, cscdDestination
	segment        uint16
	status         byte
	key, asc, ascq byte
}

const (
	cscdSource      = 1
	cscdDestination = 2
)

// setInfo fills INFORMATION.
func (s *sense) setInfo(v uint64) { s.infoValid, s.info = true, v }

// at names the byte of the CDB that is refused.
func (s sense) at(offset uint16) sense {
	s.field = fieldPointer{fieldCDB, offset}
	return s
}

// inData names the byte of the parameter data that is refused.
func (s sense) inData(offset int) sense {
	s.field = fieldPointer{fieldData, uint16(min(offset, 0xffff))}
	return s
}

// Sense data this target reports: key, additional code, qualifier.
var (
	senseNone             = sense{}
	senseNotReady         = sense{key: 0x02, asc: 0x04, ascq: 0x03} // manual intervention required
	senseTransition       = sense{key: 0x02, asc: 0x04, ascq: 0x0a}
	senseStandby          = sense{key: 0x02, asc: 0x04, ascq: 0x0b}
	senseUnavailable      = sense{key: 0x02, asc: 0x04, ascq: 0x0c}
	senseOffline          = sense{key: 0x02, asc: 0x04, ascq: 0x12}
	senseReadError        = sense{key: 0x03, asc: 0x11}
	senseWriteError       = sense{key: 0x03, asc: 0x0c}
	senseInternal         = sense{key: 0x04, asc: 0x44}
	senseInProgress       = sense{key: keyIllegalRequest, asc: 0x00, ascq: 0x16}
	senseListLength       = sense{key: keyIllegalRequest, asc: 0x1a}
	senseInvalidOpcode    = sense{key: keyIllegalRequest, asc: 0x20}
	senseLBARange         = sense{key: keyIllegalRequest, asc: 0x21}
	senseInvalidField     = sense{key: keyIllegalRequest, asc: 0x24}
	senseNoLUN            = sense{key: keyIllegalRequest, asc: 0x25}
	senseInvalidParameter = sense{key: keyIllegalRequest, asc: 0x26}
	senseTooManyCSCDs     = sense{key: keyIllegalRequest, asc: 0x26, ascq: 0x06}
	senseCSCDType         = sense{key: keyIllegalRequest, asc: 0x26, ascq: 0x07}
	senseTooManySegments  = sense{key: keyIllegalRequest, asc: 0x26, ascq: 0x08}
	senseSegmentType      = sense{key: keyIllegalRequest, asc: 0x26, ascq: 0x09}
	senseInlineData       = sense{key: keyIllegalRequest, asc: 0x26, ascq: 0x0b}
	senseNoSaving         = sense{key: keyIllegalRequest, asc: 0x39}
	senseInvalidMessage   = sense{key: keyIllegalRequest, asc: 0x49}
	senseInvalidIU        = sense{key: keyIllegalRequest, asc: 0x0e, ascq: 0x03}
	senseInvalidRelease   = sense{key: keyIllegalRequest, asc: 0x26, ascq: 0x04} // of a persistent reservation
	senseNoRegistrations  = sense{key: keyIllegalRequest, asc: 0x55, ascq: 0x04} // insufficient registration resources
	senseWriteProtected   = sense{key: 0x07, asc: 0x27}
	senseSoftwareProtect  = sense{key: 0x07, asc: 0x27, ascq: 0x02}
	senseNoSpace          = sense{key: 0x07, asc: 0x27, ascq: 0x07}
	senseCopyAborted      = sense{key: keyCopyAborted}
	senseUnreachableCSCD  = sense{key: keyCopyAborted, asc: 0x08, ascq: 0x04}
	senseThirdParty       = sense{key: keyCopyAborted, asc: 0x0d, ascq: 0x01}
	senseCSCDGone         = sense{key: keyCopyAborted, asc: 0x0d, ascq: 0x02}
	senseCSCDWrongType    = sense{key: keyCopyAborted, asc: 0x0d, ascq: 0x03}
	senseInexactSegment   = sense{key: keyCopyAborted, asc: 0x26, ascq: 0x0a}
	senseAborted          = sense{key: 0x0b, asc: 0x00, ascq: 0x06} // I/O process terminated
	senseDataPhase        = sense{key: 0x0b, asc: 0x4b}
	senseMiscompare       = sense{key: 0x0e, asc: 0x1d}

	uaPowerOn                = sense{key: 0x06, asc: 0x29}
	uaReset                  = sense{key: 0x06, asc: 0x29, ascq: 0x03}
	uaNexusLoss              = sense{key: 0x06, asc: 0x29, ascq: 0x07}
	uaModeChanged            = sense{key: 0x06, asc: 0x2a, ascq: 0x01}
	uaAccessChanged          = sense{key: 0x06, asc: 0x2a, ascq: 0x06}
	uaReservationsPreempted  = sense{key: 0x06, asc: 0x2a, ascq: 0x03}
	uaReservationsReleased   = sense{key: 0x06, asc: 0x2a, ascq: 0x04}
	uaRegistrationsPreempted = sense{key: 0x06, asc: 0x2a, ascq: 0x05}
	uaCleared                = sense{key: 0x06, asc: 0x2f}
	uaCapacityChanged        = sense{key: 0x06, asc: 0x2a, ascq: 0x09}
	uaSpaceThreshold         = sense{key: 0x06, asc: 0x38, ascq: 0x07}
	uaLUNsChanged            = sense{key: 0x06, asc: 0x3f, ascq: 0x0e}
)

const (
	fixedSenseLen = 18
	// maxSenseLen is the longest sense data: descriptor format with INFORMATION (12),
	// command-specific information (12), sense key specific (8), and a forwarded
	// sense descriptor with fixed format data (4 + 18), after the header of 8.
	maxSenseLen = 8 + 12 + 12 + 8 + 4 + fixedSenseLen
)

// encode appends the sense data to b, which has room for maxSenseLen, in
// descriptor or fixed format.
func (s *sense) encode(b []byte, descriptor bool) []byte {
	if descriptor {
		return s.appendDescriptor(b)
	}
	return s.appendFixed(b)
}

// appendFixed encodes fixed format sense data (SPC-4 clause 4.5.3). INFORMATION has
// 32 bits there: what does not fit is not valid. Sense data of a copy source or
// destination stands behind, where COMMAND-SPECIFIC INFORMATION points to.
func (s *sense) appendFixed(b []byte) []byte {
	i := len(b)
	b = append(b, make([]byte, fixedSenseLen)...)
	d := b[i:]
	d[0] = 0x70
	if s.infoValid && s.info <= 0xffffffff {
		d[0] |= 0x80
		be.PutUint32(d[3:], uint32(s.info))
	}
	d[2], d[12], d[13] = s.key, s.asc, s.ascq
	d[15] = s.field.where
	be.PutUint16(d[16:], s.field.offset)
	n := fixedSenseLen
	if c := &s.cscd; c.role != 0 {
		be.PutUint16(d[10:], c.segment)
		if c.status != 0 {
			d[7+c.role] = fixedSenseLen // byte 8: the source's area, byte 9: the destination's
			b = append(b, c.status)
			n++
		}
		if c.status == statusCheckCondition {
			inner := sense{key: c.key, asc: c.asc, ascq: c.ascq}
			b = inner.appendFixed(b)
			n += fixedSenseLen
		}
	}
	b[i+7] = byte(n - 8)
	return b
}

// appendDescriptor encodes descriptor format sense data (SPC-4 clause 4.5.2).
func (s *sense) appendDescriptor(b []byte) []byte {
	i := len(b)
	b = append(b, 0x72, s.key, s.asc, s.ascq, 0, 0, 0, 0)
	if s.infoValid {
		b = append(b, 0x00, 10, 0x80, 0)
		b = be.AppendUint64(b, s.info)
	}
	if c := &s.cscd; c.role != 0 {
		b = append(b, 0x01, 10, 0, 0)
		b = be.AppendUint64(b, uint64(c.segment))
		if c.status != 0 {
			b = append(b, 0x0c, 2+fixedSenseLen, c.role, c.status)
			inner := sense{key: c.key, asc: c.asc, ascq: c.ascq}
			b = inner.appendFixed(b)
		}
	}
	if f := s.field; f.where != 0 {
		b = append(b, 0x02, 6, 0, 0, f.where, byte(f.offset>>8), byte(f.offset), 0)
	}
	b[i+7] = byte(len(b) - i - 8)
	return b
}
