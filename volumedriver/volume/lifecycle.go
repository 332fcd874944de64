package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/journal"
)

// CheckSpec says whether a vDisk like this can be created; ErrInvalid if not.
func CheckSpec(s *Spec, pool Settings) error {
	if s.ClusterSize == 0 {
		s.ClusterSize = pool.ClusterSize
	}
	if !validCluster(s.ClusterSize) {
		return fmt.Errorf("%w: cluster size %d is not 4, 8, 16, 32 or 64 KiB", ErrInvalid, s.ClusterSize)
	}
	return checkSize(s.Size, s.ClusterSize)
}

func checkSize(size int64, cluster int) error {
	switch {
	case size <= 0:
		return fmt.Errorf("%w: size %d must be above 0", ErrInvalid, size)
	case size > MaxSize:
		return fmt.Errorf("%w: size %d is above 64 TiB", ErrInvalid, size)
	case size%int64(cluster) != 0:
		return fmt.Errorf("%w: size %d is not a multiple of the cluster size %d", ErrInvalid, size, cluster)
	}
	return nil
}

// Create makes an empty vDisk: durable in registry and backend on return. A
// creation that was cut off is finished by calling it again with the same ID, or
// undone by Delete.
func (p *Pool) Create(ctx context.Context, s Spec) error {
	if err := CheckSpec(&s, p.Settings()); err != nil {
		return fmt.Errorf("vdisk %s: %w", s.Name, err)
	}
	done, err := p.begin(ctx, s.ID)
	if err != nil {
		return err
	}
	defer done()
	nonce, err := p.host.nonce()
	if err != nil {
		return err
	}
	now := p.host.now()
	first := Opening{Epoch: 1, Nonce: nonce, FirstSeq: 1, FirstSCO: 1, FirstTLog: 1, Time: now}
	rec := Record{ID: s.ID, Pool: p.cfg.ID, Epoch: 1, Opens: []Opening{first}, DTL: DTLRecord{State: "off"}}
	if err := p.swap(ctx, nil, &rec); errors.Is(err, ErrConflict) {
		if rec, err = p.host.o.Registry.Load(ctx, s.ID); err != nil {
			return err
		}
		if rec.Head.Number != 0 || rec.State != FlagNone || len(rec.Opens) != 1 || rec.Parent != nil {
			return fmt.Errorf("vdisk %s (%s): %w", s.Name, s.ID, ErrExists)
		}
		first = rec.Opens[0]
	} else if err != nil {
		return err
	}
	h := &Head{Format: HeadFormat, VDisk: s.ID, Pool: p.cfg.ID, Name: s.Name, Labels: s.Labels, Size: s.Size,
		ClusterSize: s.ClusterSize, Created: first.Time, Epoch: 1, Nonce: first.Nonce, Number: 1, Time: first.Time,
		NextSCO: 1, NextTLog: 1, FirstTLog: 1, Epochs: []Opening{first}, Clean: true}
	ref, err := p.putHead(ctx, h)
	if err != nil {
		return err
	}
	return p.firstHead(ctx, rec, ref)
}

// putHead writes a head object.
func (p *Pool) putHead(ctx context.Context, h *Head) (HeadRef, error) {
	obj, ref, err := h.encode()
	if err != nil {
		return ref, err
	}
	ctx, cancel := context.WithTimeout(ctx, backendTimeout)
	defer cancel()
	if err := p.again(ctx, func() error { return p.cfg.Store.Put(ctx, headName(h.VDisk, ref), obj) }); err != nil {
		return ref, fmt.Errorf("vdisk %s: %w: put head %d: %w", h.Name, ErrBackend, h.Number, err)
	}
	return ref, nil
}

// AcceptLoss is the operator's word that a vDisk in LOST_TAIL, one whose newest writes only
// another node has, or one whose journal is damaged may serve what is left (rules E3 and E9);
// the next Open succeeds. Of any other vDisk it changes nothing.
func (p *Pool) AcceptLoss(ctx context.Context, id ID) error {
	done, err := p.begin(ctx, id)
	if err != nil {
		return err
	}
	defer done()
	rec, err := p.host.o.Registry.Load(ctx, id)
	if err != nil {
		return err
	}
	elsewhere := rec.State == FlagNone && rec.Owner != "" && rec.Owner != p.host.o.Node
	o := &opening{p: p, id: id, rec: rec}
	if rec.State != FlagLostTail && !elsewhere {
		if rec.State != FlagNone && rec.State != FlagScrub || p.Volume(id) != nil {
			return nil
		}
		err := o.learn(ctx)
		o.abandon()
		if !errors.As(err, new(*journal.CorruptError)) {
			return err
		}
	}
	next := o.rec
	next.State = FlagAccepted
	o.voidScrub(&next)
	return p.swapOver(ctx, &o.rec, &next)
}

// Delete removes a closed vDisk: first the decision, durably, then objects and
// local state, then the record. It can be repeated after any interruption; a
// vDisk that the registry does not know is no error.
//
// One with clones becomes a tombstone: its record and objects stay, for what its
// clones have of it, until the last of them is deleted or flattened. That one takes
// it along. ErrDeletesOff: nothing was decided.
func (p *Pool) Delete(ctx context.Context, id ID) error {
	parent, err := p.deleteOne(ctx, id)
	if err == nil {
		p.deleteLast(ctx, parent)
	}
	return err
}

// deleteLast finishes the deletion of tombstones that lost their last clone. What
// fails is left to Purge.
func (p *Pool) deleteLast(ctx context.Context, id *ID) {
	for id != nil {
		parent, err := p.deleteOne(ctx, *id)
		if err != nil {
			p.host.o.Log.Warn("deleted vdisk without clones not purged yet", "vdisk", id.String(), "err", err)
			return
		}
		id = parent
	}
}

// Purge finishes deletions that were decided and cut off. ErrDeletesOff.
func (p *Pool) Purge(ctx context.Context) error {
	if err := p.mayDelete(ctx); err != nil {
		return err
	}
	var ids []ID
	if err := p.host.o.Registry.List(ctx, p.cfg.ID, func(r Record) error {
		if r.State == FlagDeleting && r.Clones == 0 {
			ids = append(ids, r.ID)
		}
		return nil
	}); err != nil {
		return err
	}
	var first error
	for _, id := range ids {
		if err := p.Delete(ctx, id); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// deleteOne deletes one vDisk. It returns its parent if that is to be deleted now.
func (p *Pool) deleteOne(ctx context.Context, id ID) (parent *ID, err error) {
	done, err := p.begin(ctx, id)
	if err != nil {
		return nil, err
	}
	defer done()
	if p.Volume(id) != nil {
		return nil, fmt.Errorf("%w: vdisk %s is open", ErrInvalid, id)
	}
	rec, err := p.host.o.Registry.Load(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err == nil {
		err = p.mayDelete(ctx) // before it is decided: a newer registry may say that it is needed
	}
	if err != nil {
		return nil, err
	}
	if rec.State != FlagDeleting {
		next := rec
		next.State, next.Epoch = FlagDeleting, rec.Epoch+1
		if err := p.swapOver(ctx, &rec, &next); err != nil {
			return nil, err
		}
		rec = next
	}
	err = p.putDeleted(ctx, rec)
	// A full backend has no space for word of it. A recovery finds nothing either without
	// the heads, and other objects are what makes space.
	mute := errors.Is(err, backend.ErrFull) && rec.Clones == 0
	if err != nil && !mute {
		return nil, err
	}
	if rec.Clones == 0 { // no clone of what is being deleted is made any more
		if err := p.purge(ctx, id, mute); err != nil {
			return nil, err
		}
	}
	for _, d := range p.host.disks {
		if d.pool == nil {
			continue // a vDisk of this id is not opened again, whatever is found there
		}
		if err := errors.Join(d.pool.Erase(id), d.pool.DropAside(id)); err != nil {
			return nil, err
		}
	}
	p.host.forgetCacheUser(id)
	if err := removeTree(p.host.o.FS, stateDir(id)); err != nil {
		return nil, fmt.Errorf("vdisk %s: %w", id, err)
	}
	switch {
	case rec.Clones > 0:
		return nil, nil
	case rec.Parent != nil:
		return p.releaseParent(ctx, &rec, nil)
	}
	return nil, p.swap(ctx, &rec, nil)
}

// putDeleted leaves word on the backend that the vDisk is gone, so that a
// recovery from it does not bring it back half purged.
func (p *Pool) putDeleted(ctx context.Context, rec Record) error {
	if rec.Head.Number == 0 {
		return nil
	}
	h, _, err := p.getHead(ctx, rec.ID, rec.Head)
	if errors.Is(err, backend.ErrNotExist) {
		return nil // purged before
	}
	if err != nil {
		return err
	}
	h.Epoch, h.Number, h.Nonce, h.Deleted = rec.Epoch, rec.Head.Number+1, rec.Head.Nonce, true
	_, err = p.putHead(ctx, h)
	return err
}

// purge deletes the objects of a vDisk, heads last or first.
func (p *Pool) purge(ctx context.Context, id ID, headsFirst bool) error {
	for _, heads := range []bool{headsFirst, !headsFirst} {
		after := ""
		for {
			page, err := p.list(ctx, vdiskPrefix(id)+"/", after, 1000)
			if err != nil {
				return err
			}
			for _, o := range page {
				after = o.Name
				if strings.Contains(o.Name, headDir) != heads {
					continue
				}
				if err := p.remove(ctx, o.Name); err != nil {
					return err
				}
			}
			if len(page) < 1000 {
				break
			}
		}
	}
	return nil
}

// remove deletes an object. ErrDeletesOff.
func (p *Pool) remove(ctx context.Context, name string) error {
	if err := p.mayDelete(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, backendTimeout)
	defer cancel()
	var denied error // asking again at once does not give the right
	err := p.again(ctx, func() error {
		err := p.cfg.Store.Delete(ctx, name)
		if denied = nil; errors.Is(err, backend.ErrDenied) {
			denied, err = err, nil
		}
		return err
	})
	if err == nil {
		err = denied
	}
	if err != nil {
		return fmt.Errorf("vpool %s: delete %s: %w", p.cfg.Name, name, err)
	}
	return nil
}

func (p *Pool) list(ctx context.Context, prefix, after string, limit int) ([]backend.Info, error) {
	ctx, cancel := context.WithTimeout(ctx, backendTimeout)
	defer cancel()
	var l []backend.Info
	err := p.again(ctx, func() (err error) {
		l, err = p.cfg.Store.List(ctx, prefix, after, limit)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("vpool %s: list %s: %w", p.cfg.Name, prefix, err)
	}
	return l, nil
}

// getHead reads and verifies the head that ref names.
func (p *Pool) getHead(ctx context.Context, id ID, ref HeadRef) (*Head, HeadRef, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	var h *Head
	var got HeadRef
	err := p.fetch(ctx, headName(id, ref), maxHeadBytes, func(b []byte) (err error) {
		if h, got, err = decodeHead(b); err == nil && (h.VDisk != id || !got.same(ref) || ref.Hash != "" && ref.Hash != got.Hash) {
			err = fmt.Errorf("%w: not the one that was committed", ErrCorrupt)
		}
		return err
	})
	if err != nil {
		return nil, ref, fmt.Errorf("vdisk %s: head %d: %w", id, ref.Number, err)
	}
	return h, got, nil
}

// heads lists the references of the heads on the backend, in name order.
func (p *Pool) heads(ctx context.Context, id ID) ([]HeadRef, error) {
	var out []HeadRef
	after := ""
	for {
		page, err := p.list(ctx, vdiskPrefix(id)+headDir, after, 1000)
		if err != nil {
			return nil, err
		}
		for _, o := range page {
			after = o.Name
			if r, ok := parseHeadName(o.Name); ok {
				out = append(out, r)
			}
		}
		if len(page) < 1000 {
			return out, nil
		}
	}
}

// found is what a look for heads on the backend found.
type found struct {
	head    *Head     // the newest valid one; nil: none
	ref     HeadRef   // what it is known by
	all     []HeadRef // every head
	damaged []HeadRef // those above head that cannot be read
}

// newestHead looks for the newest valid head on the backend above ref, those of void
// epochs left out.
func (p *Pool) newestHead(ctx context.Context, id ID, ref HeadRef, void []uint32) (found, error) {
	all, err := p.heads(ctx, id)
	f := found{ref: ref, all: all}
	if err != nil {
		return f, err
	}
	for _, r := range all {
		if !r.newer(f.ref) || slices.Contains(void, r.Epoch) {
			continue
		}
		h, got, err := p.getHead(ctx, id, r)
		switch {
		case err == nil:
			f.head, f.ref = h, got
		case errors.Is(err, backend.ErrNotExist): // superseded and deleted meanwhile
		case errors.Is(err, ErrCorrupt), errors.Is(err, backend.ErrCorrupt):
			p.host.o.Log.Warn("head on backend ignored", "vdisk", id.String(), "head", r.Number, "err", err)
			f.damaged = append(f.damaged, r)
		default:
			return f, err
		}
	}
	f.damaged = slices.DeleteFunc(f.damaged, func(r HeadRef) bool { return !r.newer(f.ref) })
	return f, nil
}

func stateDir(id ID) string { return "vdisk/" + id.String() }

// removeTree removes a directory of files, if it is there.
func removeTree(fsys blockfs.FS, dir string) error {
	list, err := fsys.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := fsys.Remove(dir + "/" + e.Name); err != nil {
			return err
		}
	}
	return fsys.Remove(dir)
}
