package model

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/kv"
	"github.com/openvstorage/ovgate/internal/kv/etcd/etcdtest"
)

const patience = 3 * time.Minute

// follower is a node's Store that follows.
type follower struct {
	*Store
	mu       sync.Mutex
	changes  []Change
	problems []error
	moved    chan struct{} // takes one when either grew
}

// follow opens a Store that follows until the test ends.
func follow(t *testing.T, store kv.Store) *follower {
	t.Helper()
	s, err := Open(t.Context(), store, nil)
	if err != nil {
		t.Fatal(err)
	}
	return begin(t, s)
}

// begin has an open Store follow until the test ends.
func begin(t *testing.T, s *Store) *follower {
	f := &follower{Store: s, moved: make(chan struct{}, 1)}
	told := func(add func()) {
		f.mu.Lock()
		add()
		f.mu.Unlock()
		select {
		case f.moved <- struct{}{}:
		default:
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		s.Follow(ctx, Followed{
			Changed: func(c Change) { told(func() { f.changes = append(f.changes, c) }) },
			Problem: func(err error) { told(func() { f.problems = append(f.problems, err) }) },
		})
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return f
}

// until waits for a condition that a change or a problem brings about.
func (f *follower) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	end := time.After(patience)
	for !ok() {
		select {
		case <-f.moved:
		case <-end:
			t.Fatalf("never: %s", what)
		}
	}
}

func (f *follower) told() (changes []Change, problems []error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append(changes, f.changes...), append(problems, f.problems...)
}

// TestFollow: what one node stores, another one has, under each name and index, and is told
// of once.
func TestFollow(t *testing.T) {
	etcdtest.EachStore(t, func(t *testing.T, open func() kv.Store) {
		ctx := t.Context()
		a, b := follow(t, open()), follow(t, open())
		if a.Cluster().ID != b.Cluster().ID {
			t.Fatal("two clusters")
		}
		must(t, 0, second(a.CreateVPool(ctx, VPool{ID: "p", Name: "gold", State: StatePresent})))
		b.until(t, "the vPool", func() bool { _, ok := b.FindVPool("gold"); return ok })
		must(t, 0, second(b.CreateVDisk(ctx, VDisk{ID: "d", Name: "one", VPool: "p", IQN: "iqn.x", Node: "n1"})))
		a.until(t, "the vDisk", func() bool { _, ok := a.VDiskByIQN("iqn.x"); return ok })
		must(t, 0, second(a.UpdateVDisk(ctx, "d", func(v *VDisk) error { v.Name, v.Node = "uno", "n2"; return nil })))
		b.until(t, "the new name", func() bool { _, ok := b.VDiskByName("p", "uno"); return ok })
		if _, ok := b.VDiskByName("p", "one"); ok {
			t.Error("the old name leads to the vDisk")
		}
		must(t, 0, second(b.UpdateVDisk(ctx, "d", func(v *VDisk) error {
			if v.Node != "n2" {
				t.Errorf("updated from node %q", v.Node)
			}
			return nil
		})))
		must(t, 0, a.SetSetup(ctx, "hash")) // no row of a table
		a.until(t, "the newest revision", func() bool { va, _ := a.VDisk("d"); vb, _ := b.VDisk("d"); return va.Rev == vb.Rev })
		must(t, 0, a.DeleteVDisk(ctx, "d"))
		b.until(t, "the deletion", func() bool { return b.CountVDisks() == 0 })
		// Each of the other's changes; of its own perhaps, but none twice.
		for name, c := range map[string]struct {
			f            *follower
			vpools, most int
			vdisks       int
		}{"a": {a, 0, 4, 2}, "b": {b, 1, 4, 2}} {
			changes, problems := c.f.told()
			count := map[string]int{}
			for _, change := range changes {
				count[change.Kind]++
			}
			if count["vpool"] < c.vpools || count["vpool"] > 1 || count["vdisk"] < c.vdisks || count["vdisk"] > c.most || len(problems) > 0 {
				t.Errorf("%s was told %v, %v", name, changes, problems)
			}
		}
	})
}

// breaking is a store whose watches end after some batches, and which fails some calls.
type breaking struct {
	kv.Store
	mu  sync.Mutex
	rnd *rand.Rand
}

func (b *breaking) odd(of int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rnd.IntN(of) == 0
}

func (b *breaking) Watch(ctx context.Context, prefix string, after int64) (<-chan kv.WatchBatch, error) {
	ctx, cancel := context.WithCancel(ctx)
	in, err := b.Store.Watch(ctx, prefix, after)
	if err != nil {
		cancel()
		return nil, err
	}
	out := make(chan kv.WatchBatch)
	go func() {
		defer close(out)
		defer cancel()
		for batch := range in {
			if b.odd(20) {
				batch = kv.WatchBatch{Err: kv.ErrCompacted}
			}
			select {
			case out <- batch:
			case <-ctx.Done():
				return
			}
			if batch.Err != nil {
				return
			}
		}
	}()
	return out, nil
}

// Txn leaves some outcomes unknown (K1), of transactions that were made and of others.
func (b *breaking) Txn(ctx context.Context, cmps []kv.Compare, then, els []kv.Op) (kv.TxnResult, error) {
	if b.odd(15) {
		return kv.TxnResult{}, errors.New("not sent")
	}
	res, err := b.Store.Txn(ctx, cmps, then, els)
	if b.odd(15) {
		return kv.TxnResult{}, errors.New("no answer")
	}
	return res, err
}

// TestFollowModel: nodes change, rename and delete the same records at random, with watches
// that end and outcomes that stay unknown. A node's view of a record never goes back, and in
// the end each has exactly what is stored (M1, M2, M3, M8).
func TestFollowModel(t *testing.T) {
	etcdtest.EachStore(t, func(t *testing.T, open func() kv.Store) {
		const nodes, steps, names = 3, 200, 5
		var all []*follower
		for i := range nodes {
			all = append(all, follow(t, &breaking{Store: open(), rnd: rand.New(rand.NewPCG(1, uint64(i)))}))
		}
		ctx, plain := t.Context(), open()
		var wg sync.WaitGroup
		for i, f := range all {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(2, uint64(i)))
				newest := map[string]int64{}
				for step := range steps {
					id, name := fmt.Sprint("p", rnd.IntN(names)), fmt.Sprint("name", rnd.IntN(names))
					var v VPool
					var err error
					switch rnd.IntN(4) {
					case 0:
						v, err = f.CreateVPool(ctx, VPool{ID: id, Name: name, State: StatePresent})
					case 1, 2:
						v, err = f.UpdateVPool(ctx, id, func(v *VPool) error { v.Name = name; return nil })
					default:
						err = f.DeleteVPool(ctx, id)
					}
					if err == nil && v.ID != "" && v.Rev <= newest[v.ID] {
						t.Errorf("node %d step %d: %s stored at %d after %d was seen", i, step, v.ID, v.Rev, newest[v.ID])
					}
					for _, v := range f.VPools() {
						if v.Rev < newest[v.ID] {
							t.Errorf("node %d step %d: %s went back from %d to %d", i, step, v.ID, newest[v.ID], v.Rev)
						}
						newest[v.ID] = v.Rev
					}
				}
			})
		}
		wg.Wait()
		// What is stored, by the plain store: each name belongs to the row that has it (M1).
		stored := map[string]string{}
		rows, _, err := plain.Range(ctx, "model/vpool/", "", 0)
		must(t, rows, err)
		for _, e := range rows {
			v, err := all[0].vpools.decode(&e)
			must(t, v, err)
			stored[v.Name] = fmt.Sprint(v.ID, " at ", v.Rev)
		}
		if len(stored) != len(rows) {
			t.Fatalf("%d vPools with %d names", len(rows), len(stored))
		}
		index, _, err := plain.Range(ctx, "model/index/vpool/", "", 0)
		must(t, index, err)
		for _, e := range index {
			if has := stored[strings.TrimPrefix(string(e.Key), "model/index/vpool/")]; !strings.HasPrefix(has, string(e.Value)+" ") {
				t.Errorf("%s leads to %s, stored is %q", e.Key, e.Value, has)
			}
		}
		if len(index) != len(rows) {
			t.Errorf("%d names of %d vPools", len(index), len(rows))
		}
		for i, f := range all {
			view := func() string {
				has := map[string]string{}
				for name := range names {
					if v, ok := f.FindVPool(fmt.Sprint("name", name)); ok {
						has[v.Name] = fmt.Sprint(v.ID, " at ", v.Rev)
					}
				}
				return fmt.Sprint(has, len(f.VPools()))
			}
			f.until(t, fmt.Sprintf("node %d has %v, not %s", i, stored, view()), func() bool { return view() == fmt.Sprint(stored, len(stored)) })
		}
	})
}

// TestFollowLate: a node hears late of a record that had a name for a while, after it gave
// the name to a record of its own, which keeps it.
func TestFollowLate(t *testing.T) {
	etcdtest.EachStore(t, func(t *testing.T, open func() kv.Store) {
		ctx := t.Context()
		late, err := Open(ctx, open(), nil)
		must(t, late, err)
		other := follow(t, open())
		must(t, 0, second(other.CreateVPool(ctx, VPool{ID: "p", Name: "gold"})))
		must(t, 0, second(other.UpdateVPool(ctx, "p", func(v *VPool) error { v.Name = "silver"; return nil })))
		must(t, 0, second(late.CreateVPool(ctx, VPool{ID: "q", Name: "gold"})))
		f := begin(t, late)
		f.until(t, "the other's vPool", func() bool { _, ok := f.FindVPool("silver"); return ok })
		if v, ok := f.FindVPool("gold"); !ok || v.ID != "q" {
			t.Errorf("gold is %q, %v", v.ID, ok)
		}
	})
}

// TestFollowNewer: a record of a newer version, stored while an older node runs, is told of
// and not acted on; the rest is followed.
func TestFollowNewer(t *testing.T) {
	etcdtest.EachStore(t, func(t *testing.T, open func() kv.Store) {
		ctx := t.Context()
		store := open()
		a, b := follow(t, store), follow(t, open())
		must(t, 0, second(a.CreateVPool(ctx, VPool{ID: "p", Name: "gold", State: StatePresent})))
		b.until(t, "the vPool", func() bool { _, ok := b.VPool("p"); return ok })
		newer := fmt.Appendf(nil, `{"format":%d,"id":"p","name":"gold"}`, Format+1)
		must(t, 0, second(store.Txn(ctx, nil, []kv.Op{kv.Put("model/vpool/p", newer)}, nil)))
		b.until(t, "a problem", func() bool {
			_, problems := b.told()
			return len(problems) > 0 && errors.Is(problems[0], ErrNewerFormat)
		})
		if err := second(b.UpdateVPool(ctx, "p", func(*VPool) error { return nil })); !errors.Is(err, ErrConflict) {
			t.Errorf("update over a newer record: %v", err)
		}
		must(t, 0, second(a.CreateVPool(ctx, VPool{ID: "q", Name: "silver"})))
		b.until(t, "another vPool", func() bool { _, ok := b.VPool("q"); return ok })
	})
}
