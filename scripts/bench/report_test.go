package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// measured returns results of steps with the given medians around them.
func measured() *results {
	r := &results{engine: "5.0 quotas written", configs: [][2]string{{"ovgate", "ours"}, {"tgt-cached", "cached"}, {"tgt-osync", "osync"}, {"tgt-wce0", "wce0"}}}
	for key, rate := range map[string]float64{
		"raw-append-dsync-qd1": 10000, "raw-write-qd1": 12000, "raw-write-qd32": 50000,
		"engine-write-qd1": 7000, "engine-write-qd32": 39000,
		"ovgate-write-qd1": 5000, "ovgate-write-qd32": 30000, "ovgate-read-qd1": 4000, "ovgate-read-qd32": 20000,
		"tgt-cached-write-qd1": 6000, "tgt-cached-write-qd32": 25000, "tgt-cached-read-qd1": 4000, "tgt-cached-read-qd32": 21000,
		"tgt-osync-write-qd1": 3000, "tgt-osync-write-qd32": 8000, "tgt-wce0-write-qd1": 2000, "tgt-wce0-write-qd32": 16000,
	} {
		for _, f := range []float64{0.5, 1, 3, 0.9, 1.1} { // median 1
			r.add(key, rate*f)
		}
	}
	return r
}

func TestRows(t *testing.T) {
	rows := measured().rows(options{rounds: 5, seconds: 2})
	if len(rows) != 10 {
		t.Fatalf("%d rows, want 10", len(rows))
	}
	for _, tc := range []struct {
		row                           int
		peer                          string
		value, peerValue, ratio, goal float64
	}{
		{0, "raw-append-dsync-qd1", 7000, 10000, 0.7, 0.65},
		{1, "raw-append-dsync-qd1", 39000, 10000, 3.9, 4},
		{5, "tgt-cached-write-qd32", 30000, 25000, 1.2, 1},
		{6, "tgt-osync-write-qd1", 5000, 3000, 1.67, 0}, // the better of both ways
		{7, "tgt-wce0-write-qd32", 30000, 16000, 1.88, 2},
	} {
		r := rows[tc.row]
		if r.Peer != tc.peer || r.Value != tc.value || r.PeerValue != tc.peerValue || r.Ratio != tc.ratio || r.Goal != tc.goal {
			t.Errorf("row %d: %+v, want %+v", tc.row, r, tc)
		}
		if strings.Contains(r.Config, "NOT COUNTABLE") || !strings.Contains(r.Config, "5 interleaved rounds") {
			t.Errorf("row %d: config %q", tc.row, r.Config)
		}
	}
	if few := measured().rows(options{rounds: 4}); !strings.Contains(few[0].Config, "NOT COUNTABLE") {
		t.Errorf("four rounds count: %q", few[0].Config)
	}
}

func TestNoise(t *testing.T) {
	n := noise{pids: []int{os.Getpid()}, repeats: 3}
	s, err := n.sample()
	if err != nil || s.busy <= 0 || s.ours > s.busy {
		t.Fatalf("sample %+v: %v", s, err)
	}
	for i, tc := range []struct {
		others float64
		try    int
		want   bool
	}{
		{0.1, 0, false}, {0.5, 0, true}, {0.5, 1, true}, {0.5, 2, false}, {0.9, 0, true}, {0.9, 0, false},
	} {
		if got := n.again(tc.others, tc.try); got != tc.want {
			t.Errorf("case %d: again %v, want %v", i, got, tc.want)
		}
	}
	if n.left != 2 || n.repeats != 0 {
		t.Errorf("%d kept noisy, %d repeats left", n.left, n.repeats)
	}
}

func TestMissingStepsGiveNoRow(t *testing.T) {
	r := measured()
	for key := range r.rates {
		if strings.HasPrefix(key, "tgt") || strings.HasPrefix(key, "ovgate") {
			delete(r.rates, key)
		}
	}
	if rows := r.rows(options{rounds: 5}); len(rows) != 4 {
		t.Errorf("%d rows without targets, want 4", len(rows))
	}
}

func TestWriteRows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bench.json")
	rows := measured().rows(options{rounds: 5})
	if err := writeRows(path, rows); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got []map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"name", "value", "unit", "peer", "peer_value", "ratio", "goal", "config"} {
		if _, ok := got[0][key]; !ok {
			t.Errorf("a row has no %q: %v", key, got[0])
		}
	}
	var table bytes.Buffer
	printRows(&table, rows)
	if s := table.String(); !strings.Contains(s, "MISSED") || !strings.Contains(s, "met") {
		t.Errorf("the table does not say what was met and what not:\n%s", s)
	}
}

// TestMergeRows: a set that is measured again replaces its rows and leaves the
// others; a row that no set has any more goes.
func TestMergeRows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bench.json")
	names := []string{"a", "b", "c"}
	for _, step := range [][]Row{
		{{Name: "b", Value: 1}, {Name: "a", Value: 1}, {Name: "gone", Value: 1}},
		{{Name: "c", Value: 2}, {Name: "a", Value: 2}},
	} {
		if err := mergeRows(path, names, step); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got []Row
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if len(got) != 3 || got[0].Value != 2 || got[1].Value != 1 || got[2].Value != 2 {
		t.Errorf("merged %+v", got)
	}
	if err := os.WriteFile(path, []byte("not rows"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := mergeRows(path, names, nil); err == nil {
		t.Error("a file that holds something else was overwritten")
	}
}

// TestSets: what can be asked for, and the rows of the iSCSI target.
func TestSets(t *testing.T) {
	if err := (options{only: "iscsi,engine", rounds: 1, seconds: 1}).validate(); err != nil {
		t.Error(err)
	}
	if err := (options{only: "iscs", rounds: 1, seconds: 1}).validate(); err == nil {
		t.Error("an unknown set is taken")
	}
	if o := (options{only: "iscsi"}); o.has("node") || !o.has("iscsi") || !(options{}).has("node") {
		t.Error("has")
	}
	r := &results{memory: "in memory", configs: [][2]string{{"fe-memory", "ours"}, {"fe-tgt-read-4k-qd32", "theirs"}}}
	for key, rate := range map[string]float64{"fe-memory-read-4k-qd32": 300, "fe-tgt-read-4k-qd32": 100, "fe-memory-read-4k-qd32-cpu": 9, "fe-tgt-read-4k-qd32-cpu": 3} {
		r.add(key, rate)
	}
	rows := r.rows(options{rounds: 5})
	if len(rows) != 2 || rows[0].Ratio != 3 || rows[0].Goal != 2.5 || rows[1].Unit == "IOPS" || rows[1].Goal != cpuGoal {
		t.Fatalf("%+v", rows)
	}
	for _, row := range rows {
		if !strings.HasPrefix(row.Config, "ours; theirs; ") || !strings.Contains(row.Config, "in memory") {
			t.Errorf("config %q", row.Config)
		}
	}
}
