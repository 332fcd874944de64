package vsphere

import (
	"context"
	"errors"

	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/integrations/vsphere"
)

// NewImport is what a datastore is made from whose volume is on a vDisk already.
type NewImport struct {
	Name    string
	Center  string // name or id
	Cluster string // name or managed object id; of a host alone: the host's
	VDisk   string // name or id: a clone of the vDisk of a datastore
}

// ImportDatastore stores that the volume on a vDisk, which is a copy of another one, is to
// be a datastore of its own, and makes it one in the background. The original is not
// touched.
func (m *Manager) ImportDatastore(ctx context.Context, in NewImport) (model.Datastore, error) {
	ctx, done := m.begin(ctx)
	defer done()
	object := datastoreObject(clip(in.Name))
	v, err := m.ctl.FindVDisk(in.VDisk)
	if err != nil {
		return model.Datastore{}, err
	}
	switch {
	case v.Node != m.opt.Node:
		return model.Datastore{}, &control.Error{Code: control.CodeElsewhere, Object: "vdisk " + v.Name, Message: "node " + m.ctl.NodeName(v.Node) + " serves it", Hint: "ask that node"}
	case v.Published():
		return model.Datastore{}, &control.Error{Code: control.CodeInUse, Field: "vdisk", Object: "vdisk " + v.Name, Message: "it is published", Hint: "unpublish it, or clone it and import the clone"}
	case v.Template || v.State != model.StatePresent:
		return model.Datastore{}, &control.Error{Code: control.CodeInUse, Field: "vdisk", Object: "vdisk " + v.Name, Message: "it is a template, or is being made or deleted", Hint: "clone it and import the clone"}
	}
	if e := checkSize("vdisk "+v.Name, v.Size); e != nil {
		return model.Datastore{}, e
	}
	at, err := m.planPlace(ctx, in.Name, in.Center, in.Cluster, v.VPool)
	if err != nil {
		return at.rec, err
	}
	defer at.v.Close()
	rec := at.rec
	used := m.model.Datastores(func(d model.Datastore) bool { return d.VDisk == v.ID })
	if len(used) > 0 {
		return rec, &control.Error{Code: control.CodeInUse, Field: "vdisk", Object: "vdisk " + v.Name, Message: "it is the vDisk of " + objectOf(used[0]), Hint: "clone it and import the clone"}
	}
	rec.VDisk, rec.Size, rec.Job.Kind, rec.Job.Step = v.ID, v.Size, model.JobImport, stepTarget
	if rec, err = m.model.CreateDatastore(ctx, rec); err != nil {
		return rec, explain(object, err)
	}
	m.log.Info("datastore is being imported", "datastore", rec.Name, "vdisk", v.Name, "cluster", rec.ClusterName)
	m.opt.Changed("datastore", rec.ID)
	m.work(rec.ID)
	return rec, nil
}

// resignature makes the copy on the LUN a volume of its own, with the wanted name.
func (s *step) resignature(ctx context.Context) error {
	ready, err := s.ready()
	if err != nil {
		return err
	}
	// A try whose answer was lost may have done it.
	if err := s.rescanAll(ctx, ready[:1]); err != nil {
		return err
	}
	d, err := s.v.FindDatastore(ctx, s.naa)
	if errors.Is(err, vsphere.ErrNotFound) {
		err := s.m.call(ctx, s.center.ID, func() error {
			_, err := ready[0].Resignature(ctx, s.naa)
			return err
		})
		if errors.Is(err, vsphere.ErrNotFound) {
			return &control.Error{Code: control.CodeInvalid, Object: datastoreObject(s.rec.Name), Message: "there is no VMFS volume on its vDisk", Hint: "remove it with --keep-vdisk, and import a clone of a datastore's vDisk", Err: err}
		}
		if err != nil {
			return err
		}
		if d, err = s.v.FindDatastore(ctx, s.naa); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	s.rec.Volume = d.UUID
	return d.Rename(ctx, s.rec.Name)
}
