package volume

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/sco"
	"github.com/openvstorage/ovgate/volumedriver/tlog"
)

// A verification reads every object that a vDisk can be read, taken back or cloned
// from: head, past, TLogs and SCOs of its log, of its history and, for a clone, of the
// ancestors up to the point that it starts from. It goes over the TLogs three times: to
// check them and to learn how much there is; to check the SCOs that they name; and, if
// something is damaged, over those of then, to find out what the damage hits. What is
// no longer named by then was deleted meanwhile and is no damage. It changes nothing,
// and holds nothing: scrub, flatten and snapshots go on beside it.

const (
	// MaxDamage bounds the objects that a verification names; all are counted. Beyond
	// some, a backend is damaged as a whole and a list is no help.
	MaxDamage = 1000
	// MaxDamageRanges bounds the ranges that are named of each.
	MaxDamageRanges = 256
	// MaxDamageSnapshots bounds the snapshots that are named of each.
	MaxDamageSnapshots = 100
	// maxBadClusters bounds the clusters whose fate is followed through the log; of
	// damaged SCOs beyond them all that comes later counts as hit.
	maxBadClusters = 1 << 20
	// verifyAtOnce is how many SCOs are read side by side: an object store takes its time to
	// answer, and much of a log may be small SCOs.
	verifyAtOnce = 4
	// verifyWindow is how much of an SCO is read at once and kept while it is checked: small
	// ones whole, of others what stands behind the data.
	verifyWindow = 1 << 20
	// verifyPatience is how long a verification waits for a backend that does not answer.
	verifyPatience = time.Minute
)

// VerifyOptions say how a verification goes.
type VerifyOptions struct {
	// BytesPerSecond bounds what it reads; 0: as much as other requests leave room for.
	// In either case they get two thirds of the time while there are some.
	BytesPerSecond int64
	// Progress, if not nil, is told how far it is, now and then. It may keep what it is
	// told: nothing writes to that any more.
	Progress func(Verification)
}

// Verification is what a verification found, so far or in all.
type Verification struct {
	Seq         uint64 // what was committed up to here was looked at
	Done, Total int64  // bytes of SCOs; Total grows until the TLogs were read
	Objects     int64  // that were read
	Clusters    uint64 // whose checksum was looked at
	BadClusters uint64 // of these, those that do not verify or cannot be read
	BadObjects  int64
	Damage      []Damage // the first MaxDamage of them
}

// Damage is an object that is not as it was written.
type Damage struct {
	Object string  // name below the vPool's root
	Why    string  // what is wrong with it
	Ranges []Range // of the disk, that it has no good data of; the first MaxDamageRanges
	// Current: some of these are what the disk holds now.
	Current bool
	// Snapshots are the names of those that have some of these; the first
	// MaxDamageSnapshots. With neither, only a moment of the history is hit.
	Snapshots []string
}

// Range is a part of a disk, in bytes.
type Range struct{ Offset, Length int64 }

// Verify reads all that a vDisk, open or closed, has on the backend, and checks every
// checksum. What a journal has that no head covers yet is not looked at: Commit first.
// It yields to the requests of the vPool's open vDisks. The result counts also when
// there is an error, as far as it came: that of ctx, ErrNotFound when the vDisk is
// deleted meanwhile, ErrBackend when the backend does not answer for a minute.
func (p *Pool) Verify(ctx context.Context, id ID, o VerifyOptions) (Verification, error) {
	v := &verifier{p: p, id: id, o: o}
	err := v.run(ctx)
	if err != nil {
		err = fmt.Errorf("vdisk %s: verify: %w", id, err)
	}
	return v.out, err
}

type verifier struct {
	p     *Pool
	id    ID
	o     VerifyOptions
	out   Verification
	bad   []*damaged
	parts []verifyPart // oldest ancestor first, the vDisk itself last

	pacing sync.Mutex
	budget time.Time // when what was read so far may have been read

	followed int // clusters of bad
}

// verifyPart is the log of a vDisk, or that of an ancestor up to a point.
type verifyPart struct {
	id    ID
	log   *logReader
	lines [][]Run // the one in use first, then what a rollback left behind
	pins  []Pin
}

// damaged is an object with damage, until it is known what that hits.
type damaged struct {
	Damage
	kind     objectKind
	vdisk    ID
	number   uint32
	bad      int      // clusters of the disk that it has no good data of
	clusters []uint64 // those; nil when there are too many to be followed
	present  bool     // a log of now still has it
	alive    int      // of bad, those that nothing has replaced so far
	born     bool     // its place in the log was passed
}

// objectKind tells what a log refers to.
type objectKind uint8

const (
	otherObject objectKind = iota
	tlogObject
	scoObject
)

func (v *verifier) run(ctx context.Context) error {
	st, err := v.plan(ctx)
	if err != nil {
		return err
	}
	v.out.Seq = st.head.LastSeq
	if err := v.heads(ctx, st); err != nil {
		return err
	}
	for i := range v.parts {
		if err := v.tlogs(ctx, &v.parts[i]); err != nil {
			return err
		}
	}
	for i := range v.parts {
		if err := v.scos(ctx, &v.parts[i]); err != nil {
			return err
		}
	}
	return v.settle(ctx)
}

// plan finds the logs to look at.
func (v *verifier) plan(ctx context.Context) (*state, error) {
	v.parts = nil
	st, rec, err := v.p.stateOf(ctx, v.id)
	if err != nil {
		return nil, err
	}
	if rec.State == FlagDeleting {
		return nil, fmt.Errorf("it is being deleted: %w", ErrNotFound)
	}
	own := verifyPart{id: v.id, log: v.p.logReader(v.id, st.head.Epochs), lines: [][]Run{st.log()}, pins: st.past.Pins}
	for _, l := range st.past.Before {
		own.lines = append(own.lines, l.Runs)
	}
	v.parts = append(v.parts, own)
	for up, depth := st.head.Parent, 0; up != nil; depth++ {
		if depth > MaxDepth {
			return nil, fmt.Errorf("%w: more than %d ancestors", ErrCorrupt, MaxDepth)
		}
		pst, _, err := v.p.stateOf(ctx, up.VDisk)
		if err != nil {
			return nil, fmt.Errorf("ancestor: %w", err)
		}
		part := verifyPart{id: up.VDisk, log: v.p.logReader(up.VDisk, pst.head.Epochs)}
		runs, err := pst.through(up.Seq)
		if err == nil {
			runs, err = part.log.cut(ctx, runs, up.Seq)
		}
		if err != nil {
			return nil, fmt.Errorf("ancestor: %w", err)
		}
		part.lines = [][]Run{runs}
		v.parts = append([]verifyPart{part}, v.parts...)
		up = pst.head.Parent
	}
	return st, nil
}

// report notes an object that is damaged.
func (v *verifier) report(d *damaged) {
	v.out.BadObjects++
	if v.followed += len(d.clusters); v.followed > maxBadClusters {
		v.followed, d.clusters = v.followed-len(d.clusters), nil
	}
	if len(v.bad) < MaxDamage {
		v.bad = append(v.bad, d)
		v.out.Damage = append(v.out.Damage, d.Damage)
	}
}

func (v *verifier) progress() {
	if v.o.Progress != nil {
		v.o.Progress(v.out)
	}
}

// get reads an object whole and has it checked; damage is reported as d.
func (v *verifier) get(ctx context.Context, d *damaged, limit int64, check func([]byte) error) error {
	var b []byte
	err := v.ask(ctx, func(ctx context.Context) (err error) {
		b, err = v.p.cfg.Store.Get(ctx, d.Object, limit)
		return err
	})
	v.out.Objects++
	if err == nil {
		err = check(b)
	} else if !isDamage(err) {
		return err
	}
	if err != nil {
		d.Why = err.Error()
		v.report(d)
	}
	return v.pace(ctx, int64(len(b)), 0)
}

// heads checks head and past, anew when they were replaced and deleted meanwhile.
func (v *verifier) heads(ctx context.Context, st *state) error {
	n, bad := len(v.bad), v.out.BadObjects
	for try := 0; ; try++ {
		if err := v.headAndPast(ctx, st); err != nil || len(v.bad) == n {
			return err
		}
		rec, err := v.p.host.o.Registry.Load(ctx, v.id)
		if err != nil || rec.Head == st.ref || try == maxClaims {
			return err
		}
		if st, _, err = v.p.stateOf(ctx, v.id); err != nil {
			return err
		}
		v.out.BadObjects, v.bad, v.out.Damage = bad, v.bad[:n], v.out.Damage[:n:n] // Progress may have told the rest
	}
}

func (v *verifier) headAndPast(ctx context.Context, st *state) error {
	err := v.get(ctx, &damaged{Damage: Damage{Object: headName(v.id, st.ref)}}, maxHeadBytes, func(b []byte) error {
		_, got, err := decodeHead(b)
		if err == nil && got != st.ref {
			err = fmt.Errorf("%w: not the one that was committed", ErrCorrupt)
		}
		return err
	})
	if err != nil || st.head.Past == nil {
		return err
	}
	return v.get(ctx, &damaged{Damage: Damage{Object: pastName(v.id, *st.head.Past)}}, maxPastBytes, func(b []byte) error {
		_, err := decodePast(v.id, *st.head.Past, b)
		return err
	})
}

// each calls fn for every TLog of a part once, with each run that it is of.
func (part *verifyPart) each(lines [][]Run, fn func(run Run, n uint32) error) error {
	for _, runs := range lines {
		for _, run := range runs {
			for n := run.First; n < run.End; n++ {
				if err := fn(run, n); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// tlogs checks the TLogs of a part, and counts what their SCOs have.
func (v *verifier) tlogs(ctx context.Context, part *verifyPart) error {
	var seen, scos numberSet
	return part.each(part.lines, func(run Run, n uint32) error {
		if seen.add(n) {
			want := part.log.opening(run, n)
			d := &damaged{kind: tlogObject, vdisk: part.id, number: n, Damage: Damage{Object: tlogName(part.id, want, n)}}
			if err := v.get(ctx, d, maxTLogBytes, func(b []byte) error {
				_, err := part.log.check(b, want, n)
				return err
			}); err != nil {
				return err
			}
		}
		entries, err := v.entries(ctx, part, run, n)
		for _, e := range entries {
			if scos.add(e.Footer.Number) {
				v.out.Total += e.Bytes
			}
		}
		v.progress()
		return err
	})
}

// entries returns the SCOs of a TLog in a run; none if that is damaged, which tlogs
// reports.
func (v *verifier) entries(ctx context.Context, part *verifyPart, run Run, n uint32) (out []tlog.Entry, err error) {
	err = v.ask(ctx, func(ctx context.Context) (err error) {
		out, err = part.log.counted(ctx, run, n)
		return err
	})
	if errors.Is(err, ErrCorrupt) {
		return nil, nil
	}
	return out, err
}

// scos checks the SCOs of a part, several at once; what is found is in their order.
func (v *verifier) scos(ctx context.Context, part *verifyPart) error {
	ctx, cancel := context.WithCancel(ctx)
	var queue []*checkedSCO
	defer func() {
		cancel()
		for _, c := range queue {
			<-c.done
		}
	}()
	settle := func() error {
		c := queue[0]
		<-c.done
		queue = queue[1:]
		return v.checked(c)
	}
	var seen numberSet
	err := part.each(part.lines, func(run Run, n uint32) error {
		entries, err := v.entries(ctx, part, run, n)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if !seen.add(e.Footer.Number) {
				continue
			}
			if len(queue) == verifyAtOnce {
				if err := settle(); err != nil {
					return err
				}
			}
			c := &checkedSCO{bytes: e.Bytes, done: make(chan struct{})}
			queue = append(queue, c)
			go func() {
				defer close(c.done)
				v.sco(ctx, c, part.id, n, e)
			}()
		}
		return nil
	})
	for err == nil && len(queue) > 0 {
		err = settle()
	}
	return err
}

// checkedSCO is what was found out about an SCO, once it is done.
type checkedSCO struct {
	bytes  int64
	damage *damaged // nil: none
	found  sco.Checked
	err    error
	done   chan struct{}
}

// checked adds what was found to the verification.
func (v *verifier) checked(c *checkedSCO) error {
	v.out.Objects++
	if c.err != nil {
		return c.err
	}
	v.out.Clusters += c.found.Clusters
	if c.damage != nil {
		v.out.BadClusters += c.found.Bad
		v.report(c.damage)
	}
	v.out.Done += c.bytes
	v.progress()
	return nil
}

// sco checks one SCO, twice if it is damaged: a read may have gone wrong. The TLog that
// names it is number n.
func (v *verifier) sco(ctx context.Context, c *checkedSCO, id ID, n uint32, e tlog.Entry) {
	name := scoName(id, Opening{Epoch: e.Footer.Epoch, Nonce: e.Footer.Nonce}, e.Footer.Number)
	for range 2 {
		if c.damage, c.found, c.err = v.checkSCO(ctx, name, id, n, e); c.err != nil || c.damage == nil {
			return
		}
	}
}

func (v *verifier) checkSCO(ctx context.Context, name string, id ID, n uint32, e tlog.Entry) (*damaged, sco.Checked, error) {
	f := e.Footer
	per := uint64(f.Cluster / lbaBytes)
	d := &damaged{kind: scoObject, vdisk: id, number: f.Number, Damage: Damage{Object: name}}
	read := func(b []byte, off int64) error {
		start := v.p.host.o.Clock.Now()
		before := v.p.foreground()
		err := v.ask(ctx, func(ctx context.Context) error { return v.p.cfg.Store.ReadAt(ctx, name, b, off) })
		if err != nil {
			return err
		}
		took := v.p.host.o.Clock.Now().Sub(start)
		if v.p.foreground() == before {
			took = 0
		}
		return v.pace(ctx, int64(len(b)), took)
	}
	from := int64(0)
	if e.Bytes > verifyWindow {
		from, _ = sco.Layout{Cluster: int(f.Cluster)}.SumsRange(f.Clusters)
	}
	w := window{from: from, to: e.Bytes, read: read}
	c, err := sco.Check(sco.Object{Size: e.Bytes, Want: f, Part: n >= movedNumbers, Read: func(b []byte, off int64) error {
		err := w.readAt(b, off)
		if isDamage(err) {
			if d.Why == "" {
				d.Why = err.Error()
			}
			return sco.ErrUnreadable
		}
		return err
	}}, func(lba uint64, _ uint32) {
		d.addCluster(lba/per, int64(f.Cluster))
	})
	if err != nil || c.OK() {
		return nil, c, err
	}
	for _, p := range c.Problems {
		if d.Why == "" {
			d.Why = p.Error()
		}
	}
	if d.Why == "" {
		d.Why = fmt.Sprintf("%d of %d clusters do not verify", c.Bad, c.Clusters)
	}
	return d, c, nil
}

// window reads an object with its bytes [from, to), at most verifyWindow of them, at
// once; what of a damaged object can be read is found out piece by piece.
type window struct {
	from, to int64
	read     func(b []byte, off int64) error
	b        []byte
}

func (w *window) readAt(b []byte, off int64) error {
	end := off + int64(len(b))
	if n := w.to - w.from; w.b == nil && off >= w.from && end <= w.to && n > int64(len(b)) && n <= verifyWindow {
		all := make([]byte, n)
		switch err := w.read(all, w.from); {
		case err == nil:
			w.b = all
		case !isDamage(err):
			return err
		default:
			w.to = w.from
		}
	}
	if w.b != nil && off >= w.from && end <= w.to {
		copy(b, w.b[off-w.from:])
		return nil
	}
	return w.read(b, off)
}

// addCluster notes a cluster of the disk that an SCO has no good data of.
func (d *damaged) addCluster(cluster uint64, size int64) {
	d.bad++
	d.clusters = append(d.clusters, cluster)
	at := int64(cluster) * size
	if n := len(d.Ranges); n > 0 && d.Ranges[n-1].Offset+d.Ranges[n-1].Length == at {
		d.Ranges[n-1].Length += size
	} else if n < MaxDamageRanges {
		d.Ranges = append(d.Ranges, Range{at, size})
	}
}

// isDamage reports whether another try cannot have another end.
func isDamage(err error) bool { return notThere(err) || errors.Is(err, backend.ErrRange) }

// ask calls the backend until it answers, or verifyPatience is over. Like a reader it
// believes in damage after maxReads tries.
func (v *verifier) ask(ctx context.Context, call func(context.Context) error) error {
	h := v.p.host
	deadline := h.o.Clock.Now().Add(verifyPatience)
	damaged := 0
	for wait := minBackoff; ; wait = min(2*wait, maxBackoff) {
		cctx, cancel := context.WithTimeout(ctx, backendTimeout)
		err := call(cctx)
		cancel()
		if errors.Is(err, backend.ErrCorrupt) {
			damaged++
		}
		switch {
		case err == nil || errors.Is(err, ErrCorrupt):
			return err
		case isDamage(err) && (damaged == 0 || damaged == maxReads):
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case h.o.Clock.Now().Add(wait).After(deadline):
			return fmt.Errorf("%w: %w", ErrBackend, err)
		}
		if err := h.pause(ctx, wait); err != nil {
			return err
		}
	}
}

// pace makes room for others after n bytes were read: they get the more time the
// longer it took while there were some, and the rate is kept.
func (v *verifier) pace(ctx context.Context, n int64, took time.Duration) error {
	v.pacing.Lock() // who reads side by side makes no less room
	defer v.pacing.Unlock()
	wait := min(flattenYield*took, maxFlattenPause)
	if r := v.o.BytesPerSecond; r > 0 {
		now := v.p.host.o.Clock.Now()
		if v.budget.Before(now) {
			v.budget = now
		}
		v.budget = v.budget.Add(time.Duration(float64(n) / float64(r) * float64(time.Second)))
		wait = max(wait, v.budget.Sub(now))
	}
	if wait <= 0 {
		return ctx.Err()
	}
	return v.p.host.pause(ctx, wait)
}

// pause waits on the host's clock.
func (h *Host) pause(ctx context.Context, d time.Duration) error {
	return clock.Sleep(ctx, h.o.Clock, d)
}

// foreground counts the requests to the vPool's open vDisks.
func (p *Pool) foreground() (n uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, v := range p.open {
		n += v.foreground()
	}
	return n
}

// numberSet is a set of numbers that mostly follow each other, such as those of SCOs.
type numberSet struct{ pages map[uint32]*[64]uint64 }

// add puts a number in and reports whether it was not there before.
func (s *numberSet) add(n uint32) bool {
	if s.pages == nil {
		s.pages = map[uint32]*[64]uint64{}
	}
	p := s.pages[n>>12]
	if p == nil {
		p = &[64]uint64{}
		s.pages[n>>12] = p
	}
	bit := uint64(1) << (n & 63)
	had := p[n>>6&63]&bit != 0
	p[n>>6&63] |= bit
	return !had
}
