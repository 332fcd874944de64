package control

import (
	"slices"
	"time"

	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// strangersEvery is how often backends are asked which vDisks they have. What the registry does
// not know twice in a row is neither being made nor being deleted.
const strangersEvery = time.Hour

// lookForStrangers asks each backend for vDisks that nobody knows. What was known of one that does
// not answer stays.
func (c *Controller) lookForStrangers() {
	for id, p := range c.poolMap() {
		c.mu.Lock()
		ep := p.p
		c.mu.Unlock()
		if ep == nil {
			continue
		}
		found, err := ep.Strangers(c.ctx)
		if err != nil {
			if c.ctx.Err() == nil {
				c.log.Warn("a backend was not asked which vDisks it has; it is asked again", "id", id, "err", err)
			}
			continue
		}
		c.mu.Lock()
		if p.p == ep {
			p.strangers = slices.DeleteFunc(slices.Clone(found), func(v volume.ID) bool { return !slices.Contains(p.unknown, v) })
			p.unknown = found
		}
		c.mu.Unlock()
	}
}

// Strangers returns the vDisks on a vPool's backend that nobody has known for an hour at least.
func (c *Controller) Strangers(pool string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.pools[pool]
	if p == nil {
		return nil
	}
	var out []string
	for _, id := range p.strangers {
		if _, known := c.model.VDisk(id.String()); !known { // vpool recover may have brought it back
			out = append(out, id.String())
		}
	}
	return out
}
