package model

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/openvstorage/ovgate/internal/kv"
)

// oidcKey is the only row of its table.
const oidcKey = "all"

// OIDC is the provider that people may sign in through (gateway/oidc). There is one at most.
type OIDC struct {
	Format   int    `json:"format"`
	Name     string `json:"name"` // as people call it
	Issuer   string `json:"issuer"`
	ClientID string `json:"clientId"`
	// Secret of the client, sealed for issuer and client; empty: a public client.
	Secret      []byte     `json:"secret,omitempty"`
	Addresses   []string   `json:"addresses"` // where the console is, https://HOST[:PORT]
	Scopes      []string   `json:"scopes"`
	NameClaim   string     `json:"nameClaim"`
	GroupsClaim string     `json:"groupsClaim"`
	Roles       []OIDCRole `json:"roles"`
	CA          string     `json:"ca,omitempty"` // PEM, in place of the system's
	Created     time.Time  `json:"created"`

	Rev int64 `json:"-"`
}

// OIDCRole gives the members of a group of the provider a role.
type OIDCRole struct {
	Group string `json:"group"`
	Role  string `json:"role"`
}

func (o OIDC) key() string      { return oidcKey }
func (o OIDC) unique() []string { return nil }
func (o OIDC) format() int      { return o.Format }
func (o OIDC) rev() int64       { return o.Rev }
func (o OIDC) clone(rev int64) OIDC {
	o.Rev = rev
	o.Secret, o.Addresses, o.Scopes, o.Roles = slices.Clone(o.Secret), slices.Clone(o.Addresses), slices.Clone(o.Scopes), slices.Clone(o.Roles)
	return o
}

// OIDC returns the provider that people may sign in through; false: there is none.
func (s *Store) OIDC() (OIDC, bool) { return s.oidc.get(oidcKey) }

// SetOIDC stores the provider in place of was, whose revision is 0 where there was none;
// ErrConflict if it changed meanwhile.
func (s *Store) SetOIDC(ctx context.Context, was int64, o OIDC) (OIDC, error) {
	o.Format = Format
	var err error
	if was == 0 {
		o, err = s.oidc.insert(ctx, o, nil)
		if errors.Is(err, ErrExists) {
			err = fmt.Errorf("%w: somebody else set it", ErrConflict)
		}
	} else {
		o, err = s.oidc.updateIf(ctx, oidcKey, []kv.Compare{kv.ModRevIs(s.oidc.path(oidcKey), was)}, func(v *OIDC) error {
			*v = o
			return nil
		})
	}
	if errors.Is(err, ErrConflict) {
		s.oidc.reload(oidcKey) // memory may be behind (M8)
	}
	return o, err
}

// RemoveOIDC forgets the provider; absent is no error.
func (s *Store) RemoveOIDC(ctx context.Context) error { return s.oidc.remove(ctx, oidcKey, nil) }
