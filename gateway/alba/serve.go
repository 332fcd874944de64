package alba

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/alba/asd/remote"
	"github.com/openvstorage/ovgate/alba/manager"
	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/internal/clock"
)

// Nodes of a cluster reach each other's directories over one listener a node:
//
//	client              node
//	UUID of a device ─►
//	              ◄─ y: it is open here; n: it is not, and the connection ends
//	             ... alba/asd/remote, with the TLS of the cluster
//
// What goes before TLS says nothing that is secret, and lets nobody in: the certificate of
// a member does, and the access key, which follows from the cluster's seal.key.

const (
	uuidBytes   = 36
	deviceHere  = 'y'
	deviceAway  = 'n'
	helloTime   = 5 * time.Second // from accept to the answer
	hellosMax   = 64              // under way at once
	acceptPause = 100 * time.Millisecond
	// dialKeepAlive finds connections that broke without a word.
	dialKeepAlive = 15 * time.Second
)

// accessKey returns the access key of a device that a node serves.
func (s *Service) accessKey(uuid string) ([]byte, error) {
	key, err := hex.DecodeString(s.o.Sealer.Digest([]byte("access key of " + sealID(uuid))))
	if err == nil && len(key) != remote.KeyBytes {
		err = fmt.Errorf("access key of device %s has %d bytes", uuid, len(key))
	}
	return key, err
}

// dialNode returns a device that is a directory of another node.
func (s *Service) dialNode(o manager.OSD) (osd.OSD, error) {
	if s.o.Cluster == nil {
		return nil, fmt.Errorf("device %d is a directory of node %s", o.Number, o.Node)
	}
	key, err := s.accessKey(o.UUID)
	if err != nil {
		return nil, err
	}
	config := s.o.Cluster.Client(o.Node)
	return remote.New(remote.Options{
		Address: "node " + s.NodeName(o.Node), ID: o.UUID, Key: key, TLS: config, Plain: config == nil, Clear: s.o.Clear, Clock: clock.Real{}, Rand: rand.Reader,
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) { return s.reach(ctx, o, config == nil) },
	})
}

// reach connects to a device of another node, wherever that is now.
func (s *Service) reach(ctx context.Context, o manager.OSD, plain bool) (net.Conn, error) {
	n, ok := s.o.Cluster.Node(o.Node)
	switch {
	case !ok:
		return nil, fmt.Errorf("device %d is on node %s, which is not in the cluster", o.Number, o.Node)
	case n.Devices == "":
		return nil, fmt.Errorf("node %s serves its devices to no other node: set alba: {listen: HOST:PORT} in its configuration", n.Name)
	case plain && !loopback(n.Devices):
		return nil, fmt.Errorf("node %s serves its devices at %s, and without a certificate of a cluster only loopback is reached", n.Name, n.Devices)
	}
	d := net.Dialer{KeepAlive: dialKeepAlive}
	conn, err := d.DialContext(ctx, "tcp", n.Devices)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	answer := make([]byte, 1)
	if err = conn.SetDeadline(time.Now().Add(helloTime)); err == nil {
		_, err = io.WriteString(conn, o.UUID)
	}
	if err == nil {
		_, err = io.ReadFull(conn, answer)
	}
	if err == nil && answer[0] != deviceHere {
		err = fmt.Errorf("device %d is not open on node %s: its log says why", o.Number, n.Name)
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// loopback tells whether HOST:PORT is reached without leaving the machine.
func loopback(address string) bool {
	a, err := netip.ParseAddrPort(address)
	return err == nil && a.Addr().Unmap().IsLoopback()
}

// deviceServer serves the directories that this node has open to the other nodes.
type deviceServer struct {
	s     *Service
	local *localDevices
	wg    sync.WaitGroup
	quit  chan struct{}

	mu      sync.Mutex
	closed  bool
	hello   map[net.Conn]bool
	servers map[string]*served
}

// served is one device with the connections that are given to its server.
type served struct {
	*remote.Server
	conns *handed
	plain bool
}

// serveDevices begins to serve; nil where other nodes are not to reach devices.
func (s *Service) serveDevices(local *localDevices) *deviceServer {
	if s.o.Cluster == nil || s.o.Cluster.Listener() == nil {
		return nil
	}
	d := &deviceServer{s: s, local: local, quit: make(chan struct{}), hello: map[net.Conn]bool{}, servers: map[string]*served{}}
	d.wg.Go(func() { d.accept(s.o.Cluster.Listener()) })
	return d
}

func (d *deviceServer) accept(l net.Listener) {
	free := make(chan struct{}, hellosMax)
	for {
		select {
		case free <- struct{}{}:
		case <-d.quit:
			return
		}
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no file descriptor is left, or the like
			d.s.o.Log.Warn("a connection to a device is not taken", "error", err)
			<-free
			select {
			case <-time.After(acceptPause):
			case <-d.quit:
				return
			}
			continue
		}
		d.wg.Go(func() {
			defer func() { <-free }()
			if err := d.admit(conn); err != nil {
				d.s.o.Log.Debug("a connection to a device ended before it was used", "from", conn.RemoteAddr().String(), "error", err)
			}
		})
	}
}

// admit reads which device is meant, and gives the connection to its server.
func (d *deviceServer) admit(conn net.Conn) (err error) {
	if !d.begin(conn) {
		return conn.Close()
	}
	defer func() {
		d.mu.Lock()
		delete(d.hello, conn)
		d.mu.Unlock()
		if err != nil {
			err = errors.Join(err, conn.Close())
		}
	}()
	if err := conn.SetDeadline(time.Now().Add(helloTime)); err != nil {
		return err
	}
	id := make([]byte, uuidBytes)
	if _, err := io.ReadFull(conn, id); err != nil {
		return err
	}
	v, err := d.server(string(id))
	if err != nil {
		_, werr := conn.Write([]byte{deviceAway})
		return errors.Join(err, werr)
	}
	if _, err := conn.Write([]byte{deviceHere}); err != nil {
		return err
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	return v.conns.give(conn)
}

func (d *deviceServer) begin(conn net.Conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hello[conn] = true
	return !d.closed
}

// server returns the server of a device that is open here.
func (d *deviceServer) server(uuid string) (*served, error) {
	dev := servedDevice{d.local, uuid}
	if _, err := dev.now(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, ErrClosed
	}
	config := d.s.o.Cluster.Server()
	if v := d.servers[uuid]; v != nil {
		if v.plain == (config == nil) {
			return v, nil
		}
		// The node became a member of a cluster, since when it serves with certificates.
		delete(d.servers, uuid)
		d.wg.Go(func() {
			if err := v.Close(); err != nil {
				d.s.o.Log.Warn("connections to a device are not ended", "device", uuid, "error", err)
			}
		})
	}
	key, err := d.s.accessKey(uuid)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), helloTime)
	defer cancel()
	v := &served{conns: newHanded(), plain: config == nil}
	v.Server, err = remote.NewServer(ctx, dev, remote.ServerOptions{Key: key, TLS: config, Plain: v.plain, Clear: d.s.o.Clear, Clock: clock.Real{}, Rand: rand.Reader})
	if err != nil {
		return nil, err
	}
	d.servers[uuid] = v
	d.wg.Go(func() {
		if err := v.Serve(v.conns); err != nil {
			d.s.o.Log.Error("a device is not served to other nodes any more", "device", uuid, "error", err)
		}
	})
	return v, nil
}

// close ends the connections. The listener stays open: it is the caller's, and closed
// before.
func (d *deviceServer) close() error {
	d.mu.Lock()
	d.closed = true
	close(d.quit)
	for c := range d.hello {
		_ = c.Close() // its admission ends with an error
	}
	d.mu.Unlock()
	var err error
	for _, v := range d.servers { // no more come
		err = errors.Join(err, v.Close())
	}
	err = errors.Join(err, ignoreClosed(d.s.o.Cluster.Listener().Close()))
	d.wg.Wait()
	return err
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// handed is a listener of connections that were accepted elsewhere.
type handed struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newHanded() *handed { return &handed{conns: make(chan net.Conn), done: make(chan struct{})} }

func (h *handed) give(c net.Conn) error {
	select {
	case h.conns <- c:
		return nil
	case <-h.done:
		return net.ErrClosed
	}
}

// Accept implements net.Listener.
func (h *handed) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *handed) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

// Addr implements net.Listener.
func (h *handed) Addr() net.Addr { return &net.TCPAddr{} }

// servedDevice is a directory of this node as it is open at each call: it may fail and be
// opened anew meanwhile.
type servedDevice struct {
	local *localDevices
	uuid  string
}

var _ osd.OSD = servedDevice{}

func (d servedDevice) now() (*localDevice, error) {
	dev := d.local.byID(d.uuid)
	if dev == nil {
		return nil, fmt.Errorf("device %s is not open here: %w", d.uuid, osd.ErrFailed)
	}
	return dev, nil
}

// Info implements osd.OSD.
func (d servedDevice) Info(ctx context.Context) (osd.Info, error) {
	dev, err := d.now()
	if err != nil {
		return osd.Info{}, err
	}
	return dev.Info(ctx)
}

// Stats implements osd.OSD.
func (d servedDevice) Stats(ctx context.Context) (osd.Stats, error) {
	dev, err := d.now()
	if err != nil {
		return osd.Stats{}, err
	}
	return dev.Stats(ctx)
}

// Get implements osd.OSD.
func (d servedDevice) Get(ctx context.Context, keys [][]byte, limit int, prio osd.Priority) ([]osd.Value, error) {
	dev, err := d.now()
	if err != nil {
		return nil, err
	}
	return dev.Get(ctx, keys, limit, prio)
}

// Read implements osd.OSD.
func (d servedDevice) Read(ctx context.Context, key []byte, off int64, p []byte, prio osd.Priority) error {
	dev, err := d.now()
	if err != nil {
		return err
	}
	return dev.Read(ctx, key, off, p, prio)
}

// Apply implements osd.OSD.
func (d servedDevice) Apply(ctx context.Context, asserts []osd.Assert, updates []osd.Update, prio osd.Priority) error {
	dev, err := d.now()
	if err != nil {
		return err
	}
	return dev.Apply(ctx, asserts, updates, prio)
}

// List implements osd.OSD.
func (d servedDevice) List(ctx context.Context, prefix, after []byte, limit int, prio osd.Priority) ([]osd.Entry, error) {
	dev, err := d.now()
	if err != nil {
		return nil, err
	}
	return dev.List(ctx, prefix, after, limit, prio)
}

// Validate implements osd.OSD.
func (d servedDevice) Validate(ctx context.Context, prefix, after []byte, limit int, budget int64) (osd.Validation, error) {
	dev, err := d.now()
	if err != nil {
		return osd.Validation{}, err
	}
	return dev.Validate(ctx, prefix, after, limit, budget)
}

// Close implements osd.OSD: the node's own use keeps the device open.
func (d servedDevice) Close() error { return nil }
