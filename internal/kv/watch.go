package kv

import (
	"bytes"
	"context"
	"fmt"
	"sync"

	bolt "go.etcd.io/bbolt"
)

// The history that watches read from. It is also their only buffer: a watcher
// that falls behind its beginning is ended with ErrCompacted, so slow watchers
// cost nothing. 4096 revisions are minutes of a busy control plane; the bytes
// bound the memory when the values are large.
const (
	historyRevs  = 4096
	historyBytes = 8 << 20
)

// watchQueue is what one watcher may have ready to read; a few batches, so
// that a reader and its watch do not take turns.
const watchQueue = 4

// hub keeps the newest changes and wakes the watchers.
//
// Invariants, under mu:
//
//	H1  history holds every change of revisions (floor, rev], in order.
//	H2  changed is closed, and replaced, whenever history, ended or floor moves.
type hub struct {
	mu      sync.Mutex
	history []WatchBatch
	bytes   int
	floor   int64
	rev     int64
	ended   bool // the store closed
	changed chan struct{}
}

func (h *hub) init(rev int64) {
	h.floor, h.rev = rev, rev
	h.changed = make(chan struct{})
}

func (h *hub) wake() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// publish appends the changes of a committed batch, in revision order.
func (h *hub) publish(batches []WatchBatch) {
	if len(batches) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range batches {
		h.history = append(h.history, b)
		h.bytes += batchBytes(b)
		h.rev = b.Rev
	}
	for len(h.history) > historyRevs || h.bytes > historyBytes && len(h.history) > 1 {
		h.floor = h.history[0].Rev
		h.bytes -= batchBytes(h.history[0])
		h.history[0] = WatchBatch{}
		h.history = h.history[1:]
	}
	h.wake()
}

// compact forgets the history: watches that have not seen rev end with
// ErrCompacted.
func (h *hub) compact(rev int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.history, h.bytes = nil, 0
	h.floor, h.rev = rev, rev
	h.wake()
}

// newest returns the newest revision that was published.
func (h *hub) newest() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.rev
}

// end closes all watches without an error.
func (h *hub) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
	h.wake()
}

// next returns the first change after rev that touches the prefix and the
// revision it looked up to. With neither a change nor an error, the caller
// waits for changed; ended says that none will come.
func (h *hub) next(prefix []byte, rev int64) (b WatchBatch, upTo int64, changed <-chan struct{}, ended bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended {
		return b, rev, nil, true, nil
	}
	if rev < h.floor {
		return b, rev, nil, false, fmt.Errorf("%w: revision %d, oldest kept is %d: list anew", ErrCompacted, rev, h.floor)
	}
	// Revisions are dense, so the index follows from the revision (H1).
	for i := max(rev-h.floor, 0); i < int64(len(h.history)); i++ {
		if got := filterBatch(h.history[i], prefix); len(got.Events) > 0 {
			return got, got.Rev, nil, false, nil
		}
	}
	return b, max(rev, h.rev), h.changed, false, nil
}

// filterBatch copies the events under the prefix.
func filterBatch(b WatchBatch, prefix []byte) WatchBatch {
	out := WatchBatch{Rev: b.Rev}
	for _, e := range b.Events {
		if !bytes.HasPrefix(e.KV.Key, prefix) {
			continue
		}
		e.KV.Key = bytes.Clone(e.KV.Key)
		if !e.Deleted {
			e.KV.Value = append([]byte{}, e.KV.Value...)
		}
		out.Events = append(out.Events, e)
	}
	return out
}

func batchBytes(b WatchBatch) int {
	const eventOverhead = 128 // the structs themselves
	n := eventOverhead
	for _, e := range b.Events {
		n += eventOverhead + len(e.KV.Key) + len(e.KV.Value)
	}
	return n
}

// Watch implements Store. A revision the store has not reached comes from
// another store or from before a rollback: ErrCompacted, so that the caller
// lists anew instead of missing changes.
func (s *Bolt) Watch(ctx context.Context, prefix string, afterRev int64) (<-chan WatchBatch, error) {
	if err := ValidatePrefix(prefix, ""); err != nil {
		return nil, err
	}
	if afterRev < 0 {
		return nil, fmt.Errorf("%w: watch after revision %d", ErrInvalid, afterRev)
	}
	var rev int64
	err := s.view(ctx, func(tx *bolt.Tx) { rev = int64(getUint(tx.Bucket(bucketMeta), metaRev)) })
	if err != nil {
		return nil, err
	}
	if afterRev > rev {
		return nil, fmt.Errorf("%w: revision %d, the store is at %d: list anew", ErrCompacted, afterRev, rev)
	}
	out := make(chan WatchBatch, watchQueue)
	go s.watch(ctx, out, []byte(prefix), afterRev)
	return out, nil
}

// watch feeds one watcher from the history until something ends it.
func (s *Bolt) watch(ctx context.Context, out chan<- WatchBatch, prefix []byte, rev int64) {
	defer close(out)
	for {
		b, upTo, changed, ended, err := s.hub.next(prefix, rev)
		if ended {
			return
		}
		if err != nil {
			b = WatchBatch{Rev: rev, Err: err}
		}
		if changed != nil {
			rev = upTo
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return
			}
		}
		select {
		case out <- b:
			rev = upTo
		case <-ctx.Done():
			return
		case <-s.quit:
			return
		}
		if err != nil {
			return
		}
	}
}
