package asd

import (
	"context"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/internal/clock"
)

const (
	// lowMax bounds the operations of low priority at a time: one that reads
	// while another writes keeps a disk busy, more only make the queue longer in
	// which those of high priority stand.
	lowMax = 2
	// lowPatience bounds how long one of low priority lets others go first, so
	// that repair goes on, slowly, on a device that is never idle.
	lowPatience = 20 * time.Millisecond
)

// gate lets operations of high priority pass at once. Those of low priority pass
// lowMax at a time, each when no operation of high priority runs or its patience
// ends.
type gate struct {
	clock clock.Clock
	slots chan struct{}

	mu   sync.Mutex
	high int           // running
	idle chan struct{} // closed when high is 0; nil while nobody waits for that
}

func newGate(c clock.Clock) *gate {
	return &gate{clock: c, slots: make(chan struct{}, lowMax)}
}

// enter waits for the turn of an operation and returns what ends it.
func (g *gate) enter(ctx context.Context, prio osd.Priority) (leave func(), err error) {
	if prio == osd.High {
		g.addHigh(1)
		return func() { g.addHigh(-1) }, nil
	}
	select {
	case g.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	leave = func() { <-g.slots }
	if err := g.yield(ctx); err != nil {
		leave()
		return nil, err
	}
	return leave, nil
}

func (g *gate) addHigh(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.high += n; g.high == 0 && g.idle != nil {
		close(g.idle)
		g.idle = nil
	}
}

// yield lets operations of high priority go first.
func (g *gate) yield(ctx context.Context) error {
	g.mu.Lock()
	if g.high == 0 {
		g.mu.Unlock()
		return nil
	}
	if g.idle == nil {
		g.idle = make(chan struct{})
	}
	idle := g.idle
	g.mu.Unlock()
	patience := g.clock.NewTimer(lowPatience)
	defer patience.Stop()
	select {
	case <-idle:
	case <-patience.C():
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}
