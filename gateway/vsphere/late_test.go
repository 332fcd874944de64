package vsphere

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/integrations/vsphere/esxsim"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/kv"
)

// left is a Manager whose node was killed while it had a virtual machine quiesced.
type left struct {
	*Manager
	t   *testing.T
	clk *clock.Manual
	v   *esxsim.VCenter
	vm  *object.VirtualMachine
	rec model.Datastore
}

// newLeft leaves a job at its last step, which does not know what came of asked snapshots.
func newLeft(t *testing.T, asked int) *left {
	t.Helper()
	v, err := esxsim.Start(esxsim.Options{Hosts: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	db, err := kv.OpenBolt(filepath.Join(t.TempDir(), "kv.db"), kv.BoltOptions{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	clk := clock.NewManual(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	store, err := model.Open(t.Context(), db, clk)
	if err != nil {
		t.Fatal(err)
	}
	seal, err := control.NewSealer(make([]byte, control.SealKeySize))
	if err != nil {
		t.Fatal(err)
	}
	const center = "5b7f4a8e-3f0e-4d52-8c8e-0b8f6a3f1c11"
	secret, err := seal.Seal(center, v.Password())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.CreateCenter(t.Context(), model.Center{ID: center, Name: "dc", Secret: secret, Spec: model.CenterSpec{URL: v.URL(), User: v.User(), Thumbprint: v.Thumbprint()}}); err != nil {
		t.Fatal(err)
	}
	l := &left{t: t, clk: clk, v: v, vm: createVM(t, v)}
	l.rec, err = store.CreateDatastore(t.Context(), model.Datastore{
		ID: "9d1c6a52-7f0b-4f0a-9a53-2e1f7a0d4c22", Name: "gold", Center: center, State: model.StatePresent, Node: "n1",
		Job: &model.DatastoreJob{
			Kind: model.JobQuiesce, Step: stepRelease, Name: "evening", Started: clk.Now(), Failed: "it was not made",
			Machines: []model.SnapshotMachine{{ID: l.vm.Reference().Value, Name: "db", Asked: asked}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	l.Manager = New(Options{Model: store, Sealer: seal, Node: "n1", Clock: clk})
	t.Cleanup(l.Stop)
	l.Start()
	return l
}

// createVM makes a virtual machine on the host's own datastore.
func createVM(t *testing.T, v *esxsim.VCenter) *object.VirtualMachine {
	t.Helper()
	f := finder(t, v)
	folder, err := f.Folder(t.Context(), "/DC0/vm")
	if err != nil {
		t.Fatal(err)
	}
	rp, err := f.ResourcePool(t.Context(), "/DC0/host/DC0_C0/Resources")
	if err != nil {
		t.Fatal(err)
	}
	task, err := folder.CreateVM(t.Context(), types.VirtualMachineConfigSpec{Name: "db", Files: &types.VirtualMachineFileInfo{VmPathName: "[LocalDS_0]"}}, rp, nil)
	if err == nil {
		err = task.Wait(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	vm, err := f.VirtualMachine(t.Context(), "/DC0/vm/db")
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

// finder signs in as another administrator.
func finder(t *testing.T, v *esxsim.VCenter) *find.Finder {
	t.Helper()
	c, err := v.Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return find.NewFinder(c.Client)
}

// job is the datastore's; nil: it has none.
func (l *left) job() *model.DatastoreJob {
	l.t.Helper()
	d, ok := l.model.FindDatastore(l.rec.ID)
	if !ok {
		l.t.Fatal("the datastore is gone")
	}
	return d.Job
}

// patience bounds waiting in tests.
const patience = 3 * time.Minute

func (l *left) until(what string, ok func() error) {
	l.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			l.t.Fatalf("not %s: %v", what, err)
		}
	}
}

// looked waits until the job waits for its next try, or is done.
func (l *left) looked(words string) {
	l.t.Helper()
	l.until("looked, and "+words, func() error {
		j := l.job()
		if j == nil || l.clk.Waiting() > 0 && strings.Contains(j.Error, words) {
			return nil
		}
		return fmt.Errorf("its job is %+v", *j)
	})
}

// ends has time pass until the job is done, and returns how much.
func (l *left) ends() time.Duration {
	l.t.Helper()
	begun := l.clk.Now()
	l.until("done", func() error {
		j := l.job()
		if j == nil {
			return nil
		}
		if l.clk.Waiting() > 0 {
			l.clk.Advance(retryMax)
		}
		return fmt.Errorf("its job is %+v", *j)
	})
	return l.clk.Now().Sub(begun)
}

// snapshots are those that the virtual machine has.
func (l *left) snapshots() int {
	l.t.Helper()
	vm, err := finder(l.t, l.v).VirtualMachine(l.t.Context(), "/DC0/vm/db")
	if err != nil {
		l.t.Fatal(err)
	}
	var now mo.VirtualMachine
	if err := vm.Properties(l.t.Context(), vm.Reference(), []string{"snapshot"}, &now); err != nil {
		l.t.Fatal(err)
	}
	if now.Snapshot == nil {
		return 0
	}
	return len(now.Snapshot.RootSnapshotList)
}

// comes makes a snapshot of the job's name, as a host does that was asked long ago.
func (l *left) comes() {
	l.t.Helper()
	vm, err := finder(l.t, l.v).VirtualMachine(l.t.Context(), "/DC0/vm/db")
	if err != nil {
		l.t.Fatal(err)
	}
	s := &step{job: *l.rec.Job}
	task, err := vm.CreateSnapshot(l.t.Context(), s.machineSnapshot(), "", false, true)
	if err == nil {
		err = task.Wait(l.t.Context())
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

// TestLookedFor: a snapshot of which no task tells is looked for some minutes, counted anew
// when the vCenter was away, and removed when it comes.
func TestLookedFor(t *testing.T) {
	const doubt = "virtual machine db: the vCenter has not told"
	t.Run("it comes", func(t *testing.T) {
		l := newLeft(t, 1)
		l.looked(doubt)
		l.comes()
		l.ends()
		if n := l.snapshots(); n != 0 {
			t.Errorf("%d snapshots are left", n)
		}
	})
	t.Run("one of two comes", func(t *testing.T) {
		l := newLeft(t, 2)
		l.looked(doubt)
		l.comes()
		if passed := l.ends(); passed < lookAgain {
			t.Errorf("the other one is looked for %v, not %v", passed, lookAgain)
		}
		if n := l.snapshots(); n != 0 {
			t.Errorf("%d snapshots are left", n)
		}
	})
	t.Run("none comes", func(t *testing.T) {
		l := newLeft(t, 1)
		l.looked(doubt)
		if passed := l.ends(); passed < lookAgain {
			t.Errorf("it is looked for %v, not %v", passed, lookAgain)
		}
		d, _ := l.model.FindDatastore(l.rec.ID)
		if len(d.Snapshots) != 1 || d.Snapshots[0].Failed == "" || d.Snapshots[0].Machines[0].Asked != 0 {
			t.Errorf("it went %+v", d.Snapshots)
		}
	})
	t.Run("the vCenter is away", func(t *testing.T) {
		l := newLeft(t, 1)
		l.looked(doubt)
		quiet := l.job().Quiet
		l.v.Stop()
		l.until("away", func() error {
			if j := l.job(); j == nil || j.Tries == 0 {
				if l.clk.Waiting() > 0 {
					l.clk.Advance(time.Second)
				}
				return fmt.Errorf("its job is %+v", j)
			}
			return nil
		})
		if err := l.v.Resume(); err != nil {
			t.Fatal(err)
		}
		l.until("back", func() error {
			j := l.job()
			if j != nil && j.Quiet.After(quiet) {
				return nil
			}
			if l.clk.Waiting() > 0 {
				l.clk.Advance(time.Second)
			}
			return fmt.Errorf("its job is %+v", j)
		})
		l.comes()
		l.ends()
		if n := l.snapshots(); n != 0 {
			t.Errorf("%d snapshots are left", n)
		}
	})
	t.Run("nobody asked", func(t *testing.T) {
		l := newLeft(t, 0)
		if passed := l.ends(); passed != 0 {
			t.Errorf("it is looked for %v", passed)
		}
	})
}
