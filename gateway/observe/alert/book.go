package alert

import (
	"cmp"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"time"

	"github.com/openvstorage/ovgate/gateway/observe"
)

const (
	// maxAlerts bounds what is followed; a node reports 50 causes at most.
	maxAlerts = 1000
	// forgetAfter is how long channels that fail may yet hear that something is over.
	forgetAfter = 24 * time.Hour
)

// Cause is something wrong on a node.
type Cause struct {
	observe.Cause
	Node string // its name
}

// Rule says which causes are told, and when.
type Rule struct {
	Name   string
	Codes  []string      // patterns of path.Match over a cause's code
	Level  observe.Level // only causes of that level; empty: of any
	After  time.Duration // for how long it has to last
	Remind time.Duration // until it is told again while it lasts; 0: never
	Off    bool          // what it matches is not told
	Own    bool          // it is none of Defaults
}

// Defaults are the rules that every installation has; of several that match a cause, the
// first decides.
func Defaults() []Rule {
	return []Rule{
		{Name: "data", Codes: []string{"vdisk_lost_tail", "vdisk_damaged", "vdisk_corrupt", "vdisk_failed", "osd_*", "alba_*", "write_disk"}, Level: observe.Bad, Remind: 24 * time.Hour},
		{Name: "certificate", Codes: []string{"certificate"}, Remind: 24 * time.Hour},
		{Name: "threshold", Codes: []string{observe.ThresholdCode}, Remind: 24 * time.Hour},
		{Name: "error", Codes: []string{"*"}, Level: observe.Bad, After: time.Minute, Remind: 24 * time.Hour},
		{Name: "warning", Codes: []string{"*"}, Level: observe.Warning, After: 15 * time.Minute, Remind: 7 * 24 * time.Hour},
	}
}

func (r Rule) matches(c observe.Cause) bool {
	return (r.Level == "" || r.Level == c.State) && slices.ContainsFunc(r.Codes, func(p string) bool {
		ok, err := path.Match(p, c.Code)
		return ok && err == nil
	})
}

// Silence keeps alerts from being told for a while.
type Silence struct {
	Code   string // pattern of path.Match; empty: any
	Object string // pattern of path.Match; empty: any
	Until  time.Time
}

func (s Silence) matches(a Alert, now time.Time) bool {
	part := func(pattern, v string) bool {
		ok, err := path.Match(pattern, v)
		return pattern == "" || ok && err == nil
	}
	return now.Before(s.Until) && part(s.Code, a.Code) && part(s.Object, a.Object)
}

// over is told when a cause is gone.
const over = "over"

// Told is the newest that a channel was told of an alert.
type Told struct {
	State string    `json:"state"` // a level, or over
	At    time.Time `json:"at"`
}

// Alert is a cause that lasts, or was told and is over.
type Alert struct {
	Code   string        `json:"code"`
	Object string        `json:"object"` // "node alpha" if the cause has none
	Level  observe.Level `json:"level"`
	Text   string        `json:"text"`
	Hint   string        `json:"hint"`
	Rule   string        `json:"rule"` // that decides; empty: none does
	Since  time.Time     `json:"since"`
	Fired  time.Time     `json:"fired,omitzero"` // since when it is told; zero: not yet
	Ended  time.Time     `json:"ended,omitzero"` // zero: it goes on
	// Told is by the id of the channel.
	Told map[string]Told `json:"told,omitempty"`
}

func (a Alert) key() string { return a.Code + "\x00" + a.Object }

func (a Alert) state() string {
	if !a.Ended.IsZero() {
		return over
	}
	return string(a.Level)
}

// book is what is wrong and who was told of it. Not safe for concurrent use.
type book struct{ alerts map[string]*Alert }

func newBook() *book { return &book{alerts: map[string]*Alert{}} }

// observe takes the causes of now, and tells whether something changed.
func (b *book) observe(now time.Time, causes []Cause, rules []Rule, channels map[string]bool) bool {
	before := b.marshal()
	here := map[string]bool{}
	for _, c := range causes {
		object := c.Object
		if object == "" {
			object = "node " + c.Node
		}
		n := Alert{Code: c.Code, Object: object}
		if c.Code == observe.ThresholdCode && here[n.key()] { // each node tells of its own objects
			a := b.alerts[n.key()]
			a.Text = observe.JoinThresholds(a.Text, c.Text)
			continue
		}
		if c.Code == "more" || here[n.key()] && b.alerts[n.key()].Level == observe.Bad {
			continue // two nodes see it: the worse counts
		}
		a := b.alerts[n.key()]
		if a == nil {
			if len(b.alerts) >= maxAlerts {
				continue
			}
			n.Since = now.UTC()
			a = &n
			b.alerts[n.key()] = a
		}
		here[a.key()] = true
		a.Level, a.Text, a.Hint, a.Ended, a.Rule = c.State, c.Text, c.Hint, time.Time{}, ""
		for _, r := range rules {
			if !r.matches(c.Cause) {
				continue
			}
			a.Rule = r.Name
			if !r.Off && a.Fired.IsZero() && now.Sub(a.Since) >= r.After {
				a.Fired = now.UTC()
			}
			break
		}
	}
	for key, a := range b.alerts {
		if here[key] {
			continue
		}
		if a.Ended.IsZero() {
			a.Ended = now.UTC()
		}
		waits := false
		for id, t := range a.Told {
			waits = waits || channels[id] && t.State != over
		}
		if !waits || now.Sub(a.Ended) > forgetAfter {
			delete(b.alerts, key)
		}
	}
	return b.marshal() != before
}

// due returns what a channel is to be told now, the worst first.
func (b *book) due(channel string, now time.Time, rules []Rule, silences []Silence) []Alert {
	var out []Alert
	for _, a := range b.alerts {
		if a.Fired.IsZero() || slices.ContainsFunc(silences, func(s Silence) bool { return s.matches(*a, now) }) {
			continue
		}
		told, known := a.Told[channel]
		i := slices.IndexFunc(rules, func(r Rule) bool { return r.Name == a.Rule })
		switch state := a.state(); {
		case !known && state == over:
		case i >= 0 && rules[i].Off && state != over:
		case !known || told.State != state:
			out = append(out, *a)
		case state != over && i >= 0 && rules[i].Remind > 0 && now.Sub(told.At) >= rules[i].Remind:
			out = append(out, *a)
		}
	}
	slices.SortFunc(out, func(x, y Alert) int {
		rank := func(a Alert) int {
			return map[string]int{string(observe.Bad): 0, string(observe.Warning): 1}[a.state()] + map[bool]int{true: 2}[a.state() == over]
		}
		return cmp.Or(cmp.Compare(rank(x), rank(y)), cmp.Compare(x.key(), y.key()))
	})
	return out
}

// told remembers what a channel was told.
func (b *book) told(channel string, alerts []Alert, now time.Time) {
	for _, was := range alerts {
		a := b.alerts[was.key()]
		if a == nil {
			continue
		}
		told := make(map[string]Told, len(a.Told)+1) // copies are out
		for id, t := range a.Told {
			told[id] = t
		}
		told[channel] = Told{was.state(), now.UTC()}
		a.Told = told
	}
}

// list returns the alerts, the newest first.
func (b *book) list() []Alert {
	out := make([]Alert, 0, len(b.alerts))
	for _, a := range b.alerts {
		out = append(out, *a)
	}
	slices.SortFunc(out, func(x, y Alert) int { return cmp.Or(y.Since.Compare(x.Since), cmp.Compare(x.key(), y.key())) })
	return out
}

// marshal writes the book for storage.
func (b *book) marshal() string {
	j, err := json.Marshal(b.list())
	if err != nil {
		panic(fmt.Sprint("alert: ", err)) // nothing in it fails to marshal
	}
	return string(j)
}

// parseBook reads a stored book.
func parseBook(j []byte) (*book, error) {
	var list []Alert
	b := newBook()
	if len(j) == 0 {
		return b, nil
	}
	if err := json.Unmarshal(j, &list); err != nil {
		return b, fmt.Errorf("what was told of alerts is not understood: %w", err)
	}
	for _, a := range list[:min(len(list), maxAlerts)] {
		b.alerts[a.key()] = &a
	}
	return b, nil
}
