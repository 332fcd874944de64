package main

import (
	"bytes"
	"errors"
	mathrand "math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/klauspost/compress/s2"
)

// TestAlbaRows: each row has both sides' configuration, and rows beside Swift are
// left out where it did not run.
func TestAlbaRows(t *testing.T) {
	r := &results{
		albaDisk: "on disk", configs: append(albaConfigs(), [2]string{"alba", "ours"}),
		alba:      map[string]float64{"encode_MB/s": 3000, "limit_MB/s": 3100},
		manifests: map[string]float64{"us-lookup-p99": 100, "pages/s-first": 900, "pages/s-slowest": 810, "bytes": 1300, "bytes-manifest": 500},
	}
	for key, rate := range map[string]float64{"put": 480, "raw-write": 1200, "get": 700, "raw-read": 1000, "partial-4KiB": 10000, "clear-partial-4KiB": 12000, "partial-16KiB": 5000, "partial-64KiB": 2500, "put-4KiB": 200, "put-16KiB": 240, "put-64KiB": 250, "get-4KiB": 300, "get-16KiB": 360, "get-64KiB": 400, "raw-4k": 30000, "raw-64k": 9000, "small": 1500, "limit": 1000} {
		r.add(albaPrefix+key, rate)
	}
	rows := r.rows(options{rounds: 5})
	if len(rows) != 16 {
		t.Fatalf("%d rows: %+v", len(rows), rows)
	}
	for i, want := range []struct{ ratio, goal float64 }{{0.4, 0.4}, {0.7, 0.7}, {0.33, 0.33}, {0.4, 0.33}, {0.17, 0}, {0.08, 0}, {0.28, 0}, {0.8, 0}, {0.96, 0}, {0.75, 0}, {0.9, 0}, {1.5, 1}, {0.97, 0.8}, {20, 1}, {0.9, 0.67}, {2.6, 0}} {
		if rows[i].Ratio != want.ratio || rows[i].Goal != want.goal {
			t.Errorf("%s: ratio %g, goal %g", rows[i].Name, rows[i].Ratio, rows[i].Goal)
		}
		if i < 12 && (!strings.HasPrefix(rows[i].Config, "ours; ") || !strings.HasSuffix(rows[i].Config, "on disk") || strings.Contains(rows[i].Config, "random, not synced")) {
			t.Errorf("%s: config %q", rows[i].Name, rows[i].Config)
		}
	}
	for _, key := range []string{"swift-put", "swift-get", "peers-put", "peers-get"} {
		r.add(albaPrefix+key, 100)
	}
	if rows := r.rows(options{rounds: 5}); len(rows) != 18 {
		t.Errorf("%d rows with Swift", len(rows))
	}
}

// TestHalfText: a piece of any size of what is read in part compresses to about half.
func TestHalfText(t *testing.T) {
	rng := mathrand.New(mathrand.NewPCG(1, 1))
	p := alignedNoise(256<<10, rng)
	halfText(p, rng)
	for _, size := range pieceSizes {
		piece := size.Bytes()
		for i := 0; i < len(p); i += piece {
			if n := len(s2.Encode(nil, p[i:i+piece])); n < piece*15/32 || n > piece*5/8 {
				t.Errorf("%v become %d", size, n)
			}
		}
	}
}

// TestChild: output, an end before it is ready, and the group's members.
func TestChild(t *testing.T) {
	log := t.TempDir() + "/log"
	c, err := startChild(log, "sh", "-c", "trap 'exit 0' TERM; echo trouble >&2; echo ready; while :; do sleep 0.01; done")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.until(t.Context(), func(out string) bool { return out == "ready\n" }); err != nil {
		t.Fatal(err)
	}
	pids, err := groupMembers(strconv.Itoa(c.pid()))
	if err != nil || !slices.Contains(pids, c.pid()) {
		t.Errorf("members of %d: %v, %v", c.pid(), pids, err)
	}
	if err := c.stop(); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(log); err != nil || !bytes.Contains(b, []byte("trouble")) {
		t.Errorf("log %q, %v", b, err)
	}
	if err := syscall.Kill(c.pid(), 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("it lives: %v", err)
	}
	if c, err = startChild(log, "sh", "-c", "echo broken >&2; exit 3"); err != nil {
		t.Fatal(err)
	}
	if err := c.until(t.Context(), func(string) bool { return false }); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("error %v", err)
	}
	if err := c.stop(); err == nil {
		t.Error("a failed process stopped in order")
	}
}
