package dtl

import (
	"slices"
	"time"

	"github.com/openvstorage/ovgate/internal/lineartest"
)

// Clients of the simulation that reach the vDisk over any node, and the forwarding to its
// owner (O4). A client has one command at a time on its block. Without an answer it gives the
// path up after simRetry, and goes on over another one: what it asked before must not be
// carried out after that.
//
//	client ──► node ═══ channel ═══► owner     each way in order, however late
//	       ◄──      ◄══════════════
//
// The owner drops what is older than simMaxAge. A command carries its age at the node that it
// came to, and when the owner's clock was last heard there before it was sent: the owner adds
// the time since, which is at least as long as the command was on its way. Clocks need not
// agree for that. A channel begins with a hello, with which the owner takes nothing more of an
// older one of that node; it answers when what it took of it is done.
//
// Nothing is sent twice. What became of a command whose channel broke is known when the owner
// has answered a new hello, or when the vDisk has a newer opening, whose log has it or not.
const (
	simMaxAge = 4 * time.Second
	simRetry  = 5 * time.Second
)

type simClient struct {
	block uint64
	cmd   *simCommand // that is neither answered nor given up
}

type simCommand struct {
	id    uint64 // of the write
	op    *lineartest.Op
	asked time.Duration
	came  time.Time   // by the clock of the node that it came to
	ch    *simChannel // that it was sent over
	over  bool        // its client goes on without it
}

type simMessage struct {
	cmd   *simCommand // nil: a hello, or a ping
	hello bool
	age   time.Duration // when it was sent
	heard time.Time     // the owner's clock, as the node had heard it then
}

type simReply struct {
	cmd   *simCommand
	hello bool
	done  bool // else cmd was dropped
	now   time.Time
}

type simChannel struct {
	from    *simNode
	to      *simOpening
	out     []simMessage
	back    []simReply
	ready   bool          // the hello was answered
	heard   time.Time     // the owner's clock
	slow    time.Duration // nothing arrives before
	broken  bool          // for the node; what it sent may arrive yet
	dropped bool          // for the owner
}

// simForwarder is what a node's process knows of commands that came to it.
type simForwarder struct {
	queue []*simCommand // not sent
	open  []*simCommand // sent, and not answered
	ch    *simChannel
}

// ask has a client go on.
func (s *sim) ask(c *simClient) {
	if c.cmd != nil && s.now-c.cmd.asked >= simRetry {
		c.cmd.over, c.cmd = true, nil
	}
	n := s.nodes[s.r.IntN(3)]
	if c.cmd != nil || !n.awake() {
		return
	}
	for s.id++; s.id%simBlocks != c.block; s.id++ {
	}
	c.cmd = &simCommand{id: s.id, op: s.history.Write(c.block, s.id), asked: s.now, came: n.Now()}
	n.fwd.queue = append(n.fwd.queue, c.cmd)
}

// told: the client hears that a command came to its end.
func (s *sim) told(cmd *simCommand) {
	cmd.over = true
	if c := s.clients[cmd.id%simBlocks]; c.cmd == cmd {
		c.cmd = nil
	}
}

// owner is the newest opening, as the registry has it; nil: it does not serve.
func (s *sim) owner() *simOpening {
	for _, n := range s.nodes {
		if o := n.own; n.name == s.rec.owner && o != nil && o.rec.epoch == s.rec.epoch {
			return o
		}
	}
	return nil
}

// forward has a node do what it can for the commands that came to it.
func (n *simNode) forward() {
	s, f, now := n.s, &n.fwd, n.Now()
	f.queue = slices.DeleteFunc(f.queue, func(cmd *simCommand) bool {
		old := now.Sub(cmd.came) > simMaxAge
		if old {
			cmd.op.Never()
			s.told(cmd)
		}
		return old
	})
	f.open = slices.DeleteFunc(f.open, func(cmd *simCommand) bool {
		over := !s.away && s.rec.epoch > cmd.ch.to.rec.epoch ||
			s.variant != simResend && f.ch != nil && f.ch != cmd.ch && f.ch.ready && f.ch.to == cmd.ch.to
		if over {
			cmd.op.Over()
			s.told(cmd)
		}
		return over
	})
	if o := n.own; o != nil && !o.fenced {
		for _, cmd := range f.queue {
			o.write(cmd, nil)
		}
		f.queue = nil
		return
	}
	if s.away {
		return
	}
	o := s.owner()
	if o == nil || o.n == n {
		return
	}
	ch := f.ch
	if ch == nil || ch.broken || ch.to != o {
		ch = &simChannel{from: n, to: o, out: []simMessage{{hello: true}}}
		f.ch = ch
		s.channels = append(s.channels, ch)
		return
	}
	if !ch.ready {
		return
	}
	send := func(cmd *simCommand) {
		cmd.ch = ch
		ch.out = append(ch.out, simMessage{cmd: cmd, age: now.Sub(cmd.came), heard: ch.heard})
	}
	if s.variant == simResend {
		for _, cmd := range f.open {
			if cmd.ch != ch {
				send(cmd)
			}
		}
	}
	for _, cmd := range f.queue {
		send(cmd)
		f.open = append(f.open, cmd)
	}
	f.queue = nil
	if len(ch.out) == 0 && s.chance(50) {
		ch.out = append(ch.out, simMessage{})
	}
}

// arrive has the owner take the next message of a channel.
func (s *sim) arrive(ch *simChannel) {
	o := ch.to
	if len(ch.out) == 0 || s.now < ch.slow || !o.n.awake() {
		return
	}
	if o.n.own != o || o.fenced {
		ch.dropped = true
		return
	}
	m := ch.out[0]
	if m.hello {
		for _, old := range s.channels {
			if old != ch && old.from == ch.from && old.to == o {
				old.dropped = true
			}
		}
		for _, w := range o.pend {
			if w.ch != nil && w.ch != ch && w.ch.from == ch.from {
				return
			}
		}
	}
	ch.out = ch.out[1:]
	if m.cmd == nil {
		ch.back = append(ch.back, simReply{hello: m.hello, now: o.n.Now()})
		return
	}
	age := m.age + o.n.Now().Sub(m.heard)
	if s.variant == simStale {
		age = m.age
	}
	if age > simMaxAge {
		ch.back = append(ch.back, simReply{cmd: m.cmd, now: o.n.Now()})
		return
	}
	s.forwards++
	o.write(m.cmd, ch)
}

// hear has a node hear the next answer of its channel.
func (s *sim) hear(ch *simChannel) {
	f := &ch.from.fwd
	if f.ch != ch || ch.broken || len(ch.back) == 0 || s.now < ch.slow || !ch.from.awake() {
		return
	}
	r := ch.back[0]
	ch.back = ch.back[1:]
	ch.heard = r.now
	ch.ready = ch.ready || r.hello
	i := slices.Index(f.open, r.cmd)
	if r.cmd == nil || i < 0 {
		return
	}
	f.open = slices.Delete(f.open, i, i+1)
	if r.done {
		r.cmd.op.Done()
	} else {
		r.cmd.op.Never()
	}
	s.told(r.cmd)
}

// disturb slows a channel down, or breaks it for the node that sends.
func (s *sim) disturb() {
	if len(s.channels) == 0 {
		return
	}
	ch := s.channels[s.r.IntN(len(s.channels))]
	ch.broken = ch.broken || s.chance(50)
	if s.chance(60) {
		ch.slow = s.now + time.Duration(s.r.IntN(8000))*time.Millisecond
	}
}

// channel has something arrive.
func (s *sim) channel() {
	s.channels = slices.DeleteFunc(s.channels, func(ch *simChannel) bool {
		unheard := ch.broken || ch.from.fwd.ch != ch
		return unheard && (ch.dropped || len(ch.out) == 0)
	})
	var busy []*simChannel
	for _, ch := range s.channels {
		if len(ch.back) > 0 || len(ch.out) > 0 && !ch.dropped {
			busy = append(busy, ch)
		}
	}
	if len(busy) == 0 {
		return
	}
	ch := busy[s.r.IntN(len(busy))]
	if len(ch.back) > 0 && s.chance(50) {
		s.hear(ch)
	} else if !ch.dropped {
		s.arrive(ch)
	}
}
