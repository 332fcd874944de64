package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openvstorage/ovgate/gateway/cluster"
	"github.com/openvstorage/ovgate/internal/clock"
	frames "github.com/openvstorage/ovgate/internal/wire"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// DefaultDTL is where nodes of a cluster take copies of each other's journals.
const DefaultDTL = "127.0.0.1:8600"

// dtlConfig says where this node takes copies of other nodes' journals.
type dtlConfig struct {
	Listen    string `yaml:"listen"`    // HOST:PORT
	Advertise string `yaml:"advertise"` // HOST:PORT as other nodes reach it
	Memory    int64  `yaml:"memory"`    // bytes
	// Clear: what nodes send each other is not encrypted, once both have shown who they are.
	Clear bool `yaml:"clear"`
}

const (
	// minDTLMemory is a few chunks of some vDisks.
	minDTLMemory = 64 << 20
	// dtlHandshake bounds the TLS handshake of a node that connects, dtlHandshakes how many
	// are under way.
	dtlHandshake  = 5 * time.Second
	dtlHandshakes = 64
	// dtlKeepAlive finds connections that broke without a word; the DTL's own pings are
	// quicker, this is for what is left of them.
	dtlKeepAlive = 15 * time.Second
	// livingEvery is how often this node asks who lives, for the choice of a peer.
	livingEvery = 2 * time.Second
	// dtlAcceptPause is what a lack of file descriptors gets to pass.
	dtlAcceptPause = 100 * time.Millisecond
)

func (c dtlConfig) check() error {
	if c.Listen != "" {
		if _, _, err := splitAddress("dtl", c.Listen); err != nil {
			return err
		}
	}
	if c.Advertise != "" {
		if host, port, err := splitAddress("dtl: advertise", c.Advertise); err != nil {
			return err
		} else if port == 0 || host == "" {
			return fmt.Errorf("dtl: advertise: address %q lacks the host or the port that other nodes use", c.Advertise)
		}
	}
	if c.Memory != 0 && (c.Memory < minDTLMemory || c.Memory > maxMemory) {
		return fmt.Errorf("configuration: dtl: memory is %d: use %d to %d bytes, or leave it out: copies are then in the journals' place on disk", c.Memory, minDTLMemory, maxMemory)
	}
	return nil
}

// dtlNode is this node's part in the mirroring of journals.
type dtlNode struct {
	listener net.Listener // nil: the node takes no part
	wg       sync.WaitGroup
	address  string // as other nodes reach it
	alive    atomic.Pointer[map[string]bool]
}

// clusterIdentity is what this node shows other nodes; nil: it is in no cluster.
func (n *node) clusterIdentity() *cluster.Identity {
	if n.opt.identity != nil || n.member == nil {
		return n.opt.identity
	}
	if p := n.member.part.Load(); p != nil {
		return p.identity
	}
	return nil
}

// bindDTL takes the address for the copies of other nodes' journals, if the node is in a
// cluster or its configuration asks for that.
func (n *node) bindDTL(context.Context) error {
	id := n.clusterIdentity()
	if id == nil && n.cfg.DTL == (dtlConfig{}) {
		return nil
	}
	address := n.cfg.DTL.Listen
	if address == "" {
		address = DefaultDTL
	}
	if host, _, err := splitAddress("dtl", address); err != nil {
		return err
	} else if id == nil && !loopback(host) {
		return fmt.Errorf("dtl: %s is not a loopback address, and this node has no certificate of a cluster: journals go over a network with TLS only; join a cluster, or use %s", address, DefaultDTL)
	}
	l, err := listen("dtl", "dtl: listen in the configuration", address)
	if err != nil {
		return err
	}
	n.onClose(func() error { // after the end of the engine, which ends the sessions
		err := ignoreClosed(l.Close())
		n.dtl.wg.Wait()
		return err
	})
	if n.cfg.DTL.Clear {
		n.log.Warn("journals and forwarded commands go in the clear between this node and others that want that, too: see that nobody else is on their network", "listen", l.Addr().String())
	}
	n.dtl.listener, n.dtl.address = l, n.cfg.DTL.Advertise
	if n.dtl.address == "" {
		n.dtl.address = machineAddresses(l.Addr())[0]
	}
	return nil
}

// dtlOptions are those of the engine; nil: the node takes no part.
func (n *node) dtlOptions() *volume.DTLOptions {
	if n.dtl.listener == nil {
		return nil
	}
	return &volume.DTLOptions{Cluster: n.model.Cluster().ID, Dial: n.dialDTL, MemoryBytes: n.cfg.DTL.Memory,
		Peers: func(id volume.ID) []string { return n.ctl.DTLPeers(id) }, Gone: n.gone}
}

// gone tells whether a node has no lease: it serves nothing until it has one, and then looks
// what is its own before it does (rules L2 and L7 of package cluster).
func (n *node) gone(ctx context.Context, id string) bool {
	living, err := n.living(ctx)
	return err == nil && !living[id]
}

// dialDTL connects to the DTL listener of a node.
func (n *node) dialDTL(ctx context.Context, id string) (net.Conn, error) {
	peer, ok := n.model.Node(id)
	if !ok {
		return nil, fmt.Errorf("dtl: the cluster has no node %s", id)
	}
	if peer.DTL == "" {
		return nil, fmt.Errorf("dtl: node %s takes no copies of journals: set dtl in its configuration", peer.Name)
	}
	self := n.clusterIdentity()
	if host, _, err := splitAddress("dtl", peer.DTL); err != nil || self == nil && !loopback(host) {
		return nil, errors.Join(fmt.Errorf("dtl: node %s is reached at %s, and without a certificate of a cluster only loopback is", peer.Name, peer.DTL), err)
	}
	d := net.Dialer{KeepAlive: dtlKeepAlive}
	conn, err := d.DialContext(ctx, "tcp", peer.DTL)
	if err != nil || self == nil {
		return conn, err
	}
	secure, err := frames.Secure(ctx, conn, n.dtlTLS(self.Client(id)), false)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("dtl: node %s at %s: %w", peer.Name, peer.DTL, err), conn.Close())
	}
	return abrupt{secure}, nil
}

// dtlTLS adds to a configuration that connections leave TLS, if that is wanted here; they do if
// it is wanted at the other end, too.
func (n *node) dtlTLS(c *tls.Config) *tls.Config {
	if n.cfg.DTL.Clear {
		c.NextProtos = []string{frames.Clear}
	}
	return c
}

// abrupt is a TLS connection that is closed at once, and does not say goodbye to a peer that
// may not read.
type abrupt struct{ *frames.TLSConn }

func (c abrupt) Close() error { return c.NetConn().Close() }

// startDTL takes connections of other nodes until the listener is closed.
func (n *node) startDTL() {
	if n.dtl.listener == nil {
		return
	}
	n.dtl.wg.Go(func() {
		free := make(chan struct{}, dtlHandshakes)
		for {
			free <- struct{}{}
			conn, err := n.dtl.listener.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil { // no file descriptor is left, or the like
				n.log.Warn("a connection of a DTL client is not taken", "err", err)
				<-free
				time.Sleep(dtlAcceptPause)
				continue
			}
			n.dtl.wg.Go(func() {
				var once sync.Once
				ready := func() { once.Do(func() { <-free }) }
				defer ready()
				if err := n.serveDTLConn(conn, ready); err != nil {
					n.log.Info("connection of a DTL client ended", "from", conn.RemoteAddr().String(), "err", err)
				}
			})
		}
	})
}

// serveDTLConn learns by its certificate which node it is; ready is called once that is done.
func (n *node) serveDTLConn(conn net.Conn, ready func()) error {
	id := n.clusterIdentity()
	if id == nil {
		return n.servePeer(conn, "", ready)
	}
	ctx, cancel := context.WithTimeout(context.Background(), dtlHandshake)
	defer cancel()
	secure, err := frames.Secure(ctx, conn, n.dtlTLS(id.Server(func(node string) bool { _, ok := n.model.Node(node); return ok })), true)
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	node, err := id.Peer(secure.ConnectionState())
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	return n.servePeer(abrupt{secure}, node, ready)
}

// watchLiving keeps what the choice of a peer goes by, and tells who takes over. While the
// registry does not answer it is what it was: who is gone is found out by trying.
func (n *node) watchLiving(ctx context.Context) {
	if n.dtl.listener == nil && len(n.cfg.Registry.Etcd) == 0 {
		return
	}
	moved := make(chan struct{}, 1)
	tell := func(to chan<- struct{}) {
		select {
		case to <- struct{}{}:
		default: // it is told already
		}
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		cluster.FollowLiving(ctx, n.kv, clock.Real{}, func() {
			tell(moved)
			tell(n.livingMoved)
		})
	})
	t := time.NewTicker(livingEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-moved:
		case <-t.C:
		}
		n.askLiving(ctx)
	}
}

func (n *node) askLiving(ctx context.Context) {
	if n.dtl.listener == nil {
		return
	}
	if living, err := n.living(ctx); err == nil {
		n.dtl.alive.Store(&living)
	}
}

// lastLiving returns the nodes that lived when it was last known.
func (n *node) lastLiving() map[string]bool {
	if m := n.dtl.alive.Load(); m != nil {
		return *m
	}
	return nil
}

// domains of failure are named like nodes.
func checkDomain(domain string) error {
	if domain != "" && !nodeName.MatchString(domain) {
		return fmt.Errorf("configuration: domain is %.100q: use 1 to 63 letters, digits, dots, hyphens and underscores, and begin with a letter or digit", domain)
	}
	return nil
}
