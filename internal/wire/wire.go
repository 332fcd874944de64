// Package wire carries framed messages between nodes over a net.Conn: one
// header, a small structured part ("meta") and a large opaque part ("body") that
// is never copied on its way between the socket and the caller's memory.
//
// It knows no protocol. Who uses it (alba/asd/remote) names a Protocol, numbers
// its messages, encodes meta with Encoder and Decoder, and decides about time:
// every call blocks until its bytes moved or the net.Conn is closed.
//
// # Frame
//
// All numbers are big endian.
//
//	 0         4         6      8       10     12          16          20       24
//	+---------+---------+------+-------+------+-----------+-----------+--------+======+======+
//	| magic   | version | type | flags | zero | meta len  | body len  | crc32c | meta | body |
//	+---------+---------+------+-------+------+-----------+-----------+--------+======+======+
//	 4 bytes   u16       u16    u16     u16    u32         u32         u32
//
// The crc32c covers the first 20 bytes and meta. The body has none: what it holds
// brings its own checksums, or travels in TLS.
//
// # Invariants
//
//	W1  Nothing is allocated for a frame before its lengths passed the Limits, and
//	    meta grows with the bytes that arrived, not with those announced.
//	W2  Meta is handed out only when its checksum fits. Body is not read before.
//	W3  The first error of a direction is final: after it nothing is read (or
//	    written), because where the next frame begins is not known any more.
//	W4  A body moves between the socket and slices of the caller; only the bytes
//	    that came with the header in one read, and pieces up to CoalesceBytes, are
//	    copied once.
//	W5  Encodings are canonical: what Decoder accepts is what Encoder produces.
//
// It does not multiplex, retry, time out or authenticate.
package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"slices"
)

// HeaderBytes is the size of a frame's header.
const HeaderBytes = 24

const (
	crcOffset = 20
	// readBuffer holds a header, its meta and a body of 4 KiB, so that a small
	// message is one read; what a large body loses in it to a copy is below 1 %
	// of a MiB.
	readBuffer = 8 << 10
	// metaStep is how much of meta is allocated before any of it arrived.
	metaStep = 64 << 10
	// keepMeta is the largest meta buffer that a connection keeps for the next frame.
	keepMeta = 64 << 10
	// scratchBytes holds header, meta and small pieces of bodies on their way out:
	// what one system call, or two TLS records, take with it.
	scratchBytes = 32 << 10
	// CoalesceBytes is the largest piece of a body that is copied behind the
	// header rather than sent as a vector of its own: copying 8 KiB costs less
	// than a TLS record or an entry of writev.
	CoalesceBytes = 8 << 10
)

// Errors of a connection, wrapped with what was found.
var (
	// ErrMagic: the peer speaks another protocol.
	ErrMagic = errors.New("wire: not a frame of this protocol")
	// ErrVersion: the peer speaks another version of it; see VersionError.
	ErrVersion = errors.New("wire: other version of the protocol")
	// ErrTooLarge: a length beyond the Limits.
	ErrTooLarge = errors.New("wire: frame too large")
	// ErrDamaged: the checksum of header and meta does not fit, or a field that
	// must be zero is not.
	ErrDamaged = errors.New("wire: damaged frame")
	// ErrUse: calls out of order, or arguments beyond what a frame can say: a
	// mistake of the caller, not of the peer.
	ErrUse = errors.New("wire: misuse")
)

// VersionError tells both versions. It matches ErrVersion.
type VersionError struct{ Theirs, Ours uint16 }

func (e *VersionError) Error() string {
	return fmt.Sprintf("%v: the peer speaks version %d, this side %d: update the older one", ErrVersion, e.Theirs, e.Ours)
}

// Is makes errors.Is(err, ErrVersion) true.
func (e *VersionError) Is(target error) bool { return target == ErrVersion }

// Protocol is what both ends must agree on.
type Protocol struct {
	Magic   [4]byte
	Version uint16
}

// Limits bound the frames that a peer may send, in bytes.
type Limits struct {
	Meta, Body int
}

// Head is the header of a frame that arrived, its lengths within the Limits.
type Head struct {
	Type, Flags uint16
	Meta, Body  int // bytes
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendHeader appends the header of a frame with meta and body bytes of body.
func appendHeader(b []byte, p Protocol, typ, flags uint16, meta []byte, body int) []byte {
	start := len(b)
	b = append(b, p.Magic[:]...)
	b = binary.BigEndian.AppendUint16(b, p.Version)
	b = binary.BigEndian.AppendUint16(b, typ)
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint16(b, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(meta)))
	b = binary.BigEndian.AppendUint32(b, uint32(body))
	crc := crc32.Update(crc32.Checksum(b[start:], castagnoli), castagnoli, meta)
	return binary.BigEndian.AppendUint32(b, crc)
}

// parseHeader checks what can be checked without meta (W1).
func parseHeader(b *[HeaderBytes]byte, p Protocol, l Limits) (Head, error) {
	if [4]byte(b[:4]) != p.Magic {
		return Head{}, fmt.Errorf("%w: it begins with %q, expected %q", ErrMagic, string(b[:4]), string(p.Magic[:])) // strings: p stays on the stack
	}
	if v := binary.BigEndian.Uint16(b[4:]); v != p.Version {
		return Head{}, &VersionError{Theirs: v, Ours: p.Version}
	}
	h := Head{Type: binary.BigEndian.Uint16(b[6:]), Flags: binary.BigEndian.Uint16(b[8:])}
	if z := binary.BigEndian.Uint16(b[10:]); z != 0 {
		return Head{}, fmt.Errorf("%w: reserved field holds %#x", ErrDamaged, z)
	}
	meta, body := binary.BigEndian.Uint32(b[12:]), binary.BigEndian.Uint32(b[16:])
	if int64(meta) > int64(l.Meta) || int64(body) > int64(l.Body) {
		return Head{}, fmt.Errorf("%w: type %d with %d bytes of meta and %d of body, at most %d and %d",
			ErrTooLarge, h.Type, meta, body, l.Meta, l.Body)
	}
	h.Meta, h.Body = int(meta), int(body)
	return h, nil
}

// flusher is a net.Conn that holds written bytes back (Secure).
type flusher interface{ Flush() error }

// Conn sends and receives frames. One goroutine may receive while another sends;
// neither direction is safe for more than one.
type Conn struct {
	c      net.Conn
	proto  Protocol
	limits Limits

	br       *bufio.Reader
	head     [HeaderBytes]byte
	metaLeft int // bytes of meta to come, or -1 when Meta was called
	bodyLeft int
	meta     []byte
	readErr  error

	scratch  []byte   // cap scratchBytes
	vecs     [][]byte // the memory of vec
	vec      net.Buffers
	writeErr error
}

// NewConn frames what goes over c, which stays the caller's to close.
func NewConn(c net.Conn, p Protocol, l Limits) *Conn {
	return &Conn{c: c, proto: p, limits: l, br: bufio.NewReaderSize(c, readBuffer), metaLeft: -1}
}

// SetLimits changes the bounds from the next frame on, for peers that have proved
// who they are.
func (c *Conn) SetLimits(l Limits) { c.limits = l }

// Next waits for a frame and returns its header, of which only lengths, magic and
// version are certain before Meta returned. io.EOF where the peer closed between
// frames. The frame before must have been read to its end.
func (c *Conn) Next() (Head, error) {
	if c.readErr != nil {
		return Head{}, c.readErr
	}
	if c.metaLeft >= 0 || c.bodyLeft > 0 {
		return Head{}, fmt.Errorf("%w: the frame before was not read to its end", ErrUse)
	}
	if cap(c.meta) > keepMeta {
		c.meta = nil
	}
	if _, err := io.ReadFull(c.br, c.head[:]); err != nil {
		return Head{}, c.readFailed(err)
	}
	h, err := parseHeader(&c.head, c.proto, c.limits)
	if err != nil {
		return Head{}, c.readFailed(err)
	}
	c.metaLeft, c.bodyLeft = h.Meta, h.Body
	return h, nil
}

// Meta reads and returns the meta of the frame, valid until the next Next.
func (c *Conn) Meta() ([]byte, error) {
	if c.readErr != nil {
		return nil, c.readErr
	}
	if c.metaLeft < 0 {
		return nil, fmt.Errorf("%w: Meta without Next", ErrUse)
	}
	n, m := c.metaLeft, c.meta[:0]
	for len(m) < n {
		old := len(m)
		step := min(n-old, max(old, metaStep))
		m = slices.Grow(m, step)[:old+step]
		if _, err := io.ReadFull(c.br, m[old:]); err != nil {
			return nil, c.readFailed(midFrame(err))
		}
	}
	c.meta, c.metaLeft = m, -1
	crc := crc32.Update(crc32.Checksum(c.head[:crcOffset], castagnoli), castagnoli, m)
	if want := binary.BigEndian.Uint32(c.head[crcOffset:]); crc != want {
		return nil, c.readFailed(fmt.Errorf("%w: checksum of header and meta is %08x, stored %08x", ErrDamaged, crc, want))
	}
	return m, nil
}

// Body fills dst with the next bytes of the frame's body, which must have as many
// left. It may be called several times, once per destination.
func (c *Conn) Body(dst []byte) error {
	if c.readErr != nil {
		return c.readErr
	}
	if c.metaLeft >= 0 || len(dst) > c.bodyLeft {
		return fmt.Errorf("%w: %d bytes of a body that has %d left", ErrUse, len(dst), c.bodyLeft)
	}
	if _, err := io.ReadFull(c.br, dst); err != nil {
		return c.readFailed(midFrame(err))
	}
	c.bodyLeft -= len(dst)
	return nil
}

// Skip reads the rest of the frame's body and drops it, so that the next frame can
// be read.
func (c *Conn) Skip() error {
	if c.readErr != nil {
		return c.readErr
	}
	if c.metaLeft >= 0 {
		return fmt.Errorf("%w: Skip before Meta", ErrUse)
	}
	if _, err := c.br.Discard(c.bodyLeft); err != nil {
		return c.readFailed(midFrame(err))
	}
	c.bodyLeft = 0
	return nil
}

// BodyLeft returns how many bytes of the frame's body were not read yet.
func (c *Conn) BodyLeft() int { return c.bodyLeft }

// readFailed ends the receiving direction (W3).
func (c *Conn) readFailed(err error) error {
	c.readErr = err
	return err
}

// midFrame makes an end of the stream an error where a frame is not complete.
func midFrame(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Send writes one frame; body is the concatenation of its pieces, which are not
// changed and are the caller's again on return.
func (c *Conn) Send(typ, flags uint16, meta []byte, body ...[]byte) error {
	if c.writeErr != nil {
		return c.writeErr
	}
	var total uint64
	for _, p := range body {
		total += uint64(len(p))
	}
	if total > 1<<32-1 || uint64(len(meta)) > 1<<32-1 {
		return fmt.Errorf("%w: %d bytes of meta and %d of body in one frame", ErrUse, len(meta), total)
	}
	if c.scratch == nil {
		c.scratch = make([]byte, 0, scratchBytes)
	}
	c.scratch = appendHeader(c.scratch[:0], c.proto, typ, flags, meta, int(total))
	c.vec = append(c.vecs[:0], c.scratch)
	c.add(meta)
	for _, p := range body {
		c.add(p)
	}
	c.flush()
	if f, ok := c.c.(flusher); ok && c.writeErr == nil {
		c.writeErr = f.Flush()
	}
	return c.writeErr
}

// add queues p: copied behind what is in scratch when it is small (W4).
func (c *Conn) add(p []byte) {
	if len(p) == 0 || c.writeErr != nil {
		return
	}
	if len(p) > CoalesceBytes {
		c.vec = append(c.vec, p)
		return
	}
	if len(c.scratch)+len(p) > cap(c.scratch) {
		c.flush()
		c.scratch = c.scratch[:0]
	}
	from := len(c.scratch)
	c.scratch = append(c.scratch, p...)
	if n := len(c.vec); n > 0 && from > 0 && endsAt(c.vec[n-1], c.scratch[:from]) {
		last := c.vec[n-1]
		c.vec[n-1] = c.scratch[from-len(last):]
		return
	}
	c.vec = append(c.vec, c.scratch[from:])
}

// endsAt tells whether piece is the tail of scratch.
func endsAt(piece, scratch []byte) bool {
	return len(piece) > 0 && len(piece) <= len(scratch) && &piece[len(piece)-1] == &scratch[len(scratch)-1]
}

// flush writes the queued pieces, with writev where the connection has it.
func (c *Conn) flush() {
	queued := c.vec // WriteTo moves c.vec
	switch {
	case c.writeErr != nil:
	case len(queued) == 1:
		_, c.writeErr = c.c.Write(queued[0])
	case len(queued) > 1:
		_, c.writeErr = c.vec.WriteTo(c.c)
	}
	clear(queued)
	c.vecs = queued[:0]
	c.vec = c.vecs
}
