package esxsim

import (
	"context"

	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"
)

// Powered makes a virtual machine on a datastore, as another administrator, and has it on.
func (v *VCenter) Powered(ctx context.Context, name, datastore string) (*object.VirtualMachine, error) {
	c, err := v.Client(ctx)
	if err != nil {
		return nil, err
	}
	f := find.NewFinder(c.Client)
	folder, err := f.Folder(ctx, "/DC0/vm")
	if err != nil {
		return nil, err
	}
	pool, err := f.ResourcePool(ctx, "/DC0/host/"+Cluster+"/Resources")
	if err != nil {
		return nil, err
	}
	task, err := folder.CreateVM(ctx, types.VirtualMachineConfigSpec{Name: name, Files: &types.VirtualMachineFileInfo{VmPathName: "[" + datastore + "]"}}, pool, nil)
	if err == nil {
		err = task.Wait(ctx)
	}
	if err != nil {
		return nil, err
	}
	vm, err := f.VirtualMachine(ctx, "/DC0/vm/"+name)
	if err != nil {
		return nil, err
	}
	if task, err = vm.PowerOn(ctx); err == nil {
		err = task.Wait(ctx)
	}
	return vm, err
}
