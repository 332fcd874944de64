package observe

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// maxLabelled bounds the vDisks with time series of their own; the others are
// summed under the label "other", so that a node with 10,000 vDisks does not
// flood its Prometheus.
const maxLabelled = 1000

// Source is what the metrics are read from at each scrape.
type Source struct {
	Disks    func() []DiskMetrics
	Pools    func() []PoolMetrics
	Host     func() volume.HostUsage
	Frontend func() iscsi.Stats
	Health   func() Health
	Clients  func() int // event streams
}

// DiskMetrics is one vDisk at a scrape.
type DiskMetrics struct {
	Name, VPool string
	Stats       volume.Stats
}

// PoolMetrics is one vPool at a scrape.
type PoolMetrics struct {
	Name        string
	Attached    bool
	Total, Free int64 // bytes
}

// Handler serves the metrics in the Prometheus text format, version 0.0.4:
//
//	# HELP name text
//	# TYPE name counter|gauge|histogram
//	name{label="value",...} number
//
// with all samples of a name together. That format is small and stable, and
// writing it needs no library; the names follow Prometheus' conventions
// (base units, _total for counters).
func Handler(src Source, version string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		e := &exposition{}
		e.node(src, version)
		e.disks(src.Disks())
		e.pools(src.Pools())
		host, front := src.Host(), src.Frontend()
		for _, m := range hostMetrics {
			e.family(m.name, m.kind, m.help)
			e.sample(m.name, m.value(host))
		}
		for _, m := range frontMetrics {
			e.family(m.name, m.kind, m.help)
			e.sample(m.name, m.value(front))
		}
		// A scraper that went away is its own problem.
		_, _ = w.Write(e.b)
	})
}

// Kinds of metrics.
const (
	counter   = "counter"
	gauge     = "gauge"
	histogram = "histogram"
)

// exposition is a text under construction.
type exposition struct{ b []byte }

func (e *exposition) family(name, kind, help string) {
	e.b = fmt.Appendf(e.b, "# HELP ovgate_%s %s\n# TYPE ovgate_%s %s\n", name, help, name, kind)
}

// sample adds a value; labels are names and values in turn.
func (e *exposition) sample(name string, v float64, labels ...string) {
	e.b = append(e.b, "ovgate_"...)
	e.b = append(e.b, name...)
	for i := 0; i+1 < len(labels); i += 2 {
		e.b = append(e.b, "{,"[min(i, 1)])
		e.b = append(e.b, labels[i]...)
		e.b = append(e.b, `="`...)
		e.b = append(e.b, escape.Replace(labels[i+1])...)
		e.b = append(e.b, '"')
	}
	if len(labels) > 0 {
		e.b = append(e.b, '}')
	}
	e.b = append(e.b, ' ')
	e.b = strconv.AppendFloat(e.b, v, 'g', -1, 64)
	e.b = append(e.b, '\n')
}

var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func (e *exposition) one(name, kind, help string, v float64) {
	e.family(name, kind, help)
	e.sample(name, v)
}

func (e *exposition) node(src Source, version string) {
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	e.family("info", gauge, "1, with the version as label.")
	e.sample("info", 1, "version", version, "go", runtime.Version())
	e.one("health", gauge, "0 ok, 1 warning, 2 error.", float64(src.Health().State().rank()))
	e.one("event_streams", gauge, "Browsers and programs on the event stream.", float64(src.Clients()))
	e.one("goroutines", gauge, "Goroutines of the process.", float64(runtime.NumGoroutine()))
	e.one("heap_bytes", gauge, "Heap in use.", float64(mem.HeapInuse))
	e.one("memory_bytes", gauge, "Memory obtained from the system.", float64(mem.Sys))
	e.one("gc_pause_seconds_total", counter, "Time stopped by garbage collection.", float64(mem.PauseTotalNs)/1e9)
}

func (e *exposition) disks(all []DiskMetrics) {
	states := map[string]int{}
	rows := fold(all, states)
	e.family("vdisks", gauge, "Open vDisks by state.")
	for _, s := range slices.Sorted(maps.Keys(states)) {
		e.sample("vdisks", float64(states[s]), "state", s)
	}
	for _, m := range diskMetrics {
		name := "vdisk_" + m.name
		e.family(name, m.kind, m.help)
		for _, v := range rows {
			e.sample(name, m.value(v.Stats), "vpool", v.VPool, "vdisk", v.Name)
		}
	}
	e.family("vdisk_read_latency_seconds", histogram, "Time of reads inside the engine.")
	for _, v := range rows {
		e.latency("vdisk_read_latency_seconds", v.Stats.ReadLatency, v)
	}
	e.family("vdisk_write_latency_seconds", histogram, "Time of writes inside the engine.")
	for _, v := range rows {
		e.latency("vdisk_write_latency_seconds", v.Stats.WriteLatency, v)
	}
}

func (e *exposition) pools(all []PoolMetrics) {
	e.family("vpool_attached", gauge, "1 while the vPool is attached.")
	for _, p := range all {
		up := 0.0
		if p.Attached {
			up = 1
		}
		e.sample("vpool_attached", up, "vpool", p.Name)
	}
	e.family("vpool_backend_bytes", gauge, "Size of the backend; 0 when unknown.")
	for _, p := range all {
		e.sample("vpool_backend_bytes", float64(p.Total), "vpool", p.Name)
	}
	e.family("vpool_backend_free_bytes", gauge, "Free space of the backend.")
	for _, p := range all {
		e.sample("vpool_backend_free_bytes", float64(p.Free), "vpool", p.Name)
	}
}

// metric is a metric read from a T.
type metric[T any] struct {
	name, kind, help string
	value            func(T) float64
}

var diskMetrics = []metric[volume.Stats]{
	{"size_bytes", gauge, "Size of the vDisk.", func(s volume.Stats) float64 { return float64(s.Size) }},
	{"mapped_bytes", gauge, "Clusters that hold data.", func(s volume.Stats) float64 { return float64(s.MappedBytes) }},
	{"stored_bytes", gauge, "SCOs of the head on the backend.", func(s volume.Stats) float64 { return float64(s.StoredBytes) }},
	{"journal_bytes", gauge, "Journal in use.", func(s volume.Stats) float64 { return float64(s.JournalBytes) }},
	{"journal_quota_bytes", gauge, "Journal quota.", func(s volume.Stats) float64 { return float64(s.JournalQuota) }},
	{"uncommitted_seq", gauge, "Acknowledged writes that are not on the backend.", func(s volume.Stats) float64 { return float64(s.LastSeq - min(s.CommittedSeq, s.LastSeq)) }},
	{"map_memory_bytes", gauge, "Memory of the block map.", func(s volume.Stats) float64 { return float64(s.MapMemoryBytes) }},
	{"read_ops_total", counter, "Reads.", func(s volume.Stats) float64 { return float64(s.ReadOps) }},
	{"write_ops_total", counter, "Writes.", func(s volume.Stats) float64 { return float64(s.WriteOps) }},
	{"unmap_ops_total", counter, "Unmaps.", func(s volume.Stats) float64 { return float64(s.UnmapOps) }},
	{"flush_ops_total", counter, "Flushes.", func(s volume.Stats) float64 { return float64(s.FlushOps) }},
	{"read_bytes_total", counter, "Bytes read.", func(s volume.Stats) float64 { return float64(s.ReadBytes) }},
	{"written_bytes_total", counter, "Bytes written.", func(s volume.Stats) float64 { return float64(s.WriteBytes) }},
	{"journal_appends_total", counter, "Appends to the journal.", func(s volume.Stats) float64 { return float64(s.JournalAppends) }},
	{"journal_append_bytes_total", counter, "Bytes appended to the journal.", func(s volume.Stats) float64 { return float64(s.JournalAppendBytes) }},
	{"scos_total", counter, "SCOs uploaded.", func(s volume.Stats) float64 { return float64(s.SCOs) }},
	{"sco_bytes_total", counter, "Bytes of SCOs uploaded.", func(s volume.Stats) float64 { return float64(s.SCOBytes) }},
	{"cache_hits_total", counter, "Reads answered by the cache.", func(s volume.Stats) float64 { return float64(s.CacheHits) }},
	{"cache_misses_total", counter, "Reads that went to the backend.", func(s volume.Stats) float64 { return float64(s.CacheMisses) }},
	{"backend_errors_total", counter, "Backend calls that failed.", func(s volume.Stats) float64 { return float64(s.BackendErrors) }},
	{"crc_errors_total", counter, "Checksums that did not verify.", func(s volume.Stats) float64 { return float64(s.CRCErrors) }},
}

var hostMetrics = []metric[volume.HostUsage]{
	{"journal_pool_bytes", gauge, "Journal chunks on the WRITE disk.", func(u volume.HostUsage) float64 { return float64(u.Journal.Bytes) }},
	{"journal_pool_max_bytes", gauge, "Most the journal chunks may take.", func(u volume.HostUsage) float64 { return float64(u.Journal.MaxBytes) }},
	{"journal_pool_free_chunks", gauge, "Chunks without data.", func(u volume.HostUsage) float64 { return float64(u.Journal.Free) }},
	{"cache_bytes", gauge, "Read cache in use.", func(u volume.HostUsage) float64 { return float64(u.CacheBytes) }},
	{"vdisks_open", gauge, "Open vDisks.", func(u volume.HostUsage) float64 { return float64(u.OpenVDisks) }},
}

var frontMetrics = []metric[iscsi.Stats]{
	{"iscsi_connections", gauge, "Open connections.", func(s iscsi.Stats) float64 { return float64(s.Connections) }},
	{"iscsi_sessions", gauge, "Sessions.", func(s iscsi.Stats) float64 { return float64(s.Sessions) }},
	{"iscsi_accepted_total", counter, "Connections accepted.", func(s iscsi.Stats) float64 { return float64(s.Accepted) }},
	{"iscsi_refused_total", counter, "Connections refused at a limit.", func(s iscsi.Stats) float64 { return float64(s.Refused) }},
	{"iscsi_logins_total", counter, "Logins.", func(s iscsi.Stats) float64 { return float64(s.Logins) }},
	{"iscsi_login_failures_total", counter, "Logins refused.", func(s iscsi.Stats) float64 { return float64(s.LoginFailures) }},
	{"iscsi_commands_total", counter, "SCSI commands.", func(s iscsi.Stats) float64 { return float64(s.Commands) }},
	{"iscsi_read_bytes_total", counter, "Data sent to initiators.", func(s iscsi.Stats) float64 { return float64(s.BytesRead) }},
	{"iscsi_written_bytes_total", counter, "Data received from initiators.", func(s iscsi.Stats) float64 { return float64(s.BytesWritten) }},
	{"iscsi_rejects_total", counter, "PDUs rejected.", func(s iscsi.Stats) float64 { return float64(s.Rejects) }},
	{"iscsi_digest_errors_total", counter, "Digests that did not verify.", func(s iscsi.Stats) float64 { return float64(s.DigestErrors) }},
	{"iscsi_dead_peers_total", counter, "Connections dropped because the peer did not answer.", func(s iscsi.Stats) float64 { return float64(s.DeadPeers) }},
	{"iscsi_scsi_service_faults_total", counter, "Faults of the SCSI service that were caught.", func(s iscsi.Stats) float64 { return float64(s.SCSIServiceFaults) }},
}

// fold counts states and sums the vDisks beyond maxLabelled, in order of vPool
// and name so that the same ones keep their label.
func fold(disks []DiskMetrics, states map[string]int) []DiskMetrics {
	for _, v := range disks {
		states[string(v.Stats.State)]++
	}
	slices.SortFunc(disks, func(a, b DiskMetrics) int {
		return cmp.Or(cmp.Compare(a.VPool, b.VPool), cmp.Compare(a.Name, b.Name))
	})
	if len(disks) <= maxLabelled {
		return disks
	}
	rest := DiskMetrics{Name: "other", VPool: ""}
	for _, v := range disks[maxLabelled:] {
		rest.Stats = sumStats(rest.Stats, v.Stats)
	}
	return append(disks[:maxLabelled:maxLabelled], rest)
}

func sumStats(a, b volume.Stats) volume.Stats {
	a.Size += b.Size
	a.MappedBytes += b.MappedBytes
	a.StoredBytes += b.StoredBytes
	a.JournalBytes += b.JournalBytes
	a.JournalQuota += b.JournalQuota
	a.LastSeq += b.LastSeq
	a.CommittedSeq += b.CommittedSeq
	a.MapMemoryBytes += b.MapMemoryBytes
	a.ReadOps += b.ReadOps
	a.WriteOps += b.WriteOps
	a.UnmapOps += b.UnmapOps
	a.FlushOps += b.FlushOps
	a.ReadBytes += b.ReadBytes
	a.WriteBytes += b.WriteBytes
	a.JournalAppends += b.JournalAppends
	a.JournalAppendBytes += b.JournalAppendBytes
	a.SCOs += b.SCOs
	a.SCOBytes += b.SCOBytes
	a.CacheHits += b.CacheHits
	a.CacheMisses += b.CacheMisses
	a.BackendErrors += b.BackendErrors
	a.CRCErrors += b.CRCErrors
	for i := range a.ReadLatency {
		a.ReadLatency[i] += b.ReadLatency[i]
		a.WriteLatency[i] += b.WriteLatency[i]
	}
	return a
}

// latency writes an engine histogram as a Prometheus one. The sum is estimated
// from the middle of each bucket: the engine keeps counts only.
func (e *exposition) latency(name string, h [buckets]uint64, v DiskMetrics) {
	var n uint64
	var sum float64
	for i, c := range h {
		n += c
		upper := float64(uint64(2)<<i) / 1e6 // seconds
		sum += float64(c) * upper * 0.75
		e.sample(name+"_bucket", float64(n), "vpool", v.VPool, "vdisk", v.Name, "le", strconv.FormatFloat(upper, 'g', -1, 64))
	}
	e.sample(name+"_bucket", float64(n), "vpool", v.VPool, "vdisk", v.Name, "le", "+Inf")
	e.sample(name+"_sum", sum, "vpool", v.VPool, "vdisk", v.Name)
	e.sample(name+"_count", float64(n), "vpool", v.VPool, "vdisk", v.Name)
}
