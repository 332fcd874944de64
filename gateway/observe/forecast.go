package observe

import "time"

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
	// forecastPlaces bounds what has a history (V1).
	forecastPlaces = 1024
)

// Forecast tells when places are full, from how they filled in the last day. It is kept in
// memory: a node that started begins anew. The zero value is ready; not safe for concurrent
// use.
type Forecast struct{ places map[Place]*history }

// Place is something that fills: as its cause names it.
type Place struct{ Object, What string } // "vpool gold", "The backend of vPool gold"

type history struct {
	total   int64
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
	n := len(h.at)
	if n > 0 && now.Sub(h.at[n-1]) < forecastStep {
		return
	}
	if n >= forecastKeep {
		h.at, h.used = h.at[1:], h.used[1:]
	}
	h.at, h.used = append(h.at, now), append(h.used, s.Total-s.Free)
}

// left returns the time until free is used up, by the line through the samples that is off
// least; false: it does not fill, or too little is known.
func (h *history) left(free int64) (time.Duration, bool) {
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
	rate := (float64(n)*stu - st*su) / div // bytes a second
	if rate <= 0 {
		return 0, false
	}
	if seconds := float64(free) / rate; seconds < forecastWarn.Seconds()+1 {
		return time.Duration(seconds * float64(time.Second)), true
	}
	return 0, false
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
