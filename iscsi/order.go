package iscsi

// Task attributes (RFC 7143 section 11.3.1).
const (
	attrOrdered = 2
	attrHead    = 3
	attrACA     = 4 // this and higher ones are refused
)

// taskSet is the task set of a nexus on a logical unit (TST 001b: other nexuses
// have their own) while it holds a task that is ORDERED or HEAD OF QUEUE. A set of
// SIMPLE tasks alone needs no bookkeeping and has none.
//
//	arrival  S S  O  S S S  O  O  S        H (runs at once, holds the rest)
//	stretch [S S][O][S S S][O][O][S]
//	          ^ only the oldest stretch runs
//
// A stretch is what may run at the same time: SIMPLE tasks between two ORDERED
// ones, or one ORDERED task. It begins when the one before has ended and no HEAD
// OF QUEUE task is left (SAM-5 clause 8.6; I10). Everything is under conn.mu.
type taskSet struct {
	stretches []*stretch // oldest first
	barriers  int        // ORDERED and HEAD OF QUEUE tasks
	heads     int        // HEAD OF QUEUE tasks
}

type stretch struct {
	ordered bool
	left    int     // tasks that have not ended
	held    []*task // those of them that have all their data and wait for their turn
}

// arrive puts a task into its task set, before it is in c.tasks; mu is held.
func (c *conn) arrive(t *task) {
	barrier := t.attr == attrOrdered || t.attr == attrHead
	if !barrier && len(c.sets) == 0 || t.lu == nil {
		return
	}
	set := c.sets[t.lu]
	if set == nil && !barrier {
		return
	}
	if set == nil {
		set = c.newSet(t.lu)
	}
	set.add(t)
}

// newSet begins to keep order on a logical unit: what is there came first.
func (c *conn) newSet(l *lun) *taskSet {
	set, first := &taskSet{}, &stretch{}
	for _, t := range c.tasks {
		if t.lu == l {
			t.set, t.stretch = set, first
			first.left++
		}
	}
	if first.left > 0 {
		set.stretches = append(set.stretches, first)
	}
	if c.sets == nil {
		c.sets = map[*lun]*taskSet{}
	}
	c.sets[l] = set
	return set
}

func (set *taskSet) add(t *task) {
	t.set = set
	switch t.attr {
	case attrHead:
		set.heads++
		set.barriers++
		return
	case attrOrdered:
		set.barriers++
		set.stretches = append(set.stretches, &stretch{ordered: true})
	default:
		if n := len(set.stretches); n == 0 || set.stretches[n-1].ordered {
			set.stretches = append(set.stretches, &stretch{})
		}
	}
	t.stretch = set.stretches[len(set.stretches)-1]
	t.stretch.left++
}

// hold keeps a task that is not to run yet; mu is held.
func (t *task) hold() bool {
	set := t.set
	if set == nil || set.barriers == 0 || t.attr == attrHead || set.heads == 0 && t.stretch == set.stretches[0] {
		return false
	}
	t.dormant = true
	t.stretch.held = append(t.stretch.held, t)
	return true
}

// leave takes a task that ended, or never will run, out of its task set. Tasks
// whose turn it is then are in c.ready: the caller calls runReady once it has
// released mu, which is held.
func (c *conn) leave(t *task) {
	set := t.set
	if set == nil {
		return
	}
	t.set = nil
	if t.attr == attrHead {
		set.heads--
		set.barriers--
	} else {
		t.stretch.left--
		if t.stretch.ordered {
			set.barriers--
		}
	}
	for len(set.stretches) > 0 && set.stretches[0].left == 0 {
		set.stretches = set.stretches[1:]
	}
	begin := set.stretches
	switch {
	case set.barriers == 0: // no order to keep any more
		if c.sets[t.lu] == set {
			delete(c.sets, t.lu)
		}
	case set.heads > 0:
		begin = nil
	default:
		begin = begin[:min(1, len(begin))]
	}
	for _, s := range begin {
		c.ready = append(c.ready, s.held...)
		s.held = nil
	}
}

// runReady runs the tasks whose turn has come. One that ends at once makes room
// for the next without a deeper stack: only one caller is at it.
func (c *conn) runReady() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.releasing {
		return
	}
	c.releasing = true
	for len(c.ready) > 0 {
		t := c.ready[0]
		c.ready = c.ready[1:]
		t.dormant = false
		if c.tasks[t.itt] != t { // aborted while it was held, or the connection ended
			continue
		}
		t.running = true
		c.mu.Unlock()
		c.start(t)
		c.mu.Lock()
	}
	c.releasing, c.ready = false, nil
}
