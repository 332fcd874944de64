package iscsi_test

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/iscsi/initiator"
	"github.com/openvstorage/ovgate/iscsi/iscsitest"
)

// What is promised at scale.
const (
	sessionMemory = 64 << 10 // bytes of an idle session, its client's socket in this process included
	keptMemory    = 2 << 10  // bytes the runtime may keep of a session that is gone; the least that can leak of one is a buffer
	lunMemory     = 16 << 10 // bytes of an idle logical unit
)

// footprint is what the process holds.
type footprint struct {
	memory      int64 // bytes of heap and stacks in use, after collections
	goroutines  int
	descriptors int
}

func measure(t *testing.T) footprint {
	t.Helper()
	for range 3 { // pools are emptied by the second; stacks shrink by half in each
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return footprint{int64(m.HeapAlloc + m.StackInuse), runtime.NumGoroutine(), len(fds)}
}

// back waits until nothing is left of what came since then. Memory may differ by
// slack, what the runtime keeps for itself.
func (f footprint) back(t *testing.T, n *node, slack int64) {
	t.Helper()
	var now footprint
	defer func() {
		if t.Failed() {
			t.Logf("%+v before, %+v now", f, now)
		}
	}()
	eventually(t, n, "goroutines, descriptors and memory are as before", func() bool {
		now = measure(t)
		return now.goroutines <= f.goroutines && now.descriptors <= f.descriptors && now.memory <= f.memory+slack
	})
}

// rawIdle logs a session in on a bare connection, reads a block, and leaves it idle.
func rawIdle(t *testing.T, n *node, i int, name string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", n.addr)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(loginPDU(0x87, uint16(i), 0, "InitiatorName="+name, "SessionType=Normal", "TargetName="+targetName)); err != nil {
		t.Fatal(err)
	}
	if h, _ := readPDU(t, c); be.Uint16(h[36:]) != 0 {
		t.Fatalf("login %d: status %04x", i, be.Uint16(h[36:]))
	}
	for k := range uint32(2) { // the first takes the unit attention
		if _, err := c.Write(scsiPDU(0xc0, k, 2+k, 4096, nil, 0x28, 0, 0, 0, 0, 0, 0, 0, 8)); err != nil {
			t.Fatal(err)
		}
		if h, d := readPDU(t, c); k == 1 && (h[0] != 0x25 || len(d) != 4096) {
			t.Fatalf("read answered by PDU %#02x", h[0])
		}
	}
	return c
}

// TestManyLogins: 10,000 sessions that come, read and go, in order or not, leave
// nothing behind.
func TestManyLogins(t *testing.T) {
	logins := 10000
	if raceEnabled || testing.Short() {
		logins = 1000
	}
	n := start(t, iscsi.Config{}, nil)
	round := func(count int) {
		var wg sync.WaitGroup
		const at = 8
		for w := range at {
			wg.Go(func() {
				for i := w; i < count; i += at {
					c := rawIdle(t, n, i, fmt.Sprintf("iqn.2026-01.x:many%d", w))
					if i%4 != 0 { // the others break off
						_, _ = c.Write(pdu(0x46, 0x80, 9, 4, nil))
						if h, _ := readPDU(t, c); h[0] != 0x26 {
							t.Errorf("logout answered by PDU %#02x", h[0])
						}
					}
					_ = c.(*net.TCPConn).SetLinger(0) // no TIME-WAIT: the ports are used again
					_ = c.Close()
				}
			})
		}
		wg.Wait()
		eventually(t, n, "all sessions are gone", func() bool {
			s := n.srv.Stats()
			return s.Sessions == 0 && s.Connections == 0
		})
	}
	round(200) // fills pools and tables
	before := measure(t)
	round(logins)
	before.back(t, n, 256<<10)
	if s := n.srv.Stats(); s.Logins != uint64(200+logins) || s.LoginFailures != 0 {
		t.Errorf("%+v", s)
	}
	if s := n.srv.Targets()[0].LUNs[0].Stats; s.Read.Commands != uint64(2*(200+logins)) {
		t.Errorf("%d commands counted", s.Read.Commands)
	}
}

// TestManySessions: what 1,000 idle sessions hold, that they do not slow a busy
// one down, and that all of it is given back.
func TestManySessions(t *testing.T) {
	const sessions = 1000
	n := start(t, iscsi.Config{}, nil)
	var after footprint
	for round := range 2 {
		before := measure(t)
		conns := make([]net.Conn, sessions)
		for i := range conns {
			conns[i] = rawIdle(t, n, i, "iqn.2026-01.x:idle")
		}
		now := measure(t)
		each := (now.memory - before.memory) / sessions
		t.Logf("%d bytes and %.1f goroutines for each idle session", each, float64(now.goroutines-before.goroutines)/sessions)
		if each > sessionMemory {
			t.Errorf("%d bytes for each idle session, at most %d are promised", each, sessionMemory)
		}
		if got := len(n.srv.Sessions()); got != sessions {
			t.Errorf("%d sessions", got)
		}
		for _, c := range conns {
			_ = c.(*net.TCPConn).SetLinger(0)
			_ = c.Close()
		}
		if round == 0 { // the runtime keeps the goroutines of the first time
			before.back(t, n, 1<<40)
			after = measure(t)
			continue
		}
		after.back(t, n, sessions*keptMemory)
	}
}

// TestBusyAmongIdle: the CPU time of a command does not depend on how many other
// sessions there are. It is the shortest of some rounds that counts, so that other
// load on the machine can only make both longer.
func TestBusyAmongIdle(t *testing.T) {
	const idle, commands, rounds = 999, 4000, 7
	n := start(t, iscsi.Config{}, nil)
	s := n.login(nil)
	work := func() time.Duration {
		best := time.Hour
		for range rounds {
			began := cpuTime(t)
			done := make(chan error, 32)
			flood(t, s, commands, 32, done)
			best = min(best, cpuTime(t)-began)
		}
		return best
	}
	alone := work()
	for i := range idle {
		c := rawIdle(t, n, i, "iqn.2026-01.x:idle")
		t.Cleanup(func() { _ = c.Close() })
	}
	among := work()
	t.Logf("CPU time of %d reads: %v alone, %v among %d idle sessions", commands, alone, among, idle)
	if !raceEnabled && among > 2*alone {
		t.Errorf("%v alone, %v among idle sessions", alone, among)
	}
}

// flood runs n reads of 4 KiB, depth at a time.
func flood(t *testing.T, s *initiator.Session, n, depth int, done chan error) {
	t.Helper()
	left := n - depth
	for range depth {
		c := &initiator.Command{CDB: initiator.ReadCDB(0, 8), In: make([]byte, 4096)}
		c.Done = func(c *initiator.Command) { // on the reader
			if c.Err == nil && left > 0 {
				left--
				if s.Submit(c) == nil {
					return
				}
			}
			done <- c.Err
		}
		if err := s.Submit(c); err != nil {
			t.Fatal(err)
		}
	}
	for range depth {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

// TestManyLUNs: what 1,000 logical units hold, in one target and in as many, that
// an initiator finds them, and that all of it is given back.
func TestManyLUNs(t *testing.T) {
	const units = 1000
	disk := iscsitest.NewDisk(1<<20, nil)
	t.Run("in one target", func(t *testing.T) {
		n := start(t, iscsi.Config{}, nil)
		s := n.login(nil)
		before := measure(t)
		one := n.spec.LUNs
		n.spec.LUNs = append([]iscsi.LUNSpec(nil), one...)
		for i := 1; i < units; i++ {
			n.spec.LUNs = append(n.spec.LUNs, lunSpec(uint16(i), disk))
		}
		if err := n.srv.UpdateTarget(n.spec); err != nil {
			t.Fatal(err)
		}
		check(t, before, units)
		if luns, err := s.ReportLUNs(n.ctx); err != nil || len(luns) != units {
			t.Fatalf("%d units, %v", len(luns), err)
		}
		for i := range uint16(units) {
			if err := s.Ready(n.ctx, i); err != nil {
				t.Fatal(err)
			}
			if err := s.ReadAt(n.ctx, i, make([]byte, 512), 0); err != nil {
				t.Fatal(err)
			}
		}
		check(t, before, units) // in use
		n.spec.LUNs = one
		if err := n.srv.UpdateTarget(n.spec); err != nil {
			t.Fatal(err)
		}
		before.back(t, n, 512<<10)
		if err := s.Ready(n.ctx, 0); err != nil {
			t.Error(err)
		}
	})
	t.Run("in as many targets", func(t *testing.T) {
		n := start(t, iscsi.Config{}, nil)
		before := measure(t)
		name := func(i int) string { return fmt.Sprintf("iqn.2026-01.org.example:many-%04d", i) }
		for i := range units {
			spec := n.spec
			spec.Name, spec.LUNs = name(i), []iscsi.LUNSpec{lunSpec(0, disk)}
			if err := n.srv.AddTarget(spec); err != nil {
				t.Fatal(err)
			}
		}
		check(t, before, units)
		for i := range units {
			if err := n.srv.RemoveTarget(name(i), false); err != nil {
				t.Fatal(err)
			}
		}
		before.back(t, n, 512<<10)
	})
}

func check(t *testing.T, before footprint, units int64) {
	t.Helper()
	each := (measure(t).memory - before.memory) / units
	t.Logf("%d bytes for each unit", each)
	if each > lunMemory {
		t.Errorf("%d bytes for each unit, at most %d are promised", each, lunMemory)
	}
}
