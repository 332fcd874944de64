package volume

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Rolled tells what a rollback did.
type Rolled struct {
	To      Moment
	Undo    time.Time  // a rollback to this moment undoes it, save for the snapshots
	Deleted []Snapshot // newer than the point, and gone with it
}

// Rollback takes a closed vDisk back to a snapshot or moment. It is an opening of
// its own (rule E1): a new epoch, in which seqs and numbers go on from where they
// were, and one head that says the new log. A crash leaves the old state or the new
// one, whole. Snapshots newer than the point are deleted. The size stays: what lies
// beyond that of the point reads as zeros.
//
// What is cut off stays on the backend as long as history asks for it; a rollback to
// a moment before this one undoes it, save for the snapshots.
//
// Errors: ErrInUse while the vDisk is open, or when a clone or sticky snapshot hangs
// on what would go; ErrNoPoint, ErrLostTail, ErrBackend. After ErrBackend the next
// open shows which state it is.
func (p *Pool) Rollback(ctx context.Context, id ID, pt Point) (Rolled, error) {
	done, err := p.begin(ctx, id)
	if err != nil {
		return Rolled{}, err
	}
	defer done()
	if p.Volume(id) != nil {
		return Rolled{}, fmt.Errorf("vdisk %s: %w: it is open; close it, then roll it back", id, ErrInUse)
	}
	o, err := p.learnClean(ctx, id)
	if err != nil {
		return Rolled{}, err
	}
	defer o.abandon()
	if o.head.Template {
		return Rolled{}, fmt.Errorf("vdisk %s (%s): %w; clone it, or thaw it first", o.head.Name, id, ErrTemplate)
	}
	return o.rollback(ctx, pt)
}

// learnClean learns what a closed vDisk is and makes sure that all of it is on the
// backend: a vDisk that was not closed in order is opened and closed.
func (p *Pool) learnClean(ctx context.Context, id ID) (*opening, error) {
	for range 2 {
		o := &opening{p: p, id: id}
		if err := o.learn(ctx); err != nil {
			o.abandon()
			return nil, err
		}
		switch {
		case o.offline:
			o.abandon()
			return nil, fmt.Errorf("vdisk %s: %w: a rollback needs it", id, ErrBackend)
		case o.head.Clean && len(o.tail.Tail) == 0 && (len(o.rec.Opens) == 0 || o.rec.State == FlagPending):
			return o, nil
		}
		o.abandon()
		v, err := p.openReserved(ctx, id)
		if err != nil {
			return nil, err
		}
		if err := v.Close(ctx); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("vdisk %s: %w: it does not come to rest", id, ErrBackend)
}

// rollback decides, then puts past and head, then moves the registry's pointer.
func (o *opening) rollback(ctx context.Context, pt Point) (Rolled, error) {
	p, old := o.p, &state{o.head, o.past, o.ref}
	to, err := p.resolve(ctx, old, pt)
	if err != nil {
		return Rolled{}, err
	}
	runs, err := p.logReader(o.id, o.head.Epochs).cut(ctx, to.line, to.seq)
	if err != nil {
		return Rolled{}, err
	}
	out := Rolled{To: to.moment()}
	past := Past{Format: PastFormat, VDisk: o.id, FirstSeq: o.head.LastSeq + 1, Runs: runs}
	for i := range o.past.Pins {
		switch pin := &o.past.Pins[i]; {
		case pin.Seq <= to.seq && contains(runs, pin.Seq):
			past.Pins = append(past.Pins, *pin)
		case pin.Sticky:
			return Rolled{}, fmt.Errorf("vdisk %s: %w: snapshot %q is newer and sticky; delete it first", o.id, ErrInUse, pin.Name)
		default:
			out.Deleted = append(out.Deleted, pin.snapshot(o.head.LastSeq))
		}
	}
	if err := o.checkClones(ctx, old, to.seq); err != nil {
		return Rolled{}, err
	}
	// From here on no clone of this vDisk is made until the rollback is decided.
	if err := o.take(ctx, FlagPending); err != nil {
		return Rolled{}, err
	}
	h := o.nextHead()
	h.FirstTLog = h.NextTLog
	out.Undo = unixTime(h.Time - 1)
	past.Before = append(slices.Clone(o.past.Before), Line{Until: h.Time, Runs: old.log()})
	if err := o.commitClosed(ctx, h, &past); err != nil {
		return Rolled{}, fmt.Errorf("vdisk %s: rollback: outcome unknown, the next open shows it: %w", o.id, err)
	}
	return out, nil
}

// checkClones refuses a rollback that would cut off what a clone starts from.
func (o *opening) checkClones(ctx context.Context, old *state, seq uint64) error {
	if o.rec.Clones == 0 {
		return nil
	}
	clones, err := o.p.Clones(ctx, o.id)
	if err != nil {
		return err
	}
	for _, c := range clones {
		if c.Seq > seq && contains(old.log(), c.Seq) {
			return fmt.Errorf("vdisk %s: %w: clone %s starts from a newer point; flatten or delete it first", o.id, ErrInUse, c.ID)
		}
	}
	return nil
}

func (r *resolved) moment() Moment {
	m := Moment{Time: unixTime(r.time), Seq: r.seq}
	if r.pin != nil {
		m.Snapshot = r.pin.Name
	}
	return m
}

// nextHead returns the head of this opening that says what the last one said.
func (o *opening) nextHead() *Head {
	h := *o.head
	h.Epoch, h.Nonce, h.Number, h.Epochs = o.this.Epoch, o.this.Nonce, o.head.Number+1, o.table
	h.Time = max(o.this.Time, o.head.Time+1)
	h.Condemned, h.Clean = condemnedData(o.head), true // condemned is final (E7)
	return &h
}

// commitClosed makes a new state that of a closed vDisk (E5).
func (o *opening) commitClosed(ctx context.Context, h *Head, past *Past) error {
	p := o.p
	ref := h.Past
	if past != o.past {
		var obj []byte
		var err error
		if ref, obj, err = past.encode(o.this, h.Number); err != nil {
			return err
		}
		pctx, cancel := context.WithTimeout(ctx, backendTimeout)
		defer cancel()
		if err := p.cfg.Store.Put(pctx, pastName(o.id, *ref), obj); err != nil {
			return fmt.Errorf("%w: %w", ErrBackend, err)
		}
		h.Past = ref
	}
	headRef, err := p.putHead(ctx, h)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBackend, err)
	}
	next := o.rec
	next.Head, next.Opens, next.Void, next.State, next.Owner = headRef, nil, nil, FlagNone, ""
	if err := p.swapOver(ctx, &o.rec, &next); err != nil {
		return err
	}
	// The local copies are of the old log.
	if err := removeTree(p.host.o.FS, stateDir(o.id)); err != nil {
		p.host.o.Log.Warn("old local copies not removed", "vdisk", o.id.String(), "err", err)
	}
	saveLocalHead(p.host, h)
	saveLocalPast(p.host, past, ref)
	return nil
}
