package swift

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/backendtest"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
)

// Each version of the protocol logs in and stores.
func TestLogin(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(o *Options)
		want   []string // in the body of the request
	}{
		{"v1", func(o *Options) { o.AuthURL = strings.Replace(o.AuthURL, "/v3", "/auth/v1.0", 1) }, nil},
		{"v2", func(o *Options) { o.AuthURL = strings.Replace(o.AuthURL, "/v3", "/v2.0", 1) }, []string{`"tenantName":"p"`, `"username":"u"`}},
		{"v3", func(*Options) {}, []string{`"domain":{"name":"Default"}`, `"project":{"name":"p"`, `"password":"` + fakeKey}},
		{"v3 without a version in the URL", func(o *Options) { o.AuthURL = strings.TrimSuffix(o.AuthURL, "/v3") }, []string{`"name":"u"`}},
		{"domains by ID", func(o *Options) { o.DomainID, o.ProjectDomainID = "d1", "d2" }, []string{`"domain":{"id":"d1"}`, `"domain":{"id":"d2"}`}},
		{"application credential", func(o *Options) {
			o.User, o.Key, o.Project = "", "", ""
			o.ApplicationCredential = ApplicationCredential{ID: "app", Secret: "s3"}
		}, []string{`"application_credential":{"id":"app","secret":"s3"`}},
		{"application credential by name", func(o *Options) {
			o.ApplicationCredential = ApplicationCredential{Name: "app", Secret: "s3"}
		}, []string{`"name":"app"`, `"name":"u"`}},
		{"trust", func(o *Options) { o.Project, o.TrustID = "", "t1" }, []string{`"OS-TRUST:trust":{"id":"t1"}`}},
		{"internal, with a region", func(o *Options) { o.EndpointType, o.Region = "internal", "r" }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake(t)
			o := f.options(3)
			c.change(&o)
			s := temporary(t, o)
			must(t, s.Put(t.Context(), "v/x/o", []byte("abc")))
			got, err := s.Get(t.Context(), "v/x/o", 10)
			must(t, err)
			if string(got) != "abc" || f.count() != 1 {
				t.Errorf("%q after %d logins", got, f.count())
			}
			for _, want := range c.want {
				if !strings.Contains(f.bodies[0], want) {
					t.Errorf("the login %s lacks %s", f.bodies[0], want)
				}
			}
		})
	}
}

// W2: calls that find the token refused wait for one login; each is repeated once.
func TestTokenRefused(t *testing.T) {
	f := newFake(t)
	s := temporary(t, f.options(3))
	must(t, s.Put(t.Context(), "v/x/o", []byte("abc")))
	f.clock.Advance(time.Minute)
	f.set(func() { clear(f.valid) })
	errs := make([]error, 20)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			if i%2 == 0 {
				errs[i] = s.Put(t.Context(), "v/x/p", backendtest.Data(1, 100000))
			} else {
				errs[i] = s.ReadAt(t.Context(), "v/x/o", make([]byte, 2), 1)
			}
		})
	}
	wg.Wait()
	must(t, errors.Join(errs...))
	if n := f.count(); n != 2 {
		t.Errorf("%d logins, want 2", n)
	}
	got, err := s.Get(t.Context(), "v/x/p", 100000)
	must(t, err)
	if string(got) != string(backendtest.Data(1, 100000)) {
		t.Error("the repeated PUT stored other bytes")
	}
}

// W1: a refusal that comes when the object is on its way resets the connection, and is
// seen all the same.
func TestTokenRefusedLate(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	s := temporary(t, f.options(3))
	must(t, s.Put(t.Context(), "v/x/o", []byte("abc")))
	f.clock.Advance(time.Minute)
	f.set(func() { clear(f.valid) })
	var cut atomic.Int32
	f.set(func() {
		f.hook = func(w http.ResponseWriter, r *http.Request) bool {
			f.mu.Lock()
			valid := f.valid[r.Header.Get("X-Auth-Token")]
			f.mu.Unlock()
			if r.Method != http.MethodPut || valid {
				return false
			}
			cut.Add(1)
			c, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Errorf("%v", err)
				return true
			}
			_, err = rw.ReadByte() // the client has begun without an answer
			if err == nil {
				err = c.(*net.TCPConn).SetLinger(0)
			}
			if err := errors.Join(err, c.Close()); err != nil {
				t.Errorf("%v", err)
			}
			return true
		}
	})
	want := backendtest.Data(1, 1000000)
	must(t, s.Put(t.Context(), "v/x/p", want))
	got, err := s.Get(t.Context(), "v/x/p", 1000000)
	must(t, err)
	if cut.Load() != 1 || f.count() != 2 || !bytes.Equal(got, want) {
		t.Errorf("%d connections cut, %d logins, %d bytes stored", cut.Load(), f.count(), len(got))
	}
	// A token that is taken is not replaced, whatever ends the connection.
	f.clock.Advance(time.Minute)
	f.set(func() {
		f.hook = func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodPut {
				return false
			}
			c, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				err = errors.Join(c.(*net.TCPConn).SetLinger(0), c.Close())
			}
			if err != nil {
				t.Errorf("%v", err)
			}
			return true
		}
	})
	mustFail(t, s.Put(t.Context(), "v/x/p", want), remote.ErrUnreachable)
	if f.count() != 2 {
		t.Errorf("%d logins", f.count())
	}
}

// A token is replaced before it ends; while no login succeeds it is used on.
func TestTokenRenewed(t *testing.T) {
	for _, version := range []int{1, 2, 3} {
		f := newFake(t)
		s := temporary(t, f.options(version))
		stat := func() error {
			_, err := s.Stat(t.Context(), "v/x/o")
			return err
		}
		must(t, s.Put(t.Context(), "v/x/o", nil))
		f.clock.Advance(f.life - renewBefore - time.Minute)
		must(t, stat())
		if n := f.count(); n != 1 {
			t.Errorf("version %d: %d logins before it is time", version, n)
		}
		f.clock.Advance(2 * time.Minute)
		f.set(func() { f.login = http.StatusServiceUnavailable })
		must(t, stat())
		if n := f.count(); n < 2 {
			t.Errorf("version %d: no login when it is time", version)
		}
		f.set(func() { f.login = 0; f.logins = 100 })
		must(t, stat()) // within the pause
		if n := f.count(); n != 100 {
			t.Errorf("version %d: a login within the pause", version)
		}
		f.clock.Advance(loginPause)
		must(t, stat())
		must(t, stat())
		if n := f.count(); n != 101 {
			t.Errorf("version %d: %d logins, want one", version, n-100)
		}
	}
}

// W2: wrong secrets and tokens that never please do not become a flood.
func TestNoFlood(t *testing.T) {
	f := newFake(t)
	s := temporary(t, f.options(3))
	f.clock.Advance(time.Minute)
	f.set(func() { clear(f.valid); f.login = http.StatusUnauthorized })
	for range 10 {
		mustFail(t, s.Put(t.Context(), "v/x/o", nil), remote.ErrCredentials)
	}
	if n := f.count(); n != 2 {
		t.Errorf("%d logins with a wrong secret, want 2", n)
	}
	f.set(func() { f.login = 0 })
	f.clock.Advance(loginPause)
	must(t, s.Put(t.Context(), "v/x/o", nil))
	f.clock.Advance(time.Minute)
	f.answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	before := f.count()
	for range 10 {
		mustFail(t, s.Put(t.Context(), "v/x/o", nil), remote.ErrCredentials)
	}
	if n := f.count() - before; n != 1 {
		t.Errorf("%d logins for tokens that are never taken, want 1", n)
	}
}

// Who waits for another's login leaves when its context ends; a login that its caller
// left says nothing to others.
func TestLoginCancelled(t *testing.T) {
	f := newFake(t)
	s := temporary(t, f.options(3))
	f.clock.Advance(2 * f.life)
	arrived, release := make(chan struct{}), make(chan struct{})
	f.set(func() {
		f.hook = func(_ http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "tokens") {
				return false
			}
			select {
			case arrived <- struct{}{}:
			case <-release:
				return false
			}
			<-release
			return false
		}
	})
	first, cancelFirst := context.WithCancel(t.Context())
	errs := make(chan error, 2)
	go func() { errs <- s.Delete(first, "v/x/o") }()
	<-arrived
	second, cancelSecond := context.WithCancel(t.Context())
	go func() { errs <- s.Delete(second, "v/x/o") }()
	cancelSecond()
	mustFail(t, <-errs, context.Canceled)
	cancelFirst()
	mustFail(t, <-errs, context.Canceled)
	close(release)
	must(t, s.Delete(t.Context(), "v/x/o"))
}

func TestLoginErrors(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(w http.ResponseWriter, r *http.Request)
		change func(o *Options)
		want   error
		logins int
	}{
		{"wrong secret", status(http.StatusUnauthorized), nil, remote.ErrCredentials, 1},
		{"wrong secret, version 2 with its two forms", status(http.StatusUnauthorized), func(o *Options) { o.AuthURL += "2.0"; o.AuthVersion = 2 }, remote.ErrCredentials, 2},
		{"forbidden", status(http.StatusForbidden), nil, remote.ErrDenied, 1},
		{"no such path", status(http.StatusNotFound), nil, backend.ErrUnsupported, 1},
		{"too many", status(http.StatusTooManyRequests), nil, remote.ErrThrottled, 1},
		{"broken", status(http.StatusInternalServerError), nil, nil, 1},
		{"no JSON", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hello")) }, nil, backend.ErrUnsupported, 1},
		{"a file as the storage URL", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Storage-Url", "file:///etc")
			w.Header().Set("X-Auth-Token", "t")
		}, func(o *Options) { o.AuthURL = strings.Replace(o.AuthURL, "/v3", "/v1", 1) }, backend.ErrUnsupported, 1},
		{"endless", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusCreated)
			for {
				if _, err := w.Write([]byte(`{"token":{"methods":["` + strings.Repeat("x", 60000))); err != nil {
					return
				}
			}
		}, nil, backend.ErrUnsupported, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake(t)
			n := 0
			f.set(func() {
				f.hook = func(w http.ResponseWriter, r *http.Request) bool {
					n++
					c.answer(w, r)
					return true
				}
			})
			o := f.options(3)
			if c.change != nil {
				c.change(&o)
			}
			_, err := Open(t.Context(), o)
			var e *remote.Error
			if !errors.As(err, &e) || e.Kind != c.want {
				t.Errorf("error %v, want %v", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), fakeKey) {
				t.Errorf("the secret shows: %v", err)
			}
			if n != c.logins {
				t.Errorf("%d logins, want %d", n, c.logins)
			}
		})
	}
	t.Run("wrong region", func(t *testing.T) {
		o := newFake(t).options(3)
		o.Region = "elsewhere"
		_, err := Open(t.Context(), o)
		mustFail(t, err, backend.ErrUnsupported)
	})
	t.Run("nobody there", func(t *testing.T) {
		f := newFake(t)
		f.Close()
		_, err := Open(t.Context(), f.options(3))
		mustFail(t, err, remote.ErrUnreachable)
	})
}

func status(code int) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func mustFail(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}
