package iscsi_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/iscsi/initiator"
	"github.com/openvstorage/ovgate/iscsi/iscsitest"
)

// eventually waits for a condition that another goroutine brings about.
func eventually(t *testing.T, n *node, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-n.ctx.Done():
			t.Fatalf("never: %s", what)
		}
	}
}

const (
	user, secret             = "alice", "correct horse battery"
	mutualUser, mutualSecret = "target", "staple staple staple"
)

func loginStatus(err error) uint16 {
	var e *initiator.LoginError
	if errors.As(err, &e) {
		return e.Status
	}
	return 0
}

func TestCHAP(t *testing.T) {
	n := start(t, iscsi.Config{}, func(s *iscsi.TargetSpec) {
		s.Groups = open(&iscsi.Auth{User: user, Secret: secret, MutualUser: mutualUser, MutualSecret: mutualSecret})
	})
	good := func(o *initiator.Options) { o.CHAPUser, o.CHAPSecret = user, secret }
	for _, tc := range []struct {
		name   string
		change func(*initiator.Options)
		status uint16 // 0: success
		fail   bool   // the initiator itself refuses
	}{
		{"strongest", good, 0, false},
		{"SHA3-256", func(o *initiator.Options) { good(o); o.CHAPAlgorithms = "5,8,7" }, 0, false},
		{"SHA-256", func(o *initiator.Options) { good(o); o.CHAPAlgorithms = "5,7" }, 0, false},
		{"MD5", func(o *initiator.Options) { good(o); o.CHAPAlgorithms = "5" }, 0, false},
		{"preferred unknown", func(o *initiator.Options) { good(o); o.CHAPAlgorithms = "9,6,5" }, 0, false},
		{"no common algorithm", func(o *initiator.Options) { good(o); o.CHAPAlgorithms = "6" }, 0x0201, false},
		{"no CHAP", func(*initiator.Options) {}, 0x0201, false},
		{"wrong secret", func(o *initiator.Options) { good(o); o.CHAPSecret = "wrong wrong wrong" }, 0x0201, false},
		{"wrong user", func(o *initiator.Options) { good(o); o.CHAPUser = "bob" }, 0x0201, false},
		{"mutual", func(o *initiator.Options) { good(o); o.MutualUser, o.MutualSecret = mutualUser, mutualSecret }, 0, false},
		{"mutual MD5", func(o *initiator.Options) {
			good(o)
			o.CHAPAlgorithms, o.MutualUser, o.MutualSecret = "5", mutualUser, mutualSecret
		}, 0, false},
		{"mutual, other secret expected", func(o *initiator.Options) {
			good(o)
			o.MutualUser, o.MutualSecret = mutualUser, "something else"
		}, 0, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := n.dial(tc.change)
			if got := loginStatus(err); got != tc.status || (err != nil) != (tc.fail || tc.status != 0) {
				t.Fatalf("%v, want status %04x", err, tc.status)
			}
			if err == nil {
				if err := s.Ready(n.ctx, 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	t.Run("skipping the security stage", func(t *testing.T) {
		_, status := rawLogin(t, n, 0x87, 0, 0, "InitiatorName=iqn.2026-01.x:y", "SessionType=Normal", "TargetName="+targetName)
		if status != 0x0201 {
			t.Errorf("status %04x", status)
		}
	})
	t.Run("challenge sent back", func(t *testing.T) { reflectChallenge(t, n) })
}

// reflectChallenge plays an initiator that answers with the target's challenge.
func reflectChallenge(t *testing.T, n *node) {
	c, _ := rawLogin(t, n, 0x00, 0, 0, "InitiatorName=iqn.2026-01.x:y", "SessionType=Normal", "TargetName="+targetName, "AuthMethod=CHAP")
	if _, err := c.Write(loginPDU(0x00, 0, 0, "CHAP_A=5")); err != nil {
		t.Fatal(err)
	}
	_, text := readPDU(t, c)
	keys := map[string]string{}
	for _, f := range strings.Split(string(text), "\x00") {
		k, v, _ := strings.Cut(f, "=")
		keys[k] = v
	}
	id := byte(0)
	if _, err := fmt.Sscan(keys["CHAP_I"], &id); err != nil {
		t.Fatal(err)
	}
	sum := md5Response(t, id, secret, keys["CHAP_C"])
	if _, err := c.Write(loginPDU(0x81, 0, 0, "CHAP_N="+user, "CHAP_R="+sum, "CHAP_I=1", "CHAP_C="+keys["CHAP_C"])); err != nil {
		t.Fatal(err)
	}
	h, _ := readPDU(t, c)
	if st := binary.BigEndian.Uint16(h[36:]); st != 0x0201 {
		t.Errorf("a reflected challenge ends with status %04x", st)
	}
}

func TestACLAndDiscovery(t *testing.T) {
	const friend, stranger = "iqn.2026-01.host:a", "iqn.2026-01.host:b"
	n := start(t, iscsi.Config{}, func(s *iscsi.TargetSpec) {
		s.Groups = []iscsi.Group{{Name: "friends", Initiators: []string{"IQN.2026-01.host:A"}}}
		s.Portals = []iscsi.Portal{{Address: "192.0.2.1:3260", Group: 7}, {Address: "[2001:db8::1]:3260", Group: 8}}
	})
	as := func(name string) func(*initiator.Options) {
		return func(o *initiator.Options) { o.Initiator = name }
	}
	if _, err := n.dial(as(stranger)); loginStatus(err) != 0x0202 {
		t.Errorf("stranger: %v", err)
	}
	s, err := n.dial(as(friend))
	if err != nil {
		t.Fatal(err)
	}
	if tag := s.Keys()["TargetPortalGroupTag"]; tag != "" {
		t.Errorf("portal group tag %q in the last answer, it belongs into the first", tag)
	}
	for name, want := range map[string]string{
		stranger: "[]",
		friend:   "[{" + targetName + " [192.0.2.1:3260,7 [2001:db8::1]:3260,8]}]",
	} {
		got, err := initiator.Discover(n.ctx, initiator.Options{Address: n.addr, Initiator: name})
		if err != nil || fmt.Sprint(got) != want {
			t.Errorf("%s discovers %v, %v", name, got, err)
		}
	}
	if _, err := n.dial(func(o *initiator.Options) { o.Initiator, o.Target = friend, "iqn.2026-01.no:such" }); loginStatus(err) != 0x0203 {
		t.Errorf("unknown target: %v", err)
	}
	n.spec.Groups[0].Initiators = []string{stranger} // the friend is thrown out
	if err := n.srv.UpdateTarget(n.spec); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.Done():
	case <-n.ctx.Done():
		t.Error("the session outlived its admission")
	}
	if _, err := n.dial(as(stranger)); err != nil {
		t.Error(err)
	}
}

// TestManyTargets: a SendTargets answer longer than one PDU.
func TestManyTargets(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	const count = 300
	for i := range count {
		spec := n.spec
		spec.Name = fmt.Sprintf("iqn.2026-01.org.example:many-%04d", i)
		if err := n.srv.AddTarget(spec); err != nil {
			t.Fatal(err)
		}
	}
	got, err := initiator.Discover(n.ctx, initiator.Options{Address: n.addr, MaxRecvDataSegmentLength: 512})
	if err != nil || len(got) != count+1 || len(n.srv.Targets()) != count+1 {
		t.Errorf("%d targets, %v", len(got), err)
	}
	for _, g := range got {
		if len(g.Addresses) != 1 || g.Addresses[0] != n.addr+",1" {
			t.Fatalf("%+v", g)
		}
	}
}

// TestReinstatement: a login of the same initiator port closes the old session
// first, and its answer waits for the old commands (I4).
func TestReinstatement(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	old := n.login(nil)
	isid := old.ISID()
	n.disk.Hold()
	c := &initiator.Command{CDB: initiator.WriteCDB(0, 1, false), Out: make([]byte, 512), Done: func(*initiator.Command) {}}
	if err := old.Submit(c); err != nil {
		t.Fatal(err)
	}
	eventually(t, n, "the write is inside the disk", func() bool { return n.disk.Held() == 1 })
	type result struct {
		s   *initiator.Session
		err error
	}
	fresh := make(chan result, 1)
	go func() {
		s, err := n.dial(func(o *initiator.Options) { o.ISID = isid })
		fresh <- result{s, err}
	}()
	<-old.Done()
	select {
	case <-fresh:
		t.Fatal("the login was answered while an old command was running")
	default:
	}
	n.disk.Release()
	r := <-fresh
	if r.err != nil {
		t.Fatal(r.err)
	}
	if err := r.s.Ready(n.ctx, 0); err != nil || r.s.TSIH() == 0 || len(n.srv.Sessions()) != 1 {
		t.Errorf("%v, TSIH %d, %d sessions", err, r.s.TSIH(), len(n.srv.Sessions()))
	}
	for tsih, want := range map[uint16]uint16{r.s.TSIH(): 0x0206, r.s.TSIH() + 1: 0x020a} {
		_, err := n.dial(func(o *initiator.Options) { o.ISID, o.TSIH, o.CID = isid, tsih, 5 })
		if loginStatus(err) != want {
			t.Errorf("TSIH %d: %v, want %04x", tsih, err, want)
		}
	}
	if err := r.s.TestUnitReady(n.ctx, 0); err != nil {
		t.Errorf("after refused logins: %v", err)
	}
	again, err := n.dial(func(o *initiator.Options) { o.ISID, o.TSIH = isid, r.s.TSIH() })
	if err != nil || again.TSIH() != r.s.TSIH() {
		t.Fatalf("connection reinstatement: %v", err)
	}
	<-r.s.Done()
	wantSense(t, again.TestUnitReady(n.ctx, 0), 6, 0x29, 0)
	other, err := n.dial(func(o *initiator.Options) { o.ISID, o.Initiator = isid, hostB })
	if err != nil || other.TSIH() == again.TSIH() || len(n.srv.Sessions()) != 2 {
		t.Errorf("the same ISID of another initiator: %v, %d sessions", err, len(n.srv.Sessions()))
	}
	if err := again.TestUnitReady(n.ctx, 0); err != nil {
		t.Error(err)
	}
}

// TestTaskManagement: answers wait for what they affect, and aborted commands
// are never answered (I3).
func TestTaskManagement(t *testing.T) {
	for _, tc := range []struct {
		fn    byte
		other bool // the other session's command is affected too
		ua    [2]byte
	}{
		{initiator.AbortTask, false, [2]byte{}},
		{initiator.AbortTaskSet, false, [2]byte{}},
		{initiator.ClearTaskSet, false, [2]byte{}}, // TST 001b: a task set is a nexus's own
		{initiator.LogicalUnitReset, true, [2]byte{0x29, 3}},
		{initiator.TargetWarmReset, true, [2]byte{0x29, 3}},
	} {
		t.Run(fmt.Sprint(tc.fn), func(t *testing.T) {
			n := start(t, iscsi.Config{}, nil)
			a, b := n.login(nil), n.login(nil)
			n.disk.Hold()
			answered := make(chan *initiator.Command, 2)
			var cmds []*initiator.Command
			for _, s := range []*initiator.Session{a, b} {
				c := &initiator.Command{CDB: initiator.ReadCDB(0, 1), In: make([]byte, 512), Done: func(c *initiator.Command) { answered <- c }}
				if err := s.Submit(c); err != nil {
					t.Fatal(err)
				}
				cmds = append(cmds, c)
			}
			eventually(t, n, "both reads are inside the disk", func() bool { return n.disk.Held() == 2 })
			type result struct {
				code byte
				err  error
			}
			done := make(chan result, 1)
			go func() {
				code, err := a.TaskManagement(n.ctx, tc.fn, 0, cmds[0])
				done <- result{code, err}
			}()
			eventually(t, n, "the function is in the target", func() bool { return n.srv.Stats().TaskManagement == 1 })
			select {
			case r := <-done:
				t.Fatalf("answered %+v while the command was running", r)
			default:
			}
			n.disk.Release()
			if r := <-done; r.err != nil || r.code != 0 {
				t.Fatalf("answer %+v", r)
			}
			if _, err := a.Ping(n.ctx, nil); err != nil {
				t.Fatal(err)
			}
			if !a.Forget(cmds[0]) {
				t.Error("the aborted command was answered")
			}
			if tc.other {
				if _, err := b.Ping(n.ctx, nil); err != nil || !b.Forget(cmds[1]) {
					t.Errorf("the other session's command was answered (%v)", err)
				}
				wantSense(t, b.TestUnitReady(n.ctx, 0), 6, tc.ua[0], tc.ua[1])
			} else if c := <-answered; c != cmds[1] || c.Err != nil {
				t.Errorf("the other session's command: %v", c.Err)
			}
			if err := a.Ready(n.ctx, 0); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("unknown", func(t *testing.T) {
		n := start(t, iscsi.Config{}, nil)
		s := n.login(nil)
		gone := &initiator.Command{}
		for fn, want := range map[byte]byte{initiator.AbortTask: 1, 3: 5, 8: 4, 100: 5} {
			if got, err := s.TaskManagement(n.ctx, fn, 0, gone); err != nil || got != want {
				t.Errorf("function %d: %d, %v, want %d", fn, got, err, want)
			}
		}
		if got, err := s.TaskManagement(n.ctx, initiator.LogicalUnitReset, 9, nil); err != nil || got != 2 {
			t.Errorf("reset of an absent LUN: %d, %v", got, err)
		}
	})
	t.Run("cold reset", func(t *testing.T) {
		n := start(t, iscsi.Config{}, nil)
		s, other := n.login(nil), n.login(nil)
		if got, err := s.TaskManagement(n.ctx, initiator.TargetColdReset, 0, nil); err != nil || got != 0 {
			t.Errorf("answer %d, %v", got, err)
		}
		for _, x := range []*initiator.Session{s, other} {
			select {
			case <-x.Done():
			case <-n.ctx.Done():
				t.Error("a session survived")
			}
		}
	})
}

// TestReservation: RESERVE keeps others out until RELEASE, reset or the end of
// the session.
func TestReservation(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	b := n.login(nil)
	reserve, release := &initiator.Command{CDB: cdb(0x16)}, &initiator.Command{CDB: cdb(0x17)}
	for _, end := range []string{"release", "logout", "loss", "reset"} {
		a := n.login(nil)
		if err := a.Do(n.ctx, reserve); err != nil {
			t.Fatal(err)
		}
		if i := n.srv.Targets()[0].LUNs[0]; i.ReservedBy == "" {
			t.Error("the holder is not shown")
		}
		wantStatus(t, b.ReadAt(n.ctx, 0, make([]byte, 512), 0), initiator.ReservationConflict)
		wantStatus(t, b.Do(n.ctx, &initiator.Command{CDB: cdb(0x56)}), initiator.ReservationConflict)
		if err := b.Do(n.ctx, release); err != nil { // of something not held: nothing happens
			t.Error(err)
		}
		if _, err := b.Inquiry(n.ctx, 0, -1); err != nil {
			t.Error(err)
		}
		if err := a.ReadAt(n.ctx, 0, make([]byte, 512), 0); err != nil {
			t.Error(err)
		}
		var err error
		switch end {
		case "release":
			err = a.Do(n.ctx, release)
		case "logout":
			err = a.Logout(n.ctx)
		case "loss":
			a.Close()
		case "reset":
			_, err = b.TaskManagement(n.ctx, initiator.LogicalUnitReset, 0, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, n, end+" frees the unit", func() bool { return b.Ready(n.ctx, 0) == nil })
		a.Close()
	}
}

// TestAttentions: changes reach initiators as unit attentions, once.
func TestAttentions(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	s, err := n.dial(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Inquiry(n.ctx, 0, -1); err != nil {
		t.Errorf("INQUIRY does not report attentions: %v", err)
	}
	wantSense(t, s.TestUnitReady(n.ctx, 0), 6, 0x29, 0)
	if err := s.TestUnitReady(n.ctx, 0); err != nil {
		t.Error(err)
	}
	g := n.disk.Geometry()
	g.Size *= 2
	n.disk.SetGeometry(g)
	for range 3 {
		if err := n.srv.CapacityChanged(targetName, 0); err != nil {
			t.Fatal(err)
		}
	}
	wantSense(t, s.TestUnitReady(n.ctx, 0), 6, 0x2a, 9)
	if c, err := s.ReadCapacity(n.ctx, 0); err != nil || c.Blocks != 2*blocks {
		t.Errorf("%+v, %v", c, err)
	}
	if err := n.srv.ModeChanged(targetName, 0); err != nil {
		t.Fatal(err)
	}
	wantSense(t, s.TestUnitReady(n.ctx, 0), 6, 0x2a, 1)
	extra := iscsitest.NewDisk(1<<20, nil)
	n.spec.LUNs = append(n.spec.LUNs, lunSpec(1, extra))
	if err := n.srv.UpdateTarget(n.spec); err != nil {
		t.Fatal(err)
	}
	c := &initiator.Command{CDB: cdb(0x03, 0, 0, 0, 18), In: make([]byte, 18)}
	if err := s.Do(n.ctx, c); err != nil || c.In[2] != 6 || c.In[12] != 0x3f || c.In[13] != 0x0e {
		t.Errorf("REQUEST SENSE % x, %v", c.In, err)
	}
	if luns, err := s.ReportLUNs(n.ctx); err != nil || len(luns) != 2 {
		t.Errorf("%v, %v", luns, err)
	}
	if err := s.TestUnitReady(n.ctx, 1); err != nil { // cleared by REPORT LUNS
		t.Error(err)
	}
	n.spec.LUNs = n.spec.LUNs[:1]
	if err := n.srv.UpdateTarget(n.spec); err != nil {
		t.Fatal(err)
	}
	wantSense(t, s.TestUnitReady(n.ctx, 1), 5, 0x25, 0)
	if err := n.srv.CapacityChanged("iqn.none", 0); !errors.Is(err, iscsi.ErrNoTarget) {
		t.Error(err)
	}
}

// TestRemoveTarget: sessions are named, force waits for their commands.
func TestRemoveTarget(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	s := n.login(nil)
	err := n.srv.RemoveTarget(targetName, false)
	var busy *iscsi.TargetBusyError
	if !errors.Is(err, iscsi.ErrTargetBusy) || !errors.As(err, &busy) || len(busy.Sessions) != 1 ||
		!strings.Contains(err.Error(), initiator.DefaultInitiator) {
		t.Fatalf("%v", err)
	}
	n.disk.Hold()
	c := &initiator.Command{CDB: initiator.ReadCDB(0, 1), In: make([]byte, 512), Done: func(*initiator.Command) {}}
	if err := s.Submit(c); err != nil {
		t.Fatal(err)
	}
	eventually(t, n, "the read is inside the disk", func() bool { return n.disk.Held() == 1 })
	removed := make(chan error, 1)
	go func() { removed <- n.srv.RemoveTarget(targetName, true) }()
	<-s.Done()
	select {
	case <-removed:
		t.Error("removed while a command was running")
	default:
	}
	n.disk.Release()
	if err := <-removed; err != nil {
		t.Error(err)
	}
	if _, err := n.dial(nil); loginStatus(err) != 0x0203 {
		t.Errorf("login to a removed target: %v", err)
	}
	if err := n.srv.RemoveTarget(targetName, true); !errors.Is(err, iscsi.ErrNoTarget) {
		t.Error(err)
	}
}

func TestDropSession(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	s := n.login(nil)
	if err := n.srv.DropSession("none"); !errors.Is(err, iscsi.ErrNoSession) {
		t.Error(err)
	}
	if err := n.srv.DropSession(n.srv.Sessions()[0].ID); err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	eventually(t, n, "the session is forgotten", func() bool { return len(n.srv.Sessions()) == 0 })
}

// TestShutdown: a running command finishes and its answer arrives; new ones are
// answered BUSY.
func TestShutdown(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	s := n.login(nil)
	n.disk.Hold()
	done := make(chan error, 1)
	c := &initiator.Command{CDB: initiator.ReadCDB(0, 1), In: make([]byte, 512), Done: func(c *initiator.Command) { done <- c.Err }}
	if err := s.Submit(c); err != nil {
		t.Fatal(err)
	}
	eventually(t, n, "the read is inside the disk", func() bool { return n.disk.Held() == 1 })
	down := make(chan error, 1)
	go func() { down <- n.srv.Shutdown(n.ctx) }()
	eventually(t, n, "a logout is asked for", s.LogoutRequested)
	wantStatus(t, s.ReadAt(n.ctx, 0, make([]byte, 512), 0), initiator.Busy)
	n.disk.Release()
	if err := <-done; err != nil {
		t.Errorf("the running command: %v", err)
	}
	if err := <-down; err != nil {
		t.Error(err)
	}
	if err := n.srv.AddTarget(n.spec); !errors.Is(err, iscsi.ErrServerClosed) {
		t.Error(err)
	}
}

// TestShutdownDeadline: what does not finish is cut off when ctx ends.
func TestShutdownDeadline(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	s := n.login(nil)
	n.disk.Hold()
	c := &initiator.Command{CDB: initiator.ReadCDB(0, 1), In: make([]byte, 512), Done: func(*initiator.Command) {}}
	if err := s.Submit(c); err != nil {
		t.Fatal(err)
	}
	eventually(t, n, "the read is inside the disk", func() bool { return n.disk.Held() == 1 })
	ctx, cancel := context.WithCancel(n.ctx)
	cancel()
	if err := n.srv.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	<-s.Done()
	n.disk.Release()
}

// TestWatchdog: login time-out, pings, and a peer that does not answer them.
func TestWatchdog(t *testing.T) {
	clk := clock.NewManual(time.Unix(1e9, 0))
	n := start(t, iscsi.Config{Clock: clk, Limits: iscsi.Limits{LoginTime: 5 * time.Second, PingIdle: 5 * time.Second, PingTime: 5 * time.Second}}, nil)
	idle, err := net.Dial("tcp", n.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	alive := rawSession(t, n)
	mute, _ := rawLogin(t, n, 0x87, 0, 0x77, "InitiatorName=iqn.2026-01.x:mute", "SessionType=Normal", "TargetName="+targetName)
	eventually(t, n, "two are in, one is not", func() bool { s := n.srv.Stats(); return s.Connections == 3 && s.Logins == 2 })
	until := func(dropped uint64) {
		t.Helper()
		for second := 0; n.srv.Stats().DeadPeers < dropped; second++ {
			if second == 20 {
				t.Fatalf("%d peers are dropped, not %d", n.srv.Stats().DeadPeers, dropped)
			}
			clk.Advance(time.Second)
			watched(t, n, clk)
		}
	}
	until(1) // who does not log in, after LoginTime
	clk.Advance(time.Second)
	watched(t, n, clk)
	ping, _ := readPDU(t, alive)
	if ping[0] != 0x20 {
		t.Fatalf("PDU %#02x instead of a ping", ping[0])
	}
	answer := pdu(0x40, 0x80, 0xffffffff, 2, nil)
	copy(answer[20:24], ping[20:24])
	back := pdu(0x40, 0x80, 7, 2, nil) // a round trip: the answer has been read
	if _, err := alive.Write(append(answer, back...)); err != nil {
		t.Fatal(err)
	}
	if h, _ := readPDU(t, alive); h[0] != 0x20 || be.Uint32(h[16:]) != 7 {
		t.Errorf("PDU %#02x, task %d", h[0], be.Uint32(h[16:]))
	}
	until(2)
	if h, _ := readPDU(t, mute); h[0] != 0x20 {
		t.Errorf("PDU %#02x instead of a ping", h[0])
	}
	if _, _, err := tryPDU(mute); err == nil {
		t.Error("the peer that does not answer pings is not dropped")
	}
	if s := n.srv.Stats(); s.Connections != 1 || s.DeadPeers != 2 {
		t.Errorf("%d connections, %d dropped", s.Connections, s.DeadPeers)
	}
}

// TestLost: a session whose initiator does not answer shows so, is missed once it was dropped,
// and is not any more once the initiator is back, is not admitted any more, or an hour later.
func TestLost(t *testing.T) {
	clk := clock.NewManual(time.Unix(1e9, 0))
	n := start(t, iscsi.Config{Clock: clk, Limits: iscsi.Limits{PingIdle: 5 * time.Second, PingTime: 5 * time.Second}}, nil)
	const mute = "iqn.2026-01.x:mute"
	second := func() {
		clk.Advance(time.Second)
		watched(t, n, clk)
	}
	lose := func() {
		t.Helper()
		before := n.srv.Stats().DeadPeers
		rawLogin(t, n, 0x87, 0, 0x77, "InitiatorName="+mute, "SessionType=Normal", "TargetName="+targetName)
		if l := n.srv.Lost(); len(l) != 0 {
			t.Errorf("it signed in, and %+v", l)
		}
		silent := time.Duration(0)
		for i := 0; n.srv.Stats().DeadPeers == before; i++ {
			if i == 20 {
				t.Fatal("it is not dropped")
			}
			for _, s := range n.srv.Sessions() {
				silent = max(silent, s.Silent)
			}
			second()
		}
		if silent < 6*time.Second || silent > 11*time.Second {
			t.Errorf("it was silent for %s at most", silent)
		}
		if l := n.srv.Lost(); len(l) != 1 || l[0].Initiator != mute || l[0].Target != targetName || l[0].Reason == "" || !l[0].Dropped.Equal(clk.Now()) {
			t.Fatalf("missed are %+v", l)
		}
		eventually(t, n, "it is gone", func() bool { return len(n.srv.Sessions()) == 0 })
	}
	lose()
	lose() // it was back meanwhile
	clk.Advance(time.Hour)
	if l := n.srv.Lost(); len(l) != 0 {
		t.Errorf("after an hour, %+v", l)
	}
	watched(t, n, clk)
	lose()
	spec := n.spec
	spec.Groups = []iscsi.Group{{Name: "others", Initiators: []string{"iqn.2026-01.x:other"}}}
	if err := n.srv.UpdateTarget(spec); err != nil {
		t.Fatal(err)
	}
	if l := n.srv.Lost(); len(l) != 0 {
		t.Errorf("not admitted any more, and %+v", l)
	}
}

// TestBlind: since when a session sees no unit.
func TestBlind(t *testing.T) {
	clk := clock.NewManual(time.Unix(1e9, 0))
	n := start(t, iscsi.Config{Clock: clk, Limits: iscsi.Limits{PingIdle: 1000 * time.Hour}}, nil)
	n.login(nil)
	blind := func(want time.Time) {
		t.Helper()
		l := n.srv.Sessions()
		if len(l) != 1 || !l[0].Blind.Equal(want) {
			t.Errorf("%+v, want blind since %s", l, want)
		}
	}
	show := func(luns []iscsi.LUNSpec) {
		t.Helper()
		clk.Advance(time.Second)
		spec := n.spec
		spec.LUNs = luns
		if err := n.srv.UpdateTarget(spec); err != nil {
			t.Fatal(err)
		}
	}
	blind(time.Time{})
	show(nil)
	since := clk.Now()
	blind(since)
	show(nil)
	blind(since)
	show(n.spec.LUNs)
	blind(time.Time{})
}

// TestLimits: connections and sessions beyond the limits are refused.
func TestLimits(t *testing.T) {
	n := start(t, iscsi.Config{Limits: iscsi.Limits{Sessions: 2, Connections: 3, QueueDepth: 4, SessionBytes: 1 << 20}}, nil)
	a, _ := n.login(nil), n.login(nil)
	if _, err := n.dial(nil); loginStatus(err) != 0x0302 {
		t.Errorf("third session: %v", err)
	}
	n.disk.Hold()
	results := make(chan error, 2)
	for range 2 {
		c := &initiator.Command{CDB: initiator.ReadCDB(0, 2048), In: make([]byte, 1<<20), Done: func(c *initiator.Command) { results <- c.Err }}
		if err := a.Submit(c); err != nil {
			t.Fatal(err)
		}
	}
	wantStatus(t, <-results, initiator.TaskSetFull)
	n.disk.Release()
	if err := <-results; err != nil {
		t.Error(err)
	}
}

// TestImmediateLimit: immediate commands have no window, so they are counted.
func TestImmediateLimit(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	s := n.login(nil)
	const allowed, sent = 16, 40
	for round := range 2 { // the second shows that the count goes down again
		n.disk.Hold()
		results := make(chan error, sent)
		for range sent {
			c := &initiator.Command{CDB: initiator.ReadCDB(0, 1), In: make([]byte, 512), Immediate: true,
				Done: func(c *initiator.Command) { results <- c.Err }}
			if err := s.Submit(c); err != nil {
				t.Fatal(err)
			}
		}
		for range sent - allowed {
			if err := <-results; err == nil {
				t.Fatalf("round %d: a held command was answered", round)
			}
		}
		n.disk.Release()
		for range allowed {
			if err := <-results; err != nil {
				t.Errorf("round %d: %v", round, err)
			}
		}
		for range 2 { // the second is sent after the batch of the first was accounted for
			if _, err := s.Ping(n.ctx, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestLoginStorm: logins that break off leave nothing behind.
func TestLoginStorm(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	s := n.login(nil)
	const logins = 2000
	for i := range logins {
		c, err := net.Dial("tcp", n.addr)
		if err != nil {
			t.Fatal(err)
		}
		p := loginPDU(0x87, uint16(i), 0, fmt.Sprintf("InitiatorName=iqn.2026-01.x:storm%d", i%7), "SessionType=Normal", "TargetName="+targetName)
		if _, err := c.Write(p[:len(p)-i%3*20]); err != nil {
			t.Fatal(err)
		}
		if i%6 == 0 {
			_, _ = c.Read(make([]byte, 48)) // half of the whole requests wait for the answer
		}
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}
	eventually(t, n, "only one connection is left", func() bool {
		st := n.srv.Stats()
		return st.Connections == 1 && st.Sessions == 1
	})
	if err := s.TestUnitReady(n.ctx, 0); err != nil {
		t.Error(err)
	}
}

func TestSpecValidation(t *testing.T) {
	d := iscsitest.NewDisk(1<<20, nil)
	good := func() iscsi.TargetSpec {
		return iscsi.TargetSpec{Name: targetName, Groups: open(nil), LUNs: []iscsi.LUNSpec{lunSpec(0, d)}}
	}
	for name, spoil := range map[string]func(*iscsi.TargetSpec){
		"name":         func(s *iscsi.TargetSpec) { s.Name = "disk" },
		"portal":       func(s *iscsi.TargetSpec) { s.Portals = []iscsi.Portal{{Address: "here", Group: 1}} },
		"portal group": func(s *iscsi.TargetSpec) { s.Portals = []iscsi.Portal{{Address: "1.2.3.4:5"}} },
		"initiator":    func(s *iscsi.TargetSpec) { s.Groups[0].Initiators = []string{"x"} },
		"short secret": func(s *iscsi.TargetSpec) { s.Groups = open(&iscsi.Auth{User: "u", Secret: "short"}) },
		"same secrets": func(s *iscsi.TargetSpec) {
			s.Groups = open(&iscsi.Auth{User: "u", Secret: secret, MutualUser: "m", MutualSecret: secret})
		},
		"LUN number":     func(s *iscsi.TargetSpec) { s.LUNs[0].Number = 16384 },
		"LUN twice":      func(s *iscsi.TargetSpec) { s.LUNs = append(s.LUNs, s.LUNs[0]) },
		"no disk":        func(s *iscsi.TargetSpec) { s.LUNs[0].Disk = nil },
		"no serial":      func(s *iscsi.TargetSpec) { s.LUNs[0].Serial = "" },
		"NAA type":       func(s *iscsi.TargetSpec) { s.LUNs[0].NAA[0] = 0x30 },
		"long vendor":    func(s *iscsi.TargetSpec) { s.LUNs[0].Vendor = "much too long" },
		"control in key": func(s *iscsi.TargetSpec) { s.Alias = "a\x00b" },
	} {
		t.Run(name, func(t *testing.T) {
			s := good()
			spoil(&s)
			err := iscsi.NewServer(iscsi.Config{}).AddTarget(s)
			if err == nil || strings.Contains(err.Error(), secret) {
				t.Errorf("%v", err)
			}
		})
	}
	srv := iscsi.NewServer(iscsi.Config{})
	if err := srv.AddTarget(good()); err != nil {
		t.Error(err)
	}
	if err := srv.AddTarget(good()); !errors.Is(err, iscsi.ErrTargetExists) {
		t.Error(err)
	}
}
