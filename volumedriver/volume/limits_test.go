package volume

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/backend"
)

// TestHugeDisk: 64 TiB costs nothing until it is written, and unmapping all of it
// takes no time worth naming. The limits are the issue's; memory is counted, and time is
// the best of a few tries, as the machine may do something else meanwhile.
func TestHugeDisk(t *testing.T) {
	w := newWorld(31)
	w.opts.WriteMemoryBytes, w.opts.CacheBytes = 1<<20, 1<<20
	n := w.mustStart(t)
	defer n.kill()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	begin := time.Now()
	n.create(testID(1), MaxSize)
	v := n.open(testID(1))
	created := time.Since(begin)
	runtime.GC()
	runtime.ReadMemStats(&after)
	if used := int64(after.HeapAlloc) - int64(before.HeapAlloc); used > 50<<20 {
		t.Errorf("an empty 64 TiB vdisk uses %d bytes", used)
	}
	if m := v.Stats().MapMemoryBytes; m > 1<<20 {
		t.Errorf("its map uses %d bytes", m)
	}
	for k := byte(2); k < 7 && created > time.Second; k++ {
		begin = time.Now()
		n.create(testID(k), MaxSize)
		n.open(testID(k))
		created = min(created, time.Since(begin))
	}
	unmapped := time.Duration(math.MaxInt64)
	for try := 0; try < 5 && unmapped > time.Second; try++ {
		for i := range int64(64) {
			mustWrite(t, v, i<<40+i*4096, uint32(i+1))
		}
		mustCommit(t, v)
		for i := range int64(64) {
			mustWrite(t, v, i<<40+i*8192, uint32(i+1))
		}
		begin = time.Now()
		if err := v.Unmap(context.Background(), 0, MaxSize); err != nil {
			t.Fatal(err)
		}
		unmapped = min(unmapped, time.Since(begin))
		begin = time.Now()
		mustCommit(t, v)
		t.Logf("create and open %s, unmap %s, its commit %s", created, unmapped, time.Since(begin))
		for i := range int64(64) {
			wantVersion(t, v, i<<40+i*4096, 0)
			wantVersion(t, v, i<<40+i*8192, 0)
		}
		if m := v.Stats().MappedBytes; m != 0 {
			t.Errorf("%d bytes still mapped", m)
		}
	}
	if created > time.Second || unmapped > time.Second {
		t.Errorf("create and open took %s, a full unmap %s", created, unmapped)
	}
	if err := v.WriteAt(context.Background(), make([]byte, 4096), MaxSize); !errors.Is(err, ErrInvalid) {
		t.Errorf("write beyond the end: %v", err)
	}
}

// TestRefusals: what is out of range is refused with its name, and nothing changes.
func TestRefusals(t *testing.T) {
	ctx := context.Background()
	w := newWorld(32)
	n := w.mustStart(t)
	defer n.kill()
	for _, c := range []struct {
		spec Spec
		want string
	}{
		{Spec{Name: "a", Size: 0}, "above 0"},
		{Spec{Name: "a", Size: -4096}, "above 0"},
		{Spec{Name: "a", Size: 4097}, "multiple of the cluster size"},
		{Spec{Name: "a", Size: MaxSize + 4096}, "above 64 TiB"},
		{Spec{Name: "a", Size: 1 << 20, ClusterSize: 5000}, "cluster size 5000"},
		{Spec{Name: "a", Size: 1 << 20, ClusterSize: 128 << 10}, "cluster size 131072"},
		{Spec{Name: "a", Size: 1<<20 + 4096, ClusterSize: 64 << 10}, "multiple of the cluster size"},
	} {
		c.spec.ID = testID(1)
		if err := n.pool.Create(ctx, c.spec); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.spec, err)
		}
	}
	if len(w.reg.recs) != 0 {
		t.Error("a refused create left a record")
	}
	n.create(testID(1), 1<<20)
	if err := n.pool.Create(ctx, Spec{ID: testID(1), Name: "again", Size: 1 << 20}); !errors.Is(err, ErrExists) {
		t.Errorf("second create: %v", err)
	}
	v := n.open(testID(1))
	if _, err := n.pool.Open(ctx, testID(1)); !errors.Is(err, ErrExists) {
		t.Errorf("second open: %v", err)
	}
	head := v.Stats().HeadNumber
	for _, size := range []int64{512 << 10, 0, 1<<20 + 512, MaxSize + 4096} {
		if err := v.Grow(ctx, size); !errors.Is(err, ErrInvalid) {
			t.Errorf("grow to %d: %v", size, err)
		}
	}
	if v.Size() != 1<<20 || v.Stats().HeadNumber != head {
		t.Error("a refused grow changed something")
	}
	for _, r := range []struct{ off, n int64 }{{-512, 512}, {1 << 20, 512}, {1<<20 - 512, 1024}, {100, 512}, {0, 100}, {1 << 62, 1 << 62}} {
		if err := v.Unmap(ctx, r.off, r.n); !errors.Is(err, ErrInvalid) {
			t.Errorf("unmap %v: %v", r, err)
		}
	}
	for _, s := range []Settings{{ClusterSize: 3}, {SCOSize: 1 << 20}, {SCOSize: 5 << 20}, {JournalQuota: 1 << 20},
		{SCOSize: 64 << 20, JournalQuota: 128 << 20}, {CommitInterval: time.Microsecond}, {StallTimeout: 48 * time.Hour}} {
		if err := n.pool.SetSettings(s); !errors.Is(err, ErrInvalid) {
			t.Errorf("settings %+v: %v", s, err)
		}
	}
}

// awayStore is a backend that can be away.
type awayStore struct {
	backend.Store
	away *atomic.Bool
}

var errAway = errors.New("no route to backend")

func (s awayStore) err() error {
	if s.away.Load() {
		return errAway
	}
	return nil
}

func (s awayStore) Put(ctx context.Context, name string, b []byte) error {
	if err := s.err(); err != nil {
		return err
	}
	return s.Store.Put(ctx, name, b)
}

func (s awayStore) PutIfAbsent(ctx context.Context, name string, b []byte) error {
	if err := s.err(); err != nil {
		return err
	}
	return s.Store.PutIfAbsent(ctx, name, b)
}

func (s awayStore) Get(ctx context.Context, name string, limit int64) ([]byte, error) {
	if err := s.err(); err != nil {
		return nil, err
	}
	return s.Store.Get(ctx, name, limit)
}

func (s awayStore) ReadAt(ctx context.Context, name string, p []byte, off int64) error {
	if err := s.err(); err != nil {
		return err
	}
	return s.Store.ReadAt(ctx, name, p, off)
}

func (s awayStore) List(ctx context.Context, prefix, after string, limit int) ([]backend.Info, error) {
	if err := s.err(); err != nil {
		return nil, err
	}
	return s.Store.List(ctx, prefix, after, limit)
}

func withAway(w *world) *atomic.Bool {
	away := &atomic.Bool{}
	w.wrapStore = func(s backend.Store) (backend.Store, error) { return awayStore{s, away}, nil }
	return away
}

// TestBackendAway: an outage fails no write until the journal is full; then
// writes wait, and go on by themselves when the backend is back. Reads of what
// is in the journal go on all the time, and so does a restart.
func TestBackendAway(t *testing.T) {
	ctx := context.Background()
	w := newWorld(33)
	w.opts.JournalBytes = 4 * w.opts.ChunkBytes
	w.opts.WriteMemoryBytes = 1
	away := withAway(w)
	id := testID(1)
	n := w.mustStart(t)
	n.create(id, 8<<20)
	v := n.open(id)
	mustWrite(t, v, 0, 1)
	mustCommit(t, v)
	away.Store(true)
	block := make([]byte, 32<<10)
	wrote := int64(0)
	blocked := make(chan error, 1)
	go func() {
		for i := int64(0); i < 60; i++ {
			copy(block, versions(i*int64(len(block)), int64(len(block)), func(int64) uint32 { return uint32(i + 10) }))
			if err := v.WriteAt(ctx, block, i*int64(len(block))); err != nil {
				blocked <- err
				return
			}
			atomic.AddInt64(&wrote, 1)
		}
		blocked <- nil
	}()
	for deadline := time.Now().Add(hangLimit); !stalledBy(v, errAway); {
		if time.Now().After(deadline) {
			t.Fatalf("never stalled: %+v", v.Stats())
		}
		select {
		case err := <-blocked:
			t.Fatalf("writer ended during the outage: %v after %d", err, wrote)
		case <-time.After(time.Millisecond):
		}
	}
	wantVersion(t, v, 4096, 10)
	if k := atomic.LoadInt64(&wrote); k < 5 {
		t.Errorf("only %d writes went to the journal", k)
	}
	away.Store(false)
	if err := <-blocked; err != nil {
		t.Fatalf("writer after the outage: %v", err)
	}
	for i := range int64(60) {
		wantVersion(t, v, i*int64(len(block)), uint32(i+10))
	}
	mustCommit(t, v)
	if s := v.Stats(); s.State != StateRunning {
		t.Errorf("state %s (%s) after the outage", s.State, s.Err)
	}
	away.Store(true)
	mustWrite(t, v, 0, 99)
	n.kill()
	// A restart without the backend serves from local state (E2).
	n = w.awayStart(t, away)
	v = n.open(id)
	wantVersion(t, v, 0, 99)
	mustWrite(t, v, 0, 100)
	n.kill()
	n = w.awayStart(t, away)
	v = n.open(id)
	wantVersion(t, v, 0, 100)
	away.Store(false)
	mustCommit(t, v)
	if e := v.Stats(); e.CommittedSeq != e.LastSeq {
		t.Errorf("not committed: %+v", e)
	}
	n.close()
	n = w.mustStart(t)
	defer n.close()
	wantVersion(t, n.open(id), 0, 100)
}

// halfStore lists, and stores nothing.
type halfStore struct {
	backend.Store
	away  *atomic.Bool
	lists atomic.Int64
}

func (s *halfStore) Put(ctx context.Context, name string, data []byte) error {
	if s.away.Load() {
		return errAway
	}
	return s.Store.Put(ctx, name, data)
}

func (s *halfStore) List(ctx context.Context, prefix, after string, limit int) ([]backend.Info, error) {
	s.lists.Add(1)
	return s.Store.List(ctx, prefix, after, limit)
}

// TestAwaySteady: what a backend still does says nothing of what it does not.
func TestAwaySteady(t *testing.T) {
	w := newWorld(37)
	w.opts.Clock = fastClock{time.Now(), 20}
	w.settings.CommitInterval = time.Second
	var away atomic.Bool
	var half *halfStore
	w.wrapStore = func(s backend.Store) (backend.Store, error) {
		half = &halfStore{Store: s, away: &away}
		return half, nil
	}
	n := w.mustStart(t)
	defer n.close()
	n.create(testID(1), 1<<20)
	v := n.open(testID(1))
	if d := v.Away(); d != 0 {
		t.Errorf("away for %v before anything was asked", d)
	}
	away.Store(true)
	mustWrite(t, v, 0, 1)
	deadline := time.Now().Add(hangLimit)
	wait := func(what string, done func() bool) {
		for !done() {
			if time.Now().After(deadline) {
				t.Fatalf("never: %s; %+v", what, v.Stats())
			}
			time.Sleep(time.Millisecond)
		}
	}
	wait("degraded", func() bool { return v.Stats().State == StateDegraded })
	looked := half.lists.Load()
	wait("looks for a fence", func() bool {
		if s := v.Stats(); s.State != StateDegraded || !strings.Contains(s.Err, errAway.Error()) {
			t.Fatalf("%s (%s) after %d looks", s.State, s.Err, half.lists.Load()-looked)
		}
		return half.lists.Load() >= looked+5
	})
	if d := v.Away(); d < time.Second {
		t.Errorf("away for %v", d)
	}
	away.Store(false)
	wait("stored", func() bool { return v.Stats().State == StateRunning && v.Away() == 0 })
	mustCommit(t, v)
}

// TestBackendAwayTenMinutes: an outage of ten minutes, half of whose writes the journal
// takes at once and the rest slowed down, fails none of them; the metrics tell; when the
// backend is back everything gets there, and a restart finds it.
func TestBackendAwayTenMinutes(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector makes ten minutes at 600 times the speed too short")
	}
	const outage, writes = 10 * time.Minute, 1200
	w := newWorld(36)
	w.opts.ChunkBytes = 2 << 20
	w.opts.JournalBytes = MinQuota + 8*w.opts.ChunkBytes
	w.opts.Clock = fastClock{time.Now(), 600}
	w.settings.CommitInterval = 5 * time.Second
	size := w.settings.JournalQuota * 3 / 4 / writes &^ 4095 // of a write; with records and chunks 80 % of the quota
	away := withAway(w)
	id := testID(1)
	n := w.mustStart(t)
	n.create(id, writes*size)
	v := n.open(id)
	away.Store(true)
	start := w.opts.Clock.Now()
	degraded, data := false, make([]byte, size)
	for i := range int64(writes) {
		copy(data[size-4096:], versions(i*size+size-4096, 4096, func(int64) uint32 { return uint32(i + 1) }))
		if err := v.WriteAt(context.Background(), data, i*size); err != nil {
			t.Fatalf("write %d, %s into the outage: %v", i, w.opts.Clock.Now().Sub(start), err)
		}
		degraded = degraded || v.Stats().State == StateDegraded
		next := w.opts.Clock.NewTimer(start.Add(outage * time.Duration(i+1) / writes).Sub(w.opts.Clock.Now()))
		<-next.C()
	}
	if s := v.Stats(); !degraded || s.Throttled == 0 || s.CommittedSeq == s.LastSeq {
		t.Errorf("after the outage: degraded %v, %+v", degraded, s)
	}
	away.Store(false)
	mustCommit(t, v)
	if s := v.Stats(); s.State != StateRunning || s.CommittedSeq != s.LastSeq {
		t.Errorf("after the outage: %+v", s)
	}
	n.kill()
	n = w.mustStart(t)
	defer n.close()
	v = n.open(id)
	for i := range int64(writes) {
		wantVersion(t, v, i*size+size-4096, uint32(i+1))
	}
}

// stalledBy reports whether writes wait for room, and the state says why.
func stalledBy(v *Volume, why error) bool {
	s := v.Stats()
	return s.State == StateStalled && strings.Contains(s.Err, why.Error())
}

// awayStart starts the engine with its vPool attached, then with the backend away.
func (w *world) awayStart(t *testing.T, away *atomic.Bool) *node {
	t.Helper()
	away.Store(false)
	n := w.mustStart(t)
	away.Store(true)
	return n
}

// TestStallTimeout: a write that found no room for stall_timeout fails with the
// reason, and the vDisk goes on when there is room again.
func TestStallTimeout(t *testing.T) {
	w := newWorld(34)
	w.opts.JournalBytes = 2 * w.opts.ChunkBytes
	w.opts.Clock = fastClock{time.Now(), 20}
	w.settings.StallTimeout = 4 * time.Second
	away := withAway(w)
	n := w.mustStart(t)
	defer n.kill()
	n.create(testID(1), 8<<20)
	v := n.open(testID(1))
	away.Store(true)
	var err error
	for i := int64(0); i < 200 && err == nil; i++ {
		err = write(t, v, i*4096, 5)
	}
	if !errors.Is(err, ErrStalled) || !errors.Is(err, errAway) {
		t.Fatalf("write with a full journal: %v", err)
	}
	away.Store(false)
	for deadline := time.Now().Add(hangLimit); write(t, v, 0, 6) != nil; {
		if time.Now().After(deadline) {
			t.Fatalf("no write after the outage: %+v", v.Stats())
		}
	}
	wantVersion(t, v, 0, 6)
}

// TestFullWriteDisk: with no room for another chunk writes wait and fail with the
// reason; reads go on.
func TestFullWriteDisk(t *testing.T) {
	w := newWorld(35)
	w.opts.Clock = fastClock{time.Now(), 20}
	w.settings.StallTimeout = 2 * time.Second
	away := withAway(w)
	n := w.mustStart(t)
	defer n.kill()
	n.create(testID(1), 8<<20)
	v := n.open(testID(1))
	mustWrite(t, v, 0, 1)
	away.Store(true)
	total, free, err := w.fs.Usage()
	if err != nil {
		t.Fatal(err)
	}
	w.fs.SetCapacity(total - free)
	for i := int64(0); i < 200 && err == nil; i++ {
		err = write(t, v, i*4096, 5)
	}
	if !errors.Is(err, ErrStalled) || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("write with a full disk: %v", err)
	}
	wantVersion(t, v, 0, 5)
	w.fs.SetCapacity(total)
	mustWrite(t, v, 0, 6)
	wantVersion(t, v, 0, 6)
}

// TestJournalDiskFails: every write of the journal fails. Writes are refused, the
// reason is told, what was acknowledged is read and reaches the backend.
func TestJournalDiskFails(t *testing.T) {
	w := newWorld(36)
	var broken atomic.Bool
	w.wrapFS = func(f blockfs.FS) blockfs.FS {
		return blockfs.Inject(f, func(op blockfs.OpInfo) error {
			if broken.Load() && op.Kind == blockfs.OpWrite && strings.HasPrefix(op.Path, "journal/") {
				return syscall.EIO
			}
			return nil
		})
	}
	id := testID(1)
	n := w.mustStart(t)
	n.create(id, 1<<20)
	v := n.open(id)
	mustWrite(t, v, 0, 1)
	broken.Store(true)
	if err := write(t, v, 4096, 2); !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EIO) {
		t.Fatalf("write to a failed journal: %v", err)
	}
	if err := v.Flush(context.Background()); !errors.Is(err, ErrFailed) {
		t.Fatalf("flush with a failed journal: %v", err)
	}
	wantVersion(t, v, 0, 1)
	mustCommit(t, v)
	if s := v.Stats(); s.State != StateFailed || s.CommittedSeq != 1 {
		t.Fatalf("%+v", s)
	}
	n.kill()
	broken.Store(false)
	n = w.mustStart(t)
	defer n.kill()
	wantVersion(t, n.open(id), 0, 1)
}

// TestDataDirectoryReadOnly: the file system of the data directory turns read-only, as it
// does after an error. Writes fail and say why, what was acknowledged is read, goes to the
// backend, and is there when the directory is back.
func TestDataDirectoryReadOnly(t *testing.T) {
	ctx := context.Background()
	w := newWorld(37)
	w.settings.StallTimeout = time.Second
	var ro atomic.Bool
	w.wrapFS = func(f blockfs.FS) blockfs.FS {
		return blockfs.Inject(f, func(op blockfs.OpInfo) error {
			if ro.Load() && op.Kind != blockfs.OpRead && op.Kind != blockfs.OpOpen {
				return syscall.EROFS
			}
			return nil
		})
	}
	id := testID(1)
	n := w.mustStart(t)
	n.create(id, 1<<20)
	v := n.open(id)
	for i := range int64(40) {
		mustWrite(t, v, i*4096, uint32(i)+1)
	}
	mustSnapshot(t, v, "before")
	ro.Store(true)
	if err := write(t, v, 0, 99); !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EROFS) {
		t.Fatalf("write: %v", err)
	}
	if _, err := v.Snapshot(ctx, SnapshotSpec{Name: "after"}); !errors.Is(err, ErrFailed) {
		t.Fatalf("snapshot: %v", err)
	}
	mustCommit(t, v)
	for i := range int64(40) {
		wantVersion(t, v, i*4096, uint32(i)+1)
	}
	if s := v.Stats(); s.State != StateFailed || !strings.Contains(s.Err, syscall.EROFS.Error()) || s.CommittedSeq != 41 {
		t.Fatalf("%+v", s)
	}
	if err := n.pool.Create(ctx, Spec{ID: testID(2), Name: "new", Size: 1 << 20}); err == nil {
		if v, err := n.pool.Open(ctx, testID(2)); err == nil { // it needs the directory for writes only
			if err := write(t, v, 0, 1); err == nil {
				t.Error("a write to a new vDisk")
			}
		}
	}
	n.kill()
	ro.Store(false)
	n = w.mustStart(t)
	v = n.open(id)
	for i := range int64(40) {
		wantVersion(t, v, i*4096, uint32(i)+1)
	}
	if names(v) != "before" {
		t.Errorf("snapshots %q", names(v))
	}
	mustWrite(t, v, 0, 100)
	n.close()
}

// TestDamagedObject: a flipped bit on the backend is a medium error, never data.
func TestDamagedObject(t *testing.T) {
	ctx := context.Background()
	w := newWorld(37)
	id := testID(1)
	n := w.mustStart(t)
	n.create(id, 1<<20)
	v := n.open(id)
	for i := range int64(20) {
		mustWrite(t, v, i*4096, uint32(i+1))
	}
	mustCommit(t, v)
	n.close()
	l, err := n.store.List(ctx, "v/"+id.String()+"/sco/", "", 10)
	if err != nil || len(l) != 1 {
		t.Fatal(l, err)
	}
	b, err := n.store.Get(ctx, l[0].Name, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	b[5*4096+77] ^= 1
	if err := n.store.Put(ctx, l[0].Name, b); err != nil {
		t.Fatal(err)
	}
	n = w.mustStart(t)
	defer n.kill()
	v = n.open(id)
	p := make([]byte, 4096)
	if err := v.ReadAt(ctx, p, 5*4096); !errors.Is(err, ErrMedium) || !strings.Contains(err.Error(), fmt.Sprint("lba ", 5*8)) {
		t.Fatalf("read of a damaged cluster: %v", err)
	}
	var at *MediumError
	if err := v.ReadAt(ctx, make([]byte, 8*4096), 0); !errors.As(err, &at) || at.Offset != 5*4096 {
		t.Fatalf("read across a damaged cluster: %v", err)
	}
	wantVersion(t, v, 4*4096, 5)
	wantVersion(t, v, 6*4096, 7)
	mustWrite(t, v, 5*4096, 50)
	wantVersion(t, v, 5*4096, 50)
}

// TestClaimedWhileAway: two copies of a data directory open while the backend is
// away, in the same epoch. When it is back one of them owns the vDisk and the
// other is fenced; nothing is overwritten.
func TestClaimedWhileAway(t *testing.T) {
	ctx := context.Background()
	w := watched(t, 38)
	id := testID(1)
	n := w.mustStart(t)
	n.create(id, 1<<20)
	v := n.open(id)
	mustWrite(t, v, 0, 1)
	mustCommit(t, v)
	n.kill()
	away := &atomic.Bool{}
	once := w.wrapStore
	w.wrapStore = func(s backend.Store) (backend.Store, error) {
		s, err := once(s)
		return awayStore{s, away}, err
	}
	two := w.copyOf()
	n, m := w.awayStart(t, away), two.awayStart(t, away)
	v, mv := n.open(id), m.open(id)
	if v.Stats().Epoch != mv.Stats().Epoch {
		t.Fatal("the test wants both in one epoch")
	}
	mustWrite(t, v, 4096, 2)
	mustWrite(t, mv, 8192, 3)
	away.Store(false)
	err, merr := v.Commit(ctx), mv.Commit(ctx)
	if (err == nil) == (merr == nil) || !errors.Is(errors.Join(err, merr), ErrFenced) {
		t.Fatalf("two owners: %v, %v", err, merr)
	}
	if err == nil {
		wantVersion(t, v, 4096, 2)
		wantVersion(t, v, 8192, 0)
	} else {
		wantVersion(t, mv, 8192, 3)
		wantVersion(t, mv, 4096, 0)
	}
	n.kill()
	m.kill()
}

// TestFullBackend: a backend without space takes nothing from what is acknowledged.
// Writes go on until the journal is full, then wait and are refused; with space again
// they go on and everything is committed.
func TestFullBackend(t *testing.T) {
	w := newWorld(39)
	w.opts.JournalBytes = 3 * w.opts.ChunkBytes
	w.opts.Clock = fastClock{time.Now(), 20}
	n := w.mustStart(t)
	id := testID(1)
	n.create(id, 8<<20)
	v := n.open(id)
	mustWrite(t, v, 0, 1)
	mustCommit(t, v)
	total, free, err := w.be.Usage()
	if err != nil {
		t.Fatal(err)
	}
	w.be.SetCapacity(total - free)
	const blocks = 100
	done := make(chan error, 1)
	go func() {
		for i := range int64(blocks) {
			err := write(t, v, i*4096, uint32(i+10))
			for errors.Is(err, backend.ErrFull) {
				err = write(t, v, i*4096, uint32(i+10))
			}
			if err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for deadline := time.Now().Add(hangLimit); !stalledBy(v, backend.ErrFull); {
		if time.Now().After(deadline) {
			t.Fatalf("never stalled: %+v", v.Stats())
		}
		select {
		case err := <-done:
			t.Fatalf("the writer ended while the backend was full: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	wantVersion(t, v, 0, 10)
	w.be.SetCapacity(total)
	if err := <-done; err != nil {
		t.Fatalf("writer after there was space again: %v", err)
	}
	mustCommit(t, v)
	n.kill()
	n = w.mustStart(t)
	defer n.kill()
	v = n.open(id)
	for i := range int64(blocks) {
		wantVersion(t, v, i*4096, uint32(i+10))
	}
}

// block is what is written to a vDisk whose backend gets full, in bytes.
const block = 1 << 20

// writeUntilFull writes version 5 to one block after the other until that is refused.
func writeUntilFull(t *testing.T, v *Volume) {
	t.Helper()
	var err error
	i := int64(0)
	for ; err == nil && i < 200; i++ {
		off := i * block
		err = v.WriteAt(t.Context(), versions(off, block, func(int64) uint32 { return 5 }), off)
	}
	if !errors.Is(err, ErrStalled) || !errors.Is(err, backend.ErrFull) {
		t.Fatalf("write %d: %v", i, err)
	}
}

// writeAgain writes version 6 to the first block once there is space, and commits it.
func writeAgain(t *testing.T, v *Volume) {
	t.Helper()
	for deadline := time.Now().Add(hangLimit); v.WriteAt(t.Context(), versions(0, block, func(int64) uint32 { return 6 }), 0) != nil; {
		if time.Now().After(deadline) {
			t.Fatalf("no write although there is space: %+v", v.Stats())
		}
	}
	mustCommit(t, v)
	wantVersion(t, v, 0, 6)
}

// newPatientWorld has room in its journals for all that a test writes, and no write that waits
// fails during it.
func newPatientWorld(seed uint64) *world {
	w := newWorld(seed)
	w.opts.JournalBytes = 512 << 20
	w.opts.ChunkBytes = 16 << 20
	w.opts.Clock = fastClock{time.Now(), 20}
	w.settings.StallTimeout = time.Hour
	return w
}

// TestFullSoon: the writer is told that the backend is full long before stall_timeout,
// whatever else the backend answers meanwhile; what is discarded is taken; and a delete
// makes space although there is none for word of it.
func TestFullSoon(t *testing.T) {
	w := newPatientWorld(40)
	w.settings.CommitInterval = time.Second // it looks for a fence all the time
	n := w.mustStart(t)
	defer n.kill()
	for i := range byte(2) {
		n.create(testID(i+1), 256<<20)
	}
	gone, v := n.open(testID(1)), n.open(testID(2))
	mustWrite(t, gone, 0, 1)
	if err := gone.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	total, free, err := w.be.Usage()
	if err != nil {
		t.Fatal(err)
	}
	w.be.SetCapacity(total - free)
	writeUntilFull(t, v)
	for off := range int64(8) {
		if err := v.Unmap(t.Context(), off*block, block); err != nil {
			t.Errorf("unmap %d: %v", off, err)
		}
	}
	wantVersion(t, v, 0, 0)
	wantVersion(t, v, 8*block, 5)
	if err := n.pool.Delete(t.Context(), testID(1)); err != nil {
		t.Errorf("delete: %v", err)
	}
	if l, err := n.pool.list(t.Context(), vdiskPrefix(testID(1)), "", 10); err != nil || len(l) > 0 {
		t.Errorf("left behind: %v, %v", l, err)
	}
	// Space for two SCOs goes to the oldest two, without which no head frees journal.
	all, left, err := w.be.Usage()
	if err != nil {
		t.Fatal(err)
	}
	was := v.up.committed.Load()
	w.be.SetCapacity(all - left + 5*w.settings.SCOSize/2)
	for deadline := time.Now().Add(hangLimit); v.up.committed.Load() == was; {
		if time.Now().After(deadline) {
			t.Fatalf("no head although there is space: %+v", v.Stats())
		}
		runtime.Gosched()
	}
	w.be.SetCapacity(total)
	writeAgain(t, v)
	wantVersion(t, v, block, 0)
}

// scarceStore refuses SCOs: for lack of space, for another reason, or once room is used up.
type scarceStore struct {
	backend.Store
	mu     sync.Mutex
	err    error // of every SCO; nil: they are taken while there is room
	room   int
	tries  int
	oldest string   // of those refused for lack of space
	took   []string // since there is room
}

func (s *scarceStore) Put(ctx context.Context, name string, b []byte) error {
	if !strings.Contains(name, "/sco/") {
		return s.Store.Put(ctx, name, b)
	}
	s.mu.Lock()
	s.tries++
	err := s.err
	switch {
	case errors.Is(err, backend.ErrFull):
		if s.oldest == "" || name < s.oldest {
			s.oldest = name
		}
	case err == nil && s.room == 0:
		err = backend.ErrFull
	case err == nil:
		s.room--
		s.took = append(s.took, name)
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return s.Store.Put(ctx, name, b)
}

func (s *scarceStore) set(err error, room int) (tries int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.room = err, room
	return s.tries
}

// TestFullInOrder: what space there is goes to the oldest SCOs, one after the other, also when the
// backend answered otherwise after it was full: those behind them would free no journal.
func TestFullInOrder(t *testing.T) {
	w := newPatientWorld(42)
	s := &scarceStore{err: backend.ErrFull}
	w.wrapStore = func(b backend.Store) (backend.Store, error) { s.Store = b; return s, nil }
	n := w.mustStart(t)
	defer n.kill()
	n.create(testID(1), 256<<20)
	v := n.open(testID(1))
	writeUntilFull(t, v)
	until := func(what string, done func() bool) {
		t.Helper()
		for deadline := time.Now().Add(hangLimit); ; runtime.Gosched() {
			s.mu.Lock()
			ok := done()
			s.mu.Unlock()
			if ok {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("never %s: %+v", what, v.Stats())
			}
		}
	}
	tries := s.set(errors.New("something else"), 0)
	until("tried again", func() bool { return s.tries >= tries+4 })
	const room = uploadWindow
	s.set(nil, room)
	until("taken", func() bool { return len(s.took) == room })
	if !slices.IsSorted(s.took) || s.took[0] != s.oldest {
		t.Errorf("space went to %v, the oldest is %s", s.took, s.oldest)
	}
	until("committed", func() bool { return v.up.committed.Load() > 0 })
	s.set(nil, 1000)
	writeAgain(t, v)
	wantVersion(t, v, block, 5)
	if err := v.up.behind(); err != nil {
		t.Errorf("everything is stored: %v", err)
	}
}

// TestStarvedOfChunks: a vDisk that finds all chunks in use by another one, which has no
// reason to commit yet, gets one soon.
func TestStarvedOfChunks(t *testing.T) {
	ctx := context.Background()
	w := newWorld(41)
	w.opts.JournalBytes = 4 * w.opts.ChunkBytes
	w.settings.StallTimeout = 20 * time.Second
	n := w.mustStart(t)
	n.create(testID(1), 4<<20)
	n.create(testID(2), 4<<20)
	a, b := n.open(testID(1)), n.open(testID(2))
	mustWrite(t, b, 0, 1)
	// All chunks but that of b and the one kept for newcomers.
	for off := int64(0); a.journal.Bytes() < 2*w.opts.ChunkBytes; off += 64 << 10 {
		if err := a.WriteAt(ctx, versions(off, 64<<10, func(int64) uint32 { return 1 }), off); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	for i := range int64(100) { // more than its chunk takes
		mustWrite(t, b, i*4096, uint32(i)+2)
	}
	if d := time.Since(began); d > w.settings.StallTimeout/2 {
		t.Errorf("waited %s", d)
	}
	n.close()
}
