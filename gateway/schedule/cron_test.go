package schedule

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func mustParse(t *testing.T, spec, zone string) Schedule {
	t.Helper()
	s, err := Parse(spec, zone)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func when(t *testing.T, s string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestNext(t *testing.T) {
	for _, c := range []struct {
		spec, zone, from string
		want             string // slots, by one space
	}{
		{"0 * * * *", "", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z 2026-01-01T02:00:00Z"},
		{"@hourly", "", "2026-01-01T23:00:01Z", "2026-01-02T00:00:00Z"},
		{"1 2 * * *", "", "2026-02-28T02:01:00Z", "2026-03-01T02:01:00Z"},
		{"*/20 9-10 * * mon-fri", "", "2026-11-27T10:30:00Z", "2026-11-27T10:40:00Z 2026-11-30T09:00:00Z 2026-11-30T09:20:00Z"},
		{"5,10-20/5 0 1 jan,jul *", "", "2026-01-01T00:10:00Z", "2026-01-01T00:15:00Z 2026-01-01T00:20:00Z 2026-07-01T00:05:00Z"},
		{"0 0 13 * fri", "", "2026-11-01T00:00:00Z", "2026-11-06T00:00:00Z 2026-11-13T00:00:00Z 2026-11-20T00:00:00Z"}, // either day
		{"0 0 */2 * 7", "", "2026-11-01T00:00:00Z", "2026-11-15T00:00:00Z 2026-11-29T00:00:00Z"},                       // both
		{"0 0 29 2 *", "", "2096-03-01T00:00:00Z", "2104-02-29T00:00:00Z"},
		{"0 0 1 */3 *", "", "2026-01-02T00:00:00Z", "2026-04-01T00:00:00Z"},
		// Brussels goes forward on 2026-03-29 from 02:00 to 03:00, and back on 2026-10-25
		// from 03:00 to 02:00.
		{"30 2 * * *", "Europe/Brussels", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z 2026-03-30T00:30:00Z"},
		{"*/15 2 * * *", "Europe/Brussels", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z 2026-03-30T00:00:00Z"},
		{"0 * * * *", "Europe/Brussels", "2026-03-28T23:30:00Z", "2026-03-29T00:00:00Z 2026-03-29T01:00:00Z 2026-03-29T02:00:00Z"},
		{"30 2 * * *", "Europe/Brussels", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z 2026-10-26T01:30:00Z"},
		{"0 * * * *", "Europe/Brussels", "2026-10-24T23:30:00Z", "2026-10-25T00:00:00Z 2026-10-25T02:00:00Z"},
		// Clocks that skip midnight, come back to the day before, skip a day, or go by half an hour.
		{"0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00:00Z", "2018-11-04T03:00:00Z 2018-11-05T02:00:00Z"},
		{"30 23 * * *", "America/Sao_Paulo", "2018-02-17T12:00:00Z", "2018-02-18T01:30:00Z 2018-02-19T02:30:00Z"},
		{"0 12 * * *", "Pacific/Apia", "2011-12-29T12:00:00Z", "2011-12-29T22:00:00Z 2011-12-30T10:00:00Z 2011-12-30T22:00:00Z"},
		// From 00:01 to 23:01 of the day before.
		{"0,30 0,23 * * *", "America/St_Johns", "2010-11-07T01:45:00Z", "2010-11-07T02:00:00Z 2010-11-07T02:30:00Z 2010-11-07T04:00:00Z 2010-11-08T02:30:00Z"},
		{"15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", "2026-10-03T15:30:00Z 2026-10-04T15:15:00Z"},
	} {
		s := mustParse(t, c.spec, c.zone)
		at, before := when(t, c.from), time.Time{}
		var got []string
		for range len(strings.Fields(c.want)) {
			next, ok := s.Next(at)
			if !ok {
				t.Fatalf("%s: nothing after %s", c.spec, at)
			}
			if prev, ok := s.Prev(next); !ok || !prev.Equal(next) {
				t.Errorf("%s: Prev of slot %s is %s", c.spec, next, prev)
			}
			if prev, ok := s.Prev(next.Add(-time.Nanosecond)); !before.IsZero() && (!ok || !prev.Equal(before)) {
				t.Errorf("%s: before %s is %s, not %s", c.spec, next, prev, before)
			}
			got, at, before = append(got, next.UTC().Format(time.RFC3339)), next, next
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s %s after %s:\n got %s\nwant %s", c.spec, c.zone, c.from, s, c.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for spec, why := range map[string]string{
		"":                        "0 fields",
		"* * * *":                 "4 fields",
		"* * * * * *":             "6 fields",
		"@often":                  "none of",
		"60 * * * *":              "minute",
		"* 24 * * *":              "hour",
		"* * 0 * *":               "day of month",
		"* * * 13 *":              "month",
		"* * * * 8":               "day of week",
		"5-1 * * * *":             "backwards",
		"5/10 * * * *":            "a step follows",
		"*/0 * * * *":             "a step is",
		"*/x * * * *":             "a step is",
		", * * * *":               "minute",
		"+5 * * * *":              "minute",
		"-5 * * * *":              "minute",
		"* * * febr *":            "month",
		"0 0 30 2 *":              "has no day",
		"0 0 31 4,6,9,11 *":       "has no day",
		strings.Repeat("1,", 200): "at most",
	} {
		if _, err := Parse(spec, ""); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %v, not %q", spec, err, why)
		}
	}
	for _, zone := range []string{"Local", "Mars/Base", "../../etc/passwd", strings.Repeat("x", 1000)} {
		if _, err := Parse("@daily", zone); !errors.Is(err, ErrInvalid) || len(err.Error()) > 200 {
			t.Errorf("zone %q: %v", zone, err)
		}
	}
}

// Slots are the minutes that a clock of the zone shows and that match, but for the
// repeated ones; a gap's are its end.
func TestNextAgainstClock(t *testing.T) {
	for _, zone := range []string{"Europe/Brussels", "America/St_Johns", "America/Havana", "Atlantic/Azores", "Asia/Kathmandu"} {
		s := mustParse(t, "*/15 0-3,23 * * *", zone)
		for _, from := range []string{"2026-03-01T00:00:00Z", "2026-10-20T00:00:00Z"} {
			at := when(t, from)
			end := at.AddDate(0, 0, 35)
			var want []time.Time
			seen := map[string]bool{}
			_, offset := at.In(s.Zone()).Zone()
			for m := at; m.Before(end); m = m.Add(time.Minute) {
				local := m.In(s.Zone())
				_, now := local.Zone()
				jumped := now > offset // the hours of these gaps all match
				offset = now
				label, h := local.Format("2006-01-02 15:04"), local.Hour()
				if (local.Minute()%15 == 0 && (h <= 3 || h == 23) || jumped) && !seen[label] && m.After(at) {
					want = append(want, m)
				}
				seen[label] = true
			}
			for i, w := range want {
				next, ok := s.Next(at)
				if !ok || !next.Equal(w) {
					t.Fatalf("%s: slot %d after %s is %s, not %s", zone, i, at, next, w)
				}
				at = next
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"0 * * * *", "*/5 1-3 1,15 jan-mar mon", "@daily", "0 0 29 2 1", "59 23 31 12 7"} {
		f.Add(s, "Europe/Brussels", int64(1_790_000_000))
	}
	f.Fuzz(func(t *testing.T, spec, zone string, at int64) {
		s, err := Parse(spec, zone)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		from := time.Unix(at%4_000_000_000, 0)
		next, ok := s.Next(from)
		if !ok || !next.After(from) {
			t.Fatalf("%q: %v %v after %v", spec, next, ok, from)
		}
		if prev, ok := s.Prev(next); !ok || !prev.Equal(next) {
			t.Fatalf("%q: Prev(%v) is %v", spec, next, prev)
		}
	})
}
