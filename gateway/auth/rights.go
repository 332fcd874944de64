package auth

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/openvstorage/ovgate/gateway/model"
)

// Kinds of scopes.
const (
	ScopeAll     = "*" // everything
	ScopeVPool   = "vpool"
	ScopeBackend = "backend"
)

// maxGrants bounds the grants of a user, group, token or client: records stay small.
const maxGrants = 100

// VPoolScope is the scope of a vPool.
func VPoolScope(id string) string { return ScopeVPool + ":" + id }

// BackendScope is the scope of a registered store.
func BackendScope(id string) string { return ScopeBackend + ":" + id }

// Rights are what somebody may do: a role over everything, and roles on scopes. The zero value
// is nothing.
type Rights struct {
	Role   Role            `json:",omitempty"`
	Grants map[string]Role `json:",omitempty"` // by scope, with the id of its object; above Role
}

// On returns the role on an object, by its scope.
func (r Rights) On(scope string) Role { return higher(r.Role, r.Grants[scope]) }

// Any tells whether it has a role on anything.
func (r Rights) Any(need Role) bool {
	if r.Role.Allows(need) {
		return true
	}
	for _, g := range r.Grants {
		if g.Allows(need) {
			return true
		}
	}
	return false
}

// higher and lower are of roles in words: RoleNone where neither is one.
func higher(a, b Role) Role {
	if rank[b] > rank[a] {
		return b
	}
	return a.word()
}

func lower(a, b Role) Role {
	if rank[b] < rank[a] {
		return b.word()
	}
	return a.word()
}

// word is RoleNone for what is no role.
func (r Role) word() Role {
	if rank[r] == 0 {
		return RoleNone
	}
	return r
}

// rightsOf are a role and grants as rights.
func rightsOf(role string, grants []model.Grant) Rights {
	out := Rights{Role: Role(role)}
	for _, g := range grants {
		out.add(g.Scope, Role(g.Role))
	}
	return out
}

// add gives a role on a scope.
func (r *Rights) add(scope string, role Role) {
	if rank[role] <= rank[r.On(scope)] {
		return
	}
	if r.Grants == nil {
		r.Grants = map[string]Role{}
	}
	r.Grants[scope] = role
}

// and returns the rights of both together.
func (r Rights) and(o Rights) Rights {
	out := Rights{Role: higher(r.Role, o.Role)}
	for _, in := range []Rights{r, o} {
		for scope, role := range in.Grants {
			out.add(scope, role)
		}
	}
	return out
}

// within returns what both r and o give.
func (r Rights) within(o Rights) Rights {
	out := Rights{Role: lower(r.Role, o.Role)}
	for _, in := range []Rights{r, o} {
		for scope := range in.Grants {
			out.add(scope, lower(r.On(scope), o.On(scope)))
		}
	}
	return out
}

// covers tells whether r gives all that o does.
func (r Rights) covers(o Rights) bool {
	if rank[o.Role] > rank[r.Role] {
		return false
	}
	for scope, role := range o.Grants {
		if rank[role] > rank[r.On(scope)] {
			return false
		}
	}
	return true
}

// Scopes returns the scopes with grants, in order.
func (r Rights) Scopes() []string { return slices.Sorted(maps.Keys(r.Grants)) }

// Source says where a user has rights from.
type Source struct {
	Group string // its name; empty: the user's own
	Rights
}

// SourcesOf returns what a user may and where it is from, the user's own first.
func (s *Service) SourcesOf(u model.User) []Source {
	out := []Source{{Rights: rightsOf(u.Role, u.Grants)}}
	for _, id := range u.Groups {
		if g, ok := s.store.UserGroup(id); ok {
			out = append(out, Source{g.Name, rightsOf(g.Role, g.Grants)})
		}
	}
	slices.SortFunc(out[1:], func(a, b Source) int { return cmp.Compare(a.Group, b.Group) })
	return out
}

// RightsOf returns what a user may now: all that itself and its groups are given (A8).
func (s *Service) RightsOf(u model.User) Rights {
	out := Rights{Role: RoleNone}
	for _, from := range s.SourcesOf(u) {
		out = out.and(from.Rights)
	}
	return out
}

// Grant is a role on what somebody calls "vpool:NAME", "backend:NAME" or "*".
type Grant struct {
	Role  Role
	Scope string
}

// Limit is what a token or client may at most, beside what its user may.
type Limit struct {
	By     Rights // of who asks for it, which it does not exceed
	Role   Role
	Grants []Grant
}

// limits are the grants of a token or client of a user, which may no more than the user and who
// asks for it; ErrAbove.
func (s *Service) limits(what, user string, l Limit) ([]model.Grant, error) {
	u, err := s.User(user)
	if err != nil {
		return nil, err
	}
	grants, err := s.records(l.Grants, nil)
	if err != nil {
		return nil, err
	}
	want, has, object := rightsOf(string(l.Role), grants), s.RightsOf(u), objectOf("user", user)
	if !l.By.covers(want) {
		return nil, fmt.Errorf("%s: %w", object, ErrAbove)
	}
	if rank[l.Role] > rank[has.Role] {
		return nil, &FieldError{"role", object, fmt.Sprintf("it has role %s, a %s of it cannot have role %s", has.Role, what, l.Role), "ask for a smaller role, or for roles on vPools"}
	}
	for scope, role := range want.Grants {
		if on := has.On(scope); rank[role] > rank[on] {
			kind, name, _ := s.ScopeName(scope)
			return nil, &FieldError{"grants", object, fmt.Sprintf("it has role %s on %s %s, a %s of it cannot have role %s there", on, kind, name, what, role), "ask for a smaller role"}
		}
	}
	if rank[l.Role] == 0 && len(grants) == 0 {
		return nil, &FieldError{"role", object, "a " + what + " that may nothing is of no use", "give it a role, or a role on a vPool"}
	}
	return grants, nil
}

// resolve returns the scope of a vPool or store that is named by name or id. What is held already
// may be of an object that is gone.
func (s *Service) resolve(text string, held []model.Grant) (string, error) {
	kind, ref, _ := strings.Cut(text, ":")
	bad := func(message, hint string) error {
		return &FieldError{Field: "grants", Object: objectOf("scope", text), Message: message, Hint: hint}
	}
	switch kind {
	case ScopeVPool:
		if v, ok := s.store.FindVPool(ref); ok && v.State != model.StateDeleting {
			return VPoolScope(v.ID), nil
		}
	case ScopeBackend:
		if v, ok := s.store.FindRemote(ref); ok {
			return BackendScope(v.ID), nil
		}
	default:
		return "", bad("this is no scope", "use *, vpool:NAME or backend:NAME")
	}
	if slices.ContainsFunc(held, func(g model.Grant) bool { return g.Scope == text }) {
		return text, nil
	}
	return "", bad("there is no such "+kind, "ovgate "+kind+" list shows what there is")
}

// records reads grants as they are stored: one of each scope, in order. "*" is refused: it is a role.
func (s *Service) records(in []Grant, held []model.Grant) ([]model.Grant, error) {
	if len(in) > maxGrants {
		return nil, &FieldError{Field: "grants", Message: "these are more grants than are kept", Hint: "use groups; at most 100 fit"}
	}
	roles := map[string]Role{}
	for _, g := range in {
		role, err := ParseRole(string(g.Role))
		if err != nil {
			return nil, &FieldError{Field: "grants", Object: objectOf("scope", g.Scope), Message: "this is not a role", Hint: "use read, write or manage"}
		}
		if g.Scope == ScopeAll {
			return nil, &FieldError{Field: "grants", Object: objectOf("scope", g.Scope), Message: "a grant is for a vPool or backend", Hint: "give the role itself for everything"}
		}
		scope, err := s.resolve(g.Scope, held)
		if err != nil {
			return nil, err
		}
		roles[scope] = higher(roles[scope], role)
	}
	var out []model.Grant
	for _, scope := range slices.Sorted(maps.Keys(roles)) {
		out = append(out, model.Grant{Role: string(roles[scope]), Scope: scope})
	}
	return out, nil
}

// ScopeName returns the kind and present name of what a scope is of; ok is false when it is gone.
func (s *Service) ScopeName(scope string) (kind, name string, ok bool) {
	kind, id, _ := strings.Cut(scope, ":")
	switch kind {
	case ScopeVPool:
		if v, found := s.store.VPool(id); found && v.State != model.StateDeleting {
			return kind, v.Name, true
		}
	case ScopeBackend:
		if v, found := s.store.Remote(id); found {
			return kind, v.Name, true
		}
	}
	return kind, id, false
}
