package s3

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/leaktest"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/backendtest"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote/remotetest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// kinds of peers that the tests run against; MinIO takes minutes to build.
func peerKinds() []string {
	if os.Getenv("OVGATE_MINIO") == "1" {
		return []string{"versitygw", "minio"}
	}
	return []string{"versitygw"}
}

// peer starts a store and returns how it is reached, and where it keeps its buckets.
func peer(t *testing.T, args ...string) (o Options, data string) {
	t.Helper()
	p := remotetest.Peer(t, "s3", args...)
	o = Options{Endpoint: p["endpoint"], Bucket: p["bucket"], AccessKey: p["access_key"], SecretKey: p["secret_key"]}
	if p["ca"] != "" {
		ca, err := os.ReadFile(p["ca"])
		if err != nil {
			t.Fatal(err)
		}
		o.Transport.CA = ca
	}
	return o, p["data"]
}

// open opens a store of versitygw that passes the suite's check of objects that come
// and go side by side. versitygw answers a PUT with 409 when the directory that it is
// for is removed at that moment, because another object in it was the last. That is
// worth a retry, as the suite does not do; a key of somebody else, which is not listed,
// keeps the directory.
func open(t *testing.T, o Options, data string) *Store {
	t.Helper()
	dir := filepath.Join(data, o.Bucket, o.Prefix, "shared", "part")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "foreign"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return opened(t, o)
}

func opened(t *testing.T, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestStore is the conformance suite against real stores, each with what Detect finds
// of it.
func TestStore(t *testing.T) {
	for _, kind := range peerKinds() {
		t.Run(kind, func(t *testing.T) {
			o, data := peer(t, "--kind", kind)
			found, warnings, err := Detect(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s: %+v %q", kind, found, warnings)
			if !found.ConditionalPut || !found.Checksums || !found.ETagMD5 || found.Unsigned || len(warnings) > 0 {
				t.Errorf("found %+v, warnings %q", found, warnings)
			}
			o.Found = found
			n := 0
			backendtest.Run(t, backendtest.Options{ListLag: 5 * time.Second, New: func(t *testing.T) backend.Store {
				n++
				o := o
				if o.Prefix = fmt.Sprintf("run/%d", n); n == 1 {
					o.Prefix = "" // the whole bucket
				}
				if kind == "versitygw" {
					return open(t, o, data)
				}
				return opened(t, o)
			}})
		})
	}
}

// TestSwift is the conformance suite against Swift's s3api, with what Detect finds of it:
// no conditional PUT, no CRC32C.
func TestSwift(t *testing.T) {
	if testing.Short() {
		t.Skip("Swift's programs take the time, with -short")
	}
	t.Parallel() // it waits more than it works
	p := remotetest.Peer(t, "swift")
	o := Options{Endpoint: p["endpoint"], Bucket: p["bucket"], Region: p["s3_region"], AccessKey: p["access_key"], SecretKey: p["secret_key"]}
	found, warnings, err := Detect(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v %q", found, warnings)
	if found.ConditionalPut || found.Checksums || !found.ETagMD5 || found.Unsigned {
		t.Errorf("found %+v", found)
	}
	o.Found = found
	var n atomic.Int64
	backendtest.Run(t, backendtest.Options{LargeBytes: 4 << 20, ListLag: 30 * time.Second, Slow: true, New: func(t *testing.T) backend.Store {
		o := o
		o.Prefix = fmt.Sprint("run/", n.Add(1))
		return opened(t, o)
	}})
}

// TestPlain: the store works as one of which nothing is known.
func TestPlain(t *testing.T) {
	o, data := peer(t)
	var n atomic.Int64
	backendtest.Run(t, backendtest.Options{LargeBytes: 1 << 20, ListLag: 5 * time.Second, New: func(t *testing.T) backend.Store {
		o := o
		o.Unsigned = true
		o.Prefix = fmt.Sprint("plain", n.Add(1))
		return open(t, o, data)
	}})
}

// TestTLS: a CA of its own is needed and enough, and each refusal has its error.
func TestTLS(t *testing.T) {
	o, _ := peer(t, "--tls")
	for _, tc := range []struct {
		name   string
		change func(*Options)
		want   error
	}{
		{"right", func(*Options) {}, nil},
		{"path", func(o *Options) { o.Addressing = AddressPath }, nil},
		{"system's CAs", func(o *Options) { o.Transport.CA = nil }, remote.ErrCertificate},
		{"wrong secret", func(o *Options) { o.SecretKey = "wrong" }, remote.ErrCredentials},
		{"unknown key", func(o *Options) { o.AccessKey = "nobody" }, remote.ErrCredentials},
		{"no bucket", func(o *Options) { o.Bucket = "not-there" }, remote.ErrNoContainer},
		{"nobody listens", func(o *Options) { o.Endpoint = "https://127.0.0.1:1" }, remote.ErrUnreachable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := o
			tc.change(&o)
			s, err := Open(t.Context(), o)
			if !errors.Is(err, tc.want) || err == nil != (tc.want == nil) {
				t.Fatalf("error %v, want %v", err, tc.want)
			}
			if err != nil {
				t.Log(err)
				return
			}
			defer func() { _ = s.Close() }()
			if err := s.Put(t.Context(), "v/o", []byte("x")); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestDetectCleans: nothing is left, also when the context ends in the middle.
func TestDetectCleans(t *testing.T) {
	o, _ := peer(t)
	s := opened(t, o)
	defer func() { _ = s.Close() }()
	if err := s.Put(t.Context(), "mine", nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Detect(t.Context(), o); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	o.Rand = cancelReader(cancel)
	if _, _, err := Detect(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	o.Rand, o.SSE = nil, SSES3
	if _, _, err := Detect(t.Context(), o); !errors.Is(err, remote.ErrEncryption) {
		t.Errorf("versitygw, which does not encrypt: %v", err)
	}
	infos, err := s.List(t.Context(), "", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(infos) != 1 || infos[0].Name != "mine" {
		t.Errorf("left behind: %v", infos)
	}
}

// cancelReader ends a context when it is read.
type cancelReader func()

func (c cancelReader) Read(p []byte) (int, error) {
	c()
	clear(p)
	return len(p), nil
}
