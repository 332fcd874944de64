package cluster

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// nodeLife is how long a node's certificate holds: a node that was off for longer joins
	// anew.
	nodeLife = 2 * 365 * 24 * time.Hour
	// backdate forgives clocks that are behind.
	backdate = time.Hour
	// maxRequest bounds a signing request, in bytes: an ECDSA one has about 400.
	maxRequest = 8 << 10
	// uriScheme begins the name of a node in its certificate: ovgate://CLUSTER/NODE.
	uriScheme = "ovgate"
)

var uuid = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// ErrNotMember: a certificate is not that of a node of this cluster, or of another node.
var ErrNotMember = errors.New("not a node of this cluster")

// Authority signs the certificates of a cluster's nodes.
type Authority struct {
	cluster string
	cert    *x509.Certificate
	key     crypto.Signer
}

// NewAuthority returns the authority of a cluster, from its certificate and key.
func NewAuthority(cluster string, pair tls.Certificate) (*Authority, error) {
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok || pair.Leaf == nil || !pair.Leaf.IsCA || !uuid.MatchString(cluster) {
		return nil, fmt.Errorf("authority of cluster %q: a certificate that may sign, with its key, is needed", cluster)
	}
	return &Authority{cluster, pair.Leaf, key}, nil
}

// Pair is the authority's certificate and key.
func (a *Authority) Pair() (*x509.Certificate, crypto.Signer) { return a.cert, a.key }

// PEM is the authority's certificate.
func (a *Authority) PEM() []byte { return encodePEM("CERTIFICATE", a.cert.Raw) }

// Sign makes the certificate of a node for the key of a request, which must be signed with
// it. Everything else of the request is ignored: what a certificate says, the cluster
// decides. In PEM, both.
func (a *Authority) Sign(request []byte, node string, now time.Time) ([]byte, error) {
	if len(request) > maxRequest || !uuid.MatchString(node) {
		return nil, fmt.Errorf("certificate of node %.64q: %w", node, errors.New("the request is longer than 8 KiB, or the node's id is none"))
	}
	block, _ := pem.Decode(request)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, fmt.Errorf("certificate of node %s: the request is none", node)
	}
	r, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("certificate of node %s: %w", node, err)
	}
	if err := r.CheckSignature(); err != nil {
		return nil, fmt.Errorf("certificate of node %s: %w", node, err)
	}
	if _, ok := r.PublicKey.(*ecdsa.PublicKey); !ok {
		return nil, fmt.Errorf("certificate of node %s: its key is not ECDSA", node)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: node}, URIs: []*url.URL{nodeURI(a.cluster, node)},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(nodeLife), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if t.NotAfter.After(a.cert.NotAfter) {
		t.NotAfter = a.cert.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, r.PublicKey, a.key)
	if err != nil {
		return nil, fmt.Errorf("certificate of node %s: %w", node, err)
	}
	return encodePEM("CERTIFICATE", der), nil
}

func nodeURI(cluster, node string) *url.URL {
	return &url.URL{Scheme: uriScheme, Host: cluster, Path: "/" + node}
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// NewRequest draws a key and makes the request for its certificate, both in PEM. The key
// does not leave the node.
func NewRequest() (key, request []byte, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, k)
	if err != nil {
		return nil, nil, err
	}
	return encodePEM("PRIVATE KEY", pkcs8), encodePEM("CERTIFICATE REQUEST", der), nil
}

// Identity is what a node shows other nodes, and by what it knows them.
type Identity struct {
	Cluster     string // UUID
	Node        string // UUID
	certificate atomic.Pointer[tls.Certificate]
	roots       *x509.CertPool
}

// NewIdentity returns a node's identity; certificate, key and authority are PEM. The
// certificate must be that of the node.
func NewIdentity(cluster, node string, certificate, key, authority []byte) (*Identity, error) {
	i := &Identity{Cluster: cluster, Node: node, roots: x509.NewCertPool()}
	if !i.roots.AppendCertsFromPEM(authority) {
		return nil, fmt.Errorf("certificate of node %s: the authority's is none", node)
	}
	return i, i.Replace(certificate, key)
}

// Replace takes another certificate of the node, in PEM with its key, for the connections to
// come.
func (i *Identity) Replace(certificate, key []byte) error {
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return fmt.Errorf("certificate of node %s: %w", i.Node, err)
	}
	is, err := i.nodeOf(pair.Leaf)
	if err != nil || is != i.Node {
		return fmt.Errorf("certificate of node %s: %w", i.Node, errors.Join(ErrNotMember, err))
	}
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: i.roots, CurrentTime: pair.Leaf.NotBefore, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return fmt.Errorf("certificate of node %s: %w: %w", i.Node, ErrNotMember, err)
	}
	i.certificate.Store(&pair)
	return nil
}

// Ends is when the node's certificate ends.
func (i *Identity) Ends() time.Time { return i.certificate.Load().Leaf.NotAfter }

// nodeOf returns whose certificate it is.
func (i *Identity) nodeOf(c *x509.Certificate) (string, error) {
	if len(c.URIs) == 1 && c.URIs[0].Scheme == uriScheme && c.URIs[0].Host == i.Cluster {
		if node := strings.TrimPrefix(c.URIs[0].Path, "/"); uuid.MatchString(node) {
			return node, nil
		}
	}
	return "", fmt.Errorf("%w: certificate of %.128q", ErrNotMember, c.Subject.CommonName)
}

// Server returns the configuration of a server that only nodes of the cluster reach, for
// which member holds: a certificate outlives a removal. Peer says which one it is.
func (i *Identity) Server(member func(node string) bool) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, DynamicRecordSizingDisabled: true, // that is for browsers
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return i.certificate.Load(), nil },
		ClientAuth:     tls.RequireAndVerifyClientCert, ClientCAs: i.roots,
		VerifyConnection: func(s tls.ConnectionState) error {
			node, err := i.Peer(s)
			if err == nil && !member(node) {
				err = fmt.Errorf("%w: node %s was removed, or is not known yet", ErrNotMember, node)
			}
			return err
		},
	}
}

// Client returns the configuration to reach one node, whatever its address.
func (i *Identity) Client(node string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, DynamicRecordSizingDisabled: true,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return i.certificate.Load(), nil },
		// Certificates name nodes, not addresses, which change: all is checked below.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return fmt.Errorf("%w: no certificate", ErrNotMember)
			}
			between := x509.NewCertPool()
			for _, c := range s.PeerCertificates[1:] {
				between.AddCert(c)
			}
			if _, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: i.roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
				return fmt.Errorf("%w: %w", ErrNotMember, err)
			}
			is, err := i.nodeOf(s.PeerCertificates[0])
			if err == nil && is != node {
				err = fmt.Errorf("%w: node %s answers in place of node %s", ErrNotMember, is, node)
			}
			return err
		},
	}
}

// Peer returns the id of the node at the other end of a connection.
func (i *Identity) Peer(s tls.ConnectionState) (string, error) {
	if len(s.PeerCertificates) == 0 {
		return "", fmt.Errorf("%w: no certificate", ErrNotMember)
	}
	return i.nodeOf(s.PeerCertificates[0])
}
