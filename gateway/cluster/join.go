package cluster

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/internal/kv"
)

// MaxSkew is how far a node's clock may be from the cluster's when it joins. Leases do not
// depend on it; times of snapshots and certificates, and what people read, do.
const MaxSkew = 5 * time.Second

// MaxFormats is how many formats of records two nodes may be apart: those of neighbouring
// releases, so that a cluster is upgraded node by node.
const MaxFormats = 1

// RefusedError is why a node is not let in, and what to do.
type RefusedError struct{ Message, Hint string }

// Error returns both.
func (e *RefusedError) Error() string { return e.Message + ": " + e.Hint }

// JoinRequest is what a node asks with.
type JoinRequest struct {
	Token, Secret string
	Cluster       string // name of the cluster that it means; empty: any
	Node          string // UUID
	Name          string
	Version       string
	Format        int       // newest format of records that it knows
	Clock         time.Time // when it sent the request
	Request       []byte    // for its certificate, PEM
}

// JoinAnswer is what a node gets.
type JoinAnswer struct {
	Cluster     string // UUID
	CA          []byte // PEM
	Certificate []byte // PEM
}

// Gate lets nodes in.
type Gate struct {
	Store     kv.Store
	Nodes     *model.Store // on Store
	Name      string       // of the cluster
	Authority *Authority
	Version   string // of this node
	Format    int    // newest format of records that it knows
}

// Admit lets a node in that has a token: its record, by which it is a member, and the use of
// the token are one change. A refusal says what is wrong and what to do, and uses up
// nothing. Asked again with the same token, the node gets another certificate.
func (g *Gate) Admit(ctx context.Context, r JoinRequest, now time.Time) (JoinAnswer, error) {
	var none JoinAnswer
	if !uuid.MatchString(r.Node) {
		return none, &RefusedError{fmt.Sprintf("%.64q is no node's id", r.Node), "use ovgate cluster join"}
	}
	record, rev, err := checkToken(ctx, g.Store, r.Token, r.Secret, r.Node, now)
	if err != nil {
		return none, err
	}
	if err := g.fits(r, now); err != nil {
		return none, err
	}
	certificate, err := g.Authority.Sign(r.Request, r.Node, now)
	if err != nil {
		return none, &RefusedError{err.Error(), "use ovgate cluster join"}
	}
	if err := g.enter(ctx, r, record, rev, now); err != nil {
		return none, err
	}
	return JoinAnswer{Cluster: g.Authority.cluster, CA: g.Authority.PEM(), Certificate: certificate}, nil
}

// fits refuses a node that the cluster cannot work with.
func (g *Gate) fits(r JoinRequest, now time.Time) error {
	if r.Cluster != "" && r.Cluster != g.Name {
		return &RefusedError{fmt.Sprintf("the token is of cluster %s, not of %.64q", g.Name, r.Cluster), "use a token of the cluster that is meant"}
	}
	if skew := r.Clock.Sub(now); skew.Abs() > MaxSkew {
		return &RefusedError{fmt.Sprintf("the node's clock is %v off that of the cluster, %v are allowed", skew.Round(time.Millisecond), MaxSkew), "set it, with NTP or chrony"}
	}
	if apart := r.Format - g.Format; apart > MaxFormats || apart < -MaxFormats {
		return &RefusedError{fmt.Sprintf("version %.64q of the node is too far from the cluster's %s (formats %d and %d)", r.Version, g.Version, r.Format, g.Format), "install a release beside that one"}
	}
	if !nameText.MatchString(r.Name) {
		return &RefusedError{fmt.Sprintf("%.64q is no name of a node", r.Name), "set node_name: 1 to 63 letters, digits, dots, hyphens and underscores"}
	}
	if n, ok := g.Nodes.FindNode(r.Name); ok && n.ID != r.Node {
		return nameTaken(r.Name)
	}
	return nil
}

func nameTaken(name string) error {
	return &RefusedError{fmt.Sprintf("the cluster has another node with the name %q", name), "choose another one with node_name"}
}

// enter makes the node a member. Of two that use one token one succeeds.
func (g *Gate) enter(ctx context.Context, r JoinRequest, record tokenRecord, rev int64, now time.Time) error {
	if record.Used == r.Node {
		return g.again(ctx, r)
	}
	record.Used = r.Node
	b, err := json.Marshal(record)
	if err != nil {
		return err
	}
	key := tokenPrefix + r.Token
	node := model.Node{ID: r.Node, Name: r.Name, Version: r.Version, Joined: now.UTC()}
	_, err = g.Nodes.AdmitNode(ctx, node, []kv.Compare{kv.ModRevIs(key, rev)}, kv.Put(key, b))
	switch {
	case errors.Is(err, model.ErrExists):
		if n, ok := g.Nodes.FindNode(r.Name); ok && n.ID != r.Node {
			return nameTaken(r.Name)
		}
		return &RefusedError{fmt.Sprintf("the cluster has a node %s already", r.Node), "a copy of a data directory is no new node: join with an empty one"}
	case errors.Is(err, model.ErrConflict):
		return g.lost(ctx, r, now)
	case err != nil:
		return fmt.Errorf("use a token: %w", err)
	}
	return nil
}

// again is the answer to a node that used its token already: a member gets another
// certificate, one that was removed since does not.
func (g *Gate) again(ctx context.Context, r JoinRequest) error {
	n, err := g.Nodes.StoredNode(ctx, r.Node)
	switch {
	case errors.Is(err, model.ErrNotFound):
		return ErrTokenUsed
	case err != nil:
		return err
	case n.Name != r.Name:
		return &RefusedError{fmt.Sprintf("the token was used by this node under the name %s", n.Name), "set node_name to that; it may be changed later"}
	}
	return nil
}

// lost says why a token could not be used: another node was faster, with it or with the name.
func (g *Gate) lost(ctx context.Context, r JoinRequest, now time.Time) error {
	if _, _, err := checkToken(ctx, g.Store, r.Token, r.Secret, r.Node, now); err != nil {
		return err
	}
	return &RefusedError{"another node with this name or id came at the same time", "try again"}
}

// CheckAnswer refuses an answer that is not of the cluster that made the token: whoever is
// in between cannot forge it.
func (t Token) CheckAnswer(a JoinAnswer) error {
	block, _ := pem.Decode(a.CA)
	if block == nil || a.Cluster != t.Cluster {
		return fmt.Errorf("the answer is of cluster %.64q, the token of %s: check whom the token's addresses lead to", a.Cluster, t.Cluster)
	}
	if sum := sha256.Sum256(block.Bytes); hex.EncodeToString(sum[:]) != t.CA {
		return fmt.Errorf("the answer's authority is not the one that the token names: somebody else answered for cluster %s", t.Cluster)
	}
	return nil
}

// reachWait bounds connecting to one of a token's nodes.
const reachWait = 10 * time.Second

// OwnName is what those who join ask for in the handshake: a node shows its own certificate
// then, not one of the site with the name that the node is reached by.
const OwnName = "own.ovgate.internal"

// Reach asks who is at a URL of the token, and returns the certificate of the cluster's
// authority, in PEM. The server shows it, and one of its own that it signed for this
// address. Nothing of the token is sent.
func (t Token) Reach(ctx context.Context, address string) ([]byte, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.Port() == "" {
		return nil, fmt.Errorf("address %.128q of the token is not https://HOST:PORT: make a new token", address)
	}
	ctx, cancel := context.WithTimeout(ctx, reachWait)
	defer cancel()
	var ca []byte
	d := tls.Dialer{Config: &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: OwnName,
		// The authority comes with the answer; all is checked below.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			var err error
			ca, err = t.known(s.PeerCertificates, u.Hostname())
			return err
		},
	}}
	c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), u.Port()))
	if err != nil {
		return nil, err
	}
	return ca, c.Close()
}

// known returns the authority among the certificates that a server shows, in PEM.
func (t Token) known(shown []*x509.Certificate, host string) ([]byte, error) {
	for _, c := range shown {
		if sum := sha256.Sum256(c.Raw); hex.EncodeToString(sum[:]) != t.CA {
			continue
		}
		roots := x509.NewCertPool()
		roots.AddCert(c)
		if _, err := shown[0].Verify(x509.VerifyOptions{Roots: roots, DNSName: host, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
			return nil, fmt.Errorf("its certificate is not that of a node at this address: %w: make a token with an address that the node has", err)
		}
		return encodePEM("CERTIFICATE", c.Raw), nil
	}
	return nil, fmt.Errorf("%w: it is not of the cluster that the token names, so nothing was sent to it: check whom the address leads to", ErrNotMember)
}
