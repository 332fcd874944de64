package etcd

import (
	"context"
	"sync/atomic"
	"time"
)

// What may be asked twice is asked again, of another member, when there is no answer for a
// while: the member may stand still, or wait for a leader that does. What was asked at first may
// still be answered; the first answer counts.
const (
	// askAgain is after what time a question is asked once more, askMost how often at most it is
	// on its way at once: a cluster of which the leader stands still has another one within
	// about two seconds, and what waits for the old one may wait for seven.
	askAgain = 500 * time.Millisecond
	askMost  = 8
	// askTries is how many answers that may be others soon, such as that there is no leader, are
	// not believed; askPause is between two of them.
	askTries = 30
	askPause = 100 * time.Millisecond
	// spareMost bounds what a store asks again without an answer: when the whole cluster is
	// slow, that makes it no slower.
	spareMost = 64
)

// spares counts questions that are on their way beside their first.
type spares struct{ n atomic.Int64 }

func (s *spares) take() bool {
	if s.n.Add(1) <= spareMost {
		return true
	}
	s.n.Add(-1)
	return false
}

func (s *spares) free() { s.n.Add(-1) }

// ask asks what may be asked twice; first tells send that it was not asked before. The error is
// of ctx, or the cluster's.
func ask[T any](ctx context.Context, s *Store, send func(ctx context.Context, c *conn, first bool) (T, error)) (T, error) {
	type answer struct {
		v    T
		err  error
		from *conn
	}
	var none T
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan answer, askMost)
	var asked []*peer // those that did not answer yet, and who answered last
	flying, first := 0, true
	start := func(c *conn, spare bool) {
		was := first
		asked, first = append(asked, c.peer), false
		flying++
		go func() {
			if spare {
				defer s.spares.free()
			}
			v, err := send(ctx, c, was)
			answers <- answer{v, err, c}
		}()
	}
	c, err := s.peers.pick(ctx)
	if err != nil {
		return none, err
	}
	start(c, false)
	again, pause := time.NewTicker(askAgain), time.NewTimer(askPause)
	defer again.Stop()
	defer pause.Stop()
	pause.Stop()
	failed := 0
	for {
		select {
		case a := <-answers:
			flying--
			switch {
			case a.err == nil:
				return a.v, nil
			case ctx.Err() != nil:
				return none, ctx.Err()
			case final(a.err):
				return none, a.err
			case a.from.isGone():
			default:
				if failed++; failed == askTries {
					return none, a.err
				}
			}
			switch {
			case flying > 0: // these may say more
			case a.from.isGone():
				pause.Reset(0)
			default:
				pause.Reset(askPause)
			}
		case <-pause.C:
			if flying > 0 {
				continue
			}
			asked = asked[len(asked)-1:]
			if c, err = s.peers.pick(ctx, asked...); err != nil {
				return none, err
			}
			start(c, false)
		case <-again.C:
			if flying == 0 || flying == askMost || !s.spares.take() {
				continue
			}
			if c, _, _ := s.peers.choose(asked); c != nil {
				start(c, true)
			} else {
				s.spares.free()
			}
		case <-ctx.Done():
			return none, ctx.Err()
		}
	}
}
