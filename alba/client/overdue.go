package client

import (
	"sync"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
)

// overdue finds reads that take too long, with one timer for all of them. It is left
// running when the read it was for ends in time, as nearly all do: setting one for each
// read would wake a thread each time.
type overdue struct {
	clock clock.Clock

	mu     sync.Mutex
	reads  map[*dueRead]struct{} // under way
	at     time.Time             // when the timer fires
	stop   func() bool           // of the timer; nil: none runs
	sets   int                   // how often it was set
	closed bool
}

// dueRead is a read that is under way.
type dueRead struct {
	o  *overdue
	at time.Time
	fn func()
}

func newOverdue(clk clock.Clock) *overdue {
	return &overdue{clock: clk, reads: map[*dueRead]struct{}{}}
}

// after has fn called, in a goroutine of its own, should the read not have ended after d.
func (o *overdue) after(d time.Duration, fn func()) *dueRead {
	r := &dueRead{o: o, at: o.clock.Now().Add(d), fn: fn}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.reads[r] = struct{}{}
	if !o.closed && (o.stop == nil || r.at.Before(o.at)) {
		o.set(r.at, d)
	}
	return r
}

// ended tells whether the read ended before fn was called, which it is not any more.
func (r *dueRead) ended() bool {
	r.o.mu.Lock()
	defer r.o.mu.Unlock()
	_, in := r.o.reads[r]
	delete(r.o.reads, r)
	return in
}

// set has the timer fire at a time, which is in d; the lock is held.
func (o *overdue) set(at time.Time, d time.Duration) {
	if o.stop != nil {
		o.stop()
	}
	o.sets++
	n := o.sets
	o.at, o.stop = at, clock.AfterFunc(o.clock, d, func() { o.fire(n) })
}

// fire calls the functions of reads that are overdue and sets the timer for the next.
func (o *overdue) fire(n int) {
	now := o.clock.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || n != o.sets {
		return // another timer was set in its place
	}
	o.stop = nil
	var next time.Time
	for r := range o.reads {
		switch {
		case !r.at.After(now):
			delete(o.reads, r)
			go r.fn()
		case next.IsZero() || r.at.Before(next):
			next = r.at
		}
	}
	if !next.IsZero() {
		o.set(next, next.Sub(now))
	}
}

// close ends the timer: reads that are still under way are not found overdue any more.
func (o *overdue) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	if o.stop != nil {
		o.stop()
		o.stop = nil
	}
}
