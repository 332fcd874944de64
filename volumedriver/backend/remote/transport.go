package remote

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"
)

// TransportOptions are how a store is reached.
type TransportOptions struct {
	// CA are certificates in PEM that are trusted for this store instead of the
	// system's; empty: the system's.
	CA []byte
	// Proxy is the URL of an HTTP proxy; empty: none, whatever the environment says.
	Proxy string
	// Connections bounds those that are open at a time; 0: DefaultConnections.
	Connections int
}

// DefaultConnections is enough to fill 10 Gbit/s with objects of 4 MiB at 20 ms each.
const DefaultConnections = 64

// Times of a connection. A body has no limit of its own: the caller's context has.
const (
	dialTimeout      = 10 * time.Second
	handshakeTimeout = 10 * time.Second
	headerTimeout    = time.Minute
	idleTimeout      = 90 * time.Second
)

// Transport returns what requests to one store go through. Errors name what is
// wrong with the options.
func Transport(o TransportOptions) (*http.Transport, error) {
	t := &http.Transport{
		DialContext:           (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:   handshakeTimeout,
		ResponseHeaderTimeout: headerTimeout,
		ExpectContinueTimeout: time.Second,
		IdleConnTimeout:       idleTimeout,
		MaxConnsPerHost:       o.Connections,
		DisableCompression:    true, // objects are bytes, not text
		WriteBufferSize:       64 << 10,
		ReadBufferSize:        64 << 10,
	}
	if o.Connections == 0 {
		t.MaxConnsPerHost = DefaultConnections
	}
	t.MaxIdleConns, t.MaxIdleConnsPerHost = t.MaxConnsPerHost, t.MaxConnsPerHost
	if len(o.CA) > 0 {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(o.CA) {
			return nil, errors.New("the CA bundle holds no certificate in PEM")
		}
		t.TLSClientConfig.RootCAs = pool
	}
	if o.Proxy != "" {
		u, err := url.Parse(o.Proxy)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, fmt.Errorf("%q is not the URL of a proxy, such as http://proxy.example.org:3128", o.Proxy)
		}
		t.Proxy = http.ProxyURL(u)
	}
	return t, nil
}
