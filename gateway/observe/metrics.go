package observe

import (
	"cmp"
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// maxLabelled bounds the vDisks with time series of their own; the others are
// summed under the label "other", so that a node with 10,000 vDisks does not
// flood its Prometheus.
const maxLabelled = 1000

const (
	// maxPools bounds the vPools with time series: a node has a handful.
	maxPools = 100
	// maxScrapes bounds scrapes at once: each walks every vDisk.
	maxScrapes = 4
)

// Source is what the metrics are read from at each scrape.
type Source struct {
	Disks    func() []DiskMetrics
	Pools    func() []PoolMetrics
	Host     func() volume.HostUsage
	Frontend func() iscsi.Stats
	Health   func() Health
	Clients  func() int // event streams
	// Alba is the object store; nil, or a nil answer: there is none.
	Alba func() *Alba
	// Remotes are the stores of vPools on Swift and S3; nil: none.
	Remotes func() []RemoteMetrics
	// Cluster is the node's; nil, or a nil answer: it is in none.
	Cluster func() *Cluster
	// Registry is the members of etcd that the registry is in; nil: it is in none.
	Registry func() []RegistryMember
}

// DiskMetrics is one vDisk at a scrape.
type DiskMetrics struct {
	Name, VPool string
	Stats       volume.Stats
	LUN         *iscsi.LUNStats // what initiators did; nil: not published
}

// PoolMetrics is one vPool at a scrape.
type PoolMetrics struct {
	Name        string
	Attached    bool
	Total, Free int64 // bytes
}

// Handler serves the metrics to Prometheus from a registry of its own: the
// node's and those of the Go runtime and the process. Names follow Prometheus'
// conventions (base units, _total for counters). A scrape that finds something
// wrong with one metric still gets the others.
func Handler(src Source, version string, log *slog.Logger) http.Handler {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return promhttp.HandlerFor(newRegistry(src, version), promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn), ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: maxScrapes,
	})
}

func newRegistry(src Source, version string) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(newCollector(src, version), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if src.Alba != nil {
		r.MustRegister(newAlbaCollector(src.Alba))
	}
	if src.Remotes != nil {
		r.MustRegister(newRemoteCollector(src.Remotes))
	}
	if src.Registry != nil {
		r.MustRegister(newRegistryCollector(src.Registry))
	}
	if src.Cluster != nil {
		r.MustRegister(newClusterCollector(src.Cluster))
	}
	return r
}

// collector turns the counters that the parts keep into metrics at each scrape
// (V4): there is no second set of counters beside them.
type collector struct {
	src     Source
	version string

	info, health, streams, vdisks      *prometheus.Desc
	attached, poolBytes, poolFreeBytes *prometheus.Desc
	reads, writes                      *prometheus.Desc
	disks                              []*prometheus.Desc // as diskMetrics
	host                               []*prometheus.Desc // as hostMetrics
	writeDisks                         []*prometheus.Desc // as writeDiskMetrics
	front                              []*prometheus.Desc // as frontMetrics
	luns                               lunDescs
	dtl                                dtlDescs
}

func newCollector(src Source, version string) *collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("ovgate_"+name, help, labels, nil)
	}
	c := &collector{
		src: src, version: version,
		info:          desc("info", "1, with the version as label.", "version", "go"),
		health:        desc("health", "0 ok, 1 warning, 2 error."),
		streams:       desc("event_streams", "Browsers and programs on the event stream."),
		vdisks:        desc("vdisks", "Open vDisks by state.", "state"),
		attached:      desc("vpool_attached", "1 while the vPool is attached.", "vpool"),
		poolBytes:     desc("vpool_backend_bytes", "Size of the backend; 0 when unknown.", "vpool"),
		poolFreeBytes: desc("vpool_backend_free_bytes", "Free space of the backend.", "vpool"),
		reads:         desc("vdisk_read_latency_seconds", "Time of reads inside the engine.", "vpool", "vdisk"),
		writes:        desc("vdisk_write_latency_seconds", "Time of writes inside the engine.", "vpool", "vdisk"),
	}
	c.luns, c.dtl = newLUNDescs(desc), newDTLDescs(desc)
	for _, m := range diskMetrics {
		c.disks = append(c.disks, desc("vdisk_"+m.name, m.help, "vpool", "vdisk"))
	}
	for _, m := range hostMetrics {
		c.host = append(c.host, desc(m.name, m.help))
	}
	for _, m := range writeDiskMetrics {
		c.writeDisks = append(c.writeDisks, desc("write_disk_"+m.name, m.help, "disk"))
	}
	for _, m := range frontMetrics {
		c.front = append(c.front, desc(m.name, m.help))
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, list := range [][]*prometheus.Desc{
		{c.info, c.health, c.streams, c.vdisks, c.attached, c.poolBytes, c.poolFreeBytes, c.reads, c.writes}, c.disks, c.host, c.writeDisks, c.front, c.luns.all(), c.dtl.all(),
	} {
		for _, d := range list {
			ch <- d
		}
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	send(ch, c.info, gauge, 1, c.version, runtime.Version())
	send(ch, c.health, gauge, float64(c.src.Health().State().rank()))
	send(ch, c.streams, gauge, float64(c.src.Clients()))
	c.collectDisks(ch)
	c.collectPools(ch)
	host, front := c.src.Host(), c.src.Frontend()
	for i, m := range hostMetrics {
		send(ch, c.host[i], m.kind, m.value(host))
	}
	for _, d := range host.WriteDisks {
		for i, m := range writeDiskMetrics {
			send(ch, c.writeDisks[i], m.kind, m.value(d), d.Name)
		}
	}
	c.dtl.collectHost(ch, host)
	for i, m := range frontMetrics {
		send(ch, c.front[i], m.kind, m.value(front))
	}
}

func (c *collector) collectDisks(ch chan<- prometheus.Metric) {
	rows, states := fold(c.src.Disks())
	for s, n := range states {
		send(ch, c.vdisks, gauge, float64(n), s)
	}
	for _, v := range rows {
		for i, m := range diskMetrics {
			send(ch, c.disks[i], m.kind, m.value(v.Stats), v.VPool, v.Name)
		}
		latency(ch, c.reads, v.Stats.ReadLatency, v)
		latency(ch, c.writes, v.Stats.WriteLatency, v)
		c.luns.collect(ch, v)
		c.dtl.collectDisk(ch, v)
	}
}

// collectPools shows the first maxPools vPools in order of name.
func (c *collector) collectPools(ch chan<- prometheus.Metric) {
	all := c.src.Pools()
	slices.SortFunc(all, func(a, b PoolMetrics) int { return cmp.Compare(a.Name, b.Name) })
	all = slices.CompactFunc(all, func(a, b PoolMetrics) bool { return a.Name == b.Name })
	for _, p := range all[:min(len(all), maxPools)] {
		up := 0.0
		if p.Attached {
			up = 1
		}
		send(ch, c.attached, gauge, up, p.Name)
		send(ch, c.poolBytes, gauge, float64(p.Total), p.Name)
		send(ch, c.poolFreeBytes, gauge, float64(p.Free), p.Name)
	}
}

// Kinds of metrics.
const (
	counter = prometheus.CounterValue
	gauge   = prometheus.GaugeValue
)

// send passes a value on. Bytes that are not UTF-8 cannot be a label.
func send(ch chan<- prometheus.Metric, d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
	m, err := prometheus.NewConstMetric(d, kind, v, valid(labels)...)
	if err != nil {
		m = prometheus.NewInvalidMetric(d, err)
	}
	ch <- m
}

func valid(labels []string) []string {
	for i, l := range labels {
		labels[i] = strings.ToValidUTF8(l, "?")
	}
	return labels
}

// metric is a metric read from a T.
type metric[T any] struct {
	name  string // after "ovgate_"; of a vDisk after "ovgate_vdisk_"
	kind  prometheus.ValueType
	help  string
	value func(T) float64
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
	{"throttled_seconds_total", counter, "Time that writes were delayed because the journal was filling up.", func(s volume.Stats) float64 { return s.Throttled.Seconds() }},
	{"scos_total", counter, "SCOs uploaded.", func(s volume.Stats) float64 { return float64(s.SCOs) }},
	{"sco_bytes_total", counter, "Bytes of SCOs uploaded.", func(s volume.Stats) float64 { return float64(s.SCOBytes) }},
	{"cache_hits_total", counter, "Clusters that reads found in the read cache, in memory or on READ disks.", func(s volume.Stats) float64 { return float64(s.CacheHits) }},
	{"cache_misses_total", counter, "Clusters that reads had from the backend.", func(s volume.Stats) float64 { return float64(s.CacheMisses) }},
	{"backend_errors_total", counter, "Backend calls that failed.", func(s volume.Stats) float64 { return float64(s.BackendErrors) }},
	{"scrub_read_bytes_total", counter, "Bytes read by scrubs.", func(s volume.Stats) float64 { return float64(s.ScrubReadBytes) }},
	{"scrub_written_bytes_total", counter, "Bytes written by scrubs.", func(s volume.Stats) float64 { return float64(s.ScrubWrittenBytes) }},
	{"scrub_deleted_objects_total", counter, "Objects that scrubs gave back.", func(s volume.Stats) float64 { return float64(s.ScrubDeleted) }},
	{"cached_bytes", gauge, "Of it in the read cache, in memory and on READ disks.", func(s volume.Stats) float64 { return float64(s.CacheBytes) }},
	{"condemned_objects", gauge, "Objects that are to be deleted.", func(s volume.Stats) float64 { return float64(s.Condemned) }},
	{"crc_errors_total", counter, "Checksums that did not verify.", func(s volume.Stats) float64 { return float64(s.CRCErrors) }},
}

var hostMetrics = []metric[volume.HostUsage]{
	{"journal_pool_bytes", gauge, "Journal chunks on all WRITE disks.", func(u volume.HostUsage) float64 { return float64(u.Journal.Bytes) }},
	{"journal_pool_max_bytes", gauge, "Most the journal chunks may take.", func(u volume.HostUsage) float64 { return float64(u.Journal.MaxBytes) }},
	{"journal_pool_free_chunks", gauge, "Chunks without data.", func(u volume.HostUsage) float64 { return float64(u.Journal.Free) }},
	{"journal_group_writes_total", counter, "Writes of the group logs, each of which makes appends of several vDisks durable.", func(u volume.HostUsage) float64 { return float64(u.Journal.Frames) }},
	{"journal_grouped_appends_total", counter, "Appends to journals that became durable with others, in a group log.", func(u volume.HostUsage) float64 { return float64(u.Journal.Grouped) }},
	{"cache_bytes", gauge, "Read cache in use.", func(u volume.HostUsage) float64 { return float64(u.CacheBytes) }},
	{"read_cache_bytes", gauge, "Read cache on disks, in use.", func(u volume.HostUsage) float64 { return float64(u.ReadCache().Bytes) }},
	{"read_cache_max_bytes", gauge, "Most the read cache on disks may take.", func(u volume.HostUsage) float64 { return float64(u.ReadCache().MaxBytes) }},
	{"read_cache_hits_total", counter, "Groups read from the cache on disks.", func(u volume.HostUsage) float64 { return float64(u.ReadCache().Hits) }},
	{"read_cache_misses_total", counter, "Groups that were neither in memory nor in the cache on disks.", func(u volume.HostUsage) float64 { return float64(u.ReadCache().Misses) }},
	{"read_cache_written_total", counter, "Groups written to the cache on disks.", func(u volume.HostUsage) float64 { return float64(u.ReadCache().Written) }},
	{"read_cache_refused_total", counter, "Groups not written to it: used too seldom, or came too fast.", func(u volume.HostUsage) float64 { return float64(u.ReadCache().Refused) }},
	{"map_memory_max_bytes", gauge, "Most the pages of the maps may take (map_memory).", func(u volume.HostUsage) float64 { return float64(u.Map.Max) }},
	{"map_resident_bytes", gauge, "Pages of maps in memory that local disk has too.", func(u volume.HostUsage) float64 { return float64(u.Map.Resident) }},
	{"map_dirty_bytes", gauge, "Pages of maps that are in memory alone.", func(u volume.HostUsage) float64 { return float64(u.Map.Dirty) }},
	{"map_page_reads_total", counter, "Pages of maps read back.", func(u volume.HostUsage) float64 { return float64(u.Map.Loads) }},
	{"map_page_evictions_total", counter, "Pages of maps dropped from memory.", func(u volume.HostUsage) float64 { return float64(u.Map.Evictions) }},
	{"vdisks_open", gauge, "Open vDisks.", func(u volume.HostUsage) float64 { return float64(u.OpenVDisks) }},
}

// writeDiskMetrics are of each WRITE disk, and of the journals in the data directory.
var writeDiskMetrics = []metric[volume.WriteDiskUsage]{
	{"used", gauge, "1 while journals may begin there, 0 when it failed or cannot be used.", func(u volume.WriteDiskUsage) float64 {
		if u.Err != nil {
			return 0
		}
		return 1
	}},
	{"journals", gauge, "Open journals.", func(u volume.WriteDiskUsage) float64 { return float64(u.Journals) }},
	{"bytes", gauge, "Journal chunks.", func(u volume.WriteDiskUsage) float64 { return float64(u.Bytes) }},
	{"max_bytes", gauge, "Most the journal chunks may take.", func(u volume.WriteDiskUsage) float64 { return float64(u.MaxBytes) }},
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

// fold counts states, and sums the vDisks that share a name (one that is being
// deleted and its successor) and those beyond maxLabelled, in order of vPool and
// name so that the same ones keep their label.
func fold(disks []DiskMetrics) (rows []DiskMetrics, states map[string]int) {
	states = map[string]int{}
	for _, v := range disks {
		states[string(v.Stats.State)]++
	}
	slices.SortStableFunc(disks, byName)
	for _, v := range disks {
		last := len(rows) - 1
		switch {
		case last >= 0 && byName(rows[last], v) == 0:
			rows[last].Stats, rows[last].LUN = sumStats(rows[last].Stats, v.Stats), sumLUN(rows[last].LUN, v.LUN)
		case len(rows) < maxLabelled:
			rows = append(rows, v)
		case len(rows) == maxLabelled:
			rows = append(rows, DiskMetrics{Name: "other", Stats: v.Stats, LUN: v.LUN})
		default:
			rows[last].Stats, rows[last].LUN = sumStats(rows[last].Stats, v.Stats), sumLUN(rows[last].LUN, v.LUN)
		}
	}
	return rows, states
}

func byName(a, b DiskMetrics) int {
	return cmp.Or(cmp.Compare(a.VPool, b.VPool), cmp.Compare(a.Name, b.Name))
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
	a.Throttled += b.Throttled
	a.ScrubReadBytes += b.ScrubReadBytes
	a.ScrubWrittenBytes += b.ScrubWrittenBytes
	a.ScrubDeleted += b.ScrubDeleted
	a.Condemned += b.Condemned
	a.DTL = sumDTL(a.DTL, b.DTL)
	for i := range a.ReadLatency {
		a.ReadLatency[i] += b.ReadLatency[i]
		a.WriteLatency[i] += b.WriteLatency[i]
	}
	return a
}

// latency passes an engine histogram on as a Prometheus one. The sum is estimated
// from the middle of each bucket: the engine keeps counts only.
func latency(ch chan<- prometheus.Metric, d *prometheus.Desc, h [buckets]uint64, v DiskMetrics) {
	var n uint64
	var sum float64
	upTo := make(map[float64]uint64, buckets)
	for i, c := range h {
		n += c
		upper := float64(uint64(2)<<i) / 1e6 // seconds
		sum += float64(c) * upper * 0.75
		upTo[upper] = n
	}
	m, err := prometheus.NewConstHistogram(d, n, sum, upTo, valid([]string{v.VPool, v.Name})...)
	if err != nil {
		m = prometheus.NewInvalidMetric(d, err)
	}
	ch <- m
}
