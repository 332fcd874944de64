package audit

import (
	"context"
	"strings"
	"time"

	"github.com/openvstorage/ovgate/gateway/observe/linelog"
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

func (q Query) matches(e Entry) bool {
	return (q.User == "" || e.User == q.User) &&
		(q.Operation == "" || e.Operation == q.Operation) &&
		(q.Object == "" || strings.Contains(strings.ToLower(e.Object), strings.ToLower(q.Object))) &&
		!e.Time.Before(q.Since) && (q.Until.IsZero() || e.Time.Before(q.Until))
}

// List returns the newest entries that are wanted, the newest first. next, when not 0, is
// the Before of the page after this one; a page may have fewer entries than it could, and none,
// and yet not be the last.
func (l *Log) List(ctx context.Context, q Query) (entries []Entry, next uint64, err error) {
	var more uint64
	l.reads.Lock()
	defer l.reads.Unlock()
	next, err = linelog.Backward(ctx, l.files, q.Before, func(r record) bool {
		switch {
		case r.Seq <= q.After:
			return false
		case r.Kind != kindEnd || !q.matches(r.Entry):
		case len(entries) == q.Limit:
			more = entries[len(entries)-1].Seq
			return false
		default:
			entries = append(entries, r.Entry)
		}
		return true
	})
	if err != nil {
		return nil, 0, err
	}
	return entries, max(next, more), nil
}
