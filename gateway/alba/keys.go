package alba

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"

	"github.com/openvstorage/ovgate/alba/fragment"
	"github.com/openvstorage/ovgate/internal/kv"
)

// keys are the data keys of encrypted presets, wrapped in the registry:
//
//	alba/k/<id>    fragment.Wrap of the key with this id
type keys struct {
	store kv.Store
	path  string // of the wrapping key
	mu    sync.Mutex
	wrap  fragment.WrapKey
	known map[string]*fragment.Key
}

const keysPrefix = "alba/k/"

// openKeys reads the wrapping key, drawing it at the first start.
func openKeys(path string, store kv.Store) (*keys, error) {
	k := &keys{store: store, path: path, known: map[string]*fragment.Key{}}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		// Without it nothing encrypted can be read: never made anew beside wrapped keys.
		have, _, rerr := store.Range(context.Background(), keysPrefix, "", 1)
		if rerr != nil {
			return nil, rerr
		}
		if len(have) > 0 {
			return nil, fmt.Errorf("%s is missing, and there are data keys wrapped with it: bring it back from a copy", path)
		}
		secret := make([]byte, fragment.KeyBytes)
		if _, err := rand.Read(secret); err != nil {
			return nil, err
		}
		b = []byte(hex.EncodeToString(secret) + "\n")
		err = writeSecret(path, b)
	}
	if err != nil {
		return nil, err
	}
	k.wrap, err = parseWrap(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: bring it back from a copy", path, err)
	}
	return k, nil
}

func parseWrap(b []byte) (fragment.WrapKey, error) {
	secret, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil {
		return fragment.WrapKey{}, fmt.Errorf("it is not %d hexadecimal digits", 2*fragment.KeyBytes)
	}
	return fragment.NewWrapKey(secret)
}

// writeSecret writes a file that only the owner reads, durably.
func writeSecret(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	d, err := os.Open(path[:strings.LastIndexByte(path, '/')])
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// get returns a data key.
func (k *keys) get(id string) (*fragment.Key, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if key := k.known[id]; key != nil {
		return key, nil
	}
	rec, err := k.store.Get(context.Background(), keysPrefix+id)
	if err != nil {
		return nil, err
	}
	if rec == nil {
		return nil, fmt.Errorf("data key %s is not in the metadata store", id)
	}
	key, err := fragment.Unwrap(k.wrap, rec.Value, id)
	if err != nil {
		return nil, err
	}
	k.known[id] = &key
	return &key, nil
}

// make draws a data key and returns its id.
func (k *keys) make(ctx context.Context) (string, error) {
	secret := make([]byte, fragment.KeyBytes)
	if _, err := rand.Read(secret); err != nil {
		return "", err
	}
	key, err := fragment.NewKey(secret)
	if err != nil {
		return "", err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	id := key.ID().String()
	wrapped, err := fragment.Wrap(rand.Reader, k.wrap, key, id)
	if err != nil {
		return "", err
	}
	_, err = k.store.Txn(ctx, nil, []kv.Op{kv.Put(keysPrefix+id, wrapped)}, nil)
	if err == nil {
		k.known[id] = &key
	}
	return id, err
}
