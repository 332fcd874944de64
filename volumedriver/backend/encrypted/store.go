package encrypted

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/openvstorage/ovgate/volumedriver/backend"
)

// Sizes of the format, in bytes.
const (
	magic       = "ovgE"
	version     = 1
	macBytes    = 16
	headerBytes = 40
	pieceBytes  = 4096
	nonceBytes  = 12
	overhead    = nonceBytes + 16
	sealedBytes = pieceBytes + overhead
	// maxPlain bounds what a header may claim.
	maxPlain = 1 << 40
)

// keyObject says which key a store was made with. It is not in lists.
const keyObject = "ovgate.key"

// keyPlain is what it holds.
const keyPlain = "ovgate encrypted store\n"

// errDamaged begins errors about an object.
var errDamaged = fmt.Errorf("%w: encrypted object", backend.ErrCorrupt)

// sealedSize is the size of an object of n plain bytes in the store.
func sealedSize(n int64) int64 {
	return headerBytes + n + (n+pieceBytes-1)/pieceBytes*overhead
}

// plainSize undoes sealedSize; -1: no object has this size.
func plainSize(sealed int64) int64 {
	body := sealed - headerBytes
	if body < 0 {
		return -1
	}
	n := body - (body+sealedBytes-1)/sealedBytes*overhead
	if n < 0 || sealedSize(n) != sealed {
		return -1
	}
	return n
}

// Store is an encrypted backend.Store.
type Store struct {
	backend.Store
	key   Key
	plain []string
}

var _ backend.Store = (*Store)(nil)

// Create makes an empty store one of this key and opens it; one that is of this key
// is opened. A store that holds nothing but the object that tells another key was
// left by a creation that did not come to its end, and is empty.
func Create(ctx context.Context, s backend.Store, key Key, plain ...string) (*Store, error) {
	id, err := MadeWith(ctx, s)
	if err != nil {
		return nil, err
	}
	if id != key.ID() {
		e := &Store{s, key, plain}
		if err := e.checkEmpty(ctx); err != nil {
			return nil, err
		}
		if id != "" {
			if err := s.Delete(ctx, keyObject); err != nil { // no name is put twice with other bytes
				return nil, err
			}
		}
		b, err := e.seal(keyObject, []byte(keyPlain))
		if err != nil {
			return nil, err
		}
		if err := s.Put(ctx, keyObject, b); err != nil {
			return nil, err
		}
	}
	return Open(ctx, s, key, plain...)
}

// checkEmpty makes sure that a store holds no object but the one that tells the key.
// The plain objects are asked for by name, since a list may lag.
func (s *Store) checkEmpty(ctx context.Context) error {
	found := func(name string) error {
		return fmt.Errorf("%w: there are objects of another vPool, such as %s", ErrKey, name)
	}
	for _, name := range s.plain {
		if _, err := s.Store.Stat(ctx, name); err == nil {
			return found(name)
		} else if !errors.Is(err, backend.ErrNotExist) {
			return err
		}
	}
	l, err := s.Store.List(ctx, "", "", 2)
	if err != nil {
		return err
	}
	for _, i := range l {
		if i.Name != keyObject {
			return found(i.Name)
		}
	}
	return nil
}

// Open wraps a store, which it closes. Objects named in plain stay readable without
// the key. ErrKey when it was made with another key, or without.
func Open(ctx context.Context, s backend.Store, key Key, plain ...string) (*Store, error) {
	e := &Store{s, key, plain}
	b, err := s.Get(ctx, keyObject, sealedSize(int64(len(keyPlain))))
	if errors.Is(err, backend.ErrNotExist) {
		return nil, fmt.Errorf("%w: its objects are not encrypted", ErrKey)
	}
	if err != nil {
		return nil, fmt.Errorf("which key the store was made with: %w", err)
	}
	o, err := key.object(keyObject, false)
	if err != nil {
		return nil, err
	}
	if _, err = o.size(b); err == nil {
		_, err = o.open(nil, b[headerBytes:], 0)
	}
	if err != nil {
		return nil, err
	}
	return e, nil
}

// MadeWith returns the id of the key that a store was made with; empty: none.
func MadeWith(ctx context.Context, s backend.Store) (string, error) {
	b, err := s.Get(ctx, keyObject, sealedSize(int64(len(keyPlain))))
	if errors.Is(err, backend.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if len(b) < headerBytes || string(b[:4]) != magic {
		return "", fmt.Errorf("%w %s: it is not one", errDamaged, keyObject)
	}
	return fmt.Sprintf("%x", b[8:16]), nil
}

// Forget removes what tells the key, after the last object is gone.
func (s *Store) Forget(ctx context.Context) error { return s.Store.Delete(ctx, keyObject) }

// Unwrap returns the store below.
func (s *Store) Unwrap() backend.Store { return s.Store }

func (s *Store) open(name string) bool { return slices.Contains(s.plain, name) }

func (s *Store) seal(name string, data []byte) ([]byte, error) {
	o, err := s.key.object(name, true)
	if err != nil {
		return nil, err
	}
	return o.seal(make([]byte, 0, sealedSize(int64(len(data)))), data), nil
}

// reserved refuses the name that is this package's own.
func reserved(name string) error {
	if name == keyObject {
		return fmt.Errorf("%w %q: it is the store's own", backend.ErrInvalidName, name)
	}
	return nil
}

// Put implements backend.Store.
func (s *Store) Put(ctx context.Context, name string, data []byte) error {
	return s.put(ctx, name, data, s.Store.Put)
}

// PutIfAbsent implements backend.Store.
func (s *Store) PutIfAbsent(ctx context.Context, name string, data []byte) error {
	return s.put(ctx, name, data, s.Store.PutIfAbsent)
}

func (s *Store) put(ctx context.Context, name string, data []byte, put func(context.Context, string, []byte) error) error {
	if err := reserved(name); err != nil {
		return err
	}
	if s.open(name) {
		return put(ctx, name, data)
	}
	b, err := s.seal(name, data)
	if err != nil {
		return err
	}
	return put(ctx, name, b)
}

// Get implements backend.Store.
func (s *Store) Get(ctx context.Context, name string, limit int64) ([]byte, error) {
	if err := reserved(name); err != nil {
		return nil, err
	}
	if s.open(name) {
		return s.Store.Get(ctx, name, limit)
	}
	b, err := s.Store.Get(ctx, name, sealedSize(min(limit, maxPlain)))
	if err != nil {
		return nil, err
	}
	o, err := s.key.object(name, false)
	if err != nil {
		return nil, err
	}
	size, err := o.size(b)
	if err != nil {
		return nil, err
	}
	if sealedSize(size) != int64(len(b)) {
		return nil, fmt.Errorf("%w %s: %d bytes, its header says %d", errDamaged, name, len(b), sealedSize(size))
	}
	return o.open(make([]byte, 0, size), b[headerBytes:], 0)
}

// ReadAt implements backend.Store. It is one request, but for the last piece of an
// object that is not full: that takes two more.
func (s *Store) ReadAt(ctx context.Context, name string, p []byte, off int64) error {
	if err := reserved(name); err != nil {
		return err
	}
	if s.open(name) {
		return s.Store.ReadAt(ctx, name, p, off)
	}
	if len(p) == 0 || off < 0 || off > maxPlain {
		size, err := s.size(ctx, name)
		if err == nil && (off < 0 || off > size) {
			err = fmt.Errorf("%w: %s at %d of %d bytes", backend.ErrRange, name, off, size)
		}
		return err
	}
	first, end := off/pieceBytes, (off+int64(len(p))+pieceBytes-1)/pieceBytes // pieces
	b := make([]byte, (end-first)*sealedBytes)
	err := s.Store.ReadAt(ctx, name, b, headerBytes+first*sealedBytes)
	if errors.Is(err, backend.ErrRange) {
		size, serr := s.size(ctx, name)
		if serr != nil {
			return serr
		}
		if off+int64(len(p)) > size {
			return fmt.Errorf("%w: %s to %d of %d bytes", backend.ErrRange, name, off+int64(len(p)), size)
		}
		b = b[:min(int64(len(b)), sealedSize(size)-headerBytes-first*sealedBytes)]
		err = s.Store.ReadAt(ctx, name, b, headerBytes+first*sealedBytes)
	}
	if err != nil {
		return err
	}
	o, err := s.key.object(name, false)
	if err != nil {
		return err
	}
	if off%pieceBytes == 0 && int64(len(p)) == plainSize(headerBytes+int64(len(b))) {
		_, err = o.open(p[:0], b, first)
		return err
	}
	plain, err := o.open(make([]byte, 0, len(b)), b, first)
	if err == nil {
		copy(p, plain[off-first*pieceBytes:])
	}
	return err
}

// size returns the plain size of an object.
func (s *Store) size(ctx context.Context, name string) (int64, error) {
	i, err := s.Stat(ctx, name)
	return i.Size, err
}

// Stat implements backend.Store.
func (s *Store) Stat(ctx context.Context, name string) (backend.Info, error) {
	if err := reserved(name); err != nil {
		return backend.Info{}, err
	}
	i, err := s.Store.Stat(ctx, name)
	if err != nil || s.open(name) {
		return i, err
	}
	if i.Size = plainSize(i.Size); i.Size < 0 {
		return backend.Info{}, fmt.Errorf("%w %s: no encrypted object has its size", errDamaged, name)
	}
	return i, nil
}

// List implements backend.Store. An object that is not an encrypted one has the size
// that it has.
func (s *Store) List(ctx context.Context, prefix, after string, limit int) ([]backend.Info, error) {
	limit = backend.ListLimit(limit)
	out, err := s.Store.List(ctx, prefix, after, min(limit+1, backend.MaxListLimit))
	if err != nil {
		return nil, err
	}
	full := len(out) >= min(limit+1, backend.MaxListLimit)
	out = slices.DeleteFunc(out, func(i backend.Info) bool { return i.Name == keyObject })
	if full && len(out) < limit { // a short page would be taken for the end
		more, err := s.Store.List(ctx, prefix, max(keyObject, last(out)), 1)
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	out = out[:min(len(out), limit)]
	for i := range out {
		if n := plainSize(out[i].Size); n >= 0 && !s.open(out[i].Name) {
			out[i].Size = n
		}
	}
	return out, nil
}

func last(l []backend.Info) string {
	if len(l) == 0 {
		return ""
	}
	return l[len(l)-1].Name
}

// Delete implements backend.Store.
func (s *Store) Delete(ctx context.Context, name string) error {
	if err := reserved(name); err != nil {
		return err
	}
	return s.Store.Delete(ctx, name)
}
