package observe

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// dashboard is what a test looks at of Grafana's.
type dashboard struct {
	UID    string
	Panels []struct {
		ID      int
		Type    string
		Title   string
		GridPos struct{ X, Y, W, H int }
		Targets []struct{ Expr string }
	}
	Templating struct {
		List []struct{ Name, Type, Definition string }
	}
}

// exposed returns the names of all metrics that a node can have, with their labels. Histograms
// have the names that queries use.
func exposed(t *testing.T) map[string][]string {
	t.Helper()
	src := metricsOf([]DiskMetrics{{Name: "a", VPool: "gold", Stats: volume.Stats{State: volume.StateRunning}, LUN: &iscsi.LUNStats{}}})
	src.Alba = func() *Alba { return &Alba{Surveyed: true, OSDs: []OSDCheck{{Number: 1}}} }
	src.Remotes = func() []RemoteMetrics {
		return []RemoteMetrics{{VPool: "gold", Stats: remote.Stats{Kinds: []remote.KindStats{{Requests: 1}}}}}
	}
	src.Cluster = func() *Cluster { return &Cluster{Nodes: map[string]int{"alive": 1}} }
	src.Registry = func() []RegistryMember { return []RegistryMember{{Endpoint: "e"}} }
	src.Host = func() volume.HostUsage {
		return volume.HostUsage{WriteDisks: []volume.WriteDiskUsage{{Name: "data"}}}
	}
	all, err := newRegistry(src, "1.0").Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for _, f := range all {
		labels := []string{"instance", "job"} // those that Prometheus adds
		for _, p := range f.Metric[0].Label {
			labels = append(labels, p.GetName())
		}
		if f.Metric[0].Histogram == nil {
			out[f.GetName()] = labels
			continue
		}
		out[f.GetName()+"_sum"], out[f.GetName()+"_count"] = labels, labels
		out[f.GetName()+"_bucket"] = append(labels, "le")
	}
	return out
}

var (
	metricName = regexp.MustCompile(`\b(?:ovgate|process|go)_[a-z0-9_]+`)
	selected   = regexp.MustCompile(`\b((?:ovgate|process|go)_[a-z0-9_]+)\{([^}]*)\}`)
	matcher    = regexp.MustCompile(`([a-z_]+) *(?:=~|!~|!=|=) *"`)
	grouped    = regexp.MustCompile(`\bby \(([a-z_, ]+)\) \(`)
)

// TestGrafana: scripts/grafana/ovgate.json asks for metrics that a node exposes, with labels that
// they have, and its panels do not lie on each other.
func TestGrafana(t *testing.T) {
	b, err := os.ReadFile("../../scripts/grafana/ovgate.json")
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	known := exposed(t)
	check := func(where, expr string) {
		t.Helper()
		names := metricName.FindAllString(expr, -1)
		if len(names) == 0 {
			t.Errorf("%s: no metric in %s", where, expr)
		}
		for _, name := range names {
			if known[name] == nil {
				t.Errorf("%s: no node exposes %s", where, name)
			}
			for _, m := range grouped.FindAllStringSubmatch(expr, -1) {
				for label := range strings.SplitSeq(m[1], ", ") {
					if !slices.Contains(known[name], label) {
						t.Errorf("%s: %s is grouped by %s, which it does not have", where, name, label)
					}
				}
			}
		}
		for _, m := range selected.FindAllStringSubmatch(expr, -1) {
			for _, l := range matcher.FindAllStringSubmatch(m[2], -1) {
				if !slices.Contains(known[m[1]], l[1]) {
					t.Errorf("%s: %s has no label %s", where, m[1], l[1])
				}
			}
		}
		if strings.Count(expr, "(") != strings.Count(expr, ")") {
			t.Errorf("%s: brackets of %s", where, expr)
		}
	}
	taken, ids, exprs := map[[2]int]string{}, map[int]bool{}, 0
	for _, p := range d.Panels {
		if ids[p.ID] {
			t.Errorf("%s: panel %d is there twice", p.Title, p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if by := taken[[2]int{x, y}]; by != "" || x >= 24 {
					t.Fatalf("%q and %q lie on each other, or beside the page", p.Title, by)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("%s shows nothing", p.Title)
		}
		for _, q := range p.Targets {
			exprs++
			check(p.Title, q.Expr)
		}
	}
	for _, v := range d.Templating.List {
		if v.Type == "query" {
			check("variable "+v.Name, v.Definition)
		}
	}
	if d.UID == "" || exprs < 20 {
		t.Errorf("%d queries", exprs)
	}
}
