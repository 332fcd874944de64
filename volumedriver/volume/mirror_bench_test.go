package volume

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/local"
)

// longConn is a connection over a link with a delay: what is written arrives that much later,
// and any amount may be on its way.
type longConn struct {
	net.Conn
	delay time.Duration
	queue chan parcel
	once  sync.Once
	done  chan struct{}
}

type parcel struct {
	due time.Time
	b   []byte
}

func newLongConn(c net.Conn, delay time.Duration) net.Conn {
	if delay == 0 {
		return c
	}
	l := &longConn{Conn: c, delay: delay, queue: make(chan parcel, 1<<16), done: make(chan struct{})}
	go func() {
		for {
			select {
			case p := <-l.queue:
				time.Sleep(time.Until(p.due))
				if _, err := c.Write(p.b); err != nil {
					return
				}
			case <-l.done:
				return
			}
		}
	}()
	return l
}

func (l *longConn) Write(p []byte) (int, error) {
	select {
	case l.queue <- parcel{time.Now().Add(l.delay), append([]byte(nil), p...)}:
		return len(p), nil
	case <-l.done:
		return 0, net.ErrClosed
	}
}

func (l *longConn) Close() error {
	l.once.Do(func() { close(l.done) })
	return l.Conn.Close()
}

// benchMirror is benchNode with a peer over TCP on loopback, behind a link whose round trip
// takes rtt; memory: the peer has its copies there.
func benchMirror(b *testing.B, size int64, mode DTLMode, memory bool, rtt time.Duration) *Volume {
	b.Helper()
	dir, err := os.MkdirTemp(os.Getenv("OVGATE_BENCH_DIR"), "ovgate-bench")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	ctx := context.Background()
	fsys := func(name string) blockfs.FS {
		if err := os.Mkdir(dir+"/"+name, 0o700); err != nil {
			b.Fatal(err)
		}
		f, err := blockfs.OS(dir + "/" + name)
		if err != nil {
			b.Fatal(err)
		}
		return f
	}
	st, err := local.Open(fsys("backend"), local.Options{})
	if err != nil {
		b.Fatal(err)
	}
	reg := newMemRegistry()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	none := func(context.Context, string) (net.Conn, error) { return nil, net.ErrClosed }
	peer := &DTLOptions{Cluster: "c", Dial: none, Peers: func(ID) []string { return nil }}
	if memory {
		peer.MemoryBytes = 512 << 20
	}
	pb, err := NewHost(ctx, HostOptions{FS: fsys("peer"), Registry: reg, Node: "peer", DTL: peer})
	if err != nil {
		b.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { _ = pb.ServeDTL(newLongConn(c, rtt/2), "") })
		}
	})
	dial := func(ctx context.Context, _ string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", l.Addr().String())
		if err != nil {
			return nil, err
		}
		return newLongConn(c, rtt/2), nil
	}
	h, err := NewHost(ctx, HostOptions{FS: fsys("local"), Registry: reg, Node: "bench",
		DTL: &DTLOptions{Cluster: "c", Dial: dial, Peers: func(ID) []string { return []string{"peer"} }}})
	if err != nil {
		b.Fatal(err)
	}
	p, err := h.AttachPool(ctx, PoolConfig{ClusterID: "c", ID: testPool, Name: "bench", Store: backend.Store(st),
		Settings: Settings{JournalQuota: MinQuota, CommitInterval: time.Second, DTL: mode}})
	if err != nil {
		b.Fatal(err)
	}
	id := testID(1)
	if err := p.Create(ctx, Spec{ID: id, Name: "bench", Size: size}); err != nil {
		b.Fatal(err)
	}
	v, err := p.Open(ctx, id)
	if err != nil {
		b.Fatal(err)
	}
	if mode != DTLModeOff {
		mustState(b, v, DTLOK)
	}
	b.Cleanup(func() {
		h.Close(ctx)
		pb.Close(ctx)
		l.Close()
		serving.Wait()
	})
	return v
}

// BenchmarkMirror: durable 4 KiB random writes, alone and with a copy on a peer, which is in
// this process, over TCP on loopback: both nodes' work is on the same processors and disk.
// cpu-us/op is what both take of the processors. The limit of a synchronous write is the
// slower of the two disks and the round trip.
func BenchmarkMirror(b *testing.B) {
	for _, c := range []struct {
		name   string
		mode   DTLMode
		memory bool
		rtt    time.Duration
	}{
		{"off", DTLModeOff, false, 0}, {"memory", DTLSync, true, 0}, {"file", DTLSync, false, 0},
		{"memory-10ms", DTLSync, true, 10 * time.Millisecond}, {"async-10ms", DTLAsync, true, 10 * time.Millisecond},
	} {
		for _, qd := range []int{1, 32} {
			b.Run(fmt.Sprintf("%s/qd%d", c.name, qd), func(b *testing.B) {
				v := benchMirror(b, 4<<30, c.mode, c.memory, c.rtt)
				b.SetBytes(4096)
				before := processorTime(b)
				b.ResetTimer()
				var wg sync.WaitGroup
				for w := range qd {
					wg.Go(func() {
						atRandom(b, w, (b.N+qd-1)/qd, 4<<30, func(p []byte, off int64) error { return v.WriteAt(context.Background(), p, off) })
					})
				}
				wg.Wait()
				b.StopTimer()
				b.ReportMetric(float64((processorTime(b)-before).Microseconds())/float64(b.N), "cpu-us/op")
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "IOPS")
				if s := v.Stats().DTL.State; c.mode != DTLModeOff && s != DTLOK {
					b.Errorf("the copy is %s", s)
				}
			})
		}
	}
}

// processorTime is what this process took.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
