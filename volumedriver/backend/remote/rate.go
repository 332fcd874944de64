package remote

import (
	"context"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
)

// burst is how long a limit lets unused bytes pile up.
const burst = 100 * time.Millisecond

// rate is a limit in bytes per second: a bucket that may be overdrawn by one request,
// for which the next ones wait.
type rate struct {
	clock clock.Clock

	mu      sync.Mutex
	limit   int64 // 0: none
	balance float64
	at      time.Time
	changed chan struct{} // closed when the limit changes
}

func newRate(c clock.Clock, limit int64) *rate {
	r := &rate{clock: c, changed: make(chan struct{})}
	r.set(limit)
	return r
}

// set changes the limit, for those that wait, too.
func (r *rate) set(limit int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fill()
	r.limit = max(limit, 0)
	r.balance = min(r.balance, r.most())
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *rate) most() float64 { return float64(r.limit) * burst.Seconds() }

// fill adds what has come since the last time; the lock is held.
func (r *rate) fill() {
	now := r.clock.Now()
	if r.at.IsZero() {
		r.balance = r.most()
	} else {
		r.balance = min(r.balance+now.Sub(r.at).Seconds()*float64(r.limit), r.most())
	}
	r.at = now
}

// wait takes n bytes as soon as the bucket is not overdrawn.
func (r *rate) wait(ctx context.Context, n int64) error {
	for {
		pause, changed := r.take(n)
		if pause <= 0 {
			return nil
		}
		t := r.clock.NewTimer(pause)
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

// take takes n bytes, or tells how long that has to wait.
func (r *rate) take(n int64) (time.Duration, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.limit == 0 {
		return 0, nil
	}
	r.fill()
	if r.balance < 0 {
		return time.Duration(-r.balance/float64(r.limit)*float64(time.Second)) + 1, r.changed
	}
	r.balance -= float64(n)
	return 0, nil
}

// charge takes n bytes that were moved already.
func (r *rate) charge(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.limit > 0 {
		r.fill()
		r.balance -= float64(n)
	}
}

func (r *rate) get() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.limit
}
