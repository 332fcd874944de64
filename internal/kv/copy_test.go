package kv_test

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/internal/kv"
)

// TestCopy: what is below a prefix, of any size, is the same in another store afterwards;
// Same finds each way in which it is not.
func TestCopy(t *testing.T) {
	ctx := t.Context()
	open := func(name string) *kv.Bolt {
		s, err := kv.OpenBolt(filepath.Join(t.TempDir(), name), kv.BoltOptions{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		return s
	}
	set := func(s kv.Store, ops ...kv.Op) {
		t.Helper()
		if _, err := s.Txn(ctx, nil, ops, nil); err != nil {
			t.Fatal(err)
		}
	}
	from, to := open("from"), open("to")
	fill := kv.Batches{To: from}
	for i := range 700 {
		value := bytes.Repeat([]byte{byte(i)}, i%40*100)
		if i%50 == 0 {
			value = bytes.Repeat([]byte{byte(i)}, 384<<10)
		}
		if err := fill.Add(ctx, kv.Put(fmt.Sprintf("a/%04d", i), value)); err != nil {
			t.Fatal(err)
		}
	}
	if err := fill.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	set(from, kv.Put("b/1", []byte("x")))
	set(to, kv.Put("a/0003x", []byte("left over")), kv.Put("c/1", []byte("stays")))
	if err := kv.Same(ctx, from, to, "a/", nil); err == nil {
		t.Error("an empty copy is the same")
	}
	if err := kv.Wipe(ctx, to, "a/", nil); err != nil {
		t.Fatal(err)
	}
	cut := errors.New("cut")
	n := 0
	err := kv.Copy(ctx, from, to, "a/", func(kv.KV) (bool, error) {
		if n++; n > 300 {
			return false, cut
		}
		return true, nil
	})
	if !errors.Is(err, cut) {
		t.Errorf("cut off: %v", err)
	}
	if err := kv.Same(ctx, from, to, "a/", nil); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("half a copy: %v", err)
	}
	if err := kv.Copy(ctx, from, to, "a/", nil); err != nil {
		t.Fatal(err)
	}
	if err := kv.Same(ctx, from, to, "a/", nil); err != nil {
		t.Error(err)
	}
	was, err := to.Get(ctx, "a/0100")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name        string
		broken, fix kv.Op
	}{
		{"changed", kv.Put("a/0100", []byte("other")), kv.Put("a/0100", was.Value)},
		{"added", kv.Put("a/0100x", nil), kv.Delete("a/0100x")},
		{"added at the end", kv.Put("a/9", nil), kv.Delete("a/9")},
		{"removed", kv.Delete("a/0100"), kv.Put("a/0100", was.Value)},
		{"removed at the end", kv.Delete("a/0699"), kv.Put("a/0699", nil)},
	} {
		set(to, c.broken)
		if err := kv.Same(ctx, from, to, "a/", nil); err == nil {
			t.Errorf("%s, and the same", c.name)
		}
		set(to, c.fix)
	}
	if rec, err := to.Get(ctx, "c/1"); err != nil || rec == nil {
		t.Errorf("what is beside the prefix: %v, %v", rec, err)
	}
	if rec, err := to.Get(ctx, "b/1"); err != nil || rec != nil {
		t.Errorf("what is beside the prefix was copied: %v, %v", rec, err)
	}
}
