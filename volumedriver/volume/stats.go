package volume

import (
	"sync/atomic"
	"time"
)

// stats are the counters of an opening.
type stats struct {
	readOps, writeOps, unmapOps, flushOps atomic.Uint64
	readBytes, writeBytes                 atomic.Uint64
	appends, appendBytes                  atomic.Uint64
	scos, scoBytes                        atomic.Uint64
	backendErrors, crcErrors              atomic.Uint64
	throttled                             atomic.Int64 // ns
	scrubRead, scrubWritten, scrubDeleted atomic.Uint64
	readLat, writeLat                     [24]atomic.Uint64
}

// writeErrorState returns the state of the failure, or running.
func (v *Volume) writeErrorState() State {
	if f := v.failure.Load(); f != nil {
		return f.state
	}
	return StateRunning
}

// state returns the state and its reason.
func (v *Volume) state() (State, string) {
	if f := v.failure.Load(); f != nil {
		return f.state, f.err.Error()
	}
	err := v.up.lastError()
	switch {
	case v.up.stalled.Load() && err != nil:
		return StateStalled, "journal full: " + err.Error()
	case v.up.stalled.Load():
		return StateStalled, "journal full: the backend is slower than the writers"
	case err != nil:
		return StateDegraded, "backend away: " + err.Error()
	}
	return StateRunning, ""
}

// Stats returns counters and gauges.
func (v *Volume) Stats() Stats {
	s := Stats{Epoch: v.this.Epoch, Size: v.Size(), StoredBytes: v.up.stored.Load(), JournalBytes: v.journal.Bytes(),
		JournalQuota: v.settings.Load().JournalQuota, LastSeq: v.lastSeq.Load(), CommittedSeq: v.up.committed.Load(),
		LastCommit: time.Unix(0, v.up.headTime.Load()), HeadNumber: v.up.headNum.Load(), CacheBytes: v.cached.Bytes()}
	s.State, s.Err = v.state()
	v.mapMu.RLock()
	s.MappedBytes = int64(v.base.Mapped()) * int64(v.cluster)
	s.MapMemoryBytes = v.base.MemoryBytes() + v.up.keep.pages.owner.Resident()
	v.mapMu.RUnlock()
	if err := v.mapError(); err != nil {
		s.MapErr = err.Error()
	}
	c := &v.stats
	s.ReadOps, s.WriteOps, s.UnmapOps, s.FlushOps = c.readOps.Load(), c.writeOps.Load(), c.unmapOps.Load(), c.flushOps.Load()
	s.ReadBytes, s.WriteBytes = c.readBytes.Load(), c.writeBytes.Load()
	s.JournalAppends, s.JournalAppendBytes = c.appends.Load(), c.appendBytes.Load()
	s.SCOs, s.SCOBytes = c.scos.Load(), c.scoBytes.Load()
	s.BackendErrors, s.CRCErrors = c.backendErrors.Load(), c.crcErrors.Load()
	s.Throttled = time.Duration(c.throttled.Load())
	s.ScrubReadBytes, s.ScrubWrittenBytes, s.ScrubDeleted = c.scrubRead.Load(), c.scrubWritten.Load(), c.scrubDeleted.Load()
	s.Condemned = len(v.up.doomedNames())
	for i := range s.ReadLatency {
		s.ReadLatency[i], s.WriteLatency[i] = c.readLat[i].Load(), c.writeLat[i].Load()
	}
	return s
}
