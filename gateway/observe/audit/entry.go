package audit

import (
	"time"

	"github.com/openvstorage/ovgate/gateway/observe/linelog"
)

// Entry is a change, or an attempt at one.
type Entry struct {
	Seq       uint64    `json:"seq"`  // of this node; grows
	Time      time.Time `json:"time"` // when it was asked for
	TookMs    int64     `json:"tookMs,omitempty"`
	Operation string    `json:"operation"`
	Object    string    `json:"object,omitempty"` // "vdisk demo"
	User      string    `json:"user,omitempty"`   // empty: the node's own token, or nobody
	Token     string    `json:"token,omitempty"`  // id of the token it was asked with
	Role      string    `json:"role,omitempty"`
	Address   string    `json:"address,omitempty"` // where it came from
	RequestID string    `json:"requestId,omitempty"`
	Node      string    `json:"node,omitempty"` // that answered, if it was another one
	// Status is the HTTP status of the answer; 0: the node stopped before it ended, and its
	// outcome is unknown.
	Status  int      `json:"status"`
	Code    string   `json:"code,omitempty"`  // of a refusal
	Field   string   `json:"field,omitempty"` // that was refused
	Changes []Change `json:"changes,omitempty"`
	// Count is how many entries this one stands for besides itself.
	Count int `json:"count,omitempty"`
}

// Change is a setting before and after, without secrets.
type Change struct {
	Field  string  `json:"field"`
	Before *string `json:"before"` // nil: unknown, or there was none
	After  string  `json:"after"`
}

// maxChanges bounds the changes of an entry.
const maxChanges = 64

// clip returns the entry within its bounds.
func (e Entry) clip() Entry {
	for _, s := range []*string{&e.Operation, &e.Object, &e.User, &e.Token, &e.Role, &e.Address, &e.RequestID, &e.Node, &e.Code, &e.Field} {
		*s = linelog.Clip(*s)
	}
	e.Time = e.Time.UTC()
	e.Changes = append([]Change(nil), e.Changes[:min(len(e.Changes), maxChanges)]...)
	for i := range e.Changes {
		c := &e.Changes[i]
		c.Field, c.After = linelog.Clip(c.Field), linelog.Clip(c.After)
		if c.Before != nil {
			c.Before = new(linelog.Clip(*c.Before))
		}
	}
	return e
}

// Kinds of a record.
const (
	kindBegin = "begin"
	kindEnd   = "end"
)

// record is a line of a file.
type record struct {
	Kind string `json:"kind"`
	Op   string `json:"op"` // the same in begin and end
	Entry
}

// Number implements linelog.Record.
func (r record) Number() uint64 { return r.Seq }

// Numbered implements linelog.Record.
func (r record) Numbered(n uint64) record {
	r.Seq = n
	return r
}

// unended returns the changes that were begun and not ended, as ended.
func unended(records []record) []record {
	ended := map[string]bool{}
	for _, r := range records {
		if r.Kind == kindEnd {
			ended[r.Op] = true
		}
	}
	var left []record
	for _, r := range records {
		if r.Kind == kindBegin && !ended[r.Op] {
			r.Kind, r.Status = kindEnd, 0
			left = append(left, r)
		}
	}
	return left
}
