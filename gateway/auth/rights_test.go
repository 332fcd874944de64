package auth

import (
	"errors"
	"slices"
	"testing"

	"github.com/openvstorage/ovgate/gateway/model"
)

// TestRights: both together, what both give, and whether one is above the other.
func TestRights(t *testing.T) {
	of := func(role Role, grants ...string) Rights {
		r := Rights{Role: role}
		for i := 0; i < len(grants); i += 2 {
			r.add(grants[i], Role(grants[i+1]))
		}
		return r
	}
	same := func(a, b Rights) bool { return a.covers(b) && b.covers(a) }
	for _, c := range []struct{ a, b, and, within Rights }{
		{Rights{}, Rights{}, of(RoleNone), of(RoleNone)},
		{of(RoleRead), of(RoleManage), of(RoleManage), of(RoleRead)},
		{of(RoleNone, "vpool:1", "write"), of(RoleRead), of(RoleRead, "vpool:1", "write"), of(RoleNone, "vpool:1", "read")},
		{of(RoleNone, "vpool:1", "write"), of(RoleNone, "vpool:2", "write"), of(RoleNone, "vpool:1", "write", "vpool:2", "write"), of(RoleNone)},
		{of(RoleRead, "vpool:1", "manage"), of(RoleRead, "vpool:1", "write"), of(RoleRead, "vpool:1", "manage"), of(RoleRead, "vpool:1", "write")},
		{of(RoleWrite), of(RoleNone, "vpool:1", "manage", "backend:1", "read"), of(RoleWrite, "vpool:1", "manage"), of(RoleNone, "vpool:1", "write", "backend:1", "read")},
	} {
		for _, turned := range []bool{false, true} {
			a, b := c.a, c.b
			if turned {
				a, b = b, a
			}
			if got := a.and(b); !same(got, c.and) {
				t.Errorf("%v and %v: %v, want %v", a, b, got, c.and)
			}
			if got := a.within(b); !same(got, c.within) {
				t.Errorf("%v within %v: %v, want %v", a, b, got, c.within)
			}
			if !a.and(b).covers(a) || !a.covers(a.within(b)) {
				t.Errorf("%v and %v: one is not above the other", a, b)
			}
		}
	}
	if r := of(RoleNone, "vpool:1", "write"); r.Any(RoleManage) || !r.Any(RoleWrite) || r.On("vpool:2") != RoleNone || r.On("vpool:1") != RoleWrite || (Rights{}).On("x") != RoleNone {
		t.Errorf("%v", r)
	}
}

// pool makes a vPool's record.
func pool(t *testing.T, m *model.Store, name string) model.VPool {
	t.Helper()
	id, err := model.NewUUID()
	if err != nil {
		t.Fatal(err)
	}
	v, err := m.CreateVPool(t.Context(), model.VPool{ID: id, Name: name, State: model.StatePresent})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestGrants: a user may what it and its groups are given, by the ids of objects: through a
// rename, and not for another object that takes the name of one that is gone.
func TestGrants(t *testing.T) {
	s, m, _ := newService(t)
	first(t, s)
	ctx := t.Context()
	wrong := func(_ any, err error) error { return err }
	fast, slow := pool(t, m, "fast"), pool(t, m, "slow")
	on := func(v model.VPool) Role {
		t.Helper()
		u, err := s.User("bert")
		if err != nil {
			t.Fatal(err)
		}
		return s.RightsOf(u).On(VPoolScope(v.ID))
	}
	check(t, wrong(s.CreateUser(ctx, "bert", good, RoleNone, []Grant{{RoleRead, "vpool:fast"}})), nil)
	check(t, wrong(s.CreateGroup(ctx, "ops", GroupChange{Grants: &[]Grant{{RoleWrite, "vpool:" + fast.ID}, {RoleRead, "vpool:slow"}}})), nil)
	if on(fast) != RoleRead || on(slow) != RoleNone {
		t.Errorf("a grant gives %s and %s", on(fast), on(slow))
	}
	plain, _, err := s.CreateToken(ctx, "ci", "bert", Limit{By: Rights{Role: RoleManage}, Role: RoleNone, Grants: []Grant{{RoleRead, "vpool:fast"}}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	check(t, wrong(s.AddMember(ctx, "ops", "bert")), nil)
	check(t, wrong(s.AddMember(ctx, "ops", "bert")), nil)
	if on(fast) != RoleWrite || on(slow) != RoleRead {
		t.Errorf("a member has %s and %s", on(fast), on(slow))
	}
	// The token has no more than was said of it, and no more than its user.
	if p, err := s.Bearer(plain); err != nil || p.On(VPoolScope(fast.ID)) != RoleRead || p.Any(RoleWrite) || p.On(VPoolScope(slow.ID)) != RoleNone {
		t.Errorf("the token: %+v, %v", p, err)
	}
	if src := s.SourcesOf(user(t, s, "bert")); len(src) != 2 || src[0].Group != "" || src[1].Group != "ops" || src[1].On(VPoolScope(fast.ID)) != RoleWrite {
		t.Errorf("sources: %+v", src)
	}
	// The vPool is renamed, deleted, and another one takes its name.
	check(t, wrong(m.UpdateVPool(ctx, fast.ID, func(v *model.VPool) error { v.Name = "quick"; return nil })), nil)
	other := pool(t, m, "fast")
	if on(fast) != RoleWrite || on(other) != RoleNone {
		t.Errorf("after a rename: %s, and %s on the new one", on(fast), on(other))
	}
	check(t, wrong(m.UpdateVPool(ctx, fast.ID, func(v *model.VPool) error { v.State = model.StateDeleting; return nil })), nil)
	if kind, name, ok := s.ScopeName(VPoolScope(fast.ID)); ok || kind != "vpool" || name != fast.ID {
		t.Errorf("one that is gone is called %s %s, %v", kind, name, ok)
	}
	// What is held of one that is gone may stay; nobody gets it anew.
	gone := Grant{RoleRead, VPoolScope(fast.ID)}
	check(t, wrong(s.UpdateUser(ctx, "bert", UserChange{Grants: &[]Grant{gone, {RoleManage, "vpool:slow"}}})), nil)
	check(t, wrong(s.CreateUser(ctx, "carl", good, RoleNone, []Grant{gone})), ErrInvalid)
	if on(slow) != RoleManage {
		t.Errorf("a grant beside one that is gone: %s", on(slow))
	}
	check(t, s.DeleteGroup(ctx, "ops"), nil)
	check(t, s.DeleteGroup(ctx, "ops"), nil)
	if u := user(t, s, "bert"); len(u.Groups) != 0 || s.RightsOf(u).On(VPoolScope(fast.ID)) != RoleRead {
		t.Errorf("after the group: %+v", u)
	}
	check(t, s.DeleteUser(ctx, "bert"), nil)
}

func user(t *testing.T, s *Service, name string) model.User {
	t.Helper()
	u, err := s.User(name)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// TestBadGrants: each is refused with the field, and nothing changes.
func TestBadGrants(t *testing.T) {
	s, m, _ := newService(t)
	first(t, s)
	ctx := t.Context()
	pool(t, m, "fast")
	for _, g := range []Grant{{"", "vpool:fast"}, {RoleNone, "vpool:fast"}, {"owner", "vpool:fast"}, {RoleRead, ""}, {RoleRead, "*"}, {RoleRead, "vpool"}, {RoleRead, "vpool:"}, {RoleRead, "vpool:none"}, {RoleRead, "backend:fast"}, {RoleRead, "vdisk:fast"}, {RoleRead, "maker:anna"}} {
		var field *FieldError
		if _, err := s.CreateUser(ctx, "bert", good, RoleNone, []Grant{g}); !errors.As(err, &field) || field.Field != "grants" || field.Hint == "" {
			t.Errorf("%v: %v", g, err)
		}
		if _, err := s.CreateGroup(ctx, "ops", GroupChange{Grants: &[]Grant{g}}); !errors.Is(err, ErrInvalid) {
			t.Errorf("group with %v: %v", g, err)
		}
	}
	if _, err := s.CreateGroup(ctx, "ops", GroupChange{Grants: new(make([]Grant, maxGrants+1))}); !errors.Is(err, ErrInvalid) {
		t.Errorf("too many: %v", err)
	}
	for _, name := range []string{"", "-x", "a b"} {
		if _, err := s.CreateGroup(ctx, name, GroupChange{}); !errors.Is(err, ErrInvalid) {
			t.Errorf("group %q: %v", name, err)
		}
	}
	if len(s.Users()) != 1 || len(s.Groups()) != 0 {
		t.Errorf("there are %d users and %d groups", len(s.Users()), len(s.Groups()))
	}
	if _, err := s.AddMember(ctx, "ops", "anna"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a group that is none: %v", err)
	}
	// Nobody makes a token above what they may, for whomever.
	if _, _, err := s.CreateToken(ctx, "ci", "anna", Limit{By: Rights{Role: RoleRead}, Role: RoleWrite}, 0); !errors.Is(err, ErrAbove) {
		t.Errorf("a token above who asks: %v", err)
	}
	if _, _, err := s.CreateToken(ctx, "ci", "anna", Limit{By: Rights{Role: RoleManage}, Role: RoleNone}, 0); !errors.Is(err, ErrInvalid) {
		t.Errorf("a token for nothing: %v", err)
	}
}

// TestLastManagerOfGroup: somebody with a password manages after every change of users, groups
// and members (A5).
func TestLastManagerOfGroup(t *testing.T) {
	s, _, _ := newService(t)
	first(t, s)
	ctx := t.Context()
	wrong := func(_ any, err error) error { return err }
	none := RoleNone
	check(t, wrong(s.CreateUser(ctx, "bert", good, RoleNone, nil)), nil)
	check(t, wrong(s.CreateGroup(ctx, "admins", GroupChange{Role: new(RoleManage)})), nil)
	// A group without members, or with somebody of a provider alone, manages nothing.
	check(t, wrong(s.UpdateUser(ctx, "anna", UserChange{Role: &none})), ErrLastManager)
	check(t, wrong(s.AddMember(ctx, "admins", "bert")), nil)
	check(t, wrong(s.UpdateUser(ctx, "anna", UserChange{Role: &none})), nil)
	// Now bert alone does, through the group.
	check(t, s.DeleteUser(ctx, "bert"), ErrLastManager)
	check(t, s.DeleteGroup(ctx, "admins"), ErrLastManager)
	check(t, wrong(s.UpdateGroup(ctx, "admins", GroupChange{Role: new(RoleWrite)})), ErrLastManager)
	check(t, s.RemoveMember(ctx, "admins", "bert"), ErrLastManager)
	check(t, wrong(s.UpdateGroup(ctx, "admins", GroupChange{Name: new("lords"), Description: new("who rule")})), nil)
	if u := user(t, s, "bert"); s.RightsOf(u).Role != RoleManage {
		t.Errorf("bert: %+v", s.RightsOf(u))
	}
	check(t, wrong(s.AddMember(ctx, "lords", "anna")), nil)
	check(t, s.RemoveMember(ctx, "lords", "bert"), nil)
	check(t, s.DeleteUser(ctx, "anna"), ErrLastManager)
	if m := s.Members(); len(m) != 1 || !slices.ContainsFunc(s.Groups(), func(g model.UserGroup) bool { return slices.Equal(m[g.ID], []string{"anna"}) }) {
		t.Errorf("members: %v", m)
	}
}
