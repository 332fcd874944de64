package remote

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/volumedriver/backend"
)

// When a read is late.
const (
	// hedgeFloor: what is sooner than this is not worth a second request.
	hedgeFloor = 20 * time.Millisecond
	// hedgeShare is how many second requests there are for a request (R2), hedgeSaved
	// how many may be saved up in quiet times.
	hedgeShare = 0.05
	hedgeSaved = 10
	// recentReads are remembered per size class; fewer than fewReads say nothing.
	recentReads, fewReads = 128, 20
	// sortEvery is after how many reads the 95th percentile is looked up again.
	sortEvery = 16
)

// hedges decides on second requests.
type hedges struct {
	mu      sync.Mutex
	credit  float64
	classes [sizeClasses]recent
	made    uint64
	won     uint64
}

// recent are the latest reads of a size class.
type recent struct {
	all [recentReads]time.Duration
	n   int // ever
	p95 time.Duration
}

// late returns after what time a read of n bytes is late; false: there is no telling,
// or no second request to spend. It counts the read.
func (h *hedges) late(n int64) (time.Duration, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.credit = min(h.credit+hedgeShare, hedgeSaved)
	c := &h.classes[sizeClass(n)]
	return max(c.p95, hedgeFloor), c.p95 > 0 && h.credit >= 1
}

// spend takes one second request.
func (h *hedges) spend() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.credit < 1 {
		return false
	}
	h.credit--
	h.made++
	return true
}

func (h *hedges) win() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.won++
}

// took adds the latency of a read.
func (h *hedges) took(n int64, d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := &h.classes[sizeClass(n)]
	c.all[c.n%recentReads] = d
	if c.n++; c.n >= fewReads && c.n%sortEvery == 0 {
		sorted := slices.Clone(c.all[:min(c.n, recentReads)])
		slices.Sort(sorted)
		c.p95 = sorted[len(sorted)*95/100]
	}
}

// ReadAt implements backend.Store. When the answer is late, the same is asked again,
// and the first good answer counts.
func (s *Store) ReadAt(ctx context.Context, name string, p []byte, off int64) error {
	if err := backend.ValidName(name); err != nil {
		return err
	}
	after, hedge := s.hedges.late(int64(len(p)))
	if !hedge || s.noHedge {
		return s.run(ctx, s.read(name, p, off, nil))
	}
	return s.readTwice(ctx, name, p, off, after)
}

// read is the request of a ReadAt; begun, if not nil, is closed when it goes out.
func (s *Store) read(name string, p []byte, off int64, begun chan<- struct{}) request {
	n := int64(len(p))
	return request{kind: Read, name: name, known: n, do: func(ctx context.Context, in backend.Store) (int64, error) {
		if begun != nil {
			close(begun)
		}
		start := s.clock.Now()
		if err := in.ReadAt(ctx, name, p, off); err != nil {
			return 0, err
		}
		s.hedges.took(n, s.clock.Now().Sub(start))
		return n, nil
	}}
}

// readTwice is a ReadAt that asks again after a time. The first request fills p; it has
// ended when this returns (R3). The second has a buffer of its own.
func (s *Store) readTwice(ctx context.Context, name string, p []byte, off int64, after time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	begun, first := make(chan struct{}), make(chan error, 1)
	go func() { first <- s.run(ctx, s.read(name, p, off, begun)) }()
	select {
	case err := <-first:
		return err
	case <-begun:
	}
	t := s.clock.NewTimer(after)
	defer t.Stop()
	select {
	case err := <-first:
		return err
	case <-t.C():
	}
	if !s.mayHedge() {
		return <-first
	}
	buf := make([]byte, len(p))
	second := make(chan error, 1)
	go func() { second <- s.turn(ctx, s.reads, s.read(name, buf, off, nil)) }()
	select {
	case err := <-first:
		if err == nil || Final(err) || expected(err) || <-second != nil {
			return err
		}
	case err := <-second:
		if err != nil {
			return <-first
		}
		cancel()
		if <-first == nil {
			return nil // both came
		}
	}
	copy(p, buf)
	s.hedges.win()
	return nil
}

// mayHedge takes a turn for a second request, if one is free (R2).
func (s *Store) mayHedge() bool {
	now := s.clock.Now()
	if left, _ := s.pauses.left(now); left > 0 {
		return false
	}
	if state, _, _ := s.breaker.state(); state != BreakerClosed {
		return false
	}
	if !s.reads.try() {
		return false
	}
	if !s.hedges.spend() {
		s.reads.release(now, now, 0, nothing)
		return false
	}
	return true
}
