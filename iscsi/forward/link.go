package forward

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/wire"
	"github.com/openvstorage/ovgate/iscsi"
)

// link is the connection to one node, made again when it breaks while it is needed.
type link struct {
	f    *Forwarder
	node string

	flush []iscsi.AnswerFlusher // the reader's: of commands that it completed

	// Under Forwarder.mu.
	up        bool
	raw       net.Conn // with up
	nexuses   map[uint64]*nexus
	queue     []out
	ready     chan struct{} // capacity 1
	notBefore time.Time     // the next opening of a nexus
	heard     time.Time
	theirs    time.Duration // a bound of the owner's clock at heardClock
	ours      time.Time
	unused    time.Time // since when there is no nexus
	down      time.Time // since when it is not up
	// The commands whose data the writer and the reader may be at work on: they do not end meanwhile.
	sending, taking *iscsi.RemoteCommand
}

// out is a message to send.
type out struct {
	typ   uint16
	mark  mark
	open  opening
	nexus *nexus
	r     *iscsi.RemoteCommand
	reset *reset
}

// link returns the link to a node, and has it connect. mu is held.
func (f *Forwarder) link(node string) *link {
	l := f.links[node]
	if l == nil {
		now := f.o.Clock.Now()
		l = &link{f: f, node: node, nexuses: map[uint64]*nexus{}, unused: now, down: now}
		f.links[node] = l
		if !f.closed {
			f.linkRuns.Go(l.run)
		}
	} else if !l.up {
		l.unused = f.o.Clock.Now() // somebody asks for it
	}
	return l
}

// send queues a message; mu is held.
func (l *link) send(o out) {
	if !l.up {
		return
	}
	l.queue = append(l.queue, o)
	select {
	case l.ready <- struct{}{}:
	default:
	}
}

// run connects again and again, until the link is not needed any more.
func (l *link) run() {
	f := l.f
	wait, told := minBackoff, false
	for {
		err := l.connect(&wait, &told)
		if f.ctx.Err() != nil || l.retire() {
			return
		}
		if !told {
			f.o.Log.Warn("no connection to the node that serves a logical unit; it is tried again by itself", "node", l.node, "err", err)
			told = true
		}
		if clock.Sleep(f.ctx, f.o.Clock, wait) != nil {
			return
		}
		wait = min(2*wait, maxBackoff)
	}
}

// retire forgets a link that nobody uses.
func (l *link) retire() bool {
	l.f.mu.Lock()
	defer l.f.mu.Unlock()
	if l.up || len(l.nexuses) > 0 || l.f.o.Clock.Now().Sub(l.unused) < idle {
		return false
	}
	delete(l.f.links, l.node)
	return true
}

// connect makes the connection and serves it to its end.
func (l *link) connect(wait *time.Duration, told *bool) error {
	f := l.f
	ctx, cancel := context.WithTimeout(f.ctx, helloTime)
	defer cancel()
	raw, err := f.o.Dial(ctx, l.node)
	if err != nil {
		return err
	}
	defer raw.Close()
	stop := context.AfterFunc(f.ctx, func() { raw.Close() })
	defer stop()
	h := hold(raw)
	conn := newConn(l.flushing(h))
	if err := l.greet(ctx, raw, conn); err != nil {
		return err
	}
	*wait, *told = minBackoff, false
	ended := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { l.write(h, conn, ended) })
	wg.Go(func() { l.watch(raw, ended) })
	for err == nil {
		err = l.next(conn)
	}
	l.flushAnswers()
	raw.Close()
	close(ended)
	wg.Wait() // nothing refers to the commands' data any more
	l.broken()
	return err
}

// greet says who this is, and learns the owner's clock.
func (l *link) greet(ctx context.Context, raw net.Conn, conn *wire.Conn) error {
	f := l.f
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	var e wire.Encoder
	(&hello{f.o.Cluster, f.o.Node, l.node}).encode(&e)
	if err := conn.Send(typeHello, 0, e.B); err != nil {
		return err
	}
	head, meta, err := receive(conn)
	if err != nil {
		return err
	}
	var w welcome
	if err := w.decode(meta); err != nil {
		return err
	}
	if head.Type != typeWelcome || w.code != codeOK {
		return refused("node %s refuses: %s", l.node, w.text)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	l.up, l.raw, l.queue, l.ready = true, raw, nil, make(chan struct{}, 1)
	l.clock(w.clock)
	f.wake()
	return nil
}

// clock notes what the owner's clock was; mu is held.
func (l *link) clock(ns int64) {
	now := l.f.o.Clock.Now()
	l.heard, l.theirs, l.ours = now, time.Duration(ns), now
}

// expires is when a command is too old, by the owner's clock; mu is held.
func (l *link) expires(since time.Time) int64 {
	return int64(l.theirs + since.Add(iscsi.CommandMaxAge).Sub(l.ours))
}

// receive reads the header and meta of a frame that has no body but what the caller reads.
func receive(conn *wire.Conn) (wire.Head, []byte, error) {
	head, err := conn.Next()
	if err != nil {
		return head, nil, err
	}
	meta, err := conn.Meta()
	return head, meta, err
}

// watch pings, and ends a link that is silent.
func (l *link) watch(raw net.Conn, ended chan struct{}) {
	f := l.f
	t := f.o.Clock.NewTimer(pingEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C():
		case <-ended:
			return
		}
		f.mu.Lock()
		now := f.o.Clock.Now()
		silent := now.Sub(l.heard)
		if len(l.nexuses) > 0 {
			l.unused = now
		}
		unused := now.Sub(l.unused) >= idle
		l.send(out{typ: typePing})
		f.mu.Unlock()
		if silent >= linkLost || unused {
			raw.Close()
			return
		}
		t.Reset(pingEvery)
	}
}

// write sends what is queued.
func (l *link) write(h *holding, conn *wire.Conn, ended chan struct{}) {
	var e wire.Encoder
	var batch []out
	for {
		select {
		case <-ended:
			return
		case <-l.ready:
		}
		l.f.mu.Lock()
		batch, l.queue = l.queue, batch[:0]
		l.sending = nil
		l.f.mu.Unlock()
		for i := range batch {
			h.hold = i+1 < len(batch)
			e.B = e.B[:0]
			body, skip := l.encode(&e, &batch[i])
			var err error
			if skip {
				if !h.hold {
					err = h.Flush()
				}
			} else {
				err = conn.Send(batch[i].typ, 0, e.B, body)
			}
			if err != nil {
				h.Close()
				<-ended
				return
			}
		}
		clear(batch)
	}
}

// encode makes the meta of a message; skip: it is not to be sent any more.
func (l *link) encode(e *wire.Encoder, o *out) (body []byte, skip bool) {
	switch o.typ {
	case typePing:
	case typeOpen:
		o.open.encode(e)
	case typeCommand:
		l.f.mu.Lock()
		defer l.f.mu.Unlock()
		r := o.r
		tag := r.Tag
		if o.nexus.pending[tag] != r {
			return nil, true
		}
		r.Sent, l.sending = true, r
		c := command{nexus: o.nexus.id, tag: tag, lun: r.LUN, unit: r.Unit, expected: r.Expected, cdb: r.CDB, expires: l.expires(r.Since)}
		if r.Read {
			c.flags |= flagRead
		}
		if r.Write {
			c.flags |= flagWrite
		}
		c.encode(e, typeCommand)
		return r.Data, false
	case typeReset:
		c := command{nexus: o.nexus.id, tag: o.reset.tag, lun: o.reset.lun, unit: o.reset.unit}
		c.encode(e, typeReset)
	default:
		o.mark.encode(e)
	}
	return nil, false
}

// next takes one message of the owner.
func (l *link) next(conn *wire.Conn) error {
	head, meta, err := receive(conn)
	if err != nil {
		return err
	}
	if head.Body > 0 && head.Type != typeAnswer {
		return refused("type %d with a body", head.Type)
	}
	switch head.Type {
	case typeAnswer:
		return l.answered(conn, head, meta)
	case typePong:
		var w welcome
		if err := w.decode(meta); err != nil {
			return err
		}
		l.f.mu.Lock()
		l.clock(w.clock)
		l.f.mu.Unlock()
		return nil
	case typeOpened, typeResetOver, typeGone:
		var m mark
		if err := m.decode(meta); err != nil {
			return err
		}
		l.marked(head.Type, m)
		return nil
	}
	return refused("type %d", head.Type)
}

// answered takes the answer to a command.
func (l *link) answered(conn *wire.Conn, head wire.Head, meta []byte) error {
	f := l.f
	var a answer
	if err := a.decode(meta); err != nil {
		return err
	}
	f.mu.Lock()
	l.heard = f.o.Clock.Now()
	n := l.nexuses[a.nexus]
	var r *iscsi.RemoteCommand
	if n != nil {
		r = n.pending[a.tag]
	}
	if r == nil || !r.Sent {
		f.mu.Unlock()
		return conn.Skip() // of a nexus that has ended, or too late
	}
	l.taking = r
	f.mu.Unlock()
	if !r.SetSense(a.sense) {
		return refused("sense data of %d bytes", len(a.sense))
	}
	r.In = nil
	if head.Body > 0 {
		if r.In = r.Done.Room(head.Body); r.In == nil {
			a.outcome, a.status = iscsi.OutcomeNot, 0 // busy: there is no memory for its data
			if err := conn.Skip(); err != nil {
				return err
			}
		} else if err := conn.Body(r.In); err != nil {
			return err
		}
	}
	r.Status, r.Transferred = a.status, a.transferred
	f.mu.Lock()
	l.taking = nil
	if n.pending[a.tag] != r {
		f.mu.Unlock()
		return nil
	}
	delete(n.pending, a.tag)
	if again := a.outcome == iscsi.OutcomeNot || a.outcome == iscsi.OutcomeOver && r.Repeatable; again && head.Body == 0 && !r.Cancelled {
		// It moved, or is about to: where to shows soon.
		r.Sent, r.Later = false, f.o.Clock.Now().Add(reopen)
		f.waiting = append(f.waiting, r)
		f.wake()
		f.mu.Unlock()
		return nil
	}
	r.Outcome = a.outcome
	f.mu.Unlock()
	done := r.Done
	if w := done.Awake(); len(l.flush) == 0 || l.flush[len(l.flush)-1] != w {
		l.flush = append(l.flush, w)
	}
	done.CompleteRemote()
	return nil
}

// flushAnswers sends the answers to the commands that were completed.
func (l *link) flushAnswers() {
	for _, w := range l.flush {
		w.FlushAnswers()
	}
	clear(l.flush)
	l.flush = l.flush[:0]
}

// flushing makes the reader send the answers to what it completed before it waits. Where
// that is known (wire.TLSConn), what has come in one piece is answered in one piece.
func (l *link) flushing(h *holding) connection {
	if w, ok := h.Conn.(interface{ BeforeRead(func()) }); ok {
		w.BeforeRead(l.flushAnswers)
		return h
	}
	return completing{h, l}
}

// completing is a connection that may wait with every read.
type completing struct {
	*holding
	l *link
}

// Read implements net.Conn.
func (c completing) Read(b []byte) (int, error) {
	c.l.flushAnswers()
	return c.holding.Read(b)
}

// marked takes what is said of a nexus.
func (l *link) marked(typ uint16, m mark) {
	f := l.f
	var over []func()
	f.mu.Lock()
	l.heard = f.o.Clock.Now()
	n := l.nexuses[m.nexus]
	fail := func(list []*reset) {
		for _, r := range list {
			over = append(over, func() { r.done(false) })
		}
	}
	switch {
	case n == nil:
	case typ == typeOpened && m.code == codeOK:
		n.open, n.p.opened = true, true
	case typ == typeOpened:
		l.notBefore = f.o.Clock.Now().Add(reopen)
		fail(f.lost(n))
	case typ == typeGone:
		fail(f.lost(n))
	default:
		for i, r := range f.resets {
			if r.n == n && r.tag == m.tag {
				f.resets = append(f.resets[:i], f.resets[i+1:]...)
				over = append(over, func() { r.done(m.code == codeOK) })
				break
			}
		}
	}
	f.wake()
	f.mu.Unlock()
	for _, d := range over {
		d()
	}
}

// broken takes leave of a connection.
func (l *link) broken() {
	f := l.f
	f.mu.Lock()
	l.up, l.raw, l.queue, l.down = false, nil, nil, f.o.Clock.Now()
	l.sending, l.taking = nil, nil
	var failed []*reset
	for _, n := range l.nexuses {
		failed = append(failed, f.lost(n)...)
	}
	f.mu.Unlock()
	for _, r := range failed {
		r.done(false)
	}
}
