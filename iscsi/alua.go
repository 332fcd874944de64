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

// PortRange is the port groups First to Last: those of one node.
type PortRange struct{ First, Last uint16 }

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

// state returns the access state of a port group.
func (t *target) state(tag uint16) ALUAState {
	for _, g := range t.spec.Load().PortGroups {
		if g.Tag == tag {
			return g.State
		}
	}
	return ALUAOptimized
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

// accessChanged gives every nexus of t the state of its port group and tells it
// that states changed; mu is held.
func (s *Server) accessChanged(t *target) {
	for ss := range t.sessions {
		ss.state.Store(uint32(t.state(ss.group)))
		if ss.conn.served == nil { // its own node tells it
			ss.attentionAll(uaAccessChanged)
		}
	}
}

// ownersChanged tells every nexus of the units that another node serves than before; was
// and luns are those from before. What the former owner kept of a nexus in memory is
// gone. mu is held.
func (s *Server) ownersChanged(t *target, was map[uint16]PortRange, luns map[uint16]*lun) {
	for n, owner := range t.owners() {
		old, l := luns[n], t.lun(n)
		if old == nil {
			continue
		}
		for ss := range t.sessions {
			if was[n] != owner && ss.conn.served == nil { // its own node tells it
				ss.attention(l, uaAccessChanged)
			}
			if old != l && old.moved(l) && l.remote == nil {
				ss.attention(l, uaNexusLoss)
			}
		}
	}
}

// reached notes whether the node that serves a unit of another node can be reached from here.
// Those who use the unit through this node are told when that changes.
func (t *target) reached(l *lun, ok bool) {
	if l.away.Load() == !ok || l.away.Swap(!ok) == !ok {
		return
	}
	for _, ss := range t.srv.users(t) {
		if ss.conn.served == nil { // its own node tells it
			ss.attention(l, uaAccessChanged)
		}
	}
}

// unitState is the access state of a port group for a unit, whose owner's are
// active/optimized.
func (l *lun) unitState(g PortGroup) ALUAState {
	owner := *l.owner.Load()
	if owner == (PortRange{}) || g.State > ALUANonOptimized {
		return g.State
	}
	if owner.First <= g.Tag && g.Tag <= owner.Last {
		return ALUAOptimized
	}
	return ALUANonOptimized
}

// Operation codes that stay open in states other than the active ones.
const (
	opReceiveDiagnostic = 0x1c
	opSendDiagnostic    = 0x1d
	opLogSelect         = 0x4c
	opLogSense          = 0x4d
	opReserveIn         = 0x5e
	opReserveOut        = 0x5f
	opModeSelect6       = 0x15
	opModeSelect10      = 0x55
	opModeSense6        = 0x1a
	opModeSense10       = 0x5a
	opRequestSense      = 0x03
	opSetTargetGroups   = 0xa4
)

// accessible tells whether a command may be executed through a port group in
// this state (SPC-4 clauses 5.15.2.4 to 5.15.2.8). What only describes the unit
// (MAINTENANCE IN) is open in all of them.
func (s ALUAState) accessible(op byte) bool {
	switch op {
	case opInquiry, opReportLUNs, opRequestSense, opMaintenanceIn, opSetTargetGroups:
		return true
	case opReceiveDiagnostic, opSendDiagnostic, opLogSelect, opLogSense, opReserveIn, opReserveOut,
		opModeSelect6, opModeSelect10, opModeSense6, opModeSense10:
		return s <= ALUAStandby
	}
	return s <= ALUANonOptimized
}

// sense is why a command is refused in this state.
func (s ALUAState) sense() sense {
	switch s {
	case ALUATransitioning:
		return senseTransition
	case ALUAStandby:
		return senseStandby
	case ALUAOffline:
		return senseOffline
	}
	return senseUnavailable
}

// access returns the state of the port group that the task came in through.
func (t *task) access() ALUAState { return ALUAState(t.c.sess.state.Load()) }

// Bits of a target port group descriptor (SPC-4 clause 6.33).
const (
	portGroupSupports = 0x80 | 0x40 | 0x08 | 0x04 | 0x02 | 0x01 // T, O, U, S, AN, AO
	portGroupImplicit = 0x02                                    // STATUS CODE: altered by the target
)

// reportPortGroups is REPORT TARGET PORT GROUPS. A target port is the target
// name with a portal group tag, so a port group has one port.
func reportPortGroups(t *task) {
	format := t.cdb[1] >> 5
	if format > 1 {
		t.fail(senseInvalidField)
		return
	}
	b := make([]byte, 4)
	if format == 1 { // extended header; no implicit transition time is stated
		b = append(b, 0x10, 0, 0, 0)
	}
	for _, g := range t.c.sess.target.portGroups() {
		state := t.lu.unitState(g)
		if t.lu.away.Load() && g.Tag == t.c.sess.group && state <= ALUANonOptimized {
			state = ALUAUnavailable // what else this node knows of the unit is as it was
		}
		b = append(b, byte(state), portGroupSupports)
		b = be.AppendUint16(b, g.Tag)
		b = append(b, 0, portGroupImplicit, 0, 1, 0, 0)
		b = be.AppendUint16(b, g.Tag) // relative target port identifier
	}
	be.PutUint32(b, uint32(len(b)-4))
	t.reply(b)
}
