package maintenance

import (
	"context"
	"log/slog"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
)

// TestRest: a round that did something rests as long as it took, another ten times as long.
func TestRest(t *testing.T) {
	k := clock.NewManual(time.Unix(1e9, 0))
	a := &Agent{o: Options{Clock: k, Leads: func() bool { return true }}, log: slog.New(slog.DiscardHandler)}
	var did atomic.Bool
	rounds := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	a.every(ctx, "test", always(time.Second), restShare, nil, func(context.Context) (bool, error) {
		k.Advance(10 * time.Second) // which it takes
		rounds <- struct{}{}
		return did.Load(), nil
	})
	after := func(d time.Duration) {
		t.Helper()
		for k.Waiting() == 0 {
			runtime.Gosched()
		}
		if k.Advance(d - time.Millisecond); k.Waiting() == 0 {
			t.Errorf("a round before %s were over", d)
		}
		k.Advance(time.Millisecond)
		<-rounds
	}
	after(time.Second)
	after(100 * time.Second)
	did.Store(true)
	after(100 * time.Second) // the one before did nothing
	after(10 * time.Second)
	after(10 * time.Second)
	cancel()
	a.wg.Wait()
}
