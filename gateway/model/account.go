package model

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"time"
)

// Grant is a role on one object.
type Grant struct {
	Role  string `json:"role"`
	Scope string `json:"scope"` // "vpool:UUID" or "backend:UUID"; the object may be gone
}

// User is a person who signs in with a password.
type User struct {
	Format   int       `json:"format"`
	Name     string    `json:"name"`
	Role     string    `json:"role"`     // over everything: none, read, write or manage
	Password string    `json:"password"` // argon2id, PHC string; empty of an external user
	Created  time.Time `json:"created"`
	// External is who the user is at the sign-in provider; nil: a user with a password.
	External *External `json:"external,omitempty"`
	Grants   []Grant   `json:"grants,omitempty"`
	// Groups are the ids of those that it is a member of; one that is gone gives nothing.
	Groups []string `json:"groups,omitempty"`

	Rev int64 `json:"-"`
}

// UserGroup gives its members a role and grants.
type UserGroup struct {
	Format      int       `json:"format"`
	ID          string    `json:"id"` // UUID
	Name        string    `json:"name"`
	Description string    `json:"description,omitempty"`
	Role        string    `json:"role"` // over everything: none, read, write or manage
	Grants      []Grant   `json:"grants,omitempty"`
	Created     time.Time `json:"created"`

	Rev int64 `json:"-"`
}

// Client is a program that gets tokens by OAuth2; only the hash of its secret is kept.
type Client struct {
	Format     int       `json:"format"`
	ID         string    `json:"id"` // UUID, which is its client_id
	Name       string    `json:"name"`
	User       string    `json:"user"`       // whose it is, and who client_credentials act as
	GrantTypes []string  `json:"grantTypes"` // client_credentials, password
	Role       string    `json:"role"`       // what its tokens may at most, with Grants
	Grants     []Grant   `json:"grants,omitempty"`
	Hash       string    `json:"hash"` // hex sha-256 of the secret
	Expires    time.Time `json:"expires,omitzero"`
	Created    time.Time `json:"created"`
	Used       time.Time `json:"used,omitzero"` // about when it last got a token

	Rev int64 `json:"-"`
}

// Family is a sign-in through an OAuth2 client that goes on by refresh tokens, of which one is
// in force at a time.
type Family struct {
	Format  int       `json:"format"`
	ID      string    `json:"id"` // UUID
	Client  string    `json:"client"`
	User    string    `json:"user"`
	Role    string    `json:"role"`
	Grants  []Grant   `json:"grants,omitempty"`
	Hash    string    `json:"hash"`    // hex sha-256 of the refresh token in force
	Expires time.Time `json:"expires"` // of that token
	Created time.Time `json:"created"`

	Rev int64 `json:"-"`
}

// External is the identity of a user whom a sign-in provider (OIDC) vouches for.
type External struct {
	Issuer  string    `json:"issuer"`
	Subject string    `json:"subject"` // never given to somebody else by the issuer
	Seen    time.Time `json:"seen"`    // newest sign-in that the provider vouched for
	Refused bool      `json:"refused,omitempty"`
}

// externalKey is the index key of an identity; both parts are other people's text.
func externalKey(issuer, subject string) string {
	h := sha256.Sum256([]byte(issuer + "\x00" + subject))
	return "external/" + hex.EncodeToString(h[:])
}

// Token is a bearer token; only its hash is kept.
type Token struct {
	Format  int       `json:"format"`
	ID      string    `json:"id"` // UUID
	Name    string    `json:"name"`
	Role    string    `json:"role"`
	Grants  []Grant   `json:"grants,omitempty"` // beside the role; of both, what its user may
	Hash    string    `json:"hash"`             // hex sha-256 of the token
	User    string    `json:"user,omitempty"`   // who made it
	Node    bool      `json:"node,omitempty"`   // a node's admin.token
	Of      string    `json:"of,omitempty"`     // id of that node; empty up to format 8: the only node's
	Expires time.Time `json:"expires,omitzero"`
	Created time.Time `json:"created"`
	// Client is the id of the OAuth2 client that it was given to, and Family that of the
	// sign-in that it belongs to; empty: it has none.
	Client string `json:"client,omitempty"`
	Family string `json:"family,omitempty"`

	Rev int64 `json:"-"`
}

func (u User) key() string { return u.Name }
func (u User) unique() []string {
	if u.External == nil {
		return nil
	}
	return []string{externalKey(u.External.Issuer, u.External.Subject)}
}
func (u User) format() int { return u.Format }
func (u User) rev() int64  { return u.Rev }
func (u User) clone(rev int64) User {
	u.Rev = rev
	u.Grants, u.Groups = slices.Clone(u.Grants), slices.Clone(u.Groups)
	if u.External != nil {
		u.External = new(*u.External)
	}
	return u
}

func (t Token) key() string      { return t.ID }
func (t Token) unique() []string { return []string{"token/" + t.Hash} }
func (t Token) format() int      { return t.Format }
func (t Token) rev() int64       { return t.Rev }
func (t Token) clone(rev int64) Token {
	t.Rev = rev
	t.Grants = slices.Clone(t.Grants)
	return t
}

func (g UserGroup) key() string      { return g.ID }
func (g UserGroup) unique() []string { return []string{"usergroup/" + g.Name} }
func (g UserGroup) format() int      { return g.Format }
func (g UserGroup) rev() int64       { return g.Rev }
func (g UserGroup) clone(rev int64) UserGroup {
	g.Rev, g.Grants = rev, slices.Clone(g.Grants)
	return g
}

func (c Client) key() string      { return c.ID }
func (c Client) unique() []string { return nil }
func (c Client) format() int      { return c.Format }
func (c Client) rev() int64       { return c.Rev }
func (c Client) clone(rev int64) Client {
	c.Rev, c.Grants, c.GrantTypes = rev, slices.Clone(c.Grants), slices.Clone(c.GrantTypes)
	return c
}

func (f Family) key() string      { return f.ID }
func (f Family) unique() []string { return nil }
func (f Family) format() int      { return f.Format }
func (f Family) rev() int64       { return f.Rev }
func (f Family) clone(rev int64) Family {
	f.Rev, f.Grants = rev, slices.Clone(f.Grants)
	return f
}

// CreateUserGroup stores a new group of users; ErrExists if its name is taken.
func (s *Store) CreateUserGroup(ctx context.Context, g UserGroup) (UserGroup, error) {
	g.Format = Format
	return s.userGroups.insert(ctx, g, nil)
}

// UserGroup returns a group of users by id.
func (s *Store) UserGroup(id string) (UserGroup, bool) { return s.userGroups.get(id) }

// FindUserGroup returns a group of users by name or id.
func (s *Store) FindUserGroup(ref string) (UserGroup, bool) {
	if g, ok := s.userGroups.lookup("usergroup/" + ref); ok {
		return g, true
	}
	return s.userGroups.get(ref)
}

// UserGroups returns the groups of users in no particular order.
func (s *Store) UserGroups() []UserGroup { return s.userGroups.all(nil) }

// UpdateUserGroup changes a group of users through fn.
func (s *Store) UpdateUserGroup(ctx context.Context, id string, fn func(*UserGroup) error) (UserGroup, error) {
	return s.userGroups.update(ctx, id, func(g *UserGroup) error {
		g.Format = Format
		return fn(g)
	})
}

// DeleteUserGroup removes a group of users; absent is no error.
func (s *Store) DeleteUserGroup(ctx context.Context, id string) error {
	return s.userGroups.remove(ctx, id, nil)
}

// CreateClient stores a new OAuth2 client.
func (s *Store) CreateClient(ctx context.Context, c Client) (Client, error) {
	c.Format = Format
	return s.clients.insert(ctx, c, nil)
}

// Client returns an OAuth2 client by id.
func (s *Store) Client(id string) (Client, bool) { return s.clients.get(id) }

// Clients returns the OAuth2 clients in no particular order.
func (s *Store) Clients() []Client { return s.clients.all(nil) }

// UpdateClient changes an OAuth2 client through fn.
func (s *Store) UpdateClient(ctx context.Context, id string, fn func(*Client) error) (Client, error) {
	return s.clients.update(ctx, id, func(c *Client) error {
		c.Format = Format
		return fn(c)
	})
}

// DeleteClient removes an OAuth2 client; absent is no error.
func (s *Store) DeleteClient(ctx context.Context, id string) error {
	return s.clients.remove(ctx, id, nil)
}

// CreateFamily stores a new sign-in through an OAuth2 client.
func (s *Store) CreateFamily(ctx context.Context, f Family) (Family, error) {
	f.Format = Format
	return s.families.insert(ctx, f, nil)
}

// Family returns a sign-in through an OAuth2 client by id.
func (s *Store) Family(id string) (Family, bool) { return s.families.get(id) }

// FamilyNow returns a sign-in through an OAuth2 client as the store has it now; ErrNotFound.
func (s *Store) FamilyNow(ctx context.Context, id string) (Family, error) {
	if id == "" {
		return Family{}, ErrNotFound
	}
	f, err := s.families.stored(ctx, id)
	if err == nil {
		s.families.put(f) // memory may be behind (M8)
	}
	return f, err
}

// Families returns the sign-ins through OAuth2 clients in no particular order.
func (s *Store) Families() []Family { return s.families.all(nil) }

// UpdateFamily changes a sign-in through an OAuth2 client through fn.
func (s *Store) UpdateFamily(ctx context.Context, id string, fn func(*Family) error) (Family, error) {
	return s.families.update(ctx, id, func(f *Family) error {
		f.Format = Format
		return fn(f)
	})
}

// DeleteFamily removes a sign-in through an OAuth2 client; absent is no error.
func (s *Store) DeleteFamily(ctx context.Context, id string) error {
	return s.families.remove(ctx, id, nil)
}
