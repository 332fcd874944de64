package blockfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// Modes of what OS creates: block data is nobody else's.
const (
	dirMode  = 0o700
	fileMode = 0o600
)

// prewriteSize is the length of one write of zeros in Preallocate, in bytes:
// large enough to run at the device's sequential speed, small enough to keep
// in memory per call.
const prewriteSize = 1 << 20

// probeName is the file made and removed at construction to learn whether the
// file system takes O_DIRECT.
const probeName = ".blockfs-probe"

// OS returns the file system below the directory root, which is made (and its
// parents) when absent. It tries once whether O_DIRECT works there; where it
// does not (tmpfs), Direct files are ordinary ones with the same alignment
// checks, and DirectIO returns false.
func OS(root string) (FS, error) {
	abs, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("blockfs: root %q: %w", root, err)
	}
	if err := mkdirDurable(abs); err != nil {
		return nil, fmt.Errorf("blockfs: root: %w", err)
	}
	direct, err := probeDirect(filepath.Join(abs, probeName))
	if err != nil {
		return nil, fmt.Errorf("blockfs: root %s is not writable: %w", abs, err)
	}
	return &osFS{root: abs, direct: direct}, nil
}

type osFS struct {
	root   string
	direct bool
	// mkdir serializes MkdirAll, so that a directory found present was made
	// durable by whoever made it through this FS.
	mkdir sync.Mutex
}

var _ FS = (*osFS)(nil)

// probeDirect tells whether a file can be opened and written with O_DIRECT. Two
// probes at a time do not disturb each other: each makes the file if need be, and
// it does not matter which removes it.
func probeDirect(name string) (ok bool, err error) {
	plain, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return false, err
	}
	defer func() {
		err = errors.Join(err, plain.Close())
		if rerr := os.Remove(name); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}()
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_DIRECT, fileMode)
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EOPNOTSUPP) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	// Some file systems take the flag at open and refuse the transfer.
	_, err = f.WriteAt(alignedBuffer(Alignment), 0)
	if errors.Is(err, syscall.EINVAL) {
		return false, nil
	}
	return err == nil, err
}

// path maps a path of the FS to one of the machine.
func (o *osFS) path(op, name string) (string, error) {
	clean, err := cleanPath(op, name)
	if err != nil {
		return "", err
	}
	return filepath.Join(o.root, filepath.FromSlash(clean)), nil
}

func (o *osFS) Open(name string, flag Flag) (File, error) {
	p, err := o.path("open", name)
	if err != nil {
		return nil, err
	}
	mode := os.O_RDONLY
	if flag&Write != 0 {
		mode = os.O_RDWR
	}
	if flag&Create != 0 {
		mode |= os.O_CREATE
		if flag&Excl != 0 {
			mode |= os.O_EXCL
		}
	}
	if flag&DSync != 0 {
		mode |= syscall.O_DSYNC
	}
	if flag&Direct != 0 && o.direct {
		mode |= syscall.O_DIRECT
	}
	f, err := os.OpenFile(p, mode, fileMode)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = &fs.PathError{Op: "open", Path: p, Err: syscall.EISDIR}
	}
	raw, rerr := f.SyscallConn()
	if err = errors.Join(err, rerr); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &osFile{f: f, aligned: flag&Direct != 0, direct: mode & syscall.O_DIRECT, raw: raw}, nil
}

func (o *osFS) Remove(name string) error {
	p, err := o.path("remove", name)
	if err != nil {
		return err
	}
	return os.Remove(p)
}

func (o *osFS) Rename(oldname, newname string) error {
	oldp, err := o.path("rename", oldname)
	if err != nil {
		return err
	}
	newp, err := o.path("rename", newname)
	if err != nil {
		return err
	}
	return os.Rename(oldp, newp)
}

func (o *osFS) Link(oldname, newname string) error {
	oldp, err := o.path("link", oldname)
	if err != nil {
		return err
	}
	newp, err := o.path("link", newname)
	if err != nil {
		return err
	}
	return os.Link(oldp, newp)
}

func (o *osFS) MkdirAll(name string) error {
	p, err := o.path("mkdir", name)
	if err != nil {
		return err
	}
	o.mkdir.Lock()
	defer o.mkdir.Unlock()
	rel, err := filepath.Rel(o.root, p)
	if err != nil || rel == "." {
		return err
	}
	dir := o.root
	for _, seg := range splitPath(filepath.ToSlash(rel)) {
		parent := dir
		dir = filepath.Join(dir, seg)
		if err := mkdirOne(parent, dir); err != nil {
			return err
		}
	}
	return nil
}

// mkdirOne makes dir in parent, durably. The parent is synced even when dir
// exists: a process that died may have made it and not come to the sync.
func mkdirOne(parent, dir string) error {
	err := os.Mkdir(dir, dirMode)
	if errors.Is(err, fs.ErrExist) {
		info, serr := os.Stat(dir)
		if serr != nil {
			return serr
		}
		if !info.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
		}
		err = nil
	}
	if err != nil {
		return err
	}
	return syncDir(parent)
}

// mkdirDurable makes the root and its parents. A root that exists may have been
// made by a process that died right after, so its name is made durable too, unless
// the directory above is not ours to read; then somebody else made it.
func mkdirDurable(dir string) error {
	parent := filepath.Dir(dir)
	info, err := os.Stat(dir)
	switch {
	case err == nil && !info.IsDir():
		return &fs.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
	case err == nil:
		if err := syncDir(parent); err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EINVAL) {
			return err
		}
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := mkdirDurable(parent); err != nil {
		return err
	}
	return mkdirOne(parent, dir)
}

func (o *osFS) List(name string) ([]Info, error) { return o.list(name, true) }

func (o *osFS) ListNames(name string) ([]Info, error) { return o.list(name, false) }

// list reads a directory; with stat it looks up size and time of each entry.
// Entries that vanish in between are left out.
func (o *osFS) list(name string, stat bool) ([]Info, error) {
	p, err := o.path("list", name)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(p)
	if err != nil {
		return nil, err
	}
	infos := make([]Info, 0, len(entries))
	for _, e := range entries {
		if !stat {
			infos = append(infos, Info{Name: e.Name(), Dir: e.IsDir()})
			continue
		}
		fi, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		infos = append(infos, infoOf(fi))
	}
	return infos, nil
}

func (o *osFS) Stat(name string) (Info, error) {
	p, err := o.path("stat", name)
	if err != nil {
		return Info{}, err
	}
	fi, err := os.Stat(p)
	if err != nil {
		return Info{}, err
	}
	return infoOf(fi), nil
}

func infoOf(fi fs.FileInfo) Info {
	info := Info{Name: fi.Name(), Dir: fi.IsDir(), ModTime: fi.ModTime()}
	if !info.Dir {
		info.Size = fi.Size()
	}
	return info
}

func (o *osFS) SyncDir(name string) error {
	p, err := o.path("syncdir", name)
	if err != nil {
		return err
	}
	return syncDir(p)
}

func syncDir(dir string) error {
	f, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (o *osFS) Usage() (total, free int64, err error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(o.root, &st); err != nil {
		return 0, 0, &fs.PathError{Op: "statfs", Path: o.root, Err: err}
	}
	// As df reckons: what the file system keeps for root is neither used nor free.
	return int64(st.Blocks-(st.Bfree-st.Bavail)) * st.Bsize, int64(st.Bavail) * st.Bsize, nil
}

func (o *osFS) DirectIO() bool { return o.direct }

// osFile is an open file of the machine.
type osFile struct {
	f       *os.File
	aligned bool // opened with Direct: alignment is checked whether honoured or not
	direct  int  // O_DIRECT when honoured, else 0
	raw     syscall.RawConn
}

var _ File = (*osFile)(nil)

func (f *osFile) ReadAt(p []byte, off int64) (int, error) {
	if !f.aligned {
		return f.f.ReadAt(p, off)
	}
	if err := checkAligned(f.f.Name(), p, off); err != nil {
		return 0, err
	}
	alone := brief.enter()
	defer brief.leave()
	if alone && f.direct != 0 && len(p) > 0 && brief.try(f.raw, p, off) {
		return len(p), nil
	}
	n, err := f.f.ReadAt(p, off)
	// A file that ends inside a block gives a short read; os.File then asks for
	// the rest at an unaligned offset, which O_DIRECT refuses. It was the end.
	if n%Alignment != 0 && errors.Is(err, syscall.EINVAL) {
		err = io.EOF
	}
	return n, err
}

func (f *osFile) WriteAt(p []byte, off int64) (int, error) {
	if f.aligned {
		if err := checkAligned(f.f.Name(), p, off); err != nil {
			return 0, err
		}
	}
	return f.f.WriteAt(p, off)
}

func (f *osFile) Sync() error { return f.f.Sync() }

func (f *osFile) Truncate(size int64) error { return f.f.Truncate(size) }

func (f *osFile) Size() (int64, error) {
	fi, err := f.f.Stat()
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

func (f *osFile) Close() error { return f.f.Close() }

func (f *osFile) Preallocate(size int64) error {
	if err := checkRange("preallocate", f.f.Name(), size); err != nil {
		return err
	}
	old, err := f.Size()
	if err != nil {
		return err
	}
	if f.aligned && (size%Alignment != 0 || old%Alignment != 0) {
		return fmt.Errorf("%s: preallocate from %d to %d: %w", f.f.Name(), old, size, ErrUnaligned)
	}
	if size > old {
		err := f.reserve(size)
		if err == nil {
			err = f.prewrite(old, size)
		}
		if err != nil { // a full disk gets back what was taken
			return errors.Join(err, f.f.Truncate(old))
		}
	}
	return f.f.Sync()
}

// reserve asks the file system for the blocks first, so that a full disk is
// found out before the time is spent on writing. Where that is not supported
// the pre-write finds out.
func (f *osFile) reserve(size int64) error {
	for {
		err := syscall.Fallocate(int(f.f.Fd()), 0, 0, size)
		switch {
		case err == nil || errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOSYS):
			return nil
		case errors.Is(err, syscall.EINTR):
		default:
			return &fs.PathError{Op: "fallocate", Path: f.f.Name(), Err: err}
		}
	}
}

// prewrite writes zeros from one offset to another. Blocks that are only
// reserved would be converted by the first write into them, which costs a
// metadata commit on a file opened with DSync.
func (f *osFile) prewrite(from, to int64) (err error) {
	w := f.f
	// A second descriptor of the same inode without O_DSYNC spares a flush per
	// write; without it the writes go the slow way.
	if plain, perr := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.f.Fd()), os.O_WRONLY|f.direct, 0); perr == nil {
		w = plain
		defer func() { err = errors.Join(err, plain.Close()) }()
	}
	zeros := alignedBuffer(int(min(prewriteSize, to-from)))
	for off := from; off < to; off += int64(len(zeros)) {
		zeros = zeros[:min(int64(len(zeros)), to-off)]
		if _, err := w.WriteAt(zeros, off); err != nil {
			return err
		}
	}
	return nil
}
