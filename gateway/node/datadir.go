package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// formatVersion is the newest data directory format this code knows; formatFirst is that of
// a new one, formatMoved of one whose registry is in etcd.
const (
	formatVersion = 2
	formatFirst   = 1
	formatMoved   = 2
)

// Names in the data directory.
const (
	lockFile   = "lock"
	formatFile = "format"
	kvFile     = "kv.db"
	kvMoved    = "kv.db.moved"
	placeFile  = "cluster.json"
	joinFile   = "join.json"
	selfFile   = "node.json"
	adminFile  = "admin.token"
	setupFile  = "setup.token"
	apiFile    = "api.json"
	sealFile   = "seal.key"
	tlsDir     = "tls"
	localDir   = "local"
	backendDir = "backend"
	etcdDir    = "etcd"
	aloneFile  = "registry.alone" // the registry's member goes on without the others
	auditDir   = "audit"
	eventsDir  = "events"
	metricsDir = "metrics"
)

const (
	// minFree is what a new data directory needs: a first journal chunk and kv.
	minFree = 128 << 20
	// probeSize is written at each start to see that the disk takes data.
	probeSize = 1 << 20
)

// dataDir is a data directory held by this process.
type dataDir struct {
	path string
	lock *os.File
	made bool // it had no format: this is the first start
	// format is what the directory has, formatMoved for one; 0 with made.
	format int
}

// openDataDir takes the directory for this process, making it when absent (N1).
func openDataDir(path string, log *slog.Logger) (*dataDir, error) {
	if path == "" {
		return nil, errors.New("no data directory: name one with --data DIR")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", path, err)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("data directory %s cannot be made: %w; choose another with --data", path, err)
	}
	if err := refuseForeign(path); err != nil {
		return nil, err
	}
	d := &dataDir{path: path}
	if d.lock, err = lockDir(path); err != nil {
		return nil, err
	}
	if err := d.prepare(log); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func (d *dataDir) file(name ...string) string {
	return filepath.Join(append([]string{d.path}, name...)...)
}

// Close releases the directory.
func (d *dataDir) Close() error { return d.lock.Close() }

// refuseForeign refuses a directory that was never a data directory and has
// subdirectories of others, such as / or /home.
func refuseForeign(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return fmt.Errorf("data directory %s cannot be read: %w; choose another with --data", path, err)
	}
	ours := map[string]bool{tlsDir: true, localDir: true, backendDir: true, etcdDir: true, "alba": true, "asd": true, "lost+found": true}
	foreign := ""
	for _, e := range entries {
		if e.Name() == formatFile {
			return nil
		}
		if e.IsDir() && !ours[e.Name()] && !strings.HasPrefix(e.Name(), ".") {
			foreign = e.Name()
		}
	}
	if foreign != "" {
		return fmt.Errorf("directory %s is no ovgate data directory and holds %s: use an empty directory", path, foreign)
	}
	return nil
}

// lockDir holds DIR/lock for this process and writes its id into it.
func lockDir(path string) (*os.File, error) {
	name := filepath.Join(path, lockFile)
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, unwritable(path, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("data directory %s cannot be locked: %w", path, err)
		}
		b := make([]byte, 32)
		n, _ := f.ReadAt(b, 0) // without a process id the message is still right
		return nil, fmt.Errorf("data directory %s is in use by the ovgate process %s: stop that one, or choose another directory with --data", path, strings.TrimSpace(string(b[:n])))
	}
	return f, nil
}

func unwritable(path string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("data directory %s is full: %w; free space on its disk", path, err)
	}
	return fmt.Errorf("data directory %s is not writable: %w; give this user the directory, or choose another with --data", path, err)
}

// prepare checks format and space and leaves the process id in the lock.
func (d *dataDir) prepare(log *slog.Logger) error {
	if err := d.checkFormat(); err != nil {
		return err
	}
	if err := d.checkSpace(); err != nil {
		return err
	}
	if err := d.lock.Truncate(0); err != nil {
		return unwritable(d.path, err)
	}
	if _, err := d.lock.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0); err != nil {
		return unwritable(d.path, err)
	}
	st, err := os.Stat(d.path)
	if err != nil {
		return unwritable(d.path, err)
	}
	if st.Mode().Perm()&0o077 != 0 {
		log.Warn("data directory was open to others; it is closed now", "path", d.path, "mode", st.Mode().Perm().String())
		if err := os.Chmod(d.path, 0o700); err != nil {
			return unwritable(d.path, err)
		}
	}
	if !d.made {
		return nil
	}
	return d.setFormat(formatFirst)
}

func (d *dataDir) setFormat(version int) error {
	b, err := json.Marshal(format{version})
	if err != nil {
		return err
	}
	if err := writeFile(d.file(formatFile), append(b, '\n'), 0o600); err != nil {
		return unwritable(d.path, err)
	}
	return nil
}

type format struct {
	Format int `json:"format"`
}

func (d *dataDir) checkFormat() error {
	b, err := os.ReadFile(d.file(formatFile))
	if errors.Is(err, fs.ErrNotExist) {
		d.made = true
		return nil
	}
	if err != nil {
		return fmt.Errorf("data directory %s: %w", d.path, err)
	}
	var f format
	if err := json.Unmarshal(b, &f); err != nil || f.Format < 1 {
		return fmt.Errorf("data directory %s: the file %s is damaged: bring it back from a copy; it holds {\"format\":1} in this version", d.path, formatFile)
	}
	if f.Format > formatVersion {
		return fmt.Errorf("data directory %s has format %d, this ovgate knows %d: upgrade ovgate; nothing was changed", d.path, f.Format, formatVersion)
	}
	d.format = f.Format
	return nil
}

// checkSpace refuses a full disk before anything depends on it.
func (d *dataDir) checkSpace() error {
	if d.made {
		var st unix.Statfs_t
		if err := unix.Statfs(d.path, &st); err != nil {
			return fmt.Errorf("data directory %s: %w", d.path, err)
		}
		if free := int64(st.Bavail) * st.Bsize; free < minFree {
			return fmt.Errorf("data directory %s is full: its disk has %d MiB free, a node needs %d MiB: free space, or choose another directory with --data", d.path, free>>20, minFree>>20)
		}
	}
	probe := d.file(".probe")
	err := writeFile(probe, make([]byte, probeSize), 0o600)
	if rerr := os.Remove(probe); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	if err != nil {
		return unwritable(d.path, err)
	}
	return nil
}

// writeFile replaces a file atomically and durably.
func writeFile(name string, data []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	for _, step := range []func() error{func() error { return f.Chmod(mode) }, f.Sync} {
		if err == nil {
			err = step()
		}
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(filepath.Dir(name))
}

func syncDir(name string) error {
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
