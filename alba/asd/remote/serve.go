package remote

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/internal/wire"
)

// Phases of a connection that proved the key.
const (
	phaseBusy   = iota // a request runs, or the handshake
	phaseIdle          // waits for a request: Close may break it off
	phaseClosed        // Close did
)

const (
	// freeMeta is the meta that needs no memory from the budget: what the buffers
	// of a connection hold anyway.
	freeMeta = 8 << 10
	// metaFactor charges for what is decoded from meta: an operation of 20 bytes
	// takes 60 more.
	metaFactor = 4
	// graceTime is what a request gets beyond its caller's time, so that the caller
	// is the one to give up.
	graceTime = time.Second
	// keepEncoder is the largest buffer for meta that a connection keeps.
	keepEncoder = 64 << 10
)

// serverConn is a connection and the goroutine that serves it.
type serverConn struct {
	s        *Server
	raw      net.Conn
	w        *wire.Conn
	ctx      context.Context // of all calls of the device
	cancel   context.CancelFunc
	deadline atomic.Int64 // nanoseconds since Server.start, 0 for none
	phase    atomic.Int32

	// Under Server.mu:
	handshake *list.Element // in Server.unknown
	proved    bool          // counted in Server.proved

	sums    bool // replies carry checksums, and TLS does not protect them
	e       wire.Encoder
	get     getRequest
	apply   applyRequest
	offsets []int
}

// kill ends the connection; whoever waits on it gets an error.
func (c *serverConn) kill() {
	c.cancel()
	_ = c.raw.Close()
}

// until sets when the watch ends the connection: after d, or never with 0.
func (c *serverConn) until(d time.Duration) {
	if d <= 0 {
		c.deadline.Store(0)
		return
	}
	c.deadline.Store(int64(c.s.o.Clock.Now().Add(d).Sub(c.s.start)))
}

func (c *serverConn) run() {
	defer c.s.remove(c)
	defer c.kill()
	if err := c.open(); err != nil {
		if !errors.Is(err, ErrBusy) {
			c.s.unproved.Add(1)
		}
		return
	}
	for {
		c.phase.Store(phaseIdle)
		if c.s.isClosing() {
			return
		}
		c.until(c.s.o.IdleTime)
		h, err := c.w.Next()
		if err != nil || !c.phase.CompareAndSwap(phaseIdle, phaseBusy) {
			return
		}
		c.until(c.s.o.TransferTime)
		if err := c.request(h); err != nil {
			return
		}
	}
}

func (s *Server) isClosing() bool {
	select {
	case <-s.closing:
		return true
	default:
		return false
	}
}

// open performs the handshake (R1).
func (c *serverConn) open() error {
	h := handshake{key: c.s.o.Key, t: transcript{mode: mode(c.s.o.Plain)}}
	var over net.Conn = c.raw
	if !c.s.o.Plain {
		t, err := wire.Secure(c.ctx, c.raw, c.s.tls, true)
		if err != nil {
			return err
		}
		if err := h.over(t); err != nil {
			return err
		}
		over = t
	}
	c.sums = h.t.mode != modeTLS
	c.w = wire.NewConn(over, protocol, handshakeLimits)
	h.w = c.w
	if err := h.greet(c.s.o.Rand); err != nil {
		return err
	}
	if err := c.s.promote(c); err != nil {
		c.s.refused.Add(1)
		return h.refuse(err)
	}
	c.w.SetLimits(requestLimits)
	return h.welcome(c.s.id)
}

// metaLimit bounds the meta of a type of request; 0 for what is none.
func metaLimit(typ uint16) int {
	switch typ {
	case typeApply:
		return maxRequestMeta
	case typeGet:
		return maxGetMeta
	case typeInfo, typeStats, typeRead, typeList, typeValidate:
		return maxSmallMeta
	}
	return 0
}

// request serves one; an error ends the connection. What the device says is no
// error here: it is answered.
func (c *serverConn) request(h wire.Head) error {
	if h.Meta > metaLimit(h.Type) || h.Body > 0 && h.Type != typeApply || h.Flags != 0 {
		return c.breakOff(protocolError("message %d with flags %#x, %d bytes of meta and %d of body is no request", h.Type, h.Flags, h.Meta, h.Body))
	}
	if h.Meta > freeMeta {
		charge := min(int64(h.Meta)*metaFactor, c.s.meta.total)
		if err := c.s.meta.take(c.ctx, charge); err != nil {
			return err // c ended: there is no more than all of it to ask for
		}
		defer c.s.meta.give(charge)
	}
	meta, err := c.w.Meta()
	if err != nil {
		return err
	}
	d := wire.NewDecoder(meta)
	left := time.Duration(d.Uint(int(maxWait/time.Millisecond))) * time.Millisecond
	if cap(c.e.B) > keepEncoder {
		c.e.B = nil
	}
	c.e.B = c.e.B[:0]
	switch h.Type {
	case typeInfo:
		err = c.serveInfo(&d, left)
	case typeStats:
		err = c.serveStats(&d, left)
	case typeGet:
		err = c.serveGet(&d, left)
	case typeRead:
		err = c.serveRead(&d, left)
	case typeApply:
		err = c.serveApply(&d, left)
	case typeList:
		err = c.serveList(&d, left)
	case typeValidate:
		err = c.serveValidate(&d, left)
	}
	return err
}

// breakOff tells the peer why the connection ends.
func (c *serverConn) breakOff(err error) error {
	_ = c.sendFailure(err, flagLast)
	return err
}

// fail answers with an error.
func (c *serverConn) fail(err error) error { return c.sendFailure(err, 0) }

func (c *serverConn) sendFailure(err error, flags uint16) error {
	c.until(c.s.o.TransferTime)
	c.e.B = c.e.B[:0]
	newFailure(err).encode(&c.e)
	return c.w.Send(typeFailure, flags, c.e.B)
}

// reply answers the request with what was encoded and the body.
func (c *serverConn) reply(typ uint16, body ...[]byte) error {
	c.until(c.s.o.TransferTime)
	return c.w.Send(typ+typeReply, 0, c.e.B, body...)
}

// work is called before the device is: the request arrived, its caller waits for
// left more.
func (c *serverConn) work(left time.Duration) {
	if left > 0 {
		left += graceTime
	}
	c.until(left)
}

func (c *serverConn) serveInfo(d *wire.Decoder, left time.Duration) error {
	if err := d.Done(); err != nil {
		return c.breakOff(err)
	}
	c.work(left)
	info, err := c.s.dev.Info(c.ctx)
	if err != nil {
		return c.fail(err)
	}
	if info.ID != c.s.id { // R2: a connection's identity never changes
		return c.breakOff(fmt.Errorf("%w: it was %s and is %s: restart the server", osd.ErrIdentity, c.s.id, info.ID))
	}
	info.Run, info.Version = info.Run[:min(len(info.Run), maxName)], info.Version[:min(len(info.Version), maxName)]
	encodeInfo(&c.e, &info)
	return c.reply(typeInfo)
}

func (c *serverConn) serveStats(d *wire.Decoder, left time.Duration) error {
	if err := d.Done(); err != nil {
		return c.breakOff(err)
	}
	c.work(left)
	stats, err := c.s.dev.Stats(c.ctx)
	if err != nil {
		return c.fail(err)
	}
	encodeStats(&c.e, &stats)
	return c.reply(typeStats)
}

// borrow takes n bytes of the memory for values; an error was answered.
func (c *serverConn) borrow(n int64) (ok bool, err error) {
	if err := c.s.values.take(c.ctx, n); err != nil {
		return false, c.fail(err)
	}
	return true, nil
}

func (c *serverConn) serveGet(d *wire.Decoder, left time.Duration) error {
	r := &c.get
	defer r.forget()
	if err := r.decode(d); err != nil {
		return c.breakOff(err)
	}
	n := min(max(r.limit, 0), osd.MaxValueBytes) * int64(len(r.keys))
	n = min(n, osd.MaxValueBytes)
	if ok, err := c.borrow(n); !ok {
		return err
	}
	defer c.s.values.give(n)
	c.work(left)
	values, err := c.s.dev.Get(c.ctx, r.keys, int(r.limit), r.prio)
	if err != nil {
		return c.fail(err)
	}
	body := make([][]byte, 0, len(values))
	for _, v := range values {
		if len(v.Data) > 0 {
			body = append(body, v.Data)
		}
	}
	encodeValues(&c.e, values)
	return c.reply(typeGet, body...)
}

func (c *serverConn) serveRead(d *wire.Decoder, left time.Duration) error {
	var r readRequest
	if err := r.decode(d); err != nil {
		return c.breakOff(err)
	}
	_, size := class(r.length)
	if ok, err := c.borrow(int64(size)); !ok {
		return err
	}
	defer c.s.values.give(int64(size))
	b := c.s.pool.get(r.length)
	defer c.s.pool.put(b)
	p := b.b[:r.length:r.length]
	c.work(left)
	if err := c.s.dev.Read(c.ctx, r.key, r.off, p, r.prio); err != nil {
		return c.fail(err)
	}
	encodeSum(&c.e, c.sums, p)
	return c.reply(typeRead, p)
}

func (c *serverConn) serveApply(d *wire.Decoder, left time.Duration) error {
	r := &c.apply
	defer r.forget()
	if cap(c.offsets) > keepOps {
		c.offsets = nil
	}
	if err := r.decode(d); err != nil {
		return c.breakOff(err)
	}
	if r.total != c.w.BodyLeft() {
		return c.breakOff(protocolError("values of %d bytes in a body of %d", r.total, c.w.BodyLeft()))
	}
	var end int
	c.offsets, end = place(c.offsets[:0], r.sizes)
	_, size := class(end)
	if err := c.s.values.take(c.ctx, int64(size)); err != nil {
		if c.ctx.Err() != nil {
			return err
		}
		return errors.Join(c.w.Skip(), c.fail(err))
	}
	defer c.s.values.give(int64(size))
	b := c.s.pool.get(end)
	defer c.s.pool.put(b)
	for i := range r.updates {
		if r.updates[i].Delete {
			continue
		}
		from, to := c.offsets[i], c.offsets[i]+r.sizes[i]
		r.updates[i].Value = b.b[from:to:to]
		if err := c.value(&r.updates[i]); err != nil {
			return err
		}
	}
	c.work(left)
	if err := c.s.dev.Apply(c.ctx, r.asserts, r.updates, r.prio); err != nil {
		return c.fail(err)
	}
	return c.reply(typeApply)
}

// value receives the value of an update. The checksums of a large one are computed
// block by block while they are in the processor's cache.
func (c *serverConn) value(u *osd.Update) error {
	if len(u.Value) < DirectBytes {
		return c.w.Body(u.Value)
	}
	u.Sums = make([]uint32, 0, (len(u.Value)+osd.Block-1)/osd.Block)
	for from := 0; from < len(u.Value); from += osd.Block {
		b := u.Value[from:min(len(u.Value), from+osd.Block)]
		if err := c.w.Body(b); err != nil {
			return err
		}
		u.Sums = append(u.Sums, osd.CRC(b))
	}
	return nil
}

// listBytes is the memory of a list of up to limit keys: decoded and encoded.
func listBytes(limit int64) int64 {
	if limit <= 0 || limit > osd.MaxListKeys {
		limit = osd.MaxListKeys
	}
	return limit * 2 * (osd.MaxKeyBytes + maxOverhead)
}

func (c *serverConn) serveList(d *wire.Decoder, left time.Duration) error {
	var r listRequest
	if err := r.decode(d); err != nil {
		return c.breakOff(err)
	}
	n := listBytes(r.limit)
	if ok, err := c.borrow(n); !ok {
		return err
	}
	defer c.s.values.give(n)
	c.work(left)
	entries, err := c.s.dev.List(c.ctx, r.prefix, r.after, int(r.limit), r.prio)
	if err != nil {
		return c.fail(err)
	}
	encodeEntries(&c.e, entries)
	return c.reply(typeList)
}

func (c *serverConn) serveValidate(d *wire.Decoder, left time.Duration) error {
	var r validateRequest
	if err := r.decode(d); err != nil {
		return c.breakOff(err)
	}
	n := listBytes(r.limit)
	if ok, err := c.borrow(n); !ok {
		return err
	}
	defer c.s.values.give(n)
	c.work(left)
	v, err := c.s.dev.Validate(c.ctx, r.prefix, r.after, int(r.limit), r.budget)
	if err != nil {
		return c.fail(err)
	}
	encodeValidation(&c.e, &v)
	return c.reply(typeValidate)
}

var _ io.Closer = (*Server)(nil)
