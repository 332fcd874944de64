package schedule

import (
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // hosts without zones know them as well
)

const (
	// maxSpec bounds an expression in bytes: a list of every minute has 170.
	maxSpec = 256
	// maxZone bounds the name of a time zone in bytes; the longest one has 32.
	maxZone = 64
	// horizonDays is how far a slot is searched: February 29th comes within eight years
	// around 2100, and once in 28 on one day of the week; 40 years hold both.
	horizonDays = 40 * 366
)

// ErrInvalid: an expression or zone that cannot be used; the text says why.
var ErrInvalid = errors.New("invalid schedule")

// Schedule is a parsed cron expression in a time zone. The zero value has no slots.
type Schedule struct {
	minute, hour, dom, month, dow uint64 // bit n: n matches
	either                        bool   // day-of-month or day-of-week is enough
	loc                           *time.Location
}

type field struct {
	name     string
	min, max int
	names    []string // of min and the following
}

var fields = [5]field{
	{"minute", 0, 59, nil},
	{"hour", 0, 23, nil},
	{"day of month", 1, 31, nil},
	{"month", 1, 12, []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}},
	{"day of week", 0, 7, []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}},
}

var macros = map[string]string{
	"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0",
	"@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *",
}

// Parse reads a cron expression, and the name of a zone of the IANA database; "" is UTC.
// An expression without any slot, such as February 30th, is refused.
func Parse(spec, zone string) (Schedule, error) {
	var s Schedule
	if len(spec) > maxSpec {
		return s, fmt.Errorf("%w: an expression has at most %d bytes", ErrInvalid, maxSpec)
	}
	loc, err := location(zone)
	if err != nil {
		return s, err
	}
	text := strings.ToLower(strings.TrimSpace(spec))
	if strings.HasPrefix(text, "@") {
		m, ok := macros[text]
		if !ok {
			return s, fmt.Errorf("%w: %q is none of @hourly, @daily, @weekly, @monthly, @yearly", ErrInvalid, spec)
		}
		text = m
	}
	parts := strings.Fields(text)
	if len(parts) != len(fields) {
		return s, fmt.Errorf("%w: %q has %d fields, not the five minute, hour, day of month, month, day of week", ErrInvalid, spec, len(parts))
	}
	var sets [5]uint64
	for i, f := range fields {
		if sets[i], err = f.parse(parts[i]); err != nil {
			return s, err
		}
	}
	dow := sets[4]
	if dow&(1<<7) != 0 {
		dow = dow&^(1<<7) | 1 // Sunday is 0 and 7
	}
	s = Schedule{minute: sets[0], hour: sets[1], dom: sets[2], month: sets[3], dow: dow, loc: loc,
		either: parts[2][0] != '*' && parts[4][0] != '*'}
	if _, ok := s.Next(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)); !ok {
		return Schedule{}, fmt.Errorf("%w: %q has no day", ErrInvalid, spec)
	}
	return s, nil
}

func location(zone string) (*time.Location, error) {
	if zone == "" {
		return time.UTC, nil
	}
	if len(zone) > maxZone || zone == "Local" {
		return nil, fmt.Errorf("%w: %.*q is not a time zone such as Europe/Brussels", ErrInvalid, maxZone, zone)
	}
	loc, err := time.LoadLocation(zone)
	if err != nil {
		return nil, fmt.Errorf("%w: %q is not a time zone such as Europe/Brussels", ErrInvalid, zone)
	}
	return loc, nil
}

func (f field) parse(text string) (uint64, error) {
	var set uint64
	for item := range strings.SplitSeq(text, ",") {
		span, step, stepped := strings.Cut(item, "/")
		lo, hi, every := f.min, f.max, 1
		if span != "*" {
			from, to, ranged := strings.Cut(span, "-")
			var err error
			if lo, err = f.value(from); err != nil {
				return 0, err
			}
			hi = lo
			if ranged {
				if hi, err = f.value(to); err != nil {
					return 0, err
				}
			} else if stepped {
				return 0, fmt.Errorf("%w: %s %q: a step follows * or a range", ErrInvalid, f.name, item)
			}
			if lo > hi {
				return 0, fmt.Errorf("%w: %s %q goes backwards", ErrInvalid, f.name, item)
			}
		}
		if stepped {
			n, err := strconv.Atoi(step)
			if err != nil || n < 1 || n > f.max {
				return 0, fmt.Errorf("%w: %s %q: a step is 1 to %d", ErrInvalid, f.name, item, f.max)
			}
			every = n
		}
		for v := lo; v <= hi; v += every {
			set |= 1 << v
		}
	}
	return set, nil
}

func (f field) value(text string) (int, error) {
	for i, name := range f.names {
		if text == name {
			return f.min + i, nil
		}
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < f.min || n > f.max || text[0] == '+' {
		return 0, fmt.Errorf("%w: %s %q is not %d to %d", ErrInvalid, f.name, text, f.min, f.max)
	}
	return n, nil
}

// Zone is where the schedule's times of day are.
func (s Schedule) Zone() *time.Location {
	if s.loc == nil {
		return time.UTC
	}
	return s.loc
}

// Next returns the first slot after t; false if there is none.
func (s Schedule) Next(t time.Time) (time.Time, bool) {
	day := date(t.In(s.Zone()))
	for range horizonDays {
		if s.matches(day) {
			for h := s.hour; h != 0; h &= h - 1 {
				hour := bits.TrailingZeros64(h)
				if !s.at(day, hour, 63-bits.LeadingZeros64(s.minute)).After(t) {
					continue
				}
				for m := s.minute; m != 0; m &= m - 1 {
					if at := s.at(day, hour, bits.TrailingZeros64(m)); at.After(t) {
						return at, true
					}
				}
			}
		}
		day = day.AddDate(0, 0, 1)
	}
	return time.Time{}, false
}

// Prev returns the newest slot at or before t; false if there is none.
func (s Schedule) Prev(t time.Time) (time.Time, bool) {
	// Clocks that went back over midnight showed a part of the next day already.
	day := date(t.In(s.Zone())).AddDate(0, 0, 1)
	for range horizonDays {
		if s.matches(day) {
			for hour := 23; hour >= 0; hour-- {
				if s.hour&(1<<hour) == 0 || s.at(day, hour, bits.TrailingZeros64(s.minute)).After(t) {
					continue
				}
				for minute := 59; minute >= 0; minute-- {
					if s.minute&(1<<minute) == 0 {
						continue
					}
					if at := s.at(day, hour, minute); !at.After(t) {
						return at, true
					}
				}
			}
		}
		day = day.AddDate(0, 0, -1)
	}
	return time.Time{}, false
}

// date is the day of t as a date alone: midnight in UTC, where every day has one.
func date(t time.Time) time.Time {
	y, m, d := t.Date()
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
}

func (s Schedule) matches(day time.Time) bool {
	dom := s.dom&(1<<day.Day()) != 0
	dow := s.dow&(1<<day.Weekday()) != 0
	return s.month&(1<<day.Month()) != 0 && (dom && dow || s.either && (dom || dow))
}

func (s Schedule) at(day time.Time, hour, minute int) time.Time {
	return moment(day, hour, minute, s.Zone())
}

// moment is when a clock of loc shows a time of day, by S1 and S2. time.Date promises
// neither.
func moment(day time.Time, hour, minute int, loc *time.Location) time.Time {
	asked := day.Add(time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute)
	t := time.Date(asked.Year(), asked.Month(), asked.Day(), hour, minute, 0, 0, loc)
	_, offset := t.Zone()
	shown := t.Add(time.Duration(offset) * time.Second)
	start, end := t.ZoneBounds()
	switch {
	case shown.After(asked) && !start.IsZero():
		return start.In(loc) // the clock went past it
	case shown.Before(asked) && !end.IsZero():
		return end.In(loc)
	case start.IsZero():
		return t
	}
	_, before := start.Add(-time.Second).Zone()
	if first := t.Add(time.Duration(offset-before) * time.Second); first.Before(start) {
		return first
	}
	return t
}
