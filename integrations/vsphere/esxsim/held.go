package esxsim

import (
	"fmt"
	"slices"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// Held is a task that makes a snapshot of a virtual machine. It runs until End, whoever waits
// for it.
type Held struct {
	// Begun is closed when the vCenter was asked for the snapshot.
	Begun chan struct{}

	f    *fabric
	self types.ManagedObjectReference // what is asked in place of the virtual machine
	vm   *simulator.VirtualMachine
	what *types.CreateSnapshot_Task
	task *simulator.Task
}

// HoldSnapshot holds the next snapshot that is asked of a virtual machine.
func (v *VCenter) HoldSnapshot(vm string) *Held {
	v.f.hmu.Lock()
	defer v.f.hmu.Unlock()
	v.f.helds++
	h := &Held{Begun: make(chan struct{}), f: v.f, self: types.ManagedObjectReference{Type: "HeldSnapshot", Value: fmt.Sprintf("held-%d", v.f.helds)}}
	v.f.held[vm] = h
	return h
}

// Spread has a virtual machine have a disk on another datastore too. The simulator keeps the
// datastore of its configuration only.
func (v *VCenter) Spread(vm, datastore string) error {
	f := v.f
	ref, ok := f.nameTaken(datastore)
	if !ok {
		return fmt.Errorf("there is no datastore %s", datastore)
	}
	for _, e := range f.reg.All("VirtualMachine") {
		m, ok := e.(*simulator.VirtualMachine)
		if !ok || m.Name != vm {
			continue
		}
		ctx := f.context()
		ctx.WithLock(m, func() { ctx.Map.AddReference(ctx, m, &m.Datastore, ref) })
		ds, ok := f.reg.Get(ref).(*simulator.Datastore)
		if !ok {
			return fmt.Errorf("datastore %s is none of the simulator", datastore)
		}
		ctx.WithLock(ds, func() { ctx.Map.AddReference(ctx, ds, &ds.Vm, m.Self) })
		return nil
	}
	return fmt.Errorf("there is no virtual machine %s", vm)
}

// hold has a call go to the test's Held, if that waits for it. The virtual machine is not
// locked then.
func (f *fabric) hold(m *simulator.Method) {
	r, ok := m.Body.(*types.CreateSnapshot_Task)
	if !ok {
		return
	}
	vm, ok := f.reg.Get(m.This).(*simulator.VirtualMachine)
	if !ok {
		return
	}
	f.hmu.Lock()
	h := f.held[vm.Name]
	delete(f.held, vm.Name)
	f.hmu.Unlock()
	if h != nil {
		what := *r
		h.vm, h.what = vm, &what
		f.reg.Put(h)
		m.This = h.self
	}
}

// Reference implements mo.Reference.
func (h *Held) Reference() types.ManagedObjectReference { return h.self }

// CreateSnapshotTask implements the method of the API.
func (h *Held) CreateSnapshotTask(ctx *simulator.Context, _ *types.CreateSnapshot_Task) soap.HasFault {
	self, vm, now := types.ManagedObjectReference{Type: "Task", Value: "task-" + h.self.Value}, h.vm.Self, time.Now()
	h.task = &simulator.Task{}
	h.task.Self = self
	h.task.Info = types.TaskInfo{
		Key: self.Value, Task: self, Name: "CreateSnapshot_Task", DescriptionId: "VirtualMachine.createSnapshot", Entity: &vm, EntityName: h.vm.Name,
		State: types.TaskInfoStateRunning, QueueTime: now, StartTime: &now, Reason: &types.TaskReasonUser{UserName: "ovgate"},
	}
	ctx.WithLock(h.vm, func() { h.f.reg.Put(h.task) })
	close(h.Begun)
	return &methods.CreateSnapshot_TaskBody{Res: &types.CreateSnapshot_TaskResponse{Returnval: self}}
}

// End makes the snapshot, and ends the task, after Begun.
func (h *Held) End() error {
	ctx := h.f.context()
	var res soap.HasFault
	ctx.WithLock(h.vm, func() { res = h.vm.CreateSnapshotTask(ctx, h.what) })
	body, ok := res.(*methods.CreateSnapshot_TaskBody)
	if !ok || body.Res == nil {
		return fmt.Errorf("virtual machine %s has no snapshot: %v", h.vm.Name, res.Fault())
	}
	made, ok := h.f.reg.Get(body.Res.Returnval).(*simulator.Task)
	if !ok {
		return fmt.Errorf("virtual machine %s has no task", h.vm.Name)
	}
	made.Wait()
	if h.f.reg.Get(h.task.Self) == nil {
		return nil
	}
	ctx = h.f.context()
	ctx.Map.AtomicUpdate(ctx, h.task, []types.PropertyChange{
		{Name: "info.completeTime", Val: time.Now()}, {Name: "info.state", Val: types.TaskInfoStateSuccess},
	})
	return nil
}

// Forget has the vCenter forget the task, as one that restarts. The host goes on with it.
func (h *Held) Forget() {
	ctx := h.f.context()
	ctx.WithLock(h.vm, func() {
		left := slices.DeleteFunc(slices.Clone(h.vm.RecentTask), func(r types.ManagedObjectReference) bool { return r == h.task.Self })
		ctx.Map.Update(ctx, h.vm, []types.PropertyChange{{Name: "recentTask", Val: left}})
	})
	h.f.reg.Remove(ctx, h.task.Self)
}
