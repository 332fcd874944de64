package vsphere

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/openvstorage/ovgate/integrations/vsphere"
	"github.com/openvstorage/ovgate/integrations/vsphere/esxsim"
	"github.com/openvstorage/ovgate/internal/client"
)

// TestAwayInJobs: in the middle of each kind of job the vCenter restarts, sessions expire, a
// host is away for a while, and ovgate is killed where TestKilled does not. The job goes on
// by itself to the same end.
func TestAwayInJobs(t *testing.T) {
	l := start(t, esxsim.Options{Hosts: 2})
	var mu sync.Mutex
	var hit chan struct{}
	// at has something happen at the first call of a method, before it is carried out.
	at := func(method string, fn func(esxsim.Call)) (hits func()) {
		mu.Lock()
		defer mu.Unlock()
		done := make(chan struct{})
		hit = done
		l.v.Before(func(c esxsim.Call) types.BaseMethodFault {
			mu.Lock()
			mine := c.Method == method && hit == done
			if mine {
				hit = nil
			}
			mu.Unlock()
			if mine {
				fn(c)
				close(done)
			}
			return nil
		})
		return func() {
			t.Helper()
			l.until(method+" asked for", func() error {
				select {
				case <-done:
					return nil
				default:
					return errors.New("not yet")
				}
			})
			l.v.Before(nil)
		}
	}
	var back sync.WaitGroup
	expire := func(esxsim.Call) { l.v.ExpireSessions() }
	restart := func(esxsim.Call) {
		back.Go(func() {
			l.v.Stop()
			if err := l.v.Resume(); err != nil {
				t.Error(err)
			}
		})
	}
	name, size := "gold", int64(2*gib)
	l.create(name)
	l.settled(name)
	expand := func() error {
		size += gib
		return client.Done(l.api.ExpandDatastore(t.Context(), name, client.ExpandInput{Size: size}))
	}
	rename := func() error {
		to := name + "x"
		err := client.Done(l.api.RenameDatastore(t.Context(), name, client.RenameInput{Name: to}))
		name = to
		return err
	}
	attach := func() error { return client.Done(l.api.AttachDatastore(t.Context(), name)) }
	for _, c := range []struct {
		what   string
		job    func() error
		method string
		fn     func(esxsim.Call)
	}{
		{"sessions expire in an expansion", expand, "RescanHba", expire},
		{"sessions expire in an expansion", expand, "ExpandVmfsDatastore", expire},
		{"the vCenter restarts in an expansion", expand, "ExpandVmfsDatastore", restart},
		{"sessions expire in a rename", rename, "Rename_Task", expire},
		{"the vCenter restarts in a rename", rename, "Rename_Task", restart},
		{"sessions expire in an attachment", attach, "RescanVmfs", expire},
		{"the vCenter restarts in an attachment", attach, "RescanVmfs", restart},
	} {
		t.Log(c.what, "at", c.method)
		hits := at(c.method, c.fn)
		if err := c.job(); err != nil {
			t.Fatalf("%s at %s: %v", c.what, c.method, err)
		}
		hits()
		l.until(name+" there", func() error { _, err := l.get(name); return err })
		back.Wait()
		if d := l.settled(name); d.State != "present" || d.Size != size {
			t.Errorf("%s at %s: it is %+v", c.what, c.method, d)
		}
	}
	// A host goes away in the middle of an expansion, and one is in maintenance mode.
	hits := at("ExpandVmfsDatastore", func(esxsim.Call) { l.v.SetDown(l.v.Host(1), true) })
	if err := expand(); err != nil {
		t.Fatal(err)
	}
	hits()
	l.failing(name, "DC0_C0_H1", "bring the host back")
	l.v.SetDown(l.v.Host(1), false)
	l.settled(name)
	l.v.SetMaintenance(l.v.Host(0), true)
	if err := expand(); err != nil {
		t.Fatal(err)
	}
	if d := l.settled(name); d.Size != size {
		t.Errorf("with a host in maintenance mode it grew to %+v", d)
	}

	k := l.killAt("RescanHba")
	l.asked(attach())
	l.restarted(k, "RescanVmfs")
	l.settled(name)
	for _, h := range l.live(name).Hosts {
		if !h.Accessible || h.Policy != "VMW_PSP_RR" {
			t.Errorf("on %s it is %+v", h.Host, h)
		}
	}
	l.v.SetMaintenance(l.v.Host(0), false)

	for i, fn := range []func(esxsim.Call){expire, restart} {
		clone := fmt.Sprint("copy", i)
		if err := client.Done(l.api.CloneVDisk(t.Context(), "gold", nil, client.CloneInput{Name: clone})); err != nil {
			t.Fatal(err)
		}
		hits := at("ResignatureUnresolvedVmfsVolume_Task", fn)
		if err := client.Done(l.api.ImportDatastore(t.Context(), "dc", nil, client.ImportDatastoreInput{Name: clone, Cluster: new(esxsim.Cluster), VDisk: clone})); err != nil {
			t.Fatal(err)
		}
		hits()
		back.Wait()
		if d := l.settled(clone); d.State != "present" {
			t.Errorf("imported it is %+v", d)
		}
	}
	for i, c := range []struct {
		method string
		fn     func(esxsim.Call)
	}{{"RemoveDatastore", expire}, {"DetachScsiLun", restart}} {
		clone := fmt.Sprint("copy", i)
		hits := at(c.method, c.fn)
		if err := l.remove(clone); err != nil {
			t.Fatal(err)
		}
		hits()
		back.Wait()
		l.gone(clone)
	}
	hits = at("DeleteScsiLunState", restart)
	if err := l.remove(name); err != nil {
		t.Fatal(err)
	}
	hits()
	back.Wait()
	l.gone(name)
}

// TestOthers: what other administrators do at the same time, at the vCenter and through
// ovgate, is not undone and not taken for ovgate's own.
func TestOthers(t *testing.T) {
	l := start(t, esxsim.Options{Hosts: 2})
	l.create("gold")
	l.settled("gold")

	// The name is taken between the question and the rename: another name ends that.
	c, err := l.v.Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	host, err := find.NewFinder(c.Client).HostSystem(t.Context(), "/DC0/host/DC0_C0/DC0_C0_H1")
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := host.ConfigManager().DatastoreSystem(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	dir := t.TempDir()
	l.v.Before(func(call esxsim.Call) types.BaseMethodFault {
		if call.Method == "Rename_Task" {
			once.Do(func() {
				if _, err := theirs.CreateLocalDatastore(t.Context(), "taken", dir); err != nil {
					t.Error(err)
				}
			})
		}
		return nil
	})
	if err := client.Done(l.api.RenameDatastore(t.Context(), "gold", client.RenameInput{Name: "taken"})); err != nil {
		t.Fatal(err)
	}
	l.failing("gold", "exists already", "another name")
	l.v.Before(nil)
	refused(t, client.Done(l.api.ExpandDatastore(t.Context(), "gold", client.ExpandInput{Size: 3 * gib})), "in_use", "rename")
	if err := client.Done(l.api.RenameDatastore(t.Context(), "gold", client.RenameInput{Name: "silver"})); err != nil {
		t.Fatal(err)
	}
	l.until("renamed", func() error { _, err := l.get("silver"); return err })
	l.settled("silver")
	finder := find.NewFinder(c.Client)
	if _, err := finder.Datastore(t.Context(), "/DC0/datastore/taken"); err != nil {
		t.Errorf("theirs: %v", err)
	}

	// Somebody formats the LUN by hand before ovgate does: that is told, not taken.
	by, err := vsphere.Connect(t.Context(), vsphere.Options{URL: l.v.URL(), User: l.v.User(), Secret: l.v.Password(), Thumbprint: l.v.Thumbprint()})
	if err != nil {
		t.Fatal(err)
	}
	defer by.Close()
	hosts, err := by.Hosts(t.Context(), esxsim.Cluster)
	if err != nil {
		t.Fatal(err)
	}
	var byHand atomic.Bool // not a Once: the call below comes here, too
	l.v.Before(func(call esxsim.Call) types.BaseMethodFault {
		if r, ok := call.Body.(*types.CreateVmfsDatastore); ok && byHand.CompareAndSwap(false, true) {
			if err := hosts[1].CreateDatastore(t.Context(), r.Spec.Vmfs.Extent.DiskName, "stranger"); err != nil {
				t.Error(err)
			}
		}
		return nil
	})
	l.create("tin")
	l.failing("tin", "has datastore stranger", "by hand", "make it anew")
	l.v.Before(nil)
	d, err := l.get("tin")
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := by.FindDatastore(t.Context(), d.Naa)
	if err != nil || stranger.Name != "stranger" {
		t.Fatalf("theirs is %+v %v", stranger, err)
	}
	// With the name it is ovgate's.
	if err := stranger.Rename(t.Context(), "tin"); err != nil {
		t.Fatal(err)
	}
	if d := l.settled("tin"); d.State != "present" || d.Volume != stranger.UUID {
		t.Errorf("it is %+v, theirs was %+v", d, stranger)
	}

	// Two administrators of ovgate: one of several expansions at once is done.
	l.v.SetDown(l.v.Host(1), true) // holds it up until all have asked
	var wg sync.WaitGroup
	errs, want := make([]error, 4), int64(0)
	for i := range errs {
		wg.Go(func() {
			errs[i] = client.Done(l.api.ExpandDatastore(t.Context(), "silver", client.ExpandInput{Size: int64(3+i) * gib}))
		})
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			refused(t, err, "in_use", "expand")
			continue
		}
		if want != 0 {
			t.Errorf("of 4 requests at once more than one is done: %v", errs)
		}
		want = int64(3+i) * gib
	}
	l.v.SetDown(l.v.Host(1), false)
	if d := l.settled("silver"); d.Size != want {
		t.Errorf("grown to %d it is %+v", want, d)
	}
	if err := l.remove("silver"); err != nil {
		t.Fatal(err)
	}
	if err := l.remove("tin"); err != nil {
		t.Fatal(err)
	}
	l.gone("silver")
	l.gone("tin")
	if list, err := finder.DatastoreList(t.Context(), "*"); err != nil || !strings.Contains(fmt.Sprint(list), "taken") {
		t.Errorf("after ovgate's are gone there are %v %v", list, err)
	}
}
