package journal

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/clustersum"
)

// CorruptError tells where a journal is damaged below what was promised (E3).
type CorruptError struct {
	Chunk string
	Off   int64  // bytes in the chunk; -1 if a whole chunk or record is missing
	Seq   uint64 // first seq that is missing or damaged
	Why   string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("journal damaged at seq %d (%s, offset %d): %s", e.Seq, e.Chunk, e.Off, e.Why)
}

// Found is a record of the tail and where its data are.
type Found struct {
	Header *Header
	Chunk  uint32 // id in the Log that takes the Recovery
	Off    int64  // of the data, bytes
}

// Recovery is what the journal of a vDisk holds. Give it to NewLog, or Abandon it.
type Recovery struct {
	Tail    []Found // contiguous from the seq asked for
	LastSeq uint64  // newest seq of the tail; the seq asked for minus one if it is empty
	MaxSeq  uint64  // newest seq of any valid record, also below the tail
	MaxTime int64   // newest timestamp of any valid record, Unix ns
	// Damage, a *CorruptError, is where the tail ends although acknowledged records follow; of
	// RecoverLeft alone.
	Damage error

	pool   *Pool
	vdisk  [16]byte
	chunks []*recovered
}

type recovered struct {
	id      uint32
	file    *chunkFile
	end     int64
	lastSeq uint64
	opened  uint64 // seq of its opener
	epoch   uint32 // of its opener
	found   []Found
	strays  []Found // its opener, and valid records that do not follow on another

	window    []byte // what was read last
	windowOff int64
	pooled    *[]byte // what the window is in, at first
}

// Recover reads the chunks that hold records of vdisk and returns the longest
// valid tail that starts at seq from. valid tells whether the epoch table has
// room for records of epoch that span [first, last]. A *CorruptError leaves the
// chunks as they were.
func Recover(p *Pool, vdisk [16]byte, from uint64, valid func(epoch uint32, first, last uint64) bool) (*Recovery, error) {
	return recoverTail(p, vdisk, from, valid, anyEpoch, whatIsWhole)
}

// RecoverLeft is Recover of a journal that may be damaged, by somebody's word: the tail ends
// before that. Whoever makes use of it calls Accept.
func RecoverLeft(p *Pool, vdisk [16]byte, from uint64, valid func(epoch uint32, first, last uint64) bool) (*Recovery, error) {
	return recoverTail(p, vdisk, from, valid, anyEpoch, whatIsLeft)
}

// RecoverEpoch is Recover of a copy, from the chunks that were opened in one epoch; others are
// left where they are. Records of copies are never in the group log.
func RecoverEpoch(p *Pool, vdisk [16]byte, epoch uint32, from uint64, valid func(epoch uint32, first, last uint64) bool) (*Recovery, error) {
	return recoverTail(p, vdisk, from, valid, only(epoch), whatWasCopied)
}

// recoverable is what recoverTail is to find.
type recoverable int

const (
	whatIsWhole   recoverable = iota // all that was acknowledged
	whatIsLeft                       // what is before the first damage
	whatWasCopied                    // as whatIsWhole, of records that never were in the group log
)

func recoverTail(p *Pool, vdisk [16]byte, from uint64, valid func(uint32, uint64, uint64) bool, wanted func(uint32) bool, what recoverable) (*Recovery, error) {
	r := &Recovery{pool: p, vdisk: vdisk, LastSeq: from - 1}
	for i, cf := range p.claim(vdisk, wanted) {
		r.chunks = append(r.chunks, &recovered{id: uint32(i), file: cf, end: openerBytes})
	}
	for _, c := range r.chunks {
		if err := c.scan(vdisk); err != nil {
			r.Abandon()
			return nil, err
		}
	}
	var err error
	if what != whatWasCopied {
		err = r.whole(from, valid)
	}
	left := what == whatIsLeft
	if err == nil || left && errors.As(err, new(*CorruptError)) {
		err = cmp.Or(r.assemble(from, valid), err)
	}
	switch {
	case left && errors.As(err, new(*CorruptError)):
		r.Damage = err
	case err != nil:
		r.Abandon()
		return nil, err
	}
	// What was read back may still sit in a volatile cache of the disk.
	for _, c := range r.chunks {
		if c.lastSeq >= from {
			if err := c.file.f.Sync(); err != nil {
				r.Abandon()
				return nil, fmt.Errorf("journal %s: make tail durable: %w", c.file.name, err)
			}
		}
	}
	return r, nil
}

// whole tells whether all that was acknowledged is in the chunks, as far as the group log
// tells (J6), and as far as they may have something from seq from on.
func (r *Recovery) whole(from uint64, valid func(uint32, uint64, uint64) bool) error {
	var damaged error
	for _, c := range r.chunks {
		first := max(from, c.opened)
		switch {
		case !valid(c.epoch, first, first):
		case c.file.hole: // before all damage: what is in the group log is not lost
			return fmt.Errorf("journal %s: %w", c.file.name, errHole)
		case c.file.damage != nil && damaged == nil:
			damaged = &CorruptError{Chunk: c.file.name, Off: -1, Seq: from, Why: c.file.damage.Error()}
		}
	}
	return damaged
}

// HasChunk reports whether there is a chunk that was opened for records from seq on, or moved
// later.
func (r *Recovery) HasChunk(seq uint64) bool {
	return slices.ContainsFunc(r.chunks, func(c *recovered) bool { return c.opened >= seq })
}

// Accept has the chunks count as they are, durably: what they lack is lost.
func (r *Recovery) Accept() error {
	var damaged []*chunkFile
	for _, c := range r.chunks {
		if c.file.damage != nil {
			damaged = append(damaged, c.file)
		}
	}
	return r.pool.forgetDamage(damaged)
}

// Abandon gives the chunks back, unchanged.
func (r *Recovery) Abandon() {
	r.pool.mu.Lock()
	defer r.pool.mu.Unlock()
	for _, c := range r.chunks {
		r.pool.held[r.vdisk] = append(r.pool.held[r.vdisk], c.file)
	}
	r.chunks = nil
}

// SetAside renames the chunks so that no open finds them: local state that is
// older than the backend's head (E1). DropAside deletes them.
func (r *Recovery) SetAside() error {
	for len(r.chunks) > 0 {
		c := r.chunks[len(r.chunks)-1]
		dir := r.pool.o.Dir + "/"
		if err := r.pool.o.FS.Rename(dir+c.file.name, fmt.Sprintf("%s%s%x-%s", dir, asidePrefix, r.vdisk, c.file.name)); err != nil {
			r.Abandon()
			return fmt.Errorf("journal: set %s aside: %w", c.file.name, err)
		}
		c.file.f.Close()
		r.pool.mu.Lock()
		r.pool.bytes -= c.file.bytes
		r.pool.mu.Unlock()
		r.chunks = r.chunks[:len(r.chunks)-1]
	}
	return r.pool.o.FS.SyncDir(r.pool.o.Dir)
}

const asidePrefix = "aside-"

// DropAside deletes what SetAside kept of a vDisk.
func (p *Pool) DropAside(vdisk [16]byte) error {
	list, err := p.o.FS.List(p.o.Dir)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	for _, e := range list {
		if strings.HasPrefix(e.Name, fmt.Sprintf("%s%x-", asidePrefix, vdisk)) {
			if err := p.o.FS.Remove(p.o.Dir + "/" + e.Name); err != nil {
				return fmt.Errorf("journal: %w", err)
			}
		}
	}
	return nil
}

// scan reads the records of one chunk (J1, J3).
func (c *recovered) scan(vdisk [16]byte) error {
	defer c.release()
	op, err := readOpener(c.file.f)
	if err != nil {
		return fmt.Errorf("journal %s: %w", c.file.name, err)
	}
	seed := clustersum.NewSeed(vdisk)
	gen, next := op.Generation, op.Seq
	c.opened, c.epoch = op.Seq, op.Epoch
	// What the opener promises is checked like any other promise (E3).
	c.strays = append(c.strays, Found{op, c.id, blockfs.Alignment})
	off, torn := int64(openerBytes), false
	for off+blockfs.Alignment <= c.file.bytes {
		h, err := c.record(off, gen, vdisk, seed)
		if errors.Is(err, ErrBadRecord) {
			torn = true
			off, err = c.nextMagic(off + blockfs.Alignment)
			if err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
		f := Found{h, c.id, off + int64(h.HeaderBytes)}
		switch {
		case !torn && h.Seq == next:
			c.found = append(c.found, f)
			next = h.LastSeq() + 1
			c.end = off + h.size()
		default:
			c.strays = append(c.strays, f)
		}
		off += h.size()
	}
	return nil
}

// scanWindow is how much of a chunk is read at once.
const scanWindow = 1 << 20

// scanWindows are reused: a node recovers the journals of many vDisks at its start.
var scanWindows = sync.Pool{New: func() any { b := blockfs.AlignedBuffer(scanWindow); return &b }}

// read returns n bytes at an offset, valid until the next call. Behind the log of a recycled
// chunk are old records without number, at each of which a search for the next one begins:
// they are read once all the same.
func (c *recovered) read(n int, off int64) ([]byte, error) {
	if off < c.windowOff || off+int64(n) > c.windowOff+int64(len(c.window)) {
		size := max(n, int(min(scanWindow, (c.file.bytes-off)&^(blockfs.Alignment-1))))
		buf := c.window[:0]
		if c.pooled == nil {
			c.pooled = scanWindows.Get().(*[]byte)
			buf = (*c.pooled)[:0]
		}
		if cap(buf) < size {
			buf = blockfs.AlignedBuffer(size)
		}
		c.window = nil
		if _, err := c.file.f.ReadAt(buf[:size], off); err != nil {
			return nil, fmt.Errorf("journal %s at %d: %w", c.file.name, off, err)
		}
		c.window, c.windowOff = buf[:size], off
	}
	return c.window[off-c.windowOff:][:n], nil
}

// release gives the window back.
func (c *recovered) release() {
	if c.pooled != nil {
		scanWindows.Put(c.pooled)
	}
	c.window, c.pooled = nil, nil
}

// nextMagic returns the first offset at or after off where a record could begin;
// the end of the chunk if there is none.
func (c *recovered) nextMagic(off int64) (int64, error) {
	for ; off+blockfs.Alignment <= c.file.bytes; off += blockfs.Alignment {
		b, err := c.read(blockfs.Alignment, off)
		if err != nil {
			return off, err
		}
		if bytes.HasPrefix(b, magic[:]) {
			return off, nil
		}
	}
	return off, nil
}

// record reads and verifies the record at off; ErrBadRecord if there is none.
func (c *recovered) record(off int64, gen uint64, vdisk [16]byte, seed clustersum.Seed) (*Header, error) {
	b, err := c.read(blockfs.Alignment, off)
	if err != nil {
		return nil, err
	}
	n, err := peekHeader(b)
	if errors.Is(err, ErrNewerFormat) && binary.LittleEndian.Uint64(b[24:]) != gen {
		return nil, ErrBadRecord // an earlier user's, or a guest's data that imitate a record (J1)
	}
	if err != nil {
		return nil, err
	}
	if off+int64(n) > c.file.bytes {
		return nil, ErrBadRecord
	}
	if n > len(b) {
		if b, err = c.read(n, off); err != nil {
			return nil, err
		}
	}
	h, err := decodeHeader(b)
	if err != nil {
		return nil, err
	}
	if h.Generation != gen || h.VDisk != vdisk || off+h.size() > c.file.bytes {
		return nil, ErrBadRecord
	}
	if h.DataBytes > 0 {
		data, err := c.read(int(h.DataBytes), off+int64(n))
		if err != nil {
			return nil, err
		}
		if !h.verifyData(seed, data) {
			return nil, ErrBadRecord
		}
	}
	return h, nil
}

// assemble orders what the chunks hold into the tail and looks for holes (E3).
func (r *Recovery) assemble(from uint64, valid func(uint32, uint64, uint64) bool) error {
	var all []Found
	for _, c := range r.chunks {
		for _, f := range slices.Concat(c.found, c.strays) {
			if f.Header.Seqs == 0 {
				if valid(f.Header.Epoch, f.Header.Promise, f.Header.Promise) && f.Header.Promise >= from {
					all = append(all, f)
				}
				continue
			}
			if !valid(f.Header.Epoch, f.Header.Seq, f.Header.LastSeq()) {
				continue
			}
			r.MaxSeq = max(r.MaxSeq, f.Header.LastSeq())
			r.MaxTime = max(r.MaxTime, f.Header.Time)
			if f.Header.LastSeq() >= from {
				all = append(all, f)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Found) int {
		return cmp.Or(cmp.Compare(a.Header.Seq, b.Header.Seq), cmp.Compare(b.Header.Seqs, a.Header.Seqs))
	})
	next := from
	var last *Header
	defer func() {
		r.LastSeq = next - 1
		for _, f := range r.Tail {
			c := r.chunks[f.Chunk]
			c.lastSeq = max(c.lastSeq, f.Header.LastSeq())
		}
	}()
	for _, f := range all {
		h := f.Header
		switch {
		case h.Seqs == 0:
			if h.Promise >= next {
				return r.corrupt(f, next, "a later record promises what is not there")
			}
		case h.Seq == next:
			r.Tail = append(r.Tail, f)
			next, last = h.LastSeq()+1, h
		case last != nil && h.Seq == last.Seq:
			if !h.sameContent(last) {
				return r.corrupt(f, h.Seq, "two different records of one seq")
			}
		case h.Seq < next:
			return r.corrupt(f, h.Seq, "records overlap")
		case h.Promise >= next:
			return r.corrupt(f, next, "a record below a later promise is damaged or missing")
		}
	}
	return nil
}

func (r *Recovery) corrupt(f Found, seq uint64, why string) error {
	c := r.chunks[f.Chunk]
	return &CorruptError{Chunk: c.file.name, Off: f.Off - int64(f.Header.HeaderBytes), Seq: seq, Why: why}
}
