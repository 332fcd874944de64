package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openvstorage/ovgate/internal/kv"
)

// What is kept for a watcher that does not read. The client's own queue has no bound, so
// it is emptied at once, and ours when it is full ends the watch at the cluster; that is
// begun anew when all was read, from the history, or ends with ErrCompacted.
const (
	queueRevs  = 4096
	queueBytes = 8 << 20
)

// rewatch is the pause before a watch whose member lost the cluster is begun anew.
const rewatch = 500 * time.Millisecond

// Watch implements kv.Store.
func (s *Store) Watch(ctx context.Context, prefix string, afterRev int64) (<-chan kv.WatchBatch, error) {
	if err := kv.ValidatePrefix(prefix, ""); err != nil {
		return nil, err
	}
	if afterRev < 0 {
		return nil, fmt.Errorf("%w: watch after revision %d", kv.ErrInvalid, afterRev)
	}
	rev, err := s.revision(ctx)
	if err != nil {
		return nil, err
	}
	if afterRev > rev {
		return nil, fmt.Errorf("%w: revision %d, the store is at %d: list anew", kv.ErrCompacted, afterRev, rev)
	}
	// Nothing else says at once that the history does not go back that far.
	if afterRev < rev {
		if _, err := s.get(ctx, s.prefix, clientv3.WithCountOnly(), clientv3.WithRev(afterRev+1)); err != nil {
			return nil, err
		}
	}
	w := &watch{s: s, prefix: s.prefix + prefix, rev: afterRev, out: make(chan kv.WatchBatch)}
	s.wg.Go(func() { w.run(ctx) })
	return w.out, nil
}

// watch feeds one watcher.
type watch struct {
	s      *Store
	prefix string
	rev    int64 // everything up to it is queued or delivered
	out    chan kv.WatchBatch

	queue []kv.WatchBatch
	bytes int
	ended bool // the last of the queue is the last of all
}

func (w *watch) run(parent context.Context) {
	defer close(w.out)
	var not []*peer // the member that did not do
	for !w.ended || len(w.queue) > 0 {
		// A member that is cut off from the others would stay silent for ever.
		ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(parent))
		c, goOn := w.pick(parent, not)
		if goOn {
			in := c.Watch(ctx, w.prefix, clientv3.WithPrefix(), clientv3.WithRev(w.rev+1))
			goOn = w.follow(parent, in, c.gone, cancel)
			not = []*peer{c.peer}
		}
		cancel()
		if !goOn {
			return
		}
	}
}

// pick returns the member to watch at, and delivers what is queued until there is one; false:
// the watch is over.
func (w *watch) pick(parent context.Context, not []*peer) (*conn, bool) {
	for {
		c, changed, _ := w.s.peers.choose(not)
		if c != nil {
			return c, true
		}
		var out chan<- kv.WatchBatch
		var first kv.WatchBatch
		if len(w.queue) > 0 {
			out, first = w.out, w.queue[0]
		}
		select {
		case out <- first:
			w.pop()
		case <-changed:
		case <-parent.Done():
			return nil, false
		case <-w.s.quit:
			return nil, false
		}
	}
}

// pop takes the first of the queue out.
func (w *watch) pop() {
	w.bytes -= size(w.queue[0])
	w.queue[0] = kv.WatchBatch{}
	w.queue = w.queue[1:]
}

// follow delivers what comes until the watch has to be begun anew; false: that was all. gone
// is closed when the member does not answer any more; cancel ends what comes.
func (w *watch) follow(ctx context.Context, in clientv3.WatchChan, gone <-chan struct{}, cancel func()) bool {
	var again <-chan time.Time
	full := false
	for {
		var out chan<- kv.WatchBatch
		var first kv.WatchBatch
		if len(w.queue) > 0 {
			out, first = w.out, w.queue[0]
		} else if w.ended || full {
			return full
		}
		select {
		case out <- first:
			w.pop()
		case res, ok := <-in:
			if err := res.Err(); err != nil || !ok {
				in = nil
				if w.stopped(err) {
					continue
				}
				timer := time.NewTimer(rewatch)
				defer timer.Stop()
				again = timer.C
				continue
			}
			if full = !w.take(res.Events); full {
				cancel()
				in = nil
			}
		case <-again:
			return true
		case <-gone:
			if !w.ended && !full {
				return true
			}
			gone = nil
		case <-ctx.Done():
			return false
		case <-w.s.quit:
			return false
		}
	}
}

// stopped queues the error that ends the watch; false if it can be begun anew.
func (w *watch) stopped(err error) bool {
	switch {
	case errors.Is(err, rpctypes.ErrCompacted), errors.Is(err, rpctypes.ErrFutureRev):
		err = fmt.Errorf("%w: after revision %d: list anew", kv.ErrCompacted, w.rev)
	case err == nil, !final(err):
		return false
	default:
		err = fmt.Errorf("etcd: watch of %q: %w", w.prefix, err)
	}
	w.queue = append(w.queue, kv.WatchBatch{Rev: w.rev, Err: err})
	w.ended = true
	return true
}

// take queues events, those of one revision together, up to when the queue is full: false.
func (w *watch) take(events []*clientv3.Event) bool {
	for len(events) > 0 {
		b := kv.WatchBatch{Rev: events[0].Kv.ModRevision}
		for len(events) > 0 && events[0].Kv.ModRevision == b.Rev {
			if !w.s.hidden(events[0].Kv.Key) {
				b.Events = append(b.Events, w.event(events[0]))
			}
			events = events[1:]
		}
		if len(b.Events) == 0 {
			w.rev = b.Rev
			continue
		}
		if len(w.queue) >= queueRevs || len(w.queue) > 0 && w.bytes+size(b) > queueBytes {
			return false
		}
		w.queue = append(w.queue, b)
		w.bytes += size(b)
		w.rev = b.Rev
	}
	return true
}

func (w *watch) event(e *clientv3.Event) kv.Event {
	r := w.s.record(e.Kv)
	if e.Type == mvccpb.Event_DELETE {
		return kv.Event{Deleted: true, KV: kv.KV{Key: r.Key, ModRev: r.ModRev}}
	}
	return kv.Event{KV: r}
}

// size is about what a batch takes in memory.
func size(b kv.WatchBatch) int {
	const overhead = 128
	n := overhead
	for _, e := range b.Events {
		n += overhead + len(e.KV.Key) + len(e.KV.Value)
	}
	return n
}
