package observe

import (
	"cmp"
	"fmt"
	"math"
	"path"
	"slices"
	"strings"
	"time"
)

// ThresholdCode is the code of the cause of a threshold that is passed.
const ThresholdCode = "threshold"

const (
	// MeasureEvery is how often values are taken.
	MeasureEvery = 10 * time.Second
	// maxPassing bounds the objects of one threshold that are followed: that there are many
	// is then known.
	maxPassing = 1000
	// forgetValue is how long what was measured counts, at least, while nothing is.
	forgetValue = time.Minute
)

// Threshold is a rule that tells when a metric of objects is above or below a value.
type Threshold struct {
	Name, Metric string
	// Object is a pattern of path.Match over objects, such as "vdisk db*"; empty: all.
	Object string
	Below  bool // it tells when the value is below Value, else above
	// Value is where it begins, Clear where it is over: hysteresis. Both in the metric's unit.
	Value, Clear float64
	For          time.Duration // for how long the value has to be there
	Level        Level
	Off          bool
	Own          bool // it is none of DefaultThresholds
}

// DefaultThresholds are those that every installation has. What is much depends on the site:
// all but one are off, and say what could be asked.
func DefaultThresholds() []Threshold {
	const ms = 1000 // in us
	return []Threshold{
		{Name: "cache-hits", Metric: "node.cache_hits", Below: true, Value: 20, Clear: 30, For: time.Hour, Level: Warning, Off: true},
		{Name: "dtl-lag", Metric: "vdisk.dtl_lag", Value: 1000 * ms, Clear: 500 * ms, For: 5 * time.Minute, Level: Warning, Off: true},
		{Name: "journal", Metric: "vdisk.journal_used", Value: 90, Clear: 80, For: 10 * time.Minute, Level: Bad},
		{Name: "read-latency", Metric: "vdisk.read_latency_p99", Value: 100 * ms, Clear: 50 * ms, For: 10 * time.Minute, Level: Warning, Off: true},
		{Name: "store-latency", Metric: "vpool.request_latency", Value: 1000 * ms, Clear: 500 * ms, For: 10 * time.Minute, Level: Warning, Off: true},
		{Name: "vdisk-space", Metric: "vdisk.space_used", Value: 90, Clear: 85, For: 10 * time.Minute, Level: Warning, Off: true},
		{Name: "vpool-space", Metric: "vpool.space_used", Value: 75, Clear: 70, For: time.Hour, Level: Warning, Off: true},
		{Name: "write-latency", Metric: "vdisk.write_latency_p99", Value: 100 * ms, Clear: 50 * ms, For: 10 * time.Minute, Level: Warning, Off: true},
	}
}

// passes tells whether a value is beyond Value, cleared whether it is back beyond Clear.
func (t Threshold) passes(v float64) bool { return t.Below && v < t.Value || !t.Below && v > t.Value }

func (t Threshold) cleared(v float64) bool {
	return t.Below && v >= t.Clear || !t.Below && v <= t.Clear
}

// covers tells whether it is for an object.
func (t Threshold) covers(object string) bool {
	if t.Object == "" {
		return true
	}
	ok, err := path.Match(t.Object, object)
	return ok && err == nil
}

// ThresholdCheck is a threshold that is passed.
type ThresholdCheck struct {
	Threshold
	Objects []Passed // by name; maxPassing at most
}

// Passed is an object that passes a threshold.
type Passed struct {
	Object string
	V      float64 // when it was told first
}

// check tells of all objects at once: what makes one slow makes many slow.
func (c ThresholdCheck) check(add addCause) {
	m, ok := MetricOf(c.Metric)
	if !ok || len(c.Objects) == 0 {
		return
	}
	names := make([]string, 0, len(c.Objects))
	for _, o := range c.Objects {
		names = append(names, fmt.Sprintf("%s (%s)", o.Object, m.Unit.Format(o.V)))
	}
	side := "above"
	if c.Below {
		side = "below"
	}
	during := ""
	if c.For > 0 {
		during = " for " + c.For.String()
	}
	add(c.Level, "threshold", "threshold "+c.Name, m.Remedy+"; ovgate alert threshold set "+c.Name+" changes what is told",
		"%s %s %s%s: %s", m.Means, side, m.Unit.Format(c.Value), during, some(names))
}

// Thresholds follows which thresholds are passed. The zero value is ready; not safe for
// concurrent use.
//
//	TH1  A threshold is passed by an object whose value was beyond Value at every look for For;
//	     that is over at the first look at which it is back at Clear, the object is gone, or the
//	     threshold is off or changed.
//	TH2  While nothing is measured of an object that is there, what was measured last counts
//	     for For, or a minute if that is longer.
//	TH3  Bounded: objects per threshold, and thresholds by who sets them.
type Thresholds struct {
	meter   meter
	at      time.Time
	started bool
	rules   map[string]*passing
}

// passing is what a threshold is passed by.
type passing struct {
	rule    Threshold
	objects map[string]*crossing // by id
}

type crossing struct {
	object      string
	since, last time.Time // of the first and newest value beyond
	told        bool
	v           float64 // when it was told
	seen        bool    // at this look
}

// Due tells whether it is time to look again.
func (t *Thresholds) Due(now time.Time) bool { return !t.started || now.Sub(t.at) >= MeasureEvery }

// Known tells whether the figures of an idle vDisk, after so many requests, are those of the
// last look: then IdleFigures tell all.
func (t *Thresholds) Known(id string, requests uint64) bool { return t.meter.known(id, requests) }

// Observe takes figures at now, and returns the thresholds that are passed, by name.
func (t *Thresholds) Observe(now time.Time, rules []Threshold, f Figures) []ThresholdCheck {
	t.at, t.started = now, true
	return t.follow(now, rules, t.meter.measure(now, f, func(metric string) bool {
		return slices.ContainsFunc(rules, func(r Threshold) bool { return !r.Off && r.Metric == metric })
	}))
}

// follow takes values by metric.
func (t *Thresholds) follow(now time.Time, rules []Threshold, values map[string][]Value) []ThresholdCheck {
	next := map[string]*passing{}
	var out []ThresholdCheck
	for _, r := range rules {
		if r.Off {
			continue
		}
		p := t.rules[r.Name]
		if p == nil || p.rule != r {
			p = &passing{rule: r, objects: map[string]*crossing{}}
		}
		next[r.Name] = p
		p.look(now, values[r.Metric])
		if told := p.told(); len(told) > 0 {
			out = append(out, ThresholdCheck{r, told})
		}
	}
	t.rules = next
	slices.SortFunc(out, func(a, b ThresholdCheck) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// look follows the values of a threshold's metric.
func (p *passing) look(now time.Time, values []Value) {
	r := p.rule
	for _, v := range values {
		if !r.covers(v.Object) {
			continue
		}
		c := p.objects[v.ID]
		switch {
		case math.IsNaN(v.V):
			if c == nil || now.Sub(c.last) > max(r.For, forgetValue) {
				continue
			}
		case c != nil && c.told && r.cleared(v.V), (c == nil || !c.told) && !r.passes(v.V):
			continue
		case c == nil:
			if len(p.objects) >= maxPassing {
				continue
			}
			c = &crossing{since: now, last: now}
			p.objects[v.ID] = c
		default:
			c.last = now
		}
		c.object, c.seen = v.Object, true
		if !c.told && !math.IsNaN(v.V) && now.Sub(c.since) >= r.For {
			c.told, c.v = true, v.V
		}
	}
	for id, c := range p.objects {
		if !c.seen {
			delete(p.objects, id)
		}
		c.seen = false
	}
}

func (p *passing) told() []Passed {
	var out []Passed
	for _, c := range p.objects {
		if c.told {
			out = append(out, Passed{c.object, c.v})
		}
	}
	slices.SortFunc(out, func(a, b Passed) int { return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.V, b.V)) })
	return out
}

// JoinThresholds puts together what two nodes tell of one threshold.
func JoinThresholds(a, b string) string {
	const most = 1000
	if a == b || len(a) >= most || strings.HasSuffix(a, b) {
		return a
	}
	return a + "; " + b
}
