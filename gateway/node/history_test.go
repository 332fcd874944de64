package node

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestHistory: what a vDisk did is told of it, of its vPool and of its node, by the second and
// later; a restart keeps it, damaged files are put aside, and a node that cannot write it says so.
func TestHistory(t *testing.T) {
	dir := t.TempDir()
	r := start(t, Options{Data: dir})
	r.pool("gold", t.TempDir())
	r.disk("one", "gold", 1<<20)
	node := "/nodes/" + r.call("GET", "/status", nil, 200)["node"].(map[string]any)["name"].(string)
	s, block := r.login("one"), make([]byte, 4096)
	// did returns how many commands an answer has, and its points.
	did := func(object, query string) (writes float64, points []any) {
		t.Helper()
		h := r.call("GET", object+"/performance"+query, nil, 200)
		points = h["points"].([]any)
		for _, p := range points {
			writes += p.(map[string]any)["performance"].(map[string]any)["writeIops"].(float64) * h["stepMs"].(float64) / 1000
		}
		return writes, points
	}
	for _, object := range []string{"/vdisks/one", "/vpools/gold", node} {
		r.until("history of "+object, func() bool {
			if err := s.WriteAt(t.Context(), 0, block, 0); err != nil {
				t.Fatal(err)
			}
			n, points := did(object, "?points=1000")
			_, coarser := did(object, "?points=2")
			return n > 0 && len(points) > 1 && len(coarser) > 0 && len(coarser) <= 2
		})
	}
	// counted returns how many writes an answer has by their latency; they are as many as it has in all.
	counted := func(object string) (writes float64) {
		t.Helper()
		h := r.call("GET", object+"/performance?points=10&latencies=true", nil, 200)
		if n := len(h["bucketsUs"].([]any)); n != 24 {
			t.Fatalf("%d buckets", n)
		}
		for _, p := range h["points"].([]any) {
			var sum float64
			for _, n := range p.(map[string]any)["latencies"].(map[string]any)["writes"].([]any) {
				sum += n.(float64)
			}
			if iops := p.(map[string]any)["performance"].(map[string]any)["writeIops"].(float64); math.Abs(sum-iops) > 0.1*iops+0.05 {
				t.Errorf("%s: %v writes a second by latency, %v in all", object, sum, iops)
			}
			writes += sum
		}
		return writes
	}
	for _, object := range []string{"/vdisks/one", "/vpools/gold", node} {
		if counted(object) == 0 {
			t.Errorf("%s has no latencies", object)
		}
	}
	r.until("the vPool's bytes, and the machine's memory", func() bool {
		_, points := did(node, "")
		_, ok := points[len(points)-1].(map[string]any)["stored"].(float64)
		return ok && points[len(points)-1].(map[string]any)["memory"].(float64) > 0
	})
	for query, says := range map[string]string{
		"?points=1001": "points", "?points=1": "points", "?from=2030-01-31T12:00:00Z": "before", "?from=yesterday": "from", "?to=2000-01-01T00:00:00Z": "before",
	} {
		r.refused("GET", "/vdisks/one/performance"+query, nil, 400, "invalid", says)
	}
	r.refused("GET", "/vdisks/none/performance", nil, 404, "not_found")
	r.refused("GET", "/vpools/none/performance", nil, 404, "not_found")
	r.refused("GET", "/vpools/gold/performance?node=none", nil, 404, "not_found")
	r.refused("GET", "/nodes/none/performance", nil, 404, "not_found")
	s.Close()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = start(t, Options{Data: dir})
	if n, _ := did("/vdisks/one", ""); n == 0 {
		t.Error("a restart forgets")
	}
	if counted("/vdisks/one") == 0 {
		t.Error("a restart forgets latencies")
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	// A file in place of the directory's files.
	kept, err := filepath.Glob(filepath.Join(dir, metricsDir, "m-*"))
	if err != nil || len(kept) == 0 {
		t.Fatalf("%v, %v", kept, err)
	}
	for _, name := range kept {
		if err := os.WriteFile(name, []byte("nonsense"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r = start(t, Options{Data: dir})
	r.until("damaged files are put aside", func() bool {
		did("/vdisks/one", "")
		aside, err := filepath.Glob(filepath.Join(dir, metricsDir, "*.damaged"))
		return err == nil && len(aside) == len(kept)
	})
	if n, _ := did("/vdisks/one", ""); n != 0 {
		t.Errorf("%v writes out of nonsense", n)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	// It is no directory: the node serves.
	metrics := filepath.Join(dir, metricsDir)
	if err := os.Rename(metrics, metrics+".away"); err != nil {
		t.Fatal(err)
	}
	write(t, metrics, "a file")
	r = start(t, Options{Data: dir})
	r.until("health tells it", func() bool { return strings.Contains(r.causes(), "metrics_history") })
	r.until("the newest history is told", func() bool { _, points := did("/vdisks/one", ""); return len(points) > 0 })
}
