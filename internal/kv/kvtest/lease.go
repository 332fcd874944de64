package kvtest

import (
	"context"
	"time"

	"github.com/openvstorage/ovgate/internal/kv"
)

// ttl is the time to live the suite uses: short, because etcd's tests wait it
// out in real time.
const ttl = 2 * time.Second

// pass lets time pass in the store.
func (u *suite) pass(d time.Duration) {
	if u.opts.Advance != nil {
		u.opts.Advance(d)
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-u.ctx.Done():
	}
}

func (u *suite) grant() kv.LeaseID {
	u.t.Helper()
	id, err := u.s.Grant(u.ctx, ttl)
	u.must(err)
	if id <= 0 {
		u.t.Fatalf("lease id %d", id)
	}
	return id
}

func putLease(key string, id kv.LeaseID) kv.Op {
	return kv.Op{Kind: kv.OpPut, Key: []byte(key), Value: []byte("leased"), Lease: id}
}

// gone waits for the watch to report that exactly these keys went, as one change.
func (u *suite) gone(ch <-chan kv.WatchBatch, keys ...string) {
	u.t.Helper()
	b := u.next(ch)
	left := map[string]bool{}
	for _, k := range keys {
		left[k] = true
	}
	for _, e := range b.Events {
		if !e.Deleted || !left[string(e.KV.Key)] {
			u.t.Fatalf("expiry of %q delivered %q", keys, events(b))
		}
		delete(left, string(e.KV.Key))
	}
	if len(left) > 0 {
		u.t.Fatalf("expiry left %v as a change of its own", left)
	}
	for _, k := range keys {
		u.wantAbsent(k)
	}
}

func (u *suite) leaseExpires() {
	id := u.grant()
	rev := u.apply(putLease("l/a", id), putLease("l/b", id), kv.Put("l/free", nil))
	if e := u.want("l/a", "leased"); e.Lease != id {
		u.t.Fatalf("%s, want lease %d", show(e), id)
	}
	ctx, cancel := context.WithCancel(u.ctx)
	defer cancel()
	ch := u.watch(ctx, "l/", rev)
	u.pass(ttl / 4)
	u.put("other", "") // a round trip: an early expiry would have shown
	u.want("l/a", "leased")
	u.pass(ttl)
	u.gone(ch, "l/a", "l/b")
	if u.get("l/free") == nil {
		u.t.Fatal("a key without a lease went too")
	}
	u.wantErr(u.s.KeepAlive(u.ctx, id), kv.ErrLeaseNotFound, "keep alive after the end")
	_, err := u.s.Txn(u.ctx, nil, []kv.Op{putLease("l/c", id)}, nil)
	u.wantErr(err, kv.ErrLeaseNotFound, "put with an ended lease")
}

func (u *suite) leaseKeepAlive() {
	id := u.grant()
	rev := u.apply(putLease("l/a", id))
	ctx, cancel := context.WithCancel(u.ctx)
	defer cancel()
	ch := u.watch(ctx, "l/", rev)
	for range 4 { // twice the time to live in all
		u.pass(ttl / 2)
		u.must(u.s.KeepAlive(u.ctx, id))
		u.want("l/a", "leased")
	}
	u.pass(2 * ttl)
	u.gone(ch, "l/a")
}

func (u *suite) leaseRevoke() {
	id, other := u.grant(), u.grant()
	rev := u.apply(putLease("l/a", id), putLease("l/b", id), putLease("l/c", other))
	ctx, cancel := context.WithCancel(u.ctx)
	defer cancel()
	ch := u.watch(ctx, "l/", rev)
	u.must(u.s.Revoke(u.ctx, id))
	u.gone(ch, "l/a", "l/b")
	u.want("l/c", "leased")
	u.wantErr(u.s.Revoke(u.ctx, id), kv.ErrLeaseNotFound, "revoke again")
	u.wantErr(u.s.KeepAlive(u.ctx, id), kv.ErrLeaseNotFound, "keep alive after revoke")
}

// leaseRebind: the newest put decides which lease a key hangs on.
func (u *suite) leaseRebind() {
	first, second := u.grant(), u.grant()
	u.apply(putLease("l/a", first), putLease("l/b", first), putLease("l/c", first))
	u.apply(putLease("l/a", second))
	u.put("l/b", "free")
	u.apply(kv.Delete("l/c"))
	u.put("l/c", "again")
	u.must(u.s.Revoke(u.ctx, first))
	u.want("l/a", "leased")
	u.want("l/b", "free")
	u.want("l/c", "again")
	u.must(u.s.Revoke(u.ctx, second))
	u.wantAbsent("l/a")
}

func (u *suite) leaseUnknown() {
	const id = 424242424242
	u.wantErr(u.s.KeepAlive(u.ctx, id), kv.ErrLeaseNotFound, "keep alive")
	u.wantErr(u.s.Revoke(u.ctx, id), kv.ErrLeaseNotFound, "revoke")
}
