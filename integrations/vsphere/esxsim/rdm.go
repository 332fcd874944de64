package esxsim

import (
	"fmt"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// rawBacking is the LUN that a device is, nil: it is something else.
func rawBacking(d types.BaseVirtualDevice) *types.VirtualDiskRawDiskMappingVer1BackingInfo {
	disk, ok := d.(*types.VirtualDisk)
	if !ok {
		return nil
	}
	b, _ := disk.Backing.(*types.VirtualDiskRawDiskMappingVer1BackingInfo)
	return b
}

// checkRaw refuses a virtual machine a LUN that its host does not see, or that has a volume. The
// simulator takes any.
func (f *fabric) checkRaw(m *simulator.Method) types.BaseMethodFault {
	r, ok := m.Body.(*types.ReconfigVM_Task)
	if !ok {
		return nil
	}
	vm, ok := f.reg.Get(m.This).(*simulator.VirtualMachine)
	if !ok || vm.Runtime.Host == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range r.Spec.DeviceChange {
		spec := c.GetVirtualDeviceConfigSpec()
		b := rawBacking(spec.Device)
		if b == nil || spec.Operation != types.VirtualDeviceConfigSpecOperationAdd {
			continue
		}
		h := f.hosts[*vm.Runtime.Host]
		if l := h.byUUID(b.LunUuid); l == nil || !l.alive() || h.detached[l.name] || l.header != nil || b.DeviceName != l.path() {
			return &types.InvalidDeviceBacking{InvalidDeviceSpec: types.InvalidDeviceSpec{InvalidVmConfig: types.InvalidVmConfig{Property: "virtualDeviceSpec.device.backing"}}}
		}
	}
	return nil
}

// rawDisk tells whether a virtual machine has a LUN.
func (f *fabric) rawDisk(uuid string) bool {
	for _, e := range f.reg.All("VirtualMachine") {
		vm, ok := e.(*simulator.VirtualMachine)
		if !ok || vm.Config == nil {
			continue
		}
		for _, d := range vm.Config.Hardware.Device {
			if b := rawBacking(d); b != nil && b.LunUuid == uuid {
				return true
			}
		}
	}
	return false
}

// MarkPerenniallyReserved implements the method of the API.
func (s *storageSystem) MarkPerenniallyReserved(ctx *simulator.Context, r *types.MarkPerenniallyReserved) soap.HasFault {
	b := &methods.MarkPerenniallyReservedBody{Res: &types.MarkPerenniallyReservedResponse{}}
	b.Fault_ = s.do(ctx, func(h *Host) *soap.Fault {
		l := h.byUUID(r.LunUuid)
		if l == nil {
			return notFound("LUN %s", r.LunUuid)
		}
		if h.reserved == nil {
			h.reserved = map[string]bool{}
		}
		h.reserved[l.name] = r.State
		return nil
	})
	return b
}

// Reserved tells whether the host was told that a LUN is reserved for good.
func (h *Host) Reserved(naa string) bool {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	return h.reserved[naa]
}

// RawAt reads or writes a LUN as a guest does that has it as its disk: multiples of 512 bytes.
func (h *Host) RawAt(naa string, b []byte, off int64, write bool) error {
	h.f.mu.Lock()
	l := h.luns[naa]
	if l == nil {
		h.f.mu.Unlock()
		return fmt.Errorf("%s: LUN %s is not there", h.sys.Name, naa)
	}
	s, number, err := l.live()
	h.f.mu.Unlock()
	if err != nil {
		return err
	}
	if write {
		return writeBlocks(s, number, b, off)
	}
	return readBlocks(s, number, b, off)
}
