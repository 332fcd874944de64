package local

import (
	"container/list"
	"errors"
	"sync"

	"github.com/openvstorage/ovgate/internal/blockfs"
)

// fileCache keeps object files open between range reads.
//
// A handle is closed when it is out of the cache and its last user is done. A
// file opened before an invalidation and offered after it could be the old one,
// so it is used once and not kept: drops counts invalidations, and put compares.
type fileCache struct {
	mu     sync.Mutex
	max    int
	byName map[string]*list.Element // of *handle
	lru    list.List                // front: most recently used
	drops  uint64
	closed bool
}

// handle is an open object file. refs counts users plus one for the cache, and
// is guarded by fileCache.mu.
type handle struct {
	name string
	f    blockfs.File
	size int64
	refs int
}

func newFileCache(limit int) *fileCache {
	return &fileCache{max: limit, byName: map[string]*list.Element{}}
}

// get returns an open object with a reference, or nil and the token that put
// needs.
func (c *fileCache) get(name string) (*handle, uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byName[name]
	if !ok {
		return nil, c.drops
	}
	c.lru.MoveToFront(e)
	h := e.Value.(*handle)
	h.refs++
	return h, c.drops
}

// put takes a file that was opened after get returned token, and returns a
// reference to it; the cache keeps it if it may.
func (c *fileCache) put(name string, f blockfs.File, size int64, token uint64) (*handle, error) {
	h := &handle{name: name, f: f, size: size, refs: 1}
	c.mu.Lock()
	if _, ok := c.byName[name]; ok || c.drops != token || c.closed {
		c.mu.Unlock()
		return h, nil
	}
	h.refs++
	c.byName[name] = c.lru.PushFront(h)
	var idle []*handle
	for c.lru.Len() > c.max {
		idle = c.evict(c.lru.Back(), idle)
	}
	c.mu.Unlock()
	return h, closeAll(idle)
}

// evict takes an entry out and appends it to idle when nobody uses it; the lock
// is held.
func (c *fileCache) evict(e *list.Element, idle []*handle) []*handle {
	h := c.lru.Remove(e).(*handle)
	delete(c.byName, h.name)
	h.refs--
	if h.refs == 0 {
		idle = append(idle, h)
	}
	return idle
}

// release gives a reference back.
func (c *fileCache) release(h *handle) error {
	c.mu.Lock()
	h.refs--
	last := h.refs == 0
	c.mu.Unlock()
	if last {
		return h.f.Close()
	}
	return nil
}

// drop forgets an object whose name now means another file, or none.
func (c *fileCache) drop(name string) error {
	c.mu.Lock()
	c.drops++
	var idle []*handle
	if e, ok := c.byName[name]; ok {
		idle = c.evict(e, nil)
	}
	c.mu.Unlock()
	return closeAll(idle)
}

// close forgets everything and keeps nothing from now on.
func (c *fileCache) close() error {
	c.mu.Lock()
	c.closed = true
	var idle []*handle
	for c.lru.Len() > 0 {
		idle = c.evict(c.lru.Back(), idle)
	}
	c.mu.Unlock()
	return closeAll(idle)
}

func closeAll(handles []*handle) error {
	var err error
	for _, h := range handles {
		err = errors.Join(err, h.f.Close())
	}
	return err
}
