package vsphere

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/integrations/vsphere"
)

// A vDisk as a disk of a virtual machine (RDM) has a record like that of a datastore, with the
// same jobs, hosts and target; there is no volume on it that hosts have.

// maxVirtualRDM is what a virtual machine takes in virtual compatibility, in bytes.
const maxVirtualRDM = 62 << 40

// NewRDM is what a disk of a virtual machine is made from.
type NewRDM struct {
	VDisk   string          // name or id
	Center  string          // name or id
	Machine string          // name or managed object id
	Mode    vsphere.RDMMode // "": physical
	// Shared: other virtual machines may have it at the same time, which agree about it as those
	// of a cluster of guests do.
	Shared bool
}

// FindRDM returns a disk of a virtual machine by name or id.
func (m *Manager) FindRDM(ref string) (model.Datastore, error) {
	d, ok := m.model.FindRDM(ref)
	if !ok {
		return d, &control.Error{Code: control.CodeNotFound, Object: rdmObject(clip(ref)), Message: "there is no such disk of a virtual machine", Hint: "ovgate vsphere rdm list shows those that ovgate made"}
	}
	return d, nil
}

// RDMs are the vDisks that are disks of virtual machines, in no particular order.
func (m *Manager) RDMs() []model.Datastore {
	return m.model.Datastores(func(d model.Datastore) bool { return d.RDM != nil })
}

// rdmsOf are those of a vDisk, but for one.
func (m *Manager) rdmsOf(vdisk, but string) []model.Datastore {
	return m.model.Datastores(func(d model.Datastore) bool { return d.RDM != nil && d.VDisk == vdisk && d.ID != but })
}

// AttachRDM stores that a virtual machine is to have a vDisk as its disk, and gives it that in
// the background. With dryRun it only says what would be done.
func (m *Manager) AttachRDM(ctx context.Context, in NewRDM, dryRun bool) (model.Datastore, []vsphere.Action, error) {
	ctx, done := m.begin(ctx)
	defer done()
	in.Mode = cmp.Or(in.Mode, vsphere.RDMPhysical)
	v, err := m.checkRDMDisk(in)
	if err != nil {
		return model.Datastore{}, nil, err
	}
	object := "vdisk " + v.Name
	at, machine, err := m.placeRDM(ctx, object, v, in)
	if err != nil {
		return model.Datastore{}, nil, err
	}
	defer at.v.Close()
	plan, err := m.planRDM(ctx, at, machine, v)
	if err != nil || dryRun {
		return at.rec, plan, explain(object, err)
	}
	rec, err := m.model.CreateDatastore(ctx, at.rec)
	if err != nil {
		return rec, nil, explain(rdmObject(at.rec.Name), err)
	}
	m.log.Info("a virtual machine is being given a vDisk", "rdm", rec.Name, "vdisk", v.Name, "machine", rec.RDM.MachineName, "mode", rec.RDM.Mode)
	m.opt.Changed("datastore", rec.ID)
	m.work(rec.ID)
	return rec, plan, nil
}

// checkRDMDisk refuses a vDisk that cannot be a disk of a virtual machine.
func (m *Manager) checkRDMDisk(in NewRDM) (model.VDisk, error) {
	v, err := m.ctl.FindVDisk(in.VDisk)
	if err != nil {
		return v, err
	}
	object := "vdisk " + v.Name
	switch {
	case in.Mode != vsphere.RDMPhysical && in.Mode != vsphere.RDMVirtual:
		return v, invalid("mode", object, "use physical or virtual", "%q is no compatibility mode", clip(string(in.Mode)))
	case v.Node != m.opt.Node:
		return v, &control.Error{Code: control.CodeElsewhere, Node: v.Node, Object: object, Message: "node " + m.ctl.NodeName(v.Node) + " serves it", Hint: "ask that node"}
	case v.Template || v.State != model.StatePresent:
		return v, &control.Error{Code: control.CodeInUse, Field: "vdisk", Object: object, Message: "it is a template, or is being made or deleted", Hint: "clone it, and use the clone"}
	case v.Size > maxSize || in.Mode == vsphere.RDMVirtual && v.Size > maxVirtualRDM:
		return v, invalid("vdisk", object, "use one of up to 64 TiB, with virtual compatibility 62 TiB", "ESXi takes no disk of %d bytes there", v.Size)
	}
	others := m.rdmsOf(v.ID, "")
	for _, o := range others {
		if !in.Shared || !o.RDM.Shared {
			return v, &control.Error{
				Code: control.CodeInUse, Field: "vdisk", Object: object, Message: "it is a disk of virtual machine " + o.RDM.MachineName,
				Hint: "take it from that: ovgate vsphere rdm detach " + o.Name + "; or attach it to each with --shared, for guests that agree about it",
			}
		}
	}
	for _, d := range m.model.Datastores(func(d model.Datastore) bool { return d.RDM == nil && d.VDisk == v.ID }) {
		return v, &control.Error{Code: control.CodeInUse, Field: "vdisk", Object: object, Message: "it is the vDisk of " + objectOf(d), Hint: "use a vDisk of its own: ovgate vdisk create"}
	}
	if len(others) == 0 && v.Published() {
		return v, &control.Error{Code: control.CodeInUse, Field: "vdisk", Object: object, Message: "it is published, and others may use it", Hint: "ovgate vdisk unpublish " + v.Name}
	}
	return v, nil
}

// placeRDM refuses a virtual machine that cannot have the disk, and returns where it is. Every
// host of the cluster is to be there: the virtual machine may come to run on any.
func (m *Manager) placeRDM(ctx context.Context, object string, v model.VDisk, in NewRDM) (at placed, machine *vsphere.Machine, err error) {
	c, err := m.FindCenter(in.Center)
	if err != nil {
		return at, nil, err
	}
	if n := len(m.model.Datastores(nil)); n >= maxDatastores {
		return at, nil, &control.Error{Code: control.CodeInUse, Object: object, Message: fmt.Sprintf("there are %d datastores and RDM disks already", n), Hint: "remove one that is not used"}
	}
	s, err := m.connect(ctx, c)
	if err != nil {
		return at, nil, err
	}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	machine, err = s.FindMachine(ctx, in.Machine)
	switch {
	case errors.Is(err, vsphere.ErrNotFound):
		return at, nil, &control.Error{Code: control.CodeNotFound, Field: "vm", Object: object, Message: fmt.Sprintf("vCenter %s has no virtual machine %s", c.Name, clip(in.Machine)), Hint: "give its name or managed object id", Err: err}
	case errors.Is(err, vsphere.ErrRefused):
		return at, nil, &control.Error{Code: control.CodeInvalid, Field: "vm", Object: object, Message: err.Error(), Hint: "give its managed object id, such as vm-41", Err: err}
	case err != nil:
		return at, nil, explain(object, err)
	}
	host, err := machine.CheckRDM(ctx, in.Shared)
	if errors.Is(err, vsphere.ErrRefused) {
		return at, nil, &control.Error{Code: control.CodeInvalid, Field: "vm", Object: object, Message: err.Error(), Hint: "give it a SCSI controller, for a shared disk one with bus sharing, in its settings", Err: err}
	}
	if err != nil {
		return at, nil, explain(object, err)
	}
	all, err := s.Hosts(ctx, "")
	if err != nil {
		return at, nil, explain(object, err)
	}
	i := slices.IndexFunc(all, func(h *vsphere.Host) bool { return h.ID() == host })
	if i < 0 {
		return at, nil, &control.Error{Code: control.CodeBackend, Field: "vm", Object: object, Message: "the host of virtual machine " + machine.Name + " is not in the inventory", Hint: "look at the virtual machine in its vCenter"}
	}
	cluster := all[i].ClusterID
	hosts := slices.DeleteFunc(all, func(h *vsphere.Host) bool { return h.ClusterID != cluster })
	if text := away(hosts); text != "" {
		return at, nil, &control.Error{Code: control.CodeBackend, Field: "vm", Object: object, Message: "the virtual machine may come to run on every host of its cluster, and not all can be given the disk: " + text, Hint: "bring them back, or take them out of the cluster"}
	}
	if o := m.rdmsOf(v.ID, ""); slices.ContainsFunc(o, func(d model.Datastore) bool { return d.Center != c.ID || d.Cluster != cluster }) {
		return at, nil, &control.Error{Code: control.CodeInUse, Field: "vm", Object: object, Message: "it is a disk of virtual machine " + o[0].RDM.MachineName + ", in another cluster", Hint: "share it within a cluster"}
	}
	id, err := model.NewUUID()
	if err != nil {
		return at, nil, err
	}
	now := m.clock.Now().UTC()
	return placed{model.Datastore{
		ID: id, Name: rdmName(v.Name, machine.ID()), Center: c.ID, Cluster: cluster, ClusterName: hosts[0].Cluster, VPool: v.VPool, VDisk: v.ID, Size: v.Size, State: model.StateCreating,
		Node: m.opt.Node, Created: now, Job: &model.DatastoreJob{Kind: model.JobMap, Step: stepTarget, Started: now},
		RDM: &model.RDM{Machine: machine.ID(), MachineName: machine.Name, Mode: string(in.Mode), Shared: in.Shared},
	}, c, s, hosts}, machine, nil
}

// rdmName is what a disk of a virtual machine is called.
func rdmName(vdisk, machine string) string {
	safe := strings.Map(func(r rune) rune {
		if r == '-' || r == '.' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '_'
	}, vdisk+"."+machine)
	return safe[max(0, len(safe)-maxName):]
}

// planRDM says what a new disk changes.
func (m *Manager) planRDM(ctx context.Context, at placed, machine *vsphere.Machine, v model.VDisk) ([]vsphere.Action, error) {
	var plan []vsphere.Action
	name, t := targetName(at.center, at.rec.Cluster), wanted(at.center)
	portals := m.ctl.Portals()
	if shared, err := m.ctl.FindTarget(name); err != nil {
		plan = append(plan, vsphere.Action{Action: "create", Detail: "target " + name + " for the hosts of cluster " + at.rec.ClusterName})
	} else {
		portals = m.ctl.TargetPortals(shared)
	}
	for _, p := range portals {
		t.Portals = append(t.Portals, p.Address)
	}
	now, err := m.storages(ctx, at.center.ID, at.v, at.hosts, vsphere.Adapters)
	if err != nil {
		return nil, err
	}
	for _, h := range at.hosts {
		changes, err := now[h.ID()].PlanTarget(t, false)
		if err != nil {
			return nil, err
		}
		plan = append(append(plan, changes...), vsphere.Action{Host: h.Name, Action: "rescan", Detail: "for the LUN"})
	}
	return append(plan, vsphere.Action{Action: "map", Detail: fmt.Sprintf("vDisk %s of %d bytes to virtual machine %s, %s compatibility", v.Name, v.Size, machine.Name, at.rec.RDM.Mode)}), nil
}

// DetachRDM takes a vDisk from a virtual machine, in the background; hosts lose it with its last.
// The vDisk stays. An absent one is no error. It may replace a job that does not get on.
func (m *Manager) DetachRDM(ctx context.Context, ref string) error {
	ctx, done := m.begin(ctx)
	defer done()
	rec, ok := m.model.FindRDM(ref)
	if !ok || rec.State == model.StateDeleting {
		return nil
	}
	_, err := m.give(ctx, rec.ID, model.DatastoreJob{Kind: model.JobUnmap, Step: stepUnmapVM}, func(d *model.Datastore) error {
		d.State = model.StateDeleting
		return nil
	})
	return err
}

// sharedRDM tells whether another virtual machine has the vDisk, which stays with the hosts then.
func (s *step) sharedRDM() bool {
	return s.rec.RDM != nil && slices.ContainsFunc(s.m.rdmsOf(s.rec.VDisk, s.rec.ID), func(d model.Datastore) bool { return d.State != model.StateDeleting })
}

// mapRDM gives the virtual machine the LUN, when every host of its cluster sees it and nothing
// is on it that hosts know.
func (s *step) mapRDM(ctx context.Context) error {
	if text := away(s.hosts); text != "" {
		return &control.Error{Code: control.CodeBackend, Object: objectOf(s.rec), Message: "the virtual machine may come to run on every host of its cluster, and not all have the disk: " + text, Hint: "bring them back, or take them out of the cluster", Err: vsphere.ErrHostAway}
	}
	machine := s.v.Machine(s.rec.RDM.Machine)
	machine.Name = s.rec.RDM.MachineName
	host, err := machine.CheckRDM(ctx, false)
	if err != nil && !errors.Is(err, vsphere.ErrRefused) { // it may have it, and no more room
		return err
	}
	now, err := s.m.storages(ctx, s.center.ID, s.v, s.hosts, vsphere.Disks)
	if err != nil {
		return err
	}
	disk, on := vsphere.Disk{}, s.hosts[0]
	for _, h := range s.hosts {
		d, err := now[h.ID()].Disk(s.naa)
		if err != nil {
			return err
		}
		if h.ID() == host {
			disk, on = d, h
		}
		if err := s.m.call(ctx, s.center.ID, func() error { return h.RoundRobin(ctx, d) }); err != nil {
			return err
		}
		if s.rec.RDM.Shared {
			if err := s.m.call(ctx, s.center.ID, func() error { return h.Reserve(ctx, d, true) }); err != nil {
				return err
			}
		}
	}
	if err := s.noVolume(ctx, on); err != nil {
		return err
	}
	return s.m.call(ctx, s.center.ID, func() error {
		return machine.AttachRDM(ctx, s.naa, disk, vsphere.RDMMode(s.rec.RDM.Mode), s.rec.RDM.Shared)
	})
}

// noVolume refuses a LUN with a datastore on it, also one that is a copy.
func (s *step) noVolume(ctx context.Context, h *vsphere.Host) error {
	has := &control.Error{
		Code: control.CodeInUse, Object: objectOf(s.rec), Message: "there is a VMFS volume on its vDisk, which hosts would mount",
		Hint: "ovgate vsphere rdm detach " + s.rec.Name + ", and use another vDisk; or import it as a datastore", Err: vsphere.ErrInUse,
	}
	d, err := s.v.FindDatastore(ctx, s.naa)
	if err == nil {
		has.Message = "datastore " + d.Name + " is on its vDisk"
		return has
	}
	if !errors.Is(err, vsphere.ErrNotFound) {
		return err
	}
	is := false
	err = s.m.call(ctx, s.center.ID, func() (err error) { is, err = h.HasVolume(ctx, s.naa); return err })
	if err == nil && is {
		return has
	}
	return err
}

// takeRDM takes the LUN from the virtual machine.
func (s *step) takeRDM(ctx context.Context) error {
	machine := s.v.Machine(s.rec.RDM.Machine)
	machine.Name = s.rec.RDM.MachineName
	return s.m.call(ctx, s.center.ID, func() error { return machine.DetachRDM(ctx, s.naa) })
}
