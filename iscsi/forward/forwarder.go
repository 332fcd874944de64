package forward

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/iscsi"
)

const (
	// Park is how long a command waits for a node that takes it (F4): below
	// iscsi.CommandMaxAge, so that the owner has time for what is sent at its end.
	Park = 3 * time.Second
	// DefaultAway is how long a node that lives is not reached from here before commands are
	// told that this path does not lead to the unit (F7): far above what a takeover takes, so
	// that a unit that moves is not met by it.
	DefaultAway = 15 * time.Second
	// tick is how often waiting commands are looked at, besides at every event.
	tick = 50 * time.Millisecond
	// reopen is the pause after an owner refused a nexus or a command.
	reopen = 50 * time.Millisecond
	// slack is what is added to the age at which an outcome is certain.
	slack = 50 * time.Millisecond
	// idle is how long a link without a nexus is kept.
	idle = time.Minute

	// pulse is how often the process sees that it runs, pause what it takes for a pause (O3).
	pulse = 500 * time.Millisecond
	pause = 2 * time.Second

	minBackoff = 50 * time.Millisecond
	maxBackoff = time.Second
)

// Options configure a Forwarder. All but Log must be set.
type Options struct {
	Cluster, Node string // ids
	// Dial connects to a node, with TLS if the network wants it, and returns soon after ctx ends.
	Dial func(ctx context.Context, node string) (net.Conn, error)
	// Owner returns the id of the node that serves the logical unit of a serial number; "":
	// it is not known, or it is this one. It does not block, and does not call back.
	Owner func(unit string) string
	// Lives tells whether other nodes hear one that this node does not reach. It does not
	// block, and does not call back; nil: nobody knows.
	Lives func(node string) bool
	Away  time.Duration // DefaultAway if 0
	Clock clock.Clock
	Log   *slog.Logger // nil: discard
}

// Forwarder is the near end. Safe for concurrent use.
type Forwarder struct {
	o        Options
	ctx      context.Context
	cancel   context.CancelFunc
	linkRuns sync.WaitGroup
	looks    sync.WaitGroup
	kick     chan struct{} // capacity 1
	over     chan struct{} // closed when the links have ended
	moved    atomic.Bool   // units may have other owners than the nodes that have their commands

	mu      sync.Mutex
	closed  bool
	links   map[string]*link // by node
	waiting []*iscsi.RemoteCommand
	unknown []*iscsi.RemoteCommand // sent on links that broke
	resets  []*reset               // not answered
	beat    time.Time              // when the process was seen to run
	resumed time.Time              // after the last pause
	lastID  uint64
}

var _ iscsi.Forwarder = (*Forwarder)(nil)

// NewForwarder returns a Forwarder that connects when there is something to do.
func NewForwarder(o Options) *Forwarder {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Lives == nil {
		o.Lives = func(string) bool { return false }
	}
	if o.Away == 0 {
		o.Away = DefaultAway
	}
	f := &Forwarder{o: o, kick: make(chan struct{}, 1), over: make(chan struct{}), links: map[string]*link{}}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	f.beat = o.Clock.Now()
	f.looks.Go(f.run)
	f.looks.Go(f.pulse)
	return f
}

// Close ends the links; commands that were not sent end, others when they are certain
// to be over. The sessions must have ended, for what comes later is refused.
func (f *Forwarder) Close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.cancel()
	f.linkRuns.Wait()
	close(f.over)
	f.looks.Wait()
}

// Moved tells that units may have other owners.
func (f *Forwarder) Moved() {
	f.moved.Store(true)
	f.wake()
}

func (f *Forwarder) wake() {
	select {
	case f.kick <- struct{}{}:
	default:
	}
}

// path is a session.
type path struct {
	f  *Forwarder
	id iscsi.NexusID

	// Under Forwarder.mu.
	since   time.Time // of the session
	opened  bool      // at some owner, at some time
	nexuses map[string]*nexus
}

// nexus is a session at an owner: one opening on one link.
type nexus struct {
	p       *path
	l       *link
	id      uint64
	open    bool
	lastTag uint32
	pending map[uint32]*iscsi.RemoteCommand // by tag; queued or sent
}

// reset is a reset of a unit until its answer.
type reset struct {
	p     *path
	unit  string
	lun   uint16
	since time.Time
	n     *nexus // on which it was sent; nil: it was not
	tag   uint32
	done  func(bool)
}

// Begin implements iscsi.Forwarder.
func (f *Forwarder) Begin(id iscsi.NexusID, since time.Time) iscsi.ForwardPath {
	return &path{f: f, id: id, since: since, nexuses: map[string]*nexus{}}
}

// Submit implements iscsi.ForwardPath.
func (p *path) Submit(r *iscsi.RemoteCommand) {
	f := p.f
	f.mu.Lock()
	defer f.mu.Unlock()
	r.Path = p
	now := f.o.Clock.Now()
	f.runs(now)
	if stale := p.stale(); stale || r.Cancelled || f.closed || !f.place(r, now) {
		f.waiting = append(f.waiting, r)
		if stale || r.Cancelled || len(f.waiting) == 1 || f.away(r.Unit, now) {
			f.wake()
		}
	}
}

// runs notes that the process runs, and finds out whether it did not for a while. mu is held.
func (f *Forwarder) runs(now time.Time) {
	if now.Sub(f.beat) > pause {
		f.resumed = now
	}
	f.beat = now
}

// stale tells whether commands of the session may have waited for the end of a pause, in
// which their initiator has perhaps gone on elsewhere (F6). mu is held.
func (p *path) stale() bool { return p.since.Before(p.f.resumed) }

// pulse looks for pauses when there are no commands.
func (f *Forwarder) pulse() {
	t := f.o.Clock.NewTimer(pulse)
	defer t.Stop()
	for {
		select {
		case <-f.ctx.Done():
			return
		case <-t.C():
		}
		f.mu.Lock()
		f.runs(f.o.Clock.Now())
		f.mu.Unlock()
		t.Reset(pulse)
	}
}

// Abort implements iscsi.ForwardPath.
func (p *path) Abort(r *iscsi.RemoteCommand) {
	f := p.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Outcome != 0 || r.Cancelled {
		return
	}
	r.Cancelled = true
	for _, n := range p.nexuses {
		if n.pending[r.Tag] == r {
			n.l.send(out{typ: typeAbort, mark: mark{nexus: n.id, tag: r.Tag}})
			return
		}
	}
	f.wake() // it waits, or will
}

// Reset implements iscsi.ForwardPath.
func (p *path) Reset(unit string, lun uint16, done func(bool)) {
	f := p.f
	f.mu.Lock()
	defer f.mu.Unlock()
	f.resets = append(f.resets, &reset{p: p, unit: unit, lun: lun, since: f.o.Clock.Now(), done: done})
	f.wake()
}

// End implements iscsi.ForwardPath.
func (p *path) End() {
	f := p.f
	f.mu.Lock()
	defer f.mu.Unlock()
	for node, n := range p.nexuses {
		n.l.send(out{typ: typeClose, mark: mark{nexus: n.id}})
		delete(n.l.nexuses, n.id)
		delete(p.nexuses, node)
	}
}

// nexusFor returns the opened nexus of a path at the owner of a unit; nil: there is none
// yet. mu is held.
func (f *Forwarder) nexusFor(p *path, unit string, now time.Time) *nexus {
	node := f.o.Owner(unit)
	if node == "" || node == f.o.Node {
		return nil
	}
	if n := p.nexuses[node]; n != nil {
		if n.open {
			return n
		}
		return nil
	}
	l := f.link(node)
	if !l.up || now.Before(l.notBefore) || len(l.nexuses) >= maxNexuses {
		return nil
	}
	f.lastID++
	n := &nexus{p: p, l: l, id: f.lastID, pending: map[uint32]*iscsi.RemoteCommand{}}
	l.nexuses[n.id], p.nexuses[node] = n, n
	l.send(out{typ: typeOpen, open: opening{nexus: n.id, again: p.opened, id: p.id}})
	return nil
}

// away tells whether the owner of a unit lives and cannot be reached from here (F7). mu is
// held.
func (f *Forwarder) away(unit string, now time.Time) bool {
	l := f.links[f.o.Owner(unit)]
	return l != nil && !l.up && now.Sub(l.down) >= f.o.Away && f.o.Lives(l.node)
}

// place gives a command to the link of its owner, if it can be sent now. mu is held.
func (f *Forwarder) place(r *iscsi.RemoteCommand, now time.Time) bool {
	if now.Before(r.Later) {
		return false
	}
	n := f.nexusFor(r.Path.(*path), r.Unit, now)
	if n == nil {
		return false
	}
	n.lastTag++
	r.Tag, r.Sent = n.lastTag, false
	n.pending[r.Tag] = r
	n.l.send(out{typ: typeCommand, nexus: n, r: r})
	return true
}

// run looks after what waits, until the end.
func (f *Forwarder) run() {
	t := f.o.Clock.NewTimer(tick)
	defer t.Stop()
	over := f.over
	for {
		select {
		case <-f.kick:
		case <-t.C():
		case <-over:
			over = nil // once
		}
		done, left := f.look()
		for _, d := range done {
			d()
		}
		switch {
		case left: // for a time bounded by the age of commands
			t.Reset(tick)
		case f.ended():
			return
		default:
			t.Reset(idle)
		}
	}
}

// ended tells whether nothing comes any more.
func (f *Forwarder) ended() bool {
	select {
	case <-f.over:
		return true
	default:
		return false
	}
}

// look places what waits, and returns how to end what is over; left: more waits.
func (f *Forwarder) look() (over []func(), left bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.o.Clock.Now()
	end := func(r *iscsi.RemoteCommand, o iscsi.Outcome) {
		r.Outcome = o
		over = append(over, r.Done.CompleteRemote)
	}
	waiting := f.waiting
	f.waiting = nil
	for _, r := range waiting {
		switch {
		case r.Cancelled:
			end(r, iscsi.OutcomeAborted)
		case r.Path.(*path).stale():
			end(r, iscsi.OutcomeStale)
		case f.closed || now.Sub(r.Since) >= Park:
			end(r, iscsi.OutcomeNot)
		case f.place(r, now):
		case f.away(r.Unit, now):
			end(r, iscsi.OutcomeAway)
		default:
			f.waiting = append(f.waiting, r)
		}
	}
	unknown := f.unknown[:0]
	for _, r := range f.unknown {
		if now.Sub(r.Since) >= iscsi.CommandMaxAge+slack {
			end(r, iscsi.OutcomeUnknown)
		} else {
			unknown = append(unknown, r)
		}
	}
	clear(f.unknown[len(unknown):])
	f.unknown = unknown
	fail := func(r *reset) { over = append(over, func() { r.done(false) }) }
	moving := f.moved.Swap(false) && f.lookMoved(now, end, fail)
	if moving {
		f.moved.Store(true)
	}
	f.lookResets(now, fail)
	return over, moving || len(f.waiting)+len(f.unknown)+len(f.resets) > 0
}

// lookMoved ends what nodes have not answered that serve its unit no more (F8); left: they have time for
// some of it, or it is in use. mu is held.
func (f *Forwarder) lookMoved(now time.Time, end func(*iscsi.RemoteCommand, iscsi.Outcome), fail func(*reset)) (left bool) {
	lost := func(l *link, unit string, since time.Time) bool {
		if f.o.Owner(unit) == l.node {
			return false
		}
		old := now.Sub(since) >= iscsi.CommandMaxAge+slack
		left = left || !old
		return old
	}
	for _, l := range f.links {
		for _, n := range l.nexuses {
			for tag, r := range n.pending {
				switch {
				case !lost(l, r.Unit, r.Since):
				case !r.Sent || r == l.sending || r == l.taking:
					left = true
				default:
					delete(n.pending, tag)
					o := iscsi.OutcomeUnknown
					if r.Repeatable {
						o = iscsi.OutcomeNot
					}
					end(r, o)
				}
			}
		}
	}
	f.resets = slices.DeleteFunc(f.resets, func(r *reset) bool {
		gone := r.n != nil && lost(r.n.l, r.unit, r.since)
		if gone {
			fail(r)
		}
		return gone
	})
	return left
}

// lookResets sends the resets that can be; fail is told of those that cannot in time.
func (f *Forwarder) lookResets(now time.Time, fail func(*reset)) {
	list := f.resets
	f.resets = nil
	for _, r := range list {
		if r.n == nil {
			if f.closed || now.Sub(r.since) >= Park {
				fail(r)
				continue
			}
			if n := f.nexusFor(r.p, r.unit, now); n != nil {
				n.lastTag++
				r.n, r.tag = n, n.lastTag
				n.l.send(out{typ: typeReset, nexus: n, reset: r})
			}
		}
		f.resets = append(f.resets, r)
	}
}

// lost takes what was on a nexus that is no more: of commands that were sent the outcome
// is not known. mu is held.
func (f *Forwarder) lost(n *nexus) (failed []*reset) {
	for _, r := range n.pending {
		switch {
		case !r.Sent || r.Repeatable:
			f.waiting = append(f.waiting, r)
		default:
			f.unknown = append(f.unknown, r)
		}
	}
	clear(n.pending)
	list := f.resets
	f.resets = nil
	for _, r := range list {
		if r.n == n {
			failed = append(failed, r)
		} else {
			f.resets = append(f.resets, r)
		}
	}
	delete(n.l.nexuses, n.id)
	if n.p.nexuses[n.l.node] == n {
		delete(n.p.nexuses, n.l.node)
	}
	f.wake()
	return failed
}
