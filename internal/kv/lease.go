package kv

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Bounds of a lease's time to live. Less than a second is lost in the delay of
// one commit; a year is longer than any use, and short of overflow.
const (
	minTTL = time.Second
	maxTTL = 365 * 24 * time.Hour
)

// expireRetry is the pause after an expiry that could not be committed (full
// disk): seldom enough to be free, often enough to follow the freeing of space.
const expireRetry = time.Second

// expireLook is the pause of the expirer when no lease ends before: a grant wakes it.
const expireLook = time.Hour

// leaseTable holds the deadlines of the leases; what a lease is bound to is in
// the database. A lease that is in the database and not here is being removed.
type leaseTable struct {
	mu    sync.Mutex
	byID  map[LeaseID]leaseState
	moved chan struct{} // signals that an earlier deadline may exist
}

type leaseState struct {
	ttl      time.Duration
	deadline time.Time
}

func (l *leaseTable) init() {
	l.byID = map[LeaseID]leaseState{}
	l.moved = make(chan struct{}, 1)
}

// set starts or restarts a lease's time.
func (l *leaseTable) set(id LeaseID, ttl time.Duration, now time.Time) {
	l.mu.Lock()
	l.byID[id] = leaseState{ttl: ttl, deadline: now.Add(ttl)}
	l.mu.Unlock()
	select {
	case l.moved <- struct{}{}:
	default:
	}
}

func (l *leaseTable) drop(id LeaseID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.byID, id)
}

// renew restarts a lease's time; false if it is gone or going.
func (l *leaseTable) renew(id LeaseID, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	st, ok := l.byID[id]
	if ok && !st.deadline.After(now) {
		ok = false // due: the expirer is on its way
	}
	if ok {
		st.deadline = now.Add(st.ttl)
		l.byID[id] = st
	}
	return ok
}

// due takes out the leases whose time is over and returns them with the deadline
// of the next one, within expireLook.
func (l *leaseTable) due(now time.Time) (map[LeaseID]leaseState, time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	over, next := map[LeaseID]leaseState{}, now.Add(expireLook)
	for id, st := range l.byID {
		switch {
		case !st.deadline.After(now):
			over[id] = st
			delete(l.byID, id)
		case st.deadline.Before(next):
			next = st.deadline
		}
	}
	return over, next
}

// expireLoop revokes leases as their time ends.
func (s *Bolt) expireLoop() {
	defer s.wg.Done()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	timer := s.clock.NewTimer(expireLook)
	defer timer.Stop()
	for {
		over, next := s.leases.due(s.clock.Now())
		for id, st := range over {
			err := s.do(ctx, func(b *batch) error { return b.revoke(id) }, nil)
			if err != nil && !refusal(err) {
				s.leases.set(id, st.ttl, s.clock.Now().Add(expireRetry-st.ttl))
			}
		}
		if len(over) > 0 {
			if s.ready(ctx) != nil {
				return
			}
			continue
		}
		timer.ResetAt(next)
		select {
		case <-timer.C():
		case <-s.leases.moved:
		case <-s.quit:
			return
		}
	}
}

// ValidateTTL says why a lease cannot live that long (ErrInvalid), or nil.
func ValidateTTL(ttl time.Duration) error {
	if ttl < minTTL || ttl > maxTTL {
		return fmt.Errorf("%w: lease of %v: %v to %v", ErrInvalid, ttl, minTTL, maxTTL)
	}
	return nil
}

// Grant implements Store.
func (s *Bolt) Grant(ctx context.Context, ttl time.Duration) (LeaseID, error) {
	if err := ValidateTTL(ttl); err != nil {
		return 0, err
	}
	var id LeaseID
	err := s.do(ctx,
		func(b *batch) (err error) { id, err = b.grant(ttl); return err },
		func() { s.leases.set(id, ttl, s.clock.Now()) })
	if err != nil {
		return 0, err
	}
	return id, nil
}

// KeepAlive implements Store.
func (s *Bolt) KeepAlive(ctx context.Context, id LeaseID) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	if !s.leases.renew(id, s.clock.Now()) {
		return fmt.Errorf("%w: lease %d", ErrLeaseNotFound, id)
	}
	return nil
}

// Revoke implements Store.
func (s *Bolt) Revoke(ctx context.Context, id LeaseID) error {
	return s.do(ctx,
		func(b *batch) error { return b.revoke(id) },
		func() { s.leases.drop(id) })
}
