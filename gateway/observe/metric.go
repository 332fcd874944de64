package observe

import (
	"fmt"
	"maps"
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
	Idle       []IdleFigures
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
	Idle     bool   // Stats stay as they are
	Requests uint64 // until then
}

// IdleFigures are a vDisk that is open here and whose figures are known (Thresholds.Known).
type IdleFigures struct{ ID, Name string }

// meter makes values of Figures: of counters it needs those before.
type meter struct {
	at      time.Time
	disks   map[string]*metered
	stores  map[string]latencyOf
	started bool
	looks   uint64
	values  map[string][]Value // by metric: where the next ones go
}

// metered is what is known of a vDisk.
type metered struct {
	name, object string
	counters     counters
	// Of those that are no counters; percent, percent and us.
	journalUsed, spaceUsed, lag float64
	// idle since the look before, as what is on its way to be given back then goes beside it:
	// nothing of this changes, until there were more requests.
	idle, rests bool
	requests    uint64
	seen        uint64 // at which look
}

// measureOf makes a metric of vDisks.
type measureOf struct {
	name  string
	value func(d *metered, p Performance) float64
}

var measures = []measureOf{
	{"vdisk.read_latency_p99", func(_ *metered, p Performance) float64 { return p.ReadP99us }},
	{"vdisk.write_latency_p99", func(_ *metered, p Performance) float64 { return p.WriteP99us }},
	{"vdisk.iops", func(_ *metered, p Performance) float64 { return p.ReadIOPS + p.WriteIOPS }},
	{"vdisk.throughput", func(_ *metered, p Performance) float64 { return p.ReadBytesPerSecond + p.WriteBytesPerSecond }},
	{"vdisk.cache_hits", func(_ *metered, p Performance) float64 { return cacheHits(p) }},
	{"vdisk.journal_used", func(d *metered, _ Performance) float64 { return d.journalUsed }},
	{"vdisk.space_used", func(d *metered, _ Performance) float64 { return d.spaceUsed }},
	{"vdisk.dtl_lag", func(d *metered, _ Performance) float64 { return d.lag }},
}

// known tells whether an idle vDisk, after so many requests, is as it was at the last look.
func (m *meter) known(id string, requests uint64) bool {
	d := m.disks[id]
	return d != nil && d.idle && d.requests == requests && d.seen == m.looks
}

// metered returns what is known of a vDisk, which is seen at this look; was: it was known.
func (m *meter) metered(id, name string) (d *metered, was bool) {
	if d, was = m.disks[id]; !was {
		d = &metered{}
		m.disks[id] = d
	}
	if d.name != name || !was {
		d.name, d.object = name, "vdisk "+name
	}
	d.seen = m.looks
	return d, was
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

// measure returns the values of now of the metrics that are wanted, by metric, until the next
// look. Those of counters are NaN at the first look at an object.
func (m *meter) measure(now time.Time, f Figures, wanted func(metric string) bool) map[string][]Value {
	elapsed := now.Sub(m.at).Seconds()
	known := m.started && elapsed > 0
	m.at, m.started = now, true
	m.looks++
	if m.disks == nil {
		m.disks, m.values = map[string]*metered{}, map[string][]Value{}
	}
	for metric, v := range m.values {
		clear(v)
		m.values[metric] = v[:0]
	}
	value := func(metric, id, object string, v float64) {
		if wanted(metric) {
			m.values[metric] = append(m.values[metric], Value{metric, id, object, v})
		}
	}
	var ofDisks []measureOf // that are wanted
	for _, o := range measures {
		if wanted(o.name) {
			ofDisks = append(ofDisks, o)
		}
	}
	disk := func(id string, d *metered, p Performance) {
		for _, o := range ofDisks {
			m.values[o.name] = append(m.values[o.name], Value{o.name, id, d.object, o.value(d, p)})
		}
	}
	var all counters
	for _, in := range f.Disks {
		d, was := m.metered(in.ID, in.Name)
		before := d.counters
		d.counters = countersOf(in.Stats)
		p := unmeasured()
		if was && known {
			delta := d.counters.since(before)
			all.add(delta)
			p = measured(delta, elapsed)
		}
		d.journalUsed = percent(float64(in.Stats.JournalBytes), float64(in.Stats.JournalQuota))
		d.spaceUsed = percent(float64(in.Stats.MappedBytes), float64(in.Stats.Size))
		d.lag = math.NaN()
		if in.Stats.DTL.State != volume.DTLOff {
			d.lag = float64(in.Stats.DTL.Lag.Microseconds())
		}
		d.idle = in.Idle && d.rests && d.requests == in.Requests
		d.rests, d.requests = in.Idle, in.Requests
		disk(in.ID, d, p)
	}
	still := unmeasured()
	if known {
		still = measured(counters{}, elapsed)
	}
	for _, in := range f.Idle {
		d, _ := m.metered(in.ID, in.Name)
		disk(in.ID, d, still)
	}
	if len(m.disks) > len(f.Disks)+len(f.Idle) {
		maps.DeleteFunc(m.disks, func(_ string, d *metered) bool { return d.seen != m.looks })
	}
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
	return m.values
}

// measured is what a vDisk did; latencies are NaN where it did nothing.
func measured(delta counters, seconds float64) Performance {
	p := delta.rates(seconds)
	if delta.readOps == 0 {
		p.ReadP99us = math.NaN()
	}
	if delta.writeOps == 0 {
		p.WriteP99us = math.NaN()
	}
	return p
}

func unmeasured() Performance {
	n := math.NaN()
	return Performance{n, n, n, n, n, n, n, n, n, n}
}
