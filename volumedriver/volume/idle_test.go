package volume

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"
)

// openers is how many vDisks are opened at a time.
const openers = 64

// openMany opens vDisks, some at a time, as a node does when it starts.
func openMany(t testing.TB, p *Pool, count int) []*Volume {
	t.Helper()
	out := make([]*Volume, count)
	var wg sync.WaitGroup
	tokens := make(chan struct{}, openers)
	for i := range count {
		tokens <- struct{}{}
		wg.Add(1)
		go func() {
			defer func() { <-tokens; wg.Done() }()
			v, err := p.Open(context.Background(), numbered(i))
			if err != nil {
				t.Error(err)
				return
			}
			out[i] = v
		}()
	}
	wg.Wait()
	return out
}

// inUse returns the heap and stacks in use, in bytes.
func inUse() int64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapInuse + s.StackInuse)
}

// TestIdleMemory: what an open vDisk that does nothing takes. 10,000 of them are to
// take less than 1.5 GiB, so one may take 150 KiB at most with all that the rest of the
// node keeps of it.
func TestIdleMemory(t *testing.T) {
	const count = 200
	w := newWorld(81)
	w.opts.MapMemoryBytes, w.opts.checkpointTLogs = 0, 0
	n := w.mustStart(t)
	for i := range count {
		n.create(numbered(i), 10<<30)
		v := n.open(numbered(i))
		mustWrite(t, v, 5<<30, 1)
		if err := v.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	before, goroutines := inUse(), runtime.NumGoroutine()
	open := openMany(t, n.pool, count)
	per, each := (inUse()-before)/count, float64(runtime.NumGoroutine()-goroutines)/count
	t.Logf("an idle vDisk takes %d KiB and %.2f goroutines", per>>10, each)
	if per > 120<<10 || each > 2.1 {
		t.Errorf("an idle vDisk takes %d KiB and %.2f goroutines, want at most 120 and 2", per>>10, each)
	}
	runtime.KeepAlive(open)
	n.close()
}

// BenchmarkIdle opens OVGATE_BENCH_VDISKS vDisks (10000) that hold something, and
// leaves them alone. The goals for a node: started in 30 s, 1.5 GiB, 1 % of a core.
func BenchmarkIdle(b *testing.B) {
	count := 10000
	if s := os.Getenv("OVGATE_BENCH_VDISKS"); s != "" {
		var err error
		if count, err = strconv.Atoi(s); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		m := newMapBench(b, 10<<30)
		ctx := context.Background()
		start := func() *Pool {
			h, err := NewHost(ctx, HostOptions{FS: m.fs("local"), Registry: m.reg, Node: "bench"})
			if err != nil {
				b.Fatal(err)
			}
			p, err := h.AttachPool(ctx, PoolConfig{ClusterID: "c", ID: testPool, Name: "bench", Store: m.store.Store})
			if err != nil {
				b.Fatal(err)
			}
			m.host = h
			return p
		}
		p := start()
		for i := range count {
			if err := p.Create(ctx, Spec{ID: numbered(i), Name: fmt.Sprint("d", i), Size: m.size}); err != nil {
				b.Fatal(err)
			}
		}
		for _, v := range openMany(b, p, count) {
			mustWrite(b, v, 1<<30, 1)
		}
		began := time.Now()
		m.close()
		b.ReportMetric(time.Since(began).Seconds(), "s-stop")
		before := inUse()
		began = time.Now()
		p = start()
		open := openMany(b, p, count)
		b.ReportMetric(time.Since(began).Seconds(), "s-start")
		b.ReportMetric(float64(inUse()-before)/float64(count)/1024, "KiB/vdisk")
		time.Sleep(25 * time.Second) // all have noticed that they are idle
		used, since := cpuSeconds(), time.Now()
		time.Sleep(20 * time.Second)
		b.ReportMetric((cpuSeconds()-used)/time.Since(since).Seconds()*100, "%core-idle")
		runtime.KeepAlive(open)
		m.close()
	}
	b.ReportMetric(0, "ns/op")
}
