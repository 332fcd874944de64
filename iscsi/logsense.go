package iscsi

import "math/bits"

// Log pages (SPC-4 clause 7.3).
const (
	logSupported    = 0x00
	logProvisioning = 0x0c
)

// thresholdSet is the unit in which thin space is counted, in bytes: fine enough for
// the smallest disk, and 32 bits of it are 4 PiB.
const thresholdSet = 1 << 20

// Parameters of the logical block provisioning log page (SBC-3 clause 6.3.4).
const (
	resourceAvailable = 0x0001
	resourceUsed      = 0x0002
)

// space returns the thin space of a unit, if its Disk tells.
func (l *lun) space() (Space, bool) {
	r, ok := l.Disk.(SpaceReporter)
	if !ok {
		return Space{}, false
	}
	s := r.Space()
	return s, s.Available >= 0
}

// thresholdExponent is the logarithm of a threshold set in blocks, for VPD B2h; 0:
// the unit has no thresholds.
func (l *lun) thresholdExponent() byte {
	if _, ok := l.space(); !ok {
		return 0
	}
	return byte(bits.TrailingZeros(thresholdSet)) - l.shift
}

func sets(n int64) uint32 { return uint32(min(max(n, 0)/thresholdSet, 0xffffffff)) }

// thresholdPage is mode page 1Ch/02h, logical block provisioning (SBC-3 clause
// 6.4.7): one threshold, reached when the available space falls to it. The threshold
// is the Disk's; initiators cannot change it.
func thresholdPage(l *lun) []byte {
	s, ok := l.space()
	if !ok {
		return nil
	}
	b := make([]byte, 24)
	b[0], b[1], b[3] = 0x1c|subpageBit, 0x02, 20
	if s.Threshold > 0 {
		b[16] = 0x80 // ENABLED; soft threshold, armed while decreasing
		b[17] = resourceAvailable
		be.PutUint32(b[20:], sets(s.Threshold+thresholdSet-1))
	}
	return b
}

// logSense is LOG SENSE: what thin space there is.
func logSense(t *task) {
	if t.cdb[1]&0x01 != 0 { // SP: nothing is saved
		t.fail(senseInvalidField.at(1))
		return
	}
	page, sub := t.cdb[2]&0x3f, t.cdb[3]
	s, thin := t.lu.space()
	var body []byte
	switch {
	case page == logSupported && (sub == 0 || sub == allSubpages):
		body = supportedLogPages(thin, sub != 0)
	case page == logProvisioning && sub == 0 && thin:
		from := be.Uint16(t.cdb[5:]) // PARAMETER POINTER
		if from > resourceUsed {
			t.fail(senseInvalidField.at(5))
			return
		}
		body = provisioningLog(s, from)
	default:
		t.fail(senseInvalidField.at(2))
		return
	}
	b := append([]byte{page, sub, 0, 0}, body...)
	if sub != 0 {
		b[0] |= subpageBit
	}
	be.PutUint16(b[2:], uint16(len(body)))
	t.reply(b)
}

// supportedLogPages lists the pages, with subpages as pairs.
func supportedLogPages(thin, subpages bool) []byte {
	pages := []byte{logSupported}
	if thin {
		pages = append(pages, logProvisioning)
	}
	if !subpages {
		return pages
	}
	b := []byte{logSupported, 0, logSupported, allSubpages}
	for _, p := range pages[1:] {
		b = append(b, p, 0)
	}
	return b
}

// provisioningLog is page 0Ch: available and used space in threshold sets, from a
// parameter code on.
func provisioningLog(s Space, from uint16) []byte {
	var b []byte
	add := func(code uint16, n int64, scope byte) {
		if code < from {
			return
		}
		b = be.AppendUint16(b, code)
		b = append(b, 0x03, 8) // binary list parameter
		b = be.AppendUint32(b, sets(n))
		b = append(b, scope, 0, 0, 0)
	}
	add(resourceAvailable, s.Available, 0) // who shares it is not reported
	add(resourceUsed, s.Used, 1)           // dedicated to this unit
	return b
}

// SpaceThreshold tells initiators that the thin space of a LUN's Disk has fallen to
// its threshold (Space.Threshold).
func (s *Server) SpaceThreshold(iqn string, lun uint16) error {
	return s.raise(iqn, lun, uaSpaceThreshold)
}
