package kv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
)

// maxBatch bounds the requests of one bbolt transaction. A sync costs as much
// as a few hundred small requests, so more gains nothing and keeps the first
// waiting; it also bounds a batch's memory to maxBatch times MaxTxnBytes.
const maxBatch = 128

// request is one change on its way through the committer.
type request struct {
	apply func(b *batch) error // runs inside the bbolt transaction
	after func()               // runs once the change is durable; may be nil
	err   error                // apply's answer, or why the commit failed
	done  chan struct{}
}

// batch is the state of one bbolt transaction of the committer.
type batch struct {
	tx     *bolt.Tx
	rev    int64 // newest revision, with those given in this batch
	dirty  bool
	events []WatchBatch
}

// do queues a change and waits for its durable outcome.
func (s *Bolt) do(ctx context.Context, apply func(*batch) error, after func()) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	r := &request{apply: apply, after: after, done: make(chan struct{})}
	select {
	case s.reqs <- r:
	case <-s.quit:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	case <-s.stopped:
	}
	// The committer is gone; it may have answered just before.
	select {
	case <-r.done:
		return r.err
	default:
		return ErrClosed
	}
}

// commitLoop is the committer: the only goroutine that changes the database.
func (s *Bolt) commitLoop() {
	defer s.wg.Done()
	defer close(s.stopped)
	for {
		select {
		case r := <-s.reqs:
			s.commit(s.gather(r))
		case <-s.quit:
			return
		}
	}
}

// gather takes what else waits, without waiting for more.
func (s *Bolt) gather(first *request) []*request {
	batch := []*request{first}
	for len(batch) < maxBatch {
		select {
		case r := <-s.reqs:
			batch = append(batch, r)
		default:
			return batch
		}
	}
	return batch
}

// commit runs the requests in one bbolt transaction. A request that refuses
// (its apply returns an error before it changed anything) does not touch the
// others; a failing database fails them all.
func (s *Bolt) commit(reqs []*request) {
	events, err := s.runBatch(reqs)
	if err != nil {
		err = s.commitFailed(err)
		for _, r := range reqs {
			r.err = err
		}
	} else {
		s.hub.publish(events)
	}
	for _, r := range reqs {
		if r.err == nil && r.after != nil {
			r.after()
		}
		close(r.done)
	}
}

func (s *Bolt) runBatch(reqs []*request) ([]WatchBatch, error) {
	s.failMu.Lock()
	failed := s.failed
	s.failMu.Unlock()
	if failed != nil {
		return nil, failed
	}
	tx, err := s.db.Begin(true)
	if err != nil {
		return nil, err
	}
	b := &batch{tx: tx, rev: int64(getUint(tx.Bucket(bucketMeta), metaRev))}
	for _, r := range reqs {
		r.err = r.apply(b)
		if r.err != nil && !refusal(r.err) {
			return nil, errors.Join(r.err, tx.Rollback())
		}
	}
	if !b.dirty {
		return nil, tx.Rollback()
	}
	if err := tx.Bucket(bucketMeta).Put(metaRev, be64(uint64(b.rev))); err != nil {
		return nil, errors.Join(err, tx.Rollback())
	}
	return b.events, s.commitTx(tx)
}

// refusal tells an answer to one request from a failure of the database.
func refusal(err error) bool {
	return errors.Is(err, ErrInvalid) || errors.Is(err, ErrLeaseNotFound)
}

// commitFailed decides what a failed commit means. With a full disk bbolt has
// rolled back, the file is sound and the store goes on; should the transaction
// count all the same, the watches are told to list anew. After any other error
// (a failed sync above all) the kernel may show what the disk does not hold: the
// store answers no more until it is opened again (K1).
func (s *Bolt) commitFailed(err error) error {
	full := errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
	if full {
		rev := s.hub.newest()
		readErr := s.db.View(func(tx *bolt.Tx) error {
			rev = int64(getUint(tx.Bucket(bucketMeta), metaRev))
			return nil
		})
		if rev != s.hub.newest() {
			s.hub.compact(rev)
		}
		if readErr == nil {
			return fmt.Errorf("kv: %s: %w: free space on its disk", s.path, err)
		}
	}
	s.failMu.Lock()
	defer s.failMu.Unlock()
	if s.failed == nil {
		s.failed = fmt.Errorf("kv: %s: %w: the store is stopped; check its disk and restart", s.path, err)
		s.hub.compact(s.hub.newest() + 1)
	}
	return s.failed
}

// Txn implements Store.
func (s *Bolt) Txn(ctx context.Context, cmps []Compare, then, els []Op) (TxnResult, error) {
	if err := Validate(cmps, then, els); err != nil {
		return TxnResult{}, err
	}
	var res TxnResult
	cmps, then, els = cloneCompares(cmps), cloneOps(then), cloneOps(els)
	err := s.do(ctx, func(b *batch) (err error) {
		res, err = b.txn(cmps, then, els)
		return err
	}, nil)
	if err != nil {
		return TxnResult{}, err
	}
	return res, nil
}

// cloneCompares and cloneOps copy what the committer may still read after ctx
// ended and Txn returned.
func cloneCompares(cmps []Compare) []Compare {
	out := append([]Compare(nil), cmps...)
	for i := range out {
		out[i].Key, out[i].Value = bytes.Clone(out[i].Key), bytes.Clone(out[i].Value)
	}
	return out
}

func cloneOps(ops []Op) []Op {
	out := append([]Op(nil), ops...)
	for i := range out {
		out[i].Key, out[i].Value = bytes.Clone(out[i].Key), bytes.Clone(out[i].Value)
	}
	return out
}

// txn evaluates one transaction against the batch so far.
func (b *batch) txn(cmps []Compare, then, els []Op) (TxnResult, error) {
	res := TxnResult{Succeeded: true, Rev: b.rev}
	for _, c := range cmps {
		if !b.holds(c) {
			res.Succeeded = false
			break
		}
	}
	ops := then
	if !res.Succeeded {
		ops = els
	}
	for _, op := range ops {
		switch {
		case op.Kind == OpGet:
			res.Gets = append(res.Gets, loadKV(b.tx, op.Key))
		case op.Lease != 0 && b.tx.Bucket(bucketLeases).Get(be64(uint64(op.Lease))) == nil:
			return res, fmt.Errorf("%w: lease %d for key %.64q", ErrLeaseNotFound, op.Lease, op.Key)
		}
	}
	changes := WatchBatch{Rev: b.rev + 1}
	for _, op := range ops {
		var err error
		switch op.Kind {
		case OpPut:
			err = b.put(op, &changes)
		case OpDelete:
			err = b.remove(op.Key, &changes)
		}
		if err != nil {
			return res, err
		}
	}
	b.finish(changes)
	res.Rev = b.rev
	return res, nil
}

// finish gives the changes of one transaction their revision, if there are any.
func (b *batch) finish(changes WatchBatch) {
	if len(changes.Events) == 0 {
		return
	}
	b.rev = changes.Rev
	b.dirty = true
	b.events = append(b.events, changes)
}

func (b *batch) holds(c Compare) bool {
	kv := loadKV(b.tx, c.Key)
	if c.Target == CompareValue {
		return kv != nil && bytes.Equal(kv.Value, c.Value)
	}
	if kv == nil {
		return c.Rev == 0
	}
	if c.Target == CompareModRev {
		return kv.ModRev == c.Rev
	}
	return kv.CreateRev == c.Rev
}

func (b *batch) put(op Op, changes *WatchBatch) error {
	kv := KV{Key: op.Key, Value: op.Value, CreateRev: changes.Rev, ModRev: changes.Rev, Lease: op.Lease}
	old := loadKV(b.tx, op.Key)
	if old != nil {
		kv.CreateRev = old.CreateRev
		if err := b.unbind(*old); err != nil {
			return err
		}
	}
	if op.Lease != 0 {
		if err := b.tx.Bucket(bucketLeaseKeys).Put(leaseKey(op.Lease, op.Key), nil); err != nil {
			return err
		}
	}
	changes.Events = append(changes.Events, Event{KV: kv})
	return b.tx.Bucket(bucketKV).Put(op.Key, encodeKV(kv))
}

func (b *batch) remove(key []byte, changes *WatchBatch) error {
	old := loadKV(b.tx, key)
	if old == nil {
		return nil
	}
	if err := b.unbind(*old); err != nil {
		return err
	}
	changes.Events = append(changes.Events, Event{Deleted: true, KV: KV{Key: old.Key, ModRev: changes.Rev}})
	return b.tx.Bucket(bucketKV).Delete(key)
}

// unbind takes a key off its lease.
func (b *batch) unbind(kv KV) error {
	if kv.Lease == 0 {
		return nil
	}
	return b.tx.Bucket(bucketLeaseKeys).Delete(leaseKey(kv.Lease, kv.Key))
}

func leaseKey(id LeaseID, key []byte) []byte { return append(be64(uint64(id)), key...) }

// grant records a new lease.
func (b *batch) grant(ttl time.Duration) (LeaseID, error) {
	meta := b.tx.Bucket(bucketMeta)
	id := getUint(meta, metaLease) + 1
	b.dirty = true
	return LeaseID(id), errors.Join(
		meta.Put(metaLease, be64(id)),
		b.tx.Bucket(bucketLeases).Put(be64(id), be64(uint64(ttl))))
}

// revoke removes leases and their keys; all keys of one lease in one revision (K4).
func (b *batch) revoke(id LeaseID) error {
	leases := b.tx.Bucket(bucketLeases)
	if leases.Get(be64(uint64(id))) == nil {
		return fmt.Errorf("%w: lease %d", ErrLeaseNotFound, id)
	}
	var keys [][]byte
	prefix := be64(uint64(id))
	c := b.tx.Bucket(bucketLeaseKeys).Cursor()
	for k, _ := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		keys = append(keys, bytes.Clone(k[len(prefix):]))
	}
	changes := WatchBatch{Rev: b.rev + 1}
	for _, key := range keys {
		if err := b.remove(key, &changes); err != nil {
			return err
		}
	}
	b.finish(changes)
	b.dirty = true
	return leases.Delete(be64(uint64(id)))
}
