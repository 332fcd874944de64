package main

import (
	"bytes"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/openvstorage/ovgate/integrations/vsphere/esxsim"
	"github.com/openvstorage/ovgate/internal/client"
)

// late is a vCenter that answers one call late, and counts calls.
type late struct {
	mu      sync.Mutex
	method  string // that is answered late; empty: none
	begun   chan struct{}
	release chan struct{}
	calls   map[string]int
}

func (l *late) before(c esxsim.Call) types.BaseMethodFault {
	l.mu.Lock()
	l.calls[c.Method]++
	mine := c.Method == l.method
	begun, release := l.begun, l.release
	if mine {
		l.method = ""
	}
	l.mu.Unlock()
	if mine {
		close(begun)
		<-release
	}
	return nil
}

// arm has the next call of a method answered when the release is called.
func (l *late) arm(method string) (begun chan struct{}, release func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.method, l.begun, l.release = method, make(chan struct{}), make(chan struct{})
	return l.begun, sync.OnceFunc(func() { close(l.release) })
}

func (l *late) count(method string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.calls[method]
}

// datastore is what the node itself knows of one; false: nothing.
func (m *member) datastore(name string) (client.Datastore, bool) {
	api, err := m.api()
	if err != nil {
		return client.Datastore{}, false
	}
	l, err := client.Get[client.DatastoreList](api.ListDatastores(m.t.Context(), &client.ListDatastoresParams{Q: &name}))
	if err != nil || len(l.Items) != 1 {
		return client.Datastore{}, false
	}
	return l.Items[0], true
}

func (m *member) logged(text string) bool {
	b, err := os.ReadFile(m.log.Name())
	return err == nil && bytes.Contains(b, []byte(text))
}

// TestClusterDatastorePaused: the process that makes a datastore stands still (SIGSTOP) while
// its vCenter is slow to answer, right before the call that formats the LUN; another node takes
// the job over and ends it. When the first one goes on, and has its answer, it finds out that
// the job is not its any more: the LUN is not formatted twice.
func TestClusterDatastorePaused(t *testing.T) {
	alpha, beta := newPair(t, func(endpoint string) string { return endpoint })
	l := &late{calls: map[string]int{}}
	var off atomic.Value // the portal that is not reached
	off.Store("")
	v, err := esxsim.Start(esxsim.Options{Hosts: 2, Reach: func(_, portal string) bool { return portal != off.Load() }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	v.Before(l.before)
	alpha.do(v.Password()+"\n", "vsphere", "center", "add", "dc", "--address", v.URL(), "--user", v.User(), "--thumbprint", v.Thumbprint(), "--secret-stdin")
	begun, release := l.arm("QueryVmfsDatastoreCreateOptions")
	t.Cleanup(release)
	alpha.do("", "vsphere", "datastore", "create", "gold", "--center", "dc", "--cluster", esxsim.Cluster, "--vpool", "gold", "--size", "2GiB", "--no-wait")
	alpha.until("at work", func() bool {
		select {
		case <-begun:
			return true
		default:
			return false
		}
	})
	alpha.until("mirrored", func() bool { return alpha.disk(t.Context(), "gold").Dtl.State == "ok" })
	off.Store(alpha.portal())
	alpha.signal(syscall.SIGSTOP)
	v.DropSessions()
	made := func(m *member) bool {
		d, ok := m.datastore("gold")
		return ok && d.Job == nil && d.State == "present"
	}
	const format = "CreateVmfsDatastore"
	beta.until("done", func() bool { return made(beta) })
	if n := l.count(format); n != 1 {
		t.Fatalf("taken over, %s is called %d times", format, n)
	}
	release()
	alpha.signal(syscall.SIGCONT)
	off.Store("")
	alpha.until("aware of it", func() bool { return alpha.logged("a step of a datastore's job stops") })
	alpha.until("in step", func() bool { return made(alpha) })
	if n := l.count(format); n != 1 {
		t.Fatalf("back, %s is called %d times", format, n)
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
