package cinder

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"

	"github.com/openvstorage/ovgate/internal/clock"
)

// Bounds of what a cloud may answer.
const (
	// answerMax is above a page of pageSize volumes of 8 KiB each, in bytes.
	answerMax = 16 << 20
	// pageSize is what Cinder gives at once unless its administrator raised that.
	pageSize = 1000
	// itemsMax bounds a list: what one node can have of vDisks, several times.
	itemsMax = 200_000
	// problemMax bounds what is repeated of an answer, in bytes.
	problemMax = 300
)

// DefaultTimeout bounds each request to a cloud, with its answer.
const DefaultTimeout = 30 * time.Second

// Reasons why a cloud does not do what it is asked, wrapped with its own words.
var (
	ErrUnreachable = errors.New("no answer")
	ErrCertificate = errors.New("its certificate is not trusted")
	ErrCredentials = errors.New("wrong credentials")
	ErrDenied      = errors.New("not allowed")
	ErrCatalog     = errors.New("not in the catalog")
	ErrPlain       = errors.New("plain http")
	ErrRefused     = errors.New("refused")
)

// Options say how to sign in to a cloud.
type Options struct {
	AuthURL string // of Keystone, https://HOST:5000/v3; http on loopback alone
	User    string // name, or with Credential the id of an application credential
	Secret  string // password, or that of the application credential
	// Domain is that of the user, Project what to work in, ProjectDomain that of the
	// project, empty: the user's. With Credential all three are empty.
	Domain, Project, ProjectDomain string
	Credential                     bool
	Region                         string        // empty: the first of the catalog
	Interface                      string        // public, internal or admin; empty: public
	CA                             []byte        // PEM, in place of the system's; nil: the system's
	Timeout                        time.Duration // of each request; 0: DefaultTimeout
}

// Cloud is an OpenStack cloud after signing in. It is for one piece of work: it does not
// sign in again when its token ends. Close it.
type Cloud struct {
	keystone, volume *gophercloud.ServiceClient
	transport        *transport
	clock            clock.Clock
}

// Close ends its connections.
func (c *Cloud) Close() { c.transport.base.CloseIdleConnections() }

// Connect signs in. The errors are those above.
func Connect(ctx context.Context, o Options, clk clock.Clock) (*Cloud, error) {
	t, err := newTransport(o.CA)
	if err != nil {
		return nil, err
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	p, err := openstack.NewClient(o.AuthURL)
	if err != nil {
		return nil, fmt.Errorf("%w: %s is no URL of Keystone", ErrRefused, o.AuthURL)
	}
	p.UserAgent.Prepend("ovgate")
	p.HTTPClient = http.Client{
		Transport: t, Timeout: o.Timeout,
		// A token goes where the catalog says, not where an answer says.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	auth := gophercloud.AuthOptions{IdentityEndpoint: o.AuthURL, Username: o.User, Password: o.Secret, DomainName: o.Domain}
	if o.Credential {
		auth = gophercloud.AuthOptions{IdentityEndpoint: o.AuthURL, ApplicationCredentialID: o.User, ApplicationCredentialSecret: o.Secret}
	} else if auth.Scope = (&gophercloud.AuthScope{ProjectName: o.Project, DomainName: o.ProjectDomain}); o.ProjectDomain == "" {
		auth.Scope.DomainName = o.Domain
	}
	c := &Cloud{transport: t, clock: clk}
	if err := openstack.AuthenticateV3(ctx, p, &auth, gophercloud.EndpointOpts{}); err != nil {
		c.Close()
		err = explain("sign in", err)
		// Keystone says of an application credential that it does not know that there is none.
		if o.Credential && status(err, http.StatusNotFound) && strings.Contains(strings.ToLower(err.Error()), "application credential") {
			err = fmt.Errorf("%w: %w", ErrCredentials, err)
		}
		return nil, err
	}
	// Projects are asked for where users sign in: the catalog may not have that address.
	c.keystone = &gophercloud.ServiceClient{ProviderClient: p, Endpoint: strings.TrimSuffix(p.IdentityBase, "/") + "/v3/", Type: "identity"}
	at := gophercloud.EndpointOpts{Region: o.Region, Availability: gophercloud.Availability(orPublic(o.Interface))}
	if c.volume, err = openstack.NewBlockStorageV3(p, at); err != nil {
		c.Close()
		where := ""
		if o.Region != "" {
			where = " in region " + o.Region
		}
		return nil, fmt.Errorf("%w: Cinder v3 with interface %s%s", ErrCatalog, at.Availability, where)
	}
	return c, nil
}

func orPublic(s string) string {
	if s == "" {
		return "public"
	}
	return s
}

// transport bounds answers, refuses to send tokens in clear text, and keeps the time that
// the cloud told last.
type transport struct {
	base *http.Transport

	mu   sync.Mutex
	told time.Time // by the cloud, to the second
}

func newTransport(ca []byte) (*transport, error) {
	base := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
		ForceAttemptHTTP2:   true,
		MaxConnsPerHost:     4,
		IdleConnTimeout:     10 * time.Second,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if len(ca) > 0 {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(ca) {
			return nil, fmt.Errorf("%w: the CA holds no PEM certificate", ErrCertificate)
		}
		base.TLSClientConfig.RootCAs = pool
	}
	return &transport{base: base}, nil
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !loopback(r.URL.Hostname()) {
		return nil, fmt.Errorf("%w: %s://%s would see the token", ErrPlain, r.URL.Scheme, r.URL.Host)
	}
	resp, err := t.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if at, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		t.mu.Lock()
		t.told = at
		t.mu.Unlock()
	}
	resp.Body = &bounded{resp.Body, answerMax}
	return resp, nil
}

// bounded is a body that ends with an error when it is too long.
type bounded struct {
	io.ReadCloser
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("%w: an answer has more than %d bytes", ErrRefused, answerMax)
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// CheckURL refuses what cannot be the URL of Keystone, in words.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return errors.New("it is no URL such as https://keystone.example.org:5000/v3")
	case u.User != nil:
		return errors.New("it holds a user; give user and secret apart from it")
	case u.RawQuery != "" || u.Fragment != "":
		return errors.New("it has more than host, port and path")
	case strings.TrimSuffix(u.Path, "/") != "" && !strings.HasSuffix(strings.TrimSuffix(u.Path, "/"), "/v3"):
		return errors.New("its path does not end with /v3: ovgate speaks version 3 of Keystone")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return errors.New("over plain http everybody on the way reads the secret; use https")
	}
	return nil
}

// explain gives an error of gophercloud or below its reason. The text has the cloud's own
// words, clipped, and nothing of the request.
func explain(what string, err error) error {
	var code gophercloud.ErrUnexpectedResponseCode
	var cert *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	var address *url.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &code):
		reason := ErrRefused
		switch code.Actual {
		case http.StatusUnauthorized:
			reason = ErrCredentials
		case http.StatusForbidden:
			reason = ErrDenied
		case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			reason = ErrUnreachable
		}
		return &Problem{Status: code.Actual, text: fmt.Sprintf("%s: %s: HTTP %d: %s", what, reason, code.Actual, problemText(code.Body)), reason: reason}
	case errors.Is(err, ErrPlain), errors.Is(err, ErrRefused), errors.Is(err, context.Canceled):
		return fmt.Errorf("%s: %w", what, err)
	case errors.As(err, &cert) || errors.As(err, &authority) || errors.As(err, &host):
		return fmt.Errorf("%s: %w: %w", what, ErrCertificate, inner(err))
	case errors.As(err, &address), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: %w: %w", what, ErrUnreachable, inner(err))
	}
	return fmt.Errorf("%s: %w: %w", what, ErrRefused, err)
}

// inner takes method and URL off an error of net/http.
func inner(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// Problem is an answer of a cloud that says no.
type Problem struct {
	Status int // of HTTP
	text   string
	reason error
}

func (p *Problem) Error() string { return p.text }

// Unwrap returns one of the errors above.
func (p *Problem) Unwrap() error { return p.reason }

// status tells whether err is an answer with an HTTP status.
func status(err error, is int) bool {
	var p *Problem
	return errors.As(err, &p) && p.Status == is
}

// problemText takes the message out of an answer in OpenStack's form, {"kind": {"message":
// ...}}; of others the beginning.
func problemText(body []byte) string {
	text := string(body)
	var any map[string]json.RawMessage
	if json.Unmarshal(body, &any) == nil {
		for _, v := range any {
			var m struct {
				Message string `json:"message"`
			}
			if json.Unmarshal(v, &m) == nil && m.Message != "" {
				text = m.Message
			}
		}
	}
	text = strings.ToValidUTF8(strings.Join(strings.Fields(text), " "), "?")
	if len(text) > problemMax {
		text = strings.ToValidUTF8(text[:problemMax], "") + "..."
	}
	return text
}

// get asks a service for an object.
func get(ctx context.Context, s *gophercloud.ServiceClient, what, url string, to any) error {
	resp, err := s.Get(ctx, url, to, &gophercloud.RequestOpts{OkCodes: []int{http.StatusOK}})
	_, _, err = gophercloud.ParseResponse(resp, err)
	return explain(what, err)
}
