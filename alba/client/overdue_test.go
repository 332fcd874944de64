package client

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
)

// timers counts those that are made.
type timers struct {
	*clock.Manual
	made atomic.Int64
}

func (c *timers) NewTimer(d time.Duration) clock.Timer {
	c.made.Add(1)
	return c.Manual.NewTimer(d)
}

// Of reads that end in time none sets a timer but the first; one that does not is found,
// once, and so are those after it.
func TestOverdue(t *testing.T) {
	clk := &timers{Manual: clock.NewManual(time.Unix(0, 0))}
	o := newOverdue(clk)
	for range 1000 {
		if !o.after(time.Second, func() { t.Error("called for a read that ended") }).ended() {
			t.Fatal("a read at its beginning is overdue")
		}
	}
	if n := clk.made.Load(); n != 1 {
		t.Errorf("%d timers for reads that ended at once, want 1", n)
	}
	late := make(chan int, 3)
	read := func(d time.Duration, n int) *dueRead { return o.after(d, func() { late <- n }) }
	first, third := read(2*time.Second, 1), read(5*time.Second, 3)
	second := read(500*time.Millisecond, 2) // before what the timer is set for
	for i, want := range []int{2, 1, 3} {
		clk.Advance([]time.Duration{500 * time.Millisecond, 1500 * time.Millisecond, 3 * time.Second}[i])
		if got := <-late; got != want {
			t.Errorf("read %d is late, want %d", got, want)
		}
		o.mu.Lock() // the timer is set for the next
		if more := o.stop != nil; more != (i < 2) {
			t.Errorf("after read %d a timer is set: %v", want, more)
		}
		o.mu.Unlock()
	}
	for _, r := range []*dueRead{first, second, third} {
		if r.ended() {
			t.Error("a late read ended in time")
		}
	}
	waiting := read(time.Second, 4)
	o.close()
	clk.Advance(time.Hour)
	if !waiting.ended() || !read(time.Second, 5).ended() {
		t.Error("a read is late although nobody looks any more")
	}
	if clk.Waiting() != 0 {
		t.Errorf("%d timers are left", clk.Waiting())
	}
}

// Many reads at once, that end and are late as they happen to: each is one of the two.
func TestOverdueConcurrent(t *testing.T) {
	o := newOverdue(clock.Real{})
	defer o.close()
	var late, ended atomic.Int64
	var calls, reads sync.WaitGroup
	const readers, each = 8, 200
	for i := range readers {
		reads.Go(func() {
			for j := range each {
				calls.Add(1)
				r := o.after(time.Duration(j%5)*50*time.Microsecond, func() { late.Add(1); calls.Done() })
				if (i+j)%3 == 0 {
					for range 50 {
						runtime.Gosched()
					}
				}
				if r.ended() {
					ended.Add(1)
					calls.Done()
				}
			}
		})
	}
	reads.Wait()
	calls.Wait()
	if late.Load()+ended.Load() != readers*each {
		t.Errorf("%d reads were late and %d ended, of %d", late.Load(), ended.Load(), readers*each)
	}
}
