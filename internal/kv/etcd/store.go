// Package etcd is kv.Store on an etcd cluster: one that runs already, which others may
// use too, or members that ovgate runs itself (Server).
//
// All keys are below a prefix, and nothing else of the cluster is looked at. Revisions are
// the cluster's: they grow and have gaps. Its history is compacted by the cluster's own
// settings; a Server's is kept for historyKept.
//
// A member that does not answer, though its connection stays, keeps nobody waiting for long:
// it is known by its health (peers.go), what may be asked twice is asked of another one (ask.go),
// changes are made once or it is said that nobody knows (txn.go, D1 and D2), and watches go on at
// another one after what they have delivered.
package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openvstorage/ovgate/internal/kv"
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
	peers    peers
	prefix   string
	seen     atomic.Int64 // a revision that the cluster has had
	spares   spares
	settling chan struct{} // bounds the changes whose outcome is looked for at a time
	cancel   context.CancelFunc
	quit     chan struct{} // closed by Close
	once     sync.Once
	wg       sync.WaitGroup // watches
}

// settlingMost is how many changes' outcomes are looked for at a time.
const settlingMost = 16

var _ kv.Store = (*Store)(nil)

// Open connects to a cluster. It returns once a quorum answered, or with ctx.
func Open(ctx context.Context, o Options) (*Store, error) {
	switch {
	case len(o.Endpoints) == 0:
		return nil, fmt.Errorf("etcd: %w: no endpoint", kv.ErrInvalid)
	case !strings.HasSuffix(o.Prefix, "/") || len(o.Prefix) > kv.MaxKeyBytes:
		return nil, fmt.Errorf("etcd: %w: prefix %.64q does not end with a slash, or is longer than %d bytes", kv.ErrInvalid, o.Prefix, kv.MaxKeyBytes)
	}
	s := &Store{prefix: o.Prefix, settling: make(chan struct{}, settlingMost), quit: make(chan struct{})}
	s.peers = peers{o: o, changed: make(chan struct{})}
	s.peers.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.peers.set(o.Endpoints)
	if _, err := s.revision(ctx); err != nil {
		if why := s.peers.why(); why != nil {
			err = fmt.Errorf("%w: %w", err, why)
		}
		return nil, errors.Join(fmt.Errorf("etcd: %s: %w", strings.Join(o.Endpoints, " "), err), s.Close())
	}
	return s, nil
}

// Close implements kv.Store.
func (s *Store) Close() error {
	s.once.Do(func() {
		close(s.quit)
		s.peers.close(s.cancel)
		s.wg.Wait()
	})
	return nil
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

// saw notes a revision that the cluster has had.
func (s *Store) saw(h *etcdserverpb.ResponseHeader) {
	for {
		have := s.seen.Load()
		if h.GetRevision() <= have || s.seen.CompareAndSwap(have, h.GetRevision()) {
			return
		}
	}
}

// get reads keys.
func (s *Store) get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	res, err := ask(ctx, s, func(ctx context.Context, c *conn, _ bool) (*clientv3.GetResponse, error) {
		return c.Get(ctx, key, opts...)
	})
	if err != nil {
		return nil, s.explain(ctx, err)
	}
	s.saw(res.Header)
	return res, nil
}

// revision returns the newest revision.
func (s *Store) revision(ctx context.Context) (int64, error) {
	res, err := s.get(ctx, s.prefix, clientv3.WithCountOnly())
	if err != nil {
		return 0, err
	}
	return res.Header.Revision, nil
}

// Get implements kv.Store.
func (s *Store) Get(ctx context.Context, key string) (*kv.KV, error) {
	ops := []kv.Op{kv.Get(key)}
	if err := errors.Join(kv.Validate(nil, ops, nil), own(nil, ops)); err != nil {
		return nil, err
	}
	res, err := s.get(ctx, s.prefix+key)
	if err != nil {
		return nil, err
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
	limit = min(limit, rangeMost)
	from, end := s.prefix+prefix, clientv3.GetPrefixRangeEnd(s.prefix+prefix)
	if after != "" {
		from = max(from, s.prefix+after+"\x00")
	}
	var ops []clientv3.Op
	for _, r := range s.around(from, end) {
		ops = append(ops, clientv3.OpGet(r[0], clientv3.WithRange(r[1]), clientv3.WithLimit(int64(limit))))
	}
	if len(ops) == 0 {
		rev, err := s.revision(ctx)
		return nil, rev, err
	}
	res, err := s.read(ctx, ops)
	if err != nil {
		return nil, 0, err
	}
	var out []kv.KV
	for _, r := range res.Responses {
		for _, r := range r.GetResponseRange().Kvs {
			if len(out) < limit {
				out = append(out, s.record(r))
			}
		}
	}
	return out, res.Header.Revision, nil
}

// around returns the ranges of keys from one up to another, without those that users do not
// see: none, one or two.
func (s *Store) around(from, end string) (out [][2]string) {
	gap, after := s.prefix+voids, clientv3.GetPrefixRangeEnd(s.prefix+voids)
	for _, r := range [][2]string{{from, min(end, gap)}, {max(from, after), end}} {
		if r[0] < r[1] {
			out = append(out, r)
		}
	}
	return out
}

// read reads keys as they are at one moment.
func (s *Store) read(ctx context.Context, ops []clientv3.Op) (*clientv3.TxnResponse, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	res, err := ask(ctx, s, func(ctx context.Context, c *conn, _ bool) (*clientv3.TxnResponse, error) {
		return c.Txn(ctx).Then(ops...).Commit()
	})
	if err != nil {
		return nil, s.explain(ctx, err)
	}
	s.saw(res.Header)
	return res, nil
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
		res, err := s.get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(dumpPage), clientv3.WithRev(rev))
		if err != nil {
			return err
		}
		for _, r := range res.Kvs {
			if s.hidden(r.Key) {
				continue
			}
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
	if err := errors.Join(kv.Validate(cmps, then, els), own(cmps, then, els)); err != nil {
		return kv.TxnResult{}, err
	}
	if err := s.ready(ctx); err != nil {
		return kv.TxnResult{}, err
	}
	t := change{cmps, then, els}
	var res *clientv3.TxnResponse
	var err error
	if changes(then) || changes(els) {
		res, err = s.change(ctx, t)
	} else {
		res, err = ask(ctx, s, func(ctx context.Context, c *conn, _ bool) (*clientv3.TxnResponse, error) {
			return c.Txn(ctx).If(s.conditions(cmps)...).Then(s.ops(then)...).Else(s.ops(els)...).Commit()
		})
	}
	if err != nil {
		return kv.TxnResult{}, s.explain(ctx, err)
	}
	s.saw(res.Header)
	out := kv.TxnResult{Succeeded: res.Succeeded, Rev: res.Header.Revision}
	for _, r := range res.Responses {
		if got := r.GetResponseRange(); got != nil {
			out.Gets = append(out.Gets, s.first(got.Kvs))
		}
	}
	return out, nil
}

func (s *Store) conditions(cmps []kv.Compare) []clientv3.Cmp {
	out := make([]clientv3.Cmp, len(cmps))
	for i, c := range cmps {
		out[i] = s.compare(c)
	}
	return out
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
	id, err := s.grant(ctx, ttl)
	return kv.LeaseID(id), s.explain(ctx, err)
}

// grant makes a lease. Its id is chosen here, so that asking twice makes one.
func (s *Store) grant(ctx context.Context, ttl time.Duration) (int64, error) {
	id := leaseID()
	return ask(ctx, s, func(ctx context.Context, c *conn, first bool) (int64, error) {
		_, err := etcdserverpb.NewLeaseClient(c.ActiveConnection()).LeaseGrant(ctx, &etcdserverpb.LeaseGrantRequest{ID: id, TTL: int64((ttl + time.Second - 1) / time.Second)})
		if err = rpctypes.Error(err); !first && errors.Is(err, rpctypes.ErrLeaseExist) {
			err = nil
		}
		return id, err
	})
}

// KeepAlive implements kv.Store.
func (s *Store) KeepAlive(ctx context.Context, id kv.LeaseID) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	_, err := ask(ctx, s, func(ctx context.Context, c *conn, _ bool) (*clientv3.LeaseKeepAliveResponse, error) {
		return c.KeepAliveOnce(ctx, clientv3.LeaseID(id))
	})
	return s.explain(ctx, err)
}

// Revoke implements kv.Store.
func (s *Store) Revoke(ctx context.Context, id kv.LeaseID) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	_, err := ask(ctx, s, func(ctx context.Context, c *conn, first bool) (*clientv3.LeaseRevokeResponse, error) {
		res, err := c.Revoke(ctx, clientv3.LeaseID(id))
		if !first && errors.Is(err, rpctypes.ErrLeaseNotFound) {
			err = nil // the first did it
		}
		return res, err
	})
	return s.explain(ctx, err)
}
