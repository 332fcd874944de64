package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/openvstorage/ovgate/gateway/alba"
	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// diskDir is a directory on a disk of its own, and how much ovgate may take there.
type diskDir struct {
	Dir   string `yaml:"dir" json:"dir"`
	Bytes int64  `yaml:"bytes" json:"bytes"`
}

// diskRole is what directories are for.
type diskRole struct {
	key    string // of the configuration
	what   string
	marker string // the file that marks a directory as one of the role, and holds it
	min    int64  // bytes
	whole  bool   // no size means all that the file system has
}

var (
	readRole    = diskRole{"read_cache", "read cache", "ovgate-read-cache", 64 << 20, false}
	writeRole   = diskRole{"write_disks", "WRITE disk", "ovgate-write-disk", 256 << 20, false}
	backendRole = diskRole{"asds", "device of the Alba", "", alba.MinCapacity, true} // the Alba opens them
)

const (
	maxDiskDir = 64 << 40 // bytes
	// maxDiskDirs is more than the disks of a node.
	maxDiskDirs = 64
)

// check refuses directories and sizes that cannot be.
func (r diskRole) check(dirs []diskDir) error {
	if len(dirs) > maxDiskDirs {
		return fmt.Errorf("configuration: %s has %d directories: use at most %d", r.key, len(dirs), maxDiskDirs)
	}
	for i, d := range dirs {
		if !filepath.IsAbs(d.Dir) {
			return fmt.Errorf("configuration: %s directory %q: name it from the root, such as /var/cache/ovgate", r.key, d.Dir)
		}
		if (d.Bytes != 0 || !r.whole) && (d.Bytes < r.min || d.Bytes > maxDiskDir) {
			return fmt.Errorf("configuration: %s %s: bytes is %d: use %d to %d", r.key, d.Dir, d.Bytes, r.min, int64(maxDiskDir))
		}
		if slices.ContainsFunc(dirs[:i], func(o diskDir) bool { return filepath.Clean(o.Dir) == filepath.Clean(d.Dir) }) {
			return fmt.Errorf("configuration: %s %s is given twice: leave one out", r.key, d.Dir)
		}
	}
	return nil
}

// open takes a directory that is empty or had this role before. known says that it
// had it.
func (r diskRole) open(dir string, known bool) (fsys blockfs.FS, lock *os.File, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("%s %s: %w: make the directory, or mount its disk, and restart ovgate", r.what, dir, err)
	}
	ours := slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == r.marker })
	for _, e := range entries {
		if !ours && e.Name() != "lost+found" {
			return nil, nil, fmt.Errorf("%s %s holds %s, which is not of a %s: use an empty directory", r.what, dir, e.Name(), r.what)
		}
	}
	if known && !ours {
		return nil, nil, fmt.Errorf("%s %s was used and is empty now: mount its disk and restart ovgate", r.what, dir)
	}
	lock, err = os.OpenFile(filepath.Join(dir, r.marker), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("%s %s: %w", r.what, dir, err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, nil, fmt.Errorf("%s %s is in use by another process: give each node a directory of its own", r.what, dir)
		}
		return nil, nil, fmt.Errorf("%s %s: %w", r.what, dir, err)
	}
	if fsys, err = blockfs.OS(dir); err != nil {
		lock.Close()
		return nil, nil, fmt.Errorf("%s %s: %w", r.what, dir, err)
	}
	return fsys, lock, nil
}

// openReadCaches opens the directories of the read cache. One that cannot be used is
// left out, and health says so: the node serves without it, only slower.
func (n *node) openReadCaches() []volume.ReadCache {
	var out []volume.ReadCache
	for _, r := range n.cfg.ReadCache {
		fsys, lock, err := readRole.open(r.Dir, false)
		if err != nil {
			n.log.Error("read cache not used", "err", err)
			n.readCacheErrs = append(n.readCacheErrs, err)
			continue
		}
		n.onClose(lock.Close)
		out = append(out, volume.ReadCache{Name: r.Dir, FS: fsys, Bytes: r.Bytes})
	}
	return out
}
