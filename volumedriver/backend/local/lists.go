package local

import (
	"slices"
	"strings"
	"sync"
)

// Bounds of the listing cache.
const (
	// listingMin is the length from which a directory is worth keeping between
	// two pages; shorter ones are read again faster than they are looked after.
	listingMin = 2048
	// listingsMax bounds the number of kept listings: sweeps that walk at the
	// same time.
	listingsMax = 4
	// listingNamesMax bounds the names kept in all listings: some 100 MB. A
	// larger directory is read again for every page.
	listingNamesMax = 1 << 20
	// listingAddedMax bounds the names a listing collects while nobody reads it;
	// it is dropped beyond.
	listingAddedMax = 1 << 16
)

// listings keeps the names of large directories between the pages of a List.
//
// A listing is a superset of the names in its directory: names are added before
// the Put that made them returns, and are never taken out. List looks every name
// up before it returns it, so a deleted one costs a look-up and no more.
type listings struct {
	mu    sync.Mutex
	byDir map[string]*listing
	tick  uint64
}

// listing holds the keys of one directory: a segment for an object, a segment
// and "/" for a directory.
type listing struct {
	keys  []string // sorted; replaced, never changed
	added map[string]struct{}
	used  uint64 // tick of the last use
	ready bool   // keys was filled
}

func newListings() *listings { return &listings{byDir: map[string]*listing{}} }

// note records that a key may be new in a directory.
func (l *listings) note(dir, key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ls, ok := l.byDir[dir]
	if !ok {
		return
	}
	ls.added[key] = struct{}{}
	if len(ls.added) > listingAddedMax {
		delete(l.byDir, dir)
	}
}

// get returns the keys of a directory, sorted; read fetches them when they are
// not kept. The result is not to be changed.
func (l *listings) get(dir string, read func() ([]string, error)) ([]string, error) {
	l.mu.Lock()
	l.tick++
	if ls, ok := l.byDir[dir]; ok && ls.ready {
		ls.used = l.tick
		ls.merge()
		keys := ls.keys
		l.mu.Unlock()
		return keys, nil
	}
	// Collect what is added from before the directory is read.
	ls := &listing{added: map[string]struct{}{}, used: l.tick}
	l.byDir[dir] = ls
	l.mu.Unlock()

	keys, err := read()

	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byDir[dir] != ls { // dropped, or another reader began after us
		return keys, err
	}
	if err != nil || len(keys) < listingMin {
		delete(l.byDir, dir)
		return keys, err
	}
	ls.keys, ls.ready = keys, true
	l.trim(dir)
	return keys, nil
}

// merge moves the added keys to where they belong; the lock is held.
func (ls *listing) merge() {
	if len(ls.added) == 0 {
		return
	}
	keys := make([]string, 0, len(ls.keys)+len(ls.added))
	keys = append(keys, ls.keys...)
	for key := range ls.added {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	ls.keys = slices.Compact(keys)
	clear(ls.added)
}

// trim keeps within the bounds, favouring the directory just read; the lock is
// held.
func (l *listings) trim(newest string) {
	for {
		names, ready, oldest := 0, 0, ""
		for dir, ls := range l.byDir {
			if !ls.ready {
				continue
			}
			names += len(ls.keys)
			ready++
			if dir != newest && (oldest == "" || ls.used < l.byDir[oldest].used) {
				oldest = dir
			}
		}
		if names <= listingNamesMax && ready <= listingsMax {
			return
		}
		if oldest == "" {
			oldest = newest
		}
		delete(l.byDir, oldest)
	}
}

// done drops a directory that a List has walked to its end.
func (l *listings) done(dir string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ls, ok := l.byDir[dir]; ok && ls.ready {
		delete(l.byDir, dir)
	}
}

// search returns where the keys that sort after key begin, key itself included.
func search(keys []string, key string) int {
	i, _ := slices.BinarySearchFunc(keys, key, strings.Compare)
	return i
}
