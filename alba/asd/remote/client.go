package remote

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/wire"
)

// maxWait bounds the time that a request says its caller has.
const maxWait = 24 * time.Hour

// Options configure a Client. Address, Key, Dial, Clock and Rand must be set, and
// Fingerprint unless TLS or Plain is; for the rest zero means the default named.
type Options struct {
	Address string // host:port of the server
	// ID is the identity that the device must have (ErrIdentity); "" takes any, to
	// find out which device answers at an address (Info).
	ID string
	// Key is the device's access key, KeyBytes long.
	Key []byte
	// Fingerprint is that of the server's certificate (NewCertificate), which is
	// trusted for nothing else.
	Fingerprint string
	// TLS, if set, is how the server is known in place of Fingerprint: its VerifyConnection
	// decides, and a certificate of the caller's may go to the server.
	TLS *tls.Config
	// Plain leaves TLS out, as the server must too.
	Plain bool
	// Clear leaves TLS once each has shown who it is, if the server does so too (ServerOptions).
	Clear bool

	// Dial connects, and returns soon after ctx ends: net.Dialer.DialContext.
	Dial  func(ctx context.Context, network, address string) (net.Conn, error)
	Clock clock.Clock // deadlines of callers are compared with it
	Rand  io.Reader   // crypto/rand.Reader, but for tests

	// Connections bounds the pool (8), and with it the calls that run at once; more
	// wait for one of them, or for their ctx.
	Connections int
	// IdleTime is after what time an unused connection is closed (1 min; less
	// than the server's).
	IdleTime time.Duration
	// ConnectTime bounds connecting and the handshake (10 s), within the caller's ctx.
	ConnectTime time.Duration
}

func (o Options) withDefaults() (Options, error) {
	set(&o.Connections, 8)
	set(&o.IdleTime, time.Minute)
	set(&o.ConnectTime, 10*time.Second)
	switch {
	case o.Address == "":
		return o, errors.New("remote: client: Options.Address must be set")
	case len(o.Key) != KeyBytes:
		return o, fmt.Errorf("remote: client of %s: the access key has %d bytes, it takes %d", o.Address, len(o.Key), KeyBytes)
	case o.Dial == nil || o.Clock == nil || o.Rand == nil:
		return o, fmt.Errorf("remote: client of %s: Options.Dial, Clock and Rand must be set", o.Address)
	case o.Plain, o.TLS != nil:
		return o, nil
	}
	var err error
	if o.Fingerprint, err = parseFingerprint(o.Fingerprint); err != nil {
		return o, fmt.Errorf("remote: client of %s: %w", o.Address, err)
	}
	return o, nil
}

// Client is a device that a Server serves. It connects when it is used, and keeps
// connections for the next call.
type Client struct {
	o    Options
	what string // names the device in errors
	tls  *tls.Config

	slots  chan struct{} // one for each connection that may exist in a call
	done   chan struct{} // closed by Close
	reaper sync.WaitGroup

	mu     sync.Mutex
	closed bool
	idle   []*clientConn // the last used one last
	live   map[*clientConn]struct{}
}

var (
	_ osd.OSD    = (*Client)(nil)
	_ osd.Prompt = (*Client)(nil)
)

// Prompt implements osd.Prompt: the end of a call's ctx closes its connection.
func (c *Client) Prompt() bool { return true }

// New returns a client; nothing is connected yet. Close it to end its goroutine.
func New(o Options) (*Client, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Client{
		o: o, what: fmt.Sprintf("remote: device %s at %s", o.ID, o.Address),
		slots: make(chan struct{}, o.Connections), done: make(chan struct{}), live: map[*clientConn]struct{}{},
	}
	c.o.Key = bytes.Clone(o.Key)
	if o.ID == "" {
		c.what = "remote: device at " + o.Address
	}
	if !o.Plain {
		c.tls = clientTLS(&o)
	}
	c.reaper.Go(c.reap)
	return c, nil
}

// clientConn is a connection of the pool; one call uses it at a time.
type clientConn struct {
	raw   net.Conn
	w     *wire.Conn
	clock clock.Clock
	e     wire.Encoder
	kill  func() // closes raw
	whole bool   // the reply was read to its end (R3)
	sums  bool   // replies carry checksums, and TLS does not protect them
	since time.Time

	peek   syscall.RawConn // nil where the connection is no socket
	look   func(fd uintptr) bool
	silent bool // what look found
	byte   byte // what look saw
}

func newClientConn(raw net.Conn, k clock.Clock) *clientConn {
	cc := &clientConn{raw: raw, clock: k, kill: func() { _ = raw.Close() }}
	if sc, ok := raw.(syscall.Conn); ok {
		if rc, err := sc.SyscallConn(); err == nil {
			cc.peek = rc
		}
	}
	cc.look = func(fd uintptr) bool {
		// It does not wait, so the scheduler need not know of it.
		_, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&cc.byte)), 1, syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
		cc.silent = errno == syscall.EAGAIN
		return true
	}
	return cc
}

// usable tells whether an idle connection is still open: there is nothing to read
// on one, not even its end (R4).
func (cc *clientConn) usable() bool {
	if cc.peek == nil {
		return true
	}
	cc.silent = false
	return cc.peek.Read(cc.look) == nil && cc.silent
}

// call runs f, which sends a request and reads its reply, on a connection.
func (c *Client) call(ctx context.Context, op string, f func(cc *clientConn) error) error {
	cc, err := c.acquire(ctx)
	if err != nil {
		return c.wrap(ctx, op, err)
	}
	stop := func() bool { return true }
	if ctx.Done() != nil {
		stop = context.AfterFunc(ctx, cc.kill)
	}
	cc.whole = false
	err = f(cc)
	intact := stop() && cc.whole
	c.release(cc, intact)
	if err != nil {
		return c.wrap(ctx, op, err)
	}
	return nil
}

// wrap names the device and says what ended a call that was broken off.
func (c *Client) wrap(ctx context.Context, op string, err error) error {
	var d *deviceError
	switch {
	case errors.As(err, &d): // an answer, which counts even when it came late
	case ctx.Err() != nil:
		err = ctx.Err()
	case c.isClosed():
		err = osd.ErrClosed
	}
	return fmt.Errorf("%s: %s: %w", c.what, op, err)
}

func (c *Client) isClosed() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// acquire returns a connection that belongs to the caller until release.
func (c *Client) acquire(ctx context.Context) (*clientConn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case c.slots <- struct{}{}:
	default:
		select {
		case c.slots <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-c.done:
			return nil, osd.ErrClosed
		}
	}
	cc := c.takeIdle()
	var err error
	switch {
	case c.isClosed():
		err = osd.ErrClosed
	case cc == nil:
		cc, err = c.connect(ctx)
	}
	if err != nil {
		<-c.slots
	}
	return cc, err
}

// takeIdle returns the connection that was used last and is still good, or nil.
func (c *Client) takeIdle() *clientConn {
	for {
		c.mu.Lock()
		n := len(c.idle)
		if n == 0 {
			c.mu.Unlock()
			return nil
		}
		cc := c.idle[n-1]
		c.idle[n-1] = nil
		c.idle = c.idle[:n-1]
		c.mu.Unlock()
		if cc.usable() {
			return cc
		}
		c.drop(cc)
	}
}

func (c *Client) drop(cc *clientConn) {
	cc.kill()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.live, cc)
}

// release gives a connection back; one that is not intact is closed.
func (c *Client) release(cc *clientConn, intact bool) {
	if intact {
		cc.since = c.o.Clock.Now()
		c.mu.Lock()
		if intact = !c.closed; intact {
			c.idle = append(c.idle, cc)
		}
		c.mu.Unlock()
	}
	if !intact {
		c.drop(cc)
	}
	<-c.slots
}

// add makes a new connection known to Close.
func (c *Client) add(cc *clientConn) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return osd.ErrClosed
	}
	c.live[cc] = struct{}{}
	return nil
}

// reap closes connections that nobody used for IdleTime.
func (c *Client) reap() {
	t := c.o.Clock.NewTimer(c.o.IdleTime / 2)
	defer t.Stop()
	for {
		select {
		case <-t.C():
		case <-c.done:
			return
		}
		oldest := c.o.Clock.Now().Add(-c.o.IdleTime)
		c.mu.Lock()
		n := 0
		for n < len(c.idle) && c.idle[n].since.Before(oldest) {
			n++
		}
		old := append([]*clientConn(nil), c.idle[:n]...)
		c.idle = append(c.idle[:0], c.idle[n:]...)
		c.mu.Unlock()
		for _, cc := range old {
			c.drop(cc)
		}
		t.Reset(c.o.IdleTime / 2)
	}
}

// Close breaks off running calls, which return ErrClosed as later ones do, and
// returns when they did. The device itself goes on.
func (c *Client) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	close(c.done)
	c.idle = nil
	for cc := range c.live {
		cc.kill()
	}
	c.mu.Unlock()
	for range c.o.Connections {
		c.slots <- struct{}{} // each call gives its back
	}
	c.reaper.Wait()
	return nil
}

// connect opens a connection and proves the key on it.
func (c *Client) connect(ctx context.Context) (_ *clientConn, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t := c.o.Clock.NewTimer(c.o.ConnectTime)
	defer t.Stop()
	go func() {
		select {
		case <-t.C():
			cancel(fmt.Errorf("no answer within %v: check that the ASD runs and that its address is right", c.o.ConnectTime))
		case <-c.done:
			cancel(osd.ErrClosed)
		case <-ctx.Done():
		}
	}()
	raw, err := c.o.Dial(ctx, "tcp", c.o.Address)
	if err != nil {
		return nil, c.connectError(ctx, fmt.Errorf("%w: check that the ASD runs and that its address is right", err))
	}
	cc := newClientConn(raw, c.o.Clock)
	stop := context.AfterFunc(ctx, cc.kill)
	err = c.open(ctx, cc)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		err = c.add(cc)
	}
	if err != nil {
		cc.kill()
		return nil, c.connectError(ctx, err)
	}
	return cc, nil
}

// connectError says why ctx ended, where that is what broke the connection.
func (c *Client) connectError(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	} else if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
		// Dial sets ctx's deadline on the socket, which may notice it first.
		err = fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
	}
	return fmt.Errorf("connect: %w", err)
}

// open is the client's side of a connection's beginning (R1, R2).
func (c *Client) open(ctx context.Context, cc *clientConn) error {
	id, err := c.introduce(ctx, cc)
	var d *deviceError
	switch {
	case errors.As(err, &d), errors.Is(err, osd.ErrAuth), errors.Is(err, osd.ErrIdentity), errors.Is(err, wire.ErrVersion):
		return err // says what to do
	case err != nil:
		return fmt.Errorf("handshake: %w: check that an ASD listens there, and that both sides use TLS or neither", err)
	case c.o.ID != "" && id != c.o.ID:
		return fmt.Errorf("%w: %s answers, expected %s: correct the address of one of them", osd.ErrIdentity, id, c.o.ID)
	}
	cc.w.SetLimits(replyLimits)
	return nil
}

// introduce proves the key to the server, which proves it too, and returns the
// device's identity.
func (c *Client) introduce(ctx context.Context, cc *clientConn) (string, error) {
	h := handshake{key: c.o.Key, t: transcript{mode: mode(c.o.Plain)}}
	over := cc.raw
	if !c.o.Plain {
		t, err := wire.Secure(ctx, cc.raw, c.tls, false)
		if err != nil {
			return "", fmt.Errorf("TLS: %w", err)
		}
		if err := h.over(t); err != nil {
			return "", err
		}
		over = t
	}
	cc.sums = h.t.mode != modeTLS
	cc.w = wire.NewConn(over, protocol, handshakeLimits)
	h.w = cc.w
	return h.introduce(c.o.Rand)
}
