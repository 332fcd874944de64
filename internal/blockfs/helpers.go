package blockfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"syscall"
	"unsafe"
)

// TempSuffix ends the name of the file that WriteFile fills before it takes its
// final name; code that lists a directory ignores such names. A crash can leave
// one behind; the next WriteFile of that path removes it.
const TempSuffix = ".tmp~"

func writeFile(fsys FS, name string, data []byte) error {
	tmp := name + TempSuffix
	if err := fsys.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the leftover of an earlier write: %w", err)
	}
	if err := writeNew(fsys, tmp, data); err != nil {
		return errors.Join(err, removeTemp(fsys, tmp))
	}
	if err := fsys.Rename(tmp, name); err != nil {
		return errors.Join(err, removeTemp(fsys, tmp))
	}
	return fsys.SyncDir(path.Dir(name))
}

// writeNew creates a file with durable content; its name is not durable yet.
func writeNew(fsys FS, name string, data []byte) error {
	f, err := fsys.Open(name, Write|Create|Excl)
	if err != nil {
		return err
	}
	if len(data) > 0 {
		_, err = f.WriteAt(data, 0)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// removeTemp cleans up after a failed write; that there is nothing to remove is
// no error.
func removeTemp(fsys FS, name string) error {
	if err := fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func readFile(fsys FS, name string, limit int64) (_ []byte, err error) {
	f, err := fsys.Open(name, Read)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, fmt.Errorf("blockfs: %s holds %d bytes, more than the %d expected", name, size, limit)
	}
	buf := make([]byte, size)
	n, err := f.ReadAt(buf, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if int64(n) != size {
		return nil, fmt.Errorf("blockfs: %s: read %d of %d bytes: %w", name, n, size, io.ErrUnexpectedEOF)
	}
	return buf, nil
}

func alignedBuffer(n int) []byte {
	if n == 0 {
		return []byte{}
	}
	b := make([]byte, n+Alignment-1)
	skip := 0
	if r := int(uintptr(unsafe.Pointer(&b[0])) % Alignment); r != 0 {
		skip = Alignment - r
	}
	return b[skip : skip+n : skip+n]
}

// checkAligned refuses what a Direct file cannot transfer.
func checkAligned(name string, p []byte, off int64) error {
	if off%Alignment == 0 && len(p)%Alignment == 0 && Aligned(p) {
		return nil
	}
	return fmt.Errorf("%s: offset %d, length %d: %w", name, off, len(p), ErrUnaligned)
}

// checkRange refuses offsets that no file can have.
func checkRange(op, name string, off int64) error {
	if off < 0 {
		return &fs.PathError{Op: op, Path: name, Err: syscall.EINVAL}
	}
	return nil
}

// memFileMax bounds a file of Mem, in bytes: its page table takes 2 bytes per KiB,
// holes included.
const memFileMax = 64 << 30

// checkMemSize refuses sizes whose page table would exhaust memory.
func checkMemSize(size int64) error {
	if size < 0 || size > memFileMax {
		return syscall.EFBIG
	}
	return nil
}

// cleanPath returns the canonical form of a path below the root: "." for the
// root itself, else segments joined by "/". Absolute paths, ".." and NUL are
// refused.
func cleanPath(op, name string) (string, error) {
	if strings.HasPrefix(name, "/") || strings.ContainsRune(name, 0) {
		return "", &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	for seg := range strings.SplitSeq(name, "/") {
		if seg == ".." {
			return "", &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
		}
	}
	return path.Clean(name), nil
}

// splitPath returns the segments of a clean path; none for the root.
func splitPath(clean string) []string {
	if clean == "." {
		return nil
	}
	return strings.Split(clean, "/")
}
