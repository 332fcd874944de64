package cache

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	mrand "math/rand/v2"
	"runtime"
	"testing"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/clock"
)

// BenchmarkBehind tells what a second cache would hold that sees only what this one does
// not have, as one of fragments in Alba's client would: the share of reads that the first
// has, and that either has, when they divide a disk that has room for a fifth of the groups.
// With twice, the second holds two groups in the place of one, as compressed pieces may.
// It is what the object store has no cache of its own for (alba/README.md).
func BenchmarkBehind(b *testing.B) {
	const groups, reads, memory, disk = 4000, 40000, 100, 800
	for _, skew := range []float64{1.01, 1.3} {
		for _, c := range []struct {
			name          string
			first, second int
		}{{"alone", disk, 0}, {"half", disk / 2, disk / 2}, {"half-twice", disk / 2, disk}} {
			b.Run(fmt.Sprintf("skew=%v/%s", skew, c.name), func(b *testing.B) {
				for b.Loop() {
					first, both := hitRates(b, skew, groups, reads, memory, c.first, c.second)
					b.ReportMetric(first, "first")
					b.ReportMetric(both, "both")
				}
			})
		}
	}
}

// hitRates are those of the second half of the reads.
func hitRates(b *testing.B, skew float64, groups, reads, memory, diskOfFirst, diskOfSecond int) (first, both float64) {
	open := func(memory, disk int) *Cache {
		d, err := OpenDisk(DiskOptions{FS: blockfs.NewMem(), Name: "c", Bytes: int64(disk) * SlotBytes, Rand: rand.Reader, Clock: clock.Real{}, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			b.Fatal(err)
		}
		return New(int64(memory)*64<<10, d)
	}
	var u User
	data := make([]byte, 64<<10)
	get := func(c *Cache, k Key, load func()) {
		if _, err := c.Get(context.Background(), k, &u, func() ([]byte, error) { load(); return data, nil }); err != nil {
			b.Fatal(err)
		}
		for c.Disks()[0].Queued > 0 { // as if reads came no faster than the disk writes
			runtime.Gosched()
		}
	}
	near := open(memory, diskOfFirst)
	defer near.Close()
	far := open(shards, max(diskOfSecond, 1))
	defer far.Close()
	zipf := mrand.NewZipf(mrand.New(mrand.NewPCG(1, 1)), skew, 8, uint64(groups-1))
	missed, missedBoth := 0, 0
	for i := range reads {
		k, counts := Key{1, uint32(zipf.Uint64()), 0}, 0
		if i >= reads/2 {
			counts = 1
		}
		get(near, k, func() {
			missed += counts
			if diskOfSecond > 0 {
				get(far, k, func() { missedBoth += counts })
			} else {
				missedBoth += counts
			}
		})
	}
	return 1 - float64(missed)/float64(reads/2), 1 - float64(missedBoth)/float64(reads/2)
}
