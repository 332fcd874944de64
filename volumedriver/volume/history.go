package volume

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// MaxMoments bounds one answer of History.
const MaxMoments = 1000

// Point names a point of a vDisk's log. The zero Point is now.
type Point struct {
	Snapshot string    // name or UUID of a snapshot
	At       time.Time // the newest recoverable moment at or before it
}

func (pt Point) check() error {
	if pt.Snapshot != "" && !pt.At.IsZero() {
		return fmt.Errorf("%w: a point is a snapshot or a time, not both", ErrInvalid)
	}
	return nil
}

// Moment is a point that can be cloned and rolled back to: the end of an SCO, which
// holds all writes up to it and none after it.
type Moment struct {
	Time     time.Time // of its newest write
	Seq      uint64    // of its newest write; 0: the vDisk as it was created
	Snapshot string    // name, if it is one
}

// HistoryQuery asks for the moments in [From, To]; zero times ask for all.
type HistoryQuery struct {
	From, To time.Time
	Limit    int // 1 to MaxMoments; 0: MaxMoments
}

// History is the past of a vDisk that can be gone back to.
type History struct {
	// From and To bound it. Any time between them can be asked for: the moment that
	// counts is the newest at or before it.
	From, To time.Time
	Moments  []Moment // oldest first
	More     bool     // there are more than Limit after the last one
}

// historyFor returns how far back the moments of a vDisk are kept; 0: they are not.
func (p *Pool) historyFor(id ID) time.Duration {
	if p.cfg.HistoryOf != nil {
		if h, own := p.cfg.HistoryOf(id); own {
			return h
		}
	}
	return p.Settings().History
}

// window returns since when the history of a vDisk is kept: as long as its own or the
// vPool's setting says, or since it was created.
func (p *Pool) window(st *state) int64 {
	from := st.head.Created
	if h := p.historyFor(st.head.VDisk); h > 0 {
		from = max(from, p.host.now()-int64(h))
	}
	return from
}

// History lists recoverable moments of a vDisk, open or closed, as far as they are
// on the backend. What a rollback left behind is part of it.
func (p *Pool) History(ctx context.Context, id ID, q HistoryQuery) (History, error) {
	if q.Limit < 0 || q.Limit > MaxMoments {
		return History{}, fmt.Errorf("vdisk %s: %w: limit %d is outside 1 to %d", id, ErrInvalid, q.Limit, MaxMoments)
	}
	if q.Limit == 0 {
		q.Limit = MaxMoments
	}
	for try := 1; ; try++ {
		st, rec, err := p.stateOf(ctx, id)
		if err != nil {
			return History{}, err
		}
		h, err := p.historyOf(ctx, st, q)
		if err == nil || try == maxClaims || !p.movedOn(ctx, id, rec.Head, err) {
			return h, err
		}
	}
}

// historyOf lists the moments of a state.
func (p *Pool) historyOf(ctx context.Context, st *state, q HistoryQuery) (History, error) {
	h := History{From: time.Unix(0, p.window(st)), To: time.Unix(0, st.head.Time)}
	from, to := h.From.UnixNano(), st.head.Time
	if !q.From.IsZero() {
		from = max(from, q.From.UnixNano())
	}
	if !q.To.IsZero() {
		to = min(to, q.To.UnixNano())
	}
	l := &historyList{st: st, limit: q.Limit, out: &h, names: map[uint64]string{}}
	for _, pin := range st.past.Pins {
		l.names[pin.Seq] = pin.Name
	}
	if from <= st.head.Created && to >= st.head.Created {
		l.add(point{0, st.head.Created})
	}
	err := l.walk(ctx, p.logReader(st.head.VDisk, st.head.Epochs), from, to)
	return h, err
}

// historyList gathers moments.
type historyList struct {
	st    *state
	names map[uint64]string
	limit int
	out   *History
}

func (l *historyList) add(pt point) bool {
	if len(l.out.Moments) == l.limit {
		l.out.More = true
		return false
	}
	l.out.Moments = append(l.out.Moments, Moment{Time: time.Unix(0, pt.time), Seq: pt.seq, Snapshot: l.names[pt.seq]})
	return true
}

// walk adds the points of each line for the time that it was the vDisk's.
func (l *historyList) walk(ctx context.Context, r *logReader, from, to int64) error {
	start := int64(0)
	for _, line := range l.st.lines() {
		lo, hi := max(from-1, start-1), min(to, line.Until-1)
		start = line.Until
		if hi <= lo || l.out.More {
			continue
		}
		if err := r.points(ctx, line.Runs, lo, hi, l.add); err != nil {
			return err
		}
	}
	return nil
}

func unixTime(ns int64) time.Time { return time.Unix(0, ns) }

// resolved is a Point found in a log.
type resolved struct {
	line []Run // a log that goes through seq
	seq  uint64
	time int64
	pin  *Pin // if it is a snapshot
}

// resolve finds a point in a committed state. Errors: ErrInvalid, ErrNoPoint.
func (p *Pool) resolve(ctx context.Context, st *state, pt Point) (resolved, error) {
	id := st.head.VDisk
	switch {
	case pt.check() != nil:
		return resolved{}, fmt.Errorf("vdisk %s: %w", id, pt.check())
	case pt.Snapshot != "":
		i := slices.IndexFunc(st.past.Pins, func(pin Pin) bool { return named(pt.Snapshot)(&pin) })
		if i < 0 {
			return resolved{}, fmt.Errorf("vdisk %s: %w: it has no snapshot %q", id, ErrNoPoint, pt.Snapshot)
		}
		pin := &st.past.Pins[i]
		return resolved{st.log(), pin.Seq, pin.Time, pin}, nil
	case pt.At.IsZero():
		return resolved{st.log(), lastSeq(st.log()), st.head.Time, nil}, nil
	}
	at, from := pt.At.UnixNano(), p.window(st)
	if at < from || at > max(p.host.now(), st.head.Time) {
		return resolved{}, fmt.Errorf("vdisk %s: %w: %s is outside its history, which goes from %s to now", id, ErrNoPoint,
			pt.At.UTC().Format(time.RFC3339Nano), time.Unix(0, from).UTC().Format(time.RFC3339Nano))
	}
	for _, line := range st.lines() {
		if at < line.Until {
			found, err := p.logReader(id, st.head.Epochs).atTime(ctx, line.Runs, at)
			if found.seq == 0 {
				found.time = st.head.Created
			}
			return resolved{line.Runs, found.seq, found.time, nil}, err
		}
	}
	panic("volume: the last line has no end")
}
