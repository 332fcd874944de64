package iscsi_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/iscsi/initiator"
)

// lineLog collects log lines.
type lineLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lineLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// lines returns those that contain s.
func (l *lineLog) lines(s string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, x := range strings.Split(l.b.String(), "\n") {
		if strings.Contains(x, s) {
			out = append(out, x)
		}
	}
	return out
}

func (l *lineLog) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// refusable runs a target with a CHAP group, an open group and a portal, and room
// for one session more than there is.
func refusable(t *testing.T, cfg iscsi.Config) (n *node, hidden string) {
	n = start(t, cfg, func(s *iscsi.TargetSpec) {
		s.Groups = []iscsi.Group{
			{Name: "chap", Initiators: []string{hostA}, Auth: &iscsi.Auth{User: user, Secret: secret}},
			{Name: "plain", Initiators: []string{hostB}},
		}
	})
	n.spec.Portals = []iscsi.Portal{{Address: n.addr, Local: n.addr, Group: 1}}
	n.update()
	hidden, _ = n.listen("127.0.0.1:0")
	return n, hidden
}

// TestLoginRefusals: the status of each refused login, and its line in the log.
func TestLoginRefusals(t *testing.T) {
	log := &lineLog{}
	clk := clock.NewManual(time.Unix(1e9, 0))
	n, hidden := refusable(t, iscsi.Config{Log: log.logger(), Clock: clk, Limits: iscsi.Limits{Sessions: 1, PingIdle: 1000 * time.Hour}})
	chap := func(change func(*initiator.Options)) func(*initiator.Options) {
		return func(o *initiator.Options) {
			o.Initiator, o.CHAPUser, o.CHAPSecret = hostA, user, secret
			if change != nil {
				change(o)
			}
		}
	}
	ids := func(name string, more ...string) []string {
		return append([]string{"InitiatorName=" + name, "SessionType=Normal", "TargetName=" + targetName}, more...)
	}
	one := n.ready(chap(nil))                       // takes the one session
	if _, err := one.Ping(n.ctx, nil); err != nil { // past its login also for the watchdog
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		dial   func(*initiator.Options)
		raw    []byte
		status uint16
		who    string
		why    string
		early  bool // before the target is known
	}{
		{"too many sessions", as(hostB), nil, 0x0302, hostB, "1 sessions, which is the limit", false},
		{"wrong secret", chap(func(o *initiator.Options) { o.CHAPSecret = "some other secret" }), nil, 0x0201, hostA, "authentication failed", false},
		{"wrong user", chap(func(o *initiator.Options) { o.CHAPUser = "mallory" }), nil, 0x0201, hostA, "authentication failed", false},
		{"no CHAP", as(hostA), nil, 0x0201, hostA, "the target takes CHAP", false},
		{"mutual without a secret", chap(func(o *initiator.Options) { o.MutualUser, o.MutualSecret = "m", mutualSecret }), nil, 0x0201, hostA, "mutual CHAP", false},
		{"operational stage at once", nil, loginPDU(0x87, 1, 0, ids(hostA)...), 0x0201, hostA, "demands CHAP", false},
		{"security stage left without a word", nil, loginPDU(0x81, 1, 0, ids(hostA)...), 0x0201, hostA, "demands CHAP", false},
		{"only None", nil, loginPDU(0x00, 1, 0, ids(hostA, "AuthMethod=None")...), 0x0201, hostA, "takes CHAP", false},
		{"only Kerberos", nil, loginPDU(0x00, 1, 0, ids(hostA, "AuthMethod=KRB5")...), 0x0201, hostA, "KRB5", false},
		{"only CHAP, to a group without", nil, loginPDU(0x00, 1, 0, ids(hostB, "AuthMethod=CHAP")...), 0x0201, hostB, "takes None", false},
		{"in no group", as(hostC), nil, 0x0202, hostC, "no group of the target admits this initiator", false},
		{"unknown target", func(o *initiator.Options) { o.Initiator, o.Target = hostB, targetName+".no" }, nil, 0x0203, hostB, "no such target", false},
		{"another portal", func(o *initiator.Options) { o.Initiator, o.Address = hostB, hidden }, nil, 0x0203, hostB, "no portal at " + hidden, false},
		{"no initiator name", nil, loginPDU(0x87, 1, 0, "TargetName="+targetName), 0x0207, "", "no InitiatorName", true},
		{"no target name", nil, loginPDU(0x87, 1, 0, "InitiatorName="+hostB), 0x0207, hostB, "no TargetName", true},
		{"session type", nil, loginPDU(0x87, 1, 0, "InitiatorName="+hostB, "SessionType=Other"), 0x0209, hostB, `SessionType \"Other\"`, true},
		{"TSIH of no session", nil, loginPDU(0x87, 1, 0x1234, ids(hostB)...), 0x020a, hostB, "no session with TSIH 4660", false},
		{"TSIH of no discovery session", nil, loginPDU(0x87, 1, 0x1234, "InitiatorName="+hostB, "SessionType=Discovery"), 0x020a, hostB, "TSIH 4660", true},
		{"version", nil, func() []byte {
			p := loginPDU(0x87, 1, 0, ids(hostB)...)
			p[2], p[3] = 2, 1
			return p
		}(), 0x0205, "", "iSCSI version 1", true},
		{"control characters in the name", nil, loginPDU(0x87, 1, 0, ids("a\nb")...), 0x0200, "", "not a name", true},
		{"AuthMethod twice", nil, append(loginPDU(0x00, 1, 0, ids(hostA, "AuthMethod=CHAP,None")...), loginPDU(0x00, 1, 0, "AuthMethod=CHAP")...), 0x0200, hostA, "negotiated already", false},
		{"an endless answer", nil, func() []byte {
			keys := ids(hostB)
			for i := range 120 {
				keys = append(keys, fmt.Sprintf("%063d=", i))
			}
			return loginPDU(0x87, 1, 0, keys...)
		}(), 0x0200, hostB, "more than 8192 bytes", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			clk.Advance(time.Hour) // the allowance of log lines is whole
			before := len(log.lines("login refused"))
			local := n.addr
			if tc.dial != nil {
				_, err := n.dial(tc.dial)
				if loginStatus(err) != tc.status {
					t.Errorf("%v, want status %04x", err, tc.status)
				}
				if tc.name == "another portal" {
					local = hidden
				}
			} else {
				c, err := net.Dial("tcp", n.addr)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if _, err := c.Write(tc.raw); err != nil {
					t.Fatal(err)
				}
				status := uint16(0)
				for status == 0 { // also the answers on the way there
					h, _ := readPDU(t, c)
					status = be.Uint16(h[36:])
				}
				if status != tc.status {
					t.Errorf("status %04x, want %04x", status, tc.status)
				}
			}
			eventually(t, n, "a line in the log", func() bool { return len(log.lines("login refused")) > before })
			all := log.lines("login refused")
			line := all[len(all)-1]
			target := targetName
			if tc.early {
				target = `target=""`
			}
			for _, part := range []string{"level=WARN", "remote=127.0.0.1:", "portal=" + local, "initiator=" + tc.who, target, fmt.Sprintf("status %04x", tc.status), tc.why} {
				if !strings.Contains(line, part) {
					t.Errorf("%s\ndoes not say %s", line, part)
				}
			}
			for _, s := range []string{secret, mutualSecret, "some other secret"} {
				if strings.Contains(line, s) {
					t.Errorf("a secret in the log: %s", line)
				}
			}
			eventually(t, n, "the one session, and no other", func() bool { return n.srv.Stats().Sessions == 1 })
		})
	}
}

// TestAuthMethods: lists that hold what is demanded are taken, whatever else they
// hold, also when the list comes in a later request.
func TestAuthMethods(t *testing.T) {
	n, _ := refusable(t, iscsi.Config{})
	for _, tc := range []struct{ who, offer, answer string }{
		{hostA, "CHAP,None", "CHAP"}, {hostA, "None,CHAP", "CHAP"}, {hostA, "SRP,KRB5,CHAP", "CHAP"},
		{hostB, "CHAP,None", "None"}, {hostB, "None", "None"},
	} {
		for _, later := range []bool{false, true} {
			keys := []string{"InitiatorName=" + tc.who, "SessionType=Normal", "TargetName=" + targetName}
			if !later {
				keys = append(keys, "AuthMethod="+tc.offer)
			}
			c, err := net.Dial("tcp", n.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Write(loginPDU(0x00, 1, 0, keys...)); err != nil {
				t.Fatal(err)
			}
			h, text := readPDU(t, c)
			if later {
				if _, err := c.Write(loginPDU(0x00, 1, 0, "AuthMethod="+tc.offer)); err != nil {
					t.Fatal(err)
				}
				h, text = readPDU(t, c)
			}
			if !bytes.Contains(text, []byte("AuthMethod="+tc.answer+"\x00")) || be.Uint16(h[36:]) != 0 {
				t.Errorf("%s offers %s, later=%v: %q, status % x", tc.who, tc.offer, later, text, h[36:38])
			}
		}
	}
}

// TestStrongestCHAP: the strongest algorithm of the offer is chosen.
func TestStrongestCHAP(t *testing.T) {
	n, _ := refusable(t, iscsi.Config{})
	for offer, want := range map[string]string{"5": "5", "5,6,7,8": "8", "8,7,5": "8", "7,5": "7", "6,5": "5", "300,x,5": "5"} {
		c, _ := rawLogin(t, n, 0x00, 1, 0, "InitiatorName="+hostA, "TargetName="+targetName, "AuthMethod=CHAP")
		if _, err := c.Write(loginPDU(0x00, 1, 0, "CHAP_A="+offer)); err != nil {
			t.Fatal(err)
		}
		if _, text := readPDU(t, c); !bytes.HasPrefix(text, []byte("CHAP_A="+want+"\x00CHAP_I=")) {
			t.Errorf("%s: %q", offer, text)
		}
	}
}

// TestLoginContinuation: keys spread over requests by the C bit.
func TestLoginContinuation(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	c, err := net.Dial("tcp", n.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	text := "InitiatorName=" + hostA + "\x00SessionType=Normal\x00TargetName=" + targetName + "\x00HeaderDigest=None\x00"
	for len(text) > 0 {
		k := min(len(text), 9)
		flags, part := byte(0x44), text[:k]
		if text = text[k:]; text == "" {
			flags = 0x87
		}
		p := loginPDU(flags, 1, 0)
		p[7] = byte(k)
		p = append(append(p, part...), make([]byte, -k&3)...)
		if _, err := c.Write(p); err != nil {
			t.Fatal(err)
		}
		h, answer := readPDU(t, c)
		switch {
		case be.Uint16(h[36:]) != 0:
			t.Fatalf("status % x", h[36:38])
		case flags == 0x44 && (len(answer) > 0 || h[1] != 0x04):
			t.Fatalf("answer %q, flags %#02x to a request that goes on", answer, h[1])
		case flags == 0x87 && (h[1] != 0x87 || !bytes.Contains(answer, []byte("HeaderDigest=None\x00"))):
			t.Fatalf("answer %q, flags %#02x", answer, h[1])
		}
	}
}

// TestRedirect: logins are sent elsewhere, except where they are sent to.
func TestRedirect(t *testing.T) {
	log := &lineLog{}
	n, _ := refusable(t, iscsi.Config{Log: log.logger()})
	second, _ := n.listen("127.0.0.1:0")
	leaves := n.login(as(hostB))
	n.spec.Portals = append(n.spec.Portals, iscsi.Portal{Address: second, Local: second, Group: 2})
	for permanent, want := range map[bool]uint16{false: 0x0101, true: 0x0102} {
		n.spec.Redirect = &iscsi.Redirect{Addresses: []string{"[fd00::1]:3260", "0.0.0.2:3260", second}, Permanent: permanent}
		n.update()
		var e *initiator.LoginError
		_, err := n.dial(as(hostB))
		if !errors.As(err, &e) || e.Status != want || e.Address != second {
			t.Errorf("%v: %+v", err, e)
		}
		if _, err := n.dial(as(hostC)); loginStatus(err) != 0x0202 {
			t.Errorf("who is not admitted is told where it is: %v", err)
		}
		s, err := n.dial(func(o *initiator.Options) { o.Initiator, o.Address = hostB, e.Address })
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Ready(n.ctx, 0); err != nil {
			t.Error(err)
		}
	}
	eventually(t, n, "lines in the log", func() bool { return len(log.lines("login redirected")) == 2 })
	if l := log.lines("login redirected")[0]; !strings.Contains(l, "level=INFO") || !strings.Contains(l, second) || !strings.Contains(l, hostB) {
		t.Error(l)
	}
	eventually(t, n, "the session from before to end, and no other", func() bool {
		all := n.srv.Sessions()
		return len(all) == 2 && !slices.ContainsFunc(all, func(i iscsi.SessionInfo) bool { return i.Local != second })
	})
	if err := leaves.Ready(n.ctx, 0); err == nil {
		t.Error("a session where logins are sent elsewhere goes on")
	}
	if r := n.srv.Targets()[0].Redirect; r == nil || len(r.Addresses) != 3 {
		t.Errorf("%+v", r)
	}
}

// TestRefusalStorm: thousands of refused logins leave some lines and a count.
func TestRefusalStorm(t *testing.T) {
	log := &lineLog{}
	clk := clock.NewManual(time.Unix(1e9, 0))
	n := start(t, iscsi.Config{Log: log.logger(), Clock: clk}, nil)
	refuse := func() {
		if _, status := rawLogin(t, n, 0x87, 0, 0, "InitiatorName="+hostA, "TargetName=iqn.none"); status != 0x0203 {
			t.Fatalf("status %04x", status)
		}
	}
	const storm = 1000
	for range storm {
		refuse()
	}
	eventually(t, n, "every login is counted", func() bool { return n.srv.Stats().LoginFailures == storm })
	if k := len(log.lines("login refused")); k != 5 {
		t.Errorf("%d lines about one peer", k)
	}
	clk.Advance(time.Minute)
	refuse()
	eventually(t, n, "the next line", func() bool { return len(log.lines("login refused")) == 6 })
	if l := log.lines("login refused")[5]; !strings.Contains(l, fmt.Sprintf("withheld=%d", storm-5)) {
		t.Errorf("the line does not say what was withheld: %s", l)
	}
	for range 20 { // probes
		c, err := net.Dial("tcp", n.addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	}
	eventually(t, n, "the probes are gone", func() bool { return n.srv.Stats().LoginFailures == storm+21 })
	if k := len(log.lines("login broken off")); k != 0 {
		t.Errorf("%d lines about probes", k)
	}
}

// TestSessionStorm: neither does a host that logs in and out without end.
func TestSessionStorm(t *testing.T) {
	log := &lineLog{}
	n := start(t, iscsi.Config{Log: log.logger(), Clock: clock.NewManual(time.Unix(1e9, 0))}, nil)
	const storm = 700
	for range storm {
		s, err := n.dial(nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Logout(n.ctx); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, n, "all are gone", func() bool { return n.srv.Stats().Connections == 0 })
	if k := len(log.lines("msg=\"session ")); k != 1000 {
		t.Errorf("%d lines about %d sessions", k, storm)
	}
}

// TestDiscoverySession: what it may ask, how many there are, how long it lasts.
func TestDiscoverySession(t *testing.T) {
	clk := clock.NewManual(time.Unix(1e9, 0))
	n := start(t, iscsi.Config{Clock: clk, Limits: iscsi.Limits{Discovery: 2}}, nil)
	keys := []string{"InitiatorName=" + hostA, "SessionType=Discovery"}
	c, status := rawLogin(t, n, 0x87, 0, 0, keys...)
	if status != 0 {
		t.Fatalf("status %04x", status)
	}
	address := "TargetName=" + targetName + "\x00TargetAddress=" + n.addr + ",1\x00"
	for _, tc := range []struct {
		name   string
		pdu    []byte
		answer string
		text   string
	}{
		{"all", textPDU(0x80, 7, newText, 2, "SendTargets=All\x00"), "text 00", address},
		{"by name", textPDU(0x80, 7, newText, 3, "SendTargets="+strings.ToUpper(targetName)+"\x00"), "text 00", address},
		{"unknown name", textPDU(0x80, 7, newText, 4, "SendTargets=iqn.none\x00"), "text 00", ""},
		{"no name", textPDU(0x80, 7, newText, 5, "SendTargets=\x00"), "text 00", "SendTargets=Reject\x00"},
		{"command", scsiPDU(0xc0, 7, 6, 36, nil, 0x12, 0, 0, 0, 36), "reject 05", ""},
		{"ping", pdu(0x00, 0x80, 7, 7, nil), "reject 05", ""},
		{"task management", pdu(0x42, 0x82, 7, 8, nil), "reject 05", ""},
		{"data", dataOut(0x80, 7, 1, 0, 0, make([]byte, 512)), "reject 05", ""},
		{"logout", pdu(0x06, 0x80, 7, 8, nil), "logout 00", ""},
	} {
		if _, err := c.Write(tc.pdu); err != nil {
			t.Fatal(err)
		}
		h, text := readPDU(t, c)
		if got := answerNames[h[0]] + fmt.Sprintf(" %02x", h[2]); got != tc.answer || h[0] == 0x24 && string(text) != tc.text {
			t.Errorf("%s: %s %q, want %s %q", tc.name, got, text, tc.answer, tc.text)
		}
	}
	eventually(t, n, "it is over", func() bool { return n.srv.Stats().Connections == 0 })

	for range 2 {
		if _, status := rawLogin(t, n, 0x87, 0, 0, keys...); status != 0 {
			t.Fatalf("status %04x", status)
		}
	}
	if _, status := rawLogin(t, n, 0x87, 0, 0, keys...); status != 0x0302 {
		t.Errorf("one too many: status %04x", status)
	}
	s := n.login(nil) // normal sessions are counted apart
	if text, err := s.Text(n.ctx, "SendTargets=All\x00"); err != nil || text != "SendTargets=Reject\x00" {
		t.Errorf("All in a normal session: %q, %v", text, err)
	}
	eventually(t, n, "silent ones are dropped", func() bool {
		clk.Advance(time.Second)
		return n.srv.Stats().Connections == 1
	})
	if _, status := rawLogin(t, n, 0x87, 0, 0, keys...); status != 0 {
		t.Errorf("after they are gone: status %04x", status)
	}
	if err := s.TestUnitReady(n.ctx, 0); err != nil {
		t.Error(err)
	}
}

// TestSegmentLengthChange: an initiator may declare another
// MaxRecvDataSegmentLength at any time.
func TestSegmentLengthChange(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	c := rawSession(t, n, "MaxRecvDataSegmentLength=8192")
	read := func(itt, sn uint32) (segments []int) {
		p := scsiPDU(0xc0, itt, sn, 16384, nil, 0x28, 0, 0, 0, 0, 0, 0, 0, 32)
		if _, err := c.Write(p); err != nil {
			t.Fatal(err)
		}
		for {
			h, d := readPDU(t, c)
			segments = append(segments, len(d))
			if h[0] != 0x25 || h[1]&1 != 0 {
				return segments
			}
		}
	}
	if got := read(10, 2); len(got) != 1 || got[0] == 16384 { // the unit attention
		t.Fatalf("%v", got)
	}
	sn := uint32(3)
	for declared, want := range map[string]string{"4096": "[4096 4096 4096 4096]", "65536": "[16384]", "100": ""} {
		if _, err := c.Write(textPDU(0x80, sn, newText, sn, "MaxRecvDataSegmentLength="+declared+"\x00")); err != nil {
			t.Fatal(err)
		}
		_, text := readPDU(t, c)
		if want == "" {
			if string(text) != "MaxRecvDataSegmentLength=Reject\x00" {
				t.Errorf("%s: %q", declared, text)
			}
			sn++
			continue
		}
		if got := read(sn+1, sn+1); len(text) != 0 || fmt.Sprint(got) != want {
			t.Errorf("%s: answer %q, segments %v", declared, text, got)
		}
		sn += 2
	}
}

// TestSerialWrap: CmdSN and StatSN pass 2^32.
func TestSerialWrap(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	for _, first := range []uint32{0xffffffff, 0xffffff80, 0x7ffffff0} {
		s := n.login(func(o *initiator.Options) { o.CmdSN = first })
		const commands, depth = 600, 200 // beyond the window
		free := make(chan *initiator.Command, depth)
		for range depth {
			free <- &initiator.Command{In: make([]byte, 512), Done: func(c *initiator.Command) { free <- c }}
		}
		for i := range commands {
			c := <-free
			if c.Err != nil {
				t.Fatal(c.Err)
			}
			c.CDB, c.Immediate = initiator.ReadCDB(uint64(i), 1), i%50 == 0
			if err := s.Submit(c); err != nil {
				t.Fatal(err)
			}
		}
		for range depth {
			if c := <-free; c.Err != nil {
				t.Fatal(c.Err)
			}
		}
		if err := s.Logout(n.ctx); err != nil || s.Rejects() != 0 {
			t.Errorf("%v, %d rejects", err, s.Rejects())
		}
	}
}
