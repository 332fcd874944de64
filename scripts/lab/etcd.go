package lab

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/openvstorage/ovgate/internal/kv/etcd"
)

// Files of the directory "tls": who signs for etcd, its members' certificate, and the nodes'.
const (
	caPair     = "ca"
	memberPair = "etcd"
	nodePair   = "node"
)

// certLife is longer than a lab is kept.
const certLife = 365 * 24 * time.Hour

func (l *Lab) tls(name string) string { return filepath.Join(l.dir, "tls", name) }

// certify makes the certificates of the registry.
func (l *Lab) certify() error {
	ca := &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	key, err := l.sign(caPair, ca, nil, nil)
	if err != nil {
		return err
	}
	member := &x509.Certificate{KeyUsage: x509.KeyUsageDigitalSignature}
	for _, m := range l.Members() {
		member.IPAddresses = append(member.IPAddresses, net.ParseIP(Address(m)))
	}
	if _, err := l.sign(memberPair, member, ca, key); err != nil {
		return err
	}
	_, err = l.sign(nodePair, &x509.Certificate{KeyUsage: x509.KeyUsageDigitalSignature}, ca, key)
	return err
}

// sign makes NAME.pem and NAME.key; without ca it signs itself.
func (l *Lab) sign(name string, c, ca *x509.Certificate, by *ecdsa.PrivateKey) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if c.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return nil, err
	}
	c.Subject = pkix.Name{CommonName: "ovgate lab " + name}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(certLife)
	if ca == nil {
		ca, by = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, ca, &key.PublicKey, by)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	write := func(suffix, kind string, b []byte) error {
		return os.WriteFile(l.tls(name)+suffix, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600)
	}
	return key, errors.Join(write(".pem", "CERTIFICATE", der), write(".key", "PRIVATE KEY", secret))
}

func memberURL(member string) string { return "https://" + net.JoinHostPort(Address(member), "2379") }

// startMember starts a member of etcd; it is up when it is part of a quorum.
func (l *Lab) startMember(name string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.Remove(l.upFile(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return l.start(name, name, self, helperEtcd, l.dir, name)
}

func (l *Lab) upFile(name string) string { return filepath.Join(l.dir, "run", name+".up") }

func (l *Lab) memberUp(name string) bool {
	_, err := os.Stat(l.upFile(name))
	return err == nil
}

// leadsFile is there while a member leads.
func (l *Lab) leadsFile(name string) string { return filepath.Join(l.dir, "run", name+".leads") }

// Leader returns the member of etcd that leads; empty: none says so.
func (l *Lab) Leader() string {
	for _, m := range l.Members() {
		if _, err := os.Stat(l.leadsFile(m)); err == nil && l.Running(m) {
			return m
		}
	}
	return ""
}

// runEtcd is the process: DIR and the member.
func runEtcd(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: DIR MEMBER")
	}
	l, err := Open(args[0])
	if err != nil {
		return err
	}
	name := args[1]
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	peers := map[string]string{}
	for _, m := range l.Members() {
		peers[m] = "https://" + net.JoinHostPort(Address(m), "2380")
	}
	s, err := etcd.Serve(ctx, etcd.ServerOptions{
		Name: name, Dir: filepath.Join(l.dir, name), Members: peers, Client: memberURL(name), Token: prefix(l.dir),
		Certificate: l.tls(memberPair) + ".pem", Key: l.tls(memberPair) + ".key", CA: l.tls(caPair) + ".pem",
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	defer s.Close()
	if err := os.WriteFile(l.upFile(name), nil, 0o600); err != nil {
		return err
	}
	t := time.NewTicker(pollInterval)
	defer t.Stop()
	for leads := false; ; {
		if now := s.Leads(); now != leads {
			leads = now
			if leads {
				err = os.WriteFile(l.leadsFile(name), nil, 0o600)
			} else {
				err = os.Remove(l.leadsFile(name))
			}
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		select {
		case err := <-s.Err():
			return err
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}
