package iscsi_test

import (
	"bytes"
	"errors"
	"hash/crc32"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/iscsi"
)

// pduProgram turns arbitrary bytes into PDUs that are framed correctly, so that a
// fuzzer gets past the framing. One PDU is
//
//	kind, flags, ITT, CmdSN - expected, LUN, x, y, z, segment length / 16
//
// where x, y and z mean what the kind makes of them.
type pduProgram struct {
	b      []byte
	cmdSN  uint32
	ttt    uint32 // of the R2T that a well-behaved initiator would have got last
	header bool   // digests
	data   bool
	tags   map[uint32]int // SCSI commands sent and not answered, by tag
}

// fuzzCDBs are the commands of a program; x chooses, y is in the place of the low
// bits of the LBA or of the page, z in that of the length.
var fuzzCDBs = []func(y, z byte) []byte{
	func(y, z byte) []byte { return []byte{0x28, 0, 0, 0, 0, y & 15, 0, 0, z} },
	func(y, z byte) []byte { return []byte{0x2a, 0, 0, 0, 0, y & 15, 0, 0, z & 7} },
	func(y, z byte) []byte { return []byte{0x89, 0, 0, 0, 0, 0, 0, 0, 0, y & 15, 0, 0, 0, z & 7} },
	func(y, z byte) []byte { return []byte{0x8b, 0, 0, 0, 0, 0, 0, 0, 0, y & 15, 0, 0, 0, z & 7} },
	func(y, z byte) []byte { return []byte{0x12, y & 1, y, 0, z} },
	func(y, z byte) []byte { return []byte{0x1a, 0, y, 0, z} },
	func(y, z byte) []byte { return []byte{0x15, 0x10, 0, 0, z} },
	func(y, z byte) []byte { return []byte{0x00, 0, 0, 0, 0, y} },
	func(y, z byte) []byte { return []byte{0xa0, 0, y, 0, 0, 0, 0, 0, 0, z} },
	func(y, z byte) []byte { return []byte{0xa3, y, 0, 0, 0, 0, 0, 0, 0, z} },
	func(y, z byte) []byte { return []byte{0x16 | y&1} },
	func(y, z byte) []byte { return []byte{y, z} },
}

// next builds one PDU, or returns nil at the end.
func (p *pduProgram) next() []byte {
	if len(p.b) < 9 {
		return nil
	}
	kind, flags, itt, lun, x, y, z := p.b[0], p.b[1], uint32(p.b[2]), p.b[4], p.b[5], p.b[6], p.b[7]
	sn, n := p.cmdSN+uint32(int8(p.b[3])), int(p.b[8])*16
	p.b = p.b[9:]
	segment := make([]byte, n)
	p.b = p.b[copy(segment, p.b):]
	var b []byte
	counted := kind&immediateFlag == 0
	switch kind & 0x3f {
	case 0x01:
		b = scsiPDU(flags, itt, sn, uint32(z)*16, segment, fuzzCDBs[int(x)%len(fuzzCDBs)](y, z)...)
		p.tags[itt]++
	case 0x05:
		b, counted = dataOut(flags, itt, uint32(x&1)*p.ttt-uint32(x>>1&1), uint32(y&3), uint32(z)*16, segment), false
	case 0x04:
		b = textPDU(flags, itt, newText-2*uint32(x&1), sn, string(segment))
	case 0x02:
		b = pdu(kind, flags, itt, sn, segment)
		be.PutUint32(b[20:], uint32(x))
	default:
		b, counted = pdu(kind, flags, itt, sn, segment), counted && kind&0x3f != 0x10
		b[20], b[47] = x, y
	}
	b[0], b[9] = kind, lun&1
	if counted && sn == p.cmdSN {
		p.cmdSN++
	}
	if z == 0xff {
		b = withAHS(b, 0, 5, x, 0, 0, 0, y, 0)
	}
	return p.digests(b)
}

const (
	immediateFlag = 0x40
	pongTag       = 0x1000000 // no PDU of a program has it
)

// digests puts the digests that were negotiated behind header and data.
func (p *pduProgram) digests(b []byte) []byte {
	head := 48 + 4*int(b[4])
	out := append([]byte(nil), b[:head]...)
	if p.header {
		out = appendCRC(out, b[:head])
	}
	out = append(out, b[head:]...)
	if p.data && len(b) > head {
		out = appendCRC(out, b[head:])
	}
	return out
}

func appendCRC(out, of []byte) []byte {
	v := crc32.Checksum(of, crc32.MakeTable(crc32.Castagnoli))
	return append(out, byte(v), byte(v>>8), byte(v>>16), byte(v>>24))
}

// pduChecker reads what the target sends and checks what holds whatever was asked:
// numbers in order, a window that does not shrink, one answer per command.
type pduChecker struct {
	t           *testing.T
	p           *pduProgram
	statSN, max uint32
	begun       bool
	pongs       int
	offset      map[uint32]uint32
}

// read takes one PDU; false at the end of the connection.
func (k *pduChecker) read(r io.Reader) bool {
	h := make([]byte, 48)
	if _, err := io.ReadFull(r, h); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			k.t.Error("neither an answer nor the end of the connection")
		}
		return false
	}
	n := int(h[5])<<16 | int(h[6])<<8 | int(h[7])
	rest := n + -n&3
	if k.p.header {
		rest += 4
	}
	if k.p.data && n > 0 {
		rest += 4
	}
	if _, err := io.CopyN(io.Discard, r, int64(rest)); err != nil {
		return false
	}
	k.check(h, uint32(n))
	return true
}

func (k *pduChecker) check(h []byte, n uint32) {
	op, itt := h[0], be.Uint32(h[16:])
	status := op == 0x21 || op == 0x25 && h[1]&1 != 0
	ping := op == 0x20 && itt == 0xffffffff
	if op == 0x31 || ping || op == 0x25 && !status {
		if op == 0x31 {
			k.p.ttt = be.Uint32(h[20:])
		}
	} else {
		if sn := be.Uint32(h[24:]); k.begun && sn != k.statSN {
			k.t.Errorf("PDU %#02x: StatSN %d, want %d", op, sn, k.statSN)
		}
		k.begun, k.statSN = true, be.Uint32(h[24:])+1
	}
	max := be.Uint32(h[32:])
	if k.max != 0 && int32(max-k.max) < 0 {
		k.t.Errorf("MaxCmdSN %d after %d", max, k.max)
	}
	k.max = max
	if op == 0x25 {
		if off := be.Uint32(h[40:]); off != k.offset[itt] {
			k.t.Errorf("data-in at %d, want %d", off, k.offset[itt])
		}
		k.offset[itt] += n
	}
	if (op == 0x21 || op == 0x25 || op == 0x31) && k.p.tags[itt] == 0 {
		k.t.Errorf("PDU %#02x for tag %d, which no command waits with", op, itt)
	}
	if status {
		k.p.tags[itt]--
		delete(k.offset, itt)
	}
	if op == 0x20 && itt == pongTag {
		k.pongs++
	}
}

// FuzzPDU sends well-framed PDUs of every kind, in any order and with any numbers:
// the answers keep the rules of sequence, only the blocks that writes name change,
// and the target serves others afterwards.
func FuzzPDU(f *testing.F) {
	f.Add([]byte{0, 0x01, 0xc0, 1, 0, 0, 4, 0, 96, 0, 0x01, 0xa0, 2, 0, 0, 1, 0, 1, 32})
	f.Add(append([]byte{1, 0x01, 0xa0, 1, 0, 0, 1, 0, 32, 0, 0x05, 0x80, 1, 0, 0, 1, 0, 0, 32}, make([]byte, 512)...))
	f.Add([]byte{2, 0x42, 0x85, 1, 0, 0, 0, 0, 0, 0, 0x46, 0x80, 1, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{3, 0x04, 0x80, 1, 0, 0, 0, 0, 0, 1, 'S', 'e', 'n', 'd', 'T', 'a', 'r', 'g', 'e', 't', 's', '=', 0, 0, 0, 0})
	f.Add([]byte{0, 0x01, 0xe0, 1, 0, 0, 1, 2, 0xff, 0, 0x10, 0x80, 1, 0, 0, 0, 0, 0, 0, 0x1c, 0x80, 1, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return
		}
		n := startLocal(t, iscsi.Config{}, nil)
		p := &pduProgram{b: b[1:], cmdSN: 2, header: b[0]&1 != 0, data: b[0]&2 != 0, tags: map[uint32]int{}}
		var keys []string
		if p.header {
			keys = append(keys, "HeaderDigest=CRC32C")
		}
		if p.data {
			keys = append(keys, "DataDigest=CRC32C")
		}
		if b[0]&4 != 0 {
			keys = append(keys, "InitialR2T=No", "FirstBurstLength=1024", "MaxBurstLength=2048", "MaxRecvDataSegmentLength=512")
		}
		runProgram(t, p, rawSession(t, n, keys...))
		guard := make([]byte, 64<<10)
		if _, err := n.disk.ReadAt(guard, 64*512); err != nil || len(bytes.Trim(guard, "\x00")) > 0 {
			t.Errorf("a block that no write names changed (%v)", err)
		}
		eventually(t, n, "the session is over", func() bool { return n.srv.Stats().Connections == 0 }) // it may have reserved the unit
		s := n.login(nil)
		if err := s.Logout(n.ctx); err != nil {
			t.Error(err)
		}
	})
}

// runProgram sends PDU by PDU. A ping behind each makes it a conversation: the
// answers to one, R2Ts among them, are read before the next is built.
func runProgram(t *testing.T, p *pduProgram, c net.Conn) {
	k := &pduChecker{t: t, p: p, offset: map[uint32]uint32{}}
	_ = c.SetDeadline(time.Now().Add(testTime))
	for b := p.next(); b != nil; b = p.next() {
		ping := p.digests(pdu(0x40, 0x80, pongTag, p.cmdSN, nil))
		if _, err := c.Write(append(b, ping...)); err != nil {
			break // closed already
		}
		before := k.pongs
		for k.pongs == before {
			if !k.read(c) {
				return
			}
		}
	}
	_ = c.(interface{ CloseWrite() error }).CloseWrite()
	for k.read(c) {
	}
}
