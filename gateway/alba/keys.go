package alba

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/openvstorage/ovgate/alba/fragment"
	"github.com/openvstorage/ovgate/alba/manager"
	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/internal/kv"
)

// keys are the data keys of encrypted presets, wrapped in the registry:
//
//	alba/k/<id>    fragment.Wrap of the key with this id
//	alba/w         id of the wrapping key that they are wrapped with; where it is
//	               missing, as formerly, they say it themselves
//
// and the wrapping key in a file, 64 hexadecimal digits, or, for all nodes of a cluster,
//
//	alba/wk        sealed with the cluster's seal.key
//
// There a rotation is one transaction. That of a file is
//
//	FILE.new is durable → one transaction: alba/k/* and alba/w → FILE.new becomes FILE
//
//	W1  At every instant the key that alba/w names is in FILE or FILE.new. A start
//	    makes it FILE; a FILE.new with another is what a rotation left that did not
//	    happen.
//	W2  A wrapping key is drawn only where there is no data key, or by a rotation.
type keys struct {
	store kv.Store
	path  string // of the wrapping key, or of the one to begin with
	// seal is what the wrapping key in the registry is sealed with; nil: it is in the file.
	seal *control.Sealer
	// given: somebody put the file there, on each node; it is read and nothing else.
	given bool
	mu    sync.Mutex
	wrap  fragment.WrapKey
	known map[string]*fragment.Key
	step  func(what string) error // tests: after each step of a rotation, an error ends it there
}

const (
	keysPrefix = "alba/k/"
	wrapKey    = "alba/w"
	sealedKey  = "alba/wk"
	newSuffix  = ".new"
	// maxWrapFile bounds what is read of a key file, in bytes.
	maxWrapFile = 4096
)

// openKeys reads the wrapping key, drawing it at the first start, and ends a rotation
// that was interrupted.
func openKeys(path string, store kv.Store) (*keys, error) {
	k := &keys{store: store, path: path, known: map[string]*fragment.Key{}}
	return k, k.settle(context.Background())
}

// settle makes the key that the data keys are wrapped with the one in the file, and
// takes it (W1).
func (k *keys) settle(ctx context.Context) error {
	if k.seal != nil {
		return k.settleSealed(ctx)
	}
	need, err := k.needs(ctx)
	if err != nil {
		return err
	}
	now, err := readWrap(k.path)
	absent := errors.Is(err, fs.ErrNotExist)
	if k.given && absent {
		return fmt.Errorf("%s, which alba_key_file names, is missing: copy it from another node of the cluster; the first gets it with: openssl rand -hex 32", k.path)
	}
	if absent && need == (fragment.KeyID{}) {
		// Nothing is wrapped (W2).
		if err := removeDurably(k.path + newSuffix); err != nil {
			return err
		}
		k.wrap, err = drawWrap(k.path)
		return err
	}
	if err == nil && (need == (fragment.KeyID{}) || now.ID() == need) {
		k.wrap = now
		return removeDurably(k.path + newSuffix)
	}
	if next, nerr := readWrap(k.path + newSuffix); nerr == nil && next.ID() == need {
		if err := errors.Join(os.Rename(k.path+newSuffix, k.path), syncDir(k.path)); err != nil {
			return err
		}
		k.wrap = next
		return nil
	}
	switch {
	case absent:
		return fmt.Errorf("%s is missing, and there are data keys wrapped with it: bring it back from a copy, that of wrapping key %v, or name its place with alba_key_file", k.path, need)
	case err != nil:
		return fmt.Errorf("%s: %w: bring it back from a copy", k.path, err)
	}
	return fmt.Errorf("%s holds the wrapping key %v, and the data keys are wrapped with %v: bring that one back from a copy", k.path, now.ID(), need)
}

// needs returns the id of the wrapping key that the data keys are wrapped with; zero
// when there is none.
func (k *keys) needs(ctx context.Context) (need fragment.KeyID, err error) {
	have, _, err := k.store.Range(ctx, keysPrefix, "", 1)
	if err != nil || len(have) == 0 {
		return need, err
	}
	rec, err := k.store.Get(ctx, wrapKey)
	if err != nil {
		return need, err
	}
	if rec == nil {
		return fragment.WrappedWith(have[0].Value)
	}
	if n, err := hex.Decode(need[:], rec.Value); err != nil || n != len(need) || len(rec.Value) != hex.EncodedLen(len(need)) {
		return need, fmt.Errorf("record %s: %q is not the id of a wrapping key", wrapKey, rec.Value)
	}
	return need, nil
}

// ErrManyKeys: more data keys than one transaction can change.
var ErrManyKeys = errors.New("too many data keys")

// rotate draws a new wrapping key and wraps all data keys with it; the former opens
// nothing any more. It returns the new one's id and the number of data keys.
func (k *keys) rotate(ctx context.Context) (fragment.KeyID, int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.settle(ctx); err != nil { // one before may have ended half-way
		return fragment.KeyID{}, 0, err
	}
	if k.given {
		return fragment.KeyID{}, 0, fmt.Errorf("%w: in a cluster the key that alba_key_file names is not drawn by ovgate: take alba_key_file out on every node, with that file as alba/wrap.key in one data directory, and rotate then", manager.ErrState)
	}
	if k.seal != nil {
		return k.rotateSealed(ctx)
	}
	recs, err := k.dataKeys(ctx)
	if err != nil {
		return fragment.KeyID{}, 0, err
	}
	next, err := drawWrap(k.path + newSuffix)
	if err == nil {
		err = k.stepped("drawn")
	}
	if err != nil {
		return fragment.KeyID{}, 0, fmt.Errorf("new wrapping key beside %s: %w", k.path, err)
	}
	if err := k.rewrap(ctx, recs, next, nil, nil); err != nil {
		// Whether it happened is in the registry; where that cannot be asked, the next start
		// or rotation finds out.
		return fragment.KeyID{}, 0, errors.Join(err, k.settle(ctx))
	}
	k.wrap = next
	if err := k.stepped("wrapped"); err != nil {
		return next.ID(), len(recs), err
	}
	if err := errors.Join(os.Rename(k.path+newSuffix, k.path), syncDir(k.path)); err != nil {
		return next.ID(), len(recs), fmt.Errorf("the data keys are wrapped with the key in %s%s, which did not become %s: it does with the next start: %w", k.path, newSuffix, k.path, err)
	}
	return next.ID(), len(recs), k.stepped("renamed")
}

// dataKeys returns all data keys, as they are wrapped.
func (k *keys) dataKeys(ctx context.Context) ([]kv.KV, error) {
	const most = kv.MaxTxnOps - 2 // the wrapping key and its id are in the transaction, too
	recs, _, err := k.store.Range(ctx, keysPrefix, "", most+1)
	if len(recs) > most {
		err = fmt.Errorf("%w: more than the %d that can be wrapped at once", ErrManyKeys, most)
	}
	return recs, err
}

// rewrap wraps data keys with another wrapping key in one transaction with what else it is
// to compare and to do.
func (k *keys) rewrap(ctx context.Context, recs []kv.KV, next fragment.WrapKey, cmps []kv.Compare, ops []kv.Op) error {
	ops = append(ops, kv.Put(wrapKey, []byte(next.ID().String())))
	for _, rec := range recs {
		id := strings.TrimPrefix(string(rec.Key), keysPrefix)
		key, err := fragment.Unwrap(k.wrap, rec.Value, id)
		if err != nil {
			return err
		}
		wrapped, err := fragment.Wrap(rand.Reader, next, key, id)
		if err != nil {
			return err
		}
		cmps = append(cmps, kv.ModRevIs(string(rec.Key), rec.ModRev))
		ops = append(ops, kv.Put(string(rec.Key), wrapped))
	}
	res, err := k.store.Txn(ctx, cmps, ops, nil)
	if err == nil && !res.Succeeded {
		err = errors.New("the data keys were changed meanwhile: rotate again")
	}
	return err
}

func (k *keys) stepped(what string) error {
	if k.step == nil {
		return nil
	}
	return k.step(what)
}

// drawWrap draws a wrapping key into a new file.
func drawWrap(path string) (fragment.WrapKey, error) {
	secret := make([]byte, fragment.KeyBytes)
	if _, err := rand.Read(secret); err != nil {
		return fragment.WrapKey{}, err
	}
	w, err := fragment.NewWrapKey(secret)
	if err != nil {
		return w, err
	}
	return w, writeSecret(path, []byte(hex.EncodeToString(secret)+"\n"))
}

// readWrap reads a wrapping key that nobody else may read.
func readWrap(path string) (fragment.WrapKey, error) {
	w, _, err := readSecret(path)
	return w, err
}

// readSecret is readWrap that returns the key's bytes, too.
func readSecret(path string) (w fragment.WrapKey, secret []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return w, nil, err
	}
	defer f.Close() // it is only read
	st, err := f.Stat()
	if err != nil {
		return w, nil, err
	}
	if st.Mode().Perm()&0o077 != 0 {
		return w, nil, fmt.Errorf("mode %v lets others read the wrapping key: chmod 600 it", st.Mode().Perm())
	}
	b, err := io.ReadAll(io.LimitReader(f, maxWrapFile))
	if err != nil {
		return w, nil, err
	}
	if w, err = parseWrap(b); err != nil {
		return w, nil, err
	}
	secret, err = hex.DecodeString(strings.TrimSpace(string(b)))
	return w, secret, err
}

// removeDurably removes a file if it is there.
func removeDurably(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, syncDir(path))
}

// syncDir makes what happened to a name durable.
func syncDir(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
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
	return errors.Join(err, f.Sync(), f.Close(), syncDir(path))
}

// get returns a data key.
func (k *keys) get(id string) (*fragment.Key, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if key := k.known[id]; key != nil {
		return key, nil
	}
	key, err := k.unwrap(context.Background(), id)
	if k.seal != nil && errors.Is(err, fragment.ErrWrongKey) { // another node rotated it
		if err = k.settle(context.Background()); err == nil {
			key, err = k.unwrap(context.Background(), id)
		}
	}
	if err != nil {
		return nil, err
	}
	k.known[id] = &key
	return &key, nil
}

// unwrap reads a data key.
func (k *keys) unwrap(ctx context.Context, id string) (key fragment.Key, err error) {
	rec, err := k.store.Get(ctx, keysPrefix+id)
	if err == nil && rec == nil {
		err = fmt.Errorf("data key %s is not in the metadata store", id)
	}
	if err != nil {
		return key, err
	}
	return fragment.Unwrap(k.wrap, rec.Value, id)
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
	for {
		// Every rotation changes wrapKey: one of another node that comes later is noticed.
		rev, err := k.wrapRev(ctx)
		if err == nil && k.seal != nil {
			err = k.settle(ctx)
		}
		if err != nil {
			return "", err
		}
		wrapped, err := fragment.Wrap(rand.Reader, k.wrap, key, id)
		if err != nil {
			return "", err
		}
		res, err := k.store.Txn(ctx, []kv.Compare{kv.ModRevIs(wrapKey, rev)}, []kv.Op{kv.Put(keysPrefix+id, wrapped), kv.Put(wrapKey, []byte(k.wrap.ID().String()))}, nil)
		if err != nil {
			return "", err
		}
		if res.Succeeded {
			k.known[id] = &key
			return id, nil
		}
	}
}

// wrapRev returns the revision of wrapKey; 0: it is absent.
func (k *keys) wrapRev(ctx context.Context) (int64, error) {
	rec, err := k.store.Get(ctx, wrapKey)
	if err != nil || rec == nil {
		return 0, err
	}
	return rec.ModRev, nil
}
