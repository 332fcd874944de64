package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
)

// serve returns a store before a handler, and how many requests that got.
func serve(t *testing.T, change func(*Options), h http.HandlerFunc) (*Store, *atomic.Int64) {
	t.Helper()
	n := new(atomic.Int64)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		h(w, r)
	}))
	o := Options{Endpoint: srv.URL, Region: "us-east-1", Bucket: "bucket", AccessKey: "a", SecretKey: "s",
		Clock: clock.NewManual(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))}
	if change != nil {
		change(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.Close()
		srv.CloseClientConnections()
		srv.Close()
	})
	return s, n
}

func object(w http.ResponseWriter, status int, header map[string]string) {
	w.Header().Set("Last-Modified", "Fri, 02 Jan 2026 03:04:05 GMT")
	w.Header().Set("ETag", `"0123456789abcdef0123456789abcdef"`)
	for k, v := range header {
		w.Header().Set(k, v)
	}
	w.WriteHeader(status)
}

// endless writes until the client has gone, and returns how much it took.
func endless(w io.Writer, begin string) (n int64) {
	_, err := io.WriteString(w, begin)
	block := bytes.Repeat([]byte("x"), 64<<10)
	for err == nil {
		_, err = w.Write(block)
		n += int64(len(block))
	}
	return n
}

// K3: whatever comes instead of the range, there are no wrong bytes, and little is read.
func TestRangeAnswers(t *testing.T) {
	for _, tc := range []struct {
		name   string
		status int
		header map[string]string
		body   string
		want   error // nil: any
	}{
		{"whole object", 200, map[string]string{"Content-Length": "1000"}, strings.Repeat("x", 1000), nil},
		{"another range", 206, map[string]string{"Content-Range": "bytes 0-9/1000"}, "xxxxxxxxxx", nil},
		{"a shorter range", 206, map[string]string{"Content-Range": "bytes 10-18/1000"}, "xxxxxxxxx", nil},
		{"the object ends", 206, map[string]string{"Content-Range": "bytes 10-14/15"}, "xxxxx", backend.ErrRange},
		{"no header", 206, nil, "xxxxxxxxxx", nil},
		{"nonsense", 206, map[string]string{"Content-Range": "bytes 10-19/5"}, "xxxxxxxxxx", nil},
		{"another unit", 206, map[string]string{"Content-Range": "rows 10-19/1000"}, "xxxxxxxxxx", nil},
		{"short body", 206, map[string]string{"Content-Range": "bytes 10-19/1000", "Content-Length": "10"}, "xxx", remote.ErrUnreachable},
		{"whole short object", 200, map[string]string{"Content-Length": "12"}, "xxxxxxxxxxxx", backend.ErrRange},
		{"416", 416, nil, "", backend.ErrRange},
		{"empty", 204, nil, "", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, n := serve(t, nil, func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Range") != "bytes=10-19" {
					t.Errorf("asked for %q", r.Header.Get("Range"))
				}
				object(w, tc.status, tc.header)
				_, _ = io.WriteString(w, tc.body)
			})
			p := make([]byte, 10)
			err := s.ReadAt(t.Context(), "v/o", p, 10)
			if err == nil || tc.want != nil && !errors.Is(err, tc.want) {
				t.Errorf("error %v, want %v", err, tc.want)
			}
			if tc.want == nil && (errors.Is(err, backend.ErrRange) || errors.Is(err, backend.ErrNotExist)) {
				t.Errorf("error %v says something of the object", err)
			}
			if n.Load() != 1 {
				t.Errorf("%d requests", n.Load())
			}
		})
	}
	s, _ := serve(t, nil, func(w http.ResponseWriter, _ *http.Request) {
		object(w, 206, map[string]string{"Content-Range": "bytes 10-19/*"})
		_, _ = io.WriteString(w, "0123456789")
	})
	p := make([]byte, 10)
	if err := s.ReadAt(t.Context(), "v/o", p, 10); err != nil || string(p) != "0123456789" {
		t.Errorf("a good answer: %q, %v", p, err)
	}
}

// K5: an answer without an end is left soon, whatever it is to.
func TestEndless(t *testing.T) {
	page := `<ListBucketResult><IsTruncated>true</IsTruncated>`
	for _, tc := range []struct {
		name  string
		serve func(w http.ResponseWriter) int64
		call  func(s *Store) error
		want  error
	}{
		{"get", func(w http.ResponseWriter) int64 { object(w, 200, nil); return endless(w, "") },
			func(s *Store) error { _, err := s.Get(t.Context(), "v/o", 1000); return err }, backend.ErrCorrupt},
		{"range", func(w http.ResponseWriter) int64 { object(w, 200, nil); return endless(w, "") },
			func(s *Store) error { return s.ReadAt(t.Context(), "v/o", make([]byte, 10), 10) }, nil},
		{"list", func(w http.ResponseWriter) int64 { return endless(w, page+"<Contents><Key>") },
			func(s *Store) error { _, err := s.List(t.Context(), "", "", 10); return err }, nil},
		{"list comment", func(w http.ResponseWriter) int64 { return endless(w, page+"</ListBucketResult><!--") },
			func(s *Store) error { _, err := s.List(t.Context(), "", "", 10); return err }, nil},
		{"error", func(w http.ResponseWriter) int64 { w.WriteHeader(500); return endless(w, "<Error><Code>") },
			func(s *Store) error { return s.Put(t.Context(), "v/o", []byte("x")) }, nil},
		{"put", func(w http.ResponseWriter) int64 { object(w, 200, nil); return endless(w, "") },
			func(s *Store) error { return s.Put(t.Context(), "v/o", []byte("x")) }, nil},
		{"delete", func(w http.ResponseWriter) int64 { w.WriteHeader(404); return endless(w, "<html>") },
			func(s *Store) error { return s.Delete(t.Context(), "v/o") }, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			took := make(chan int64, 1)
			s, _ := serve(t, nil, func(w http.ResponseWriter, _ *http.Request) { took <- tc.serve(w) })
			err := tc.call(s)
			if tc.want != nil && !errors.Is(err, tc.want) || err == nil && tc.name != "put" {
				t.Errorf("error %v, want %v", err, tc.want)
			}
			if err != nil && len(err.Error()) > 2000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			// What the sockets hold comes on top.
			if n := <-took; n > maxXMLBytes+(16<<20) {
				t.Errorf("%d bytes were taken", n)
			}
		})
	}
}

// Lists that a store makes up.
func TestListAnswers(t *testing.T) {
	entry := func(key, size string) string {
		return "<Contents><Key>" + key + "</Key><Size>" + size + "</Size><LastModified>2026-01-02T03:04:05.000Z</LastModified></Contents>"
	}
	for _, tc := range []struct {
		name, body string
		want       string // names, or what the error holds
		fails      bool
	}{
		{"foreign keys", "<IsTruncated>false</IsTruncated>" + entry("a!", "1") + entry("b", "1") + entry("c/", "0") + entry("d!!", "1") + entry("e/./f!", "1") + entry("f!", "2"), "a f", false},
		{"out of order", entry("b!", "1") + entry("a!", "1"), "not in order", true},
		{"twice", entry("b!", "1") + entry("b!", "1"), "not in order", true},
		{"size below 0", entry("b!", "-1"), "negative", true},
		{"no size", entry("b!", "many"), "", true},
		{"more without a token", "<IsTruncated>true</IsTruncated>" + entry("a!", "1"), "", true},
		{"endless pages", "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>", "without an end", true},
		{"the same page", "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>" + entry("a!", "1"), "not in order", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, n := serve(t, nil, func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, "<ListBucketResult>"+tc.body+"</ListBucketResult>")
			})
			infos, err := s.List(t.Context(), "", "", 100)
			if tc.fails {
				if err == nil || !strings.Contains(err.Error(), tc.want) || infos != nil {
					t.Errorf("%v, error %v; want one with %q", infos, err, tc.want)
				}
			} else {
				var names []string
				for _, i := range infos {
					names = append(names, i.Name)
				}
				if err != nil || strings.Join(names, " ") != tc.want {
					t.Errorf("%q, error %v, want %q", names, err, tc.want)
				}
			}
			if n.Load() > maxRequests {
				t.Errorf("%d requests", n.Load())
			}
		})
	}
}

// Each refusal has its kind, and is one request (K1); S8.
func TestErrors(t *testing.T) {
	for _, tc := range []struct {
		status int
		code   string
		want   error
	}{
		{403, "SignatureDoesNotMatch", remote.ErrCredentials},
		{403, "InvalidAccessKeyId", remote.ErrCredentials},
		{401, "", remote.ErrCredentials},
		{403, "AccessDenied", remote.ErrDenied},
		{403, "", remote.ErrDenied},
		{404, "NoSuchBucket", remote.ErrNoContainer},
		{301, "PermanentRedirect", remote.ErrNoContainer},
		{307, "", remote.ErrNoContainer},
		{403, "RequestTimeTooSkewed", remote.ErrClock},
		{503, "SlowDown", remote.ErrThrottled},
		{503, "", remote.ErrThrottled},
		{429, "", remote.ErrThrottled},
		{507, "XMinioStorageFull", backend.ErrFull},
		{507, "", backend.ErrFull},
		{403, "QuotaExceeded", backend.ErrFull},
		{404, "NoSuchKey", backend.ErrNotExist},
		{501, "NotImplemented", backend.ErrUnsupported},
		{404, "", nil}, // K2
		{500, "InternalError", nil},
		{400, "BadDigest", nil},
		{418, "Surprise", nil},
	} {
		t.Run(fmt.Sprint(tc.status, tc.code), func(t *testing.T) {
			s, n := serve(t, nil, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Retry-After", "7")
				w.Header().Set("X-Amz-Request-Id", "id-1")
				w.WriteHeader(tc.status)
				if tc.code != "" {
					_, _ = fmt.Fprintf(w, "<Error><Code>%s</Code><Message>in their words</Message></Error>", tc.code)
				}
			})
			_, gerr := s.Get(t.Context(), "v/o", 10)
			_, lerr := s.List(t.Context(), "", "", 10)
			for op, err := range map[string]error{
				"get": gerr, "list": lerr,
				"put":  s.Put(t.Context(), "v/o", []byte("x")),
				"read": s.ReadAt(t.Context(), "v/o", make([]byte, 1), 0),
			} {
				var e *remote.Error
				if !errors.As(err, &e) || e.Status != tc.status || e.Code != tc.code || e.RequestID != "id-1" || e.RetryAfter != 7*time.Second {
					t.Fatalf("%s: %#v", op, err)
				}
				if e.Kind != tc.want {
					t.Errorf("%s: kind %v, want %v", op, e.Kind, tc.want)
				}
			}
			if n.Load() != 4 {
				t.Errorf("%d requests for 4 calls", n.Load())
			}
			err := s.Delete(t.Context(), "v/o")
			if tc.code == "NoSuchKey" != (err == nil) {
				t.Errorf("delete: %v", err)
			}
		})
	}
}

// A HEAD that finds nothing does not tell of what.
func TestStatAbsent(t *testing.T) {
	for _, tc := range []struct {
		bucket int
		want   error
	}{{200, backend.ErrNotExist}, {403, backend.ErrNotExist}, {404, remote.ErrNoContainer}, {503, remote.ErrThrottled}} {
		s, _ := serve(t, nil, func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, end) {
				w.WriteHeader(404)
			} else {
				w.WriteHeader(tc.bucket)
			}
		})
		if _, err := s.Stat(t.Context(), "v/o"); !errors.Is(err, tc.want) {
			t.Errorf("bucket answers %d: %v, want %v", tc.bucket, err, tc.want)
		}
	}
}

// K4: a Put whose bytes are not confirmed has failed.
func TestPutUnconfirmed(t *testing.T) {
	for _, tc := range []struct {
		name   string
		found  Found
		header map[string]string
		ok     bool
	}{
		{"crc", Found{Checksums: true}, map[string]string{crcHeader: newSums([]byte("data"), true).crc}, true},
		{"other crc", Found{Checksums: true}, map[string]string{crcHeader: newSums([]byte("atad"), true).crc}, false},
		{"no crc", Found{Checksums: true}, nil, false},
		{"md5", Found{ETagMD5: true}, map[string]string{"ETag": `"` + newSums([]byte("data"), false).hex + `"`}, true},
		{"other md5", Found{ETagMD5: true}, nil, false},
		{"etag of another kind", Found{}, nil, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, _ := serve(t, func(o *Options) { o.Found = tc.found }, func(w http.ResponseWriter, r *http.Request) {
				if got := r.Header.Get("Content-Md5") == ""; got != tc.found.Checksums {
					t.Errorf("no Content-MD5: %v", got)
				}
				_, _ = io.Copy(io.Discard, r.Body)
				object(w, 200, tc.header)
			})
			if err := s.Put(t.Context(), "v/o", []byte("data")); tc.ok != (err == nil) {
				t.Error(err)
			}
		})
	}
	// What a store that says nothing of a PUT has is looked at.
	for _, there := range []string{"data", "atad"} {
		s, _ := serve(t, func(o *Options) { o.Found.ETagMD5 = true }, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			etag := `"` + newSums([]byte(there), false).hex + `"`
			if r.Method == http.MethodPut {
				etag = ""
			}
			object(w, 200, map[string]string{"ETag": etag})
		})
		if err := s.Put(t.Context(), "v/o", []byte("data")); (err == nil) != (there == "data") {
			t.Errorf("%q is there: %v", there, err)
		}
	}
	// What is read is compared, too.
	s, _ := serve(t, func(o *Options) { o.Found.Checksums = true }, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(modeHeader) == "" {
			t.Error("no checksum asked for")
		}
		object(w, 200, map[string]string{crcHeader: newSums([]byte("data"), true).crc})
		_, _ = io.WriteString(w, "dada")
	})
	if _, err := s.Get(t.Context(), "v/o", 10); !errors.Is(err, backend.ErrCorrupt) {
		t.Errorf("damaged: %v", err)
	}
}

// Answers that are no S3 at all.
func TestNonsense(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"nothing":  func(http.ResponseWriter, *http.Request) {},
		"no dates": func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Last-Modified", "soon") },
		"long length": func(w http.ResponseWriter, _ *http.Request) {
			object(w, 200, map[string]string{"Content-Length": "9000000000000000000"})
		},
		"long header": func(w http.ResponseWriter, _ *http.Request) {
			object(w, 200, map[string]string{"X-Amz-Meta-A": strings.Repeat("x", maxHeaderBytes+1)})
		},
		"hang up": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"html": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(404)
			_, _ = io.WriteString(w, "<html><body>It works!</body></html>")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := serve(t, nil, h)
			_, gerr := s.Get(t.Context(), "v/o", 1000)
			_, lerr := s.List(t.Context(), "", "", 10)
			for op, err := range map[string]error{"get": gerr, "list": lerr, "read": s.ReadAt(t.Context(), "v/o", make([]byte, 10), 0)} {
				if err == nil || errors.Is(err, backend.ErrNotExist) || errors.Is(err, backend.ErrRange) && name != "nothing" {
					t.Errorf("%s: error %v", op, err)
				}
			}
		})
	}
}

// S7: a cancelled Put leaves the buffer to the caller at once, although the store has
// not read all of it. The race detector sees the rest.
func TestBufferAfterCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	release := make(chan struct{})
	s, _ := serve(t, nil, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadFull(r.Body, make([]byte, 1000))
		cancel()
		<-release
		_, _ = io.Copy(io.Discard, r.Body)
	})
	data := make([]byte, 32<<20)
	err := s.Put(ctx, "v/o", data)
	for i := range data {
		data[i] = 1
	}
	close(release)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestOptions(t *testing.T) {
	good := Options{Bucket: "b", AccessKey: "a", SecretKey: "topsecret"}
	for _, tc := range []struct {
		change func(*Options)
		want   string // empty: accepted
	}{
		{func(*Options) {}, ""},
		{func(o *Options) { o.Endpoint = "https://s3.example.org:9000/" }, ""},
		{func(o *Options) { o.Endpoint = "http://127.0.0.1:9000" }, ""},
		{func(o *Options) { o.Endpoint = "http://[::1]:9000" }, ""},
		{func(o *Options) { o.Endpoint = "http://s3.example.org" }, "use https"},
		{func(o *Options) { o.Endpoint, o.AllowHTTP = "http://s3.example.org", true }, ""},
		{func(o *Options) { o.Endpoint = "s3.example.org" }, "is not a URL"},
		{func(o *Options) { o.Endpoint = "https://u:topsecret@s3.example.org" }, "only scheme"},
		{func(o *Options) { o.Endpoint = "https://s3.example.org/bucket" }, "only scheme"},
		{func(o *Options) { o.Bucket = "" }, "bucket"},
		{func(o *Options) { o.Prefix = "a/b" }, ""},
		{func(o *Options) { o.Prefix = "a/" }, "prefix"},
		{func(o *Options) { o.Prefix = strings.Repeat("a/", 101) + "a" }, "prefix"},
		{func(o *Options) { o.Addressing = "dns" }, "addressing"},
		{func(o *Options) { o.SecretKey = "" }, "missing"},
		{func(o *Options) { o.IAM = true }, "not both"},
		{func(o *Options) { *o = Options{Bucket: "b", IAM: true} }, ""},
		{func(o *Options) { o.SSE = "yes" }, "encryption"},
		{func(o *Options) { o.SSE, o.KMSKey = SSEKMS, "key" }, ""},
		{func(o *Options) { o.KMSKey = "key" }, "KMS"},
		{func(o *Options) { o.Transport.CA = []byte("no") }, "CA"},
	} {
		o := good
		tc.change(&o)
		s, err := New(o)
		if err == nil {
			_ = s.Close()
		}
		if tc.want == "" != (err == nil) || err != nil && (!strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "topsecret")) {
			t.Errorf("%+v: error %v, want %q", o, err, tc.want)
		}
	}
}

func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-9/10", "bytes 5-6/*", "bytes */10", "bytes 9-1/20", "bytes 0-9/9", "", "bytes 0--1/5"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, v string) {
		first, last, size, ok := contentRange(v)
		if ok && (first < 0 || last < first || size >= 0 && last >= size) {
			t.Errorf("%q: %d-%d/%d", v, first, last, size)
		}
	})
}
