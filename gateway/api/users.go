package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/openvstorage/ovgate/gateway/auth"
	"github.com/openvstorage/ovgate/gateway/model"
)

func (s *Server) userOf(u model.User) User {
	out := User{Name: u.Name, Role: Role(u.Role), Created: u.Created}
	if e := u.External; e != nil {
		out.External = &ExternalUser{Issuer: e.Issuer, Subject: e.Subject, SeenAt: e.Seen.UTC(), Counts: s.opt.Auth.Vouched(u)}
	}
	return out
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
	role, err := auth.ParseRole(string(r.Body.Role))
	if err != nil {
		return nil, about(object, "", err)
	}
	u, err := s.opt.Auth.CreateUser(ctx, r.Body.Name, r.Body.Password, role)
	if err != nil {
		return nil, about(object, "name", err)
	}
	return CreateUser201JSONResponse(s.userOf(u)), nil
}

// GetUser shows a user.
func (s *Server) GetUser(_ context.Context, r GetUserRequestObject) (GetUserResponseObject, error) {
	u, err := s.opt.Auth.User(r.User)
	if err != nil {
		return nil, about("user "+r.User, "", err)
	}
	return GetUser200JSONResponse(s.userOf(u)), nil
}

// UpdateUser changes a role or a password. One's own password needs the present
// one, whatever the role; anything else needs role manage.
func (s *Server) UpdateUser(ctx context.Context, r UpdateUserRequestObject) (UpdateUserResponseObject, error) {
	who := callerOf(ctx)
	object := "user " + r.User
	own := who.User != "" && who.User == r.User
	manage := who.Role.Allows(auth.RoleManage)
	if !manage && (!own || r.Body.Role != nil || r.Body.External != nil) {
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
		v, err := auth.ParseRole(string(*r.Body.Role))
		if err != nil {
			return nil, about(object, "", err)
		}
		role = &v
	}
	u, err := s.opt.Auth.UpdateUser(ctx, r.User, r.Body.Password, role)
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
	case r.Body.Role != nil:
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

func tokenOf(t model.Token) Token {
	v := Token{ID: t.ID, Name: t.Name, User: t.User, Role: Role(t.Role), Created: t.Created}
	if !t.Expires.IsZero() {
		e := t.Expires
		v.Expires = &e
	}
	return v
}

// ListTokens lists one's own tokens, or with role manage everybody's.
func (s *Server) ListTokens(ctx context.Context, r ListTokensRequestObject) (ListTokensResponseObject, error) {
	who := callerOf(ctx)
	var rows []Token
	for _, t := range s.opt.Auth.Tokens() {
		switch {
		case t.Node, t.User != who.User && !who.Role.Allows(auth.RoleManage):
		case r.Params.User != nil && *r.Params.User != t.User:
		case matches(r.Params.Q, t.Name, nil):
			rows = append(rows, tokenOf(t))
		}
	}
	items, next, err := page(rows, func(t Token) model.Keys { return model.Keys{Text: t.Name, ID: t.ID} }, "name", false, r.Params.Cursor, r.Params.Limit)
	return ListTokens200JSONResponse{items, next}, err
}

// CreateToken makes a token; its secret is in this answer only.
func (s *Server) CreateToken(ctx context.Context, r CreateTokenRequestObject) (CreateTokenResponseObject, error) {
	who := callerOf(ctx)
	object := "token " + r.Body.Name
	user := who.User
	if r.Body.User != nil {
		user = *r.Body.User
	}
	if user == "" {
		return nil, about(object, "", refuseField("user", "name the user that the token is for", "a token belongs to a user"))
	}
	if user != who.User && !who.Role.Allows(auth.RoleManage) {
		return nil, refuse(http.StatusForbidden, "forbidden", "user "+user, "ask somebody with role manage", "a token for another user needs role manage")
	}
	role, err := auth.ParseRole(string(r.Body.Role))
	if err != nil {
		return nil, about(object, "", err)
	}
	if user == who.User && !who.Role.Allows(role) {
		return nil, refuse(http.StatusForbidden, "forbidden", "user "+user, "ask for a smaller role", "a token's role is not above the caller's, which is %s", who.Role)
	}
	var life time.Duration
	if r.Body.Expires != nil {
		if life = r.Body.Expires.Sub(s.clock.Now()); life <= 0 {
			return nil, about(object, "", refuseField("expires", "name a time to come", "the token would have expired already"))
		}
	}
	secret, t, err := s.opt.Auth.CreateToken(ctx, r.Body.Name, user, role, life)
	if errors.Is(err, auth.ErrNotFound) {
		return nil, about("user "+user, "", err)
	}
	if err != nil {
		return nil, about(object, "name", err)
	}
	return CreateToken201JSONResponse{Secret: secret, Token: tokenOf(t)}, nil
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
