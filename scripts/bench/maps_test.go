package main

import "testing"

func TestMapRows(t *testing.T) {
	got, err := benchMetrics("goos: linux\nBenchmarkMap-2 \t 1\t 2.026 MiB/GiB\t 4000 reads/s\t 2200 reads/s-tenth\t 0.335 s-local-restart\t 40 s-backend-restart\t 0.57 tenth/full-cpu\nPASS\n", "BenchmarkMap")
	if err != nil {
		t.Fatal(err)
	}
	want := []struct {
		value, ratio float64
		met          bool
	}{{2075, 1.09, true}, {2200, 0.55, true}, {335, 8.96, true}, {40000, 0.5, false}}
	for i, m := range mapRows {
		row, ok := m.row(got)
		if w := want[i]; !ok || row.Value != w.value || row.Ratio != w.ratio || (row.Ratio >= row.Goal) != w.met {
			t.Errorf("%+v", row)
		}
		if _, ok := m.row(map[string]float64{}); ok {
			t.Errorf("%s: a row of nothing", m.name)
		}
	}
	for _, out := range []string{"", "BenchmarkMap-2 1 x s\n", "BenchmarkMapping-2 1 2 s\n"} {
		if _, err := benchMetrics(out, "BenchmarkMap"); err == nil {
			t.Errorf("%q has a result", out)
		}
	}
}
