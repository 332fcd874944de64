package swift

import (
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// fake is a Swift of one account that answers as a test wants, with an identity
// service of all three versions. Where hook answers, nothing else does.
type fake struct {
	*httptest.Server
	clock *clock.Manual
	life  time.Duration // of tokens

	mu      sync.Mutex
	hook    func(w http.ResponseWriter, r *http.Request) bool
	logins  int
	login   int // status of the next logins; 0: they succeed
	bodies  []string
	valid   map[string]bool
	objects map[string][]byte
	seen    []string
}

const fakeKey = "the-secret-of-the-fake"

func newFake(t *testing.T) *fake {
	f := &fake{
		clock: clock.NewManual(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)), life: time.Hour,
		valid: map[string]bool{}, objects: map[string][]byte{},
	}
	f.Server = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.Close)
	return f
}

func (f *fake) options(version int) Options {
	o := Options{User: "u", Key: fakeKey, Project: "p", Container: "c", Clock: f.clock, AuthURL: f.URL + "/v3"}
	switch version {
	case 1:
		o.AuthURL = f.URL + "/auth/v1.0"
	case 2:
		o.AuthURL = f.URL + "/v2.0"
	}
	return o
}

// set changes the fake while it runs.
func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// answer makes every request for objects of the store be answered by this.
func (f *fake) answer(h func(w http.ResponseWriter, r *http.Request)) {
	f.set(func() {
		f.hook = func(w http.ResponseWriter, r *http.Request) bool {
			if strings.Count(r.URL.Path, "/") < 4 {
				return false
			}
			h(w, r)
			return true
		}
	})
}

func (f *fake) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.logins
}

func (f *fake) serve(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	hook := f.hook
	f.mu.Unlock()
	if hook != nil && hook(w, r) {
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = append(f.seen, r.Method+" "+r.URL.Path)
	path, ok := strings.CutPrefix(r.URL.Path, "/v1/AUTH_a")
	switch {
	case r.URL.Path == "/info":
		fmt.Fprint(w, `{"swift":{"version":"9","max_file_size":1000000},"slo":{"max_manifest_segments":10,"min_segment_size":1}}`)
	case !ok:
		f.auth(w, r, body)
	case !f.valid[r.Header.Get("X-Auth-Token")]:
		w.WriteHeader(http.StatusUnauthorized)
	case strings.Count(path, "/") < 2:
		w.Header().Set("X-Storage-Policy", "gold")
		fmt.Fprint(w, "[]")
	default:
		f.object(w, r, path, body)
	}
}

func (f *fake) object(w http.ResponseWriter, r *http.Request, path string, body []byte) {
	have, ok := f.objects[path]
	switch {
	case r.Method == http.MethodPut:
		f.objects[path] = body
		sum := md5.Sum(body)
		w.Header().Set("Etag", hex.EncodeToString(sum[:]))
		w.WriteHeader(http.StatusCreated)
	case !ok:
		w.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodDelete:
		delete(f.objects, path)
		w.WriteHeader(http.StatusNoContent)
	default:
		sum := md5.Sum(have)
		w.Header().Set("Etag", hex.EncodeToString(sum[:]))
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(have)))
	}
}

// auth is the identity service.
func (f *fake) auth(w http.ResponseWriter, r *http.Request, body []byte) {
	f.logins++
	f.bodies = append(f.bodies, string(body))
	if f.login != 0 {
		w.WriteHeader(f.login)
		return
	}
	token := fmt.Sprintf("token-%d", f.logins)
	f.valid[token] = true
	now := f.clock.Now()
	end := now.Add(f.life).Format(time.RFC3339)
	w.Header().Set("Date", now.Format(http.TimeFormat))
	url := f.URL + "/v1/AUTH_a"
	switch r.URL.Path {
	case "/auth/v1.0":
		w.Header().Set("X-Auth-Token", token)
		w.Header().Set("X-Storage-Url", url)
		w.Header().Set("X-Auth-Token-Expires", fmt.Sprint(int(f.life.Seconds())))
	case "/v2.0/tokens":
		answer(w, map[string]any{"access": map[string]any{
			"token": map[string]any{"id": token, "expires": end},
			"serviceCatalog": []any{map[string]any{"type": "object-store", "endpoints": []any{
				map[string]any{"region": "r", "publicURL": url, "internalURL": url, "adminURL": url}}}},
		}})
	case "/v3/auth/tokens":
		w.Header().Set("X-Subject-Token", token)
		w.WriteHeader(http.StatusCreated)
		var endpoints []any
		for _, kind := range []string{"public", "internal"} {
			endpoints = append(endpoints, map[string]any{"region": "r", "interface": kind, "url": url})
		}
		answer(w, map[string]any{"token": map[string]any{"expires_at": end, "catalog": []any{
			map[string]any{"type": "object-store", "endpoints": endpoints}}}})
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func answer(w io.Writer, v any) {
	if err := json.NewEncoder(w).Encode(v); err != nil {
		panic(err) // the fake's own values
	}
}
