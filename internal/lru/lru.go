// Package lru keeps values of bounded size in memory, least recently used out first, beside
// an index that others change meanwhile.
//
//	reader                               writer
//	  t := Token()                         end := Change(key)
//	  v := read of the index               change of the index
//	  Put(key, v, size, t)                 end()
//
// L1: Get never returns what was read before a Change of its key began, once Change has returned.
// L2: what is kept takes no more than the limit, by the sizes given.
package lru

import (
	"container/list"
	"sync"
)

// Cache is safe for concurrent use.
type Cache[K comparable, V any] struct {
	mu       sync.Mutex
	max      int64
	used     int64
	byKey    map[K]*list.Element
	order    list.List // front: most recently used; of *kept
	changes  uint64    // that began or ended
	changing int       // under way
}

type kept[K comparable, V any] struct {
	key   K
	value V
	size  int64
}

// New returns a cache of values of limit bytes together.
func New[K comparable, V any](limit int64) *Cache[K, V] {
	return &Cache[K, V]{max: limit, byKey: map[K]*list.Element{}}
}

// Get returns the value of a key, if it is kept.
func (c *Cache[K, V]) Get(key K) (value V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byKey[key]
	if !ok {
		return value, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*kept[K, V]).value, true
}

// Token is taken before a value is read, for Put.
func (c *Cache[K, V]) Token() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changes
}

// Put keeps a value of size bytes, unless anything was changed since its token was taken:
// it could be older than the change.
func (c *Cache[K, V]) Put(key K, value V, size int64, token uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changes != token || c.changing > 0 {
		return
	}
	c.remove(key)
	if size > c.max {
		return
	}
	c.byKey[key] = c.order.PushFront(&kept[K, V]{key, value, size})
	c.used += size
	for c.used > c.max {
		c.remove(c.order.Back().Value.(*kept[K, V]).key)
	}
}

// Change forgets what keys had, and keeps nothing more of any key until end is called: that is
// after the change.
func (c *Cache[K, V]) Change(keys ...K) (end func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes++
	c.changing++
	for _, key := range keys {
		c.remove(key)
	}
	return c.changed
}

func (c *Cache[K, V]) changed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes++
	c.changing--
}

// remove takes a key out; the lock is held.
func (c *Cache[K, V]) remove(key K) {
	e, ok := c.byKey[key]
	if !ok {
		return
	}
	c.used -= c.order.Remove(e).(*kept[K, V]).size
	delete(c.byKey, key)
}
