package iscsi

import "sync/atomic"

// budget bounds the data buffers of all sessions together (Limits.ServerBytes):
//
//	| floor of session 1 | floor of session 2 | ... | shared                        |
//	 \__ always its own, for every session _____/   \__ borrowed, first come __/
//
// A session within its floor never waits for another. What it has beyond that is
// borrowed, and may not be more than what is then left: one that takes all it can
// has half of it, and the next one finds the other half to share. A command that
// would go beyond is answered TASK SET FULL.
type budget struct {
	floor    int64
	shared   int64
	borrowed atomic.Int64
}

// sessionFloor is what a session has for itself: 32 commands of 4 KiB.
const sessionFloor = 128 << 10

func (b *budget) init(l Limits) {
	b.floor = min(sessionFloor, l.ServerBytes/2/int64(l.Sessions))
	b.shared = l.ServerBytes - b.floor*int64(l.Sessions)
}

// borrow lends n more bytes to a session that has borrowed some already.
func (b *budget) borrow(n, has int64) bool {
	for {
		all := b.borrowed.Load()
		if has+n > b.shared-all {
			return false
		}
		if b.borrowed.CompareAndSwap(all, all+n) {
			return true
		}
	}
}

func (b *budget) giveBack(n int64) { b.borrowed.Add(-n) }

// hold counts the buffer for n bytes against the session and the server; false
// means that one of them has too many.
func (c *conn) hold(t *task, n int64) bool {
	if n == 0 {
		return true
	}
	n = bufferSize(n)
	b := &c.srv.budget
	c.mu.Lock()
	defer c.mu.Unlock()
	held := c.held + n
	if held > c.srv.lim.SessionBytes {
		return false
	}
	if more := held - b.floor - c.borrowed; more > 0 {
		if !b.borrow(more, c.borrowed) {
			return false
		}
		c.borrowed += more
	}
	c.held = held
	t.held += n
	return true
}

// discharge gives back what a task that leaves was counted with; mu is held.
func (c *conn) discharge(t *task) {
	c.held -= t.held
	t.held = 0
	if less := c.borrowed - max(0, c.held-c.srv.budget.floor); less > 0 {
		c.borrowed -= less
		c.srv.budget.giveBack(less)
	}
	if t.nx != nil && !t.counted {
		t.counted = true
		t.nx.drop()
	}
	if t.immediate {
		c.immediates--
	}
}
