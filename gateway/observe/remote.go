package observe

import (
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
)

// RemoteMetrics is the store of a vPool on Swift or S3 at a scrape.
type RemoteMetrics struct {
	VPool string
	Stats remote.Stats
}

// RemoteCheck is the store of a vPool on Swift or S3.
type RemoteCheck struct {
	VPool     string
	Open      bool   // the breaker: it is left alone because it failed
	LastError string // why
	Denied    []remote.Denial
	// Mean is how long requests took on average in the last minute; 0: there were too few.
	Mean time.Duration
}

const (
	// slowStore is the mean time of requests that makes a store slow: an SCO at 8 MB/s.
	slowStore = 2 * time.Second
	// slowLook is the time over which it is taken, slowLeast of how many requests.
	slowLook  = time.Minute
	slowLeast = 5
)

// Latency tells how long the requests to stores take, from their counters. The zero value is
// ready; not safe for concurrent use.
type Latency struct{ stores map[string]latencyOf }

type latencyOf struct {
	at       time.Time
	requests uint64
	sum      time.Duration
	mean     time.Duration // of the last whole slowLook
}

// Observe takes the counters of stores at now, and returns for each the mean over the last
// whole slowLook.
func (l *Latency) Observe(now time.Time, all []RemoteMetrics) map[string]time.Duration {
	next, out := make(map[string]latencyOf, len(all)), map[string]time.Duration{}
	for _, m := range all {
		cur := latencyOf{at: now}
		for _, k := range m.Stats.Kinds {
			cur.requests, cur.sum = cur.requests+k.Requests, cur.sum+k.LatencySum
		}
		was, known := l.stores[m.VPool]
		switch {
		case !known || cur.requests < was.requests: // new, or opened anew
		case now.Sub(was.at) < slowLook:
			cur = was
		case cur.requests-was.requests >= slowLeast:
			cur.mean = (cur.sum - was.sum) / time.Duration(cur.requests-was.requests)
		}
		next[m.VPool], out[m.VPool] = cur, cur.mean
	}
	l.stores = next
	return out
}

// denials say what a right is for, by its name.
var denials = map[string]struct {
	level         Level
	without, hint string
}{
	"write":  {Bad, "writes go to the journals until these are full", "the vDisks go on by themselves"},
	"read":   {Bad, "what no cache holds cannot be read", "the vDisks go on by themselves"},
	"list":   {Warning, "vDisks do not open, and garbage stays", "it is tried again by itself"},
	"delete": {Warning, "space is not given back", "it is made up for by itself"},
}

func (r RemoteCheck) check(add addCause) {
	if r.Open {
		add(Bad, "backend_store", "vpool "+r.VPool, "bring the store or the network back; the vDisks go on by themselves", "The store of vPool %s does not answer: %s", r.VPool, r.LastError)
	}
	if r.Mean >= slowStore {
		add(Warning, "backend_slow", "vpool "+r.VPool, "look at the store and the network to it; writes are slowed down once journals fill", "Requests to the store of vPool %s took %s on average in the last minute", r.VPool, r.Mean.Round(100*time.Millisecond))
	}
	for _, d := range r.Denied {
		is := denials[d.Right]
		add(is.level, "backend_denied", "vpool "+r.VPool, "let the backend's user "+d.Right+" objects at the store; "+is.hint,
			"The store of vPool %s does not let ovgate %s objects, so %s: %s", r.VPool, d.Right, is.without, d.Error)
	}
}

// remoteCollector makes metrics of remote stores.
type remoteCollector struct {
	src                                    func() []RemoteMetrics
	requests, errors, bytes, latency       *prometheus.Desc
	hedges, wins, throttled, kept, breaker *prometheus.Desc
	limit, running, waiting                *prometheus.Desc
}

func newRemoteCollector(src func() []RemoteMetrics) *remoteCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("ovgate_backend_"+name, help, append([]string{"vpool"}, labels...), nil)
	}
	return &remoteCollector{
		src:       src,
		requests:  desc("requests_total", "Requests to the store, which it may charge for.", "kind"),
		errors:    desc("request_errors_total", "Requests that failed, without answers that are expected.", "kind"),
		bytes:     desc("request_bytes_total", "Bytes that requests moved.", "kind"),
		latency:   desc("request_seconds", "Time of requests.", "kind"),
		hedges:    desc("hedged_reads_total", "Second requests for reads that were late."),
		wins:      desc("hedged_read_wins_total", "Second requests whose answer came first."),
		throttled: desc("throttled_requests_total", "Requests that the store refused for being too many."),
		kept:      desc("kept_back_requests_total", "Requests that were not made while the store was down."),
		breaker:   desc("breaker_open", "1 while the store is left alone because it failed."),
		limit:     desc("concurrency_limit", "Requests that may run at a time, by the latency of late.", "direction"),
		running:   desc("requests_running", "Requests that run.", "direction"),
		waiting:   desc("requests_waiting", "Requests that wait for their turn.", "direction"),
	}
}

// Describe implements prometheus.Collector: none, as vPools come and go.
func (c *remoteCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *remoteCollector) Collect(ch chan<- prometheus.Metric) {
	bounds := remote.LatencyBuckets()
	all := c.src()
	slices.SortFunc(all, func(a, b RemoteMetrics) int { return strings.Compare(a.VPool, b.VPool) })
	for _, m := range all {
		for _, k := range m.Stats.Kinds {
			send(ch, c.requests, counter, float64(k.Requests), m.VPool, k.Kind)
			send(ch, c.errors, counter, float64(k.Errors), m.VPool, k.Kind)
			send(ch, c.bytes, counter, float64(k.Bytes), m.VPool, k.Kind)
			buckets, sum := map[float64]uint64{}, uint64(0)
			for i, n := range k.Latency {
				if sum += n; i < len(bounds) {
					buckets[bounds[i].Seconds()] = sum
				}
			}
			if h, err := prometheus.NewConstHistogram(c.latency, sum, k.LatencySum.Seconds(), buckets, m.VPool, k.Kind); err == nil {
				ch <- h
			}
		}
		send(ch, c.hedges, counter, float64(m.Stats.Hedges), m.VPool)
		send(ch, c.wins, counter, float64(m.Stats.HedgeWins), m.VPool)
		send(ch, c.throttled, counter, float64(m.Stats.Throttled), m.VPool)
		send(ch, c.kept, counter, float64(m.Stats.KeptBack), m.VPool)
		open := 0.0
		if m.Stats.Breaker != remote.BreakerClosed {
			open = 1
		}
		send(ch, c.breaker, gauge, open, m.VPool)
		for direction, l := range map[string]remote.LimitStats{"read": m.Stats.Reads, "write": m.Stats.Writes} {
			send(ch, c.limit, gauge, float64(l.Limit), m.VPool, direction)
			send(ch, c.running, gauge, float64(l.Running), m.VPool, direction)
			send(ch, c.waiting, gauge, float64(l.Waiting), m.VPool, direction)
		}
	}
}
