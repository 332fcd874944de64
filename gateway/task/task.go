// Package task keeps what a node works on for longer than a request: what runs, and what ended
// lately. Who does the work begins a task, says how far it is, and ends it; package api shows
// the tasks of all nodes as jobs.
//
//	T1  The book is in memory: it says nothing of the time before the node started. What has to
//	    go on after that is in records, and whoever goes on with it begins a task again.
//	T2  What it remembers is bounded: keepKind ended tasks of a kind, so that a thousand
//	    snapshots do not push out the one move that failed.
//	T3  Nothing that is handed out is shared: a list is a copy.
package task

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"slices"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
)

// Kind is a kind of work, as openapi.yaml lists them.
type Kind string

// Kinds of tasks.
const (
	Backup     Kind = "backup"    // of the metadata
	Claim      Kind = "claim"     // of disks of a node
	Datastore  Kind = "datastore" // of a vCenter
	Delete     Kind = "delete"
	Drain      Kind = "drain"
	Export     Kind = "export"
	Flatten    Kind = "flatten"
	HandOver   Kind = "handover"
	Import     Kind = "import"
	Move       Kind = "move"
	Schedule   Kind = "schedule"
	Scrub      Kind = "scrub"
	Sweep      Kind = "sweep"
	Verify     Kind = "verify"
	Compare    Kind = "compare" // and what follows: maintenance of the object store
	Empty      Kind = "empty"
	Rebalance  Kind = "rebalance"
	Recover    Kind = "recover"
	Survey     Kind = "survey"
	VerifyDisk Kind = "verifyOsd"
)

// Kinds are all kinds, in the order of their names.
var Kinds = []Kind{Backup, Claim, Compare, Datastore, Delete, Drain, Empty, Export, Flatten, HandOver, Import, Move, Rebalance, Recover, Schedule, Scrub, Survey, Sweep, Verify, VerifyDisk}

// State says how far a task is.
type State string

// States of a task.
const (
	Queued    State = "queued" // others have to end first
	Running   State = "running"
	Waiting   State = "waiting" // it goes on when what is in its way has ended
	Done      State = "done"
	Failed    State = "failed"
	Cancelled State = "cancelled"
)

// States are all states.
var States = []State{Queued, Running, Waiting, Done, Failed, Cancelled}

// Ended tells whether nothing follows.
func (s State) Ended() bool { return s == Done || s == Failed || s == Cancelled }

// Task is a piece of work.
type Task struct {
	ID     string // unique in the cluster
	Kind   Kind
	What   string // in words, such as "copy to vpool gold"
	Object string // as messages name it, such as "vdisk demo"; empty: the cluster
	State  State
	// Done of Total units; Total 0: not known. Bytes moved.
	Done, Total int64
	Unit        string
	Bytes       int64
	Started     time.Time
	Ended       time.Time // zero until it has
	Error       string    // why it failed, or what is in its way; empty
	Hint        string    // what to do about that; empty
	Cancels     bool      // it can be cancelled
	VPools      []string  // ids of those that it is about; none: it is about the cluster
}

// keepKind is how many ended tasks of a kind are remembered.
const keepKind = 50

// Book has the tasks of a node. Safe for concurrent use.
type Book struct {
	clock  clock.Clock
	mu     sync.Mutex
	active map[string]*Entry
	ended  map[Kind][]Task // the newest last
}

// New returns an empty Book.
func New(c clock.Clock) *Book {
	return &Book{clock: c, active: map[string]*Entry{}, ended: map[Kind][]Task{}}
}

// Entry is a task that has not ended. Its methods may be called on nil, which is no task.
type Entry struct {
	b *Book
	t Task // the Book's mu guards it
	// look brings a copy up to date; it is called without mu.
	look   func(*Task)
	cancel func(context.Context) error
}

// NewID returns an id of a task of a kind.
func NewID(k Kind) string {
	var b [5]byte
	_, _ = rand.Read(b[:]) // it does not fail
	return string(k) + "-" + hex.EncodeToString(b[:])
}

// Begin begins a task; ID, State and Started are set unless they are given. look brings a copy
// up to date and is called whenever somebody asks; cancel has it ended, and the one who does the
// work ends the task; both may be nil, and neither is called with a lock of the Book held.
func (b *Book) Begin(t Task, look func(*Task), cancel func(context.Context) error) *Entry {
	t.ID, t.State = cmp.Or(t.ID, NewID(t.Kind)), cmp.Or(t.State, Running)
	if t.Started.IsZero() {
		t.Started = b.clock.Now().UTC()
	}
	t.Cancels = t.Cancels || cancel != nil
	e := &Entry{b: b, t: t, look: look, cancel: cancel}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.active[t.ID] = e
	return e
}

// Set changes what is said of a task that has not ended.
func (e *Entry) Set(change func(*Task)) {
	if e == nil {
		return
	}
	e.b.mu.Lock()
	defer e.b.mu.Unlock()
	change(&e.t)
}

// now returns the task as it is.
func (e *Entry) now() Task {
	e.b.mu.Lock()
	t := e.t
	e.b.mu.Unlock()
	if e.look != nil {
		e.look(&t)
	}
	return t
}

// End ends a task. Only the first end of one counts.
func (e *Entry) End(s State, message, hint string) {
	if e == nil {
		return
	}
	t := e.now()
	t.State, t.Error, t.Hint, t.Ended, t.Cancels = s, message, hint, e.b.clock.Now().UTC(), false
	e.b.mu.Lock()
	defer e.b.mu.Unlock()
	if e.b.active[t.ID] != e {
		return
	}
	delete(e.b.active, t.ID)
	list := append(e.b.ended[t.Kind], t)
	e.b.ended[t.Kind] = slices.Clone(list[max(0, len(list)-keepKind):])
}

// Drop forgets a task that has not ended: it goes on elsewhere, or later.
func (e *Entry) Drop() {
	if e == nil {
		return
	}
	e.b.mu.Lock()
	defer e.b.mu.Unlock()
	if e.b.active[e.t.ID] == e {
		delete(e.b.active, e.t.ID)
	}
}

// List returns the tasks, in no particular order.
func (b *Book) List() []Task {
	b.mu.Lock()
	var out []Task
	for _, list := range b.ended {
		out = append(out, list...)
	}
	active := make([]*Entry, 0, len(b.active))
	for _, e := range b.active {
		active = append(active, e)
	}
	b.mu.Unlock()
	for _, e := range active {
		out = append(out, e.now())
	}
	return out
}

// Cancel has a task ended; false: there is no such task that can be cancelled.
func (b *Book) Cancel(ctx context.Context, id string) (bool, error) {
	b.mu.Lock()
	e := b.active[id]
	b.mu.Unlock()
	if e == nil || e.cancel == nil {
		return false, nil
	}
	return true, e.cancel(ctx)
}

// Clear forgets what ended.
func (b *Book) Clear() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.ended)
}
