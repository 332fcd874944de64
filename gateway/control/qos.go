package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/iscsi"
)

// MaxRate bounds IOPS and bytes per second of a QoS, as the front end does.
const MaxRate = 1 << 40

func qosOf(v model.VDisk) iscsi.QoS {
	if v.QoS == nil {
		return iscsi.QoS{}
	}
	return iscsi.QoS{IOPS: v.QoS.IOPS, Bytes: v.QoS.Bytes, Burst: v.QoS.Burst}
}

func checkQoS(object string, q model.QoS) *Error {
	switch {
	case q.IOPS < 0 || q.IOPS > MaxRate:
		return invalid("iops", object, fmt.Sprintf("use 0 (no limit) to %d", int64(MaxRate)), "%d IOPS is not possible", q.IOPS)
	case q.Bytes < 0 || q.Bytes > MaxRate:
		return invalid("bytesPerSecond", object, fmt.Sprintf("use 0 (no limit) to %d", int64(MaxRate)), "%d bytes per second is not possible", q.Bytes)
	case q.Burst < 0 || q.Burst > iscsi.MaxBurstTime || q.Burst%time.Millisecond != 0:
		return invalid("burstMs", object, fmt.Sprintf("use 0 (%v) to %v, in whole milliseconds", iscsi.DefaultBurst, iscsi.MaxBurstTime), "a burst of %v is not possible", q.Burst)
	}
	return nil
}

// SetQoS limits what all initiators together do to a vDisk, from now on and
// wherever it is published; the zero value takes the limits off. Commands that
// wait go on under the new limits.
func (c *Controller) SetQoS(ctx context.Context, name string, q model.QoS) (model.VDisk, error) {
	var out model.VDisk
	err := c.withDisk(ctx, name, func(ctx context.Context, d *vdisk, rec model.VDisk) error {
		if e := checkQoS(vdiskObject(rec.Name), q); e != nil {
			return e
		}
		var err error
		out, err = c.model.UpdateVDisk(ctx, rec.ID, func(v *model.VDisk) error {
			if v.QoS = &q; q == (model.QoS{}) {
				v.QoS = nil
			}
			return nil
		})
		if err != nil {
			return err
		}
		if iqn, lun, ok := c.Placed(out); ok && d.exported {
			if err := c.opt.Frontend.SetQoS(iqn, lun, qosOf(out)); err != nil {
				_, uerr := c.model.UpdateVDisk(context.WithoutCancel(ctx), rec.ID, func(v *model.VDisk) error { v.QoS = rec.QoS; return nil })
				return errors.Join(err, uerr)
			}
		}
		c.log.Info("vDisk limited", "vdisk", rec.Name, "iops", q.IOPS, "bytes", q.Bytes, "burst", q.Burst)
		return nil
	})
	return out, err
}
