package iscsi_test

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/iscsi/initiator"
)

// TestConnectionFlood: connections beyond the limits are closed at once and cost
// nothing; those within them that do not finish a login are closed in time, and make
// room. A session goes on beside them.
func TestConnectionFlood(t *testing.T) {
	const preLogin, flood = 8, 500
	clk := clock.NewManual(time.Unix(1e9, 0))
	lim := iscsi.Limits{Connections: 20, PreLogin: preLogin, Sessions: 10, LoginTime: 15 * time.Second}
	n := startLocal(t, iscsi.Config{Clock: clk, Limits: lim}, nil)
	b := keepBusy(n.login(nil), 8)
	for name, hello := range map[string][]byte{
		"silent":              nil,
		"half a header":       loginPDU(0x87, 0, 0)[:30],
		"half a login":        lie(loginPDU(0x00, 0, 0, "InitiatorName=iqn.2026-01.x:f"), 8192),
		"one of two stages":   loginPDU(0x81, 0, 0, "InitiatorName=iqn.2026-01.x:f", "SessionType=Normal", "TargetName="+targetName),
		"text without an end": loginPDU(0x40, 0, 0, "InitiatorName=iqn.2026-01.x:f"),
	} {
		t.Run(name, func(t *testing.T) {
			before := measure(t)
			ops, refused := b.done.Load(), n.srv.Stats().Refused
			closed := make(chan struct{}, flood)
			var flooding []net.Conn
			for range flood {
				c, err := net.Dial(n.network, n.addr)
				if err != nil {
					t.Fatal(err)
				}
				flooding = append(flooding, c)
				_, _ = c.Write(hello) // it may be closed already
				go func() {
					_, _ = io.Copy(io.Discard, c)
					closed <- struct{}{}
				}()
			}
			for range flood - preLogin {
				<-closed
			}
			if st := n.srv.Stats(); st.Connections != 1+preLogin || st.Refused-refused != flood-preLogin {
				t.Errorf("%d connections, %d refused", st.Connections, st.Refused-refused)
			}
			if _, err := n.dial(nil); err == nil {
				t.Error("a connection beyond the limit")
			}
			eventually(t, n, "the session beside the flood goes on", func() bool { return b.done.Load() >= ops+8 })
			dropped, seconds := n.srv.Stats().DeadPeers, 0
			for ; n.srv.Stats().DeadPeers-dropped < preLogin; seconds++ {
				if seconds > 17 { // LoginTime and a tick at either end
					t.Fatalf("after %d s %d of %d are dropped", seconds, n.srv.Stats().DeadPeers-dropped, preLogin)
				}
				clk.Advance(time.Second)
				watched(t, n, clk)
			}
			for range preLogin {
				<-closed
			}
			for _, c := range flooding {
				_ = c.Close()
			}
			s, err := n.connect(nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(s.Ready(n.ctx, 0), s.Logout(n.ctx)); err != nil {
				t.Error(err)
			}
			s.Close()
			before.back(t, n, 4<<20)
		})
	}
	if err := b.end(); err != nil {
		t.Error(err)
	}
}

// TestSilentKeepOut: connections that occupy all places of logins, and come again as
// soon as they are closed, do not keep initiators out; one that waits for the session
// which it replaces keeps its place.
func TestSilentKeepOut(t *testing.T) {
	const preLogin = 8
	clk := clock.NewManual(time.Unix(1e9, 0))
	n := startLocal(t, iscsi.Config{Clock: clk, Limits: iscsi.Limits{PreLogin: preLogin}}, nil)
	isid := [6]byte{0x80, 9}
	old, err := n.dial(func(o *initiator.Options) { o.ISID = isid })
	if err != nil {
		t.Fatal(err)
	}
	if err := old.Ready(n.ctx, 0); err != nil {
		t.Fatal(err)
	}
	n.disk.Hold()
	if err := old.Submit(&initiator.Command{CDB: initiator.ReadCDB(0, 1), In: make([]byte, 512), Done: func(*initiator.Command) {}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, n, "the read is inside the disk", func() bool { return n.disk.Held() == 1 })
	waits := make(chan error, 1)
	go func() {
		_, err := n.dial(func(o *initiator.Options) { o.ISID = isid })
		waits <- err
	}()
	<-old.Done()
	silent := func() {
		c, err := net.Dial(n.network, n.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	for range preLogin - 1 {
		silent()
	}
	eventually(t, n, "all places are taken", func() bool { return n.srv.Stats().Accepted == 1+preLogin })
	if _, err := n.connect(nil); err == nil {
		t.Fatal("a login displaced one that had just begun")
	}
	clk.Advance(3 * time.Second)
	watched(t, n, clk)
	for i := range preLogin - 1 { // each takes the place of a silent one, and gives it back
		s, err := n.connect(nil)
		if err != nil {
			t.Fatalf("login %d: %v", i, err)
		}
		if _, err := s.Inquiry(n.ctx, 0, -1); err != nil { // the login is over on the other side, too
			t.Fatal(err)
		}
		s.Close()
		silent()
		eventually(t, n, "the place is taken again", func() bool { return n.srv.Stats().Accepted == uint64(1+preLogin+2*(i+1)) })
	}
	n.disk.Release()
	if err := <-waits; err != nil {
		t.Errorf("the login that waited: %v", err)
	}
}

// TestSessionFlood: the same for initiators that log in and stay, of either kind.
func TestSessionFlood(t *testing.T) {
	n := startLocal(t, iscsi.Config{Limits: iscsi.Limits{Sessions: 5, Discovery: 3, Connections: 100}}, nil)
	var in []*initiator.Session
	for range 50 {
		s, err := n.dial(nil)
		if err == nil {
			in = append(in, s)
		} else if loginStatus(err) != 0x0302 {
			t.Error(err)
		}
	}
	discovery := 0
	for i := range 20 {
		if _, status := rawLogin(t, n, 0x87, uint16(i), 0, "InitiatorName=iqn.2026-01.x:f", "SessionType=Discovery"); status == 0 {
			discovery++
		} else if status != 0x0302 {
			t.Errorf("status %04x", status)
		}
	}
	if len(in) != 5 || discovery != 3 {
		t.Errorf("%d sessions, %d discovery sessions", len(in), discovery)
	}
	for _, s := range in {
		if err := s.Ready(n.ctx, 0); err != nil {
			t.Error(err)
		}
	}
	in[0].Close()
	eventually(t, n, "there is room again", func() bool {
		s, err := n.dial(nil)
		return err == nil && s.Ready(n.ctx, 0) == nil
	})
}

// TestFloods: peers that send as fast as they can, and read the answers, get no more
// of the server than others do.
func TestFloods(t *testing.T) {
	n := startLocal(t, iscsi.Config{}, nil)
	b := keepBusy(n.login(nil), 8)
	for name, p := range map[string][]byte{
		"pings": pdu(0x40, 0x80, 7, 2, make([]byte, 4096)),
		"immediate": func() []byte {
			p := scsiPDU(0xc0, 9, 2, 4096, nil, 0x28, 0, 0, 0, 0, 0, 0, 0, 8)
			p[0] |= 0x40
			return p
		}(),
		"text":            func() []byte { p := textPDU(0x80, 7, newText, 2, "SendTargets=\x00"); p[0] |= 0x40; return p }(),
		"text begun":      func() []byte { p := textPDU(0x40, 7, newText, 2, "garbage=garbage!"); p[0] |= 0x40; return p }(),
		"task management": pdu(0x42, 0x82, 7, 2, nil),
		"rejects":         pdu(0x5c, 0x80, 7, 2, nil),
		"no such task":    dataOut(0x80, 99, 1, 0, 0, make([]byte, 4096)),
	} {
		t.Run(name, func(t *testing.T) {
			before := measure(t)
			ops := b.done.Load()
			c := rawSession(t, n)
			read, closed := make(chan int64, 1), false
			go func() {
				k, _ := io.Copy(io.Discard, c)
				read <- k
			}()
			for sent := 0; sent < 5000 || b.done.Load() < ops+8; sent++ { // the flood goes on until others were served
				if _, err := c.Write(p); err != nil {
					if sent*len(p) < 8<<20 {
						t.Fatal(err)
					}
					// On a busy machine the reader above may fall behind by so much of
					// answers that the server closes: it may.
					closed = true
					break
				}
				if n.ctx.Err() != nil {
					t.Fatal("the session beside it did nothing")
				}
			}
			if !closed {
				if _, err := c.Write(pdu(0x46, 0x80, 8, 2, nil)); err != nil {
					t.Fatal(err)
				}
			}
			<-read // the logout ended it
			c.Close()
			before.back(t, n, 4<<20)
		})
	}
	if err := b.end(); err != nil {
		t.Error(err)
	}
}

// TestWatchdogMidCommand: a command that is being read whenever the watchdog looks is
// not one whose data does not come, however long ago data came last.
func TestWatchdogMidCommand(t *testing.T) {
	clk := clock.NewManual(time.Unix(1e9, 0))
	n := start(t, iscsi.Config{Clock: clk}, nil)
	c := rawSession(t, n)
	send := func(p []byte) {
		t.Helper()
		if _, err := c.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	send(scsiPDU(0x80, 1, 2, 0, nil)) // takes the unit attention
	readPDU(t, c)
	for i := range uint32(60) {
		write := scsiPDU(0xa0, 11, 3+i, 512, make([]byte, 512), 0x2a, 0, 0, 0, 0, 0, 0, 0, 1)
		commands := n.srv.Stats().Commands
		send(write[:300])
		eventually(t, n, "the target reads the data of the write", func() bool { return n.srv.Stats().Commands == commands+1 })
		clk.Advance(time.Second)
		watched(t, n, clk)
		send(write[300:])
		if h, _ := readPDU(t, c); h[0] != 0x21 || h[3] != 0 {
			t.Fatalf("second %d: PDU %#02x, status %#02x", i, h[0], h[3])
		}
	}
}
