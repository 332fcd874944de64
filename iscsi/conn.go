package iscsi

import (
	"errors"
	"hash/crc32"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// conn is one TCP connection: a session of its own, normal or discovery.
type conn struct {
	srv           *Server
	nc            net.Conn
	sock          socket
	remote, local string
	since         time.Time
	loggedIn      atomic.Bool // set under Server.mu
	displaced     bool        // Server.mu; another login has its place
	replacing     atomic.Bool // its login waits for the session which it replaces

	// The reader's. neg and sess are set before the writer starts.
	neg     Negotiated
	sess    *session // nil in a discovery session
	name    string   // initiator, normalized
	wanted  string   // target that the login asked for, as it was written
	cid     uint16
	hdr     bhs
	ahs     []byte // additional header segments of hdr
	nextTTT uint32
	text    []byte // C-bit continuation of a text request
	// textRest is what did not fit into a text response.
	textRest []byte
	maxSend  atomic.Uint32 // MaxRecvDataSegmentLength of the initiator
	now      time.Time     // when the last bytes came
	seen     atomic.Uint64 // PDUs that began
	data     atomic.Uint64 // data that commands wait for and that came, or that they began to wait for
	// awake: the reader is at work, and will send what is answered before it waits.
	awake atomic.Bool

	expCmdSN, maxCmdSN atomic.Uint32

	// The sender's, once the login is over: whoever has set sending.
	statSN     uint32
	outHdr     bhs
	outSense   [2 + maxSenseLen]byte
	writerDone chan struct{}

	// The watchdog's.
	silent, unread, unsentData stall
	pinged                     bool
	// mute is how long the peer has sent nothing, while a ping has had no answer for a
	// second or longer; else 0 (ns).
	mute atomic.Int64

	mu          sync.Mutex
	writerWake  sync.Cond
	idleWake    sync.Cond // tasks became empty
	tasks       map[uint32]*task
	outq        []outItem
	sending     bool              // somebody sends
	stalled     *batch            // for the writer to go on with; sending is set
	unsent      int               // queued or being written
	unsentBytes int               // data of replies among them
	managing    int               // task management functions not yet answered
	immediates  int               // immediate commands not yet answered
	held        int64             // bytes of data buffers
	borrowed    int64             // of them, from the server's shared budget
	sets        map[*lun]*taskSet // of units with ORDERED or HEAD OF QUEUE tasks
	ready       []*task           // held tasks whose turn has come
	releasing   bool              // somebody runs them
	closed      atomic.Bool       // set under mu
	draining    atomic.Bool       // set under mu
	dropBy      time.Time         // when the connection is closed in any case, if not zero
	down        chan struct{}     // closed with the connection

	served *ServedNexus // the session is on another node: there is no socket
}

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{
		srv: s, nc: nc, since: s.clk.Now(),
		neg: defaultNegotiated(), writerDone: make(chan struct{}), down: make(chan struct{}), tasks: map[uint32]*task{},
		remote: addr(nc.RemoteAddr()), local: addr(nc.LocalAddr()),
	}
	c.sock.init(nc, &s.readBufs)
	c.writerWake.L, c.idleWake.L = &c.mu, &c.mu
	if tc, ok := nc.(*net.TCPConn); ok {
		_ = tc.SetNoDelay(true) // replies are batched here; an error shows at the first read
	}
	return c
}

func addr(a net.Addr) string {
	if a == nil {
		return ""
	}
	return a.String()
}

func isTemporary(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ECONNABORTED)
}

// run serves the connection until it ends, and returns when nothing of it is left.
func (c *conn) run() {
	err := c.login()
	if err != nil {
		c.loginFailed(err)
		c.close()
		return
	}
	c.srv.stats.logins.Add(1)
	if c.sess != nil {
		c.sess.logged("session opened")
	}
	go c.writeLoop()
	err = c.readLoop()
	c.sendInline() // from here on the writer sends
	c.hangUp(err)
	<-c.writerDone
	c.finishTasks()
	if c.sess != nil {
		c.srv.endSession(c.sess)
		c.sess.logged("session closed", "reason", err)
	} else {
		c.srv.endDiscovery()
	}
}

var (
	errLogout   = errors.New("logout")
	errProtocol = errors.New("iscsi: protocol error")
	errDigest   = errors.New("iscsi: digest error")
)

// hangUp ends the connection; after a logout or a Reject the writer first sends
// what is queued and closes by itself.
func (c *conn) hangUp(err error) {
	if errors.Is(err, errLogout) || errors.Is(err, errProtocol) || errors.Is(err, errDigest) {
		<-c.writerDone
	}
	c.close()
}

// close breaks the connection at once. Tasks still inside the Disk complete
// unanswered. It may be called from anywhere, any number of times.
func (c *conn) close() {
	c.mu.Lock()
	if c.closed.Load() {
		c.mu.Unlock()
		return
	}
	c.closed.Store(true)
	close(c.down)
	c.writerWake.Broadcast()
	c.idleWake.Broadcast()
	c.mu.Unlock()
	if c.nc != nil {
		_ = c.nc.Close()
	}
}

// broken is closed with the connection.
func (c *conn) broken() <-chan struct{} { return c.down }

// dropSoon closes the connection once what is queued has left.
func (c *conn) dropSoon() { c.send(c.notice(asyncDropConnection, waitToReturn)) }

// finishTasks drops the tasks that wait for data and waits until the Disk has
// completed the others (I4).
func (c *conn) finishTasks() {
	c.mu.Lock()
	var waiting []*task
	for itt, t := range c.tasks {
		if !t.running {
			delete(c.tasks, itt)
		} else if t.withdraw() {
			waiting = append(waiting, t)
		} else {
			t.recall()
		}
	}
	c.mu.Unlock()
	for _, t := range waiting {
		t.abortOp()
	}
	c.mu.Lock()
	for len(c.tasks) > 0 {
		c.idleWake.Wait()
	}
	c.outq = nil
	c.srv.budget.giveBack(c.borrowed) // what was not sent leaves with the connection
	c.borrowed = 0
	c.mu.Unlock()
}

func (c *conn) outstanding() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.tasks)
}

// stopped tells whether a task must submit nothing more.
func (c *conn) stopped(t *task) bool { return c.closed.Load() || t.aborted.Load() || t.late() }

// Answers that wait because the peer does not read them (I5): beyond these it is
// disconnected.
const (
	maxUnsent      = 2 * maxQueueDepth // every command of a window, and as much else
	maxUnsentBytes = 8 << 20           // ping data and text
)

// send queues a reply for the writer.
func (c *conn) send(r *reply) {
	c.mu.Lock()
	full := !c.queue(r)
	c.mu.Unlock()
	if full {
		c.close()
	}
}

// queue is send with mu held; false means that the caller has to close.
func (c *conn) queue(r *reply) bool {
	if c.served != nil { // its own node says such things to the initiator
		return !r.last
	}
	if c.unsent >= maxUnsent || c.unsentBytes+len(r.data) > maxUnsentBytes {
		return false
	}
	c.unsentBytes += len(r.data)
	c.enqueue(outItem{r: r})
	return true
}

// enqueue adds to the writer's queue; mu is held.
func (c *conn) enqueue(it outItem) {
	if c.closed.Load() {
		return
	}
	if c.served != nil {
		c.served.answered(it.t)
		return
	}
	c.outq = append(c.outq, it)
	c.unsent++
	if len(c.outq) == 1 && !c.sending && !c.awake.Load() {
		c.writerWake.Signal()
	}
}

// answer ends a task: it is queued for the writer, or dropped when it was
// aborted or the connection is gone; task management that waits for it goes on.
func (c *conn) answer(t *task) {
	c.mu.Lock()
	if c.tasks[t.itt] == t {
		delete(c.tasks, t.itt)
	}
	c.leave(t)
	ready := len(c.ready) > 0
	waiters := t.waiters
	drop := t.aborted.Load() || c.closed.Load()
	if drop {
		c.discharge(t)
		if !t.immediate && !c.closed.Load() {
			c.maxCmdSN.Add(1)
		}
		if c.served != nil {
			c.served.ended(t)
		}
	} else {
		c.enqueue(outItem{t: t})
	}
	if len(c.tasks) == 0 {
		c.idleWake.Broadcast()
		if drop && c.draining.Load() && c.idle() {
			defer c.close()
		}
	}
	c.mu.Unlock()
	for _, w := range waiters {
		w.done()
	}
	if drop {
		t.release()
	}
	if ready {
		c.runReady()
	}
}

// idle tells whether nothing is running and nothing waits to be sent; mu is held.
func (c *conn) idle() bool { return len(c.tasks) == 0 && c.unsent == 0 }

// drain asks the initiator to log out and closes the connection as soon as it
// has nothing in flight. A connection still in login is closed at once.
func (c *conn) drain() {
	if c.served != nil {
		c.served.drain()
		return
	}
	if !c.loggedIn.Load() {
		c.close()
		return
	}
	r := c.notice(asyncLogout, 0)
	c.mu.Lock()
	c.draining.Store(true) // the flush of r finds the connection idle, or the last task's does
	full := !c.queue(r)
	c.mu.Unlock()
	if full {
		c.close()
	}
}

// fill reads until n bytes are buffered; n is at most readBuffer.
func (c *conn) fill(n int) error {
	for c.sock.buffered() < n {
		if _, err := c.more(n, nil); err != nil {
			return err
		}
	}
	return nil
}

// more waits for the peer. What was answered is sent before.
func (c *conn) more(n int, direct []byte) (int, error) {
	c.sendInline()
	k, err := c.sock.more(n, direct)
	c.now = c.srv.clk.Now()
	c.awake.Store(true)
	return k, err
}

// readFull fills p. A long rest of it is read past the buffer.
func (c *conn) readFull(p []byte) error {
	for {
		k := min(c.sock.buffered(), len(p))
		if k > 0 {
			copy(p, c.sock.take(k))
			p = p[k:]
		}
		if len(p) == 0 {
			return nil
		}
		if len(p) < directRead {
			if err := c.fill(len(p)); err != nil {
				return err
			}
			continue
		}
		k, err := c.more(0, p)
		if err != nil {
			return err
		}
		p = p[k:]
	}
}

// skip drops n bytes and returns crc updated with them, if there are digests.
func (c *conn) skip(n int, crc uint32) (uint32, error) {
	for n > 0 {
		if err := c.fill(1); err != nil {
			return 0, err
		}
		b := c.sock.take(min(n, c.sock.buffered()))
		n -= len(b)
		if c.neg.DataDigest {
			crc = crc32.Update(crc, castagnoli, b)
		}
	}
	return crc, nil
}

// readHeader reads a basic header segment and the additional ones, and checks the
// header digest.
func (c *conn) readHeader() error {
	if err := c.fill(bhsLen); err != nil {
		return err
	}
	copy(c.hdr[:], c.sock.take(bhsLen))
	c.seen.Add(1)
	c.ahs = c.ahs[:0]
	if n := c.hdr.ahsLen(); n > 0 {
		if c.ahs == nil {
			c.ahs = make([]byte, 0, maxAHS)
		}
		c.ahs = c.ahs[:n]
		if err := c.readFull(c.ahs); err != nil {
			return err
		}
	}
	if !c.neg.HeaderDigest {
		return nil
	}
	got, err := c.readDigest()
	if err != nil {
		return err
	}
	if got != crc32.Update(crc32.Checksum(c.hdr[:], castagnoli), castagnoli, c.ahs) {
		c.srv.stats.digestErrors.Add(1)
		return io.ErrUnexpectedEOF // nothing in the header can be trusted: drop the connection
	}
	return nil
}

func (c *conn) readDigest() (uint32, error) {
	if err := c.fill(4); err != nil {
		return 0, err
	}
	return getDigest(c.sock.take(4)), nil
}

// readData reads a data segment of n bytes: the first len(dst) into dst, the
// rest is dropped (I5). It checks the data digest.
func (c *conn) readData(dst []byte, n int) error {
	if n == 0 {
		return nil
	}
	dst = dst[:min(len(dst), n)]
	if err := c.readFull(dst); err != nil {
		return err
	}
	crc := uint32(0)
	if c.neg.DataDigest {
		crc = crc32.Checksum(dst, castagnoli)
	}
	crc, err := c.skip(n-len(dst)+pad(n), crc)
	if err != nil || !c.neg.DataDigest {
		return err
	}
	got, err := c.readDigest()
	if err != nil {
		return err
	}
	if got != crc {
		c.srv.stats.digestErrors.Add(1)
		c.reject(rejectDigest, true)
		return errDigest
	}
	return nil
}

// reject answers the PDU in c.hdr with Reject; last closes the connection after it.
func (c *conn) reject(reason byte, last bool) {
	c.srv.stats.rejects.Add(1)
	r := c.srv.reps.Get().(*reply)
	*r = reply{advance: true, last: last}
	r.hdr[0], r.hdr[1], r.hdr[2] = opReject, finalBit, reason
	be.PutUint32(r.hdr[16:], noTag)
	r.data = append([]byte(nil), c.hdr[:]...)
	c.send(r)
}

// violation rejects the PDU and ends the connection.
func (c *conn) violation() error {
	c.reject(rejectProtocol, true)
	return errProtocol
}
