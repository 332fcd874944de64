package control

import (
	"errors"
	"sync/atomic"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/volumedriver/backend"
)

// lowSpace is the share of a backend, one in so many, below whose free space
// initiators are warned: a tenth leaves time to add disks.
const lowSpace = 10

// poolSpace is what a vPool's backend last said of its space. Its vDisks read it
// without waiting.
type poolSpace struct{ usage atomic.Pointer[backend.Usage] }

// set notes an answer and tells whether the free space has just become low.
func (s *poolSpace) set(u backend.Usage) bool {
	old := s.usage.Swap(&u)
	return low(u) && (old == nil || !low(*old))
}

func low(u backend.Usage) bool { return u.Total > 0 && u.Free <= u.Total/lowSpace }

// Space implements iscsi.SpaceReporter: what the vDisk takes on the backend and in
// the journal, and what the backend has left for everybody. A backend that does not
// know has nothing to report.
func (d *disk) Space() iscsi.Space {
	out := iscsi.Space{Available: -1}
	at := d.now.Load()
	if at.space == nil {
		return out
	}
	if u := at.space.usage.Load(); u != nil && u.Total > 0 {
		st := at.vol.Stats()
		out = iscsi.Space{Used: st.StoredBytes + st.JournalBytes, Available: max(u.Free, 0), Threshold: u.Total / lowSpace}
	}
	return out
}

// warnSpace tells the initiators of a vPool's published vDisks that space is low.
func (c *Controller) warnSpace(p *pool) {
	for _, rec := range c.model.VDisks(func(model.VDisk) bool { return true }) {
		iqn, lun, ok := c.Placed(rec)
		if !ok || c.pool(rec.VPool) != p {
			continue
		}
		if err := c.opt.Frontend.SpaceThreshold(iqn, lun); err != nil && !errors.Is(err, iscsi.ErrNoTarget) {
			c.log.Warn("initiators could not be warned of low space", "vdisk", rec.Name, "id", rec.ID, "err", err)
		}
	}
}
