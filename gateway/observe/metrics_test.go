package observe

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

func metricsOf(disks []DiskMetrics) Source {
	return Source{
		Disks: func() []DiskMetrics { return disks },
		Pools: func() []PoolMetrics { return []PoolMetrics{{"gold", true, 100, 50}, {"away", false, 0, 0}} },
		Host:  func() volume.HostUsage { return volume.HostUsage{OpenVDisks: 2} }, Frontend: func() iscsi.Stats { return iscsi.Stats{Sessions: 3} },
		Health: func() Health { return Health{Causes: []Cause{{State: Warning}}} }, Clients: func() int { return 2 },
	}
}

// TestMetrics: what a scraper reads, by Prometheus' own parser.
func TestMetrics(t *testing.T) {
	st := volume.Stats{State: volume.StateRunning, Size: 1 << 20, ReadOps: 7, LastSeq: 9, CommittedSeq: 4}
	st.ReadLatency[0], st.ReadLatency[3] = 1, 2
	lun := &iscsi.LUNStats{Depth: 3, Delayed: 4}
	lun.Write = iscsi.IOStats{Commands: 3, Bytes: 12288, Errors: 1}
	lun.Write.Latency.Buckets[3], lun.Write.Latency.Buckets[iscsi.LatencyBuckets-1], lun.Write.Latency.Sum = 2, 1, 90*time.Second
	web := httptest.NewServer(Handler(metricsOf([]DiskMetrics{{Name: "a\"\\\n", VPool: "gold", Stats: st, LUN: lun}}), "1.0", nil))
	defer web.Close()
	want := `# HELP ovgate_health 0 ok, 1 warning, 2 error.
# TYPE ovgate_health gauge
ovgate_health 1
# HELP ovgate_iscsi_sessions Sessions.
# TYPE ovgate_iscsi_sessions gauge
ovgate_iscsi_sessions 3
# HELP ovgate_vdisk_iscsi_bytes_total Bytes read and written by initiators.
# TYPE ovgate_vdisk_iscsi_bytes_total counter
ovgate_vdisk_iscsi_bytes_total{op="other",vdisk="a\"\\\n",vpool="gold"} 0
ovgate_vdisk_iscsi_bytes_total{op="read",vdisk="a\"\\\n",vpool="gold"} 0
ovgate_vdisk_iscsi_bytes_total{op="write",vdisk="a\"\\\n",vpool="gold"} 12288
# HELP ovgate_vdisk_iscsi_delayed_total Commands that were held back.
# TYPE ovgate_vdisk_iscsi_delayed_total counter
ovgate_vdisk_iscsi_delayed_total{vdisk="a\"\\\n",vpool="gold"} 4
# HELP ovgate_vdisk_read_ops_total Reads.
# TYPE ovgate_vdisk_read_ops_total counter
ovgate_vdisk_read_ops_total{vdisk="a\"\\\n",vpool="gold"} 7
# HELP ovgate_vdisk_uncommitted_seq Acknowledged writes that are not on the backend.
# TYPE ovgate_vdisk_uncommitted_seq gauge
ovgate_vdisk_uncommitted_seq{vdisk="a\"\\\n",vpool="gold"} 5
# HELP ovgate_vdisks Open vDisks by state.
# TYPE ovgate_vdisks gauge
ovgate_vdisks{state="running"} 1
# HELP ovgate_vdisks_open Open vDisks.
# TYPE ovgate_vdisks_open gauge
ovgate_vdisks_open 2
# HELP ovgate_vpool_attached 1 while the vPool is attached.
# TYPE ovgate_vpool_attached gauge
ovgate_vpool_attached{vpool="away"} 0
ovgate_vpool_attached{vpool="gold"} 1
`
	err := testutil.ScrapeAndCompare(web.URL, strings.NewReader(want), "ovgate_health", "ovgate_iscsi_sessions", "ovgate_vdisk_iscsi_bytes_total", "ovgate_vdisk_iscsi_delayed_total", "ovgate_vdisk_read_ops_total",
		"ovgate_vdisk_uncommitted_seq", "ovgate_vdisks", "ovgate_vdisks_open", "ovgate_vpool_attached")
	if err != nil {
		t.Error(err)
	}
	res, err := http.Get(web.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`le="2e-06"} 1`, `le="1.6e-05"} 3`, `le="+Inf"} 3`, `op="write",vdisk="a\"\\\n",vpool="gold",le="4e-06"} 0`, `op="write",vdisk="a\"\\\n",vpool="gold",le="1.6e-05"} 2`,
		`ovgate_vdisk_iscsi_latency_seconds_sum{op="write",vdisk="a\"\\\n",vpool="gold"} 90`, "go_goroutines ", "process_resident_memory_bytes ", `ovgate_info{go="go`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s", want)
		}
	}
}

// TestMetricsBound: vDisks beyond the bound share one label, and vDisks of one
// name one series.
func TestMetricsBound(t *testing.T) {
	var disks []DiskMetrics
	for i := range maxLabelled + 5 {
		disks = append(disks, DiskMetrics{fmt.Sprintf("d%05d", i), "gold", volume.Stats{State: volume.StateRunning, ReadOps: 1}, &iscsi.LUNStats{Depth: 1, Read: iscsi.IOStats{Bytes: 2}}})
	}
	disks = append(disks, DiskMetrics{Name: "d00000", VPool: "gold", Stats: volume.Stats{State: volume.StateClosed, ReadOps: 10}})
	rows, states := fold(disks)
	if len(rows) != maxLabelled+1 || rows[0].Stats.ReadOps != 11 || rows[maxLabelled].Name != "other" || rows[maxLabelled].VPool != "" || rows[maxLabelled].Stats.ReadOps != 5 {
		t.Errorf("%d rows, first %+v, last %+v", len(rows), rows[0], rows[len(rows)-1])
	}
	if l := rows[maxLabelled].LUN; l == nil || l.Depth != 5 || l.Read.Bytes != 10 || rows[0].LUN.Depth != 1 || disks[0].LUN.Depth != 1 {
		t.Errorf("initiators: first %+v, last %+v", rows[0].LUN, l)
	}
	if states["running"] != maxLabelled+5 || states["closed"] != 1 {
		t.Errorf("states %v", states)
	}
}

// TestMetricNames: every name follows Prometheus' conventions, two vDisks of one
// name do not spoil a scrape, and neither does a name that is not UTF-8.
func TestMetricNames(t *testing.T) {
	one := DiskMetrics{"one", "gold", volume.Stats{State: volume.StateRunning}, &iscsi.LUNStats{}}
	registry := newRegistry(metricsOf([]DiskMetrics{one, {Name: "a\xff", VPool: "gold"}, one}), "1.0")
	n, err := testutil.GatherAndCount(registry, "ovgate_vdisk_read_ops_total", "ovgate_vdisk_write_latency_seconds")
	if err != nil || n != 4 {
		t.Errorf("%d series, %v", n, err)
	}
	problems, err := testutil.GatherAndLint(registry)
	if err != nil {
		t.Error(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestClusterMetrics: a node of a cluster shows what it hears of the others, one of none
// shows nothing.
func TestClusterMetrics(t *testing.T) {
	src := metricsOf(nil)
	in := &Cluster{Nodes: map[string]int{"alive": 2, "dead": 1}, CertificateLeft: time.Minute, AuthorityLeft: time.Hour}
	src.Cluster = func() *Cluster { return in }
	r := newRegistry(src, "1.0")
	want := `# HELP ovgate_cluster_authority_seconds_left Time to the end of the cluster's certificate authority.
# TYPE ovgate_cluster_authority_seconds_left gauge
ovgate_cluster_authority_seconds_left 3600
# HELP ovgate_cluster_certificate_seconds_left Time to the end of the node's certificate for other nodes.
# TYPE ovgate_cluster_certificate_seconds_left gauge
ovgate_cluster_certificate_seconds_left 60
# HELP ovgate_cluster_nodes Nodes of the cluster, by what this one hears of them.
# TYPE ovgate_cluster_nodes gauge
ovgate_cluster_nodes{liveness="alive"} 2
ovgate_cluster_nodes{liveness="dead"} 1
`
	names := []string{"ovgate_cluster_nodes", "ovgate_cluster_certificate_seconds_left", "ovgate_cluster_authority_seconds_left"}
	if err := testutil.GatherAndCompare(r, strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
	in = nil
	if err := testutil.GatherAndCompare(r, strings.NewReader(""), names...); err != nil {
		t.Error(err)
	}
}
