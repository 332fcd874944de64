// Package etcd is kv.Store on an etcd cluster: one that runs already, which others may
// use too, or members that ovgate runs itself (Server).
//
// All keys are below a prefix, and nothing else of the cluster is looked at. Revisions are
// the cluster's: they grow and have gaps. Its history is compacted by the cluster's own
// settings; a Server's is kept for historyKept.
package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/openvstorage/ovgate/internal/kv"
)

// A connection that says nothing for keepAlive is asked, and given up when it does not
// answer within keepAliveWait: another member answers sooner than a dead one's kernel.
const (
	keepAlive     = 2 * time.Second
	keepAliveWait = 3 * time.Second
)

// Defaults and bounds of a Range.
const (
	rangeDefault = 1000
	rangeMost    = 10_000
)

// Options say where the cluster is.
type Options struct {
	// Endpoints are URLs of members: all that are known, each of which is asked when the
	// others do not answer.
	Endpoints []string
	// Prefix begins every key, and ends with a slash.
	Prefix string
	// TLS is for https:// endpoints; nil takes the system's CAs and no client certificate.
	TLS            *tls.Config
	User, Password string // of a cluster that authenticates
	Log            *slog.Logger
}

// Store implements kv.Store.
type Store struct {
	c      *clientv3.Client
	prefix string
	quit   chan struct{} // closed by Close
	once   sync.Once
	wg     sync.WaitGroup // watches
	// dials is held where the client connects to one member, and alone where its endpoints are
	// replaced: it reads them unguarded.
	dials sync.RWMutex
}

var _ kv.Store = (*Store)(nil)

// Open connects to a cluster. It returns once a quorum answered, or with ctx.
func Open(ctx context.Context, o Options) (*Store, error) {
	switch {
	case len(o.Endpoints) == 0:
		return nil, fmt.Errorf("etcd: %w: no endpoint", kv.ErrInvalid)
	case !strings.HasSuffix(o.Prefix, "/") || len(o.Prefix) > kv.MaxKeyBytes:
		return nil, fmt.Errorf("etcd: %w: prefix %.64q does not end with a slash, or is longer than %d bytes", kv.ErrInvalid, o.Prefix, kv.MaxKeyBytes)
	}
	c, err := clientv3.New(clientv3.Config{
		Endpoints: o.Endpoints, TLS: o.TLS, Username: o.User, Password: o.Password,
		DialKeepAliveTime: keepAlive, DialKeepAliveTimeout: keepAliveWait, PermitWithoutStream: true,
		MaxCallSendMsgSize: 2 * kv.MaxTxnBytes, MaxCallRecvMsgSize: math.MaxInt32, // a Range is as large as its limit lets it
		Logger: zap.New(logCore{o.Log}), Context: context.WithoutCancel(ctx),
	})
	if err != nil {
		return nil, fmt.Errorf("etcd: %s: %w", strings.Join(o.Endpoints, " "), err)
	}
	s := &Store{c: c, prefix: o.Prefix, quit: make(chan struct{})}
	if _, err := s.revision(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("etcd: %s: %w", strings.Join(o.Endpoints, " "), err), c.Close())
	}
	return s, nil
}

// Close implements kv.Store.
func (s *Store) Close() error {
	err := error(kv.ErrClosed)
	s.once.Do(func() {
		close(s.quit)
		err = s.c.Close()
		s.wg.Wait()
	})
	if errors.Is(err, context.Canceled) || errors.Is(err, kv.ErrClosed) {
		return nil
	}
	return err
}

// ready says why nothing can be asked.
func (s *Store) ready(ctx context.Context) error {
	select {
	case <-s.quit:
		return kv.ErrClosed
	default:
		return ctx.Err()
	}
}

// explain returns the error of a call in the terms of package kv.
func (s *Store) explain(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if err := s.ready(ctx); err != nil {
		return err
	}
	switch {
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		return fmt.Errorf("%w: %v", kv.ErrLeaseNotFound, err)
	case errors.Is(err, rpctypes.ErrCompacted), errors.Is(err, rpctypes.ErrFutureRev):
		return fmt.Errorf("%w: %v", kv.ErrCompacted, err)
	}
	return fmt.Errorf("etcd: %w", err)
}

// revision returns the newest revision.
func (s *Store) revision(ctx context.Context) (int64, error) {
	if err := s.ready(ctx); err != nil {
		return 0, err
	}
	res, err := s.c.Get(ctx, s.prefix, clientv3.WithCountOnly())
	if err != nil {
		return 0, s.explain(ctx, err)
	}
	return res.Header.Revision, nil
}

// Get implements kv.Store.
func (s *Store) Get(ctx context.Context, key string) (*kv.KV, error) {
	if err := kv.Validate(nil, []kv.Op{kv.Get(key)}, nil); err != nil {
		return nil, err
	}
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	res, err := s.c.Get(ctx, s.prefix+key)
	if err != nil {
		return nil, s.explain(ctx, err)
	}
	return s.first(res.Kvs), nil
}

// GetAll implements kv.Store: one call, where one for each key would cost as many.
func (s *Store) GetAll(ctx context.Context, keys []string) ([]*kv.KV, error) {
	ops, err := kv.Gets(keys)
	if err != nil {
		return nil, err
	}
	if len(ops) == 0 {
		return nil, s.ready(ctx)
	}
	res, err := s.Txn(ctx, nil, ops, nil)
	return res.Gets, err
}

// first returns what a read of one key found.
func (s *Store) first(found []*mvccpb.KeyValue) *kv.KV {
	if len(found) == 0 {
		return nil
	}
	r := s.record(found[0])
	return &r
}

func (s *Store) record(r *mvccpb.KeyValue) kv.KV {
	out := kv.KV{Key: r.Key[len(s.prefix):], Value: r.Value, CreateRev: r.CreateRevision, ModRev: r.ModRevision, Lease: kv.LeaseID(r.Lease)}
	if out.Value == nil {
		out.Value = []byte{}
	}
	return out
}

// Range implements kv.Store.
func (s *Store) Range(ctx context.Context, prefix, after string, limit int) ([]kv.KV, int64, error) {
	if err := kv.ValidatePrefix(prefix, after); err != nil {
		return nil, 0, err
	}
	if err := s.ready(ctx); err != nil {
		return nil, 0, err
	}
	if limit <= 0 {
		limit = rangeDefault
	}
	from, end := s.prefix+prefix, clientv3.GetPrefixRangeEnd(s.prefix+prefix)
	if after != "" {
		from = max(from, s.prefix+after+"\x00")
	}
	if from >= end {
		rev, err := s.revision(ctx)
		return nil, rev, err
	}
	res, err := s.c.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(int64(min(limit, rangeMost))))
	if err != nil {
		return nil, 0, s.explain(ctx, err)
	}
	out := make([]kv.KV, len(res.Kvs))
	for i, r := range res.Kvs {
		out[i] = s.record(r)
	}
	return out, res.Header.Revision, nil
}

// dumpPage bounds what Dump reads at once: records have up to kv.MaxTxnBytes, few of them
// that much.
const dumpPage = 200

// Dump implements kv.Store.
func (s *Store) Dump(ctx context.Context, prefix string, begin func(rev int64) error, each func(kv.KV) error) error {
	if err := kv.ValidatePrefix(prefix, ""); err != nil {
		return err
	}
	rev, err := s.revision(ctx)
	if err == nil {
		err = begin(rev)
	}
	from, end := s.prefix+prefix, clientv3.GetPrefixRangeEnd(s.prefix+prefix)
	for err == nil {
		if err := s.ready(ctx); err != nil {
			return err
		}
		res, rerr := s.c.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(dumpPage), clientv3.WithRev(rev))
		if rerr != nil {
			return s.explain(ctx, rerr)
		}
		for _, r := range res.Kvs {
			if err := each(s.record(r)); err != nil {
				return err
			}
		}
		if !res.More {
			return nil
		}
		from = string(res.Kvs[len(res.Kvs)-1].Key) + "\x00"
	}
	return err
}

// Txn implements kv.Store.
func (s *Store) Txn(ctx context.Context, cmps []kv.Compare, then, els []kv.Op) (kv.TxnResult, error) {
	if err := kv.Validate(cmps, then, els); err != nil {
		return kv.TxnResult{}, err
	}
	if err := s.ready(ctx); err != nil {
		return kv.TxnResult{}, err
	}
	conds := make([]clientv3.Cmp, len(cmps))
	for i, c := range cmps {
		conds[i] = s.compare(c)
	}
	res, err := s.c.Txn(ctx).If(conds...).Then(s.ops(then)...).Else(s.ops(els)...).Commit()
	if err != nil {
		return kv.TxnResult{}, s.explain(ctx, err)
	}
	out := kv.TxnResult{Succeeded: res.Succeeded, Rev: res.Header.Revision}
	for _, r := range res.Responses {
		if got := r.GetResponseRange(); got != nil {
			out.Gets = append(out.Gets, s.first(got.Kvs))
		}
	}
	return out, nil
}

func (s *Store) compare(c kv.Compare) clientv3.Cmp {
	key := s.prefix + string(c.Key)
	switch c.Target {
	case kv.CompareModRev:
		return clientv3.Compare(clientv3.ModRevision(key), "=", c.Rev)
	case kv.CompareCreateRev:
		return clientv3.Compare(clientv3.CreateRevision(key), "=", c.Rev)
	default:
		return clientv3.Compare(clientv3.Value(key), "=", string(c.Value))
	}
}

// ops puts the reads first: etcd's see what stands before them in the transaction, ours
// the state before it.
func (s *Store) ops(ops []kv.Op) []clientv3.Op {
	out := make([]clientv3.Op, 0, len(ops))
	for _, op := range ops {
		if op.Kind == kv.OpGet {
			out = append(out, clientv3.OpGet(s.prefix+string(op.Key)))
		}
	}
	for _, op := range ops {
		switch key := s.prefix + string(op.Key); op.Kind {
		case kv.OpPut:
			out = append(out, clientv3.OpPut(key, string(op.Value), clientv3.WithLease(clientv3.LeaseID(op.Lease))))
		case kv.OpDelete:
			out = append(out, clientv3.OpDelete(key))
		}
	}
	return slices.Clip(out)
}

// Grant implements kv.Store. The cluster gives no lease shorter than one and a half of its
// election timeouts.
func (s *Store) Grant(ctx context.Context, ttl time.Duration) (kv.LeaseID, error) {
	if err := kv.ValidateTTL(ttl); err != nil {
		return 0, err
	}
	if err := s.ready(ctx); err != nil {
		return 0, err
	}
	res, err := s.c.Grant(ctx, int64((ttl+time.Second-1)/time.Second))
	if err != nil {
		return 0, s.explain(ctx, err)
	}
	return kv.LeaseID(res.ID), nil
}

// KeepAlive implements kv.Store.
func (s *Store) KeepAlive(ctx context.Context, id kv.LeaseID) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	_, err := s.c.KeepAliveOnce(ctx, clientv3.LeaseID(id))
	return s.explain(ctx, err)
}

// Revoke implements kv.Store.
func (s *Store) Revoke(ctx context.Context, id kv.LeaseID) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	_, err := s.c.Revoke(ctx, clientv3.LeaseID(id))
	return s.explain(ctx, err)
}
