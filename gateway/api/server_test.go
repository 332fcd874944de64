package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"github.com/openvstorage/ovgate/gateway/auth"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/internal/kv"
)

// TestDefects: a panic and an unknown error answer JSON without saying what
// happened inside; the log says it, under the same request id.
func TestDefects(t *testing.T) {
	var log bytes.Buffer
	s, err := New(Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	s.echo.GET("/api/panic", func(echo.Context) error { panic("inner detail") })
	s.echo.GET("/api/error", func(echo.Context) error { return errors.New("inner detail") })
	for _, path := range []string{"/api/panic", "/api/error"} {
		log.Reset()
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		var e Error
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil {
			t.Fatalf("%s: %v: %s", path, err, w.Body)
		}
		if w.Code != 500 || e.Code != "internal" || e.RequestID == "" || strings.Contains(w.Body.String(), "inner") {
			t.Errorf("%s: %d %+v", path, w.Code, e)
		}
		if !strings.Contains(log.String(), "inner detail") || !strings.Contains(log.String(), e.RequestID) {
			t.Errorf("%s: log %s", path, &log)
		}
	}
}

// FuzzBinder: no body panics, and what is taken has no unknown field.
func FuzzBinder(f *testing.F) {
	for _, seed := range []string{`{"name":"a","vpool":"b","size":1}`, `{"name":1}`, `{"x":1}`, `[]`, `{}{}`, "", "\x00", `{"labels":{"a":1}}`} {
		f.Add(seed)
	}
	e := echo.New()
	f.Fuzz(func(t *testing.T, body string) {
		r := httptest.NewRequest("POST", "/", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json; charset=utf-8")
		var v VDiskInput
		err := binder{}.Bind(&v, e.NewContext(r, httptest.NewRecorder()))
		if err == nil && !json.Valid([]byte(body)) {
			t.Errorf("%q is taken", body)
		}
		if err != nil && toProblem(err).status >= 500 {
			t.Errorf("%q answers %d: %v", body, toProblem(err).status, err)
		}
	})
}

// FuzzOAuth: whatever is sent to the token endpoint is refused as RFC 6749 says, without a secret.
func FuzzOAuth(f *testing.F) {
	for _, body := range []string{"grant_type=client_credentials", "grant_type=password&username=a&password=b&client_id=x&client_secret=y", "grant_type=refresh_token&refresh_token=ovr_.", "%", "a=b&a=c", "client_id=%00&scope=read:vpool:", "\xff"} {
		f.Add(body, "")
	}
	for _, header := range []string{"Basic", "Basic Og==", "Bearer x", "basic eDp5", "Basic " + strings.Repeat("A", 5000), "Basic JXp6OiU="} {
		f.Add("grant_type=client_credentials", header)
	}
	db, err := kv.OpenBolt(filepath.Join(f.TempDir(), "kv.db"), kv.BoltOptions{NoSync: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = db.Close() })
	m, err := model.Open(f.Context(), db, nil)
	if err != nil {
		f.Fatal(err)
	}
	a, err := auth.New(f.Context(), m, nil, nil, nil)
	if err != nil {
		f.Fatal(err)
	}
	s, err := New(Options{Model: m, Auth: a})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body, header string) {
		for _, path := range []string{"/oauth2/token", "/oauth2/revoke"} {
			r := httptest.NewRequest("POST", BasePath+path, strings.NewReader(body))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			if header != "" {
				r.Header["Authorization"] = []string{header}
			}
			w := httptest.NewRecorder()
			s.Handler().ServeHTTP(w, r)
			var e OAuthError
			if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || !e.Error.Valid() || w.Code != 400 && w.Code != 401 && w.Code != 429 {
				t.Errorf("%s of %q with %q: %d %s", path, body, header, w.Code, w.Body)
			}
		}
	})
}
