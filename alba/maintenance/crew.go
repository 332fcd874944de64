package maintenance

import (
	"context"
	"sync"
	"time"
)

const (
	// repairers is how many objects are repaired side by side: each waits for devices most of
	// the time. Devices let few calls of low priority through at once, so that it is the
	// repair that becomes slower where hosts are busy.
	repairers = 4
	// repairLarge is the size in bytes above which an object is repaired alone, which bounds
	// the memory that all of them take.
	repairLarge = 16 << 20
)

// crew repairs objects side by side, at the agent's rate.
type crew struct {
	a      *Agent
	ctx    context.Context
	cancel context.CancelFunc
	start  time.Time
	slots  chan struct{}
	wg     sync.WaitGroup

	mu    sync.Mutex
	moved int64 // bytes
	err   error
}

// newCrew returns a crew, which has to be waited for.
func (a *Agent) newCrew(ctx context.Context) *crew {
	c := &crew{a: a, start: a.o.Clock.Now(), slots: make(chan struct{}, repairers)}
	c.ctx, c.cancel = context.WithCancel(ctx)
	return c
}

// do has fn done beside others, once there is room for an object of so many bytes. fn
// returns how many bytes it moved. An error ends the work of all, and is returned.
func (c *crew) do(size int64, fn func(ctx context.Context) (int64, error)) error {
	takes := 1
	if size > repairLarge {
		takes = repairers
	}
	for range takes {
		select {
		case c.slots <- struct{}{}:
		case <-c.ctx.Done():
			return c.failure(c.ctx.Err())
		}
	}
	c.wg.Go(func() {
		moved, err := fn(c.ctx)
		if err == nil {
			err = c.a.pace(c.ctx, c.start, c.add(moved))
		}
		if err != nil {
			_ = c.failure(err)
			c.cancel()
		}
		for range takes {
			<-c.slots
		}
	})
	return nil
}

func (c *crew) add(moved int64) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.moved += moved
	return c.moved
}

// failure returns why the work ended: err, if nothing else was before.
func (c *crew) failure(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
	return c.err
}

// wait waits for all that was begun, and returns how many bytes it moved.
func (c *crew) wait() (moved int64, err error) {
	c.wg.Wait()
	c.cancel()
	return c.moved, c.err
}
