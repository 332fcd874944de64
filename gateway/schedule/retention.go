package schedule

import (
	"slices"
	"time"
)

// Bounds of Retention, so that nobody waits for a number of buckets that a request names.
const (
	MaxDays  = 366
	MaxWeeks = 520
)

// Retention is how many buckets of automatic snapshots are kept behind the newest day.
type Retention struct {
	Days  int // 0-MaxDays; of each one stays
	Weeks int // 0-MaxWeeks, behind the days
}

// DefaultRetention is that of the original.
var DefaultRetention = Retention{Days: 7, Weeks: 3}

// Snapshot is what the retention looks at.
type Snapshot struct {
	ID         string
	Time       time.Time
	Automatic  bool
	Consistent bool
	Sticky     bool
	Parent     bool // clones start from it
}

// Expired returns the snapshots that are to be deleted, oldest first; see the package
// comment for the rule. Days begin at midnight in loc.
func (r Retention) Expired(all []Snapshot, now time.Time, loc *time.Location) []Snapshot {
	list := make([]Snapshot, 0, len(all))
	for _, s := range all {
		if s.Automatic && !s.Sticky && !s.Parent {
			list = append(list, s)
		}
	}
	slices.SortStableFunc(list, func(a, b Snapshot) int { return b.Time.Compare(a.Time) }) // newest first
	yesterday := date(now.In(loc)).AddDate(0, 0, -1)
	edge := func(days int) time.Time { return moment(yesterday.AddDate(0, 0, -days), 0, 0, loc) }
	rest := list
	take := func(end time.Time) []Snapshot { // those that are newer than end
		i := slices.IndexFunc(rest, func(s Snapshot) bool { return !s.Time.After(end) })
		if i < 0 {
			i = len(rest)
		}
		bucket := rest[:i]
		rest = rest[i:]
		return bucket
	}
	take(edge(0))
	var out []Snapshot
	for i := range r.Days + r.Weeks {
		days := i + 1
		if i >= r.Days {
			days = r.Days + 7*(i-r.Days+1)
		}
		bucket := take(edge(days))
		keep := len(bucket) - 1 // the oldest
		if i == 0 {
			keep = max(0, slices.IndexFunc(bucket, func(s Snapshot) bool { return s.Consistent }))
		}
		for j, s := range bucket {
			if j != keep {
				out = append(out, s)
			}
		}
	}
	out = append(out, rest...)
	slices.Reverse(out)
	return out
}
