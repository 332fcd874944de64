package api_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// form sends a form to an operation of OAuth2, as a client that authenticates by HTTP Basic unless id
// is empty.
func (s *served) form(path, id, secret string, fields ...string) answer {
	s.t.Helper()
	v := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		v.Set(fields[i], fields[i+1])
	}
	h := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	if id != "" {
		h.Set("Authorization", basic(id, secret))
	}
	return s.do(request{method: "POST", path: path, header: h, body: []byte(v.Encode())})
}

func basic(id, secret string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(id)+":"+url.QueryEscape(secret)))
}

// oauth2 is an answer of the token endpoint.
type oauth2 struct {
	Access  string `json:"access_token"`
	Type    string `json:"token_type"`
	Expires int    `json:"expires_in"`
	Refresh string `json:"refresh_token"`
	Scope   string `json:"scope"`
}

// token gets a token, and checks the answer.
func (s *served) oauthToken(id, secret string, fields ...string) oauth2 {
	s.t.Helper()
	a := s.form("/oauth2/token", id, secret, fields...)
	var out oauth2
	if err := json.Unmarshal(a.body, &out); err != nil || a.status != 200 || out.Access == "" || out.Type != "Bearer" || out.Expires < 3500 || out.Expires > 3600 || a.header.Get("Cache-Control") != "no-store" {
		s.t.Fatalf("token for %v: %d %s %v", fields, a.status, a.body, a.header)
	}
	if wrong := undocumented(s.ops["IssueOAuthToken"], a); wrong != "" {
		s.t.Errorf("token: %s", wrong)
	}
	return out
}

// refused checks an error of RFC 6749 section 5.2.
func (s *served) oauthRefused(what string, a answer, status int, code string) {
	s.t.Helper()
	var e struct {
		Code string `json:"error"`
		Text string `json:"error_description"`
	}
	if err := json.Unmarshal(a.body, &e); err != nil || a.status != status || e.Code != code || e.Text == "" || a.header.Get("Cache-Control") != "no-store" {
		s.t.Errorf("%s: %d %s, want %d %s", what, a.status, a.body, status, code)
	}
	if basic := strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Basic "); basic != (status == 401) {
		s.t.Errorf("%s: WWW-Authenticate %q", what, a.header.Get("WWW-Authenticate"))
	}
	if wrong := undocumented(s.ops["IssueOAuthToken"], a); wrong != "" {
		s.t.Errorf("%s: %s", what, wrong)
	}
}

// client makes a client of a user and returns its id and secret.
func (s *served) oauthClient(body string) (id, secret string) {
	s.t.Helper()
	a := s.must("CreateClient", nil, body)
	return s.field(a, "client", "id"), s.field(a, "secret")
}

// TestOAuth: each grant as RFC 6749 has it, and what comes of the tokens.
func TestOAuth(t *testing.T) {
	t.Parallel()
	s := serve(t)
	s.hide()
	s.member()
	s.must("CreateUser", nil, `{"name":"wim","role":"write","password":"correct horse"}`)
	id, secret := s.oauthClient(`{"name":"ci","user":"wim","grantTypes":["client_credentials"],"role":"write"}`)
	gives := func(bearerToken, op, values, body string, want int) {
		t.Helper()
		o := s.ops[op]
		k, v, _ := strings.Cut(values, "=")
		if a := s.do(request{method: o.method, path: fill(o.path, vals(k, v)), header: bearer(bearerToken), body: jsonBody(body)}); a.status != want {
			t.Errorf("%s %s: %d %s, want %d", op, values, a.status, a.body, want)
		}
	}
	// Client credentials, by Basic and by the body, and narrowed by a scope.
	full := s.oauthToken(id, secret, "grant_type", "client_credentials")
	if full.Scope != "write" || full.Refresh != "" {
		t.Errorf("without a scope: %+v", full)
	}
	inBody := s.oauthToken("", "", "grant_type", "client_credentials", "client_id", id, "client_secret", secret, "scope", "read write:vpool:ours")
	if inBody.Scope != "read write:vpool:ours" {
		t.Errorf("scope %q", inBody.Scope)
	}
	gives(full.Access, "CreateVDisk", "", `{"name":"a","vpool":"hushpool","size":1048576}`, 201)
	gives(inBody.Access, "CreateVDisk", "", `{"name":"b","vpool":"hushpool","size":1048576}`, 403)
	gives(inBody.Access, "CreateVDisk", "", `{"name":"b","vpool":"ours","size":1048576}`, 201)
	gives(full.Access, "ListAudit", "", "", 403)
	if a := s.must("ListTokens", nil, ""); strings.Contains(string(a.body), `"ci"`) {
		t.Errorf("tokens of clients are listed: %s", a.body)
	}
	if a := s.must("ListClients", nil, ""); !strings.Contains(string(a.body), `"usedAt":"20`) || strings.Contains(string(a.body), secret) {
		t.Errorf("clients: %s", a.body)
	}
	// It has what its user has, at once.
	s.must("UpdateUser", vals("user", "wim"), `{"role":"read"}`)
	gives(full.Access, "CreateVDisk", "", `{"name":"c","vpool":"ours","size":1048576}`, 403)
	if now := s.oauthToken(id, secret, "grant_type", "client_credentials"); now.Scope != "read" {
		t.Errorf("a client of a reader has %q", now.Scope)
	}
	s.oauthRefused("a scope above the user", s.form("/oauth2/token", id, secret, "grant_type", "client_credentials", "scope", "write"), 400, "invalid_scope")
	for _, scope := range []string{"owner", "read:vdisk:a", "read:vpool:none", "read:", "none", ":", "manage"} {
		s.oauthRefused("scope "+scope, s.form("/oauth2/token", id, secret, "grant_type", "client_credentials", "scope", scope), 400, "invalid_scope")
	}
	s.oauthRefused("another grant", s.form("/oauth2/token", id, secret, "grant_type", "password", "username", "wim", "password", "correct horse"), 400, "unauthorized_client")

	// The password of a user whom the client does not exceed; refresh tokens are good once.
	web, webSecret := s.oauthClient(`{"name":"web","user":"wim","grantTypes":["password"],"role":"read"}`)
	one := s.oauthToken(web, webSecret, "grant_type", "password", "username", "olga", "password", "correct horse")
	if one.Refresh == "" || one.Scope != "read:vpool:ours" {
		t.Fatalf("password: %+v", one)
	}
	gives(one.Access, "GetVDisk", "vdisk=b", "", 200)
	gives(one.Access, "GetVDisk", "vdisk=hushpool/hushdisk", "", 404)
	gives(one.Access, "CommitVDisk", "vdisk=b", "", 403)
	two := s.oauthToken(web, webSecret, "grant_type", "refresh_token", "refresh_token", one.Refresh)
	gives(two.Access, "GetVDisk", "vdisk=b", "", 200)
	s.oauthRefused("another client's", s.form("/oauth2/token", id, secret, "grant_type", "refresh_token", "refresh_token", two.Refresh), 400, "unauthorized_client")
	other, otherSecret := s.oauthClient(`{"name":"other","user":"wim","grantTypes":["password"],"role":"read"}`)
	s.oauthRefused("another client's", s.form("/oauth2/token", other, otherSecret, "grant_type", "refresh_token", "refresh_token", two.Refresh), 400, "invalid_grant")
	s.oauthRefused("a used one", s.form("/oauth2/token", web, webSecret, "grant_type", "refresh_token", "refresh_token", one.Refresh), 400, "invalid_grant")
	s.oauthRefused("after that", s.form("/oauth2/token", web, webSecret, "grant_type", "refresh_token", "refresh_token", two.Refresh), 400, "invalid_grant")
	gives(two.Access, "GetVDisk", "vdisk=b", "", 401)
	s.oauthRefused("a wrong password", s.form("/oauth2/token", web, webSecret, "grant_type", "password", "username", "olga", "password", "wrong"), 400, "invalid_grant")
	s.oauthRefused("nobody", s.form("/oauth2/token", web, webSecret, "grant_type", "password", "username", "nobody", "password", "wrong"), 400, "invalid_grant")

	// A revocation, of an access token and of a sign-in; of what is none, too.
	again := s.oauthToken(web, webSecret, "grant_type", "password", "username", "olga", "password", "correct horse")
	for _, c := range []struct{ token, by, with string }{{again.Access, other, otherSecret}, {"ovg_none", web, webSecret}, {again.Refresh, other, otherSecret}} {
		if a := s.form("/oauth2/revoke", c.by, c.with, "token", c.token); a.status != 200 || len(a.body) > 0 {
			t.Errorf("revocation of what is not its own: %d %s", a.status, a.body)
		}
	}
	gives(again.Access, "GetVDisk", "vdisk=b", "", 200)
	if a := s.form("/oauth2/revoke", web, webSecret, "token", again.Access, "token_type_hint", "access_token"); a.status != 200 {
		t.Errorf("revocation: %d %s", a.status, a.body)
	}
	gives(again.Access, "GetVDisk", "vdisk=b", "", 401)
	more := s.oauthToken(web, webSecret, "grant_type", "refresh_token", "refresh_token", again.Refresh)
	s.form("/oauth2/revoke", web, webSecret, "token", more.Refresh)
	gives(more.Access, "GetVDisk", "vdisk=b", "", 401)

	// A new password ends sign-ins; a new secret, and a deleted client, what they got.
	last := s.oauthToken(web, webSecret, "grant_type", "password", "username", "olga", "password", "correct horse")
	s.must("UpdateUser", vals("user", "olga"), `{"password":"battery staple"}`)
	gives(last.Access, "GetVDisk", "vdisk=b", "", 401)
	got := s.oauthToken(id, secret, "grant_type", "client_credentials")
	fresh := s.field(s.must("RenewClientSecret", vals("client", id), ""), "secret")
	gives(got.Access, "ListVDisks", "", "", 401)
	s.oauthRefused("the old secret", s.form("/oauth2/token", id, secret, "grant_type", "client_credentials"), 401, "invalid_client")
	got = s.oauthToken(id, fresh, "grant_type", "client_credentials")
	s.must("DeleteClient", vals("client", id), "")
	gives(got.Access, "ListVDisks", "", "", 401)
	s.must("DeleteUser", vals("user", "wim"), "")
	s.oauthRefused("the client of a user who is gone", s.form("/oauth2/token", web, webSecret, "grant_type", "client_credentials"), 401, "invalid_client")
	for _, said := range []string{secret, fresh, webSecret, one.Access, one.Refresh, "battery staple"} {
		if strings.Contains(s.said.String(), said) {
			t.Error("the log has a secret")
		}
	}
	if a := s.must("ListAudit", vals("?operation", "IssueOAuthToken"), ""); !strings.Contains(string(a.body), "user olga by client web") || !strings.Contains(string(a.body), `"code":"invalid_grant"`) {
		t.Errorf("the audit log: %s", clip(string(a.body)))
	}
}

// TestOAuthHostile: what is no request of OAuth2 is refused as the RFC says, and wrong clients have
// to wait after some attempts.
func TestOAuthHostile(t *testing.T) {
	t.Parallel()
	s := serve(t)
	s.must("CreateUser", nil, `{"name":"wim","role":"write","password":"correct horse"}`)
	id, secret := s.oauthClient(`{"name":"ci","user":"wim","grantTypes":["client_credentials"],"role":"write"}`)
	good := "grant_type=client_credentials"
	for _, c := range []struct {
		what, query, kind, auth, body string
		status                        int
		code                          string
	}{
		{"JSON", "", "application/json", basic(id, secret), `{"grant_type":"client_credentials"}`, 400, "invalid_request"},
		{"no type", "", "", basic(id, secret), good, 400, "invalid_request"},
		{"no grant", "", "f", basic(id, secret), "", 400, "invalid_request"},
		{"an unknown grant", "", "f", basic(id, secret), "grant_type=implicit", 400, "unsupported_grant_type"},
		{"a grant twice", "", "f", basic(id, secret), good + "&" + good, 400, "invalid_request"},
		{"a damaged form", "", "f", basic(id, secret), "grant_type=%zz", 400, "invalid_request"},
		{"no UTF-8", "", "f", basic(id, secret), good + "&scope=%ff", 400, "invalid_request"},
		{"a secret in the address", "client_id=" + id, "f", basic(id, secret), good, 400, "invalid_request"},
		{"two ways", "", "f", basic(id, secret), good + "&client_id=" + id + "&client_secret=" + secret, 400, "invalid_request"},
		{"another id in the body", "", "f", basic(id, secret), good + "&client_id=x", 400, "invalid_request"},
		{"too much", "", "f", basic(id, secret), good + "&scope=" + strings.Repeat("x", 40_000), 400, "invalid_request"},
		{"a long scope", "", "f", basic(id, secret), good + "&scope=" + strings.Repeat("read+", 200), 400, "invalid_scope"},
		{"a scheme that is none", "", "f", "Digest x", good, 401, "invalid_client"},
		{"damaged Basic", "", "f", "Basic !", good, 401, "invalid_client"},
		{"Basic without a colon", "", "f", "Basic eA==", good, 401, "invalid_client"},
		{"no client", "", "f", "", good, 401, "invalid_client"},
		{"a wrong secret", "", "f", basic(id, "ovc_no"), good, 401, "invalid_client"},
		{"an empty secret", "", "f", basic(id, ""), good, 401, "invalid_client"},
		{"a client that is none", "", "f", basic("x", secret), good, 401, "invalid_client"},
	} {
		h := http.Header{}
		if c.kind == "f" {
			c.kind = "application/x-www-form-urlencoded; charset=UTF-8"
		}
		h.Set("Content-Type", c.kind)
		if c.auth != "" {
			h.Set("Authorization", c.auth)
		}
		s.oauthRefused(c.what, s.do(request{method: "POST", path: "/oauth2/token", query: c.query, header: h, body: []byte(c.body)}), c.status, c.code)
	}
	// Of ten wrong ones, some were above.
	limited := false
	for range 10 {
		a := s.form("/oauth2/token", id, "ovc_no", "grant_type", "client_credentials")
		limited = limited || a.status == 429 && a.header.Get("Retry-After") != "" && strings.Contains(string(a.body), "temporarily_unavailable")
	}
	if !limited {
		t.Error("a client may guess its secret as often as it likes")
	}
	for _, body := range []string{
		`{"name":"ci","user":"wim","grantTypes":["client_credentials"],"role":"write"}`,
		`{"name":"c2","user":"wim","grantTypes":[],"role":"write"}`,
		`{"name":"c2","user":"wim","grantTypes":["implicit"],"role":"write"}`,
		`{"name":"c2","user":"wim","grantTypes":["password"],"role":"manage"}`,
		`{"name":"c2","user":"wim","grantTypes":["password"],"role":"none"}`,
		`{"name":"-","user":"wim","grantTypes":["password"],"role":"read"}`,
		`{"name":"c2","user":"nobody","grantTypes":["password"],"role":"read"}`,
		`{"name":"c2","user":"wim","grantTypes":["password"],"role":"read","expires":"2020-01-01T00:00:00Z"}`,
		`{"name":"c2","grantTypes":["password"],"role":"read"}`,
	} {
		if a := s.do(request{method: "POST", path: "/clients", header: bearer(s.token), body: []byte(body)}); a.status < 400 || a.status > 409 || a.status == 401 {
			t.Errorf("client %s: %d %s", body, a.status, a.body)
		}
	}
	// Clients are their users'.
	reader := s.newToken("wim", "read")
	for _, c := range []struct{ method, path, body string }{
		{"POST", "/clients", `{"name":"mine","grantTypes":["password"],"role":"write"}`}, // above the token that asks
		{"POST", "/clients", `{"name":"x","user":"anna","grantTypes":["password"],"role":"read"}`},
	} {
		if a := s.do(request{method: c.method, path: c.path, header: bearer(reader), body: []byte(c.body)}); a.status != 403 {
			t.Errorf("%s %s as a reader: %d %s", c.method, c.body, a.status, a.body)
		}
	}
	s.must("CreateUser", nil, `{"name":"rita","role":"read","password":"correct horse"}`)
	rita := s.newToken("rita", "read")
	for _, c := range []struct{ method, path string }{{"DELETE", "/clients/" + id}, {"POST", "/clients/" + id + "/secret"}} {
		if a := s.do(request{method: c.method, path: c.path, header: bearer(rita)}); a.status != 403 {
			t.Errorf("%s of another user's client: %d %s", c.method, a.status, a.body)
		}
	}
	if a := s.do(request{method: "GET", path: "/clients", header: bearer(rita)}); a.status != 200 || strings.Contains(string(a.body), id) {
		t.Errorf("clients of others: %s", a.body)
	}
}
