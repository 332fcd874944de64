package alba

import (
	"crypto/rand"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/alba/fragment"
	"github.com/openvstorage/ovgate/alba/manager"
	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/kv"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func registry(t *testing.T, dir string) *kv.Bolt {
	t.Helper()
	s, err := kv.OpenBolt(filepath.Join(dir, "kv.db"), kv.BoltOptions{Clock: clock.Real{}, NoSync: true})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

func newService(t *testing.T, dir string, store kv.Store, dirs ...Dir) *Service {
	t.Helper()
	key := make([]byte, control.SealKeySize)
	_, err := rand.Read(key)
	must(t, err)
	seal, err := control.NewSealer(key)
	must(t, err)
	return New(Options{Data: dir, Registry: store, Sealer: seal, Node: "n1", Dirs: dirs, Version: "test", Log: slog.New(slog.DiscardHandler)})
}

// A wrapping key that is lost or another one is told, and never made anew beside
// data keys that need it.
func TestWrapKey(t *testing.T) {
	dir := t.TempDir()
	store := registry(t, dir)
	path := filepath.Join(dir, wrapFile)
	k, err := openKeys(path, store)
	must(t, err)
	id, err := k.make(t.Context())
	must(t, err)
	st, err := os.Stat(path)
	must(t, err)
	if st.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v", st.Mode())
	}
	again, err := openKeys(path, store)
	must(t, err)
	key, err := again.get(id)
	must(t, err)
	if key.ID().String() != id {
		t.Fatalf("key %v for %s", key.ID(), id)
	}
	if _, err := again.get("0123"); err == nil {
		t.Fatal("a key that is not there")
	}
	must(t, os.Rename(path, path+".kept"))
	if _, err := openKeys(path, store); err == nil || !strings.Contains(err.Error(), "bring it back") {
		t.Fatalf("missing: %v", err)
	}
	other, err := openKeys(path, registry(t, t.TempDir()))
	must(t, err)
	other.store = store
	if _, err := other.get(id); !errors.Is(err, fragment.ErrWrongKey) {
		t.Fatalf("another wrapping key: %v", err)
	}
	must(t, os.WriteFile(path, []byte("no key"), 0o600))
	if _, err := openKeys(path, store); err == nil {
		t.Fatal("a file that is no key")
	}
}

// Devices of a node: made when they are needed, opened by identity, shared while they
// are used, refused where another is.
func TestLocalDevices(t *testing.T) {
	dir := t.TempDir()
	l := newLocalDevices("test", slog.New(slog.DiscardHandler))
	a, err := l.make(Dir{Path: filepath.Join(dir, "a")})
	must(t, err)
	info, err := a.Info(t.Context())
	must(t, err)
	again, err := l.open(manager.OSD{Directory: filepath.Join(dir, "a"), UUID: info.ID})
	must(t, err)
	if _, err := l.open(manager.OSD{Directory: filepath.Join(dir, "a"), UUID: "00000000-0000-4000-8000-000000000000"}); !errors.Is(err, osd.ErrIdentity) {
		t.Fatalf("another identity while open: %v", err)
	}
	b, err := l.make(Dir{Path: filepath.Join(dir, "b")})
	must(t, err)
	half, err := a.Info(t.Context())
	must(t, err)
	if half.Free > info.Free*3/4 {
		t.Fatalf("two devices on one file system say %d and %d are free", info.Free, half.Free)
	}
	must(t, a.Close())
	must(t, a.Close()) // the use was given back already
	if _, err := again.Info(t.Context()); err != nil {
		t.Fatalf("closed under its second user: %v", err)
	}
	must(t, again.Close())
	if _, err := again.Info(t.Context()); err == nil {
		t.Fatal("open without a user")
	}
	if _, err := l.open(manager.OSD{Directory: filepath.Join(dir, "a"), UUID: "00000000-0000-4000-8000-000000000000"}); !errors.Is(err, osd.ErrIdentity) {
		t.Fatalf("another identity: %v", err)
	}
	if _, err := l.open(manager.OSD{Directory: filepath.Join(dir, "absent"), UUID: info.ID}); err == nil {
		t.Fatal("a device was made where one should be")
	}
	must(t, b.Close())
	must(t, l.close())
	if _, err := l.make(Dir{Path: filepath.Join(dir, "c")}); !errors.Is(err, ErrClosed) {
		t.Fatalf("after the end: %v", err)
	}
}

// Nothing is made before it is needed (V1); what was made is found again.
func TestService(t *testing.T) {
	dir := t.TempDir()
	store := registry(t, dir)
	s := newService(t, dir, store)
	must(t, s.Open(t.Context()))
	osds, err := s.OSDs(t.Context())
	must(t, err)
	if _, err := os.Stat(filepath.Join(dir, asdDir)); err == nil || len(osds) != 0 || s.Made() {
		t.Fatal("made without need")
	}
	b, err := s.Store(t.Context(), "pool", "")
	must(t, err)
	must(t, b.Put(t.Context(), "o", []byte("content")))
	osds, err = s.OSDs(t.Context())
	must(t, err)
	if len(osds) != DefaultDevices {
		t.Fatalf("%d devices", len(osds))
	}
	must(t, s.Close())
	if _, err := s.Store(t.Context(), "pool", ""); !errors.Is(err, ErrClosed) {
		t.Fatalf("after the end: %v", err)
	}
	// Again, with a directory more and one that is taken.
	must(t, os.MkdirAll(filepath.Join(dir, "foreign"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "foreign", "data"), nil, 0o600))
	s = newService(t, dir, store, Dir{Path: filepath.Join(dir, "more")}, Dir{Path: filepath.Join(dir, "foreign")})
	must(t, s.Open(t.Context()))
	defer s.Close()
	b, err = s.Store(t.Context(), "pool", "")
	must(t, err)
	got, err := b.Get(t.Context(), "o", 100)
	must(t, err)
	if string(got) != "content" {
		t.Fatalf("%q", got)
	}
	osds, err = s.OSDs(t.Context())
	must(t, err)
	if len(osds) != DefaultDevices+1 {
		t.Fatalf("%d devices", len(osds))
	}
	status, err := s.Status(t.Context())
	must(t, err)
	if len(status.Events) == 0 || !strings.Contains(status.Events[len(status.Events)-1].Message, "foreign is not used") {
		t.Fatalf("events %+v", status.Events)
	}
	check := s.Check(t.Context())
	if check.Err != "" || len(check.OSDs) != DefaultDevices+1 || len(check.Counters) == 0 {
		t.Fatalf("%+v", check)
	}
	// Seven may become six and five, not fewer than the smallest policy needs.
	for n := uint32(1); n <= 5; n++ {
		_, err = s.Decommission(t.Context(), n)
		must(t, err)
	}
	if _, err := s.Decommission(t.Context(), 6); !errors.Is(err, manager.ErrUnsafe) {
		t.Fatalf("down to one device: %v", err)
	}
}
