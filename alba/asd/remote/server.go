package remote

import (
	"bytes"
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/internal/clock"
)

// ServerOptions configure a Server. Key, Clock and Rand must be set, and
// Certificate unless TLS or Plain is; for the rest zero means the default named.
type ServerOptions struct {
	// Key is the access key, KeyBytes long, that clients must know too.
	Key []byte
	// Certificate is the device's, kept by the caller (NewCertificate,
	// tls.X509KeyPair): clients pin it, so a new one shuts them out.
	Certificate tls.Certificate
	// TLS, if set, is used in place of Certificate: whom it does not let in does not get to
	// prove the key.
	TLS *tls.Config
	// Plain leaves TLS out: anyone on the way can read and change everything. For
	// tests and benchmarks on loopback.
	Plain bool
	// Clear leaves TLS once each has shown who it is, if the client does so too: what
	// follows can be read, and changed by who can change what is on its way, which the
	// checksums of values do not find. For a network that nobody else is on.
	Clear bool

	Clock clock.Clock
	Rand  io.Reader // crypto/rand.Reader, but for tests

	// Connections bounds connections that proved the key (256: 32 nodes with a full
	// pool each). More are refused with ErrBusy.
	Connections int
	// Handshakes bounds connections that did not yet (64); a new one takes the
	// place of the oldest.
	Handshakes int
	// Memory bounds what requests and answers take together, in bytes (256 MiB): a
	// sixth of it for keys and compared values, the rest for values and listings.
	// More of them wait for their turn. Below 160 MiB the largest requests are
	// refused with ErrInvalid. Beside it a connection takes up to 350 KiB.
	Memory int64

	HandshakeTime time.Duration // from accept to proof (10 s)
	IdleTime      time.Duration // without a request (5 min)
	// TransferTime bounds sending a request, with the wait for memory, and taking
	// an answer, each (60 s: the largest value at 1.1 MB/s).
	TransferTime time.Duration
	// CloseTime is what Close leaves running requests to finish (10 s), and after
	// that to give up.
	CloseTime time.Duration
}

func (o ServerOptions) withDefaults() ServerOptions {
	set(&o.Connections, 256)
	set(&o.Handshakes, 64)
	set(&o.Memory, 256<<20)
	set(&o.HandshakeTime, 10*time.Second)
	set(&o.IdleTime, 5*time.Minute)
	set(&o.TransferTime, time.Minute)
	set(&o.CloseTime, 10*time.Second)
	return o
}

func set[T int | int64 | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

// ServerStatus is what a Server does now, and did since its start.
type ServerStatus struct {
	Connections, Handshakes int   // now: proved the key, did not yet
	Memory                  int64 // bytes lent to requests now
	Refused                 uint64
	// Unproved counts handshakes that ended without the proof of the key: wrong
	// keys, strangers, peers that were slow.
	Unproved uint64
}

// Server serves a device. Safe for concurrent use.
type Server struct {
	dev   osd.OSD
	id    string
	o     ServerOptions
	tls   *tls.Config
	start time.Time

	meta, values budget // R6, in this order
	pool         pool

	refused, unproved atomic.Uint64

	closing chan struct{} // closed by Close
	watch   sync.Once
	running sync.WaitGroup // connections, the watch

	mu        sync.Mutex
	closed    bool
	listeners map[net.Listener]struct{}
	conns     map[*serverConn]struct{}
	proved    int       // of them, those that proved the key
	unknown   list.List // of *serverConn in the handshake, oldest first
}

// NewServer returns a server of dev, of which it asks the identity; ctx bounds
// that. dev stays the caller's, to be closed after the server.
func NewServer(ctx context.Context, dev osd.OSD, o ServerOptions) (*Server, error) {
	o = o.withDefaults()
	if len(o.Key) != KeyBytes {
		return nil, fmt.Errorf("remote: server: the access key has %d bytes, it takes %d", len(o.Key), KeyBytes)
	}
	if o.Clock == nil || o.Rand == nil {
		return nil, errors.New("remote: server: ServerOptions.Clock and Rand must be set")
	}
	info, err := dev.Info(ctx)
	if err != nil {
		return nil, fmt.Errorf("remote: server: identity of the device: %w", err)
	}
	if info.ID == "" || len(info.ID) > maxName {
		return nil, fmt.Errorf("remote: server: the device's identity %q is no name of 1 to %d bytes", info.ID, maxName)
	}
	s := &Server{
		dev: dev, id: info.ID, o: o, start: o.Clock.Now(), closing: make(chan struct{}),
		listeners: map[net.Listener]struct{}{}, conns: map[*serverConn]struct{}{},
	}
	s.o.Key = bytes.Clone(o.Key)
	s.meta.total = o.Memory / 6
	s.values.total = o.Memory - s.meta.total
	if !o.Plain {
		if s.tls, err = serverTLS(&o); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Status returns what the server does.
func (s *Server) Status() ServerStatus {
	st := ServerStatus{Memory: s.meta.inUse() + s.values.inUse(), Refused: s.refused.Load(), Unproved: s.unproved.Load()}
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Handshakes = s.unknown.Len()
	st.Connections = s.proved
	return st
}

// Serve takes connections from l, which it closes, until Close (nil) or an error of
// l. It may run for several listeners.
func (s *Server) Serve(l net.Listener) error {
	if !s.listen(l) {
		return l.Close()
	}
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
		_ = l.Close()
	}()
	for {
		raw, err := l.Accept()
		if err == nil {
			s.admit(raw)
			continue
		}
		if s.isClosed() {
			return nil
		}
		if !passing(err) {
			return fmt.Errorf("remote: device %s: accept: %w", s.id, err)
		}
		t := s.o.Clock.NewTimer(100 * time.Millisecond)
		select {
		case <-t.C():
		case <-s.closing:
			t.Stop()
			return nil
		}
	}
}

// passing tells errors of Accept that are over when connections were closed.
func passing(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (s *Server) listen(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.listeners[l] = struct{}{}
	s.watch.Do(func() { s.running.Go(s.watchTime) })
	return true
}

func (s *Server) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// admit starts the handshake of a connection, in place of the oldest one that is
// still in it where there are too many.
func (s *Server) admit(raw net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = raw.Close()
		return
	}
	if s.unknown.Len() >= s.o.Handshakes {
		s.unknown.Front().Value.(*serverConn).kill()
		s.leaveHandshake(s.unknown.Front().Value.(*serverConn))
	}
	c := &serverConn{s: s, raw: raw}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.handshake = s.unknown.PushBack(c)
	c.until(s.o.HandshakeTime)
	s.conns[c] = struct{}{}
	s.running.Go(c.run)
}

// leaveHandshake takes c off the list of those in the handshake; the lock is held.
func (s *Server) leaveHandshake(c *serverConn) {
	if c.handshake != nil {
		s.unknown.Remove(c.handshake)
		c.handshake = nil
	}
}

// promote makes room for a connection that proved the key, or says why not.
func (s *Server) promote(c *serverConn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("%w: the server stops", osd.ErrClosed)
	}
	if s.proved >= s.o.Connections {
		return fmt.Errorf("%w: %d are open, the most it takes: use fewer clients, smaller pools, or raise its bound", ErrBusy, s.proved)
	}
	if c.handshake == nil {
		return fmt.Errorf("%w: it took too long to prove the key", ErrBusy) // its place was given away
	}
	s.leaveHandshake(c)
	c.proved = true
	s.proved++
	return nil
}

func (s *Server) remove(c *serverConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaveHandshake(c)
	delete(s.conns, c)
	if c.proved {
		s.proved--
	}
}

// watchTime closes connections whose time is over (R7), until Close and the end
// of the last one.
func (s *Server) watchTime() {
	tick := min(s.o.HandshakeTime, s.o.IdleTime, s.o.TransferTime, 4*time.Second) / 4
	t := s.o.Clock.NewTimer(tick)
	defer t.Stop()
	for {
		select {
		case <-t.C():
		case <-s.closing:
			return // Close bounds the rest
		}
		now := int64(s.o.Clock.Now().Sub(s.start))
		s.mu.Lock()
		for c := range s.conns {
			if d := c.deadline.Load(); d != 0 && now > d {
				c.kill()
			}
		}
		s.mu.Unlock()
		t.Reset(tick)
	}
}

// Close ends the server: it takes no more connections and requests, lets those that
// run finish within CloseTime, and breaks them off after. It returns when nothing of
// the server uses the device any more, or an error if a call of the device does
// not end.
func (s *Server) Close() error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.closing)
	}
	for l := range s.listeners {
		_ = l.Close()
	}
	for c := range s.conns {
		if c.handshake != nil || c.phase.CompareAndSwap(phaseIdle, phaseClosed) {
			c.kill()
		}
	}
	s.mu.Unlock()

	done := make(chan struct{})
	go func() {
		s.running.Wait()
		close(done)
	}()
	for range 2 {
		t := s.o.Clock.NewTimer(s.o.CloseTime)
		select {
		case <-done:
			t.Stop()
			return nil
		case <-t.C():
		}
		s.mu.Lock()
		for c := range s.conns {
			c.kill()
		}
		s.mu.Unlock()
	}
	return fmt.Errorf("remote: device %s: a call does not end although its context did: the device must not be closed", s.id)
}
