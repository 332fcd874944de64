package lru

import (
	"sync"
	"sync/atomic"
	"testing"
)

func has(c *Cache[string, int], key string) bool {
	_, ok := c.Get(key)
	return ok
}

// TestBound: the least recently used go first, and what is larger than all is not kept.
func TestBound(t *testing.T) {
	c := New[string, int](10)
	for i, key := range []string{"a", "b", "c"} {
		c.Put(key, i, 3, c.Token())
	}
	if !has(c, "a") { // used: b is the oldest now
		t.Fatal("a is gone")
	}
	c.Put("d", 3, 4, c.Token())
	if has(c, "b") || !has(c, "a") || !has(c, "c") || !has(c, "d") {
		t.Fatalf("other than b went: %d bytes", c.used)
	}
	c.Put("a", 7, 5, c.Token()) // larger than before, in the place of itself and c
	if v, _ := c.Get("a"); v != 7 || has(c, "c") || c.used != 9 {
		t.Fatalf("a = %d, %d bytes", v, c.used)
	}
	c.Put("a", 8, 11, c.Token())
	if has(c, "a") || c.used != 4 || len(c.byKey) != c.order.Len() {
		t.Fatalf("too large a value is kept, or its old one: %d bytes", c.used)
	}
}

// TestChange: nothing that was read before a change, or beside it, is kept.
func TestChange(t *testing.T) {
	c := New[string, int](10)
	c.Put("a", 1, 1, c.Token())
	before := c.Token()
	end := c.Change("a")
	during := c.Token()
	if has(c, "a") {
		t.Fatal("the old value is there during the change")
	}
	for _, token := range []uint64{before, during} {
		if c.Put("a", 1, 1, token); has(c, "a") {
			t.Fatal("kept during the change")
		}
	}
	end()
	for _, token := range []uint64{before, during} {
		if c.Put("a", 1, 1, token); has(c, "a") {
			t.Fatal("what was read before or beside the change is kept after it")
		}
	}
	if c.Put("a", 2, 1, c.Token()); !has(c, "a") {
		t.Fatal("what was read after the change is not kept")
	}
}

// TestNeverOlder: beside a writer no reader sees a value older than one that was seen.
func TestNeverOlder(t *testing.T) {
	c := New[string, int64](1 << 20)
	var index, seen atomic.Int64
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		defer close(done)
		for range 5000 {
			end := c.Change("k")
			index.Add(1)
			end()
		}
	})
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				least := seen.Load()
				v, ok := c.Get("k")
				if !ok {
					token := c.Token()
					v = index.Load()
					c.Put("k", v, 1, token)
				}
				if v < least {
					t.Errorf("%d after %d", v, least)
					return
				}
				for was := seen.Load(); was < v && !seen.CompareAndSwap(was, v); {
					was = seen.Load()
				}
			}
		})
	}
	wg.Wait()
}
