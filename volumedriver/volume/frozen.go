package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"sync"
	"sync/atomic"
	"weak"

	"github.com/openvstorage/ovgate/volumedriver/blockmap"
	"github.com/openvstorage/ovgate/volumedriver/clustersum"
)

// MaxDepth bounds the ancestors of a clone: a location has a byte for the level.
const MaxDepth = 255

// keptFrozen is how many frozen maps a host keeps that no open clone uses: clones of
// a template that are opened one after the other find it.
const keptFrozen = 4

// frozen is the map of a vDisk as of a point, which never changes. It is built once
// per host and shared by all clones that start there: their maps are clones of it.
type frozen struct {
	key     frozenKey
	up      *frozen // that m was cloned from; nil: an empty map
	cluster int     // bytes
	saveMu  sync.Mutex
	saved   atomic.Bool // on local disk
	m       *blockmap.Map
	pages   *pageStore
	chain   []*source // by level; the last is the vDisk itself
	line    [16]byte
	// ref is a head that it is right for; others may be too.
	ref atomic.Pointer[HeadRef]
}

// base returns the map, nil if there is none.
func (f *frozen) base() *blockmap.Map {
	if f == nil {
		return nil
	}
	return f.m
}

type frozenKey struct {
	id  ID
	seq uint64
}

// frozenCache holds the frozen maps of a vPool that are in use, and a few more.
type frozenCache struct {
	mu       sync.Mutex
	maps     map[frozenKey]weak.Pointer[frozen]
	building map[frozenKey]chan struct{}
	kept     [keptFrozen]*frozen
	next     int
}

// get returns the map of key that fits, or reserves the building of one: then the
// caller calls put. It waits for one that is being built.
func (c *frozenCache) get(ctx context.Context, key frozenKey, fits func(*frozen) bool) (*frozen, error) {
	for {
		c.mu.Lock()
		if f := c.maps[key].Value(); f != nil && fits(f) {
			c.keep(f)
			c.mu.Unlock()
			return f, nil
		}
		ch := c.building[key]
		if ch == nil {
			if c.maps == nil {
				c.maps, c.building = map[frozenKey]weak.Pointer[frozen]{}, map[frozenKey]chan struct{}{}
			}
			c.building[key] = make(chan struct{})
			c.mu.Unlock()
			return nil, nil
		}
		c.mu.Unlock()
		select {
		case <-ch:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// put ends the building of key; f is nil if it failed.
func (c *frozenCache) put(key frozenKey, f *frozen) {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.building[key])
	delete(c.building, key)
	for k, p := range c.maps { // those that nobody uses any more
		if p.Value() == nil {
			delete(c.maps, k)
		}
	}
	if f != nil {
		c.maps[key] = weak.Make(f)
		c.keep(f)
	}
}

// keep makes f one of the newest few; mu is held.
func (c *frozenCache) keep(f *frozen) {
	for _, k := range c.kept {
		if k == f {
			return
		}
	}
	c.kept[c.next] = f
	c.next = (c.next + 1) % keptFrozen
}

// drop forgets the maps of a vDisk whose parent goes.
func (c *frozenCache) drop(id ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k := range c.maps {
		if k.id == id {
			delete(c.maps, k)
		}
	}
	c.kept = [keptFrozen]*frozen{}
}

// peek returns a map of key that is there, or nil.
func (c *frozenCache) peek(key frozenKey) *frozen {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.maps[key].Value()
}

// frozen returns the map of a vDisk up to seq. The vDisk may be open, closed, a
// template, or deleted with clones left. depth counts the descendants that ask. A log
// that a scrub replaced while it was read is read anew.
func (p *Pool) frozen(ctx context.Context, id ID, seq uint64, depth int) (*frozen, error) {
	if depth > MaxDepth {
		return nil, fmt.Errorf("vdisk %s: %w: more than %d ancestors", id, ErrCorrupt, MaxDepth)
	}
	for try := 1; ; try++ {
		rec, err := p.host.o.Registry.Load(ctx, id)
		if err != nil {
			return nil, fmt.Errorf("parent of a clone: %w", err)
		}
		f, err := p.frozenOf(ctx, rec, frozenKey{id, seq}, depth)
		if err == nil || try == maxClaims || !p.movedOn(ctx, id, rec.Head, err) {
			return f, err
		}
	}
}

// frozenOf is frozen for a record.
func (p *Pool) frozenOf(ctx context.Context, rec Record, key frozenKey, depth int) (*frozen, error) {
	have := p.froze.peek(key)
	if have != nil && *have.ref.Load() == rec.Head {
		return have, nil
	}
	pl, err := p.planFrozen(ctx, key.id, key.seq, depth)
	if errors.Is(err, ErrBackend) {
		if have == nil {
			if have, _ = p.keptFrozen(ctx, key, nil, depth); have == nil {
				return nil, err
			}
		}
		return have, nil // the same content as of any newer head
	}
	if err != nil {
		return nil, err
	}
	f, err := p.keptFrozen(ctx, key, &pl.line, depth)
	if f == nil && err == nil {
		f, err = p.froze.get(ctx, key, func(f *frozen) bool { return f.line == pl.line })
		if f == nil && err == nil {
			f, err = pl.build(ctx, p)
			p.froze.put(key, f)
		}
	}
	if err != nil {
		return nil, err
	}
	f.ref.Store(&pl.st.ref)
	return f, nil
}

// keptFrozen returns a map that is in memory or on local disk; nil if there is none
// with that line.
func (p *Pool) keptFrozen(ctx context.Context, key frozenKey, line *[16]byte, depth int) (*frozen, error) {
	f, err := p.froze.get(ctx, key, func(f *frozen) bool { return line == nil || f.line == *line })
	if f != nil || err != nil {
		return f, err
	}
	f, err = p.loadBase(key, line, depth)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.host.o.Log.Warn("kept map of a parent not used", "vdisk", key.id.String(), "seq", key.seq, "err", err)
	}
	p.froze.put(key, f)
	return f, nil
}

// frozenPlan is what a frozen map is made of.
type frozenPlan struct {
	key    frozenKey
	log    *logReader
	st     *state
	runs   []Run
	parent *frozen // may be nil
	line   [16]byte
}

// planFrozen finds out what a frozen map is made of.
func (p *Pool) planFrozen(ctx context.Context, id ID, seq uint64, depth int) (*frozenPlan, error) {
	st, _, err := p.stateOf(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("parent of a clone: %w", err)
	}
	pl := &frozenPlan{key: frozenKey{id, seq}, st: st, log: p.logReader(id, st.head.Epochs)}
	if pl.runs, err = st.through(seq); err != nil {
		return nil, err
	}
	if pl.runs, err = pl.log.cut(ctx, pl.runs, seq); err != nil {
		return nil, err
	}
	var above [16]byte
	if up := st.head.Parent; up != nil {
		if pl.parent, err = p.frozen(ctx, up.VDisk, up.Seq, depth+1); err != nil {
			return nil, err
		}
		above = pl.parent.line
	}
	pl.line = fingerprint(id, pl.runs, st.head.Parent, above)
	return pl, nil
}

// build makes the map. Its size is the vDisk's now; what was added since is empty.
func (pl *frozenPlan) build(ctx context.Context, p *Pool) (*frozen, error) {
	h := pl.st.head
	nonce, err := p.host.nonce()
	if err != nil {
		return nil, err
	}
	f := &frozen{key: pl.key, line: pl.line, up: pl.parent, cluster: h.ClusterSize}
	f.ref.Store(&pl.st.ref)
	clusters := uint64(h.Size) / uint64(h.ClusterSize)
	if pl.parent != nil {
		f.chain, f.m = append(f.chain, pl.parent.chain...), pl.parent.m.Clone(clusters)
	} else {
		f.m = blockmap.New(clusters, p.host.mapMemory)
	}
	f.pages = p.basePages(pl.key, nonce)
	own := &source{id: h.VDisk, seed: clustersum.NewSeed(h.VDisk)}
	f.chain = append(f.chain, own)
	l := mapLoader{log: pl.log, m: f.m, src: own, level: uint8(len(f.chain) - 1), pages: f.pages}
	if err := l.apply(ctx, pl.runs); err != nil {
		f.m.Release()
		return nil, err
	}
	// From now on others read the pages: what is not written now stays in memory.
	if err := f.m.Spill(f.pages); err != nil {
		p.host.o.Log.Warn("map of a parent not kept on local disk", "vdisk", h.VDisk.String(), "err", err)
	}
	f.pages.end()
	f.freeze()
	return f, nil
}

// freeze ends the making of a map. What it takes of the budget it gives back when
// nobody uses it any more.
func (f *frozen) freeze() {
	runtime.AddCleanup(f, (*blockmap.Map).Release, f.m.Freeze())
}

// basePages is where the pages of a frozen map are kept.
func (p *Pool) basePages(key frozenKey, nonce uint32) *pageStore {
	s := newPageStore(p.host, key.id, baseDir, fmt.Sprintf("%s-%016x.page-", key.id, key.seq), Opening{Nonce: nonce})
	s.rebuild = func(ctx context.Context, n uint64, right func([]byte) bool) ([]byte, error) {
		pl, err := p.planFrozen(ctx, key.id, key.seq, 1)
		if err != nil {
			return nil, err
		}
		level := uint8(0)
		if pl.parent != nil {
			level = uint8(len(pl.parent.chain))
		}
		return rebuildPage(ctx, pl.log, pl.runs, pl.parent, uint64(pl.st.head.Size)/uint64(pl.st.head.ClusterSize), level, n, right)
	}
	return s
}
