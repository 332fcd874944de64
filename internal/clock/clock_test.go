package clock

import (
	"sync"
	"testing"
	"time"
)

var start = time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)

// fired tells whether a timer has a value, and takes it.
func fired(t Timer) bool {
	select {
	case <-t.C():
		return true
	default:
		return false
	}
}

func TestManualFiresWhenDue(t *testing.T) {
	for _, c := range []struct {
		d     time.Duration
		steps []time.Duration
		at    int // the step that fires it; -1: at once
	}{
		{d: 0, at: -1},
		{d: -time.Second, at: -1},
		{d: time.Second, steps: []time.Duration{time.Second}, at: 0},
		{d: time.Second, steps: []time.Duration{time.Second - 1, 1, time.Hour}, at: 1},
		{d: 3 * time.Second, steps: []time.Duration{time.Second, time.Second, 5 * time.Second}, at: 2},
	} {
		m := NewManual(start)
		timer := m.NewTimer(c.d)
		if fired(timer) != (c.at == -1) {
			t.Errorf("timer of %v: fired at creation is wrong", c.d)
		}
		for i, step := range c.steps {
			m.Advance(step)
			if fired(timer) != (i == c.at) {
				t.Errorf("timer of %v: wrong after step %d of %v", c.d, i, c.steps)
			}
		}
	}
}

func TestManualNow(t *testing.T) {
	m := NewManual(start)
	timer := m.NewTimer(time.Second)
	m.Advance(time.Minute)
	if got := m.Now().Sub(start); got != time.Minute {
		t.Errorf("moved by %v", got)
	}
	if at := <-timer.C(); !at.Equal(start.Add(time.Minute)) {
		t.Errorf("the timer says %v", at)
	}
}

// A deadline stays where it is when time passes before the timer is set to it.
func TestResetAt(t *testing.T) {
	m := NewManual(start)
	timer, deadline := m.NewTimer(time.Hour), m.Now().Add(time.Minute)
	m.Advance(59 * time.Second)
	if !timer.ResetAt(deadline) {
		t.Error("ResetAt of an armed timer says it was not")
	}
	if m.Advance(time.Second); !fired(timer) {
		t.Error("did not fire at its deadline")
	}
	if timer.ResetAt(deadline); !fired(timer) {
		t.Error("a deadline that has passed did not fire at once")
	}
	r := Real{}.NewTimer(time.Hour)
	defer r.Stop()
	r.ResetAt(time.Now().Add(time.Millisecond))
	<-r.C()
}

// After Stop or Reset no stale value is received, and both tell whether the timer
// was armed.
func TestManualStopAndReset(t *testing.T) {
	m := NewManual(start)
	timer := m.NewTimer(time.Second)
	if m.Waiting() != 1 {
		t.Errorf("%d timers wait", m.Waiting())
	}
	if !timer.Stop() || timer.Stop() || m.Waiting() != 0 {
		t.Error("Stop of an armed, then of a stopped timer")
	}
	m.Advance(time.Minute)
	if fired(timer) {
		t.Error("a stopped timer fired")
	}
	if timer.Reset(time.Second) {
		t.Error("Reset of a stopped timer says it was armed")
	}
	m.Advance(time.Second) // fires; the value is not received
	if timer.Stop() || fired(timer) {
		t.Error("Stop of a fired timer left its value")
	}
	timer.Reset(time.Second)
	m.Advance(time.Second)
	if timer.Reset(2*time.Second) || fired(timer) {
		t.Error("Reset of a fired timer left its value")
	}
	if !timer.Reset(3 * time.Second) {
		t.Error("Reset of an armed timer says it was not")
	}
	m.Advance(2 * time.Second)
	if fired(timer) {
		t.Error("fired at the time of before Reset")
	}
	m.Advance(time.Second)
	if !fired(timer) {
		t.Error("did not fire at the time of Reset")
	}
	timer.Reset(0)
	if !fired(timer) {
		t.Error("Reset to 0 did not fire at once")
	}
}

func TestManualManyTimers(t *testing.T) {
	m := NewManual(start)
	var timers []Timer
	for i := range 10 {
		timers = append(timers, m.NewTimer(time.Duration(i+1)*time.Second))
	}
	m.Advance(5 * time.Second)
	for i, timer := range timers {
		if fired(timer) != (i < 5) {
			t.Errorf("timer %d", i)
		}
	}
}

// TestManualConcurrent is for the race detector; every waiter gets its value.
func TestManualConcurrent(t *testing.T) {
	m := NewManual(start)
	var armed, done sync.WaitGroup
	for range 8 {
		armed.Add(1)
		done.Go(func() {
			timer := m.NewTimer(time.Second)
			armed.Done()
			<-timer.C()
			timer.Reset(-1)
			<-timer.C()
			m.Now()
		})
	}
	armed.Wait()
	m.Advance(time.Second)
	done.Wait()
}

func TestReal(t *testing.T) {
	var c Clock = Real{}
	before := c.Now()
	timer := c.NewTimer(time.Millisecond)
	<-timer.C()
	if d := c.Now().Sub(before); d < time.Millisecond {
		t.Errorf("a timer of 1 ms fired after %v", d)
	}
	timer.Reset(time.Hour)
	if !timer.Stop() || fired(timer) {
		t.Error("Stop of an armed timer")
	}
	timer.Reset(0)
	<-timer.C()
}

func TestAfterFunc(t *testing.T) {
	m := NewManual(time.Unix(0, 0))
	for name, c := range map[string]Clock{"manual": m, "real": Real{}} {
		ran := make(chan struct{}, 1)
		stop := AfterFunc(c, time.Hour, func() { ran <- struct{}{} })
		if !stop() || stop() {
			t.Errorf("%s: stopped before its time: not the first time, or again", name)
		}
		m.Advance(2 * time.Hour)
		stop = AfterFunc(c, time.Millisecond, func() { ran <- struct{}{} })
		m.Advance(time.Millisecond)
		<-ran
		if stop() {
			t.Errorf("%s: stopped after it ran", name)
		}
		if len(ran) > 0 {
			t.Errorf("%s: it ran though it was stopped", name)
		}
	}
}
