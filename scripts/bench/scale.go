package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/internal/client"
	"github.com/openvstorage/ovgate/scripts/drill/node"
)

const (
	// needScale is the free space that the set scale asks for.
	needScale = 8 << 30
	// idleDisks are open vDisks of a node that nobody uses.
	idleDisks = 10_000
	// idleCalls is how many of them are made at a time.
	idleCalls = 16
	// idleSettle is how long they are left alone before their CPU time is looked at: they
	// notice after two commit intervals that nobody uses them.
	idleSettle = 40 * time.Second
	// idleWatch is for how long it is looked at then: a process that allocates little collects
	// its garbage every two minutes, which is a part of what it costs.
	idleWatch = 2 * time.Minute
)

// scaleRows are the rows of the set scale.
var scaleRows = []goRow{
	{name: "snapshot create p99, 1000 on one vdisk", metric: "ms-snapshot-p99", unit: "us", scale: 1000, limit: 100_000, goal: 1, config: scaleConfig},
	{name: "clone create p99, 1000 of one template", metric: "ms-clone-p99", unit: "us", scale: 1000, limit: 100_000, goal: 1, config: scaleConfig},
	{name: "cached 4k random read QD1 with 1000 snapshots", metric: "reads/s-snapshots", unit: "IOPS", scale: 1, peer: "reads/s", peerName: "without snapshots", goal: 0.9, config: scaleConfig},
	{name: "cached 4k random read QD1 through 50 clones", metric: "reads/s-chain", unit: "IOPS", scale: 1, peer: "reads/s", peerName: "a plain vdisk", goal: 0.83, config: scaleConfig},
	{name: "durable 4k random write QD32 during scrubs", metric: "writes/s-with", unit: "IOPS", scale: 1, peer: "writes/s-without", peerName: "without scrubs", goal: 0.7,
		config: "512 MiB vDisk, always overwritten, scrubs one after the other, local-directory backend on the same disk, 4 pairs of 3 s"},
	{name: "node with 10000 idle vdisks, start", metric: "s-start", unit: "ms", scale: 1000, limit: 30_000, goal: 1, config: idleConfig},
	{name: "node with 10000 idle vdisks, memory", metric: "MiB-rss", unit: "MiB", scale: 1, limit: 1536, goal: 1, config: idleConfig},
	{name: "node with 10000 idle vdisks, CPU", metric: "%core-idle", unit: "1/1000 %", scale: 1000, limit: 1000, goal: 1, config: idleConfig},
}

const (
	scaleConfig = "64 MiB vDisks in the cache, registry and backend on local disk, reads in turns, the best of 25"
	idleConfig  = "ovgate serve, 10,000 vDisks of 10 GiB, registry and backend on local disk, until the last of them runs; resident memory and CPU time of the process"
)

// measureScale runs the benchmarks of many of something.
func measureScale(ctx context.Context, dir string, r *results) error {
	r.scale = map[string]float64{}
	for _, b := range []struct{ name, times string }{{"BenchmarkScale", "1x"}, {"BenchmarkScrub", "4x"}} {
		fmt.Println("bench:", b.name)
		got, err := goBench(ctx, "./volumedriver/volume", dir, b.name, b.times)
		if err != nil {
			return err
		}
		maps.Copy(r.scale, got)
	}
	fmt.Printf("bench: a node with %d vDisks\n", idleDisks)
	return measureIdle(ctx, dir, r.scale)
}

// measureIdle makes a node with many vDisks and starts it again.
func measureIdle(ctx context.Context, dir string, out map[string]float64) (err error) {
	bin, err := node.Build(ctx, dir)
	if err != nil {
		return err
	}
	n, err := node.New(node.Options{Bin: bin, Data: filepath.Join(dir, "idle"), Insecure: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	if err := n.Start(ctx); err != nil {
		return err
	}
	if err := n.CreateVPool(ctx, "idle", filepath.Join(dir, "idle-backend")); err != nil {
		return err
	}
	if err := makeIdle(ctx, n); err != nil {
		return err
	}
	began := time.Now()
	if err := n.Stop(); err != nil {
		return err
	}
	out["s-stop"] = time.Since(began).Seconds()
	began = time.Now()
	if err := n.Start(ctx); err != nil {
		return err
	}
	if err := allRun(ctx, n); err != nil {
		return err
	}
	out["s-start"] = time.Since(began).Seconds()
	if err := pause(ctx, idleSettle); err != nil {
		return err
	}
	used, err := processTime(n.PID())
	if err != nil {
		return err
	}
	began = time.Now()
	if err := pause(ctx, idleWatch); err != nil {
		return err
	}
	now, err := processTime(n.PID())
	if err != nil {
		return err
	}
	out["%core-idle"] = 100 * (now - used) / time.Since(began).Seconds()
	if out["MiB-rss"], err = resident(n.PID()); err != nil {
		return err
	}
	fmt.Printf("  made, stopped in %.1f s, started in %.1f s, %.0f MiB, %.2f %% of a core\n", out["s-stop"], out["s-start"], out["MiB-rss"], out["%core-idle"])
	return n.Stop()
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// makeIdle creates the vDisks.
func makeIdle(ctx context.Context, n *node.Node) error {
	api, err := n.API()
	if err != nil {
		return err
	}
	next := make(chan int)
	errs := make([]error, idleCalls)
	var wg sync.WaitGroup
	for w := range errs {
		wg.Go(func() {
			for i := range next {
				if errs[w] == nil {
					errs[w] = client.Done(api.CreateVDisk(ctx, nil, client.VDiskInput{Name: fmt.Sprint("idle", i), VPool: "idle", Size: 10 << 30}))
				}
			}
		})
	}
	for i := range idleDisks {
		next <- i
	}
	close(next)
	wg.Wait()
	return errors.Join(errs...)
}

// allRun waits until every vDisk runs.
func allRun(ctx context.Context, n *node.Node) error {
	api, err := n.API()
	if err != nil {
		return err
	}
	for {
		l, err := client.Get[client.VDiskList](api.ListVDisks(ctx, &client.ListVDisksParams{State: new(client.VDiskStateOpening), Limit: new(1)}))
		if err != nil {
			return err
		}
		if len(l.Items) == 0 {
			break
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	s, err := client.Get[client.Status](api.GetStatus(ctx))
	if err == nil && s.Counts.Vdisks != idleDisks {
		err = fmt.Errorf("the node has %d vDisks, not %d", s.Counts.Vdisks, idleDisks)
	}
	return err
}

// resident returns the resident memory of a process, in MiB.
func resident(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(b))
	if len(f) < 2 {
		return 0, fmt.Errorf("statm of %d: %q", pid, b)
	}
	pages, err := strconv.ParseFloat(f[1], 64)
	return pages * float64(os.Getpagesize()) / (1 << 20), err
}

// cpus says how many processors the machine has.
func cpus() string { return fmt.Sprintf("%d CPUs", runtime.NumCPU()) }
