package esxsim

import (
	"errors"
	"fmt"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/openvstorage/ovgate/iscsi/initiator"
)

// datastoreSystem is the HostDatastoreSystem of a host.
type datastoreSystem struct {
	*simulator.HostDatastoreSystem
	h *Host
}

// do runs fn on the host and tells the simulator what came of it.
func (d *datastoreSystem) do(ctx *simulator.Context, fn func(h *Host) *soap.Fault) (fault *soap.Fault) {
	ctx.WithLock(d.h.hss, func() {
		d.h.f.mu.Lock()
		defer d.h.f.mu.Unlock()
		fault = fn(d.h)
		d.h.publish(ctx)
	})
	return fault
}

func (d *datastoreSystem) QueryAvailableDisksForVmfs(ctx *simulator.Context, _ *types.QueryAvailableDisksForVmfs) soap.HasFault {
	b := &methods.QueryAvailableDisksForVmfsBody{Res: &types.QueryAvailableDisksForVmfsResponse{}}
	var read []headerRead
	ctx.WithLock(d.h.hss, func() { read = d.h.readHeaders() })
	b.Fault_ = d.do(ctx, func(h *Host) *soap.Fault {
		away := keepHeaders(read)
		for _, l := range h.sorted() {
			if l.header == nil && !away[l] && l.alive() && !h.detached[l.name] {
				b.Res.Returnval = append(b.Res.Returnval, *h.scsiDisk(l))
			}
		}
		return nil
	})
	return b
}

// wholeDisk is the partition that a volume of a disk has.
func wholeDisk(l *lun) (types.HostDiskPartitionBlockRange, types.HostDiskPartitionSpec) {
	first, last := int64(headerAt/initiator.BlockSize), int64(l.dev.blocks)-tail
	at := func(block int64) types.HostDiskDimensionsLba {
		return types.HostDiskDimensionsLba{Block: block, BlockSize: initiator.BlockSize}
	}
	return types.HostDiskPartitionBlockRange{Partition: 1, Type: "vmfs", Start: at(first), End: at(last)},
		types.HostDiskPartitionSpec{
			PartitionFormat: "gpt", TotalSectors: int64(l.dev.blocks),
			Partition: []types.HostDiskPartitionAttributes{{Partition: 1, StartSector: first, EndSector: last, Type: "vmfs"}},
		}
}

func allExtent(r types.HostDiskPartitionBlockRange) *types.VmfsDatastoreAllExtentOption {
	return &types.VmfsDatastoreAllExtentOption{VmfsDatastoreSingleExtentOption: types.VmfsDatastoreSingleExtentOption{
		VmfsDatastoreBaseOption: types.VmfsDatastoreBaseOption{Layout: types.HostDiskPartitionLayout{Partition: []types.HostDiskPartitionBlockRange{r}}}, VmfsExtent: r,
	}}
}

func (d *datastoreSystem) QueryVmfsDatastoreCreateOptions(ctx *simulator.Context, r *types.QueryVmfsDatastoreCreateOptions) soap.HasFault {
	b := &methods.QueryVmfsDatastoreCreateOptionsBody{Res: &types.QueryVmfsDatastoreCreateOptionsResponse{}}
	b.Fault_ = d.do(ctx, func(h *Host) *soap.Fault {
		l := h.byPath(r.DevicePath)
		if l == nil || !l.alive() || h.detached[l.name] {
			return notFound("device %s", r.DevicePath)
		}
		major := r.VmfsMajorVersion
		if major == 0 {
			major = 6
		}
		whole, partition := wholeDisk(l)
		b.Res.Returnval = []types.VmfsDatastoreOption{{Info: allExtent(whole), Spec: &types.VmfsDatastoreCreateSpec{
			VmfsDatastoreSpec: types.VmfsDatastoreSpec{DiskUuid: l.uuid}, Partition: partition,
			Vmfs: types.HostVmfsSpec{Extent: types.HostScsiDiskPartition{DiskName: l.name, Partition: 1}, MajorVersion: major},
		}}}
		return nil
	})
	return b
}

// nameTaken finds a datastore by name.
func (f *fabric) nameTaken(name string) (types.ManagedObjectReference, bool) {
	for _, e := range f.reg.All("Datastore") {
		if e.Entity().Name == name {
			return e.Reference(), true
		}
	}
	return types.ManagedObjectReference{}, false
}

func (d *datastoreSystem) CreateVmfsDatastore(ctx *simulator.Context, r *types.CreateVmfsDatastore) soap.HasFault {
	b := &methods.CreateVmfsDatastoreBody{Res: &types.CreateVmfsDatastoreResponse{}}
	b.Fault_ = d.do(ctx, func(h *Host) *soap.Fault {
		l := h.byUUID(r.Spec.DiskUuid)
		switch {
		case l == nil || h.detached[l.name]:
			return notFound("disk %s", r.Spec.DiskUuid)
		case r.Spec.Vmfs.VolumeName == "" || len(r.Spec.Partition.Partition) != 1:
			return badArgument("spec")
		}
		if other, taken := h.f.nameTaken(r.Spec.Vmfs.VolumeName); taken {
			return simulator.Fault("the name is taken", &types.DuplicateName{Name: r.Spec.Vmfs.VolumeName, Object: other})
		}
		hd := &header{Magic: magic, UUID: newVolumeUUID(), Label: r.Spec.Vmfs.VolumeName, Disk: l.name, End: r.Spec.Partition.Partition[0].EndSector, Major: r.Spec.Vmfs.MajorVersion}
		if err := h.format(l, hd); err != nil {
			return hostConfig(err)
		}
		l.header = hd
		ref, err := h.mount(ctx, l)
		if err != nil {
			return hostConfig(err)
		}
		b.Res.Returnval = ref
		return nil
	})
	return b
}

// volumeOf returns the disk of a datastore.
func (h *Host) volumeOf(ref types.ManagedObjectReference) (string, *lun) {
	for id, r := range h.f.datastores {
		if r == ref {
			if l := h.luns[h.mounted[id]]; l != nil && l.header != nil {
				return id, l
			}
		}
	}
	return "", nil
}

func (d *datastoreSystem) QueryVmfsDatastoreExpandOptions(ctx *simulator.Context, r *types.QueryVmfsDatastoreExpandOptions) soap.HasFault {
	b := &methods.QueryVmfsDatastoreExpandOptionsBody{Res: &types.QueryVmfsDatastoreExpandOptionsResponse{}}
	b.Fault_ = d.do(ctx, func(h *Host) *soap.Fault {
		_, l := h.volumeOf(r.Datastore)
		if l == nil {
			return notFound("datastore %s", r.Datastore.Value)
		}
		whole, partition := wholeDisk(l) // as this host saw the disk at its newest rescan
		if whole.End.Block <= l.header.End {
			return nil
		}
		b.Res.Returnval = []types.VmfsDatastoreOption{{Info: allExtent(whole), Spec: &types.VmfsDatastoreExpandSpec{
			VmfsDatastoreSpec: types.VmfsDatastoreSpec{DiskUuid: l.uuid}, Partition: partition, Extent: types.HostScsiDiskPartition{DiskName: l.name, Partition: 1},
		}}}
		return nil
	})
	return b
}

func (d *datastoreSystem) ExpandVmfsDatastore(ctx *simulator.Context, r *types.ExpandVmfsDatastore) soap.HasFault {
	b := &methods.ExpandVmfsDatastoreBody{Res: &types.ExpandVmfsDatastoreResponse{Returnval: r.Datastore}}
	b.Fault_ = d.do(ctx, func(h *Host) *soap.Fault {
		_, l := h.volumeOf(r.Datastore)
		if l == nil || len(r.Spec.Partition.Partition) != 1 {
			return notFound("datastore %s", r.Datastore.Value)
		}
		hd := *l.header
		if hd.End = r.Spec.Partition.Partition[0].EndSector; hd.End <= l.header.End {
			return hostConfig(errors.New("the volume does not grow"))
		}
		// Every host that has it mounted must have seen the new size.
		for _, o := range h.f.hosts {
			if other := o.luns[l.name]; other != nil && o.uses(l.name) && int64(other.dev.blocks)-tail < hd.End {
				return hostConfig(fmt.Errorf("host %s knows the old size of %s", o.sys.Name, l.name))
			}
		}
		if err := h.rewrite(l, &hd); err != nil {
			return hostConfig(err)
		}
		l.header = &hd
		if _, err := h.mount(ctx, l); err != nil {
			return hostConfig(err)
		}
		return nil
	})
	return b
}

// RemoveDatastore destroys the volume, as on a host.
func (d *datastoreSystem) RemoveDatastore(ctx *simulator.Context, r *types.RemoveDatastore) soap.HasFault {
	b := &methods.RemoveDatastoreBody{Res: &types.RemoveDatastoreResponse{}}
	b.Fault_ = d.do(ctx, func(h *Host) *soap.Fault {
		id, l := h.volumeOf(r.Datastore)
		if l == nil {
			return notFound("datastore %s", r.Datastore.Value)
		}
		if ds, ok := h.f.reg.Get(r.Datastore).(*simulator.Datastore); ok && len(ds.Vm) > 0 {
			return resourceInUse("Datastore", ds.Name)
		}
		if err := h.rewrite(l, nil); err != nil {
			return hostConfig(err)
		}
		l.header = nil
		h.forget(ctx, id)
		return nil
	})
	return b
}

func (d *datastoreSystem) ResignatureUnresolvedVmfsVolumeTask(ctx *simulator.Context, r *types.ResignatureUnresolvedVmfsVolume_Task) soap.HasFault {
	task := simulator.CreateTask(d.HostDatastoreSystem, "resignatureUnresolvedVmfsVolume", func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		var ref types.ManagedObjectReference
		fault := d.do(ctx, func(h *Host) *soap.Fault {
			if len(r.ResolutionSpec.ExtentDevicePath) != 1 {
				return badArgument("resolutionSpec")
			}
			l := h.byPath(r.ResolutionSpec.ExtentDevicePath[0])
			if l == nil || l.header == nil || l.header.Disk == l.name {
				return notFound("unresolved volume %s", r.ResolutionSpec.ExtentDevicePath[0])
			}
			hd := *l.header
			hd.UUID, hd.Disk = newVolumeUUID(), l.name
			hd.Label = "snap-" + hd.UUID[:8] + "-" + hd.Label
			if err := h.rewrite(l, &hd); err != nil {
				return hostConfig(err)
			}
			l.header = &hd
			var err error
			if ref, err = h.mount(ctx, l); err != nil {
				return hostConfig(err)
			}
			return nil
		})
		if fault != nil {
			return nil, fault.Detail.Fault.(types.BaseMethodFault)
		}
		return types.HostResignatureRescanResult{Result: ref}, nil
	})
	return &methods.ResignatureUnresolvedVmfsVolume_TaskBody{Res: &types.ResignatureUnresolvedVmfsVolume_TaskResponse{Returnval: task.Run(ctx)}}
}
