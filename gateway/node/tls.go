package node

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
	"io/fs"
	"math/big"
	"net"
	"os"
	"slices"
	"time"
)

const (
	caLife     = 10 * 365 * 24 * time.Hour
	serverLife = 397 * 24 * time.Hour // the longest that browsers accept
	// renewBefore is the time left at which a new certificate is made: before health
	// speaks up.
	renewBefore = 60 * 24 * time.Hour
	// backdate forgives clocks that are behind.
	backdate = time.Hour
)

// identity is the node's certificate, and what signed it.
type identity struct {
	cert   tls.Certificate
	expiry time.Time
}

// openTLS returns the server's certificate for these host names and addresses,
// making it when it is missing or no longer fits. ca signs it, which is the
// cluster's, or the node's own.
func openTLS(d *dataDir, ca authority, hosts []string, now time.Time) (identity, error) {
	certFile, keyFile := d.file(tlsDir, "server.pem"), d.file(tlsDir, "server-key.pem")
	if id, err := loadServer(certFile, keyFile, ca, hosts, now); err == nil {
		return id, nil
	}
	if err := makeServer(certFile, keyFile, ca, hosts, now); err != nil {
		return identity{}, fmt.Errorf("server certificate: %w", err)
	}
	return loadServer(certFile, keyFile, ca, hosts, now)
}

type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// ownCA returns the node's own authority, making it when it is missing.
func ownCA(d *dataDir, now time.Time) (authority, error) {
	if err := os.MkdirAll(d.file(tlsDir), 0o700); err != nil {
		return authority{}, err
	}
	certFile, keyFile := d.file(tlsDir, "ca.pem"), d.file(tlsDir, "ca-key.pem")
	_, err := os.Stat(certFile)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeCA(certFile, keyFile, now); err != nil {
			return authority{}, fmt.Errorf("certificate authority: %w", err)
		}
	} else if err != nil {
		return authority{}, err
	}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return authority{}, fmt.Errorf("certificate authority %s: %w: bring both files back from a copy, or remove both to make new ones", certFile, err)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || pair.Leaf == nil {
		return authority{}, fmt.Errorf("certificate authority %s: its key is not ECDSA", certFile)
	}
	if now.After(pair.Leaf.NotAfter) {
		return authority{}, fmt.Errorf("certificate authority %s ended on %s: remove %s and %s to make a new one", certFile, pair.Leaf.NotAfter.Format(time.DateOnly), certFile, keyFile)
	}
	return authority{pair.Leaf, key}, nil
}

func makeCA(certFile, keyFile string, now time.Time) error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	t := &x509.Certificate{
		Subject:  pkix.Name{CommonName: "ovgate " + name, Organization: []string{"ovgate"}},
		NotAfter: now.Add(caLife), IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	return makePair(certFile, keyFile, t, nil, now)
}

func makeServer(certFile, keyFile string, ca authority, hosts []string, now time.Time) error {
	t := &x509.Certificate{
		Subject: pkix.Name{CommonName: hosts[0]}, NotAfter: now.Add(serverLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if t.NotAfter.After(ca.cert.NotAfter) {
		t.NotAfter = ca.cert.NotAfter
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	return makePair(certFile, keyFile, t, &ca, now)
}

// makePair draws a key and signs the certificate with ca, or with itself.
func makePair(certFile, keyFile string, t *x509.Certificate, ca *authority, now time.Time) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if t.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return err
	}
	t.NotBefore = now.Add(-backdate)
	parent, signer := t, crypto.Signer(key)
	if ca != nil {
		parent, signer = ca.cert, ca.key
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, &key.PublicKey, signer)
	if err != nil {
		return err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := writeFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600); err != nil {
		return err
	}
	return writeFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

// loadServer loads the server's certificate; an error asks for a new one.
func loadServer(certFile, keyFile string, ca authority, hosts []string, now time.Time) (identity, error) {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return identity{}, err
	}
	leaf := pair.Leaf
	if leaf == nil {
		return identity{}, errors.New("no leaf")
	}
	if err := leaf.CheckSignatureFrom(ca.cert); err != nil {
		return identity{}, err
	}
	if now.Before(leaf.NotBefore) || leaf.NotAfter.Sub(now) < renewBefore && ca.cert.NotAfter.After(leaf.NotAfter) {
		return identity{}, errors.New("it ends soon")
	}
	for _, h := range hosts {
		if err := leaf.VerifyHostname(h); err != nil {
			return identity{}, err
		}
	}
	// The authority is shown too: a node that joins knows its fingerprint alone.
	pair.Certificate = append(pair.Certificate[:1], ca.cert.Raw)
	return identity{pair, leaf.NotAfter}, nil
}

// certHosts are the names and addresses that the server certificate covers.
func certHosts(api string, advertise []string, gossip clusterConfig) []string {
	hosts := []string{"localhost", "127.0.0.1", "::1"}
	if name, err := os.Hostname(); err == nil && name != "" {
		hosts = append(hosts, name)
	}
	for _, a := range append([]string{api, gossip.Listen, gossip.Advertise}, advertise...) {
		h, _, err := net.SplitHostPort(a)
		if ip := net.ParseIP(h); err != nil || h == "" || ip != nil && ip.IsUnspecified() {
			continue
		}
		if !slices.Contains(hosts, h) {
			hosts = append(hosts, h)
		}
	}
	return hosts
}
