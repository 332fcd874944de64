package cluster

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/kv"
	"github.com/openvstorage/ovgate/internal/kv/etcd/etcdtest"
	"github.com/openvstorage/ovgate/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// faulty is a registry that can be cut off: requests wait for their context.
type faulty struct {
	kv.Store
	mu  sync.Mutex
	cut bool
	// unknown makes the next transaction's answer get lost.
	unknown bool
}

func (f *faulty) wait(ctx context.Context) error {
	f.mu.Lock()
	cut := f.cut
	f.mu.Unlock()
	if !cut {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

func (f *faulty) set(off bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cut = off
}

func (f *faulty) KeepAlive(ctx context.Context, id kv.LeaseID) error {
	if err := f.wait(ctx); err != nil {
		return err
	}
	return f.Store.KeepAlive(ctx, id)
}

func (f *faulty) Grant(ctx context.Context, ttl time.Duration) (kv.LeaseID, error) {
	if err := f.wait(ctx); err != nil {
		return 0, err
	}
	return f.Store.Grant(ctx, ttl)
}

func (f *faulty) Txn(ctx context.Context, cmps []kv.Compare, then, els []kv.Op) (kv.TxnResult, error) {
	if err := f.wait(ctx); err != nil {
		return kv.TxnResult{}, err
	}
	res, err := f.Store.Txn(ctx, cmps, then, els)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.unknown {
		f.unknown = false
		return kv.TxnResult{}, errors.New("answer lost")
	}
	return res, err
}

func lease(t *testing.T, store kv.Store, ttl time.Duration) *Lease {
	t.Helper()
	l, err := OpenLease(t.Context(), LeaseOptions{Store: store, Node: "n", TTL: ttl})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *Lease) wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	end := time.After(patience)
	for {
		moved := l.Moved()
		if ok() {
			return
		}
		select {
		case <-moved:
		case <-end:
			t.Fatalf("never: %s", what)
		}
	}
}

func key(t *testing.T, store kv.Store) *kv.KV {
	t.Helper()
	e, err := store.Get(t.Context(), alivePrefix+"n")
	if err != nil {
		t.Fatal(err)
	}
	return e
}

const testTTL = 3 * time.Second // above what etcd gives at least

// TestLease: it is kept beyond its time to live, ends with the registry cut off before its
// key does (L2), is taken anew when the registry is back, and is given back at the end.
func TestLease(t *testing.T) {
	etcdtest.EachStore(t, func(t *testing.T, open func() kv.Store) {
		store := open()
		cut := &faulty{Store: open()}
		l := lease(t, cut, testTTL)
		first := l.Until()
		l.wait(t, "renewed beyond its time", func() bool { return l.Until().After(first.Add(testTTL)) })
		if !l.Valid() || key(t, store) == nil {
			t.Fatal("not valid while it is renewed")
		}
		_, rev, err := store.Range(t.Context(), alivePrefix, "", 0)
		if err != nil {
			t.Fatal(err)
		}
		watch, err := store.Watch(t.Context(), alivePrefix, rev)
		if err != nil {
			t.Fatal(err)
		}
		cut.set(true)
		b := <-watch
		if b.Err != nil || len(b.Events) != 1 || !b.Events[0].Deleted {
			t.Fatalf("the key changed: %+v", b)
		}
		if l.Valid() {
			t.Error("the node may serve after its key went")
		}
		ended := l.Until()
		cut.set(false)
		l.wait(t, "valid again", l.Valid)
		if !l.Until().After(ended) || key(t, store) == nil {
			t.Error("no key when it is valid again")
		}
		if err := l.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if l.Valid() || key(t, store) != nil {
			t.Error("the lease outlives Close")
		}
	})
}

// TestLeaseTwice: of two processes with one id the newer one has the lease, and the older
// one ends at its next renewal, for good (L3).
func TestLeaseTwice(t *testing.T) {
	etcdtest.EachStore(t, func(t *testing.T, open func() kv.Store) {
		a := lease(t, open(), testTTL)
		b := lease(t, open(), testTTL)
		a.wait(t, "a ended", a.Twice)
		if a.Valid() {
			t.Error("a may serve")
		}
		was := b.Until()
		b.wait(t, "b renewed", func() bool { return b.Until().After(was) })
		if err := a.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if !b.Valid() || key(t, b.o.Store) == nil {
			t.Error("the end of a took b's key")
		}
		if err := b.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestLeaseUnknown: an answer that got lost does not leave the node with a key that it does
// not renew, and a key that somebody deleted comes back.
func TestLeaseUnknown(t *testing.T) {
	etcdtest.EachStore(t, func(t *testing.T, open func() kv.Store) {
		store := open()
		lost := &faulty{Store: open(), unknown: true}
		if l, err := OpenLease(t.Context(), LeaseOptions{Store: lost, Node: "n", TTL: testTTL}); err == nil {
			t.Fatalf("opened; %v", l.Close(t.Context()))
		}
		l := lease(t, lost, testTTL)
		for range 2 {
			lost.mu.Lock()
			lost.unknown = true
			lost.mu.Unlock()
			if _, err := store.Txn(t.Context(), nil, []kv.Op{kv.Delete(alivePrefix + "n")}, nil); err != nil {
				t.Fatal(err)
			}
			gone := time.Now()
			l.wait(t, "taken anew", func() bool { return l.Until().After(gone.Add(testTTL)) })
			now := l.Until()
			l.wait(t, "renewed", func() bool { return l.Until().After(now.Add(testTTL)) })
			if key(t, store) == nil {
				t.Error("no key")
			}
		}
		if err := l.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// deaf is a registry some of whose requests get no answer, as those to a member of etcd that
// is cut off.
type deaf struct {
	kv.Store
	mu    sync.Mutex
	calls int
}

func (d *deaf) hang(ctx context.Context) error {
	d.mu.Lock()
	d.calls++
	odd := d.calls%2 == 1
	d.mu.Unlock()
	if !odd {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

func (d *deaf) KeepAlive(ctx context.Context, id kv.LeaseID) error {
	if err := d.hang(ctx); err != nil {
		return err
	}
	return d.Store.KeepAlive(ctx, id)
}

func (d *deaf) Get(ctx context.Context, key string) (*kv.KV, error) {
	if err := d.hang(ctx); err != nil {
		return nil, err
	}
	return d.Store.Get(ctx, key)
}

// TestLeaseDeaf: a member of the registry that answers nothing does not cost the lease.
func TestLeaseDeaf(t *testing.T) {
	etcdtest.EachStore(t, func(t *testing.T, open func() kv.Store) {
		l := lease(t, &deaf{Store: open()}, LeaseMost)
		_, term := l.State()
		for range 3 {
			was := l.Until()
			l.wait(t, "renewed", func() bool { return l.Until().After(was) })
			if !l.Valid() {
				t.Error("not valid in between")
			}
		}
		if _, now := l.State(); now != term {
			t.Error("the lease was lost")
		}
		if err := l.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// TestFollowLiving: who follows the leases is told when one is taken, and when it ends.
func TestFollowLiving(t *testing.T) {
	etcdtest.EachStore(t, func(t *testing.T, open func() kv.Store) {
		store := open()
		ctx, cancel := context.WithCancel(t.Context())
		told, ended := make(chan struct{}, 1), make(chan struct{})
		go func() {
			defer close(ended)
			FollowLiving(ctx, store, clock.Real{}, func() {
				select {
				case told <- struct{}{}:
				default:
				}
			})
		}()
		until := func(what string, lives bool) {
			t.Helper()
			end := time.After(patience)
			for {
				select {
				case <-told:
				case <-end:
					t.Fatalf("not told: %s", what)
				}
				if now, err := Living(t.Context(), store); err == nil && now["n"] == lives {
					return
				}
			}
		}
		until("that nobody lives", false)
		l := lease(t, open(), testTTL)
		until("a lease is taken", true)
		if err := l.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		until("it ended", false)
		cancel()
		<-ended
	})
}
