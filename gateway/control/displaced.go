package control

import (
	"context"
	"fmt"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe/event"
)

// replaceJournal opens a displaced vDisk again, which gives it a journal on another WRITE
// disk; d.lock is held. What initiators ask for meanwhile waits.
func (c *Controller) replaceJournal(ctx context.Context, d *vdisk, rec model.VDisk) error {
	ep, id, err := c.engineDisk(rec)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), moveSwitch)
	defer cancel()
	c.stopFlatten(d) // what opens it goes on with both
	c.stopMove(d)
	front, why := d.disk, d.vol.Condition().Err
	front.hold()
	if err := d.vol.Close(ctx); err != nil {
		c.log.Warn("vDisk whose WRITE disk failed did not close orderly", "vdisk", rec.Name, "id", rec.ID, "err", err)
	}
	if err := c.openAgain(ctx, d, rec, ep, id, front); err != nil {
		return err
	}
	c.log.Error("vDisk goes on with a journal on another WRITE disk; everything that was acknowledged is there", "vdisk", rec.Name, "id", rec.ID, "why", why)
	c.tell(event.VDiskJournalReplaced, vdiskObject(rec.Name), "reason", fmt.Sprint(why))
	c.opt.Changed("vdisk", rec.ID)
	return nil
}
