package volume

import (
	"context"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/local"
)

const otherPool = "0c1fbb0e-5f1c-4a39-8a0c-3c6c9d4f2b22"

// moving is a world with two vPools.
type moving struct {
	*world
	be2   *blockfs.Mem
	wrap2 func(blockfs.FS) blockfs.FS
}

// movingNode is a running engine of it.
type movingNode struct {
	*node
	dst    *Pool
	store2 backend.Store
}

func (m *moving) start(t testing.TB) (*movingNode, error) {
	t.Helper()
	n, err := m.world.start(t)
	if err != nil {
		return nil, err
	}
	var fsys blockfs.FS = m.be2
	if m.wrap2 != nil {
		fsys = m.wrap2(fsys)
	}
	st, err := local.Open(fsys, local.Options{})
	if err != nil {
		return nil, err
	}
	dst, err := n.host.AttachPool(context.Background(), PoolConfig{ClusterID: "c1", ID: otherPool, Name: "other", Store: st, Settings: m.settings})
	return &movingNode{n, dst, st}, err
}

func (m *moving) mustStart(t testing.TB) *movingNode {
	t.Helper()
	n, err := m.start(t)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *movingNode) kill() {
	for _, p := range []*Pool{n.pool, n.dst} {
		m := *n.node
		m.pool = p
		p.mu.Lock()
		open := make([]*Volume, 0)
		for _, v := range p.open {
			open = append(open, v)
		}
		p.mu.Unlock()
		for _, v := range open {
			v.closeMu.Lock()
			if !v.ended {
				v.stop()
			}
			v.closeMu.Unlock()
		}
	}
	n.host.disks[0].pool.Close()
	n.host.cache.Close()
}

// home returns the vPool that the registry names.
func (n *movingNode) home(id ID) (*Pool, error) {
	at, err := n.host.Home(context.Background(), id)
	switch {
	case err != nil:
		return nil, err
	case at == otherPool:
		return n.dst, nil
	case at == testPool:
		return n.pool, nil
	}
	return nil, fmt.Errorf("home is %q", at)
}

// movedDisk is a closed vDisk with some history and a snapshot.
func movedDisk(t testing.TB, n *movingNode, id ID) (want []uint32) {
	t.Helper()
	n.create(id, 1<<20)
	v := n.open(id)
	for i := range uint32(6) {
		if err := v.WriteAt(context.Background(), versions(int64(i)*64<<10, 96<<10, func(int64) uint32 { return i + 1 }), int64(i)*64<<10); err != nil {
			t.Fatal(err)
		}
		if i == 2 {
			mustSnapshot(t, v, "s")
		}
		mustCommit(t, v)
	}
	want, err := readVersions(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	return want
}

func objectsIn(t testing.TB, s backend.Store) (names []string) {
	t.Helper()
	l, err := s.List(context.Background(), "v/", "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range l {
		names = append(names, o.Name)
	}
	return names
}

// TestMove: a vDisk moves while it is written to, with snapshots and history; the old
// backend is empty afterwards, and a recovery from both finds it once.
func TestMove(t *testing.T) {
	ctx := context.Background()
	m := &moving{world: newBusyWorld(401), be2: blockfs.NewMem()}
	n := m.mustStart(t)
	id := testID(1)
	movedDisk(t, n, id)
	v := n.open(id)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	cur := map[int64]uint32{}
	wg.Go(func() {
		r := mrand.New(mrand.NewPCG(1, 2))
		for ver := uint32(100); ; ver++ {
			select {
			case <-stop:
				return
			default:
			}
			off := r.Int64N(256) * 4096
			if err := v.WriteAt(ctx, versions(off, 4096, func(int64) uint32 { return ver }), off); err != nil {
				t.Error(err)
				return
			}
			cur[off] = ver
			if ver%50 == 0 {
				if err := v.Commit(ctx); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	for pass := range 4 {
		var last, total int64
		var mu sync.Mutex
		c, err := n.pool.CopyTo(ctx, id, n.dst, pass%2 == 1, func(d, all int64) {
			mu.Lock()
			defer mu.Unlock()
			last, total = max(last, d), all
		})
		if err != nil || c.Objects == 0 || last == 0 || total < last {
			t.Fatalf("pass %d: %+v, %v; told of %d of %d", pass, c, err, last, total)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err := n.pool.MoveTo(ctx, id, n.dst, nil); !errors.Is(err, ErrInUse) {
		t.Fatalf("of an open vDisk: %v", err)
	}
	close(stop)
	wg.Wait()
	want, err := readVersions(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := n.pool.Sweep(ctx, false); err != nil {
		t.Fatal(err)
	}
	if r, err := n.dst.Sweep(ctx, false); err != nil || r.Deleted != 0 || len(r.Skipped) != 1 {
		t.Fatalf("a sweep of the other vPool during the move: %+v, %v", r, err)
	}
	if err := n.pool.MoveTo(ctx, id, n.dst, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := n.pool.Open(ctx, id); !errors.Is(err, ErrMoved) {
		t.Fatalf("open in the old vPool: %v", err)
	}
	if err := n.dst.DropMoved(ctx, id); !errors.Is(err, ErrInUse) {
		t.Fatalf("drop of its home: %v", err)
	}
	open := func() *Volume {
		t.Helper()
		v, err := n.dst.Open(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		have, err := readVersions(v)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(have, want) || names(v) != "s" {
			t.Fatalf("%s; snapshots %q", diffVersions(have, want), names(v))
		}
		return v
	}
	v = open()
	for off, ver := range cur {
		wantVersion(t, v, off, ver)
	}
	if err := v.Close(ctx); err != nil {
		t.Fatal(err)
	}
	// Before the old objects go: both backends have a head, one of a newer epoch. After
	// that the old one has nothing.
	for range 2 {
		if err := n.pool.DropMoved(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	if left := objectsIn(t, n.store); len(left) != 0 {
		t.Fatalf("left behind: %q", left)
	}
	if err := n.host.Close(ctx); err != nil {
		t.Fatal(err)
	}
	// Another machine, without registry and local state.
	m.fs, m.reg = blockfs.NewMem(), newMemRegistry()
	n = m.mustStart(t)
	for _, p := range []*Pool{n.pool, n.dst} {
		found, err := p.Recover(ctx)
		if err != nil || len(found) != map[*Pool]int{n.pool: 0, n.dst: 1}[p] {
			t.Fatalf("recovered %+v, %v", found, err)
		}
	}
	v = open()
	if res := mustScrub(t, v, ScrubOptions{}); res.Units == 0 {
		t.Errorf("%+v", res)
	}
	if err := v.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := n.dst.Rollback(ctx, id, Point{Snapshot: "s"}); err != nil {
		t.Fatal(err)
	}
	// And back, which finds nothing of before.
	if err := n.dst.MoveTo(ctx, id, n.pool, nil); err != nil {
		t.Fatal(err)
	}
	if err := n.dst.DropMoved(ctx, id); err != nil {
		t.Fatal(err)
	}
	v = n.open(id)
	wantVersion(t, v, 4<<16, 0)
	if err := n.host.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestMoveRefused: what hangs on others does not move, and nothing of it is left.
func TestMoveRefused(t *testing.T) {
	ctx := context.Background()
	m := &moving{world: newBusyWorld(402), be2: blockfs.NewMem()}
	n := m.mustStart(t)
	id, clone := testID(1), testID(2)
	movedDisk(t, n, id)
	if err := n.pool.Clone(ctx, CloneSpec{ID: clone, Name: "c", Source: id}); err != nil {
		t.Fatal(err)
	}
	for _, d := range []ID{id, clone} {
		if _, err := n.pool.CopyTo(ctx, d, n.dst, false, nil); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "flatten") {
			t.Errorf("copy: %v", err)
		}
		if err := n.pool.MoveTo(ctx, d, n.dst, nil); !errors.Is(err, ErrInUse) {
			t.Errorf("move: %v", err)
		}
	}
	if left := objectsIn(t, n.store2); len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}
	if _, err := n.pool.CopyTo(ctx, testID(9), n.dst, false, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("of none: %v", err)
	}
	// A damaged SCO is named, and stops it.
	if err := n.pool.Delete(ctx, clone); err != nil {
		t.Fatal(err)
	}
	for _, name := range objectsIn(t, n.store) {
		if strings.Contains(name, id.String()+scoDir) {
			b, err := n.store.Get(ctx, name, 1<<30)
			if err != nil {
				t.Fatal(err)
			}
			b[100] ^= 1
			if err := errors.Join(n.store.Delete(ctx, name), n.store.Put(ctx, name, b)); err != nil {
				t.Fatal(err)
			}
			if err := n.pool.MoveTo(ctx, id, n.dst, nil); !errors.Is(err, backend.ErrCorrupt) || !strings.Contains(err.Error(), name) {
				t.Fatalf("a damaged SCO: %v", err)
			}
			break
		}
	}
	if at, err := n.home(id); err != nil || at != n.pool {
		t.Fatalf("%v %v", at, err)
	}
	n.open(id)
	if err := n.host.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

// finishMove brings a world in which a move was interrupted to its end, and looks at the
// content on the way.
func finishMove(n *movingNode, id ID, want []uint32) error {
	ctx := context.Background()
	look := func(p *Pool) error {
		v, err := p.Open(ctx, id)
		if err != nil {
			return err
		}
		have, err := readVersions(v)
		if err != nil {
			return err
		}
		if !slices.Equal(have, want) || names(v) != "s" {
			return fmt.Errorf("in vpool %s: %s; snapshots %q", p.cfg.Name, diffVersions(have, want), names(v))
		}
		return v.Close(ctx)
	}
	at, err := n.home(id)
	if err != nil {
		return err
	}
	if err := look(at); err != nil {
		return err
	}
	if at == n.pool {
		if err := n.pool.MoveTo(ctx, id, n.dst, nil); err != nil {
			return fmt.Errorf("repeated: %w", err)
		}
		if err := look(n.dst); err != nil {
			return err
		}
	}
	if err := n.pool.DropMoved(ctx, id); err != nil {
		return err
	}
	if left := objectsIn(n.t, n.store); len(left) != 0 {
		return fmt.Errorf("left behind: %q", left)
	}
	return nil
}

// TestCrashMove crashes at every write and sync point of a move.
func TestCrashMove(t *testing.T) {
	m := &moving{world: newBusyWorld(403), be2: blockfs.NewMem()}
	n := m.mustStart(t)
	id := testID(1)
	want := movedDisk(t, n, id)
	every := stride(1, 7)
	var points, checks int64
	var fail error
	var mu sync.Mutex // copies run beside each other
	hook := func() {
		mu.Lock()
		defer mu.Unlock()
		points++
		if points%every != 0 || fail != nil {
			return
		}
		for _, kind := range tearings {
			w := *m.world
			w.reg, w.seed = m.reg.clone(), seedsFrom(uint64(points)*8+uint64(kind)+1<<40)
			cfg := blockfs.CrashConfig{Unsynced: kind, Rand: mrand.New(mrand.NewPCG(uint64(points), uint64(kind)))}
			w.fs, w.be = m.fs.Crash(cfg), m.be.Crash(cfg)
			c := &moving{world: &w, be2: m.be2.Crash(cfg)}
			checks++
			err := func() error {
				cn, err := c.start(t)
				if err != nil {
					return err
				}
				defer cn.kill()
				return finishMove(cn, id, want)
			}()
			if err != nil {
				fail = fmt.Errorf("crash point %d, tearing %d: %w", points, kind, err)
			}
		}
	}
	m.fs.SetHook(func(int64, blockfs.OpInfo) { hook() })
	m.be.SetHook(func(int64, blockfs.OpInfo) { hook() })
	m.be2.SetHook(func(int64, blockfs.OpInfo) { hook() })
	m.reg.setHook(hook)
	ctx := context.Background()
	if _, err := n.pool.CopyTo(ctx, id, n.dst, true, nil); err != nil {
		t.Fatal(err)
	}
	if err := n.pool.MoveTo(ctx, id, n.dst, nil); err != nil {
		t.Fatal(err)
	}
	if err := n.pool.DropMoved(ctx, id); err != nil {
		t.Fatal(err)
	}
	m.fs.SetHook(nil)
	m.be.SetHook(nil)
	m.be2.SetHook(nil)
	m.reg.setHook(nil)
	n.kill()
	if fail != nil {
		t.Fatal(fail)
	}
	t.Logf("%d crash points, %d recoveries", points, checks)
}

// TestErrorMove fails every operation of a move in turn; repeated, it comes to its end.
func TestErrorMove(t *testing.T) {
	every := stride(1, 9)
	run := func(where string, at int64) (counts map[string]int64) {
		m := &moving{world: newBusyWorld(404), be2: blockfs.NewMem()}
		m.opts.Clock = fastClock{time.Now(), 1000}
		var on atomic.Bool
		var files, be, be2 atomic.Int64
		plan := faultPlan{where: where, n: at, last: at, err: syscall.EIO, part: at%2 == 0}
		m.wrapFS = func(fs blockfs.FS) blockfs.FS { return blockfs.Inject(fs, plan.faulty("files", &on, &files)) }
		m.wrapStore = func(backend.Store) (backend.Store, error) {
			return local.Open(blockfs.Inject(m.be, plan.faulty("backend", &on, &be)), local.Options{})
		}
		m.wrap2 = func(fs blockfs.FS) blockfs.FS { return blockfs.Inject(fs, plan.faulty("other", &on, &be2)) }
		n := m.mustStart(t)
		id := testID(1)
		want := movedDisk(t, n, id)
		ctx := context.Background()
		on.Store(true)
		for try := 0; ; try++ {
			_, err := n.pool.CopyTo(ctx, id, n.dst, true, nil)
			if err == nil {
				err = n.pool.MoveTo(ctx, id, n.dst, nil)
			}
			if err == nil {
				err = n.pool.DropMoved(ctx, id)
			}
			if at, herr := n.home(id); herr == nil && at == n.dst && err != nil {
				err = n.pool.DropMoved(ctx, id)
			}
			if err == nil {
				break
			}
			if try == 3 {
				t.Fatalf("%s %d: %v", where, at, err)
			}
		}
		on.Store(false)
		if err := finishMove(n, id, want); err != nil {
			t.Fatalf("%s %d: %v", where, at, err)
		}
		n.kill()
		return map[string]int64{"files": files.Load(), "backend": be.Load(), "other": be2.Load()}
	}
	runs := 0
	for where, total := range run("", 0) {
		for at := int64(1); at <= total; at += every {
			run(where, at)
			runs++
		}
	}
	t.Logf("%d runs", runs)
}

// TestMoveStaysWarm: after a move, what is in the read cache is read from there.
func TestMoveStaysWarm(t *testing.T) {
	ctx := context.Background()
	m := &moving{world: newWorld(81), be2: blockfs.NewMem()}
	m.opts.CacheBytes, m.opts.WriteMemoryBytes = 64<<20, 1
	var reads atomic.Int64
	m.wrap2 = func(f blockfs.FS) blockfs.FS {
		return blockfs.Inject(f, func(op blockfs.OpInfo) error {
			if op.Kind == blockfs.OpRead && strings.Contains(op.Path, "/sco") {
				reads.Add(1)
			}
			return nil
		})
	}
	n := m.mustStart(t)
	id := testID(1)
	want := movedDisk(t, n, id)
	v := n.open(id)
	for range 2 { // the second read of a group keeps it
		if _, err := readVersions(v); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if err := n.pool.MoveTo(ctx, id, n.dst, nil); err != nil {
		t.Fatal(err)
	}
	v, err := n.dst.Open(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	reads.Store(0)
	got, err := readVersions(v)
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("%v; %v", err, got)
	}
	if r := reads.Load(); r > 0 {
		t.Errorf("%d reads of the other vPool's backend", r)
	}
	n.close()
	n = m.mustStart(t)
	if v, err = n.dst.Open(ctx, id); err != nil {
		t.Fatal(err)
	}
	if _, err = readVersions(v); err != nil || reads.Load() == 0 {
		t.Fatalf("a cold cache, and %d reads: the test counts nothing; %v", reads.Load(), err)
	}
	n.close()
}
