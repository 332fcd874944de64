package vsphere

import (
	"context"
	"errors"
	"fmt"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
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

// Quiesce makes a snapshot of a virtual machine that is on, before which its guest wrote out
// what it holds. It is no error when there is one of that name. ErrRefused: the guest cannot,
// for want of VMware Tools for example.
func (m *Machine) Quiesce(ctx context.Context, name, description string) error {
	if len(m.found(name)) > 0 {
		return nil
	}
	what := fmt.Sprintf("virtual machine %s: make a quiesced snapshot", m.Name)
	r, err := methods.CreateSnapshot_Task(ctx, m.c.client, &types.CreateSnapshot_Task{This: m.ref, Name: name, Description: description, Quiesce: true})
	if err != nil {
		return explain(what, err)
	}
	return explain(what, object.NewTask(m.c.client, r.Returnval).Wait(ctx))
}

// Release removes the snapshots of a name. What is not there is no error, nor a virtual
// machine that is gone.
func (m *Machine) Release(ctx context.Context, name string) error {
	if err := m.Look(ctx); errors.Is(err, ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	what := fmt.Sprintf("virtual machine %s: remove snapshot %s", m.Name, name)
	for _, ref := range m.found(name) {
		r, err := methods.RemoveSnapshot_Task(ctx, m.c.client, &types.RemoveSnapshot_Task{This: ref, RemoveChildren: false, Consolidate: new(true)})
		if err == nil {
			err = object.NewTask(m.c.client, r.Returnval).Wait(ctx)
		}
		if err = explain(what, err); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	return nil
}
