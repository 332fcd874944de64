package client

import (
	"container/list"
	"sync"

	"github.com/openvstorage/ovgate/alba/layout"
)

// manifestCache keeps decoded manifests, least recently used out first.
type manifestCache struct {
	mu    sync.Mutex
	max   int64
	used  int64
	byKey map[cacheKey]*list.Element
	lru   list.List // front: most recently used; of *cached
	drops uint64
}

type cacheKey struct {
	ns   uint64
	name string
}

type cached struct {
	key  cacheKey
	m    *layout.Manifest
	size int64
}

func newManifestCache(limit int64) *manifestCache {
	return &manifestCache{max: limit, byKey: map[cacheKey]*list.Element{}}
}

func (c *manifestCache) get(ns uint64, name string) *layout.Manifest {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byKey[cacheKey{ns, name}]
	if !ok {
		return nil
	}
	c.lru.MoveToFront(e)
	return e.Value.(*cached).m
}

// token is taken before a manifest is read: put keeps it only if nothing was
// dropped since, else it could be older than the change that dropped it.
func (c *manifestCache) token(uint64, string) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.drops
}

func (c *manifestCache) put(ns uint64, name string, m *layout.Manifest, token uint64) {
	key := cacheKey{ns, name}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.drops != token {
		return
	}
	c.remove(key)
	e := &cached{key: key, m: m, size: memory(m)}
	if e.size > c.max {
		return
	}
	c.byKey[key] = c.lru.PushFront(e)
	c.used += e.size
	for c.used > c.max {
		c.remove(c.lru.Back().Value.(*cached).key)
	}
}

func (c *manifestCache) drop(ns uint64, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drops++
	c.remove(cacheKey{ns, name})
}

// remove takes an entry out; the lock is held.
func (c *manifestCache) remove(key cacheKey) {
	e, ok := c.byKey[key]
	if !ok {
		return
	}
	c.used -= c.lru.Remove(e).(*cached).size
	delete(c.byKey, key)
}

// memory estimates what a decoded manifest takes, in bytes.
func memory(m *layout.Manifest) int64 {
	const fixed, perFragment, perPiece = 400, 96, 8
	n := int64(fixed + len(m.Name))
	for _, chunk := range m.Fragments {
		for _, f := range chunk {
			n += perFragment + int64(f.Index.Pieces())*perPiece
		}
	}
	return n
}
