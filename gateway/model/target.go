package model

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"
)

// DefaultGroup is the group that the short forms speak of: open, initiators and
// CHAP secret of a publish, and the ACL.
const DefaultGroup = "default"

// Target says who may sign in to a target, and where.
type Target struct {
	Groups []Group `json:"groups,omitempty"` // none: nobody gets in
	// Portals are the addresses, as initiators are told, through which the target
	// is reached; empty: every portal of the node.
	Portals []string `json:"portals,omitempty"`
	// Redirect: initiators sign in where the vDisk is served, and are sent there from
	// other nodes. For a vDisk's own target.
	Redirect bool      `json:"redirect,omitempty"`
	Created  time.Time `json:"created"`
}

// Group admits initiators to a target.
type Group struct {
	Name       string   `json:"name"` // 1 to 63 of a-z 0-9 . _ -
	Any        bool     `json:"any,omitempty"`
	Initiators []string `json:"initiators,omitempty"` // normalized iSCSI names
	// CHAPUser and CHAPSecret are what initiators prove; no user: nothing.
	// MutualUser and MutualSecret are what the target proves. Secrets are sealed,
	// with the id of the vDisk or shared target; never plain.
	CHAPUser     string `json:"chapUser,omitempty"`
	CHAPSecret   []byte `json:"chapSecret,omitempty"`
	MutualUser   string `json:"mutualUser,omitempty"`
	MutualSecret []byte `json:"mutualSecret,omitempty"`
	// GivenCHAP and GivenMutual: somebody gave the secret; it is in no answer.
	GivenCHAP   bool `json:"givenChap,omitempty"`
	GivenMutual bool `json:"givenMutual,omitempty"`
	// ReadOnly keeps members from writing, whatever LUNs says.
	ReadOnly bool `json:"readOnly,omitempty"`
	// Masked: members see what LUNs lists and nothing else. Otherwise they see
	// every LUN of the target under its own number.
	Masked bool     `json:"masked,omitempty"`
	LUNs   []LUNMap `json:"luns,omitempty"`
}

// LUNMap shows a LUN of a target to the members of a group.
type LUNMap struct {
	LUN      uint16 `json:"lun"`    // of the target
	Number   uint16 `json:"number"` // as members see it
	ReadOnly bool   `json:"readOnly,omitempty"`
}

// SharedLUN places a vDisk in a shared target.
type SharedLUN struct {
	Target  string    `json:"target"` // id of the SharedTarget
	LUN     uint16    `json:"lun"`
	Created time.Time `json:"created"`
}

// QoS limits what all initiators together do to a vDisk; zero sets no limit.
type QoS struct {
	IOPS  int64         `json:"iops,omitempty"`
	Bytes int64         `json:"bytes,omitempty"` // per second
	Burst time.Duration `json:"burst,omitempty"` // ns; 0: the front end's default
}

// SharedTarget is a target of its own, with the vDisks that are placed in it.
type SharedTarget struct {
	Format int    `json:"format"`
	ID     string `json:"id"` // UUID
	Name   string `json:"name"`
	IQN    string `json:"iqn"`
	Target Target `json:"target"`
	// Maker is the user who made it, whose it is while no vDisk is in it; empty: not known.
	Maker string `json:"maker,omitempty"`

	Rev int64 `json:"-"`
}

// UnmarshalJSON also reads format 1, whose target was one group.
func (t *Target) UnmarshalJSON(b []byte) error {
	type plain Target // without this method
	var in struct {
		plain
		Open       bool     `json:"open"`
		CHAPUser   string   `json:"chapUser"`
		CHAPSecret []byte   `json:"chapSecret"`
		Initiators []string `json:"initiators"`
	}
	if err := json.Unmarshal(b, &in); err != nil {
		return err
	}
	*t = Target(in.plain)
	if in.CHAPUser != "" {
		t.Groups = append(t.Groups, Group{
			Name: DefaultGroup, Any: in.Open, Initiators: in.Initiators, CHAPUser: in.CHAPUser, CHAPSecret: in.CHAPSecret,
		})
	}
	return nil
}

// Group returns the group of that name, nil if there is none; it is t's own.
func (t *Target) Group(name string) *Group {
	for i := range t.Groups {
		if t.Groups[i].Name == name {
			return &t.Groups[i]
		}
	}
	return nil
}

// Clone returns a deep copy.
func (t *Target) Clone() *Target {
	if t == nil {
		return nil
	}
	c := *t
	c.Portals, c.Groups = slices.Clone(t.Portals), slices.Clone(t.Groups)
	for i := range c.Groups {
		g := &c.Groups[i]
		g.Initiators, g.LUNs = slices.Clone(g.Initiators), slices.Clone(g.LUNs)
		g.CHAPSecret, g.MutualSecret = slices.Clone(g.CHAPSecret), slices.Clone(g.MutualSecret)
	}
	return &c
}

// Published tells whether initiators can reach the vDisk, by the record.
func (v VDisk) Published() bool { return v.Target != nil || v.Shared != nil }

func (v VDisk) key() string { return v.ID }
func (v VDisk) unique() []string {
	if v.State == StateDeleting {
		return nil // its name is free again at once
	}
	var keys []string
	if v.State != StateTrashed {
		keys = append(keys, "vdisk/"+v.VPool+"/"+v.Name)
	}
	if v.Move != nil && v.Move.To != v.VPool { // its name is to be free there when it comes
		keys = append(keys, "vdisk/"+v.Move.To+"/"+v.Name)
	}
	if v.IQN != "" {
		keys = append(keys, "iqn/"+v.IQN)
	}
	if v.Shared != nil {
		keys = append(keys, lunKey(v.Shared.Target, v.Shared.LUN))
	}
	return keys
}
func (v VDisk) format() int { return v.Format }
func (v VDisk) rev() int64  { return v.Rev }
func (v VDisk) clone(rev int64) VDisk {
	v.Rev = rev
	v.Labels = maps.Clone(v.Labels)
	v.Target = v.Target.Clone()
	if v.Shared != nil {
		s := *v.Shared
		v.Shared = &s
	}
	if v.QoS != nil {
		q := *v.QoS
		v.QoS = &q
	}
	if v.Move != nil {
		m := *v.Move
		v.Move = &m
	}
	if v.Parent != nil {
		p := *v.Parent
		v.Parent = &p
	}
	return v
}

func lunKey(target string, lun uint16) string {
	return "lun/" + target + "/" + strconv.Itoa(int(lun))
}

func (t SharedTarget) key() string      { return t.ID }
func (t SharedTarget) unique() []string { return []string{"target/" + t.Name, "iqn/" + t.IQN} }
func (t SharedTarget) format() int      { return t.Format }
func (t SharedTarget) rev() int64       { return t.Rev }
func (t SharedTarget) clone(rev int64) SharedTarget {
	t.Rev = rev
	t.Target = *t.Target.Clone()
	return t
}
