package auth

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/openvstorage/ovgate/gateway/model"
)

const (
	// maxGroups bounds the groups of users, and those of one user: rights are added up at each
	// request.
	maxGroups     = 1000
	maxUserGroups = 50
	// maxDescription bounds what is said of a group, in characters.
	maxDescription = 200
)

// GroupChange is what of a group is to be changed; nil leaves it as it is.
type GroupChange struct {
	Name, Description *string
	Role              *Role
	Grants            *[]Grant
}

// Groups returns the groups in no particular order.
func (s *Service) Groups() []model.UserGroup { return s.store.UserGroups() }

// Group returns a group by name or id; ErrNotFound.
func (s *Service) Group(ref string) (model.UserGroup, error) {
	g, ok := s.store.FindUserGroup(ref)
	if !ok {
		return g, fmt.Errorf("group %q: %w", ref, ErrNotFound)
	}
	return g, nil
}

// Members returns the names of the members of each group, by its id, in order.
func (s *Service) Members() map[string][]string {
	out := map[string][]string{}
	for _, u := range s.store.Users() {
		for _, id := range u.Groups {
			out[id] = append(out[id], u.Name)
		}
	}
	for _, names := range out {
		slices.Sort(names)
	}
	return out
}

// apply changes a group as a change says.
func (s *Service) apply(g *model.UserGroup, c GroupChange) error {
	object := objectOf("group", g.Name)
	if c.Name != nil {
		object = objectOf("group", *c.Name)
		if !namePattern.MatchString(*c.Name) {
			return &FieldError{"name", object, "this is not a group name", nameHint}
		}
		g.Name = *c.Name
	}
	if c.Description != nil {
		if utf8.RuneCountInString(*c.Description) > maxDescription {
			return &FieldError{"description", object, fmt.Sprintf("it is longer than %d characters", maxDescription), "say less"}
		}
		g.Description = strings.ToValidUTF8(*c.Description, "?")
	}
	if c.Role != nil {
		g.Role = string(*c.Role)
	}
	if c.Grants != nil {
		grants, err := s.records(*c.Grants, g.Grants)
		if err != nil {
			return err
		}
		g.Grants = grants
	}
	return nil
}

// groupError names the group in an error of the store.
func groupError(name string, err error) error {
	switch {
	case errors.Is(err, model.ErrExists):
		return fmt.Errorf("group %q: %w", name, ErrExists)
	case errors.Is(err, model.ErrNotFound):
		return fmt.Errorf("group %q: %w", name, ErrNotFound)
	}
	return err
}

// CreateGroup makes a group without members.
func (s *Service) CreateGroup(ctx context.Context, name string, c GroupChange) (model.UserGroup, error) {
	g := model.UserGroup{Role: string(RoleNone), Created: s.clock.Now().UTC()}
	c.Name = &name
	if err := s.apply(&g, c); err != nil {
		return g, err
	}
	if len(s.store.UserGroups()) >= maxGroups {
		return g, fmt.Errorf("groups: %w: %d exist", ErrTooMany, maxGroups)
	}
	var err error
	if g.ID, err = model.NewUUID(); err != nil {
		return g, err
	}
	g, err = s.store.CreateUserGroup(ctx, g)
	return g, groupError(name, err)
}

// UpdateGroup changes a group. Its members' rights follow at once (A8).
func (s *Service) UpdateGroup(ctx context.Context, ref string, c GroupChange) (model.UserGroup, error) {
	s.usersMu.Lock()
	defer s.usersMu.Unlock()
	g, err := s.Group(ref)
	if err != nil {
		return g, err
	}
	g, err = s.store.UpdateUserGroup(ctx, g.ID, func(g *model.UserGroup) error {
		if err := s.apply(g, c); err != nil {
			return err
		}
		return s.keepsManager("group "+g.Name, changes{groups: map[string]*model.UserGroup{g.ID: g}})
	})
	if c.Name != nil {
		ref = *c.Name
	}
	return g, groupError(ref, err)
}

// DeleteGroup deletes a group; absent is no error. Its members lose what it gave (A8).
func (s *Service) DeleteGroup(ctx context.Context, ref string) error {
	s.usersMu.Lock()
	defer s.usersMu.Unlock()
	g, ok := s.store.FindUserGroup(ref)
	if !ok {
		return nil
	}
	if err := s.keepsManager("group "+g.Name, changes{groups: map[string]*model.UserGroup{g.ID: nil}}); err != nil {
		return err
	}
	if err := s.store.DeleteUserGroup(ctx, g.ID); err != nil {
		return err
	}
	for _, u := range s.store.Users() {
		if slices.Contains(u.Groups, g.ID) {
			if _, err := s.leave(ctx, u.Name, g.ID); err != nil && !errors.Is(err, model.ErrNotFound) {
				return err
			}
		}
	}
	return nil
}

// AddMember makes a user a member of a group; one that it is already changes nothing.
func (s *Service) AddMember(ctx context.Context, ref, user string) (model.UserGroup, error) {
	s.usersMu.Lock()
	defer s.usersMu.Unlock()
	g, err := s.Group(ref)
	if err != nil {
		return g, err
	}
	_, err = s.store.UpdateUser(ctx, user, func(u *model.User) error {
		u.Groups = slices.DeleteFunc(u.Groups, func(id string) bool {
			_, there := s.store.UserGroup(id)
			return !there
		})
		if slices.Contains(u.Groups, g.ID) {
			return nil
		}
		if len(u.Groups) >= maxUserGroups {
			return fmt.Errorf("user %q: groups: %w: it is a member of %d", user, ErrTooMany, maxUserGroups)
		}
		u.Groups = append(u.Groups, g.ID)
		return nil
	})
	if errors.Is(err, model.ErrNotFound) {
		err = fmt.Errorf("user %q: %w", user, ErrNotFound)
	}
	return g, err
}

// RemoveMember takes a user out of a group; one that is no member changes nothing.
func (s *Service) RemoveMember(ctx context.Context, ref, user string) error {
	s.usersMu.Lock()
	defer s.usersMu.Unlock()
	g, err := s.Group(ref)
	if err != nil {
		return err
	}
	if u, ok := s.store.User(user); !ok || !slices.Contains(u.Groups, g.ID) {
		return nil
	}
	_, err = s.leave(ctx, user, g.ID)
	return err
}

// leave takes a user out of a group.
func (s *Service) leave(ctx context.Context, user, id string) (model.User, error) {
	return s.store.UpdateUser(ctx, user, func(u *model.User) error {
		u.Groups = slices.DeleteFunc(u.Groups, func(in string) bool { return in == id })
		return s.keepsManager("user "+user, changes{users: map[string]*model.User{user: u}})
	})
}

// changes are users, by name, and groups, by id, as they are to be; nil: deleted.
type changes struct {
	users  map[string]*model.User
	groups map[string]*model.UserGroup
}

// keepsManager refuses changes after which nobody with a password would have role manage over
// everything any more (A5).
func (s *Service) keepsManager(object string, c changes) error {
	users := map[string]*model.User{}
	for _, u := range s.store.Users() {
		users[u.Name] = &u
	}
	groups := map[string]*model.UserGroup{}
	for _, g := range s.store.UserGroups() {
		groups[g.ID] = &g
	}
	was := managed(users, groups)
	maps.Copy(users, c.users)
	maps.Copy(groups, c.groups)
	if was && !managed(users, groups) {
		return fmt.Errorf("%s: %w", object, ErrLastManager)
	}
	return nil
}

// managed tells whether one of the users has a password, and role manage over everything.
func managed(users map[string]*model.User, groups map[string]*model.UserGroup) bool {
	for _, u := range users {
		if u == nil || u.External != nil {
			continue
		}
		if Role(u.Role) == RoleManage || slices.ContainsFunc(u.Groups, func(id string) bool {
			return groups[id] != nil && Role(groups[id].Role) == RoleManage
		}) {
			return true
		}
	}
	return false
}
