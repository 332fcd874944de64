package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/openvstorage/ovgate/scripts/drill/lun"
)

// forwardPrefix begins the keys of the set forward.
const forwardPrefix = "fw-"

// forwardGoals are the rows: what is left through a node that forwards.
var forwardGoals = []struct {
	load flood
	what string
	goal float64
}{
	{flood{"read-4k-qd32", false, 4 << 10, 32, 1}, "4k random read QD32", 0.5},
	{flood{"read-4k-qd1", false, 4 << 10, 1, 1}, "4k random read QD1", 0},
	{flood{"write-4k-qd32", true, 4 << 10, 32, 1}, "4k random write QD32", 0},
	{flood{"read-64k-qd8", false, 64 << 10, 8, 1}, "64k random read QD8", 0},
}

func forwardKey(side, load string) string { return forwardPrefix + side + "-" + load }

// forwardComparisons are the rows of the set forward.
func (r *results) forwardComparisons() []comparison {
	var out []comparison
	for _, g := range forwardGoals {
		out = append(out,
			comparison{"target " + g.what + " through a node that forwards, direct", forwardKey("far", g.load.name), forwardKey("direct", g.load.name), g.goal, ""},
			comparison{"target " + g.what + " through a node that forwards in the clear, direct", forwardKey("clear", g.load.name), forwardKey("direct", g.load.name), g.goal, ""})
	}
	return out
}

// measureForward prepares the sides of the set forward and runs its rounds.
func measureForward(ctx context.Context, o options, dir string, r *results) (err error) {
	r.noise = newNoise()
	fmt.Println("bench: preparing three memtargets")
	owner, err := startMemtarget(ctx, dir, "-size", fmt.Sprint(frontSize), "-forward", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, owner.stop()) }()
	far, err := startMemtarget(ctx, dir, "-size", fmt.Sprint(frontSize), "-owner", owner.forward)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, far.stop()) }()
	inClear, err := startMemtarget(ctx, dir, "-size", fmt.Sprint(frontSize), "-owner", owner.forward, "-clear")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, inClear.stop()) }()
	r.noise.pids = append(r.noise.pids, owner.cmd.Process.Pid, far.cmd.Process.Pid, inClear.cmd.Process.Pid)
	r.configs = append(r.configs,
		[2]string{forwardPrefix + "direct", "memtarget, 256 MiB of memory"},
		[2]string{forwardPrefix + "far", "a memtarget that forwards to that one, TLS 1.3 between them"},
		[2]string{forwardPrefix + "clear", "the same, in the clear after the handshake (dtl: clear)"})
	var steps []step
	for _, g := range forwardGoals {
		steps = append(steps,
			floodStep(forwardKey("direct", g.load.name), g.load, lun.Address{Portal: owner.portal, IQN: owner.iqn, LUN: 0}, owner.cmd.Process.Pid),
			floodStep(forwardKey("far", g.load.name), g.load, lun.Address{Portal: far.portal, IQN: far.iqn, LUN: 0}, far.cmd.Process.Pid),
			floodStep(forwardKey("clear", g.load.name), g.load, lun.Address{Portal: inClear.portal, IQN: inClear.iqn, LUN: 0}, inClear.cmd.Process.Pid))
	}
	if err := rounds(ctx, o, steps, r); err != nil {
		return err
	}
	r.forward = fmt.Sprintf("client and targets on the same CPUs, loopback TCP; %s", r.noise)
	return nil
}
