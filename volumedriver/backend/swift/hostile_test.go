package swift

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
)

// W3: neither the token nor the secret follows a redirect.
func TestNoRedirects(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("%s %s with token %q, key %q", r.Method, r.URL, r.Header.Get("X-Auth-Token"), r.Header.Get("X-Auth-Key"))
	}))
	t.Cleanup(other.Close)
	away := func(code int) func(w http.ResponseWriter, r *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL+r.URL.Path, code) }
	}
	for _, code := range []int{301, 302, 303, 307, 308} {
		f := newFake(t)
		s := temporary(t, f.options(1))
		f.answer(away(code))
		_, gerr := s.Get(t.Context(), "v/x/o", 10)
		_, serr := s.Stat(t.Context(), "v/x/o")
		for op, err := range map[string]error{"get": gerr, "stat": serr, "put": s.Put(t.Context(), "v/x/o", []byte("abc")), "delete": s.Delete(t.Context(), "v/x/o")} {
			var e *remote.Error
			if !errors.As(err, &e) || e.Status != code {
				t.Errorf("%s: error %v, want status %d", op, err, code)
			}
		}
		f.set(func() {
			f.hook = func(w http.ResponseWriter, r *http.Request) bool { away(code)(w, r); return true }
		})
		_, err := Open(t.Context(), f.options(1))
		mustFail(t, err, backend.ErrUnsupported)
	}
}

// S8: what the store refuses for, and a message without its secrets.
func TestErrors(t *testing.T) {
	f := newFake(t)
	s := temporary(t, f.options(3))
	for _, c := range []struct {
		status int
		header string
		text   string
		want   error
	}{
		{403, "", "", remote.ErrDenied},
		{413, "", "<html><h1>Request Entity Too Large</h1>Upload exceeds quota.</html>", backend.ErrFull},
		{413, "", "too large", backend.ErrUnsupported},
		{422, "", "", nil},
		{429, "3", "", remote.ErrThrottled},
		{498, "", "", remote.ErrThrottled},
		{500, "", "", nil},
		{501, "", "", backend.ErrUnsupported},
		{503, "", "", nil},
		{503, "7", "", remote.ErrThrottled},
		{507, "", "", backend.ErrFull},
		{500, "", "token-1 " + fakeKey + strings.Repeat("\x00\n", 10000), nil},
	} {
		f.answer(func(w http.ResponseWriter, _ *http.Request) {
			if c.header != "" {
				w.Header().Set("Retry-After", c.header)
			}
			w.Header().Set("X-Trans-Id", "tx1")
			w.WriteHeader(c.status)
			fmt.Fprint(w, c.text)
		})
		err := s.Put(t.Context(), "v/x/o", []byte("abc"))
		var e *remote.Error
		if !errors.As(err, &e) || e.Kind != c.want || e.Status != c.status || e.RequestID != "tx1" {
			t.Errorf("status %d: %#v, want %v", c.status, err, c.want)
			continue
		}
		if (e.RetryAfter > 0) != (c.header != "") {
			t.Errorf("status %d: retry after %v", c.status, e.RetryAfter)
		}
		if text := err.Error(); len(text) > 500 || strings.Contains(text, fakeKey) || strings.Contains(text, "token-1") || strings.Contains(text, "<") {
			t.Errorf("status %d: %q", c.status, text)
		}
	}
}

// W4: a PUT is a success only if the store has these bytes.
func TestPutAnswers(t *testing.T) {
	data := []byte("abc")
	sum := md5.Sum(data)
	tag := hex.EncodeToString(sum[:])
	other := strings.Repeat("0", 32)
	for _, c := range []struct {
		name      string
		status    int
		tag       string
		there     int // what HEAD answers then
		thereTag  string
		thereSize int
		ok        bool
	}{
		{"created", 201, tag, 0, "", 0, true},
		{"created, other bytes", 201, other, 0, "", 0, false},
		{"created, no MD5", 201, "", 0, "", 0, false},
		{"accepted, the same is there", 202, "", 200, tag, 3, true},
		{"accepted, something else is there", 202, "", 200, other, 3, false},
		{"accepted, other length", 202, "", 200, tag, 4, false},
		{"accepted, nothing is there", 202, "", 404, "", 0, false},
		{"conflict, the same is there", 409, "", 200, tag, 3, true},
		{"conflict, something else is there", 409, "", 200, other, 3, false},
		{"OK, nothing is there", 200, tag, 404, "", 0, false},
	} {
		f := newFake(t)
		s := temporary(t, f.options(3))
		f.answer(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut {
				if got := r.Header.Get("Etag"); got != tag {
					t.Errorf("%s: MD5 %q sent", c.name, got)
				}
				w.Header().Set("Etag", c.tag)
				w.WriteHeader(c.status)
				return
			}
			if r.Header.Get("X-Newest") != "true" {
				t.Errorf("%s: a copy is asked, not all", c.name)
			}
			w.Header().Set("Etag", c.thereTag)
			w.Header().Set("Content-Length", fmt.Sprint(c.thereSize))
			w.WriteHeader(c.there)
		})
		err := s.Put(t.Context(), "v/x/o", data)
		if (err == nil) != c.ok {
			t.Errorf("%s: error %v", c.name, err)
		}
		if err != nil && (remote.Final(err) || errors.Is(err, backend.ErrNotExist)) {
			t.Errorf("%s: error %v is not worth a retry", c.name, err)
		}
	}
}

// A container that is removed under a store is not an empty store.
func TestContainerGone(t *testing.T) {
	f := newFake(t)
	s := temporary(t, f.options(3))
	f.set(func() {
		f.hook = func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusNotFound); return true }
	})
	_, err := s.Get(t.Context(), "v/x/o", 10)
	mustFail(t, err, remote.ErrNoContainer)
	mustFail(t, s.ReadAt(t.Context(), "v/x/o", make([]byte, 1), 0), remote.ErrNoContainer)
	_, err = s.List(t.Context(), "", "", 0)
	mustFail(t, err, remote.ErrNoContainer)
	mustFail(t, s.Put(t.Context(), "v/x/o", nil), remote.ErrNoContainer)
	must(t, s.Delete(t.Context(), "v/x/o"))
}

// W6: whatever comes, a read ends with an error and the right part of it in memory.
func TestHostileReads(t *testing.T) {
	f := newFake(t)
	s := temporary(t, f.options(3))
	endless := func(w http.ResponseWriter) {
		for {
			if _, err := w.Write(make([]byte, 60000)); err != nil {
				return
			}
		}
	}
	ranged := func(contentRange string, n int) func(w http.ResponseWriter, r *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", contentRange)
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(make([]byte, n))
		}
	}
	for _, c := range []struct {
		name   string
		answer func(w http.ResponseWriter, r *http.Request)
		want   error // of ReadAt of 10 bytes at 5; nil: one that is worth a retry
	}{
		{"no length", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusPartialContent); endless(w) }, nil},
		{"the whole", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 50)) }, backend.ErrUnsupported},
		{"empty", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "0") }, backend.ErrRange},
		{"another range", ranged("bytes 0-9/20", 10), nil},
		{"a short range", ranged("bytes 5-9/20", 5), nil},
		{"the end of the object", ranged("bytes 5-9/10", 5), backend.ErrRange},
		{"a long range", ranged("bytes 5-19/20", 15), nil},
		{"a range beyond the size", ranged("bytes 5-14/14", 10), nil},
		{"no range", ranged("", 10), nil},
		{"numbers that are none", ranged("bytes 5--14/99999999999999999999", 10), nil},
		{"fewer bytes than said", ranged("bytes 5-14/20", 9), nil},
		{"broken off", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 5-14/20")
			w.Header().Set("Content-Length", "10")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(make([]byte, 3))
			panic(http.ErrAbortHandler)
		}, nil},
	} {
		f.answer(c.answer)
		err := s.ReadAt(t.Context(), "v/x/o", make([]byte, 10), 5)
		switch {
		case err == nil:
			t.Errorf("%s: no error", c.name)
		case c.want != nil && !errors.Is(err, c.want):
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		case c.want == nil && (remote.Final(err) || errors.Is(err, backend.ErrRange) || errors.Is(err, backend.ErrNotExist)):
			t.Errorf("%s: %v is not worth a retry", c.name, err)
		}
	}
	for _, c := range []struct {
		name   string
		answer func(w http.ResponseWriter, r *http.Request)
		want   error
	}{
		{"no length", func(w http.ResponseWriter, _ *http.Request) { endless(w) }, nil},
		{"too long", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "101"); endless(w) }, backend.ErrCorrupt},
		{"other bytes", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Etag", strings.Repeat("0", 32))
			_, _ = w.Write([]byte("abc"))
		}, backend.ErrCorrupt},
		{"no MD5", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("abc")) }, backend.ErrCorrupt},
	} {
		f.answer(c.answer)
		if _, err := s.Get(t.Context(), "v/x/o", 100); err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("get, %s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestHostileListings(t *testing.T) {
	f := newFake(t)
	s := temporary(t, f.options(3))
	for name, text := range map[string]string{
		"no JSON":       "hello",
		"unsorted":      `[{"name":"b"},{"name":"a"}]`,
		"twice":         `[{"name":"b"},{"name":"b"}]`,
		"no name":       `[{"subdir":"b/"}]`,
		"before after":  `[{"name":"a"}]`,
		"reserved":      `[{"name":"b"},{"name":"~/x"}]`,
		"negative":      `[{"name":"b","bytes":-1}]`,
		"too many":      `[{"name":"b"},{"name":"c"},{"name":"d"},{"name":"e"}]`,
		"too large":     `[{"name":"b","bytes":99999999999999999999}]`,
		"endless":       strings.Repeat(" ", 1<<20),
		"deeply nested": strings.Repeat("[", 10000),
	} {
		f.set(func() {
			f.hook = func(w http.ResponseWriter, _ *http.Request) bool { fmt.Fprint(w, text); return true }
		})
		if infos, err := s.List(t.Context(), "", "a0", 3); err == nil {
			t.Errorf("%s: %v", name, infos)
		}
	}
	f.set(func() {
		f.hook = func(w http.ResponseWriter, _ *http.Request) bool {
			fmt.Fprint(w, `[{"name":"A?"},{"name":"b","bytes":7,"last_modified":"2026-01-02T03:04:05.678900"}]`)
			return true
		}
	})
	infos, err := s.List(t.Context(), "", "", 2)
	if err == nil { // a second page follows what is somebody else's
		t.Fatalf("the same page twice: %v", infos)
	}
	infos, err = s.List(t.Context(), "", "", 3)
	must(t, err)
	want := time.Date(2026, 1, 2, 3, 4, 5, 678900000, time.UTC)
	if len(infos) != 1 || infos[0].Name != "b" || infos[0].Size != 7 || !infos[0].ModTime.Equal(want) {
		t.Errorf("%+v", infos)
	}
}

func TestHostileInfo(t *testing.T) {
	for _, text := range []string{
		"", "null", "[]", `{"swift":7}`, `{"swift":{"max_file_size":-1,"container_listing_limit":999999999,"policies":[{}]},"bulk_delete":{"max_deletes_per_request":-5},"slo":{"max_manifest_segments":99999999}}`,
		`{"swift":{"policies":[` + strings.TrimSuffix(strings.Repeat(`{"name":"x","aliases":",,"},`, 1000), ",") + `]}}`,
	} {
		f := parseInfo([]byte(text))
		f.bound()
		if f.MaxObjectBytes <= 0 || f.ListLimit < 1 || f.ListLimit > maxListLimit || f.MaxSegments > maxSegmentsBound || f.BulkDelete < 0 || len(f.Policies) > maxPolicies {
			t.Errorf("%.50s: %+v", text, f)
		}
	}
}

// FuzzAnswers gives parsers what a hostile store may send.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte(`{"swift":{"policies":[{"name":"gold","aliases":"a, b"}]},"slo":{}}`))
	f.Add([]byte("bytes 5-9/20"))
	f.Add([]byte("<html><h1>Not Found</h1>"))
	f.Fuzz(func(t *testing.T, b []byte) {
		info := parseInfo(b)
		info.bound()
		if len(info.Policies) > maxPolicies || info.ListLimit < 1 {
			t.Errorf("%+v", info)
		}
		if m := message(b, "secret"); len(m) > maxMessageBytes || strings.ContainsAny(m, "\n\x00") {
			t.Errorf("message %q", m)
		}
		var first, last, size int64
		if parseRange(string(b), &first, &last, &size) && !bytes.HasPrefix(b, []byte("bytes ")) {
			t.Errorf("range %q", b)
		}
	})
}

func TestOptions(t *testing.T) {
	good := Options{AuthURL: "https://k.example.org:5000/v3", User: "u", Key: "k", Project: "p", Container: "C.1_x-"}
	for _, c := range []struct {
		change func(o *Options)
		want   string // in the error
	}{
		{func(*Options) {}, ""},
		{func(o *Options) { o.Prefix = "a/b/" }, ""},
		{func(o *Options) { o.Prefix = "a/../" }, "prefix"},
		{func(o *Options) { o.Prefix = "/" }, "prefix"},
		{func(o *Options) { o.Prefix = "a~" }, "prefix"},
		{func(o *Options) { o.Prefix = "a//" }, "prefix"},
		{func(o *Options) { o.Container = "" }, "container"},
		{func(o *Options) { o.Container = ".." }, "container"},
		{func(o *Options) { o.Container = "a/b" }, "container"},
		{func(o *Options) { o.Container = "a?b" }, "container"},
		{func(o *Options) { o.Shards = 257 }, "shards"},
		{func(o *Options) { o.SegmentBytes = -1 }, "segments"},
		{func(o *Options) { o.Policy = "a\nb" }, "policy"},
		{func(o *Options) { o.EndpointType = "secret" }, "endpoint"},
		{func(o *Options) { o.AuthVersion = 4 }, "version"},
		{func(o *Options) { o.AuthURL = "k.example.org" }, "URL"},
		{func(o *Options) { o.AuthURL = "ftp://k/v3" }, "URL"},
		{func(o *Options) { o.AuthURL = "https://user:hidden@k/v3" }, "apart"},
		{func(o *Options) { o.Key = "" }, "key"},
		{func(o *Options) { o.Project = "" }, "project"},
		{func(o *Options) { o.ApplicationCredential.Name = "a" }, "application credential"},
		{func(o *Options) { o.AuthVersion = 1; o.ApplicationCredential.ID = "a" }, "version 3"},
	} {
		o := good
		c.change(&o)
		err := o.check()
		switch {
		case c.want == "" && err != nil:
			t.Error(err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hidden")):
			t.Errorf("error %v, want one about %q", err, c.want)
		}
	}
}

// A vDisk's objects stay together, and where they are never changes.
func TestShards(t *testing.T) {
	s := &Store{o: Options{Container: "base", Shards: 16}}
	for name, want := range map[string]string{
		"ovgate.root": "base-00", "v/x": "base-00", "v/11111111-1111-1111-1111-111111111111/sco/1": "base-0e",
		"v/11111111-1111-1111-1111-111111111111/head/1": "base-0e",
	} {
		if got := s.containerOf(name); got != want {
			t.Errorf("%s is in %s, want %s", name, got, want)
		}
	}
	if _, ok := s.shardOf("v/1"); ok {
		t.Error("a part of a vDisk's id chooses a container")
	}
}
