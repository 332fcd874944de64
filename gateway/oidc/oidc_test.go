package oidc_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"github.com/openvstorage/ovgate/gateway/auth"
	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/oidc"
	"github.com/openvstorage/ovgate/gateway/oidc/oidctest"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/kv"
)

const (
	console  = "https://ovgate.example:8443"
	password = "correct horse"
	from     = "192.0.2.1"
)

// said is what is logged.
type said struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

// world is a provider and a node without its API.
type world struct {
	*testing.T
	p    *oidctest.Provider
	m    *model.Store
	auth *auth.Service
	s    *oidc.Service
	clk  *clock.Manual
	opt  oidc.Options
	log  said
	// secrets must not be in the log.
	secrets []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, clk: clock.NewManual(time.Now()), secrets: []string{oidctest.Secret, "access-", "eyJ"}}
	b, err := kv.OpenBolt(filepath.Join(t.TempDir(), "kv.db"), kv.BoltOptions{NoSync: true})
	w.must(err)
	w.m, err = model.Open(t.Context(), b, w.clk)
	w.must(err)
	log := slog.New(slog.NewTextHandler(&w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	w.auth, err = auth.New(t.Context(), w.m, w.clk, log, nil)
	w.must(err)
	token, err := w.auth.NewSetupToken(t.Context())
	w.must(err)
	_, err = w.auth.Setup(t.Context(), from, token, "admin", password)
	w.must(err)
	sealer, err := control.NewSealer(make([]byte, control.SealKeySize))
	w.must(err)
	w.p, err = oidctest.New()
	w.must(err)
	w.p.Register(console + oidc.ReturnPath)
	w.p.Put("anna", oidctest.User{Subject: "sub-anna", Claims: map[string]any{"preferred_username": "anna", "groups": []string{"all", "staff"}}})
	w.opt = oidc.Options{Model: w.m, Auth: w.auth, Sealer: sealer, Clock: w.clk, Log: log}
	w.s = oidc.New(w.opt)
	w.set(w.change())
	t.Cleanup(func() {
		w.p.Close()
		w.must(b.Close())
		for _, x := range w.secrets {
			if x != "" && strings.Contains(w.log.b.String(), x) {
				t.Errorf("the log has %q in it:\n%s", x, w.log.b.String())
			}
		}
	})
	return w
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// change sets the whole provider.
func (w *world) change() oidc.Change {
	return oidc.Change{
		Name: new("House"), Issuer: new(w.p.Issuer()), ClientID: new(oidctest.ClientID), Secret: new(oidctest.Secret), CA: new(w.p.CA()), Addresses: &[]string{console},
		Roles: &[]model.OIDCRole{{Group: "all", Role: "read"}, {Group: "staff", Role: "write"}, {Group: "admins", Role: "manage"}},
	}
}

func (w *world) set(c oidc.Change) {
	w.Helper()
	_, _, err := w.s.Set(w.Context(), c)
	w.must(err)
}

// begin starts a sign-in and signs in at the provider.
func (w *world) begin(user string) (kept string, a oidc.Answer) {
	w.Helper()
	to, kept, err := w.s.Begin(w.Context(), console, "/vdisks?q=a")
	w.must(err)
	back, err := w.p.SignIn(to, user)
	w.must(err)
	w.secrets = append(w.secrets, back.Get("code"))
	return kept, oidc.Answer{State: back.Get("state"), Code: back.Get("code"), Issuer: back.Get("iss"), Err: back.Get("error"), Why: back.Get("error_description")}
}

// enter signs in. Addresses differ, so that no attempt is limited by the others.
func (w *world) enter(user string) (auth.Session, error) {
	w.Helper()
	kept, a := w.begin(user)
	v, returnTo, err := w.s.Finish(w.Context(), fmt.Sprintf("198.51.100.%d", w.p.Asked("/authorize")), kept, a)
	if err == nil && returnTo != "/vdisks?q=a" {
		w.Errorf("it comes back at %q", returnTo)
	}
	return v, err
}

// refused checks that an error is a refusal whose message has a text.
func (w *world) refused(err error, text string) {
	w.Helper()
	var r *oidc.RefusedError
	if !errors.As(err, &r) || !strings.Contains(r.Message, text) || r.Hint == "" {
		w.Errorf("error %v, want a refusal with %q and a hint", err, text)
	}
}

// TestSignIn: who comes for the first time becomes a user without a password; role and entry
// follow the groups.
func TestSignIn(t *testing.T) {
	w := newWorld(t)
	v, err := w.enter("anna")
	w.must(err)
	u, err := w.auth.User("anna")
	w.must(err)
	if u.External == nil || u.External.Subject != "sub-anna" || u.Password != "" || u.Role != "write" {
		t.Fatalf("the user is %+v", u)
	}
	alive := func(cookie string, role auth.Role) {
		t.Helper()
		p, err := w.auth.Browser(cookie, true)
		if want := role != ""; want != (err == nil) || p.Role != role {
			t.Errorf("session: role %q, %v; want role %q", p.Role, err, role)
		}
	}
	alive(v.Cookie, "write")
	secret, _, err := w.auth.CreateToken(t.Context(), "ci", "anna", auth.Limit{By: auth.Rights{Role: auth.RoleManage}, Role: auth.RoleWrite}, 0)
	w.must(err)
	works := func(role auth.Role) {
		t.Helper()
		p, err := w.auth.Bearer(secret)
		if want := role != ""; want != (err == nil) || p.Role != role {
			t.Errorf("token: role %q, %v; want role %q", p.Role, err, role)
		}
	}
	works("write")
	// No password lets in, nor does anybody set one by the way.
	for _, p := range []string{"", password} {
		if _, err := w.auth.Login(t.Context(), "192.0.2.9", "anna", p); !errors.Is(err, auth.ErrCredentials) {
			t.Errorf("password %q of an external user: %v", p, err)
		}
	}
	if _, err := w.auth.UpdateUser(t.Context(), "anna", auth.UserChange{Password: new(password)}); !errors.Is(err, auth.ErrInvalid) {
		t.Errorf("a password for an external user: %v", err)
	}
	if _, err := w.auth.UpdateUser(t.Context(), "anna", auth.UserChange{Role: new(auth.RoleManage)}); !errors.Is(err, auth.ErrInvalid) {
		t.Errorf("a role for an external user: %v", err)
	}
	// A smaller role ends older sessions. A new name at the provider changes nothing.
	w.p.Put("anna", oidctest.User{Subject: "sub-anna", Claims: map[string]any{"preferred_username": "anna.new", "groups": "all"}})
	later, err := w.enter("anna")
	w.must(err)
	alive(v.Cookie, "")
	alive(later.Cookie, "read")
	works("read")
	if later.User.Name != "anna" || len(w.m.Users()) != 2 {
		t.Errorf("signed in as %q, of %d users", later.User.Name, len(w.m.Users()))
	}
	// No group any more: nothing of the user counts. It does when the user may enter again.
	w.p.Put("anna", oidctest.User{Subject: "sub-anna", Claims: map[string]any{"preferred_username": "anna", "groups": []string{"guests"}}})
	_, err = w.enter("anna")
	w.refused(err, "none of your groups at House may enter")
	alive(later.Cookie, "")
	works("")
	w.p.Put("anna", oidctest.User{Subject: "sub-anna", Claims: map[string]any{"preferred_username": "anna"}, Info: map[string]any{"groups": []string{"admins"}}})
	v, err = w.enter("anna")
	w.must(err)
	alive(v.Cookie, "manage")
	works("write")
	// A manager of the provider's is none without it: the last one with a password stays.
	if err := w.auth.DeleteUser(t.Context(), "admin"); !errors.Is(err, auth.ErrLastManager) {
		t.Errorf("the last manager with a password: %v", err)
	}
	// The provider's word lasts 30 days, and not beyond the provider.
	w.clk.Advance(31 * 24 * time.Hour)
	works("")
	w.p.Lie(oidctest.Lies{Claims: func(c map[string]any) { c["exp"] = w.clk.Now().Add(time.Minute).Unix() }})
	v, err = w.enter("anna")
	w.must(err)
	works("write")
	w.must(w.s.Remove(t.Context()))
	alive(v.Cookie, "")
	works("")
	w.set(w.change())
	works("write")
	// An administrator may make it a user of this cluster, whom the provider then has no say in.
	if _, err := w.auth.MakeLocal(t.Context(), "anna", "short"); !errors.Is(err, auth.ErrInvalid) {
		t.Errorf("a short password: %v", err)
	}
	_, err = w.auth.MakeLocal(t.Context(), "anna", password)
	w.must(err)
	alive(v.Cookie, "")
	_, err = w.auth.Login(t.Context(), "192.0.2.10", "anna", password)
	w.must(err)
	_, err = w.enter("anna")
	w.refused(err, "another user has this name")
}

// TestNames: nobody becomes another user by a name.
func TestNames(t *testing.T) {
	w := newWorld(t)
	before, _ := w.m.User("admin")
	for user, want := range map[string]string{"admin": "another user has this name", "anna": ""} {
		w.p.Put("x", oidctest.User{Subject: "sub-of-" + user, Claims: map[string]any{"preferred_username": user, "groups": []string{"admins"}}})
		if _, err := w.enter("x"); want == "" {
			w.must(err)
		} else {
			w.refused(err, want)
		}
	}
	_, err := w.enter("anna") // another subject than the anna who came first
	w.refused(err, "another user has this name")
	if after, _ := w.m.User("admin"); after.Rev != before.Rev || after.External != nil {
		t.Errorf("the user of this cluster became %+v", after)
	}
	for _, name := range []any{"", "no name", "../x", strings.Repeat("x", 65), 7, nil, []string{"anna2"}} {
		w.p.Put("x", oidctest.User{Subject: "sub-x", Claims: map[string]any{"preferred_username": name, "groups": []string{"staff"}}})
		var field *auth.FieldError
		if _, err := w.enter("x"); !errors.As(err, &field) || field.Hint == "" {
			t.Errorf("name %v: %v", name, err)
		}
	}
	if n := len(w.m.Users()); n != 2 {
		t.Errorf("there are %d users", n)
	}
	// Claims within others, and of other names.
	w.set(oidc.Change{NameClaim: new("https://example.org/name"), GroupsClaim: new("realm_access.roles")})
	w.p.Put("x", oidctest.User{Subject: "sub-x", Claims: map[string]any{"https://example.org/name": "xena", "realm_access": map[string]any{"roles": []string{"staff"}}}})
	if v, err := w.enter("x"); err != nil || v.User.Name != "xena" || v.User.Role != "write" {
		t.Errorf("%+v: %v", v.User, err)
	}
}

// TestLies: a provider, or somebody in its place, that says what it should not lets nobody in.
func TestLies(t *testing.T) {
	w := newWorld(t)
	_, err := w.enter("anna") // the keys are known
	w.must(err)
	claims := func(k string, v any) oidctest.Lies {
		return oidctest.Lies{Claims: func(c map[string]any) { c[k] = v }}
	}
	kid := w.p.Published().KeyID
	sign := func(alg jose.SignatureAlgorithm, key any) oidctest.Lies {
		return oidctest.Lies{Sign: func(payload []byte) (string, error) {
			s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, (&jose.SignerOptions{}).WithHeader("kid", kid))
			if err != nil {
				return "", err
			}
			o, err := s.Sign(payload)
			if err != nil {
				return "", err
			}
			return o.CompactSerialize()
		}}
	}
	public, err := w.p.Published().MarshalJSON()
	w.must(err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	w.must(err)
	other, err := oidctest.New()
	w.must(err)
	t.Cleanup(other.Close)
	serve := func(path string, h http.HandlerFunc) oidctest.Lies {
		return oidctest.Lies{Serve: map[string]http.HandlerFunc{path: h}}
	}
	answer := func(f func(a map[string]any, code string)) oidctest.Lies { return oidctest.Lies{Answer: f} }
	const untrue = "cannot be trusted"
	for name, c := range map[string]struct {
		lie  oidctest.Lies
		want string
	}{
		"nonce":          {claims("nonce", "another"), untrue},
		"no nonce":       {claims("nonce", ""), untrue},
		"audience":       {claims("aud", "another"), untrue},
		"more audiences": {claims("aud", []string{oidctest.ClientID, "another"}), untrue},
		"party":          {claims("azp", "another"), untrue},
		"issuer":         {claims("iss", other.Issuer()), untrue},
		"expired":        {claims("exp", time.Now().Add(-time.Hour).Unix()), untrue},
		"no expiry":      {oidctest.Lies{Claims: func(c map[string]any) { delete(c, "exp") }}, untrue},
		"not yet":        {claims("nbf", time.Now().Add(time.Hour).Unix()), untrue},
		"no subject":     {claims("sub", ""), untrue},
		"long subject":   {claims("sub", strings.Repeat("x", 256)), untrue},
		"access token":   {claims("at_hash", "bm90IGl0"), untrue},
		"not an object":  {oidctest.Lies{Sign: func([]byte) (string, error) { return "a.b", nil }}, untrue},
		"alg none": {oidctest.Lies{Sign: func(payload []byte) (string, error) {
			return "eyJhbGciOiJub25lIn0." + strings.TrimRight(jsonSegment(payload), "=") + ".", nil
		}}, untrue},
		"MAC with the public key": {sign(jose.HS256, public), untrue},
		"MAC with the secret":     {sign(jose.HS256, []byte(strings.Repeat(oidctest.Secret, 2))), untrue},
		"somebody else's key":     {sign(jose.ES256, key), untrue},
		"no ID token":             {answer(func(a map[string]any, _ string) { delete(a, "id_token") }), untrue},
		"no code":                 {serve("/token", status(400, `{"error":"invalid_grant"}`)), "did not take the sign-in: invalid_grant"},
		"token endpoint fails":    {serve("/token", status(502, `eyJ`)), ""},
		"token endpoint is giant": {serve("/token", giant), ""},
		"token endpoint is no JSON": {serve("/token", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, "eyJ")
		}), ""},
		"token endpoint redirects": {serve("/token", func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, other.Issuer()+"/token", http.StatusTemporaryRedirect)
		}), ""},
	} {
		before := other.Asked("/token")
		w.p.Lie(c.lie)
		_, err := w.enter("anna")
		var away *oidc.AwayError
		switch {
		case c.want != "":
			w.refused(err, c.want)
		case !errors.As(err, &away):
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			t.Errorf("%s lets in", name)
		}
		if other.Asked("/token") != before {
			t.Errorf("%s: the code went elsewhere", name)
		}
	}
	// userinfo, when it is needed.
	w.p.Put("anna", oidctest.User{Subject: "sub-anna", Claims: map[string]any{"preferred_username": "anna"}})
	w.p.Lie(serve("/userinfo", status(200, `{"sub":"sub-bert","groups":["admins"]}`)))
	_, err = w.enter("anna")
	w.refused(err, untrue)
	w.p.Lie(serve("/userinfo", giant))
	var away *oidc.AwayError
	if _, err = w.enter("anna"); !errors.As(err, &away) {
		t.Errorf("giant userinfo: %v", err)
	}
	if u, _ := w.m.User("anna"); u.Role != "write" || len(w.m.Users()) != 2 {
		t.Errorf("users are %+v", w.m.Users())
	}
}

func jsonSegment(b []byte) string {
	return strings.NewReplacer("+", "-", "/", "_").Replace(base64.StdEncoding.EncodeToString(b))
}

func status(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		fmt.Fprint(w, body)
	}
}

// giant sends until nobody reads.
func giant(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprint(w, `{"x":"`)
	line := bytes.Repeat([]byte("x"), 64<<10)
	for r.Context().Err() == nil {
		if _, err := w.Write(line); err != nil {
			return
		}
	}
}

// TestKeys: a new key is found, and however many signatures come, the provider is asked for
// its keys once in a while.
func TestKeys(t *testing.T) {
	w := newWorld(t)
	_, err := w.enter("anna")
	w.must(err)
	asked := w.p.Asked("/keys")
	w.must(w.p.Rotate("RS256", false))
	for range 3 {
		_, err = w.enter("anna")
		w.refused(err, "cannot be trusted")
	}
	if n := w.p.Asked("/keys"); n != asked {
		t.Errorf("keys were read %d times more, within 10 s", n-asked)
	}
	w.clk.Advance(11 * time.Second)
	for range 3 {
		_, err = w.enter("anna")
		w.must(err)
	}
	if n := w.p.Asked("/keys"); n != asked+1 {
		t.Errorf("keys were read %d times more, want once", n-asked)
	}
	// A key that was withdrawn does not count for ever.
	w.must(w.p.Rotate("ES256", true))
	w.clk.Advance(11 * time.Second)
	_, err = w.enter("anna")
	w.must(err)
	for name, h := range map[string]http.HandlerFunc{
		"none": status(200, `{"keys":[]}`), "secret": status(200, `{"keys":[{"kty":"oct","k":"AAAA"}]}`), "giant": giant, "no JSON": status(200, "x"), "500": status(500, "{}"),
		"many": status(200, `{"keys":[`+strings.Repeat("{},", 64)+`{}]}`),
	} {
		w.p.Lie(oidctest.Lies{Serve: map[string]http.HandlerFunc{"/keys": h}, Claims: func(c map[string]any) { c["exp"] = w.clk.Now().Add(time.Minute).Unix() }})
		w.clk.Advance(2 * time.Hour)
		var away *oidc.AwayError
		if _, err := w.enter("anna"); !errors.As(err, &away) {
			t.Errorf("keys %s: %v", name, err)
		}
	}
}

// TestFlow: a sign-in is of the browser that began it, once, for a while.
func TestFlow(t *testing.T) {
	w := newWorld(t)
	finish := func(kept string, a oidc.Answer) error {
		_, _, err := w.s.Finish(t.Context(), from, kept, a)
		return err
	}
	kept, a := w.begin("anna")
	w.refused(finish("", a), "has not begun")
	for _, k := range []string{"x", kept[:len(kept)-4], kept + "AAAA", strings.ToUpper(kept)} {
		w.refused(finish(k, a), "not begun by this browser")
	}
	for _, state := range []string{"", "x", a.State + "x"} {
		b := a
		b.State = state
		w.refused(finish(kept, b), "not begun by this browser")
	}
	w.must(finish(kept, a))
	w.refused(finish(kept, a), "over already")
	// Another node does not know that it is over; the provider does.
	elsewhere := oidc.New(w.opt)
	_, _, err := elsewhere.Finish(t.Context(), from, kept, a)
	w.refused(err, "invalid_grant")
	// A code of somebody else's flow, a code of nobody, another provider's answer, and none.
	_, stolen := w.begin("anna")
	for change, want := range map[string]string{"stolen": "invalid_grant", "nobody's": "invalid_grant", "none": "has no code", "long": "has no code", "iss": "not from House", "no iss": "not from House", "error": "House did not let you in: access_denied who is that?"} {
		user := "anna"
		if change == "error" {
			user = "nobody"
		}
		kept, a := w.begin(user)
		switch change {
		case "stolen":
			a.Code = stolen.Code
		case "nobody's":
			a.Code = "x"
		case "none":
			a.Code = ""
		case "long":
			a.Code = strings.Repeat("x", 8193)
		case "iss":
			a.Issuer = "https://other.example"
		case "no iss":
			a.Issuer = ""
		}
		w.refused(finish(kept, a), want)
	}
	// Too late, and after a change.
	kept, a = w.begin("anna")
	w.clk.Advance(oidc.FlowLimit)
	w.refused(finish(kept, a), "took longer than")
	kept, a = w.begin("anna")
	w.set(oidc.Change{Name: new("Home")})
	w.refused(finish(kept, a), "was changed meanwhile")
	// Attempts of one address are limited; a password is another matter.
	var rate *auth.RateError
	for range 20 {
		kept, a := w.begin("anna")
		a.Code = "x"
		if err = finish(kept, a); errors.As(err, &rate) {
			break
		}
	}
	if rate == nil {
		t.Errorf("attempts are not limited: %v", err)
	}
	_, err = w.auth.Login(t.Context(), from, "admin", password)
	w.must(err)
}

// TestBegin: where a browser is sent, and from where.
func TestBegin(t *testing.T) {
	w := newWorld(t)
	to, _, err := w.s.Begin(t.Context(), console, "")
	w.must(err)
	u, err := url.Parse(to)
	w.must(err)
	q := u.Query()
	if u.Scheme+"://"+u.Host != w.p.Issuer() || q.Get("redirect_uri") != console+"/login/oidc" || q.Get("code_challenge_method") != "S256" ||
		len(q.Get("code_challenge")) != 43 || len(q.Get("state")) < 26 || len(q.Get("nonce")) < 26 || q.Get("scope") != "openid profile email" || q.Get("client_secret") != "" {
		t.Errorf("it goes to %s", to)
	}
	again, _, err := w.s.Begin(t.Context(), strings.ToUpper(console[:7])+console[7:]+"/", "")
	w.must(err)
	if v, _ := url.Parse(again); v.Query().Get("state") == q.Get("state") || v.Query().Get("nonce") == q.Get("nonce") {
		t.Error("two flows have one state or nonce")
	}
	for _, path := range []string{"//evil.example", "https://evil.example", "/\\evil.example", "\\\\evil.example", "/\tx", "javascript:alert(1)", "vdisks", "/api/v1/session", "/" + strings.Repeat("x", 1024), "/%2F%2Fevil\x00", "/a\n"} {
		invalid(t, "returnTo "+path, "returnTo", third(w.s.Begin(t.Context(), console, path)))
	}
	for _, at := range []string{"", "https://evil.example", "https://ovgate.example", "http://ovgate.example:8443", "https://ovgate.example:8443@evil.example", "https://ovgate.example:8443/x", console + ".evil.example"} {
		invalid(t, "address "+at, "address", third(w.s.Begin(t.Context(), at, "")))
	}
	// Before there is an administrator nobody comes from a provider.
	for _, u := range w.m.Users() {
		w.must(w.m.DeleteUser(t.Context(), u.Name, nil))
	}
	var first *control.Error
	if err := third(w.s.Begin(t.Context(), console, "")); !errors.As(err, &first) || !strings.Contains(first.Message, "no administrator") {
		t.Errorf("before the set-up: %v", err)
	}
	w.must(w.s.Remove(t.Context()))
	var e *control.Error
	if err := third(w.s.Begin(t.Context(), console, "")); !errors.As(err, &e) || e.Code != control.CodeNotFound {
		t.Errorf("without a provider: %v", err)
	}
}

func third(_, _ string, err error) error { return err }

func invalid(t *testing.T, what, field string, err error) {
	t.Helper()
	var e *control.Error
	if !errors.As(err, &e) || e.Field != field || e.Hint == "" {
		t.Errorf("%s: %v, want field %s", what, err, field)
	}
}

// TestAway: a provider that does not answer is asked seldom, and keeps nobody from signing in
// with a password.
func TestAway(t *testing.T) {
	w := newWorld(t)
	fresh := oidc.New(w.opt)
	kept, a := w.begin("anna")
	for name, h := range map[string]http.HandlerFunc{
		"500": status(500, "{}"), "giant": giant, "no JSON": status(200, "x"), "another issuer": status(200, `{"issuer":"https://other.example"}`),
		"redirect": func(rw http.ResponseWriter, r *http.Request) { http.Redirect(rw, r, "/keys", http.StatusFound) },
		"plain":    status(200, fmt.Sprintf(`{"issuer":%q,"authorization_endpoint":"http://h/a","token_endpoint":"http://h/t","jwks_uri":"http://h/k"}`, w.p.Issuer())),
	} {
		w.p.Lie(oidctest.Lies{Serve: map[string]http.HandlerFunc{"/.well-known/openid-configuration": h}})
		w.clk.Advance(4 * time.Second)
		asked := w.p.Asked("/.well-known/openid-configuration")
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				var away *oidc.AwayError
				if err := third(fresh.Begin(context.Background(), console, "")); !errors.As(err, &away) || away.Error() != "House cannot be asked at the moment" {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
		wg.Wait()
		if n := w.p.Asked("/.well-known/openid-configuration") - asked; n != 1 {
			t.Errorf("%s: it was asked %d times", name, n)
		}
	}
	// What is known is used while it fails.
	w.clk.Advance(2 * time.Hour)
	w.must(third(w.s.Begin(t.Context(), console, "")))
	w.p.Close()
	w.clk.Advance(time.Minute)
	w.must(third(w.s.Begin(t.Context(), console, "")))
	var away *oidc.AwayError
	if err := third(fresh.Begin(t.Context(), console, "")); !errors.As(err, &away) {
		t.Errorf("a provider that is not there: %v", err)
	}
	if _, _, err := fresh.Finish(t.Context(), from, kept, a); err == nil {
		t.Error("a provider that is not there lets in")
	}
	_, err := w.auth.Login(t.Context(), from, "admin", password)
	w.must(err)
}

// TestSet: what cannot be is refused and changes nothing; the secret is sealed, for its issuer.
func TestSet(t *testing.T) {
	w := newWorld(t)
	before, _ := w.s.Config()
	for field, changes := range map[string][]oidc.Change{
		"name":        {{Name: new("")}, {Name: new(strings.Repeat("x", 201))}, {Name: new("a\nb")}},
		"issuer":      {{Issuer: new("")}, {Issuer: new("http://id.example")}, {Issuer: new("id.example")}, {Issuer: new("https://u:p@id.example")}, {Issuer: new("https://id.example?x=1")}},
		"clientId":    {{ClientID: new("")}},
		"addresses":   {{Addresses: &[]string{}}, {Addresses: &[]string{"http://ovgate.example"}}, {Addresses: &[]string{"https://h/path"}}, {Addresses: &[]string{"ftp://h"}}, {Addresses: &[]string{"//h"}}},
		"scopes":      {{Scopes: &[]string{"profile"}}, {Scopes: &[]string{"openid", "a b"}}},
		"roles":       {{Roles: &[]model.OIDCRole{}}, {Roles: &[]model.OIDCRole{{Group: "a", Role: "root"}}}, {Roles: &[]model.OIDCRole{{Group: "a", Role: "read"}, {Group: "a", Role: "write"}}}},
		"ca":          {{CA: new("x")}},
		"nameClaim":   {{NameClaim: new("")}},
		"groupsClaim": {{GroupsClaim: new("")}},
		"secret":      {{Secret: new("a\nb")}, {ClientID: new("other")}, {Issuer: new("https://other.example")}},
	} {
		for i, c := range changes {
			_, _, err := w.s.Set(t.Context(), c)
			invalid(t, fmt.Sprintf("%s %d", field, i), field, err)
		}
	}
	w.p.Lie(oidctest.Lies{Serve: map[string]http.HandlerFunc{"/keys": status(500, "")}})
	_, steps, err := w.s.Set(t.Context(), oidc.Change{ClientID: new("other"), Secret: new("s")})
	invalid(t, "a provider that fails", "issuer", err)
	if n := len(steps); n != 3 || steps[2].Step != "keys" || steps[2].OK {
		t.Errorf("steps are %+v", steps)
	}
	if after, _ := w.s.Config(); after.Rev != before.Rev {
		t.Errorf("it became %+v", after)
	}
	if bytes.Contains(before.Secret, []byte(oidctest.Secret)) || len(before.Secret) == 0 {
		t.Error("the secret is not sealed")
	}
	// What does not change how it is reached is not tried.
	w.set(oidc.Change{Addresses: &[]string{"https://OVGATE.example:443/", "http://localhost:8080", "https://ovgate.example"}})
	if o, _ := w.s.Config(); fmt.Sprint(o.Addresses) != "[https://ovgate.example http://localhost:8080]" {
		t.Errorf("addresses are %v", o.Addresses)
	}
	w.p.Lie(oidctest.Lies{})
	_, steps, err = w.s.Test(t.Context())
	w.must(err)
	for _, s := range steps {
		if !s.OK {
			t.Errorf("%s: %s", s.Step, s.Detail)
		}
	}
	if to := w.s.EndURL(console); to != "" {
		t.Errorf("a provider that was not asked ends at %s", to)
	}
	w.must(third(w.s.Begin(t.Context(), "https://ovgate.example", "")))
	if to := w.s.EndURL(console); to != w.p.Issuer()+"/end?client_id=ovgate&post_logout_redirect_uri="+url.QueryEscape(console+"/login") || w.s.EndURL("") != "" {
		t.Errorf("it ends at %s", to)
	}
}
