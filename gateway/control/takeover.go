package control

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openvstorage/ovgate/gateway/cluster"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/internal/kv"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// A node whose lease ended serves nothing from then on (permit.go). TakeoverWait later other
// nodes take over those of its vDisks of which nothing is lost by that: they were closed in
// order, or the taker has a whole copy of the journal's tail. Of the others the newest writes
// are in the journal of that node only; they wait for it, or for somebody's word that these
// writes may be lost (StealVDisk). The change of the record holds only while the node has no
// lease, so of two that take over one does, and none when it came back.
//
// A node that comes back reads the records before it serves, closes what it lost, and gives
// up its journal when a head of the new owner covers it (forsake).

const (
	// takeLook is how often a node looks for nodes that are gone.
	takeLook = 500 * time.Millisecond
	// takeRead bounds what a look asks of the registry, each time.
	takeRead = 2 * time.Second
	// takers is how many vDisks are asked for, or taken over, at once.
	takers = 8
)

// StateWaiting: the node that serves it is down, and has its newest writes.
const StateWaiting volume.State = "waiting"

// waitingState is what a vDisk is whose node is down.
func (c *Controller) waitingState(v model.VDisk) DiskStatus {
	return DiskStatus{State: StateWaiting, Reason: "node " + c.NodeName(v.Node) + " is down and has its newest writes: start it, or do without them: ovgate vdisk steal " + v.Name + " --accept-loss"}
}

// Holds tells by their ids where what vDisks consist of is, as the registry knows it.
func (c *Controller) Holds(ctx context.Context) (map[string]volume.Hold, error) {
	all, err := c.opt.Engine.Holds(ctx)
	if err != nil {
		return nil, &Error{Code: CodeBackend, Message: "the registry does not say where journals are", Hint: "bring the registry back", Err: err}
	}
	out := make(map[string]volume.Hold, len(all))
	for id, h := range all {
		out[id.String()] = h
	}
	return out, nil
}

// watchGone looks for nodes that are gone every takeLook, when it is told that a lease ended,
// and when what such a node served may be taken over.
func (c *Controller) watchGone() {
	defer c.wg.Done()
	t := c.clock.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-c.opt.LivingMoved:
		case <-t.C():
		}
		c.lookForGone()
		t.Reset(c.nextLook())
	}
}

// nextLook is how long nothing is due: a node that is gone is ready for a takeover once that
// has passed.
func (c *Controller) nextLook() time.Duration {
	now := c.clock.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	next := takeLook
	for _, since := range c.gone {
		if left := cluster.TakeoverWait - now.Sub(since); left > 0 {
			next = min(next, left)
		}
	}
	return next
}

// lookForGone finds nodes that are gone, and takes over what can be.
func (c *Controller) lookForGone() {
	ctx, cancel := context.WithTimeout(c.ctx, takeRead)
	defer cancel()
	living, err := c.living(ctx)
	if err != nil || !c.permit.ok() || c.leaving() {
		c.mu.Lock()
		c.gone = nil // what was seen before says nothing any more
		c.mu.Unlock()
		return
	}
	ready := c.noteGone(living)
	if len(ready) == 0 {
		return
	}
	if c.opt.Takeable != nil {
		defer func() {
			ctx, cancel := context.WithTimeout(c.ctx, takeRead)
			defer cancel()
			c.opt.Takeable(ctx, ready) // after their vDisks: it follows these
		}()
	}
	disks := c.model.VDisks(func(v model.VDisk) bool { return ready[v.Node] && v.State != model.StateDeleting })
	// All nodes choose from the same list.
	slices.SortFunc(disks, func(a, b model.VDisk) int { return strings.Compare(a.ID, b.ID) })
	c.takeAll(c.choose(c.holders(disks), living))
}

// takeable is a vDisk of a node that is gone, and where what it consists of is; nil: that is
// not known, or this node does not reach it.
type takeable struct {
	v    model.VDisk
	held *volume.Hold
}

// each calls do for the numbers below n, a few at once, beginning with the first.
func each(n int, do func(i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(n, takers) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				do(int(i))
			}
		})
	}
	wg.Wait()
}

func (c *Controller) notTaken(v model.VDisk, err error) {
	if err != nil && c.ctx.Err() == nil {
		c.log.Warn("vDisk of a node that is gone is not taken over", "vdisk", v.Name, "id", v.ID, "node", c.NodeName(v.Node), "err", err)
	}
}

// holders finds out where what vDisks consist of is.
func (c *Controller) holders(disks []model.VDisk) []takeable {
	out := make([]takeable, len(disks))
	each(len(disks), func(i int) {
		held, err := c.holder(disks[i])
		c.notTaken(disks[i], err)
		out[i] = takeable{disks[i], held}
	})
	return out
}

func (c *Controller) holder(v model.VDisk) (*volume.Hold, error) {
	pool, ok := c.model.VPool(v.VPool)
	if !ok || pool.Node != "" || !pool.Backend.Shared() {
		return nil, nil
	}
	id, err := volume.ParseID(v.ID)
	if err != nil {
		return nil, err
	}
	if _, err := c.attached(v.VPool); err != nil {
		return nil, nil // not this node
	}
	ctx, cancel := context.WithTimeout(c.ctx, takeRead)
	defer cancel()
	held, err := c.opt.Engine.Holder(ctx, id)
	if errors.Is(err, volume.ErrNotFound) && v.State == model.StateCreating {
		held, err = volume.Hold{Clean: true}, nil // nothing of it is anywhere
	}
	if err != nil {
		return nil, err
	}
	return &held, nil
}

// choose returns those of which nothing is lost by that and this node is the one to take
// them over, the most recently used first: what initiators asked of it lately, and what its
// copy of the journal got, is the use that this node knows of.
func (c *Controller) choose(disks []takeable, living map[string]bool) []model.VDisk {
	load := c.load()
	used := map[string]time.Time{}
	var mine []model.VDisk
	for _, t := range disks {
		if t.held == nil {
			continue
		}
		to := t.held.Copy
		if t.held.Clean {
			to, _ = c.nodeFor(living, load, t.v.Node)
		}
		if to == "" || !living[to] {
			continue
		}
		load[to]++
		if to != c.opt.Node {
			continue
		}
		mine = append(mine, t.v)
		used[t.v.ID] = t.held.Used
		if asked := c.asked(t.v.ID); asked.After(t.held.Used) {
			used[t.v.ID] = asked
		}
	}
	slices.SortStableFunc(mine, func(a, b model.VDisk) int { return used[b.ID].Compare(used[a.ID]) })
	return mine
}

// asked is when this node last sent a command of an initiator for a vDisk to the node that
// serves it, or had one wait for that.
func (c *Controller) asked(id string) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := c.standIns[id]; d != nil {
		return d.Asked()
	}
	return time.Time{}
}

// takeAll takes vDisks over, in their order, and has them opened.
func (c *Controller) takeAll(disks []model.VDisk) {
	each(len(disks), func(i int) {
		v := disks[i]
		ctx, cancel := context.WithTimeout(c.ctx, takeRead)
		defer cancel()
		out, err := c.take(ctx, v)
		if err != nil {
			c.notTaken(v, err)
			return
		}
		c.log.Warn("vDisk taken over from a node that is gone", "vdisk", out.Name, "id", out.ID, "node", c.NodeName(v.Node))
		c.tell(event.VDiskTakenOver, vdiskObject(out.Name), "node", c.NodeName(v.Node))
		c.schedule(ref{"vdisk", v.ID}, 0)
	})
}

// noteGone remembers since when nodes are gone, and returns those of which others may take
// over.
func (c *Controller) noteGone(living map[string]bool) map[string]bool {
	now := c.clock.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.gone
	c.gone = map[string]time.Time{}
	ready := map[string]bool{}
	for _, n := range c.model.Nodes() {
		if living[n.ID] {
			continue
		}
		since, known := was[n.ID]
		if !known {
			since = now
			if c.opt.Gone != nil && n.ID != c.opt.Node {
				c.opt.Gone(n.ID)
			}
		}
		c.gone[n.ID] = since
		if now.Sub(since) >= cluster.TakeoverWait {
			ready[n.ID] = true
		}
	}
	return ready
}

// Gone tells whether a node was not there at the last look.
func (c *Controller) Gone(node string) bool { return c.isGone(node) }

// isGone tells whether a node was not there at the last look.
func (c *Controller) isGone(node string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, gone := c.gone[node]
	return gone
}

// errNotTaken: another node did, or its node came back.
var errNotTaken = errors.New("it is another node's by now, or its node is back")

// take makes a vDisk of a node without a lease this node's.
func (c *Controller) take(ctx context.Context, v model.VDisk) (model.VDisk, error) {
	out, err := c.model.GiveVDisk(ctx, v.ID, c.opt.Node, []kv.Compare{cluster.Gone(v.Node)}, func(r *model.VDisk) error {
		if r.Node != v.Node {
			return errNotTaken
		}
		r.Handover = nil
		return nil
	})
	if errors.Is(err, model.ErrConflict) {
		return out, errors.Join(errNotTaken, c.fresh(ctx))
	}
	return out, err
}

// StealVDisk takes a vDisk over from a node that is gone to this one. acceptLoss: without the
// writes that only that node has, if there are any.
func (c *Controller) StealVDisk(ctx context.Context, name string, acceptLoss bool) (model.VDisk, error) {
	ctx, done, err := c.begin(ctx)
	if err != nil {
		return model.VDisk{}, err
	}
	defer done()
	rec, err := c.FindVDisk(name)
	if err != nil {
		return rec, err
	}
	object := vdiskObject(rec.Name)
	if !c.mine(rec) {
		if rec, err = c.steal(ctx, rec, acceptLoss); err != nil {
			return rec, explain(object, err)
		}
	}
	d := c.vdisk(rec.ID)
	if err := d.lock.acquire(ctx); err != nil {
		return rec, explain(object, err)
	}
	defer d.lock.release()
	now, ok := c.model.VDisk(rec.ID)
	switch {
	case !ok || now.State == model.StateDeleting:
		return rec, noVDisk(rec.Name)
	case !c.mine(now):
		return now, &Error{Code: CodeInUse, Object: object, Message: errNotTaken.Error(), Hint: "ovgate vdisk show " + rec.Name + " tells which node it is"}
	}
	rec = now
	if err := c.openStolen(ctx, d, rec, acceptLoss); err != nil {
		c.schedule(ref{"vdisk", rec.ID}, retryMin)
		return rec, explain(object, err)
	}
	c.opt.Changed("vdisk", rec.ID)
	return rec, nil
}

// steal makes it this node's.
func (c *Controller) steal(ctx context.Context, rec model.VDisk, acceptLoss bool) (model.VDisk, error) {
	object := vdiskObject(rec.Name)
	pool, ok := c.model.VPool(rec.VPool)
	if !ok {
		return rec, noVPool(rec.VPool, "")
	}
	if e := c.reached(pool, ""); e != nil {
		return rec, e
	}
	if pool.Node != "" || !pool.Backend.Shared() {
		return rec, &Error{Code: CodeElsewhere, Object: object, Message: "only node " + c.NodeName(rec.Node) + " reaches its vPool", Hint: "start that node"}
	}
	id, err := volume.ParseID(rec.ID)
	if err != nil {
		return rec, err
	}
	held, err := c.opt.Engine.Holder(ctx, id)
	if err != nil && !errors.Is(err, volume.ErrNotFound) {
		return rec, err
	}
	if err == nil && !held.Clean && held.Copy != c.opt.Node && !acceptLoss {
		return rec, &Error{Code: CodeLostTail, Field: "acceptLoss", Object: object, Message: "node " + c.NodeName(rec.Node) + " has its newest writes",
			Hint: "start that node, or do without them: ovgate vdisk steal " + rec.Name + " --accept-loss"}
	}
	up := &Error{Code: CodeInUse, Object: object, Message: "node " + c.NodeName(rec.Node) + ", which serves it, is up", Hint: c.askNode(rec.Node) + " vdisk move " + rec.Name + " --node NODE"}
	living, err := c.living(ctx)
	if err != nil {
		return rec, &Error{Code: CodeBackend, Object: object, Message: "the registry does not say whether its node is up", Hint: "bring the registry back", Err: err}
	}
	if living[rec.Node] {
		return rec, up
	}
	if !c.pause(ctx, cluster.TakeoverWait) { // rule L4
		return rec, ctx.Err()
	}
	out, err := c.take(ctx, rec)
	if errors.Is(err, errNotTaken) {
		return rec, up
	}
	if err == nil {
		c.log.Warn("vDisk stolen", "vdisk", out.Name, "id", out.ID, "node", c.NodeName(rec.Node), "acceptLoss", acceptLoss)
		c.tell(event.VDiskStolen, vdiskObject(out.Name), "node", c.NodeName(rec.Node))
	}
	return out, err
}

// openStolen opens a vDisk, without lost writes if these are accepted; d.lock is held.
func (c *Controller) openStolen(ctx context.Context, d *vdisk, rec model.VDisk, acceptLoss bool) error {
	if rec.State != model.StatePresent {
		c.schedule(ref{"vdisk", rec.ID}, 0)
		return nil
	}
	err := c.open(ctx, d, rec)
	if !acceptLoss || !errors.Is(err, volume.ErrLostTail) {
		return err
	}
	ep, id, err := c.engineDisk(rec)
	if err != nil {
		return err
	}
	if err := ep.AcceptLoss(ctx, id); err != nil {
		return err
	}
	c.log.Warn("loss of acknowledged writes accepted", "vdisk", rec.Name, "id", rec.ID)
	c.tell(event.VDiskLossAccepted, vdiskObject(rec.Name))
	return c.open(ctx, d, rec)
}

// forsake gives up what this node has of a vDisk that is another node's; true: not all of it
// can go yet. d.lock is held.
func (c *Controller) forsake(ctx context.Context, rec model.VDisk) bool {
	ep, id, err := c.engineDisk(rec)
	if err != nil {
		return true
	}
	done, err := ep.Forsake(ctx, id)
	if err != nil {
		c.log.Warn("journal of a vDisk of another node is kept", "vdisk", rec.Name, "id", rec.ID, "err", err)
	}
	return !done
}
