package vsphere

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

func newShares() *shares {
	return &shares{running: map[string]*share{}, next: map[string]*share{}}
}

// TestShared: who asks while something is under way is given the next one, once for all.
func TestShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all, slots, run, gate := newShares(), make(chan struct{}, 4), 0, make(chan struct{})
		do := func(ctx context.Context) (int, error) {
			run++
			n := run
			<-gate
			return n, nil
		}
		got := make(chan int, 9)
		ask := func() {
			n, err := shared(t.Context(), all, "host", slots, do)
			if err != nil {
				t.Error(err)
			}
			got <- n
		}
		go ask()
		synctest.Wait()
		for range 5 {
			go ask()
		}
		synctest.Wait()
		if run != 1 {
			t.Fatalf("%d began beside each other", run)
		}
		gate <- struct{}{}
		if n := <-got; n != 1 {
			t.Errorf("the first was given %d", n)
		}
		synctest.Wait()
		gate <- struct{}{}
		for range 5 {
			if n := <-got; n != 2 {
				t.Errorf("one that asked while the first was under way was given %d", n)
			}
		}
		synctest.Wait()
		if len(all.running)+len(all.next)+len(slots) != 0 {
			t.Errorf("left are %d, %d and %d", len(all.running), len(all.next), len(slots))
		}
	})
}

// TestSharedLeft: when the first who asked goes away, before it or in it, another one does it;
// an error is everybody's.
func TestSharedLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all, slots := newShares(), make(chan struct{}, 1)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		first := func() {
			_, err := shared(ctx, all, "host", slots, func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, ctx.Err() })
			if !errors.Is(err, context.Canceled) {
				t.Errorf("who went away was given %v", err)
			}
		}
		wg.Go(first)
		synctest.Wait()
		wg.Go(first) // it waits, and leads
		synctest.Wait()
		broken := errors.New("broken")
		for range 3 {
			wg.Go(func() {
				_, err := shared(t.Context(), all, "host", slots, func(context.Context) (int, error) { return 0, broken })
				if err != broken {
					t.Errorf("who stayed was given %v", err)
				}
			})
		}
		synctest.Wait()
		cancel()
		wg.Wait()
	})
}

// TestSharedBound: no more than the slots are under way.
func TestSharedBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all, slots, gate := newShares(), make(chan struct{}, 3), make(chan struct{})
		var now, most, sum atomic.Int32
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				_, err := shared(t.Context(), all, fmt.Sprint(i%20), slots, func(context.Context) (struct{}, error) {
					most.Store(max(most.Load(), now.Add(1)))
					sum.Add(1)
					<-gate
					now.Add(-1)
					return struct{}{}, nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if now.Load() != 3 {
			t.Errorf("%d are under way, not 3", now.Load())
		}
		close(gate)
		wg.Wait()
		// Two wanted each of 20: those that waited for a slot were joined.
		if most.Load() > 3 || sum.Load() < 20 || sum.Load() > 23 {
			t.Errorf("%d were under way, %d in all", most.Load(), sum.Load())
		}
	})
}
