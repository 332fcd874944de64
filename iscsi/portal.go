package iscsi

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
)

// Portal is an address at which a target is reachable.
type Portal struct {
	Address string // "host:port" as initiators are told; IPv6 hosts in brackets; no wildcard
	// Local is the address of the server's socket, "ip:port", through which the
	// portal is reached; ":port" or a wildcard stands for any address with this
	// port, "" for any local address.
	Local string
	Group uint16 // portal group tag, 1 to 65535; also the relative target port identifier
}

const (
	maxPortals   = 64 // bounds a SendTargets answer
	defaultGroup = 1  // of a target without portals
)

func validatePortals(list []Portal) error {
	if len(list) > maxPortals {
		return fmt.Errorf("%d portals, at most %d", len(list), maxPortals)
	}
	for i, p := range list {
		if err := checkAddress(p.Address); err != nil {
			return fmt.Errorf("portal: %w", err)
		}
		if _, err := parseLocal(p.Local); err != nil {
			return fmt.Errorf("portal %s: %w", p.Address, err)
		}
		if p.Group == 0 {
			return fmt.Errorf("portal %s: group must be 1 to 65535", p.Address)
		}
		for _, o := range list[:i] {
			if o.Address == p.Address {
				return fmt.Errorf("portal %s is given twice", p.Address)
			}
		}
	}
	return nil
}

// checkAddress checks an address that initiators are told (RFC 7143 section 13.8).
func checkAddress(a string) error {
	h, port, err := net.SplitHostPort(a)
	n, perr := strconv.ParseUint(port, 10, 16)
	if err != nil || perr != nil || n == 0 || h == "" || !validHost(h) {
		return fmt.Errorf("address %q is not host:port; write for example 10.0.0.5:3260 or [fd00::5]:3260", a)
	}
	if ip, err := netip.ParseAddr(h); err == nil && ip.IsUnspecified() {
		return fmt.Errorf("address %q is a wildcard; name an address that initiators can reach", a)
	}
	return nil
}

// validHost refuses what cannot stand in a TargetAddress.
func validHost(h string) bool {
	for i := 0; i < len(h); i++ {
		if h[i] <= ' ' || h[i] > '~' || h[i] == ',' || h[i] == '%' {
			return false
		}
	}
	return len(h) <= 255 // a DNS name
}

// parseLocal reads Portal.Local. The result is zero for "", and has an
// unspecified address for any address with that port.
func parseLocal(s string) (netip.AddrPort, error) {
	if s == "" {
		return netip.AddrPort{}, nil
	}
	if s[0] == ':' {
		s = "[::]" + s
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil || a.Port() == 0 {
		return a, fmt.Errorf("local address %q is not ip:port", s)
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), nil
}

// match tells how well a connection that came in at local belongs to the
// portal: 0 not at all, more for the closer description.
func (p *Portal) match(local netip.AddrPort, text string) int {
	l, err := parseLocal(p.Local)
	switch {
	case err != nil:
		return 0
	case p.Local == "" && p.Address == text:
		return 2
	case p.Local == "":
		return 1
	case l == local:
		return 4
	case l.Addr().IsUnspecified() && l.Port() == local.Port() && (l.Addr().Is6() || local.Addr().Is4()):
		return 3
	}
	return 0
}

// portal finds the portal that a connection came in through, and its group tag;
// ok is false when the target is not reachable there. Of portals that fit
// equally well the first counts.
func (t *target) portal(local string) (p Portal, ok bool) {
	list := t.spec.Load().Portals
	if len(list) == 0 {
		return Portal{Address: local, Group: defaultGroup}, true
	}
	at, _ := netip.ParseAddrPort(local) // not of TCP: only portals without Local fit
	at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	best := 0
	for i := range list {
		if m := list[i].match(at, local); m > best {
			best, p = m, list[i]
		}
	}
	return p, best > 0
}

// describe adds the target and its portals to a SendTargets answer. A target
// without portals is reachable where the question came in.
func (t *target) describe(w *textWriter, local string) {
	w.add("TargetName", t.name)
	spec := t.spec.Load()
	for _, p := range spec.Portals {
		w.add("TargetAddress", p.Address+","+strconv.Itoa(int(p.Group)))
	}
	if len(spec.Portals) == 0 {
		w.add("TargetAddress", local+","+strconv.Itoa(defaultGroup))
	}
}
