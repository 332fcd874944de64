// Package cache is the read cache of a node: groups of SCOs (64 KiB of data and
// their checksums) in memory, and behind it in files on READ disks, keyed by where
// they are, not by what vDisk address they serve. SCOs are immutable, so an entry
// never goes stale.
//
// Invariants:
//
//	C1  One fetch for concurrent readers of a group: the first loads, others wait.
//	C2  Bytes in the cache are as the backend gave them; the reader verifies the
//	    checksum of each cluster it uses, and drops the group when it fails.
//	C3  Memory stays within the limit plus what readers hold at the moment.
//	C7  A user has about its quota at most, in memory and on the disks together: what is
//	    beyond takes the place of its own groups, never of others'.
//
// Eviction is CLOCK per shard: a group used again since the hand came by stays. What
// leaves memory is offered to the disks (C4-C6, see Disk); what is not in memory is
// asked of them before the backend.
package cache

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
)

// shards spreads lock contention; more than the cores of a storage node.
const shards = 16

// Key names a group.
type Key struct {
	Space uint64 // handle of the vDisk that owns the SCO
	SCO   uint32
	Group uint32
}

// Mode says what of a user is kept.
type Mode int32

// Modes.
const (
	OnRead  Mode = iota // what it reads
	OnWrite             // also what it writes, see Put
	None                // next to nothing, see reading; what others keep is used all the same
)

// reading is what a user that keeps nothing has in memory for what it is reading, in
// bytes: the pieces of a few large reads, and what is read ahead of it.
const reading = 8 << 20

// User is whose groups they are that it loads, a vDisk. The zero value keeps what is
// read, without a bound of its own. Safe for concurrent use.
type User struct {
	mode         atomic.Int32
	quota, bytes atomic.Int64
}

// Set changes what is kept from now on; quota is in bytes, 0: no bound. What is kept
// stays until something takes its place.
func (u *User) Set(m Mode, quota int64) {
	u.mode.Store(int32(m))
	u.quota.Store(quota)
}

// Mode returns what is kept.
func (u *User) Mode() Mode { return Mode(u.mode.Load()) }

// Bytes returns what is kept in memory and on the disks.
func (u *User) Bytes() int64 { return u.bytes.Load() }

// over tells whether n more bytes are more than the user may have.
func (u *User) over(n int64) bool {
	q := u.quota.Load()
	if u.Mode() == None && (q == 0 || q > reading) {
		q = reading
	}
	return q > 0 && u.bytes.Load()+n > q
}

// Cache is safe for concurrent use.
type Cache struct {
	shard        [shards]shard
	disks        []*Disk
	hits, misses atomic.Uint64
}

type shard struct {
	mu    sync.Mutex
	table map[Key]*entry
	ring  []*entry
	hand  int
	own   int // hand of makeRoom
	bytes int64
	max   int64
	disks []*Disk
}

type entry struct {
	key  Key
	user *User
	data []byte
	err  error
	left bool          // the load failed when the ctx of its reader had ended
	done chan struct{} // closed when loaded
	used bool
	uses int // since it is here
	slot int // in ring; -1 while loading
}

// New returns a cache of at most maxBytes of memory before disks, which it closes.
func New(maxBytes int64, disks ...*Disk) *Cache {
	c := &Cache{disks: disks}
	for i := range c.shard {
		c.shard[i].table = map[Key]*entry{}
		c.shard[i].max = maxBytes / shards
		c.shard[i].disks = disks
	}
	return c
}

func (k Key) hash() uint64 {
	return k.Space*0x9e3779b97f4a7c15 ^ uint64(k.SCO)*0xbf58476d1ce4e5b9 ^ uint64(k.Group)*0x94d049bb133111eb
}

func (c *Cache) of(k Key) *shard { return &c.shard[k.hash()>>60] }

// diskOf returns the disk of a group; nil: there are none.
func diskOf(disks []*Disk, k Key) *Disk {
	if len(disks) == 0 {
		return nil
	}
	return disks[k.hash()>>32%uint64(len(disks))]
}

// Peek returns a group if it is in memory. The bytes are read-only.
func (c *Cache) Peek(k Key) []byte {
	s := c.of(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.table[k]
	if e == nil || e.slot < 0 {
		return nil
	}
	e.used = true
	e.uses++
	c.hits.Add(1)
	return e.data
}

// Get returns a group, loading it for a user if need be. A failed load is not kept. A
// waiter whose ctx ends leaves with its error; the end of the loading reader's
// ctx is not an answer to the others, of whom one loads anew.
func (c *Cache) Get(ctx context.Context, k Key, u *User, load func() ([]byte, error)) ([]byte, error) {
	s := c.of(k)
	s.mu.Lock()
	for e := s.table[k]; e != nil; e = s.table[k] {
		e.used = true
		e.uses++
		s.mu.Unlock()
		c.hits.Add(1)
		select {
		case <-e.done:
			if !e.left {
				return e.data, e.err
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		s.mu.Lock()
	}
	e := &entry{key: k, user: u, done: make(chan struct{}), slot: -1}
	s.table[k] = e
	s.mu.Unlock()
	c.misses.Add(1)
	if d := diskOf(c.disks, k); d != nil {
		e.data = d.Get(k)
	}
	if e.data == nil {
		e.data, e.err = load()
	}
	e.left = e.err != nil && ctx.Err() != nil
	s.mu.Lock()
	if s.table[k] == e && (e.err != nil || !s.insert(e)) {
		delete(s.table, k)
	}
	s.mu.Unlock()
	close(e.done)
	return e.data, e.err
}

// Put keeps a group that its user just wrote, unless it is there or the user may have no
// more. data must not change any more.
func (c *Cache) Put(k Key, u *User, data []byte) {
	s := c.of(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.table[k] != nil {
		return
	}
	e := &entry{key: k, user: u, data: data, done: make(chan struct{}), slot: -1}
	close(e.done)
	if s.table[k] = e; !s.insert(e) {
		delete(s.table, k)
	}
}

// ownVictims is how many entries are looked at for one of a user that is at its quota.
const ownVictims = 64

// makeRoom evicts groups of a user until it may have n more bytes (C7); false: it may not.
func (s *shard) makeRoom(u *User, n int64) bool {
	for look := 0; u.over(n); look++ {
		if look == ownVictims || len(s.ring) == 0 {
			return false
		}
		// The hand goes on: what takes the place of the one removed is the newest.
		v := s.ring[s.own%len(s.ring)]
		s.own++
		if v.user == u {
			s.remove(v)
			look = 0
		}
	}
	return true
}

// insert adds a loaded entry, if it is to be kept, and evicts until the shard fits (C3).
func (s *shard) insert(e *entry) bool {
	n := int64(len(e.data))
	if n > s.max || !s.makeRoom(e.user, n) {
		return false
	}
	e.user.bytes.Add(n)
	e.slot = len(s.ring)
	s.ring = append(s.ring, e)
	s.bytes += int64(len(e.data))
	for s.bytes > s.max && len(s.ring) > 1 {
		if s.hand >= len(s.ring) {
			s.hand = 0
		}
		v := s.ring[s.hand]
		if v.used || v == e {
			v.used = false
			s.hand++
			continue
		}
		s.remove(v)
		if d := diskOf(s.disks, v.key); d != nil {
			d.Offer(v.key, v.user, v.data, v.uses)
		}
	}
	return true
}

// remove takes a loaded entry out.
func (s *shard) remove(v *entry) {
	last := len(s.ring) - 1
	s.ring[v.slot] = s.ring[last]
	s.ring[v.slot].slot = v.slot
	s.ring[last] = nil
	s.ring = s.ring[:last]
	s.bytes -= int64(len(v.data))
	v.user.bytes.Add(-int64(len(v.data)))
	delete(s.table, v.key)
}

// Drop forgets a group (C2).
func (c *Cache) Drop(k Key) {
	s := c.of(k)
	s.mu.Lock()
	if e := s.table[k]; e != nil && e.slot >= 0 {
		s.remove(e)
	}
	s.mu.Unlock()
	if d := diskOf(c.disks, k); d != nil {
		d.Drop(k)
	}
}

// OnDisk tells whether a disk has a group.
func (c *Cache) OnDisk(k Key) bool {
	d := diskOf(c.disks, k)
	if d == nil {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	_, ok := d.index[k]
	return ok && !d.resting()
}

// Disks returns the state of each disk.
func (c *Cache) Disks() []DiskStats {
	var out []DiskStats
	for _, d := range c.disks {
		out = append(out, d.Stats())
	}
	return out
}

// Close closes the disks.
func (c *Cache) Close() error {
	var errs []error
	for _, d := range c.disks {
		errs = append(errs, d.Close())
	}
	return errors.Join(errs...)
}

// Stats returns hits and misses since the start and the bytes held.
func (c *Cache) Stats() (hits, misses uint64, bytes int64) {
	for i := range c.shard {
		s := &c.shard[i]
		s.mu.Lock()
		bytes += s.bytes
		s.mu.Unlock()
	}
	return c.hits.Load(), c.misses.Load(), bytes
}
