package api

import (
	"math"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/gateway/observe"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
)

// TestStoreRates: requests of vPools are reads and writes of the store that they are on; new vPools, and those that were
// opened anew, make no burst.
func TestStoreRates(t *testing.T) {
	counted := map[string][]remote.KindStats{}
	for _, vpool := range []string{"a", "b", "c"} {
		for k := remote.Put; k <= remote.Delete; k++ {
			counted[vpool] = append(counted[vpool], remote.KindStats{Kind: k.String(), Requests: 1000, Bytes: 1 << 30, Latency: make([]uint64, len(remote.LatencyBuckets())+1)})
		}
	}
	add := func(vpool string, k remote.Kind, bucket int, n uint64) {
		of := &counted[vpool][k]
		of.Requests, of.Bytes = of.Requests+n, of.Bytes+n*4096
		of.Latency = append([]uint64(nil), of.Latency...)
		of.Latency[bucket] += n
	}
	requests := func(vpool string) []remote.KindStats { return append([]remote.KindStats(nil), counted[vpool]...) }
	on := map[string]string{"a": "s", "b": "s"}
	now := time.Unix(1000, 0)
	var r storeRates
	if out := r.of(now, on, requests); len(out) != 0 {
		t.Errorf("what was before: %+v", out)
	}
	add("a", remote.Put, 1, 10)
	add("b", remote.PutIfAbsent, 1, 10)
	add("b", remote.Get, len(remote.LatencyBuckets()), 4)
	add("b", remote.Delete, 3, 100)
	on["c"] = "t"
	now = now.Add(2 * time.Second)
	out := r.of(now, on, requests)
	s := out["s"]
	if len(out) != 1 || s.ID != "s" || !s.Backend || s.Performance.WriteIOPS != 10 || s.Performance.ReadIOPS != 2 || s.Performance.WriteBytesPerSecond != 40960 {
		t.Fatalf("%+v", out)
	}
	l, err := s.Latencies.Unpack(observe.LatencyScale)
	if err != nil {
		t.Fatal(err)
	}
	// 1 to 2 ms lie in the buckets from 512 us to 2048 us, what took longer than 30 s in the last one.
	if math.Abs(l.Writes[9]+l.Writes[10]-10) > 0.05 || l.Writes[10] < 9 || l.Reads[observe.LatencyBuckets-1] != 2 {
		t.Errorf("%+v", l)
	}
	if p := s.Performance; p.WriteP50us < 1000 || p.WriteP99us > 2048 || p.ReadP50us < 1<<23 {
		t.Errorf("%+v", p)
	}
	counted["a"][remote.Put].Requests = 3 // opened anew
	if out := r.of(now.Add(time.Second), on, requests); len(out) != 0 {
		t.Errorf("nothing was done: %+v", out)
	}
}

// TestSpread: each bucket of requests gives all that it has.
func TestSpread(t *testing.T) {
	for b := range len(remote.LatencyBuckets()) + 1 {
		var h [observe.LatencyBuckets]float64
		spread(&h, b, 7)
		var sum float64
		for _, n := range h {
			sum += n
		}
		if math.Abs(sum-7) > 1e-9 {
			t.Errorf("bucket %d: %v of 7", b, sum)
		}
	}
}
