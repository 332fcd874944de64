package s3

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
)

// metadata serves the role of a machine as Amazon does, to who fetched a token first
// (IMDSv2). The n-th keys are KEYn, and expire life after they are handed out.
func metadata(t *testing.T, life time.Duration) (url string, handed *atomic.Int64) {
	t.Helper()
	handed = new(atomic.Int64)
	const token, role = "token-1", "/latest/meta-data/iam/security-credentials/"
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token" && r.Header.Get("X-Aws-Ec2-Metadata-Token-Ttl-Seconds") != "":
			_, _ = io.WriteString(w, token)
		case r.Header.Get("X-Aws-Ec2-Metadata-Token") != token:
			w.WriteHeader(http.StatusUnauthorized)
		case r.URL.Path == role:
			_, _ = io.WriteString(w, "ovgate-role")
		case r.URL.Path == role+"ovgate-role":
			n := handed.Add(1)
			_, _ = fmt.Fprintf(w, `{"Code": "Success", "AccessKeyId": "KEY%d", "SecretAccessKey": "s", "Token": "session-%d", "Expiration": %q}`,
				n, n, time.Now().Add(life).UTC().Format(time.RFC3339))
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL, handed
}

// The keys of the machine's role sign requests until they expire; then there are new ones.
func TestRole(t *testing.T) {
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY", "AWS_SESSION_TOKEN",
		"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"} {
		t.Setenv(name, "")
	}
	const calls = 3
	for _, tc := range []struct {
		name   string
		life   time.Duration
		handed int64
	}{{"long", time.Hour, 1}, {"expired", -time.Second, calls}} {
		t.Run(tc.name, func(t *testing.T) {
			url, handed := metadata(t, tc.life)
			var signed []string
			s, _ := serve(t, func(o *Options) { o.AccessKey, o.SecretKey, o.IAM, o.metadata = "", "", true, url }, func(w http.ResponseWriter, r *http.Request) {
				key, _, _ := strings.Cut(strings.TrimPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential="), "/")
				signed = append(signed, key+" "+r.Header.Get("X-Amz-Security-Token"))
				_, _ = io.Copy(io.Discard, r.Body)
				object(w, http.StatusOK, nil)
			})
			for range calls {
				if err := s.Put(t.Context(), "v/o", []byte("x")); err != nil {
					t.Fatal(err)
				}
			}
			if handed.Load() != tc.handed || len(signed) != calls {
				t.Errorf("keys were handed out %d times, want %d; %d requests", handed.Load(), tc.handed, len(signed))
			}
			for i, got := range signed {
				if n := min(int64(i+1), tc.handed); got != fmt.Sprintf("KEY%d session-%d", n, n) {
					t.Errorf("request %d is signed by %q", i, got)
				}
			}
		})
	}
	// A machine without a role.
	none := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(none.Close)
	s, n := serve(t, func(o *Options) { o.AccessKey, o.SecretKey, o.IAM, o.metadata = "", "", true, none.URL }, func(http.ResponseWriter, *http.Request) {})
	if err := s.Put(t.Context(), "v/o", nil); !errors.Is(err, remote.ErrCredentials) || !strings.Contains(err.Error(), "give this machine a role") || n.Load() != 0 {
		t.Errorf("without a role: %v, %d requests", err, n.Load())
	}
}

// The metadata service is never asked through a proxy.
func TestRolePastProxy(t *testing.T) {
	s, err := New(Options{Bucket: "b", AccessKey: "a", SecretKey: "s", Transport: remote.TransportOptions{Proxy: "http://proxy.example.org:3128"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	for url, want := range map[string]bool{"http://169.254.169.254/latest": false, "http://[fe80::1]/": false, "https://s3.amazonaws.com/": true, "http://192.0.2.1/": true} {
		req, err := http.NewRequest(http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if via, err := s.http.Proxy(req); err != nil || (via != nil) != want {
			t.Errorf("%s: through %v, %v", url, via, err)
		}
	}
}

// What the store is to encrypt by is in each PUT. One that refuses that, or takes no
// notice, is no store for it.
func TestEncryptionByStore(t *testing.T) {
	const keyHeader = "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id"
	for _, tc := range []struct {
		name, sse, key string
		status         int  // to a PUT that asks for it
		echo           bool // the store says that it did
		want           error
	}{
		{"AES256", SSES3, "", 200, true, nil},
		{"KMS", SSEKMS, "key-1", 200, true, nil},
		{"KMS, the account's key", SSEKMS, "", 200, true, nil},
		{"refused", SSES3, "", 501, false, remote.ErrEncryption},
		{"bad request", SSEKMS, "key-1", 400, false, remote.ErrEncryption},
		{"no notice", SSES3, "", 200, false, remote.ErrEncryption},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, _ := serve(t, func(o *Options) { o.SSE, o.KMSKey = tc.sse, tc.key }, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				header := map[string]string{}
				asked := r.Header.Get(sseHeader)
				if r.Method == http.MethodPut && asked != "" {
					if asked != tc.sse || r.Header.Get(keyHeader) != tc.key {
						t.Errorf("asked for %q with key %q", asked, r.Header.Get(keyHeader))
					}
					if tc.status != http.StatusOK {
						w.WriteHeader(tc.status)
						return
					}
				}
				if tc.echo {
					header[sseHeader] = tc.sse
				}
				object(w, http.StatusOK, header)
			})
			d := &detection{s: s, found: &s.o.Found, base: "probe"}
			err := d.encryption(t.Context())
			if !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) {
				t.Errorf("error %v, want %v", err, tc.want)
			}
		})
	}
}
