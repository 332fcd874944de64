package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/openvstorage/ovgate/internal/client"
	"github.com/openvstorage/ovgate/internal/faultproxy"
	"github.com/openvstorage/ovgate/scripts/drill/node"
)

const (
	// faultBlocks is each vDisk's size in 4 KiB blocks: more than is cached, and few enough
	// to be read from a slow store in seconds.
	faultBlocks = 768
	// faultRate bounds the load, so that the journal does not fill up and reads are of what
	// is on the store already.
	faultRate = "1MiB"
	// faultsEach is how often each kind of fault has to happen while it is alone, and
	// faultPatience bounds how long that takes.
	faultsEach    = 3
	faultPatience = 20 * time.Second
	// mixes follow each other before the blow, and as many after it.
	mixes   = 2
	mixTime = 2 * time.Second
	// faultStall and faultDelay are of the proxy: longer than any request takes here, and
	// shorter than a node waits for an answer.
	faultStall = 2 * time.Second
	faultDelay = 500 * time.Millisecond
	// openPatience bounds how long vDisks may take to open under faults: a vPool needs many
	// answers that are right.
	openPatience = 10 * time.Second
	// resumePatience bounds how long everything takes to be on the store after the faults.
	// A node that met them asks a store at most half a minute later.
	resumePatience = 90 * time.Second
	// storeConfig lets reads come from the store.
	storeConfig = "cache_bytes: 1048576\n"
)

// overwritable tells whether an object may get other bytes: the root, which tells the
// cluster that a vPool belongs to, and changes with it at vpool recover; and claims, which
// openings compete for under one name. One of a deleted vDisk, whose first head a late
// duplicate brought back, can be made again by a recovery from the store alone.
func overwritable(name string) bool {
	return strings.TrimSuffix(path.Base(name), "!") == "ovgate.root" || // S3 objects end in !
		path.Base(path.Dir(name)) == "claim"
}

// storeKind is a kind of store that faults are drilled over.
type storeKind struct {
	name     string
	peer     []string // name and options of scripts/peer
	protocol faultproxy.Protocol
	// never happens with this protocol.
	never faultproxy.Kind
	// backend returns what to register, and the URL of the store in it.
	backend func(said map[string]string) (client.RemoteBackendInput, *string)
}

// storeKinds returns the kinds; with OVGATE_MINIO=1 MinIO is among them.
func storeKinds() []storeKind {
	s3 := func(name string, peer ...string) storeKind {
		return storeKind{name, peer, faultproxy.S3, faultproxy.ExpireToken, s3Backend}
	}
	kinds := []storeKind{s3("versitygw", "s3"), {"swift", []string{"swift"}, faultproxy.Swift, faultproxy.ClockSkew, swiftBackend}}
	if os.Getenv("OVGATE_MINIO") == "1" {
		kinds = append(kinds, s3("minio", "s3", "--kind", "minio"))
	}
	return kinds
}

// storeName is what the store is registered as.
const storeName = "store"

func s3Backend(said map[string]string) (client.RemoteBackendInput, *string) {
	url := said["endpoint"]
	return client.RemoteBackendInput{Kind: client.RemoteKindS3, Name: storeName, Secret: new(said["secret_key"]), Options: client.RemoteOptionsInput{
		URL: &url, Container: new(said["bucket"]), Region: new(said["region"]), User: new(said["access_key"])}}, &url
}

func swiftBackend(said map[string]string) (client.RemoteBackendInput, *string) {
	url := said["auth"]
	return client.RemoteBackendInput{Kind: client.RemoteKindSwift, Name: storeName, Secret: new(said["key"]), Options: client.RemoteOptionsInput{
		URL: &url, Container: new("vpools"), User: new(said["user"])}}, &url
}

// storeDrill is a node whose vPools are on a store behind a proxy: "drill", and "other",
// which is encrypted.
type storeDrill struct {
	e       *env
	kind    storeKind
	rng     *rand.Rand // the operations use that of e meanwhile
	said    map[string]string
	proxy   *faultproxy.Proxy
	n       *node.Node
	o       *vdiskOps
	keyFile string
	kills   int
	back    int           // deleted vDisks that a recovery found
	resumed time.Duration // longest
}

// storeFaults: vDisks under a self-checking load on each kind of store, behind a proxy that
// does what networks and stores do, one fault after the other and mixed, while snapshots
// and the like go on; in each round the node is killed meanwhile and starts under faults.
// When they end, everything gets to the store by itself, and what is there is whole and
// serves on a node that has nothing else. No name is put twice with other bytes.
func storeFaults(ctx context.Context, e *env) (string, error) {
	var figures []string
	for i, kind := range storeKinds() {
		f, err := e.faultsOver(ctx, kind, uint64(i))
		if err != nil {
			return "", fmt.Errorf("%s: %w", kind.name, err)
		}
		figures = append(figures, kind.name+": "+f)
	}
	return strings.Join(figures, "; "), nil
}

// faultsOver drills one kind of store.
func (e *env) faultsOver(ctx context.Context, kind storeKind, n uint64) (_ string, err error) {
	own := *e
	own.dir, own.nodes = filepath.Join(e.dir, kind.name), nil
	if err := os.Mkdir(own.dir, 0o700); err != nil {
		return "", err
	}
	d := &storeDrill{e: &own, kind: kind, rng: rand.New(rand.NewPCG(e.seed, 2+n))}
	peer, err := node.StartPeer(ctx, filepath.Join(own.dir, "peers"), kind.peer[0], "drill", kind.peer[1:]...)
	if err != nil {
		return "", err
	}
	defer func() {
		for _, n := range own.nodes {
			err = errors.Join(err, n.Close())
		}
		if d.proxy != nil {
			err = errors.Join(err, d.proxy.Close())
		}
		err = errors.Join(err, peer.Close())
	}()
	d.said = peer.Said
	if err := d.start(ctx); err != nil {
		return "", err
	}
	for round := range e.rounds {
		start := time.Now()
		if err := d.round(ctx, round%2 == 1); err != nil {
			return "", fmt.Errorf("round %d: %w", round+1, err)
		}
		e.say("%s, round %d: %s; all verified, on a fresh node too, in %v", kind.name, round+1, d.o.text(), time.Since(start).Round(time.Second))
	}
	c := sum(d.o.targets)
	return fmt.Sprintf("%d requests for %d names, faults %s, %d kills, %s, %d blocks written and checked, 0 lost, %d deleted ones found by recoveries, everything on the store within %v after the faults",
		d.proxy.Requests(), d.proxy.Names(), strings.TrimPrefix(fmt.Sprint(d.proxy.Counts()), "map"), d.kills, d.o.text(), c.Blocks, d.back, d.resumed.Round(100*time.Millisecond)), d.n.Stop()
}

// start makes the vPools with a vDisk on each, without faults.
func (d *storeDrill) start(ctx context.Context) error {
	_, url := d.kind.backend(d.said)
	server, rest, _ := strings.Cut(strings.TrimPrefix(*url, "http://"), "/")
	var err error
	d.proxy, err = faultproxy.New(faultproxy.Options{Target: "http://" + server, Protocol: d.kind.protocol,
		Rand: rand.New(rand.NewPCG(d.e.seed, d.rng.Uint64())), Delay: faultDelay, Stall: faultStall})
	if err != nil {
		return err
	}
	*url = d.proxy.URL()
	if rest != "" {
		*url += "/" + rest
	}
	d.said["endpoint"], d.said["auth"] = *url, *url
	if err := d.fresh(ctx); err != nil {
		return err
	}
	if err := d.n.CreateVPool(ctx, "drill", "drill", d.settings()...); err != nil {
		return err
	}
	if err := d.n.CreateVPool(ctx, "other", "other", append(d.settings(), "--encrypt")...); err != nil {
		return err
	}
	key, err := d.n.CLI(ctx, "vpool", "key", "other")
	if err != nil {
		return err
	}
	d.keyFile = filepath.Join(d.e.dir, "other.key")
	if err := os.WriteFile(d.keyFile, key, 0o600); err != nil {
		return err
	}
	d.o = newOps(d.e, d.n, nil, faultBlocks)
	d.o.forgiven = forgiven
	for i, vpool := range []string{"drill", "other"} {
		t, err := d.e.target(ctx, d.n, vpool, i, faultBlocks)
		if err != nil {
			return err
		}
		d.o.targets = append(d.o.targets, t)
	}
	d.o.api, err = d.n.API()
	return err
}

func (d *storeDrill) settings() []string {
	return append([]string{"--store", storeName}, smallSettings...)
}

// fresh starts a node without anything and registers the store.
func (d *storeDrill) fresh(ctx context.Context) error {
	var err error
	if d.n, err = d.e.configured(ctx, storeConfig); err != nil {
		return err
	}
	api, err := d.n.API()
	if err != nil {
		return err
	}
	backend, _ := d.kind.backend(d.said)
	return client.Done(api.CreateBackend(ctx, nil, backend))
}

// forgiven tells the errors of operations that a store's faults excuse.
func forgiven(err error) bool {
	var e *client.APIError
	var exit *exec.ExitError
	return errors.As(err, &e) && slices.Contains([]string{"backend_unavailable", "timeout", "not_running", "not_found"}, e.Code) ||
		errors.As(err, &exit) && exit.ExitCode() == exitFailed || errors.Is(err, errJob)
}

// exitFailed is how ovgate ends when something failed, or the node did not answer.
const exitFailed = 1

// round: each fault, a mix of them, a kill, a mix; then without them. orderly tells how the
// node ends before everything but the store is lost.
func (d *storeDrill) round(ctx context.Context, orderly bool) error {
	o := d.o
	defer d.proxy.Off()
	for _, t := range o.targets {
		if _, err := d.n.CLI(ctx, "vdisk", "qos", t.name, "--bandwidth", faultRate); err != nil {
			return err
		}
	}
	err := d.e.underLoad(ctx, o.targets, false, func(ctx context.Context) error { return o.during(ctx, false, d.eachFault) })
	if err != nil {
		return err
	}
	err = d.e.underLoad(ctx, o.targets, true, func(ctx context.Context) error { return o.during(ctx, true, d.mixed) })
	if err != nil {
		return err
	}
	d.kills++
	if err := d.n.Start(ctx); err != nil {
		return fmt.Errorf("restart under faults: %w", err)
	}
	if o.api, err = d.n.API(); err != nil {
		return err
	}
	if err := d.opened(ctx); err != nil {
		return err
	}
	err = d.e.underLoad(ctx, o.targets, false, func(ctx context.Context) error { return o.during(ctx, false, d.mixed) })
	if err != nil {
		return fmt.Errorf("after the restart: %w", err)
	}
	d.proxy.Off()
	if err := errors.Join(d.resume(ctx), verify(ctx, o.targets)); err != nil {
		return err
	}
	if err := errors.Join(o.check(ctx), d.whole(ctx)); err != nil {
		return err
	}
	return d.fromStore(ctx, orderly)
}

// opened waits until all vDisks run, under faults if that works out, else without.
func (d *storeDrill) opened(ctx context.Context) error {
	running := func(patience time.Duration) error {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		return d.until(ctx, "open", func(v client.VDisk) bool { return v.State == client.VDiskStateRunning })
	}
	if running(openPatience) == nil {
		return nil
	}
	d.proxy.Off()
	return running(resumePatience)
}

// until waits until all vDisks are as they are wanted.
func (d *storeDrill) until(ctx context.Context, what string, ok func(client.VDisk) bool) error {
	start := time.Now()
	for _, t := range d.o.targets {
		var v client.VDisk
		err := until(ctx, func() (bool, error) {
			var err error
			v, err = client.Get[client.VDisk](d.o.api.GetVDisk(ctx, t.name))
			return err == nil && ok(v), err
		})
		if err != nil {
			return fmt.Errorf("vdisk %s is not %s after %v: %s (%s), write %d of %d: %w",
				t.name, what, time.Since(start).Round(time.Second), v.State, v.StateReason, v.CommittedSeq, v.LastSeq, err)
		}
	}
	return nil
}

// eachFault has one kind of fault happen after the other.
func (d *storeDrill) eachFault(ctx context.Context) error {
	defer d.proxy.Off() // what was begun comes to its end
	all := slices.Sorted(maps.Keys(faultproxy.Even(1, d.kind.never)))
	d.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for _, k := range all {
		chance := 0.25
		switch k {
		case faultproxy.Stall:
			chance = 0.05
		case faultproxy.StaleList: // lists are rare
			chance = 1
		}
		d.proxy.SetChances(map[faultproxy.Kind]float64{k: chance})
		d.proxy.On()
		if err := d.happens(ctx, k); err != nil {
			return err
		}
	}
	return nil
}

// happens waits until there were enough faults of a kind.
func (d *storeDrill) happens(ctx context.Context, k faultproxy.Kind) error {
	before := d.proxy.Count(k)
	limited, cancel := context.WithTimeout(ctx, faultPatience)
	defer cancel()
	err := until(limited, func() (bool, error) {
		if d.proxy.Count(k)-before >= faultsEach {
			return true, nil
		}
		if k != faultproxy.StaleList {
			return false, nil
		}
		err := d.sweep(limited) // which lists
		if err != nil && (refused(err) || forgiven(err)) {
			err = nil
		}
		return false, err
	})
	if d.proxy.Count(k)-before >= faultsEach { // a sweep takes its time
		return nil
	}
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("%d requests were %s within %v, want %d: %w", d.proxy.Count(k)-before, k, faultPatience, faultsEach, err)
	}
	return err
}

// mixed has several mixes of faults happen.
func (d *storeDrill) mixed(ctx context.Context) error {
	for range mixes {
		chances, total := faultproxy.Even(1, d.kind.never), 0.0
		for _, k := range slices.Sorted(maps.Keys(chances)) { // a seed gives the same mixes again
			chances[k] = d.rng.Float64()
			total += chances[k]
		}
		share := 0.1 + 0.3*d.rng.Float64()
		for k := range chances {
			chances[k] *= share / total
		}
		d.proxy.SetChances(chances)
		d.proxy.On()
		if err := sleep(ctx, mixTime); err != nil {
			return err
		}
	}
	return nil
}

// sweep deletes what nothing reaches in both vPools.
func (d *storeDrill) sweep(ctx context.Context) error {
	for _, vpool := range []string{"drill", "other"} {
		if err := client.Done(d.o.api.SweepVPool(ctx, vpool, client.SweepInput{})); err != nil {
			return err
		}
		if err := until(ctx, func() (bool, error) {
			s, err := client.Get[client.Sweep](d.o.api.GetVPoolSweep(ctx, vpool))
			if err == nil && s.Failure != "" {
				err = fmt.Errorf("sweep of vpool %s %w: %s", vpool, errJob, s.Failure)
			}
			return s.Ended != nil, err
		}); err != nil {
			return err
		}
	}
	return nil
}

// resume waits until every vDisk runs and is on the store, for which nobody asks.
func (d *storeDrill) resume(ctx context.Context) error {
	start := time.Now()
	limited, cancel := context.WithTimeout(ctx, resumePatience)
	defer cancel()
	err := d.until(limited, "on the store", func(v client.VDisk) bool {
		return v.State == client.VDiskStateRunning && v.CommittedSeq == v.LastSeq
	})
	if err != nil {
		return err
	}
	d.resumed = max(d.resumed, time.Since(start))
	return nil
}

// whole checks everything that is on the store.
func (d *storeDrill) whole(ctx context.Context) error {
	if err := d.sweep(ctx); err != nil {
		return err
	}
	for _, t := range d.o.targets {
		if _, err := d.n.CLI(ctx, "vdisk", "verify", t.name); err != nil {
			return err
		}
	}
	for _, name := range d.proxy.Overwritten() {
		if !overwritable(name) {
			return fmt.Errorf("object %s was put twice with other bytes (E1)", name)
		}
	}
	return nil
}

// fromStore loses everything but the store and what the store's owner keeps: its
// credentials and the key. What was there is there again.
func (d *storeDrill) fromStore(ctx context.Context, orderly bool) error {
	before, err := d.snapshots(ctx)
	if err != nil {
		return err
	}
	if err := d.resume(ctx); err != nil { // clones were made and deleted
		return err
	}
	end := d.n.Kill
	if orderly {
		end = d.n.Stop
	}
	if err := errors.Join(end(), os.RemoveAll(d.n.Data())); err != nil {
		return err
	}
	if err := d.fresh(ctx); err != nil {
		return err
	}
	d.o.n = d.n
	if d.o.api, err = d.n.API(); err != nil {
		return err
	}
	if err := d.recover(ctx, orderly); err != nil {
		return err
	}
	for _, t := range d.o.targets {
		if t.conn, err = d.n.Publish(ctx, t.name); err != nil {
			return err
		}
	}
	if err := errors.Join(verify(ctx, d.o.targets), d.o.check(ctx), d.whole(ctx)); err != nil {
		return fmt.Errorf("from the store alone: %w", err)
	}
	after, err := d.snapshots(ctx)
	if err == nil && !maps.Equal(before, after) {
		err = fmt.Errorf("snapshots have %w from the store alone: %v, want %v", errOther, after, before)
	}
	return err
}

// recover registers both vPools and checks what is found.
func (d *storeDrill) recover(ctx context.Context, orderly bool) error {
	found := map[string]bool{}
	for vpool, flags := range map[string][]string{"drill": nil, "other": {"--key-file", d.keyFile}} {
		r, err := d.n.RecoverVPool(ctx, vpool, vpool, append(d.settings(), flags...)...)
		if err != nil {
			return err
		}
		for _, v := range r.Vdisks {
			d.e.say("%s: recovered %s of %s: clean %v, state %s, last seq %d", d.kind.name, v.Name, vpool, v.Clean, v.State, v.LastSeq)
			if !slices.ContainsFunc(d.o.targets, func(t *target) bool { return t.name == v.Name }) {
				// From the trash, or deleted for good, when a put of its head that was on its way
				// came after everything else of it was gone. Its owner deletes it again.
				if _, err := d.n.CLI(ctx, "vdisk", "delete", v.Name, "--purge", "--yes"); err != nil {
					return err
				}
				d.back++
				continue
			}
			found[v.Name] = true
			if orderly && !v.Clean {
				return fmt.Errorf("vdisk %s came back unclean from an orderly stop", v.Name)
			}
			if !v.Clean {
				if _, err := d.n.CLI(ctx, "vdisk", "accept-loss", v.Name, "--yes"); err != nil {
					return err
				}
			}
		}
	}
	for _, t := range d.o.targets {
		if !found[t.name] {
			return fmt.Errorf("vdisk %s is not on the store: found %v", t.name, slices.Sorted(maps.Keys(found)))
		}
	}
	return nil
}

// snapshots returns the checksum of the newest known snapshot of each vDisk.
func (d *storeDrill) snapshots(ctx context.Context) (map[string]string, error) {
	sums := map[string]string{}
	for _, t := range d.o.targets {
		all := d.o.known(t.name)
		if len(all) == 0 {
			continue
		}
		d.o.serial++
		name := fmt.Sprint("look", d.o.serial)
		d.o.clones[name] = true
		if err := client.Done(d.o.api.CloneVDisk(ctx, t.name, nil, client.CloneInput{Name: name, Snapshot: &all[len(all)-1]})); err != nil {
			return nil, err
		}
		digest, err := d.o.export(ctx, name)
		if err != nil {
			return nil, err
		}
		sums[t.name+"@"+all[len(all)-1]] = digest
		if err := d.o.drop(ctx, name); err != nil {
			return nil, err
		}
	}
	return sums, nil
}
