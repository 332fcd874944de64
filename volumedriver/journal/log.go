package journal

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/clustersum"
)

const (
	// segmentBytes is the usual size of a piece of journal kept in memory.
	segmentBytes = 1 << 20
	// maxFailovers bounds how many chunks one append may use up (E4): if this
	// many files in a row refuse a write, the disk is gone.
	maxFailovers = 3
	// promiseBytes is the size of an empty record.
	promiseBytes = blockfs.Alignment
)

// Errors of a Log.
var (
	// ErrNoChunk: the append needs another chunk and the pool has none now.
	ErrNoChunk = errors.New("no free journal chunk")
	// ErrFailed: the log took no write on several chunks in a row; it is read-only.
	ErrFailed = errors.New("journal failed")
)

// Memory is a budget shared by logs for journal data kept beside the files.
type Memory struct {
	Max  int64
	used atomic.Int64

	mu sync.Mutex
	// free are segments for the next ones, by size: new memory costs as much as a copy.
	free [len(segmentSizes)][][]byte
}

// segmentSizes are the sizes of segments that are used again: the usual one, and that
// of a record with 1 MiB of data.
var segmentSizes = [...]int64{segmentBytes, segmentBytes + 64<<10}

// maxFree is the share of the budget, as a divisor, that segments of a size which are kept
// for use again may have.
const maxFree = 4

// get returns a segment of n bytes or more, of any content, and counts it.
func (m *Memory) get(n int64) []byte {
	var buf []byte
	for i, size := range segmentSizes {
		if n > size {
			continue
		}
		m.mu.Lock()
		if k := len(m.free[i]); k > 0 {
			buf, m.free[i] = m.free[i][k-1], m.free[i][:k-1]
		}
		m.mu.Unlock()
		n = size
		break
	}
	if buf == nil {
		buf = blockfs.AlignedBuffer(int(n))
	}
	m.used.Add(int64(cap(buf)))
	return buf
}

// put gives a segment back that nobody reads any more.
func (m *Memory) put(buf []byte) {
	m.used.Add(-int64(cap(buf)))
	for i, size := range segmentSizes {
		if int64(cap(buf)) != size {
			continue
		}
		m.mu.Lock()
		if k := len(m.free[i]); int64(k)*size < m.Max/maxFree {
			m.free[i] = append(m.free[i], buf[:size])
		}
		m.mu.Unlock()
	}
}

// Batch is what one append writes.
type Batch struct {
	Seqs    uint32
	Extents []Extent // Data indexes count the clusters of Parts in order
	Parts   [][]byte // whole clusters of the data extents, in order
	Time    int64    // Unix ns
	// Sums receives the checksum of each cluster; reused by the caller.
	Sums []uint32
}

// Placed tells where an append went.
type Placed struct {
	Seq   uint64 // first
	Chunk uint32 // id for Pin
	Off   int64  // of the data in the chunk, bytes
	Bytes int64  // journal space used, header included
}

// Log is the journal of one open vDisk. Append, Build, Finish, AddChunk and Promise are for
// one goroutine, the committer; Start may run in others. The rest is safe for concurrent
// use.
type Log struct {
	pool    *Pool
	vdisk   [16]byte
	epoch   uint32
	cluster uint32
	seed    clustersum.Seed
	mem     *Memory

	seq     uint64 // next
	durable uint64 // newest seq that is durable with all before it
	promise uint64 // promise of the newest record
	time    int64
	cur     *Chunk // appended to; the committer's
	off     int64  // append position in it
	ingests bool   // it is of another node's records

	mu     sync.Mutex
	chunks []*Chunk // oldest first; the last is current unless sealed
	table  map[uint32]*Chunk
	nextID uint32
	sealed bool
	failed error
	bytes  int64
}

// Chunk is a chunk of a Log. Its identity survives a change of the file below (J4).
type Chunk struct {
	log        *Log
	id         uint32
	size       int64 // bytes; of what is appended to
	generation uint64
	lastSeq    uint64 // newest seq in it

	settling sync.Mutex // held while the file is made whole, or changed
	closed   bool       // the log was; settling is held

	mu      sync.RWMutex
	file    *chunkFile
	segs    []segment // ascending, without gaps from the oldest kept
	end     int64     // of what was appended
	settled int64     // what is before is in the file; what is not, is in memory and the group log

	refs atomic.Int32 // readers, plus one while the log needs it
}

type segment struct {
	off int64
	buf []byte // from AlignedBuffer
}

// LogOptions configure a Log.
type LogOptions struct {
	Pool    *Pool
	VDisk   [16]byte
	Epoch   uint32
	Cluster int    // bytes
	NextSeq uint64 // first seq to assign
	Time    int64  // newest timestamp given out so far, Unix ns
	Memory  *Memory
}

// NewLog starts the journal of an opening. It holds the chunks in tail (from
// Recovery) until they are released. A tail that is not empty is of the same Pool.
func NewLog(o LogOptions, tail *Recovery) *Log {
	l := &Log{pool: o.Pool, vdisk: o.VDisk, epoch: o.Epoch, cluster: uint32(o.Cluster),
		seed: clustersum.NewSeed(o.VDisk), mem: o.Memory, seq: o.NextSeq, durable: o.NextSeq - 1, promise: o.NextSeq - 1,
		time: o.Time, table: map[uint32]*Chunk{}, sealed: true}
	if l.mem == nil {
		l.mem = &Memory{}
	}
	if tail != nil {
		for _, rc := range tail.chunks {
			if rc.lastSeq == 0 { // nothing above the committed head
				tail.pool.give(rc.file)
				continue
			}
			c := &Chunk{log: l, id: rc.id, file: rc.file, lastSeq: rc.lastSeq, end: rc.end, settled: rc.end}
			c.refs.Store(1)
			l.chunks = append(l.chunks, c)
			l.table[c.id] = c
			l.nextID = max(l.nextID, c.id+1)
			l.bytes += rc.file.bytes
		}
		tail.chunks = nil
	}
	return l
}

// RecordBytes returns the journal space of a record.
func RecordBytes(extents, clusters, clusterBytes int) int64 {
	return int64(headerSize(extents, clusters)) + int64(clusters)*int64(clusterBytes)
}

// Fits reports whether a record of n bytes goes into the current chunk, with room
// left for the promise that follows it on an idle vDisk.
func (l *Log) Fits(n int64) bool {
	return !l.sealed && l.off+n+promiseBytes <= l.cur.size
}

// AddChunk takes a chunk from the pool and opens it; ErrNoChunk if there is none. All that
// was built is finished.
func (l *Log) AddChunk() error {
	return l.addChunk(func(first bool) (*chunkFile, error) {
		cf, _, err := l.pool.tryTake(first)
		return cf, err
	})
}

// AwaitChunk is AddChunk for who cannot come again later: it waits for chunks that are
// being made.
func (l *Log) AwaitChunk() error { return l.addChunk(l.pool.take) }

func (l *Log) addChunk(take func(first bool) (*chunkFile, error)) error {
	l.mu.Lock()
	first, failed := len(l.chunks) == 0, l.failed
	l.mu.Unlock()
	if failed != nil {
		return failed
	}
	for range maxFailovers {
		cf, err := take(first)
		if err != nil {
			return err
		}
		if cf == nil {
			return ErrNoChunk
		}
		gen, err := l.openChunk(cf, l.seq, l.time)
		if err != nil {
			l.pool.o.Log.Error("journal chunk refused its opener", "chunk", cf.name, "err", err)
			l.pool.drop(cf)
			continue
		}
		c := &Chunk{log: l, size: cf.bytes, generation: gen, file: cf, lastSeq: l.seq - 1, end: openerBytes, settled: openerBytes}
		c.refs.Store(1)
		l.mu.Lock()
		c.id = l.nextID
		l.nextID++
		l.chunks = append(l.chunks, c)
		l.table[c.id] = c
		l.bytes += cf.bytes
		l.sealed = false
		l.mu.Unlock()
		l.cur, l.off = c, openerBytes
		return nil
	}
	return l.fail(fmt.Errorf("%w: %d chunks in a row took no write", ErrFailed, maxFailovers))
}

// openChunk writes the two openers of a chunk with a new generation, for records from
// seq on; all before it is durable.
func (l *Log) openChunk(cf *chunkFile, seq uint64, time int64) (uint64, error) {
	gen, err := l.pool.newGeneration()
	if err != nil {
		return 0, err
	}
	h := Header{HeaderBytes: blockfs.Alignment, Generation: gen, VDisk: l.vdisk, Epoch: l.epoch,
		Seq: seq, Promise: seq - 1, Time: time, Cluster: l.cluster}
	buf := blockfs.AlignedBuffer(openerBytes)
	encodeHeader(buf[:blockfs.Alignment], &h)
	copy(buf[blockfs.Alignment:], buf[:blockfs.Alignment])
	cf.owner, cf.epoch = l.vdisk, l.epoch
	_, err = cf.f.WriteAt(buf, 0)
	return gen, err
}

// failure is why the log ended; nil: it did not.
func (l *Log) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

func (l *Log) fail(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed == nil {
		l.failed = err
		l.pool.MarkFailed(err)
	}
	return l.failed
}

// Record is an append that Build made. Start writes it, and Finish makes sure that it is
// durable.
type Record struct {
	chunk      *Chunk
	at         Placed
	buf        []byte // header and data, in the memory that stands for the chunk
	header     int    // bytes
	generation uint64 // of the chunk, as the header says
	time       int64
	lastSeq    uint64
	err        error // what came of Start
	together   bool  // it is durable in the group log, and not in the chunk
	grouped    chan bool
}

// Append writes one record durably (J2). The caller made room with Fits and
// AddChunk, and no record is under way. On an error other than ErrNoChunk the log is
// failed for good.
func (l *Log) Append(b *Batch) (Placed, error) {
	var r Record
	l.Build(b, &r)
	l.Start(&r)
	return l.Finish(&r)
}

// Build puts a batch into the chunk's memory, as the record that follows those built
// before. The caller made room with Fits and AddChunk. Earlier records may be under way:
// its promise is of those that are finished.
func (l *Log) Build(b *Batch, r *Record) {
	clusters := 0
	for _, p := range b.Parts {
		clusters += len(p) / int(l.cluster)
	}
	hdr := headerSize(len(b.Extents), clusters)
	total := int64(hdr + clusters*int(l.cluster))
	c := l.cur
	buf := l.space(c, total)[:total]
	if cap(b.Sums) < clusters {
		b.Sums = make([]uint32, clusters)
	}
	b.Sums = b.Sums[:clusters]
	l.fill(buf[hdr:], b)
	l.time = max(l.time, b.Time)
	encodeHeader(buf[:hdr], &Header{HeaderBytes: uint32(hdr), DataBytes: uint32(total) - uint32(hdr), Generation: c.generation,
		VDisk: l.vdisk, Epoch: l.epoch, Seqs: b.Seqs, Seq: l.seq, Promise: l.durable, Time: l.time,
		Cluster: l.cluster, Extents: b.Extents, Sums: b.Sums})
	*r = Record{grouped: r.grouped, chunk: c, buf: buf, header: hdr, generation: c.generation, time: l.time, lastSeq: l.seq + uint64(b.Seqs) - 1,
		at: Placed{Seq: l.seq, Chunk: c.id, Off: l.off + int64(hdr), Bytes: total}}
	l.promise = l.durable
	l.seq += uint64(b.Seqs)
	l.off += total
}

// Start writes a record. Several may be under way at once, and end in any order. What comes
// of it, Finish tells, also that of an error: then no other Start is under way any more.
func (l *Log) Start(r *Record) {
	if g := l.pool.group; g != nil && !l.ingests { // what is ingested is not in memory
		defer g.under.Add(-1)
		if g.under.Add(1) >= g.from && g.append(r) {
			r.together = true
			return
		}
	}
	_, r.err = r.chunk.file.f.WriteAt(r.buf, r.start())
}

// Failed tells that Start met an error.
func (r *Record) Failed() bool { return r.err != nil }

// Finish makes sure that a record that was started is durable (J2). Records are finished in
// the order they were built. On an error other than ErrNoChunk the log is failed for good.
func (l *Log) Finish(r *Record) (Placed, error) {
	c := r.chunk
	if err := l.failure(); err != nil {
		return Placed{}, err
	}
	if r.err != nil || r.generation != c.generation { // another one's error had the chunk moved
		if err := l.again(r); err != nil {
			return Placed{}, err
		}
	}
	c.mu.Lock()
	c.end = r.start() + r.at.Bytes
	c.lastSeq = r.lastSeq
	if !r.together && c.settled == r.start() {
		c.settled = c.end
	}
	c.mu.Unlock()
	l.durable = r.lastSeq
	return r.at, nil
}

// start returns where in the chunk the record begins.
func (r *Record) start() int64 { return r.at.Off - int64(r.header) }

// fill computes the sums of the data and copies them behind the header, cluster by cluster:
// one pass over memory.
func (l *Log) fill(dst []byte, b *Batch) {
	i, part, pos := 0, 0, 0
	for k := range b.Extents {
		e := &b.Extents[k]
		if !e.HasData() {
			continue
		}
		per := uint64(l.cluster / lbaBytes)
		for n := uint64(0); n < e.Length/per; n++ {
			for pos == len(b.Parts[part]) {
				part, pos = part+1, 0
			}
			cluster := b.Parts[part][pos : pos+int(l.cluster)]
			b.Sums[i] = l.seed.Sum(e.LBA+n*per, cluster)
			dst = dst[copy(dst, cluster):]
			i++
			pos += int(l.cluster)
		}
	}
}

// Promise appends an empty record when the newest record is not promised yet, so
// that damage to it is told from a torn tail (E3). It reports whether it wrote.
func (l *Log) Promise(now int64) (bool, error) {
	if !l.Unpromised() || l.off+promiseBytes > l.cur.size {
		return false, nil
	}
	if l.ingests {
		err := l.promiseApart(now)
		return err == nil, err
	}
	_, err := l.Append(&Batch{Time: now})
	if err == nil {
		l.promise = l.seq - 1
	}
	return err == nil, err
}

// Unpromised reports whether the newest record lacks a promise.
func (l *Log) Unpromised() bool { return l.promise != l.seq-1 && !l.sealed }

// again puts a record where it belongs after its chunk file refused a write, its own or
// that of a record before it: on another file (J4).
func (l *Log) again(r *Record) error {
	c, err := r.chunk, r.err
	c.settling.Lock()
	defer c.settling.Unlock()
	r.together = false
	for try := 0; ; try++ {
		if err != nil {
			l.pool.o.Log.Error("journal append failed; moving the chunk", "chunk", c.file.name, "off", r.start(), "err", err)
			if try == maxFailovers {
				break
			}
			if merr := l.move(r); merr != nil {
				err = fmt.Errorf("%w; %w", err, merr) // the write's error is why
				break
			}
		}
		r.generation = c.generation
		regenerate(r.buf[:r.header], r.generation)
		if _, err = c.file.f.WriteAt(r.buf, r.start()); err == nil {
			return nil
		}
	}
	return l.fail(fmt.Errorf("%w: %w", ErrFailed, err))
}

// move copies what is in front of a record to another file, with a new generation, and
// swaps the file below the Chunk (J4). The old file is removed. The chunk's settling is held.
func (l *Log) move(r *Record) error {
	c := r.chunk
	last := ErrNoChunk
	for range maxFailovers {
		cf, err := l.pool.take(true)
		if err != nil {
			return err
		}
		if cf == nil {
			return fmt.Errorf("%w to move %s to", ErrNoChunk, c.file.name)
		}
		if cf.bytes < c.size {
			l.pool.drop(cf)
			continue
		}
		gen, err := l.openChunk(cf, r.at.Seq, r.time)
		if err == nil {
			err = l.copyRecords(c, r.start(), cf, gen)
		}
		if err != nil {
			l.pool.o.Log.Error("journal chunk not moved", "from", c.file.name, "to", cf.name, "err", err)
			l.pool.drop(cf)
			last = err
			continue
		}
		c.mu.Lock()
		old := c.file
		c.file, c.generation, c.settled = cf, gen, r.start()
		c.mu.Unlock()
		l.pool.drop(old)
		return nil
	}
	return fmt.Errorf("no chunk took the copy of %s: %w", c.file.name, last)
}

// copyRecords writes the records of c up to end to cf under a new generation.
func (l *Log) copyRecords(c *Chunk, end int64, cf *chunkFile, gen uint64) error {
	head := blockfs.AlignedBuffer(blockfs.Alignment)
	for off := int64(openerBytes); off < end; {
		if err := c.readAt(head, off); err != nil {
			return err
		}
		n, err := peekHeader(head)
		if err != nil {
			return fmt.Errorf("%s at %d: %w", c.file.name, off, err)
		}
		hb := blockfs.AlignedBuffer(n)
		fromDisk, err := c.ReadAt(hb, off)
		if err != nil {
			return err
		}
		h, err := decodeHeader(hb)
		// Memory keeps the generation of the file that it was first appended to.
		if err != nil || fromDisk && h.Generation != c.generation {
			return fmt.Errorf("%s at %d: %w", c.file.name, off, ErrBadRecord)
		}
		rec := blockfs.AlignedBuffer(int(h.size()))
		if err := c.readAt(rec, off); err != nil {
			return err
		}
		if !h.verifyData(l.seed, rec[n:]) {
			return fmt.Errorf("%s at %d: data: %w", c.file.name, off, ErrBadRecord)
		}
		regenerate(rec[:n], gen)
		if _, err := cf.f.WriteAt(rec, off); err != nil {
			return err
		}
		off += h.size()
	}
	return nil
}

// space returns n bytes of memory that stand for the chunk at the append
// position, and drops older memory above the budget. No lock of a chunk is held while
// the log's is taken: Release takes them the other way round.
func (l *Log) space(c *Chunk, n int64) []byte {
	if buf := l.rest(c, n); buf != nil {
		return buf
	}
	if n > l.mem.Max-l.mem.used.Load() {
		l.shed(n)
	}
	buf := l.mem.get(n)
	c.mu.Lock()
	c.segs = append(c.segs, segment{l.off, buf})
	c.mu.Unlock()
	return buf[:n]
}

// rest returns n bytes of the last segment at the append position, nil if it has not
// so many.
func (l *Log) rest(c *Chunk, n int64) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := len(c.segs)
	if k == 0 {
		return nil
	}
	s := &c.segs[k-1]
	if at := l.off - s.off; at+n <= int64(len(s.buf)) {
		return s.buf[at : at+n]
	}
	// What follows goes to a new segment that starts where the appends are. The
	// rest of this one stays allocated, so it stays counted.
	s.buf = s.buf[:l.off-s.off]
	return nil
}

// shed drops this log's oldest memory until n bytes fit the budget or nothing
// is left that the files have.
func (l *Log) shed(n int64) {
	l.mu.Lock()
	chunks := append([]*Chunk(nil), l.chunks...)
	l.mu.Unlock()
	for _, c := range chunks {
		c.mu.Lock()
		built := c.end
		if c == l.cur {
			built = l.off
		}
		for len(c.segs) > 0 && n > l.mem.Max-l.mem.used.Load() && min(c.segs[0].off+int64(len(c.segs[0].buf)), built) <= c.settled {
			l.mem.used.Add(-int64(cap(c.segs[0].buf))) // not to be used again: there may be readers
			c.segs[0].buf = nil
			c.segs = c.segs[1:]
		}
		c.mu.Unlock()
	}
}

// Seal ends the current chunk, so that it can be released when committed.
func (l *Log) Seal() { l.mu.Lock(); l.sealed = true; l.mu.Unlock() }

// NextSeq returns the seq that the next append starts with.
func (l *Log) NextSeq() uint64 { return l.seq }

// Bytes returns the size of the chunks the log holds.
func (l *Log) Bytes() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bytes
}

// Pin returns the chunk with a reference that Unpin gives back; the chunk must
// not have been released.
func (l *Log) Pin(id uint32) *Chunk {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.table[id]
	c.refs.Add(1)
	return c
}

// Unpin gives a reference back.
func (c *Chunk) Unpin() {
	if c.refs.Add(-1) > 0 {
		return
	}
	c.forget()
	c.log.pool.give(c.file)
}

// forget gives its memory back.
func (c *Chunk) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.segs {
		c.log.mem.put(s.buf)
	}
	c.segs = nil
}

// Release gives up every chunk that holds nothing above the committed seq (J5).
func (l *Log) Release(committed uint64) {
	l.mu.Lock()
	var gone []*Chunk
	keep := l.chunks[:0]
	for i, c := range l.chunks {
		c.mu.RLock()
		last := c.lastSeq
		c.mu.RUnlock()
		if current := i == len(l.chunks)-1 && !l.sealed; !current && last <= committed {
			gone = append(gone, c)
			delete(l.table, c.id)
			l.bytes -= c.file.bytes
			continue
		}
		keep = append(keep, c)
	}
	clear(l.chunks[len(keep):])
	l.chunks = keep
	l.mu.Unlock()
	for _, c := range gone {
		c.Unpin()
	}
}

// InMemory reports whether n bytes at off can be read without the disk.
func (c *Chunk) InMemory(off, n int64) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.segs) > 0 && off >= c.segs[0].off
}

// Settled returns up to where, in bytes, the file has all that was appended. What is behind is
// in memory.
func (c *Chunk) Settled() int64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.settled
}

// Copy fills pieces that follow each other in the chunk, from off on, from memory, and
// returns how many; piece returns the next one, nil at the end. It holds no lock while it
// copies, which would hold up appends: what was appended does not change, and the memory
// of a chunk is not used again before its last reader is gone.
func (c *Chunk) Copy(off int64, piece func(i int) []byte) (n int) {
	var segs [copySegs]segment
	k := 0
	c.mu.RLock()
	if len(c.segs) > 0 && off >= c.segs[0].off {
		for _, s := range c.segs {
			if k < copySegs && off < s.off+int64(len(s.buf)) {
				segs[k] = s
				k++
			}
		}
	}
	c.mu.RUnlock()
	for p := piece(0); p != nil && copyFrom(segs[:k], p, off); p = piece(n) {
		n++
		off += int64(len(p))
	}
	return n
}

// copySegs is how many segments one Copy looks at: more than a record of 1 MiB lies in.
const copySegs = 4

// ReadAt fills p from the chunk. fromDisk tells that the bytes come from the
// file and are to be verified by the caller. Offset and length are multiples
// of blockfs.Alignment.
func (c *Chunk) ReadAt(p []byte, off int64) (fromDisk bool, err error) {
	c.mu.RLock()
	ok := c.copySegments(p, off)
	c.mu.RUnlock()
	if ok {
		return false, nil
	}
	return true, c.readFile(p, off)
}

// readAt reads for the log itself, whatever the source.
func (c *Chunk) readAt(p []byte, off int64) error {
	_, err := c.ReadAt(p, off)
	return err
}

// copySegments copies from memory; c.mu is held for reading.
func (c *Chunk) copySegments(p []byte, off int64) bool { return copyFrom(c.segs, p, off) }

// copyFrom copies what segments that follow each other have; false if not all of it.
func copyFrom(segs []segment, p []byte, off int64) bool {
	if len(segs) == 0 || off < segs[0].off {
		return false
	}
	for i := range segs {
		s := &segs[i]
		if len(p) == 0 {
			break
		}
		if at := off - s.off; at >= 0 && at < int64(len(s.buf)) {
			n := copy(p, s.buf[at:])
			p, off = p[n:], off+int64(n)
		}
	}
	return len(p) == 0
}

func (c *Chunk) readFile(p []byte, off int64) error {
	buf := p
	if !blockfs.Aligned(p) {
		buf = blockfs.AlignedBuffer(len(p))
	}
	for {
		c.mu.RLock()
		cf := c.file
		c.mu.RUnlock()
		n, err := cf.f.ReadAt(buf, off)
		if n == len(buf) {
			break
		}
		c.mu.RLock()
		moved := c.file != cf // the old file was closed under us (J4)
		c.mu.RUnlock()
		if !moved {
			return fmt.Errorf("journal %s at %d: %w", cf.name, off, err)
		}
	}
	if !blockfs.Aligned(p) {
		copy(p, buf)
	}
	return nil
}

// close makes the file whole for who reads it next; it is marked if that fails.
func (c *Chunk) close() {
	c.settling.Lock()
	defer c.settling.Unlock()
	if err := c.settleLocked(c.end); err != nil {
		c.file.hole = true
		c.log.pool.o.Log.Error("a journal is not whole, which the next start mends", "chunk", c.file.name, "err", err)
	}
	c.closed = true
}

// Close gives the files back to the pool's keeping: they stay on disk for the
// next open of the vDisk. No reader may hold a chunk.
func (l *Log) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.chunks {
		c.close()
	}
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	for _, c := range l.chunks {
		c.forget()
		if l.pool.closed {
			c.file.f.Close()
			continue
		}
		l.pool.held[l.vdisk] = append(l.pool.held[l.vdisk], c.file)
	}
	l.chunks, l.table = nil, map[uint32]*Chunk{}
}
