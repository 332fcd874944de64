package api

import (
	"cmp"
	"context"
	"errors"
	"net/http"

	"github.com/openvstorage/ovgate/gateway/auth"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/oidc"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
)

func oidcOf(o model.OIDC) Oidc {
	out := Oidc{
		Configured: o.Issuer != "", Name: o.Name, Issuer: o.Issuer, ClientID: o.ClientID, HasSecret: len(o.Secret) > 0, Addresses: append([]string{}, o.Addresses...),
		RedirectUris: []string{}, Scopes: append([]string{}, o.Scopes...), NameClaim: o.NameClaim, GroupsClaim: o.GroupsClaim, Roles: []OidcRole{}, Ca: o.CA,
	}
	for _, a := range o.Addresses {
		out.RedirectUris = append(out.RedirectUris, a+oidc.ReturnPath)
	}
	for _, r := range o.Roles {
		out.Roles = append(out.Roles, OidcRole{Group: r.Group, Role: Role(r.Role)})
	}
	if !o.Created.IsZero() {
		out.Created = new(o.Created.UTC())
	}
	return out
}

func oidcResult(o model.OIDC, steps []remote.Step) OidcResult {
	return OidcResult{Provider: oidcOf(o), Steps: stepsOf(steps)}
}

// GetOidc shows the sign-in provider.
func (s *Server) GetOidc(context.Context, GetOidcRequestObject) (GetOidcResponseObject, error) {
	o, ok := s.opt.OIDC.Config()
	if !ok {
		o = oidc.Default()
	}
	return GetOidc200JSONResponse(oidcOf(o)), nil
}

// SetOidc sets or changes the sign-in provider.
func (s *Server) SetOidc(ctx context.Context, r SetOidcRequestObject) (SetOidcResponseObject, error) {
	b := r.Body
	in := oidc.Change{
		Name: b.Name, Issuer: b.Issuer, ClientID: b.ClientID, Secret: b.Secret, Addresses: b.Addresses, Scopes: b.Scopes,
		NameClaim: b.NameClaim, GroupsClaim: b.GroupsClaim, CA: b.Ca,
	}
	if b.Roles != nil {
		in.Roles = &[]model.OIDCRole{}
		for _, v := range *b.Roles {
			*in.Roles = append(*in.Roles, model.OIDCRole{Group: v.Group, Role: string(v.Role)})
		}
	}
	o, steps, err := s.opt.OIDC.Set(ctx, in)
	if err != nil {
		return nil, err
	}
	return SetOidc200JSONResponse(oidcResult(o, steps)), nil
}

// DeleteOidc forgets the sign-in provider.
func (s *Server) DeleteOidc(ctx context.Context, _ DeleteOidcRequestObject) (DeleteOidcResponseObject, error) {
	if err := s.opt.OIDC.Remove(ctx); err != nil {
		return nil, err
	}
	return DeleteOidc204Response{}, nil
}

// TestOidc tries the sign-in provider.
func (s *Server) TestOidc(ctx context.Context, _ TestOidcRequestObject) (TestOidcResponseObject, error) {
	o, steps, err := s.opt.OIDC.Test(ctx)
	if err != nil {
		return nil, err
	}
	return TestOidc200JSONResponse(oidcResult(o, steps)), nil
}

// BeginOidc begins a sign-in through the provider.
func (s *Server) BeginOidc(ctx context.Context, r BeginOidcRequestObject) (BeginOidcResponseObject, error) {
	to, kept, err := s.opt.OIDC.Begin(ctx, r.Body.Address, value(r.Body.ReturnTo))
	if err != nil {
		return nil, err
	}
	return begun{s, to, kept}, nil
}

// begun answers with where to go, and the flow's cookie.
type begun struct {
	s        *Server
	to, kept string
}

// VisitBeginOidcResponse writes the answer.
func (r begun) VisitBeginOidcResponse(w http.ResponseWriter) error {
	http.SetCookie(w, r.s.flow(r.kept))
	return writeJSON(w, http.StatusOK, Redirect{r.to})
}

// flow makes the cookie of a sign-in that was begun; value "" removes it. It is Lax, as what
// follows begins with a navigation from the provider's site.
func (s *Server) flow(value string) *http.Cookie {
	c := &http.Cookie{
		Name: flowCookie, Value: value, Path: BasePath + "/session/oidc", HttpOnly: true, Secure: s.opt.Secure, SameSite: http.SameSiteLaxMode,
		MaxAge: int(oidc.FlowLimit.Seconds()),
	}
	if value == "" {
		c.MaxAge = -1
	}
	return c
}

// FinishOidc makes a session of what the provider answered.
func (s *Server) FinishOidc(ctx context.Context, r FinishOidcRequestObject) (FinishOidcResponseObject, error) {
	b := r.Body
	who := callerOf(ctx)
	v, returnTo, err := s.opt.OIDC.Finish(ctx, who.address, who.flow, oidc.Answer{
		State: b.State, Code: value(b.Code), Issuer: value(b.Iss), Err: value(b.Error), Why: value(b.ErrorDescription),
	})
	var refused *oidc.RefusedError
	var field *auth.FieldError
	switch {
	case errors.As(err, &refused):
		noteSignIn(ctx, refused.Object)
	case errors.As(err, &field):
		noteSignIn(ctx, field.Object)
	case err == nil:
		noteSignIn(ctx, "user "+v.User.Name)
	}
	if err != nil {
		return nil, err
	}
	return finished{s, v, cmp.Or(returnTo, "/")}, nil
}

// finished answers with the session, its cookies, and without the flow's.
type finished struct {
	s        *Server
	v        auth.Session
	returnTo string
}

// VisitFinishOidcResponse writes the answer.
func (r finished) VisitFinishOidcResponse(w http.ResponseWriter) error {
	http.SetCookie(w, r.s.flow(""))
	r.s.setSession(w, r.v)
	return writeJSON(w, http.StatusOK, OidcSession{Session: r.s.sessionMade(r.v), ReturnTo: r.returnTo})
}
