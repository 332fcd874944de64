package control

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"time"

	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// The node serves by its lease (O3). While that is valid, an operation is admitted and
// answered; else it waits, at most permitWait, and is then answered busy. What was read while
// the lease was valid nobody else can have changed before the answer was allowed.
//
// When a lease ended and a new one was taken (a new term), others may have taken vDisks over.
// Before anything is served in a term, the records are read anew; a vDisk of another node is
// revoked: what waits is answered "gone", its sessions are dropped.
//
//	lease   ──── valid ────┐ not renewed ┌──────── valid, next term ───
//	permit  ──── ok ───────┘   waits     └ records read ── ok ─────────
//
// A node without a lease to keep (its registry is its own) serves without.

const (
	// permitWait bounds how long an operation waits for the permit. It is below the time
	// after which hosts give up and begin to abort, 30 s; busy is tried again.
	permitWait = 20 * time.Second
	// permitLook is how often what waits is looked at, and how soon a look at the records
	// that failed is repeated.
	permitLook = time.Second
	// permitRead bounds one look at the records.
	permitRead = 5 * time.Second
)

// Lease is the node's permission to serve, *cluster.Lease.
type Lease interface {
	// State is until when the node may serve, and the term that this is of.
	State() (until time.Time, term uint64)
	// Moved returns a channel that is closed when State changes.
	Moved() <-chan struct{}
}

// permit is what the disks ask. Safe for concurrent use; nil allows everything.
type permit struct {
	clock   clock.Clock
	base    time.Time
	until   atomic.Int64  // ns after base
	term    atomic.Uint64 // in which the records were read; 0: in none
	waiters atomic.Int64  // operations that wait
	over    bool          // it is told that there is none; of renewPermit, which one goroutine calls
}

// revoked is the permit of a vDisk that another node has.
var revoked = func() *permit {
	p := &permit{clock: clock.Real{}, base: time.Now()}
	p.until.Store(math.MinInt64)
	return p
}()

func newPermit(clk clock.Clock) *permit {
	p := &permit{clock: clk, base: clk.Now()}
	p.until.Store(math.MinInt64)
	return p
}

// ok tells whether the node may serve now.
func (p *permit) ok() bool { return p == nil || int64(p.clock.Now().Sub(p.base)) < p.until.Load() }

// waits counts an operation that has to wait; false: it need not. It is counted before the
// last look, so that whoever renews the permit after that finds it.
func (p *permit) waits() bool {
	if p == nil {
		return false
	}
	p.waiters.Add(1)
	if p.ok() {
		p.waiters.Add(-1)
		return false
	}
	return true
}

// errNoPermit: the node's lease is not valid, or what it was served by is not looked at yet.
var errNoPermit = errors.New("the node's lease in the registry is not valid: nothing is opened before it is")

// Permitted tells whether the node may serve.
func (c *Controller) Permitted() bool { return c.permit.ok() }

// Term is the term of the lease by which the node may serve now. While it stays the same
// nobody can have taken anything over from the node. A node that serves without a lease has
// term 0.
func (c *Controller) Term() (term uint64, ok bool) {
	if c.permit == nil {
		return 0, true
	}
	term = c.permit.term.Load()
	return term, c.permit.ok()
}

// watchLease keeps the permit in step with the lease, until Stop.
func (c *Controller) watchLease() {
	defer c.wg.Done()
	t := c.clock.NewTimer(permitLook)
	defer t.Stop()
	for {
		moved := c.opt.Lease.Moved()
		c.renewPermit(c.ctx)
		t.Reset(permitLook)
		select {
		case <-c.ctx.Done():
			return
		case <-moved:
		case <-t.C():
		}
	}
}

// renewPermit brings the permit in step with the lease once.
func (c *Controller) renewPermit(ctx context.Context) {
	until, term := c.opt.Lease.State()
	was := c.permit.ok()
	if c.clock.Now().Before(until) && term != c.permit.term.Load() {
		if err := c.beginTerm(ctx, term); err != nil {
			c.log.Warn("the node has a lease and does not know yet what it is to serve", "err", err)
		}
	}
	if term == c.permit.term.Load() {
		c.permit.until.Store(int64(until.Sub(c.permit.base)))
	}
	now := c.permit.ok()
	c.tellPermit(now)
	if now && !was {
		c.log.Info("the node may serve", "term", term)
		for _, v := range c.model.VDisks(c.mine) {
			if c.volume(v.ID) == nil {
				c.schedule(ref{"vdisk", v.ID}, 0)
			}
		}
	}
	if c.permit.waiters.Load() > 0 {
		for _, d := range c.fronts() {
			d.goOn(c.clock.Now())
		}
	}
}

// tellPermit tells that the permit is over, which time alone does, or that there is one again.
func (c *Controller) tellPermit(now bool) {
	node := nodeObject(c.NodeName(c.opt.Node))
	switch over := c.permit.over; {
	case !now && !over:
		c.log.Warn("the node may not serve: its lease is not renewed; operations wait")
		c.tell(event.LeaseLost, node)
	case now && over:
		c.tell(event.LeaseBack, node)
	}
	c.permit.over = !now
}

// beginTerm reads the records of a term, and revokes what is another node's.
func (c *Controller) beginTerm(ctx context.Context, term uint64) error {
	ctx, cancel := context.WithTimeout(ctx, permitRead)
	defer cancel()
	if err := c.fresh(ctx); err != nil {
		return err
	}
	for id, d := range c.openFronts() {
		if rec, ok := c.model.VDisk(id); !ok || !c.mine(rec) {
			d.revoke()
			c.schedule(ref{"vdisk", id}, 0)
		}
	}
	c.permit.term.Store(term)
	return nil
}

// openFronts returns what shows the open vDisks to initiators, by the vDisk's id.
func (c *Controller) openFronts() map[string]*disk {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string]*disk{}
	for id, d := range c.disks {
		if d.disk != nil {
			out[id] = d.disk
		}
	}
	return out
}

func (c *Controller) fronts() []*disk {
	var out []*disk
	for _, d := range c.openFronts() {
		out = append(out, d)
	}
	return out
}

// StateSuspended: open, and its operations wait for the node's lease.
const StateSuspended volume.State = "suspended"
