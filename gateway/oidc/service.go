package oidc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/openvstorage/ovgate/gateway/auth"
	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
)

// Bounds of what is set.
const (
	maxText      = 200 // characters of a name, claim, scope, group or client id, and of others' text in messages
	maxURL       = 255
	maxSecret    = 1024
	maxCA        = 64 << 10
	maxAddresses = 32
	maxScopes    = 32
	maxRoles     = 256
	maxSubject   = 255 // bytes, OpenID Connect Core 2
)

// object is what refusals are about.
const object = "sign-in provider"

var errNone = &control.Error{Code: control.CodeNotFound, Object: object, Message: "none is set", Hint: "sign in with a password; administrators set one with: ovgate oidc set"}

// Options are what a Service needs.
type Options struct {
	Model  *model.Store
	Auth   *auth.Service
	Sealer *control.Sealer
	Clock  clock.Clock  // nil: the machine's
	Log    *slog.Logger // nil: nothing is logged
}

// Service is the sign-in through a provider. Safe for concurrent use.
type Service struct {
	opt   Options
	clock clock.Clock
	log   *slog.Logger
	cache *cache
	spent spent
}

// New returns a Service.
func New(opt Options) *Service {
	if opt.Clock == nil {
		opt.Clock = clock.Real{}
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	return &Service{opt: opt, clock: opt.Clock, log: opt.Log, cache: newCache(opt.Clock)}
}

// Config returns what is set; false: there is no provider.
func (s *Service) Config() (model.OIDC, bool) { return s.opt.Model.OIDC() }

// provider asks or remembers what the provider has; AwayError.
func (s *Service) provider(ctx context.Context, o model.OIDC) (*provider, error) {
	p, err := s.cache.get(ctx, o)
	if errors.Is(err, errAway) {
		return nil, s.away(o, err)
	}
	return p, err
}

func (s *Service) away(o model.OIDC, err error) error {
	s.log.Warn("sign-in provider does not answer as it should", "issuer", o.Issuer, "err", err)
	return &AwayError{o.Name, err}
}

// sealedFor is what the client's secret is sealed for: it opens for no other issuer (D3).
func sealedFor(o model.OIDC) string { return "oidc client " + o.ClientID + " of " + o.Issuer }

func (s *Service) secret(o model.OIDC) (string, error) {
	if len(o.Secret) == 0 {
		return "", nil
	}
	secret, err := s.opt.Sealer.Open(sealedFor(o), o.Secret)
	if err != nil {
		return "", &control.Error{Code: control.CodeBackend, Object: object, Message: "its secret does not open with this node's seal.key", Hint: "give it again: ovgate oidc set --secret-file FILE", Err: err}
	}
	return secret, nil
}

// Default is what a new provider begins with.
func Default() model.OIDC {
	return model.OIDC{Name: "OpenID Connect", Scopes: []string{"openid", "profile", "email"}, NameClaim: "preferred_username", GroupsClaim: "groups"}
}

// Change is what changes of the provider; nil stays as it is.
type Change struct {
	Name, Issuer, ClientID *string
	Secret                 *string // empty: a public client
	Addresses, Scopes      *[]string
	NameClaim, GroupsClaim *string
	Roles                  *[]model.OIDCRole
	CA                     *string // PEM; empty: the system's authorities
}

// Set changes the provider, or makes one, which needs issuer, client, addresses and roles. A
// provider that is new, or is reached in another way, is tried first; nothing changes if that
// fails.
func (s *Service) Set(ctx context.Context, in Change) (model.OIDC, []remote.Step, error) {
	was, _ := s.opt.Model.OIDC()
	o := was
	if was.Rev == 0 {
		o = Default()
		o.Created = s.clock.Now().UTC()
	}
	set(&o.Name, in.Name)
	set(&o.Issuer, in.Issuer)
	set(&o.ClientID, in.ClientID)
	set(&o.Addresses, in.Addresses)
	set(&o.Scopes, in.Scopes)
	set(&o.NameClaim, in.NameClaim)
	set(&o.GroupsClaim, in.GroupsClaim)
	set(&o.Roles, in.Roles)
	set(&o.CA, in.CA)
	if err := check(&o); err != nil {
		return was, nil, err
	}
	moved := sealedFor(o) != sealedFor(was)
	switch {
	case in.Secret != nil:
		if err := s.setSecret(&o, *in.Secret); err != nil {
			return was, nil, err
		}
	case moved && len(was.Secret) > 0:
		return was, nil, invalid("secret", "give the secret of the client there, or an empty one for a public client", "the secret that is known is for another issuer or client")
	}
	var steps []remote.Step
	if moved || o.CA != was.CA {
		if steps = s.try(ctx, o); !steps[len(steps)-1].OK {
			last := steps[len(steps)-1]
			return was, steps, &control.Error{Code: control.CodeBackend, Field: "issuer", Object: object, Message: fmt.Sprintf("%s does not work: %s", last.Step, last.Detail), Hint: "check issuer and CA; the issuer is written exactly as the provider says it"}
		}
	}
	out, err := s.opt.Model.SetOIDC(ctx, was.Rev, o)
	if errors.Is(err, model.ErrConflict) || errors.Is(err, model.ErrNotFound) {
		return was, steps, &control.Error{Code: control.CodeInUse, Object: object, Message: "somebody else changed it meanwhile", Hint: "look at it, and try again: ovgate oidc show", Err: err}
	}
	return out, steps, err
}

func (s *Service) setSecret(o *model.OIDC, secret string) (err error) {
	if len(secret) > maxSecret || strings.ContainsAny(secret, "\r\n\x00") {
		return invalid("secret", "give the one line that the provider shows", "the secret is longer than %d bytes, or has line ends in it", maxSecret)
	}
	if o.Secret = nil; secret != "" {
		o.Secret, err = s.opt.Sealer.Seal(sealedFor(*o), secret)
	}
	return err
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

func invalid(field, hint, format string, a ...any) *control.Error {
	return &control.Error{Code: control.CodeInvalid, Field: field, Object: object, Message: fmt.Sprintf(format, a...), Hint: hint}
}

// check refuses what cannot be, and writes addresses as browsers do.
func check(o *model.OIDC) error {
	for _, t := range []struct{ field, what, text string }{
		{"name", "name", o.Name}, {"clientId", "client id", o.ClientID}, {"nameClaim", "claim", o.NameClaim}, {"groupsClaim", "claim", o.GroupsClaim},
	} {
		if t.text == "" || !isText(t.text) {
			return invalid(t.field, fmt.Sprintf("give one of 1 to %d characters", maxText), "the %s is missing or not valid", t.what)
		}
	}
	u, err := url.Parse(o.Issuer)
	if err != nil || !isHTTPS(o.Issuer) || len(o.Issuer) > maxURL || u.RawQuery != "" || u.Fragment != "" {
		return invalid("issuer", "give the https address that the provider calls its issuer, such as https://id.example.org/realms/main", "the issuer is missing or not valid")
	}
	if err := checkAddresses(o); err != nil {
		return err
	}
	if len(o.Scopes) > maxScopes || !slices.Contains(o.Scopes, "openid") {
		return invalid("scopes", "name openid and others, up to 32", "openid is not among the scopes, or there are too many")
	}
	for _, scope := range o.Scopes {
		if !isText(scope) || scope == "" || strings.ContainsAny(scope, " \"\\") {
			return invalid("scopes", "give each by itself", "%q is not a scope", clip(scope))
		}
	}
	if len(o.Roles) == 0 || len(o.Roles) > maxRoles {
		return invalid("roles", "give 1 to 256 groups a role: nobody else gets in", "there are %d groups with a role", len(o.Roles))
	}
	seen := map[string]bool{}
	for _, r := range o.Roles {
		if _, err := auth.ParseRole(r.Role); err != nil {
			return invalid("roles", "use read, write or manage", "%q is not a role", clip(r.Role))
		}
		if r.Group == "" || !isText(r.Group) || seen[r.Group] {
			return invalid("roles", "name each group once", "the group %q is named twice, or not valid", clip(r.Group))
		}
		seen[r.Group] = true
	}
	if len(o.CA) > maxCA {
		return invalid("ca", "", "the certificates are longer than %d bytes", maxCA)
	}
	if _, err := newClient(o.CA); err != nil {
		return invalid("ca", "give certificates in PEM, or nothing for the system's", "%v", err)
	}
	return nil
}

func checkAddresses(o *model.OIDC) error {
	if len(o.Addresses) == 0 || len(o.Addresses) > maxAddresses {
		return invalid("addresses", "give 1 to 32 addresses of the console, such as https://ovgate.example.org:8443", "there are %d addresses", len(o.Addresses))
	}
	out := make([]string, 0, len(o.Addresses))
	for _, a := range o.Addresses {
		at, err := address(a)
		if err != nil {
			return invalid("addresses", "give the console's address as a browser shows it, such as https://ovgate.example.org:8443", "%q is not valid: %v", clip(a), err)
		}
		if !slices.Contains(out, at) {
			out = append(out, at)
		}
	}
	o.Addresses = out
	return nil
}

// address writes the address of a console as browsers write an origin. Without TLS only
// loopback is one: a code would travel in plain.
func address(s string) (string, error) {
	u, err := url.Parse(strings.TrimSuffix(s, "/"))
	if err != nil || len(s) > maxURL || u.Hostname() == "" {
		return s, errors.New("it is not an address")
	}
	if u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return s, errors.New("there is more than https://HOST:PORT")
	}
	ip := net.ParseIP(u.Hostname())
	local := u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
	if u.Scheme != "https" && (u.Scheme != "http" || !local) {
		return s, errors.New("it is not https")
	}
	host := strings.ToLower(u.Host)
	if p := u.Port(); u.Scheme == "https" && p == "443" || u.Scheme == "http" && p == "80" {
		host = strings.TrimSuffix(host, ":"+p)
	}
	return u.Scheme + "://" + host, nil
}

func isText(s string) bool { return len([]rune(s)) <= maxText && s == clean(s) }

// Remove forgets the provider. Its users stay, and do not count until it is set again.
func (s *Service) Remove(ctx context.Context) error { return s.opt.Model.RemoveOIDC(ctx) }

// Test tries what is needed of the provider, as far as that goes without a person.
func (s *Service) Test(ctx context.Context) (model.OIDC, []remote.Step, error) {
	o, ok := s.opt.Model.OIDC()
	if !ok {
		return o, nil, errNone
	}
	return o, s.try(ctx, o), nil
}

// try looks at a provider anew. It stops at the first step that fails.
func (s *Service) try(ctx context.Context, o model.OIDC) (steps []remote.Step) {
	step := func(name string, f func() (string, error)) bool {
		begun := s.clock.Now()
		detail, err := f()
		if err != nil {
			detail = clean(err.Error())
		}
		steps = append(steps, remote.Step{Step: name, OK: err == nil, Detail: detail, Duration: s.clock.Now().Sub(begun)})
		return err == nil
	}
	var p *provider
	if !step("secret", func() (string, error) {
		if len(o.Secret) == 0 {
			return "none: a public client", nil
		}
		_, err := s.secret(o)
		return "it opens", err
	}) || !step("discovery", func() (_ string, err error) {
		p, err = discover(ctx, o, s.clock)
		return o.Issuer, err
	}) {
		return steps
	}
	if !step("keys", func() (string, error) {
		ctx, cancel := context.WithTimeout(ctx, requestLimit)
		defer cancel()
		n, err := p.keys.read(ctx)
		return fmt.Sprintf("%d for signatures", n), err
	}) {
		return steps
	}
	step("pkce", func() (string, error) {
		if !p.s256 {
			return "it does not say that it takes S256, which is sent all the same", nil
		}
		return "S256", nil
	})
	step("sign-out", func() (string, error) {
		if p.end == "" {
			return "nowhere: people stay signed in there", nil
		}
		return p.end, nil
	})
	return steps
}
