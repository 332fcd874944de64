package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/backend"
)

// open returns a reference to an object's file; the caller releases it.
func (s *Store) open(name string) (*handle, error) {
	h, token := s.files.get(name)
	if h != nil {
		return h, nil
	}
	_, file := objectPath(name)
	var f blockfs.File
	err := s.inPlace(func() (err error) {
		f, err = s.fs.Open(file, blockfs.Read)
		return err
	})
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s.files.put(name, f, size, token)
}

// Get implements backend.Store.
func (s *Store) Get(ctx context.Context, name string, limit int64) (_ []byte, err error) {
	if err := s.start(ctx, name); err != nil {
		return nil, err
	}
	h, err := s.open(name)
	if err != nil {
		return nil, classify(name, err)
	}
	defer func() { err = errors.Join(err, s.files.release(h)) }()
	if h.size > limit {
		return nil, fmt.Errorf("object %s: %w: it has %d bytes, %d at most are expected", name, backend.ErrCorrupt, h.size, limit)
	}
	data := make([]byte, h.size)
	if err := h.read(ctx, data, 0); err != nil {
		return nil, err
	}
	return data, nil
}

// ReadAt implements backend.Store.
func (s *Store) ReadAt(ctx context.Context, name string, p []byte, off int64) error {
	if err := s.start(ctx, name); err != nil {
		return err
	}
	h, err := s.open(name)
	if err != nil {
		return classify(name, err)
	}
	err = h.read(ctx, p, off)
	if rerr := s.files.release(h); err == nil && rerr != nil {
		err = classify(name, rerr)
	}
	return err
}

// read fills p from off.
func (h *handle) read(ctx context.Context, p []byte, off int64) error {
	if off < 0 || off > h.size || int64(len(p)) > h.size-off {
		return fmt.Errorf("object %s: %w: %d bytes at %d, it has %d", h.name, backend.ErrRange, len(p), off, h.size)
	}
	for len(p) > 0 {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("object %s: %w", h.name, err)
		}
		piece := p[:min(len(p), pieceSize)]
		n, err := h.f.ReadAt(piece, off)
		if n < len(piece) {
			if errors.Is(err, io.EOF) {
				return fmt.Errorf("object %s: %w: the file ends at %d, it had %d bytes", h.name, backend.ErrCorrupt, off+int64(n), h.size)
			}
			return classify(h.name, err)
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// Stat implements backend.Store.
func (s *Store) Stat(ctx context.Context, name string) (backend.Info, error) {
	if err := s.start(ctx, name); err != nil {
		return backend.Info{}, err
	}
	_, file := objectPath(name)
	var info blockfs.Info
	err := s.inPlace(func() (err error) {
		info, err = s.fs.Stat(file)
		return err
	})
	if err != nil {
		return backend.Info{}, classify(name, err)
	}
	return backend.Info{Name: name, Size: info.Size, ModTime: info.ModTime}, nil
}

// List implements backend.Store.
func (s *Store) List(ctx context.Context, prefix, after string, limit int) ([]backend.Info, error) {
	if s.closed.Load() {
		return nil, errClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("list objects %q: %w", prefix, err)
	}
	w := walker{s: s, ctx: ctx, prefix: prefix, after: after, limit: backend.ListLimit(limit)}
	dir := prefix[:strings.LastIndexByte(prefix, '/')+1]
	if dir != "" && backend.ValidName(dir[:len(dir)-1]) != nil {
		return nil, nil // no object is called that
	}
	if err := w.walk(dir); err != nil {
		return nil, fmt.Errorf("list objects %q: %w", prefix, err)
	}
	return w.found, nil
}

// walker collects one page of a List.
type walker struct {
	s             *Store
	ctx           context.Context
	prefix, after string
	limit         int
	found         []backend.Info
}

// walk visits the objects below a directory, given as the beginning of their
// names, in name order. Keys of directories end in "/", so the order of the keys
// of each directory, followed depth first, is the order of the names.
func (w *walker) walk(dir string) error {
	keys, err := w.s.lists.get(dirPath(dir), func() ([]string, error) { return w.s.readDir(dirPath(dir)) })
	if err != nil {
		return err
	}
	for _, key := range keys[w.first(dir, keys):] {
		if len(w.found) == w.limit {
			return nil
		}
		name := dir + key
		isDir := strings.HasSuffix(key, "/")
		switch {
		case !strings.HasPrefix(name, w.prefix):
			if name > w.prefix {
				w.s.lists.done(dirPath(dir))
				return nil // past everything with the prefix
			}
			continue
		case name <= w.after && !(isDir && strings.HasPrefix(w.after, name)):
			continue
		case isDir:
			err = w.walk(name)
		default:
			err = w.visit(name)
		}
		if err != nil {
			return err
		}
	}
	if len(w.found) < w.limit {
		w.s.lists.done(dirPath(dir))
	}
	return nil
}

// first returns the first key of a directory that a walk must look at.
func (w *walker) first(dir string, keys []string) int {
	from := max(w.after, w.prefix)
	if !strings.HasPrefix(from, dir) {
		if from < dir {
			return 0
		}
		return len(keys)
	}
	rest := from[len(dir):]
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		rest = rest[:i+1] // the directory that from lies in
	}
	return search(keys, rest)
}

// visit adds an object if it is there.
func (w *walker) visit(name string) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	info, err := w.s.Stat(w.ctx, name)
	if errors.Is(err, backend.ErrNotExist) {
		return nil // deleted since the directory was read
	}
	if err != nil {
		return err
	}
	w.found = append(w.found, info)
	return nil
}

// readDir returns the keys of a directory, sorted; none if it does not exist.
// What is not named like an object or a directory of objects is not ours.
func (s *Store) readDir(dir string) ([]string, error) {
	var entries []blockfs.Info
	err := s.inPlace(func() (err error) {
		entries, err = s.fs.ListNames(dir)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	keys := make([]string, 0, len(entries))
	for _, e := range entries {
		seg, marked := strings.CutSuffix(e.Name, dirSuffix)
		if marked != e.Dir || backend.ValidName(seg) != nil {
			continue
		}
		if e.Dir {
			seg += "/"
		}
		keys = append(keys, seg)
	}
	slices.Sort(keys)
	return keys, nil
}
