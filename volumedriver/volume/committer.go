package volume

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/volumedriver/blockmap"
	"github.com/openvstorage/ovgate/volumedriver/journal"
)

const (
	// throttleFrom is the share of the journal quota from which appends are
	// delayed, the more the fuller, so that a slow backend slows writers down
	// before it stops them.
	throttleFrom = 0.70
	// throttleOver is the share below which the log says that it is over.
	throttleOver = 0.50
	// roomRetry is how often a writer without room asks the pool again: a chunk
	// could not be made for lack of space, and nobody tells when there is some.
	roomRetry = time.Second
	// throttleMax is the delay of an append when the quota is all but used up.
	throttleMax = 20 * time.Millisecond
)

// committer is the one goroutine that appends to the journal (V1, V2).
type committer struct {
	v     *Volume
	taken []*Request
	batch journal.Batch
	slow  bool // appends were delayed since the journal was last emptier
}

// run takes what is queued, again and again, until the volume ends.
func (c *committer) run() {
	v := c.v
	defer v.wg.Done()
	defer c.refuseAll()
	idle := v.host.o.Clock.NewTimer(time.Hour)
	idle.Stop()
	defer idle.Stop()
	for {
		if c.take() {
			c.commit()
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
		case <-idle.C():
			c.promise()
		case <-v.ctx.Done():
			return
		}
	}
}

// refuseAll completes what is queued when the committer ends; enqueue refuses
// what comes later.
func (c *committer) refuseAll() {
	for {
		c.v.qmu.Lock()
		q := c.v.queue
		c.v.queue = nil
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

// take moves requests from the queue to c.taken, as many as one record carries.
func (c *committer) take() bool {
	v := c.v
	c.taken = c.taken[:0]
	v.qmu.Lock()
	defer v.qmu.Unlock()
	bytes, extents := 0, 0
	for _, r := range v.queue {
		if len(c.taken) > 0 && (bytes+r.st.bytes > v.appendLimit || extents+r.st.nExtents > maxAppendExtents || r.Kind == reqPin) {
			break
		}
		bytes += r.st.bytes
		extents += r.st.nExtents
		c.taken = append(c.taken, r)
		if r.Kind == reqPin {
			break // alone in its record (V8)
		}
	}
	n := copy(v.queue, v.queue[len(c.taken):])
	clear(v.queue[n:])
	v.queue = v.queue[:n]
	return len(c.taken) > 0
}

// commit appends one record for what was taken and completes it.
func (c *committer) commit() {
	v := c.v
	if err := v.writeError(); err != nil {
		c.completeAll(err)
		return
	}
	if r := c.taken[0]; r.Kind == reqPin {
		if err := v.encodeMark(r); err != nil {
			c.completeAll(fmt.Errorf("vdisk %s: snapshot: %w", v.id, err))
			return
		}
	}
	b := &c.batch
	b.Seqs, b.Extents, b.Parts = uint32(len(c.taken)), b.Extents[:0], b.Parts[:0]
	clusters := uint32(0)
	for i, r := range c.taken {
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
	if err := c.room(journal.RecordBytes(len(b.Extents), int(clusters), v.cluster)); err != nil {
		c.completeAll(err)
		return
	}
	if m := c.taken[0].st.mark; m != nil && m.meet != nil {
		if err := m.meet.arrive(v); err != nil {
			c.completeAll(fmt.Errorf("vdisk %s: group snapshot: %w", v.id, err))
			return
		}
	}
	b.Time = v.timestamp()
	at, err := v.journal.Append(b)
	clear(b.Parts)
	if err != nil {
		v.fail(StateFailed, fmt.Errorf("%w: %w", ErrFailed, err))
		c.completeAll(v.writeError())
		return
	}
	v.stats.appends.Add(1)
	v.stats.appendBytes.Add(uint64(at.Bytes))
	v.apply(at.Seq, b, at.Chunk, at.Off, at.Bytes, func(e *journal.Extent) []byte {
		return bytes.Clone(c.taken[e.SeqDelta].Data)
	})
	c.completeAll(nil)
}

func (c *committer) completeAll(err error) {
	for i, r := range c.taken {
		c.taken[i] = nil
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
	pinned := false
	for i := range b.Extents {
		e := &b.Extents[i]
		first, n := e.LBA/per, e.Length/per
		switch e.Kind {
		case journal.KindData:
			for k := range n {
				p := blockmap.Point{Batch: o.id, Chunk: chunk, Sum: b.Sums[uint64(e.Data)+k],
					Off: uint32(off/MinClusterSize) + (e.Data+uint32(k))*unit}
				v.overlay.Write(first+k, p)
				o.entries = append(o.entries, entry{cluster: first + k, count: 1, kind: e.Kind, point: p})
			}
		case journal.KindZero, journal.KindTrim:
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

// room makes the current chunk have n bytes left. It waits, for up to
// stall_timeout, while quota or pool are used up.
func (c *committer) room(n int64) error {
	v := c.v
	if v.journal.Fits(n) {
		return c.throttle()
	}
	var timer, again clock.Timer
	for {
		s := v.settings.Load()
		released, pool := v.up.releasedSignal(), v.host.journal.Released()
		held := v.journal.Bytes()
		if held == 0 || held+v.host.o.ChunkBytes <= s.JournalQuota {
			err := v.journal.AddChunk()
			if err == nil {
				v.up.stalled.Store(false)
				return nil
			}
			if !errors.Is(err, journal.ErrNoChunk) {
				v.fail(StateFailed, fmt.Errorf("%w: %w", ErrFailed, err))
				return v.writeError()
			}
		}
		if timer == nil {
			defer c.delayed(v.host.o.Clock.Now())
			timer = v.host.o.Clock.NewTimer(s.StallTimeout)
			defer timer.Stop()
			again = v.host.o.Clock.NewTimer(roomRetry)
			defer again.Stop()
			v.up.stalled.Store(true)
		}
		v.up.force()
		select {
		case <-released:
		case <-pool:
		case <-again.C():
			again.Reset(roomRetry)
		case <-v.kick: // settings changed, failed, or more was queued
			if err := v.writeError(); err != nil {
				return err
			}
		case <-timer.C():
			return c.stallError()
		case <-v.ctx.Done():
			return fmt.Errorf("vdisk %s: %w", v.id, ErrClosed)
		}
	}
}

// stallError says why no room came, and refuses all that waits behind.
func (c *committer) stallError() error {
	v := c.v
	err := fmt.Errorf("vdisk %s: %w", v.id, ErrStalled)
	if g := v.host.journal.GrowError(); g != nil {
		err = fmt.Errorf("%w (%w)", err, g)
	} else if u := v.up.lastError(); u != nil {
		err = fmt.Errorf("%w (%w)", err, u)
	}
	v.qmu.Lock()
	q := v.queue
	v.queue = nil
	v.qmu.Unlock()
	for _, r := range q {
		v.finish(r, err)
	}
	return err
}

// throttle delays an append while the journal is filling up.
func (c *committer) throttle() error {
	v := c.v
	fill := float64(v.uncommitted.Load()) / float64(v.settings.Load().JournalQuota)
	if fill < throttleFrom {
		if c.slow && fill < throttleOver {
			c.slow = false
			v.log.Info("the journal has room again, writes are not slowed down any more", "throttled", time.Duration(v.stats.throttled.Load()))
		}
		return nil
	}
	if !c.slow {
		c.slow = true
		v.log.Warn("the journal is filling up, writes are slowed down", "fill", fill, "backend", v.up.lastError())
	}
	defer c.delayed(v.host.o.Clock.Now())
	released := v.up.releasedSignal()
	share := min((fill-throttleFrom)/(1-throttleFrom), 1)
	t := v.host.o.Clock.NewTimer(time.Duration(share * share * float64(throttleMax)))
	defer t.Stop()
	v.up.force()
	select {
	case <-t.C():
	case <-released:
	case <-v.ctx.Done():
	}
	return nil
}

// delayed counts a wait that began at start.
func (c *committer) delayed(start time.Time) {
	c.v.stats.throttled.Add(int64(c.v.host.o.Clock.Now().Sub(start)))
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
