package local

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/backend"
)

// lockName is the file in a store's root that its process holds locked.
const lockName = "lock"

// Lock takes the directory of a store for this process, making it when absent,
// and returns what releases it. It fails with backend.ErrInUse while another
// process, or another Lock of this one, holds it. The lock ends with the
// process, however that dies; the file stays.
func Lock(dir string) (io.Closer, error) {
	if _, err := blockfs.OS(dir); err != nil { // makes the directory durably
		return nil, fmt.Errorf("local store: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("local store: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return f, nil
	}
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = backend.ErrInUse
	}
	return nil, errors.Join(
		fmt.Errorf("local store %s: %w; stop the other process or choose another directory", dir, err),
		f.Close())
}
