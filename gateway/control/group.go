package control

import (
	"context"
	"fmt"
	"regexp"
	"slices"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/iscsi"
)

const (
	// maxGroups is what a target of the front end takes: one per host of a large
	// cluster.
	maxGroups = 256
	// maxInitiators bounds the names in a group, maxTargetInitiators those in all
	// groups of a target: a record holds them, and each change copies them.
	maxInitiators       = 256
	maxTargetInitiators = 4096
)

var groupPattern = regexp.MustCompile(`^[a-z0-9._-]{1,63}$`)

// GroupChange changes a group; nil leaves a field as it is.
type GroupChange struct {
	Any         *bool     // admit names that no group has; one group of a target may
	Initiators  *[]string // all the names
	Add, Remove []string  // names added and taken off, after Initiators
	ReadOnly    *bool
	Masked      *bool // false: members see every LUN
	LUNs        *[]model.LUNMap

	CHAP         *bool   // false: none is demanded; true: draws a secret if there is none
	User         *string // what initiators prove
	Secret       *string
	Mutual       *bool // the target proves itself too
	MutualUser   *string
	MutualSecret *string
	Rotate       bool // draw new secrets
}

// GroupResult is a group after a change. Credentials holds the secrets that the
// change drew, which are not shown again, and no other.
type GroupResult struct {
	Target Target
	Group  model.Group
	Drawn  Credentials
	Notes  []string // what some initiators cannot do
}

// CreateGroup adds a group to a target. Unless CHAP is declined, its members
// prove a secret, which is drawn when none is given.
func (c *Controller) CreateGroup(ctx context.Context, ref, name string, in GroupChange) (GroupResult, error) {
	if in.CHAP == nil {
		in.CHAP = new(true)
	}
	return c.groupChange(ctx, ref, name, in, func(t Target, a *model.Target) (*model.Group, error) {
		switch {
		case !groupPattern.MatchString(name):
			return nil, invalid("name", t.object(), "use 1 to 63 of a-z, 0-9, '.', '_' and '-'", "the name %q of a group is not valid", clip(name))
		case a.Group(name) != nil:
			return nil, &Error{Code: CodeExists, Field: "name", Object: t.object(), Message: "it has a group " + name, Hint: "change that with ovgate target group set"}
		case len(a.Groups) >= maxGroups:
			return nil, invalid("name", t.object(), "delete groups that are not used", "it has %d groups, which is the most", len(a.Groups))
		}
		a.Groups = append(a.Groups, model.Group{Name: name})
		return a.Group(name), nil
	})
}

// UpdateGroup changes a group. Sessions of initiators that it does not admit any
// more are dropped; new secrets apply from the next login.
func (c *Controller) UpdateGroup(ctx context.Context, ref, name string, in GroupChange) (GroupResult, error) {
	return c.groupChange(ctx, ref, name, in, func(t Target, a *model.Target) (*model.Group, error) {
		if g := a.Group(name); g != nil {
			return g, nil
		}
		return nil, noGroup(t, name)
	})
}

func noGroup(t Target, name string) *Error {
	return &Error{Code: CodeNotFound, Object: t.object(), Message: "it has no group " + clip(name), Hint: "ovgate target group list " + t.Name + " shows the groups"}
}

func (c *Controller) groupChange(ctx context.Context, ref, name string, in GroupChange, find func(Target, *model.Target) (*model.Group, error)) (GroupResult, error) {
	var out GroupResult
	t, err := c.changeTarget(ctx, ref, func(t Target, a *model.Target) error {
		g, err := find(t, a)
		if err != nil {
			return err
		}
		out.Drawn, err = c.changeGroup(t, a, g, in)
		return err
	})
	if err != nil {
		return GroupResult{}, err
	}
	out.Target, out.Group = t, *t.Access.Group(name)
	for _, s := range []*string{in.Secret, in.MutualSecret} {
		if s != nil && len(*s) > windowsSecret {
			out.Notes = append(out.Notes, fmt.Sprintf("Windows takes CHAP secrets of %d to %d characters; this one has %d", minSecret, windowsSecret, len(*s)))
		}
	}
	c.log.Info("group of a target changed", "target", t.IQN, "group", name, "any", out.Group.Any, "initiators", len(out.Group.Initiators))
	return out, nil
}

// changeGroup changes g, which is a group of a, and returns the secrets it drew.
func (c *Controller) changeGroup(t Target, a *model.Target, g *model.Group, in GroupChange) (Credentials, error) {
	if err := changeMembers(t, a, g, in); err != nil {
		return Credentials{}, err
	}
	if err := changeLUNs(t, g, in); err != nil {
		return Credentials{}, err
	}
	return c.changeCredentials(t, g, in)
}

func changeMembers(t Target, a *model.Target, g *model.Group, in GroupChange) error {
	if in.Any != nil {
		g.Any = *in.Any
		for _, o := range a.Groups {
			if g.Any && o.Any && o.Name != g.Name {
				return &Error{Code: CodeExists, Field: "any", Object: t.object(), Message: "group " + o.Name + " admits any initiator", Hint: "one group of a target may: change that first"}
			}
		}
	}
	add := in.Add
	if in.Initiators != nil {
		g.Initiators, add = nil, append(slices.Clone(*in.Initiators), in.Add...)
	}
	for _, n := range add {
		if err := addInitiator(t, a, g, n); err != nil {
			return err
		}
	}
	for _, n := range in.Remove {
		name := iscsi.NormalizeName(n)
		g.Initiators = slices.DeleteFunc(g.Initiators, func(o string) bool { return o == name })
	}
	return nil
}

func addInitiator(t Target, a *model.Target, g *model.Group, name string) error {
	if err := iscsi.CheckName(name); err != nil {
		return invalid("initiators", t.object(), "use a name such as iqn.2026-01.com.example:host1", "%q is not an iSCSI name", clip(name))
	}
	name = iscsi.NormalizeName(name)
	if slices.Contains(g.Initiators, name) {
		return nil
	}
	total := 0
	for _, o := range a.Groups {
		if slices.Contains(o.Initiators, name) {
			return &Error{Code: CodeExists, Field: "initiators", Object: t.object(), Message: name + " is in group " + o.Name, Hint: "an initiator is in one group of a target: take it out of that first"}
		}
		total += len(o.Initiators)
	}
	if len(g.Initiators) >= maxInitiators || total >= maxTargetInitiators {
		return invalid("initiators", t.object(), "remove names that are not used", "group %s has %d names, all groups %d; the most are %d and %d", g.Name, len(g.Initiators), total, maxInitiators, maxTargetInitiators)
	}
	g.Initiators = append(g.Initiators, name)
	return nil
}

func changeLUNs(t Target, g *model.Group, in GroupChange) error {
	if in.ReadOnly != nil {
		g.ReadOnly = *in.ReadOnly
	}
	if in.LUNs != nil {
		g.LUNs, g.Masked = slices.Clone(*in.LUNs), true
	}
	if in.Masked != nil {
		if g.Masked = *in.Masked; !g.Masked {
			g.LUNs = nil
		}
	}
	if in.LUNs == nil {
		return nil
	}
	luns, numbers := map[uint16]bool{}, map[uint16]bool{}
	for _, m := range g.LUNs {
		hint := "write LUN=NUMBER: a LUN of the target, and its number as members see it"
		switch _, ok := t.lun(m.LUN); {
		case !ok:
			return invalid("luns", t.object(), hint, "it has no LUN %d", m.LUN)
		case m.Number > maxLUN:
			return invalid("luns", t.object(), fmt.Sprintf("use 0 to %d", maxLUN), "%d is not the number of a LUN", m.Number)
		case luns[m.LUN]:
			return invalid("luns", t.object(), hint, "LUN %d is mapped twice; initiators would take it for two paths", m.LUN)
		case numbers[m.Number]:
			return invalid("luns", t.object(), hint, "two LUNs would have the number %d", m.Number)
		}
		luns[m.LUN], numbers[m.Number] = true, true
	}
	return nil
}

// DeleteGroup takes a group off a target; an absent one is no error. While
// initiators are signed in by it, it is refused unless force drops them.
func (c *Controller) DeleteGroup(ctx context.Context, ref, name string, force bool) error {
	_, err := c.changeTarget(ctx, ref, func(t Target, a *model.Target) error {
		var users []iscsi.SessionInfo
		for _, s := range c.Sessions() {
			if s.Target == t.IQN && s.Group == name {
				users = append(users, s)
			}
		}
		if a.Group(name) != nil && len(users) > 0 && !force {
			e := signedIn(t.object(), users, nil)
			e.Message = "group " + name + " is in use: " + e.Message
			return e
		}
		a.Groups = slices.DeleteFunc(a.Groups, func(g model.Group) bool { return g.Name == name })
		return nil
	})
	if err == nil {
		c.log.Info("group of a target deleted", "target", ref, "group", name)
	}
	return err
}

// AddInitiator puts an initiator in a target's group default; there already is
// no error.
func (c *Controller) AddInitiator(ctx context.Context, ref, initiator string) (Target, error) {
	return c.changeTarget(ctx, ref, func(t Target, a *model.Target) error {
		g := a.Group(model.DefaultGroup)
		if g == nil {
			return &Error{Code: CodeNotFound, Object: t.object(), Message: "it has no group " + model.DefaultGroup, Hint: "put the initiator in a group: ovgate target group set " + t.Name + " GROUP --add-initiator " + clip(initiator)}
		}
		return oneInitiator(addInitiator(t, a, g, initiator))
	})
}

// oneInitiator names the field of a request that has one initiator.
func oneInitiator(err error) error {
	if e, ok := err.(*Error); ok && e.Field == "initiators" {
		e.Field = "initiator"
	}
	return err
}

// RemoveInitiator takes an initiator out of a target's groups, and its sessions
// go unless a group admits any name; absent is no error.
func (c *Controller) RemoveInitiator(ctx context.Context, ref, initiator string) (Target, error) {
	return c.changeTarget(ctx, ref, func(_ Target, a *model.Target) error {
		name := iscsi.NormalizeName(initiator)
		for i := range a.Groups {
			a.Groups[i].Initiators = slices.DeleteFunc(a.Groups[i].Initiators, func(n string) bool { return n == name })
		}
		return nil
	})
}
