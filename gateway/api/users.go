package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/openvstorage/ovgate/gateway/auth"
	"github.com/openvstorage/ovgate/gateway/model"
)

func (s *Server) userOf(u model.User) User {
	out := User{Name: u.Name, Role: RoleOrNone(u.Role), Created: u.Created, Grants: s.grantsOf(u.Grants), Groups: []string{}, Effective: s.rightsOf(s.opt.Auth.RightsOf(u)), Sources: []RightsSource{}}
	for _, from := range s.opt.Auth.SourcesOf(u) {
		out.Sources = append(out.Sources, RightsSource{Group: some(from.Group), Rights: s.rightsOf(from.Rights)})
		if from.Group != "" {
			out.Groups = append(out.Groups, from.Group)
		}
	}
	if e := u.External; e != nil {
		out.External = &ExternalUser{Issuer: e.Issuer, Subject: e.Subject, SeenAt: e.Seen.UTC(), Counts: s.opt.Auth.Vouched(u)}
	}
	return out
}

func (s *Server) grantOf(role auth.Role, scope string) Grant {
	_, name, ok := s.opt.Auth.ScopeName(scope)
	return Grant{Role: Role(role), Scope: scope, Name: name, Exists: ok}
}

func (s *Server) grantsOf(grants []model.Grant) []Grant {
	out := []Grant{}
	for _, g := range grants {
		out = append(out, s.grantOf(auth.Role(g.Role), g.Scope))
	}
	return out
}

func (s *Server) rightsOf(r auth.Rights) Rights {
	out := Rights{Role: RoleOrNone(r.On("")), Grants: []Grant{}}
	for _, scope := range r.Scopes() {
		out.Grants = append(out.Grants, s.grantOf(r.Grants[scope], scope))
	}
	return out
}

func grantsIn(in *[]GrantInput) *[]auth.Grant {
	if in == nil {
		return nil
	}
	out := []auth.Grant{}
	for _, g := range *in {
		out = append(out, auth.Grant{Role: auth.Role(g.Role), Scope: g.Scope})
	}
	return &out
}

// ListUsers lists users by name.
func (s *Server) ListUsers(_ context.Context, r ListUsersRequestObject) (ListUsersResponseObject, error) {
	var rows []User
	for _, u := range s.opt.Auth.Users() {
		if matches(r.Params.Q, u.Name, nil) {
			rows = append(rows, s.userOf(u))
		}
	}
	items, next, err := page(rows, func(u User) model.Keys { return model.Keys{Text: u.Name} }, "name", false, r.Params.Cursor, r.Params.Limit)
	return ListUsers200JSONResponse{items, next}, err
}

// CreateUser makes a user.
func (s *Server) CreateUser(ctx context.Context, r CreateUserRequestObject) (CreateUserResponseObject, error) {
	object := "user " + r.Body.Name
	role, err := auth.ParseRoleOrNone(string(r.Body.Role))
	if err != nil {
		return nil, about(object, "", err)
	}
	u, err := s.opt.Auth.CreateUser(ctx, r.Body.Name, r.Body.Password, role, value(grantsIn(r.Body.Grants)))
	if err != nil {
		return nil, about(object, "name", err)
	}
	return CreateUser201JSONResponse(s.userOf(u)), nil
}

// GetUser shows a user.
func (s *Server) GetUser(ctx context.Context, r GetUserRequestObject) (GetUserResponseObject, error) {
	if who := callerOf(ctx); !who.Role.Allows(auth.RoleRead) && who.User != r.User {
		return nil, refuse(http.StatusForbidden, "forbidden", "user "+clip(r.User), "ask somebody with that role", "other users are shown to role read over everything")
	}
	u, err := s.opt.Auth.User(r.User)
	if err != nil {
		return nil, about("user "+r.User, "", err)
	}
	return GetUser200JSONResponse(s.userOf(u)), nil
}

// UpdateUser changes a role, grants or a password. One's own password needs the present
// one, whatever the role; anything else needs role manage.
func (s *Server) UpdateUser(ctx context.Context, r UpdateUserRequestObject) (UpdateUserResponseObject, error) {
	who := callerOf(ctx)
	object := "user " + r.User
	own := who.User != "" && who.User == r.User
	manage := who.Role.Allows(auth.RoleManage)
	if !manage && (!own || r.Body.Role != nil || r.Body.Grants != nil || r.Body.External != nil) {
		return nil, refuse(http.StatusForbidden, "forbidden", object, "ask somebody with role manage", "this needs role manage")
	}
	if r.Body.External != nil {
		return s.makeLocal(ctx, object, own, r)
	}
	if own && r.Body.Password != nil && !who.External {
		if r.Body.CurrentPassword == nil {
			return nil, about(object, "", refuseField("currentPassword", "send the present password too", "one's own password is changed with the present one"))
		}
		if err := s.opt.Auth.CheckPassword(ctx, who.address, r.User, *r.Body.CurrentPassword); err != nil {
			return nil, wrongPassword(object, err)
		}
	}
	var role *auth.Role
	if r.Body.Role != nil {
		v, err := auth.ParseRoleOrNone(string(*r.Body.Role))
		if err != nil {
			return nil, about(object, "", err)
		}
		role = &v
	}
	u, err := s.opt.Auth.UpdateUser(ctx, r.User, auth.UserChange{Password: r.Body.Password, Role: role, Grants: grantsIn(r.Body.Grants)})
	if err != nil {
		return nil, about(object, "", err)
	}
	return UpdateUser200JSONResponse(s.userOf(u)), nil
}

// makeLocal gives a user of the sign-in provider a password in place of the provider's word.
func (s *Server) makeLocal(ctx context.Context, object string, own bool, r UpdateUserRequestObject) (UpdateUserResponseObject, error) {
	switch {
	case *r.Body.External:
		return nil, about(object, "", refuseField("external", "delete the user, and let the person sign in through the provider", "a user does not become one of the sign-in provider by a change"))
	case own:
		return nil, refuse(http.StatusForbidden, "forbidden", object, "ask another administrator", "nobody gives up the sign-in provider's word for oneself")
	case r.Body.Password == nil:
		return nil, about(object, "", refuseField("password", "send the password that it is to have", "a user of this cluster has a password"))
	case r.Body.Role != nil, r.Body.Grants != nil:
		return nil, about(object, "", refuseField("role", "change it afterwards", "it keeps its role when it becomes a user of this cluster"))
	}
	u, err := s.opt.Auth.MakeLocal(ctx, r.User, *r.Body.Password)
	if err != nil {
		return nil, about(object, "", err)
	}
	return UpdateUser200JSONResponse(s.userOf(u)), nil
}

// wrongPassword names the field when one's present password is wrong.
func wrongPassword(object string, err error) error {
	if !errors.Is(err, auth.ErrCredentials) {
		return about(object, "", err)
	}
	p := toProblem(err)
	p.Message, p.Field, p.Hint = "this is not the present password", some("currentPassword"), some("check it and try again")
	return about(object, "", &refusal{p})
}

// DeleteUser deletes a user.
func (s *Server) DeleteUser(ctx context.Context, r DeleteUserRequestObject) (DeleteUserResponseObject, error) {
	if err := s.opt.Auth.DeleteUser(ctx, r.User); err != nil {
		return nil, about("user "+r.User, "", err)
	}
	return DeleteUser204Response{}, nil
}

func (s *Server) tokenOf(t model.Token) Token {
	v := Token{ID: t.ID, Name: t.Name, User: t.User, Role: RoleOrNone(t.Role), Grants: s.grantsOf(t.Grants), Created: t.Created}
	if !t.Expires.IsZero() {
		e := t.Expires
		v.Expires = &e
	}
	return v
}

// limitOf is what a token or client may at most, for who asks for it.
func limitOf(who caller, object string, role RoleOrNone, grants *[]GrantInput) (auth.Limit, error) {
	r, err := auth.ParseRoleOrNone(string(role))
	return auth.Limit{By: who.Rights, Role: r, Grants: value(grantsIn(grants))}, about(object, "", err)
}

// ListTokens lists one's own tokens, or with role manage everybody's.
func (s *Server) ListTokens(ctx context.Context, r ListTokensRequestObject) (ListTokensResponseObject, error) {
	who := callerOf(ctx)
	var rows []Token
	for _, t := range s.opt.Auth.Tokens() {
		switch {
		case t.Node, t.Client != "", t.User != who.User && !who.Role.Allows(auth.RoleManage):
		case r.Params.User != nil && *r.Params.User != t.User:
		case matches(r.Params.Q, t.Name, nil):
			rows = append(rows, s.tokenOf(t))
		}
	}
	items, next, err := page(rows, func(t Token) model.Keys { return model.Keys{Text: t.Name, ID: t.ID} }, "name", false, r.Params.Cursor, r.Params.Limit)
	return ListTokens200JSONResponse{items, next}, err
}

// CreateToken makes a token; its secret is in this answer only.
func (s *Server) CreateToken(ctx context.Context, r CreateTokenRequestObject) (CreateTokenResponseObject, error) {
	who := callerOf(ctx)
	object := "token " + r.Body.Name
	user, err := s.forUser(who, object, "token", r.Body.User)
	if err != nil {
		return nil, err
	}
	limit, err := limitOf(who, object, r.Body.Role, r.Body.Grants)
	if err != nil {
		return nil, err
	}
	life, err := s.lifeUntil(object, "token", r.Body.Expires)
	if err != nil {
		return nil, err
	}
	secret, t, err := s.opt.Auth.CreateToken(ctx, r.Body.Name, user, limit, life)
	if errors.Is(err, auth.ErrNotFound) {
		return nil, about("user "+user, "", err)
	}
	if err != nil {
		return nil, about(object, "name", err)
	}
	return CreateToken201JSONResponse{Secret: secret, Token: s.tokenOf(t)}, nil
}

// DeleteToken revokes a token: one's own, or with role manage anybody's.
func (s *Server) DeleteToken(ctx context.Context, r DeleteTokenRequestObject) (DeleteTokenResponseObject, error) {
	t, ok := s.opt.Auth.Token(r.Token)
	if !ok {
		return DeleteToken204Response{}, nil
	}
	who := callerOf(ctx)
	if t.Node {
		return nil, refuse(http.StatusForbidden, "forbidden", "token "+t.ID, "delete the file admin.token and restart the node to renew it", "the node's own token stays")
	}
	if t.User != who.User && !who.Role.Allows(auth.RoleManage) {
		return nil, refuse(http.StatusForbidden, "forbidden", "token "+t.ID, "ask somebody with role manage", "another user's token needs role manage")
	}
	if err := s.opt.Auth.DeleteToken(ctx, t.ID); err != nil {
		return nil, err
	}
	return DeleteToken204Response{}, nil
}
