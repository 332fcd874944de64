package volume

import (
	"context"
	"encoding/binary"
	mrand "math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/local"
	"github.com/openvstorage/ovgate/volumedriver/blockmap"
	"github.com/openvstorage/ovgate/volumedriver/clustersum"
	"github.com/openvstorage/ovgate/volumedriver/sco"
)

// zeroStore is a local store that also holds the SCOs of a full vDisk of zeros, SCO
// n the clusters from (n-1)*clusters on, which it makes when they are read: a
// backend in memory, beside which the map has the least to hide behind.
type zeroStore struct {
	backend.Store
	seed     clustersum.Seed
	layout   sco.Layout
	clusters uint32
}

func (z *zeroStore) Features() backend.Features {
	f := z.Store.Features()
	f.CheapReads = false // groups: each costs one request, as a cold one does anywhere
	return f
}

func (z *zeroStore) ReadAt(ctx context.Context, name string, p []byte, off int64) error {
	_, file, ok := strings.Cut(name, scoDir)
	if !ok {
		return z.Store.ReadAt(ctx, name, p, off)
	}
	number, err := strconv.ParseUint(file[:8], 16, 32)
	if err != nil {
		return err
	}
	clear(p)
	group := int(off / int64(z.layout.GroupBytes()))
	n := len(p) / (z.layout.Cluster + sco.SumBytes)
	first := (number-1)*uint64(z.clusters) + uint64(group*z.layout.PerGroup())
	for i := range n {
		sum := z.seed.Sum((first+uint64(i))*uint64(z.layout.Cluster/lbaBytes), p[:z.layout.Cluster])
		binary.LittleEndian.PutUint32(p[n*z.layout.Cluster+i*sco.SumBytes:], sum)
	}
	return nil
}

// mapBench is a full vDisk whose map is made without writing its data.
type mapBench struct {
	b     *testing.B
	dir   string
	reg   *memRegistry
	store *zeroStore
	size  int64
	id    ID
	host  *Host
	v     *Volume
}

func newMapBench(b *testing.B, size int64) *mapBench {
	b.Helper()
	dir, err := os.MkdirTemp(os.Getenv("OVGATE_BENCH_DIR"), "ovgate-bench")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	m := &mapBench{b: b, dir: dir, reg: newMemRegistry(), size: size, id: testID(1)}
	st, err := local.Open(m.fs("backend"), local.Options{})
	if err != nil {
		b.Fatal(err)
	}
	m.store = &zeroStore{Store: st, seed: clustersum.NewSeed(m.id), layout: sco.Layout{Cluster: DefaultClusterSize}, clusters: DefaultSCOSize / DefaultClusterSize}
	return m
}

func (m *mapBench) fs(name string) blockfs.FS {
	if err := os.MkdirAll(m.dir+"/"+name, 0o700); err != nil {
		m.b.Fatal(err)
	}
	f, err := blockfs.OS(m.dir + "/" + name)
	if err != nil {
		m.b.Fatal(err)
	}
	return f
}

// start opens the vDisk and returns how long that took until the first read.
func (m *mapBench) start(memory int64) time.Duration {
	ctx := context.Background()
	began := time.Now()
	var err error
	if m.host, err = NewHost(ctx, HostOptions{FS: m.fs("local"), Registry: m.reg, Node: "bench", MapMemoryBytes: memory, CacheBytes: 16 << 20}); err != nil {
		m.b.Fatal(err)
	}
	p, err := m.host.AttachPool(ctx, PoolConfig{ClusterID: "c", ID: testPool, Name: "bench", Store: m.store, Settings: Settings{JournalQuota: MinQuota}})
	if err != nil {
		m.b.Fatal(err)
	}
	if _, err := m.reg.Load(ctx, m.id); err != nil {
		if err := p.Create(ctx, Spec{ID: m.id, Name: "bench", Size: m.size}); err != nil {
			m.b.Fatal(err)
		}
	}
	if m.v, err = p.Open(ctx, m.id); err != nil {
		m.b.Fatal(err)
	}
	if err := m.v.ReadAt(ctx, make([]byte, 4096), m.size/2); err != nil {
		m.b.Fatal(err)
	}
	return time.Since(began)
}

func (m *mapBench) close() {
	if err := m.host.Close(context.Background()); err != nil {
		m.b.Fatal(err)
	}
}

// fill maps every cluster, as 8 SCOs per TLog would, and waits until the checkpoint is on
// the backend and a head names it.
func (m *mapBench) fill() {
	ctx := context.Background()
	v := m.v
	per := uint64(m.store.clusters)
	scos := uint64(m.size) / uint64(v.cluster) / per
	if err := v.up.ask(&headRequest{ctx: ctx,
		change: func(h *Head) {
			h.NextSCO, h.NextTLog = uint32(scos)+1, uint32(scos/8)+1
			v.mapMu.Lock()
			v.up.nextSCO = h.NextSCO
			v.mapMu.Unlock()
		},
		after: func(*Head) {
			for i := range scos {
				v.mapMu.Lock()
				v.own.scos.add(uint32(i)+1, v.origin, uint32(per), DefaultSCOSize)
				v.base.SetRun(i*per, per, blockmap.MakeLoc(uint32(i)+1, 0, 0))
				v.mapMu.Unlock()
				v.up.spill()
			}
		}}); err != nil {
		m.b.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Minute); v.committedState.Load().head.Map == nil; {
		if time.Now().After(deadline) {
			m.b.Fatal("no checkpoint on the backend")
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// reads measures random 4 KiB reads at depth 8, each of another page most likely: per
// second, and per second of CPU time, which other processes change less.
func (m *mapBench) reads(d time.Duration) (rate, perCPU float64) {
	used := cpuSeconds()
	var wg sync.WaitGroup
	var mu sync.Mutex
	total := 0
	began := time.Now()
	for w := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := mrand.New(mrand.NewPCG(uint64(w), 9))
			p, n := make([]byte, 4096), 0
			for time.Since(began) < d {
				if err := m.v.ReadAt(context.Background(), p, r.Int64N(m.size/4096)*4096); err != nil {
					m.b.Error(err)
					return
				}
				n++
			}
			mu.Lock()
			total += n
			mu.Unlock()
		}()
	}
	wg.Wait()
	return float64(total) / time.Since(began).Seconds(), float64(total) / (cpuSeconds() - used)
}

// cpuSeconds returns the CPU time that this process has used.
func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

func heap() float64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return float64(s.HeapAlloc)
}

// BenchmarkMap measures the map of a full vDisk of OVGATE_BENCH_GIB GiB (1024: 1 TiB)
// with 4 KiB clusters: memory, a tenth of it, restarts. The goals are those of the
// engine: 2.2 MiB per GiB, 0.5, 3 s, 20 s. The limit of a lookup that misses is a 4 KiB
// read of the local disk, here from its page cache.
func BenchmarkMap(b *testing.B) {
	gib := int64(1024)
	if s := os.Getenv("OVGATE_BENCH_GIB"); s != "" {
		var err error
		if gib, err = strconv.ParseInt(s, 10, 64); err != nil {
			b.Fatal(err)
		}
	}
	const read = 3 * time.Second
	for b.Loop() {
		m := newMapBench(b, gib<<30)
		whole := gib * 5 << 19 // 2.5 MiB per GiB: more than all pages
		m.start(whole)
		before := heap()
		m.fill()
		b.ReportMetric((heap()-before)/float64(gib)/(1<<20), "MiB/GiB")
		full, fullCPU := m.reads(read)
		b.ReportMetric(full, "reads/s")
		m.close()
		b.ReportMetric(m.start(gib*22<<20/100).Seconds(), "s-local-restart")
		m.reads(read) // the memory is full from here on
		tenth, tenthCPU := m.reads(read)
		b.ReportMetric(tenth, "reads/s-tenth")
		b.ReportMetric(tenth/full, "tenth/full")
		b.ReportMetric(tenthCPU/fullCPU, "tenth/full-cpu")
		u := m.host.Usage().Map
		b.ReportMetric(float64(u.Resident+u.Dirty)/(1<<20), "MiB-tenth")
		m.close()
		if err := os.RemoveAll(m.dir + "/local"); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(m.start(gib*22<<20/100).Seconds(), "s-backend-restart")
		if got, want := m.v.Stats().MappedBytes, gib<<30; got != want {
			b.Fatalf("%d bytes mapped, want %d", got, want)
		}
		rate, _ := m.reads(read)
		b.ReportMetric(rate, "reads/s-backend-pages")
		m.close()
	}
	b.ReportMetric(0, "ns/op")
}
