package wire_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/wire"
)

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// mark is found on its way if it is not encrypted.
const mark = "nobody but the peer reads this"

// counted counts the writes of a connection, and looks for the mark in them.
type counted struct {
	net.Conn
	writes atomic.Int32
	marked atomic.Bool
}

func (c *counted) Write(p []byte) (int, error) {
	c.writes.Add(1)
	if bytes.Contains(p, []byte(mark)) {
		c.marked.Store(true)
	}
	return c.Conn.Write(p)
}

// pair returns both ends of a connection, and what the client writes to.
func pair(t *testing.T, ctx context.Context, server, client *tls.Config) (to, from *wire.TLSConn, out *counted) {
	t.Helper()
	raw, peer := wire.TCPPair(t)
	var err error
	var accept sync.WaitGroup
	accept.Go(func() { to, err = wire.Secure(ctx, peer, server, true) })
	out = &counted{Conn: raw}
	from, cerr := wire.Secure(ctx, out, client, false)
	accept.Wait()
	if err := errors.Join(err, cerr); err != nil {
		t.Fatal(err)
	}
	return to, from, out
}

// pass reads a frame and lets go of it.
func pass(c *wire.Conn) error {
	if _, err := c.Next(); err != nil {
		return err
	}
	if _, err := c.Meta(); err != nil {
		return err
	}
	return c.Skip()
}

// TestSecure: the same frames over TLS, and in the clear where both ends want that, in few writes.
func TestSecure(t *testing.T) {
	clear := []string{wire.Clear}
	for name, c := range map[string]struct {
		server, client []string
		clear          bool
	}{"TLS": {}, "the server would": {server: clear}, "the client would": {client: clear}, "both would": {clear, clear, true}} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			server, client, out := pair(t, ctx, &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}, NextProtos: c.server},
				&tls.Config{InsecureSkipVerify: true, DynamicRecordSizingDisabled: true, NextProtos: c.client})
			if server.Clear() != c.clear || client.Clear() != c.clear {
				t.Fatalf("in the clear: %v and %v, want %v", server.Clear(), client.Clear(), c.clear)
			}
			from, to := wire.NewConn(client, proto, limits), wire.NewConn(server, proto, limits)
			checkFrames(t, from, to)

			out.writes.Store(0)
			out.marked.Store(false)
			var got sync.WaitGroup
			got.Go(func() {
				if err := pass(to); err != nil {
					t.Error(err)
				}
			})
			if err := from.Send(1, 0, []byte(mark), make([]byte, 1<<20)); err != nil {
				t.Fatal(err)
			}
			got.Wait()
			if n := out.writes.Load(); n > 20 {
				t.Errorf("1 MiB took %d writes", n)
			}
			if out.marked.Load() != c.clear {
				t.Errorf("the frame can be read on its way: %v, want %v", out.marked.Load(), c.clear)
			}
			// Large answers back, while more is asked.
			var asked sync.WaitGroup
			asked.Go(func() {
				for range 3 {
					if err := to.Send(1, 0, nil, make([]byte, 200<<10)); err != nil {
						t.Error(err)
					}
				}
			})
			for range 3 {
				if err := pass(from); err != nil {
					t.Error(err)
				}
			}
			asked.Wait()
			out.Close()
			if _, err := to.Next(); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("after the end: %v", err)
			}
		})
	}
}

// TestClearEnds: a server that says nothing after the handshake costs no more than ctx.
func TestClearEnds(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	var serve sync.WaitGroup
	defer serve.Wait()
	defer b.Close()
	serve.Go(func() { // a server that shakes hands, and goes no further
		_ = tls.Server(b, &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}, NextProtos: []string{wire.Clear}, SessionTicketsDisabled: true}).Handshake()
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := wire.Secure(ctx, a, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{wire.Clear}}, false); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// TestBeforeRead: who reads is told before it may have to wait, and not for what came
// with something else.
func TestBeforeRead(t *testing.T) {
	a, b := net.Pipe() // a write is one read
	defer a.Close()
	defer b.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var server *wire.TLSConn
	var serr error
	var accept sync.WaitGroup
	accept.Go(func() {
		config := &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}, SessionTicketsDisabled: true, DynamicRecordSizingDisabled: true}
		server, serr = wire.Secure(ctx, b, config, true)
	})
	client, err := wire.Secure(ctx, a, &tls.Config{InsecureSkipVerify: true}, false)
	accept.Wait()
	if err := errors.Join(err, serr); err != nil {
		t.Fatal(err)
	}
	var sent sync.WaitGroup
	defer sent.Wait()
	defer a.Close()
	told := 0
	client.BeforeRead(func() {
		told++
		sent.Go(func() { // nothing comes but when the reader waits for it
			for range 3 {
				if _, err := server.Write(make([]byte, 10000)); err != nil {
					return
				}
			}
			_ = server.Flush()
		})
	})
	got := make([]byte, 5000)
	for i := range 6 {
		if _, err := io.ReadFull(client, got); err != nil {
			t.Fatal(err)
		}
		if told != 1 {
			t.Errorf("told %d times by read %d, want 1", told, i+1)
		}
	}
	if _, err := io.ReadFull(client, got); err != nil || told != 2 {
		t.Errorf("told %d times when more was to come, want 2; %v", told, err)
	}
}

// TestSecureEnds: a peer that does not shake hands costs no more than ctx.
func TestSecureEnds(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := wire.Secure(ctx, a, &tls.Config{InsecureSkipVerify: true}, false); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}
