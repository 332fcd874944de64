package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/openvstorage/ovgate/volumedriver/backend"
)

// A clone is a vDisk whose log starts from a point of another one's. Its registry
// record names that point; as long as it does, all of the parent's log up to there
// stays on the backend (rule E7). Record and count of the parent change in one
// transaction, which fails if anything happened to the parent since it was looked at.

// CloneSpec describes a clone to make.
type CloneSpec struct {
	ID     ID
	Name   string
	Labels map[string]string
	Size   int64 // bytes; 0: the source's at that point; else that or more
	Source ID
	From   Point // snapshot, moment, or now
}

// Clone makes a vDisk that holds what the source held at a point: durable in
// registry and backend on return, without copying data. The source may be open here,
// closed, or a template. A clone of now, or of a snapshot or moment that is not on
// the backend yet, waits until it is. A clone that was cut off is finished by calling
// it again with the same ID and source, or undone by Delete.
//
// Errors: ErrInvalid (smaller than the source), ErrNotFound, ErrNoPoint, ErrExists,
// ErrInUse (the source is not closed in order, or just changes), ErrBackend.
func (p *Pool) Clone(ctx context.Context, s CloneSpec) error {
	if s.ID == s.Source {
		return fmt.Errorf("vdisk %s: %w: a clone of itself", s.ID, ErrInvalid)
	}
	done, err := p.begin(ctx, s.ID)
	if err != nil {
		return err
	}
	defer done()
	rec, err := p.host.o.Registry.Load(ctx, s.ID)
	switch {
	case errors.Is(err, ErrNotFound):
		rec, err = p.beginClone(ctx, &s)
	case err == nil && (rec.Head.Number != 0 || rec.State != FlagNone || rec.Parent == nil || rec.Parent.VDisk != s.Source || len(rec.Opens) != 1):
		err = fmt.Errorf("vdisk %s (%s): %w", s.Name, s.ID, ErrExists)
	}
	if err != nil {
		return err
	}
	return p.finishClone(ctx, &s, rec)
}

// cloneSource is what a clone needs to know of its source.
type cloneSource struct {
	st   *state
	rec  Record
	at   resolved
	size int64
}

// beginClone takes hold of the source's point: the record of the clone appears
// together with its count.
func (p *Pool) beginClone(ctx context.Context, s *CloneSpec) (Record, error) {
	nonce, err := p.host.nonce()
	if err != nil {
		return Record{}, err
	}
	first := Opening{Epoch: 1, Nonce: nonce, FirstSeq: 1, FirstSCO: 1, FirstTLog: 1, Time: p.host.now()}
	for range maxClaims {
		src, err := p.source(ctx, s)
		if err != nil {
			return Record{}, err
		}
		if err := p.checkDepth(ctx, src.rec); err != nil {
			return Record{}, err
		}
		rec := Record{ID: s.ID, Pool: p.cfg.ID, Epoch: 1, Opens: []Opening{first}, DTL: DTLRecord{State: "off"},
			Parent: &ParentRef{VDisk: s.Source, Seq: src.at.seq}}
		next := src.rec
		next.changeClones(1)
		err = p.apply(ctx, Change{nil, &rec}, Change{&src.rec, &next})
		if !errors.Is(err, ErrConflict) {
			return rec, err
		}
		if _, err := p.host.o.Registry.Load(ctx, s.ID); err == nil {
			return Record{}, fmt.Errorf("vdisk %s (%s): %w", s.Name, s.ID, ErrExists)
		}
	}
	return Record{}, fmt.Errorf("vdisk %s: %w: it changes all the time; try again", s.Source, ErrInUse)
}

// source finds the point that is to be cloned. A log that a scrub replaced while it
// was read is read anew.
func (p *Pool) source(ctx context.Context, s *CloneSpec) (*cloneSource, error) {
	for range maxClaims {
		if err := p.settle(ctx, s.Source, s.From); err != nil {
			return nil, err
		}
		st, rec, err := p.stateOf(ctx, s.Source)
		if err != nil {
			return nil, err
		}
		if v := p.Volume(s.Source); v != nil && rec.State == FlagScrub {
			// The head that is on its way says which log it is.
			if err := v.Commit(ctx); err != nil {
				return nil, err
			}
			continue
		}
		src, err := p.sourceOf(ctx, s, st, rec)
		if err == nil || !p.movedOn(ctx, s.Source, rec.Head, err) {
			return src, err
		}
	}
	return nil, fmt.Errorf("vdisk %s: %w: it changes all the time; try again", s.Source, ErrInUse)
}

// sourceOf finds the point in a state of the source.
func (p *Pool) sourceOf(ctx context.Context, s *CloneSpec, st *state, rec Record) (*cloneSource, error) {
	var err error
	switch {
	case rec.State == FlagDeleting:
		return nil, fmt.Errorf("vdisk %s is being deleted: %w", s.Source, ErrNotFound)
	case rec.State == FlagPending || rec.State == FlagScrub:
		return nil, fmt.Errorf("vdisk %s: %w: a rollback, freeze or scrub of it did not finish; open it, or repeat that", s.Source, ErrInUse)
	}
	src := &cloneSource{st: st, rec: rec, size: st.head.Size}
	if src.at, err = p.resolve(ctx, st, s.From); err != nil {
		return nil, err
	}
	rest := st.head.Clean && len(rec.Opens) == 0 || p.Volume(s.Source) != nil
	if late := s.From == (Point{}) || s.From.Snapshot == "" && s.From.At.UnixNano() > st.head.Time; late && !rest {
		return nil, fmt.Errorf("vdisk %s (%s): %w: writes of it may be in a journal only (node %q); open it there first", st.head.Name, s.Source, ErrInUse, rec.Owner)
	}
	if src.at.pin != nil {
		src.size = src.at.pin.Size
	}
	size := s.Size
	if size == 0 {
		size = src.size
	}
	if err := checkSize(size, st.head.ClusterSize); err != nil {
		return nil, fmt.Errorf("vdisk %s: %w", s.Name, err)
	}
	if size < src.size {
		return nil, fmt.Errorf("vdisk %s: %w: size %d is below the %d of its source %s (%s); a clone is as large or larger", s.Name, ErrInvalid, size, src.size, st.head.Name, s.Source)
	}
	return src, nil
}

// settle brings a point of a vDisk that is open here to the backend.
func (p *Pool) settle(ctx context.Context, id ID, pt Point) error {
	v := p.Volume(id)
	if v == nil {
		return nil
	}
	st := v.committedState.Load()
	if pt.Snapshot != "" && slices.ContainsFunc(st.past.Pins, func(pin Pin) bool { return named(pt.Snapshot)(&pin) }) {
		return nil
	}
	if !pt.At.IsZero() && pt.At.UnixNano() <= st.head.Time {
		return nil
	}
	return v.Commit(ctx)
}

// checkDepth counts the ancestors of a clone of rec's vDisk.
func (p *Pool) checkDepth(ctx context.Context, rec Record) error {
	for depth := 1; rec.Parent != nil; depth++ {
		if depth == MaxDepth {
			return fmt.Errorf("vdisk %s: %w: the chain above it has %d vdisks, the most there can be; flatten one of them", rec.ID, ErrInvalid, MaxDepth)
		}
		up, err := p.host.o.Registry.Load(ctx, rec.Parent.VDisk)
		if err != nil {
			return fmt.Errorf("parent of vdisk %s: %w", rec.ID, err)
		}
		rec = up
	}
	return nil
}

// finishClone puts the first head of a clone whose record is there.
func (p *Pool) finishClone(ctx context.Context, s *CloneSpec, rec Record) error {
	st, _, err := p.stateOf(ctx, s.Source)
	if err != nil {
		return err
	}
	first := rec.Opens[0]
	// What an earlier call put counts: a name never gets other bytes.
	h, ref, err := p.getHead(ctx, s.ID, HeadRef{Epoch: 1, Nonce: first.Nonce, Number: 1})
	switch {
	case err == nil && h.Parent != nil:
		return p.firstHead(ctx, rec, ref)
	case err != nil && !errors.Is(err, backend.ErrNotExist):
		return fmt.Errorf("%w: %w", ErrBackend, err)
	}
	up := &Parent{VDisk: s.Source, Seq: rec.Parent.Seq}
	size := st.head.Size
	if i := slices.IndexFunc(st.past.Pins, func(pin Pin) bool { return pin.Seq == up.Seq }); i >= 0 && s.From.Snapshot != "" {
		up.Snapshot, size = st.past.Pins[i].Name, st.past.Pins[i].Size
	}
	if s.Size != 0 {
		size = s.Size
	}
	h = &Head{Format: HeadFormat, VDisk: s.ID, Pool: p.cfg.ID, Name: s.Name, Labels: s.Labels, Size: size,
		ClusterSize: st.head.ClusterSize, Created: first.Time, Epoch: 1, Nonce: first.Nonce, Number: 1, Time: first.Time,
		NextSCO: 1, NextTLog: 1, FirstTLog: 1, Epochs: []Opening{first}, Clean: true, Parent: up}
	if ref, err = p.putHead(ctx, h); err != nil {
		return err
	}
	return p.firstHead(ctx, rec, ref)
}

// firstHead makes a new vDisk's head the committed one.
func (p *Pool) firstHead(ctx context.Context, rec Record, ref HeadRef) error {
	next := rec
	next.Head, next.Opens = ref, nil
	return p.swap(ctx, &rec, &next)
}

// SetTemplate freezes a closed vDisk, or thaws one: a template is cloned and deleted,
// never opened. Errors: ErrInUse while it is open, ErrBackend.
func (p *Pool) SetTemplate(ctx context.Context, id ID, on bool) error {
	done, err := p.begin(ctx, id)
	if err != nil {
		return err
	}
	defer done()
	if p.Volume(id) != nil {
		return fmt.Errorf("vdisk %s: %w: it is open; close it, then make it a template", id, ErrInUse)
	}
	o, err := p.learnClean(ctx, id)
	if err != nil {
		return err
	}
	defer o.abandon()
	if o.head.Template == on {
		return nil
	}
	if err := o.take(ctx, FlagPending); err != nil {
		return err
	}
	h := o.nextHead()
	h.Template = on
	if err := o.commitClosed(ctx, h, o.past); err != nil {
		return fmt.Errorf("vdisk %s: freeze: outcome unknown, the next open shows it: %w", id, err)
	}
	return nil
}

// CloneInfo describes a clone.
type CloneInfo struct {
	ID  ID
	Seq uint64 // of the source, that it starts from
}

// Clones lists the vDisks that start from a vDisk, those being made or deleted too.
func (p *Pool) Clones(ctx context.Context, id ID) ([]CloneInfo, error) {
	var out []CloneInfo
	err := p.host.o.Registry.List(ctx, p.cfg.ID, func(r Record) error {
		if r.Parent != nil && r.Parent.VDisk == id {
			out = append(out, CloneInfo{r.ID, r.Parent.Seq})
		}
		return nil
	})
	return out, err
}

// releaseParent ends the hold of a clone on its parent: rec becomes next, or is
// deleted if that is nil, and the parent's count goes down, together. It returns the
// parent if that was deleted before and has no clone left.
func (p *Pool) releaseParent(ctx context.Context, rec, next *Record) (last *ID, err error) {
	held := *rec.Parent
	for range maxClaims {
		up, err := p.host.o.Registry.Load(ctx, held.VDisk)
		if errors.Is(err, ErrNotFound) {
			return nil, p.swapOver(ctx, rec, next)
		}
		if err != nil {
			return nil, err
		}
		down := up
		down.changeClones(-1)
		err = p.apply(ctx, Change{rec, next}, Change{&up, &down})
		if err == nil {
			p.tidyBases(ctx, held)
		}
		if err == nil && down.Clones == 0 && down.State == FlagDeleting {
			return &down.ID, nil
		}
		if !errors.Is(err, ErrConflict) {
			return nil, err
		}
		if cur, lerr := p.host.o.Registry.Load(ctx, rec.ID); lerr != nil || !cur.equal(rec) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("vdisk %s: %w: it changes all the time; try again", rec.Parent.VDisk, ErrInUse)
}
