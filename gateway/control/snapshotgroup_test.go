package control

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/internal/kv"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// wholePart brings a part to rest, and has it go on; again, when a busy machine took longer
// for that than the vDisks wait.
func (b *bench) wholePart(p GroupPart, at func()) ([]GroupMember, error) {
	for try := 0; ; try++ {
		if err := b.RestGroup(b.t.Context(), p); err != nil {
			return nil, err
		}
		at()
		made, err := b.GoGroup(b.t.Context(), p.Snapshot.ID)
		if e, ok := err.(*Error); !ok || e.Code != CodeTimeout || try == 20 {
			return made, err
		}
		if err := b.UndoGroup(b.t.Context(), p.Snapshot.ID); err != nil {
			return nil, err
		}
	}
}

// TestGroupPart: vDisks are at rest for a group that another node leads until it goes on, gives
// up, or is not heard of; what was made is undone.
func TestGroupPart(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, t.TempDir(), &place{})
	b.gold(t.TempDir())
	one, two := b.disk("one"), b.disk("two")
	ids := []string{two.ID, one.ID}
	part := func(n byte, name string) GroupPart {
		return GroupPart{Snapshot: volume.SnapshotSpec{ID: volume.ID{15: n}, Name: name}, VDisks: ids, Size: 3}
	}
	has := func(want ...string) {
		t.Helper()
		for _, v := range []string{"one", "two"} {
			all, err := b.Snapshots(ctx, v)
			if err != nil || len(all) != len(want) {
				t.Fatalf("%s: %d snapshots, want %d: %v", v, len(all), len(want), err)
			}
			for i, s := range all {
				if s.Name != want[i] || s.Group != 3 {
					t.Errorf("%s: %+v", v, s)
				}
			}
		}
	}
	write := func() {
		t.Helper()
		for _, id := range ids {
			if err := b.volume(id).WriteAt(ctx, filled(1), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	making := func(n byte) { // as its leader does
		t.Helper()
		if err := b.model.AddSnapshotGroup(ctx, model.SnapshotGroup{ID: volume.ID{15: n}.String(), Node: "leader", State: model.GroupMaking, VDisks: ids}); err != nil {
			t.Fatal(err)
		}
	}
	decided := func(n byte) {
		t.Helper()
		if err := b.model.RemoveSnapshotGroup(ctx, volume.ID{15: n}.String()); err != nil {
			t.Fatal(err)
		}
	}
	// Without a record nothing is made.
	p := part(1, "made")
	if err := b.RestGroup(ctx, p); err != nil {
		t.Fatal(err)
	}
	if made, err := b.GoGroup(ctx, p.Snapshot.ID); err == nil {
		t.Fatalf("made without a record: %+v", made)
	}
	if err := b.UndoGroup(ctx, p.Snapshot.ID); err != nil {
		t.Fatal(err)
	}
	has()
	// Writes wait while they are at rest.
	making(1)
	made, err := b.wholePart(p, func() {
		wantCode(t, b.RestGroup(ctx, p), CodeExists)
	})
	if err != nil || len(made) != 2 {
		t.Fatalf("%+v, %v", made, err)
	}
	write()
	has() // it is not decided yet
	decided(1)
	has("made")
	// Repeated, it answers the same.
	if again, err := b.GoGroup(ctx, p.Snapshot.ID); err != nil || len(again) != 2 || again[0].Snapshot.Seq != made[0].Snapshot.Seq {
		t.Errorf("%+v, %v", again, err)
	}
	for range 2 {
		if err := b.UndoGroup(ctx, p.Snapshot.ID); err != nil {
			t.Fatal(err)
		}
		has()
	}
	wantCode(t, second(b.GoGroup(ctx, p.Snapshot.ID)), CodeNotFound)
	// Given up while they are at rest.
	p = part(2, "undone")
	making(2)
	if err := b.RestGroup(ctx, p); err != nil {
		t.Fatal(err)
	}
	if err := b.UndoGroup(ctx, p.Snapshot.ID); err != nil {
		t.Fatal(err)
	}
	write()
	has()
	// The leader is not heard of any more.
	p = part(3, "late")
	making(3)
	if err := b.RestGroup(ctx, p); err != nil {
		t.Fatal(err)
	}
	write() // after two seconds
	wantCode(t, second(b.GoGroup(ctx, p.Snapshot.ID)), CodeTimeout)
	has()
	// The leader goes away while they come to rest.
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if err := b.RestGroup(gone, part(4, "gone")); err == nil {
		if err := b.UndoGroup(ctx, volume.ID{15: 4}); err != nil { // they were faster
			t.Fatal(err)
		}
	}
	write()
	has()
	// Refused.
	wantCode(t, b.RestGroup(ctx, GroupPart{Snapshot: p.Snapshot, VDisks: []string{"nobody"}, Size: 1}), CodeNotFound)
	bad := part(5, "")
	wantCode(t, b.RestGroup(ctx, bad), CodeInvalid)
	has()
	// What is over is forgotten when there is too much of it, and what is not is not.
	b.mu.Lock()
	for i := range maxParts {
		over := &groupPart{began: b.clk.Now(), done: make(chan struct{})}
		if i == 7 {
			close(over.done)
		}
		b.parts[volume.ID{0: 1, 1: byte(i), 2: byte(i >> 8)}] = over
	}
	delete(b.parts, p.Snapshot.ID)
	b.mu.Unlock()
	for i, want := range []Code{"", CodeInUse} {
		err := b.addPart(volume.ID{15: byte(6 + i)}, &groupPart{began: b.clk.Now(), done: make(chan struct{})})
		if want != "" {
			wantCode(t, err, want)
		} else if err != nil {
			t.Fatal(err)
		} else {
			b.wg.Done()
		}
	}
}

// mortal is a registry as a process sees it, until that ends.
type mortal struct {
	kv.Store
	dead *atomic.Bool
	// decided, when set, is told of a change, and says whether the process ends after it.
	decided func(then []kv.Op) bool
}

var errDead = errors.New("the process has ended")

func (m mortal) Get(ctx context.Context, key string) (*kv.KV, error) {
	if m.dead.Load() {
		return nil, errDead
	}
	return m.Store.Get(ctx, key)
}

func (m mortal) Txn(ctx context.Context, cmps []kv.Compare, then, els []kv.Op) (kv.TxnResult, error) {
	if m.dead.Load() {
		return kv.TxnResult{}, errDead
	}
	res, err := m.Store.Txn(ctx, cmps, then, els)
	if m.decided != nil && err == nil && res.Succeeded && m.decided(then) {
		m.dead.Store(true)
		err = errDead
	}
	return res, err
}

// mortalParts are the other nodes of one that ends when point says so, before it asks one of them
// or after.
type mortalParts struct {
	nodes map[string]*bench
	dead  *atomic.Bool
	mu    *sync.Mutex // held while a node is asked, so that one is asked after the other
	point func(what, node string, asked bool) bool
}

func (p mortalParts) ask(what, node string, do func(b *bench) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead.Load() || p.point(what, node, false) {
		p.dead.Store(true)
		return errDead
	}
	err := do(p.nodes[node])
	if err == nil && p.point(what, node, true) {
		p.dead.Store(true)
		return errDead
	}
	return err
}

func (p mortalParts) Rest(ctx context.Context, node string, part GroupPart) error {
	return p.ask("rest", node, func(b *bench) error { return b.RestGroup(ctx, part) })
}

func (p mortalParts) Go(ctx context.Context, node string, id volume.ID) (made []GroupMember, err error) {
	err = p.ask("go", node, func(b *bench) error {
		made, err = b.GoGroup(ctx, id)
		return err
	})
	return made, err
}

func (p mortalParts) Undo(ctx context.Context, node string, id volume.ID) error {
	return p.ask("undo", node, func(b *bench) error { return b.UndoGroup(ctx, id) })
}

// TestGroupLeaderEnds: the leader of a group snapshot ends at each of its steps. Nobody is shown a
// snapshot of a group that is not whole; then the group is gone, or there as a whole.
func TestGroupLeaderEnds(t *testing.T) {
	ctx := t.Context()
	db, err := kv.OpenBolt(filepath.Join(t.TempDir(), "kv.db"), kv.BoltOptions{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	var leaderLives atomic.Bool
	living := func() map[string]bool { return map[string]bool{"a": leaderLives.Load(), "b": true, "c": true} }
	follow := func(b *bench) {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			b.model.Follow(ctx, model.Followed{})
		}()
		stop := b.stop
		b.stop = func() {
			cancel()
			<-done
			stop()
		}
		t.Cleanup(b.stop)
	}
	nodes := map[string]*bench{}
	for _, n := range []string{"b", "c"} {
		b := newBench(t, t.TempDir(), &place{node: n, registry: db, living: living})
		follow(b)
		if _, err := b.CreateVPool(ctx, NewPool{Name: "of-" + n, Backend: model.Backend{Kind: "local", Path: t.TempDir()}}); err != nil {
			t.Fatal(err)
		}
		if _, err := b.CreateVDisk(ctx, NewDisk{Name: "disk-" + n, VPool: "of-" + n, Size: 1 << 30}); err != nil {
			t.Fatal(err)
		}
		nodes[n] = b
	}
	// on returns what there is of a group at a node, and what of it is shown.
	on := func(n, name string) (there, shown bool) {
		t.Helper()
		b := nodes[n]
		rec, err := b.FindVDisk("disk-" + n)
		if err != nil {
			t.Fatal(err)
		}
		ep, id, err := b.engineDisk(rec)
		if err != nil {
			t.Fatal(err)
		}
		all, err := ep.Snapshots(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range all {
			there = there || s.Name == name
		}
		all, err = b.Snapshots(ctx, rec.ID)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range all {
			shown = shown || s.Name == name
		}
		return there, shown
	}
	state := func(then []kv.Op, state model.GroupState) bool {
		for _, op := range then {
			if bytes.Contains(op.Key, []byte("/snapshotgroup/")) && bytes.Contains(op.Value, []byte(`"state":"`+string(state)+`"`)) {
				return true
			}
		}
		return false
	}
	at := func(what, node string, asked bool) func(string, string, bool) bool {
		return func(w, n string, a bool) bool { return w == what && n == node && a == asked }
	}
	never := func(string, string, bool) bool { return false }
	second := func(what string) func(string, string, bool) bool { // between two of them, whichever comes first
		n := 0
		return func(w, _ string, asked bool) bool {
			if w == what && !asked {
				n++
			}
			return n == 2
		}
	}
	for _, tc := range []struct {
		name  string
		point func() func(what, node string, asked bool) bool
		after model.GroupState // ends after this is stored
		parts int              // snapshots that are there when it ends
		whole bool
	}{
		{name: "after the record", point: func() func(string, string, bool) bool { return never }, after: model.GroupMaking},
		{name: "before the first rests", point: func() func(string, string, bool) bool { return at("rest", "b", false) }},
		{name: "between rests", point: func() func(string, string, bool) bool { return at("rest", "c", false) }},
		{name: "when all rest", point: func() func(string, string, bool) bool { return at("rest", "c", true) }},
		{name: "between two goes", point: func() func(string, string, bool) bool { return second("go") }, parts: 1},
		{name: "after b went", point: func() func(string, string, bool) bool { return at("go", "b", true) }, parts: -1},
		{name: "once all are there", point: func() func(string, string, bool) bool {
			n := 0
			return func(w, _ string, asked bool) bool {
				if w == "go" && asked {
					n++
				}
				return n == 2
			}
		}, parts: 2},
		{name: "once it is decided", point: func() func(string, string, bool) bool { return never }, after: model.GroupMade, parts: 2, whole: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var dead *atomic.Bool
			name := tc.name
			for try := 0; ; try++ {
				dead = &atomic.Bool{}
				leaderLives.Store(true)
				reg := mortal{Store: db, dead: dead}
				if tc.after != "" {
					reg.decided = func(then []kv.Op) bool { return state(then, tc.after) }
				}
				a := newBench(t, t.TempDir(), &place{node: "a", registry: reg, living: living, parts: mortalParts{nodes, dead, &sync.Mutex{}, tc.point()}})
				_, err := a.SnapshotGroup(ctx, []string{"disk-b", "disk-c"}, volume.SnapshotSpec{Name: name, Sticky: true})
				if err == nil {
					t.Fatal("it was made, and its leader ended")
				}
				ended := dead.Load()
				dead.Store(true)
				a.stop()
				if ended {
					break
				}
				if try == 30 {
					t.Fatal(err)
				}
				name += "'" // a busy machine was late: another one
			}
			there := 0
			for n := range nodes {
				is, shown := on(n, name)
				if is {
					there++
				}
				if shown != tc.whole {
					t.Errorf("node %s shows it: %v, want %v", n, shown, tc.whole)
				}
			}
			if there != tc.parts && (tc.parts >= 0 || there == 0) {
				t.Errorf("%d snapshots are there, want %d", there, tc.parts)
			}
			known := func(b *bench) bool {
				return slices.ContainsFunc(b.model.SnapshotGroups(), func(g model.SnapshotGroup) bool { return g.Name == name })
			}
			for _, b := range nodes {
				b.pass(0, "every node knows of it", func() bool { return known(b) })
				b.lookForGroups() // while its leader may come back, nothing is decided
			}
			if !known(nodes["b"]) {
				t.Error("it is forgotten, and its leader lives")
			}
			if !tc.whole && there > 0 {
				for n, b := range nodes {
					if is, _ := on(n, name); !is {
						continue
					}
					_, err := b.CloneVDisk(ctx, "disk-"+n, Clone{Name: "clone", From: volume.Point{Snapshot: name}})
					wantCode(t, err, CodeNotFound)
					_, err = b.CreateSnapshot(ctx, "disk-"+n, volume.SnapshotSpec{Name: name})
					if e := wantCode(t, err, CodeInUse); e != nil && !e.Soon {
						t.Errorf("%v", e)
					}
					if err := b.DeleteSnapshot(ctx, "disk-"+n, name, true); err != nil {
						t.Error(err)
					}
					if is, _ := on(n, name); !is {
						t.Error("one that nobody sees was deleted by its name")
					}
				}
			}
			leaderLives.Store(false)
			for _, b := range nodes {
				b.pass(groupsEvery, "the group is decided, and done", func() bool {
					for _, n := range nodes { // each does its own
						n.clk.Advance(groupsEvery)
					}
					return len(b.model.SnapshotGroups()) == 0
				})
			}
			for n := range nodes {
				if is, shown := on(n, name); is != tc.whole || shown != tc.whole {
					t.Errorf("node %s: there %v, shown %v, want %v", n, is, shown, tc.whole)
				}
			}
		})
	}
}

// TestGroupCutOff: a node ends while it makes a group snapshot of its own vDisks. At its next start
// what was made goes.
func TestGroupCutOff(t *testing.T) {
	ctx, dir, p := t.Context(), t.TempDir(), &place{}
	b := newBench(t, dir, p)
	b.gold(t.TempDir())
	one, two := b.disk("one"), b.disk("two")
	id := volume.ID{15: 1}
	if err := b.model.AddSnapshotGroup(ctx, model.SnapshotGroup{ID: id.String(), Name: "cut", Node: p.node, State: model.GroupMaking, VDisks: []string{one.ID, two.ID}}); err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	b.leads[id] = true
	b.mu.Unlock()
	// As a crash leaves it: one of two marks is in a journal.
	vol := b.volume(one.ID)
	if _, err := b.opt.Engine.SnapshotGroup(ctx, []Volume{vol}, volume.SnapshotSpec{ID: id, Name: "cut"}, &volume.GroupPart{Size: 2, Meet: func(context.Context) error { return nil }}); err != nil {
		t.Fatal(err)
	}
	raw := func() int {
		t.Helper()
		ep, id, err := b.engineDisk(one)
		if err != nil {
			t.Fatal(err)
		}
		all, err := ep.Snapshots(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	shown := func() int {
		t.Helper()
		all, err := b.Snapshots(ctx, one.ID)
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	if raw() != 1 || shown() != 0 {
		t.Errorf("%d are there, %d shown", raw(), shown())
	}
	b.stop()
	b = newBench(t, dir, p)
	b.pass(groupsEvery, "what was made went", func() bool { return len(b.model.SnapshotGroups()) == 0 })
	if raw() != 0 {
		t.Errorf("%d are there", raw())
	}
	made, err := b.SnapshotGroup(ctx, []string{"one", "two"}, volume.SnapshotSpec{Name: "cut"})
	if err != nil || len(made) != 2 || shown() != 1 || len(b.model.SnapshotGroups()) != 0 {
		t.Errorf("%v %v, %d shown, records %v", made, err, shown(), b.model.SnapshotGroups())
	}
}
