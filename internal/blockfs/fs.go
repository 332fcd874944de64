// Package blockfs is the file layer under everything that must survive a power
// cut: journal chunks, local checkpoints, the local-directory backend. It has
// three implementations that run the same code above them:
//
//   - OS: real files; O_DIRECT and O_DSYNC where the file system allows.
//   - Mem: memory, with a crash clone that keeps, drops, tears (512 B) or
//     reorders what was not made durable.
//   - Inject: wraps either and fails or observes chosen operations.
//
// # Durability model
//
//	B1  Bytes written through a file opened with DSync are durable when WriteAt
//	    returns nil. Until then any subset of their 512-byte sectors may be.
//	B2  Bytes written otherwise are durable after Sync on any handle of that
//	    file; before it, any subset of sectors, in any order, may be.
//	B3  A name (create, rename, link, remove, mkdir) is durable after SyncDir on
//	    its directory. Before it, a crash keeps a prefix of the name operations
//	    of that directory, in the order they were made.
//	B4  A size change through Truncate or Preallocate is durable after Sync.
//	B5  After an error from WriteAt or Sync the affected range holds anything,
//	    durably or not. Earlier durable ranges are untouched.
//
// A rename between two directories is one operation in each, and durable when
// both were synced; sync the new directory first. In Mem every choice that the
// rules leave open can be made the worst way; OS is usually kinder.
//
// Paths are slash-separated and relative to the FS's root, which is "."; ".." is
// refused. Symbolic links are neither made nor looked out for: the tree belongs
// to the process.
package blockfs

import (
	"errors"
	"io"
	"time"
	"unsafe"
)

// Alignment of offsets, lengths and buffers for Direct files, in bytes.
const Alignment = 4096

// SectorSize is the unit that a device writes atomically, in bytes.
const SectorSize = 512

// Errors. Implementations wrap them with the path; OS errors such as
// fs.ErrNotExist, fs.ErrExist, syscall.ENOSPC and syscall.EIO pass through
// errors.Is on every implementation.
var (
	// ErrCrashed: the in-memory file system was crashed; the handle is dead.
	ErrCrashed = errors.New("blockfs: crashed")
	// ErrUnaligned: a Direct file was used with an unaligned offset, length or buffer.
	ErrUnaligned = errors.New("blockfs: unaligned direct I/O")
)

// Flag selects how a file is opened.
type Flag int

// Open flags.
const (
	Read   Flag = 0         // read only
	Write  Flag = 1 << iota // read and write
	Create                  // create if absent
	Excl                    // with Create: fail if present
	Direct                  // bypass the page cache where the file system can
	DSync                   // writes are durable on return
)

// File is an open file. Safe for concurrent use; overlapping concurrent writes
// end up in an undefined order.
type File interface {
	io.ReaderAt // may return fewer bytes only with io.EOF at the end of the file
	io.WriterAt
	// Sync makes content and size durable.
	Sync() error
	// Truncate sets the size, in bytes.
	Truncate(size int64) error
	// Preallocate grows the file to size bytes with zeros that are really
	// written, and makes content and size durable, so that later writes inside
	// change no metadata. What the file holds already stays; a file that is
	// that large is only synced. Disk full is reported here, not at a later
	// write, and leaves the size as it was. Not to be called while others write
	// beyond the present end.
	Preallocate(size int64) error
	// Size returns the size in bytes.
	Size() (int64, error)
	Close() error
}

// Info describes a directory entry.
type Info struct {
	Name string // base name
	Size int64  // bytes; 0 for directories
	Dir  bool
	// ModTime is when the content last changed; zero where it is not known.
	ModTime time.Time
}

// FS is a tree of files. Safe for concurrent use.
type FS interface {
	Open(path string, flag Flag) (File, error)
	// Remove deletes a file or an empty directory.
	Remove(path string) error
	// Rename moves a file, replacing an existing one atomically.
	Rename(oldpath, newpath string) error
	// Link gives a file a second name; fs.ErrExist if newpath exists. It is the
	// atomic "create if absent" of a file with content.
	Link(oldpath, newpath string) error
	// MkdirAll makes a directory and its parents, durably.
	MkdirAll(path string) error
	// List returns the entries of a directory sorted by name.
	List(path string) ([]Info, error)
	// ListNames is List without sizes and times, for large directories: it
	// looks at no entry by itself.
	ListNames(path string) ([]Info, error)
	Stat(path string) (Info, error)
	// SyncDir makes the names in a directory durable.
	SyncDir(path string) error
	// Usage returns the capacity of the device below, without what is reserved, and the free
	// bytes of it.
	Usage() (total, free int64, err error)
	// DirectIO tells whether Direct is honoured; when false, files opened with
	// it are ordinary (the caller says so once in the log).
	DirectIO() bool
}

// WriteFile replaces path with data atomically and durably: after a crash the
// file holds the old or the new content, whole. One call per path at a time. The
// content passes through a file whose name ends in TempSuffix.
func WriteFile(fsys FS, path string, data []byte) error { return writeFile(fsys, path, data) }

// ReadFile returns the content of a file; an error if it exceeds limit bytes.
func ReadFile(fsys FS, path string, limit int64) ([]byte, error) {
	return readFile(fsys, path, limit)
}

// AlignedBuffer returns n zeroed bytes whose address is a multiple of Alignment.
func AlignedBuffer(n int) []byte { return alignedBuffer(n) }

// Aligned reports whether the address of p suits a Direct file.
func Aligned(p []byte) bool {
	return len(p) == 0 || uintptr(unsafe.Pointer(unsafe.SliceData(p)))%Alignment == 0
}
