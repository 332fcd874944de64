package iscsi

// SAM-5 status codes.
const (
	statusGood                = 0x00
	statusCheckCondition      = 0x02
	statusBusy                = 0x08
	statusReservationConflict = 0x18
	statusTaskSetFull         = 0x28
)

// sense is SPC-4 sense data before it is encoded.
type sense struct {
	key, asc, ascq byte
	infoValid      bool
	info           uint32
}

// setInfo fills INFORMATION, which has 32 bits in fixed format.
func (s *sense) setInfo(v uint64) { s.infoValid, s.info = true, uint32(v) }

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
	senseListLength       = sense{key: 0x05, asc: 0x1a}
	senseInvalidOpcode    = sense{key: 0x05, asc: 0x20}
	senseLBARange         = sense{key: 0x05, asc: 0x21}
	senseInvalidField     = sense{key: 0x05, asc: 0x24}
	senseNoLUN            = sense{key: 0x05, asc: 0x25}
	senseInvalidParameter = sense{key: 0x05, asc: 0x26}
	senseInvalidMessage   = sense{key: 0x05, asc: 0x49}
	senseNoSaving         = sense{key: 0x05, asc: 0x39}
	senseWriteProtected   = sense{key: 0x07, asc: 0x27}
	senseNoSpace          = sense{key: 0x07, asc: 0x27, ascq: 0x07}
	senseInvalidIU        = sense{key: 0x05, asc: 0x0e, ascq: 0x03}
	senseAborted          = sense{key: 0x0b, asc: 0x00, ascq: 0x06} // I/O process terminated
	senseDataPhase        = sense{key: 0x0b, asc: 0x4b}
	senseMiscompare       = sense{key: 0x0e, asc: 0x1d}

	uaPowerOn         = sense{key: 0x06, asc: 0x29}
	uaReset           = sense{key: 0x06, asc: 0x29, ascq: 0x03}
	uaModeChanged     = sense{key: 0x06, asc: 0x2a, ascq: 0x01}
	uaAccessChanged   = sense{key: 0x06, asc: 0x2a, ascq: 0x06}
	uaCapacityChanged = sense{key: 0x06, asc: 0x2a, ascq: 0x09}
	uaLUNsChanged     = sense{key: 0x06, asc: 0x3f, ascq: 0x0e}
)

const fixedSenseLen = 18

// putFixed encodes fixed format sense data (SPC-4 clause 4.5.3).
func (s sense) putFixed(b []byte) {
	clear(b[:fixedSenseLen])
	b[0] = 0x70
	if s.infoValid {
		b[0] |= 0x80
		be.PutUint32(b[3:], s.info)
	}
	b[2], b[7], b[12], b[13] = s.key, fixedSenseLen-8, s.asc, s.ascq
}

// putDescriptor encodes descriptor format sense data (SPC-4 clause 4.5.2).
func (s sense) putDescriptor(b []byte) []byte {
	b = append(b[:0], 0x72, s.key, s.asc, s.ascq, 0, 0, 0, 0)
	if s.infoValid {
		b[7] = 12
		b = append(b, 0, 10, 0x80, 0, 0, 0, 0, 0)
		b = be.AppendUint32(b, s.info)
	}
	return b
}
