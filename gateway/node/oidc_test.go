package node

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/gateway/oidc/oidctest"
)

// TestOidcOverNodes: a sign-in through a provider that begins at one node and whose answer arrives
// at another, as behind a load balancer, makes a session that counts at both, once.
func TestOidcOverNodes(t *testing.T) {
	t.Parallel()
	e := newEast(t)
	one, two := e.first, e.join("beta")
	one.until("both", one.hears("alpha alive up", "beta alive up"))
	one.call("POST", "/users", map[string]any{"name": "admin", "role": "manage", "password": password}, 201)
	idp, err := oidctest.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(idp.Close)
	idp.Register(one.url + "/login/oidc")
	idp.Put("anna", oidctest.User{Subject: "1", Claims: map[string]any{"preferred_username": "anna", "groups": []string{"staff"}}})
	one.call("PUT", "/oidc", map[string]any{
		"name": "House", "issuer": idp.Issuer(), "clientId": oidctest.ClientID, "secret": oidctest.Secret, "ca": idp.CA(), "addresses": []string{one.url},
		"roles": []map[string]string{{"group": "staff", "role": "write"}},
	}, 200)
	two.until("the provider is known", func() bool {
		_, s, _ := two.anonymous().do("GET", "/api/v1/session", "")
		return s["provider"] == "House"
	})

	// begin returns the flow's cookie, and what the browser comes back with.
	begin := func(at *running) (cookie, answer string) {
		t.Helper()
		body, err := json.Marshal(map[string]string{"address": one.url, "returnTo": "/vpools"})
		if err != nil {
			t.Fatal(err)
		}
		status, to, res := at.anonymous().do("POST", "/api/v1/session/oidc", string(body))
		if status != 200 || len(res.Cookies()) != 1 {
			t.Fatalf("begun: %d %v, cookies %v", status, to, res.Cookies())
		}
		back, err := idp.SignIn(to["url"].(string), "anna")
		if err != nil {
			t.Fatal(err)
		}
		answers := map[string]string{}
		for _, k := range []string{"state", "code", "iss"} {
			if v := back.Get(k); v != "" {
				answers[k] = v
			}
		}
		if body, err = json.Marshal(answers); err != nil {
			t.Fatal(err)
		}
		c := res.Cookies()[0]
		return c.Name + "=" + c.Value, string(body)
	}
	finish := func(at *running, cookie, answer string) (int, map[string]any, *http.Response) {
		t.Helper()
		a := at.anonymous()
		a.header["Cookie"] = cookie
		return a.do("POST", "/api/v1/session/oidc/answer", answer)
	}
	for _, way := range []struct{ from, to *running }{{one, two}, {two, one}} {
		cookie, answer := begin(way.from)
		status, got, res := finish(way.to, cookie, answer)
		if status != 200 || got["returnTo"] != "/vpools" {
			t.Fatalf("finished: %d %v", status, got)
		}
		var kept []string
		for _, c := range res.Cookies() {
			if c.MaxAge >= 0 {
				kept = append(kept, c.Name+"="+c.Value)
			}
		}
		for _, at := range []*running{one, two} {
			a := at.anonymous()
			a.header["Cookie"] = strings.Join(kept, "; ")
			at.until("the session counts", func() bool {
				status, _, _ := a.do("GET", "/api/v1/vpools", "")
				return status == 200
			})
			if _, s, _ := a.do("GET", "/api/v1/session", ""); s["user"] != "anna" || s["role"] != "write" {
				t.Errorf("the session is %v", s)
			}
		}
		// What was used is over at either node.
		for _, at := range []*running{one, two} {
			if status, got, _ := finish(at, cookie, answer); status != 401 || got["code"] != "provider_refused" {
				t.Errorf("used twice: %d %v", status, got)
			}
		}
	}
	// An answer of a sign-in that another browser began is nobody's, wherever it arrives.
	mine, _ := begin(one)
	_, theirs := begin(two)
	if status, got, _ := finish(two, mine, theirs); status != 401 || got["code"] != "provider_refused" {
		t.Errorf("of another browser: %d %v", status, got)
	}
}
