package remote

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

var zero = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// round runs as many requests as are allowed at a time, of one latency.
func round(l *limiter, now *time.Time, d time.Duration, v verdict) {
	start, n := *now, 0
	for l.try() {
		n++
	}
	*now = now.Add(d)
	for range n {
		l.release(start, *now, 4096, v)
	}
}

// The bound follows the store: up while it keeps pace, down when it does not, between
// the two ends.
func TestLimiterFollows(t *testing.T) {
	l, now := newLimiter(4, 64), zero
	if got := l.stats().Limit; got != startLimit {
		t.Fatalf("starts at %d", got)
	}
	rounds := func(n int, d time.Duration, v verdict) int {
		for range n {
			round(l, &now, d, v)
		}
		return l.stats().Limit
	}
	if got := rounds(10, 10*time.Millisecond, fine); got <= startLimit || got > startLimit+10 {
		t.Errorf("after 10 good rounds %d", got)
	}
	if got := rounds(100, 10*time.Millisecond, fine); got != 64 {
		t.Errorf("after 110 good rounds %d", got)
	}
	if got := rounds(1, 10*time.Millisecond, refusal); got != 32 {
		t.Errorf("after a round of refusals %d: they are one", got)
	}
	if got := rounds(50, 10*time.Millisecond, nothing); got != 32 {
		t.Errorf("after other failures %d", got)
	}
	slow := rounds(10, 100*time.Millisecond, fine)
	if slow >= 32 {
		t.Errorf("after slow rounds %d", slow)
	}
	if got := rounds(10, time.Second, refusal); got != 4 {
		t.Errorf("after many refusals %d", got)
	}
	// A store that has become slower for good is not held against what it was.
	if got := rounds(int(4*forget/(100*time.Millisecond)), 100*time.Millisecond, fine); got != 64 {
		t.Errorf("after minutes of the new latency %d", got)
	}
}

// A request that does not use the bound does not raise it.
func TestLimiterIdle(t *testing.T) {
	l, now := newLimiter(1, 64), zero
	for range 1000 {
		if !l.try() {
			t.Fatal("no turn")
		}
		l.release(now, now.Add(time.Millisecond), 0, fine)
		now = now.Add(time.Second)
	}
	if got := l.stats().Limit; got != startLimit {
		t.Errorf("%d", got)
	}
}

// First come, first served, and who gives up is passed over.
func TestLimiterOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(1, 1)
		if err := l.acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
		order := make(chan string, 5)
		for i := range 5 {
			ctx, cancel := context.WithCancel(t.Context())
			if i == 2 {
				defer cancel()
				go func() { time.Sleep(time.Second); cancel() }()
			} else {
				defer cancel()
			}
			go func() {
				if err := l.acquire(ctx); err != nil {
					order <- fmt.Sprint(i, errors.Is(err, context.Canceled))
					return
				}
				order <- fmt.Sprint(i)
				l.release(time.Time{}, time.Time{}, 0, nothing)
			}()
			synctest.Wait()
		}
		if l.try() {
			t.Error("a turn out of turn")
		}
		time.Sleep(2 * time.Second)
		l.release(time.Time{}, time.Time{}, 0, nothing)
		synctest.Wait()
		for _, want := range []string{"2 true", "0", "1", "3", "4"} {
			if got := <-order; got != want {
				t.Errorf("%s before %s", got, want)
			}
		}
		if st := l.stats(); st.Running != 0 || st.Waiting != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// A limit that is raised lets in those that wait; a lower one counts for later requests.
func TestLimiterSet(t *testing.T) {
	l := newLimiter(1, 1)
	if err := l.acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	let := make(chan error)
	go func() { let <- l.acquire(t.Context()) }()
	for l.stats().Waiting == 0 {
		runtime.Gosched()
	}
	l.set(2, 2)
	if err := <-let; err != nil {
		t.Fatal(err)
	}
	if s := l.stats(); s != (LimitStats{Limit: 2, Running: 2}) {
		t.Errorf("raised: %+v", s)
	}
	l.set(1, 1)
	if l.try() {
		t.Error("a third request beside two, of which one is too many")
	}
	// A store that may have fewer connections than the usual least has no more.
	o := Options{MaxConcurrency: 2}
	if o.fill(); o.MinConcurrency != 2 || o.MaxConcurrency != 2 {
		t.Errorf("two connections: %+v", o)
	}
}
