package control

import (
	"context"
	"fmt"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/volumedriver/cache"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// Bounds of a cache quota, in bytes: below the least one, large reads would push out what
// was read ahead for them.
const (
	minCacheQuota = 16 << 20
	maxCacheQuota = 64 << 40
)

// cacheModes are the modes of the model as the engine's.
var cacheModes = map[model.CacheMode]cache.Mode{
	"": cache.OnRead, model.CacheOnRead: cache.OnRead, model.CacheOnWrite: cache.OnWrite, model.CacheNone: cache.None,
}

func cacheOf(v model.VDisk) volume.CachePolicy {
	if v.Cache == nil {
		return volume.CachePolicy{}
	}
	return volume.CachePolicy{Mode: cacheModes[v.Cache.Mode], Quota: v.Cache.Quota}
}

// SetCache changes what the read cache keeps of a vDisk from now on. What it holds stays
// until something takes its place.
func (c *Controller) SetCache(ctx context.Context, name string, p model.CachePolicy) (model.VDisk, error) {
	var out model.VDisk
	err := c.withDisk(ctx, name, func(ctx context.Context, d *vdisk, rec model.VDisk) error {
		if _, ok := cacheModes[p.Mode]; !ok {
			return invalid("mode", vdiskObject(rec.Name), "use on-read, on-write or none", "a cache mode %q is not known", p.Mode)
		}
		if p.Quota != 0 && (p.Quota < minCacheQuota || p.Quota > maxCacheQuota) {
			return invalid("quota", vdiskObject(rec.Name), fmt.Sprintf("use %d to %d, or 0 for no bound of its own", minCacheQuota, int64(maxCacheQuota)),
				"a cache quota of %d bytes is not possible", p.Quota)
		}
		if p.Mode == model.CacheOnRead {
			p.Mode = ""
		}
		var err error
		out, err = c.model.UpdateVDisk(ctx, rec.ID, func(v *model.VDisk) error {
			if v.Cache = &p; p == (model.CachePolicy{}) {
				v.Cache = nil
			}
			return nil
		})
		if err != nil {
			return err
		}
		if d.vol != nil {
			d.vol.SetCache(cacheOf(out))
		}
		c.log.Info("read cache of a vDisk set", "vdisk", rec.Name, "mode", p.Mode, "quota", p.Quota)
		return nil
	})
	return out, err
}
