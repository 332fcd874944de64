package remote

import (
	"container/list"
	"context"
	"sync"
	"time"
)

// How a limit follows the store.
const (
	defaultMin, defaultMax, startLimit = 4, 64, 16
	// slowFactor: a smoothed latency above this many times the least one means that
	// requests wait for each other in the store.
	slowFactor = 3
	// slowFloor: below it nothing is slow; timers and schedulers are not more exact.
	slowFloor = 10 * time.Millisecond
	// shrinkSlow and shrinkRefused are what a limit is multiplied by.
	shrinkSlow, shrinkRefused = 0.9, 0.5
	// smoothing is the weight of one latency.
	smoothing = 1.0 / 16
	// forget is how long the least latency counts, once or twice: a store that has
	// become slower for good is not held against what it was.
	forget = time.Minute
)

// sizes are the upper bounds of the classes that latencies are compared in, in bytes;
// what is larger is a class of its own.
var sizes = [...]int64{0, 64 << 10, 1 << 20, 8 << 20}

const sizeClasses = len(sizes) + 1

func sizeClass(n int64) int {
	for i, max := range sizes {
		if n <= max {
			return i
		}
	}
	return len(sizes)
}

// verdict is what a request tells of how busy the store is.
type verdict int

const (
	nothing verdict = iota // it failed for another reason
	fine                   // it was answered
	refusal                // it was refused for being one too many, or took too long
)

// limiter bounds the requests that run at a time, first come, first served. The bound
// grows by one for each round in which it was reached, and shrinks when the store
// refuses or slows down: for requests only that began after it shrank last.
type limiter struct {
	min, max float64

	mu      sync.Mutex
	limit   float64
	running int
	used    int       // requests that still count as of a round in which limit was reached
	queue   list.List // of chan struct{}, closed when its turn comes
	shrunk  time.Time
	classes [sizeClasses]latencies
}

// latencies are those of one size class.
type latencies struct {
	smooth, least, before time.Duration // least of this period and of the one before; 0: none
	since                 time.Time
}

func newLimiter(low, high int) *limiter {
	return &limiter{min: float64(low), max: float64(high), limit: float64(min(max(startLimit, low), high))}
}

// set changes the bounds of the limit.
func (l *limiter) set(low, high int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.min, l.max = float64(low), float64(high)
	l.limit = min(max(l.limit, l.min), l.max)
	l.admit()
}

// acquire waits for a turn; release gives it back.
func (l *limiter) acquire(ctx context.Context) error {
	l.mu.Lock()
	if l.queue.Len() == 0 && l.running < int(l.limit) {
		l.begin()
		l.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	e := l.queue.PushBack(turn)
	l.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-turn: // it came at the same time
		l.running--
		l.admit()
	default:
		l.queue.Remove(e)
	}
	return ctx.Err()
}

// try takes a turn if there is one.
func (l *limiter) try() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.queue.Len() > 0 || l.running >= int(l.limit) {
		return false
	}
	l.begin()
	return true
}

// begin counts a request that has its turn; the lock is held.
func (l *limiter) begin() {
	if l.running++; l.running >= int(l.limit) {
		l.used = l.running
	}
}

// admit lets those in whose turn it is; the lock is held.
func (l *limiter) admit() {
	for l.queue.Len() > 0 && l.running < int(l.limit) {
		close(l.queue.Remove(l.queue.Front()).(chan struct{}))
		l.begin()
	}
}

// release ends a request that began at start and moved n bytes.
func (l *limiter) release(start, now time.Time, n int64, v verdict) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running--
	full := l.used > 0
	l.used = max(l.used-1, 0)
	switch {
	case v == refusal:
		l.shrink(start, now, shrinkRefused)
	case v == fine && l.classes[sizeClass(n)].add(now, now.Sub(start)):
		l.shrink(start, now, shrinkSlow)
	case v == fine && full:
		l.limit = min(l.limit+1/l.limit, l.max)
	}
	l.admit()
}

func (l *limiter) shrink(start, now time.Time, by float64) {
	if start.After(l.shrunk) {
		l.limit, l.shrunk = max(l.limit*by, l.min), now
	}
}

// add tells whether the store has become slow.
func (c *latencies) add(now time.Time, d time.Duration) bool {
	if c.least == 0 || now.Sub(c.since) >= forget {
		c.before, c.least, c.since = c.least, d, now
	}
	c.least = min(c.least, d)
	if c.smooth == 0 {
		c.smooth = d
	}
	c.smooth += time.Duration(float64(d-c.smooth) * smoothing)
	least := c.least
	if c.before > 0 {
		least = min(least, c.before)
	}
	return c.smooth > max(slowFactor*least, slowFloor)
}

// LimitStats are the requests of one direction.
type LimitStats struct {
	Limit   int // that may run at a time, now
	Running int
	Waiting int
}

func (l *limiter) stats() LimitStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return LimitStats{Limit: int(l.limit), Running: l.running, Waiting: l.queue.Len()}
}
