package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"syscall"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/backend"
)

// pieceSize is how much is transferred between two looks at the context, in
// bytes: some milliseconds of a slow disk.
const pieceSize = 128 << 10

// directMin is the size from which objects bypass the page cache, in bytes: SCOs, not
// heads and TLogs.
const directMin = 256 << 10

// Put implements backend.Store.
func (s *Store) Put(ctx context.Context, name string, data []byte) error {
	if err := s.start(ctx, name); err != nil {
		return err
	}
	return classify(name, s.put(ctx, name, data, true))
}

// PutIfAbsent implements backend.Store.
func (s *Store) PutIfAbsent(ctx context.Context, name string, data []byte) error {
	if err := s.start(ctx, name); err != nil {
		return err
	}
	dir, file := objectPath(name)
	_, err := s.fs.Stat(file) // spares writing what will be refused
	if errors.Is(err, fs.ErrNotExist) {
		err = s.put(ctx, name, data, false)
	} else if err == nil {
		err = fs.ErrExist
	}
	if errors.Is(err, fs.ErrExist) {
		// The caller will act on the object being there. The Put that made it
		// may not have come to its last step, so make it durable here.
		err = backend.ErrExists
		if serr := s.syncDir(dir); serr != nil {
			err = serr
		}
	}
	return classify(name, err)
}

// put writes an object: in place of one that is there, or fails with fs.ErrExist.
func (s *Store) put(ctx context.Context, name string, data []byte, replace bool) error {
	tmp := s.tempName()
	err := s.writeTemp(ctx, tmp, data)
	if err == nil {
		err = s.giveName(tmp, name, replace)
	}
	if errors.Is(err, fs.ErrNotExist) { // not to be mistaken for the object
		err = fmt.Errorf("%w: %v", errAway, err)
	}
	if err == nil && replace || errors.Is(err, backend.ErrInUse) {
		return err // the rename left no temporary file, or it is not ours
	}
	// What cannot be removed is found by the next Open.
	if rerr := s.fs.Remove(tmp); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) && err == nil {
		return fmt.Errorf("remove the temporary file: %w", rerr)
	}
	return err
}

// writeTemp makes a file with durable content. A large object bypasses the page cache:
// the copy into it costs as much processor time as all that the engine does for the
// data, and its write-back comes in bursts that hold up the appends of journals.
func (s *Store) writeTemp(ctx context.Context, tmp string, data []byte) error {
	direct := len(data) >= directMin && blockfs.Aligned(data)
	flag := blockfs.Write | blockfs.Create | blockfs.Excl
	if direct {
		flag |= blockfs.Direct
	}
	f, err := s.fs.Open(tmp, flag)
	if errors.Is(err, fs.ErrExist) { // not to be mistaken for the object
		return fmt.Errorf("%s: %w; stop the other process", tmp, backend.ErrInUse)
	}
	if err != nil {
		return err
	}
	whole := len(data)
	if direct {
		whole -= len(data) % blockfs.Alignment
	}
	for off := 0; off < whole && err == nil; off += pieceSize {
		if err = ctx.Err(); err == nil {
			_, err = f.WriteAt(data[off:min(whole, off+pieceSize)], int64(off))
		}
	}
	if err == nil && whole < len(data) {
		last := blockfs.AlignedBuffer(blockfs.Alignment)
		copy(last, data[whole:])
		if _, err = f.WriteAt(last, int64(whole)); err == nil {
			err = f.Truncate(int64(len(data)))
		}
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// giveName makes a durable file the object, durably (L1, L2).
func (s *Store) giveName(tmp, name string, replace bool) error {
	dir, file := objectPath(name)
	if err := s.nameFile(tmp, dir, file, replace); err != nil {
		return err
	}
	s.noteName(name)
	if err := s.files.drop(name); err != nil {
		return err
	}
	return s.syncDir(dir)
}

// nameFile makes the object's directory and gives the file its name there, while
// no directory is removed.
func (s *Store) nameFile(tmp, dir, file string, replace bool) error {
	s.tree.RLock()
	defer s.tree.RUnlock()
	if err := s.makeDir(dir); err != nil {
		return err
	}
	if replace {
		return s.fs.Rename(tmp, file)
	}
	return s.fs.Link(tmp, file)
}

// syncDir makes the names in a directory durable. If it is gone, its objects were
// deleted meanwhile; then its own removal is made durable, which says the same.
func (s *Store) syncDir(dir string) error {
	for {
		err := s.fs.SyncDir(dir)
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if dir == objectDir { // not to be mistaken for the object
			return fmt.Errorf("%w: %v", errAway, err)
		}
		dir = path.Dir(dir)
	}
}

// makeDir makes a directory durably unless that was done before; s.tree is held.
func (s *Store) makeDir(dir string) error {
	s.knownMu.Lock()
	_, ok := s.known[dir]
	s.knownMu.Unlock()
	if ok {
		return nil
	}
	if err := s.fs.MkdirAll(dir); err != nil {
		return err
	}
	s.knownMu.Lock()
	defer s.knownMu.Unlock()
	if len(s.known) >= knownMax {
		clear(s.known)
	}
	s.known[dir] = struct{}{}
	return nil
}

// noteName tells the kept listings about an object and the directories above it
// (L6).
func (s *Store) noteName(name string) {
	prefix := ""
	for {
		i := strings.IndexByte(name[len(prefix):], '/')
		if i < 0 {
			s.lists.note(dirPath(prefix), name[len(prefix):])
			return
		}
		next := name[:len(prefix)+i+1]
		s.lists.note(dirPath(prefix), next[len(prefix):])
		prefix = next
	}
}

// Delete implements backend.Store.
func (s *Store) Delete(ctx context.Context, name string) error {
	if err := s.start(ctx, name); err != nil {
		return err
	}
	dir, file := objectPath(name)
	err := s.inPlace(func() error { return s.fs.Remove(file) })
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return classify(name, err)
	}
	// The directory is synced for an absent object too: an earlier Delete may
	// have removed it and failed before it was durable (L3).
	if err := errors.Join(s.files.drop(name), s.syncDir(dir)); err != nil {
		return classify(name, err)
	}
	return classify(name, s.prune(name))
}

// prune removes the directories above a deleted object that are empty now. That
// need not be durable: an empty directory is no object.
func (s *Store) prune(name string) error {
	for {
		i := strings.LastIndexByte(name, '/')
		if i < 0 {
			return nil
		}
		gone, err := s.removeDir(dirPath(name[:i+1]))
		if err != nil || !gone {
			return err
		}
		name = name[:i]
	}
}

// removeDir removes a directory if it is empty, and tells whether it is gone.
func (s *Store) removeDir(dir string) (gone bool, err error) {
	s.tree.Lock()
	defer s.tree.Unlock()
	err = s.fs.Remove(dir)
	switch {
	case errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EEXIST):
		return false, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return false, err
	}
	s.knownMu.Lock()
	defer s.knownMu.Unlock()
	delete(s.known, dir)
	return true, nil
}
