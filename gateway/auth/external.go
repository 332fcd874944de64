package auth

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
)

// externalLimit is how long the word of a provider lasts for tokens: a user who does not come
// back has perhaps left the place that the provider speaks for. Sessions end long before.
const externalLimit = 30 * 24 * time.Hour

// Identity is who a sign-in provider says somebody is.
type Identity struct {
	Issuer, Subject string
	Name            string // the user name for whom is not known yet
	Role            Role   // what the groups give; empty: no entry
}

// Errors of SignInExternal.
var (
	// ErrNoEntry: the provider knows the user, and none of the user's groups has a role here.
	ErrNoEntry = errors.New("none of the groups has a role here")
	// ErrNameTaken: another user has the name.
	ErrNameTaken = errors.New("another user of this name exists")
)

// Attempt counts a sign-in attempt of an address through a provider, with the limits of Login
// and beside them; giveBack takes it back.
func (s *Service) Attempt(addr string) (giveBack func(), err error) {
	key := "external/" + addrKey(addr)
	if wait := s.limit.take(s.clock.Now(), key); wait > 0 {
		return nil, &RateError{wait}
	}
	return func() { s.limit.giveBack(s.clock.Now(), key) }, nil
}

// RefusedExternal is told of each sign-in through a provider that is refused.
func (s *Service) RefusedExternal(addr string) { s.refused(addr) }

// SignInExternal makes a browser session for whom a provider vouches: the user of this
// identity, who gets the role that the groups give now, or a new one of that name. ErrNoEntry,
// after the user's sessions and tokens count no longer; ErrNameTaken. console is where the
// session is to end.
func (s *Service) SignInExternal(ctx context.Context, addr, console string, id Identity) (Session, error) {
	u, known := s.store.UserOf(id.Issuer, id.Subject)
	if id.Role == "" {
		if known {
			if err := s.refuseFromNow(ctx, u.Name, id); err != nil {
				return Session{}, err
			}
		}
		return Session{}, ErrNoEntry
	}
	var err error
	if known {
		u, err = s.vouchedNow(ctx, u, id)
	} else {
		u, err = s.createExternal(ctx, id)
	}
	if err != nil {
		return Session{}, err
	}
	return s.openSession(ctx, addr, console, u)
}

// isOf tells whether a user has an identity.
func isOf(u model.User, id Identity) bool {
	return u.External != nil && u.External.Issuer == id.Issuer && u.External.Subject == id.Subject
}

// errChanged: a user became another one between two looks.
func errChanged(name string) error {
	return fmt.Errorf("user %q: %w: it changed meanwhile, sign in again", name, ErrCredentials)
}

func (s *Service) refuseFromNow(ctx context.Context, name string, id Identity) error {
	_, err := s.store.UpdateUser(ctx, name, func(u *model.User) error {
		if !isOf(*u, id) {
			return errChanged(name)
		}
		u.External.Refused = true
		return nil
	})
	if err != nil {
		return err
	}
	return s.endSessionsOf(ctx, name)
}

// vouchedNow stores what the provider says of a user whom it vouched for before. A user's
// sessions end when the role changes (A6).
func (s *Service) vouchedNow(ctx context.Context, was model.User, id Identity) (model.User, error) {
	u, err := s.store.UpdateUser(ctx, was.Name, func(u *model.User) error {
		if !isOf(*u, id) {
			return errChanged(was.Name)
		}
		u.Role = string(id.Role)
		u.External.Seen, u.External.Refused = s.clock.Now().UTC(), false
		return nil
	})
	if err != nil || u.Role == was.Role {
		return u, err
	}
	return u, s.endSessionsOf(ctx, u.Name)
}

func (s *Service) createExternal(ctx context.Context, id Identity) (model.User, error) {
	if !namePattern.MatchString(id.Name) {
		return model.User{}, &FieldError{"", objectOf("user", id.Name), "the name that the provider gives is no user name here", nameHint + "; another claim may be chosen as the name"}
	}
	if len(s.store.Users()) >= maxUsers {
		return model.User{}, fmt.Errorf("users: %w: %d exist", ErrTooMany, maxUsers)
	}
	now := s.clock.Now().UTC()
	u, err := s.store.CreateUser(ctx, model.User{
		Name: id.Name, Role: string(id.Role), Created: now, External: &model.External{Issuer: id.Issuer, Subject: id.Subject, Seen: now},
	})
	if errors.Is(err, model.ErrExists) || errors.Is(err, model.ErrConflict) {
		return u, fmt.Errorf("user %q: %w", id.Name, ErrNameTaken)
	}
	if err == nil {
		s.log.Info("user of the sign-in provider created", "user", u.Name, "role", u.Role)
	}
	return u, err
}

// vouched tells whether a user counts: one with a password does, an external one by A7.
func (s *Service) vouched(u model.User) bool {
	if u.External == nil {
		return true
	}
	p, ok := s.store.OIDC()
	return ok && p.Issuer == u.External.Issuer && !u.External.Refused && s.clock.Now().Sub(u.External.Seen) < externalLimit
}

// Vouched tells whether sessions and tokens of a user count now.
func (s *Service) Vouched(u model.User) bool { return s.vouched(u) }

// SessionConsole returns where a session that a provider let in is to end; empty: it began
// with a password.
func (s *Service) SessionConsole(p Principal) string {
	v, _ := s.store.Session(p.Session)
	return v.Console
}

func (s *Service) refuseExternal(u model.User, password bool) error {
	field, message := "role", "its role follows its groups at the sign-in provider"
	hint := "change the groups there, or which role they give: ovgate oidc set --role"
	if password {
		field, message = "password", "it signs in through the provider and has no password"
		hint = "make it a user of this cluster first, which it stays: ovgate user make-local " + u.Name
	}
	return &FieldError{field, objectOf("user", u.Name), message, hint}
}

// MakeLocal turns an external user into one with a password, which the provider has no say in
// any more: who comes from there with that name is refused. The user's sessions end.
func (s *Service) MakeLocal(ctx context.Context, name, password string) (model.User, error) {
	if err := checkNewPassword(name, password); err != nil {
		return model.User{}, err
	}
	hash, err := s.hasher.hash(ctx, password)
	if err != nil {
		return model.User{}, err
	}
	u, err := s.store.UpdateUser(ctx, name, func(u *model.User) error {
		if u.External == nil {
			return &FieldError{"external", objectOf("user", name), "it is a user of this cluster already", "set its password: ovgate user set-password " + name}
		}
		u.External, u.Password = nil, hash
		return nil
	})
	if errors.Is(err, model.ErrNotFound) {
		err = fmt.Errorf("user %q: %w", name, ErrNotFound)
	}
	if err != nil {
		return u, err
	}
	return u, s.endSessionsOf(ctx, name)
}
