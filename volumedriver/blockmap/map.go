// Package blockmap maps the clusters of a vDisk to where their data are.
//
// Map holds the base: for each cluster the SCO location at or below the committed
// head. Overlay holds what is newer, by journal location; it is bounded by the
// journal. A lookup asks the overlay first.
//
// # Map
//
//	root  []*node    one per 2 GiB at 4 KiB clusters, grown with the vDisk
//	node  1024 *ref
//	ref   a page: in memory, in a segment, or both (page.go)
//	page  512 Loc
//
//	Loc   63      32 31    24 23        8 7     0
//	      | number  | level | offset      | flags |
//	      number: SCO number; level: whose SCO, counted down the chain from the
//	      oldest ancestor, 0, to the vDisk itself (chains to 255; 0 without a parent);
//	      offset: cluster in the SCO; flags: bit 0 mapped
//
// Counted from the oldest, a location means the same in every map of a chain. So a
// clone starts with the nodes and pages of its parent's map, and each map copies
// what it changes (Clone).
//
// # Memory and segments
//
// The pages of all maps of a node share a budget (Memory). A page that was changed
// is dirty: it stays in memory until Spill has written it to a segment, a file of
// pages that is not changed any more. From then on it is dropped when room is needed
// and read again, verified by its checksum, when a lookup misses it. Nodes and refs,
// some 42 bytes for 4 KiB of pages, always stay in memory.
//
// A lookup never reads: it says which pages it lacks (Want), the caller reads them
// without its lock and looks again. A change needs the pages that it changes in part
// in memory: Stage reads them before the lock is taken. So neither lookups nor
// changes wait for a disk under a lock.
//
// # Checkpoint
//
// An index says which page is in which segment, as of a TLog, so that a restart reads
// the index, replays only what came after, and pages when they are needed (index.go
// for the format).
//
// # Invariants
//
//	M1  Base locations are at or below the committed head, so a page can be
//	    evicted or checkpointed at any time.
//	M2  A point of the overlay is newer than every trim of the overlay over it.
//	M3  When a batch commits, its entries move to the base and leave the overlay in
//	    one step of the owner's lock; batches commit in order.
//	M4  A checkpoint is the map of one head: replaying the TLogs from its NextTLog to
//	    those of a later head of the same line gives that head's map.
//	M5  A node or page that two maps can reach is never written: a map writes only
//	    those that it made since it was last cloned.
//	M6  The content of a page that a segment has never changes; what is read back is
//	    that content, by its checksum, or an error.
//	M7  A dirty page stays in memory until a segment has it.
//
// Nothing here locks but Memory: the volume's map lock guards lookups against
// changes. Whatever changes a map, Stage, Spill and Rewrite included, is called by one
// goroutine; only what is said to need the lock needs it. A map that is never written
// again, such as that of a snapshot, can be read and cloned by many.
package blockmap

import (
	"context"
	"fmt"
	"sync/atomic"
)

const (
	// PageEntries is the number of clusters of a page.
	PageEntries = 512
	nodePages   = 1024
	nodeEntries = PageEntries * nodePages
	refBytes    = 32
	nodeBytes   = (8+2)*nodePages + nodePages/8 + 8

	flagMapped = 1
)

// Loc is the location of a cluster; the zero Loc means "no data: zeros".
type Loc uint64

// MakeLoc returns the location of a cluster in an SCO.
func MakeLoc(number uint32, level uint8, offset uint16) Loc {
	return Loc(number)<<32 | Loc(level)<<24 | Loc(offset)<<8 | flagMapped
}

// Mapped reports whether there is data.
func (l Loc) Mapped() bool { return l&flagMapped != 0 }

// Number returns the SCO number.
func (l Loc) Number() uint32 { return uint32(l >> 32) }

// Level returns whose SCO it is, counted from the oldest ancestor.
func (l Loc) Level() uint8 { return uint8(l >> 24) }

// Offset returns the cluster's index in the SCO.
func (l Loc) Offset() uint16 { return uint16(l >> 8) }

func (l Loc) String() string {
	if !l.Mapped() {
		return "-"
	}
	return fmt.Sprintf("%d/%08x+%d", l.Level(), l.Number(), l.Offset())
}

// node keeps what is not a location beside the pages, so that a page is 4 KiB.
type node struct {
	count int32             // pages with content
	used  [nodePages]uint16 // mapped entries of each page
	own   [nodePages / 64]uint64
	pages [nodePages]*ref
}

func (n *node) owns(i uint64) bool { return n.own[i/64]&(1<<(i%64)) != 0 }

// Map is the base map. Not safe for concurrent use, but for Get, NextMapped and
// Clone of one that is Frozen.
type Map struct {
	clusters uint64
	root     []*node
	own      []bool // which nodes no other map can reach (M5)
	mapped   uint64
	bytes    int64 // own nodes, refs and dirty pages; Spill, without the lock, adds atomically
	frozen   bool

	mem    *Memory        // nil: unbounded
	dirty  []uint64       // numbers of dirty pages; may name others
	nDirty int            // dirty pages
	staged map[*ref]*page // clean pages that a change is about to change
}

// New returns an empty map of n clusters whose pages count in mem; nil: in none.
func New(n uint64, mem *Memory) *Map {
	m := &Map{mem: mem}
	m.Grow(n)
	return m
}

// Grow sets the number of clusters; it never shrinks.
func (m *Map) Grow(n uint64) {
	if n <= m.clusters {
		return
	}
	m.clusters = n
	if want := nodesFor(n); want > len(m.root) {
		root, own := make([]*node, want), make([]bool, want)
		copy(root, m.root)
		copy(own, m.own)
		m.root, m.own = root, own
	}
}

func nodesFor(clusters uint64) int { return int((clusters + nodeEntries - 1) / nodeEntries) }

// Freeze says that the map is never written again. Release is called on what it
// returns, when nobody uses the map any more.
func (m *Map) Freeze() *Map {
	kept := *m
	m.own = make([]bool, len(m.root))
	m.frozen = true
	return &kept
}

// Clone returns a map of n clusters with the content of m, of which no cluster at
// or above n is mapped. The two share memory until one is written (M5). A map that is
// not frozen must not be cloned while Memory counts dirty pages of it.
func (m *Map) Clone(n uint64) *Map {
	c := &Map{clusters: n, root: make([]*node, nodesFor(n)), own: make([]bool, nodesFor(n)), mapped: m.mapped, mem: m.mem}
	copy(c.root, m.root)
	if !m.frozen { // what is shared from now on counts once, with the clone
		clear(m.own)
		c.bytes, m.bytes = m.bytes, 0
		c.dirty, c.nDirty, m.dirty, m.nDirty = m.dirty, m.nDirty, nil, 0
	}
	return c
}

// Clusters returns the map's size.
func (m *Map) Clusters() uint64 { return m.clusters }

// Mapped returns how many clusters have data.
func (m *Map) Mapped() uint64 { return m.mapped }

// MemoryBytes returns about how much memory the map takes beyond what it had of
// the map that it was cloned from, pages that can be dropped left out.
func (m *Map) MemoryBytes() int64 { return atomic.LoadInt64(&m.bytes) + int64(9*len(m.root)) }

// DirtyPages returns how many pages no segment has yet.
func (m *Map) DirtyPages() int { return m.nDirty }

// Get returns the location of cluster c, which is below Clusters; false if its page
// is neither in memory nor in w, which then wants it.
func (m *Map) Get(c uint64, w *Want) (Loc, bool) {
	n := m.root[c/nodeEntries]
	if n == nil {
		return 0, true
	}
	r := n.pages[c/PageEntries%nodePages]
	if r == nil {
		return 0, true
	}
	p := r.get()
	if p == nil {
		if p = w.find(r, c/PageEntries); p == nil {
			return 0, false
		}
	}
	return p[c%PageEntries], true
}

// Staged returns the location of cluster c, which was staged as a whole.
func (m *Map) Staged(c uint64) Loc {
	r := m.node(c / nodeEntries).ref(c / PageEntries % nodePages)
	if r == nil {
		return 0
	}
	return m.content(r)[c%PageEntries]
}

// content returns a page that is in memory or staged.
func (m *Map) content(r *ref) *page {
	if p := m.staged[r]; p != nil {
		return p
	}
	if r.seg == nil {
		return r.data.Load()
	}
	panic("blockmap: change of a page that was not staged")
}

// Stage reads what a change of the clusters [c, c+n) needs to know of the pages as
// they are: those that it changes in part, or with whole all of them. They stay in
// memory until Unstage. Without the lock.
func (m *Map) Stage(ctx context.Context, c, n uint64, whole bool) error {
	end := min(c+n, m.clusters)
	for c < end {
		stop := min(end, c-c%PageEntries+PageEntries)
		if m.root[c/nodeEntries] == nil {
			c = min(end, c-c%nodeEntries+nodeEntries)
			continue
		}
		if whole || stop-c < PageEntries {
			if err := m.stage(ctx, c/PageEntries); err != nil {
				return err
			}
		}
		c = stop
	}
	return nil
}

// stage reads page n. One that is in memory is held too: it might be dropped.
func (m *Map) stage(ctx context.Context, n uint64) error {
	r := m.node(n / nodePages).ref(n % nodePages)
	if r == nil || r.seg == nil || m.staged[r] != nil {
		return nil
	}
	p, err := r.load(ctx, n)
	if err != nil {
		return err
	}
	if m.staged == nil {
		m.staged = map[*ref]*page{}
	}
	m.staged[r] = p
	return nil
}

// Unstage lets go of the staged pages.
func (m *Map) Unstage() { clear(m.staged) }

// ownNode returns node ni to be written: made, or copied, if need be (M5).
func (m *Map) ownNode(ni uint64) *node {
	n := m.root[ni]
	if n != nil && m.own[ni] {
		return n
	}
	if m.frozen {
		panic("blockmap: write of a frozen map")
	}
	c := &node{}
	if n != nil {
		*c = *n
		c.own = [nodePages / 64]uint64{}
	}
	m.root[ni], m.own[ni] = c, true
	m.bytes += nodeBytes
	return c
}

// ownPage returns page pi of an own node to be written (M5, M6). blank: all of it will
// be, so what it holds now is of no use.
func (m *Map) ownPage(ni uint64, n *node, pi uint64, blank bool) *page {
	r := n.pages[pi]
	own := n.owns(pi)
	if r != nil && own && r.seg == nil {
		return r.data.Load()
	}
	p := &page{}
	switch {
	case r == nil:
		n.count++
	case blank:
	default:
		*p = *m.content(r)
	}
	if own {
		m.forget(r)
	}
	m.newRef(n, ni*nodePages+pi, p)
	return p
}

// newRef makes p the dirty page number of its node.
func (m *Map) newRef(n *node, number uint64, p *page) {
	r := &ref{}
	r.data.Store(p)
	pi := number % nodePages
	n.pages[pi] = r
	n.own[pi/64] |= 1 << (pi % 64)
	m.dirty = append(m.dirty, number)
	m.nDirty++
	m.bytes += PageBytes + refBytes
	m.mem.addDirty(PageBytes)
}

// forget ends an own page.
func (m *Map) forget(r *ref) {
	delete(m.staged, r)
	m.bytes -= refBytes
	if r.seg != nil {
		r.seg.live--
		r.seg.Owner.Memory.drop(r)
		return
	}
	m.nDirty--
	m.bytes -= PageBytes
	m.mem.addDirty(-PageBytes)
}

// dropPage takes page pi out of an own node.
func (m *Map) dropPage(n *node, pi uint64) {
	if n.owns(pi) {
		n.own[pi/64] &^= 1 << (pi % 64)
		m.forget(n.pages[pi])
	}
	m.mapped -= uint64(n.used[pi])
	n.used[pi], n.pages[pi] = 0, nil
	n.count--
}

// dropNode takes node ni out.
func (m *Map) dropNode(ni uint64) {
	if m.own[ni] {
		m.bytes -= nodeBytes
	}
	m.root[ni], m.own[ni] = nil, false
}

// Set puts a mapped location at cluster c, whose page is staged.
func (m *Map) Set(c uint64, l Loc) { m.SetRun(c, 1, l) }

// SetRun puts mapped locations at n clusters from c: l and those that follow it in
// its SCO. Pages that it fills in part are staged; needs the lock.
func (m *Map) SetRun(c, n uint64, l Loc) {
	for end := c + n; c < end; {
		stop := min(end, c-c%PageEntries+PageEntries)
		ni, pi := c/nodeEntries, c/PageEntries%nodePages
		nd := m.ownNode(ni)
		blank := stop-c == PageEntries
		p := m.ownPage(ni, nd, pi, blank)
		before := nd.used[pi]
		for ; c < stop; c++ {
			if e := &p[c%PageEntries]; !blank && !e.Mapped() {
				nd.used[pi]++
			}
			p[c%PageEntries] = l
			l += 1 << 8
		}
		if blank {
			nd.used[pi] = PageEntries
		}
		m.mapped += uint64(nd.used[pi]) - uint64(before)
	}
}

// setPage replaces page n as a whole.
func (m *Map) setPage(n uint64, p *page) {
	used := uint16(p.mapped())
	ni, pi := n/nodePages, n%nodePages
	if nd := m.root[ni]; used == 0 && (nd == nil || nd.pages[pi] == nil) {
		return
	}
	nd := m.ownNode(ni)
	if used == 0 {
		m.dropPage(nd, pi)
		if nd.count == 0 {
			m.dropNode(ni)
		}
		return
	}
	*m.ownPage(ni, nd, pi, true) = *p
	m.mapped += uint64(used) - uint64(nd.used[pi])
	nd.used[pi] = used
}

// Clear unmaps n clusters from c; pages that it clears in part are staged. Needs the
// lock. The time is in the pages that exist, not in n.
func (m *Map) Clear(c, n uint64) {
	end := min(c+n, m.clusters)
	for c < end {
		ni := c / nodeEntries
		stop := min(end, (ni+1)*nodeEntries)
		if m.root[ni] != nil {
			m.clearNode(ni, c%nodeEntries, c%nodeEntries+stop-c)
		}
		c = stop
	}
}

// clearNode unmaps [from, to) of a node, in clusters relative to it.
func (m *Map) clearNode(ni, from, to uint64) {
	for from < to {
		pi := from / PageEntries
		stop := min(to, (pi+1)*PageEntries)
		if m.root[ni].pages[pi] != nil {
			m.clearPage(ni, m.ownNode(ni), pi, from%PageEntries, from%PageEntries+stop-from)
		}
		from = stop
	}
	if nd := m.root[ni]; nd.count == 0 {
		m.dropNode(ni)
	}
}

// clearPage unmaps [from, to) of a page of an own node.
func (m *Map) clearPage(ni uint64, nd *node, pi, from, to uint64) {
	if to-from == PageEntries {
		m.dropPage(nd, pi)
		return
	}
	have := m.content(nd.pages[pi])
	var p *page
	for i := from; i < to; i++ {
		if !have[i].Mapped() {
			continue
		}
		if p == nil {
			p = m.ownPage(ni, nd, pi, false)
			have = p
		}
		p[i] = 0
		nd.used[pi]--
		m.mapped--
	}
	if nd.used[pi] == 0 {
		m.dropPage(nd, pi)
	}
}

// NextMapped returns the first cluster at or after c that has data; Clusters if
// there is none; false if a page is missing on the way, which w then wants. The time
// is in the nodes and pages that exist.
func (m *Map) NextMapped(c uint64, w *Want) (uint64, bool) {
	for c < m.clusters {
		r, n := m.nextDifferent(nil, c/PageEntries)
		if r == nil {
			break
		}
		c = max(c, n*PageEntries)
		if m.root[n/nodePages].used[n%nodePages] == PageEntries {
			return c, true
		}
		p := r.get()
		if p == nil {
			if p = w.find(r, n); p == nil {
				return c, false
			}
		}
		for ; c < (n+1)*PageEntries; c++ {
			if p[c%PageEntries].Mapped() {
				return c, true
			}
		}
	}
	return m.clusters, true
}

// nextDifferent returns the first page at or after number n that is not the page of
// base, and its number; nil, with a number, for one that only base has, nil and
// noPage at the end. Without base every page with content is different.
func (m *Map) nextDifferent(base *Map, n uint64) (*ref, uint64) {
	for ni := n / nodePages; ni < uint64(len(m.root)); ni++ {
		nd, bd := m.root[ni], base.node(ni)
		if nd == bd {
			continue
		}
		first := uint64(0)
		if ni == n/nodePages {
			first = n % nodePages
		}
		for pi := first; pi < nodePages; pi++ {
			if r := nd.ref(pi); r != bd.ref(pi) {
				return r, ni*nodePages + pi
			}
		}
	}
	return nil, noPage
}

// noPage is no page's number.
const noPage = ^uint64(0)

func (m *Map) node(ni uint64) *node {
	if m == nil || ni >= uint64(len(m.root)) {
		return nil
	}
	return m.root[ni]
}

func (n *node) ref(pi uint64) *ref {
	if n == nil {
		return nil
	}
	return n.pages[pi]
}

// Release takes a map that is not used any more out of the budget.
func (m *Map) Release() {
	m.mem.addDirty(-PageBytes * int64(m.nDirty))
	var refs []*ref
	for ni, nd := range m.root {
		if nd == nil || !m.own[ni] {
			continue
		}
		for pi, r := range nd.pages {
			if r != nil && r.seg != nil && nd.owns(uint64(pi)) {
				refs = append(refs, r)
			}
		}
	}
	m.nDirty, m.dirty, m.root, m.own, m.clusters, m.bytes, m.mapped = 0, nil, nil, nil, 0, 0, 0
	if m.mem != nil {
		m.mem.release(refs)
	}
}
