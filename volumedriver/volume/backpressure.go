package volume

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
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
	// fullPatience bounds the wait for a backend that has no space left, which is far
	// below the 30 s after which initiators take a command for lost: a hypervisor that
	// is told of it stops the VM and goes on later.
	fullPatience = 5 * time.Second
	// spareBytes of the last chunk of the quota are for records without data, so that
	// what is discarded is still taken when writes are not.
	spareBytes = 64 << 10
	// throttleMax is the delay of an append when the quota is all but used up.
	throttleMax = 20 * time.Millisecond
)

// room makes the current chunk have n bytes left. It waits, for up to
// stall_timeout, or fullPatience while the backend is full, while quota or pool are used
// up; then no record is under way.
func (c *committer) room(n int64, data bool) error {
	v := c.v
	if v.journal.Fits(n) && (!data || v.journal.Fits(n+spareBytes) || !c.lastChunk()) {
		return c.throttle()
	}
	c.land()
	start := v.host.o.Clock.Now()
	var timer, again clock.Timer
	for {
		s := v.settings.Load()
		released, pool := v.up.releasedSignal(), v.disk.pool.Released()
		held := v.journal.Bytes()
		if held == 0 || held+v.host.o.ChunkBytes <= s.JournalQuota {
			err := v.journal.AddChunk()
			if err == nil {
				v.up.stalled.Store(false)
				return nil
			}
			if errors.Is(err, journal.ErrNoChunk) {
				err = v.host.giveUp(v.disk)
				if timer == nil {
					v.host.hurry(v.disk)
				}
			}
			if err != nil {
				v.fail(StateFailed, fmt.Errorf("%w: %w", ErrFailed, err))
				return v.writeError()
			}
		}
		if timer == nil {
			defer c.delayed(start)
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
			if v.up.fullError() != nil && v.host.o.Clock.Now().Sub(start) >= fullPatience {
				return c.stallError()
			}
			v.host.hurry(v.disk)
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

// lastChunk tells whether the quota has no room for another chunk.
func (c *committer) lastChunk() bool {
	v := c.v
	return v.journal.Bytes()+v.host.o.ChunkBytes > v.settings.Load().JournalQuota
}

// stallError says why no room came, and refuses all writes that wait behind.
func (c *committer) stallError() error {
	v := c.v
	err := fmt.Errorf("vdisk %s: %w", v.id, ErrStalled)
	if g := v.disk.pool.GrowError(); g != nil {
		err = fmt.Errorf("%w (%w)", err, g)
	} else if u := cmp.Or(v.up.fullError(), v.up.lastError()); u != nil {
		err = fmt.Errorf("%w (%w)", err, u)
	}
	v.qmu.Lock()
	q := v.dequeue(nil, len(v.queue))
	q = slices.DeleteFunc(q, func(r *Request) bool {
		spare := r.Kind == ReqUnmap && r.st.bytes == 0
		if spare {
			v.queue = append(v.queue, r)
		}
		return spare
	})
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
	c.land()
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
