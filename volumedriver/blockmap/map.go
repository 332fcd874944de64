// Package blockmap maps the clusters of a vDisk to where their data are.
//
// Map holds the base: for each cluster the SCO location at or below the committed
// head. Overlay holds what is newer, by journal location; it is bounded by the
// journal. A lookup asks the overlay first.
//
// # Map
//
//	root  []*node    one per 2 GiB at 4 KiB clusters, grown with the vDisk
//	node  1024 *page
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
// # Checkpoint
//
// A file that holds the pages as of some TLog, so that a restart replays only what
// came after (see checkpoint.go for the format).
//
// # Invariants
//
//	M1  Base locations are at or below the committed head, so a page can be
//	    evicted or checkpointed at any time.
//	M2  A point of the overlay is newer than every trim of the overlay over it.
//	M3  When a batch commits, its entries move to the base and leave the overlay in
//	    one step of the owner's lock; batches commit in order.
//	M4  A checkpoint may hold pages newer than its first TLog to replay, never
//	    newer than its last: replaying from first to a head at or above last
//	    gives that head's map.
//	M5  A node or page that two maps can reach is never written: a map writes only
//	    those that it made since it was last cloned.
//
// Nothing here locks: the volume's map lock guards both. A map that is never
// written again, such as that of a snapshot, can be read and cloned by many.
package blockmap

import "fmt"

const (
	// PageEntries is the number of clusters of a page.
	PageEntries = 512
	nodePages   = 1024
	nodeEntries = PageEntries * nodePages
	pageBytes   = 8 * PageEntries
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

type page [PageEntries]Loc

// node keeps what is not a location beside the pages, so that a page is 4 KiB.
type node struct {
	count int32             // pages with content
	used  [nodePages]uint16 // mapped entries of each page
	own   [nodePages / 64]uint64
	pages [nodePages]*page
}

func (n *node) owns(i uint64) bool { return n.own[i/64]&(1<<(i%64)) != 0 }

// Map is the base map. Not safe for concurrent use, but for Get, NextMapped and
// Clone of one that is Frozen.
type Map struct {
	clusters uint64
	root     []*node
	own      []bool // which nodes no other map can reach (M5)
	mapped   uint64
	bytes    int64
	frozen   bool
}

// New returns an empty map of n clusters.
func New(n uint64) *Map {
	m := &Map{}
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

// Freeze says that the map is never written again.
func (m *Map) Freeze() {
	clear(m.own)
	m.frozen = true
}

// Clone returns a map of n clusters with the content of m, of which no cluster at
// or above n is mapped. The two share memory until one is written (M5).
func (m *Map) Clone(n uint64) *Map {
	c := &Map{clusters: n, root: make([]*node, nodesFor(n)), own: make([]bool, nodesFor(n)), mapped: m.mapped}
	copy(c.root, m.root)
	if !m.frozen { // what is shared from now on counts once, with the clone
		clear(m.own)
		c.bytes, m.bytes = m.bytes, 0
	}
	return c
}

// Clusters returns the map's size.
func (m *Map) Clusters() uint64 { return m.clusters }

// Mapped returns how many clusters have data.
func (m *Map) Mapped() uint64 { return m.mapped }

// MemoryBytes returns about how much memory the map takes beyond what it had of
// the map that it was cloned from.
func (m *Map) MemoryBytes() int64 { return m.bytes + int64(9*len(m.root)) }

// Get returns the location of cluster c, which is below Clusters.
func (m *Map) Get(c uint64) Loc {
	n := m.root[c/nodeEntries]
	if n == nil {
		return 0
	}
	p := n.pages[c/PageEntries%nodePages]
	if p == nil {
		return 0
	}
	return p[c%PageEntries]
}

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

// ownPage returns page pi of an own node to be written (M5).
func (m *Map) ownPage(n *node, pi uint64) *page {
	p := n.pages[pi]
	if p != nil && n.owns(pi) {
		return p
	}
	c := &page{}
	if p != nil {
		*c = *p
	} else {
		n.count++
	}
	n.pages[pi] = c
	n.own[pi/64] |= 1 << (pi % 64)
	m.bytes += pageBytes
	return c
}

// dropPage takes page pi out of an own node.
func (m *Map) dropPage(n *node, pi uint64) {
	if n.owns(pi) {
		n.own[pi/64] &^= 1 << (pi % 64)
		m.bytes -= pageBytes
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

// Set puts a mapped location at cluster c.
func (m *Map) Set(c uint64, l Loc) {
	n := m.ownNode(c / nodeEntries)
	pi := c / PageEntries % nodePages
	e := &m.ownPage(n, pi)[c%PageEntries]
	if !e.Mapped() {
		n.used[pi]++
		m.mapped++
	}
	*e = l
}

// setPage replaces page n as a whole.
func (m *Map) setPage(n uint64, p *page) {
	used := uint16(0)
	for _, l := range p {
		if l.Mapped() {
			used++
		}
	}
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
	*m.ownPage(nd, pi) = *p
	m.mapped += uint64(used) - uint64(nd.used[pi])
	nd.used[pi] = used
}

// Clear unmaps n clusters from c. The time is in the pages that exist, not in n.
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
			m.clearPage(m.ownNode(ni), pi, from%PageEntries, from%PageEntries+stop-from)
		}
		from = stop
	}
	if nd := m.root[ni]; nd.count == 0 {
		m.dropNode(ni)
	}
}

// clearPage unmaps [from, to) of a page of an own node.
func (m *Map) clearPage(nd *node, pi, from, to uint64) {
	if to-from == PageEntries {
		m.dropPage(nd, pi)
		return
	}
	var p *page
	for i := from; i < to; i++ {
		if !nd.pages[pi][i].Mapped() {
			continue
		}
		if p == nil {
			p = m.ownPage(nd, pi)
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
// there is none. The time is in the nodes and pages that exist.
func (m *Map) NextMapped(c uint64) uint64 {
	for c < m.clusters {
		p, n := m.nextPage(c / PageEntries)
		if p == nil {
			break
		}
		for c = max(c, n*PageEntries); c < (n+1)*PageEntries; c++ {
			if p[c%PageEntries].Mapped() {
				return c
			}
		}
	}
	return m.clusters
}

// nextPage returns the first page with content at or after page number n, and
// its number; nil at the end.
func (m *Map) nextPage(n uint64) (*page, uint64) {
	return m.nextDifferent(nil, n)
}

// nextDifferent returns the first page at or after number n that is not the page of
// base, and its number; nil, with a number, for one that only base has, nil and
// noPage at the end. Without base every page with content is different.
func (m *Map) nextDifferent(base *Map, n uint64) (*page, uint64) {
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
			if p := nd.page(pi); p != bd.page(pi) {
				return p, ni*nodePages + pi
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

func (n *node) page(pi uint64) *page {
	if n == nil {
		return nil
	}
	return n.pages[pi]
}
