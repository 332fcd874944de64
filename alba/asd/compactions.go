package asd

import (
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// compactions lets pebble compact one thing at a time. Pebble's own scheduler
// asks ten times a second whether more is allowed, which is never so here, and
// leaves the goroutine behind that does so when the index does not open.
type compactions struct {
	mu       sync.Mutex
	db       pebble.DBForCompaction
	running  int
	closed   bool
	granting sync.WaitGroup
}

var (
	_ pebble.CompactionScheduler   = (*compactions)(nil)
	_ pebble.CompactionGrantHandle = (*compactions)(nil)
)

// Register implements pebble.CompactionScheduler.
func (c *compactions) Register(_ int, db pebble.DBForCompaction) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.db = db
}

// Unregister implements pebble.CompactionScheduler.
func (c *compactions) Unregister() {
	c.stop()
	c.granting.Wait()
}

// stop lets no more compactions begin. Pebble begins one that failed again at
// once, for ever.
func (c *compactions) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
}

// TrySchedule implements pebble.CompactionScheduler.
func (c *compactions) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	if !c.take() {
		return false, nil
	}
	return true, c
}

func (c *compactions) take() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.running > 0 {
		return false
	}
	c.running++
	return true
}

// UpdateGetAllowedWithoutPermission implements pebble.CompactionScheduler.
func (c *compactions) UpdateGetAllowedWithoutPermission() {}

// Started implements pebble.CompactionGrantHandle.
func (c *compactions) Started() {}

// MeasureCPU implements pebble.CompactionGrantHandle.
func (c *compactions) MeasureCPU(pebble.CompactionGoroutineKind) {}

// CumulativeStats implements pebble.CompactionGrantHandle.
func (c *compactions) CumulativeStats(pebble.CompactionGrantHandleStats) {}

// Done implements pebble.CompactionGrantHandle: the next one that waits may run.
func (c *compactions) Done() {
	c.mu.Lock()
	c.running--
	closed := c.closed
	if !closed {
		c.granting.Add(1)
	}
	c.mu.Unlock()
	if closed {
		return
	}
	defer c.granting.Done()
	// Asked again after a grant that was not taken: whoever was refused
	// meanwhile waits now.
	for {
		waiting, _ := c.db.GetWaitingCompaction()
		if !waiting || !c.take() {
			return
		}
		if c.db.Schedule(c) {
			return
		}
		c.mu.Lock()
		c.running--
		c.mu.Unlock()
	}
}
