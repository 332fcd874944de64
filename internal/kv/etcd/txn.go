package etcd

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openvstorage/ovgate/internal/kv"
)

// A change that got no answer may have been made, may never be, or may be made later: when a
// member that stood still reads what was sent to it. So a transaction that changes something
// carries the condition that a key of its own, its void, does not exist. Nobody makes it while
// all goes well. Who does not wait for an answer any more makes it, at another member, and from
// then on it is decided:
//
//	D1  A transaction whose void exists is not done any more, whoever still has it.
//	D2  What it did before is in the history, between the newest revision that the store knew
//	    when it sent it and the one that made its void: a revision with all puts of one of its
//	    branches, or with one of the deletions of one that only deletes. If there is none, it was
//	    not done, and is sent anew with another void. If there is one, that may be another
//	    store's that did the same: then the outcome stays unknown (kv, K1).
//
// Voids are below the prefix, where users of a store neither see keys nor may have any, and go
// after voidLife.
const (
	voids = "\x00ovgate/void/"
	// voidLife is far above how long a member is left standing still, to go on afterwards.
	voidLife = 24 * time.Hour
	// txnLate is when a transaction is late: a disk that is busy is sooner, a leader that stands
	// still is replaced a second later.
	txnLate = time.Second
	// txnMost is how often a transaction is sent at most.
	txnMost = 4
	// settleWait bounds how long it takes to find out whether one was done.
	settleWait = 10 * time.Second
	// historyMost bounds how many changes are looked through for that.
	historyMost = 20_000
)

// errUnknown: nobody knows whether a transaction was done.
var errUnknown = errors.New("no member said whether it made the change, and it may have been made")

// change is a transaction that changes something.
type change struct {
	cmps      []kv.Compare
	then, els []kv.Op
}

// changes tells whether operations do more than read.
func changes(ops []kv.Op) bool {
	return slices.ContainsFunc(ops, func(op kv.Op) bool { return op.Kind != kv.OpGet })
}

// sent is what a member said of a change.
type sent struct {
	res *clientv3.TxnResponse
	err error
}

// change makes a change once.
func (s *Store) change(ctx context.Context, t change) (*clientv3.TxnResponse, error) {
	op := clientv3.OpTxn(s.conditions(t.cmps), s.ops(t.then), s.ops(t.els))
	var not []*peer
	for try := 1; ; try++ {
		c, err := s.peers.pick(ctx, not...)
		if err != nil {
			return nil, err
		}
		not = []*peer{c.peer}
		res, err := s.attempt(ctx, t, op, c)
		switch {
		case res != nil || err != nil:
			return res, err
		case try == txnMost:
			return nil, fmt.Errorf("sent %d times, and no member made the change; it was not made", try)
		}
	}
}

// attempt sends a change to a member. It returns nil when it was not made, and never will be.
func (s *Store) attempt(ctx context.Context, t change, op clientv3.Op, c *conn) (*clientv3.TxnResponse, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	since, void := s.seen.Load(), s.prefix+voids+rand.Text()
	answer := make(chan sent, 1)
	go func() {
		res, err := c.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(void), "=", 0)).Then(op).Commit()
		answer <- sent{res, err}
	}()
	late := time.NewTimer(txnLate)
	defer late.Stop()
	select {
	case a := <-answer:
		if a.err == nil && a.res.Succeeded {
			return s.inner(a.res)
		}
		if final(a.err) {
			return nil, a.err
		}
		answer = nil // there is no other one
	case <-c.gone:
	case <-late.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return s.settle(ctx, t, void, since, answer)
}

// inner is the answer to the transaction within a transaction.
func (s *Store) inner(res *clientv3.TxnResponse) (*clientv3.TxnResponse, error) {
	in := res.Responses[0].GetResponseTxn()
	return &clientv3.TxnResponse{Header: res.Header, Succeeded: in.Succeeded, Responses: in.Responses}, nil
}

// settle decides what becomes of a change that was not answered, or with what does not tell
// whether it was made: its answer after all, nil if it was not made and never will be, or an
// error if that is not known.
func (s *Store) settle(ctx context.Context, t change, void string, since int64, answer <-chan sent) (*clientv3.TxnResponse, error) {
	type outcome struct {
		done bool
		err  error
	}
	found := make(chan outcome, 1)
	go func() {
		ctx, cancel := context.WithTimeout(ctx, settleWait)
		defer cancel()
		select { // so that it makes a slow cluster no slower
		case s.settling <- struct{}{}:
			defer func() { <-s.settling }()
		case <-ctx.Done():
			found <- outcome{err: ctx.Err()}
			return
		}
		done, err := s.void(ctx, t, void, since)
		found <- outcome{done, err}
	}()
	// The answer comes, or ends with its connection. It is waited for as long as nothing else tells:
	// a member that made the change, and is just busy, says so.
	var unknown error
	for {
		select {
		case a := <-answer:
			switch {
			case a.err == nil && a.res.Succeeded:
				return s.inner(a.res)
			case a.err == nil: // its void came before (D1)
				return nil, nil
			case final(a.err):
				return nil, a.err
			case unknown != nil:
				return nil, unknown
			}
			answer = nil
		case f := <-found:
			switch {
			case f.err != nil:
				unknown = fmt.Errorf("%w: %w", errUnknown, f.err)
			case f.done:
				unknown = errUnknown
			default:
				return nil, nil
			}
			if answer == nil {
				return nil, unknown
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// void makes the void of a change (D1), and tells whether it may have been made before (D2).
func (s *Store) void(ctx context.Context, t change, void string, since int64) (bool, error) {
	lease, err := s.grant(ctx, voidLife)
	if err != nil {
		return false, err
	}
	made, err := ask(ctx, s, func(ctx context.Context, c *conn, _ bool) (int64, error) {
		// Once it is there it stays as it is: what comes first decides.
		res, err := c.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(void), "=", 0)).
			Then(clientv3.OpPut(void, "", clientv3.WithLease(clientv3.LeaseID(lease)))).Else(clientv3.OpGet(void)).Commit()
		switch {
		case err != nil:
			return 0, err
		case res.Succeeded:
			return res.Header.Revision, nil
		}
		return res.Responses[0].GetResponseRange().Kvs[0].ModRevision, nil
	})
	if err != nil {
		return false, err
	}
	return ask(ctx, s, func(ctx context.Context, c *conn, _ bool) (bool, error) { return s.history(ctx, c, t, since, made) })
}

// history tells whether between two revisions, the last of which is there, a change may have
// been made.
func (s *Store) history(ctx context.Context, c *conn, t change, since, until int64) (bool, error) {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	looked := 0
	var events []*clientv3.Event
	for res := range c.Watch(ctx, s.prefix, clientv3.WithPrefix(), clientv3.WithRev(since+1)) {
		if err := res.Err(); err != nil {
			return false, err
		}
		for _, e := range res.Events {
			if len(events) > 0 && events[0].Kv.ModRevision != e.Kv.ModRevision {
				if s.may(t.then, events) || s.may(t.els, events) {
					return true, nil
				}
				events = events[:0]
			}
			if e.Kv.ModRevision >= until {
				return false, nil
			}
			events = append(events, e)
			if looked++; looked > historyMost {
				return false, fmt.Errorf("more than %d changes since", historyMost)
			}
		}
	}
	if err := ctx.Err(); err != nil {
		return false, err
	}
	return false, rpctypes.ErrNoLeader // the watch broke: another member tells
}

// may tells whether the changes of one revision may be those of a branch.
func (s *Store) may(branch []kv.Op, events []*clientv3.Event) bool {
	find := func(op kv.Op, kind mvccpb.Event_EventType) bool {
		return slices.ContainsFunc(events, func(e *clientv3.Event) bool {
			return e.Type == kind && string(e.Kv.Key[len(s.prefix):]) == string(op.Key) &&
				(kind == mvccpb.Event_DELETE || bytes.Equal(e.Kv.Value, op.Value) && e.Kv.Lease == int64(op.Lease))
		})
	}
	puts, deleted := 0, false
	for _, op := range branch {
		switch op.Kind {
		case kv.OpPut:
			if puts++; !find(op, mvccpb.Event_PUT) {
				return false
			}
		case kv.OpDelete:
			deleted = deleted || find(op, mvccpb.Event_DELETE)
		}
	}
	return puts > 0 || deleted
}

// hidden tells whether a key, with the prefix, is none of the users'.
func (s *Store) hidden(key []byte) bool {
	return len(key) >= len(s.prefix) && strings.HasPrefix(string(key[len(s.prefix):]), voids)
}

// own refuses keys that users may not have.
func own(cmps []kv.Compare, ops ...[]kv.Op) error {
	bad := func(key []byte) bool { return bytes.HasPrefix(key, []byte(voids)) }
	if slices.ContainsFunc(cmps, func(c kv.Compare) bool { return bad(c.Key) }) ||
		slices.ContainsFunc(slices.Concat(ops...), func(op kv.Op) bool { return bad(op.Key) }) {
		return fmt.Errorf("%w: keys that begin with %q are the store's own", kv.ErrInvalid, voids)
	}
	return nil
}

// leaseID returns an id for a new lease: of who asks, so that asking twice makes one.
func leaseID() int64 {
	var b [8]byte
	rand.Read(b[:])
	return int64(binary.BigEndian.Uint64(b[:])>>1 | 1)
}
