package iscsi

import (
	"container/heap"
	"fmt"
	"sync"
	"time"
)

// QoS limits what all initiators together may do to a logical unit. The zero
// value sets no limit. Commands above a rate wait; none is refused for it before
// the unit's queue is full (TASK SET FULL).
type QoS struct {
	IOPS  int64 // commands per second that use the medium; 0: no limit
	Bytes int64 // bytes read and written per second, 64 KiB at least; 0: no limit
	// Burst is how much of a rate that was left unused may be caught up at once,
	// expressed as time: a unit of 1000 IOPS and 2 s may do 2000 commands in a row
	// after a pause. 0 is DefaultBurst; at most MaxBurstTime.
	Burst time.Duration
}

const (
	// DefaultBurst lets a queue of commands through that arrived together, and
	// is too short to be seen as another rate in a graph of seconds.
	DefaultBurst = 100 * time.Millisecond
	// MaxBurstTime is the longest Burst: a minute at another rate is a rate.
	MaxBurstTime = time.Minute
	// minBytes is the lowest rate in bytes: at it the largest command takes a
	// minute, which initiators still wait for.
	minBytes = 64 << 10
	// maxRate bounds IOPS and Bytes per second: far above any device, and small
	// enough for arithmetic in nanoseconds.
	maxRate = 1 << 40
)

// validate says which field is out of range.
func (q QoS) validate() error {
	switch {
	case q.IOPS < 0 || q.IOPS > maxRate:
		return fmt.Errorf("QoS: %d IOPS; use 0 (no limit) to %d", q.IOPS, int64(maxRate))
	case q.Bytes != 0 && q.Bytes < minBytes || q.Bytes > maxRate:
		return fmt.Errorf("QoS: %d bytes per second; use 0 (no limit), or %d to %d", q.Bytes, minBytes, int64(maxRate))
	case q.Burst < 0 || q.Burst > MaxBurstTime:
		return fmt.Errorf("QoS: burst of %v; use 0 (%v) to %v", q.Burst, DefaultBurst, MaxBurstTime)
	}
	return nil
}

// SetQoS replaces the limits of a published logical unit while it is in use. It
// raises no unit attention, and commands that wait for the old rate go on under
// the new one. ErrNoTarget and ErrNoLUN say what does not exist.
func (s *Server) SetQoS(iqn string, lun uint16, q QoS) error {
	if err := q.validate(); err != nil {
		return fmt.Errorf("iscsi: target %s LUN %d: %w", iqn, lun, err)
	}
	iqn = NormalizeName(iqn)
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.targets[iqn]
	if t == nil {
		return fmt.Errorf("%w: %s", ErrNoTarget, iqn)
	}
	l := t.lun(lun)
	if l == nil {
		return fmt.Errorf("%w: target %s LUN %d", ErrNoLUN, iqn, lun)
	}
	l.gate.limit(q, s.clk.Now())
	return nil
}

// meter is a token bucket, kept as the moment at which it will be full again:
// each Op moves that on by what it costs at the rate, and may enter while it is no
// further away than the burst. An Op of more than a whole bucket is let in once and
// paid for afterwards.
type meter struct {
	rate int64     // per second; 0: none
	full time.Time // when nothing will be owed any more
}

// ready is when the next Op may enter.
func (b *meter) ready(burst time.Duration) time.Time { return b.full.Add(-burst) }

func (b *meter) charge(now time.Time, n int64) {
	if b.rate == 0 || n == 0 {
		return
	}
	if b.full.Before(now) {
		b.full = now
	}
	b.full = b.full.Add(time.Duration(n * int64(time.Second) / b.rate))
}

// clock returns the time, if a rate makes it matter.
func (g *gate) clock(t *task) time.Time {
	if !g.rated.Load() {
		return time.Time{}
	}
	return t.c.srv.clk.Now()
}

// readyAt is when the rates let the next Op in. mu is held.
func (g *gate) readyAt() time.Time {
	at := g.ops.ready(g.burst)
	if b := g.bytes.ready(g.burst); b.After(at) {
		at = b
	}
	return at
}

// allowed tells whether the rates let an Op in now. mu is held.
func (g *gate) allowed(now time.Time) bool {
	return !g.rated.Load() || !g.readyAt().After(now)
}

// charge takes what an Op costs: its bytes, and a command with the first of its
// Ops. mu is held.
func (g *gate) charge(t *task) {
	first := !t.charged
	t.charged = true
	if !g.rated.Load() {
		return
	}
	now := t.c.srv.clk.Now()
	if first {
		g.ops.charge(now, 1)
	}
	g.bytes.charge(now, int64(len(t.op.Data)))
}

// pace has the pacer come back when the rates let the next Op in. mu is held.
func (g *gate) pace(t *task) { t.c.srv.pacer.at(g, g.readyAt()) }

// limit installs rates; what waits goes on under the new ones. The same rates
// again change nothing, in particular not what is owed.
func (g *gate) limit(q QoS, now time.Time) {
	g.mu.Lock()
	if q == g.qos {
		g.mu.Unlock()
		return
	}
	g.qos = q
	g.burst = q.Burst
	if g.burst == 0 {
		g.burst = DefaultBurst
	}
	for _, b := range []struct {
		b    *meter
		rate int64
	}{{&g.ops, q.IOPS}, {&g.bytes, q.Bytes}} {
		b.b.rate = b.rate
		if b.rate == 0 || b.b.full.Before(now) || b.b.full.After(now.Add(g.burst)) {
			b.b.full = now // a debt of other rates is no measure for these
		}
	}
	g.rated.Store(q.IOPS > 0 || q.Bytes > 0)
	g.mu.Unlock()
	g.run()
}

// limits returns the rates in force.
func (g *gate) limits() QoS {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.qos
}

// pacer wakes units whose rates let the next Op in: one timer for all of them,
// none while nothing waits.
type pacer struct {
	mu    sync.Mutex
	due   dueHeap
	index map[*gate]*dueGate
	wake  chan struct{} // holds 1: the earliest time has changed
}

type dueGate struct {
	g  *gate
	at time.Time
	i  int // in the heap
}

// dueHeap is ordered by time.
type dueHeap []*dueGate

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i]; h[i].i, h[j].i = i, j }
func (h *dueHeap) Push(x any)        { d := x.(*dueGate); d.i = len(*h); *h = append(*h, d) }
func (h *dueHeap) Pop() any {
	old := *h
	d := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return d
}

func newPacer() *pacer {
	return &pacer{index: map[*gate]*dueGate{}, wake: make(chan struct{}, 1)}
}

// at sets the time at which a gate is run.
func (p *pacer) at(g *gate, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d := p.index[g]; d != nil {
		d.at = at
		heap.Fix(&p.due, d.i)
	} else {
		d = &dueGate{g: g, at: at}
		p.index[g] = d
		heap.Push(&p.due, d)
	}
	if p.due[0].g == g {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
}

// take removes the gates whose time has come, and returns how long the next one
// has to wait; 0: there is none.
func (p *pacer) take(now time.Time, list []*gate) ([]*gate, time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.due) > 0 && !p.due[0].at.After(now) {
		d := heap.Pop(&p.due).(*dueGate)
		delete(p.index, d.g)
		list = append(list, d.g)
	}
	if len(p.due) == 0 {
		return list, 0
	}
	return list, max(p.due[0].at.Sub(now), paceTick)
}

// paceTick is the least that the pacer sleeps: at high rates it lets some
// commands in at a time, which is cheaper than one after the other and as exact in
// any second.
const paceTick = time.Millisecond

// pace runs units when they are due, until the server ends.
func (s *Server) pace() {
	defer s.ticked.Done()
	t := s.clk.NewTimer(time.Hour)
	defer t.Stop()
	t.Stop()
	var due []*gate
	for {
		var sleep time.Duration
		now := s.clk.Now()
		due, sleep = s.pacer.take(now, due[:0])
		for _, g := range due {
			g.run()
		}
		clear(due)
		if len(due) > 0 {
			continue
		}
		t.Stop()
		if sleep > 0 {
			t.Reset(sleep)
			if s.clk.Now().Sub(now) >= sleep { // the time passed before the timer was set
				continue
			}
		}
		select {
		case <-t.C():
		case <-s.pacer.wake:
		case <-s.tick:
			return
		}
	}
}
