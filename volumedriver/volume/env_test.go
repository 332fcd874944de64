package volume

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	mrand "math/rand/v2"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/local"
	"github.com/openvstorage/ovgate/volumedriver/journal"
)

// memRegistry is a Registry that can be copied as of a moment.
type memRegistry struct {
	mu   sync.Mutex
	recs map[ID]string
	// hook runs before and after each change, outside the lock.
	hook func()
	mark *Restored // of testPool
	last *Comparison
}

func newMemRegistry() *memRegistry { return &memRegistry{recs: map[ID]string{}} }

func (m *memRegistry) clone() *memRegistry {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &memRegistry{recs: maps.Clone(m.recs)}
}

func (m *memRegistry) Load(_ context.Context, id ID) (Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.recs[id]
	if !ok {
		return Record{}, fmt.Errorf("%w: %s", ErrNotFound, id)
	}
	return decodeRecord([]byte(s))
}

func (m *memRegistry) Restored(_ context.Context, pool string) (*Restored, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if pool != testPool {
		return nil, nil
	}
	return m.mark, nil
}

func (m *memRegistry) EndRestored(_ context.Context, pool string, mark Restored, c Comparison) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if pool == testPool && m.mark != nil && reflect.DeepEqual(*m.mark, mark) {
		m.mark, m.last = nil, &c
	}
	return nil
}

func (m *memRegistry) AcceptRestored(_ context.Context, pool string, old, now Restored) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if pool != testPool || m.mark == nil || !reflect.DeepEqual(*m.mark, old) {
		return false, nil
	}
	m.mark = &now
	return true, nil
}

func (m *memRegistry) LastComparison(_ context.Context, pool string) (*Comparison, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if pool != testPool {
		return nil, nil
	}
	return m.last, nil
}

// setHook has f called before and after each change from now on; nil: nothing.
func (m *memRegistry) setHook(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hook = f
}

func (m *memRegistry) Apply(_ context.Context, changes ...Change) error {
	m.mu.Lock()
	hook := m.hook
	m.mu.Unlock()
	if hook != nil {
		hook()
		defer hook()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range changes {
		want := ""
		if c.Old != nil {
			b, _ := json.Marshal(c.Old)
			want = string(b)
		}
		if m.recs[c.id()] != want {
			return ErrConflict
		}
	}
	for _, c := range changes {
		if c.New == nil {
			delete(m.recs, c.id())
			continue
		}
		b, _ := json.Marshal(c.New)
		m.recs[c.id()] = string(b)
	}
	return nil
}

func (m *memRegistry) List(_ context.Context, pool string, fn func(Record) error) error {
	m.mu.Lock()
	recs := maps.Clone(m.recs)
	m.mu.Unlock()
	for _, s := range recs {
		r, err := decodeRecord([]byte(s))
		if err != nil {
			return err
		}
		if pool == "" || r.Pool == pool {
			if err := fn(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// lockedRand is a deterministic source for nonces.
type lockedRand struct {
	mu sync.Mutex
	r  *mrand.ChaCha8
}

func newRand(seed uint64) *lockedRand {
	var s [32]byte
	for i := range 8 {
		s[i] = byte(seed >> (8 * i))
	}
	return &lockedRand{r: mrand.NewChaCha8(s)}
}

func (l *lockedRand) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r.Read(p)
}

// world is everything that survives a process: local files, backend, registry.
type world struct {
	fs, be *blockfs.Mem
	reg    *memRegistry
	// wrap, if set, stands between engine and files or backend.
	wrapFS    func(blockfs.FS) blockfs.FS
	wrapStore func(backend.Store) (backend.Store, error)
	// openStore, if set, returns the backend at each start, in place of one on be.
	openStore func() backend.Store
	node      string // "": node-1
	settings  Settings
	opts      HostOptions
	seed      *atomic.Uint64 // of the last start; a copy of a world has its own
	log       *slog.Logger
	booted    func(*Host) // after each start of the engine
	registry  Registry    // nil: reg
}

func seedsFrom(seed uint64) *atomic.Uint64 {
	s := &atomic.Uint64{}
	s.Store(seed)
	return s
}

func newWorld(seed uint64) *world {
	return &world{fs: blockfs.NewMem(), be: blockfs.NewMem(), reg: newMemRegistry(), seed: seedsFrom(seed),
		settings: Settings{SCOSize: MinSCOSize, JournalQuota: MinQuota, CommitInterval: 10 * time.Minute},
		// No map page stays in memory.
		opts: HostOptions{ChunkBytes: 256 << 10, JournalBytes: 16 << 20, CacheBytes: 4 << 20, WriteMemoryBytes: 1 << 20, MapMemoryBytes: 1}}
}

// newBusyWorld is newWorld with checkpoints of the map all the time, each of which
// commits a head of its own, and with every record written while others are, and in the
// group log first.
func newBusyWorld(seed uint64) *world {
	w := newWorld(seed)
	w.opts.checkpointTLogs = 3
	w.opts.overlap = MinClusterSize
	w.opts.group = journal.GroupOptions{Bytes: journal.MinGroupBytes, From: 1}
	return w
}

const testPool = "7d9c3c36-56a5-4a43-9bd2-2b6e2f1b7a11"

// node is a running engine in a world.
type node struct {
	t     testing.TB
	w     *world
	host  *Host
	pool  *Pool
	store backend.Store
}

func (w *world) start(t testing.TB) (*node, error) {
	t.Helper()
	n, err := w.startHost(t)
	if err != nil {
		return nil, err
	}
	n.pool, err = n.host.AttachPool(context.Background(), PoolConfig{ClusterID: "c1", ID: testPool, Name: "default", Store: n.store, Settings: w.settings})
	return n, err
}

// startHost starts the engine without a vPool.
func (w *world) startHost(t testing.TB) (*node, error) {
	var fsys blockfs.FS = w.fs
	if w.wrapFS != nil {
		fsys = w.wrapFS(fsys)
	}
	store, err := w.open()
	if err != nil {
		return nil, err
	}
	if w.wrapStore != nil {
		if store, err = w.wrapStore(store); err != nil {
			return nil, err
		}
	}
	o := w.opts
	o.FS, o.Registry, o.Rand, o.Node, o.Log = fsys, w.reg, newRand(w.seed.Add(1)), cmp.Or(w.node, "node-1"), w.log
	if w.registry != nil {
		o.Registry = w.registry
	}
	h, err := NewHost(context.Background(), o)
	if err != nil {
		return nil, err
	}
	if w.booted != nil {
		w.booted(h)
	}
	return &node{t: t, w: w, host: h, store: store}, nil
}

// open opens the backend.
func (w *world) open() (backend.Store, error) {
	if w.openStore != nil {
		return w.openStore(), nil
	}
	return local.Open(w.be, local.Options{})
}

func (w *world) mustStartHost(t testing.TB) *node {
	t.Helper()
	n, err := w.startHost(t)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (w *world) mustStart(t testing.TB) *node {
	t.Helper()
	n, err := w.start(t)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func testID(n byte) ID {
	id := ID{n}
	id[6], id[8] = 0x40, 0x80
	return id
}

func (n *node) create(id ID, size int64) {
	n.t.Helper()
	if err := n.pool.Create(context.Background(), Spec{ID: id, Name: fmt.Sprintf("disk-%d", id[0]), Size: size}); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) open(id ID) *Volume {
	n.t.Helper()
	v, err := n.pool.Open(context.Background(), id)
	if err != nil {
		n.t.Fatal(err)
	}
	return v
}

// kill ends the engine as a crash would: nothing more is written.
func (n *node) kill() {
	n.pool.mu.Lock()
	open := make([]*Volume, 0)
	for _, v := range n.pool.open {
		open = append(open, v)
	}
	n.pool.mu.Unlock()
	for _, v := range open {
		v.closeMu.Lock()
		if !v.ended {
			v.stop()
		}
		v.closeMu.Unlock()
	}
	n.host.dtl.close()
	for _, d := range n.host.disks {
		if d.pool != nil {
			d.pool.Close()
		}
	}
	n.host.cache.Close()
}

func (n *node) close() {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hangLimit)
	defer cancel()
	if err := n.host.Close(ctx); err != nil {
		n.t.Fatal(err)
	}
}

// fillBlock makes the content of version ver of a cluster.
func fillBlock(p []byte, cluster, ver uint64) {
	s := cluster*0x9e3779b97f4a7c15 ^ ver*0xbf58476d1ce4e5b9
	var b [lbaBytes]byte
	for len(p) > 0 {
		s = nextContent(&b, s)
		p = p[copy(p, b[:]):]
	}
}

// nextContent makes the content that follows s. The race detector does not look at each byte
// of what its caller alone has, which takes more time than what is tested.
//
//go:norace
func nextContent(b *[lbaBytes]byte, s uint64) uint64 {
	for i := 0; i < len(b); i += 8 {
		s ^= s << 13
		s ^= s >> 7
		s ^= s << 17
		binary.LittleEndian.PutUint64(b[i:], s)
	}
	return s
}
