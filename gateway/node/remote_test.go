package node

import (
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/encrypted"
	"github.com/openvstorage/ovgate/volumedriver/backend/local"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
)

// A store that takes the place of another brings its limits, higher ones too, and leaves
// nothing of the former behind.
func TestSwap(t *testing.T) {
	key, err := encrypted.NewKey(strings.NewReader(strings.Repeat("k", encrypted.KeyBytes)))
	if err != nil {
		t.Fatal(err)
	}
	open := func(limits remote.Options) (backend.Store, counted) {
		s, err := local.Open(blockfs.NewMem(), local.Options{})
		if err != nil {
			t.Fatal(err)
		}
		c := counted{Store: remote.New(s, limits), below: s, limits: limits, r: &remotes{}}
		e, err := encrypted.Create(t.Context(), c, key, rootObject)
		if err != nil {
			t.Fatal(err)
		}
		return e, c
	}
	old, store := open(remote.Options{Upload: 1 << 20, MaxConcurrency: 2})
	now, _ := open(remote.Options{Upload: 1 << 30, MaxConcurrency: 20, MinConcurrency: 20})
	if err := now.Put(t.Context(), "there", []byte("bytes")); err != nil {
		t.Fatal(err)
	}
	backends{}.Swap(old, now)
	if got, err := old.Get(t.Context(), "there", 100); err != nil || string(got) != "bytes" {
		t.Errorf("read %q, %v", got, err)
	}
	if s := store.Stats(); s.Upload != 1<<30 || s.Writes.Limit != 20 || s.Reads.Limit != 20 {
		t.Errorf("limits %+v", s)
	}
	if err := old.Close(); err != nil {
		t.Error(err)
	}
}

// What openapi.yaml bounds is refused beyond, and named.
func TestCheckRemote(t *testing.T) {
	good := func(kind string) model.Remote {
		r := model.Remote{Kind: kind, Spec: model.RemoteSpec{URL: "https://store.example.org", Container: "vpools", User: "me"}}
		if kind == model.KindS3 {
			r.Spec.S3 = &model.S3Spec{}
		} else {
			r.Spec.Swift = &model.SwiftSpec{}
		}
		return r
	}
	long := strings.Repeat("x", maxText+1)
	for field, break_ := range map[string]func(*model.RemoteSpec){
		"container":     func(s *model.RemoteSpec) { s.Container = "../x" },
		"url":           func(s *model.RemoteSpec) { s.URL = "http://store.example.org" },
		"connections":   func(s *model.RemoteSpec) { s.Connections = maxConnections + 1 },
		"uploadBytes":   func(s *model.RemoteSpec) { s.Upload = -1 },
		"downloadBytes": func(s *model.RemoteSpec) { s.Download = -1 },
		"region":        func(s *model.RemoteSpec) { s.Region = long },
		"user":          func(s *model.RemoteSpec) { s.User = "" },
		"ca":            func(s *model.RemoteSpec) { s.CA = strings.Repeat("x", maxCA+1) },
		"proxy":         func(s *model.RemoteSpec) { s.Proxy = "nonsense" },
		"sse":           func(s *model.RemoteSpec) { s.S3.SSE = "rot13" },
		"sseKey":        func(s *model.RemoteSpec) { s.S3.SSEKey = "key" },
		"addressing":    func(s *model.RemoteSpec) { s.S3.Addressing = "yes" },
		"authVersion":   func(s *model.RemoteSpec) { s.Swift.AuthVersion = 4 },
		"shards":        func(s *model.RemoteSpec) { s.Swift.Shards = 257 },
		"endpoint":      func(s *model.RemoteSpec) { s.Swift.Endpoint = "secret" },
		"policy":        func(s *model.RemoteSpec) { s.Swift.Policy = long },
	} {
		tried := false
		for _, kind := range []string{model.KindS3, model.KindSwift} {
			r := good(kind)
			if e := (backends{}).CheckRemote(r); e != nil {
				t.Fatalf("%s: %v", kind, e)
			}
			func() {
				defer func() { tried = recover() == nil || tried }() // a field that this kind lacks
				break_(&r.Spec)
				if e := (backends{}).CheckRemote(r); e == nil || e.Field != "options."+field || e.Hint == "" || e.Code != control.CodeInvalid {
					t.Errorf("%s, %s: %+v", kind, field, e)
				}
			}()
		}
		if !tried {
			t.Errorf("%s was not tried", field)
		}
	}
}

// Bodies are signed only where TLS does not protect them.
func TestUnsigned(t *testing.T) {
	for url, want := range map[string]bool{"": true, "https://s3.example": true, "http://127.0.0.1:9000": false} {
		o, err := s3Options(model.Remote{Spec: model.RemoteSpec{URL: url, S3: &model.S3Spec{}}}, "secret", "p")
		if err != nil || o.Unsigned != want {
			t.Errorf("%q: unsigned %v, %v", url, o.Unsigned, err)
		}
	}
}
