package vsphere

import (
	"fmt"
	"testing"

	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/openvstorage/ovgate/integrations/vsphere/esxsim"
	"github.com/openvstorage/ovgate/internal/client"
)

// vms lists the virtual machines on a datastore; "" is on all.
func (l *lab) vms(datastore string) (client.VirtualMachineList, error) {
	p := &client.ListVMsParams{}
	if datastore != "" {
		p.Datastore = &datastore
	}
	return client.Get[client.VirtualMachineList](l.api.ListVMs(l.t.Context(), p))
}

// untilVM waits until there is one virtual machine, which is as wanted.
func (l *lab) untilVM(what string, ok func(client.VirtualMachine) bool) {
	l.t.Helper()
	l.until(what, func() error {
		list, err := l.vms("gold")
		if err == nil && (len(list.Items) != 1 || !ok(list.Items[0])) {
			err = fmt.Errorf("the list is %+v", list)
		}
		return err
	})
}

// admin signs in as another administrator, and finds a virtual machine.
func (l *lab) admin(name string) (*find.Finder, *object.VirtualMachine) {
	l.t.Helper()
	c, err := l.v.Client(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	f := find.NewFinder(c.Client)
	if name == "" {
		return f, nil
	}
	vm, err := f.VirtualMachine(l.t.Context(), "/DC0/vm/"+name)
	if err != nil {
		l.t.Fatal(err)
	}
	return f, vm
}

// done waits for a task of a vCenter.
func (l *lab) done(task *object.Task, err error) {
	l.t.Helper()
	if err == nil {
		err = task.Wait(l.t.Context())
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

// createVM makes a virtual machine on a datastore and the second host.
func (l *lab) createVM(name, datastore string) {
	l.t.Helper()
	f, _ := l.admin("")
	folder, err := f.Folder(l.t.Context(), "/DC0/vm")
	if err != nil {
		l.t.Fatal(err)
	}
	rp, err := f.ResourcePool(l.t.Context(), "/DC0/host/DC0_C0/Resources")
	if err != nil {
		l.t.Fatal(err)
	}
	host, err := f.HostSystem(l.t.Context(), "/DC0/host/DC0_C0/DC0_C0_H1")
	if err != nil {
		l.t.Fatal(err)
	}
	l.done(folder.CreateVM(l.t.Context(), types.VirtualMachineConfigSpec{Name: name, Files: &types.VirtualMachineFileInfo{VmPathName: "[" + datastore + "]"}}, rp, host))
}

// TestVMs: what is done with virtual machines at the vCenter shows, also after its sessions
// expired, and after it or the node were away.
func TestVMs(t *testing.T) {
	l := start(t, esxsim.Options{Hosts: 2})
	if list, err := l.vms(""); err != nil || len(list.Items)+len(list.Sources) != 0 {
		t.Errorf("without datastores there are %+v %v", list, err)
	}
	l.create("gold")
	l.create("tin")
	l.settled("gold")
	l.settled("tin")
	list, err := l.vms("")
	if err != nil || len(list.Items) != 0 || len(list.Sources) != 1 || list.Sources[0].SeenAt == nil || list.Sources[0].Problem != "" {
		t.Errorf("without virtual machines there are %+v %v", list, err)
	}
	_, err = l.vms("none")
	refused(t, err, "not_found", "datastore list")

	admin, done := l.admin, l.done
	l.createVM("web", "gold")
	l.untilVM("web is there", func(v client.VirtualMachine) bool {
		return v.Name == "web" && v.Host == "DC0_C0_H1" && v.Center == "dc" && v.Power == "poweredOff" && len(v.Datastores) == 1 && v.Datastores[0] == "gold"
	})
	if list, err := l.vms("tin"); err != nil || len(list.Items) != 0 {
		t.Errorf("on the other datastore there are %+v %v", list, err)
	}
	_, vm := admin("web")
	done(vm.PowerOn(t.Context()))
	l.untilVM("web is on", func(v client.VirtualMachine) bool { return v.Power == "poweredOn" })

	l.v.ExpireSessions()
	_, vm = admin("web")
	done(vm.Rename(t.Context(), "shop"))
	l.untilVM("web is shop", func(v client.VirtualMachine) bool { return v.Name == "shop" })

	// What was known stays known while the vCenter is away, and that is told.
	l.v.Stop()
	l.until("the vCenter away", func() error {
		list, err := l.vms("")
		if err == nil && (len(list.Items) != 1 || len(list.Sources) != 1 || list.Sources[0].Problem == "") {
			err = fmt.Errorf("the list is %+v", list)
		}
		return err
	})
	if err := l.v.Resume(); err != nil {
		t.Fatal(err)
	}
	_, vm = admin("shop")
	done(vm.PowerOff(t.Context()))
	l.untilVM("shop is off", func(v client.VirtualMachine) bool { return v.Power == "poweredOff" })
	if err := l.node.Stop(); err != nil {
		t.Fatal(err)
	}
	l.startNode()
	l.untilVM("shop after a restart", func(v client.VirtualMachine) bool { return v.Name == "shop" })
	_, vm = admin("shop")
	done(vm.Destroy(t.Context()))
	l.until("shop is gone", func() error {
		list, err := l.vms("")
		if err == nil && (len(list.Items) != 0 || list.Sources[0].Problem != "") {
			err = fmt.Errorf("the list is %+v", list)
		}
		return err
	})
}
