package event

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/gateway/observe/linelog"
	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/clock"
)

// Defaults and bounds.
const (
	DefaultMaxBytes = 64 << 20
	DefaultMaxAge   = 30 * 24 * time.Hour
	// fileBytes is how large a file grows: an eighth of what is kept, and what a page of a list
	// may have to read.
	fileBytes = 4 << 20
	// tickEvery is how often a disk that refused is tried again, and joined events are due.
	tickEvery = 5 * time.Second
	// closeMost is how long Close waits for the disk.
	closeMost = 5 * time.Second
	// hangMost is how long a write may take until Status tells.
	hangMost = 10 * time.Second
	// maxPending bounds events that wait for the disk: some megabytes (T2).
	maxPending = 4096
	// joinAfter events of a code on an object within joinWithin are kept one by one (T3).
	joinAfter  = 10
	joinWithin = time.Minute
	// maxWindows bounds the objects whose events are counted; those beyond share one a code.
	maxWindows = 4096
)

// Options are what a Log is opened with.
type Options struct {
	FS       blockfs.FS    // the directory of the log
	Clock    clock.Clock   // nil: the machine's
	Log      *slog.Logger  // nil: none
	MaxBytes int64         // of all files; 0: DefaultMaxBytes
	MaxAge   time.Duration // 0: DefaultMaxAge
	// Told hears of each event once it is written, or could not be (T5). It must not block;
	// nil: nobody does.
	Told func(Event)
	// Node is the name of the node, for what the log has to tell of itself.
	Node string
}

// Log is the history of events of a node. Safe for concurrent use.
type Log struct {
	o     Options
	about map[Code]About
	files linelog.Options

	mu      sync.Mutex
	windows map[source]*window
	pending []Event
	untold  int       // the last so many of pending are not told yet
	newest  uint64    // number of the newest event that is written; 0: not known yet
	lost    int       // that found no room since the last that did
	err     error     // why the newest write failed; nil: it did not
	since   time.Time // when the write that goes on began; zero: none does
	closed  bool

	kick  chan struct{} // something waits
	stop  chan struct{} // closed by Close
	done  chan struct{} // closed when nothing is written any more
	reads sync.Mutex    // one scan at a time: it takes a file into memory

	w      linelog.Writer[Event] // of the goroutine
	opened bool
}

// source is what events of a code are about.
type source struct {
	code   Code
	object string
}

// window counts the events of a source within joinWithin.
type window struct {
	began time.Time
	count int
	held  int       // not kept one by one
	first time.Time // of those
	last  Event     // of those
}

// Open opens the log in a directory. It always succeeds: a log that cannot be read or written
// says so in Status, and is tried again.
func Open(o Options) *Log {
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	if o.MaxAge == 0 {
		o.MaxAge = DefaultMaxAge
	}
	if o.Told == nil {
		o.Told = func(Event) {}
	}
	l := &Log{o: o, about: map[Code]About{}, windows: map[source]*window{}, kick: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	for _, a := range Catalogue() {
		l.about[a.Code] = a
	}
	l.files = linelog.Options{FS: o.FS, Clock: o.Clock, Log: o.Log, Name: "event", What: "history of events", MaxBytes: o.MaxBytes, MaxAge: o.MaxAge, FileBytes: fileBytes}
	l.w = linelog.NewWriter[Event](l.files)
	go l.run()
	return l
}

// Tell is the log's Sink. A code that is not in the catalogue is dropped, with a line in the
// program's log.
func (l *Log) Tell(code Code, object string, fields ...string) {
	a, ok := l.about[code]
	if !ok {
		l.o.Log.Error("an event has a code that is not in the catalogue", "code", code, "object", object)
		return
	}
	e := a.event(l.o.Clock.Now(), object, fields)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	w := l.windowLocked(source{code, e.Object}, e.Time)
	if w.count++; w.count > joinAfter {
		if w.held++; w.held == 1 {
			w.first = e.Time
		} else if w.last.Object != e.Object {
			e.Object = ""
		}
		w.last = e
		return
	}
	l.addLocked(e)
}

// windowLocked returns the window of a source at a time.
func (l *Log) windowLocked(s source, now time.Time) *window {
	w := l.windows[s]
	if w == nil && len(l.windows) >= maxWindows {
		s.object = ""
		w = l.windows[s]
	}
	if w != nil && !w.over(now) {
		return w
	}
	if w != nil {
		l.endLocked(s, w)
	}
	w = &window{began: now}
	l.windows[s] = w
	return w
}

// over tells whether the window's time has passed. A clock that jumps back ends it too.
func (w *window) over(now time.Time) bool { return now.Sub(w.began).Abs() >= joinWithin }

// endLocked keeps what a window holds as one event.
func (l *Log) endLocked(s source, w *window) {
	delete(l.windows, s)
	switch e := w.last; w.held {
	case 0:
	case 1:
		l.addLocked(e)
	default:
		e.Count, e.Since = w.held, w.first
		e.Text = fmt.Sprintf("%s (%d times in %s)", e.Text, w.held, max(e.Time.Sub(w.first), time.Second).Round(time.Second))
		l.addLocked(e)
	}
}

// addLocked hands an event to the writer.
func (l *Log) addLocked(e Event) {
	if len(l.pending) >= maxPending {
		l.lost++
		return
	}
	l.pending = append(l.pending, e)
	l.untold++
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// Status is how the log is.
type Status struct {
	Err     error // why events wait; nil: the disk takes them
	Pending int   // events that wait in memory
	Lost    int   // events that found no room there
}

// Status returns how the log is.
func (l *Log) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Status{l.err, len(l.pending), l.lost}
	if s.Err == nil && !l.since.IsZero() {
		if d := l.o.Clock.Now().Sub(l.since); d >= hangMost {
			s.Err = fmt.Errorf("the disk has not answered for %s", d.Round(time.Second))
		}
	}
	return s
}

// Close writes what waits and ends the log; what cannot be written is lost, and told.
func (l *Log) Close() error {
	l.mu.Lock()
	if !l.closed {
		for s, w := range l.windows {
			l.endLocked(s, w)
		}
		l.closed = true
		close(l.stop)
	}
	l.mu.Unlock()
	t := l.o.Clock.NewTimer(closeMost)
	defer t.Stop()
	select {
	case <-l.done:
	case <-t.C():
	}
	if s := l.Status(); s.Pending > 0 || s.Lost > 0 {
		l.o.Log.Warn("events were not written", "count", s.Pending+s.Lost, "err", s.Err)
	}
	return nil
}

// run writes what comes until the log is closed.
func (l *Log) run() {
	defer close(l.done)
	tick := l.o.Clock.NewTimer(tickEvery)
	defer tick.Stop()
	for open := true; open; {
		select {
		case <-l.stop:
			open = false
		case <-l.kick:
			if l.Status().Err != nil {
				l.tellWaiting()
				continue // until it is time to try again
			}
		case <-tick.C():
			tick.Reset(tickEvery)
			l.endWindows()
		}
		l.write()
	}
	l.w.Close()
}

// endWindows keeps what is due of joined events.
func (l *Log) endWindows() {
	now := l.o.Clock.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	for s, w := range l.windows {
		if w.over(now) {
			l.endLocked(s, w)
		}
	}
}

// write writes everything that waits.
func (l *Log) write() {
	l.mu.Lock()
	batch := make([]Event, 0, len(l.pending)+1)
	for _, e := range l.pending {
		batch = append(batch, e.clone())
	}
	waits, lost, was := len(batch), l.lost, l.err
	if lost > 0 {
		batch = append(batch, l.about[EventsLost].event(l.o.Clock.Now(), "node "+l.o.Node, []string{"count", strconv.Itoa(lost)}))
	}
	l.since = l.o.Clock.Now()
	l.mu.Unlock()

	n, err := l.append(batch)

	l.mu.Lock()
	l.since, l.err = time.Time{}, err
	if n > 0 {
		l.newest = batch[n-1].Seq
	}
	untold := max(0, l.untold-(len(l.pending)-waits)) // of the first that wait
	told := slices.Clone(batch[waits-untold : waits])
	for i := range told {
		if waits-untold+i >= n {
			told[i].Seq = 0 // it has none yet
		}
	}
	l.untold -= untold
	l.pending = append([]Event(nil), l.pending[min(n, waits):]...)
	if n == len(batch) && err == nil {
		if lost > 0 {
			told = append(told, batch[waits])
		}
		l.lost -= lost
	}
	l.mu.Unlock()
	switch {
	case err != nil && was == nil:
		l.o.Log.Error("events cannot be written; what is new waits in memory", "error", err)
	case err == nil && was != nil:
		l.o.Log.Info("events are written again", "waited", waits, "lost", lost)
	}
	l.tell(told)
}

// tellWaiting tells what waits while the disk refuses it.
func (l *Log) tellWaiting() {
	l.mu.Lock()
	var events []Event
	for _, e := range l.pending[len(l.pending)-l.untold:] {
		events = append(events, e.clone())
	}
	l.untold = 0
	l.mu.Unlock()
	l.tell(events)
}

func (l *Log) tell(events []Event) {
	for _, e := range events {
		l.o.Told(e)
	}
}

// append writes events, and returns how many are durable.
func (l *Log) append(batch []Event) (int, error) {
	if !l.opened {
		if _, err := l.w.Open(); err != nil {
			return 0, err
		}
		l.opened = true
	}
	return l.w.Write(batch, nil)
}

// Query says which events are wanted.
type Query struct {
	Severities []Severity // none: all
	Codes      []string   // codes, or what goes before the dot: "vdisk"; none: all
	Object     string     // "vdisk demo"; empty: all
	Text       string     // a part of object or sentence, whatever the case
	Since      time.Time
	Until      time.Time // exclusive; zero: now
	After      uint64    // only newer numbers
	Before     uint64    // only older numbers; 0: all
	Limit      int       // at least 1
}

// Matches tells whether an event is wanted, whatever its number.
func (q Query) Matches(e Event) bool {
	return (len(q.Severities) == 0 || slices.Contains(q.Severities, e.Severity)) &&
		(len(q.Codes) == 0 || slices.ContainsFunc(q.Codes, e.Code.Is)) &&
		(q.Object == "" || e.Object == q.Object) &&
		!e.Time.Before(q.Since) && (q.Until.IsZero() || e.Time.Before(q.Until)) &&
		(q.Text == "" || strings.Contains(strings.ToLower(e.Object+" "+e.Text), strings.ToLower(q.Text)))
}

// Is tells whether a code is meant by its name, or by the part before the dot.
func (c Code) Is(name string) bool {
	kind, _, _ := strings.Cut(string(c), ".")
	return string(c) == name || kind == name
}

// Page is a part of the history.
type Page struct {
	Events []Event // the newest first
	// Next, when not 0, is the Before of the page after this one; a page may have fewer events
	// than it could, and none, and yet not be the last.
	Next uint64
	// Newest is the number of the newest event of all, for the After of a later Query; 0: there
	// is none, or the Query had a Before.
	Newest uint64
}

// List returns the newest events that are wanted.
func (l *Log) List(ctx context.Context, q Query) (Page, error) {
	if p := (Page{Newest: l.written()}); q.Before == 0 && q.After != 0 && q.After == p.Newest {
		return p, nil // nothing is new, as nearly always for who asks again and again: no file is read
	}
	var p Page
	var more uint64
	l.reads.Lock()
	defer l.reads.Unlock()
	next, err := linelog.Backward(ctx, l.files, q.Before, func(e Event) bool {
		if q.Before == 0 && p.Newest == 0 {
			p.Newest = e.Seq
		}
		switch {
		case e.Seq <= q.After:
			return false
		case !q.Matches(e):
		case len(p.Events) == q.Limit:
			more = p.Events[len(p.Events)-1].Seq
			return false
		default:
			p.Events = append(p.Events, e)
		}
		return true
	})
	if err != nil {
		return Page{}, err
	}
	p.Next = max(next, more)
	return p, nil
}

// written returns the number of the newest event that is written; 0: not known yet.
func (l *Log) written() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.newest
}
