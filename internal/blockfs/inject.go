package blockfs

import "sync/atomic"

// Inject returns an FS that calls fn before every operation on fsys and its
// files, Size and Close excepted. An error from fn is what the operation
// returns, without effect; one made by Partial lets a part of a transfer happen.
// op.N counts from 1. fn is called from every goroutine that uses the FS,
// possibly at the same time.
func Inject(fsys FS, fn func(op OpInfo) error) FS { return &injectFS{FS: fsys, fn: fn} }

type injectFS struct {
	FS // Usage and DirectIO pass through
	fn func(op OpInfo) error
	n  atomic.Int64
}

// ask numbers an operation and asks whether it may happen.
func (i *injectFS) ask(op OpInfo) error {
	op.N = i.n.Add(1)
	return i.fn(op)
}

func (i *injectFS) Open(path string, flag Flag) (File, error) {
	if err := i.ask(OpInfo{Kind: OpOpen, Path: path}); err != nil {
		return nil, err
	}
	f, err := i.FS.Open(path, flag)
	if err != nil {
		return nil, err
	}
	return &injectFile{File: f, i: i, path: path, direct: flag&Direct != 0}, nil
}

func (i *injectFS) Remove(path string) error {
	if err := i.ask(OpInfo{Kind: OpRemove, Path: path}); err != nil {
		return err
	}
	return i.FS.Remove(path)
}

func (i *injectFS) Rename(oldpath, newpath string) error {
	if err := i.ask(OpInfo{Kind: OpRename, Path: oldpath, NewPath: newpath}); err != nil {
		return err
	}
	return i.FS.Rename(oldpath, newpath)
}

func (i *injectFS) Link(oldpath, newpath string) error {
	if err := i.ask(OpInfo{Kind: OpLink, Path: oldpath, NewPath: newpath}); err != nil {
		return err
	}
	return i.FS.Link(oldpath, newpath)
}

func (i *injectFS) MkdirAll(path string) error {
	if err := i.ask(OpInfo{Kind: OpMkdir, Path: path}); err != nil {
		return err
	}
	return i.FS.MkdirAll(path)
}

func (i *injectFS) List(path string) ([]Info, error) {
	if err := i.ask(OpInfo{Kind: OpList, Path: path}); err != nil {
		return nil, err
	}
	return i.FS.List(path)
}

func (i *injectFS) ListNames(path string) ([]Info, error) {
	if err := i.ask(OpInfo{Kind: OpList, Path: path}); err != nil {
		return nil, err
	}
	return i.FS.ListNames(path)
}

func (i *injectFS) Stat(path string) (Info, error) {
	if err := i.ask(OpInfo{Kind: OpStat, Path: path}); err != nil {
		return Info{}, err
	}
	return i.FS.Stat(path)
}

func (i *injectFS) SyncDir(path string) error {
	if err := i.ask(OpInfo{Kind: OpSyncDir, Path: path}); err != nil {
		return err
	}
	return i.FS.SyncDir(path)
}

// injectFile asks before every operation. Size and Close pass through.
type injectFile struct {
	File
	i      *injectFS
	path   string
	direct bool
}

func (f *injectFile) ReadAt(p []byte, off int64) (int, error) {
	err := f.i.ask(OpInfo{Kind: OpRead, Path: f.path, Off: off, Len: int64(len(p))})
	if err == nil {
		return f.File.ReadAt(p, off)
	}
	return f.part(f.File.ReadAt, p, off, err)
}

func (f *injectFile) WriteAt(p []byte, off int64) (int, error) {
	err := f.i.ask(OpInfo{Kind: OpWrite, Path: f.path, Off: off, Len: int64(len(p))})
	if err == nil {
		return f.File.WriteAt(p, off)
	}
	return f.part(f.File.WriteAt, p, off, err)
}

// part transfers as much as an injected error allows.
func (f *injectFile) part(transfer func([]byte, int64) (int, error), p []byte, off int64, injected error) (int, error) {
	n, err := asPartial(injected, len(p), f.direct)
	if n == 0 {
		return 0, err
	}
	if n, terr := transfer(p[:n], off); terr != nil {
		return n, terr
	}
	return n, err
}

func (f *injectFile) Sync() error {
	if err := f.i.ask(OpInfo{Kind: OpSync, Path: f.path}); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *injectFile) Truncate(size int64) error {
	if err := f.i.ask(OpInfo{Kind: OpTruncate, Path: f.path, Len: size}); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (f *injectFile) Preallocate(size int64) error {
	if err := f.i.ask(OpInfo{Kind: OpPreallocate, Path: f.path, Len: size}); err != nil {
		return err
	}
	return f.File.Preallocate(size)
}
