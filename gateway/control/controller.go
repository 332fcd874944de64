package control

import (
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/gateway/task"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

const (
	// workers bounds vDisks opened, deleted or closed at once: each may read
	// its map from the backend, and two cores do not gain from more.
	workers = 8
	// retryMin and retryMax bound the pause before an object is tried again.
	retryMin = time.Second
	retryMax = time.Minute
	// opTimeout bounds the engine's part of one request, so that a backend that
	// hangs holds neither a client nor an object for ever.
	opTimeout = 2 * time.Minute
	// deleteWait is how long a delete waits for the space to be given back
	// before it leaves the rest to the reconciler.
	deleteWait = 5 * time.Second
	// usageEvery is how often a backend is asked for its space.
	usageEvery = 5 * time.Second
	// usageTimeout bounds that question.
	usageTimeout = 5 * time.Second
)

// Options configure a Controller.
type Options struct {
	Model    *model.Store
	Engine   Engine
	Frontend Frontend
	Backends Backends
	Sealer   *Sealer
	Portals  []iscsi.Portal // of this node
	Node     string         // id of this node: it serves the vDisks that are made here
	Lease    Lease          // nil: none is needed, the registry is the node's own
	// Living returns the ids of the nodes that have a lease; nil: there is this node only.
	Living func(ctx context.Context) (map[string]bool, error)
	// LivingMoved tells that Living may return something else, as a hint; nil: nobody does.
	LivingMoved <-chan struct{}
	// Gone, which must not block, is told of a node that is seen without a lease; may be nil.
	Gone func(node string)
	// Takeable is told of nodes that are gone for so long that others may take over what they
	// worked on, with each look while there are some; may be nil. ctx bounds it.
	Takeable func(ctx context.Context, nodes map[string]bool)
	Clock    clock.Clock  // nil: the machine's
	Rand     io.Reader    // ids and secrets; nil: crypto/rand
	Log      *slog.Logger // nil: discard
	// Changed, when set, is told after an object changed: kind "vpool", "vdisk"
	// or "cloud" and its id, or "target" and its iSCSI name. It must not block and must
	// not call back.
	Changed func(kind, id string)
	// LastLiving returns the nodes that had a lease when that was last known; nil: it is not
	// known. It does not wait for anything.
	LastLiving func() map[string]bool
	// Paths: every node shows the targets of all. Moved, which must not block, is told
	// that vDisks may have other nodes; it may be nil without Paths.
	Paths bool
	Moved func()
	// Parts has other nodes take part in group snapshots; nil: there are no others.
	Parts Parts
	// Events is told what happens.
	Events event.Sink
	// NoSchedules: no scheduled job runs on this node, unless somebody asks for one.
	NoSchedules bool
	// Tasks is told what is worked on; nil: a book of its own.
	Tasks *task.Book
}

// Controller carries out what the model says. Safe for concurrent use.
type Controller struct {
	opt   Options
	model *model.Store
	log   *slog.Logger
	clock clock.Clock

	ctx    context.Context // ends when Stop begins
	cancel context.CancelFunc
	wg     sync.WaitGroup
	kick   chan struct{}
	slots  chan struct{} // workers

	started time.Time // by the wall and the monotonic clock
	permit  *permit   // nil: without a Lease

	// remoteLock is held by who changes a remote store, or adds a vPool on one; taken
	// before the locks of pools.
	remoteLock lock
	// cloudLock is held by who changes an OpenStack cloud or its record; cloudSlots has
	// room for cloudReads who look.
	cloudLock  lock
	cloudSlots chan struct{}

	mu        sync.Mutex
	stopping  bool
	pools     map[string]*pool
	disks     map[string]*vdisk
	shared    map[string]*shared
	due       map[ref]retry
	parts     map[volume.ID]*groupPart     // of group snapshots that this node takes part in
	leads     map[volume.ID]bool           // group snapshots that this node leads
	transfers map[string]*transfer         // by the vDisk that is there for it
	verifies  map[string]*verifyJob        // by vDisk
	clouds    map[string]CloudState        // by id
	gone      map[string]time.Time         // nodes without a lease, and when that was seen first
	standIns  map[string]*iscsi.RemoteDisk // by vDisk
	portals   []iscsi.Portal               // of the other nodes, as the targets have them

	verifySlots chan struct{} // maxVerifies
	scheduler   scheduler
	scrubs      jobs[volume.ScrubResult]
	sweeps      jobs[volume.SweepResult]
}

// ref names an object of the reconciler.
type ref struct{ kind, id string }

// retry says when an object is visited again.
type retry struct {
	at    time.Time
	pause time.Duration
	busy  bool // being visited
	again bool // scheduled while being visited
}

// pool is the running side of a vPool.
type pool struct {
	id    string
	lock  lock
	p     Pool          // nil: not attached
	store backend.Store // with p
	opens int           // times attached, to tell one store from the next
	err   error         // why not attached

	usage   backend.Usage
	usageAt time.Time
	awayErr error // of the newest question for the usage
	restore PoolRestore
	space   poolSpace
	// unknown are the vDisks on the backend that the registry did not know at the newest look,
	// strangers those that it did not know at the look before either.
	unknown, strangers []volume.ID
}

// vdisk is the running side of a vDisk.
type vdisk struct {
	lock     lock
	vol      Volume // nil: not open
	disk     *disk  // with vol
	exported bool   // initiators are shown it (C6)
	shown    string // iSCSI name of its own target, if the front end has that
	state    volume.State
	err      error    // why it is not open
	flat     *copying // nil: no flatten runs
	move     *copying // nil: no move runs
	hand     *copying // nil: no hand-over runs
	given    string   // node that it was given to and that has not opened it yet; empty: none
	showing  bool     // it was just opened, and initiators are about to be shown it
}

// lock is a mutex whose wait ends with a context.
type lock chan struct{}

func newLock() lock { return make(lock, 1) }

func (l lock) acquire(ctx context.Context) error {
	select {
	case l <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l lock) release() { <-l }

// New returns a Controller; Start makes it work.
func New(opt Options) *Controller {
	if opt.Clock == nil {
		opt.Clock = clock.Real{}
	}
	if opt.Rand == nil {
		opt.Rand = rand.Reader
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Tasks == nil {
		opt.Tasks = task.New(opt.Clock)
	}
	if opt.Changed == nil {
		opt.Changed = func(string, string) {}
	}
	if opt.LastLiving == nil {
		opt.LastLiving = func() map[string]bool { return nil }
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &Controller{
		opt: opt, model: opt.Model, log: opt.Log, clock: opt.Clock, started: opt.Clock.Now(), ctx: ctx, cancel: cancel,
		remoteLock: newLock(), cloudLock: newLock(), cloudSlots: make(chan struct{}, cloudReads), kick: make(chan struct{}, 1), slots: make(chan struct{}, workers),
		pools: map[string]*pool{}, disks: map[string]*vdisk{}, shared: map[string]*shared{}, due: map[ref]retry{},
		clouds: map[string]CloudState{}, scrubs: jobs[volume.ScrubResult]{}, sweeps: jobs[volume.SweepResult]{},
		standIns: map[string]*iscsi.RemoteDisk{}, transfers: map[string]*transfer{}, parts: map[volume.ID]*groupPart{}, leads: map[volume.ID]bool{}, verifies: map[string]*verifyJob{}, verifySlots: make(chan struct{}, maxVerifies),
	}
	c.scheduler.init()
	if opt.Lease != nil {
		c.permit = newPermit(opt.Clock)
	}
	return c
}

// tell tells what happened to an object, as messages name it.
func (c *Controller) tell(code event.Code, object string, fields ...string) {
	c.opt.Events.Tell(code, object, fields...)
}

// Start attaches the vPools and opens the vDisks, and returns when each was
// tried once or ctx ended; what failed is tried again in the background (C7).
func (c *Controller) Start(ctx context.Context) {
	if c.opt.Lease != nil {
		c.renewPermit(ctx)
		c.wg.Add(1)
		go c.watchLease()
	}
	for _, v := range c.model.VPools() {
		c.schedule(ref{"vpool", v.ID}, 0)
	}
	c.visitAll(ctx)
	c.startShared(ctx)
	c.followPortals()
	if c.opt.Paths {
		for _, v := range c.model.VDisks(func(v model.VDisk) bool { return !c.mine(v) && v.Target != nil }) {
			c.schedule(ref{"path", v.ID}, 0)
		}
	}
	for _, v := range c.model.VDisks(c.mine) {
		c.schedule(ref{"vdisk", v.ID}, 0)
	}
	c.visitAll(ctx)
	c.wg.Add(10)
	if c.opt.Living != nil {
		c.schedule(ref{"node", c.opt.Node}, 0)
		c.wg.Add(1)
		go c.watchGone()
	}
	go c.reconcile()
	go c.watchUsage()
	go c.watchFences()
	go c.watchTransfers()
	go c.watchTrash()
	go c.watchVerified()
	go c.watchClouds()
	go c.every(0, compareLook, c.comparePools)
	go c.every(0, groupsEvery, c.lookForGroups)
	go c.every(0, strangersEvery, c.lookForStrangers)
	if !c.opt.NoSchedules {
		c.wg.Add(1)
		go c.every(scheduleEvery, scheduleEvery, c.runDue)
	}
}

func (c *Controller) diskMap() map[string]*vdisk {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := make(map[string]*vdisk, len(c.disks))
	for k, v := range c.disks {
		m[k] = v
	}
	return m
}

func (c *Controller) poolMap() map[string]*pool {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := make(map[string]*pool, len(c.pools))
	for k, v := range c.pools {
		m[k] = v
	}
	return m
}

// pool returns the running side of a vPool, made on first use.
func (c *Controller) pool(id string) *pool {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.pools[id]
	if p == nil {
		p = &pool{id: id, lock: newLock()}
		c.pools[id] = p
	}
	return p
}

// vdisk returns the running side of a vDisk, made on first use.
func (c *Controller) vdisk(id string) *vdisk {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.disks[id]
	if d == nil {
		d = &vdisk{lock: newLock()}
		c.disks[id] = d
	}
	return d
}

// begin refuses work while the node stops and bounds it in time.
func (c *Controller) begin(ctx context.Context) (context.Context, context.CancelFunc, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopping {
		return nil, nil, &Error{Code: CodeStopping, Message: "the node is stopping", Hint: "try again when it is back"}
	}
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	stop := context.AfterFunc(c.ctx, cancel)
	return ctx, func() { stop(); cancel() }, nil
}

// schedule has an object visited after a pause.
func (c *Controller) schedule(r ref, after time.Duration) {
	c.mu.Lock()
	e := c.due[r]
	e.at, e.pause, e.again = c.clock.Now().Add(after), after, e.busy
	c.due[r] = e
	c.mu.Unlock()
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// reconcile visits objects when they are due, until Stop.
func (c *Controller) reconcile() {
	defer c.wg.Done()
	t := c.clock.NewTimer(retryMax)
	defer t.Stop()
	for {
		t.ResetAt(c.visitDue())
		select {
		case <-c.ctx.Done():
			return
		case <-c.kick:
		case <-t.C():
		}
	}
}

// visitDue starts the visits that are due, what was due first first, and returns when the
// next one is.
func (c *Controller) visitDue() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.clock.Now()
	last := now.Add(retryMax)
	for {
		r, next := c.nextDue(last)
		if next.After(now) {
			return next
		}
		select {
		case c.slots <- struct{}{}:
		default:
			return last // a worker that ends kicks the loop
		}
		e := c.due[r]
		e.busy = true
		c.due[r] = e
		c.wg.Add(1)
		go func() {
			defer c.wg.Done()
			c.visit(c.ctx, r)
			<-c.slots
			select {
			case c.kick <- struct{}{}:
			default:
			}
		}()
	}
}

// nextDue returns the object that is to be visited next, and when; at the time last if there
// is none before. mu is held.
func (c *Controller) nextDue(last time.Time) (first ref, at time.Time) {
	at = last
	for r, e := range c.due {
		if !e.busy && e.at.Before(at) {
			first, at = r, e.at
		}
	}
	return first, at
}

// visitAll visits everything scheduled once; used before the loop runs.
func (c *Controller) visitAll(ctx context.Context) {
	c.mu.Lock()
	todo := make([]ref, 0, len(c.due))
	for r, e := range c.due {
		if e.pause == 0 {
			e.busy = true
			c.due[r] = e
			todo = append(todo, r)
		}
	}
	c.mu.Unlock()
	var wg sync.WaitGroup
	for _, r := range todo {
		c.slots <- struct{}{}
		wg.Add(1)
		go func() {
			defer wg.Done()
			c.visit(ctx, r)
			<-c.slots
		}()
	}
	wg.Wait()
}

// visit brings one object nearer to what the model says, and schedules the next
// visit when it is not there yet.
func (c *Controller) visit(ctx context.Context, r ref) {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	var again bool
	id := r.id
	switch r.kind {
	case "vpool":
		again = c.visitPool(ctx, id)
	case "vdisk":
		again = c.visitDisk(ctx, id)
	case "path":
		again = c.visitPath(ctx, id)
	case "node":
		again = c.visitNode(ctx, id)
	case "target":
		id, again = c.visitTarget(ctx, id)
	case "backend":
		again = c.visitRemote(ctx, id)
	}
	c.mu.Lock()
	e := c.due[r]
	if again || e.again {
		e.pause = min(max(2*e.pause, retryMin), retryMax)
		e.at, e.busy, e.again = c.clock.Now().Add(e.pause), false, false
		c.due[r] = e
	} else {
		delete(c.due, r)
	}
	c.mu.Unlock()
	if r.kind != "backend" && r.kind != "node" && r.kind != "path" && id != "" {
		c.opt.Changed(r.kind, id)
	}
}

// every does something after first, and then at each interval, until Stop. It is one of
// the goroutines that Start counts.
func (c *Controller) every(first, interval time.Duration, do func()) {
	defer c.wg.Done()
	t := c.clock.NewTimer(first)
	defer t.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-t.C():
		}
		do()
		t.Reset(interval)
	}
}

// watchUsage asks the backends for their space now and then, so that lists
// answer from memory whatever the backends do.
func (c *Controller) watchUsage() {
	c.every(0, usageEvery, func() {
		for _, p := range c.poolMap() {
			c.askUsage(c.ctx, p)
		}
	})
}

// askUsage asks an attached vPool's backend for its space once.
func (c *Controller) askUsage(ctx context.Context, p *pool) {
	c.mu.Lock()
	store, opens := p.store, p.opens
	c.mu.Unlock()
	if store == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, usageTimeout)
	u, err := store.Usage(ctx)
	cancel()
	c.mu.Lock()
	was := p.awayErr
	c.mu.Unlock()
	if c.noteUsage(p, opens, u, err) {
		c.warnSpace(p)
	}
	c.mu.Lock()
	now := p.awayErr
	c.mu.Unlock()
	c.tellAway(p.id, was, now)
}

// tellAway tells that a vPool's backend went away or came back.
func (c *Controller) tellAway(id string, was, now error) {
	rec, ok := c.model.VPool(id)
	switch {
	case !ok, (was == nil) == (now == nil):
	case now != nil:
		c.tell(event.BackendAway, vpoolObject(rec.Name), "reason", now.Error())
	default:
		c.tell(event.BackendBack, vpoolObject(rec.Name))
	}
}

// noteUsage keeps the answer of the store that was attached as number opens; it
// tells whether space has just become low.
func (c *Controller) noteUsage(p *pool, opens int, u backend.Usage, err error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.opens != opens || c.stopping {
		return false
	}
	p.awayErr = err
	if err != nil {
		return false
	}
	p.usage, p.usageAt = u, c.clock.Now()
	return p.space.set(u)
}
