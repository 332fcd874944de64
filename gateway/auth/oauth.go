package auth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
)

// Life times of what OAuth2 clients are given, those of Open vStorage.
const (
	AccessLife  = time.Hour
	RefreshLife = 24 * time.Hour
)

const (
	// maxGiven bounds the access tokens, and the sign-ins, of a client for one user: the oldest
	// ends when there is one more. A program that asks for a token for each request has so many.
	maxGiven = 20
	// maxGivenAll bounds them all.
	maxGivenAll = 10_000
)

// Given is what a client gets; Access and Refresh exist only here.
type Given struct {
	Access  string
	Refresh string // empty: none
	Expires time.Time
	Scope   string
	User    string
}

// GiveClient gives a client a token of its user (client_credentials); ErrScope.
func (s *Service) GiveClient(ctx context.Context, c model.Client, scope string) (Given, error) {
	u, ok := s.store.User(c.User)
	if !ok || !s.vouched(u) {
		return Given{}, ErrCredentials
	}
	may, err := s.scopeLimit(scope, rightsOf(c.Role, c.Grants).within(s.RightsOf(u)))
	if err != nil {
		return Given{}, err
	}
	return s.give(ctx, c, u.Name, "", may)
}

// GivePassword gives a client a token of the user whose password it has, and a refresh token;
// ErrCredentials, RateError, ErrScope. The limits are those of Login (A3, A4).
func (s *Service) GivePassword(ctx context.Context, addr string, c model.Client, name, password, scope string) (Given, error) {
	u, err := s.checkPassword(ctx, addr, name, password)
	if err != nil {
		return Given{}, err
	}
	may, err := s.scopeLimit(scope, rightsOf(c.Role, c.Grants).within(s.RightsOf(u)))
	if err != nil {
		return Given{}, err
	}
	if err := s.pruneFamilies(ctx, c.ID, u.Name); err != nil {
		return Given{}, err
	}
	id, err := model.NewUUID()
	if err != nil {
		return Given{}, err
	}
	refresh, err := secret("ovr_" + id + ".")
	if err != nil {
		return Given{}, err
	}
	now := s.clock.Now().UTC()
	f, err := s.store.CreateFamily(ctx, model.Family{
		ID: id, Client: c.ID, User: u.Name, Role: string(may.Role), Grants: recordsOf(may), Hash: digest(refresh), Expires: now.Add(RefreshLife), Created: now,
	})
	if err != nil {
		return Given{}, err
	}
	out, err := s.give(ctx, c, u.Name, f.ID, may)
	out.Refresh = refresh
	return out, err
}

var idPattern = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// familyOf is the sign-in that a refresh token is of; empty: it is no such token.
func familyOf(refresh string) string {
	rest, ok := strings.CutPrefix(refresh, "ovr_")
	id, _, found := strings.Cut(rest, ".")
	if !ok || !found || !idPattern.MatchString(id) {
		return ""
	}
	return id
}

// GiveRefresh gives a client a new token and refresh token for one that was in force, which is not
// any more. One that was used before ends the sign-in: somebody else has it too (A10).
// ErrCredentials, ErrScope.
func (s *Service) GiveRefresh(ctx context.Context, c model.Client, refresh, scope string) (Given, error) {
	// As the store has it: the newest token may come from another node.
	f, err := s.store.FamilyNow(ctx, familyOf(refresh))
	if errors.Is(err, model.ErrNotFound) || err == nil && f.Client != c.ID {
		return Given{}, ErrCredentials
	}
	if err != nil {
		return Given{}, err
	}
	u, known := s.store.User(f.User)
	if !same(digest(refresh), f.Hash) || !s.clock.Now().Before(f.Expires) || !known || !s.vouched(u) {
		s.log.Warn("sign-in of a client ended", "client", c.Name, "user", f.User, "why", "a refresh token that is not in force")
		return Given{}, cmp.Or(s.endFamily(ctx, f.ID), ErrCredentials)
	}
	may, err := s.scopeLimit(scope, rightsOf(f.Role, f.Grants).within(s.RightsOf(u)))
	if err != nil {
		return Given{}, err
	}
	next, err := secret("ovr_" + f.ID + ".")
	if err != nil {
		return Given{}, err
	}
	_, err = s.store.UpdateFamily(ctx, f.ID, func(now *model.Family) error {
		if now.Hash != f.Hash {
			return ErrCredentials
		}
		now.Hash, now.Expires = digest(next), s.clock.Now().UTC().Add(RefreshLife)
		return nil
	})
	if errors.Is(err, model.ErrConflict) || errors.Is(err, model.ErrNotFound) {
		err = ErrCredentials // another request was quicker
	}
	if err != nil {
		return Given{}, err
	}
	out, err := s.give(ctx, c, f.User, f.ID, may)
	out.Refresh = next
	return out, err
}

// give makes an access token of a client for a user.
func (s *Service) give(ctx context.Context, c model.Client, user, family string, may Rights) (Given, error) {
	if err := s.pruneGiven(ctx, c.ID, user); err != nil {
		return Given{}, err
	}
	life := AccessLife
	if !c.Expires.IsZero() {
		life = min(life, c.Expires.Sub(s.clock.Now()))
	}
	plain, t, err := s.storeToken(ctx, model.Token{Name: c.Name, Role: string(may.Role), Grants: recordsOf(may), User: user, Client: c.ID, Family: family}, life)
	return Given{Access: plain, Expires: t.Expires, Scope: s.scopeText(may), User: user}, err
}

// pruneGiven forgets expired tokens of clients, and the oldest of a client for a user when there
// are too many.
func (s *Service) pruneGiven(ctx context.Context, client, user string) error {
	var all []model.Token
	for _, t := range s.store.Tokens() {
		if t.Client == "" {
			continue
		}
		if s.clock.Now().Before(t.Expires) {
			all = append(all, t)
		} else if err := s.store.DeleteToken(ctx, t.ID); err != nil {
			return err
		}
	}
	mine := slices.DeleteFunc(slices.Clone(all), func(t model.Token) bool { return t.Client != client || t.User != user })
	slices.SortFunc(mine, func(a, b model.Token) int { return a.Created.Compare(b.Created) })
	return pruneOldest(ctx, "access tokens", len(all), mine, func(ctx context.Context, t model.Token) error { return s.store.DeleteToken(ctx, t.ID) })
}

// pruneFamilies is pruneGiven for sign-ins.
func (s *Service) pruneFamilies(ctx context.Context, client, user string) error {
	var all []model.Family
	for _, f := range s.store.Families() {
		if s.clock.Now().Before(f.Expires) {
			all = append(all, f)
		} else if err := s.store.DeleteFamily(ctx, f.ID); err != nil {
			return err
		}
	}
	mine := slices.DeleteFunc(slices.Clone(all), func(f model.Family) bool { return f.Client != client || f.User != user })
	slices.SortFunc(mine, func(a, b model.Family) int { return a.Created.Compare(b.Created) })
	return pruneOldest(ctx, "sign-ins of clients", len(all), mine, func(ctx context.Context, f model.Family) error { return s.endFamily(ctx, f.ID) })
}

// pruneOldest makes room for one more of mine, the oldest of which are first, and of all.
func pruneOldest[T any](ctx context.Context, what string, all int, mine []T, end func(context.Context, T) error) error {
	for ; len(mine) >= maxGiven; mine, all = mine[1:], all-1 {
		if err := end(ctx, mine[0]); err != nil {
			return err
		}
	}
	if all >= maxGivenAll {
		return fmt.Errorf("%s: %w: %d exist", what, ErrTooMany, all)
	}
	return nil
}

// RevokeGiven ends a token that a client was given, and with a refresh token the whole sign-in; one
// that is none, or not its own, changes nothing (RFC 7009 section 2.2).
func (s *Service) RevokeGiven(ctx context.Context, c model.Client, token string) error {
	if f, ok := s.store.Family(familyOf(token)); ok {
		if f.Client == c.ID && same(digest(token), f.Hash) {
			return s.endFamily(ctx, f.ID)
		}
		return nil
	}
	if t, ok := s.store.TokenByHash(digest(token)); ok && t.Client == c.ID {
		return s.store.DeleteToken(ctx, t.ID)
	}
	return nil
}
