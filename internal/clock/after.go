package clock

import (
	"sync/atomic"
	"time"
)

// AfterFunc is time.AfterFunc on a clock: fn runs in a goroutine of its own after d.
// stop tells whether fn will not run.
func AfterFunc(c Clock, d time.Duration, fn func()) (stop func() bool) {
	if _, ok := c.(Real); ok {
		return time.AfterFunc(d, fn).Stop
	}
	timer, stopped := c.NewTimer(d), make(chan struct{})
	var decided atomic.Bool
	go func() {
		select {
		case <-timer.C():
			if decided.CompareAndSwap(false, true) {
				fn()
			}
		case <-stopped:
			timer.Stop()
		}
	}()
	return func() bool {
		won := decided.CompareAndSwap(false, true)
		if won {
			close(stopped)
		}
		return won
	}
}
