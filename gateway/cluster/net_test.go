package cluster

import (
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// simNet is a network in memory. Packets to and from who is cut off are lost, as are those
// that a receiver does not take in time; streams to them are refused after their time.
type simNet struct {
	mu    sync.Mutex
	nodes map[string]*simTransport
	cut   map[string]bool
	lose  func() bool // of packets; nil: none
}

func newSimNet() *simNet { return &simNet{nodes: map[string]*simTransport{}, cut: map[string]bool{}} }

// transport returns a new node's.
func (n *simNet) transport() *simTransport {
	n.mu.Lock()
	defer n.mu.Unlock()
	i := len(n.nodes) + 1
	t := &simTransport{
		net: n, ip: net.IPv4(10, 0, byte(i>>8), byte(i)),
		packets: make(chan *memberlist.Packet, 1024), streams: make(chan net.Conn, 64), down: make(chan struct{}),
	}
	n.nodes[t.address()] = t
	return t
}

// isolate cuts a node off from all others, or connects it again.
func (n *simNet) isolate(address string, off bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[address] = off
}

func (n *simNet) reach(from, to string, packet bool) *simTransport {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cut[from] || n.cut[to] || packet && n.lose != nil && n.lose() {
		return nil
	}
	return n.nodes[to]
}

type simTransport struct {
	net     *simNet
	ip      net.IP
	packets chan *memberlist.Packet
	streams chan net.Conn
	down    chan struct{}
	once    sync.Once
}

const simPort = 7946

func (t *simTransport) address() string { return fmt.Sprint(t.ip, ":", simPort) }

func (t *simTransport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.ip, simPort, nil
}

func (t *simTransport) WriteTo(b []byte, to string) (time.Time, error) {
	now := time.Now()
	if dest := t.net.reach(t.address(), to, true); dest != nil {
		p := &memberlist.Packet{Buf: append([]byte(nil), b...), From: &net.UDPAddr{IP: t.ip, Port: simPort}, Timestamp: now}
		select {
		case dest.packets <- p:
		default: // a full socket drops
		}
	}
	return now, nil
}

func (t *simTransport) PacketCh() <-chan *memberlist.Packet { return t.packets }
func (t *simTransport) StreamCh() <-chan net.Conn           { return t.streams }

func (t *simTransport) DialTimeout(to string, timeout time.Duration) (net.Conn, error) {
	expired := time.After(timeout)
	if dest := t.net.reach(t.address(), to, false); dest != nil {
		near, far := net.Pipe()
		select {
		case dest.streams <- far:
			return near, nil
		case <-dest.down:
			return nil, fmt.Errorf("%s: connection refused", to)
		case <-expired:
		}
	}
	select {
	case <-expired:
	case <-t.down:
	}
	return nil, fmt.Errorf("%s: no answer", to)
}

func (t *simTransport) Shutdown() error {
	t.once.Do(func() { close(t.down) })
	t.net.isolate(t.address(), true)
	return nil
}
