package observe

import (
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
