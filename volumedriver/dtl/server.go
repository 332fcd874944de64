package dtl

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/wire"
	"github.com/openvstorage/ovgate/volumedriver/journal"
)

const (
	lbaBytes   = 512
	maxCluster = 64 << 10

	defaultMaxBytes = 8 << 30
	// defaultMaxVDisk is the largest journal quota: a copy is never longer than the log.
	defaultMaxVDisk = 10 << 30
	// maxCopies bounds the vDisks of a server; each costs some hundred bytes when idle.
	maxCopies = 64 << 10
	// maxSessions bounds the connections, of which each node has one.
	maxSessions = 1024
	// helloTime bounds the hello, and silence after it: a client pings four times a second.
	helloTime = 10 * time.Second
)

// ErrClosed: the server or client was closed.
var ErrClosed = errors.New("dtl: closed")

// ServerOptions configure a Server. FS, Dir, Pool, Clock, Rand, Cluster and Node must be set.
type ServerOptions struct {
	Cluster string // id of the cluster; other clusters' nodes are refused
	Node    string // id of this node
	FS      blockfs.FS
	Dir     string // of the states of the copies, in FS
	// Pool has the chunks: that of a WRITE disk, so that a failover finds them where the
	// journal of the vDisk goes on. It stays open longer than the server.
	Pool  *journal.Pool
	Clock clock.Clock
	Rand  io.Reader
	Log   *slog.Logger // nil: discard
	// Gone tells whether a node may serve nothing now, and needs the registry's word to serve
	// again. It returns soon after ctx ends. nil: that is not known of any.
	Gone func(ctx context.Context, node string) bool
	// Volatile: FS and Pool are memory, and what is adopted is copied before it counts.
	Volatile bool
	// MaxBytes bounds the chunks of all copies (8 GiB), MaxVDiskBytes those of one (10 GiB).
	MaxBytes, MaxVDiskBytes int64
}

// Server keeps copies for other nodes. Safe for concurrent use.
type Server struct {
	o       ServerOptions
	started time.Time
	wg      sync.WaitGroup
	done    chan struct{}

	mu       sync.Mutex
	closed   bool
	copies   map[[16]byte]*copyOf
	sessions map[*session]struct{}
	grants   map[string]time.Time // by node: when the newest grant was given
	refused  map[string]time.Time // by node: until when it gets none, since it is being taken over from
	bytes    int64                // of chunks
}

// NewServer reads the copies that were kept before.
func NewServer(o ServerOptions) (*Server, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = defaultMaxBytes
	}
	if o.MaxVDiskBytes == 0 {
		o.MaxVDiskBytes = defaultMaxVDisk
	}
	s := &Server{o: o, started: o.Clock.Now(), done: make(chan struct{}), copies: map[[16]byte]*copyOf{},
		sessions: map[*session]struct{}{}, grants: map[string]time.Time{}, refused: map[string]time.Time{}}
	if err := o.FS.MkdirAll(o.Dir); err != nil {
		return nil, fmt.Errorf("dtl: %w", err)
	}
	names, err := o.FS.ListNames(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("dtl: %w", err)
	}
	for _, e := range names {
		var id [16]byte
		if n, err := hex.Decode(id[:], []byte(e.Name[:min(len(e.Name), 32)])); err != nil || n != 16 || len(e.Name) != 32 {
			continue
		}
		c := &copyOf{s: s, vdisk: id, used: s.started}
		if err := c.load(); err != nil {
			return nil, errors.Join(err, s.Close())
		}
		s.copies[id] = c
	}
	return s, nil
}

// Close ends the sessions. The copies stay.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.done)
	for ss := range s.sessions {
		ss.end()
	}
	s.mu.Unlock()
	s.wg.Wait()
	for _, c := range s.copies {
		c.mu.Lock()
		c.promiseLater() // takes a pending one back
		c.closeLog()
		c.mu.Unlock()
	}
	return nil
}

func (s *Server) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// Adopted is a copy that this node took over.
type Adopted struct {
	Node       string // whose vDisk it was
	Epoch      uint32
	Generation uint64
	Pool       string // journal pool that has the records
}

// Adopt takes a vDisk over: it waits until the grant of the node before is over (D4), and
// from then on refuses that node. The records are left to the pool, for Recover of package
// journal. Call Discard when the head of the new opening is committed. ErrGeneration if
// the copy is not the one that the registry names. A node that goes on asking keeps its
// grant, also for vDisks that it closed without a drop or yield: then only ctx ends the wait.
// One that is gone by ServerOptions.Gone gets none while this waits, and some time longer.
func (s *Server) Adopt(ctx context.Context, vdisk [16]byte, generation uint64) (Adopted, error) {
	s.mu.Lock()
	c := s.copies[vdisk]
	s.mu.Unlock()
	if c == nil {
		return Adopted{}, fmt.Errorf("%w: vdisk %x", ErrGeneration, vdisk)
	}
	for {
		a, wait, err := c.adopt(generation)
		if err != nil || wait <= 0 {
			return a, err
		}
		if s.o.Gone != nil && s.o.Gone(ctx, a.Node) {
			s.refuse(a.Node)
		}
		t := s.o.Clock.NewTimer(wait)
		select {
		case <-t.C():
		case <-ctx.Done():
			t.Stop()
			return Adopted{}, fmt.Errorf("%w: vdisk %x: %w", ErrGranted, vdisk, ctx.Err())
		case <-s.done:
			t.Stop()
			return Adopted{}, ErrClosed
		}
	}
}

func (c *copyOf) adopt(generation uint64) (Adopted, time.Duration, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.state
	if st.Generation == 0 || st.Generation != generation {
		return Adopted{}, 0, fmt.Errorf("%w: vdisk %x, generation %x", ErrGeneration, c.vdisk, generation)
	}
	if !st.Adopted {
		if wait := c.fence(); wait > 0 {
			return Adopted{Node: st.Node}, wait, nil
		}
		st.Adopted = true
		if err := c.save(st); err != nil {
			return Adopted{}, 0, err
		}
		c.state = st
		c.closeLog()
	}
	return Adopted{Node: st.Node, Epoch: st.Epoch, Generation: st.Generation, Pool: st.Pool}, 0, nil
}

// Has reports whether there is a copy of a vDisk, adopted or not.
func (s *Server) Has(vdisk [16]byte) bool {
	s.mu.Lock()
	c := s.copies[vdisk]
	s.mu.Unlock()
	if c == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.Generation != 0
}

// Used returns when a copy was last asked for something by its node, or since when it is
// known here; zero: there is none.
func (s *Server) Used(vdisk [16]byte) time.Time {
	s.mu.Lock()
	c := s.copies[vdisk]
	s.mu.Unlock()
	if c == nil {
		return time.Time{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state.Generation == 0 {
		return time.Time{}
	}
	return c.used
}

// Discard forgets a copy of a vDisk that this node owns, by what the registry says. The
// records of one that was adopted are the journal's: call it when a head covers them.
func (s *Server) Discard(vdisk [16]byte) error { return s.discard(vdisk, false) }

// GiveUp forgets a copy that was adopted of a vDisk that another node owns all the same, by
// what the registry says: that node may begin another one.
func (s *Server) GiveUp(vdisk [16]byte) error { return s.discard(vdisk, true) }

func (s *Server) discard(vdisk [16]byte, adopted bool) error {
	s.mu.Lock()
	c := s.copies[vdisk]
	s.mu.Unlock()
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state.Generation == 0 || adopted && !c.state.Adopted {
		return nil
	}
	return c.forget()
}

// fence ends what a node may do here (D4); a time to wait first if its grant is not over.
func (s *Server) fence(node string) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	given, ok := s.grants[node]
	if !ok {
		given = s.started
	}
	if wait := hold - s.o.Clock.Now().Sub(given); wait > 0 {
		return wait
	}
	for ss := range s.sessions {
		if ss.node == node {
			ss.end()
		}
	}
	return 0
}

// refuse gives a node no grants until others had time to take over what they want from it.
func (s *Server) refuse(node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.o.Clock.Now()
	maps.DeleteFunc(s.refused, func(_ string, until time.Time) bool { return !now.Before(until) })
	s.refused[node] = now.Add(2 * hold)
	for ss := range s.sessions {
		if ss.node == node {
			ss.end()
		}
	}
}

// refuses tells whether a node gets no grants; Server.mu is held.
func (s *Server) refuses(node string) bool { return s.o.Clock.Now().Before(s.refused[node]) }

// reserve counts chunks in, if there is room for them.
func (s *Server) reserve(n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bytes+n > s.o.MaxBytes {
		return false
	}
	s.bytes += n
	return true
}

func (s *Server) unreserve(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes -= n
}

// session is a connection of a node. Its fields without a comment are set before it is
// shared.
type session struct {
	s         *Server
	raw       net.Conn
	conn      *wire.Conn
	node      string
	certified string        // who it must be; "": whoever it says
	ready     chan struct{} // capacity 1: there are answers

	// Guarded by Server.mu.
	dead    bool
	heard   time.Time
	out     []answer
	queued  int // bytes of records that were not answered
	waiting int // requests that were not answered
}

// Serve talks to a client until the connection breaks or the server ends; it closes raw.
// TLS, if any, is below raw; node is the id of the client by its certificate, "" without one.
func (s *Server) Serve(raw net.Conn, node string) error {
	ss := &session{s: s, raw: raw, certified: node, conn: newConn(raw), ready: make(chan struct{}, 1)}
	defer raw.Close()
	s.mu.Lock()
	if s.closed || len(s.sessions) >= maxSessions {
		s.mu.Unlock()
		return fmt.Errorf("%w, or more than %d sessions", ErrClosed, maxSessions)
	}
	ss.heard = s.o.Clock.Now()
	s.sessions[ss] = struct{}{}
	s.wg.Add(1)
	s.mu.Unlock()
	defer s.wg.Done()
	over := make(chan struct{})
	var helpers sync.WaitGroup
	helpers.Go(func() { ss.watch(over) })
	err := ss.hello()
	if err == nil {
		helpers.Go(func() { ss.write(over) })
		for err == nil {
			err = ss.next()
		}
	}
	s.mu.Lock()
	ss.end()
	delete(s.sessions, ss)
	s.mu.Unlock()
	close(over)
	helpers.Wait()
	return err
}

// end closes the connection, and no answer is given any more; Server.mu is held.
func (ss *session) end() {
	ss.dead = true
	ss.raw.Close()
}

// watch ends a session that is silent.
func (ss *session) watch(over <-chan struct{}) {
	t := ss.s.o.Clock.NewTimer(helloTime)
	defer t.Stop()
	for {
		select {
		case <-over:
			return
		case <-t.C():
		}
		ss.s.mu.Lock()
		left := helloTime - ss.s.o.Clock.Now().Sub(ss.heard)
		if left <= 0 {
			ss.end()
		}
		ss.s.mu.Unlock()
		t.Reset(max(left, promiseDelay))
	}
}

// hello learns who the client is.
func (ss *session) hello() error {
	head, meta, err := receive(ss.conn)
	if err != nil {
		return err
	}
	var h hello
	if err := h.decode(meta); err != nil {
		return err
	}
	o := &ss.s.o
	var refuse error
	switch {
	case head.Type != typeHello:
		refuse = fmt.Errorf("%w: type %d before the hello", ErrRefused, head.Type)
	case h.cluster != o.Cluster:
		refuse = fmt.Errorf("%w: this node is of another cluster", ErrRefused)
	case h.peer != o.Node:
		refuse = fmt.Errorf("%w: this is node %s, not %s", ErrRefused, o.Node, h.peer)
	case ss.certified != "" && h.node != ss.certified:
		refuse = fmt.Errorf("%w: node %q by its certificate calls itself %q", ErrRefused, ss.certified, h.node)
	case h.node == o.Node || h.node == "":
		refuse = fmt.Errorf("%w: a node mirrors to another one, not to itself (%q)", ErrRefused, h.node)
	}
	var a answer
	if refuse != nil {
		a = failed(0, refuse)
	}
	var e wire.Encoder
	a.encode(&e)
	if err := ss.conn.Send(typeAnswer, 0, e.B); err != nil || refuse != nil {
		return errors.Join(refuse, err)
	}
	ss.s.mu.Lock()
	defer ss.s.mu.Unlock()
	if ss.s.refuses(h.node) {
		return fmt.Errorf("%w: vdisks of node %s are being taken over", ErrGranted, h.node)
	}
	ss.node = h.node
	ss.conn.SetLimits(wire.Limits{Meta: maxMeta, Body: journal.MaxRecordBytes})
	return nil
}

// next reads one request and gives it to its copy.
func (ss *session) next() error {
	head, meta, err := receive(ss.conn)
	if err != nil {
		return err
	}
	w := &work{ss: ss, typ: head.Type}
	if err := w.req.decode(meta); err != nil {
		return err
	}
	if head.Type < typeOpen || head.Type > typeYield || (head.Type == typeAppend) != (head.Body > 0) {
		return fmt.Errorf("%w: type %d with a body of %d bytes", ErrRefused, head.Type, head.Body)
	}
	if err := ss.admit(head.Body); err != nil {
		return err
	}
	if head.Body > 0 {
		w.body = blockfs.AlignedBuffer(head.Body)
		if err := ss.conn.Body(w.body); err != nil {
			return err
		}
	}
	if head.Type == typePing {
		ss.answer(answer{id: w.req.id}, 0)
		return nil
	}
	c, err := ss.s.copyFor(w.req.vdisk, head.Type == typeOpen)
	if err != nil {
		ss.answer(failed(w.req.id, err), head.Body)
		return nil
	}
	c.enqueue(w)
	return nil
}

// admit counts a request in; an error if the client has more under way than it may.
func (ss *session) admit(body int) error {
	s := ss.s
	s.mu.Lock()
	defer s.mu.Unlock()
	ss.heard = s.o.Clock.Now()
	ss.queued += body
	ss.waiting++
	if ss.queued > maxQueued || ss.waiting > maxRequests {
		return fmt.Errorf("%w: %d bytes in %d requests not answered, at most %d and %d", ErrRefused, ss.queued, ss.waiting, maxQueued, maxRequests)
	}
	return nil
}

// copyFor returns the place of a vDisk's copy.
func (s *Server) copyFor(vdisk [16]byte, make bool) (*copyOf, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.copies[vdisk]
	switch {
	case c != nil:
		return c, nil
	case !make:
		return nil, fmt.Errorf("%w: vdisk %x", ErrGeneration, vdisk)
	case len(s.copies) >= maxCopies:
		return nil, fmt.Errorf("%w: %d vdisks", ErrFull, maxCopies)
	}
	c = &copyOf{s: s, vdisk: vdisk}
	s.copies[vdisk] = c
	return c, nil
}

// answer gives a grant with every answer (D4); none on a session that ended.
func (ss *session) answer(a answer, body int) {
	s := ss.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if ss.dead {
		return
	}
	now := s.o.Clock.Now()
	if _, ok := s.grants[ss.node]; !ok && len(s.grants) >= maxSessions && now.Sub(s.started) > hold {
		maps.DeleteFunc(s.grants, func(_ string, given time.Time) bool { return now.Sub(given) > hold })
	}
	s.grants[ss.node] = now
	ss.queued -= body
	ss.waiting--
	ss.out = append(ss.out, a)
	select {
	case ss.ready <- struct{}{}:
	default:
	}
}

// write sends the answers.
func (ss *session) write(over <-chan struct{}) {
	var e wire.Encoder
	for {
		select {
		case <-over:
			return
		case <-ss.ready:
		}
		ss.s.mu.Lock()
		out := ss.out
		ss.out = nil
		ss.s.mu.Unlock()
		for i := range out {
			e.B = e.B[:0]
			out[i].encode(&e)
			if ss.conn.Send(typeAnswer, 0, e.B) != nil {
				ss.raw.Close()
				return
			}
		}
	}
}
