package wire_test

import (
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

// counted counts the writes of a connection.
type counted struct {
	net.Conn
	writes atomic.Int32
}

func (c *counted) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// TestSecure: the same frames over TLS, in few writes.
func TestSecure(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var server *wire.TLSConn
	var accept sync.WaitGroup
	config := &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}, SessionTicketsDisabled: true}
	accept.Go(func() {
		server, err = wire.Secure(ctx, peer, config, true)
	})
	out := &counted{Conn: raw}
	client, cerr := wire.Secure(ctx, out, &tls.Config{InsecureSkipVerify: true, DynamicRecordSizingDisabled: true}, false)
	accept.Wait()
	if err := errors.Join(err, cerr); err != nil {
		t.Fatal(err)
	}
	from, to := wire.NewConn(client, proto, limits), wire.NewConn(server, proto, limits)
	checkFrames(t, from, to)

	out.writes.Store(0)
	var got sync.WaitGroup
	got.Go(func() {
		if _, err := to.Next(); err != nil {
			t.Error(err)
		}
		if _, err := to.Meta(); err != nil {
			t.Error(err)
		}
		if err := to.Skip(); err != nil {
			t.Error(err)
		}
	})
	if err := from.Send(1, 0, []byte("m"), make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	got.Wait()
	if n := out.writes.Load(); n > 20 {
		t.Errorf("1 MiB took %d writes", n)
	}
	raw.Close()
	if _, err := to.Next(); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("after the end: %v", err)
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
