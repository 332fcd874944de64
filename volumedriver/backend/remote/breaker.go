package remote

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// ErrDown: the store failed again and again, so it was not asked. The last failure is
// wrapped beside it.
var ErrDown = errors.New("backend: taken to be down")

// When the breaker opens, and how often it looks again.
const (
	// openAfter failures in a row: one lost connection takes a few requests with it.
	openAfter            = 5
	probeFirst, probeMax = time.Second, 30 * time.Second
	// probeJitter spreads the attempts of nodes that lost the store together.
	probeJitter = 0.25
)

// States of a breaker.
const (
	BreakerClosed  = "closed"  // requests go through
	BreakerOpen    = "open"    // none does
	BreakerProbing = "probing" // one is on its way
)

// outcome is what a request tells of whether the store is there.
type outcome int

const (
	unknown  outcome = iota // the caller gave up, or nothing was sent
	answered                // if only with a refusal
	failed
)

// judge classifies an error of a store.
func judge(err error) outcome {
	var e *Error
	switch {
	case err == nil:
		return answered
	case errors.Is(err, context.Canceled):
		return unknown
	case errors.Is(err, ErrUnreachable), errors.Is(err, context.DeadlineExceeded):
		return failed
	case errors.As(err, &e) && e.Kind == nil && e.Status >= 500:
		return failed
	case errors.As(err, &e) && e.Status > 0:
		return answered
	}
	return unknown
}

// breaker keeps requests from a store that is down.
type breaker struct {
	mu       sync.Mutex
	rand     *rand.Rand
	failures int
	open     bool
	probing  bool
	interval time.Duration
	next     time.Time // of a probe
	last     error
	opened   uint64
}

// enter tells whether a request may go; probe is for done. With look, it is only asked.
func (b *breaker) enter(now time.Time, look bool) (probe bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.open {
		return false, nil
	}
	if b.probing || now.Before(b.next) {
		return false, b.refusal()
	}
	if !look {
		b.probing = true
	}
	return true, nil
}

// refusal wraps the last failure; its end of a context was another call's.
func (b *breaker) refusal() error {
	if errors.Is(b.last, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w: %v", ErrDown, ErrUnreachable, b.last)
	}
	return fmt.Errorf("%w: %w", ErrDown, b.last)
}

// done ends a request that enter let through.
func (b *breaker) done(now time.Time, probe bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if probe {
		b.probing = false
	}
	switch judge(err) {
	case answered:
		b.failures, b.open, b.interval = 0, false, 0
	case failed:
		b.failures++
		b.last = err
		switch {
		case probe && b.open:
			b.schedule(now)
		case !b.open && b.failures >= openAfter:
			b.open = true
			b.opened++
			b.schedule(now)
		}
	}
}

// schedule sets the time of the next probe; the lock is held.
func (b *breaker) schedule(now time.Time) {
	b.interval = min(max(2*b.interval, probeFirst), probeMax)
	jitter := 1 - probeJitter + 2*probeJitter*b.rand.Float64()
	b.next = now.Add(time.Duration(float64(b.interval) * jitter))
}

// reset takes a store for one that works.
func (b *breaker) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failures, b.open, b.interval, b.last = 0, false, 0, nil
}

// state returns one of the constants, how often it opened, and why it did last.
func (b *breaker) state() (state string, opened uint64, last string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	state = BreakerClosed
	if b.open {
		state = BreakerOpen
		last = b.last.Error()
	}
	if b.open && b.probing {
		state = BreakerProbing
	}
	return state, b.opened, last
}
