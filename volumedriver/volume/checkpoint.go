package volume

import (
	"errors"
	"io/fs"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/blockmap"
)

func notThere(err error) bool {
	return errors.Is(err, backend.ErrNotExist) || errors.Is(err, backend.ErrCorrupt)
}

// checkpoint writes the base map to the local state, page by page, and drops the
// TLog copies that it makes needless. It is a cache: on an error the old one
// stays. It runs on the uploader's goroutine, so the map stays at one head (M4).
func (u *uploader) checkpoint() {
	v := u.v
	if err := u.writeCheckpoint(); err != nil {
		v.log.Warn("map checkpoint not written", "err", err)
		return
	}
	for n := u.ckpt; n < u.head.NextTLog; n++ {
		if err := v.host.o.FS.Remove(localTLog(v.id, n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			v.log.Warn("local TLog copy not removed", "tlog", n, "err", err)
		}
	}
	u.ckpt = u.head.NextTLog
}

// keepBase keeps the map that a clone starts from on local disk.
func (u *uploader) keepBase() {
	if u.v.parent == nil || u.v.parent.saved.Load() {
		return
	}
	if err := u.v.p.saveBase(u.v.parent); err != nil {
		u.v.log.Warn("map of the parent not kept", "err", err)
	}
}

func (u *uploader) writeCheckpoint() (err error) {
	v := u.v
	path := localCheckpoint(v.id)
	tmp := path + ".new"
	f, err := v.host.o.FS.Open(tmp, blockfs.Write|blockfs.Create)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Truncate(0); err != nil {
		return err
	}
	v.mapMu.RLock()
	h := &blockmap.CheckpointHeader{VDisk: v.id, Cluster: uint32(v.cluster), Clusters: v.base.Clusters(),
		FirstTLog: u.head.NextTLog, SCOs: v.own.scos.list(), Line: v.line}
	v.mapMu.RUnlock()
	w, err := blockmap.NewCheckpointWriter(&appender{f: f}, h)
	if err != nil {
		return err
	}
	for page, ok := uint64(0), true; ; {
		v.mapMu.RLock()
		page, ok = w.CopyPage(v.base, v.parent.base(), page)
		v.mapMu.RUnlock()
		if !ok {
			break
		}
		if err := w.WritePage(); err != nil {
			return err
		}
	}
	if err := w.Finish(u.head.NextTLog); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := v.host.o.FS.Rename(tmp, path); err != nil {
		return err
	}
	return v.host.o.FS.SyncDir(stateDir(v.id))
}

// appender writes a file from its start to its end.
type appender struct {
	f   blockfs.File
	off int64
}

func (a *appender) Write(p []byte) (int, error) {
	n, err := a.f.WriteAt(p, a.off)
	a.off += int64(n)
	return n, err
}
