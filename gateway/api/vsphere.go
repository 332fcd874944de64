package api

import (
	"context"
	"time"

	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	vspherectl "github.com/openvstorage/ovgate/gateway/vsphere"
	"github.com/openvstorage/ovgate/integrations/vsphere"
)

func (s *Server) centerOf(r model.Center) Center {
	out := Center{
		ID: r.ID, Name: r.Name, HasSecret: len(r.Secret) > 0, Kind: r.Kind, Version: r.Version, Hosts: r.Hosts,
		Datastores: len(s.opt.Model.Datastores(func(d model.Datastore) bool { return d.Center == r.ID && d.RDM == nil })),
		Warnings:   append([]string{}, r.Warnings...), TestedAt: r.Tested.UTC(), Created: r.Created,
		Options: CenterOptions{URL: r.Spec.URL, User: r.Spec.User, Thumbprint: r.Spec.Thumbprint, TimeoutMs: r.Spec.TimeoutMs, Events: !r.Spec.NoEvents, MutualChap: r.Spec.Mutual},
	}
	if out.Options.TimeoutMs == 0 {
		out.Options.TimeoutMs = vsphere.DefaultTimeout.Milliseconds()
	}
	return out
}

func (s *Server) centerResult(r model.Center, report vsphere.Report) CenterResult {
	out := CenterResult{Center: s.centerOf(r), Steps: []RemoteStep{}}
	for _, x := range report.Steps {
		out.Steps = append(out.Steps, RemoteStep{Step: x.Step, Ok: x.OK, Detail: x.Detail, Millis: float32(x.Duration.Seconds() * 1000)})
	}
	return out
}

// centerChange is the change of a spec that options ask for; nil: none.
func centerChange(in *CenterOptionsInput) func(*model.CenterSpec) {
	if in == nil {
		return nil
	}
	return func(s *model.CenterSpec) {
		set(&s.URL, in.URL)
		set(&s.User, in.User)
		set(&s.Thumbprint, in.Thumbprint)
		set(&s.TimeoutMs, in.TimeoutMs)
		set(&s.Mutual, in.MutualChap)
		if in.Events != nil {
			s.NoEvents = !*in.Events
		}
	}
}

// ListCenters lists the registered vCenters.
func (s *Server) ListCenters(_ context.Context, r ListCentersRequestObject) (ListCentersResponseObject, error) {
	var rows []Center
	for _, v := range s.opt.Model.Centers() {
		if matches(r.Params.Q, v.Name, nil) {
			rows = append(rows, s.centerOf(v))
		}
	}
	items, next, err := page(rows, func(v Center) model.Keys { return model.Keys{Text: v.Name, ID: v.ID} }, "name", false, r.Params.Cursor, r.Params.Limit)
	return ListCenters200JSONResponse{items, next}, err
}

// GetCenter shows a registered vCenter.
func (s *Server) GetCenter(_ context.Context, r GetCenterRequestObject) (GetCenterResponseObject, error) {
	v, err := s.opt.VSphere.FindCenter(r.Center)
	if err != nil {
		return nil, err
	}
	return GetCenter200JSONResponse(s.centerOf(v)), nil
}

// CreateCenter registers a vCenter.
func (s *Server) CreateCenter(ctx context.Context, r CreateCenterRequestObject) (CreateCenterResponseObject, error) {
	in := vspherectl.NewCenter{Name: r.Body.Name, Secret: value(r.Body.Secret)}
	centerChange(&r.Body.Options)(&in.Spec)
	v, report, err := s.opt.VSphere.CreateCenter(ctx, in)
	if err != nil {
		return nil, err
	}
	return CreateCenter201JSONResponse(s.centerResult(v, report)), nil
}

// UpdateCenter changes a registered vCenter.
func (s *Server) UpdateCenter(ctx context.Context, r UpdateCenterRequestObject) (UpdateCenterResponseObject, error) {
	v, report, err := s.opt.VSphere.UpdateCenter(ctx, r.Center, vspherectl.CenterPatch{Name: r.Body.Name, Secret: r.Body.Secret, Spec: centerChange(r.Body.Options)})
	if err != nil {
		return nil, err
	}
	return UpdateCenter200JSONResponse(s.centerResult(v, report)), nil
}

// DeleteCenter forgets a registered vCenter.
func (s *Server) DeleteCenter(ctx context.Context, r DeleteCenterRequestObject) (DeleteCenterResponseObject, error) {
	if err := s.opt.VSphere.DeleteCenter(ctx, r.Center); err != nil {
		return nil, err
	}
	return DeleteCenter204Response{}, nil
}

// TestCenter tries a registered vCenter.
func (s *Server) TestCenter(ctx context.Context, r TestCenterRequestObject) (TestCenterResponseObject, error) {
	v, report, err := s.opt.VSphere.TestCenter(ctx, r.Center)
	if err != nil {
		return nil, err
	}
	return TestCenter200JSONResponse(s.centerResult(v, report)), nil
}

// ListCenterHosts lists the hosts of a vCenter.
func (s *Server) ListCenterHosts(ctx context.Context, r ListCenterHostsRequestObject) (ListCenterHostsResponseObject, error) {
	hosts, err := s.opt.VSphere.Hosts(ctx, r.Center, value(r.Params.Cluster))
	if err != nil {
		return nil, err
	}
	var rows []CenterHost
	for _, h := range hosts {
		if matches(r.Params.Q, h.Name, nil) {
			rows = append(rows, CenterHost{ID: h.ID(), Name: h.Name, Cluster: h.Cluster, ClusterID: h.ClusterID, Version: h.Version, State: h.State, Maintenance: h.Maintenance})
		}
	}
	items, next, err := page(rows, func(v CenterHost) model.Keys { return model.Keys{Text: v.Name, ID: v.ID} }, "name", false, r.Params.Cursor, r.Params.Limit)
	return ListCenterHosts200JSONResponse{items, next}, err
}

func actionsOf(list []vsphere.Action) []HostAction {
	out := []HostAction{}
	for _, a := range list {
		out = append(out, HostAction{Host: a.Host, Action: a.Action, Detail: a.Detail})
	}
	return out
}

// PrepareCenterHosts prepares the hosts of a cluster.
func (s *Server) PrepareCenterHosts(ctx context.Context, r PrepareCenterHostsRequestObject) (PrepareCenterHostsResponseObject, error) {
	dryRun := value(r.Body.DryRun)
	actions, err := s.opt.VSphere.PrepareHosts(ctx, r.Center, value(r.Body.Cluster), dryRun, value(r.Body.RotateSecrets))
	if err != nil {
		return nil, err
	}
	return PrepareCenterHosts200JSONResponse{Actions: actionsOf(actions), DryRun: dryRun}, nil
}

func (s *Server) datastoreOf(d model.Datastore) Datastore {
	out := Datastore{ID: d.ID, Name: d.Name, Center: d.Center, Cluster: d.ClusterName, VPool: d.VPool, VDisk: d.VDisk, Size: d.Size, Volume: d.Volume, State: string(d.State), Created: d.Created}
	if c, ok := s.opt.Model.FindCenter(d.Center); ok {
		out.Center = c.Name
	}
	if p, ok := s.opt.Model.VPool(d.VPool); ok {
		out.VPool = p.Name
	}
	if naa, err := control.NAA(d.VDisk); err == nil {
		out.Naa = naa
	}
	out.Job = datastoreJobOf(d.Job)
	out.Warnings, out.Snapshots = append([]string{}, d.Warnings...), []DatastoreSnapshot{}
	for _, x := range d.Snapshots {
		row := DatastoreSnapshot{Name: x.Name, Time: x.Time, Consistent: x.Consistent(), Failed: x.Failed, Group: append([]string{}, x.Group...), Machines: []SnapshotMachine{}}
		for _, m := range x.Machines {
			row.Machines = append(row.Machines, SnapshotMachine{ID: m.ID, Name: m.Name, Quiesced: m.Quiesced, Error: m.Error})
		}
		out.Snapshots = append(out.Snapshots, row)
	}
	return out
}

func datastoreJobOf(j *model.DatastoreJob) *DatastoreJob {
	if j == nil {
		return nil
	}
	return &DatastoreJob{
		Kind: string(j.Kind), Step: j.Step, Steps: vspherectl.Steps(j.Kind), Tries: j.Tries, Error: j.Error, Hint: j.Hint, Notes: append([]string{}, j.Notes...), Started: j.Started,
	}
}

// ListDatastores lists the datastores that ovgate made.
func (s *Server) ListDatastores(_ context.Context, r ListDatastoresRequestObject) (ListDatastoresResponseObject, error) {
	var rows []Datastore
	for _, d := range s.opt.Model.Datastores(func(d model.Datastore) bool { return d.RDM == nil }) {
		if matches(r.Params.Q, d.Name, nil) {
			rows = append(rows, s.datastoreOf(d))
		}
	}
	items, next, err := page(rows, func(v Datastore) model.Keys { return model.Keys{Text: v.Name, ID: v.ID} }, "name", false, r.Params.Cursor, r.Params.Limit)
	return ListDatastores200JSONResponse{items, next}, err
}

// GetDatastore shows a datastore.
func (s *Server) GetDatastore(ctx context.Context, r GetDatastoreRequestObject) (GetDatastoreResponseObject, error) {
	d, err := s.opt.VSphere.FindDatastore(r.Datastore)
	if err == nil && passes(ctx) {
		err = s.opt.VSphere.Here(d) // that node knows first how its job goes
	}
	if err != nil {
		return nil, err
	}
	return GetDatastore200JSONResponse(s.datastoreOf(d)), nil
}

// CreateDatastore makes a datastore.
func (s *Server) CreateDatastore(ctx context.Context, r CreateDatastoreRequestObject) (CreateDatastoreResponseObject, error) {
	b, dryRun := r.Body, value(r.Body.DryRun)
	d, plan, err := s.opt.VSphere.CreateDatastore(ctx, vspherectl.NewDatastore{Name: b.Name, Center: b.Center, Cluster: value(b.Cluster), VPool: b.VPool, Size: b.Size}, dryRun)
	if err != nil {
		return nil, err
	}
	return CreateDatastore202JSONResponse{Datastore: s.datastoreOf(d), Actions: actionsOf(plan), DryRun: dryRun}, nil
}

// ImportDatastore makes the volume on a clone a datastore.
func (s *Server) ImportDatastore(ctx context.Context, r ImportDatastoreRequestObject) (ImportDatastoreResponseObject, error) {
	d, err := s.opt.VSphere.ImportDatastore(ctx, vspherectl.NewImport{Name: r.Body.Name, Center: r.Center, Cluster: value(r.Body.Cluster), VDisk: r.Body.VDisk})
	if err != nil {
		return nil, err
	}
	return ImportDatastore202JSONResponse(s.datastoreOf(d)), nil
}

// RemoveDatastore removes a datastore.
func (s *Server) RemoveDatastore(ctx context.Context, r RemoveDatastoreRequestObject) (RemoveDatastoreResponseObject, error) {
	if _, err := s.opt.VSphere.RemoveDatastore(ctx, r.Datastore, value(r.Params.KeepVDisk)); err != nil {
		return nil, err
	}
	return RemoveDatastore204Response{}, nil
}

// LookAtDatastore asks the vCenter for a datastore.
func (s *Server) LookAtDatastore(ctx context.Context, r LookAtDatastoreRequestObject) (LookAtDatastoreResponseObject, error) {
	d, err := s.opt.VSphere.FindDatastore(r.Datastore)
	if err != nil {
		return nil, err
	}
	live, err := s.opt.VSphere.Look(ctx, d)
	if err != nil {
		return nil, err
	}
	out := LookAtDatastore200JSONResponse{Capacity: live.Capacity, Free: live.Free, Size: d.Size, Vms: live.VMs, Hosts: []DatastoreHost{}, ObservedAt: live.At}
	if v, ok := s.opt.Model.VDisk(d.VDisk); ok {
		out.Stored = s.opt.Control.DiskStatus(v).Stats.StoredBytes
	}
	for _, h := range live.Hosts {
		row := DatastoreHost{Host: h.Host, Away: h.Away, Mounted: h.Mounted, Accessible: h.Accessible, Reason: h.Reason, Policy: h.Policy, Refused: h.Refused, Paths: []DatastorePath{}}
		for _, p := range h.Paths {
			row.Paths = append(row.Paths, DatastorePath{Portal: p.Portal, Target: p.Target, State: p.State, Working: p.Working})
		}
		out.Hosts = append(out.Hosts, row)
	}
	return out, nil
}

// ExpandDatastore grows a datastore.
func (s *Server) ExpandDatastore(ctx context.Context, r ExpandDatastoreRequestObject) (ExpandDatastoreResponseObject, error) {
	d, err := s.opt.VSphere.ExpandDatastore(ctx, r.Datastore, r.Body.Size)
	if err != nil {
		return nil, err
	}
	return ExpandDatastore202JSONResponse(s.datastoreOf(d)), nil
}

// RenameDatastore renames a datastore.
func (s *Server) RenameDatastore(ctx context.Context, r RenameDatastoreRequestObject) (RenameDatastoreResponseObject, error) {
	d, err := s.opt.VSphere.RenameDatastore(ctx, r.Datastore, r.Body.Name)
	if err != nil {
		return nil, err
	}
	return RenameDatastore202JSONResponse(s.datastoreOf(d)), nil
}

// SnapshotDatastore makes a snapshot of a datastore with its virtual machines quiesced.
func (s *Server) SnapshotDatastore(ctx context.Context, r SnapshotDatastoreRequestObject) (SnapshotDatastoreResponseObject, error) {
	d, err := s.opt.VSphere.SnapshotDatastore(ctx, r.Datastore, vspherectl.NewSnapshot{
		Name: r.Body.Name, With: value(r.Body.With), Require: value(r.Body.Require), Within: time.Duration(value(r.Body.Within)) * time.Second,
	})
	if err != nil {
		return nil, err
	}
	return SnapshotDatastore202JSONResponse(s.datastoreOf(d)), nil
}

// AttachDatastore gives a datastore to hosts that do not have it.
func (s *Server) AttachDatastore(ctx context.Context, r AttachDatastoreRequestObject) (AttachDatastoreResponseObject, error) {
	d, err := s.opt.VSphere.AttachDatastore(ctx, r.Datastore)
	if err != nil {
		return nil, err
	}
	return AttachDatastore202JSONResponse(s.datastoreOf(d)), nil
}

// ListVMs lists the virtual machines on datastores of ovgate.
func (s *Server) ListVMs(ctx context.Context, r ListVMsRequestObject) (ListVMsResponseObject, error) {
	vms, sources, err := s.opt.VSphere.VMs(ctx, value(r.Params.Datastore))
	if err != nil {
		return nil, err
	}
	out := ListVMs200JSONResponse{Sources: []VirtualMachineSource{}}
	for _, x := range sources {
		row := VirtualMachineSource{Center: x.Center, Problem: x.Problem}
		if !x.Seen.IsZero() {
			row.SeenAt = &x.Seen
		}
		out.Sources = append(out.Sources, row)
	}
	var rows []VirtualMachine
	for _, v := range vms {
		if matches(r.Params.Q, v.Name, nil) {
			rows = append(rows, VirtualMachine{ID: v.ID, Name: v.Name, Center: v.Center, Host: v.Host, Power: v.Power, Template: v.Template, Datastores: v.Datastores})
		}
	}
	out.Items, out.Next, err = page(rows, func(v VirtualMachine) model.Keys { return model.Keys{Text: v.Name, ID: v.Center + " " + v.ID} }, "name", false, r.Params.Cursor, r.Params.Limit)
	return out, err
}
