package control

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
)

// SealKeySize is the length of the node's sealing key, in bytes (AES-256).
const SealKeySize = 32

// sealVersion is the first byte of what Seal returns:
//
//	version (1) | nonce (12) | AES-256-GCM(plain, additional data: object id) + tag (16)
const sealVersion = 1

// ErrSeal: a sealed value cannot be opened with this node's key.
var ErrSeal = errors.New("sealed value does not open with this node's seal.key")

// Sealer encrypts small secrets for storage in the model (C5).
type Sealer struct {
	aead cipher.AEAD
	mac  []byte // key of Digest
}

// NewSealer returns a Sealer for a key of SealKeySize bytes.
func NewSealer(key []byte) (*Sealer, error) {
	if len(key) != SealKeySize {
		return nil, fmt.Errorf("seal.key has %d bytes, want %d", len(key), SealKeySize)
	}
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	g, err := cipher.NewGCM(b)
	if err != nil {
		return nil, err
	}
	h := hmac.New(sha256.New, key)
	h.Write([]byte("ovgate digest")) // a key of its own for another purpose
	return &Sealer{g, h.Sum(nil)}, nil
}

// Digest returns a keyed hash of data in hex, for comparing what may hold a
// password without keeping something to guess at.
func (s *Sealer) Digest(data []byte) string {
	h := hmac.New(sha256.New, s.mac)
	h.Write(data)
	return hex.EncodeToString(h.Sum(nil))
}

// Seal encrypts plain for the object with this id; only Open with the same id
// accepts the result.
func (s *Sealer) Seal(id, plain string) ([]byte, error) {
	out := make([]byte, 1+s.aead.NonceSize())
	out[0] = sealVersion
	if _, err := rand.Read(out[1:]); err != nil {
		return nil, fmt.Errorf("draw a nonce: %w", err)
	}
	return s.aead.Seal(out, out[1:], []byte(plain), []byte(id)), nil
}

// Open decrypts what Seal returned.
func (s *Sealer) Open(id string, sealed []byte) (string, error) {
	n := 1 + s.aead.NonceSize()
	if len(sealed) < n || sealed[0] != sealVersion {
		return "", ErrSeal
	}
	plain, err := s.aead.Open(nil, sealed[1:n], sealed[n:], []byte(id))
	if err != nil {
		return "", ErrSeal
	}
	return string(plain), nil
}
