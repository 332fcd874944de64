package openstack

import (
	"io"
	"net"
	"strings"
	"sync"

	"github.com/openvstorage/ovgate/internal/client"
	"github.com/openvstorage/ovgate/scripts/drill/node"
)

// door is an address that leads to a node's API while it is open.
type door struct {
	real, addr string
	count      *counter

	mu       sync.Mutex
	listener net.Listener // nil: shut
	conns    map[net.Conn]bool
	passed   int // connections so far
}

// counter counts the pieces of requests that go through doors.
type counter struct {
	mu      sync.Mutex
	left    int // pieces until reached is closed
	reached chan struct{}
}

func newDoor(n *node.Node, count *counter) (*door, error) {
	opts, err := client.Discover(client.System(), n.Data())
	if err != nil {
		return nil, err
	}
	d := &door{real: opts.URL[strings.Index(opts.URL, "//")+2:], addr: "127.0.0.1:0", count: count, conns: map[net.Conn]bool{}}
	if err := d.Open(); err != nil {
		return nil, err
	}
	d.addr = d.listener.Addr().String()
	return d, nil
}

// Addr is where the door is.
func (d *door) Addr() string { return d.addr }

// Open lets connections in.
func (d *door) Open() error {
	listener, err := net.Listen("tcp", d.addr)
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.listener = listener
	d.mu.Unlock()
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go d.pass(c)
		}
	}()
	return nil
}

// Close ends those that are in, and lets nobody in.
func (d *door) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.listener != nil {
		_ = d.listener.Close()
		d.listener = nil
	}
	for c := range d.conns {
		_ = c.Close()
	}
}

// After answers a channel that is closed when n more pieces of requests have gone through
// to the node: each is at least a part of one.
func (c *counter) After(n int) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left, c.reached = n, make(chan struct{})
	return c.reached
}

func (c *counter) piece() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left--; c.left == 0 {
		close(c.reached)
	}
}

// pieces counts what is written to a connection.
type pieces struct {
	net.Conn
	count *counter
}

func (p pieces) Write(b []byte) (int, error) {
	n, err := p.Conn.Write(b)
	p.count.piece()
	return n, err
}

// Passed is how many connections went through.
func (d *door) Passed() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.passed
}

func (d *door) pass(c net.Conn) {
	defer c.Close()
	to, err := net.Dial("tcp", d.real)
	if err != nil {
		return
	}
	defer to.Close()
	d.mu.Lock()
	if d.listener == nil {
		d.mu.Unlock()
		return
	}
	d.passed++
	d.conns[c] = true
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		delete(d.conns, c)
		d.mu.Unlock()
	}()
	go func() {
		_, _ = io.Copy(pieces{to, d.count}, c)
		_ = to.Close()
	}()
	_, _ = io.Copy(c, to)
}
