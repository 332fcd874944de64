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
//	      | number  | clone | offset      | flags |
//	      number: SCO number; clone: 0 own, n the n-th ancestor (chains to 255);
//	      offset: cluster in the SCO; flags: bit 0 mapped
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
//
// Nothing here locks: the volume's map lock guards both.
package blockmap

import "fmt"

const (
	// PageEntries is the number of clusters of a page.
	PageEntries = 512
	nodePages   = 1024
	nodeEntries = PageEntries * nodePages
	pageBytes   = 8*PageEntries + 8
	nodeBytes   = 8 * nodePages

	flagMapped = 1
)

// Loc is the location of a cluster; the zero Loc means "no data: zeros".
type Loc uint64

// MakeLoc returns the location of a cluster in an SCO.
func MakeLoc(number uint32, clone uint8, offset uint16) Loc {
	return Loc(number)<<32 | Loc(clone)<<24 | Loc(offset)<<8 | flagMapped
}

// Mapped reports whether there is data.
func (l Loc) Mapped() bool { return l&flagMapped != 0 }

// Number returns the SCO number.
func (l Loc) Number() uint32 { return uint32(l >> 32) }

// Clone returns the ancestor, 0 for the vDisk itself.
func (l Loc) Clone() uint8 { return uint8(l >> 24) }

// Offset returns the cluster's index in the SCO.
func (l Loc) Offset() uint16 { return uint16(l >> 8) }

func (l Loc) String() string {
	if !l.Mapped() {
		return "-"
	}
	return fmt.Sprintf("%d/%08x+%d", l.Clone(), l.Number(), l.Offset())
}

type page struct {
	used int32
	e    [PageEntries]Loc
}

type node struct {
	used  int32
	pages [nodePages]*page
}

// Map is the base map. Not safe for concurrent use.
type Map struct {
	clusters uint64
	root     []*node
	mapped   uint64
	bytes    int64
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
	if want := int((n + nodeEntries - 1) / nodeEntries); want > len(m.root) {
		root := make([]*node, want)
		copy(root, m.root)
		m.root = root
	}
}

// Clusters returns the map's size.
func (m *Map) Clusters() uint64 { return m.clusters }

// Mapped returns how many clusters have data.
func (m *Map) Mapped() uint64 { return m.mapped }

// MemoryBytes returns about how much memory the map takes.
func (m *Map) MemoryBytes() int64 { return m.bytes + int64(8*len(m.root)) }

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
	return p.e[c%PageEntries]
}

// Set puts a mapped location at cluster c.
func (m *Map) Set(c uint64, l Loc) {
	n := m.root[c/nodeEntries]
	if n == nil {
		n = &node{}
		m.root[c/nodeEntries] = n
		m.bytes += nodeBytes
	}
	p := n.pages[c/PageEntries%nodePages]
	if p == nil {
		p = &page{}
		n.pages[c/PageEntries%nodePages] = p
		n.used++
		m.bytes += pageBytes
	}
	e := &p.e[c%PageEntries]
	if !e.Mapped() {
		p.used++
		m.mapped++
	}
	*e = l
}

// Clear unmaps n clusters from c. The time is in the pages that exist, not in n.
func (m *Map) Clear(c, n uint64) {
	end := min(c+n, m.clusters)
	for c < end {
		ni := c / nodeEntries
		stop := min(end, (ni+1)*nodeEntries)
		nd := m.root[ni]
		if nd != nil {
			m.clearNode(nd, c%nodeEntries, c%nodeEntries+stop-c)
			if nd.used == 0 {
				m.root[ni] = nil
				m.bytes -= nodeBytes
			}
		}
		c = stop
	}
}

// clearNode unmaps [from, to) of a node, in clusters relative to it.
func (m *Map) clearNode(nd *node, from, to uint64) {
	for from < to {
		pi := from / PageEntries
		stop := min(to, (pi+1)*PageEntries)
		if p := nd.pages[pi]; p != nil {
			if stop-from < PageEntries {
				for i := from % PageEntries; i < from%PageEntries+stop-from; i++ {
					if p.e[i].Mapped() {
						p.used--
						m.mapped--
						p.e[i] = 0
					}
				}
			} else {
				m.mapped -= uint64(p.used)
				p.used = 0
			}
			if p.used == 0 {
				nd.pages[pi] = nil
				nd.used--
				m.bytes -= pageBytes
			}
		}
		from = stop
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
			if p.e[c%PageEntries].Mapped() {
				return c
			}
		}
	}
	return m.clusters
}

// nextPage returns the first page with content at or after page number n, and
// its number; nil at the end.
func (m *Map) nextPage(n uint64) (*page, uint64) {
	for ni := n / nodePages; ni < uint64(len(m.root)); ni++ {
		nd := m.root[ni]
		if nd == nil {
			continue
		}
		first := uint64(0)
		if ni == n/nodePages {
			first = n % nodePages
		}
		for pi := first; pi < nodePages; pi++ {
			if nd.pages[pi] != nil {
				return nd.pages[pi], ni*nodePages + pi
			}
		}
	}
	return nil, 0
}
