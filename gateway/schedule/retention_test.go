package schedule

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

const label = "01-02 15:04"

func labels(list []Snapshot) string {
	var out []string
	for _, s := range list {
		out = append(out, s.ID)
	}
	return strings.Join(out, ", ")
}

// The buckets at their edges. Now is 02:01 on the 20th of June: B is 00:00 of the 19th.
func TestBuckets(t *testing.T) {
	now := time.Date(2026, 6, 20, 2, 1, 0, 0, time.UTC)
	b := time.Date(2026, 6, 19, 0, 0, 0, 0, time.UTC)
	day := 24 * time.Hour
	auto := func(id string, age time.Duration) Snapshot {
		return Snapshot{ID: id, Time: b.Add(-age), Automatic: true}
	}
	with := func(s Snapshot, f func(*Snapshot)) Snapshot { f(&s); return s }
	for _, c := range []struct {
		name string
		list []Snapshot
		want string
	}{
		{"newer than B stays", []Snapshot{auto("a", -time.Second), auto("b", -time.Hour), auto("c", -26*time.Hour)}, ""},
		{"of the first day the newest", []Snapshot{auto("b", 0), auto("mid", time.Hour), auto("old", day-time.Second)}, "old, mid"},
		{"or the newest consistent one", []Snapshot{auto("new", 0), with(auto("c1", 2*time.Hour), func(s *Snapshot) { s.Consistent = true }),
			with(auto("c2", 3*time.Hour), func(s *Snapshot) { s.Consistent = true }), auto("old", 4*time.Hour)}, "old, c2, new"},
		{"of the others the oldest, consistent or not", []Snapshot{with(auto("new", day), func(s *Snapshot) { s.Consistent = true }), auto("old", 2*day-time.Second)}, "new"},
		{"an edge belongs to the older bucket", []Snapshot{auto("first", day-time.Second), auto("second", day)}, ""},
		{"a day each", []Snapshot{auto("1", 0), auto("2", day), auto("3", 2*day), auto("4", 3*day), auto("5", 4*day), auto("6", 5*day), auto("7", 6*day)}, ""},
		{"a week each", []Snapshot{auto("1a", 7*day), auto("1b", 14*day-time.Second), auto("2a", 14*day), auto("2b", 21*day-time.Second), auto("3a", 21*day), auto("3b", 28*day-time.Second)}, "3a, 2a, 1a"},
		{"older than 28 days goes", []Snapshot{auto("in", 28*day-time.Second), auto("edge", 28*day), auto("out", 400*day)}, "out, edge"},
		{"sticky, parents and those of people", []Snapshot{with(auto("s", 40*day), func(s *Snapshot) { s.Sticky = true }), with(auto("p", 41*day), func(s *Snapshot) { s.Parent = true }),
			with(auto("m", 42*day), func(s *Snapshot) { s.Automatic = false }), auto("x", 43*day)}, "x"},
		{"and they take nobody's place", []Snapshot{with(auto("s", time.Hour), func(s *Snapshot) { s.Sticky = true }), auto("a", 2*time.Hour), auto("b", 3*time.Hour)}, "b"},
	} {
		if got := labels(DefaultRetention.Expired(c.list, now, time.UTC)); got != c.want {
			t.Errorf("%s: %q go, not %q", c.name, got, c.want)
		}
	}
	list := []Snapshot{auto("a", -time.Hour), auto("b", 0), auto("c", day), auto("d", 3*day), auto("e", 9*day)}
	for r, want := range map[Retention]string{
		{}:                  "e, d, c, b",
		{Days: 1}:           "e, d, c",
		{Weeks: 1}:          "e, d, c",
		{Days: 2, Weeks: 1}: "e",
		{Days: 2, Weeks: 2}: "",
	} {
		if got := labels(r.Expired(list, now, time.UTC)); got != want {
			t.Errorf("%+v: %q go, not %q", r, got, want)
		}
	}
}

// Days have 23 and 25 hours when clocks change.
func TestBucketsZone(t *testing.T) {
	loc, err := time.LoadLocation("Europe/Brussels")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 10, 27, 2, 1, 0, 0, loc) // B is 00:00 of the 26th, the day before has 25 hours
	var list []Snapshot
	for i := range 60 {
		at := now.Add(-time.Minute - time.Duration(i)*time.Hour)
		list = append(list, Snapshot{ID: at.UTC().Format(label), Time: at, Automatic: true})
	}
	left := slices.DeleteFunc(slices.Clone(list), func(s Snapshot) bool {
		return slices.Contains(DefaultRetention.Expired(list, now, loc), s)
	})
	// 26 newer than B; the newest of the 25th; of the 24th the oldest there is.
	if len(left) != 28 || left[26].ID != "10-25 23:00" || left[27].ID != "10-24 14:00" {
		t.Errorf("%d stay: %s", len(left), labels(left))
	}
}

// world is 60 days of one vDisk: a clock that is ticked, a scheduler that is restarted with
// what it stored, and a list of snapshots.
type world struct {
	t          *testing.T
	now        time.Time
	snap, keep Plan
	last       map[string]time.Time // stored
	disk       []Snapshot
	made       map[string]int
	slots      []time.Time // that ran, in order
}

func (w *world) tick() {
	w.now = w.now.Add(time.Minute)
	if slot, v := w.snap.Due("disk", w.last["snap"], w.now); v != Wait {
		if v == Run {
			id := slot.UTC().Format(label)
			w.made[id]++
			w.slots = append(w.slots, slot)
			w.disk = append(w.disk, Snapshot{ID: id, Time: w.now, Automatic: true})
		}
		w.last["snap"] = slot
	}
	if slot, v := w.keep.Due("disk", w.last["keep"], w.now); v != Wait {
		if v == Run {
			gone := DefaultRetention.Expired(w.disk, w.now, time.UTC)
			w.disk = slices.DeleteFunc(w.disk, func(s Snapshot) bool { return slices.Contains(gone, s) })
		}
		w.last["keep"] = slot
	}
}

// table is what the reference says there is after the retention of a day (counted from the
// first one): the hours since 00:00 of yesterday, a midnight of each of the days before,
// and of the weeks before those the midnights that are multiples of seven days from the
// first one, because each was the oldest of its bucket when it came in and still is.
func table(start time.Time, day int, missing map[string]bool, instead map[int]string) []string {
	var out []string
	midnight := func(d int) {
		switch at := start.AddDate(0, 0, d); {
		case d < 0:
		case instead[d] != "":
			out = append(out, instead[d])
		default:
			out = append(out, at.Format(label))
		}
	}
	b := day - 1
	for d := b - 27; d <= b-7; d++ {
		if d%7 == 0 {
			midnight(d)
		}
	}
	for d := b - 6; d <= b; d++ {
		midnight(d)
	}
	for h := 1; h <= 26; h++ {
		at := start.AddDate(0, 0, b).Add(time.Duration(h) * time.Hour)
		if l := at.Format(label); !missing[l] && !at.Before(start) {
			out = append(out, l)
		}
	}
	return out
}

func TestSixtyDays(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	begun := start.Add(-time.Minute)
	w := &world{t: t, now: begun, snap: plan(t, "0 * * * *", ""), keep: plan(t, "1 2 * * *", ""),
		last: map[string]time.Time{"snap": begun, "keep": begun}, made: map[string]int{}}
	w.snap.Spread, w.keep.Spread = 0, 0
	missing, instead := map[string]bool{}, map[int]string{}
	rng := rand.New(rand.NewPCG(60, 1))
	at := func(day, hour, minute int) time.Time {
		return start.AddDate(0, 0, day).Add(time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute)
	}
	until := func(end time.Time) {
		for w.now.Before(end) {
			w.tick()
			if rng.IntN(200) == 0 { // a restart: nothing is left but what was stored
				stored := map[string]time.Time{}
				for k, v := range w.last {
					stored[k] = v.UTC()
				}
				w.last = stored
			}
		}
	}
	lost := func(day int, hours ...int) {
		for _, h := range hours {
			missing[at(day, h, 0).Format(label)] = true
		}
	}
	for day := 0; day <= 60; day++ {
		switch day {
		case 9: // stopped from 10:30 to 15:20: 15:00 is caught up, four are lost
			until(at(day, 10, 30))
			w.now = at(day, 15, 20)
			lost(day, 11, 12, 13, 14)
		case 17: // stopped over midnight, and until after the time of the retention
			until(at(day-1, 22, 0).Add(90 * time.Minute))
			w.now = at(day, 4, 5)
			lost(day, 0, 1, 2, 3)
			instead[day] = at(day-1, 23, 0).Format(label)
		case 25: // the clock is set forward by three hours
			until(at(day, 12, 10))
			w.now = w.now.Add(3 * time.Hour)
			lost(day, 13, 14)
		case 33: // and back by five: nothing runs until it is where it was
			until(at(day, 12, 10))
			w.now = w.now.Add(-5 * time.Hour)
			n := len(w.slots)
			until(at(day, 12, 59))
			if len(w.slots) != n {
				t.Errorf("%d ran while the clock was behind", len(w.slots)-n)
			}
		case 41: // ten seconds forward and back, around a slot
			until(at(day, 6, 0))
			for range 10 {
				w.now = w.now.Add(-time.Minute - 10*time.Second)
				w.tick()
				w.now = w.now.Add(10 * time.Second)
			}
		}
		until(at(day, 5, 0)) // the retention ran at 02:01, or when it was caught up
		if day < 2 {
			continue
		}
		want := table(start, day, missing, instead)
		for h := 3; h <= 5; h++ {
			if l := at(day, h, 0).Format(label); !missing[l] {
				want = append(want, l)
			}
		}
		var got []string
		for _, s := range w.disk {
			if !s.Time.After(at(day, 5, 0)) {
				got = append(got, s.ID)
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("day %d:\n got %s\nwant %s", day, strings.Join(got, ", "), strings.Join(want, ", "))
		}
	}
	for id, n := range w.made {
		if n != 1 {
			t.Errorf("%s was made %d times", id, n)
		}
	}
	if !slices.IsSortedFunc(w.slots, time.Time.Compare) {
		t.Error("slots ran out of order")
	}
	if want := 60*24 + 6 - len(missing); len(w.slots) != want {
		t.Errorf("%d slots ran, not %d", len(w.slots), want)
	}
	t.Logf("%d snapshots made, %d left", len(w.slots), len(w.disk))
}
