package asdnode

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/alba/asd/remote"
	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// buffer is an output that is read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// served is a Run in this process.
type served struct {
	Announcement
	t        *testing.T
	out, log *buffer
	cancel   context.CancelFunc
	ended    chan error
}

func run(t *testing.T, o RunOptions) *served {
	t.Helper()
	s := &served{t: t, out: &buffer{}, log: &buffer{}, ended: make(chan error, 1)}
	o.Listen, o.Stdout, o.Stderr = "127.0.0.1:0", s.out, s.log
	var ctx context.Context
	ctx, s.cancel = context.WithCancel(context.Background())
	go func() { s.ended <- Run(ctx, o) }()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(3 * time.Minute)
	for {
		var ok bool
		if s.Announcement, ok = ParseAnnouncement(s.out.String()); ok {
			return s
		}
		select {
		case err := <-s.ended:
			t.Fatalf("Run ended: %v", err)
		case <-limit:
			t.Fatalf("not served: %s", s.log)
		case <-tick.C:
		}
	}
}

func (s *served) stop() {
	s.t.Helper()
	s.cancel()
	if err := <-s.ended; err != nil {
		s.t.Fatal(err)
	}
}

func (s *served) client(clear bool) *remote.Client {
	s.t.Helper()
	key, err := ReadKey(s.KeyFile)
	if err != nil {
		s.t.Fatal(err)
	}
	var d net.Dialer
	c, err := remote.New(remote.Options{Address: s.Address, ID: s.ID, Key: key, Fingerprint: s.Fingerprint, Clear: clear, Dial: d.DialContext, Clock: clock.Real{}, Rand: rand.Reader})
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// TestRun: a device is made, served, and after a restart it is the same one with
// what was stored; the key is told by its file alone.
func TestRun(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "disk")
	value := bytes.Repeat([]byte("0123456789abcdef"), 5000)
	s := run(t, RunOptions{Dir: dir, Capacity: 1 << 30, Version: "v1"})
	c := s.client(false)
	if err := c.Apply(t.Context(), nil, []osd.Update{osd.Set([]byte("k"), value)}, osd.High); err != nil {
		t.Fatal(err)
	}
	info, err := c.Info(t.Context())
	if err != nil || info.ID != s.ID || info.Version != "v1" || info.Total != 1<<30 {
		t.Fatalf("%+v, %v", info, err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	s.stop()
	key, err := os.ReadFile(s.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(s.out.String()+s.log.String(), strings.TrimSpace(string(key))) {
		t.Error("the access key was printed")
	}
	for _, name := range []string{keyName, tlsName} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", st.Mode(), err)
	}

	again := run(t, RunOptions{Dir: dir, Clear: true})
	defer again.stop()
	if again.ID != s.ID || again.Fingerprint != s.Fingerprint || again.KeyFile != s.KeyFile {
		t.Errorf("%+v after the restart, %+v before", again.Announcement, s.Announcement)
	}
	for _, clear := range []bool{false, true} {
		c := again.client(clear)
		defer c.Close()
		got := make([]byte, len(value))
		if err := c.Read(t.Context(), []byte("k"), 0, got, osd.High); err != nil || !bytes.Equal(got, value) {
			t.Errorf("the value after the restart, to a client with Clear %v: %v", clear, err)
		}
	}
}

// TestInUse: a directory has one user at a time, and another one after it.
func TestInUse(t *testing.T) {
	dir := t.TempDir()
	store, lock, err := OpenDir(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := OpenDir(dir, Options{}); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), dir) {
		t.Errorf("a second user: %v", err)
	}
	if err := Run(t.Context(), RunOptions{Dir: dir, Listen: "127.0.0.1:0", Stdout: &buffer{}, Stderr: &buffer{}}); !errors.Is(err, ErrInUse) {
		t.Errorf("a second process: %v", err)
	}
	if err := errors.Join(store.Close(), lock.Close()); err != nil {
		t.Fatal(err)
	}
	run(t, RunOptions{Dir: dir}).stop() // what OpenDir made can be served
}

// names lists what is in a directory, two levels deep.
func names(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, _ fs.DirEntry, err error) error {
		out = append(out, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestRefused: what is not a device's directory, or not the right device, is
// refused, and nothing in it changes.
func TestRefused(t *testing.T) {
	made := t.TempDir()
	store, lock, err := OpenDir(made, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(store.Close(), lock.Close()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		make  []string // files; those that end in / are directories
		from  string
		opts  Options
		is    error
		wants string
	}{
		{name: "data", make: []string{"photos/", "photos/1"}, wants: `holds "photos"`},
		{name: "a key without a device", make: []string{keyName}, wants: `holds "access.key"`},
		{name: "a file of the store's name", make: []string{storeName}, wants: `holds "asd"`},
		{name: "data in the store", make: []string{"asd/", "asd/photos/"}, wants: `holds "photos"`},
		{name: "not mounted", make: []string{"lost+found/"}, opts: Options{Existing: true}, wants: "mount the disk"},
		{name: "served before, and the store is not mounted", make: []string{"asd/", tlsName, keyName}, wants: "mount the disk"},
		{name: "another device", from: made, opts: Options{ID: "7d3f5a52-11d6-4a0e-8a5e-0c9f0d4b7a11"}, is: osd.ErrIdentity},
		{name: "something beside the device", from: made, make: []string{"photos"}, wants: `holds "photos"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if c.from != "" {
				if err := os.CopyFS(dir, os.DirFS(c.from)); err != nil {
					t.Fatal(err)
				}
			}
			for _, name := range c.make {
				path := filepath.Join(dir, name)
				err := error(nil)
				if strings.HasSuffix(name, "/") {
					err = os.Mkdir(path, 0o700)
				} else {
					err = os.WriteFile(path, nil, 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			before := names(t, dir)
			_, _, err := OpenDir(dir, c.opts)
			if err == nil || !strings.Contains(err.Error(), c.wants) || !strings.Contains(err.Error(), dir) || c.is != nil && !errors.Is(err, c.is) {
				t.Fatalf("error %v", err)
			}
			after := slices.DeleteFunc(names(t, dir), func(n string) bool { return n == lockName })
			if before = slices.DeleteFunc(before, func(n string) bool { return n == lockName }); !slices.Equal(before, after) {
				t.Errorf("%q became %q", before, after)
			}
		})
	}
	file := filepath.Join(made, lockName)
	if _, _, err := OpenDir(file, Options{}); err == nil || !strings.Contains(err.Error(), "it is a file") {
		t.Errorf("a file: %v", err)
	}
	if _, _, err := OpenDir(filepath.Join(made, "absent"), Options{Existing: true}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an absent directory: %v", err)
	}
}

// TestDamagedSecrets: a damaged key or certificate is not replaced.
func TestDamagedSecrets(t *testing.T) {
	for _, name := range []string{keyName, tlsName} {
		dir := t.TempDir()
		run(t, RunOptions{Dir: dir}).stop()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
		err := Run(t.Context(), RunOptions{Dir: dir, Listen: "127.0.0.1:0", Stdout: &buffer{}, Stderr: &buffer{}})
		if err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != "secret" {
			t.Errorf("%s was changed: %v", name, err)
		}
	}
	if _, err := ReadKey(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// TestListenInUse: the address is named, and the directory is free again.
func TestListenInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := t.TempDir()
	err = Run(t.Context(), RunOptions{Dir: dir, Listen: l.Addr().String(), Stdout: &buffer{}, Stderr: &buffer{}})
	if err == nil || !strings.Contains(err.Error(), l.Addr().String()) || !strings.Contains(err.Error(), "--listen") {
		t.Errorf("error %v", err)
	}
	run(t, RunOptions{Dir: dir}).stop()
}

func TestAnnouncement(t *testing.T) {
	want := Announcement{ID: "i", Address: "127.0.0.1:8500", Fingerprint: hex.EncodeToString([]byte("f")), KeyFile: "/a=b/access.key"}
	var b bytes.Buffer
	if err := want.print(&b, false); err != nil {
		t.Fatal(err)
	}
	for n := range b.Len() {
		if _, ok := ParseAnnouncement(b.String()[:n]); ok {
			t.Fatalf("complete after %q", b.String()[:n])
		}
	}
	if got, ok := ParseAnnouncement(b.String()); !ok || got != want {
		t.Errorf("%+v", got)
	}
	b.Reset()
	if err := want.print(&b, true); err != nil {
		t.Fatal(err)
	}
	var got Announcement
	if err := json.Unmarshal(b.Bytes(), &got); err != nil || got != want {
		t.Errorf("%s: %v", b.String(), err)
	}
}
