package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/scripts/bench/benchdisk"
	"github.com/openvstorage/ovgate/scripts/drill/lun"
)

const (
	// memoryDir is where the file of both sides lies.
	memoryDir = "/dev/shm"
	// frontSize is the size of every LUN of the set: beyond the processor's
	// caches, and small enough to be in memory twice.
	frontSize  = 256 << 20
	needMemory = 2 * frontSize
	// slowDelay is what the slow device takes for a command.
	slowDelay = time.Millisecond
	// frontEndPrefix begins the keys of the set.
	frontEndPrefix = "fe-"
)

// frontLoads are the loads of the set.
var frontLoads = []flood{
	{"read-4k-qd1", false, 4 << 10, 1, 1},
	{"read-4k-qd32", false, 4 << 10, 32, 1},
	{"write-4k-qd32", true, 4 << 10, 32, 1},
	{"read-64k-qd8", false, 64 << 10, 8, 1},
	{"write-1m-qd4", true, 1 << 20, 4, 1},
	{"read-4k-qd32x4", false, 4 << 10, 32, 4},
}

// frontGoals are the rows: what the memory device is to reach beside tgt.
var frontGoals = []struct {
	load, what string
	goal       float64
}{
	{"read-4k-qd1", "4k random read QD1", 1.3},
	{"read-4k-qd32", "4k random read QD32", 2.5},
	{"write-4k-qd32", "4k random write QD32", 2},
	{"read-64k-qd8", "64k random read QD8", 1.5},
	{"write-1m-qd4", "1 MiB random write QD4", 2},
	{"read-4k-qd32x4", "4k random read QD32, four sessions", 3.5},
}

// cpuGoal is 1 / 0.35: the target may take 0.35 of the peer's CPU time.
const cpuGoal = 2.86

const (
	slowKey   = frontEndPrefix + "slow-read-qd32"
	directKey = frontEndPrefix + "direct-read-qd32"
)

func frontKey(side, load string) string { return frontEndPrefix + side + "-" + load }

// frontEndComparisons are the rows of the set iscsi.
func (r *results) frontEndComparisons() []comparison {
	var out []comparison
	for _, side := range []struct{ key, what string }{{"memory", "memory device"}, {"file", "file device, tgt on the same file"}} {
		for _, g := range frontGoals {
			goal := g.goal
			if side.key != "memory" {
				goal = 0
			}
			out = append(out, comparison{"target " + g.what + ", " + side.what, frontKey(side.key, g.load), frontKey("tgt", g.load), goal, ""})
		}
		goal := cpuGoal
		if side.key != "memory" {
			goal = 0
		}
		const load = "read-4k-qd32"
		out = append(out, comparison{"target 4k random read QD32 per CPU time of the target, " + side.what,
			frontKey(side.key, load) + perCPU, frontKey("tgt", load) + perCPU, goal, "I/Os per CPU second"})
	}
	return append(out, comparison{"target 4k random read QD32, device of 1 ms, the device called directly", slowKey, directKey, 0.65, ""})
}

// memtarget is our side in a process of its own.
type memtarget struct {
	cmd    *exec.Cmd
	portal string
	iqn    string

	forward string // where other memtargets forward to
}

func startMemtarget(ctx context.Context, dir string, args ...string) (*memtarget, error) {
	bin := filepath.Join(dir, "memtarget")
	build := exec.CommandContext(ctx, "go", "build", "-o", bin, "./scripts/bench/memtarget")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return nil, fmt.Errorf("building memtarget: %w", err)
	}
	m := &memtarget{cmd: exec.Command(bin, args...)}
	m.cmd.Stderr = os.Stderr
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := m.cmd.Start(); err != nil {
		return nil, err
	}
	for s := bufio.NewScanner(out); m.iqn == "" && s.Scan(); {
		switch k, v, _ := strings.Cut(s.Text(), "="); k {
		case "forward":
			m.forward = v
		case "portal":
			m.portal = v
		case "iqn":
			m.iqn = v
		}
	}
	if m.iqn == "" {
		return nil, errors.Join(errors.New("memtarget does not start"), m.stop())
	}
	return m, nil
}

func (m *memtarget) stop() error {
	if err := m.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return errors.Join(err, m.cmd.Wait())
	}
	return m.cmd.Wait()
}

// frontTgt is tgt with one thread count.
type frontTgt struct {
	threads int
	pid     int
	address lun.Address
	close   func() error
}

func startFrontTgt(ctx context.Context, dir, file string, threads int) (*frontTgt, error) {
	p, err := startPeer(ctx, dir, "tgt", fmt.Sprint("front", threads), "--file", file, "--threads", fmt.Sprint(threads))
	if err != nil {
		return nil, err
	}
	t := &frontTgt{threads: threads, address: lun.Address{Portal: p.Said["portal"], IQN: p.Said["iqn"], LUN: 1}, close: p.Close}
	if t.pid, err = peerPID(p); err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

// measureFrontEnd prepares the sides of the set iscsi and runs its rounds.
func measureFrontEnd(ctx context.Context, o options, dir string, r *results) (err error) {
	r.noise = newNoise()
	fmt.Println("bench: preparing memtarget and tgt")
	file := filepath.Join(dir, "lun.img")
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if err := errors.Join(fill(f, frontSize), f.Close()); err != nil {
		return err
	}
	ours, err := startMemtarget(ctx, dir, "-size", fmt.Sprint(frontSize), "-file", file, "-delay", slowDelay.String())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ours.stop()) }()
	r.noise.pids = append(r.noise.pids, ours.cmd.Process.Pid)
	var tgts []*frontTgt
	defer func() {
		for _, t := range tgts {
			err = errors.Join(err, t.close())
		}
	}()
	for _, n := range tgtThreads {
		t, err := startFrontTgt(ctx, dir, file, n)
		if err != nil {
			return err
		}
		tgts = append(tgts, t)
		r.noise.pids = append(r.noise.pids, t.pid)
	}
	steps, err := frontSteps(ctx, o, ours, tgts, r)
	if err != nil {
		return err
	}
	if err := rounds(ctx, o, steps, r); err != nil {
		return err
	}
	r.memory = fmt.Sprintf("one client for both sides: the project's initiator, CHAP and digests off, loopback TCP; %s", r.noise)
	return nil
}

// frontSteps finds tgt's best thread count for each load and lists the steps.
func frontSteps(ctx context.Context, o options, ours *memtarget, tgts []*frontTgt, r *results) ([]step, error) {
	pid := ours.cmd.Process.Pid
	r.configs = append(r.configs,
		[2]string{frontEndPrefix + "memory", "memtarget, 256 MiB of memory"},
		[2]string{frontEndPrefix + "file", "memtarget, 256 MiB file on /dev/shm"},
		[2]string{frontEndPrefix + "slow", "memtarget, memory that takes 1 ms"},
		[2]string{frontEndPrefix + "direct", "the same device, 32 calls at once from one process"})
	var steps []step
	for _, f := range frontLoads {
		best, bestRate := tgts[0], 0.0
		for _, t := range tgts {
			rate, _, err := f.run(ctx, t.address, frontSize, o.seconds, uint64(t.threads))
			if err != nil {
				return nil, err
			}
			fmt.Printf("  tune %-16s %2d threads %9.0f /s\n", f.name, t.threads, rate)
			if rate > bestRate {
				best, bestRate = t, rate
			}
		}
		r.configs = append(r.configs, [2]string{frontKey("tgt", f.name),
			fmt.Sprintf("Debian tgt, bs rdwr, 256 MiB file on /dev/shm, %d threads (best of %v)", best.threads, tgtThreads)})
		steps = append(steps,
			floodStep(frontKey("memory", f.name), f, lun.Address{Portal: ours.portal, IQN: ours.iqn, LUN: 0}, pid),
			floodStep(frontKey("tgt", f.name), f, best.address, best.pid),
			floodStep(frontKey("file", f.name), f, lun.Address{Portal: ours.portal, IQN: ours.iqn, LUN: 1}, pid))
	}
	slow := flood{"slow", false, 4 << 10, 32, 1}
	return append(steps,
		floodStep(slowKey, slow, lun.Address{Portal: ours.portal, IQN: ours.iqn, LUN: 2}, pid),
		step{key: directKey, settle: nothing, run: direct}), nil
}

func nothing(context.Context) error { return nil }

func floodStep(key string, f flood, a lun.Address, pid int) step {
	return step{key: key, settle: nothing, pid: pid, run: func(ctx context.Context, seconds float64, seed uint64) (float64, int64, error) {
		return f.run(ctx, a, frontSize, seconds, seed)
	}}
}

// caller keeps one read in flight on a device, without a target.
type caller struct {
	d    iscsi.Disk
	op   iscsi.Op
	ops  *atomic.Int64
	stop *atomic.Bool
	left chan error
}

// Complete implements iscsi.Completer.
func (c *caller) Complete(op *iscsi.Op) {
	if op.Err != nil || c.stop.Load() {
		c.left <- op.Err
		return
	}
	c.ops.Add(1)
	op.Offset = (op.Offset + 7919*4096) % frontSize
	c.d.Submit(op)
}

// direct calls the slow device itself, 32 reads at once.
func direct(ctx context.Context, seconds float64, _ uint64) (float64, int64, error) {
	const depth = 32
	d := &benchdisk.Slow{Disk: benchdisk.NewMemory(frontSize), Delay: slowDelay}
	var ops atomic.Int64
	var stop atomic.Bool
	left := make(chan error, depth)
	start := time.Now()
	for i := range depth {
		c := &caller{d: d, ops: &ops, stop: &stop, left: left}
		c.op = iscsi.Op{Kind: iscsi.OpRead, Offset: int64(i) * 4096, Data: make([]byte, 4096), Done: c}
		d.Submit(&c.op)
	}
	t := time.NewTimer(time.Duration(seconds * float64(time.Second)))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	n := ops.Load()
	rate := float64(n) / time.Since(start).Seconds()
	stop.Store(true)
	var err error
	for range depth {
		err = errors.Join(err, <-left)
	}
	return rate, n, errors.Join(err, ctx.Err())
}
