package fragment

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

// KeyBytes is the size of data keys and wrap keys: AES-256.
const KeyBytes = 32

// KeyID names a key without telling it: the first 16 bytes of the SHA-256 of a
// label and the key.
type KeyID [16]byte

// String is the id in hex.
func (id KeyID) String() string { return hex.EncodeToString(id[:]) }

// secret hides a key in a closure: fmt and the dumpers of debuggers and tests
// follow pointers, and into fields whose methods they may not call, but not there.
type secret func() *[KeyBytes]byte

// Key is the data key of a preset. It does not print, also not as a part of
// something else. The zero Key is none.
type Key struct {
	secret  secret
	objects func() *objectKeys // hidden like the secret, and shared by copies
}

// NewKey copies a data key of KeyBytes bytes. ErrInvalid: another length, or zeros.
func NewKey(raw []byte) (Key, error) {
	s, err := newSecret(raw)
	objects := &objectKeys{known: map[string]cipher.AEAD{}}
	return Key{s, func() *objectKeys { return objects }}, err
}

// ID names the key; that of the zero Key is zero.
func (k Key) ID() KeyID { return keyID(labelKeyID, k.secret) }

// Format prints "data key" and the id, whatever the verb.
func (k Key) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "data key "+k.ID().String()) }

// WrapKey encrypts data keys, so that those can be kept in metadata. It comes
// from a file of the operator's. The zero WrapKey is none.
type WrapKey struct {
	secret secret
}

// NewWrapKey takes the content of a key file: KeyBytes bytes, nothing else.
// ErrInvalid: another length, or zeros.
func NewWrapKey(file []byte) (WrapKey, error) {
	s, err := newSecret(file)
	return WrapKey{s}, err
}

// ID names the key; that of the zero WrapKey is zero.
func (w WrapKey) ID() KeyID { return keyID(labelWrapID, w.secret) }

// Format prints "wrap key" and the id, whatever the verb.
func (w WrapKey) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "wrap key "+w.ID().String()) }

func newSecret(b []byte) (secret, error) {
	if len(b) != KeyBytes {
		return nil, fmt.Errorf("%w: a key of %d bytes, it has %d", ErrInvalid, len(b), KeyBytes)
	}
	// What a crash leaves of a key file is zeros, often.
	if allZero(b) {
		return nil, fmt.Errorf("%w: the key is all zeros", ErrInvalid)
	}
	s := [KeyBytes]byte(b)
	return func() *[KeyBytes]byte { return &s }, nil
}

func keyID(label string, s secret) (id KeyID) {
	if s == nil {
		return id
	}
	h := sha256.New()
	h.Write([]byte(label))
	h.Write(s()[:])
	copy(id[:], h.Sum(nil))
	return id
}

// A wrapped key is
//
//	┌────┬─────────────┬──────────┬────────────────┬──────────┐
//	│ 01 │ wrap key id │ nonce    │ data key       │ tag      │
//	│    │ 16          │ 12       │ 32, encrypted  │ 16       │
//	└────┴─────────────┴──────────┴────────────────┴──────────┘
//
// sealed with AES-256-GCM; a label, the first 17 bytes and the preset's name are
// additional data.
const (
	wrapVersion   = 1
	wrapHeadBytes = 1 + len(KeyID{})
	wrapNonce     = 12
	// WrappedBytes is the size of a wrapped key.
	WrappedBytes = wrapHeadBytes + wrapNonce + KeyBytes + tagBytes
)

// ErrWrongKey: a data key was wrapped with another wrap key. See WrongKeyError.
var ErrWrongKey = errors.New("fragment: wrong wrap key")

// WrongKeyError names the wrap key that is needed. It matches ErrWrongKey.
type WrongKeyError struct {
	Name       string // of the preset
	Have, Need KeyID
}

func (e *WrongKeyError) Error() string {
	return fmt.Sprintf("%v: the data key of preset %q was wrapped with wrap key %v, the configured one is %v; "+
		"configure the key file of %v again, or restore it from its backup", ErrWrongKey, e.Name, e.Need, e.Have, e.Need)
}

// Is makes errors.Is(err, ErrWrongKey) true.
func (e *WrongKeyError) Is(target error) bool { return target == ErrWrongKey }

// Wrap encrypts data for the preset called name. rand gives the nonce, and is
// read for nothing else. To change the wrap key, Unwrap with the old and Wrap with
// the new one: the data key stays, so no fragment is touched. ErrKey: a key is
// the zero one.
func Wrap(rand io.Reader, wrap WrapKey, data Key, name string) ([]byte, error) {
	if wrap.secret == nil || data.secret == nil {
		return nil, fmt.Errorf("%w: wrapping the data key of preset %q", ErrKey, name)
	}
	aead, err := wrap.aead()
	if err != nil {
		return nil, err
	}
	id := wrap.ID()
	out := make([]byte, 0, WrappedBytes)
	out = append(out, wrapVersion)
	out = append(out, id[:]...)
	nonce := out[wrapHeadBytes : wrapHeadBytes+wrapNonce]
	if _, err := io.ReadFull(rand, nonce); err != nil {
		return nil, fmt.Errorf("fragment: nonce for the data key of preset %q: %w", name, err)
	}
	bound := wrapBound(out, name)
	return aead.Seal(out[:wrapHeadBytes+wrapNonce], nonce, data.secret()[:], bound), nil
}

// Unwrap decrypts the data key of the preset called name. WrongKeyError: it was
// wrapped with another key. ErrCorrupt: it was changed since, or is that of a
// preset with another name. ErrKey: wrap is the zero one.
func Unwrap(wrap WrapKey, wrapped []byte, name string) (Key, error) {
	if wrap.secret == nil {
		return Key{}, fmt.Errorf("%w: unwrapping the data key of preset %q", ErrKey, name)
	}
	need, err := WrappedWith(wrapped)
	if err != nil {
		return Key{}, fmt.Errorf("%w: preset %q", err, name)
	}
	if have := wrap.ID(); have != need {
		return Key{}, &WrongKeyError{Name: name, Have: have, Need: need}
	}
	aead, err := wrap.aead()
	if err != nil {
		return Key{}, err
	}
	head, sealed := wrapped[:wrapHeadBytes], wrapped[wrapHeadBytes:]
	data, err := aead.Open(nil, sealed[:wrapNonce], sealed[wrapNonce:], wrapBound(head, name))
	if err != nil {
		return Key{}, fmt.Errorf("%w: the wrapped data key of preset %q, or it is that of another preset", ErrCorrupt, name)
	}
	return NewKey(data)
}

// WrappedWith returns the id of the wrap key that a data key was wrapped with, so
// that a rotation finds what is left to do. ErrCorrupt: this is no wrapped key.
func WrappedWith(wrapped []byte) (KeyID, error) {
	if len(wrapped) != WrappedBytes || wrapped[0] != wrapVersion {
		return KeyID{}, fmt.Errorf("%w: a wrapped key has %d bytes and begins with %d", ErrCorrupt, WrappedBytes, wrapVersion)
	}
	return KeyID(wrapped[1:wrapHeadBytes]), nil
}

func wrapBound(head []byte, name string) []byte {
	b := append([]byte(labelWrap), head...)
	return append(b, name...)
}

func (w WrapKey) aead() (cipher.AEAD, error) {
	block, err := aes.NewCipher(w.secret()[:])
	if err != nil {
		return nil, fmt.Errorf("fragment: wrap key: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("fragment: wrap key: %w", err)
	}
	return aead, nil
}
