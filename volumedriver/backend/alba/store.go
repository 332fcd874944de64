// Package alba keeps a vPool's objects in an Alba, one namespace for each vDisk.
//
// # Names
//
//	v/<dir>/<rest>   object <rest> of namespace <prefix>.v.<dir>, where <dir> has the
//	                 length of a vDisk's id
//	any other        object of that name in namespace <prefix>
//
// So a vDisk's objects spread over NSM hosts, and all its fragments go with one
// prefix on each device. A namespace is made with its first object and goes with
// its last.
//
// # Invariants
//
//	A1  A name belongs to one namespace whatever is there: where it is looked
//	    for does not depend on what exists.
//	A2  A namespace is removed only while it is empty, which its host decides
//	    against puts in flight. A put that meets the removal fails and is worth a
//	    retry.
//	A3  PutIfAbsent is decided in the transaction that stores the manifest, also
//	    for a request that comes late or is made twice.
//
// # Owners of before
//
// A node that lost a vDisk may have requests on their way. Asserts of Alba's sequences
// that name its epoch are not needed against them, and not used:
//
//   - Names hold epoch and nonce of an opening and are written once, so it overwrites
//     nothing of the new owner's; claims of an epoch are taken by PutIfAbsent (A3).
//   - A head counts when the registry points to it, in the transaction that compares
//     owner and epoch (E5); where the registry is lost, the epoch table of the newest
//     head tells which others count (E1).
//   - It deletes what a committed head condemned, and condemned is final (E7): the new
//     owner needs none of it either.
//
// An assert that nobody claimed a later epoch would turn away, at the price of one more
// name in each transaction, objects that nothing reaches and that the sweep deletes; the
// registry has to decide all the same, since other stores have no such assert. TestTwoOwners
// of package volume lets such requests come late on this store too.
package alba

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/openvstorage/ovgate/alba/client"
	"github.com/openvstorage/ovgate/volumedriver/backend"
)

// dirBytes is the length of a vDisk's id, as text.
const dirBytes = 36

// vdiskRoot is what the names of vDisks' objects begin with.
const vdiskRoot = "v/"

// Options describe where in an Alba a store is.
type Options struct {
	// Client is shared; the store does not close it.
	Client *client.Client
	// Prefix begins the names of the store's namespaces: letters, digits and '-', at
	// most 100.
	Prefix string
	// Preset of new namespaces; empty: the default.
	Preset string
	// SmallPieces tells that the preset has pieces below 64 KiB, so that reading 4 KiB
	// moves much less.
	SmallPieces bool
}

// Store is a backend.Store on an Alba.
type Store struct {
	o      Options
	c      *client.Client
	closed atomic.Bool
}

var _ backend.Store = (*Store)(nil)

var errClosed = errors.New("alba: store is closed")

// New returns the store of a vPool.
func New(o Options) *Store { return &Store{o: o, c: o.Client} }

// split returns the namespace of a name, and the object's name in it (A1).
func (s *Store) split(name string) (namespace, object string) {
	if rest, ok := strings.CutPrefix(name, vdiskRoot); ok {
		if dir, object, ok := strings.Cut(rest, "/"); ok && len(dir) == dirBytes {
			return s.vdisks() + dir, object
		}
	}
	return s.o.Prefix, name
}

// vdisks begins the names of namespaces of vDisks.
func (s *Store) vdisks() string { return s.o.Prefix + ".v." }

// start checks what every call begins with.
func (s *Store) start(ctx context.Context, name string) (namespace, object string, err error) {
	if s.closed.Load() {
		return "", "", errClosed
	}
	if err := backend.ValidName(name); err != nil {
		return "", "", err
	}
	if err := ctx.Err(); err != nil {
		return "", "", fmt.Errorf("object %s: %w", name, err)
	}
	namespace, object = s.split(name)
	return namespace, object, nil
}

// classify turns errors of Alba into those of a backend (S8).
func classify(name string, err error) error {
	var is error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, client.ErrNotExist), errors.Is(err, client.ErrNoNamespace):
		is = backend.ErrNotExist
	case errors.Is(err, client.ErrExists):
		is = backend.ErrExists
	case errors.Is(err, client.ErrFull):
		is = backend.ErrFull
	case errors.Is(err, client.ErrRange):
		is = backend.ErrRange
	case errors.Is(err, client.ErrTooLarge):
		is = backend.ErrCorrupt
	default:
		return fmt.Errorf("object %s: %w", name, err)
	}
	return fmt.Errorf("object %s: %w: %w", name, is, err)
}

// Put implements backend.Store.
func (s *Store) Put(ctx context.Context, name string, data []byte) error {
	return s.put(ctx, name, data, false)
}

// PutIfAbsent implements backend.Store.
func (s *Store) PutIfAbsent(ctx context.Context, name string, data []byte) error {
	return s.put(ctx, name, data, true)
}

func (s *Store) put(ctx context.Context, name string, data []byte, ifAbsent bool) error {
	namespace, object, err := s.start(ctx, name)
	if err != nil {
		return err
	}
	change := []client.Change{{Name: object, Data: data, IfAbsent: ifAbsent}}
	err = s.c.Apply(ctx, namespace, nil, change)
	if errors.Is(err, client.ErrNoNamespace) {
		if err = s.c.CreateNamespace(ctx, namespace, s.o.Preset); err != nil {
			return fmt.Errorf("object %s: %w", name, err)
		}
		err = s.c.Apply(ctx, namespace, nil, change)
		if errors.Is(err, client.ErrNoNamespace) {
			return fmt.Errorf("object %s: its namespace was removed meanwhile: %v", name, err) // worth a retry (A2)
		}
	}
	return classify(name, err)
}

// Get implements backend.Store.
func (s *Store) Get(ctx context.Context, name string, limit int64) ([]byte, error) {
	namespace, object, err := s.start(ctx, name)
	if err != nil {
		return nil, err
	}
	data, err := s.c.Get(ctx, namespace, object, limit)
	return data, classify(name, err)
}

// ReadAt implements backend.Store.
func (s *Store) ReadAt(ctx context.Context, name string, p []byte, off int64) error {
	namespace, object, err := s.start(ctx, name)
	if err != nil {
		return err
	}
	return classify(name, s.c.ReadAt(ctx, namespace, object, p, off))
}

// Stat implements backend.Store.
func (s *Store) Stat(ctx context.Context, name string) (backend.Info, error) {
	namespace, object, err := s.start(ctx, name)
	if err != nil {
		return backend.Info{}, err
	}
	info, err := s.c.Stat(ctx, namespace, object)
	if err != nil {
		return backend.Info{}, classify(name, err)
	}
	return backend.Info{Name: name, Size: info.Size, ModTime: info.Created}, nil
}

// Delete implements backend.Store. The namespace of a vDisk goes with its last
// object.
func (s *Store) Delete(ctx context.Context, name string) error {
	namespace, object, err := s.start(ctx, name)
	if err != nil {
		return err
	}
	err = s.c.Delete(ctx, namespace, object)
	if errors.Is(err, client.ErrNoNamespace) {
		return nil
	}
	if err != nil || namespace == s.o.Prefix {
		return classify(name, err)
	}
	left, err := s.c.List(ctx, namespace, "", "", 1)
	if err == nil && len(left) == 0 {
		err = s.c.RemoveNamespace(ctx, namespace, true)
	}
	if errors.Is(err, client.ErrExists) || errors.Is(err, client.ErrNoNamespace) {
		err = nil
	}
	return classify(name, err) // repeating the delete tries again
}

// Forget removes the namespace of the store itself, if it is empty: after its last
// object, when the vPool is no more.
func (s *Store) Forget(ctx context.Context) error {
	err := s.c.RemoveNamespace(ctx, s.o.Prefix, true)
	if errors.Is(err, client.ErrExists) {
		return nil
	}
	return err
}

// Usage implements backend.Store.
func (s *Store) Usage(ctx context.Context) (backend.Usage, error) {
	if s.closed.Load() {
		return backend.Usage{}, errClosed
	}
	total, free, err := s.c.Usage(ctx, s.o.Preset)
	return backend.Usage{Total: total, Free: free}, err
}

// Features implements backend.Store. A read moves whole pieces.
func (s *Store) Features() backend.Features {
	return backend.Features{ConditionalPut: true, ConsistentList: true, CheapReads: s.o.SmallPieces}
}

// Close implements backend.Store. The client stays open.
func (s *Store) Close() error {
	s.closed.Store(true)
	return nil
}

// List implements backend.Store: what is in the namespace of the store, merged with
// what is in those of vDisks, which follow each other in the order of their names.
func (s *Store) List(ctx context.Context, prefix, after string, limit int) ([]backend.Info, error) {
	if s.closed.Load() {
		return nil, errClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("list objects %q: %w", prefix, err)
	}
	limit = backend.ListLimit(limit)
	l := &lister{s: s, prefix: prefix, after: after, limit: limit}
	own, err := l.namespace(ctx, s.o.Prefix, "")
	if err == nil {
		var more []backend.Info
		more, err = l.vdisks(ctx)
		own = append(own, more...)
	}
	if err != nil {
		return nil, fmt.Errorf("list objects %q: %w", prefix, err)
	}
	slices.SortFunc(own, func(a, b backend.Info) int { return strings.Compare(a.Name, b.Name) })
	return own[:min(len(own), limit)], nil
}

// lister is one List call.
type lister struct {
	s             *Store
	prefix, after string
	limit         int
}

// namespace lists up to limit objects of a namespace whose names begin with root.
func (l *lister) namespace(ctx context.Context, namespace, root string) ([]backend.Info, error) {
	in, ok := strings.CutPrefix(l.prefix, root)
	if !ok {
		if !strings.HasPrefix(root, l.prefix) {
			return nil, nil
		}
		in = "" // the prefix ends within the root: all of it
	}
	from, ok := strings.CutPrefix(l.after, root)
	if !ok {
		if l.after > root {
			return nil, nil // "after" sorts behind everything that begins with root
		}
		from = ""
	}
	infos, err := l.s.c.List(ctx, namespace, in, from, l.limit)
	if errors.Is(err, client.ErrNoNamespace) {
		return nil, nil
	}
	out := make([]backend.Info, len(infos))
	for i, info := range infos {
		out[i] = backend.Info{Name: root + info.Name, Size: info.Size, ModTime: info.Created}
	}
	return out, err
}

// vdisks lists up to limit objects of vDisks.
func (l *lister) vdisks(ctx context.Context) ([]backend.Info, error) {
	dirs, ok := strings.CutPrefix(l.prefix, vdiskRoot)
	if !ok {
		if !strings.HasPrefix(vdiskRoot, l.prefix) {
			return nil, nil
		}
		dirs = ""
	}
	dir, _, whole := strings.Cut(dirs, "/")
	if whole && len(dir) != dirBytes {
		return nil, nil
	}
	// Begin with the vDisk in which "after" lies: the last name before its own.
	from := ""
	if rest, ok := strings.CutPrefix(l.after, vdiskRoot); ok && len(rest) > 0 {
		from, _, _ = strings.Cut(rest, "/")
		from = l.s.vdisks() + before(from)
	}
	var out []backend.Info
	for len(out) < l.limit {
		names, err := l.s.c.Namespaces(ctx, l.s.vdisks()+dir, from, pageNames)
		if err != nil || len(names) == 0 {
			return out, err
		}
		for _, n := range names {
			from = n
			page, err := l.namespace(ctx, n, vdiskRoot+strings.TrimPrefix(n, l.s.vdisks())+"/")
			if err != nil {
				return nil, err
			}
			if out = append(out, page...); len(out) >= l.limit {
				break
			}
		}
	}
	return out, nil
}

// pageNames is how many namespaces are looked up at once.
const pageNames = 100

// before returns a text that sorts before dir, and behind every other of its length
// that does.
func before(dir string) string {
	if dir == "" {
		return ""
	}
	last := len(dir) - 1
	return dir[:last] + string(dir[last]-1) + "\xff"
}
