package dtl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/wire"
)

const (
	// pingEvery keeps a grant (D4) alive through three lost pings.
	pingEvery = Grant / 4
	// defaultLost is how long a record waits for its answer, and a vDisk for a broken
	// connection to come back, before the peer counts as lost: as long as a grant.
	defaultLost = Grant
	minBackoff  = 50 * time.Millisecond
	maxBackoff  = time.Second
	// maxUnanswered bounds the records of a client that were not answered, in bytes:
	// below what a server takes.
	maxUnanswered = maxQueued / 2
)

// ErrLost: the peer did not answer in time.
var ErrLost = errors.New("dtl: the peer does not answer")

// ClientOptions configure a Client. Cluster, Node, Peer, Dial and Clock must be set.
type ClientOptions struct {
	Cluster, Node string
	Peer          string // id of the node that the server must be
	// Dial connects to the peer, with TLS if the network wants it, and returns soon after
	// ctx ends.
	Dial  func(ctx context.Context) (net.Conn, error)
	Clock clock.Clock
	Log   *slog.Logger  // nil: discard
	Lost  time.Duration // after which the peer counts as lost; 0: 2 s
}

// Client sends the records of a node's vDisks to one peer. Safe for concurrent use.
type Client struct {
	o      ClientOptions
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu         sync.Mutex
	mirrors    map[[16]byte]*Mirror
	link       *link // nil: not connected
	since      time.Time
	id         uint64
	unanswered int           // bytes
	records    int           // not answered
	room       chan struct{} // closed and replaced when there are fewer of them
}

// link is one connection. Client.mu guards what changes.
type link struct {
	raw     net.Conn
	conn    *wire.Conn
	ready   chan struct{} // capacity 1
	queue   []*call
	pending map[uint64]*call
	granted atomic.Pointer[time.Time] // until when; by the clock of this node
	asked   time.Time                 // newest request
	heard   time.Time                 // newest answer
}

// call is a request until its answer.
type call struct {
	typ   uint16
	req   request
	body  []byte
	m     *Mirror
	asked time.Time
	reply chan answer // capacity 1; nil: nobody waits
}

// Mirror is the copy of one opening of a vDisk on the peer. Safe for concurrent use.
type Mirror struct {
	c       *Client
	vdisk   [16]byte
	epoch   uint32
	cluster uint32
	start   uint64
	begun   time.Time
	done    chan struct{}        // closed when it ended
	on      atomic.Pointer[link] // on which the copy was confirmed

	// Guarded by Client.mu.
	gen      uint64 // 0: the peer has not begun it yet
	durable  uint64
	changed  chan struct{} // closed and replaced when gen or durable changes
	released uint64
	left     []*record // not answered, in seq order
	bytes    int64     // of left
	latency  *Latency  // nil: not counted
	err      error
}

// Latency counts records by how long their answer took: bucket i those of [2^i, 2^(i+1)) us.
type Latency [24]atomic.Uint64

func (l *Latency) count(d time.Duration) {
	l[min(bits.Len64(uint64(max(d.Microseconds(), 0))>>1), len(l)-1)].Add(1)
}

// record is one that the peer has not answered.
type record struct {
	frame []byte
	last  uint64
	since time.Time // when it was sent last
	begun time.Time // when it was given to the mirror
}

// NewClient connects when there is something to do, and again when that breaks.
func NewClient(o ClientOptions) *Client {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Lost == 0 {
		o.Lost = defaultLost
	}
	c := &Client{o: o, mirrors: map[[16]byte]*Mirror{}, since: o.Clock.Now(), room: make(chan struct{})}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.wg.Go(c.run)
	c.wg.Go(c.watch)
	return c
}

// Close ends the connection; the mirrors are lost.
func (c *Client) Close() {
	c.cancel()
	c.wg.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.mirrors {
		m.fail(ErrClosed)
	}
}

// run connects again and again.
func (c *Client) run() {
	wait, told := minBackoff, false
	for c.ctx.Err() == nil {
		err := c.connect(&wait)
		if c.ctx.Err() != nil {
			return
		}
		if told = told && wait > minBackoff; !told { // once until it is there again
			c.o.Log.Warn("no connection to the DTL peer; it is tried again by itself", "peer", c.o.Peer, "err", err)
			told = true
		}
		t := c.o.Clock.NewTimer(wait)
		select {
		case <-t.C():
		case <-c.ctx.Done():
		}
		t.Stop()
		wait = min(2*wait, maxBackoff)
	}
}

// connect talks to the peer until the connection breaks.
func (c *Client) connect(wait *time.Duration) error {
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	stop := clock.AfterFunc(c.o.Clock, c.o.Lost, cancel)
	raw, err := c.o.Dial(ctx)
	if err != nil {
		stop()
		return err
	}
	defer raw.Close()
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	l := &link{raw: raw, ready: make(chan struct{}, 1), pending: map[uint64]*call{}, conn: newConn(raw)}
	asked := c.o.Clock.Now()
	err = l.hello(hello{c.o.Cluster, c.o.Node, c.o.Peer})
	if !stop() && err == nil {
		err = ErrLost
	}
	if err != nil {
		return err
	}
	*wait = minBackoff
	c.begin(l, asked)
	var writer sync.WaitGroup
	writer.Go(func() { c.write(ctx, l) })
	for err == nil {
		var a answer
		if a, err = l.read(); err == nil {
			c.answered(l, a)
		}
	}
	cancel()
	raw.Close()
	writer.Wait()
	c.end(l, err)
	return err
}

func newConn(raw net.Conn) *wire.Conn {
	return wire.NewConn(raw, protocol, wire.Limits{Meta: maxMeta})
}

// hello says who this is, and returns why the peer refuses it.
func (l *link) hello(h hello) error {
	var e wire.Encoder
	h.encode(&e)
	if err := l.conn.Send(typeHello, 0, e.B); err != nil {
		return err
	}
	a, err := l.read()
	if err != nil {
		return err
	}
	return a.err()
}

// read reads one answer.
func (l *link) read() (answer, error) {
	var a answer
	head, meta, err := receive(l.conn)
	if err != nil {
		return a, err
	}
	if head.Type != typeAnswer {
		return a, fmt.Errorf("%w: type %d is no answer", ErrRefused, head.Type)
	}
	return a, a.decode(meta)
}

// begin asks, on a new connection, for what the copies have.
func (c *Client) begin(l *link, asked time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.o.Clock.Now()
	c.link, l.asked, l.heard = l, asked, now
	l.grant(asked)
	for _, m := range c.mirrors {
		m.ask()
	}
}

// grant counts an answer to what was asked at that time (D4); Client.mu is held.
func (l *link) grant(asked time.Time) {
	until := asked.Add(Grant)
	if now := l.granted.Load(); now == nil || until.After(*now) {
		l.granted.Store(&until)
	}
}

// ask begins a copy, or asks for what it has; Client.mu is held, and there is a connection.
func (m *Mirror) ask() {
	if m.gen == 0 {
		m.c.send(&call{typ: typeOpen, m: m, req: request{vdisk: m.vdisk, epoch: m.epoch, cluster: m.cluster, seq: m.start}})
		return
	}
	m.c.send(&call{typ: typeResume, req: m.request(0), m: m})
}

// end forgets a connection. Calls that somebody waits for fail: their outcome is unknown.
func (c *Client) end(l *link, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.link, c.since = nil, c.o.Clock.Now()
	for _, m := range c.mirrors {
		m.on.Store(nil)
	}
	for _, q := range l.pending {
		if q.reply != nil {
			q.reply <- failed(0, fmt.Errorf("%w: %w", ErrFailed, err))
		}
	}
}

// send queues a call on the connection; Client.mu is held, and there is one.
func (c *Client) send(q *call) {
	l := c.link
	c.id++
	q.req.id, q.asked = c.id, c.o.Clock.Now()
	l.asked = q.asked
	l.pending[c.id] = q
	l.queue = append(l.queue, q)
	signal(l.ready)
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// write sends what is queued.
func (c *Client) write(ctx context.Context, l *link) {
	var e wire.Encoder
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.ready:
		}
		c.mu.Lock()
		queue := l.queue
		l.queue = nil
		c.mu.Unlock()
		for _, q := range queue {
			e.B = e.B[:0]
			q.req.encode(&e)
			if l.conn.Send(q.typ, 0, e.B, q.body) != nil {
				l.raw.Close()
				return
			}
		}
	}
}

// answered takes an answer in.
func (c *Client) answered(l *link, a answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q := l.pending[a.id]
	if q == nil {
		l.raw.Close() // an answer to nothing: where the peer is, is not known
		return
	}
	delete(l.pending, a.id)
	l.heard = c.o.Clock.Now()
	if !l.heard.Before(*l.granted.Load()) { // there is one again
		for _, m := range c.mirrors {
			m.tell()
		}
	}
	l.grant(q.asked)
	if q.reply != nil {
		q.reply <- a
		return
	}
	m := q.m
	if m == nil || m.err != nil {
		return
	}
	if err := a.err(); err != nil {
		m.fail(err)
		return
	}
	switch q.typ {
	case typeOpen, typeResume:
		if q.typ == typeOpen {
			m.gen, a.seq = a.generation, m.start-1
		}
		if a.seq < m.durable || m.gen == 0 {
			m.fail(fmt.Errorf("%w: it has seq %d, and had %d", ErrGeneration, a.seq, m.durable))
			return
		}
		m.on.Store(l)
		m.took(a.seq)
		m.tell()
		for _, r := range m.left {
			r.since = c.o.Clock.Now()
			c.send(&call{typ: typeAppend, req: m.request(r.last), body: r.frame, m: m})
		}
		if m.released > 0 {
			c.send(&call{typ: typeRelease, req: m.request(m.released), m: m})
		}
	case typeAppend:
		m.took(a.seq)
	}
}

// watch pings, and gives up on what does not answer.
func (c *Client) watch() {
	t := c.o.Clock.NewTimer(pingEvery / 2)
	defer t.Stop()
	for {
		select {
		case <-t.C():
		case <-c.ctx.Done():
			return
		}
		c.look()
		t.Reset(pingEvery / 2)
	}
}

func (c *Client) look() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.o.Clock.Now()
	if l := c.link; l != nil {
		if now.Sub(l.asked) >= pingEvery {
			c.send(&call{typ: typePing})
		}
		if len(l.pending) > 0 && now.Sub(l.heard) >= c.o.Lost {
			l.raw.Close()
		}
	}
	for _, m := range c.mirrors {
		slow := len(m.left) > 0 && now.Sub(m.left[0].since) >= c.o.Lost || m.gen == 0 && now.Sub(m.begun) >= c.o.Lost
		if slow || c.link == nil && now.Sub(c.since) >= c.o.Lost {
			m.fail(fmt.Errorf("%w: node %s, for %s", ErrLost, c.o.Peer, c.o.Lost))
		}
	}
}

// Begin begins a copy of the log of a vDisk, and does not wait: epoch is that of its
// opening, cluster its cluster size in bytes, start the first seq that will be appended.
// There is one Mirror of a vDisk at a time; the one before ends.
func (c *Client) Begin(vdisk [16]byte, epoch uint32, cluster int, start uint64) *Mirror {
	m := &Mirror{c: c, vdisk: vdisk, epoch: epoch, cluster: uint32(cluster), start: start, begun: c.o.Clock.Now(), durable: start - 1,
		changed: make(chan struct{}), done: make(chan struct{})}
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.mirrors[vdisk]; old != nil {
		old.fail(ErrClosed)
	}
	c.mirrors[vdisk] = m
	if c.ctx.Err() != nil {
		m.fail(ErrClosed)
	} else if c.link != nil {
		m.ask()
	}
	return m
}

// call sends a request and waits for its answer.
func (c *Client) call(ctx context.Context, q *call) (answer, error) {
	c.mu.Lock()
	if c.link == nil {
		c.mu.Unlock()
		return answer{}, fmt.Errorf("%w: not connected", ErrLost)
	}
	c.send(q)
	c.mu.Unlock()
	select {
	case a := <-q.reply:
		return a, nil
	case <-ctx.Done():
		return answer{}, ctx.Err()
	case <-c.ctx.Done():
		return answer{}, ErrClosed
	}
}

// Connected reports whether the peer answers.
func (c *Client) Connected() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.link != nil
}

func (m *Mirror) request(seq uint64) request {
	return request{vdisk: m.vdisk, epoch: m.epoch, generation: m.gen, seq: seq}
}

// fail ends a mirror; Client.mu is held.
func (m *Mirror) fail(err error) {
	if m.err != nil {
		return
	}
	m.err = err
	m.answered(len(m.left))
	m.on.Store(nil)
	if m.c.mirrors[m.vdisk] == m {
		delete(m.c.mirrors, m.vdisk)
	}
	close(m.done)
}

// answered forgets the first n records; Client.mu is held.
func (m *Mirror) answered(n int) {
	if n == 0 {
		return
	}
	for _, r := range m.left[:n] {
		m.c.unanswered -= len(r.frame)
		m.bytes -= int64(len(r.frame))
	}
	m.c.records -= n
	m.left = m.left[n:]
	close(m.c.room)
	m.c.room = make(chan struct{})
}

// took notes that the peer holds all up to seq; Client.mu is held.
func (m *Mirror) took(seq uint64) {
	n := 0
	for n < len(m.left) && m.left[n].last <= seq {
		n++
	}
	if m.latency != nil && n > 0 {
		now := m.c.o.Clock.Now()
		for _, r := range m.left[:n] {
			m.latency.count(now.Sub(r.begun))
		}
	}
	m.answered(n)
	if seq > m.durable {
		m.durable = seq
		m.tell()
	}
}

// tell wakes who waits for a change; Client.mu is held.
func (m *Mirror) tell() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// Peer returns the id of the node that has the copy.
func (m *Mirror) Peer() string { return m.c.o.Peer }

// Start returns the first seq of the copy.
func (m *Mirror) Start() uint64 { return m.start }

// Generation names the copy; 0: the peer has not begun it yet.
func (m *Mirror) Generation() uint64 {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	return m.gen
}

// Append sends a record that ends with seq last, and does not wait for its answer; the
// frame is copied. Records come in seq order. While too much is not answered it waits, for
// which ctx is. An error means that nothing is appended any more: that of the mirror.
func (m *Mirror) Append(ctx context.Context, frame []byte, last uint64) error {
	c := m.c
	r := &record{frame: bytes.Clone(frame), last: last}
	for {
		c.mu.Lock()
		full := c.unanswered > 0 && c.unanswered+len(frame) > maxUnanswered || c.records >= maxRequests/2
		if m.err != nil || !full {
			defer c.mu.Unlock()
			return m.append(r)
		}
		room := c.room
		c.mu.Unlock()
		select {
		case <-room:
		case <-m.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// append is Append when there is room; Client.mu is held.
func (m *Mirror) append(r *record) error {
	if m.err != nil {
		return m.err
	}
	r.since = m.c.o.Clock.Now()
	r.begun = r.since
	m.c.unanswered += len(r.frame)
	m.bytes += int64(len(r.frame))
	m.c.records++
	m.left = append(m.left, r)
	if m.on.Load() != nil {
		m.c.send(&call{typ: typeAppend, req: m.request(r.last), body: r.frame, m: m})
	}
	return nil
}

// Durable returns up to which seq the peer holds the log, and the error that ended the
// mirror: the peer is lost, or refuses; then nothing is appended any more.
func (m *Mirror) Durable() (uint64, error) {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	return m.durable, m.err
}

// Unanswered returns how many bytes of records the peer has not answered.
func (m *Mirror) Unanswered() int64 {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	return m.bytes
}

// Lag returns what Unanswered does, and how long the oldest of those records waits; 0: none
// does.
func (m *Mirror) Lag() (bytes int64, age time.Duration) {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	if len(m.left) > 0 {
		age = m.c.o.Clock.Now().Sub(m.left[0].begun)
	}
	return m.bytes, age
}

// CountLatency has the times from Append to the answer counted in l.
func (m *Mirror) CountLatency(l *Latency) {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	m.latency = l
}

// Changed returns a channel that is closed when the peer has begun the copy or holds more
// than at the time of the call.
func (m *Mirror) Changed() <-chan struct{} {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	return m.changed
}

// Await returns when the peer has begun the copy and holds all up to seq; the error of ctx
// or of the mirror before.
func (m *Mirror) Await(ctx context.Context, seq uint64) error {
	for {
		m.c.mu.Lock()
		changed, err, there := m.changed, m.err, m.gen != 0 && m.durable >= seq
		m.c.mu.Unlock()
		if err != nil || there {
			return err
		}
		select {
		case <-changed:
		case <-m.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Done is closed when the mirror ended; Durable says why.
func (m *Mirror) Done() <-chan struct{} { return m.done }

// Granted reports whether the peer's grant covers this vDisk at a time, which is not
// before the newest request (D4). It takes no lock.
func (m *Mirror) Granted(now time.Time) bool {
	l := m.on.Load()
	return l != nil && now.Before(*l.granted.Load())
}

// Release tells the peer that all up to seq is on the backend.
func (m *Mirror) Release(seq uint64) {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	if m.err != nil || seq <= m.released {
		return
	}
	m.released = seq
	if m.on.Load() != nil {
		m.c.send(&call{typ: typeRelease, req: m.request(seq), m: m})
	}
}

// Close ends the mirror; the peer keeps the copy.
func (m *Mirror) Close() {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	m.fail(ErrClosed)
}

// Drop is Close, and the peer forgets the copy, which the registry must not name any more.
// An error means that it may keep it until another one begins.
func (m *Mirror) Drop(ctx context.Context) error { return m.leave(ctx, typeDrop) }

// Yield is Close for who serves nobody any more from this opening of the vDisk: the peer
// may take it over at once. An error means that it has to wait for the end of the grant.
func (m *Mirror) Yield(ctx context.Context) error { return m.leave(ctx, typeYield) }

func (m *Mirror) leave(ctx context.Context, typ uint16) error {
	m.c.mu.Lock()
	dead := m.err != nil || m.gen == 0
	m.fail(ErrClosed)
	m.c.mu.Unlock()
	if dead {
		return nil
	}
	a, err := m.c.call(ctx, &call{typ: typ, req: m.request(0), reply: make(chan answer, 1)})
	if err == nil {
		err = a.err()
	}
	return err
}
