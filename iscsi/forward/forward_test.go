package forward_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/leaktest"
	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/iscsi/forward"
	"github.com/openvstorage/ovgate/iscsi/initiator"
	"github.com/openvstorage/ovgate/iscsi/iscsitest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

const (
	targetName = "iqn.2026-01.org.example:disk"
	unit       = "0123456789"
	diskSize   = 64 << 20
	testTime   = 3 * time.Minute
	testAway   = 500 * time.Millisecond
)

// pair is two nodes, "a" and "b", that show one disk through a portal each.
type pair struct {
	t     *testing.T
	ctx   context.Context
	disk  *iscsitest.Disk
	taken *iscsitest.Disk // that of b once it took the unit over; nil: disk
	far   *iscsi.RemoteDisk
	nodes [2]*member
	owner atomic.Int32
	lives atomic.Bool // others hear the nodes
}

// skewed is the machine's clock, with what it is ahead.
type skewed struct {
	clock.Real
	ahead *atomic.Int64
}

func (c skewed) Now() time.Time { return c.Real.Now().Add(time.Duration(c.ahead.Load())) }

// member is a node.
type member struct {
	p       *pair
	i       int
	name    string
	srv     *iscsi.Server
	address string
	fw      *forward.Forwarder
	server  *forward.Server
	ahead   atomic.Int64 // of the forwarder's clock, ns

	mu    sync.Mutex
	cut   bool
	links []net.Conn // from it to others
}

var names = [2]string{"a", "b"}

// newPair starts both; a has the disk.
func newPair(t *testing.T) *pair {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTime)
	p := &pair{t: t, ctx: ctx, disk: iscsitest.NewDisk(diskSize, nil), far: iscsi.NewRemoteDisk(diskSize, 4096)}
	listeners := [2]net.Listener{}
	for i := range p.nodes {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners[i] = l
		p.nodes[i] = &member{p: p, i: i, name: names[i], address: l.Addr().String()}
	}
	var served sync.WaitGroup
	for i, m := range p.nodes {
		m.fw = forward.NewForwarder(forward.Options{Cluster: "c", Node: m.name, Clock: skewed{ahead: &m.ahead}, Dial: m.dial, Away: testAway, Lives: func(string) bool { return p.lives.Load() }, Owner: func(u string) string {
			if u != unit {
				return ""
			}
			return names[p.owner.Load()]
		}})
		m.srv = iscsi.NewServer(iscsi.Config{Forward: m.fw, Clock: skewed{ahead: &m.ahead}})
		m.server = forward.NewServer(forward.ServerOptions{Cluster: "c", Node: m.name, Target: m.srv, Clock: clock.Real{}})
		if err := m.srv.AddTarget(p.spec(i)); err != nil {
			t.Fatal(err)
		}
		served.Go(func() { _ = m.srv.Serve(listeners[i]) })
	}
	t.Cleanup(func() {
		defer cancel()
		p.disk.Release()
		for _, m := range p.nodes {
			if err := m.srv.Shutdown(ctx); err != nil {
				t.Error(err)
			}
		}
		for _, m := range p.nodes {
			m.fw.Close()
		}
		for _, m := range p.nodes {
			m.server.Close()
		}
		served.Wait()
		p.disk.Wait()
	})
	return p
}

// spec is the target as node i shows it.
func (p *pair) spec(i int) iscsi.TargetSpec {
	s := iscsi.TargetSpec{Name: targetName, Groups: []iscsi.Group{{Name: "all", Any: true}}}
	for k, m := range p.nodes {
		o := iscsi.Portal{Address: m.address, Local: m.address, Group: uint16(k + 1)}
		if k != i {
			o.Local = "0.0.0.1:1"
		}
		s.Portals = append(s.Portals, o)
	}
	l := iscsi.LUNSpec{Disk: p.disk, Serial: unit, NAA: [16]byte{0x60, 0x12}, Clustered: true}
	l.Owner.First = uint16(p.owner.Load()) + 1
	l.Owner.Last = l.Owner.First
	if i == 1 && p.taken != nil {
		l.Disk = p.taken
	}
	if i != int(p.owner.Load()) {
		l.Disk = p.far
	}
	s.LUNs = []iscsi.LUNSpec{l}
	return s
}

// dial connects to another node.
func (m *member) dial(ctx context.Context, node string) (net.Conn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cut {
		return nil, errors.New("cut")
	}
	var d net.Dialer
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	near, err := d.DialContext(ctx, "tcp", l.Addr().String())
	if err != nil {
		return nil, err
	}
	far, err := l.Accept()
	if err != nil {
		return nil, errors.Join(err, near.Close())
	}
	for _, o := range m.p.nodes {
		if o.name == node {
			go func() { _ = o.server.Serve(far, m.name) }()
		}
	}
	m.links = append(m.links, near)
	return near, nil
}

// sever breaks the node's links, and keeps it from making others while off is set.
func (m *member) sever(off bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cut = off
	for _, c := range m.links {
		c.Close()
	}
	m.links = nil
}

// login signs in at node i and takes the unit attentions.
func (p *pair) login(i int, isid byte) *initiator.Session {
	p.t.Helper()
	s, err := initiator.Dial(p.ctx, initiator.Options{Address: p.nodes[i].address, Target: targetName, ISID: [6]byte{0x80, 0, 0, 0, 0, isid}})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(s.Close)
	if err := s.Ready(p.ctx, 0); err != nil {
		p.t.Fatal(err)
	}
	return s
}

func (p *pair) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// held waits until the disk keeps n Ops.
func (p *pair) held(n int) {
	p.t.Helper()
	for p.disk.Held() != n {
		select {
		case <-p.ctx.Done():
			p.t.Fatalf("%d Ops are kept, want %d", p.disk.Held(), n)
		case <-time.After(time.Millisecond):
		}
	}
}

func sense(t *testing.T, err error, key, asc, ascq byte) {
	t.Helper()
	var e *initiator.SCSIError
	if !errors.As(err, &e) || e.Status != initiator.CheckCondition || e.Sense.Key != key || e.Sense.ASC != asc || e.Sense.ASCQ != ascq {
		t.Errorf("got %v, want %x/%02x/%02x", err, key, asc, ascq)
	}
}

func status(t *testing.T, err error, want byte) {
	t.Helper()
	var e *initiator.SCSIError
	if !errors.As(err, &e) || e.Status != want {
		t.Errorf("got %v, want status %#x", err, want)
	}
}

func fill(n int, b byte) []byte { return bytes.Repeat([]byte{b}, n) }

// rtpg returns the states of the port groups 1 and 2.
func rtpg(p *pair, s *initiator.Session) [2]byte {
	p.t.Helper()
	c := &initiator.Command{CDB: [16]byte{0xa3, 0x0a, 9: 255}, In: make([]byte, 255)}
	p.must(s.Do(p.ctx, c))
	return [2]byte{c.In[4] & 0x0f, c.In[4+12] & 0x0f}
}

// TestPaths: what one path writes the other reads, sizes from a block to the longest
// transfer; the unit is the same one on both.
func TestPaths(t *testing.T) {
	p := newPair(t)
	began := time.Now()
	near := p.login(0, 1)
	p.must(near.ReadAt(p.ctx, 0, make([]byte, 512), 0))
	if asked := p.far.Asked(); !asked.IsZero() {
		t.Errorf("nothing was asked of the far node, yet at %v", asked)
	}
	far := p.login(1, 2)
	for i, n := range []int{512, 4096, 128 << 10, 4 << 20} {
		want, got := fill(n, byte(i+1)), make([]byte, n)
		p.must(far.WriteAt(p.ctx, 0, want, 100))
		p.must(near.ReadAt(p.ctx, 0, got, 100))
		if !bytes.Equal(got, want) {
			t.Errorf("%d bytes written by the far path are not what the near one reads", n)
		}
		want = fill(n, byte(i+100))
		p.must(near.WriteAt(p.ctx, 0, want, 9))
		p.must(far.ReadAt(p.ctx, 0, got, 9))
		if !bytes.Equal(got, want) {
			t.Errorf("%d bytes written by the near path are not what the far one reads", n)
		}
	}
	for _, page := range []int{-1, 0, 0x80, 0x86, 0x8f, 0xb0, 0xb1, 0xb2} {
		a, err := near.Inquiry(p.ctx, 0, page)
		p.must(err)
		b, err := far.Inquiry(p.ctx, 0, page)
		p.must(err)
		if !bytes.Equal(a, b) {
			t.Errorf("INQUIRY page %#x\nnear % x\n far % x", page, a, b)
		}
	}
	a, err := near.ReadCapacity(p.ctx, 0)
	p.must(err)
	if b, err := far.ReadCapacity(p.ctx, 0); err != nil || a != b {
		t.Errorf("capacity %+v and %+v, %v", a, b, err)
	}
	for _, s := range []*initiator.Session{near, far} {
		if got := rtpg(p, s); got != [2]byte{0, 1} {
			t.Errorf("states %v", got)
		}
		text, err := s.Text(p.ctx, "SendTargets=\x00")
		p.must(err)
		for k, m := range p.nodes {
			if want := "TargetAddress=" + m.address + "," + string(rune('1'+k)); !bytes.Contains([]byte(text), []byte(want)) {
				t.Errorf("SendTargets says %q, want %s", text, want)
			}
		}
	}
	if asked := p.far.Asked(); asked.Before(began.Round(0)) {
		t.Errorf("the far node was asked at %v, begun at %v", asked, began)
	}
	// Errors and their place come through.
	sense(t, far.ReadAt(p.ctx, 0, make([]byte, 512), diskSize/512), 5, 0x21, 0)
	p.disk.SetFail(func(*iscsi.Op) error { return iscsi.ErrMedium })
	sense(t, far.ReadAt(p.ctx, 0, make([]byte, 512), 7), 3, 0x11, 0)
	p.disk.SetFail(nil)
	p.must(far.SyncCache(p.ctx, 0))
	p.must(far.Unmap(p.ctx, 0, initiator.Extent{LBA: 0, Blocks: 8}))
	p.must(far.WriteSame(p.ctx, 0, fill(512, 3), 800, 64, false))
}

// TestAtomic: COMPARE AND WRITE of both paths at once counts every turn.
func TestAtomic(t *testing.T) {
	p := newPair(t)
	const turns = 40
	var wg sync.WaitGroup
	for i := range p.nodes {
		s := p.login(i, byte(i+1))
		wg.Go(func() {
			for done := 0; done < turns; {
				old, next := make([]byte, 512), make([]byte, 512)
				if err := s.ReadAt(p.ctx, 0, old, 3); err != nil {
					t.Error(err)
					return
				}
				copy(next, old)
				if next[0]++; next[0] == 0 {
					next[1]++
				}
				err := s.CompareAndWrite(p.ctx, 0, old, next, 3)
				var e *initiator.SCSIError
				switch {
				case err == nil:
					done++
				case !errors.As(err, &e) || e.Sense.Key != initiator.Miscompare:
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	got := make([]byte, 512)
	_, err := p.disk.ReadAt(got, 3*512)
	p.must(err)
	if got[0] != 2*turns {
		t.Errorf("%d turns are counted, want %d", got[0], 2*turns)
	}
}

// TestReservations: a reservation of one path keeps the other out, and goes with the unit.
func TestReservations(t *testing.T) {
	p := newPair(t)
	near, far := p.login(0, 1), p.login(1, 2)
	data := make([]byte, 512)
	p.must(far.PersistentReserve(p.ctx, 0, initiator.PersistentReserve{Action: 0, NewKey: 7}))
	p.must(far.PersistentReserve(p.ctx, 0, initiator.PersistentReserve{Action: 1, Key: 7, Type: 3}))
	status(t, near.WriteAt(p.ctx, 0, data, 0), initiator.ReservationConflict)
	p.must(far.WriteAt(p.ctx, 0, data, 0))
	p.move(1)
	_, _ = near.Ready(p.ctx, 0), far.Ready(p.ctx, 0)
	status(t, near.WriteAt(p.ctx, 0, data, 0), initiator.ReservationConflict)
	p.must(far.WriteAt(p.ctx, 0, data, 0))
	p.must(near.PersistentReserve(p.ctx, 0, initiator.PersistentReserve{Action: 0, NewKey: 8}))
	p.must(near.PersistentReserve(p.ctx, 0, initiator.PersistentReserve{Action: 4, Key: 8, NewKey: 7, Type: 3}))
	sense(t, far.TestUnitReady(p.ctx, 0), 6, 0x2a, 5) // REGISTRATIONS PREEMPTED
	status(t, far.WriteAt(p.ctx, 0, data, 0), initiator.ReservationConflict)
	p.must(near.WriteAt(p.ctx, 0, data, 0))
}

// move makes node i the owner.
func (p *pair) move(i int) {
	p.t.Helper()
	p.owner.Store(int32(i))
	for k, m := range p.nodes {
		p.must(m.srv.UpdateTarget(p.spec(k)))
	}
	for _, m := range p.nodes {
		m.fw.Moved()
	}
}

// TestMove: the states follow the owner, every nexus is told, and both paths go on.
func TestMove(t *testing.T) {
	p := newPair(t)
	sessions := [2]*initiator.Session{p.login(0, 1), p.login(1, 2)}
	got := make([]byte, 4096)
	for turn := range 4 {
		owner := (turn + 1) % 2
		p.move(owner)
		for _, s := range sessions {
			sense(t, s.TestUnitReady(p.ctx, 0), 6, 0x2a, 6)
			if err := s.TestUnitReady(p.ctx, 0); err != nil { // what the old owner kept is gone
				sense(t, err, 6, 0x29, 7)
			}
			p.must(s.Ready(p.ctx, 0))
			want := [2]byte{1, 1}
			want[owner] = 0
			if got := rtpg(p, s); got != want {
				t.Errorf("states %v, want %v", got, want)
			}
		}
		for i, s := range sessions {
			data := fill(4096, byte(10*turn+i+1))
			p.must(s.WriteAt(p.ctx, 0, data, 0))
			p.must(sessions[1-i].ReadAt(p.ctx, 0, got, 0))
			if !bytes.Equal(got, data) {
				t.Errorf("turn %d: what path %d wrote is not there", turn, i)
			}
		}
	}
}

// TestTaskManagement: functions reach the owner, and are answered when older commands ended.
func TestTaskManagement(t *testing.T) {
	p := newPair(t)
	near, far := p.login(0, 1), p.login(1, 2)
	for name, do := range map[string]func(*initiator.Command) (byte, error){
		"abort task":     func(c *initiator.Command) (byte, error) { return far.TaskManagement(p.ctx, 1, 0, c) },
		"abort task set": func(*initiator.Command) (byte, error) { return far.TaskManagement(p.ctx, 2, 0, nil) },
		"reset":          func(*initiator.Command) (byte, error) { return far.TaskManagement(p.ctx, 5, 0, nil) },
		"reset, near":    func(*initiator.Command) (byte, error) { return near.TaskManagement(p.ctx, 5, 0, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			p.disk.Hold()
			answered := make(chan error, 1)
			c := &initiator.Command{CDB: initiator.WriteCDB(0, 1, false), Out: make([]byte, 512), Done: func(c *initiator.Command) { answered <- c.Err }}
			p.must(far.Submit(c))
			p.held(1)
			over := make(chan error, 1)
			go func() {
				code, err := do(c)
				if err == nil && code != 0 {
					err = errors.New("response " + string(rune('0'+code)))
				}
				over <- err
			}()
			select {
			case err := <-over:
				t.Fatalf("answered while the command is under way: %v", err)
			case err := <-answered:
				t.Fatalf("the command is answered: %v", err)
			case <-time.After(200 * time.Millisecond): // nothing may come
			}
			p.disk.Release()
			if err := <-over; err != nil {
				t.Fatal(err)
			}
			far.Forget(c)
			p.must(far.Ready(p.ctx, 0))
			p.must(near.Ready(p.ctx, 0))
			p.must(far.WriteAt(p.ctx, 0, make([]byte, 512), 0))
			select {
			case err := <-answered:
				t.Errorf("an aborted command is answered: %v", err)
			default:
			}
		})
	}
}

// TestLinkBroken: a write whose outcome is not known is answered ABORTED COMMAND, and not
// before the owner would drop it; a read is sent again.
func TestLinkBroken(t *testing.T) {
	p := newPair(t)
	far := p.login(1, 2)
	p.disk.Hold()
	type end struct {
		err error
		at  time.Time
	}
	submit := func(c *initiator.Command) chan end {
		ch := make(chan end, 1)
		c.Done = func(c *initiator.Command) { ch <- end{c.Err, time.Now()} }
		p.must(far.Submit(c))
		return ch
	}
	began := time.Now()
	write := submit(&initiator.Command{CDB: initiator.WriteCDB(0, 1, false), Out: make([]byte, 512)})
	read := submit(&initiator.Command{CDB: initiator.ReadCDB(8, 1), In: make([]byte, 512)})
	p.held(2)
	p.nodes[1].sever(false)
	p.disk.Release()
	if e := <-read; e.err != nil {
		sense(t, e.err, 6, 0x29, 7) // the nexus is a new one
	}
	e := <-write
	sense(t, e.err, 0x0b, 0, 6)
	if d := e.at.Sub(began); d < iscsi.CommandMaxAge {
		t.Errorf("answered after %v, before the owner would drop it", d)
	}
	if n := p.disk.Ops[iscsi.OpWrite].Load(); n != 1 {
		t.Errorf("%d writes", n)
	}
	p.must(far.Ready(p.ctx, 0))
	p.must(far.WriteAt(p.ctx, 0, make([]byte, 512), 0))
}

// takeOver has b take the unit over, of which a hears nothing: what it has stays there.
func (p *pair) takeOver() {
	p.t.Helper()
	p.taken = iscsitest.NewDisk(diskSize, nil)
	p.owner.Store(1)
	p.must(p.nodes[1].srv.UpdateTarget(p.spec(1)))
	p.nodes[1].fw.Moved()
}

// TestOwnerLost: what the node has that lost the unit ends, although it never answers, and not before that
// node would drop it; its session can be used, or replaced at once. What comes too late is not taken for anything.
func TestOwnerLost(t *testing.T) {
	for name, test := range map[string]func(t *testing.T, p *pair, far *initiator.Session) *initiator.Session{
		"ends": func(t *testing.T, p *pair, far *initiator.Session) *initiator.Session {
			began := time.Now()
			write, read := make(chan error, 1), make(chan error, 1)
			p.must(far.Submit(&initiator.Command{CDB: initiator.WriteCDB(0, 1, false), Out: make([]byte, 512), Done: func(c *initiator.Command) { write <- c.Err }}))
			p.must(far.Submit(&initiator.Command{CDB: initiator.ReadCDB(8, 1), In: make([]byte, 512), Done: func(c *initiator.Command) { read <- c.Err }}))
			p.held(2)
			p.takeOver()
			sense(t, <-write, 0x0b, 0, 6)
			if d := time.Since(began); d < iscsi.CommandMaxAge {
				t.Errorf("answered after %v, before the owner would drop it", d)
			}
			status(t, <-read, initiator.Busy)
			_ = far.Ready(p.ctx, 0)
			return far
		},
		"replaced": func(t *testing.T, p *pair, far *initiator.Session) *initiator.Session {
			ended := make(chan error, 1)
			p.must(far.Submit(&initiator.Command{CDB: initiator.WriteCDB(0, 1, false), Out: make([]byte, 512), Done: func(c *initiator.Command) { ended <- c.Err }}))
			p.held(1)
			p.takeOver()
			again := p.login(1, 2)
			if err := <-ended; err == nil {
				t.Error("the write of the session before is acknowledged")
			}
			return again
		},
		"reset": func(t *testing.T, p *pair, far *initiator.Session) *initiator.Session {
			p.must(far.Submit(&initiator.Command{CDB: initiator.WriteCDB(0, 1, false), Out: make([]byte, 512), Done: func(*initiator.Command) {}}))
			p.held(1)
			over := make(chan error, 1)
			go func() {
				_, err := far.TaskManagement(p.ctx, 5, 0, nil)
				over <- err
			}()
			p.takeOver()
			if err := <-over; p.ctx.Err() != nil { // it fails with its session, or the node that took over resets the unit
				t.Error(err)
			}
			return p.login(1, 2)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			far := p.login(1, 2)
			p.disk.Hold()
			s := test(t, p, far)
			data, got := fill(512, 7), make([]byte, 512)
			p.must(s.WriteAt(p.ctx, 0, data, 0))
			p.disk.Release() // the other node answers after all
			p.disk.Wait()
			p.must(s.ReadAt(p.ctx, 0, got, 0))
			if !bytes.Equal(got, data) {
				t.Error("what was written after the takeover is not there")
			}
		})
	}
}

// TestLinkDown: without a way to the owner commands are BUSY after a while, and the unit
// stays there; with one they go on.
func TestLinkDown(t *testing.T) {
	p := newPair(t)
	far := p.login(1, 2)
	p.nodes[1].sever(true)
	began := time.Now()
	err := far.ReadAt(p.ctx, 0, make([]byte, 512), 0) // a write may have been sent before the loss was noticed
	status(t, err, initiator.Busy)
	if d := time.Since(began); d < forward.Park || d > forward.Park+5*time.Second {
		t.Errorf("BUSY after %v", d)
	}
	if _, err := far.Inquiry(p.ctx, 0, 0x83); err != nil {
		t.Error(err)
	}
	if luns, err := far.ReportLUNs(p.ctx); err != nil || len(luns) != 1 {
		t.Errorf("%v, %v", luns, err)
	}
	p.nodes[1].sever(false)
	p.must(far.Ready(p.ctx, 0))
	p.must(far.WriteAt(p.ctx, 0, make([]byte, 512), 0))
}

// TestAway: a path that does not lead to an owner that lives is unavailable, and tells so, until
// it does again; while nobody says that the owner lives it is BUSY.
func TestAway(t *testing.T) {
	p := newPair(t)
	m := p.nodes[1]
	far := p.login(1, 2)
	write := func() error { return far.WriteAt(p.ctx, 0, make([]byte, 512), 0) }
	p.must(write())
	if s := rtpg(p, far); s != [2]byte{0, 1} {
		t.Errorf("states %v", s)
	}
	m.sever(true)
	p.lives.Store(false)
	for began := time.Now(); time.Since(began) < testAway+time.Second; {
		// A write may have been sent before the loss of the link was noticed.
		status(t, far.ReadAt(p.ctx, 0, make([]byte, 512), 0), initiator.Busy)
	}
	p.lives.Store(true)
	err := write()
	sense(t, err, 2, 0x04, 0x0c)
	sense(t, far.TestUnitReady(p.ctx, 0), 6, 0x2a, 0x06) // the states changed
	began := time.Now()
	sense(t, write(), 2, 0x04, 0x0c)
	if d := time.Since(began); d >= forward.Park {
		t.Errorf("known to be away after %v", d)
	}
	if s := rtpg(p, far); s != [2]byte{0, 3} {
		t.Errorf("states of a path that leads nowhere: %v", s)
	}
	near := p.login(0, 1)
	p.must(near.WriteAt(p.ctx, 0, make([]byte, 512), 0))
	if s := rtpg(p, near); s != [2]byte{0, 1} {
		t.Errorf("states by the path that works: %v", s)
	}
	m.sever(false)
	for err := far.Ready(p.ctx, 0); err != nil; err = far.Ready(p.ctx, 0) {
		sense(t, err, 2, 0x04, 0x0c) // until it is connected
	}
	p.must(write())
	if s := rtpg(p, far); s != [2]byte{0, 1} {
		t.Errorf("states after it was reached again: %v", s)
	}
}

// TestPause: after a pause of the process nothing of the sessions from before is sent; new ones
// work.
func TestPause(t *testing.T) {
	p := newPair(t)
	far := p.login(1, 2)
	p.must(far.WriteAt(p.ctx, 0, make([]byte, 512), 0))
	writes := p.disk.Ops[iscsi.OpWrite].Load()
	p.nodes[1].ahead.Store(int64(3 * time.Second)) // as if it had not run for so long
	if err := far.WriteAt(p.ctx, 0, make([]byte, 512), 0); err == nil || far.Err() == nil {
		t.Errorf("a command from before the pause ends with %v, the session with %v", err, far.Err())
	}
	if n := p.disk.Ops[iscsi.OpWrite].Load(); n != writes {
		t.Errorf("%d writes, before the pause %d", n, writes)
	}
	p.must(p.login(1, 3).WriteAt(p.ctx, 0, make([]byte, 512), 0))
}

// TestLoad: many commands of several sessions at once, over links that break.
func TestLoad(t *testing.T) {
	p := newPair(t)
	const sessions, rounds = 4, 200
	var wg sync.WaitGroup
	for k := range sessions {
		s := p.login(1, byte(k+1))
		wg.Go(func() {
			data, got := make([]byte, 4096), make([]byte, 4096)
			for n := range rounds {
				copy(data, fill(4096, byte(n+k)))
				lba := uint64(k*1024 + n%16*8)
				if err := retry(p, func() error { return s.WriteAt(p.ctx, 0, data, lba) }); err != nil {
					t.Error(err)
					return
				}
				if err := retry(p, func() error { return s.ReadAt(p.ctx, 0, got, lba) }); err != nil || !bytes.Equal(got, data) {
					t.Errorf("session %d, round %d: read %v", k, n, err)
					return
				}
				if k == 0 && n == rounds/2 {
					p.nodes[1].sever(false)
				}
			}
		})
	}
	wg.Wait()
}

// retry repeats what ends with an error that may pass.
func retry(p *pair, do func() error) error {
	for {
		err := do()
		var e *initiator.SCSIError
		if err == nil || !errors.As(err, &e) || p.ctx.Err() != nil {
			return err
		}
		if e.Status != initiator.Busy && e.Sense.Key != initiator.UnitAttention && e.Sense.Key != initiator.AbortedCommand {
			return err
		}
	}
}
