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
	cacheHits, cacheMisses                atomic.Uint64
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
	case v.mirror.stalled.Load():
		return StateStalled, v.mirror.stallReason()
	case v.up.stalled.Load() && err != nil:
		return StateStalled, "journal full: " + err.Error()
	case v.up.stalled.Load():
		return StateStalled, "journal full: the backend is slower than the writers"
	case err != nil:
		return StateDegraded, "backend away: " + err.Error()
	}
	return StateRunning, ""
}

// Condition returns of Stats what tells whether the vDisk is well: State, Err, MapErr,
// JournalBytes, JournalQuota and DTL. It costs little.
func (v *Volume) Condition() Stats {
	s := Stats{JournalBytes: v.journal.Bytes(), JournalQuota: v.settings.Load().JournalQuota}
	s.State, s.Err = v.state()
	s.DTL = v.mirror.stats()
	if err := v.mapError(); err != nil {
		s.MapErr = err.Error()
	}
	return s
}

// Stats returns counters and gauges.
func (v *Volume) Stats() Stats {
	s := Stats{Epoch: v.this.Epoch, Size: v.Size(), StoredBytes: v.up.stored.Load(), JournalBytes: v.journal.Bytes(),
		JournalQuota: v.settings.Load().JournalQuota, LastSeq: v.lastSeq.Load(), ChangedSeq: v.changed.Load(), CommittedSeq: v.up.committed.Load(),
		LastCommit: time.Unix(0, v.up.headTime.Load()), HeadNumber: v.up.headNum.Load(), CacheBytes: v.cached.Bytes()}
	c := v.Condition()
	s.State, s.Err, s.MapErr, s.DTL = c.State, c.Err, c.MapErr, c.DTL
	v.mapMu.RLock()
	s.MappedBytes = int64(v.base.Mapped()) * int64(v.cluster)
	s.MapMemoryBytes = v.base.MemoryBytes() + v.up.keep.pages.owner.Resident()
	v.mapMu.RUnlock()
	s.ReadOps, s.WriteOps, s.UnmapOps, s.FlushOps = v.stats.readOps.Load(), v.stats.writeOps.Load(), v.stats.unmapOps.Load(), v.stats.flushOps.Load()
	s.ReadBytes, s.WriteBytes = v.stats.readBytes.Load(), v.stats.writeBytes.Load()
	s.JournalAppends, s.JournalAppendBytes = v.stats.appends.Load(), v.stats.appendBytes.Load()
	s.SCOs, s.SCOBytes = v.stats.scos.Load(), v.stats.scoBytes.Load()
	s.CacheHits, s.CacheMisses = v.stats.cacheHits.Load(), v.stats.cacheMisses.Load()
	s.BackendErrors, s.CRCErrors = v.stats.backendErrors.Load(), v.stats.crcErrors.Load()
	s.Throttled = time.Duration(v.stats.throttled.Load())
	s.ScrubReadBytes, s.ScrubWrittenBytes, s.ScrubDeleted = v.stats.scrubRead.Load(), v.stats.scrubWritten.Load(), v.stats.scrubDeleted.Load()
	s.Condemned = len(v.up.doomedNames())
	for i := range s.ReadLatency {
		s.ReadLatency[i], s.WriteLatency[i] = v.stats.readLat[i].Load(), v.stats.writeLat[i].Load()
	}
	return s
}
