package volume

import (
	"context"
	"errors"
	"fmt"
	"maps"
	mrand "math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/local"
)

// gate holds the calls of an owner on the backend from the n-th change after arm on, as
// if the node stood still with its requests on their way. Once open, all of them are
// made, whether or not their askers still wait.
type gate struct {
	mu   sync.Mutex
	left int           // changes to come before it shuts; below 0: not armed
	shut chan struct{} // closed when it shuts
	open chan struct{} // closed by the test
}

func newGate() *gate {
	return &gate{left: -1, shut: make(chan struct{}), open: make(chan struct{})}
}

func (g *gate) arm(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.left = n
}

func (g *gate) before(ctx context.Context, change bool) (context.Context, error) {
	g.mu.Lock()
	if change && g.left > 0 {
		if g.left--; g.left == 0 {
			close(g.shut)
		}
	}
	hold := g.left == 0
	g.mu.Unlock()
	if !hold {
		return ctx, nil
	}
	<-g.open
	return context.WithoutCancel(ctx), nil
}

const ownerBlocks = 96 // of 4 KiB, of the vDisk of TestTwoOwners

// blockWrite is one of a log of writes.
type blockWrite struct {
	block int64
	ver   uint32
}

// contentAfter is what a log leaves behind.
func contentAfter(log []blockWrite) map[int64]uint32 {
	m := map[int64]uint32{}
	for _, w := range log {
		m[w.block] = w.ver
	}
	return m
}

// owner is a node that has the vDisk open, and knows what it did.
type owner struct {
	t      testing.TB
	n      *node
	v      *Volume
	r      *mrand.Rand
	scrubs bool
	clones byte // made so far to look at snapshots

	mu sync.Mutex // held to change what follows, and by others to read it
	did
}

// did is what an owner did.
type did struct {
	ver   uint32 // of the newest write
	log   []blockWrite
	safe  int            // writes of the log that a commit covered
	snaps map[string]int // by name: writes of the log before it
}

// soFar returns a copy of what the owner did, while it goes on.
func (o *owner) soFar() did {
	o.mu.Lock()
	defer o.mu.Unlock()
	return did{o.ver, slices.Clone(o.log), o.safe, maps.Clone(o.snaps)}
}

func (o *owner) write() error {
	for range 1 + o.r.IntN(6) {
		w := blockWrite{o.r.Int64N(ownerBlocks), o.ver + 1}
		o.mu.Lock()
		o.ver++
		o.log = append(o.log, w)
		o.mu.Unlock()
		if err := write(o.t, o.v, w.block*4096, w.ver); err != nil {
			return err
		}
	}
	return nil
}

func (o *owner) commit() error {
	n := len(o.log)
	if err := o.v.Commit(context.Background()); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.safe = n
	return nil
}

// round writes, makes and deletes snapshots, commits and scrubs.
func (o *owner) round(i int) error {
	ctx := context.Background()
	if err := o.write(); err != nil {
		return err
	}
	name := fmt.Sprintf("%s-%d", o.n.w.node, i)
	o.mu.Lock()
	o.snaps[name] = len(o.log)
	o.mu.Unlock()
	if _, err := o.v.Snapshot(ctx, SnapshotSpec{Name: name}); err != nil {
		return err
	}
	if err := errors.Join(o.write(), o.commit()); err != nil {
		return err
	}
	if i%3 == 2 {
		if err := o.v.DeleteSnapshot(ctx, fmt.Sprintf("%s-%d", o.n.w.node, i-1), false); err != nil {
			return err
		}
	}
	if i%2 == 1 && o.scrubs {
		if _, err := o.v.Scrub(ctx, ScrubOptions{}); err != nil {
			return err
		}
	}
	return nil
}

// blocks reads the versions of all blocks.
func blocks(t testing.TB, v *Volume) map[int64]uint32 {
	t.Helper()
	have, err := readVersions(v)
	if err != nil {
		t.Fatal(err)
	}
	m := map[int64]uint32{}
	for i := range int64(ownerBlocks) {
		if ver := have[i*4096/lbaBytes]; ver != 0 {
			m[i] = ver
		}
	}
	return m
}

// wantSnapshots clones every snapshot of the vDisk and compares it with the log.
func (o *owner) wantSnapshots() {
	o.t.Helper()
	ctx := context.Background()
	for _, s := range o.v.Snapshots() {
		at, known := o.snaps[s.Name]
		if !known {
			o.t.Fatalf("snapshot %s: nobody made it", s.Name)
		}
		o.clones++
		id := testID(ownersClone + o.clones)
		o.n.clone(id, o.v.id, Point{Snapshot: s.Name}, 0)
		c := o.n.open(id)
		if have, want := blocks(o.t, c), contentAfter(o.log[:at]); !maps.Equal(have, want) {
			o.t.Fatalf("snapshot %s holds %v, want %v", s.Name, have, want)
		}
		if err := errors.Join(c.Close(ctx), o.n.pool.Delete(ctx, id)); err != nil {
			o.t.Fatal(err)
		}
	}
}

// wantWhole checks that everything that a vDisk is made of is there and verifies.
func (n *node) wantWhole(id ID) {
	n.t.Helper()
	if out := n.verify(id); len(out.Damage) > 0 || out.BadClusters > 0 {
		n.t.Fatalf("damaged: %+v", out)
	}
	st, _, err := n.pool.stateOf(context.Background(), id)
	if err != nil {
		n.t.Fatal(err)
	}
	names, err := n.pool.reachable(context.Background(), st)
	if err != nil {
		n.t.Fatal(err)
	}
	for name := range names {
		if _, err := n.store.Stat(context.Background(), name); err != nil {
			n.t.Errorf("reached by the head: %v", err)
		}
	}
}

const (
	ownersDisk  = 1
	ownersClone = 2 // of the new owner
)

// takeOver lets a node that has nothing of its own open the vDisk while the first one
// stands still, and use it in every way; scrubs says whether scrubs are among them.
func takeOver(t testing.TB, a *owner, w *world, seed uint64, scrubs bool) *owner {
	t.Helper()
	ctx := context.Background()
	before := a.soFar()
	n := w.mustStart(t)
	b := &owner{t: t, n: n, v: n.open(testID(ownersDisk)), r: mrand.New(mrand.NewPCG(seed, 6)), scrubs: scrubs}
	have := blocks(t, b.v)
	at := -1
	for k := before.safe; k <= len(before.log); k++ {
		if maps.Equal(have, contentAfter(before.log[:k])) {
			at = k
			break
		}
	}
	if at < 0 {
		t.Fatalf("the new owner has no prefix of the log from %d to %d: %v, log %v", before.safe, len(before.log), have, before.log)
	}
	b.did = did{before.ver + 1000, before.log[:at], at, before.snaps}
	b.wantSnapshots()
	for i := range 3 {
		if err := b.round(i); err != nil {
			t.Fatalf("round %d of the new owner: %v", i, err)
		}
	}
	n.clone(testID(ownersClone), testID(ownersDisk), Point{Snapshot: "b-0"}, 0)
	if l := b.v.Snapshots(); l[0].Name[0] == 'a' {
		if err := b.v.DeleteSnapshot(ctx, l[0].Name, false); err != nil {
			t.Fatal(err)
		}
	}
	if scrubs {
		mustScrub(t, b.v, ScrubOptions{})
	}
	if err := errors.Join(b.write(), b.commit()); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestTwoOwners: a node stands still in the middle of uploads and deletes, another one
// takes the vDisk over, and then the requests of the first reach the backend, late (E1,
// E5, E7). The new owner has all that was committed; nothing of what it, its snapshots
// and its clones reach is overwritten or deleted; the old one commits nothing any more
// and stops serving.
func TestTwoOwners(t *testing.T) {
	t.Parallel()
	eachStore(t, anyStore, twoOwnersOver)
}

// twoOwnersOver lets the node stand still at different changes.
func twoOwnersOver(t *testing.T, c storeCase, s startedStore) {
	const changes = 120                  // ten rounds make more
	first, step := 1, int(stride(3, 13)) // odd, for both kinds of new owners
	switch {
	case os.Getenv("OVGATE_STRIDE") != "":
	case testing.Short() && c.name != "memory": // the engine is the same, and more of its points are tried in memory
		step = 59
	case c.name == "swift": // each of its requests takes 10 ms and more
		first, step = 40, changes
	case c.network:
		step = 59
	case c.slow:
		step = 29
	}
	for at := first; at < changes; at += step {
		t.Run(fmt.Sprint("change", at), func(t *testing.T) { twoOwners(t, s.open(t, s.url), at) })
		if t.Failed() {
			return
		}
	}
}

func twoOwners(t *testing.T, store backend.Store, at int) {
	once, g := onceStore{store, t, &sync.Map{}}, newGate()
	free := func(ctx context.Context, _ bool) (context.Context, error) { return ctx, nil }
	w, w2 := newBusyWorld(uint64(at)), newBusyWorld(uint64(at)+1<<32)
	w.node, w.openStore = "a", func() backend.Store { return storeCalls{once, g.before} }
	w2.node, w2.openStore = "b", func() backend.Store { return storeCalls{once, free} }
	w2.reg, w2.settings.AcceptLostTail = w.reg, true
	n := w.mustStart(t)
	n.create(testID(ownersDisk), ownerBlocks*4096)
	a := &owner{t: t, n: n, v: n.open(testID(ownersDisk)), r: mrand.New(mrand.NewPCG(uint64(at), 5)), scrubs: true, did: did{snaps: map[string]int{}}}
	mustCommit(t, a.v)
	g.arm(at)
	done := make(chan error, 1)
	go func() {
		var err error
		for i := 0; err == nil && i < 200; i++ {
			err = a.round(i)
		}
		done <- err
	}()
	select {
	case <-g.shut:
	case err := <-done:
		t.Fatalf("the first owner ended before change %d: %v", at, err)
	}
	// A scrub of the new owner replaces what the first one's was about to delete, so one in
	// two goes without.
	b := takeOver(t, a, w2, uint64(at), at%2 == 0)
	close(g.open)
	// It may find objects of its own gone before it finds out why.
	if err := <-done; err == nil {
		t.Fatal("the first owner went on")
	}
	if err := a.v.Commit(context.Background()); !errors.Is(err, ErrFenced) {
		t.Fatalf("commit of the first owner: %v", err)
	}
	if err := a.v.ReadAt(context.Background(), make([]byte, 4096), 0); !errors.Is(err, ErrFenced) {
		t.Fatalf("read of the first owner: %v", err)
	}
	n.kill()
	b.check(w2)
}

// check looks at the vDisk when nobody else is there any more: as it is open, and from
// the backend alone.
func (o *owner) check(w *world) {
	t := o.t
	t.Helper()
	ctx := context.Background()
	disk, clone := testID(ownersDisk), testID(ownersClone)
	ofClone := contentAfter(o.log[:o.snaps["b-0"]])
	if have, want := blocks(t, o.v), contentAfter(o.log); !maps.Equal(have, want) {
		t.Fatalf("the new owner reads %v, want %v", have, want)
	}
	o.n.wantWhole(disk)
	o.n.wantWhole(clone)
	if err := errors.Join(o.write(), o.commit()); err != nil {
		t.Fatalf("the new owner does not go on: %v", err)
	}
	o.wantSnapshots()
	o.n.close()
	w.fs, w.reg = blockfs.NewMem(), newMemRegistry()
	for _, sweep := range []bool{true, false} {
		o.n = w.mustStart(t)
		if _, err := o.n.pool.Recover(ctx); err != nil {
			t.Fatal(err)
		}
		o.v = o.n.open(disk)
		if have, want := blocks(t, o.v), contentAfter(o.log); !maps.Equal(have, want) {
			t.Fatalf("from the backend alone: %v, want %v", have, want)
		}
		if have := blocks(t, o.n.open(clone)); !maps.Equal(have, ofClone) {
			t.Fatalf("the clone from the backend alone: %v, want %v", have, ofClone)
		}
		o.wantSnapshots()
		o.n.wantWhole(disk)
		o.n.wantWhole(clone)
		o.n.close()
		if sweep {
			n := w.mustStart(t)
			if _, err := n.pool.Sweep(ctx, false); err != nil {
				t.Fatal(err)
			}
			n.close()
		}
	}
}

// claimHook is a store, shared by nodes, of which a test sees the claims come.
type claimHook struct {
	backend.Store
	before func()
}

func (s claimHook) PutIfAbsent(ctx context.Context, name string, data []byte) error {
	if strings.Contains(name, claimDir) {
		s.before()
	}
	return s.Store.PutIfAbsent(ctx, name, data)
}

func (s claimHook) Close() error { return nil }

// TestTakeOverLastCommit: the owner of before commits between what a new one learned and
// its claim. The new one begins anew and has that commit.
func TestTakeOverLastCommit(t *testing.T) {
	store, err := local.Open(blockfs.NewMem(), local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w, w2 := newWorld(61), newWorld(62)
	var v *Volume
	claims := 0
	last := func() {
		if claims++; claims == 1 {
			mustWrite(t, v, 4096, 7)
			mustCommit(t, v)
		}
	}
	w.node, w.openStore = "a", func() backend.Store { return claimHook{store, func() {}} }
	w2.node, w2.openStore = "b", func() backend.Store { return claimHook{store, last} }
	w2.reg, w2.settings.AcceptLostTail = w.reg, true
	n := w.mustStart(t)
	id := testID(ownersDisk)
	n.create(id, 1<<20)
	v = n.open(id)
	mustCommit(t, v)
	n2 := w2.mustStart(t)
	wantVersion(t, n2.open(id), 4096, 7)
	if claims != 2 {
		t.Errorf("%d claims, want 2", claims)
	}
	n.kill()
	n2.close()
}
