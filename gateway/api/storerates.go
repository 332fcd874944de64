package api

import (
	"math"
	"time"

	"github.com/openvstorage/ovgate/gateway/observe"
	"github.com/openvstorage/ovgate/gateway/observe/series"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
)

// storeRates turns the counters of requests to registered stores into rates. The zero value is ready; not safe
// for concurrent use.
type storeRates struct {
	at  time.Time
	was map[string][]remote.KindStats // by vPool
}

// of takes the counters of vPools at now, and returns what the stores that they are on did since the time before,
// by the id of the store: requests that move objects are its reads and writes.
func (r *storeRates) of(now time.Time, vpools map[string]string, requests func(vpool string) []remote.KindStats) map[string]series.Sample {
	seconds := now.Sub(r.at).Seconds()
	next := make(map[string][]remote.KindStats, len(vpools))
	latencies, out := map[string]*observe.Latencies{}, map[string]series.Sample{}
	for vpool, store := range vpools {
		kinds := requests(vpool)
		next[vpool] = kinds
		was := r.was[vpool]
		if len(was) != len(kinds) || seconds <= 0 {
			continue // new, or the clock was set back
		}
		l := latencies[store]
		if l == nil {
			l = &observe.Latencies{}
			latencies[store] = l
		}
		s := out[store]
		for i, k := range kinds {
			if k.Requests < was[i].Requests { // opened anew
				continue
			}
			n, bytes := float64(k.Requests-was[i].Requests)/seconds, float64(k.Bytes-min(was[i].Bytes, k.Bytes))/seconds
			h := &l.Reads
			switch remote.Kind(i) {
			case remote.Get, remote.Read:
				s.Performance.ReadIOPS, s.Performance.ReadBytesPerSecond = s.Performance.ReadIOPS+n, s.Performance.ReadBytesPerSecond+bytes
			case remote.Put, remote.PutIfAbsent:
				h = &l.Writes
				s.Performance.WriteIOPS, s.Performance.WriteBytesPerSecond = s.Performance.WriteIOPS+n, s.Performance.WriteBytesPerSecond+bytes
			default:
				continue
			}
			for b, n := range k.Latency {
				if b < len(was[i].Latency) && n > was[i].Latency[b] {
					spread(h, b, float64(n-was[i].Latency[b])/seconds)
				}
			}
		}
		out[store] = s
	}
	r.at, r.was = now, next
	for store, s := range out {
		if !s.Performance.Active() {
			delete(out, store)
			continue
		}
		l := latencies[store]
		p := &s.Performance
		p.ReadP50us, p.ReadP99us = observe.Percentile(l.Reads, 0.50), observe.Percentile(l.Reads, 0.99)
		p.WriteP50us, p.WriteP99us = observe.Percentile(l.Writes, 0.50), observe.Percentile(l.Writes, 0.99)
		s.ID, s.Backend, s.Latencies = store, true, l.Pack(observe.LatencyScale)
		out[store] = s
	}
	return out
}

// shortestRequest is where the first bucket of requests to stores is taken to begin: a round trip to another machine.
const shortestRequest = 128 * time.Microsecond

// spread puts requests of a bucket of remote.LatencyBuckets into the buckets that this one overlaps, evenly by the
// logarithm of their time.
func spread(to *[observe.LatencyBuckets]float64, bucket int, n float64) {
	bounds := remote.LatencyBuckets()
	low, high := shortestRequest, bounds[len(bounds)-1]*2
	if bucket > 0 {
		low = bounds[bucket-1]
	}
	if bucket < len(bounds) {
		high = bounds[bucket]
	}
	from, until := math.Log2(float64(low.Microseconds())), math.Log2(float64(high.Microseconds()))
	for i := range to {
		begin, end := float64(i), float64(i+1)
		if i == len(to)-1 {
			end = math.Inf(1)
		}
		if part := min(end, until) - max(begin, from); part > 0 {
			to[i] += n * part / (until - from)
		}
	}
}
