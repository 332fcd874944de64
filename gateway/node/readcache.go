package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// readCache is a directory on a READ disk, and how much of it the read cache may take.
type readCache struct {
	Dir   string `yaml:"dir"`
	Bytes int64  `yaml:"bytes"`
}

const (
	// readCacheFile marks a directory as one of the read cache, and holds it.
	readCacheFile = "ovgate-read-cache"
	minReadCache  = 64 << 20
	maxReadCache  = 64 << 40
	// maxReadCaches is more than the disks of a node.
	maxReadCaches = 64
)

func (c config) checkReadCaches() error {
	if len(c.ReadCache) > maxReadCaches {
		return fmt.Errorf("configuration: read_cache has %d directories: use at most %d", len(c.ReadCache), maxReadCaches)
	}
	for i, r := range c.ReadCache {
		if !filepath.IsAbs(r.Dir) {
			return fmt.Errorf("configuration: read_cache directory %q: name it from the root, such as /var/cache/ovgate", r.Dir)
		}
		if r.Bytes < minReadCache || r.Bytes > maxReadCache {
			return fmt.Errorf("configuration: read_cache %s: bytes is %d: use %d to %d", r.Dir, r.Bytes, int64(minReadCache), int64(maxReadCache))
		}
		if slices.ContainsFunc(c.ReadCache[:i], func(o readCache) bool { return filepath.Clean(o.Dir) == filepath.Clean(r.Dir) }) {
			return fmt.Errorf("configuration: read_cache %s is given twice: leave one out", r.Dir)
		}
	}
	return nil
}

// openReadCaches opens the directories of the read cache. One that cannot be used is
// left out, and health says so: the node serves without it, only slower.
func (n *node) openReadCaches() []volume.ReadCache {
	var out []volume.ReadCache
	for _, r := range n.cfg.ReadCache {
		fsys, lock, err := openReadCache(r.Dir)
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

// openReadCache takes a directory that is empty or was a read cache before.
func openReadCache(dir string) (blockfs.FS, *os.File, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("read cache %s: %w: make the directory, or mount its disk, and restart ovgate", dir, err)
	}
	ours := slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == readCacheFile })
	for _, e := range entries {
		if !ours && e.Name() != "lost+found" {
			return nil, nil, fmt.Errorf("read cache %s holds %s, which is not of a read cache: use an empty directory", dir, e.Name())
		}
	}
	lock, err := os.OpenFile(filepath.Join(dir, readCacheFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("read cache %s: %w", dir, err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, nil, fmt.Errorf("read cache %s is in use by another process: give each node a directory of its own", dir)
		}
		return nil, nil, fmt.Errorf("read cache %s: %w", dir, err)
	}
	fsys, err := blockfs.OS(dir)
	if err != nil {
		lock.Close()
		return nil, nil, fmt.Errorf("read cache %s: %w", dir, err)
	}
	return fsys, lock, nil
}
