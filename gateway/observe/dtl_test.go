package observe

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// TestDTLHealth: what is on one node only is never well where another node could have it too.
func TestDTLHealth(t *testing.T) {
	for _, c := range []struct {
		state      volume.DTLState
		mirrorable bool
		want       string
	}{
		{volume.DTLOff, true, "dtl_off"}, {volume.DTLDegraded, true, "dtl_degraded"}, {volume.DTLCatchup, true, "dtl_catchup"}, {volume.DTLOK, true, ""},
		{"", true, "dtl_off"}, {volume.DTLOff, false, ""}, {volume.DTLDegraded, false, ""},
	} {
		h := Checks{Disks: []DiskCheck{{Name: "a", State: volume.StateRunning, Open: true, DTL: volume.DTLStats{State: c.state, Err: "it is away"}, Mirrorable: c.mirrorable}}}.Evaluate()
		var have string
		for _, cause := range h.Causes {
			have += cause.Code
			if cause.Object != "vdisk a" || cause.Hint == "" {
				t.Errorf("%s: %+v", c.state, cause)
			}
		}
		if have != c.want {
			t.Errorf("%q with another node %v: %q, want %q", c.state, c.mirrorable, have, c.want)
		}
	}
}

// TestDTLMetrics: what a scraper reads of the copies; vDisks that share a label have the
// worst state of them.
func TestDTLMetrics(t *testing.T) {
	ok := volume.DTLStats{State: volume.DTLOK, Unanswered: 4096, Lag: 2 * time.Second}
	ok.Latency[3] = 2
	late := volume.DTLStats{State: volume.DTLDegraded, Catchup: 5, CaughtUp: 2}
	src := metricsOf([]DiskMetrics{{Name: "a", VPool: "gold", Stats: volume.Stats{DTL: ok}}, {Name: "a", VPool: "gold", Stats: volume.Stats{DTL: late}}})
	src.Host = func() volume.HostUsage {
		u := volume.HostUsage{}
		u.DTL.Copies, u.DTL.Bytes = 7, 1<<20
		return u
	}
	web := httptest.NewServer(Handler(src, "1.0", nil))
	defer web.Close()
	want := `# HELP ovgate_dtl_catchup_writes While it catches up: writes that the backend has to get yet.
# TYPE ovgate_dtl_catchup_writes gauge
ovgate_dtl_catchup_writes{vdisk="a",vpool="gold"} 3
# HELP ovgate_dtl_copies Copies of other nodes' journals that are here.
# TYPE ovgate_dtl_copies gauge
ovgate_dtl_copies 7
# HELP ovgate_dtl_lag_bytes What the other node was sent and has not answered.
# TYPE ovgate_dtl_lag_bytes gauge
ovgate_dtl_lag_bytes{vdisk="a",vpool="gold"} 4096
# HELP ovgate_dtl_lag_seconds How long the oldest of that waits.
# TYPE ovgate_dtl_lag_seconds gauge
ovgate_dtl_lag_seconds{vdisk="a",vpool="gold"} 2
# HELP ovgate_dtl_state Copy of the journal on another node: 0 off, 1 ok, 2 catchup, 3 degraded.
# TYPE ovgate_dtl_state gauge
ovgate_dtl_state{vdisk="a",vpool="gold"} 3
`
	if err := testutil.ScrapeAndCompare(web.URL, strings.NewReader(want), "ovgate_dtl_catchup_writes", "ovgate_dtl_copies", "ovgate_dtl_lag_bytes", "ovgate_dtl_lag_seconds", "ovgate_dtl_state"); err != nil {
		t.Error(err)
	}
}
