package journal

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/openvstorage/ovgate/internal/blockfs"
)

const (
	// openerBytes is where the first record of a chunk starts: after both openers.
	openerBytes = 2 * blockfs.Alignment
	// poolFormat is the format of pool.json of a pool whose chunks have it all, groupFormat
	// that of one with a group log, and damageFormat, the newest known, that of one with
	// chunks that lost records of a group log (J6).
	poolFormat   = 1
	groupFormat  = 2
	damageFormat = 3
	poolFile     = "pool.json"
	// maxPoolFile bounds pool.json: a pool has fewer than 100,000 chunks.
	maxPoolFile = 16 << 20
	chunkName   = "chunk-"
	newName     = "new-" // a chunk file being pre-written; dropped at open
	// MinChunkBytes: a chunk must hold a record of one whole command with room to spare.
	MinChunkBytes = 256 << 10
)

// PoolOptions configure a Pool.
type PoolOptions struct {
	FS         blockfs.FS
	Dir        string
	ChunkBytes int64 // size of new chunk files
	MaxBytes   int64 // all chunk files together
	Rand       io.Reader
	Log        *slog.Logger // nil: discard
	Group      GroupOptions
}

// Pool is the set of chunk files on one WRITE disk. Safe for concurrent use.
type Pool struct {
	o     PoolOptions
	id    string
	group *group // nil: there is none

	sayMu  sync.Mutex
	says   poolIdentity        // as it is in pool.json
	unsaid func(*poolIdentity) // what it is to say besides, once there is room; nil: nothing

	mu       sync.Mutex
	free     []*chunkFile
	held     map[[16]byte][]*chunkFile // found at open; their vDisk has not claimed them
	next     uint64                    // number of the next chunk file
	bytes    int64                     // of all chunk files
	growth   chan struct{}             // closed when the creation in flight ends; nil: none
	growErr  error                     // why the last creation failed
	released chan struct{}             // closed and replaced when a chunk becomes free
	failed   error                     // why a Log ended for good
	closed   bool
	grow     sync.WaitGroup
}

// chunkFile is one file of the pool.
type chunkFile struct {
	name   string
	number uint64
	f      blockfs.File
	bytes  int64
	// generation is that of its opener, as it was found at open.
	generation uint64
	hole       bool     // records of it are in the group log alone
	damage     error    // what is not whole of the group log that had records of it; pool.json says it, too
	owner      [16]byte // of what is written in it, also while it is free
	epoch      uint32   // the same: that of its opener
}

// OpenPool opens or creates the pool in o.Dir and reads whose each chunk is.
func OpenPool(o PoolOptions) (*Pool, error) {
	if o.ChunkBytes < MinChunkBytes || o.ChunkBytes%blockfs.Alignment != 0 || o.MaxBytes < o.ChunkBytes {
		return nil, fmt.Errorf("journal %s: chunk size %d (min %d, multiple of %d) and pool size %d do not fit", o.Dir, o.ChunkBytes, MinChunkBytes, blockfs.Alignment, o.MaxBytes)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	p := &Pool{o: o, held: map[[16]byte][]*chunkFile{}, released: make(chan struct{})}
	if err := o.FS.MkdirAll(o.Dir); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	if err := p.identify(); err != nil {
		return nil, err
	}
	list, err := o.FS.List(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	var frames []string
	for _, e := range list {
		if isGroup(e.Name) {
			frames = append(frames, e.Name)
		} else if err := p.adopt(e); err != nil {
			return nil, errors.Join(err, p.Close())
		}
	}
	p.markDamaged()
	if len(frames) > 0 || p.says.Format != poolFormat {
		err = p.redo(frames)
	}
	if err == nil {
		err = p.identity(func(id *poolIdentity) { // what else was damaged is in use for something else
			id.Damaged = slices.DeleteFunc(id.Damaged, func(d damagedChunk) bool { return !p.holds(d) })
		})
		if errors.Is(err, syscall.ENOSPC) { // a start with room says it
			err = nil
		}
	}
	if err == nil && p.o.Group.Bytes > 0 {
		p.group, err = newGroup(p, p.o.Group)
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// identify reads the pool's identity, or gives it one.
func (p *Pool) identify() error {
	path := p.o.Dir + "/" + poolFile
	b, err := blockfs.ReadFile(p.o.FS, path, maxPoolFile)
	if err == nil {
		if err := json.Unmarshal(b, &p.says); err != nil || p.says.ID == "" {
			return fmt.Errorf("journal: %s is damaged: restore it or set the directory aside", path)
		}
		if p.says.Format > damageFormat {
			return fmt.Errorf("journal: %s has format %d, this version knows %d: upgrade ovgate", path, p.says.Format, damageFormat)
		}
		p.says.Group = p.says.Group || p.says.Format == groupFormat
		p.id = p.says.ID
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("journal: %w", err)
	}
	var raw [16]byte
	if _, err := io.ReadFull(p.o.Rand, raw[:]); err != nil {
		return fmt.Errorf("journal: draw pool id: %w", err)
	}
	p.id = hex.EncodeToString(raw[:])
	p.says.ID = p.id
	return p.identity(func(*poolIdentity) {})
}

// poolIdentity is what pool.json says.
type poolIdentity struct {
	Format int    `json:"format"`
	ID     string `json:"id"`
	// Group: there is a group log. Before damageFormat the format alone says so.
	Group bool `json:"group,omitempty"`
	// Damaged are the chunks of which records may be missing that were acknowledged.
	Damaged []damagedChunk `json:"damaged,omitempty"`
	// Told is the damage of the group log that chunks were marked for. While its files stay,
	// the next start finds it again, which says nothing new.
	Told string `json:"told,omitempty"`
}

// damagedChunk is a chunk as it was opened by a generation; in another it is not damaged.
type damagedChunk struct {
	Chunk      uint64 `json:"chunk"`
	Generation uint64 `json:"generation"`
	Why        string `json:"why"`
}

// identity changes what pool.json says, durably, if change changes something.
func (p *Pool) identity(change func(*poolIdentity)) error {
	p.sayMu.Lock()
	defer p.sayMu.Unlock()
	next := p.says
	next.Damaged = slices.Clone(p.says.Damaged)
	if p.unsaid != nil {
		p.unsaid(&next)
	}
	change(&next)
	switch {
	case len(next.Damaged) > 0:
		next.Format = damageFormat
	case next.Group:
		next.Format = groupFormat
	default:
		next.Format = poolFormat
	}
	if next.Format == p.says.Format && next.Group == p.says.Group && next.Told == p.says.Told && slices.Equal(next.Damaged, p.says.Damaged) {
		return nil
	}
	b, err := json.Marshal(next)
	if err != nil {
		return err
	}
	if err := blockfs.WriteFile(p.o.FS, p.o.Dir+"/"+poolFile, b); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	p.says, p.unsaid = next, nil
	return nil
}

// markDamaged marks the chunks that pool.json says are damaged.
func (p *Pool) markDamaged() {
	for _, held := range p.held {
		for _, cf := range held {
			if i := slices.IndexFunc(p.says.Damaged, cf.is); i >= 0 {
				cf.damage = errors.New(p.says.Damaged[i].Why)
			}
		}
	}
}

// holds tells whether a chunk that was found at open is d.
func (p *Pool) holds(d damagedChunk) bool {
	for _, held := range p.held {
		if slices.ContainsFunc(held, func(cf *chunkFile) bool { return cf.is(d) }) {
			return true
		}
	}
	return false
}

// is tells whether d is this chunk, in its generation.
func (cf *chunkFile) is(d damagedChunk) bool {
	return cf.number == d.Chunk && cf.generation == d.Generation
}

// forgetDamage takes back, durably, that chunks are damaged.
func (p *Pool) forgetDamage(chunks []*chunkFile) error {
	err := p.identity(func(id *poolIdentity) {
		id.Damaged = slices.DeleteFunc(id.Damaged, func(d damagedChunk) bool {
			return slices.ContainsFunc(chunks, func(cf *chunkFile) bool { return cf.is(d) })
		})
	})
	if err == nil {
		for _, cf := range chunks {
			cf.damage = nil
		}
	}
	return err
}

// ID names this pool; a registry record that names another one tells that the
// journal it counted on is gone.
func (p *Pool) ID() string { return p.id }

// adopt takes in one directory entry.
func (p *Pool) adopt(e blockfs.Info) error {
	path := p.o.Dir + "/" + e.Name
	if strings.HasPrefix(e.Name, newName) {
		return p.o.FS.Remove(path)
	}
	var n uint64
	if k, err := fmt.Sscanf(e.Name, chunkName+"%d", &n); k != 1 || err != nil {
		return nil
	}
	f, err := p.o.FS.Open(path, blockfs.Write|blockfs.Direct|blockfs.DSync)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	cf := &chunkFile{name: e.Name, number: n, f: f, bytes: e.Size}
	p.next = max(p.next, n+1)
	p.bytes += cf.bytes
	op, err := readOpener(f)
	switch {
	case errors.Is(err, ErrBadRecord):
		p.give(cf)
	case err != nil:
		f.Close()
		return fmt.Errorf("journal: %s: %w", path, err)
	default:
		cf.owner, cf.epoch, cf.generation = op.VDisk, op.Epoch, op.Generation
		p.held[op.VDisk] = append(p.held[op.VDisk], cf)
	}
	return nil
}

// readOpener returns the opener of a chunk, from whichever copy is valid.
// ErrBadRecord: both could be read and neither is an opener.
func readOpener(f blockfs.File) (*Header, error) {
	buf := blockfs.AlignedBuffer(blockfs.Alignment)
	bad := ErrBadRecord
	for off := int64(0); off < openerBytes; off += blockfs.Alignment {
		if _, err := f.ReadAt(buf, off); err != nil {
			bad = fmt.Errorf("read opener: %w", err)
			continue
		}
		h, err := decodeHeader(buf)
		if err == nil && h.Seqs == 0 {
			return h, nil
		}
		if errors.Is(err, ErrNewerFormat) {
			bad = err
		}
	}
	return nil, bad
}

// tryTake returns a free chunk, or nil when there is none and none can be made
// now. first tells that the taker holds no chunk: the last free one is kept
// for such takers, so that a busy vDisk cannot starve an idle one. growth, if not
// nil, is closed when the creation that stands in the way has ended.
func (p *Pool) tryTake(first bool) (cf *chunkFile, growth <-chan struct{}, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, nil, errPoolClosed
	}
	room := int64(len(p.free)) + (p.o.MaxBytes-p.bytes)/p.o.ChunkBytes
	if room <= 1 && !first {
		return nil, nil, nil
	}
	if n := len(p.free); n > 0 {
		cf := p.free[n-1]
		p.free = p.free[:n-1]
		p.growLocked()
		return cf, nil, nil
	}
	if p.growth != nil {
		return nil, p.growth, nil
	}
	if p.bytes+p.o.ChunkBytes > p.o.MaxBytes {
		return nil, nil, nil
	}
	p.growth = make(chan struct{})
	p.mu.Unlock()
	cf, err = p.create()
	p.mu.Lock()
	p.grownLocked(err)
	if err != nil {
		return nil, nil, nil // GrowError says why
	}
	// Who found this creation in flight may now make a chunk of its own.
	p.signalLocked()
	return cf, nil, nil
}

// take is tryTake for who cannot come again later: it waits for creations in
// flight.
func (p *Pool) take(first bool) (*chunkFile, error) {
	for {
		cf, growth, err := p.tryTake(first)
		if growth == nil {
			return cf, err
		}
		<-growth
	}
}

// grownLocked ends a creation.
func (p *Pool) grownLocked(err error) {
	close(p.growth)
	p.growth, p.growErr = nil, err
}

var errPoolClosed = errors.New("journal pool is closed")

// growLocked makes the next chunk ahead of need, in the background.
func (p *Pool) growLocked() {
	if len(p.free) > 0 || p.growth != nil || p.bytes+p.o.ChunkBytes > p.o.MaxBytes {
		return
	}
	p.growth = make(chan struct{})
	p.grow.Add(1)
	go func() {
		defer p.grow.Done()
		cf, err := p.create()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.grownLocked(err)
		if err == nil {
			p.freeLocked(cf)
		}
	}()
}

// create makes a chunk file: pre-written, durable, then named. Only one runs at
// a time (growth).
func (p *Pool) create() (cf *chunkFile, err error) {
	p.mu.Lock()
	n := p.next
	p.next++
	p.bytes += p.o.ChunkBytes
	p.mu.Unlock()
	path := fmt.Sprintf("%s/%s%08d", p.o.Dir, newName, n)
	f, err := p.o.FS.Open(path, blockfs.Write|blockfs.Create|blockfs.Excl|blockfs.Direct|blockfs.DSync)
	if err == nil {
		if err = f.Preallocate(p.o.ChunkBytes); err == nil {
			cf = &chunkFile{name: fmt.Sprintf("%s%08d", chunkName, n), number: n, f: f, bytes: p.o.ChunkBytes}
			if err = p.o.FS.Rename(path, p.o.Dir+"/"+cf.name); err == nil {
				path = p.o.Dir + "/" + cf.name
				err = p.o.FS.SyncDir(p.o.Dir)
			}
		}
		if err != nil {
			f.Close()
			p.o.FS.Remove(path) // best effort: dropped or free at the next open otherwise
		}
	}
	if err != nil {
		p.mu.Lock()
		p.bytes -= p.o.ChunkBytes
		p.mu.Unlock()
		level := slog.LevelError
		if errors.Is(err, syscall.ENOSPC) {
			level = slog.LevelWarn
		}
		p.o.Log.Log(context.Background(), level, "journal chunk not created", "dir", p.o.Dir, "bytes", p.o.ChunkBytes, "err", err)
		return nil, fmt.Errorf("journal: create chunk in %s: %w", p.o.Dir, err)
	}
	return cf, nil
}

// give returns a chunk for reuse.
func (p *Pool) give(cf *chunkFile) {
	if cf.damage != nil {
		// The word of it goes with its opener: that of a chunk which is free would count otherwise.
		if err := eraseOpener(cf); err != nil {
			p.o.Log.Warn("damaged journal chunk not erased: it is removed", "chunk", cf.name, "err", err)
			p.drop(cf)
			return
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if cf.bytes != p.o.ChunkBytes {
		p.dropLocked(cf)
		return
	}
	p.freeLocked(cf)
}

func (p *Pool) freeLocked(cf *chunkFile) {
	cf.hole, cf.damage = false, nil
	p.free = append(p.free, cf)
	p.signalLocked()
}

// signalLocked wakes who waits on Released.
func (p *Pool) signalLocked() {
	close(p.released)
	p.released = make(chan struct{})
}

// drop removes a chunk from the disk: it failed, or has another size.
func (p *Pool) drop(cf *chunkFile) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropLocked(cf)
}

func (p *Pool) dropLocked(cf *chunkFile) {
	cf.f.Close()
	p.bytes -= cf.bytes
	if err := p.o.FS.Remove(p.o.Dir + "/" + cf.name); err != nil {
		p.o.Log.Warn("journal chunk not removed", "chunk", cf.name, "err", err)
	}
}

// Released returns a channel that is closed when a chunk becomes free, or one
// can be made.
func (p *Pool) Released() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.released
}

// GrowError returns why the last attempt to create a chunk failed, or nil.
func (p *Pool) GrowError() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.growErr
}

// MarkFailed has the WRITE disk count as failed, with the first reason given.
func (p *Pool) MarkFailed(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed == nil {
		p.failed = err
	}
}

// Failed returns why a Log failed for good, and with it the WRITE disk; nil: none did.
func (p *Pool) Failed() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed
}

// Forget frees the chunks that were found at open and hold records of a vDisk. Call it
// when its journal is in another pool.
func (p *Pool) Forget(vdisk [16]byte) {
	for _, cf := range p.claim(vdisk, anyEpoch) {
		p.give(cf)
	}
}

// Newest returns the newest epoch in which a chunk was opened that was found at open, or
// left by a Log that was closed, and holds records of a vDisk; 0: there is none.
func (p *Pool) Newest(vdisk [16]byte) (epoch uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, cf := range p.held[vdisk] {
		epoch = max(epoch, cf.epoch)
	}
	return epoch
}

func anyEpoch(uint32) bool { return true }

func only(epoch uint32) func(uint32) bool { return func(e uint32) bool { return e == epoch } }

// claim takes the chunks that hold records of a vDisk and are of no Log, as far as they
// were opened in an epoch that is wanted.
func (p *Pool) claim(vdisk [16]byte, wanted func(epoch uint32) bool) (claimed []*chunkFile) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var rest []*chunkFile
	for _, cf := range p.held[vdisk] {
		if wanted(cf.epoch) {
			claimed = append(claimed, cf)
		} else {
			rest = append(rest, cf)
		}
	}
	p.held[vdisk] = rest
	if len(rest) == 0 {
		delete(p.held, vdisk)
	}
	return claimed
}

// Erase makes what chunks say of a vDisk unreadable and frees them. The vDisk
// must have no open Log. Call it when its deletion was decided.
func (p *Pool) Erase(vdisk [16]byte) error { return p.erase(vdisk, anyEpoch) }

// EraseEpoch is Erase for the chunks that were opened in one epoch. Those of others may be
// of a Log that is open.
func (p *Pool) EraseEpoch(vdisk [16]byte, epoch uint32) error { return p.erase(vdisk, only(epoch)) }

func (p *Pool) erase(vdisk [16]byte, wanted func(epoch uint32) bool) error {
	claimed := p.claim(vdisk, wanted)
	for i, cf := range claimed {
		if err := eraseOpener(cf); err != nil {
			p.mu.Lock()
			p.held[vdisk] = append(p.held[vdisk], claimed[i:]...)
			p.mu.Unlock()
			return fmt.Errorf("journal: erase %s: %w", cf.name, err)
		}
		p.give(cf)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, cf := range p.free {
		if cf.owner == vdisk && wanted(cf.epoch) {
			if err := eraseOpener(cf); err != nil {
				return fmt.Errorf("journal: erase %s: %w", cf.name, err)
			}
		}
	}
	return nil
}

func eraseOpener(cf *chunkFile) error {
	_, err := cf.f.WriteAt(blockfs.AlignedBuffer(openerBytes), 0)
	if err == nil {
		cf.owner = [16]byte{}
	}
	return err
}

// Usage is the state of a Pool, in bytes and chunks.
type Usage struct {
	Bytes, MaxBytes, ChunkBytes int64
	Free, Held                  int // chunks free, and held for vDisks that are not open
	// Frames are the writes of the group log since the pool was opened, and Grouped the
	// appends that they made durable.
	Frames, Grouped uint64
}

// Add adds up pools with the same size of chunks.
func (u Usage) Add(o Usage) Usage {
	return Usage{u.Bytes + o.Bytes, u.MaxBytes + o.MaxBytes, max(u.ChunkBytes, o.ChunkBytes), u.Free + o.Free, u.Held + o.Held,
		u.Frames + o.Frames, u.Grouped + o.Grouped}
}

// Usage returns how full the pool is.
func (p *Pool) Usage() Usage {
	p.mu.Lock()
	defer p.mu.Unlock()
	u := Usage{Bytes: p.bytes, MaxBytes: p.o.MaxBytes, ChunkBytes: p.o.ChunkBytes, Free: len(p.free)}
	for _, h := range p.held {
		u.Held += len(h)
	}
	if g := p.group; g != nil {
		u.Frames, u.Grouped = g.frames.Load(), g.records.Load()
	}
	return u
}

// Close closes the files. Logs must be closed before.
func (p *Pool) Close() (err error) {
	p.mu.Lock()
	closed := p.closed
	p.closed = true
	p.mu.Unlock()
	p.grow.Wait()
	if p.group != nil && !closed {
		err = p.group.close()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, cf := range p.free {
		cf.f.Close()
	}
	for _, h := range p.held {
		for _, cf := range h {
			cf.f.Close()
		}
	}
	p.free, p.held = nil, map[[16]byte][]*chunkFile{}
	return err
}

// newGeneration draws a chunk generation (J1).
func (p *Pool) newGeneration() (uint64, error) {
	var b [8]byte
	if _, err := io.ReadFull(p.o.Rand, b[:]); err != nil {
		return 0, fmt.Errorf("journal: draw generation: %w", err)
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}
