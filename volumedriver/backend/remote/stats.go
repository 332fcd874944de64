package remote

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/volumedriver/backend"
)

// Kind of a request.
type Kind int

// The kinds, in the order of Stats.Kinds.
const (
	Put Kind = iota
	PutIfAbsent
	Get
	Read
	Stat
	List
	Delete
	kinds
)

// String returns the word that metrics use.
func (k Kind) String() string {
	return [kinds]string{"put", "put-if-absent", "get", "read", "stat", "list", "delete"}[k]
}

// right is what a user of the store needs for a request.
type right int

const (
	toWrite right = iota
	toRead
	toList
	toDelete
	rights
)

func (r right) String() string { return [rights]string{"write", "read", "list", "delete"}[r] }

func (k Kind) right() right {
	return [kinds]right{toWrite, toWrite, toRead, toRead, toRead, toList, toDelete}[k]
}

// Denial is what the store refused to its user at the newest request of that sort.
type Denial struct {
	Right string // write, read, list or delete
	Error string
}

// latencyBuckets are the upper bounds of the histograms.
var latencyBuckets = [...]time.Duration{
	time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond,
	10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second,
}

// LatencyBuckets returns the upper bounds of KindStats.Latency.
func LatencyBuckets() []time.Duration { return append([]time.Duration(nil), latencyBuckets[:]...) }

// KindStats count the requests of a kind that went to the store.
type KindStats struct {
	Kind     string
	Requests uint64
	// Errors without what a caller may expect: that an object is absent, or exists, or
	// ends, or that the caller itself gave up.
	Errors uint64
	Bytes  uint64 // moved by requests that succeeded
	// Latency counts requests per bucket of LatencyBuckets, with one more for those
	// that took longer; LatencySum is of all.
	Latency    []uint64
	LatencySum time.Duration
}

// Stats is a snapshot.
type Stats struct {
	Kinds         []KindStats
	Reads, Writes LimitStats
	// Hedges are second requests for late reads, HedgeWins those whose answer counted.
	Hedges, HedgeWins uint64
	Throttled         uint64 // requests that the store refused for being one too many
	KeptBack          uint64 // requests that were not made while it was down
	Breaker           string // BreakerClosed, BreakerOpen or BreakerProbing
	BreakerOpened     uint64 // how often
	LastError         string // why it is open; else empty
	Denied            []Denial
	Paused            time.Duration
	Upload, Download  int64 // limits in bytes per second; 0: none
}

// counters are the sums that Stats shows.
type counters struct {
	mu        sync.Mutex
	kinds     [kinds]kindCount
	denied    [rights]error
	throttled uint64
	kept      uint64
}

type kindCount struct {
	requests, errors, bytes uint64
	latency                 [len(latencyBuckets) + 1]uint64
	sum                     time.Duration
}

func (c *counters) add(k Kind, n int64, d time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	of := &c.kinds[k]
	of.requests++
	of.bytes += uint64(n)
	of.sum += d
	i := 0
	for i < len(latencyBuckets) && d > latencyBuckets[i] {
		i++
	}
	of.latency[i]++
	if err != nil && !expected(err) {
		of.errors++
	}
	switch {
	case errors.Is(err, ErrDenied):
		c.denied[k.right()] = err
	case judge(err) == answered:
		c.denied[k.right()] = nil
	}
	if errors.Is(err, ErrThrottled) {
		c.throttled++
	}
}

func expected(err error) bool {
	for _, is := range []error{backend.ErrNotExist, backend.ErrExists, backend.ErrRange, context.Canceled} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}

// permit forgets what was refused to another user.
func (c *counters) permit() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.denied = [rights]error{}
}

func (c *counters) keptBack() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept++
}

// Stats returns what was counted since New, and how things stand.
func (s *Store) Stats() Stats {
	st := Stats{Reads: s.reads.stats(), Writes: s.writes.stats(), Upload: s.up.get(), Download: s.down.get()}
	st.Breaker, st.BreakerOpened, st.LastError = s.breaker.state()
	st.Paused, _ = s.pauses.left(s.clock.Now())
	s.hedges.mu.Lock()
	st.Hedges, st.HedgeWins = s.hedges.made, s.hedges.won
	s.hedges.mu.Unlock()
	s.counts.mu.Lock()
	defer s.counts.mu.Unlock()
	st.Throttled, st.KeptBack = s.counts.throttled, s.counts.kept
	for r, err := range s.counts.denied {
		if err != nil {
			st.Denied = append(st.Denied, Denial{right(r).String(), err.Error()})
		}
	}
	for k, of := range s.counts.kinds {
		st.Kinds = append(st.Kinds, KindStats{
			Kind: Kind(k).String(), Requests: of.requests, Errors: of.errors, Bytes: of.bytes,
			Latency: append([]uint64(nil), of.latency[:]...), LatencySum: of.sum,
		})
	}
	return st
}
