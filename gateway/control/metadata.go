package control

import (
	"context"
	"slices"
	"time"

	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// After a restore of the registry, a vPool deletes nothing before it was compared with its
// backend (rule E7). Each node that has it attached compares it; the first that ends takes the
// mark away for all.
const (
	// compareLook is how often it is looked whether a vPool is to be compared, which costs
	// nothing where there is no mark.
	compareLook = 5 * time.Second
	// compareAgain is the time between two comparisons of a vPool: each lists its objects.
	compareAgain = time.Minute
)

// PoolRestore tells of a vPool whose registry was restored.
type PoolRestore struct {
	// Mark is that of the restore, while deletes are off; nil: they are on.
	Mark *volume.Restored
	// Last is the newest comparison that ended here, also one that keeps deletes off; nil:
	// none did.
	Last *volume.Comparison
	Err  error // why the newest did not end
	at   time.Time
}

// lookAtMark reads the mark of a vPool that was just attached.
func (c *Controller) lookAtMark(ctx context.Context, p *pool, ep Pool) {
	m, err := ep.Restored(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	p.restore = PoolRestore{Mark: m, Err: err}
}

// comparePools compares those vPools whose mark is there.
func (c *Controller) comparePools() {
	for id, p := range c.poolMap() {
		c.mu.Lock()
		ep, was := p.p, p.restore
		c.mu.Unlock()
		if ep == nil || was.Mark == nil && was.Err == nil {
			continue
		}
		mark, err := ep.Restored(c.ctx)
		now := PoolRestore{Mark: mark, Last: was.Last, Err: err, at: was.at}
		if mark != nil && (was.at.IsZero() || c.clock.Now().Sub(was.at) >= compareAgain) {
			now = c.compare(id, ep)
		}
		c.mu.Lock()
		if p.p == ep {
			p.restore = now
		}
		c.mu.Unlock()
		if was.Mark != nil && now.Mark == nil && now.Err == nil {
			c.opt.Changed("vpool", id)
		}
	}
}

// compare compares one vPool.
func (c *Controller) compare(id string, ep Pool) PoolRestore {
	out := PoolRestore{at: c.clock.Now()}
	found, err := ep.Compare(c.ctx)
	if out.Err = err; err == nil {
		out.Last = &found
	}
	mark, merr := ep.Restored(c.ctx)
	if out.Mark = mark; out.Err == nil {
		out.Err = merr
	}
	switch {
	case out.Err != nil && c.ctx.Err() == nil:
		c.log.Warn("a vPool was not compared with the restored registry; deletes stay off, it is tried again", "id", id, "err", out.Err)
	case out.Err == nil && mark != nil:
		c.log.Warn("the comparison of a vPool with the restored registry found what keeps deletes off", "id", id, "unclear", len(found.Unclear))
	}
	return out
}

// VPoolRestore tells of the newest restore of the registry, for a vPool; zero: there was none,
// or the vPool is not attached here.
func (c *Controller) VPoolRestore(ctx context.Context, id string) (PoolRestore, error) {
	c.mu.Lock()
	var out PoolRestore
	var ep Pool
	if p := c.pools[id]; p != nil {
		out, ep = p.restore, p.p
	}
	c.mu.Unlock()
	if ep == nil || out.Mark != nil || out.Err != nil {
		return out, nil
	}
	var err error
	out.Last, err = ep.LastComparison(ctx)
	return out, err
}

// AcceptUnclear has vDisks that keep deletes of a vPool off, as the newest comparison here found,
// do so no more. The vPool is compared again at once.
func (c *Controller) AcceptUnclear(ctx context.Context, vpool string, vdisks []string) error {
	ctx, done, err := c.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	rec, err := c.FindVPool(vpool)
	if err != nil {
		return err
	}
	object := vpoolObject(rec.Name)
	if e := c.reached(rec, "vpool"); e != nil {
		return e
	}
	c.mu.Lock()
	p := c.pools[rec.ID]
	var ep Pool
	var r PoolRestore
	if p != nil {
		ep, r = p.p, p.restore
	}
	c.mu.Unlock()
	switch {
	case ep == nil:
		return &Error{Code: CodeBackend, Object: object, Message: "its backend is not attached", Hint: "ovgate vpool show " + rec.Name + " tells why"}
	case r.Mark == nil:
		return &Error{Code: CodeInUse, Object: object, Message: "its deletes are on: nothing is to be accepted", Hint: "ovgate metadata status shows vPools"}
	case r.Last == nil:
		return &Error{Code: CodeInUse, Object: object, Message: "it was not compared with its backend yet", Hint: "look at ovgate metadata status a minute later", Soon: true}
	case len(vdisks) == 0:
		return invalid("vdisks", object, "name vDisks that ovgate metadata status shows as unclear", "no vDisk is named")
	}
	var ids []volume.ID
	for _, want := range vdisks {
		i := slices.IndexFunc(r.Last.Unclear, func(s volume.Strange) bool { return s.ID.String() == want })
		if i < 0 {
			return invalid("vdisks", object, "name ids that ovgate metadata status shows as unclear", "vDisk %s does not keep its deletes off", clip(want))
		}
		ids = append(ids, r.Last.Unclear[i].ID)
	}
	if err := ep.AcceptUnclear(ctx, ids...); err != nil {
		return explain(object, err)
	}
	c.log.Warn("vDisks are accepted that keep deletes off since the metadata were restored", "vpool", rec.Name, "vdisks", vdisks)
	now := c.compare(rec.ID, ep)
	c.mu.Lock()
	if p.p == ep {
		p.restore = now
	}
	c.mu.Unlock()
	c.opt.Changed("vpool", rec.ID)
	if now.Err != nil {
		return explain(object, now.Err)
	}
	return nil
}

// restoreOf returns what is known of the restore, without asking.
func (c *Controller) restoreOf(id string) PoolRestore {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.pools[id]; p != nil && p.p != nil {
		return p.restore
	}
	return PoolRestore{}
}

// DeletesOff tells why a vPool deletes nothing since the metadata were restored; off: it
// does not.
func (c *Controller) DeletesOff(id string) (off bool, made time.Time, why string) {
	r := c.restoreOf(id)
	switch {
	case r.Mark == nil && r.Err == nil:
		return false, time.Time{}, ""
	case r.Err != nil:
		why = r.Err.Error()
	case r.Last != nil && len(r.Last.Unclear) > 0:
		u := r.Last.Unclear[0]
		if why = "vDisk " + u.ID.String() + ": "; u.Name != "" {
			why = "vDisk " + u.Name + " (" + u.ID.String() + "): "
		}
		why += u.Why
	default:
		why = "its vDisks are being compared with the backend"
	}
	if r.Mark != nil {
		made = r.Mark.Made
	}
	return true, made, why
}
