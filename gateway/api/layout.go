package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/layout"
	"github.com/openvstorage/ovgate/gateway/precheck"
)

// CheckNode tells whether a node has what it needs; it is asked itself.
func (s *Server) CheckNode(ctx context.Context, r CheckNodeRequestObject) (CheckNodeResponseObject, error) {
	n, err := s.findNode(r.Node)
	if err == nil {
		err = s.askNode(ctx, n, "machine")
	}
	if err != nil {
		return nil, err
	}
	checks := s.opt.Precheck(ctx)
	out := CheckNode200JSONResponse{Node: Node{ID: n.ID, Name: n.Name}, State: NodeCheckState(precheck.Worst(checks)), Checks: []NodeCheckItem{}, ObservedAt: s.clock.Now().UTC()}
	for _, c := range checks {
		out.Checks = append(out.Checks, NodeCheckItem{Code: NodeCheckItemCode(c.Code), Object: c.Object, State: NodeCheckState(c.State), Text: c.Text, Means: c.Means, Fix: c.Fix})
	}
	return out, nil
}

// GetNodeLayout tells what the disks of a node are for; it is asked itself.
func (s *Server) GetNodeLayout(ctx context.Context, r GetNodeLayoutRequestObject) (GetNodeLayoutResponseObject, error) {
	n, facts, plan, err := s.layoutOf(ctx, r.Node, r.Params.Role)
	if err != nil {
		return nil, err
	}
	out := GetNodeLayout200JSONResponse{
		Node: n, Disks: []LayoutDisk{}, Config: plan.Config, ConfigFile: facts.ConfigFile, Commands: plan.Commands, Notes: append([]string{}, plan.Notes...), Devices: facts.Devices, ObservedAt: s.clock.Now().UTC(),
	}
	for _, d := range plan.Rows {
		out.Disks = append(out.Disks, layoutDisk(d))
	}
	return out, nil
}

func layoutDisk(d layout.Row) LayoutDisk {
	out := LayoutDisk{
		Name: d.Name, Path: d.Path, Link: some(d.Link), Model: some(d.Model), Serial: some(d.Serial), Size: d.Size, Rotational: !d.SSD, Holds: d.Holds, Mount: some(d.Mount),
		Roles: []DiskRole{}, Free: d.State != layout.InUse && d.State != layout.Kept, State: LayoutDiskState(d.State), Reason: d.Reason, Warning: some(d.Warning), Places: []LayoutPlace{},
	}
	for _, role := range d.Roles {
		out.Roles = append(out.Roles, DiskRole(role))
	}
	for _, p := range d.Places {
		out.Places = append(out.Places, LayoutPlace{Role: DiskRole(p.Role), Path: p.Path, Bytes: p.Bytes})
	}
	return out
}

// ApplyNodeLayout begins to make devices of the disks of a node that are ready for that.
func (s *Server) ApplyNodeLayout(ctx context.Context, r ApplyNodeLayoutRequestObject) (ApplyNodeLayoutResponseObject, error) {
	n, _, plan, err := s.layoutOf(ctx, r.Node, r.Params.Role)
	if err != nil {
		return nil, err
	}
	if len(plan.Refused) > 0 {
		return nil, layoutRefusal(n.Name, plan.Refused[0])
	}
	var dirs []string
	for _, d := range plan.Rows {
		if d.State == layout.Ready {
			dirs = append(dirs, d.Places[0].Path)
		}
	}
	if len(dirs) == 0 {
		hint := "ovgate node layout " + n.Name + " shows what there is to do before"
		return nil, refuse(http.StatusConflict, string(control.CodeInUse), "node "+n.Name, hint, "no disk is ready to become a device")
	}
	id, err := s.opt.Claim(dirs)
	if err != nil {
		return nil, err
	}
	own, err := s.ownJobs(ctx)
	if i := slices.IndexFunc(own, func(j row) bool { return j.ID == id }); i >= 0 {
		return ApplyNodeLayout202JSONResponse(own[i].Job), nil
	}
	return nil, err
}

// layoutOf is the layout of a node with the roles that were chosen, DISK=ROLE each.
func (s *Server) layoutOf(ctx context.Context, ref string, chosen *[]string) (Node, layout.Node, layout.Plan, error) {
	var none layout.Plan
	n, err := s.findNode(ref)
	if err == nil {
		err = s.askNode(ctx, n, "layout")
	}
	if err != nil {
		return Node{}, layout.Node{}, none, err
	}
	choice := map[string][]layout.Role{}
	for _, c := range value(chosen) {
		disk, role, ok := strings.Cut(c, "=")
		if !ok {
			return Node{}, layout.Node{}, none, refuseField("role", "write it like sdb=alba", "%q is not DISK=ROLE", clip(c))
		}
		disk = clip(disk)
		choice[disk] = []layout.Role{}
		if role != "none" {
			for _, one := range strings.Split(role, ",") {
				choice[disk] = append(choice[disk], layout.Role(one))
			}
		}
	}
	facts, disks, err := s.opt.Disks(ctx)
	if err != nil {
		return Node{}, facts, none, albaError("node "+n.Name, err)
	}
	plan, err := layout.Propose(facts, disks, choice)
	if errors.Is(err, layout.ErrChoice) {
		err = layoutRefusal(n.Name, err)
	}
	return Node{ID: n.ID, Name: n.Name}, facts, plan, err
}

// layoutRefusal is the answer to a choice that a disk cannot have.
func layoutRefusal(node string, err error) error {
	return refuseField("role", "ovgate node layout "+node+" shows the disks and what they may be for", "%v", err)
}
