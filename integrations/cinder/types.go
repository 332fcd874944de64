package cinder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/qos"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/volumetypes"
)

// Type is a volume type that a cloud should have.
type Type struct {
	Name        string
	VPool       string
	Backend     string // volume_backend_name; empty: the only one that has the vPool
	Multiattach bool
	Limits      Limits
}

// Limits are QoS specs that the driver keeps. 0: none. A limit per GiB is that times the
// volume's size; with both the lower one counts.
type Limits struct {
	IOPS, IOPSPerGiB   int64
	Bytes, BytesPerGiB int64 // per second
	BurstMillis        int64
}

// keys of QoS specs (driver/ovgate_cinder/qos.py).
func (l Limits) specs() map[string]string {
	out := map[string]string{}
	for key, n := range map[string]int64{
		"total_iops_sec": l.IOPS, "total_iops_sec_per_gb": l.IOPSPerGiB,
		"total_bytes_sec": l.Bytes, "total_bytes_sec_per_gb": l.BytesPerGiB, "burst_ms": l.BurstMillis,
	} {
		if n > 0 {
			out[key] = strconv.FormatInt(n, 10)
		}
	}
	return out
}

// Keys of extra specs and QoS specs. The scheduler passes over those with a scope.
const (
	// specOwner says which ovgate made a volume type or QoS specs: what has another one,
	// or none, is never changed.
	specOwner       = "ovgate:managed"
	specBackend     = "volume_backend_name"
	specPool        = "pool_name"
	specMultiattach = "multiattach"
	isTrue          = "<is> True"
)

// defaultPrefix begins the names of the types that a cloud gets if none are declared.
const defaultPrefix = "ovgate-"

// Actions of a plan.
const (
	ActionCreate   = "create"
	ActionChange   = "change"
	ActionDelete   = "delete"
	ActionNone     = "none"     // it is as it should be
	ActionLeft     = "left"     // ovgate made it, and it is not wanted any more
	ActionConflict = "conflict" // somebody has to decide
)

// Action is one thing of a plan.
type Action struct {
	Action string
	Kind   string // volume type, or QoS specs
	Name   string
	Detail string // what changes, or why not
	do     func(context.Context) error
}

// Plan is what Apply would do.
type Plan struct {
	Actions []Action
}

// Conflict returns the first conflict; nil: there is none.
func (p *Plan) Conflict() *Action {
	for i := range p.Actions {
		if p.Actions[i].Action == ActionConflict {
			return &p.Actions[i]
		}
	}
	return nil
}

// Changes counts the actions that change something.
func (p *Plan) Changes() int {
	n := 0
	for _, a := range p.Actions {
		if a.do != nil {
			n++
		}
	}
	return n
}

// ErrConflict: a plan has a conflict; nothing changed.
var ErrConflict = errors.New("conflict")

// ErrInUse: Cinder neither changes nor deletes a volume type that has volumes.
var ErrInUse = errors.New("it has volumes")

// ofType is explain for what changes or deletes a volume type.
func ofType(what string, err error) error {
	err = explain(what, err)
	if status(err, http.StatusBadRequest) && strings.Contains(err.Error(), "in use") {
		return fmt.Errorf("%w: %w", ErrInUse, err)
	}
	return err
}

// Apply carries a plan out, in order, and returns how many of its changes are done. After an
// error a new plan has what is left: an answer that was lost does no harm.
func (p *Plan) Apply(ctx context.Context) (int, error) {
	if a := p.Conflict(); a != nil {
		return 0, fmt.Errorf("%w: %s %s: %s", ErrConflict, a.Kind, a.Name, a.Detail)
	}
	n := 0
	for _, a := range p.Actions {
		if a.do == nil {
			continue
		}
		if err := a.do(ctx); err != nil {
			return n, fmt.Errorf("%s %s: %w", a.Kind, a.Name, err)
		}
		n++
	}
	return n, nil
}

func (p *Plan) add(a Action) { p.Actions = append(p.Actions, a) }

const (
	kindType = "volume type"
	kindQoS  = "QoS specs"
)

// types lists the volume types, public and private.
func (c *Cloud) types(ctx context.Context) ([]volumetypes.VolumeType, error) {
	var all []volumetypes.VolumeType
	for {
		var page struct {
			Types []volumetypes.VolumeType `json:"volume_types"`
		}
		url := c.volume.ServiceURL("types") + "?is_public=None&limit=" + strconv.Itoa(pageSize) + "&offset=" + strconv.Itoa(len(all))
		if err := get(ctx, c.volume, "list volume types", url, &page); err != nil {
			return nil, err
		}
		if len(page.Types) == 0 {
			return all, nil
		}
		if all = append(all, page.Types...); len(all) > itemsMax {
			return nil, fmt.Errorf("list volume types: %w: there are more than %d", ErrRefused, itemsMax)
		}
	}
}

// specs lists the QoS specs.
func (c *Cloud) specs(ctx context.Context) ([]qos.QoS, error) {
	var all struct {
		Specs []qos.QoS `json:"qos_specs"`
	}
	err := get(ctx, c.volume, "list QoS specs", c.volume.ServiceURL("qos-specs"), &all)
	return all.Specs, err
}

// planner makes a plan.
type planner struct {
	*Cloud
	plan     Plan
	owner    string // Here.Location
	backends []Backend
	types    map[string]volumetypes.VolumeType // by name
	specs    map[string]qos.QoS                // by id
}

// Plan compares the volume types and QoS specs of a cloud with what it should have: want,
// or without any a type per pool. With prune it deletes what ovgate made before and is not
// wanted any more; a type that has volumes is refused by Cinder.
func (c *Cloud) Plan(ctx context.Context, here Here, want []Type, prune bool) (Plan, error) {
	p := planner{Cloud: c, owner: here.Location, types: map[string]volumetypes.VolumeType{}, specs: map[string]qos.QoS{}}
	var err error
	if p.backends, err = c.Backends(ctx, here); err != nil {
		return p.plan, err
	}
	types, err := c.types(ctx)
	if err != nil {
		return p.plan, err
	}
	for _, t := range types {
		p.types[t.Name] = t
	}
	specs, err := c.specs(ctx)
	if err != nil {
		return p.plan, err
	}
	for _, s := range specs {
		p.specs[s.ID] = s
	}
	if len(want) == 0 {
		want = p.defaults()
	}
	for _, t := range want {
		p.want(t)
	}
	p.rest(want, prune)
	return p.plan, nil
}

// rest plans what ovgate made and is not wanted any more. Types go first: Cinder refuses
// those that have volumes, which keep their limits then.
func (p *planner) rest(want []Type, prune bool) {
	types, limits, used := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, t := range want {
		types[t.Name] = true
		limits[t.Name] = len(t.Limits.specs()) > 0
	}
	drop := func(kind, name string, do func(context.Context) error) {
		if !prune {
			p.plan.add(Action{Action: ActionLeft, Kind: kind, Name: name, Detail: "it is not wanted any more, and stays without prune"})
			return
		}
		p.plan.add(Action{Action: ActionDelete, Kind: kind, Name: name, do: func(ctx context.Context) error {
			err := ofType("delete", do(ctx))
			if status(err, http.StatusNotFound) {
				return nil
			}
			return err
		}})
	}
	for _, name := range slices.Sorted(maps.Keys(p.types)) {
		t := p.types[name]
		if t.ExtraSpecs[specOwner] == p.owner && !types[name] {
			drop(kindType, name, func(ctx context.Context) error { return volumetypes.Delete(ctx, p.volume, t.ID).ExtractErr() })
			if prune {
				continue
			}
		}
		used[t.QosSpecID] = true
	}
	for _, id := range slices.SortedFunc(maps.Keys(p.specs), func(a, b string) int { return cmp.Compare(p.specs[a].Name, p.specs[b].Name) }) {
		if s := p.specs[id]; s.Specs[specOwner] == p.owner && !used[id] && !limits[s.Name] {
			drop(kindQoS, s.Name, func(ctx context.Context) error { return qos.Delete(ctx, p.volume, id, nil).ExtractErr() })
		}
	}
}

// defaults are a type per pool of this ovgate's backends.
func (p *planner) defaults() []Type {
	var out []Type
	seen := map[string]bool{}
	for _, b := range p.backends {
		for _, pool := range b.Pools {
			if !seen[pool.VPool] {
				seen[pool.VPool] = true
				out = append(out, Type{Name: defaultPrefix + pool.VPool, VPool: pool.VPool})
			}
		}
	}
	slices.SortFunc(out, func(a, b Type) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// backendOf finds the volume_backend_name for a type; else it says what is wrong.
func (p *planner) backendOf(t Type) (string, string) {
	var names []string
	for _, b := range p.backends {
		for _, pool := range b.Pools {
			if pool.VPool == t.VPool && !slices.Contains(names, b.Name) {
				names = append(names, b.Name)
			}
		}
	}
	switch {
	case len(names) == 0:
		return "", fmt.Sprintf("vPool %s is no pool of a running backend: see ovgate openstack backend list", t.VPool)
	case t.Backend != "" && !slices.Contains(names, t.Backend):
		return "", fmt.Sprintf("backend %s has no pool %s; those that have it: %s", t.Backend, t.VPool, strings.Join(names, ", "))
	case t.Backend == "" && len(names) > 1:
		return "", fmt.Sprintf("several backends have pool %s: name one of %s", t.VPool, strings.Join(names, ", "))
	}
	return cmp.Or(t.Backend, names[0]), ""
}

// want plans one type, with its limits.
func (p *planner) want(t Type) {
	conflict := func(format string, a ...any) {
		p.plan.add(Action{Action: ActionConflict, Kind: kindType, Name: t.Name, Detail: fmt.Sprintf(format, a...)})
	}
	backend, wrong := p.backendOf(t)
	if wrong != "" {
		conflict("%s", wrong)
		return
	}
	extra := map[string]string{specBackend: backend, specPool: t.VPool}
	if t.Multiattach {
		extra[specMultiattach] = isTrue
	}
	have, exists := p.types[t.Name]
	switch owner := have.ExtraSpecs[specOwner]; {
	case !exists:
		extra[specOwner] = p.owner
		made := &volumetypes.VolumeType{}
		p.plan.add(Action{Action: ActionCreate, Kind: kindType, Name: t.Name, Detail: text(extra), do: func(ctx context.Context) error {
			v, err := volumetypes.Create(ctx, p.volume, volumetypes.CreateOpts{Name: t.Name, ExtraSpecs: extra}).Extract()
			if err == nil {
				*made = *v
			}
			return explain("create", err)
		}})
		p.limits(t, made)
	case owner == "" && covers(have.ExtraSpecs, extra) && len(t.Limits.specs()) == 0:
		p.plan.add(Action{Action: ActionNone, Kind: kindType, Name: t.Name, Detail: "somebody else made it as it should be"})
	case owner == "":
		conflict("there is a type of this name that ovgate did not make: choose another name, or delete or rename that one")
	case owner != p.owner:
		conflict("another ovgate (%s) made it: choose another name", owner)
	default:
		p.change(have, extra)
		p.limits(t, &have)
	}
}

// change brings the extra specs of a type of ours to what they should be. Those of others
// stay.
func (p *planner) change(have volumetypes.VolumeType, extra map[string]string) {
	set, drop := map[string]string{}, []string{}
	for k, v := range extra {
		if have.ExtraSpecs[k] != v {
			set[k] = v
		}
	}
	if _, has := have.ExtraSpecs[specMultiattach]; has && extra[specMultiattach] == "" {
		drop = append(drop, specMultiattach)
	}
	if len(set)+len(drop) == 0 {
		p.plan.add(Action{Action: ActionNone, Kind: kindType, Name: have.Name})
		return
	}
	p.plan.add(Action{Action: ActionChange, Kind: kindType, Name: have.Name, Detail: changeText(set, drop), do: func(ctx context.Context) error {
		if len(set) > 0 {
			if err := volumetypes.CreateExtraSpecs(ctx, p.volume, have.ID, volumetypes.ExtraSpecsOpts(set)).Err; err != nil {
				return ofType("change", err)
			}
		}
		for _, k := range drop {
			err := ofType("change", volumetypes.DeleteExtraSpec(ctx, p.volume, have.ID, k).ExtractErr())
			if err != nil && !status(err, http.StatusNotFound) {
				return err
			}
		}
		return nil
	}})
}

// limits plans the QoS specs of a type, which has its id by the time they are made.
func (p *planner) limits(t Type, of *volumetypes.VolumeType) {
	specs := t.Limits.specs()
	have, associated := p.specs[of.QosSpecID]
	if len(specs) == 0 {
		if associated {
			p.dropSpecs(*of)
		}
		return
	}
	conflict := func(format string, a ...any) {
		p.plan.add(Action{Action: ActionConflict, Kind: kindQoS, Name: t.Name, Detail: fmt.Sprintf(format, a...)})
	}
	associate := func(ctx context.Context, id string) error {
		return explain("associate", qos.Associate(ctx, p.volume, id, qos.AssociateOpts{VolumeTypeID: of.ID}).ExtractErr())
	}
	if associated {
		if have.Specs[specOwner] != p.owner {
			conflict("the type has QoS specs %s that ovgate did not make: take them off it", have.Name)
			return
		}
		p.changeSpecs(have, specs)
		return
	}
	// Left by a plan that was cut off before they were the type's.
	for _, s := range p.specs {
		if s.Name != t.Name {
			continue
		}
		if s.Specs[specOwner] != p.owner {
			conflict("there are QoS specs of this name that ovgate did not make: rename the type, or delete them")
			return
		}
		p.changeSpecs(s, specs)
		p.plan.add(Action{Action: ActionChange, Kind: kindQoS, Name: t.Name, Detail: "associate them with the type", do: func(ctx context.Context) error { return associate(ctx, s.ID) }})
		return
	}
	detail := text(specs)
	specs[specOwner] = p.owner
	p.plan.add(Action{Action: ActionCreate, Kind: kindQoS, Name: t.Name, Detail: detail, do: func(ctx context.Context) error {
		s, err := qos.Create(ctx, p.volume, qos.CreateOpts{Name: t.Name, Consumer: qos.ConsumerBack, Specs: specs}).Extract()
		if err != nil {
			return explain("create", err)
		}
		return associate(ctx, s.ID)
	}})
}

// changeSpecs brings QoS specs of ours to what they should be.
func (p *planner) changeSpecs(have qos.QoS, specs map[string]string) {
	set, drop := map[string]string{}, []string{}
	for k, v := range specs {
		if have.Specs[k] != v {
			set[k] = v
		}
	}
	for k := range have.Specs {
		if _, kept := specs[k]; !kept && k != specOwner {
			drop = append(drop, k)
		}
	}
	slices.Sort(drop)
	if len(set)+len(drop) == 0 && have.Consumer == string(qos.ConsumerBack) {
		p.plan.add(Action{Action: ActionNone, Kind: kindQoS, Name: have.Name})
		return
	}
	p.plan.add(Action{Action: ActionChange, Kind: kindQoS, Name: have.Name, Detail: changeText(set, drop), do: func(ctx context.Context) error {
		if len(set) > 0 || have.Consumer != string(qos.ConsumerBack) {
			if _, err := qos.Update(ctx, p.volume, have.ID, qos.UpdateOpts{Consumer: qos.ConsumerBack, Specs: set}).Extract(); err != nil {
				return explain("change", err)
			}
		}
		if len(drop) > 0 {
			return explain("change", qos.DeleteKeys(ctx, p.volume, have.ID, qos.DeleteKeysOpts(drop)).ExtractErr())
		}
		return nil
	}})
}

// dropSpecs takes QoS specs of ours off a type and deletes them.
func (p *planner) dropSpecs(t volumetypes.VolumeType) {
	have, ok := p.specs[t.QosSpecID]
	if !ok || have.Specs[specOwner] != p.owner {
		return
	}
	p.plan.add(Action{Action: ActionDelete, Kind: kindQoS, Name: have.Name, do: func(ctx context.Context) error {
		err := explain("take off", qos.Disassociate(ctx, p.volume, have.ID, qos.DisassociateOpts{VolumeTypeID: t.ID}).ExtractErr())
		if err != nil && !status(err, http.StatusNotFound) {
			return err
		}
		err = explain("delete", qos.Delete(ctx, p.volume, have.ID, nil).ExtractErr())
		if status(err, http.StatusNotFound) {
			return nil
		}
		return err
	}})
}

// covers tells whether have holds all of want.
func covers(have, want map[string]string) bool {
	for k, v := range want {
		if have[k] != v {
			return false
		}
	}
	return true
}

// text prints specs in order, without the owner.
func text(specs map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(specs)) {
		if k != specOwner {
			parts = append(parts, k+"="+specs[k])
		}
	}
	return strings.Join(parts, ", ")
}

func changeText(set map[string]string, drop []string) string {
	parts := []string{}
	if len(set) > 0 {
		parts = append(parts, text(set))
	}
	for _, k := range drop {
		parts = append(parts, "without "+k)
	}
	return strings.Join(parts, ", ")
}
