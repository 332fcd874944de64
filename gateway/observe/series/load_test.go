package series

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/gateway/observe"
	"github.com/openvstorage/ovgate/internal/blockfs"
)

// TestMemory: ten thousand vDisks that are all busy take no more memory than they may, and files
// no more than the disk has for them.
func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("a load: nothing for the race detector")
	}
	dir, err := blockfs.OS(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	const vdisks = 10_000
	all := make([]observe.Input, vdisks)
	for i := range all {
		all[i] = observe.Input{ID: fmt.Sprintf("00000000-0000-4000-8000-%012d", i), VPool: "p"}
	}
	names, counters := heap(), observe.NewSampler(1)
	second := func(s *observe.Sampler, now int64) []Sample {
		for i := range all {
			st := &all[i].Stats
			st.ReadOps += uint64(1000 + i)
			st.ReadBytes += uint64(4096 * (1000 + i))
			st.WriteOps += uint64(1000 + i)
			for b := 6; b < 12; b++ { // as many buckets as a store on an SSD takes
				st.ReadLatency[b] += uint64((1000 + i) / 6)
				st.WriteLatency[b+2] += uint64((1000 + i) / 6)
			}
		}
		var out []Sample
		for _, v := range s.Observe(time.Unix(now, 0), all, nil, false) {
			out = append(out, Sample{Named: v})
		}
		return out
	}
	second(counters, begin)
	present := heap() - names // what the Sampler has of each vDisk without any history
	sampler := observe.NewSampler(SeriesIn(DefaultMemory))
	s := newStore(Options{Dir: in(dir), Sampler: sampler})
	now := begin
	for range 700 {
		now++
		s.Add(time.Unix(now, 0), second(sampler, now))
		if now%fine.length == 0 {
			s.told(s.work())
		}
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	used := heap() - names - 2*present
	t.Logf("%d KiB, beside %d KiB for present figures", used>>10, present>>10)
	if used > DefaultMemory {
		t.Errorf("%d MiB in use, %d MiB allowed", used>>20, DefaultMemory>>20)
	}
	runtime.KeepAlive(counters)
	runtime.KeepAlive(all)
	var total int64
	for _, size := range s.files[fine] {
		total += size
	}
	t.Logf("%d bytes for a point of a series on the disk", total/int64(len(s.files[fine]))/int64(s.most)/int64(fine.places()))
}

// BenchmarkAdd: a second of 1024 busy vDisks, which has to stay far below a second.
func BenchmarkAdd(b *testing.B) {
	s := newStore(Options{Dir: in(blockfs.NewMem()), Sampler: observe.NewSampler(0)})
	var samples []Sample
	for i := range 1024 {
		samples = append(samples, busy(fmt.Sprint(i), 100, 5))
	}
	now := begin
	for b.Loop() {
		now++
		s.Add(time.Unix(now, 0), samples)
	}
}
