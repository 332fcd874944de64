package volume

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
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
	"github.com/openvstorage/ovgate/volumedriver/blockmap"
)

// refusing is a store that does not have the objects of a kind.
type refusing struct {
	backend.Store
	refused atomic.Pointer[func(name string) bool]
	asked   atomic.Int64
}

func (r *refusing) no(name string) error {
	if f := r.refused.Load(); f != nil && (*f)(name) {
		r.asked.Add(1)
		return fmt.Errorf("%s: %w", name, backend.ErrNotExist)
	}
	return nil
}

func (r *refusing) Get(ctx context.Context, name string, limit int64) ([]byte, error) {
	if err := r.no(name); err != nil {
		return nil, err
	}
	return r.Store.Get(ctx, name, limit)
}

func (r *refusing) ReadAt(ctx context.Context, name string, p []byte, off int64) error {
	if err := r.no(name); err != nil {
		return err
	}
	return r.Store.ReadAt(ctx, name, p, off)
}

func refuse(w *world) *refusing {
	r := &refusing{}
	w.wrapStore = func(st backend.Store) (backend.Store, error) {
		r.Store = st
		return r, nil
	}
	return r
}

func (r *refusing) set(f func(name string) bool) {
	if f == nil {
		r.refused.Store(nil)
		return
	}
	r.refused.Store(&f)
}

// mapWorld is a vDisk of 8 map pages with some history.
func mapWorld(t *testing.T, w *world) (*node, *Volume, ID, map[int64]uint32) {
	t.Helper()
	id := testID(1)
	n := w.mustStart(t)
	n.create(id, 16<<20)
	v := n.open(id)
	want := map[int64]uint32{}
	history(t, v, want, 1, 14)
	waitCheckpoint(t, v)
	return n, v, id, want
}

// history writes some clusters and commits, again and again.
func history(t *testing.T, v *Volume, want map[int64]uint32, seed uint64, commits int) {
	t.Helper()
	r := mrand.New(mrand.NewPCG(seed, 21))
	for i := range commits {
		for k := range 12 {
			off := r.Int64N(16<<20/4096) * 4096
			ver := uint32(seed)*100000 + uint32(i*100+k) + 1
			if k == 11 {
				if err := v.Unmap(context.Background(), off, 4096); err != nil {
					t.Fatal(err)
				}
				want[off] = 0
				continue
			}
			mustWrite(t, v, off, ver)
			want[off] = ver
		}
		mustCommit(t, v)
	}
}

// waitCheckpoint waits until a committed head names a checkpoint.
func waitCheckpoint(t *testing.T, v *Volume) *MapRef {
	t.Helper()
	for deadline := time.Now().Add(hangLimit); ; time.Sleep(time.Millisecond) {
		if m := v.committedState.Load().head.Map; m != nil {
			return m
		}
		if time.Now().After(deadline) {
			t.Fatal("no head names a checkpoint")
		}
	}
}

func wantAll(t *testing.T, v *Volume, want map[int64]uint32) {
	t.Helper()
	for off, ver := range want {
		wantVersion(t, v, off, ver)
	}
}

// forget takes the local copies of a vDisk away, as a new machine would be without.
func forget(t testing.TB, w *world, id ID) {
	t.Helper()
	if err := removeTree(w.fs, stateDir(id)); err != nil {
		t.Fatal(err)
	}
}

func isTLog(name string) bool { return strings.Contains(name, tlogDir) }

// TestRestartFromBackend: a vDisk whose local state is gone starts from the checkpoint
// on the backend, without a TLog of the time before it.
func TestRestartFromBackend(t *testing.T) {
	w := newBusyWorld(71)
	r := refuse(w)
	n, v, id, want := mapWorld(t, w)
	ref := waitCheckpoint(t, v)
	old := tlogName(id, v.this, ref.NextTLog)
	n.close()
	forget(t, w, id)
	n = w.mustStart(t)
	r.set(func(name string) bool { return isTLog(name) && name < old })
	v = n.open(id)
	if got := v.Stats(); got.MapMemoryBytes > 64<<10 {
		t.Fatalf("a map of %d bytes, nothing of which was read", got.MapMemoryBytes)
	}
	wantAll(t, v, want)
	if r.asked.Load() != 0 {
		t.Fatalf("%d TLogs before the checkpoint were asked for", r.asked.Load())
	}
	history(t, v, want, 2, 9)
	wantAll(t, v, want)
	n.close()
	// And once more, from a checkpoint that has segments of both openings.
	forget(t, w, id)
	n = w.mustStart(t)
	v = n.open(id)
	wantAll(t, v, want)
	n.close()
}

// TestCheckpointVoid: what replaces runs of the log voids the checkpoint by that, and
// the next one takes its place.
func TestCheckpointVoid(t *testing.T) {
	ctx := context.Background()
	w := newBusyWorld(72)
	n, v, id, want := mapWorld(t, w)
	before := mapsOf(want)
	mustSnapshot(t, v, "s")
	history(t, v, want, 3, 8)
	waitCheckpoint(t, v)
	if err := v.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := n.pool.Rollback(ctx, id, Point{Snapshot: "s"}); err != nil {
		t.Fatal(err)
	}
	n.close()
	forget(t, w, id)
	n = w.mustStart(t)
	v = n.open(id)
	for off := range want {
		wantVersion(t, v, off, before[off])
	}
	history(t, v, before, 4, 8)
	for deadline := time.Now().Add(hangLimit); ; {
		m := v.committedState.Load().head.Map
		if m != nil && m.Epoch == v.this.Epoch {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no new checkpoint after the rollback")
		}
		time.Sleep(time.Millisecond)
	}
	n.close()
	forget(t, w, id)
	n = w.mustStart(t)
	v = n.open(id)
	wantAll(t, v, before)
	n.close()
}

// TestCheckpointAfterScrub: a scrub voids the checkpoints; it has new ones made, which an
// open without local state starts from.
func TestCheckpointAfterScrub(t *testing.T) {
	w := newBusyWorld(79)
	r := refuse(w)
	n, v, id, want := mapWorld(t, w)
	history(t, v, want, 2, 20)
	if res := mustScrub(t, v, ScrubOptions{}); res.Units == 0 {
		t.Fatalf("%+v", res)
	}
	var ref *MapRef
	for deadline := time.Now().Add(hangLimit); ; time.Sleep(time.Millisecond) {
		st := v.committedState.Load()
		line := st.line([16]byte{}, 0)
		if ref = st.head.Map; ref != nil && ref.Line == hex.EncodeToString(line[:]) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no checkpoint of the new log: %+v", ref)
		}
	}
	old := v.this
	n.close()
	forget(t, w, id)
	n = w.mustStart(t)
	r.set(func(name string) bool {
		return isTLog(name) && (name < tlogName(id, old, ref.NextTLog) || strings.Contains(name, "/tlog/8"))
	})
	v = n.open(id)
	wantAll(t, v, want)
	if r.asked.Load() != 0 {
		t.Fatalf("%d TLogs that the checkpoint has were asked for", r.asked.Load())
	}
	n.close()
}

// TestSweepCheckpoints: a sweep knows the objects of the map, and lets go of those that
// no head names once the vDisk is closed.
func TestSweepCheckpoints(t *testing.T) {
	ctx := context.Background()
	w := newBusyWorld(80)
	n, v, id, want := mapWorld(t, w)
	stray := []string{mapName(id, MapRef{Epoch: 1, Nonce: 77, Number: 3}), segmentName(id, &blockmap.Segment{Number: 9, Epoch: 1, Nonce: 77})}
	for _, name := range stray {
		if err := n.store.Put(ctx, name, []byte("left behind")); err != nil {
			t.Fatal(err)
		}
	}
	n.sweepClean()
	if err := v.Close(ctx); err != nil {
		t.Fatal(err)
	}
	unknown := vdiskPrefix(id) + pageDir + "0000001-00000001-00000001"
	if err := n.store.Put(ctx, unknown, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if res, err := n.pool.Sweep(ctx, false); !errors.Is(err, ErrCorrupt) || res.Deleted != 0 {
		t.Fatalf("%+v %v", res, err)
	}
	if err := n.store.Delete(ctx, unknown); err != nil {
		t.Fatal(err)
	}
	res, err := n.pool.Sweep(ctx, false)
	if err != nil || res.Deleted != res.Garbage {
		t.Fatalf("%+v %v", res, err)
	}
	var gone []string
	for _, d := range res.Doomed {
		if strings.Contains(d.Name, mapDir) || strings.Contains(d.Name, pageDir) {
			gone = append(gone, d.Name)
		}
	}
	for _, name := range stray {
		if !slices.Contains(gone, name) {
			t.Errorf("%s stayed", name)
		}
	}
	n.close()
	forget(t, w, id)
	n = w.mustStart(t)
	v = n.open(id)
	wantAll(t, v, want)
	n.sweepClean()
	n.close()
}

func mapsOf(m map[int64]uint32) map[int64]uint32 {
	out := map[int64]uint32{}
	for k, v := range m {
		out[k] = v
	}
	return out
}

// TestCheckpointObjects: whatever was superseded or never came to be named is deleted,
// and what the head names is there.
func TestCheckpointObjects(t *testing.T) {
	ctx := context.Background()
	w := newBusyWorld(73)
	n, v, id, want := mapWorld(t, w)
	for round := range 4 {
		history(t, v, want, uint64(10+round), 5)
		if round%2 == 0 {
			n.kill() // with a checkpoint on its way, most likely
		} else {
			n.close()
		}
		n = w.mustStart(t)
		v = n.open(id)
	}
	history(t, v, want, 20, 8)
	// Until the last checkpoint is named and what it superseded is deleted.
	var extra []string
	for deadline := time.Now().Add(hangLimit); ; time.Sleep(5 * time.Millisecond) {
		history(t, v, want, 21, 1)
		var need []string
		h := v.committedState.Load().head
		if h.Map != nil {
			b, err := n.store.Get(ctx, mapName(id, *h.Map), maxIndexBytes)
			if errors.Is(err, backend.ErrNotExist) {
				continue // superseded meanwhile
			}
			if err != nil {
				t.Fatal(err)
			}
			x, err := blockmap.DecodeIndex(b, nil)
			if err != nil {
				t.Fatal(err)
			}
			need = append(need, mapName(id, *h.Map))
			for _, s := range x.Segments {
				need = append(need, segmentName(id, s))
			}
		}
		extra = extra[:0]
		for _, dir := range []string{mapDir, pageDir} {
			l, err := n.store.List(ctx, vdiskPrefix(id)+dir, "", 1000)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range l {
				if i := slices.Index(need, o.Name); i >= 0 {
					need = slices.Delete(need, i, i+1)
				} else {
					extra = append(extra, o.Name)
				}
			}
		}
		if v.committedState.Load().head.Map != h.Map {
			continue
		}
		if len(need) > 0 {
			t.Fatalf("the head names %q, which are not there", need)
		}
		if len(extra) == 0 && h.Map != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("left behind: %q", extra)
		}
	}
	wantAll(t, v, want)
	n.close()
	local, err := w.fs.List(stateDir(id))
	if err != nil {
		t.Fatal(err)
	}
	var bytes int64
	for _, e := range local {
		if strings.HasPrefix(e.Name, segmentPrefix) {
			bytes += e.Size
		}
	}
	// 8 pages: twice that in large segments, and a few small ones with a header each.
	if most := int64(2*8*blockmap.PageBytes + (smallSegments+2)*blockmap.SegmentHeader); bytes > most {
		t.Fatalf("segments of %d bytes on local disk for 8 pages, want at most %d", bytes, most)
	}
}

// damageFiles changes the middle of every file with a prefix, or removes it.
func damageFiles(t testing.TB, fsys blockfs.FS, dir, prefix string, remove bool) {
	t.Helper()
	list, err := fsys.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if !strings.HasPrefix(e.Name, prefix) {
			continue
		}
		path := dir + "/" + e.Name
		if remove {
			err = fsys.Remove(path)
		} else {
			var p []byte
			if p, err = blockfs.ReadFile(fsys, path, 64<<20); err == nil {
				for at := blockmap.SegmentHeader + 100; at < len(p); at += blockmap.PageBytes {
					p[at] ^= 0x10
				}
				err = blockfs.WriteFile(fsys, path, p)
			}
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // a checkpoint may have removed it
			t.Fatal(err)
		}
	}
}

// TestMapPagesDamaged: a page is read from local disk, the backend or the TLogs, whichever
// has it; if none does, the read fails and tells so.
func TestMapPagesDamaged(t *testing.T) {
	for _, remove := range []bool{false, true} {
		w := newBusyWorld(74)
		r := refuse(w)
		n, v, id, want := mapWorld(t, w)
		damageFiles(t, w.fs, stateDir(id), segmentPrefix, remove)
		wantAll(t, v, want) // from the backend, or from TLogs where it lacks the newest
		r.set(func(name string) bool { return strings.Contains(name, pageDir) })
		wantAll(t, v, want) // from the TLogs
		mustWrite(t, v, 4096, 777)
		mustCommit(t, v) // changes a page that must be made anew
		want[4096] = 777
		n.kill()
		n = w.mustStart(t)
		v = n.open(id)
		damageFiles(t, w.fs, stateDir(id), segmentPrefix, remove)
		wantAll(t, v, want)
		damageFiles(t, w.fs, stateDir(id), "tlog-", true)
		r.set(func(name string) bool { return strings.Contains(name, pageDir) || isTLog(name) })
		failed := 0
		for off, ver := range want {
			p := make([]byte, 4096)
			err := v.ReadAt(context.Background(), p, off)
			switch {
			case err == nil:
				if got, err := sectorVersion(p, uint64(off/lbaBytes)); err != nil || got != ver {
					t.Fatalf("offset %d reads version %d (%v), want %d", off, got, err, ver)
				}
			case errors.Is(err, ErrMedium):
				failed++
			default:
				t.Fatal(err)
			}
		}
		if failed == 0 {
			t.Fatal("pages that nothing has were read")
		}
		if mapped, _ := v.Allocated(firstMapped(want)); !mapped {
			t.Fatal("a cluster whose page cannot be read counts as without data")
		}
		r.set(nil)
		wantAll(t, v, want) // it is back
		n.kill()
	}
}

func firstMapped(want map[int64]uint32) int64 {
	for off, ver := range want {
		if ver != 0 {
			return off
		}
	}
	return 0
}

// TestMapDiskFull: a data directory that takes no map pages costs memory up to twice
// the bound, then commits wait; writes go on, nothing is lost, all of it resumes.
func TestMapDiskFull(t *testing.T) {
	w := newBusyWorld(75)
	w.opts.MapMemoryBytes = 2 * blockmap.PageBytes
	w.opts.Clock = fastClock{time.Now(), 1000}
	var full atomic.Bool
	w.wrapFS = func(fsys blockfs.FS) blockfs.FS {
		return blockfs.Inject(fsys, func(op blockfs.OpInfo) error {
			if full.Load() && op.Kind == blockfs.OpWrite && strings.Contains(op.Path, segmentPrefix) {
				return syscall.ENOSPC
			}
			return nil
		})
	}
	id := testID(1)
	n := w.mustStart(t)
	n.create(id, 16<<20)
	v := n.open(id)
	full.Store(true)
	want := map[int64]uint32{}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	committed, limit := 0, 5*time.Second // far above what one takes that does not wait
	for i := range int64(8) {            // a page each
		off := i * blockmap.PageEntries * 4096
		mustWrite(t, v, off, uint32(i)+1)
		want[off] = uint32(i) + 1
		cctx, ccancel := context.WithTimeout(ctx, limit)
		if err := v.Commit(cctx); err == nil {
			committed++
		} else {
			limit = 100 * time.Millisecond
		}
		ccancel()
		wantAll(t, v, want)
	}
	if s := v.Stats(); committed < 4 || committed == 8 || s.MapErr == "" || s.State != StateDegraded {
		t.Fatalf("%d commits, state %s, %q", committed, s.State, s.MapErr)
	}
	if u := n.host.Usage().Map; u.Dirty > 2*u.Max+blockmap.PageBytes {
		t.Fatalf("%+v", u)
	}
	full.Store(false)
	mustCommit(t, v)
	mustWrite(t, v, 4096, 99)
	want[4096] = 99
	mustCommit(t, v)
	if s := v.Stats(); s.MapErr != "" || s.State != StateRunning {
		t.Fatalf("state %s, %q, %q", s.State, s.Err, s.MapErr)
	}
	wantAll(t, v, want)
	n.close()
	n = w.mustStart(t)
	v = n.open(id)
	wantAll(t, v, want)
	n.close()
}

// TestMapRace: reads, writes, commits, snapshots and clones race with evictions and
// checkpoints.
func TestMapRace(t *testing.T) {
	ctx := context.Background()
	w := newBusyWorld(76)
	w.settings.CommitInterval = 100 * time.Millisecond
	id := testID(1)
	n := w.mustStart(t)
	const workers, clusters = 4, 2048
	n.create(id, workers*clusters*4096)
	v := n.open(id)
	var wg sync.WaitGroup
	rounds := uint32(400)
	if testing.Short() {
		rounds = 100
	}
	for k := range int64(workers) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := mrand.New(mrand.NewPCG(uint64(k), 5))
			have := map[int64]uint32{}
			p := make([]byte, 4096)
			for i := range rounds {
				off := (k*clusters + r.Int64N(clusters)) * 4096
				if err := write(t, v, off, i+1); err != nil {
					t.Error(err)
					return
				}
				have[off] = i + 1
				for off, ver := range have {
					if err := v.ReadAt(ctx, p, off); err != nil {
						t.Error(err)
						return
					}
					if got, err := sectorVersion(p, uint64(off/lbaBytes)); err != nil || got != ver {
						t.Errorf("offset %d reads version %d (%v), want %d", off, got, err, ver)
						return
					}
					if r.IntN(3) == 0 {
						break
					}
				}
			}
		}()
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for i := 0; ; i++ {
		select {
		case <-done:
			n.close()
			return
		default:
		}
		mustCommit(t, v)
		switch i % 10 {
		case 3:
			mustSnapshot(t, v, fmt.Sprint("s", i))
		case 7:
			c := numbered(i)
			n.clone(c, id, Point{}, 0)
			cv := n.open(c)
			mustWrite(t, cv, 0, 5)
			mustCommit(t, cv)
			wantVersion(t, cv, 0, 5)
			if err := cv.Close(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// checkpointScript is a workload of many commits.
func checkpointScript() (size int64, steps []step) {
	r := mrand.New(mrand.NewPCG(43, 7))
	size = 4 << 20 // two map pages
	for i := range 90 {
		s := randomStep(r, size, MinClusterSize, 16<<10, uint32(i+1))
		switch {
		case i%3 == 2:
			s = step{special: "commit"}
		case i == 40:
			s = step{special: "restart"}
		case i == 60:
			s = step{special: "kill"}
		}
		steps = append(steps, s)
	}
	return size, steps
}

// TestCrashCheckpoint crashes everywhere in a workload that makes a checkpoint every
// few writes. What is found must also be right without any local copy, and with every
// local map page damaged.
func TestCrashCheckpoint(t *testing.T) {
	size, steps := checkpointScript()
	(&crashRun{loss: func(w *world, point int64) {
		switch point % 3 {
		case 0:
			forget(t, w, testID(9))
		case 1:
			if _, err := w.fs.Stat(stateDir(testID(9))); err == nil {
				damageFiles(t, w.fs, stateDir(testID(9)), segmentPrefix, false)
			}
		}
	}}).test(t, size, steps)
}

// TestCleanHeadStays: a checkpoint that ends while the vDisk is closed does not take the
// clean head back.
func TestCleanHeadStays(t *testing.T) {
	ctx := context.Background()
	w := newBusyWorld(45)
	w.opts.checkpointTLogs = 1
	n := w.mustStart(t)
	id := testID(1)
	n.create(id, 1<<20)
	times := uint32(300)
	if testing.Short() {
		times = 60
	}
	for i := range times {
		v := n.open(id)
		mustWrite(t, v, int64(i%256)*4096, i+1)
		mustCommit(t, v)
		if err := v.Close(ctx); err != nil {
			t.Fatal(err)
		}
		o := &opening{p: n.pool, id: id}
		if err := o.learn(ctx); err != nil {
			t.Fatal(err)
		}
		o.abandon()
		if !o.head.Clean {
			t.Fatalf("closed %d times: the head is not clean", i+1)
		}
	}
	n.close()
}
