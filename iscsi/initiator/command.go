package initiator

import (
	"errors"
	"fmt"
)

// Command is one SCSI command. A Command may be reused after it completed.
type Command struct {
	LUN  uint16
	CDB  [16]byte
	Out  []byte // data to send, or nil
	In   []byte // where data-in goes, or nil; not both
	EDTL uint32 // expected data transfer length; 0: the length of Out or In
	// Immediate marks the command for immediate delivery.
	Immediate bool
	// Attr is the task attribute: 0 untagged, 1 simple, 2 ordered, 3 head of queue.
	Attr byte
	// ForceRead and ForceWrite set the R and W bits against what Out and In say.
	ForceRead, ForceWrite bool

	// Done is called once from the reader; it must not block. Results below are
	// set before.
	Done func(*Command)

	Err      error // nil, *SCSIError, or why the session ended
	Status   byte
	Sense    Sense
	Received int   // bytes of In that were filled
	Residual int64 // positive: underflow; negative: overflow

	itt   uint32
	cmdSN uint32
	sent  int
	wait  chan struct{}
}

// Tag returns the initiator task tag of a submitted command.
func (c *Command) Tag() uint32 { return c.itt }

// CmdSN returns the command number, once it was sent.
func (c *Command) CmdSN() uint32 { return c.cmdSN }

// Sense is decoded sense data, of fixed or descriptor format.
type Sense struct {
	Key, ASC, ASCQ byte
	Descriptor     bool // the format
	InfoValid      bool
	Info           uint64
	Field          int    // byte of the CDB or, with InData, of the parameter data that was refused; -1: not said
	InData         bool   // see Field
	Raw            []byte // as it came
}

// Status codes.
const (
	Good                = 0x00
	CheckCondition      = 0x02
	Busy                = 0x08
	ReservationConflict = 0x18
	TaskSetFull         = 0x28
)

// Sense keys.
const (
	NotReady       = 0x02
	MediumError    = 0x03
	HardwareError  = 0x04
	IllegalRequest = 0x05
	UnitAttention  = 0x06
	DataProtect    = 0x07
	AbortedCommand = 0x0b
	Miscompare     = 0x0e
)

// SCSIError is a command that ended with a status other than GOOD.
type SCSIError struct {
	Op     byte
	Status byte
	Sense  Sense
}

// Error names the operation code, status and sense data.
func (e *SCSIError) Error() string {
	if e.Status != CheckCondition {
		return fmt.Sprintf("scsi: opcode %#02x: status %#02x", e.Op, e.Status)
	}
	return fmt.Sprintf("scsi: opcode %#02x: CHECK CONDITION %x/%02x/%02x", e.Op, e.Sense.Key, e.Sense.ASC, e.Sense.ASCQ)
}

// IsUnitAttention tells whether err is a unit attention condition.
func IsUnitAttention(err error) bool {
	var e *SCSIError
	return errors.As(err, &e) && e.Status == CheckCondition && e.Sense.Key == UnitAttention
}

// ErrClosed is the error of commands on a session that was closed.
var ErrClosed = errors.New("initiator: session is closed")

func decodeSense(b []byte) Sense {
	s := Sense{Field: -1}
	if len(b) < 2 {
		return s
	}
	n := int(be.Uint16(b))
	b = b[2:min(len(b), 2+n)]
	if len(b) < 8 {
		return s
	}
	s.Raw = b
	if b[0]&0x7f >= 0x72 {
		s.descriptors(b)
		return s
	}
	if len(b) < 14 {
		return s
	}
	s.Key, s.ASC, s.ASCQ = b[2]&0x0f, b[12], b[13]
	s.InfoValid, s.Info = b[0]&0x80 != 0, uint64(be.Uint32(b[3:]))
	if len(b) >= 18 {
		s.pointer(b[15:18])
	}
	return s
}

// descriptors decodes descriptor format.
func (s *Sense) descriptors(b []byte) {
	s.Descriptor = true
	s.Key, s.ASC, s.ASCQ = b[1]&0x0f, b[2], b[3]
	for d := b[8:]; len(d) >= 2 && len(d) >= 2+int(d[1]); d = d[2+int(d[1]):] {
		switch {
		case d[0] == 0x00 && d[1] == 10:
			s.InfoValid, s.Info = d[2]&0x80 != 0, be.Uint64(d[4:])
		case d[0] == 0x02 && d[1] == 6:
			s.pointer(d[4:7])
		}
	}
}

func (s *Sense) pointer(b []byte) {
	if b[0]&0x80 != 0 && s.Key == IllegalRequest {
		s.Field, s.InData = int(be.Uint16(b[1:])), b[0]&0x40 == 0
	}
}
