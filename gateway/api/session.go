package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/openvstorage/ovgate/gateway/auth"
)

// GetSetup tells whether the first user is still to be made.
func (s *Server) GetSetup(context.Context, GetSetupRequestObject) (GetSetupResponseObject, error) {
	return GetSetup200JSONResponse{Needed: s.opt.Auth.NeedsSetup()}, nil
}

// CompleteSetup makes the first user.
func (s *Server) CompleteSetup(ctx context.Context, r CompleteSetupRequestObject) (CompleteSetupResponseObject, error) {
	u, err := s.opt.Auth.Setup(ctx, callerOf(ctx).address, r.Body.Token, r.Body.User, r.Body.Password)
	if errors.Is(err, auth.ErrCredentials) {
		p := toProblem(refuse(http.StatusUnauthorized, "bad_setup_token", "set-up token", "use the token that the newest start of the node printed; it is in DIR/setup.token too", "this is not the set-up token"))
		p.Field = some("token")
		return nil, &refusal{p}
	}
	if err != nil {
		return nil, setupField(about("user "+r.Body.User, "", err))
	}
	if s.opt.SetupDone != nil {
		s.opt.SetupDone()
	}
	return CompleteSetup201JSONResponse(s.userOf(u)), nil
}

// setupField gives a user's name the name that it has in a set-up.
func setupField(err error) error {
	var r *refusal
	if errors.As(err, &r) && r.Field != nil && *r.Field == "name" {
		r.Field = some("user")
	}
	return err
}

// GetSession tells who asks.
func (s *Server) GetSession(ctx context.Context, _ GetSessionRequestObject) (GetSessionResponseObject, error) {
	who := callerOf(ctx)
	if !who.known {
		return GetSession200JSONResponse{Grants: []Grant{}, Provider: s.providerName()}, nil
	}
	return GetSession200JSONResponse(s.sessionOf(who.Name, who.Rights, who.External, who.Expires)), nil
}

// providerName is what people know the sign-in provider by; nil: there is none.
func (s *Server) providerName() *string {
	if o, ok := s.opt.OIDC.Config(); ok {
		return &o.Name
	}
	return nil
}

func (s *Server) sessionOf(user string, may auth.Rights, external bool, expires time.Time) Session {
	r := s.rightsOf(may)
	v := Session{User: &user, Role: &r.Role, Grants: r.Grants, External: external, Provider: s.providerName()}
	if !expires.IsZero() {
		expires = expires.UTC()
		v.Expires = &expires
	}
	return v
}

// SignIn makes a browser session.
func (s *Server) SignIn(ctx context.Context, r SignInRequestObject) (SignInResponseObject, error) {
	v, err := s.opt.Auth.Login(ctx, callerOf(ctx).address, r.Body.User, r.Body.Password)
	if errors.Is(err, auth.ErrCredentials) {
		return nil, refuse(http.StatusUnauthorized, "unauthorized", "user "+clip(r.Body.User), "check both and try again", "user or password is wrong")
	}
	if err != nil {
		return nil, about("user "+r.Body.User, "", err)
	}
	return signedIn{s, v}, nil
}

// signedIn answers a sign-in with its cookies.
type signedIn struct {
	s *Server
	v auth.Session
}

// VisitSignInResponse writes the answer.
func (r signedIn) VisitSignInResponse(w http.ResponseWriter) error {
	r.s.setSession(w, r.v)
	return writeJSON(w, http.StatusOK, r.s.sessionMade(r.v))
}

// setSession gives the browser the cookies of a session.
func (s *Server) setSession(w http.ResponseWriter, v auth.Session) {
	http.SetCookie(w, s.cookie(sessionCookie, v.Cookie, true))
	http.SetCookie(w, s.cookie(csrfCookie, v.CSRF, false))
}

func (s *Server) sessionMade(v auth.Session) Session {
	return s.sessionOf(v.User.Name, s.opt.Auth.RightsOf(v.User), v.User.External != nil, v.Expires)
}

// cookie makes a cookie that lives as long as the browser and the session;
// value "" removes it.
func (s *Server) cookie(name, value string, httpOnly bool) *http.Cookie {
	c := &http.Cookie{Name: name, Value: value, Path: "/", HttpOnly: httpOnly, Secure: s.opt.Secure, SameSite: http.SameSiteStrictMode}
	if value == "" {
		c.MaxAge = -1
	}
	return c
}

// SignOut ends the browser session that asks.
func (s *Server) SignOut(ctx context.Context, _ SignOutRequestObject) (SignOutResponseObject, error) {
	out := signedOut{s: s}
	if who := callerOf(ctx); who.cookie {
		out.next = s.opt.OIDC.EndURL(s.opt.Auth.SessionConsole(who.Principal))
		if err := s.opt.Auth.EndSession(ctx, who.Session); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// signedOut removes the cookies.
type signedOut struct {
	s    *Server
	next string // where the session at the provider ends; empty: there is none
}

// VisitSignOutResponse writes the answer.
func (r signedOut) VisitSignOutResponse(w http.ResponseWriter) error {
	http.SetCookie(w, r.s.cookie(sessionCookie, "", true))
	http.SetCookie(w, r.s.cookie(csrfCookie, "", false))
	if r.next != "" {
		return writeJSON(w, http.StatusOK, Redirect{r.next})
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func writeJSON(w http.ResponseWriter, status int, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	return json.NewEncoder(w).Encode(v)
}
