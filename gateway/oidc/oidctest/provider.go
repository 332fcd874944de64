// Package oidctest is a small OpenID Connect provider for tests: discovery, keys that
// change, authorization with PKCE, token endpoint, userinfo and sign-out, over TLS on
// loopback. It is honest unless a test tells it to lie: codes work once, for the client,
// redirect URI and challenge that they were asked with.
package oidctest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"html"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
	"time"

	jose "github.com/go-jose/go-jose/v4"
)

// Client that is registered.
const (
	ClientID = "ovgate"
	Secret   = "a secret of the client"
)

// Lies are what a provider does that a good one does not. Zero is honest. Its functions do
// not call the provider.
type Lies struct {
	Claims  func(claims map[string]any)           // changes what an ID token says
	Sign    func(payload []byte) (string, error)  // in place of the signature
	Serve   map[string]http.HandlerFunc           // in place of a path
	Meta    func(meta map[string]any)             // changes what discovery says
	Replays bool                                  // codes work more than once
	Answer  func(answer map[string]any, k string) // changes what the token endpoint says; k is the code
}

// User is somebody whom the provider knows.
type User struct {
	Subject string
	Claims  map[string]any // in the ID token
	Info    map[string]any // at userinfo only
}

// Provider is one that runs.
type Provider struct {
	server *httptest.Server

	mu        sync.Mutex
	users     map[string]User
	redirects []string
	lies      Lies
	key       jose.SigningKey
	published []jose.JSONWebKey
	codes     map[string]grant
	tokens    map[string]string // access token -> user
	asked     map[string]int
}

type grant struct {
	user, redirect, challenge, nonce string
	spent                            bool
}

// New starts a provider, which stops with Close.
func New() (*Provider, error) {
	p := &Provider{users: map[string]User{}, codes: map[string]grant{}, tokens: map[string]string{}, asked: map[string]int{}}
	if err := p.Rotate("ES256", true); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	for path, h := range map[string]http.HandlerFunc{
		"/.well-known/openid-configuration": p.discovery, "/keys": p.keys, "/authorize": p.authorize, "/token": p.token, "/userinfo": p.userinfo, "/end": p.end,
	} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			p.mu.Lock()
			p.asked[path]++
			lie := p.lies.Serve[path]
			p.mu.Unlock()
			if lie != nil {
				lie(w, r)
				return
			}
			h(w, r)
		})
	}
	p.server = httptest.NewUnstartedServer(mux)
	p.server.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that give up are what tests do
	p.server.StartTLS()
	return p, nil
}

// Close stops it.
func (p *Provider) Close() { p.server.Close() }

// Issuer is its address.
func (p *Provider) Issuer() string { return p.server.URL }

// CA is the authority to trust, in PEM.
func (p *Provider) CA() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.server.Certificate().Raw}))
}

// Register allows a redirect URI.
func (p *Provider) Register(uris ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.redirects = append(p.redirects, uris...)
}

// Put adds or changes a user.
func (p *Provider) Put(name string, u User) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.users[name] = User{u.Subject, maps.Clone(u.Claims), maps.Clone(u.Info)}
}

// Lie makes it lie from now on.
func (p *Provider) Lie(l Lies) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lies = l
}

// Asked returns how often a path was asked for.
func (p *Provider) Asked(path string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[path]
}

// Rotate signs with a new key of an algorithm, ES256 or RS256, from now on; keep publishes
// the older ones too.
func (p *Provider) Rotate(alg string, keep bool) error {
	var key crypto.Signer
	var err error
	switch alg {
	case "ES256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "RS256":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	default:
		err = errors.New("no such algorithm")
	}
	if err != nil {
		return err
	}
	id := rand.Text()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.key = jose.SigningKey{Algorithm: jose.SignatureAlgorithm(alg), Key: jose.JSONWebKey{Key: key, KeyID: id, Algorithm: alg, Use: "sig"}}
	if !keep {
		p.published = nil
	}
	p.published = append(slices.Clone(p.published), jose.JSONWebKey{Key: key.Public(), KeyID: id, Algorithm: alg, Use: "sig"})
	return nil
}

// Published returns the newest public key.
func (p *Provider) Published() jose.JSONWebKey {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.published[len(p.published)-1]
}

// SignIn does what a person does in a browser: it goes where ovgate sends it, signs in there,
// and returns the parameters that the provider sends back with.
func (p *Provider) SignIn(to, user string) (url.Values, error) {
	u, err := url.Parse(to)
	if err != nil {
		return nil, err
	}
	q := u.Query()
	q.Set("as", user)
	u.RawQuery = q.Encode()
	c := *p.server.Client()
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := c.Get(u.String())
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	back, err := res.Location()
	if err != nil {
		return nil, fmt.Errorf("authorize answers %d: %w", res.StatusCode, err)
	}
	return back.Query(), nil
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // who does not wait for it does not need it
}

func (p *Provider) discovery(w http.ResponseWriter, _ *http.Request) {
	at := p.server.URL
	meta := map[string]any{
		"issuer": at, "authorization_endpoint": at + "/authorize", "token_endpoint": at + "/token", "jwks_uri": at + "/keys",
		"userinfo_endpoint": at + "/userinfo", "end_session_endpoint": at + "/end", "code_challenge_methods_supported": []string{"S256"},
		"id_token_signing_alg_values_supported": []string{"ES256", "RS256"}, "response_types_supported": []string{"code"},
		"authorization_response_iss_parameter_supported": true,
	}
	p.mu.Lock()
	change := p.lies.Meta
	p.mu.Unlock()
	if change != nil {
		change(meta)
	}
	answer(w, http.StatusOK, meta)
}

func (p *Provider) keys(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	set := jose.JSONWebKeySet{Keys: slices.Clone(p.published)}
	p.mu.Unlock()
	answer(w, http.StatusOK, set)
}

// authorize shows a page to sign in at, or sends back who chose.
func (p *Provider) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	p.mu.Lock()
	known := slices.Contains(p.redirects, q.Get("redirect_uri"))
	names := slices.Sorted(maps.Keys(p.users))
	p.mu.Unlock()
	if !known || q.Get("client_id") != ClientID || q.Get("response_type") != "code" {
		http.Error(w, "this client or redirect URI is not registered", http.StatusBadRequest)
		return
	}
	if q.Get("as") == "" {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, `<!doctype html><html lang="en"><title>Provider</title><link rel="icon" href="data:,"><h1>Who are you?</h1>`)
		for _, name := range names {
			q.Set("as", name)
			fmt.Fprintf(w, `<p><a id="as-%s" href="/authorize?%s">%[1]s</a></p>`, html.EscapeString(name), html.EscapeString(q.Encode()))
		}
		return
	}
	back, err := url.Parse(q.Get("redirect_uri"))
	if err != nil {
		http.Error(w, "not a redirect URI", http.StatusBadRequest)
		return
	}
	out := url.Values{"state": {q.Get("state")}, "iss": {p.server.URL}}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.users[q.Get("as")]; !ok || q.Get("code_challenge_method") != "S256" {
		out.Set("error", "access_denied")
		out.Set("error_description", "who is that?")
	} else {
		code := rand.Text()
		p.codes[code] = grant{user: q.Get("as"), redirect: q.Get("redirect_uri"), challenge: q.Get("code_challenge"), nonce: q.Get("nonce")}
		out.Set("code", code)
	}
	back.RawQuery = out.Encode()
	http.Redirect(w, r, back.String(), http.StatusFound)
}

func (p *Provider) token(w http.ResponseWriter, r *http.Request) {
	refuse := func(status int, word string) { answer(w, status, map[string]string{"error": word}) }
	id, secret, basic := r.BasicAuth()
	if basic {
		// RFC 6749, 2.3.1: both are form-encoded within.
		id, _ = url.QueryUnescape(id)
		secret, _ = url.QueryUnescape(secret)
	} else {
		id, secret = r.FormValue("client_id"), r.FormValue("client_secret")
	}
	if id != ClientID || secret != Secret {
		refuse(http.StatusUnauthorized, "invalid_client")
		return
	}
	code := r.FormValue("code")
	p.mu.Lock()
	defer p.mu.Unlock()
	g, ok := p.codes[code]
	sum := sha256.Sum256([]byte(r.FormValue("code_verifier")))
	if !ok || g.spent && !p.lies.Replays || g.redirect != r.FormValue("redirect_uri") || g.challenge != base64.RawURLEncoding.EncodeToString(sum[:]) {
		refuse(http.StatusBadRequest, "invalid_grant")
		return
	}
	g.spent = true
	p.codes[code] = g
	raw, err := p.idToken(g)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	access := "access-" + rand.Text()
	p.tokens[access] = g.user
	out := map[string]any{"access_token": access, "token_type": "Bearer", "expires_in": 300, "id_token": raw}
	if p.lies.Answer != nil {
		p.lies.Answer(out, code)
	}
	answer(w, http.StatusOK, out)
}

func (p *Provider) idToken(g grant) (string, error) {
	u := p.users[g.user]
	now := time.Now()
	claims := map[string]any{"iss": p.server.URL, "sub": u.Subject, "aud": ClientID, "exp": now.Add(5 * time.Minute).Unix(), "iat": now.Unix(), "nonce": g.nonce}
	maps.Copy(claims, u.Claims)
	if p.lies.Claims != nil {
		p.lies.Claims(claims)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	if p.lies.Sign != nil {
		return p.lies.Sign(payload)
	}
	signer, err := jose.NewSigner(p.key, nil)
	if err != nil {
		return "", err
	}
	sig, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return sig.CompactSerialize()
}

func (p *Provider) userinfo(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	u, ok := p.users[p.tokens[r.Header.Get("Authorization")[min(len("Bearer "), len(r.Header.Get("Authorization"))):]]]
	p.mu.Unlock()
	if !ok {
		answer(w, http.StatusUnauthorized, map[string]string{"error": "invalid_token"})
		return
	}
	out := map[string]any{"sub": u.Subject}
	maps.Copy(out, u.Claims)
	maps.Copy(out, u.Info)
	answer(w, http.StatusOK, out)
}

// end shows a page that says that one is signed out, with the way back.
func (p *Provider) end(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if q.Get("client_id") != ClientID || q.Get("post_logout_redirect_uri") == "" {
		http.Error(w, "unknown client", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprintf(w, `<!doctype html><html lang="en"><title>Provider</title><link rel="icon" href="data:,"><h1>You are signed out.</h1><p><a id="back" href="%s">Back</a></p>`,
		html.EscapeString(q.Get("post_logout_redirect_uri")))
}
