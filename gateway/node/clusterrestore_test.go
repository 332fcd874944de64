package node

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/openvstorage/ovgate/gateway/clustertest"
	"github.com/openvstorage/ovgate/internal/kv"
	"github.com/openvstorage/ovgate/internal/kv/etcd/etcdtest"
	"github.com/openvstorage/ovgate/iscsi/initiator"
	"github.com/openvstorage/ovgate/volumedriver/backend/backendtest"
)

// lostCluster is a cluster whose nodes stop, whose etcd is lost, and whose metadata come from a backup.
type lostCluster struct {
	*members
	ids      []string
	sessions map[string]*initiator.Session
	conf     string // of the first node, for the restore
}

func (l *lostCluster) at(vdisk string) *initiator.Session {
	l.t.Helper()
	if l.sessions[vdisk] == nil {
		told := ""
		l.t.Cleanup(func() {
			if l.sessions[vdisk] == nil && l.t.Failed() {
				l.t.Log(vdisk, "is", told)
			}
		})
		l.all()[0].until(vdisk+" is served", func() bool {
			s, err := l.dial(l.t.Context(), vdisk)
			if l.sessions[vdisk] = s; err != nil {
				_, b := l.all()[0].try("GET", "/vdisks/"+vdisk, nil)
				told = string(b)
			}
			return err == nil
		})
	}
	return l.sessions[vdisk]
}

// write writes blocks of 64 KiB.
func (l *lostCluster) write(vdisk string, from, n, seed uint64) {
	l.t.Helper()
	for i := from; i < from+n; i++ {
		if err := l.at(vdisk).WriteAt(l.t.Context(), 0, backendtest.Data(seed+i, 65536), i*128); err != nil {
			l.t.Fatal(err)
		}
	}
}

// holds checks blocks.
func (l *lostCluster) holds(vdisk string, from, n, seed uint64) {
	l.t.Helper()
	got := make([]byte, 65536)
	for i := from; i < from+n; i++ {
		if err := l.at(vdisk).ReadAt(l.t.Context(), 0, got, i*128); err != nil || !bytes.Equal(got, backendtest.Data(seed+i, 65536)) {
			l.t.Fatalf("block %d of %s is not what was written last: %v", i, vdisk, err)
		}
	}
}

// stopAll stops the nodes in order, the first one last. What a node served others take over before the next
// one stops: a takeover that is cut off is another test.
func (l *lostCluster) stopAll(vdisks ...string) {
	l.t.Helper()
	for _, s := range l.sessions {
		s.Close()
	}
	l.sessions = map[string]*initiator.Session{}
	for i, n := range slices.Backward(l.nodes) {
		served := slices.DeleteFunc(slices.Clone(vdisks), func(v string) bool { return n.diskState(v) != "running" })
		l.set(i, nil)
		if err := n.stop(); err != nil {
			l.t.Fatal(err)
		}
		for _, v := range served {
			if i > 0 {
				l.all()[0].untilAny(l.members, v+" is taken over", func(n *running) bool { return n.diskState(v) == "running" })
			}
		}
	}
}

// loseEtcd has an empty etcd in the place of that of the cluster.
func (l *lostCluster) loseEtcd() {
	l.t.Helper()
	l.etcd = etcdtest.Serve(l.t)
	for i := range l.wires {
		l.wires[i] = clustertest.NewWire(l.t, l.etcd.Endpoint())
	}
	l.conf = l.members.conf(0)
}

// startAll starts the nodes, which are the members that they were.
func (l *lostCluster) startAll() {
	l.t.Helper()
	var hears []string
	for i := range l.dirs {
		n := l.members.start(i)
		hears = append(hears, l.name(i)+" alive up")
		if id, _ := n.node(); id != l.ids[i] {
			l.t.Errorf("node %s was %s", id, l.ids[i])
		}
	}
	for _, n := range l.nodes {
		n.until("all are members", n.hears(hears...))
	}
}

// TestClusterRestored: a cluster of three nodes loses its etcd, and its metadata come from a backup that is
// older than what was written since. All nodes are members again; each vDisk has its newest state; what
// was made since is an orphan, and is brought back; nothing is deleted before all was compared.
func TestClusterRestored(t *testing.T) {
	if testing.Short() {
		t.Skip("step by step: nothing for the race detector")
	}
	t.Parallel()
	type m = map[string]any
	l := &lostCluster{members: newMirrored(t, 3), sessions: map[string]*initiator.Session{}}
	one, two, three := l.nodes[0], l.nodes[1], l.nodes[2]
	for _, n := range l.nodes {
		id, _ := n.node()
		l.ids = append(l.ids, id)
	}
	one.call("PATCH", "/vpools/gold", m{"settings": m{"trashMs": 0}}, 200)
	one.disk("a", "gold", 1<<30)
	two.disk("b", "gold", 1<<30)
	three.disk("gone", "gold", 1<<30)
	l.write("a", 0, 10, 1000)
	l.write("b", 0, 10, 2000)
	one.call("POST", "/vdisks/a/commit", nil, 200)
	file := two.backup()

	l.write("a", 5, 10, 3000)
	one.call("POST", "/vdisks/a/commit", nil, 200) // the backend has a newer head
	l.write("b", 5, 10, 4000)                      // maybe in its journals alone
	three.call("DELETE", "/vdisks/gone", nil, 204)
	three.disk("made", "gold", 1<<30)
	l.write("made", 0, 3, 5000)
	l.stopAll("a", "b", "made")
	l.loseEtcd()

	// Without the restore no node makes a cluster of its own of it.
	for i := range l.dirs {
		if err := refused(t, l.dirs[i], l.members.conf(i)); err == nil || !strings.Contains(err.Error(), "ovgate metadata restore") {
			t.Errorf("%s on an empty etcd: %v", l.name(i), err)
		}
	}
	got, err := RestoreMetadata(t.Context(), RestoreOptions{File: file, Data: l.dirs[0], Config: l.conf})
	if err != nil || got.VPools != 1 || got.Kept != "" {
		t.Fatalf("%+v, %v", got, err)
	}
	l.startAll()
	one = l.nodes[0]
	l.holds("a", 0, 5, 1000)
	l.holds("a", 5, 10, 3000)
	l.holds("b", 0, 5, 2000)
	l.holds("b", 5, 10, 4000)
	l.write("b", 20, 3, 6000)
	one.until("compared", func() bool { return one.restored()["deletesOff"] == false })
	d := one.restored()
	if !slices.Equal(namesOf(d["missing"]), []string{"gone"}) || !slices.Equal(namesOf(d["orphans"]), []string{"made"}) || len(d["unclear"].([]any)) > 0 {
		t.Errorf("compared: %v", d)
	}
	one.call("POST", "/vpools/recover", m{"name": "gold", "backend": m{"kind": "s3", "store": "store", "path": "gold"}}, 200)
	one.until("made is back", func() bool { st := one.diskState("made"); return st != "" })
	l.holds("made", 0, 3, 5000)
	l.holds("b", 20, 3, 6000)
}

// TestClusterRestoredAlba: the same with an object store of the nodes' devices, whose records etcd had: the
// restore brings back what there is of devices and namespaces, nothing is deleted from devices, and their
// manifests come back with a recovery.
func TestClusterRestoredAlba(t *testing.T) {
	if testing.Short() {
		t.Skip("step by step: nothing for the race detector")
	}
	t.Parallel()
	type m = map[string]any
	c := &members{t: t, etcd: etcdtest.Serve(t), opt: Options{probe: probe}, more: "alba: {listen: \"127.0.0.1:0\"}\n"}
	l := &lostCluster{members: c, sessions: map[string]*initiator.Session{}}
	for range 2 {
		n := c.add()
		id, _ := n.node()
		l.ids = append(l.ids, id)
		for _, name := range []string{"1", "2"} {
			n.call("POST", "/osds", m{"directory": filepath.Join(t.TempDir(), "asd"+name), "capacity": 1 << 30}, 201)
		}
	}
	work := func() {
		t.Helper()
		for _, n := range c.nodes {
			n.until("all devices work", func() bool {
				osds := n.osds()
				return len(osds) == 4 && !slices.ContainsFunc(osds, func(o map[string]any) bool { return o["working"] != true })
			})
		}
	}
	work()
	one := c.nodes[0]
	one.call("POST", "/vpools", m{"name": "gold", "backend": m{"kind": "alba"}}, 201)
	for _, n := range c.nodes {
		n.until("attached to gold", func() bool { return n.poolState("gold") == "running" })
	}
	one.disk("a", "gold", 1<<30)
	l.write("a", 0, 10, 1000)
	one.call("POST", "/vdisks/a/commit", nil, 200)
	file := one.backup()
	l.write("a", 5, 10, 3000)
	one.call("POST", "/vdisks/a/commit", nil, 200)
	l.stopAll("a")
	l.loseEtcd()
	if _, err := RestoreMetadata(t.Context(), RestoreOptions{File: file, Data: l.dirs[0], Config: l.conf}); err != nil {
		t.Fatal(err)
	}
	for i := range l.dirs {
		c.start(i)
	}
	work()
	one = c.nodes[0]
	if st := one.call("GET", "/alba", nil, 200); !strings.Contains(one.text(st), "alba recover") {
		t.Errorf("the object store says nothing of its manifests: %v", st)
	}
	// Without manifests it looks as if all was deleted: the vPool stays offline, so that nothing compares.
	offline := fault{code: "vpool_offline", object: "vpool gold", says: "recover it from the devices"}
	one.watched().told(offline)
	one.call("POST", "/alba/recover", m{}, 202)
	one.until("recovered", func() bool {
		return strings.Contains(one.text(one.call("GET", "/alba", nil, 200)), "was recovered from the devices")
	})
	l.holds("a", 0, 5, 1000)
	l.holds("a", 5, 10, 3000)
	one.until("compared", func() bool { return one.restored()["deletesOff"] == false })
	if d := one.restored(); len(d["missing"].([]any))+len(d["orphans"].([]any))+len(d["unclear"].([]any)) > 0 {
		t.Errorf("compared: %v", d)
	}
}

// tripStore cuts its node off at a change after the one that makes a vDisk its own, once it is armed.
type tripStore struct {
	*cutStore
	armed *atomic.Bool
	node  string // its id
	after int    // 1: with that change
}

func (s tripStore) Txn(ctx context.Context, cmps []kv.Compare, then, els []kv.Op) (kv.TxnResult, error) {
	for _, op := range then {
		var v struct{ Node string }
		if s.armed.Load() && bytes.HasPrefix(op.Key, []byte("model/vdisk/")) && json.Unmarshal(op.Value, &v) == nil && v.Node == s.node {
			s.mu.Lock()
			if s.left == 0 && !s.off {
				s.left, s.lost = s.after, true
			}
			s.mu.Unlock()
		}
	}
	return s.cutStore.Txn(ctx, cmps, then, els)
}

// newest returns how many of n blocks, which were written in order, have what was written last: the first
// ones, or it fails. The others are as they were: of the first write, or never written.
func (l *lostCluster) newest(vdisk string, from, n, was, is uint64) (count uint64) {
	l.t.Helper()
	got := make([]byte, 65536)
	for i := from; i < from+n; i++ {
		if err := l.at(vdisk).ReadAt(l.t.Context(), 0, got, i*128); err != nil {
			l.t.Fatal(err)
		}
		switch {
		case count == i-from && bytes.Equal(got, backendtest.Data(is+i, 65536)):
			count++
		case bytes.Equal(got, backendtest.Data(was+i, 65536)), i >= 10 && bytes.Equal(got, make([]byte, 65536)):
		default:
			l.t.Fatalf("block %d of %s is of no moment that there was; %d before it are the newest", i, vdisk, count)
		}
	}
	return count
}

// sever cuts a node off now.
func (s *cutStore) sever() {
	s.arm(1, false)
	_, _ = s.change()
}

// TestTakeoverCutRestored: a node dies, another one takes its vDisk over and dies in the midst of that, at
// its first changes; then the cluster's etcd is lost, and its metadata come from a backup that is older than
// all that. The vDisk has everything that was acknowledged, or says that it may not, and is as it was at one
// moment.
func TestTakeoverCutRestored(t *testing.T) {
	if testing.Short() {
		t.Skip("step by step: nothing for the race detector")
	}
	t.Parallel()
	for after := 1; after <= 4; after++ {
		late := after == 4 // who served it by the backup starts after others took it over
		t.Run(fmt.Sprint("change ", after), func(t *testing.T) {
			l := &lostCluster{members: newMirrored(t, 3), sessions: map[string]*initiator.Session{}}
			for _, n := range l.nodes {
				id, _ := n.node()
				l.ids = append(l.ids, id)
			}
			l.nodes[1].disk("a", "gold", 1<<30)
			l.write("a", 0, 10, 1000)
			file := l.nodes[0].backup()

			// From now on who takes a vDisk over is cut off then.
			l.cuts = make([]*cutStore, 3)
			l.more += "stop_timeout: 2s\n"
			var armed atomic.Bool
			l.registry = func(i int) kv.Store {
				l.cuts[i] = newCutStore(l.etcd.Open(t, "cluster/"))
				return tripStore{l.cuts[i], &armed, l.ids[i], after}
			}
			for _, s := range l.sessions {
				s.Close()
			}
			clear(l.sessions)
			for i := range l.nodes {
				l.kill(i)
			}
			for i := range l.dirs {
				l.members.start(i)
			}
			l.write("a", 5, 10, 3000) // in journals alone, mostly
			owner := slices.IndexFunc(l.nodes, func(n *running) bool { return n.diskState("a") == "running" })
			l.sessions["a"].Close()
			clear(l.sessions)
			l.nodes[owner].untilDTL("a", "ok")
			armed.Store(true)
			l.cuts[owner].sever()
			l.kill(owner)
			taker := -1
			l.all()[0].until("a node takes it over", func() bool {
				for i, n := range l.nodes {
					if n != nil && l.cuts[i].ask() != nil {
						taker = i
					}
				}
				return taker >= 0
			})
			t.Logf("%s served it, %s took it over", l.name(owner), l.name(taker))
			l.kill(taker)
			for i, n := range l.nodes {
				if n != nil {
					l.kill(i)
				}
			}
			l.registry = nil
			clear(l.cuts)
			l.loseEtcd()
			if _, err := RestoreMetadata(t.Context(), RestoreOptions{File: file, Data: l.dirs[0], Config: l.conf}); err != nil {
				t.Fatal(err)
			}
			// Its journal cannot be told from an older one: either nothing of it is missing, or it
			// says that something may be, and what is there is as it was at one moment.
			var state string
			serves := func() bool {
				for _, n := range l.all() {
					if state = n.diskState("a"); state == "running" || state == "lost_tail" {
						return true
					}
				}
				return false
			}
			if late {
				l.members.start(0)
				l.members.start(2).until("another node takes it over", serves)
				l.members.start(1)
			} else {
				l.startAll()
			}
			l.nodes[0].until("it serves, or says what is missing", serves)
			whole := state == "running"
			if !whole {
				l.nodes[1].call("POST", "/vdisks/a/acceptLoss", nil, 200)
			}
			t.Logf("nothing is missing: %v", whole)
			l.holds("a", 0, 5, 1000)
			newest := l.newest("a", 5, 10, 1000, 3000)
			if whole && newest < 10 {
				t.Errorf("it serves, and %d of 10 acknowledged blocks are there", newest)
			}
			l.write("a", 20, 3, 6000)
			l.nodes[0].until("compared", func() bool { return l.nodes[0].restored()["deletesOff"] == false })
			if again := l.newest("a", 5, 10, 1000, 3000); again != newest {
				t.Errorf("%d of the blocks were there, now %d", newest, again)
			}
			l.holds("a", 20, 3, 6000)
		})
	}
}
