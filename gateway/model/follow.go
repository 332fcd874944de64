package model

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/kv"
)

// Pauses between attempts to follow a store that does not answer.
const (
	followRetryMin = 100 * time.Millisecond
	followRetryMax = 5 * time.Second
)

// followed is a table as the follower sees it.
type followed interface {
	segment() string
	relist(ctx context.Context) (listed, error)
	apply(rev int64, events []kv.Event) (changed []string, err error)
}

// listed is what relist found.
type listed struct {
	rev     int64 // at which it began
	changed []string
	bad     error // records that cannot be read; memory has them as they were
}

// Change is a record that memory did not have as it is stored now: another node changed or
// deleted it, or this one did and the watch was faster than the answer.
type Change struct {
	Kind string // path segment of the record: vpool, vdisk, target, ...
	Key  string
}

// Followed hears of what Follow finds. It is called in order, from one goroutine, and must
// not wait for long.
type Followed struct {
	// Changed is told after memory holds the change; may be nil.
	Changed func(Change)
	// Problem is told why the store is not followed, and of records that cannot be read;
	// nil when it is followed again. May be nil.
	Problem func(error)
}

// Follow keeps memory up with what other nodes store (M8), until ctx ends. It runs once for
// a Store. While the store does not answer, memory stays as it is: a change that is made
// from it fails its comparison (M2).
func (s *Store) Follow(ctx context.Context, f Followed) {
	if f.Changed == nil {
		f.Changed = func(Change) {}
	}
	if f.Problem == nil {
		f.Problem = func(error) {}
	}
	wait := followRetryMin
	for ctx.Err() == nil {
		progress, err := s.follow(ctx, f)
		if ctx.Err() != nil {
			return
		}
		f.Problem(err)
		if progress {
			wait = followRetryMin
		}
		if !s.pause(ctx, wait) {
			return
		}
		wait = min(2*wait, followRetryMax)
		bad, err := s.relist(ctx, f)
		if ctx.Err() == nil {
			f.Problem(errors.Join(err, bad))
		}
	}
}

func (s *Store) pause(ctx context.Context, d time.Duration) bool {
	return clock.Sleep(ctx, s.clock, d) == nil
}

// follow applies changes until the watch ends, and tells whether it brought any.
func (s *Store) follow(ctx context.Context, f Followed) (progress bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watch, err := s.kv.Watch(ctx, prefix, s.rev)
	if err != nil {
		return false, fmt.Errorf("follow the records: %w", err)
	}
	for b := range watch {
		if b.Err != nil {
			return progress, fmt.Errorf("follow the records: %w", b.Err)
		}
		for _, t := range s.tables() {
			changed, err := t.apply(b.Rev, b.Events)
			if err != nil {
				f.Problem(err)
			}
			for _, key := range changed {
				f.Changed(Change{t.segment(), key})
			}
		}
		s.rev, progress = b.Rev, true
	}
	return progress, errors.New("follow the records: the watch ended")
}

// relist reads all records, and the revision from which to follow. bad are those that
// cannot be read.
func (s *Store) relist(ctx context.Context, f Followed) (bad, _ error) {
	var least int64
	for i, t := range s.tables() {
		l, err := t.relist(ctx)
		if err != nil {
			return bad, err
		}
		bad = errors.Join(bad, l.bad)
		if i == 0 || l.rev < least {
			least = l.rev
		}
		for _, key := range l.changed {
			f.Changed(Change{t.segment(), key})
		}
	}
	s.rev = least
	return bad, nil
}

func (t *table[T]) segment() string { return t.kind }

// relist reads every row. Pages are read at different revisions: what changed after the
// first is brought by the watch that begins there.
func (t *table[T]) relist(ctx context.Context) (l listed, _ error) {
	found := map[string]T{}
	there := map[string]bool{}
	for after := ""; ; {
		page, rev, err := t.kv.Range(ctx, t.path(""), after, loadPage)
		if err != nil {
			return l, fmt.Errorf("read %s records: %w", t.kind, err)
		}
		if after == "" {
			l.rev = rev
		}
		for _, e := range page {
			there[strings.TrimPrefix(string(e.Key), t.path(""))] = true
			v, err := t.decode(&e)
			if err != nil {
				l.bad = errors.Join(l.bad, err)
				continue
			}
			found[v.key()] = v
		}
		if len(page) < loadPage {
			break
		}
		after = string(page[len(page)-1].Key)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for key := range t.rows {
		if !there[key] && t.dropLocked(key, l.rev) {
			l.changed = append(l.changed, key)
		}
	}
	for key, v := range found {
		if t.putLocked(v) {
			l.changed = append(l.changed, key)
		}
	}
	t.passLocked(l.rev)
	return l, nil
}

// apply takes the changes of one transaction.
func (t *table[T]) apply(rev int64, events []kv.Event) (changed []string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if rev <= t.seen {
		return nil, nil
	}
	for _, e := range events {
		key, ours := strings.CutPrefix(string(e.KV.Key), t.path(""))
		if !ours {
			continue
		}
		if e.Deleted {
			if t.dropLocked(key, rev) {
				changed = append(changed, key)
			}
			continue
		}
		v, derr := t.decode(&e.KV)
		if derr != nil {
			err = errors.Join(err, derr)
			continue
		}
		if t.putLocked(v) {
			changed = append(changed, key)
		}
	}
	t.passLocked(rev)
	return changed, err
}

// passLocked says that every change up to rev is in rows.
func (t *table[T]) passLocked(rev int64) {
	t.seen = max(t.seen, rev)
	for key, at := range t.gone {
		if at <= t.seen {
			delete(t.gone, key)
		}
	}
}
