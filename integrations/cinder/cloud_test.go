package cinder

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
)

// hostile is a cloud that answers what a test wants, in the shapes that Keystone 22 and
// Cinder 21 answer. What works is tested with these (gateway/cmd/ovgate/testdata/cloud).
type hostile struct {
	*httptest.Server
	mu     sync.Mutex // one request at a time
	volume string     // Cinder's URL in the catalog
	paths  map[string]http.HandlerFunc
	other  http.HandlerFunc // of paths that are not there; nil: they are not
	asked  []string
}

func newHostile(t *testing.T, secure bool) *hostile {
	h := &hostile{paths: map[string]http.HandlerFunc{}}
	serve := httptest.NewServer
	if secure {
		serve = httptest.NewTLSServer
	}
	h.Server = serve(h)
	t.Cleanup(h.Close)
	h.volume = h.URL + "/volume/v3/p1"
	h.say("/v3/auth/tokens", "")
	h.say("/v3/projects", `{"projects": [{"id": "p1", "name": "one"}]}`)
	h.say("/v3/roles", `{"roles": [{"id": "r1", "name": "service"}]}`)
	h.say("/v3/role_assignments", `{"role_assignments": [{"role": {"id": "r1"}, "user": {"id": "u1"}}]}`)
	h.say("/volume/v3/", `{"versions": [{"id": "v3.0", "version": "3.70"}]}`)
	h.say("/volume/v3/p1/os-services", `{"services": [{"binary": "cinder-volume", "host": "h@ovgate", "state": "up", "status": "enabled", "updated_at": "2026-11-28T06:10:08.000000"}]}`)
	h.say("/volume/v3/p1/scheduler-stats/get_pools", `{"pools": [
		{"name": "h@other#p", "capabilities": {"vendor_name": "Open Source", "location_info": null, "total_capacity_gb": {}}},
		{"name": "h@ovgate#fast", "capabilities": {"vendor_name": "ovgate", "location_info": "ovgate:n1", "volume_backend_name": "ovgate", "total_capacity_gb": 10.5, "free_capacity_gb": "unknown"}}]}`)
	h.say("/volume/v3/p1/types", `{"volume_types": []}`)
	h.say("/volume/v3/p1/qos-specs", `{"qos_specs": []}`)
	h.say("/volume/v3/p1/volumes/detail", `{"volumes": []}`)
	return h
}

func (h *hostile) say(path, text string) {
	h.paths[path] = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if path == "/v3/auth/tokens" {
			w.Header().Set("X-Subject-Token", "the-token")
			w.WriteHeader(http.StatusCreated)
			fmt.Fprintf(w, `{"token": {"catalog": [{"type": "block-storage", "name": "cinder", "endpoints": [{"interface": "public", "region": "RegionOne", "url": %q}]}]}}`, h.volume)
			return
		}
		fmt.Fprint(w, text)
	}
}

func (h *hostile) refuse(path string, status int, text string) {
	h.paths[path] = func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, text)
	}
}

func (h *hostile) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked = append(h.asked, r.Method+" "+r.URL.Path)
	if f := h.paths[r.URL.Path]; f != nil {
		f(w, r)
		return
	}
	if h.other != nil {
		h.other(w, r)
		return
	}
	w.WriteHeader(http.StatusNotFound)
	fmt.Fprint(w, `{"itemNotFound": {"code": 404, "message": "nothing there"}}`)
}

func (h *hostile) options() Options {
	return Options{AuthURL: h.URL + "/v3", User: "u", Secret: "the-secret", Domain: "Default", Project: "one", Timeout: 10 * time.Second}
}

var here = Here{Location: "ovgate:n1", VPools: []string{"fast"}}

func (h *hostile) connect(t *testing.T) *Cloud {
	t.Helper()
	c, err := Connect(t.Context(), h.options(), clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// TestRefusals: each way in which a cloud does not do what it should is told apart, in
// bounded time and memory, and no text has a secret.
func TestRefusals(t *testing.T) {
	stolen := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("%s was asked, with token %q", r.URL, r.Header.Get("X-Auth-Token"))
	}))
	defer stolen.Close()
	hang := make(chan struct{})
	defer close(hang)
	for _, c := range []struct {
		name   string
		break_ func(h *hostile, o *Options)
		want   error
		steps  int // with the one that failed
		text   string
	}{
		{"wrong secret", func(h *hostile, _ *Options) {
			h.refuse("/v3/auth/tokens", 401, `{"error": {"code": 401, "message": "The request you have made requires authentication."}}`)
		}, ErrCredentials, 1, "requires authentication"},
		{"no application credential", func(h *hostile, o *Options) {
			o.Credential, o.Project, o.Domain = true, "", ""
			h.refuse("/v3/auth/tokens", 404, `{"error": {"code": 404, "message": "Could not find Application Credential: u."}}`)
		}, ErrCredentials, 1, "Could not find"},
		{"no Keystone", func(h *hostile, o *Options) { o.AuthURL = "http://127.0.0.1:1/v3" }, ErrUnreachable, 1, ""},
		{"no catalog", func(h *hostile, o *Options) { o.Region = "elsewhere" }, ErrCatalog, 1, "region elsewhere"},
		{"no interface", func(h *hostile, o *Options) { o.Interface = "internal" }, ErrCatalog, 1, "internal"},
		{"plain http", func(h *hostile, _ *Options) { h.volume = "http://cinder.example.org/v3/p1" }, ErrPlain, 2, ""},
		{"no version", func(h *hostile, _ *Options) { h.volume = h.URL + "/volume/v2/p1" }, ErrCatalog, 1, "Cinder v3"},
		{"no administrator", func(h *hostile, _ *Options) {
			h.refuse("/volume/v3/p1/scheduler-stats/get_pools", 403, `{"forbidden": {"code": 403, "message": "Policy doesn't allow it."}}`)
		}, ErrDenied, 3, "Policy doesn't allow"},
		{"bad gateway", func(h *hostile, _ *Options) {
			h.refuse("/volume/v3/p1/types", 502, strings.Repeat("<html>\x1b[31m bad gateway ", 1000))
		}, ErrUnreachable, 4, "..."},
		{"no JSON", func(h *hostile, _ *Options) { h.say("/volume/v3/p1/types", "<html>") }, ErrRefused, 4, ""},
		{"cut off", func(h *hostile, _ *Options) { h.say("/volume/v3/p1/types", `{"volume_types": [`) }, ErrRefused, 4, ""},
		{"endless", func(h *hostile, _ *Options) {
			h.paths["/volume/v3/p1/types"] = func(w http.ResponseWriter, _ *http.Request) {
				fmt.Fprint(w, `{"volume_types": "`)
				for n, part := 0, bytes.Repeat([]byte("x"), 1<<20); n < 64; n++ {
					if _, err := w.Write(part); err != nil {
						return
					}
				}
			}
		}, ErrRefused, 4, "more than"},
		{"same page again", func(h *hostile, _ *Options) {
			h.say("/volume/v3/p1/volumes/detail", `{"volumes": [{"id": "v1"}]}`)
		}, ErrRefused, 5, "does not end"},
		{"elsewhere", func(h *hostile, _ *Options) {
			h.paths["/volume/v3/p1/types"] = func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, stolen.URL, http.StatusTemporaryRedirect)
			}
		}, ErrRefused, 4, "307"},
		{"no answer", func(h *hostile, o *Options) {
			o.Timeout = 100 * time.Millisecond
			h.paths["/volume/v3/p1/types"] = func(_ http.ResponseWriter, r *http.Request) {
				select {
				case <-hang:
				case <-r.Context().Done():
				}
			}
		}, ErrUnreachable, 4, ""},
		{"odd pool", func(h *hostile, _ *Options) {
			h.say("/volume/v3/p1/scheduler-stats/get_pools", `{"pools": [{"name": "h@ovgate#x", "capabilities": {"vendor_name": "ovgate", "location_info": "ovgate:n1", "total_volumes": "many"}}]}`)
		}, ErrRefused, 3, "h@ovgate#x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHostile(t, false)
			o := h.options()
			c.break_(h, &o)
			r, err := Check(t.Context(), o, here, clock.Real{})
			if !errors.Is(err, c.want) || len(r.Steps) != c.steps || r.Failed() == nil {
				t.Fatalf("%v after %+v, want %v", err, r.Steps, c.want)
			}
			text := err.Error() + fmt.Sprint(r)
			if !strings.Contains(err.Error(), c.text) || len(err.Error()) > 600 {
				t.Errorf("%q", err)
			}
			if strings.Contains(text, "the-secret") || strings.Contains(text, "the-token") {
				t.Errorf("a secret is told: %q", text)
			}
		})
	}
}

// TestCertificate: only a cloud whose CA is trusted is signed in to.
func TestCertificate(t *testing.T) {
	h := newHostile(t, true)
	if _, err := Connect(t.Context(), h.options(), clock.Real{}); !errors.Is(err, ErrCertificate) {
		t.Errorf("%v", err)
	}
	if len(h.asked) != 0 {
		t.Errorf("asked before it was trusted: %v", h.asked)
	}
	o := h.options()
	o.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.Certificate().Raw})
	r, err := Check(t.Context(), o, here, clock.Real{})
	if err != nil || len(r.Backends) != 1 || r.Backends[0].Pools[0].Total != 10.5 || !r.Backends[0].Up || len(r.Warnings) != 0 {
		t.Errorf("%+v %v", r, err)
	}
	o.CA = []byte("no PEM")
	if _, err := Connect(t.Context(), o, clock.Real{}); !errors.Is(err, ErrCertificate) {
		t.Errorf("%v", err)
	}
}

func TestCheckURL(t *testing.T) {
	for text, good := range map[string]bool{
		"https://keystone.example.org:5000/v3": true, "https://keystone.example.org/identity/v3/": true, "http://127.0.0.1:5000/v3": true, "https://k": true,
		"http://keystone.example.org/v3": false, "keystone.example.org": false, "https://u:p@k/v3": false, "https://k/v2.0": false, "https://k/v3?x=1": false, "": false,
	} {
		if err := CheckURL(text); (err == nil) != good {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestWarnings: what works and should be other is told.
func TestWarnings(t *testing.T) {
	h := newHostile(t, false)
	h.say("/volume/v3/", `{"versions": [{"id": "v3.0", "version": "3.59"}]}`)
	h.say("/volume/v3/p1/os-services", `{"services": [
		{"binary": "cinder-volume", "host": "h@ovgate", "state": "up", "status": "disabled", "disabled_reason": "maintenance", "updated_at": null},
		{"binary": "cinder-volume", "host": "h@former", "state": "down", "status": "enabled", "updated_at": "2026-11-28T06:10:08.000000"}]}`)
	h.say("/v3/role_assignments", `{"role_assignments": []}`)
	auth := h.paths["/v3/auth/tokens"]
	h.paths["/v3/auth/tokens"] = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", time.Now().Add(-5*time.Minute).UTC().Format(http.TimeFormat))
		auth(w, r)
	}
	r, err := Check(t.Context(), h.options(), Here{Location: "ovgate:n1", VPools: []string{"large"}, Known: []string{"h@former", "h@gone"}}, clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(r.Warnings, "\n")
	for _, want := range []string{"5m0s apart", "speaks 3.59", "h@former is down", "h@gone has no service", "h@ovgate is disabled: maintenance", "fast of backend h@ovgate is a vPool that there is no more", "vPool large is no pool", "nobody has the role service"} {
		if !strings.Contains(all, want) {
			t.Errorf("no word of %q in\n%s", want, all)
		}
	}
}

// TestServiceToken: who may not ask Keystone is warned of nothing.
func TestServiceToken(t *testing.T) {
	for path, answer := range map[string]func(h *hostile){
		"no role":    func(h *hostile) { h.say("/v3/roles", `{"roles": []}`) },
		"role":       func(h *hostile) { h.refuse("/v3/roles", 403, "{}") },
		"assignment": func(h *hostile) { h.refuse("/v3/role_assignments", 403, "{}") },
	} {
		h := newHostile(t, false)
		answer(h)
		r, err := Check(t.Context(), h.options(), here, clock.Real{})
		if err != nil || len(r.Warnings) != map[bool]int{true: 1}[path == "no role"] {
			t.Errorf("%s: %v %q", path, err, r.Warnings)
		}
	}
	text, err := ServiceToken{AuthURL: "https://keystone.example.org:5000/v3", User: "cinder", Project: "service", Domain: "Default"}.Text()
	if err != nil || !strings.Contains(text, "\nsend_service_user_token = true\n") || !strings.Contains(text, "\nservice_token_roles_required = true\n") {
		t.Errorf("%v\n%s", err, text)
	}
	for _, s := range []ServiceToken{
		{AuthURL: "http://keystone.example.org/v3", User: "cinder", Project: "service", Domain: "Default"},
		{AuthURL: "https://k/v3", User: "a\nb", Project: "service", Domain: "Default"},
		{AuthURL: "https://k/v3", User: "cinder", Domain: "Default"},
	} {
		if text, err := s.Text(); err == nil {
			t.Errorf("%+v gives\n%s", s, text)
		}
	}
}

// TestPages: a list is whole when pages are short, and when what ends one is deleted.
func TestPages(t *testing.T) {
	h := newHostile(t, false)
	gone := false
	h.paths["/volume/v3/p1/volumes/detail"] = func(w http.ResponseWriter, r *http.Request) {
		marker, n := r.URL.Query().Get("marker"), 0
		if marker == "v3" && !gone {
			gone = true
			w.WriteHeader(http.StatusNotFound)
			return
		}
		if marker != "" {
			n, _ = strconv.Atoi(marker[1:])
		}
		var page []map[string]any
		for i := n + 1; i <= min(n+3, 7); i++ {
			if i != 3 || !gone {
				page = append(page, map[string]any{"id": fmt.Sprintf("v%d", i), "os-vol-host-attr:host": nil})
			}
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"volumes": page})
	}
	got, err := h.connect(t).volumes(t.Context())
	if err != nil || len(got) != 6 || got[2].ID != "v4" || got[5].ID != "v7" {
		t.Errorf("%+v %v", got, err)
	}
}
