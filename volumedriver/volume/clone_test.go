package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
)

func (n *node) clone(id, source ID, from Point, size int64) {
	n.t.Helper()
	s := CloneSpec{ID: id, Name: fmt.Sprintf("clone-%d", id[0]), Source: source, From: from, Size: size}
	if err := n.pool.Clone(context.Background(), s); err != nil {
		n.t.Fatal(err)
	}
}

// objects returns how many objects of a vDisk are on the backend.
func (n *node) objects(id ID) int {
	n.t.Helper()
	l, err := n.store.List(context.Background(), vdiskPrefix(id)+"/", "", 10000)
	if err != nil {
		n.t.Fatal(err)
	}
	return len(l)
}

func (n *node) record(id ID) Record {
	n.t.Helper()
	rec, err := n.w.reg.Load(context.Background(), id)
	if err != nil {
		n.t.Fatal(err)
	}
	return rec
}

// wantClones checks that counts and records agree.
func (n *node) wantClones(id ID, want int) {
	n.t.Helper()
	l, err := n.pool.Clones(context.Background(), id)
	if rec := n.record(id); err != nil || len(l) != want || rec.Clones != want {
		n.t.Fatalf("%v: %d clones, counted %d, want %d", err, len(l), rec.Clones, want)
	}
}

// TestClone: from a snapshot, from now, from a moment, of an open and of a closed
// vDisk, larger than the source; each goes its own way from there.
func TestClone(t *testing.T) {
	w := watched(t, 51)
	a, fromSnap, fromNow, fromMoment, grand := testID(1), testID(2), testID(3), testID(4), testID(5)
	n := w.mustStart(t)
	n.create(a, 1<<20)
	v := n.open(a)
	mustWrite(t, v, 0, 1)
	mustWrite(t, v, 4096, 1)
	mustSnapshot(t, v, "one")
	mustWrite(t, v, 0, 2)
	n.clone(fromSnap, a, Point{Snapshot: "one"}, 2<<20) // not on the backend yet
	mustCommit(t, v)
	moment := time.Now()
	mustWrite(t, v, 0, 3)
	mustWrite(t, v, 8192, 3)
	n.clone(fromNow, a, Point{}, 0)
	mustWrite(t, v, 0, 4)
	mustCommit(t, v) // the parent goes on committing
	n.clone(fromMoment, a, Point{At: moment}, 0)
	n.wantClones(a, 3)
	s, c, m := n.open(fromSnap), n.open(fromNow), n.open(fromMoment)
	if s.Size() != 2<<20 || c.Size() != 1<<20 {
		t.Fatalf("sizes %d %d", s.Size(), c.Size())
	}
	check := func(v *Volume, at0, at4, at8, at12 uint32) {
		t.Helper()
		for i, ver := range []uint32{at0, at4, at8, at12} {
			wantVersion(t, v, int64(i)*4096, ver)
		}
	}
	check(s, 1, 1, 0, 0)
	wantVersion(t, s, 2<<20-4096, 0)
	check(c, 3, 1, 3, 0)
	check(m, 2, 1, 0, 0)
	mustWrite(t, s, 2<<20-4096, 5)
	mustWrite(t, s, 4096, 5)
	mustWrite(t, c, 12288, 6)
	if err := c.Unmap(context.Background(), 0, 4096); err != nil {
		t.Fatal(err)
	}
	check(v, 4, 1, 3, 0)
	check(s, 1, 5, 0, 0)
	check(c, 0, 1, 3, 6)
	mustSnapshot(t, c, "of the clone")
	n.clone(grand, fromNow, Point{Snapshot: "of the clone"}, 0)
	mustWrite(t, c, 0, 7)
	n.close()
	n = w.mustStart(t)
	g := n.open(grand)
	check(g, 0, 1, 3, 6)
	if len(g.chain) != 3 {
		t.Fatalf("a chain of %d", len(g.chain))
	}
	mustWrite(t, g, 4096, 8)
	mustCommit(t, g)
	n.kill()
	n = w.mustStart(t)
	check(n.open(grand), 0, 8, 3, 6)
	check(n.open(fromNow), 7, 1, 3, 6)
	check(n.open(fromSnap), 1, 5, 0, 0)
	wantVersion(t, n.pool.Volume(fromSnap), 2<<20-4096, 5)
	check(n.open(fromMoment), 2, 1, 0, 0)
	n.close()
	n = w.mustStart(t)
	if _, err := n.pool.Rollback(context.Background(), fromNow, Point{At: n.created(fromNow)}); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), grand.String()) {
		t.Fatalf("rollback below a clone: %v", err)
	}
	mustRollback(t, n, fromNow, Point{Snapshot: "of the clone"}) // the clone starts right there
	check(n.open(fromNow), 0, 1, 3, 6)
	mustRollback(t, n, fromSnap, Point{At: n.created(fromSnap)}) // what it started with
	check(n.open(fromSnap), 1, 1, 0, 0)
	n.close()
}

// TestCloneShares: clones read the objects of their parent through one cache, and
// their maps share its pages.
func TestCloneShares(t *testing.T) {
	w := newWorld(52)
	a := testID(1)
	n := w.mustStart(t)
	n.create(a, 4<<20)
	v := n.open(a)
	for c := range int64(1024) {
		mustWrite(t, v, c*4096, uint32(c+1))
	}
	n.clone(testID(2), a, Point{}, 0)
	n.clone(testID(3), a, Point{}, 0)
	one, two := n.open(testID(2)), n.open(testID(3))
	if one.parent != two.parent {
		t.Fatal("two frozen maps of one point")
	}
	if got := one.base.MemoryBytes(); got > 1000 {
		t.Fatalf("a clone's map takes %d bytes", got)
	}
	wantVersion(t, one, 40960, 11)
	_, misses, _ := n.host.cache.Stats()
	wantVersion(t, two, 40960, 11)
	if _, again, _ := n.host.cache.Stats(); again != misses {
		t.Fatalf("the second clone read the backend: %d misses, then %d", misses, again)
	}
	n.close()
}

// TestDeleteParent: a parent that is deleted stays on the backend as long as a clone
// needs it, whatever is restarted and recovered meanwhile, and goes with the last.
func TestDeleteParent(t *testing.T) {
	ctx := context.Background()
	w := newWorld(53)
	a, b, c, d := testID(1), testID(2), testID(3), testID(4)
	n := w.mustStart(t)
	n.create(a, 1<<20)
	mustWrite(t, n.open(a), 0, 1)
	n.clone(b, a, Point{}, 0)
	mustWrite(t, n.open(b), 4096, 2)
	n.clone(c, b, Point{}, 0)
	n.clone(d, b, Point{}, 0)
	n.close()
	n = w.mustStart(t)
	for _, id := range []ID{a, b, b} { // the second time is no error
		if err := n.pool.Delete(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n.pool.Open(ctx, a); !errors.Is(err, ErrNotFound) {
		t.Fatalf("open of a deleted parent: %v", err)
	}
	if err := n.pool.Clone(ctx, CloneSpec{ID: testID(9), Source: b}); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "being deleted") {
		t.Fatalf("clone of a deleted vDisk: %v", err)
	}
	if err := n.pool.Purge(ctx); err != nil {
		t.Fatal(err)
	}
	for _, id := range []ID{c, d} {
		v := n.open(id)
		wantVersion(t, v, 0, 1)
		wantVersion(t, v, 4096, 2)
		mustWrite(t, v, 8192, 3)
	}
	n.close()
	w.reg = newMemRegistry() // all of the registry is lost
	w.fs = newWorld(0).fs
	n = w.mustStart(t)
	found, err := n.pool.Recover(ctx)
	if err != nil || len(found) != 2 {
		t.Fatalf("%v: %+v", err, found)
	}
	n.wantClones(a, 1)
	n.wantClones(b, 2)
	if err := n.pool.Purge(ctx); err != nil {
		t.Fatal(err)
	}
	for _, id := range []ID{c, d} {
		wantVersion(t, n.open(id), 0, 1)
		if err := n.pool.Volume(id).Close(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.pool.Delete(ctx, c); err != nil {
		t.Fatal(err)
	}
	n.wantClones(b, 1)
	wantVersion(t, n.open(d), 4096, 2)
	if err := n.pool.Volume(d).Close(ctx); err != nil {
		t.Fatal(err)
	}
	if err := n.pool.Delete(ctx, d); err != nil {
		t.Fatal(err)
	}
	for _, id := range []ID{a, b, c, d} {
		if _, err := w.reg.Load(ctx, id); !errors.Is(err, ErrNotFound) || n.objects(id) != 0 {
			t.Fatalf("vdisk %s is there: %v, %d objects", id, err, n.objects(id))
		}
	}
	n.close()
}

// TestFlatten: a flattened clone holds what it held, as do its snapshots and
// moments, and the parent can go. It goes on where it was cut off.
func TestFlatten(t *testing.T) {
	ctx := context.Background()
	w := watched(t, 54)
	a, b := testID(1), testID(2)
	n := w.mustStart(t)
	n.create(a, 12<<20)
	v := n.open(a)
	for c := range int64(2600) { // more SCOs than one step commits
		mustWrite(t, v, c*4096, uint32(c+1))
	}
	n.clone(b, a, Point{}, 16<<20)
	n.close()
	n = w.mustStart(t)
	if err := n.pool.Delete(ctx, a); err != nil {
		t.Fatal(err)
	}
	v = n.open(b)
	mustWrite(t, v, 0, 9001)
	mustSnapshot(t, v, "one")
	mustWrite(t, v, 4096, 9002)
	if err := v.Unmap(ctx, 8192, 4096); err != nil {
		t.Fatal(err)
	}
	cut, cancel := context.WithCancel(ctx)
	err := v.Flatten(cut, func(done, total int64) {
		if done > 0 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("cut off: %v", err)
	}
	check := func(v *Volume, at0, at4, at8 uint32) {
		t.Helper()
		wantVersion(t, v, 0, at0)
		wantVersion(t, v, 4096, at4)
		wantVersion(t, v, 8192, at8)
		for c := int64(3); c < 2600; c += 13 {
			wantVersion(t, v, c*4096, uint32(c+1))
		}
		wantVersion(t, v, 12<<20, 0)
	}
	check(v, 9001, 9002, 0)
	n.kill()
	n = w.mustStart(t)
	v = n.open(b)
	check(v, 9001, 9002, 0)
	var first, last int64
	if err := v.Flatten(ctx, func(done, total int64) {
		if first == 0 {
			first = done
		}
		last = done
		if total != 2600*4096 {
			t.Fatalf("%d in all", total)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if first == 0 || last != 2600*4096 {
		t.Fatalf("it went from %d to %d", first, last)
	}
	check(v, 9001, 9002, 0)
	if _, err := w.reg.Load(ctx, a); !errors.Is(err, ErrNotFound) || n.objects(a) != 0 {
		t.Fatalf("the parent is there: %v, %d objects", err, n.objects(a))
	}
	if rec := n.record(b); rec.Parent != nil {
		t.Fatalf("%+v", rec)
	}
	mustWrite(t, v, 12<<20, 9003)
	if err := v.Flatten(ctx, nil); err != nil { // nothing is left to do
		t.Fatal(err)
	}
	wantVersion(t, v, 12<<20, 9003)
	n.close()
	n = w.mustStart(t)
	v = n.open(b)
	wantVersion(t, v, 12<<20, 9003)
	mustWrite(t, v, 12<<20, 0)
	check(v, 9001, 9002, 0)
	n.close()
	n = w.mustStart(t)
	mustRollback(t, n, b, Point{Snapshot: "one"})
	check(n.open(b), 9001, 2, 3)
	if err := n.pool.Volume(b).Close(ctx); err != nil {
		t.Fatal(err)
	}
	mustRollback(t, n, b, Point{At: n.created(b)})
	check(n.open(b), 1, 2, 3)
	n.close()
	w.fs, w.reg = newWorld(0).fs, newMemRegistry()
	n = w.mustStart(t)
	if found, err := n.pool.Recover(ctx); err != nil || len(found) != 1 {
		t.Fatalf("%v: %+v", err, found)
	}
	check(n.open(b), 1, 2, 3)
	n.close()
}

// TestFlattenRefused: while clones read through it, and twice at a time.
func TestFlattenRefused(t *testing.T) {
	ctx := context.Background()
	w := newWorld(55)
	a, b, c := testID(1), testID(2), testID(3)
	n := w.mustStart(t)
	n.create(a, 1<<20)
	mustWrite(t, n.open(a), 0, 1)
	n.clone(b, a, Point{}, 0)
	n.clone(c, b, Point{}, 0)
	v := n.open(b)
	if err := v.Flatten(ctx, nil); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "flatten or delete") {
		t.Fatalf("with a clone: %v", err)
	}
	wantVersion(t, n.open(c), 0, 1)
	if err := n.pool.Volume(c).Close(ctx); err != nil {
		t.Fatal(err)
	}
	if err := n.pool.Delete(ctx, c); err != nil {
		t.Fatal(err)
	}
	if err := v.Flatten(ctx, func(done, total int64) {
		if err := v.Flatten(ctx, nil); !errors.Is(err, ErrInUse) {
			t.Errorf("twice: %v", err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	n.wantClones(a, 0)
	wantVersion(t, v, 0, 1)
	// A clone that appears while the copy runs: it keeps what it needs.
	d, e := testID(4), testID(5)
	n.clone(d, a, Point{}, 0)
	v = n.open(d)
	if err := v.Flatten(ctx, func(done, total int64) {
		if done == 0 {
			n.clone(e, d, Point{}, 0)
			wantVersion(t, n.open(e), 0, 1)
		}
	}); !errors.Is(err, ErrInUse) {
		t.Fatalf("a clone meanwhile: %v", err)
	}
	n.wantClones(a, 1)
	wantVersion(t, v, 0, 1)
	wantVersion(t, n.pool.Volume(e), 0, 1)
	mustWrite(t, n.pool.Volume(e), 4096, 2)
	n.close()
	n = w.mustStart(t)
	wantVersion(t, n.open(e), 0, 1)
	if err := n.pool.Volume(e).Flatten(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if err := n.open(d).Flatten(ctx, nil); err != nil {
		t.Fatal(err)
	}
	n.wantClones(a, 0)
	n.wantClones(d, 0)
	n.close()
}

// TestTemplate: frozen, cloned, thawed.
func TestTemplate(t *testing.T) {
	ctx := context.Background()
	w := watched(t, 56)
	a := testID(1)
	n := w.mustStart(t)
	n.create(a, 1<<20)
	v := n.open(a)
	mustWrite(t, v, 0, 1)
	if err := n.pool.SetTemplate(ctx, a, true); !errors.Is(err, ErrInUse) {
		t.Fatalf("while open: %v", err)
	}
	n.kill()
	n = w.mustStart(t)
	for range 2 {
		if err := n.pool.SetTemplate(ctx, a, true); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n.pool.Open(ctx, a); !errors.Is(err, ErrTemplate) || !strings.Contains(err.Error(), "clone it") {
		t.Fatalf("open: %v", err)
	}
	if _, err := n.pool.Rollback(ctx, a, Point{At: n.created(a)}); !errors.Is(err, ErrTemplate) {
		t.Fatalf("rollback: %v", err)
	}
	for i := range byte(5) {
		n.clone(testID(10+i), a, Point{}, 0)
		v := n.open(testID(10 + i))
		wantVersion(t, v, 0, 1)
		mustWrite(t, v, 4096, uint32(i)+2)
	}
	n.close()
	w.reg = newMemRegistry()
	n = w.mustStart(t)
	found, err := n.pool.Recover(ctx)
	if err != nil || len(found) != 6 {
		t.Fatalf("%v: %+v", err, found)
	}
	for _, r := range found {
		if r.Template != (r.ID == a) || (r.Parent == a) != (r.ID != a) || r.ParentMissing {
			t.Fatalf("%+v", r)
		}
	}
	n.wantClones(a, 5)
	wantVersion(t, n.open(testID(12)), 4096, 4)
	if err := n.pool.SetTemplate(ctx, a, false); err != nil {
		t.Fatal(err)
	}
	v = n.open(a)
	mustWrite(t, v, 0, 7)
	mustCommit(t, v)
	wantVersion(t, n.open(testID(13)), 0, 1)
	n.close()
}

// TestCloneRefused: each refusal names the object and what to do, and leaves
// everything as it was.
func TestCloneRefused(t *testing.T) {
	ctx := context.Background()
	w := newWorld(57)
	a, x := testID(1), testID(9)
	n := w.mustStart(t)
	n.create(a, 1<<20)
	v := n.open(a)
	mustWrite(t, v, 0, 1)
	mustSnapshot(t, v, "one")
	if err := v.Grow(ctx, 2<<20); err != nil {
		t.Fatal(err)
	}
	n.create(testID(2), 1<<20)
	before := n.record(a)
	for _, c := range []struct {
		s    CloneSpec
		want error
		text string
	}{
		{CloneSpec{ID: x, Source: a, Size: 1 << 20}, ErrInvalid, "as large or larger"},
		{CloneSpec{ID: x, Source: a, From: Point{Snapshot: "one"}, Size: 512 << 10}, ErrInvalid, "as large or larger"},
		{CloneSpec{ID: x, Source: a, Size: 2<<20 + 512}, ErrInvalid, "multiple"},
		{CloneSpec{ID: x, Source: a, From: Point{Snapshot: "two"}}, ErrNoPoint, `"two"`},
		{CloneSpec{ID: x, Source: a, From: Point{At: time.Now().Add(-time.Hour)}}, ErrNoPoint, "outside its history"},
		{CloneSpec{ID: x, Source: a, From: Point{Snapshot: "one", At: time.Now()}}, ErrInvalid, "not both"},
		{CloneSpec{ID: x, Source: testID(8)}, ErrNotFound, testID(8).String()},
		{CloneSpec{ID: a, Source: a}, ErrInvalid, "itself"},
		{CloneSpec{ID: testID(2), Source: a}, ErrExists, testID(2).String()},
	} {
		if err := n.pool.Clone(ctx, c.s); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%+v: %v", c.s, err)
		}
		if rec := n.record(a); rec.Clones != before.Clones || rec.CloneGen != before.CloneGen {
			t.Errorf("%+v: refused, but counted", c.s)
		}
		if _, err := w.reg.Load(ctx, x); !errors.Is(err, ErrNotFound) {
			t.Errorf("%+v: refused, but a record is there", c.s)
		}
	}
	n.clone(x, a, Point{Snapshot: "one"}, 0)
	if err := n.pool.Create(ctx, Spec{ID: x, Size: 1 << 20}); !errors.Is(err, ErrExists) {
		t.Errorf("create over a clone: %v", err)
	}
	mustWrite(t, v, 0, 2)
	n.kill() // the source is not closed in order
	n = w.mustStart(t)
	if err := n.pool.Clone(ctx, CloneSpec{ID: testID(7), Source: a}); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "open it") {
		t.Errorf("now of a source that crashed: %v", err)
	}
	n.clone(testID(7), a, Point{Snapshot: "one"}, 0) // what is on the backend can be cloned
	wantVersion(t, n.open(testID(7)), 0, 1)
	n.close()
}

// TestCloneAway: once a clone was open on a host it opens there while the backend is
// away, takes writes, and reads all of its chain when the backend is back. The maps
// that are kept for this may be damaged or of another log: then they are not used.
func TestCloneAway(t *testing.T) {
	ctx := context.Background()
	w := newWorld(59)
	away := withAway(w)
	a, b, c := testID(1), testID(2), testID(3)
	n := w.mustStart(t)
	n.create(a, 4<<20)
	v := n.open(a)
	mustWrite(t, v, 0, 1)
	mustWrite(t, v, 600*4096, 1)
	n.clone(b, a, Point{}, 0)
	v = n.open(b)
	mustWrite(t, v, 4096, 2)
	n.clone(c, b, Point{}, 0)
	v = n.open(c)
	mustWrite(t, v, 8192, 3)
	mustCommit(t, v)
	mustWrite(t, v, 12288, 4)
	n.kill()
	for round, damage := range []func(){
		func() {},
		func() { // the one with no checkpoint of its own
			if err := w.fs.Remove(localCheckpoint(c)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
		},
	} {
		damage()
		n = w.mustStart(t)
		away.Store(true)
		v = n.open(c)
		wantVersion(t, v, 12288, 4)
		mustWrite(t, v, 16384, uint32(5+round))
		away.Store(false)
		for off, ver := range map[int64]uint32{0: 1, 600 * 4096: 1, 4096: 2, 8192: 3, 16384: uint32(5 + round)} {
			wantVersion(t, v, off, ver)
		}
		n.kill()
	}
	files, err := w.fs.List(baseDir)
	if err != nil || len(files) != 6 {
		t.Fatalf("%v: %v", err, files)
	}
	for _, e := range files { // a changed byte
		path := baseDir + "/" + e.Name
		p, err := blockfs.ReadFile(w.fs, path, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		p[len(p)/2] ^= 0x10
		if err := blockfs.WriteFile(w.fs, path, p); err != nil {
			t.Fatal(err)
		}
	}
	n = w.mustStart(t)
	away.Store(true)
	cctx, cancel := context.WithTimeout(ctx, time.Second)
	_, err = n.pool.Open(cctx, c)
	cancel()
	if !errors.Is(err, ErrBackend) {
		t.Fatalf("with damaged maps: %v", err)
	}
	away.Store(false)
	v = n.open(c)
	wantVersion(t, v, 0, 1)
	wantVersion(t, v, 4096, 2)
	if err := v.Flatten(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(ctx); err != nil {
		t.Fatal(err)
	}
	for _, id := range []ID{c, b, a} {
		if err := n.pool.Delete(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	if files, err = w.fs.List(baseDir); err != nil || len(files) != 0 {
		t.Fatalf("left: %v %v", files, err)
	}
	n.close()
}

// TestFlattenKeepsHistory: what a rollback of the clone left behind before it was
// flattened still has what the clone inherited.
func TestFlattenKeepsHistory(t *testing.T) {
	ctx := context.Background()
	w := newWorld(66)
	a, b := testID(1), testID(2)
	n := w.mustStart(t)
	n.create(a, 1<<20)
	mustWrite(t, n.open(a), 0, 1)
	n.clone(b, a, Point{}, 0)
	v := n.open(b)
	mustSnapshot(t, v, "start")
	mustWrite(t, v, 4096, 2)
	mustCommit(t, v)
	moment := time.Now()
	n.close()
	n = w.mustStart(t)
	mustRollback(t, n, b, Point{Snapshot: "start"})
	v = n.open(b)
	wantVersion(t, v, 4096, 0)
	if err := v.Flatten(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if err := n.pool.Delete(ctx, a); err != nil {
		t.Fatal(err)
	}
	mustRollback(t, n, b, Point{At: moment})
	v = n.open(b)
	wantVersion(t, v, 0, 1)
	wantVersion(t, v, 4096, 2)
	n.close()
}
