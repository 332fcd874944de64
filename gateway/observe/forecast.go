package observe

import (
	"cmp"
	"slices"
	"time"
)

const (
	// forecastStep is the time between samples of a forecast, forecastKeep how many there
	// are: a day, in which what is done daily is seen once.
	forecastStep = 10 * time.Minute
	forecastKeep = 144
	// forecastLeast is the history without which nothing is foretold: a copy of a large
	// vDisk is no trend.
	forecastLeast = 6 * time.Hour
	// forecastWarn and forecastBad are the times until a place is full.
	forecastWarn, forecastBad = 7 * 24 * time.Hour, 24 * time.Hour
	// forecastFar is beyond what a line through one day says anything about.
	forecastFar = 365 * 24 * time.Hour
	// forecastPlaces bounds what has a history (V1).
	forecastPlaces = 1024
)

// Forecast tells when places are full, from how they filled in the last day. It is kept in
// memory: a node that started begins anew. The zero value is ready; not safe for concurrent
// use.
type Forecast struct{ places map[Place]*history }

// Place is something that fills: as its cause names it.
type Place struct{ Object, What string } // "vpool gold", "The backend of vPool gold"

// Never is the time until a place is as full as it does not get: it does not fill, or only after a year.
const Never = time.Duration(-1)

// Trend is how a place fills.
type Trend struct {
	Place
	Space
	// Known tells whether there is history enough; without it, both times are Never.
	Known bool
	// To80 and To100 are the times until 80 and 100 percent are used; 0: they are.
	To80, To100 time.Duration
}

type history struct {
	total   int64
	free    int64       // as of the last look
	at      []time.Time // with the monotonic clock
	used    []int64
	visited bool
}

// Space is how full a place is, in bytes.
type Space struct{ Total, Free int64 }

// Full takes how full places are at now, and returns the time until each is full, of those
// where it is at most forecastWarn. A place that is left out loses its history, and one
// whose size changed begins a new one.
func (f *Forecast) Full(now time.Time, places map[Place]Space) map[Place]time.Duration {
	if f.places == nil {
		f.places = map[Place]*history{}
	}
	out := map[Place]time.Duration{}
	for p, s := range places {
		h := f.places[p]
		if h == nil {
			if s.Total <= 0 || len(f.places) >= forecastPlaces {
				continue
			}
			h = &history{}
			f.places[p] = h
		}
		h.visited = true
		h.add(now, s)
		if left, ok := h.left(s.Free); ok && left <= forecastWarn {
			out[p] = left
		}
	}
	for p, h := range f.places {
		if !h.visited {
			delete(f.places, p)
		}
		h.visited = false
	}
	return out
}

func (h *history) add(now time.Time, s Space) {
	if s.Total != h.total {
		h.total, h.at, h.used = s.Total, nil, nil
	}
	h.free = s.Free
	n := len(h.at)
	if n > 0 && now.Sub(h.at[n-1]) < forecastStep {
		return
	}
	if n >= forecastKeep {
		h.at, h.used = h.at[1:], h.used[1:]
	}
	h.at, h.used = append(h.at, now), append(h.used, s.Total-s.Free)
}

// left returns the time until free is used up; false: it does not fill, or too little is known.
func (h *history) left(free int64) (time.Duration, bool) {
	rate, ok := h.rate()
	if !ok || rate <= 0 {
		return 0, false
	}
	left := until(free, rate)
	return left, left != Never
}

// until returns when so many bytes are used at a rate.
func until(bytes int64, rate float64) time.Duration {
	if bytes <= 0 {
		return 0
	}
	if rate <= 0 || float64(bytes)/rate > forecastFar.Seconds() {
		return Never
	}
	return time.Duration(float64(bytes) / rate * float64(time.Second))
}

// Trends returns how the places of the last look fill: those that are full soonest first, then the fullest.
func (f *Forecast) Trends() []Trend {
	out := make([]Trend, 0, len(f.places))
	for p, h := range f.places {
		if h.total <= 0 {
			continue // it is away
		}
		t := Trend{Place: p, Space: Space{Total: h.total, Free: h.free}, To80: Never, To100: Never}
		if rate, ok := h.rate(); ok {
			t.Known = true
			t.To80, t.To100 = until(h.free-h.total/5, rate), until(h.free, rate)
		}
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b Trend) int {
		return cmp.Or(
			cmp.Compare(uint64(a.To100), uint64(b.To100)), // Never is last
			cmp.Compare(float64(a.Free)/float64(a.Total), float64(b.Free)/float64(b.Total)),
			cmp.Compare(a.Object, b.Object), cmp.Compare(a.What, b.What))
	})
	return out
}

// rate returns in bytes a second how a place fills, by the line through the samples that is off least; false: too
// little is known.
func (h *history) rate() (float64, bool) {
	n := len(h.at)
	if n < 3 || h.at[n-1].Sub(h.at[0]) < forecastLeast {
		return 0, false
	}
	var st, su, stt, stu float64
	for i := range n {
		t, u := h.at[i].Sub(h.at[0]).Seconds(), float64(h.used[i]-h.used[0])
		st, su, stt, stu = st+t, su+u, stt+t*t, stu+t*u
	}
	div := float64(n)*stt - st*st
	if div <= 0 {
		return 0, false
	}
	return (float64(n)*stu - st*su) / div, true
}

// Places are those of the checks that fill.
func (c Checks) Places() map[Place]Space {
	out := map[Place]Space{{"", "The data directory's disk"}: {c.LocalTotal, c.LocalFree}}
	for _, p := range c.Pools {
		out[Place{"vpool " + p.Name, "The backend of vPool " + p.Name}] = Space{p.Total, p.Free}
	}
	if c.Alba != nil {
		used, free := c.Alba.space()
		out[Place{"object store", "The object store"}] = Space{used + free, free}
	}
	return out
}

func checkForecast(full map[Place]time.Duration, add addCause) {
	for p, left := range full {
		level, in := Warning, plural(int(left/(24*time.Hour)), "day")
		if left < forecastBad {
			level, in = Bad, plural(int(left/time.Hour), "hour")
		}
		add(level, "space_forecast", p.Object, "add space, or delete vDisks and snapshots, before that", "%s is full in %s if it goes on filling as in the last day", p.What, in)
	}
}
