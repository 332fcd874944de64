package volume

import (
	"context"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/backend/local"
)

// atRandom does n operations on 4 KiB at random offsets, for worker w.
func atRandom(b *testing.B, w, n int, size uint64, do func(p []byte, off int64) error) {
	p := make([]byte, 4096)
	x := uint64(w + 1)
	for range n {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		if err := do(p, int64(x%(size/4096))*4096); err != nil {
			b.Error(err)
			return
		}
	}
}

// benchNode opens a vDisk on real files below OVGATE_BENCH_DIR (default: the
// temporary directory, which may be memory), with its backend below OVGATE_BENCH_BACKEND
// if that is set.
func benchNode(b *testing.B, size int64) *Volume {
	b.Helper()
	dir, err := os.MkdirTemp(os.Getenv("OVGATE_BENCH_DIR"), "ovgate-bench")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	ctx := context.Background()
	open := func(name string) blockfs.FS {
		if m := os.Getenv("OVGATE_BENCH_BACKEND"); m != "" && name == "backend" {
			dir, err = os.MkdirTemp(m, "ovgate-bench")
			if err != nil {
				b.Fatal(err)
			}
			d := dir
			b.Cleanup(func() { os.RemoveAll(d) })
		}
		if err := os.Mkdir(dir+"/"+name, 0o700); err != nil {
			b.Fatal(err)
		}
		f, err := blockfs.OS(dir + "/" + name)
		if err != nil {
			b.Fatal(err)
		}
		return f
	}
	st, err := local.Open(open("backend"), local.Options{})
	if err != nil {
		b.Fatal(err)
	}
	h, err := NewHost(ctx, HostOptions{FS: open("local"), Registry: newMemRegistry(), Node: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	p, err := h.AttachPool(ctx, PoolConfig{ClusterID: "c", ID: testPool, Name: "bench", Store: st,
		Settings: Settings{JournalQuota: MinQuota, CommitInterval: time.Second}})
	if err != nil {
		b.Fatal(err)
	}
	id := testID(1)
	if err := p.Create(ctx, Spec{ID: id, Name: "bench", Size: size}); err != nil {
		b.Fatal(err)
	}
	v, err := p.Open(ctx, id)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { h.Close(ctx) })
	return v
}

// BenchmarkWrite: durable 4 KiB random writes. The physical limit beside it is the
// disk's O_DSYNC append at queue depth 1; make bench measures both in one run.
func BenchmarkWrite(b *testing.B) {
	for _, qd := range []int{1, 32, 128} {
		b.Run(map[int]string{1: "qd1", 32: "qd32", 128: "qd128"}[qd], func(b *testing.B) {
			v := benchNode(b, 4<<30)
			b.ReportAllocs()
			b.SetBytes(4096)
			b.ResetTimer()
			var wg sync.WaitGroup
			for w := range qd {
				wg.Add(1)
				go func() {
					defer wg.Done()
					atRandom(b, w, b.N/qd, 4<<30, func(p []byte, off int64) error { return v.WriteAt(context.Background(), p, off) })
				}()
			}
			wg.Wait()
			b.StopTimer()
			runtime.KeepAlive(v)
		})
	}
}

// BenchmarkRead: 4 KiB random reads of data that is on the backend, from the page
// cache of the machine but not from the engine's.
func BenchmarkRead(b *testing.B) {
	for _, qd := range []int{1, 32} {
		b.Run(map[int]string{1: "qd1", 32: "qd32"}[qd], func(b *testing.B) {
			const size = 1 << 30
			v := benchNode(b, size)
			ctx := context.Background()
			buf := make([]byte, 1<<20)
			for off := int64(0); off < size; off += int64(len(buf)) {
				for i := 0; i < len(buf); i += 8 {
					buf[i] = byte(off>>20) + byte(i>>12)
				}
				if err := v.WriteAt(ctx, buf, off); err != nil {
					b.Fatal(err)
				}
			}
			if err := v.Commit(ctx); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.SetBytes(4096)
			b.ResetTimer()
			var wg sync.WaitGroup
			for w := range qd {
				wg.Add(1)
				go func() {
					defer wg.Done()
					atRandom(b, w, b.N/qd, size, func(p []byte, off int64) error { return v.ReadAt(ctx, p, off) })
				}()
			}
			wg.Wait()
		})
	}
}

// BenchmarkWriteInOrder: 1 MiB writes one after another, four in flight.
func BenchmarkWriteInOrder(b *testing.B) {
	const size, block, qd = 4 << 30, 1 << 20, 4
	v := benchNode(b, size)
	b.SetBytes(block)
	b.ResetTimer()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range qd {
		wg.Go(func() {
			p := make([]byte, block)
			for {
				i := next.Add(1) - 1
				if i >= int64(b.N) {
					return
				}
				if err := v.WriteAt(context.Background(), p, i*block%size); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	s := v.Stats()
	b.ReportMetric(float64(s.Throttled.Milliseconds()), "throttled-ms")
}

// BenchmarkWriteMany: durable 4 KiB random writes, one in flight on each of 100 vDisks.
func BenchmarkWriteMany(b *testing.B) {
	const n, size = 100, 1 << 30
	first := benchNode(b, size)
	vols := []*Volume{first}
	for i := 1; i < n; i++ {
		id := testID(byte(1 + i))
		if err := first.p.Create(context.Background(), Spec{ID: id, Name: id.String(), Size: size}); err != nil {
			b.Fatal(err)
		}
		v, err := first.p.Open(context.Background(), id)
		if err != nil {
			b.Fatal(err)
		}
		vols = append(vols, v)
	}
	buf := make([]byte, 4096)
	for _, v := range vols { // each has its chunk
		if err := v.WriteAt(context.Background(), buf, 0); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(4096)
	b.ResetTimer()
	var wg sync.WaitGroup
	for w, v := range vols {
		wg.Go(func() {
			atRandom(b, w, b.N/n, size, func(p []byte, off int64) error { return v.WriteAt(context.Background(), p, off) })
		})
	}
	wg.Wait()
}
