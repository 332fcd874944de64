package cluster

import (
	"context"
	"time"

	"github.com/openvstorage/ovgate/internal/kv"
)

// Leader lets one node of a cluster do some work: the one whose id is in a record of the
// registry. Nobody takes it from a node that has its lease. One that is paused may go on for
// a moment beside its successor: what both do then has to do no harm.
type Leader struct {
	Store  kv.Store
	Key    string      // of the record
	Node   string      // UUID
	Leased func() bool // whether this node has its lease
}

// Take takes the record, if nobody else has it who has a lease, and tells whether this node
// has it.
func (l Leader) Take(ctx context.Context) (bool, error) {
	if !l.Leased() {
		return false, nil
	}
	rec, err := l.Store.Get(ctx, l.Key)
	if err != nil {
		return false, err
	}
	cmps := []kv.Compare{kv.Absent(l.Key)}
	if rec != nil {
		if string(rec.Value) == l.Node {
			return true, nil
		}
		cmps = []kv.Compare{kv.ModRevIs(l.Key, rec.ModRev), Gone(string(rec.Value))}
	}
	res, err := l.Store.Txn(ctx, cmps, []kv.Op{kv.Put(l.Key, []byte(l.Node))}, nil)
	return res.Succeeded, err
}

// Has is a condition of a transaction: this node is the one.
func (l Leader) Has() kv.Compare { return kv.ValueIs(l.Key, []byte(l.Node)) }

// Give lets another node have the record at once, instead of when this node's lease ended.
func (l Leader) Give(ctx context.Context) error {
	_, err := l.Store.Txn(ctx, []kv.Compare{l.Has()}, []kv.Op{kv.Delete(l.Key)}, nil)
	return err
}

// LeadWait bounds one question about who leads.
const LeadWait = 5 * time.Second
