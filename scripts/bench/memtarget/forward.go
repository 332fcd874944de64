package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/wire"
	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/iscsi/forward"
)

// The names of both sides.
const (
	cluster   = "bench"
	ownerNode = "owner"
	farNode   = "far"
)

// certificate makes one that signs itself: what TLS costs does not depend on who signed.
func certificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// serveOthers executes commands of others until end is called.
func serveOthers(address string, srv *iscsi.Server) (at string, end func(), err error) {
	cert, err := certificate()
	if err != nil {
		return "", nil, err
	}
	// A client decides whether it goes on in the clear.
	config := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13, DynamicRecordSizingDisabled: true, NextProtos: []string{wire.Clear}}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return "", nil, err
	}
	s := forward.NewServer(forward.ServerOptions{Cluster: cluster, Node: ownerNode, Target: srv, Clock: clock.Real{}})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				secure, err := wire.Secure(context.Background(), c, config, true)
				if err != nil {
					c.Close()
					return
				}
				_ = s.Serve(secure, "")
			})
		}
	})
	return l.Addr().String(), func() {
		l.Close()
		s.Close()
		wg.Wait()
	}, nil
}

// forwarder forwards everything to one address, in the clear once both ends have shaken hands
// if inClear is set.
func forwarder(address string, inClear bool) *forward.Forwarder {
	return forward.NewForwarder(forward.Options{
		Cluster: cluster, Node: farNode, Clock: clock.Real{}, Owner: func(string) string { return ownerNode },
		Dial: func(ctx context.Context, _ string) (net.Conn, error) {
			var d net.Dialer
			c, err := d.DialContext(ctx, "tcp", address)
			if err != nil {
				return nil, err
			}
			config := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, DynamicRecordSizingDisabled: true} // a bench, on loopback
			if inClear {
				config.NextProtos = []string{wire.Clear}
			}
			return wire.Secure(ctx, c, config, false)
		},
	})
}
