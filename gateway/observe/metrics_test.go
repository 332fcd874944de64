package observe

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

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
	web := httptest.NewServer(Handler(metricsOf([]DiskMetrics{{"a\"\\\n", "gold", st}}), "1.0", nil))
	defer web.Close()
	want := `# HELP ovgate_health 0 ok, 1 warning, 2 error.
# TYPE ovgate_health gauge
ovgate_health 1
# HELP ovgate_iscsi_sessions Sessions.
# TYPE ovgate_iscsi_sessions gauge
ovgate_iscsi_sessions 3
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
	err := testutil.ScrapeAndCompare(web.URL, strings.NewReader(want), "ovgate_health", "ovgate_iscsi_sessions", "ovgate_vdisk_read_ops_total",
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
	for _, want := range []string{`le="2e-06"} 1`, `le="1.6e-05"} 3`, `le="+Inf"} 3`, "go_goroutines ", "process_resident_memory_bytes ", `ovgate_info{go="go`} {
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
		disks = append(disks, DiskMetrics{fmt.Sprintf("d%05d", i), "gold", volume.Stats{State: volume.StateRunning, ReadOps: 1}})
	}
	disks = append(disks, DiskMetrics{"d00000", "gold", volume.Stats{State: volume.StateClosed, ReadOps: 10}})
	rows, states := fold(disks)
	if len(rows) != maxLabelled+1 || rows[0].Stats.ReadOps != 11 || rows[maxLabelled].Name != "other" || rows[maxLabelled].VPool != "" || rows[maxLabelled].Stats.ReadOps != 5 {
		t.Errorf("%d rows, first %+v, last %+v", len(rows), rows[0], rows[len(rows)-1])
	}
	if states["running"] != maxLabelled+5 || states["closed"] != 1 {
		t.Errorf("states %v", states)
	}
}

// TestMetricNames: every name follows Prometheus' conventions, two vDisks of one
// name do not spoil a scrape, and neither does a name that is not UTF-8.
func TestMetricNames(t *testing.T) {
	one := DiskMetrics{"one", "gold", volume.Stats{State: volume.StateRunning}}
	registry := newRegistry(metricsOf([]DiskMetrics{one, {"a\xff", "gold", volume.Stats{}}, one}), "1.0")
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
