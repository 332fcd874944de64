package swift

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	lib "github.com/ncw/swift/v2"

	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
)

// Times and bounds of logins.
const (
	// loginPause is the least time between two logins: an outage or a wrong secret
	// must not become a flood, and identity services lock out who fails too often.
	loginPause = 5 * time.Second
	// loginTimeout bounds one login.
	loginTimeout = 30 * time.Second
	// renewBefore is how long before its end a token is replaced; a shorter-lived one
	// after three quarters of its life.
	renewBefore = 5 * time.Minute
	// maxLoginBytes bounds the answer to a login, which holds the catalog.
	maxLoginBytes = 4 << 20
	// maxTokenBytes bounds a token. Keystone's have some 200 bytes, signed ones 8 KiB.
	maxTokenBytes = 16 << 10
)

const userAgent = "ovgate"

// token is the outcome of a login.
type token struct {
	value, url string
	renew, end time.Time // zero: unknown
}

// session holds the token of a store and replaces it (W2).
type session struct {
	o    Options
	base http.RoundTripper
	turn chan struct{} // held by who logs in

	mu     sync.Mutex
	token  token
	tried  time.Time // when the last login began
	failed error     // how it ended
}

func newSession(o Options, base http.RoundTripper) *session {
	return &session{o: o, base: base, turn: make(chan struct{}, 1)}
}

// current returns a token, from a login if there is none or it is old.
func (s *session) current(ctx context.Context) (token, error) {
	s.mu.Lock()
	t := s.token
	s.mu.Unlock()
	if t.value != "" && (t.renew.IsZero() || s.o.Clock.Now().Before(t.renew)) {
		return t, nil
	}
	return s.replace(ctx, t, false)
}

// replace logs in, unless another call has meanwhile replaced old. refused tells that
// the store does not take old; else it is used on when no login succeeds, while it
// lasts.
func (s *session) replace(ctx context.Context, old token, refused bool) (token, error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return token{}, fmt.Errorf("swift: log in: %w", ctx.Err())
	}
	s.mu.Lock()
	now := s.o.Clock.Now()
	t, failed, soon := s.token, s.failed, !s.tried.IsZero() && now.Sub(s.tried) < loginPause
	s.mu.Unlock()
	if t.value != old.value {
		return t, nil
	}
	usable := t.value != "" && !refused && now.Before(t.end)
	if soon {
		switch {
		case usable:
			return t, nil
		case failed != nil:
			return token{}, failed
		}
		return token{}, &remote.Error{Op: "log in", Status: http.StatusUnauthorized, Kind: remote.ErrCredentials,
			Message: "the store refuses a token that was made just now"}
	}
	t, err := s.login(ctx)
	if err != nil && ctx.Err() != nil {
		return token{}, err // says nothing of the store
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tried, s.failed = now, err
	switch {
	case err == nil:
		s.token = t
		return t, nil
	case usable:
		return old, nil
	}
	return token{}, err
}

// login asks the identity service once; twice for version 2, which has two forms.
func (s *session) login(ctx context.Context) (token, error) {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	o := s.o
	trip := &loginTrip{base: s.base, left: 1}
	if o.AuthVersion == 2 {
		trip.left = 2
	}
	c := &lib.Connection{
		AuthUrl: o.AuthURL, AuthVersion: o.AuthVersion, UserName: o.User, ApiKey: o.Key, Domain: o.Domain, DomainId: o.DomainID,
		Tenant: o.Project, TenantId: o.ProjectID, TenantDomain: o.ProjectDomain, TenantDomainId: o.ProjectDomainID,
		ApplicationCredentialId: o.ApplicationCredential.ID, ApplicationCredentialName: o.ApplicationCredential.Name,
		ApplicationCredentialSecret: o.ApplicationCredential.Secret, TrustId: o.TrustID, Region: o.Region,
		EndpointType: lib.EndpointType(o.EndpointType), UserAgent: userAgent, Transport: trip,
		Retries: -1, ConnectTimeout: loginTimeout, Timeout: loginTimeout,
	}
	began := o.Clock.Now()
	// The library takes a token for useless that has ended by this machine's clock, which
	// may be wrong.
	if err := c.Authenticate(ctx); err != nil && (trip.status/100 != 2 || c.StorageUrl == "" || c.AuthToken == "") {
		return token{}, s.loginError(ctx, trip, err)
	}
	u, err := url.Parse(c.StorageUrl)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" {
		return token{}, &remote.Error{Op: "log in", Kind: backend.ErrUnsupported, Message: "the identity service names no usable storage URL"}
	}
	if len(c.AuthToken) > maxTokenBytes {
		return token{}, &remote.Error{Op: "log in", Kind: backend.ErrUnsupported, Message: fmt.Sprintf("a token of %d bytes", len(c.AuthToken))}
	}
	t := token{value: c.AuthToken, url: strings.TrimRight(c.StorageUrl, "/")}
	if life := trip.life(c.Expires); life > 2*loginPause {
		t.end = began.Add(life)
		t.renew = t.end.Add(-min(renewBefore, life/4))
	}
	return t, nil
}

func (s *session) loginError(ctx context.Context, trip *loginTrip, err error) error {
	e := &remote.Error{Op: "log in", Name: "at " + s.o.AuthURL, Status: trip.status}
	switch {
	case ctx.Err() != nil:
		e.Status, e.Err = 0, ctx.Err()
	case trip.status == 0:
		e.Kind, e.Err = remote.Classify(err), plain(err)
		if errors.Is(err, lib.TimeoutError) {
			e.Kind = remote.ErrUnreachable
		}
	case trip.status/100 == 2:
		e.Kind = backend.ErrUnsupported
		e.Message = fmt.Sprintf("the answer names no object store for endpoint type %s, region %q: check these and the project", s.o.EndpointType, s.o.Region)
	case trip.status/100 == 3:
		e.Kind, e.Message = backend.ErrUnsupported, "a redirect, which is not followed: correct the URL"
	default:
		e.RetryAfter = remote.RetryAfter(trip.header, s.o.Clock.Now())
		e.Message = message([]byte(err.Error()), s.o.secrets()...)
		e.Kind = kind(trip.status, e.RetryAfter, "")
		switch trip.status {
		case http.StatusBadRequest: // Keystone's answer to a domain or project that is missing
			e.Kind = remote.ErrCredentials
		case http.StatusNotFound:
			e.Kind, e.Message = backend.ErrUnsupported, "no identity service there: check the path and the version"
		}
	}
	return e
}

// loginTrip bounds what the library does: so many requests, no redirects, answers of
// bounded size. It keeps what the library drops.
type loginTrip struct {
	base   http.RoundTripper
	left   int
	status int
	header http.Header
}

var errLoginOnce = errors.New("swift: one login at a time")

// RoundTrip implements http.RoundTripper.
func (l *loginTrip) RoundTrip(req *http.Request) (*http.Response, error) {
	if l.left == 0 {
		return nil, errLoginOnce
	}
	l.left--
	resp, err := l.base.RoundTrip(req)
	if err != nil {
		l.status = 0
		return nil, err
	}
	l.status, l.header = resp.StatusCode, resp.Header
	if resp.StatusCode/100 == 3 {
		l.left = 0
		_ = resp.Body.Close()
		return nil, errors.New("redirected")
	}
	resp.Body = bounded{io.LimitReader(resp.Body, maxLoginBytes), resp.Body}
	return resp, nil
}

// bounded is a body that ends early.
type bounded struct {
	io.Reader
	io.Closer
}

// life returns how long the token lasts, by the clock of the service that made it; 0:
// unknown.
func (l *loginTrip) life(end time.Time) time.Duration {
	if n, err := strconv.Atoi(l.header.Get("X-Auth-Token-Expires")); err == nil && n > 0 && n < 1<<31 {
		return time.Duration(n) * time.Second
	}
	at, err := http.ParseTime(l.header.Get("Date"))
	if err != nil || end.IsZero() {
		return 0
	}
	return end.Sub(at)
}
