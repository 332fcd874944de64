package iscsi_test

import (
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/iscsi/initiator"
	"github.com/openvstorage/ovgate/iscsi/iscsitest"
)

// busy keeps commands in flight on a session and counts the answers.
type busy struct {
	s    *initiator.Session
	done atomic.Int64
	err  atomic.Pointer[error]
	stop atomic.Bool
	wg   sync.WaitGroup
}

// keepBusy reads and writes with depth commands in flight until end is called.
func keepBusy(s *initiator.Session, depth int) *busy {
	b := &busy{s: s}
	for i := range depth {
		c := &initiator.Command{CDB: initiator.ReadCDB(uint64(8*i), 8), In: make([]byte, 4096)}
		if i%2 == 1 {
			c = &initiator.Command{CDB: initiator.WriteCDB(uint64(8*i), 8, false), Out: make([]byte, 4096)}
		}
		c.Done = func(c *initiator.Command) {
			if c.Err != nil {
				b.err.CompareAndSwap(nil, &c.Err)
			}
			b.done.Add(1)
			if c.Err != nil || b.stop.Load() || s.Submit(c) != nil {
				b.wg.Done()
			}
		}
		b.wg.Add(1)
		if s.Submit(c) != nil {
			b.wg.Done()
		}
	}
	return b
}

// end waits for what is in flight, and returns the first error.
func (b *busy) end() error {
	b.stop.Store(true)
	b.wg.Wait()
	if err := b.err.Load(); err != nil {
		return *err
	}
	return b.s.Err()
}

// TestStormBesideIO: logins with a logout, with a reset of the connection, with a
// reset while a command runs, with the identity of another, and broken off halfway,
// several at once. Nothing leaks, places and handles are used again, and a session
// beside them goes on.
func TestStormBesideIO(t *testing.T) {
	logins := 10000
	if testing.Short() || raceEnabled {
		logins = 1000
	}
	const at, places = 8, 24 // at once; sessions that fit, so that one that leaks is missed soon
	n := startLocal(t, iscsi.Config{Limits: iscsi.Limits{Sessions: places, Connections: 2 * places}}, nil)
	n.login(nil)
	b := keepBusy(n.login(nil), 8)
	var worst atomic.Int64
	storm := func(count int) {
		var wg sync.WaitGroup
		for w := range at {
			wg.Go(func() {
				for i := w; i < count; i += at {
					before := b.done.Load()
					if err := n.oneOfStorm(w, i); err != nil {
						t.Errorf("login %d: %v", i, err)
						return
					}
					if b.done.Load() == before {
						worst.Add(1)
					}
				}
			})
		}
		wg.Wait()
		eventually(t, n, "two sessions are left", func() bool {
			st := n.srv.Stats()
			return st.Sessions == 2 && st.Connections == 2
		})
	}
	storm(logins / 10) // pools and maps find their size
	before := measure(t)
	ops, entered := b.done.Load(), n.srv.Stats().Logins
	storm(logins * 5 / 4) // a fifth of them only asks
	before.back(t, n, 1<<20)
	ops, entered = b.done.Load()-ops, n.srv.Stats().Logins-entered
	t.Logf("%d logins, %d operations beside them; during %d logins none ended", entered, ops, worst.Load())
	if entered < uint64(logins)*3/4 {
		t.Errorf("%d of %d logins came in", entered, logins)
	}
	if ops < int64(logins)/10 { // both share the processor with the storm's initiators
		t.Errorf("%d operations beside %d logins: the busy session starved", ops, logins)
	}
	if err := b.end(); err != nil {
		t.Error(err)
	}
}

// oneOfStorm is login i of worker w. Only what must not happen is an error: a
// worker that is thrown out by the one with the same identity is not.
func (n *node) oneOfStorm(w, i int) error {
	if i%5 == 4 { // half a request
		c, err := net.Dial(n.network, n.addr)
		if err != nil {
			return err
		}
		p := loginPDU(0x87, uint16(i), 0, "InitiatorName=iqn.2026-01.x:half", "SessionType=Normal", "TargetName="+targetName)
		_, _ = c.Write(p[:i%len(p)])
		return c.Close()
	}
	shared := i%5 == 3
	isid := [6]byte{0x80, 1, byte(w), byte(i >> 8), byte(i)}
	if shared {
		isid = [6]byte{0x80, 2}
	}
	s, err := n.connect(func(o *initiator.Options) { o.ISID = isid })
	if shared && err != nil && loginStatus(err) == 0 {
		return nil // thrown out before it was in
	}
	if err != nil {
		return err
	}
	defer s.Close()
	switch i % 5 {
	case 0:
		if err := s.Ready(n.ctx, 0); err != nil {
			return err
		}
		return s.Logout(n.ctx)
	case 1:
		return s.Submit(&initiator.Command{CDB: initiator.ReadCDB(0, 64), In: make([]byte, 32<<10), Done: func(*initiator.Command) {}})
	}
	return nil
}

// TestSameIdentityAtOnce: many logins of one initiator port at the same time. Each
// ends the one before it; one session is left, and no command is lost.
func TestSameIdentityAtOnce(t *testing.T) {
	n := startLocal(t, iscsi.Config{}, nil)
	for round := range 20 {
		var wg sync.WaitGroup
		sessions := make([]*initiator.Session, 16)
		for i := range sessions {
			wg.Go(func() {
				s, err := n.dial(func(o *initiator.Options) { o.ISID = [6]byte{0x80, 7} })
				if err != nil {
					return // thrown out by another one
				}
				sessions[i] = s
				answered := make(chan struct{})
				c := &initiator.Command{CDB: initiator.WriteCDB(0, 1, false), Out: make([]byte, 512), Done: func(*initiator.Command) { close(answered) }}
				if s.Submit(c) == nil {
					<-answered
				}
			})
		}
		wg.Wait()
		eventually(t, n, "one session is left", func() bool {
			st := n.srv.Stats()
			return st.Sessions == 1 && st.Connections == 1
		})
		live := 0
		for _, s := range sessions {
			if s != nil && s.Err() == nil && s.Ready(n.ctx, 0) == nil {
				live++
			}
		}
		if live != 1 {
			t.Fatalf("round %d: %d sessions work", round, live)
		}
	}
}

// TestChangesUnderLoad changes everything that may change while sessions do I/O.
// Each submitted command is answered once or ends with its connection.
func TestChangesUnderLoad(t *testing.T) {
	rounds := 300
	if testing.Short() || raceEnabled {
		rounds = 100
	}
	n := startLocal(t, iscsi.Config{}, nil)
	load := newLoad(n, 4)
	disks := []*iscsitest.Disk{n.disk}
	for range 3 {
		disks = append(disks, iscsitest.NewDisk(1<<20, nil))
	}
	var wg sync.WaitGroup
	change := func(name string, f func(i int) error) {
		wg.Go(func() {
			for i := range rounds {
				if err := f(i); err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
				load.await(2) // some of it happens under each change
			}
		})
	}
	change("LUNs, groups and QoS", func(i int) error {
		spec := n.spec
		spec.LUNs = spec.LUNs[:1:1]
		for k := 1; k < len(disks); k++ {
			if i>>(k-1)&1 == 1 {
				spec.LUNs = append(spec.LUNs, lunSpec(uint16(k), disks[k]))
			}
		}
		spec.LUNs[0].QoS = iscsi.QoS{IOPS: int64(i%3) * 100000}
		if i%8 == 5 { // two of the four are in a group that sees less, and sees it read only
			spec.Groups = append([]iscsi.Group{{Name: "some", Initiators: []string{loadName(0), loadName(1)},
				LUNs: []iscsi.LUNMap{{Number: 0, LUN: 0, ReadOnly: true}}}}, spec.Groups...)
		}
		if i%32 == 31 { // one is thrown out
			spec.Groups = []iscsi.Group{{Name: "rest", Initiators: []string{loadName(0), loadName(1), loadName(2)}}}
		}
		return n.srv.UpdateTarget(spec)
	})
	change("size", func(i int) error {
		d := disks[i%len(disks)]
		g := d.Geometry()
		g.Size += 1 << 20
		d.SetGeometry(g)
		return n.srv.CapacityChanged(targetName, 0)
	})
	change("other targets", func(i int) error {
		spec := n.spec
		spec.Name = "iqn.2026-01.org.example:other"
		spec.LUNs = []iscsi.LUNSpec{lunSpec(0, disks[1])}
		if err := n.srv.AddTarget(spec); err != nil {
			return err
		}
		s, err := n.connect(func(o *initiator.Options) { o.Target = spec.Name })
		if err != nil {
			return err
		}
		defer s.Close()
		_ = s.Submit(&initiator.Command{CDB: initiator.ReadCDB(0, 1), In: make([]byte, 512), Done: func(*initiator.Command) {}})
		return n.srv.RemoveTarget(spec.Name, true)
	})
	change("sessions, QoS and what is shown", func(i int) error {
		all := n.srv.Sessions()
		n.srv.Targets()
		for _, s := range all {
			_, _ = n.srv.Session(s.ID) // it may be gone
		}
		if i%10 == 9 && len(all) > 0 {
			_ = n.srv.DropSession(all[i%len(all)].ID) // likewise
		}
		return n.srv.SetQoS(targetName, 0, iscsi.QoS{Bytes: int64(i%2) << 30})
	})
	wg.Wait()
	load.end(t)
}

func loadName(i int) string { return fmt.Sprintf("iqn.2026-01.x:load%d", i) }

// load is initiators that log in again whenever their session ends.
type load struct {
	n                              *node
	stop                           atomic.Bool
	wg                             sync.WaitGroup
	submitted, answered, good      atomic.Int64
	broken, refused, twice, logins atomic.Int64
}

func newLoad(n *node, initiators int) *load {
	l := &load{n: n}
	for i := range initiators {
		l.wg.Go(func() {
			for !l.stop.Load() {
				l.session(i)
			}
		})
	}
	return l
}

// session keeps commands in flight on one session until it ends.
func (l *load) session(i int) {
	s, err := l.n.connect(func(o *initiator.Options) { o.Initiator, o.ISID = loadName(i), [6]byte{0x80, 3, byte(i)} })
	if err != nil {
		l.refused.Add(1)
		return
	}
	defer s.Close()
	l.logins.Add(1)
	var wg sync.WaitGroup
	for k := range 8 {
		wg.Go(func() {
			for turn := 0; !l.stop.Load(); turn++ {
				if !l.command(s, uint16(turn%4), k, turn) {
					return
				}
			}
		})
	}
	wg.Wait()
	if s.Err() == nil {
		_ = s.Logout(l.n.ctx) // the target may drop it just now
	}
}

// command runs one command; false when the session has ended.
func (l *load) command(s *initiator.Session, lun uint16, k, turn int) bool {
	ended := make(chan error, 1)
	var answers atomic.Int32
	c := &initiator.Command{LUN: lun, CDB: initiator.ReadCDB(uint64(8*k), 8), In: make([]byte, 4096)}
	switch turn % 3 {
	case 1:
		c = &initiator.Command{LUN: lun, CDB: initiator.WriteCDB(uint64(8*k), 8, false), Out: make([]byte, 4096)}
	case 2: // more than the session takes unsolicited
		c = &initiator.Command{LUN: lun, CDB: initiator.WriteCDB(uint64(1024*k), 1024, false), Out: make([]byte, 512<<10)}
	}
	c.Done = func(c *initiator.Command) {
		if answers.Add(1) > 1 {
			l.twice.Add(1)
			return
		}
		ended <- c.Err
	}
	if s.Submit(c) != nil {
		return false
	}
	l.submitted.Add(1)
	err := <-ended
	l.answered.Add(1)
	switch {
	case err == nil:
		l.good.Add(1)
	case s.Err() != nil:
		l.broken.Add(1)
		return false
	}
	return true
}

// await waits until n more commands were answered.
func (l *load) await(n int64) {
	from := l.answered.Load()
	for l.answered.Load() < from+n && l.n.ctx.Err() == nil {
		runtime.Gosched()
	}
}

func (l *load) end(t *testing.T) {
	t.Helper()
	l.stop.Store(true)
	all := make(chan struct{})
	go func() {
		l.wg.Wait()
		close(all)
	}()
	select {
	case <-all:
	case <-l.n.ctx.Done():
		t.Errorf("%d of %d commands have no answer on a connection that is open", l.submitted.Load()-l.answered.Load(), l.submitted.Load())
		return
	}
	t.Logf("%d commands in %d sessions, %d good, %d ended with their connection, %d logins refused",
		l.submitted.Load(), l.logins.Load(), l.good.Load(), l.broken.Load(), l.refused.Load())
	if l.submitted.Load() != l.answered.Load() || l.twice.Load() > 0 || l.good.Load() == 0 {
		t.Errorf("%d submitted, %d ended, %d twice, %d good", l.submitted.Load(), l.answered.Load(), l.twice.Load(), l.good.Load())
	}
}
