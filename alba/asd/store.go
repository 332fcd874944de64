// Package asd makes a device (osd.OSD) of a directory: one disk, or a part of one.
// The gateway opens a Store for each of its devices and serves it to the other
// nodes.
//
// # Layout
//
//	root/
//	  asd             identity: magic, format version, state, UUID, CRC32C
//	  db/             pebble: the index, and values below 16 KiB
//	  blob/00000001   container: extents of larger values, 4 KiB aligned, ≤ 256 MiB
//	  lock            of whoever opens the directory; not looked at
//
// Entries of the index, integers big endian:
//
//	'k' key              kind 1 | length 4 | CRC32C 4 | value                          inline
//	'k' key              kind 1 | length 4 | CRC32C 4 | file 4 | page 4 | CRC32C 4 …   extent
//	'x' file 4 | page 4  pages 4
//	'm' "applies"        8
//	'm' "id"             UUID
//
// An extent is a run of pages of 4 KiB in one container; its entry has the CRC32C
// of each 64 KiB of the value. Each extent that a value uses has an 'x' entry.
//
// # Apply
//
//	check → take space → write extents (O_DIRECT, O_DSYNC) ─┐
//	  ┌─────────────────────────────────────────────────────┘
//	  └► mutex: asserts → batch: 'k', 'x', applies+1 → commit, not waited for
//	     └► wait for the log's sync, which concurrent Applies share → give space back
//
// # Invariants
//
//	A1  An entry is committed after the bytes of its extent are durable.
//	A2  Space is free if and only if no 'x' entry covers it: 'x' and 'k' change in
//	    one batch, and free space is found at Open from 'x' alone. There are no
//	    orphans.
//	A3  Space is used again after the batch that freed it is durable and the
//	    reads that began before that have ended.
//	A4  Asserts are checked and batches committed under one mutex, in the order
//	    of the log: what an Apply was decided on is durable when the Apply is.
//	A5  Info.Applies tells only of what is durable.
//	A6  After a change of the disk failed nothing reaches the disk any more and
//	    every call fails with osd.ErrFailed, until the device is opened again. A
//	    disk that is full fails a write of an extent with osd.ErrFull instead.
//	A7  A directory is taken for a device only by its identity file; a new one is
//	    made only in an empty directory. File and index agree on the identity.
//	A8  An entry that is remembered is that of the index: it is forgotten before the batch
//	    that replaces it is committed, by whoever commits.
//
// It does not lock the directory against a second process. A call whose ctx ends
// finishes the transfer or the sync that it has begun: file I/O cannot be taken
// back. Each container is an open file.
package asd

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"

	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/lru"
)

// inlineMax is the size from which a value is an extent, in bytes. Below it the
// copies that pebble makes over time cost less than a write of its own.
const inlineMax = 16 << 10

// Defaults of Options. A node runs six devices in one small process.
const (
	defaultCacheBytes    = 32 << 20
	defaultMemTableBytes = 4 << 20
	defaultLimitPercent  = 99
)

// Entries that were read lately are remembered: to find one in the index takes longer than a
// piece of 4 KiB takes to cross the network.
const (
	entriesBytes  = 4 << 20
	entryOverhead = 250 // what one takes besides its key and its checksums, in bytes
)

// memTables is how many tables of changes there are at most before writes wait.
const memTables = 3

// indexOpenFiles bounds the files that pebble keeps open: at 2 MiB and more each
// that is the index of a large device.
const indexOpenFiles = 100

// Options configure a Store.
type Options struct {
	// Create makes a device when the directory is empty. One that is there is
	// opened.
	Create bool
	// ID is the identity, a UUID in lower case: that of the new device (empty:
	// drawn from Rand), or the one that the directory must have (empty: any).
	ID string
	// Rand is the source of identities; required.
	Rand io.Reader
	// Capacity bounds what the device takes of the file system, in bytes; 0 means
	// all of it.
	Capacity int64
	// LimitPercent is how much of the capacity sets may use; 0 means 99. The rest
	// lets a full device delete.
	LimitPercent int
	// CacheBytes is the size of the index's block cache; 0 means 32 MiB: where the blocks of
	// a device with 10 million fragments are, and their filters.
	CacheBytes int64
	// MemTableBytes is how much of the index's changes is collected before they
	// are written out as a table; 0 means 4 MiB. Up to three times that is in memory.
	MemTableBytes int64
	// Clock is that of Fault.Delay and of the patience of low priority; nil means
	// the machine's.
	Clock clock.Clock
	// Log receives what happens to the device, nothing per operation; nil
	// discards it.
	Log *slog.Logger
	// Version is what Info says of the software.
	Version string
}

func (o Options) withDefaults() (Options, error) {
	if o.Rand == nil {
		return o, errors.New("options: Rand is missing")
	}
	if o.LimitPercent == 0 {
		o.LimitPercent = defaultLimitPercent
	}
	if o.LimitPercent < 1 || o.LimitPercent > 100 || o.Capacity < 0 {
		return o, fmt.Errorf("options: limit %d percent of %d bytes", o.LimitPercent, o.Capacity)
	}
	if o.CacheBytes <= 0 {
		o.CacheBytes = defaultCacheBytes
	}
	if o.MemTableBytes <= 0 {
		o.MemTableBytes = defaultMemTableBytes
	}
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

// Fault makes a device misbehave, for tests of what stands above. The zero value
// is none.
type Fault struct {
	Delay      time.Duration // before each operation
	Full       bool          // sets are refused with osd.ErrFull
	FailWrites bool          // the next Apply meets an error of the disk: A6
}

// Store implements osd.OSD. It must be the only user of its directory.
type Store struct {
	opts    Options
	fs      blockfs.FS
	id, run string
	index   *indexFS
	db      *pebble.DB
	// compactions are those of db.
	compactions compactions
	// damagedIndex tells that a compaction met damage in the index; see backgroundError.
	damagedIndex atomic.Bool
	blobs        *blobs
	readers      *readers
	entries      *lru.Cache[string, entry] // of extents, by key (A8)
	pools        pools
	gate         *gate
	fault        atomic.Pointer[Fault]
	stats        counters

	commitMu sync.Mutex // A4
	applies  uint64     // last that was committed; guarded by commitMu
	durable  atomic.Uint64

	mu      sync.Mutex
	running int           // operations
	idle    chan struct{} // closed when running is 0 and no more may begin
	failure error
	opened  bool
	closed  bool
	ends    sync.WaitGroup // the shutdown after a failure
	once    sync.Once
	endErr  error // of the shutdown
}

var _ osd.OSD = (*Store)(nil)

// counters are those of osd.Stats.
type counters struct {
	reads, applies, lists, validates, readBytes, writeBytes, refused, corrupt, errors atomic.Uint64
}

// Open opens the device in the root of fsys, or makes it (Options.Create).
func Open(fsys blockfs.FS, opts Options) (*Store, error) {
	s, err := open(fsys, opts)
	if err != nil {
		return nil, fmt.Errorf("asd: %w", err)
	}
	return s, nil
}

func open(fsys blockfs.FS, opts Options) (*Store, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	id, making, err := claim(fsys, opts)
	if err != nil {
		return nil, err
	}
	var run [8]byte
	if _, err := io.ReadFull(opts.Rand, run[:]); err != nil {
		return nil, fmt.Errorf("draw a run: %w", err)
	}
	s := &Store{
		opts: opts, fs: fsys, id: id, run: hex.EncodeToString(run[:]),
		readers: newReaders(), entries: lru.New[string, entry](entriesBytes), pools: newPools(), gate: newGate(opts.Clock), idle: make(chan struct{}),
	}
	s.fault.Store(&Fault{})
	err = s.start(making)
	s.mu.Lock()
	if err == nil {
		err = s.failure
	}
	s.opened = err == nil
	s.mu.Unlock()
	if err != nil {
		s.index.kill() // a device that did not open writes nothing at its end
		return nil, fmt.Errorf("%s: %w", id, errors.Join(err, s.shutdown()))
	}
	opts.Log.Info("asd: opened", "osd", id, "applies", s.applies)
	return s, nil
}

// start opens the parts and, for a new device, writes the first of everything.
func (s *Store) start(making bool) error {
	s.index = newIndexFS(s.fs, s.fail)
	if err := s.index.measure(); err != nil {
		return err
	}
	var err error
	if s.db, err = pebble.Open(indexDir, s.pebbleOptions(making)); err != nil {
		s.db = nil
		return fmt.Errorf("index: %w: restore %s/, or replace the device", err, indexDir)
	}
	if making {
		if err := s.finish(); err != nil {
			return err
		}
	}
	if err := s.loadMeta(); err != nil {
		return err
	}
	if s.blobs, err = openBlobs(s.fs); err != nil {
		return err
	}
	return s.loadSpace()
}

func (s *Store) pebbleOptions(making bool) *pebble.Options {
	o := &pebble.Options{
		FS: s.index,
		// What is collected is taken from the cache.
		CacheSize:                   s.opts.CacheBytes + memTables*s.opts.MemTableBytes,
		MemTableSize:                uint64(s.opts.MemTableBytes),
		MemTableStopWritesThreshold: memTables,
		MaxOpenFiles:                indexOpenFiles,
		// Pinned, so that a later pebble does not change the format by itself.
		FormatMajorVersion: pebble.FormatWALSyncChunks,
		ErrorIfExists:      making,
		ErrorIfNotExists:   !making,
		Logger:             indexLog{s.opts.Log, s.fail},
		EventListener: &pebble.EventListener{
			BackgroundError: s.backgroundError,
			DataCorruption: func(i pebble.DataCorruptionInfo) {
				s.opts.Log.Error("asd: index is damaged", "osd", s.id, "file", i.Path, "err", i.Details)
			},
		},
	}
	o.Experimental.CompactionScheduler = &s.compactions
	// Most lookups are for keys that are not there: those about to be set.
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	return o
}

// backgroundError hears of pebble's failed flushes and compactions. Changes that
// failed are told by indexFS. Where a compaction met damage the rest goes on being
// served, so that the device can be emptied; but what cannot be compacted piles
// up until pebble holds up all writes, so that sets are refused from now on, as on
// a full device.
func (s *Store) backgroundError(err error) {
	if pebble.IsCorruptionError(err) {
		s.damagedIndex.Store(true)
		s.opts.Log.Error("asd: index is damaged, sets are refused: move what the device holds to others and replace it", "osd", s.id, "err", err)
		return
	}
	s.fail(fmt.Errorf("index: %w", err))
}

// finish makes the device ready: the index gets its identity, then the identity
// file says so.
func (s *Store) finish() error {
	b := s.db.NewBatch()
	defer func() { _ = b.Close() }()
	err := errors.Join(b.Set(keyIdentity, []byte(s.id), nil), b.Set(keyApplies, make([]byte, 8), nil))
	if err == nil {
		err = s.db.Apply(b, pebble.Sync)
	}
	if err == nil {
		err = s.failed()
	}
	if err != nil {
		return fmt.Errorf("index: %w", err)
	}
	return blockfs.WriteFile(s.fs, identityName, identity{stateReady, s.id}.encode())
}

// loadMeta reads what the index knows of the device.
func (s *Store) loadMeta() error {
	id, err := s.meta(keyIdentity)
	if err != nil {
		return err
	}
	if err := checkIndexIdentity(s.id, id); err != nil {
		return err
	}
	n, err := s.meta(keyApplies)
	if err != nil {
		return err
	}
	if len(n) != 8 {
		return fmt.Errorf("index: %w: %s = %x", errEntry, keyApplies, n)
	}
	s.applies = binary.BigEndian.Uint64(n)
	s.durable.Store(s.applies)
	return nil
}

func (s *Store) meta(key []byte) ([]byte, error) {
	v, closer, err := s.db.Get(key)
	if err != nil {
		return nil, fmt.Errorf("index: %s: %w", key, err)
	}
	return append([]byte{}, v...), closer.Close()
}

// loadSpace keeps A2.
func (s *Store) loadSpace() (err error) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceExtents}, UpperBound: []byte{spaceExtents + 1}})
	if err != nil {
		return fmt.Errorf("index: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for it.First(); it.Valid(); it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return fmt.Errorf("index: %w", err)
		}
		e, err := decodeExtent(it.Key(), v)
		if err == nil {
			err = s.blobs.claim(e)
		}
		if err != nil {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return fmt.Errorf("index: %w", err)
	}
	return s.blobs.settle()
}

// SetFault sets how the device misbehaves.
func (s *Store) SetFault(f Fault) { s.fault.Store(&f) }

// begin starts an operation; end must follow.
func (s *Store) begin(ctx context.Context, prio osd.Priority) (end func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, s.wrap(err)
	}
	s.mu.Lock()
	err = s.usable()
	if err == nil {
		s.running++
	}
	s.mu.Unlock()
	if err != nil {
		return nil, s.wrap(err)
	}
	err = s.delay(ctx)
	var leave func()
	if err == nil {
		leave, err = s.gate.enter(ctx, prio)
	}
	if err != nil {
		s.end()
		return nil, s.wrap(err)
	}
	return func() { leave(); s.end() }, nil
}

// usable tells whether operations may begin; mu is held.
func (s *Store) usable() error {
	switch {
	case s.closed:
		return osd.ErrClosed
	case s.failure != nil:
		return failedError(s.failure)
	}
	return nil
}

func failedError(cause error) error {
	return fmt.Errorf("%w: %w: look after the disk, then open the device again", osd.ErrFailed, cause)
}

// delay waits as long as the fault asks.
func (s *Store) delay(ctx context.Context) error {
	d := s.fault.Load().Delay
	if d <= 0 {
		return nil
	}
	return clock.Sleep(ctx, s.opts.Clock, d)
}

// end ends an operation.
func (s *Store) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
	s.signal()
}

// signal tells those who wait for the last operation; mu is held.
func (s *Store) signal() {
	if s.running > 0 || !s.closed && s.failure == nil {
		return
	}
	select {
	case <-s.idle:
	default:
		close(s.idle)
	}
}

// fail keeps A6. It may be called from anywhere, pebble's goroutines included.
func (s *Store) fail(err error) {
	s.index.kill()
	s.compactions.stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure != nil {
		return
	}
	s.failure = err
	s.stats.errors.Add(1)
	s.opts.Log.Error("asd: failed", "osd", s.id, "err", err)
	if !s.opened || s.closed {
		return
	}
	s.signal()
	s.ends.Go(func() {
		<-s.idle
		_ = s.shutdown() // what it says is about a device that failed
	})
}

// failed returns osd.ErrFailed after fail.
func (s *Store) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure == nil {
		return nil
	}
	return failedError(s.failure)
}

// shutdown closes the parts, once.
func (s *Store) shutdown() error {
	s.once.Do(func() {
		var errs []error
		if s.db != nil {
			errs = append(errs, s.db.Close())
		}
		if s.blobs != nil {
			errs = append(errs, s.blobs.close())
		}
		s.endErr = errors.Join(errs...)
	})
	return s.endErr
}

// Close waits for the operations under way and closes the device. What was
// acknowledged needs no Close.
func (s *Store) Close() error {
	s.mu.Lock()
	failed := s.failure != nil
	s.closed = true
	s.signal()
	s.mu.Unlock()
	<-s.idle
	err := s.shutdown()
	s.ends.Wait()
	if failed {
		return nil // every caller was told
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && s.failure != nil {
		err = s.failure
	}
	return s.wrap(err)
}

// wrap names the device in an error.
func (s *Store) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("asd %s: %w", s.id, err)
}

// Stats implements osd.OSD.
func (s *Store) Stats(ctx context.Context) (osd.Stats, error) {
	end, err := s.begin(ctx, osd.High)
	if err != nil {
		return osd.Stats{}, err
	}
	defer end()
	c := &s.stats
	return osd.Stats{
		Reads: c.reads.Load(), Applies: c.applies.Load(), Lists: c.lists.Load(), Validates: c.validates.Load(),
		ReadBytes: c.readBytes.Load(), WriteBytes: c.writeBytes.Load(),
		Refused: c.refused.Load(), Corrupt: c.corrupt.Load(), Errors: c.errors.Load(),
	}, nil
}

// Info implements osd.OSD.
func (s *Store) Info(ctx context.Context) (osd.Info, error) {
	end, err := s.begin(ctx, osd.High)
	if err != nil {
		return osd.Info{}, err
	}
	defer end()
	r, err := s.room()
	if err != nil {
		return osd.Info{}, s.wrap(err)
	}
	used, holes := s.blobs.usage()
	used += s.index.used.Load()
	free := max(0, min(r.limit-used, r.space+holes))
	return osd.Info{
		ID: s.id, Run: s.run, Applies: s.durable.Load(),
		Total: r.total, Used: used, Limit: r.limit, Free: free,
		Full: free == 0 || s.fault.Load().Full || s.damagedIndex.Load(), Version: s.opts.Version,
	}, nil
}

// room is what the device may take.
type room struct {
	total, limit int64
	// space is what the file system below can still give without touching what
	// is kept for deletes. It is less than limit allows where others use the
	// same disk.
	space int64
}

const (
	// memTablesReserved is the space in memtables that is kept on the file system
	// at least, for the log and the tables that deletes need.
	memTablesReserved = 4
	// compactionReserved bounds what is kept besides for pebble, which writes
	// the output of a compaction before it removes the input: a level's worth.
	compactionReserved = 128 << 20
)

func (s *Store) room() (room, error) {
	total, free, err := s.fs.Usage()
	if err != nil {
		return room{}, err
	}
	r := room{total: total}
	if c := s.opts.Capacity; c > 0 {
		r.total = c
	}
	percent := int64(s.opts.LimitPercent)
	r.limit = r.total/100*percent + r.total%100*percent/100
	reserve := max(total/100*(100-percent), memTablesReserved*s.opts.MemTableBytes)
	r.space = free - reserve - min(s.index.used.Load(), compactionReserved)
	return r, nil
}
