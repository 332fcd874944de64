package node

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/openvstorage/ovgate/gateway/api"
)

const (
	// peerName is what a node asks for when it connects to the API of another one, so that
	// it is asked for its certificate. Browsers and programs are not.
	peerName = "node.ovgate.internal"
	// peerDial bounds connecting: what is not reached is answered from what this node knows.
	peerDial = 2 * time.Second
	// peerConns bounds connections to one node, peerIdle is how long an idle one is kept.
	peerConns = 32
	peerIdle  = time.Minute
)

// apiPeers reaches the API of the other nodes of the cluster.
type apiPeers struct {
	n         *node
	transport *http.Transport
}

func newAPIPeers(n *node) *apiPeers {
	p := &apiPeers{n: n}
	p.transport = &http.Transport{DialTLSContext: p.dial, MaxConnsPerHost: peerConns, MaxIdleConnsPerHost: peerConns, IdleConnTimeout: peerIdle, DisableCompression: true}
	return p
}

// RoundTrip implements api.Peers.
func (p *apiPeers) RoundTrip(r *http.Request) (*http.Response, error) {
	return p.transport.RoundTrip(r)
}

// dial connects to the node whose id is the host of address.
func (p *apiPeers) dial(ctx context.Context, network, address string) (net.Conn, error) {
	id, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	conn, err := p.connect(ctx, network, id)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", api.ErrUnreached, err)
	}
	return conn, nil
}

func (p *apiPeers) connect(ctx context.Context, network, id string) (net.Conn, error) {
	self := p.n.clusterIdentity()
	peer, ok := p.n.model.Node(id)
	if self == nil || !ok {
		return nil, fmt.Errorf("node %s is none of this node's cluster", id)
	}
	u, err := url.Parse(peer.API)
	if err != nil || u.Scheme != "https" {
		return nil, fmt.Errorf("node %s serves its API without TLS, at %.200q", peer.Name, peer.API)
	}
	ctx, cancel := context.WithTimeout(ctx, peerDial)
	defer cancel()
	config := self.Client(id)
	config.ServerName = peerName
	d := tls.Dialer{Config: config}
	return d.DialContext(ctx, network, u.Host)
}

// From implements api.Peers. The handshake has verified the certificate.
func (p *apiPeers) From(c *tls.ConnectionState) string {
	self := p.n.clusterIdentity()
	if self == nil || c == nil || c.ServerName != peerName {
		return ""
	}
	id, err := self.Peer(*c)
	if err != nil {
		return ""
	}
	return id
}

// apiTLS is the configuration of the API's listener: nodes of the cluster show who they are.
func (n *node) apiTLS() *tls.Config {
	config := n.tls.config()
	config.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		self := n.clusterIdentity()
		if self == nil || !strings.EqualFold(h.ServerName, peerName) {
			return nil, nil
		}
		return self.Server(func(id string) bool { _, ok := n.model.Node(id); return ok }), nil
	}
	return config
}
