package auth

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
)

// argon2id parameters: 46 MiB, one pass, one lane, the OWASP setting with the
// least work for the processor beside the data path. They are stored with each
// hash, so that they can grow.
const (
	argonMemoryKiB = 46 << 10
	argonPasses    = 1
	argonLanes     = 1
	argonKey       = 32 // bytes
	argonSalt      = 16 // bytes
	// hashSlots bounds argon2id runs at once, thus memory to 2 x 46 MiB.
	hashSlots = 2
	// Bounds of parameters read back, so that a damaged record cannot ask for
	// all memory.
	argonMemoryMaxKiB = 1 << 20
	argonPassesMax    = 16
)

// Bounds of a password, in characters and bytes: the API's minLength and
// maxLength, above what NIST SP 800-63B asks for; the upper bound keeps the
// first hash over it cheap.
const (
	MinPassword      = 10
	maxPasswordBytes = 4096
)

func checkNewPassword(user, p string) error {
	if utf8.RuneCountInString(p) < MinPassword {
		return &FieldError{"password", objectOf("user", user), fmt.Sprintf("the password has fewer than %d characters", MinPassword), "choose a longer one"}
	}
	if len(p) > maxPasswordBytes {
		return &FieldError{"password", objectOf("user", user), fmt.Sprintf("the password is longer than %d bytes", maxPasswordBytes), "choose a shorter one"}
	}
	return nil
}

// hasher runs argon2id with bounded concurrency (A4).
type hasher chan struct{}

func newHasher() hasher { return make(hasher, hashSlots) }

func (h hasher) acquire(ctx context.Context) error {
	select {
	case h <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// hash returns the PHC string of a password.
func (h hasher) hash(ctx context.Context, password string) (string, error) {
	if err := h.acquire(ctx); err != nil {
		return "", err
	}
	defer func() { <-h }()
	salt := make([]byte, argonSalt)
	if _, err := rand.Read(salt); err != nil {
		return "", fmt.Errorf("draw a salt: %w", err)
	}
	key := argon2.IDKey([]byte(password), salt, argonPasses, argonMemoryKiB, argonLanes, argonKey)
	b64 := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemoryKiB, argonPasses, argonLanes, b64(salt), b64(key)), nil
}

// verify compares a password with a PHC string in constant time.
func (h hasher) verify(ctx context.Context, password, phc string) (bool, error) {
	p, err := parsePHC(phc)
	if err != nil {
		return false, err
	}
	if err := h.acquire(ctx); err != nil {
		return false, err
	}
	defer func() { <-h }()
	key := argon2.IDKey([]byte(password), p.salt, p.passes, p.memory, p.lanes, uint32(len(p.key)))
	return subtle.ConstantTimeCompare(key, p.key) == 1, nil
}

type phc struct {
	memory, passes uint32
	lanes          uint8
	salt, key      []byte
}

func parsePHC(s string) (phc, error) {
	var p phc
	var version int
	parts := strings.Split(s, "$")
	bad := fmt.Errorf("stored password hash is damaged: set the password again")
	if len(parts) != 6 || parts[1] != "argon2id" {
		return p, bad
	}
	if _, err := fmt.Sscanf(parts[2], "v=%d", &version); err != nil || version != argon2.Version {
		return p, bad
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &p.memory, &p.passes, &p.lanes); err != nil {
		return p, bad
	}
	var err1, err2 error
	p.salt, err1 = base64.RawStdEncoding.DecodeString(parts[4])
	p.key, err2 = base64.RawStdEncoding.DecodeString(parts[5])
	if err1 != nil || err2 != nil || len(p.key) != argonKey || len(p.salt) != argonSalt ||
		p.memory == 0 || p.memory > argonMemoryMaxKiB || p.passes == 0 || p.passes > argonPassesMax || p.lanes == 0 {
		return p, bad
	}
	return p, nil
}
