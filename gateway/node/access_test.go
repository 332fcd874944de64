package node

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// as is a caller with its own credentials.
type as struct {
	r      *running
	client *http.Client
	header map[string]string
}

// do makes a request and returns status and JSON (or nil).
func (a as) do(method, path, body string) (int, map[string]any, *http.Response) {
	a.r.t.Helper()
	req, err := http.NewRequest(method, a.r.url+path, strings.NewReader(body))
	if err != nil {
		a.r.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for k, v := range a.header {
		req.Header.Set(k, v)
	}
	res, err := a.client.Do(req)
	if err != nil {
		a.r.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		a.r.t.Fatal(err)
	}
	var out map[string]any
	if strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") {
		if err := json.Unmarshal(b, &out); err != nil {
			a.r.t.Fatalf("%s %s: %v: %s", method, path, err, b)
		}
	} else {
		out = map[string]any{"text": string(b)}
	}
	return res.StatusCode, out, res
}

func (r *running) anonymous() as { return as{r, r.http, map[string]string{}} }

func (r *running) bearer(token string) as {
	return as{r, r.http, map[string]string{"Authorization": "Bearer " + token}}
}

// browser signs in with a password and keeps cookies, as a browser does.
func (r *running) browser(user, password string) as {
	r.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		r.t.Fatal(err)
	}
	a := as{r, &http.Client{Transport: r.http.Transport, Jar: jar, Timeout: patience}, map[string]string{}}
	if status, body, _ := a.do("POST", "/api/v1/session", fmt.Sprintf(`{"user":%q,"password":%q}`, user, password)); status != 200 {
		r.t.Fatalf("sign-in of %s: %d %v", user, status, body)
	}
	u, err := url.Parse(r.url)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, c := range jar.Cookies(u) {
		if c.Name == "ovgate_csrf" {
			a.header["X-CSRF-Token"] = c.Value
		}
	}
	return a
}

const password = "correct horse"

func (r *running) users() {
	r.t.Helper()
	for _, role := range []string{"manage", "write", "read"} {
		r.call("POST", "/users", map[string]any{"name": role + "r", "role": role, "password": password}, 201)
	}
}

func (a as) expect(method, path, body string, want int, code string) map[string]any {
	a.r.t.Helper()
	status, out, _ := a.do(method, path, body)
	if status != want || code != "" && out["code"] != code {
		a.r.t.Errorf("%s %s: %d %v, want %d %s", method, path, status, out, want, code)
	}
	return out
}

// names checks that a refusal names its field and object, and a remedy.
func (r *running) names(e map[string]any, field, object string) {
	r.t.Helper()
	if hint, _ := e["hint"].(string); e["field"] != field || e["object"] != object || hint == "" {
		r.t.Errorf("refusal %v, want field %s, object %s and a hint", e, field, object)
	}
}

// TestRoles: each role may do its own and no more; nobody without credentials.
func TestRoles(t *testing.T) {
	r := start(t, Options{Data: t.TempDir()})
	r.users()
	r.pool("gold", t.TempDir())
	r.disk("one", "gold", 1<<20)
	need := []struct {
		method, path, body string
		role               int // 1 read, 2 write, 3 manage
		ok                 int
	}{
		{"GET", "/status", "", 1, 200},
		{"GET", "/vdisks", "", 1, 200},
		{"GET", "/users", "", 1, 200},
		{"POST", "/vdisks/one/publish", `{"open":true}`, 2, 200},
		{"POST", "/vdisks/one/unpublish", ``, 2, 204},
		{"PATCH", "/vdisks/one", `{"labels":{"a":"b"}}`, 2, 200},
		{"POST", "/vdisks/one/commit", "", 2, 200},
		{"PATCH", "/vpools/gold", `{"settings":{"stallTimeoutMs":5000}}`, 3, 200},
		{"DELETE", "/users/nobody", "", 3, 204},
		{"PATCH", "/users/readr", `{"role":"read"}`, 3, 200},
	}
	for level, user := range []string{"", "readr", "writer", "manager"} {
		who := r.anonymous()
		if user != "" {
			who = r.browser(user, password)
		}
		for _, c := range need {
			want, code := c.ok, ""
			switch {
			case level == 0:
				want, code = 401, "unauthorized"
			case level < c.role:
				want, code = 403, "forbidden"
			}
			who.expect(c.method, "/api/v1"+c.path, c.body, want, code)
		}
	}
	r.bearer("ovg_wrong").expect("GET", "/api/v1/status", "", 401, "unauthorized")
	r.bearer("wrong").expect("GET", "/api/v1/setup", "", 200, "")
	if v := r.anonymous().expect("GET", "/api/v1/session", "", 200, ""); v["user"] != nil {
		t.Errorf("nobody is %v", v)
	}
	r.anonymous().expect("GET", "/metrics", "", 401, "unauthorized")
	if text := r.bearer(r.read("admin.token")).expect("GET", "/metrics", "", 200, "")["text"].(string); !strings.Contains(text, `ovgate_vdisk_size_bytes{vdisk="one",vpool="gold"} 1.048576e+06`) {
		t.Errorf("metrics lack the vDisk:\n%s", text)
	}
	r.anonymous().expect("GET", "/healthz", "", 200, "")
}

// TestBrowser: a cookie alone changes nothing; another site cannot use it; a
// session ends with sign-out, with a new password and with the user.
func TestBrowser(t *testing.T) {
	r := start(t, Options{Data: t.TempDir()})
	r.users()
	a := r.browser("manager", password)
	csrf := a.header["X-CSRF-Token"]
	if v := a.expect("GET", "/api/v1/session", "", 200, ""); v["user"] != "manager" || v["role"] != "manage" {
		t.Errorf("session is %v", v)
	}
	user := `{"name":"x%d","role":"read","password":"0123456789"}`
	for i, c := range []struct {
		header map[string]string
		want   int
	}{
		{map[string]string{}, 403},
		{map[string]string{"X-CSRF-Token": "wrong"}, 403},
		{map[string]string{"X-CSRF-Token": csrf, "Sec-Fetch-Site": "cross-site"}, 403},
		{map[string]string{"X-CSRF-Token": csrf, "Origin": "https://evil.example"}, 403},
		{map[string]string{"X-CSRF-Token": csrf, "Sec-Fetch-Site": "same-origin"}, 201},
	} {
		b := a
		b.header = c.header
		if status, out, _ := b.do("POST", "/api/v1/users", fmt.Sprintf(user, i)); status != c.want {
			t.Errorf("%v: %d %v", c.header, status, out)
		}
	}
	other := r.browser("manager", password)
	other.expect("DELETE", "/api/v1/session", "", 204, "")
	other.expect("GET", "/api/v1/status", "", 401, "unauthorized")
	a.expect("GET", "/api/v1/status", "", 200, "")
	e := a.expect("PATCH", "/api/v1/users/manager", `{"password":"another password","currentPassword":"guess guess"}`, 401, "unauthorized")
	r.names(e, "currentPassword", "user manager")
	e = a.expect("PATCH", "/api/v1/users/manager", `{"password":"another password"}`, 400, "invalid")
	r.names(e, "currentPassword", "user manager")
	a.expect("PATCH", "/api/v1/users/manager", `{"password":"another password","currentPassword":"`+password+`"}`, 200, "")
	a.expect("GET", "/api/v1/status", "", 401, "unauthorized")
	b := r.browser("readr", password)
	r.call("DELETE", "/users/readr", nil, 204)
	b.expect("GET", "/api/v1/status", "", 401, "unauthorized")
	r.bearer(r.read("admin.token")).expect("DELETE", "/api/v1/users/manager", "", 409, "last_admin")
	r.bearer(r.read("admin.token")).expect("PATCH", "/api/v1/users/manager", `{"role":"read"}`, 409, "last_admin")
}

// TestTokens: a token is shown once, has at most its user's role, and ends.
func TestTokens(t *testing.T) {
	r := start(t, Options{Data: t.TempDir()})
	r.users()
	w := r.browser("writer", password)
	w.expect("POST", "/api/v1/tokens", `{"name":"ci","role":"manage"}`, 403, "forbidden")
	w.expect("POST", "/api/v1/tokens", `{"name":"ci","role":"read","user":"manager"}`, 403, "forbidden")
	w.expect("POST", "/api/v1/tokens", `{"name":"ci","role":"read","expires":"2001-01-01T00:00:00Z"}`, 400, "invalid")
	made := w.expect("POST", "/api/v1/tokens", `{"name":"ci","role":"write"}`, 201, "")
	secret, id := made["secret"].(string), made["token"].(map[string]any)["id"].(string)
	ci := r.bearer(secret)
	ci.expect("GET", "/api/v1/status", "", 200, "")
	r.call("PATCH", "/users/writer", map[string]any{"role": "read"}, 200)
	ci.expect("POST", "/api/v1/vdisks/none/publish", "", 403, "forbidden")
	_, list, _ := ci.do("GET", "/api/v1/tokens", "")
	if b, err := json.Marshal(list); err != nil || strings.Contains(string(b), secret) || !strings.Contains(string(b), id) {
		t.Errorf("tokens: %s %v", b, err)
	}
	r.browser("readr", password).expect("DELETE", "/api/v1/tokens/"+id, "", 403, "forbidden")
	r.call("DELETE", "/tokens/"+id, nil, 204)
	r.call("DELETE", "/tokens/"+id, nil, 204)
	ci.expect("GET", "/api/v1/status", "", 401, "unauthorized")
}

// TestSetup: the set-up token makes one user, once; wrong guesses run into the
// limit.
func TestSetup(t *testing.T) {
	r := start(t, Options{Data: t.TempDir()})
	a := r.anonymous()
	token := r.read("setup.token")
	body := func(token, user, pass string) string {
		return fmt.Sprintf(`{"token":%q,"user":%q,"password":%q}`, token, user, pass)
	}
	if v := a.expect("GET", "/api/v1/setup", "", 200, ""); v["needed"] != true {
		t.Errorf("set-up is %v", v)
	}
	r.names(a.expect("POST", "/api/v1/setup", body("ovs_guess", "anna", password), 401, "bad_setup_token"), "token", "set-up token")
	r.names(a.expect("POST", "/api/v1/setup", body(token, "anna", "short"), 400, "invalid"), "password", "user anna")
	r.names(a.expect("POST", "/api/v1/setup", body(token, "a b", password), 400, "invalid"), "user", "user a b")
	var wg sync.WaitGroup
	made := make(chan int, 4)
	for i := range 4 {
		wg.Go(func() {
			status, _, _ := a.do("POST", "/api/v1/setup", body(token, fmt.Sprintf("anna%d", i), password))
			made <- status
		})
	}
	wg.Wait()
	close(made)
	won := 0
	for s := range made {
		if s == 201 {
			won++
		} else if s != 409 && s != 401 {
			t.Errorf("a set-up that lost answers %d", s)
		}
	}
	if won != 1 {
		t.Errorf("%d set-ups won, want 1", won)
	}
	a.expect("POST", "/api/v1/setup", body(token, "eve", password), 409, "setup_done")
	limited := false
	for range 12 {
		status, _, res := a.do("POST", "/api/v1/session", `{"user":"anna","password":"guess guess"}`)
		if status == 429 {
			limited = res.Header.Get("Retry-After") != ""
			break
		}
		if status != 401 {
			t.Fatalf("a wrong password answers %d", status)
		}
	}
	if !limited {
		t.Error("guessing is not limited")
	}
}

// TestIdempotencyKey: creates with one key take effect once, also together and
// after a restart.
func TestIdempotencyKey(t *testing.T) {
	dir := t.TempDir()
	r := start(t, Options{Data: dir})
	r.pool("gold", t.TempDir())
	body := `{"name":"one","vpool":"gold","size":1048576}`
	keyed := func(r *running) as {
		a := r.bearer(r.read("admin.token"))
		a.header["Idempotency-Key"] = "k1"
		return a
	}
	var wg sync.WaitGroup
	ids := make(chan any, 8)
	for range 8 {
		wg.Go(func() { ids <- keyed(r).expect("POST", "/api/v1/vdisks", body, 201, "")["id"] })
	}
	wg.Wait()
	close(ids)
	first := <-ids
	for id := range ids {
		if id != first {
			t.Errorf("ids %v and %v", first, id)
		}
	}
	keyed(r).expect("POST", "/api/v1/vdisks", `{"name":"two","vpool":"gold","size":1048576}`, 409, "idempotency_mismatch")
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	s := start(t, Options{Data: dir})
	if id := keyed(s).expect("POST", "/api/v1/vdisks", body, 201, "")["id"]; id != first {
		t.Errorf("after the restart id %v, want %v", id, first)
	}
	a := s.bearer(s.read("admin.token"))
	a.expect("POST", "/api/v1/vdisks", body, 409, "exists")
}

// TestHTTP: answers around the API itself.
func TestHTTP(t *testing.T) {
	r := start(t, Options{Data: t.TempDir()})
	a := r.bearer(r.read("admin.token"))
	a.expect("POST", "/api/v1/vpools", "{", 400, "invalid")
	a.expect("POST", "/api/v1/vpools", `{"name":"x"} {}`, 400, "invalid")
	a.expect("POST", "/api/v1/vpools", `{"name":5}`, 400, "invalid")
	a.expect("POST", "/api/v1/vpools", `{"name":"`+strings.Repeat("x", 2<<20)+`"}`, 413, "too_large")
	form := a
	form.header = map[string]string{"Authorization": a.header["Authorization"], "Content-Type": "text/plain"}
	form.expect("POST", "/api/v1/vpools", "x", 415, "invalid")
	a.expect("POST", "/api/v1/vpools", "", 400, "invalid")
	a.expect("GET", "/api/none", "", 404, "not_found")
	a.expect("GET", "/assets/none.js", "", 404, "not_found")
	a.expect("DELETE", "/", "", 405, "")
	if text := a.expect("GET", "/api/v1/openapi.yaml", "", 200, "")["text"].(string); !strings.HasPrefix(text, "openapi:") {
		t.Error("openapi.yaml is not served")
	}
	for _, path := range []string{"/", "/vdisks", "/vdisks/a.b/deep"} {
		a.header["Accept"] = "text/html"
		_, out, res := a.do("GET", path, "")
		if !strings.Contains(out["text"].(string), "<html") || res.Header.Get("Content-Security-Policy") == "" || res.Header.Get("X-Request-Id") == "" {
			t.Errorf("%s: %v %v", path, res.Header, out)
		}
		if path == "/" {
			a.header["If-None-Match"] = res.Header.Get("ETag")
			a.expect("GET", path, "", 304, "")
			delete(a.header, "If-None-Match")
		}
	}
}

// TestEvents: a change arrives, is repeated to a client that was away, and an
// unknown place in the stream is a reset.
func TestEvents(t *testing.T) {
	r := start(t, Options{Data: t.TempDir()})
	r.pool("gold", t.TempDir())
	first := r.listen("?topics=vdisk", "")
	id := r.disk("one", "gold", 1<<20)
	e := first.until("vdisk", id)
	second := r.listen("?topics=vdisk,metrics", e.id)
	second.until("metrics", "node")
	r.call("DELETE", "/vdisks/"+id, nil, 204)
	gone := first.until("vdisk.deleted", id)
	r.listen("", e.id).until("vdisk.deleted", id)
	r.listen("", "1").until("reset", "{}")
	if gone.id <= e.id {
		t.Errorf("ids %s then %s", e.id, gone.id)
	}
	r.bearer(r.read("admin.token")).expect("GET", "/api/v1/events?topics=weather", "", 400, "invalid")
	r.anonymous().expect("GET", "/api/v1/events", "", 401, "unauthorized")
}

type heard struct{ id, name, data string }

type listener struct {
	t *testing.T
	c chan heard
}

func (r *running) listen(query, last string) listener {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, "GET", r.url+"/api/v1/events"+query, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+r.read("admin.token"))
	req.Header.Set("Last-Event-ID", last)
	res, err := r.http.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/event-stream" {
		r.t.Fatalf("events: %d %v", res.StatusCode, res.Header)
	}
	l := listener{r.t, make(chan heard, 1000)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(l.c)
		defer res.Body.Close()
		var e heard
		for s := bufio.NewScanner(res.Body); s.Scan(); {
			switch k, v, _ := strings.Cut(s.Text(), ": "); k {
			case "id":
				e.id = v
			case "event":
				e.name = v
			case "data":
				e.data = v
			case "":
				if e.name != "" {
					l.c <- e
				}
				e = heard{}
			}
		}
	}()
	r.t.Cleanup(func() {
		cancel()
		<-done
	})
	return l
}

// until waits for an event of this name whose data contains text.
func (l listener) until(name, text string) heard {
	l.t.Helper()
	for e := range l.c {
		if e.name == name && strings.Contains(e.data, text) {
			return e
		}
	}
	l.t.Fatalf("the stream ended without %s of %s", name, text)
	return heard{}
}
