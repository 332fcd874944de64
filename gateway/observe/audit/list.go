package audit

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
)

// Query says which entries are wanted.
type Query struct {
	User      string // exactly
	Object    string // a part of it, whatever the case
	Operation string // exactly
	Since     time.Time
	Until     time.Time // exclusive; zero: now
	After     uint64    // only newer numbers
	Before    uint64    // only older numbers; 0: all
	Limit     int       // at least 1
}

// scanMost bounds what a list reads, in bytes: a page may have fewer entries than it could,
// and none, and yet not be the last.
const scanMost = 64 << 20

func (q Query) matches(e Entry) bool {
	return (q.User == "" || e.User == q.User) &&
		(q.Operation == "" || e.Operation == q.Operation) &&
		(q.Object == "" || strings.Contains(strings.ToLower(e.Object), strings.ToLower(q.Object))) &&
		!e.Time.Before(q.Since) && (q.Until.IsZero() || e.Time.Before(q.Until))
}

// List returns the newest entries that are wanted, the newest first. next, when not 0, is
// the Before of the page after this one.
func (l *Log) List(ctx context.Context, q Query) (entries []Entry, next uint64, err error) {
	l.reads.Lock()
	defer l.reads.Unlock()
	all, err := files(l.o.FS)
	if err != nil {
		return nil, 0, err
	}
	slices.Reverse(all)
	read, limit := int64(0), q.Before
	for _, f := range all {
		if limit != 0 && f.first >= limit {
			continue
		}
		if read += f.size; read > scanMost && read != f.size {
			return entries, next, nil
		}
		if err := ctx.Err(); err != nil {
			return nil, 0, err
		}
		b, err := blockfs.ReadFile(l.o.FS, f.name, readMost)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has gone for its age
		}
		if err != nil {
			return nil, 0, err
		}
		records, _, _ := scan(b)
		for _, r := range slices.Backward(records) {
			switch {
			case limit != 0 && r.Seq >= limit: // or hidden by a newer file (A3)
			case r.Seq <= q.After:
				return entries, 0, nil
			case r.Kind != kindEnd || !q.matches(r.Entry):
			default:
				if len(entries) == q.Limit {
					return entries, entries[len(entries)-1].Seq, nil
				}
				entries = append(entries, r.Entry)
			}
		}
		next, limit = f.first, f.first // older files are left
	}
	return entries, 0, nil
}
