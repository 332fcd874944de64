package asd

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/openvstorage/ovgate/internal/blockfs"
)

// indexFS lets pebble run on a blockfs.FS, and keeps A6: at the first operation
// that changes something and fails it is dead. From then on nothing reaches the
// disk any more, and every change claims to have succeeded. pebble panics, or
// calls Fatalf and goes on, on many errors of its log and its manifest; it never
// sees one here, and the Store, which looks whether the file system died before
// it believes a commit, is the one that tells.
type indexFS struct {
	fs   blockfs.FS
	fail func(error)
	dead atomic.Bool

	mu    sync.Mutex
	sizes map[string]int64 // of the files below indexDir
	used  atomic.Int64     // their sum
}

var _ vfs.FS = (*indexFS)(nil)

// errDead is what reads of files get that were made after the end.
var errDead = errors.New("the device failed")

// newIndexFS returns a file system for pebble; fail is told what ends it, and must
// call kill.
func newIndexFS(fsys blockfs.FS, fail func(error)) *indexFS {
	return &indexFS{fs: fsys, fail: fail, sizes: map[string]int64{}}
}

// measure learns what the index takes now.
func (x *indexFS) measure() error {
	infos, err := x.fs.List(indexDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range infos {
		x.resized(path.Join(indexDir, e.Name), e.Size)
	}
	return err
}

// resized notes the size of a file.
func (x *indexFS) resized(name string, size int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.used.Add(size - x.sizes[name])
	x.sizes[name] = size
}

// gone forgets a file and returns its size.
func (x *indexFS) gone(name string) int64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	size := x.sizes[name]
	x.used.Add(-size)
	delete(x.sizes, name)
	return size
}

// kill stops all changes.
func (x *indexFS) kill() { x.dead.Store(true) }

// changed passes on what callers handle, and turns every other error into the
// end of the file system and success.
func (x *indexFS) changed(err error) error {
	if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
		return err
	}
	x.fail(err)
	return nil
}

// Create implements vfs.FS.
func (x *indexFS) Create(name string, _ vfs.DiskWriteCategory) (vfs.File, error) {
	if err := x.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := x.open(name, blockfs.Write|blockfs.Create|blockfs.Excl)
	if err == nil {
		x.resized(name, 0)
	}
	return f, err
}

// open opens a file for changes.
func (x *indexFS) open(name string, flag blockfs.Flag) (vfs.File, error) {
	if x.dead.Load() {
		return deadFile{name: name}, nil
	}
	f, err := x.fs.Open(name, flag)
	if err == nil {
		return &indexFile{x: x, name: name, f: f}, nil
	}
	if err := x.changed(err); err != nil {
		return nil, err
	}
	return deadFile{name: name}, nil
}

// Open implements vfs.FS.
func (x *indexFS) Open(name string, _ ...vfs.OpenOption) (vfs.File, error) {
	f, err := x.fs.Open(name, blockfs.Read)
	if err != nil {
		return nil, err
	}
	return &indexFile{x: x, name: name, f: f}, nil
}

// OpenReadWrite implements vfs.FS.
func (x *indexFS) OpenReadWrite(name string, _ vfs.DiskWriteCategory, _ ...vfs.OpenOption) (vfs.File, error) {
	return x.open(name, blockfs.Write|blockfs.Create)
}

// ReuseForWrite implements vfs.FS: writing over an old log changes no metadata.
func (x *indexFS) ReuseForWrite(oldname, newname string, _ vfs.DiskWriteCategory) (vfs.File, error) {
	if err := x.Rename(oldname, newname); err != nil {
		return nil, err
	}
	return x.open(newname, blockfs.Write)
}

// OpenDir implements vfs.FS.
func (x *indexFS) OpenDir(name string) (vfs.File, error) {
	if _, err := x.fs.Stat(name); err != nil {
		return nil, err
	}
	return &indexDirFile{x: x, name: name}, nil
}

// change makes one operation on names.
func (x *indexFS) change(op func() error) error {
	if x.dead.Load() {
		return nil
	}
	return x.changed(op())
}

// Link implements vfs.FS.
func (x *indexFS) Link(oldname, newname string) error {
	return x.change(func() error { return x.fs.Link(oldname, newname) })
}

// Remove implements vfs.FS.
func (x *indexFS) Remove(name string) error {
	return x.change(func() error {
		err := x.fs.Remove(name)
		if err == nil {
			x.gone(name)
		}
		return err
	})
}

// RemoveAll implements vfs.FS.
func (x *indexFS) RemoveAll(name string) error {
	return x.change(func() error { return removeAll(x.fs, name) })
}

// Rename implements vfs.FS.
func (x *indexFS) Rename(oldname, newname string) error {
	return x.change(func() error {
		err := x.fs.Rename(oldname, newname)
		if err == nil {
			x.resized(newname, x.gone(oldname))
		}
		return err
	})
}

// MkdirAll implements vfs.FS.
func (x *indexFS) MkdirAll(dir string, _ fs.FileMode) error {
	return x.change(func() error { return x.fs.MkdirAll(dir) })
}

// Lock implements vfs.FS. The whole device is locked by whoever opens it.
func (x *indexFS) Lock(string) (io.Closer, error) { return noLock{}, nil }

type noLock struct{}

func (noLock) Close() error { return nil }

// List implements vfs.FS.
func (x *indexFS) List(dir string) ([]string, error) {
	infos, err := x.fs.ListNames(dir)
	names := make([]string, len(infos))
	for i, e := range infos {
		names[i] = e.Name
	}
	return names, err
}

// Stat implements vfs.FS.
func (x *indexFS) Stat(name string) (vfs.FileInfo, error) {
	e, err := x.fs.Stat(name)
	if err != nil {
		return nil, err
	}
	return fileInfo{e}, nil
}

// PathBase implements vfs.FS.
func (x *indexFS) PathBase(p string) string { return path.Base(p) }

// PathJoin implements vfs.FS.
func (x *indexFS) PathJoin(elem ...string) string { return path.Join(elem...) }

// PathDir implements vfs.FS.
func (x *indexFS) PathDir(p string) string { return path.Dir(p) }

// GetDiskUsage implements vfs.FS.
func (x *indexFS) GetDiskUsage(string) (vfs.DiskUsage, error) {
	total, free, err := x.fs.Usage()
	return vfs.DiskUsage{AvailBytes: uint64(free), TotalBytes: uint64(total), UsedBytes: uint64(total - free)}, err
}

// Unwrap implements vfs.FS.
func (x *indexFS) Unwrap() vfs.FS { return nil }

// removeAll removes a directory with what it holds; an absent one is fine.
func removeAll(fsys blockfs.FS, dir string) error {
	infos, err := fsys.ListNames(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range infos {
		name := path.Join(dir, e.Name)
		if e.Dir {
			err = removeAll(fsys, name)
		} else {
			err = fsys.Remove(name)
		}
		if err != nil {
			return err
		}
	}
	return fsys.Remove(dir)
}

// fileInfo is an entry as pebble sees it.
type fileInfo struct{ e blockfs.Info }

func (i fileInfo) Name() string       { return i.e.Name }
func (i fileInfo) Size() int64        { return i.e.Size }
func (i fileInfo) ModTime() time.Time { return i.e.ModTime }
func (i fileInfo) IsDir() bool        { return i.e.Dir }
func (i fileInfo) Sys() any           { return nil }
func (i fileInfo) Mode() fs.FileMode {
	if i.e.Dir {
		return fs.ModeDir | 0o700
	}
	return 0o600
}
func (i fileInfo) DeviceID() vfs.DeviceID { return vfs.DeviceID{} }

// indexFile is an open file. Writes and sequential reads come from one goroutine
// at a time, as pebble promises.
type indexFile struct {
	x    *indexFS
	name string
	f    blockfs.File
	off  int64 // of the next Read or Write
	size int64 // as far as it was written through this handle
}

var _ vfs.File = (*indexFile)(nil)

func (f *indexFile) Read(p []byte) (int, error) {
	n, err := f.f.ReadAt(p, f.off)
	f.off += int64(n)
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

func (f *indexFile) ReadAt(p []byte, off int64) (int, error) { return f.f.ReadAt(p, off) }

func (f *indexFile) Write(p []byte) (int, error) {
	n, err := f.WriteAt(p, f.off)
	f.off += int64(n)
	return n, err
}

func (f *indexFile) WriteAt(p []byte, off int64) (int, error) {
	err := f.x.change(func() error {
		_, err := f.f.WriteAt(p, off)
		return err
	})
	if end := off + int64(len(p)); end > f.size && err == nil {
		f.size = end
		f.x.grown(f.name, end)
	}
	return len(p), err
}

// grown notes that a file reaches at least to size.
func (x *indexFS) grown(name string, size int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if was := x.sizes[name]; size > was {
		x.used.Add(size - was)
		x.sizes[name] = size
	}
}

func (f *indexFile) Sync() error                         { return f.x.change(f.f.Sync) }
func (f *indexFile) SyncData() error                     { return f.Sync() }
func (f *indexFile) SyncTo(int64) (bool, error)          { return false, nil }
func (f *indexFile) Preallocate(int64, int64) error      { return nil }
func (f *indexFile) Prefetch(offset, length int64) error { return nil }
func (f *indexFile) Fd() uintptr                         { return vfs.InvalidFd }

func (f *indexFile) Stat() (vfs.FileInfo, error) {
	size, err := f.f.Size()
	if err != nil {
		return nil, err
	}
	return fileInfo{blockfs.Info{Name: path.Base(f.name), Size: size}}, nil
}

func (f *indexFile) Close() error {
	err := f.f.Close()
	if f.x.dead.Load() {
		return nil
	}
	return err
}

// indexDirFile is a directory opened to be synced.
type indexDirFile struct {
	deadFile
	x    *indexFS
	name string
}

func (d *indexDirFile) Sync() error {
	return d.x.change(func() error { return d.x.fs.SyncDir(d.name) })
}
func (d *indexDirFile) SyncData() error { return d.Sync() }

// deadFile takes writes and keeps nothing.
type deadFile struct{ name string }

var _ vfs.File = deadFile{}

func (d deadFile) Read([]byte) (int, error)               { return 0, errDead }
func (d deadFile) ReadAt([]byte, int64) (int, error)      { return 0, errDead }
func (d deadFile) Write(p []byte) (int, error)            { return len(p), nil }
func (d deadFile) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (d deadFile) Sync() error                            { return nil }
func (d deadFile) SyncData() error                        { return nil }
func (d deadFile) SyncTo(int64) (bool, error)             { return false, nil }
func (d deadFile) Preallocate(int64, int64) error         { return nil }
func (d deadFile) Prefetch(int64, int64) error            { return nil }
func (d deadFile) Fd() uintptr                            { return vfs.InvalidFd }
func (d deadFile) Close() error                           { return nil }
func (d deadFile) Stat() (vfs.FileInfo, error) {
	return fileInfo{blockfs.Info{Name: path.Base(d.name)}}, nil
}

// indexLog takes pebble's messages. What it tells of its ordinary work is dropped.
type indexLog struct {
	log  *slog.Logger
	fail func(error)
}

func (l indexLog) Infof(string, ...any) {}

func (l indexLog) Errorf(format string, args ...any) {
	l.log.Warn("asd: index: " + fmt.Sprintf(format, args...))
}

// Fatalf does not end the process, as pebble expects: the device fails, and with
// it the file system below pebble, so that what it does next reaches no disk.
func (l indexLog) Fatalf(format string, args ...any) {
	l.fail(fmt.Errorf("index: "+format, args...))
}
