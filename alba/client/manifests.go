package client

import (
	"github.com/openvstorage/ovgate/alba/layout"
	"github.com/openvstorage/ovgate/internal/lru"
)

// manifestCache keeps decoded manifests.
type manifestCache struct {
	*lru.Cache[manifestKey, *layout.Manifest]
}

type manifestKey struct {
	ns   uint64
	name string
}

func newManifestCache(limit int64) *manifestCache {
	return &manifestCache{lru.New[manifestKey, *layout.Manifest](limit)}
}

// get returns a manifest, or nil.
func (c *manifestCache) get(ns uint64, name string) *layout.Manifest {
	m, _ := c.Get(manifestKey{ns, name})
	return m
}

func (c *manifestCache) put(ns uint64, name string, m *layout.Manifest, token uint64) {
	c.Put(manifestKey{ns, name}, m, memory(m), token)
}

// drop forgets a manifest that was changed.
func (c *manifestCache) drop(ns uint64, name string) { c.Change(manifestKey{ns, name})() }

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
