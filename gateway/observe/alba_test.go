package observe

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// TestOSDDisks: what disks say of themselves is in the metrics, and nothing of those
// that say nothing; one that fails is a warning.
func TestOSDDisks(t *testing.T) {
	a := &Alba{OSDs: []OSDCheck{
		{Number: 1, Disk: "/dev/sda ZC1", Healthy: new(true), Temperature: new(31)},
		{Number: 2, Disk: "/dev/sdb ZC2", Healthy: new(false)},
		{Number: 3},
	}}
	want := `# HELP ovgate_osd_disk_healthy 1 while the device's disk says that it is healthy (SMART).
# TYPE ovgate_osd_disk_healthy gauge
ovgate_osd_disk_healthy{osd="1"} 1
ovgate_osd_disk_healthy{osd="2"} 0
# HELP ovgate_osd_disk_temperature_celsius Temperature of the device's disk.
# TYPE ovgate_osd_disk_temperature_celsius gauge
ovgate_osd_disk_temperature_celsius{osd="1"} 31
`
	c := newAlbaCollector(func() *Alba { return a })
	if err := testutil.CollectAndCompare(c, strings.NewReader(want), "ovgate_osd_disk_healthy", "ovgate_osd_disk_temperature_celsius"); err != nil {
		t.Error(err)
	}
	var told []string
	a.check(func(_ Level, code, object, hint, format string, args ...any) { told = append(told, code+" "+object) })
	if len(told) != 1 || told[0] != "osd_disk osd 2" {
		t.Errorf("told %q", told)
	}
}
