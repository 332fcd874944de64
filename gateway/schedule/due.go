package schedule

import (
	"hash/fnv"
	"time"
)

// MaxAhead is how far the newest slot that ran may be in the future. It is more than a day,
// so that a clock set to another time zone by mistake, and back, runs nothing twice.
const MaxAhead = 26 * time.Hour

// Plan is a schedule with how an object runs it.
type Plan struct {
	Schedule
	Spread time.Duration // bound of the offset by which objects differ (S3)
	Late   time.Duration // a slot is not run when it is later than this (S4)
}

// Verdict says what to do about a slot.
type Verdict int

// Verdicts.
const (
	Wait      Verdict = iota // nothing is due
	Run                      // run the slot, then keep it as the newest
	TooLate                  // keep it as the newest without running it
	ClockBack                // the same: slots count from now (S5)
)

// offset is how much later an object runs a slot; next is the slot behind it.
func (p Plan) offset(object string, slot, next time.Time) time.Duration {
	bound := min(p.Spread, next.Sub(slot)/4) / time.Second
	if bound < 1 {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(object)) // a hash takes everything
	x := h.Sum64()
	x = (x ^ x>>33) * 0xff51afd7ed558ccd // ids that differ in their last digit are to differ here
	return time.Duration((x^x>>33)%uint64(bound)) * time.Second
}

// Moment is when an object runs a slot.
func (p Plan) Moment(object string, slot time.Time) time.Time {
	next, ok := p.Next(slot)
	if !ok {
		return slot
	}
	return slot.Add(p.offset(object, slot, next))
}

// Due tells about the newest slot whose moment has come for an object. last is the newest
// slot that was run or kept, or when the object began to be.
func (p Plan) Due(object string, last, now time.Time) (slot time.Time, _ Verdict) {
	last, now = last.Round(0), now.Round(0) // slots are times of day, whatever the monotonic clock says
	slot, ok := p.Prev(now)
	if ok && p.Moment(object, slot).After(now) {
		slot, ok = p.Prev(slot.Add(-time.Second))
	}
	switch {
	case !ok:
		return time.Time{}, Wait
	case last.Sub(now) > MaxAhead:
		return slot, ClockBack
	case !slot.After(last):
		return slot, Wait
	case now.Sub(slot) > p.Late:
		return slot, TooLate
	}
	return slot, Run
}

// Upcoming returns the slot that an object runs next, and when. A clock that goes its way
// is assumed.
func (p Plan) Upcoming(object string, last, now time.Time) (slot, at time.Time, ok bool) {
	from, v := p.Due(object, last, now)
	switch {
	case v == Run:
		return from, now, true
	case v != ClockBack && last.After(from):
		from = last.Round(0)
	}
	if slot, ok = p.Next(from); !ok {
		return slot, at, false
	}
	return slot, p.Moment(object, slot), true
}
