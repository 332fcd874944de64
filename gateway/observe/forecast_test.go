package observe

import (
	"slices"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
)

// TestForecast: a place that fills steadily is told a week before it is full, and as an error a
// day before; a burst, a place that stays as it is, and one that was made larger are not.
func TestForecast(t *testing.T) {
	const tib = int64(1) << 40
	const hour = int64(time.Hour)
	day := 24 * time.Hour
	for _, c := range []struct {
		name string
		used func(at time.Duration) int64 // of one TiB
		at   time.Duration
		want Level
	}{
		{"idle", func(time.Duration) int64 { return tib * 8 / 10 }, 2 * day, OK},
		{"emptied", func(at time.Duration) int64 { return tib - int64(at)/hour*tib/1000 }, day, OK},
		{"a percent an hour, from the start", func(at time.Duration) int64 { return int64(at) / hour * tib / 100 }, 12 * time.Hour, Warning},
		{"the same, with too little history", func(at time.Duration) int64 { return int64(at) / hour * tib / 100 }, 5 * time.Hour, OK},
		{"the same, nearly full", func(at time.Duration) int64 { return int64(at) / hour * tib / 100 }, 90 * time.Hour, Bad},
		{"a percent a day", func(at time.Duration) int64 { return int64(at) / hour * tib / 2400 }, 2 * day, OK},
		{"a percent a day, at 96 percent", func(at time.Duration) int64 { return tib*95/100 + int64(at)/hour*tib/2400 }, day, Warning},
	} {
		var f Forecast
		place := Place{"vpool gold", "The backend of vPool gold"}
		var full map[Place]time.Duration
		for at := time.Duration(0); at <= c.at; at += time.Minute {
			full = f.Full(start.Add(at), map[Place]Space{place: {tib, tib - c.used(at)}})
		}
		h := Checks{Full: full}.Evaluate()
		if h.State() != c.want {
			t.Errorf("%s: %s %+v, full in %v", c.name, h.State(), h.Causes, full)
		}
		if n := len(f.places[place].at); n > forecastKeep {
			t.Errorf("%s: %d samples", c.name, n)
		}
		// Made larger: nothing is known.
		full = f.Full(start.Add(c.at+time.Hour), map[Place]Space{place: {2 * tib, tib}})
		if len(full) != 0 {
			t.Errorf("%s, grown: %v", c.name, full)
		}
		if f.Full(start.Add(c.at+2*time.Hour), nil); len(f.places) != 0 {
			t.Errorf("%s: one that is gone is remembered", c.name)
		}
	}
}

// TestTrends: what fills is told with its times to 80 and 100 percent, the soonest first; what does not, or is not known
// long enough, without.
func TestTrends(t *testing.T) {
	const gib = int64(1) << 30
	var f Forecast
	if got := f.Trends(); len(got) != 0 {
		t.Fatalf("of nothing: %+v", got)
	}
	place := func(name string) Place { return Place{"vpool " + name, "The backend of vPool " + name} }
	const end = 12 * time.Hour
	look := func(at time.Duration) {
		n := int64(at / time.Hour)
		places := map[Place]Space{
			place("fast"): {1000 * gib, (500 - 10*n) * gib}, // a percent an hour
			place("slow"): {1000 * gib, (900 - n) * gib},
			place("past"): {1000 * gib, (150 - n) * gib}, // beyond 80 percent
			place("idle"): {1000 * gib, 300 * gib},
			place("none"): {0, 0},
		}
		if at == end {
			places[place("away")] = Space{}
		} else {
			places[place("away")] = Space{1000 * gib, 500 * gib}
		}
		if at >= 8*time.Hour {
			places[place("new")] = Space{1000 * gib, 100 * gib}
		}
		f.Full(start.Add(at), places)
	}
	for at := time.Duration(0); at <= end; at += time.Hour {
		look(at)
	}
	want := []Trend{
		{place("fast"), Space{1000 * gib, 380 * gib}, true, 18 * time.Hour, 38 * time.Hour},
		{place("past"), Space{1000 * gib, 138 * gib}, true, 0, 138 * time.Hour},
		{place("slow"), Space{1000 * gib, 888 * gib}, true, 688 * time.Hour, 888 * time.Hour},
		{place("new"), Space{1000 * gib, 100 * gib}, false, Never, Never},
		{place("idle"), Space{1000 * gib, 300 * gib}, true, Never, Never},
	}
	got := f.Trends()
	for i := range got { // a line is of floating point
		for _, d := range []*time.Duration{&got[i].To80, &got[i].To100} {
			if *d > 0 {
				*d = d.Round(time.Minute)
			}
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

// TestLatency: the mean of a whole minute counts, however often it is looked, and a store
// that is asked seldom is not slow.
func TestLatency(t *testing.T) {
	var l Latency
	var requests uint64
	var sum time.Duration
	look := func(at time.Duration) time.Duration {
		m := RemoteMetrics{VPool: "gold", Stats: remote.Stats{Kinds: []remote.KindStats{{Requests: requests, LatencySum: sum}}}}
		return l.Observe(start.Add(at), []RemoteMetrics{m})["gold"]
	}
	at := time.Duration(0)
	minute := func(n uint64, each time.Duration) time.Duration {
		requests, sum = requests+n, sum+time.Duration(n)*each
		look(at + time.Second)
		at += slowLook
		return look(at)
	}
	look(0)
	for i, c := range []struct {
		n          uint64
		each, want time.Duration
	}{
		{100, time.Second, time.Second}, {slowLeast - 1, time.Minute, 0}, {slowLeast, 3 * time.Second, 3 * time.Second}, {0, 0, 0},
	} {
		if got := minute(c.n, c.each); got != c.want {
			t.Errorf("minute %d: %s, want %s", i, got, c.want)
		}
	}
	requests, sum = 1, time.Hour // the store was opened anew
	if got := look(at + slowLook); got != 0 {
		t.Errorf("opened anew: %s", got)
	}
}
