package wire

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TCPPair returns the two ends of a connection.
func TCPPair(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	from, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { from.Close() })
	to, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { to.Close() })
	return from.(*net.TCPConn), to.(*net.TCPConn)
}

// TestSocket: what is written in one call and does not fit the socket arrives whole, in both
// directions at once; and an end is an end.
func TestSocket(t *testing.T) {
	a, b := TCPPair(t)
	ends := []*socket{newSocket(a), newSocket(b)}
	data := make([]byte, 16<<20)
	for i := range data {
		data[i] = byte(i ^ i>>8 ^ i>>16)
	}
	var all sync.WaitGroup
	for i, s := range ends {
		if s.raw == nil {
			t.Fatal("a TCP connection has no descriptor")
		}
		all.Go(func() {
			if n, err := s.Write(data); n != len(data) || err != nil {
				t.Errorf("end %d wrote %d bytes: %v", i, n, err)
			}
			if n, err := s.Write(nil); n != 0 || err != nil {
				t.Errorf("end %d wrote nothing: %d, %v", i, n, err)
			}
		})
		all.Go(func() {
			got := make([]byte, len(data))
			if _, err := io.ReadFull(s, got); err != nil || !bytes.Equal(got, data) {
				t.Errorf("end %d read other bytes: %v", i, err)
			}
		})
	}
	all.Wait()
	if err := a.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := ends[1].Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("at the end: %d, %v", n, err)
	}
}

// TestSocketErrors are those of a net.Conn: closed while it waits, past its deadline, reset
// by the peer.
func TestSocketErrors(t *testing.T) {
	read := func(c net.Conn) error {
		_, err := newSocket(c).Read(make([]byte, 1))
		return err
	}
	write := func(c net.Conn) error { // until the peer, which does not read, takes no more
		s, p := newSocket(c), make([]byte, 1<<20)
		for {
			if _, err := s.Write(p); err != nil {
				return err
			}
		}
	}
	for name, op := range map[string]func(net.Conn) error{"read": read, "write": write} {
		a, _ := TCPPair(t)
		if err := a.SetDeadline(time.Now()); err != nil {
			t.Fatal(err)
		}
		if err := op(a); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s past the deadline: %v", name, err)
		}
		a, _ = TCPPair(t)
		done := make(chan error, 1)
		go func() { done <- op(a) }()
		a.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s of a closed connection: %v", name, err)
		}
		a, b := TCPPair(t)
		if err := b.SetLinger(0); err != nil {
			t.Fatal(err)
		}
		go func() { done <- op(a) }()
		b.Close()
		if err := <-done; !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Errorf("%s of a connection that was reset: %v", name, err)
		}
	}
}
