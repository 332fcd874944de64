package iscsi_test

import (
	"net"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/iscsi"
)

// TestSlowPeers: peers that are half there are dropped in bounded time, counted on
// a clock that only the test moves; a session beside them stays.
func TestSlowPeers(t *testing.T) {
	const limit = 30 // seconds: PingIdle + PingTime, and a tick at either end
	ids := []string{"InitiatorName=iqn.2026-01.x:slow", "SessionType=Normal", "TargetName=" + targetName}
	for name, tc := range map[string]struct {
		raw   bool // before login
		first []byte
		more  func(second int) []byte // what keeps coming
	}{
		"a byte of a login at a time": {raw: true, more: func(i int) []byte { return loginPDU(0x87, 0, 0, ids...)[i%48 : i%48+1] }},
		"half a header":               {first: pdu(0x40, 0x80, 7, 2, nil)[:20]},
		"a header a byte at a time":   {more: func(i int) []byte { return pdu(0x40, 0x80, 7, 2, nil)[i%40 : i%40+1] }},
		"half a data segment":         {first: scsiPDU(0xa0, 10, 2, 4096, make([]byte, 4096), 0x2a, 0, 0, 0, 0, 0, 0, 0, 8)[:2000]},
		"a data segment a byte at a time": {
			first: scsiPDU(0xa0, 10, 2, 4096, make([]byte, 4096), 0x2a, 0, 0, 0, 0, 0, 0, 0, 8)[:2000],
			more:  func(int) []byte { return []byte{0} },
		},
		"pings, but no data for a write": {
			first: scsiPDU(0xa0, 10, 2, 4096, nil, 0x2a, 0, 0, 0, 0, 0, 0, 0, 8),
			more:  func(int) []byte { return pdu(0x40, 0x80, 0xffffffff, 3, nil) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			clk := clock.NewManual(time.Unix(1e9, 0))
			n := start(t, iscsi.Config{Clock: clk, Limits: iscsi.Limits{LoginTime: 20 * time.Second, PingIdle: 15 * time.Second, PingTime: 10 * time.Second}}, nil)
			beside := n.login(nil)
			var c net.Conn
			var err error
			if tc.raw {
				c, err = net.Dial("tcp", n.addr)
			} else {
				c = rawSession(t, n)
				ready := scsiPDU(0x80, 0xdead, 2, 0, nil) // takes the unit attention
				ready[0] |= 0x40
				if _, err := c.Write(ready); err != nil {
					t.Fatal(err)
				}
				readPDU(t, c)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Write(tc.first); err != nil {
				t.Fatal(err)
			}
			dropped := 0
			for second := 0; dropped == 0; second++ {
				if second == limit {
					t.Fatalf("still there after %d s", limit)
				}
				if tc.more != nil {
					_, _ = c.Write(tc.more(second)) // it may have been dropped
				}
				if err := beside.TestUnitReady(n.ctx, 0); err != nil { // a round trip: what was written has been read
					t.Fatal(err)
				}
				clk.Advance(time.Second)
				watched(t, n, clk)
				dropped = int(n.srv.Stats().DeadPeers)
			}
			eventually(t, n, "only the session beside it is left", func() bool {
				return n.srv.Stats().Connections == 1 && len(n.srv.Sessions()) == 1
			})
			if err := beside.TestUnitReady(n.ctx, 0); err != nil {
				t.Error(err)
			}
		})
	}
}

// watched waits until the watchdog has made its visit of this second: it then
// waits for the next one.
func watched(t *testing.T, n *node, clk *clock.Manual) {
	t.Helper()
	eventually(t, n, "the watchdog's visit", func() bool { return clk.Waiting() > 0 })
}

// TestSilentReader: a peer that goes on sending and does not read its answers is
// dropped in bounded time, even if they are few.
func TestSilentReader(t *testing.T) {
	clk := clock.NewManual(time.Unix(1e9, 0))
	n := start(t, iscsi.Config{Clock: clk}, nil)
	c := rawSession(t, n, "MaxRecvDataSegmentLength=262144")
	if err := c.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	ready := scsiPDU(0x80, 1, 2, 0, nil) // takes the unit attention
	if _, err := c.Write(ready); err != nil {
		t.Fatal(err)
	}
	readPDU(t, c)
	for i := range uint32(8) { // 32 MiB of answers: more than sockets hold
		if _, err := c.Write(scsiPDU(0xc0, 10+i, 3+i, 4<<20, nil, 0xa8, 0, 0, 0, 0, 0, 0, 0, 0x20, 0)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, n, "all reads are executed", func() bool { return n.disk.Ops[iscsi.OpRead].Load() == 8 })
	// The clock runs faster than the sockets fill: its first seconds may pass before
	// the writer has anything to wait for.
	const limit = 3600
	for second := 0; n.srv.Stats().DeadPeers == 0; second++ {
		if second == limit {
			t.Fatalf("still there after %d s", limit)
		}
		if _, err := c.Write(pdu(0x40, 0x80, 0xffffffff, 11, nil)); err != nil { // alive
			t.Fatal(err)
		}
		clk.Advance(time.Second)
		watched(t, n, clk)
	}
	eventually(t, n, "nothing is left", func() bool { return n.srv.Stats().Connections == 0 })
}
