package iscsi

import (
	"hash/crc32"
	"net"
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

// outItem is what waits for the writer: a task or a reply.
type outItem struct {
	t *task
	r *reply
}

// batch collects PDUs for one writev.
type batch struct {
	arena []byte
	vec   net.Buffers
	out   net.Buffers // the copy that WriteTo consumes
	bytes int
	tail  bool // the last element of vec ends at the end of arena
	sent  []*task
	reps  []*reply
	last  bool
	now   time.Time // when its items were taken
	err   error
}

// writeLoop sends queued answers until the connection is closed. It batches
// whatever is queued when it looks.
func (c *conn) writeLoop() {
	defer close(c.writerDone)
	b := &batch{arena: make([]byte, 0, arenaBytes)}
	var items []outItem
	for {
		c.mu.Lock()
		for len(c.outq) == 0 && !c.closed {
			c.writerWake.Wait()
		}
		if c.closed {
			c.mu.Unlock()
			return
		}
		items, c.outq = c.outq, items[:0]
		c.mu.Unlock()
		b.now = c.srv.clk.Now()
		for i := range items {
			if it := &items[i]; it.t != nil {
				c.putTask(b, it.t)
			} else {
				c.putReply(b, it.r)
			}
			if !c.room(b) {
				c.close()
				return
			}
		}
		clear(items)
		if !c.flush(b) {
			c.close()
			return
		}
	}
}

// room flushes a batch that is full.
func (c *conn) room(b *batch) bool {
	if b.bytes < batchBytes && cap(b.arena)-len(b.arena) >= 4*pduSlack {
		return true
	}
	return c.flush(b)
}

// flush writes the batch and releases what it carried.
func (c *conn) flush(b *batch) bool {
	c.write(b)
	c.mu.Lock()
	for _, t := range b.sent {
		c.discharge(t)
	}
	for _, r := range b.reps {
		c.unsentBytes -= len(r.data)
	}
	c.unsent -= len(b.sent) + len(b.reps)
	idle := c.draining && c.idle()
	c.mu.Unlock()
	for _, t := range b.sent {
		t.release()
	}
	for _, r := range b.reps {
		r.data = nil
		c.srv.reps.Put(r)
	}
	clear(b.sent)
	clear(b.reps)
	b.sent, b.reps = b.sent[:0], b.reps[:0]
	return b.err == nil && !b.last && !idle
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
func (c *conn) putTask(b *batch, t *task) {
	if !t.immediate {
		c.maxCmdSN.Add(1)
	}
	flags, resid := t.residual()
	n := 0
	if t.status == statusGood && t.read {
		n = int(min(uint64(len(t.in)), uint64(t.edtl)))
	}
	if n > 0 {
		t.countRead(n)
		c.putDataIn(b, t, t.in[:n], flags, resid)
	} else {
		c.putResponse(b, t, flags, resid)
	}
	if t.nx != nil {
		t.counted = true
		t.nx.end(t, n, b.now.Sub(t.arrived))
	}
	b.sent = append(b.sent, t)
}

// putDataIn sends data in PDUs no longer than the initiator takes, in sequences
// no longer than MaxBurstLength, with the status in the last one.
func (c *conn) putDataIn(b *batch, t *task, data []byte, flags byte, resid uint32) {
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
		if cap(b.arena)-len(b.arena) < 2*pduSlack {
			c.write(b)
		}
		c.pdu(b, h, data[off:off+n])
		off += n
	}
}

// write sends the collected bytes. In the middle of a task it is called alone:
// the buffers stay in use.
func (c *conn) write(b *batch) {
	if b.err == nil && len(b.vec) > 0 {
		b.out = b.vec
		_, b.err = b.out.WriteTo(c.nc)
	}
	clear(b.vec)
	b.arena, b.vec, b.bytes, b.tail = b.arena[:0], b.vec[:0], 0, false
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
	s := t.sense.encode(c.outSense[:2], t.descriptorSense())
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
