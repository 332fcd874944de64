package initiator

import (
	"context"
	"encoding/hex"
	"fmt"
)

// Service actions of PERSISTENT RESERVE OUT.
const (
	PRRegister       = 0
	PRReserve        = 1
	PRRelease        = 2
	PRClear          = 3
	PRPreempt        = 4
	PRPreemptAbort   = 5
	PRRegisterIgnore = 6
	PRRegisterMove   = 7
)

// Service actions of PERSISTENT RESERVE IN.
const (
	PRReadKeys           = 0
	PRReadReservation    = 1
	PRReportCapabilities = 2
	PRReadFullStatus     = 3
)

// PersistentReserve is a PERSISTENT RESERVE OUT command.
type PersistentReserve struct {
	Action      byte
	Type        byte   // of reservation, 1 to 8
	Key, NewKey uint64 // RESERVATION KEY, SERVICE ACTION RESERVATION KEY
	APTPL       bool
	AllPorts    bool     // ALL_TG_PT
	Ports       []string // SPEC_I_PT, or the port to move to: texts of TransportIDs
	Unregister  bool     // UNREG
	TargetPort  uint16   // relative target port to move to
}

// PortText is the text of the TransportID of an initiator port.
func PortText(name string, isid [6]byte) string { return name + ",i,0x" + hex.EncodeToString(isid[:]) }

// transportID encodes the TransportID with a text; format 01b when it has an ISID.
func transportID(text string) []byte {
	n := max((len(text)+4)&^3, 20)
	b := make([]byte, 4+n)
	b[0] = 0x05
	for i := range text {
		if text[i] == ',' {
			b[0] |= 0x40
		}
	}
	be.PutUint16(b[2:], uint16(n))
	copy(b[4:], text)
	return b
}

// Command encodes the command for a logical unit.
func (q PersistentReserve) Command(lun uint16) *Command {
	b := make([]byte, 24)
	be.PutUint64(b, q.Key)
	be.PutUint64(b[8:], q.NewKey)
	bit := func(at int, mask byte, on bool) {
		if on {
			b[at] |= mask
		}
	}
	var ids []byte
	for _, p := range q.Ports {
		ids = append(ids, transportID(p)...)
	}
	if q.Action == PRRegisterMove {
		bit(17, 0x01, q.APTPL)
		bit(17, 0x02, q.Unregister)
		be.PutUint16(b[18:], q.TargetPort)
		be.PutUint32(b[20:], uint32(len(ids)))
		b = append(b, ids...)
	} else {
		bit(20, 0x01, q.APTPL)
		bit(20, 0x04, q.AllPorts)
		bit(20, 0x08, len(ids) > 0)
		if len(ids) > 0 {
			b = append(be.AppendUint32(b, uint32(len(ids))), ids...)
		}
	}
	c := &Command{LUN: lun, Out: b}
	c.CDB[0], c.CDB[1], c.CDB[2] = 0x5f, q.Action, q.Type
	be.PutUint32(c.CDB[5:], uint32(len(b)))
	return c
}

// PersistentReserve runs PERSISTENT RESERVE OUT.
func (s *Session) PersistentReserve(ctx context.Context, lun uint16, q PersistentReserve) error {
	return s.Do(ctx, q.Command(lun))
}

// PersistentReserveIn runs PERSISTENT RESERVE IN and returns its parameter data.
func (s *Session) PersistentReserveIn(ctx context.Context, lun uint16, action byte) ([]byte, error) {
	return s.in(ctx, lun, [16]byte{0x5e, action, 7: 0xff, 8: 0xff}, 0xffff)
}

// Keys is what PERSISTENT RESERVE IN, READ KEYS and READ RESERVATION say.
type Keys struct {
	Generation uint32
	Keys       []uint64
	Holder     uint64 // key of the reservation; 0 of all registrants
	Type       byte   // 0: there is no reservation
}

// ReadKeys reads the registered keys and the reservation.
func (s *Session) ReadKeys(ctx context.Context, lun uint16) (Keys, error) {
	var k Keys
	b, err := s.PersistentReserveIn(ctx, lun, PRReadKeys)
	if err != nil {
		return k, err
	}
	if len(b) < 8 || len(b) != 8+int(be.Uint32(b[4:])) {
		return k, fmt.Errorf("initiator: READ KEYS: % x", b)
	}
	k.Generation = be.Uint32(b)
	for o := 8; o+8 <= len(b); o += 8 {
		k.Keys = append(k.Keys, be.Uint64(b[o:]))
	}
	if b, err = s.PersistentReserveIn(ctx, lun, PRReadReservation); err != nil {
		return k, err
	}
	switch {
	case len(b) == 24 && be.Uint32(b[4:]) == 16:
		k.Holder, k.Type = be.Uint64(b[8:]), b[21]
	case len(b) != 8:
		return k, fmt.Errorf("initiator: READ RESERVATION: % x", b)
	}
	return k, nil
}
