package vsphere

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/integrations/vsphere"
)

const (
	// minSize and maxSize are what ESXi takes for a VMFS datastore, in bytes.
	minSize = 2 << 30
	maxSize = 64 << 40
)

// datastoreLabel marks the vDisk of a datastore, with the datastore's id.
const datastoreLabel = "vsphere-datastore"

// NewDatastore is what a datastore is made from.
type NewDatastore struct {
	Name    string
	Center  string // name or id
	Cluster string // name or managed object id; of a host alone: the host's
	VPool   string // name or id
	Size    int64  // bytes
}

// FindDatastore returns a datastore by name or id.
func (m *Manager) FindDatastore(ref string) (model.Datastore, error) {
	d, ok := m.model.FindDatastore(ref)
	if !ok || d.RDM != nil {
		return d, &control.Error{Code: control.CodeNotFound, Object: datastoreObject(clip(ref)), Message: "there is no such datastore", Hint: "ovgate vsphere datastore list shows those that ovgate made"}
	}
	return d, nil
}

func checkSize(object string, size int64) *control.Error {
	if size < minSize || size > maxSize || size%(1<<20) != 0 {
		return invalid("size", object, "use 2 GiB to 64 TiB, in whole MiB", "ESXi takes no datastore of %d bytes", size)
	}
	return nil
}

// CreateDatastore stores that a datastore is to be made, and makes it in the background.
// With dryRun it only says what would be done.
func (m *Manager) CreateDatastore(ctx context.Context, in NewDatastore, dryRun bool) (model.Datastore, []vsphere.Action, error) {
	ctx, done := m.begin(ctx)
	defer done()
	rec, plan, err := m.planCreate(ctx, in)
	if err != nil || dryRun {
		return rec, plan, err
	}
	if rec, err = m.model.CreateDatastore(ctx, rec); err != nil {
		return rec, nil, explain(datastoreObject(rec.Name), err)
	}
	m.log.Info("datastore is being made", "datastore", rec.Name, "cluster", rec.ClusterName, "size", rec.Size)
	m.opt.Changed("datastore", rec.ID)
	m.work(rec.ID)
	return rec, plan, nil
}

// planCreate refuses what cannot become a datastore, and says what would be done.
func (m *Manager) planCreate(ctx context.Context, in NewDatastore) (model.Datastore, []vsphere.Action, error) {
	object := datastoreObject(clip(in.Name))
	if e := checkSize(object, in.Size); e != nil {
		return model.Datastore{}, nil, e
	}
	pool, ok := m.model.FindVPool(in.VPool)
	if !ok || pool.State != model.StatePresent {
		return model.Datastore{}, nil, &control.Error{Code: control.CodeNotFound, Field: "vpool", Object: "vpool " + clip(in.VPool), Message: "there is no such vPool", Hint: "ovgate vpool list shows the vPools"}
	}
	if !m.ctl.Reached(pool) {
		return model.Datastore{}, nil, &control.Error{Code: control.CodeElsewhere, Field: "vpool", Object: "vpool " + pool.Name, Message: "only node " + m.ctl.NodeName(pool.Node) + " reaches its objects", Hint: "ask that node"}
	}
	if _, exists := m.model.VDiskByName(pool.ID, in.Name); exists {
		return model.Datastore{}, nil, &control.Error{Code: control.CodeExists, Field: "name", Object: object, Message: "vpool " + pool.Name + " has a vDisk of this name", Hint: "choose another name"}
	}
	at, err := m.planPlace(ctx, in.Name, in.Center, in.Cluster, pool.ID)
	if err != nil {
		return at.rec, nil, err
	}
	defer at.v.Close()
	at.rec.Size = in.Size
	plan, err := m.planHosts(ctx, at)
	return at.rec, plan, explain(object, err)
}

// placed is where a new datastore goes.
type placed struct {
	rec    model.Datastore // to be made
	center model.Center
	v      *vsphere.Center // signed in; close it
	hosts  []*vsphere.Host // of the cluster
}

// planPlace refuses a name or cluster that cannot have a new datastore, and returns where it
// goes.
func (m *Manager) planPlace(ctx context.Context, name, center, cluster, pool string) (_ placed, err error) {
	object, none := datastoreObject(clip(name)), placed{}
	if e := checkName(object, name, vsphere.MaxDatastoreName); e != nil {
		return none, e
	}
	c, err := m.FindCenter(center)
	if err != nil {
		return none, err
	}
	if cluster == "" && c.Kind != vsphere.KindESXi {
		return none, invalid("cluster", object, "ovgate vsphere host list "+c.Name+" shows hosts and clusters", "the cluster is missing")
	}
	if _, exists := m.model.FindDatastore(name); exists {
		return none, &control.Error{Code: control.CodeExists, Field: "name", Object: object, Message: "ovgate has a datastore of this name", Hint: "choose another name"}
	}
	if n := len(m.model.Datastores(nil)); n >= maxDatastores {
		return none, &control.Error{Code: control.CodeInUse, Object: object, Message: fmt.Sprintf("there are %d datastores already", n), Hint: "remove one that is not used"}
	}
	v, err := m.connect(ctx, c)
	if err != nil {
		return none, err
	}
	defer func() {
		if err != nil {
			v.Close()
		}
	}()
	hosts, err := v.Hosts(ctx, cluster)
	if err != nil {
		return none, explain(object, err)
	}
	if exists, err := v.NameTaken(ctx, name); err != nil {
		return none, explain(object, err)
	} else if exists {
		return none, &control.Error{Code: control.CodeExists, Field: "name", Object: object, Message: "vCenter " + c.Name + " has a datastore of this name", Hint: "choose another name"}
	}
	if len(usable(hosts)) == 0 {
		return none, &control.Error{Code: control.CodeBackend, Field: "cluster", Object: object, Message: "no host of the cluster is connected and out of maintenance mode: " + away(hosts), Hint: "bring a host back in its vCenter"}
	}
	id, err := model.NewUUID()
	if err != nil {
		return none, err
	}
	now := m.clock.Now().UTC()
	return placed{model.Datastore{
		ID: id, Name: name, Center: c.ID, Cluster: hosts[0].ClusterID, ClusterName: hosts[0].Cluster, VPool: pool, State: model.StateCreating,
		Node: m.opt.Node, Created: now, Job: &model.DatastoreJob{Kind: model.JobCreate, Step: stepVDisk, Started: now},
	}, c, v, hosts}, nil
}

// planHosts says what a new datastore changes.
func (m *Manager) planHosts(ctx context.Context, at placed) ([]vsphere.Action, error) {
	c, rec, hosts := at.center, at.rec, at.hosts
	pool, _ := m.model.VPool(rec.VPool)
	plan := []vsphere.Action{{Host: "", Action: "create", Detail: fmt.Sprintf("vDisk %s of %d bytes in vPool %s", rec.Name, rec.Size, pool.Name)}}
	name := targetName(c, rec.Cluster)
	t := wanted(c)
	portals := m.ctl.Portals()
	if shared, err := m.ctl.FindTarget(name); err != nil {
		plan = append(plan, vsphere.Action{Action: "create", Detail: "target " + name + " for the hosts of cluster " + rec.ClusterName})
	} else {
		portals = m.ctl.TargetPortals(shared)
	}
	for _, p := range portals {
		t.Portals = append(t.Portals, p.Address)
	}
	ready := usable(hosts)
	now, err := m.storages(ctx, c.ID, at.v, ready, vsphere.Adapters)
	if err != nil {
		return nil, err
	}
	for _, h := range hosts {
		if why := h.Away(); why != "" {
			plan = append(plan, vsphere.Action{Host: h.Name, Action: "leave out", Detail: "it " + why})
			continue
		}
		changes, err := now[h.ID()].PlanTarget(t, false)
		if err != nil {
			return nil, err
		}
		plan = append(append(plan, changes...), vsphere.Action{Host: h.Name, Action: "rescan", Detail: "for the new LUN"})
	}
	plan = append(plan, vsphere.Action{Host: ready[0].Name, Action: "format", Detail: "VMFS 6 datastore " + rec.Name})
	for _, h := range ready {
		plan = append(plan, vsphere.Action{Host: h.Name, Action: "mount", Detail: "datastore " + rec.Name + ", path selection round robin"})
	}
	return plan, nil
}

// usable are the hosts that work can be done on.
func usable(hosts []*vsphere.Host) []*vsphere.Host {
	var out []*vsphere.Host
	for _, h := range hosts {
		if h.Away() == "" {
			out = append(out, h)
		}
	}
	return out
}

// away tells of the others.
func away(hosts []*vsphere.Host) string {
	text := ""
	for _, h := range hosts {
		if why := h.Away(); why != "" {
			if text != "" {
				text += ", "
			}
			text += h.Name + " " + why
		}
	}
	return text
}

// give stores a job for a datastore that has none, or that check lets it replace.
func (m *Manager) give(ctx context.Context, ref string, job model.DatastoreJob, check func(d *model.Datastore) error) (model.Datastore, error) {
	rec, ok := m.model.FindDatastore(ref)
	if !ok {
		return m.FindDatastore(ref)
	}
	object := objectOf(rec)
	if err := m.Here(rec); err != nil {
		return rec, err
	}
	job.Started = m.clock.Now().UTC()
	rec, err := m.model.UpdateDatastore(ctx, rec.ID, func(d *model.Datastore) error {
		if err := check(d); err != nil {
			return err
		}
		if d.Job != nil && d.Node != m.opt.Node {
			return m.elsewhere(*d, d.Node)
		}
		d.Job, d.Node = &job, m.opt.Node
		return nil
	})
	if err != nil {
		return rec, explain(object, err)
	}
	m.opt.Changed("datastore", rec.ID)
	m.work(rec.ID)
	return rec, nil
}

// idle refuses while a job is at work. One that only marks the datastore is done again after
// the one that replaces it.
func idle(d *model.Datastore) error {
	if d.Job == nil || d.Job.Kind == model.JobMark {
		return nil
	}
	return &control.Error{Code: control.CodeInUse, Object: objectOf(*d), Message: fmt.Sprintf("it has a job: %s, step %s", d.Job.Kind, d.Job.Step), Hint: "wait until that is done: ovgate vsphere datastore show " + d.Name}
}

// AttachDatastore gives a datastore to the hosts of its cluster that do not have it.
func (m *Manager) AttachDatastore(ctx context.Context, ref string) (model.Datastore, error) {
	return m.give(ctx, ref, model.DatastoreJob{Kind: model.JobAttach, Step: stepHosts}, idle)
}

// ExpandDatastore grows a datastore and its vDisk.
func (m *Manager) ExpandDatastore(ctx context.Context, ref string, size int64) (model.Datastore, error) {
	return m.give(ctx, ref, model.DatastoreJob{Kind: model.JobExpand, Step: stepGrow, Size: size}, func(d *model.Datastore) error {
		object := datastoreObject(d.Name)
		if e := checkSize(object, size); e != nil {
			return e
		}
		if size < d.Size {
			return &control.Error{Code: control.CodeShrink, Field: "size", Object: object, Message: fmt.Sprintf("a datastore does not shrink: it has %d bytes", d.Size), Hint: "make a smaller one, and move the virtual machines"}
		}
		return idle(d)
	})
}

// RenameDatastore gives a datastore another name, in the vCenter too. Its vDisk keeps its
// own. It may replace a rename that does not get on; to the name that it has, that ends.
func (m *Manager) RenameDatastore(ctx context.Context, ref, name string) (model.Datastore, error) {
	if e := checkName(datastoreObject(clip(name)), name, vsphere.MaxDatastoreName); e != nil {
		return model.Datastore{}, e
	}
	rec, err := m.FindDatastore(ref)
	if err != nil {
		return rec, err
	}
	if err := m.Here(rec); err != nil {
		return rec, err
	}
	look, done := m.begin(ctx)
	defer done()
	c, err := m.FindCenter(rec.Center)
	if err != nil {
		return rec, err
	}
	v, err := m.connect(look, c)
	if err != nil {
		return rec, err
	}
	defer v.Close()
	if exists, err := v.NameTaken(look, name); err != nil {
		return rec, explain(datastoreObject(rec.Name), err)
	} else if exists && name != rec.Name {
		return rec, &control.Error{Code: control.CodeExists, Field: "name", Object: datastoreObject(rec.Name), Message: "vCenter " + c.Name + " has a datastore " + name, Hint: "choose another name"}
	}
	return m.give(look, rec.ID, model.DatastoreJob{Kind: model.JobRename, Step: stepRename, Name: name}, func(d *model.Datastore) error {
		if d.Job != nil && d.Job.Kind == model.JobRename && d.Job.Tries > 0 {
			return nil // the name was taken meanwhile: with another one it gets on
		}
		return idle(d)
	})
}

// RemoveDatastore removes a datastore without virtual machines, and its vDisk unless keep
// is set. An absent one is no error. It may replace a job that does not get on, but for a
// snapshot with virtual machines.
func (m *Manager) RemoveDatastore(ctx context.Context, ref string, keep bool) (model.Datastore, error) {
	ctx, done := m.begin(ctx)
	defer done()
	rec, err := m.FindDatastore(ref)
	if err != nil {
		var e *control.Error
		if errors.As(err, &e) && e.Code == control.CodeNotFound {
			return model.Datastore{}, nil
		}
		return rec, err
	}
	if rec.State == model.StateDeleting {
		return rec, nil
	}
	if err := m.Here(rec); err != nil {
		return rec, err
	}
	if err := m.checkEmpty(ctx, rec); err != nil {
		return rec, err
	}
	return m.give(ctx, rec.ID, model.DatastoreJob{Kind: model.JobRemove, Step: stepDestroy, Keep: keep}, func(d *model.Datastore) error {
		if d.State == model.StatePresent && idle(d) != nil && (d.Job.Tries == 0 || d.Job.Kind == model.JobQuiesce) {
			return idle(d) // and virtual machines that left it may have snapshots of that one
		}
		d.State = model.StateDeleting
		return nil
	})
}

// checkEmpty refuses while virtual machines are on a datastore.
func (m *Manager) checkEmpty(ctx context.Context, rec model.Datastore) error {
	object := datastoreObject(rec.Name)
	if rec.VDisk == "" {
		return nil
	}
	naa, err := control.NAA(rec.VDisk)
	if err != nil {
		return explain(object, err)
	}
	c, err := m.FindCenter(rec.Center)
	if err != nil {
		return err
	}
	v, err := m.connect(ctx, c)
	if err != nil {
		return err
	}
	defer v.Close()
	d, err := v.FindDatastore(ctx, naa)
	if errors.Is(err, vsphere.ErrNotFound) {
		return nil
	}
	if err != nil {
		return explain(object, err)
	}
	if n := len(d.VMs); n > 0 {
		return &control.Error{Code: control.CodeInUse, Object: object, Message: fmt.Sprintf("%d virtual machines or templates are on it", n), Hint: "move or delete them in the vCenter first"}
	}
	return nil
}

// Live is a datastore as its vCenter tells of it.
type Live struct {
	Capacity, Free int64 // bytes
	VMs            int
	Hosts          []HostView
	At             time.Time
}

// HostView is a datastore on a host of its cluster.
type HostView struct {
	Host       string
	Away       string // why nothing can be done with the host
	Mounted    bool
	Accessible bool
	Reason     string
	Policy     string
	Paths      []vsphere.Path
	// Refused is why this node refused its newest login, if that is not long ago; empty: it did not.
	Refused string
}

// Look asks the vCenter for a datastore, with its paths on every host.
func (m *Manager) Look(ctx context.Context, rec model.Datastore) (Live, error) {
	ctx, done := m.begin(ctx)
	defer done()
	object, out := datastoreObject(rec.Name), Live{At: m.clock.Now().UTC()}
	if rec.VDisk == "" {
		return out, nil
	}
	naa, err := control.NAA(rec.VDisk)
	if err != nil {
		return out, err
	}
	c, err := m.FindCenter(rec.Center)
	if err != nil {
		return out, err
	}
	looked, err := m.look(ctx)
	if err != nil {
		return out, err
	}
	defer looked()
	v, err := m.connect(ctx, c)
	if err != nil {
		return out, err
	}
	defer v.Close()
	hosts, err := v.Hosts(ctx, rec.Cluster)
	if err != nil {
		return out, explain(object, err)
	}
	d, err := v.FindDatastore(ctx, naa)
	if err != nil && !errors.Is(err, vsphere.ErrNotFound) {
		return out, explain(object, err)
	}
	if d != nil {
		out.Capacity, out.Free, out.VMs = d.Capacity, d.Free, len(d.VMs)
	}
	now, err := m.storages(ctx, c.ID, v, hosts, vsphere.Disks)
	if err != nil {
		return out, explain(object, err)
	}
	adapters, err := m.storages(ctx, c.ID, v, hosts, vsphere.Adapters)
	if err != nil {
		return out, explain(object, err)
	}
	for _, h := range hosts {
		x := HostView{Host: h.Name, Away: h.Away()}
		if name, _ := adapters[h.ID()].Initiator(); name != "" {
			x.Refused = m.refusedLogin(name)
		}
		if d != nil {
			mount, _ := d.On(h)
			x.Mounted, x.Accessible, x.Reason = mount.Mounted, mount.Accessible, mount.Reason
		}
		if disk, err := now[h.ID()].Disk(naa); err == nil {
			x.Policy, x.Paths = disk.Policy, disk.Paths
		} else if !errors.Is(err, vsphere.ErrNotFound) && !errors.Is(err, vsphere.ErrHostAway) {
			return out, explain(object, err)
		}
		out.Hosts = append(out.Hosts, x)
	}
	return out, nil
}
