package iscsi

import "sync"

// copyGate counts the EXTENDED COPY commands that work on a logical unit: one may
// belong to a session of another target, so that the unit's own sessions are not all
// there is to wait for when its target is removed (I4).
type copyGate struct {
	mu     sync.Mutex
	shut   bool
	copies int
	idle   chan struct{} // made by close, closed when copies is 0
}

// enter lets a copy in; false: the unit is being removed.
func (g *copyGate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		return false
	}
	g.copies++
	return true
}

func (g *copyGate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.copies--
	if g.copies == 0 && g.idle != nil {
		close(g.idle)
		g.idle = nil
	}
}

// closing tells a copy to stop.
func (g *copyGate) closing() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.shut
}

// close lets no copy in any more. The returned channel is closed when those inside
// have submitted their last Op and it completed; nil: there are none.
func (g *copyGate) close() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = true
	if g.copies == 0 {
		return nil
	}
	if g.idle == nil {
		g.idle = make(chan struct{})
	}
	return g.idle
}

// endCopies ends the copies that work on the target's units, and waits for them.
func (t *target) endCopies() {
	for _, l := range *t.luns.Load() {
		if idle := l.copies.close(); idle != nil {
			<-idle
		}
	}
}
