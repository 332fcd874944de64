package dtl

import (
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/leaktest"
	"github.com/openvstorage/ovgate/volumedriver/journal"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// patience bounds waits; a test that needs all of it has failed.
const patience = 3 * time.Minute

const (
	testChunk   = journal.MinChunkBytes
	testCluster = 4096
)

var diskA, diskB = [16]byte{0xa0, 1, 2, 3, 4, 5, 0x46, 7, 0x88}, [16]byte{0xb0, 1, 2, 3, 4, 5, 0x46, 7, 0x88}

// lockedRand is a deterministic source of ids and generations.
type lockedRand struct {
	mu sync.Mutex
	r  *rand.ChaCha8
}

func newRand(seed byte) *lockedRand { return &lockedRand{r: rand.NewChaCha8([32]byte{seed})} }

func (r *lockedRand) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.r.Read(p)
}

func openPool(t testing.TB, fsys blockfs.FS, chunks int64, rnd io.Reader) *journal.Pool {
	t.Helper()
	p, err := journal.OpenPool(journal.PoolOptions{FS: fsys, Dir: "journal", ChunkBytes: testChunk, MaxBytes: chunks * testChunk, Rand: rnd})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// peer is a running server.
type peer struct {
	*Server
	fs   *blockfs.Mem
	pool *journal.Pool
	serv sync.WaitGroup
	// wrap, if set, stands between a client and the server.
	wrap func(net.Conn) net.Conn
}

func startPeer(t testing.TB, fsys *blockfs.Mem, k clock.Clock, seed byte, change func(*ServerOptions)) *peer {
	t.Helper()
	rnd := newRand(seed)
	p := &peer{fs: fsys, pool: openPool(t, fsys, 64, rnd)}
	o := ServerOptions{Cluster: "c1", Node: "node-2", FS: fsys, Dir: "dtl", Pool: p.pool, Clock: k, Rand: rnd}
	if change != nil {
		change(&o)
	}
	var err error
	if p.Server, err = NewServer(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	return p
}

func (p *peer) stop() {
	p.Close()
	p.serv.Wait()
}

// dial connects to the server in memory.
func (p *peer) dial(context.Context) (net.Conn, error) {
	a, b := net.Pipe()
	p.serv.Go(func() { _ = p.Serve(b, "") })
	if p.wrap != nil {
		return p.wrap(a), nil
	}
	return a, nil
}

func startClient(t testing.TB, k clock.Clock, node string, dial func(context.Context) (net.Conn, error)) *Client {
	t.Helper()
	c := NewClient(ClientOptions{Cluster: "c1", Node: node, Peer: "node-2", Dial: dial, Clock: k, Lost: 20 * time.Second})
	t.Cleanup(c.Close)
	return c
}

// mirror begins a copy and waits until the peer has begun it.
func mirror(t testing.TB, c *Client, vdisk [16]byte, epoch uint32, start uint64) *Mirror {
	t.Helper()
	m := c.Begin(vdisk, epoch, testCluster, start)
	if err := m.Await(context.Background(), start-1); err != nil {
		t.Fatal(err)
	}
	return m
}

// refused begins a copy and returns why the peer does not.
func refused(t testing.TB, c *Client, vdisk [16]byte, epoch uint32, start uint64) error {
	t.Helper()
	m := c.Begin(vdisk, epoch, testCluster, start)
	<-m.Done()
	_, err := m.Durable()
	return err
}

// armed is a clock that tells of the timers that are made.
type armed struct {
	*clock.Manual
	c chan time.Duration
}

func newArmed(k *clock.Manual) armed { return armed{k, make(chan time.Duration, 1024)} }

func (a armed) NewTimer(d time.Duration) clock.Timer {
	t := a.Manual.NewTimer(d)
	a.c <- d
	return t
}

// advance lets the time of short timers pass, one after the other, until done is closed.
func (a armed) advance(t testing.TB, done <-chan struct{}, check func()) {
	t.Helper()
	limit := time.After(patience)
	for {
		select {
		case <-done:
			return
		case d := <-a.c:
			check()
			if d <= maxBackoff {
				a.Advance(d)
			}
		case <-limit:
			t.Fatal("it does not end")
		}
	}
}

// source is the journal of an owner, whose records it mirrors.
type source struct {
	t   testing.TB
	log *journal.Log
}

func newSource(t testing.TB, vdisk [16]byte, epoch uint32, next uint64) *source {
	pool := openPool(t, blockfs.NewMem(), 64, newRand(99))
	return &source{t, journal.NewLog(journal.LogOptions{Pool: pool, VDisk: vdisk, Epoch: epoch, Cluster: testCluster, NextSeq: next,
		Memory: &journal.Memory{Max: 64 << 20}}, nil)}
}

// content is what record seq writes.
func content(seq uint64, clusters int) []byte {
	r := rand.NewPCG(seq, 7)
	b := make([]byte, 0, clusters*testCluster)
	for len(b) < clusters*testCluster {
		b = binary.LittleEndian.AppendUint64(b, r.Uint64())
	}
	return b
}

// record makes the next record, of one command.
func (s *source) record(clusters int) (frame []byte, last uint64) {
	s.t.Helper()
	seq := s.log.NextSeq()
	b := &journal.Batch{Seqs: 1, Time: int64(seq), Parts: [][]byte{content(seq, clusters)},
		Extents: []journal.Extent{{LBA: seq * 8, Length: uint64(clusters) * 8, Kind: journal.KindData}}}
	if !s.log.Fits(journal.RecordBytes(1, clusters, testCluster)) {
		if err := s.log.AwaitChunk(); err != nil {
			s.t.Fatal(err)
		}
	}
	var r journal.Record
	s.log.Build(b, &r)
	frame = append([]byte(nil), r.Bytes()...)
	s.log.Start(&r)
	if _, err := s.log.Finish(&r); err != nil {
		s.t.Fatal(err)
	}
	return frame, seq
}

// send mirrors n records.
func (s *source) send(m *Mirror, n, clusters int) uint64 {
	s.t.Helper()
	var last uint64
	for range n {
		var frame []byte
		frame, last = s.record(clusters)
		if err := m.Append(context.Background(), frame, last); err != nil {
			s.t.Fatal(err)
		}
	}
	return last
}

// wait waits until the peer holds all up to seq, or the mirror ends.
func wait(t testing.TB, m *Mirror, seq uint64) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := m.Await(ctx, seq)
	if ctx.Err() != nil {
		at, _ := m.Durable()
		t.Fatalf("durable up to %d, want %d", at, seq)
	}
	return err
}

func mustWait(t testing.TB, m *Mirror, seq uint64) {
	t.Helper()
	if err := wait(t, m, seq); err != nil {
		t.Fatal(err)
	}
}

// wantTail checks that a pool holds exactly the seqs from to last, one command each.
func wantTail(t testing.TB, p *journal.Pool, vdisk [16]byte, from, last uint64) {
	t.Helper()
	r, err := journal.Recover(p, vdisk, from, func(uint32, uint64, uint64) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	defer r.Abandon()
	if r.LastSeq != last || uint64(len(r.Tail)) != last-from+1 {
		t.Fatalf("the copy ends at seq %d with %d records, want %d with %d", r.LastSeq, len(r.Tail), last, last-from+1)
	}
	for i, f := range r.Tail {
		if f.Header.Seq != from+uint64(i) || f.Header.Extents[0].LBA != f.Header.Seq*8 {
			t.Fatalf("record %d is of seq %d at lba %d", i, f.Header.Seq, f.Header.Extents[0].LBA)
		}
	}
}
