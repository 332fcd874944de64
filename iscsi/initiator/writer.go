package initiator

import (
	"hash/crc32"
	"net"
)

// arenaBytes holds the headers of one batch.
const arenaBytes = 32 << 10

// batch collects PDUs for one writev.
type batch struct {
	arena []byte
	vec   net.Buffers
	out   net.Buffers
	tail  bool
	h     [bhsLen]byte
}

// writeLoop sends what is queued: answers and data first, then as many commands
// as the window allows (N3).
func (s *Session) writeLoop() {
	defer s.loops.Done()
	b := &batch{arena: make([]byte, 0, arenaBytes)}
	var cmds []*Command
	var ctrls []ctrl
	for {
		s.mu.Lock()
		for s.err == nil && len(s.ctrlq) == 0 && !s.sendable() {
			s.wake.Wait()
		}
		if s.err != nil {
			s.mu.Unlock()
			return
		}
		ctrls, s.ctrlq = s.ctrlq, ctrls[:0]
		for i := range ctrls {
			s.number(&ctrls[i])
		}
		cmds = s.take(cmds[:0])
		s.mu.Unlock()
		for i := range ctrls {
			s.pdu(b, &ctrls[i].h, ctrls[i].data)
		}
		clear(ctrls)
		for _, c := range cmds {
			s.command(b, c)
		}
		clear(cmds)
		if err := b.flush(s.c); err != nil {
			s.end(err)
			return
		}
	}
}

// sendable tells whether the first queued command may leave; mu is held.
func (s *Session) sendable() bool {
	return len(s.sendq) > 0 && (s.sendq[0].Immediate || int32(s.maxSN.Load()-s.cmdSN) >= 0)
}

// take moves the commands that may leave; mu is held.
func (s *Session) take(out []*Command) []*Command {
	n := 0
	for ; n < len(s.sendq); n++ {
		c := s.sendq[n]
		if !c.Immediate && int32(s.maxSN.Load()-s.cmdSN) < 0 {
			break
		}
		c.cmdSN = s.cmdSN
		if !c.Immediate {
			s.cmdSN++
		}
		out = append(out, c)
	}
	left := copy(s.sendq, s.sendq[n:])
	clear(s.sendq[left:])
	s.sendq = s.sendq[:left]
	return out
}

// number gives a PDU its CmdSN; mu is held.
func (s *Session) number(c *ctrl) {
	if c.h[0]&0x3f == 0x05 {
		return
	}
	be.PutUint32(c.h[24:], s.cmdSN)
	if c.sn {
		s.cmdSN++
	}
}

// command sends a command with its immediate and unsolicited data.
func (s *Session) command(b *batch, c *Command) {
	h := &b.h // a local one would escape
	*h = [bhsLen]byte{}
	h[0], h[1] = 0x01, finalBit|c.Attr&7
	if c.Immediate {
		h[0] |= 0x40
	}
	edtl := c.EDTL
	if edtl == 0 {
		edtl = uint32(max(len(c.Out), len(c.In)))
	}
	if c.In != nil || c.ForceRead {
		h[1] |= 0x40
	}
	if c.Out != nil || c.ForceWrite {
		h[1] |= 0x20
	}
	putLUN(h[8:], c.LUN)
	be.PutUint32(h[16:], c.itt)
	be.PutUint32(h[20:], edtl)
	be.PutUint32(h[24:], c.cmdSN)
	copy(h[32:], c.CDB[:])
	burst := min(len(c.Out), s.neg.FirstBurst)
	n := 0
	if s.neg.ImmediateData {
		n = min(burst, s.neg.MaxRecvTarget)
	}
	if !s.neg.InitialR2T && n < burst {
		h[1] &^= finalBit
		s.queueData(c, noTag, n, burst-n)
	}
	s.pdu(b, h, c.Out[:n])
}

// pdu appends a PDU to the batch, which is flushed when its arena is full.
func (s *Session) pdu(b *batch, h *[bhsLen]byte, data []byte) {
	if cap(b.arena)-len(b.arena) < bhsLen+12 {
		if err := b.flush(s.c); err != nil {
			s.end(err)
			return
		}
	}
	putLen(h[:], len(data))
	be.PutUint32(h[28:], s.statSN.Load())
	copy(b.grow(bhsLen), h[:])
	if s.neg.HeaderDigest {
		putDigest(b.grow(4), crc32.Checksum(h[:], castagnoli))
	}
	if len(data) == 0 {
		return
	}
	b.vec, b.tail = append(b.vec, data), false
	pad := -len(data) & 3
	if pad > 0 {
		clear(b.grow(pad))
	}
	if s.neg.DataDigest {
		var zero [3]byte
		putDigest(b.grow(4), crc32.Update(crc32.Checksum(data, castagnoli), castagnoli, zero[:pad]))
	}
}

func putDigest(b []byte, v uint32) {
	b[0], b[1], b[2], b[3] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24)
}

func (b *batch) grow(n int) []byte {
	i := len(b.arena)
	b.arena = b.arena[:i+n]
	if b.tail {
		p := &b.vec[len(b.vec)-1]
		*p = (*p)[:len(*p)+n]
	} else {
		b.vec, b.tail = append(b.vec, b.arena[i:i+n]), true
	}
	return b.arena[i : i+n]
}

func (b *batch) flush(c net.Conn) error {
	b.out = b.vec
	_, err := b.out.WriteTo(c)
	clear(b.vec)
	b.arena, b.vec, b.tail = b.arena[:0], b.vec[:0], false
	return err
}
