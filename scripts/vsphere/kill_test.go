package vsphere

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/openvstorage/ovgate/integrations/vsphere/esxsim"
	"github.com/openvstorage/ovgate/internal/client"
)

// killAt has the node killed in the moment in which a host is asked for a method for the
// first time: before it is carried out, or with after, when it was and the answer is lost.
type killAt struct {
	mu     sync.Mutex
	method string
	done   chan struct{}
	hit    bool
}

func (l *lab) killAt(method string) *killAt {
	k := &killAt{method: method, done: make(chan struct{})}
	l.v.Before(func(c esxsim.Call) types.BaseMethodFault {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.hit || c.Method != k.method {
			return nil
		}
		k.hit = true
		// The call goes on when the node is gone, so that its answer is lost.
		if err := l.node.Kill(); err != nil {
			l.t.Error(err)
		}
		close(k.done)
		return nil
	})
	return k
}

// restarted waits for the kill and starts the node again; it is killed again at each of more.
func (l *lab) restarted(k *killAt, more ...string) {
	l.t.Helper()
	l.until("killed at "+k.method, func() error {
		select {
		case <-k.done:
			return nil
		default:
			return errors.New("not asked for yet")
		}
	})
	l.v.Before(nil)
	if len(more) > 0 {
		k = l.killAt(more[0])
	}
	l.startNode()
	if len(more) > 0 {
		l.restarted(k, more[1:]...)
	}
}

// asked takes the lost answer to a request for none: what it asked for may be stored.
func (l *lab) asked(err error) {
	l.t.Helper()
	var away *client.UnreachableError
	if err != nil && !errors.As(err, &away) {
		l.t.Fatal(err)
	}
}

// TestKilled: ovgate is killed at each thing that it asks of a host or vCenter in each job.
// What was asked for was carried out and its answer lost. The job goes on with the next
// start, to the same end, and nothing is made twice.
func TestKilled(t *testing.T) {
	l := start(t, esxsim.Options{Hosts: 3})
	data, got := bytes.Repeat([]byte{7}, 4096), make([]byte, 4096)
	for i, methods := range [][]string{
		{"UpdateSoftwareInternetScsiEnabled", "AddInternetScsiSendTargets", "UpdateInternetScsiAdvancedOptions", "RescanHba", "AddCustomFieldDef"},
		{"QueryAvailableDisksForVmfs", "CreateVmfsDatastore", "RescanVmfs", "SetMultipathLunPolicy", "SetField"},
	} {
		name, method := fmt.Sprintf("made%d", i), strings.Join(methods, ", ")
		k := l.killAt(methods[0])
		_, err := client.Get[client.DatastoreResult](l.api.CreateDatastore(t.Context(), nil, client.DatastoreInput{Name: name, Center: "dc", Cluster: new(esxsim.Cluster), VPool: pool, Size: 2 * gib}))
		l.asked(err)
		l.restarted(k, methods[1:]...)
		if d := l.settled(name); d.State != "present" {
			t.Errorf("killed at %s it is %+v", method, d)
		}
		for _, h := range l.live(name).Hosts {
			if !h.Accessible || h.Policy != "VMW_PSP_RR" {
				t.Errorf("killed at %s it is on %s %+v", method, h.Host, h)
			}
		}
		l.used("written to", func() error { return l.v.Host(i%3).WriteAt(name, data, 0) })
	}
	methods := []string{"RescanHba", "QueryVmfsDatastoreExpandOptions", "ExpandVmfsDatastore", "RescanVmfs"}
	k := l.killAt(methods[0])
	_, err := client.Get[client.Datastore](l.api.ExpandDatastore(t.Context(), "made0", client.ExpandInput{Size: 3 * gib}))
	l.asked(err)
	l.restarted(k, methods[1:]...)
	if d := l.settled("made0"); d.Size != 3*gib {
		t.Errorf("killed at %v it is %+v", methods, d)
	}
	if x := l.live("made0"); x.Capacity < 3*gib-64<<20 {
		t.Errorf("killed at %v it has %d bytes", methods, x.Capacity)
	}
	l.used("read after it grew", func() error { return l.v.Host(1).ReadAt("made0", got, 0) })
	if !bytes.Equal(got, data) {
		t.Errorf("killed at %v: other data are read", methods)
	}
	k = l.killAt("Rename_Task")
	_, err = client.Get[client.Datastore](l.api.RenameDatastore(t.Context(), "made1", client.RenameInput{Name: "renamed"}))
	l.asked(err)
	l.restarted(k)
	l.until("renamed", func() error { _, err := l.get("renamed"); return err })
	l.settled("renamed")
	methods = []string{"RemoveDatastore", "RescanVmfs", "DetachScsiLun", "DeleteScsiLunState"}
	k = l.killAt(methods[0])
	l.asked(l.remove("made0"))
	l.restarted(k, methods[1:]...)
	l.gone("made0")
	if err := client.Done(l.api.GetVDisk(t.Context(), "made0")); status(err) != 404 {
		t.Errorf("killed at %v the vDisk: %v", methods, err)
	}
	l.used("the other datastore", func() error { return l.v.Host(0).ReadAt("renamed", got, 0) })
	if !bytes.Equal(got, data) {
		t.Error("the other datastore has other data")
	}
}

// used waits until a host does something with a datastore. One that looked for volumes while
// its session was coming back has to look once more.
func (l *lab) used(what string, do func() error) {
	l.t.Helper()
	l.until(what, func() error {
		err := do()
		if err == nil {
			return nil
		}
		_, again := client.Get[client.HostPlan](l.api.PrepareCenterHosts(l.t.Context(), "dc", client.PrepareInput{Cluster: new(esxsim.Cluster)}))
		return errors.Join(err, again)
	})
}

// TestVCenterAway: the vCenter restarts, sessions expire and calls fail in the middle of
// each job, which goes on by itself.
func TestVCenterAway(t *testing.T) {
	l := start(t, esxsim.Options{Hosts: 2})
	var mu sync.Mutex
	hit := false
	// once has something happen at the first call of a method.
	once := func(method string, fn func() types.BaseMethodFault) {
		mu.Lock()
		hit = false
		mu.Unlock()
		l.v.Before(func(c esxsim.Call) types.BaseMethodFault {
			mu.Lock()
			defer mu.Unlock()
			if hit || c.Method != method {
				return nil
			}
			hit = true
			return fn()
		})
	}
	expire := func() types.BaseMethodFault { l.v.ExpireSessions(); return nil }
	refuse := func() types.BaseMethodFault { return &types.HostConfigFault{} }
	for i, c := range []struct {
		method string
		what   func() types.BaseMethodFault
	}{{"AddInternetScsiSendTargets", refuse}, {"RescanHba", expire}, {"CreateVmfsDatastore", refuse}, {"RescanVmfs", expire}, {"SetMultipathLunPolicy", refuse}} {
		name := fmt.Sprintf("made%d", i)
		once(c.method, c.what)
		l.create(name)
		if d := l.settled(name); d.State != "present" {
			t.Errorf("%s: it is %+v", c.method, d)
		}
		mu.Lock()
		if !hit {
			t.Errorf("%s was not asked for", c.method)
		}
		mu.Unlock()
	}
	stopped := make(chan struct{})
	once("RescanHba", func() types.BaseMethodFault {
		go func() {
			l.v.Stop()
			close(stopped)
		}()
		return nil
	})
	l.create("late")
	<-stopped
	l.failing("late", "no answer")
	// A job that waits does not hold an orderly stop up, and goes on after it.
	if err := l.node.Stop(); err != nil {
		t.Fatal(err)
	}
	l.startNode()
	l.failing("late", "no answer")
	if err := l.v.Resume(); err != nil {
		t.Fatal(err)
	}
	l.settled("late")
	once("RemoveDatastore", refuse)
	if err := l.remove("late"); err != nil {
		t.Fatal(err)
	}
	l.gone("late")
}

// TestMistakes: what goes wrong below a host stops a job with words that name host and
// cause, and is left when it is mended.
func TestMistakes(t *testing.T) {
	l := start(t, esxsim.Options{Hosts: 2})
	// Somebody gives a host another secret.
	var mu sync.Mutex
	rescans := map[string]int{}
	l.v.Before(func(c esxsim.Call) types.BaseMethodFault {
		if c.Method == "RescanHba" {
			mu.Lock()
			rescans[c.Host]++
			mu.Unlock()
		}
		if r, ok := c.Body.(*types.AddInternetScsiSendTargets); ok && c.Host == "DC0_C0_H1" {
			for i := range r.Targets {
				r.Targets[i].AuthenticationProperties.ChapSecret = "not-what-it-should-be"
			}
		}
		return nil
	})
	l.create("gold")
	l.failing("gold", "DC0_C0_H1", "CHAP", "host prepare")
	if d, err := l.get("gold"); err != nil || d.Volume != "" {
		t.Errorf("a LUN that one host does not see is formatted: %+v %v", d, err)
	}
	// The host that sees the LUN is left alone while that is tried again.
	l.until("tried again", func() error {
		mu.Lock()
		defer mu.Unlock()
		if rescans["DC0_C0_H1"] < 4 {
			return fmt.Errorf("rescans: %v", rescans)
		}
		return nil
	})
	mu.Lock()
	if rescans["DC0_C0_H0"] >= rescans["DC0_C0_H1"] {
		t.Errorf("rescans: %v", rescans)
	}
	mu.Unlock()
	l.v.Before(nil)
	p, err := client.Get[client.HostPlan](l.api.PrepareCenterHosts(t.Context(), "dc", client.PrepareInput{Cluster: new(esxsim.Cluster)}))
	if err != nil || len(p.Actions) == 0 {
		t.Fatal(p, err)
	}
	l.settled("gold")

	// Somebody takes the name at the vCenter between the plan and the format: the job tells,
	// and a removal replaces it.
	l.v.Before(func(c esxsim.Call) types.BaseMethodFault {
		if c.Method == "CreateVmfsDatastore" {
			return &types.DuplicateName{Name: "tin"}
		}
		return nil
	})
	l.create("tin")
	l.failing("tin", "exists already", "another name")
	if err := l.remove("tin"); err != nil {
		t.Fatal(err)
	}
	l.gone("tin")
	l.v.Before(nil)

	// A name that is taken, and several administrators at once: one gets it.
	_, first := client.Get[client.DatastoreResult](l.api.CreateDatastore(t.Context(), nil, client.DatastoreInput{Name: "gold", Center: "dc", Cluster: new(esxsim.Cluster), VPool: pool, Size: 2 * gib}))
	refused(t, first, "exists")
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = client.Get[client.DatastoreResult](l.api.CreateDatastore(t.Context(), nil, client.DatastoreInput{Name: "both", Center: "dc", Cluster: new(esxsim.Cluster), VPool: pool, Size: 2 * gib}))
		})
	}
	wg.Wait()
	made := 0
	for _, err := range errs {
		if err == nil {
			made++
			continue
		}
		refused(t, err, "exists")
	}
	if made != 1 {
		t.Errorf("of 4 requests at once %d made one: %v", made, errs)
	}
	l.settled("both")
}
