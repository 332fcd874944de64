package iscsi

import (
	"encoding/binary"
	"hash/crc32"
)

var be = binary.BigEndian

// bhsLen is the length of a basic header segment.
const bhsLen = 48

// Opcodes (RFC 7143 section 11.2.1.2).
const (
	opNopOut   = 0x00
	opSCSICmd  = 0x01
	opTaskMgmt = 0x02
	opLogin    = 0x03
	opText     = 0x04
	opDataOut  = 0x05
	opLogout   = 0x06
	opSNACK    = 0x10

	opNopIn        = 0x20
	opSCSIResp     = 0x21
	opTaskMgmtResp = 0x22
	opLoginResp    = 0x23
	opTextResp     = 0x24
	opDataIn       = 0x25
	opLogoutResp   = 0x26
	opR2T          = 0x31
	opAsync        = 0x32
	opReject       = 0x3f

	immediateBit = 0x40
	finalBit     = 0x80
	noTag        = 0xffffffff
)

// Reject reasons (RFC 7143 section 11.17.1).
const (
	rejectDigest     = 0x02
	rejectSNACK      = 0x03
	rejectProtocol   = 0x04
	rejectUnknown    = 0x05
	rejectTooMany    = 0x06
	rejectInProgress = 0x07
	rejectInvalid    = 0x09
)

// bhs is a basic header segment.
type bhs [bhsLen]byte

func (h *bhs) op() byte        { return h[0] & 0x3f }
func (h *bhs) immediate() bool { return h[0]&immediateBit != 0 }
func (h *bhs) final() bool     { return h[1]&finalBit != 0 }
func (h *bhs) ahsLen() int     { return int(h[4]) * 4 }
func (h *bhs) dataLen() int    { return int(h[5])<<16 | int(h[6])<<8 | int(h[7]) }
func (h *bhs) itt() uint32     { return be.Uint32(h[16:]) }
func (h *bhs) cmdSN() uint32   { return be.Uint32(h[24:]) }

func (h *bhs) setDataLen(n int) { h[5], h[6], h[7] = byte(n>>16), byte(n>>8), byte(n) }

// pad returns the bytes that fill n up to a multiple of four.
func pad(n int) int { return -n & 3 }

// serialLess compares sequence numbers (RFC 1982).
func serialLess(a, b uint32) bool { return int32(a-b) < 0 }

// castagnoli is the digest polynomial; the table is read-only.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// putDigest stores a CRC32C as RFC 7143 section 12.1 sends it: least significant
// byte first.
func putDigest(b []byte, crc uint32) { binary.LittleEndian.PutUint32(b, crc) }

func getDigest(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }

// lunOf decodes the LUN field of a header: single level, peripheral or flat
// space addressing (SAM-5 clause 4.7); ok is false for other forms.
func lunOf(b []byte) (n uint16, ok bool) {
	if be.Uint32(b[2:])|uint32(b[6])|uint32(b[7]) != 0 {
		return 0, false
	}
	switch b[0] >> 6 {
	case 0:
		return uint16(b[1]), b[0] == 0
	case 1:
		return uint16(b[0]&0x3f)<<8 | uint16(b[1]), true
	}
	return 0, false
}

// putLUN encodes a LUN as initiators expect it in REPORT LUNS: peripheral
// addressing up to 255, flat space above.
func putLUN(b []byte, n uint16) {
	clear(b[:8])
	b[1] = byte(n)
	if n > 255 {
		b[0] = 0x40 | byte(n>>8)
	}
}
