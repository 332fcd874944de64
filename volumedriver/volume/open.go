package volume

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/dtl"
	"github.com/openvstorage/ovgate/volumedriver/journal"
)

const (
	// maxClaims bounds how often an open that lost the race for an epoch tries
	// the next one.
	maxClaims = 16
	// maxTakes bounds how often an open begins anew because another opening committed a
	// head meanwhile.
	maxTakes = 4
	// maxOpens bounds the openings that a record carries while the backend is away.
	maxOpens = 64
)

// opening gathers what an open learns, in the order of rules E1 and E2.
type opening struct {
	p   *Pool
	id  ID
	rec Record

	head    *Head   // newest that counts
	past    *Past   // of head
	parent  *frozen // what the log starts from; nil: an empty disk
	ref     HeadRef
	offline bool      // the backend did not answer
	foreign bool      // the head is of an opening that the registry does not know
	stale   []HeadRef // superseded heads on the backend
	// stalePasts are past objects that no committed head refers to.
	stalePasts []string
	claimed    uint32 // highest epoch claimed on the backend

	tail    *journal.Recovery
	disk    *writeDisk
	adopted bool // disk has a copy of the tail, which was another node's
	this    Opening
	table   epochTable // with this opening
}

// Open starts serving a vDisk (rules E1, E2). Errors: ErrNotFound, ErrLostTail,
// ErrCorrupt, ErrBackend, ErrExists when it is open already.
func (p *Pool) Open(ctx context.Context, id ID) (*Volume, error) {
	done, err := p.begin(ctx, id)
	if err != nil {
		return nil, err
	}
	defer done()
	return p.openReserved(ctx, id)
}

// openReserved is Open for a caller that reserved the vDisk.
func (p *Pool) openReserved(ctx context.Context, id ID) (*Volume, error) {
	if p.Volume(id) != nil {
		return nil, fmt.Errorf("vdisk %s is open: %w", id, ErrExists)
	}
	o, err := p.takeOpening(ctx, id)
	if err != nil {
		return nil, err
	}
	if o.head.Parent == nil && o.rec.Parent != nil && o.rec.Clones == 0 {
		// A flatten that ended before it let go.
		last, err := p.letGo(ctx, &o.rec)
		if err != nil {
			p.host.o.Log.Warn("parent of a flattened vdisk not let go of yet", "vdisk", id.String(), "err", err)
		}
		p.deleteLast(ctx, last)
	}
	v, err := o.build(ctx)
	if err != nil {
		o.abandon()
		return nil, err
	}
	p.mu.Lock()
	late := p.detached
	if !late {
		p.open[id] = v
		p.host.wakeups.Add(1)
	}
	p.mu.Unlock()
	if late {
		v.stop()
		return nil, fmt.Errorf("vdisk %s: vpool %s: %w", id, p.cfg.Name, ErrClosed)
	}
	return v, nil
}

// takeOpening learns what a vDisk holds and becomes its owner; anew when the owner of
// before, who does not know yet that it is none, commits a head meanwhile.
func (p *Pool) takeOpening(ctx context.Context, id ID) (*opening, error) {
	for try := 1; ; try++ {
		o := &opening{p: p, id: id}
		if err := o.learn(ctx); err != nil {
			if try < maxTakes && errors.Is(err, ErrCorrupt) && o.outdated(ctx) {
				o.abandon()
				continue
			}
			return nil, err
		}
		err := o.usable(ctx)
		if err == nil {
			if err = o.take(ctx, FlagNone); err == nil {
				return o, nil
			}
		}
		o.abandon()
		if try == maxTakes || !errors.Is(err, ErrConflict) && !errors.Is(err, ErrFenced) {
			return nil, err
		}
	}
}

// outdated reports whether the registry says something else by now: what was learned may be
// older than what the copy gave back since, and look damaged.
func (o *opening) outdated(ctx context.Context) bool {
	now, err := o.p.host.o.Registry.Load(ctx, o.id)
	return err == nil && !now.equal(&o.rec)
}

// usable refuses a template, and finds the parent of a clone.
func (o *opening) usable(ctx context.Context) error {
	if o.head.Template {
		return fmt.Errorf("vdisk %s (%s): %w; clone it, and open the clone", o.head.Name, o.id, ErrTemplate)
	}
	return o.findParent(ctx)
}

func (o *opening) abandon() {
	if o.tail != nil {
		o.tail.Abandon()
	}
}

// learn reads registry, heads and journal and decides what the vDisk holds.
func (o *opening) learn(ctx context.Context) error {
	var err error
	if o.rec, err = o.p.host.o.Registry.Load(ctx, o.id); err != nil {
		return err
	}
	switch {
	case o.rec.Format > RecordFormat:
		return fmt.Errorf("vdisk %s has record format %d: %w", o.id, o.rec.Format, ErrNewerFormat)
	case o.rec.Pool != o.p.cfg.ID:
		return fmt.Errorf("vdisk %s: %w: it was moved to vpool %s", o.id, ErrMoved, o.rec.Pool)
	case o.rec.State == FlagDeleting:
		return fmt.Errorf("vdisk %s is being deleted: %w", o.id, ErrNotFound)
	case o.rec.State == FlagLostTail:
		return fmt.Errorf("vdisk %s: %w: accept the loss to serve what is left", o.id, ErrLostTail)
	case o.rec.Head.Number == 0:
		return fmt.Errorf("vdisk %s: creation did not finish: %w", o.id, ErrNotFound)
	}
	if err := o.findHead(ctx); err != nil {
		return err
	}
	if err := o.adopt(ctx); err != nil {
		return err
	}
	lost, err := o.findTail()
	if err != nil {
		return err
	}
	if lost == "" || o.rec.State == FlagAccepted || o.p.Settings().AcceptLostTail {
		return nil
	}
	if o.rec.Owner != "" && o.rec.Owner != o.p.host.o.Node {
		// Not lost as long as that node may come back: nothing changes without a word.
		return fmt.Errorf("vdisk %s (%s): %w: node %s has its newest writes: start that, or accept the loss to serve what is left", o.head.Name, o.id, ErrLostTail, o.rec.Owner)
	}
	return o.markLost(ctx, lost)
}

// findHead settles which head counts: the committed one, or a newer one that a
// lost registry does not know of (E1).
func (o *opening) findHead(ctx context.Context) error {
	h, ref, err := o.p.getHead(ctx, o.id, o.rec.Head)
	missing := errors.Is(err, backend.ErrNotExist)
	switch {
	case err == nil:
		o.head, o.ref = h, ref
		saveLocalHead(o.p.host, h)
	case missing: // superseded and deleted, if there is a newer one
		ref = o.rec.Head
	case errors.Is(err, ErrCorrupt), errors.Is(err, backend.ErrCorrupt):
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	default:
		return o.findLocalHead(err)
	}
	newer, lerr := o.p.newestHead(ctx, o.id, ref, o.rec.Void)
	switch {
	case lerr != nil:
		return o.findLocalHead(lerr)
	case newer.head == nil && missing:
		return fmt.Errorf("%w: the committed head is missing on the backend: %w", ErrCorrupt, err)
	case newer.head != nil && newer.head.Deleted:
		return fmt.Errorf("vdisk %s was deleted: %w", o.id, ErrNotFound)
	case newer.head != nil:
		o.foreign = !o.rec.knows(newer.ref)
		o.head, o.ref = newer.head, newer.ref
	}
	for _, r := range newer.all {
		if o.ref.newer(r) {
			o.stale = append(o.stale, r)
		}
	}
	if err := o.findPast(ctx); err != nil || o.offline {
		return err
	}
	return o.findClaims(ctx)
}

// findPast reads the past of the head.
func (o *opening) findPast(ctx context.Context) error {
	var err error
	if o.past, err = o.p.getPast(ctx, o.head); err == nil {
		o.stalePasts, err = o.p.stalePasts(ctx, o.head, o.ref)
	}
	switch {
	case err == nil:
		if _, lerr := o.p.localPast(o.head); lerr != nil {
			saveLocalPast(o.p.host, o.past, o.head.Past)
		}
		return nil
	case notThere(err) || errors.Is(err, ErrCorrupt):
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return o.findLocalHead(err)
}

// findParent gets the map that a clone starts from. With the backend away one that
// is in memory must do.
func (o *opening) findParent(ctx context.Context) error {
	up := o.head.Parent
	if up == nil {
		return nil
	}
	f, err := o.p.frozen(ctx, up.VDisk, up.Seq, 1)
	if err != nil {
		return fmt.Errorf("vdisk %s (%s), clone of %s: %w", o.head.Name, o.id, up.VDisk, err)
	}
	if len(f.chain) > MaxDepth {
		return fmt.Errorf("vdisk %s: %w: more than %d ancestors", o.id, ErrCorrupt, MaxDepth)
	}
	o.parent = f
	return nil
}

// knows reports whether a head is of an opening that the record knows of.
func (r *Record) knows(h HeadRef) bool {
	return h.Epoch == r.Head.Epoch && h.Nonce == r.Head.Nonce || epochTable(r.Opens).has(h.Epoch, h.Nonce)
}

// findLocalHead goes on with the local copy of the head when the backend is away; not
// when it has what this version cannot read.
func (o *opening) findLocalHead(cause error) error {
	if errors.Is(cause, ErrNewerFormat) {
		return fmt.Errorf("vdisk %s: %w", o.id, cause)
	}
	b, err := blockfs.ReadFile(o.p.host.o.FS, localHead(o.id), maxHeadBytes)
	if err == nil {
		h, ref, derr := decodeHead(b)
		if derr == nil && ref == o.rec.Head {
			derr = o.useLocal(h, ref)
		}
		if derr == nil && o.offline {
			o.p.host.o.Log.Warn("backend away; opening from local state", "vdisk", o.id.String(), "err", cause)
			return nil
		}
	}
	return fmt.Errorf("vdisk %s: %w: %w", o.id, ErrBackend, cause)
}

// useLocal takes a local copy of the head and what else local copies must have.
func (o *opening) useLocal(h *Head, ref HeadRef) error {
	past, err := o.p.localPast(h)
	if err == nil {
		o.head, o.past, o.ref, o.offline, o.stale, o.stalePasts = h, past, ref, true, nil, nil
	}
	return err
}

func localHead(id ID) string { return stateDir(id) + "/head" }

// saveLocalHead keeps a copy of the head for an open without the backend. The
// copy is a convenience: failing to write it loses nothing.
func saveLocalHead(host *Host, h *Head) {
	obj, _, err := h.encode()
	if err == nil {
		if have, rerr := blockfs.ReadFile(host.o.FS, localHead(h.VDisk), maxHeadBytes); rerr == nil && bytes.Equal(have, obj) {
			return
		}
		if err = host.o.FS.MkdirAll(stateDir(h.VDisk)); err == nil {
			err = blockfs.WriteFile(host.o.FS, localHead(h.VDisk), obj)
		}
	}
	if err != nil {
		host.o.Log.Warn("local head copy not written", "vdisk", h.VDisk.String(), "err", err)
	}
}

// findClaims reads which epochs were claimed.
func (o *opening) findClaims(ctx context.Context) error {
	if !o.p.cfg.Store.Features().ConditionalPut {
		return nil
	}
	l, err := o.p.list(ctx, vdiskPrefix(o.id)+claimDir, claimName(o.id, o.rec.Epoch), 1000)
	if err != nil {
		return o.findLocalHead(err)
	}
	for _, e := range l {
		var n uint32
		if _, err := fmt.Sscanf(e.Name[len(vdiskPrefix(o.id)+claimDir):], "%08x", &n); err == nil {
			o.claimed = max(o.claimed, n)
		}
	}
	return nil
}

// findTail reads the journal. A non-empty answer says why acknowledged writes are
// known, or must be assumed, to be missing (E9).
func (o *opening) findTail() (lost string, err error) {
	o.disk = o.findDisk()
	jp := o.disk.pool
	if o.foreign {
		// Local state is older than the backend's head: set aside, never used (E1).
		for _, d := range o.p.host.disks {
			if d.pool == nil {
				continue // it is not used when it is back: the record names another pool then
			}
			t, err := journal.Recover(d.pool, o.id, o.head.LastSeq+1, func(uint32, uint64, uint64) bool { return false })
			if err == nil {
				err = t.SetAside()
			}
			if err != nil {
				return "", fmt.Errorf("vdisk %s: WRITE disk %s: %w", o.id, d.name, err)
			}
		}
		if o.tail, err = journal.Recover(jp, o.id, o.head.LastSeq+1, func(uint32, uint64, uint64) bool { return false }); err != nil {
			return "", err
		}
		if o.head.Clean {
			return "", nil
		}
		return "the backend has a head of another opening, and its journal is not here", nil
	}
	valid := epochTable(o.head.Epochs).with(o.rec.Opens).valid
	if !o.unclean() {
		valid = func(uint32, uint64, uint64) bool { return false } // it was closed in order: the head has it all
	}
	recover := journal.Recover
	if o.accepted() {
		recover = journal.RecoverLeft
	}
	o.tail, err = recover(jp, o.id, o.head.LastSeq+1, valid)
	switch {
	case errors.As(err, new(*journal.CorruptError)):
		err = fmt.Errorf("vdisk %s: %w: %w: %w", o.id, ErrLostTail, ErrCorrupt, err)
		if d := &o.rec.DTL; d.State == DTLOK && d.Peer != o.p.host.o.Node {
			err = fmt.Errorf("%w: node %s has a copy of its newest writes: stop ovgate on node %s, and that one takes over", err, d.Peer, o.p.host.o.Node)
		}
		return "", err
	case err != nil:
		return "", fmt.Errorf("vdisk %s: %w", o.id, err)
	case o.tail.Damage != nil:
		o.p.host.o.Log.Warn("vdisk opens without what its journal lost, as was accepted", "vdisk", o.id.String(), "lastSeq", o.tail.LastSeq, "damage", o.tail.Damage)
	}
	unclean := o.unclean() && !o.adopted
	switch {
	case unclean && o.rec.Journal != jp.ID() && o.p.host.unusable() != nil:
		return "", fmt.Errorf("vdisk %s: its journal is not here, it may be on another disk: %w", o.id, o.p.host.unusable())
	case unclean && o.rec.Journal != "" && o.rec.Journal != jp.ID():
		return "the journal that this vdisk was written to is not here", nil
	case !o.ref.same(o.rec.Head) && !o.head.Clean && o.tail.MaxSeq < o.head.LastSeq && o.olderRegistry():
		return "the registry and the journal are older than the backend's head", nil
	}
	return "", nil
}

// accepted tells whether it may open without acknowledged writes. The vPool's word does not
// count while another node has them.
func (o *opening) accepted() bool {
	d := &o.rec.DTL
	return o.rec.State == FlagAccepted || o.p.Settings().AcceptLostTail && (d.State != DTLOK || d.Peer == o.p.host.o.Node)
}

// unclean tells that there may be a tail. A rollback writes no journal.
func (o *opening) unclean() bool {
	return !o.head.Clean || len(o.rec.Opens) > 0 && o.rec.State != FlagPending
}

// adopt takes the copy over that this node has of the tail, if the registry says that it
// is whole. Where it is not, or on another node, a tail that may be somewhere is not given
// up without somebody's word: then nothing changes, ErrLostTail.
func (o *opening) adopt(ctx context.Context) error {
	h, d := o.p.host, &o.rec.DTL
	if o.foreign || !o.unclean() || d.State != DTLOK && d.State != DTLDegraded || h.writeDiskOf(o.rec.Journal) != nil {
		return nil
	}
	why := fmt.Sprintf("node %s has its newest writes: start that", o.rec.Owner)
	if d.State == DTLOK {
		why = fmt.Sprintf("nodes %s and %s have its newest writes: open it on one of them", o.rec.Owner, d.Peer)
	}
	accepted := o.rec.State == FlagAccepted || o.p.Settings().AcceptLostTail
	if d.State == DTLOK && d.Peer == h.o.Node && d.Async && !accepted {
		why = fmt.Sprintf("the copy here may lack the newest writes, which node %s has: start that", o.rec.Owner)
	} else if d.State == DTLOK && d.Peer == h.o.Node && h.dtl != nil {
		a, err := h.dtl.server.Adopt(ctx, o.id, d.Generation)
		if err == nil {
			if o.disk, err = h.dtl.place(a, o.id, o.head.LastSeq); err == nil && o.disk != nil {
				o.adopted = true
				return nil
			}
			if err == nil {
				err = dtl.ErrGeneration
			}
		}
		if !errors.Is(err, dtl.ErrGeneration) {
			return fmt.Errorf("vdisk %s: take it over from node %s: %w", o.id, o.rec.Owner, err)
		}
		why = fmt.Sprintf("the copy of its newest writes that was here is gone; node %s has them: start that", o.rec.Owner)
	}
	if accepted || o.rec.Owner == h.o.Node && d.State != DTLOK {
		return nil
	}
	if h.dtl != nil && d.State == DTLDegraded {
		if err := h.dtl.server.GiveUp(o.id); err != nil {
			return err
		}
	}
	return fmt.Errorf("vdisk %s (%s): %w: %s, or accept the loss to serve what is left", o.head.Name, o.id, ErrLostTail, why)
}

// findDisk returns the disk that has the tail.
func (o *opening) findDisk() *writeDisk {
	h := o.p.host
	if o.adopted {
		return o.disk
	}
	if d := h.writeDiskOf(o.rec.Journal); d != nil {
		return d
	}
	best, last := h.placeLog(nil), o.head.LastSeq
	if o.rec.Journal != "" || o.foreign {
		return best
	}
	// The record does not say: it is new, was recovered from the backend, or is from
	// before there were several disks.
	known := epochTable(o.head.Epochs).with(o.rec.Opens)
	for _, d := range h.disks {
		if d.pool == nil {
			continue
		}
		r, err := journal.Recover(d.pool, o.id, o.head.LastSeq+1, known.valid)
		if err != nil {
			return d // findTail meets it again, and says what it is
		}
		if r.LastSeq > last {
			best, last = d, r.LastSeq
		}
		r.Abandon()
	}
	return best
}

// olderRegistry reports whether the newer head that was found holds data that
// the registry's does not: then the journal must still have them, or is old too.
func (o *opening) olderRegistry() bool {
	b, err := blockfs.ReadFile(o.p.host.o.FS, localHead(o.id), maxHeadBytes)
	if err != nil {
		return true
	}
	h, ref, err := decodeHead(b)
	return err != nil || !ref.same(o.rec.Head) || h.LastSeq < o.head.LastSeq
}

// markLost records LOST_TAIL; the vDisk stays offline.
func (o *opening) markLost(ctx context.Context, why string) error {
	o.abandon()
	next := o.rec
	next.State, next.Head, next.Epoch, next.Owner = FlagLostTail, o.ref, max(o.rec.Epoch, o.head.Epoch), ""
	if o.foreign {
		next.Opens = nil
	}
	o.voidScrub(&next)
	if err := o.p.swapOver(ctx, &o.rec, &next); err != nil {
		return err
	}
	return fmt.Errorf("vdisk %s (%s): %w: %s; accept the loss to serve what is left", o.head.Name, o.id, ErrLostTail, why)
}

// take makes this opening the owner: claim on the backend, then the registry (E1).
func (o *opening) take(ctx context.Context, state RecordFlag) error {
	nonce, err := o.p.host.nonce()
	if err != nil {
		return err
	}
	o.this = Opening{Epoch: max(o.rec.Epoch, o.head.Epoch, o.claimed) + 1, Nonce: nonce,
		FirstSeq: o.tail.LastSeq + 1, FirstSCO: o.head.NextSCO, FirstTLog: o.head.NextTLog,
		Time: max(o.p.host.now(), o.head.Time, o.tail.MaxTime)}
	if !o.offline && o.p.cfg.Store.Features().ConditionalPut {
		if err := o.claim(ctx); err != nil {
			return err
		}
	}
	opens := o.rec.Opens
	if o.foreign {
		opens = nil
	}
	next := o.rec
	if pending := o.rec.Epoch; o.rec.State == FlagPending && o.head.Epoch < pending {
		// Its head is not there, and if it comes yet, it is too late.
		opens = slices.DeleteFunc(slices.Clone(opens), func(e Opening) bool { return e.Epoch == pending })
		next.Void = append(slices.Clone(o.rec.Void), pending)
	}
	o.table = epochTable(o.head.Epochs).with(opens).with([]Opening{o.this})
	next.Owner, next.Epoch, next.Head, next.State = o.p.host.o.Node, o.this.Epoch, o.ref, state
	// What this opening acknowledges only this node has, until a new copy is good (O2).
	next.DTL = DTLRecord{State: DTLOff}
	if state == FlagNone && o.p.host.mirrored(o.p.settingsOf(o.id)) {
		next.DTL.State = DTLDegraded
	}
	if len(o.tail.Tail) == 0 {
		o.disk = o.p.host.placeLog(o.disk)
	}
	next.Journal = o.disk.pool.ID()
	if o.tail.Damage != nil {
		if err := o.tail.Accept(); err != nil { // before the record loses the operator's word
			return fmt.Errorf("vdisk %s: %w", o.id, err)
		}
	}
	o.voidScrub(&next)
	next.Opens = nil
	for _, e := range o.table {
		if e.Epoch > o.head.Epoch {
			next.Opens = append(next.Opens, e)
		}
	}
	if len(next.Opens) > maxOpens {
		return fmt.Errorf("vdisk %s: %w: opened %d times without it", o.id, ErrBackend, maxOpens)
	}
	swap := o.p.swapOver
	if state == FlagPending {
		swap = o.p.swap // what was decided looked at the clones
	}
	if err := swap(ctx, &o.rec, &next); err != nil {
		return err
	}
	o.rec = next
	return nil
}

// voidScrub makes sure that the head of a scrub that was cut off does not count if it
// was not found: clones are made again from now on, of a log that it does not keep.
func (o *opening) voidScrub(next *Record) {
	if o.rec.State == FlagScrub && !o.ref.newer(o.rec.Head) {
		next.Void = append(slices.Clone(o.rec.Void), o.rec.Epoch)
	}
}

// claimBody is the claim object of an opening.
func (p *Pool) claimBody(o Opening) ([]byte, error) {
	return json.Marshal(claim{Node: p.host.o.Node, Nonce: o.Nonce, Time: o.Time})
}

// claim takes an epoch on the backend that nobody took before, and makes sure
// that no other opening committed a head meanwhile.
func (o *opening) claim(ctx context.Context) error {
	body, err := o.p.claimBody(o.this)
	if err != nil {
		return err
	}
	for range maxClaims {
		cctx, cancel := context.WithTimeout(ctx, openTimeout)
		err = o.p.cfg.Store.PutIfAbsent(cctx, claimName(o.id, o.this.Epoch), body)
		cancel()
		if !errors.Is(err, backend.ErrExists) {
			break
		}
		o.this.Epoch++
	}
	if err != nil {
		return fmt.Errorf("vdisk %s: %w: claim epoch %d: %w", o.id, ErrBackend, o.this.Epoch, err)
	}
	newer, err := o.p.newestHead(ctx, o.id, o.ref, o.rec.Void)
	if err != nil {
		return fmt.Errorf("vdisk %s: %w: %w", o.id, ErrBackend, err)
	}
	if newer.head != nil {
		return fmt.Errorf("vdisk %s: %w: another opening committed a head meanwhile; try again", o.id, ErrFenced)
	}
	return nil
}
