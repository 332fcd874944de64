package event

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/openvstorage/ovgate/gateway/observe/linelog"
)

// Event is something that happened.
type Event struct {
	Seq      uint64    `json:"seq"` // of this node; grows. 0: it is not written
	Time     time.Time `json:"time"`
	Code     Code      `json:"code"`
	Severity Severity  `json:"severity"`
	Object   string    `json:"object,omitempty"` // "vdisk demo"; empty: several
	Text     string    `json:"text"`
	Hint     string    `json:"hint,omitempty"` // what to do
	// Fields are those of the code's sentence.
	Fields map[string]string `json:"fields,omitempty"`
	// Count is how many of the same code and object this one stands for, since Since; 0: it is
	// the only one.
	Count int       `json:"count,omitempty"`
	Since time.Time `json:"since,omitzero"`
}

// Number implements linelog.Record.
func (e Event) Number() uint64 { return e.Seq }

// Numbered implements linelog.Record.
func (e Event) Numbered(n uint64) Event {
	e.Seq = n
	return e
}

// Sink takes events: pairs of a field's name and its text. It returns at once.
type Sink func(code Code, object string, fields ...string)

// Tell tells an event; a nil Sink drops it.
func (s Sink) Tell(code Code, object string, fields ...string) {
	if s != nil {
		s(code, object, fields...)
	}
}

// maxFields bounds the fields of an event.
const maxFields = 8

// Find returns what is known of a code.
func Find(code Code) (About, bool) {
	all := Catalogue()
	i, ok := slices.BinarySearchFunc(all, code, func(a About, c Code) int { return strings.Compare(string(a.Code), string(c)) })
	if !ok {
		return About{}, false
	}
	return all[i], true
}

// Severities returns all of them, the least first.
func Severities() []Severity { return slices.Clone(severities) }

// AtLeast returns the severities from one on; nil: there is no such one.
func AtLeast(s Severity) []Severity {
	i := slices.Index(severities, s)
	if i < 0 {
		return nil
	}
	return slices.Clone(severities[i:])
}

// event makes an event of a code that the catalogue has.
func (a About) event(at time.Time, object string, fields []string) Event {
	e := Event{Time: at.UTC(), Code: a.Code, Severity: a.Severity, Object: linelog.Clip(object)}
	var words []string
	for i := 0; i+1 < len(fields) && len(e.Fields) < maxFields; i += 2 {
		text := linelog.Clip(strings.Join(strings.Fields(fields[i+1]), " "))
		if e.Fields == nil {
			e.Fields = map[string]string{}
		}
		e.Fields[fields[i]] = text
		words = append(words, "{"+fields[i]+"}", text)
	}
	r := strings.NewReplacer(words...)
	e.Text, e.Hint = r.Replace(a.Text), r.Replace(a.Remedy)
	return e
}

// clone returns an event that shares nothing with this one.
func (e Event) clone() Event {
	e.Fields = maps.Clone(e.Fields)
	return e
}
