package iscsi

import (
	"fmt"
	"slices"
)

// ALUAState is an asymmetric access state of a target port group (SPC-4 clause
// 5.15.2). Its values are those of REPORT TARGET PORT GROUPS.
type ALUAState uint8

// Asymmetric access states.
const (
	ALUAOptimized     ALUAState = 0x0
	ALUANonOptimized  ALUAState = 0x1
	ALUAStandby       ALUAState = 0x2
	ALUAUnavailable   ALUAState = 0x3
	ALUAOffline       ALUAState = 0xe
	ALUATransitioning ALUAState = 0xf
)

// String is the state as SPC-4 names it.
func (s ALUAState) String() string {
	switch s {
	case ALUAOptimized:
		return "active/optimized"
	case ALUANonOptimized:
		return "active/non-optimized"
	case ALUAStandby:
		return "standby"
	case ALUAUnavailable:
		return "unavailable"
	case ALUAOffline:
		return "offline"
	case ALUATransitioning:
		return "transitioning"
	}
	return fmt.Sprintf("reserved state %#x", uint8(s))
}

func (s ALUAState) valid() bool {
	return s <= ALUAUnavailable || s == ALUAOffline || s == ALUATransitioning
}

// PortGroup is the access state of a target port group; its tag is a portal's
// Group, which may be reached through another node.
type PortGroup struct {
	Tag   uint16 // 1 to 65535
	State ALUAState
}

func validatePortGroups(list []PortGroup) error {
	for i, g := range list {
		switch {
		case g.Tag == 0:
			return fmt.Errorf("port group tag must be 1 to 65535")
		case !g.State.valid():
			return fmt.Errorf("port group %d: %v", g.Tag, g.State)
		case slices.ContainsFunc(list[:i], func(o PortGroup) bool { return o.Tag == g.Tag }):
			return fmt.Errorf("port group %d is given twice", g.Tag)
		}
	}
	if len(list) > maxPortals {
		return fmt.Errorf("%d port groups, at most %d", len(list), maxPortals)
	}
	return nil
}

// portGroups returns every port group of the target by tag: those of its
// portals, and those that have a state.
func (t *target) portGroups() []PortGroup {
	spec := t.spec.Load()
	out := slices.Clone(spec.PortGroups)
	add := func(tag uint16) {
		if !slices.ContainsFunc(out, func(o PortGroup) bool { return o.Tag == tag }) {
			out = append(out, PortGroup{Tag: tag})
		}
	}
	for _, p := range spec.Portals {
		add(p.Group)
	}
	if len(spec.Portals) == 0 {
		add(defaultGroup)
	}
	slices.SortFunc(out, func(a, b PortGroup) int { return int(a.Tag) - int(b.Tag) })
	return out
}

// SetGroupState changes the access state of a port group of a target, and raises
// ASYMMETRIC ACCESS STATE CHANGED on every nexus of the target. A later
// UpdateTarget sets the states of its spec.
func (s *Server) SetGroupState(iqn string, tag uint16, state ALUAState) error {
	iqn = NormalizeName(iqn)
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.targets[iqn]
	if t == nil {
		return fmt.Errorf("%w: %s", ErrNoTarget, iqn)
	}
	groups := t.portGroups()
	i := slices.IndexFunc(groups, func(g PortGroup) bool { return g.Tag == tag })
	if i < 0 {
		return fmt.Errorf("iscsi: target %s has no port group %d", iqn, tag)
	}
	if !state.valid() {
		return fmt.Errorf("iscsi: target %s, port group %d: %v", iqn, tag, state)
	}
	if groups[i].State == state {
		return nil
	}
	groups[i].State = state
	spec := *t.spec.Load()
	spec.PortGroups = groups
	t.spec.Store(&spec)
	s.accessChanged(t)
	return nil
}

// accessChanged tells every nexus of t that port groups changed; mu is held.
func (s *Server) accessChanged(t *target) {
	for _, ss := range s.sessions {
		if ss.target == t {
			ss.attentionAll(uaAccessChanged)
		}
	}
}
