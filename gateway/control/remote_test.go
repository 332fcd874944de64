package control

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/openvstorage/ovgate/gateway/model"
)

func s3At(url string) NewRemote {
	return NewRemote{Name: "store", Kind: model.KindS3, Secret: "right", Spec: model.RemoteSpec{URL: url, Container: "bucket", User: "me", S3: &model.S3Spec{}}}
}

// wantRefused checks what a refusal says, and that the record is as it was.
func (b *bench) wantRefused(err error, field string, code Code, was model.Remote) {
	b.t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Field != field || e.Code != code || e.Object != "backend store" || e.Hint == "" {
		b.t.Errorf("refusal %+v, want %s with field %q", err, code, field)
	}
	now, ok := b.model.FindRemote("store")
	if ok != (was.ID != "") || now.Rev != was.Rev {
		b.t.Errorf("the record changed: %+v", now)
	}
}

// TestRemotes: what cannot work changes nothing; what does is kept, sealed; vPools go on
// with it.
func TestRemotes(t *testing.T) {
	p := &place{}
	b := newBench(t, t.TempDir(), p)
	here, elsewhere := t.TempDir(), t.TempDir()
	ctx := t.Context()

	in := s3At(here)
	in.Secret = "wrong"
	_, _, err := b.CreateRemote(ctx, in)
	b.wantRefused(err, "secret", CodeInvalid, model.Remote{})
	in.Secret = ""
	_, _, err = b.CreateRemote(ctx, in)
	b.wantRefused(err, "secret", CodeInvalid, model.Remote{})

	r, _, err := b.CreateRemote(ctx, s3At(here))
	if err != nil || !r.Conditional || strings.Contains(string(r.Secret), "right") {
		t.Fatalf("%+v, %v", r, err)
	}
	_, _, err = b.CreateRemote(ctx, s3At(here))
	b.wantRefused(err, "name", CodeExists, r)

	for _, bad := range []model.Backend{{Kind: "s3", Path: "p"}, {Kind: "s3", Path: "p", Store: "none"}, {Kind: "swift", Path: "p", Store: "store"}} {
		if _, err := b.CreateVPool(ctx, NewPool{Name: "gold", Backend: bad}); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
	if _, err := b.CreateVPool(ctx, NewPool{Name: "gold", Backend: model.Backend{Kind: "s3", Path: "p", Store: "store"}}); err != nil {
		t.Fatal(err)
	}
	b.disk("d")
	if err := b.DeleteRemote(ctx, "store"); err == nil {
		t.Error("deleted below a vPool")
	}

	set := func(secret string, change func(*model.RemoteSpec)) error {
		_, _, err := b.UpdateRemote(ctx, "store", RemotePatch{Secret: &secret, Spec: change})
		return err
	}
	b.wantRefused(set("wrong", nil), "secret", CodeInvalid, r)
	b.wantRefused(set("right", func(s *model.RemoteSpec) { s.Region = "lesser" }), "", CodeInUse, r)
	var e *Error
	if err := set("right", func(s *model.RemoteSpec) { s.URL = elsewhere }); !errors.As(err, &e) || e.Code != CodeForeignRoot {
		t.Errorf("a place without the vPool's objects: %v", err)
	}
	if now, _ := b.model.FindRemote("store"); now.Rev != r.Rev || p.swaps.Load() != 0 {
		t.Errorf("the record changed: %+v", now)
	}
	if err := set("right", func(s *model.RemoteSpec) { s.Upload = 1 << 20 }); err != nil || p.swaps.Load() != 1 {
		t.Fatalf("%v, %d stores changed", err, p.swaps.Load())
	}
	v, err := b.FindVDisk("d")
	if err != nil || b.volume(v.ID) == nil {
		t.Fatalf("the vDisk is gone: %v", err)
	}
	if err := b.volume(v.ID).Commit(ctx); err != nil {
		t.Error(err)
	}
}

// TestRemoteChangedTwice: of two changes at a time neither is lost.
func TestRemoteChangedTwice(t *testing.T) {
	b := newBench(t, t.TempDir(), &place{})
	if _, _, err := b.CreateRemote(t.Context(), s3At(t.TempDir())); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i, change := range []func(*model.RemoteSpec){
		func(s *model.RemoteSpec) { s.Upload = 7 }, func(s *model.RemoteSpec) { s.Download = 8 }, func(s *model.RemoteSpec) { s.Proxy = "http://p" },
	} {
		wg.Go(func() {
			if _, _, err := b.UpdateRemote(t.Context(), "store", RemotePatch{Spec: change}); err != nil {
				t.Errorf("change %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	r, _ := b.model.FindRemote("store")
	if r.Spec.Upload != 7 || r.Spec.Download != 8 || r.Spec.Proxy != "http://p" {
		t.Errorf("%+v", r.Spec)
	}
}
