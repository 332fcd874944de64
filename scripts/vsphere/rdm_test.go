package vsphere

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/openvstorage/ovgate/integrations/vsphere/esxsim"
	"github.com/openvstorage/ovgate/internal/client"
)

// controller gives a virtual machine a SCSI controller.
func (l *lab) controller(vm *object.VirtualMachine, bus types.VirtualSCSISharing) {
	l.t.Helper()
	l.done(vm.Reconfigure(l.t.Context(), types.VirtualMachineConfigSpec{DeviceChange: []types.BaseVirtualDeviceConfigSpec{&types.VirtualDeviceConfigSpec{
		Operation: types.VirtualDeviceConfigSpecOperationAdd,
		Device: &types.ParaVirtualSCSIController{VirtualSCSIController: types.VirtualSCSIController{
			SharedBus: bus, VirtualController: types.VirtualController{BusNumber: 1, VirtualDevice: types.VirtualDevice{Key: -1}},
		}},
	}}}))
}

// rawDisks are the raw disks that the vCenter tells of a virtual machine.
func (l *lab) rawDisks(vm *object.VirtualMachine) (out []types.VirtualDiskRawDiskMappingVer1BackingInfo) {
	l.t.Helper()
	devices, err := vm.Device(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	for _, d := range devices {
		if x, ok := d.(*types.VirtualDisk); ok {
			if b, ok := x.Backing.(*types.VirtualDiskRawDiskMappingVer1BackingInfo); ok {
				out = append(out, *b)
			}
		}
	}
	return out
}

func (l *lab) rdm(name string) (client.RDM, error) {
	return client.Get[client.RDM](l.api.GetRDM(l.t.Context(), name))
}

// rdmUntil waits for what is told of a raw disk.
func (l *lab) rdmUntil(what, name string, ok func(client.RDM) bool) (d client.RDM) {
	l.t.Helper()
	l.until(what, func() error {
		var err error
		if d, err = l.rdm(name); err == nil && !ok(d) {
			err = fmt.Errorf("it is %+v, job %+v", d, d.Job)
		}
		return err
	})
	return d
}

func (l *lab) rdmGone(name string) {
	l.t.Helper()
	l.until(name+" gone", func() error {
		d, err := l.rdm(name)
		if status(err) == 404 {
			return nil
		}
		return fmt.Errorf("it is %+v, job %+v, %w", d, d.Job, err)
	})
}

func present(d client.RDM) bool { return d.State == "present" && d.Job == nil }

// TestRDM: a vDisk is a disk of a virtual machine, of two that share it, and of none again; what
// cannot be is refused; the node is killed at each thing that it asks for.
func TestRDM(t *testing.T) {
	l := start(t, esxsim.Options{Hosts: 3})
	l.create("gold")
	l.settled("gold")
	l.createVM("one", "gold")
	l.createVM("two", "gold")
	l.createVM("bare", "gold")
	_, one := l.admin("one")
	_, two := l.admin("two")
	l.controller(one, types.VirtualSCSISharingPhysicalSharing)
	l.controller(two, types.VirtualSCSISharingPhysicalSharing)
	for _, name := range []string{"quorum", "log", "open"} {
		if err := client.Done(l.api.CreateVDisk(t.Context(), nil, client.VDiskInput{Name: name, VPool: pool, Size: gib})); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(vdisk, vm string, shared bool) (client.RDMResult, error) {
		return client.Get[client.RDMResult](l.api.AttachRDM(t.Context(), nil, client.RDMInput{VDisk: vdisk, Center: "dc", VM: vm, Shared: &shared}))
	}
	no := func(vdisk, vm string, shared bool, code string, words ...string) {
		t.Helper()
		_, err := ask(vdisk, vm, shared)
		refused(t, err, code, words...)
	}
	no("none", "one", false, "not_found")
	no("quorum", "none", false, "not_found", "virtual machine none")
	no("gold", "one", false, "in_use", "datastore gold")
	no("quorum", "bare", true, "invalid", "bus sharing")
	if _, err := client.Get[client.Connection](l.api.PublishVDisk(t.Context(), "open", client.PublishInput{Open: new(true)})); err != nil {
		t.Fatal(err)
	}
	no("open", "one", false, "in_use", "published", "unpublish")
	l.v.SetMaintenance(l.v.Host(2), true)
	no("quorum", "one", false, "backend_unavailable", "DC0_C0_H2", "every host")
	l.v.SetMaintenance(l.v.Host(2), false)
	if n := l.rawDisks(one); len(n) != 0 {
		t.Fatalf("refused, and it has %+v", n)
	}

	// A plan changes nothing; then the node is killed at each thing that it asks for.
	plan, err := client.Get[client.RDMResult](l.api.AttachRDM(t.Context(), nil, client.RDMInput{VDisk: "quorum", Center: "dc", VM: "one", Shared: new(true), DryRun: new(true)}))
	if err != nil || !plan.DryRun || !strings.Contains(fmt.Sprint(plan.Actions), "quorum of 1073741824 bytes to virtual machine one, physical") {
		t.Fatal(plan, err)
	}
	if list, err := client.Get[client.RDMList](l.api.ListRDMs(t.Context(), nil)); err != nil || len(list.Items) != 0 {
		t.Errorf("with a plan there are %+v %v", list, err)
	}
	k := l.killAt("RescanHba")
	_, err = ask("quorum", one.Reference().Value, true)
	l.asked(err)
	l.restarted(k, "SetMultipathLunPolicy", "MarkPerenniallyReserved", "ReconfigVM_Task")
	name := "quorum." + one.Reference().Value
	d := l.rdmUntil("attached", name, present)
	disks := l.rawDisks(one)
	if len(disks) != 1 || disks[0].CompatibilityMode != "physicalMode" || !strings.Contains(disks[0].LunUuid, strings.TrimPrefix(d.Naa, "naa.")) {
		t.Errorf("it has %+v", disks)
	}
	data, got := bytes.Repeat([]byte{3}, 4096), make([]byte, 4096)
	if err := l.v.Host(0).RawAt(d.Naa, data, 0, true); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := l.v.Host(i).RawAt(d.Naa, got, 0, false); err != nil || !bytes.Equal(got, data) || !l.v.Host(i).Reserved(d.Naa) {
			t.Errorf("host %d reads %d… %v, reserved %t", i, got[:2], err, l.v.Host(i).Reserved(d.Naa))
		}
	}
	no("quorum", "two", false, "in_use", "virtual machine one", "--shared")
	refused(t, client.Done(l.api.DeleteVDisk(t.Context(), "quorum", nil)), "in_use", "virtual machine one", "rdm detach")
	if list, err := client.Get[client.DatastoreList](l.api.ListDatastores(t.Context(), nil)); err != nil || len(list.Items) != 1 {
		t.Errorf("there are the datastores %+v %v", list.Items, err)
	}

	// A second one shares it. The first one leaves, and hosts keep it; then the second does.
	r, err := ask("quorum", "two", true)
	if err != nil {
		t.Fatal(err)
	}
	l.rdmUntil("shared", r.Rdm.ID, present)
	out, err := l.node.CLI(t.Context(), "vsphere", "rdm", "list")
	if err != nil || !strings.Contains(string(out), name) || !strings.Contains(string(out), r.Rdm.Name) {
		t.Errorf("the list is %s %v", out, err)
	}
	k = l.killAt("ReconfigVM_Task")
	l.asked(client.Done(l.api.DetachRDM(t.Context(), name)))
	l.restarted(k)
	l.rdmGone(name)
	if err := l.v.Host(1).RawAt(d.Naa, got, 0, false); err != nil || len(l.rawDisks(one)) != 0 || len(l.rawDisks(two)) != 1 {
		t.Errorf("with one it is read with %v; one has %+v, two %+v", err, l.rawDisks(one), l.rawDisks(two))
	}
	k = l.killAt("ReconfigVM_Task")
	l.asked(client.Done(l.api.DetachRDM(t.Context(), r.Rdm.ID)))
	l.restarted(k, "DetachScsiLun", "DeleteScsiLunState")
	l.rdmGone(r.Rdm.ID)
	if v, err := client.Get[client.VDisk](l.api.GetVDisk(t.Context(), "quorum")); err != nil || len(l.rawDisks(two)) != 0 {
		t.Errorf("detached, the vDisk is %+v %v, two has %+v", v, err, l.rawDisks(two))
	}
	if err := l.v.Host(1).RawAt(d.Naa, got, 0, false); err == nil {
		t.Error("a LUN that is gone is read")
	}

	// There is a volume on it that hosts would mount: a clone of a datastore. The attach does not
	// get on, and a detach replaces it.
	clone, err := client.Get[client.VDisk](l.api.CloneVDisk(t.Context(), "gold", nil, client.CloneInput{Name: "clone"}))
	if err != nil {
		t.Fatal(err)
	}
	if r, err = ask(clone.ID, "one", false); err != nil {
		t.Fatal(err)
	}
	l.rdmUntil("refused", r.Rdm.ID, func(d client.RDM) bool {
		return d.Job != nil && strings.Contains(d.Job.Error, "VMFS volume") && strings.Contains(d.Job.Hint, "import")
	})
	if err := client.Done(l.api.DetachRDM(t.Context(), r.Rdm.ID)); err != nil {
		t.Fatal(err)
	}
	l.rdmGone(r.Rdm.ID)

	// By the CLI, with virtual compatibility; the virtual machine is deleted by hand.
	if out, err := l.node.CLI(t.Context(), "vsphere", "rdm", "attach", "log", "--center", "dc", "--vm", "one", "--mode", "virtual"); err != nil || !strings.Contains(string(out), "virtual") {
		t.Errorf("by the CLI: %v: %s", err, out)
	}
	if disks := l.rawDisks(one); len(disks) != 1 || disks[0].CompatibilityMode != "virtualMode" {
		t.Errorf("by the CLI it has %+v", disks)
	}
	l.done(one.Destroy(t.Context()))
	if out, err := l.node.CLI(t.Context(), "vsphere", "rdm", "detach", "log."+one.Reference().Value, "-y"); err != nil {
		t.Errorf("by the CLI: %v: %s", err, out)
	}
	if list, err := client.Get[client.RDMList](l.api.ListRDMs(t.Context(), nil)); err != nil || len(list.Items) != 0 {
		t.Errorf("at the end there are %+v %v", list, err)
	}
	for _, h := range l.live("gold").Hosts {
		if !h.Accessible {
			t.Errorf("on %s the datastore is %+v", h.Host, h)
		}
	}
}
