package iscsi_test

import (
	"errors"
	"testing"

	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/iscsi/initiator"
)

// full sends reads of some blocks to a disk that holds them, and returns how many
// were taken and how many were answered TASK SET FULL.
func full(t *testing.T, n *node, s *initiator.Session, count, blocks int) (taken, refused int, done chan error) {
	t.Helper()
	before := n.srv.Stats().Commands
	done = reads(t, s, count, blocks)
	eventually(t, n, "every read has arrived", func() bool { return n.srv.Stats().Commands == before+uint64(count) })
	if _, err := s.Ping(n.ctx, nil); err != nil { // behind the refusals
		t.Fatal(err)
	}
	refused = len(done)
	for range refused {
		err := <-done
		var e *initiator.SCSIError
		if !errors.As(err, &e) || e.Status != initiator.TaskSetFull {
			t.Errorf("%v", err)
		}
	}
	return count - refused, refused, done
}

// TestServerBytes: sessions that take all they can leave the others a part; each
// has its floor, and together they stay within the limit. What they held is given
// back, by answers and by lost connections.
func TestServerBytes(t *testing.T) {
	const limit = 16 << 20
	n := start(t, iscsi.Config{Limits: iscsi.Limits{ServerBytes: limit, Sessions: 8}}, nil)
	var sessions []*initiator.Session
	for range 6 {
		sessions = append(sessions, n.login(nil))
	}
	for round := range 3 {
		n.disk.Hold()
		total := 0
		var waits []chan error
		var left []int
		for i, s := range sessions[:3] {
			taken, _, done := full(t, n, s, 32, 2048)
			if least := []int{7, 3, 1}[i]; taken < least || i > 0 && taken >= left[i-1] {
				t.Fatalf("round %d: greedy session %d had %d MiB", round, i, taken)
			}
			total += taken << 20
			waits, left = append(waits, done), append(left, taken)
		}
		for _, s := range sessions[3:5] { // the floor is theirs
			taken, _, done := full(t, n, s, 32, 8)
			if taken != 32 {
				t.Fatalf("round %d: a modest session had %d commands of 4 KiB", round, taken)
			}
			total += taken << 12
			waits, left = append(waits, done), append(left, taken)
		}
		if total > limit {
			t.Errorf("round %d: %d bytes are held", round, total)
		}
		if round == 1 { // what a lost connection held comes back as well
			sessions[0].Close()
			n.disk.Release()
			eventually(t, n, "the session is gone", func() bool { return len(n.srv.Sessions()) == 5 })
			sessions[0] = n.login(nil)
		}
		n.disk.Release()
		for i, k := range left {
			for range k {
				if err := <-waits[i]; err != nil && round != 1 {
					t.Error(err)
				}
			}
			if _, err := sessions[i].Ping(n.ctx, nil); err != nil { // the batch before it was accounted for
				t.Error(err)
			}
		}
	}
}
