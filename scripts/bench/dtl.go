package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/kv"
	"github.com/openvstorage/ovgate/volumedriver/backend/local"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

const (
	// dtlPrefix begins the keys of the set dtl.
	dtlPrefix = "dtl-"
	// dtlMore is what a mirrored write at depth 1 may take beyond the slower of the two disks
	// and the round trip.
	dtlMore = 30 * time.Microsecond
	// dtlMemory is what the peer keeps in memory: the quotas of its copies.
	dtlMemory = 4 * quota
	// dtlReady bounds the wait for a good copy.
	dtlReady = 30 * time.Second
)

// dtlComparisons are the rows of the set dtl.
func (r *results) dtlComparisons() []comparison {
	k := func(s string) string { return dtlPrefix + s }
	return []comparison{
		{"vdisk durable 4k random write QD1, mirrored on a peer's disk, the slower disk and a round trip and 30 us", k("file-write-qd1"), k("limit-write-qd1"), 1, ""},
		{"vdisk durable 4k random write QD1, mirrored on a peer's disk that is the owner's, two that are not mirrored at once and a round trip and 30 us", k("file-write-qd1"), k("shared-write-qd1"), 0, ""},
		{"vdisk durable 4k random write QD1, mirrored in a peer's memory, not mirrored", k("memory-write-qd1"), k("alone-write-qd1"), 0, ""},
		{"vdisk durable 4k random write QD32, mirrored in a peer's memory, not mirrored", k("memory-write-qd32"), k("alone-write-qd32"), 0.85, ""},
		{"vdisk durable 4k random write QD32, mirrored on a peer's disk, not mirrored", k("file-write-qd32"), k("alone-write-qd32"), 0, ""},
		{"vdisk durable 4k random write QD32 per CPU time of both nodes, mirrored in a peer's memory, not mirrored", k("memory-write-qd32") + perCPU, k("alone-write-qd32") + perCPU, 0, "writes per CPU second"},
	}
}

// both writes the same to two vDisks at once, as an owner and its peer do to their journals.
type both [2]vol

// WriteAt implements disk.
func (b both) WriteAt(p []byte, off int64) (int, error) {
	done := make(answers, len(b))
	for _, v := range b {
		v.Submit(&volume.Request{Kind: volume.ReqWrite, Offset: off, Data: p, Done: done})
	}
	return len(p), errors.Join(<-done, <-done)
}

// ReadAt implements disk.
func (b both) ReadAt([]byte, int64) (int, error) { return 0, errors.ErrUnsupported }

// answers are those to requests under way.
type answers chan error

// Complete implements the completion of a request.
func (a answers) Complete(r *volume.Request) { a <- r.Err }

// dtlBench is an owner with two vDisks that are not mirrored, and two that are: with peers that
// keep their copies on disk and in memory.
type dtlBench struct {
	vols    map[string]vol
	closers []func() error
	echo    net.Conn // to who sends back what it gets
}

func openDTLBench(ctx context.Context, dir string) (b *dtlBench, err error) {
	b = &dtlBench{vols: map[string]vol{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	fsys := func(name string) (blockfs.FS, error) { return blockfs.OS(filepath.Join(dir, name)) }
	registry, err := kv.OpenBolt(filepath.Join(dir, "kv.db"), kv.BoltOptions{})
	if err != nil {
		return b, err
	}
	b.closers = append(b.closers, registry.Close)
	reg := volume.KVRegistry{Store: registry}
	addresses := map[string]string{}
	for _, name := range []string{"file", "memory"} {
		if addresses[name], err = b.peer(ctx, filepath.Join(dir, name), name, reg); err != nil {
			return b, err
		}
	}
	if err := b.echoes(); err != nil {
		return b, err
	}
	for _, name := range []string{"alone", "second", "file", "memory"} {
		state, err := fsys("state-" + name)
		if err != nil {
			return b, err
		}
		objects, err := fsys("objects-" + name)
		if err != nil {
			return b, err
		}
		store, err := local.Open(objects, local.Options{})
		if err != nil {
			return b, err
		}
		b.closers = append(b.closers, store.Close)
		o := volume.HostOptions{FS: state, Registry: reg, Node: "owner-" + name, DTL: &volume.DTLOptions{Cluster: "bench",
			Dial: func(ctx context.Context, node string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "tcp", addresses[node])
			},
			Peers: func(volume.ID) []string { return []string{name} }}}
		mode := volume.DTLSync
		if !hasCopy(name) {
			o.DTL, mode = nil, volume.DTLModeOff
		}
		host, err := volume.NewHost(ctx, o)
		if err != nil {
			return b, err
		}
		b.closers = append(b.closers, func() error { return host.Close(context.Background()) })
		pool, err := host.AttachPool(ctx, volume.PoolConfig{ClusterID: "bench", ID: name, Name: name, Store: store,
			Settings: volume.Settings{JournalQuota: quota, DTL: mode}})
		if err != nil {
			return b, err
		}
		v, _, err := newVolume(ctx, pool, engineSize)
		if err != nil {
			return b, err
		}
		b.vols[name] = vol{v}
		if err := b.good(ctx); err != nil {
			return b, err
		}
	}
	return b, nil
}

// peer starts a node that keeps copies, in this process but over TCP.
func (b *dtlBench) peer(ctx context.Context, dir, name string, reg volume.Registry) (string, error) {
	state, err := blockfs.OS(dir)
	if err != nil {
		return "", err
	}
	o := &volume.DTLOptions{Cluster: "bench", Peers: func(volume.ID) []string { return nil },
		Dial: func(context.Context, string) (net.Conn, error) { return nil, net.ErrClosed }}
	if name == "memory" {
		o.MemoryBytes = dtlMemory
	}
	host, err := volume.NewHost(ctx, volume.HostOptions{FS: state, Registry: reg, Node: name, DTL: o})
	if err != nil {
		return "", err
	}
	return b.serve(func(c net.Conn) { _ = host.ServeDTL(c, "") }, func() error { return host.Close(context.Background()) })
}

// serve accepts connections on loopback until the bench is closed; end ends what they do.
func (b *dtlBench) serve(serve func(net.Conn), end func() error) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", errors.Join(err, end())
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { serve(c) })
		}
	})
	b.closers = append(b.closers, func() error {
		err := errors.Join(l.Close(), end())
		wg.Wait()
		return err
	})
	return l.Addr().String(), nil
}

// echoes prepares the round trips of a record of 4 KiB and its answer.
func (b *dtlBench) echoes() error {
	a, err := b.serve(func(c net.Conn) {
		defer c.Close()
		p := make([]byte, 2*blockSize)
		for {
			if _, err := io.ReadFull(c, p); err != nil {
				return
			}
			if _, err := c.Write(p[:64]); err != nil {
				return
			}
		}
	}, func() error { return b.echo.Close() })
	if err != nil {
		return err
	}
	b.echo, err = net.Dial("tcp", a)
	return err
}

// trips is the rate of round trips.
func (b *dtlBench) trips(_ context.Context, seconds float64, _ uint64) (float64, int64, error) {
	p := make([]byte, 2*blockSize)
	start, n := time.Now(), int64(0)
	for ; time.Since(start).Seconds() < seconds; n++ {
		if _, err := b.echo.Write(p); err != nil {
			return 0, 0, err
		}
		if _, err := io.ReadFull(b.echo, p[:64]); err != nil {
			return 0, 0, err
		}
	}
	return float64(n) / time.Since(start).Seconds(), n, nil
}

// hasCopy tells whether a vDisk has a copy.
func hasCopy(name string) bool { return name == "file" || name == "memory" }

// good waits until the copies count, and puts what was written on the backend.
func (b *dtlBench) good(ctx context.Context) error {
	limit := time.Now().Add(dtlReady)
	for name, v := range b.vols {
		if err := v.Commit(ctx); err != nil {
			return err
		}
		for hasCopy(name) && v.Stats().DTL.State != volume.DTLOK {
			if time.Now().After(limit) {
				return fmt.Errorf("the copy on %s is %s after %v: %s", name, v.Stats().DTL.State, dtlReady, v.Stats().DTL.Err)
			}
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}

func (b *dtlBench) close() error {
	var errs []error
	slices.Reverse(b.closers)
	for _, c := range b.closers {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}

// measureDTL runs the set dtl.
func measureDTL(ctx context.Context, o options, dir string, r *results) (err error) {
	r.noise = newNoise()
	fmt.Println("bench: preparing the vDisks with and without a copy")
	b, err := openDTLBench(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	k := func(s string) string { return dtlPrefix + s }
	steps := []step{{key: k("trips"), settle: b.good, run: b.trips}}
	steps = append(steps, onDisk(k("both-write-qd1"), work{name: "both write", write: true, depth: 1}, both{b.vols["alone"], b.vols["second"]}, engineSize, b.good))
	for _, depth := range []int{1, 32} {
		for _, name := range []string{"alone", "file", "memory"} {
			w := work{name: name + " write", write: true, depth: depth}
			if depth > 1 {
				w.minBytes = 4 * quota
			}
			s := onDisk(fmt.Sprintf("%s%s-write-qd%d", dtlPrefix, name, depth), w, b.vols[name], engineSize, b.good)
			s.pid = os.Getpid()
			steps = append(steps, s)
		}
	}
	if err := rounds(ctx, o, steps, r); err != nil {
		return err
	}
	for i, alone := range r.rates[k("alone-write-qd1")] {
		trip := r.rates[k("trips")][i]
		r.add(k("limit-write-qd1"), 1/(1/alone+1/trip+dtlMore.Seconds()))
		r.add(k("shared-write-qd1"), 1/(1/r.rates[k("both-write-qd1")][i]+1/trip+dtlMore.Seconds()))
	}
	r.dtl = r.noise.String()
	one := fmt.Sprintf("engine in process, %d GiB vDisk, journal quota %d MiB, local-directory backend on the same disk", int64(engineSize)>>30, quota>>20)
	r.configs = append(r.configs,
		[2]string{k("alone"), one},
		[2]string{k("file"), one + ", DTL sync to a node in this process over TCP on loopback, its copies on the same disk"},
		[2]string{k("memory"), one + ", DTL sync to a node in this process over TCP on loopback, its copies in memory"},
		[2]string{k("shared"), "writes to two vDisks of two nodes at once, not mirrored, whose journals are on the same disk, until both are done, the round trip, and 30 us"},
		[2]string{k("limit"), "a write that is not mirrored, the round trip of 8 KiB and 64 bytes over TCP on loopback, and 30 us"})
	return nil
}
