package oidc

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Bounds of a conversation with a provider (D4).
const (
	// requestLimit is for one request with its answer. A browser waits for two or three.
	requestLimit = 10 * time.Second
	maxAnswer    = 512 << 10 // bytes; the largest in use are key sets of some 20 kB
	maxHeader    = 64 << 10  // bytes
)

// errRedirect: following it could lead anywhere.
var errRedirect = errors.New("it redirects, which a provider's endpoint does not do: is this its exact address?")

// errTooLong: an answer has more than maxAnswer bytes.
var errTooLong = fmt.Errorf("its answer is longer than %d bytes", maxAnswer)

// newClient returns a client with these bounds; pem empty trusts the system's authorities.
func newClient(pem string) (*http.Client, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if pem != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(pem)) {
			return nil, errors.New("there is no certificate in PEM in it")
		}
	}
	// Connections are not kept: sign-ins are rare, and nothing has to be closed.
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, TLSHandshakeTimeout: requestLimit, DisableKeepAlives: true,
		MaxResponseHeaderBytes: maxHeader, ForceAttemptHTTP2: true,
	}
	return &http.Client{
		Transport: bounded{t}, Timeout: requestLimit,
		CheckRedirect: func(*http.Request, []*http.Request) error { return errRedirect },
	}, nil
}

// bounded lets nobody read more than maxAnswer bytes of an answer, nor ask without TLS.
type bounded struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" {
		return nil, errors.New("it is not an https address")
	}
	res, err := b.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	res.Body = &boundedBody{res.Body, maxAnswer}
	return res, nil
}

type boundedBody struct {
	io.ReadCloser
	left int
}

// Read implements io.Reader; it fails where a longer answer would go on.
func (b *boundedBody) Read(p []byte) (int, error) {
	if len(p) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if n > b.left {
		return b.left, errTooLong
	}
	b.left -= n
	return n, err
}
