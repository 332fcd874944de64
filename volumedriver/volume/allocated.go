package volume

import "github.com/openvstorage/ovgate/volumedriver/blockmap"

// allocatedScan bounds how many clusters one call of Allocated looks at, so that
// it takes no longer than a read from memory.
const allocatedScan = 16 << 10

// Allocated reports whether the cluster at byte off holds data, and for how many
// bytes from off on that holds at least. off is inside the disk. Where the map cannot
// be read, clusters count as holding data.
func (v *Volume) Allocated(off int64) (mapped bool, n int64) {
	cs := int64(v.cluster)
	first := uint64(off / cs)
	var w blockmap.Want
	for {
		mapped, end, ok := v.allocated(first, &w)
		if ok {
			return mapped, max(int64(end)*cs-off, 0)
		}
		if w.Load(v.ctx) != nil {
			return true, cs - off%cs
		}
	}
}

// allocated returns whether first holds data and the end of what does like it; false
// if that page is not in memory.
func (v *Volume) allocated(first uint64, w *blockmap.Want) (mapped bool, end uint64, ok bool) {
	v.mapMu.RLock()
	defer v.mapMu.RUnlock()
	clusters := v.base.Clusters()
	if first >= clusters {
		return false, first, true
	}
	if mapped, ok = v.holds(first, w); !ok {
		return false, first, false
	}
	end = first + 1
	if points, _ := v.overlay.Len(); !mapped && points == 0 {
		// Nothing but base pages can hold data: skip those that do not exist.
		next, ok := v.base.NextMapped(first, w)
		if end = max(end, next); !ok {
			return mapped, end, true
		}
	}
	for limit := min(clusters, first+allocatedScan); end < limit; end++ {
		if same, ok := v.holds(end, w); !ok || same != mapped {
			break
		}
	}
	return mapped, end, true
}

// holds reports whether a cluster holds data; mapMu is held.
func (v *Volume) holds(c uint64, w *blockmap.Want) (bool, bool) {
	_, point, trimmed := v.overlay.Find(c)
	if point || trimmed {
		return point, true
	}
	l, ok := v.base.Get(c, w)
	return l.Mapped(), ok
}
