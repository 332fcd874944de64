package api

import (
	"context"
	"net/http"
	"time"

	"github.com/openvstorage/ovgate/gateway/auth"
	"github.com/openvstorage/ovgate/gateway/model"
)

func (s *Server) clientOf(c model.Client) OAuthClient {
	out := OAuthClient{
		ID: c.ID, Name: c.Name, User: c.User, GrantTypes: []OAuthGrantType{}, Role: RoleOrNone(c.Role), Grants: s.grantsOf(c.Grants),
		Created: c.Created, Expires: when(c.Expires), UsedAt: when(c.Used),
	}
	for _, t := range c.GrantTypes {
		out.GrantTypes = append(out.GrantTypes, OAuthGrantType(t))
	}
	return out
}

// ListClients lists one's own OAuth2 clients, or with role manage everybody's.
func (s *Server) ListClients(ctx context.Context, r ListClientsRequestObject) (ListClientsResponseObject, error) {
	who := callerOf(ctx)
	var rows []OAuthClient
	for _, c := range s.opt.Auth.Clients() {
		if (c.User == who.User || who.Role.Allows(auth.RoleManage)) && matches(r.Params.Q, c.Name, nil) {
			rows = append(rows, s.clientOf(c))
		}
	}
	items, next, err := page(rows, func(c OAuthClient) model.Keys { return model.Keys{Text: c.Name, ID: c.ID} }, "name", false, r.Params.Cursor, r.Params.Limit)
	return ListClients200JSONResponse{items, next}, err
}

// forUser is the user that a caller asks something for; another one needs role manage.
func (s *Server) forUser(who caller, object, what string, user *string) (string, error) {
	if user == nil && who.User == "" {
		return "", about(object, "", refuseField("user", "name the user that the "+what+" is for", "a %s belongs to a user", what))
	}
	if user == nil || *user == who.User {
		return who.User, nil
	}
	if !who.Role.Allows(auth.RoleManage) {
		return "", refuse(http.StatusForbidden, "forbidden", "user "+clip(*user), "ask somebody with role manage", "a %s for another user needs role manage", what)
	}
	if _, err := s.opt.Auth.User(*user); err != nil {
		p := toProblem(err)
		if p.Code != "not_found" {
			return "", err
		}
		p.Field, p.Object = some("user"), some("user "+clip(*user))
		return "", &refusal{p}
	}
	return *user, nil
}

// lifeUntil is how long something lives that expires then; 0: for ever.
func (s *Server) lifeUntil(object, what string, expires *time.Time) (time.Duration, error) {
	if expires == nil {
		return 0, nil
	}
	life := expires.Sub(s.clock.Now())
	if life <= 0 {
		return 0, about(object, "", refuseField("expires", "name a time to come", "the %s would have expired already", what))
	}
	return life, nil
}

// CreateClient makes an OAuth2 client; its secret is in this answer only.
func (s *Server) CreateClient(ctx context.Context, r CreateClientRequestObject) (CreateClientResponseObject, error) {
	who, object := callerOf(ctx), "client "+clip(r.Body.Name)
	user, err := s.forUser(who, object, "client", r.Body.User)
	if err != nil {
		return nil, err
	}
	in := auth.NewClient{Name: r.Body.Name, User: user}
	for _, t := range r.Body.GrantTypes {
		in.GrantTypes = append(in.GrantTypes, string(t))
	}
	if in.Limit, err = limitOf(who, object, r.Body.Role, r.Body.Grants); err != nil {
		return nil, err
	}
	if in.Life, err = s.lifeUntil(object, "client", r.Body.Expires); err != nil {
		return nil, err
	}
	secret, c, err := s.opt.Auth.CreateClient(ctx, in)
	if err != nil {
		return nil, about(object, "name", err)
	}
	return CreateClient201JSONResponse{Secret: secret, Client: s.clientOf(c)}, nil
}

// ownClient refuses a client of somebody else, but for who has role manage; false: there is none.
func (s *Server) ownClient(ctx context.Context, id string) (bool, error) {
	who := callerOf(ctx)
	c, ok := s.opt.Auth.Client(id)
	if ok && c.User != who.User && !who.Role.Allows(auth.RoleManage) {
		return false, refuse(http.StatusForbidden, "forbidden", "client "+c.ID, "ask somebody with role manage", "another user's client needs role manage")
	}
	return ok, nil
}

// DeleteClient deletes an OAuth2 client: one's own, or with role manage anybody's.
func (s *Server) DeleteClient(ctx context.Context, r DeleteClientRequestObject) (DeleteClientResponseObject, error) {
	ok, err := s.ownClient(ctx, r.Client)
	if ok {
		err = s.opt.Auth.DeleteClient(ctx, r.Client)
	}
	return DeleteClient204Response{}, err
}

// RenewClientSecret gives an OAuth2 client another secret.
func (s *Server) RenewClientSecret(ctx context.Context, r RenewClientSecretRequestObject) (RenewClientSecretResponseObject, error) {
	if _, err := s.ownClient(ctx, r.Client); err != nil {
		return nil, err
	}
	secret, c, err := s.opt.Auth.NewClientSecret(ctx, r.Client)
	if err != nil {
		return nil, about("client "+clip(r.Client), "", err)
	}
	return RenewClientSecret200JSONResponse{Secret: secret, Client: s.clientOf(c)}, nil
}
