package series

import (
	"encoding/hex"
	"testing"

	"github.com/openvstorage/ovgate/gateway/observe"
	"github.com/openvstorage/ovgate/internal/blockfs"
)

// found is a sample with reads that found so much in the read cache, and so much not.
func found(id string, hits, misses float64) Sample {
	return Sample{Named: observe.Named{ID: id, Sample: observe.Sample{Performance: observe.Performance{ReadIOPS: hits + misses, CacheHits: hits, CacheMisses: misses}}}}
}

// TestCache: what the read cache had is a rate in each step, in memory, in fine files and in coarse ones, and
// after a restart.
func TestCache(t *testing.T) {
	mem := blockfs.NewMem()
	f := newFed(t, mem, begin)
	f.pass(150, 1, found("a", 30, 10), found("backend", 0, 0))
	f.pass(150, 1, found("a", 0, 0.5)) // the first step has nine seconds, and counts as ten
	check := func(what string) {
		t.Helper()
		p := f.query("a", begin, begin+300, 10)
		if len(p) != 30 || !near(p[3].CacheHits, 30) || !near(p[3].CacheMisses, 10) || p[20].CacheHits != 0 || !near(p[20].CacheMisses, 0.5) {
			t.Errorf("%s: %d steps, %+v", what, len(p), p)
		}
		if p = f.query("a", begin, begin+300, 300); len(p) != 1 || !near(p[0].CacheHits, 30*151./300) || !near(p[0].CacheMisses, (10*151+0.5*149)/300) {
			t.Errorf("%s, a step of 5 min: %+v", what, p)
		}
		if p = f.query("backend", begin, begin+300, 300); len(p) != 1 || p[0].CacheHits != 0 || p[0].CacheMisses != 0 {
			t.Errorf("%s, of one without a cache: %+v", what, p)
		}
	}
	check("in memory")
	f.pass(300, 1, found("a", 1, 1))
	check("in a file")
	f.Store = newStore(Options{Dir: in(mem), Sampler: observe.NewSampler(0)})
	f.told(f.work())
	check("after a restart")
	f.pass(8*3600, 10, found("a", 3, 1))
	if len(f.begins(coarse)) == 0 {
		t.Fatal("there is no coarse file")
	}
	if p := f.query("a", begin+3600, begin+5*3600, 300); len(p) != 48 || !near(p[0].CacheHits, 3) || !near(p[0].CacheMisses, 1) {
		t.Errorf("in a coarse file: %d steps, %+v", len(p), p[0])
	}
}

// TestCacheFile keeps the format of the extension, which stands behind that of latencies.
func TestCacheFile(t *testing.T) {
	of := func(hits, misses float64) content {
		l := observe.Latencies{Reads: [observe.LatencyBuckets]float64{1}}
		return content{"a": {{at: 3}, {at: 7, figures: figures{cacheHits: hits, cacheMisses: misses}, latencies: l.Pack(latencyScale)}}, "b": {{at: 0}}}
	}
	b := of(5, 0.02).encode(begin, fine.step)[len(of(0, 0).encode(begin, fine.step)):]
	const want = "4f5647434143310a" + "1c000000" + "8a0ac660" + "01000000" + "0845dc92" +
		"00000000" + "00000000" + "04000000" + "7dfec1c7" + "07" + "f40302"
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("it has another format, which takes another tag: %s", got)
	}
}

// FuzzDecodeCache: whatever the bytes are, what is read belongs to points that are there.
func FuzzDecodeCache(f *testing.F) {
	f.Add([]byte{3, 1, 2, 26, 0, 9})
	f.Fuzz(func(t *testing.T, b []byte) {
		points := []point{{at: 3}, {at: 29}}
		if decodeValues(b, points, takeCache) != nil {
			return
		}
		for _, p := range points {
			if p.clean() != p.figures {
				t.Fatalf("%+v", p)
			}
		}
	})
}
