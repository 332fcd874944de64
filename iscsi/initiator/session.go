package initiator

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Session is a logged-in session. Its methods are safe for concurrent use.
type Session struct {
	c    net.Conn
	br   *bufio.Reader
	neg  Negotiated
	keys map[string]string
	tsih uint16
	isid [6]byte

	statSN atomic.Uint32 // next expected
	maxSN  atomic.Uint32

	mu      sync.Mutex
	wake    sync.Cond
	cmdSN   uint32
	nextITT uint32
	pending map[uint32]*Command
	sendq   []*Command
	ctrlq   []ctrl
	waits   map[uint32]chan answer
	err     error // why it ended
	asked   bool  // the target asked for a logout
	rejects int
	down    chan struct{}
	loops   sync.WaitGroup
}

// ctrl is a PDU other than a command that waits for the writer, or a piece of
// data that the target asked for.
type ctrl struct {
	h    [bhsLen]byte
	data []byte
	cmd  *Command // data of this command, h is ready but for the segment
	sn   bool     // takes a CmdSN
}

// answer is the answer to something other than a SCSI command.
type answer struct {
	h    [bhsLen]byte
	data []byte
}

// Dial connects and logs in; ctx bounds that, not the session.
func Dial(ctx context.Context, o Options) (*Session, error) {
	l, err := connect(ctx, o, false)
	if err != nil {
		return nil, err
	}
	return newSession(l), nil
}

func newSession(l *loginState) *Session {
	s := &Session{
		c: l.c, br: bufio.NewReaderSize(l.c, 64<<10), neg: l.neg, keys: l.keys, tsih: l.tsih, isid: l.o.ISID,
		cmdSN: l.sn, nextITT: 1, pending: map[uint32]*Command{}, waits: map[uint32]chan answer{},
		down: make(chan struct{}),
	}
	if tc, ok := l.c.(*net.TCPConn); ok {
		_ = tc.SetNoDelay(true) // batching is done here
	}
	s.wake.L = &s.mu
	s.statSN.Store(l.statSN)
	s.maxSN.Store(l.maxSN)
	s.loops.Add(2)
	go s.writeLoop()
	go s.readLoop()
	return s
}

// Negotiated returns the session's values.
func (s *Session) Negotiated() Negotiated { return s.neg }

// Keys returns what the target answered in the operational stage.
func (s *Session) Keys() map[string]string { return s.keys }

// TSIH returns the target's session handle.
func (s *Session) TSIH() uint16 { return s.tsih }

// ISID returns the initiator session identifier in use.
func (s *Session) ISID() [6]byte { return s.isid }

// Done is closed when the session has ended.
func (s *Session) Done() <-chan struct{} { return s.down }

// Err returns why the session ended, or nil.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// LogoutRequested tells whether the target asked for a logout.
func (s *Session) LogoutRequested() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// Rejects returns how many Reject PDUs arrived.
func (s *Session) Rejects() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rejects
}

// Close breaks the connection without a logout and waits for the session's
// goroutines; commands in flight complete with ErrClosed. It must not be called
// from a Done function.
func (s *Session) Close() {
	s.end(ErrClosed)
	s.loops.Wait()
}

// end ends the session once; later errors are consequences.
func (s *Session) end(err error) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err = err
	s.wake.Broadcast()
	s.mu.Unlock()
	_ = s.c.Close()
	close(s.down)
}

// failAll completes what is in flight with the session's error (N1). Only the
// reader calls it, when it ends.
func (s *Session) failAll() {
	s.mu.Lock()
	err := s.err
	var list []*Command
	for _, c := range s.pending {
		list = append(list, c)
	}
	clear(s.pending)
	s.mu.Unlock()
	for _, c := range list {
		c.Err = err
		c.Done(c)
	}
}

// Submit queues a command. It fails only when the session has ended.
func (s *Session) Submit(c *Command) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	c.itt = s.tag()
	c.Err, c.Status, c.Sense, c.Received, c.Residual, c.sent = nil, 0, Sense{}, 0, 0, 0
	s.pending[c.itt] = c
	s.sendq = append(s.sendq, c)
	s.wake.Signal()
	return nil
}

// tag returns an unused initiator task tag; mu is held.
func (s *Session) tag() uint32 {
	for {
		t := s.nextITT
		s.nextITT++
		if _, used := s.pending[t]; t != noTag && !used {
			return t
		}
	}
}

// Do runs a command and waits for it. When ctx ends first, the session is
// closed: a command cannot be taken back otherwise.
func (s *Session) Do(ctx context.Context, c *Command) error {
	if c.wait == nil {
		c.wait = make(chan struct{}, 1)
	}
	c.Done = signal
	if err := s.Submit(c); err != nil {
		return err
	}
	select {
	case <-c.wait:
		return c.Err
	case <-ctx.Done():
		s.end(ctx.Err())
		<-c.wait
		return ctx.Err()
	}
}

func signal(c *Command) { c.wait <- struct{}{} }

// ask sends a PDU and waits for its answer.
func (s *Session) ask(ctx context.Context, h [bhsLen]byte, data []byte) (answer, error) {
	ch := make(chan answer, 1)
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return answer{}, s.err
	}
	itt := s.tag()
	be.PutUint32(h[16:], itt)
	s.waits[itt] = ch
	s.ctrlq = append(s.ctrlq, ctrl{h: h, data: data, sn: h[0]&0x40 == 0})
	s.wake.Signal()
	s.mu.Unlock()
	select {
	case a := <-ch:
		return a, nil
	case <-s.down:
		select {
		case a := <-ch: // it came before the end
			return a, nil
		default:
			return answer{}, s.Err()
		}
	case <-ctx.Done():
		s.mu.Lock()
		delete(s.waits, itt)
		s.mu.Unlock()
		return answer{}, ctx.Err()
	}
}

// Text sends a text request and collects the answer over as many PDUs as it takes.
func (s *Session) Text(ctx context.Context, text string) (string, error) {
	var h [bhsLen]byte
	h[0], h[1] = 0x04, finalBit
	be.PutUint32(h[20:], noTag)
	var out []byte
	data := []byte(text)
	for {
		a, err := s.ask(ctx, h, data)
		if err != nil {
			return "", err
		}
		if a.h[0] != 0x24 {
			return "", fmt.Errorf("initiator: text request answered by PDU %#02x", a.h[0])
		}
		out = append(out, a.data...)
		if a.h[1]&0x40 == 0 {
			return string(out), nil
		}
		copy(h[20:24], a.h[20:24])
		data = nil
	}
}

// Ping sends a NOP-Out with data and returns what came back.
func (s *Session) Ping(ctx context.Context, data []byte) ([]byte, error) {
	var h [bhsLen]byte
	h[0], h[1] = 0x40, finalBit
	be.PutUint32(h[20:], noTag)
	a, err := s.ask(ctx, h, data)
	return a.data, err
}

// Logout ends the session in order.
func (s *Session) Logout(ctx context.Context) error {
	var h [bhsLen]byte
	h[0], h[1] = 0x06, finalBit
	_, err := s.ask(ctx, h, nil)
	s.Close()
	return err
}

// Task management functions.
const (
	AbortTask        = 1
	AbortTaskSet     = 2
	ClearTaskSet     = 4
	LogicalUnitReset = 5
	TargetWarmReset  = 6
	TargetColdReset  = 7
)

// TaskManagement runs a function and returns its response code; ref is the
// command of AbortTask. Aborted commands stay in flight: Forget them.
func (s *Session) TaskManagement(ctx context.Context, fn byte, lun uint16, ref *Command) (byte, error) {
	var h [bhsLen]byte
	h[0], h[1] = 0x42, finalBit|fn
	putLUN(h[8:], lun)
	be.PutUint32(h[20:], noTag)
	if ref != nil {
		s.mu.Lock()
		be.PutUint32(h[20:], ref.itt)
		be.PutUint32(h[32:], ref.cmdSN)
		s.mu.Unlock()
	}
	a, err := s.ask(ctx, h, nil)
	if err != nil {
		return 0, err
	}
	if a.h[0] != 0x22 {
		return 0, fmt.Errorf("initiator: task management answered by PDU %#02x", a.h[0])
	}
	return a.h[2], nil
}

// Forget takes an aborted command out of flight without completing it. It
// reports whether the command was still in flight.
func (s *Session) Forget(c *Command) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending[c.itt] != c {
		return false
	}
	delete(s.pending, c.itt)
	return true
}

// Raw sends bytes as they are, behind what is queued: for tests of the target.
func (s *Session) Raw(b []byte) error {
	_, err := s.c.Write(b)
	return err
}

func putLUN(b []byte, n uint16) {
	b[1] = byte(n)
	if n > 255 {
		b[0] = 0x40 | byte(n>>8)
	}
}

var errReject = errors.New("initiator: the target rejected a PDU")

// readLoop handles what the target sends.
func (s *Session) readLoop() {
	defer s.loops.Done()
	var h [bhsLen]byte
	for {
		if err := s.readPDU(&h); err != nil {
			s.end(err)
			break
		}
	}
	s.failAll()
}

func (s *Session) readPDU(h *[bhsLen]byte) error {
	if _, err := io.ReadFull(s.br, h[:]); err != nil {
		return err
	}
	if h[4] != 0 {
		return errors.New("initiator: additional header segment from the target")
	}
	if s.neg.HeaderDigest {
		if err := s.digest(crc32.Checksum(h[:], castagnoli)); err != nil {
			return fmt.Errorf("header: %w", err)
		}
	}
	if err := s.sequence(h); err != nil {
		return err
	}
	n := getLen(h[:])
	switch h[0] & 0x3f {
	case 0x25:
		return s.dataIn(h, n)
	case 0x21:
		return s.response(h, n)
	}
	data := make([]byte, n)
	if err := s.readData(data); err != nil {
		return err
	}
	return s.other(h, data)
}

func (s *Session) digest(want uint32) error {
	b, err := s.br.Peek(4)
	if err != nil {
		return err
	}
	got := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
	_, _ = s.br.Discard(4) // just peeked
	if got != want {
		return fmt.Errorf("initiator: digest %08x, computed %08x", got, want)
	}
	return nil
}

// sequence checks StatSN and takes the command window.
func (s *Session) sequence(h *[bhsLen]byte) error {
	op := h[0] & 0x3f
	ping := op == 0x20 && be.Uint32(h[16:]) == noTag
	if op != 0x31 && !ping && (op != 0x25 || h[1]&0x01 != 0) {
		if got, want := be.Uint32(h[24:]), s.statSN.Load(); got != want {
			return fmt.Errorf("initiator: StatSN %d of PDU %#02x, expected %d", got, op, want)
		}
		s.statSN.Add(1)
	}
	m := be.Uint32(h[32:])
	if int32(m-s.maxSN.Load()) > 0 {
		s.maxSN.Store(m)
		s.mu.Lock()
		if len(s.sendq) > 0 {
			s.wake.Signal()
		}
		s.mu.Unlock()
	}
	return nil
}

// readData reads a data segment into p, and its padding and digest.
func (s *Session) readData(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if _, err := io.ReadFull(s.br, p); err != nil {
		return err
	}
	pad := -len(p) & 3
	crc := uint32(0)
	if s.neg.DataDigest {
		crc = crc32.Checksum(p, castagnoli)
		b, err := s.br.Peek(pad)
		if err != nil {
			return err
		}
		crc = crc32.Update(crc, castagnoli, b)
	}
	if _, err := s.br.Discard(pad); err != nil {
		return err
	}
	if s.neg.DataDigest {
		return s.digest(crc)
	}
	return nil
}

func (s *Session) find(itt uint32, take bool) *Command {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.pending[itt]
	if take && c != nil {
		delete(s.pending, itt)
	}
	return c
}

func (s *Session) dataIn(h *[bhsLen]byte, n int) error {
	last := h[1]&0x01 != 0
	c := s.find(be.Uint32(h[16:]), last)
	if c == nil {
		return s.readData(make([]byte, n))
	}
	off := int(be.Uint32(h[40:]))
	if off != c.Received || off+n > len(c.In) {
		return fmt.Errorf("initiator: data-in %d+%d, have %d of %d", off, n, c.Received, len(c.In))
	}
	if err := s.readData(c.In[off : off+n]); err != nil {
		if last {
			c.Err = err
			c.Done(c)
		}
		return err
	}
	c.Received += n
	if last {
		s.finish(c, h, nil)
	}
	return nil
}

func (s *Session) response(h *[bhsLen]byte, n int) error {
	var data []byte
	if n > 0 {
		data = make([]byte, n)
		if err := s.readData(data); err != nil {
			return err
		}
	}
	if c := s.find(be.Uint32(h[16:]), true); c != nil {
		s.finish(c, h, data)
	}
	return nil
}

func (s *Session) finish(c *Command, h *[bhsLen]byte, sense []byte) {
	c.Status = h[3]
	if h[1]&0x04 != 0 {
		c.Residual = -int64(be.Uint32(h[44:]))
	} else if h[1]&0x02 != 0 {
		c.Residual = int64(be.Uint32(h[44:]))
	}
	if c.Status != Good {
		c.Sense = decodeSense(sense)
		c.Err = &SCSIError{Op: c.CDB[0], Status: c.Status, Sense: c.Sense}
	}
	c.Done(c)
}

// other handles PDUs that are not part of a SCSI command's data or status.
func (s *Session) other(h *[bhsLen]byte, data []byte) error {
	itt := be.Uint32(h[16:])
	switch h[0] & 0x3f {
	case 0x31:
		s.r2t(h)
		return nil
	case 0x20:
		if itt == noTag {
			s.pong(h)
			return nil
		}
	case 0x32:
		s.mu.Lock()
		s.asked = s.asked || h[36] == 1
		s.mu.Unlock()
		return nil
	case 0x3f:
		return s.rejected(h, data)
	}
	s.mu.Lock()
	ch := s.waits[itt]
	delete(s.waits, itt)
	s.mu.Unlock()
	if ch != nil {
		ch <- answer{*h, data}
	}
	return nil
}

// rejected fails the command whose PDU came back.
func (s *Session) rejected(h *[bhsLen]byte, data []byte) error {
	s.mu.Lock()
	s.rejects++
	s.mu.Unlock()
	if len(data) < bhsLen {
		return errReject
	}
	itt := be.Uint32(data[16:])
	if data[0]&0x3f == 0x01 && h[2] != 0x07 { // not when the tag is another task's
		if c := s.find(itt, true); c != nil {
			c.Err = fmt.Errorf("%w: reason %#02x", errReject, h[2])
			c.Done(c)
		}
		return nil
	}
	s.mu.Lock()
	ch := s.waits[itt]
	delete(s.waits, itt)
	s.mu.Unlock()
	if ch != nil {
		ch <- answer{*h, data}
	}
	return nil
}

// pong answers the target's ping.
func (s *Session) pong(h *[bhsLen]byte) {
	var o [bhsLen]byte
	o[0], o[1] = 0x40, finalBit
	copy(o[8:16], h[8:16])
	be.PutUint32(o[16:], noTag)
	copy(o[20:24], h[20:24])
	s.queue(ctrl{h: o})
}

// r2t queues the data that the target asks for.
func (s *Session) r2t(h *[bhsLen]byte) {
	c := s.find(be.Uint32(h[16:]), false)
	if c == nil {
		return
	}
	off, n := int(be.Uint32(h[40:])), int(be.Uint32(h[44:]))
	if off+n > len(c.Out) {
		s.end(fmt.Errorf("initiator: R2T for %d+%d of %d bytes", off, n, len(c.Out)))
		return
	}
	s.queueData(c, be.Uint32(h[20:]), off, n)
}

// queueData queues one sequence of Data-Out PDUs.
func (s *Session) queueData(c *Command, ttt uint32, off, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.appendData(c, ttt, off, n)
	s.wake.Signal()
}

func (s *Session) appendData(c *Command, ttt uint32, off, n int) {
	for sn, end := uint32(0), off+n; off < end; sn++ {
		k := min(end-off, s.neg.MaxRecvTarget)
		d := ctrl{cmd: c, data: c.Out[off : off+k]}
		d.h[0] = 0x05
		if off+k == end {
			d.h[1] = finalBit
		}
		putLUN(d.h[8:], c.LUN)
		be.PutUint32(d.h[16:], c.itt)
		be.PutUint32(d.h[20:], ttt)
		be.PutUint32(d.h[36:], sn)
		be.PutUint32(d.h[40:], uint32(off))
		s.ctrlq = append(s.ctrlq, d)
		off += k
	}
}

func (s *Session) queue(c ctrl) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ctrlq = append(s.ctrlq, c)
	s.wake.Signal()
}
