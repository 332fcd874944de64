// Package kvtest is the conformance suite of kv.Store: every implementation
// runs it (bbolt, and etcd in package etcd). It assumes nothing an etcd cluster does not
// give: revisions grow but need not be consecutive, other users may share the
// cluster, time passes by itself unless Options.Advance moves it.
package kvtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/kv"
)

// Options tell the suite what it can do to an implementation.
type Options struct {
	// Advance moves the store's clock; nil: the suite waits in real time.
	Advance func(d time.Duration)
	// Reopen closes the store and opens it again; nil: restarts are not tested.
	Reopen func(t *testing.T, s kv.Store) kv.Store
	// Compact makes the store forget its history up to now; nil: the suite
	// writes until a watch from the beginning is refused.
	Compact func(t *testing.T, s kv.Store)
}

// patience bounds the wait for something that must happen. It is far above
// what any healthy store takes, and not a measure of speed.
const patience = 30 * time.Second

type suite struct {
	t    *testing.T
	s    kv.Store
	opts Options
	ctx  context.Context
}

// Run runs the suite. open returns an empty store and closes it by t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) kv.Store, opts Options) {
	tests := []struct {
		name string
		run  func(*suite)
	}{
		{"GetAbsent", (*suite).getAbsent},
		{"PutGetDelete", (*suite).putGetDelete},
		{"Values", (*suite).values},
		{"Compares", (*suite).compares},
		{"Branches", (*suite).branches},
		{"GetsSeeTheStateBefore", (*suite).getsBefore},
		{"AtomicOnRefusal", (*suite).atomicOnRefusal},
		{"Limits", (*suite).limits},
		{"Invalid", (*suite).invalid},
		{"GetAll", (*suite).getAll},
		{"Range", (*suite).ranges},
		{"Dump", (*suite).dump},
		{"DumpIsOfOneMoment", (*suite).dumpMoment},
		{"RevisionsGrow", (*suite).revisionsGrow},
		{"ConcurrentIncrements", (*suite).concurrentIncrements},
		{"ConcurrentTransfers", (*suite).concurrentTransfers},
		{"WatchOrder", (*suite).watchOrder},
		{"WatchFromRevision", (*suite).watchFromRevision},
		{"WatchPrefix", (*suite).watchPrefix},
		{"WatchUnderLoad", (*suite).watchUnderLoad},
		{"WatchCompacted", (*suite).watchCompacted},
		{"WatchEnds", (*suite).watchEnds},
		{"LeaseExpires", (*suite).leaseExpires},
		{"LeaseKeepAlive", (*suite).leaseKeepAlive},
		{"LeaseRevoke", (*suite).leaseRevoke},
		{"LeaseRebind", (*suite).leaseRebind},
		{"LeaseUnknown", (*suite).leaseUnknown},
		{"Context", (*suite).context},
		{"Restart", (*suite).restart},
		{"Model", (*suite).model},
		{"Closed", (*suite).closed},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
			defer cancel()
			tc.run(&suite{t: t, s: open(t), opts: opts, ctx: ctx})
		})
	}
}

// must ends the test on an error.
func (u *suite) must(err error) {
	u.t.Helper()
	if err != nil {
		u.t.Fatal(err)
	}
}

func (u *suite) wantErr(err, want error, what string) {
	u.t.Helper()
	if !errors.Is(err, want) {
		u.t.Fatalf("%s: got error %v, want %v", what, err, want)
	}
}

func (u *suite) txn(cmps []kv.Compare, then, els []kv.Op) kv.TxnResult {
	u.t.Helper()
	res, err := u.s.Txn(u.ctx, cmps, then, els)
	u.must(err)
	return res
}

// apply runs unconditional operations and returns the revision after them.
func (u *suite) apply(ops ...kv.Op) int64 {
	u.t.Helper()
	res := u.txn(nil, ops, nil)
	if !res.Succeeded {
		u.t.Fatal("a transaction without compares did not succeed")
	}
	return res.Rev
}

func (u *suite) put(key, value string) int64 {
	u.t.Helper()
	return u.apply(kv.Put(key, []byte(value)))
}

func (u *suite) get(key string) *kv.KV {
	u.t.Helper()
	e, err := u.s.Get(u.ctx, key)
	u.must(err)
	return e
}

// want checks a key's value; "" with absent set means it must not exist.
func (u *suite) want(key, value string) *kv.KV {
	u.t.Helper()
	e := u.get(key)
	if e == nil || string(e.Value) != value || string(e.Key) != key {
		u.t.Fatalf("key %q: got %s, want value %q", key, show(e), value)
	}
	return e
}

func (u *suite) wantAbsent(key string) {
	u.t.Helper()
	if e := u.get(key); e != nil {
		u.t.Fatalf("key %q: got %s, want absent", key, show(e))
	}
}

func show(e *kv.KV) string {
	if e == nil {
		return "absent"
	}
	return fmt.Sprintf("{%q=%.60q create %d mod %d lease %d}", e.Key, e.Value, e.CreateRev, e.ModRev, e.Lease)
}

func (u *suite) getAbsent() {
	u.wantAbsent("nothing")
	kvs, rev, err := u.s.Range(u.ctx, "noth", "", 0)
	u.must(err)
	if len(kvs) != 0 || rev < 0 {
		u.t.Fatalf("range of nothing: %d keys at revision %d", len(kvs), rev)
	}
}

func (u *suite) putGetDelete() {
	r1 := u.put("a", "1")
	e := u.want("a", "1")
	if e.CreateRev != r1 || e.ModRev != r1 || r1 <= 0 {
		u.t.Fatalf("after the first put at %d: %s", r1, show(e))
	}
	r2 := u.put("a", "2")
	e = u.want("a", "2")
	if e.CreateRev != r1 || e.ModRev != r2 || r2 <= r1 {
		u.t.Fatalf("after the second put at %d: %s", r2, show(e))
	}
	u.apply(kv.Delete("a"))
	u.wantAbsent("a")
	u.apply(kv.Delete("a")) // absent: no error
	r3 := u.put("a", "3")
	if e = u.want("a", "3"); e.CreateRev != r3 || r3 <= r2 {
		u.t.Fatalf("a key put after its deletion at %d: %s", r3, show(e))
	}
}

func (u *suite) values() {
	big := bytes.Repeat([]byte{0xa5}, kv.MaxTxnBytes-1)
	for _, v := range [][]byte{{}, {0}, []byte("\xff\xfe\x00"), big} {
		u.apply(kv.Put("k", v))
		e := u.get("k")
		if e == nil || e.Value == nil || !bytes.Equal(e.Value, v) {
			u.t.Fatalf("value of %d bytes came back as %s", len(v), show(e))
		}
		e.Value = append(e.Value[:0], "overwritten by the receiver"...)
	}
	u.apply(kv.Put("nil", nil))
	if e := u.get("nil"); e == nil || e.Value == nil {
		u.t.Fatalf("nil value: %s, want an empty one", show(e))
	}
	key := string(bytes.Repeat([]byte{0xff}, kv.MaxKeyBytes))
	u.put(key, "longest")
	u.want(key, "longest")
}

func (u *suite) compares() {
	r1 := u.put("a", "x")
	r2 := u.put("a", "y")
	compare := func(target kv.Target, rev int64) kv.Compare {
		return kv.Compare{Key: []byte("a"), Target: target, Rev: rev}
	}
	for _, tc := range []struct {
		name string
		cmp  []kv.Compare
		want bool
	}{
		{"none", nil, true},
		{"mod equal", []kv.Compare{kv.ModRevIs("a", r2)}, true},
		{"mod old", []kv.Compare{kv.ModRevIs("a", r1)}, false},
		{"create equal", []kv.Compare{compare(kv.CompareCreateRev, r1)}, true},
		{"create other", []kv.Compare{compare(kv.CompareCreateRev, r2)}, false},
		{"create absent", []kv.Compare{{Key: []byte("b"), Target: kv.CompareCreateRev}}, true},
		{"value equal", []kv.Compare{kv.ValueIs("a", []byte("y"))}, true},
		{"value other", []kv.Compare{kv.ValueIs("a", []byte("x"))}, false},
		{"value prefix", []kv.Compare{kv.ValueIs("a", nil)}, false},
		{"value of absent key", []kv.Compare{kv.ValueIs("b", nil)}, false},
		{"absent", []kv.Compare{kv.Absent("b")}, true},
		{"absent but there", []kv.Compare{kv.Absent("a")}, false},
		{"all hold", []kv.Compare{kv.Absent("b"), kv.ModRevIs("a", r2)}, true},
		{"last does not hold", []kv.Compare{kv.ModRevIs("a", r2), kv.Absent("a")}, false},
	} {
		if got := u.txn(tc.cmp, nil, nil).Succeeded; got != tc.want {
			u.t.Errorf("%s: succeeded %v, want %v", tc.name, got, tc.want)
		}
	}
	u.apply(kv.Put("empty", nil))
	if !u.txn([]kv.Compare{kv.ValueIs("empty", nil)}, nil, nil).Succeeded {
		u.t.Error("an empty value does not equal itself")
	}
}

func (u *suite) branches() {
	then := []kv.Op{kv.Put("branch", []byte("then")), kv.Put("then", nil)}
	els := []kv.Op{kv.Put("branch", []byte("else")), kv.Put("else", nil)}
	before := u.txn(nil, nil, nil).Rev
	res := u.txn([]kv.Compare{kv.Absent("branch")}, then, els)
	if !res.Succeeded || res.Rev <= before {
		u.t.Fatalf("first: %+v after revision %d", res, before)
	}
	u.want("branch", "then")
	u.wantAbsent("else")
	res = u.txn([]kv.Compare{kv.Absent("branch")}, then, els)
	if res.Succeeded {
		u.t.Fatalf("second: %+v", res)
	}
	if e := u.want("branch", "else"); e.ModRev != res.Rev || u.get("else").ModRev != res.Rev {
		u.t.Fatalf("changes of one transaction have other revisions than %d: %s", res.Rev, show(e))
	}
}

func (u *suite) getsBefore() {
	u.put("a", "old")
	res := u.txn(nil, []kv.Op{
		kv.Put("a", []byte("new")), kv.Get("a"), kv.Get("b"), kv.Put("b", nil), kv.Delete("c"), kv.Get("a"),
	}, nil)
	if len(res.Gets) != 3 || res.Gets[0] == nil || string(res.Gets[0].Value) != "old" ||
		res.Gets[1] != nil || res.Gets[2] == nil || string(res.Gets[2].Value) != "old" {
		u.t.Fatalf("gets: %s, %d of them", show(res.Gets[0]), len(res.Gets))
	}
	u.want("a", "new")
}

// atomicOnRefusal: a transaction that names a lease that is not there changes
// nothing, even where its other operations could run.
func (u *suite) atomicOnRefusal() {
	_, err := u.s.Txn(u.ctx, nil, []kv.Op{
		kv.Put("first", nil),
		{Kind: kv.OpPut, Key: []byte("second"), Lease: 987654321},
	}, nil)
	u.wantErr(err, kv.ErrLeaseNotFound, "put with an unknown lease")
	u.wantAbsent("first")
	u.wantAbsent("second")
}

func manyOps(n int, op func(key string) kv.Op) []kv.Op {
	ops := make([]kv.Op, n)
	for i := range ops {
		ops[i] = op(fmt.Sprintf("many/%03d", i))
	}
	return ops
}

func (u *suite) limits() {
	put := func(key string) kv.Op { return kv.Put(key, []byte("v")) }
	cmps := make([]kv.Compare, kv.MaxTxnOps)
	for i := range cmps {
		cmps[i] = kv.Absent(fmt.Sprintf("none/%d", i))
	}
	rev := u.txn(cmps, manyOps(kv.MaxTxnOps, put), nil).Rev
	kvs, _, err := u.s.Range(u.ctx, "many/", "", 0)
	u.must(err)
	if len(kvs) != kv.MaxTxnOps {
		u.t.Fatalf("%d keys, want %d", len(kvs), kv.MaxTxnOps)
	}
	for _, e := range kvs {
		if e.ModRev != rev {
			u.t.Fatalf("%s: want revision %d for all", show(&e), rev)
		}
	}
	u.apply(manyOps(kv.MaxTxnOps, kv.Delete)...)
	kvs, _, err = u.s.Range(u.ctx, "many/", "", 0)
	u.must(err)
	if len(kvs) != 0 {
		u.t.Fatalf("%d keys left", len(kvs))
	}
}

func (u *suite) invalid() {
	long := string(bytes.Repeat([]byte("k"), kv.MaxKeyBytes+1))
	put := func(key string) kv.Op { return kv.Put(key, nil) }
	one := []kv.Op{kv.Put("x", nil)}
	for _, tc := range []struct {
		name      string
		cmps      []kv.Compare
		then, els []kv.Op
	}{
		{"empty key", nil, []kv.Op{kv.Put("x", nil), kv.Put("", nil)}, nil},
		{"long key", nil, []kv.Op{kv.Put("x", nil), kv.Delete(long)}, nil},
		{"long key in get", nil, []kv.Op{kv.Put("x", nil), kv.Get(long)}, nil},
		{"long key in else", nil, one, []kv.Op{kv.Delete(long)}},
		{"empty key in compare", []kv.Compare{kv.Absent("")}, one, one},
		{"too many operations", nil, manyOps(kv.MaxTxnOps+1, put), nil},
		{"too many in else", nil, one, manyOps(kv.MaxTxnOps+1, put)},
		{"too many compares", slices.Repeat([]kv.Compare{kv.Absent("a")}, kv.MaxTxnOps+1), one, nil},
		{"too large", nil, []kv.Op{kv.Put("x", make([]byte, kv.MaxTxnBytes))}, nil},
		{"too large together", nil, one, []kv.Op{kv.Put("x", make([]byte, kv.MaxTxnBytes/2)), kv.Put("y", make([]byte, kv.MaxTxnBytes/2))}},
		{"twice", nil, []kv.Op{kv.Put("x", nil), kv.Put("x", nil)}, nil},
		{"put and delete", nil, []kv.Op{kv.Put("x", nil), kv.Delete("x")}, nil},
		{"unknown operation", nil, []kv.Op{kv.Put("x", nil), {Kind: 9, Key: []byte("y")}}, nil},
		{"unknown target", []kv.Compare{{Key: []byte("a"), Target: 9}}, one, one},
		{"negative revision", []kv.Compare{kv.ModRevIs("a", -1)}, one, one},
		{"negative lease", nil, []kv.Op{{Kind: kv.OpPut, Key: []byte("x"), Lease: -1}}, nil},
		{"value in delete", nil, []kv.Op{{Kind: kv.OpDelete, Key: []byte("x"), Value: []byte("v")}}, nil},
	} {
		_, err := u.s.Txn(u.ctx, tc.cmps, tc.then, tc.els)
		if !errors.Is(err, kv.ErrInvalid) {
			u.t.Errorf("%s: got %v, want ErrInvalid", tc.name, err)
		}
	}
	u.wantAbsent("x")
	_, err := u.s.Get(u.ctx, "")
	u.wantErr(err, kv.ErrInvalid, "get of the empty key")
	_, _, err = u.s.Range(u.ctx, long, "", 0)
	u.wantErr(err, kv.ErrInvalid, "range of a long prefix")
	_, err = u.s.Watch(u.ctx, long, 0)
	u.wantErr(err, kv.ErrInvalid, "watch of a long prefix")
	_, err = u.s.Watch(u.ctx, "x", -1)
	u.wantErr(err, kv.ErrInvalid, "watch after a negative revision")
	_, err = u.s.Grant(u.ctx, time.Millisecond)
	u.wantErr(err, kv.ErrInvalid, "lease of a millisecond")
}

func (u *suite) ranges() {
	var rev int64
	for _, k := range []string{"a", "p", "p/", "p/1", "p/2", "p/\xff", "p0", "q", "\xff", "\xff\xff"} {
		rev = u.put(k, "v"+k)
	}
	for _, tc := range []struct {
		prefix, after string
		limit         int
		want          []string
	}{
		{"p/", "", 0, []string{"p/", "p/1", "p/2", "p/\xff"}},
		{"p/", "p/", 0, []string{"p/1", "p/2", "p/\xff"}},
		{"p/", "p/1", 1, []string{"p/2"}},
		{"p/", "p/1x", 0, []string{"p/2", "p/\xff"}},
		{"p/", "a", 2, []string{"p/", "p/1"}},
		{"p/", "q", 0, nil},
		{"p/", "p/\xff", 0, nil},
		{"\xff", "", 0, []string{"\xff", "\xff\xff"}},
		{"", "p0", 0, []string{"q", "\xff", "\xff\xff"}},
		{"", "", 2, []string{"a", "p"}},
		{"z", "", 0, nil},
	} {
		kvs, got, err := u.s.Range(u.ctx, tc.prefix, tc.after, tc.limit)
		u.must(err)
		var keys []string
		for _, e := range kvs {
			keys = append(keys, string(e.Key))
			if string(e.Value) != "v"+string(e.Key) {
				u.t.Errorf("range %q: %s", tc.prefix, show(&e))
			}
		}
		if !slices.Equal(keys, tc.want) || got < rev {
			u.t.Errorf("range %q after %q limit %d: %q at %d, want %q at %d or later",
				tc.prefix, tc.after, tc.limit, keys, got, tc.want, rev)
		}
	}
}

// dumped returns what Dump finds below a prefix.
func (u *suite) dumped(prefix string) (found []kv.KV, rev int64) {
	u.t.Helper()
	begun := 0
	u.must(u.s.Dump(u.ctx, prefix, func(r int64) error {
		begun++
		rev = r
		return nil
	}, func(e kv.KV) error {
		if begun != 1 {
			u.t.Errorf("a record came after %d beginnings", begun)
		}
		found = append(found, e)
		return nil
	}))
	if begun != 1 {
		u.t.Fatalf("it began %d times", begun)
	}
	return found, rev
}

// dump: all records of a prefix come with what Range says of them, errors end it.
func (u *suite) dump() {
	if found, _ := u.dumped(""); len(found) != 0 {
		u.t.Fatalf("an empty store has %d records", len(found))
	}
	const records = 450 // several pages of any store
	var ops []kv.Op
	for i := range records {
		if ops = append(ops, kv.Put(fmt.Sprintf("d/%03d", i), fmt.Append(nil, i))); len(ops) == kv.MaxTxnOps || i == records-1 {
			u.apply(ops...)
			ops = nil
		}
	}
	id, err := u.s.Grant(u.ctx, time.Hour)
	u.must(err)
	u.apply(kv.Op{Kind: kv.OpPut, Key: []byte("d/lease"), Lease: id})
	last := u.put("e", "other")
	for prefix, want := range map[string]int{"": records + 2, "d/": records + 1, "d/0": 100, "d/lease": 1, "f": 0} {
		found, rev := u.dumped(prefix)
		same, _, err := u.s.Range(u.ctx, prefix, "", want+1)
		u.must(err)
		if len(found) != want || rev < last {
			u.t.Fatalf("below %q: %d records at %d, want %d at %d or later", prefix, len(found), rev, want, last)
		}
		for i, e := range found {
			if show(&e) != show(&same[i]) || e.Lease != same[i].Lease {
				u.t.Fatalf("below %q: %s, Range has %s", prefix, show(&e), show(&same[i]))
			}
		}
	}
	enough := errors.New("enough")
	count := 0
	u.wantErr(u.s.Dump(u.ctx, "d/", func(int64) error { return enough }, func(kv.KV) error { count++; return nil }), enough, "begin")
	u.wantErr(u.s.Dump(u.ctx, "d/", func(int64) error { return nil }, func(kv.KV) error { count++; return enough }), enough, "each")
	if count != 1 {
		u.t.Errorf("%d records came, want 1", count)
	}
	ended, cancel := context.WithCancel(u.ctx)
	u.wantErr(u.s.Dump(ended, "d/", func(int64) error { return nil }, func(kv.KV) error { cancel(); return nil }), context.Canceled, "context")
}

// dumpMoment: two records at the ends of many are changed together all the time; a Dump has
// them of one transaction.
func (u *suite) dumpMoment() {
	const records = 300
	both := func(n int) []kv.Op {
		v := strconv.AppendInt(nil, int64(n), 10)
		return []kv.Op{kv.Put("d/000", v), kv.Put(fmt.Sprintf("d/%03d", records-1), v)}
	}
	for i := range records {
		u.put(fmt.Sprintf("d/%03d", i), "0")
	}
	ctx, cancel := context.WithCancel(u.ctx)
	var failed error
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 1; ctx.Err() == nil; n++ {
			if _, err := u.s.Txn(ctx, nil, both(n), nil); err != nil && ctx.Err() == nil {
				failed = err
				return
			}
		}
	})
	for seen, rounds := "0", 0; rounds < 5 && u.ctx.Err() == nil; {
		found, rev := u.dumped("d/")
		if len(found) != records || !bytes.Equal(found[0].Value, found[records-1].Value) || found[0].ModRev > rev {
			u.t.Errorf("%d records, the first of revision %d is %s, the last %s, at %d", len(found), found[0].ModRev, found[0].Value, found[len(found)-1].Value, rev)
			break
		}
		if string(found[0].Value) != seen { // it changed since the one before
			seen = string(found[0].Value)
			rounds++
		}
	}
	cancel()
	wg.Wait()
	u.must(failed)
}

// revisionsGrow: changes give new revisions, reads and refused compares none
// that a key could carry.
func (u *suite) revisionsGrow() {
	last := u.put("a", "0")
	for i := range 20 {
		rev := u.put("a", strconv.Itoa(i))
		if rev <= last {
			u.t.Fatalf("revision %d after %d", rev, last)
		}
		last = rev
		if res := u.txn([]kv.Compare{kv.Absent("a")}, []kv.Op{kv.Put("b", nil)}, []kv.Op{kv.Get("a")}); res.Rev < last {
			u.t.Fatalf("a read at revision %d after %d", res.Rev, last)
		}
	}
	if e := u.get("a"); e.ModRev != last {
		u.t.Fatalf("%s, want mod revision %d", show(e), last)
	}
}

// concurrentIncrements: compare-and-swap loops lose no increment, and every
// success has a revision of its own (K1, K2).
func (u *suite) concurrentIncrements() {
	const workers, each = 8, 10
	u.put("n", "0")
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		revs = map[int64]bool{}
	)
	for range workers {
		wg.Go(func() {
			for range each {
				rev, err := u.increment("n")
				mu.Lock()
				if err != nil || revs[rev] {
					u.t.Errorf("increment: revision %d seen %v, error %v", rev, revs[rev], err)
				}
				revs[rev] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	u.want("n", strconv.Itoa(workers*each))
}

func (u *suite) increment(key string) (int64, error) {
	for {
		e, err := u.s.Get(u.ctx, key)
		if err != nil {
			return 0, err
		}
		n, err := strconv.Atoi(string(e.Value))
		if err != nil {
			return 0, err
		}
		res, err := u.s.Txn(u.ctx, []kv.Compare{kv.ModRevIs(key, e.ModRev)},
			[]kv.Op{kv.Put(key, []byte(strconv.Itoa(n+1)))}, nil)
		if err != nil || res.Succeeded {
			return res.Rev, err
		}
	}
}

// concurrentTransfers moves units between two keys; every reader sees a whole
// transaction, so the sum never changes.
func (u *suite) concurrentTransfers() {
	const sum = 100
	u.apply(kv.Put("acc/a", []byte("50")), kv.Put("acc/b", []byte("50")))
	ctx, cancel := context.WithCancel(u.ctx)
	var wg, readers sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 15 {
				if err := u.transfer(); err != nil {
					u.t.Error(err)
					return
				}
			}
		})
	}
	for range 2 {
		readers.Go(func() {
			for ctx.Err() == nil {
				kvs, _, err := u.s.Range(ctx, "acc/", "", 0)
				if err != nil {
					if ctx.Err() == nil {
						u.t.Error(err)
					}
					return
				}
				if got := total(kvs); len(kvs) != 2 || got != sum {
					u.t.Errorf("%d accounts hold %d, want 2 and %d", len(kvs), got, sum)
					return
				}
			}
		})
	}
	wg.Wait()
	cancel()
	readers.Wait()
}

func total(kvs []kv.KV) int {
	n := 0
	for _, e := range kvs {
		v, err := strconv.Atoi(string(e.Value))
		if err != nil {
			return -1
		}
		n += v
	}
	return n
}

func (u *suite) transfer() error {
	for {
		kvs, _, err := u.s.Range(u.ctx, "acc/", "", 0)
		if err != nil {
			return err
		}
		from, to := kvs[0], kvs[1]
		if total(kvs[:1]) == 0 {
			from, to = to, from
		}
		res, err := u.s.Txn(u.ctx,
			[]kv.Compare{kv.ModRevIs(string(from.Key), from.ModRev), kv.ModRevIs(string(to.Key), to.ModRev)},
			[]kv.Op{
				kv.Put(string(from.Key), []byte(strconv.Itoa(total([]kv.KV{from})-1))),
				kv.Put(string(to.Key), []byte(strconv.Itoa(total([]kv.KV{to})+1))),
			}, nil)
		if err != nil || res.Succeeded {
			return err
		}
	}
}

func (u *suite) context() {
	ctx, cancel := context.WithCancel(u.ctx)
	cancel()
	_, err := u.s.Get(ctx, "a")
	u.wantErr(err, context.Canceled, "get")
	_, _, err = u.s.Range(ctx, "a", "", 0)
	u.wantErr(err, context.Canceled, "range")
	_, err = u.s.Txn(ctx, nil, []kv.Op{kv.Put("a", nil)}, nil)
	u.wantErr(err, context.Canceled, "txn")
	_, err = u.s.Grant(ctx, time.Minute)
	u.wantErr(err, context.Canceled, "grant")
}

func (u *suite) restart() {
	if u.opts.Reopen == nil {
		return
	}
	r1 := u.put("a", "1")
	r2 := u.apply(kv.Put("a", []byte("2")), kv.Put("b", nil))
	r3 := u.apply(kv.Delete("b"))
	u.s = u.opts.Reopen(u.t, u.s)
	if e := u.want("a", "2"); e.CreateRev != r1 || e.ModRev != r2 {
		u.t.Fatalf("after the restart: %s, want created %d changed %d", show(e), r1, r2)
	}
	u.wantAbsent("b")
	if _, rev, err := u.s.Range(u.ctx, "", "", 1); err != nil || rev < r3 {
		u.t.Fatalf("revision %d after the restart, %d before: %v", rev, r3, err)
	}
	if r4 := u.put("c", ""); r4 <= r3 {
		u.t.Fatalf("revision %d after the restart, %d before", r4, r3)
	}
}

func (u *suite) closed() {
	ch, err := u.s.Watch(u.ctx, "a", 0)
	if err != nil && !errors.Is(err, kv.ErrCompacted) {
		u.t.Fatal(err)
	}
	u.must(u.s.Close())
	if ch != nil {
		u.drained(ch)
	}
	_, err = u.s.Get(u.ctx, "a")
	u.wantErr(err, kv.ErrClosed, "get")
	_, _, err = u.s.Range(u.ctx, "a", "", 0)
	u.wantErr(err, kv.ErrClosed, "range")
	u.wantErr(u.s.Dump(u.ctx, "a", func(int64) error { return nil }, nil), kv.ErrClosed, "dump")
	_, err = u.s.Txn(u.ctx, nil, []kv.Op{kv.Put("a", nil)}, nil)
	u.wantErr(err, kv.ErrClosed, "txn")
	_, err = u.s.Watch(u.ctx, "a", 0)
	u.wantErr(err, kv.ErrClosed, "watch")
	_, err = u.s.Grant(u.ctx, time.Minute)
	u.wantErr(err, kv.ErrClosed, "grant")
	u.wantErr(u.s.KeepAlive(u.ctx, 1), kv.ErrClosed, "keep alive")
	u.must(u.s.Close()) // again: no error
}

// model runs random transactions against the store and a map, one at a time,
// and compares every answer. The seed is printed.
func (u *suite) model() {
	seed := rand.Uint64()
	u.t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	m := model{}
	key := func() string { return "m/" + string(rune('a'+rng.IntN(6))) }
	for step := range 300 {
		var cmps []kv.Compare
		for range rng.IntN(3) {
			k := key()
			switch rng.IntN(3) {
			case 0:
				cmps = append(cmps, kv.ModRevIs(k, m.modRev(k)+int64(rng.IntN(2))))
			case 1:
				cmps = append(cmps, kv.Absent(k))
			case 2:
				cmps = append(cmps, kv.ValueIs(k, []byte(strconv.Itoa(step-rng.IntN(8)))))
			}
		}
		branch := func() []kv.Op {
			var ops []kv.Op
			for k := range map[string]bool{key(): true, key(): true, key(): true} {
				switch rng.IntN(3) {
				case 0:
					ops = append(ops, kv.Get(k))
				case 1:
					ops = append(ops, kv.Put(k, []byte(strconv.Itoa(step))))
				case 2:
					ops = append(ops, kv.Delete(k))
				}
			}
			return ops
		}
		then, els := branch(), branch()
		wantOK := m.holds(cmps)
		ops := els
		if wantOK {
			ops = then
		}
		wantGets := m.gets(ops)
		res := u.txn(cmps, then, els)
		if res.Succeeded != wantOK || !sameGets(res.Gets, wantGets) {
			u.t.Fatalf("seed %d step %d: succeeded %v with %d gets, want %v with %d",
				seed, step, res.Succeeded, len(res.Gets), wantOK, len(wantGets))
		}
		m.apply(ops, res.Rev)
		kvs, _, err := u.s.Range(u.ctx, "m/", "", 0)
		u.must(err)
		if len(kvs) != len(m) {
			u.t.Fatalf("seed %d step %d: %d keys, want %d", seed, step, len(kvs), len(m))
		}
		for _, e := range kvs {
			if w, ok := m[string(e.Key)]; !ok || !sameKV(&e, &w) {
				u.t.Fatalf("seed %d step %d: got %s, want %s", seed, step, show(&e), show(&w))
			}
		}
	}
}

// model is what the store should hold.
type model map[string]kv.KV

func (m model) modRev(k string) int64 { return m[k].ModRev }

func (m model) holds(cmps []kv.Compare) bool {
	for _, c := range cmps {
		e, ok := m[string(c.Key)]
		if c.Target == kv.CompareValue && (!ok || !bytes.Equal(e.Value, c.Value)) ||
			c.Target == kv.CompareModRev && e.ModRev != c.Rev {
			return false
		}
	}
	return true
}

func (m model) gets(ops []kv.Op) []*kv.KV {
	var out []*kv.KV
	for _, op := range ops {
		if op.Kind != kv.OpGet {
			continue
		}
		if e, ok := m[string(op.Key)]; ok {
			out = append(out, &e)
		} else {
			out = append(out, nil)
		}
	}
	return out
}

func (m model) apply(ops []kv.Op, rev int64) {
	for _, op := range ops {
		switch op.Kind {
		case kv.OpPut:
			e := kv.KV{Key: op.Key, Value: op.Value, CreateRev: rev, ModRev: rev}
			if old, ok := m[string(op.Key)]; ok {
				e.CreateRev = old.CreateRev
			}
			m[string(op.Key)] = e
		case kv.OpDelete:
			delete(m, string(op.Key))
		}
	}
}

func sameKV(a, b *kv.KV) bool {
	return a == nil && b == nil || a != nil && b != nil &&
		bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value) &&
		a.CreateRev == b.CreateRev && a.ModRev == b.ModRev && a.Lease == b.Lease
}

func sameGets(a, b []*kv.KV) bool { return slices.EqualFunc(a, b, sameKV) }

// getAll: several keys are of one moment, however they change meanwhile.
func (u *suite) getAll() {
	u.txn(nil, []kv.Op{kv.Put("a", []byte("1")), kv.Put("empty", nil)}, nil)
	got, err := u.s.GetAll(u.ctx, []string{"empty", "absent", "a", "a"})
	if err != nil || len(got) != 4 || got[0] == nil || got[0].Value == nil || len(got[0].Value) != 0 || got[1] != nil || string(got[2].Value) != "1" || got[3].ModRev != got[2].ModRev {
		u.t.Fatalf("got %v, %v", got, err)
	}
	if got, err := u.s.GetAll(u.ctx, nil); err != nil || len(got) != 0 {
		u.t.Errorf("no keys: %v, %v", got, err)
	}
	for what, keys := range map[string][]string{"an empty key": {"a", ""}, "too many keys": make([]string, kv.MaxTxnOps+1)} {
		if _, err := u.s.GetAll(u.ctx, keys); !errors.Is(err, kv.ErrInvalid) {
			u.t.Errorf("%s: %v", what, err)
		}
	}
	done := make(chan error, 1)
	go func() {
		var err error
		for i := 0; i < 200 && err == nil; i++ {
			v := fmt.Append(nil, i)
			_, err = u.s.Txn(u.ctx, nil, []kv.Op{kv.Put("x", v), kv.Put("y", v)}, nil)
		}
		done <- err
	}()
	for {
		got, err := u.s.GetAll(u.ctx, []string{"x", "a", "y"})
		if err != nil {
			u.t.Fatal(err)
		}
		if (got[0] == nil) != (got[2] == nil) || got[0] != nil && string(got[0].Value) != string(got[2].Value) {
			u.t.Fatalf("x is %v, y is %v", got[0], got[2])
		}
		select {
		case err := <-done:
			if err != nil {
				u.t.Fatal(err)
			}
			return
		default:
		}
	}
}
