package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/blockmap"
	"github.com/openvstorage/ovgate/volumedriver/sco"
	"github.com/openvstorage/ovgate/volumedriver/tlog"
)

// A move takes a vDisk to another vPool of the node, with its id, snapshots and history.
// Objects are immutable and named by their vDisk, so they are copied as they are, each
// verified, while the vDisk is in use (CopyTo), until little is missing. Then the vDisk
// is closed for a moment, the rest is copied, and one change of the registry makes the
// other vPool its home (MoveTo). What the old one has is deleted after that (DropMoved).
//
//	Y1  Until the registry says otherwise the vDisk is where it was. Copies without a
//	    head are nothing, and one that was put for nothing has an epoch that is void.
//	Y2  The move is an opening of its own: whoever had the vDisk open before is fenced
//	    on the old backend, and the head on the new one is of a newer epoch.
//	Y3  The old backend gets a head that says "deleted" before anything there goes, so
//	    that a recovery from backends finds the vDisk once.

const (
	// copyStreams bounds the objects of a vDisk that are copied at a time, each in
	// memory.
	copyStreams = 2
	// maxCopyTries bounds how often a copy begins anew because a scrub replaced what it
	// was copying.
	maxCopyTries = 16
)

// Copied tells what a CopyTo did. Sizes in bytes.
type Copied struct {
	Objects int   // copied now
	Bytes   int64 // of them
	Total   int64 // of all that the vDisk consists of
}

// checkMove refuses a vDisk that others hang on, or that hangs on another.
func checkMove(rec *Record, h *Head) error {
	switch {
	case rec.Parent != nil || h.Parent != nil:
		return fmt.Errorf("vdisk %s (%s): %w: it is a clone; flatten it, then move it", h.Name, rec.ID, ErrInUse)
	case rec.Clones > 0:
		return fmt.Errorf("vdisk %s (%s): %w: it has %d clones; flatten or delete them, then move it", h.Name, rec.ID, ErrInUse, rec.Clones)
	}
	return nil
}

// CopyTo copies to another vPool what the committed state of a vDisk consists of and is
// not there yet. It runs beside other requests and yields to them, unless hurry is set;
// repeating it goes on. progress, if not nil, is told the bytes that are there and the bytes in all.
//
// Errors: ErrInUse for a clone, one with clones, or while it is flattened or scrubbed;
// ErrCorrupt with the name of an object that is damaged; those of the backends.
func (p *Pool) CopyTo(ctx context.Context, id ID, dst *Pool, hurry bool, progress func(done, total int64)) (Copied, error) {
	c := &copier{p: p, dst: dst, id: id, progress: progress}
	if v := p.Volume(id); v != nil {
		var end func()
		var err error
		if ctx, end, err = v.beginWork(ctx); err != nil {
			return Copied{}, err
		}
		defer end()
		if !hurry {
			c.pace = &pacer{v: v}
		}
	}
	for try := 1; ; try++ {
		st, rec, err := p.stateOf(ctx, id)
		if err != nil {
			return c.out, err
		}
		if err := checkMove(&rec, st.head); err != nil {
			return c.out, err
		}
		err = c.copy(ctx, st)
		if err == nil || try == maxCopyTries || !p.movedOn(ctx, id, st.ref, err) {
			return c.out, err
		}
	}
}

// copier copies the objects of a vDisk.
type copier struct {
	p, dst   *Pool
	id       ID
	pace     *pacer // nil: as fast as it goes
	progress func(done, total int64)

	mu   sync.Mutex
	done int64 // bytes that are there
	out  Copied
}

// sizes lists the objects of a vDisk.
func (p *Pool) sizes(ctx context.Context, id ID) (map[string]int64, error) {
	out := map[string]int64{}
	for after := ""; ; {
		page, err := p.list(ctx, vdiskPrefix(id)+"/", after, 1000)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBackend, err)
		}
		for _, o := range page {
			after, out[o.Name] = o.Name, o.Size
		}
		if len(page) < 1000 {
			return out, nil
		}
	}
}

// wanted returns what a state consists of, but for its head, which says whose it is.
func (c *copier) wanted(ctx context.Context, st *state) ([]string, error) {
	set, err := c.p.reachable(ctx, st)
	if err != nil {
		return nil, err
	}
	delete(set, headName(c.id, st.ref))
	names := make([]string, 0, len(set))
	for name := range set {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// copy copies what is missing of a state.
func (c *copier) copy(ctx context.Context, st *state) error {
	names, err := c.wanted(ctx, st)
	if err != nil {
		return err
	}
	from, err := c.p.sizes(ctx, c.id)
	if err != nil {
		return err
	}
	there, err := c.dst.sizes(ctx, c.id)
	if err != nil {
		return err
	}
	var missing []string
	c.out.Total, c.done = 0, 0
	for _, name := range names {
		size, known := from[name]
		c.out.Total += size
		if have, ok := there[name]; ok && known && have == size {
			c.done += size
			continue
		}
		missing = append(missing, name)
	}
	c.report(0)
	return c.each(ctx, missing, func(ctx context.Context, name string) error {
		_, replace := there[name]
		return c.one(ctx, name, replace)
	})
}

func (c *copier) report(n int64) {
	c.mu.Lock()
	c.done += n
	done, total := c.done, c.out.Total
	c.mu.Unlock()
	if c.progress != nil {
		c.progress(done, total)
	}
}

// each calls fn for names, copyStreams at a time, and returns the first error.
func (c *copier) each(ctx context.Context, names []string, fn func(context.Context, string) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan string)
	var wg sync.WaitGroup
	for range min(copyStreams, len(names)) {
		wg.Go(func() {
			for name := range next {
				if err := fn(ctx, name); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	for _, name := range names {
		if c.pace != nil {
			if err := c.pace.wait(ctx, 0); err != nil {
				break
			}
		}
		select {
		case next <- name:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
	}
	close(next)
	wg.Wait()
	return context.Cause(ctx)
}

// one copies an object; replace: another one of that name is there.
func (c *copier) one(ctx context.Context, name string, replace bool) error {
	var obj []byte
	rctx, cancel := context.WithTimeout(ctx, backendTimeout)
	err := c.p.fetch(rctx, name, math.MaxInt32, func(b []byte) error {
		obj = b
		return checkObject(name, b)
	})
	cancel()
	if dir, _, _ := cutName(name); err != nil && notThere(err) && (dir == mapDir || dir == pageDir) {
		return nil // a cache: the new home makes it anew
	}
	if err != nil {
		return fmt.Errorf("vdisk %s: %s: %w", c.id, name, err)
	}
	wctx, cancel := context.WithTimeout(ctx, backendTimeout)
	defer cancel()
	if replace {
		if err := c.dst.remove(wctx, name); err != nil {
			return err
		}
	}
	if err := c.dst.again(wctx, func() error { return c.dst.cfg.Store.Put(wctx, name, obj) }); err != nil {
		return fmt.Errorf("vdisk %s: vpool %s: %w: %w", c.id, c.dst.cfg.Name, ErrBackend, err)
	}
	c.mu.Lock()
	c.out.Objects++
	c.out.Bytes += int64(len(obj))
	c.mu.Unlock()
	c.report(int64(len(obj)))
	return nil
}

// checkObject verifies an object of a vDisk by its own checksums; backend.ErrCorrupt if
// it is damaged. The checksums of map pages are elsewhere, and are looked at when they
// are read.
func checkObject(name string, b []byte) error {
	var err error
	switch dir, _, _ := cutName(name); dir {
	case scoDir:
		var got sco.Checked
		got, err = sco.Check(sco.Object{Size: int64(len(b)), Read: func(p []byte, off int64) error {
			if off < 0 || off > int64(len(b)) || copy(p, b[off:]) < len(p) {
				return sco.ErrUnreadable
			}
			return nil
		}}, func(uint64, uint32) {})
		if err == nil && !got.OK() {
			err = errors.Join(append(got.Problems, fmt.Errorf("%d clusters do not verify", got.Bad))...)
		}
	case tlogDir:
		_, err = tlog.Decode(b)
	case pastDir:
		_, _, err = InspectPast(bytes.Clone(b))
	case mapDir:
		_, err = blockmap.DecodeIndex(b, nil)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", backend.ErrCorrupt, err)
	}
	return nil
}

// MoveTo makes another vPool the home of a closed vDisk. What CopyTo copied is not copied
// again. On an error the vDisk is where it was, unless the error is that of the registry,
// which then says where it is (Home).
//
// Errors: those of CopyTo; ErrInUse while it is open, ErrDeletesOff.
func (p *Pool) MoveTo(ctx context.Context, id ID, dst *Pool, progress func(done, total int64)) error {
	done, err := p.begin(ctx, id)
	if err != nil {
		return err
	}
	defer done()
	if p.Volume(id) != nil {
		return fmt.Errorf("vdisk %s: %w: it is open; close it, then move it", id, ErrInUse)
	}
	if err := errors.Join(p.mayDelete(ctx), dst.mayDelete(ctx)); err != nil {
		return fmt.Errorf("vdisk %s: %w", id, err) // what is there may be all that there is of it
	}
	o, err := p.learnClean(ctx, id)
	if err != nil {
		return err
	}
	defer o.abandon()
	if err := checkMove(&o.rec, o.head); err != nil {
		return err
	}
	// From here on no clone of it is made, and no older opening commits (Y2).
	if err := o.take(ctx, FlagPending); err != nil {
		return err
	}
	c := &copier{p: p, dst: dst, id: id, progress: progress}
	st := &state{o.head, o.past, o.ref}
	if err := c.copy(ctx, st); err != nil {
		return err
	}
	if err := c.tidy(ctx, st); err != nil {
		return err
	}
	if dst.cfg.Store.Features().ConditionalPut {
		body, err := dst.claimBody(o.this)
		if err != nil {
			return err
		}
		if err := dst.again(ctx, func() error { return dst.cfg.Store.Put(ctx, claimName(id, o.this.Epoch), body) }); err != nil {
			return fmt.Errorf("vdisk %s: vpool %s: %w: %w", id, dst.cfg.Name, ErrBackend, err)
		}
	}
	h := o.nextHead()
	h.Pool, h.Condemned = dst.cfg.ID, nil // what the old home condemned is not here
	ref, err := dst.putHead(ctx, h)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBackend, err)
	}
	next := o.rec
	next.Pool, next.Head, next.Opens, next.Void, next.State, next.Owner = dst.cfg.ID, ref, nil, nil, FlagNone, ""
	if err := p.swapOver(ctx, &o.rec, &next); err != nil {
		return err
	}
	saveLocalHead(p.host, h)
	p.host.o.Log.Info("vdisk moved", "vdisk", h.Name, "id", id.String(), "from", p.cfg.Name, "to", dst.cfg.Name, "objects", c.out.Objects, "bytes", c.out.Bytes)
	return nil
}

// tidy deletes on the new backend what is left of earlier tries and the state lacks: a
// head among it would not be found void by who recovers from there.
func (c *copier) tidy(ctx context.Context, st *state) error {
	names, err := c.wanted(ctx, st)
	if err != nil {
		return err
	}
	there, err := c.dst.sizes(ctx, c.id)
	if err != nil {
		return err
	}
	for _, name := range names {
		delete(there, name)
	}
	for name := range there {
		if err := c.dst.remove(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// Home returns the UUID of the vPool that a vDisk is in.
func (h *Host) Home(ctx context.Context, id ID) (string, error) {
	rec, err := h.o.Registry.Load(ctx, id)
	return rec.Pool, err
}

// DropMoved deletes what this vPool has of a vDisk whose home is another one: after a
// move, or of one that was given up. It can be repeated. ErrDeletesOff.
func (p *Pool) DropMoved(ctx context.Context, id ID) error {
	done, err := p.begin(ctx, id)
	if err != nil {
		return err
	}
	defer done()
	if err := p.mayDelete(ctx); err != nil {
		return fmt.Errorf("vdisk %s: %w", id, err) // before it is called deleted there
	}
	rec, err := p.host.o.Registry.Load(ctx, id)
	switch {
	case err != nil:
		return err
	case rec.Pool == p.cfg.ID:
		return fmt.Errorf("vdisk %s: %w: vpool %s is its home", id, ErrInUse, p.cfg.Name)
	}
	newest, err := p.newestHead(ctx, id, HeadRef{}, nil)
	if err != nil {
		return err
	}
	if h := newest.head; h != nil && !h.Deleted { // Y3
		h.Epoch, h.Number, h.Deleted = max(rec.Epoch, h.Epoch), h.Number+1, true
		if _, err := p.putHead(ctx, h); err != nil {
			return err
		}
	}
	return p.purge(ctx, id, false)
}
