package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/openvstorage/ovgate/internal/client"
)

const (
	// racks of perRack ASDs, on machines of albaPerNode: (4,2,5,2) is met with all of them, and
	// (2,2,3,2) with one fewer.
	racks   = 3
	perRack = 2 * albaPerNode
	// A rack is away for longer than it takes to give its ASDs up (albaConfig), twice over.
	rackAwayMin = 6 * time.Second
	rackAwayMax = 10 * time.Second
)

// rackPolicy is what objects are stored with while all racks are there.
const rackPolicy = "(4,2,5,2)"

// rackPreset spreads two fragments to a rack.
var rackPreset = []string{"racks", "--spread", "domain", "--policy", "4,2,5,2", "--policy", "2,2,3,2"}

// albaLoseRacks: vDisks under a self-checking load on an object store of ASD processes in three
// racks. Each round a rack is lost at one blow, for longer than it takes to give its devices up:
// killed, standing still, or destroyed and replaced. No command of an initiator fails, every block
// is right while the rack is away, and once there are three again, all is stored by the first policy.
func albaLoseRacks(ctx context.Context, e *env) (_ string, err error) {
	d := &albaDrill{e: e, perRack: perRack, counts: map[string]int{}}
	defer func() { err = errors.Join(err, d.killAll()) }()
	if err := d.start(ctx, racks*perRack, rackPreset...); err != nil {
		return "", err
	}
	for round := range e.rounds {
		if err := d.rackRound(ctx, round); err != nil {
			return "", fmt.Errorf("round %d: %w", round+1, err)
		}
	}
	took, err := d.end(ctx)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d rounds, %s, %d blocks acknowledged, 0 lost, complete again %v after the last", e.rounds, d.text(), sum(d.targets).Blocks, took.Round(time.Second)), nil
}

// rackFault is what happens to all ASDs of a rack; undo brings them, or others in their places.
type rackFault struct {
	name     string
	do, undo func(ctx context.Context, slot int) error
}

func (d *albaDrill) rackFaults() []rackFault {
	kill := func(_ context.Context, slot int) error { return d.asds[slot].Kill() }
	return []rackFault{
		{"killed", kill, func(ctx context.Context, slot int) error { return d.asds[slot].Start(ctx) }},
		{"stood still",
			func(_ context.Context, slot int) error { return d.asds[slot].Signal(syscall.SIGSTOP) },
			func(_ context.Context, slot int) error { return d.asds[slot].Signal(syscall.SIGCONT) }},
		{"replaced", kill, d.replace},
	}
}

// replace destroys a killed ASD, gives it up, and claims a new one in its place.
func (d *albaDrill) replace(ctx context.Context, slot int) error {
	number := d.numbers[slot]
	if err := os.RemoveAll(d.asds[slot].Dir()); err != nil {
		return err
	}
	if err := d.add(ctx, slot); err != nil {
		return err
	}
	_, err := d.n.CLI(ctx, "--yes", "osd", "purge", strconv.FormatInt(number, 10))
	return err
}

func (d *albaDrill) rackRound(ctx context.Context, round int) error {
	rack := d.e.rng.IntN(racks)
	faults := d.rackFaults()
	f := faults[round%len(faults)]
	each := func(ctx context.Context, do func(context.Context, int) error) error {
		for slot := rack * perRack; slot < (rack+1)*perRack; slot++ {
			if err := do(ctx, slot); err != nil {
				return fmt.Errorf("rack %d, ASD %d, %s: %w", rack+1, d.numbers[slot], f.name, err)
			}
		}
		return nil
	}
	lose := func(ctx context.Context) error {
		if err := d.e.pause(ctx, loadMin, loadMax); err != nil {
			return err
		}
		return errors.Join(each(ctx, f.do), d.e.pause(ctx, rackAwayMin, rackAwayMax))
	}
	regain := func(ctx context.Context) error {
		return errors.Join(each(ctx, f.undo), d.e.pause(ctx, loadMin, loadMax))
	}
	if err := d.e.underLoad(ctx, d.targets, false, lose); err != nil {
		return err
	}
	if err := verify(ctx, d.targets); err != nil {
		return fmt.Errorf("while rack %d is away: %w", rack+1, err)
	}
	away, err := d.alba(ctx)
	if err != nil {
		return err
	}
	if err := d.e.underLoad(ctx, d.targets, false, regain); err != nil {
		return err
	}
	d.counts[f.name]++
	took, err := d.best(ctx)
	if err != nil {
		return fmt.Errorf("after rack %d was %s: %w", rack+1, f.name, err)
	}
	if err := verify(ctx, d.targets); err != nil {
		return err
	}
	d.e.say("round %d: rack %d %s, by policy meanwhile %v; whole and by %s alone %v after; all verified", round+1, rack+1, f.name, away.Policies, rackPolicy, took.Round(time.Millisecond))
	return d.scrub(ctx)
}

// alba returns the state of the object store.
func (d *albaDrill) alba(ctx context.Context) (client.Alba, error) {
	api, err := d.n.API()
	if err != nil {
		return client.Alba{}, err
	}
	return client.Get[client.Alba](api.GetAlba(ctx))
}

// best waits until the object store is complete, everything in it is stored by the first policy,
// and the loss of no rack would lose anything. It returns how long that took.
func (d *albaDrill) best(ctx context.Context) (time.Duration, error) {
	start := time.Now()
	api, err := d.n.API()
	if err != nil {
		return 0, err
	}
	for {
		if _, err := d.whole(ctx); err != nil {
			return 0, err
		}
		s, err := d.alba(ctx)
		if err != nil {
			return 0, err
		}
		list, err := client.Get[client.DomainList](api.ListDomains(ctx, nil))
		if err != nil {
			return 0, err
		}
		lost := map[string]string{} // by rack, or why that is not known
		for _, r := range list.Items {
			switch {
			case r.Devices == 0: // the node's
			case r.Lost == nil:
				lost[r.Name] = "not known"
			case *r.Lost > 0:
				lost[r.Name] = strconv.FormatInt(*r.Lost, 10)
			}
		}
		if len(lost) == 0 && slices.Equal(slices.Collect(maps.Keys(s.Policies)), []string{rackPolicy}) {
			return time.Since(start), nil
		}
		if time.Since(start) > albaPatience {
			return 0, fmt.Errorf("after %v objects are stored by %v, and the loss of racks would lose %v", albaPatience, s.Policies, lost)
		}
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return 0, err
		}
	}
}
