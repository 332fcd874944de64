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

// A raw disk of a virtual machine (RDM) is a LUN that its guest has by itself: its files are a
// mapping beside the machine's, and no VMFS is on the LUN.

// RDMMode is how much of a LUN a guest sees.
type RDMMode string

// Modes.
const (
	// RDMPhysical: its SCSI commands go to the LUN; the virtual machine's snapshots leave it out.
	RDMPhysical RDMMode = "physical"
	// RDMVirtual: it looks like any virtual disk, and is in the virtual machine's snapshots.
	RDMVirtual RDMMode = "virtual"
)

// compatibility is the mode as the API has it.
func (m RDMMode) compatibility() string {
	if m == RDMPhysical {
		return string(types.VirtualDiskCompatibilityModePhysicalMode)
	}
	return string(types.VirtualDiskCompatibilityModeVirtualMode)
}

// Units of a SCSI controller: 16, one of which is its own.
const (
	scsiUnits = 16
	scsiOwn   = 7
)

// FindMachine finds a virtual machine by its managed object id or its name. ErrNotFound: there is
// none; ErrRefused: several have the name.
func (c *Center) FindMachine(ctx context.Context, ref string) (*Machine, error) {
	var all []mo.VirtualMachine
	if err := c.list(ctx, "VirtualMachine", []string{"name"}, &all); err != nil {
		return nil, err
	}
	var found []mo.VirtualMachine
	for _, vm := range all {
		if vm.Self.Value == ref {
			found = []mo.VirtualMachine{vm}
			break
		}
		if vm.Name == ref {
			found = append(found, vm)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("virtual machine %s: %w", nameOf(ref), ErrNotFound)
	case 1:
		m := c.Machine(found[0].Self.Value)
		m.Name = nameOf(found[0].Name)
		return m, nil
	}
	return nil, fmt.Errorf("virtual machine %s: %w: %d have this name", nameOf(ref), ErrRefused, len(found))
}

// rawView is what is asked of a virtual machine for its raw disks.
type rawView struct {
	host     string // managed object id; empty: none
	template bool
	devices  object.VirtualDeviceList
}

func (m *Machine) rawView(ctx context.Context) (rawView, error) {
	var now mo.VirtualMachine
	if err := m.c.get(ctx, m.ref, []string{"runtime.host", "config.template", "config.hardware.device"}, &now); err != nil {
		return rawView{}, explain("look at virtual machine "+m.Name, err)
	}
	if now.Config == nil {
		return rawView{}, fmt.Errorf("virtual machine %s: %w: its vCenter tells no configuration of it", m.Name, ErrRefused)
	}
	v := rawView{template: now.Config.Template, devices: now.Config.Hardware.Device}
	if now.Runtime.Host != nil {
		v.host = now.Runtime.Host.Value
	}
	return v, nil
}

// raw finds the disk of a LUN. The name of a LUN is in the middle of what a host calls it.
func (v rawView) raw(naa string) *types.VirtualDisk {
	digits := strings.ToLower(strings.TrimPrefix(naa, "naa."))
	for _, d := range v.devices {
		disk, ok := d.(*types.VirtualDisk)
		if !ok {
			continue
		}
		if b, ok := disk.Backing.(*types.VirtualDiskRawDiskMappingVer1BackingInfo); ok && strings.Contains(strings.ToLower(b.LunUuid), digits) {
			return disk
		}
	}
	return nil
}

// place finds a controller with a free unit: for a shared disk one of those whose bus other
// virtual machines may have, too.
func (v rawView) place(shared bool) (controller, unit int32, ok bool) {
	for _, d := range v.devices {
		c, is := d.(types.BaseVirtualSCSIController)
		if !is {
			continue
		}
		scsi := c.GetVirtualSCSIController()
		if shared && scsi.SharedBus == types.VirtualSCSISharingNoSharing {
			continue
		}
		used := map[int32]bool{scsiOwn: true, scsi.ScsiCtlrUnitNumber: true}
		for _, o := range v.devices {
			if x := o.GetVirtualDevice(); x.ControllerKey == scsi.Key && x.UnitNumber != nil {
				used[*x.UnitNumber] = true
			}
		}
		for unit := range int32(scsiUnits) {
			if !used[unit] {
				return scsi.Key, unit, true
			}
		}
	}
	return 0, 0, false
}

// CheckRDM returns the managed object id of the machine's host, and refuses a template, and one
// without a SCSI controller that has room, whose bus is shared if the disk is to be.
func (m *Machine) CheckRDM(ctx context.Context, shared bool) (host string, _ error) {
	v, err := m.rawView(ctx)
	if err != nil {
		return "", err
	}
	_, _, room := v.place(shared)
	switch {
	case v.template:
		return "", fmt.Errorf("virtual machine %s: %w: it is a template", m.Name, ErrRefused)
	case v.host == "":
		return "", fmt.Errorf("virtual machine %s: %w: it is on no host", m.Name, ErrRefused)
	case !room && shared:
		return "", fmt.Errorf("virtual machine %s: %w: no SCSI controller with bus sharing has room", m.Name, ErrRefused)
	case !room:
		return "", fmt.Errorf("virtual machine %s: %w: no SCSI controller has room", m.Name, ErrRefused)
	}
	return v.host, nil
}

// AttachRDM gives the machine a LUN, which its host sees as disk, unless it has it.
func (m *Machine) AttachRDM(ctx context.Context, naa string, disk Disk, mode RDMMode, shared bool) error {
	v, err := m.rawView(ctx)
	if err != nil || v.raw(naa) != nil {
		return err
	}
	if _, err := m.CheckRDM(ctx, shared); err != nil {
		return err
	}
	b := &types.VirtualDiskRawDiskMappingVer1BackingInfo{DeviceName: disk.devicePath, LunUuid: disk.uuid, CompatibilityMode: mode.compatibility()}
	if b.DiskMode = string(types.VirtualDiskModePersistent); mode == RDMPhysical {
		b.DiskMode = string(types.VirtualDiskModeIndependent_persistent)
	}
	controller, unit, _ := v.place(shared)
	return m.reconfigure(ctx, "give it LUN "+naa, &types.VirtualDeviceConfigSpec{
		Operation: types.VirtualDeviceConfigSpecOperationAdd, FileOperation: types.VirtualDeviceConfigSpecFileOperationCreate,
		Device: &types.VirtualDisk{
			VirtualDevice: types.VirtualDevice{Key: -1, ControllerKey: controller, UnitNumber: &unit, Backing: b},
			CapacityInKB:  disk.Size >> 10, CapacityInBytes: disk.Size,
		},
	})
}

// DetachRDM takes a LUN from the machine, with its mapping. What it does not have is no error,
// nor one that is gone.
func (m *Machine) DetachRDM(ctx context.Context, naa string) error {
	v, err := m.rawView(ctx)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	disk := v.raw(naa)
	if disk == nil {
		return nil
	}
	return m.reconfigure(ctx, "take LUN "+naa+" from it", &types.VirtualDeviceConfigSpec{
		Operation: types.VirtualDeviceConfigSpecOperationRemove, FileOperation: types.VirtualDeviceConfigSpecFileOperationDestroy, Device: disk,
	})
}

func (m *Machine) reconfigure(ctx context.Context, what string, change types.BaseVirtualDeviceConfigSpec) error {
	what = fmt.Sprintf("virtual machine %s: %s", m.Name, what)
	t, err := object.NewVirtualMachine(m.c.client, m.ref).Reconfigure(ctx, types.VirtualMachineConfigSpec{DeviceChange: []types.BaseVirtualDeviceConfigSpec{change}})
	if err == nil {
		err = t.Wait(ctx)
	}
	return explain(what, err)
}

// HasVolume tells whether a host sees a VMFS volume on a LUN that is a copy of another one.
func (h *Host) HasVolume(ctx context.Context, naa string) (bool, error) {
	res, err := methods.QueryUnresolvedVmfsVolume(ctx, h.c.client, &types.QueryUnresolvedVmfsVolume{This: h.storage})
	if err != nil {
		return false, explain(h.Name+": look for copies of volumes", err)
	}
	return slices.ContainsFunc(res.Returnval, func(v types.HostUnresolvedVmfsVolume) bool {
		return slices.ContainsFunc(v.Extent, func(e types.HostUnresolvedVmfsExtent) bool { return strings.EqualFold(e.Device.DiskName, naa) })
	}), nil
}

// Reserve tells the host that a LUN is reserved by virtual machines for good, or is no more: one
// that does not know tries it for minutes when it starts.
func (h *Host) Reserve(ctx context.Context, d Disk, reserved bool) error {
	_, err := methods.MarkPerenniallyReserved(ctx, h.c.client, &types.MarkPerenniallyReserved{This: h.storage, LunUuid: d.uuid, State: reserved})
	return explain(h.Name+": mark the LUN as reserved", err)
}
