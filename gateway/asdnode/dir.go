package asdnode

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/openvstorage/ovgate/alba/asd"
	"github.com/openvstorage/ovgate/internal/blockfs"
)

// Names in a device's directory.
const (
	lockName  = "lock"
	storeName = "asd"
	tlsName   = "tls.pem"
	keyName   = "access.key"
)

var (
	// ErrInUse: another process has the directory.
	ErrInUse = errors.New("in use by another process")
	// ErrUnfit: the directory holds something else, or cannot be used.
	ErrUnfit = errors.New("it cannot be a device")
)

// unfit is an error that matches ErrUnfit and says it in words of its own.
func unfit(format string, args ...any) error {
	return unfitError{fmt.Sprintf(format, args...)}
}

type unfitError struct{ text string }

func (e unfitError) Error() string { return e.text }

// Is makes errors.Is(err, ErrUnfit) true.
func (e unfitError) Is(target error) bool { return target == ErrUnfit }

// Options configure OpenDir. The zero value opens any device, and makes one where
// the directory is empty or absent.
type Options struct {
	// ID is the identity that the device must have, or gets when it is made; empty:
	// any.
	ID string
	// Existing refuses to make a device: for one that is known to be there, whose
	// disk may not be mounted.
	Existing bool
	Capacity int64        // bytes that the device may take of its disk; 0: all
	Version  string       // what osd.Info says of the software
	Log      *slog.Logger // nil discards
}

// OpenDir takes a directory for this process and opens the device in it. Close the
// store first, then the lock, which ends with the process too. What is
// wrong with the directory is an error that names it and says what to do:
// ErrInUse, osd.ErrIdentity and others.
func OpenDir(dir string, o Options) (store *asd.Store, lock io.Closer, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("asd directory: %w", err)
	}
	fail := func(err error) (*asd.Store, io.Closer, error) {
		return nil, nil, fmt.Errorf("asd directory %s: %w", dir, err)
	}
	served, err := refuseForeign(dir, o.Existing)
	if err != nil {
		return fail(err)
	}
	root, err := blockfs.OS(dir) // makes it durably
	if err != nil {
		return fail(err)
	}
	held, err := lockFile(filepath.Join(dir, lockName))
	if err != nil {
		return fail(err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, held.Close())
		}
	}()
	if err := root.SyncDir("."); err != nil {
		return fail(err)
	}
	store, err = openStore(dir, o, !o.Existing && !served)
	if err != nil {
		return fail(err)
	}
	return store, held, nil
}

// openStore opens the store of a directory that this process has taken.
func openStore(dir string, o Options, create bool) (*asd.Store, error) {
	fsys, err := blockfs.OS(filepath.Join(dir, storeName))
	if err != nil {
		return nil, err
	}
	return asd.Open(fsys, asd.Options{Create: create, ID: o.ID, Rand: rand.Reader, Capacity: o.Capacity, Version: o.Version, Log: o.Log})
}

// openAgain opens the store of a directory that this process has taken and had open before; o.ID
// is its identity. A directory in which it is not any more is left alone: its disk is gone.
func openAgain(dir string, o Options) (*asd.Store, error) {
	if _, err := refuseForeign(dir, true); err != nil {
		return nil, fmt.Errorf("asd directory %s: %w", dir, err)
	}
	s, err := openStore(dir, o, false)
	if err != nil {
		return nil, fmt.Errorf("asd directory %s: %w", dir, err)
	}
	return s, nil
}

// refuseForeign keeps D1: nothing is made or locked before it agreed. served tells
// that a device was in the directory once, and Run served it.
func refuseForeign(dir string, existing bool) (served bool, err error) {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !existing:
		return false, nil
	case errors.Is(err, fs.ErrNotExist):
		return false, fmt.Errorf("%w: mount its disk", err)
	case errors.Is(err, unix.ENOTDIR):
		return false, unfit("it is a file: name a directory")
	case err != nil:
		return false, fmt.Errorf("%w: give this user the directory, or choose another", err)
	}
	device := false
	for _, e := range entries {
		device = device || e.Name() == storeName && e.IsDir()
	}
	if existing && !device {
		return false, unfit("there is no ASD in it: mount the disk that holds it")
	}
	for _, e := range entries {
		served = served || e.Name() == tlsName || e.Name() == keyName
		if !own(e, device) {
			return false, unfit("it holds %q, which is not of an ASD: move that elsewhere, or use an empty directory; nothing was changed", e.Name())
		}
	}
	return served, nil
}

// own tells the names of a device's directory from others; before the device was
// made there is no more than the lock.
func own(e fs.DirEntry, device bool) bool {
	switch name := e.Name(); name {
	case lockName, "lost+found", ".blockfs-probe":
		return true
	case storeName:
		return e.IsDir()
	default:
		name = strings.TrimSuffix(name, blockfs.TempSuffix)
		return device && (name == tlsName || name == keyName)
	}
}

// lockFile holds a file locked for this process and leaves its id there.
func lockFile(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		b := make([]byte, 32)
		n, _ := f.ReadAt(b, 0) // without a process id the message is still right
		err = fmt.Errorf("%w, %s: stop that one, or choose another directory", ErrInUse, bytes.TrimSpace(b[:n]))
	} else if err == nil {
		if err = f.Truncate(0); err == nil {
			_, err = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
