package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/openvstorage/ovgate/internal/client"
	"github.com/openvstorage/ovgate/scripts/drill/node"
)

const (
	// opsMin and opsMax bound the time of operations under load before the blow.
	opsMin = 2 * time.Second
	opsMax = 5 * time.Second
	// opsPause is how long the node's process stands still in a round that it lives
	// through, and opsLongPause in the first one of a long drill.
	opsPause     = 2 * time.Second
	opsLongPause = time.Minute
	opsLong      = 20 // rounds
	// opsSnapshots is how many snapshots a vDisk has at most.
	opsSnapshots = 12
)

// vdiskOps does to vDisks under load what administrators do, and knows what the node
// said that it did.
type vdiskOps struct {
	e       *env
	n       *node.Node
	api     *client.Client
	targets []*target
	blocks  int64 // of each
	serial  int
	// have and gone are snapshots, by vDisk and name, whose creation or deletion was
	// acknowledged. What was asked for and not answered is in neither.
	have, gone map[[2]string]bool
	clones     map[string]bool
	rolled     map[string]string // checksums of clones before they were written to
	counts     map[string]int
	paused     bool
	stop       chan struct{} // closed when the round is to end: what runs is not waited for
	// forgiven tells errors that may happen, after which it is not known what was done;
	// nil: none.
	forgiven func(error) bool
}

// errOther: a vDisk holds other data than it must. It is never forgiven.
var errOther = errors.New("other data")

// errJob: something that the node does by itself failed.
var errJob = errors.New("failed")

func newOps(e *env, n *node.Node, targets []*target, blocks int64) *vdiskOps {
	return &vdiskOps{e: e, n: n, targets: targets, blocks: blocks, have: map[[2]string]bool{}, gone: map[[2]string]bool{}, clones: map[string]bool{}, rolled: map[string]string{}, counts: map[string]int{}}
}

// operations: every other round ends with kill -9 while the node works on operations; in
// the others its process stands still for a while.
func operations(ctx context.Context, e *env) (string, error) {
	n, err := e.drillNode(ctx, smallSettings...)
	if err != nil {
		return "", err
	}
	if err := n.CreateVPool(ctx, "other", filepath.Join(e.dir, "other"), smallSettings...); err != nil {
		return "", err
	}
	targets, err := e.targets(ctx, n, loadDisks)
	if err != nil {
		return "", err
	}
	o := newOps(e, n, targets, loadBlocks)
	kills := 0
	for round := range e.rounds {
		lethal := round%2 == 1
		if o.api, err = n.API(); err != nil {
			return "", err
		}
		err := e.underLoad(ctx, targets, lethal, func(ctx context.Context) error { return o.round(ctx, lethal) })
		if err != nil {
			return "", fmt.Errorf("round %d: %w", round+1, err)
		}
		if lethal {
			kills++
			if err := n.Start(ctx); err != nil {
				return "", fmt.Errorf("round %d: restart: %w", round+1, err)
			}
			if o.api, err = n.API(); err != nil {
				return "", err
			}
		}
		if err := errors.Join(verify(ctx, targets), o.check(ctx)); err != nil {
			return "", fmt.Errorf("round %d: %w", round+1, err)
		}
		e.say("round %d: %s; all verified", round+1, o.text())
	}
	if err := n.Stop(); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d rounds, %d of them killed, %s, %d blocks acknowledged, 0 lost", e.rounds, kills, o.text(), sum(targets).Blocks), nil
}

// text says what was done.
func (o *vdiskOps) text() string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(o.counts)) {
		all = append(all, fmt.Sprintf("%d %s", o.counts[k], k))
	}
	return strings.Join(all, ", ")
}

// round does operations for a while, then kills the node in the middle of one.
func (o *vdiskOps) round(ctx context.Context, lethal bool) error {
	span := opsMin + time.Duration(o.e.rng.Int64N(int64(opsMax-opsMin)))
	return o.during(ctx, lethal, func(ctx context.Context) error {
		if err := sleep(ctx, span/2); err != nil {
			return err
		}
		if !lethal {
			if err := o.standStill(ctx); err != nil {
				return err
			}
		}
		return sleep(ctx, span/2)
	})
}

// during does one operation after the other until work returns. A lethal one ends with
// kill -9 in the middle of an operation. The context of work ends when an operation fails.
func (o *vdiskOps) during(ctx context.Context, lethal bool, work func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	working, failed := context.WithCancel(ctx)
	defer failed()
	done := make(chan error, 1)
	stop := make(chan struct{})
	o.stop = stop
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if err := o.one(ctx); err != nil {
				failed()
				done <- err
				return
			}
		}
	}()
	err := work(working)
	if working.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("on a living node: %w", errors.Join(<-done, err))
	}
	if lethal {
		err = errors.Join(err, o.n.Kill())
		cancel() // what was not answered is not known
		<-done
		return err
	}
	close(stop)
	return errors.Join(err, <-done)
}

// standStill stops the node's process for a while, in the middle of whatever it does.
func (o *vdiskOps) standStill(ctx context.Context) error {
	span := opsPause
	if o.e.rounds >= opsLong && !o.paused {
		span = opsLongPause
	}
	o.paused = true
	if err := o.n.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	return errors.Join(sleep(ctx, span), o.n.Signal(syscall.SIGCONT))
}

// refused tells whether a node said no because of what it is doing.
func refused(err error) bool {
	var e *client.APIError
	var exit *exec.ExitError
	return errors.As(err, &e) && e.Code == "in_use" || errors.As(err, &exit) && exit.ExitCode() == exitRefused
}

// exitRefused is how ovgate ends when the node said no because of its state.
const exitRefused = 4

// one does one operation and waits for its end. Only one runs at a time.
func (o *vdiskOps) one(ctx context.Context) error {
	t := o.targets[o.e.rng.IntN(len(o.targets))]
	o.serial++
	what, err := "", error(nil)
	switch o.e.rng.IntN(10) {
	case 0, 1:
		what, err = "snapshots", o.snapshot(ctx, t.name)
	case 2:
		what, err = "snapshot deletes", o.deleteSnapshot(ctx, t.name)
	case 3:
		what, err = "clones made and deleted", o.clone(ctx, t.name)
	case 4:
		what, err = "scrubs", o.scrub(ctx, t.name)
	case 5:
		what, err = "group snapshots", o.group(ctx)
	case 6:
		what, err = "moves", o.move(ctx, t.name)
	case 7:
		what = "commits"
		err = client.Done(o.api.CommitVDisk(ctx, t.name))
	case 8:
		what, err = "rollbacks", o.rollback(ctx, t.name)
	case 9:
		what, err = "backups restored", o.backup(ctx, t.name)
	}
	switch {
	case refused(err):
		what, err = "refusals", nil
	case err != nil && o.forgiven != nil && ctx.Err() == nil && !errors.Is(err, errOther) && o.forgiven(err):
		what, err = "operations given up", nil
	}
	if err == nil && what != "" {
		o.counts[what]++
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", what, err)
	}
	return err
}

// known returns the snapshots that a vDisk has for sure.
func (o *vdiskOps) known(vdisk string) (names []string) {
	for k := range o.have {
		if k[0] == vdisk {
			names = append(names, k[1])
		}
	}
	slices.Sort(names)
	return names
}

func (o *vdiskOps) snapshot(ctx context.Context, vdisk string) error {
	if len(o.known(vdisk)) >= opsSnapshots {
		return o.deleteSnapshot(ctx, vdisk)
	}
	name := fmt.Sprint("s", o.serial)
	err := client.Done(o.api.CreateSnapshot(ctx, vdisk, &client.CreateSnapshotParams{IdempotencyKey: new(rand.Text())}, client.SnapshotInput{Name: name}))
	if err == nil {
		o.have[[2]string{vdisk, name}] = true
	}
	return err
}

func (o *vdiskOps) deleteSnapshot(ctx context.Context, vdisk string) error {
	all := o.known(vdisk)
	if len(all) == 0 {
		return nil
	}
	key := [2]string{vdisk, all[o.e.rng.IntN(len(all))]}
	delete(o.have, key)
	err := client.Done(o.api.DeleteSnapshot(ctx, vdisk, key[1], nil))
	if err == nil {
		o.gone[key] = true
	}
	return err
}

const groupTries = 3 // of a group snapshot

func (o *vdiskOps) group(ctx context.Context) error {
	in := client.SnapshotGroupInput{Name: fmt.Sprint("g", o.serial)}
	for _, t := range o.targets {
		if len(o.known(t.name)) >= opsSnapshots {
			return o.deleteSnapshot(ctx, t.name)
		}
		in.Vdisks = append(in.Vdisks, t.name)
	}
	var err error
	// On a disk that is busy with everything else vDisks may not come to rest in time; that
	// is said, and nothing was done.
	for range groupTries {
		err = client.Done(o.api.CreateSnapshotGroup(ctx, &client.CreateSnapshotGroupParams{IdempotencyKey: new(rand.Text())}, in))
		if err == nil || !strings.Contains(err.Error(), "did not all come to rest") {
			break
		}
	}
	if err == nil {
		for _, t := range o.targets {
			o.have[[2]string{t.name, in.Name}] = true
		}
	}
	return err
}

// clone makes a clone and deletes it, sometimes through the trash.
func (o *vdiskOps) clone(ctx context.Context, vdisk string) error {
	name := fmt.Sprint("c", o.serial)
	in := client.CloneInput{Name: name}
	if all := o.known(vdisk); len(all) > 0 {
		in.Snapshot = &all[o.e.rng.IntN(len(all))]
	}
	o.clones[name] = true
	if err := client.Done(o.api.CloneVDisk(ctx, vdisk, &client.CloneVDiskParams{IdempotencyKey: new(rand.Text())}, in)); err != nil {
		return err
	}
	purge := o.e.rng.IntN(2) == 0
	if err := client.Done(o.api.DeleteVDisk(ctx, name, &client.DeleteVDiskParams{Purge: &purge})); err != nil {
		return err
	}
	if !purge {
		if err := client.Done(o.api.PurgeTrash(ctx, name)); err != nil {
			return err
		}
	}
	delete(o.clones, name)
	return nil
}

// until polls until ok, which says whether to go on.
func until(ctx context.Context, ok func() (bool, error)) error {
	for {
		done, err := ok()
		if done || err != nil {
			return err
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// follow is until, which the end of the round ends too.
func (o *vdiskOps) follow(ctx context.Context, ok func() (bool, error)) error {
	return until(ctx, func() (bool, error) {
		select {
		case <-o.stop:
			return true, nil
		default:
			return ok()
		}
	})
}

func (o *vdiskOps) scrub(ctx context.Context, vdisk string) error {
	if err := client.Done(o.api.ScrubVDisk(ctx, vdisk, client.ScrubInput{})); err != nil {
		return err
	}
	return o.follow(ctx, func() (bool, error) {
		s, err := client.Get[client.Scrub](o.api.GetVDiskScrub(ctx, vdisk))
		if err == nil && s.Failure != "" {
			err = fmt.Errorf("scrub of %s %w: %s", vdisk, errJob, s.Failure)
		}
		return s.Ended != nil, err
	})
}

func (o *vdiskOps) move(ctx context.Context, vdisk string) error {
	v, err := client.Get[client.VDisk](o.api.GetVDisk(ctx, vdisk))
	if err != nil {
		return err
	}
	to := "other"
	if v.VPool == to {
		to = "drill"
	}
	if err := client.Done(o.api.MoveVDisk(ctx, vdisk, client.MoveInput{VPool: to})); err != nil {
		return err
	}
	return o.follow(ctx, func() (bool, error) {
		v, err := client.Get[client.VDisk](o.api.GetVDisk(ctx, vdisk))
		if err == nil && v.Move != nil && v.Move.Failed != "" {
			err = fmt.Errorf("move of %s %w: %s", vdisk, errJob, v.Move.Failed)
		}
		return v.Move == nil, err
	})
}

// check compares what the node has with what it acknowledged, and clears away what is
// not known.
func (o *vdiskOps) check(ctx context.Context) error {
	for _, t := range o.targets {
		if err := until(ctx, func() (bool, error) { // a move that the blow cut off goes on
			v, err := client.Get[client.VDisk](o.api.GetVDisk(ctx, t.name))
			return v.Move == nil, err
		}); err != nil {
			return err
		}
		l, err := client.Get[client.SnapshotList](o.api.ListSnapshots(ctx, t.name, &client.ListSnapshotsParams{Limit: new(1000)}))
		if err != nil {
			return err
		}
		there := map[string]bool{}
		for _, s := range l.Items {
			there[s.Name] = true
			if o.gone[[2]string{t.name, s.Name}] {
				return fmt.Errorf("vdisk %s: snapshot %s was deleted, and is there", t.name, s.Name)
			}
		}
		for _, name := range o.known(t.name) {
			if !there[name] {
				return fmt.Errorf("vdisk %s: snapshot %s was acknowledged, and is gone", t.name, name)
			}
		}
		for name := range there {
			o.have[[2]string{t.name, name}] = true
		}
	}
	for name := range maps.Clone(o.rolled) { // where the blow met a rollback it is made again
		if err := absent(o.back(ctx, name)); err != nil {
			return err
		}
	}
	for name := range maps.Clone(o.clones) {
		if err := o.drop(ctx, name); err != nil {
			return err
		}
	}
	return nil
}
