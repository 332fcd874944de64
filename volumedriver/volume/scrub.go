package volume

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/openvstorage/ovgate/volumedriver/scrub"
)

// A scrub gives back the space of what was overwritten or discarded, and of snapshots
// that were deleted (rule E8). The owner plans a unit of work from its committed log,
// any node can execute it (package scrub), and the owner applies the result with one
// head. A unit whose assumptions do not hold any more is planned anew.
//
// What it relies on, beside the rules of package scrub:
//
//	G1  Points of the log that are kept: snapshots, what clones start from, the moments
//	    of the history and the one at its start, the end. A segment lies between two of
//	    them, and where a line that is kept parts from another (R1).
//	G2  What is live in a segment at or below what a clone starts from is not moved: its
//	    locations are in maps of the clone, in memory and on disk, on any node. SCOs of
//	    which nothing is live at the end of such a segment are in no map, and go; so do
//	    TLogs, which a map is made anew from. The rest waits until the clone is gone or
//	    flattened.
//	G3  A segment is replaced in every line that has it, or in none: lines agree on the
//	    part that they share.
//	G4  Condemned is what a line named and no line names after it. The head that says
//	    the new log says so; nothing is deleted before the registry has that head.
//	G5  A clone is made while the record has the clones that the unit was planned with,
//	    or after its head: a scrub's mark in the record keeps them apart. If the head
//	    was cut off, the next open finds it, or makes it void, before it clears the mark.
//	G6  The map is changed in the commit that says the new log, before any object goes.
//	    A read that is older looks again.
//	G7  With the wall clock in doubt (E6) all moments stay.

const (
	// maxScrubUnits bounds the units of one scrub; a nightly one goes on tomorrow.
	maxScrubUnits = 64
	// maxScrubRetries bounds how often a unit is planned anew, because of clones that
	// come and go, before the scrub gives up.
	maxScrubRetries = 8
	// maxDoomedShown bounds the objects that a dry run lists.
	maxDoomedShown = 1000
	// scrubYield is how much longer than a step took a scrub pauses after it while
	// other requests are in flight: they get three quarters of the time.
	scrubYield = 3
	// minScrubPause and maxScrubPause bound such a pause: it is noticed, and a scrub
	// always goes on.
	minScrubPause = 2 * time.Millisecond
	maxScrubPause = time.Second
)

// ScrubOptions say how to scrub.
type ScrubOptions struct {
	// Rate bounds what is read and written, in bytes per second; 0: no bound.
	Rate int64
	// DryRun: plan, and change nothing.
	DryRun bool
	// Progress, if not nil, is told after each unit how far it is.
	Progress func(ScrubResult)
}

// ScrubResult tells what a scrub did, or would do. All sizes in bytes.
type ScrubResult struct {
	Units          int   // applied
	Stored         int64 // of the SCOs, before
	StoredAfter    int64 // and after
	Live           int64 // that count, of the SCOs that could be moved
	Read, Written  int64
	Moved          int64 // live data copied
	Condemned      int   // objects
	CondemnedBytes int64 // of them that are SCOs
	Deleted        int   // objects
	// Damaged are SCOs that could not be read back verified. They stay.
	Damaged []string
	// Doomed are objects that a dry run found; More: there are others.
	Doomed []DoomedObject
	More   bool
}

// Scrub scrubs a vDisk, which is opened for that if it is closed. Errors: ErrInUse
// while it is flattened or scrubbed, or its clones change all the time; ErrTemplate;
// ErrBackend; that of ctx. What was applied before an error stays.
func (p *Pool) Scrub(ctx context.Context, id ID, o ScrubOptions) (ScrubResult, error) {
	if v := p.Volume(id); v != nil {
		return v.Scrub(ctx, o)
	}
	done, err := p.begin(ctx, id)
	if err != nil {
		return ScrubResult{}, err
	}
	defer done()
	if v := p.Volume(id); v != nil {
		return v.Scrub(ctx, o)
	}
	v, err := p.openReserved(ctx, id)
	if err != nil {
		return ScrubResult{}, err
	}
	res, err := v.Scrub(ctx, o)
	if cerr := v.Close(ctx); err == nil {
		err = cerr
	}
	return res, err
}

// Scrub is Pool.Scrub of an open vDisk. It runs beside other requests and yields to
// them.
func (v *Volume) Scrub(ctx context.Context, o ScrubOptions) (ScrubResult, error) {
	if o.Rate < 0 {
		return ScrubResult{}, fmt.Errorf("vdisk %s: %w: rate %d is below 0", v.id, ErrInvalid, o.Rate)
	}
	if !o.DryRun {
		if err := v.p.mayDelete(ctx); err != nil {
			return ScrubResult{}, fmt.Errorf("vdisk %s: %w", v.id, err)
		}
	}
	ctx, end, err := v.beginWork(ctx)
	if err != nil {
		return ScrubResult{}, err
	}
	defer end()
	// What was acknowledged before is part of what is looked at.
	if err := v.Commit(ctx); err != nil {
		return ScrubResult{}, err
	}
	s := &scrubRun{v: v, o: o, policy: scrubPolicy{damaged: map[uint32]bool{}, history: v.historyFrom(), short: v.shortOfSpace(ctx)},
		pace: pacer{v: v, rate: o.Rate}}
	s.res.Stored = v.up.stored.Load()
	err = s.run(ctx)
	s.res.StoredAfter = v.up.stored.Load()
	if err != nil {
		err = fmt.Errorf("vdisk %s: scrub: %w", v.id, err)
	}
	return s.res, err
}

// historyFrom returns since when moments are kept; MaxInt64: none are.
func (v *Volume) historyFrom() int64 {
	if v.p.historyFor(v.id) == 0 {
		return math.MaxInt64
	}
	st := v.committedState.Load()
	if v.host.clockJumped() {
		v.log.Warn("wall clock jumped; the scrub keeps all moments until ovgate is restarted")
		return st.head.Created
	}
	return v.p.window(st)
}

// clockJumped reports whether the wall clock moved against the monotonic one since
// the host started.
func (h *Host) clockJumped() bool {
	now := h.o.Clock.Now()
	jump := now.Round(0).Sub(h.started.Round(0)) - now.Sub(h.started)
	return jump.Abs() > maxClockJump
}

// shortOfSpace reports whether the backend says that it is nearly full.
func (v *Volume) shortOfSpace(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, backendTimeout)
	defer cancel()
	u, err := v.p.cfg.Store.Usage(ctx)
	return err == nil && u.Total > 0 && float64(u.Free) < shortOfSpace*float64(u.Total)
}

// scrubRun is one scrub.
type scrubRun struct {
	v      *Volume
	o      ScrubOptions
	policy scrubPolicy
	pace   pacer
	res    ScrubResult
}

// run does one unit after the other until nothing is left to do.
func (s *scrubRun) run(ctx context.Context) error {
	if !s.o.DryRun { // what an earlier one did not get to
		n, err := s.v.deleteDoomed(ctx)
		if s.res.Deleted += n; err != nil {
			return fmt.Errorf("%w: what is condemned is deleted later: %w", ErrBackend, err)
		}
	}
	retries := 0
	for s.res.Units < maxScrubUnits {
		pl, err := s.v.planScrub(ctx, s.policy)
		if err != nil {
			return err
		}
		if s.res.Units == 0 {
			s.res.Live = pl.live
		}
		if s.o.DryRun {
			s.show(pl)
			return nil
		}
		if len(pl.doomed) == 0 {
			return nil
		}
		var damage *scrub.DamageError
		switch err := s.unit(ctx, pl); {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &damage) && !s.policy.damaged[damage.SCO]:
			s.v.log.Error("scrub found a damaged sco, which stays as it is", "object", damage.Name, "lba", damage.LBA, "err", damage.Err)
			s.v.stats.crcErrors.Add(1)
			s.policy.damaged[damage.SCO] = true
			s.res.Damaged = append(s.res.Damaged, damage.Name)
		case errors.Is(err, errStale):
			if retries++; retries > maxScrubRetries {
				return fmt.Errorf("%w: %w; try again", ErrInUse, err)
			}
		case err != nil:
			return err
		default:
			if s.o.Progress != nil {
				s.o.Progress(s.res)
			}
		}
	}
	return nil
}

// unit executes and applies a plan, then deletes what that condemned.
func (s *scrubRun) unit(ctx context.Context, pl *scrubPlan) error {
	v := s.v
	res, err := scrub.Execute(ctx, &scrub.Env{Store: v.p.cfg.Store, Pace: s.pace.wait,
		Call: func(ctx context.Context, call func(context.Context) error) error {
			return v.retry(ctx, math.MaxInt64/2, call)
		}}, &pl.unit)
	s.res.Read, s.res.Written = s.res.Read+res.Read, s.res.Written+res.Written
	v.stats.scrubRead.Add(uint64(res.Read))
	v.stats.scrubWritten.Add(uint64(res.Written))
	if err == nil {
		err = v.applyScrub(ctx, pl, res)
	}
	var damage *scrub.DamageError
	if errors.Is(err, errStale) || errors.As(err, &damage) {
		if derr := s.discard(ctx, res.Objects); derr != nil {
			return derr
		}
		return err
	}
	if err != nil {
		return err // objects that no head names are left to the sweep
	}
	s.res.Units++
	s.res.Condemned += len(pl.doomed)
	for i := range pl.segments {
		for n := range pl.segments[i].move {
			if pl.segments[i].chosen {
				s.res.Moved += int64(pl.segments[i].survey.Live[n]) * int64(v.cluster)
			}
		}
	}
	for _, d := range pl.doomed {
		s.res.CondemnedBytes += d.Bytes
	}
	n, err := v.deleteDoomed(ctx)
	s.res.Deleted += n
	if err != nil {
		return fmt.Errorf("%w: what is condemned is deleted later: %w", ErrBackend, err)
	}
	// A head that has nothing to finish.
	return v.up.ask(&headRequest{ctx: ctx})
}

// discard gives back what a unit wrote that is not applied, by the way of all
// deletes: a head condemns it first.
func (s *scrubRun) discard(ctx context.Context, names []string) error {
	if err := s.v.up.ask(&headRequest{ctx: ctx, condemn: names}); err != nil {
		return err
	}
	_, err := s.v.deleteDoomed(ctx)
	return err
}

// show reports a plan.
func (s *scrubRun) show(pl *scrubPlan) {
	s.res.Condemned, s.res.Moved = len(pl.doomed), pl.move
	for _, d := range pl.doomed {
		s.res.CondemnedBytes += d.Bytes
	}
	s.res.More = len(pl.doomed) > maxDoomedShown
	s.res.Doomed = pl.doomed[:min(len(pl.doomed), maxDoomedShown)]
}

// pacer makes a scrub yield to the requests of its vDisk, and keep to its rate.
type pacer struct {
	v    *Volume
	rate int64 // bytes per second; 0: no bound

	last time.Time // when the step before began
	free time.Time // when the rate allows the next one
	ops  uint64
}

// wait returns when n more bytes may be moved.
func (p *pacer) wait(ctx context.Context, n int64) error {
	clk := p.v.host.o.Clock
	now, ops := clk.Now(), p.v.foreground()
	var pause time.Duration
	if busy := p.v.active.Load() > 0 || ops != p.ops; busy && !p.last.IsZero() {
		pause = min(max(scrubYield*now.Sub(p.last), minScrubPause), maxScrubPause)
	}
	if p.rate > 0 {
		pause = max(pause, p.free.Sub(now))
	}
	if pause > 0 && !p.v.sleep(ctx, pause) {
		return errors.Join(ctx.Err(), p.v.ctx.Err())
	}
	p.last, p.ops = clk.Now(), p.v.foreground()
	if p.rate > 0 {
		start := p.last
		if p.free.After(start) {
			start = p.free
		}
		p.free = start.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
	}
	return ctx.Err()
}
