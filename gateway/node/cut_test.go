package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/internal/kv"
)

// cutStore is the way of a node to its registry, of which a test cuts the node off at a change:
// what others see of a node that is killed between two of them. The last change is carried out,
// and its answer lost, or is not.
type cutStore struct {
	kv.Store

	mu      sync.Mutex
	left    int // changes until then; 0: it is not armed
	lost    bool
	off     bool
	cut     chan struct{} // closed then
	watches []context.CancelFunc
}

// errCutOff is what the node hears.
var errCutOff = errors.New("the registry is not reached")

func newCutStore(s kv.Store) *cutStore { return &cutStore{Store: s, cut: make(chan struct{})} }

// arm has the node cut off at its nth change from now on; lost: that one is carried out.
func (s *cutStore) arm(n int, lost bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left, s.lost = n, lost
}

// heal has the node reach its registry again.
func (s *cutStore) heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.off, s.left = false, 0
}

func (s *cutStore) ask() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.off {
		return errCutOff
	}
	return nil
}

// change counts one; last: it is the last one.
func (s *cutStore) change() (last bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.off {
		return false, errCutOff
	}
	if s.left == 0 {
		return false, nil
	}
	if s.left--; s.left > 0 {
		return false, nil
	}
	s.off = true
	for _, cancel := range s.watches {
		cancel()
	}
	s.watches = nil
	if !s.lost {
		close(s.cut)
		return true, errCutOff
	}
	return true, nil
}

func (s *cutStore) Txn(ctx context.Context, cmps []kv.Compare, then, els []kv.Op) (kv.TxnResult, error) {
	last, err := s.change()
	if err != nil {
		return kv.TxnResult{}, err
	}
	res, err := s.Store.Txn(ctx, cmps, then, els)
	if last {
		close(s.cut)
		return kv.TxnResult{}, errors.Join(errCutOff, err)
	}
	return res, err
}

func (s *cutStore) Get(ctx context.Context, key string) (*kv.KV, error) {
	if err := s.ask(); err != nil {
		return nil, err
	}
	return s.Store.Get(ctx, key)
}

func (s *cutStore) Range(ctx context.Context, prefix, after string, limit int) ([]kv.KV, int64, error) {
	if err := s.ask(); err != nil {
		return nil, 0, err
	}
	return s.Store.Range(ctx, prefix, after, limit)
}

func (s *cutStore) Watch(ctx context.Context, prefix string, after int64) (<-chan kv.WatchBatch, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.off {
		return nil, errCutOff
	}
	ctx, cancel := context.WithCancel(ctx)
	s.watches = append(s.watches, cancel)
	return s.Store.Watch(ctx, prefix, after)
}

func (s *cutStore) Grant(ctx context.Context, ttl time.Duration) (kv.LeaseID, error) {
	if err := s.ask(); err != nil {
		return 0, err
	}
	return s.Store.Grant(ctx, ttl)
}

func (s *cutStore) KeepAlive(ctx context.Context, id kv.LeaseID) error {
	if err := s.ask(); err != nil {
		return err
	}
	return s.Store.KeepAlive(ctx, id)
}

func (s *cutStore) Revoke(ctx context.Context, id kv.LeaseID) error {
	if err := s.ask(); err != nil {
		return err
	}
	return s.Store.Revoke(ctx, id)
}

// Close leaves the store open: the next start of the node has it too.
func (s *cutStore) Close() error { return nil }

// cutting starts the nodes of a cluster anew with registries that a test cuts them off from.
func (c *members) cutting() {
	c.t.Helper()
	c.registry = func(i int) kv.Store {
		c.cuts[i] = newCutStore(c.etcd.Open(c.t, "cluster/"))
		return c.cuts[i]
	}
	c.cuts = make([]*cutStore, len(c.nodes))
	c.more += "stop_timeout: 2s\n"
	for i := range c.nodes {
		c.restart(i)
	}
}

// restart ends a node, in whatever state it is, and starts it on what it has.
func (c *members) restart(i int) *running {
	c.t.Helper()
	c.kill(i)
	return c.start(i)
}

// kill ends a node. One that is cut off cannot stop in an orderly way: nothing of its end is in
// the registry.
func (c *members) kill(i int) {
	c.t.Helper()
	n := c.nodes[i]
	c.set(i, nil)
	n.late = c.cuts[i] != nil && c.cuts[i].ask() != nil
	if err := n.stop(); (err != nil) && !n.late {
		c.t.Fatal(err)
	}
	n.late = n.late && n.stop() != nil
}

// cutsMost bounds the changes at which an operation is cut: it makes fewer.
const cutsMost = 40

// eachCut lets do happen with a node cut off at its first change, its second and so on, in each
// way, until it comes to its end before; then after looks at the cluster. After a cut the node
// is killed and started again, or reaches the registry again by itself. step leaves changes out.
func (c *members) eachCut(step int, node func() int, do func(i int) (done func() bool), after func(i int)) {
	c.t.Helper()
	for n := 1; ; n += step {
		if n > cutsMost {
			c.t.Fatalf("it has no end after %d changes", cutsMost)
		}
		cut := false
		// Carried out or not, killed or not, in turn: the next number has the other two.
		for _, way := range [][]struct{ lost, killed bool }{{{true, true}, {false, false}}, {{false, true}, {true, false}}}[n%2] {
			i := node()
			s := c.cuts[i]
			s.arm(n, way.lost)
			done := do(i)
			var ended bool
			c.all()[0].until("cut or done", func() bool {
				select {
				case <-s.cut:
					return true
				default:
					ended = done()
					return ended
				}
			})
			select {
			case <-s.cut:
				ended = false
			default:
				s.heal()
			}
			if ended {
				after(i)
				continue
			}
			cut = true
			what := fmt.Sprintf("cut at change %d, carried out: %v, killed: %v", n, way.lost, way.killed)
			c.t.Log(what)
			if way.killed {
				c.restart(i)
			} else {
				s.heal()
				c.cuts[i].cut = make(chan struct{})
			}
			after(i)
			if c.t.Failed() {
				c.t.Fatal(what)
			}
		}
		if !cut {
			return
		}
	}
}

// TestMoveCut: a node is cut off, and killed, at each change of a hand-over. Afterwards one node
// serves the vDisk, with all that was acknowledged.
func TestMoveCut(t *testing.T) {
	t.Parallel() // it waits more than it works
	c := newMembers(t, 2)
	id := c.nodes[0].disk("a", "gold", 1<<30)
	c.cutting()
	k := &checker{t: t, c: c, vdisk: id}
	c.eachCut(1, func() int {
		owner, _ := c.servedBy(id)
		k.some()
		return owner
	}, func(i int) func() bool {
		to := (i + 1) % 2
		_, _, _ = c.nodes[i].ask("POST", "/vdisks/a/handover", map[string]any{"node": c.name(to)}) // as far as it comes
		return func() bool { return c.nodes[to].diskState(id) == "running" }
	}, func(int) {
		c.settled(id)
		k.some()
		k.whole()
	})
	k.s.Close()
}

// settled waits until exactly one node serves a vDisk and none hands it over.
func (c *members) settled(vdisk string) {
	c.t.Helper()
	c.all()[0].until(vdisk+" served by one node, for good", func() bool {
		serving := 0
		for _, n := range c.all() {
			status, b, err := n.ask("GET", "/vdisks/"+vdisk, nil)
			if err != nil || status != 200 || !strings.Contains(string(b), `"handover":null`) {
				return false
			}
			if n.diskState(vdisk) == "running" {
				serving++
			}
		}
		return serving == 1
	})
}

// some writes a few blocks, and checks those that it reads.
func (k *checker) some() {
	k.t.Helper()
	k.c.all()[0].until("writing", func() bool {
		if k.s == nil && k.connect() != nil {
			return false
		}
		for range 5 {
			if err := k.step(); err != nil {
				k.s.Close()
				k.s = nil
				return false
			}
		}
		return true
	})
}

// draining tells whether a node is being drained, as the registry has it.
func (c *members) draining(name string) bool {
	c.t.Helper()
	m, err := model.Open(c.t.Context(), sharedKV{c.etcd.Open(c.t, "cluster/")}, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	n, ok := m.FindNode(name)
	return ok && n.Draining
}

// TestDrainCut: the same of a node that is drained: what it was told before it was killed it
// does, or nothing of it.
func TestDrainCut(t *testing.T) {
	t.Parallel() // it waits more than it works
	c := newMembers(t, 2)
	ids := []string{c.nodes[0].disk("a", "gold", 1<<30), c.nodes[0].disk("b", "gold", 1<<30)}
	c.cutting()
	k := &checker{t: t, c: c, vdisk: ids[0]}
	c.eachCut(3, func() int {
		owner, _ := c.servedBy(ids[0])
		k.some()
		return owner
	}, func(i int) func() bool {
		_, _, _ = c.nodes[i].ask("POST", "/nodes/"+c.name(i)+"/drain", nil) // as far as it comes
		to := c.nodes[(i+1)%2]
		return func() bool { return to.diskState(ids[0]) == "running" && to.diskState(ids[1]) == "running" }
	}, func(i int) {
		n, to := c.nodes[i], c.nodes[(i+1)%2]
		if c.draining(c.name(i)) {
			for _, id := range ids {
				to.until("drained", func() bool { return to.diskState(id) == "running" })
			}
			n.until("no more drained", func() bool {
				status, _, err := n.ask("DELETE", "/nodes/"+c.name(i)+"/drain", nil)
				return err == nil && status == 200 || status == 204
			})
		}
		for _, id := range ids {
			c.settled(id)
		}
		// Both are on one node again, for the next time.
		at, _ := c.servedBy(ids[0])
		if b, _ := c.servedBy(ids[1]); b != at {
			c.nodes[b].call("POST", "/vdisks/b/handover", map[string]any{"node": c.name(at)}, 202)
			c.nodes[at].until("together", func() bool { return c.nodes[at].diskState(ids[1]) == "running" })
			c.settled(ids[1])
		}
		k.some()
		k.whole()
	})
	k.s.Close()
}

// member tells whether a node is one, as the registry has it.
func (c *members) member(id string) bool {
	c.t.Helper()
	m, err := model.Open(c.t.Context(), sharedKV{c.etcd.Open(c.t, "cluster/")}, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	_, ok := m.Node(id)
	return ok
}

// rejoin makes a new node of that number, whose name is free.
func (c *members) rejoin(i int) {
	c.t.Helper()
	c.dirs[i] = filepath.Join(c.t.TempDir(), "node")
	token := c.nodes[0].call("POST", "/cluster/tokens", nil, 201)["token"].(string)
	if _, err := Join(c.t.Context(), JoinOptions{Data: c.dirs[i], Config: c.conf(i), Token: token}); err != nil {
		c.t.Fatal(err)
	}
	c.start(i)
}

// takes waits until a node takes vDisks, and has it take one and give it back.
func (c *members) takes(i int, vdisk string) {
	c.t.Helper()
	c.nodes[i].until("attached", func() bool { return c.nodes[i].poolState("gold") == "running" })
	for _, to := range []int{i, 0} {
		from := c.nodes[i-to]
		from.until(c.name(to)+" takes vDisks", func() bool {
			status, _ := from.try("POST", "/vdisks/"+vdisk+"/handover", map[string]any{"node": c.name(to)})
			return status == 202
		})
		c.nodes[to].until("moved", func() bool { return c.nodes[to].diskState(vdisk) == "running" })
		c.settled(vdisk)
	}
}

// isOver waits until a node has ended by itself.
func (r *running) isOver() {
	r.t.Helper()
	select {
	case <-r.over:
		r.late = r.stop() != nil
	case <-time.After(patience):
		r.t.Fatal("it has not ended")
	}
}

// TestLeaveCut: a node is cut off, and killed, at each change of its leaving the cluster. Then
// it is a member like before, or none and does not start.
func TestLeaveCut(t *testing.T) {
	t.Parallel() // it waits more than it works
	c := newMirrored(t, 2)
	disk := c.nodes[0].disk("a", "gold", 1<<30)
	c.cutting()
	for i := 0; ; i++ {
		// The mark, the removal, and what follows; the last one is not reached.
		way := []struct {
			n            int
			lost, killed bool
		}{{1, true, true}, {1, true, false}, {2, false, true}, {2, true, false}, {2, true, true}, {3, false, false}, {cutsMost, false, false}}[i]
		n, lost, killed := way.n, way.lost, way.killed
		s, two := c.cuts[1], c.nodes[1]
		id, _ := two.node()
		s.arm(n, lost)
		status, _, _ := two.ask("POST", "/cluster/leave", nil) // as far as it comes
		whole := s.ask() == nil
		t.Logf("change %d, carried out: %v, killed: %v, not cut: %v: answered %d", n, lost, killed, whole, status)
		s.mu.Lock()
		s.left = 0
		s.mu.Unlock()
		switch member := c.member(id); {
		case whole && (status != 204 || member), !whole && n == cutsMost:
			t.Fatal("it did not leave, or has no end")
		case whole:
			c.set(1, nil)
			two.isOver()
			return
		case killed:
			c.kill(1)
			if member {
				c.start(1)
			}
		case member:
			s.heal()
		default:
			c.set(1, nil)
			s.heal()
			two.isOver()
		}
		if c.nodes[1] == nil {
			if err := refused(t, c.dirs[1], c.conf(1)); err == nil || !strings.Contains(err.Error(), "no member of cluster east") {
				t.Fatalf("started again: %v", err)
			}
			c.rejoin(1)
		}
		c.takes(1, disk)
	}
}

// TestRemoveCut: a node is cut off, and killed, at each change of its removing another one,
// which is down. Asked again it does it, and if not, the other one is a member like before.
func TestRemoveCut(t *testing.T) {
	t.Parallel() // it waits more than it works
	c := newMirrored(t, 2)
	disk := c.nodes[0].disk("a", "gold", 1<<30)
	c.cutting()
	for i := 0; ; i++ {
		way := []struct {
			n    int
			lost bool
		}{{1, true}, {2, false}, {2, true}, {3, false}, {cutsMost, false}}[i]
		id, _ := c.nodes[1].node()
		c.kill(1)
		s := c.cuts[0]
		s.arm(way.n, way.lost)
		c.nodes[0].until("seen as down", func() bool {
			status, b, err := c.nodes[0].ask("DELETE", "/nodes/n2", nil)
			return err != nil || status != 409 || !strings.Contains(string(b), "it runs")
		})
		whole := s.ask() == nil
		t.Logf("change %d, carried out: %v, not cut: %v", way.n, way.lost, whole)
		if whole {
			if s.heal(); c.member(id) || way.n != cutsMost {
				t.Fatal("it was not removed")
			}
			return
		}
		c.restart(0)
		c.nodes[0].until("a served", func() bool { return c.nodes[0].diskState(disk) == "running" })
		if c.member(id) && way.n == 1 { // its operator starts it after all
			c.start(1)
			c.takes(1, disk)
			continue
		}
		c.nodes[0].call("DELETE", "/nodes/n2", nil, 204)
		if c.member(id) {
			t.Fatal("it was not removed")
		}
		c.rejoin(1)
		c.takes(1, disk)
	}
}
