package remote_test

import (
	"bytes"
	"context"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/openvstorage/ovgate/alba/asd/remote"
	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/alba/osd/osdtest"
)

// tap sees what comes from a server, and changes it.
type tap struct {
	mu   sync.Mutex
	seen bytes.Buffer
	flip []byte // what the last bit of is flipped on its way, where it is seen
}

func (tp *tap) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := dial(ctx, network, address)
	return &tapped{c, tp}, err
}

func (tp *tap) has(what []byte) bool {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	return bytes.Contains(tp.seen.Bytes(), what)
}

func (tp *tap) setFlip(what []byte) {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	tp.flip = what
}

type tapped struct {
	net.Conn
	tap *tap
}

func (c *tapped) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.tap.mu.Lock()
	defer c.tap.mu.Unlock()
	c.tap.seen.Write(p[:n])
	if f := c.tap.flip; f != nil {
		if i := bytes.Index(p[:n], f); i >= 0 {
			p[i+len(f)-1] ^= 1
		}
	}
	return n, err
}

// TestClear: where both ends want it TLS ends with its handshake; who is at the other end is
// proved all the same, and what is damaged on its way is found.
func TestClear(t *testing.T) {
	const key, text = "k", "what everybody on the way can read"
	for _, c := range []struct {
		name           string
		server, client bool
	}{{"both", true, true}, {"server", true, false}, {"client", false, true}} {
		t.Run(c.name, func(t *testing.T) {
			r := start(t, false, osdtest.NewMem(deviceID), func(o *remote.ServerOptions) { o.Clear = c.server })
			tp := &tap{}
			dev := r.client(func(o *remote.Options) { o.Clear, o.Dial = c.client, tp.dial })
			if err := dev.Apply(t.Context(), nil, []osd.Update{osd.Set([]byte(key), []byte(text))}, osd.High); err != nil {
				t.Fatal(err)
			}
			p := make([]byte, len(text))
			if err := dev.Read(t.Context(), []byte(key), 0, p, osd.High); err != nil || string(p) != text {
				t.Fatalf("%q, %v", p, err)
			}
			clearly := c.server && c.client
			if tp.has(p) != clearly {
				t.Fatalf("seen on the way: %v, expected %v", !clearly, clearly)
			}
			wrong := r.client(func(o *remote.Options) {
				o.Clear, o.Key = c.client, []byte(strings.Repeat("x", remote.KeyBytes))
			})
			_, err := wrong.Info(t.Context())
			mustBe(t, "wrong key", err, osd.ErrAuth)
			stranger := r.client(func(o *remote.Options) { o.Clear, o.Fingerprint = c.client, strings.Repeat("ab", 32) })
			_, err = stranger.Info(t.Context())
			mustBe(t, "wrong certificate", err, osd.ErrIdentity)
			if !clearly {
				return
			}
			tp.setFlip([]byte(text))
			if err := dev.Read(t.Context(), []byte(key), 0, p, osd.High); err == nil || !strings.Contains(err.Error(), "damaged on their way") {
				t.Fatalf("read of damaged bytes: %v", err)
			}
			if _, err := dev.Get(t.Context(), [][]byte{[]byte(key)}, 1<<10, osd.High); err == nil || !strings.Contains(err.Error(), "damaged on its way") {
				t.Fatalf("get of damaged bytes: %v", err)
			}
		})
	}
}

// TestConformanceClear runs the suite of devices over connections that left TLS.
func TestConformanceClear(t *testing.T) {
	if raceEnabled && testing.Short() {
		t.Skip("as TestConformance without TLS")
	}
	osdtest.Run(t, osdtest.Options{
		New: func(t *testing.T) osd.OSD {
			r := start(t, false, osdtest.NewMem(deviceID), func(o *remote.ServerOptions) { o.Clear = true })
			return r.client(func(o *remote.Options) { o.Clear = true })
		},
	})
}
