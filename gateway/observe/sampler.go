package observe

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/volumedriver/volume"
)

const (
	// Step is the time between samples.
	Step = time.Second
	// Keep is how many samples an object has: ten minutes.
	Keep = 600
	// MaxSeries bounds the objects with samples by default, at about 60 KiB each. The
	// others have their present performance only.
	MaxSeries = 1024
	// idleSeries is how many quiet samples an object's series survives.
	idleSeries = Keep
	buckets    = LatencyBuckets
	// LatencyScale is how many parts of a command a second the latencies of a Sample tell apart.
	LatencyScale = 100
)

// Node is the object that stands for the sum of all vDisks; a vPool, by its id, stands for the
// sum of those in it that are open here.
const Node = "node"

// Performance is rates over the last second and latencies within it. A latency
// is 0 when there was no such operation.
type Performance struct {
	ReadIOPS, WriteIOPS                     float64
	ReadBytesPerSecond, WriteBytesPerSecond float64
	ReadP50us, ReadP99us                    float64
	WriteP50us, WriteP99us                  float64
	// CacheHits and CacheMisses are clusters a second, as in volume.Stats; a store has none.
	CacheHits, CacheMisses float64
}

// Active tells whether anything was done.
func (p Performance) Active() bool { return p.ReadIOPS > 0 || p.WriteIOPS > 0 }

// Sample is one second of an object.
type Sample struct {
	Time        time.Time
	Performance Performance
	JournalUsed int64 // bytes
	// Latencies are empty in what Present returns.
	Latencies PackedLatencies
}

// Input is the counters of an open vDisk.
type Input struct {
	ID    string
	VPool string // id; empty: it counts for the node alone
	Stats volume.Stats
}

// Sampler keeps the recent performance of each vDisk, of vPools and of the node. Safe for
// concurrent use.
type Sampler struct {
	most    int // objects with a ring
	mu      sync.Mutex
	at      time.Time
	objects map[string]*series
	stored  map[*series]bool // those with a ring
	seen    uint64
	// idleJournal is what those that were idle have in the journal, bytes, by vPool.
	idleJournal map[string]int64
}

type series struct {
	vpool   string // that it is in
	sum     bool   // of vDisks
	prev    counters
	present Sample
	ring    []kept // nil until the object did something
	next    int    // where the next sample goes, once the ring is full
	idle    int
	seen    uint64
}

// kept is a Sample in a ring, in half its size.
type kept struct {
	ms          int64 // since 1970
	performance [10]float32
	journalUsed int64
	latencies   PackedLatencies
}

func keptOf(v Sample) kept {
	p := v.Performance
	return kept{v.Time.UnixMilli(), [10]float32{
		float32(p.ReadIOPS), float32(p.WriteIOPS), float32(p.ReadBytesPerSecond), float32(p.WriteBytesPerSecond),
		float32(p.ReadP50us), float32(p.ReadP99us), float32(p.WriteP50us), float32(p.WriteP99us),
		float32(p.CacheHits), float32(p.CacheMisses),
	}, v.JournalUsed, v.Latencies}
}

func (k kept) sample() Sample {
	var p [10]float64
	for i, v := range k.performance {
		p[i] = float64(v)
	}
	return Sample{time.UnixMilli(k.ms).UTC(), Performance{p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], p[9]}, k.journalUsed, k.latencies}
}

// counters are what rates are made of.
type counters struct {
	epoch                                    uint32
	readOps, writeOps, readBytes, writeBytes uint64
	cacheHits, cacheMisses                   uint64
	readLatency, writeLatency                [buckets]uint64
}

// NewSampler returns a Sampler that keeps samples of so many objects at most, of MaxSeries
// if it is 0.
func NewSampler(most int) *Sampler {
	return &Sampler{most: cmp.Or(most, MaxSeries), objects: map[string]*series{}, stored: map[*series]bool{}, idleJournal: map[string]int64{}}
}

// Observe takes the counters of the open vDisks at now, and returns the objects that did
// something since the last time, the node's sum first and always, then vPools. The counters of those
// in idle are what they were the last time; if partial, so are those of all that in lacks.
func (s *Sampler) Observe(now time.Time, in []Input, idle []string, partial bool) []Named {
	s.mu.Lock()
	defer s.mu.Unlock()
	elapsed := now.Sub(s.at).Seconds()
	first := s.at.IsZero() || elapsed <= 0
	s.at = now
	s.seen++
	sums := map[string]*poolSum{}
	all := &poolSum{}
	var disks, pools []Named
	for _, v := range in {
		cur := countersOf(v.Stats)
		o := s.object(v.ID, cur)
		d := cur.since(o.prev)
		o.prev, o.vpool = cur, v.VPool
		for _, to := range []*poolSum{all, sumOf(sums, v.VPool)} {
			to.add(d)
			to.journal += v.Stats.JournalBytes
		}
		sample := Sample{Time: now, JournalUsed: v.Stats.JournalBytes}
		if !first {
			sample.Performance, sample.Latencies = d.rates(elapsed), d.latencies(elapsed)
		}
		s.keep(o, sample)
		if sample.Performance.Active() {
			disks = append(disks, Named{ID: v.ID, Sample: sample})
		}
	}
	rest := func(o *series) {
		o.seen = s.seen
		s.keep(o, Sample{Time: now, JournalUsed: o.present.JournalUsed})
	}
	if partial { // those that are shown in charts have a sample for each step
		for o := range s.stored {
			if o.seen != s.seen && !o.sum {
				rest(o)
			}
		}
	} else {
		clear(s.idleJournal)
		for _, id := range idle {
			if o := s.objects[id]; o != nil {
				s.idleJournal[o.vpool] += o.present.JournalUsed
				rest(o)
			}
		}
	}
	for vpool, bytes := range s.idleJournal {
		all.journal += bytes
		sumOf(sums, vpool).journal += bytes
	}
	delete(sums, "")
	sums[Node] = all
	var node Named
	for id, v := range sums {
		o := s.object(id, counters{})
		o.sum = true
		sample := Sample{Time: now, JournalUsed: v.journal}
		if !first {
			sample.Performance, sample.Latencies = v.rates(elapsed), v.latencies(elapsed)
		}
		s.keep(o, sample)
		switch {
		case id == Node:
			node = Named{ID: Node, Sample: sample}
		case sample.Performance.Active():
			pools = append(pools, Named{ID: id, VPool: true, Sample: sample})
		}
	}
	out := slices.Concat([]Named{node}, pools, disks)
	if partial {
		return out
	}
	for id, o := range s.objects {
		if o.seen != s.seen {
			s.drop(id, o)
		}
	}
	return out
}

// poolSum is the sum over the vDisks of a vPool, or over all.
type poolSum struct {
	counters
	journal int64 // bytes
}

func sumOf(sums map[string]*poolSum, vpool string) *poolSum {
	if sums[vpool] == nil {
		sums[vpool] = &poolSum{}
	}
	return sums[vpool]
}

// Named is a sample of an object.
type Named struct {
	ID    string
	VPool bool // ID is that of a vPool
	Sample
}

// object returns an object's series; a new one starts at its present counters,
// so that what happened before is not a burst now.
func (s *Sampler) object(id string, cur counters) *series {
	o := s.objects[id]
	if o == nil {
		o = &series{prev: cur}
		s.objects[id] = o
	}
	o.seen = s.seen
	return o
}

func (s *Sampler) keep(o *series, v Sample) {
	o.present = v
	o.present.Latencies = "" // most objects are idle: they keep nothing
	if v.Performance.Active() {
		o.idle = 0
	} else if o.idle++; o.idle > idleSeries && o.ring != nil {
		delete(s.stored, o)
		o.ring, o.next = nil, 0
	}
	if o.ring == nil {
		if o.idle > 0 || len(s.stored) >= s.most {
			return
		}
		s.stored[o] = true
		o.ring = make([]kept, 0, Keep)
	}
	if len(o.ring) < Keep {
		o.ring = append(o.ring, keptOf(v))
		return
	}
	o.ring[o.next] = keptOf(v)
	o.next = (o.next + 1) % Keep
}

func (s *Sampler) drop(id string, o *series) {
	delete(s.stored, o)
	delete(s.objects, id)
}

// Present returns an object's newest sample; zero when it has none.
func (s *Sampler) Present(id string) Sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.objects[id]; o != nil {
		return o.present
	}
	return Sample{}
}

// Series returns up to n newest samples of an object, oldest first.
func (s *Sampler) Series(id string, n int) []Sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.objects[id]
	if o == nil || o.ring == nil {
		return nil
	}
	n = min(n, len(o.ring))
	out := make([]Sample, 0, n)
	for i := len(o.ring) - n; i < len(o.ring); i++ {
		out = append(out, o.ring[(o.next+i)%len(o.ring)].sample())
	}
	return out
}

func countersOf(v volume.Stats) counters {
	return counters{
		epoch: v.Epoch, readOps: v.ReadOps, writeOps: v.WriteOps, readBytes: v.ReadBytes, writeBytes: v.WriteBytes,
		cacheHits: v.CacheHits, cacheMisses: v.CacheMisses, readLatency: v.ReadLatency, writeLatency: v.WriteLatency,
	}
}

// since returns what was added; after a new opening, counters began at zero.
func (c counters) since(p counters) counters {
	if p.epoch != c.epoch || c.readOps < p.readOps || c.writeOps < p.writeOps {
		return c
	}
	c.readOps -= p.readOps
	c.writeOps -= p.writeOps
	c.readBytes -= p.readBytes
	c.writeBytes -= p.writeBytes
	c.cacheHits -= p.cacheHits
	c.cacheMisses -= p.cacheMisses
	for i := range c.readLatency {
		c.readLatency[i] -= p.readLatency[i]
		c.writeLatency[i] -= p.writeLatency[i]
	}
	return c
}

func (c *counters) add(o counters) {
	c.readOps += o.readOps
	c.writeOps += o.writeOps
	c.readBytes += o.readBytes
	c.writeBytes += o.writeBytes
	c.cacheHits += o.cacheHits
	c.cacheMisses += o.cacheMisses
	for i := range c.readLatency {
		c.readLatency[i] += o.readLatency[i]
		c.writeLatency[i] += o.writeLatency[i]
	}
}

func (c counters) rates(seconds float64) Performance {
	return Performance{
		ReadIOPS: float64(c.readOps) / seconds, WriteIOPS: float64(c.writeOps) / seconds,
		ReadBytesPerSecond: float64(c.readBytes) / seconds, WriteBytesPerSecond: float64(c.writeBytes) / seconds,
		ReadP50us: Percentile(c.readLatency, 0.50), ReadP99us: Percentile(c.readLatency, 0.99),
		WriteP50us: Percentile(c.writeLatency, 0.50), WriteP99us: Percentile(c.writeLatency, 0.99),
		CacheHits: float64(c.cacheHits) / seconds, CacheMisses: float64(c.cacheMisses) / seconds,
	}
}

func (c *counters) latencies(seconds float64) PackedLatencies {
	if c.readLatency == [buckets]uint64{} && c.writeLatency == [buckets]uint64{} {
		return ""
	}
	var l Latencies
	for i := range l.Reads {
		l.Reads[i], l.Writes[i] = float64(c.readLatency[i])/seconds, float64(c.writeLatency[i])/seconds
	}
	return l.Pack(LatencyScale)
}

// Percentile estimates the q-quantile in us of a histogram whose bucket i
// counts [2^i, 2^(i+1)) us, taking values as spread evenly within a bucket.
func Percentile[N uint64 | float64](h [buckets]N, q float64) float64 {
	var total N
	for _, n := range h {
		total += n
	}
	rank := q * float64(total)
	for i, n := range h {
		if n > 0 && rank <= float64(n) {
			low := float64(uint64(1) << i)
			return low + low*rank/float64(n)
		}
		rank -= float64(n)
	}
	return 0
}
