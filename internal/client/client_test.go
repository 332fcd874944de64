package client_test

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/client"
)

// node starts a TLS server and returns options that reach it.
func node(t *testing.T, h http.HandlerFunc) client.Options {
	t.Helper()
	s := httptest.NewTLSServer(h)
	t.Cleanup(s.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	return client.Options{URL: s.URL, Token: "secret-token", CA: ca}
}

// dial is New for options that have to be good.
func dial(t *testing.T, o client.Options) *client.Client {
	t.Helper()
	c, err := client.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestGet(t *testing.T) {
	o := node(t, func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Authorization"); got != "Bearer secret-token" {
			t.Errorf("Authorization %q", got)
		}
		if r.URL.Path != "/api/v1/vdisks/a b" {
			t.Errorf("path %q", r.URL.Path)
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"name": "a b", "size": 4096}`)
	})
	v, err := client.Get[client.VDisk](dial(t, o).GetVDisk(t.Context(), "a b"))
	if err != nil || v.Name != "a b" || v.Size != 4096 {
		t.Errorf("got %+v, %v", v, err)
	}
}

// TestErrors checks invariant 3: what a failure is and what it says.
func TestErrors(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		want   string
		status int // of an *APIError; 0: another error
	}{
		{"all parts", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
			w.WriteHeader(409)
			fmt.Fprint(w, `{"code":"shrink","message":"cannot shrink","field":"size","object":"vdisk demo","hint":"give more","requestId":"r1"}`)
		}, "vdisk demo: cannot shrink (field size); give more [request r1]", 409},
		{"least parts", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(404)
			fmt.Fprint(w, `{"code":"not_found","message":"there is no vdisk demo","object":"vdisk demo","requestId":"r2"}`)
		}, "there is no vdisk demo [request r2]", 404},
		{"somebody else's page", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(502)
			fmt.Fprint(w, "<html>\x1b[2J bad gateway")
		}, `/api/v1/vdisks/demo answered 502 Bad Gateway: "<html>\x1b[2J bad gateway"; check that the address`, 502},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://198.51.100.1/", http.StatusFound)
		}, "answered 302 Found", 302},
		{"not JSON", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }, "is not what this version expects", 0},
		{"too long", func(w http.ResponseWriter, _ *http.Request) {
			block := []byte(strings.Repeat(" ", 1<<20))
			for range client.MaxAnswer>>20 + 1 {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
		}, "is longer than 64 MiB", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := client.Get[client.VDisk](dial(t, node(t, c.answer)).GetVDisk(t.Context(), "demo"))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v\nwant %s", err, c.want)
			}
			var api *client.APIError
			if errors.As(err, &api) != (c.status != 0) || api != nil && api.Status != c.status {
				t.Errorf("got %#v, want status %d", err, c.status)
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	ok := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") }
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for _, c := range []struct {
		name   string
		change func(o *client.Options)
		answer http.HandlerFunc
		want   string
	}{
		{"unknown CA", func(o *client.Options) { o.CA = nil }, ok, "set OVGATE_CA"},
		{"wrong name", func(o *client.Options) { o.URL = strings.Replace(o.URL, "127.0.0.1", "localhost", 1) }, ok, "that the node's certificate holds"},
		{"refused", func(o *client.Options) { o.URL = "https://127.0.0.1:1" }, ok, "nothing listens there"},
		{"timeout", func(o *client.Options) { o.Timeout = 50 * time.Millisecond }, hang, "may still go on at the node"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := node(t, c.answer)
			c.change(&o)
			err := client.Done(dial(t, o).DeleteVDisk(t.Context(), "demo", nil))
			var away *client.UnreachableError
			if !errors.As(err, &away) || !strings.Contains(err.Error(), c.want) || away.URL != o.URL {
				t.Errorf("got %v", err)
			}
			if err != nil && strings.Contains(err.Error(), "secret-token") {
				t.Errorf("the token is in %v", err)
			}
		})
	}
	o := node(t, hang)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := client.Done(dial(t, o).DeleteVDisk(ctx, "demo", nil)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestPlainServer names the remedy when a node speaks plain HTTP.
func TestPlainServer(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	err := client.Done(dial(t, client.Options{URL: strings.Replace(s.URL, "http:", "https:", 1)}).GetStatus(t.Context()))
	if err == nil || !strings.Contains(err.Error(), "--insecure") {
		t.Errorf("got %v", err)
	}
	if err := client.Done(dial(t, client.Options{URL: s.URL}).GetStatus(t.Context())); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("got %v", err)
	}
}

// TestURL checks invariant 1.
func TestURL(t *testing.T) {
	for _, c := range []struct{ url, want string }{
		{"https://node.example:8443", ""},
		{"https://node.example:8443/", ""},
		{"https://node.example/api/v1/", ""},
		{"http://127.0.0.1:8080", ""},
		{"http://[::1]:8080", ""},
		{"http://localhost:8080", ""},
		{"", "OVGATE_URL"},
		{"node:8443", "is not a URL"},
		{"ftp://node", "is not a URL"},
		{"https://", "is not a URL"},
		{"http://192.0.2.1:8443", "clear text"},
		{"http://127.0.0.1.example:8443", "clear text"},
		{"https://me:pass@node", "OVGATE_TOKEN"},
		{"https://node/x", "more than a host"},
		{"https://node?x=1", "more than a host"},
	} {
		_, err := client.New(client.Options{URL: c.url})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: got %v, want %q", c.url, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "pass@") {
			t.Errorf("%q: the password is in %v", c.url, err)
		}
	}
	if _, err := client.New(client.Options{URL: "https://node", CA: []byte("no pem")}); err == nil {
		t.Error("a CA without certificate: no error")
	}
}

func TestAll(t *testing.T) {
	pages := map[string][]int{"": {1, 2}, "a": {3}, "b": {4}}
	next := map[string]string{"": "a", "a": "b"}
	list := func(cursor *string) ([]int, *string, error) {
		at := ""
		if cursor != nil {
			at = *cursor
		}
		if n, ok := next[at]; ok {
			return pages[at], &n, nil
		}
		return pages[at], nil, nil
	}
	if got, err := client.All(list); err != nil || fmt.Sprint(got) != "[1 2 3 4]" {
		t.Errorf("got %v, %v", got, err)
	}
	next["b"] = "b"
	if _, err := client.All(list); err == nil {
		t.Error("a list without end: no error")
	}
	boom := errors.New("boom")
	if _, err := client.All(func(*string) ([]int, *string, error) { return nil, nil, boom }); !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
}
