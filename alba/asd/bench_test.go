package asd

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/alba/osd/osdtest"
	"github.com/openvstorage/ovgate/internal/blockfs"
)

// BenchmarkStore measures a device on the file system of b.TempDir. The limit of
// large values is the disk's sequential speed (compare with "raw", the same
// writes without a device), that of small ones is how often the disk flushes,
// times the Applies that share a flush.
func BenchmarkStore(b *testing.B) {
	for _, c := range []struct {
		name       string
		goroutines int
		bytes      int
	}{
		{"set/1MiB/1", 1, 1 << 20}, {"set/1MiB/4", 4, 1 << 20}, {"set/8MiB/1", 1, 8 << 20}, {"set/64KiB/8", 8, 64 << 10},
		{"set/4KiB/1", 1, 4 << 10}, {"set/4KiB/32", 32, 4 << 10},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := benchStore(b)
			value := osdtest.Data(1, c.bytes+1)[1:] // not aligned, as it comes from a network
			crc := osd.CRC(value)
			var n atomic.Int64
			measure(b, c.goroutines, c.bytes, func(*rand.Rand) error {
				// A working set of keys, so that space is used again.
				key := fmt.Appendf(nil, "key%06d", n.Add(1)%256)
				return s.Apply(b.Context(), nil, []osd.Update{{Key: key, Value: value, CRC: crc}}, osd.High)
			})
		})
	}
	for _, c := range []struct {
		name             string
		goroutines, read int
	}{{"get/1MiB/1", 1, 1 << 20}, {"read/64KiB/8", 8, 64 << 10}, {"read/4KiB/8", 8, 4 << 10}} {
		b.Run(c.name, func(b *testing.B) {
			const keys = 128
			s := benchStore(b)
			for i := range keys {
				s.set(b, fmt.Sprint("key", i), osdtest.Data(uint64(i), 1<<20))
			}
			measure(b, c.goroutines, c.read, func(r *rand.Rand) error {
				key := fmt.Appendf(nil, "key%d", r.IntN(keys))
				if c.read == 1<<20 {
					_, err := s.Get(b.Context(), [][]byte{key}, 1<<20, osd.High)
					return err
				}
				return s.Read(b.Context(), key, r.Int64N(1<<20/int64(c.read))*int64(c.read), make([]byte, c.read), osd.High)
			})
		})
	}
	for _, read := range []bool{false, true} {
		b.Run(map[bool]string{false: "raw/write/1MiB/1", true: "raw/read/1MiB/1"}[read], func(b *testing.B) {
			fsys, err := blockfs.OS(b.TempDir())
			must(b, err)
			f, err := fsys.Open("raw", containerFlags|blockfs.Create)
			must(b, err)
			buf, n := blockfs.AlignedBuffer(1<<20), int64(0)
			for i := range int64(256) {
				_, err := f.WriteAt(buf, i<<20)
				must(b, err)
			}
			measure(b, 1, len(buf), func(*rand.Rand) error {
				n++
				if read {
					_, err = f.ReadAt(buf, n%256<<20)
				} else {
					_, err = f.WriteAt(buf, n%256<<20)
				}
				return err
			})
			must(b, f.Close())
		})
	}
	b.Run("crc/1MiB", func(b *testing.B) {
		value := osdtest.Data(1, 1<<20)
		measure(b, 1, len(value), func(*rand.Rand) error { _, _, err := sums(value, nil); return err })
	})
}

func benchStore(b *testing.B) *Store {
	fsys, err := blockfs.OS(b.TempDir())
	must(b, err)
	opts := testOptions()
	opts.CacheBytes, opts.MemTableBytes = 0, 0
	s, err := Open(fsys, opts)
	must(b, err)
	b.Cleanup(func() { must(b, s.Close()) })
	return s
}

// measure calls fn b.N times from a number of goroutines.
func measure(b *testing.B, goroutines, bytes int, fn func(*rand.Rand) error) {
	b.SetBytes(int64(bytes))
	b.ReportAllocs()
	b.SetParallelism((goroutines + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0))
	var seed atomic.Uint64
	b.ResetTimer()
	if goroutines == 1 {
		r := rand.New(rand.NewPCG(1, 1))
		for range b.N {
			must(b, fn(r))
		}
		return
	}
	b.RunParallel(func(pb *testing.PB) {
		r := rand.New(rand.NewPCG(seed.Add(1), 1))
		for pb.Next() {
			if err := fn(r); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkSpace takes and gives extents of a device with two million of them, in
// 4096 containers: what an Apply holds the lock for.
func BenchmarkSpace(b *testing.B) {
	const containers, pages = 4096, 64
	blobs := &blobs{files: map[uint32]*container{}}
	var held []extent
	r := rand.New(rand.NewPCG(1, 1))
	for file := uint32(1); file <= containers; file++ {
		c := &container{free: allFree(), size: containerBytes}
		for page := uint32(0); page < containerPages; page += pages * 4 {
			if !c.free.claim(page, pages*4) {
				b.Fatal("claim")
			}
			for i := range uint32(4) {
				held = append(held, extent{file, page + i*pages, pages})
			}
		}
		blobs.files[file] = c
	}
	r.Shuffle(len(held), func(i, j int) { held[i], held[j] = held[j], held[i] })
	for _, e := range held[len(held)/2:] { // the worst case: full of holes
		if err := blobs.give(e); err != nil {
			b.Fatal(err)
		}
	}
	held = held[:len(held)/2]
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		i := r.IntN(len(held))
		if err := blobs.give(held[i]); err != nil {
			b.Fatal(err)
		}
		e, err := blobs.take(uint32(4 + r.IntN(pages-3)))
		if err != nil {
			b.Fatal(err)
		}
		held[i] = e
	}
}
