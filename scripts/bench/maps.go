package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// needMap is the free space that the set map asks for: the pages of 1 TiB, 2 GiB, on
// local disk and on the backend, and as much again while they are rewritten.
const needMap = 8 << 30

// measureMap runs the benchmark of the vDisk map, which makes a map of 1 TiB without
// writing its data, in a process of its own.
func measureMap(ctx context.Context, dir string, r *results) error {
	fmt.Println("bench: the map of a full vDisk of 1 TiB")
	var err error
	r.maps, err = goBench(ctx, "./volumedriver/volume", dir, "BenchmarkMap", "1x")
	return err
}

// benchLimit bounds a Go benchmark, far above what one takes on a busy machine.
const benchLimit = 2 * time.Hour

// goBench runs a Go benchmark of a package, in a process of its own, and returns its
// metrics by unit.
func goBench(ctx context.Context, pkg, dir, name, times string, env ...string) (map[string]float64, error) {
	cmd := exec.CommandContext(ctx, "go", "test", pkg, "-run", "^$", "-bench", "^"+name+"$", "-benchtime", times, "-timeout", benchLimit.String())
	cmd.Env = append(append(os.Environ(), "OVGATE_BENCH_DIR="+dir), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", name, err, out.String())
	}
	return benchMetrics(out.String(), name)
}

// benchMetrics returns the metrics of a Go benchmark by unit.
func benchMetrics(out, name string) (map[string]float64, error) {
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) < 4 || f[0] != name && !strings.HasPrefix(f[0], name+"-") {
			continue
		}
		m := map[string]float64{}
		for i := 2; i+1 < len(f); i += 2 {
			v, err := strconv.ParseFloat(f[i], 64)
			if err != nil {
				return nil, fmt.Errorf("%s: %w in %q", name, err, line)
			}
			m[f[i+1]] = v
		}
		return m, nil
	}
	return nil, fmt.Errorf("%s printed no result: %s", name, out)
}

// goRow is a row of what a Go benchmark measured. With a limit the ratio is limit by
// value, so that 1 and more is within it; else it is value by the metric of the peer.
type goRow struct {
	name, metric, unit string
	scale              float64
	limit              float64
	peer, peerName     string
	goal               float64
	config             string
}

const mapConfig = "synthetic full map of 1 TiB, 4 KiB clusters, local-directory backend whose data are made in memory"

var mapRows = []goRow{
	{name: "map memory per mapped GiB", metric: "MiB/GiB", unit: "KiB", scale: 1024, limit: 2.2 * 1024, goal: 1, config: mapConfig},
	{name: "map 4k random read, a tenth of the map in memory", metric: "reads/s-tenth", unit: "IOPS", scale: 1, peer: "reads/s", peerName: "all of the map in memory", goal: 0.5, config: mapConfig},
	{name: "map restart of 1 TiB, local state", metric: "s-local-restart", unit: "ms", scale: 1000, limit: 3000, goal: 1, config: mapConfig},
	{name: "map restart of 1 TiB, from the backend alone", metric: "s-backend-restart", unit: "ms", scale: 1000, limit: 20000, goal: 1, config: mapConfig},
}

// row makes the row of what was measured; false if it was not.
func (m goRow) row(got map[string]float64) (Row, bool) {
	v, ok := got[m.metric]
	if !ok || v <= 0 {
		return Row{}, false
	}
	row := Row{Name: m.name, Value: round(v * m.scale), Unit: m.unit, Peer: "limit", PeerValue: round(m.limit), Goal: m.goal,
		Config: m.config + "; one run; " + cpus()}
	if m.limit > 0 {
		row.Ratio = round(100*m.limit/(v*m.scale)) / 100
		return row, true
	}
	peer := got[m.peer]
	if peer <= 0 {
		return Row{}, false
	}
	row.Peer, row.PeerValue, row.Ratio = m.peerName, round(peer), round(100*v/peer)/100
	return row, true
}
