package api_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/gateway/api"
	"github.com/openvstorage/ovgate/gateway/auth"
)

// ownChanges are the changes that a user with role read may make: of what is the user's own.
var ownChanges = []string{"SignOut", "UpdateUser", "CreateToken", "DeleteToken", "CreateClient", "DeleteClient", "RenewClientSecret"}

// TestNobodyReachesAnything walks all operations as one who has no right to them: without
// credentials, with wrong ones, with those of a user that is gone, and with each role below
// the one that it takes. The body is nothing that an operation could take: who is refused
// is refused before it is read.
func TestNobodyReachesAnything(t *testing.T) {
	t.Parallel()
	s := serve(t)
	roles := []auth.Role{auth.RoleRead, auth.RoleWrite, auth.RoleManage}
	tokens := map[auth.Role]string{}
	for _, r := range roles {
		s.must("CreateUser", nil, fmt.Sprintf(`{"name":"%s-er","role":%q,"password":"correct horse"}`, r, r))
		tokens[r] = s.newToken(string(r)+"-er", string(r))
	}
	s.must("CreateUser", nil, `{"name":"gone","role":"manage","password":"correct horse"}`)
	gone := s.newToken("gone", "manage")
	s.must("DeleteUser", map[string]string{"user": "gone"}, "")
	ids := slices.Collect(maps.Keys(s.ops))
	slices.Sort(ids)
	refused := func(op operation, who string, h http.Header, status int, code string) {
		t.Helper()
		r := request{method: op.method, path: fill(op.path, map[string]string{"osd": "1"}), query: "offset=0", header: h.Clone()}
		if op.doc.RequestBody != nil {
			r.body = []byte("{")
			r.header.Set("Content-Type", "application/json")
		}
		a, err := s.send(r)
		if err != nil {
			t.Fatalf("%s as %s: %v", op.id, who, err)
		}
		var e struct{ Code, Message string }
		if err := json.Unmarshal(a.body, &e); err != nil || a.status != status || e.Code != code || e.Message == "" {
			t.Errorf("%s as %s: %d %s, want %d %s (%v)", op.id, who, a.status, a.body, status, code, err)
		}
	}
	public, tried := 0, 0
	for _, id := range ids {
		op := s.ops[id]
		role, open, ok := api.RuleOf(id)
		if !ok {
			t.Fatalf("%s has no rule", id)
		}
		if open {
			public++
			continue
		}
		tried++
		refused(op, "nobody", http.Header{}, 401, "unauthorized")
		refused(op, "nobody with a wrong token", bearer("ovg_none"), 401, "unauthorized")
		refused(op, "nobody with a wrong scheme", http.Header{"Authorization": {"Basic YTpi"}}, 401, "unauthorized")
		refused(op, "nobody with a wrong cookie", http.Header{"Cookie": {"ovgate_session=x; ovgate_csrf=y"}, "X-Csrf-Token": {"y"}}, 401, "unauthorized")
		refused(op, "a user who is gone", bearer(gone), 401, "unauthorized")
		for _, r := range roles {
			if !r.Allows(role) {
				refused(op, string(r), bearer(tokens[r]), 403, "forbidden")
			}
		}
		if op.method != http.MethodGet && role == auth.RoleRead && !slices.Contains(ownChanges, id) {
			t.Errorf("%s changes something, and takes only role read", id)
		}
	}
	if public > 11 || tried < 150 {
		t.Errorf("%d operations are public, %d were tried", public, tried)
	}
	// What is a user's own is nobody else's.
	for _, c := range []struct{ op, path, body string }{
		{"UpdateUser", "manage-er", `{"password":"another password"}`},
		{"UpdateUser", "read-er", `{"role":"manage"}`},
		{"CreateToken", "", `{"name":"x","role":"read","user":"manage-er"}`},
		{"CreateToken", "", `{"name":"x","role":"write"}`},
	} {
		op := s.ops[c.op]
		a := s.do(request{method: op.method, path: fill(op.path, map[string]string{"user": c.path}), body: jsonBody(c.body), header: bearer(tokens[auth.RoleRead])})
		if a.status != 403 {
			t.Errorf("%s of somebody else with role read: %d %s", c.op, a.status, a.body)
		}
	}
	for _, query := range []string{"", "user=manage-er"} {
		if a := s.do(request{method: "GET", path: "/tokens", query: query, header: bearer(tokens[auth.RoleRead])}); a.status != 200 || strings.Contains(string(a.body), "manage-er") {
			t.Errorf("tokens of others with role read: %d %s", a.status, a.body)
		}
	}
	// A session that is over.
	a := s.do(request{method: "POST", path: "/session", body: jsonBody(`{"user":"read-er","password":"correct horse"}`), header: http.Header{}})
	if a.status != 200 {
		t.Fatalf("sign-in: %d %s", a.status, a.body)
	}
	h := http.Header{}
	for _, c := range (&http.Response{Header: a.header}).Cookies() {
		h.Add("Cookie", c.Name+"="+c.Value)
		if c.Name == "ovgate_csrf" {
			h.Set("X-Csrf-Token", c.Value)
		}
	}
	if a := s.do(request{method: "GET", path: "/status", header: h}); a.status != 200 {
		t.Fatalf("a session: %d %s", a.status, a.body)
	}
	if a := s.do(request{method: "DELETE", path: "/session", header: h}); a.status != 204 {
		t.Fatalf("sign-out: %d %s", a.status, a.body)
	}
	for _, id := range ids {
		if _, open, _ := api.RuleOf(id); !open {
			refused(s.ops[id], "a session that is over", h, 401, "unauthorized")
		}
	}
}

// newToken makes a token of a user.
func (s *served) newToken(user, role string) string {
	s.t.Helper()
	var made struct{ Secret string }
	a := s.must("CreateToken", nil, fmt.Sprintf(`{"name":%q,"user":%q,"role":%q,"expires":%q}`, user, user, role, time.Now().Add(time.Hour).UTC().Format(time.RFC3339)))
	if err := json.Unmarshal(a.body, &made); err != nil || made.Secret == "" {
		s.t.Fatalf("token of %s: %v: %s", user, err, a.body)
	}
	return made.Secret
}

func jsonBody(text string) []byte {
	if text == "" {
		return nil
	}
	return []byte(text)
}

// do sends a request that gets an answer.
func (s *served) do(r request) answer {
	s.t.Helper()
	if r.body != nil && r.header.Get("Content-Type") == "" {
		r.header = r.header.Clone()
		r.header.Set("Content-Type", "application/json")
	}
	a, err := s.send(r)
	if err != nil {
		s.t.Fatalf("%v: %v", r, err)
	}
	return a
}

// must calls an operation as the local operator, and it succeeds, as the document says.
// values are those of the path, and with ? in front of the query.
func (s *served) must(id string, values map[string]string, body string) answer {
	s.t.Helper()
	op, ok := s.ops[id]
	if !ok {
		s.t.Fatalf("there is no operation %s", id)
	}
	r := request{method: op.method, path: fill(op.path, values), header: bearer(s.token), body: jsonBody(body)}
	var query []string
	for k, v := range values {
		if name, ok := strings.CutPrefix(k, "?"); ok {
			query = append(query, name+"="+v)
		}
	}
	r.query = strings.Join(query, "&")
	if op.doc.RequestBody != nil && op.doc.RequestBody.Value.Content.Get("application/octet-stream") != nil {
		r.header.Set("Content-Type", "application/octet-stream")
	}
	a := s.do(r)
	if a.status < 200 || a.status > 299 {
		s.t.Errorf("%s: %v: %d %s", id, r, a.status, a.body)
	} else if wrong := undocumented(op, a); wrong != "" {
		s.t.Errorf("%s: %v: %d: %s: %s", id, r, a.status, wrong, clip(string(a.body)))
	}
	return a
}

// TestNamesTooLong: what no object can be called is found nowhere, whatever is asked of it, and
// nothing is asked of the registry with it. Escapes do not count.
func TestNamesTooLong(t *testing.T) {
	t.Parallel()
	s := serve(t)
	for _, id := range slices.Sorted(maps.Keys(s.ops)) {
		op := s.ops[id]
		if role, open, _ := api.RuleOf(id); open || role == "" || !strings.Contains(op.path, "{") {
			continue
		}
		path := placeholder.ReplaceAllString(op.path, strings.Repeat("y", 5000))
		if a := s.do(request{method: op.method, path: path, query: "offset=0", header: bearer(s.token)}); a.status != 404 || !strings.Contains(string(a.body), `"not_found"`) || len(a.body) > 2000 {
			t.Errorf("%s: %d %.300s", id, a.status, a.body)
		}
	}
	a := s.do(request{method: "GET", path: "/vdisks/" + strings.Repeat("%C3%A9", 120) + "%2F" + strings.Repeat("%C3%A9", 120), header: bearer(s.token)})
	if a.status != 404 || strings.Contains(string(a.body), "at most 255") {
		t.Errorf("a name of 240 letters: %d %.300s", a.status, a.body)
	}
}
