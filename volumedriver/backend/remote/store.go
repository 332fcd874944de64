package remote

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/volumedriver/backend"
)

// Options of a Store. The zero value is useful.
type Options struct {
	// MinConcurrency and MaxConcurrency bound how many requests run at a time, reads
	// and writes each; 0: 4 and 64.
	MinConcurrency, MaxConcurrency int
	// Upload and Download are bytes per second; 0: no limit.
	Upload, Download int64
	// NoHedge switches second requests for late reads off.
	NoHedge bool
	// Clock; nil: the machine's.
	Clock clock.Clock
	// Seed is for the jitter of looking for a lost store again: another one on each node.
	Seed uint64
}

// fill sets what is left out. A maximum below the minimum takes that with it.
func (o *Options) fill() {
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	if o.MaxConcurrency <= 0 {
		o.MaxConcurrency = max(defaultMax, o.MinConcurrency)
	}
	if o.MinConcurrency <= 0 {
		o.MinConcurrency = defaultMin
	}
	o.MinConcurrency = min(o.MinConcurrency, o.MaxConcurrency)
}

// Store is a backend.Store before a remote one. It adds no guarantee and takes none
// away; see the package comment.
type Store struct {
	clock   clock.Clock
	noHedge bool
	reads   *limiter
	writes  *limiter
	up      *rate
	down    *rate
	breaker *breaker
	pauses  pauses
	hedges  hedges
	counts  counters

	mu     sync.Mutex
	now    *inner // what calls go to
	closed bool
	errs   error // of closing stores that were replaced
}

var _ backend.Store = (*Store)(nil)

var errClosed = errors.New("remote: store is closed")

// inner is a store with the calls that it runs; the Store's lock guards it.
type inner struct {
	backend.Store
	calls int
	gone  bool // replaced, or the Store was closed
}

// New returns a Store before s, which it closes in the end.
func New(s backend.Store, o Options) *Store {
	o.fill()
	return &Store{
		clock:   o.Clock,
		noHedge: o.NoHedge,
		reads:   newLimiter(o.MinConcurrency, o.MaxConcurrency),
		writes:  newLimiter(o.MinConcurrency, o.MaxConcurrency),
		up:      newRate(o.Clock, o.Upload),
		down:    newRate(o.Clock, o.Download),
		breaker: &breaker{rand: rand.New(rand.NewPCG(o.Seed, o.Seed))},
		now:     &inner{Store: s},
	}
}

// SetLimits changes how many requests run at a time and the bandwidth, as New takes
// them from o, for requests that wait, too.
func (s *Store) SetLimits(o Options) {
	o.fill()
	s.reads.set(o.MinConcurrency, o.MaxConcurrency)
	s.writes.set(o.MinConcurrency, o.MaxConcurrency)
	s.up.set(o.Upload)
	s.down.set(o.Download)
}

// Replace makes later calls go to another store, for one with new credentials. The old
// one is closed when its running calls have ended (R6); the new one is asked at once,
// whatever the old one failed with.
func (s *Store) Replace(with backend.Store) {
	s.mu.Lock()
	old := s.now
	s.now = &inner{Store: with, gone: s.closed}
	old.gone = true
	idle, closed := old.calls == 0, s.closed
	s.mu.Unlock()
	s.breaker.reset()
	s.pauses.reset()
	s.counts.permit()
	switch {
	case closed: // the old one was closed with the Store
		s.closing(with)
	case idle:
		s.closing(old.Store)
	}
}

// closing closes a store whose calls have ended, and keeps its error for Close.
func (s *Store) closing(old backend.Store) {
	err := old.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.errs = errors.Join(s.errs, err)
}

// enter returns the store for one call; leave ends that.
func (s *Store) enter() (*inner, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	s.now.calls++
	return s.now, nil
}

func (s *Store) leave(in *inner) {
	s.mu.Lock()
	in.calls--
	last := in.gone && in.calls == 0
	s.mu.Unlock()
	if last {
		s.closing(in.Store)
	}
}

// Close implements backend.Store. Calls that run go on; the last one closes the store.
func (s *Store) Close() error {
	s.mu.Lock()
	first, in := !s.closed, s.now
	s.closed, in.gone = true, true
	idle := in.calls == 0
	s.mu.Unlock()
	if first && idle {
		s.closing(in.Store)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.errs
	s.errs = nil
	return err
}

// request is one request of a call.
type request struct {
	kind   Kind
	name   string
	upload int64 // bytes
	known  int64 // bytes that it will download; the others are charged afterwards
	// do makes it, and returns how many bytes it moved.
	do func(context.Context, backend.Store) (int64, error)
}

func (s *Store) limiterOf(k Kind) *limiter {
	switch k {
	case Put, PutIfAbsent, Delete:
		return s.writes
	}
	return s.reads
}

// run waits for a turn and makes a request.
func (s *Store) run(ctx context.Context, r request) error {
	if _, err := s.breaker.enter(s.clock.Now(), true); err != nil {
		return s.kept(r, err)
	}
	l := s.limiterOf(r.kind)
	if err := l.acquire(ctx); err != nil {
		return fmt.Errorf("object %s: waiting for a turn: %w", r.name, err)
	}
	return s.turn(ctx, l, r)
}

// kept counts and names a request that the breaker keeps back.
func (s *Store) kept(r request, err error) error {
	s.counts.keptBack()
	return fmt.Errorf("object %s: %w", r.name, err)
}

// turn makes a request that has its turn, and gives that back.
func (s *Store) turn(ctx context.Context, l *limiter, r request) error {
	start, moved, v := s.clock.Now(), int64(0), nothing
	defer func() { l.release(start, s.clock.Now(), moved, v) }()
	if err := s.wait(ctx, r); err != nil {
		return fmt.Errorf("object %s: waiting for the store: %w", r.name, err)
	}
	in, err := s.enter()
	if err != nil {
		return err
	}
	defer s.leave(in)
	start = s.clock.Now()
	probe, err := s.breaker.enter(start, false)
	if err != nil {
		return s.kept(r, err)
	}
	moved, err = r.do(ctx, in.Store)
	now := s.clock.Now()
	s.breaker.done(now, probe, err)
	s.down.charge(max(moved-r.upload-r.known, 0))
	s.counts.add(r.kind, moved, now.Sub(start), err)
	var e *Error
	if errors.As(err, &e) && e.RetryAfter > 0 {
		s.pauses.until(now.Add(min(e.RetryAfter, maxRetryAfter)))
	}
	switch {
	case errors.Is(err, ErrThrottled), errors.Is(err, context.DeadlineExceeded), timedOut(err):
		v = refusal
	case judge(err) == answered:
		v = fine
	}
	return err
}

func timedOut(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// wait lets a pause pass, and waits for bandwidth.
func (s *Store) wait(ctx context.Context, r request) error {
	if err := s.pauses.wait(ctx, s.clock); err != nil {
		return err
	}
	var err error
	switch r.kind {
	case Put, PutIfAbsent:
		err = s.up.wait(ctx, r.upload)
	case Get, Read:
		err = s.down.wait(ctx, r.known)
	}
	if err != nil {
		return err
	}
	return s.pauses.wait(ctx, s.clock)
}

// pauses are what the store asked for (R4).
type pauses struct {
	mu      sync.Mutex
	end     time.Time
	changed chan struct{} // closed when the end changes; made when one waits
}

func (p *pauses) until(end time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if end.After(p.end) {
		p.set(end)
	}
}

func (p *pauses) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.set(time.Time{})
}

func (p *pauses) set(end time.Time) {
	p.end = end
	if p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
}

// left tells how long the pause still is.
func (p *pauses) left(now time.Time) (time.Duration, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !now.Before(p.end) {
		return 0, nil
	}
	if p.changed == nil {
		p.changed = make(chan struct{})
	}
	return p.end.Sub(now), p.changed
}

func (p *pauses) wait(ctx context.Context, c clock.Clock) error {
	for {
		left, changed := p.left(c.Now())
		if left == 0 {
			return ctx.Err()
		}
		t := c.NewTimer(left)
		select {
		case <-t.C():
		case <-changed:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
		t.Stop()
	}
}
