package volume

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"

	"github.com/openvstorage/ovgate/volumedriver/journal"
)

// writeDisk is where journals of vDisks are. A vDisk's registry record names the pool
// that its tail is in, so the pool changes only when the tail is empty, with the opening
// that the record is written for.
type writeDisk struct {
	name string
	pool *journal.Pool // nil: it cannot be used
	err  error         // why
	// drain: no journal begins there.
	drain bool
	logs  int // open ones; Host.mu
}

// usable tells whether a journal may begin there.
func (d *writeDisk) usable() bool { return d.pool != nil && !d.drain && d.pool.Failed() == nil }

// openWriteDisks opens the pools. That in o.FS must be usable.
func openWriteDisks(o HostOptions) (disks []*writeDisk, err error) {
	open := func(w WriteDisk) (*journal.Pool, error) {
		if w.Err != nil {
			return nil, w.Err
		}
		if !w.FS.DirectIO() {
			o.Log.Warn("file system refuses O_DIRECT; the journal uses O_DSYNC alone", "disk", w.Name)
		}
		return journal.OpenPool(journal.PoolOptions{FS: w.FS, Dir: "journal", ChunkBytes: o.ChunkBytes, MaxBytes: w.Bytes, Rand: o.Rand, Log: o.Log, Group: o.groupLog(w.Bytes)})
	}
	own := &writeDisk{name: "data directory", drain: slices.ContainsFunc(o.WriteDisks, func(w WriteDisk) bool { return !w.Drain })}
	if own.pool, err = open(WriteDisk{Name: own.name, FS: o.FS, Bytes: o.JournalBytes}); err != nil {
		return nil, err
	}
	disks = append(disks, own)
	for _, w := range o.WriteDisks {
		d := &writeDisk{name: w.Name, drain: w.Drain}
		if d.pool, d.err = open(w); d.err != nil {
			o.Log.Error("WRITE disk not used", "disk", w.Name, "err", d.err)
		}
		disks = append(disks, d)
	}
	return disks, nil
}

const (
	// groupBytes is the usual size of a group log, and groupShare what it has of a small
	// WRITE disk, as a divisor.
	groupBytes = 128 << 20
	groupShare = 16
)

// groupLog returns what the group log of a WRITE disk of so many bytes is.
func (o *HostOptions) groupLog(bytes int64) journal.GroupOptions {
	if o.group != (journal.GroupOptions{}) {
		return o.group
	}
	n := min(groupBytes, bytes/groupShare)
	if n < journal.MinGroupBytes {
		n = 0
	}
	return journal.GroupOptions{Bytes: n}
}

// writeDiskOf returns the disk whose pool a registry record names; nil: it is not here.
func (h *Host) writeDiskOf(id string) *writeDisk {
	for _, d := range h.disks {
		if d.pool != nil && d.pool.ID() == id {
			return d
		}
	}
	return nil
}

// unusable says which WRITE disks cannot be used; nil: all can.
func (h *Host) unusable() error {
	var errs []error
	for _, d := range h.disks {
		if d.pool == nil {
			errs = append(errs, fmt.Errorf("WRITE disk %s cannot be used: %w", d.name, d.err))
		}
	}
	return errors.Join(errs...)
}

// placeLog returns the disk for the journal of an opening with an empty tail: the one it
// was on, if that may be, else that with the most room for each open journal.
func (h *Host) placeLog(was *writeDisk) *writeDisk {
	if was != nil && was.usable() {
		return was
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	var best *writeDisk
	share := func(d *writeDisk) int64 { return d.pool.Usage().MaxBytes / int64(d.logs+1) }
	for _, d := range h.disks {
		if d.usable() && (best == nil || share(d) > share(best)) {
			best = d
		}
	}
	if best == nil { // it may work again
		if best = was; best == nil {
			best = h.disks[0]
		}
	}
	return best
}

// giveUp looks at a disk that has no chunk to give. If it takes no files any more, and not
// because it is full, it counts as failed when there is another one; else it may recover.
func (h *Host) giveUp(d *writeDisk) error {
	err := d.pool.GrowError()
	if err == nil || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return nil
	}
	for _, o := range h.disks {
		if o != d && o.usable() {
			d.pool.MarkFailed(err)
			return err
		}
	}
	return nil
}

// hurry has what is in the journals of a disk brought to the backend, whosever it is: a
// vDisk that waits for a chunk is not to wait until the commit_interval of those that hold
// them is over.
func (h *Host) hurry(d *writeDisk) {
	h.mu.Lock()
	pools := slices.Collect(maps.Values(h.pools))
	h.mu.Unlock()
	for _, p := range pools {
		p.mu.Lock()
		for _, v := range p.open {
			if v.disk == d && v.uncommitted.Load() > 0 {
				v.up.force()
			}
		}
		p.mu.Unlock()
	}
}

// countLog counts an open journal.
func (h *Host) countLog(d *writeDisk, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d.logs += n
}

// Displaced reports whether the vDisk's WRITE disk failed, everything that was
// acknowledged is on the backend, and another WRITE disk would take its journal. Closed
// and opened again it goes on. Where something is left to be uploaded, that is hurried.
func (v *Volume) Displaced() bool {
	if v.failure.Load() == nil || v.writeErrorState() != StateFailed || v.disk.usable() || !v.host.placeLog(v.disk).usable() {
		return false
	}
	if v.up.committed.Load() != v.lastSeq.Load() {
		v.up.force()
		return false
	}
	return true
}
