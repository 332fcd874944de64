package dtl

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/volumedriver/journal"
)

// adopted takes a vDisk over and checks its tail.
func wantAdopted(t *testing.T, p *peer, vdisk [16]byte, gen, from, last uint64) {
	t.Helper()
	a, err := p.Adopt(context.Background(), vdisk, gen)
	if err != nil {
		t.Fatal(err)
	}
	if a.Pool != p.pool.ID() || a.Generation != gen {
		t.Fatalf("adopted %+v", a)
	}
	wantTail(t, p.pool, vdisk, from, last)
}

// TestMirror: two vDisks over one connection; all that was answered is found by a
// takeover, what was released frees its chunks.
func TestMirror(t *testing.T) {
	p := startPeer(t, blockfs.NewMem(), clock.Real{}, 1, nil)
	c := startClient(t, clock.Real{}, "node-1", p.dial)
	a, b := mirror(t, c, diskA, 3, 101), mirror(t, c, diskB, 1, 1)
	sa, sb := newSource(t, diskA, 3, 101), newSource(t, diskB, 1, 1)
	for range 10 {
		sa.send(a, 7, 5)
		sb.send(b, 3, 1)
	}
	mustWait(t, a, 170)
	mustWait(t, b, 30)
	if now := (clock.Real{}).Now(); !a.Granted(now) || !b.Granted(now) {
		t.Fatal("no grant right after an answer")
	}
	held, before := p.used(), p.Used(diskB)
	a.Release(150)
	more := sa.send(a, 1, 1)
	mustWait(t, a, more)
	// diskA was used after diskB.
	if at := p.Used(diskA); !at.After(before) || before.IsZero() || !p.Used(diskB).Equal(before) {
		t.Fatalf("used at %v and, before that, at %v", at, before)
	}
	if p.used() >= held {
		t.Fatalf("%d bytes held after the release, %d before", p.used(), held)
	}
	c.Close()
	if _, err := p.Adopt(context.Background(), diskA, a.Generation()+1); !errors.Is(err, ErrGeneration) {
		t.Fatalf("a copy of another generation is adopted: %v", err)
	}
	wantAdopted(t, p, diskA, a.Generation(), 151, 171)
	wantAdopted(t, p, diskB, b.Generation(), 1, 30)
	if err := p.Discard(diskA); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Adopt(context.Background(), diskA, a.Generation()); !errors.Is(err, ErrGeneration) {
		t.Fatalf("adopted after the discard: %v", err)
	}
	if at := p.Used(diskA); !at.IsZero() {
		t.Fatalf("a copy that is gone was used at %v", at)
	}
}

func (s *Server) used() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes
}

// cutConn breaks after so many bytes were written or read.
type cutConn struct {
	net.Conn
	mu   sync.Mutex
	left int
}

func (c *cutConn) spend(n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left -= n
	return c.left < 0
}

func (c *cutConn) Write(p []byte) (int, error) {
	if c.spend(len(p)) {
		n, _ := c.Conn.Write(p[:len(p)/2])
		c.Close()
		return n, net.ErrClosed
	}
	return c.Conn.Write(p)
}

func (c *cutConn) Read(p []byte) (int, error) {
	if c.spend(0) {
		c.Close()
		return 0, net.ErrClosed
	}
	n, err := c.Conn.Read(p[:min(len(p), 40)])
	if c.spend(n) {
		c.Close()
		return 0, net.ErrClosed // the answer is lost, not what it answers
	}
	return n, err
}

// TestCutConnection: the connection breaks within any frame, requests and answers are
// lost, and records sent again; the copy has each once, in order (D2).
func TestCutConnection(t *testing.T) {
	for _, step := range []int{130, 700, 9001, 30011} {
		t.Run(fmt.Sprint(step), func(t *testing.T) {
			p := startPeer(t, blockfs.NewMem(), clock.Real{}, 1, nil)
			var mu sync.Mutex
			cuts := 0
			p.wrap = func(n net.Conn) net.Conn {
				mu.Lock()
				defer mu.Unlock()
				if cuts++; cuts == 1 || cuts > 12 {
					return &cutConn{Conn: n, left: 100000}
				}
				return &cutConn{Conn: n, left: cuts * step}
			}
			c := startClient(t, clock.Real{}, "node-1", p.dial)
			m := mirror(t, c, diskA, 1, 1)
			s := newSource(t, diskA, 1, 1)
			last := s.send(m, 60, 2)
			mustWait(t, m, last)
			c.Close()
			if mu.Lock(); cuts < 2 {
				t.Errorf("%d connections", cuts)
			}
			mu.Unlock()
			p.stop()
			wantTail(t, p.pool, diskA, 1, last)
		})
	}
}

// TestRestart: a server that crashed has what it answered, under the same generation, and
// the client goes on; one whose chunks are gone never tells that generation (D1).
func TestRestart(t *testing.T) {
	fsys := blockfs.NewMem()
	p := startPeer(t, fsys, clock.Real{}, 1, nil)
	var mu sync.Mutex
	cur := p
	dial := func(ctx context.Context) (net.Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		if cur == nil {
			return nil, net.ErrClosed
		}
		return cur.dial(ctx)
	}
	set := func(q *peer) { mu.Lock(); defer mu.Unlock(); cur = q }
	c := startClient(t, clock.Real{}, "node-1", dial)
	m := mirror(t, c, diskA, 1, 1)
	s := newSource(t, diskA, 1, 1)
	mustWait(t, m, s.send(m, 100, 3))
	m.Release(60)
	mustWait(t, m, s.send(m, 1, 3))
	set(nil)
	after := fsys.Crash(blockfs.CrashConfig{Unsynced: blockfs.DropAll})
	p.stop()
	last := s.send(m, 5, 1) // while the peer is away
	q := startPeer(t, after, clock.Real{}, 2, nil)
	set(q)
	mustWait(t, m, last)
	set(nil)
	gone := after.Crash(blockfs.CrashConfig{Unsynced: blockfs.DropAll})
	q.stop()
	list, err := gone.List("journal")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if err := gone.Remove("journal/" + e.Name); err != nil {
			t.Fatal(err)
		}
	}
	r := startPeer(t, gone, clock.Real{}, 3, nil)
	set(r)
	next, seq := s.record(1)
	if err := m.Append(context.Background(), next, seq); err != nil && !errors.Is(err, ErrGeneration) {
		t.Fatal(err)
	}
	if err := wait(t, m, seq); !errors.Is(err, ErrGeneration) {
		t.Fatalf("the copy that lost its chunks goes on: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := r.Adopt(ctx, diskA, m.Generation()); !errors.Is(err, ErrGeneration) {
		t.Fatalf("the copy that lost its chunks is adopted: %v", err)
	}
}

// TestTwice: a record that comes again is answered again, and kept once (D2).
func TestTwice(t *testing.T) {
	p := startPeer(t, blockfs.NewMem(), clock.Real{}, 1, nil)
	c := startClient(t, clock.Real{}, "node-1", p.dial)
	m := mirror(t, c, diskA, 1, 1)
	s := newSource(t, diskA, 1, 1)
	frame, seq := s.record(2)
	for range 2 {
		if err := m.Append(context.Background(), frame, seq); err != nil {
			t.Fatal(err)
		}
	}
	last := s.send(m, 1, 1)
	mustWait(t, m, last)
	c.Close()
	p.stop()
	wantTail(t, p.pool, diskA, 1, last)
}

// TestFull: a copy above its bound is refused, and others go on (D8).
func TestFull(t *testing.T) {
	p := startPeer(t, blockfs.NewMem(), clock.Real{}, 1, func(o *ServerOptions) { o.MaxVDiskBytes = 2 * testChunk })
	c := startClient(t, clock.Real{}, "node-1", p.dial)
	a, b := mirror(t, c, diskA, 1, 1), mirror(t, c, diskB, 1, 1)
	sa, sb := newSource(t, diskA, 1, 1), newSource(t, diskB, 1, 1)
	for range 20 {
		frame, last := sa.record(10)
		if a.Append(context.Background(), frame, last) != nil {
			break
		}
	}
	if err := wait(t, a, 20); !errors.Is(err, ErrFull) {
		t.Fatalf("820 KiB in a copy of 512 KiB: %v", err)
	}
	mustWait(t, b, sb.send(b, 10, 1))
	// Released and begun anew, there is room again.
	a = mirror(t, c, diskA, 1, sa.log.NextSeq())
	mustWait(t, a, sa.send(a, 3, 10))
}

// TestFence: a higher epoch is let in only when the grant of the node before is over, which
// then can neither append nor believe that it may serve (D3, D4).
func TestFence(t *testing.T) {
	k := clock.NewManual(time.Unix(1e9, 0))
	p := startPeer(t, blockfs.NewMem(), k, 1, nil)
	k.Advance(hold) // grants of before a restart are over
	k1 := newArmed(k)
	one, three := startClient(t, k1, "node-1", p.dial), startClient(t, k, "node-3", p.dial)
	m := mirror(t, one, diskA, 5, 1)
	s := newSource(t, diskA, 5, 1)
	mustWait(t, m, s.send(m, 4, 1))
	mirror(t, three, diskB, 1, 1)
	if err := refused(t, three, diskA, 6, 5); !errors.Is(err, ErrGranted) {
		t.Fatalf("epoch 6 while node-1 has a grant: %v", err)
	}
	if err := refused(t, three, diskA, 4, 5); !errors.Is(err, ErrFenced) {
		t.Fatalf("epoch 4 after 5: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := p.Adopt(ctx, diskA, m.Generation()); !errors.Is(err, ErrGranted) {
		t.Fatalf("adopted while node-1 has a grant: %v", err)
	}
	// Node-1 stands still: its clock goes on, nothing of it arrives.
	gen := m.Generation()
	one.mu.Lock()
	k.Advance(hold)
	now := k.Now()
	if granted := *m.on.Load().granted.Load(); now.Before(granted) {
		t.Fatalf("the grant ends at %v, and the peer lets others in at %v", granted, now)
	}
	a, err := p.Adopt(context.Background(), diskA, gen)
	one.mu.Unlock()
	if err != nil || a.Node != "node-1" || a.Epoch != 5 {
		t.Fatalf("%+v, %v", a, err)
	}
	frame, last := s.record(1)
	if err := m.Append(context.Background(), frame, last); err != nil && !errors.Is(err, ErrFenced) {
		t.Fatal(err)
	}
	k1.advance(t, m.Done(), func() { // its client connects again, by the same clock
		if m.Granted(k.Now()) {
			t.Fatal("a fenced owner has a grant")
		}
	})
	if _, err := m.Durable(); !errors.Is(err, ErrFenced) {
		t.Fatalf("the owner before: %v", err)
	}
	wantTail(t, p.pool, diskA, 1, 4)
}

// TestTakenFromAsking: a node that goes on asking keeps its grant, unless it may serve nothing
// any more, as one that lost the registry alone. It is let in again later.
func TestTakenFromAsking(t *testing.T) { synctest.Test(t, takenFromAsking) }

func takenFromAsking(t *testing.T) {
	var gone atomic.Bool
	p := startPeer(t, blockfs.NewMem(), clock.Real{}, 1, func(o *ServerOptions) {
		o.Gone = func(_ context.Context, node string) bool { return node == "node-1" && gone.Load() }
	})
	c := startClient(t, clock.Real{}, "node-1", p.dial)
	a, b := mirror(t, c, diskA, 5, 1), mirror(t, c, diskB, 5, 1)
	sa, sb := newSource(t, diskA, 5, 1), newSource(t, diskB, 5, 1)
	mustWait(t, a, sa.send(a, 5, 1))
	mustWait(t, b, sb.send(b, 5, 1))
	ctx, cancel := context.WithTimeout(t.Context(), hold+hold/4)
	defer cancel()
	if _, err := p.Adopt(ctx, diskA, a.Generation()); !errors.Is(err, ErrGranted) {
		t.Fatalf("adopted from a node that may serve: %v", err)
	}
	gone.Store(true)
	began := time.Now()
	wantAdopted(t, p, diskA, a.Generation(), 1, 5)
	if took := time.Since(began); took > 2*hold {
		t.Errorf("the takeover took %v, the grant lasts %v", took, Grant)
	}
	if now := time.Now(); a.Granted(now) || b.Granted(now) {
		t.Error("the node that it was taken from has a grant")
	}
	began = time.Now()
	wantAdopted(t, p, diskB, b.Generation(), 1, 5)
	if took := time.Since(began); took > hold/2 {
		t.Errorf("the takeover of another vdisk waited for %v, and nothing was granted meanwhile", took)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 10*hold)
	defer cancel()
	next := mirror(t, startClient(t, clock.Real{}, "node-1", p.dial), [16]byte{9}, 1, 1)
	if err := next.Await(ctx, 0); err != nil {
		t.Errorf("the node is not let in again: %v", err)
	}
}

// TestRefused: other clusters, other nodes and the node itself are refused.
func TestRefused(t *testing.T) {
	p := startPeer(t, blockfs.NewMem(), clock.Real{}, 1, nil)
	for _, h := range []hello{{"c2", "node-1", "node-2"}, {"c1", "node-1", "node-3"}, {"c1", "node-2", "node-2"}, {"c1", "", "node-2"}} {
		a, b := net.Pipe()
		done := make(chan error, 1)
		go func() { done <- p.Serve(b, "") }()
		l := &link{raw: a, conn: newConn(a)}
		if err := l.hello(h); !errors.Is(err, ErrRefused) {
			t.Errorf("%+v: %v", h, err)
		}
		a.Close()
		if err := <-done; !errors.Is(err, ErrRefused) {
			t.Errorf("%+v: the server says %v", h, err)
		}
	}
}

// TestOwnJournal: a copy leaves alone what this node has of the vDisk in a journal of its
// own, also when both are there at once and the node restarts (D6).
func TestOwnJournal(t *testing.T) {
	fsys := blockfs.NewMem()
	p := startPeer(t, fsys, clock.Real{}, 1, nil)
	c := startClient(t, clock.Real{}, "node-1", p.dial)
	m := mirror(t, c, diskA, 5, 1)
	s := newSource(t, diskA, 5, 1)
	mustWait(t, m, s.send(m, 4, 1))
	own := &source{t, journal.NewLog(journal.LogOptions{Pool: p.pool, VDisk: diskA, Epoch: 6, Cluster: testCluster, NextSeq: 5}, nil)}
	for range 3 {
		own.record(1)
	}
	c.Close()
	after := fsys.Crash(blockfs.CrashConfig{Unsynced: blockfs.DropAll})
	p.stop()
	own.log.Close()
	q := startPeer(t, after, clock.Real{}, 2, nil)
	wantTail(t, q.pool, diskA, 5, 7)
	d := startClient(t, clock.Real{}, "node-1", q.dial)
	if err := refused(t, d, diskA, 5, 5); !errors.Is(err, ErrFenced) {
		t.Errorf("a copy of epoch 5 beside a journal of epoch 6: %v", err)
	}
	wantTail(t, q.pool, diskA, 5, 7)
	mirror(t, d, diskA, 7, 8)
	wantTail(t, q.pool, diskA, 5, 7)
}

// TestYield: a vDisk that its node yielded is taken over at once, and the other vDisks of
// that node do not notice. The mirror that was ended is not gone on with (D4).
func TestYield(t *testing.T) {
	k := clock.NewManual(time.Unix(1e9, 0))
	p := startPeer(t, blockfs.NewMem(), k, 1, nil)
	c := startClient(t, k, "node-1", p.dial)
	a, b := mirror(t, c, diskA, 3, 1), mirror(t, c, diskB, 1, 1)
	sa, sb := newSource(t, diskA, 3, 1), newSource(t, diskB, 1, 1)
	mustWait(t, a, sa.send(a, 5, 1))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := p.Adopt(ctx, diskA, a.Generation()); !errors.Is(err, ErrGranted) {
		t.Fatalf("adopted with a grant: %v", err)
	}
	if err := a.Yield(context.Background()); err != nil {
		t.Fatal(err)
	}
	frame, last := sa.record(1)
	if err := a.Append(context.Background(), frame, last); !errors.Is(err, ErrClosed) || a.Granted(k.Now()) {
		t.Fatalf("append after the yield: %v", err)
	}
	wantAdopted(t, p, diskA, a.Generation(), 1, 5)
	mustWait(t, b, sb.send(b, 5, 1))
	if !b.Granted(k.Now()) {
		t.Error("the other vdisk has no grant")
	}
}

// TestIdleAndBusy: a copy that is promised when it is idle, and goes on after that for more
// than a piece of memory, stays whole; nothing of it stays in memory.
func TestIdleAndBusy(t *testing.T) {
	fsys := blockfs.NewMem()
	p := startPeer(t, fsys, clock.Real{}, 1, func(o *ServerOptions) {
		var err error
		o.Pool, err = journal.OpenPool(journal.PoolOptions{FS: fsys, Dir: "large", ChunkBytes: 16 << 20, MaxBytes: 64 << 20, Rand: o.Rand})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { o.Pool.Close() })
	})
	c := startClient(t, clock.Real{}, "node-1", p.dial)
	m := mirror(t, c, diskA, 1, 1)
	s := &source{t, journal.NewLog(journal.LogOptions{Pool: openPool(t, blockfs.NewMem(), 256, newRand(9)), VDisk: diskA, Epoch: 1, Cluster: testCluster, NextSeq: 1}, nil)}
	unpromised := func() bool {
		k := p.copies[diskA]
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.log.Unpromised()
	}
	var last uint64
	for range 4 {
		last = s.send(m, 30, 12) // 1.5 MiB
		mustWait(t, m, last)
		limit := time.After(patience)
		for unpromised() {
			select {
			case <-limit:
				t.Fatal("an idle copy is not promised")
			case <-time.After(time.Millisecond):
			}
		}
	}
	c.Close()
	p.stop()
	wantTail(t, p.o.Pool, diskA, 1, last)
}

// TestLostChunk: a copy whose newest chunk is gone after a restart is given up, though what
// is left of it looks whole (D1); one that needs none is kept.
func TestLostChunk(t *testing.T) {
	for name, released := range map[string]bool{"needed": false, "released": true} {
		t.Run(name, func(t *testing.T) {
			fsys := blockfs.NewMem()
			p := startPeer(t, fsys, clock.Real{}, 1, nil)
			c := startClient(t, clock.Real{}, "node-1", p.dial)
			m := mirror(t, c, diskA, 1, 1)
			s := newSource(t, diskA, 1, 1)
			last := s.send(m, 60, 2) // into a second chunk
			mustWait(t, m, last)
			if released {
				m.Release(last)
				if err := c.settled(m); err != nil {
					t.Fatal(err)
				}
			}
			c.Close()
			after := fsys.Crash(blockfs.CrashConfig{Unsynced: blockfs.DropAll})
			p.stop()
			list, err := after.List("journal")
			if err != nil {
				t.Fatal(err)
			}
			newest := ""
			for _, e := range list { // chunks are numbered
				if e.Size == testChunk {
					b := make([]byte, 4096)
					f, err := after.Open("journal/"+e.Name, 0)
					if err != nil {
						t.Fatal(err)
					}
					if _, err := f.ReadAt(b, 0); err != nil {
						t.Fatal(err)
					}
					f.Close()
					if b[0] != 0 {
						newest = e.Name
					}
				}
			}
			if err := after.Remove("journal/" + newest); err != nil {
				t.Fatal(err)
			}
			q := startPeer(t, after, clock.Real{}, 2, nil)
			if q.Has(diskA) != released {
				t.Errorf("without %s the copy is there: %v", newest, q.Has(diskA))
			}
		})
	}
}

// settled returns when the peer has done what was asked for before.
func (c *Client) settled(m *Mirror) error {
	a, err := c.call(context.Background(), &call{typ: typeResume, req: m.request(0), reply: make(chan answer, 1)})
	if err == nil {
		err = a.err()
	}
	return err
}
