package maintenance

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/openvstorage/ovgate/internal/clock"
)

func testCrew(t *testing.T) *crew {
	return (&Agent{o: Options{Clock: clock.Real{}, Rate: 1 << 40}}).newCrew(t.Context())
}

// TestCrew: so many work side by side, what is large alone, and what was moved is counted.
func TestCrew(t *testing.T) {
	c := testCrew(t)
	var now, most atomic.Int64
	full := make(chan struct{})
	for i := range 100 {
		size, alone := int64(1), i%10 == 9
		if alone {
			size = repairLarge + 1
		}
		err := c.do(size, func(context.Context) (int64, error) {
			n := now.Add(1)
			if most.Store(max(most.Load(), n)); n == repairers {
				select {
				case <-full:
				default:
					close(full)
				}
			}
			if alone && n != 1 {
				t.Errorf("%d work beside a large object", n-1)
			}
			if !alone && i < repairers {
				<-full // each waits for the others
			}
			now.Add(-1)
			return 10, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if moved, err := c.wait(); moved != 1000 || err != nil || most.Load() > repairers {
		t.Errorf("%d bytes moved, %d at a time, %v", moved, most.Load(), err)
	}
}

// TestCrewFails: an error ends the work of all, and is what is told.
func TestCrewFails(t *testing.T) {
	c := testCrew(t)
	bad := errors.New("bad")
	var err error
	for i := 0; err == nil; i++ {
		err = c.do(1, func(ctx context.Context) (int64, error) {
			if i == 7 {
				return 0, bad
			}
			if i > 7 {
				<-ctx.Done()
				return 0, ctx.Err()
			}
			return 1, nil
		})
	}
	if _, werr := c.wait(); !errors.Is(err, bad) || !errors.Is(werr, bad) {
		t.Errorf("%v, %v", err, werr)
	}
	ctx, cancel := context.WithCancel(t.Context())
	c = (&Agent{o: Options{Clock: clock.Real{}, Rate: 1}}).newCrew(ctx)
	if err := c.do(1, func(context.Context) (int64, error) { return 1 << 40, nil }); err != nil {
		t.Fatal(err)
	}
	cancel() // while it keeps the rate
	if _, err := c.wait(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
