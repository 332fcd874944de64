package vsphere

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/view"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

const (
	// updateWait is how long a vCenter keeps a question for changes when there are none.
	updateWait = 25 * time.Second
	// updateMost bounds the objects of one answer to it; a vCenter splits what is more.
	updateMost = 1000
	// maxInventory bounds the objects of each kind that are kept: above what a vCenter takes.
	maxInventory = 50_000
	// maxText bounds a name that is kept, in bytes.
	maxText = 255
)

// VM is a virtual machine, or a template.
type VM struct {
	ID       string // managed object id
	Name     string
	Power    string // poweredOn, poweredOff or suspended
	Host     string // name; empty: the vCenter does not tell
	Template bool

	host       string   // managed object id
	datastores []string // managed object ids
}

// Inventory is which virtual machines are on which LUN, as a vCenter told of changes. Zero is
// empty. Safe for concurrent use.
type Inventory struct {
	mu     sync.RWMutex
	vms    map[string]*VM
	hosts  map[string]string // names
	stores map[string]string // LUNs of VMFS datastores on one each, "naa.…", lower case
}

// On returns the virtual machines on a LUN, with a part of their files there at least.
func (i *Inventory) On(naa string) []VM {
	i.mu.RLock()
	defer i.mu.RUnlock()
	var out []VM
	for id, n := range i.stores {
		if n != strings.ToLower(naa) {
			continue
		}
		for _, v := range i.vms {
			if slices.Contains(v.datastores, id) {
				x := *v
				x.Host = i.hosts[v.host]
				out = append(out, x)
			}
		}
	}
	return out
}

// Len is how many virtual machines there are on any datastore.
func (i *Inventory) Len() int {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return len(i.vms)
}

// watched are the kinds of objects that an inventory is of, with their properties.
var watched = map[string][]string{
	"VirtualMachine": {"name", "runtime.powerState", "runtime.host", "config.template", "datastore"},
	"HostSystem":     {"name"},
	"Datastore":      {"info"},
}

// Watch keeps an inventory up to date until ctx ends or the vCenter does not answer. Each
// time that the inventory is all that the vCenter has, told is called; an error of it is
// returned. The session keeps one collector and three views.
func (c *Center) Watch(ctx context.Context, i *Inventory, told func() error) error {
	collector, err := property.DefaultCollector(c.client).Create(ctx)
	if err != nil {
		return explain("watch", err)
	}
	var views []*view.ContainerView
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dialTimeout)
		defer cancel()
		_ = collector.Destroy(ctx) // they end with the session
		for _, v := range views {
			_ = v.Destroy(ctx)
		}
	}()
	for kind, properties := range watched {
		v, err := view.NewManager(c.client).CreateContainerView(ctx, c.client.ServiceContent.RootFolder, []string{kind}, true)
		if err != nil {
			return explain("watch", err)
		}
		views = append(views, v)
		_, err = collector.CreateFilter(ctx, types.CreateFilter{Spec: types.PropertyFilterSpec{
			ObjectSet: []types.ObjectSpec{{Obj: v.Reference(), Skip: new(true), SelectSet: []types.BaseSelectionSpec{v.TraversalSpec()}}},
			PropSet:   []types.PropertySpec{{Type: kind, PathSet: properties}},
		}})
		if err != nil {
			return explain("watch", err)
		}
	}
	i.clear()
	for version := ""; ; {
		res, err := methods.WaitForUpdatesEx(ctx, c.client, &types.WaitForUpdatesEx{
			This: collector.Reference(), Version: version,
			Options: &types.WaitOptions{MaxWaitSeconds: new(int32(updateWait.Seconds())), MaxObjectUpdates: updateMost},
		})
		if err != nil {
			return explain("watch", err)
		}
		more := false
		if set := res.Returnval; set != nil {
			version, more = set.Version, set.Truncated != nil && *set.Truncated
			if err := i.apply(set.FilterSet); err != nil {
				return err
			}
		}
		if more {
			continue
		}
		if err := told(); err != nil {
			return err
		}
	}
}

// clear begins anew.
func (i *Inventory) clear() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.vms, i.hosts, i.stores = map[string]*VM{}, map[string]string{}, map[string]string{}
}

var errTooMany = errors.New("the vCenter has too many objects")

// apply takes what changed.
func (i *Inventory) apply(filters []types.PropertyFilterUpdate) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, f := range filters {
		for _, o := range f.ObjectSet {
			gone := o.Kind == types.ObjectUpdateKindLeave
			switch o.Obj.Type {
			case "VirtualMachine":
				if gone {
					delete(i.vms, o.Obj.Value)
				} else {
					i.changeVM(o.Obj.Value, o.ChangeSet)
				}
			case "HostSystem":
				if gone {
					delete(i.hosts, o.Obj.Value)
				} else {
					take(o.ChangeSet, "name", func(s string) { i.hosts[o.Obj.Value] = nameOf(s) })
				}
			case "Datastore":
				if gone {
					delete(i.stores, o.Obj.Value)
				} else {
					i.changeStore(o.Obj.Value, o.ChangeSet)
				}
			}
		}
	}
	if max(len(i.vms), len(i.hosts), len(i.stores)) > maxInventory {
		return fmt.Errorf("watch: %w: %w: more than %d of a kind", ErrRefused, errTooMany, maxInventory)
	}
	return nil
}

func (i *Inventory) changeVM(id string, set []types.PropertyChange) {
	v := i.vms[id]
	if v == nil {
		v = &VM{ID: id}
		i.vms[id] = v
	}
	take(set, "name", func(s string) { v.Name = nameOf(s) })
	take(set, "runtime.powerState", func(s types.VirtualMachinePowerState) { v.Power = string(s) })
	take(set, "runtime.host", func(r types.ManagedObjectReference) { v.host = r.Value })
	take(set, "config.template", func(b bool) { v.Template = b })
	take(set, "datastore", func(a types.ArrayOfManagedObjectReference) {
		v.datastores = nil
		for _, r := range a.ManagedObjectReference {
			v.datastores = append(v.datastores, r.Value)
		}
	})
}

func (i *Inventory) changeStore(id string, set []types.PropertyChange) {
	for _, c := range set {
		if c.Name != "info" {
			continue
		}
		delete(i.stores, id)
		var info *types.VmfsDatastoreInfo
		switch v := c.Val.(type) {
		case types.VmfsDatastoreInfo:
			info = &v
		case *types.VmfsDatastoreInfo:
			info = v
		}
		if info != nil && info.Vmfs != nil && len(info.Vmfs.Extent) == 1 {
			i.stores[id] = strings.ToLower(info.Vmfs.Extent[0].DiskName)
		}
	}
}

// take gives fn the new value of a property, if that changed; what was unset is zero.
func take[T any](set []types.PropertyChange, name string, fn func(T)) {
	for _, c := range set {
		if c.Name == name {
			v, _ := c.Val.(T)
			fn(v)
		}
	}
}

// nameOf is a name without the escapes that vSphere gives it, bounded.
func nameOf(s string) string {
	s = strings.NewReplacer("%2f", "/", "%2F", "/", "%5c", `\`, "%5C", `\`, "%25", "%").Replace(strings.ToValidUTF8(s, "?"))
	return strings.Clone(strings.ToValidUTF8(s[:min(len(s), maxText)], ""))
}
