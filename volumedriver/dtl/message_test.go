package dtl

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"reflect"
	"testing"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/wire"
	"github.com/openvstorage/ovgate/volumedriver/journal"
)

// messages are those of the golden files, in testdata.
func messages() map[string]interface{ encode(*wire.Encoder) } {
	return map[string]interface{ encode(*wire.Encoder) }{
		"hello":   &hello{"c1", "node-1", "node-2"},
		"request": &request{7, diskA, 3, 4096, 0x1122334455667788, 99},
		"answer":  &answer{7, codeOf(ErrFull), 0x1122334455667788, 99, "no room"},
	}
}

// TestGolden: messages are as version 1 has them.
func TestGolden(t *testing.T) {
	for name, m := range messages() {
		var e wire.Encoder
		m.encode(&e)
		want, err := os.ReadFile("testdata/v1-" + name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(e.B, want) {
			t.Errorf("%s is %x, in version 1 %x", name, e.B, want)
		}
	}
}

// FuzzMessages: what is decoded encodes to the same bytes; everything else is refused.
func FuzzMessages(f *testing.F) {
	for _, m := range messages() {
		var e wire.Encoder
		m.encode(&e)
		f.Add(e.B)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, m := range []interface {
			encode(*wire.Encoder)
			decode([]byte) error
		}{&hello{}, &request{}, &answer{}} {
			if m.decode(b) != nil {
				continue
			}
			var e wire.Encoder
			if m.encode(&e); !bytes.Equal(e.B, b) {
				t.Errorf("%v: %x was %x", reflect.TypeOf(m), e.B, b)
			}
		}
	})
}

// TestHostile: a session that breaks the protocol ends, and the server goes on.
func TestHostile(t *testing.T) {
	p := startPeer(t, blockfs.NewMem(), clock.Real{}, 1, nil)
	good := request{id: 1, vdisk: diskA, epoch: 1, generation: 1, seq: 1}
	for name, bad := range map[string]func(*wire.Conn, []byte) error{
		"no request":      func(c *wire.Conn, m []byte) error { return c.Send(typePing, 0, m[1:]) },
		"unknown type":    func(c *wire.Conn, m []byte) error { return c.Send(typeYield+1, 0, m) },
		"hello again":     func(c *wire.Conn, m []byte) error { return c.Send(typeHello, 0, m) },
		"ping with body":  func(c *wire.Conn, m []byte) error { return c.Send(typePing, 0, m, []byte{1}) },
		"append, no body": func(c *wire.Conn, m []byte) error { return c.Send(typeAppend, 0, m) },
		"too large": func(c *wire.Conn, m []byte) error {
			return c.Send(typeAppend, 0, m, make([]byte, journal.MaxRecordBytes+1))
		},
	} {
		a, b := net.Pipe()
		done := make(chan error, 1)
		go func() { done <- p.Serve(b, "") }()
		l := &link{raw: a, conn: newConn(a)}
		if err := l.hello(hello{"c1", "node-1", "node-2"}); err != nil {
			t.Fatal(err)
		}
		var e wire.Encoder
		good.encode(&e)
		go func() { _ = bad(l.conn, e.B) }()
		if err := <-done; err == nil || errors.Is(err, ErrClosed) {
			t.Errorf("%s: the session ends with %v", name, err)
		}
		a.Close()
	}
	// Records that are damaged, of another vDisk or epoch, or out of order.
	c := startClient(t, clock.Real{}, "node-1", p.dial)
	for name, frame := range map[string]func(s *source) []byte{
		"damaged data":   func(s *source) []byte { f, _ := s.record(2); f[5000] ^= 1; return f },
		"damaged header": func(s *source) []byte { f, _ := s.record(2); f[60] ^= 1; return f },
		"cut":            func(s *source) []byte { f, _ := s.record(2); return f[:8192] },
		"other vdisk":    func(*source) []byte { f, _ := newSource(t, diskB, 4, 1).record(1); return f },
		"other epoch":    func(*source) []byte { f, _ := newSource(t, diskA, 3, 1).record(1); return f },
		"hole":           func(s *source) []byte { s.record(1); f, _ := s.record(1); return f },
	} {
		m := mirror(t, c, diskA, 4, 1)
		if err := m.Append(context.Background(), frame(newSource(t, diskA, 4, 1)), 2); err != nil {
			t.Fatal(err)
		}
		if err := wait(t, m, 2); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
