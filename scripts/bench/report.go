package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
)

// Row is one line of bench.json.
type Row struct {
	Name      string  `json:"name"`
	Value     float64 `json:"value"`
	Unit      string  `json:"unit"`
	Peer      string  `json:"peer"`
	PeerValue float64 `json:"peer_value"`
	Ratio     float64 `json:"ratio"` // value / peer_value
	Goal      float64 `json:"goal"`  // ratio aimed at; 0: none
	Config    string  `json:"config"`
}

// results are the rates of all steps by key, one per round.
type results struct {
	rates   map[string][]float64
	configs [][2]string // target name, configuration
	engine  string
	noise   *noise             // of the set that runs
	onDisk  string             // circumstances of the sets engine and node
	vdisk   string             // and of vdisk
	dtl     string             // and of dtl
	amp     float64            // bytes that the engine wrote per byte of the guest, in order
	memory  string             // and of iscsi
	forward string             // and of forward
	cluster string             // and of cluster
	maps    map[string]float64 // metrics of the set map; nil: it did not run
	scale   map[string]float64 // and of scale
	console map[string]float64 // and of console

	stores    string             // circumstances of the set stores
	albaDisk  string             // circumstances of the set alba
	alba      map[string]float64 // metrics of it that are no steps
	manifests map[string]float64 // and of the set alba-scale
	cinder    map[string]float64 // and of cinder
	vsphere   map[string]float64 // and of vsphere
}

func (r *results) add(key string, rate float64) {
	if r.rates == nil {
		r.rates = map[string][]float64{}
	}
	r.rates[key] = append(r.rates[key], rate)
}

// median returns the middle of a step's rates; 0 when it did not run.
func (r *results) median(key string) float64 {
	v := slices.Sorted(slices.Values(r.rates[key]))
	switch n := len(v); {
	case n == 0:
		return 0
	case n%2 == 1:
		return v[n/2]
	default:
		return (v[n/2-1] + v[n/2]) / 2
	}
}

// comparison is a row to be: two steps, and the ratio aimed at.
type comparison struct {
	name, step, peer string
	goal             float64
	unit             string // "": IOPS
}

// comparisons lists the rows. Write-through is the better of tgt's two ways.
func (r *results) comparisons() []comparison {
	through := func(depth string) string {
		return slices.MaxFunc([]string{"tgt-osync-write-" + depth, "tgt-wce0-write-" + depth}, func(a, b string) int {
			return int(r.median(a) - r.median(b))
		})
	}
	return append([]comparison{
		{"engine durable 4k random write QD1", "engine-write-qd1", "raw-append-dsync-qd1", 0.65, ""},
		{"engine durable 4k random write QD32", "engine-write-qd32", "raw-append-dsync-qd1", 4, ""},
		{"engine durable 4k random write QD1, beside the raw disk's not synced", "engine-write-qd1", "raw-write-qd1", 0, ""},
		{"engine durable 4k random write QD32, beside the raw disk's not synced", "engine-write-qd32", "raw-write-qd32", 0, ""},
		{"iscsi durable 4k random write QD1, tgt page-cached", "ovgate-write-qd1", "tgt-cached-write-qd1", 0, ""},
		{"iscsi durable 4k random write QD32, tgt page-cached", "ovgate-write-qd32", "tgt-cached-write-qd32", 1, ""},
		{"iscsi durable 4k random write QD1, tgt write-through", "ovgate-write-qd1", through("qd1"), 0, ""},
		{"iscsi durable 4k random write QD32, tgt write-through", "ovgate-write-qd32", through("qd32"), 2, ""},
		{"iscsi durable 4k random write QD1, qemu-nbd qcow2 writethrough", "ovgate-write-qd1", "qemu-sync-write-qd1", 0, ""},
		{"iscsi durable 4k random write QD32, qemu-nbd qcow2 writethrough", "ovgate-write-qd32", "qemu-sync-write-qd32", 0, ""},
		{"iscsi durable 4k random write QD1, nbdkit file", "ovgate-write-qd1", "nbdkit-sync-write-qd1", 0, ""},
		{"iscsi durable 4k random write QD32, nbdkit file", "ovgate-write-qd32", "nbdkit-sync-write-qd32", 0, ""},
		{"iscsi durable 4k random write QD1, qemu-nbd qcow2 cache=none", "ovgate-write-qd1", "qemu-none-write-qd1", 0, ""},
		{"iscsi durable 4k random write QD32, qemu-nbd qcow2 cache=none", "ovgate-write-qd32", "qemu-none-write-qd32", 0, ""},
		{"iscsi 4k random read QD1", "ovgate-read-qd1", "tgt-cached-read-qd1", 0, ""},
		{"iscsi 4k random read QD32", "ovgate-read-qd32", "tgt-cached-read-qd32", 0, ""},
	}, slices.Concat(r.vdiskComparisons(), r.dtlComparisons(), r.frontEndComparisons(), r.forwardComparisons(), r.clusterComparisons(), r.albaComparisons(), r.storeComparisons())...)
}

// names lists the rows that the sets may have.
func (r *results) names() []string {
	var out []string
	for _, c := range r.comparisons() {
		out = append(out, c.name)
	}
	for _, m := range r.goRows() {
		for _, row := range m.rows {
			out = append(out, row.name)
		}
	}
	return out
}

// measuredRows are rows with the metrics that they are of.
type measuredRows struct {
	rows []goRow
	got  map[string]float64
}

func (r *results) goRows() []measuredRows {
	return []measuredRows{{mapRows, r.maps}, {scaleRows, r.scale}, {consoleRows, r.console}, {albaRows, r.alba}, {manifestRows, r.manifests}, {cinderRows, r.cinder}, {vsphereRows, r.vsphere}}
}

// rows makes the rows of what ran.
func (r *results) rows(o options) []Row {
	common := fmt.Sprintf("%d interleaved rounds of %.1f s steps, medians; %d CPUs; ", o.rounds, o.seconds, runtime.NumCPU())
	if o.rounds < minRounds {
		common = "NOT COUNTABLE, too few rounds: " + common
	}
	var rows []Row
	for _, c := range r.comparisons() {
		value, peer := r.median(c.step), r.median(c.peer)
		if value == 0 || peer == 0 {
			continue
		}
		rows = append(rows, Row{
			Name: c.name, Value: round(value), Unit: cmp.Or(c.unit, "IOPS"), Peer: c.peer, PeerValue: round(peer),
			Ratio: round(100*value/peer) / 100, Goal: c.goal,
			Config: strings.Join([]string{r.config(c.step), r.config(c.peer), common + r.circumstances(c.step)}, "; "),
		})
	}
	for _, m := range r.goRows() {
		for _, g := range m.rows {
			if row, ok := g.row(m.got); ok {
				rows = append(rows, row)
			}
		}
	}
	return rows
}

// circumstances describes the machine while a step was measured.
func (r *results) circumstances(step string) string {
	switch {
	case strings.HasPrefix(step, frontEndPrefix):
		return r.memory
	case strings.HasPrefix(step, forwardPrefix):
		return r.forward
	case strings.HasPrefix(step, clusterPrefix):
		return r.cluster
	case strings.HasPrefix(step, vdiskPrefix):
		return r.vdisk
	case strings.HasPrefix(step, dtlPrefix):
		return r.dtl
	case strings.HasPrefix(step, albaPrefix):
		return r.albaDisk
	case strings.HasPrefix(step, storesPrefix):
		return r.stores
	}
	return r.onDisk
}

// config describes the side a step belongs to.
func (r *results) config(step string) string {
	for _, c := range r.configs {
		if step == c[0] || strings.HasPrefix(step, c[0]+"-") {
			return c[1]
		}
	}
	switch {
	case strings.HasPrefix(step, "engine"):
		return fmt.Sprintf("engine in process, %d GiB vDisk, journal quota %d MiB, local-directory backend, %s", int64(engineSize)>>30, quota>>20, r.engine)
	case step == "raw-append-dsync-qd1":
		return "raw file, preallocated and pre-written, O_DIRECT|O_DSYNC, sequential"
	}
	return "raw file, preallocated and pre-written, O_DIRECT, random, not synced"
}

func round(v float64) float64 { return float64(int64(v + 0.5)) }

// mergeRows writes rows to a file in the place of those of the given names that
// were measured again; other rows there stay.
func mergeRows(path string, names []string, rows []Row) error {
	var old []Row
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		if err := json.Unmarshal(b, &old); err != nil {
			return fmt.Errorf("%s is not a list of rows: %w; move it away", path, err)
		}
	}
	fresh := map[string]Row{}
	for _, row := range rows {
		fresh[row.Name] = row
	}
	for _, row := range old {
		if _, ok := fresh[row.Name]; !ok {
			fresh[row.Name] = row
		}
	}
	var out []Row
	for _, n := range names { // in the order of the comparisons; a name that is no row any more goes
		if row, ok := fresh[n]; ok {
			out = append(out, row)
		}
	}
	return writeRows(path, out)
}

func writeRows(path string, rows []Row) error {
	b, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// printRows prints the rows as a table, then the configurations.
func printRows(w io.Writer, rows []Row) {
	fmt.Fprintf(w, "\n%-72s %9s %9s %7s %6s\n", "row", "ovgate", "peer", "ratio", "goal")
	for _, r := range rows {
		goal, verdict := "-", ""
		if r.Goal > 0 {
			goal, verdict = fmt.Sprint(r.Goal), "  met"
			if r.Ratio < r.Goal {
				verdict = "  MISSED"
			}
		}
		fmt.Fprintf(w, "%-72s %9.0f %9.0f %7.2f %6s%s\n", r.Name, r.Value, r.PeerValue, r.Ratio, goal, verdict)
	}
	fmt.Fprintln(w)
	seen := map[string]bool{}
	for _, r := range rows {
		if !seen[r.Config] {
			fmt.Fprintf(w, "  %s:\n    %s\n", r.Name, r.Config)
		}
		seen[r.Config] = true
	}
}
