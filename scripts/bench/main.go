// Command bench measures ovgate side by side with the raw disk and with peers,
// and writes bench.json.
//
//	go run ./scripts/bench [-only SET,...] [-dir DIR] [-rounds N] [-seconds S] [-out FILE]
//
// # What is compared
//
// Set engine:
//
//	engine  the vDisk engine in this process, durable 4 KiB random writes
//	R       the raw disk: O_DIRECT|O_DSYNC 4 KiB appends at depth 1, on a file
//	        that was preallocated and pre-written
//
// Set node, with R:
//
//	ovgate  the real ovgate binary over iSCSI
//	tgt     Debian's tgt over a file on the same disk, with its page cache and
//	        write-through, each with its best thread count
//
// Set vdisk, with R again:
//
//	raw     the raw disk: 4 KiB random and 1 MiB sequential, O_DIRECT, not synced
//	vd      the vDisk engine in this process: deep queues, 1 MiB in order with the
//	        backend on the same disk and in memory, 4 KiB from the read cache, a
//	        hundred vDisks beside one, and the CPU time of a write
//
// Set iscsi, in memory only:
//
//	memory  the iSCSI target in a process of its own (memtarget) over memory
//	file    the same over a file on /dev/shm
//	slow    the same over memory that takes 1 ms, and that device called directly
//	tgt     Debian's tgt (bs rdwr) over the same file, with the thread count that
//	        is best for each row
//
// Set forward, in memory only:
//
//	direct  the initiator at the memtarget that has the device
//	far     the initiator at another memtarget, which forwards to that one with TLS
//
// Set cluster, where Ceph's packages are installed (scripts/setup.sh ceph) and this runs as
// root:
//
//	ovgate  three nodes in network namespaces, DTL sync, the vPool on their Alba, over iSCSI
//	ceph    Debian's Ceph, an RBD image with three replicas over six OSDs, with fio
//
// Set map, against its limits: memory, reads with a tenth of it, and restarts of the
// map of a full vDisk of 1 TiB (BenchmarkMap of the engine).
//
// Set console, against its limits: event streams, and lists and pages of a node with
// 10,000 vDisks, through the API and in chromium where it is installed.
//
// Set alba:
//
//	alba    six ovgate asd processes over TCP with TLS, manager and NSM on bbolt, and the
//	        client in this process, with policy (4,2): objects of 4 MiB and of 4 KiB, parts and
//	        wholes of compressed and encrypted ones in pieces of each size, and encoding alone
//	raw     the raw disk: 1 MiB in order, and 4 KiB of the file of an ASD; O_DIRECT
//	swift   Debian's Swift with its EC policy 4+2 on the same disk, where it is installed
//	        and this runs as root, with the number of workers that is best for it
//
// Set stores, vPools on the stores of others:
//
//	write   the vDisk engine in this process, 1 MiB in order, until all is on the store
//	put     the store's plain client with objects of SCO size
//
// and how many requests a GiB written and uncached reads take; versitygw for S3, and
// Debian's Swift with three replicas and with EC 4+2.
//
// Set alba-scale, against its limits: the NSM with a million objects in a namespace.
//
// Set cinder, where the packages of scripts/setup.sh cinder are installed and this runs as
// root: the lives of volumes in Debian's Cinder on MariaDB, with our driver and with
// Cinder's own that does nothing.
//
// Set vsphere, against its limits: 10 datastores on 200 hosts of a simulated vCenter, and how
// often a host is asked for something; with -hosts on fewer, without rows.
//
// All sides of a set are in one run, in interleaved rounds whose order turns
// around each time; a row holds medians. iSCSI clients are the same code with
// the same settings. Before each step on a disk dirty pages are written out, the
// former step's uploads are finished and, as root, the page cache is dropped. A
// step in which other processes took much CPU time is measured again (see noise).
//
// A row: {name, value, unit, peer, peer_value, ratio, goal, config}; ratio is
// value / peer_value, goal the ratio aimed at (0: none, for the record). Rows of
// sets that did not run stay as they are in the file.
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
	"runtime/pprof"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/openvstorage/ovgate/internal/procs"
	"github.com/openvstorage/ovgate/scripts/lab"
)

// needBytes is the free space the bench asks for: the files of all sides, and
// what overwritten data take on the backends during the run.
const needBytes = 24 << 30

// minRounds is how many rounds a row needs to count.
const minRounds = 5

type options struct {
	dir     string
	rounds  int
	seconds float64
	out     string
	only    string
	profile string
	hosts   int
}

// sets are what can be measured by itself.
var sets = []string{"engine", "node", "vdisk", "dtl", "iscsi", "forward", "cluster", "map", "scale", "console", "alba", "alba-scale", "stores", "cinder", "vsphere"}

// has tells whether a set was asked for.
func (o options) has(set string) bool {
	return o.only == "" || slices.Contains(strings.Split(o.only, ","), set)
}

func (o options) validate() error {
	for _, s := range strings.Split(o.only, ",") {
		if s != "" && !slices.Contains(sets, s) {
			return fmt.Errorf("-only %s: no such set; there are %s", s, strings.Join(sets, ", "))
		}
	}
	if o.has("vsphere") && o.hosts < 1 {
		return errors.New("-hosts must be above 0")
	}
	if o.rounds < 1 || o.seconds <= 0 {
		return errors.New("-rounds and -seconds must be above 0")
	}
	return nil
}

func main() {
	var o options
	if handled, err := inLab(); handled {
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	flag.StringVar(&o.only, "only", "", "sets to measure, with commas: "+strings.Join(sets, ", ")+" (default: all)")
	flag.StringVar(&o.dir, "dir", "", "directory on the disk to measure (default: the temporary directory)")
	flag.IntVar(&o.rounds, "rounds", minRounds, "interleaved rounds; fewer than 5 give no countable rows")
	flag.Float64Var(&o.seconds, "seconds", 2.5, "length of a step")
	flag.StringVar(&o.out, "out", "bench.json", "where the rows go")
	flag.StringVar(&o.profile, "profile", "", "directory for a CPU profile of this process for each step of the last round")
	flag.IntVar(&o.hosts, "hosts", vsphereHosts, "simulated hosts of the set vsphere; rows are made for the default only")
	flag.Parse()
	procs.ForDisks() // as ovgate does
	if err := bench(o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// inLab runs the part of the bench that a lab's processes are, or that runs within one.
func inLab() (handled bool, err error) {
	if handled, err := lab.Helper(os.Args); handled {
		return true, err
	}
	dir := os.Getenv(insideLab)
	if dir == "" {
		return false, nil
	}
	return true, withinLab(context.Background(), dir)
}

func bench(o options) error {
	if err := o.validate(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	start := time.Now()
	r := &results{}
	if o.has("engine") || o.has("node") {
		if err := inDir(o.dir, needBytes, func(dir string) error { return measure(ctx, o, dir, r) }); err != nil {
			return err
		}
	}
	if o.has("vdisk") {
		if err := inDir(o.dir, needBytes, func(dir string) error { return measureVDisk(ctx, o, dir, r) }); err != nil {
			return err
		}
	}
	if o.has("dtl") {
		if err := inDir(o.dir, needBytes, func(dir string) error { return measureDTL(ctx, o, dir, r) }); err != nil {
			return err
		}
	}
	if o.has("iscsi") {
		if err := inDir(memoryDir, needMemory, func(dir string) error { return measureFrontEnd(ctx, o, dir, r) }); err != nil {
			return err
		}
	}
	if o.has("forward") {
		if err := inDir(memoryDir, frontSize, func(dir string) error { return measureForward(ctx, o, dir, r) }); err != nil {
			return err
		}
	}
	if o.has("cluster") {
		if err := inDir(o.dir, needCluster, func(dir string) error { return measureCluster(ctx, o, dir, r) }); err != nil {
			return err
		}
	}
	if o.has("map") {
		if err := inDir(o.dir, needMap, func(dir string) error { return measureMap(ctx, dir, r) }); err != nil {
			return err
		}
	}
	if o.has("scale") {
		if err := inDir(o.dir, needScale, func(dir string) error { return measureScale(ctx, dir, r) }); err != nil {
			return err
		}
	}
	if o.has("console") {
		if err := inDir(o.dir, needConsole, func(dir string) error { return measureConsole(ctx, dir, r) }); err != nil {
			return err
		}
	}
	if o.has("alba") {
		if err := inDir(o.dir, needAlba, func(dir string) error { return measureAlba(ctx, o, dir, r) }); err != nil {
			return err
		}
	}
	if o.has("alba-scale") {
		if err := inDir(o.dir, needManifests, func(dir string) error { return measureManifests(ctx, dir, r) }); err != nil {
			return err
		}
	}
	if o.has("stores") {
		if err := inDir(o.dir, needStores, func(dir string) error { return measureStores(ctx, o, dir, r) }); err != nil {
			return err
		}
	}
	if o.has("cinder") {
		if err := inDir(o.dir, needCinder, func(dir string) error { return measureCinder(ctx, dir, r) }); err != nil {
			return err
		}
	}
	if o.has("vsphere") {
		if err := inDir(o.dir, needVSphere, func(dir string) error { return measureVSphere(ctx, o, dir, r) }); err != nil {
			return err
		}
	}
	rows := r.rows(o)
	if err := mergeRows(o.out, r.names(), rows); err != nil {
		return err
	}
	printRows(os.Stdout, rows)
	fmt.Printf("bench: %d rows in %s after %v\n", len(rows), o.out, time.Since(start).Round(time.Second))
	return nil
}

// inDir runs f with a directory of its own below parent, which has need bytes free.
func inDir(parent string, need int64, f func(dir string) error) error {
	dir, err := os.MkdirTemp(parent, "ovgate-bench-")
	if err != nil {
		return err
	}
	var fsStat syscall.Statfs_t
	if err := syscall.Statfs(dir, &fsStat); err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	if free := int64(fsStat.Bavail) * fsStat.Bsize; free < need {
		return errors.Join(fmt.Errorf("%s has %d GiB free, the bench needs %d: choose another disk with -dir", dir, free>>30, need>>30),
			os.RemoveAll(dir))
	}
	return errors.Join(f(dir), os.RemoveAll(dir))
}

// step is one measurement of a round.
type step struct {
	key    string
	settle func(context.Context) error
	run    func(ctx context.Context, seconds float64, seed uint64) (rate float64, ops int64, err error)
	pid    int // if set, the process whose CPU time per operation counts: key + perCPU
}

// perCPU marks a step's operations per second of CPU time.
const perCPU = "-cpu"

// onDisk is a step that loads a disk, from a settled machine.
func onDisk(key string, w work, d disk, size int64, settle func(context.Context) error) step {
	return step{
		key:    key,
		settle: func(ctx context.Context) error { return errors.Join(settle(ctx), settleDisk(true)) },
		run: func(_ context.Context, seconds float64, seed uint64) (float64, int64, error) {
			return w.run(d, size, seconds, seed)
		},
	}
}

// measure prepares the sides that are on a disk and runs the rounds.
func measure(ctx context.Context, o options, dir string, r *results) (err error) {
	r.noise = newNoise()
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
	var steps []step
	if o.has("engine") {
		steps = rawSteps(disk, e)
	}
	if o.has("node") {
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
	if err := rounds(ctx, o, steps, r); err != nil {
		return err
	}
	r.engine = e.quotas()
	r.onDisk = fmt.Sprintf("%s; %s", cachesDropped(), r.noise)
	return nil
}

// rounds runs all steps, forwards and backwards in turn.
func rounds(ctx context.Context, o options, steps []step, r *results) error {
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
	return nil
}

// profiled begins the CPU profile of a step, if there is to be one, and returns what ends it.
func (o options) profiled(key string, round int) (end func() error, err error) {
	if o.profile == "" || round != o.rounds-1 {
		return func() error { return nil }, nil
	}
	f, err := os.Create(filepath.Join(o.profile, key+".pprof"))
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}

// measure runs one step, again when others disturbed it.
func (s step) measure(ctx context.Context, o options, round, try int, r *results) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.settle(ctx); err != nil {
		return err
	}
	before, err := r.noise.sample()
	if err != nil {
		return err
	}
	used, err := s.cpu()
	if err != nil {
		return err
	}
	profiled, err := o.profiled(s.key, round)
	if err != nil {
		return err
	}
	rate, ops, err := s.run(ctx, o.seconds, uint64(round)<<32|uint64(try))
	if err := errors.Join(err, profiled()); err != nil {
		return fmt.Errorf("%s: %w", s.key, err)
	}
	others, err := r.noise.others(before)
	if err != nil {
		return err
	}
	after, err := s.cpu()
	if err != nil {
		return err
	}
	fmt.Printf("  round %d  %-26s %9.0f /s  others %.2f CPUs\n", round+1, s.key, rate, others)
	if r.noise.again(others, try) {
		return s.measure(ctx, o, round, try+1, r)
	}
	r.add(s.key, rate)
	if after > used {
		r.add(s.key+perCPU, float64(ops)/(after-used))
	}
	return nil
}

// cpu returns the CPU time of the step's process so far, in seconds.
func (s step) cpu() (float64, error) {
	if s.pid == 0 {
		return 0, nil
	}
	return processTime(s.pid)
}

func openTargets(ctx context.Context, o options, dir string) ([]*target, error) {
	fmt.Println("bench: preparing ovgate, tgt, qemu-nbd and nbdkit")
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
	for _, peer := range nbdPeers {
		t, err := peer.open(ctx, dir)
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
		onDisk("raw-append-dsync-qd1", work{name: "raw append", write: true, depth: 1}, appender{d}, appendSize, none),
		onDisk("raw-write-qd1", work{name: "raw write", write: true, depth: 1}, d.random, rawSize, none),
		onDisk("raw-write-qd32", work{name: "raw write", write: true, depth: 32}, d.random, rawSize, none),
		onDisk("engine-write-qd1", work{name: "engine write", write: true, depth: 1}, e, engineSize, e.vol.Commit),
		onDisk("engine-write-qd32", work{name: "engine write", write: true, depth: 32, minBytes: 4 * quota}, e, engineSize, e.vol.Commit),
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
		onDisk(t.name+"-write-qd1", work{name: "write", write: true, depth: 1}, t.disk, lunSize, t.settle),
		onDisk(t.name+"-write-qd32", work{name: "write", write: true, depth: 32, minBytes: least}, t.disk, lunSize, t.settle),
	}
	if both {
		out = append(out,
			onDisk(t.name+"-read-qd1", work{name: "read", depth: 1}, t.disk, lunSize, t.settle),
			onDisk(t.name+"-read-qd32", work{name: "read", depth: 32}, t.disk, lunSize, t.settle))
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
