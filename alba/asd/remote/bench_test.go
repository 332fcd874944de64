package remote_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/alba/osd"
)

// nullDevice answers at once, so that benchmarks measure the way to it. What a
// loopback connection moves with writev is the physical limit: BenchmarkSend1MiB of
// package wire.
type nullDevice struct{ osd.OSD }

func (nullDevice) Info(context.Context) (osd.Info, error) { return osd.Info{ID: deviceID}, nil }

func (nullDevice) Read(context.Context, []byte, int64, []byte, osd.Priority) error { return nil }

func (nullDevice) Apply(context.Context, []osd.Assert, []osd.Update, osd.Priority) error { return nil }

// benchModes runs a benchmark over TLS and without, with one caller and with four.
func benchModes(b *testing.B, bytes int, op func(ctx context.Context, d osd.OSD, p []byte) error) {
	for _, plain := range []bool{false, true} {
		for _, callers := range []int{1, 4} {
			name := fmt.Sprintf("%s/callers=%d", map[bool]string{false: "TLS", true: "Plain"}[plain], callers)
			b.Run(name, func(b *testing.B) {
				c := start(b, plain, nullDevice{}).client()
				ctx, cancel := context.WithTimeout(b.Context(), time.Hour) // as real calls have
				defer cancel()
				if err := op(ctx, c, make([]byte, bytes)); err != nil {
					b.Fatal(err)
				}
				b.SetBytes(int64(bytes))
				b.ReportAllocs()
				if callers == 1 {
					benchOne(b, func(p []byte) error { return op(ctx, c, p) }, make([]byte, bytes))
					return
				}
				b.SetParallelism(callers / 2) // of GOMAXPROCS 2
				b.RunParallel(func(pb *testing.PB) {
					p := make([]byte, bytes)
					for pb.Next() {
						if err := op(ctx, c, p); err != nil {
							b.Error(err)
						}
					}
				})
			})
		}
	}
}

// benchOne reports the median too.
func benchOne(b *testing.B, op func(p []byte) error, p []byte) {
	times := make([]time.Duration, 0, 1<<16)
	b.ResetTimer()
	for range b.N {
		from := time.Now()
		if err := op(p); err != nil {
			b.Fatal(err)
		}
		if len(times) < cap(times) {
			times = append(times, time.Since(from))
		}
	}
	b.StopTimer()
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Nanoseconds())/1000, "p50-µs")
}

var benchKey = []byte("v1/namespace/0123456789abcdef/0123456789abcdef")

func read(ctx context.Context, d osd.OSD, p []byte) error {
	return d.Read(ctx, benchKey, 0, p, osd.High)
}

func BenchmarkRead1MiB(b *testing.B) { benchModes(b, 1<<20, read) }

func BenchmarkRead4KiB(b *testing.B) { benchModes(b, 4<<10, read) }

func BenchmarkApply1MiB(b *testing.B) {
	crc := osd.CRC(make([]byte, 1<<20))
	benchModes(b, 1<<20, func(ctx context.Context, d osd.OSD, p []byte) error {
		return d.Apply(ctx, nil, []osd.Update{{Key: benchKey, Value: p, CRC: crc}}, osd.High)
	})
}
