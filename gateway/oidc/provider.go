package oidc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	goidc "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/internal/clock"
)

const (
	// metaLimit is how long what discovery said is used; a provider seldom changes.
	metaLimit = time.Hour
	// metaStale is how long it is used at most while discovery fails.
	metaStale = 24 * time.Hour
	// metaRetry is how long a failure of discovery is remembered: many people may ask.
	metaRetry = 3 * time.Second
)

// errAway marks that the provider did not answer as one should; what went wrong is for
// administrators.
var errAway = errors.New("the provider does not answer as it should")

// provider is one as discovery described it. It does not change.
type provider struct {
	client   *http.Client
	endpoint oauth2.Endpoint
	keys     *keySet
	verifier *goidc.IDTokenVerifier
	userinfo string // empty: none
	end      string // where sessions of it end; empty: nowhere
	s256     bool   // it says that it takes PKCE
	tellsIss bool   // its answers name it (RFC 9207)
}

// discover asks a provider what it has.
func discover(ctx context.Context, o model.OIDC, clk clock.Clock) (*provider, error) {
	client, err := newClient(o.CA)
	if err != nil {
		return nil, fmt.Errorf("CA: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	found, err := goidc.NewProvider(goidc.ClientContext(ctx, client), o.Issuer)
	if err != nil {
		return nil, errors.New(clean(err.Error()))
	}
	var meta struct {
		JWKS     string   `json:"jwks_uri"`
		End      string   `json:"end_session_endpoint"`
		Auth     []string `json:"token_endpoint_auth_methods_supported"`
		PKCE     []string `json:"code_challenge_methods_supported"`
		TellsIss bool     `json:"authorization_response_iss_parameter_supported"`
	}
	if err := found.Claims(&meta); err != nil {
		return nil, errors.New("what it says of itself is not understood")
	}
	p := &provider{client: client, endpoint: found.Endpoint(), userinfo: found.UserInfoEndpoint(), s256: slices.Contains(meta.PKCE, "S256"), tellsIss: meta.TellsIss}
	for name, at := range map[string]string{"authorization_endpoint": p.endpoint.AuthURL, "token_endpoint": p.endpoint.TokenURL, "jwks_uri": meta.JWKS} {
		if !isHTTPS(at) {
			return nil, fmt.Errorf("its %s %q is not an https address", name, clean(at))
		}
	}
	if isHTTPS(meta.End) {
		p.end = meta.End
	}
	// Never both ways in turn: a refused attempt may spend the code.
	p.endpoint.AuthStyle = oauth2.AuthStyleInHeader
	if len(o.Secret) == 0 || len(meta.Auth) > 0 && !slices.Contains(meta.Auth, "client_secret_basic") {
		p.endpoint.AuthStyle = oauth2.AuthStyleInParams
	}
	p.keys = &keySet{url: meta.JWKS, client: client, clock: clk}
	var algs []string
	for _, a := range algorithms {
		algs = append(algs, string(a))
	}
	p.verifier = goidc.NewVerifier(o.Issuer, p.keys, &goidc.Config{ClientID: o.ClientID, SupportedSigningAlgs: algs, Now: clk.Now})
	return p, nil
}

func isHTTPS(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Scheme == "https" && u.Host != "" && u.User == nil
}

// cache keeps what discovery said of the provider that is set.
type cache struct {
	clock clock.Clock
	turn  chan struct{} // taken by who asks the provider

	mu     sync.Mutex
	rev    int64 // of the record that it is of
	found  *provider
	at     time.Time // when it was found
	failed error
	tried  time.Time
}

func newCache(clk clock.Clock) *cache { return &cache{clock: clk, turn: make(chan struct{}, 1)} }

// have returns what is known; ask tells whether the provider has to be asked.
func (c *cache) have(rev int64) (p *provider, failed error, ask bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.clock.Now()
	if c.rev != rev {
		return nil, nil, true
	}
	if c.found != nil && now.Sub(c.at) < metaLimit {
		return c.found, nil, false
	}
	if c.failed != nil && now.Sub(c.tried) < metaRetry {
		if c.found != nil && now.Sub(c.at) < metaStale {
			return c.found, nil, false
		}
		return nil, c.failed, false
	}
	return nil, nil, true
}

// get returns the provider of a record. One asks, the others wait for what it hears.
func (c *cache) get(ctx context.Context, o model.OIDC) (*provider, error) {
	p, err, ask := c.have(o.Rev)
	if !ask {
		return p, err
	}
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if p, err, ask = c.have(o.Rev); !ask {
		return p, err
	}
	p, err = discover(ctx, o, c.clock)
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err() // it says nothing of the provider
	}
	return c.heard(o.Rev, p, err)
}

// heard remembers what a provider said.
func (c *cache) heard(rev int64, p *provider, err error) (*provider, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rev != rev {
		c.rev, c.found, c.failed = rev, nil, nil
	}
	now := c.clock.Now()
	if err == nil {
		c.found, c.at, c.failed = p, now, nil
		return p, nil
	}
	c.failed, c.tried = fmt.Errorf("%w: %w", errAway, err), now
	if c.found != nil && now.Sub(c.at) < metaStale {
		return c.found, nil
	}
	return nil, c.failed
}

// known returns the provider if it was found before, without asking it.
func (c *cache) known(rev int64) *provider {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rev != rev {
		return nil
	}
	return c.found
}
