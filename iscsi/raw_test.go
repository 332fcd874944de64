package iscsi_test

import (
	"crypto/md5"
	"encoding/hex"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// pdu builds a PDU by hand.
func pdu(op, flags byte, itt, cmdSN uint32, data []byte) []byte {
	b := make([]byte, 48, 48+len(data)+3)
	b[0], b[1] = op, flags
	b[5], b[6], b[7] = byte(len(data)>>16), byte(len(data)>>8), byte(len(data))
	be.PutUint32(b[16:], itt)
	be.PutUint32(b[24:], cmdSN)
	b = append(b, data...)
	return append(b, make([]byte, -len(data)&3)...)
}

func loginPDU(flags byte, isid, tsih uint16, keys ...string) []byte {
	var text []byte
	for _, k := range keys {
		text = append(append(text, k...), 0)
	}
	p := pdu(0x43, flags, 1, 2, text) // commands begin at CmdSN 2
	p[8] = 0x80
	be.PutUint16(p[12:], isid)
	if tsih != 0x77 { // any value but the one that stands for "new session, other ISID"
		be.PutUint16(p[14:], tsih)
	} else {
		p[11] = 0x77
	}
	return p
}

// readPDU reads one PDU, whose length must be sane, within the test's time.
func readPDU(t *testing.T, c net.Conn) ([]byte, []byte) {
	t.Helper()
	h, d, err := tryPDU(c)
	if err != nil {
		t.Fatalf("no PDU: %v", err)
	}
	return h, d
}

func tryPDU(c net.Conn) ([]byte, []byte, error) {
	_ = c.SetReadDeadline(time.Now().Add(testTime))
	h := make([]byte, 48)
	if _, err := io.ReadFull(c, h); err != nil {
		return nil, nil, err
	}
	n := int(h[5])<<16 | int(h[6])<<8 | int(h[7])
	d := make([]byte, n+(-n&3))
	_, err := io.ReadFull(c, d)
	return h, d[:n], err
}

// rawLogin sends one login request and returns the connection and the status of
// the answer.
func rawLogin(t *testing.T, n *node, flags byte, isid, tsih uint16, keys ...string) (net.Conn, uint16) {
	t.Helper()
	c, err := net.Dial(n.network, n.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := c.Write(loginPDU(flags, isid, tsih, keys...)); err != nil {
		t.Fatal(err)
	}
	h, _ := readPDU(t, c)
	return c, be.Uint16(h[36:])
}

// rawSession logs in with one request; further keys may be given.
func rawSession(t *testing.T, n *node, keys ...string) net.Conn {
	t.Helper()
	c, status := rawLogin(t, n, 0x87, 0, 0, append([]string{"InitiatorName=iqn.2026-01.x:raw", "SessionType=Normal", "TargetName=" + targetName}, keys...)...)
	if status != 0 {
		t.Fatalf("login status %04x", status)
	}
	return c
}

func md5Response(t *testing.T, id byte, secret, challenge string) string {
	t.Helper()
	b, err := hex.DecodeString(strings.TrimPrefix(challenge, "0x"))
	if err != nil {
		t.Fatal(err)
	}
	sum := md5.Sum(append(append([]byte{id}, secret...), b...))
	return "0x" + hex.EncodeToString(sum[:])
}
