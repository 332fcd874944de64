package vsphere

import (
	"bytes"
	"sync"
	"testing"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/openvstorage/ovgate/integrations/vsphere/esxsim"
	"github.com/openvstorage/ovgate/internal/client"
)

// TestLifeCycle: from a registered vCenter to a datastore on three hosts, with data; grown,
// renamed, and removed without a trace.
func TestLifeCycle(t *testing.T) {
	l := start(t, esxsim.Options{Hosts: 3})
	plan, err := client.Get[client.DatastoreResult](l.api.CreateDatastore(t.Context(), nil, client.DatastoreInput{Name: "gold", Center: "dc", Cluster: new(esxsim.Cluster), VPool: pool, Size: 2 * gib, DryRun: new(true)}))
	if err != nil || !plan.DryRun {
		t.Fatal(plan, err)
	}
	count := map[string]int{}
	for _, a := range plan.Actions {
		count[a.Action]++
	}
	if count["enable"] != 3 || count["format"] != 1 || count["mount"] != 3 || l.v.Logins() != 0 {
		t.Errorf("the plan is %+v, with %d logins", count, l.v.Logins())
	}
	if _, err := l.get("gold"); status(err) != 404 {
		t.Errorf("a dry run leaves %v", err)
	}

	l.create("gold")
	d := l.settled("gold")
	if d.State != "present" || d.Volume == "" || d.Naa == "" {
		t.Fatalf("the datastore is %+v", d)
	}
	x := l.live("gold")
	if len(x.Hosts) != 3 || x.Capacity < 2*gib-64<<20 || x.Capacity > 2*gib {
		t.Errorf("it is %+v", x)
	}
	for _, h := range x.Hosts {
		if !h.Mounted || !h.Accessible || h.Policy != "VMW_PSP_RR" || len(h.Paths) == 0 || h.Paths[0].State != "active" {
			t.Errorf("on %s it is %+v", h.Host, h)
		}
	}

	// What one host wrote another reads, over the node's end and start.
	data, got := bytes.Repeat([]byte("ovgate!!"), 512), make([]byte, 4096)
	if err := l.v.Host(0).WriteAt("gold", data, 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := l.node.Stop(); err != nil {
		t.Fatal(err)
	}
	l.startNode()
	if err := l.v.Host(2).ReadAt("gold", got, 1<<20); err != nil || !bytes.Equal(got, data) {
		t.Errorf("after the node's end: %v", err)
	}

	if _, err := client.Get[client.Datastore](l.api.ExpandDatastore(t.Context(), "gold", client.ExpandInput{Size: 3 * gib})); err != nil {
		t.Fatal(err)
	}
	if d = l.settled("gold"); d.Size != 3*gib {
		t.Errorf("grown it is %+v", d)
	}
	if x = l.live("gold"); x.Capacity < 3*gib-64<<20 {
		t.Errorf("grown it has %d bytes", x.Capacity)
	}
	_, err = client.Get[client.Datastore](l.api.ExpandDatastore(t.Context(), "gold", client.ExpandInput{Size: 2 * gib}))
	refused(t, err, "shrink", "does not shrink")
	// Its LUN is not taken away from below it.
	refused(t, client.Done(l.api.UnpublishVDisk(t.Context(), d.VDisk, client.UnpublishInput{Force: new(true)})), "in_use", "datastore gold")
	refused(t, client.Done(l.api.DeleteVDisk(t.Context(), d.VDisk, nil)), "in_use", "datastore gold")

	if _, err := client.Get[client.Datastore](l.api.RenameDatastore(t.Context(), "gold", client.RenameInput{Name: "silver"})); err != nil {
		t.Fatal(err)
	}
	l.until("renamed", func() error { _, err := l.get("silver"); return err })
	l.settled("silver")
	if err := l.v.Host(1).ReadAt("silver", got, 1<<20); err != nil || !bytes.Equal(got, data) {
		t.Errorf("after the rename: %v", err)
	}

	refused(t, client.Done(l.api.DeleteCenter(t.Context(), "dc")), "in_use", "datastores")
	var mu sync.Mutex
	var calls []string
	l.v.Before(func(c esxsim.Call) types.BaseMethodFault {
		mu.Lock()
		defer mu.Unlock()
		switch c.Method {
		case "RemoveDatastore", "DetachScsiLun", "DeleteScsiLunState":
			calls = append(calls, c.Method)
		}
		return nil
	})
	if err := l.remove("silver"); err != nil {
		t.Fatal(err)
	}
	l.gone("silver")
	l.v.Before(nil)
	want := []string{"RemoveDatastore", "DetachScsiLun", "DetachScsiLun", "DetachScsiLun", "DeleteScsiLunState", "DeleteScsiLunState", "DeleteScsiLunState"}
	if len(calls) != len(want) {
		t.Fatalf("a removal calls %v", calls)
	}
	for i := range want {
		if calls[i] != want[i] {
			t.Errorf("a removal calls %v", calls)
		}
	}
	if err := l.remove("silver"); err != nil {
		t.Errorf("a repetition: %v", err)
	}
	if err := client.Done(l.api.GetVDisk(t.Context(), "gold")); status(err) != 404 {
		t.Errorf("the vDisk: %v", err)
	}
	if err := client.Done(l.api.DeleteCenter(t.Context(), "dc")); err != nil {
		t.Error(err)
	}
}

// TestImport: a clone of a datastore's vDisk becomes a datastore of its own, with the data,
// beside the original; what is no copy does not.
func TestImport(t *testing.T) {
	l := start(t, esxsim.Options{Hosts: 2})
	l.create("gold")
	l.settled("gold")
	data, got := bytes.Repeat([]byte("ovgate!!"), 512), make([]byte, 4096)
	if err := l.v.Host(0).WriteAt("gold", data, 0); err != nil {
		t.Fatal(err)
	}
	clone, err := client.Get[client.VDisk](l.api.CloneVDisk(t.Context(), "gold", nil, client.CloneInput{Name: "copy"}))
	if err != nil {
		t.Fatal(err)
	}
	ask := func(name, vdisk string) error {
		_, err := client.Get[client.Datastore](l.api.ImportDatastore(t.Context(), "dc", nil, client.ImportDatastoreInput{Name: name, Cluster: new(esxsim.Cluster), VDisk: vdisk}))
		return err
	}
	refused(t, ask("x", "gold"), "in_use", "published")
	refused(t, ask("x", "nothing"), "not_found")
	refused(t, ask("gold", "copy"), "exists")
	k := l.killAt("ResignatureUnresolvedVmfsVolume_Task")
	l.asked(ask("silver", clone.ID))
	l.restarted(k, "Rename_Task", "RescanVmfs", "SetMultipathLunPolicy", "SetField")
	d := l.settled("silver")
	if d.State != "present" || d.Volume == "" || d.Volume == l.settled("gold").Volume {
		t.Errorf("imported it is %+v", d)
	}
	for _, h := range l.live("silver").Hosts {
		if !h.Accessible || h.Policy != "VMW_PSP_RR" {
			t.Errorf("on %s it is %+v", h.Host, h)
		}
	}
	// The copy is what it was when it was made, and neither sees what the other is given.
	if err := l.v.Host(1).WriteAt("gold", make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}
	if err := l.v.Host(1).ReadAt("silver", got, 0); err != nil || !bytes.Equal(got, data) {
		t.Errorf("imported: %v", err)
	}
	if err := l.remove("silver"); err != nil {
		t.Fatal(err)
	}
	l.gone("silver")
	if x := l.live("gold"); !x.Hosts[0].Accessible {
		t.Errorf("the original is %+v", x.Hosts)
	}

	if err := client.Done(l.api.CreateVDisk(t.Context(), nil, client.VDiskInput{Name: "empty", VPool: pool, Size: 2 * gib})); err != nil {
		t.Fatal(err)
	}
	l.asked(ask("tin", "empty"))
	l.failing("tin", "no VMFS volume", "--keep-vdisk")
	if err := l.remove("tin"); err != nil {
		t.Fatal(err)
	}
	l.gone("tin")
}
