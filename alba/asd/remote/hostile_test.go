package remote_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/alba/asd/remote"
	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/alba/osd/osdtest"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/wire"
)

// raw connects to the rig without a client.
func (r *rig) raw() net.Conn {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(testTime))
	return c
}

// proven connects to a Plain rig and proves the key.
func (r *rig) proven() (net.Conn, *wire.Conn) {
	r.t.Helper()
	c := r.raw()
	w, err := remote.Introduce(c, key)
	if err != nil {
		r.t.Fatal(err)
	}
	return c, w
}

// ended waits for the server to close the connection.
func ended(t *testing.T, c net.Conn) {
	t.Helper()
	_, err := io.Copy(io.Discard, c)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Fatal("the server keeps the connection")
	}
}

// healthy checks that the server serves others.
func (r *rig) healthy() {
	r.t.Helper()
	c := r.client()
	defer c.Close()
	if _, err := c.Info(r.t.Context()); err != nil {
		r.t.Errorf("the server is not well: %v", err)
	}
}

func frame(typ, flags uint16, meta []byte, body ...[]byte) []byte {
	var b bytes.Buffer
	if err := wire.NewConn(&memory{w: &b}, remote.Protocol, wire.Limits{}).Send(typ, flags, meta, body...); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// memory is a net.Conn that only writes.
type memory struct {
	net.Conn
	w io.Writer
}

func (m *memory) Write(p []byte) (int, error) { return m.w.Write(p) }

// header returns a header that announces any lengths, with a checksum that does not fit.
func header(typ uint16, meta, body uint32) []byte {
	b := frame(typ, 0, nil)
	binary.BigEndian.PutUint32(b[12:], meta)
	binary.BigEndian.PutUint32(b[16:], body)
	return b
}

// TestStrangers sends what does not belong to the protocol, before the proof.
func TestStrangers(t *testing.T) {
	noise := make([]byte, 10000)
	r := mrand.New(mrand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	version := frame(remote.TypeHello, 0, nil)
	version[5]++
	modes(t, func(t *testing.T, plain bool) {
		r := start(t, plain, osdtest.NewMem(deviceID))
		for name, send := range map[string][]byte{
			"noise":             noise,
			"http":              []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
			"version":           version,
			"huge meta":         header(remote.TypeHello, 1<<32-1, 0),
			"huge body":         header(remote.TypeHello, 10, 1<<32-1),
			"large meta":        header(remote.TypeHello, 1<<20, 0),
			"empty hello":       frame(remote.TypeHello, 0, nil),
			"long hello":        frame(remote.TypeHello, 0, make([]byte, 1000)),
			"proof first":       frame(remote.TypeProof, 0, make([]byte, 33)),
			"request first":     frame(remote.TypeInfo, 0, []byte{0}),
			"hello, no proof":   append(hello(plain), frame(remote.TypeInfo, 0, []byte{0})...),
			"hello, zero proof": append(hello(plain), frame(remote.TypeProof, 0, append([]byte{32}, make([]byte, 32)...))...),
			"two hellos":        append(hello(plain), hello(plain)...),
		} {
			t.Run(name, func(t *testing.T) {
				c := r.raw()
				_, _ = c.Write(send)
				ended(t, c)
			})
			t.Run(name+", cut", func(t *testing.T) {
				c := r.raw()
				_, _ = c.Write(send[:len(send)/2])
				_ = c.(*net.TCPConn).CloseWrite()
				ended(t, c)
			})
		}
		r.healthy()
		if s := r.server.Status(); s.Memory != 0 || s.Unproved < 20 {
			t.Errorf("afterwards: %+v", s)
		}
	})
}

func hello(plain bool) []byte {
	m := byte(1)
	if plain {
		m = 2
	}
	return frame(remote.TypeHello, 0, append([]byte{m, 32}, make([]byte, 32)...))
}

// TestVersionTold: a peer of another version learns ours.
func TestVersionTold(t *testing.T) {
	r := start(t, true, osdtest.NewMem(deviceID))
	c := r.raw()
	other := remote.Protocol
	other.Version = 7
	w := wire.NewConn(c, other, wire.Limits{Meta: 1000})
	if err := w.Send(remote.TypeHello, 0, nil); err != nil {
		t.Fatal(err)
	}
	_, err := w.Next()
	var v *wire.VersionError
	if !errors.As(err, &v) || v.Theirs != remote.Protocol.Version {
		t.Fatalf("got %v", err)
	}
}

// TestBrokenRequests sends nonsense with the key proved.
func TestBrokenRequests(t *testing.T) {
	var apply wire.Encoder
	apply.Uvarint(0)
	apply.Uint8(0)
	apply.Uvarint(0)
	apply.Uvarint(1)
	apply.Bytes([]byte("k"))
	apply.Bool(true)
	apply.Uvarint(5)
	apply.Uint32(0)
	m := osdtest.NewMem(deviceID)
	r := start(t, true, m)
	for name, send := range map[string][]byte{
		"no type":                frame(0, 0, nil),
		"unknown type":           frame(999, 0, []byte{0}),
		"a reply":                frame(remote.TypeInfo+remote.TypeReply, 0, []byte{0}),
		"flags":                  frame(remote.TypeInfo, 1, []byte{0}),
		"handshake again":        hello(true),
		"no meta":                frame(remote.TypeInfo, 0, nil),
		"meta too long":          frame(remote.TypeInfo, 0, make([]byte, 100)),
		"body where none is":     frame(remote.TypeInfo, 0, []byte{0}, []byte("x")),
		"time":                   frame(remote.TypeInfo, 0, binary.AppendUvarint(nil, 1<<63)),
		"priority":               frame(remote.TypeRead, 0, []byte{0, 9, 1, 'k', 0, 0}),
		"long key":               frame(remote.TypeRead, 0, append(append([]byte{0, 0}, binary.AppendUvarint(nil, 1025)...), make([]byte, 1030)...)),
		"read too long":          frame(remote.TypeRead, 0, append([]byte{0, 0, 1, 'k', 0}, binary.AppendUvarint(nil, osd.MaxValueBytes+1)...)),
		"keys that are not":      frame(remote.TypeGet, 0, []byte{0, 0, 2, 200, 10}),
		"value without body":     frame(remote.TypeApply, 0, apply.B),
		"body too short":         frame(remote.TypeApply, 0, apply.B, []byte("1234")),
		"body too long":          frame(remote.TypeApply, 0, apply.B, []byte("123456")),
		"huge meta":              header(remote.TypeApply, 1<<32-1, 0),
		"huge body":              header(remote.TypeApply, 10, 1<<32-1),
		"large meta of an info":  header(remote.TypeInfo, 1<<20, 0),
		"large meta, not coming": header(remote.TypeApply, 20<<20, 0),
		"damaged":                header(remote.TypeApply, 10, 60<<20),
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := r.proven()
			_, _ = c.Write(send)
			_ = c.(*net.TCPConn).CloseWrite()
			ended(t, c)
		})
	}
	if m.Len() != 0 {
		t.Error("the device was changed")
	}
	wait(t, "memory is given back", func() bool { return r.server.Status().Memory == 0 })
	r.healthy()
}

// TestLimitsOfTheDevice: what the device refuses keeps the connection.
func TestLimitsOfTheDevice(t *testing.T) {
	r := start(t, true, osdtest.NewMem(deviceID))
	c, w := r.proven()
	for range 3 {
		if err := w.Send(remote.TypeRead, 0, []byte{0, 0, 0, 0, 0}); err != nil { // an empty key
			t.Fatal(err)
		}
		h, err := w.Next()
		if err != nil || h.Type != remote.TypeFailure {
			t.Fatal(h, err)
		}
		if _, err := w.Meta(); err != nil {
			t.Fatal(err)
		}
	}
	// A peer that only stopped sending gets its answer.
	_, _ = c.Write(frame(remote.TypeInfo, 0, []byte{0}))
	_ = c.(*net.TCPConn).CloseWrite()
	if h, err := w.Next(); err != nil || h.Type != remote.TypeInfo+remote.TypeReply {
		t.Fatal(h, err)
	}
}

// TestSlowPeers: by the server's clock, each way of taking time ends.
func TestSlowPeers(t *testing.T) {
	big := osdtest.NewMem(deviceID)
	if err := set(t.Context(), big, "k", make([]byte, 32<<20)); err != nil {
		t.Fatal(err)
	}
	k := clock.NewManual(time.Now())
	r := start(t, true, big, func(o *remote.ServerOptions) { o.Clock = k })
	var read wire.Encoder
	read.Uvarint(0)
	read.Uint8(0)
	read.Bytes([]byte("k"))
	read.Varint(0)
	read.Uvarint(32 << 20)
	for name, send := range map[string]func() net.Conn{
		"silent": func() net.Conn { return r.raw() },
		"half a hello": func() net.Conn {
			c := r.raw()
			_, _ = c.Write(hello(true)[:30])
			return c
		},
		"half a header": func() net.Conn {
			c, _ := r.proven()
			_, _ = c.Write(frame(remote.TypeInfo, 0, []byte{0})[:7])
			return c
		},
		"half of meta": func() net.Conn {
			c, _ := r.proven()
			_, _ = c.Write(header(remote.TypeApply, 1000, 1<<20))
			return c
		},
		"does not take the answer": func() net.Conn {
			c, _ := r.proven()
			_, _ = c.Write(frame(remote.TypeRead, 0, read.B))
			wait(t, "the answer is on its way", func() bool { return r.server.Status().Memory > 0 })
			return c
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := send()
			wait(t, "the server closes it", func() bool {
				k.Advance(10 * time.Second)
				s := r.server.Status()
				return s.Connections+s.Handshakes == 0 && s.Memory == 0
			})
			c.Close()
		})
	}
}

// TestCrowd: silent strangers do not keep out those that know the key.
func TestCrowd(t *testing.T) {
	modes(t, func(t *testing.T, plain bool) {
		r := start(t, plain, osdtest.NewMem(deviceID), func(o *remote.ServerOptions) { o.Handshakes = 4 })
		for range 20 {
			r.raw()
		}
		r.healthy()
		wait(t, "the oldest are gone", func() bool { return r.server.Status().Unproved >= 16 })
		if n := r.server.Status().Handshakes; n > 4 {
			t.Errorf("%d in the handshake", n)
		}
	})
}

// relay passes connections on, keeps what clients said, and cuts answers off.
type relay struct {
	l    net.Listener
	to   string
	done sync.WaitGroup

	mu   sync.Mutex
	said [][]byte // per connection
	cut  int64    // bytes of an answer to let through; 0: all
}

func newRelay(t *testing.T, to string) *relay {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{l: l, to: to}
	r.done.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r.done.Go(func() { r.pass(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		r.done.Wait()
	})
	return r
}

func (r *relay) pass(c net.Conn) {
	defer c.Close()
	s, err := net.Dial("tcp", r.to)
	if err != nil {
		return
	}
	defer s.Close()
	r.mu.Lock()
	cut := r.cut
	r.mu.Unlock()
	var said bytes.Buffer
	var up sync.WaitGroup
	up.Go(func() {
		_, _ = io.Copy(s, io.TeeReader(c, &said))
		_ = s.(*net.TCPConn).CloseWrite()
	})
	if cut > 0 {
		_, _ = io.CopyN(c, s, cut)
		c.Close()
	} else {
		_, _ = io.Copy(c, s)
	}
	c.Close()
	up.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = append(r.said, said.Bytes())
}

func (r *relay) set(cut int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = cut
}

// TestReplay: a recorded connection opens nothing a second time.
func TestReplay(t *testing.T) {
	modes(t, func(t *testing.T, plain bool) {
		m := osdtest.NewMem(deviceID)
		r := start(t, plain, m)
		tap := newRelay(t, r.addr)
		c := r.client(func(o *remote.Options) { o.Address = tap.l.Addr().String() })
		if err := set(t.Context(), c, "k", []byte("v")); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		var said []byte
		wait(t, "the recording", func() bool {
			tap.mu.Lock()
			defer tap.mu.Unlock()
			if len(tap.said) == 1 {
				said = tap.said[0]
			}
			return len(tap.said) == 1
		})
		m.Wipe()
		again := r.raw()
		_, _ = again.Write(said)
		ended(t, again)
		if m.Len() != 0 {
			t.Error("a replay changed the device")
		}
		wait(t, "it counts as unproved", func() bool { return r.server.Status().Unproved == 1 })
	})
}

// TestMiddle: one who stands between two TLS connections, even with a certificate
// that the client pins, gains nothing by passing the proofs on.
func TestMiddle(t *testing.T) {
	r := start(t, false, osdtest.NewMem(deviceID))
	certPEM, keyPEM, pin, err := remote.NewCertificate(rand.Reader, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"ovgate-asd/1"}})
	if err != nil {
		t.Fatal(err)
	}
	var middle sync.WaitGroup
	middle.Go(func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		s, err := tls.Dial("tcp", r.addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"ovgate-asd/1"}})
		if err != nil {
			t.Error(err)
			return
		}
		middle.Go(func() {
			_, _ = io.Copy(s, c)
			s.Close()
		})
		_, _ = io.Copy(c, s)
	})
	c := r.client(func(o *remote.Options) { o.Address, o.Fingerprint = l.Addr().String(), pin })
	_, err = c.Info(t.Context())
	mustBe(t, "call through the middle", err, osd.ErrAuth)
	l.Close()
	middle.Wait()
}

// fake listens, and plays the server on one connection after the other.
func fake(t *testing.T, play func(c net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(testTime))
			done.Go(func() {
				defer c.Close()
				play(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		done.Wait()
	})
	return l.Addr().String()
}

func fakeClient(t *testing.T, addr string) *remote.Client {
	t.Helper()
	c, err := remote.New(remote.Options{Address: addr, ID: deviceID, Key: key, Plain: true, Dial: dial, Clock: clock.Real{}, Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestEcho: a server that sends the client's own proof back has proved nothing.
func TestEcho(t *testing.T) {
	addr := fake(t, func(c net.Conn) {
		w := wire.NewConn(c, remote.Protocol, wire.Limits{Meta: 1000})
		next := func() []byte {
			_, err := w.Next()
			if err != nil {
				return nil
			}
			m, _ := w.Meta()
			return bytes.Clone(m)
		}
		m := next()
		_ = w.Send(remote.TypeChallenge, 0, m[1:]) // its own nonce
		mac := next()
		_ = w.Send(remote.TypeWelcome, 0, append(mac, append([]byte{byte(len(deviceID))}, deviceID...)...))
	})
	_, err := fakeClient(t, addr).Info(t.Context())
	mustBe(t, "info", err, osd.ErrAuth)
}

// TestSilentServer: calls end with their ctx, or with ConnectTime, whatever the
// server does not do.
func TestSilentServer(t *testing.T) {
	hold := make(chan struct{})
	silent := fake(t, func(net.Conn) { <-hold })
	greets := fake(t, func(c net.Conn) {
		_, _ = remote.Greet(c, key, deviceID) // unless the client has given up before
		<-hold
	})
	defer close(hold)
	for _, addr := range []string{silent, greets} {
		c := fakeClient(t, addr)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		err := set(ctx, c, "k", make([]byte, 32<<20))
		cancel()
		mustBe(t, "set", err, context.DeadlineExceeded)
	}
	k := clock.NewManual(time.Now())
	c, err := remote.New(remote.Options{Address: silent, Key: key, Plain: true, Dial: dial, Clock: k, Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	done := make(chan error, 1)
	go func() {
		_, err := c.Info(t.Context())
		done <- err
	}()
	wait(t, "it waits", func() bool { return k.Waiting() == 2 })
	k.Advance(time.Minute)
	if err := <-done; err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestCutAnswers: an answer that ends early is an error, and the next call works.
func TestCutAnswers(t *testing.T) {
	modes(t, func(t *testing.T, plain bool) {
		r := start(t, plain, osdtest.NewMem(deviceID))
		tap := newRelay(t, r.addr)
		want := osdtest.Data(1, 1<<20)
		c := r.client(func(o *remote.Options) { o.Address = tap.l.Addr().String() })
		if err := set(t.Context(), c, "k", want); err != nil {
			t.Fatal(err)
		}
		for _, cut := range []int64{1, 100, 1000, 3000, 100 << 10, 900 << 10} {
			// A new client: the pool of c has a connection that is not cut.
			tap.set(cut)
			one := r.client(func(o *remote.Options) { o.Address = tap.l.Addr().String() })
			p := make([]byte, len(want))
			if err := one.Read(t.Context(), []byte("k"), 0, p, osd.High); err == nil {
				t.Errorf("cut after %d bytes: no error", cut)
			}
			tap.set(0)
			if err := one.Read(t.Context(), []byte("k"), 0, p, osd.High); err != nil || !bytes.Equal(p, want) {
				t.Errorf("after the cut at %d: %v", cut, err)
			}
			if err := one.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestBrokenReplies: a server that knows the key and talks nonsense.
func TestBrokenReplies(t *testing.T) {
	var answer atomic.Pointer[[]byte]
	addr := fake(t, func(c net.Conn) {
		w, err := remote.Greet(c, key, deviceID)
		if err != nil {
			return
		}
		if _, err := w.Next(); err != nil {
			return
		}
		_, _ = c.Write(*answer.Load())
		_ = c.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	})
	reply := func(typ uint16, meta []byte, body ...[]byte) []byte {
		return frame(typ+remote.TypeReply, 0, meta, body...)
	}
	p := make([]byte, 10)
	calls := map[string]func(c *remote.Client) error{
		"info":  func(c *remote.Client) error { _, err := c.Info(t.Context()); return err },
		"read":  func(c *remote.Client) error { return c.Read(t.Context(), []byte("k"), 0, p, osd.High) },
		"apply": func(c *remote.Client) error { return set(t.Context(), c, "k", nil) },
		"get": func(c *remote.Client) error {
			_, err := c.Get(t.Context(), [][]byte{[]byte("k")}, 100, osd.High)
			return err
		},
	}
	for name, a := range map[string][]byte{
		"nothing":         nil,
		"noise":           []byte("SSH-2.0-OpenSSH_9.6p1 Debian-3\r\n"),
		"huge":            header(remote.TypeRead+remote.TypeReply, 1<<32-1, 1<<32-1),
		"short meta":      reply(remote.TypeRead, nil, p),
		"short body":      reply(remote.TypeRead, []byte{0}, p[:9]),
		"long body":       reply(remote.TypeRead, []byte{0}, make([]byte, 11)),
		"wrong sum":       reply(remote.TypeRead, []byte{1, 1, 2, 3, 4}, p),
		"other type":      reply(99, []byte{0}),
		"empty failure":   frame(remote.TypeFailure, 0, nil),
		"unknown failure": frame(remote.TypeFailure, 0, append(binary.AppendUvarint(nil, 1<<40), 0, 0)),
		"many values":     reply(remote.TypeGet, []byte{2, 0, 0}),
		"no values":       reply(remote.TypeGet, []byte{0}),
		"value too large": reply(remote.TypeGet, append(append([]byte{1, 1}, binary.AppendUvarint(nil, 1<<40)...), 0, 0, 0, 0)),
		"wrong value sum": reply(remote.TypeGet, []byte{1, 1, 1, 0, 0, 0, 0}, []byte("x")),
		"apply with body": reply(remote.TypeApply, nil, []byte("x")),
	} {
		answer.Store(&a)
		for op, call := range calls {
			c := fakeClient(t, addr)
			err := call(c)
			if err == nil {
				t.Errorf("%s as an answer to %s: no error", name, op)
			}
			for _, promise := range []error{osd.ErrAssert, osd.ErrFull, osd.ErrInvalid, osd.ErrChecksum} {
				if errors.Is(err, promise) {
					t.Errorf("%s as an answer to %s promises %v", name, op, promise)
				}
			}
			c.Close()
		}
	}
}

// TestVanishedClients: what clients leave behind is given back.
func TestVanishedClients(t *testing.T) {
	r := start(t, true, osdtest.NewMem(deviceID))
	for i := range 30 {
		c, _ := r.proven()
		v := make([]byte, 1<<20)
		var e wire.Encoder
		e.Uvarint(0)
		e.Uint8(0)
		e.Uvarint(0)
		e.Uvarint(1)
		e.Bytes(fmt.Appendf(nil, "k%d", i))
		e.Bool(true)
		e.Uvarint(uint64(len(v)))
		e.Uint32(osd.CRC(v))
		f := frame(remote.TypeApply, 0, e.B, v)
		_, _ = c.Write(f[:len(f)*i/30])
		if i%2 == 0 {
			_ = c.(*net.TCPConn).SetLinger(0) // a reset
		}
		c.Close()
	}
	wait(t, "all is given back", func() bool {
		s := r.server.Status()
		return s.Connections+s.Handshakes == 0 && s.Memory == 0
	})
	r.healthy()
}
