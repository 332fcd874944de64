package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"github.com/openvstorage/ovgate/internal/clock"
)

const (
	// maxKeys bounds the keys of a provider; during a change it has a few.
	maxKeys = 64
	// keysEvery bounds how often keys are asked for, whatever signatures come.
	keysEvery = 10 * time.Second
	// keysLimit is how long keys count without being seen again.
	keysLimit = time.Hour
)

// algorithms are those of signatures that are accepted: asymmetric ones, so that neither
// "none" nor a MAC with a public key passes (D1).
var algorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

// keySet are the keys of a provider; it implements go-oidc's KeySet. A key that is not known
// makes it look once more, at most every keysEvery.
type keySet struct {
	url    string
	client *http.Client
	clock  clock.Clock

	mu    sync.Mutex // held while the provider is asked: others wait for the same answer
	keys  []jose.JSONWebKey
	asked time.Time // zero: never
	seen  time.Time // when keys came
}

// VerifySignature returns the payload of a token that a key of the provider signed.
func (k *keySet) VerifySignature(ctx context.Context, token string) ([]byte, error) {
	sig, err := jose.ParseSignedCompact(token, algorithms)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.clock.Now()
	if now.Sub(k.seen) < keysLimit {
		if payload, ok := k.tryLocked(sig); ok {
			return payload, nil
		}
	}
	if !k.asked.IsZero() && now.Sub(k.asked) < keysEvery {
		return nil, errors.New("no key that is known signed it, and the keys were read a moment ago")
	}
	if err := k.readLocked(ctx, now); err != nil {
		return nil, err
	}
	if payload, ok := k.tryLocked(sig); ok {
		return payload, nil
	}
	return nil, errors.New("none of the provider's keys signed it")
}

func (k *keySet) tryLocked(sig *jose.JSONWebSignature) ([]byte, bool) {
	h := sig.Signatures[0].Header // a compact one has one
	for _, key := range k.keys {
		if h.KeyID != "" && key.KeyID != h.KeyID || key.Algorithm != "" && key.Algorithm != h.Algorithm {
			continue
		}
		if payload, err := sig.Verify(&key); err == nil {
			return payload, true
		}
	}
	return nil, false
}

// ready makes sure that keys are known which count.
func (k *keySet) ready(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.clock.Now()
	switch {
	case now.Sub(k.seen) < keysLimit:
		return nil
	case !k.asked.IsZero() && now.Sub(k.asked) < keysEvery:
		return errors.New("its keys could not be read a moment ago")
	}
	return k.readLocked(ctx, now)
}

// read reads the keys, and returns how many can be used.
func (k *keySet) read(ctx context.Context) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	err := k.readLocked(ctx, k.clock.Now())
	return len(k.keys), err
}

func (k *keySet) readLocked(ctx context.Context, now time.Time) error {
	k.asked = now
	body, err := get(ctx, k.client, k.url, "")
	if err != nil {
		return fmt.Errorf("read its keys: %w", err)
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &set); err != nil {
		return errors.New("its keys are not a JSON object")
	}
	if len(set.Keys) > maxKeys {
		return fmt.Errorf("it has %d keys, and at most %d are read", len(set.Keys), maxKeys)
	}
	var keys []jose.JSONWebKey
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		// Kinds of keys that are not known are for somebody else.
		if json.Unmarshal(raw, &key) == nil && key.Valid() && key.IsPublic() && (key.Use == "" || key.Use == "sig") {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return errors.New("it has no key for signatures")
	}
	k.keys, k.seen = keys, now
	return nil
}

// get reads the answer of an endpoint; token empty: without one.
func get(ctx context.Context, c *http.Client, url, token string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/json")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := c.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers %d", res.StatusCode)
	}
	return io.ReadAll(res.Body)
}
