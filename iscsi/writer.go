package iscsi

import (
	"hash/crc32"
	"net"
	"syscall"
	"time"
)

const (
	// arenaBytes holds the headers, digests, padding and sense data of one batch:
	// some 500 answers, more than a window.
	arenaBytes = 32 << 10
	// batchBytes is the data of one writev; more only delays the first byte.
	batchBytes = 1 << 20
	// pduSlack is the most that one PDU takes from the arena: header, header
	// digest, sense, padding, data digest.
	pduSlack = bhsLen + 4 + 2 + maxSenseLen + 4 + 4
)

// reply is an answer that is not a SCSI response. hdr lacks the sequence
// numbers; data is sent after it.
type reply struct {
	hdr     bhs
	data    []byte
	advance bool // takes a StatSN of its own
	last    bool // the connection is closed after it
}

// outItem is what waits to be sent: a task or a reply.
type outItem struct {
	t *task
	r *reply
}

// batch collects PDUs for one writev. It is borrowed while something is sent.
type batch struct {
	wait  bool // its sender may wait for the peer
	items []outItem
	arena []byte
	vec   net.Buffers
	left  net.Buffers // what of vec has not left yet
	iov   []syscall.Iovec
	bytes int
	tail  bool // the last element of vec ends at the end of arena
	sent  []*task
	reps  []*reply
	last  bool
	read  int       // bytes of data-in
	now   time.Time // when its items were taken
}

func newBatch() *batch { return &batch{arena: make([]byte, 0, arenaBytes)} }

// Answers are sent by whoever has the turn (conn.sending), one at a time (I6):
//
//   - The reader, before it waits for the peer: it sends what was answered since
//     it woke up, so that commands which the Disk completes inside Submit need no
//     other goroutine. It never waits for the peer to read: what does not fit into
//     the socket is the writer's.
//   - The writer, for what other goroutines answer while the reader waits, for
//     answers longer than a batch, and for what the reader could not send.

// writeLoop is the writer. It sends what is queued when it looks, until the
// connection is closed.
func (c *conn) writeLoop() {
	defer close(c.writerDone)
	for {
		b := c.turn()
		if b == nil {
			return
		}
		b.wait = true
		_, err := c.sock.write(b, true) // what the reader left
		if err == nil {
			b.reset()
			err = c.transmit(b)
		}
		if !c.settle(b, err) {
			c.close()
		}
	}
}

// turn waits until there is something for the writer to send; nil: the
// connection is closed.
func (c *conn) turn() *batch {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.closed.Load() {
		if b := c.stalled; b != nil {
			c.stalled = nil
			return b
		}
		if len(c.outq) > 0 && !c.sending && !c.awake.Load() {
			c.sending = true
			b := c.srv.batches.Get().(*batch)
			b.wait = true
			c.take(b)
			return b
		}
		c.writerWake.Wait()
	}
	return nil
}

// maxRounds is how often the reader sends before it waits, when more is answered
// meanwhile; after that it is time to listen to the peer.
const maxRounds = 2

// sendInline is the reader's turn; afterwards the writer sends.
func (c *conn) sendInline() {
	for round := 0; ; round++ {
		c.mu.Lock()
		if c.closed.Load() || c.sending || len(c.outq) == 0 || round == maxRounds || c.needs(c.outq[0]) > arenaBytes {
			c.awake.Store(false)
			if len(c.outq) > 0 && !c.sending {
				c.writerWake.Signal()
			}
			c.mu.Unlock()
			return
		}
		c.sending = true
		b := c.srv.batches.Get().(*batch)
		b.wait = false
		c.take(b)
		c.mu.Unlock()
		err := c.transmit(b)
		if err == nil && len(b.left) > 0 {
			clear(b.items) // they are in vec
			b.items = b.items[:0]
			c.mu.Lock()
			c.stalled = b
			c.writerWake.Signal()
			c.mu.Unlock()
			continue
		}
		if !c.settle(b, err) {
			c.close()
		}
	}
}

// take moves queued items to a batch: all for the writer, what fits for the
// reader. mu is held.
func (c *conn) take(b *batch) {
	n := len(c.outq)
	if !b.wait {
		room := arenaBytes
		for i, it := range c.outq {
			if room -= c.needs(it); room < 0 {
				n = i
				break
			}
		}
	}
	if n == len(c.outq) {
		b.items, c.outq = c.outq, b.items[:0]
		return
	}
	b.items = append(b.items[:0], c.outq[:n]...)
	k := copy(c.outq, c.outq[n:])
	clear(c.outq[k:])
	c.outq = c.outq[:k]
}

// needs is the most of the arena that an item takes.
func (c *conn) needs(it outItem) int {
	if it.t == nil || len(it.t.in) == 0 {
		return pduSlack
	}
	return (2 + len(it.t.in)/int(min(c.maxSend.Load(), c.neg.MaxBurst))) * pduSlack
}

// transmit turns the items of a batch into PDUs and sends them. Without b.wait,
// b.left is what the socket did not take.
func (c *conn) transmit(b *batch) error {
	b.now = c.srv.clk.Now()
	for i := range b.items {
		if it := &b.items[i]; it.t != nil {
			if err := c.putTask(b, it.t); err != nil {
				return err
			}
		} else {
			c.putReply(b, it.r)
		}
		if b.wait && (b.bytes >= batchBytes || cap(b.arena)-len(b.arena) < 4*pduSlack) {
			if err := c.write(b); err != nil {
				return err
			}
		}
	}
	return c.write(b)
}

// write sends the collected bytes. The buffers stay in use until settle.
func (c *conn) write(b *batch) error {
	b.left = b.vec
	all, err := c.sock.write(b, b.wait)
	if all {
		b.reset()
	}
	return err
}

// reset forgets bytes that have left.
func (b *batch) reset() {
	clear(b.vec)
	b.arena, b.vec, b.left, b.bytes, b.tail = b.arena[:0], b.vec[:0], nil, 0, false
}

// settle ends a sender's turn: what the batch carried is accounted for and given
// back. It returns false when the connection is to be closed.
func (c *conn) settle(b *batch, err error) bool {
	c.mu.Lock()
	for _, t := range b.sent {
		c.discharge(t)
	}
	for _, r := range b.reps {
		c.unsentBytes -= len(r.data)
	}
	c.unsent -= len(b.sent) + len(b.reps)
	c.sending = false
	ok := err == nil && !b.last && !(c.draining.Load() && c.idle())
	c.mu.Unlock()
	if b.read > 0 {
		c.sess.readBytes.Add(uint64(b.read))
		c.srv.stats.readBytes.Add(uint64(b.read))
	}
	for _, t := range b.sent {
		t.release()
	}
	for _, r := range b.reps {
		r.data = nil
		c.srv.reps.Put(r)
	}
	b.reset()
	clear(b.items)
	clear(b.sent)
	clear(b.reps)
	b.items, b.sent, b.reps, b.last, b.read = b.items[:0], b.sent[:0], b.reps[:0], false, 0
	c.srv.batches.Put(b)
	return ok
}

// grow takes n bytes of the arena and puts them into the vector.
func (b *batch) grow(n int) []byte {
	i := len(b.arena)
	b.arena = b.arena[:i+n]
	s := b.arena[i : i+n : i+n]
	if b.tail {
		p := &b.vec[len(b.vec)-1]
		*p = (*p)[:len(*p)+n]
	} else {
		b.vec = append(b.vec, b.arena[i:i+n])
		b.tail = true
	}
	b.bytes += n
	return s
}

// pdu appends a header and a data segment. Short data is copied, long data is
// referenced until the batch is flushed.
func (c *conn) pdu(b *batch, h *bhs, data []byte) {
	h.setDataLen(len(data))
	copy(b.grow(bhsLen), h[:])
	if c.neg.HeaderDigest {
		putDigest(b.grow(4), crc32.Checksum(h[:], castagnoli))
	}
	if len(data) == 0 {
		return
	}
	if len(data) <= maxSenseLen+2 {
		copy(b.grow(len(data)), data)
	} else {
		b.vec = append(b.vec, data)
		b.tail = false
		b.bytes += len(data)
	}
	p := pad(len(data))
	if p > 0 {
		clear(b.grow(p))
	}
	if c.neg.DataDigest {
		crc := crc32.Checksum(data, castagnoli)
		var zero [3]byte
		putDigest(b.grow(4), crc32.Update(crc, castagnoli, zero[:p]))
	}
}

// sequence fills StatSN, ExpCmdSN and MaxCmdSN (I6).
func (c *conn) sequence(h *bhs, advance bool) {
	be.PutUint32(h[24:], c.statSN)
	if advance {
		c.statSN++
	}
	be.PutUint32(h[28:], c.expCmdSN.Load())
	be.PutUint32(h[32:], c.maxCmdSN.Load())
}

func (c *conn) putReply(b *batch, r *reply) {
	c.sequence(&r.hdr, r.advance)
	c.pdu(b, &r.hdr, r.data)
	b.reps = append(b.reps, r)
	b.last = b.last || r.last
}

// putTask appends the Data-In PDUs and the response of a finished task.
func (c *conn) putTask(b *batch, t *task) error {
	b.sent = append(b.sent, t)
	if !t.immediate {
		c.maxCmdSN.Add(1)
	}
	flags, resid := t.residual()
	n := 0
	if t.status == statusGood && t.read {
		n = int(min(uint64(len(t.in)), uint64(t.edtl)))
	}
	if t.nx != nil {
		t.counted = true
		t.nx.end(t, n, b.now.Sub(t.since))
	}
	if n == 0 {
		c.putResponse(b, t, flags, resid)
		return nil
	}
	b.read += n
	return c.putDataIn(b, t, t.in[:n], flags, resid)
}

// putDataIn sends data in PDUs no longer than the initiator takes, in sequences
// no longer than MaxBurstLength, with the status in the last one. Between PDUs it
// sends when the arena is full, which only the writer's can be.
func (c *conn) putDataIn(b *batch, t *task, data []byte, flags byte, resid uint32) error {
	seg, burst := int(c.maxSend.Load()), int(c.neg.MaxBurst)
	left := burst
	for off, sn := 0, uint32(0); off < len(data); sn++ {
		n := min(len(data)-off, seg, left)
		left -= n
		last := off+n == len(data)
		h := &c.outHdr
		*h = bhs{}
		h[0] = opDataIn
		be.PutUint32(h[16:], t.itt)
		be.PutUint32(h[20:], noTag)
		be.PutUint32(h[36:], sn)
		be.PutUint32(h[40:], uint32(off))
		if left == 0 || last {
			h[1] = finalBit
			left = burst
		}
		if last {
			h[1] |= 0x01 | flags
			be.PutUint32(h[44:], resid)
			c.sequence(h, true)
		} else {
			c.sequence(h, false)
			be.PutUint32(h[24:], 0) // StatSN is reserved without status
		}
		if b.wait && cap(b.arena)-len(b.arena) < 2*pduSlack {
			if err := c.write(b); err != nil {
				return err
			}
		}
		c.pdu(b, h, data[off:off+n])
		off += n
	}
	return nil
}

func (c *conn) putResponse(b *batch, t *task, flags byte, resid uint32) {
	h := &c.outHdr
	*h = bhs{}
	h[0], h[1], h[3] = opSCSIResp, finalBit|flags, t.status
	be.PutUint32(h[16:], t.itt)
	be.PutUint32(h[44:], resid)
	if t.readLength > 0 { // no data-in of a bidirectional command is sent
		h[1] |= 0x08
		be.PutUint32(h[40:], t.readLength)
	}
	c.sequence(h, true)
	if t.status != statusCheckCondition {
		c.pdu(b, h, nil)
		return
	}
	s := c.outSense[:2]
	if t.raw != nil {
		s = append(s, t.raw...)
	} else {
		s = t.sense.encode(s, t.descriptorSense())
	}
	be.PutUint16(s, uint16(len(s)-2))
	c.pdu(b, h, s)
}

// residual returns the O or U flag and the residual count (RFC 7143 section 11.4.5).
func (t *task) residual() (byte, uint32) {
	switch {
	case t.xfer > uint64(t.edtl):
		return 0x04, uint32(min(t.xfer-uint64(t.edtl), 0xffffffff))
	case t.xfer < uint64(t.edtl):
		return 0x02, uint32(uint64(t.edtl) - t.xfer)
	}
	return 0, 0
}
