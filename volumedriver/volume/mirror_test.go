package volume

import (
	"context"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/local"
	"github.com/openvstorage/ovgate/volumedriver/dtl"
)

// testNet connects the DTL of hosts, in memory.
type testNet struct {
	mu    sync.Mutex
	hosts map[string]*Host
	cut   bool
	conns map[net.Conn]struct{}
	serve sync.WaitGroup
	thaw  chan struct{} // closed: it is not frozen
}

func newTestNet() *testNet {
	n := &testNet{hosts: map[string]*Host{}, conns: map[net.Conn]struct{}{}, thaw: make(chan struct{})}
	close(n.thaw)
	return n
}

// freeze keeps what is on its way where it is, until thawed.
func (n *testNet) freeze() (thaw func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	ch := make(chan struct{})
	n.thaw = ch
	return func() { close(ch) }
}

// iceConn is a connection over a net that can be frozen.
type iceConn struct {
	net.Conn
	n      *testNet
	once   sync.Once
	closed chan struct{}
}

func (c *iceConn) wait() error {
	c.n.mu.Lock()
	thaw := c.n.thaw
	c.n.mu.Unlock()
	select {
	case <-thaw:
		return nil
	case <-c.closed:
		return net.ErrClosed
	}
}

func (c *iceConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if werr := c.wait(); werr != nil {
		return 0, werr
	}
	return n, err
}

func (c *iceConn) Write(p []byte) (int, error) {
	if err := c.wait(); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

func (c *iceConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

func (n *testNet) dial(_ context.Context, node string) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hosts[node]
	if h == nil || n.cut {
		return nil, errors.New("no route to that node")
	}
	a, b := net.Pipe()
	n.conns[b] = struct{}{}
	n.serve.Go(func() {
		_ = h.ServeDTL(b, "")
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.conns, b)
	})
	return &iceConn{Conn: a, n: n, closed: make(chan struct{})}, nil
}

// setCut breaks all connections, and lets no others be made until they may again.
func (n *testNet) setCut(cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = cut
	for c := range n.conns {
		c.Close()
	}
}

// set says where a node is; nil: nowhere.
func (n *testNet) set(node string, h *Host) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[node] = h
}

// leapClock is the machine's clock, of which a test skips parts.
type leapClock struct {
	clock.Real
	ahead atomic.Int64
}

func (l *leapClock) Now() time.Time       { return l.Real.Now().Add(time.Duration(l.ahead.Load())) }
func (l *leapClock) leap(d time.Duration) { l.ahead.Add(int64(d)) }
func (l *leapClock) booted() func(*Host)  { return func(*Host) { l.leap(3 * dtl.Grant) } }

// lostAfter is when a peer that does not answer counts as lost: far above what one takes on
// a busy machine, as a copy that was given up cannot be taken over.
const lostAfter = 2 * time.Second

func dtlOptions(n *testNet, peers ...string) *DTLOptions {
	return &DTLOptions{Cluster: "c1", Dial: n.dial, Peers: func(ID) []string { return peers }, Lost: lostAfter}
}

// pair are two nodes with the same backend and registry, of which each has the copies of
// the other.
type pair struct {
	t           testing.TB
	net         *testNet
	a, b        *world
	early, late *leapClock // of a and b
}

// mirrored starts both nodes, with a new vDisk of 1 MiB open on the first and its copy good
// on the second.
func (p *pair) mirrored(t *testing.T, id ID) (a, b *node, v *Volume) {
	t.Helper()
	a, b = p.a.mustStart(t), p.b.mustStart(t)
	a.create(id, 1<<20)
	v = a.open(id)
	mustState(t, v, DTLOK)
	return a, b, v
}

func newPair(t testing.TB, seed uint64) *pair {
	p := &pair{t: t, net: newTestNet(), a: newBusyWorld(seed), b: newBusyWorld(seed + 1<<32), early: &leapClock{}, late: &leapClock{}}
	p.a.node, p.b.node = "node-a", "node-b"
	p.b.be, p.b.reg = p.a.be, p.a.reg
	store, err := local.Open(p.a.be, local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p.a.openStore = func() backend.Store { return sharedStore{store} }
	p.b.openStore = p.a.openStore
	p.a.opts.DTL, p.b.opts.DTL = dtlOptions(p.net, "node-b"), dtlOptions(p.net, "node-a")
	p.a.opts.Clock, p.b.opts.Clock = p.early, p.late
	p.a.booted = func(h *Host) { p.net.set("node-a", h) }
	p.b.booted = func(h *Host) { p.net.set("node-b", h) }
	t.Cleanup(p.net.serve.Wait)
	return p
}

// sharedStore is a store of two nodes. A directory can be one of a process only.
type sharedStore struct{ backend.Store }

func (sharedStore) Close() error { return nil }

// mustState waits for a state of the copy.
func mustState(t testing.TB, v *Volume, want DTLState) {
	t.Helper()
	limit := time.After(hangLimit)
	for {
		changes := v.mirror.changes()
		s := v.Stats().DTL
		if s.State == want {
			return
		}
		select {
		case <-changes:
		case <-limit:
			t.Fatalf("the copy is %s (%s), want %s", s.State, s.Err, want)
		}
	}
}

func (p *pair) record(id ID) Record {
	p.t.Helper()
	rec, err := p.a.reg.Load(context.Background(), id)
	if err != nil {
		p.t.Fatal(err)
	}
	return rec
}

// TestTakeOverCopy: a node dies; the one that has the copy has everything that was
// acknowledged, and the old one, which comes back, is fenced.
func TestTakeOverCopy(t *testing.T) {
	p := newPair(t, 1)
	id := testID(1)
	a, b := p.a.mustStart(t), p.b.mustStart(t)
	a.create(id, 1<<20)
	v := a.open(id)
	mustWrite(t, v, 0, 1) // before the copy may be good
	mustState(t, v, DTLOK)
	if rec := p.record(id); rec.DTL.State != DTLOK || rec.DTL.Peer != "node-b" || rec.Format != 5 {
		t.Fatalf("record %+v", rec)
	}
	for i := range uint32(50) {
		mustWrite(t, v, int64(i)*4096, i+2)
	}
	p.net.setCut(true)
	w := p.a.copyOf() // what node-a comes back with
	w.reg, w.be = p.a.reg, p.a.be
	a.kill()
	p.late.leap(3 * dtl.Grant)
	nv, err := b.pool.Open(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint32(50) {
		wantVersion(t, nv, int64(i)*4096, i+2)
	}
	if rec := p.record(id); rec.DTL.State != DTLDegraded || rec.Owner != "node-b" {
		t.Fatalf("record %+v", rec)
	}
	mustWrite(t, nv, 0, 100)
	old := w.mustStart(t)
	if _, err := old.pool.Open(context.Background(), id); !errors.Is(err, ErrLostTail) {
		t.Fatalf("the old owner opens it: %v", err)
	}
	p.net.setCut(false)
	mustState(t, nv, DTLOK) // now node-a has the copy
	mustWrite(t, nv, 4096, 101)
	b.kill()
	p.net.set("node-b", nil)
	if _, err := old.pool.Open(context.Background(), id); err != nil { // after the grant that it gave
		t.Fatal(err)
	}
	wantVersion(t, old.pool.Volume(id), 0, 100)
	wantVersion(t, old.pool.Volume(id), 4096, 101)
	old.close()
	if rec := p.record(id); rec.DTL.State != DTLOff || rec.Owner != "" {
		t.Fatalf("record after the close %+v", rec)
	}
}

// TestPeerLost: with the peer away a write waits until the registry says that the copy
// does not count; then it is answered. The copy is made anew when the peer is back.
func TestPeerLost(t *testing.T) {
	p := newPair(t, 2)
	id := testID(1)
	a, b, v := p.mirrored(t, id)
	gen := p.record(id).DTL.Generation
	p.net.setCut(true)
	mustWrite(t, v, 0, 1)
	if rec := p.record(id); rec.DTL.State != DTLDegraded {
		t.Fatalf("answered, and the registry says %+v", rec.DTL)
	}
	mustState(t, v, DTLDegraded)
	for range 6 { // some tries
		changes := v.mirror.changes()
		if s := v.Stats().DTL; s.State != DTLDegraded || s.Err == "" || s.Peer != "" {
			t.Errorf("while the peer is tried again the copy is %s (%s) on %q", s.State, s.Err, s.Peer)
		}
		<-changes
	}
	p.late.leap(3 * dtl.Grant)
	before := p.record(id)
	if _, err := b.pool.Open(context.Background(), id); !errors.Is(err, ErrLostTail) {
		t.Fatalf("node-b opens it: %v", err)
	}
	if after := p.record(id); !after.equal(&before) {
		t.Fatalf("a refused open changed %+v to %+v", before, after)
	}
	wantVersion(t, v, 0, 1)
	p.net.setCut(false)
	mustState(t, v, DTLOK)
	if rec := p.record(id); rec.DTL.State != DTLOK || rec.DTL.Generation == gen {
		t.Fatalf("%+v, and the generation before was %x", rec.DTL, gen)
	}
	mustWrite(t, v, 4096, 2)
	a.close()
	if b.host.dtl.server.Has(id) {
		t.Error("the peer keeps its copy of a vdisk that was closed in order")
	}
	nv := b.open(id) // closed in order: anybody may open it
	wantVersion(t, nv, 0, 1)
	wantVersion(t, nv, 4096, 2)
	b.close()
}

// errReg is a registry that can be away.
type errReg struct {
	*memRegistry
	away atomic.Bool
}

func (r *errReg) Apply(ctx context.Context, c ...Change) error {
	if r.away.Load() {
		return errors.New("registry away")
	}
	return r.memRegistry.Apply(ctx, c...)
}

// TestNoSoloAcknowledgement: with both peer and registry away nothing is answered, and
// nothing is visible, that only the owner has (O2).
func TestNoSoloAcknowledgement(t *testing.T) {
	p := newPair(t, 3)
	id := testID(1)
	reg := &errReg{memRegistry: p.a.reg}
	p.a.registry = reg
	a, b, v := p.mirrored(t, id)
	mustWrite(t, v, 0, 1)
	reg.away.Store(true)
	p.net.setCut(true)
	done := make(chan error, 1)
	go func() { done <- write(t, v, 0, 2) }()
	mustState(t, v, DTLDegraded) // the peer is lost, the registry does not know yet
	read := &Request{Kind: ReqRead, Data: make([]byte, 4096), Done: syncDone{make(chan struct{}, 1)}}
	v.Submit(read) // it reads at once, from memory
	p.late.leap(3 * dtl.Grant)
	nv, err := b.pool.Open(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		t.Fatalf("the write was answered: %v", err)
	case <-read.Done.(syncDone).ch:
		t.Fatalf("the read was answered: %v", read.Err)
	default:
	}
	have := make([]byte, 4096)
	if err := nv.ReadAt(context.Background(), have, 0); err != nil {
		t.Fatal(err)
	}
	if got, err := sectorVersion(have, 0); err != nil || got != 1 && got != 2 {
		t.Fatalf("version %d, %v", got, err)
	}
	mustWrite(t, nv, 0, 3)
	reg.away.Store(false)
	if err := <-done; !errors.Is(err, ErrFenced) {
		t.Fatalf("the write of the old owner: %v", err)
	}
	if <-read.Done.(syncDone).ch; !errors.Is(read.Err, ErrFenced) {
		t.Fatalf("the read of the old owner: %v", read.Err)
	}
	a.kill()
	wantVersion(t, nv, 0, 3)
	b.close()
}

// TestOwnerPaused: the owner stands still for a minute, and the vDisk is taken over. Awake
// again it answers neither a read nor a write, though it heard nothing of that.
func TestOwnerPaused(t *testing.T) {
	for _, mode := range []DTLMode{DTLSync, DTLAsync} {
		t.Run(string(mode), func(t *testing.T) { ownerPaused(t, mode) })
	}
}

func ownerPaused(t *testing.T, mode DTLMode) {
	p := newPair(t, 5)
	p.a.settings.DTL, p.b.settings.DTL = mode, mode
	id := testID(1)
	a, b, v := p.mirrored(t, id)
	mustWrite(t, v, 0, 1)
	wantVersion(t, v, 0, 1)
	thaw := p.net.freeze()
	p.late.leap(time.Minute)
	if mode == DTLAsync {
		if err := b.pool.AcceptLoss(context.Background(), id); err != nil {
			t.Fatal(err)
		}
	}
	nv := b.open(id)
	mustWrite(t, nv, 0, 2)
	p.early.leap(time.Minute)
	read := &Request{Kind: ReqRead, Data: make([]byte, 4096), Done: syncDone{make(chan struct{}, 1)}}
	v.Submit(read) // from memory
	done := make(chan error, 1)
	go func() { done <- write(t, v, 0, 3) }()
	thaw()
	if <-read.Done.(syncDone).ch; !errors.Is(read.Err, ErrFenced) {
		t.Errorf("the read: %v", read.Err)
	}
	if err := <-done; !errors.Is(err, ErrFenced) {
		t.Errorf("the write: %v", err)
	}
	a.kill()
	wantVersion(t, nv, 0, 2)
	b.close()
}

// TestPeerPaused: the peer stands still. The owner does not wait for it longer than it has
// to, and what the peer has then does not count.
func TestPeerPaused(t *testing.T) {
	p := newPair(t, 6)
	id := testID(1)
	a, b, v := p.mirrored(t, id)
	mustWrite(t, v, 0, 1)
	thaw := p.net.freeze()
	begun := time.Now()
	mustWrite(t, v, 0, 2)
	if d := time.Since(begun); d < p.a.opts.DTL.Lost {
		t.Errorf("answered within %v, with the peer standing still", d)
	}
	p.early.leap(time.Minute)
	p.late.leap(time.Minute)
	if _, err := b.pool.Open(context.Background(), id); !errors.Is(err, ErrLostTail) {
		t.Fatalf("node-b opens it: %v", err)
	}
	wantVersion(t, v, 0, 2)
	thaw()
	mustState(t, v, DTLOK)
	mustWrite(t, v, 0, 3)
	a.kill()
	p.late.leap(time.Minute)
	wantVersion(t, b.open(id), 0, 3)
	b.close()
}

// kindStore does not put objects of a kind until it is told to.
type kindStore struct {
	backend.Store
	kind string
	open <-chan struct{}
}

func (s kindStore) Put(ctx context.Context, name string, data []byte) error {
	if strings.Contains(name, s.kind) {
		select {
		case <-s.open:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return s.Store.Put(ctx, name, data)
}

// TestOKLate: the registry does not say that the copy is good before the peer has what
// was answered while it was being made, and the backend what came before.
func TestOKLate(t *testing.T) {
	p := newPair(t, 7)
	id := testID(1)
	open := make(chan struct{})
	p.a.wrapStore = func(s backend.Store) (backend.Store, error) { return kindStore{s, "/sco/", open}, nil }
	var v *Volume
	var early atomic.Int64
	p.a.registry = checkedReg{p.a.reg, func(rec *Record) {
		if rec.DTL.State != DTLOK {
			return
		}
		m := v.mirror.stats()
		if at, _ := v.mirror.m.Durable(); at < v.lastSeq.Load() || v.up.committed.Load() < v.mirror.m.Start()-1 || m.State != DTLCatchup {
			early.Add(1)
		}
	}}
	a, b := p.a.mustStart(t), p.b.mustStart(t)
	defer b.kill()
	p.net.setCut(true)
	a.create(id, 1<<20)
	v = a.open(id)
	mustWrite(t, v, 0, 1)
	stuck, work := make(chan struct{}), make(chan struct{})
	var once sync.Once
	p.b.fs.SetHook(func(_ int64, op blockfs.OpInfo) {
		if op.Kind == blockfs.OpWrite && strings.Contains(op.Path, "journal/") {
			once.Do(func() { close(stuck) })
			<-work
		}
	})
	p.net.setCut(false)
	mustState(t, v, DTLCatchup)
	mustWrite(t, v, 4096, 2) // answered: nothing counts on the copy yet
	<-stuck
	close(open)
	mustState(t, v, DTLDegraded) // the peer was too slow
	close(work)
	mustState(t, v, DTLOK)
	mustWrite(t, v, 8192, 3)
	if n := early.Load(); n > 0 {
		t.Errorf("the copy counted too early, %d times", n)
	}
	a.close()
}

// checkedReg looks at what is written.
type checkedReg struct {
	*memRegistry
	check func(*Record)
}

func (r checkedReg) Apply(ctx context.Context, changes ...Change) error {
	for _, c := range changes {
		if c.New != nil {
			r.check(c.New)
		}
	}
	return r.memRegistry.Apply(ctx, changes...)
}

// TestReleased: the peer gives back what a head covers, and not what was written while
// that was made.
func TestReleased(t *testing.T) {
	p := newPair(t, 12)
	id := testID(1)
	open := make(chan struct{})
	p.a.wrapStore = func(s backend.Store) (backend.Store, error) { return kindStore{s, "/tlog/", open}, nil }
	a, b, v := p.mirrored(t, id)
	mustWrite(t, v, 0, 1)
	covered := v.lastSeq.Load()
	done := make(chan error, 1)
	go func() { done <- v.Commit(context.Background()) }()
	for v.queuedBatches() == 0 { // until the batch of the write is closed
		runtime.Gosched()
	}
	mustWrite(t, v, 4096, 2)
	close(open)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if at := v.up.committed.Load(); at != covered {
		t.Fatalf("a head covers seq %d, want %d", at, covered)
	}
	mustWrite(t, v, 8192, 3) // answered after the release
	p.net.setCut(true)
	a.kill()
	p.late.leap(time.Minute)
	nv := b.open(id)
	for i := range uint32(3) {
		wantVersion(t, nv, int64(i)*4096, i+1)
	}
	b.close()
}

// queuedBatches returns how many batches are closed and not committed.
func (v *Volume) queuedBatches() int {
	v.mapMu.RLock()
	defer v.mapMu.RUnlock()
	return len(v.closed)
}

// TestPeerFull: copies take half of the peer's journal space and no more; the owner goes
// on without, and so do the vDisks of the peer.
func TestPeerFull(t *testing.T) {
	p := newPair(t, 13)
	p.b.opts.JournalBytes = 8 * p.b.opts.ChunkBytes
	never := make(chan struct{})
	p.a.wrapStore = func(s backend.Store) (backend.Store, error) { return kindStore{s, "/sco/", never}, nil }
	id, other := testID(1), testID(2)
	a, b := p.a.mustStart(t), p.b.mustStart(t)
	a.create(id, 4<<20)
	b.create(other, 1<<20)
	v := a.open(id)
	mustState(t, v, DTLOK)
	for i := range int64(32) {
		if err := v.WriteAt(context.Background(), make([]byte, 64<<10), i*(64<<10)); err != nil {
			t.Fatal(err)
		}
	}
	if rec := p.record(id); rec.DTL.State != DTLDegraded {
		t.Errorf("2 MiB in a copy of 1 MiB: %+v", rec.DTL)
	}
	if u := b.host.disks[0].pool.Usage(); u.Bytes > u.MaxBytes/2+u.ChunkBytes {
		t.Errorf("copies take %d of %d bytes", u.Bytes, u.MaxBytes)
	}
	ov := b.open(other)
	for i := range int64(64) {
		mustWrite(t, ov, i*4096, 1)
	}
	a.kill()
	b.kill()
}

// TestAdoptedTail: what was taken over and is not on the backend yet stays, when the new
// owner restarts and the old one asks for a copy.
func TestAdoptedTail(t *testing.T) {
	p := newPair(t, 8)
	id := testID(1)
	never := make(chan struct{})
	p.b.wrapStore = func(s backend.Store) (backend.Store, error) { return kindStore{s, "/sco/", never}, nil }
	a, b, v := p.mirrored(t, id)
	for i := range uint32(20) {
		mustWrite(t, v, int64(i)*4096, i+1)
	}
	epoch := v.Stats().Epoch
	p.net.setCut(true)
	a.kill()
	p.late.leap(time.Minute)
	wantVersion(t, b.open(id), 0, 1)
	b.kill()
	b = p.b.mustStart(t)
	p.net.setCut(false)
	p.late.leap(time.Minute)
	c := dtl.NewClient(dtl.ClientOptions{Cluster: "c1", Node: "node-a", Peer: "node-b", Clock: p.late,
		Dial: func(ctx context.Context) (net.Conn, error) { return p.net.dial(ctx, "node-b") }})
	m := c.Begin(id, epoch, MinClusterSize, 1000)
	if err := m.Await(context.Background(), 0); !errors.Is(err, dtl.ErrFenced) {
		t.Errorf("a copy for the old owner: %v", err)
	}
	c.Close()
	nv := b.open(id)
	for i := range uint32(20) {
		wantVersion(t, nv, int64(i)*4096, i+1)
	}
	b.kill()
}

// TestHandOver: with the backend away a vDisk that is closed leaves its tail to the peer,
// which opens it at once, while the node before goes on with others.
func TestHandOver(t *testing.T) {
	p := newPair(t, 9)
	id, other := testID(1), testID(2)
	never := make(chan struct{})
	p.a.wrapStore = func(s backend.Store) (backend.Store, error) { return kindStore{s, "/sco/", never}, nil }
	a, b := p.a.mustStart(t), p.b.mustStart(t)
	a.create(id, 1<<20)
	a.create(other, 1<<20)
	v, ov := a.open(id), a.open(other)
	mustState(t, v, DTLOK)
	mustState(t, ov, DTLOK)
	for i := range uint32(20) {
		mustWrite(t, v, int64(i)*4096, i+1)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := v.Close(ctx); err == nil {
		t.Fatal("closed cleanly, and the backend takes nothing")
	}
	nv := b.open(id) // by a clock that nobody sets forward
	for i := range uint32(20) {
		wantVersion(t, nv, int64(i)*4096, i+1)
	}
	mustWrite(t, ov, 0, 1)
	mustState(t, ov, DTLOK)
	mustState(t, nv, DTLOK)
	b.kill()
	a.kill()
}

// TestAsync: a write is answered without the peer, until that lacks as much as it may. A
// takeover needs a word for what is missing, and has a prefix of the log.
func TestAsync(t *testing.T) {
	p := newPair(t, 10)
	p.a.settings.DTL, p.b.settings.DTL = DTLAsync, DTLAsync
	p.a.opts.JournalBytes, p.b.opts.JournalBytes = 64<<20, 64<<20
	p.a.opts.DTL.Lost = hangLimit
	id := testID(1)
	a, b := p.a.mustStart(t), p.b.mustStart(t)
	a.create(id, 64<<20)
	v := a.open(id)
	mustState(t, v, DTLOK)
	for i := range uint32(20) {
		mustWrite(t, v, int64(i)*4096, i+1)
	}
	there := func() uint64 { at, _ := v.mirror.m.Durable(); return at }
	if err := v.mirror.m.Await(context.Background(), v.lastSeq.Load()); err != nil {
		t.Fatal(err)
	}
	thaw := p.net.freeze()
	seq := there()
	mustWrite(t, v, 0, 100) // the peer has not heard of it
	if there() != seq {
		t.Fatal("the peer answered from the ice")
	}
	most := 2*int(asyncLag)/(64<<10) + 1
	done := make(chan int, 1)
	go func() {
		n := 0
		for ; n < most && v.WriteAt(context.Background(), make([]byte, 64<<10), 1<<20) == nil; n++ {
		}
		done <- n
	}()
	limit := time.After(hangLimit)
	for v.mirror.m.Unanswered() < asyncLag {
		select {
		case n := <-done:
			t.Fatalf("%d writes of 64 KiB were answered that the peer has not got, %d bytes on their way", n, v.mirror.m.Unanswered())
		case <-limit:
			t.Fatal("the peer lacks little, and no write ends")
		case <-time.After(time.Millisecond): // asked all the time, its lock is rarely free for others
		}
	}
	select {
	case n := <-done:
		t.Fatalf("%d writes of 64 KiB were answered that the peer has not got", n)
	case <-time.After(200 * time.Millisecond): // time for one that would not wait
	}
	if n := v.mirror.m.Unanswered(); n > asyncLag+1<<20 {
		t.Errorf("the peer lacks %d bytes", n)
	}
	p.early.leap(time.Minute) // the grant is over: nothing is answered any more
	p.late.leap(time.Minute)
	before := p.record(id)
	if !before.DTL.Async {
		t.Fatalf("record %+v", before)
	}
	if _, err := b.pool.Open(context.Background(), id); !errors.Is(err, ErrLostTail) {
		t.Fatalf("node-b opens it without a word: %v", err)
	}
	if after := p.record(id); !after.equal(&before) {
		t.Fatalf("a refused open changed %+v to %+v", before, after)
	}
	if err := b.pool.AcceptLoss(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	nv := b.open(id)
	wantVersion(t, nv, 0, 1)
	wantVersion(t, nv, 19*4096, 20)
	thaw()
	if n := <-done; n == most {
		t.Error("a peer that has nothing of it holds up no write")
	}
	if err := write(t, v, 0, 101); !errors.Is(err, ErrFenced) {
		t.Errorf("the old owner: %v", err)
	}
	a.kill()
	b.close()
}

// TestModes: the mode of an open vDisk changes, and the registry with it.
func TestModes(t *testing.T) {
	p := newPair(t, 11)
	id := testID(1)
	a, b, v := p.mirrored(t, id)
	for i, mode := range []DTLMode{DTLModeOff, DTLAsync, DTLSync, DTLModeOff} {
		s := *v.settings.Load()
		s.DTL = mode
		if err := v.SetSettings(s); err != nil {
			t.Fatal(err)
		}
		state := DTLOK
		if mode == DTLModeOff {
			state = DTLOff
		}
		mustRecord(t, v, DTLRecord{State: state, Async: mode == DTLAsync})
		mustState(t, v, state)
		mustWrite(t, v, 0, uint32(i+1))
		if b.host.dtl.server.Has(id) != (state == DTLOK) {
			t.Errorf("mode %s, and the peer has a copy: %v", mode, b.host.dtl.server.Has(id))
		}
	}
	s := *v.settings.Load()
	s.DTL = "maybe"
	if err := v.SetSettings(s); !errors.Is(err, ErrInvalid) {
		t.Errorf("mode %q: %v", s.DTL, err)
	}
	a.close()
	wantVersion(t, b.open(id), 0, 4)
	b.close()
}

// mustRecord waits until the registry says this of the copy, peer and generation apart.
func mustRecord(t testing.TB, v *Volume, want DTLRecord) {
	t.Helper()
	limit := time.After(hangLimit)
	for {
		changes := v.mirror.changes()
		rec, err := v.host.o.Registry.Load(context.Background(), v.id)
		if err != nil {
			t.Fatal(err)
		}
		if rec.DTL.State == want.State && rec.DTL.Async == want.Async {
			return
		}
		select {
		case <-changes:
		case <-limit:
			t.Fatalf("the registry says %+v", rec.DTL)
		}
	}
}

// mirrorRun crashes copies of two nodes on the way of a script.
type mirrorRun struct {
	crashRun
	p      *pair
	oks    atomic.Int64 // takeovers
	others atomic.Int64 // refused ones
	gone   atomic.Bool  // the peer lost the copy, which the registry may name yet
}

// hook is called in the middle of every change of files, backend and registry of both
// nodes. Both crash there; then each is started with what it has, and the other is not.
func (m *mirrorRun) hook() {
	n := m.points.Add(1)
	if n%m.stride != 0 || m.begun.Load() < 0 {
		return
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, kind := range tearings {
		low := m.acked.Load()
		a, b := *m.p.a, *m.p.b
		reg := m.p.a.reg.clone()
		cfg := blockfs.CrashConfig{Unsynced: kind, Rand: mrand.New(mrand.NewPCG(uint64(n), uint64(kind)))}
		b.fs, a.fs, a.be = m.p.b.fs.Crash(cfg), m.p.a.fs.Crash(cfg), m.p.a.be.Crash(cfg)
		b.be = a.be.Crash(blockfs.CrashConfig{Unsynced: blockfs.KeepAll})
		high, gone := m.begun.Load(), m.gone.Load()
		alone := newTestNet()
		k := &leapClock{}
		for i, w := range []*world{&a, &b} {
			w.reg, w.seed = &memRegistry{recs: reg.clone().recs}, seedsFrom(uint64(n)*16+uint64(kind)*2+uint64(i)+1<<40)
			w.openStore = nil
			w.opts.DTL, w.opts.Clock, w.booted = dtlOptions(alone), k, k.booted()
		}
		m.checks.Add(1)
		wg.Go(func() {
			err := m.verify(&a, low, high, false)
			if err != nil {
				err = fmt.Errorf("the owner: %w", err)
			} else if err = m.takeOver(&b, low, high, gone); err != nil {
				err = fmt.Errorf("the peer: %w", err)
			}
			if err != nil {
				m.mu.Lock()
				defer m.mu.Unlock()
				if m.fail == nil {
					m.fail = fmt.Errorf("crash point %d, tearing %d, step %d: %w", n, kind, low, err)
				}
			}
		})
	}
}

// takeOver opens the vDisk on the peer: all is there, or it says that it is not.
func (m *mirrorRun) takeOver(w *world, low, high int64, gone bool) error {
	before, err := w.reg.Load(context.Background(), m.id)
	if err != nil {
		return err
	}
	if w.settings.DTL == DTLAsync { // somebody's word is there
		m.oks.Add(1)
		m.others.Add(1)
		w.settings.AcceptLostTail = true
		return m.verify(w, 0, high, false)
	}
	if before.Owner == "" || before.DTL.State == DTLOK && !gone {
		m.oks.Add(1)
		return m.verify(w, low, high, false)
	}
	m.others.Add(1)
	n, err := w.start(m.t)
	if err != nil {
		return err
	}
	defer n.kill()
	if _, err = n.pool.Open(context.Background(), m.id); err == nil {
		// The head that ends an opening may be there, and the registry does not know yet.
		n.kill()
		return m.verify(w, low, high, false)
	}
	after, lerr := w.reg.Load(context.Background(), m.id)
	if !errors.Is(err, ErrLostTail) || lerr != nil || !after.equal(&before) {
		return fmt.Errorf("the copy is %s, and the open ends with %w; the record was %+v, is %+v", before.DTL.State, err, before, after)
	}
	return nil
}

// TestMirrorCrash: whenever both nodes crash, the owner has everything that was
// acknowledged when it starts alone; so has the peer, or it says that it has not. The
// peer and the network fail on the way. With DTLAsync the peer has a prefix of the log.
func TestMirrorCrash(t *testing.T) {
	for _, mode := range []DTLMode{DTLSync, DTLAsync} {
		t.Run(string(mode), func(t *testing.T) { (&mirrorRun{p: newPair(t, 4)}).test(t, mode) })
	}
}

func (m *mirrorRun) test(t *testing.T, mode DTLMode) {
	size, steps := crashScript()
	m.t, m.w, m.id, m.stride = t, m.p.a, testID(9), stride(37, 397)
	m.p.a.settings.DTL, m.p.b.settings.DTL = mode, mode
	// A crash is looked at within an operation, which then takes long.
	m.p.a.opts.DTL.Lost = hangLimit
	m.begun.Store(-1)
	o := newOracle(size)
	note := func() {
		m.states, m.held = append(m.states, append([]uint32(nil), o.cur...)), append(m.held, o.held)
	}
	for _, s := range steps {
		note()
		if s.special == "grow" {
			o.grow(s.n)
		}
		o.done(s)
	}
	note()
	a, b := m.p.a.mustStart(t), m.p.b.mustStart(t)
	a.create(m.id, size)
	v := a.open(m.id)
	for _, f := range []*blockfs.Mem{m.p.a.fs, m.p.b.fs, m.p.a.be} {
		f.SetHook(func(int64, blockfs.OpInfo) { m.hook() })
	}
	m.p.a.reg.setHook(m.hook)
	o = newOracle(size)
	for i, s := range steps {
		switch i % 50 {
		case 5:
			mustState(t, v, DTLOK)
			m.gone.Store(false)
		case 20: // the peer crashes and comes back, before it counts as lost
			m.p.net.set("node-b", nil)
			b.kill()
			b = m.p.b.mustStart(t)
		case 35: // it has the copy no more
			m.gone.Store(true)
			m.p.net.set("node-b", nil)
			if err := b.host.dtl.server.Discard(m.id); err != nil {
				t.Fatal(err)
			}
			b.kill()
			b = m.p.b.mustStart(t)
		}
		m.begun.Store(int64(i + 1))
		a, v = runStep(t, a, v, m.id, o, s)
		m.acked.Store(int64(i + 1))
		if m.fail != nil {
			t.Fatal(m.fail)
		}
	}
	if err := o.checkAll(v, false); err != nil {
		t.Fatal(err)
	}
	a.close()
	b.close()
	if m.fail != nil {
		t.Fatal(m.fail)
	}
	if !testing.Short() && (m.oks.Load() == 0 || m.others.Load() == 0) {
		t.Errorf("%d takeovers, %d refused: the test looks at one kind only", m.oks.Load(), m.others.Load())
	}
	t.Logf("%d steps, %d crash points, %d takeovers, %d refused", len(steps), m.checks.Load(), m.oks.Load(), m.others.Load())
}

// TestTakeOverLater: while a takeover waits for the end of the grant, the owner commits and
// the copy gives back what is on the backend: that is no damage.
func TestTakeOverLater(t *testing.T) {
	p := newPair(t, 28)
	id := testID(1)
	a, b, v := p.mirrored(t, id)
	mustWrite(t, v, 0, 1)
	mustCommit(t, v)
	mustWrite(t, v, 4096, 2)
	opened := make(chan error, 1)
	go func() {
		_, err := b.pool.Open(context.Background(), id)
		opened <- err
	}()
	select {
	case err := <-opened:
		t.Fatalf("taken over while its owner serves: %v", err)
	case <-time.After(300 * time.Millisecond): // it has read the record by now
	}
	mustCommit(t, v)
	mustWrite(t, v, 8192, 3)
	p.net.setCut(true)
	a.kill()
	p.late.leap(time.Minute)
	select {
	case err := <-opened:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(hangLimit):
		t.Fatal("not taken over")
	}
	for i := range uint32(3) {
		wantVersion(t, b.pool.Volume(id), int64(i)*4096, i+1)
	}
	b.close()
}
