package alba

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"

	"github.com/openvstorage/ovgate/alba/fragment"
	"github.com/openvstorage/ovgate/internal/kv"
)

// settleSealed takes the wrapping key from the registry. The first node of a cluster puts
// it there: the one that is in its file, or, where nothing is wrapped (W2), one that it
// draws.
func (k *keys) settleSealed(ctx context.Context) error {
	for {
		need, err := k.needs(ctx)
		if err != nil {
			return err
		}
		rec, err := k.store.Get(ctx, sealedKey)
		if err != nil {
			return err
		}
		if rec != nil {
			now, err := k.unseal(rec)
			if err == nil && need != (fragment.KeyID{}) && now.ID() != need {
				// The two are read one after the other: rotated in between, or not the key.
				again, err := k.needs(ctx)
				if err != nil {
					return err
				}
				if again != need {
					continue
				}
				return fmt.Errorf("record %s holds the wrapping key %v, and the data keys are wrapped with %v: bring the registry back from a copy", sealedKey, now.ID(), need)
			}
			k.wrap = now
			return err
		}
		secret, err := k.firstSecret(need)
		if err != nil {
			return err
		}
		op, err := k.sealed(secret)
		if err != nil {
			return err
		}
		// Whoever was first, the next round takes what is there.
		if _, err := k.store.Txn(ctx, []kv.Compare{kv.Absent(sealedKey)}, []kv.Op{op}, nil); err != nil {
			return err
		}
	}
}

// firstSecret returns the wrapping key to begin with.
func (k *keys) firstSecret(need fragment.KeyID) ([]byte, error) {
	now, secret, err := readSecret(k.path)
	switch {
	case err == nil && (need == (fragment.KeyID{}) || now.ID() == need):
		return secret, nil
	case need == (fragment.KeyID{}) && errors.Is(err, fs.ErrNotExist):
		secret = make([]byte, fragment.KeyBytes)
		_, err := rand.Read(secret)
		return secret, err
	case err == nil:
		err = fmt.Errorf("%s holds the wrapping key %v", k.path, now.ID())
	}
	return nil, fmt.Errorf("the wrapping key %v of the data keys is not in the registry yet, and not on this node: %w: start the node that had the object store first, or bring the file back from a copy", need, err)
}

// unseal opens the record of the wrapping key.
func (k *keys) unseal(rec *kv.KV) (fragment.WrapKey, error) {
	text, err := k.seal.Open(sealedKey, rec.Value)
	if err != nil {
		return fragment.WrapKey{}, fmt.Errorf("record %s: %w", sealedKey, err)
	}
	return parseWrap([]byte(text))
}

func (k *keys) sealed(secret []byte) (kv.Op, error) {
	b, err := k.seal.Seal(sealedKey, hex.EncodeToString(secret))
	return kv.Put(sealedKey, b), err
}

// rotateTries bounds how often a rotation begins anew because of others, each of which
// made a data key or rotated meanwhile: that many at once no cluster has.
const rotateTries = 1000

// rotateSealed draws a new wrapping key in the registry, in one transaction with the data
// keys that it wraps; the lock is held.
func (k *keys) rotateSealed(ctx context.Context) (fragment.KeyID, int, error) {
	for try := 1; ; try++ {
		// Every rotation, and every data key that is made, changes wrapKey: what comes after
		// this is noticed.
		rev, err := k.wrapRev(ctx)
		if err == nil {
			err = k.settle(ctx)
		}
		if err != nil {
			return fragment.KeyID{}, 0, err
		}
		id, n, err := k.rotateOnce(ctx, rev)
		if err == nil || try == rotateTries {
			return id, n, err
		}
		if now, nerr := k.wrapRev(ctx); nerr != nil || now == rev {
			return id, n, errors.Join(err, nerr)
		}
		// Somebody else changed the keys; or this did it, and did not hear so: then another
		// rotation does no harm.
	}
}

// rotateOnce is one attempt, of which wrapKey is to be at rev still.
func (k *keys) rotateOnce(ctx context.Context, rev int64) (fragment.KeyID, int, error) {
	secret := make([]byte, fragment.KeyBytes)
	if _, err := rand.Read(secret); err != nil {
		return fragment.KeyID{}, 0, err
	}
	next, err := fragment.NewWrapKey(secret)
	if err != nil {
		return fragment.KeyID{}, 0, err
	}
	op, err := k.sealed(secret)
	if err != nil {
		return fragment.KeyID{}, 0, err
	}
	recs, err := k.dataKeys(ctx)
	if err != nil {
		return fragment.KeyID{}, 0, err
	}
	if err := k.rewrap(ctx, recs, next, []kv.Compare{kv.ModRevIs(wrapKey, rev)}, []kv.Op{op}); err != nil {
		return fragment.KeyID{}, 0, err
	}
	k.wrap = next
	return next.ID(), len(recs), nil
}
