package etcd_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/openvstorage/ovgate/internal/kv"
	"github.com/openvstorage/ovgate/internal/kv/etcd"
	"github.com/openvstorage/ovgate/internal/kv/etcd/etcdtest"
)

// authority signs certificates for loopback.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, dir string) *authority {
	a := &authority{dir: dir}
	a.cert, a.key = a.sign(t, "ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// sign makes NAME.pem and NAME.key.
func (a *authority) sign(t *testing.T, name string, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.SerialNumber, c.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{".pem": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "EC PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(filepath.Join(a.dir, name+file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return c, key
}

// member signs what a member or a client of it shows.
func (a *authority) member(t *testing.T, name string) {
	a.sign(t, name, &x509.Certificate{
		KeyUsage: x509.KeyUsageDigitalSignature, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

// serve starts the only member of a cluster, with a certificate of a's.
func (a *authority) serve(t *testing.T, dir, peer, client string) *etcd.Server {
	t.Helper()
	s, err := etcd.Serve(t.Context(), etcd.ServerOptions{
		Name: "m", Dir: dir, Members: map[string]string{"m": peer}, Client: client, Token: "t",
		Certificate: a.file("node.pem"), Key: a.file("node.key"), CA: a.file("ca.pem"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// trust is the TLS of a client that trusts a, and shows certificates of others.
func (a *authority) trust(t *testing.T, show ...*authority) *tls.Config {
	t.Helper()
	c := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: x509.NewCertPool()}
	c.RootCAs.AddCert(a.cert)
	for _, a := range show {
		pair, err := tls.LoadX509KeyPair(a.file("node.pem"), a.file("node.key"))
		if err != nil {
			t.Fatal(err)
		}
		c.Certificates = append(c.Certificates, pair)
	}
	return c
}

// free returns a URL where nobody listens.
func free(t *testing.T) string { return strings.Replace(etcdtest.Free(t), "http:", "https:", 1) }

// TestSecure: members and their users show each other certificates of one CA, and nobody
// else gets an answer.
func TestSecure(t *testing.T) {
	ours, theirs := newAuthority(t, t.TempDir()), newAuthority(t, t.TempDir())
	ours.member(t, "node")
	theirs.member(t, "node")
	client := free(t)
	s := ours.serve(t, t.TempDir(), free(t), client)
	defer s.Close()
	for name, tc := range map[string]struct {
		tls  *tls.Config
		good bool
	}{
		"ours":              {ours.trust(t, ours), true},
		"no certificate":    {ours.trust(t), false},
		"that of another":   {ours.trust(t, theirs), false},
		"trusts another CA": {theirs.trust(t, ours), false},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		if tc.good {
			ctx = t.Context()
		}
		st, err := etcd.Open(ctx, etcd.Options{Endpoints: []string{client}, Prefix: "a/", TLS: tc.tls})
		cancel()
		if tc.good != (err == nil) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil {
			continue
		}
		if _, err := st.Txn(t.Context(), nil, []kv.Op{kv.Put("k", nil)}, nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestAskedAtEnd: a member that is asked while it ends does not end its process.
func TestAskedAtEnd(t *testing.T) {
	ours := newAuthority(t, t.TempDir())
	ours.member(t, "node")
	config := ours.trust(t, ours)
	dir, peer, client := t.TempDir(), free(t), free(t)
	for range 5 {
		s := ours.serve(t, dir, peer, client)
		ctx, cancel := context.WithCancel(t.Context())
		var asking sync.WaitGroup
		answered := make(chan struct{}, 8)
		for range cap(answered) {
			asking.Go(func() {
				raw, err := clientv3.New(clientv3.Config{Endpoints: []string{client}, TLS: config, Logger: zap.NewNop()})
				if err != nil {
					t.Error(err)
					return
				}
				defer raw.Close()
				for first := true; ctx.Err() == nil; first = false {
					if _, err := raw.Status(ctx, client); first {
						answered <- struct{}{}
						if err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		for range cap(answered) {
			<-answered
		}
		s.Close()
		cancel()
		asking.Wait()
	}
}
