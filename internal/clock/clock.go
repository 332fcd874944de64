// Package clock is the seam through which engine packages read time and wait.
//
// Engine packages (volumedriver, iscsi, alba) take a Clock instead of calling
// package time, so that tests decide when time passes. Durations are measured
// on the monotonic clock; Now is for timestamps that leave the process.
package clock

import (
	"sync"
	"time"
)

// Clock tells and waits for time. Safe for concurrent use.
type Clock interface {
	// Now returns the time; differences of two results are monotonic.
	Now() time.Time
	// NewTimer returns a timer that fires once after d (at once if d <= 0).
	NewTimer(d time.Duration) Timer
}

// Timer is a single-shot timer with the semantics of time.Timer since Go 1.23:
// after Stop or Reset no stale value is received from C.
type Timer interface {
	C() <-chan time.Time
	Stop() bool
	Reset(d time.Duration) bool
	// ResetAt is Reset to a moment, at once if it has passed: a deadline is not
	// moved by time that goes by between its reckoning and the call.
	ResetAt(at time.Time) bool
}

// Real is the machine's clock.
type Real struct{}

var _ Clock = Real{}

// Now implements Clock.
func (Real) Now() time.Time { return time.Now() }

// NewTimer implements Clock.
func (Real) NewTimer(d time.Duration) Timer { return realTimer{time.NewTimer(d)} }

type realTimer struct{ t *time.Timer }

func (r realTimer) C() <-chan time.Time        { return r.t.C }
func (r realTimer) Stop() bool                 { return r.t.Stop() }
func (r realTimer) Reset(d time.Duration) bool { return r.t.Reset(d) }
func (r realTimer) ResetAt(at time.Time) bool  { return r.t.Reset(time.Until(at)) }

// Manual is a clock that moves only by Advance. The zero value is not usable;
// see NewManual.
type Manual struct {
	mu     sync.Mutex
	now    time.Time
	timers map[*manualTimer]struct{}
}

var _ Clock = (*Manual)(nil)

// NewManual returns a clock that stands at start.
func NewManual(start time.Time) *Manual {
	return &Manual{now: start, timers: map[*manualTimer]struct{}{}}
}

// Now implements Clock.
func (m *Manual) Now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// NewTimer implements Clock.
func (m *Manual) NewTimer(d time.Duration) Timer {
	t := &manualTimer{m: m, c: make(chan time.Time, 1)}
	m.mu.Lock()
	defer m.mu.Unlock()
	t.set(d)
	return t
}

// Advance moves the clock by d and fires the timers that fall due.
func (m *Manual) Advance(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = m.now.Add(d)
	for t := range m.timers {
		if !t.at.After(m.now) {
			t.fire()
		}
	}
}

// Waiting returns how many timers are armed: what runs on the clock has done its
// work when it waits again.
func (m *Manual) Waiting() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.timers)
}

type manualTimer struct {
	m  *Manual
	c  chan time.Time
	at time.Time
}

func (t *manualTimer) C() <-chan time.Time { return t.c }

func (t *manualTimer) Stop() bool {
	t.m.mu.Lock()
	defer t.m.mu.Unlock()
	return t.clear()
}

func (t *manualTimer) Reset(d time.Duration) bool {
	t.m.mu.Lock()
	defer t.m.mu.Unlock()
	was := t.clear()
	t.set(d)
	return was
}

func (t *manualTimer) ResetAt(at time.Time) bool {
	t.m.mu.Lock()
	defer t.m.mu.Unlock()
	was := t.clear()
	t.set(at.Sub(t.m.now))
	return was
}

// set arms the timer; the clock's lock is held.
func (t *manualTimer) set(d time.Duration) {
	t.at = t.m.now.Add(d)
	t.m.timers[t] = struct{}{}
	if d <= 0 {
		t.fire()
	}
}

// fire delivers and disarms; the clock's lock is held.
func (t *manualTimer) fire() {
	delete(t.m.timers, t)
	t.c <- t.m.now
}

// clear disarms and drops an undelivered value; the clock's lock is held.
func (t *manualTimer) clear() bool {
	_, armed := t.m.timers[t]
	delete(t.m.timers, t)
	select {
	case <-t.c:
	default:
	}
	return armed
}
