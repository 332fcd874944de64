package volume

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/openvstorage/ovgate/volumedriver/scrub"
	"github.com/openvstorage/ovgate/volumedriver/tlog"
)

const (
	// scrubSlack is how much garbage beside what is live is left alone: rewriting the
	// last of it costs more than it gives.
	scrubSlack = 0.08
	// scrubSlackShort is the same where space is short.
	scrubSlackShort = 0.02
	// shortOfSpace is the share of free space of a backend below which it is short.
	shortOfSpace = 0.15
	// smallSCO: SCOs filled to less than this share are put together if there is more
	// than one, since each object costs requests.
	smallSCO = 0.25
	// minUnitMove is about how many bytes one unit moves, if that is no more than
	// unitShare of what is live: each unit writes the TLogs of its segments anew.
	minUnitMove = 1 << 30
	unitShare   = 8
	// maxCondemned bounds the objects that one head condemns, some 80 bytes each, far
	// below what a head can hold. What is beyond it is left to the sweep.
	maxCondemned = 64 << 10
	// objectBytes is about what an SCO has beside clusters and extents, and what a TLog
	// has for it.
	objectBytes = 160
	// maxClockJump is how far the wall clock may move against the monotonic one before
	// it is not believed any more (rule E6).
	maxClockJump = time.Minute
)

// logSCO is an SCO at its place in a log.
type logSCO struct {
	run                 int // index in the line
	tlog                uint32
	number              uint32
	opening             Opening // epoch and nonce
	bytes               int64
	clusters            uint32
	firstSeq, lastSeq   uint64
	firstTime, lastTime int64
}

// same reports whether both are the same part of the same log.
func (a *logSCO) same(b *logSCO) bool {
	return a.tlog == b.tlog && a.number == b.number && a.opening == b.opening && a.firstSeq == b.firstSeq && a.lastSeq == b.lastSeq
}

// scrubLine is a line of the log, spread out.
type scrubLine struct {
	Line
	start  int64 // time from which it was the vDisk's, Unix ns
	scos   []logSCO
	points []int // positions in scos that are kept, each the end of an SCO
	end    int   // how much of it is kept
	common int   // how much of it the newest line starts with
}

// scrubPlan is what a scrub does to the log of a vDisk, next.
type scrubPlan struct {
	st       *state
	cloneGen uint64
	reader   *logReader
	lines    []scrubLine // oldest first; the last is the log now
	segments []scrubSegment
	unit     scrub.Unit // of the segments that are rewritten
	doomed   []DoomedObject
	live     int64 // bytes that count of the SCOs that were looked at
	move     int64 // bytes that are to be moved
}

// scrubSegment is a part of the newest line between two points (R1).
type scrubSegment struct {
	start, end int // positions in the newest line
	def        scrub.Segment
	survey     *scrub.Survey
	move       map[uint32]bool
	fixed      bool // clones have locations of it in their maps: nothing of it is moved
	chosen     bool
}

// DoomedObject is an object that a scrub or sweep deletes, or would.
type DoomedObject struct {
	Name   string
	Bytes  int64 // 0: not known
	Reason string
}

// scrubPolicy is what a plan depends on beside the log.
type scrubPolicy struct {
	damaged map[uint32]bool // SCOs that could not be read: they stay where they are
	short   bool            // of space
	history int64           // since when history is kept, Unix ns; MaxInt64: it is not
}

// planScrub makes the plan of the next unit. It has no doomed objects if there is
// nothing to do.
func (v *Volume) planScrub(ctx context.Context, pol scrubPolicy) (*scrubPlan, error) {
	st, rec, err := v.p.stateOf(ctx, v.id)
	if err != nil {
		return nil, err
	}
	pl := &scrubPlan{st: st, cloneGen: rec.CloneGen, reader: v.p.logReader(v.id, st.head.Epochs)}
	clones, err := v.p.Clones(ctx, v.id)
	if err != nil {
		return nil, err
	}
	if err := pl.spread(ctx); err != nil {
		return nil, err
	}
	frozen, err := pl.require(clones, pol.history)
	if err != nil {
		return nil, err
	}
	pl.unit = scrub.Unit{VDisk: v.id, Dir: vdiskPrefix(v.id), Cluster: v.cluster, Clusters: uint64(st.head.Size) / uint64(v.cluster),
		Level: v.level(), SCOClusters: int(v.settings.Load().SCOSize) / v.cluster, Epoch: v.this.Epoch, Nonce: v.this.Nonce,
		HeadEpoch: st.head.Epoch, HeadNumber: st.head.Number, CloneGen: pl.cloneGen, Log: st.logPrint()}
	if err := pl.survey(ctx, &scrub.Env{TLog: pl.tlog}, frozen); err != nil {
		return nil, err
	}
	pl.choose(pol)
	pl.doom()
	return pl, v.number(pl)
}

// logPrint identifies the log but for what is added at its end.
func (s *state) logPrint() [16]byte {
	return fingerprint(s.past.Runs, s.past.Before, s.past.FirstSeq, s.head.FirstTLog, s.head.Parent)
}

// tlog reads an input for a survey.
func (pl *scrubPlan) tlog(ctx context.Context, in scrub.Input) (*tlog.TLog, error) {
	return pl.reader.read(ctx, Run{Epoch: in.Epoch, Nonce: in.Nonce}, in.Number)
}

// spread reads which SCOs the lines have.
func (pl *scrubPlan) spread(ctx context.Context) error {
	known := map[uint32][]logSCO{}
	start := int64(0)
	for _, l := range pl.st.lines() {
		line := scrubLine{Line: l, start: start}
		start = l.Until
		for i, run := range l.Runs {
			for n := run.First; n < run.End; n++ {
				all, err := pl.listed(ctx, known, run, n)
				if err != nil {
					return err
				}
				for _, s := range all {
					if s.firstSeq >= run.FirstSeq && s.lastSeq <= run.LastSeq {
						s.run = i
						line.scos = append(line.scos, s)
					}
				}
			}
		}
		line.end = len(line.scos)
		pl.lines = append(pl.lines, line)
	}
	now := &pl.lines[len(pl.lines)-1]
	for i := range pl.lines {
		l := &pl.lines[i]
		for l.common < min(len(l.scos), len(now.scos)) && l.scos[l.common].same(&now.scos[l.common]) {
			l.common++
		}
	}
	return nil
}

// listed returns the SCOs of a TLog without what they map.
func (pl *scrubPlan) listed(ctx context.Context, known map[uint32][]logSCO, run Run, n uint32) ([]logSCO, error) {
	if l, ok := known[n]; ok {
		return l, nil
	}
	t, err := pl.reader.read(ctx, run, n)
	if err != nil {
		return nil, err
	}
	out := make([]logSCO, len(t.Entries))
	for i, e := range t.Entries {
		f := e.Footer
		out[i] = logSCO{tlog: n, number: f.Number, opening: Opening{Epoch: f.Epoch, Nonce: f.Nonce}, bytes: e.Bytes, clusters: f.Clusters,
			firstSeq: f.FirstSeq, lastSeq: f.LastSeq, firstTime: f.FirstTime, lastTime: f.LastTime}
	}
	known[n] = out
	return out, nil
}

// position returns how many SCOs of the line come up to the point seq; -1 if it is
// none of its points.
func (l *scrubLine) position(seq uint64) int {
	i := sort.Search(len(l.scos), func(i int) bool { return l.scos[i].lastSeq > seq })
	if seq == 0 || i > 0 && l.scos[i-1].lastSeq == seq {
		return i
	}
	return -1
}

// require finds the points that are kept, and how much at the start of the newest
// line must stay where it is: what clones start from, in whose maps the locations of
// it are (E7).
func (pl *scrubPlan) require(clones []CloneInfo, history int64) (frozen int, err error) {
	last := len(pl.lines) - 1
	now := &pl.lines[last]
	for _, pin := range pl.st.past.Pins {
		if err := now.keep(pin.Seq); err != nil {
			return 0, fmt.Errorf("vdisk %s: snapshot %q: %w", pl.st.head.VDisk, pin.Name, err)
		}
	}
	for _, c := range clones {
		i := last
		for i > 0 && !contains(pl.lines[i].Runs, c.Seq) {
			i--
		}
		if err := pl.lines[i].keep(c.Seq); err != nil {
			return 0, fmt.Errorf("vdisk %s: clone %s: %w", pl.st.head.VDisk, c.ID, err)
		}
		frozen = max(frozen, min(pl.lines[i].position(c.Seq), pl.lines[i].common))
	}
	if pl.st.head.Parent != nil {
		now.points = append(now.points, now.position(0)) // a flatten goes on there
	}
	for i := range pl.lines {
		pl.lines[i].keepMoments(history)
	}
	now.points = append(now.points, len(now.scos))
	for i := range pl.lines[:last] {
		l := &pl.lines[i]
		l.end = 0
		for _, at := range l.points {
			l.end = max(l.end, at)
		}
		for _, at := range append(l.points, l.end) {
			now.points = append(now.points, min(at, l.common))
		}
	}
	now.points = append(now.points, frozen)
	slices.Sort(now.points)
	now.points = slices.Compact(now.points)
	return frozen, now.check()
}

// keep makes seq a point that is kept.
func (l *scrubLine) keep(seq uint64) error {
	at := l.position(seq)
	if at < 0 {
		return fmt.Errorf("%w: no SCO ends with seq %d", ErrCorrupt, seq)
	}
	l.points = append(l.points, at)
	return nil
}

// keepMoments keeps the moments of the line since history, Unix ns, and the one that
// held then.
func (l *scrubLine) keepMoments(history int64) {
	from := max(history, l.start)
	if history == math.MaxInt64 || l.Until <= from {
		return
	}
	first := sort.Search(len(l.scos), func(i int) bool { return l.scos[i].lastTime > from && l.scos[i].lastSeq != 0 })
	l.points = append(l.points, first)
	for i := first; i < len(l.scos); i++ {
		if i+1 == len(l.scos) || l.scos[i].lastSeq != l.scos[i+1].lastSeq {
			l.points = append(l.points, i+1)
		}
	}
}

// check asserts that no point lies between SCOs that have one range of seqs.
func (l *scrubLine) check() error {
	for _, at := range l.points {
		if at > 0 && at < len(l.scos) && l.scos[at-1].lastSeq == l.scos[at].lastSeq && l.scos[at].lastSeq != 0 {
			return fmt.Errorf("%w: lines of the log part within seqs %d to %d", ErrCorrupt, l.scos[at].firstSeq, l.scos[at].lastSeq)
		}
	}
	return nil
}

// survey looks at the segments that can have something to give.
func (pl *scrubPlan) survey(ctx context.Context, env *scrub.Env, frozen int) error {
	now := &pl.lines[len(pl.lines)-1]
	start := 0
	for _, end := range now.points {
		if end <= start {
			continue
		}
		s := scrubSegment{start: start, end: end, move: map[uint32]bool{}, fixed: end <= frozen}
		start = end
		if s.end-s.start == 1 && now.Runs[now.scos[s.start].run].Epoch == 0 {
			continue // an SCO as it was uploaded has nothing that it overwrote itself
		}
		s.def = pl.segment(s.start, s.end)
		var err error
		if s.survey, err = pl.unit.Survey(ctx, env, &s.def); err != nil {
			return err
		}
		pl.segments = append(pl.segments, s)
	}
	return nil
}

// segment describes a part of the newest line.
func (pl *scrubPlan) segment(start, end int) scrub.Segment {
	now := &pl.lines[len(pl.lines)-1]
	first, last := &now.scos[start], &now.scos[end-1]
	s := scrub.Segment{FirstSeq: first.firstSeq, LastSeq: last.lastSeq, FirstTime: first.firstTime, LastTime: last.lastTime,
		Bottom: start == 0 && pl.st.head.Parent == nil}
	for i := start; i < end; i++ {
		c := &now.scos[i]
		if i == start || c.tlog != now.scos[i-1].tlog {
			o := pl.opening(now.Runs[c.run], c.tlog)
			s.Inputs = append(s.Inputs, scrub.Input{Number: c.tlog, Epoch: o.Epoch, Nonce: o.Nonce, FirstSeq: c.firstSeq})
		}
		s.Inputs[len(s.Inputs)-1].LastSeq = c.lastSeq
	}
	return s
}

// opening returns the opening that wrote a TLog of a run.
func (pl *scrubPlan) opening(run Run, n uint32) Opening {
	if run.Epoch != 0 {
		return Opening{Epoch: run.Epoch, Nonce: run.Nonce}
	}
	o := pl.reader.table.ofTLog(n)
	return Opening{Epoch: o.Epoch, Nonce: o.Nonce}
}

// candidate is an SCO that can be moved.
type candidate struct {
	seg   *scrubSegment
	sco   *logSCO
	live  int64 // bytes
	score float64
}

// garbage returns the bytes of clusters that do not count. What an object has beside
// its clusters a new one has too.
func (x *candidate) garbage(cluster int64) int64 { return int64(x.sco.clusters)*cluster - x.live }

// choose decides which SCOs to move: those that give most for what they cost, until
// little garbage is left; with space short, those that give most at once.
func (pl *scrubPlan) choose(pol scrubPolicy) {
	now := &pl.lines[len(pl.lines)-1]
	per := int64(pl.unit.Cluster)
	var list []candidate
	var garbage int64
	for i := range pl.segments {
		s := &pl.segments[i]
		var small []candidate
		for k := s.start; k < s.end; k++ {
			c := &now.scos[k]
			n := s.survey.Live[c.number]
			if !s.fixed {
				pl.live += int64(n) * per
			}
			if n == 0 || s.fixed || pol.damaged[c.number] {
				continue
			}
			x := candidate{s, c, int64(n) * per, 0}
			garbage += x.garbage(per)
			used := float64(n) / float64(c.clusters)
			age := time.Duration(max(0, pl.st.head.Time-c.lastTime)).Hours() + 1
			if x.score = (1 - used) * age / (1 + used); pol.short {
				x.score = 1 - used
			}
			list = append(list, x)
			if float64(n) < smallSCO*float64(pl.unit.SCOClusters) {
				small = append(small, x)
			}
		}
		if len(small) > 1 {
			for _, x := range small {
				pl.take(&x, &garbage)
			}
		}
	}
	slack := scrubSlack
	if pol.short {
		slack = scrubSlackShort
	}
	slices.SortStableFunc(list, func(a, b candidate) int { return cmp.Compare(b.score, a.score) })
	limit := max(minUnitMove, pl.live/unitShare)
	for i := range list {
		if float64(garbage) <= slack*float64(pl.live) || pl.move >= limit {
			break
		}
		pl.take(&list[i], &garbage)
	}
	for i := range pl.segments {
		pl.segments[i].chosen = pl.worth(&pl.segments[i])
	}
}

// take marks an SCO to be moved.
func (pl *scrubPlan) take(x *candidate, garbage *int64) {
	if !x.seg.move[x.sco.number] {
		x.seg.move[x.sco.number] = true
		pl.move += x.live
		*garbage -= x.garbage(int64(pl.unit.Cluster))
	}
}

// worth reports whether rewriting a segment gives more than its new objects take
// beside the data: so a scrub comes to an end.
func (pl *scrubPlan) worth(s *scrubSegment) bool {
	now := &pl.lines[len(pl.lines)-1]
	per := int64(pl.unit.Cluster)
	var gain int64
	objects, moved, kept := 0, 0, 0
	for k := s.start; k < s.end; k++ {
		c := &now.scos[k]
		n := s.survey.Live[c.number]
		if n == 0 || s.move[c.number] {
			gain += c.bytes - int64(n)*per
			objects++
			moved += n
		} else {
			kept++
		}
	}
	made := (moved + pl.unit.SCOClusters - 1) / pl.unit.SCOClusters
	if made == 0 && (kept == 0 || s.survey.Trims > 0) {
		made = 1 // one without data
	}
	extents := s.survey.Extents + s.survey.Trims
	index := 64*extents + objectBytes*(kept+2*made+1) // of extents a new SCO and its TLog have one each
	return gain > int64(index) || objects-made > 1
}

// doom finds out which objects no log names once the plan is done.
func (pl *scrubPlan) doom() {
	left := map[string]bool{}
	name := func(l *scrubLine, c *logSCO) (sco, tl string) {
		return scoName(pl.unit.VDisk, c.opening, c.number), tlogName(pl.unit.VDisk, pl.opening(l.Runs[c.run], c.tlog), c.tlog)
	}
	for i := range pl.lines {
		l := &pl.lines[i]
		for k := range l.scos[:l.end] {
			sco, tl := name(l, &l.scos[k])
			s := pl.chosenAt(l, k)
			if s == nil {
				left[tl] = true
			}
			if s == nil || s.survey.Live[l.scos[k].number] > 0 && !s.move[l.scos[k].number] {
				left[sco] = true
			}
		}
	}
	seen := map[string]bool{}
	add := func(object string, bytes int64, reason string) {
		if !left[object] && !seen[object] && len(pl.doomed) < maxCondemned {
			seen[object] = true
			pl.doomed = append(pl.doomed, DoomedObject{object, bytes, reason})
		}
	}
	for i := range slices.Backward(pl.lines) {
		l := &pl.lines[i]
		for k := range l.scos {
			sco, tl := name(l, &l.scos[k])
			s := pl.chosenAt(l, k)
			switch {
			case s == nil:
				reason := fmt.Sprintf("left behind by the rollback of %s; no history, snapshot or clone needs it", unixTime(l.Until).UTC().Format(time.RFC3339))
				add(sco, l.scos[k].bytes, reason)
				add(tl, 0, reason)
			case s.survey.Live[l.scos[k].number] == 0:
				add(sco, l.scos[k].bytes, "all of it was overwritten or discarded before the next kept point")
			default:
				add(sco, l.scos[k].bytes, fmt.Sprintf("%d of its %d clusters are live and are moved", s.survey.Live[l.scos[k].number], l.scos[k].clusters))
			}
			if s != nil {
				add(tl, 0, fmt.Sprintf("a new index takes its place for seqs %d to %d", s.def.FirstSeq, s.def.LastSeq))
			}
		}
	}
}

// chosenAt returns the segment that is rewritten and has position k of a line, or nil.
func (pl *scrubPlan) chosenAt(l *scrubLine, k int) *scrubSegment {
	if k >= l.common {
		return nil
	}
	i := sort.Search(len(pl.segments), func(i int) bool { return pl.segments[i].end > k })
	if i < len(pl.segments) && pl.segments[i].start <= k && pl.segments[i].chosen {
		return &pl.segments[i]
	}
	return nil
}

// errNumbers: a vDisk has 2^31 numbers for what is moved.
var errNumbers = errors.New("numbers for moved objects are used up")

// number completes the unit with what is chosen, and gives it numbers.
func (v *Volume) number(pl *scrubPlan) error {
	u := &pl.unit
	scos, tlogs := uint32(0), uint32(0)
	for i := range pl.segments {
		s := &pl.segments[i]
		if !s.chosen {
			continue
		}
		moved := 0
		for n := range s.move {
			s.def.Move = append(s.def.Move, n)
			moved += s.survey.Live[n]
		}
		slices.Sort(s.def.Move)
		a, b := s.survey.Numbers(moved, u.SCOClusters)
		scos, tlogs = scos+a, tlogs+b
		u.Segments = append(u.Segments, s.def)
	}
	if v.movedSCO.Load() > math.MaxUint32-scos || v.movedTLog.Load() > math.MaxUint32-tlogs {
		return fmt.Errorf("vdisk %s: %w: %w", v.id, ErrInvalid, errNumbers)
	}
	u.EndSCO, u.EndTLog = v.movedSCO.Add(scos), v.movedTLog.Add(tlogs)
	u.FirstSCO, u.FirstTLog = u.EndSCO-scos, u.EndTLog-tlogs
	return nil
}
