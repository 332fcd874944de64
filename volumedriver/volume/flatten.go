package volume

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/openvstorage/ovgate/volumedriver/blockmap"
	"github.com/openvstorage/ovgate/volumedriver/sco"
	"github.com/openvstorage/ovgate/volumedriver/tlog"
)

// A flatten makes a clone independent of its parent. It copies all that the clone
// inherits, in LBA order, into SCOs of the clone and puts the TLogs of those at the
// start of its log, with seqs 0 to 0: in place of the parent, and not at the end. So
// every snapshot and moment of the clone stays what it was. Each step is a head: what
// is there after a crash is used, and the next flatten goes on behind it. When all is
// copied a head without the parent is committed, then the hold on the parent ends.

const (
	// flattenBatch is how many SCOs one step of a flatten commits.
	flattenBatch = 4
	// flattenYield is how much longer than a copy took a flatten pauses when other
	// requests came meanwhile: they get two thirds of the time.
	flattenYield = 2
	// maxFlattenPause bounds such a pause: a copy from a slow backend is no reason to
	// stop for minutes.
	maxFlattenPause = 5 * time.Second
)

// Flatten copies what a clone inherits, and lets go of the parent. It runs beside
// other requests and yields to them, goes on where an earlier call ended, and returns
// at once for a vDisk without a parent. progress, if not nil, is told the bytes
// copied so far and in all.
//
// Errors: ErrInUse while the vDisk has clones, which may read through its parent, or
// when it is being flattened; those of reads and of the backend; that of ctx.
func (v *Volume) Flatten(ctx context.Context, progress func(done, total int64)) error {
	ctx, end, err := v.beginWork(ctx)
	if err != nil {
		return err
	}
	defer end()
	if err := v.checkNoClones(ctx); err != nil {
		return err
	}
	v.mapMu.RLock()
	parent := v.parent
	v.mapMu.RUnlock()
	if parent != nil {
		f := &flatten{v: v, parent: parent, progress: progress, total: int64(parent.m.Mapped()) * int64(v.cluster)}
		if err := f.run(ctx); err != nil {
			return fmt.Errorf("vdisk %s: flatten: %w", v.id, err)
		}
		if err := v.dropParent(ctx); err != nil {
			return err
		}
	}
	return v.letGo(ctx)
}

// work is something long that runs beside the requests; a close ends it first.
type work struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// beginWork starts the one work that a volume has at a time. Its ctx ends with the
// volume; end is called when it has returned to rest.
func (v *Volume) beginWork(ctx context.Context) (_ context.Context, end func(), err error) {
	v.qmu.Lock()
	defer v.qmu.Unlock()
	switch {
	case v.closing:
		return nil, nil, fmt.Errorf("vdisk %s: %w", v.id, ErrClosed)
	case v.work != nil:
		return nil, nil, fmt.Errorf("vdisk %s: %w: it is being flattened or scrubbed", v.id, ErrInUse)
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &work{cancel, make(chan struct{})}
	v.work = w
	return ctx, func() {
		cancel()
		v.qmu.Lock()
		v.work = nil
		v.qmu.Unlock()
		close(w.done)
	}, nil
}

// endWork ends the work; no more is begun, since the volume is closing.
func (v *Volume) endWork() {
	v.qmu.Lock()
	w := v.work
	v.qmu.Unlock()
	if w != nil {
		w.cancel()
		<-w.done
	}
}

func (v *Volume) checkNoClones(ctx context.Context) error {
	rec, err := v.host.o.Registry.Load(ctx, v.id)
	if err == nil && rec.Clones > 0 && rec.Parent != nil {
		err = fmt.Errorf("vdisk %s: %w: it has %d clones, which read what they inherit through its parent; flatten or delete them first", v.id, ErrInUse, rec.Clones)
	}
	return err
}

// flatten is one run of it.
type flatten struct {
	v        *Volume
	parent   *frozen
	progress func(done, total int64)

	next        uint64 // first cluster that is not looked at
	done, total int64
	entries     []tlog.Entry // on the backend, not committed
}

func (f *flatten) run(ctx context.Context) error {
	if err := f.resume(ctx); err != nil {
		return err
	}
	for {
		f.entries = f.entries[:0]
		for len(f.entries) < flattenBatch {
			start, ops := f.v.host.o.Clock.Now(), f.v.foreground()
			more, err := f.copySCO(ctx)
			if err != nil {
				return err
			}
			if !more {
				break
			}
			if f.v.foreground() != ops {
				f.v.sleep(ctx, min(flattenYield*f.v.host.o.Clock.Now().Sub(start), maxFlattenPause))
			}
		}
		if len(f.entries) == 0 {
			return nil
		}
		if err := f.commit(ctx); err != nil {
			return err
		}
	}
}

// foreground counts the requests that a flatten yields to.
func (v *Volume) foreground() uint64 {
	return v.stats.readOps.Load() + v.stats.writeOps.Load() + v.stats.unmapOps.Load()
}

// resume finds out what an earlier flatten committed: it went in LBA order.
func (f *flatten) resume(ctx context.Context) error {
	st := f.v.committedState.Load()
	var last *Run
	for i := range st.past.Runs {
		if r := &st.past.Runs[i]; r.LastSeq == 0 {
			last = r
		}
	}
	if last != nil {
		l, err := f.v.p.logReader(f.v.id, st.head.Epochs).counted(ctx, *last, last.End-1)
		if err != nil {
			return err
		}
		ext := l[len(l)-1].Footer.Extents
		e := ext[len(ext)-1]
		f.next = (e.LBA + e.Length) * lbaBytes / uint64(f.v.cluster)
		for c := uint64(0); ; c++ {
			if c, err = nextMapped(ctx, f.parent.m, c); err != nil {
				return err
			}
			if c >= f.next || c >= f.parent.m.Clusters() {
				break
			}
			f.done += int64(f.v.cluster)
		}
	}
	f.report()
	return nil
}

func (f *flatten) report() {
	if f.progress != nil {
		f.progress(f.done, f.total)
	}
}

// copySCO fills one SCO with the next inherited clusters and puts it; false: there
// are none.
func (f *flatten) copySCO(ctx context.Context) (bool, error) {
	v := f.v
	most := int(v.settings.Load().SCOSize) / v.cluster
	var clusters []uint64
	var locs []blockmap.Loc
	for len(clusters) < most {
		c, err := nextMapped(ctx, f.parent.m, f.next)
		if err != nil {
			return false, err
		}
		if c >= f.parent.m.Clusters() || c >= uint64(v.Size())/uint64(v.cluster) {
			break
		}
		l, err := locate(ctx, f.parent.m, c)
		if err != nil {
			return false, err
		}
		clusters, locs = append(clusters, c), append(locs, l)
		f.next = c + 1
	}
	if len(clusters) == 0 {
		return false, nil
	}
	number := v.movedSCO.Add(1) - 1
	created := v.committedState.Load().head.Created
	ft := &sco.Footer{Cluster: uint32(v.cluster), VDisk: v.id, Epoch: v.this.Epoch, Nonce: v.this.Nonce, Number: number,
		Clusters: uint32(len(clusters)), FirstTime: created, LastTime: created, Extents: f.extents(clusters, locs)}
	obj := make([]byte, sco.Size(v.cluster, len(clusters), len(ft.Extents)))
	if err := f.gather(ctx, obj, ft, clusters, locs); err != nil {
		return false, err
	}
	sco.Finish(obj, ft)
	select {
	case v.host.uploads <- struct{}{}:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	err := v.retry(ctx, math.MaxInt64/2, func(ctx context.Context) error {
		return v.p.cfg.Store.Put(ctx, scoName(v.id, v.this, number), obj)
	})
	<-v.host.uploads
	f.entries = append(f.entries, tlog.Entry{Bytes: int64(len(obj)), Footer: ft})
	f.done += int64(len(clusters)) * int64(v.cluster)
	return true, err
}

// extents describes clusters, in order, each run from one place of an ancestor.
func (f *flatten) extents(clusters []uint64, locs []blockmap.Loc) []sco.Extent {
	per := uint64(f.v.cluster / lbaBytes)
	var out []sco.Extent
	for i, c := range clusters {
		l := locs[i]
		if n := len(out); n > 0 && clusters[i-1]+1 == c {
			e := &out[n-1]
			from := blockmap.Loc(e.Source)
			if from.Level() == l.Level() && from.Number() == l.Number() && uint64(from.Offset())+e.Length/per == uint64(l.Offset()) {
				e.Length += per
				continue
			}
		}
		out = append(out, sco.Extent{LBA: c * per, Length: per, Kind: sco.KindData, First: uint32(i), Source: uint64(l)})
	}
	return out
}

// gather reads the clusters, verified, and gives them the clone's checksums.
func (f *flatten) gather(ctx context.Context, obj []byte, ft *sco.Footer, clusters []uint64, locs []blockmap.Loc) error {
	v := f.v
	buf := make([]byte, maxAppend)
	most := len(buf) / v.cluster
	for i := 0; i < len(clusters); {
		k := 1
		for i+k < len(clusters) && k < most && clusters[i+k] == clusters[i]+uint64(k) {
			k++
		}
		var pieces []piece
		for j, c := range clusters[i : i+k] {
			pieces = v.addBase(pieces, c, locs[i+j])
		}
		p := buf[:k*v.cluster]
		if err := v.readPieces(ctx, pieces, p, int64(clusters[i])*int64(v.cluster)); err != nil {
			return err
		}
		for j := range k {
			data := p[j*v.cluster : (j+1)*v.cluster]
			dst, sum := v.layout.Slot(obj, ft.Clusters, uint32(i+j))
			copy(dst, data)
			binary.LittleEndian.PutUint32(sum, v.seed.Sum(v.lba(clusters[i+j]), data))
		}
		i += k
	}
	return nil
}

// commit makes what was copied part of the log.
func (f *flatten) commit(ctx context.Context) error {
	v := f.v
	t := &tlog.TLog{VDisk: v.id, Epoch: v.this.Epoch, Nonce: v.this.Nonce, Number: v.movedTLog.Add(1) - 1, Moved: true,
		Entries: slices.Clone(f.entries)}
	if err := v.retry(ctx, math.MaxInt64/2, func(ctx context.Context) error {
		return v.p.cfg.Store.Put(ctx, tlogName(v.id, v.this, t.Number), t.Encode())
	}); err != nil {
		return err
	}
	err := v.up.ask(&headRequest{ctx: ctx,
		change: func(h *Head) {
			h.NextMovedTLog = max(h.NextMovedTLog, t.Number+1)
			for _, e := range t.Entries {
				h.NextMovedSCO = max(h.NextMovedSCO, e.Footer.Number+1)
				h.Stored += e.Bytes
			}
		},
		past:  func(p *Past) { p.addBase(Run{First: t.Number, End: t.Number + 1, Epoch: t.Epoch, Nonce: t.Nonce}) },
		after: func(*Head) { v.up.applyMoved(t) }})
	if err == nil {
		f.report()
	}
	return err
}

// addBase puts a run at the start of the log, behind those that are there, also of
// the log as it was before each rollback.
func (p *Past) addBase(r Run) {
	p.Runs = withBase(p.Runs, r)
	p.Before = slices.Clone(p.Before)
	for i := range p.Before {
		p.Before[i].Runs = withBase(p.Before[i].Runs, r)
	}
}

func withBase(runs []Run, r Run) []Run {
	runs = slices.Clone(runs)
	n := 0
	for n < len(runs) && runs[n].LastSeq == 0 {
		n++
	}
	if n > 0 && runs[n-1].End == r.First && runs[n-1].Epoch == r.Epoch && runs[n-1].Nonce == r.Nonce {
		runs[n-1].End = r.End
		return runs
	}
	return slices.Insert(runs, n, r)
}

// applyMoved points the map to the copies, where it still names what was copied (E8).
func (u *uploader) applyMoved(t *tlog.TLog) {
	v := u.v
	per := uint64(v.cluster / lbaBytes)
	for _, en := range t.Entries {
		f := en.Footer
		if u.stage(func(ctx context.Context) error {
			for _, e := range f.Extents {
				if err := v.base.Stage(ctx, e.LBA/per, e.Length/per, true); err != nil {
					return err
				}
			}
			return nil
		}) != nil {
			return // the volume ends
		}
		v.mapMu.Lock()
		v.own.scos.add(f.Number, v.origin, f.Clusters, en.Bytes)
		for _, e := range f.Extents {
			src := blockmap.Loc(e.Source)
			for k := range e.Length / per {
				was := blockmap.MakeLoc(src.Number(), src.Level(), src.Offset()+uint16(k))
				if c := e.LBA/per + k; c < v.base.Clusters() && v.base.Staged(c) == was {
					v.base.Set(c, blockmap.MakeLoc(f.Number, v.level(), uint16(uint64(e.First)+k)))
				}
			}
		}
		v.mapMu.Unlock()
		v.base.Unstage()
	}
}

// dropParent commits a head without the parent, once nothing of it is in the map.
func (v *Volume) dropParent(ctx context.Context) error {
	c, ok, err := v.inherits(ctx)
	if err != nil {
		return err
	}
	if ok {
		return fmt.Errorf("vdisk %s: %w: lba %d is still in an ancestor after a flatten", v.id, ErrCorrupt, v.lba(c))
	}
	return v.up.ask(&headRequest{ctx: ctx, checkpoint: true, change: func(h *Head) { h.Parent = nil },
		past: func(*Past) {},
		after: func(*Head) {
			v.mapMu.Lock()
			v.parent = nil
			v.mapMu.Unlock()
			v.dropped.Store(true)
		}})
}

// inherits returns a cluster that the map has from an ancestor.
func (v *Volume) inherits(ctx context.Context) (uint64, bool, error) {
	var w blockmap.Want
	for c := uint64(0); ; {
		next, found, end := v.scanInherited(c, &w)
		if found || end {
			return next, found, nil
		}
		if next > c {
			c, w = next, blockmap.Want{} // the pages before are not needed any more
		} else if err := w.Load(ctx); err != nil {
			return 0, false, err
		}
	}
}

// scanInherited looks at some clusters from c on, or up to a page that w then wants.
func (v *Volume) scanInherited(c uint64, w *blockmap.Want) (next uint64, found, end bool) {
	v.mapMu.RLock()
	defer v.mapMu.RUnlock()
	for range allocatedScan {
		next, ok := v.base.NextMapped(c, w)
		if !ok || next >= v.base.Clusters() {
			return max(c, min(next, v.base.Clusters())), false, ok
		}
		l, ok := v.base.Get(next, w)
		if !ok {
			return next, false, false
		}
		if l.Level() != v.level() {
			return next, true, false
		}
		c = next + 1
	}
	return c, false, false
}

// nextMapped is NextMapped of a map that does not change.
func nextMapped(ctx context.Context, m *blockmap.Map, c uint64) (uint64, error) {
	for w := (blockmap.Want{}); ; {
		next, ok := m.NextMapped(c, &w)
		if ok {
			return next, nil
		}
		if err := w.Load(ctx); err != nil {
			return 0, err
		}
	}
}

// locate is Get of a map that does not change.
func locate(ctx context.Context, m *blockmap.Map, c uint64) (blockmap.Loc, error) {
	for w := (blockmap.Want{}); ; {
		l, ok := m.Get(c, &w)
		if ok {
			return l, nil
		}
		if err := w.Load(ctx); err != nil {
			return 0, err
		}
	}
}

// letGo ends the hold on a parent that the committed head does not name any more.
func (v *Volume) letGo(ctx context.Context) error {
	type result struct {
		last *ID
		err  error
	}
	results := make(chan result, 1)
	if err := v.up.ask(&headRequest{ctx: ctx, after: func(h *Head) {
		var r result
		v.up.recMu.Lock()
		defer v.up.recMu.Unlock()
		if v.up.rec.Parent != nil && h.Parent == nil {
			r.last, r.err = v.p.letGo(v.ctx, &v.up.rec)
		}
		results <- r
	}}); err != nil {
		return err
	}
	r := <-results
	if r.err != nil {
		return r.err
	}
	v.p.froze.drop(v.id)
	v.p.deleteLast(ctx, r.last)
	return nil
}

// letGo is letGo for a record; rec becomes what the registry has. It is refused while
// the vDisk has clones: their maps may name the parent's objects.
func (p *Pool) letGo(ctx context.Context, rec *Record) (last *ID, err error) {
	for range maxClaims {
		if rec.Clones > 0 {
			return nil, fmt.Errorf("vdisk %s: %w: it has %d clones, which may read through its parent; flatten or delete them, then repeat", rec.ID, ErrInUse, rec.Clones)
		}
		next := *rec
		next.Parent = nil
		last, err := p.releaseParent(ctx, rec, &next)
		if err == nil {
			*rec = next
			return last, nil
		}
		cur, lerr := p.host.o.Registry.Load(ctx, rec.ID)
		if lerr != nil || !cur.sameButClones(rec) || cur.equal(rec) {
			return nil, err
		}
		*rec = cur
	}
	return nil, fmt.Errorf("vdisk %s: %w: it changes all the time; try again", rec.ID, ErrInUse)
}
