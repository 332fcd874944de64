package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
	"time"
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

// Bounds of an entry.
const (
	maxText    = 256 // runes of a text
	maxChanges = 64
)

// Clip bounds a text of an entry.
func Clip(s string) string {
	s = strings.ToValidUTF8(s, "?")
	n := 0
	for i := range s {
		if n++; n > maxText {
			return s[:i] + "…"
		}
	}
	return s
}

// clip returns the entry within its bounds.
func (e Entry) clip() Entry {
	for _, s := range []*string{&e.Operation, &e.Object, &e.User, &e.Token, &e.Role, &e.Address, &e.RequestID, &e.Node, &e.Code, &e.Field} {
		*s = Clip(*s)
	}
	e.Time = e.Time.UTC()
	e.Changes = append([]Change(nil), e.Changes[:min(len(e.Changes), maxChanges)]...)
	for i := range e.Changes {
		c := &e.Changes[i]
		c.Field, c.After = Clip(c.Field), Clip(c.After)
		if c.Before != nil {
			c.Before = new(Clip(*c.Before))
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

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (r record) line() ([]byte, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "%08x %s\n", crc32.Checksum(b, castagnoli), b), nil
}

// parse reads a line without its end; false: it is damaged.
func parse(line []byte) (record, bool) {
	var r record
	sum, text, ok := bytes.Cut(line, []byte(" "))
	if !ok {
		return r, false
	}
	want, err := strconv.ParseUint(string(sum), 16, 32)
	if err != nil || uint32(want) != crc32.Checksum(text, castagnoli) {
		return r, false
	}
	return r, json.Unmarshal(text, &r) == nil
}

// scan reads the lines of a file: the records in their order, the length up to the end of
// the last good line, and how many damaged ones are before that.
func scan(b []byte) (records []record, good int64, damaged int) {
	bad, at := 0, int64(0)
	for len(b) > 0 {
		line, rest, ended := bytes.Cut(b, []byte("\n"))
		at += int64(len(b) - len(rest))
		r, ok := parse(line)
		b = rest
		if !ended || !ok {
			bad++
			continue
		}
		good, damaged = at, damaged+bad
		bad = 0
		if n := len(records); n > 0 && r.Seq <= records[n-1].Seq {
			continue // a write that failed was repeated (A3)
		}
		records = append(records, r)
	}
	return records, good, damaged
}
