package volume

// allocatedScan bounds how many clusters one call of Allocated looks at, so that
// it takes no longer than a read from memory.
const allocatedScan = 16 << 10

// Allocated reports whether the cluster at byte off holds data, and for how many
// bytes from off on that holds at least. off is inside the disk.
func (v *Volume) Allocated(off int64) (mapped bool, n int64) {
	cs := int64(v.cluster)
	first := uint64(off / cs)
	v.mapMu.RLock()
	defer v.mapMu.RUnlock()
	clusters := v.base.Clusters()
	if first >= clusters {
		return false, 0
	}
	mapped = v.holds(first)
	end := first + 1
	if points, _ := v.overlay.Len(); !mapped && points == 0 {
		// Nothing but base pages can hold data: skip those that do not exist.
		end = max(end, v.base.NextMapped(first))
	}
	for limit := min(clusters, first+allocatedScan); end < limit && v.holds(end) == mapped; end++ {
	}
	return mapped, int64(end)*cs - off
}

// holds reports whether a cluster holds data; mapMu is held.
func (v *Volume) holds(c uint64) bool {
	_, point, trimmed := v.overlay.Find(c)
	return point || !trimmed && v.base.Get(c).Mapped()
}
