package control

import (
	"context"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe/event"
)

// fenceEvery is how often the exported vDisks are looked at: idle initiators
// lose a vDisk that is served elsewhere within this time; busy ones at once,
// with the first command that the engine refuses. While none of the open vDisks has failed, and
// none is woken, that needs no look at each of thousands but at every fenceFull-th time.
const (
	fenceEvery = time.Second
	fenceFull  = 30
)

// fenced tells whether a newer opening owns an open vDisk.
func fenced(v Volume) bool { return v != nil && v.Fenced() }

// watchFences has vDisks visited that were fenced while exported (C8), or displaced.
func (c *Controller) watchFences() {
	var wakeups uint64
	var failed bool
	n := 0
	c.every(fenceEvery, fenceEvery, func() {
		was := wakeups
		wakeups = c.Wakeups()
		if n++; wakeups == was && !failed && n%fenceFull != 0 {
			return
		}
		var ids []string
		ids, failed = c.troubled()
		for _, id := range ids {
			c.schedule(ref{"vdisk", id}, 0)
		}
	})
}

// opened is an open vDisk.
type opened struct {
	id       string
	vol      Volume
	exported bool
}

// openDisks returns the open vDisks.
func (c *Controller) openDisks() []opened {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]opened, 0, len(c.disks))
	for id, d := range c.disks {
		if d.vol != nil {
			out = append(out, opened{id, d.vol, d.exported})
		}
	}
	return out
}

// troubled returns the ids of the vDisks that were fenced and still have a target, and of
// those that are displaced: their WRITE disk failed, and they can go on with another one; and
// whether any has failed.
func (c *Controller) troubled() (ids []string, failed bool) {
	for _, o := range c.openDisks() {
		if !o.vol.Failed() {
			continue
		}
		failed = true
		if o.exported && o.vol.Fenced() || o.vol.Displaced() {
			ids = append(ids, o.id)
		}
	}
	return ids, failed
}

// dropFenced takes a fenced vDisk out of the front end, and the sessions on its
// own target with it; d.lock is held. The vDisk is not opened again by itself: two
// nodes would take it from each other for ever.
func (c *Controller) dropFenced(ctx context.Context, d *vdisk, rec model.VDisk) error {
	if !d.exported {
		return nil
	}
	d.disk.revoke()
	if err := c.takeOut(ctx, d, rec); err != nil {
		return err
	}
	iqn, lun, _ := c.Placed(rec)
	c.log.Error("vDisk is served by another opening; it is withdrawn here", "vdisk", rec.Name, "id", rec.ID, "iqn", iqn, "lun", lun)
	c.tell(event.VDiskFenced, vdiskObject(rec.Name))
	return nil
}
