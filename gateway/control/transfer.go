package control

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe"
	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/gateway/task"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// An import fills a new vDisk with ranges of an image; an export reads ranges of a
// clone that is made for it, so that what it reads stands still. Both vDisks are in
// model.StateTransfer: their record says that they go when the transfer does, so that
// whatever ends it, a client that is gone or a crash, leaves nothing behind (C11). An
// import that is finished becomes present, in one change of its record.

const (
	// MaxTransfer bounds the bytes of one range that is written or read; the API takes
	// no larger bodies.
	MaxTransfer = 1 << 20
	// maxExtents bounds one answer of Extents.
	maxExtents = 1000
	// maxExtentSteps bounds its work: a step is a range of the map of one kind.
	maxExtentSteps = 100_000
	// maxTransfers bounds what clients that come and go can leave open.
	maxTransfers = 32
	// transferIdle is how long a transfer lives without being used.
	transferIdle = 5 * time.Minute
	// transferLook is how often idle ones are looked for.
	transferLook = 15 * time.Second
	// transferLabel is on the backend while a transfer goes on: a recovery of the vPool
	// from there, which knows no records, shows by it what is not whole.
	transferLabel = "ovgate.transfer"
)

// StateTransferring is the state of a vDisk that is there for a transfer only.
const StateTransferring volume.State = "transferring"

// Transfer is an import or export that is under way.
type Transfer struct {
	ID          string // of the vDisk that is there for it
	VDisk       string // name of the vDisk that is imported or exported
	Size        int64  // bytes
	ClusterSize int    // bytes
}

// transfer is the running side of one.
type transfer struct {
	Transfer
	vpool   string // id
	imports bool
	vol     Volume
	used    time.Time // when a request last began or ended
	moved   time.Time // when a range of it was last written, read, or looked up
	users   int       // requests that use vol
	idle    chan struct{}
	ended   bool
	reached int64 // end of the farthest range that was written or read, in bytes
	bytes   int64 // that were written or read
	task    *task.Entry
}

// BeginImport makes an empty vDisk that an image is written to.
func (c *Controller) BeginImport(ctx context.Context, in NewDisk) (Transfer, error) {
	ctx, done, err := c.begin(ctx)
	if err != nil {
		return Transfer{}, err
	}
	defer done()
	rec, e := c.checkNewDisk(in)
	if e != nil {
		return Transfer{}, e
	}
	t, err := c.startTransfer(ctx, rec, rec.Name, true)
	if err != nil {
		return t, explain(vdiskObject(rec.Name), err)
	}
	return t, nil
}

// BeginExport holds a point of a vDisk to be read.
func (c *Controller) BeginExport(ctx context.Context, name string, from volume.Point) (Transfer, error) {
	var out Transfer
	err := c.withDisk(ctx, name, func(ctx context.Context, d *vdisk, src model.VDisk) error {
		id, err := volume.NewID(c.opt.Rand)
		if err != nil {
			return err
		}
		rec, err := c.checkClone(ctx, d, src, Clone{Name: "export-" + id.String()[:8], From: from})
		if err == nil {
			out, err = c.startTransfer(ctx, rec, src.Name, false)
		}
		return pointError(src, from, err)
	})
	return out, err
}

// startTransfer makes the vDisk of a transfer and opens it.
func (c *Controller) startTransfer(ctx context.Context, rec model.VDisk, name string, imports bool) (Transfer, error) {
	c.mu.Lock()
	n := len(c.transfers)
	c.mu.Unlock()
	if n >= maxTransfers {
		return Transfer{}, &Error{Code: CodeInUse, Object: vdiskObject(name), Message: fmt.Sprintf("%d imports and exports are under way", n), Hint: "wait until one has ended"}
	}
	ep, err := c.attached(rec.VPool)
	if err != nil {
		return Transfer{}, err
	}
	rec.State = model.StateTransfer
	now := c.clock.Now()
	t := &transfer{vpool: rec.VPool, imports: imports, used: now, moved: now, users: 1}
	if rec, err = c.storeTransfer(ctx, rec, t); err != nil {
		return Transfer{}, err
	}
	t.Transfer = Transfer{ID: rec.ID, VDisk: name, Size: rec.Size, ClusterSize: rec.ClusterSize}
	d := c.vdisk(rec.ID)
	if err = d.lock.acquire(ctx); err == nil {
		marked := rec
		marked.Labels = maps.Clone(rec.Labels)
		if marked.Labels == nil {
			marked.Labels = map[string]string{}
		}
		marked.Labels[transferLabel] = "unfinished"
		if err = c.make(ctx, ep, marked); err == nil {
			err = c.openVolume(ctx, d, rec)
		}
		c.mu.Lock()
		t.vol = d.vol
		c.mu.Unlock()
		d.lock.release()
	}
	if err == nil {
		c.beginTransferTask(t)
	}
	c.leave(t)
	if err != nil {
		_ = c.endTransfer(context.WithoutCancel(ctx), rec.ID)
		return Transfer{}, err
	}
	c.opt.Changed("vdisk", rec.ID)
	c.log.Info("transfer begun", "vdisk", name, "id", rec.ID, "import", imports, "size", rec.Size)
	return t.Transfer, nil
}

// beginTransferTask begins what is told of a transfer.
func (c *Controller) beginTransferTask(t *transfer) {
	told := task.Task{Kind: task.Export, Object: vdiskObject(t.VDisk), VPools: []string{t.vpool}, What: "read by a client", Total: t.Size, Unit: "bytes"}
	if t.imports {
		told.Kind, told.What = task.Import, "filled by a client"
	}
	look := func(told *task.Task) {
		c.mu.Lock()
		defer c.mu.Unlock()
		told.Done, told.Bytes = t.reached, t.bytes
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t.task = c.opt.Tasks.Begin(told, look, func(ctx context.Context) error { return c.stopTransfer(ctx, t.ID, t.imports, task.Cancelled) })
}

// note counts a range that was written or read.
func (c *Controller) note(t *transfer, off, n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t.reached, t.bytes = max(t.reached, off+n), t.bytes+n
}

// storeTransfer stores the record, and makes the transfer known under its id before
// the reconciler can meet it.
func (c *Controller) storeTransfer(ctx context.Context, rec model.VDisk, t *transfer) (model.VDisk, error) {
	return c.storeNewDiskAs(ctx, rec, func(id string) {
		c.mu.Lock()
		c.transfers[id] = t
		c.mu.Unlock()
	}, func(id string) {
		c.mu.Lock()
		delete(c.transfers, id)
		c.mu.Unlock()
	})
}

// use finds a transfer for a request; the caller calls leave.
func (c *Controller) use(id string, imports bool) (*transfer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.transfers[id]
	if t == nil || t.ended || t.vol == nil || t.imports != imports {
		return nil, &Error{Code: CodeNotFound, Object: "transfer " + clip(id), Message: "there is no such transfer", Hint: "begin it again: one that is not used for five minutes ends, and so do all when the node restarts"}
	}
	t.users++
	t.used = c.clock.Now()
	return t, nil
}

// transferElsewhere names the node on which a transfer is under way, if that is another one.
func (c *Controller) transferElsewhere(ctx context.Context, id string) *Error {
	rec, ok := c.model.FreshVDisk(ctx, id)
	if !ok || rec.State != model.StateTransfer {
		return nil
	}
	return c.served(rec)
}

func (c *Controller) leave(t *transfer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t.users--
	t.used = c.clock.Now()
	if t.users == 0 && t.idle != nil {
		close(t.idle)
		t.idle = nil
	}
}

// TouchTransfer returns a transfer, and counts as its use: a client that has nothing to
// ask for, such as one that skips zeros, calls it now and then.
func (c *Controller) TouchTransfer(ctx context.Context, id string, imports bool) (out Transfer, err error) {
	err = c.withTransfer(ctx, id, imports, func(_ context.Context, t *transfer) error {
		out = t.Transfer
		return nil
	})
	return out, err
}

// checkTransferRange refuses a range that is not in the vDisk.
func checkTransferRange(t *transfer, off, n int64) *Error {
	object := vdiskObject(t.VDisk)
	switch {
	case off < 0 || off%512 != 0 || off >= t.Size:
		return invalid("offset", object, "use a multiple of 512 below the size", "an offset of %d is not in its %d bytes", off, t.Size)
	case n <= 0 || n%512 != 0 || n > MaxTransfer || n > t.Size-off:
		return invalid("length", object, "use a multiple of 512, at most 1 MiB, that ends within the size", "a length of %d at offset %d is not possible", n, off)
	}
	return nil
}

// WriteImport writes a range, durably. Zeros take no space.
func (c *Controller) WriteImport(ctx context.Context, id string, off int64, data []byte) error {
	return c.withTransfer(ctx, id, true, func(ctx context.Context, t *transfer) error {
		if e := checkTransferRange(t, off, int64(len(data))); e != nil {
			return e
		}
		c.transferMoves(t)
		zeros := make([]byte, t.ClusterSize)
		isZero := func(at int64) (bool, int64) { // up to the end of its cluster
			n := min(int64(t.ClusterSize)-(off+at)%int64(t.ClusterSize), int64(len(data))-at)
			return bytes.Equal(data[at:at+n], zeros[:n]), n
		}
		for at := int64(0); at < int64(len(data)); {
			zero, n := isZero(at)
			for at+n < int64(len(data)) {
				next, more := isZero(at + n)
				if next != zero {
					break
				}
				n += more
			}
			if err := writeRun(ctx, t.vol, off+at, data[at:at+n], zero); err != nil {
				return err
			}
			at += n
		}
		c.note(t, off, int64(len(data)))
		return nil
	})
}

// writeRun writes bytes that are all zero, or not.
func writeRun(ctx context.Context, vol Volume, off int64, b []byte, zero bool) error {
	if !zero {
		for most := vol.MaxIO(); len(b) > 0; {
			n := min(most, len(b))
			if err := vol.WriteAt(ctx, b[:n], off); err != nil {
				return err
			}
			off, b = off+int64(n), b[n:]
		}
		return nil
	}
	for end := off + int64(len(b)); off < end; {
		mapped, n := vol.Allocated(off)
		n = min(n, end-off)
		if mapped { // an earlier request wrote something else there
			if err := vol.Zero(ctx, off, n); err != nil {
				return err
			}
		}
		off += n
	}
	return nil
}

// withTransfer runs fn on a transfer that does not end meanwhile.
func (c *Controller) withTransfer(ctx context.Context, id string, imports bool, fn func(context.Context, *transfer) error) error {
	ctx, done, err := c.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	t, err := c.use(id, imports)
	if err != nil {
		if e := c.transferElsewhere(ctx, id); e != nil {
			return e
		}
		return err
	}
	defer c.leave(t)
	if err := fn(ctx, t); err != nil {
		return explain(vdiskObject(t.VDisk), err)
	}
	return nil
}

// FinishImport makes an import a vDisk like any other. Asking again does no harm.
func (c *Controller) FinishImport(ctx context.Context, id string) (model.VDisk, error) {
	if rec, ok := c.model.VDisk(id); ok && rec.State == model.StatePresent {
		return rec, nil
	}
	var out model.VDisk
	err := c.withTransfer(ctx, id, true, func(ctx context.Context, t *transfer) error {
		if err := t.vol.Commit(ctx); err != nil {
			return err
		}
		rec, _ := c.model.VDisk(id)
		if err := t.vol.SetLabels(ctx, rec.Name, rec.Labels); err != nil {
			return err
		}
		d := c.vdisk(id)
		if err := d.lock.acquire(ctx); err != nil {
			return err
		}
		defer d.lock.release()
		var err error
		if out, err = c.model.UpdateVDisk(ctx, id, func(v *model.VDisk) error {
			if v.State != model.StateTransfer {
				return noVDisk(t.VDisk)
			}
			v.State = model.StatePresent
			return nil
		}); err != nil {
			return err
		}
		c.mu.Lock()
		t.ended = true
		delete(c.transfers, id)
		told := t.task
		c.mu.Unlock()
		told.End(task.Done, "", "")
		return nil
	})
	if err != nil {
		return out, err
	}
	c.log.Info("vDisk imported", "vdisk", out.Name, "id", out.ID, "size", out.Size)
	c.tell(event.VDiskImported, vdiskObject(out.Name), "bytes", strconv.FormatInt(out.Size, 10))
	c.opt.Changed("vdisk", id)
	return out, nil
}

// AbortImport and EndExport end a transfer and delete its vDisk; one that is not there
// is no error.
func (c *Controller) AbortImport(ctx context.Context, id string) error {
	return c.stopTransfer(ctx, id, true, task.Cancelled)
}

// EndExport: see AbortImport.
func (c *Controller) EndExport(ctx context.Context, id string) error {
	return c.stopTransfer(ctx, id, false, task.Done)
}

// deleteTransfer ends the transfer that a vDisk is there for.
func (c *Controller) deleteTransfer(ctx context.Context, rec model.VDisk) error {
	if e := c.served(rec); e != nil {
		return e
	}
	return errors.Join(c.stopTransfer(ctx, rec.ID, true, task.Cancelled), c.stopTransfer(ctx, rec.ID, false, task.Cancelled))
}

// stopTransfer ends a transfer for somebody who asked, with that state of its task.
func (c *Controller) stopTransfer(ctx context.Context, id string, imports bool, how task.State) error {
	ctx, done, err := c.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	c.mu.Lock()
	t := c.transfers[id]
	c.mu.Unlock()
	if t == nil || t.imports != imports {
		if e := c.transferElsewhere(ctx, id); t == nil && e != nil {
			return e
		}
		return nil
	}
	c.mu.Lock()
	told := t.task
	c.mu.Unlock()
	told.End(how, "", "")
	if err := c.endTransfer(ctx, id); err != nil {
		return explain(vdiskObject(t.VDisk), err)
	}
	return nil
}

// endTransfer waits for the requests of a transfer and deletes its vDisk. The decision
// is stored on return; the space may be given back later (C2).
func (c *Controller) endTransfer(ctx context.Context, id string) error {
	c.mu.Lock()
	t := c.transfers[id]
	if t == nil {
		c.mu.Unlock()
		return nil
	}
	t.ended = true
	if t.idle == nil {
		t.idle = make(chan struct{})
		if t.users == 0 {
			close(t.idle)
		}
	}
	idle := t.idle
	c.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
		return ctx.Err()
	}
	d := c.vdisk(id)
	if err := d.lock.acquire(ctx); err != nil {
		return err
	}
	defer d.lock.release()
	c.mu.Lock()
	delete(c.transfers, id)
	c.mu.Unlock()
	rec, ok := c.model.VDisk(id)
	if !ok || rec.State != model.StateTransfer {
		return nil
	}
	return c.dropTransfer(ctx, d, rec)
}

// dropTransfer deletes the vDisk of a transfer that is over; d.lock is held.
func (c *Controller) dropTransfer(ctx context.Context, d *vdisk, rec model.VDisk) error {
	rec, err := c.model.UpdateVDisk(ctx, rec.ID, func(v *model.VDisk) error { v.State = model.StateDeleting; return nil })
	if err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, deleteWait)
	defer cancel()
	if err := c.resumeDelete(wait, d, rec); err != nil {
		c.log.Warn("space of a transfer is given back later", "vdisk", rec.Name, "id", rec.ID, "err", err)
		c.schedule(ref{"vdisk", rec.ID}, retryMin)
	}
	c.opt.Changed("vdisk", rec.ID)
	return nil
}

// transferring tells whether a vDisk's transfer is under way.
func (c *Controller) transferring(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.transfers[id] != nil
}

// Range is a part of a disk, in bytes.
type Range struct{ Offset, Length int64 }

// Extents returns where an export has data, from off on, and where to ask next; -1 at
// the end.
func (c *Controller) Extents(ctx context.Context, id string, off int64) ([]Range, int64, error) {
	out, next := []Range{}, int64(-1)
	err := c.withTransfer(ctx, id, false, func(_ context.Context, t *transfer) error {
		if off < 0 || off%512 != 0 || off > t.Size {
			return invalid("offset", vdiskObject(t.VDisk), "use a multiple of 512 up to the size", "an offset of %d is not in its %d bytes", off, t.Size)
		}
		c.transferMoves(t)
		for steps := 0; off < t.Size; steps++ {
			if len(out) == maxExtents || steps == maxExtentSteps {
				next = off
				break
			}
			mapped, n := t.vol.Allocated(off)
			if n = min(n, t.Size-off); mapped {
				if k := len(out); k > 0 && out[k-1].Offset+out[k-1].Length == off {
					out[k-1].Length += n
				} else {
					out = append(out, Range{off, n})
				}
			}
			off += n
		}
		return nil
	})
	return out, next, err
}

// ReadExport reads a range of an export.
func (c *Controller) ReadExport(ctx context.Context, id string, off, n int64) ([]byte, error) {
	var out []byte
	err := c.withTransfer(ctx, id, false, func(ctx context.Context, t *transfer) error {
		if e := checkTransferRange(t, off, n); e != nil {
			return e
		}
		c.transferMoves(t)
		out = make([]byte, n)
		most := int64(t.vol.MaxIO())
		for at := int64(0); at < n; at += most {
			if err := t.vol.ReadAt(ctx, out[at:min(n, at+most)], off+at); err != nil {
				return err
			}
		}
		c.note(t, off, n)
		return nil
	})
	return out, err
}

// transferStale is how long a transfer may move nothing until it is told: its client keeps
// it, and with it a point of the vDisk, from going.
const transferStale = time.Hour

// transferMoves notes that a client does more with a transfer than to keep it.
func (c *Controller) transferMoves(t *transfer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t.moved = c.clock.Now()
}

// StaleTransfers returns the imports and exports that have moved nothing for an hour.
func (c *Controller) StaleTransfers() (out []observe.TransferCheck) {
	now := c.clock.Now()
	c.mu.Lock()
	for id, t := range c.transfers {
		if !t.ended && now.Sub(t.moved) >= transferStale {
			out = append(out, observe.TransferCheck{Name: id, VDisk: t.VDisk, Import: t.imports, Since: t.moved})
		}
	}
	c.mu.Unlock()
	for i := range out {
		if rec, ok := c.model.VDisk(out[i].Name); ok {
			out[i].Name = rec.Name
		}
	}
	slices.SortFunc(out, func(a, b observe.TransferCheck) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// watchTransfers ends transfers whose client is gone.
func (c *Controller) watchTransfers() {
	c.every(transferLook, transferLook, func() {
		for _, id := range c.idleTransfers() {
			c.mu.Lock()
			var told *task.Entry
			if t := c.transfers[id]; t != nil {
				told = t.task
			}
			c.mu.Unlock()
			told.End(task.Failed, "its client did not ask for anything for "+transferIdle.String(), "begin it again")
			ctx, cancel := context.WithTimeout(c.ctx, opTimeout)
			if err := c.endTransfer(ctx, id); err != nil && !errors.Is(err, context.Canceled) {
				c.log.Warn("transfer that is not used not ended yet", "id", id, "err", err)
			}
			cancel()
		}
	})
}

func (c *Controller) idleTransfers() (ids []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, t := range c.transfers {
		if t.ended || t.users == 0 && c.clock.Now().Sub(t.used) >= transferIdle {
			ids = append(ids, id)
		}
	}
	return ids
}
