package client

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
)

// afterFunc is time.AfterFunc on the client's clock. stop tells whether fn will not run.
func afterFunc(clk clock.Clock, d time.Duration, fn func()) (stop func() bool) {
	if _, real := clk.(clock.Real); real {
		return time.AfterFunc(d, fn).Stop
	}
	timer, stopped := clk.NewTimer(d), make(chan struct{})
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

// WithTimeout is context.WithTimeout on the client's clock.
func WithTimeout(ctx context.Context, clk clock.Clock, d time.Duration) (context.Context, context.CancelFunc) {
	if _, real := clk.(clock.Real); real {
		return context.WithTimeout(ctx, d)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	timer := clk.NewTimer(d)
	go func() {
		defer timer.Stop()
		select {
		case <-timer.C():
			cancel(context.DeadlineExceeded)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(context.Canceled) }
}
