package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openvstorage/ovgate/volumedriver/dtl"
)

// Mirroring keeps the tail of a vDisk's journal on another node (rule O2).
//
//	           begun            the backend has all          registry: ok
//	degraded ─────────► catchup before it, the peer ───────────────────────► ok
//	  ▲                    │    all after it, and answers                     │
//	  │◄───────────────────┘    wait for the peer from now on                 │
//	  └─────────── registry: degraded, then answers wait no more ◄────────────┘
//	                                                        the peer is lost
//
// With DTLAsync answers wait for the peer's grant, and not for it to have the records: so a
// takeover lacks what was answered in the moment before, and nothing that was answered later.
//
// The committer begins a copy between two records, sends those that follow, and waits for
// the peer (held); it does so when it gets an order. The goroutine run decides, and writes
// the registry, which the committer must not wait for while it has other things to do. With
// the registry away nothing is answered that only this node has.
type mirroring struct {
	v      *Volume
	ctx    context.Context // ends before the closing head is made
	cancel context.CancelFunc
	ended  chan struct{}         // closed when run has ended
	mode   DTLMode               // of the copy that is kept; of run
	kick   chan struct{}         // capacity 1: the mode may be another one
	orders chan func(*committer) // for the committer, between two records

	// guard is the copy that another node may take the vDisk over from; nil: there is none.
	guard atomic.Pointer[dtl.Mirror]

	latency dtl.Latency
	// stalled: the copy is lost, the registry does not say so yet, and writes wait for it.
	stalled atomic.Bool

	mu      sync.Mutex
	m       *dtl.Mirror // begun, and not ended
	state   DTLState
	err     error         // why it is degraded
	since   time.Time     // of state
	shown   chan struct{} // closed and replaced when the state or guard changes, or the vDisk is fenced
	unsaid  error         // why the registry does not take what it is to say; nil: it does
	catchup uint64        // seqs that the backend lacked when the copy was begun
}

// DTLStats tell of the copy of a journal's tail on another node.
type DTLStats struct {
	State DTLState
	Peer  string // node that has the copy, or is getting one
	Mode  DTLMode
	Err   string // why the state is degraded
	Since time.Time
	// Unanswered is what the peer was sent and has not answered, in bytes, and Lag how long
	// the oldest of that waits.
	Unanswered int64
	Lag        time.Duration
	// Catchup is how many writes from before the copy was begun the backend has to get
	// until the copy is good, and CaughtUp how many of them it has; of state catchup.
	Catchup, CaughtUp uint64
	// Latency counts records by the time from their sending to the peer's answer: bucket i
	// those of [2^i, 2^(i+1)) us.
	Latency [24]uint64
}

// startMirroring begins to keep a copy.
func (v *Volume) startMirroring() {
	g := &v.mirror
	g.v, g.ended, g.kick, g.orders, g.shown = v, make(chan struct{}), make(chan struct{}, 1), make(chan func(*committer)), make(chan struct{})
	g.ctx, g.cancel = context.WithCancel(v.ctx)
	g.show(nil, v.up.rec.DTL.State, nil)
	if v.host.dtl == nil {
		close(g.ended)
		return
	}
	v.wg.Go(g.run)
}

func (g *mirroring) wake() {
	select {
	case g.kick <- struct{}{}:
	default:
	}
}

// end stops deciding: registry and committer stay as they are.
func (g *mirroring) end(ctx context.Context) error {
	g.cancel()
	select {
	case <-g.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// leaveWait bounds how long the end of a vDisk waits for an answer of its peer.
const leaveWait = time.Second

// close lets go of the copy when the volume has ended. The peer forgets one that the
// registry does not name any more, and may take the vDisk over with one that it names.
func (g *mirroring) close() {
	g.cancel()
	g.mu.Lock()
	m := g.m
	g.m = nil
	g.mu.Unlock()
	if m == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaveWait)
	defer cancel()
	switch g.v.up.rec.DTL.State {
	case DTLOff:
		g.drop(ctx, m)
	case DTLOK: // its tail is where it is taken over from
		if err := m.Yield(ctx); err != nil {
			g.v.log.Warn("the DTL peer was not told that the vdisk is closed; it waits before it takes it over", "peer", m.Peer(), "err", err)
		}
	default:
		m.Close()
	}
}

// drop ends a copy that the registry does not name.
func (g *mirroring) drop(ctx context.Context, m *dtl.Mirror) {
	if err := m.Drop(ctx); err != nil {
		g.v.log.Warn("the DTL peer may keep its copy of the journal until the vdisk is mirrored there again", "peer", m.Peer(), "err", err)
	}
}

// show says how it is.
func (g *mirroring) show(m *dtl.Mirror, state DTLState, err error) {
	g.mu.Lock()
	was := g.state
	if was != state {
		g.since = g.v.host.o.Clock.Now()
	}
	g.m, g.state, g.err = m, state, err
	if state == DTLCatchup && was != state {
		before, committed := m.Start()-1, g.v.up.committed.Load()
		g.catchup = before - min(committed, before)
	}
	if was != state {
		g.v.stir()
	}
	g.tell()
	g.mu.Unlock()
	switch {
	case state == was:
	case state == DTLDegraded && was == DTLOK && g.v.settings.Load().DTL == DTLModeOff:
		g.v.log.Info("the journal is not mirrored any more")
	case state == DTLDegraded && was == DTLOK:
		g.v.log.Warn("the copy of the journal on another node is lost", "err", err)
	case state == DTLOK:
		g.v.log.Info("the journal is mirrored", "peer", m.Peer())
	}
}

// begun says that a copy was begun. Where there was none it is as it was, with the reason, until
// the peer answers: one that is down for long does not look as if it got a copy now and then.
func (g *mirroring) begun(m *dtl.Mirror) {
	g.mu.Lock()
	state, err := g.state, g.err
	g.mu.Unlock()
	if state != DTLDegraded || err == nil {
		state, err = DTLCatchup, nil
	}
	g.show(m, state, err)
}

func (g *mirroring) stats() DTLStats {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := DTLStats{State: g.state, Since: g.since, Mode: g.v.settings.Load().DTL}
	if g.m != nil {
		if s.State != DTLDegraded { // else it may not even answer
			s.Peer = g.m.Peer()
		}
		s.Unanswered, s.Lag = g.m.Lag()
		if s.State == DTLCatchup {
			before, committed := g.m.Start()-1, g.v.up.committed.Load()
			left := before - min(committed, before)
			s.Catchup, s.CaughtUp = g.catchup, g.catchup-min(left, g.catchup)
		}
	}
	if g.err != nil {
		s.Err = g.err.Error()
	}
	for i := range s.Latency {
		s.Latency[i] = g.latency[i].Load()
	}
	return s
}

// release lets the peer give back what the registry's head has.
func (g *mirroring) release(committed uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.m != nil {
		g.m.Release(committed)
	}
}

// mayServe reports whether no other node can have taken the vDisk over (O3).
func (g *mirroring) mayServe() bool {
	m := g.guard.Load()
	return m == nil || m.Granted(g.v.host.o.Clock.Now())
}

// awaitServe waits until mayServe, for up to stall_timeout.
func (g *mirroring) awaitServe() error {
	timer := g.v.host.o.Clock.NewTimer(g.v.settings.Load().StallTimeout)
	defer timer.Stop()
	for {
		shown := g.changes()
		if err := g.v.fenced(); err != nil {
			return err
		}
		m := g.guard.Load()
		if m == nil {
			return nil
		}
		changed := m.Changed()
		if m.Granted(g.v.host.o.Clock.Now()) {
			return nil
		}
		select {
		case <-changed:
		case <-shown:
		case <-timer.C():
			return g.stallError()
		case <-g.v.ctx.Done():
			return fmt.Errorf("vdisk %s: %w", g.v.id, ErrClosed)
		}
	}
}

// stallError says why nothing is answered.
func (g *mirroring) stallError() error {
	return fmt.Errorf("vdisk %s: %w: %s", g.v.id, ErrStalled, g.stallReason())
}

func (g *mirroring) stallReason() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	why := "the node with the copy of its journal does not answer"
	if g.err != nil {
		why += " (" + g.err.Error() + ")"
	}
	if g.unsaid != nil {
		why += ", nor does the registry (" + g.unsaid.Error() + ")"
	}
	return why
}

// changes returns a channel that is closed when something is shown.
func (g *mirroring) changes() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.shown
}

// tell wakes who waits for changes; g.mu is held.
func (g *mirroring) tell() {
	close(g.shown)
	g.shown = make(chan struct{})
}

// fenced returns the error of a vDisk that a newer opening owns.
func (v *Volume) fenced() error {
	if v.writeErrorState() == StateFenced {
		return v.writeError()
	}
	return nil
}

// order has the committer do something between two records; false if the volume ended.
func (g *mirroring) order(do func(*committer)) bool {
	done := make(chan struct{})
	select {
	case g.orders <- func(c *committer) { do(c); close(done) }:
	case <-g.v.ctx.Done():
		return false
	}
	<-done
	return true
}

const (
	// peerPause is how long a vDisk without a node for its copy waits until it looks again.
	peerPause = 10 * time.Second
	// steady is how long a copy has to be good until the next failure counts as the first.
	steady = time.Minute
)

// run keeps a copy somewhere until the volume ends.
func (g *mirroring) run() {
	defer close(g.ended)
	g.settle()
	wait := minBackoff
	for tries := 0; g.ctx.Err() == nil && g.v.fenced() == nil; tries++ {
		peer, err := g.choose(tries)
		pause := peerPause
		if peer != "" {
			begun := g.v.host.o.Clock.Now()
			err = g.keep(peer)
			if g.v.host.o.Clock.Now().Sub(begun) >= steady {
				tries, wait = -1, minBackoff
			}
			pause, wait = wait, min(2*wait, maxBackoff)
		}
		if g.ctx.Err() != nil {
			return // with the copy as it is, for close
		}
		if g.v.settings.Load().DTL == DTLModeOff {
			g.show(nil, DTLOff, nil)
		} else {
			g.show(nil, DTLDegraded, err)
		}
		g.pause(pause)
	}
}

// pause waits, or until the mode may be another one.
func (g *mirroring) pause(d time.Duration) {
	t := g.v.host.o.Clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C():
	case <-g.kick:
	case <-g.ctx.Done():
	}
}

// choose returns a node for the copy, the best one at the first try; "" if there is none.
func (g *mirroring) choose(tries int) (string, error) {
	if g.v.settings.Load().DTL == DTLModeOff {
		return "", nil
	}
	peers := g.peers()
	if len(peers) == 0 {
		return "", errors.New("no other node takes a copy of the journal")
	}
	return peers[tries%len(peers)], nil
}

// peers returns the nodes that may have the copy, the best first.
func (g *mirroring) peers() []string {
	return slices.DeleteFunc(slices.Clone(g.v.host.dtl.o.Peers(g.v.id)), func(p string) bool { return p == g.v.host.o.Node || p == "" })
}

// settle gives up a copy that this node has of the vDisk, which it owns now, when a head
// covers what was taken over.
func (g *mirroring) settle() {
	v, s := g.v, g.v.host.dtl.server
	if !s.Has(v.id) {
		return
	}
	err := g.commit(g.ctx, v.this.FirstSeq-1)
	if err == nil {
		err = s.Discard(v.id)
	}
	if err != nil && g.ctx.Err() == nil {
		v.log.Warn("the copy that the vdisk was taken over from stays", "err", err)
	}
}

// commit returns when a head covers seq.
func (g *mirroring) commit(ctx context.Context, seq uint64) error {
	if g.v.up.committed.Load() >= seq {
		return nil
	}
	return g.v.up.ask(&headRequest{ctx: ctx, commit: seq})
}

// keep keeps a copy on a node until that ends, and returns why.
func (g *mirroring) keep(peer string) error {
	v := g.v
	client, err := v.host.dtl.client(peer)
	if err != nil {
		return err
	}
	g.mode = v.settings.Load().DTL
	var m *dtl.Mirror
	if !g.order(func(c *committer) {
		m = client.Begin(v.id, v.this.Epoch, v.cluster, v.journal.NextSeq())
		m.CountLatency(&g.latency)
		c.mirror = m
	}) {
		return ErrClosed
	}
	g.begun(m)
	told, err := g.catchUp(m)
	if err == nil {
		g.show(m, DTLOK, nil)
		err = g.wait(g.ctx, m)
	}
	if g.ctx.Err() != nil {
		return err // the registry says what it said, and the copy is as good as that
	}
	off := v.settings.Load().DTL == DTLModeOff
	if told {
		g.show(m, DTLDegraded, err)
		state := DTLDegraded
		if off {
			state = DTLOff
		}
		if err := v.up.record(func(next *Record) { next.DTL = DTLRecord{State: state} }, g.note); err != nil {
			return err // nothing is answered any more
		}
	}
	if !g.order(func(c *committer) { c.must, c.mirror = false, nil }) {
		return ErrClosed
	}
	g.guard.Store(nil) // the registry lets nobody take the vDisk over
	g.show(nil, DTLDegraded, err)
	ctx, cancel := context.WithTimeout(g.ctx, leaveWait)
	defer cancel()
	g.drop(ctx, m)
	return err
}

// catchUp brings a copy that was begun to the state OK. told: the registry may say so.
func (g *mirroring) catchUp(m *dtl.Mirror) (told bool, err error) {
	ctx, cancel := context.WithCancelCause(g.ctx)
	defer cancel(nil)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		cancel(g.wait(ctx, m))
	}()
	defer func() { cancel(nil); <-watched }()
	err = g.raise(ctx, m)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return false, err
	}
	g.guard.Store(m)
	rec := DTLRecord{State: DTLOK, Peer: m.Peer(), Generation: m.Generation(), Async: g.mode == DTLAsync}
	if err := g.v.up.record(func(next *Record) { next.DTL = rec }, g.note); err != nil {
		return true, err
	}
	// The peer may have given the copy up as one that nobody names, just before the registry
	// named it (Server.Collect): then it refuses this.
	m.Release(m.Start() - 1)
	return true, nil
}

// note says why the registry does not take what it is to say.
func (g *mirroring) note(err error) {
	g.mu.Lock()
	g.unsaid = err
	g.mu.Unlock()
	if err != nil {
		g.v.log.Warn("the registry does not take the state of the journal's copy; writes may wait for it", "err", err)
	}
}

// raise returns when the peer has all that the backend has not, and answers wait for it.
func (g *mirroring) raise(ctx context.Context, m *dtl.Mirror) error {
	if err := m.Await(ctx, 0); err != nil {
		return err
	}
	g.show(m, DTLCatchup, nil)
	if err := g.commit(ctx, m.Start()-1); err != nil {
		return err
	}
	var through uint64
	if !g.order(func(c *committer) {
		c.must, c.async, through = true, g.mode == DTLAsync, g.v.journal.NextSeq()-1
	}) {
		return ErrClosed
	}
	return m.Await(ctx, through)
}

// wait returns when the mirror or ctx ended, or the mode or the node is to be another one.
func (g *mirroring) wait(ctx context.Context, m *dtl.Mirror) error {
	for {
		select {
		case <-m.Done():
			_, err := m.Durable()
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-g.kick:
			if mode := g.v.settings.Load().DTL; mode != g.mode {
				return fmt.Errorf("the mode was %s, and is %s", g.mode, mode)
			}
			if peers := g.peers(); len(peers) > 0 && !slices.Contains(peers, m.Peer()) {
				return fmt.Errorf("the copy is to be on another node than %s", m.Peer())
			}
		}
	}
}
