package blockfs

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// Unsynced says what a power cut does to what was not durable.
type Unsynced int

// Fates of what was not durable.
const (
	// KeepAll keeps everything, operations in flight included.
	KeepAll Unsynced = iota
	// DropAll keeps nothing that was not durable.
	DropAll
	// Tear keeps a random subset of the 512-byte sectors of each write and a
	// random prefix of each directory's name operations.
	Tear
	// Reorder keeps a random subset of whole writes and size changes, carried
	// out in a random order, and a random prefix of each directory's name
	// operations.
	Reorder
)

// CrashConfig configures a power cut.
type CrashConfig struct {
	Unsynced Unsynced
	// Rand makes the choices of Tear and Reorder, which need it. Equal trees and
	// equal seeds give equal results.
	Rand *rand.Rand
}

// Crash returns what the file system would hold after a power cut at this
// instant and a restart. m itself goes on undisturbed; Kill ends it. The result
// has the capacity and clock of m, no hook and no open files, and everything in
// it is durable.
func (m *Mem) Crash(cfg CrashConfig) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := crasher{cfg: cfg, done: map[*node]*node{}}
	after := &Mem{root: c.node(m.root), capacity: m.capacity, clock: m.clock}
	for _, n := range c.done {
		after.used += n.live.used
	}
	return after
}

// crasher copies the survivors of one power cut.
type crasher struct {
	cfg  CrashConfig
	done map[*node]*node // original → copy; files may have several names
}

func (c *crasher) node(n *node) *node {
	if after, ok := c.done[n]; ok {
		return after
	}
	after := &node{dir: n.dir, modTime: n.modTime}
	c.done[n] = after
	if !n.dir {
		after.live = c.content(n)
		after.durable = after.live.share()
		return after
	}
	names := c.names(n)
	after.names = make(map[string]*node, len(names))
	// In name order, so that the random choices are the same at every run.
	for _, name := range slices.Sorted(maps.Keys(names)) {
		child := c.node(names[name])
		child.links++
		after.names[name] = child
	}
	after.durableNames = maps.Clone(after.names)
	return after
}

// names returns the surviving names of a directory (B3).
func (c *crasher) names(n *node) map[string]*node {
	if len(n.pendingNames) == 0 {
		return n.durableNames
	}
	kept := 0
	switch c.cfg.Unsynced {
	case KeepAll:
		return n.names
	case DropAll:
		return n.durableNames
	case Tear, Reorder:
		kept = c.cfg.Rand.IntN(len(n.pendingNames) + 1)
	}
	names := maps.Clone(n.durableNames)
	applyNames(names, n.pendingNames[:kept])
	return names
}

// content returns the surviving content of a file (B1, B2, B4).
func (c *crasher) content(n *node) content {
	after := n.durable.share()
	switch c.cfg.Unsynced {
	case KeepAll:
		for i := range n.pending {
			n.pending[i].apply(&after)
		}
	case Tear:
		for i := range n.pending {
			n.pending[i].tear(&after, c.cfg.Rand)
		}
	case Reorder:
		for _, i := range c.cfg.Rand.Perm(len(n.pending)) {
			if c.cfg.Rand.IntN(2) == 0 {
				n.pending[i].apply(&after)
			}
		}
	}
	return after
}
