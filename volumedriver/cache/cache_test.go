package cache

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/openvstorage/ovgate/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

var errLoad = errors.New("load failed")

// groupOf makes the bytes of a group: its key, and n bytes in all.
func groupOf(k Key, n int) []byte {
	b := make([]byte, max(n, 16))
	binary.LittleEndian.PutUint64(b, k.Space)
	binary.LittleEndian.PutUint32(b[8:], k.SCO)
	binary.LittleEndian.PutUint32(b[12:], k.Group)
	return b
}

func isGroupOf(b []byte, k Key) bool {
	return len(b) >= 16 && binary.LittleEndian.Uint64(b) == k.Space &&
		binary.LittleEndian.Uint32(b[8:]) == k.SCO && binary.LittleEndian.Uint32(b[12:]) == k.Group
}

// sameShard returns n keys of one shard.
func sameShard(c *Cache, n int) []Key {
	var ks []Key
	for i := uint32(0); len(ks) < n; i++ {
		if k := (Key{Space: 1, SCO: i}); c.of(k) == c.of(Key{Space: 1}) {
			ks = append(ks, k)
		}
	}
	return ks
}

// checkShards compares the counters with what is held.
func checkShards(t *testing.T, c *Cache) {
	t.Helper()
	for i := range c.shard {
		s := &c.shard[i]
		s.mu.Lock()
		var bytes int64
		for k, e := range s.ring {
			bytes += int64(len(e.data))
			if e.slot != k || s.table[e.key] != e {
				t.Errorf("shard %d: entry %d is out of place", i, k)
			}
		}
		if bytes != s.bytes || bytes > s.max || len(s.table) != len(s.ring) {
			t.Errorf("shard %d holds %d bytes in %d entries, counts %d of %d, table %d", i, bytes, len(s.ring), s.bytes, s.max, len(s.table))
		}
		s.mu.Unlock()
	}
}

// TestOneFetch: concurrent readers of a group load it once (C1).
func TestOneFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, k := New(1<<20), Key{1, 2, 3}
		var loads atomic.Int32
		gate := make(chan struct{})
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				b, err := c.Get(t.Context(), k, testUser, func() ([]byte, error) {
					loads.Add(1)
					<-gate
					return groupOf(k, 100), nil
				})
				if err != nil || !isGroupOf(b, k) {
					t.Errorf("%x, %v", b, err)
				}
			})
		}
		synctest.Wait()
		if b := c.Peek(k); b != nil {
			t.Error("Peek shows a group that is still loading")
		}
		close(gate)
		wg.Wait()
		if loads.Load() != 1 || !isGroupOf(c.Peek(k), k) {
			t.Fatalf("%d loads", loads.Load())
		}
		if hits, misses, bytes := c.Stats(); misses != 1 || hits != 50 || bytes != 100 {
			t.Fatalf("%d hits, %d misses, %d bytes", hits, misses, bytes)
		}
		checkShards(t, c)
	})
}

// TestErrorNotKept: all waiters get the error of the load, the next reader loads again.
func TestErrorNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, k := New(1<<20), Key{1, 2, 3}
		gate := make(chan struct{})
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				if _, err := c.Get(t.Context(), k, testUser, func() ([]byte, error) { <-gate; return nil, errLoad }); !errors.Is(err, errLoad) {
					t.Errorf("%v", err)
				}
			})
		}
		synctest.Wait()
		close(gate)
		wg.Wait()
		b, err := c.Get(t.Context(), k, testUser, func() ([]byte, error) { return groupOf(k, 16), nil })
		if err != nil || !isGroupOf(b, k) {
			t.Fatalf("%x, %v", b, err)
		}
		checkShards(t, c)
	})
}

// TestContext: a waiter leaves with its own context, and does not fall with the
// context of who happens to load.
func TestContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, k := New(1<<20), Key{1, 2, 3}
		ctx, cancel := context.WithCancel(t.Context())
		loader, waiter, leaver := make(chan error, 1), make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := c.Get(ctx, k, testUser, func() ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() })
			loader <- err
		}()
		synctest.Wait()
		go func() {
			b, err := c.Get(t.Context(), k, testUser, func() ([]byte, error) { return groupOf(k, 16), nil })
			if err == nil && !isGroupOf(b, k) {
				err = errors.New("wrong content")
			}
			waiter <- err
		}()
		leave, cancelLeave := context.WithCancel(t.Context())
		go func() {
			_, err := c.Get(leave, k, testUser, func() ([]byte, error) { return nil, errLoad })
			leaver <- err
		}()
		synctest.Wait()
		cancelLeave()
		if err := <-leaver; !errors.Is(err, context.Canceled) {
			t.Errorf("who left has %v", err)
		}
		cancel()
		if err := <-loader; !errors.Is(err, context.Canceled) {
			t.Errorf("who loaded has %v", err)
		}
		if err := <-waiter; err != nil {
			t.Errorf("who waited falls with the loader: %v", err)
		}
	})
}

// TestDrop: a dropped group is loaded again; a drop during a load leaves nothing
// wrong behind.
func TestDrop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, k := New(1<<20), Key{1, 2, 3}
		gate := make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.Get(t.Context(), k, testUser, func() ([]byte, error) { <-gate; return groupOf(k, 16), nil })
		}()
		synctest.Wait()
		c.Drop(k)
		c.Drop(Key{9, 9, 9})
		close(gate)
		<-done
		checkShards(t, c)
		c.Drop(k)
		if c.Peek(k) != nil {
			t.Fatal("still there")
		}
		if _, _, bytes := c.Stats(); bytes != 0 {
			t.Fatalf("%d bytes", bytes)
		}
		loaded := false
		if _, err := c.Get(t.Context(), k, testUser, func() ([]byte, error) { loaded = true; return groupOf(k, 16), nil }); err != nil || !loaded {
			t.Fatalf("loaded %t, %v", loaded, err)
		}
		checkShards(t, c)
	})
}

// TestBound: the limit holds whatever is loaded (C3); what is larger than a shard is
// given out but not kept.
func TestBound(t *testing.T) {
	c := New(shards * 1000)
	r := rand.New(rand.NewPCG(1, 1))
	for range 5000 {
		k := Key{r.Uint64N(3), r.Uint32N(50), r.Uint32N(50)}
		n := 16 + r.IntN(1200)
		b, err := c.Get(t.Context(), k, testUser, func() ([]byte, error) { return groupOf(k, n), nil })
		if err != nil || !isGroupOf(b, k) {
			t.Fatalf("%v: %x, %v", k, b, err)
		}
		if _, _, bytes := c.Stats(); bytes > shards*1000 {
			t.Fatalf("%d bytes", bytes)
		}
		if p := c.Peek(k); len(b) > 1000 && p != nil && len(p) > 1000 {
			t.Fatal("kept what is larger than a shard")
		}
	}
	checkShards(t, c)
	none := New(0)
	if b, err := none.Get(t.Context(), Key{}, testUser, func() ([]byte, error) { return groupOf(Key{}, 16), nil }); err != nil || !isGroupOf(b, Key{}) {
		t.Fatalf("a cache of nothing: %v", err)
	}
	checkShards(t, none)
}

// TestClock: what is used between two rounds of the hand stays, what is not goes.
func TestClock(t *testing.T) {
	c := New(shards * 10 * 100)
	ks := sameShard(c, 200)
	load := func(k Key) {
		if _, err := c.Get(t.Context(), k, testUser, func() ([]byte, error) { return groupOf(k, 100), nil }); err != nil {
			t.Fatal(err)
		}
	}
	hot := ks[0]
	load(hot)
	for _, k := range ks[1:] {
		load(k)
		if c.Peek(hot) == nil {
			t.Fatal("a group in constant use was evicted")
		}
	}
	if c.Peek(ks[1]) != nil {
		t.Fatal("a group used once outlived 190 others")
	}
	checkShards(t, c)
}

// TestConcurrent runs everything at once; every reader gets the group it asked for.
func TestConcurrent(t *testing.T) {
	c := New(shards * 2000)
	var wg sync.WaitGroup
	for g := range uint64(8) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(g, 7))
			for range 3000 {
				k := Key{1, r.Uint32N(20), r.Uint32N(10)}
				switch r.IntN(10) {
				case 0:
					c.Drop(k)
				case 1, 2:
					if b := c.Peek(k); b != nil && !isGroupOf(b, k) {
						t.Errorf("%v holds another group", k)
					}
				case 3:
					b, err := c.Get(t.Context(), k, testUser, func() ([]byte, error) { return nil, errLoad })
					if err == nil && !isGroupOf(b, k) || err != nil && !errors.Is(err, errLoad) {
						t.Errorf("%v: %v", k, err)
					}
				default:
					b, err := c.Get(t.Context(), k, testUser, func() ([]byte, error) { return groupOf(k, 16+r.IntN(300)), nil })
					if err == nil && !isGroupOf(b, k) || err != nil && !errors.Is(err, errLoad) {
						t.Errorf("%v: %v", k, err)
					}
				}
			}
		})
	}
	wg.Wait()
	checkShards(t, c)
}
