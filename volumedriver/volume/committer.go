package volume

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/volumedriver/blockmap"
	"github.com/openvstorage/ovgate/volumedriver/dtl"
	"github.com/openvstorage/ovgate/volumedriver/journal"
)

const (
	// defaultOverlap is the data from which a record is worth being written while others
	// are, in bytes; below it one append for all of them is faster than two.
	defaultOverlap = 256 << 10
	// maxFlights is how many records are written at once: a disk takes several synced
	// writes in little more time than one.
	maxFlights = 4
	// regroupYields is how many times in a row the processor is offered to writers
	// without one of them queueing a request.
	regroupYields = 8
)

// committer is the one goroutine that fills the journal (V1, V2). It writes small records
// itself. Larger ones are written by other goroutines, so that what came with the records
// before them is answered, and the next ones are built, while the disk works.
type committer struct {
	v       *Volume
	flights [maxFlights]flight
	flying  []*flight // being written, oldest first
	spare   []*flight // the others
	slow    bool      // appends were delayed since the journal was last emptier

	mirror *dtl.Mirror // where records are sent too; nil: nowhere
	must   bool        // what they carry is answered when that has them (V13)
	async  bool        // with must: while the peer gives a grant is enough
}

// flight is a record under way, with the requests that it carries.
type flight struct {
	taken []*Request
	bytes int // of data
	batch journal.Batch
	rec   journal.Record
	at    journal.Placed
	err   error

	written chan struct{} // once the disk is done with it
}

// run takes what is queued, again and again, until the volume ends.
func (c *committer) run() {
	v := c.v
	defer v.wg.Done()
	defer c.refuseAll()
	for i := range c.flights {
		f := &c.flights[i]
		f.written = make(chan struct{}, 1)
		c.spare = append(c.spare, f)
	}
	idle := v.host.o.Clock.NewTimer(time.Hour)
	idle.Stop()
	defer idle.Stop()
	for {
		select {
		case order := <-v.mirror.orders:
			order(c)
		default:
		}
		if len(c.flying) > 0 {
			c.overlap()
			continue
		}
		if c.take(c.spare[0]) {
			c.commit(c.spare[0])
			continue
		}
		if v.sealReq.Load() {
			c.seal()
		}
		if v.journal.Unpromised() {
			idle.Reset(promiseDelay)
		}
		select {
		case <-v.kick:
			idle.Stop()
		case order := <-v.mirror.orders:
			idle.Stop()
			order(c)
		case <-idle.C():
			c.promise()
		case <-v.ctx.Done():
			return
		}
	}
}

// overlap has another record written beside those under way, if enough is queued for it,
// or waits for the end of the oldest.
func (c *committer) overlap() {
	v := c.v
	kick := v.kick
	if len(c.spare) == 0 {
		kick = nil
	} else if f := c.spare[0]; v.queued() >= v.host.o.overlap && c.take(f) {
		c.commit(f)
		return
	}
	select {
	case <-kick:
	case <-c.flying[0].written:
		c.landed()
	}
}

// landed answers what came with the oldest record under way, which was written.
func (c *committer) landed() {
	f := c.flying[0]
	if f.rec.Failed() { // then the others have to be at rest
		for _, o := range c.flying[1:] {
			<-o.written
			o.written <- struct{}{}
		}
	}
	c.flying = c.flying[:copy(c.flying, c.flying[1:])]
	f.at, f.err = c.v.journal.Finish(&f.rec)
	c.finish(f)
	c.spare = append(c.spare, f)
	c.regroup(len(f.taken))
}

// land waits until no record is being written.
func (c *committer) land() {
	for len(c.flying) > 0 {
		<-c.flying[0].written
		c.landed()
	}
}

// launch has a record written.
func (c *committer) launch(f *flight) {
	c.spare = slices.DeleteFunc(c.spare, func(o *flight) bool { return o == f })
	c.flying = append(c.flying, f)
	go func() {
		c.v.journal.Start(&f.rec)
		f.written <- struct{}{}
	}()
}

// regroup lets the n writers that a record has just answered queue what they write next,
// for as long as more of them do. Otherwise the first of them is taken alone, and all
// others wait for an append that carries one cluster.
func (c *committer) regroup(n int) {
	if n < 2 {
		return
	}
	for most, still := 0, 0; still < regroupYields; runtime.Gosched() {
		c.v.qmu.Lock()
		k := len(c.v.queue)
		c.v.qmu.Unlock()
		if k >= n {
			return
		}
		if still++; k > most {
			most, still = k, 0
		}
	}
}

// refuseAll completes what is queued when the committer ends; enqueue refuses
// what comes later.
func (c *committer) refuseAll() {
	for {
		c.v.qmu.Lock()
		q := c.v.dequeue(nil, len(c.v.queue))
		c.v.stopped = true
		c.v.qmu.Unlock()
		if len(q) == 0 {
			return
		}
		for _, r := range q {
			c.v.finish(r, fmt.Errorf("vdisk %s: %w", c.v.id, ErrClosed))
		}
	}
}

// take moves requests from the queue to f.taken, as many as one record carries. When
// there is enough for two records and none is under way, it takes half of it.
func (c *committer) take(f *flight) bool {
	v := c.v
	f.taken, f.bytes = f.taken[:0], 0
	v.qmu.Lock()
	defer v.qmu.Unlock()
	limit := v.appendLimit
	if len(c.flying) == 0 && v.queueBytes >= 2*v.host.o.overlap {
		limit = min(limit, v.queueBytes/2)
	}
	n, extents := 0, 0
	for _, r := range v.queue {
		if n > 0 && (f.bytes+r.st.bytes > limit || extents+r.st.nExtents > maxAppendExtents || r.Kind == reqPin) {
			break
		}
		f.bytes += r.st.bytes
		extents += r.st.nExtents
		n++
		if r.Kind == reqPin {
			break // alone in its record (V8)
		}
	}
	f.taken = v.dequeue(f.taken, n)
	return n > 0
}

// commit has one record written for what was taken. It completes it, or leaves that for
// later.
func (c *committer) commit(f *flight) {
	if !c.build(f) {
		return
	}
	if len(c.flying) > 0 || f.bytes >= c.v.host.o.overlap && f.taken[0].Kind != reqPin {
		c.launch(f)
		return
	}
	c.v.journal.Start(&f.rec)
	f.at, f.err = c.v.journal.Finish(&f.rec)
	c.finish(f)
	c.regroup(len(f.taken))
}

// build makes the record of what was taken; false if it was refused and completed. A
// record under way may have landed meanwhile.
func (c *committer) build(f *flight) bool {
	v := c.v
	if err := v.writeError(); err != nil {
		c.complete(f, err)
		return false
	}
	if r := f.taken[0]; r.Kind == reqPin {
		c.land()
		if err := v.encodeMark(r); err != nil {
			c.complete(f, fmt.Errorf("vdisk %s: snapshot: %w", v.id, err))
			return false
		}
	}
	b := &f.batch
	b.Seqs, b.Extents, b.Parts = uint32(len(f.taken)), b.Extents[:0], b.Parts[:0]
	clusters := uint32(0)
	for i, r := range f.taken {
		for k := range r.st.nExtents {
			e := r.st.extents[k]
			e.SeqDelta = uint32(i)
			if e.HasData() {
				e.Data = clusters
				clusters += uint32(e.Length) * lbaBytes / uint32(v.cluster)
			}
			b.Extents = append(b.Extents, e)
		}
		b.Parts = append(b.Parts, r.st.parts[:r.st.nParts]...)
	}
	if err := c.room(journal.RecordBytes(len(b.Extents), int(clusters), v.cluster), clusters > 0); err != nil {
		c.complete(f, err)
		return false
	}
	if m := f.taken[0].st.mark; m != nil && m.meet != nil {
		if err := m.meet.arrive(v); err != nil {
			c.complete(f, fmt.Errorf("vdisk %s: group snapshot: %w", v.id, err))
			return false
		}
	}
	b.Time = v.timestamp()
	v.journal.Build(b, &f.rec)
	clear(b.Parts)
	c.send(f)
	return true
}

// send mirrors a record that was built. What goes wrong with that, held meets; nothing is
// answered before.
func (c *committer) send(f *flight) {
	m := c.mirror
	if m == nil {
		return
	}
	for c.must && c.async {
		changed := m.Changed()
		if m.Unanswered() < asyncLag {
			break
		}
		select {
		case <-changed:
			continue
		case <-m.Done():
		case <-c.v.ctx.Done():
		}
		break
	}
	_ = m.Append(c.v.ctx, f.rec.Bytes(), c.v.journal.NextSeq()-1)
}

// finish puts a record that was written into the map and completes what it carries.
func (c *committer) finish(f *flight) {
	v := c.v
	if f.err != nil {
		v.fail(StateFailed, fmt.Errorf("%w: %w", ErrFailed, f.err))
		c.complete(f, v.writeError())
		return
	}
	if err := c.held(f); err != nil {
		c.complete(f, err)
		return
	}
	v.stats.appends.Add(1)
	v.stats.appendBytes.Add(uint64(f.at.Bytes))
	v.apply(f.at.Seq, &f.batch, f.at.Chunk, f.at.Off, f.at.Bytes, func(e *journal.Extent) []byte {
		return bytes.Clone(f.taken[e.SeqDelta].Data)
	})
	c.complete(f, nil)
}

// held waits until the record, and all before it, is where the registry says that it is
// (V13). After an error it may be there or not, and nothing is put into the map any more.
func (c *committer) held(f *flight) error {
	v := c.v
	seq := f.at.Seq + uint64(f.batch.Seqs) - 1
	var timer clock.Timer
	for c.must {
		if err := v.fenced(); err != nil {
			return err
		}
		changed := c.mirror.Changed()
		at, lost := c.mirror.Durable()
		if at >= seq || c.async && v.mirror.mayServe() {
			break
		}
		if timer == nil {
			timer = v.host.o.Clock.NewTimer(v.settings.Load().StallTimeout)
			defer timer.Stop()
			defer v.mirror.stalled.Store(false)
		}
		v.mirror.stalled.Store(lost != nil)
		done := c.mirror.Done()
		if lost != nil {
			done = nil
		}
		select {
		case <-changed:
		case <-done:
		case order := <-v.mirror.orders: // which it is, when the mirror ended
			order(c)
		case <-v.kick: // it may be fenced
		case <-timer.C():
			c.stall(f)
			timer.Reset(v.settings.Load().StallTimeout)
		case <-v.ctx.Done():
			return fmt.Errorf("vdisk %s: %w", v.id, ErrClosed)
		}
	}
	return nil
}

// stall answers what waited for stall_timeout, and what waits behind it. What is in a
// record stays in the log, and reaches the map in its turn; until then stand-ins keep its
// ranges, so that nothing comes of it that a read or a partial write could see too early.
func (c *committer) stall(f *flight) {
	v := c.v
	err := v.mirror.stallError()
	c.standIn(f, err)
	for _, o := range c.flying {
		if o != f {
			c.standIn(o, err)
		}
	}
	for _, r := range v.locks.refuse() {
		v.complete(r, err)
	}
	v.qmu.Lock()
	q := v.dequeue(nil, len(v.queue))
	v.qmu.Unlock()
	for _, r := range q {
		v.finish(r, err)
	}
}

// standIn answers what a record carries, and leaves stand-ins in its place.
func (c *committer) standIn(f *flight, err error) {
	v := c.v
	for i, r := range f.taken {
		if r.Kind == 0 {
			continue // it is one
		}
		s := &Request{Done: nobody{}}
		if r.Kind == ReqReserve || r.Kind == reqPin {
			s.Data = bytes.Clone(r.Data)
		}
		v.locks.replace(r, s)
		f.taken[i] = s
		v.inflight.Add(1)
		v.active.Add(1)
		clear(r.st.parts[:])
		v.complete(r, err)
	}
}

// nobody waits for a stand-in.
type nobody struct{}

func (nobody) Complete(*Request) {}

func (c *committer) complete(f *flight, err error) {
	for i, r := range f.taken {
		f.taken[i] = nil
		c.v.finish(r, err)
	}
}

// timestamp returns the time for a record; it never decreases (E6).
func (v *Volume) timestamp() int64 {
	now := max(v.host.now(), v.lastTime.Load())
	v.lastTime.Store(now)
	return now
}

// apply puts a durable record into the overlay and the open batch, in seq order (V1).
// state returns what a reservation or pin extent of it stores.
func (v *Volume) apply(seq uint64, b *journal.Batch, chunk uint32, off, space int64, state func(*journal.Extent) []byte) {
	last := seq + uint64(b.Seqs) - 1
	per := uint64(v.cluster / lbaBytes)
	unit := uint32(v.cluster / MinClusterSize)
	data := int64(len(b.Sums)) * int64(v.cluster)
	s := v.settings.Load()
	v.mapMu.Lock()
	// By age too: the uploader, which closes what is not written to any more, may be
	// busy, and moments to go back to are to be commit_interval apart (E6).
	if o := v.batch; o != nil && (o.bytes+data > s.SCOSize || len(o.entries)+len(b.Extents)+len(b.Sums) > maxBatchEntries ||
		b.Time-o.firstTime >= int64(s.CommitInterval)) {
		v.closeBatch()
	}
	if v.batch == nil {
		v.batches++
		v.batch = &batch{id: v.batches, firstSeq: seq, firstTime: b.Time, opened: v.host.o.Clock.Now()}
		v.up.wake() // its age counts from now
	}
	o := v.batch
	pinned, changed := false, false
	for i := range b.Extents {
		e := &b.Extents[i]
		first, n := e.LBA/per, e.Length/per
		switch e.Kind {
		case journal.KindData:
			changed = true
			for k := range n {
				p := blockmap.Point{Batch: o.id, Chunk: chunk, Sum: b.Sums[uint64(e.Data)+k],
					Off: uint32(off/MinClusterSize) + (e.Data+uint32(k))*unit}
				v.overlay.Write(first+k, p)
				o.entries = append(o.entries, entry{cluster: first + k, count: 1, kind: e.Kind, point: p})
			}
		case journal.KindZero, journal.KindTrim:
			changed = true
			v.overlay.Trim(first, n, o.id)
			o.entries = append(o.entries, entry{cluster: first, count: n, kind: e.Kind})
		case journal.KindReservation:
			if e.HasData() {
				v.install(o, state(e))
			}
		case journal.KindPin:
			if e.HasData() {
				pinned = v.applyMark(state(e), last, b.Time)
			}
		}
	}
	o.bytes += data
	o.journal += space
	v.uncommitted.Add(space)
	o.lastSeq, o.lastTime = last, b.Time
	if pinned {
		v.closeBatch()
	}
	v.mapMu.Unlock()
	if changed {
		v.changed.Store(last)
	}
	v.lastSeq.Store(last)
}

// closeBatch ends the open batch; mapMu is held. It gets its SCO number here, so
// numbers and seqs go together (V4).
func (v *Volume) closeBatch() {
	b := v.batch
	if b == nil {
		return
	}
	v.batch = nil
	b.number = v.up.nextSCO
	v.up.nextSCO++
	v.closed = append(v.closed, b)
	v.up.wake()
}

// promise makes damage to the newest record recognisable (E3).
func (c *committer) promise() {
	if c.v.writeError() != nil {
		return
	}
	if _, err := c.v.journal.Promise(c.v.timestamp()); err != nil {
		c.v.fail(StateFailed, fmt.Errorf("%w: %w", ErrFailed, err))
	}
}

// seal gives the last chunk back when everything in it is committed: an idle
// vDisk holds no chunk.
func (c *committer) seal() {
	v := c.v
	v.sealReq.Store(false)
	committed := v.up.committed.Load()
	if v.lastSeq.Load() != committed {
		return
	}
	v.journal.Seal()
	v.journal.Release(committed)
}
