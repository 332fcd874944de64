package volume

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/blockmap"
	"github.com/openvstorage/ovgate/volumedriver/cache"
	"github.com/openvstorage/ovgate/volumedriver/dtl"
	"github.com/openvstorage/ovgate/volumedriver/journal"
)

const (
	defaultJournalBytes = 4 << 30
	defaultChunkBytes   = 16 << 20
	defaultCacheBytes   = 128 << 20
	defaultWriteMemory  = 256 << 20
	defaultUploads      = 8
	defaultMapMemory    = 256 << 20

	// backendTimeout bounds one call to a backend; then it is tried again.
	backendTimeout = 30 * time.Second
	// openTimeout bounds how long an open waits for a backend before it goes on
	// without one (rule E2) or gives up.
	openTimeout = 10 * time.Second
	maxRoot     = 64 << 10

	readCacheName = "groups"
)

// Host is what the vDisks of a node share: journal pool, caches, budgets.
type Host struct {
	o      HostOptions
	disks  []*writeDisk // the first is that in o.FS
	dtl    *nodeDTL     // nil: nothing is mirrored
	cache  *cache.Cache
	memory *journal.Memory
	// readCaches are those of cache, in its order, and then those that cannot be used.
	readCaches []ReadCacheUsage
	// mapMemory bounds the pages of all maps.
	mapMemory *blockmap.Memory
	uploads   chan struct{} // one token per SCO in flight

	started time.Time // by the wall and the monotonic clock

	groupMu sync.Mutex // one group snapshot at a time

	wakeups atomic.Uint64 // see Wakeups

	objects sync.Pool // *[]byte, for SCOs: new memory costs as much as a copy

	mu     sync.Mutex
	pools  map[string]*Pool
	spaces map[spaceKey]uint64 // handles for cache keys
	users  map[ID]*cache.User  // what a vDisk has in the cache outlives its opening
	closed bool
}

// HostUsage is the state of what the vDisks share.
type HostUsage struct {
	Journal      journal.Usage // of all WRITE disks
	JournalError error         // why a pool could not grow
	WriteDisks   []WriteDiskUsage
	CacheBytes   int64
	ReadCaches   []ReadCacheUsage
	OpenVDisks   int
	Map          blockmap.MemoryUsage // pages of the maps
	DTL          dtl.Usage            // copies of other nodes' journals
}

// WriteDiskUsage is the state of a WriteDisk, or of the journals in the data directory.
type WriteDiskUsage struct {
	Name string
	journal.Usage
	Journals int   // open ones
	Err      error // why it is not used; nil: it is
}

// ReadCacheUsage is the state of a ReadCache.
type ReadCacheUsage struct {
	Name string
	cache.DiskStats
}

// ReadCache sums up the read caches.
func (u HostUsage) ReadCache() cache.DiskStats {
	var sum cache.DiskStats
	for _, r := range u.ReadCaches {
		sum.Hits += r.Hits
		sum.Misses += r.Misses
		sum.Written += r.Written
		sum.Refused += r.Refused
		sum.Bytes += r.Bytes
		sum.MaxBytes += r.MaxBytes
	}
	return sum
}

// NewHost opens the local state in o.FS.
func NewHost(ctx context.Context, o HostOptions) (*Host, error) {
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	setDefault(&o.JournalBytes, defaultJournalBytes)
	setDefault(&o.ChunkBytes, defaultChunkBytes)
	setDefault(&o.CacheBytes, defaultCacheBytes)
	setDefault(&o.WriteMemoryBytes, defaultWriteMemory)
	if o.checkpointTLogs == 0 {
		o.checkpointTLogs = checkpointTLogs
	}
	if o.overlap == 0 {
		o.overlap = defaultOverlap
	}
	setDefault(&o.MapMemoryBytes, defaultMapMemory)
	if o.Uploads == 0 {
		o.Uploads = defaultUploads
	}
	writeDisks, err := openWriteDisks(o)
	if err != nil {
		return nil, err
	}
	disks, used := openReadCaches(o)
	h := &Host{o: o, disks: writeDisks, started: o.Clock.Now(), cache: cache.New(o.CacheBytes, disks...), readCaches: used,
		memory: &journal.Memory{Max: o.WriteMemoryBytes}, mapMemory: blockmap.NewMemory(o.MapMemoryBytes),
		uploads: make(chan struct{}, o.Uploads), pools: map[string]*Pool{}, spaces: map[spaceKey]uint64{}, users: map[ID]*cache.User{}}
	if err := h.openDTL(); err != nil {
		return nil, errors.Join(err, h.Close(ctx))
	}
	return h, nil
}

// openReadCaches opens the read caches that can be used, in the order in which the
// usage lists them; the others follow with the reason.
func openReadCaches(o HostOptions) (disks []*cache.Disk, used []ReadCacheUsage) {
	var not []ReadCacheUsage
	for _, r := range o.ReadCaches {
		d, err := cache.OpenDisk(cache.DiskOptions{FS: r.FS, Name: readCacheName, Bytes: r.Bytes, Rand: o.Rand, Clock: o.Clock, Log: o.Log.With("dir", r.Name)})
		if err != nil {
			o.Log.Error("read cache not used", "dir", r.Name, "err", err)
			not = append(not, ReadCacheUsage{r.Name, cache.DiskStats{Err: err}})
			continue
		}
		disks = append(disks, d)
		used = append(used, ReadCacheUsage{Name: r.Name})
	}
	return disks, append(used, not...)
}

func setDefault(v *int64, d int64) {
	if *v == 0 {
		*v = d
	}
}

// Wakeups changes whenever a vDisk is opened or closed, fails, or one that was idle is used: as
// long as it stays, those that were idle are.
func (h *Host) Wakeups() uint64 { return h.wakeups.Load() }

// objectBuffer returns n bytes of any content, aligned so that a store can write them
// as they are.
func (h *Host) objectBuffer(n int) []byte {
	if b, ok := h.objects.Get().(*[]byte); ok && cap(*b) >= n {
		return (*b)[:n]
	}
	return blockfs.AlignedBuffer(n)
}

// reuse takes a buffer that nobody uses any more.
func (h *Host) reuse(b []byte) { h.objects.Put(&b) }

// Usage returns the state of what the vDisks share.
func (h *Host) Usage() HostUsage {
	u := HostUsage{Map: h.mapMemory.Usage()}
	if h.dtl != nil {
		u.DTL = h.dtl.server.Usage()
	}
	for _, d := range h.disks {
		w := WriteDiskUsage{Name: d.name, Err: d.err}
		if d.pool != nil {
			w.Usage, w.Err = d.pool.Usage(), d.pool.Failed()
			u.JournalError = cmp.Or(u.JournalError, d.pool.GrowError())
		}
		u.Journal = u.Journal.Add(w.Usage)
		u.WriteDisks = append(u.WriteDisks, w)
	}
	_, _, u.CacheBytes = h.cache.Stats()
	u.ReadCaches = slices.Clone(h.readCaches)
	for i, s := range h.cache.Disks() {
		u.ReadCaches[i].DiskStats = s
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, d := range h.disks {
		u.WriteDisks[i].Journals = d.logs
	}
	for _, p := range h.pools {
		p.mu.Lock()
		u.OpenVDisks += len(p.open)
		p.mu.Unlock()
	}
	return u
}

// Close closes every vDisk in an orderly way, as far as ctx allows, and then the
// local state. The error names the first vDisk that did not close cleanly; its
// data are in the journal.
func (h *Host) Close(ctx context.Context) error {
	h.mu.Lock()
	h.closed = true
	pools := make([]*Pool, 0, len(h.pools))
	for _, p := range h.pools {
		pools = append(pools, p)
	}
	h.mu.Unlock()
	var first error
	for _, p := range pools {
		if err := p.Detach(ctx); err != nil && first == nil {
			first = err
		}
	}
	errs := []error{h.dtl.close(), h.cache.Close()}
	for _, d := range h.disks {
		if d.pool != nil {
			errs = append(errs, d.pool.Close())
		}
	}
	if err := errors.Join(errs...); err != nil && first == nil {
		first = err
	}
	return first
}

func (h *Host) nonce() (uint32, error) {
	var b [4]byte
	if _, err := io.ReadFull(h.o.Rand, b[:]); err != nil {
		return 0, fmt.Errorf("draw nonce: %w", err)
	}
	return binary.LittleEndian.Uint32(b[:]), nil
}

func (h *Host) now() int64 { return h.o.Clock.Now().UnixNano() }

// Pool is a vPool served by this host.
type Pool struct {
	host *Host
	cfg  PoolConfig

	restored restoredMark

	mu       sync.Mutex
	detached bool
	open     map[ID]*Volume
	froze    frozenCache
	busy     map[ID]chan struct{} // open, delete, accept in progress; closed when done
}

// AttachPool binds a vPool to its backend and checks the root object (rule E7).
func (h *Host) AttachPool(ctx context.Context, cfg PoolConfig) (*Pool, error) {
	var err error
	if cfg.Settings, err = cfg.Settings.withDefaults(); err != nil {
		return nil, fmt.Errorf("vpool %s: %w", cfg.Name, err)
	}
	if err := checkRoot(ctx, cfg, h.o.Clock); err != nil {
		return nil, err
	}
	p := &Pool{host: h, cfg: cfg, open: map[ID]*Volume{}, busy: map[ID]chan struct{}{}}
	if err := p.readRestored(ctx); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, fmt.Errorf("vpool %s: host: %w", cfg.Name, ErrClosed)
	}
	if h.pools[cfg.ID] != nil {
		return nil, fmt.Errorf("vpool %s: %w", cfg.Name, ErrExists)
	}
	h.pools[cfg.ID] = p
	return p, nil
}

// withDefaults fills zero fields and checks the ranges.
func (s Settings) withDefaults() (Settings, error) {
	if s.ClusterSize == 0 {
		s.ClusterSize = DefaultClusterSize
	}
	if s.DTL == "" {
		s.DTL = DTLSync
	}
	setDefault(&s.SCOSize, DefaultSCOSize)
	setDefault(&s.JournalQuota, DefaultQuota)
	if s.CommitInterval == 0 {
		s.CommitInterval = DefaultCommitInterval
	}
	if s.StallTimeout == 0 {
		s.StallTimeout = DefaultStallTimeout
	}
	return s, s.check()
}

func (s Settings) check() error {
	switch {
	case !validCluster(s.ClusterSize):
		return fmt.Errorf("%w: cluster size %d is not 4, 8, 16, 32 or 64 KiB", ErrInvalid, s.ClusterSize)
	case s.SCOSize < MinSCOSize || s.SCOSize > MaxSCOSize || s.SCOSize&(s.SCOSize-1) != 0:
		return fmt.Errorf("%w: SCO size %d is not 4, 8, 16, 32, 64 or 128 MiB", ErrInvalid, s.SCOSize)
	case s.JournalQuota < MinQuota || s.JournalQuota > MaxQuota:
		return fmt.Errorf("%w: journal quota %d is outside 128 MiB to 10 GiB", ErrInvalid, s.JournalQuota)
	case s.SCOSize > s.JournalQuota/4:
		return fmt.Errorf("%w: SCO size %d is above a quarter of the journal quota %d", ErrInvalid, s.SCOSize, s.JournalQuota)
	case s.CommitInterval < 100*time.Millisecond || s.CommitInterval > 10*time.Minute:
		return fmt.Errorf("%w: commit interval %s is outside 100 ms to 10 min", ErrInvalid, s.CommitInterval)
	case s.StallTimeout < time.Second || s.StallTimeout > time.Hour:
		return fmt.Errorf("%w: stall timeout %s is outside 1 s to 1 h", ErrInvalid, s.StallTimeout)
	case s.DTL != DTLSync && s.DTL != DTLAsync && s.DTL != DTLModeOff:
		return fmt.Errorf("%w: DTL mode %q is not %s, %s or %s", ErrInvalid, s.DTL, DTLSync, DTLAsync, DTLModeOff)
	case s.History < 0 || s.History > 0 && s.History < time.Minute:
		return fmt.Errorf("%w: history %s is neither 0 nor at least 1 min", ErrInvalid, s.History)
	}
	return nil
}

// ReadRoot returns whose root a store is; backend.ErrNotExist if nobody's.
func ReadRoot(ctx context.Context, st backend.Store) (*Root, error) {
	b, err := st.Get(ctx, rootName, maxRoot)
	if err != nil {
		return nil, fmt.Errorf("backend root: %w", err)
	}
	r := &Root{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("%w: object %s is not a root", ErrForeignRoot, rootName)
	}
	if r.Format > RootFormat {
		return nil, fmt.Errorf("backend root has format %d, this version knows %d: %w", r.Format, RootFormat, ErrNewerFormat)
	}
	return r, nil
}

// checkRoot makes the root object, or verifies that it is this vPool's.
func checkRoot(ctx context.Context, cfg PoolConfig, clk clock.Clock) error {
	root, err := ReadRoot(ctx, cfg.Store)
	switch {
	case errors.Is(err, backend.ErrNotExist):
		if l, err := cfg.Store.List(ctx, vdiskRoot, "", 1); err != nil {
			return fmt.Errorf("vpool %s: %w", cfg.Name, err)
		} else if len(l) > 0 {
			return fmt.Errorf("vpool %s: %w: it holds vDisks but no root object; use another place", cfg.Name, ErrForeignRoot)
		}
	case err != nil:
		return fmt.Errorf("vpool %s: %w", cfg.Name, err)
	case root.Pool != cfg.ID:
		return fmt.Errorf("vpool %s: %w (%q, %s): use another place, or recover that vPool", cfg.Name, ErrForeignRoot, root.Name, root.Pool)
	case root.Cluster == cfg.ClusterID:
		return nil
	case !cfg.Adopt:
		return fmt.Errorf("vpool %s: %w: same vPool, other cluster %s; recover it to take it over", cfg.Name, ErrForeignRoot, root.Cluster)
	}
	b, err := json.Marshal(Root{Format: RootFormat, Cluster: cfg.ClusterID, Pool: cfg.ID, Name: cfg.Name, Created: clk.Now().UTC()})
	if err != nil {
		return err
	}
	if root == nil && cfg.Store.Features().ConditionalPut {
		err = cfg.Store.PutIfAbsent(ctx, rootName, b)
	} else {
		err = cfg.Store.Put(ctx, rootName, b)
	}
	if err != nil {
		return fmt.Errorf("vpool %s: %w: write root: %w", cfg.Name, ErrBackend, err)
	}
	return nil
}

// Detach closes the vPool's vDisks and forgets the pool.
func (p *Pool) Detach(ctx context.Context) error {
	p.mu.Lock()
	p.detached = true // an Open that is under way ends without a Volume
	open := make([]*Volume, 0, len(p.open))
	for _, v := range p.open {
		open = append(open, v)
	}
	p.mu.Unlock()
	errs := make(chan error, len(open))
	for _, v := range open {
		go func() { errs <- v.Close(ctx) }()
	}
	var first error
	for range open {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	p.host.mu.Lock()
	delete(p.host.pools, p.cfg.ID)
	p.host.mu.Unlock()
	return first
}

// Settings returns the pool's defaults.
func (p *Pool) Settings() Settings {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cfg.Settings
}

// SetSettings changes the defaults for vDisks opened from now on.
func (p *Pool) SetSettings(s Settings) error {
	s, err := s.withDefaults()
	if err != nil {
		return fmt.Errorf("vpool %s: %w", p.cfg.Name, err)
	}
	p.mu.Lock()
	p.cfg.Settings = s
	p.mu.Unlock()
	return nil
}

// settingsOf returns the settings that a vDisk is opened with.
func (p *Pool) settingsOf(id ID) Settings {
	s := p.Settings()
	if p.cfg.DTLOf != nil {
		if m := p.cfg.DTLOf(id); m != "" {
			s.DTL = m
		}
	}
	return s
}

// Volume returns an open vDisk, or nil.
func (p *Pool) Volume(id ID) *Volume {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open[id]
}

// begin reserves a vDisk for one open, delete or accept at a time.
func (p *Pool) begin(ctx context.Context, id ID) (done func(), err error) {
	for {
		p.mu.Lock()
		ch := p.busy[id]
		if ch == nil {
			ch = make(chan struct{})
			p.busy[id] = ch
			p.mu.Unlock()
			return func() {
				p.mu.Lock()
				delete(p.busy, id)
				p.mu.Unlock()
				close(ch)
			}, nil
		}
		p.mu.Unlock()
		select {
		case <-ch:
		case <-ctx.Done():
			return nil, fmt.Errorf("vdisk %s: %w", id, ctx.Err())
		}
	}
}

// swap changes a registry record; a lost answer is settled by reading back.
func (p *Pool) swap(ctx context.Context, old, new *Record) error {
	return p.apply(ctx, Change{old, new})
}

// apply changes registry records together; a lost answer is settled by reading back.
func (p *Pool) apply(ctx context.Context, changes ...Change) error {
	for _, c := range changes {
		if c.New != nil {
			c.New.Format = c.New.format()
		}
	}
	var err error
	for range 3 {
		if err = p.host.o.Registry.Apply(ctx, changes...); err == nil {
			return nil
		}
		done, undone := true, true
		for i := range changes {
			c := &changes[i]
			cur, lerr := p.host.o.Registry.Load(ctx, c.id())
			if lerr != nil && !errors.Is(lerr, ErrNotFound) {
				return err
			}
			done = done && is(c.New, &cur, lerr)
			undone = undone && is(c.Old, &cur, lerr)
		}
		switch {
		case done:
			return nil
		case !undone:
			return err
		}
	}
	return err
}

// is compares what was loaded with what a change says of it.
func is(want, have *Record, loaded error) bool {
	if want == nil || loaded != nil {
		return want == nil && loaded != nil
	}
	return want.equal(have)
}

// swapOver is swap for a change that does not depend on the clones: where those
// changed meanwhile, and nothing else, they are taken over into old and new.
func (p *Pool) swapOver(ctx context.Context, old, new *Record) error {
	for {
		err := p.swap(ctx, old, new)
		if !errors.Is(err, ErrConflict) {
			return err
		}
		cur, lerr := p.host.o.Registry.Load(ctx, old.ID)
		if lerr != nil || !cur.sameButClones(old) || cur.equal(old) {
			return err
		}
		*old = cur
		if new != nil {
			new.Clones, new.CloneGen = cur.Clones, cur.CloneGen
		}
	}
}

func (r *Record) equal(o *Record) bool {
	a, err1 := json.Marshal(r)
	b, err2 := json.Marshal(o)
	return err1 == nil && err2 == nil && string(a) == string(b)
}
