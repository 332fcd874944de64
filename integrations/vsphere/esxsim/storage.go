package esxsim

import (
	"fmt"
	"slices"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// storageSystem is the HostStorageSystem of a host. Its methods are those of the vSphere
// API, by name.
type storageSystem struct {
	*simulator.HostStorageSystem
	h *Host
}

func notFound(format string, a ...any) *soap.Fault {
	return simulator.Fault(fmt.Sprintf(format, a...)+" is not found", &types.NotFound{})
}

func resourceInUse(kind, name string) *soap.Fault {
	return simulator.Fault("The resource '"+name+"' is in use.", &types.ResourceInUse{Type: kind, Name: name})
}

func badArgument(name string) *soap.Fault {
	return simulator.Fault("A specified parameter was not correct: "+name, &types.InvalidArgument{InvalidProperty: name})
}

// hostConfig is the fault that a host gives for most of what goes wrong below it.
func hostConfig(err error) *soap.Fault { return simulator.Fault(err.Error(), &types.HostConfigFault{}) }

// do runs fn on the host and tells the simulator what came of it. The simulator holds the
// lock of the storage system.
func (s *storageSystem) do(ctx *simulator.Context, fn func(h *Host) *soap.Fault) *soap.Fault {
	s.h.f.mu.Lock()
	defer s.h.f.mu.Unlock()
	fault := fn(s.h)
	s.h.publish(ctx)
	return fault
}

// onHBA is do for what names the adapter.
func (s *storageSystem) onHBA(ctx *simulator.Context, device string, fn func(h *Host) *soap.Fault) *soap.Fault {
	return s.do(ctx, func(h *Host) *soap.Fault {
		if !h.enabled || device != hbaDevice {
			return notFound("adapter %s", device)
		}
		return fn(h)
	})
}

// scan is do for what asks targets. That is done without what hosts share, as they work side
// by side; what look returns is done with it.
func (s *storageSystem) scan(ctx *simulator.Context, look func(h *Host) (keep func(*simulator.Context))) *soap.Fault {
	keep := look(s.h)
	return s.do(ctx, func(*Host) *soap.Fault { keep(ctx); return nil })
}

func (s *storageSystem) UpdateSoftwareInternetScsiEnabled(ctx *simulator.Context, r *types.UpdateSoftwareInternetScsiEnabled) soap.HasFault {
	b := &methods.UpdateSoftwareInternetScsiEnabledBody{Res: &types.UpdateSoftwareInternetScsiEnabledResponse{}}
	b.Fault_ = s.do(ctx, func(h *Host) *soap.Fault { h.enabled = r.Enabled; return nil })
	return b
}

// credentials are those of a request. A secret that is too short, a name that is missing or a
// target that is to prove itself to a host which need not is refused as by a host.
func credentials(a *types.HostInternetScsiHbaAuthenticationProperties) (types.HostInternetScsiHbaAuthenticationProperties, *soap.Fault) {
	if a == nil {
		return types.HostInternetScsiHbaAuthenticationProperties{}, nil
	}
	if a.ChapAuthEnabled && (a.ChapName == "" || len(a.ChapSecret) < 1 || len(a.ChapSecret) > 255) {
		return *a, badArgument("authenticationProperties")
	}
	const required = string(types.HostInternetScsiHbaChapAuthenticationTypeChapRequired)
	switch a.MutualChapAuthenticationType {
	case "", string(types.HostInternetScsiHbaChapAuthenticationTypeChapProhibited):
	case required: // only with CHAP of its own, and another secret
		if !a.ChapAuthEnabled || a.ChapAuthenticationType != required || a.MutualChapName == "" || a.MutualChapSecret == "" || a.MutualChapSecret == a.ChapSecret {
			return *a, badArgument("authenticationProperties.mutualChapAuthenticationType")
		}
	default:
		return *a, badArgument("authenticationProperties.mutualChapAuthenticationType")
	}
	return *a, nil
}

func (h *Host) sendAt(address string, port int32) int {
	return slices.IndexFunc(h.send, func(t sendTarget) bool { return hostPort(t.Address, t.Port) == hostPort(address, port) })
}

func (s *storageSystem) AddInternetScsiSendTargets(ctx *simulator.Context, r *types.AddInternetScsiSendTargets) soap.HasFault {
	b := &methods.AddInternetScsiSendTargetsBody{Res: &types.AddInternetScsiSendTargetsResponse{}}
	b.Fault_ = s.onHBA(ctx, r.IScsiHbaDevice, func(h *Host) *soap.Fault {
		for _, t := range r.Targets {
			auth, fault := credentials(t.AuthenticationProperties)
			if fault != nil {
				return fault
			}
			if h.sendAt(t.Address, t.Port) < 0 {
				h.send = append(h.send, sendTarget{t, auth})
			}
		}
		return nil
	})
	return b
}

func (s *storageSystem) RemoveInternetScsiSendTargets(ctx *simulator.Context, r *types.RemoveInternetScsiSendTargets) soap.HasFault {
	b := &methods.RemoveInternetScsiSendTargetsBody{Res: &types.RemoveInternetScsiSendTargetsResponse{}}
	b.Fault_ = s.onHBA(ctx, r.IScsiHbaDevice, func(h *Host) *soap.Fault {
		for _, t := range r.Targets {
			i := h.sendAt(t.Address, t.Port)
			if i < 0 {
				return notFound("send target %s", t.Address)
			}
			h.send = slices.Delete(h.send, i, i+1)
		}
		return nil
	})
	return b
}

func (s *storageSystem) UpdateInternetScsiAuthenticationProperties(ctx *simulator.Context, r *types.UpdateInternetScsiAuthenticationProperties) soap.HasFault {
	b := &methods.UpdateInternetScsiAuthenticationPropertiesBody{Res: &types.UpdateInternetScsiAuthenticationPropertiesResponse{}}
	b.Fault_ = s.onHBA(ctx, r.IScsiHbaDevice, func(h *Host) *soap.Fault {
		auth, fault := credentials(&r.AuthenticationProperties)
		if fault != nil {
			return fault
		}
		if r.TargetSet == nil {
			h.auth = auth
			return nil
		}
		for _, t := range r.TargetSet.SendTargets {
			i := h.sendAt(t.Address, t.Port)
			if i < 0 {
				return notFound("send target %s", t.Address)
			}
			h.send[i].auth = auth
		}
		return nil
	})
	return b
}

func (s *storageSystem) UpdateInternetScsiAdvancedOptions(ctx *simulator.Context, r *types.UpdateInternetScsiAdvancedOptions) soap.HasFault {
	b := &methods.UpdateInternetScsiAdvancedOptionsBody{Res: &types.UpdateInternetScsiAdvancedOptionsResponse{}}
	b.Fault_ = s.onHBA(ctx, r.IScsiHbaDevice, func(h *Host) *soap.Fault {
		if r.TargetSet == nil {
			return nil
		}
		for _, t := range r.TargetSet.SendTargets {
			i := h.sendAt(t.Address, t.Port)
			if i < 0 {
				return notFound("send target %s", t.Address)
			}
			h.send[i].AdvancedOptions = r.Options
		}
		return nil
	})
	return b
}

func (s *storageSystem) RescanAllHba(ctx *simulator.Context, _ *types.RescanAllHba) soap.HasFault {
	b := &methods.RescanAllHbaBody{Res: &types.RescanAllHbaResponse{}}
	b.Fault_ = s.scan(ctx, (*Host).rescan)
	return b
}

func (s *storageSystem) RescanHba(ctx *simulator.Context, r *types.RescanHba) soap.HasFault {
	b := &methods.RescanHbaBody{Res: &types.RescanHbaResponse{}}
	if b.Fault_ = s.onHBA(ctx, r.HbaDevice, func(*Host) *soap.Fault { return nil }); b.Fault_ == nil {
		b.Fault_ = s.scan(ctx, (*Host).rescan)
	}
	return b
}

func (s *storageSystem) RescanVmfs(ctx *simulator.Context, _ *types.RescanVmfs) soap.HasFault {
	b := &methods.RescanVmfsBody{Res: &types.RescanVmfsResponse{}}
	b.Fault_ = s.scan(ctx, (*Host).rescanVolumes)
	return b
}

func (s *storageSystem) SetMultipathLunPolicy(ctx *simulator.Context, r *types.SetMultipathLunPolicy) soap.HasFault {
	b := &methods.SetMultipathLunPolicyBody{Res: &types.SetMultipathLunPolicyResponse{}}
	b.Fault_ = s.do(ctx, func(h *Host) *soap.Fault {
		l, psp := h.byUUID(r.LunId), r.Policy.GetHostMultipathInfoLogicalUnitPolicy().Policy
		switch {
		case l == nil:
			return notFound("LUN %s", r.LunId)
		case psp != pspRoundRobin && psp != pspFixed && psp != pspMRU:
			return badArgument("policy")
		}
		h.policy[l.name] = psp
		return nil
	})
	return b
}

// runsOn tells whether a virtual machine of a datastore is on this host.
func (h *Host) runsOn(id string) bool {
	ds, ok := h.f.reg.Get(h.f.datastores[id]).(*simulator.Datastore)
	return ok && slices.ContainsFunc(ds.Vm, func(ref types.ManagedObjectReference) bool {
		vm, ok := h.f.reg.Get(ref).(*simulator.VirtualMachine)
		return ok && vm.Runtime.Host != nil && *vm.Runtime.Host == h.sys.Self
	})
}

func (s *storageSystem) UnmountVmfsVolume(ctx *simulator.Context, r *types.UnmountVmfsVolume) soap.HasFault {
	b := &methods.UnmountVmfsVolumeBody{Res: &types.UnmountVmfsVolumeResponse{}}
	b.Fault_ = s.do(ctx, func(h *Host) *soap.Fault {
		if _, ok := h.mounted[r.VmfsUuid]; !ok {
			return notFound("volume %s", r.VmfsUuid)
		}
		if h.runsOn(r.VmfsUuid) {
			return resourceInUse("Datastore", r.VmfsUuid)
		}
		h.unmounted[r.VmfsUuid] = true
		return nil
	})
	return b
}

func (s *storageSystem) MountVmfsVolume(ctx *simulator.Context, r *types.MountVmfsVolume) soap.HasFault {
	b := &methods.MountVmfsVolumeBody{Res: &types.MountVmfsVolumeResponse{}}
	b.Fault_ = s.do(ctx, func(h *Host) *soap.Fault {
		if l := h.luns[h.mounted[r.VmfsUuid]]; l == nil || l.header == nil {
			return notFound("volume %s", r.VmfsUuid)
		}
		delete(h.unmounted, r.VmfsUuid)
		return nil
	})
	return b
}

func (s *storageSystem) DetachScsiLun(ctx *simulator.Context, r *types.DetachScsiLun) soap.HasFault {
	b := &methods.DetachScsiLunBody{Res: &types.DetachScsiLunResponse{}}
	b.Fault_ = s.do(ctx, func(h *Host) *soap.Fault {
		l := h.byUUID(r.LunUuid)
		if l == nil {
			return notFound("LUN %s", r.LunUuid)
		}
		for id, disk := range h.mounted {
			if disk == l.name && !h.unmounted[id] {
				return resourceInUse("ScsiLun", l.name)
			}
		}
		if h.f.rawDisk(l.uuid) {
			return resourceInUse("ScsiLun", l.name)
		}
		if h.detached[l.name] {
			return simulator.Fault(l.name+" is detached", &types.InvalidState{})
		}
		h.detached[l.name] = true
		return nil
	})
	return b
}

func (s *storageSystem) AttachScsiLun(ctx *simulator.Context, r *types.AttachScsiLun) soap.HasFault {
	b := &methods.AttachScsiLunBody{Res: &types.AttachScsiLunResponse{}}
	b.Fault_ = s.do(ctx, func(h *Host) *soap.Fault {
		l := h.byUUID(r.LunUuid)
		if l == nil {
			return notFound("LUN %s", r.LunUuid)
		}
		delete(h.detached, l.name)
		return nil
	})
	return b
}

func (s *storageSystem) DeleteScsiLunState(ctx *simulator.Context, r *types.DeleteScsiLunState) soap.HasFault {
	b := &methods.DeleteScsiLunStateBody{Res: &types.DeleteScsiLunStateResponse{}}
	b.Fault_ = s.do(ctx, func(h *Host) *soap.Fault {
		if !h.detached[r.LunCanonicalName] {
			return notFound("detached LUN %s", r.LunCanonicalName)
		}
		delete(h.detached, r.LunCanonicalName)
		delete(h.policy, r.LunCanonicalName)
		if l := h.luns[r.LunCanonicalName]; l != nil && l.gone && !h.uses(l.name) {
			delete(h.luns, l.name)
		}
		return nil
	})
	return b
}

func (s *storageSystem) QueryUnresolvedVmfsVolume(ctx *simulator.Context, _ *types.QueryUnresolvedVmfsVolume) soap.HasFault {
	b := &methods.QueryUnresolvedVmfsVolumeBody{Res: &types.QueryUnresolvedVmfsVolumeResponse{}}
	read := s.h.readHeaders()
	b.Fault_ = s.do(ctx, func(h *Host) *soap.Fault {
		keepHeaders(read)
		for _, l := range h.sorted() {
			if l.header == nil || l.header.Disk == l.name {
				continue
			}
			_, original := h.mounted[l.header.UUID]
			b.Res.Returnval = append(b.Res.Returnval, types.HostUnresolvedVmfsVolume{
				VmfsLabel: l.header.Label, VmfsUuid: l.header.UUID, TotalBlocks: int32(l.capacity() >> 20),
				Extent: []types.HostUnresolvedVmfsExtent{{
					Device:     types.HostScsiDiskPartition{DiskName: l.name, Partition: 1},
					DevicePath: l.path() + ":1", VmfsUuid: l.header.UUID, IsHeadExtent: true, Reason: "diskIdMismatch",
				}},
				ResolveStatus: types.HostUnresolvedVmfsVolumeResolveStatus{Resolvable: !original},
			})
		}
		return nil
	})
	return b
}
