package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// writeDisksFile is where the node notes, in its local state, which directories were WRITE
// disks: acknowledged writes may be there, also when the configuration does not name them
// any more, or when they are not mounted and look empty.
const (
	writeDisksFile    = "write-disks.json"
	maxWriteDisksFile = 1 << 20 // bytes
)

// openWriteDisks opens those of the configuration, and those that were in it: no journal
// begins on them. One that cannot be used is told to the engine, which keeps what may have
// writes there from being opened without them.
func (n *node) openWriteDisks() ([]volume.WriteDisk, error) {
	var known []diskDir
	b, err := blockfs.ReadFile(n.local, writeDisksFile, maxWriteDisksFile)
	if err == nil {
		err = json.Unmarshal(b, &known)
	} else if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w: it says where acknowledged writes may be; restore it", n.dir.file(localDir, writeDisksFile), err)
	}
	same := func(a diskDir) func(diskDir) bool {
		return func(b diskDir) bool { return filepath.Clean(a.Dir) == filepath.Clean(b.Dir) }
	}
	for _, gone := range n.cfg.LostWriteDisks {
		known = slices.DeleteFunc(known, same(diskDir{Dir: gone}))
	}
	var out []volume.WriteDisk
	use := func(d diskDir, drain bool) bool {
		w := volume.WriteDisk{Name: d.Dir, Bytes: d.Bytes, Drain: drain}
		fsys, lock, err := writeRole.open(d.Dir, slices.ContainsFunc(known, same(d)))
		if err != nil {
			n.log.Error("WRITE disk not used", "err", err)
			w.Err = err
		} else {
			n.onClose(lock.Close)
			w.FS = fsys
		}
		out = append(out, w)
		return err == nil
	}
	now := slices.Clone(known)
	for _, d := range n.cfg.WriteDisks {
		if use(d, false) {
			now = append(slices.DeleteFunc(now, same(d)), d)
		}
	}
	for _, d := range known {
		if !slices.ContainsFunc(n.cfg.WriteDisks, same(d)) {
			use(d, true)
		}
	}
	// Noted before a journal begins there.
	if b, err = json.Marshal(now); err != nil {
		return nil, err
	}
	if len(now) == 0 && len(n.cfg.LostWriteDisks) == 0 {
		return out, nil
	}
	if err := blockfs.WriteFile(n.local, writeDisksFile, b); err != nil {
		return nil, fmt.Errorf("data directory %s: %w", n.dir.path, err)
	}
	return out, nil
}
