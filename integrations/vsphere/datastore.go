package vsphere

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// MaxDatastoreName is what VMFS takes as a label, in bytes.
const MaxDatastoreName = 42

// vmfsVersion is the one with automatic reclaim of what was deleted.
const vmfsVersion = 6

// Mount is a datastore on a host.
type Mount struct {
	Host       string // managed object id
	Mounted    bool
	Accessible bool
	Reason     string // why it is not accessible
}

// Datastore is a VMFS datastore.
type Datastore struct {
	c        *Center
	ref      types.ManagedObjectReference
	Name     string
	UUID     string // of the volume
	NAA      string // of the LUN that it is on
	Capacity int64  // bytes
	Free     int64  // bytes
	VMs      []string
	Mounts   []Mount
}

// ID is its managed object id.
func (d *Datastore) ID() string { return d.ref.Value }

// FindDatastore returns the VMFS datastore that lies on a LUN alone; ErrNotFound: there is
// none. Hosts and virtual machines of the others are not asked for.
func (c *Center) FindDatastore(ctx context.Context, naa string) (*Datastore, error) {
	var all []mo.Datastore
	if err := c.list(ctx, "Datastore", []string{"name", "info"}, &all); err != nil {
		return nil, err
	}
	for _, d := range all {
		info, ok := d.Info.(*types.VmfsDatastoreInfo)
		if !ok || info.Vmfs == nil || len(info.Vmfs.Extent) != 1 || !strings.EqualFold(info.Vmfs.Extent[0].DiskName, naa) {
			continue
		}
		x := &Datastore{c: c, ref: d.Self, Name: d.Name, UUID: info.Vmfs.Uuid, NAA: info.Vmfs.Extent[0].DiskName}
		return x, x.read(ctx)
	}
	return nil, fmt.Errorf("a datastore on %s: %w", naa, ErrNotFound)
}

// read asks what changes: sizes, virtual machines and hosts.
func (d *Datastore) read(ctx context.Context) error {
	var now mo.Datastore
	if err := d.c.get(ctx, d.ref, []string{"summary.capacity", "summary.freeSpace", "host", "vm"}, &now); err != nil {
		return explain("look at datastore "+d.Name, err)
	}
	d.Capacity, d.Free = now.Summary.Capacity, now.Summary.FreeSpace
	for _, vm := range now.Vm {
		d.VMs = append(d.VMs, vm.Value)
	}
	is := func(b *bool) bool { return b != nil && *b }
	for _, m := range now.Host {
		d.Mounts = append(d.Mounts, Mount{m.Key.Value, is(m.MountInfo.Mounted), is(m.MountInfo.Accessible), m.MountInfo.InaccessibleReason})
	}
	return nil
}

// NameTaken tells whether a datastore of any kind has a name.
func (c *Center) NameTaken(ctx context.Context, name string) (bool, error) {
	var all []mo.Datastore
	if err := c.list(ctx, "Datastore", []string{"name"}, &all); err != nil {
		return false, err
	}
	return slices.ContainsFunc(all, func(d mo.Datastore) bool { return d.Name == name }), nil
}

// On returns what the datastore is on a host; ok is false when it is not there.
func (d *Datastore) On(h *Host) (Mount, bool) {
	for _, m := range d.Mounts {
		if m.Host == h.ID() {
			return m, true
		}
	}
	return Mount{}, false
}

// CreateDatastore makes a VMFS datastore over all of a LUN that has none, through one
// host. ErrInUse: there is something on it; ErrExists: the name is taken.
func (h *Host) CreateDatastore(ctx context.Context, naa, name string) error {
	what := h.Name + ": create datastore " + name
	free, err := methods.QueryAvailableDisksForVmfs(ctx, h.c.client, &types.QueryAvailableDisksForVmfs{This: h.datastores})
	if err != nil {
		return explain(what, err)
	}
	i := slices.IndexFunc(free.Returnval, func(d types.HostScsiDisk) bool { return strings.EqualFold(d.CanonicalName, naa) })
	if i < 0 {
		s, err := h.look(ctx, Disks)
		if err == nil {
			_, err = s.Disk(naa)
		}
		if err != nil {
			return err
		}
		return fmt.Errorf("%s: %w: LUN %s has a volume or partitions already", what, ErrInUse, naa)
	}
	options, err := methods.QueryVmfsDatastoreCreateOptions(ctx, h.c.client, &types.QueryVmfsDatastoreCreateOptions{This: h.datastores, DevicePath: free.Returnval[i].DevicePath, VmfsMajorVersion: vmfsVersion})
	if err != nil {
		return explain(what, err)
	}
	for _, o := range options.Returnval {
		spec, ok := o.Spec.(*types.VmfsDatastoreCreateSpec)
		if _, whole := o.Info.(*types.VmfsDatastoreAllExtentOption); !whole || !ok {
			continue
		}
		spec.Vmfs.VolumeName = name
		_, err := methods.CreateVmfsDatastore(ctx, h.c.client, &types.CreateVmfsDatastore{This: h.datastores, Spec: *spec})
		return explain(what, err)
	}
	return fmt.Errorf("%s: %w: the host does not offer all of LUN %s", what, ErrRefused, naa)
}

// Expand grows a datastore to what its LUN has. Every host must have looked at its disks
// since that grew. It is no error when there is nothing to grow.
func (h *Host) Expand(ctx context.Context, d *Datastore) error {
	what := h.Name + ": expand datastore " + d.Name
	// The end is what the host says: one that is computed is refused.
	options, err := methods.QueryVmfsDatastoreExpandOptions(ctx, h.c.client, &types.QueryVmfsDatastoreExpandOptions{This: h.datastores, Datastore: d.ref})
	if err != nil {
		return explain(what, err)
	}
	for _, o := range options.Returnval {
		if spec, ok := o.Spec.(*types.VmfsDatastoreExpandSpec); ok {
			_, err := methods.ExpandVmfsDatastore(ctx, h.c.client, &types.ExpandVmfsDatastore{This: h.datastores, Datastore: d.ref, Spec: *spec})
			return explain(what, err)
		}
	}
	return nil
}

// Rename gives a datastore another name.
func (d *Datastore) Rename(ctx context.Context, name string) error {
	if d.Name == name {
		return nil
	}
	what := "rename datastore " + d.Name
	t, err := object.NewDatastore(d.c.client, d.ref).Rename(ctx, name)
	if err != nil {
		return explain(what, err)
	}
	return explain(what, t.Wait(ctx))
}

// Refresh has the vCenter ask for the free space anew.
func (d *Datastore) Refresh(ctx context.Context) error {
	_, err := methods.RefreshDatastore(ctx, d.c.client, &types.RefreshDatastore{This: d.ref})
	return explain("refresh datastore "+d.Name, err)
}

// Destroy destroys a datastore without virtual machines, through a host. ErrInUse: there
// are some, or something else uses it.
func (h *Host) Destroy(ctx context.Context, d *Datastore) error {
	if len(d.VMs) > 0 {
		return fmt.Errorf("datastore %s: %w: %d virtual machines or templates are on it", d.Name, ErrInUse, len(d.VMs))
	}
	_, err := methods.RemoveDatastore(ctx, h.c.client, &types.RemoveDatastore{This: h.datastores, Datastore: d.ref})
	if err = explain(h.Name+": destroy datastore "+d.Name, err); errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// Resignature takes a volume that is a copy of another one, on a LUN, as a datastore of its
// own, and returns its name. ErrNotFound: there is no copy on it.
func (h *Host) Resignature(ctx context.Context, naa string) (string, error) {
	what := h.Name + ": resignature the volume on " + naa
	res, err := methods.QueryUnresolvedVmfsVolume(ctx, h.c.client, &types.QueryUnresolvedVmfsVolume{This: h.storage})
	if err != nil {
		return "", explain(what, err)
	}
	for _, v := range res.Returnval {
		if len(v.Extent) != 1 || !strings.EqualFold(v.Extent[0].Device.DiskName, naa) {
			continue
		}
		r, err := methods.ResignatureUnresolvedVmfsVolume_Task(ctx, h.c.client, &types.ResignatureUnresolvedVmfsVolume_Task{
			This: h.datastores, ResolutionSpec: types.HostUnresolvedVmfsResignatureSpec{ExtentDevicePath: []string{v.Extent[0].DevicePath}},
		})
		if err != nil {
			return "", explain(what, err)
		}
		i, err := object.NewTask(h.c.client, r.Returnval).WaitForResult(ctx)
		if err != nil {
			return "", explain(what, err)
		}
		result, ok := i.Result.(types.HostResignatureRescanResult)
		if !ok {
			return "", fmt.Errorf("%s: %w: the answer is a %T", what, ErrRefused, i.Result)
		}
		var d mo.Datastore
		if err := h.c.get(ctx, result.Result, []string{"name"}, &d); err != nil {
			return "", explain(what, err)
		}
		return d.Name, nil
	}
	return "", fmt.Errorf("%s: a copy: %w", what, ErrNotFound)
}
