package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
)

// Grant types of OAuth2 (RFC 6749) that a client may be for. One with GrantPassword also gets
// refresh tokens.
const (
	GrantClient   = "client_credentials"
	GrantPassword = "password"
)

const (
	// maxClients and maxUserClients bound the clients, and those of one user.
	maxClients     = 1000
	maxUserClients = 50
	// usedEvery is how exactly it is remembered when a client was last used: each change of
	// that is a write to the store.
	usedEvery = time.Minute
)

// NewClient is what a client is made from.
type NewClient struct {
	Name       string
	User       string // whose it is
	GrantTypes []string
	Limit      Limit
	Life       time.Duration // 0: it does not expire
}

// Clients returns the clients in no particular order.
func (s *Service) Clients() []model.Client { return s.store.Clients() }

// Client returns a client by id.
func (s *Service) Client(id string) (model.Client, bool) { return s.store.Client(id) }

// CreateClient makes a client and returns its secret, the only time it is seen.
func (s *Service) CreateClient(ctx context.Context, in NewClient) (string, model.Client, error) {
	object := objectOf("client", in.Name)
	if !namePattern.MatchString(in.Name) {
		return "", model.Client{}, &FieldError{"name", object, "this is not a client name", nameHint}
	}
	types := slices.Compact(slices.Sorted(slices.Values(in.GrantTypes)))
	if len(types) == 0 || slices.ContainsFunc(types, func(t string) bool { return t != GrantClient && t != GrantPassword }) {
		return "", model.Client{}, &FieldError{"grantTypes", object, "these are not the grant types of a client", "use client_credentials, password, or both"}
	}
	if in.Life < 0 || in.Life > MaxTokenLife {
		return "", model.Client{}, &FieldError{"expires", object, fmt.Sprintf("a client lives at most %d days", MaxTokenLife/(24*time.Hour)), "name an earlier time, or none"}
	}
	grants, err := s.limits("client", in.User, in.Limit)
	if err != nil {
		return "", model.Client{}, err
	}
	own := 0
	all := s.store.Clients()
	for _, c := range all {
		if c.User != in.User {
			continue
		}
		if own++; c.Name == in.Name {
			return "", c, fmt.Errorf("client %q of user %q: %w", in.Name, in.User, ErrExists)
		}
	}
	if len(all) >= maxClients || own >= maxUserClients {
		return "", model.Client{}, fmt.Errorf("clients: %w: %d exist, %d of user %s", ErrTooMany, len(all), own, in.User)
	}
	c := model.Client{Name: in.Name, User: in.User, GrantTypes: types, Role: string(in.Limit.Role), Grants: grants, Created: s.clock.Now().UTC()}
	if in.Life > 0 {
		c.Expires = c.Created.Add(in.Life)
	}
	if c.ID, err = model.NewUUID(); err != nil {
		return "", c, err
	}
	plain, err := secret("ovc_")
	if err != nil {
		return "", c, err
	}
	c.Hash = digest(plain)
	c, err = s.store.CreateClient(ctx, c)
	return plain, c, err
}

// NewClientSecret gives a client another secret. What it got with the old one ends.
func (s *Service) NewClientSecret(ctx context.Context, id string) (string, model.Client, error) {
	plain, err := secret("ovc_")
	if err != nil {
		return "", model.Client{}, err
	}
	c, err := s.store.UpdateClient(ctx, id, func(c *model.Client) error {
		c.Hash = digest(plain)
		return nil
	})
	if errors.Is(err, model.ErrNotFound) {
		err = fmt.Errorf("client %q: %w", id, ErrNotFound)
	}
	if err != nil {
		return "", c, err
	}
	return plain, c, s.endClient(ctx, id)
}

// DeleteClient forgets a client with what it got; absent is no error.
func (s *Service) DeleteClient(ctx context.Context, id string) error {
	if err := s.store.DeleteClient(ctx, id); err != nil {
		return err
	}
	return s.endClient(ctx, id)
}

// endClient ends the tokens and sign-ins of a client.
func (s *Service) endClient(ctx context.Context, id string) error {
	return s.endGiven(ctx, func(client, _, _ string) bool { return client == id })
}

// endFamily ends a sign-in through a client with its tokens.
func (s *Service) endFamily(ctx context.Context, id string) error {
	return s.endGiven(ctx, func(_, family, _ string) bool { return family == id })
}

// endGiven ends what clients were given, where of holds.
func (s *Service) endGiven(ctx context.Context, of func(client, family, user string) bool) error {
	for _, f := range s.store.Families() {
		if of(f.Client, f.ID, f.User) {
			if err := s.store.DeleteFamily(ctx, f.ID); err != nil {
				return err
			}
		}
	}
	for _, t := range s.store.Tokens() {
		if t.Client != "" && of(t.Client, t.Family, t.User) {
			if err := s.store.DeleteToken(ctx, t.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// AuthenticateClient returns the client whose secret it is; ErrCredentials, RateError. Failures
// count by address, beside those of users.
func (s *Service) AuthenticateClient(ctx context.Context, addr, id, plain string) (model.Client, error) {
	key := "client/" + addrKey(addr)
	if wait := s.limit.take(s.clock.Now(), key); wait > 0 {
		return model.Client{}, &RateError{wait}
	}
	c, ok := s.store.Client(id)
	now := s.clock.Now()
	if match := same(digest(plain), c.Hash); !match || !ok || !c.Expires.IsZero() && !now.Before(c.Expires) {
		s.log.Warn("sign-in of a client refused", "address", addr)
		s.refused(addr)
		return model.Client{}, ErrCredentials
	}
	s.limit.giveBack(now, key)
	if now.Sub(c.Used) >= usedEvery {
		if _, err := s.store.UpdateClient(ctx, c.ID, func(c *model.Client) error {
			c.Used = now.UTC()
			return nil
		}); err != nil && !errors.Is(err, model.ErrConflict) { // else somebody else notes it
			return c, err
		}
	}
	return c, nil
}

// Allows tells whether a client is for a grant type.
func Allows(c model.Client, grantType string) bool {
	return slices.Contains(c.GrantTypes, grantType) || grantType == "refresh_token" && slices.Contains(c.GrantTypes, GrantPassword)
}

// ErrScope: a scope is none, or is above what the client and its user may.
var ErrScope = errors.New("the scope is none, or above what the client and the user may")

// scopeLimit reads a scope of OAuth2: words such as read, write:vpool:fast; no word: all that most
// has. It is within most.
func (s *Service) scopeLimit(scope string, most Rights) (Rights, error) {
	words := strings.Fields(scope)
	if len(words) > maxGrants {
		return Rights{}, ErrScope
	}
	want := Rights{Role: RoleNone}
	for _, w := range words {
		role, on, some := strings.Cut(w, ":")
		r, err := ParseRole(role)
		if err != nil {
			return want, ErrScope
		}
		if !some || on == ScopeAll {
			want = want.and(Rights{Role: r})
			continue
		}
		of, err := s.resolve(on, nil)
		if err != nil {
			return want, ErrScope
		}
		want.add(of, r)
	}
	if len(words) == 0 {
		want = most
	}
	if !most.covers(want) || !want.Any(RoleRead) {
		return want, ErrScope
	}
	return want, nil
}

// scopeText writes rights as a scope of OAuth2.
func (s *Service) scopeText(r Rights) string {
	var words []string
	if r.Any(RoleRead) && rank[r.Role] > 0 {
		words = append(words, string(r.Role))
	}
	for _, scope := range r.Scopes() {
		kind, name, _ := s.ScopeName(scope)
		words = append(words, string(r.Grants[scope])+":"+kind+":"+name)
	}
	return strings.Join(words, " ")
}

// recordsOf are the grants of rights as they are stored.
func recordsOf(r Rights) []model.Grant {
	var out []model.Grant
	for _, scope := range r.Scopes() {
		out = append(out, model.Grant{Role: string(r.Grants[scope]), Scope: scope})
	}
	return out
}
