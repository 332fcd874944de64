package model

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/openvstorage/ovgate/internal/kv"
)

const (
	prefix      = "model/"
	indexPrefix = prefix + "index/"
	// loadPage is how many records are read at once at start: large enough
	// that 10,000 vDisks take ten round trips, small enough for etcd's limits.
	loadPage = 1000
)

// Errors, wrapped with the record they concern.
var (
	ErrNotFound = errors.New("not found")
	// ErrExists: the name, IQN or id belongs to another record; nothing changed.
	ErrExists = errors.New("exists already")
	// ErrConflict: the record changed meanwhile; nothing changed. Read and retry.
	ErrConflict = errors.New("changed meanwhile")
	// ErrNewerFormat: a record was written by a newer ovgate.
	ErrNewerFormat = errors.New("written by a newer version: upgrade ovgate")
)

// holder is the row that has an index key, as of a revision: rows come in any order, and
// an older one does not take the key of a newer one.
type holder struct {
	key string
	rev int64
}

// table holds the rows of one kind in memory, as stored (M3). Two hands change it: this
// process's own changes, and the follower, which brings every change in order of its
// revision. Whichever comes later with a revision that memory has passed does nothing (M8).
type table[T record[T]] struct {
	kind string // as people read it; also the path segment
	kv   kv.Store
	wr   sync.Mutex // one change at a time, so that index checks and rows agree

	mu    sync.RWMutex
	rows  map[string]T
	index map[string]holder
	seen  int64            // every change up to this revision is in rows
	gone  map[string]int64 // rows that were deleted at a revision above seen

	changes atomic.Uint64 // of rows
}

func newTable[T record[T]](store kv.Store, kind string) *table[T] {
	return &table[T]{kind: kind, kv: store, rows: map[string]T{}, index: map[string]holder{}, gone: map[string]int64{}}
}

func (t *table[T]) path(key string) string { return prefix + t.kind + "/" + key }

func (t *table[T]) decode(e *kv.KV) (T, error) {
	var v T
	if err := json.Unmarshal(e.Value, &v); err != nil {
		return v, fmt.Errorf("record %s is damaged: %w", e.Key, err)
	}
	if v.format() > Format {
		return v, fmt.Errorf("record %s has format %d, this version knows %d: %w", e.Key, v.format(), Format, ErrNewerFormat)
	}
	return v.clone(e.ModRev), nil
}

// put installs a row as stored at its revision, and tells whether memory did not have it.
func (t *table[T]) put(v T) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return v.rev() > t.seen && t.putLocked(v)
}

func (t *table[T]) putLocked(v T) bool {
	key := v.key()
	if old, ok := t.rows[key]; ok && old.rev() >= v.rev() || t.gone[key] > v.rev() {
		return false
	}
	t.forgetLocked(key)
	delete(t.gone, key)
	t.rows[key] = v
	t.changes.Add(1)
	for _, k := range v.unique() {
		if t.index[k].rev < v.rev() {
			t.index[k] = holder{key, v.rev()}
		}
	}
	return true
}

// drop takes out a row that was absent at rev, and tells whether memory had it.
func (t *table[T]) drop(key string, rev int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return rev > t.seen && t.dropLocked(key, rev)
}

func (t *table[T]) dropLocked(key string, rev int64) bool {
	if old, ok := t.rows[key]; ok && old.rev() > rev {
		return false
	}
	if rev > t.seen {
		t.gone[key] = max(t.gone[key], rev)
	}
	return t.forgetLocked(key)
}

func (t *table[T]) forgetLocked(key string) bool {
	old, ok := t.rows[key]
	if !ok {
		return false
	}
	for _, k := range old.unique() {
		if t.index[k].key == key { // a later change may have given it to another
			delete(t.index, k)
		}
	}
	delete(t.rows, key)
	t.changes.Add(1)
	return true
}

func (t *table[T]) get(key string) (T, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	v, ok := t.rows[key]
	if !ok {
		return v, false
	}
	return v.clone(v.rev()), true
}

// shared is get without a copy. A row is replaced, never changed, once it is stored: what it
// points to must not be changed by who looks at it.
func (t *table[T]) shared(key string) (T, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	v, ok := t.rows[key]
	return v, ok
}

// appendShared appends the rows for which keep holds to out, as shared returns them.
func (t *table[T]) appendShared(out []T, keep func(T) bool) []T {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, v := range t.rows {
		if keep(v) {
			out = append(out, v)
		}
	}
	return out
}

// lookup finds a row by one of its index keys.
func (t *table[T]) lookup(index string) (T, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	owner, ok := t.index[index]
	if !ok {
		var zero T
		return zero, false
	}
	v := t.rows[owner.key]
	return v.clone(v.rev()), true
}

// all returns copies of the rows for which keep (nil: every row) holds.
func (t *table[T]) all(keep func(T) bool) []T {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var out []T
	if keep == nil {
		out = make([]T, 0, len(t.rows))
	}
	for _, v := range t.rows {
		if keep == nil || keep(v) {
			out = append(out, v.clone(v.rev()))
		}
	}
	return out
}

func (t *table[T]) len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.rows)
}

// insert stores a new row and its index keys (M1) when the extra conditions
// hold; ErrExists names the key that is taken, ErrConflict a condition.
func (t *table[T]) insert(ctx context.Context, v T, extra []kv.Compare, ops ...kv.Op) (T, error) {
	t.wr.Lock()
	defer t.wr.Unlock()
	if err := t.free(v, ""); err != nil {
		return v, err
	}
	b, err := json.Marshal(v)
	if err != nil {
		return v, err
	}
	cmps := append(slices.Clone(extra), kv.Absent(t.path(v.key())))
	then := append(slices.Clone(ops), kv.Put(t.path(v.key()), b))
	for _, k := range v.unique() {
		cmps = append(cmps, kv.Absent(indexPrefix+k))
		then = append(then, kv.Put(indexPrefix+k, []byte(v.key())))
	}
	return t.commit(ctx, v, cmps, then)
}

// free reports ErrExists if a key of v belongs to another row than self.
func (t *table[T]) free(v T, self string) error {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if _, ok := t.rows[v.key()]; ok && v.key() != self {
		return fmt.Errorf("%s %q: %w", t.kind, v.key(), ErrExists)
	}
	for _, k := range v.unique() {
		if owner, ok := t.index[k]; ok && owner.key != self {
			return fmt.Errorf("%s: %w", k, ErrExists)
		}
	}
	return nil
}

// update changes a row through fn, which gets a copy and may refuse with an
// error; the key must stay. Index keys follow in the same transaction.
func (t *table[T]) update(ctx context.Context, key string, fn func(*T) error) (T, error) {
	return t.updateIf(ctx, key, nil, fn)
}

// updateIf is update when the extra conditions hold; ErrConflict if they do not.
func (t *table[T]) updateIf(ctx context.Context, key string, extra []kv.Compare, fn func(*T) error) (T, error) {
	t.wr.Lock()
	defer t.wr.Unlock()
	old, ok := t.get(key)
	if !ok {
		return old, fmt.Errorf("%s %q: %w", t.kind, key, ErrNotFound)
	}
	v := old.clone(0)
	if err := fn(&v); err != nil {
		return old, err
	}
	if v.key() != key {
		return old, fmt.Errorf("%s %q: the key of a record does not change", t.kind, key)
	}
	if err := t.free(v, key); err != nil {
		return old, err
	}
	b, err := json.Marshal(v)
	if err != nil {
		return old, err
	}
	cmps := append(slices.Clone(extra), kv.ModRevIs(t.path(key), old.rev()))
	then := []kv.Op{kv.Put(t.path(key), b)}
	was, is := old.unique(), v.unique()
	for _, k := range was {
		if !slices.Contains(is, k) {
			then = append(then, kv.Delete(indexPrefix+k))
		}
	}
	for _, k := range is {
		if !slices.Contains(was, k) {
			cmps = append(cmps, kv.Absent(indexPrefix+k))
			then = append(then, kv.Put(indexPrefix+k, []byte(key)))
		}
	}
	return t.commit(ctx, v, cmps, then)
}

// remove deletes a row with its index keys; an absent one is no error.
func (t *table[T]) remove(ctx context.Context, key string, check func(T) error) error {
	t.wr.Lock()
	defer t.wr.Unlock()
	old, ok := t.get(key)
	if !ok {
		return nil
	}
	if check != nil {
		if err := check(old); err != nil {
			return err
		}
	}
	then := []kv.Op{kv.Delete(t.path(key))}
	for _, k := range old.unique() {
		then = append(then, kv.Delete(indexPrefix+k))
	}
	res, err := t.kv.Txn(ctx, []kv.Compare{kv.ModRevIs(t.path(key), old.rev())}, then, nil)
	if err != nil {
		t.reload(key)
		return fmt.Errorf("delete %s %q: %w", t.kind, key, err)
	}
	if !res.Succeeded {
		return fmt.Errorf("%s %q: %w", t.kind, key, ErrConflict)
	}
	t.drop(key, res.Rev)
	return nil
}

func (t *table[T]) commit(ctx context.Context, v T, cmps []kv.Compare, then []kv.Op) (T, error) {
	res, err := t.kv.Txn(ctx, cmps, then, nil)
	if err != nil {
		t.reload(v.key())
		return v, fmt.Errorf("store %s %q: %w", t.kind, v.key(), err)
	}
	if !res.Succeeded {
		return v, fmt.Errorf("%s %q: %w", t.kind, v.key(), ErrConflict)
	}
	v = v.clone(res.Rev)
	t.put(v)
	return v.clone(res.Rev), nil
}

// stored reads a row as the store has it now; memory stays as it is.
func (t *table[T]) stored(ctx context.Context, key string) (T, error) {
	var none T
	e, err := t.kv.Get(ctx, t.path(key))
	if err != nil {
		return none, fmt.Errorf("read %s %q: %w", t.kind, key, err)
	}
	if e == nil {
		return none, fmt.Errorf("%s %q: %w", t.kind, key, ErrNotFound)
	}
	return t.decode(e)
}

// read reads the rows for which keep (nil: every row) holds as the store has them now;
// memory stays as it is.
func (t *table[T]) read(ctx context.Context, keep func(T) bool) ([]T, error) {
	var out []T
	for after := ""; ; {
		page, _, err := t.kv.Range(ctx, t.path(""), after, loadPage)
		if err != nil {
			return nil, fmt.Errorf("read %s records: %w", t.kind, err)
		}
		for _, e := range page {
			v, err := t.decode(&e)
			if err != nil {
				return nil, err
			}
			if keep == nil || keep(v) {
				out = append(out, v)
			}
		}
		if len(page) < loadPage {
			return out, nil
		}
		after = string(page[len(page)-1].Key)
	}
}

// reload makes memory agree with the store after a transaction of unknown
// outcome (M3). It does not use the caller's context, which may be what ended
// the transaction; a store that cannot be read leaves the old row, and the next
// change of it fails its comparison.
func (t *table[T]) reload(key string) { t.fetch(context.Background(), key) }

// fetch reads one row anew.
func (t *table[T]) fetch(ctx context.Context, key string) {
	found, rev, err := t.kv.Range(ctx, t.path(key), "", 1)
	if err != nil {
		return
	}
	if len(found) == 0 || string(found[0].Key) != t.path(key) {
		t.drop(key, rev)
		return
	}
	if v, err := t.decode(&found[0]); err == nil {
		t.put(v)
	}
}
