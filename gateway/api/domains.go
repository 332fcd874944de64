package api

import (
	"context"
	"slices"

	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/domain"
	"github.com/openvstorage/ovgate/gateway/model"
)

// unnamed stands for the domain without a name.
const unnamed = "-"

// ListDomains lists what fails together.
func (s *Server) ListDomains(ctx context.Context, r ListDomainsRequestObject) (ListDomainsResponseObject, error) {
	f, err := s.domainFacts(ctx)
	if err != nil {
		return nil, err
	}
	look := s.memberLook(ctx)
	var rows []Domain
	for _, d := range domain.Assess(f) {
		if matches(r.Params.Q, d.Name, nil) {
			rows = append(rows, s.domainOf(d, f, look))
		}
	}
	// "~" is behind every name.
	items, next, err := page(rows, func(d Domain) model.Keys { return model.Keys{Text: orUnnamed(d.Name, "~"), ID: orUnnamed(d.Name, "~")} }, "name", false, r.Params.Cursor, r.Params.Limit)
	return ListDomains200JSONResponse{items, next}, err
}

func orUnnamed(name, other string) string {
	if name == "" {
		return other
	}
	return name
}

// GetDomain shows a domain.
func (s *Server) GetDomain(ctx context.Context, r GetDomainRequestObject) (GetDomainResponseObject, error) {
	f, d, err := s.findDomain(ctx, r.Domain)
	if err != nil {
		return nil, err
	}
	return GetDomain200JSONResponse(s.domainOf(d, f, s.memberLook(ctx))), nil
}

// ListDomainVDisks lists what a domain serves, or has the copy of.
func (s *Server) ListDomainVDisks(ctx context.Context, r ListDomainVDisksRequestObject) (ListDomainVDisksResponseObject, error) {
	f, d, err := s.findDomain(ctx, r.Domain)
	if err != nil {
		return nil, err
	}
	in := map[string]domain.Node{}
	for _, n := range f.Nodes {
		in[n.ID] = n
	}
	var rows []DomainVDisk
	for _, v := range domain.VDisks(f, d.Name) {
		if !matches(r.Params.Q, v.Name, nil) {
			continue
		}
		row := DomainVDisk{ID: v.ID, Name: v.Name, VPool: v.VPool, Node: s.opt.Control.NodeName(v.Node), Domain: in[v.Node].Domain, Fate: DomainVDiskFate(v.Fate)}
		if v.Copy != "" {
			row.Copy, row.CopyDomain = new(s.opt.Control.NodeName(v.Copy)), new(in[v.Copy].Domain)
		}
		rows = append(rows, row)
	}
	items, next, err := page(rows, func(v DomainVDisk) model.Keys { return model.Keys{Text: v.Name, ID: v.ID} }, "name", false, r.Params.Cursor, r.Params.Limit)
	return ListDomainVDisks200JSONResponse{items, next}, err
}

func (s *Server) findDomain(ctx context.Context, ref string) (domain.Facts, domain.Domain, error) {
	f, err := s.domainFacts(ctx)
	if err != nil {
		return f, domain.Domain{}, err
	}
	all := domain.Assess(f)
	name := ref
	if ref == unnamed {
		name = ""
	}
	i := slices.IndexFunc(all, func(d domain.Domain) bool { return d.Name == name })
	if i < 0 {
		return f, domain.Domain{}, &control.Error{Code: control.CodeNotFound, Object: "domain " + clip(ref), Message: "nothing is in a domain of that name", Hint: "ovgate domain list shows the domains"}
	}
	return f, all[i], nil
}

// domainOf is what is shown of a domain.
func (s *Server) domainOf(d domain.Domain, f domain.Facts, look memberLook) Domain {
	out := Domain{
		Name: d.Name, Nodes: []DomainNode{}, Machines: append([]string{}, d.Machines...), Devices: d.Devices, Failed: d.Failed, Total: d.Total, Used: d.Used, Vdisks: d.VDisks, Copies: d.Copies,
		TakenOver: d.TakenOver, Waits: d.Waits, Gone: d.Gone, Quorum: d.Quorum, State: HealthState(d.State), Loss: d.Loss, ObservedAt: look.at.UTC(),
	}
	for _, n := range d.Nodes {
		out.Nodes = append(out.Nodes, DomainNode{ID: n.ID, Name: n.Name, State: look.state(n.ID), Copies: n.Copies, Registry: n.Member})
	}
	if d.Lost >= 0 {
		out.Lost = &d.Lost
	}
	out.SurveyedAt = when(f.Objects.At)
	return out
}

// domainFacts gathers what package domain is told. The registry is read once, and no node is asked.
func (s *Server) domainFacts(ctx context.Context) (domain.Facts, error) {
	var f domain.Facts
	look := s.memberLook(ctx)
	member := map[string]bool{}
	if p := s.opt.Cluster.Status(); p.Own {
		f.Members = len(p.Registry)
		for _, m := range p.Registry {
			member[m.Node] = true
		}
	}
	for _, n := range s.opt.Model.Nodes() {
		f.Nodes = append(f.Nodes, domain.Node{ID: n.ID, Name: n.Name, Domain: n.Domain, Up: look.state(n.ID) == MemberStateUp, Copies: n.DTL != "", Member: member[n.ID]})
	}
	if err := s.domainDevices(ctx, &f); err != nil {
		return f, albaError("", err)
	}
	holds, err := s.opt.Control.Holds(ctx)
	if err != nil {
		return f, err
	}
	pools := map[string]model.VPool{}
	for _, p := range s.opt.Model.VPools() {
		pools[p.ID] = p
	}
	s.opt.Model.VDisks(func(v model.VDisk) bool {
		if v.State != model.StateTrashed && v.State != model.StateDeleting {
			p, h := pools[v.VPool], holds[v.ID]
			f.VDisks = append(f.VDisks, domain.VDisk{ID: v.ID, Name: v.Name, VPool: p.Name, Node: v.Node, Local: p.Node != "" || !p.Backend.Shared(), Clean: h.Clean, Copy: h.Copy})
		}
		return false
	})
	return f, nil
}

// domainDevices adds the devices of the object store, and what its last survey said.
func (s *Server) domainDevices(ctx context.Context, f *domain.Facts) error {
	osds, err := s.opt.Alba.OSDs(ctx)
	if err != nil {
		return err
	}
	for _, o := range osds {
		d := domain.Device{Domain: o.Domain, Working: o.Broken() == "", Total: o.Seen.Total, Used: o.Seen.Used}
		if _, is := s.opt.Model.Node(o.Node); !is {
			d.Machine = o.Node
		}
		f.Devices = append(f.Devices, d)
	}
	t, err := s.opt.Alba.Status(ctx)
	if err != nil {
		return err
	}
	f.Objects = domain.Objects{At: t.Safety.At, All: t.Safety.Objects, Tolerates: t.Safety.Tolerates, Spread: t.Safety.Domains}
	return nil
}
