package volume

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/journal"
	"github.com/openvstorage/ovgate/volumedriver/sco"
	"github.com/openvstorage/ovgate/volumedriver/tlog"
)

const (
	// uploadWindow bounds the SCOs of one vDisk in flight while other vDisks upload too:
	// one that is alone has all that the node may upload at a time.
	uploadWindow = 4
	// idleIntervals: five minutes at the default commit_interval, in which an idle
	// vDisk that was opened elsewhere does not notice. Its first request makes it look.
	idleIntervals = 30
	// commitSCOs is after how many uploaded SCOs a head is committed (E5).
	commitSCOs = 8
	// forcedShare is the part of the journal that a commit frees at least where room is
	// asked for and more is on its way: each commit is three requests.
	forcedShare = 16
)

// uploader moves closed batches to the backend and commits heads (E5). Its
// goroutine owns the fields without a lock of their own.
type uploader struct {
	v    *Volume
	kick chan struct{}

	nextSCO uint32 // guarded by Volume.mapMu

	// recMu guards rec. Whoever changes the registry holds it until the outcome is known:
	// a change that was made on top of one that may have happened or not would take its
	// own vDisk for another's.
	recMu    sync.Mutex
	rec      Record // as the registry has it
	head     Head   // committed
	past     *Past  // of head; not changed, but replaced
	ref      HeadRef
	number   uint64   // newest head number used, committed or not (V6)
	stale    []string // superseded objects, to be condemned by the next head
	listed   int      // of stale: how many the committed head condemns
	openHead bool     // this opening has not committed a head yet
	claimed  bool     // this opening's epoch is claimed on the backend, where that can be
	ckpt     uint32   // first TLog that the local checkpoint lacks
	hasLocal bool     // there is a local checkpoint
	keep     keeper
	requests chan *headRequest
	pending  []*headRequest
	lastLook time.Time // for a fence
	seen     uint64    // Volume.arrived at the last look
	resting  bool      // asleep until the next request
	unclean  bool      // what the head condemns is not deleted yet

	forced    atomic.Bool
	stalled   atomic.Bool
	broken    atomic.Bool   // a batch could not be made into an SCO
	committed atomic.Uint64 // newest seq in a committed head
	headNum   atomic.Uint64
	headTime  atomic.Int64
	stored    atomic.Int64

	mu       sync.Mutex
	released chan struct{} // closed and replaced when journal was released
	troubles []*trouble    // the newest last
	away     time.Time     // since when there are any
	noRoom   trouble
	full     error // why the newest object was refused, if that is for lack of space
	fullSize int   // of that object
	// inOrder is how many SCOs are uploaded one after the other before several go at once again,
	// unless none is left before: the backend refused one for lack of space, and heads are
	// committed in order.
	inOrder int
	flying  int
	doomed  []string // condemned by a committed head (scrub) and not deleted yet
}

// headRequest asks for a head commit.
type headRequest struct {
	change func(*Head)     // may be nil
	past   func(*Past)     // may be nil; gets a copy whose slices are not its own
	commit uint64          // all seqs up to here, first
	clean  bool            // the closing head
	done   chan error      // capacity 1
	ctx    context.Context // the asker's; an ended one is dropped if not begun
	after  func(*Head)     // runs once committed, before done

	begin      func() error // may be nil; an error ends the request, and nothing changes
	condemn    []string     // objects that the head condemns
	checkpoint bool         // a checkpoint of the map follows
	refused    error        // what begin said
}

func (u *uploader) wake() {
	select {
	case u.kick <- struct{}{}:
	default:
	}
}

// force asks for room in the journal: upload and commit without waiting for more.
func (u *uploader) force() {
	if !u.forced.Swap(true) {
		u.wake()
	}
}

func (u *uploader) releasedSignal() <-chan struct{} {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.released
}

// lastError returns why something that is to be stored is not; nil: all of it is, or none has failed.
func (u *uploader) lastError() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if n := len(u.troubles); n > 0 {
		return u.troubles[n-1].err
	}
	return nil
}

// Away returns for how long the backend, or the registry, has not done something that it is asked again and again;
// 0: it does everything.
func (v *Volume) Away() time.Duration {
	u := &v.up
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.troubles) == 0 {
		return 0
	}
	return v.host.o.Clock.Now().Sub(u.away)
}

// put puts an object. That smaller ones, or none, are taken says nothing of the space for
// one that was refused.
func (u *uploader) put(ctx context.Context, name string, obj []byte) error {
	err := u.v.p.cfg.Store.Put(ctx, name, obj)
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case errors.Is(err, backend.ErrFull):
		u.full, u.fullSize = err, len(obj)
	case err != nil || len(obj) >= u.fullSize:
		u.full, u.fullSize = nil, 0
	}
	return err
}

// fullError says why the backend has no space; nil: it has, or is away.
func (u *uploader) fullError() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.full
}

// trouble is a call of the backend or the registry while it fails, or why no head is made. Other calls that succeed
// say nothing of it.
type trouble struct{ err error }

// note takes what came of a try.
func (u *uploader) note(t *trouble, err error) {
	u.mu.Lock()
	was := len(u.troubles)
	u.forget(t)
	if err != nil {
		t.err = err
		u.troubles = append(u.troubles, t)
	}
	now := len(u.troubles)
	if was == 0 && now > 0 {
		u.away = u.v.host.o.Clock.Now()
	}
	u.mu.Unlock()
	switch {
	case was == 0 && now > 0:
		u.v.log.Warn("backend does not take data; the journal keeps it", "err", err)
	case was > 0 && now == 0:
		u.v.log.Info("backend takes data again")
	}
}

// forget takes a call off that is not made again; mu is held.
func (u *uploader) forget(t *trouble) {
	u.troubles = slices.DeleteFunc(u.troubles, func(o *trouble) bool { return o == t })
}

// ask sends a head request and waits for its end.
func (u *uploader) ask(r *headRequest) error {
	r.done = make(chan error, 1)
	select {
	case u.requests <- r:
	case <-r.ctx.Done():
		return r.ctx.Err()
	case <-u.v.ctx.Done():
		return ErrClosed
	}
	return u.await(r)
}

// await waits for the end of a head request.
func (u *uploader) await(r *headRequest) error {
	select {
	case err := <-r.done:
		return err
	case <-r.ctx.Done():
		return fmt.Errorf("%w: outcome unknown: %w", ErrBackend, r.ctx.Err())
	case <-u.v.ctx.Done():
		return ErrClosed
	}
}

// Grow sets a larger size: durable on the backend on return.
func (v *Volume) Grow(ctx context.Context, size int64) error {
	if err := checkSize(size, v.cluster); err != nil {
		return fmt.Errorf("vdisk %s: %w", v.id, err)
	}
	if size < v.Size() {
		return fmt.Errorf("vdisk %s: %w: size %d is below the present %d, and a vdisk does not shrink", v.id, ErrInvalid, size, v.Size())
	}
	return v.up.ask(&headRequest{ctx: ctx, change: func(h *Head) { h.Size = max(h.Size, size) },
		after: func(h *Head) {
			v.mapMu.Lock()
			v.base.Grow(uint64(h.Size) / uint64(v.cluster))
			v.mapMu.Unlock()
			v.size.Store(h.Size)
		}})
}

// SetLabels changes what the head says of the vDisk beside its data.
func (v *Volume) SetLabels(ctx context.Context, name string, labels map[string]string) error {
	labels = maps.Clone(labels)
	return v.up.ask(&headRequest{ctx: ctx, change: func(h *Head) { h.Name, h.Labels = name, labels }})
}

// Commit returns when all that was acknowledged before is on the backend.
func (v *Volume) Commit(ctx context.Context) error {
	return v.up.ask(&headRequest{ctx: ctx, commit: v.lastSeq.Load()})
}

// finish commits everything, a clean head and a checkpoint. Nothing is being
// written any more.
func (u *uploader) finish(ctx context.Context) error {
	// What a failed journal was not needed for any more is as good as if it had not failed.
	saved := u.v.writeErrorState() == StateFailed && !u.broken.Load() && u.committed.Load() == u.v.lastSeq.Load()
	if err := u.v.writeError(); err != nil && !saved {
		return err
	}
	return u.ask(&headRequest{ctx: ctx, commit: u.v.lastSeq.Load(), clean: true})
}

// run is the uploader's goroutine.
func (u *uploader) run() {
	v := u.v
	defer v.wg.Done()
	defer func() {
		for _, r := range u.pending {
			r.done <- ErrClosed
		}
	}()
	timer := v.host.o.Clock.NewTimer(time.Hour)
	defer timer.Stop()
	for v.ctx.Err() == nil {
		u.refuse()
		u.takeJob()
		next := u.schedule()
		if u.commitDue() {
			if err := u.commit(); err != nil && v.ctx.Err() == nil {
				v.sleep(v.ctx, minBackoff)
			}
			continue
		}
		timer.Reset(u.rest(next))
		select {
		case <-u.kick:
			if u.resting {
				u.lookForFence()
			}
		case r := <-u.requests:
			u.pending = append(u.pending, r)
		case <-timer.C():
			u.lookForFence()
			u.spill()
			if u.unclean {
				u.unclean = false
				u.cleanUp()
			}
		case <-v.ctx.Done():
		}
	}
}

// rest returns how long the uploader of a vDisk that nobody uses sleeps: idleIntervals
// times as long as of one that is used, whose next request wakes it (enter). Else a
// node with thousands of idle vDisks does nothing but look for their fences.
func (u *uploader) rest(next time.Duration) time.Duration {
	v := u.v
	interval := v.settings.Load().CommitInterval
	if u.resting = false; next < interval || len(u.pending) > 0 {
		return next
	}
	v.mapMu.RLock()
	busy := v.batch != nil || len(v.closed) > 0 || u.unclean
	v.mapMu.RUnlock()
	v.qmu.Lock()
	defer v.qmu.Unlock()
	u.resting = !busy && v.arrived == u.seen && !v.host.mapMemory.Tight()
	u.seen = v.arrived
	if !u.resting {
		return next
	}
	v.idle = true
	return idleIntervals * interval
}

// refuse answers the requests that can not be served any more: a newer opening
// owns the vDisk, or a batch can not be read back from the journal.
func (u *uploader) refuse() {
	if u.v.writeErrorState() != StateFenced && !u.broken.Load() {
		return
	}
	for _, r := range u.pending {
		r.done <- u.v.writeError()
	}
	u.pending = nil
}

// schedule closes the open batch when it is time, starts uploads, and returns how
// long nothing else falls due.
func (u *uploader) schedule() time.Duration {
	v := u.v
	now, interval := v.host.o.Clock.Now(), v.settings.Load().CommitInterval
	next := interval
	v.mapMu.Lock()
	defer v.mapMu.Unlock()
	if b := v.batch; b != nil {
		age := now.Sub(b.opened)
		if age >= interval || u.wanted() >= b.firstSeq || u.forced.Load() && len(v.closed) == 0 {
			v.closeBatch()
		} else {
			next = interval - age
		}
	}
	u.start()
	return next
}

// start starts the uploads that the window has room for; mapMu is held.
func (u *uploader) start() {
	v := u.v
	if v.writeErrorState() == StateFenced || v.ctx.Err() != nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	tokens := v.host.uploads
	for i, b := range v.closed {
		window := uploadWindow
		if len(tokens) < cap(tokens) { // as far as was seen: those that start now have none yet
			window = max(window, cap(tokens))
		}
		if i >= 2*window || u.flying >= window {
			break
		}
		if !b.started {
			b.started = true
			u.flying++
			v.wg.Add(1)
			go u.upload(b)
		}
	}
}

// wanted returns up to which seq somebody waits for a commit.
func (u *uploader) wanted() uint64 {
	var seq uint64
	for _, r := range u.pending {
		seq = max(seq, r.commit)
	}
	return seq
}

// upload writes one SCO, however long that takes. The object is built anew for
// each try, so that a dead backend ties up neither memory nor the node's tokens.
func (u *uploader) upload(b *batch) {
	v := u.v
	defer v.wg.Done()
	defer u.wake()
	var footer *sco.Footer
	var size int64
	if u.persist(func(ctx context.Context) error {
		if err := u.behind(); err != nil && !u.first(b) {
			return err
		}
		obj, f, err := v.buildSCO(b)
		if err != nil {
			u.broken.Store(true)
			v.fail(StateFailed, err)
			return err
		}
		footer, size = f, int64(len(obj))
		err = u.put(ctx, scoName(v.id, v.this, b.number), obj)
		u.order(err)
		if err == nil { // else a store may be reading it still
			v.keepWritten(b.number, obj, f)
			v.host.reuse(obj)
		}
		return err
	}, v.host.uploads) != nil {
		return
	}
	v.stats.scos.Add(1)
	v.stats.scoBytes.Add(uint64(size))
	v.mapMu.Lock()
	defer v.mapMu.Unlock()
	b.footer, b.object, b.done = footer, size, true
	u.mu.Lock()
	if u.flying--; u.flying == 0 {
		u.inOrder = 0 // nobody waits for space
	}
	u.mu.Unlock()
	u.start() // here too: a commit may take the uploader's goroutine long
}

// errBehind is why a batch waits once a backend that was full takes data again.
var errBehind = errors.New("the backend was full: objects are stored one after the other for now")

// behind says why only the oldest batch is uploaded; nil: all are.
func (u *uploader) behind() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.inOrder == 0:
		return nil
	case u.full != nil:
		return u.full
	}
	return errBehind
}

// order takes what came of an SCO. Any other error than lack of space says nothing of the space.
func (u *uploader) order(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case errors.Is(err, backend.ErrFull):
		u.inOrder = 2 * uploadWindow
	case err == nil && u.inOrder > 0:
		u.inOrder--
	}
}

// first tells whether a batch is the oldest that is not on the backend. It gets what space
// there is: heads are committed in order, so that later ones free no journal.
func (u *uploader) first(b *batch) bool {
	v := u.v
	v.mapMu.RLock()
	defer v.mapMu.RUnlock()
	for _, c := range v.closed {
		if !c.done {
			return c == b
		}
	}
	return false
}

// persist repeats a call until it succeeds or the volume ends. With tokens, each
// try holds one.
func (u *uploader) persist(call func(context.Context) error, tokens chan struct{}) error {
	return u.persistUntil(u.v.ctx, call, tokens)
}

// persistUntil is persist until until ends, which the volume's end does too.
func (u *uploader) persistUntil(until context.Context, call func(context.Context) error, tokens chan struct{}) error {
	var t trouble
	defer func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.forget(&t)
	}()
	return u.repeat(until, call, tokens, func(err error) { u.note(&t, err) })
}

// repeat repeats a call until it succeeds or until ends; note is told of each outcome.
func (u *uploader) repeat(until context.Context, call func(context.Context) error, tokens chan struct{}, note func(error)) error {
	for wait := minBackoff; ; wait = min(2*wait, maxBackoff) {
		if tokens != nil {
			select {
			case tokens <- struct{}{}:
			case <-until.Done():
				return until.Err()
			}
		}
		ctx, cancel := context.WithTimeout(until, backendTimeout)
		err := call(ctx)
		cancel()
		if tokens != nil {
			<-tokens
		}
		if err == nil {
			note(nil)
			return nil
		}
		if until.Err() != nil {
			return until.Err()
		}
		u.v.stats.backendErrors.Add(1)
		note(err)
		if !u.v.sleep(until, wait) {
			return until.Err()
		}
	}
}

// uploaded returns the longest prefix of the closed batches that is on the
// backend, without gap (V4).
func (u *uploader) uploaded() (prefix []*batch, bytes int64, rest int) {
	u.v.mapMu.RLock()
	defer u.v.mapMu.RUnlock()
	for _, b := range u.v.closed {
		if !b.done {
			break
		}
		prefix = append(prefix, b)
		bytes += b.bytes
	}
	rest = len(u.v.closed) - len(prefix)
	if u.v.batch != nil {
		rest++
	}
	return prefix, bytes, rest
}

// commitDue decides whether to commit a head now (E5).
func (u *uploader) commitDue() bool {
	v := u.v
	if v.writeErrorState() == StateFenced {
		return false
	}
	u.dropEnded()
	prefix, bytes, rest := u.uploaded()
	last := u.committed.Load()
	if len(prefix) > 0 {
		last = prefix[len(prefix)-1].lastSeq
	}
	for _, r := range u.pending {
		if r.commit <= last && (!r.clean || rest == 0) {
			return true
		}
	}
	if u.openHead || u.keep.ready != nil {
		return true
	}
	if len(prefix) == 0 {
		return false
	}
	s := v.settings.Load()
	return len(prefix) >= commitSCOs || bytes >= s.JournalQuota/4 ||
		u.forced.Load() && (bytes >= s.JournalQuota/forcedShare || !u.uploading()) ||
		v.host.o.Clock.Now().Sub(prefix[0].opened) >= s.CommitInterval
}

// uploading reports whether SCOs are on their way.
func (u *uploader) uploading() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.flying > 0
}

// dropEnded forgets requests whose askers left.
func (u *uploader) dropEnded() {
	keep := u.pending[:0]
	for _, r := range u.pending {
		if err := r.ctx.Err(); err != nil {
			r.done <- err
			continue
		}
		keep = append(keep, r)
	}
	u.pending = keep
}

// commit writes TLog, head and registry record, in this order (E5), then moves
// what they cover to the base map.
func (u *uploader) commit() error {
	v := u.v
	u.forced.Store(false)
	prefix, _, rest := u.uploaded()
	if len(prefix) > 0 {
		err := u.room()
		if u.note(&u.noRoom, err); err != nil {
			return err
		}
	}
	h := u.head
	// A head behind the clean one, for a checkpoint that ended with the close, is clean too.
	h.Condemned, h.Clean = nil, h.Clean && !u.openHead && len(prefix) == 0 && h.LastSeq == v.lastSeq.Load()
	var local []byte
	if len(prefix) > 0 {
		t := tlog.TLog{VDisk: v.id, Epoch: v.this.Epoch, Nonce: v.this.Nonce, Number: h.NextTLog}
		for _, b := range prefix {
			t.Entries = append(t.Entries, tlog.Entry{Bytes: b.object, Footer: b.footer})
			h.Stored += b.object
			if b.reservation != nil {
				h.Reservation = *b.reservation
			}
		}
		last := prefix[len(prefix)-1]
		h.LastSeq, h.NextSCO, h.NextTLog = last.lastSeq, last.number+1, h.NextTLog+1
		local = t.Encode()
		// The prefix does not change until this succeeded: same name, same bytes.
		if err := u.persist(func(ctx context.Context) error {
			return u.put(ctx, tlogName(v.id, v.this, t.Number), local)
		}, nil); err != nil {
			return err
		}
	}
	var taken []*headRequest
	var condemn []string
	ckpt := false
	for _, r := range u.pending {
		if r.commit <= h.LastSeq && (!r.clean || rest == 0 && h.LastSeq == v.lastSeq.Load()) {
			if r.begin != nil {
				if r.refused = r.begin(); r.refused != nil {
					continue
				}
			}
			taken = append(taken, r)
			condemn, ckpt = append(condemn, r.condemn...), ckpt || r.checkpoint
			if r.change != nil {
				r.change(&h)
			}
			h.Clean = h.Clean || r.clean
		}
	}
	oldPast := u.head.Past
	past, pinned := u.pinned(h.LastSeq)
	newPast := pinned
	for _, r := range taken {
		if r.past != nil {
			next := *past
			past, newPast = &next, true
			r.past(past)
		}
	}
	opened := u.openHead
	if err := u.commitHead(&h, past, newPast, condemn); err != nil {
		return err
	}
	if err := u.applyCommitted(prefix); err != nil {
		return err
	}
	u.committed.Store(h.LastSeq)
	if pinned {
		v.dropMarks(h.LastSeq)
	}
	u.saveLocal(&h, local)
	u.savePast(oldPast)
	u.release()
	if u.unclean = opened; !opened {
		u.cleanUp()
	} // else at the first tick or commit: many are opened at once when a node starts
	for _, r := range taken {
		if r.after != nil {
			r.after(&h)
		}
	}
	if newPast {
		u.setLine()
	}
	v.applied.Store(v.committedState.Load())
	u.spill()
	u.keep.due = u.keep.due || ckpt
	u.checkpoint(h.Clean)
	u.answer(taken)
	u.keepBase()
	return nil
}

// setLine says which log the map is of now.
func (u *uploader) setLine() {
	v := u.v
	var above [16]byte
	if v.parent != nil {
		above = v.parent.line
	}
	v.line = (&state{&u.head, u.past, u.ref}).line(above, int(v.level()))
}

// answer ends the requests that a commit served.
func (u *uploader) answer(taken []*headRequest) {
	keep := u.pending[:0]
	for _, r := range u.pending {
		served := false
		for _, t := range taken {
			served = served || t == r
		}
		if served {
			r.done <- nil
		} else if r.refused != nil {
			r.done <- r.refused
		} else {
			keep = append(keep, r)
		}
	}
	u.pending = keep
}

// commitHead puts the head object, before it the past if that is new, and swaps the
// registry record. condemn are objects that this head condemns beside the superseded
// ones; a scrub deletes them afterwards.
func (u *uploader) commitHead(h *Head, past *Past, newPast bool, condemn []string) error {
	v := u.v
	if err := u.claim(); err != nil {
		return err
	}
	if err := u.checkFence(); err != nil {
		return err
	}
	u.number++
	h.Epoch, h.Nonce, h.Number = v.this.Epoch, v.this.Nonce, u.number
	h.Epochs, h.Time = v.table, max(v.timestamp(), h.Time)
	if old := u.head.Past; newPast && old != nil && !slices.Contains(u.stale, pastName(v.id, *old)) {
		u.stale = append(u.stale, pastName(v.id, *old))
	}
	u.nameCheckpoint(h)
	listed := len(u.stale)
	h.Condemned = slices.Concat(u.stale, u.doomedNames(), condemn)
	if newPast {
		pastRef, obj, err := past.encode(v.this, h.Number)
		if err != nil {
			v.fail(StateFailed, err)
			return err
		}
		if h.Past = pastRef; pastRef != nil {
			if err := u.persist(func(ctx context.Context) error {
				return u.put(ctx, pastName(v.id, *pastRef), obj)
			}, nil); err != nil {
				return err
			}
		}
	}
	obj, ref, err := h.encode()
	if err != nil {
		v.fail(StateFailed, err)
		return err
	}
	if err := u.persist(func(ctx context.Context) error {
		return u.put(ctx, headName(v.id, ref), obj)
	}, nil); err != nil {
		return err
	}
	if u.openHead {
		// Another opening that claimed between our look and our head does not
		// know of us; one of the two must see the other before it serves.
		if err := u.checkFence(); err != nil {
			return err
		}
	}
	var t trouble
	if err := u.record(func(next *Record) {
		next.Head, next.Opens, next.Void = ref, nil, nil
		if h.Clean {
			next.Owner, next.DTL = "", DTLRecord{State: DTLOff}
		}
		if next.State == FlagScrub {
			next.State = FlagNone
		}
	}, func(err error) { u.note(&t, err) }); err != nil {
		return err
	}
	u.listed = listed
	u.stale = append(u.stale, headName(v.id, u.ref))
	u.doom(condemn)
	u.head, u.past, u.ref, u.openHead = *h, past, ref, false
	u.checkpointNamed()
	v.committedState.Store(&state{h, past, ref})
	u.headNum.Store(h.Number)
	u.headTime.Store(h.Time)
	u.stored.Store(h.Stored)
	return nil
}

// record changes the registry record, however long that takes; ErrFenced if another opening
// did. note is told of what went wrong, and of the success. Safe for concurrent use.
func (u *uploader) record(change func(next *Record), note func(error)) error {
	v := u.v
	u.recMu.Lock()
	defer u.recMu.Unlock()
	next := u.rec
	change(&next)
	if d := u.rec.DTL; next.Owner != "" { // else its head is another one than ever before
		next.DTL.Change = d.Change
		if next.DTL != d {
			next.DTL.Change++
		}
	}
	if err := u.repeat(v.ctx, func(ctx context.Context) error {
		err := v.p.swapOver(ctx, &u.rec, &next)
		if errors.Is(err, ErrConflict) || errors.Is(err, ErrNotFound) {
			v.fail(StateFenced, fmt.Errorf("%w: %w", ErrFenced, err))
			return nil
		}
		return err
	}, nil, note); err != nil {
		return err
	}
	if v.writeErrorState() == StateFenced {
		return ErrFenced
	}
	u.rec = next
	return nil
}

// claim takes this opening's epoch on the backend when the open could not: the
// backend was away. If another opening took it meanwhile, that one owns the vDisk.
func (u *uploader) claim() error {
	v := u.v
	if u.claimed {
		return nil
	}
	body, err := v.p.claimBody(v.this)
	if err != nil {
		return err
	}
	name := claimName(v.id, v.this.Epoch)
	err = u.persist(func(ctx context.Context) error {
		err := v.p.cfg.Store.PutIfAbsent(ctx, name, body)
		if !errors.Is(err, backend.ErrExists) {
			return err
		}
		ours, err := v.p.claimIs(ctx, name, body)
		if err == nil && !ours {
			v.fail(StateFenced, fmt.Errorf("%w: %s was claimed", ErrFenced, name))
		}
		return err
	}, nil)
	if v.writeErrorState() == StateFenced {
		return ErrFenced
	}
	u.claimed = err == nil
	return err
}

// checkFence looks for a newer claim of the vDisk; the extra fence of stores
// that have conditional PUT.
func (u *uploader) checkFence() error {
	v := u.v
	if !v.p.cfg.Store.Features().ConditionalPut {
		return nil
	}
	u.lastLook = v.host.o.Clock.Now()
	err := u.persist(func(ctx context.Context) error {
		l, err := v.p.list(ctx, vdiskPrefix(v.id)+claimDir, claimName(v.id, v.this.Epoch), 1)
		if err == nil && len(l) > 0 {
			v.fail(StateFenced, fmt.Errorf("%w: %s was claimed", ErrFenced, l[0].Name))
		}
		return err
	}, nil)
	if v.writeErrorState() == StateFenced {
		return ErrFenced
	}
	return err
}

// lookForFence checks an idle vDisk once per commit interval.
func (u *uploader) lookForFence() {
	v := u.v
	if v.host.o.Clock.Now().Sub(u.lastLook) < v.settings.Load().CommitInterval || v.writeErrorState() == StateFenced {
		return
	}
	_ = u.checkFence()
}

// release gives journal chunks back (V5).
func (u *uploader) release() {
	v := u.v
	committed := u.committed.Load()
	v.journal.Release(committed)
	v.mirror.release(committed)
	u.mu.Lock()
	close(u.released)
	u.released = make(chan struct{})
	u.mu.Unlock()
	if committed == v.lastSeq.Load() {
		v.sealReq.Store(true)
		v.wakeCommitter()
	}
}

// maxStale bounds the superseded objects that a head condemns, some 100 bytes each, where
// nothing can be deleted for long. A sweep finds older ones.
const maxStale = 1024

// cleanUp deletes the superseded objects that the committed head condemned (E7, V5). It
// ends with the first that fails, as commits wait for it; what is left stays condemned,
// and that one is the last to be tried again.
func (u *uploader) cleanUp() {
	for ; u.listed > 0; u.listed-- {
		name := u.stale[0]
		u.stale = u.stale[1:]
		if err := u.v.p.remove(u.v.ctx, name); err != nil {
			u.stale = append(u.stale, name)
			break
		}
	}
	u.listed = 0
	u.stale = slices.Clone(u.stale[max(0, len(u.stale)-maxStale):])
}

// saveLocal keeps the copies for a quick restart; they may be lost.
func (u *uploader) saveLocal(h *Head, tl []byte) {
	v := u.v
	if tl != nil {
		if err := writeLocal(v.host.o.FS, localTLog(v.id, h.NextTLog-1), tl); err != nil {
			v.log.Warn("local TLog copy not written", "tlog", h.NextTLog-1, "err", err)
		}
	}
	saveLocalHead(v.host, h)
}

// savePast brings the local copy of the past in step with the committed head: old is
// what the head before it named.
func (u *uploader) savePast(old *PastRef) {
	v, ref := u.v, u.head.Past
	if ref != nil && old != nil && *ref == *old {
		return
	}
	saveLocalPast(v.host, u.past, ref)
	dropLocalPast(v.host, v.id, old)
}

func localTLog(id ID, n uint32) string { return fmt.Sprintf("%s/tlog-%08x", stateDir(id), n) }

// writeLocal writes a file that need not survive; it verifies itself when read.
func writeLocal(fsys blockfs.FS, path string, b []byte) error {
	if err := fsys.MkdirAll(path[:strings.LastIndex(path, "/")]); err != nil {
		return err
	}
	f, err := fsys.Open(path, blockfs.Write|blockfs.Create)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	return err
}

// stage repeats the reading of map pages until it succeeds or the volume ends: what
// is committed must reach the map.
func (u *uploader) stage(read func(context.Context) error) error {
	if read(u.v.ctx) == nil {
		return nil
	}
	return u.persist(read, nil)
}

// applyCommitted moves committed batches to the base map (M3).
func (u *uploader) applyCommitted(prefix []*batch) error {
	v := u.v
	for _, b := range prefix {
		if err := u.stage(func(ctx context.Context) error { return stageFooter(ctx, v.base, b.footer) }); err != nil {
			return err
		}
		v.mapMu.Lock()
		v.own.scos.add(b.number, v.origin, b.footer.Clusters, b.object)
		applyFooter(v.base, b.footer, v.level())
		for i := range b.entries {
			if e := &b.entries[i]; e.kind == journal.KindData {
				v.overlay.DropPoint(e.cluster, b.id)
			}
		}
		v.overlay.DropSpans(b.id)
		v.closed = v.closed[1:]
		v.uncommitted.Add(-b.journal)
		v.mapMu.Unlock()
		v.base.Unstage()
	}
	return nil
}
