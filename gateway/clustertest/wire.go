package clustertest

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// Wire is a way to a server on TCP that a test cuts and heals. Safe for concurrent use.
type Wire struct {
	to   string
	l    net.Listener
	mu   sync.Mutex
	off  bool
	open map[net.Conn]bool
	wg   sync.WaitGroup
}

// NewWire makes a way to an endpoint, http://HOST:PORT, until the test ends.
func NewWire(t testing.TB, endpoint string) *Wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &Wire{to: strings.TrimPrefix(endpoint, "http://"), l: l, open: map[net.Conn]bool{}}
	w.wg.Go(w.serve)
	t.Cleanup(func() { w.Cut(); l.Close(); w.wg.Wait() })
	return w
}

// To is the server's own address, HOST:PORT.
func (w *Wire) To() string { return w.to }

// Endpoint is where the server is reached over the wire.
func (w *Wire) Endpoint() string { return "http://" + w.l.Addr().String() }

func (w *Wire) serve() {
	for {
		c, err := w.l.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", w.to)
		if err != nil || !w.keep(c, far) {
			c.Close()
			if far != nil {
				far.Close()
			}
			continue
		}
		for _, p := range [][2]net.Conn{{c, far}, {far, c}} {
			w.wg.Go(func() {
				_, _ = io.Copy(p[0], p[1]) // however it ends, both ends go
				p[0].Close()
				p[1].Close()
			})
		}
	}
}

func (w *Wire) keep(conns ...net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.off {
		return false
	}
	for _, c := range conns {
		w.open[c] = true
	}
	return true
}

// Cut breaks what is open, and lets nothing through until Heal.
func (w *Wire) Cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.off = true
	for c := range w.open {
		c.Close()
	}
	w.open = map[net.Conn]bool{}
}

// Heal lets connections through again.
func (w *Wire) Heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.off = false
}
