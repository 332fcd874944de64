// Package volume is the vDisk engine: it turns reads and writes of a virtual disk
// into journal records, SCOs on a backend and a map, and finds the vDisk again
// after anything a process can suffer. The gateway calls it; it knows the backend
// and the registry by their interfaces alone.
//
// # A write
//
//	Submit -> range lock -> queue -> committer: one record for what is queued
//	      -> journal append (durable) -> overlay, in seq order -> Complete
//	                                     |
//	          uploader: closed batch -> SCO -> TLog -> head -> registry -> base map,
//	                                                            journal released
//
// A change of the reservation state is a write without a range: its record installs
// the state instead of map entries, and the head takes it along.
//
// # Objects of a vDisk, below the vPool's root
//
//	ovgate.root                          whose root this is
//	v/ID/sco/NUMBER-EPOCH-NONCE          data (package sco)
//	v/ID/tlog/NUMBER-EPOCH-NONCE         index of a run of SCOs (package tlog)
//	v/ID/head/EPOCH-NUMBER-NONCE         what makes up the vDisk (Head)
//	v/ID/past/EPOCH-NUMBER-NONCE         what it was before, snapshots (Past)
//	v/ID/map/EPOCH-NUMBER-NONCE          checkpoint of the map (MapRef, package blockmap)
//	v/ID/page/NUMBER-EPOCH-NONCE         segment of its pages
//	v/ID/claim/EPOCH                     epoch taken, on stores with conditional PUT
//
// # Local state of a vDisk, below vdisk/ID/
//
//	head, past-*  copies of the committed head and its past, for an open while the
//	              backend is away
//	tlog-NUMBER   copies of the TLogs after the checkpoint
//	map           checkpoint of the base map (package blockmap)
//	page-*        segments of its pages, named like the objects
//
// All of it is a cache: registry, journal and backend decide.
//
// # Property
//
// After any crash or loss a vDisk's content is a prefix of its seq-ordered log;
// with the journal left, it holds every acknowledged write and every write that a
// read returned.
//
// # Invariants (E1-E9 and O1 are those of the architecture)
//
//	V1  Map updates and completions happen in seq order, after the append.
//	V2  The committer never reads the backend or waits for anything but a chunk, and for
//	    the copy of the journal on another node.
//	V3  A read takes chunk references under the map lock; what the map names stays
//	    readable until they are given back.
//	V4  An SCO holds whole records; the SCOs of a vDisk cover its seqs without gap.
//	V5  The journal is released, and condemned objects deleted, only after the
//	    registry took the head (E5).
//	V6  An object name carries epoch, number and nonce; a head that was not
//	    committed for sure gives its number up, so no name is put twice with
//	    different bytes (E1).
//	V7  The reservation state is that of the newest record in seq order that stores
//	    one: an open takes the head's, then those of the tail; a head carries the one
//	    as of its last seq, so no record of it is released before (rule O5).
//	V8  A snapshot is made and deleted by a record in seq order like a write. The one
//	    that makes it is alone, and the last, in its batch: so the SCO that ends with
//	    its seq holds the disk as it was, and no overwrite is dropped, no cluster
//	    moved, across it (E6). A head covers it when it covers its seq.
//	V9  The log is a list of runs of TLogs. Numbers and seqs of what a rollback cuts
//	    off are not used again.
//	V10 What a clone starts from is held by the clone's registry record: the parent's
//	    objects up to that seq are not condemned while it names them. Record and the
//	    parent's count of clones change together; a vDisk with clones keeps its own
//	    parent, and is purged after the last of them.
//	V11 What a scrub replaces is condemned by the head that says the new log, which
//	    keeps snapshots, what clones start from, and the history that is asked for
//	    (G1-G7, scrub.go). Each head repeats what is condemned and not deleted yet.
//	V12 A checkpoint of the map counts only for the log that it was made of, which its
//	    line says (MapRef): replacing runs of the log voids it, with nothing else to
//	    do. The head names it as long as its objects are there; a newer one condemns
//	    what it does not take over.
//	V13 While the registry says that a copy on another node is OK, a record reaches the
//	    map, and what it carries is answered, after that node has it too; and the copy has
//	    all others above the head that the registry names (O2, mirror.go).
package volume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/blockmap"
	"github.com/openvstorage/ovgate/volumedriver/cache"
	"github.com/openvstorage/ovgate/volumedriver/clustersum"
	"github.com/openvstorage/ovgate/volumedriver/journal"
	"github.com/openvstorage/ovgate/volumedriver/sco"
)

const (
	lbaBytes = 512
	// maxAppend is about how much data one journal append carries: beyond it a
	// synchronous write gains no more, and reads of its chunk wait longer.
	maxAppend = 1 << 20
	// maxAppendExtents bounds the header of a record.
	maxAppendExtents = 2048
	// promiseDelay is how long an idle vDisk leaves its newest record unpromised (E3).
	promiseDelay = 100 * time.Millisecond
	// maxBatchEntries bounds the map work of one SCO when writes are tiny or trims.
	maxBatchEntries = 64 << 10
)

// Volume is an open vDisk. Safe for concurrent use.
type Volume struct {
	p       *Pool
	host    *Host
	id      ID
	seed    clustersum.Seed
	cluster int // bytes
	layout  sco.Layout
	small   bool // the backend makes small reads cheap
	touches touches
	maxIO   int // bytes of data one command may carry
	// appendLimit is how much data of several commands one record takes.
	appendLimit int
	log         *slog.Logger
	journal     *journal.Log
	this        Opening

	ctx    context.Context // ends with the volume
	cancel context.CancelFunc

	reservation atomic.Pointer[[]byte] // set in seq order (V7)

	size     atomic.Int64
	settings atomic.Pointer[Settings]
	lastSeq  atomic.Uint64 // newest acknowledged
	// changed is the seq of the newest record that changed content, or of a later one that
	// was there when the vDisk was opened.
	changed  atomic.Uint64
	lastTime atomic.Int64 // newest timestamp given out, Unix ns
	// uncommitted is the journal space of records above the committed head.
	uncommitted atomic.Int64

	cached *cache.User
	disk   *writeDisk

	locks rangeLock

	// Queue to the committer.
	qmu        sync.Mutex
	queue      []*Request
	queueBytes int // of data in the queue
	closing    bool
	arrived    uint64         // requests, ever
	stirs      uint64         // times that Stats changed without a request
	idle       bool           // the uploader sleeps until the next request
	work       *work          // long, beside the requests; nil: none
	stopped    bool           // the committer ended
	inflight   sync.WaitGroup // requests submitted and not complete
	ahead      readahead
	kick       chan struct{}
	sealReq    atomic.Bool // everything is committed: give the last chunk back when idle

	// mapMu guards the map and the batches (M3, V3).
	mapMu   sync.RWMutex
	overlay *blockmap.Overlay
	base    *blockmap.Map
	batch   *batch    // open
	closed  []*batch  // in seq order, not committed
	batches uint32    // ids given out
	chain   []*source // whose SCOs the map names, by level; the last is own
	own     *source
	parent  *frozen  // that base was cloned from; nil: an empty one
	line    [16]byte // of the log that base is of
	origin  origin   // of this opening's SCOs
	marks   []*mark  // changes of snapshots above the committed head, in seq order
	table   epochTable

	pinMu sync.Mutex // after mapMu
	pins  []*Pin     // snapshots, in seq order; changed in seq order (V8)

	committedState atomic.Pointer[state]
	applied        atomic.Pointer[state] // what base is of
	mapErr         atomic.Pointer[error] // why map pages are not written

	movedSCO, movedTLog atomic.Uint32 // next numbers of a flatten or scrub
	dropped             atomic.Bool   // objects that the map named are gone; what read them may look again
	active              atomic.Int64  // requests in flight, which a scrub yields to

	up     uploader
	mirror mirroring

	failure atomic.Pointer[failure]
	stats   stats
	wg      sync.WaitGroup
	closeMu sync.Mutex
	ended   bool
}

// failure is why a volume does not do (all of) its work.
type failure struct {
	state State
	err   error
}

// requestState is the engine's part of a Request.
type requestState struct {
	first, end uint64 // clusters, covering
	slot       int    // in rangeLock.held
	start      time.Time
	mark       *mark             // reqPin
	extents    [3]journal.Extent // Data unused
	nExtents   int
	parts      [3][]byte
	nParts     int
	bytes      int // of the parts
	pieces     []piece
}

// batch is a run of records that becomes one SCO.
type batch struct {
	id                  uint32
	firstSeq, lastSeq   uint64
	firstTime, lastTime int64
	opened              time.Time
	bytes               int64 // data, overwritten ones included
	journal             int64 // journal space of its records
	entries             []entry
	// reservation is the newest state that its records store; nil: none does (V7).
	reservation *[]byte

	// Set while it is uploaded.
	number  uint32
	started bool
	done    bool
	footer  *sco.Footer
	object  int64 // bytes
}

// entry is one change of a batch, in seq order: a cluster of data, or a trim.
type entry struct {
	cluster uint64
	count   uint64 // trim: clusters; data: 1
	kind    journal.Kind
	point   blockmap.Point
}

// ID returns the vDisk's UUID.
func (v *Volume) ID() ID { return v.id }

// Size returns the size in bytes.
func (v *Volume) Size() int64 { return v.size.Load() }

// ClusterSize returns the unit of mapping in bytes.
func (v *Volume) ClusterSize() int { return v.cluster }

// MaxIO returns how many bytes of data one Request may carry.
func (v *Volume) MaxIO() int { return v.maxIO }

// Idle reports whether nobody uses the vDisk, nothing of it is on its way, and so its
// Stats stay as they are until the next request; and a number that grows with each request,
// and each change of Stats without one.
func (v *Volume) Idle() (idle bool, requests uint64) {
	v.qmu.Lock()
	defer v.qmu.Unlock()
	return v.idle && v.writeError() == nil, v.arrived + v.stirs
}

// stir says that Stats changed though nobody used the vDisk.
func (v *Volume) stir() {
	v.qmu.Lock()
	v.stirs++
	v.qmu.Unlock()
	v.host.wakeups.Add(1)
}

// Failed reports whether the vDisk stopped by itself and stays so, as Fenced and Displaced tell
// more of.
func (v *Volume) Failed() bool { return v.failure.Load() != nil }

// Fenced reports whether a newer opening owns the vDisk (StateFenced).
func (v *Volume) Fenced() bool { return v.writeErrorState() == StateFenced }

// SetSettings changes quota and intervals of the running vDisk.
func (v *Volume) SetSettings(s Settings) error {
	s.ClusterSize = v.cluster
	s, err := s.withDefaults()
	if err != nil {
		return fmt.Errorf("vdisk %s: %w", v.id, err)
	}
	v.settings.Store(&s)
	v.wakeCommitter()
	v.up.wake()
	v.mirror.wake()
	return nil
}

// fail stops part of the volume's work; the first reason stays, but fencing
// overrides.
func (v *Volume) fail(state State, err error) {
	f := &failure{state, err}
	for {
		old := v.failure.Load()
		if old != nil && (old.state == StateFenced || state != StateFenced) {
			return
		}
		if v.failure.CompareAndSwap(old, f) {
			if state != StateClosed {
				v.log.Error("vdisk stopped", "state", state, "err", err)
			}
			v.wakeCommitter()
			v.up.wake()
			v.host.wakeups.Add(1)
			return
		}
	}
}

// Submit starts a request; see Request for the duties of both sides.
func (v *Volume) Submit(r *Request) {
	r.Err = nil
	if err := v.admit(r); err != nil {
		r.Err = err
		r.Done.Complete(r)
		return
	}
	r.st.start = v.host.o.Clock.Now()
	switch r.Kind {
	case ReqRead:
		v.submitRead(r)
	case ReqFlush:
		// Acknowledged is durable: nothing is left to do (write path).
		v.stats.flushOps.Add(1)
		v.complete(r, v.writeError())
	case ReqReserve:
		v.submitReserve(r)
	default:
		v.submitChange(r)
	}
}

// admit checks a request and counts it as in flight.
func (v *Volume) admit(r *Request) error {
	n := r.span()
	switch {
	case r.Kind < ReqRead || r.Kind > ReqReserve:
		return fmt.Errorf("%w: request kind %d", ErrInvalid, r.Kind)
	case r.Kind == ReqReserve && (len(r.Data) > MaxReservation || r.Offset != 0 || r.Length != 0):
		return fmt.Errorf("%w: reservation state of %d bytes, at most %d", ErrInvalid, len(r.Data), MaxReservation)
	case r.Kind == ReqReserve: // it covers nothing of the disk
	case r.Offset < 0 || n < 0 || r.Offset%lbaBytes != 0 || n%lbaBytes != 0 || len(r.Data)%lbaBytes != 0:
		return fmt.Errorf("%w: range %d+%d is not in 512-byte units", ErrInvalid, r.Offset, n)
	case r.Offset > v.Size() || n > v.Size()-r.Offset:
		return fmt.Errorf("%w: range %d+%d is beyond the size %d", ErrInvalid, r.Offset, n, v.Size())
	case r.Kind == ReqCompareAndWrite && len(r.Data)%(2*lbaBytes) != 0:
		return fmt.Errorf("%w: compare and write halves differ", ErrInvalid)
	case r.Kind != ReqRead && n > int64(v.maxIO) && (r.Kind == ReqWrite || r.Kind == ReqCompareAndWrite || r.Kind == ReqOrWrite):
		return fmt.Errorf("%w: %d bytes in one write, at most %d", ErrInvalid, n, v.maxIO)
	}
	return v.enter()
}

// enter counts a request as in flight, if requests are taken at all.
func (v *Volume) enter() error {
	if f := v.failure.Load(); f != nil && (f.state == StateFenced || f.state == StateClosed) {
		return fmt.Errorf("vdisk %s: %w", v.id, f.err)
	}
	v.qmu.Lock()
	defer v.qmu.Unlock()
	if v.closing {
		return fmt.Errorf("vdisk %s: %w", v.id, ErrClosed)
	}
	v.inflight.Add(1)
	v.active.Add(1)
	v.arrived++
	if v.idle {
		v.idle = false
		v.host.wakeups.Add(1)
		v.up.wake()
	}
	return nil
}

// span returns how many bytes of the disk a request covers.
func (r *Request) span() int64 {
	switch r.Kind {
	case ReqRead, ReqWrite, ReqOrWrite:
		return int64(len(r.Data))
	case ReqCompareAndWrite:
		return int64(len(r.Data) / 2)
	case ReqFlush, ReqReserve, reqPin:
		return 0
	}
	return r.Length
}

// writeError returns why writes are refused, or nil.
func (v *Volume) writeError() error {
	if f := v.failure.Load(); f != nil {
		return fmt.Errorf("vdisk %s: %w", v.id, f.err)
	}
	return nil
}

// complete finishes a request that holds no range. A read is not answered while the node
// that may take the vDisk over gives no grant (O3).
func (v *Volume) complete(r *Request, err error) {
	if r.Kind == ReqRead && err == nil && !v.mirror.mayServe() {
		go func() { v.answer(r, v.mirror.awaitServe()) }()
		return
	}
	v.answer(r, err)
}

func (v *Volume) answer(r *Request, err error) {
	r.Err = err
	v.account(r)
	r.Done.Complete(r)
	v.active.Add(-1)
	v.inflight.Done()
}

func (v *Volume) account(r *Request) {
	us := v.host.o.Clock.Now().Sub(r.st.start).Microseconds()
	bucket := min(bits.Len64(uint64(max(us, 0))>>1), len(v.stats.readLat)-1)
	switch r.Kind {
	case ReqRead:
		v.stats.readOps.Add(1)
		v.stats.readBytes.Add(uint64(len(r.Data)))
		v.stats.readLat[bucket].Add(1)
	case ReqWrite, ReqCompareAndWrite, ReqOrWrite:
		v.stats.writeOps.Add(1)
		v.stats.writeBytes.Add(uint64(r.span()))
		v.stats.writeLat[bucket].Add(1)
	case ReqZero, ReqUnmap:
		v.stats.unmapOps.Add(1)
	}
}

// syncDone completes a blocking call.
type syncDone struct{ ch chan struct{} }

func (s syncDone) Complete(*Request) { s.ch <- struct{}{} }

var syncPool = sync.Pool{New: func() any { return &Request{Done: syncDone{make(chan struct{}, 1)}} }}

// do runs a request to its end. ctx only bounds the wait before it is submitted:
// what was submitted is waited for, since its buffer is in use.
func (v *Volume) do(ctx context.Context, kind RequestKind, p []byte, off, n int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r := syncPool.Get().(*Request)
	r.Kind, r.Data, r.Offset, r.Length = kind, p, off, n
	v.Submit(r)
	<-r.Done.(syncDone).ch
	err := r.Err
	r.Data, r.Err = nil, nil
	syncPool.Put(r)
	return err
}

// ReadAt fills p from offset off.
func (v *Volume) ReadAt(ctx context.Context, p []byte, off int64) error {
	return v.do(ctx, ReqRead, p, off, 0)
}

// WriteAt stores p at offset off, durably.
func (v *Volume) WriteAt(ctx context.Context, p []byte, off int64) error {
	return v.do(ctx, ReqWrite, p, off, 0)
}

// Zero makes n bytes from off read as zeros.
func (v *Volume) Zero(ctx context.Context, off, n int64) error {
	return v.do(ctx, ReqZero, nil, off, n)
}

// Unmap gives n bytes from off back; they read as zeros.
func (v *Volume) Unmap(ctx context.Context, off, n int64) error {
	return v.do(ctx, ReqUnmap, nil, off, n)
}

// Flush returns when every write that completed before is durable.
func (v *Volume) Flush(ctx context.Context) error { return v.do(ctx, ReqFlush, nil, 0, 0) }

// Reserve stores a reservation state, durably.
func (v *Volume) Reserve(ctx context.Context, state []byte) error {
	return v.do(ctx, ReqReserve, state, 0, 0)
}

// Close drains, commits what was acknowledged and gives the vDisk up with a clean
// head. If ctx ends first (the backend is away), the vDisk is closed all the
// same; its tail stays in the journal.
func (v *Volume) Close(ctx context.Context) error {
	v.closeMu.Lock()
	defer v.closeMu.Unlock()
	if v.ended {
		return nil
	}
	v.qmu.Lock()
	v.closing = true
	v.qmu.Unlock()
	v.endWork()
	err := v.drain(ctx)
	if err == nil {
		err = v.mirror.end(ctx) // nothing is to be answered any more
	}
	if err == nil {
		err = v.up.finish(ctx)
	}
	v.stop()
	if err != nil {
		return fmt.Errorf("vdisk %s not closed cleanly; its tail is in the journal: %w", v.id, err)
	}
	return nil
}

// drain waits for the requests in flight.
func (v *Volume) drain(ctx context.Context) error {
	idle := make(chan struct{})
	go func() { v.inflight.Wait(); close(idle) }()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stop ends the goroutines, whatever they were doing, and forgets the volume.
// Requests still in flight complete with ErrClosed.
func (v *Volume) stop() {
	v.ended = true
	v.qmu.Lock()
	v.closing = true
	v.qmu.Unlock()
	v.fail(StateClosed, ErrClosed)
	v.cancel()
	v.endWork()
	v.wg.Wait()
	v.inflight.Wait()
	v.mirror.close() // after the last answer
	if committed := v.up.committed.Load(); committed == v.lastSeq.Load() && v.up.head.Clean {
		v.journal.Seal()
		v.journal.Release(committed)
	}
	v.journal.Close()
	v.host.countLog(v.disk, -1)
	v.dropMap()
	v.host.wakeups.Add(1)
	v.p.mu.Lock()
	delete(v.p.open, v.id)
	v.p.mu.Unlock()
}

var errStopped = errors.Join(context.Canceled, ErrClosed)

// checkAligned keeps the journal's unit and ours in step.
var _ = [1]struct{}{}[MinClusterSize-blockfs.Alignment]
