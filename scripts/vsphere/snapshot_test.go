package vsphere

import (
	"strings"
	"testing"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/openvstorage/ovgate/integrations/vsphere/esxsim"
	"github.com/openvstorage/ovgate/internal/client"
)

// snapshots are those that the virtual machines have at the vCenter, by name of the machine.
func (l *lab) snapshots(names ...string) map[string]int {
	l.t.Helper()
	out := map[string]int{}
	for _, name := range names {
		_, vm := l.admin(name)
		var now mo.VirtualMachine
		if err := vm.Properties(l.t.Context(), vm.Reference(), []string{"snapshot"}, &now); err != nil {
			l.t.Fatal(err)
		}
		if now.Snapshot != nil {
			out[name] = len(now.Snapshot.RootSnapshotList)
		}
	}
	return out
}

// snapshot asks for a snapshot, waits until its job is done, and returns how it went.
func (l *lab) snapshot(name string, require bool) client.DatastoreSnapshot {
	l.t.Helper()
	if _, err := client.Get[client.Datastore](l.api.SnapshotDatastore(l.t.Context(), "gold", client.DatastoreSnapshotInput{Name: name, Require: new(require)})); err != nil {
		l.t.Fatal(err)
	}
	return l.went(name)
}

// went waits for the end of a job, and returns how the snapshot went.
func (l *lab) went(name string) client.DatastoreSnapshot {
	l.t.Helper()
	d := l.settled("gold")
	if len(d.Snapshots) == 0 || d.Snapshots[len(d.Snapshots)-1].Name != name {
		l.t.Fatalf("the newest snapshot is not %s: %+v", name, d.Snapshots)
	}
	return d.Snapshots[len(d.Snapshots)-1]
}

// has returns the snapshot of gold's vDisk; nil: there is none.
func (l *lab) has(name string) *client.Snapshot {
	l.t.Helper()
	return l.on("gold", name)
}

// on returns the snapshot of a vDisk; nil: there is none.
func (l *lab) on(vdisk, name string) *client.Snapshot {
	l.t.Helper()
	list, err := client.Get[client.SnapshotList](l.api.ListSnapshots(l.t.Context(), vdisk, nil))
	if err != nil {
		l.t.Fatal(err)
	}
	for _, s := range list.Items {
		if s.Name == name {
			return &s
		}
	}
	return nil
}

// TestQuiesced: the guests of virtual machines write out what they hold before a datastore's
// snapshot is made, each is told of, and nothing is left at the vCenter, whatever happens
// between.
func TestQuiesced(t *testing.T) {
	l := start(t, esxsim.Options{Hosts: 2})
	l.create("gold")
	l.settled("gold")
	for _, name := range []string{"web", "db", "off"} {
		l.createVM(name, "gold")
		if name != "off" {
			_, vm := l.admin(name)
			l.done(vm.PowerOn(t.Context()))
		}
	}
	all := []string{"web", "db", "off"}
	clean := func(when string) {
		t.Helper()
		if left := l.snapshots(all...); len(left) != 0 {
			t.Errorf("%s: snapshots are left: %v", when, left)
		}
	}
	_, db := l.admin("db")

	// While the vDisk's is made, those that are on have one each.
	var during map[string]int
	l.v.Before(func(c esxsim.Call) types.BaseMethodFault {
		if r, ok := c.Body.(*types.CreateSnapshot_Task); ok && (!r.Quiesce || r.Memory) {
			t.Errorf("it is asked for %+v", r)
		}
		if c.Method == "RemoveSnapshot_Task" && during == nil {
			during = map[string]int{}
			if l.has("good") == nil {
				t.Error("virtual machines are let go before the snapshot is made")
			}
		}
		return nil
	})
	if s := l.snapshot("good", true); !s.Consistent || s.Failed != "" || len(s.Machines) != 3 {
		t.Errorf("it went %+v", s)
	}
	if during == nil {
		t.Error("no virtual machine was quiesced")
	}
	if s := l.has("good"); s == nil || !s.Consistent {
		t.Errorf("the vDisk's snapshot is %+v", s)
	}
	clean("after a good one")
	_, err := client.Get[client.Datastore](l.api.SnapshotDatastore(t.Context(), "gold", client.DatastoreSnapshotInput{Name: "good"}))
	refused(t, err, "exists", "another name")
	_, err = client.Get[client.Datastore](l.api.SnapshotDatastore(t.Context(), "none", client.DatastoreSnapshotInput{Name: "good"}))
	refused(t, err, "not_found")
	_, err = client.Get[client.Datastore](l.api.SnapshotDatastore(t.Context(), "gold", client.DatastoreSnapshotInput{Name: "a\nb"}))
	refused(t, err, "invalid", "control characters")

	// A guest that cannot is told of, or there is no snapshot.
	l.v.Before(func(c esxsim.Call) types.BaseMethodFault {
		if r, ok := c.Body.(*types.CreateSnapshot_Task); ok && r.This == db.Reference() {
			return &types.ApplicationQuiesceFault{}
		}
		return nil
	})
	s := l.snapshot("partly", false)
	if s.Consistent || s.Failed != "" {
		t.Errorf("with a guest that cannot it went %+v", s)
	}
	for _, m := range s.Machines {
		if m.Quiesced == (m.Name == "db") || m.Quiesced == strings.Contains(m.Error, "virtual machine db") {
			t.Errorf("%s is %+v", m.Name, m)
		}
	}
	if s := l.has("partly"); s == nil || s.Consistent {
		t.Errorf("the vDisk's snapshot is %+v", s)
	}
	clean("after one of some")
	if s := l.snapshot("all", true); s.Consistent || !strings.Contains(s.Failed, "virtual machine db") || l.has("all") != nil {
		t.Errorf("it went %+v, the vDisk has %+v", s, l.has("all"))
	}
	clean("after one that is required")

	// The node is killed at each thing that it asks of the vCenter, which carries it out. With
	// two virtual machines on, what it was about to ask of the other one would be looked for
	// for minutes.
	_, web := l.admin("web")
	l.done(web.PowerOff(t.Context()))
	k := l.killAt("CreateSnapshot_Task")
	_, err = client.Get[client.Datastore](l.api.SnapshotDatastore(t.Context(), "gold", client.DatastoreSnapshotInput{Name: "killed", Require: new(true)}))
	l.asked(err)
	l.restarted(k, "RemoveSnapshot_Task")
	if s := l.went("killed"); !s.Consistent || s.Failed != "" || l.has("killed") == nil {
		t.Errorf("killed it went %+v, the vDisk has %+v", s, l.has("killed"))
	}
	clean("after it was killed")
	l.done(web.PowerOn(t.Context()))

	// The vCenter goes away before virtual machines are let go: they are when it is back.
	stopped := make(chan struct{})
	l.v.Before(func(c esxsim.Call) types.BaseMethodFault {
		if c.Method != "RemoveSnapshot_Task" {
			return nil
		}
		select {
		case <-stopped:
			return nil
		default:
			close(stopped)
			return &types.HostConfigFault{}
		}
	})
	if _, err := client.Get[client.Datastore](l.api.SnapshotDatastore(t.Context(), "gold", client.DatastoreSnapshotInput{Name: "away"})); err != nil {
		t.Fatal(err)
	}
	<-stopped
	l.v.Stop()
	l.failing("gold", "vCenter")
	if l.has("away") == nil {
		t.Error("the vDisk's snapshot is not there although virtual machines were quiesced")
	}
	l.v.Before(nil)
	if err := l.v.Resume(); err != nil {
		t.Fatal(err)
	}
	if s := l.went("away"); !s.Consistent {
		t.Errorf("with a vCenter that was away it went %+v", s)
	}
	clean("after the vCenter was away")

	// A virtual machine that is gone meanwhile holds nothing up.
	l.v.Before(func(c esxsim.Call) types.BaseMethodFault {
		if r, ok := c.Body.(*types.RemoveSnapshot_Task); ok && r != nil {
			return &types.ManagedObjectNotFound{}
		}
		return nil
	})
	if s := l.snapshot("gone", false); s.Failed != "" {
		t.Errorf("it went %+v", s)
	}
	l.v.Before(nil)
	if left := l.snapshots(all...); len(left) != 2 {
		t.Errorf("what the vCenter said is gone was asked for again: %v", left)
	}
	if d, err := l.get("gold"); err != nil || len(d.Snapshots) != 4 {
		t.Errorf("kept are %+v %v", d.Snapshots, err)
	}
}
