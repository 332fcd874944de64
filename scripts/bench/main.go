// Command bench measures ovgate side by side with the raw disk and with peers,
// and writes bench.json.
//
//	go run ./scripts/bench [-dir DIR] [-rounds N] [-seconds S] [-out FILE] [-engine-only]
//
// # What is compared
//
//	engine  the vDisk engine in this process, durable 4 KiB random writes
//	R       the raw disk: O_DIRECT|O_DSYNC 4 KiB appends at depth 1, on a file
//	        that was preallocated and pre-written
//	iscsi   the real ovgate binary over iSCSI
//	tgt     Debian's tgt over a file on the same disk, with its page cache and
//	        write-through, each with its best thread count
//
// All sides are on one disk, in one run, in interleaved rounds whose order turns
// around each time; a row holds medians. iSCSI clients are the same code with
// the same settings. Before each step dirty pages are written out, the former
// step's uploads are finished and, as root, the page cache is dropped. A step in
// which other processes took much CPU time is measured again (see noise).
//
// A row: {name, value, unit, peer, peer_value, ratio, goal, config}; ratio is
// value / peer_value, goal the ratio aimed at (0: none, for the record).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// needBytes is the free space the bench asks for: the files of all sides, and
// what overwritten data take on the backends during the run.
const needBytes = 24 << 30

// minRounds is how many rounds a row needs to count.
const minRounds = 5

type options struct {
	dir        string
	rounds     int
	seconds    float64
	out        string
	engineOnly bool
}

func main() {
	var o options
	flag.StringVar(&o.dir, "dir", "", "directory on the disk to measure (default: the temporary directory)")
	flag.IntVar(&o.rounds, "rounds", minRounds, "interleaved rounds; fewer than 5 give no countable rows")
	flag.Float64Var(&o.seconds, "seconds", 2.5, "length of a step")
	flag.StringVar(&o.out, "out", "bench.json", "where the rows go")
	flag.BoolVar(&o.engineOnly, "engine-only", false, "engine and raw disk only")
	flag.Parse()
	if err := bench(o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(o options) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp(o.dir, "ovgate-bench-")
	if err != nil {
		return err
	}
	var fsStat syscall.Statfs_t
	if err := syscall.Statfs(dir, &fsStat); err != nil {
		return err
	}
	if free := int64(fsStat.Bavail) * fsStat.Bsize; free < needBytes {
		return errors.Join(fmt.Errorf("%s has %d GiB free, the bench needs %d: choose another disk with -dir", dir, free>>30, int64(needBytes)>>30),
			os.RemoveAll(dir))
	}
	start := time.Now()
	r := &results{noise: noise{pids: []int{os.Getpid()}, repeats: maxTotalRepeats}}
	err = measure(ctx, o, dir, r)
	err = errors.Join(err, os.RemoveAll(dir))
	if err != nil {
		return err
	}
	rows := r.rows(o)
	if err := writeRows(o.out, rows); err != nil {
		return err
	}
	printRows(os.Stdout, rows)
	fmt.Printf("bench: %d rows in %s after %v\n", len(rows), o.out, time.Since(start).Round(time.Second))
	return nil
}

// step is one measurement of a round.
type step struct {
	key    string
	work   work
	disk   disk
	size   int64
	settle func(context.Context) error
}

// measure prepares all sides and runs the rounds.
func measure(ctx context.Context, o options, dir string, r *results) (err error) {
	fmt.Println("bench: preparing the raw disk and the engine")
	disk, err := openRaw(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, disk.close()) }()
	e, err := openEngine(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.close(context.Background())) }()
	steps := rawSteps(disk, e)
	if !o.engineOnly {
		targets, err := openTargets(ctx, o, dir)
		defer func() {
			for _, t := range targets {
				if t.disk != nil {
					err = errors.Join(err, t.disk.Close())
				}
				err = errors.Join(err, t.close())
			}
		}()
		if err != nil {
			return err
		}
		for _, t := range targets {
			r.configs = append(r.configs, [2]string{t.name, t.config})
			r.noise.pids = append(r.noise.pids, t.pid)
			steps = append(steps, targetSteps(t)...)
		}
	}
	for round := range o.rounds {
		order := slices.Clone(steps)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, s := range order {
			if err := s.measure(ctx, o, round, 0, r); err != nil {
				return err
			}
		}
	}
	r.engine = e.quotas()
	return nil
}

// measure runs one step from a settled machine, again when others disturbed it.
func (s step) measure(ctx context.Context, o options, round, try int, r *results) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := errors.Join(s.settle(ctx), settleDisk(true)); err != nil {
		return err
	}
	before, err := r.noise.sample()
	if err != nil {
		return err
	}
	rate, err := s.work.run(s.disk, s.size, o.seconds, uint64(round)<<32|uint64(try))
	if err != nil {
		return fmt.Errorf("%s: %w", s.key, err)
	}
	others, err := r.noise.others(before)
	if err != nil {
		return err
	}
	fmt.Printf("  round %d  %-26s %9.0f /s  others %.2f CPUs\n", round+1, s.key, rate, others)
	if r.noise.again(others, try) {
		return s.measure(ctx, o, round, try+1, r)
	}
	r.add(s.key, rate)
	return nil
}

func openTargets(ctx context.Context, o options, dir string) ([]*target, error) {
	fmt.Println("bench: preparing ovgate and tgt")
	n, err := openNode(ctx, dir)
	if err != nil {
		return nil, err
	}
	targets := []*target{n}
	for _, mode := range tgtModes {
		t, err := tuneTgt(ctx, dir, mode, o.seconds)
		if err != nil {
			return targets, err
		}
		targets = append(targets, t)
	}
	return targets, nil
}

func rawSteps(d *raw, e *engine) []step {
	none := func(context.Context) error { return nil }
	return []step{
		{"raw-append-dsync-qd1", work{"raw append", true, 1, 0}, appender{d}, appendSize, none},
		{"raw-write-qd1", work{"raw write", true, 1, 0}, d.random, rawSize, none},
		{"raw-write-qd32", work{"raw write", true, 32, 0}, d.random, rawSize, none},
		{"engine-write-qd1", work{"engine write", true, 1, 0}, e, engineSize, e.vol.Commit},
		{"engine-write-qd32", work{"engine write", true, 32, 4 * quota}, e, engineSize, e.vol.Commit},
	}
}

// targetSteps are the steps of a LUN. ovgate and the page-cached tgt both write
// four journal quotas at depth 32: what either puts off comes due in the step.
func targetSteps(t *target) []step {
	both := t.name == "ovgate" || t.name == "tgt-cached"
	least := int64(0)
	if both {
		least = 4 * quota
	}
	out := []step{
		{t.name + "-write-qd1", work{"write", true, 1, 0}, t.disk, lunSize, t.settle},
		{t.name + "-write-qd32", work{"write", true, 32, least}, t.disk, lunSize, t.settle},
	}
	if both {
		out = append(out,
			step{t.name + "-read-qd1", work{"read", false, 1, 0}, t.disk, lunSize, t.settle},
			step{t.name + "-read-qd32", work{"read", false, 32, 0}, t.disk, lunSize, t.settle})
	}
	return out
}

// dropCaches is the kernel's switch for throwing clean pages away.
const dropCaches = "/proc/sys/vm/drop_caches"

// settleDisk writes dirty pages out and drops the page cache, where it may.
func settleDisk(drop bool) error {
	syscall.Sync()
	if !drop {
		return nil
	}
	err := os.WriteFile(dropCaches, []byte("3"), 0)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return nil // said in every row's config
	}
	return err
}

// cachesDropped says whether settleDisk can.
func cachesDropped() string {
	f, err := os.OpenFile(filepath.Clean(dropCaches), os.O_WRONLY, 0)
	if err != nil {
		return "page cache NOT dropped (not root)"
	}
	if err := f.Close(); err != nil {
		return "page cache NOT dropped"
	}
	return "page cache dropped before each step"
}
