package main

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/openvstorage/ovgate/integrations/vsphere/esxsim"
	"github.com/openvstorage/ovgate/internal/client"
)

// late is a vCenter that answers one call late, and counts calls.
type late struct {
	mu      sync.Mutex
	match   func(esxsim.Call) bool // the call that is answered late; nil: none
	caught  any                    // the request that it was
	begun   chan struct{}
	release chan struct{}
	calls   map[string]int
}

func (l *late) before(c esxsim.Call) types.BaseMethodFault {
	l.mu.Lock()
	l.calls[c.Method]++
	mine := l.match != nil && l.match(c)
	if mine {
		l.match, l.caught = nil, c.Body
	}
	l.mu.Unlock()
	if mine && properties(c) == nil { // else its answer is late: see answering
		l.answering(c)
	}
	return nil
}

// answering holds the answer to the call that was caught.
func (l *late) answering(c esxsim.Call) {
	l.mu.Lock()
	mine := l.caught != nil && l.caught == c.Body
	begun, release := l.begun, l.release
	l.mu.Unlock()
	if mine {
		close(begun)
		<-release
	}
}

// arm has the next call that matches answered when the release is called. match is told each
// call, one after the other.
func (l *late) arm(match func(esxsim.Call) bool) (begun chan struct{}, release func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.match, l.begun, l.release = match, make(chan struct{}), make(chan struct{})
	return l.begun, sync.OnceFunc(func() { close(l.release) })
}

func (l *late) count(method string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.calls[method]
}

// method matches the calls of a method.
func method(name string) func(esxsim.Call) bool {
	return func(c esxsim.Call) bool { return c.Method == name }
}

// lookAfter matches the calls that ask for a property after a method was called often enough.
func lookAfter(method string, times int, property string) func(esxsim.Call) bool {
	seen := 0
	return func(c esxsim.Call) bool {
		if c.Method == method {
			seen++
		}
		return seen >= times && slices.Contains(properties(c), property)
	}
}

// properties are those that a call asks for; nil: it does something else.
func properties(c esxsim.Call) (all []string) {
	var specs []types.PropertyFilterSpec
	switch r := c.Body.(type) {
	case *types.RetrieveProperties:
		specs = r.SpecSet
	case *types.RetrievePropertiesEx:
		specs = r.SpecSet
	}
	for _, s := range specs {
		for _, p := range s.PropSet {
			all = append(all, p.PathSet...)
		}
	}
	return all
}

// list is what the node itself knows of datastores of a name; false: it does not answer.
func (m *member) list(name string) ([]client.Datastore, bool) {
	api, err := m.api()
	if err != nil {
		return nil, false
	}
	l, err := client.Get[client.DatastoreList](api.ListDatastores(m.t.Context(), &client.ListDatastoresParams{Q: &name}))
	return l.Items, err == nil
}

// idle waits until it knows a datastore that is present and has no job, and has ended what it
// began at one.
func (m *member) idle(name string, ok func(client.Datastore) bool) {
	m.t.Helper()
	m.until("done with "+name, func() bool {
		l, answers := m.list(name)
		return answers && len(l) == 1 && l[0].Job == nil && l[0].State == "present" && ok(l[0])
	})
}

// gaveUp is how often it stopped with a step that another node has: it knew that, or its
// vCenter took too long.
func (m *member) gaveUp() int {
	b, err := os.ReadFile(m.log.Name())
	if err != nil {
		m.t.Fatal(err)
	}
	return bytes.Count(b, []byte("a step of a datastore's job stops")) + bytes.Count(b, []byte("a datastore's job is tried again"))
}

// pausing is a pair of nodes with a vCenter, for jobs whose node stands still.
type pausing struct {
	*late
	t   *testing.T
	v   *esxsim.VCenter
	off atomic.Value // the portal that is not reached
}

// pause has owner begin a job on gold, and stand still (SIGSTOP) while the vCenter is slow to
// answer the call that match tells. back has it go on, and returns when it gave the step up.
func (p *pausing) pause(owner *member, match func(esxsim.Call) bool, ask ...string) (back func()) {
	p.t.Helper()
	begun, release := p.arm(match)
	p.t.Cleanup(release)
	owner.do("", ask...)
	owner.until("at work", func() bool {
		select {
		case <-begun:
			return true
		default:
			return false
		}
	})
	owner.until("mirrored", func() bool { return owner.disk(p.t.Context(), "gold").Dtl.State == "ok" })
	before := owner.gaveUp()
	p.off.Store(owner.portal())
	owner.signal(syscall.SIGSTOP)
	p.v.DropSessions()
	return func() {
		p.t.Helper()
		release()
		owner.signal(syscall.SIGCONT)
		p.off.Store("")
		owner.until("aware of it", func() bool { return owner.gaveUp() > before })
	}
}

// times wants a method to have been called so often.
func (p *pausing) times(when, method string, want int) {
	p.t.Helper()
	if n := p.count(method); n != want {
		p.t.Fatalf("%s, %s is called %d times, want %d", when, method, n, want)
	}
}

// TestClusterDatastorePaused: the process that does a job of a datastore stands still while its
// vCenter is slow to answer, right before a call that does harm when it is made twice; another
// node takes the job over and ends it. When the first one goes on, and has its answer, it finds
// out that the job is not its any more, and does not make the call: no LUN is formatted twice,
// no snapshot of a virtual machine is left or removed that is another's, no datastore destroyed
// that was made since. Hosts that write meanwhile go on, see no false miscompare, and are never
// told that a LUN is gone that only moves.
func TestClusterDatastorePaused(t *testing.T) {
	const hosts = 3
	alpha, beta := newPair(t, func(endpoint string) string { return endpoint })
	watch := &esxsim.Watcher{}
	p := &pausing{late: &late{calls: map[string]int{}}, t: t}
	p.off.Store("")
	var err error
	p.v, err = esxsim.Start(esxsim.Options{Hosts: hosts, Between: watch.Between, Reach: func(_, portal string) bool { return portal != p.off.Load() }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.v.Close)
	p.v.Before(p.before)
	p.v.Answering(p.answering)
	any := func(client.Datastore) bool { return true }
	alpha.do(p.v.Password()+"\n", "vsphere", "center", "add", "dc", "--address", p.v.URL(), "--user", p.v.User(), "--thumbprint", p.v.Thumbprint(), "--secret-stdin")
	create := []string{"vsphere", "datastore", "create", "gold", "--center", "dc", "--cluster", esxsim.Cluster, "--vpool", "gold", "--size", "2GiB"}

	const format = "CreateVmfsDatastore"
	back := p.pause(alpha, method("QueryVmfsDatastoreCreateOptions"), append(create, "--no-wait")...)
	beta.idle("gold", any)
	p.times("taken over", format, 1)
	back()
	alpha.idle("gold", any)
	p.times("back", format, 1)

	// Before the removal of the snapshot of a virtual machine, which is looked for first. All
	// hosts write, and contend for a lock through both nodes.
	load := p.v.NewLoad("gold", hosts, []string{alpha.portal(), beta.portal()})
	load.Start(t.Context())
	writing := func(when string, m *member) {
		t.Helper()
		since := load.Mark()
		m.until("followed by all virtual machines", func() bool {
			select {
			case <-load.Failed():
				t.Fatalf("%s: %v", when, load.Stop())
			default:
			}
			return load.Silent(since.Add(time.Nanosecond)) == nil
		})
	}
	writing("before", beta)
	vm, err := p.v.Powered(t.Context(), "db", "gold")
	if err != nil {
		t.Fatal(err)
	}
	const remove = "RemoveSnapshot_Task"
	back = p.pause(beta, lookAfter("CreateSnapshot_Task", 1, "snapshot"), "vsphere", "datastore", "snapshot", "gold", "evening", "--require", "--no-wait")
	made := func(d client.Datastore) bool { return len(d.Snapshots) == 1 && d.Snapshots[0].Consistent }
	alpha.idle("gold", made)
	writing("taken over", alpha)
	p.times("taken over", remove, 1)
	task, err := vm.CreateSnapshot(t.Context(), "mine", "of an administrator", false, false)
	if err == nil {
		err = task.Wait(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	back()
	beta.idle("gold", made)
	writing("back", alpha)
	if err := errors.Join(load.Stop(), load.Verify(), watch.Lost()); err != nil {
		t.Fatal(err)
	}
	if n := load.Totals(); n.Won == 0 || n.Writes == 0 {
		t.Errorf("the hosts did %+v", n)
	}
	p.times("back", remove, 1)
	var now mo.VirtualMachine
	if err := vm.Properties(t.Context(), vm.Reference(), []string{"snapshot"}, &now); err != nil || now.Snapshot == nil || len(now.Snapshot.RootSnapshotList) != 1 || now.Snapshot.RootSnapshotList[0].Name != "mine" || len(now.Snapshot.RootSnapshotList[0].ChildSnapshotList) != 0 {
		t.Errorf("the virtual machine has the snapshots %+v %v", now.Snapshot, err)
	}
	if task, err = vm.PowerOff(t.Context()); err == nil {
		err = task.Wait(t.Context())
	}
	if err == nil {
		if task, err = vm.Destroy(t.Context()); err == nil {
			err = task.Wait(t.Context())
		}
	}
	if err != nil {
		t.Fatal(err)
	}

	// Before the destruction of the datastore, which is looked at when all hosts have looked.
	const destroy = "RemoveDatastore"
	data, got := bytes.Repeat([]byte{7}, 4096), make([]byte, 4096)
	back = p.pause(alpha, lookAfter("RescanVmfs", hosts, "summary.capacity"), "vsphere", "datastore", "remove", "gold", "-y", "--no-wait")
	beta.until("rid of gold", func() bool { l, answers := beta.list("gold"); return answers && len(l) == 0 })
	p.times("taken over", destroy, 1)
	beta.do("", create...)
	if err := p.v.Host(0).WriteAt("gold", data, 0); err != nil {
		t.Fatal(err)
	}
	back()
	alpha.idle("gold", any)
	p.times("back", destroy, 1)
	if err := p.v.Host(1).ReadAt("gold", got, 0); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the new datastore is read as %d…: %v", got[:4], err)
	}
	beta.do("", "vsphere", "datastore", "remove", "gold", "-y")
}

// portal is where it listens for hosts.
func (m *member) portal() string {
	m.t.Helper()
	api, err := m.api()
	if err != nil {
		m.t.Fatal(err)
	}
	l, err := client.Get[client.PortalList](api.ListPortals(m.t.Context()))
	if err != nil || len(l.Items) == 0 {
		m.t.Fatal(l, err)
	}
	return l.Items[0].Address
}
