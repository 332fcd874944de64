// Package bench measures for administrators what a disk, a network and a vDisk give, and says
// what that is good for: ovgate bench. It is no part of what a node does.
//
// Figures are of the moment, and of what else the machine does in it. Loads write what they
// read, to a file without a name, a connection, or a vDisk that is made for it.
package bench

import (
	"context"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Verdict is what a figure is good for.
type Verdict string

// Verdicts.
const (
	Good Verdict = "good"
	Fair Verdict = "fair" // it works, and is what limits
	Poor Verdict = "poor" // not for this
)

// Figure is one thing that was measured.
type Figure struct {
	Name    string        `json:"name"`
	Rate    float64       `json:"perSecond"`      // operations
	Bytes   float64       `json:"bytesPerSecond"` // moved
	P50     time.Duration `json:"p50Ns"`          // of an operation
	P99     time.Duration `json:"p99Ns"`
	Verdict Verdict       `json:"verdict"`
	Says    string        `json:"says"` // what that means
}

// keptTimes bounds the times of operations that are kept for the percentiles.
const keptTimes = 1 << 20

// load runs do by a number of workers at once for a while, and counts. do is told which worker
// and which of its operations it is, and moves size bytes. The first error ends it.
func load(ctx context.Context, workers int, each time.Duration, size int, do func(ctx context.Context, worker, n int) error) (Figure, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var count atomic.Int64
	times := make([][]time.Duration, workers)
	begin := time.Now()
	end := begin.Add(each)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil && time.Now().Before(end); n++ {
				start := time.Now()
				if err := do(ctx, w, n); err != nil {
					cancel(err)
					return
				}
				count.Add(1)
				if len(times[w]) < keptTimes/workers {
					times[w] = append(times[w], time.Since(start))
				}
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return Figure{}, err
	}
	all := slices.Concat(times...)
	slices.Sort(all)
	f := Figure{Rate: float64(count.Load()) / time.Since(begin).Seconds(), P50: percentile(all, 0.5), P99: percentile(all, 0.99)}
	f.Bytes = f.Rate * float64(size)
	return f, nil
}

// percentile of sorted times; 0 of none.
func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(math.Ceil(p*float64(len(sorted))))-1)]
}

// least judges a value that is better the larger it is.
func least[T int | float64](v, good, fair T) Verdict {
	switch {
	case v >= good:
		return Good
	case v >= fair:
		return Fair
	}
	return Poor
}

// most judges a time.
func most(v, good, fair time.Duration) Verdict {
	switch {
	case v <= good:
		return Good
	case v <= fair:
		return Fair
	}
	return Poor
}

// say gives a figure its name, its verdict and what that means.
func (f Figure) say(name string, v Verdict, means map[Verdict]string) Figure {
	f.Name, f.Verdict, f.Says = name, v, means[v]
	return f
}
