// Package local keeps objects as files of a directory: the backend of a single
// node, and of a shared file system that gives one node at a time exclusive use.
// The gateway opens it for vPools on a local directory.
//
// # Layout
//
//	root/
//	  format                 "ovgate local store 1\n"
//	  lock                   held by the process that uses the store (Lock)
//	  tmp/17                 content of a Put under way
//	  objects/head           object "head"
//	  objects/head~/7        object "head/7"
//	  objects/v1~/sco~/a.7   object "v1/sco/a.7"
//
// Every segment of a name but the last is a directory whose name has "~" added,
// so that "a" and "a/b" can both be objects.
//
// # Writing
//
//	Put          tmp/n: create, write, sync → rename to the object → sync its directory
//	PutIfAbsent  tmp/n: create, write, sync → link as the object → sync its directory → remove tmp/n
//
// # Invariants
//
//	L1  A name below objects/ is only ever given to a file whose content is
//	    durable: no reader and no crash sees part of an object.
//	L2  Put returns nil after the name, and the names of all directories above
//	    it, are durable.
//	L3  Delete returns nil after the removal is durable. The engine forgets a
//	    condemned object once its delete returned, so one that came back after
//	    a power cut would take space for ever.
//	L4  tmp/ holds nothing of value; Open empties it.
//	L5  An open file kept for reads is never used for a name that was replaced
//	    or deleted before the read began.
//	L6  List sees every completed Put and Delete.
//	L7  An object is absent only where the store is there: while the directory is
//	    renamed, or the file system in it is not mounted, nothing is said of objects.
//
// It does not checksum: objects carry their own checksums, and their readers
// verify them. It does not limit its size: the file system below does.
package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/backend"
)

// The parts of the root directory.
const (
	formatName = "format"
	tmpDir     = "tmp"
	objectDir  = "objects"
	// dirSuffix marks a directory; it is no byte of an object name.
	dirSuffix = "~"
)

// formatLine is the content of the format file.
const formatLine = "ovgate local store 1\n"

// formatMax bounds what is read of a format file, in bytes.
const formatMax = 4096

// defaultOpenFiles is what a vPool's readers touch at one time with the default
// SCO size (512 × 16 MiB = 8 GiB), well within the usual limit of 1024 files.
const defaultOpenFiles = 512

// errClosed: the store was closed.
var errClosed = errors.New("local store: closed")

// errAway: the directory is there no more, or is an empty mount point.
var errAway = errors.New("the store's directory is not there; mount or restore it")

// Options configure a Store. The zero value is usable.
type Options struct {
	// OpenFiles is how many object files are kept open for range reads; 0 means
	// 512. Every vPool on a local directory has its own.
	OpenFiles int
	// Log receives what happens at Open; nil discards it.
	Log *slog.Logger
}

// Store implements backend.Store. It must be the only user of its directory (see
// Lock).
type Store struct {
	fs     blockfs.FS
	files  *fileCache
	lists  *listings
	temp   atomic.Uint64 // last number used below tmp/
	closed atomic.Bool

	// tree is held shared from making an object's directories to giving it its
	// name, exclusively while an empty directory is removed.
	tree sync.RWMutex
	// known are directories that are there, durably. Guarded by knownMu.
	known   map[string]struct{}
	knownMu sync.Mutex
}

var _ backend.Store = (*Store)(nil)

// knownMax bounds the directories remembered to exist; beyond it they are all
// forgotten, and looked at again.
const knownMax = 1 << 16

// Open opens the store in the root of fsys, and makes it when the directory is
// new. What a crash left in tmp/ is removed.
func Open(fsys blockfs.FS, opts Options) (*Store, error) {
	if opts.OpenFiles <= 0 {
		opts.OpenFiles = defaultOpenFiles
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{
		fs:    fsys,
		files: newFileCache(opts.OpenFiles),
		lists: newListings(),
		known: map[string]struct{}{},
	}
	if err := s.checkFormat(); err != nil {
		return nil, fmt.Errorf("local store: %w", err)
	}
	for _, dir := range []string{tmpDir, objectDir} {
		if err := fsys.MkdirAll(dir); err != nil {
			return nil, fmt.Errorf("local store: %w", err)
		}
	}
	removed, err := s.emptyTemp()
	if err != nil {
		return nil, fmt.Errorf("local store: %w", err)
	}
	if removed > 0 {
		opts.Log.Info("local store: removed unfinished objects", "count", removed)
	}
	return s, nil
}

// checkFormat reads the format file, or writes it into a new store. A directory
// that holds objects without one is not taken for new.
func (s *Store) checkFormat() error {
	data, err := blockfs.ReadFile(s.fs, formatName, formatMax)
	switch {
	case err == nil && string(data) == formatLine:
		return nil
	case err == nil:
		return fmt.Errorf("%s holds %.40q, this version reads %q: use the version that made the store",
			formatName, data, formatLine)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if _, err := s.fs.Stat(objectDir); err == nil {
		return fmt.Errorf("%s is missing but %s/ is there: restore it (%q) if this is a store", formatName, objectDir, formatLine)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return blockfs.WriteFile(s.fs, formatName, []byte(formatLine))
}

// emptyTemp keeps L4. The removals need not be durable.
func (s *Store) emptyTemp() (int, error) {
	left, err := s.fs.ListNames(tmpDir)
	if err != nil {
		return 0, err
	}
	for _, e := range left {
		if err := s.fs.Remove(tmpDir + "/" + e.Name); err != nil {
			return 0, err
		}
	}
	return len(left), nil
}

// tempName returns a name below tmp/ that this process has not used.
func (s *Store) tempName() string {
	return tmpDir + "/" + strconv.FormatUint(s.temp.Add(1), 10)
}

// start checks what every call checks.
func (s *Store) start(ctx context.Context, name string) error {
	if s.closed.Load() {
		return fmt.Errorf("object %s: %w", name, errClosed)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("object %s: %w", name, err)
	}
	return backend.ValidName(name)
}

// inPlace makes a call that may find its object absent, and keeps L7: that is believed
// between two looks at the store's own file, since the directory may come back meanwhile.
func (s *Store) inPlace(call func() error) error {
	err := call()
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if lerr := s.look(); lerr != nil {
		return lerr
	}
	if err = call(); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if lerr := s.look(); lerr != nil {
		return lerr
	}
	return err
}

// look finds the store's own file: errAway if the directory is not the store now.
func (s *Store) look() error {
	_, err := s.fs.Stat(formatName)
	if errors.Is(err, fs.ErrNotExist) {
		return errAway
	}
	return err
}

// objectPath returns the directory and the file of an object.
func objectPath(name string) (dir, file string) {
	dir = dirPath(name[:strings.LastIndexByte(name, '/')+1])
	return dir, dir + "/" + name[strings.LastIndexByte(name, '/')+1:]
}

// dirPath returns the directory of the objects whose name begins with prefix,
// which is empty or ends in "/", and have no further "/".
func dirPath(prefix string) string {
	if prefix == "" {
		return objectDir
	}
	return objectDir + "/" + strings.ReplaceAll(prefix[:len(prefix)-1], "/", dirSuffix+"/") + dirSuffix
}

// classify turns an error of the file system into one of package backend (S8)
// and names the object.
func classify(name string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		err = backend.ErrNotExist
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		err = fmt.Errorf("%w: %w", backend.ErrFull, err)
	}
	return fmt.Errorf("object %s: %w", name, err)
}

// Usage implements backend.Store: the file system's, which others may share.
func (s *Store) Usage(ctx context.Context) (backend.Usage, error) {
	if s.closed.Load() {
		return backend.Usage{}, errClosed
	}
	if err := ctx.Err(); err != nil {
		return backend.Usage{}, err
	}
	if err := s.look(); err != nil { // an empty mount point has space, of another disk
		return backend.Usage{}, err
	}
	total, free, err := s.fs.Usage()
	if err != nil {
		return backend.Usage{}, fmt.Errorf("local store: %w", err)
	}
	return backend.Usage{Total: total, Free: free}, nil
}

// Features implements backend.Store.
func (s *Store) Features() backend.Features {
	return backend.Features{ConditionalPut: true, ConsistentList: true, CheapReads: true}
}

// Close implements backend.Store. Calls under way finish; later ones fail.
func (s *Store) Close() error {
	s.closed.Store(true)
	return s.files.close()
}
