package remote

import (
	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/internal/wire"
)

// What requests and replies say, without the time that every request begins with.
// Decoded slices refer to the frame's meta.

func decodePriority(d *wire.Decoder) osd.Priority {
	p := osd.Priority(d.Uint8())
	if p > osd.Low {
		d.Fail("priority %d", p)
	}
	return p
}

type getRequest struct {
	prio  osd.Priority
	limit int64
	keys  [][]byte
}

func (r *getRequest) encode(e *wire.Encoder) {
	e.Uint8(uint8(r.prio))
	e.Varint(r.limit)
	e.Uvarint(uint64(len(r.keys)))
	for _, k := range r.keys {
		e.Bytes(k)
	}
}

// decode reuses the memory of r.
func (r *getRequest) decode(d *wire.Decoder) error {
	r.prio = decodePriority(d)
	r.limit = d.Varint()
	r.keys = r.keys[:0]
	for range d.Count(osd.MaxListKeys, 1) {
		r.keys = append(r.keys, d.Bytes(osd.MaxKeyBytes))
	}
	return d.Done()
}

// valueHead is a value of a Get without its bytes.
type valueHead struct {
	there bool
	size  int
	crc   uint32
}

func encodeValues(e *wire.Encoder, values []osd.Value) {
	e.Uvarint(uint64(len(values)))
	for _, v := range values {
		e.Bool(v.Data != nil)
		if v.Data != nil {
			e.Uvarint(uint64(len(v.Data)))
			e.Uint32(v.CRC)
		}
	}
}

func decodeValues(d *wire.Decoder) (heads []valueHead, total int, err error) {
	heads = make([]valueHead, d.Count(osd.MaxListKeys, 1))
	for i := range heads {
		h := &heads[i]
		if h.there = d.Bool(); h.there {
			h.size = d.Uint(osd.MaxValueBytes - total)
			h.crc = d.Uint32()
			total += h.size
		}
	}
	return heads, total, d.Done()
}

type readRequest struct {
	prio   osd.Priority
	key    []byte
	off    int64
	length int
}

func (r *readRequest) encode(e *wire.Encoder) {
	e.Uint8(uint8(r.prio))
	e.Bytes(r.key)
	e.Varint(r.off)
	e.Uvarint(uint64(r.length))
}

func (r *readRequest) decode(d *wire.Decoder) error {
	if r.prio = osd.Priority(d.Uint8()); r.prio.Verified() > osd.Low {
		d.Fail("priority %d", r.prio)
	}
	r.key = d.Bytes(osd.MaxKeyBytes)
	r.off = d.Varint()
	r.length = d.Uint(osd.MaxValueBytes)
	return d.Done()
}

// encodeSum says the checksum of a Read's body, where TLS does not protect it.
func encodeSum(e *wire.Encoder, sum bool, p []byte) {
	e.Bool(sum)
	if sum {
		e.Uint32(osd.CRC(p))
	}
}

func decodeSum(d *wire.Decoder) (sum bool, crc uint32, err error) {
	if sum = d.Bool(); sum {
		crc = d.Uint32()
	}
	return sum, crc, d.Done()
}

type applyRequest struct {
	prio    osd.Priority
	asserts []osd.Assert
	updates []osd.Update // their values come in the body
	sizes   []int        // of the values, 0 for deletes
	total   int          // bytes of all values
}

func encodeApply(e *wire.Encoder, asserts []osd.Assert, updates []osd.Update, prio osd.Priority) {
	e.Uint8(uint8(prio))
	e.Uvarint(uint64(len(asserts)))
	for i := range asserts {
		a := &asserts[i]
		e.Bytes(a.Key)
		e.Bool(a.Value != nil)
		if a.Value != nil {
			e.Bytes(a.Value)
		}
	}
	e.Uvarint(uint64(len(updates)))
	for i := range updates {
		u := &updates[i]
		e.Bytes(u.Key)
		e.Bool(!u.Delete)
		if !u.Delete {
			e.Uvarint(uint64(len(u.Value)))
			e.Uint32(u.CRC)
		}
	}
}

// decode reuses the memory of r.
func (r *applyRequest) decode(d *wire.Decoder) error {
	r.prio = decodePriority(d)
	r.asserts, r.updates, r.sizes, r.total = r.asserts[:0], r.updates[:0], r.sizes[:0], 0
	for range d.Count(osd.MaxApplyOps, 2) {
		a := osd.Assert{Key: d.Bytes(osd.MaxKeyBytes)}
		if d.Bool() {
			if a.Value = d.Bytes(osd.MaxAssertBytes); a.Value == nil {
				a.Value = []byte{}
			}
		}
		r.asserts = append(r.asserts, a)
	}
	for range d.Count(osd.MaxApplyOps, 2) {
		u, n := osd.Update{Key: d.Bytes(osd.MaxKeyBytes)}, 0
		if u.Delete = !d.Bool(); !u.Delete {
			n = d.Uint(min(osd.MaxValueBytes, osd.MaxApplyBytes-r.total))
			u.CRC = d.Uint32()
		}
		r.updates = append(r.updates, u)
		r.sizes = append(r.sizes, n)
		r.total += n
	}
	return d.Done()
}

// forget lets go of what the last request referred to.
func (r *getRequest) forget() {
	if cap(r.keys) > keepOps {
		r.keys = nil
	}
	clear(r.keys)
}

// keepOps is how many keys and operations a connection keeps memory for.
const keepOps = 64

// forget lets go of what the last request referred to.
func (r *applyRequest) forget() {
	if cap(r.updates) > keepOps || cap(r.asserts) > keepOps {
		*r = applyRequest{}
		return
	}
	clear(r.asserts)
	clear(r.updates)
}

type listRequest struct {
	prio          osd.Priority
	prefix, after []byte
	limit         int64
}

func (r *listRequest) encode(e *wire.Encoder) {
	e.Uint8(uint8(r.prio))
	e.Bytes(r.prefix)
	e.Bytes(r.after)
	e.Varint(r.limit)
}

func (r *listRequest) decode(d *wire.Decoder) error {
	r.prio = decodePriority(d)
	r.prefix = d.Bytes(osd.MaxKeyBytes)
	r.after = d.Bytes(osd.MaxKeyBytes)
	r.limit = d.Varint()
	return d.Done()
}

func encodeEntries(e *wire.Encoder, list []osd.Entry) {
	e.Uvarint(uint64(len(list)))
	for i := range list {
		e.Bytes(list[i].Key)
		e.Varint(list[i].Size)
		e.Uint32(list[i].CRC)
	}
}

// decodeEntries returns entries whose keys share one new slice.
func decodeEntries(d *wire.Decoder) ([]osd.Entry, error) {
	n := d.Count(osd.MaxListKeys, 6)
	list := make([]osd.Entry, 0, n)
	keys := make([]byte, 0, d.Left())
	for range n {
		from := len(keys)
		keys = append(keys, d.Bytes(osd.MaxKeyBytes)...)
		list = append(list, osd.Entry{Key: keys[from:len(keys):len(keys)], Size: d.Varint(), CRC: d.Uint32()})
	}
	return list, d.Done()
}

type validateRequest struct {
	prefix, after []byte
	limit, budget int64
}

func (r *validateRequest) encode(e *wire.Encoder) {
	e.Bytes(r.prefix)
	e.Bytes(r.after)
	e.Varint(r.limit)
	e.Varint(r.budget)
}

func (r *validateRequest) decode(d *wire.Decoder) error {
	r.prefix = d.Bytes(osd.MaxKeyBytes)
	r.after = d.Bytes(osd.MaxKeyBytes)
	r.limit = d.Varint()
	r.budget = d.Varint()
	return d.Done()
}

func encodeValidation(e *wire.Encoder, v *osd.Validation) {
	e.Varint(int64(v.Keys))
	e.Varint(v.Bytes)
	e.Uvarint(uint64(len(v.Bad)))
	for _, k := range v.Bad {
		e.Bytes(k)
	}
	e.Bool(v.Next != nil)
	if v.Next != nil {
		e.Bytes(v.Next)
	}
}

func decodeValidation(d *wire.Decoder) (osd.Validation, error) {
	v := osd.Validation{Keys: int(d.Varint()), Bytes: d.Varint()}
	for range d.Count(osd.MaxListKeys, 1) {
		v.Bad = append(v.Bad, append([]byte{}, d.Bytes(osd.MaxKeyBytes)...))
	}
	if d.Bool() {
		v.Next = append([]byte{}, d.Bytes(osd.MaxKeyBytes)...)
	}
	return v, d.Done()
}

func encodeInfo(e *wire.Encoder, i *osd.Info) {
	e.String(i.ID)
	e.String(i.Run)
	e.Uvarint(i.Applies)
	e.Varint(i.Total)
	e.Varint(i.Used)
	e.Varint(i.Limit)
	e.Varint(i.Free)
	e.Bool(i.Full)
	e.String(i.Version)
}

func decodeInfo(d *wire.Decoder) (osd.Info, error) {
	i := osd.Info{
		ID: d.String(maxName), Run: d.String(maxName), Applies: d.Uvarint(), Total: d.Varint(), Used: d.Varint(),
		Limit: d.Varint(), Free: d.Varint(), Full: d.Bool(), Version: d.String(maxName),
	}
	return i, d.Done()
}

// counters lists the fields of s in their order on the wire.
func counters(s *osd.Stats) [9]*uint64 {
	return [...]*uint64{
		&s.Reads, &s.Applies, &s.Lists, &s.Validates, &s.ReadBytes, &s.WriteBytes, &s.Refused, &s.Corrupt, &s.Errors,
	}
}

func encodeStats(e *wire.Encoder, s *osd.Stats) {
	for _, v := range counters(s) {
		e.Uvarint(*v)
	}
}

func decodeStats(d *wire.Decoder) (s osd.Stats, err error) {
	for _, v := range counters(&s) {
		*v = d.Uvarint()
	}
	return s, d.Done()
}
