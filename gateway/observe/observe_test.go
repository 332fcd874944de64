package observe

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

var start = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// TestSampler: rates are differences over the time between, a new object starts
// quiet, a new opening counts from zero, and quiet objects keep no samples.
func TestSampler(t *testing.T) {
	s := NewSampler(0)
	st := volume.Stats{Epoch: 1, WriteOps: 1000, WriteBytes: 4096000, JournalBytes: 7}
	st.WriteLatency[6] = 1000
	s.Observe(start, []Input{{ID: "a", VPool: "p", Stats: st}}, nil, false)
	if p := s.Present("a"); p.Performance.Active() || p.JournalUsed != 7 {
		t.Errorf("first sample %+v", p)
	}
	st.WriteOps += 100
	st.WriteBytes += 409600
	st.WriteLatency[7] += 100 // 128-256 us
	out := s.Observe(start.Add(2*time.Second), []Input{{ID: "a", VPool: "p", Stats: st}, {ID: "b", VPool: "p", Stats: volume.Stats{}}}, nil, false)
	p := s.Present("a").Performance
	if p.WriteIOPS != 50 || p.WriteBytesPerSecond != 204800 || p.WriteP50us != 192 || p.WriteP99us < 250 || p.ReadP50us != 0 {
		t.Errorf("performance %+v", p)
	}
	if len(out) != 3 || out[0].ID != Node || out[0].Performance != p || out[1].ID != "p" || !out[1].VPool || out[1].Performance != p || out[2].ID != "a" || out[2].VPool {
		t.Errorf("active: %+v", out)
	}
	st.Epoch, st.WriteOps, st.WriteBytes = 2, 10, 40960
	s.Observe(start.Add(3*time.Second), []Input{{ID: "a", VPool: "p", Stats: st}}, nil, false)
	if p := s.Present("a").Performance; p.WriteIOPS != 10 {
		t.Errorf("after a new opening %+v", p)
	}
	if len(s.Series("a", 100)) != 2 || s.Series("b", 100) != nil {
		t.Errorf("series %v %v", s.Series("a", 100), s.Series("b", 100))
	}
	for i := range Keep + 5 {
		st.WriteOps++
		s.Observe(start.Add(time.Duration(4+i)*time.Second), []Input{{ID: "a", VPool: "p", Stats: st}}, nil, false)
	}
	all := s.Series("a", 10*Keep)
	if len(all) != Keep || !all[Keep-1].Time.Equal(start.Add(time.Duration(4+Keep+4)*time.Second)) {
		t.Errorf("%d samples, the last of %s", len(all), all[len(all)-1].Time)
	}
	for i := 1; i < len(all); i++ {
		if all[i].Time.Sub(all[i-1].Time) != time.Second {
			t.Fatalf("sample %d is of %s, the one before of %s", i, all[i].Time, all[i-1].Time)
		}
	}
	// One that is idle keeps its journal, and its samples go on as zeros.
	s.Observe(start.Add(900*time.Second), nil, []string{"a", "not there"}, false)
	if p := s.Present("a"); p.Performance.Active() || p.JournalUsed != 7 || !p.Time.Equal(start.Add(900*time.Second)) || s.Present(Node).JournalUsed != 7 {
		t.Errorf("idle: %+v", p)
	}
	// So do they where it is left out for a while, in the charts too.
	for i := range 3 {
		s.Observe(start.Add(time.Duration(901+i)*time.Second), nil, nil, true)
	}
	all = s.Series("a", 3)
	if p := s.Present(Node); len(all) != 3 || !all[2].Time.Equal(start.Add(903*time.Second)) || all[0].Performance.Active() || p.JournalUsed != 7 {
		t.Errorf("left out: %+v, node %+v", all, p)
	}
	for i := range idleSeries + 2 {
		s.Observe(start.Add(time.Duration(1000+i)*time.Second), []Input{{ID: "a", VPool: "p", Stats: st}}, nil, false)
	}
	if s.Series("a", 1) != nil {
		t.Error("a quiet object keeps samples")
	}
	s.Observe(start.Add(time.Hour), nil, nil, false)
	if len(s.objects) != 1 || len(s.stored) != 0 {
		t.Errorf("%d objects, %d with samples, after all closed", len(s.objects), len(s.stored))
	}
}

// TestSamplerBound: objects with samples are bounded.
func TestSamplerBound(t *testing.T) {
	s := NewSampler(0)
	in := make([]Input, 2*MaxSeries)
	for round := range 2 {
		for i := range in {
			in[i] = Input{ID: fmt.Sprint(i), Stats: volume.Stats{ReadOps: uint64(round)}}
		}
		s.Observe(start.Add(time.Duration(round)*time.Second), in, nil, false)
	}
	if len(s.stored) != MaxSeries {
		t.Errorf("%d objects have samples", len(s.stored))
	}
}

func say(h *Hub, object string, v any) {
	h.Changed("vdisk", object, func() News { return News{Name: "vdisk", Object: v} })
	h.Flush()
}

func receive(t *testing.T, c *Client) string {
	t.Helper()
	select {
	case m, ok := <-c.C:
		if !ok {
			return "closed"
		}
		s := ""
		for _, e := range m {
			_, data, _ := strings.Cut(string(e.Wire), "\n")
			s += strings.ReplaceAll(strings.TrimSpace(data), "\n", " ") + ";"
		}
		return s
	default:
		return ""
	}
}

// TestHub: at most one event a second per object, the newest state wins, topics
// are honoured, a slow client is dropped and catches up.
func TestHub(t *testing.T) {
	clk := clock.NewManual(start)
	h := NewHub(clk)
	all, _ := h.Subscribe(nil, 0)
	other, _ := h.Subscribe(map[string]bool{"health": true}, 0)
	say(h, "a", 1)
	say(h, "a", 2)
	say(h, "a", 3)
	if got := receive(t, all); got != "event: vdisk data: 1;" {
		t.Errorf("first %q", got)
	}
	if got := receive(t, all); got != "" {
		t.Errorf("within the second %q", got)
	}
	seen := h.id
	clk.Advance(time.Second)
	h.Flush()
	if got := receive(t, all); got != "event: vdisk data: 3;" {
		t.Errorf("after the second %q", got)
	}
	h.Metrics([]News{{Object: 4}, {Object: 5}})
	if got := receive(t, all); got != "event: metrics data: 4;event: metrics data: 5;" {
		t.Errorf("metrics %q", got)
	}
	if got := receive(t, other); got != "" {
		t.Errorf("another topic %q", got)
	}
	back, _ := h.Subscribe(nil, seen)
	if got := receive(t, back); got != "event: vdisk data: 3;" {
		t.Errorf("caught up with %q", got)
	}
	for what, last := range map[string]uint64{"older": 1, "of the future": h.id + 1000} {
		c, _ := h.Subscribe(nil, last)
		if got := receive(t, c); got != "event: reset data: {};" {
			t.Errorf("%s: %q", what, got)
		}
		h.Unsubscribe(c)
	}
	for i := range 2 * clientBuffer {
		say(h, fmt.Sprint("o", i), i)
	}
	n := 0
	for got := receive(t, all); got != "closed"; got = receive(t, all) {
		if got == "" {
			t.Fatal("a slow client was not dropped")
		}
		n++
	}
	if n != clientBuffer {
		t.Errorf("%d messages waited for a slow client", n)
	}
	for i := range ringSize {
		say(h, fmt.Sprint("p", i), i)
	}
	old, _ := h.Subscribe(nil, seen)
	if got := receive(t, old); got != "event: reset data: {};" {
		t.Errorf("beyond the ring: %q", got)
	}
	h.Close()
	if got := receive(t, old); got != "closed" {
		t.Errorf("after close: %q", got)
	}
	if _, ok := h.Subscribe(nil, 0); ok {
		t.Error("a closed hub takes clients")
	}
}

// TestHubBounds: clients and waiting objects are bounded.
func TestHubBounds(t *testing.T) {
	h := NewHub(clock.NewManual(start))
	defer h.Close()
	for range MaxClients {
		if _, ok := h.Subscribe(nil, 0); !ok {
			t.Fatal("a client is refused")
		}
	}
	if _, ok := h.Subscribe(nil, 0); ok {
		t.Error("one client too many")
	}
	for i := range maxPending + 10 {
		h.Changed("vdisk", fmt.Sprint(i), func() News { return News{Name: "vdisk", Object: i} })
	}
	if len(h.pending) > maxPending {
		t.Errorf("%d objects wait", len(h.pending))
	}
	for c := range h.clients {
		if got := receive(t, c); got != "event: reset data: {};" {
			t.Errorf("on overflow: %q", got)
		}
	}
}

func TestHealth(t *testing.T) {
	day := 24 * time.Hour
	for _, c := range []struct {
		name   string
		checks Checks
		state  Level
		codes  string
	}{
		{"well", Checks{HasCert: true, CertLeft: 90 * day, LocalTotal: 100, LocalFree: 50}, OK, ""},
		{"running", Checks{Disks: []DiskCheck{{Name: "a", State: volume.StateRunning, Open: true, Journal: 69, JournalQuota: 100}}}, OK, ""},
		{"journal", Checks{Disks: []DiskCheck{{Name: "a", State: volume.StateRunning, Open: true, Journal: 70, JournalQuota: 100}}}, Warning, "journal_filling"},
		{"snapshot late", Checks{Disks: []DiskCheck{{Name: "a", State: volume.StateRunning, Open: true, SnapshotLate: time.Unix(0, 0)}}}, Warning, "snapshot_late"},
		{"map", Checks{Disks: []DiskCheck{{Name: "a", State: volume.StateRunning, Open: true, MapErr: "no space left on device"}}}, Warning, "map_not_written"},
		{"stalled", Checks{Disks: []DiskCheck{{Name: "a", State: volume.StateStalled, Open: true, Journal: 100, JournalQuota: 100}}}, Bad, "vdisk_stalled"},
		{"failed", Checks{Disks: []DiskCheck{{Name: "a", State: volume.StateFailed}}}, Bad, "vdisk_failed"},
		{"lost tail", Checks{Disks: []DiskCheck{{Name: "a", State: volume.StateLostTail}}}, Bad, "vdisk_lost_tail"},
		{"damaged", Checks{Disks: []DiskCheck{{Name: "a", State: volume.StateRunning, Open: true, Damaged: 2}}}, Bad, "vdisk_damaged"},
		{"opening", Checks{Disks: []DiskCheck{{Name: "a", State: "opening"}}}, Warning, "vdisk_opening"},
		{"away", Checks{Pools: []PoolCheck{{Name: "p", Attached: true, Err: "timeout"}}}, Bad, "backend_away"},
		{"restored", Checks{Pools: []PoolCheck{{Name: "p", Attached: true, DeletesOff: true, DeletesWhy: "being compared"}}}, Warning, "metadata_restored"},
		{"offline", Checks{Pools: []PoolCheck{{Name: "p", Err: "no disk"}}}, Bad, "vpool_offline"},
		{"delete waits", Checks{Pools: []PoolCheck{{Name: "p", Deleting: true, Err: "no disk"}}, Disks: []DiskCheck{{Name: "a", State: "deleting", Reason: "no disk"}}}, Warning, "vdisk_deleting vpool_deleting"},
		{"delete goes on", Checks{Pools: []PoolCheck{{Name: "p", Deleting: true}}, Disks: []DiskCheck{{Name: "a", State: "deleting"}}}, OK, ""},
		{"fenced", Checks{Disks: []DiskCheck{{Name: "a", State: volume.StateFenced, Open: true}}}, Bad, "vdisk_fenced"},
		{"filling", Checks{Pools: []PoolCheck{{Name: "p", Attached: true, Total: 100, Free: 10}}}, Warning, "backend_filling"},
		{"full", Checks{Pools: []PoolCheck{{Name: "p", Attached: true, Total: 100, Free: 1}}}, Bad, "backend_full"},
		{"data directory", Checks{LocalTotal: 100, LocalFree: 2}, Bad, "data_dir_full"},
		{"certificate", Checks{HasCert: true, CertLeft: 20 * day}, Warning, "certificate"},
		{"certificate ended", Checks{HasCert: true, CertLeft: -day}, Bad, "certificate"},
		{"certificate not renewed", Checks{HasCert: true, CertLeft: 90 * day, CertErr: "no space"}, Warning, "certificate"},
		{"site's certificate", Checks{SiteCert: &CertificateCheck{Used: true, Left: 90 * day}}, OK, ""},
		{"site's certificate ends", Checks{SiteCert: &CertificateCheck{Used: true, Left: 6 * day}}, Bad, "site_certificate"},
		{"site's certificate not replaced", Checks{SiteCert: &CertificateCheck{Used: true, Left: 90 * day, Err: "no key"}}, Warning, "site_certificate"},
		{"site's certificate never read", Checks{SiteCert: &CertificateCheck{Err: "no key"}}, Bad, "site_certificate"},
		{"a node is dead", Checks{Cluster: &Cluster{Dead: []string{"beta"}, CertificateLeft: 90 * day, AuthorityLeft: 900 * day}}, Warning, "node_dead"},
		{"certificates of a cluster", Checks{Cluster: &Cluster{CertificateLeft: 20 * day, AuthorityLeft: 20 * day}}, Bad, "node_certificate authority"},
		{"a member of etcd is away", Checks{Registry: []RegistryMember{{Endpoint: "a", Quota: 100}, {Endpoint: "b", Err: "refused"}}}, Warning, "registry_member"},
		{"etcd is away", Checks{Registry: []RegistryMember{{Endpoint: "a", Err: "refused"}, {Endpoint: "b", Err: "refused"}}}, Bad, "registry_away registry_member registry_member"},
		{"etcd is full", Checks{Registry: []RegistryMember{{Endpoint: "a", Size: 80, InUse: 10, Quota: 100, Alarms: []string{"NOSPACE"}}, {Endpoint: "b", Size: 20, Quota: 100, Alarms: []string{"NOSPACE"}}}}, Bad, "registry_alarm registry_filling"},
		{"etcd is well", Checks{Registry: []RegistryMember{{Endpoint: "a", Size: 70, InUse: 70, Quota: 100}}}, OK, ""},
		{"clock", Checks{ClockJump: -2 * time.Minute}, Warning, "clock"},
		{"read cache", Checks{ReadCaches: []error{errors.New("no disk")}}, Warning, "read_cache"},
		{"journal pool", Checks{Journal: errors.New("no space")}, Bad, "journal_pool"},
		{"a job of a datastore", Checks{Datastores: []DatastoreCheck{{Name: "gold", Job: "snapshot", Step: "release", Err: "virtual machine db: busy"}}}, Warning, "datastore_job"},
		{"cloud away", Checks{Clouds: []CloudCheck{{Name: "prod", Err: "no answer"}}}, Warning, "cloud_away"},
		{"cloud backend down", Checks{Clouds: []CloudCheck{{Name: "prod", Down: []string{"h@a", "h@b"}}}}, Warning, "cloud_backend_down cloud_backend_down"},
		{"cloud well", Checks{Clouds: []CloudCheck{{Name: "prod"}}}, OK, ""},
		{"worst first", Checks{ClockJump: time.Hour, Disks: []DiskCheck{{Name: "a", State: volume.StateFailed}}}, Bad, "vdisk_failed clock"},
	} {
		h := c.checks.Evaluate()
		var codes []string
		for _, cause := range h.Causes {
			codes = append(codes, cause.Code)
			if cause.Text == "" {
				t.Errorf("%s: a cause without words: %+v", c.name, cause)
			}
		}
		if h.State() != c.state || strings.Join(codes, " ") != c.codes {
			t.Errorf("%s: %s %v", c.name, h.State(), codes)
		}
	}
	many := Checks{Disks: make([]DiskCheck, 10*maxCauses)}
	for i := range many.Disks {
		many.Disks[i] = DiskCheck{Name: fmt.Sprint(i), State: volume.StateFailed}
	}
	if n := len(many.Evaluate().Causes); n != maxCauses+1 {
		t.Errorf("%d causes", n)
	}
}
