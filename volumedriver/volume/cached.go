package volume

import (
	"bytes"

	"github.com/openvstorage/ovgate/volumedriver/cache"
	"github.com/openvstorage/ovgate/volumedriver/sco"
)

// cacheUser returns what stands for a vDisk in the read cache, the same one for all its
// openings.
func (h *Host) cacheUser(id ID) *cache.User {
	h.mu.Lock()
	defer h.mu.Unlock()
	u := h.users[id]
	if u == nil {
		u = new(cache.User)
		h.users[id] = u
	}
	return u
}

// forgetCacheUser is for a vDisk that was deleted; what is cached of it is evicted in time.
func (h *Host) forgetCacheUser(id ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.users, id)
}

// SetCache changes what the read cache keeps of the vDisk from now on.
func (v *Volume) SetCache(p CachePolicy) { v.cached.Set(p.Mode, p.Quota) }

// keepWritten puts an SCO that was uploaded into the read cache, where that is wanted.
func (v *Volume) keepWritten(number uint32, obj []byte, f *sco.Footer) {
	if v.cached.Mode() != cache.OnWrite {
		return
	}
	for first := 0; first < int(f.Clusters); first += v.layout.PerGroup() {
		g, _ := v.layout.Group(uint32(first))
		off, n, _ := v.layout.GroupRange(g, f.Clusters)
		k := cache.Key{Space: v.origin.space, SCO: number, Group: uint32(g)}
		v.host.cache.Put(k, v.cached, bytes.Clone(obj[off:off+int64(n)]))
	}
}
