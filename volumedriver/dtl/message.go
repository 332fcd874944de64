package dtl

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/openvstorage/ovgate/internal/wire"
	"github.com/openvstorage/ovgate/volumedriver/journal"
)

// Grant is how long an answer lets a node serve, from the moment of asking (D4).
const Grant = 2 * time.Second

// hold is how long the server keeps a grant: a tenth more, for clocks that run apart.
const hold = Grant + Grant/10

const (
	maxName = 64
	maxText = 256
	// maxMeta bounds the meta of a message: two names and what goes with them.
	maxMeta = 1 << 10
	// maxQueued bounds the records of a session that were not answered, in bytes: four of
	// the largest, some milliseconds of a link and a disk.
	maxQueued = 4 * journal.MaxRecordBytes
	// maxRequests bounds the requests of a session that were not answered.
	maxRequests = 16384
)

var protocol = wire.Protocol{Magic: [4]byte{'O', 'V', 'G', 'D'}, Version: 1}

const (
	typeHello   = 1
	typeOpen    = 2
	typeAppend  = 3
	typeRelease = 4
	typeResume  = 5
	typeDrop    = 6
	typePing    = 7
	typeYield   = 8
	typeAnswer  = 100
)

// Answers of a Server, also as errors of a Client.
var (
	// ErrFull: the peer has no room for the copy; give the vDisk another peer.
	ErrFull = errors.New("dtl: the peer has no room")
	// ErrFenced: a newer opening owns the vDisk.
	ErrFenced = errors.New("dtl: a newer opening owns the vdisk")
	// ErrGeneration: the peer does not have that copy any more.
	ErrGeneration = errors.New("dtl: the peer has no such copy")
	// ErrGranted: the node that the copy is of may be serving still; ask again.
	ErrGranted = errors.New("dtl: the former owner's grant is not over")
	// ErrRefused: the request does not follow the protocol, or a record is damaged.
	ErrRefused = errors.New("dtl: the peer refused the request")
	// ErrFailed: the peer's disk did not take it.
	ErrFailed = errors.New("dtl: the peer failed")
)

// codes are the errors by their number on the wire; 0 is none.
var codes = []error{nil, ErrFull, ErrFenced, ErrGeneration, ErrGranted, ErrRefused, ErrFailed}

func codeOf(err error) uint8 {
	for i, e := range codes {
		if errors.Is(err, e) {
			return uint8(i)
		}
	}
	return uint8(len(codes) - 1)
}

// receive reads the next message up to its body. The meta is good until the next one.
func receive(c *wire.Conn) (wire.Head, []byte, error) {
	head, err := c.Next()
	if err != nil {
		return head, nil, err
	}
	meta, err := c.Meta()
	return head, meta, err
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

type request struct {
	id         uint64
	vdisk      [16]byte
	epoch      uint32
	cluster    uint32 // bytes
	generation uint64
	seq        uint64
}

func (r *request) encode(e *wire.Encoder) {
	e.Uint64(r.id)
	e.Bytes(r.vdisk[:])
	e.Uint32(r.epoch)
	e.Uint32(r.cluster)
	e.Uint64(r.generation)
	e.Uint64(r.seq)
}

func (r *request) decode(b []byte) error {
	d := wire.NewDecoder(b)
	r.id = d.Uint64()
	if p := d.Bytes(16); copy(r.vdisk[:], p) != 16 {
		d.Fail("a vdisk id of %d bytes", len(p))
	}
	r.epoch, r.cluster, r.generation, r.seq = d.Uint32(), d.Uint32(), d.Uint64(), d.Uint64()
	return d.Done()
}

type answer struct {
	id         uint64
	code       uint8
	generation uint64
	seq        uint64
	text       string
}

func (a *answer) encode(e *wire.Encoder) {
	e.Uint64(a.id)
	e.Uint8(a.code)
	e.Uint64(a.generation)
	e.Uint64(a.seq)
	e.String(a.text)
}

func (a *answer) decode(b []byte) error {
	d := wire.NewDecoder(b)
	a.id, a.code, a.generation, a.seq, a.text = d.Uint64(), d.Uint8(), d.Uint64(), d.Uint64(), d.String(maxText)
	if int(a.code) >= len(codes) {
		d.Fail("answer code %d", a.code)
	}
	return d.Done()
}

// err returns what the answer says went wrong.
func (a *answer) err() error {
	if a.code == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", codes[a.code], a.text)
}

// failed makes the answer to a request that err ended.
func failed(id uint64, err error) answer {
	a := answer{id: id, code: codeOf(err)}
	a.text = strings.TrimPrefix(err.Error(), codes[a.code].Error()+": ") // the client puts it in front again
	a.text = a.text[:min(len(a.text), maxText)]
	return a
}
