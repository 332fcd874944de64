package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	center "github.com/openvstorage/ovgate/integrations/vsphere"
	"github.com/openvstorage/ovgate/integrations/vsphere/esxsim"
	"github.com/openvstorage/ovgate/internal/client"
	"github.com/openvstorage/ovgate/scripts/lab"
)

const (
	datastoreName = "gold"
	datastoreSize = 2 << 30
	// answerLimit is after how long an ESXi host takes a heartbeat of VMFS for failed.
	answerLimit = 8 * time.Second
	// hostHeartbeat is how often hosts look at their paths.
	hostHeartbeat = time.Second
)

// datastoreDrill is a datastore of three hosts on a lab.
type datastoreDrill struct {
	c      *clusterDrill
	v      *esxsim.VCenter
	by     *center.Center
	naa    string
	watch  *esxsim.Watcher
	load   *esxsim.Load
	stalls []time.Duration // longest time without a write of a machine, per fault
	moves  []time.Duration // and per planned move
}

// clusterDatastore: the node that serves a datastore is killed, starts again and gets it back.
func clusterDatastore(ctx context.Context, e *env) (_ string, err error) {
	l, err := lab.Open(os.Getenv(insideLab))
	if err != nil {
		return "", err
	}
	if err := l.Fill(ctx, e.say); err != nil {
		return "", err
	}
	d := &datastoreDrill{watch: &esxsim.Watcher{}, c: &clusterDrill{e: e, l: l, disks: []*followed{{name: datastoreName}}}}
	d.v, err = esxsim.Start(esxsim.Options{Address: net.JoinHostPort(lab.Address("client"), "0"), Hosts: clusterNodes, Between: d.watch.Between, Heartbeat: hostHeartbeat})
	if err != nil {
		return "", err
	}
	defer d.v.Close()
	if err := d.make(ctx); err != nil {
		return "", err
	}
	defer d.by.Close()
	for round := range e.rounds {
		if err := d.round(ctx); err != nil {
			return "", fmt.Errorf("round %d: %w", round+1, err)
		}
		e.say("round %d: no write lost, stalls %v, planned moves %v, slowest answer to COMPARE AND WRITE %v", round+1, d.stalls, d.moves, d.slowest())
	}
	return d.figures(), nil
}

// make makes the datastore, with a path from every host through every node.
func (d *datastoreDrill) make(ctx context.Context) error {
	nodes := d.c.l.Nodes()
	api, err := d.c.l.API(nodes[0])
	if err != nil {
		return err
	}
	_, err = client.Get[client.CenterResult](api.CreateCenter(ctx, nil, client.CenterInput{Name: "dc", Options: client.CenterOptionsInput{URL: new(d.v.URL()), User: new(d.v.User())}, Secret: new(d.v.Password())}))
	if err != nil {
		return err
	}
	_, err = client.Get[client.DatastoreResult](api.CreateDatastore(ctx, nil, client.DatastoreInput{Name: datastoreName, Center: "dc", Cluster: new(esxsim.Cluster), VPool: lab.VPool, Size: datastoreSize}))
	if err != nil {
		return err
	}
	err = eventually(ctx, resumeLimit, "there", func(ctx context.Context) error {
		ds, err := client.Get[client.Datastore](api.GetDatastore(ctx, datastoreName))
		if err == nil && ds.Job != nil {
			err = fmt.Errorf("datastore %s: %s: %s", ds.Name, ds.Job.Step, ds.Job.Error)
		}
		d.naa = ds.Naa
		return err
	})
	if err != nil {
		return err
	}
	if d.by, err = center.Connect(ctx, center.Options{URL: d.v.URL(), User: d.v.User(), Secret: d.v.Password(), Thumbprint: d.v.Thumbprint()}); err != nil {
		return err
	}
	if err := d.c.mirrored(ctx); err != nil {
		return err
	}
	var portals []string
	for _, n := range nodes {
		portals = append(portals, d.c.l.Portal(n))
	}
	d.load = d.v.NewLoad(datastoreName, len(nodes), portals)
	on, err := d.owner(ctx)
	if err != nil {
		return err
	}
	d.c.e.say("datastore %s on %s, 3 paths from each of %d hosts", datastoreName, on, len(nodes))
	return d.paths(ctx, on, "")
}

// owner is the node that serves the datastore's vDisk.
func (d *datastoreDrill) owner(ctx context.Context) (string, error) {
	on, _, err := d.c.victim(ctx)
	return on, err
}

// paths waits until every host has a path through each node: dead through one that is down,
// active through the others, and the one in use leads to the owner.
func (d *datastoreDrill) paths(ctx context.Context, owner, down string) error {
	return eventually(ctx, resumeLimit, "paths following", func(ctx context.Context) error {
		hosts, err := d.by.Hosts(ctx, "")
		if err != nil {
			return err
		}
		now, err := d.by.Storages(ctx, hosts, center.Disks)
		if err != nil {
			return err
		}
		for _, h := range hosts {
			disk, err := now[h.ID()].Disk(d.naa)
			if err != nil {
				return err
			}
			if len(disk.Paths) != clusterNodes {
				return fmt.Errorf("%s has %+v", h.Name, disk.Paths)
			}
			for _, p := range disk.Paths {
				want := "active"
				if down != "" && p.Portal == d.c.l.Portal(down) {
					want = "dead"
				}
				if p.State != want || p.Working != (p.Portal == d.c.l.Portal(owner)) {
					return fmt.Errorf("%s has %+v; %s serves, %q is down", h.Name, p, owner, down)
				}
			}
		}
		return nil
	})
}

// round kills the owner and moves the datastore back, under the load of all hosts.
func (d *datastoreDrill) round(ctx context.Context) error {
	failed, fail := context.WithCancel(ctx)
	defer fail()
	d.load.Start(ctx)
	go func() {
		select {
		case <-d.load.Failed():
			fail()
		case <-failed.Done():
		}
	}()
	err := d.faults(failed)
	if promise := d.load.Stop(); promise != nil {
		return promise
	}
	if err = errors.Join(err, d.watch.Lost()); err != nil {
		return err
	}
	if slowest := d.slowest(); slowest > answerLimit {
		return fmt.Errorf("an answer to COMPARE AND WRITE takes %v", slowest)
	}
	return d.load.Verify()
}

// slowest is the longest time to an answer to COMPARE AND WRITE.
func (d *datastoreDrill) slowest() time.Duration {
	_, slowest := d.watch.Seen()
	return slowest.Round(time.Millisecond)
}

// faults is what happens under load.
func (d *datastoreDrill) faults(ctx context.Context) error {
	if err := sleep(ctx, settle); err != nil {
		return err
	}
	was, err := d.owner(ctx)
	if err != nil {
		return err
	}
	began := d.load.Mark()
	if err := d.c.l.Kill(ctx, was); err != nil {
		return err
	}
	var now string
	err = eventually(ctx, resumeLimit, "served elsewhere", func(ctx context.Context) error {
		for _, n := range d.c.l.Nodes() {
			if n == was {
				continue
			}
			all, err := d.c.vdisks(ctx, n)
			if err != nil {
				return err
			}
			if v := all[datastoreName]; v.Node == was || v.State != client.VDiskStateRunning && v.Node == n {
				return fmt.Errorf("for %s it is %s's, %s", n, v.Node, v.State)
			}
			now = all[datastoreName].Node
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := d.writing(ctx, began); err != nil {
		return err
	}
	if err := d.paths(ctx, now, was); err != nil {
		return err
	}
	d.stalls = append(d.stalls, d.load.Longest())
	if err := d.c.l.Start(ctx, was); err != nil {
		return err
	}
	if err := d.c.mirrored(ctx); err != nil {
		return err
	}
	if err := d.paths(ctx, now, ""); err != nil {
		return err
	}
	began = d.load.Mark()
	if _, err := d.c.l.CLI(ctx, now, "vdisk", "move", datastoreName, "--node", was, "--wait"); err != nil {
		return err
	}
	if err := d.paths(ctx, was, ""); err != nil {
		return err
	}
	if err := d.writing(ctx, began); err != nil {
		return err
	}
	d.moves = append(d.moves, d.load.Longest())
	return d.c.mirrored(ctx)
}

// writing waits for settle, and then until every machine has written.
func (d *datastoreDrill) writing(ctx context.Context, since time.Time) error {
	since = since.Add(settle)
	return eventually(ctx, resumeLimit, "writing", func(context.Context) error { return d.load.Silent(since) })
}

func (d *datastoreDrill) figures() string {
	t := d.load.Totals()
	list := func(t []time.Duration) string {
		slices.Sort(t)
		return strings.Trim(fmt.Sprint(t), "[]")
	}
	answers, _ := d.watch.Seen()
	return fmt.Sprintf("%d rounds, %d hosts, %d writes, none lost, none failed; longest time without a write: node killed %s, planned move %s; COMPARE AND WRITE %d times done, %d miscompares, none false, %d without an answer (in %v at most), slowest answer %v; of %d answers none says that the LUN is gone",
		d.c.e.rounds, clusterNodes, t.Writes, list(d.stalls), list(d.moves), t.Won, t.Missed, t.Unknown, t.Unanswered.Round(time.Millisecond), d.slowest(), answers)
}
