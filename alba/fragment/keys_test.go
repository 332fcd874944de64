package fragment

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

func mustWrapKey(t testing.TB, seed byte) WrapKey {
	t.Helper()
	w, err := NewWrapKey(bytes.Repeat([]byte{seed}, KeyBytes))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func nonces(seed byte) io.Reader { return bytes.NewReader(bytes.Repeat([]byte{seed}, 12)) }

func TestWrap(t *testing.T) {
	old, next, data := mustWrapKey(t, 1), mustWrapKey(t, 2), mustKey(t, 3)
	w, err := Wrap(nonces(7), old, *data, "gold")
	if err != nil || len(w) != WrappedBytes {
		t.Fatal(len(w), err)
	}
	got, err := Unwrap(old, w, "gold")
	if err != nil || got.ID() != data.ID() || *got.secret() != *data.secret() {
		t.Fatal(err)
	}

	var wrong *WrongKeyError
	if _, err = Unwrap(next, w, "gold"); !errors.As(err, &wrong) || !errors.Is(err, ErrWrongKey) || wrong.Have != next.ID() || wrong.Need != old.ID() {
		t.Fatal(err)
	}
	for _, part := range []string{old.ID().String(), next.ID().String(), `"gold"`, "key file"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%v: does not name %s", err, part)
		}
	}

	// rotation
	w2, err := Wrap(nonces(8), next, got, "gold")
	if err != nil {
		t.Fatal(err)
	}
	if id, err := WrappedWith(w2); err != nil || id != next.ID() {
		t.Error(id, err)
	}
	if got, err = Unwrap(next, w2, "gold"); err != nil || got.ID() != data.ID() {
		t.Fatal(err)
	}

	if _, err := Unwrap(old, w, "silver"); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "silver") {
		t.Error(err)
	}
	for i := range w {
		bad := bytes.Clone(w)
		bad[i] ^= 0x10
		if _, err := Unwrap(old, bad, "gold"); !errors.Is(err, ErrCorrupt) && !(i >= 1 && i <= 16 && errors.Is(err, ErrWrongKey)) {
			t.Errorf("byte %d: %v", i, err)
		}
		if _, err := Unwrap(old, w[:i], "gold"); !errors.Is(err, ErrCorrupt) {
			t.Errorf("cut to %d: %v", i, err)
		}
	}
	if _, err := Unwrap(old, append(bytes.Clone(w), 0), "gold"); !errors.Is(err, ErrCorrupt) {
		t.Error(err)
	}
	if _, err := Wrap(bytes.NewReader(make([]byte, 11)), old, *data, "gold"); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
	for _, err := range []error{
		func() error { _, err := Wrap(nonces(1), WrapKey{}, *data, "x"); return err }(),
		func() error { _, err := Wrap(nonces(1), old, Key{}, "x"); return err }(),
		func() error { _, err := Unwrap(WrapKey{}, w, "x"); return err }(),
	} {
		if !errors.Is(err, ErrKey) {
			t.Error(err)
		}
	}
}

func TestKeyLimits(t *testing.T) {
	for _, b := range [][]byte{nil, make([]byte, 31), bytes.Repeat([]byte{1}, 33), make([]byte, 32)} {
		if _, err := NewKey(b); !errors.Is(err, ErrInvalid) {
			t.Errorf("%d bytes: %v", len(b), err)
		}
		if _, err := NewWrapKey(b); !errors.Is(err, ErrInvalid) {
			t.Errorf("%d bytes: %v", len(b), err)
		}
	}
	secret := bytes.Repeat([]byte{9}, 32)
	k, err := NewKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	id := k.ID()
	clear(secret)
	if k.ID() != id {
		t.Error("the caller's bytes are kept")
	}
	if id == (KeyID{}) || id == mustWrapKey(t, 9).ID() || (Key{}).ID() != (KeyID{}) {
		t.Error("ids")
	}
}

// TestKeysDoNotPrint tries what logs and dumps do, in structs that hide the methods of a key.
func TestKeysDoNotPrint(t *testing.T) {
	k, w := mustKey(t, 0xab), mustWrapKey(t, 0xab)
	type holder struct {
		k  Key
		p  *Key
		w  WrapKey
		in struct{ K Key }
	}
	h := holder{k: *k, p: k, w: w}
	h.in.K = *k
	var out strings.Builder
	for _, v := range []any{*k, k, w, &w, h, &h, []Key{*k}, map[string]Key{"a": *k}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%d", "%q", "%p"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		j, err := json.Marshal(v)
		fmt.Fprintln(&out, string(j), err)
	}
	for _, leak := range []string{"abab", "ABAB", "171 171", "171, 171", "0xab, 0xab"} {
		if strings.Contains(out.String(), leak) {
			t.Errorf("%q is printed", leak)
		}
	}
	if got := fmt.Sprint(*k); got != "data key "+k.ID().String() {
		t.Error(got)
	}
	if got := fmt.Sprint(w); got != "wrap key "+w.ID().String() {
		t.Error(got)
	}
}

// TestObjectKeys: what a key remembers is bounded, and never another object's.
func TestObjectKeys(t *testing.T) {
	key := mustKey(t, 7)
	pack := func(key *Key, i int) []byte {
		id := testID
		id.Object[0], id.Object[1] = byte(i), byte(i>>8)
		stored, _ := mustPackIn(t, PieceSize(i%3), id, []byte("the same"), Compression(i%2), key)
		return stored
	}
	for range 2 {
		for i := range objectKeysMax + 100 {
			if fresh := mustKey(t, 7); !bytes.Equal(pack(key, i), pack(fresh, i)) {
				t.Fatalf("object %d is sealed differently by a key that knows others", i)
			}
		}
	}
	if n := len(key.objects().known); n != objectKeysMax {
		t.Errorf("%d ciphers are remembered", n)
	}
	if bytes.Equal(pack(key, 0), pack(mustKey(t, 8), 0)) {
		t.Error("two keys seal alike")
	}
}
