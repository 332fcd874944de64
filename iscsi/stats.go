package iscsi

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// LatencyBuckets is the number of buckets of a Histogram: below 1 µs, powers of
// two up to 67 s, which is beyond every initiator's time-out, and the rest.
const LatencyBuckets = 28

// LatencyBound returns the upper bound of a bucket: 1 µs << i. The last bucket
// has none and returns -1.
func LatencyBound(i int) time.Duration {
	if i >= LatencyBuckets-1 {
		return -1
	}
	return time.Microsecond << i
}

// Histogram counts latencies: from the arrival of a command to its answer being
// handed to the network.
type Histogram struct {
	Buckets [LatencyBuckets]uint64 // Buckets[i]: from the bound of i-1 to below that of i
	Sum     time.Duration
}

// Count returns how many latencies were counted.
func (h *Histogram) Count() uint64 {
	n := uint64(0)
	for _, b := range h.Buckets {
		n += b
	}
	return n
}

// Quantile returns an upper bound of the q-quantile (0 < q <= 1), or 0 when
// nothing was counted. Beyond the last bound it returns that bound.
func (h *Histogram) Quantile(q float64) time.Duration {
	n := h.Count()
	if n == 0 {
		return 0
	}
	rank, seen := max(uint64(q*float64(n)+0.5), 1), uint64(0)
	for i, b := range h.Buckets {
		if seen += b; seen >= rank {
			return LatencyBound(min(i, LatencyBuckets-2))
		}
	}
	return LatencyBound(LatencyBuckets - 2)
}

// IOStats are totals of one class of commands. Errors counts those that ended
// with a status other than GOOD; their bytes are not counted.
type IOStats struct {
	Commands, Bytes, Errors uint64
	Latency                 Histogram
}

// LUNStats are the totals of a logical unit, over all sessions or of one.
type LUNStats struct {
	Number             uint16  // LUNSpec.Number
	Read, Write, Other IOStats // data-in of the medium, changes of it, everything else
	Depth              int     // commands not yet answered
	MaxDepth           int     // the most there were at once; over all sessions, the largest of one
	Waiting            int     // of Depth, held back by QoS or by fair sharing
	Delayed            uint64  // commands that were held back
	Full               uint64  // commands answered TASK SET FULL
	Aborted            uint64  // commands that ended unanswered
}

func (s *IOStats) add(o *IOStats) {
	s.Commands += o.Commands
	s.Bytes += o.Bytes
	s.Errors += o.Errors
	s.Latency.Sum += o.Latency.Sum
	for i, n := range o.Latency.Buckets {
		s.Latency.Buckets[i] += n
	}
}

func (s *LUNStats) add(o *LUNStats) {
	s.Read.add(&o.Read)
	s.Write.add(&o.Write)
	s.Other.add(&o.Other)
	s.Depth += o.Depth
	s.MaxDepth = max(s.MaxDepth, o.MaxDepth)
	s.Waiting += o.Waiting
	s.Delayed += o.Delayed
	s.Full += o.Full
	s.Aborted += o.Aborted
}

// ioCounters are IOStats while they grow.
type ioCounters struct {
	bytes, errors, nanos atomic.Uint64
	latency              [LatencyBuckets]atomic.Uint64
}

func (c *ioCounters) count(bytes int, failed bool, d time.Duration) {
	d = max(d, 0)
	if failed {
		c.errors.Add(1)
	} else if bytes > 0 {
		c.bytes.Add(uint64(bytes))
	}
	c.nanos.Add(uint64(d))
	c.latency[min(bits.Len64(uint64(d/time.Microsecond)), LatencyBuckets-1)].Add(1)
}

func (c *ioCounters) load() IOStats {
	s := IOStats{Bytes: c.bytes.Load(), Errors: c.errors.Load()}
	s.Latency.Sum = time.Duration(c.nanos.Load())
	for i := range c.latency {
		s.Latency.Buckets[i] = c.latency[i].Load()
	}
	s.Commands = s.Latency.Count()
	return s
}
