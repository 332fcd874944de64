package volume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/openvstorage/ovgate/internal/kv"
)

// A registry that was restored from a backup is older than what the backends hold: it does not
// know of newer heads, snapshots and vDisks, and knows vDisks that were deleted. Who restores
// it leaves a mark for each vPool (rule E7):
//
//	registry/restored/VPOOL   Restored: nothing is deleted from the backend of this vPool
//	registry/compared/VPOOL   Comparison that took the mark away
//
// Nothing runs while a registry is restored, so a vPool that was attached without a mark never
// gets one.

// ErrDeletesOff: the registry was restored, and the vPool was not compared with it yet.
var ErrDeletesOff = errors.New("deletes are off since the metadata was restored")

// RestoredFormat is the newest format of a mark, and of a Comparison, that this code knows.
const RestoredFormat = 1

// Restored is the mark of a restore.
type Restored struct {
	Format int       `json:"format"`
	Made   time.Time `json:"made"` // the backup
	Time   time.Time `json:"time"` // the restore
	// ID is random, of the restore: a comparison that began before it does not take the mark
	// away.
	ID string `json:"id"`
	// Accepted are vDisks that keep deletes off no more, as an administrator said. A version
	// that does not know of them takes no mark with them away.
	Accepted []ID `json:"accepted,omitempty"`
}

// Comparison is what came of comparing the records of a vPool with its backend.
type Comparison struct {
	Format int       `json:"format"`
	Made   time.Time `json:"made"`     // the backup
	Time   time.Time `json:"restored"` // the restore
	Ended  time.Time `json:"ended"`    // zero: something is in the way, see Unclear
	// Compared counts vDisks that registry and backend both have, Newer those of them whose
	// head on the backend was newer than the registry's.
	Compared int `json:"compared"`
	Newer    int `json:"newer"`
	// Missing are vDisks of the registry that the backend does not have: deleted, or moved
	// away, after the backup was made.
	Missing []Strange `json:"missing,omitempty"`
	// Orphans are vDisks of the backend that the registry does not have. They are left alone;
	// Recover registers them. One that was cloned from a vDisk that the registry has is
	// registered already, so that what it has of that is kept.
	Orphans []Strange `json:"orphans,omitempty"`
	// Unclear are those that keep deletes off.
	Unclear []Strange `json:"unclear,omitempty"`
	// Accepted are those that would, and that an administrator accepted (AcceptUnclear).
	Accepted []Strange `json:"accepted,omitempty"`
	// More: there are more than are named.
	More bool `json:"more,omitempty"`
}

// Strange is a vDisk that is not in both, registry and backend, as it should be.
type Strange struct {
	ID   ID     `json:"id"`
	Name string `json:"name,omitempty"` // by its head; empty: there is none
	Size int64  `json:"size,omitempty"` // bytes
	Why  string `json:"why"`
}

// maxStrange bounds each list of a Comparison: some 300 bytes each in one record.
const maxStrange = 500

const (
	restoredPrefix = "registry/restored/"
	comparedPrefix = "registry/compared/"
)

// RestoredMarks returns the operations that leave a mark for vPools, and take back what was
// compared before.
func RestoredMarks(r Restored, pools ...string) ([]kv.Op, error) {
	r.Format = RestoredFormat
	b, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	var out []kv.Op
	for _, p := range pools {
		out = append(out, kv.Put(restoredPrefix+p, b))
	}
	return out, nil
}

// OfRestore tells whether a record is of a restore, and no part of a backup.
func OfRestore(key string) bool {
	return hasPrefix(key, restoredPrefix) || hasPrefix(key, comparedPrefix)
}

func hasPrefix(s, prefix string) bool { return len(s) > len(prefix) && s[:len(prefix)] == prefix }

// PoolOfRecord returns the vPool of a record of a vDisk; empty: it is another record.
func PoolOfRecord(key, value []byte) (string, error) {
	if !hasPrefix(string(key), registryPrefix) {
		return "", nil
	}
	rec, err := decodeRecord(value)
	return rec.Pool, err
}

// Restored implements Registry.
func (r KVRegistry) Restored(ctx context.Context, pool string) (*Restored, error) {
	e, err := r.Store.Get(ctx, restoredPrefix+pool)
	if err != nil || e == nil {
		return nil, err
	}
	var m Restored
	if err := json.Unmarshal(e.Value, &m); err != nil {
		return nil, fmt.Errorf("registry: record %s%s: %w: %w", restoredPrefix, pool, ErrCorrupt, err)
	}
	if m.Format > RestoredFormat {
		return nil, fmt.Errorf("registry: record %s%s has format %d, this version knows %d: %w", restoredPrefix, pool, m.Format, RestoredFormat, ErrNewerFormat)
	}
	return &m, nil
}

// EndRestored implements Registry.
func (r KVRegistry) EndRestored(ctx context.Context, pool string, m Restored, c Comparison) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	result, err := json.Marshal(c)
	if err != nil {
		return err
	}
	_, err = r.Store.Txn(ctx, []kv.Compare{kv.ValueIs(restoredPrefix+pool, b)},
		[]kv.Op{kv.Delete(restoredPrefix + pool), kv.Put(comparedPrefix+pool, result)}, nil)
	return err
}

// AcceptRestored implements Registry.
func (r KVRegistry) AcceptRestored(ctx context.Context, pool string, old, now Restored) (bool, error) {
	was, err := json.Marshal(old)
	if err != nil {
		return false, err
	}
	b, err := json.Marshal(now)
	if err != nil {
		return false, err
	}
	res, err := r.Store.Txn(ctx, []kv.Compare{kv.ValueIs(restoredPrefix+pool, was)}, []kv.Op{kv.Put(restoredPrefix+pool, b)}, nil)
	return err == nil && res.Succeeded, err
}

// LastComparison implements Registry.
func (r KVRegistry) LastComparison(ctx context.Context, pool string) (*Comparison, error) {
	e, err := r.Store.Get(ctx, comparedPrefix+pool)
	if err != nil || e == nil {
		return nil, err
	}
	var c Comparison
	if err := json.Unmarshal(e.Value, &c); err != nil {
		return nil, fmt.Errorf("registry: record %s%s: %w: %w", comparedPrefix, pool, ErrCorrupt, err)
	}
	return &c, nil
}

// restoredMark is what a vPool knows of its mark.
type restoredMark struct {
	there atomic.Bool // it was there when it was looked at last
}

// readRestored looks for the mark when the vPool is attached.
func (p *Pool) readRestored(ctx context.Context) error {
	m, err := p.host.o.Registry.Restored(ctx, p.cfg.ID)
	if err != nil {
		return fmt.Errorf("vpool %s: %w", p.cfg.Name, err)
	}
	p.restored.there.Store(m != nil)
	return nil
}

// Restored returns the mark of a restore while deletes are off; nil: they are on.
func (p *Pool) Restored(ctx context.Context) (*Restored, error) {
	if !p.restored.there.Load() {
		return nil, nil
	}
	m, err := p.host.o.Registry.Restored(ctx, p.cfg.ID)
	if err != nil {
		return nil, fmt.Errorf("vpool %s: %w", p.cfg.Name, err)
	}
	if m == nil {
		p.restored.there.Store(false)
	}
	return m, nil
}

// LastComparison returns what the comparison found that switched deletes on again; nil: there
// was none.
func (p *Pool) LastComparison(ctx context.Context) (*Comparison, error) {
	return p.host.o.Registry.LastComparison(ctx, p.cfg.ID)
}

// mayDelete is asked before anything is deleted from the backend: ErrDeletesOff.
func (p *Pool) mayDelete(ctx context.Context) error {
	m, err := p.Restored(ctx)
	if err != nil {
		return err
	}
	if m != nil {
		return fmt.Errorf("vpool %s: %w from a backup of %s: they are on when all its vDisks were compared with the backend", p.cfg.Name, ErrDeletesOff, m.Made.UTC().Format(time.RFC3339))
	}
	return nil
}

// Compare compares the registry with the backend after a restore: newer heads are taken over
// now, or by the opening of their vDisk. When nothing keeps it from that, deletes are on again.
// Without a mark it does nothing. It may run on several nodes, and beside everything else. An
// error means that it could not look at everything, and is to be tried again.
func (p *Pool) Compare(ctx context.Context) (Comparison, error) {
	m, err := p.Restored(ctx)
	if err != nil || m == nil {
		return Comparison{}, err
	}
	c := &comparison{recovery: recovery{p: p, found: map[ID]*onBackend{}}, seen: map[ID]bool{}, accepted: m.Accepted,
		out: Comparison{Format: RestoredFormat, Made: m.Made, Time: m.Time}}
	if err := c.run(ctx); err != nil {
		return c.out, fmt.Errorf("vpool %s: compare registry and backend: %w", p.cfg.Name, err)
	}
	if len(c.out.Unclear) > 0 {
		return c.out, nil
	}
	c.out.Ended = p.host.o.Clock.Now().UTC()
	if err := p.host.o.Registry.EndRestored(ctx, p.cfg.ID, *m, c.out); err != nil {
		return c.out, err
	}
	p.host.o.Log.Info("vpool compared with the restored registry", "vpool", p.cfg.Name, "compared", c.out.Compared, "newer", c.out.Newer,
		"missing", len(c.out.Missing), "orphans", len(c.out.Orphans), "accepted", len(c.out.Accepted))
	_, err = p.Restored(ctx)
	return c.out, err
}

// AcceptUnclear has vDisks, of which the comparison cannot say what they need, keep deletes off
// no more. They are left as they are; what others delete may be what they need. It counts for
// this restore, on all nodes. ErrNotFound: deletes are on.
func (p *Pool) AcceptUnclear(ctx context.Context, ids ...ID) error {
	for range maxClaims {
		m, err := p.Restored(ctx)
		if err != nil {
			return err
		}
		if m == nil {
			return fmt.Errorf("vpool %s: %w: deletes are on", p.cfg.Name, ErrNotFound)
		}
		now := *m
		now.Accepted = slices.Concat(m.Accepted, ids)
		slices.SortFunc(now.Accepted, func(a, b ID) int { return slices.Compare(a[:], b[:]) })
		if now.Accepted = slices.Compact(now.Accepted); len(now.Accepted) > maxStrange {
			return fmt.Errorf("vpool %s: %w: %d vDisks, of which at most %d can be accepted: bring the backend back from a copy", p.cfg.Name, ErrInvalid, len(now.Accepted), maxStrange)
		}
		if len(now.Accepted) == len(m.Accepted) {
			return nil
		}
		done, err := p.host.o.Registry.AcceptRestored(ctx, p.cfg.ID, *m, now)
		if err != nil || done {
			return err
		}
	}
	return fmt.Errorf("vpool %s: %w: the mark of the restore changes all the time; try again", p.cfg.Name, ErrInUse)
}

// comparison is one Compare. found are the vDisks of the backend that the registry does not
// have.
type comparison struct {
	recovery
	seen     map[ID]bool // on the backend
	accepted []ID
	out      Comparison
}

func (c *comparison) run(ctx context.Context) error {
	ids, err := c.p.backendDisks(ctx)
	if err != nil {
		return err
	}
	for _, id := range ids {
		c.seen[id] = true
		rec, err := c.p.host.o.Registry.Load(ctx, id)
		switch {
		case errors.Is(err, ErrNotFound):
			err = c.orphan(ctx, id)
		case err == nil && rec.Pool != c.p.cfg.ID:
			err = c.elsewhere(ctx, rec)
		case err == nil:
			err = c.known(ctx, id)
		}
		if err != nil {
			return err
		}
	}
	if err := c.keepClones(ctx); err != nil {
		return err
	}
	return c.p.host.o.Registry.List(ctx, c.p.cfg.ID, func(rec Record) error {
		if !c.seen[rec.ID] && rec.Head.Number != 0 && rec.State != FlagDeleting {
			c.note(&c.out.Missing, rec.ID, nil, "the backend has nothing of it: it was deleted, or moved to another vPool, after the backup was made")
		}
		return nil
	})
}

// note adds a vDisk to a list.
func (c *comparison) note(list *[]Strange, id ID, h *Head, why string) {
	if len(*list) == maxStrange {
		c.out.More = true
		return
	}
	s := Strange{ID: id, Why: why}
	if h != nil {
		s.Name, s.Size = h.Name, h.Size
	}
	*list = append(*list, s)
}

// unclear adds a vDisk to those that keep deletes off, unless that was accepted.
func (c *comparison) unclear(id ID, h *Head, why string) {
	list := &c.out.Unclear
	if slices.Contains(c.accepted, id) {
		list = &c.out.Accepted
	}
	c.note(list, id, h, why)
}

// orphan looks at a vDisk that the registry does not have.
func (c *comparison) orphan(ctx context.Context, id ID) error {
	f, err := c.p.newestHead(ctx, id, HeadRef{}, nil)
	switch {
	case err != nil:
		return err
	case len(f.damaged) > 0:
		c.unclear(id, f.head, fmt.Sprintf("%d heads of it on the backend cannot be read, so it is not known whose objects it needs; bring them back from a copy", len(f.damaged)))
		return nil
	case f.head == nil:
		c.note(&c.out.Orphans, id, nil, "the registry does not know it, and it has no head: its creation or deletion did not end")
		return nil
	case f.head.Pool != c.p.cfg.ID:
		c.unclear(id, f.head, "its head names vPool "+f.head.Pool)
		return nil
	}
	c.found[id] = &onBackend{head: f.head, ref: f.ref}
	c.order = append(c.order, id)
	if !f.head.Deleted {
		c.note(&c.out.Orphans, id, f.head, "it was made, or registered, after the backup was made")
	}
	return nil
}

// elsewhere looks at a vDisk that the registry has in another vPool. If that was its move, the
// objects here are all that there is of it.
func (c *comparison) elsewhere(ctx context.Context, rec Record) error {
	f, err := c.p.newestHead(ctx, rec.ID, HeadRef{}, nil)
	if err != nil {
		return err
	}
	if f.head == nil && len(f.damaged) == 0 || f.head != nil && (f.head.Deleted || f.head.Pool != c.p.cfg.ID) {
		return nil // what a move left, or has put here so far
	}
	c.unclear(rec.ID, f.head, fmt.Sprintf("the registry has it in vPool %s, and it was moved here after the backup was made: delete it there, then recover this vPool", rec.Pool))
	return nil
}

// known compares the record of a vDisk with its newest head.
func (c *comparison) known(ctx context.Context, id ID) error {
	done, err := c.p.begin(ctx, id)
	if err != nil {
		return err
	}
	defer done()
	for range maxClaims {
		rec, err := c.p.host.o.Registry.Load(ctx, id)
		switch {
		case errors.Is(err, ErrNotFound) || err == nil && (rec.Pool != c.p.cfg.ID || rec.State == FlagDeleting):
			return nil // deleted or moved meanwhile, or the deletion was decided before the backup
		case err != nil:
			return err
		case c.p.Volume(id) != nil:
			c.out.Compared++ // it was opened after the restore, which compared it (E1)
			return nil
		}
		f, err := c.p.newestHead(ctx, id, HeadRef{}, rec.Void)
		if err != nil {
			return err
		}
		switch {
		case len(f.damaged) > 0:
			c.unclear(id, f.head, fmt.Sprintf("%d newer heads of it on the backend cannot be read: bring them back from a copy", len(f.damaged)))
			return nil
		case f.head == nil && rec.Head.Number == 0:
			return nil // its creation did not end
		case f.head == nil || f.head.Deleted:
			c.note(&c.out.Missing, id, f.head, "it was deleted after the backup was made")
			return nil
		case rec.Head.newer(f.ref):
			c.unclear(id, f.head, fmt.Sprintf("its head %d is missing on the backend, which is older than the backup: bring the backend back", rec.Head.Number))
			return nil
		}
		err = c.takeOver(ctx, &rec, f)
		if errors.Is(err, ErrConflict) {
			continue // an owner elsewhere, or a clone that came
		}
		if err == nil {
			c.out.Compared++
			if f.ref.newer(rec.Head) {
				c.out.Newer++
			}
		}
		return err
	}
	return fmt.Errorf("vdisk %s: %w: its record changes all the time; try again", id, ErrInUse)
}

// takeOver makes a newer head the registry's, if all that was acknowledged is in it: else, and
// of a vDisk that another node may be about to open, its opening does, which looks for the
// journal too. Nothing is deleted by an older head: an opening and a sweep look for newer ones.
func (c *comparison) takeOver(ctx context.Context, rec *Record, f found) error {
	if !f.ref.newer(rec.Head) || !f.head.Clean || rec.State != FlagNone || rec.Owner != "" && rec.Owner != c.p.host.o.Node {
		return nil
	}
	next := *rec
	next.Head, next.Opens, next.Owner, next.DTL = f.ref, nil, "", DTLRecord{State: DTLOff}
	next.Epoch = max(rec.Epoch, f.head.Epoch)
	return c.p.swap(ctx, rec, &next)
}

// keepClones registers those vDisks that were cloned from one that the registry has, directly
// or not: else nobody would keep for them what they have of it.
func (c *comparison) keepClones(ctx context.Context) error {
	for _, id := range c.order {
		c.need(id)
	}
	for _, id := range c.order {
		if !c.found[id].needed {
			continue
		}
		top := id
		for up := c.found[top].head.Parent; up != nil; up = c.found[top].head.Parent {
			if c.found[up.VDisk] != nil {
				top = up.VDisk
				continue
			}
			_, err := c.p.host.o.Registry.Load(ctx, up.VDisk)
			if errors.Is(err, ErrNotFound) {
				break
			}
			if err == nil {
				err = c.register(ctx, top)
			}
			if err != nil {
				return err
			}
			break
		}
	}
	slices.SortFunc(c.out.Orphans, func(a, b Strange) int { return slices.Compare(a.ID[:], b.ID[:]) })
	return nil
}
