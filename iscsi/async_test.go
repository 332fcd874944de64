package iscsi_test

import (
	"fmt"
	"hash/crc32"
	"net"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/iscsi/initiator"
)

// notice is what an asynchronous message says: event, parameters, what follows.
func notice(t *testing.T, c net.Conn) string {
	t.Helper()
	h, _ := readPDU(t, c)
	if h[0] != 0x32 {
		return fmt.Sprintf("PDU %#02x", h[0])
	}
	s := fmt.Sprintf("event %d cid %d wait %d retain %d", h[36], be.Uint16(h[38:]), be.Uint16(h[40:]), be.Uint16(h[42:]))
	if _, _, err := tryPDU(c); err != nil {
		return s + ", closed"
	}
	return s + ", more"
}

// TestDropNotices: who is dropped is told so, and when to come back.
func TestDropNotices(t *testing.T) {
	for name, tc := range map[string]struct {
		drop func(*node) error
		want string
	}{
		"kick":        {func(n *node) error { return n.srv.DropSession(n.srv.Sessions()[0].ID) }, "event 2 cid 3 wait 2 retain 0, closed"},
		"removal":     {func(n *node) error { return n.srv.RemoveTarget(targetName, true) }, "event 2 cid 3 wait 30 retain 0, closed"},
		"no admitted": {func(n *node) error { n.spec.Groups = nil; return n.srv.UpdateTarget(n.spec) }, "event 2 cid 3 wait 30 retain 0, closed"},
		"shutdown":    {func(n *node) error { return n.srv.Shutdown(n.ctx) }, "event 1 cid 0 wait 0 retain 0, closed"},
		"gone disk": {func(n *node) error {
			s := n.login(nil)
			n.disk.SetFail(func(*iscsi.Op) error { return iscsi.ErrGone })
			wantSense(n.t, s.ReadAt(n.ctx, 0, make([]byte, 512), 0), 2, 4, 3)
			<-s.Done()
			return n.srv.DropSession(n.srv.Sessions()[0].ID) // the other is not dropped by it
		}, "event 2 cid 3 wait 2 retain 0, closed"},
	} {
		t.Run(name, func(t *testing.T) {
			n := start(t, iscsi.Config{}, nil)
			c, err := net.Dial("tcp", n.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			p := loginPDU(0x87, 0, 0, "InitiatorName="+hostA, "TargetName="+targetName)
			p[21] = 3 // CID
			if _, err := c.Write(p); err != nil {
				t.Fatal(err)
			}
			readPDU(t, c)
			eventually(t, n, "the session is there", func() bool { return n.srv.Stats().Logins == 1 })
			if err := tc.drop(n); err != nil {
				t.Fatal(err)
			}
			if got := notice(t, c); got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
			eventually(t, n, "the session is gone", func() bool { return n.srv.Stats().Sessions == 0 })
		})
	}
}

// TestDropDeaf: a peer that does not read its notice is dropped all the same.
func TestDropDeaf(t *testing.T) {
	clk := clock.NewManual(time.Unix(1e9, 0))
	n := start(t, iscsi.Config{Clock: clk}, nil)
	c := rawSession(t, n, "MaxRecvDataSegmentLength=16777215")
	_ = c.(*net.TCPConn).SetReadBuffer(4096)
	ready := scsiPDU(0x80, 1, 2, 0, nil)
	if _, err := c.Write(ready); err != nil {
		t.Fatal(err)
	}
	for i := uint32(0); i < 32; i++ { // 128 MiB of answers, more than any socket buffer
		if _, err := c.Write(scsiPDU(0xc0, 10+i, 3+i, 4<<20, nil, 0x28, 0, 0, 0, 0, 0, 0, 0x20, 0)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, n, "the target is stuck in writing", func() bool { return n.disk.Ops[iscsi.OpRead].Load() > 0 })
	removed := make(chan error, 1)
	go func() { removed <- n.srv.RemoveTarget(targetName, true) }()
	eventually(t, n, "it is dropped", func() bool {
		clk.Advance(time.Second)
		return n.srv.Stats().Connections == 0
	})
	if err := <-removed; err != nil {
		t.Error(err)
	}
}

// TestDropWhileRunning: new commands are not executed once a session is to be
// dropped, and its end waits for what runs.
func TestDropWhileRunning(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	s := n.login(nil)
	n.disk.Hold()
	c := &initiator.Command{CDB: initiator.ReadCDB(0, 1), In: make([]byte, 512), Done: func(*initiator.Command) {}}
	if err := s.Submit(c); err != nil {
		t.Fatal(err)
	}
	eventually(t, n, "the read is inside the disk", func() bool { return n.disk.Held() == 1 })
	if err := n.srv.DropSession(n.srv.Sessions()[0].ID); err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	if len(n.srv.Sessions()) != 1 {
		t.Error("the session is gone while its command runs")
	}
	n.disk.Release()
	eventually(t, n, "the session is gone", func() bool { return len(n.srv.Sessions()) == 0 })
}

// TestBidirectional: both residuals say that nothing moved.
func TestBidirectional(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	c := rawSession(t, n)
	attention := scsiPDU(0x80, 1, 2, 0, nil)
	xdwriteread := withAHS(scsiPDU(0xe0, 2, 3, 1024, make([]byte, 1024), 0x53, 0, 0, 0, 0, 0, 0, 0, 2), 0, 5, 2, 0, 0, 0, 4, 0)
	for i, p := range [][]byte{attention, xdwriteread} {
		if _, err := c.Write(p); err != nil {
			t.Fatal(err)
		}
		h, d := readPDU(t, c)
		if i == 0 {
			continue
		}
		if h[0] != 0x21 || h[3] != 2 || d[4] != 5 || d[14] != 0x20 {
			t.Errorf("PDU %#02x, status %d, sense % x", h[0], h[3], d)
		}
		if h[1] != 0x80|0x08|0x02 || be.Uint32(h[40:]) != 1024 || be.Uint32(h[44:]) != 1024 {
			t.Errorf("flags %#02x, residuals %d and %d", h[1], be.Uint32(h[40:]), be.Uint32(h[44:]))
		}
	}
}

// TestHeaderDigestOverAHS: additional header segments are part of what the header
// digest covers.
func TestHeaderDigestOverAHS(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	for _, good := range []bool{true, false} {
		c := rawSession(t, n, "HeaderDigest=CRC32C")
		p := withAHS(scsiPDU(0x80, 10, 2, 0, nil), 0, 5, 1, 0, 9, 9, 9, 9)
		crc := crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli))
		if !good {
			p[52] ^= 1 // in the AHS
		}
		p = append(p, byte(crc), byte(crc>>8), byte(crc>>16), byte(crc>>24))
		if _, err := c.Write(p); err != nil {
			t.Fatal(err)
		}
		if _, _, err := tryPDU(c); (err == nil) != good {
			t.Errorf("good=%v: %v", good, err)
		}
	}
}
