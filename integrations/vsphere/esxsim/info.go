package esxsim

import (
	"fmt"
	"net"
	"slices"
	"strconv"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// Path selection and storage array types.
const (
	pspRoundRobin = "VMW_PSP_RR"
	pspFixed      = "VMW_PSP_FIXED"
	pspMRU        = "VMW_PSP_MRU"
	satpALUA      = "VMW_SATP_ALUA"
	satpActive    = "VMW_SATP_DEFAULT_AA"
)

// shown is what the API tells of credentials: never a secret.
func shown(a types.HostInternetScsiHbaAuthenticationProperties) *types.HostInternetScsiHbaAuthenticationProperties {
	a.ChapSecret, a.MutualChapSecret = "", ""
	return &a
}

// deviceInfo is the host's storage as the API tells it.
func (h *Host) deviceInfo() *types.HostStorageDeviceInfo {
	i := h.base
	i.SoftwareInternetScsiEnabled = h.enabled
	i.HostBusAdapter, i.ScsiLun = slices.Clone(i.HostBusAdapter), slices.Clone(i.ScsiLun)
	paths, topology := types.HostMultipathInfo{}, types.HostScsiTopology{}
	if h.base.MultipathInfo != nil {
		paths.Lun = slices.Clone(h.base.MultipathInfo.Lun)
	}
	if h.base.ScsiTopology != nil {
		topology.Adapter = slices.Clone(h.base.ScsiTopology.Adapter)
	}
	i.MultipathInfo, i.ScsiTopology = &paths, &topology
	if !h.enabled {
		return &i
	}
	i.HostBusAdapter = append(i.HostBusAdapter, h.adapter())
	for _, l := range h.sorted() {
		i.ScsiLun = append(i.ScsiLun, h.scsiDisk(l))
		paths.Lun = append(paths.Lun, h.multipath(l))
	}
	return &i
}

func (h *Host) adapter() *types.HostInternetScsiHba {
	a := &types.HostInternetScsiHba{
		HostHostBusAdapter: types.HostHostBusAdapter{Key: hbaKey, Device: hbaDevice, Status: "online", Model: "iSCSI Software Adapter", Driver: "iscsi_vmk", StorageProtocol: "scsi"},
		IsSoftwareBased:    true, CanBeDisabled: new(true), IScsiName: h.IQN, AuthenticationProperties: *shown(h.auth),
	}
	for _, t := range h.send {
		s := t.HostInternetScsiHbaSendTarget
		s.AuthenticationProperties = shown(t.auth)
		a.ConfiguredSendTarget = append(a.ConfiguredSendTarget, s)
	}
	for at := range h.links {
		address, port, err := net.SplitHostPort(at.portal)
		if err != nil {
			continue
		}
		n, err := strconv.Atoi(port)
		if err != nil {
			continue
		}
		a.ConfiguredStaticTarget = append(a.ConfiguredStaticTarget, types.HostInternetScsiHbaStaticTarget{Address: address, Port: int32(n), IScsiName: at.target, DiscoveryMethod: "sendTargetMethod"})
	}
	return a
}

func (h *Host) scsiDisk(l *lun) *types.HostScsiDisk {
	state := types.ScsiLunStateOk
	switch {
	case h.detached[l.name]:
		state = types.ScsiLunStateOff
	case !l.alive():
		state = types.ScsiLunStateLostCommunication
	}
	accelerated := types.ScsiLunVStorageSupportStatusVStorageUnsupported
	if l.ats {
		accelerated = types.ScsiLunVStorageSupportStatusVStorageSupported
	}
	d := l.dev
	kind := types.ScsiDiskTypeNative512
	if d.physical == 3 {
		kind = types.ScsiDiskTypeEmulated512
	}
	return &types.HostScsiDisk{
		ScsiLun: types.ScsiLun{
			HostDevice: types.HostDevice{DeviceName: l.path(), DeviceType: "disk"},
			Key:        l.key(), Uuid: l.uuid, CanonicalName: l.name, LunType: "disk",
			DisplayName: d.vendor + " iSCSI Disk (" + l.name + ")", Vendor: d.vendor, Model: d.model, Revision: d.revision,
			SerialNumber: d.serial, StandardInquiry: d.inquiry, QueueDepth: 128, OperationalState: []string{string(state)}, VStorageSupport: string(accelerated),
			Descriptor:  []types.ScsiLunDescriptor{{Quality: "highQuality", Id: l.name}},
			DurableName: &types.ScsiLunDurableName{Namespace: "GENERIC_VPD", NamespaceId: 5, Data: d.page83},
		},
		Capacity:   types.HostDiskDimensionsLba{BlockSize: int32(d.blockSize), Block: int64(d.blocks)},
		DevicePath: l.path(), LocalDisk: new(false), Ssd: new(false), ScsiDiskType: string(kind),
	}
}

func (h *Host) multipath(l *lun) types.HostMultipathInfoLogicalUnit {
	satp, psp := satpActive, pspFixed
	if l.dev.tpgs {
		satp, psp = satpALUA, pspMRU
	}
	if p := h.policy[l.name]; p != "" {
		psp = p
	}
	u := types.HostMultipathInfoLogicalUnit{
		Key: "key-vim.host.MultipathInfo.LogicalUnit-" + l.uuid, Id: l.uuid, Lun: l.key(),
		Policy:                 &types.HostMultipathInfoLogicalUnitPolicy{Policy: psp},
		StorageArrayTypePolicy: &types.HostMultipathInfoLogicalUnitStorageArrayTypePolicy{Policy: satp},
	}
	if h.detached[l.name] {
		return u
	}
	working, optimized := false, slices.ContainsFunc(l.paths, func(p *lunPath) bool { return p.optimized && p.now() == pathActive })
	for _, p := range l.paths {
		at, state := p.link.at, p.now()
		name := fmt.Sprintf("%s:C0:T%d:L%d", hbaDevice, h.numbers[at], p.number)
		way := types.HostMultipathInfoPath{
			Key: "key-vim.host.MultipathInfo.Path-" + name, Name: name, Adapter: hbaKey, Lun: u.Key, State: state, PathState: state,
			Transport: &types.HostInternetScsiTargetTransport{IScsiName: at.target, Address: []string{at.portal}},
		}
		if state == pathActive && p.optimized == optimized && (psp == pspRoundRobin || !working) {
			way.IsWorkingPath, working = new(true), true
		}
		u.Path = append(u.Path, way)
	}
	return u
}

// publish tells the simulator of the host's storage. The lock of its storage system is
// held, or the caller is a method of it.
func (h *Host) publish(ctx *simulator.Context) {
	i := h.deviceInfo()
	ctx.Map.Update(ctx, h.hss, []types.PropertyChange{{Name: "storageDeviceInfo", Val: i}})
	ctx.Map.WithLock(ctx, h.sys, func() {
		ctx.Map.Update(ctx, h.sys, []types.PropertyChange{{Name: "config.storageDevice", Val: i}})
	})
	for id, disk := range h.mounted {
		l := h.luns[disk]
		if l == nil || l.header == nil {
			continue
		}
		up := l.alive() && !h.unmounted[id] && !h.detached[l.name]
		reason := ""
		if !up && !h.unmounted[id] {
			reason = lost(l)
		}
		h.mountInfo(ctx, id, func(m *types.HostMountInfo) {
			m.Mounted, m.Accessible, m.InaccessibleReason = new(!h.unmounted[id]), new(up), reason
		})
	}
}

// lost says why a volume is not accessible.
func lost(l *lun) string {
	if l.gone {
		return string(types.HostMountInfoInaccessibleReasonPermanentDeviceLoss)
	}
	return string(types.HostMountInfoInaccessibleReasonAllPathsDown_Start)
}
