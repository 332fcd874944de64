package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/internal/client"
	"github.com/openvstorage/ovgate/scripts/drill/node"
	"github.com/openvstorage/ovgate/scripts/drill/selfcheck"
	"github.com/openvstorage/ovgate/scripts/lab"
)

// The cluster drills run on a lab: three nodes, etcd and an S3 store, each in a network
// namespace of its own. The drill itself runs in the namespace of the hosts.

const (
	clusterNodes = 3
	// clusterStorage is how many machines have the devices where roles are separated: what is
	// acknowledged outlives one of them, and is stored on the two that are left.
	clusterStorage = 3
	// clusterVDisks and clusterPause are those of the short form, clusterVDisksFull and
	// clusterPauseFull those with OVGATE_CLUSTER=full. A pause is longer than two leases.
	clusterVDisks     = 6
	clusterVDisksFull = 20
	clusterPause      = 5 * time.Second
	clusterPauseFull  = time.Minute
	// resumeLimit bounds the time until every vDisk is written to again after a fault: far
	// above the goal of some seconds, which is measured.
	resumeLimit = 90 * time.Second
	// mirrorLimit bounds the time until all journals are mirrored again.
	mirrorLimit = 120 * time.Second
	// settle is how long the load runs before a fault, and after writes have resumed.
	settle = 2 * time.Second
	// staleLimit bounds how long a node that was resumed or healed may take to answer the
	// reads on old paths, or to drop these.
	staleLimit = 30 * time.Second
)

// insideLab is the environment variable with the lab's directory for a drill within it.
const insideLab = "OVGATE_DRILL_LAB"

func fullCluster() bool { return os.Getenv("OVGATE_CLUSTER") == "full" }

// The layout of a drill's cluster, by the environment.
const (
	// rolesEnv: "separate" has the vPool on the Alba of storage machines, and nodes without
	// devices.
	rolesEnv = "OVGATE_ROLES"
	// storeEnv: "alba" has the vPool on the Alba of the nodes.
	storeEnv = "OVGATE_STORE"
	// pathsEnv: "two" has hosts reach each vDisk over two paths at once, through two nodes.
	pathsEnv = "OVGATE_PATHS"
)

// checkLayout refuses what the environment cannot mean.
func checkLayout() error {
	for name, known := range map[string]string{rolesEnv: "separate", storeEnv: "alba", pathsEnv: "two"} {
		if v := os.Getenv(name); v != "" && v != known {
			return fmt.Errorf("%s=%s: use %s, or leave it out", name, v, known)
		}
	}
	return nil
}

func separateRoles() bool { return os.Getenv(rolesEnv) == "separate" }

func twoPaths() bool { return os.Getenv(pathsEnv) == "two" }

// inLab tells whether a drill is of a cluster.
func (d drill) inLab() bool { return strings.HasPrefix(d.name, "cluster-") || d.name == upgradeName }

// members is how many members of etcd a drill needs.
func (d drill) members() int {
	switch {
	case d.own():
		return 0
	case d.name == "cluster-etcd-leader", d.name == "cluster-etcd-pause":
		return 3
	}
	return 1
}

// own tells whether the nodes run the registry.
func (d drill) own() bool { return strings.HasPrefix(d.name, "cluster-own-") }

// alba tells whether the vPool is on the nodes' own Alba.
func (d drill) alba() bool {
	return strings.HasPrefix(d.name, "cluster-alba-") || d.name == guestDrill || d.own() || d.storage() > 0 || os.Getenv(storeEnv) == "alba"
}

// storage is how many storage machines a drill has.
func (d drill) storage() int {
	if separateRoles() || strings.HasPrefix(d.name, "cluster-storage-") {
		return clusterStorage
	}
	return 0
}

// diskBytes is as in lab.Options.
func (d drill) diskBytes() int64 {
	switch {
	case d.name != "cluster-full-disk":
		return 0
	case d.alba():
		return clusterAlbaDisk
	}
	return clusterDisk
}

// errSaid: the drill within the lab has said what went wrong.
var errSaid = errors.New("see above")

// drillInLab makes the lab and runs the drill within it.
func drillInLab(ctx context.Context, d drill, work string, seed uint64, rounds int) (err error) {
	if err := checkLayout(); err != nil {
		return err
	}
	if d.name == guestDrill {
		if err := guestImage(ctx); err != nil {
			return err
		}
	}
	build := node.Build
	if d.name == upgradeName {
		build = previousBuild
	}
	bin, err := build(ctx, work)
	if err != nil {
		return err
	}
	o := lab.Options{Nodes: clusterNodes, Members: d.members(), OwnRegistry: d.own(), Bin: bin, DiskBytes: d.diskBytes(), OwnPaths: d.name != "cluster-datastore" && d.name != guestDrill && !twoPaths(), Alba: d.alba(), Storage: d.storage(),
		Settings: []string{"--journal-quota", "128MiB", "--sco-size", "4MiB", "--commit-interval", "5s"}}
	l, err := lab.Make(ctx, filepath.Join(work, "lab"), o)
	if l != nil {
		defer func() { err = errors.Join(err, l.Close(context.WithoutCancel(ctx))) }()
	}
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := l.Enter(ctx, self, "-seed", strconv.FormatUint(seed, 10), d.name, strconv.Itoa(rounds))
	cmd.Env = append(os.Environ(), insideLab+"="+l.Dir())
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && ctx.Err() == nil {
		return errSaid
	}
	return err
}

// clusterDrill is a filled lab with the vDisks.
type clusterDrill struct {
	e     *env
	l     *lab.Lab
	disks []*followed

	moved  []time.Duration // from a fault to the first write at another node, or there again; with multipath the longest time without one
	others time.Duration   // longest time without a write, of the vDisks that had not to move
	stale  int             // reads on old paths that were answered
}

// cluster opens the lab and makes the vDisks, spread over the nodes, with their journals
// mirrored.
func (e *env) cluster(ctx context.Context) (*clusterDrill, error) {
	l, err := lab.Open(os.Getenv(insideLab))
	if err != nil {
		return nil, err
	}
	if err := l.Fill(ctx, e.say); err != nil {
		return nil, err
	}
	c := &clusterDrill{e: e, l: l}
	count := clusterVDisks
	if fullCluster() {
		count = clusterVDisksFull
	}
	var portals []string
	for _, n := range l.Nodes() {
		portals = append(portals, l.Portal(n))
	}
	for i := range count {
		f := &followed{name: fmt.Sprintf("load%d", i), portals: portals, load: selfcheck.New(followedBlocks, e.seed+uint64(i)),
			isid: [6]byte{0x80, 0, 0, 0, byte(i >> 8), byte(i)}, every: time.Duration(count) * time.Second / followedRate}
		if twoPaths() {
			f.multi, f.portals = true, nil
			for k := range hostPaths {
				f.portals = append(f.portals, portals[(i+k)%len(portals)])
			}
		}
		if f.conn, err = c.create(ctx, l.Nodes()[i%len(l.Nodes())], f.name); err != nil {
			return nil, err
		}
		c.disks = append(c.disks, f)
	}
	e.say("%d vDisks on %d nodes%s", count, clusterNodes, layout(l))
	return c, c.mirrored(ctx)
}

// layout says what is not as usual.
func layout(l *lab.Lab) string {
	var s string
	if n := len(l.Storage()); n > 0 {
		s = fmt.Sprintf(", %d storage machines", n)
	}
	if twoPaths() {
		s += fmt.Sprintf(", %d paths to each", hostPaths)
	}
	return s
}

// create makes a vDisk on a node and publishes it to everybody who knows its secret.
func (c *clusterDrill) create(ctx context.Context, on, name string) (client.Connection, error) {
	api, err := c.l.API(on)
	if err != nil {
		return client.Connection{}, err
	}
	in := client.VDiskInput{Name: name, VPool: lab.VPool, Size: followedBlocks * selfcheck.BlockSize}
	if _, err := client.Get[client.VDisk](api.CreateVDisk(ctx, &client.CreateVDiskParams{IdempotencyKey: new(rand.Text())}, in)); err != nil {
		return client.Connection{}, fmt.Errorf("vdisk %s on %s: %w", name, on, err)
	}
	return client.Get[client.Connection](api.PublishVDisk(ctx, name, client.PublishInput{Open: new(true)}))
}

// ask bounds one question to a node, which may be cut off.
const ask = 5 * time.Second

// vdisks returns what a node says of all vDisks.
func (c *clusterDrill) vdisks(ctx context.Context, node string) (map[string]client.VDisk, error) {
	ctx, cancel := context.WithTimeout(ctx, ask)
	defer cancel()
	api, err := c.l.API(node)
	if err != nil {
		return nil, err
	}
	out := map[string]client.VDisk{}
	for cursor := (*string)(nil); ; {
		list, err := client.Get[client.VDiskList](api.ListVDisks(ctx, &client.ListVDisksParams{Limit: new(1000), Cursor: cursor}))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", node, err)
		}
		for _, v := range list.Items {
			out[v.Name] = v
		}
		if cursor = list.Next; cursor == nil {
			return out, nil
		}
	}
}

// agree returns the node of each vDisk, on which all nodes agree, each vDisk as its node knows
// it.
func (c *clusterDrill) agree(ctx context.Context) (map[string]client.VDisk, error) {
	out := map[string]client.VDisk{}
	for _, n := range c.l.Nodes() {
		all, err := c.vdisks(ctx, n)
		if err != nil {
			return nil, err
		}
		for _, f := range c.disks {
			v, ok := all[f.name]
			if !ok {
				return nil, fmt.Errorf("%s does not know vdisk %s", n, f.name)
			}
			if was, seen := out[f.name]; seen && was.Node != v.Node {
				return nil, fmt.Errorf("vdisk %s is %s's, and %s's for %s", f.name, was.Node, v.Node, n)
			}
			if _, seen := out[f.name]; !seen || v.Node == n {
				out[f.name] = v
			}
		}
	}
	return out, nil
}

// eventually waits until something holds; what is not yet is its error.
func eventually(ctx context.Context, limit time.Duration, what string, holds func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := holds(ctx)
		if err == nil {
			return nil
		}
		if sleep(ctx, lookEvery) != nil {
			return fmt.Errorf("not %s within %v: %w", what, limit, err)
		}
	}
}

// mirrored waits until all nodes agree, and each vDisk runs with its journal mirrored.
func (c *clusterDrill) mirrored(ctx context.Context) error {
	return eventually(ctx, mirrorLimit, "all vDisks mirrored", func(ctx context.Context) error {
		all, err := c.agree(ctx)
		if err != nil {
			return err
		}
		for _, v := range all {
			if v.State != client.VDiskStateRunning || v.Dtl.State != client.DtlStateOk {
				return fmt.Errorf("vdisk %s of %s is %s (%s), its DTL %s (%s)", v.Name, v.Node, v.State, v.StateReason, v.Dtl.State, v.Dtl.Reason)
			}
		}
		return nil
	})
}

// on returns the vDisks of a node.
func (c *clusterDrill) on(all map[string]client.VDisk, node string) []*followed {
	var out []*followed
	for _, f := range c.disks {
		if all[f.name].Node == node {
			out = append(out, f)
		}
	}
	return out
}

// victim chooses a node that has vDisks, and returns these.
func (c *clusterDrill) victim(ctx context.Context) (string, []*followed, error) {
	all, err := c.agree(ctx)
	if err != nil {
		return "", nil, err
	}
	for _, i := range c.e.rng.Perm(clusterNodes) {
		n := c.l.Nodes()[i]
		if disks := c.on(all, n); len(disks) > 0 {
			return n, disks, nil
		}
	}
	return "", nil, errors.New("no node has vDisks")
}

// spread gives the vDisks back to all nodes evenly, under load.
func (c *clusterDrill) spread(ctx context.Context) error {
	all, err := c.agree(ctx)
	if err != nil {
		return err
	}
	for i, f := range c.disks {
		from, to := all[f.name].Node, c.l.Nodes()[i%clusterNodes]
		if from == to {
			continue
		}
		if _, err := c.l.CLI(ctx, from, "vdisk", "move", f.name, "--node", to, "--wait"); err != nil {
			return err
		}
	}
	return nil
}

// underLoad runs the loads of all vDisks while f works.
func (c *clusterDrill) underLoad(ctx context.Context, f func(context.Context) error) error {
	load, stop := context.WithCancel(ctx)
	defer stop()
	failed, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	errs := make([]error, len(c.disks))
	var wg sync.WaitGroup
	for i, d := range c.disks {
		seed := c.e.rng.Uint64()
		wg.Go(func() {
			if errs[i] = d.follow(load, ctx, seed); errs[i] != nil {
				fail(errs[i]) // a broken promise ends the drill
			}
		})
	}
	err := f(failed)
	stop()
	wg.Wait()
	if promise := errors.Join(errs...); promise != nil {
		return promise
	}
	return err
}

// mark begins to measure a fault.
func (c *clusterDrill) mark() time.Time {
	for _, f := range c.disks {
		f.mark()
	}
	return time.Now()
}

// writing waits until every vDisk was written to after a moment.
func (c *clusterDrill) writing(ctx context.Context, since time.Time) error {
	return eventually(ctx, resumeLimit, "writing", func(context.Context) error {
		var not []string
		for _, f := range c.disks {
			if !f.writesSince(since) {
				not = append(not, f.name)
			}
		}
		if len(not) > 0 {
			return fmt.Errorf("no write to %s", strings.Join(not, ", "))
		}
		return nil
	})
}

// elsewhere waits until these vDisks were written to on another path than before the fault;
// with multipath, until the nodes but for the lost one know another owner, and they were
// written to since.
func (c *clusterDrill) elsewhere(ctx context.Context, lost string, disks []*followed) error {
	if twoPaths() {
		if err := c.left(ctx, lost, disks); err != nil {
			return err
		}
		return c.writing(ctx, time.Now())
	}
	return eventually(ctx, resumeLimit, "written to on another path", func(context.Context) error {
		var not []string
		for _, f := range disks {
			if _, moved, _ := f.measured(); !moved {
				not = append(not, f.name)
			}
		}
		if len(not) > 0 {
			return errors.New(strings.Join(not, ", ") + " not yet")
		}
		return nil
	})
}

// left waits until these vDisks are not the lost node's any more; empty: none is lost.
func (c *clusterDrill) left(ctx context.Context, lost string, disks []*followed) error {
	return eventually(ctx, resumeLimit, "taken over", func(ctx context.Context) error {
		for _, n := range c.l.Nodes() {
			if n == lost {
				continue
			}
			all, err := c.vdisks(ctx, n)
			if err != nil {
				return err
			}
			for _, f := range disks {
				if v := all[f.name]; v.Node == lost || v.Node == "" {
					return fmt.Errorf("vdisk %s is %q's for %s", f.name, v.Node, n)
				}
			}
		}
		return nil
	})
}

// note adds what was measured of a fault that these vDisks had to move by.
func (c *clusterDrill) note(moved []*followed) {
	for _, f := range c.disks {
		resumed, ok, longest := f.measured()
		if f.multi { // on which path it went on is the host's affair
			resumed, ok = longest, true
		}
		if slices.Contains(moved, f) && ok {
			c.moved = append(c.moved, resumed)
		} else {
			c.others = max(c.others, longest)
		}
	}
}

// verify checks every vDisk.
func (c *clusterDrill) verify(ctx context.Context) error {
	for _, f := range c.disks {
		if err := f.verify(ctx); err != nil {
			return err
		}
	}
	return nil
}

// clusterRounds makes the cluster and does a drill.
func (e *env) clusterRounds(ctx context.Context, f func(ctx context.Context, c *clusterDrill) error) (string, error) {
	c, err := e.cluster(ctx)
	if err != nil {
		return "", err
	}
	return c.rounds(ctx, f)
}

// rounds does a drill: f breaks something under load and mends it.
func (c *clusterDrill) rounds(ctx context.Context, f func(ctx context.Context, c *clusterDrill) error) (string, error) {
	e := c.e
	for round := range e.rounds {
		start, before := time.Now(), c.counts()
		err := c.underLoad(ctx, func(ctx context.Context) error {
			if err := c.writing(ctx, time.Now()); err != nil {
				return err
			}
			if err := sleep(ctx, settle); err != nil {
				return err
			}
			if err := f(ctx, c); err != nil {
				return err
			}
			if err := c.mirrored(ctx); err != nil {
				return err
			}
			return c.writing(ctx, time.Now())
		})
		if err == nil {
			err = c.verify(ctx)
		}
		if err != nil {
			return "", fmt.Errorf("round %d: %w", round+1, err)
		}
		now := c.counts()
		e.say("round %d: %d blocks acknowledged, %d unanswered, all verified, in %v", round+1, now.Blocks-before.Blocks, now.Unknown-before.Unknown, time.Since(start).Round(100*time.Millisecond))
		if round+1 < e.rounds {
			if err := c.underLoad(ctx, c.spread); err != nil {
				return "", fmt.Errorf("round %d: give the vDisks back: %w", round+1, err)
			}
			if err := c.mirrored(ctx); err != nil {
				return "", err
			}
		}
	}
	return c.figures(), nil
}

// counts adds the figures of all vDisks.
func (c *clusterDrill) counts() selfcheck.Counts {
	var targets []*target
	for _, f := range c.disks {
		targets = append(targets, &target{load: f.load})
	}
	return sum(targets)
}

// figures are the drill's last line.
func (c *clusterDrill) figures() string {
	n := c.counts()
	s := fmt.Sprintf("%d rounds, %d vDisks, %d blocks acknowledged, %d reads checked, 0 lost", c.e.rounds, len(c.disks), n.Blocks, n.Reads)
	if len(c.moved) > 0 {
		slices.Sort(c.moved)
		at := func(i int) time.Duration { return c.moved[i].Round(10 * time.Millisecond) }
		what := "from the fault to its first resumed write"
		if twoPaths() {
			what = "longest time without a write"
		}
		s += fmt.Sprintf("; %d times a vDisk was hit: %s %v / %v / %v (min, median, max)", len(c.moved), what, at(0), at(len(c.moved)/2), at(len(c.moved)-1))
	}
	s += fmt.Sprintf("; longest time without a write elsewhere %v", c.others.Round(10*time.Millisecond))
	if c.stale > 0 {
		s += fmt.Sprintf("; %d reads on old paths answered, none stale", c.stale)
	}
	return s
}
