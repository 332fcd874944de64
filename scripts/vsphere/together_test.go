package vsphere

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/openvstorage/ovgate/integrations/vsphere/esxsim"
	"github.com/openvstorage/ovgate/internal/client"
)

// TestTogether: several datastores have a snapshot at one moment, all or none, for which a
// virtual machine with disks on several is quiesced once; also when the node is killed in
// the middle.
func TestTogether(t *testing.T) {
	l := start(t, esxsim.Options{Hosts: 2})
	for _, name := range []string{"gold", "tin", "lead"} {
		l.create(name)
	}
	for _, name := range []string{"gold", "tin", "lead"} {
		l.settled(name)
	}
	l.createVM("web", "gold")
	_, web := l.admin("web")
	if err := l.v.Spread("web", "tin"); err != nil {
		t.Fatal(err)
	}
	l.done(web.PowerOn(t.Context()))
	l.until("web on tin, too", func() error {
		vms, err := l.vms("tin")
		if err == nil && len(vms.Items) != 1 {
			err = fmt.Errorf("on tin there are %+v", vms.Items)
		}
		return err
	})
	l.createVM("db", "lead")
	_, db := l.admin("db")
	l.done(db.PowerOn(t.Context()))

	var mu sync.Mutex
	asked := map[string]int{}
	l.v.Before(func(c esxsim.Call) types.BaseMethodFault {
		mu.Lock()
		defer mu.Unlock()
		if c.Method == "CreateSnapshot_Task" {
			asked[c.Object.Value]++
		}
		return nil
	})
	ask := func(name string, with ...string) error {
		_, err := client.Get[client.Datastore](l.api.SnapshotDatastore(t.Context(), "gold", client.DatastoreSnapshotInput{Name: name, Require: new(true), With: &with}))
		return err
	}
	all := []string{"gold", "tin", "lead"}
	good := func(name string) {
		t.Helper()
		if s := l.went(name); !s.Consistent || s.Failed != "" || len(s.Machines) != 2 || strings.Join(s.Group, " ") != "gold tin lead" {
			t.Errorf("%s went %+v", name, s)
		}
		id := ""
		for _, d := range all {
			s := l.on(d, name)
			if s == nil || !s.Consistent || id != "" && s.ID != id {
				t.Errorf("%s has %+v, want that of %s", d, s, id)
				continue
			}
			id = s.ID
			got, err := l.get(d)
			if err != nil || len(got.Snapshots) == 0 || got.Snapshots[len(got.Snapshots)-1].Name != name {
				t.Errorf("%s tells of %+v %v", d, got.Snapshots, err)
			}
		}
		if left := l.snapshots("web", "db"); len(left) != 0 {
			t.Errorf("%s leaves %v", name, left)
		}
	}
	if err := ask("evening", "tin", "lead"); err != nil {
		t.Fatal(err)
	}
	good("evening")
	mu.Lock()
	for _, vm := range []string{web.Reference().Value, db.Reference().Value} {
		if asked[vm] != 1 {
			t.Errorf("%s was asked %d times", vm, asked[vm])
		}
	}
	mu.Unlock()
	refused(t, ask("evening", "lead"), "exists", "another name")
	refused(t, ask("other", "none"), "not_found", "datastore list")
	refused(t, ask("other", "tin", "tin"), "invalid", "twice")
	refused(t, ask("other", "gold"), "invalid", "twice")

	// One has a snapshot of the name by the time: none is made.
	var once sync.Once
	l.v.Before(func(c esxsim.Call) types.BaseMethodFault {
		if c.Method == "CreateSnapshot_Task" {
			once.Do(func() {
				if err := client.Done(l.api.CreateSnapshot(t.Context(), "lead", nil, client.SnapshotInput{Name: "taken"})); err != nil {
					t.Error(err)
				}
			})
		}
		return nil
	})
	if err := ask("taken", "lead"); err != nil {
		t.Fatal(err)
	}
	if s := l.went("taken"); !strings.Contains(s.Failed, "snapshot of this name") || l.has("taken") != nil {
		t.Errorf("it went %+v, gold has %+v", s, l.has("taken"))
	}

	// The snapshot is made and the node killed before it can store that.
	k := l.killAt("RemoveSnapshot_Task")
	l.asked(ask("killed", "tin", "lead"))
	l.restarted(k)
	good("killed")
	out, err := l.node.CLI(t.Context(), "vsphere", "datastore", "snapshot", "tin", "night", "--with", "lead,gold")
	if err != nil || !strings.Contains(string(out), "of tin, lead, gold") {
		t.Errorf("by the CLI: %v: %s", err, out)
	}
}
