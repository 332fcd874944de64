package control

import (
	"context"
	"fmt"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe/event"
)

func isTemplate(rec model.VDisk) *Error {
	return &Error{Code: CodeInUse, Object: vdiskObject(rec.Name), Message: "it is a template, which does not change and is not served",
		Hint: "clone it, or make it a vDisk again: ovgate template thaw " + rec.Name}
}

// SetTemplate freezes a vDisk, so that it can only be cloned and deleted, or thaws a
// template. A published vDisk is refused. Repeating does no harm.
func (c *Controller) SetTemplate(ctx context.Context, name string, on bool) (model.VDisk, error) {
	var out model.VDisk
	err := c.withDisk(ctx, name, func(ctx context.Context, d *vdisk, rec model.VDisk) error {
		out = rec
		if rec.Template == on {
			return nil
		}
		if on {
			if err := c.checkFreeze(d, rec); err != nil {
				return err
			}
		}
		ep, id, err := c.engineDisk(rec)
		if err != nil {
			return err
		}
		if err = c.closeVolume(ctx, d); err == nil {
			if err = ep.SetTemplate(ctx, id, on); err == nil {
				out, err = c.model.UpdateVDisk(ctx, rec.ID, func(v *model.VDisk) error { v.Template = on; return nil })
			}
		}
		if err == nil {
			c.log.Info("vDisk frozen or thawed", "vdisk", rec.Name, "id", rec.ID, "template", on)
			code := event.VDiskThawed
			if on {
				code = event.VDiskFrozen
			}
			c.tell(code, vdiskObject(rec.Name))
		}
		if oerr := c.open(ctx, d, out); oerr != nil {
			c.log.Warn("vDisk not open again yet", "vdisk", rec.Name, "id", rec.ID, "err", oerr)
			c.schedule(ref{"vdisk", rec.ID}, retryMin)
		}
		return err
	})
	return out, err
}

func (c *Controller) checkFreeze(d *vdisk, rec model.VDisk) error {
	if iqn, _, ok := c.Placed(rec); ok {
		return &Error{Code: CodeInUse, Object: vdiskObject(rec.Name), Message: "it is published as " + iqn, Hint: "unpublish it first"}
	}
	if rec.Flatten {
		return &Error{Code: CodeInUse, Object: vdiskObject(rec.Name), Message: "it is being flattened", Hint: fmt.Sprintf("wait, or stop that: ovgate vdisk flatten %s --cancel", rec.Name)}
	}
	if _, e := c.running(d, rec); e != nil {
		return e
	}
	return nil
}

// learnTemplate notes that a vDisk is a template, which the engine knew and the model
// did not: a freeze was cut off between them.
func (c *Controller) learnTemplate(ctx context.Context, d *vdisk, rec model.VDisk) error {
	_, err := c.model.UpdateVDisk(ctx, rec.ID, func(v *model.VDisk) error { v.Template = true; return nil })
	if err == nil {
		c.mu.Lock()
		d.err, d.state = nil, ""
		c.mu.Unlock()
	}
	return err
}
