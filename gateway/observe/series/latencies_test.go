package series

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"slices"
	"testing"

	"github.com/openvstorage/ovgate/gateway/observe"
	"github.com/openvstorage/ovgate/internal/blockfs"
)

// spread is a sample with reads and writes of some latencies.
func spread(id string, reads, writes map[int]float64) Sample {
	var l observe.Latencies
	s := Sample{Named: observe.Named{ID: id}}
	for i, n := range reads {
		l.Reads[i] = n
		s.Performance.ReadIOPS += n
	}
	for i, n := range writes {
		l.Writes[i] = n
		s.Performance.WriteIOPS += n
	}
	s.Latencies = l.Pack(observe.LatencyScale)
	return s
}

// latencies asks for points with latencies.
func (f *fed) latencies(id string, from, to, step int64) []Point {
	f.t.Helper()
	out, err := f.Query(f.t.Context(), id, from, to, step, true)
	if err != nil {
		f.t.Fatal(err)
	}
	return out
}

// sums adds up buckets of reads and of writes.
func sums(l *observe.Latencies) (reads, writes float64) {
	for i := range l.Reads {
		reads, writes = reads+l.Reads[i], writes+l.Writes[i]
	}
	return reads, writes
}

// addsUp fails for a point whose latencies are not those of its commands.
func addsUp(t *testing.T, what string, points []Point) {
	t.Helper()
	for _, p := range points {
		if p.Latencies == nil {
			t.Errorf("%s: no latencies of %+v", what, p)
			continue
		}
		if r, w := sums(p.Latencies); !near(r, p.ReadIOPS) || !near(w, p.WriteIOPS) {
			t.Errorf("%s: %v reads and %v writes by latency, %v and %v in all", what, r, w, p.ReadIOPS, p.WriteIOPS)
		}
	}
}

// TestLatencies: buckets add up to commands in each step, in memory, in fine files and in coarse ones, and after a restart.
func TestLatencies(t *testing.T) {
	mem := blockfs.NewMem()
	f := newFed(t, mem, begin)
	a := spread("a", map[int]float64{6: 80, 7: 20, 14: 0.5}, map[int]float64{9: 7})
	f.pass(150, 1, a)
	f.pass(150, 1)
	check := func(what string) {
		t.Helper()
		p := f.latencies("a", begin, begin+300, 10)
		if len(p) != 30 {
			t.Fatalf("%s: %d steps", what, len(p))
		}
		addsUp(t, what, p)
		if r := p[3].Latencies.Reads; r[6] != 80 || r[7] != 20 || r[14] != 0.5 || p[20].Latencies.Reads[6] != 0 {
			t.Errorf("%s: %v, %v", what, p[3].Latencies, p[20].Latencies)
		}
		p = f.latencies("a", begin, begin+300, 300)
		addsUp(t, what, p)
		if len(p) != 1 || !near(p[0].Latencies.Reads[14], 0.25) {
			t.Errorf("%s, a step of 5 min: %+v", what, p[0].Latencies)
		}
		if p := f.latencies("b", begin, begin+300, 300); len(p) != 1 || p[0].Latencies == nil || *p[0].Latencies != (observe.Latencies{}) {
			t.Errorf("%s, of one that did nothing: %+v", what, p)
		}
	}
	check("in memory")
	f.pass(300, 1, a)
	if len(f.begins(fine)) == 0 {
		t.Fatal("nothing is written")
	}
	check("in a file")
	f.Store = newStore(Options{Dir: in(mem), Sampler: observe.NewSampler(0)})
	f.told(f.work())
	check("after a restart")
	for _, p := range f.query("a", begin, begin+300, 10) {
		if p.Latencies != nil {
			t.Fatal("there are latencies nobody asked for")
		}
	}
	f.pass(8*3600, 10, a)
	if len(f.begins(coarse)) == 0 {
		t.Fatal("there is no coarse file")
	}
	p := f.latencies("a", begin+3600, begin+5*3600, 300)
	addsUp(t, "in a coarse file", p)
	if len(p) != 48 || !near(p[0].Latencies.Reads[14], 0.5) {
		t.Errorf("in a coarse file: %d steps, %+v", len(p), p[0].Latencies)
	}
	// One command in five minutes is not rounded to nothing.
	f.pass(300, 1)
	one := f.now
	f.pass(10, 1, spread("rare", map[int]float64{20: 0.1}, nil))
	f.pass(290, 1)
	f.pass(9*3600, 10)
	if p := f.latencies("rare", floor(one, 300), floor(one, 300)+300, 300); len(p) != 1 || p[0].Latencies == nil || !near(p[0].Latencies.Reads[20], 0.003) {
		t.Errorf("a rare one: %+v", p)
	}
}

// TestLatenciesOfRing: steps of a second have the latencies of the Sampler.
func TestLatenciesOfRing(t *testing.T) {
	f := newFed(t, blockfs.NewMem(), begin)
	in := observe.Input{ID: "a", VPool: "p"}
	for i := range 100 {
		f.now++
		in.Stats.WriteOps += uint64(i)
		in.Stats.WriteLatency[i%3] += uint64(i)
		var out []Sample
		for _, v := range f.opt.Sampler.Observe(secondsOf(f.now), []observe.Input{in}, nil, false) {
			out = append(out, Sample{Named: v})
		}
		f.Add(secondsOf(f.now), out)
	}
	for _, id := range []string{"a", "p", observe.Node} {
		p := f.latencies(id, f.now-50, f.now, 1)
		if len(p) != 50 {
			t.Fatalf("%s: %d seconds", id, len(p))
		}
		addsUp(t, id, p)
		for _, v := range p {
			i := int(v.Time-begin) - 1 // the second that ended then
			if i := i + 1; v.WriteIOPS != float64(i) && v.WriteIOPS != float64(i-1) {
				t.Errorf("%s: %v writes in second %d", id, v.WriteIOPS, i)
			}
		}
	}
}

// TestOldHistory: files from before there were latencies, and from a later program, are answered; what an older
// program reads of a file is what it would have written.
func TestOldHistory(t *testing.T) {
	mem := blockfs.NewMem()
	f := newFed(t, mem, begin)
	f.pass(600, 10, spread("a", map[int]float64{6: 80}, nil), busy("old", 10, 5))
	name := fine.name(begin)
	whole, err := blockfs.ReadFile(mem, name, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	c, err := f.read(fine, begin)
	if err != nil || len(c["a"]) == 0 || c["a"][0].latencies == "" {
		t.Fatalf("%+v, %v", c, err)
	}
	for _, points := range c {
		for i := range points {
			points[i].latencies = ""
		}
	}
	old := c.encode(begin, fine.step)
	if !bytes.HasPrefix(whole, old) || len(whole) == len(old) {
		t.Fatal("an older program does not find what it knows where it looks")
	}
	if p := f.latencies("old", begin, begin+300, 300); len(p) != 1 || p[0].Latencies != nil || !p[0].Active() {
		t.Errorf("commands that were not counted by latency: %+v", p)
	}
	frame := append([]byte("OVGNEW9\n"), 3, 0, 0, 0)
	frame = binary.LittleEndian.AppendUint32(frame, crc32.Checksum(frame, castagnoli))
	later := slices.Concat(old, frame, []byte("new"), whole[len(old):])
	for what, file := range map[string][]byte{"old": old, "later": later, "later, and without latencies": later[:len(old)+len(frame)+3]} {
		if err := blockfs.WriteFile(mem, name, file); err != nil {
			t.Fatal(err)
		}
		f.Store = newStore(Options{Dir: in(mem), Sampler: observe.NewSampler(0)})
		f.told(f.work())
		p := f.latencies("a", begin, begin+300, 300)
		if len(p) != 1 || !near(p[0].ReadIOPS, 80) || f.Err() != nil || (p[0].Latencies != nil) != (what == "later") {
			t.Errorf("%s: %+v, %v", what, p, f.Err())
		}
	}
	// Its later part has latencies.
	p := f.latencies("a", begin, begin+600, 600)
	if len(p) != 1 || p[0].Latencies == nil {
		t.Errorf("half of it: %+v", p)
	}
}

// TestLatenciesFile keeps the format of the extension.
func TestLatenciesFile(t *testing.T) {
	var l observe.Latencies
	l.Reads[2], l.Writes[23] = 1, 0.5
	c := content{"a": {{at: 3}, {at: 7, latencies: l.Pack(latencyScale)}}, "b": {{at: 0}}}
	plain := content{"a": {{at: 3}, {at: 7}}, "b": {{at: 0}}}
	b := c.encode(begin, fine.step)[len(plain.encode(begin, fine.step)):]
	const want = "4f56474c4154310a" + "21000000" + "332109f0" + "01000000" + "22b29688" +
		"00000000" + "00000000" + "09000000" + "e861607a" + "07" + "0102e807" + "0117f403"
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("it has another format, which takes another tag: %s", got)
	}
}

// FuzzDecodeLatencies: whatever the bytes are, what is read belongs to points that are there.
func FuzzDecodeLatencies(f *testing.F) {
	f.Add([]byte{3, 0, 1, 2, 5, 26, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		points := []point{{at: 3}, {at: 29}}
		if decodeValues(b, points, takeLatencies) != nil {
			return
		}
		for _, p := range points {
			if _, err := p.latencies.Unpack(latencyScale); err != nil {
				t.Fatalf("%x: %v", p.latencies, err)
			}
		}
	})
}
