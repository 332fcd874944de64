package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/openvstorage/ovgate/volumedriver/sco"
	"github.com/openvstorage/ovgate/volumedriver/scrub"
	"github.com/openvstorage/ovgate/volumedriver/tlog"
)

// errStale: what the unit assumed has changed; it is planned anew.
var errStale = errors.New("the vdisk has changed since the scrub looked at it")

// applyScrub makes the result of a unit part of the vDisk: one head with the new log,
// which condemns what it replaces. errStale: nothing changed.
func (v *Volume) applyScrub(ctx context.Context, pl *scrubPlan, res *scrub.Result) error {
	if err := pl.verify(res); err != nil {
		return fmt.Errorf("vdisk %s: %w", v.id, err)
	}
	var stored int64
	made := &tlog.TLog{}
	for _, out := range res.Segments {
		for _, t := range out.TLogs {
			for _, e := range t.Entries {
				if pl.isNew(e.Footer) {
					made.Entries = append(made.Entries, e)
					stored += e.Bytes
				}
			}
		}
	}
	condemn := make([]string, len(pl.doomed))
	gone := map[uint32]bool{}
	for i, d := range pl.doomed {
		condemn[i] = d.Name
		stored -= d.Bytes
		if n, ok := parseSCOName(d.Name); ok {
			gone[n] = true
		}
	}
	runs, before := pl.newLog(res)
	return v.up.ask(&headRequest{ctx: ctx, condemn: condemn, checkpoint: true,
		begin: func() error { return v.up.beginScrub(pl) },
		change: func(h *Head) {
			h.FirstTLog, h.Scrubbed = pl.st.head.NextTLog, v.timestamp()
			h.NextMovedSCO, h.NextMovedTLog = max(h.NextMovedSCO, pl.unit.EndSCO), max(h.NextMovedTLog, pl.unit.EndTLog)
			h.Stored = max(0, h.Stored+stored)
		},
		past: func(p *Past) {
			p.Runs, p.Before, p.FirstSeq = runs, before, pl.st.head.LastSeq+1
		},
		after: func(*Head) {
			v.up.applyMoved(made)
			v.mapMu.Lock()
			v.own.scos.drop(gone)
			v.mapMu.Unlock()
			v.dropped.Store(true)
		}})
}

// isNew reports whether an SCO was made by the unit.
func (pl *scrubPlan) isNew(f *sco.Footer) bool {
	return f.Epoch == pl.unit.Epoch && f.Nonce == pl.unit.Nonce && f.Number >= pl.unit.FirstSCO && f.Number < pl.unit.EndSCO
}

// parseSCOName reads the number from the name of an SCO.
func parseSCOName(name string) (number uint32, ok bool) {
	d, err := parseDataName(name)
	return d.number, err == nil && d.dir == scoDir
}

// verify asserts that a result is one of the unit: it names each live cluster once,
// in SCOs that the segment had and keeps, or in new ones (R2).
func (pl *scrubPlan) verify(res *scrub.Result) error {
	if len(res.Segments) != len(pl.unit.Segments) {
		return fmt.Errorf("%w: scrub result of %d segments, not %d", ErrCorrupt, len(res.Segments), len(pl.unit.Segments))
	}
	i := 0
	for k := range pl.segments {
		s := &pl.segments[k]
		if !s.chosen {
			continue
		}
		if err := pl.verifySegment(s, res.Segments[i].TLogs); err != nil {
			return err
		}
		i++
	}
	return nil
}

// verifySegment is verify for a segment.
func (pl *scrubPlan) verifySegment(s *scrubSegment, list []*tlog.TLog) error {
	u := &pl.unit
	live, moved := map[uint32]int{}, 0
	for i, t := range list {
		if t.Epoch != u.Epoch || t.Nonce != u.Nonce || t.Number < u.FirstTLog || t.Number >= u.EndTLog || t.Number != list[0].Number+uint32(i) || !t.Collected {
			return fmt.Errorf("%w: scrub result with tlog %d", ErrCorrupt, t.Number)
		}
		for _, e := range t.Entries {
			f := e.Footer
			if f.FirstSeq != s.def.FirstSeq || f.LastSeq != s.def.LastSeq {
				return fmt.Errorf("%w: scrub result with seqs %d to %d", ErrCorrupt, f.FirstSeq, f.LastSeq)
			}
			n := 0
			for _, x := range f.Extents {
				if x.Kind == sco.KindData {
					n += int(x.Length) * lbaBytes / u.Cluster
				}
			}
			if pl.isNew(f) {
				moved += n
			} else {
				live[f.Number] += n
			}
		}
	}
	for n, want := range s.survey.Live {
		if s.move[n] {
			moved -= want
			want = 0
		}
		if live[n] != want {
			return fmt.Errorf("%w: scrub result has %d clusters of sco %d, not %d", ErrCorrupt, live[n], n, want)
		}
		delete(live, n)
	}
	if moved != 0 || len(live) != 0 || len(list) == 0 {
		return fmt.Errorf("%w: scrub result moves %d clusters too many, and has %d other SCOs", ErrCorrupt, moved, len(live))
	}
	return nil
}

// newLog returns the log with the result in place of what was rewritten.
func (pl *scrubPlan) newLog(res *scrub.Result) (runs []Run, before []Line) {
	var placed []Run // by segment, those that are not chosen empty
	i := 0
	for k := range pl.segments {
		var r Run
		if s := &pl.segments[k]; s.chosen {
			l := res.Segments[i].TLogs
			i++
			r = Run{First: l[0].Number, End: l[len(l)-1].Number + 1, FirstSeq: s.def.FirstSeq, LastSeq: s.def.LastSeq, Epoch: pl.unit.Epoch, Nonce: pl.unit.Nonce}
		}
		placed = append(placed, r)
	}
	for i := range pl.lines {
		l := &pl.lines[i]
		out := pl.rewrite(l, placed)
		switch {
		case i == len(pl.lines)-1:
			runs = out
		case len(l.points) > 0:
			before = append(before, Line{Until: l.Until, Runs: out})
		}
	}
	return runs, before
}

// rewrite returns the runs of what is kept of a line. Those in which nothing changes
// stay the same, so that the maps of clones that start there stay valid.
func (pl *scrubPlan) rewrite(l *scrubLine, placed []Run) []Run {
	var out []Run
	for k := 0; k < l.end; {
		if s := pl.chosenAt(l, k); s != nil {
			out = append(out, placed[slices.IndexFunc(pl.segments, func(x scrubSegment) bool { return x.start == s.start })])
			k = s.end
			continue
		}
		end := k + 1
		for end < l.end && l.scos[end].run == l.scos[k].run && pl.chosenAt(l, end) == nil {
			end++
		}
		out = append(out, l.part(k, end))
		k = end
	}
	return out
}

// part returns the part of one run that has the SCOs [from, to).
func (l *scrubLine) part(from, to int) Run {
	first, last := &l.scos[from], &l.scos[to-1]
	r := l.Runs[first.run]
	if from > 0 && l.scos[from-1].run == first.run {
		r.First, r.FirstSeq = first.tlog, first.firstSeq
	}
	if to < len(l.scos) && l.scos[to].run == first.run {
		r.End, r.LastSeq = last.tlog+1, last.lastSeq
	}
	return r
}

// beginScrub decides, on the uploader's goroutine, whether a unit can be applied. From
// then on no clone starts from the vDisk until its head is committed.
func (u *uploader) beginScrub(pl *scrubPlan) error {
	v := u.v
	now := state{&u.head, u.past, u.ref}
	if v.this.Epoch != pl.unit.Epoch || now.logPrint() != pl.unit.Log || u.head.NextTLog < pl.st.head.NextTLog {
		return errStale
	}
	var refused error
	u.recMu.Lock()
	defer u.recMu.Unlock()
	err := u.persist(func(ctx context.Context) error {
		refused = u.markScrub(ctx, pl.unit.CloneGen)
		if refused == nil || errors.Is(refused, errStale) {
			return nil
		}
		return refused
	}, nil)
	if err != nil {
		return err
	}
	return refused
}

// markScrub notes in the registry that a head of a scrub is on its way, if the clones
// are those that it was planned with; recMu is held.
func (u *uploader) markScrub(ctx context.Context, cloneGen uint64) error {
	v := u.v
	for range maxClaims {
		if u.rec.CloneGen != cloneGen {
			cur, err := v.host.o.Registry.Load(ctx, v.id)
			if errors.Is(err, ErrNotFound) {
				return errStale
			}
			if err != nil {
				return err
			}
			if !cur.sameButClones(&u.rec) || cur.CloneGen != cloneGen {
				return errStale // or fenced: the next commit finds out
			}
			u.rec = cur
		}
		if u.rec.State == FlagScrub {
			return nil
		}
		next := u.rec
		next.State = FlagScrub
		err := v.p.swap(ctx, &u.rec, &next)
		if err == nil {
			u.rec = next
			return nil
		}
		if !errors.Is(err, ErrConflict) {
			return err
		}
		cur, err := v.host.o.Registry.Load(ctx, v.id)
		if errors.Is(err, ErrNotFound) {
			return errStale
		}
		if err != nil {
			return err
		}
		if !cur.sameButClones(&u.rec) || cur.equal(&u.rec) {
			return errStale
		}
		u.rec = cur
	}
	return errStale
}
