package vsphere

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/session"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

const (
	// DefaultTimeout bounds each request but rescans.
	DefaultTimeout = time.Minute
	// rescanTimeout bounds what a host does with its storage: it answers when it is done,
	// and tries paths that are away one after the other.
	rescanTimeout = 5 * time.Minute
	// changeFactor is how many times Options.Timeout a host has to make, grow or destroy a
	// datastore, and changeMost bounds that.
	changeFactor = 5
	changeMost   = 10 * time.Minute
	// dialTimeout bounds connecting, with the TLS handshake.
	dialTimeout = 10 * time.Second
	// answerMax is above what a host with 1024 disks and 4096 paths tells, in bytes.
	answerMax = 64 << 20
	// problemMax bounds what is repeated of an answer, in bytes.
	problemMax = 300
	// sdkPath is where both vCenter and ESXi serve the API.
	sdkPath = "/sdk"
)

// Reasons why a vCenter or host does not do what it is asked.
var (
	ErrUnreachable = errors.New("no answer")
	ErrCertificate = errors.New("its certificate is another one")
	ErrCredentials = errors.New("wrong user or password")
	ErrDenied      = errors.New("not allowed")
	ErrNotFound    = errors.New("not found")
	ErrExists      = errors.New("exists already")
	ErrInUse       = errors.New("in use")
	ErrHostAway    = errors.New("the host is not connected")
	ErrRefused     = errors.New("refused")
	ErrAnother     = errors.New("another disk")
	ErrBusy        = errors.New("a task is not over")
	ErrUnknown     = errors.New("it is not known what came of it")
	ErrNotOurs     = errors.New("another node may do it by now")
)

// Options say how to sign in.
type Options struct {
	URL        string // https://HOST or https://HOST/sdk
	User       string
	Secret     string
	Thumbprint string        // SHA-256 of the certificate, as Thumbprint gives it
	Timeout    time.Duration // of each request; 0: DefaultTimeout
	Permit     Permit        // nil: every request is permitted
}

// Center is a vCenter, or an ESXi host alone, after signing in. Close it.
type Center struct {
	opt    Options
	client *vim25.Client
	http   *http.Transport

	mu      sync.Mutex   // held while signing in again
	signIns atomic.Int64 // again
}

// ParseURL returns where the API is, or says in words why text cannot be that.
func ParseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https":
		return nil, errors.New("it is no URL such as https://vcenter.example.org")
	case u.User != nil:
		return nil, errors.New("it holds a user; give user and secret apart from it")
	case u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/" && u.Path != sdkPath:
		return nil, errors.New("it has more than host, port and /sdk")
	}
	return &url.URL{Scheme: "https", Host: u.Host, Path: sdkPath}, nil
}

// Thumbprint asks for the certificate without sending anything, and returns its SHA-256:
// 64 hexadecimal digits in pairs, with colons between them.
func Thumbprint(ctx context.Context, text string) (string, error) {
	u, err := ParseURL(text)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrRefused, err)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	d := tls.Dialer{Config: unverified(func(tls.ConnectionState) error { return nil })}
	c, err := d.DialContext(ctx, "tcp", address(u))
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	defer c.Close()
	return thumbprint(c.(*tls.Conn).ConnectionState()), nil
}

// unverified is for certificates that nobody known has signed: verify decides.
func unverified(verify func(tls.ConnectionState) error) *tls.Config {
	// The certificate itself is compared.
	return &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true, VerifyConnection: verify}
}

func address(u *url.URL) string {
	if u.Port() != "" {
		return u.Host
	}
	return net.JoinHostPort(u.Hostname(), "443")
}

func thumbprint(s tls.ConnectionState) string {
	if len(s.PeerCertificates) == 0 {
		return ""
	}
	sum := sha256.Sum256(s.PeerCertificates[0].Raw)
	text := strings.ToUpper(hex.EncodeToString(sum[:]))
	var b strings.Builder
	for i := 0; i < len(text); i += 2 {
		if i > 0 {
			b.WriteByte(':')
		}
		b.WriteString(text[i : i+2])
	}
	return b.String()
}

// Connect signs in. The errors are those above.
func Connect(ctx context.Context, o Options) (*Center, error) {
	u, err := ParseURL(o.URL)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	c := &Center{opt: o}
	s := soap.NewClient(u, true)
	s.UserAgent = "ovgate"
	c.http = s.DefaultTransport()
	c.http.TLSClientConfig = unverified(func(s tls.ConnectionState) error {
		if got := thumbprint(s); o.Thumbprint == "" || !strings.EqualFold(got, o.Thumbprint) {
			return fmt.Errorf("%w: it has the thumbprint %s", ErrCertificate, got)
		}
		return nil
	})
	dial := &tls.Dialer{NetDialer: &net.Dialer{Timeout: dialTimeout}, Config: c.http.TLSClientConfig}
	c.http.DialTLSContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		return dial.DialContext(ctx, network, addr)
	}
	c.http.Proxy = nil
	s.Client.Transport = limited{c.http}
	// A session goes to who was asked, not where an answer says.
	s.Client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	if c.client, err = vim25.NewClient(ctx, s); err != nil {
		c.http.CloseIdleConnections()
		return nil, explain("ask for the API", err)
	}
	if err := c.signIn(ctx); err != nil {
		c.http.CloseIdleConnections()
		return nil, err
	}
	c.client.RoundTripper = &again{c}
	return c, nil
}

func (c *Center) signIn(ctx context.Context) error {
	plain := *c.client
	plain.RoundTripper = c.client.Client // not through again
	return explain("sign in", session.NewManager(&plain).Login(ctx, url.UserPassword(c.opt.User, c.opt.Secret)))
}

// Close signs out.
func (c *Center) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	plain := *c.client
	plain.RoundTripper = c.client.Client
	_ = session.NewManager(&plain).Logout(ctx) // it expires by itself
	c.http.CloseIdleConnections()
}

// again signs in again when the session expired, and asks once more. What was refused for
// that was not carried out.
type again struct{ c *Center }

// RoundTrip implements soap.RoundTripper.
func (a *again) RoundTrip(ctx context.Context, req, res soap.HasFault) error {
	limit := a.c.limit(req)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ctx, err := a.c.permit(ctx, req, limit)
	if err != nil {
		return err
	}
	before := a.c.signIns.Load()
	err = a.c.client.Client.RoundTrip(ctx, req, res)
	if err == nil || !fault.Is(err, &types.NotAuthenticated{}) {
		return err
	}
	if err := a.signIn(ctx, before); err != nil {
		return err
	}
	reflect.ValueOf(res).Elem().SetZero() // it holds the fault
	return a.c.client.Client.RoundTrip(ctx, req, res)
}

// signIn signs in once for all requests that were under way when the session expired:
// before is how often it was done when one began. Who is signed in is refused.
func (a *again) signIn(ctx context.Context, before int64) error {
	a.c.mu.Lock()
	defer a.c.mu.Unlock()
	if a.c.signIns.Load() != before {
		return nil
	}
	if err := a.c.signIn(ctx); err != nil {
		return err
	}
	a.c.signIns.Add(1)
	return nil
}

// limited bounds answers, and asks once more for the permit of what is sent.
type limited struct{ base http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (l limited) RoundTrip(r *http.Request) (*http.Response, error) {
	if still, ok := r.Context().Value(stillKey{}).(func() error); ok && r.Body != nil {
		r = r.Clone(r.Context())
		r.Body, r.GetBody = &permitted{r.Body, still}, nil
	}
	resp, err := l.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Body = &body{resp.Body, answerMax}
	return resp, nil
}

// body ends with an error when it is too long.
type body struct {
	io.ReadCloser
	left int64
}

func (b *body) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("%w: an answer has more than %d bytes", ErrRefused, answerMax)
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// reasons give faults of the API their meaning; first match wins.
var reasons = []struct {
	fault types.BaseMethodFault
	is    error
}{
	{&types.InvalidLogin{}, ErrCredentials},
	{&types.NotAuthenticated{}, ErrCredentials},
	{&types.NoPermission{}, ErrDenied},
	{&types.HostNotConnected{}, ErrHostAway},
	{&types.HostNotReachable{}, ErrHostAway},
	{&types.HostCommunication{}, ErrHostAway},
	{&types.DuplicateName{}, ErrExists},
	{&types.AlreadyExists{}, ErrExists},
	{&types.ResourceInUse{}, ErrInUse},
	{&types.NotFound{}, ErrNotFound},
	{&types.ManagedObjectNotFound{}, ErrNotFound},
}

// explain gives an error of govmomi or below its reason; what is what was tried.
func explain(what string, err error) error {
	if err == nil {
		return nil
	}
	for _, own := range []error{ErrUnreachable, ErrCertificate, ErrCredentials, ErrDenied, ErrNotFound, ErrExists, ErrInUse, ErrHostAway, ErrRefused, ErrBusy, ErrNotOurs, context.Canceled} {
		if errors.Is(err, own) {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	for _, r := range reasons {
		if fault.Is(err, r.fault) {
			return fmt.Errorf("%s: %w: %s", what, r.is, words(err))
		}
	}
	var net net.Error
	var u *url.Error
	if errors.As(err, &net) || errors.As(err, &u) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: %w: %s", what, ErrUnreachable, words(err))
	}
	return fmt.Errorf("%s: %w: %s", what, ErrRefused, words(err))
}

// words are what the other side said, bounded.
func words(err error) string {
	text := strings.Join(strings.Fields(strings.ToValidUTF8(err.Error(), "?")), " ")
	if len(text) > problemMax {
		text = text[:problemMax] + "…"
	}
	return text
}
