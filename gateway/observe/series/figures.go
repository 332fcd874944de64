package series

import (
	"math"

	"github.com/openvstorage/ovgate/gateway/observe"
)

// Point is what an object did within a step.
type Point struct {
	Time int64 // when the step begins, seconds since 1970
	observe.Performance
	JournalUsed int64   // most bytes in the journal
	Stored      int64   // most bytes on the backend, of a vPool; 0: unknown
	CPU, Memory float64 // percent of the machine's, of the node
	// Latencies is nil when they were not asked for, and when there were commands of which none
	// were counted, as before the version that does.
	Latencies *observe.Latencies
}

// figures are the numbers of a point.
type figures [14]float64

// Places in figures.
const (
	readIOPS = iota
	writeIOPS
	readBytes
	writeBytes
	readP50
	readP99
	writeP50
	writeP99
	journalUsed
	stored
	cpu
	memory
	cacheHits
	cacheMisses
)

// inPoint is how many figures a point in a file has; an extension has the others.
const inPoint = memory + 1

// rates are the figures that are rates.
var rates = [...]int{readIOPS, writeIOPS, readBytes, writeBytes, cacheHits, cacheMisses}

// scale is how many units of a figure a file tells apart.
var scale = figures{100, 100, 1, 1, 1, 1, 1, 1, 1, 1, 10, 10, 100, 100}

// latencyScale is how many parts of a command a second the latencies in a file tell apart: one command in
// a step of 5 min is three.
const latencyScale = 1000

// largest bounds a stored number; above it a float64 does not count in ones.
const largest = 1 << 53

func figuresOf(v observe.Sample) figures {
	p := v.Performance
	return figures{
		readIOPS: p.ReadIOPS, writeIOPS: p.WriteIOPS, readBytes: p.ReadBytesPerSecond, writeBytes: p.WriteBytesPerSecond,
		readP50: p.ReadP50us, readP99: p.ReadP99us, writeP50: p.WriteP50us, writeP99: p.WriteP99us,
		journalUsed: float64(v.JournalUsed), cacheHits: p.CacheHits, cacheMisses: p.CacheMisses,
	}
}

func (f figures) point(at int64) Point {
	return Point{
		Time: at, JournalUsed: int64(f[journalUsed]), Stored: int64(f[stored]), CPU: f[cpu], Memory: f[memory],
		Performance: observe.Performance{
			ReadIOPS: f[readIOPS], WriteIOPS: f[writeIOPS], ReadBytesPerSecond: f[readBytes], WriteBytesPerSecond: f[writeBytes],
			ReadP50us: f[readP50], ReadP99us: f[readP99], WriteP50us: f[writeP50], WriteP99us: f[writeP99],
			CacheHits: f[cacheHits], CacheMisses: f[cacheMisses],
		},
	}
}

// clean makes every figure one that can be stored.
func (f figures) clean() figures {
	for i, v := range f {
		if !(v > 0) { // NaN too
			f[i] = 0
		} else if v > largest/scale[i] {
			f[i] = largest / scale[i]
		}
	}
	return f
}

// mean adds up figures of parts of a step.
type mean struct {
	sum             figures
	reads, writes   float64 // commands
	seconds, gauged float64
	latencies       *observe.Latencies // sums of commands; nil: none were counted
}

// add adds figures that were so for some seconds.
func (m *mean) add(f figures, seconds float64) {
	for _, i := range rates {
		m.sum[i] += f[i] * seconds
	}
	for _, i := range []int{readP99, writeP99, journalUsed} {
		m.sum[i] = max(m.sum[i], f[i])
	}
	reads, writes := f[readIOPS]*seconds, f[writeIOPS]*seconds
	m.sum[readP50] += f[readP50] * reads
	m.sum[writeP50] += f[writeP50] * writes
	m.reads, m.writes = m.reads+reads, m.writes+writes
	m.seconds += seconds
	m.gauge(f, seconds)
}

// count adds latencies that were so for some seconds. Those that cannot be unpacked are left out.
func (m *mean) count(p observe.PackedLatencies, scale, seconds float64) {
	if p == "" {
		return
	}
	l, err := p.Unpack(scale)
	if err != nil {
		return
	}
	if m.latencies == nil {
		m.latencies = &observe.Latencies{}
	}
	m.latencies.Add(&l, seconds)
}

// latenciesOver returns the latencies of a step of which the node ran for so many seconds.
func (m *mean) latenciesOver(ran float64) observe.Latencies {
	var l observe.Latencies
	if m.latencies != nil {
		l = *m.latencies
		l.Over(max(ran, m.seconds))
	}
	return l
}

// packed is latenciesOver as files have it.
func (m *mean) packed(ran float64) observe.PackedLatencies {
	l := m.latenciesOver(ran)
	return l.Pack(latencyScale)
}

// gauge adds what is told by steps of 10 s or more alone.
func (m *mean) gauge(f figures, seconds float64) {
	m.sum[stored] = max(m.sum[stored], f[stored])
	m.sum[cpu] += f[cpu] * seconds
	m.sum[memory] += f[memory] * seconds
	m.gauged += seconds
}

// over returns the figures of a step of which the node ran for so many seconds.
func (m *mean) over(ran float64) figures {
	f := m.sum
	ran = max(ran, m.seconds)
	for _, i := range rates {
		f[i] = ratio(f[i], ran)
	}
	f[readP50], f[writeP50] = ratio(f[readP50], m.reads), ratio(f[writeP50], m.writes)
	f[cpu], f[memory] = ratio(f[cpu], m.gauged), ratio(f[memory], m.gauged)
	return f
}

func ratio(a, b float64) float64 {
	if b <= 0 || math.IsNaN(a) {
		return 0
	}
	return a / b
}
