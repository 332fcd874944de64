package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/leaktest"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/backendtest"
	"github.com/openvstorage/ovgate/volumedriver/backend/faulty"
	"github.com/openvstorage/ovgate/volumedriver/backend/local"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func mem(t *testing.T) backend.Store {
	t.Helper()
	s, err := local.Open(blockfs.NewMem(), local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	backendtest.Run(t, backendtest.Options{New: func(t *testing.T) backend.Store { return New(mem(t), Options{}) }})
}

// stub is a store whose calls do what the test says. In a synctest bubble its sleeps,
// and the clock, are not real.
type stub struct {
	backend.Store
	calls  atomic.Int64
	closed atomic.Bool
	put    func(ctx context.Context, n int64) error
	read   func(ctx context.Context, n int64, p []byte) error
}

func (s *stub) Put(ctx context.Context, _ string, _ []byte) error {
	return s.put(ctx, s.calls.Add(1))
}

func (s *stub) ReadAt(ctx context.Context, _ string, p []byte, _ int64) error {
	return s.read(ctx, s.calls.Add(1), p)
}

func (s *stub) Close() error {
	s.closed.Store(true)
	return nil
}

// sleep waits as a store does.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func failing(err error) func(context.Context, int64) error {
	return func(context.Context, int64) error { return err }
}

// R4
func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &stub{put: failing(&Error{Op: "PUT", Status: 503, Kind: ErrThrottled, RetryAfter: 7 * time.Second})}
		in.read = func(context.Context, int64, []byte) error { return nil }
		s := New(in, Options{})
		defer func() { _ = s.Close() }()
		if err := s.Put(t.Context(), "o", nil); !errors.Is(err, ErrThrottled) {
			t.Fatal(err)
		}
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if err := s.ReadAt(ctx, "o", nil, 0); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 3*time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		if st := s.Stats(); st.Paused != 4*time.Second || st.Throttled != 1 {
			t.Errorf("%+v", st)
		}
		if err := s.ReadAt(t.Context(), "o", nil, 0); err != nil || time.Since(start) != 7*time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		// A store with other credentials is asked at once.
		_ = s.Put(t.Context(), "o", nil)
		start = time.Now()
		s.Replace(&stub{put: failing(nil)})
		if err := s.Put(t.Context(), "o", nil); err != nil || time.Since(start) != 0 {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		// A day is not waited for.
		s.Replace(&stub{put: failing(&Error{Status: 429, Kind: ErrThrottled, RetryAfter: 24 * time.Hour})})
		_ = s.Put(t.Context(), "o", nil)
		if st := s.Stats(); st.Paused != maxRetryAfter {
			t.Errorf("paused for %v", st.Paused)
		}
	})
}

// R5
func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &stub{put: failing(&Error{Op: "PUT", Kind: ErrUnreachable})}
		s := New(in, Options{Seed: 1})
		defer func() { _ = s.Close() }()
		for range openAfter + 10 {
			if err := s.Put(t.Context(), "o", nil); !errors.Is(err, ErrUnreachable) {
				t.Fatal(err)
			}
		}
		if n := in.calls.Load(); n != openAfter {
			t.Fatalf("%d requests", n)
		}
		err := s.Put(t.Context(), "o", nil)
		if st := s.Stats(); !errors.Is(err, ErrDown) || st.Breaker != BreakerOpen || st.BreakerOpened != 1 || st.LastError == "" || st.KeptBack != 11 {
			t.Errorf("%v, %+v", err, st)
		}
		// Ten minutes of many callers: one request at a time, ever more seldom.
		in.put = func(ctx context.Context, _ int64) error {
			if st := s.Stats(); st.Breaker != BreakerProbing {
				t.Errorf("breaker is %s", st.Breaker)
			}
			return errors.Join(sleep(ctx, 100*time.Millisecond), &Error{Status: 500})
		}
		before := in.calls.Load()
		for range 6000 {
			var wg sync.WaitGroup
			for range 2 {
				wg.Go(func() { _ = s.Put(t.Context(), "o", nil) })
			}
			time.Sleep(100 * time.Millisecond)
			wg.Wait()
		}
		if n := in.calls.Load() - before; n < 15 || n > 35 {
			t.Errorf("%d requests in ten minutes", n)
		}
		// It is back: the next probe finds that, and all go again.
		in.put = failing(nil)
		time.Sleep(2 * probeMax)
		for range 20 {
			if err := s.Put(t.Context(), "o", nil); err != nil {
				t.Fatal(err)
			}
		}
		if st := s.Stats(); st.Breaker != BreakerClosed || st.LastError != "" {
			t.Errorf("%+v", st)
		}
	})
}

// What opens the breaker, and what does not.
func TestBreakerOutcomes(t *testing.T) {
	for _, tc := range []struct {
		err  error
		open bool
	}{
		{&Error{Kind: ErrUnreachable}, true},
		{&Error{Status: 502}, true},
		{&Error{Err: context.DeadlineExceeded}, true},
		{&Error{Err: context.Canceled}, false},
		{&Error{Status: 503, Kind: ErrThrottled}, false},
		{&Error{Status: 403, Kind: ErrDenied}, false},
		{&Error{Status: 404, Kind: backend.ErrNotExist}, false},
		{&Error{Status: 507, Kind: backend.ErrFull}, false},
		{errors.New("something else"), false},
	} {
		s := New(&stub{put: failing(tc.err)}, Options{})
		for range openAfter + 1 {
			_ = s.Put(t.Context(), "o", nil)
		}
		err := s.Put(t.Context(), "o", nil)
		if errors.Is(err, ErrDown) != tc.open {
			t.Errorf("%v: then %v", tc.err, err)
		}
		if tc.open && errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v: another call's end is ours: %v", tc.err, err)
		}
		_ = s.Close()
	}
	// A failure now and then does not.
	s := New(&stub{put: func(_ context.Context, n int64) error {
		if n%openAfter == 0 {
			return nil
		}
		return &Error{Status: 500}
	}}, Options{})
	for range 10 * openAfter {
		if err := s.Put(t.Context(), "o", nil); errors.Is(err, ErrDown) {
			t.Fatal(err)
		}
	}
	_ = s.Close()
}

// train lets reads of 4 KiB take a millisecond until the store knows that.
func train(t *testing.T, in *stub, s *Store, reads int) {
	t.Helper()
	in.read = func(ctx context.Context, _ int64, _ []byte) error { return sleep(ctx, time.Millisecond) }
	for range reads {
		if err := s.ReadAt(t.Context(), "o", make([]byte, 4096), 0); err != nil {
			t.Fatal(err)
		}
	}
}

// R1, R3: the answer to the second request counts when the first is late, and what the
// first still writes does not.
func TestHedge(t *testing.T) {
	good := bytes.Repeat([]byte("g"), 4096)
	boom := &Error{Status: 500}
	for _, tc := range []struct {
		name          string
		first, second func(ctx context.Context, p []byte) error
		want          error
		took          time.Duration
		asked         int64
		win           uint64
	}{
		{"second", func(ctx context.Context, p []byte) error {
			<-ctx.Done()
			copy(p, bytes.Repeat([]byte("b"), len(p)))
			return ctx.Err()
		}, func(_ context.Context, p []byte) error { copy(p, good); return nil }, nil, hedgeFloor, 2, 1},
		{"first", func(ctx context.Context, p []byte) error {
			err := sleep(ctx, hedgeFloor+5*time.Millisecond)
			copy(p, good)
			return err
		}, func(ctx context.Context, p []byte) error { <-ctx.Done(); return ctx.Err() }, nil, hedgeFloor + 5*time.Millisecond, 2, 0},
		{"not late", func(ctx context.Context, p []byte) error { copy(p, good); return sleep(ctx, hedgeFloor-1) }, nil, nil, hedgeFloor - 1, 1, 0},
		{"second fails", func(ctx context.Context, p []byte) error { copy(p, good); return sleep(ctx, 2*hedgeFloor) },
			func(context.Context, []byte) error { return boom }, nil, 2 * hedgeFloor, 2, 0},
		{"first fails late", func(ctx context.Context, _ []byte) error { _ = sleep(ctx, 2*hedgeFloor); return boom },
			func(ctx context.Context, p []byte) error { copy(p, good); return sleep(ctx, 3*hedgeFloor) }, nil, 4 * hedgeFloor, 2, 1},
		{"both fail", func(ctx context.Context, _ []byte) error { _ = sleep(ctx, 2*hedgeFloor); return boom },
			func(context.Context, []byte) error { return ErrUnreachable }, boom, 2 * hedgeFloor, 2, 0},
		{"it does not exist", func(ctx context.Context, _ []byte) error { _ = sleep(ctx, 2*hedgeFloor); return backend.ErrNotExist },
			func(ctx context.Context, _ []byte) error { <-ctx.Done(); return ctx.Err() }, backend.ErrNotExist, 2 * hedgeFloor, 2, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in := &stub{}
				s := New(in, Options{})
				train(t, in, s, 64)
				before := in.calls.Load()
				in.read = func(ctx context.Context, n int64, p []byte) error {
					if n == before+1 {
						return tc.first(ctx, p)
					}
					return tc.second(ctx, p)
				}
				start, p := time.Now(), make([]byte, 4096)
				err := s.ReadAt(t.Context(), "o", p, 0)
				if !errors.Is(err, tc.want) || err == nil && !bytes.Equal(p, good) {
					t.Errorf("error %v, want %v; bytes %.8q", err, tc.want, p)
				}
				if took := time.Since(start); took != tc.took {
					t.Errorf("took %v, want %v", took, tc.took)
				}
				synctest.Wait()
				if n := in.calls.Load() - before; n != tc.asked {
					t.Errorf("%d requests, want %d", n, tc.asked)
				}
				if st := s.Stats(); st.HedgeWins != tc.win || st.Hedges != uint64(tc.asked-1) || st.Reads.Running != 0 {
					t.Errorf("%+v", st)
				}
				_ = s.Close()
			})
		})
	}
}

// R2
func TestHedgeBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &stub{}
		s := New(in, Options{})
		defer func() { _ = s.Close() }()
		train(t, in, s, 64)
		const late = 2000
		in.read = func(ctx context.Context, n int64, _ []byte) error {
			if n%20 == 0 { // within the 95th percentile
				return sleep(ctx, time.Millisecond)
			}
			return sleep(ctx, time.Second)
		}
		for range late {
			_ = s.ReadAt(t.Context(), "o", make([]byte, 4096), 0)
		}
		if st := s.Stats(); st.Hedges == 0 || st.Hedges > (late+64)/20 {
			t.Errorf("%d second requests", st.Hedges)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		in := &stub{}
		s := New(in, Options{NoHedge: true})
		defer func() { _ = s.Close() }()
		train(t, in, s, 64)
		in.read = func(ctx context.Context, _ int64, _ []byte) error { return sleep(ctx, time.Second) }
		if err := s.ReadAt(t.Context(), "o", make([]byte, 4096), 0); err != nil || s.Stats().Hedges != 0 {
			t.Errorf("%v, %+v", err, s.Stats())
		}
	})
}

func TestBandwidth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &stub{put: failing(nil), read: func(context.Context, int64, []byte) error { return nil }}
		s := New(in, Options{Upload: 1000, Download: 500})
		defer func() { _ = s.Close() }()
		for name, f := range map[string]func() error{
			"upload":   func() error { return s.Put(t.Context(), "o", make([]byte, 1000)) },
			"download": func() error { return s.ReadAt(t.Context(), "o", make([]byte, 500), 0) },
		} {
			start := time.Now()
			for range 11 {
				if err := f(); err != nil {
					t.Fatal(err)
				}
			}
			// The first needs no waiting; the last is not waited for.
			if d := time.Since(start); d < 9*time.Second || d > 10*time.Second+time.Millisecond {
				t.Errorf("%s: 11 seconds' bytes took %v", name, d)
			}
		}
		// A new limit is for those that wait, too.
		s.SetLimits(Options{Upload: 1})
		_ = s.Put(t.Context(), "o", make([]byte, 1000))
		start, done := time.Now(), make(chan error, 1)
		go func() { done <- s.Put(t.Context(), "o", []byte("x")) }()
		synctest.Wait()
		s.SetLimits(Options{})
		if err := <-done; err != nil || time.Since(start) != 0 {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		if st := s.Stats(); st.Upload != 0 || st.Download != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// R6
func TestReplace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		old := &stub{put: func(context.Context, int64) error { <-release; return nil }}
		s := New(old, Options{})
		done := make(chan error, 1)
		go func() { done <- s.Put(t.Context(), "o", nil) }()
		synctest.Wait()
		next := &stub{put: failing(nil)}
		s.Replace(next)
		if err := s.Put(t.Context(), "o", nil); err != nil || next.calls.Load() != 1 || old.closed.Load() {
			t.Errorf("%v, %d calls, old closed %v", err, next.calls.Load(), old.closed.Load())
		}
		close(release)
		if err := <-done; err != nil || !old.closed.Load() {
			t.Errorf("%v, old closed %v", err, old.closed.Load())
		}
		idle := &stub{put: failing(nil)}
		s.Replace(idle)
		if !next.closed.Load() {
			t.Error("the idle one was not closed")
		}
		if err := s.Close(); err != nil || !idle.closed.Load() {
			t.Errorf("%v, closed %v", err, idle.closed.Load())
		}
		after := &stub{}
		s.Replace(after)
		if !after.closed.Load() {
			t.Error("what came after Close was not closed")
		}
	})
}

func TestStats(t *testing.T) {
	s := New(mem(t), Options{})
	ctx := t.Context()
	_ = s.Put(ctx, "o", make([]byte, 100))
	_ = s.PutIfAbsent(ctx, "o", nil)
	_, _ = s.Get(ctx, "o", 100)
	_, _ = s.Get(ctx, "o", 1) // ErrCorrupt
	_, _ = s.Get(ctx, "absent", 1)
	_ = s.ReadAt(ctx, "o", make([]byte, 30), 10)
	_, _ = s.Stat(ctx, "o")
	_, _ = s.List(ctx, "", "", 1)
	_ = s.Delete(ctx, "o")
	_ = s.Put(ctx, "not//valid", nil)
	var got []string
	for _, k := range s.Stats().Kinds {
		var n uint64
		for _, c := range k.Latency {
			n += c
		}
		if n != k.Requests || len(k.Latency) != len(LatencyBuckets())+1 {
			t.Errorf("%s: %d in the histogram of %d", k.Kind, n, k.Requests)
		}
		got = append(got, fmt.Sprintf("%s %d %d %d", k.Kind, k.Requests, k.Errors, k.Bytes))
	}
	want := "put 1 0 100|put-if-absent 1 0 0|get 3 1 100|read 1 0 30|stat 1 0 0|list 1 0 0|delete 1 0 0"
	if s := strings.Join(got, "|"); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// Everything at once, for the race detector; what was put is there.
func TestConcurrent(t *testing.T) {
	below := mem(t)
	wrap := func(seed uint64) backend.Store {
		f := faulty.New(noClose{below}, faulty.Options{
			Chances: map[faulty.Kind]float64{faulty.Refuse: 0.1, faulty.Slow: 0.2},
			Rand:    rand.New(rand.NewPCG(seed, 1)), Clock: clock.Real{}, Delay: time.Millisecond, Hang: time.Millisecond,
		})
		f.On()
		return f
	}
	s := New(wrap(1), Options{MinConcurrency: 2, MaxConcurrency: 8, Upload: 1 << 30})
	var wg sync.WaitGroup
	for w := range 12 {
		wg.Go(func() {
			name, data, there := fmt.Sprint("w/", w), backendtest.Data(uint64(w), 3000), false
			for i := range 60 {
				if !there {
					there = s.Put(t.Context(), name, data) == nil
					continue
				}
				p := make([]byte, 1000)
				if err := s.ReadAt(t.Context(), name, p, int64(i)); err == nil && !bytes.Equal(p, data[i:i+1000]) {
					t.Errorf("%s: wrong bytes", name)
				}
				s.Stats()
			}
		})
	}
	for i := range 20 {
		s.Replace(wrap(uint64(i)))
		s.SetLimits(Options{Upload: int64(i%2) << 30})
	}
	wg.Wait()
	if st := s.Stats(); st.Reads.Running+st.Writes.Running+st.Reads.Waiting+st.Writes.Waiting != 0 {
		t.Errorf("%+v", st)
	}
	if err := errors.Join(s.Close(), below.Close()); err != nil {
		t.Error(err)
	}
}

type noClose struct{ backend.Store }

func (noClose) Close() error { return nil }

func TestRetryAfterHeader(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for v, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-1": 0, "999999": maxRetryAfter, "9999999999999999999": 0, "soon": 0,
		"Fri, 02 Jan 2026 03:04:15 GMT": 10 * time.Second, "Fri, 02 Jan 2026 03:00:00 GMT": 0,
	} {
		h := http.Header{}
		h.Set("Retry-After", v)
		if got := RetryAfter(h, now); got != want {
			t.Errorf("%q: %v, want %v", v, got, want)
		}
	}
}
