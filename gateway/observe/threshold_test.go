package observe

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// watched is a Thresholds whose values and time a test decides.
type watched struct {
	t     *testing.T
	clk   *clock.Manual
	in    Thresholds
	rules []Threshold
}

func newWatched(t *testing.T, rules ...Threshold) *watched {
	return &watched{t: t, clk: clock.NewManual(time.Unix(1e9, 0)), rules: rules}
}

// after lets time pass, and returns what is told then: "rule: object value, ...; ...".
func (w *watched) after(d time.Duration, values ...Value) string {
	w.clk.Advance(d)
	var out []string
	for _, c := range w.in.follow(w.clk.Now(), w.rules, byMetric(values)) {
		var objects []string
		for _, o := range c.Objects {
			objects = append(objects, fmt.Sprintf("%s %g", o.Object, o.V))
		}
		out = append(out, c.Name+": "+strings.Join(objects, ", "))
	}
	return strings.Join(out, "; ")
}

func byMetric(values []Value) map[string][]Value {
	out := map[string][]Value{}
	for _, v := range values {
		out[v.Metric] = append(out[v.Metric], v)
	}
	return out
}

func (w *watched) want(got, want string) {
	w.t.Helper()
	if got != want {
		w.t.Errorf("told %q, want %q", got, want)
	}
}

func writesOf(name string, us float64) Value {
	return Value{"vdisk.write_latency_p99", "id of " + name, "vdisk " + name, us}
}

func slow() Threshold {
	return Threshold{Name: "slow", Metric: "vdisk.write_latency_p99", Value: 100, Clear: 50, For: time.Minute, Level: Warning}
}

func TestThreshold(t *testing.T) {
	const look = 10 * time.Second
	nan := math.NaN()
	w := newWatched(t, slow())
	w.want(w.after(0, writesOf("a", 101)), "")
	w.want(w.after(50*time.Second, writesOf("a", 500)), "")
	w.want(w.after(look, writesOf("a", 300)), "slow: vdisk a 300") // for a minute
	w.want(w.after(look, writesOf("a", 900)), "slow: vdisk a 300") // as it was told first
	w.want(w.after(look, writesOf("a", 51)), "slow: vdisk a 300")  // hysteresis
	w.want(w.after(look, writesOf("a", 50)), "")
	w.want(w.after(look, writesOf("a", 101)), "") // and from the beginning
	w.want(w.after(look, writesOf("a", 100)), "") // 100 is not above 100
	w.want(w.after(time.Minute, writesOf("a", 200)), "")
	w.want(w.after(30*time.Second, writesOf("a", nan)), "") // nothing was written meanwhile
	w.want(w.after(30*time.Second, writesOf("a", 200), writesOf("b", 10)), "slow: vdisk a 200")
	// Nothing is measured: what was counts for a while.
	w.want(w.after(time.Minute, writesOf("a", nan)), "slow: vdisk a 200")
	w.want(w.after(time.Second, writesOf("a", nan)), "")
	// An object that is gone is over at once.
	w.after(look, writesOf("a", 200), writesOf("b", 300))
	w.want(w.after(time.Minute, writesOf("a", 200), writesOf("b", 300)), "slow: vdisk a 200, vdisk b 300")
	w.want(w.after(look, writesOf("b", 300)), "slow: vdisk b 300")
	// So is a rule that changed, or is off.
	w.rules[0].Value = 120
	w.want(w.after(look, writesOf("b", 300)), "")
	w.want(w.after(time.Minute, writesOf("b", 300)), "slow: vdisk b 300")
	w.rules[0].Off = true
	w.want(w.after(look, writesOf("b", 300)), "")
	w.rules[0].Off = false
	w.want(w.after(look, writesOf("b", 300)), "")
	w.want(w.after(time.Minute, writesOf("b", 300)), "slow: vdisk b 300")
	w.rules = nil
	w.want(w.after(look, writesOf("b", 300)), "")
}

// TestThresholdScope: which objects, and below in place of above.
func TestThresholdScope(t *testing.T) {
	db := slow()
	db.Name, db.Object, db.For = "db", "vdisk db*", 0
	low := Threshold{Name: "cold", Metric: "node.cache_hits", Below: true, Value: 20, Clear: 30, Level: Bad}
	w := newWatched(t, db, low)
	hits := func(v float64) Value { return Value{"node.cache_hits", Node, "node alpha", v} }
	w.want(w.after(0, writesOf("db1", 101), writesOf("web", 101), hits(19)), "cold: node alpha 19; db: vdisk db1 101")
	w.want(w.after(time.Second, writesOf("db1", 101), hits(29)), "cold: node alpha 19; db: vdisk db1 101")
	w.want(w.after(time.Second, hits(30)), "")
	w.want(w.after(time.Second, hits(20)), "")
}

// TestThresholdBounds: of many objects there is one cause, which names some.
func TestThresholdBounds(t *testing.T) {
	r := slow()
	r.For = 0
	var th Thresholds
	var values []Value
	for i := range maxPassing + 500 {
		values = append(values, writesOf(fmt.Sprintf("d%04d", i), 20_000))
	}
	out := th.follow(time.Unix(1e9, 0), []Threshold{r}, byMetric(values))
	if len(out) != 1 || len(out[0].Objects) != maxPassing {
		t.Fatalf("%d are told", len(out))
	}
	h := Checks{Thresholds: out}.Evaluate()
	if len(h.Causes) != 1 {
		t.Fatalf("%d causes", len(h.Causes))
	}
	c := h.Causes[0]
	want := fmt.Sprintf("Latency of writes (p99) above 100µs: vdisk d0000 (20ms), vdisk d0001 (20ms), vdisk d0002 (20ms) and %d more", maxPassing-3)
	if c.Code != ThresholdCode || c.Object != "threshold slow" || c.State != Warning || c.Text != want || !strings.Contains(c.Hint, "ovgate alert threshold set slow") {
		t.Errorf("%+v", c)
	}
}

// TestMeasure: values of counters are of the time between two looks.
func TestMeasure(t *testing.T) {
	now := time.Unix(1e9, 0)
	var m meter
	f := Figures{
		Node: "alpha", LocalTotal: 1000, LocalFree: 250, Pools: []PoolCheck{{Name: "gold", Total: 200, Free: 20}, {Name: "far"}},
		Disks:   []DiskFigures{{ID: "1", Name: "a", Stats: volume.Stats{Size: 1000, MappedBytes: 100, JournalBytes: 30, JournalQuota: 40, ReadOps: 7, CacheHits: 5}}},
		Remotes: []RemoteMetrics{{VPool: "gold", Stats: remote.Stats{Kinds: []remote.KindStats{{Requests: 1, LatencySum: time.Hour}}}}},
		Alba:    &Alba{OSDs: []OSDCheck{{Used: 30, Free: 10}, {Used: 30, Free: 30}}},
	}
	look := func() map[string]string {
		out := map[string]string{}
		seen := map[string]bool{}
		for metric, values := range m.measure(now, f, func(string) bool { return true }) {
			for _, v := range values {
				out[metric+" "+v.Object] = fmt.Sprintf("%.4g", v.V)
				seen[v.Metric] = true
			}
		}
		for _, x := range Metrics() {
			if !seen[x.Name] {
				t.Errorf("%s is not measured", x.Name)
			}
		}
		if len(seen) != len(Metrics()) {
			t.Errorf("%d metrics are measured, %d known", len(seen), len(Metrics()))
		}
		return out
	}
	want := func(got map[string]string, want ...string) {
		t.Helper()
		for i := 0; i < len(want); i += 2 {
			if got[want[i]] != want[i+1] {
				t.Errorf("%s is %s, want %s", want[i], got[want[i]], want[i+1])
			}
		}
	}
	want(look(), "vdisk.iops vdisk a", "NaN", "vdisk.read_latency_p99 vdisk a", "NaN", "vdisk.cache_hits vdisk a", "NaN", "vpool.request_latency vpool gold", "NaN", "node.iops node alpha", "NaN",
		"vdisk.journal_used vdisk a", "75", "vdisk.space_used vdisk a", "10", "node.data_dir_used node alpha", "75",
		"vpool.space_used vpool gold", "90", "vpool.space_used vpool far", "NaN", "alba.space_used alba devices", "60")
	now = now.Add(10 * time.Second)
	st := &f.Disks[0].Stats
	st.ReadOps, st.ReadBytes, st.CacheHits, st.CacheMisses = 27, 40960, 8, 1
	st.ReadLatency[10] = 20
	f.Remotes[0].Stats.Kinds = []remote.KindStats{{Requests: 3, LatencySum: time.Hour + 20*time.Millisecond}}
	f.Disks = append(f.Disks, DiskFigures{ID: "2", Name: "new", Stats: volume.Stats{ReadOps: 1000}})
	want(look(), "vdisk.iops vdisk a", "2", "vdisk.throughput vdisk a", "4096", "vdisk.read_latency_p99 vdisk a", "2038", "vdisk.write_latency_p99 vdisk a", "NaN",
		"vdisk.cache_hits vdisk a", "75", "vpool.request_latency vpool gold", "1e+04", "node.iops node alpha", "2", "node.cache_hits node alpha", "75", "vdisk.iops vdisk new", "NaN")

	// An idle one is told by its id, once it was looked at since its last request.
	now = now.Add(10 * time.Second)
	f.Disks[0].Idle, f.Disks[0].Requests = true, 27
	if m.known("1", 27) {
		t.Error("known before it was looked at")
	}
	look()
	if m.known("1", 27) {
		t.Error("known at once: what is given back meanwhile would be missed")
	}
	now = now.Add(10 * time.Second)
	quiet := look()
	want(quiet, "vdisk.iops vdisk a", "0", "vdisk.read_latency_p99 vdisk a", "NaN", "vdisk.journal_used vdisk a", "75")
	if !m.known("1", 27) || m.known("1", 28) || m.known("2", 0) || m.known("3", 0) {
		t.Error("known are others than idle ones that were looked at")
	}
	now = now.Add(10 * time.Second)
	f.Disks, f.Idle = f.Disks[1:], []IdleFigures{{ID: "1", Name: "a"}}
	for what, v := range look() {
		if strings.HasSuffix(what, " vdisk a") && v != quiet[what] {
			t.Errorf("%s of an idle vDisk is %s, was %s", what, v, quiet[what])
		}
	}
	now = now.Add(10 * time.Second)
	f.Idle[0].Name = "b"
	renamed := look()
	want(renamed, "vdisk.journal_used vdisk b", "75")
	if _, there := renamed["vdisk.iops vdisk a"]; there || !m.known("1", 27) {
		t.Error("the old name is told, or it is not known any more")
	}
	now = now.Add(10 * time.Second)
	f.Idle = nil
	if look(); m.known("1", 27) {
		t.Error("known though it is not open any more")
	}
	if got := m.measure(now, f, func(metric string) bool { return metric == "vdisk.iops" }); len(got["vdisk.iops"]) != 1 || len(got["vdisk.throughput"]) != 0 || len(got["node.iops"]) != 0 {
		t.Errorf("measured, though only vdisk.iops is wanted: %v", got)
	}
}

// TestDefaultThresholds: they are as whoever sets one may, by name, and only what means the
// same everywhere is on.
func TestDefaultThresholds(t *testing.T) {
	last := ""
	for _, d := range DefaultThresholds() {
		m, ok := MetricOf(d.Metric)
		if !ok || d.Name <= last || d.For <= 0 || d.Level.rank() == 0 || d.passes(d.Clear) || d.cleared(d.Value+map[bool]float64{true: -1, false: 1}[d.Below]) || m.Kind() == "" {
			t.Errorf("%+v", d)
		}
		if !d.Off && d.Name != "journal" {
			t.Errorf("%s is on", d.Name)
		}
		last = d.Name
	}
}
