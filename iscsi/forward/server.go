package forward

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/wire"
	"github.com/openvstorage/ovgate/iscsi"
)

// maxLinks bounds the nodes that are connected.
const maxLinks = 1024

// ServerOptions configure a Server. All but Log must be set.
type ServerOptions struct {
	Cluster, Node string // ids
	Target        *iscsi.Server
	Clock         clock.Clock
	Log           *slog.Logger // nil: discard
}

// Server is the far end: it has the target of this node execute commands of other nodes.
// Safe for concurrent use.
type Server struct {
	o     ServerOptions
	start time.Time
	wg    sync.WaitGroup

	mu     sync.Mutex
	closed bool
	peers  map[*peer]struct{}
}

// NewServer returns a Server.
func NewServer(o ServerOptions) *Server {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{o: o, start: o.Clock.Now(), peers: map[*peer]struct{}{}}
}

// Close ends the links, and their nexuses with their last commands.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	for p := range s.peers {
		p.raw.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// now is this node's clock as others are told it.
func (s *Server) now() int64 { return int64(s.o.Clock.Now().Sub(s.start)) }

// peer is a connection of a node. What has no comment is set before it is shared.
type peer struct {
	s      *Server
	raw    net.Conn
	node   string
	ctx    context.Context // ends with the connection
	cancel context.CancelFunc
	ready  chan struct{} // capacity 1
	wg     sync.WaitGroup

	nexuses map[uint64]*user // the reader's

	writing sync.Mutex // held by who sends; h, conn, e and batch are that one's
	h       *holding
	conn    *wire.Conn
	e       wire.Encoder
	batch   []reply
	broken  bool

	mu    sync.Mutex
	dead  bool
	awake bool // the reader is at work, and will send what is answered before it waits
	heard time.Time
	queue []reply
	held  int // commands that were not answered
}

// waiter is a connection whose reader sends what it answered before it waits: commands that
// the Disk completes inside Submit need no other goroutine. What the other node does not
// read keeps the reader from taking more; that node reads whatever it sends.
type waiter struct {
	*holding
	p *peer
}

// Read implements net.Conn.
func (w waiter) Read(b []byte) (int, error) {
	w.p.setAwake(false)
	w.p.sendQueued()
	n, err := w.holding.Read(b)
	w.p.setAwake(true)
	return n, err
}

func (p *peer) setAwake(v bool) {
	p.mu.Lock()
	p.awake = v
	p.mu.Unlock()
}

// user is a nexus of a peer.
type user struct {
	p  *peer
	id uint64

	mu     sync.Mutex
	n      *iscsi.ServedNexus // nil: not open yet, or not any more
	closed bool
}

// reply is a message to send.
type reply struct {
	typ    uint16
	mark   mark
	answer answer
	r      *iscsi.RemoteCommand // of an Answer with results
}

// Serve talks to a node until the connection breaks or the server ends; it closes raw. TLS,
// if any, is below raw; node is its id by the certificate, "" without one.
func (s *Server) Serve(raw net.Conn, node string) error {
	defer raw.Close()
	p := &peer{s: s, raw: raw, node: node, ready: make(chan struct{}, 1), nexuses: map[uint64]*user{}, heard: s.o.Clock.Now()}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	defer p.cancel()
	s.mu.Lock()
	if s.closed || len(s.peers) >= maxLinks {
		s.mu.Unlock()
		return refused("shutting down, or more than %d nodes are connected", maxLinks)
	}
	s.peers[p] = struct{}{}
	s.wg.Add(1)
	s.mu.Unlock()
	defer s.wg.Done()
	p.h = hold(raw)
	conn := newConn(waiter{p.h, p})
	p.conn = conn
	var helpers sync.WaitGroup
	helpers.Go(p.watch)
	err := p.hello(conn)
	if err == nil {
		helpers.Go(p.write)
		for err == nil {
			err = p.next(conn)
		}
	}
	raw.Close()
	p.cancel()
	for _, u := range p.nexuses {
		u.close()
	}
	p.wg.Wait() // until the nexuses have ended
	helpers.Wait()
	p.drop()
	s.mu.Lock()
	delete(s.peers, p)
	s.mu.Unlock()
	return err
}

// drop releases what is not sent any more.
func (p *peer) drop() {
	p.mu.Lock()
	p.dead = true
	queue := p.queue
	p.queue = nil
	p.mu.Unlock()
	for _, q := range queue {
		if q.r != nil {
			q.r.Release()
		}
	}
}

// hello learns who the node is.
func (p *peer) hello(conn *wire.Conn) error {
	head, meta, err := receive(conn)
	if err != nil {
		return err
	}
	var h hello
	if err := h.decode(meta); err != nil {
		return err
	}
	o := &p.s.o
	w := welcome{code: codeRefused, clock: p.s.now()}
	switch {
	case head.Type != typeHello || head.Body > 0:
		w.text = "no hello"
	case h.cluster != o.Cluster:
		w.text = "this node is of another cluster"
	case h.peer != o.Node:
		w.text = "this is node " + o.Node
	case h.node == "" || h.node == o.Node:
		w.text = "a node forwards to another one, not to itself"
	case p.node != "" && p.node != h.node:
		w.text = "the certificate is that of node " + p.node
	default:
		w.code = codeOK
	}
	var e wire.Encoder
	w.encode(&e)
	err = conn.Send(typeWelcome, 0, e.B)
	if w.code != codeOK {
		return errors.Join(refused("%s", w.text), err)
	}
	p.node = h.node
	return err
}

// watch ends a connection that is silent.
func (p *peer) watch() {
	clk := p.s.o.Clock
	t := clk.NewTimer(helloTime)
	defer t.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-t.C():
		}
		p.mu.Lock()
		left := helloTime - clk.Now().Sub(p.heard)
		p.mu.Unlock()
		if left <= 0 {
			p.raw.Close()
			return
		}
		t.Reset(max(left, pingEvery))
	}
}

// next takes one message.
func (p *peer) next(conn *wire.Conn) error {
	head, meta, err := receive(conn)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.heard = p.s.o.Clock.Now()
	p.mu.Unlock()
	if head.Body > 0 && head.Type != typeCommand {
		return refused("type %d with a body", head.Type)
	}
	switch head.Type {
	case typePing:
		p.send(reply{typ: typePong})
		return nil
	case typeOpen:
		var o opening
		if err := o.decode(meta); err != nil {
			return err
		}
		return p.open(o)
	case typeCommand:
		return p.command(conn, head, meta)
	case typeReset:
		var c command
		if err := c.decode(meta, typeReset); err != nil {
			return err
		}
		return p.reset(c)
	case typeAbort, typeClose:
		var m mark
		if err := m.decode(meta); err != nil {
			return err
		}
		p.marked(head.Type, m)
		return nil
	}
	return refused("type %d", head.Type)
}

// open begins a nexus; it may have to wait for an older one.
func (p *peer) open(o opening) error {
	if len(p.nexuses) >= maxNexuses { // also those that were refused, or have ended since
		maps.DeleteFunc(p.nexuses, func(_ uint64, u *user) bool { return u.over() })
	}
	if p.nexuses[o.nexus] != nil || len(p.nexuses) >= maxNexuses {
		return refused("nexus %d is open, or %d are", o.nexus, len(p.nexuses))
	}
	u := &user{p: p, id: o.nexus}
	p.nexuses[o.nexus] = u
	p.wg.Add(1) // until Gone, or here
	p.wg.Go(func() {
		n, err := p.s.o.Target.OpenNexus(p.ctx, o.id, "node "+p.node, o.again, u)
		m := mark{nexus: o.nexus, code: codeOK}
		if err != nil {
			p.s.o.Log.Debug("a nexus of another node is not opened", "node", p.node, "target", o.id.Target, "err", err)
			m.code = codeRefused
			u.close()
			p.wg.Done()
		} else {
			u.mu.Lock()
			u.n = n
			closed := u.closed
			u.mu.Unlock()
			if closed {
				n.Close()
			}
		}
		p.send(reply{typ: typeOpened, mark: m})
	})
	return nil
}

// served returns what executes the commands of a nexus; nil: it is not open.
func (u *user) served() *iscsi.ServedNexus {
	if u == nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.n
}

// over tells whether nothing of the nexus comes any more, or is to be kept.
func (u *user) over() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.closed && u.n == nil
}

func (u *user) close() {
	u.mu.Lock()
	u.closed = true
	n := u.n
	u.mu.Unlock()
	if n != nil {
		n.Close()
	}
}

// command has a command executed.
func (p *peer) command(conn *wire.Conn, head wire.Head, meta []byte) error {
	var c command
	if err := c.decode(meta, typeCommand); err != nil {
		return err
	}
	p.mu.Lock()
	p.held++
	held := p.held
	p.mu.Unlock()
	if held > maxHold {
		return refused("%d commands are not answered", held)
	}
	s := p.s
	not := func() error {
		err := conn.Skip()
		p.finish(reply{typ: typeAnswer, answer: answer{nexus: c.nexus, tag: c.tag, outcome: iscsi.OutcomeNot}})
		return err
	}
	n := p.nexuses[c.nexus].served()
	if n == nil {
		return not()
	}
	expires := s.start.Add(time.Duration(c.expires))
	in := iscsi.RemoteCommand{
		Tag: c.tag, Unit: c.unit, LUN: c.lun, CDB: c.cdb, Read: c.flags&flagRead != 0, Write: c.flags&flagWrite != 0, Expected: c.expected,
		Since: min2(expires.Add(-iscsi.CommandMaxAge), s.o.Clock.Now()),
	}
	r, room, err := n.Take(&in, head.Body, expires)
	if err != nil {
		return not()
	}
	if room == nil {
		err = conn.Skip()
	} else {
		err = conn.Body(room)
	}
	if err != nil {
		r.Drop()
		return err
	}
	r.Run()
	return nil
}

// min2 returns the earlier time.
func min2(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func (p *peer) reset(c command) error {
	n := p.nexuses[c.nexus].served()
	m := mark{nexus: c.nexus, tag: c.tag, code: codeRefused}
	if n == nil || n.Reset(c.unit, c.lun, func() { p.send(reply{typ: typeResetOver, mark: mark{nexus: c.nexus, tag: c.tag}}) }) != nil {
		p.send(reply{typ: typeResetOver, mark: m})
	}
	return nil
}

func (p *peer) marked(typ uint16, m mark) {
	u := p.nexuses[m.nexus]
	switch {
	case u == nil:
	case typ == typeClose:
		delete(p.nexuses, m.nexus)
		u.close()
	default:
		if n := u.served(); n != nil {
			n.Abort(m.tag)
		}
	}
}

// Answered implements iscsi.NexusUser.
func (u *user) Answered(r *iscsi.RemoteCommand) {
	u.p.finish(reply{typ: typeAnswer, r: r, answer: answer{nexus: u.id, tag: r.Tag, outcome: iscsi.OutcomeDone, status: r.Status, transferred: r.Transferred, sense: r.Sense()}})
}

// Ended implements iscsi.NexusUser.
func (u *user) Ended(tag uint32, o iscsi.Outcome) {
	u.p.finish(reply{typ: typeAnswer, answer: answer{nexus: u.id, tag: tag, outcome: o}})
}

// Gone implements iscsi.NexusUser.
func (u *user) Gone() {
	u.mu.Lock()
	u.n, u.closed = nil, true
	u.mu.Unlock()
	u.p.send(reply{typ: typeGone, mark: mark{nexus: u.id}})
	u.p.wg.Done()
}

// finish answers a command.
func (p *peer) finish(q reply) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held--
	p.enqueue(q)
}

func (p *peer) send(q reply) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.enqueue(q)
}

// enqueue queues a message; mu is held.
func (p *peer) enqueue(q reply) {
	p.queue = append(p.queue, q)
	if p.awake {
		return
	}
	select {
	case p.ready <- struct{}{}:
	default:
	}
}

// encode makes the meta of a message, and returns its body.
func (p *peer) encode(e *wire.Encoder, q *reply) []byte {
	switch q.typ {
	case typePong:
		(&welcome{clock: p.s.now()}).encode(e)
	case typeAnswer:
		q.answer.encode(e)
		if q.r != nil {
			return q.r.In
		}
	default:
		q.mark.encode(e)
	}
	return nil
}

// write sends what others than the reader answer.
func (p *peer) write() {
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-p.ready:
			p.sendQueued()
		}
	}
}

// sendQueued sends what is queued.
func (p *peer) sendQueued() {
	p.writing.Lock()
	defer p.writing.Unlock()
	p.mu.Lock()
	p.batch, p.queue = p.queue, p.batch[:0]
	p.mu.Unlock()
	for i := range p.batch {
		q := &p.batch[i]
		p.h.hold = i+1 < len(p.batch)
		if !p.broken {
			p.e.B = p.e.B[:0]
			body := p.encode(&p.e, q)
			if p.conn.Send(q.typ, 0, p.e.B, body) != nil {
				p.broken = true
				p.raw.Close()
			}
		}
		if q.r != nil {
			q.r.Release()
		}
	}
	clear(p.batch)
}
