package series

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/openvstorage/ovgate/gateway/observe"
)

const (
	// MaxPoints bounds the points of an answer.
	MaxPoints = 1000
	// maxAsking bounds the queries that read files at a time.
	maxAsking = 2
	// Longest is how far back history reaches.
	Longest = 90 * 24 * time.Hour
)

// steps are those of answers, in seconds: what people count in.
var steps = []int64{1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 2 * 3600, 3 * 3600, 6 * 3600, 12 * 3600, 24 * 3600}

// StepFor returns the shortest step with which so many points reach from one time to another,
// in seconds, and where the first of them begins. points is 2 to MaxPoints, from before to, and
// both no more than Longest apart.
func StepFor(from, to int64, points int) (step, begin int64) {
	for _, step = range steps {
		if begin = floor(from, step); (to-begin+step-1)/step <= int64(points) {
			return step, begin
		}
	}
	for ; ; step += steps[len(steps)-1] { // few points for a long time
		if begin = floor(from, step); (to-begin+step-1)/step <= int64(points) {
			return step, begin
		}
	}
}

// span is what an object did for some time.
type span struct {
	at, width int64   // seconds
	ran       float64 // of width
	gauges    bool    // of its figures only those that shorter steps lack
	figures
	latencies observe.PackedLatencies
	scale     float64 // of latencies
}

// Query returns the points of an object from one time to another in steps of so many seconds,
// all in seconds since 1970; from is a multiple of step. Times in which the node did not run, or
// of which nothing is known any more, have no point. Latencies are those of points if they are asked
// for. Files that cannot be read are left out, and Err tells why.
func (s *Store) Query(ctx context.Context, id string, from, to, step int64, latencies bool) ([]Point, error) {
	n := (to - from + step - 1) / step
	if step <= 0 || n <= 0 || n > MaxPoints {
		return nil, fmt.Errorf("%d points of %d s from %d to %d", n, step, from, to)
	}
	select {
	case s.asking <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-s.asking }()
	sums, ran := make([]mean, n), make([]float64, n)
	var before float64 // what was stored before the first point
	spread := func(p span, with func(i int64, seconds float64)) {
		for at := max(p.at, from); at < min(p.at+p.width, to); {
			i := (at - from) / step
			end := min(p.at+p.width, from+(i+1)*step)
			with(i, float64(end-at)*p.ran/float64(p.width))
			at = end
		}
	}
	own, node, err := s.spans(ctx, id, from, to, step, latencies)
	if err != nil {
		return nil, err
	}
	for _, p := range node {
		spread(p, func(i int64, seconds float64) { ran[i] += seconds })
	}
	for _, p := range own {
		if p.at < from {
			before = max(before, p.figures[stored])
		}
		spread(p, func(i int64, seconds float64) {
			if p.gauges {
				sums[i].gauge(p.figures, seconds)
			} else {
				sums[i].add(p.figures, seconds)
				sums[i].count(p.latencies, p.scale, seconds)
			}
		})
	}
	out := make([]Point, 0, n)
	for i := range sums {
		if ran[i] == 0 && sums[i].seconds == 0 {
			continue
		}
		f := sums[i].over(ran[i])
		if f[stored] == 0 {
			f[stored] = before
		}
		before = f[stored]
		p := f.point(from + int64(i)*step)
		if latencies && (sums[i].latencies != nil || !p.Active()) {
			l := sums[i].latenciesOver(ran[i])
			p.Latencies = &l
		}
		out = append(out, p)
	}
	return out, nil
}

// spans returns what is known of an object, and of the time in which the node ran.
func (s *Store) spans(ctx context.Context, id string, from, to, step int64, latencies bool) (own, node []span, err error) {
	var ring []observe.Sample
	if step < fine.step {
		ring = s.opt.Sampler.Series(id, observe.Keep)
	}
	v := s.look(id, from, to, step, ring)
	own, node = v.own, v.node
	var seconds, ticks []span
	width := map[int64]int64{}
	last := int64(0)
	for _, at := range v.ticks {
		width[at] = 1
		if gap := at - last; gap > 1 && gap <= jump {
			width[at] = gap
		}
		last = at
		if at < v.since {
			continue
		}
		ticks = append(ticks, span{at: at + 1 - width[at], width: width[at], ran: float64(width[at])})
	}
	for _, r := range ring {
		at := r.Time.Unix()
		if w := width[at]; w > 0 && at >= v.since {
			seconds = append(seconds, span{at: at + 1 - w, width: w, ran: float64(w), figures: figuresOf(r), latencies: r.Latencies, scale: observe.LatencyScale})
		}
	}
	for _, f := range v.files {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		mine, nodes, err := s.pointsOf(f, id, latencies)
		if err != nil {
			s.told(err)
			continue
		}
		own = append(own, v.placed(f, mine)...)
		node = append(node, v.known(v.placed(f, nodes))...)
	}
	return append(without(own, seconds), seconds...), append(v.known(without(node, ticks)), ticks...), nil
}

// without takes what steps of a second tell out of the span of steps in which they begin, which then is of the time
// before them, and of what they lack.
func without(spans, seconds []span) []span {
	if len(seconds) == 0 {
		return spans
	}
	begin := seconds[0].at
	out := spans[:0:0]
	for _, p := range spans {
		end := p.at + p.width
		if p.gauges || p.at >= begin || end <= begin {
			out = append(out, p)
			continue
		}
		var told mean
		for _, s := range seconds {
			if s.at < end {
				told.add(s.figures, s.ran)
				told.count(s.latencies, s.scale, s.ran)
			}
		}
		before, later := p.part(begin-p.at, told), p
		later.at, later.width, later.ran, later.gauges = begin, end-begin, min(told.seconds, p.ran), true
		out = append(out, before, later)
	}
	return out
}

// noise is the part of a sum that is rounding: what is stored tells hundredths of a command apart.
const noise = 1e-3

// part returns the first seconds of a span, of which the others are told.
func (p span) part(width int64, told mean) span {
	ran := max(0, p.ran-told.seconds)
	whole := p.ran
	p.width, p.ran = width, ran
	for _, i := range rates {
		rest := p.figures[i]*whole - told.sum[i]
		if rest <= noise*p.figures[i]*whole || ran == 0 {
			rest = 0
		}
		p.figures[i] = ratio(rest, ran)
	}
	if p.figures[readIOPS] == 0 {
		p.figures[readP50], p.figures[readP99] = 0, 0
	}
	if p.figures[writeIOPS] == 0 {
		p.figures[writeP50], p.figures[writeP99] = 0, 0
	}
	l, err := p.latencies.Unpack(p.scale)
	if p.latencies == "" || err != nil || told.latencies == nil {
		return p
	}
	l.Over(1 / whole) // commands
	rest := observe.Latencies{}
	rest.Reads, rest.Writes = left(l.Reads, told.latencies.Reads), left(l.Writes, told.latencies.Writes)
	rest.Over(ran)
	p.latencies = rest.Pack(p.scale)
	return p
}

// left returns what is in all and was not told, by bucket.
func left(all, told [observe.LatencyBuckets]float64) (out [observe.LatencyBuckets]float64) {
	for i := range all {
		if rest := all[i] - told[i]; rest > noise*all[i] {
			out[i] = rest
		}
	}
	return out
}

// place is a file.
type place struct {
	tier
	begin int64
}

// pointsOf reads the points of an object, with latencies if they are asked for, and of the node.
func (s *Store) pointsOf(f place, id string, latencies bool) (own, node []point, err error) {
	r, err := openFile(s.fs, f.name(f.begin), f.begin, f.step, f.places())
	if err == nil {
		defer r.close()
		if own, err = r.points(id, latencies); err == nil {
			if node, err = r.points(observe.Node, false); err == nil {
				return own, node, nil
			}
		}
	}
	return nil, nil, s.unread(f.tier, f.begin, err)
}

// view is what a query reads, as it is at a moment.
type view struct {
	own, node []span // in memory
	ticks     []int64
	files     []place
	since     int64          // from then on there are steps of a second
	skip      map[int64]bool // blocks that a finer file has
}

const never = int64(1) << 62

// look finds what a query reads.
func (s *Store) look(id string, from, to, step int64, ring []observe.Sample) view {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := view{since: never, skip: map[int64]bool{}}
	if len(ring) > 0 {
		v.ticks = slices.Clone(s.ticks[max(0, len(s.ticks)-observe.Keep):])
		slices.Sort(v.ticks)
		if len(v.ticks) > 0 {
			// Its ring may be younger: before, it did nothing, or there was no room for one.
			v.since = max(v.ticks[0], ring[0].Time.Unix())
		}
	}
	for begin := range s.files[fine] {
		w := coarse.begin(begin)
		if _, made := s.files[coarse][w]; made && step >= coarse.step && !s.dirty[w] {
			continue
		}
		v.skip[begin] = true
		if begin < to && begin+2*fine.length > from { // one more, for what was stored before
			v.files = append(v.files, place{fine, begin})
		}
	}
	for begin := range s.files[coarse] {
		if begin < to && begin+coarse.length > from {
			v.files = append(v.files, place{coarse, begin})
		}
	}
	slices.SortFunc(v.files, func(a, b place) int { return int(a.begin - b.begin) })
	for _, b := range s.waiting {
		v.add(b, id)
	}
	if s.open != nil {
		v.add(s.open, id)
	}
	return v
}

// add adds a block in memory.
func (v *view) add(b *block, id string) {
	for _, name := range []string{id, observe.Node} {
		o := b.series[name]
		if o == nil {
			continue
		}
		spans := v.placed(place{fine, b.begin}, o.points)
		if o.now.seconds > 0 {
			at := b.begin + int64(b.step)*fine.step
			spans = append(spans, span{at: at, width: fine.step, ran: b.ran, gauges: at >= v.since, figures: o.now.over(b.ran), latencies: o.now.packed(b.ran), scale: latencyScale})
		}
		if name == id {
			v.own = append(v.own, spans...)
		}
		if name == observe.Node {
			v.node = append(v.node, v.known(spans)...)
		}
	}
}

// placed turns points of a file into spans.
func (v *view) placed(f place, points []point) (out []span) {
	for _, p := range points {
		at := f.begin + int64(p.at)*f.step
		if f.tier == coarse && v.skip[at] {
			continue
		}
		out = append(out, span{at: at, width: f.step, ran: float64(f.step), gauges: at >= v.since, figures: p.figures, latencies: p.latencies, scale: latencyScale})
	}
	return out
}

// known leaves out spans of the node for which there are steps of a second.
func (v *view) known(spans []span) []span {
	return slices.DeleteFunc(slices.Clone(spans), func(p span) bool { return p.gauges })
}
