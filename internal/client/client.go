package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// BasePath is where a node serves its API, below Options.URL.
const BasePath = "/api/v1"

// dialTimeout bounds connecting and the TLS handshake each: a node that is up
// answers within a round trip, and the caller's context may be much longer.
const dialTimeout = 10 * time.Second

// Options say which node to talk to and as whom.
type Options struct {
	// URL is https://HOST:PORT, or http://HOST:PORT for a loopback address.
	URL string
	// Token is the bearer token; empty for the operations that need none.
	Token string
	// CA holds PEM certificates to trust; nil: those of the system.
	CA []byte
	// ServerName is what the TLS handshake asks for, with a CA; empty: the host of the URL.
	// The certificate has to be that host's whatever is asked for.
	ServerName string
	// UserAgent names the program; empty: ovgate.
	UserAgent string
	// Timeout bounds each request with its answer; 0: only the context does.
	Timeout time.Duration
}

// New returns a client; it does not connect yet. The methods of Client return
// raw responses, to be passed to Get or Done.
func New(o Options) (*Client, error) {
	base, err := checkURL(o.URL)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout: dialTimeout,
		ForceAttemptHTTP2:   true,
		Proxy:               http.ProxyFromEnvironment,
	}
	if len(o.CA) > 0 {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(o.CA) {
			return nil, errors.New("the CA holds no PEM certificate; give the file tls/ca.pem of the node's data directory")
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
		if o.ServerName != "" {
			askFor(transport.TLSClientConfig, o.ServerName, base.Hostname())
		}
	}
	if o.UserAgent == "" {
		o.UserAgent = "ovgate"
	}
	d := &doer{
		base: base.String(),
		http: http.Client{
			Timeout:       o.Timeout,
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	sign := func(_ context.Context, r *http.Request) error {
		r.Header.Set("User-Agent", o.UserAgent)
		r.Header.Set("Accept", "application/json")
		if o.Token != "" {
			r.Header.Set("Authorization", "Bearer "+o.Token)
		}
		return nil
	}
	return NewClient(base.String()+BasePath, WithHTTPClient(d), WithRequestEditorFn(sign))
}

// askFor has a handshake ask for one name and verify another.
func askFor(c *tls.Config, name, host string) {
	c.ServerName = name
	c.InsecureSkipVerify = true // of that name: all is checked below
	c.VerifyConnection = func(s tls.ConnectionState) error {
		between := x509.NewCertPool()
		for _, i := range s.PeerCertificates[1:] {
			between.AddCert(i)
		}
		_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: c.RootCAs, Intermediates: between, DNSName: host})
		return err
	}
}

// checkURL accepts what invariant 1 allows.
func checkURL(s string) (*url.URL, error) {
	if s == "" {
		return nil, errors.New("no node address; set OVGATE_URL=https://HOST:8443, or name the node's data directory with --data")
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return nil, fmt.Errorf("node address %q is not a URL such as https://HOST:8443", s)
	}
	if u.User != nil {
		return nil, fmt.Errorf("node address %s holds a user name; use OVGATE_TOKEN instead", u.Redacted())
	}
	if p := strings.TrimSuffix(u.Path, "/"); (p != "" && p != BasePath) || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("node address %q has more than a host and a port; write %s://%s", s, u.Scheme, u.Host)
	}
	if u.Scheme == "http" && !loopback(u.Hostname()) {
		return nil, fmt.Errorf("node address %s would send the token in clear text; use https (plain HTTP is for loopback addresses only)", s)
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}

// loopback tells whether host is this machine without asking a name server.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// doer sends requests and names the node in what went wrong.
type doer struct {
	base string
	http http.Client
}

// Do implements HttpRequestDoer.
func (d *doer) Do(r *http.Request) (*http.Response, error) {
	resp, err := d.http.Do(r)
	if err != nil {
		return nil, unreachable(d.base, err)
	}
	return resp, nil
}

// unreachable adds the address and the remedy to an error of net/http.
func unreachable(base string, err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	u := &UnreachableError{URL: base, Err: err}
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	switch {
	case errors.As(err, &unknown):
		u.Hint = "trust the node's CA: copy tls/ca.pem from its data directory and set OVGATE_CA to that file"
	case errors.As(err, &name):
		u.Hint = "use a name or address that the node's certificate holds"
	case errors.Is(err, http.ErrSchemeMismatch):
		u.Hint = "the node does not speak TLS there; check the port, or use http:// for a node that was started with --insecure"
	case errors.Is(err, syscall.ECONNREFUSED):
		u.Hint = "nothing listens there; start the node with ovgate serve, or check the address"
	case errors.Is(err, context.DeadlineExceeded):
		u.Hint = "the operation may still go on at the node; look before repeating it, or allow more time with --timeout"
	}
	return u
}
