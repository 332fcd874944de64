package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	center "github.com/openvstorage/ovgate/integrations/vsphere"
	"github.com/openvstorage/ovgate/integrations/vsphere/esxsim"
	"github.com/openvstorage/ovgate/internal/client"
	"github.com/openvstorage/ovgate/scripts/lab"
)

const (
	datastoreName = "gold"
	datastoreSize = 2 << 30
	machineBlock  = 4096
	// machineBlocks is what each virtual machine writes to in turn, machineAt where, in bytes
	// from the former one's.
	machineBlocks = 512
	machineAt     = 64 << 20
	// machinePause is between writes of a machine, lockPause between tries of a host to have
	// the lock: the machine of the drill has two processors.
	machinePause = 10 * time.Millisecond
	lockPause    = 20 * time.Millisecond
	// lockAt is where the lock is, in bytes.
	lockAt = 1 << 30
	// lockBlock is a logical block.
	lockBlock = 512
	// answerLimit is after how long an ESXi host takes a heartbeat of VMFS for failed.
	answerLimit = 8 * time.Second
	// hostHeartbeat is how often hosts look at their paths.
	hostHeartbeat = time.Second
	opATS         = 0x89
)

// watcher sees what hosts and targets tell each other.
type watcher struct {
	mu      sync.Mutex
	slowest time.Duration // answer to COMPARE AND WRITE
	answers int           // to it
	lost    []string      // answers that the LUN is gone
	seen    int           // commands
}

func (w *watcher) between(x *esxsim.Exchange) {
	if !x.Ended {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen++
	if x.CDB[0] == opATS {
		w.answers++
		w.slowest = max(w.slowest, time.Since(x.At))
	}
	if x.Lost() {
		w.lost = append(w.lost, fmt.Sprintf("%s at %s: opcode %#02x: %x", x.Host, x.Portal, x.CDB[0], x.Sense))
	}
}

func (w *watcher) check() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var err error
	if len(w.lost) > 0 {
		err = fmt.Errorf("hosts are told %d times that the LUN is gone: %s", len(w.lost), w.lost[0])
	}
	if w.slowest > answerLimit {
		err = errors.Join(err, fmt.Errorf("an answer to COMPARE AND WRITE takes %v", w.slowest))
	}
	return err
}

// machine is a virtual machine of a host, which writes all the time.
type machine struct {
	host *esxsim.Host
	at   int64 // bytes

	mu      sync.Mutex
	n       uint64 // writes
	last    time.Time
	longest time.Duration // between two writes, since the drill asked
}

func (m *machine) block(n uint64) []byte {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], n)
	binary.BigEndian.PutUint64(b[8:], uint64(m.at))
	return bytes.Repeat(b[:], machineBlock/len(b))
}

// run writes until ctx ends; a write that fails is one that a guest sees fail.
func (m *machine) run(ctx context.Context) error {
	for ; sleep(ctx, machinePause) == nil; m.n++ {
		if err := m.host.WriteAt(datastoreName, m.block(m.n), m.at+int64(m.n%machineBlocks)*machineBlock); err != nil {
			return fmt.Errorf("a virtual machine on %s: %w", m.host.Name(), err)
		}
		m.mu.Lock()
		now := time.Now()
		m.longest, m.last = max(m.longest, now.Sub(m.last)), now
		m.mu.Unlock()
	}
	return nil
}

func (m *machine) mark() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.longest, m.last = 0, time.Now()
}

// measured returns the newest write, and the longest time between two.
func (m *machine) measured() (last time.Time, longest time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last, m.longest
}

// verify reads everything back through another host. The machine does not run.
func (m *machine) verify(through *esxsim.Host) error {
	got := make([]byte, machineBlock)
	for i := uint64(0); i < min(m.n, machineBlocks); i++ {
		n := m.n - 1 - (m.n-1-i)%machineBlocks // newest write to block i
		if err := through.ReadAt(datastoreName, got, m.at+int64(i)*machineBlock); err != nil {
			return err
		}
		if !bytes.Equal(got, m.block(n)) {
			return fmt.Errorf("a virtual machine of %s: block %d does not hold write %d", m.host.Name(), i, n)
		}
	}
	return nil
}

// locker is a host that contends for a lock with COMPARE AND WRITE.
type locker struct {
	host    *esxsim.Host
	id      uint64
	portals []string

	tries               uint64
	won, lost           int
	unknown             uint64        // without an answer
	longest             time.Duration // of these
	fresh, before, read []byte
}

// run takes the next number again and again. A state of the lock never comes back, so that a
// miscompare is false when it is there still.
func (l *locker) run(ctx context.Context) error {
	l.fresh, l.before, l.read = make([]byte, lockBlock), make([]byte, lockBlock), make([]byte, lockBlock)
	for portal := int(l.id); sleep(ctx, lockPause) == nil; {
		at := l.portals[portal%len(l.portals)]
		if l.host.ReadThrough(datastoreName, at, l.before, lockAt) != nil {
			portal++
			continue
		}
		l.tries++
		binary.BigEndian.PutUint64(l.fresh, binary.BigEndian.Uint64(l.before)+1)
		binary.BigEndian.PutUint64(l.fresh[8:], l.id)
		binary.BigEndian.PutUint64(l.fresh[16:], l.tries)
		began := time.Now()
		same, err := l.host.CompareAndWrite(datastoreName, at, l.before, l.fresh, lockAt)
		switch {
		case err != nil:
			l.unknown++
			l.longest = max(l.longest, time.Since(began))
			portal++
			continue
		case same:
			l.won++
			continue
		}
		l.lost++
		if l.host.ReadThrough(datastoreName, at, l.read, lockAt) == nil && bytes.Equal(l.read, l.before) {
			return fmt.Errorf("%s at %s: a miscompare with what is there, number %d", l.host.Name(), at, binary.BigEndian.Uint64(l.before))
		}
	}
	return nil
}

// datastoreDrill is a datastore of three hosts on a lab.
type datastoreDrill struct {
	c        *clusterDrill
	v        *esxsim.VCenter
	by       *center.Center
	naa      string
	watch    *watcher
	machines []*machine
	lockers  []*locker
	stalls   []time.Duration // longest time without a write of a machine, per fault
	moves    []time.Duration // and per planned move
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
	d := &datastoreDrill{watch: &watcher{}, c: &clusterDrill{e: e, l: l, disks: []*followed{{name: datastoreName}}}}
	d.v, err = esxsim.Start(esxsim.Options{Address: net.JoinHostPort(lab.Address("client"), "0"), Hosts: clusterNodes, Between: d.watch.between, Heartbeat: hostHeartbeat})
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
		e.say("round %d: no write lost, stalls %v, planned moves %v, slowest answer to COMPARE AND WRITE %v", round+1, d.stalls, d.moves, d.watch.slowest.Round(time.Millisecond))
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
	for i := range nodes {
		h := d.v.Host(i)
		d.machines = append(d.machines, &machine{host: h, at: int64(i) * machineAt})
		d.lockers = append(d.lockers, &locker{host: h, id: uint64(i), portals: portals})
	}
	on, err := d.owner(ctx)
	if err != nil {
		return err
	}
	d.c.e.say("datastore %s on %s, 3 paths from each of %d hosts", datastoreName, on, len(d.machines))
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
	load, stop := context.WithCancel(ctx)
	defer stop()
	failed, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	errs := make([]error, len(d.machines)+len(d.lockers))
	var wg sync.WaitGroup
	for i, run := range d.loads() {
		wg.Go(func() {
			if errs[i] = run(load); errs[i] != nil {
				fail(errs[i])
			}
		})
	}
	err := d.faults(failed)
	stop()
	wg.Wait()
	if promise := errors.Join(errs...); promise != nil {
		return promise
	}
	if err = errors.Join(err, d.watch.check()); err != nil {
		return err
	}
	return d.verify()
}

func (d *datastoreDrill) loads() (out []func(context.Context) error) {
	for _, m := range d.machines {
		out = append(out, m.run)
	}
	for _, l := range d.lockers {
		out = append(out, l.run)
	}
	return out
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
	began := d.mark()
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
	d.stalls = append(d.stalls, d.longest())
	if err := d.c.l.Start(ctx, was); err != nil {
		return err
	}
	if err := d.c.mirrored(ctx); err != nil {
		return err
	}
	if err := d.paths(ctx, now, ""); err != nil {
		return err
	}
	began = d.mark()
	if _, err := d.c.l.CLI(ctx, now, "vdisk", "move", datastoreName, "--node", was, "--wait"); err != nil {
		return err
	}
	if err := d.paths(ctx, was, ""); err != nil {
		return err
	}
	if err := d.writing(ctx, began); err != nil {
		return err
	}
	d.moves = append(d.moves, d.longest())
	return d.c.mirrored(ctx)
}

func (d *datastoreDrill) mark() time.Time {
	for _, m := range d.machines {
		m.mark()
	}
	return time.Now()
}

// longest is the longest time without a write of any machine since mark.
func (d *datastoreDrill) longest() (out time.Duration) {
	for _, m := range d.machines {
		_, longest := m.measured()
		out = max(out, longest)
	}
	return out.Round(time.Millisecond)
}

// writing waits for settle, and then until every machine has written.
func (d *datastoreDrill) writing(ctx context.Context, since time.Time) error {
	since = since.Add(settle)
	return eventually(ctx, resumeLimit, "writing", func(context.Context) error {
		for _, m := range d.machines {
			if last, _ := m.measured(); last.Before(since) {
				return fmt.Errorf("no write of the virtual machine on %s", m.host.Name())
			}
		}
		return nil
	})
}

// verify reads every machine's data through another host, and counts the lock's numbers.
func (d *datastoreDrill) verify() error {
	for i, m := range d.machines {
		if err := m.verify(d.machines[(i+1)%len(d.machines)].host); err != nil {
			return err
		}
	}
	b := make([]byte, lockBlock)
	if err := d.machines[0].host.ReadAt(datastoreName, b, lockAt); err != nil {
		return err
	}
	won, unknown := d.locks()
	if n := binary.BigEndian.Uint64(b); n < won || n > won+unknown {
		return fmt.Errorf("the lock was taken %d times, and %d times without an answer, and its number is %d", won, unknown, n)
	}
	return nil
}

func (d *datastoreDrill) locks() (won, unknown uint64) {
	for _, l := range d.lockers {
		won, unknown = won+uint64(l.won), unknown+l.unknown
	}
	return won, unknown
}

func (d *datastoreDrill) figures() string {
	var writes uint64
	for _, m := range d.machines {
		writes += m.n
	}
	var lost int
	var longest time.Duration
	for _, l := range d.lockers {
		lost, longest = lost+l.lost, max(longest, l.longest)
	}
	won, unknown := d.locks()
	list := func(t []time.Duration) string {
		slices.Sort(t)
		return strings.Trim(fmt.Sprint(t), "[]")
	}
	return fmt.Sprintf("%d rounds, %d hosts, %d writes, none lost, none failed; longest time without a write: node killed %s, planned move %s; COMPARE AND WRITE %d times done, %d miscompares, none false, %d without an answer (in %v at most), slowest answer %v; of %d answers none says that the LUN is gone",
		d.c.e.rounds, len(d.machines), writes, list(d.stalls), list(d.moves), won, lost, unknown, longest.Round(time.Millisecond), d.watch.slowest.Round(time.Millisecond), d.watch.seen)
}
