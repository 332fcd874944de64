package observe

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// Unit is what a Metric is counted in.
type Unit string

// Units.
const (
	UnitMicros         Unit = "us"
	UnitPercent        Unit = "percent"
	UnitPerSecond      Unit = "per_second"
	UnitBytesPerSecond Unit = "bytes_per_second"
)

// Format writes a value for people.
func (u Unit) Format(v float64) string {
	switch u {
	case UnitMicros:
		d := time.Duration(v * float64(time.Microsecond))
		switch {
		case d >= time.Second:
			return d.Round(10 * time.Millisecond).String()
		case d >= time.Millisecond:
			return d.Round(100 * time.Microsecond).String()
		}
		return d.Round(time.Microsecond).String()
	case UnitPercent:
		return fmt.Sprintf("%.3g %%", v)
	case UnitBytesPerSecond:
		for _, p := range []struct {
			bytes float64
			name  string
		}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
			if v >= p.bytes {
				return fmt.Sprintf("%.3g %s/s", v/p.bytes, p.name)
			}
		}
		return fmt.Sprintf("%.3g B/s", v)
	}
	return fmt.Sprintf("%.4g/s", v)
}

// Metric is a figure that thresholds are set for. Its name begins with the kind of object
// that it is of, and a dot.
type Metric struct {
	Name   string
	Unit   Unit
	Means  string // as a sentence begins with it
	Remedy string
}

// Kind is what the metric is of: vdisk, vpool, node or alba.
func (m Metric) Kind() string {
	kind, _, _ := strings.Cut(m.Name, ".")
	return kind
}

// Metrics returns what thresholds can be set for, by name. Rates and latencies are of the
// time between two looks, MeasureEvery.
func Metrics() []Metric {
	const (
		slow  = "look at the backend and the network to it, and at what hosts ask of it"
		space = "add space, or delete vDisks"
		load  = "see what its host does; QoS bounds it"
	)
	return []Metric{
		{"alba.space_used", UnitPercent, "Space of the object store's devices in use", "add devices, or delete vDisks"},
		{"node.cache_hits", UnitPercent, "Reads of the node that a cache answered", "give the node more read cache"},
		{"node.data_dir_used", UnitPercent, "Space of the data directory's disk in use", space},
		{"node.iops", UnitPerSecond, "Reads and writes of the node", "move vDisks to other nodes"},
		{"node.throughput", UnitBytesPerSecond, "Bytes read and written on the node", "move vDisks to other nodes"},
		{"vdisk.cache_hits", UnitPercent, "Reads of a vDisk that a cache answered", "give the node more read cache"},
		{"vdisk.dtl_lag", UnitMicros, "Time that the DTL is behind", "look at the node that has the copy, and the network to it"},
		{"vdisk.iops", UnitPerSecond, "Reads and writes of a vDisk", load},
		{"vdisk.journal_used", UnitPercent, "Journal of a vDisk in use", "the backend is slower than the writes: " + slow},
		{"vdisk.read_latency_p99", UnitMicros, "Latency of reads (p99)", slow},
		{"vdisk.space_used", UnitPercent, "Space of a vDisk that holds data", "grow it, or discard what its host does not need"},
		{"vdisk.throughput", UnitBytesPerSecond, "Bytes read and written on a vDisk", load},
		{"vdisk.write_latency_p99", UnitMicros, "Latency of writes (p99)", slow},
		{"vpool.request_latency", UnitMicros, "Time of requests to the store, on average", slow},
		{"vpool.space_used", UnitPercent, "Space of the backend in use", space},
	}
}

// MetricOf finds a metric by name.
func MetricOf(name string) (Metric, bool) {
	for _, m := range Metrics() {
		if m.Name == name {
			return m, true
		}
	}
	return Metric{}, false
}

// Value is what a metric of an object is now; NaN: the object is there, and nothing was
// measured, such as the latency of reads when there was none.
type Value struct {
	Metric string
	ID     string // of the object
	Object string // as people read it: "vdisk demo"
	V      float64
}

// Figures are what values are made of.
type Figures struct {
	Node       string // its name
	Disks      []DiskFigures
	Pools      []PoolCheck
	Remotes    []RemoteMetrics
	LocalTotal int64 // bytes, of the data directory's disk
	LocalFree  int64
	Alba       *Alba // nil: there is no object store
}

// DiskFigures are those of a vDisk that is open here.
type DiskFigures struct {
	ID, Name string
	Stats    volume.Stats
}

// meter makes values of Figures: of counters it needs those before.
type meter struct {
	at      time.Time
	disks   map[string]counters
	stores  map[string]latencyOf
	started bool
}

// cacheHits is the percent of hits; NaN if nothing was asked of a cache.
func cacheHits(p Performance) float64 {
	return percent(p.CacheHits, p.CacheHits+p.CacheMisses)
}

func percent(part, whole float64) float64 {
	if whole <= 0 {
		return math.NaN()
	}
	return part / whole * 100
}

// measure returns the values of now. Those of counters are NaN at the first look at an object.
func (m *meter) measure(now time.Time, f Figures) (out []Value) {
	elapsed := now.Sub(m.at).Seconds()
	known := m.started && elapsed > 0
	m.at, m.started = now, true
	value := func(metric, id, object string, v float64) { out = append(out, Value{metric, id, object, v}) }
	disks := make(map[string]counters, len(f.Disks))
	var all counters
	for _, d := range f.Disks {
		object := "vdisk " + d.Name
		cur := countersOf(d.Stats)
		disks[d.ID] = cur
		was, ok := m.disks[d.ID]
		p := unmeasured()
		if ok && known {
			delta := cur.since(was)
			all.add(delta)
			p = delta.rates(elapsed)
			if delta.readOps == 0 {
				p.ReadP99us = math.NaN()
			}
			if delta.writeOps == 0 {
				p.WriteP99us = math.NaN()
			}
		}
		value("vdisk.read_latency_p99", d.ID, object, p.ReadP99us)
		value("vdisk.write_latency_p99", d.ID, object, p.WriteP99us)
		value("vdisk.iops", d.ID, object, p.ReadIOPS+p.WriteIOPS)
		value("vdisk.throughput", d.ID, object, p.ReadBytesPerSecond+p.WriteBytesPerSecond)
		value("vdisk.cache_hits", d.ID, object, cacheHits(p))
		value("vdisk.journal_used", d.ID, object, percent(float64(d.Stats.JournalBytes), float64(d.Stats.JournalQuota)))
		value("vdisk.space_used", d.ID, object, percent(float64(d.Stats.MappedBytes), float64(d.Stats.Size)))
		lag := math.NaN()
		if d.Stats.DTL.State != volume.DTLOff {
			lag = float64(d.Stats.DTL.Lag.Microseconds())
		}
		value("vdisk.dtl_lag", d.ID, object, lag)
	}
	m.disks = disks
	node := "node " + f.Node
	p := unmeasured()
	if known {
		p = all.rates(elapsed)
	}
	value("node.iops", Node, node, p.ReadIOPS+p.WriteIOPS)
	value("node.throughput", Node, node, p.ReadBytesPerSecond+p.WriteBytesPerSecond)
	value("node.cache_hits", Node, node, cacheHits(p))
	value("node.data_dir_used", Node, node, percent(float64(f.LocalTotal-f.LocalFree), float64(f.LocalTotal)))
	for _, p := range f.Pools {
		value("vpool.space_used", p.Name, "vpool "+p.Name, percent(float64(p.Total-p.Free), float64(p.Total)))
	}
	stores := make(map[string]latencyOf, len(f.Remotes))
	for _, r := range f.Remotes {
		var cur latencyOf
		for _, k := range r.Stats.Kinds {
			cur.requests, cur.sum = cur.requests+k.Requests, cur.sum+k.LatencySum
		}
		mean := math.NaN()
		if was, ok := m.stores[r.VPool]; ok && cur.requests > was.requests && cur.sum >= was.sum {
			mean = float64((cur.sum - was.sum).Microseconds()) / float64(cur.requests-was.requests)
		}
		stores[r.VPool] = cur
		value("vpool.request_latency", r.VPool, "vpool "+r.VPool, mean)
	}
	m.stores = stores
	if f.Alba != nil {
		used, free := f.Alba.space()
		value("alba.space_used", "alba", "alba devices", percent(float64(used), float64(used+free)))
	}
	return out
}

func unmeasured() Performance {
	n := math.NaN()
	return Performance{n, n, n, n, n, n, n, n, n, n}
}
