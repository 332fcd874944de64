package iscsi

import (
	"fmt"
	"time"
)

// QoS limits what all initiators together may do to a logical unit. The zero
// value sets no limit. Commands above a rate wait; none is refused for it before
// the unit's queue is full (TASK SET FULL).
type QoS struct {
	IOPS  int64 // commands per second that use the medium; 0: no limit
	Bytes int64 // bytes read and written per second; 0: no limit
	// Burst is how much of a rate that was left unused may be caught up at once,
	// expressed as time: a unit of 1000 IOPS and 2 s may do 2000 commands in a row
	// after a pause. 0 is DefaultBurst; at most MaxBurstTime.
	Burst time.Duration
}

const (
	// DefaultBurst lets a queue of commands through that arrived together, and
	// is too short to be seen as another rate in a graph of seconds.
	DefaultBurst = 100 * time.Millisecond
	// MaxBurstTime is the longest Burst: a minute at another rate is a rate.
	MaxBurstTime = time.Minute
	// maxRate bounds IOPS and Bytes per second: far above any device, and small
	// enough for arithmetic in nanoseconds.
	maxRate = 1 << 40
)

// validate says which field is out of range.
func (q QoS) validate() error {
	switch {
	case q.IOPS < 0 || q.IOPS > maxRate:
		return fmt.Errorf("QoS: %d IOPS; use 0 (no limit) to %d", q.IOPS, int64(maxRate))
	case q.Bytes < 0 || q.Bytes > maxRate:
		return fmt.Errorf("QoS: %d bytes per second; use 0 (no limit) to %d", q.Bytes, int64(maxRate))
	case q.Burst < 0 || q.Burst > MaxBurstTime:
		return fmt.Errorf("QoS: burst of %v; use 0 (%v) to %v", q.Burst, DefaultBurst, MaxBurstTime)
	}
	return nil
}

// SetQoS replaces the limits of a published logical unit while it is in use. It
// raises no unit attention, and commands that wait for the old rate go on under
// the new one. ErrNoTarget and ErrNoLUN say what does not exist.
func (s *Server) SetQoS(iqn string, lun uint16, q QoS) error {
	if err := q.validate(); err != nil {
		return fmt.Errorf("iscsi: target %s LUN %d: %w", iqn, lun, err)
	}
	iqn = NormalizeName(iqn)
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.targets[iqn]
	if t == nil {
		return fmt.Errorf("%w: %s", ErrNoTarget, iqn)
	}
	l := t.lun(lun)
	if l == nil {
		return fmt.Errorf("%w: target %s LUN %d", ErrNoLUN, iqn, lun)
	}
	l.setQoS(q)
	return nil
}
