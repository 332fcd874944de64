package asd

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/alba/osd/osdtest"
	"github.com/openvstorage/ovgate/internal/blockfs"
)

var fates = []blockfs.Unsynced{blockfs.KeepAll, blockfs.DropAll, blockfs.Tear, blockfs.Reorder}

// crashRounds is how often each random fate is tried at each operation.
func crashRounds() int {
	if testing.Short() {
		return 1
	}
	return 4
}

// everyCrash opens the device as each of many power cuts at this instant would
// leave it, and returns how many there were.
func everyCrash(t *testing.T, m *blockfs.Mem, check func(s *Store)) int {
	t.Helper()
	n := 0
	for _, fate := range fates {
		rounds := 1
		if fate == blockfs.Tear || fate == blockfs.Reorder {
			rounds = crashRounds()
		}
		for i := range rounds {
			after := m.Crash(blockfs.CrashConfig{Unsynced: fate, Rand: rand.New(rand.NewPCG(uint64(i), 5))})
			s, err := Open(after, testOptions())
			if err != nil {
				t.Fatalf("open after a crash (fate %d): %v", fate, err)
			}
			checkSpace(t, s)
			check(s)
			must(t, s.Close())
			n++
		}
	}
	return n
}

// state is what keys hold; nil is absent.
type state map[string][]byte

// with returns the state after updates.
func (st state) with(updates []osd.Update) state {
	next := maps.Clone(st)
	for _, u := range updates {
		if u.Delete {
			next[string(u.Key)] = nil
		} else {
			next[string(u.Key)] = append([]byte{}, u.Value...)
		}
	}
	return next
}

// differs returns the first key that does not hold what it should.
func (st state) differs(t *testing.T, s *Store) string {
	t.Helper()
	keys := slices.Sorted(maps.Keys(st))
	asked := make([][]byte, len(keys))
	for i, key := range keys {
		asked[i] = []byte(key)
	}
	values, err := s.Get(t.Context(), asked, osd.MaxValueBytes, osd.High)
	must(t, err)
	for i, key := range keys {
		if want := st[key]; (want == nil) != (values[i].Data == nil) || !bytes.Equal(want, values[i].Data) {
			return key
		}
	}
	return ""
}

// base is what a device holds before a crash test's Apply.
func base() []osd.Update {
	return []osd.Update{
		osd.Set([]byte("small"), osdtest.Data(1, 100)), osd.Set([]byte("large"), osdtest.Data(2, 50000)),
		osd.Set([]byte("huge"), osdtest.Data(3, 1<<20+5000)), osd.Set([]byte("stays"), osdtest.Data(4, 40000)),
		osd.Set([]byte("stays too"), osdtest.Data(5, 4000)),
	}
}

// D1, A1-A5: at every operation of every kind of Apply the change is there or not,
// as a whole; once Apply returned it is there; the count of Applies never falls
// below what was told; free space is what the index says; and the device works.
func TestCrashAtEveryOperation(t *testing.T) {
	set := func(key string, seed uint64, n int) osd.Update { return osd.Set([]byte(key), osdtest.Data(seed, n)) }
	del := func(key string) osd.Update { return osd.Delete([]byte(key)) }
	total, points := 0, 0
	for _, c := range []struct {
		name    string
		fresh   bool // on an empty device
		asserts []osd.Assert
		updates []osd.Update
	}{
		{"set small", false, nil, []osd.Update{set("new", 9, 500)}},
		{"set large", false, nil, []osd.Update{set("new", 9, 60000)}},
		{"set of pieces", false, nil, []osd.Update{set("new", 9, 3<<20+1)}},
		{"first", true, nil, []osd.Update{set("new", 9, 60000)}},
		{"replace large", false, nil, []osd.Update{set("large", 9, 50000)}},
		{"replace large by small", false, nil, []osd.Update{set("large", 9, 50)}},
		{"replace small by large", false, nil, []osd.Update{set("small", 9, 70000)}},
		{"delete small", false, nil, []osd.Update{del("small")}},
		{"delete large", false, nil, []osd.Update{del("huge")}},
		{"several", false, nil, []osd.Update{set("a", 9, 30000), set("small", 9, 20), del("large"), set("huge", 9, 1<<20+9000), set("b", 9, 0), del("none")}},
		{"asserts", false, []osd.Assert{{Key: []byte("small"), Value: osdtest.Data(1, 100)}, {Key: []byte("new")}}, []osd.Update{set("new", 9, 60000), del("small")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := blockfs.NewMem()
			s := mustOpen(t, m)
			old := state{"new": nil, "a": nil, "b": nil, "none": nil}
			if !c.fresh {
				must(t, s.Apply(t.Context(), nil, base(), osd.High))
				old = old.with(base())
			}
			now, acked := old.with(c.updates), s.durable.Load()
			var mu sync.Mutex
			ops, olds, news := 0, 0, 0
			m.SetHook(func(_ int64, op blockfs.OpInfo) {
				mu.Lock()
				defer mu.Unlock()
				ops++
				points += everyCrash(t, m, func(after *Store) {
					switch {
					case old.differs(t, after) == "":
						olds++
					case now.differs(t, after) == "":
						news++
					default:
						t.Fatalf("crash in %v: %q is not as before, %q not as after", op, old.differs(t, after), now.differs(t, after))
					}
					if got := after.durable.Load(); got < acked {
						t.Fatalf("crash in %v: %d applies, %d were acknowledged", op, got, acked)
					}
					after.set(t, "large", osdtest.Data(20, 90000))
					after.mustHold(t, "large", osdtest.Data(20, 90000))
				})
			})
			must(t, s.Apply(t.Context(), c.asserts, c.updates, osd.High))
			m.SetHook(nil)
			if ops < 2 || olds == 0 || news == 0 {
				t.Fatalf("%d operations, %d outcomes as before, %d as after", ops, olds, news)
			}
			total += ops
			points += everyCrash(t, m, func(after *Store) {
				if key := now.differs(t, after); key != "" {
					t.Fatalf("%q was lost after Apply returned", key)
				}
				if after.durable.Load() < acked+1 {
					t.Fatal("the count of Applies was lost")
				}
			})
			must(t, s.Close())
		})
	}
	t.Logf("%d operations, %d power cuts", total, points)
}

// Crashes in what happens besides Apply: the making and opening of a device, the
// index's own work, the end of a container, and Close.
func TestCrashInUpkeep(t *testing.T) {
	points := 0
	watch := func(t *testing.T, m *blockfs.Mem, st state) {
		var mu sync.Mutex
		m.SetHook(func(_ int64, op blockfs.OpInfo) {
			mu.Lock()
			defer mu.Unlock()
			points += everyCrash(t, m, func(after *Store) {
				if key := st.differs(t, after); key != "" {
					t.Fatalf("crash in %v: %q differs", op, key)
				}
				after.set(t, "works", osdtest.Data(1, 20000))
			})
		})
	}
	t.Run("make", func(t *testing.T) {
		m := blockfs.NewMem()
		watch(t, m, state{})
		s := mustOpen(t, m)
		m.SetHook(nil)
		must(t, s.Close())
	})
	t.Run("reopen", func(t *testing.T) {
		m := blockfs.NewMem()
		s := mustOpen(t, m)
		must(t, s.Apply(t.Context(), nil, base(), osd.High))
		m = m.Crash(blockfs.CrashConfig{Unsynced: blockfs.DropAll})
		must(t, s.Close())
		watch(t, m, state{}.with(base()))
		s = mustOpen(t, m)
		must(t, s.Close())
		m.SetHook(nil)
	})
	t.Run("index", func(t *testing.T) {
		m := blockfs.NewMem()
		s := mustOpen(t, m)
		st := state{}
		for i := range 4 {
			must(t, s.Apply(t.Context(), nil, base(), osd.High))
			st = st.with(base())
			u := osd.Set(fmt.Appendf(nil, "k%d", i), osdtest.Data(uint64(i), 9000))
			must(t, s.Apply(t.Context(), nil, []osd.Update{u}, osd.High))
			st = st.with([]osd.Update{u})
			if i == 3 {
				watch(t, m, st)
			}
			must(t, s.db.Flush())
		}
		must(t, s.db.Compact(t.Context(), []byte{0}, []byte{255}, false))
		m.SetHook(nil)
		must(t, s.Close())
	})
	t.Run("last of a container", func(t *testing.T) {
		m := blockfs.NewMem()
		s := mustOpen(t, m)
		must(t, s.Apply(t.Context(), nil, base(), osd.High))
		big := osdtest.Data(1, 60<<20)
		for i := range 3 {
			s.set(t, fmt.Sprint("big", i%2), big[i:])
			if i == 0 { // keeps the first from being large enough
				e, _, err := s.replaced([]byte("big0"))
				must(t, err)
				s.blobs.mu.Lock()
				c := s.blobs.files[firstContainer]
				was := c.free.max
				hold := extent{e.extent.file, e.extent.page + e.extent.pages, 30000}
				if !c.free.claim(hold.page, hold.pages) {
					t.Fatal("claim")
				}
				s.blobs.order.move(firstContainer, was, c.free.max)
				s.blobs.mu.Unlock()
			}
		}
		if len(s.blobs.files) != 2 {
			t.Fatalf("%d containers", len(s.blobs.files))
		}
		m.SetHook(func(_ int64, op blockfs.OpInfo) {
			if op.Kind == blockfs.OpRemove && op.Path == containerPath(2) {
				points += everyCrash(t, m, func(after *Store) {
					if key := (state{}.with(base())).differs(t, after); key != "" {
						t.Fatalf("%q differs", key)
					}
				})
			}
		})
		before := points
		s.delete(t, "big0")
		s.delete(t, "big1")
		if points == before {
			t.Fatal("no container was removed")
		}
		m.SetHook(nil)
		must(t, s.Close())
	})
	t.Logf("%d power cuts", points)
}

// Many writers, and the power fails somewhere: each finds what it was told.
func TestCrashUnderLoad(t *testing.T) {
	const workers = 6
	rounds := 25
	if testing.Short() {
		rounds = 5
	}
	r := rand.New(rand.NewPCG(7, 7))
	for round := range rounds {
		m := blockfs.NewMem()
		s := mustOpen(t, m)
		at, fate := int64(20+r.IntN(400)), fates[r.IntN(len(fates))]
		var crashed atomic.Pointer[blockfs.Mem]
		var acks [workers]atomic.Int64
		var told [workers]int64
		var once sync.Once
		var applies uint64
		m.SetHook(func(n int64, op blockfs.OpInfo) {
			if n >= at {
				once.Do(func() {
					for w := range told {
						told[w] = acks[w].Load()
					}
					applies = s.durable.Load()
					crashed.Store(m.Crash(blockfs.CrashConfig{Unsynced: fate, Rand: rand.New(rand.NewPCG(uint64(round), 1))}))
					m.Kill()
				})
			}
		})
		value := func(w int, n int64) []byte {
			return osdtest.Data(uint64(n)*workers+uint64(w), []int{40, 30000, 5000}[n%3])
		}
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() {
				for n := int64(1); ; n++ {
					u := []osd.Update{osd.Set(fmt.Appendf(nil, "a%d", w), value(w, n)), osd.Set(fmt.Appendf(nil, "b%d", w), value(w, n+1))}
					if err := s.Apply(t.Context(), nil, u, osd.High); err != nil {
						return
					}
					acks[w].Store(n)
				}
			})
		}
		wg.Wait()
		must(t, s.Close())
		after := mustOpen(t, crashed.Load())
		checkSpace(t, after)
		if after.durable.Load() < applies {
			t.Fatalf("round %d: %d applies, %d were told", round, after.durable.Load(), applies)
		}
		for w := range workers {
			a, err := after.read(t, fmt.Sprint("a", w))
			must(t, err)
			b, err := after.read(t, fmt.Sprint("b", w))
			must(t, err)
			ok := told[w] == 0 && a == nil && b == nil
			for n := max(1, told[w]); n <= told[w]+2 && !ok; n++ {
				ok = bytes.Equal(a, value(w, n)) && bytes.Equal(b, value(w, n+1))
			}
			if !ok {
				t.Fatalf("round %d: writer %d was told %d, finds neither it nor the next", round, w, told[w])
			}
		}
		must(t, after.Close())
	}
}

// errorScenario makes changes, and returns what must be there and what may be.
func errorScenario(t *testing.T, s *Store) (told, may state) {
	told = state{"new": nil, "more": nil}
	steps := [][]osd.Update{
		base(),
		{osd.Set([]byte("new"), osdtest.Data(8, 70000)), osd.Delete([]byte("small"))},
		{osd.Set([]byte("large"), osdtest.Data(9, 50000)), osd.Set([]byte("more"), osdtest.Data(8, 300))},
		{osd.Delete([]byte("huge")), osd.Set([]byte("new"), osdtest.Data(10, 2<<20))},
	}
	for i, u := range steps {
		if i == 2 {
			_ = s.db.Flush()
		}
		may = told.with(u)
		if err := s.Apply(t.Context(), nil, u, osd.High); err != nil {
			if errors.Is(err, osd.ErrFull) || errors.Is(err, osd.ErrCorrupt) {
				return told, told
			}
			if !errors.Is(err, osd.ErrFailed) && !errors.Is(err, syscall.EIO) && !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("step %d: %v", i, err)
			}
			return told, may
		}
		told = may
	}
	return told, told
}

// A6: any one operation fails, in any of several ways. What was acknowledged is
// there after the next open, nothing is wrong, and the device works again.
func TestErrorAtEveryOperation(t *testing.T) {
	points, refusedOpens := 0, 0
	for name, inject := range map[string]error{
		"EIO": syscall.EIO, "partial": blockfs.Partial(4096, syscall.EIO), "ENOSPC": syscall.ENOSPC,
	} {
		t.Run(name, func(t *testing.T) {
			step := int64(1)
			if testing.Short() {
				step = 7
			}
			for at := int64(1); ; at += step {
				m := blockfs.NewMem()
				var hit atomic.Pointer[blockfs.OpInfo]
				fsys := blockfs.Inject(m, func(op blockfs.OpInfo) error {
					if op.N != at {
						return nil
					}
					hit.Store(&op)
					if op.Kind == blockfs.OpRead && name == "ENOSPC" {
						return nil
					}
					if op.Kind == blockfs.OpSync {
						must(t, m.LoseUnsynced(op.Path))
					}
					return inject
				})
				told, may := state{}, state{}
				s, err := Open(fsys, testOptions())
				if err == nil {
					told, may = errorScenario(t, s)
					_ = s.Close()
				} else {
					refusedOpens++
				}
				if hit.Load() == nil {
					break // beyond the last operation
				}
				points++
				for _, fate := range []blockfs.Unsynced{blockfs.KeepAll, blockfs.DropAll} {
					after, err := Open(m.Crash(blockfs.CrashConfig{Unsynced: fate}), testOptions())
					if err != nil {
						t.Fatalf("open after an error in %v: %v", hit.Load(), err)
					}
					checkSpace(t, after)
					if a, b := told.differs(t, after), may.differs(t, after); a != "" && b != "" {
						t.Fatalf("after an error in %v: %q is not as told, %q not as it may be", hit.Load(), a, b)
					}
					after.set(t, "large", osdtest.Data(20, 90000))
					after.mustHold(t, "large", osdtest.Data(20, 90000))
					must(t, after.Close())
				}
			}
		})
	}
	t.Logf("%d errors, %d of them kept the device from opening", points, refusedOpens)
}

// powerCut is a power cut at one operation of a file system that is killed then.
type powerCut struct {
	m        *blockfs.Mem
	returned atomic.Bool // the call under test has
	once     sync.Once
	after    *blockfs.Mem
	late     bool // the cut came when the call had returned
}

// arm sets the operation to come to.
func (c *powerCut) arm(at int64, fate blockfs.Unsynced, seed uint64) {
	c.m.SetHook(func(n int64, _ blockfs.OpInfo) {
		if n < at {
			return
		}
		c.once.Do(func() {
			c.late = c.returned.Load()
			c.after = c.m.Crash(blockfs.CrashConfig{Unsynced: fate, Rand: rand.New(rand.NewPCG(seed, 1))})
			c.m.Kill()
		})
	})
}

// disarm leaves it at what happened so far.
func (c *powerCut) disarm() { c.once.Do(func() {}) }

// Random changes against a map, with power cuts at random operations.
func TestModel(t *testing.T) {
	steps, cuts := 1500, 0
	if testing.Short() {
		steps = 250
	}
	r := rand.New(rand.NewPCG(3, 4))
	m := blockfs.NewMem()
	s := mustOpen(t, m)
	model, applies := state{}, uint64(0)
	for i := range 12 {
		model[fmt.Sprint("key", i)] = nil
	}
	for range steps {
		u := randomUpdates(r)
		cut := &powerCut{m: m}
		if r.IntN(8) == 0 {
			cut.arm(m.Ops()+1+r.Int64N(6), fates[r.IntN(len(fates))], r.Uint64())
		}
		err := s.Apply(t.Context(), []osd.Assert{{Key: []byte("no such key")}}, u, osd.High)
		cut.returned.Store(true)
		cut.disarm()
		next := model.with(u)
		if cut.after == nil {
			must(t, err)
		} else {
			_ = s.Close()
			cuts++
			m = cut.after
			s = mustOpen(t, m)
			checkSpace(t, s)
			// The index's own work can meet the cut when Apply has returned.
			if !cut.late && model.differs(t, s) == "" {
				next = model
			}
		}
		model = next
		if key := model.differs(t, s); key != "" {
			t.Fatalf("%q differs", key)
		}
		if now := s.durable.Load(); now < applies {
			t.Fatalf("applies went from %d to %d", applies, now)
		} else {
			applies = now
		}
		if r.IntN(100) == 0 {
			must(t, s.Close())
			s = mustOpen(t, m)
			checkSpace(t, s)
		}
	}
	checkSpace(t, s)
	must(t, s.Close())
	t.Logf("%d steps, %d power cuts", steps, cuts)
}

// randomUpdates returns updates of a few of a dozen keys.
func randomUpdates(r *rand.Rand) []osd.Update {
	var u []osd.Update
	for _, i := range r.Perm(12)[:1+r.IntN(4)] {
		key := fmt.Appendf(nil, "key%d", i)
		switch r.IntN(4) {
		case 0:
			u = append(u, osd.Delete(key))
		case 1:
			u = append(u, osd.Set(key, osdtest.Data(r.Uint64(), r.IntN(2000))))
		default:
			u = append(u, osd.Set(key, osdtest.Data(r.Uint64(), r.IntN(200000))))
		}
	}
	return u
}

// A5: the count of Applies tells of no Apply whose log is not durable yet.
func TestAppliesAreDurable(t *testing.T) {
	m := blockfs.NewMem()
	s := mustOpen(t, m)
	s.set(t, "a", nil)
	before, err := s.Info(t.Context())
	must(t, err)
	syncing, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	m.SetHook(func(_ int64, op blockfs.OpInfo) {
		if op.Kind == blockfs.OpSync {
			once.Do(func() { close(syncing); <-release })
		}
	})
	done := make(chan error)
	go func() { done <- s.Apply(t.Context(), nil, []osd.Update{osd.Set([]byte("b"), nil)}, osd.High) }()
	<-syncing
	now, err := s.Info(t.Context())
	must(t, err)
	if now.Applies != before.Applies {
		t.Errorf("%d applies, %d are durable", now.Applies, before.Applies)
	}
	close(release)
	must(t, <-done)
	now, err = s.Info(t.Context())
	must(t, err)
	if now.Applies != before.Applies+1 {
		t.Errorf("%d applies, %d are durable", now.Applies, before.Applies+1)
	}
	must(t, s.Close())
}
