package observe

import (
	"math"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// TestPack: what is packed comes back, rounded, and what is there is never rounded to nothing.
func TestPack(t *testing.T) {
	var l Latencies
	l.Reads[0], l.Reads[5], l.Writes[LatencyBuckets-1] = 3, 1234.5678, 1e-9
	p := l.Pack(1000)
	got, err := p.Unpack(1000)
	want := l
	want.Reads[5], want.Writes[LatencyBuckets-1] = 1234.568, 0.001
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if len(p) != 2+2+4+3+3 { // four buckets without commands between the first and the last, of a byte each
		t.Errorf("%d bytes: %x", len(p), p)
	}
	if (&Latencies{}).Pack(1000) != "" {
		t.Error("none takes bytes")
	}
	l = Latencies{}
	l.Reads[1], l.Reads[2], l.Writes[3] = math.NaN(), math.Inf(1), -1
	if got, err := l.Pack(10).Unpack(10); err != nil || got.Reads[1] != 0 || got.Reads[2] != mostPacked/10.0 || got.Writes != [LatencyBuckets]float64{} {
		t.Errorf("odd numbers: %+v, %v", got, err)
	}
	for cut := 1; cut < len(p); cut++ {
		if _, err := p[:cut].Unpack(1000); err == nil {
			t.Errorf("%d bytes of %d are taken for all", cut, len(p))
		}
	}
}

// TestMergeLatencies: rates of parts become the rates of the whole.
func TestMergeLatencies(t *testing.T) {
	var a, b, sum Latencies
	a.Reads[3], b.Reads[3], b.Writes[7] = 30, 60, 3
	sum.Add(&a, 10)
	sum.Add(&b, 20)
	sum.Over(60)
	var want Latencies
	want.Reads[3], want.Writes[7] = 25, 1
	if sum != want {
		t.Errorf("%+v", sum)
	}
	if sum.Over(0); sum != (Latencies{}) {
		t.Errorf("over no time: %+v", sum)
	}
}

// TestSampledLatencies: a sample has the latencies of its second, of a vDisk, its vPool and the node; what
// is kept of one that rests has none.
func TestSampledLatencies(t *testing.T) {
	s := NewSampler(0)
	now := time.Unix(1000, 0)
	var st volume.Stats
	observe := func() map[string]Latencies {
		now = now.Add(2 * time.Second)
		out := map[string]Latencies{}
		for _, v := range s.Observe(now, []Input{{ID: "a", VPool: "p", Stats: st}, {ID: "b", VPool: "p", Stats: st}}, nil, false) {
			l, err := v.Latencies.Unpack(LatencyScale)
			if err != nil {
				t.Fatal(err)
			}
			out[v.ID] = l
		}
		return out
	}
	st.ReadOps, st.ReadLatency[4] = 100, 100
	observe()
	st.ReadOps, st.ReadLatency[4], st.ReadLatency[9] = 121, 120, 1
	got := observe()
	for id, times := range map[string]float64{"a": 1, "b": 1, "p": 2, Node: 2} {
		var want Latencies
		want.Reads[4], want.Reads[9] = 10*times, 0.5*times
		if got[id] != want {
			t.Errorf("%s: %+v", id, got[id])
		}
	}
	if p := s.Present("a"); p.Latencies != "" || p.Performance.ReadIOPS != 10.5 {
		t.Errorf("present: %+v", p)
	}
	observe()
	series := s.Series("a", 2)
	if len(series) != 2 || series[0].Latencies == "" || series[1].Latencies != "" {
		t.Errorf("series: %+v", series)
	}
}

// FuzzLatencies: whatever the bytes are, what is taken for latencies is what they pack to again.
func FuzzLatencies(f *testing.F) {
	f.Add([]byte{2, 3, 5, 0x80, 1, 0})
	f.Add([]byte{0, 24, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		l, rest, err := CutLatencies(b, 1)
		if err != nil {
			return
		}
		if len(rest) > len(b) {
			t.Fatal("more is left than there was")
		}
		again, err := l.Pack(1).Unpack(1)
		if err != nil || again != l {
			t.Fatalf("%+v, %+v, %v", l, again, err)
		}
	})
}
