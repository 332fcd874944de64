package schedule

import (
	"fmt"
	"testing"
	"time"
)

func plan(t *testing.T, spec, zone string) Plan {
	return Plan{Schedule: mustParse(t, spec, zone), Spread: 10 * time.Minute, Late: 24 * time.Hour}
}

func TestDue(t *testing.T) {
	p := plan(t, "0 * * * *", "")
	p.Spread = 0
	weekly := plan(t, "0 3 * * sun", "")
	weekly.Spread = 0
	for _, c := range []struct {
		name      string
		p         Plan
		last, now string
		slot      string
		want      Verdict
	}{
		{"just ran", p, "2026-05-01T10:00:00Z", "2026-05-01T10:30:00Z", "2026-05-01T10:00:00Z", Wait},
		{"its time", p, "2026-05-01T10:00:00Z", "2026-05-01T11:00:00Z", "2026-05-01T11:00:00Z", Run},
		{"five missed: one is caught up", p, "2026-05-01T10:00:00Z", "2026-05-01T15:40:00Z", "2026-05-01T15:00:00Z", Run},
		{"clock back", p, "2026-05-01T10:00:00Z", "2026-05-01T08:30:00Z", "2026-05-01T08:00:00Z", Wait},
		{"clock back by a zone", p, "2026-05-02T10:00:00Z", "2026-05-01T11:00:00Z", "2026-05-01T11:00:00Z", Wait},
		{"clock was years ahead", p, "2036-05-02T10:00:00Z", "2026-05-01T11:10:00Z", "2026-05-01T11:00:00Z", ClockBack},
		{"missed by half a day", weekly, "2026-04-26T03:00:00Z", "2026-05-03T15:00:00Z", "2026-05-03T03:00:00Z", Run},
		{"missed by more than a day", weekly, "2026-04-26T03:00:00Z", "2026-05-04T15:00:00Z", "2026-05-03T03:00:00Z", TooLate},
	} {
		slot, v := c.p.Due("x", when(t, c.last), when(t, c.now))
		if v != c.want || !slot.Equal(when(t, c.slot)) {
			t.Errorf("%s: %v of %s, not %v of %s", c.name, v, slot, c.want, c.slot)
		}
	}
}

// Before the moment of a slot has come, the one before is caught up.
func TestDueBeforeMoment(t *testing.T) {
	p := plan(t, "0 * * * *", "")
	slot := when(t, "2026-05-01T10:00:00Z")
	at := p.Moment("disk", slot)
	if !at.After(slot) {
		t.Fatal("this object has no offset: take another one")
	}
	if s, v := p.Due("disk", slot.Add(-3*time.Hour), at.Add(-time.Second)); v != Run || !s.Equal(slot.Add(-time.Hour)) {
		t.Errorf("%v of %s", v, s)
	}
}

// Ten thousand objects spread; each runs before its next slot, at the same offset each time.
func TestOffset(t *testing.T) {
	p := plan(t, "0,5 * * * *", "")
	slot := when(t, "2026-05-01T10:00:00Z")
	seconds := map[time.Duration]int{}
	for i := range 10_000 {
		id := fmt.Sprintf("00000000-0000-4000-8000-%012d", i)
		short, long := p.Moment(id, slot).Sub(slot), p.Moment(id, slot.Add(5*time.Minute)).Sub(slot.Add(5*time.Minute))
		if short < 0 || short >= 75*time.Second || long < 0 || long >= 10*time.Minute {
			t.Fatalf("%s runs %s and %s after its slots", id, short, long)
		}
		if again := p.Moment(id, slot.Add(time.Hour)).Sub(slot.Add(time.Hour)); again != short {
			t.Fatalf("%s: %s, then %s", id, short, again)
		}
		seconds[long]++
	}
	most := 0
	for _, n := range seconds {
		most = max(most, n)
	}
	if len(seconds) < 595 || most > 50 { // 600 seconds, 17 each on average
		t.Errorf("10000 objects on %d seconds, up to %d at one", len(seconds), most)
	}
}

// Whoever waits for Upcoming finds Run then, and not a second before.
func TestUpcoming(t *testing.T) {
	for _, zone := range []string{"", "Europe/Brussels"} {
		p := plan(t, "20 */3 * * *", zone)
		last, now := when(t, "2026-03-27T00:00:00Z"), when(t, "2026-03-27T00:00:01Z")
		for range 40 {
			slot, at, ok := p.Upcoming("disk", last, now)
			if !ok || at.Before(now) {
				t.Fatalf("after %s: %s at %s", now, slot, at)
			}
			if s, v := p.Due("disk", last, at.Add(-time.Second)); v != Wait {
				t.Fatalf("a second before %s: %v of %s", at, v, s)
			}
			if s, v := p.Due("disk", last, at); v != Run || !s.Equal(slot) {
				t.Fatalf("at %s: %v of %s, not of %s", at, v, s, slot)
			}
			last, now = slot, at
		}
	}
	p := plan(t, "0 * * * *", "")
	now := when(t, "2026-05-01T10:30:00Z")
	for last, want := range map[string]string{
		"2026-05-01T07:00:00Z": "2026-05-01T10:00:00Z", // it is late
		"2026-05-01T14:00:00Z": "2026-05-01T15:00:00Z", // the clock went back
		"2036-05-01T14:00:00Z": "2026-05-01T11:00:00Z", // it was wrong then
	} {
		if slot, _, _ := p.Upcoming("disk", when(t, last), now); !slot.Equal(when(t, want)) {
			t.Errorf("after %s: %s, not %s", last, slot, want)
		}
	}
}
