package api

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/openvstorage/ovgate/gateway/auth"
)

const (
	sessionCookie = "ovgate_session"
	csrfCookie    = "ovgate_csrf"
	csrfHeader    = "X-CSRF-Token"
	flowCookie    = "ovgate_oidc"
)

// caller is what handlers know of who asks.
type caller struct {
	auth.Principal
	known   bool
	address string // remote host
	cookie  bool   // known by a browser session
	node    string // id of the node that passed the request on; empty: none did
	flow    string // the sign-in through a provider that the browser has begun; empty: none
}

type callerKey struct{}

func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

// guard lets an operation's rule decide before the body is read (H1).
func (s *Server) guard(op string) echo.MiddlewareFunc { return s.guardBy(op, rules[op]) }

func (s *Server) guardBy(op string, rule rule) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			r := c.Request()
			// A stream is no activity of its user: an open tab does not keep a
			// session from idling out.
			who, err := s.identify(r, op != "StreamEvents")
			if n := notedOf(c); n != nil {
				n.set(who)
			}
			if err != nil && !rule.public {
				return err
			}
			if !rule.public {
				if !who.known {
					return refuse(http.StatusUnauthorized, "unauthorized", "", "sign in, or send a bearer token", "this needs a sign-in")
				}
				if done, err := s.admit(c, rule, who); done || err != nil {
					return err
				}
			}
			if err := fit(c); err != nil {
				return err
			}
			if rule.nodes && who.node == "" {
				return refuse(http.StatusForbidden, "forbidden", "", "make a group snapshot with: ovgate snapshot group", "nodes of the cluster do this among themselves")
			}
			if err := s.checkOrigin(r, who); err != nil {
				return err
			}
			if err := s.extend(c, op, who); err != nil {
				return err
			}
			if k, err := r.Cookie(flowCookie); err == nil {
				who.flow = k.Value
			}
			c.SetRequest(r.WithContext(context.WithValue(r.Context(), callerKey{}, who)))
			if s.log.Enabled(r.Context(), logAll) || r.Method != http.MethodGet && !rule.quiet {
				s.log.Info("request", "requestId", requestID(c), "operation", op, "path", r.URL.Path, "caller", who.label(), "address", who.address)
			}
			return next(c)
		}
	}
}

// maxRef bounds what a path names an object by, in bytes without escapes: above a vPool's and
// a vDisk's name with a slash between, and below what the registry takes as a key.
const maxRef = 768

// fit refuses names in the path that no object can have, before anything looks for them.
func fit(c echo.Context) error {
	for i, v := range c.ParamValues() {
		if plain, err := url.PathUnescape(v); err == nil {
			v = plain
		}
		if len(v) > maxRef {
			name := c.ParamNames()[i]
			return refuse(http.StatusNotFound, "not_found", name+" "+clip(v), "", "there is no such %s: a name has at most 255 bytes", name)
		}
	}
	return nil
}

// extend gives a known caller the time that its operation may take. Up to here
// the connection has readTimeout, and net/http ends a request whose read
// deadline passes, also while its handler works.
func (s *Server) extend(c echo.Context, op string, who caller) error {
	if !who.known {
		return nil
	}
	var until time.Time // a stream has no end
	if op != "StreamEvents" {
		until = time.Now().Add(writeTimeout)
	}
	err := http.NewResponseController(c.Response()).SetReadDeadline(until)
	if errors.Is(err, http.ErrNotSupported) {
		return nil // not on a connection, as in tests
	}
	return err
}

// logAll also logs requests that change nothing.
const logAll = -4 // slog.LevelDebug

func (c caller) label() string {
	if !c.known {
		return ""
	}
	return c.String()
}

// identify finds out who asks; unknown without an error when no credentials
// were given. A bearer token goes before a cookie.
func (s *Server) identify(r *http.Request, active bool) (caller, error) {
	who := caller{address: r.RemoteAddr}
	if h, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		who.address = h
	}
	if s.opt.Peers != nil {
		if who.node = s.opt.Peers.From(r.TLS); who.node != "" {
			p, err := passedCaller(r)
			who.Principal, who.known = p, err == nil
			return who, err
		}
	}
	if h := r.Header.Get("Authorization"); h != "" {
		token, ok := cutBearer(h)
		if !ok {
			return who, refuse(http.StatusUnauthorized, "unauthorized", "token", "send Authorization: Bearer TOKEN", "the Authorization header is not a bearer token")
		}
		p, err := s.opt.Auth.Bearer(token)
		if err != nil && strings.Count(token, ".") == 2 {
			return who, refuse(http.StatusUnauthorized, "unauthorized", "token", "create one of ovgate with: ovgate user token create", "tokens of a sign-in provider are not taken here")
		}
		if err != nil {
			return who, refuse(http.StatusUnauthorized, "unauthorized", "token", "create one with: ovgate user token create", "the bearer token is not valid, or has expired")
		}
		who.Principal, who.known = p, true
		return who, nil
	}
	c, err := r.Cookie(sessionCookie)
	if err != nil {
		return who, nil
	}
	p, err := s.opt.Auth.Browser(c.Value, active)
	if err != nil {
		return who, refuse(http.StatusUnauthorized, "unauthorized", "session", "sign in again", "the session has ended")
	}
	who.Principal, who.known, who.cookie = p, true, true
	return who, nil
}

func cutBearer(h string) (string, bool) {
	scheme, token, ok := strings.Cut(h, " ")
	return strings.TrimSpace(token), ok && strings.EqualFold(scheme, "Bearer")
}

// checkOrigin refuses changes that another site makes a browser send (H5).
func (s *Server) checkOrigin(r *http.Request, who caller) error {
	if r.Method == http.MethodGet || r.Method == http.MethodHead || r.Header.Get("Authorization") != "" || who.node != "" {
		return nil
	}
	bad := refuse(http.StatusForbidden, "csrf", "", "reload the page and try again", "the request does not come from this node's own page")
	if err := s.origin.Check(r); err != nil {
		return errors.Join(bad, err)
	}
	if who.cookie && !s.opt.Auth.CheckCSRF(who.Principal, r.Header.Get(csrfHeader)) {
		return bad
	}
	return nil
}
