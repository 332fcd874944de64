package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/openvstorage/ovgate/gateway/api"
	"github.com/openvstorage/ovgate/gateway/oidc/oidctest"
)

// TestOidcOverHTTP signs in through a provider as a browser does: cookies, origins, what is in
// the audit log and what is not in any log.
func TestOidcOverHTTP(t *testing.T) {
	t.Parallel()
	s := serve(t)
	call := func(method, path, body string, h http.Header, status int) answer {
		t.Helper()
		h = h.Clone()
		if h == nil {
			h = http.Header{}
		}
		if body != "" {
			h.Set("Content-Type", "application/json")
		}
		a := s.do(request{method: method, path: path, body: jsonBody(body), header: h})
		if a.status != status {
			t.Fatalf("%s %s: %d %s, want %d", method, path, a.status, a.body, status)
		}
		return a
	}
	admin := bearer(s.token)
	call("POST", "/setup", fmt.Sprintf(`{"token":%q,"user":"admin","password":"correct horse"}`, s.file("setup.token")), nil, 201)
	idp, err := oidctest.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(idp.Close)
	origin := strings.TrimSuffix(s.url, api.BasePath)
	idp.Register(origin + "/login/oidc")
	idp.Put("anna", oidctest.User{Subject: "1", Claims: map[string]any{"preferred_username": "anna", "groups": []string{"staff"}}})
	var issued atomic.Value
	idp.Lie(oidctest.Lies{Answer: func(a map[string]any, _ string) { issued.Store(a["id_token"]) }})
	set, err := json.Marshal(map[string]any{
		"name": "House", "issuer": idp.Issuer(), "clientId": oidctest.ClientID, "secret": oidctest.Secret, "ca": idp.CA(), "addresses": []string{origin},
		"roles": []map[string]string{{"group": "staff", "role": "write"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if a := call("GET", "/session", "", nil, 200); !strings.Contains(string(a.body), `"provider":null`) {
		t.Errorf("session before: %s", a.body)
	}
	if a := call("PUT", "/oidc", string(set), admin, 200); strings.Contains(string(a.body), oidctest.Secret) || !strings.Contains(string(a.body), origin+"/login/oidc") {
		t.Errorf("provider: %s", a.body)
	}
	if a := call("GET", "/session", "", nil, 200); !strings.Contains(string(a.body), `"provider":"House"`) {
		t.Errorf("session after: %s", a.body)
	}

	// begin returns the flow's cookie and what the provider sent back with.
	var codes []string
	begin := func() (http.Header, string) {
		t.Helper()
		a := call("POST", "/session/oidc", fmt.Sprintf(`{"address":%q,"returnTo":"/vpools"}`, origin), nil, 200)
		cookies := (&http.Response{Header: a.header}).Cookies()
		if len(cookies) != 1 {
			t.Fatalf("cookies are %v", cookies)
		}
		c := cookies[0]
		if c.Name != "ovgate_oidc" || !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteLaxMode || c.MaxAge != 600 || c.Path != api.BasePath+"/session/oidc" {
			t.Errorf("the flow's cookie is %v", c)
		}
		var to struct{ URL string }
		if err := json.Unmarshal(a.body, &to); err != nil {
			t.Fatal(err)
		}
		back, err := idp.SignIn(to.URL, "anna")
		if err != nil {
			t.Fatal(err)
		}
		codes = append(codes, back.Get("code"))
		return http.Header{"Cookie": {c.Name + "=" + c.Value}}, finishBody(back)
	}
	is := func(a answer, code string) {
		t.Helper()
		if !strings.Contains(string(a.body), `"code":"`+code+`"`) {
			t.Errorf("%s, want %s", a.body, code)
		}
	}
	h, body := begin()
	is(call("POST", "/session/oidc/answer", body, nil, 401), "provider_refused")
	foreign := h.Clone()
	foreign.Set("Sec-Fetch-Site", "cross-site")
	is(call("POST", "/session/oidc/answer", body, foreign, 403), "csrf")
	a := call("POST", "/session/oidc/answer", body, h, 200)
	if !strings.Contains(string(a.body), `"returnTo":"/vpools"`) {
		t.Errorf("answer: %s", a.body)
	}
	is(call("POST", "/session/oidc/answer", body, h, 401), "provider_refused")

	session := http.Header{}
	for _, c := range (&http.Response{Header: a.header}).Cookies() {
		switch c.Name {
		case "ovgate_session", "ovgate_csrf":
			session.Add("Cookie", c.Name+"="+c.Value)
		}
		if c.Name == "ovgate_csrf" {
			session.Set("X-Csrf-Token", c.Value)
		}
		if c.Name == "ovgate_oidc" && c.MaxAge >= 0 {
			t.Errorf("the flow's cookie stays: %v", c)
		}
	}
	if a := call("GET", "/session", "", session, 200); !strings.Contains(string(a.body), `"external":true`) || !strings.Contains(string(a.body), `"user":"anna"`) || !strings.Contains(string(a.body), `"role":"write"`) {
		t.Errorf("session: %s", a.body)
	}
	is(call("PATCH", "/users/anna", `{"password":"correct horse","currentPassword":""}`, session, 400), "invalid")
	is(call("PATCH", "/users/anna", `{"password":"correct horse","external":false}`, session, 403), "forbidden")
	is(call("PATCH", "/users/anna", `{"password":"correct horse"}`, admin, 400), "invalid")
	is(call("PATCH", "/users/anna", `{"role":"manage"}`, admin, 400), "invalid")
	is(call("PATCH", "/users/anna", `{"external":false}`, admin, 400), "invalid")
	is(call("PATCH", "/users/anna", `{"external":true}`, admin, 400), "invalid")
	// The provider's tokens are none of this API.
	raw, _ := issued.Load().(string)
	if a := call("GET", "/status", "", bearer(raw), 401); !strings.Contains(string(a.body), "tokens of a sign-in provider are not taken here") {
		t.Errorf("an ID token as bearer token: %s", a.body)
	}

	// Out here, and there.
	a = call("DELETE", "/session", "", session, 200)
	var to struct{ URL string }
	if err := json.Unmarshal(a.body, &to); err != nil {
		t.Fatal(err)
	}
	if u, err := url.Parse(to.URL); err != nil || !strings.HasPrefix(to.URL, idp.Issuer()+"/end?") || u.Query().Get("post_logout_redirect_uri") != origin+"/login" {
		t.Errorf("signed out, to %s", to.URL)
	}
	call("GET", "/status", "", session, 401)

	// The audit log has who came and who was refused, and nobody who began only.
	a = call("GET", "/audit", "", admin, 200)
	for _, want := range []string{`"operation":"FinishOidc"`, `"object":"user anna"`, `"code":"provider_refused"`, `"operation":"SetOidc"`, `"after":"(secret)"`} {
		if !strings.Contains(string(a.body), want) {
			t.Errorf("the audit log has no %s:\n%s", want, a.body)
		}
	}
	if strings.Contains(string(a.body), "BeginOidc") {
		t.Errorf("the audit log has sign-ins that only began:\n%s", a.body)
	}
	for _, secret := range append(codes, oidctest.Secret, raw) {
		if strings.Contains(s.said.String(), secret) || strings.Contains(string(a.body), secret) {
			t.Errorf("%q is in a log", secret)
		}
	}

	// With a password of its own it is a user of the cluster.
	call("PATCH", "/users/anna", `{"password":"correct horse","external":false}`, admin, 200)
	call("POST", "/session", `{"user":"anna","password":"correct horse"}`, nil, 200)
	h, body = begin()
	is(call("POST", "/session/oidc/answer", body, h, 401), "provider_refused")

	// A provider that is away is said, and leaves passwords alone.
	idp.Close()
	call("PUT", "/oidc", `{"name":"Away"}`, admin, 200)
	is(call("POST", "/session/oidc", fmt.Sprintf(`{"address":%q}`, origin), nil, 503), "provider_unavailable")
	call("POST", "/session", `{"user":"admin","password":"correct horse"}`, nil, 200)
	if a := call("POST", "/oidc/test", "", admin, 200); !strings.Contains(string(a.body), `"ok":false`) {
		t.Errorf("test of a provider that is away: %s", a.body)
	}
	call("DELETE", "/oidc", "", admin, 204)
	is(call("POST", "/session/oidc", fmt.Sprintf(`{"address":%q}`, origin), nil, 404), "not_found")
}

// finishBody is what a page sends of the parameters of a provider.
func finishBody(back url.Values) string {
	b, err := json.Marshal(map[string]string{"state": back.Get("state"), "code": back.Get("code"), "iss": back.Get("iss")})
	if err != nil {
		panic(err) // texts
	}
	return string(b)
}
