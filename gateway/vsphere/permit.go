package vsphere

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/integrations/vsphere"
)

// A vCenter knows nothing of leases: what it was asked for it does. So that no node goes on
// there with a job that another one took over (V8):
//
//	node A   record: "calls of up to 5m" ── call ──▶ vCenter ── call ─╳ (no lease any more)
//	                                        │◀───── at most 5m ─────▶│
//	node B        A's lease ended ── record: "mine, from now + 5m" ── waits ── looks, goes on
//
// A stores before its first call how long calls of the step take, if the record is still A's,
// which it finds out by that. Each call is sent in the term of the lease in which that was
// stored: it is looked at again in the moment in which the request goes out, as a process that
// stood still goes on where it was. B took the job over after that term, and counts from
// there, by its own clock: A sent nothing later.
//
// A vCenter that carries out a call later than it was waited for is not bounded by that. B
// looks at what is there before it does anything, as after every failure.

// late are the steps with a call that does harm when it is carried out after the job went on
// elsewhere: a LUN is formatted again, or detached that has another datastore by then. What
// others ask for may be done again at any time, or is looked for (see release).
var late = []string{stepFormat, stepSign, stepExpand, stepRename, stepDestroy, stepDetach, stepForget, stepMap, stepUnmapVM}

// held is what a step knows of its permit.
type held struct {
	mu    sync.Mutex
	ok    bool
	term  uint64        // of the lease
	limit time.Duration // as stored
}

// term is that of the node's lease; without one it is none.
func (m *Manager) term() (uint64, bool) {
	if m.ctl == nil {
		return 0, true
	}
	return m.ctl.Term()
}

// permit finds out that the job is the step's still, and stores that calls of up to limit may
// be under way. It is a vsphere.Permit.
func (s *step) permit(ctx context.Context, limit time.Duration) (still func() error, _ error) {
	s.held.mu.Lock()
	defer s.held.mu.Unlock()
	term, ok := s.m.term()
	if !ok {
		return nil, fmt.Errorf("%w: %w", vsphere.ErrNotOurs, errNoLease)
	}
	if !slices.Contains(late, s.job.Step) {
		limit = 0
	}
	if !s.held.ok || s.held.term != term || s.held.limit < limit {
		_, err := s.m.model.UpdateDatastore(ctx, s.rec.ID, func(d *model.Datastore) error {
			if !s.m.same(d, &s.job) {
				return vsphere.ErrNotOurs
			}
			d.Job.CallMs = max(d.Job.CallMs, limit.Milliseconds())
			return nil
		})
		if errors.Is(err, model.ErrConflict) || errors.Is(err, model.ErrNotFound) {
			err = fmt.Errorf("%w: %w", vsphere.ErrNotOurs, err)
		}
		if err != nil {
			return nil, err
		}
		s.held.ok, s.held.term, s.held.limit = true, term, limit
	}
	return func() error { return s.still(term) }, nil
}

// still tells whether the job is the step's, in a term.
func (s *step) still(term uint64) error {
	if now, ok := s.m.term(); !ok || now != term {
		return fmt.Errorf("%w: %w", vsphere.ErrNotOurs, errNoLease)
	}
	if d, ok := s.m.model.FindDatastore(s.rec.ID); !ok || !s.m.same(&d, &s.job) {
		return fmt.Errorf("%w: %w", vsphere.ErrNotOurs, errReplaced)
	}
	return nil
}

// until is when the calls of a job are over that were sent before now; zero: there are none.
func (m *Manager) until(j *model.DatastoreJob) time.Time {
	if j.CallMs == 0 {
		return time.Time{}
	}
	return m.clock.Now().UTC().Add(time.Duration(j.CallMs) * time.Millisecond)
}

// former waits, after a job was taken over, for calls that its former node may have sent.
func (m *Manager) former(rec model.Datastore) error {
	left := rec.Job.From.Sub(m.clock.Now())
	if left <= 0 {
		return nil
	}
	return &waiting{
		fmt.Sprintf("the node that had the job may have asked the vCenter for step %s: that is over by %s, and the job goes on then", rec.Job.Step, rec.Job.From.Format(time.RFC3339)),
		"wait", left,
	}
}
