package auth

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
)

// Users returns the users in no particular order.
func (s *Service) Users() []model.User { return s.store.Users() }

// User returns a user by name; ErrNotFound.
func (s *Service) User(name string) (model.User, error) {
	u, ok := s.store.User(name)
	if !ok {
		return u, fmt.Errorf("user %q: %w", name, ErrNotFound)
	}
	return u, nil
}

// CreateUser makes a user. The very first one comes from Setup only (A1).
func (s *Service) CreateUser(ctx context.Context, name, password string, role Role, grants []Grant) (model.User, error) {
	given, err := s.records(grants, nil)
	if err != nil {
		return model.User{}, err
	}
	if len(s.store.Users()) >= maxUsers {
		return model.User{}, fmt.Errorf("users: %w: %d exist", ErrTooMany, maxUsers)
	}
	u, err := s.newUser(ctx, name, password, role)
	if err != nil {
		return u, err
	}
	u.Grants = given
	if _, taken := s.store.User(name); taken {
		return u, fmt.Errorf("user %q: %w", name, ErrExists)
	}
	u, err = s.store.CreateUser(ctx, u)
	if errors.Is(err, model.ErrExists) {
		err = fmt.Errorf("user %q: %w", name, ErrExists)
	}
	if err != nil {
		return u, err
	}
	return u, s.store.SetSetup(ctx, "")
}

// UserChange is what of a user is to be changed; nil leaves it as it is.
type UserChange struct {
	Password *string
	Role     *Role
	Grants   *[]Grant
}

// UpdateUser changes a user. Its sessions end when the password or the role does (A6).
func (s *Service) UpdateUser(ctx context.Context, name string, c UserChange) (model.User, error) {
	u, err := s.User(name)
	if err != nil {
		return u, err
	}
	ends := c.Password != nil || c.Role != nil
	if u.External != nil && ends {
		return u, s.refuseExternal(u, c.Password != nil)
	}
	hash := u.Password
	if c.Password != nil {
		if err := checkNewPassword(name, *c.Password); err != nil {
			return u, err
		}
		if hash, err = s.hasher.hash(ctx, *c.Password); err != nil {
			return u, err
		}
	}
	s.usersMu.Lock()
	defer s.usersMu.Unlock()
	u, err = s.store.UpdateUser(ctx, name, func(u *model.User) error {
		if u.External != nil && ends {
			return s.refuseExternal(*u, c.Password != nil)
		}
		if c.Grants != nil {
			grants, err := s.records(*c.Grants, u.Grants)
			if err != nil {
				return err
			}
			u.Grants = grants
		}
		if c.Password != nil {
			u.Password = hash
		}
		if c.Role == nil {
			return nil
		}
		u.Role = string(*c.Role)
		return s.keepsManager("user "+name, changes{users: map[string]*model.User{name: u}})
	})
	if errors.Is(err, model.ErrNotFound) {
		err = fmt.Errorf("user %q: %w", name, ErrNotFound)
	}
	if err != nil || !ends {
		return u, err
	}
	return u, s.endSessionsOf(ctx, name)
}

// DeleteUser removes a user with its tokens, clients and sessions; absent is no error.
func (s *Service) DeleteUser(ctx context.Context, name string) error {
	s.usersMu.Lock()
	defer s.usersMu.Unlock()
	err := s.store.DeleteUser(ctx, name, func(model.User) error {
		return s.keepsManager("user "+name, changes{users: map[string]*model.User{name: nil}})
	})
	if err != nil {
		return err
	}
	for _, t := range s.store.Tokens() {
		if t.User == name && !t.Node {
			if err := s.store.DeleteToken(ctx, t.ID); err != nil {
				return err
			}
		}
	}
	for _, c := range s.store.Clients() {
		if c.User == name {
			if err := s.DeleteClient(ctx, c.ID); err != nil {
				return err
			}
		}
	}
	return s.endSessionsOf(ctx, name)
}

// Tokens returns the bearer tokens' records in no particular order.
func (s *Service) Tokens() []model.Token { return s.store.Tokens() }

// CreateToken makes a bearer token of a user and returns it, the only time it
// is seen. life 0 is a token that does not expire.
func (s *Service) CreateToken(ctx context.Context, name, user string, limit Limit, life time.Duration) (string, model.Token, error) {
	grants, err := s.limits("token", user, limit)
	if err != nil {
		return "", model.Token{}, err
	}
	if !namePattern.MatchString(name) {
		return "", model.Token{}, &FieldError{"name", objectOf("token", name), "this is not a token name", nameHint}
	}
	if life < 0 || life > MaxTokenLife {
		return "", model.Token{}, &FieldError{"expires", objectOf("token", name), fmt.Sprintf("a token lives at most %d days", MaxTokenLife/(24*time.Hour)), "name an earlier time, or none"}
	}
	if err := s.pruneTokens(ctx); err != nil {
		return "", model.Token{}, err
	}
	return s.storeToken(ctx, model.Token{Name: name, Role: string(limit.Role), Grants: grants, User: user}, life)
}

func (s *Service) storeToken(ctx context.Context, t model.Token, life time.Duration) (string, model.Token, error) {
	plain, err := secret("ovg_")
	if err != nil {
		return "", t, err
	}
	if t.ID, err = model.NewUUID(); err != nil {
		return "", t, err
	}
	t.Hash = digest(plain)
	t.Created = s.clock.Now().UTC()
	if life > 0 {
		t.Expires = t.Created.Add(life)
	}
	if t, err = s.store.CreateToken(ctx, t); err != nil {
		return "", t, err
	}
	return plain, t, nil
}

// pruneTokens forgets expired tokens and enforces the bound.
func (s *Service) pruneTokens(ctx context.Context) error {
	now, left := s.clock.Now(), 0
	for _, t := range s.store.Tokens() {
		if t.Client != "" {
			continue // pruneGiven
		}
		if t.Expires.IsZero() || now.Before(t.Expires) {
			left++
			continue
		}
		if err := s.store.DeleteToken(ctx, t.ID); err != nil {
			return err
		}
	}
	if left >= maxTokens {
		return fmt.Errorf("tokens: %w: %d exist", ErrTooMany, left)
	}
	return nil
}

// Token returns a bearer token's record by id.
func (s *Service) Token(id string) (model.Token, bool) { return s.store.Token(id) }

// DeleteToken revokes a bearer token; absent is no error.
func (s *Service) DeleteToken(ctx context.Context, id string) error {
	return s.store.DeleteToken(ctx, id)
}

// NodeToken returns the token to keep in the admin.token file of a node: current
// when it is still valid, else a new one, and the node's old ones are revoked.
func (s *Service) NodeToken(ctx context.Context, node, current string) (string, error) {
	if p, err := s.Bearer(current); err == nil && p.Role == RoleManage {
		return current, nil
	}
	if err := s.ForgetNode(ctx, node); err != nil {
		return "", err
	}
	plain, _, err := s.storeToken(ctx, model.Token{Name: "node", Role: string(RoleManage), Node: true, Of: node}, 0)
	return plain, err
}

// ForgetNode revokes the tokens of a node that left.
func (s *Service) ForgetNode(ctx context.Context, node string) error {
	for _, t := range s.store.Tokens() {
		if t.Node && t.Of == node {
			if err := s.store.DeleteToken(ctx, t.ID); err != nil {
				return err
			}
		}
	}
	return nil
}
