package volume

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// onBackend is a vDisk that a recovery found.
type onBackend struct {
	head   *Head
	ref    HeadRef
	older  bool // than one that cannot be read
	clones []ID // that start from it and are needed
	needed bool // lives, or has a descendant that does
	done   bool
}

// recovery registers what a backend holds. A vDisk is registered after its clones,
// with their number, so that at no time a parent looks as if nobody needed it.
type recovery struct {
	p     *Pool
	found map[ID]*onBackend
	order []ID
	out   []Recovered
	lost  []error // vDisks of which no head can be read
}

// Recover registers every vDisk that the backend holds and the registry does not
// (vpool recover), and returns those that live. One whose newest head is not clean
// may lack acknowledged writes: it is registered as LOST_TAIL, to be accepted (rule
// E9), and so is one that has a newer head which cannot be read. A deleted vDisk that a
// clone needs is registered as what it was, a tombstone; another one is back if a late put
// brought a head of it again after all else was purged, and is to be deleted anew. A vDisk
// of which no head can be read is in the error, ErrCorrupt; the others are registered
// nevertheless.
func (p *Pool) Recover(ctx context.Context) ([]Recovered, error) {
	r := &recovery{p: p, found: map[ID]*onBackend{}}
	if err := r.scan(ctx); err != nil {
		return nil, err
	}
	for _, id := range r.order {
		r.need(id)
	}
	for _, id := range r.order {
		if err := r.register(ctx, id); err != nil {
			return r.out, err
		}
	}
	return r.out, errors.Join(r.lost...)
}

// scan finds the newest head of every vDisk.
func (r *recovery) scan(ctx context.Context) error {
	for after := ""; ; {
		page, err := r.p.list(ctx, vdiskRoot, after, 1)
		if err != nil || len(page) == 0 {
			return err
		}
		dir, _, _ := strings.Cut(strings.TrimPrefix(page[0].Name, vdiskRoot), "/")
		after = vdiskRoot + dir + "/" + afterNames
		id, err := ParseID(dir)
		if err != nil {
			r.p.host.o.Log.Warn("backend directory is not a vdisk", "vpool", r.p.cfg.Name, "name", dir)
			continue
		}
		f, err := r.p.newestHead(ctx, id, HeadRef{}, nil)
		h := f.head
		switch {
		case err != nil:
			return err
		case h == nil && len(f.damaged) > 0:
			r.lost = append(r.lost, fmt.Errorf("vdisk %s: %w: none of its %d heads on the backend can be read", id, ErrCorrupt, len(f.all)))
			continue
		case h == nil:
			continue
		}
		if h.Pool != r.p.cfg.ID {
			return fmt.Errorf("vdisk %s: %w: its head names vpool %s", id, ErrForeignRoot, h.Pool)
		}
		r.found[id] = &onBackend{head: h, ref: f.ref, older: len(f.damaged) > 0}
		r.order = append(r.order, id)
	}
}

// need marks a living vDisk and its ancestors.
func (r *recovery) need(id ID) {
	b := r.found[id]
	if b.head.Deleted {
		return
	}
	for b != nil && !b.needed {
		b.needed = true
		up := b.head.Parent
		if up == nil {
			return
		}
		child := b.head.VDisk
		if b = r.found[up.VDisk]; b != nil {
			b.clones = append(b.clones, child)
		}
	}
}

// register registers a vDisk that is needed, its clones first.
func (r *recovery) register(ctx context.Context, id ID) error {
	b := r.found[id]
	if !b.needed || b.done {
		return nil
	}
	b.done = true
	for _, c := range b.clones {
		if err := r.register(ctx, c); err != nil {
			return err
		}
	}
	known, err := r.p.registerFound(ctx, b)
	if err != nil || b.head.Deleted {
		return err
	}
	h := b.head
	rec := Recovered{ID: id, Name: h.Name, Size: h.Size, ClusterSize: h.ClusterSize, Labels: h.Labels, Epoch: h.Epoch,
		HeadNumber: h.Number, LastSeq: h.LastSeq, Time: time.Unix(0, h.Time), Clean: h.Clean && !b.older, Known: known, Template: h.Template}
	if h.Parent != nil {
		rec.Parent = h.Parent.VDisk
		rec.ParentMissing = r.found[rec.Parent] == nil
	}
	r.out = append(r.out, rec)
	return nil
}

// registerFound makes the record of a vDisk; known: there was one, and it is as it was.
func (p *Pool) registerFound(ctx context.Context, b *onBackend) (known bool, err error) {
	h := b.head
	done, err := p.begin(ctx, h.VDisk)
	if err != nil {
		return false, err
	}
	defer done()
	for range maxClaims {
		if _, err := p.host.o.Registry.Load(ctx, h.VDisk); err == nil {
			return true, nil
		} else if !errors.Is(err, ErrNotFound) {
			return false, err
		}
		clones, err := p.Clones(ctx, h.VDisk)
		if err != nil {
			return false, err
		}
		rec := Record{ID: h.VDisk, Pool: p.cfg.ID, Epoch: h.Epoch, Head: b.ref, DTL: DTLRecord{State: "off"}, Clones: len(clones)}
		switch {
		case h.Deleted:
			rec.State = FlagDeleting
		case !h.Clean || b.older:
			rec.State = FlagLostTail
		}
		changes := []Change{{nil, &rec}}
		if h.Parent != nil {
			rec.Parent = &ParentRef{VDisk: h.Parent.VDisk, Seq: h.Parent.Seq}
			// A parent that is there counts it; one that is not will when it comes.
			if up, err := p.host.o.Registry.Load(ctx, h.Parent.VDisk); err == nil {
				next := up
				next.changeClones(1)
				changes = append(changes, Change{&up, &next})
			} else if !errors.Is(err, ErrNotFound) {
				return false, err
			}
		}
		if err := p.apply(ctx, changes...); !errors.Is(err, ErrConflict) {
			return false, err
		}
	}
	return false, fmt.Errorf("vdisk %s: %w: its parent changes all the time; try again", h.VDisk, ErrInUse)
}
