package encrypted

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/backendtest"
	"github.com/openvstorage/ovgate/volumedriver/backend/local"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func below(t *testing.T) backend.Store {
	t.Helper()
	s, err := local.Open(blockfs.NewMem(), local.Options{})
	must(t, err)
	return s
}

func newKey(t *testing.T) Key {
	t.Helper()
	k, err := NewKey(rand.Reader)
	must(t, err)
	return k
}

func open(t *testing.T, s backend.Store, k Key, plain ...string) *Store {
	t.Helper()
	e, err := Create(t.Context(), s, k, plain...)
	must(t, err)
	return e
}

func TestConformance(t *testing.T) {
	backendtest.Run(t, backendtest.Options{New: func(t *testing.T) backend.Store { return open(t, below(t), newKey(t)) }})
}

// Every range of objects around the edges of pieces, and what is stored shows
// nothing of it.
func TestRanges(t *testing.T) {
	raw := below(t)
	s := open(t, raw, newKey(t))
	for _, size := range []int{0, 1, 4095, 4096, 4097, 8192, 12000} {
		name := fmt.Sprintf("o-%d", size)
		data := backendtest.Data(uint64(size), size)
		must(t, s.Put(t.Context(), name, data))
		edges := []int{0, 1, 4095, 4096, 4097, 8191, 8192, 8193, size - 1, size, size + 1}
		for _, from := range edges {
			for _, to := range edges {
				if from < 0 || to < from {
					continue
				}
				p := make([]byte, to-from)
				err := s.ReadAt(t.Context(), name, p, int64(from))
				if to > size || from > size {
					if !errors.Is(err, backend.ErrRange) {
						t.Fatalf("%s %d..%d: %v, want ErrRange", name, from, to, err)
					}
				} else if err != nil || !bytes.Equal(p, data[from:to]) {
					t.Fatalf("%s %d..%d: %v", name, from, to, err)
				}
			}
		}
		stored, err := raw.Get(t.Context(), name, 1<<20)
		must(t, err)
		if int64(len(stored)) != sealedSize(int64(size)) {
			t.Errorf("%s: stored %d bytes, want %d", name, len(stored), sealedSize(int64(size)))
		}
		if size >= 4095 && bytes.Contains(stored, data[:32]) {
			t.Errorf("%s: stored in plain", name)
		}
	}
}

func TestSizes(t *testing.T) {
	seen := map[int64]bool{}
	for n := range int64(20_000) {
		s := sealedSize(n)
		if got := plainSize(s); got != n || seen[s] {
			t.Fatalf("%d: sealed %d, plain %d", n, s, got)
		}
		seen[s] = true
	}
	for n := range sealedSize(20_000) {
		if (plainSize(n) >= 0) != seen[n] {
			t.Fatalf("%d: plain %d", n, plainSize(n))
		}
	}
}

// C1, C2.
func TestSameBytesSameObject(t *testing.T) {
	k := newKey(t)
	seal := func(name, data string) string {
		o, err := k.object(name, true)
		must(t, err)
		return string(o.seal(nil, []byte(data)))
	}
	if a, b := seal("a", "x"), seal("a", "x"); a != b {
		t.Error("the same object is sealed differently")
	}
	nonce := func(s string) string { return s[headerBytes : headerBytes+nonceBytes] }
	if a, b := seal("a", "x"), seal("a", "y"); nonce(a) == nonce(b) {
		t.Error("one nonce for two contents")
	}
	if a, b := seal("a", "x"), seal("b", "x"); a[headerBytes:] == b[headerBytes:] {
		t.Error("two objects sealed with one key")
	}
}

// C3: every byte of an object, changed, is noticed; so are pieces that changed places.
func TestTampering(t *testing.T) {
	raw := below(t)
	s := open(t, raw, newKey(t))
	data := backendtest.Data(1, 10_000)
	must(t, s.Put(t.Context(), "o", data))
	good, err := raw.Get(t.Context(), "o", 1<<20)
	must(t, err)
	check := func(what string, bad []byte) {
		t.Helper()
		must(t, raw.Delete(t.Context(), "o"))
		must(t, raw.Put(t.Context(), "o", bad))
		got, err := s.Get(t.Context(), "o", 1<<20)
		if !errors.Is(err, backend.ErrCorrupt) && !errors.Is(err, ErrKey) {
			t.Fatalf("%s: get: %d bytes, error %v", what, len(got), err)
		}
		p := make([]byte, 9000)
		if err := s.ReadAt(t.Context(), "o", p, 500); err == nil && !bytes.Equal(p, data[500:9500]) {
			t.Fatalf("%s: read gave wrong bytes", what)
		}
	}
	for i := 0; i < len(good); i += 1 + i/64 {
		if i >= 5 && i < 8 {
			continue // kept for later versions
		}
		bad := bytes.Clone(good)
		bad[i] ^= 1 << (i % 8)
		check(fmt.Sprintf("byte %d", i), bad)
	}
	check("cut at a piece", good[:headerBytes+sealedBytes])
	check("cut", good[:len(good)-1])
	check("empty", nil)
	swapped := bytes.Clone(good)
	copy(swapped[headerBytes:], good[headerBytes+sealedBytes:headerBytes+2*sealedBytes])
	copy(swapped[headerBytes+sealedBytes:], good[headerBytes:headerBytes+sealedBytes])
	check("swapped", swapped)
	must(t, s.Put(t.Context(), "other", backendtest.Data(2, 10_000)))
	foreign, err := raw.Get(t.Context(), "other", 1<<20)
	must(t, err)
	check("of another object", foreign)
}

// C4.
func TestKeys(t *testing.T) {
	raw := below(t)
	k := newKey(t)
	if id, err := MadeWith(t.Context(), raw); err != nil || id != "" {
		t.Fatalf("an empty store is made with %q, %v", id, err)
	}
	s := open(t, raw, k, "root")
	must(t, s.Put(t.Context(), "root", []byte("plain")))
	must(t, s.Put(t.Context(), "v/x", []byte("secret")))
	if b, err := raw.Get(t.Context(), "root", 100); err != nil || string(b) != "plain" {
		t.Errorf("the plain object: %q, %v", b, err)
	}
	again := open(t, raw, k, "root")
	if b, err := again.Get(t.Context(), "v/x", 100); err != nil || string(b) != "secret" {
		t.Errorf("opened again: %q, %v", b, err)
	}
	if _, err := Open(t.Context(), raw, newKey(t), "root"); !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), k.ID()) {
		t.Errorf("opened with another key: %v", err)
	}
	if id, err := MadeWith(t.Context(), raw); err != nil || id != k.ID() {
		t.Errorf("made with %q, %v", id, err)
	}
	all, err := s.List(t.Context(), "", "", 1)
	must(t, err)
	if len(all) != 1 || all[0].Name != "root" {
		t.Errorf("first page: %+v", all)
	}
	if err := s.Delete(t.Context(), keyObject); !errors.Is(err, backend.ErrInvalidName) {
		t.Errorf("delete of the key object: %v", err)
	}
	used := below(t)
	must(t, used.Put(t.Context(), "a", []byte("b")))
	for what, open := range map[string]func(context.Context, backend.Store, Key, ...string) (*Store, error){"create": Create, "open": Open} {
		if _, err := open(t.Context(), used, k); !errors.Is(err, ErrKey) {
			t.Errorf("%s a store with plain objects: %v", what, err)
		}
	}
	if _, err := Open(t.Context(), below(t), k); !errors.Is(err, ErrKey) {
		t.Errorf("open an empty store: %v", err)
	}
}

// lagging lists nothing.
type lagging struct{ backend.Store }

func (lagging) List(context.Context, string, string, int) ([]backend.Info, error) { return nil, nil }

// C4: what another vPool has, encrypted or not, stays as it is, whatever a list shows; a
// creation that was cut off is no other vPool.
func TestCreateBesideOthers(t *testing.T) {
	first, second := newKey(t), newKey(t)
	for name, make := range map[string]func(raw backend.Store){
		"plain": func(raw backend.Store) { must(t, raw.Put(t.Context(), "root", []byte("other"))) },
		"encrypted": func(raw backend.Store) {
			must(t, open(t, raw, first, "root").Put(t.Context(), "root", []byte("other")))
		},
	} {
		raw := below(t)
		make(raw)
		before, err := raw.List(t.Context(), "", "", 10)
		must(t, err)
		for _, s := range []backend.Store{raw, lagging{raw}} {
			if _, err := Create(t.Context(), s, second, "root"); !errors.Is(err, ErrKey) {
				t.Errorf("%s: %v, want ErrKey", name, err)
			}
		}
		if after, err := raw.List(t.Context(), "", "", 10); err != nil || !slices.Equal(after, before) {
			t.Errorf("%s: %v became %v, %v", name, before, after, err)
		}
	}
	raw := below(t)
	open(t, raw, first, "root") // and nothing came after
	open(t, raw, second, "root")
	if id, err := MadeWith(t.Context(), raw); err != nil || id != second.ID() {
		t.Errorf("made with %s, %v", id, err)
	}
}

func TestKeyText(t *testing.T) {
	k := newKey(t)
	got, err := ParseKey(" " + k.Text() + "\n")
	if err != nil || got != k {
		t.Fatalf("read back %v, %v", got, err)
	}
	if s := fmt.Sprintf("%v %+v %#v %s", k, k, k, k); strings.Contains(s, k.Text()[len(keyText):]) {
		t.Error("a key prints its secret")
	}
	for _, bad := range []string{"", k.Text()[1:], k.Text() + "0", "ovgate-key-zz", strings.Repeat("a", 1<<16)} {
		if _, err := ParseKey(bad); err == nil || len(err.Error()) > 200 {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
}

// counting counts reads.
type counting struct {
	backend.Store
	reads atomic.Int64
}

func (c *counting) ReadAt(ctx context.Context, name string, p []byte, off int64) error {
	c.reads.Add(1)
	return c.Store.ReadAt(ctx, name, p, off)
}

// A read inside an object is one request.
func TestOneRequest(t *testing.T) {
	c := &counting{Store: below(t)}
	s := open(t, c, newKey(t))
	must(t, s.Put(t.Context(), "o", make([]byte, 1<<20+1)))
	for _, off := range []int64{0, 4096, 65_664, 1<<20 - 4097} {
		c.reads.Store(0)
		must(t, s.ReadAt(t.Context(), "o", make([]byte, 4096), off))
		if n := c.reads.Load(); n != 1 {
			t.Errorf("offset %d: %d requests", off, n)
		}
	}
}

func FuzzOpen(f *testing.F) {
	k := keyOf(make([]byte, KeyBytes))
	o, err := k.object("o", true)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(o.seal(nil, make([]byte, 5000)))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		raw := below(t)
		must(t, raw.Put(t.Context(), "o", b))
		s := &Store{Store: raw, key: k}
		if got, err := s.Get(t.Context(), "o", 1<<20); err == nil && int64(len(b)) != sealedSize(int64(len(got))) {
			t.Errorf("%d bytes opened as %d", len(b), len(got))
		}
		_ = s.ReadAt(t.Context(), "o", make([]byte, 100), 50)
	})
}

func BenchmarkPut(b *testing.B)  { benchmark(b, 16<<20, false) }
func BenchmarkRead(b *testing.B) { benchmark(b, 4096, true) }

func benchmark(b *testing.B, size int, read bool) {
	k := keyOf(make([]byte, KeyBytes))
	data := backendtest.Data(1, size)
	b.SetBytes(int64(size))
	for b.Loop() {
		o, err := k.object("v/x/sco/1", true)
		if err != nil {
			b.Fatal(err)
		}
		sealed := o.seal(make([]byte, 0, sealedSize(int64(size))), data)
		if read {
			if _, err := o.open(nil, sealed[headerBytes:], 0); err != nil {
				b.Fatal(err)
			}
		}
	}
}
