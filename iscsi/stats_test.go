package iscsi_test

import (
	"errors"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/iscsi/initiator"
)

// TestStats: commands, bytes, errors and depths by session and unit, and totals
// that outlive the session.
func TestStats(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	a, b := n.login(nil), n.login(nil)
	ids := n.srv.Sessions()
	for i, s := range []*initiator.Session{a, b} {
		for range i + 1 {
			if err := s.WriteAt(n.ctx, 0, make([]byte, 4096), 8); err != nil {
				t.Fatal(err)
			}
			if err := s.ReadAt(n.ctx, 0, make([]byte, 8192), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	wantSense(t, a.ReadAt(n.ctx, 0, make([]byte, 512), diskSize/512), 5, 0x21, 0)
	n.disk.Hold()
	done := make(chan error, 3)
	for range 3 {
		c := &initiator.Command{CDB: initiator.ReadCDB(0, 1), In: make([]byte, 512), Done: func(c *initiator.Command) { done <- c.Err }}
		if err := b.Submit(c); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, n, "three reads are inside the disk", func() bool { return n.disk.Held() == 3 })
	of := func(id string) iscsi.LUNStats {
		t.Helper()
		i, err := n.srv.Session(id)
		if err != nil || len(i.LUNs) != 1 || i.ID != id {
			t.Fatalf("%+v, %v", i, err)
		}
		return i.LUNs[0]
	}
	if s := of(ids[1].ID); s.Depth != 3 || s.MaxDepth != 3 || s.Read.Commands != 2 || s.Read.Bytes != 2*8192 ||
		s.Write.Commands != 2 || s.Write.Bytes != 2*4096 || s.Read.Errors != 0 {
		t.Errorf("the session with commands in flight: %+v", s)
	}
	n.disk.Release()
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	s := of(ids[0].ID)
	if s.Depth != 0 || s.MaxDepth != 1 || s.Read.Commands != 2 || s.Read.Bytes != 8192 || s.Read.Errors != 1 || s.Write.Commands != 1 {
		t.Errorf("the session with an error: %+v", s)
	}
	if s.Read.Latency.Count() != 2 || s.Read.Latency.Sum <= 0 || s.Read.Latency.Quantile(1) <= 0 {
		t.Errorf("latencies %+v", s.Read.Latency)
	}
	if err := b.Logout(n.ctx); err != nil {
		t.Fatal(err)
	}
	eventually(t, n, "the second session is gone", func() bool { return len(n.srv.Sessions()) == 1 })
	total := n.srv.Targets()[0].LUNs[0].Stats
	if total.Read.Commands != 7 || total.Write.Commands != 3 || total.Read.Bytes != 3*8192+3*512 || total.Read.Errors != 1 ||
		total.MaxDepth != 3 || total.Depth != 0 {
		t.Errorf("totals %+v", total)
	}
	if _, err := n.srv.Session(ids[1].ID); !errors.Is(err, iscsi.ErrNoSession) {
		t.Error(err)
	}
}

// TestHistogram: bounds and quantiles.
func TestHistogram(t *testing.T) {
	var h iscsi.Histogram
	if h.Quantile(0.5) != 0 {
		t.Error("a quantile of nothing")
	}
	h.Buckets[0], h.Buckets[3], h.Buckets[iscsi.LatencyBuckets-1] = 50, 49, 1
	for q, want := range map[float64]time.Duration{0.5: time.Microsecond, 0.51: 8 * time.Microsecond, 0.99: 8 * time.Microsecond, 1: 1 << 26 * time.Microsecond} {
		if got := h.Quantile(q); got != want {
			t.Errorf("quantile %g: %v, want %v", q, got, want)
		}
	}
	if iscsi.LatencyBound(iscsi.LatencyBuckets-1) != -1 || iscsi.LatencyBound(10) != 1024*time.Microsecond {
		t.Error("bounds")
	}
}
