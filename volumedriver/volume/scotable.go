package volume

import (
	"slices"
	"sort"

	"github.com/openvstorage/ovgate/volumedriver/blockmap"
	"github.com/openvstorage/ovgate/volumedriver/clustersum"
)

// source is a vDisk whose SCOs a map names: the vDisk itself or an ancestor.
type source struct {
	id   ID
	seed clustersum.Seed // its data are salted with it
	scos scoTable
}

// scoTable is what a map needs to know of the SCOs of a vDisk, by number. SCOs of
// one opening with consecutive numbers share a run, so that one costs 8 bytes.
type scoTable []scoRun

type scoRun struct {
	first  uint32
	origin origin
	infos  []scoInfo
}

// origin is the opening that wrote an SCO, and the cache's handle for its SCOs.
type origin struct {
	epoch, nonce uint32
	space        uint64
}

// scoInfo: an object is below 4 GiB by the bounds of package sco.
type scoInfo struct{ clusters, bytes uint32 }

// add puts an SCO in. Numbers nearly always grow.
func (t *scoTable) add(number uint32, o origin, clusters uint32, bytes int64) {
	i := t.search(number)
	if i >= 0 {
		r := &(*t)[i]
		switch at := int(number - r.first); {
		case at < len(r.infos):
			r.infos[at] = scoInfo{clusters, uint32(bytes)}
			return
		case at == len(r.infos) && r.origin == o:
			r.infos = append(r.infos, scoInfo{clusters, uint32(bytes)})
			return
		}
	}
	*t = append(*t, scoRun{})
	copy((*t)[i+2:], (*t)[i+1:])
	(*t)[i+1] = scoRun{first: number, origin: o, infos: []scoInfo{{clusters, uint32(bytes)}}}
}

// search returns the index of the last run that starts at or below number; -1 if
// there is none.
func (t scoTable) search(number uint32) int {
	if n := len(t); n > 0 && t[n-1].first <= number {
		return n - 1
	}
	return sort.Search(len(t), func(i int) bool { return t[i].first > number }) - 1
}

// find returns how many clusters an SCO holds and who wrote it.
func (t scoTable) find(number uint32) (clusters uint32, o origin, ok bool) {
	i := t.search(number)
	if i < 0 || int(number-t[i].first) >= len(t[i].infos) {
		return 0, origin{}, false
	}
	return t[i].infos[number-t[i].first].clusters, t[i].origin, true
}

// drop forgets SCOs that nothing names any more.
func (t *scoTable) drop(numbers map[uint32]bool) {
	*t = slices.DeleteFunc(*t, func(r scoRun) bool {
		left := false
		for i := range r.infos {
			if numbers[r.first+uint32(i)] {
				r.infos[i] = scoInfo{}
			}
			left = left || r.infos[i] != (scoInfo{})
		}
		return !left
	})
}

// list returns the SCOs as a checkpoint keeps them.
func (t scoTable) list() []blockmap.SCOInfo {
	var out []blockmap.SCOInfo
	for _, r := range t {
		for i, s := range r.infos {
			if s == (scoInfo{}) {
				continue // dropped
			}
			out = append(out, blockmap.SCOInfo{Number: r.first + uint32(i), Clusters: s.clusters, Bytes: int64(s.bytes),
				Epoch: r.origin.epoch, Nonce: r.origin.nonce})
		}
	}
	return out
}

// spaceKey names the SCOs of one opening of one vDisk, whatever vPool they are in: those
// that are moved to another one stay what they are, and what is cached of them stays warm.
type spaceKey struct {
	id           ID
	epoch, nonce uint32
}

// origin returns the opening of an SCO with its handle in the cache. The handle
// stays the same while the host runs, so that all who read the SCO share what is
// cached of it; no two openings share one, so it never goes stale.
func (p *Pool) origin(id ID, epoch, nonce uint32) origin {
	h, k := p.host, spaceKey{id, epoch, nonce}
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.spaces[k]
	if s == 0 {
		s = uint64(len(h.spaces) + 1)
		h.spaces[k] = s
	}
	return origin{epoch, nonce, s}
}
