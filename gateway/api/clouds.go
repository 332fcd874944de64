package api

import (
	"context"
	"strings"

	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/integrations/cinder"
)

// gib is what Cinder counts in, in bytes.
const gib = 1 << 30

func cloudOf(r model.Cloud) Cloud {
	s := r.Spec
	out := Cloud{
		ID: r.ID, Name: r.Name, HasSecret: len(r.Secret) > 0, Types: []VolumeType{}, Backends: append([]string{}, r.Backends...),
		Version: r.Version, Warnings: append([]string{}, r.Warnings...), TestedAt: r.Tested.UTC(), Created: r.Created,
		Options: CloudOptions{
			URL: s.URL, User: s.User, Domain: s.Domain, Project: s.Project, ProjectDomain: s.ProjectDomain, ApplicationCredential: s.Credential,
			Region: s.Region, Interface: s.Interface, Ca: s.CA, TimeoutMs: s.TimeoutMs,
		},
	}
	if out.Options.Interface == "" {
		out.Options.Interface = "public"
	}
	if out.Options.TimeoutMs == 0 {
		out.Options.TimeoutMs = cinder.DefaultTimeout.Milliseconds()
	}
	if !r.Applied.IsZero() {
		out.AppliedAt = new(r.Applied.UTC())
	}
	for _, t := range r.Types {
		l := t.Limits
		out.Types = append(out.Types, VolumeType{
			Name: t.Name, VPool: t.VPool, Backend: t.Backend, Multiattach: t.Multiattach,
			Limits: VolumeLimits{Iops: l.IOPS, IopsPerGib: l.IOPSPerGiB, BytesPerSecond: l.Bytes, BytesPerSecondPerGib: l.BytesPerGiB, BurstMs: l.BurstMillis},
		})
	}
	return out
}

func cloudResult(r model.Cloud, report cinder.Report) CloudResult {
	out := CloudResult{Cloud: cloudOf(r), Steps: []RemoteStep{}}
	for _, x := range report.Steps {
		out.Steps = append(out.Steps, RemoteStep{Step: x.Step, Ok: x.OK, Detail: x.Detail, Millis: float32(x.Duration.Seconds() * 1000)})
	}
	return out
}

// cloudChange is the change of a spec that options ask for; nil: none.
func cloudChange(in *CloudOptionsInput) func(*model.CloudSpec) {
	if in == nil {
		return nil
	}
	return func(s *model.CloudSpec) {
		set(&s.URL, in.URL)
		set(&s.User, in.User)
		set(&s.Domain, in.Domain)
		set(&s.Project, in.Project)
		set(&s.ProjectDomain, in.ProjectDomain)
		set(&s.Credential, in.ApplicationCredential)
		set(&s.Region, in.Region)
		set(&s.Interface, in.Interface)
		set(&s.CA, in.Ca)
		set(&s.TimeoutMs, in.TimeoutMs)
	}
}

// ListClouds lists the registered clouds.
func (s *Server) ListClouds(_ context.Context, r ListCloudsRequestObject) (ListCloudsResponseObject, error) {
	var rows []Cloud
	for _, v := range s.opt.Model.Clouds() {
		if matches(r.Params.Q, v.Name, nil) {
			rows = append(rows, cloudOf(v))
		}
	}
	items, next, err := page(rows, func(v Cloud) model.Keys { return model.Keys{Text: v.Name, ID: v.ID} }, "name", false, r.Params.Cursor, r.Params.Limit)
	return ListClouds200JSONResponse{items, next}, err
}

// GetCloud shows a registered cloud.
func (s *Server) GetCloud(_ context.Context, r GetCloudRequestObject) (GetCloudResponseObject, error) {
	v, err := s.opt.Control.FindCloud(r.Cloud)
	if err != nil {
		return nil, err
	}
	return GetCloud200JSONResponse(cloudOf(v)), nil
}

// CreateCloud registers a cloud.
func (s *Server) CreateCloud(ctx context.Context, r CreateCloudRequestObject) (CreateCloudResponseObject, error) {
	in := control.NewCloud{Name: r.Body.Name, Secret: value(r.Body.Secret)}
	cloudChange(&r.Body.Options)(&in.Spec)
	v, report, err := s.opt.Control.CreateCloud(ctx, in)
	if err != nil {
		return nil, err
	}
	return CreateCloud201JSONResponse(cloudResult(v, report)), nil
}

// UpdateCloud changes a registered cloud.
func (s *Server) UpdateCloud(ctx context.Context, r UpdateCloudRequestObject) (UpdateCloudResponseObject, error) {
	v, report, err := s.opt.Control.UpdateCloud(ctx, r.Cloud, control.CloudPatch{Name: r.Body.Name, Secret: r.Body.Secret, Spec: cloudChange(r.Body.Options)})
	if err != nil {
		return nil, err
	}
	return UpdateCloud200JSONResponse(cloudResult(v, report)), nil
}

// DeleteCloud forgets a registered cloud.
func (s *Server) DeleteCloud(ctx context.Context, r DeleteCloudRequestObject) (DeleteCloudResponseObject, error) {
	if err := s.opt.Control.DeleteCloud(ctx, r.Cloud); err != nil {
		return nil, err
	}
	return DeleteCloud204Response{}, nil
}

// TestCloud tries a registered cloud.
func (s *Server) TestCloud(ctx context.Context, r TestCloudRequestObject) (TestCloudResponseObject, error) {
	v, report, err := s.opt.Control.TestCloud(ctx, r.Cloud)
	if err != nil {
		return nil, err
	}
	return TestCloud200JSONResponse(cloudResult(v, report)), nil
}

// SetVolumeType declares a volume type.
func (s *Server) SetVolumeType(ctx context.Context, r SetVolumeTypeRequestObject) (SetVolumeTypeResponseObject, error) {
	t := model.VolumeType{Name: r.VolumeType, VPool: r.Body.VPool, Backend: value(r.Body.Backend), Multiattach: value(r.Body.Multiattach)}
	if l := r.Body.Limits; l != nil {
		t.Limits = model.VolumeLimit{IOPS: l.Iops, IOPSPerGiB: l.IopsPerGib, Bytes: l.BytesPerSecond, BytesPerGiB: l.BytesPerSecondPerGib, BurstMillis: l.BurstMs}
	}
	v, err := s.opt.Control.SetVolumeType(ctx, r.Cloud, t)
	if err != nil {
		return nil, err
	}
	return SetVolumeType200JSONResponse(cloudOf(v)), nil
}

// DeleteVolumeType takes the declaration of a volume type back.
func (s *Server) DeleteVolumeType(ctx context.Context, r DeleteVolumeTypeRequestObject) (DeleteVolumeTypeResponseObject, error) {
	if err := s.opt.Control.DeleteVolumeType(ctx, r.Cloud, r.VolumeType); err != nil {
		return nil, err
	}
	return DeleteVolumeType204Response{}, nil
}

// ApplyCloud makes volume types what they should be.
func (s *Server) ApplyCloud(ctx context.Context, r ApplyCloudRequestObject) (ApplyCloudResponseObject, error) {
	var in CloudApplyInput
	if r.Body != nil {
		in = *r.Body
	}
	dryRun := value(in.DryRun)
	plan, n, err := s.opt.Control.ApplyCloud(ctx, r.Cloud, dryRun, value(in.Prune))
	if err != nil {
		return nil, err
	}
	out := CloudPlan{Actions: []CloudAction{}, Changes: n, DryRun: dryRun}
	if dryRun {
		out.Changes = plan.Changes()
	}
	for _, a := range plan.Actions {
		out.Actions = append(out.Actions, CloudAction{Action: a.Action, Kind: a.Kind, Name: a.Name, Detail: a.Detail})
	}
	return ApplyCloud200JSONResponse(out), nil
}

func cloudBackendOf(b cinder.Backend) CloudBackend {
	out := CloudBackend{Host: b.Host, Name: b.Name, State: "up", Reason: b.Reason, Version: b.Version, Pools: []CloudPool{}}
	switch {
	case !b.Service:
		out.State = "gone"
	case !b.Up:
		out.State = "down"
	case !b.Enabled:
		out.State = "disabled"
	}
	if !b.Seen.IsZero() {
		out.SeenAt = new(b.Seen.UTC())
	}
	for _, p := range b.Pools {
		out.Pools = append(out.Pools, CloudPool{
			VPool: p.VPool, Known: p.Known, Total: int64(p.Total * gib), Free: int64(p.Free * gib), Allocated: int64(p.Allocated * gib), Volumes: p.Volumes,
		})
	}
	return out
}

// ListCloudBackends lists the backends of a cloud that are this node.
func (s *Server) ListCloudBackends(ctx context.Context, r ListCloudBackendsRequestObject) (ListCloudBackendsResponseObject, error) {
	all, err := s.opt.Control.CloudBackends(ctx, r.Cloud)
	if err != nil {
		return nil, err
	}
	var rows []CloudBackend
	for _, b := range all {
		if matches(r.Params.Q, b.Host, nil) {
			rows = append(rows, cloudBackendOf(b))
		}
	}
	items, next, err := page(rows, func(v CloudBackend) model.Keys { return model.Keys{Text: v.Host, ID: v.Host} }, "host", false, r.Params.Cursor, r.Params.Limit)
	return ListCloudBackends200JSONResponse{items, next}, err
}

// ListCloudVolumes lists the volumes of a cloud on this node.
func (s *Server) ListCloudVolumes(ctx context.Context, r ListCloudVolumesRequestObject) (ListCloudVolumesResponseObject, error) {
	m, err := s.opt.Control.CloudVolumes(ctx, r.Cloud)
	if err != nil {
		return nil, err
	}
	var rows []CloudVolume
	project := value(r.Params.Project)
	for _, v := range m.Volumes {
		if project != "" && project != v.Project && project != v.ProjectName {
			continue
		}
		if !matches(r.Params.Q, v.Name, map[string]string{v.ID: v.VDiskName}) {
			continue
		}
		rows = append(rows, CloudVolume{
			ID: v.ID, Name: v.Name, Project: v.Project, ProjectName: v.ProjectName, Status: v.Status, Type: v.Type, Host: v.Host, VPool: v.VPool,
			Size: v.GiB * gib, Attached: append([]string{}, v.Attached...), VDisk: v.VDisk, VDiskName: v.VDiskName, Stored: v.Stored,
		})
	}
	key := func(v CloudVolume) model.Keys {
		return model.Keys{Text: strings.Join([]string{clip(v.ProjectName), v.Project, clip(v.Name)}, "\x00"), ID: v.ID}
	}
	items, next, err := page(rows, key, "project", false, r.Params.Cursor, r.Params.Limit)
	return ListCloudVolumes200JSONResponse{items, next}, err
}

// GetCloudUsage sums up volumes by project.
func (s *Server) GetCloudUsage(ctx context.Context, r GetCloudUsageRequestObject) (GetCloudUsageResponseObject, error) {
	m, err := s.opt.Control.CloudVolumes(ctx, r.Cloud)
	if err != nil {
		return nil, err
	}
	out := GetCloudUsage200JSONResponse{Items: []CloudUsage{}}
	for _, u := range cinder.Usages(m.Volumes) {
		out.Items = append(out.Items, CloudUsage{Project: u.Project, Name: u.Name, Volumes: u.Volumes, Size: u.GiB * gib, Stored: u.Stored})
	}
	return out, nil
}

// ListOrphans lists what has no other side.
func (s *Server) ListOrphans(ctx context.Context, r ListOrphansRequestObject) (ListOrphansResponseObject, error) {
	all, err := s.opt.Control.CloudOrphans(ctx)
	if err != nil {
		return nil, err
	}
	var rows []Orphan
	for _, o := range all {
		row := Orphan{Kind: "vdisk", Cloud: o.Cloud, Reason: o.Why}
		if d := o.VDisk; d != nil {
			row.ID, row.Name, row.VPool, row.Project, row.Size, row.Stored = d.ID, d.Name, d.VPool, d.Project, d.Size, d.Stored
		} else {
			v := o.Volume
			row.Kind, row.ID, row.Name, row.VPool, row.Project, row.Size = "volume", v.ID, v.Name, v.VPool, v.Project, v.GiB*gib
		}
		if s := o.Snapshot; s != nil {
			row.Kind, row.ID, row.Name, row.Stored = row.Kind+" snapshot", s.ID, s.Name, 0
		}
		if matches(r.Params.Q, row.Name, map[string]string{row.ID: row.Project}) {
			rows = append(rows, row)
		}
	}
	items, next, err := page(rows, func(v Orphan) model.Keys { return model.Keys{Text: v.Kind, ID: v.ID} }, "kind", false, r.Params.Cursor, r.Params.Limit)
	return ListOrphans200JSONResponse{items, next}, err
}
