package clock

import (
	"context"
	"time"
)

// Sleep waits for d on a clock; the error is that of ctx when it ends before.
func Sleep(ctx context.Context, c Clock, d time.Duration) error {
	t := c.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
