package syslog

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/internal/clock"
)

const (
	// maxQueue bounds events that wait for the server: some megabytes (Y1).
	maxQueue = 4096
	// dialMost and writeMost bound a connection and a write.
	dialMost  = 10 * time.Second
	writeMost = 10 * time.Second
	// pauseFirst and pauseMost are the pauses before a connection is made anew (Y2).
	pauseFirst, pauseMost = time.Second, time.Minute
)

// Ports of the schemes.
var ports = map[string]string{"udp": "514", "tcp": "601", "tls": "6514"}

// Server is where events go.
type Server struct {
	Scheme  string // udp, tcp or tls
	Address string // host:port
}

// ParseServer reads scheme://host[:port].
func ParseServer(s string) (Server, error) {
	u, err := url.Parse(s)
	if err != nil || ports[u.Scheme] == "" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/" {
		return Server{}, fmt.Errorf("%.100q is no syslog server: write udp://HOST:514, tcp://HOST:601 or tls://HOST:6514", s)
	}
	port := u.Port()
	if port == "" {
		port = ports[u.Scheme]
	}
	return Server{u.Scheme, net.JoinHostPort(u.Hostname(), port)}, nil
}

// Options are what a Sender works with.
type Options struct {
	Server Server
	Host   string         // name of this node
	Roots  *x509.CertPool // that sign the server's certificate; nil: the system's
	Clock  clock.Clock    // nil: the machine's
	Log    *slog.Logger   // nil: none
}

// Sender sends events to a server. Safe for concurrent use.
type Sender struct {
	o Options

	mu    sync.Mutex
	queue []event.Event
	lost  int
	err   error // why the newest attempt failed; nil: it did not
	kick  chan struct{}
}

// New returns a Sender; Run sends.
func New(o Options) *Sender {
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Sender{o: o, kick: make(chan struct{}, 1)}
}

// Send hands an event over (Y1).
func (s *Sender) Send(e event.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) >= maxQueue {
		s.queue = append([]event.Event(nil), s.queue[1:]...)
		s.lost++
	}
	s.queue = append(s.queue, e)
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// Status returns why events are not sent, and how many were lost by that; nil: they are.
func (s *Sender) Status() (lost int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost, s.err
}

// Run sends until ctx ends; what waits then is lost.
func (s *Sender) Run(ctx context.Context) {
	var conn net.Conn
	defer func() {
		if conn != nil {
			_ = conn.Close()
		}
	}()
	pause := pauseFirst
	for {
		e, ok := s.first(ctx)
		if !ok {
			return
		}
		var err error
		if conn == nil {
			conn, err = s.dial(ctx)
		}
		if err == nil {
			if err = s.write(conn, e); err != nil {
				_ = conn.Close()
				conn = nil
			}
		}
		if ctx.Err() != nil {
			return
		}
		s.settle(e, err)
		if err == nil {
			pause = pauseFirst
			continue
		}
		if !s.wait(ctx, pause) {
			return
		}
		pause = min(2*pause, pauseMost)
	}
}

// first waits for an event, which stays in the queue until settle.
func (s *Sender) first(ctx context.Context) (event.Event, bool) {
	for {
		s.mu.Lock()
		if len(s.queue) > 0 {
			defer s.mu.Unlock()
			return s.queue[0], true
		}
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return event.Event{}, false
		case <-s.kick:
		}
	}
}

// settle takes an event that was sent out of the queue, or keeps why it was not.
func (s *Sender) settle(e event.Event, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil && s.err == nil:
		s.o.Log.Warn("events are not sent to the syslog server; it is tried again", "server", s.o.Server.Address, "error", err)
	case err == nil && s.err != nil:
		s.o.Log.Info("events are sent to the syslog server again", "server", s.o.Server.Address, "lost", s.lost)
		s.lost = 0
	}
	s.err = err
	// The oldest may have gone for newer ones meanwhile (Y1).
	if err == nil && len(s.queue) > 0 && s.queue[0].Time.Equal(e.Time) && s.queue[0].Seq == e.Seq && s.queue[0].Code == e.Code {
		s.queue = s.queue[1:]
	}
}

func (s *Sender) wait(ctx context.Context, d time.Duration) bool {
	return clock.Sleep(ctx, s.o.Clock, d) == nil
}

func (s *Sender) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialMost)
	defer cancel()
	switch s.o.Server.Scheme {
	case "udp":
		return (&net.Dialer{}).DialContext(ctx, "udp", s.o.Server.Address)
	case "tls":
		return (&tls.Dialer{Config: &tls.Config{RootCAs: s.o.Roots, MinVersion: tls.VersionTLS12}}).DialContext(ctx, "tcp", s.o.Server.Address)
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", s.o.Server.Address)
}

// write writes an event. A server that closed a connection is found out before, as it says
// nothing else ever.
func (s *Sender) write(conn net.Conn, e event.Event) error {
	m := message(s.o.Host, os.Getpid(), e)
	if s.o.Server.Scheme != "udp" {
		m = frame(m)
		if err := alive(conn); err != nil {
			return err
		}
	}
	if err := conn.SetWriteDeadline(time.Now().Add(writeMost)); err != nil { // the kernel's clock
		return err
	}
	_, err := conn.Write(m)
	return err
}

// alive looks whether the other end closed a connection.
func alive(conn net.Conn) error {
	if err := conn.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		return err
	}
	var b [1]byte
	_, err := conn.Read(b[:])
	var t net.Error
	if errors.As(err, &t) && t.Timeout() {
		return nil
	}
	if err == nil {
		return nil // it says something, which nobody wants to know
	}
	return fmt.Errorf("the server ended the connection: %w", err)
}
