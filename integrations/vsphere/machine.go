package vsphere

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/task"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// Machine is a virtual machine with files on a datastore.
type Machine struct {
	c    *Center
	ref  types.ManagedObjectReference
	Name string
	// On: it is powered on, and no template.
	On bool

	snapshots []types.VirtualMachineSnapshotTree
}

// ID is its managed object id.
func (m *Machine) ID() string { return m.ref.Value }

// Machine returns the virtual machine of an id, to be asked for; its name is not known.
func (c *Center) Machine(id string) *Machine {
	return &Machine{c: c, ref: types.ManagedObjectReference{Type: "VirtualMachine", Value: id}, Name: id}
}

// Machines asks for the virtual machines of a datastore. One that goes meanwhile is left out.
func (d *Datastore) Machines(ctx context.Context) ([]*Machine, error) {
	var out []*Machine
	for _, id := range d.VMs {
		m := d.c.Machine(id)
		if err := m.Look(ctx); errors.Is(err, ErrNotFound) {
			continue
		} else if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

// Look asks for its name, state and snapshots. ErrNotFound: it is gone.
func (m *Machine) Look(ctx context.Context) error {
	var now mo.VirtualMachine
	if err := m.c.get(ctx, m.ref, []string{"name", "runtime.powerState", "config.template", "snapshot"}, &now); err != nil {
		return explain("look at virtual machine "+m.Name, err)
	}
	m.Name = nameOf(now.Name)
	m.On = now.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn && (now.Config == nil || !now.Config.Template)
	m.snapshots = nil
	if now.Snapshot != nil {
		m.snapshots = now.Snapshot.RootSnapshotList
	}
	return nil
}

// snapshotDepth bounds the chain of snapshots that is walked: a virtual machine has 32.
const snapshotDepth = 64

// found returns the snapshots of a name, as of the newest Look.
func (m *Machine) found(name string) []types.ManagedObjectReference {
	var out []types.ManagedObjectReference
	var walk func(tree []types.VirtualMachineSnapshotTree, depth int)
	walk = func(tree []types.VirtualMachineSnapshotTree, depth int) {
		for _, s := range tree {
			if s.Name == name {
				out = append(out, s.Snapshot)
			}
			if depth < snapshotDepth {
				walk(s.ChildSnapshotList, depth+1)
			}
		}
	}
	walk(m.snapshots, 0)
	return out
}

// Snapshots is how many snapshots of a name it has, as of the newest Look.
func (m *Machine) Snapshots(name string) int { return len(m.found(name)) }

// Busy returns ErrBusy while a task of its vCenter that makes a snapshot of it, for whomever,
// is queued or running. One that is gone is not busy.
func (m *Machine) Busy(ctx context.Context) error {
	what := types.PropertyFilterSpec{
		ObjectSet: []types.ObjectSpec{{Obj: m.ref, SelectSet: []types.BaseSelectionSpec{&types.TraversalSpec{Type: m.ref.Type, Path: "recentTask"}}}},
		PropSet:   []types.PropertySpec{{Type: "Task", PathSet: []string{"info"}}},
	}
	var busy error
	err := m.c.retrieve(ctx, what, func(objects []types.ObjectContent) error {
		for _, o := range objects {
			for _, p := range o.PropSet {
				info, ok := p.Val.(types.TaskInfo)
				if !ok || !snapshotting(info) {
					continue
				}
				busy = fmt.Errorf("virtual machine %s: %w: task %s, which makes a snapshot of it, is %s since %s", m.Name, ErrBusy, nameOf(o.Obj.Value), info.State, info.QueueTime.UTC().Format(time.RFC3339))
			}
		}
		return nil
	})
	if err = explain("look at the tasks of virtual machine "+m.Name, err); errors.Is(err, ErrNotFound) {
		return nil
	}
	return cmp.Or(busy, err)
}

// snapshotting tells whether a task that is not over makes a snapshot.
func snapshotting(i types.TaskInfo) bool {
	over := i.State != types.TaskInfoStateQueued && i.State != types.TaskInfoStateRunning
	return !over && strings.Contains(strings.ToLower(i.Name+" "+i.DescriptionId), "createsnapshot")
}

// Quiesce makes a snapshot of a virtual machine that is on, before which its guest wrote out
// what it holds. ErrRefused: the guest cannot, for want of VMware Tools for example. With
// ErrUnknown it may be there, or be made still: see Busy.
func (m *Machine) Quiesce(ctx context.Context, name, description string) error {
	what := fmt.Sprintf("virtual machine %s: make a quiesced snapshot", m.Name)
	r, err := methods.CreateSnapshot_Task(ctx, m.c.client, &types.CreateSnapshot_Task{This: m.ref, Name: name, Description: description, Quiesce: true})
	if err == nil {
		var failed task.Error
		if err = object.NewTask(m.c.client, r.Returnval).Wait(ctx); err == nil || errors.As(err, &failed) {
			return explain(what, err)
		}
	} else if soap.IsSoapFault(err) {
		return explain(what, err)
	}
	return fmt.Errorf("%w: %w", ErrUnknown, explain(what, err))
}

// Release removes the snapshots of a name, and returns how many there were. What is not there
// is no error, nor a virtual machine that is gone.
func (m *Machine) Release(ctx context.Context, name string) (int, error) {
	if err := m.Look(ctx); errors.Is(err, ErrNotFound) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	what := fmt.Sprintf("virtual machine %s: remove snapshot %s", m.Name, name)
	found := m.found(name)
	for _, ref := range found {
		r, err := methods.RemoveSnapshot_Task(ctx, m.c.client, &types.RemoveSnapshot_Task{This: ref, RemoveChildren: false, Consolidate: new(true)})
		if err == nil {
			err = object.NewTask(m.c.client, r.Returnval).Wait(ctx)
		}
		if err = explain(what, err); err != nil && !errors.Is(err, ErrNotFound) {
			return 0, err
		}
	}
	return len(found), nil
}
