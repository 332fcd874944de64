package api

import (
	"context"

	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	vspherectl "github.com/openvstorage/ovgate/gateway/vsphere"
	"github.com/openvstorage/ovgate/integrations/vsphere"
)

func (s *Server) rdmOf(d model.Datastore) RDM {
	out := RDM{
		ID: d.ID, Name: d.Name, Center: d.Center, Cluster: d.ClusterName, VM: d.RDM.Machine, VMName: d.RDM.MachineName, VDisk: d.VDisk, Size: d.Size,
		Mode: d.RDM.Mode, Shared: d.RDM.Shared, State: string(d.State), Job: datastoreJobOf(d.Job), Created: d.Created,
	}
	if c, ok := s.opt.Model.FindCenter(d.Center); ok {
		out.Center = c.Name
	}
	if naa, err := control.NAA(d.VDisk); err == nil {
		out.Naa = naa
	}
	return out
}

// ListRDMs lists the vDisks that are disks of virtual machines.
func (s *Server) ListRDMs(_ context.Context, r ListRDMsRequestObject) (ListRDMsResponseObject, error) {
	var rows []RDM
	for _, d := range s.opt.VSphere.RDMs() {
		if matches(r.Params.Q, d.Name, nil) {
			rows = append(rows, s.rdmOf(d))
		}
	}
	items, next, err := page(rows, func(v RDM) model.Keys { return model.Keys{Text: v.Name, ID: v.ID} }, "name", false, r.Params.Cursor, r.Params.Limit)
	return ListRDMs200JSONResponse{items, next}, err
}

// GetRDM shows a vDisk that is a disk of a virtual machine.
func (s *Server) GetRDM(ctx context.Context, r GetRDMRequestObject) (GetRDMResponseObject, error) {
	d, err := s.opt.VSphere.FindRDM(r.Rdm)
	if err == nil && passes(ctx) {
		err = s.opt.VSphere.Here(d) // that node knows first how its job goes
	}
	if err != nil {
		return nil, err
	}
	return GetRDM200JSONResponse(s.rdmOf(d)), nil
}

// AttachRDM gives a virtual machine a vDisk.
func (s *Server) AttachRDM(ctx context.Context, r AttachRDMRequestObject) (AttachRDMResponseObject, error) {
	b, dryRun := r.Body, value(r.Body.DryRun)
	d, plan, err := s.opt.VSphere.AttachRDM(ctx, vspherectl.NewRDM{VDisk: b.VDisk, Center: b.Center, Machine: b.VM, Mode: vsphere.RDMMode(value(b.Mode)), Shared: value(b.Shared)}, dryRun)
	if err != nil {
		return nil, err
	}
	return AttachRDM202JSONResponse{Rdm: s.rdmOf(d), Actions: actionsOf(plan), DryRun: dryRun}, nil
}

// DetachRDM takes a vDisk from a virtual machine.
func (s *Server) DetachRDM(ctx context.Context, r DetachRDMRequestObject) (DetachRDMResponseObject, error) {
	if err := s.opt.VSphere.DetachRDM(ctx, r.Rdm); err != nil {
		return nil, err
	}
	return DetachRDM204Response{}, nil
}
