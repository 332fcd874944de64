package esxsim

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/iscsi/initiator"
)

// Exchange is a SCSI command of a host, on its way to a target or back.
type Exchange struct {
	Host   string // its name
	Portal string
	// Asked: the target gets CDB and LUN as they are now. Otherwise it has answered, with
	// Data, or with Status and Sense, and the host gets these.
	Asked bool
	At    time.Time // when it was asked
	LUN   byte
	CDB   [16]byte

	Data   []byte  // of a READ, INQUIRY, …; to be changed in place
	Ended  bool    // what follows is set
	Status byte    // of initiator's codes
	Sense  [3]byte // key, code and qualifier, with CheckCondition
}

// Lost tells whether the answer says that the LUN is gone for good, by which hosts stop
// virtual machines and never come back to it.
func (x *Exchange) Lost() bool {
	if !x.Ended || x.Status != initiator.CheckCondition {
		return false
	}
	switch x.Sense {
	case [3]byte{5, 0x25, 0}, [3]byte{5, 0x68, 0}, [3]byte{4, 0x4c, 0}, [3]byte{4, 0x3e, 0}, [3]byte{4, 0x3e, 1}, [3]byte{4, 0x3e, 3}:
		return true
	}
	return false
}

// PDU opcodes and the layout of a basic header segment, RFC 7143 11.2 to 11.7.
const (
	bhs        = 48
	opCommand  = 0x01
	opResponse = 0x21
	opDataIn   = 0x25
	statusBit  = 0x01
	// pduMax is above what initiator lets a target send, in bytes.
	pduMax = 4 << 20
)

// errNoWay: a test cut it.
var errNoWay = errors.New("no way to the portal")

// dial connects to a portal: as Options.Reach and Options.Between say.
func (h *Host) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if h.f.reach != nil && !h.f.reach(h.sys.Name, address) {
		return nil, errNoWay
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, network, address)
	if err != nil || h.f.between == nil {
		return c, err
	}
	near, far := net.Pipe()
	w := &wire{host: h.sys.Name, portal: address, near: far, far: c, between: h.f.between, open: map[uint32]*Exchange{}}
	h.f.wg.Add(2)
	go func() { defer h.f.wg.Done(); w.carry(far, c, w.asked) }()
	go func() { defer h.f.wg.Done(); w.carry(c, far, w.answered) }()
	return near, nil
}

// wire is a connection between a host and a portal, without digests.
type wire struct {
	host, portal string
	near, far    net.Conn
	between      func(*Exchange)

	mu   sync.Mutex
	open map[uint32]*Exchange // by task tag
}

// carry brings PDUs from one end to the other until either closes.
func (w *wire) carry(from io.Reader, to io.Writer, look func(h, data []byte) []byte) {
	defer w.near.Close()
	defer w.far.Close()
	h := make([]byte, bhs)
	for {
		if _, err := io.ReadFull(from, h); err != nil {
			return
		}
		extra, n := int(h[4])*4, int(h[5])<<16|int(h[6])<<8|int(h[7])
		if n > pduMax {
			return
		}
		body := make([]byte, extra+(n+3)&^3)
		if _, err := io.ReadFull(from, body); err != nil {
			return
		}
		data := look(h, body[extra:extra+n])
		h[5], h[6], h[7] = byte(len(data)>>16), byte(len(data)>>8), byte(len(data))
		out := append(append(append([]byte(nil), h...), body[:extra]...), data...)
		if _, err := to.Write(append(out, make([]byte, -len(data)&3)...)); err != nil {
			return
		}
	}
}

// asked looks at what a host sends.
func (w *wire) asked(h, data []byte) []byte {
	if h[0]&0x3f != opCommand {
		return data
	}
	x := &Exchange{Host: w.host, Portal: w.portal, Asked: true, At: time.Now(), LUN: h[9], CDB: [16]byte(h[32:])}
	seen := *x
	w.between(x)
	copy(h[32:], x.CDB[:])
	h[9] = x.LUN
	w.mu.Lock()
	defer w.mu.Unlock()
	seen.Asked = false
	w.open[binary.BigEndian.Uint32(h[16:])] = &seen // as the host asked
	return data
}

// answered looks at what a target sends.
func (w *wire) answered(h, data []byte) []byte {
	op := h[0] & 0x3f
	if op != opResponse && op != opDataIn {
		return data
	}
	tag := binary.BigEndian.Uint32(h[16:])
	w.mu.Lock()
	x := w.open[tag]
	if op == opResponse || h[1]&statusBit != 0 {
		delete(w.open, tag)
	}
	w.mu.Unlock()
	if x == nil {
		return data
	}
	if op == opDataIn {
		x.Data = data
		w.between(x)
		x.Data = nil
		return data
	}
	x.Ended, x.Status, x.Sense = true, h[3], senseOf(data)
	was := *x
	w.between(x)
	if x.Status == was.Status && x.Sense == was.Sense {
		return data
	}
	if h[3] = x.Status; x.Status != initiator.CheckCondition {
		return nil
	}
	const length = 18
	b := make([]byte, 2+length) // fixed format, SPC-4 4.5.3
	b[1], b[2], b[4], b[9], b[14], b[15] = length, 0x70, x.Sense[0], length-8, x.Sense[1], x.Sense[2]
	return b
}

// senseOf reads key, code and qualifier of sense data in either format.
func senseOf(b []byte) [3]byte {
	const prefix, descriptors = 2, 0x72
	switch {
	case len(b) < prefix+8:
		return [3]byte{}
	case b[prefix]&0x7f >= descriptors:
		return [3]byte{b[prefix+1] & 0xf, b[prefix+2], b[prefix+3]}
	case len(b) < prefix+14:
		return [3]byte{}
	}
	return [3]byte{b[prefix+2] & 0xf, b[prefix+12], b[prefix+13]}
}
