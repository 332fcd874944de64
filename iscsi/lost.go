package iscsi

import (
	"cmp"
	"slices"
	"time"
)

const (
	// lostAge is how long a session that was dropped is remembered.
	lostAge = time.Hour
	// maxLost bounds those that are remembered: as many as there are sessions at most.
	maxLost = 1024
)

// LostSession is a session that was dropped because its initiator stopped answering, and
// that did not sign in again since.
type LostSession struct {
	Target, Initiator string
	Remote, Local     string // addresses of its connection
	Dropped           time.Time
	Reason            string
}

// lostKey tells apart the ways of an initiator to a target.
type lostKey struct{ target, initiator, local string }

// lose remembers a session that is dropped; of too many, those that come later are not.
func (s *Server) lose(ss *session, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.lost) >= maxLost {
		s.forgetLost()
	}
	if len(s.lost) < maxLost {
		c := ss.conn
		s.lost[lostKey{ss.target.name, ss.initiator, c.local}] = LostSession{ss.target.name, ss.initiator, c.remote, c.local, s.clk.Now(), why}
	}
}

// found forgets what was lost of a session that signs in again; mu is held.
func (s *Server) found(ss *session) {
	delete(s.lost, lostKey{ss.target.name, ss.initiator, ss.conn.local})
}

// forgetLost forgets those that are old, or that could not sign in any more; mu is held.
func (s *Server) forgetLost() {
	now := s.clk.Now()
	for k, l := range s.lost {
		if t := s.targets[k.target]; t == nil || t.admit(k.initiator) == nil || now.Sub(l.Dropped) >= lostAge {
			delete(s.lost, k)
		}
	}
}

// Lost lists the sessions of the last hour that were dropped because the initiator
// stopped answering, and whose initiator has not come back by the same portal; by initiator.
// One that the target does not admit any more is not missed.
func (s *Server) Lost() []LostSession {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgetLost()
	out := make([]LostSession, 0, len(s.lost))
	for _, l := range s.lost {
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b LostSession) int {
		return cmp.Or(cmp.Compare(a.Initiator, b.Initiator), cmp.Compare(a.Target, b.Target), cmp.Compare(a.Local, b.Local))
	})
	return out
}
