package remote_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/alba/asd/remote"
	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/alba/osd/osdtest"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// testTime is when a test that hangs gives up.
const testTime = 2 * time.Minute

const deviceID = "7d3f5a52-11d6-4a0e-8a5e-0c9f0d4b7a11"

var key = []byte("0123456789abcdef0123456789abcdef")

// certificate returns the one certificate of all tests.
var certificate = sync.OnceValues(func() (tls.Certificate, string) {
	cert, key, fingerprint, err := remote.NewCertificate(rand.Reader, time.Now())
	if err != nil {
		panic(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		panic(err)
	}
	return pair, fingerprint
})

func dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}

// rig is a server on loopback.
type rig struct {
	t      testing.TB
	plain  bool
	dev    osd.OSD
	server *remote.Server
	addr   string
	served chan error
}

// start serves dev; change adjusts the options.
func start(t testing.TB, plain bool, dev osd.OSD, change ...func(o *remote.ServerOptions)) *rig {
	t.Helper()
	r := &rig{t: t, plain: plain, dev: dev, addr: "127.0.0.1:0"}
	r.serve(change...)
	t.Cleanup(r.stop)
	return r
}

// serve listens on the address of the rig.
func (r *rig) serve(change ...func(o *remote.ServerOptions)) {
	r.t.Helper()
	o := remote.ServerOptions{Key: key, Plain: r.plain, Clock: clock.Real{}, Rand: rand.Reader, CloseTime: 5 * time.Second}
	if !r.plain {
		o.Certificate, _ = certificate()
	}
	for _, f := range change {
		f(&o)
	}
	s, err := remote.NewServer(context.Background(), r.dev, o)
	if err != nil {
		r.t.Fatal(err)
	}
	l, err := net.Listen("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.server, r.addr, r.served = s, l.Addr().String(), make(chan error, 1)
	go func(served chan error) { served <- s.Serve(l) }(r.served)
}

func (r *rig) stop() {
	r.t.Helper()
	if r.server == nil {
		return
	}
	if err := r.server.Close(); err != nil {
		r.t.Error(err)
	}
	if err := <-r.served; err != nil {
		r.t.Error(err)
	}
	r.server = nil
}

func (r *rig) options() remote.Options {
	o := remote.Options{Address: r.addr, ID: deviceID, Key: key, Plain: r.plain, Dial: dial, Clock: clock.Real{}, Rand: rand.Reader}
	if !r.plain {
		_, o.Fingerprint = certificate()
	}
	return o
}

func (r *rig) client(change ...func(o *remote.Options)) *remote.Client {
	r.t.Helper()
	o := r.options()
	for _, f := range change {
		f(&o)
	}
	c, err := remote.New(o)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	return c
}

// modes runs a test over TLS and without.
func modes(t *testing.T, f func(t *testing.T, plain bool)) {
	for _, plain := range []bool{false, true} {
		t.Run(map[bool]string{false: "TLS", true: "Plain"}[plain], func(t *testing.T) { f(t, plain) })
	}
}

// wait polls until cond holds, for what happens in another goroutine that tells nobody.
func wait(t testing.TB, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	end := time.After(testTime)
	for !cond() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("not reached: %s", what)
		}
	}
}

func set(ctx context.Context, d osd.OSD, k string, v []byte) error {
	return d.Apply(ctx, nil, []osd.Update{osd.Set([]byte(k), v)}, osd.High)
}

func mustBe(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: %v, want %v", what, err, want)
	}
}

// gate is a device whose calls of one kind wait until they are let through.
type gate struct {
	*osdtest.Mem
	entered chan struct{}
	open    chan struct{}
	ctxs    chan error // how a blocked call ended
}

func newGate() *gate {
	return &gate{Mem: osdtest.NewMem(deviceID), entered: make(chan struct{}, 100), open: make(chan struct{}), ctxs: make(chan error, 100)}
}

func (g *gate) Stats(ctx context.Context) (osd.Stats, error) {
	if err := g.pass(ctx); err != nil {
		return osd.Stats{}, err
	}
	return g.Mem.Stats(ctx)
}

func (g *gate) Apply(ctx context.Context, a []osd.Assert, u []osd.Update, p osd.Priority) error {
	if err := g.pass(ctx); err != nil {
		return err
	}
	return g.Mem.Apply(ctx, a, u, p)
}

func (g *gate) pass(ctx context.Context) error {
	g.entered <- struct{}{}
	select {
	case <-g.open:
		return nil
	case <-ctx.Done():
		g.ctxs <- ctx.Err()
		return fmt.Errorf("gate: %w", ctx.Err())
	}
}
