package iscsi

import (
	"fmt"
	"maps"
	"slices"
)

// Group admits initiators to a target: who, how they prove it, and what they see.
type Group struct {
	Name       string   // 1 to 63 of [a-z0-9._-]; unique in the target
	Any        bool     // any initiator that no group of the target names; one group at most
	Initiators []string // node names; a name is in one group of a target at most
	Auth       *Auth    // CHAP; nil: none is demanded
	LUNs       []LUNMap // what members see; empty: every LUN of the target under its own number
	Masked     bool     // members see what LUNs lists and nothing else, also when it is empty
}

// LUNMap shows a logical unit to the members of a group.
type LUNMap struct {
	Number   uint16 // as members see it, 0 to 16383; unique in the group
	LUN      uint16 // LUNSpec.Number; mapped once in a group at most
	ReadOnly bool   // write commands fail with DATA PROTECT, WRITE PROTECTED
}

// Auth are CHAP credentials of a group. MutualUser and MutualSecret, if set, are
// what the target proves to an initiator that asks. Secrets have 12 to 255 bytes
// (RFC 7143 section 12.1.3 asks for 96 bits at least); the two must differ.
type Auth struct {
	User, Secret             string
	MutualUser, MutualSecret string
}

// String hides the secrets.
func (a *Auth) String() string { return "chap:" + a.User }

// GroupInfo describes a group, without secrets.
type GroupInfo struct {
	Name       string
	Any        bool
	Initiators []string // normalized
	CHAPUser   string   // "": no CHAP
	MutualUser string   // "": the target proves nothing
	LUNs       []LUNMap // as in the Group
	Sessions   int
}

const (
	maxGroups     = 256  // one per host of a large cluster
	maxGroupName  = 63   // a label
	maxInitiators = 4096 // of all groups of a target: bounds what one update copies
	minSecret     = 12   // RFC 7143 section 12.1.3: 96 bits
	maxSecret     = 255  // what a CHAP name or secret of any initiator may have
)

// validateGroups checks the groups of a target with these LUNs.
func validateGroups(groups []Group, luns map[uint16]bool) error {
	if len(groups) > maxGroups {
		return fmt.Errorf("%d groups, at most %d", len(groups), maxGroups)
	}
	names, members, anyone := map[string]bool{}, map[string]string{}, ""
	for i := range groups {
		g := &groups[i]
		if !validGroupName(g.Name) {
			return fmt.Errorf("group %q: its name must have 1 to %d of a-z 0-9 . _ -", g.Name, maxGroupName)
		}
		if names[g.Name] {
			return fmt.Errorf("group %s is given twice", g.Name)
		}
		names[g.Name] = true
		if g.Any {
			if anyone != "" {
				return fmt.Errorf("groups %s and %s both admit any initiator; one may", anyone, g.Name)
			}
			anyone = g.Name
		}
		if err := g.validateMembers(members); err != nil {
			return err
		}
		if err := g.Auth.validate(); err != nil {
			return fmt.Errorf("group %s: %w", g.Name, err)
		}
		if err := g.validateLUNs(luns); err != nil {
			return fmt.Errorf("group %s: %w", g.Name, err)
		}
	}
	return nil
}

func validGroupName(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-') {
			return false
		}
	}
	return s != "" && len(s) <= maxGroupName
}

// validateMembers adds the group's initiators to members, which says whose they are.
func (g *Group) validateMembers(members map[string]string) error {
	for _, name := range g.Initiators {
		if err := CheckName(name); err != nil {
			return fmt.Errorf("group %s: %w", g.Name, err)
		}
		n := NormalizeName(name)
		if other, taken := members[n]; taken && other == g.Name {
			return fmt.Errorf("group %s: initiator %s is given twice", g.Name, n)
		} else if taken {
			return fmt.Errorf("initiator %s is in the groups %s and %s; it may be in one", n, other, g.Name)
		}
		if len(members) == maxInitiators {
			return fmt.Errorf("group %s: more than %d initiators in the groups of the target", g.Name, maxInitiators)
		}
		members[n] = g.Name
	}
	return nil
}

func (g *Group) validateLUNs(luns map[uint16]bool) error {
	if len(g.LUNs) > maxLUNs {
		return fmt.Errorf("%d LUNs are mapped, at most %d", len(g.LUNs), maxLUNs)
	}
	numbers, mapped := map[uint16]bool{}, map[uint16]bool{}
	for _, m := range g.LUNs {
		switch {
		case m.Number > maxLUN:
			return fmt.Errorf("LUN %d: number must be 0 to %d", m.Number, maxLUN)
		case numbers[m.Number]:
			return fmt.Errorf("LUN %d is mapped twice", m.Number)
		case !luns[m.LUN]:
			return fmt.Errorf("LUN %d stands for LUN %d, which the target does not have", m.Number, m.LUN)
		case mapped[m.LUN]:
			return fmt.Errorf("LUN %d of the target is mapped twice; initiators would take it for two paths", m.LUN)
		}
		numbers[m.Number], mapped[m.LUN] = true, true
	}
	return nil
}

func (a *Auth) validate() error {
	if a == nil {
		return nil
	}
	if err := checkCredentials("CHAP", a.User, a.Secret); err != nil {
		return err
	}
	if a.MutualUser == "" && a.MutualSecret == "" {
		return nil
	}
	if err := checkCredentials("mutual CHAP", a.MutualUser, a.MutualSecret); err != nil {
		return err
	}
	if a.MutualSecret == a.Secret {
		return fmt.Errorf("the two CHAP secrets must differ (RFC 7143 section 9.2.1)")
	}
	return nil
}

// checkCredentials never repeats the secret (I8).
func checkCredentials(what, user, secret string) error {
	if user == "" || len(user) > maxSecret || !validText(user) {
		return fmt.Errorf("%s user must have 1 to %d printable characters", what, maxSecret)
	}
	if len(secret) < minSecret || len(secret) > maxSecret {
		return fmt.Errorf("%s secret must have %d to %d bytes", what, minSecret, maxSecret)
	}
	return nil
}

// cloneGroups copies groups deeply, with normalized initiator names.
func cloneGroups(groups []Group) []Group {
	out := slices.Clone(groups)
	for i := range out {
		g := &out[i]
		g.Initiators, g.LUNs = slices.Clone(g.Initiators), slices.Clone(g.LUNs)
		for k, n := range g.Initiators {
			g.Initiators[k] = NormalizeName(n)
		}
		if g.Auth != nil {
			a := *g.Auth
			g.Auth = &a
		}
	}
	return out
}

func (g *Group) info() GroupInfo {
	i := GroupInfo{Name: g.Name, Any: g.Any, Initiators: slices.Clone(g.Initiators), LUNs: slices.Clone(g.LUNs)}
	if g.Auth != nil {
		i.CHAPUser, i.MutualUser = g.Auth.User, g.Auth.MutualUser
	}
	return i
}

// access is who gets in and sees what: one view per group, shared by the
// group's sessions. It is not modified.
type access struct {
	named  map[string]*view
	anyone *view // nil: only named initiators
}

// view is what the members of a group see. It is not modified.
type view struct {
	group   *Group
	numbers []uint16 // as members see them, ascending
	units   map[uint16]seen
	inside  map[*lun]bool // read-only
}

// seen is a logical unit as the members of a group see it.
type seen struct {
	*lun
	readOnly bool
}

// newAccess makes the views of groups, which the target keeps, over its units.
func newAccess(groups []Group, luns map[uint16]*lun) *access {
	a := &access{named: map[string]*view{}}
	for i := range groups {
		v := newView(&groups[i], luns)
		for _, n := range groups[i].Initiators {
			a.named[n] = v
		}
		if groups[i].Any {
			a.anyone = v
		}
	}
	return a
}

func newView(g *Group, luns map[uint16]*lun) *view {
	v := &view{group: g, units: map[uint16]seen{}, inside: map[*lun]bool{}}
	for _, m := range g.LUNs {
		v.units[m.Number] = seen{luns[m.LUN], m.ReadOnly}
	}
	if len(g.LUNs) == 0 && !g.Masked {
		for n, l := range luns {
			v.units[n] = seen{l, false}
		}
	}
	for _, u := range v.units {
		v.inside[u.lun] = u.readOnly
	}
	v.numbers = slices.Sorted(maps.Keys(v.units))
	return v
}

// admit returns the view of an initiator of this (normalized) name: that of the
// group that names it, else of the group that admits any; nil: nobody does (I9).
func (t *target) admit(initiator string) *view {
	a := t.access.Load()
	if v := a.named[initiator]; v != nil {
		return v
	}
	return a.anyone
}

// sees tells whether l is in the view.
func (v *view) sees(l *lun) bool {
	_, ok := v.inside[l]
	return ok
}

// overlaps tells whether both views show a unit.
func (v *view) overlaps(o *view) bool {
	for l := range v.inside {
		if o.sees(l) {
			return true
		}
	}
	return false
}

// sameUnits tells whether members see the same logical units under the same
// numbers as in o, whichever node serves them. Write protection is not part of that.
func (v *view) sameUnits(o *view) bool {
	return maps.EqualFunc(v.units, o.units, func(a, b seen) bool { return a.lun == b.lun || a.lun.moved(b.lun) })
}
