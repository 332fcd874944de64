package openstack

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/volumes"

	"github.com/openvstorage/ovgate/internal/client"
	"github.com/openvstorage/ovgate/internal/freeport"
	"github.com/openvstorage/ovgate/internal/kv/etcd"
	"github.com/openvstorage/ovgate/scripts/drill/lun"
	"github.com/openvstorage/ovgate/scripts/drill/node"
)

// twoNodes tells whether Cinder has two nodes of a cluster behind it: unless
// OVGATE_CINDER_NODES=1, or where hosts are virtual machines.
func twoNodes() bool { return os.Getenv("OVGATE_CINDER_NODES") != "1" && !guestAsked() }

// lossesUsual is in how many operations a node is lost, unless OVGATE_CINDER_LOSSES says else:
// each takes seconds until the other node has taken over, and the first one is back.
const lossesUsual = 4

// startBoth starts a cluster of two nodes, with the registry in etcd of this process.
func (l *lab) startBoth(bin string) error {
	var places [2]string
	for i := range places {
		a, err := freeport.Address()
		if err != nil {
			return err
		}
		places[i] = "http://" + a
	}
	var err error
	l.etcd, err = etcd.Serve(l.ctx, etcd.ServerOptions{Name: "m", Dir: filepath.Join(l.dir, "etcd"), Members: map[string]string{"m": places[0]},
		Client: places[1], Token: "openstack"})
	if err != nil {
		return err
	}
	if l.node, err = l.prepare(bin, "n1", places[1]); err != nil {
		return err
	}
	if l.second, err = l.prepare(bin, "n2", places[1]); err != nil {
		return err
	}
	if err := l.node.Start(l.ctx); err != nil {
		return err
	}
	if _, err := l.node.CLI(l.ctx, "cluster", "init", "--name", "openstack"); err != nil {
		return err
	}
	if err := errors.Join(l.node.Stop(), l.node.Start(l.ctx)); err != nil { // as a member it takes copies
		return err
	}
	token, err := l.node.CLI(l.ctx, "cluster", "token", "create")
	if err != nil {
		return err
	}
	file := filepath.Join(l.dir, "token")
	if err := os.WriteFile(file, token, 0o600); err != nil {
		return err
	}
	if _, err := l.second.CLI(l.ctx, "cluster", "join", "--config", l.config("n2"), "--token-file", file); err != nil {
		return err
	}
	l.portals = []string{l.node.Portal(), l.second.Portal()}
	return l.second.Start(l.ctx)
}

func (l *lab) config(name string) string { return filepath.Join(l.dir, name+".yaml") }

// prepare makes a node of the cluster.
func (l *lab) prepare(bin, name, registry string) (*node.Node, error) {
	text := fmt.Sprintf("node_name: %s\nregistry: {etcd: [%q]}\n", name, registry)
	for _, part := range []string{"cluster", "dtl", "alba"} { // the same ports over restarts
		a, err := freeport.Address()
		if err != nil {
			return nil, err
		}
		text += fmt.Sprintf("%s: {listen: %q}\n", part, a)
	}
	if err := os.WriteFile(l.config(name), []byte(text), 0o600); err != nil {
		return nil, err
	}
	return node.New(node.Options{Bin: bin, Data: filepath.Join(l.dir, name), Args: []string{"--config", l.config(name)}})
}

// nodes are those of the cluster.
func (l *lab) nodes() []*node.Node { return []*node.Node{l.node, l.second} }

// disks are all vDisks as a node knows them.
func disks(ctx context.Context, n *node.Node) ([]client.VDisk, error) {
	api, err := n.API()
	if err != nil {
		return nil, err
	}
	limit := 1000
	list, err := client.Get[client.VDiskList](api.ListVDisks(ctx, &client.ListVDisksParams{Limit: &limit}))
	return list.Items, err
}

// mirrored waits until both nodes serve, and the loss of either loses nothing.
func mirrored(t *testing.T) {
	t.Helper()
	why := ""
	err := until("the vDisks are not mirrored", func(ctx context.Context) (bool, error) {
		for i, n := range l.nodes() {
			all, err := disks(ctx, n)
			if err != nil {
				why = fmt.Sprintf("node n%d: %v", i+1, err)
				return false, nil
			}
			for _, d := range all {
				switch d.State {
				case client.VDiskStateTrashed, client.VDiskStateElsewhere:
					continue
				case client.VDiskStateRunning:
					if d.Dtl.State == client.DtlStateOk {
						continue
					}
				}
				why = fmt.Sprintf("vDisk %s of %s is %s (%s), its DTL %s (%s)", d.Name, d.Node, d.State, d.StateReason, d.Dtl.State, d.Dtl.Reason)
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil {
		t.Fatalf("%v: %s", err, why)
	}
}

// lostDuring kills either node in the middle of an operation, which has to succeed with the
// other one alone.
func lostDuring(t *testing.T, name string, do func() error) {
	t.Helper()
	mirrored(t)
	n := l.nodes()[rand.IntN(2)]
	ended := make(chan struct{})
	pieces := killIn(t, n, name, func() error {
		defer close(ended)
		return do()
	}, func() error {
		select {
		case <-ended:
		case <-l.ctx.Done():
			return l.ctx.Err()
		}
		return n.Start(l.ctx)
	})
	t.Logf("%s went on without %s, killed after %d pieces", name, filepath.Base(n.Data()), pieces)
}

// TestNodes: Cinder goes on when it has one node of two.
func TestNodes(t *testing.T) {
	if !twoNodes() {
		t.Skip("one node is all there is: OVGATE_CINDER_NODES=1, or hosts that are virtual machines")
	}
	t.Run("paths", testPaths)
	t.Run("node lost", testNodeLost)
	t.Run("node lost while attached", testLostAttached)
	mirrored(t)
	checkOrphans(t)
}

// testNodeLost does each operation, and loses a node in some of them.
func testNodeLost(t *testing.T) {
	losses := number(t, "OVGATE_CINDER_LOSSES", lossesUsual)
	hit := rand.Perm(operations)[:min(losses, operations)]
	done := 0
	operationsUnder(t, func(t *testing.T, name string, do func() error) {
		t.Helper()
		if slices.Contains(hit, done) {
			lostDuring(t, name, do)
		} else if err := do(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		done++
	})
	if done != operations {
		t.Errorf("there were %d operations, not %d", done, operations)
	}
}

// at is where a host finds a LUN at a node.
func (a *attachment) at(n *node.Node) lun.Address {
	where := a.where
	where.Portal = n.Portal()
	return where
}

// testPaths: a host is told of both nodes, and what it writes at one it reads at the other.
func testPaths(t *testing.T) {
	c := l.member
	v := c.create(t, volumes.CreateOpts{Size: 1, VolumeType: fast})
	a := c.attach(t, v.ID, "host1")
	told := map[any]bool{}
	for _, p := range a.info["target_portals"].([]any) {
		told[p] = true
	}
	for i, n := range l.nodes() {
		if !told[n.Portal()] {
			t.Errorf("a host is told of %v, which lacks %s", told, n.Portal())
		}
		d, err := lun.Dial(l.ctx, a.at(n))
		ok(t, err)
		if i > 0 {
			check(t, d, byte(i), 1)
		}
		write(t, d, byte(i+1), 1)
		ok(t, d.Close())
	}
	ok(t, a.detach())
	c.available(t, v.ID)
	c.checkVolume(t, v.ID, 2, 1, 1)
	c.delete(t, v.ID)
}

// testLostAttached: the node that serves a volume is lost while a host writes to it; the host
// goes on at the other one, and Cinder extends and detaches the volume there.
func testLostAttached(t *testing.T) {
	c := l.member
	v := c.create(t, volumes.CreateOpts{Size: 1, VolumeType: fast})
	a := c.attach(t, v.ID, "host1")
	a.use(t, func(d *lun.LUN) { write(t, d, 1, 1) })
	mirrored(t)
	at, err := l.vdisk("volume-" + v.ID)
	ok(t, err)
	lost, left := l.node, l.second
	if at.Node == "n2" {
		lost, left = left, lost
	}
	ok(t, lost.Kill())
	d, err := lun.Dial(l.ctx, a.at(left))
	ok(t, err)
	check(t, d, 1, 1)
	write(t, d, 2, 1)
	ok(t, c.extend(v.ID, 2, "in-use"))
	size, err := d.Capacity()
	ok(t, err)
	if size != 2*gib {
		t.Errorf("the host sees %d bytes after the volume was extended to 2 GiB", size)
	}
	check(t, d, 2, 1)
	ok(t, d.Close())
	ok(t, a.detach())
	c.available(t, v.ID)
	ok(t, lost.Start(l.ctx))
	mirrored(t)
	c.checkVolume(t, v.ID, 2, 1, 2)
	c.delete(t, v.ID)
}
