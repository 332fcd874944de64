package alba

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/alba/fragment"
	"github.com/openvstorage/ovgate/internal/kv"
)

var errCrash = errors.New("crash")

// answerless is a store whose transactions fail: before they happen, or after.
type answerless struct {
	kv.Store
	happens bool
}

func (a answerless) Txn(ctx context.Context, cmps []kv.Compare, then, els []kv.Op) (kv.TxnResult, error) {
	if a.happens {
		if _, err := a.Store.Txn(ctx, cmps, then, els); err != nil {
			return kv.TxnResult{}, err
		}
	}
	return kv.TxnResult{}, errCrash
}

// A rotation that ends at any step leaves a wrapping key that opens every data key,
// and nothing else, for those that go on and for the next start.
func TestRotateCrash(t *testing.T) {
	for _, c := range []struct {
		name    string
		crash   func(k *keys)
		rotated bool
	}{
		{"not at all", func(*keys) {}, true},
		{"key drawn", func(k *keys) { k.step = at("drawn") }, false},
		{"key half written", func(k *keys) {
			k.step = func(string) error { return errors.Join(errCrash, os.Truncate(k.path+newSuffix, 7)) }
		}, false},
		{"transaction failed", func(k *keys) { k.store = answerless{k.store, false} }, false},
		{"transaction without an answer", func(k *keys) { k.store = answerless{k.store, true} }, true},
		{"wrapped", func(k *keys) { k.step = at("wrapped") }, true},
		{"renamed", func(k *keys) { k.step = at("renamed") }, true},
	} {
		for _, data := range []int{0, 1, 20} {
			store := registry(t, t.TempDir())
			path := filepath.Join(t.TempDir(), wrapFile)
			k, err := openKeys(path, store)
			must(t, err)
			var ids []string
			for range data {
				id, err := k.make(t.Context())
				must(t, err)
				ids = append(ids, id)
			}
			was := k.wrap.ID()
			c.crash(k)
			_, n, err := k.rotate(t.Context())
			if c.name == "not at all" && (err != nil || n != data) || c.name != "not at all" && !errors.Is(err, errCrash) {
				t.Fatalf("%s: %d, %v", c.name, n, err)
			}
			k.store, k.step = store, nil
			clear(k.known)
			opens(t, c.name+", going on", k, ids)
			for _, again := range []string{"", "drawn"} { // without a restart, the second time
				if again != "" {
					k.step = at(again)
					if _, _, err := k.rotate(t.Context()); !errors.Is(err, errCrash) {
						t.Fatal(err)
					}
				}
				restarted, err := openKeys(copied(t, path), store)
				must(t, err)
				opens(t, c.name+", started again", restarted, ids)
			}
			k, err = openKeys(path, store)
			must(t, err)
			opens(t, c.name+", started again", k, ids)
			if _, err := os.Stat(path + newSuffix); err == nil {
				t.Errorf("%s: a second key is left", c.name)
			}
			if data > 0 && (k.wrap.ID() != was) != c.rotated {
				t.Errorf("%s: the wrapping key is %v, it was %v", c.name, k.wrap.ID(), was)
			}
			// Made now, by whichever key is in use, and rotated once more.
			id, err := k.make(t.Context())
			must(t, err)
			_, n, err = k.rotate(t.Context())
			if err != nil || n != data+1 {
				t.Fatalf("%s: rotated again: %d, %v", c.name, n, err)
			}
			k, err = openKeys(path, store)
			must(t, err)
			opens(t, c.name+", rotated again", k, append(ids, id))
		}
	}
}

func at(step string) func(string) error {
	return func(what string) error {
		if what == step {
			return errCrash
		}
		return nil
	}
}

// copied returns the path of a copy of a wrapping key's files.
func copied(t *testing.T, path string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), wrapFile)
	for _, suffix := range []string{"", newSuffix} {
		b, err := os.ReadFile(path + suffix)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		must(t, err)
		must(t, os.WriteFile(to+suffix, b, 0o600))
	}
	return to
}

func opens(t *testing.T, when string, k *keys, ids []string) {
	t.Helper()
	for _, id := range ids {
		key, err := k.get(id)
		if err != nil || key.ID().String() != id {
			t.Fatalf("%s: %v", when, err)
		}
	}
}

// Registries of versions without alba/w, files that others can read or that are not
// the one, and more keys than a transaction takes.
func TestRotateRefusals(t *testing.T) {
	store := registry(t, t.TempDir())
	path := filepath.Join(t.TempDir(), "key")
	k, err := openKeys(path, store)
	must(t, err)
	id, err := k.make(t.Context())
	must(t, err)
	_, err = store.Txn(t.Context(), nil, []kv.Op{kv.Delete(wrapKey)}, nil)
	must(t, err)
	former, err := os.ReadFile(path)
	must(t, err)
	k, err = openKeys(path, store)
	must(t, err)
	opens(t, "without a record", k, []string{id})

	must(t, os.Chmod(path, 0o644))
	if _, err := openKeys(path, store); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key for all to read: %v", err)
	}
	must(t, os.Chmod(path, 0o600))
	next, _, err := k.rotate(t.Context())
	must(t, err)
	kept, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, former, 0o600))
	_, err = openKeys(path, store)
	if err == nil || !strings.Contains(err.Error(), next.String()) || strings.Contains(err.Error(), strings.TrimSpace(string(former))) {
		t.Errorf("the former key: %v", err)
	}
	must(t, os.Remove(path))
	if _, err := openKeys(path, store); err == nil || !strings.Contains(err.Error(), "alba_key_file") {
		t.Errorf("no key: %v", err)
	}
	if _, _, err := k.rotate(t.Context()); err == nil {
		t.Error("rotated without the key in use")
	}
	must(t, os.WriteFile(path, kept, 0o600))

	for range kv.MaxTxnOps - 1 {
		_, err := k.make(t.Context())
		must(t, err)
	}
	if _, _, err := k.rotate(t.Context()); !errors.Is(err, ErrManyKeys) {
		t.Errorf("%d keys: %v", kv.MaxTxnOps, err)
	}
	_, err = store.Txn(t.Context(), nil, []kv.Op{kv.Put(wrapKey, []byte("x"))}, nil)
	must(t, err)
	if _, err := openKeys(path, store); err == nil || !strings.Contains(err.Error(), wrapKey) {
		t.Errorf("a damaged record: %v", err)
	}
}

// The wrapping key is where the configuration says.
func TestKeyFile(t *testing.T) {
	dir := t.TempDir()
	s := newService(t, dir, registry(t, dir), Dir{Path: filepath.Join(dir, "a")})
	s.o.KeyFile = filepath.Join(t.TempDir(), "key")
	must(t, s.Open(t.Context()))
	defer s.Close()
	id, _, err := s.RotateKey(t.Context())
	must(t, err)
	w, err := readWrap(s.o.KeyFile)
	must(t, err)
	if w.ID().String() != id || w.ID() == (fragment.KeyID{}) {
		t.Fatalf("%v in the file, %s rotated", w.ID(), id)
	}
	if _, err := os.Stat(filepath.Join(dir, albaDir, wrapFile)); err == nil {
		t.Fatal("another key in the data directory")
	}
}
