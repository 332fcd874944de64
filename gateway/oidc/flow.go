package oidc

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"
	"unicode"

	goidc "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/openvstorage/ovgate/gateway/auth"
	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
)

const (
	// FlowLimit is how long somebody may take to sign in at the provider.
	FlowLimit = 10 * time.Minute
	// ReturnPath is where the provider sends a browser back to, below a console's address.
	ReturnPath = "/login/oidc"
	// flowID is what flows are sealed for.
	flowID = "oidc flow"
	// maxReturn bounds the path to come back to, so that the cookie stays below 4 KiB.
	maxReturn = 1024
	// maxCode bounds a code, in bytes; those in use have up to some 1500.
	maxCode = 8192
	// maxSpent bounds the flows that are remembered as over, of the last FlowLimit.
	maxSpent = 10_000
)

// flow is a sign-in that was begun.
type flow struct {
	State    string    `json:"state"`
	Nonce    string    `json:"nonce"`
	Verifier string    `json:"verifier"`
	Console  string    `json:"console"`
	ReturnTo string    `json:"returnTo"`
	Revision int64     `json:"revision"` // of the provider's record
	Ends     time.Time `json:"ends"`
}

// Answer is what the provider sent a browser back with.
type Answer struct {
	State, Code string
	Issuer      string // RFC 9207; may be empty
	Err, Why    string // in place of a code
}

// RefusedError says why the provider's word does not let somebody in.
type RefusedError struct {
	Object  string // "user anna"; empty: not known
	Message string
	Hint    string
	cause   error // for the log; it has no token in it
}

func (e *RefusedError) Error() string { return e.Message }

// Unwrap returns the cause.
func (e *RefusedError) Unwrap() error { return e.cause }

// AwayError says that the provider, called Name, does not answer as it should.
type AwayError struct {
	Name  string
	cause error
}

func (e *AwayError) Error() string {
	return e.Name + " cannot be asked at the moment"
}

// Unwrap returns the cause, which is for administrators.
func (e *AwayError) Unwrap() error { return e.cause }

const startAgain = "begin again on the sign-in page"

func refusal(cause error, hint, format string, a ...any) error {
	return &RefusedError{Message: fmt.Sprintf(format, a...), Hint: hint, cause: cause}
}

// Begin starts a sign-in from a console. It returns the address of the provider to go to, and
// what the browser is to keep for Finish, for FlowLimit. returnTo is the path of the console
// to show afterwards; empty: its first page.
func (s *Service) Begin(ctx context.Context, console, returnTo string) (to, kept string, err error) {
	o, ok := s.opt.Model.OIDC()
	if !ok {
		return "", "", errNone
	}
	if s.opt.Auth.NeedsSetup() {
		return "", "", &control.Error{Code: control.CodeInvalid, Object: object, Message: "there is no administrator yet", Hint: "set the node up first, with the token that it printed"}
	}
	if console, err = s.console(o, console); err != nil {
		return "", "", err
	}
	if returnTo, err = localPath(returnTo); err != nil {
		return "", "", err
	}
	p, err := s.provider(ctx, o)
	if err != nil {
		return "", "", err
	}
	f := flow{State: rand.Text(), Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(), Console: console, ReturnTo: returnTo, Revision: o.Rev, Ends: s.clock.Now().Add(FlowLimit)}
	b, err := json.Marshal(f)
	if err != nil {
		return "", "", err
	}
	sealed, err := s.opt.Sealer.Seal(flowID, string(b))
	if err != nil {
		return "", "", err
	}
	config := oauth2.Config{ClientID: o.ClientID, Endpoint: p.endpoint, RedirectURL: console + ReturnPath, Scopes: o.Scopes}
	return config.AuthCodeURL(f.State, goidc.Nonce(f.Nonce), oauth2.S256ChallengeOption(f.Verifier)), base64.RawURLEncoding.EncodeToString(sealed), nil
}

// console returns the address of o that is meant.
func (s *Service) console(o model.OIDC, at string) (string, error) {
	at, err := address(at)
	if err == nil {
		for _, a := range o.Addresses {
			if a == at {
				return a, nil
			}
		}
	}
	return "", &control.Error{
		Code: control.CodeInvalid, Field: "address", Object: object, Message: fmt.Sprintf("%s does not send people back to %q", o.Name, clip(at)),
		Hint: "open the console at " + strings.Join(o.Addresses, " or ") + ", or have this address added: ovgate oidc set --address",
	}
}

// localPath checks the path of a page of the console (D5).
func localPath(s string) (string, error) {
	if s == "" {
		return "/", nil
	}
	bad := &control.Error{Code: control.CodeInvalid, Field: "returnTo", Object: object, Message: "this is no page of the console", Hint: "name a path such as /vdisks"}
	if len(s) > maxReturn || s[0] != '/' || strings.HasPrefix(s, "//") || strings.ContainsFunc(s, func(r rune) bool { return r == '\\' || !unicode.IsGraphic(r) }) {
		return "", bad
	}
	u, err := url.Parse(s)
	if err != nil || u.IsAbs() || u.Host != "" || strings.HasPrefix(u.Path, "//") || strings.HasPrefix(u.Path, "/api/") || strings.Contains(u.Path, "\\") {
		return "", bad
	}
	return s, nil
}

// Finish ends a sign-in: kept is what Begin gave the browser. It returns the session, and the
// path of the console to show. RefusedError, AwayError, auth.RateError and others; after any of
// them a sign-in begins anew.
func (s *Service) Finish(ctx context.Context, addr, kept string, a Answer) (v auth.Session, returnTo string, err error) {
	f, err := s.open(kept, a.State)
	if err != nil {
		return v, "", err
	}
	o, ok := s.opt.Model.OIDC()
	if !ok {
		return v, "", errNone
	}
	if o.Rev != f.Revision {
		return v, "", refusal(nil, startAgain, "how to sign in through %s was changed meanwhile", o.Name)
	}
	giveBack, err := s.opt.Auth.Attempt(addr)
	if err != nil {
		return v, "", err
	}
	if !s.spent.spend(f.State, s.clock.Now()) {
		return v, "", refusal(nil, startAgain, "this sign-in is over already")
	}
	v, err = s.finish(ctx, addr, o, f, a)
	var refused *RefusedError
	var away *AwayError
	switch {
	case err == nil:
		giveBack()
		return v, f.ReturnTo, nil
	case errors.As(err, &away):
		giveBack() // it is not the user's doing
	case errors.As(err, &refused):
		s.log.Warn("sign-in through the provider refused", "address", addr, "user", refused.Object, "reason", refused.Message, "err", refused.cause)
		s.opt.Auth.RefusedExternal(addr)
	}
	return v, "", err
}

// open checks that a flow is this browser's, and lasts (D2).
func (s *Service) open(kept, state string) (f flow, err error) {
	if kept == "" {
		return f, refusal(nil, startAgain+", with cookies allowed", "this browser has not begun to sign in, or took longer than %s", FlowLimit)
	}
	bad := refusal(nil, startAgain, "this sign-in was not begun by this browser, or begun once more since")
	sealed, err := base64.RawURLEncoding.DecodeString(kept)
	if err != nil {
		return f, bad
	}
	text, err := s.opt.Sealer.Open(flowID, sealed)
	if err != nil || json.Unmarshal([]byte(text), &f) != nil || f.State == "" || subtle.ConstantTimeCompare([]byte(f.State), []byte(state)) != 1 {
		return f, bad
	}
	if !s.clock.Now().Before(f.Ends) {
		return f, refusal(nil, startAgain, "signing in took longer than %s", FlowLimit)
	}
	return f, nil
}

// spent remembers flows that are over. Beyond this node, the provider takes a code once.
type spent struct {
	mu    sync.Mutex
	until map[string]time.Time
}

// spend tells whether a flow was not over yet; it is now.
func (s *spent) spend(state string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, over := s.until[state]; over {
		return false
	}
	if len(s.until) >= maxSpent {
		for k, until := range s.until {
			if now.After(until) {
				delete(s.until, k)
			}
		}
		if len(s.until) >= maxSpent {
			return false
		}
	}
	if s.until == nil {
		s.until = map[string]time.Time{}
	}
	s.until[state] = now.Add(FlowLimit)
	return true
}

func (s *Service) finish(ctx context.Context, addr string, o model.OIDC, f flow, a Answer) (v auth.Session, err error) {
	p, err := s.provider(ctx, o)
	if err != nil {
		return v, err
	}
	if a.Issuer != "" && a.Issuer != o.Issuer || a.Issuer == "" && p.tellsIss {
		return v, refusal(nil, startAgain, "the answer is not from %s", o.Name)
	}
	if a.Err != "" {
		return v, refusal(nil, "ask its administrators when that is not what you chose", "%s did not let you in: %s", o.Name, strings.TrimSpace(clean(a.Err)+" "+clean(a.Why)))
	}
	if a.Code == "" || len(a.Code) > maxCode {
		return v, refusal(nil, startAgain, "the answer of %s has no code, or one that is too long", o.Name)
	}
	token, err := s.exchange(ctx, o, p, f, a.Code)
	if err != nil {
		return v, err
	}
	id, err := s.identity(ctx, o, p, f, token)
	if err != nil {
		return v, err
	}
	v, err = s.opt.Auth.SignInExternal(ctx, addr, f.Console, id)
	who := "user " + clip(id.Name)
	switch {
	case errors.Is(err, auth.ErrNoEntry):
		return v, &RefusedError{Object: who, Message: "none of your groups at " + o.Name + " may enter", Hint: "ask an administrator of this cluster for a group that may", cause: err}
	case errors.Is(err, auth.ErrNameTaken):
		return v, &RefusedError{Object: who, Message: "another user has this name here, who does not become yours by it", Hint: "ask an administrator to rename one of the two, or to delete the other user", cause: err}
	}
	return v, err
}

// exchange gets the tokens for a code.
func (s *Service) exchange(ctx context.Context, o model.OIDC, p *provider, f flow, code string) (*oauth2.Token, error) {
	secret, err := s.secret(o)
	if err != nil {
		return nil, err
	}
	config := oauth2.Config{ClientID: o.ClientID, ClientSecret: secret, Endpoint: p.endpoint, RedirectURL: f.Console + ReturnPath}
	token, err := config.Exchange(goidc.ClientContext(ctx, p.client), code, oauth2.VerifierOption(f.Verifier))
	var said *oauth2.RetrieveError
	switch {
	case errors.As(err, &said) && said.Response != nil && said.Response.StatusCode < 500:
		// What else is in its answer is not told: it may have anything in it (D3).
		why := clean(said.ErrorCode)
		return nil, refusal(fmt.Errorf("token endpoint: status %d, error %q", said.Response.StatusCode, why), startAgain+"; administrators: ovgate oidc test", "%s did not take the sign-in: %s", o.Name, why)
	case errors.As(err, &said):
		return nil, s.away(o, fmt.Errorf("token endpoint: it does not work"))
	case err != nil:
		return nil, s.away(o, fmt.Errorf("token endpoint: %s", clean(err.Error())))
	}
	return token, nil
}

// identity reads who somebody is from an ID token (D1), and from userinfo what it leaves out.
func (s *Service) identity(ctx context.Context, o model.OIDC, p *provider, f flow, token *oauth2.Token) (id auth.Identity, err error) {
	untrue := func(cause error) error {
		return refusal(cause, startAgain+"; administrators find the reason in the node's log", "what %s says of you cannot be trusted", o.Name)
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok || raw == "" {
		return id, untrue(errors.New("there is no ID token"))
	}
	if err := p.keys.ready(ctx); err != nil {
		return id, s.away(o, errors.New(clean(err.Error())))
	}
	t, err := p.verifier.Verify(goidc.ClientContext(ctx, p.client), raw)
	if err != nil {
		return id, untrue(errors.New(clean(err.Error())))
	}
	claims := map[string]any{}
	if err := t.Claims(&claims); err != nil {
		return id, untrue(errors.New("its claims are not an object"))
	}
	azp, _ := claims["azp"].(string)
	switch {
	case subtle.ConstantTimeCompare([]byte(t.Nonce), []byte(f.Nonce)) != 1:
		return id, untrue(errors.New("the nonce is another one"))
	case azp != "" && azp != o.ClientID, len(t.Audience) > 1 && azp == "":
		return id, untrue(errors.New("it is for another client"))
	case t.AccessTokenHash != "" && t.VerifyAccessToken(token.AccessToken) != nil:
		return id, untrue(errors.New("the access token is another one"))
	case t.Subject == "" || len(t.Subject) > maxSubject:
		return id, untrue(errors.New("its subject is missing, or too long"))
	}
	if p.userinfo != "" && (claim(claims, o.NameClaim) == nil || claim(claims, o.GroupsClaim) == nil) {
		if err := s.userinfo(ctx, o, p, token.AccessToken, t.Subject, claims); err != nil {
			return id, err
		}
	}
	name, _ := claim(claims, o.NameClaim).(string)
	return auth.Identity{Issuer: o.Issuer, Subject: t.Subject, Name: name, Role: roleOf(o.Roles, claim(claims, o.GroupsClaim))}, nil
}

// userinfo adds the claims that the ID token does not have.
func (s *Service) userinfo(ctx context.Context, o model.OIDC, p *provider, token, subject string, claims map[string]any) error {
	body, err := get(ctx, p.client, p.userinfo, token)
	if err != nil {
		return s.away(o, fmt.Errorf("userinfo: %s", clean(err.Error())))
	}
	var more map[string]any
	if err := json.Unmarshal(body, &more); err != nil {
		return s.away(o, errors.New("userinfo: the answer is not a JSON object"))
	}
	if more["sub"] != subject {
		return refusal(errors.New("userinfo is about somebody else"), startAgain, "what %s says of you cannot be trusted", o.Name)
	}
	for k, v := range more {
		if _, ok := claims[k]; !ok {
			claims[k] = v
		}
	}
	return nil
}

// claim returns a claim by its name, or by a path of names with dots between.
func claim(claims map[string]any, name string) any {
	if v, ok := claims[name]; ok {
		return v
	}
	first, rest, ok := strings.Cut(name, ".")
	if below, is := claims[first].(map[string]any); ok && is {
		return claim(below, rest)
	}
	return nil
}

// roleOf returns the largest role that groups give; empty: none (D6).
func roleOf(roles []model.OIDCRole, groups any) (best auth.Role) {
	var in []any
	switch g := groups.(type) {
	case []any:
		in = g
	case string:
		in = []any{g}
	}
	for _, g := range in {
		for _, r := range roles {
			if role := auth.Role(r.Role); r.Group == g && !best.Allows(role) {
				best = role
			}
		}
	}
	return best
}

// EndURL returns where the session at the provider ends after one here has; empty: nowhere, or
// the provider was not asked yet. console is that of the session.
func (s *Service) EndURL(console string) string {
	o, ok := s.opt.Model.OIDC()
	if !ok || console == "" {
		return ""
	}
	p := s.cache.known(o.Rev)
	if p == nil || p.end == "" {
		return ""
	}
	u, err := url.Parse(p.end)
	if err != nil {
		return ""
	}
	q := u.Query()
	q.Set("client_id", o.ClientID)
	q.Set("post_logout_redirect_uri", console+"/login")
	u.RawQuery = q.Encode()
	return u.String()
}

// clean makes other people's text fit for a message.
func clean(s string) string {
	return clip(strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) {
			return ' '
		}
		return r
	}, s))
}

// clip bounds a text.
func clip(s string) string {
	if r := []rune(strings.ToValidUTF8(s, "?")); len(r) > maxText {
		return string(r[:maxText]) + "…"
	}
	return s
}
