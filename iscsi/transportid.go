package iscsi

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// A TransportID names an iSCSI initiator port (SPC-4 clause 7.6.4.6):
//
//	0 format (2 bits), protocol 5 | 1 reserved | 2 additional length u16 | 4 text
//
//	format 00b  text is the initiator's name: all its ports
//	format 01b  text is name ",i,0x" ISID as 12 hexadecimal digits: one port
//
// The text ends with NULs up to a multiple of four and of 20 bytes at least.
const (
	transportISCSI   = 0x05
	transportNode    = 0x00
	transportPort    = 0x40
	transportHeader  = 4
	minTransportText = 20
	isidMark         = ",i,0x"
	// maxTransportText is the longest text: name, mark, ISID, NUL, filled up.
	maxTransportText = (maxName + len(isidMark) + 12 + 1 + 3) &^ 3
)

// transportID is a decoded TransportID.
type transportID struct {
	initiator string // normalized
	isid      [6]byte
	any       bool // format 00b: isid says nothing
}

// putTransportID appends the TransportID of a nexus's initiator port.
func putTransportID(b []byte, n itNexus) []byte {
	text := n.initiator + isidMark + hex.EncodeToString(n.isid[:])
	size := max((len(text)+1+3)&^3, minTransportText)
	at := len(b)
	b = append(b, make([]byte, transportHeader+size)...)
	b[at] = transportPort | transportISCSI
	be.PutUint16(b[at+2:], uint16(size))
	copy(b[at+transportHeader:], text)
	return b
}

// parseTransportID reads one TransportID and returns its length.
func parseTransportID(b []byte) (transportID, int, error) {
	var id transportID
	if len(b) < transportHeader {
		return id, 0, fmt.Errorf("TransportID of %d bytes", len(b))
	}
	size := int(be.Uint16(b[2:]))
	format := b[0] & 0xc0
	switch {
	case b[0]&0x0f != transportISCSI:
		return id, 0, fmt.Errorf("TransportID of protocol %d", b[0]&0x0f)
	case format != transportNode && format != transportPort:
		return id, 0, fmt.Errorf("TransportID of format %d", format>>6)
	case size < minTransportText || size > maxTransportText || size%4 != 0 || size > len(b)-transportHeader:
		return id, 0, fmt.Errorf("TransportID with %d bytes of text", size)
	}
	text, rest, ended := strings.Cut(string(b[transportHeader:transportHeader+size]), "\x00")
	if !ended || strings.Trim(rest, "\x00") != "" {
		return id, 0, fmt.Errorf("TransportID whose text does not end")
	}
	name, isid, marked := strings.Cut(text, isidMark)
	if marked != (format == transportPort) {
		return id, 0, fmt.Errorf("TransportID %q of format %d", text, format>>6)
	}
	if marked {
		v, err := hex.DecodeString(isid)
		if err != nil || len(v) != len(id.isid) {
			return id, 0, fmt.Errorf("TransportID with ISID %q", isid)
		}
		copy(id.isid[:], v)
	}
	if err := CheckName(name); err != nil {
		return id, 0, err
	}
	id.initiator, id.any = NormalizeName(name), !marked
	return id, transportHeader + size, nil
}
