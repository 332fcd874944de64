package kvtest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/internal/kv"
)

func (u *suite) watch(ctx context.Context, prefix string, after int64) <-chan kv.WatchBatch {
	u.t.Helper()
	ch, err := u.s.Watch(ctx, prefix, after)
	u.must(err)
	return ch
}

// next reads one batch that carries no error.
func (u *suite) next(ch <-chan kv.WatchBatch) kv.WatchBatch {
	u.t.Helper()
	select {
	case b, ok := <-ch:
		if !ok || b.Err != nil {
			u.t.Fatalf("watch ended (open %v): %v", ok, b.Err)
		}
		return b
	case <-time.After(patience):
		u.t.Fatalf("watch delivered nothing within %v", patience)
	}
	return kv.WatchBatch{}
}

// drained waits until the channel is closed, whatever it still delivers.
func (u *suite) drained(ch <-chan kv.WatchBatch) {
	u.t.Helper()
	end := time.After(patience)
	for {
		select {
		case _, ok := <-ch:
			if !ok {
				return
			}
		case <-end:
			u.t.Fatalf("watch channel still open after %v", patience)
		}
	}
}

func events(b kv.WatchBatch) string {
	s := ""
	for _, e := range b.Events {
		if e.Deleted {
			s += fmt.Sprintf("-%s ", e.KV.Key)
		} else {
			s += fmt.Sprintf("+%s=%s ", e.KV.Key, e.KV.Value)
		}
	}
	return s
}

func (u *suite) wantBatch(ch <-chan kv.WatchBatch, rev int64, want string) {
	u.t.Helper()
	b := u.next(ch)
	if got := events(b); got != want || b.Rev != rev {
		u.t.Fatalf("watch delivered %q at %d, want %q at %d", got, b.Rev, want, rev)
	}
	for _, e := range b.Events {
		if e.KV.ModRev != rev || e.Deleted && e.KV.Value != nil {
			u.t.Fatalf("event %s in the batch of revision %d", show(&e.KV), rev)
		}
	}
}

func (u *suite) watchOrder() {
	r0 := u.put("w/a", "0")
	ctx, cancel := context.WithCancel(u.ctx)
	defer cancel()
	ch := u.watch(ctx, "w/", r0)
	r1 := u.put("w/a", "1")
	r2 := u.apply(kv.Put("w/b", []byte("2")), kv.Delete("w/a"))
	u.put("x", "outside")
	u.apply(kv.Delete("w/none")) // changes nothing
	r3 := u.put("w/c", "")
	u.wantBatch(ch, r1, "+w/a=1 ")
	b := u.next(ch)
	if got := events(b); b.Rev != r2 || got != "+w/b=2 -w/a " && got != "-w/a +w/b=2 " {
		u.t.Fatalf("watch delivered %q at %d, want both changes at %d", got, b.Rev, r2)
	}
	u.wantBatch(ch, r3, "+w/c= ")
}

func (u *suite) watchFromRevision() {
	r1 := u.put("w/1", "")
	r2 := u.put("w/2", "")
	r3 := u.put("w/3", "")
	ctx, cancel := context.WithCancel(u.ctx)
	defer cancel()
	ch := u.watch(ctx, "w/", r1)
	u.wantBatch(ch, r2, "+w/2= ")
	u.wantBatch(ch, r3, "+w/3= ")
	_, rev, err := u.s.Range(u.ctx, "w/", "", 0)
	u.must(err)
	fresh := u.watch(ctx, "w/", rev)
	r4 := u.put("w/4", "")
	u.wantBatch(fresh, r4, "+w/4= ")
	u.wantBatch(ch, r4, "+w/4= ")
}

func (u *suite) watchPrefix() {
	ctx, cancel := context.WithCancel(u.ctx)
	defer cancel()
	rev := u.put("start", "")
	all, some := u.watch(ctx, "", rev), u.watch(ctx, "p/\xff", rev)
	r1 := u.apply(kv.Put("p/\xff", nil), kv.Put("p0", nil))
	if b := u.next(all); len(b.Events) != 2 || b.Rev != r1 {
		u.t.Fatalf("watch of everything delivered %q", events(b))
	}
	u.wantBatch(some, r1, "+p/\xff= ")
}

// watchUnderLoad: watchers that start at different revisions while writers
// write see every later change once, in order (K3).
func (u *suite) watchUnderLoad() {
	const writers, each = 4, 25
	ctx, cancel := context.WithCancel(u.ctx)
	defer cancel()
	_, rev0, err := u.s.Range(u.ctx, "l/", "", 0)
	u.must(err)
	var (
		wg, watchers sync.WaitGroup
		mu           sync.Mutex
		last         int64
	)
	early := u.watch(ctx, "l/", rev0)
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				res, err := u.s.Txn(ctx, nil, []kv.Op{kv.Put(fmt.Sprintf("l/%d/%d", w, i), []byte(strconv.Itoa(i)))}, nil)
				if err != nil {
					u.t.Error(err)
					return
				}
				mu.Lock()
				last = max(last, res.Rev)
				mu.Unlock()
			}
		})
	}
	// A list and a watch from its revision, made in the middle, miss nothing.
	watchers.Go(func() {
		kvs, rev, err := u.s.Range(ctx, "l/", "", 0)
		if err != nil {
			u.t.Error(err)
			return
		}
		ch, err := u.s.Watch(ctx, "l/", rev)
		if err != nil {
			u.t.Error(err)
			return
		}
		if got := len(kvs) + u.count(ch, rev, writers*each-len(kvs)); got != writers*each {
			u.t.Errorf("list and watch saw %d keys, want %d", got, writers*each)
		}
	})
	if got := u.count(early, rev0, writers*each); got != writers*each {
		u.t.Errorf("watch saw %d keys, want %d", got, writers*each)
	}
	wg.Wait()
	watchers.Wait()
	mu.Lock()
	defer mu.Unlock()
	if last == 0 {
		u.t.Error("no writer wrote")
	}
}

// count reads batches until n events came or the watch ends; revisions must grow.
func (u *suite) count(ch <-chan kv.WatchBatch, rev int64, n int) int {
	got := 0
	for got < n {
		select {
		case b, ok := <-ch:
			if !ok || b.Err != nil || b.Rev <= rev {
				u.t.Errorf("after revision %d: batch of %d, open %v: %v", rev, b.Rev, ok, b.Err)
				return got
			}
			rev = b.Rev
			got += len(b.Events)
		case <-time.After(patience):
			u.t.Errorf("watch delivered %d of %d events within %v", got, n, patience)
			return got
		}
	}
	return got
}

// watchCompacted: a start revision that is no longer kept is an error at once
// or the only batch; and a watcher that never reads does not stop the store.
func (u *suite) watchCompacted() {
	first := u.put("c/0", "")
	idle := u.watch(u.ctx, "c/", first)
	if u.opts.Compact != nil {
		u.put("c/1", "") // is forgotten
		u.put("c/1", "") // may be kept, as what there is at the revision
		u.opts.Compact(u.t, u.s)
	} else {
		u.fill(first)
	}
	if err := u.watchError(first); !errors.Is(err, kv.ErrCompacted) {
		u.t.Fatalf("watch from a forgotten revision: %v, want ErrCompacted", err)
	}
	_, rev, err := u.s.Range(u.ctx, "c/", "", 1)
	u.must(err)
	fresh := u.watch(u.ctx, "c/", rev)
	r := u.put("c/1", "after")
	u.wantBatch(fresh, r, "+c/1=after ")
	if u.opts.Compact != nil {
		return
	}
	for b := range idle { // what was ready, then the end
		if b.Err != nil && !errors.Is(b.Err, kv.ErrCompacted) {
			u.t.Fatalf("a watcher that did not read: %v, want ErrCompacted", b.Err)
		}
		if b.Err == nil && b.Rev <= first {
			u.t.Fatalf("a watcher that did not read got revision %d again", b.Rev)
		}
	}
}

// fill writes until a watch after rev is refused.
func (u *suite) fill(rev int64) {
	const enough = 40 // times 100 concurrent transactions of 64 KiB: far above any bound on history
	value := make([]byte, 64<<10)
	for range enough {
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if _, err := u.s.Txn(u.ctx, nil, []kv.Op{kv.Put("c/1", value)}, nil); err != nil {
					u.t.Error(err)
				}
			})
		}
		wg.Wait()
		if u.watchError(rev) != nil {
			return
		}
	}
	u.t.Fatal("the history is not bounded")
}

// watchError returns how a watch after rev begins: with an error, or with a
// change (nil).
func (u *suite) watchError(rev int64) error {
	ctx, cancel := context.WithCancel(u.ctx)
	defer cancel()
	ch, err := u.s.Watch(ctx, "c/", rev)
	if err != nil {
		return err
	}
	select {
	case b := <-ch:
		return b.Err
	case <-time.After(patience):
		u.t.Fatalf("watch delivered nothing within %v", patience)
	}
	return nil
}

func (u *suite) watchEnds() {
	ctx, cancel := context.WithCancel(u.ctx)
	rev := u.put("w/a", "")
	ch := u.watch(ctx, "w/", rev)
	u.put("w/a", "1")
	cancel()
	u.drained(ch)
	other := u.watch(u.ctx, "w/", rev)
	u.must(u.s.Close())
	u.drained(other)
}
