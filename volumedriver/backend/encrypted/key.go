package encrypted

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
)

// KeyBytes is the length of a vPool's key.
const KeyBytes = 32

// keyText begins a key as people keep it.
const keyText = "ovgate-key-"

// ErrKey: not the key that the store was made with, or none where one is needed.
var ErrKey = errors.New("backend: wrong key")

// Key is a vPool's key.
type Key struct {
	secret [KeyBytes]byte
	id     [8]byte
}

// NewKey draws a key.
func NewKey(rand io.Reader) (Key, error) {
	b := make([]byte, KeyBytes)
	if _, err := io.ReadFull(rand, b); err != nil {
		return Key{}, fmt.Errorf("draw a key: %w", err)
	}
	return keyOf(b), nil
}

func keyOf(b []byte) Key {
	k := Key{secret: [KeyBytes]byte(b)}
	copy(k.id[:], k.derive("id", ""))
	return k
}

// ParseKey reads what Text wrote. The error does not repeat it.
func ParseKey(s string) (Key, error) {
	hexed, ok := strings.CutPrefix(strings.TrimSpace(s), keyText)
	b, err := hex.DecodeString(hexed)
	if !ok || err != nil || len(b) != KeyBytes {
		return Key{}, fmt.Errorf("a key is %q and %d hexadecimal digits", keyText, 2*KeyBytes)
	}
	return keyOf(b), nil
}

// Text is the key as people keep it: a secret.
func (k Key) Text() string { return keyText + hex.EncodeToString(k.secret[:]) }

// ID names a key without telling it.
func (k Key) ID() string { return hex.EncodeToString(k.id[:]) }

// String keeps the key out of logs.
func (k Key) String() string { return "key " + k.ID() }

// GoString keeps the key out of logs.
func (k Key) GoString() string { return k.String() }

// derive returns 32 bytes for a purpose and an object.
func (k Key) derive(purpose, name string) []byte {
	h := hmac.New(sha256.New, k.secret[:])
	h.Write([]byte("ovgate " + purpose + "\x00" + name))
	return h.Sum(nil)
}

// object seals and opens the pieces of one object.
type object struct {
	key   Key
	name  string
	aead  cipher.AEAD
	nonce []byte // key that nonces come from; nil: only opens
}

func (k Key) object(name string, seal bool) (*object, error) {
	b, err := aes.NewCipher(k.derive("piece", name))
	if err != nil {
		return nil, err
	}
	g, err := cipher.NewGCM(b)
	if err != nil {
		return nil, err
	}
	o := &object{key: k, name: name, aead: g}
	if seal {
		o.nonce = k.derive("nonce", name)
	}
	return o, nil
}

// mac is that of a header.
func (o *object) mac(head []byte) []byte {
	h := hmac.New(sha256.New, o.key.derive("header", o.name))
	h.Write(head)
	return h.Sum(nil)[:macBytes]
}

// seal appends all of an object to dst, which has room for it.
func (o *object) seal(dst, plain []byte) []byte {
	dst = append(dst, magic...)
	dst = append(dst, version, 0, 0, 0)
	dst = append(dst, o.key.id[:]...)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(len(plain)))
	dst = append(dst, o.mac(dst)...)
	h := hmac.New(sha256.New, o.nonce)
	var number [8]byte
	var sum [sha256.Size]byte
	for i := uint64(0); len(plain) > 0; i++ {
		piece := plain[:min(len(plain), pieceBytes)]
		plain = plain[len(piece):]
		binary.LittleEndian.PutUint64(number[:], i)
		h.Reset()
		h.Write(number[:])
		h.Write(piece)
		nonce := h.Sum(sum[:0])[:nonceBytes]
		dst = append(dst, nonce...)
		dst = o.aead.Seal(dst, nonce, piece, number[:])
	}
	return dst
}

// size checks a header and returns the plain size of its object.
func (o *object) size(head []byte) (int64, error) {
	switch {
	case len(head) < headerBytes || string(head[:4]) != magic:
		return 0, fmt.Errorf("%w %s: it is not encrypted", errDamaged, o.name)
	case head[4] != version:
		return 0, fmt.Errorf("%w %s: encrypted in format %d, this version knows %d: upgrade ovgate", errDamaged, o.name, head[4], version)
	case [8]byte(head[8:16]) != o.key.id:
		return 0, fmt.Errorf("%w: object %s is encrypted with key %x, this is key %x", ErrKey, o.name, head[8:16], o.key.id)
	case !hmac.Equal(head[24:headerBytes], o.mac(head[:24])):
		return 0, fmt.Errorf("%w %s: its header does not verify", errDamaged, o.name)
	}
	n := binary.LittleEndian.Uint64(head[16:])
	if n > maxPlain {
		return 0, fmt.Errorf("%w %s: size %d", errDamaged, o.name, n)
	}
	return int64(n), nil
}

// open decrypts pieces from number first on and appends them to dst.
func (o *object) open(dst, sealed []byte, first int64) ([]byte, error) {
	var number [8]byte
	for i := uint64(first); len(sealed) > 0; i++ {
		piece := sealed[:min(len(sealed), sealedBytes)]
		sealed = sealed[len(piece):]
		if len(piece) <= overhead {
			return nil, fmt.Errorf("%w %s: piece %d is cut", errDamaged, o.name, i)
		}
		binary.LittleEndian.PutUint64(number[:], i)
		var err error
		if dst, err = o.aead.Open(dst, piece[:nonceBytes], piece[nonceBytes:], number[:]); err != nil {
			return nil, fmt.Errorf("%w %s: piece %d does not verify", errDamaged, o.name, i)
		}
	}
	return dst, nil
}
