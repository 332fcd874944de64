package api

import (
	"encoding/base64"
	"errors"
	"io"
	"math"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

	"github.com/openvstorage/ovgate/gateway/auth"
	"github.com/openvstorage/ovgate/gateway/model"
)

// maxForm bounds the body of a request of OAuth2: a password of 4096 bytes, escaped, and a scope.
const maxForm = 32 << 10

// oauthError is an answer of RFC 6749 section 5.2.
type oauthError struct {
	status int
	code   OAuthErrorError
	text   string
	after  time.Duration // Retry-After
}

func (e *oauthError) Error() string { return string(e.code) + ": " + e.text }

func badOAuth(code OAuthErrorError, text string) error {
	return &oauthError{status: http.StatusBadRequest, code: code, text: text}
}

// oauth serves an operation of OAuth2: it reads the form, knows the client, and answers errors as
// the RFC says.
func (s *Server) oauth(op string) echo.HandlerFunc {
	return func(c echo.Context) error {
		h := c.Response().Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Pragma", "no-cache")
		form, err := readForm(c.Request())
		if err == nil {
			err = s.oauthDo(c, op, form)
		}
		if err == nil {
			return nil
		}
		e := oauthErrorOf(err)
		if n := notedOf(c); n != nil {
			n.e.Code = string(e.code)
		}
		if e.status >= http.StatusInternalServerError {
			s.log.Error("request failed", "requestId", requestID(c), "operation", op, "err", err)
		}
		if e.status == http.StatusUnauthorized {
			h.Set("WWW-Authenticate", `Basic realm="ovgate"`)
		}
		if e.after > 0 {
			h.Set("Retry-After", strconv.Itoa(int(e.after/time.Second)+1))
		}
		return c.JSON(e.status, OAuthError{Error: e.code, ErrorDescription: e.text})
	}
}

// oauthErrorOf gives any error its answer.
func oauthErrorOf(err error) *oauthError {
	var e *oauthError
	var rate *auth.RateError
	switch {
	case errors.As(err, &e):
		return e
	case errors.As(err, &rate):
		return &oauthError{http.StatusTooManyRequests, OAuthErrorErrorTemporarilyUnavailable, rate.Error(), rate.After}
	case errors.Is(err, auth.ErrCredentials):
		return &oauthError{status: http.StatusBadRequest, code: OAuthErrorErrorInvalidGrant, text: "the user, password or refresh token is not valid, or not any more"}
	case errors.Is(err, auth.ErrScope):
		return &oauthError{status: http.StatusBadRequest, code: OAuthErrorErrorInvalidScope, text: err.Error()}
	case errors.Is(err, auth.ErrTooMany):
		return &oauthError{http.StatusServiceUnavailable, OAuthErrorErrorTemporarilyUnavailable, "there are too many tokens: try again when some have expired", time.Minute}
	}
	return &oauthError{status: http.StatusServiceUnavailable, code: OAuthErrorErrorTemporarilyUnavailable, text: "it failed: try again, and look the request id up in the node's log", after: soon}
}

// readForm reads a form in which nothing is twice (RFC 6749 section 3.2). Parameters of the address
// are none: they are logged on the way.
func readForm(r *http.Request) (url.Values, error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != echo.MIMEApplicationForm {
		return nil, badOAuth(OAuthErrorErrorInvalidRequest, "send application/x-www-form-urlencoded")
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, maxForm+1))
	if err != nil || len(b) > maxForm {
		return nil, badOAuth(OAuthErrorErrorInvalidRequest, "the request body is too long, or was cut off")
	}
	form, err := url.ParseQuery(string(b))
	if err != nil || r.URL.RawQuery != "" {
		return nil, badOAuth(OAuthErrorErrorInvalidRequest, "the form is damaged, or there are parameters in the address")
	}
	for name, values := range form {
		if len(values) > 1 || !utf8.ValidString(name+values[0]) {
			return nil, badOAuth(OAuthErrorErrorInvalidRequest, "a parameter is there twice, or is no text")
		}
	}
	return form, nil
}

// clientSecret returns what a client authenticates with (RFC 6749 section 2.3.1): by one way alone.
func clientSecret(r *http.Request, form url.Values) (id, secret string, err error) {
	h := r.Header.Get("Authorization")
	if h == "" {
		return form.Get("client_id"), form.Get("client_secret"), nil
	}
	bad := &oauthError{status: http.StatusUnauthorized, code: OAuthErrorErrorInvalidClient, text: "the Authorization header is not that of HTTP Basic"}
	scheme, text, _ := strings.Cut(h, " ")
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil || !strings.EqualFold(scheme, "Basic") {
		return "", "", bad
	}
	id, secret, ok := strings.Cut(string(b), ":")
	id, err1 := url.QueryUnescape(id)
	secret, err2 := url.QueryUnescape(secret)
	if !ok || err1 != nil || err2 != nil {
		return "", "", bad
	}
	if form.Has("client_secret") || form.Has("client_id") && form.Get("client_id") != id {
		return "", "", badOAuth(OAuthErrorErrorInvalidRequest, "the client authenticates in two ways: use one")
	}
	return id, secret, nil
}

// oauthDo carries out an operation of OAuth2.
func (s *Server) oauthDo(c echo.Context, op string, form url.Values) error {
	r := c.Request()
	ctx := r.Context()
	who := callerOf(ctx)
	id, secret, err := clientSecret(r, form)
	if err != nil {
		return err
	}
	client, err := s.opt.Auth.AuthenticateClient(ctx, who.address, id, secret)
	if errors.Is(err, auth.ErrCredentials) {
		return &oauthError{status: http.StatusUnauthorized, code: OAuthErrorErrorInvalidClient, text: "there is no such client, or its secret is another one"}
	}
	if err != nil {
		return err
	}
	noteSignIn(ctx, "client "+client.Name)
	if op == "RevokeOAuthToken" {
		if form.Get("token") == "" {
			return badOAuth(OAuthErrorErrorInvalidRequest, "send the token")
		}
		if err := s.opt.Auth.RevokeGiven(ctx, client, form.Get("token")); err != nil {
			return err
		}
		return c.NoContent(http.StatusOK)
	}
	given, err := s.giveOAuth(c, client, form)
	if err != nil {
		return err
	}
	noteSignIn(ctx, "user "+given.User+" by client "+client.Name)
	seconds := math.Ceil(given.Expires.Sub(s.clock.Now()).Seconds())
	return c.JSON(http.StatusOK, OAuthToken{
		AccessToken: given.Access, TokenType: OAuthTokenTokenTypeBearer, ExpiresIn: int(seconds), RefreshToken: some(given.Refresh), Scope: given.Scope,
	})
}

// giveOAuth gives a client a token.
func (s *Server) giveOAuth(c echo.Context, client model.Client, form url.Values) (auth.Given, error) {
	ctx := c.Request().Context()
	grant, scope := form.Get("grant_type"), form.Get("scope")
	switch grant {
	case "":
		return auth.Given{}, badOAuth(OAuthErrorErrorInvalidRequest, "send a grant_type")
	case auth.GrantClient, auth.GrantPassword, "refresh_token":
	default:
		return auth.Given{}, badOAuth(OAuthErrorErrorUnsupportedGrantType, "use client_credentials, password or refresh_token")
	}
	if !auth.Allows(client, grant) {
		return auth.Given{}, badOAuth(OAuthErrorErrorUnauthorizedClient, "this client is not for that grant_type")
	}
	need := map[string][]string{auth.GrantPassword: {"username", "password"}, "refresh_token": {"refresh_token"}}[grant]
	for _, name := range need {
		if form.Get(name) == "" {
			return auth.Given{}, badOAuth(OAuthErrorErrorInvalidRequest, "send the "+name)
		}
	}
	switch grant {
	case auth.GrantPassword:
		return s.opt.Auth.GivePassword(ctx, callerOf(ctx).address, client, form.Get("username"), form.Get("password"), scope)
	case "refresh_token":
		return s.opt.Auth.GiveRefresh(ctx, client, form.Get("refresh_token"), scope)
	}
	return s.opt.Auth.GiveClient(ctx, client, scope)
}
