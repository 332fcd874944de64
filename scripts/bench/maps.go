package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
)

// needMap is the free space that the set map asks for: the pages of 1 TiB, 2 GiB, on
// local disk and on the backend, and as much again while they are rewritten.
const needMap = 8 << 30

// measureMap runs the benchmark of the vDisk map, which makes a map of 1 TiB without
// writing its data, in a process of its own.
func measureMap(ctx context.Context, dir string, r *results) error {
	fmt.Println("bench: the map of a full vDisk of 1 TiB")
	cmd := exec.CommandContext(ctx, "go", "test", "./volumedriver/volume", "-run", "^$", "-bench", "^BenchmarkMap$", "-benchtime", "1x")
	cmd.Env = append(os.Environ(), "OVGATE_BENCH_DIR="+dir)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("benchmark of the map: %w\n%s", err, out.String())
	}
	var err error
	r.maps, err = benchMetrics(out.String(), "BenchmarkMap")
	return err
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

// mapRow is a row of the set map. With a limit the ratio is limit by value, so that 1
// and more is within it; else it is value by the metric of the peer.
type mapRow struct {
	name, metric, unit string
	scale              float64
	limit              float64
	peer               string
	goal               float64
}

var mapRows = []mapRow{
	{"map memory per mapped GiB", "MiB/GiB", "KiB", 1024, 2.2 * 1024, "", 1},
	{"map 4k random read, a tenth of the map in memory", "reads/s-tenth", "IOPS", 1, 0, "reads/s", 0.5},
	{"map restart of 1 TiB, local state", "s-local-restart", "ms", 1000, 3000, "", 1},
	{"map restart of 1 TiB, from the backend alone", "s-backend-restart", "ms", 1000, 20000, "", 1},
}

// rows makes the row of what was measured; false if it was not.
func (m mapRow) row(got map[string]float64) (Row, bool) {
	v, ok := got[m.metric]
	if !ok || v <= 0 {
		return Row{}, false
	}
	row := Row{Name: m.name, Value: round(v * m.scale), Unit: m.unit, Peer: "limit", PeerValue: round(m.limit), Goal: m.goal,
		Config: fmt.Sprintf("synthetic full map of 1 TiB, 4 KiB clusters, local-directory backend whose data are made in memory, one run; %d CPUs", runtime.NumCPU())}
	if m.limit > 0 {
		row.Ratio = round(100*m.limit/(v*m.scale)) / 100
		return row, true
	}
	peer := got[m.peer]
	if peer <= 0 {
		return Row{}, false
	}
	row.Peer, row.PeerValue, row.Ratio = "all of the map in memory", round(peer), round(100*v/peer)/100
	row.Config += fmt.Sprintf("; per CPU second %.2f", got["tenth/full-cpu"])
	return row, true
}
