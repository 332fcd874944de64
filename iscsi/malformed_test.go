package iscsi_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/iscsi/initiator"
)

// scsiPDU is a SCSI command PDU.
func scsiPDU(flags byte, itt, sn, edtl uint32, data []byte, c ...byte) []byte {
	p := pdu(0x01, flags, itt, sn, data)
	be.PutUint32(p[20:], edtl)
	copy(p[32:48], c)
	return p
}

// withAHS adds additional header segments, a multiple of four bytes.
func withAHS(p []byte, ahs ...byte) []byte {
	p[4] = byte(len(ahs) / 4)
	return append(append(append([]byte(nil), p[:48]...), ahs...), p[48:]...)
}

func dataOut(flags byte, itt, ttt, sn, off uint32, data []byte) []byte {
	p := pdu(0x05, flags, itt, 0, data)
	be.PutUint32(p[20:], ttt)
	be.PutUint32(p[36:], sn)
	be.PutUint32(p[40:], off)
	return p
}

// textPDU is a Text Request; ttt is the reserved tag in the first of an exchange.
func textPDU(flags byte, itt, ttt, sn uint32, text string) []byte {
	p := pdu(0x04, flags, itt, sn, []byte(text))
	be.PutUint32(p[20:], ttt)
	return p
}

const newText, moreText = 0xffffffff, 0xfffffffd // target transfer tags

// withLUN puts a byte in front of the LUN field.
func withLUN(p []byte, b byte) []byte {
	p[8] = b
	return p
}

// withCID sets the connection of a Logout Request; it is also where tags are.
func withCID(p []byte, cid uint16) []byte {
	be.PutUint16(p[20:], cid)
	return p
}

func lie(p []byte, n int) []byte {
	p[5], p[6], p[7] = byte(n>>16), byte(n>>8), byte(n)
	return p
}

// TestMalformedLogin: what arrives before a login is finished.
func TestMalformedLogin(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	ids := []string{"InitiatorName=iqn.2026-01.x:m", "SessionType=Normal", "TargetName=" + targetName}
	with := func(more ...string) []string { return append(append([]string(nil), ids...), more...) }
	for _, tc := range []struct {
		name   string
		pdu    []byte
		status int // login status; -1: the connection is closed without an answer
	}{
		{"TSIH of no session", loginPDU(0x87, 0, 0x1234, ids...), 0x020a},
		{"unknown key", loginPDU(0x87, 0, 0, with("X-com.foo=1")...), 0},
		{"bad number", loginPDU(0x87, 0, 0, with("MaxRecvDataSegmentLength=abc")...), 0},
		{"only CHAP", loginPDU(0x81, 0, 0, with("AuthMethod=CHAP")...), 0x0201},
		{"no name", loginPDU(0x87, 0, 0, "SessionType=Normal"), 0x0207},
		{"no target", loginPDU(0x87, 0, 0, ids[0]), 0x0207},
		{"unknown session type", loginPDU(0x87, 0, 0, ids[0], "SessionType=Odd"), 0x0209},
		{"unknown target", loginPDU(0x87, 0, 0, ids[0], "TargetName=iqn.nope"), 0x0203},
		{"no equals sign", loginPDU(0x87, 0, 0, with("garbage")...), 0x0200},
		{"key twice", loginPDU(0x87, 0, 0, with("HeaderDigest=None", "HeaderDigest=None")...), 0x0200},
		{"reserved stage", loginPDU(0x8b, 0, 0, ids...), 0x0200},
		{"stage backwards", loginPDU(0x84, 0, 0, ids...), 0x0200},
		{"T and C", loginPDU(0xc7, 0, 0, ids...), 0x0200},
		{"text of 16 MiB announced", lie(loginPDU(0x87, 0, 0), 0xffffff), 0x0200},
		{"command before login", scsiPDU(0xc0, 1, 1, 36, nil, 0x12, 0, 0, 0, 36), -1},
		{"text before login", pdu(0x44, 0x80, 5, 1, []byte("SendTargets=All\x00")), -1},
		{"zeros", make([]byte, 480), -1},
		{"ones", bytes.Repeat([]byte{0xff}, 480), -1},
		{"AHS", withAHS(loginPDU(0x87, 0, 0, ids...), make([]byte, 1020)...), 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := net.Dial("tcp", n.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Write(tc.pdu); err != nil {
				t.Fatal(err)
			}
			_ = c.(*net.TCPConn).CloseWrite() // nothing follows; waiting for it would take the login time
			h, _, err := tryPDU(c)
			if tc.status < 0 {
				if err == nil {
					t.Errorf("answered with % x", h)
				}
				return
			}
			if err != nil || int(be.Uint16(h[36:])) != tc.status {
				t.Errorf("%v, status %x, want %04x", err, h[36:38], tc.status)
			}
		})
	}
	n.login(nil)
}

// answerNames are short names of the target's PDUs; reason, status or response
// follows.
var answerNames = map[byte]string{0x21: "response", 0x22: "task", 0x24: "text", 0x25: "data", 0x26: "logout", 0x31: "r2t", 0x3f: "reject"}

// converse sends PDUs on a fresh session and returns the answers in short. Behind
// them goes a ping: it is answered, or the connection is closed.
func converse(t *testing.T, c net.Conn, pdus [][]byte) string {
	t.Helper()
	ready := scsiPDU(0x80, 0xdead, 2, 0, nil) // takes the unit attention
	ready[0] |= 0x40
	if _, err := c.Write(ready); err != nil {
		t.Fatal(err)
	}
	readPDU(t, c)
	for _, p := range pdus {
		if _, err := c.Write(p); err != nil {
			break // it was closed already
		}
	}
	_, _ = c.Write(pdu(0x40, 0x80, 0xabcd, 2, nil))
	got := ""
	for {
		h, _, err := tryPDU(c)
		if err != nil {
			return got + "closed"
		}
		if h[0] == 0x20 {
			return got + "alive"
		}
		got += answerNames[h[0]] + fmt.Sprintf(" %02x, ", h[2]|h[3])
	}
}

// TestMalformed: what a logged-in initiator may send. Afterwards the server
// serves, and nothing beside the target of a write changed.
func TestMalformed(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	block, tooLong := make([]byte, 512), string(make([]byte, 8192))
	write := func(itt, sn, edtl uint32, data []byte, count byte) []byte {
		return scsiPDU(0xa0, itt, sn, edtl, data, 0x2a, 0, 0, 0, 0, 0, 0, 0, count)
	}
	for _, tc := range []struct {
		name, want string // want: the answers in short
		pdus       [][]byte
	}{
		{"segment above the limit", "reject 04, closed", [][]byte{lie(pdu(0x40, 0x80, 1, 2, nil), 0xffffff)}},
		{"immediate data above EDTL", "reject 04, closed", [][]byte{write(10, 2, 100, block, 1)}},
		{"immediate data of a read", "reject 04, closed", [][]byte{scsiPDU(0xc0, 10, 2, 512, block, 0x28, 0, 0, 0, 0, 0, 0, 0, 1)}},
		{"Data-Out without task", "alive", [][]byte{dataOut(0x80, 777, 1, 0, 0, block)}},
		{"Data-Out beyond EDTL", "r2t 00, reject 04, response 02, alive", [][]byte{write(10, 2, 1024, block, 2), dataOut(0x80, 10, 1, 0, 512, make([]byte, 4096))}},
		{"Data-Out with a wrong tag", "r2t 00, reject 04, response 02, alive", [][]byte{write(10, 2, 1024, nil, 2), dataOut(0x80, 10, 99, 0, 0, block)}},
		{"Data-Out with a wrong DataSN", "r2t 00, reject 04, response 02, alive", [][]byte{write(10, 2, 1024, nil, 2), dataOut(0x80, 10, 1, 5, 0, block)}},
		{"Data-Out with a wrong offset", "r2t 00, reject 04, response 02, alive", [][]byte{write(10, 2, 1024, nil, 2), dataOut(0x80, 10, 1, 0, 0xfffffff0, block)}},
		{"Data-Out that ends early", "r2t 00, response 02, alive", [][]byte{write(10, 2, 1024, nil, 2), dataOut(0x80, 10, 1, 0, 0, block)}},
		{"empty Data-Outs", "r2t 00, alive", [][]byte{write(10, 2, 1024, nil, 2), dataOut(0, 10, 1, 0, 0, nil), dataOut(0, 10, 1, 1, 0, nil)}},
		{"EDTL of 4 GiB", "response 00, r2t 00, alive", [][]byte{scsiPDU(0xc0, 10, 2, 0xfffffff0, nil), write(11, 3, 0xfffffff0, nil, 1)}},
		{"EDTL above the length in the CDB", "response 00, alive", [][]byte{scsiPDU(0xa0, 10, 2, 1024, make([]byte, 1024), 0x2a, 0, 0, 0, 0, 1, 0, 0, 1)}},
		{"length in the CDB above EDTL", "response 00, alive", [][]byte{write(10, 2, 512, block, 9)}},
		{"UNMAP without data", "response 02, alive", [][]byte{scsiPDU(0x80, 10, 2, 0, nil, 0x42, 0, 0, 0, 0, 0, 0, 0, 24)}},
		{"UNMAP announced as a read", "response 02, alive", [][]byte{scsiPDU(0xc0, 10, 2, 24, nil, 0x42, 0, 0, 0, 0, 0, 0, 0, 24)}},
		{"PERSISTENT RESERVE OUT without data", "response 02, alive", [][]byte{scsiPDU(0x80, 10, 2, 0, nil, 0x5f, 0, 0, 0, 0, 0, 0, 0, 24)}},
		{"MODE SELECT without data", "response 02, alive", [][]byte{scsiPDU(0x80, 10, 2, 0, nil, 0x15, 0x10, 0, 0, 24)}},
		{"PREVENT ALLOW MEDIUM REMOVAL", "response 02, alive", [][]byte{scsiPDU(0x80, 10, 2, 0, nil, 0x1e, 0, 0, 0, 1)}},
		{"READ with W", "response 00, alive", [][]byte{scsiPDU(0xa0, 10, 2, 512, block, 0x28, 0, 0, 0, 0, 0, 0, 0, 1)}},
		{"READ beyond EDTL", "data 00, alive", [][]byte{scsiPDU(0xc0, 10, 2, 512, nil, 0x28, 0, 0, 0, 0, 0, 0, 0, 9)}},
		{"READ without R", "response 00, alive", [][]byte{scsiPDU(0x80, 10, 2, 0, nil, 0x28, 0, 0, 0, 0, 0, 0, 0, 1)}},
		{"unsolicited Data-Out", "reject 04, closed", [][]byte{scsiPDU(0x20, 10, 2, 1024, block, 0x2a, 0, 0, 0, 0, 0, 0, 0, 2), dataOut(0x80, 10, 0xffffffff, 0, 512, block)}},
		{"Data-Out longer than its burst", "r2t 00, reject 04, response 02, alive", [][]byte{write(10, 2, 1024, nil, 2), dataOut(0, 10, 1, 0, 0, block), dataOut(0x80, 10, 1, 1, 512, make([]byte, 1024))}},
		{"Data-Out after the end", "r2t 00, response 00, alive", [][]byte{write(10, 2, 1024, nil, 2), dataOut(0x80, 10, 1, 0, 0, make([]byte, 1024)), dataOut(0x80, 10, 1, 1, 1024, block)}},
		{"LUN in an unknown form", "response 02, alive", [][]byte{withLUN(scsiPDU(0x80, 10, 2, 0, nil), 0xc1)}},
		{"tag in use", "r2t 00, reject 07, alive", [][]byte{write(10, 2, 1024, nil, 2), write(10, 3, 1024, nil, 2)}},
		{"reserved tag", "reject 09, alive", [][]byte{scsiPDU(0x80, 0xffffffff, 2, 0, nil)}},
		{"CmdSN gap", "reject 04, closed", [][]byte{scsiPDU(0x80, 10, 9, 0, nil)}},
		{"CmdSN again", "alive", [][]byte{scsiPDU(0x80, 10, 1, 0, nil), scsiPDU(0x80, 11, 0, 0, nil)}},
		{"CmdSN far away", "alive", [][]byte{scsiPDU(0x80, 10, 0x80000000, 0, nil)}},
		{"unknown opcode", "reject 05, alive", [][]byte{pdu(0x5c, 0x80, 7, 2, block)}},
		{"login in full feature phase", "reject 04, closed", [][]byte{loginPDU(0x87, 0, 0, "InitiatorName=x")}},
		{"target's opcodes", "reject 05, reject 05, reject 05, alive", [][]byte{pdu(0x21, 0x80, 7, 2, nil), pdu(0x25, 0x80, 8, 3, block), pdu(0x31, 0x80, 9, 4, nil)}},
		{"SNACK", "reject 03, alive", [][]byte{pdu(0x10, 0x80, 7, 2, nil)}},
		{"text garbage", "reject 04, alive", [][]byte{textPDU(0x80, 7, newText, 2, "====\x00\x00=x\x00y")}},
		{"text of no exchange", "reject 04, alive", [][]byte{textPDU(0x80, 7, 5, 2, "SendTargets=\x00")}},
		{"text with F and C", "reject 04, alive", [][]byte{textPDU(0xc0, 7, newText, 2, "SendTargets=\x00")}},
		{"text in two PDUs", "text 00, text 00, alive", [][]byte{textPDU(0x40, 7, newText, 2, "SendTar"), textPDU(0x80, 7, moreText, 3, "gets=\x00")}},
		{"text begun again", "text 00, text 00, alive", [][]byte{textPDU(0x40, 7, newText, 2, "garbage"), textPDU(0x80, 8, newText, 3, "SendTargets=\x00")}},
		{"text without end", "text 00, text 00, reject 04, closed", [][]byte{textPDU(0x40, 7, newText, 2, tooLong), textPDU(0x40, 7, moreText, 3, tooLong), textPDU(0x40, 7, moreText, 4, tooLong)}},
		{"logout of another connection", "logout 02, alive", [][]byte{pdu(0x06, 0x82, 7, 2, nil)}},
		{"logout of a connection that is not there", "logout 01, alive", [][]byte{withCID(pdu(0x06, 0x81, 7, 2, nil), 9)}},
		{"logout of the connection", "logout 00, closed", [][]byte{pdu(0x06, 0x81, 7, 2, nil)}},
		{"ping with a tag of ours", "alive", [][]byte{withCID(pdu(0x40, 0x80, 0xffffffff, 2, block), 5)}},
		{"AHS of type 0", "reject 09, alive", [][]byte{withAHS(scsiPDU(0x80, 10, 2, 0, nil), make([]byte, 8)...)}},
		{"AHS of a reserved type", "reject 09, alive", [][]byte{withAHS(scsiPDU(0x80, 10, 2, 0, nil), 0, 5, 3, 0, 0, 0, 0, 0)}},
		{"AHS longer than the header", "reject 09, alive", [][]byte{withAHS(scsiPDU(0x80, 10, 2, 0, nil), 0, 9, 1, 0, 0, 0, 0, 0)}},
		{"AHS without length", "reject 09, alive", [][]byte{withAHS(scsiPDU(0x80, 10, 2, 0, nil), 0, 0, 1, 0)}},
		{"extended CDB", "response 02, alive", [][]byte{withAHS(scsiPDU(0x80, 10, 2, 0, nil), 0, 17, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)}},
		{"extended CDB twice", "reject 09, alive", [][]byte{withAHS(scsiPDU(0x80, 10, 2, 0, nil), 0, 5, 1, 0, 0, 0, 0, 0, 0, 5, 1, 0, 0, 0, 0, 0)}},
		{"variable length command", "response 02, alive", [][]byte{withAHS(scsiPDU(0x80, 10, 2, 0, nil, 0x7f), 0, 17, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)}},
		{"bidirectional length of a read", "reject 09, alive", [][]byte{withAHS(scsiPDU(0xc0, 10, 2, 512, nil, 0x28, 0, 0, 0, 0, 0, 0, 0, 1), 0, 5, 2, 0, 0, 0, 2, 0)}},
		{"bidirectional length of 6 bytes", "reject 09, alive", [][]byte{withAHS(scsiPDU(0xe0, 10, 2, 512, nil, 0x28, 0, 0, 0, 0, 0, 0, 0, 1), 0, 6, 2, 0, 0, 0, 2, 0, 0, 0, 0, 0)}},
		{"bidirectional", "response 02, alive", [][]byte{withAHS(scsiPDU(0xe0, 10, 2, 512, block, 0x2a, 0, 0, 0, 0, 0, 0, 0, 1), 0, 5, 2, 0, 0, 0, 2, 0)}},
		{"AHS on a ping", "alive", [][]byte{withAHS(pdu(0x00, 0x80, 0xffffffff, 2, nil), 0, 5, 1, 0, 0, 0, 0, 0)}},
		{"INQUIRY with W", "response 00, alive", [][]byte{scsiPDU(0xa0, 10, 2, 36, make([]byte, 36), 0x12, 0, 0, 0, 36)}},
		{"MODE SENSE with EDTL 0", "response 00, alive", [][]byte{scsiPDU(0xc0, 10, 2, 0, nil, 0x1a, 0, 0x3f, 0, 255)}},
		{"ORWRITE", "response 00, alive", [][]byte{scsiPDU(0xa0, 10, 2, 512, block, 0x8b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1)}},
		{"task management with nonsense", "task 05, task 05, alive", [][]byte{pdu(0x42, 0xff, 7, 2, nil), pdu(0x42, 0x80, 8, 2, block)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			mark := bytes.Repeat([]byte{0x11}, 2048)
			if _, err := n.disk.WriteAt(mark, 1024); err != nil {
				t.Fatal(err)
			}
			got := converse(t, rawSession(t, n), tc.pdus)
			if got != tc.want {
				t.Errorf("answers %q, want %q", got, tc.want)
			}
			now := make([]byte, len(mark))
			if _, err := n.disk.ReadAt(now, 1024); err != nil || !bytes.Equal(now, mark) {
				t.Error("a block beside the write changed")
			}
			s := n.login(nil)
			if err := s.Logout(n.ctx); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestMalformedNegotiated: what breaks the values that were negotiated, rather than
// the form of a PDU.
func TestMalformedNegotiated(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	const noR2T = "InitialR2T=No"
	write := func(flags byte, edtl uint32, data int, count byte) []byte {
		return scsiPDU(flags, 10, 2, edtl, make([]byte, data), 0x2a, 0, 0, 0, 0, 0, 0, 0, count)
	}
	for _, tc := range []struct {
		name, want string
		keys       []string
		pdus       [][]byte
	}{
		{"immediate data", "reject 04, closed", []string{"ImmediateData=No"}, [][]byte{write(0xa0, 512, 512, 1)}},
		{"immediate data above FirstBurstLength", "reject 04, closed", []string{"FirstBurstLength=512"}, [][]byte{write(0xa0, 1024, 1024, 2)}},
		{"first burst", "response 00, alive", []string{noR2T},
			[][]byte{write(0x20, 1024, 512, 2), dataOut(0x80, 10, 0xffffffff, 0, 512, make([]byte, 512))}},
		{"first burst above FirstBurstLength", "reject 04, response 02, alive", []string{noR2T, "FirstBurstLength=512"},
			[][]byte{write(0x20, 1536, 512, 3), dataOut(0x80, 10, 0xffffffff, 0, 512, make([]byte, 512))}},
		{"first burst above EDTL", "reject 04, response 02, alive", []string{noR2T},
			[][]byte{write(0x20, 1024, 512, 2), dataOut(0x80, 10, 0xffffffff, 0, 512, make([]byte, 1024))}},
		{"first burst with the tag of an R2T", "reject 04, response 02, alive", []string{noR2T},
			[][]byte{write(0x20, 1024, 512, 2), dataOut(0x80, 10, 1, 0, 512, make([]byte, 512))}},
		{"burst above MaxBurstLength", "r2t 00, reject 04, response 02, alive", []string{"MaxBurstLength=512"},
			[][]byte{write(0xa0, 1024, 0, 2), dataOut(0x80, 10, 1, 0, 0, make([]byte, 1024))}},
		{"next burst without its R2T", "r2t 00, r2t 00, reject 04, response 02, alive", []string{"MaxBurstLength=512"},
			[][]byte{write(0xa0, 1024, 0, 2), dataOut(0x80, 10, 1, 0, 0, make([]byte, 512)), dataOut(0x80, 10, 1, 1, 512, make([]byte, 512))}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := converse(t, rawSession(t, n, tc.keys...), tc.pdus); got != tc.want {
				t.Errorf("answers %q, want %q", got, tc.want)
			}
			n.login(nil).Close()
		})
	}
}

// TestBoundedMemory: announcements of large segments and silent peers hold next
// to nothing.
func TestBoundedMemory(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	const peers = 60
	for i := range peers {
		c, err := net.Dial("tcp", n.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write(lie(loginPDU(0x87, uint16(i), 0), 8192)); err != nil {
			t.Fatal(err)
		}
	}
	for range peers {
		c := rawSession(t, n)
		defer c.Close()
		for k := uint32(0); k < 16; k++ { // writes of 4 GiB that never send their data
			if _, err := c.Write(scsiPDU(0xa0, 10+k, 2+k, 0xfffffff0, nil, 0x2a, 0, 0, 0, 0, 0, 0, 0, 8)); err != nil {
				break
			}
		}
	}
	if grown := int64(heap()) - int64(before); grown > 64<<20 {
		t.Errorf("%d MiB held by idle peers", grown>>20)
	}
}

// TestDigestErrors: a wrong data digest is rejected, a wrong header digest ends
// the connection; nothing is executed.
func TestDigestErrors(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	write := scsiPDU(0xa0, 10, 2, 512, bytes.Repeat([]byte{9}, 512), 0x2a, 0, 0, 0, 0, 0, 0, 0, 1)
	c := rawSession(t, n, "DataDigest=CRC32C")
	if _, err := c.Write(append(write, 1, 2, 3, 4)); err != nil {
		t.Fatal(err)
	}
	if h, _ := readPDU(t, c); h[0] != 0x3f || h[2] != 0x02 {
		t.Errorf("PDU %#02x, reason %#02x, want Reject for the data digest", h[0], h[2])
	}
	if _, _, err := tryPDU(c); err == nil {
		t.Error("the connection goes on")
	}
	c = rawSession(t, n, "HeaderDigest=CRC32C")
	if _, err := c.Write(append(pdu(0x40, 0x80, 7, 2, nil), 1, 2, 3, 4)); err != nil {
		t.Fatal(err)
	}
	if h, _, err := tryPDU(c); err == nil {
		t.Errorf("answered with PDU %#02x", h[0])
	}
	if got := n.srv.Stats().DigestErrors; got != 2 {
		t.Errorf("%d digest errors counted", got)
	}
	if n.disk.Ops[iscsi.OpWrite].Load() != 0 {
		t.Error("the write was executed")
	}
}

// TestNotReading: a peer that asks and never reads the answers is disconnected
// when they have become too many.
func TestNotReading(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	for _, p := range [][]byte{
		pdu(0x40, 0x80, 7, 2, make([]byte, 8000)), // pings
		pdu(0x5c, 0x80, 7, 2, nil),                // rejects
	} {
		c := rawSession(t, n, "MaxRecvDataSegmentLength=65536")
		_ = c.(*net.TCPConn).SetReadBuffer(4096)
		_ = c.SetWriteDeadline(time.Now().Add(testTime))
		many := bytes.Repeat(p, 64)
		for {
			if _, err := c.Write(many); err != nil {
				var ne net.Error
				if errors.As(err, &ne) && ne.Timeout() {
					t.Error("still connected")
				}
				break
			}
		}
	}
	n.login(nil)
}

// FuzzLogin sends arbitrary bytes before a login where CHAP is demanded: the server
// lives, and nobody gets in.
func FuzzLogin(f *testing.F) {
	ids := []string{"InitiatorName=" + hostA, "TargetName=" + targetName}
	f.Add(loginPDU(0x87, 1, 0, ids...))
	f.Add(append(loginPDU(0x00, 1, 0, append(ids, "AuthMethod=CHAP")...), loginPDU(0x00, 1, 0, "CHAP_A=5,7,8")...))
	f.Add(append(append(loginPDU(0x00, 1, 0, append(ids, "AuthMethod=CHAP")...), loginPDU(0x00, 1, 0, "CHAP_A=5")...),
		loginPDU(0x81, 1, 0, "CHAP_N="+user, "CHAP_R=0x00", "CHAP_I=1", "CHAP_C=0b")...))
	f.Add(append(loginPDU(0x44, 1, 0, ids[0]), loginPDU(0x87, 1, 0, ids[1])...))
	f.Add(withAHS(loginPDU(0x87, 1, 0, "InitiatorName="+hostA, "SessionType=Discovery"), 0, 5, 1, 0, 0, 0, 0, 0))
	a := &iscsi.Auth{User: user, Secret: secret}
	f.Fuzz(func(t *testing.T, b []byte) {
		n := startLocal(t, iscsi.Config{DiscoveryAuth: a}, func(s *iscsi.TargetSpec) { s.Groups = open(a) })
		c, err := net.Dial(n.network, n.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = c.Write(b) // the server may have closed already
		_ = c.(interface{ CloseWrite() error }).CloseWrite()
		_ = c.SetReadDeadline(time.Now().Add(testTime))
		for {
			if _, err := c.Read(make([]byte, 4096)); err != nil {
				break
			}
		}
		s := n.login(func(o *initiator.Options) { o.CHAPUser, o.CHAPSecret = user, secret })
		if err := s.Logout(n.ctx); err != nil || n.srv.Stats().Logins != 1 {
			t.Errorf("%v, %d logins", err, n.srv.Stats().Logins)
		}
	})
}

// FuzzServer sends arbitrary bytes after a login, and expects the server to live.
func FuzzServer(f *testing.F) {
	f.Add(pdu(0x40, 0x80, 1, 2, []byte("ping")))
	f.Add(scsiPDU(0xa0, 10, 2, 1024, make([]byte, 512), 0x2a, 0, 0, 0, 0, 0, 0, 0, 2))
	f.Add(append(scsiPDU(0xa0, 10, 2, 1024, nil, 0x2a, 0, 0, 0, 0, 0, 0, 0, 2), dataOut(0x80, 10, 1, 0, 0, make([]byte, 1024))...))
	f.Add(withAHS(scsiPDU(0xe0, 10, 2, 36, nil, 0x12, 0, 0, 0, 36), 0, 5, 2, 0, 0, 0, 2, 0))
	f.Add(textPDU(0x80, 7, newText, 2, "SendTargets=\x00"))
	f.Add(pdu(0x42, 0x85, 7, 2, nil))
	f.Add(loginPDU(0x87, 0, 0, "InitiatorName=x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := startLocal(t, iscsi.Config{}, nil)
		c := rawSession(t, n)
		_, _ = c.Write(b) // the server may have closed already
		_ = c.(interface{ CloseWrite() error }).CloseWrite()
		_ = c.SetReadDeadline(time.Now().Add(testTime))
		for {
			if _, err := c.Read(make([]byte, 4096)); err != nil {
				break
			}
		}
		eventually(t, n, "the session is over", func() bool { return n.srv.Stats().Connections == 0 }) // it may have reserved the unit
		s := n.login(nil)
		if err := s.Logout(n.ctx); err != nil {
			t.Error(err)
		}
	})
}
