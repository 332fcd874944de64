package control

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/iscsi"
)

// nowhere is a local address that no connection has: "this network" is no
// address of a host (RFC 1122 section 3.2.1.3).
const nowhere = "0.0.0.1:1"

// Portals returns the portals as initiators should use them.
func (c *Controller) Portals() []iscsi.Portal { return slices.Clone(c.opt.Portals) }

// TargetPortals returns the portals through which a target is reached: those of this node,
// then, where every node shows it, those of the others.
func (c *Controller) TargetPortals(t Target) []iscsi.Portal {
	list := append(c.Portals(), c.otherPortals()...)
	if len(t.Access.Portals) > 0 {
		list = slices.DeleteFunc(list, func(p iscsi.Portal) bool { return !slices.Contains(t.Access.Portals, p.Address) })
	}
	return list[:min(len(list), maxTargetPortals)]
}

// targetPortals is the front end's view of the portals of a target. One whose addresses all
// left the cluster is reached nowhere, and not everywhere.
func (c *Controller) targetPortals(t Target) []iscsi.Portal {
	list := c.TargetPortals(t)
	if len(t.Access.Portals) == 0 {
		return list
	}
	for i := range list {
		if list[i].Local != nowhere {
			list[i].Local = exactLocal(list[i])
		}
	}
	if len(list) == 0 {
		c.log.Warn("target is reached nowhere: none of its portals is an address of this node", "target", t.IQN, "portals", strings.Join(t.Access.Portals, " "))
		for _, a := range t.Access.Portals {
			list = append(list, iscsi.Portal{Address: a, Local: nowhere, Group: 1})
		}
	}
	return list
}

// exactLocal narrows a portal on a wildcard socket to its own address, if that
// is one of this machine; an address that is translated on the way is not.
func exactLocal(p iscsi.Portal) string {
	local, err := netip.ParseAddrPort(p.Local)
	told, terr := netip.ParseAddrPort(p.Address)
	if err != nil || terr != nil || !local.Addr().IsUnspecified() || local.Port() != told.Port() {
		return p.Local
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return p.Local
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.Equal(told.Addr().AsSlice()) {
			return p.Address
		}
	}
	return p.Local
}

// SetPortals has a target reached through these addresses only; none is every
// portal of the node and, where every node shows it, of the others. redirect, unless nil, says
// whether initiators are sent to the node that serves the vDisk.
func (c *Controller) SetPortals(ctx context.Context, ref string, addresses []string, redirect *bool) (Target, error) {
	return c.changeTarget(ctx, ref, func(t Target, a *model.Target) error {
		if redirect != nil {
			if *redirect && t.Shared {
				return invalid("redirect", t.object(), "publish the vDisk in a target of its own, or use multipath",
					"vDisks of a shared target may be at several nodes, so there is none to send initiators to")
			}
			a.Redirect = *redirect
		}
		var here, want []string
		others := c.otherPortals()
		whose, hint := "this node", "this node has "
		if len(others) > 0 {
			whose, hint = "any node", "the nodes have "
		}
		for _, p := range append(c.Portals(), others...) {
			here = append(here, p.Address)
		}
		for _, addr := range addresses {
			if !slices.Contains(here, addr) {
				return invalid("addresses", t.object(), hint+strings.Join(here, " "), "%q is not a portal of %s", clip(addr), whose)
			}
			if !slices.Contains(want, addr) {
				want = append(want, addr)
			}
		}
		a.Portals = want
		return nil
	})
}
