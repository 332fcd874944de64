package remote_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/alba/asd/remote"
	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/alba/osd/osdtest"
	"github.com/openvstorage/ovgate/internal/clock"
)

// TestRestart: a server that came back between two calls is not noticed (R4).
func TestRestart(t *testing.T) {
	modes(t, func(t *testing.T, plain bool) {
		r := start(t, plain, osdtest.NewMem(deviceID))
		c := r.client()
		for range 5 {
			var calls sync.WaitGroup
			for range 4 { // several connections in the pool
				calls.Go(func() {
					if _, err := c.Info(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
			calls.Wait()
			r.stop()
			if _, err := c.Info(t.Context()); err == nil {
				t.Fatal("a call succeeded without a server")
			}
			r.serve()
		}
		if _, err := c.Info(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// TestAnotherDeviceMovesIn: D8 across a restart.
func TestAnotherDeviceMovesIn(t *testing.T) {
	r := start(t, true, osdtest.NewMem(deviceID))
	c := r.client()
	if err := set(t.Context(), c, "k", nil); err != nil {
		t.Fatal(err)
	}
	r.stop()
	m := osdtest.NewMem("newcomer")
	r.dev = m
	r.serve()
	mustBe(t, "set", set(t.Context(), c, "k", nil), osd.ErrIdentity)
	if m.Len() != 0 {
		t.Error("the other device was changed")
	}
}

// TestCancel: a call ends with its ctx although the device hangs, and its place in
// the pool is free again.
func TestCancel(t *testing.T) {
	modes(t, func(t *testing.T, plain bool) {
		g := newGate()
		r := start(t, plain, g, func(o *remote.ServerOptions) { o.CloseTime = 100 * time.Millisecond })
		c := r.client(func(o *remote.Options) { o.Connections = 1 })
		for range 3 {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- set(ctx, c, "k", make([]byte, 1<<20)) }()
			<-g.entered
			// A second call waits for the only connection.
			waiting, stop := context.WithCancel(t.Context())
			second := make(chan error, 1)
			go func() { second <- c.Read(waiting, []byte("k"), 0, nil, osd.High) }()
			stop()
			mustBe(t, "waiting call", <-second, context.Canceled)
			cancel()
			mustBe(t, "call", <-done, context.Canceled)
			if _, err := c.Info(t.Context()); err != nil {
				t.Fatalf("the pool is not free: %v", err)
			}
		}
	})
}

// TestDeadlineReachesDevice: the server ends a call whose caller is gone (R7).
func TestDeadlineReachesDevice(t *testing.T) {
	g := newGate()
	r := start(t, true, g, func(o *remote.ServerOptions) { o.HandshakeTime = 40 * time.Millisecond })
	c := r.client()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	err := set(ctx, c, "k", nil)
	mustBe(t, "call", err, context.DeadlineExceeded)
	select {
	case err := <-g.ctxs:
		mustBe(t, "device", err, context.Canceled)
	case <-time.After(testTime):
		t.Fatal("the device still works for nobody")
	}
}

// TestGracefulClose: Close lets a request finish and refuses the next.
func TestGracefulClose(t *testing.T) {
	modes(t, func(t *testing.T, plain bool) {
		g := newGate()
		r := start(t, plain, g)
		c := r.client()
		if _, err := c.Info(t.Context()); err != nil { // an idle connection
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- set(t.Context(), c, "k", []byte("v")) }()
		<-g.entered
		closed := make(chan struct{})
		go func() {
			r.stop()
			close(closed)
		}()
		wait(t, "no new connections", func() bool {
			conn, err := net.Dial("tcp", r.addr)
			if err == nil {
				conn.Close()
			}
			return err != nil
		})
		close(g.open)
		if err := <-done; err != nil {
			t.Errorf("running request: %v", err)
		}
		<-closed
		if g.Len() != 1 {
			t.Error("the request was not done")
		}
	})
}

// TestCloseBreaksOff: a device that does not answer is told to, and Close returns.
func TestCloseBreaksOff(t *testing.T) {
	g := newGate()
	r := start(t, true, g, func(o *remote.ServerOptions) { o.CloseTime = 30 * time.Millisecond })
	c := r.client()
	done := make(chan error, 1)
	go func() { done <- set(t.Context(), c, "k", nil) }()
	<-g.entered
	r.stop()
	if err := <-done; err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("the call returned %v", err)
	}
	mustBe(t, "device", <-g.ctxs, context.Canceled)
}

// TestClientClose: running and later calls return ErrClosed.
func TestClientClose(t *testing.T) {
	g := newGate()
	r := start(t, true, g, func(o *remote.ServerOptions) { o.CloseTime = 30 * time.Millisecond })
	c := r.client()
	done := make(chan error, 20)
	for range 20 { // more than connections
		go func() { done <- set(t.Context(), c, "k", nil) }()
	}
	for range 8 {
		<-g.entered
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		mustBe(t, "call", <-done, osd.ErrClosed)
	}
	_, err := c.Info(t.Context())
	mustBe(t, "after Close", err, osd.ErrClosed)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestPool: calls share connections, no more of them than allowed, and idle ones
// go away.
func TestPool(t *testing.T) {
	var open atomic.Int32
	k := clock.NewManual(time.Now())
	r := start(t, true, osdtest.NewMem(deviceID))
	c := r.client(func(o *remote.Options) {
		o.Connections, o.IdleTime, o.Clock = 3, time.Minute, k
		o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			open.Add(1)
			return dial(ctx, network, address)
		}
	})
	var calls sync.WaitGroup
	for range 50 {
		calls.Go(func() {
			if _, err := c.Stats(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	if n := open.Load(); n < 1 || n > 3 {
		t.Errorf("%d connections were opened", n)
	}
	if n := r.server.Status().Connections; n > 3 {
		t.Errorf("%d connections are open", n)
	}
	wait(t, "idle connections are closed", func() bool {
		k.Advance(31 * time.Second)
		return r.server.Status().Connections == 0
	})
	if _, err := c.Stats(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestConnectionLimit: the connection too many learns why.
func TestConnectionLimit(t *testing.T) {
	modes(t, func(t *testing.T, plain bool) {
		r := start(t, plain, osdtest.NewMem(deviceID), func(o *remote.ServerOptions) { o.Connections = 2 })
		a, b, c := r.client(), r.client(), r.client()
		for _, c := range []*remote.Client{a, b} {
			if _, err := c.Info(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		_, err := c.Info(t.Context())
		mustBe(t, "third", err, remote.ErrBusy)
		if n := r.server.Status().Refused; n != 1 {
			t.Errorf("%d refused", n)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		wait(t, "a place is free", func() bool { return r.server.Status().Connections == 1 })
		if _, err := c.Info(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// TestIdleServer: the server closes connections that ask nothing, by its clock.
func TestIdleServer(t *testing.T) {
	k := clock.NewManual(time.Now())
	r := start(t, true, osdtest.NewMem(deviceID), func(o *remote.ServerOptions) { o.Clock = k })
	c := r.client()
	if _, err := c.Info(t.Context()); err != nil {
		t.Fatal(err)
	}
	wait(t, "idle", func() bool {
		k.Advance(time.Minute)
		return r.server.Status().Connections == 0
	})
	if _, err := c.Info(t.Context()); err != nil {
		t.Fatalf("after the idle time: %v", err)
	}
}

// TestMemoryBound: requests wait for memory, and all are served.
func TestMemoryBound(t *testing.T) {
	const memory = 12 << 20 // ten for values: two of 4 MiB at once
	g := newGate()
	r := start(t, true, g, func(o *remote.ServerOptions) { o.Memory = memory })
	c := r.client()
	done := make(chan error, 8)
	for i := range 8 {
		go func() { done <- set(t.Context(), c, string(rune('a'+i)), make([]byte, 4<<20)) }()
	}
	<-g.entered
	<-g.entered
	wait(t, "the others wait", func() bool { return r.server.Status().Connections == 8 })
	if n := r.server.Status().Memory; n != 8<<20 {
		t.Errorf("%d bytes in use", n)
	}
	select {
	case <-g.entered:
		t.Error("a third one got memory")
	default:
	}
	close(g.open)
	for range 8 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	wait(t, "all is given back", func() bool { return r.server.Status().Memory == 0 })
	mustBe(t, "apply beyond the memory", set(t.Context(), c, "k", make([]byte, memory)), osd.ErrInvalid)
	p := make([]byte, memory)
	mustBe(t, "read beyond the memory", c.Read(t.Context(), []byte("a"), 0, p, osd.High), osd.ErrInvalid)
}

// failingListener fails with err on Accept.
type failingListener struct {
	net.Listener
	err error
}

func (l *failingListener) Accept() (net.Conn, error) {
	if err := l.err; err != nil {
		l.err = nil
		return nil, err
	}
	return l.Listener.Accept()
}

func TestServeErrors(t *testing.T) {
	r := start(t, true, osdtest.NewMem(deviceID))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	mustBe(t, "serve", r.server.Serve(&failingListener{l, broken}), broken)
	s := r.server
	r.stop()
	if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(l); err != nil {
		t.Errorf("serve after close: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestConcurrent mixes calls of all kinds with cancellations.
func TestConcurrent(t *testing.T) {
	modes(t, func(t *testing.T, plain bool) {
		r := start(t, plain, osdtest.NewMem(deviceID))
		c := r.client(func(o *remote.Options) { o.Connections = 4 })
		want := osdtest.Data(1, 60<<10)
		if err := set(t.Context(), c, "k", want); err != nil {
			t.Fatal(err)
		}
		var calls sync.WaitGroup
		for i := range 8 {
			calls.Go(func() {
				for j := range 20 {
					ctx, cancel := context.WithTimeout(t.Context(), testTime)
					if j%5 == 4 {
						time.AfterFunc(time.Duration(i*j)*time.Microsecond, cancel)
					}
					p := make([]byte, len(want))
					err := c.Read(ctx, []byte("k"), 0, p, osd.High)
					if err == nil && !slices.Equal(p, want) {
						t.Error("wrong bytes")
					}
					if err != nil && !errors.Is(err, context.Canceled) {
						t.Error(err)
					}
					cancel()
				}
			})
		}
		calls.Wait()
		wait(t, "memory is given back", func() bool { return r.server.Status().Memory == 0 })
	})
}
