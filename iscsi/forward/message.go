package forward

import (
	"fmt"
	"time"

	"github.com/openvstorage/ovgate/internal/wire"
	"github.com/openvstorage/ovgate/iscsi"
)

// Magic begins every frame, so that a listener may be shared with other protocols.
var Magic = [4]byte{'O', 'V', 'F', 'W'}

var protocol = wire.Protocol{Magic: Magic, Version: 1}

const (
	typeHello     = 1
	typePing      = 2
	typeOpen      = 3
	typeCommand   = 4
	typeAbort     = 5
	typeReset     = 6
	typeClose     = 7
	typeWelcome   = 101
	typePong      = 102
	typeOpened    = 103
	typeAnswer    = 104
	typeResetOver = 105
	typeGone      = 106
)

const (
	maxName = 64       // ids of clusters and nodes, serial numbers
	maxIQN  = 224      // iSCSI names, with some room (RFC 7143 section 4.2.7.1: 223)
	maxText = 256      // why a node is refused
	maxMeta = 1 << 10  // two iSCSI names and what goes with them
	maxBody = 4 << 20  // the longest transfer of a command
	maxHold = 64 << 10 // commands of a link that were not answered
	// maxNexuses is more than the sessions of a node.
	maxNexuses = 2048
)

// Codes of Welcome, Opened and ResetOver.
const (
	codeOK = iota
	codeRefused
)

const (
	// pingEvery keeps a link alive through some lost pings.
	pingEvery = 500 * time.Millisecond
	// linkLost is the silence after which a link is broken.
	linkLost = 3 * time.Second
	// helloTime bounds dialling and the hello.
	helloTime = 5 * time.Second
)

func newConn(c connection) *wire.Conn {
	return wire.NewConn(c, protocol, wire.Limits{Meta: maxMeta, Body: maxBody})
}

type hello struct{ cluster, node, peer string }

func (h *hello) encode(e *wire.Encoder) {
	e.String(h.cluster)
	e.String(h.node)
	e.String(h.peer)
}

func (h *hello) decode(b []byte) error {
	d := wire.NewDecoder(b)
	h.cluster, h.node, h.peer = d.String(maxName), d.String(maxName), d.String(maxName)
	return d.Done()
}

// welcome is the answer to a hello, or a Pong: those have no code and no text.
type welcome struct {
	code  uint8
	clock int64 // ns, of the sender's monotonic clock since some moment
	text  string
}

func (w *welcome) encode(e *wire.Encoder) {
	e.Uint8(w.code)
	e.Varint(w.clock)
	e.String(w.text)
}

func (w *welcome) decode(b []byte) error {
	d := wire.NewDecoder(b)
	w.code, w.clock, w.text = d.Uint8(), d.Varint(), d.String(maxText)
	return d.Done()
}

type opening struct {
	nexus uint64
	again bool
	id    iscsi.NexusID
}

func (o *opening) encode(e *wire.Encoder) {
	e.Uvarint(o.nexus)
	e.Bool(o.again)
	e.String(o.id.Target)
	e.String(o.id.Initiator)
	e.Bytes(o.id.ISID[:])
	e.Uvarint(uint64(o.id.Group))
}

func (o *opening) decode(b []byte) error {
	d := wire.NewDecoder(b)
	o.nexus, o.again, o.id.Target, o.id.Initiator = d.Uvarint(), d.Bool(), d.String(maxIQN), d.String(maxIQN)
	if p := d.Bytes(len(o.id.ISID)); copy(o.id.ISID[:], p) != len(o.id.ISID) {
		d.Fail("an ISID of %d bytes", len(p))
	}
	o.id.Group = uint16(d.Uint(0xffff))
	return d.Done()
}

// command is a Command; a Reset has no more than the first four fields.
type command struct {
	nexus    uint64
	tag      uint32
	lun      uint16
	unit     string
	flags    uint8
	expected uint32
	cdb      [16]byte
	expires  int64 // ns, of the owner's clock
}

const (
	flagRead  = 1
	flagWrite = 2
)

func (c *command) encode(e *wire.Encoder, typ uint16) {
	e.Uvarint(c.nexus)
	e.Uvarint(uint64(c.tag))
	e.Uvarint(uint64(c.lun))
	e.String(c.unit)
	if typ == typeReset {
		return
	}
	e.Uint8(c.flags)
	e.Uvarint(uint64(c.expected))
	e.Bytes(c.cdb[:])
	e.Varint(c.expires)
}

func (c *command) decode(b []byte, typ uint16) error {
	d := wire.NewDecoder(b)
	c.nexus, c.tag, c.lun, c.unit = d.Uvarint(), uint32(d.Uint(1<<32-1)), uint16(d.Uint(0xffff)), d.String(maxName)
	if typ == typeReset {
		return d.Done()
	}
	c.flags, c.expected = d.Uint8(), uint32(d.Uint(1<<32-1))
	if c.flags > flagRead|flagWrite {
		d.Fail("flags %#x", c.flags)
	}
	if p := d.Bytes(len(c.cdb)); copy(c.cdb[:], p) != len(c.cdb) {
		d.Fail("a CDB of %d bytes", len(p))
	}
	c.expires = d.Varint()
	return d.Done()
}

// mark names a nexus or, with tag, something of it: Abort, Close, Opened, ResetOver, Gone.
type mark struct {
	nexus uint64
	tag   uint32
	code  uint8
}

func (m *mark) encode(e *wire.Encoder) {
	e.Uvarint(m.nexus)
	e.Uvarint(uint64(m.tag))
	e.Uint8(m.code)
}

func (m *mark) decode(b []byte) error {
	d := wire.NewDecoder(b)
	m.nexus, m.tag, m.code = d.Uvarint(), uint32(d.Uint(1<<32-1)), d.Uint8()
	return d.Done()
}

type answer struct {
	nexus       uint64
	tag         uint32
	outcome     iscsi.Outcome
	status      uint8
	transferred uint64
	sense       []byte
}

func (a *answer) encode(e *wire.Encoder) {
	e.Uvarint(a.nexus)
	e.Uvarint(uint64(a.tag))
	e.Uint8(uint8(a.outcome))
	e.Uint8(a.status)
	e.Uvarint(a.transferred)
	e.Bytes(a.sense)
}

func (a *answer) decode(b []byte) error {
	d := wire.NewDecoder(b)
	a.nexus, a.tag, a.outcome, a.status = d.Uvarint(), uint32(d.Uint(1<<32-1)), iscsi.Outcome(d.Uint8()), d.Uint8()
	a.transferred, a.sense = d.Uvarint(), d.Bytes(maxText)
	if a.outcome < iscsi.OutcomeDone || a.outcome > iscsi.OutcomeOver {
		d.Fail("outcome %d", a.outcome)
	}
	return d.Done()
}

// refused is an error of the protocol: the connection ends.
func refused(format string, a ...any) error { return fmt.Errorf("forward: "+format, a...) }
