package audit

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/gateway/observe/linelog"
	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/clock"
)

// Defaults and bounds.
const (
	DefaultMaxBytes = 256 << 20
	DefaultMaxAge   = 90 * 24 * time.Hour
	// waitMost is how long a change waits for its line (A2).
	waitMost = 2 * time.Second
	// closeMost is how long Close waits for the disk.
	closeMost = 5 * time.Second
	// retryEvery is how often a disk that refused is tried again.
	retryEvery = 5 * time.Second
	// maxPending bounds lines that wait, and maxPendingBytes what they take (A2).
	maxPending      = 4096
	maxPendingBytes = 8 << 20
)

// Options are what a Log is opened with.
type Options struct {
	FS       blockfs.FS    // the directory of the log
	Clock    clock.Clock   // nil: the machine's
	Log      *slog.Logger  // nil: none
	MaxBytes int64         // of all files; 0: DefaultMaxBytes
	MaxAge   time.Duration // 0: DefaultMaxAge
}

// Log is the audit log of a node. Safe for concurrent use.
type Log struct {
	o Options

	mu      sync.Mutex
	pending []waiting
	bytes   int
	lost    int              // lines that found no room since the last that did
	err     error            // why the newest write failed; nil: it did not
	since   time.Time        // when the write that goes on began; zero: none does
	begun   map[string]Entry // what has not ended, by Op
	closed  bool
	kick    chan struct{} // something waits
	stop    chan struct{} // closed by Close
	done    chan struct{} // closed when nothing is written any more

	files  linelog.Options
	w      linelog.Writer[record]
	opened bool       // w is, by the goroutine that uses it
	left   []record   // what a former process has not ended
	reads  sync.Mutex // one scan at a time: it takes a file into memory
}

type waiting struct {
	r    record
	size int
	done chan struct{} // closed when it is durable, or has to wait for the disk; then nil
}

// Op is a change that was begun.
type Op struct {
	l  *Log
	id string
	e  Entry
}

// Open opens the log in a directory. It always succeeds: a log that cannot be read or
// written says so in Status, and is tried again.
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
	l := &Log{o: o, begun: map[string]Entry{}, kick: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	l.files = linelog.Options{FS: o.FS, Clock: o.Clock, Log: o.Log, Name: "audit", What: "audit log", MaxBytes: o.MaxBytes, MaxAge: o.MaxAge}
	l.w = linelog.NewWriter[record](l.files)
	go l.run()
	return l
}

// Begin records that a change is about to be made (A1). End has to follow.
func (l *Log) Begin(e Entry) *Op {
	op := &Op{l: l, id: rand.Text(), e: e.clip()}
	l.mu.Lock()
	l.begun[op.id] = op.e
	l.mu.Unlock()
	l.add(record{kindBegin, op.id, op.e})
	return op
}

// Entry returns what was begun.
func (op *Op) Entry() Entry { return op.e }

// End records how a change ended. It has to be called once.
func (op *Op) End(e Entry) {
	op.l.mu.Lock()
	delete(op.l.begun, op.id)
	op.l.mu.Unlock()
	op.l.add(record{kindEnd, op.id, e.clip()})
}

// Append records something that needs no begin.
func (l *Log) Append(e Entry) { l.add(record{kindEnd, rand.Text(), e.clip()}) }

// add hands a line to the writer, and waits until it is durable or it takes too long.
func (l *Log) add(r record) {
	w := waiting{r: r, size: entrySize(r.Entry), done: make(chan struct{})}
	l.mu.Lock()
	if l.closed || len(l.pending) >= maxPending || l.bytes+w.size > maxPendingBytes {
		l.lost++
		l.mu.Unlock()
		return
	}
	l.pending = append(l.pending, w)
	l.bytes += w.size
	// A disk that hangs, or refuses, holds nobody up a second time.
	wait := l.err == nil && (l.since.IsZero() || l.o.Clock.Now().Sub(l.since) < waitMost)
	l.mu.Unlock()
	select {
	case l.kick <- struct{}{}:
	default:
	}
	if !wait {
		return
	}
	t := l.o.Clock.NewTimer(waitMost)
	defer t.Stop()
	select {
	case <-w.done:
	case <-t.C():
	}
}

// entrySize is about what an entry takes in memory, in bytes.
func entrySize(e Entry) int {
	n := 512
	for _, c := range e.Changes {
		n += len(c.Field) + len(c.After) + 64
		if c.Before != nil {
			n += len(*c.Before)
		}
	}
	return n
}

// Status is how the log is.
type Status struct {
	Err     error // why lines wait; nil: the disk takes them
	Pending int   // lines that wait in memory
	Lost    int   // lines that found no room there
}

// Status returns how the log is.
func (l *Log) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Status{l.err, len(l.pending), l.lost}
	if s.Err == nil && !l.since.IsZero() {
		if d := l.o.Clock.Now().Sub(l.since); d >= waitMost {
			s.Err = fmt.Errorf("the disk has not answered for %s", d.Round(time.Second))
		}
	}
	return s
}

// Close writes what waits and ends the log; what cannot be written is lost, and told.
func (l *Log) Close() error {
	l.mu.Lock()
	already := l.closed
	l.closed = true
	l.mu.Unlock()
	if !already {
		close(l.stop)
	}
	t := l.o.Clock.NewTimer(closeMost)
	defer t.Stop()
	select {
	case <-l.done:
	case <-t.C():
	}
	if s := l.Status(); s.Pending > 0 || s.Lost > 0 {
		return fmt.Errorf("audit log: %d entries were not written: %w", s.Pending+s.Lost, s.Err)
	}
	return nil
}

// run writes what comes until the log is closed.
func (l *Log) run() {
	defer close(l.done)
	retry := l.o.Clock.NewTimer(retryEvery)
	defer retry.Stop()
	l.write() // what a crash left
	for open := true; open; {
		select {
		case <-l.stop:
			open = false
		case <-l.kick:
			if l.Status().Err != nil {
				continue // until it is time to try again
			}
		case <-retry.C():
			retry.Reset(retryEvery)
		}
		l.write()
	}
	l.w.Close()
}

// write writes everything that waits.
func (l *Log) write() {
	l.mu.Lock()
	batch := l.pending
	lost := l.lost
	was := l.err
	records := make([]record, 0, len(batch)+1)
	for _, w := range batch {
		records = append(records, w.r)
	}
	if lost > 0 {
		records = append(records, record{kindEnd, rand.Text(), Entry{Time: l.o.Clock.Now().UTC(), Operation: "AuditLost", Count: lost}})
	}
	open := make([]record, 0, len(l.begun))
	written := map[string]bool{}
	for _, r := range records {
		written[r.Op] = true
	}
	for id, e := range l.begun {
		if !written[id] {
			open = append(open, record{kindBegin, id, e})
		}
	}
	l.since = l.o.Clock.Now()
	l.mu.Unlock()

	n, err := l.append(records, open)

	l.mu.Lock()
	defer l.mu.Unlock()
	l.since, l.err = time.Time{}, err
	l.written(min(n, len(batch)))
	if err != nil {
		if was == nil {
			l.o.Log.Error("the audit log cannot be written: changes go on, what they are waits in memory", "error", err)
		}
		for i := range l.pending {
			if w := &l.pending[i]; w.done != nil { // A2
				close(w.done)
				w.done = nil
			}
		}
		return
	}
	if was != nil {
		l.o.Log.Info("the audit log is written again", "entries", len(batch), "lost", lost)
	}
	l.lost -= lost
}

// written takes lines that are durable out of those that wait; l.mu is held.
func (l *Log) written(n int) {
	for _, w := range l.pending[:n] {
		l.bytes -= w.size
		if w.done != nil {
			close(w.done)
		}
	}
	l.pending = append([]waiting(nil), l.pending[n:]...)
}

// append writes records, after what a crash left (A1), and returns how many of them are
// durable. open are the changes that go on: begun again in each new file, so that the newest
// file alone tells what a crash left.
func (l *Log) append(records, open []record) (int, error) {
	if !l.opened {
		newest, err := l.w.Open()
		if err != nil {
			return 0, err
		}
		l.left, l.opened = unended(newest), true
	}
	n, err := l.w.Write(append(append([]record(nil), l.left...), records...), open)
	left := min(n, len(l.left))
	l.left = l.left[left:]
	return n - left, err
}
