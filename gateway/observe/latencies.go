package observe

import (
	"encoding/binary"
	"errors"
	"math"

	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// LatencyBuckets is how many buckets latencies are counted in: bucket i has commands that took 2^i to
// 2^(i+1) us, the first one shorter ones too, the last one longer ones.
const LatencyBuckets = len(volume.Stats{}.ReadLatency)

// Latencies is how many commands a second took how long, by bucket.
type Latencies struct {
	Reads, Writes [LatencyBuckets]float64
}

// Add adds what was so for some seconds: the sum is commands, not a rate.
func (l *Latencies) Add(o *Latencies, seconds float64) {
	for i := range l.Reads {
		l.Reads[i] += o.Reads[i] * seconds
		l.Writes[i] += o.Writes[i] * seconds
	}
}

// Over makes rates of sums of so many seconds; with none of them it is empty.
func (l *Latencies) Over(seconds float64) {
	if seconds <= 0 {
		*l = Latencies{}
		return
	}
	for i := range l.Reads {
		l.Reads[i] /= seconds
		l.Writes[i] /= seconds
	}
}

// PackedLatencies is Latencies in few bytes: for reads and for writes, the number of buckets from the first
// that has commands to the last, that first one, and an uvarint for each. It is empty when there was no
// command, and when none were counted.
type PackedLatencies string

// ErrLatencies: bytes are no packed latencies.
var ErrLatencies = errors.New("no latencies")

// mostPacked is the largest packed number; above it a float64 does not count in ones.
const mostPacked = 1 << 53

// Pack rounds to one part in scale of a command a second. What is there is never rounded to nothing.
func (l *Latencies) Pack(scale float64) PackedLatencies {
	if *l == (Latencies{}) {
		return ""
	}
	b := make([]byte, 0, 64)
	for _, h := range [...]*[LatencyBuckets]float64{&l.Reads, &l.Writes} {
		first, last := 0, LatencyBuckets-1
		for first <= last && !(h[first] > 0) {
			first++
		}
		for last >= first && !(h[last] > 0) {
			last--
		}
		b = append(b, byte(last-first+1))
		if last < first {
			continue
		}
		b = append(b, byte(first))
		for _, v := range h[first : last+1] {
			n := uint64(0)
			if v > 0 { // not NaN
				n = uint64(max(1, math.Round(min(v*scale, mostPacked))))
			}
			b = binary.AppendUvarint(b, n)
		}
	}
	return PackedLatencies(b)
}

// Unpack is the inverse of Pack.
func (p PackedLatencies) Unpack(scale float64) (Latencies, error) {
	l, rest, err := CutLatencies([]byte(p), scale)
	if err == nil && len(rest) > 0 {
		err = ErrLatencies
	}
	return l, err
}

// CutLatencies unpacks the latencies that b begins with, and returns what is behind them.
func CutLatencies(b []byte, scale float64) (l Latencies, rest []byte, err error) {
	if len(b) == 0 {
		return l, nil, nil
	}
	for _, h := range [...]*[LatencyBuckets]float64{&l.Reads, &l.Writes} {
		if len(b) == 0 {
			return Latencies{}, nil, ErrLatencies
		}
		n := int(b[0])
		if b = b[1:]; n == 0 {
			continue
		}
		if len(b) == 0 || int(b[0])+n > LatencyBuckets {
			return Latencies{}, nil, ErrLatencies
		}
		first := int(b[0])
		b = b[1:]
		for i := range n {
			v, size := binary.Uvarint(b)
			if size <= 0 || v > mostPacked {
				return Latencies{}, nil, ErrLatencies
			}
			h[first+i], b = float64(v)/scale, b[size:]
		}
	}
	return l, b, nil
}
